/* The shell's commands on records: within the transaction when one is open, else each a commit of its own. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "cli/line_editor.h"
#include "cli/output.h"
#include "cli/shell.h"

#define DELETE_CHUNK_KEYS 1000u     /* of a delete-range within a transaction */
#define STOPPED_BY_USER 1           /* returned through a walk */

bool shell_put(shell *s, const char *at, const char *end)
{
    bool quoted;
    text_mistake mistake;
    text_result result = shell_read_word(s, &at, end, &s->key, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_WORD) result = text_read_value(at, end, &s->value, &mistake);
    if (result == TEXT_NONE) return shell_usage_error(s);
    if (result == TEXT_MISTAKE) return shell_error(s, "%s", mistake.words);
    stopwatch_start(&s->watch);
    int code = s->txn != NULL ? rw_txn_put(s->txn, s->bucket, text_slice(&s->key), text_slice(&s->value))
                              : rw_put(s->db, s->bucket, text_slice(&s->key), text_slice(&s->value), s->args->write_flags);
    stopwatch_stop(&s->watch);
    if (code != 0) return shell_library_error(s, code);
    if (s->txn == NULL) return shell_say(s, "OK");
    puts("OK (staged)");
    return true;
}

static bool get(shell *s, const char *at, const char *end, bool for_update)
{
    if (!shell_read_only_word(s, at, end, &s->key)) return false;
    int code = range_get(s->db, s->txn, s->bucket, text_slice(&s->key), for_update, &s->value, &s->watch);
    if (code != 0) return shell_say_missing(s, code);
    text_clear(&s->word);
    text_append_value(&s->word, text_slice(&s->value));
    fwrite(s->word.data, 1, s->word.size, stdout);
    return shell_say(s, "");
}

bool shell_get(shell *s, const char *at, const char *end)
{
    return get(s, at, end, false);
}

bool shell_get_for_update(shell *s, const char *at, const char *end)
{
    if (s->txn == NULL) return shell_error(s, "get-for-update claims a key for a transaction, and none is open: BEGIN starts one");
    return get(s, at, end, true);
}

bool shell_del(shell *s, const char *at, const char *end)
{
    if (!shell_read_only_word(s, at, end, &s->key)) return false;
    stopwatch_start(&s->watch);
    int code = s->txn != NULL ? rw_txn_del(s->txn, s->bucket, text_slice(&s->key))
                              : rw_del(s->db, s->bucket, text_slice(&s->key), s->args->write_flags);
    stopwatch_stop(&s->watch);
    if (code != 0) return shell_say_missing(s, code);
    if (s->txn == NULL) return shell_say(s, "OK");
    puts("OK (staged)");
    return true;
}

/* Reads "limit N" and "reverse" when word is the first of these. 1: it was; 0: it is something else; -1: a mistake. */
static int read_range_option(shell *s, const char **at, const char *end, bool quoted, range *r)
{
    if (shell_word_is(&s->word, quoted, "reverse")) {
        r->reverse = true;
        return 1;
    }
    if (!shell_word_is(&s->word, quoted, "limit")) return 0;
    text_result result = shell_read_word(s, at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE) return -1;
    text_append_byte(&s->word, '\0');
    if (result == TEXT_WORD && arguments_read_count(s->word.data, &r->limit)) return 1;
    shell_error(s, "limit needs a number");
    return -1;
}

/* Reads up to bounds_max keys into key and to, with the options of a walk where they are allowed; *bounds: how many keys there were. */
static bool read_range(shell *s, const char *at, const char *end, unsigned bounds_max, bool options, range *r, unsigned *bounds)
{
    bool quoted;
    text_result result;
    *bounds = 0;
    text_clear(&s->key);
    text_clear(&s->to);
    while ((result = shell_read_word(s, &at, end, &s->word, &quoted)) == TEXT_WORD) {
        int option = options ? read_range_option(s, &at, end, quoted, r) : 0;
        if (option < 0) return false;
        if (option > 0) continue;
        if (*bounds == bounds_max) return shell_usage_error(s);
        text_assign(*bounds == 0 ? &s->key : &s->to, s->word.data, s->word.size);
        ++*bounds;
    }
    if (result == TEXT_MISTAKE) return false;
    if (range_is_backward(text_slice(&s->key), text_slice(&s->to))) return shell_error(s, "the range ends before it begins");
    r->from = text_slice(&s->key);
    r->to = text_slice(&s->to);
    return true;
}

static int print_row(void *arg, rw_slice key, rw_slice value)
{
    output *o = arg;
    output_row(o, (output_cell[]){output_cell_word(key), output_cell_value(value)});
    return line_editor_interrupted() || ferror(o->file) ? STOPPED_BY_USER : 0;
}

