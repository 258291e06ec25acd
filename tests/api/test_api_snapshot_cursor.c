/*
 * Cursors over one unchanging state, against a model that copies the state when they are opened, while everything changes under them: single writes, bursts, range
 * deletes, batches, transactions, large values, checkpoints, cuts of partitions. SNAPSHOT_CURSOR_SEED replays one run.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "tests/api/cursor_keys.h"
#include "tests/support/dirs.h"
#include "tests/support/prng.h"

#define KEYS 3000
#define VALUE_ROOM 60000u
#define READERS 6
#define SAVEPOINTS 4

/* ---- values and the model ---------------------------------------------------------------------------------------- */

/* What write number `stamp` gives a key. */
static rw_slice value_of(int number, uint32_t stamp, uint8_t value[VALUE_ROOM])
{
    prng random = {(uint64_t)stamp << 20 | (uint64_t)number};
    uint64_t kind = prng_below(&random, 200);
    size_t size = (size_t)(kind == 0 ? 3000 + prng_below(&random, VALUE_ROOM - 3000) : kind < 10 ? 0 : prng_below(&random, 200));
    uint64_t fill = prng_next(&random);
    for (size_t i = 0; i < size; i++) value[i] = (uint8_t)((fill >> (i % 8 * 8)) + i / 8);
    return slice_bytes(value, size);
}

/* For each key the stamp of its last write; 0: it is not there. */
typedef struct {
    uint32_t stamps[KEYS];
} model;

static int model_next(const model *m, int at)
{
    do at++;
    while (at < KEYS && m->stamps[at] == 0);
    return at;
}

