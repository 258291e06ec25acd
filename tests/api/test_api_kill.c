/*
 * A writer is killed at random moments, also in recovery, checkpoints and compaction. What is found afterwards must be the state after
 * some commit, no earlier than the newest one known to be durable and no later than the newest one begun. KILL_SEED draws other moments,
 * KILL_ROUNDS more of them.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define KEYS 600               /* even ones in the default bucket, odd ones in "other" */
#define VALUE_ROOM ((size_t)40000)

/* Shared by the writer and the test. */
typedef struct {
    char dir[DIRS_PATH_MAX];
    volatile uint64_t durable;   /* newest commit known durable */
    volatile uint64_t begun;     /* newest commit begun */
    volatile bool open;          /* the writer has opened the database */
    uint64_t mode;               /* draws the writer's flags and its partner's work */
} kill_log;

/* One write of a commit: key from..to-1 get the value of commit number, or are deleted. */
typedef struct {
    int from, to;
    bool deletes;
} change;

/* Every commit follows from its number: up to 8 changes, single keys or ranges. */
static int commit_changes(uint64_t number, change changes[8])
{
    prng random = {number * 77};
    int count = 1 + (int)prng_below(&random, 8);
    for (int i = 0; i < count; i++) {
        int from = (int)prng_below(&random, KEYS), width = 1;
        uint64_t kind = prng_below(&random, 30);
        if (kind == 0) width = 1 + (int)prng_below(&random, 100);
        changes[i] = (change){from, from + width > KEYS ? KEYS : from + width, kind < 7};
    }
    return count;
}

static rw_slice kill_key(int i, char key[16])
{
    return slice_bytes(key, (size_t)snprintf(key, 16, "key%05d", i));
}

static rw_slice kill_value(uint64_t number, int i, uint8_t *value)
{
    prng random = {number << 12 | (uint64_t)i};
    size_t size = 8 + (size_t)prng_below(&random, prng_below(&random, 60) == 0 ? VALUE_ROOM - 8 : 250);
    uint64_t word = prng_next(&random);
    for (size_t at = 0; at < size; at++) value[at] = (uint8_t)((word >> (at % 8 * 8)) + at / 8);
    memcpy(value, &number, 8);
    return slice_bytes(value, size);
}

static int batch_change(rw_batch *batch, const rw_bucket buckets[2], uint64_t number, const change *one, uint8_t *value)
{
    char key[16], end[16];
    int code = 0;
    if (one->deletes && one->to - one->from > 1) {
        for (int side = 0; side < 2 && code == 0; side++)
            code = rw_batch_delete_range(batch, buckets[side], kill_key(one->from, key), kill_key(one->to, end));
        return code;
    }
    for (int i = one->from; i < one->to && code == 0; i++) {
        if (one->deletes) code = rw_batch_del(batch, buckets[i % 2], kill_key(i, key));
        else code = rw_batch_put(batch, buckets[i % 2], kill_key(i, key), kill_value(number, i, value));
    }
    return code;
}

typedef struct {
    rw_db *db;
    uint64_t mode;
} partner;

/* Runs beside the writer until the process is killed. */
static void *disturb(void *arg)
{
    partner *self = arg;
    prng random = {self->mode};
    for (;;) {
        usleep((useconds_t)prng_below(&random, 10000));
        int code = prng_below(&random, 4) == 0 ? rw_compact(self->db) : rw_checkpoint(self->db);
        if (code != 0) _exit(3);
    }
    return NULL;
}

static uint64_t newest_commit(rw_db *db)
{
    uint64_t number = 0;
    size_t size = sizeof(number);
    int code = rw_get(db, BUCKET, slice_text("newest"), &number, &size);
    return code == 0 && size == 8 ? number : code == RW_ENOTFOUND ? 0 : UINT64_MAX;
}

/* One commit; acknowledged durable ones are noted. The few async ones are noted when a flush or a sync commit follows. */
static int commit_number(kill_log *log, rw_db *db, rw_batch *batch, const rw_bucket buckets[2], uint64_t number, prng *random)
{
    static uint8_t value[VALUE_ROOM];
    change changes[8];
    int count = commit_changes(number, changes), code = 0;
    bool sync = prng_below(random, log->mode % 3 == 0 ? 2 : 40) == 0;
    for (int i = 0; i < count && code == 0; i++) code = batch_change(batch, buckets, number, &changes[i], value);
    if (code == 0) code = rw_batch_put(batch, BUCKET, slice_text("newest"), slice_bytes(&number, sizeof(number)));
    log->begun = number;
    if (code == 0) code = rw_batch_commit(batch, sync ? RW_SYNC : RW_ASYNC);
    if (code == 0 && !sync && prng_below(random, 50) == 0) {
        code = rw_flush(db);
        sync = true;
    }
    if (code == 0 && sync) log->durable = number;
    return code;
}

static int write_on(kill_log *log, prng *random)
{
    rw_options options = options_small();
    static partner beside;
    rw_bucket buckets[2] = {BUCKET, 0};
    rw_batch *batch = NULL;
    rw_db *db = NULL;
    pthread_t thread;
    options.workers = 1 + (uint32_t)log->mode % 3;
    options.partition_bytes = 128 * 1024;
    options.async_delay_ms = 10;
    if (rw_open(log->dir, &options, &db) != 0 || rw_bucket_open(db, "other", RW_CREATE, &buckets[1]) != 0) return 2;
    if (rw_batch_new(db, &batch) != 0) return 2;
    log->open = true;
    beside = (partner){db, log->mode};
    if (log->mode % 2 == 0 && pthread_create(&thread, NULL, disturb, &beside) != 0) return 2;
    for (uint64_t number = newest_commit(db) + 1;; number++)
        if (commit_number(log, db, batch, buckets, number, random) != 0) return 4;
}

