/*
 * The verb repair: what can be read of a damaged database goes into a new one. Each bucket is walked forwards until damage is met, and then backwards from its end
 * until damage is met again, or what was copied already; what lies between is lost.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/verb.h"
#include "engine/engine.h"

#define REPAIR_BATCH_RECORDS 1000u
#define REPAIR_BATCH_BYTES (256u << 10)

typedef struct {
    const char *from_path, *to_path;
    rw_db *from, *to;
    rw_batch *batch;
    uint64_t batch_records, batch_bytes;
    uint64_t losses;
    /* the bucket that is copied */
    const char *name;
    rw_bucket bucket;                   /* in the new database */
    rw_cursor *cursor;
    uint64_t records;
    bool met_first, met_last;           /* whether there is a key in these */
    text_buffer first, last;            /* the key where the walk forwards, the walk backwards has come to */
} repair;

/* ---- what is told ------------------------------------------------------------------------------------------------ */

static void tell_loss(void *arg, const char *sentence)
{
    repair *r = arg;
    r->losses++;
    printf("lost: %s\n", sentence);
}

static bool is_damage(int code)
{
    return code == RW_ECORRUPT || code == RW_EIO;
}

static void append_key(text_buffer *sentence, bool met, const text_buffer *key, const char *otherwise)
{
    if (met) text_append_word(sentence, text_slice(key));
    else text_append_string(sentence, otherwise);
}

static void sentence_begin(const repair *r, text_buffer *sentence)
{
    text_append_string(sentence, "bucket ");
    text_append_word(sentence, rw_slice_of(r->name, strlen(r->name)));
}

/* Ends the sentence with what the library's last call met. */
static void sentence_tell(repair *r, text_buffer *sentence)
{
    text_append_string(sentence, ": ");
    text_append_string(sentence, rw_last_error(r->from));
    text_append_byte(sentence, '\0');
    tell_loss(r, sentence->data);
    text_free(sentence);
}

static void tell_gap(repair *r)
{
    text_buffer sentence = {0};
    sentence_begin(r, &sentence);
    text_append_string(&sentence, ": all between ");
    append_key(&sentence, r->met_first, &r->first, "the beginning");
    text_append_string(&sentence, " and ");
    append_key(&sentence, r->met_last, &r->last, "the end");
    sentence_tell(r, &sentence);
}

static void tell_value(repair *r, rw_slice key)
{
    text_buffer sentence = {0};
    sentence_begin(r, &sentence);
    text_append_string(&sentence, ": the value of ");
    text_append_word(&sentence, key);
    sentence_tell(r, &sentence);
}

/* ---- copying ----------------------------------------------------------------------------------------------------- */

static int write_failed(const repair *r, int code)
{
    cli_error_library(NULL, code, "cannot write %s, which is incomplete", r->to_path);
    return EXIT_STORAGE;
}

static int commit_batch(repair *r)
{
    int code = r->batch_records > 0 ? rw_batch_commit(r->batch, RW_ASYNC) : 0;
    r->batch_records = r->batch_bytes = 0;
    return code == 0 ? EXIT_DONE : write_failed(r, code);
}

/* The record that the cursor stands on. A value that cannot be read is a loss for itself: large ones do not lie in the page. */
static int copy_record(repair *r, rw_slice key)
{
    rw_slice value;
    int code = rw_cursor_value(r->cursor, &value);
    if (is_damage(code)) {
        tell_value(r, key);
        return EXIT_DONE;
    }
    if (code != 0) return cli_error_library(r->from, code, "cannot read %s", r->from_path);
    code = rw_batch_put(r->batch, r->bucket, key, value);
    if (code != 0) return write_failed(r, code);
    r->records++;
    r->batch_records++;
    r->batch_bytes += key.size + value.size;
    return r->batch_records >= REPAIR_BATCH_RECORDS || r->batch_bytes >= REPAIR_BATCH_BYTES ? commit_batch(r) : EXIT_DONE;
}

/* Walks until *code, the cursor's, is not 0; backwards also until a key that was copied already: then *code is RW_ENOTFOUND, too. */
static int copy_walk(repair *r, bool forward, int *code)
{
    bool *met = forward ? &r->met_first : &r->met_last;
    text_buffer *at = forward ? &r->first : &r->last;
    int status = EXIT_DONE;
    *code = forward ? rw_cursor_first(r->cursor) : rw_cursor_last(r->cursor);
    while (*code == 0 && status == EXIT_DONE) {
        rw_slice key;
        *code = rw_cursor_key(r->cursor, &key);
        if (*code != 0) break;
        if (!forward && r->met_first && rw_slice_compare(key, text_slice(&r->first)) <= 0) {
            *code = RW_ENOTFOUND;
            break;
        }
        text_assign(at, key.data, key.size);       /* the key itself does not outlive a value that has to be looked up again */
        *met = true;
        status = copy_record(r, text_slice(at));
        if (status == EXIT_DONE) *code = forward ? rw_cursor_next(r->cursor) : rw_cursor_prev(r->cursor);
    }
    return status;
}

