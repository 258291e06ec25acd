/*
 * Generated streams of operations, applied to the store and to SQLite, with every result compared. DIFF_OPS sets the number of
 * operations, DIFF_SEED and DIFF_SHAPE replay one stream.
 */
#include <stdio.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/sqlite_model.h"

#define BUCKETS 5
#define KEY_NUMBERS 16000
#define KEY_ROOM 512
#define VALUE_ROOM ((size_t)100 << 10)

typedef enum { SHAPE_SHORT, SHAPE_LONG_PREFIX, SHAPE_BINARY, SHAPE_INTEGER, SHAPES } key_shape;

static const char *const shape_names[SHAPES] = {"short", "long shared prefix", "random binary", "integers"};

typedef struct {
    prng random;
    key_shape shape;
    char dir[DIRS_PATH_MAX];
    rw_options options;
    rw_db *db;
    rw_batch *batch;
    sqlite_model model;
    rw_bucket ids[BUCKETS];      /* 0: not there; [0] is the default bucket */
    uint64_t window;             /* integers drift upwards, as sequence numbers do */
    uint8_t *value, *got;
    bool failed;
} stream;

/* Marks the stream failed, with the place, unless the condition holds. */
#define SAME(s, condition) ((condition) ? true : differ((s), __LINE__, #condition))

static bool differ(stream *s, int line, const char *what)
{
    if (!s->failed) tap_diag("line %d: not so: %s; last error: %s", line, what, rw_last_error(s->db));
    s->failed = true;
    return false;
}

static bool same_code(stream *s, int line, int got, int want)
{
    if (got == want) return true;
    if (!s->failed) tap_diag("line %d: returned %d, not %d; last error: %s", line, got, want, rw_last_error(s->db));
    s->failed = true;
    return false;
}

#define SAME_CODE(s, got, want) same_code((s), __LINE__, (got), (want))

static rw_slice binary_key(uint64_t number, uint8_t key[KEY_ROOM])
{
    static const uint8_t letters[8] = {0, 1, 'a', 'b', 0x7f, 0x80, 0xfe, 0xff};
    prng bytes = {number};
    size_t size = 1 + (size_t)prng_below(&bytes, number % 20 == 0 ? 300 : 12);
    for (size_t i = 0; i < size; i++) key[i] = letters[prng_below(&bytes, 8)];
    return slice_bytes(key, size);
}

static rw_slice numbered_key(stream *s, uint64_t number, uint8_t key[KEY_ROOM])
{
    uint64_t big_endian;
    size_t size = 0;
    switch (s->shape) {
    case SHAPE_SHORT: return slice_bytes(key, (size_t)snprintf((char *)key, KEY_ROOM, "k%llu", (unsigned long long)number));
    case SHAPE_LONG_PREFIX:
        size = 40 + (size_t)(number % 4) * 60;
        memset(key, 'p', size);
        return slice_bytes(key, size + (size_t)snprintf((char *)key + size, KEY_ROOM - size, "%llu", (unsigned long long)number * 37));
    case SHAPE_BINARY: return binary_key(number, key);
    default:
        big_endian = __builtin_bswap64(number + s->window);
        memcpy(key, &big_endian, 8);
        return slice_bytes(key, 8);
    }
}

static rw_slice random_key(stream *s, uint8_t key[KEY_ROOM])
{
    return numbered_key(s, prng_below(&s->random, KEY_NUMBERS), key);
}

static rw_slice random_value(stream *s)
{
    uint64_t kind = prng_below(&s->random, 1000);
    size_t most = kind < 3 ? VALUE_ROOM : kind < 40 ? 5000 : kind < 100 ? 0 : 160;
    size_t size = (size_t)prng_below(&s->random, most + 1);
    uint64_t fill = prng_next(&s->random);
    for (size_t i = 0; i < size; i++) s->value[i] = (uint8_t)((fill >> (i % 8 * 8)) + i / 8);
    return slice_bytes(s->value, size);
}

/* Any bucket, there or not; mostly the first ones. */
static int random_bucket(stream *s)
{
    int bucket = (int)(prng_below(&s->random, BUCKETS) * prng_below(&s->random, BUCKETS) / BUCKETS);
    return s->ids[bucket] != 0 ? bucket : 0;
}