static int model_previous(const model *m, int at)
{
    do at--;
    while (at >= 0 && m->stamps[at] == 0);
    return at;
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

typedef struct {
    rw_cursor *cursor;
    const model *sees;
    bool nowhere, forwards;
    int at;                      /* -1: before the first, KEYS: after the last */
    uint32_t stamp;              /* of the value it stands on, when it came there */
    uint64_t steps;
    bool too_old;
    uint8_t value[VALUE_ROOM];
} reader;

static int reader_open(reader *r, rw_db *db, rw_txn *txn, const model *sees)
{
    r->cursor = NULL;
    r->sees = sees;
    r->nowhere = true;
    r->forwards = true;
    r->steps = 0;
    r->too_old = false;
    return rw_cursor_open(db, txn, BUCKET, &r->cursor);
}

static void reader_close(reader *r)
{
    rw_cursor_close(r->cursor);
    r->cursor = NULL;
}

/* The same, by the code of the move alone: nothing is asked that the next move could lean on. */
static bool reader_arrived(const reader *r, int code)
{
    return code == (r->at < 0 || r->at >= KEYS ? RW_ENOTFOUND : 0);
}

/* Whether the cursor stands where the model says. */
static bool reader_stands(reader *r, int code)
{
    char key[KEY_ROOM];
    rw_slice got_key = NO_KEY, got_value = NO_KEY;
    if (r->nowhere || r->at < 0 || r->at >= KEYS)
        return code == RW_ENOTFOUND && rw_cursor_key(r->cursor, &got_key) == RW_ENOTFOUND && rw_cursor_value(r->cursor, &got_value) == RW_ENOTFOUND;
    if (code != 0 || rw_cursor_key(r->cursor, &got_key) != 0 || !slice_same(got_key, key_of(r->at, key))) return false;
    code = rw_cursor_value(r->cursor, &got_value);
    r->too_old = code == RW_ESNAPSHOT_TOO_OLD;
    if (r->too_old) return true;
    return code == 0 && slice_same(got_value, value_of(r->at, r->stamp, r->value)) && rw_cursor_key(r->cursor, &got_key) == 0 &&
           slice_same(got_key, key_of(r->at, key));
}

static int reader_seek(reader *r, prng *random)
{
    char key[KEY_ROOM];
    int number = (int)prng_below(random, KEYS);
    rw_slice target = key_of(number, key);
    bool shorter = prng_below(random, 3) == 0;
    if (shorter) target.size = 9;        /* "key 00017", a prefix of it: the same place */
    else if (prng_below(random, 4) == 0) key[target.size++] = '!', number++;
    r->at = model_next(r->sees, number - 1);
    return rw_cursor_seek(r->cursor, target);
}

static int reader_move(reader *r, prng *random)
{
    uint64_t kind = prng_below(random, 100);
    if (kind == 0) return r->at = model_next(r->sees, -1), rw_cursor_first(r->cursor);
    if (kind == 1) return r->at = model_previous(r->sees, KEYS), rw_cursor_last(r->cursor);
    if (kind < 5) return reader_seek(r, random);
    if (kind < 10) r->forwards = !r->forwards;
    if (r->nowhere) r->at = r->forwards ? -1 : KEYS;
    if (r->forwards) r->at = r->at == KEYS ? KEYS : model_next(r->sees, r->at);
    else r->at = r->at == -1 ? -1 : model_previous(r->sees, r->at);
    return r->forwards ? rw_cursor_next(r->cursor) : rw_cursor_prev(r->cursor);
}

/* One move, checked. A snapshot that was given up ends the reader, and is no failure. */
static bool reader_step(reader *r, prng *random)
{
    rw_slice out = NO_KEY;
    int was = r->nowhere ? -2 : r->at, code = reader_move(r, random);
    r->nowhere = false;
    r->steps++;
    r->too_old = code == RW_ESNAPSHOT_TOO_OLD;
    if (r->too_old) return rw_cursor_key(r->cursor, &out) == RW_ENOTFOUND;
    if (r->at >= 0 && r->at < KEYS) r->stamp = r->sees->stamps[r->at];
    if (prng_below(random, 2) == 0 ? reader_arrived(r, code) : reader_stands(r, code)) return true;
    rw_cursor_key(r->cursor, &out);
    tap_diag("step %llu of a cursor, %s: from %d the model goes to %d, the cursor returned %d and stands on \"%.*s\": %s", (unsigned long long)r->steps,
             r->forwards ? "forwards" : "backwards", was, r->at, code, (int)out.size, (const char *)out.data, rw_last_error(NULL));
    return false;
}

static bool reader_steps(reader *r, prng *random, uint64_t count)
{
    for (uint64_t i = 0; i < count && !r->too_old; i++)
        if (!reader_step(r, random)) return false;
    return true;
}

/* ---- writers ----------------------------------------------------------------------------------------------------- */

/* What changes the store and the model, within [low, high). */
typedef struct {
    rw_db *db;
    prng random;
    model *now;
    int low, high;
    uint32_t stamp;
    bool shrinking;              /* more is deleted than put */
    uint8_t value[VALUE_ROOM];
} writer;

static int writer_key(writer *w)
{
    return w->low + (int)prng_below(&w->random, (uint64_t)(w->high - w->low));
}

static bool writer_said(const char *what, int number, int code)
{
    tap_diag("%s of %d returned %d: %s", what, number, code, rw_last_error(NULL));
    return false;
}

static bool write_put(writer *w, int number)
{
    char key[KEY_ROOM];
    uint32_t stamp = ++w->stamp;
    int code = rw_put(w->db, BUCKET, key_of(number, key), value_of(number, stamp, w->value), RW_ASYNC);
    if (code != 0) return writer_said("rw_put", number, code);
    w->now->stamps[number] = stamp;
    return true;
}

static bool write_delete(writer *w, int number)
{
    char key[KEY_ROOM];
    int code = rw_del(w->db, BUCKET, key_of(number, key), RW_ASYNC);
    if (code != (w->now->stamps[number] != 0 ? 0 : RW_ENOTFOUND)) return writer_said("rw_del", number, code);
    w->now->stamps[number] = 0;
    return true;
}

static bool write_delete_range(writer *w)
{
    char from_room[KEY_ROOM], to_room[KEY_ROOM];
    int from = writer_key(w), count = (int)prng_below(&w->random, prng_below(&w->random, 4) == 0 ? KEYS : 100), to = from + count;
    if (to > w->high) to = w->high;
    int code = rw_delete_range(w->db, BUCKET, key_of(from, from_room), key_of(to, to_room), RW_ASYNC);
    if (code != 0) return writer_said("rw_delete_range", from, code);
    memset(w->now->stamps + from, 0, (size_t)(to - from) * sizeof(w->now->stamps[0]));
    return true;
}

static bool write_burst(writer *w)
{
    int from = writer_key(w), count = (int)prng_below(&w->random, 150);
    bool good = true;
    for (int i = from; i < from + count && i < w->high && good; i++) good = write_put(w, i);
    return good;
}

/* One of several writes: what the model said before. */
typedef struct {
    int number;
    uint32_t stamp;
} undo;

#define TOGETHER 20

static int write_one_of(writer *w, rw_batch *batch, rw_txn *txn, undo *before)
{
    char key[KEY_ROOM];
    int number = writer_key(w);
    bool put = w->now->stamps[number] == 0 || prng_below(&w->random, w->shrinking ? 4 : 2) == 0;
    uint32_t stamp = ++w->stamp;
    rw_slice value = value_of(number, stamp, w->value);
    *before = (undo){number, w->now->stamps[number]};
    w->now->stamps[number] = put ? stamp : 0;
    if (put) return batch != NULL ? rw_batch_put(batch, BUCKET, key_of(number, key), value) : rw_txn_put(txn, BUCKET, key_of(number, key), value);
    return batch != NULL ? rw_batch_del(batch, BUCKET, key_of(number, key)) : rw_txn_del(txn, BUCKET, key_of(number, key));
}

/* Up to 20 puts and deletes as one commit, through a batch or a transaction; that one may lose its snapshot. */
static bool write_together(writer *w)
{
    rw_batch *batch = NULL;
    rw_txn *txn = NULL;
    undo before[TOGETHER];
    unsigned count = 0;
    bool in_batch = prng_below(&w->random, 2) == 0;
    int code = in_batch ? rw_batch_new(w->db, &batch) : rw_txn_begin(w->db, RW_SNAPSHOT, &txn);
    for (uint64_t i = 1 + prng_below(&w->random, TOGETHER); i > 0 && code == 0; i--) code = write_one_of(w, batch, txn, &before[count++]);
    if (code == 0) code = in_batch ? rw_batch_commit(batch, RW_ASYNC) : rw_txn_commit(txn, RW_ASYNC);
    else if (!in_batch) rw_txn_abort(txn);
    if (in_batch) rw_batch_free(batch);
    if (code == 0) return true;
    while (count-- > 0) w->now->stamps[before[count].number] = before[count].stamp;
    return (!in_batch && code == RW_ESNAPSHOT_TOO_OLD) || writer_said("a commit", 0, code);
}

static bool write_something(writer *w)
{
    uint64_t kind = prng_below(&w->random, 1000);
    if (kind < 5) w->shrinking = !w->shrinking;
    if (kind < (w->shrinking ? 30u : 8u)) return write_delete_range(w);
    if (kind < (w->shrinking ? 40u : 70u)) return write_burst(w);
    if (kind < 170) return write_together(w);
    return kind < (w->shrinking ? 500u : 700u) ? write_put(w, writer_key(w)) : write_delete(w, writer_key(w));
}

/* Moves pages and large values to other places, and cuts and joins partitions. */
static bool tend(rw_db *db, uint64_t kind)
{
    int code = kind == 0 ? rw_compact(db) : rw_checkpoint(db);
    return code == 0 || writer_said("a checkpoint", 0, code);
}

/* ---- one thread -------------------------------------------------------------------------------------------------- */

typedef struct {
    char dir[DIRS_PATH_MAX];
    rw_db *db;
    writer writer;
    model now;
    reader readers[READERS];
    model sees[READERS];
    uint64_t readers_done, given_up, partitions_most;
} world;

static rw_options world_options(uint64_t seed)
{
    static const uint32_t page_sizes[4] = {4096, 4096, 16384, 65536};
    rw_options options = options_small();
    options.page_size = page_sizes[seed % 4];
    options.cache_bytes = seed % 4 == 3 ? 16 * MIB : seed % 3 == 0 ? MIB : 4 * MIB;
    if (options.page_size == 16384 && options.cache_bytes < 2 * MIB) options.cache_bytes = 2 * MIB;
    options.partition_bytes = MIB / 8;
    options.lock_timeout_ms = 2000;
    return options;
}

static world *world_make(uint64_t seed)
{
    world *w = calloc(1, sizeof(*w));
    if (!TAP_CHECK(w != NULL) || !dir_make(w->dir, "snapshot")) exit(tap_done());
    rw_options options = world_options(seed);
    w->db = open_or_exit(w->dir, &options);
    w->writer = (writer){.db = w->db, .random = {seed}, .now = &w->now, .high = KEYS};
    return w;
}

static void world_end(world *w)
{
    rw_stats_t stats;
    TAP_CHECK(CHECK_OK(rw_stats(w->db, &stats)) && stats.snapshots_open == 0 && stats.txns_open == 0);
    CHECK_OK(rw_close(w->db));
    CHECK_OK(rw_verify(w->dir, note_finding, NULL));
    dir_remove(w->dir);
    free(w);
}

static void note_partitions(world *w)
{
    rw_stats_t stats;
    if (CHECK_OK(rw_stats(w->db, &stats)) && stats.partitions > w->partitions_most) w->partitions_most = stats.partitions;
}

/* A reader's turn: opened when there is none, a few steps, closed at times. */
static bool reader_turn(world *w, unsigned which)
{
    reader *r = &w->readers[which];
    prng *random = &w->writer.random;
    if (r->cursor == NULL) {
        w->sees[which] = w->now;
        int code = reader_open(r, w->db, NULL, &w->sees[which]);
        if (code != 0) return writer_said("rw_cursor_open", (int)which, code);
    }
    if (!reader_steps(r, random, 1 + prng_below(random, 60))) return false;
    w->given_up += r->too_old;
    bool close = r->too_old || prng_below(random, 60) == 0;
    w->readers_done += close && !r->too_old;
    if (close) reader_close(r);
    return true;
}

static bool run_alone(world *w, uint64_t ops)
{
    bool good = true;
    for (uint64_t i = 0; i < ops && good; i++) {
        uint64_t kind = prng_below(&w->writer.random, 1000);
        if (kind < 3) good = tend(w->db, kind);
        else if (kind < 700) good = write_something(&w->writer);
        else good = reader_turn(w, (unsigned)(kind % READERS));
        if (i % 256 == 0) note_partitions(w);
    }
    for (unsigned i = 0; i < READERS; i++)
        if (w->readers[i].cursor != NULL) reader_close(&w->readers[i]);
    return good;
}

static bool given_up_is_told(world *w)
{
    rw_stats_t stats;
    return w->given_up == 0 || (CHECK_OK(rw_stats(w->db, &stats)) && stats.snapshots_given_up > 0);
}

static void test_alone(uint64_t seed)
{
    world *w = world_make(seed);
    bool good = run_alone(w, check_long() ? 60000 : 6000) && TAP_CHECK(given_up_is_told(w));
    if (!good) tap_diag("replay: SNAPSHOT_CURSOR_SEED=%llu test_api_snapshot_cursor", (unsigned long long)seed);
    tap_ok(good, "seed %llu: cursors of %d ages see what they saw when they were opened; up to %llu partitions, %llu cursors, %llu given up", (unsigned long long)seed,
           READERS, (unsigned long long)w->partitions_most, (unsigned long long)w->readers_done, (unsigned long long)w->given_up);
    world_end(w);
}

/* ---- many threads ------------------------------------------------------------------------------------------------ */

enum { WRITERS = 2 };

typedef struct {
    writer writer;
    pthread_mutex_t mutex;       /* held for each write: who holds all of them may copy the model */
    const bool *stop, *wanted;
    bool failed;
} shared_writer;

static void *write_on(void *arg)
{
    shared_writer *s = arg;
    while (!__atomic_load_n(s->stop, __ATOMIC_ACQUIRE) && !s->failed) {
        while (__atomic_load_n(s->wanted, __ATOMIC_ACQUIRE)) sched_yield();
        pthread_mutex_lock(&s->mutex);
        s->failed = !write_something(&s->writer);
        pthread_mutex_unlock(&s->mutex);
    }
    return NULL;
}

typedef struct {
    rw_db *db;
    const bool *stop;
    bool failed;
} tender;

static void *tend_on(void *arg)
{
    tender *t = arg;
    for (uint64_t i = 0; !__atomic_load_n(t->stop, __ATOMIC_ACQUIRE) && !t->failed; i++) t->failed = !tend(t->db, i % 4);
    return NULL;
}

/* Opens a cursor, or a transaction with one, at a moment when no writer writes. */
static int open_in_pause(world *w, shared_writer *writers, bool *wanted, rw_txn **txn, reader *r, model *sees)
{
    int code = 0;
    __atomic_store_n(wanted, true, __ATOMIC_RELEASE);
    for (int i = 0; i < WRITERS; i++) pthread_mutex_lock(&writers[i].mutex);
    *sees = w->now;
    if (txn != NULL) code = rw_txn_begin(w->db, RW_READONLY, txn);
    if (code == 0) code = reader_open(r, w->db, txn != NULL ? *txn : NULL, sees);
    for (int i = 0; i < WRITERS; i++) pthread_mutex_unlock(&writers[i].mutex);
    __atomic_store_n(wanted, false, __ATOMIC_RELEASE);
    return code;
}

static bool read_beside_writers(world *w, shared_writer *writers, bool *wanted, uint64_t rounds)
{
    prng random = {w->writer.random.state + 99};
    bool good = true;
    for (uint64_t i = 0; i < rounds && good; i++) {
        rw_txn *txn = NULL;
        reader *r = &w->readers[0];
        int code = open_in_pause(w, writers, wanted, i % 2 == 0 ? NULL : &txn, r, &w->sees[0]);
        if (code != 0) return writer_said("rw_cursor_open", 0, code);
        good = reader_steps(r, &random, prng_below(&random, check_long() ? 20000 : 5000));
        w->given_up += r->too_old;
        w->readers_done += !r->too_old;
        reader_close(r);
        if (txn != NULL) good &= CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    }
    return good;
}

static void test_beside_writers(uint64_t seed)
{
    static shared_writer writers[WRITERS];
    pthread_t threads[WRITERS + 1];
    bool stop = false, wanted = false;
    world *w = world_make(seed);
    tender tending = {.db = w->db, .stop = &stop};
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (shared_writer){.writer = w->writer, .mutex = PTHREAD_MUTEX_INITIALIZER, .stop = &stop, .wanted = &wanted};
        writers[i].writer.random.state += (uint64_t)i;
        writers[i].writer.low = i * (KEYS / WRITERS);
        writers[i].writer.high = (i + 1) * (KEYS / WRITERS);
        TAP_CHECK(pthread_create(&threads[i], NULL, write_on, &writers[i]) == 0);
    }
    TAP_CHECK(pthread_create(&threads[WRITERS], NULL, tend_on, &tending) == 0);
    bool good = read_beside_writers(w, writers, &wanted, check_long() ? 300 : 30);
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i <= WRITERS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < WRITERS; i++) TAP_CHECK(!writers[i].failed);
    TAP_CHECK(!tending.failed && given_up_is_told(w));
    tap_ok(good, "seed %llu: the same beside %d threads that write and one that cuts and cleans; %llu cursors, %llu given up", (unsigned long long)seed, WRITERS,
           (unsigned long long)w->readers_done, (unsigned long long)w->given_up);
    world_end(w);
}

