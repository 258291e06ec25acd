/* The process that is killed: lanes that commit without end and write down, in shared memory, what they began and what they were told is durable. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "bench/bench.h"
#include "bench/crash_model.h"

typedef struct {
    crash_shared *shared;
    rw_db *db;
    rw_bucket buckets[CRASH_BUCKETS];
    _Atomic bool stop;
} writer;

typedef struct {
    writer *writer;
    unsigned lane;
    unsigned flags;            /* RW_SYNC or RW_ASYNC */
    unsigned char *value;      /* CRASH_VALUE_SIZE_MAX bytes */
    rw_batch *batch;
} writer_lane;

/* Leaves the words for the parent and ends the process: only the first failure counts. */
static void __attribute__((noreturn, format(printf, 2, 3))) writer_fail(crash_shared *shared, const char *format, ...)
{
    static _Atomic bool taken;
    if (atomic_exchange(&taken, true)) {
        for (;;) pause();
    }
    va_list args;
    va_start(args, format);
    vsnprintf(shared->failure, sizeof shared->failure, format, args);
    va_end(args);
    atomic_store(&shared->failed, true);
    _exit(BENCH_EXIT_FAILED);
}

static void lane_require(const writer_lane *w, int code, const char *call)
{
    if (code == 0) return;
    const char *words = rw_last_error(w->writer->db);
    writer_fail(w->writer->shared, "the writer's %s failed (%d): %s", call, code, words[0] != '\0' ? words : rw_strerror(code));
}

static rw_slice lane_key(const writer_lane *w, const crash_effect *effect, unsigned char *bytes)
{
    return rw_slice_of(bytes, crash_key_make(w->lane, effect->bucket, effect->key, bytes));
}

static rw_slice lane_value(const writer_lane *w, const crash_effect *effect)
{
    return rw_slice_of(w->value, crash_value_make(w->lane, *effect, w->value));
}

static uint64_t *lane_model(const writer_lane *w, const crash_effect *effect)
{
    return &w->writer->shared->state.ids[w->lane][effect->bucket][effect->key];
}

static void lane_put(const writer_lane *w, const crash_effect *effect)
{
    unsigned char key[CRASH_KEY_SIZE_MAX];
    lane_require(w, rw_put(w->writer->db, w->writer->buckets[effect->bucket], lane_key(w, effect, key), lane_value(w, effect), w->flags), "rw_put");
}

static void lane_delete(const writer_lane *w, const crash_effect *effect)
{
    unsigned char key[CRASH_KEY_SIZE_MAX];
    int code = rw_del(w->writer->db, w->writer->buckets[effect->bucket], lane_key(w, effect, key), w->flags);
    if (*lane_model(w, effect) != 0) lane_require(w, code, "rw_del of an existing key");
    else if (code == 0) writer_fail(w->writer->shared, "rw_del found lane %u, bucket %u, key %u, which was not there", w->lane, effect->bucket, effect->key);
    else if (code != RW_ENOTFOUND) lane_require(w, code, "rw_del");
}

/* The bounds of the keys that an operation deletes as a range. */
static void range_bounds(const writer_lane *w, const crash_operation *operation, unsigned char *from, rw_slice *low, unsigned char *to, rw_slice *high)
{
    unsigned first = operation->effects[operation->range_at].key;
    *low = rw_slice_of(from, crash_key_bound(w->lane, first, from));
    *high = rw_slice_of(to, crash_key_bound(w->lane, first + operation->range_count, to));
}

static void lane_delete_range(const writer_lane *w, const crash_operation *operation)
{
    unsigned char from[CRASH_KEY_SIZE_MAX], to[CRASH_KEY_SIZE_MAX];
    rw_slice low, high;
    range_bounds(w, operation, from, &low, to, &high);
    lane_require(w, rw_delete_range(w->writer->db, w->writer->buckets[CRASH_BUCKET_RANGES], low, high, w->flags), "rw_delete_range");
}