static unsigned random_flags(stream *s)
{
    return prng_below(&s->random, 300) == 0 ? RW_SYNC : RW_ASYNC;
}

static void op_put(stream *s)
{
    uint8_t room[KEY_ROOM];
    int bucket = random_bucket(s);
    rw_slice key = random_key(s, room), value = random_value(s);
    if (SAME_CODE(s, rw_put(s->db, s->ids[bucket], key, value, random_flags(s)), 0)) model_put(&s->model, bucket, key, value);
}

static void op_del(stream *s)
{
    uint8_t room[KEY_ROOM];
    int bucket = random_bucket(s);
    rw_slice key = random_key(s, room);
    bool there = model_del(&s->model, bucket, key);
    SAME_CODE(s, rw_del(s->db, s->ids[bucket], key, random_flags(s)), there ? 0 : RW_ENOTFOUND);
}

/* With a transaction, its view; without, what is committed. */
static void compare_get(stream *s, rw_txn *txn, int bucket, rw_slice key)
{
    rw_slice want = NO_KEY;
    size_t size = VALUE_ROOM;
    bool there = model_get(&s->model, bucket, key, &want);
    int code = txn != NULL ? rw_txn_get(txn, s->ids[bucket], key, s->got, &size) : rw_get(s->db, s->ids[bucket], key, s->got, &size);
    if (SAME_CODE(s, code, there ? 0 : RW_ENOTFOUND) && there) SAME(s, slice_same(slice_bytes(s->got, size), want));
    model_get_done(&s->model);
}

static void op_get(stream *s)
{
    uint8_t room[KEY_ROOM];
    compare_get(s, NULL, random_bucket(s), random_key(s, room));
}

/* A narrow range mostly, between keys that are there or not; sometimes open, rarely all of the bucket. */
static void random_range(stream *s, int bucket, rw_slice *from, rw_slice *to, uint8_t rooms[2][KEY_ROOM])
{
    *from = random_key(s, rooms[0]);
    size_t size = model_nth(&s->model, bucket, *from, (int)prng_below(&s->random, 60), rooms[1], KEY_ROOM);
    *to = size > 0 ? slice_bytes(rooms[1], size) : *from;
    uint64_t kind = prng_below(&s->random, 200);
    if (kind == 0) *to = random_key(s, rooms[1]);
    if (kind == 1) *from = NO_KEY;
    if (kind == 2) *to = NO_KEY;
}

static bool reversed(rw_slice from, rw_slice to)
{
    return to.size > 0 && slice_compare(from, to) > 0;
}

static void op_delete_range(stream *s)
{
    uint8_t rooms[2][KEY_ROOM];
    rw_slice from, to;
    int bucket = random_bucket(s);
    random_range(s, bucket, &from, &to, rooms);
    int want = reversed(from, to) ? RW_EINVAL : 0;
    if (SAME_CODE(s, rw_delete_range(s->db, s->ids[bucket], from, to, random_flags(s)), want) && want == 0)
        model_delete_range(&s->model, bucket, from, to);
}

static void batch_write(stream *s)
{
    uint8_t rooms[2][KEY_ROOM];
    int bucket = random_bucket(s);
    uint64_t kind = prng_below(&s->random, 20);
    rw_slice key = random_key(s, rooms[0]), to;
    if (kind == 0) {
        random_range(s, bucket, &key, &to, rooms);
        int want = reversed(key, to) ? RW_EINVAL : 0;
        if (SAME_CODE(s, rw_batch_delete_range(s->batch, s->ids[bucket], key, to), want) && want == 0)
            model_delete_range(&s->model, bucket, key, to);
    } else if (kind < 6) {
        model_del(&s->model, bucket, key);
        SAME_CODE(s, rw_batch_del(s->batch, s->ids[bucket], key), 0);
    } else {
        rw_slice value = random_value(s);
        model_put(&s->model, bucket, key, value);
        SAME_CODE(s, rw_batch_put(s->batch, s->ids[bucket], key, value), 0);
    }
}