/* ---- in transactions --------------------------------------------------------------------------------------------- */

typedef struct {
    world *w;
    rw_txn *txn;
    unsigned mode;
    model began, own;            /* when it began; with its own writes */
    model saved[SAVEPOINTS];
    unsigned saved_ids[SAVEPOINTS], saved_count;
    bool outside_wrote, too_old;
} transaction_run;

static bool own_write(transaction_run *run)
{
    char key[KEY_ROOM];
    writer *w = &run->w->writer;
    int number = (int)prng_below(&w->random, KEYS), code;
    uint32_t stamp = ++w->stamp;
    bool put = prng_below(&w->random, 2) == 0;
    if (put) code = rw_txn_put(run->txn, BUCKET, key_of(number, key), value_of(number, stamp, w->value));
    else code = rw_txn_del(run->txn, BUCKET, key_of(number, key));
    run->too_old = code == RW_ESNAPSHOT_TOO_OLD;
    if (run->too_old) return true;
    if (code != (put || run->own.stamps[number] != 0 ? 0 : RW_ENOTFOUND)) return writer_said("a transaction's write", number, code);
    run->own.stamps[number] = put ? stamp : 0;
    return true;
}

static bool own_savepoint(transaction_run *run)
{
    prng *random = &run->w->writer.random;
    if (run->saved_count < SAVEPOINTS && prng_below(random, 2) == 0) {
        run->saved[run->saved_count] = run->own;
        return CHECK_OK(rw_txn_savepoint(run->txn, &run->saved_ids[run->saved_count++]));
    }
    if (run->saved_count == 0) return true;
    unsigned to = (unsigned)prng_below(random, run->saved_count);
    run->own = run->saved[to];
    run->saved_count = to + 1;
    return CHECK_OK(rw_txn_rollback_to(run->txn, run->saved_ids[to]));
}