/* Runs a writer for some microseconds, counted from its start or from when it is open; false when it ended by itself. */
static bool run_and_kill(kill_log *log, useconds_t life, bool once_open, uint64_t seed)
{
    fflush(NULL);
    log->open = false;
    pid_t child = fork();
    if (child == 0) {
        prng random = {seed};
        alarm(60);
        int status = write_on(log, &random);
        fprintf(stderr, "# the writer failed: %d, %s\n", status, rw_last_error(NULL));
        _exit(status);
    }
    for (int waited = 0; once_open && !log->open && waited < 20000; waited++) usleep(1000);
    usleep(life);
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* The state after commit newest: which commit each key's value is of, 0 for none. */
static void replay(uint64_t newest, uint64_t state[KEYS])
{
    memset(state, 0, KEYS * sizeof(state[0]));
    for (uint64_t number = 1; number <= newest; number++) {
        change changes[8];
        int count = commit_changes(number, changes);
        for (int i = 0; i < count; i++)
            for (int key = changes[i].from; key < changes[i].to; key++) state[key] = changes[i].deletes ? 0 : number;
    }
}

static int wrong_keys(rw_db *db, const rw_bucket buckets[2], uint64_t newest)
{
    static uint64_t state[KEYS];
    static uint8_t value[VALUE_ROOM];
    int wrong = 0, there = 1;    /* "newest" is a key too */
    replay(newest, state);
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        rw_slice name = kill_key(i, key);
        there += state[i] != 0;
        if (state[i] == 0) wrong += get_code(db, buckets[i % 2], name) != RW_ENOTFOUND;
        else wrong += !get_is(db, buckets[i % 2], name, kill_value(state[i], i, value));
    }
    int64_t found = count_keys(db, buckets[0]) + count_keys(db, buckets[1]);
    return wrong + (newest > 0 && found != there);
}

static bool check_round(kill_log *log, uint64_t round)
{
    rw_options options = options_small();
    rw_bucket buckets[2] = {BUCKET, 0};
    uint64_t durable = log->durable, begun = log->begun;
    rw_db *db = open_or_exit(log->dir, &options);
    CHECK_OK(rw_bucket_open(db, "other", RW_CREATE, &buckets[1]));
    uint64_t newest = newest_commit(db);
    int wrong = newest > begun ? -1 : wrong_keys(db, buckets, newest);
    bool good = tap_ok(newest >= durable && wrong == 0, "round %llu: commit %lld found, %llu durable, %llu begun, %d keys wrong",
                       (unsigned long long)round, (long long)newest, (unsigned long long)durable, (unsigned long long)begun, wrong);
    log->durable = log->begun = newest;
    CHECK_OK(rw_close(db));
    return CHECK_OK(rw_verify(log->dir, note_finding, NULL)) && good;
}

static void test_rounds(void)
{
    kill_log *log = child_shared(sizeof(*log));
    uint64_t seed = number_from("KILL_SEED", 1), rounds = number_from("KILL_ROUNDS", check_long() ? 400 : 20);
    prng random = {seed};
    if (!dir_make(log->dir, "kill")) return;
    for (uint64_t round = 0; round < rounds; round++) {
        log->mode = prng_next(&random) % 1000;
        for (uint64_t again = prng_below(&random, 3); again > 0; again--)    /* in creation or recovery, most likely */
            if (!TAP_CHECK(run_and_kill(log, (useconds_t)prng_below(&random, 15000), false, prng_next(&random)))) return;
        uint64_t begun = log->begun;
        if (!TAP_CHECK(run_and_kill(log, (useconds_t)(20000 + prng_below(&random, 200000)), true, prng_next(&random)))) return;
        TAP_CHECK(log->begun > begun);
        if (check_round(log, round)) continue;
        tap_diag("replay, though not to the microsecond: KILL_SEED=%llu", (unsigned long long)seed);
        return;
    }
    dir_remove(log->dir);
}

/* An RW_ASYNC write is durable after async_delay_ms, with nobody asking. */
static int write_async_and_wait(void *arg)
{
    rw_options options = options_small();
    rw_stats_t before, after;
    rw_db *db = NULL;
    options.async_delay_ms = 20;
    if (!CHILD_CODE(rw_open(arg, &options, &db), 0)) return 1;
    for (int i = 0; i < 100; i++) {
        char key[16];
        if (!CHILD_CODE(rw_put(db, BUCKET, kill_key(i, key), slice_text("async"), RW_ASYNC), 0)) return 1;
    }
    if (!CHILD_CODE(rw_stats(db, &before), 0)) return 1;
    usleep(1000000);
    if (!CHILD_CODE(rw_stats(db, &after), 0) || !CHILD_CHECK(after.log_lsn_durable >= before.log_lsn_end)) return 1;
    kill(getpid(), SIGKILL);
    return 1;
}

static void test_async_delay(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(dir, "kill")) return;
    int code = child_run(write_async_and_wait, dir, 30);
    if (!tap_ok(code == CHILD_SIGNAL(SIGKILL), "async writes become durable by themselves: %d %s", code, child_said())) return;
    rw_db *db = open_or_exit(dir, &options);
    rw_stats_t stats;
    CHECK_OK(rw_stats(db, &stats));
    tap_ok(count_keys(db, BUCKET) == 100 && stats.recovery_records > 0, "and outlive a kill (%llu records replayed)",
           (unsigned long long)stats.recovery_records);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

int main(void)
{
    test_async_delay();
    test_rounds();
    return tap_done();
}