static void lane_batch(const writer_lane *w, const crash_operation *operation)
{
    for (unsigned i = 0; i < operation->count; i++) {
        const crash_effect *effect = &operation->effects[i];
        rw_bucket bucket = w->writer->buckets[effect->bucket];
        unsigned char key[CRASH_KEY_SIZE_MAX], to[CRASH_KEY_SIZE_MAX];
        if (operation->range_count > 0 && i == operation->range_at) {
            rw_slice low, high;
            range_bounds(w, operation, key, &low, to, &high);
            lane_require(w, rw_batch_delete_range(w->batch, bucket, low, high), "rw_batch_delete_range");
            i += operation->range_count - 1;
        } else if (effect->id == 0) {
            lane_require(w, rw_batch_del(w->batch, bucket, lane_key(w, effect, key)), "rw_batch_del");
        } else {
            lane_require(w, rw_batch_put(w->batch, bucket, lane_key(w, effect, key), lane_value(w, effect)), "rw_batch_put");
        }
    }
    lane_require(w, rw_batch_commit(w->batch, w->flags), "rw_batch_commit");
}

static void transaction_write(const writer_lane *w, rw_txn *txn, const crash_effect *effect)
{
    unsigned char key[CRASH_KEY_SIZE_MAX];
    rw_bucket bucket = w->writer->buckets[effect->bucket];
    if (effect->id != 0) {
        lane_require(w, rw_txn_put(txn, bucket, lane_key(w, effect, key), lane_value(w, effect)), "rw_txn_put");
        return;
    }
    int code = rw_txn_del(txn, bucket, lane_key(w, effect, key));
    if (code != RW_ENOTFOUND) lane_require(w, code, "rw_txn_del");
}

/* In the middle, a write that is rolled back to a savepoint; or all of it is aborted. */
static void lane_transaction(const writer_lane *w, const crash_operation *operation)
{
    rw_txn *txn;
    unsigned savepoint;
    lane_require(w, rw_txn_begin(w->writer->db, RW_SNAPSHOT, &txn), "rw_txn_begin");
    for (unsigned i = 0; i < operation->count / 2; i++) transaction_write(w, txn, &operation->effects[i]);
    lane_require(w, rw_txn_savepoint(txn, &savepoint), "rw_txn_savepoint");
    transaction_write(w, txn, &operation->undone);
    if (operation->kind == CRASH_ABORT) {
        rw_txn_abort(txn);
        return;
    }
    lane_require(w, rw_txn_rollback_to(txn, savepoint), "rw_txn_rollback_to");
    for (unsigned i = operation->count / 2; i < operation->count; i++) transaction_write(w, txn, &operation->effects[i]);
    lane_require(w, rw_txn_commit(txn, w->flags), "rw_txn_commit");
}

/* What was just written must be what is read, by a key that the operation changed. */
static void lane_read_back(const writer_lane *w, const crash_operation *operation)
{
    if (operation->count == 0) return;
    const crash_effect *effect = &operation->effects[operation->effects[0].key % operation->count];
    unsigned char key[CRASH_KEY_SIZE_MAX];
    size_t size = CRASH_VALUE_SIZE_MAX;
    int code = rw_get(w->writer->db, w->writer->buckets[effect->bucket], lane_key(w, effect, key), w->value, &size);
    if (code != RW_ENOTFOUND) lane_require(w, code, "rw_get");
    uint64_t id = code == 0 ? crash_value_id(w->lane, effect->bucket, effect->key, rw_slice_of(w->value, size)) : 0;
    if (id != *lane_model(w, effect) || (code == 0 && id == 0))
        writer_fail(w->writer->shared, "lane %u, bucket %u, key %u: a get does not return what was just written", w->lane, effect->bucket, effect->key);
}

static void lane_execute(const writer_lane *w, const crash_operation *operation)
{
    switch (operation->kind) {
    case CRASH_PUT: lane_put(w, &operation->effects[0]); break;
    case CRASH_DELETE: lane_delete(w, &operation->effects[0]); break;
    case CRASH_BATCH: lane_batch(w, operation); break;
    case CRASH_RANGE: lane_delete_range(w, operation); break;
    case CRASH_TRANSACTION:
    case CRASH_ABORT: lane_transaction(w, operation); break;
    }
}