/* Whatever was written meanwhile, a cursor that does not move keeps what it stands on. */
static bool reader_keeps(reader *r)
{
    bool somewhere = !r->nowhere && r->at >= 0 && r->at < KEYS;
    return !somewhere || reader_stands(r, 0) || writer_said("the value of a cursor that stood still", r->at, 0);
}

static bool transaction_op(transaction_run *run)
{
    world *w = run->w;
    prng *random = &w->writer.random;
    uint64_t kind = prng_below(random, 100);
    reader *r = &w->readers[kind % 2];
    if (kind < 30 && run->mode != RW_PESSIMISTIC) {
        run->outside_wrote = true;
        return write_something(&w->writer);
    }
    if (kind < 60) return run->mode == RW_READONLY || own_write(run);
    if (kind < 65) return run->mode == RW_READONLY || own_savepoint(run);
    bool good = reader_keeps(r) && (r->too_old || reader_steps(r, random, 1 + prng_below(random, 50)));
    run->too_old |= r->too_old;
    return good;
}

/* Its own writes become the model's when it commits. */
static bool transaction_end(transaction_run *run)
{
    model *now = &run->w->now;
    bool commit = !run->too_old && prng_below(&run->w->writer.random, 3) != 0;
    if (!commit) {
        rw_txn_abort(run->txn);
        return true;
    }
    int code = rw_txn_commit(run->txn, RW_ASYNC);
    if (code == RW_ECONFLICT || code == RW_ESNAPSHOT_TOO_OLD) return run->outside_wrote || writer_said("a commit without rivals", 0, code);
    if (code != 0) return writer_said("a transaction's commit", 0, code);
    for (int i = 0; i < KEYS; i++)
        if (run->own.stamps[i] != run->began.stamps[i]) now->stamps[i] = run->own.stamps[i];
    return true;
}

