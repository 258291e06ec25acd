/* The shell's commands on buckets and on the database as a whole. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "cli/output.h"
#include "cli/shell.h"
#include "cli/verb.h"

static bool use_bucket(shell *s, const char *name, unsigned flags)
{
    stopwatch_start(&s->watch);
    int code = rw_bucket_open(s->db, name, flags, &s->bucket);
    stopwatch_stop(&s->watch);
    if (code == RW_ENOTFOUND) return shell_error(s, "there is no bucket \"%s\" (bucket create %s makes one)", name, name);
    if (code != 0) return shell_library_error(s, code);
    text_assign(&s->bucket_name, name, strlen(name) + 1);
    return true;
}

static bool create_bucket(shell *s, const char *name)
{
    rw_bucket bucket;
    if (!shell_refuse_in_transaction(s)) return false;
    if (rw_bucket_open(s->db, name, 0, &bucket) == 0) return shell_error(s, "the bucket \"%s\" is there already", name);
    stopwatch_start(&s->watch);
    int code = rw_bucket_open(s->db, name, RW_CREATE, &bucket);
    stopwatch_stop(&s->watch);
    return code == 0 ? shell_say(s, "OK") : shell_library_error(s, code);
}

static bool drop_bucket(shell *s, const char *name)
{
    rw_bucket bucket;
    if (!shell_refuse_in_transaction(s)) return false;
    int code = rw_bucket_open(s->db, name, 0, &bucket);
    if (code == RW_ENOTFOUND) return shell_error(s, "there is no bucket \"%s\"", name);
    stopwatch_start(&s->watch);
    if (code == 0) code = rw_bucket_drop(s->db, bucket);
    stopwatch_stop(&s->watch);
    if (code != 0) return shell_library_error(s, code);
    bool was_in_use = strcmp(name, s->bucket_name.data) == 0;
    if (was_in_use && !use_bucket(s, "default", 0)) return false;
    return shell_say(s, was_in_use ? "OK, the bucket in use is default again" : "OK");
}

bool shell_buckets(shell *s, const char *at, const char *end)
{
    if (!shell_expect_end(s, at, end)) return false;
    int code = bucket_print(stdout, OUTPUT_TABLE, s->db);
    return code == 0 || shell_library_error(s, code);
}

bool shell_bucket(shell *s, const char *at, const char *end)
{
    bool quoted;
    text_result result = shell_read_word(s, &at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_WORD && shell_word_is(&s->word, quoted, "list")) return shell_buckets(s, at, end);
    bool use = result == TEXT_WORD && shell_word_is(&s->word, quoted, "use");
    bool create = result == TEXT_WORD && shell_word_is(&s->word, quoted, "create");
    bool drop = result == TEXT_WORD && shell_word_is(&s->word, quoted, "drop");
    if (!use && !create && !drop) return shell_usage_error(s);
    if (!shell_read_only_word(s, at, end, &s->key)) return false;
    if (s->key.size == 0 || memchr(s->key.data, '\0', s->key.size) != NULL) return shell_error(s, "a bucket's name is 1 to 255 bytes, none of them 0");
    text_append_byte(&s->key, '\0');
    if (use) return use_bucket(s, s->key.data, 0) && shell_say(s, "OK");
    return create ? create_bucket(s, s->key.data) : drop_bucket(s, s->key.data);
}

bool shell_stat(shell *s, const char *at, const char *end)
{
    rw_stats_t stats;
    if (!shell_expect_end(s, at, end)) return false;
    int code = rw_stats(s->db, &stats);
    if (code != 0) return shell_library_error(s, code);
    stat_print(stdout, OUTPUT_TABLE, &stats);
    return true;
}

static bool maintain(shell *s, const char *at, const char *end, int (*call)(rw_db *))
{
    if (!shell_expect_end(s, at, end)) return false;
    stopwatch_start(&s->watch);
    int code = call(s->db);
    stopwatch_stop(&s->watch);
    return code == 0 ? shell_say(s, "OK") : shell_library_error(s, code);
}

bool shell_checkpoint(shell *s, const char *at, const char *end)
{
    return maintain(s, at, end, rw_checkpoint);
}

bool shell_flush(shell *s, const char *at, const char *end)
{
    return maintain(s, at, end, rw_flush);
}

bool shell_compact(shell *s, const char *at, const char *end)
{
    return maintain(s, at, end, rw_compact);
}

/* Opens the database again and the bucket that was in use. Without it the session cannot go on. */
static bool open_again(shell *s)
{
    s->options.create = 0;
    int code = rw_open(s->args->positional[0], &s->options, &s->db);
    if (code != 0) {
        s->db = NULL;
        shell_library_error(s, code);
        return shell_error(s, "the database cannot be opened again: the session ends");
    }
    return use_bucket(s, s->bucket_name.data, 0);
}

/* rw_verify checks a closed database: its files must stand still. */
bool shell_verify(shell *s, const char *at, const char *end)
{
    const char *directory = s->args->positional[0];
    uint64_t findings = 0;
    bool sound = false;
    if (!shell_expect_end(s, at, end)) return false;
    if (!shell_refuse_while_open(s)) return false;
    puts("Closing the database, which verify needs; it is opened again afterwards");
    int code = rw_close(s->db);
    s->db = NULL;
    if (code != 0) {
        shell_library_error(s, code);
    } else {
        stopwatch_start(&s->watch);
        code = verify_print(stdout, OUTPUT_TABLE, directory, &findings);
        stopwatch_stop(&s->watch);
        if (code == 0) sound = shell_say(s, "Sound");
        else if (findings != 0) shell_error(s, "%s is damaged: %" PRIu64 " finding%s", directory, findings, findings == 1 ? "" : "s");
        else shell_library_error(s, code);
    }
    return open_again(s) && sound;
}

/* An option of the library is chosen when a database is opened. */
bool shell_set(shell *s, const char *at, const char *end)
{
    bool quoted;
    text_result result = shell_read_word(s, &at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_NONE || !shell_word_is(&s->word, quoted, "lock_timeout")) return shell_usage_error(s);
    if (!shell_read_only_word(s, at, end, &s->word) || !shell_refuse_while_open(s)) return false;
    text_append_byte(&s->word, '\0');
    int code = rw_options_set(&s->options, "lock_timeout_ms", s->word.data);
    if (code != 0) return shell_library_error(s, code);
    code = rw_close(s->db);
    s->db = NULL;
    if (code != 0) shell_library_error(s, code);
    if (!open_again(s) || code != 0) return false;
    printf("A lock is waited for %" PRIu32 " ms from now on\n", s->options.lock_timeout_ms);
    return true;
}
