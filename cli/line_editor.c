#include "cli/line_editor.h"

#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/base.h"

#define HISTORY_LINES 1000

struct line_editor {
    EditLine *el;
    History *history;
    char *history_path;
    char prompt[LINE_PROMPT_MAX];
    line_complete_fn complete;
    void *complete_arg;
    struct sigaction former_interrupt;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

bool line_editor_interrupted(void)
{
    return interrupted != 0;
}

static char *prompt(EditLine *el)
{
    line_editor *editor;
    el_get(el, EL_CLIENTDATA, &editor);
    return editor->prompt;
}

void line_editor_set_prompt(line_editor *editor, const char *text)
{
    snprintf(editor->prompt, sizeof editor->prompt, "%s", text);
}

/* Waits for input, and only here lets ^C in, so that it cannot come between a look at `interrupted` and the wait. */
static int wait_for_input(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t open_to_interrupt;
    pthread_sigmask(SIG_SETMASK, NULL, &open_to_interrupt);
    sigdelset(&open_to_interrupt, SIGINT);
    return ppoll(&input, 1, NULL, &open_to_interrupt);
}

/* libedit's own reader begins again after a signal; this one lets ^C end the line. */
static int read_character(EditLine *el, wchar_t *character)
{
    mbstate_t state = {0};
    (void)el;
    for (;;) {
        char byte;
        int ready = wait_for_input();
        if (interrupted) return 0;
        ssize_t got = ready < 0 ? -1 : read(STDIN_FILENO, &byte, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return (int)got;
        size_t length = mbrtowc(character, &byte, 1, &state);
        if (length == (size_t)-2) continue;
        if (length != (size_t)-1) return 1;
        state = (mbstate_t){0};         /* a byte that is no character here is dropped: \xNN types it */
    }
}

/* Completion */

typedef struct {
    text_buffer words;          /* each ended by a 0 byte */
    size_t count;
    size_t shared;              /* bytes that all of them begin with */
} candidates;

static void add_candidate(void *arg, const char *word)
{
    candidates *c = arg;
    size_t same = 0;
    while (word[same] != '\0' && word[same] == c->words.data[same] && c->count != 0) same++;
    if (c->count == 0) c->shared = strlen(word);
    else if (same < c->shared) c->shared = same;
    text_append(&c->words, word, strlen(word) + 1);
    c->count++;
}

static size_t word_size(const char *line, size_t size)
{
    size_t length = 0;
    while (length < size && line[size - length - 1] != ' ' && line[size - length - 1] != '\t') length++;
    return length;
}

static void list_candidates(const candidates *c)
{
    putchar('\n');
    for (size_t at = 0; at < c->words.size; at += strlen(c->words.data + at) + 1) printf("%s  ", c->words.data + at);
    putchar('\n');
    fflush(stdout);
}

static unsigned char complete_word(EditLine *el, int character)
{
    line_editor *editor;
    candidates c = {0};
    unsigned char outcome = CC_ERROR;
    (void)character;
    el_get(el, EL_CLIENTDATA, &editor);
    const LineInfo *info = el_line(el);
    size_t size = (size_t)(info->cursor - info->buffer), typed = word_size(info->buffer, size);
    text_reserve(&c.words, 1);
    editor->complete(editor->complete_arg, info->buffer, size, add_candidate, &c);
    if (c.count != 0 && (c.shared > typed || c.count == 1)) {
        text_buffer rest = {0};
        text_append(&rest, c.words.data + typed, c.shared - typed);
        text_append(&rest, " ", c.count == 1 ? 2 : 0);
        if (c.count != 1) text_append_byte(&rest, '\0');
        if (el_insertstr(el, rest.data) == 0) outcome = CC_REFRESH;
        text_free(&rest);
    } else if (c.count > 1) {
        list_candidates(&c);
        outcome = CC_REDISPLAY;
    }
    text_free(&c.words);
    return outcome;
}

/* History */

static void open_history(line_editor *editor, const char *path)
{
    HistEvent event;
    editor->history = history_init();
    if (editor->history == NULL) return;
    history(editor->history, &event, H_SETSIZE, HISTORY_LINES);
    history(editor->history, &event, H_SETUNIQUE, 1);
    if (path != NULL) {
        editor->history_path = strdup(path);
        history(editor->history, &event, H_LOAD, path);
    }
    el_set(editor->el, EL_HIST, history, editor->history);
}

static void remember(line_editor *editor, const char *line)
{
    HistEvent event;
    if (editor->history != NULL && line[strspn(line, " \t\r\n")] != '\0') history(editor->history, &event, H_ENTER, line);
}

line_editor *line_editor_open(const char *history_path, line_complete_fn complete, void *arg)
{
    line_editor *editor = calloc(1, sizeof *editor);
    if (editor == NULL) return NULL;
    editor->complete = complete;
    editor->complete_arg = arg;
    line_editor_set_prompt(editor, "> ");
    editor->el = el_init("ringwood", stdin, stdout, stderr);
    if (editor->el == NULL) {
        free(editor);
        return NULL;
    }
    el_set(editor->el, EL_CLIENTDATA, editor);
    el_set(editor->el, EL_PROMPT, prompt);
    el_set(editor->el, EL_EDITOR, "emacs");
    el_set(editor->el, EL_GETCFN, read_character);
    el_set(editor->el, EL_SIGNAL, 1);   /* the terminal is put right when the session is suspended, resumed or killed */
    /* the wide form: el_set would leak its copies of these strings */
    el_wset(editor->el, EL_ADDFN, L"complete-word", L"completes the word before the cursor", complete_word);
    el_set(editor->el, EL_BIND, "^I", "complete-word", NULL);
    el_set(editor->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    open_history(editor, history_path);
    el_source(editor->el, NULL);        /* the user's .editrc */
    const struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, &editor->former_interrupt);
    return editor;
}

line_result line_editor_next(line_editor *editor, const char **line, size_t *size)
{
    int length = 0;
    sigset_t interrupt, former;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    pthread_sigmask(SIG_BLOCK, &interrupt, &former);
    interrupted = 0;
    fflush(stdout);
    const char *text = el_gets(editor->el, &length);
    pthread_sigmask(SIG_SETMASK, &former, NULL);
    if (interrupted) {
        fputs("^C\n", stdout);
        return LINE_INTERRUPTED;
    }
    if (text == NULL || length <= 0) {
        fputc('\n', stdout);
        return length < 0 ? LINE_FAILED : LINE_END;
    }
    remember(editor, text);
    *line = text;
    *size = (size_t)length - (text[length - 1] == '\n');
    return LINE_READ;
}

void line_editor_close(line_editor *editor)
{
    HistEvent event;
    if (editor->history_path != NULL) history(editor->history, &event, H_SAVE, editor->history_path);
    sigaction(SIGINT, &editor->former_interrupt, NULL);
    if (editor->history != NULL) history_end(editor->history);
    el_end(editor->el);
    free(editor->history_path);
    free(editor);
}
