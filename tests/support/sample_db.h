/*
 * A small database whose every record follows from a seed: made by a child process that ends in a clean close or in a kill, and later
 * compared in full. For tests that damage its files in between. Inline, as rw_helpers.h is.
 */
#ifndef TESTS_SAMPLE_DB_H
#define TESTS_SAMPLE_DB_H

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define SAMPLE_RECORDS 400            /* in the default bucket, in the checkpoint */
#define SAMPLE_OTHER 60               /* in the bucket "other" */
#define SAMPLE_TAIL 60                /* commits after the checkpoint, each durable, in order */
#define SAMPLE_LARGE ((size_t)70000)  /* bytes of the one large value */

typedef struct {
    char dir[DIRS_PATH_MAX];
    uint64_t seed;
    bool killed;              /* the writer is killed after its last commit: the tail is in the log only */
    rw_options options;
} sample_db;

static inline rw_options sample_options(void)
{
    rw_options options;
    rw_options_init(&options);
    options.cache_bytes = 4 * MIB;
    options.log_bytes = 8 * MIB;
    options.workers = 1;
    options.io_backend = "psync";
    return options;
}

/* Some values are long enough that a page holds few of them. */
static inline rw_slice sample_value(const sample_db *sample, uint64_t i, char value[1024])
{
    prng random = {sample->seed * 1000 + i};
    int head = snprintf(value, 64, "seed %llu record %llu ", (unsigned long long)sample->seed, (unsigned long long)i);
    size_t size = (size_t)head + prng_below(&random, i % 16 == 0 ? 900 : 90);
    for (size_t at = (size_t)head; at < size; at++) value[at] = (char)('a' + prng_below(&random, 26));
    return slice_bytes(value, size);
}

static inline rw_slice sample_key(uint64_t i, char key[32])
{
    return slice_bytes(key, (size_t)snprintf(key, 32, "record/%06llu", (unsigned long long)i * 7));
}

static inline rw_slice sample_large(const sample_db *sample)
{
    static char large[SAMPLE_LARGE];
    prng random = {sample->seed + 77};
    prng_fill(&random, large, sizeof(large));
    return slice_bytes(large, sizeof(large));
}

/* Tail commit i puts key tail/i, overwrites record i and deletes record 200 + i, in one batch. */
static inline int sample_tail_commit(const sample_db *sample, rw_batch *batch, uint64_t i)
{
    char key[32], value[1024];
    int length = snprintf(key, sizeof(key), "tail/%04llu", (unsigned long long)i);
    rw_slice changed = sample_value(sample, 10000 + i, value);
    int code = rw_batch_put(batch, BUCKET, slice_bytes(key, (size_t)length), changed);
    if (code == 0) code = rw_batch_put(batch, BUCKET, sample_key(i, key), changed);
    if (code == 0) code = rw_batch_del(batch, BUCKET, sample_key(200 + i, key));
    return code != 0 ? code : rw_batch_commit(batch, RW_SYNC);
}

static inline int sample_fill(const sample_db *sample, rw_db *db)
{
    char key[32], value[1024];
    rw_bucket other = 0;
    int code = rw_bucket_open(db, "other", RW_CREATE, &other);
    for (uint64_t i = 0; i < SAMPLE_RECORDS && code == 0; i++)
        code = rw_put(db, BUCKET, sample_key(i, key), sample_value(sample, i, value), RW_ASYNC);
    for (uint64_t i = 0; i < SAMPLE_OTHER && code == 0; i++)
        code = rw_put(db, other, sample_key(i, key), sample_value(sample, 20000 + i, value), RW_ASYNC);
    if (code == 0) code = rw_put(db, BUCKET, slice_text("zz large"), sample_large(sample), RW_ASYNC);
    return code == 0 ? rw_checkpoint(db) : code;
}

static inline int sample_write(void *arg)
{
    const sample_db *sample = arg;
    rw_db *db = NULL;
    rw_batch *batch = NULL;
    if (!CHILD_CODE(rw_open(sample->dir, &sample->options, &db), 0) || !CHILD_CODE(sample_fill(sample, db), 0)) return 1;
    if (!CHILD_CODE(rw_batch_new(db, &batch), 0)) return 1;
    for (uint64_t i = 0; i < SAMPLE_TAIL; i++)
        if (!CHILD_CODE(sample_tail_commit(sample, batch, i), 0)) return 1;
    if (sample->killed) kill(getpid(), SIGKILL);
    rw_batch_free(batch);
    return CHILD_CODE(rw_close(db), 0) ? 0 : 1;
}

/* Makes a fresh directory with the database in it. */
static inline bool sample_make(sample_db *sample, uint64_t seed, bool killed)
{
    sample->seed = seed;
    sample->killed = killed;
    sample->options = sample_options();
    if (!dir_make(sample->dir, "sample")) return false;
    int code = child_run(sample_write, sample, 60);
    return tap_ok(code == (killed ? CHILD_SIGNAL(SIGKILL) : 0), "a sample database%s: %d %s", killed ? " with a log tail" : "", code,
                  child_said());
}

/* What a comparison found. */
typedef enum {
    SAMPLE_RIGHT,      /* every record as written */
    SAMPLE_REFUSED,    /* rw_open returned an error */
    SAMPLE_PARTLY,     /* some reads failed with an error, every other one was right */
    SAMPLE_SHORTER,    /* exactly the state after some commit of the tail, but not the last one */
    SAMPLE_WRONG       /* anything else: the words say what */
} sample_state;