static void op_batch(stream *s)
{
    uint64_t writes = prng_below(&s->random, prng_below(&s->random, 10) == 0 ? 300 : 20);
    bool clear = prng_below(&s->random, 10) == 0;
    model_exec(&s->model, "BEGIN");
    for (uint64_t i = 0; i < writes; i++) batch_write(s);
    model_exec(&s->model, clear ? "ROLLBACK" : "COMMIT");
    if (clear) rw_batch_clear(s->batch);
    else SAME_CODE(s, rw_batch_commit(s->batch, random_flags(s)), 0);
}

/* Compares steps of a cursor with the model's walk; returns after the walk's end. */
static void compare_walk(stream *s, rw_cursor *cursor, int bucket, rw_slice from, bool forwards, int limit)
{
    sqlite3_stmt *walk = model_walk(&s->model, bucket, from, forwards, limit);
    int code = 0, steps = 0;
    bool seek = from.size > 0 || prng_below(&s->random, 2) == 0;
    if (seek) code = forwards || from.size > 0 ? rw_cursor_seek(cursor, from) : rw_cursor_last(cursor);
    bool arrived = seek && (forwards || from.size == 0);    /* the first row is where the cursor now stands */
    for (; sqlite3_step(walk) == SQLITE_ROW && !s->failed; steps++) {
        rw_slice key = NO_KEY, value = NO_KEY;
        if (!arrived) code = forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor);
        arrived = false;
        if (!SAME_CODE(s, code, 0)) break;
        SAME_CODE(s, rw_cursor_key(cursor, &key), 0);
        SAME_CODE(s, rw_cursor_value(cursor, &value), 0);
        SAME(s, slice_same(key, model_column(walk, 0)) && slice_same(value, model_column(walk, 1)));
    }
    sqlite3_reset(walk);
    if (s->failed || steps == limit) return;
    if (!arrived) code = forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor);
    SAME_CODE(s, code, RW_ENOTFOUND);
}

static void compare_range(stream *s, rw_txn *txn, int bucket, rw_slice from, int limit)
{
    rw_cursor *cursor = NULL;
    bool forwards = prng_below(&s->random, 2) == 0;
    if (!SAME_CODE(s, rw_cursor_open(s->db, txn, s->ids[bucket], &cursor), 0)) return;
    compare_walk(s, cursor, bucket, from, forwards, limit);
    if (from.size > 0) compare_walk(s, cursor, bucket, from, !forwards, limit);
    rw_cursor_close(cursor);
}

static void op_range(stream *s)
{
    uint8_t room[KEY_ROOM];
    compare_range(s, NULL, random_bucket(s), random_key(s, room), (int)prng_below(&s->random, 40) + 1);
}

/* Everything, in both directions. */
static void op_compare_all(stream *s)
{
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        for (int forwards = 0; forwards < 2 && s->ids[bucket] != 0; forwards++) {
            rw_cursor *cursor = NULL;
            if (!SAME_CODE(s, rw_cursor_open(s->db, NULL, s->ids[bucket], &cursor), 0)) return;
            compare_walk(s, cursor, bucket, NO_KEY, forwards == 1, -1);
            rw_cursor_close(cursor);
        }
    }
}

static void txn_write(stream *s, rw_txn *txn)
{
    uint8_t room[KEY_ROOM];
    int bucket = random_bucket(s);
    rw_slice key = random_key(s, room);
    if (prng_below(&s->random, 3) == 0) {
        bool there = model_del(&s->model, bucket, key);
        SAME_CODE(s, rw_txn_del(txn, s->ids[bucket], key), there ? 0 : RW_ENOTFOUND);
    } else {
        rw_slice value = random_value(s);
        model_put(&s->model, bucket, key, value);
        SAME_CODE(s, rw_txn_put(txn, s->ids[bucket], key, value), 0);
    }
}

#define SAVEPOINTS 6

