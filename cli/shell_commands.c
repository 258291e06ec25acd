/* The table of the shell's commands, what they share, and those that concern the session itself. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/shell.h"

const shell_command shell_commands[] = {
    {"put", "put KEY VALUE", "writes a record; the value is the rest of the line, or one \"quoted\" string", shell_put},
    {"get", "get KEY", "shows the value of a key", shell_get},
    {"del", "del KEY", "deletes a record", shell_del},
    {"scan", "scan [FROM [TO]] [limit N] [reverse]", "shows the records with FROM <= key < TO; an empty bound \"\" is none", shell_scan},
    {"prefix", "prefix P [limit N] [reverse]", "shows the records whose key begins with P", shell_prefix},
    {"count", "count [FROM [TO]]", "counts records", shell_count},
    {"first", "first", "shows the record with the first key", shell_first},
    {"last", "last", "shows the record with the last key", shell_last},
    {"delete-range", "delete-range FROM TO", "deletes the records with FROM <= key < TO; an empty bound \"\" is none", shell_delete_range},
    {"begin", "BEGIN [READONLY]", "starts a transaction", shell_begin},
    {"commit", "COMMIT", "makes the transaction's writes durable and visible", shell_commit},
    {"rollback", "ROLLBACK [TO NAME]", "gives up the transaction, or what came after a savepoint", shell_rollback},
    {"savepoint", "SAVEPOINT NAME", "marks a state of the transaction to come back to", shell_savepoint_set},
    {"bucket", "bucket create|use|drop NAME, bucket list", "works with buckets; commands act on the one in use", shell_bucket},
    {"buckets", "buckets", "shows the names of all buckets", shell_buckets},
    {"stat", "stat", "shows the counters of the store", shell_stat},
    {"flush", "flush", "waits until all that was written is durable", shell_flush},
    {"checkpoint", "checkpoint", "writes a checkpoint", shell_checkpoint},
    {"compact", "compact", "rewrites sparse segments and gives free space back", shell_compact},
    {"verify", "verify", "closes the database, checks all of it, and opens it again", shell_verify},
    {"timing", "timing on | off", "shows the time of each operation, or not", shell_timing},
    {"help", "help [COMMAND]", "shows this, or more of one command", shell_help},
    {"quit", "quit", "ends the session", shell_quit},
    {"exit", "exit", "ends the session", shell_quit},
};

const size_t shell_command_count = RW_ARRAY_SIZE(shell_commands);

const shell_command *shell_find_command(const char *name, size_t size)
{
    for (size_t i = 0; i < shell_command_count; i++) {
        const char *candidate = shell_commands[i].name;
        if (strlen(candidate) == size && strncasecmp(candidate, name, size) == 0) return &shell_commands[i];
    }
    return NULL;
}

bool shell_error(const shell *s, const char *format, ...)
{
    char words[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    if (s->interactive) cli_error("%s", words);
    else cli_error("line %llu: %s", (unsigned long long)s->line_number, words);
    return false;
}

bool shell_library_error(const shell *s, int code)
{
    const char *words = rw_last_error(s->db);
    return shell_error(s, "%s", words[0] != '\0' ? words : rw_strerror(code));
}

bool shell_usage_error(const shell *s)
{
    return shell_error(s, "usage: %s", s->command->usage);
}

void shell_print_time(const shell *s)
{
    char time[32];
    if (!s->timing) return;
    text_format_ms(s->watch.total_ns, time);
    printf(" (%s)", time);
}

bool shell_say(const shell *s, const char *text)
{
    fputs(text, stdout);
    shell_print_time(s);
    putchar('\n');
    return true;
}

bool shell_say_missing(const shell *s, int code)
{
    return code == RW_ENOTFOUND ? shell_say(s, "not found") : shell_library_error(s, code);
}

text_result shell_read_word(shell *s, const char **at, const char *end, text_buffer *out, bool *quoted)
{
    text_mistake mistake;
    text_result result = text_read_word(at, end, out, quoted, &mistake);
    if (result == TEXT_MISTAKE) shell_error(s, "%s", mistake.words);
    return result;
}

bool shell_expect_end(const shell *s, const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    return at == end || shell_usage_error(s);
}

bool shell_read_only_word(shell *s, const char *at, const char *end, text_buffer *out)
{
    bool quoted;
    text_result result = shell_read_word(s, &at, end, out, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_NONE) return shell_usage_error(s);
    return shell_expect_end(s, at, end);
}

bool shell_word_is(const text_buffer *word, bool quoted, const char *keyword)
{
    return !quoted && word->size == strlen(keyword) && strncasecmp(word->data, keyword, word->size) == 0;
}

bool shell_refuse_in_transaction(const shell *s)
{
    if (s->txn == NULL) return true;
    return shell_error(s, "%s is not part of a transaction: COMMIT or ROLLBACK first", s->command->name);
}

bool shell_timing(shell *s, const char *at, const char *end)
{
    if (!shell_read_only_word(s, at, end, &s->word)) return false;
    bool on = shell_word_is(&s->word, false, "on");
    if (!on && !shell_word_is(&s->word, false, "off")) return shell_usage_error(s);
    s->timing = on;
    puts(on ? "Timing is on" : "Timing is off");
    return true;
}

static void print_help_on_typing(void)
{
    puts("A key is bare up to the next blank, or \"quoted\". \\n \\t \\\" \\\\ and \\xNN are escapes in both.\n"
         "A value is the rest of the line as it stands; one that begins with a quote is a quoted string.\n"
         "What is shown can be typed back. A line that begins with # is skipped.");
}

bool shell_help(shell *s, const char *at, const char *end)
{
    bool quoted;
    text_result result = shell_read_word(s, &at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE || !shell_expect_end(s, at, end)) return false;
    if (result == TEXT_WORD) {
        const shell_command *command = shell_find_command(s->word.data, s->word.size);
        if (command == NULL) return shell_error(s, "there is no command \"%.*s\"", (int)RW_MIN(s->word.size, (size_t)80), s->word.data);
        printf("%s\n  %s\n", command->usage, command->summary);
        return true;
    }
    for (size_t i = 0; i < shell_command_count; i++) printf("%-40s %s\n", shell_commands[i].usage, shell_commands[i].summary);
    print_help_on_typing();
    return true;
}

bool shell_quit(shell *s, const char *at, const char *end)
{
    if (!shell_expect_end(s, at, end)) return false;
    return s->quit = true;
}