static bool run_transaction(world *w, transaction_run *run, unsigned mode)
{
    *run = (transaction_run){.w = w, .mode = mode, .began = w->now, .own = w->now};
    if (!CHECK_OK(rw_txn_begin(w->db, mode, &run->txn))) return false;
    bool good = true;
    for (unsigned i = 0; i < 2; i++) good &= CHECK_OK(reader_open(&w->readers[i], w->db, run->txn, &run->own));
    for (uint64_t ops = prng_below(&w->writer.random, 120); ops > 0 && good && !run->too_old; ops--) good = transaction_op(run);
    for (unsigned i = 0; i < 2; i++) {
        w->given_up += w->readers[i].too_old;
        reader_close(&w->readers[i]);
    }
    return transaction_end(run) && good;
}

static void test_in_transactions(uint64_t seed)
{
    static const unsigned modes[4] = {RW_SNAPSHOT, RW_SERIALIZABLE, RW_READONLY, RW_PESSIMISTIC};
    uint64_t rounds = check_long() ? 1000 : 80;
    transaction_run *run = calloc(1, sizeof(*run));
    if (!TAP_CHECK(run != NULL)) return;
    world *w = world_make(seed);
    bool good = true;
    for (uint64_t i = 0; i < 30 && good; i++) good = write_burst(&w->writer);
    for (uint64_t i = 0; i < rounds && good; i++) good = run_transaction(w, run, modes[i % 4]);
    reader *r = &w->readers[0];
    good = good && CHECK_OK(reader_open(r, w->db, NULL, &w->now)) && reader_steps(r, &w->writer.random, 2000);
    if (r->cursor != NULL) reader_close(r);
    if (!good) tap_diag("replay: SNAPSHOT_CURSOR_SEED=%llu test_api_snapshot_cursor", (unsigned long long)seed);
    tap_ok(good, "seed %llu: cursors of %llu transactions in all modes see one state and the transaction's own writes, savepoints included", (unsigned long long)seed,
           (unsigned long long)rounds);
    free(run);
    world_end(w);
}

int main(void)
{
    const char *text = getenv("SNAPSHOT_CURSOR_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 1, seeds = text != NULL ? 1 : check_long() ? 40 : 5;
    for (uint64_t i = seed; i < seed + seeds; i++) {
        test_alone(i);
        test_in_transactions(i);
    }
    for (uint64_t i = seed; i < seed + (seeds + 2) / 3; i++) test_beside_writers(i);
    return tap_done();
}