typedef struct {
    const sample_db *sample;
    rw_db *db;
    uint64_t tail;        /* the commits of the tail that the store shows */
    int failed_reads;
    int last_code;        /* of the failed reads */
    char words[256];      /* of the first one */
    bool wrong;
} sample_check;

static inline void sample_note_failure(sample_check *check, int code)
{
    if (check->failed_reads++ == 0) snprintf(check->words, sizeof(check->words), "%s", rw_last_error(check->db));
    check->last_code = code;
}

static inline void sample_note_wrong(sample_check *check, rw_slice key, const char *what)
{
    check->wrong = true;
    child_say("%.*s %s", (int)key.size, (const char *)key.data, what);
}

/* want.data NULL: the key must be absent. */
static inline void sample_compare(sample_check *check, rw_bucket bucket, rw_slice key, rw_slice want)
{
    static char buffer[SAMPLE_LARGE + 1];
    size_t size = sizeof(buffer);
    int code = rw_get(check->db, bucket, key, buffer, &size);
    if (code != 0 && code != RW_ENOTFOUND) sample_note_failure(check, code);
    else if (code == RW_ENOTFOUND && want.data != NULL) sample_note_wrong(check, key, "is missing");
    else if (code == 0 && want.data == NULL) sample_note_wrong(check, key, "should not be there");
    else if (code == 0 && !slice_same(slice_bytes(buffer, size), want)) sample_note_wrong(check, key, "has a wrong value");
}

/* How many commits of the tail there are: keys tail/i are there exactly for the first ones. */
static inline void sample_count_tail(sample_check *check)
{
    check->tail = SAMPLE_TAIL;
    for (uint64_t i = SAMPLE_TAIL; i > 0; i--) {
        char key[32];
        int length = snprintf(key, sizeof(key), "tail/%04llu", (unsigned long long)(i - 1));
        if (get_code(check->db, BUCKET, slice_bytes(key, (size_t)length)) != RW_ENOTFOUND) break;
        check->tail = i - 1;
    }
}

static inline void sample_compare_default(sample_check *check)
{
    char key[32], value[1024];
    for (uint64_t i = 0; i < SAMPLE_RECORDS; i++) {
        bool changed = i < check->tail, gone = i >= 200 && i - 200 < check->tail;
        rw_slice want = sample_value(check->sample, changed ? 10000 + i : i, value);
        sample_compare(check, BUCKET, sample_key(i, key), gone ? NO_KEY : want);
    }
    for (uint64_t i = 0; i < SAMPLE_TAIL; i++) {
        int length = snprintf(key, sizeof(key), "tail/%04llu", (unsigned long long)i);
        rw_slice want = sample_value(check->sample, 10000 + i, value);
        sample_compare(check, BUCKET, slice_bytes(key, (size_t)length), i < check->tail ? want : NO_KEY);
    }
    sample_compare(check, BUCKET, slice_text("zz large"), sample_large(check->sample));
}

static inline void sample_compare_other(sample_check *check)
{
    char key[32], value[1024];
    rw_bucket other = 0;
    int code = rw_bucket_open(check->db, "other", 0, &other);
    if (code == RW_ENOTFOUND) {
        sample_note_wrong(check, slice_text("bucket other"), "is missing");
    } else if (code != 0) {
        sample_note_failure(check, code);
    } else {
        for (uint64_t i = 0; i < SAMPLE_OTHER; i++)
            sample_compare(check, other, sample_key(i, key), sample_value(check->sample, 20000 + i, value));
    }
}

/* A scan must meet exactly the records there are, or end with an error. */
static inline void sample_compare_scan(sample_check *check)
{
    rw_cursor *cursor = NULL;
    uint64_t seen = 0, want = SAMPLE_RECORDS + 1;    /* each tail commit adds one key and deletes one */
    rw_slice value;
    int code = rw_cursor_open(check->db, NULL, BUCKET, &cursor);
    while (code == 0 && (code = rw_cursor_next(cursor)) == 0 && (code = rw_cursor_value(cursor, &value)) == 0) seen++;
    if (code != RW_ENOTFOUND) sample_note_failure(check, code);
    else if (seen != want) sample_note_wrong(check, slice_text("the scan"), "meets too few or too many records");
    rw_cursor_close(cursor);
}

static inline sample_state sample_state_of(const sample_check *check)
{
    if (check->wrong) return SAMPLE_WRONG;
    if (check->failed_reads > 0) return SAMPLE_PARTLY;
    return check->tail == SAMPLE_TAIL ? SAMPLE_RIGHT : SAMPLE_SHORTER;
}

/* Compares everything in an open database. Call it in a child: it speaks by child_say. */
static inline sample_state sample_compare_all(const sample_db *sample, rw_db *db, sample_check *check)
{
    *check = (sample_check){.sample = sample, .db = db};
    sample_count_tail(check);
    sample_compare_default(check);
    sample_compare_other(check);
    sample_compare_scan(check);
    sample_state state = sample_state_of(check);
    if (state == SAMPLE_PARTLY) child_say("%s", check->words);
    if (state == SAMPLE_SHORTER) child_say("%d commits of the tail are lost", (int)(SAMPLE_TAIL - check->tail));
    return state;
}

#endif
