/* The table of the shell's commands, what they share, and those that concern the session itself. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/shell.h"

const shell_command shell_commands[] = {
    {"put", "put KEY VALUE", "writes a record; the value is the rest of the line, or one \"quoted\" string", true, shell_put},
    {"get", "get KEY", "shows the value of a key", true, shell_get},
    {"get-for-update", "get-for-update KEY", "shows the value of a key and claims the key for the transaction", true, shell_get_for_update},
    {"del", "del KEY", "deletes a record", true, shell_del},
    {"scan", "scan [FROM [TO]] [limit N] [reverse]", "shows the records with FROM <= key < TO; an empty bound \"\" is none", true, shell_scan},
    {"prefix", "prefix P [limit N] [reverse]", "shows the records whose key begins with P", true, shell_prefix},
    {"count", "count [FROM [TO]]", "counts records", true, shell_count},
    {"first", "first", "shows the record with the first key", true, shell_first},
    {"last", "last", "shows the record with the last key", true, shell_last},
    {"delete-range", "delete-range FROM TO", "deletes the records with FROM <= key < TO; an empty bound \"\" is none", true, shell_delete_range},
    {"cas", "cas KEY EXPECTED NEW", "writes NEW if the value is EXPECTED; a bare - is no value", false, shell_cas},
    {"add", "add KEY DELTA", "adds to a counter, a value of 8 bytes, and shows the sum", false, shell_add},
    {"begin", "BEGIN [SNAPSHOT|SERIALIZABLE|PESSIMISTIC|READONLY]", "starts a transaction", true, shell_begin},
    {"commit", "COMMIT", "makes the transaction's writes durable and visible", true, shell_commit},
    {"rollback", "ROLLBACK [TO NAME]", "gives up the transaction, or what came after a savepoint", true, shell_rollback},
    {"savepoint", "SAVEPOINT [NAME]", "marks a state of the transaction to come back to", true, shell_savepoint_set},
    {"show", "show transactions | locks", "shows the open transactions, or who holds and who awaits which lock", false, shell_show},
    {"bucket", "bucket create|use|drop NAME, bucket list", "works with buckets; commands act on the one in use", false, shell_bucket},
    {"buckets", "buckets", "shows the names of all buckets", false, shell_buckets},
    {"stat", "stat", "shows the counters of the store", false, shell_stat},
    {"flush", "flush", "waits until all that was written is durable", false, shell_flush},
    {"checkpoint", "checkpoint", "writes a checkpoint", false, shell_checkpoint},
    {"compact", "compact", "rewrites sparse segments and gives free space back", false, shell_compact},
    {"verify", "verify", "closes the database, checks all of it, and opens it again", false, shell_verify},
    {"set", "set lock_timeout MS", "how long a lock is waited for; closes the database and opens it again", false, shell_set},
    {"timing", "timing on | off", "shows the time of each operation, or not", false, shell_timing},
    {"help", "help [COMMAND]", "shows this, or more of one command", false, shell_help},
    {"quit", "quit", "ends the session", false, shell_quit},
    {"exit", "exit", "ends the session", false, shell_quit},
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

/* Whether words hold this number, not as a part of a longer one. */
static bool has_number(const char *words, const char *digits)
{
    static const char all_digits[] = "0123456789";
    for (size_t run; *words != '\0'; words += run != 0 ? run : 1) {
        run = strspn(words, all_digits);
        if (run == strlen(digits) && memcmp(words, digits, run) == 0) return true;
    }
    return false;
}

bool shell_library_error(const shell *s, int code)
{
    text_buffer line = {0};
    const char *words = rw_last_error(s->db);
    if (words[0] == '\0') words = rw_strerror(code);
    text_append_string(&line, words);
    bool names_any = strstr(words, "transaction") != NULL;
    for (size_t i = 0; i < s->transaction_count && names_any; i++) {
        const shell_transaction *t = &s->transactions[i];
        char digits[24];
        snprintf(digits, sizeof digits, "%" PRIu64, t->id);
        if (t == s->addressed || !has_number(words, digits)) continue;
        text_append_string(&line, " (");
        text_append_string(&line, digits);
        text_append_string(&line, " is ");
        shell_append_transaction(&line, t);
        text_append_byte(&line, ')');
    }
    shell_error(s, "%.*s", (int)line.size, line.data);
    text_free(&line);
    return false;
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
    puts("@NAME before a command gives it to the transaction of that name, so several can be open: @a BEGIN, @a put KEY VALUE, @a COMMIT.\n"
         "Without @NAME it goes to the transaction that a plain BEGIN started; if there is none, it is a commit of its own.\n"
         "A key is bare up to the next blank, or \"quoted\". \\n \\t \\\" \\\\ and \\xNN are escapes in both.\n"
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
