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

/* Runs one line; true when nothing was wrong with it. */
static bool run_line(shell *s, const char *line, size_t size)
{
    const char *at = line, *end = line + size;
    if (at < end && end[-1] == '\r') end--;
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    if (at == end || *at == '#') return true;
    const char *name = at;
    while (at < end && *at != ' ' && *at != '\t') at++;
    s->command = shell_find_command(name, (size_t)(at - name));
    s->watch = (stopwatch){0};
    if (s->command != NULL) return s->command->run(s, at, end);
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

static void offer_commands(const completion *c)
{
    for (size_t i = 0; i < shell_command_count; i++) offer(c, shell_commands[i].name);
}

static void complete(void *arg, const char *line, size_t size, line_candidate_fn add, void *add_arg)
{
    shell *s = arg;
    char first[16] = "", second[16] = "";
    size_t begin = size;
    while (begin > 0 && line[begin - 1] != ' ' && line[begin - 1] != '\t') begin--;
    char *before = strndup(line, begin);
    if (before == NULL) return;
    char extra;
    int words = sscanf(before, " %15s %15s %c", first, second, &extra);
    free(before);
    completion c = {.word = line + begin, .size = size - begin, .add = add, .add_arg = add_arg};
    if (words <= 0) {
        offer_commands(&c);
    } else if (words == 1 && strcasecmp(first, "help") == 0) {
        offer_commands(&c);
    } else if (words == 1 && strcasecmp(first, "bucket") == 0) {
        static const char *const actions[] = {"create", "use", "list", "drop"};
        for (size_t i = 0; i < RW_ARRAY_SIZE(actions); i++) offer(&c, actions[i]);
    } else if (words == 2 && strcasecmp(first, "bucket") == 0 && (strcasecmp(second, "use") == 0 || strcasecmp(second, "drop") == 0)) {
        rw_bucket_list(s->db, offer_bucket, &c);
    }
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

/* Runs lines to the end of the input. Returns an exit code. */
static int run_session(shell *s, line_editor *editor, line_reader *reader)
{
    int status = EXIT_DONE;
    while (!s->quit && s->db != NULL && !ferror(stdout)) {
        const char *line;
        size_t size;
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
    shell s = {.args = a, .db = opened.db, .bucket = opened.bucket, .timing = true, .interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    const char *bucket_name = a->bucket != NULL ? a->bucket : "default";
    text_append(&s.bucket_name, bucket_name, strlen(bucket_name) + 1);
    line_reader reader;
    line_reader_init(&reader, STDIN_FILENO);
    line_editor *editor = s.interactive ? open_editor(&s) : NULL;
    status = run_session(&s, editor, &reader);
    shell_abandon_transaction(&s);
    if (editor != NULL) line_editor_close(editor);
    line_reader_free(&reader);
    text_buffer *const buffers[] = {&s.bucket_name, &s.key, &s.to, &s.value, &s.word};
    for (size_t i = 0; i < RW_ARRAY_SIZE(buffers); i++) text_free(buffers[i]);
    opened.db = s.db;
    if (s.db != NULL) status = database_close(&opened, status);
    return cli_finish_output(status);
}