static int copy_records(repair *r)
{
    int code;
    int status = copy_walk(r, true, &code);
    if (status == EXIT_DONE && is_damage(code)) {
        status = copy_walk(r, false, &code);
        if (status == EXIT_DONE && is_damage(code)) tell_gap(r);
    }
    if (status == EXIT_DONE) status = commit_batch(r);
    if (status != EXIT_DONE || code == RW_ENOTFOUND || is_damage(code)) return status;
    return cli_error_library(r->from, code, "cannot read %s", r->from_path);
}

static int copy_bucket(repair *r, rw_bucket from)
{
    int code = rw_bucket_open(r->to, r->name, RW_CREATE, &r->bucket);
    if (code != 0) return write_failed(r, code);
    code = rw_cursor_open(r->from, NULL, from, &r->cursor);
    if (code != 0) return cli_error_library(r->from, code, "bucket \"%s\"", r->name);
    r->records = 0;
    r->met_first = r->met_last = false;
    int status = copy_records(r);
    rw_cursor_close(r->cursor);
    if (status != EXIT_DONE) return status;
    text_buffer sentence = {0};
    sentence_begin(r, &sentence);
    printf("copied: %.*s: %" PRIu64 " record%s\n", (int)sentence.size, sentence.data, r->records, r->records == 1 ? "" : "s");
    text_free(&sentence);
    return EXIT_DONE;
}

/* Buckets one after the other: the number's bytes, the name, a 0 byte. */
typedef struct {
    text_buffer bytes;
    bool has_default;
} bucket_names;

static int gather_bucket(void *arg, const char *name, rw_bucket bucket)
{
    bucket_names *buckets = arg;
    text_append(&buckets->bytes, &bucket, sizeof bucket);
    text_append(&buckets->bytes, name, strlen(name) + 1);
    buckets->has_default |= bucket == RW_DEFAULT_BUCKET;
    return 0;
}

/* Where names cannot be read, which the opening has told, those before are copied. */
static int copy_buckets(repair *r)
{
    bucket_names buckets = {0};
    int status = EXIT_DONE;
    int code = rw_bucket_list(r->from, gather_bucket, &buckets);
    if (is_damage(code) && !buckets.has_default) code = gather_bucket(&buckets, "default", RW_DEFAULT_BUCKET); /* its name stands nowhere */
    if (code != 0 && !is_damage(code)) status = cli_error_library(r->from, code, "buckets of %s", r->from_path);
    for (size_t at = 0; status == EXIT_DONE && at < buckets.bytes.size; at += sizeof(rw_bucket) + strlen(r->name) + 1) {
        rw_bucket from;
        memcpy(&from, buckets.bytes.data + at, sizeof from);
        r->name = buckets.bytes.data + at + sizeof from;
        status = copy_bucket(r, from);
    }
    text_free(&buckets.bytes);
    return status;
}

/* ---- both databases ---------------------------------------------------------------------------------------------- */

/* Whether a new database may be made there; says why not. */
static bool target_is_free(const char *path)
{
    errno = 0;
    DIR *directory = opendir(path);
    if (directory == NULL) {
        if (errno == ENOENT) return true;
        cli_error("cannot use %s: %s", path, strerror(errno));
        return false;
    }
    bool empty = true;
    for (const struct dirent *entry; empty && (entry = readdir(directory)) != NULL;)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(directory);
    if (!empty) cli_error("%s is not empty: what can be read is copied into a new database", path);
    return empty;
}

/* With the source open. */
static int copy_database(repair *r, rw_options options)
{
    rw_stats_t stats;
    int code = rw_stats(r->from, &stats);
    if (code != 0) return cli_error_library(r->from, code, "stat");
    options.page_size = (uint32_t)stats.page_size;
    options.create = 1;
    code = rw_open(r->to_path, &options, &r->to);
    if (code != 0) return cli_error_library(NULL, code, "cannot create %s", r->to_path);
    code = rw_batch_new(r->to, &r->batch);
    int status = code == 0 ? copy_buckets(r) : write_failed(r, code);
    if (status == EXIT_DONE) {
        code = rw_flush(r->to);
        if (code != 0) status = write_failed(r, code);
    }
    rw_batch_free(r->batch);
    code = rw_close(r->to);
    return code == 0 || status != EXIT_DONE ? status : write_failed(r, code);
}

int verb_repair(const arguments *a)
{
    repair r = {.from_path = a->positional[0], .to_path = a->positional[1]};
    if (a->options.read_only != 0) {
        cli_error("repair writes %s: --read-only is not for it", r.to_path);
        return EXIT_USAGE;
    }
    if (!target_is_free(r.to_path)) return EXIT_USAGE;
    int code = db_open_salvage(r.from_path, &a->options, tell_loss, &r, &r.from);
    if (code != 0) return cli_finish_output(cli_error_library(NULL, code, "cannot open %s", r.from_path));
    int status = copy_database(&r, a->options);
    rw_close(r.from);
    text_free(&r.first);
    text_free(&r.last);
    if (status == EXIT_DONE && r.losses == 0) puts("nothing was lost");
    if (status == EXIT_DONE && r.losses > 0) {
        cli_error("%s is damaged: %" PRIu64 " loss%s; %s holds the rest", r.from_path, r.losses, r.losses == 1 ? "" : "es", r.to_path);
        status = EXIT_NEGATIVE;
    }
    return cli_finish_output(status);
}
