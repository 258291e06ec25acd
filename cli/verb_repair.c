/*
 * The verb repair: what can be read of a damaged database goes into a new one. Each bucket is walked forwards; where a page cannot be read the walk goes on behind it,
 * and what lies between is lost.
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
#define REPAIR_KEY_ROOM ((size_t)64 << 10)   /* a key is shorter than a page */

typedef struct {
    const char *from_path, *to_path;
    rw_db *from, *to;
    rw_batch *batch;
    uint64_t batch_records, batch_bytes;
    uint64_t losses;
    /* the bucket that is copied */
    const char *name;
    rw_bucket from_bucket, bucket;      /* in the old, in the new database */
    rw_cursor *cursor;
    uint64_t records;
    bool met;                           /* whether there is a last one */
    text_buffer last;                   /* the key of the last record met */
    bool in_gap;                        /* damage was met after it */
    text_buffer why;
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

static void sentence_begin(const repair *r, text_buffer *sentence)
{
    text_append_string(sentence, "bucket ");
    text_append_word(sentence, rw_slice_of(r->name, strlen(r->name)));
}

static void sentence_tell(repair *r, text_buffer *sentence, rw_slice why)
{
    text_append_string(sentence, ": ");
    text_append(sentence, why.data, why.size);
    text_append_byte(sentence, '\0');
    tell_loss(r, sentence->data);
    text_free(sentence);
}

/* before: the first key behind it; NULL: the bucket ends there. */
static void tell_gap(repair *r, const text_buffer *before)
{
    text_buffer sentence = {0};
    sentence_begin(r, &sentence);
    text_append_string(&sentence, ": all between ");
    if (r->met) text_append_word(&sentence, text_slice(&r->last));
    else text_append_string(&sentence, "the beginning");
    text_append_string(&sentence, " and ");
    if (before != NULL) text_append_word(&sentence, text_slice(before));
    else text_append_string(&sentence, "the end");
    sentence_tell(r, &sentence, text_slice(&r->why));
    r->in_gap = false;
}

static void tell_value(repair *r, rw_slice key)
{
    text_buffer sentence = {0};
    const char *why = rw_last_error(r->from);
    sentence_begin(r, &sentence);
    text_append_string(&sentence, ": the value of ");
    text_append_word(&sentence, key);
    sentence_tell(r, &sentence, rw_slice_of(why, strlen(why)));
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

/* The walk met damage: seeks behind it. Where it ended is told when the next record is met, or the bucket's end. Returns the cursor's code. */
static int skip_damage(repair *r, const text_buffer *behind, text_buffer *next)
{
    if (!r->in_gap) text_assign(&r->why, rw_last_error(r->from), strlen(rw_last_error(r->from)));
    r->in_gap = true;
    text_reserve(next, REPAIR_KEY_ROOM);
    int code = db_salvage_behind(r->from, r->from_bucket, text_slice(behind), next->data, &next->size);
    return code == 0 ? rw_cursor_seek(r->cursor, text_slice(next)) : code;
}

static int copy_records(repair *r)
{
    text_buffer key = {0}, next = {0};
    int status = EXIT_DONE, code = rw_cursor_first(r->cursor);
    while (status == EXIT_DONE && (code == 0 || is_damage(code))) {
        if (code != 0) {
            code = skip_damage(r, r->in_gap ? &next : &r->last, &next);
            continue;
        }
        rw_slice at;
        code = rw_cursor_key(r->cursor, &at);
        if (code != 0) break;
        text_assign(&key, at.data, at.size);       /* what the cursor tells does not outlive a value that has to be looked up again */
        if (r->in_gap) tell_gap(r, &key);
        status = copy_record(r, text_slice(&key));
        text_assign(&r->last, key.data, key.size);
        r->met = true;
        if (status == EXIT_DONE) code = rw_cursor_next(r->cursor);
    }
    if (status == EXIT_DONE && code == RW_ENOTFOUND && r->in_gap) tell_gap(r, NULL);
    if (status == EXIT_DONE && code != RW_ENOTFOUND) status = cli_error_library(r->from, code, "cannot read %s", r->from_path);
    text_free(&key);
    text_free(&next);
    return status == EXIT_DONE ? commit_batch(r) : status;
}

static int copy_bucket(repair *r, rw_bucket from)
{
    int code = rw_bucket_open(r->to, r->name, RW_CREATE, &r->bucket);
    if (code != 0) return write_failed(r, code);
    code = rw_cursor_open(r->from, NULL, from, &r->cursor);
    if (code != 0) return cli_error_library(r->from, code, "bucket \"%s\"", r->name);
    r->records = 0;
    r->from_bucket = from;
    r->met = r->in_gap = false;
    text_clear(&r->last);
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

/* Where names cannot be read, which the opening has told, the buckets get others. */
static int copy_buckets(repair *r)
{
    bucket_names buckets = {0};
    int status = EXIT_DONE;
    int code = rw_bucket_list(r->from, gather_bucket, &buckets);
    if (is_damage(code)) {
        if (!buckets.has_default) gather_bucket(&buckets, "default", RW_DEFAULT_BUCKET); /* its name stands nowhere */
        code = db_salvage_unnamed(r->from, gather_bucket, &buckets);
    }
    if (code != 0) status = cli_error_library(r->from, code, "buckets of %s", r->from_path);
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
    text_free(&r.last);
    text_free(&r.why);
    if (status == EXIT_DONE && r.losses == 0) puts("nothing was lost");
    if (status == EXIT_DONE && r.losses > 0) {
        cli_error("%s is damaged: %" PRIu64 " loss%s; %s holds the rest", r.from_path, r.losses, r.losses == 1 ? "" : "es", r.to_path);
        status = EXIT_NEGATIVE;
    }
    return cli_finish_output(status);
}