static void txn_savepoint(stream *s, rw_txn *txn, unsigned ids[SAVEPOINTS], size_t *depth)
{
    char sql[48];
    if (*depth == SAVEPOINTS) return;
    snprintf(sql, sizeof(sql), "SAVEPOINT s%zu", *depth);
    model_exec(&s->model, sql);
    SAME_CODE(s, rw_txn_savepoint(txn, &ids[(*depth)++]), 0);
}

static void txn_rollback_to(stream *s, rw_txn *txn, const unsigned ids[SAVEPOINTS], size_t *depth)
{
    char sql[48];
    if (*depth == 0) return;
    size_t target = (size_t)prng_below(&s->random, *depth);
    snprintf(sql, sizeof(sql), "ROLLBACK TO s%zu", target);
    model_exec(&s->model, sql);
    SAME_CODE(s, rw_txn_rollback_to(txn, ids[target]), 0);
    *depth = target + 1;
}

static void op_txn(stream *s)
{
    rw_txn *txn = NULL;
    unsigned ids[SAVEPOINTS] = {0};
    size_t depth = 0;
    bool commit = prng_below(&s->random, 4) > 0;
    uint64_t steps = prng_below(&s->random, prng_below(&s->random, 20) == 0 ? 400 : 30);
    if (!SAME_CODE(s, rw_txn_begin(s->db, RW_SNAPSHOT, &txn), 0)) return;
    model_exec(&s->model, "BEGIN");
    for (uint64_t i = 0; i < steps && !s->failed; i++) {
        uint8_t room[KEY_ROOM];
        uint64_t kind = prng_below(&s->random, 20);
        if (kind == 0) txn_savepoint(s, txn, ids, &depth);
        else if (kind == 1) txn_rollback_to(s, txn, ids, &depth);
        else if (kind < 5) compare_get(s, txn, random_bucket(s), random_key(s, room));
        else if (kind == 5) compare_range(s, txn, random_bucket(s), random_key(s, room), 15);
        else txn_write(s, txn);
    }
    if (commit) SAME_CODE(s, rw_txn_commit(txn, random_flags(s)), 0);
    else rw_txn_abort(txn);
    model_exec(&s->model, commit ? "COMMIT" : "ROLLBACK");
}

static void bucket_name(int bucket, char name[16])
{
    if (bucket == 0) snprintf(name, 16, "default");
    else snprintf(name, 16, "bucket%d", bucket % 100);
}

static void op_bucket(stream *s)
{
    char name[16];
    rw_bucket id = 0;
    int bucket = 1 + (int)prng_below(&s->random, BUCKETS - 1);
    bucket_name(bucket, name);
    if (s->ids[bucket] == 0) {
        SAME_CODE(s, rw_bucket_open(s->db, name, 0, &id), RW_ENOTFOUND);
        SAME_CODE(s, rw_bucket_open(s->db, name, RW_CREATE, &s->ids[bucket]), 0);
    } else {
        SAME_CODE(s, rw_bucket_drop(s->db, s->ids[bucket]), 0);
        SAME_CODE(s, get_code(s->db, s->ids[bucket], slice_text("k")), RW_ENOTFOUND);
        s->ids[bucket] = 0;
        model_delete_range(&s->model, bucket, NO_KEY, NO_KEY);
    }
}

static void open_store(stream *s)
{
    s->options.workers = 1 + (uint32_t)prng_below(&s->random, 3);
    if (!SAME_CODE(s, rw_open(s->dir, &s->options, &s->db), 0)) return;
    SAME_CODE(s, rw_batch_new(s->db, &s->batch), 0);
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        char name[16];
        rw_bucket id = 0;
        bucket_name(bucket, name);
        bool there = s->ids[bucket] != 0;
        SAME_CODE(s, rw_bucket_open(s->db, name, 0, &id), there ? 0 : RW_ENOTFOUND);
        s->ids[bucket] = id;
    }
}

static void op_reopen(stream *s)
{
    rw_batch_free(s->batch);
    s->batch = NULL;
    if (!SAME_CODE(s, rw_close(s->db), 0)) return;
    s->db = NULL;
    if (prng_below(&s->random, 4) == 0) SAME_CODE(s, rw_verify(s->dir, note_finding, NULL), 0);
    if (!s->failed) open_store(s);
}