static bool print_range(shell *s, const range *r)
{
    static const char *const columns[] = {"key", "value"};
    output o;
    uint64_t rows;
    output_begin(&o, stdout, OUTPUT_TABLE, false, columns, 2);
    int code = range_walk(s->db, s->txn, s->bucket, r, print_row, &o, &rows, &s->watch);
    output_end(&o);
    if (code < 0) return shell_library_error(s, code);
    char time[32];
    text_format_ms(s->watch.total_ns, time);
    printf("(%" PRIu64 " record%s%s%s%s)\n", rows, rows == 1 ? "" : "s", code == STOPPED_BY_USER ? ", interrupted" : "",
           s->timing ? ", " : "", s->timing ? time : "");
    return true;
}

bool shell_scan(shell *s, const char *at, const char *end)
{
    unsigned bounds;
    range r = {.limit = UINT64_MAX};
    return read_range(s, at, end, 2, true, &r, &bounds) && print_range(s, &r);
}

bool shell_prefix(shell *s, const char *at, const char *end)
{
    unsigned bounds;
    range r = {.limit = UINT64_MAX};
    if (!read_range(s, at, end, 1, true, &r, &bounds)) return false;
    if (bounds == 0) return shell_usage_error(s);
    range_prefix_end(r.from, &s->to);
    r.to = text_slice(&s->to);
    return print_range(s, &r);
}

static int stop_when_interrupted(void *arg, rw_slice key, rw_slice value)
{
    (void)arg, (void)key, (void)value;
    return line_editor_interrupted() ? STOPPED_BY_USER : 0;
}

bool shell_count(shell *s, const char *at, const char *end)
{
    unsigned bounds;
    uint64_t rows;
    char digits[24];
    range r = {.keys_only = true, .limit = UINT64_MAX};
    if (!read_range(s, at, end, 2, false, &r, &bounds)) return false;
    int code = range_walk(s->db, s->txn, s->bucket, &r, stop_when_interrupted, NULL, &rows, &s->watch);
    if (code == STOPPED_BY_USER) return shell_error(s, "interrupted after %" PRIu64 " records", rows);
    if (code != 0) return shell_library_error(s, code);
    snprintf(digits, sizeof digits, "%" PRIu64, rows);
    return shell_say(s, digits);
}

static int print_one(void *arg, rw_slice key, rw_slice value)
{
    text_buffer *line = arg;
    text_clear(line);
    text_append_word(line, key);
    text_append_byte(line, ' ');
    text_append_value(line, value);
    fwrite(line->data, 1, line->size, stdout);
    return 0;
}

static bool print_end(shell *s, const char *at, const char *end, bool reverse)
{
    uint64_t rows;
    range r = {.reverse = reverse, .limit = 1};
    if (!shell_expect_end(s, at, end)) return false;
    int code = range_walk(s->db, s->txn, s->bucket, &r, print_one, &s->word, &rows, &s->watch);
    if (code != 0) return shell_library_error(s, code);
    return shell_say(s, rows == 0 ? "not found" : "");
}

bool shell_first(shell *s, const char *at, const char *end)
{
    return print_end(s, at, end, false);
}

bool shell_last(shell *s, const char *at, const char *end)
{
    return print_end(s, at, end, true);
}

/* Keys one behind the other, each with its size before it. */
static int gather_key(void *arg, rw_slice key, rw_slice value)
{
    (void)value;
    text_append(arg, &key.size, sizeof key.size);
    text_append(arg, key.data, key.size);
    return 0;
}

static int delete_gathered(shell *s, const text_buffer *keys)
{
    for (size_t at = 0; at < keys->size;) {
        size_t size;
        memcpy(&size, keys->data + at, sizeof size);
        at += sizeof size;
        int code = rw_txn_del(s->txn, s->bucket, rw_slice_of(keys->data + at, size));
        if (code != 0) return code;
        at += size;
    }
    return 0;
}

/* A transaction has no range delete of its own: its cursor sees its deletes, so each round meets what is left. */
static int delete_range_in_transaction(shell *s, const range *r)
{
    uint64_t rows;
    int code;
    do {
        text_clear(&s->word);
        code = range_walk(s->db, s->txn, s->bucket, r, gather_key, &s->word, &rows, &s->watch);
        if (code == 0) code = delete_gathered(s, &s->word);
    } while (code == 0 && rows == r->limit);
    return code;
}

bool shell_delete_range(shell *s, const char *at, const char *end)
{
    unsigned bounds;
    range r = {.keys_only = true, .limit = DELETE_CHUNK_KEYS};
    if (!read_range(s, at, end, 2, false, &r, &bounds)) return false;
    if (bounds != 2) return shell_usage_error(s);
    if (s->txn != NULL) {
        int staged = delete_range_in_transaction(s, &r);
        if (staged != 0) return shell_library_error(s, staged);
        puts("OK (staged)");
        return true;
    }
    stopwatch_start(&s->watch);
    int code = rw_delete_range(s->db, s->bucket, r.from, r.to, s->args->write_flags);
    stopwatch_stop(&s->watch);
    return code == 0 ? shell_say(s, "OK") : shell_library_error(s, code);
}
