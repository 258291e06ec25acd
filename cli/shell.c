/* The verb shell: the session, its input, and the way from a line to its command. */
#include "cli/shell.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/line_editor.h"
#include "cli/line_reader.h"
#include "cli/verb.h"

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    return at;
}

static const char *skip_word(const char *at, const char *end)
{
    while (at < end && *at != ' ' && *at != '\t') at++;
    return at;
}

/* Reads "@name" and moves *at to the command behind it. */
static bool read_address(shell *s, const char **at, const char *end)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const char *name = *at + 1, *name_end = skip_word(name, end);
    size_t size = (size_t)(name_end - name), fitting = 0;
    while (fitting < size && memchr(allowed, name[fitting], sizeof allowed - 1) != NULL) fitting++;
    if (size == 0 || size > SHELL_NAME_MAX || fitting != size)
        return shell_error(s, "a transaction's name is @ and 1 to %u letters, digits, _ - or .", SHELL_NAME_MAX);
    shell_address(s, name, size);
    *at = skip_blanks(name_end, end);
    return *at < end || shell_error(s, "@%s needs a command behind it", s->name);
}

/* Whether the command may go to the transaction that the line names. */
static bool check_address(const shell *s)
{
    if (s->name[0] == '\0') return true;
    if (!s->command->transactional) return shell_error(s, "%s is no command for a transaction: leave @%s out", s->command->name, s->name);
    return s->addressed != NULL || s->command->run == shell_begin ||
           shell_error(s, "no transaction @%s is open: @%s BEGIN starts one", s->name, s->name);
}

/* Runs one line; true when nothing was wrong with it. */
static bool run_line(shell *s, const char *line, size_t size)
{
    const char *end = line + size;
    if (size != 0 && end[-1] == '\r') end--;
    const char *at = skip_blanks(line, end);
    if (at == end || *at == '#') return true;
    shell_address(s, "", 0);
    if (*at == '@' && !read_address(s, &at, end)) return false;
    const char *name = at;
    at = skip_word(at, end);
    s->command = shell_find_command(name, (size_t)(at - name));
    s->watch = (stopwatch){0};
    if (s->command != NULL) return check_address(s) && s->command->run(s, at, end);
    text_clear(&s->word);
    text_append_word(&s->word, rw_slice_of(name, RW_MIN((size_t)(at - name), (size_t)80)));
    return shell_error(s, "unknown command %.*s (help lists the commands)", (int)s->word.size, s->word.data);
}

/* Completion */

typedef struct {
    const char *word;
    size_t size;
    line_candidate_fn add;
    void *add_arg;
} completion;

static void offer(const completion *c, const char *candidate)
{
    if (strncasecmp(candidate, c->word, c->size) == 0) c->add(c->add_arg, candidate);
}

static int offer_bucket(void *arg, const char *name, rw_bucket bucket)
{
    (void)bucket;
    text_buffer word = {0};
    text_append_word(&word, rw_slice_of(name, strlen(name)));
    text_append_byte(&word, '\0');
    offer(arg, word.data);
    text_free(&word);
    return 0;
}

static void offer_commands(const completion *c, bool transactional)
{
    for (size_t i = 0; i < shell_command_count; i++)
        if (!transactional || shell_commands[i].transactional) offer(c, shell_commands[i].name);
}

static void offer_names(const shell *s, const completion *c)
{
    for (size_t i = 0; i < s->transaction_count; i++) {
        char word[SHELL_NAME_MAX + 2];
        snprintf(word, sizeof word, "@%s", s->transactions[i].name);
        if (word[1] != '\0') offer(c, word);
    }
}

static void offer_all(const completion *c, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) offer(c, words[i]);
}

/* What may stand behind the first word of a command. */
static void offer_second(const completion *c, const char *first)
{
    static const char *const bucket_actions[] = {"create", "use", "list", "drop"}, *const shows[] = {"transactions", "locks"};
    static const char *const switches[] = {"on", "off"}, *const settings[] = {"lock_timeout"}, *const rollbacks[] = {"to"};
    if (strcasecmp(first, "help") == 0) offer_commands(c, false);
    else if (strcasecmp(first, "bucket") == 0) offer_all(c, bucket_actions, RW_ARRAY_SIZE(bucket_actions));
    else if (strcasecmp(first, "show") == 0) offer_all(c, shows, RW_ARRAY_SIZE(shows));
    else if (strcasecmp(first, "timing") == 0) offer_all(c, switches, RW_ARRAY_SIZE(switches));
    else if (strcasecmp(first, "set") == 0) offer_all(c, settings, RW_ARRAY_SIZE(settings));
    else if (strcasecmp(first, "rollback") == 0) offer_all(c, rollbacks, RW_ARRAY_SIZE(rollbacks));
    else if (strcasecmp(first, "begin") == 0)
        for (size_t i = 0; i < shell_mode_count; i++) offer(c, shell_modes[i].name);
}