static void step(stream *s)
{
    uint64_t kind = prng_below(&s->random, 100000);
    if (prng_below(&s->random, 50) == 0) s->window++;
    if (kind < 45000) op_put(s);
    else if (kind < 60000) op_del(s);
    else if (kind < 83000) op_get(s);
    else if (kind < 91000) op_range(s);
    else if (kind < 94000) op_batch(s);
    else if (kind < 98000) op_txn(s);
    else if (kind < 99300) op_delete_range(s);
    else if (kind < 99700) op_bucket(s);
    else if (kind < 99880) SAME_CODE(s, rw_checkpoint(s->db), 0);
    else if (kind < 99930) SAME_CODE(s, rw_compact(s->db), 0);
    else if (kind < 99960) op_compare_all(s);
    else if (kind < 99985) SAME_CODE(s, rw_flush(s->db), 0);
    else op_reopen(s);
}

/* More than the cache holds. */
static void preload(stream *s)
{
    for (uint64_t number = 0; number < KEY_NUMBERS && !s->failed; number++) {
        uint8_t room[KEY_ROOM];
        rw_slice key = numbered_key(s, number * 7919 % KEY_NUMBERS, room);
        rw_slice value = slice_bytes(s->value, 200 + (size_t)prng_below(&s->random, 500));
        memset(s->value, (int)(number & 0xff), value.size);
        SAME_CODE(s, rw_batch_put(s->batch, s->ids[0], key, value), 0);
        model_put(&s->model, 0, key, value);
        if (number % 400 == 399) SAME_CODE(s, rw_batch_commit(s->batch, RW_ASYNC), 0);
    }
}

static bool stream_prepare(stream *s, uint64_t seed, key_shape shape)
{
    *s = (stream){.random = {seed}, .shape = shape, .options = options_small(), .ids = {RW_DEFAULT_BUCKET}};
    s->options.partition_bytes = 512 * 1024;
    s->options.page_size = shape == SHAPE_BINARY ? 16384 : 4096;
    s->value = malloc(VALUE_ROOM);
    s->got = malloc(VALUE_ROOM);
    if (s->value == NULL || s->got == NULL || !dir_make(s->dir, "differential")) return false;
    model_open(&s->model);
    open_store(s);
    preload(s);
    return !s->failed;
}

static void stream_end(stream *s)
{
    rw_batch_free(s->batch);
    if (s->db != NULL && !s->failed) SAME_CODE(s, rw_close(s->db), 0);
    if (!s->failed) SAME_CODE(s, rw_verify(s->dir, note_finding, NULL), 0);
    model_close(&s->model);
    dir_remove(s->dir);
    free(s->value);
    free(s->got);
}

static void run_stream(uint64_t seed, key_shape shape, uint64_t ops)
{
    static stream s;
    uint64_t done = 0;
    if (!TAP_CHECK(stream_prepare(&s, seed, shape))) return;
    for (; done < ops && !s.failed; done++) step(&s);
    if (!s.failed) op_compare_all(&s);
    if (!s.failed) op_reopen(&s);
    if (!s.failed) op_compare_all(&s);
    stream_end(&s);
    if (s.failed)
        tap_diag("replay: DIFF_SEED=%llu DIFF_SHAPE=%d DIFF_OPS=%llu test_differential", (unsigned long long)seed, (int)shape,
                 (unsigned long long)done);
    tap_ok(!s.failed, "%llu operations as in SQLite, %s keys, seed %llu", (unsigned long long)done, shape_names[shape],
           (unsigned long long)seed);
}

int main(void)
{
    uint64_t seed = number_from("DIFF_SEED", 1);
    if (getenv("DIFF_SHAPE") != NULL) {
        run_stream(seed, (key_shape)(number_from("DIFF_SHAPE", 0) % SHAPES), number_from("DIFF_OPS", 100000));
        return tap_done();
    }
    uint64_t ops = number_from("DIFF_OPS", check_long() ? 5000000 : 100000);
    for (uint64_t shape = 0; shape < SHAPES; shape++) run_stream(seed + shape, (key_shape)shape, ops / SHAPES);
    return tap_done();
}
