/*
 * Threads over shared keys. Promised and checked here: a single key never goes backwards for any reader, a value is never torn, a batch
 * ends whole, and a cache far smaller than the data loses nothing. Reads of several keys are not promised to be of one moment.
 */
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define WRITERS 4
#define READERS 4
#define KEYS_EACH 16
#define KEYS (WRITERS * KEYS_EACH)
#define VALUE_MAX ((size_t)24 << 10)

/* How long each of the three runs lasts, in milliseconds. */
static int64_t run_ms(void)
{
    const char *text = getenv("THREADS_SECONDS");
    int64_t seconds = text != NULL ? atoi(text) : check_long() ? 60 : 3;
    return seconds * 1000 / 3;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

typedef struct {
    rw_db *db;
    rw_bucket left;           /* batches put the same counters here */
    rw_bucket right;          /* and here */
    int64_t end_ms;
} shared_state;

typedef struct {
    shared_state *shared;
    pthread_t thread;
    uint64_t number;
    uint64_t steps;
    char failure[256];        /* the first one; empty for none */
} worker;

static bool fail(worker *self, const char *what, int code)
{
    if (self->failure[0] == 0) snprintf(self->failure, sizeof(self->failure), "%s: %d %s", what, code, code < 0 ? rw_last_error(NULL) : "");
    return false;
}

static bool running(worker *self)
{
    self->steps++;
    return self->failure[0] == 0 && now_ms() < self->shared->end_ms;
}

static rw_slice counter_key(uint64_t number, char key[32])
{
    return slice_bytes(key, (size_t)snprintf(key, 32, "counter/%05llu", (unsigned long long)number * 997 % 100000));
}

/* The value for a counter: the counter, then bytes that follow from it and the key; mostly short, sometimes pages long. */
static size_t counter_value(uint64_t number, uint64_t counter, uint8_t *value)
{
    prng random = {number << 40 ^ counter};
    size_t size = 8 + (size_t)prng_below(&random, counter % 50 == 7 ? VALUE_MAX - 8 : 300);
    uint8_t byte = (uint8_t)prng_next(&random);
    memcpy(value, &counter, 8);
    for (size_t i = 8; i < size; i++) value[i] = (uint8_t)(byte + i);
    return size;
}

/* Reads the counter out of a value and checks the rest; -1 for a torn one. */
static int64_t counter_of(uint64_t number, const uint8_t *value, size_t size)
{
    static _Thread_local uint8_t want[VALUE_MAX];
    uint64_t counter = 0;
    if (size < 8) return -1;
    memcpy(&counter, value, 8);
    if (counter_value(number, counter, want) != size || memcmp(want, value, size) != 0) return -1;
    return (int64_t)counter;
}

static void *write_counters(void *arg)
{
    worker *self = arg;
    prng random = {self->number};
    uint64_t counters[KEYS_EACH] = {0};
    uint8_t *value = malloc(VALUE_MAX);
    while (value != NULL && running(self)) {
        char key[32];
        uint64_t mine = prng_below(&random, KEYS_EACH), number = self->number * KEYS_EACH + mine;
        size_t size = counter_value(number, ++counters[mine], value);
        unsigned flags = prng_below(&random, 32) == 0 ? RW_SYNC : RW_ASYNC;
        int code = rw_put(self->shared->db, BUCKET, counter_key(number, key), slice_bytes(value, size), flags);
        if (code != 0) fail(self, "put", code);
    }
    free(value);
    return NULL;
}

static bool check_counter(worker *self, uint64_t number, const uint8_t *value, size_t size, int64_t last[KEYS])
{
    int64_t counter = counter_of(number, value, size);
    if (counter < 0) return fail(self, "a torn value", (int)number);
    if (counter < last[number]) return fail(self, "a counter went backwards", (int)number);
    last[number] = counter;
    return true;
}

static bool read_one(worker *self, uint64_t number, uint8_t *value, int64_t last[KEYS])
{
    char key[32];
    size_t size = VALUE_MAX;
    int code = rw_get(self->shared->db, BUCKET, counter_key(number, key), value, &size);
    if (code == RW_ENOTFOUND && last[number] == 0) return true;
    return code == 0 ? check_counter(self, number, value, size, last) : fail(self, "get", code);
}

static bool scan_counters(worker *self, int64_t last[KEYS])
{
    rw_cursor *cursor = NULL;
    int code = rw_cursor_open(self->shared->db, NULL, BUCKET, &cursor);
    while (code == 0 && (code = rw_cursor_next(cursor)) == 0) {
        rw_slice key = NO_KEY, value = NO_KEY;
        char want[32];
        uint64_t number = 0;
        if ((code = rw_cursor_key(cursor, &key)) != 0 || (code = rw_cursor_value(cursor, &value)) != 0) break;
        while (number < KEYS && !slice_same(key, counter_key(number, want))) number++;
        if (number == KEYS) fail(self, "an unknown key in a scan", 0);
        else check_counter(self, number, value.data, value.size, last);
    }
    if (cursor != NULL) rw_cursor_close(cursor);
    /* held up for long on a busy machine while the others write more than this small cache keeps of the old */
    return code == RW_ENOTFOUND || code == RW_ESNAPSHOT_TOO_OLD || fail(self, "scan", code);
}

static void *read_counters(void *arg)
{
    worker *self = arg;
    prng random = {self->number + 100};
    int64_t last[KEYS] = {0};
    uint8_t *value = malloc(VALUE_MAX);
    while (value != NULL && running(self)) {
        if (prng_below(&random, 200) == 0) scan_counters(self, last);
        else read_one(self, prng_below(&random, KEYS), value, last);
    }
    free(value);
    return NULL;
}

/* Starts and joins threads; returns whether all went well. */
static bool run_workers(worker *workers, size_t count, void *(*const fns[])(void *))
{
    bool good = true;
    uint64_t steps = 0;
    for (size_t i = 0; i < count; i++) good = TAP_CHECK(pthread_create(&workers[i].thread, NULL, fns[i], &workers[i]) == 0) && good;
    for (size_t i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        steps += workers[i].steps;
        if (workers[i].failure[0] != 0) {
            tap_diag("thread %zu, step %llu: %s", i, (unsigned long long)workers[i].steps, workers[i].failure);
            good = false;
        }
    }
    tap_diag("%llu steps", (unsigned long long)steps);
    return good;
}

static void test_counters(shared_state *shared)
{
    static worker workers[WRITERS + READERS];
    void *(*fns[WRITERS + READERS])(void *);
    for (size_t i = 0; i < WRITERS + READERS; i++) {
        workers[i] = (worker){.shared = shared, .number = i};
        fns[i] = i < WRITERS ? write_counters : read_counters;
    }
    shared->end_ms = now_ms() + run_ms();
    tap_ok(run_workers(workers, WRITERS + READERS, fns), "counters of %d writers never go backwards for %d readers", WRITERS, READERS);
}

/* Each batch or transaction puts one new counter under the same key in two buckets and under two keys of one bucket. */
static int commit_pair(worker *self, rw_batch *batch, uint64_t counter, bool with_txn)
{
    char key[32], mirror[40];
    uint64_t number = self->number * KEYS_EACH + counter % KEYS_EACH;
    rw_slice name = counter_key(number, key), value = slice_bytes(&counter, sizeof(counter));
    rw_slice other = slice_bytes(mirror, (size_t)snprintf(mirror, sizeof(mirror), "mirror of %.*s", (int)name.size, key));
    shared_state *shared = self->shared;
    rw_txn *txn = NULL;
    int code;
    if (!with_txn) {
        code = rw_batch_put(batch, shared->left, name, value);
        if (code == 0) code = rw_batch_put(batch, shared->right, name, value);
        if (code == 0) code = rw_batch_put(batch, shared->left, other, value);
        return code != 0 ? code : rw_batch_commit(batch, RW_ASYNC);
    }
    code = rw_txn_begin(shared->db, RW_SNAPSHOT, &txn);
    if (code != 0) return code;
    code = rw_txn_put(txn, shared->left, name, value);
    if (code == 0) code = rw_txn_put(txn, shared->right, name, value);
    if (code == 0) code = rw_txn_put(txn, shared->left, other, value);
    int end = rw_txn_commit(txn, RW_ASYNC);
    return code != 0 ? code : end;
}

static void *write_pairs(void *arg)
{
    worker *self = arg;
    rw_batch *batch = NULL;
    int code = rw_batch_new(self->shared->db, &batch);
    for (uint64_t counter = 1; code == 0 && running(self); counter++) {
        /* a thread that is held up in a transaction while the others write more than this small cache keeps of the old */
        do code = commit_pair(self, batch, counter, counter % 3 == 0);
        while (code == RW_ESNAPSHOT_TOO_OLD);
    }
    if (code != 0) fail(self, "commit of a pair", code);
    rw_batch_free(batch);
    return NULL;
}

static void *read_pairs(void *arg)
{
    worker *self = arg;
    prng random = {self->number + 200};
    uint64_t last[2][KEYS] = {{0}};
    while (running(self)) {
        char key[32];
        size_t side = prng_below(&random, 2), size = 8;
        uint64_t number = prng_below(&random, KEYS), counter = 0;
        rw_bucket bucket = side == 0 ? self->shared->left : self->shared->right;
        int code = rw_get(self->shared->db, bucket, counter_key(number, key), &counter, &size);
        if (code == RW_ENOTFOUND && last[side][number] == 0) continue;
        if (code != 0) fail(self, "get", code);
        else if (counter < last[side][number]) fail(self, "a batch's counter went backwards", (int)number);
        last[side][number] = counter;
    }
    return NULL;
}

/* Checkpoints, compaction, stats, and buckets that come and go beside the others' work. */
static void *disturb(void *arg)
{
    worker *self = arg;
    prng random = {self->number + 300};
    rw_db *db = self->shared->db;
    while (running(self)) {
        rw_stats_t stats;
        rw_bucket bucket = 0;
        char name[16];
        int code = 0;
        snprintf(name, sizeof(name), "temporary%d", (int)prng_below(&random, 3));
        switch (prng_below(&random, 6)) {
        case 0: code = rw_checkpoint(db); break;
        case 1: code = rw_compact(db); break;
        case 2: code = rw_stats(db, &stats); break;
        case 3: code = rw_flush(db); break;
        default: code = rw_bucket_open(db, name, RW_CREATE, &bucket); break;
        }
        for (int i = 0; i < 50 && bucket != 0 && code == 0; i++) code = put_text(db, bucket, (char[2]){(char)('0' + i), 0}, name);
        if (bucket != 0 && code == 0) code = rw_bucket_drop(db, bucket);
        if (code != 0) fail(self, name, code);
    }
    return NULL;
}

static int unequal_pairs(shared_state *shared)
{
    int unequal = 0;
    for (uint64_t number = 0; number < KEYS; number++) {
        char key[32], mirror[40];
        rw_slice name = counter_key(number, key);
        rw_slice other = slice_bytes(mirror, (size_t)snprintf(mirror, sizeof(mirror), "mirror of %.*s", (int)name.size, key));
        uint64_t values[3] = {0};
        size_t sizes[3] = {8, 8, 8};
        int code = rw_get(shared->db, shared->left, name, &values[0], &sizes[0]);
        int same = rw_get(shared->db, shared->right, name, &values[1], &sizes[1]) == code;
        same = same && rw_get(shared->db, shared->left, other, &values[2], &sizes[2]) == code;
        unequal += !same || values[0] != values[1] || values[0] != values[2] || (code != 0 && code != RW_ENOTFOUND);
    }
    return unequal;
}

static void test_pairs(shared_state *shared)
{
    static worker workers[WRITERS + READERS];
    void *(*fns[WRITERS + READERS])(void *);
    for (size_t i = 0; i < WRITERS + READERS; i++) {
        workers[i] = (worker){.shared = shared, .number = i};
        fns[i] = i < WRITERS ? write_pairs : i < WRITERS + READERS - 1 ? read_pairs : disturb;
    }
    shared->end_ms = now_ms() + run_ms();
    tap_ok(run_workers(workers, WRITERS + READERS, fns), "batches and transactions beside checkpoints, compaction and passing buckets");
    int unequal = unequal_pairs(shared);
    tap_ok(unequal == 0, "both keys of every batch are equal at the end (%d are not)", unequal);
}

static void test_shared(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    shared_state shared = {0};
    options.partition_bytes = 128 * 1024;
    if (!dir_make(dir, "threads")) return;
    shared.db = open_or_exit(dir, &options);
    CHECK_OK(rw_bucket_open(shared.db, "left", RW_CREATE, &shared.left));
    CHECK_OK(rw_bucket_open(shared.db, "right", RW_CREATE, &shared.right));
    test_counters(&shared);
    test_pairs(&shared);
    CHECK_OK(rw_close(shared.db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    shared.db = open_or_exit(dir, &options);
    tap_ok(unequal_pairs(&shared) == 0, "and after reopening");
    CHECK_OK(rw_close(shared.db));
    dir_remove(dir);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CACHED_RECORDS ((uint64_t)100000)    /* still more than the cache holds */
#else
#define CACHED_RECORDS ((uint64_t)200000)
#endif
#define LOADERS 4

static rw_slice cached_key(uint64_t i, uint64_t *key)
{
    *key = __builtin_bswap64(i * UINT64_C(0x9e3779b97f4a7c15));
    return slice_bytes(key, sizeof(*key));
}

/* 40 bytes: the record's number, its version, and three words that follow from both. */
static void cached_value(uint64_t i, uint64_t version, uint64_t value[5])
{
    prng random = {i ^ version << 32};
    value[0] = i;
    value[1] = version;
    for (int word = 2; word < 5; word++) value[word] = prng_next(&random);
}

static void *load_cached(void *arg)
{
    worker *self = arg;
    rw_batch *batch = NULL;
    int code = rw_batch_new(self->shared->db, &batch);
    for (uint64_t i = self->number; i < CACHED_RECORDS && code == 0; i += LOADERS) {
        uint64_t key, value[5];
        cached_value(i, 0, value);
        code = rw_batch_put(batch, BUCKET, cached_key(i, &key), slice_bytes(value, sizeof(value)));
        if (code == 0 && ++self->steps % 200 == 0) code = rw_batch_commit(batch, RW_ASYNC);
    }
    if (code == 0) code = rw_batch_commit(batch, RW_ASYNC);
    if (code != 0) fail(self, "load", code);
    rw_batch_free(batch);
    return NULL;
}

static void *use_cached(void *arg)
{
    worker *self = arg;
    prng random = {self->number + 400};
    while (running(self)) {
        uint64_t i = prng_below(&random, CACHED_RECORDS), key, value[5] = {0}, want[5];
        size_t size = sizeof(value);
        int code = rw_get(self->shared->db, BUCKET, cached_key(i, &key), value, &size);
        cached_value(i, value[1], want);
        if (code != 0) fail(self, "get", code);
        else if (size != sizeof(value) || memcmp(value, want, sizeof(value)) != 0) fail(self, "a wrong value", (int)i);
        if (i % 8 != self->number || self->failure[0] != 0) continue;
        cached_value(i, value[1] + 1, want);    /* this thread is the only writer of record i */
        code = rw_put(self->shared->db, BUCKET, cached_key(i, &key), slice_bytes(want, sizeof(want)), RW_ASYNC);
        if (code != 0) fail(self, "put", code);
    }
    return NULL;
}

static uint64_t wrong_cached(rw_db *db)
{
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < CACHED_RECORDS; i += 13) {
        uint64_t key, value[5] = {0}, want[5];
        size_t size = sizeof(value);
        int code = rw_get(db, BUCKET, cached_key(i, &key), value, &size);
        cached_value(i, value[1], want);
        wrong += code != 0 || size != sizeof(value) || memcmp(value, want, sizeof(value)) != 0;
    }
    return wrong;
}

static void check_cache_stats(rw_db *db)
{
    rw_stats_t stats = {0};
    CHECK_OK(rw_stats(db, &stats));
    TAP_CHECK(stats.cache_bytes == 4 * MIB && stats.cache_frames * stats.page_size <= stats.cache_bytes);
    tap_ok(stats.pages_evicted > 0 && stats.page_reads > 0, "%llu pages evicted, %llu read", (unsigned long long)stats.pages_evicted,
           (unsigned long long)stats.page_reads);
}

static void test_eviction(void)
{
    static worker workers[8];
    void *(*fns[8])(void *);
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    shared_state shared = {0};
    if (!dir_make(dir, "threads")) return;
    options.log_bytes = 16 * MIB;
    shared.db = open_or_exit(dir, &options);
    for (size_t i = 0; i < 8; i++) workers[i] = (worker){.shared = &shared, .number = i};
    for (size_t i = 0; i < 8; i++) fns[i] = load_cached;
    tap_ok(run_workers(workers, LOADERS, fns), "%llu records loaded by %d threads", (unsigned long long)CACHED_RECORDS, LOADERS);
    for (size_t i = 0; i < 8; i++) workers[i] = (worker){.shared = &shared, .number = i};
    for (size_t i = 0; i < 8; i++) fns[i] = use_cached;
    shared.end_ms = now_ms() + run_ms();
    tap_ok(run_workers(workers, 8, fns), "8 threads read and write through a cache of 4 MiB");
    check_cache_stats(shared.db);
    TAP_CHECK(count_keys(shared.db, BUCKET) == (int64_t)CACHED_RECORDS);
    CHECK_OK(rw_close(shared.db));
    shared.db = open_or_exit(dir, &options);
    uint64_t wrong = wrong_cached(shared.db);
    tap_ok(wrong == 0, "after reopening every record is whole (%llu are not)", (unsigned long long)wrong);
    CHECK_OK(rw_close(shared.db));
    dir_remove(dir);
}

int main(void)
{
    test_shared();
    test_eviction();
    return tap_done();
}