/* The words before the cursor, and behind the @name where the line begins with one. */
static int split(const char *line, size_t size, bool *named, char first[16], char second[16])
{
    int name_end = 0;
    char extra, *before = strndup(line, size);
    if (before == NULL) return -1;
    *named = sscanf(before, " @%*s%n", &name_end) >= 0 && name_end != 0;
    int words = sscanf(before + name_end, " %15s %15s %c", first, second, &extra);
    free(before);
    return RW_MAX(words, 0);
}

static void complete(void *arg, const char *line, size_t size, line_candidate_fn add, void *add_arg)
{
    shell *s = arg;
    char first[16] = "", second[16] = "";
    bool named = false;
    size_t begin = size;
    while (begin > 0 && line[begin - 1] != ' ' && line[begin - 1] != '\t') begin--;
    int words = split(line, begin, &named, first, second);
    completion c = {.word = line + begin, .size = size - begin, .add = add, .add_arg = add_arg};
    if (words == 0 && !named && c.size != 0 && *c.word == '@') offer_names(s, &c);
    else if (words == 0) offer_commands(&c, named);
    else if (words == 1) offer_second(&c, first);
    else if (words == 2 && strcasecmp(first, "bucket") == 0 && (strcasecmp(second, "use") == 0 || strcasecmp(second, "drop") == 0))
        rw_bucket_list(s->db, offer_bucket, &c);
}

/* The session */

/* A terminal's characters are UTF-8 unless its locale says otherwise. */
static void choose_locale(void)
{
    if (setlocale(LC_CTYPE, "") == NULL || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

static line_editor *open_editor(shell *s)
{
    text_buffer path = {0};
    const char *home = getenv("HOME");
    if (home != NULL && home[0] != '\0') {
        text_append_string(&path, home);
        text_append(&path, "/.ringwood_history", sizeof "/.ringwood_history");
    }
    choose_locale();
    line_editor *editor = line_editor_open(path.data, complete, s);
    text_free(&path);
    return editor;
}

/* "> ", and before it which transactions are open: "(@a @b) > ", with "transaction" for the unnamed one. */
static void show_prompt(const shell *s, line_editor *editor)
{
    char text[LINE_PROMPT_MAX] = "";
    size_t size = 0;
    bool fits = true;
    for (size_t i = 0; i < s->transaction_count && fits; i++) {
        const char *name = s->transactions[i].name, *before = name[0] != '\0' ? "@" : "transaction";
        fits = size + strlen(before) + strlen(name) + sizeof "( ...) > " <= sizeof text;
        size += (size_t)snprintf(text + size, sizeof text - size, "%s%s%s", i == 0 ? "(" : " ", fits ? before : "...", fits ? name : "");
    }
    snprintf(text + size, sizeof text - size, "%s> ", size != 0 ? ") " : "");
    line_editor_set_prompt(editor, text);
}

/* Runs lines to the end of the input. Returns an exit code. */
static int run_session(shell *s, line_editor *editor, line_reader *reader)
{
    int status = EXIT_DONE;
    while (!s->quit && s->db != NULL && !ferror(stdout)) {
        const char *line;
        size_t size;
        if (editor != NULL) show_prompt(s, editor);
        line_result result = editor != NULL ? line_editor_next(editor, &line, &size) : line_reader_next(reader, &line, &size);
        s->line_number = reader->number;
        if (result == LINE_END) return status;
        if (result == LINE_INTERRUPTED) continue;
        if (result == LINE_FAILED) {
            cli_error("cannot read the input: %s", strerror(errno));
            return EXIT_STORAGE;
        }
        if (!run_line(s, line, size) && !s->interactive) status = EXIT_NEGATIVE;
    }
    return s->db != NULL ? status : EXIT_STORAGE;
}

int verb_shell(const arguments *a)
{
    database opened;
    int status = database_open(&opened, a, true);
    if (status != EXIT_DONE) return status;
    shell s = {.args = a, .options = a->options, .db = opened.db, .bucket = opened.bucket, .timing = true,
               .interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    const char *bucket_name = a->bucket != NULL ? a->bucket : "default";
    text_append(&s.bucket_name, bucket_name, strlen(bucket_name) + 1);
    line_reader reader;
    line_reader_init(&reader, STDIN_FILENO);
    line_editor *editor = s.interactive ? open_editor(&s) : NULL;
    status = run_session(&s, editor, &reader);
    shell_abandon_transactions(&s);
    if (editor != NULL) line_editor_close(editor);
    line_reader_free(&reader);
    text_buffer *const buffers[] = {&s.bucket_name, &s.key, &s.to, &s.value, &s.word};
    for (size_t i = 0; i < RW_ARRAY_SIZE(buffers); i++) text_free(buffers[i]);
    opened.db = s.db;
    if (s.db != NULL) status = database_close(&opened, status);
    return cli_finish_output(status);
}