static void *lane_run(void *arg)
{
    writer_lane *w = arg;
    crash_shared *shared = w->writer->shared;
    for (uint64_t sequence = 1; !atomic_load(&w->writer->stop); sequence++) {
        crash_operation operation;
        crash_operation_make(shared->seed, shared->round, w->lane, sequence, &operation);
        atomic_store(&shared->lanes[w->lane].started, sequence);
        lane_execute(w, &operation);
        bool durable = w->flags == RW_SYNC;
        if (!durable && crash_lane_flushes(shared->seed, shared->round, w->lane, sequence)) {
            lane_require(w, rw_flush(w->writer->db), "rw_flush");
            durable = true;
        }
        if (durable) atomic_store(&shared->lanes[w->lane].durable, sequence);
        crash_state_apply(&shared->state, w->lane, &operation);
        lane_read_back(w, &operation);
    }
    return NULL;
}

static void sleep_us(uint64_t us)
{
    struct timespec time = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&time, NULL);
}

/* Checkpoints, now and then a compaction: moments that the parent likes to kill in. */
static void *maintenance_run(void *arg)
{
    writer *w = arg;
    crash_shared *shared = w->shared;
    rw_random random;
    rw_random_seed(&random, shared->seed * 31 + shared->round);
    while (!atomic_load(&w->stop)) {
        sleep_us(2000 + rw_random_below(&random, 40000));
        atomic_store(&shared->in_checkpoint, true);
        bool compact = rw_random_below(&random, 10) == 0;
        int code = compact ? rw_compact(w->db) : rw_checkpoint(w->db);
        atomic_store(&shared->in_checkpoint, false);
        if (code != 0) writer_fail(shared, "the writer's %s failed (%d): %s", compact ? "rw_compact" : "rw_checkpoint", code, rw_last_error(w->db));
    }
    return NULL;
}

static void writer_open(writer *w, const char *directory)
{
    crash_shared *shared = w->shared;
    rw_options options = shared->options;
    options.io_backend = shared->io_backend;
    options.log_sync = shared->log_sync;
    int code = rw_open(directory, &options, &w->db);
    for (unsigned i = 0; code == 0 && i < CRASH_BUCKETS; i++) code = rw_bucket_open(w->db, crash_bucket_names[i], i == 0 ? 0 : RW_CREATE, &w->buckets[i]);
    if (code != 0) writer_fail(shared, "the writer cannot open the database (%d): %s", code, rw_last_error(w->db));
    atomic_store(&shared->phase, CRASH_OPENED);
}

static void writer_close(writer *w)
{
    crash_shared *shared = w->shared;
    atomic_store(&shared->phase, CRASH_CLOSING);
    int code = rw_close(w->db);
    if (code != 0) writer_fail(shared, "the writer's rw_close failed (%d): %s", code, rw_last_error(NULL));
    for (unsigned i = 0; i < CRASH_LANES; i++) atomic_store(&shared->lanes[i].durable, atomic_load(&shared->lanes[i].started));
    atomic_store(&shared->phase, CRASH_CLOSED);
}

/* Fills the lane's own things. */
static void lane_prepare(writer_lane *lane, writer *w, unsigned number)
{
    *lane = (writer_lane){.writer = w, .lane = number, .flags = number < CRASH_LANES_SYNC ? RW_SYNC : RW_ASYNC, .value = malloc(CRASH_VALUE_SIZE_MAX)};
    if (lane->value == NULL) writer_fail(w->shared, "the writer has no memory");
    lane_require(lane, rw_batch_new(w->db, &lane->batch), "rw_batch_new");
}

int crash_writer_main(const char *directory, int shared_fd)
{
    crash_shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
    if (shared == MAP_FAILED) return BENCH_EXIT_USAGE;
    writer w = {.shared = shared};
    writer_lane lanes[CRASH_LANES];
    pthread_t threads[CRASH_LANES + 1];
    writer_open(&w, directory);
    for (unsigned i = 0; i < CRASH_LANES; i++) lane_prepare(&lanes[i], &w, i);
    int error = pthread_create(&threads[CRASH_LANES], NULL, maintenance_run, &w);
    for (unsigned i = 0; error == 0 && i < CRASH_LANES; i++) error = pthread_create(&threads[i], NULL, lane_run, &lanes[i]);
    if (error != 0) writer_fail(shared, "the writer cannot start its threads");
    while (!atomic_load(&shared->close_wanted)) sleep_us(500);
    atomic_store(&w.stop, true);
    for (unsigned i = 0; i <= CRASH_LANES; i++) pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < CRASH_LANES; i++) {
        rw_batch_free(lanes[i].batch);
        free(lanes[i].value);
    }
    writer_close(&w);
    return BENCH_EXIT_DONE;
}
