/*
 * A crowd of threads over the smallest cache: commits of many writes over all keys, so that each needs tokens and frames that others hold. Promised
 * and checked here: nobody waits for ever, no commit fails for want of memory, and a batch ends whole. Then the same cache full of one transaction's locks.
 */
#include <unistd.h>

#include "tests/api/txn_helpers.h"

#define CROWD 40
#define KEYS 4000
#define BATCH 24
#define PATIENCE_S 120u /* beside the run itself; a crowd that has stopped for so long never goes on */

static rw_db *db;
static int64_t end_ms;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static rw_slice key_of(char to[16], unsigned number)
{
    snprintf(to, 16, "key %06u", number);
    return slice_text(to);
}

/* Puts all over the keys, and now and then a range that goes; its first and last key get the same value, or go, together. */
static int commit_one(prng *random, unsigned number)
{
    char key[16], end[16], value[400] = {0};
    rw_batch *batch;
    unsigned from = (unsigned)(prng_next(random) % (KEYS - 200));
    int code = rw_batch_new(db, &batch);
    if (code != 0) return code;
    for (unsigned i = 0; i < BATCH && code == 0; i++)
        code = rw_batch_put(batch, BUCKET, key_of(key, (unsigned)(prng_next(random) % KEYS)), slice_bytes(value, prng_next(random) % sizeof value));
    if (code == 0 && number % 8 == 0) code = rw_batch_delete_range(batch, BUCKET, key_of(key, from), key_of(end, from + 200));
    snprintf(value, sizeof value, "%u of %u", number, from);
    if (code == 0) code = rw_batch_put(batch, BUCKET, slice_text("a first"), slice_text(value));
    if (code == 0) code = rw_batch_put(batch, BUCKET, slice_text("z last"), slice_text(value));
    if (code == 0) code = rw_batch_commit(batch, RW_ASYNC);
    rw_batch_free(batch);
    return code;
}

static void *crowd_run(void *arg)
{
    prng random = {.state = (uint64_t)(uintptr_t)arg};
    bool good = true;
    for (unsigned number = 1; good && now_ms() < end_ms; number++) good = CHECK_OK(commit_one(&random, number));
    return good ? NULL : arg;
}

/* ---- full of locks ----------------------------------------------------------------------------------------------- */

#define WAITERS 8
#define OPTIMISTIC 3               /* of the waiters */

static int write_alone(void *arg)
{
    (void)arg;
    return put_text(db, BUCKET, "lock 000001", "alone");
}

static int write_batch(void *arg)
{
    rw_batch *batch;
    (void)arg;
    int code = rw_batch_new(db, &batch);
    if (code != 0) return code;
    for (unsigned i = 2; i < 10 && code == 0; i++) {
        char key[16];
        snprintf(key, sizeof key, "lock %06u", i);
        code = rw_batch_put(batch, BUCKET, slice_text(key), slice_text("batch"));
    }
    if (code == 0) code = rw_batch_commit(batch, RW_ASYNC);
    rw_batch_free(batch);
    return code;
}

static int delete_range(void *arg)
{
    (void)arg;
    return rw_delete_range(db, BUCKET, slice_text("lock 000010"), slice_text("lock 000020"), RW_ASYNC);
}

static int write_optimistic(void *arg)
{
    rw_txn *txn;
    (void)arg;
    int code = rw_txn_begin(db, RW_SNAPSHOT, &txn);
    if (code == 0) code = txn_put_text(txn, "lock 000020", "optimistic");
    return code != 0 ? code : rw_txn_commit(txn, RW_ASYNC);
}

/* The key that the optimistic transaction will write is only claimed. From 30 on the commit replaces what the crowd has left, and keeps it for readers. */
static int lock_one(rw_txn *txn, unsigned number)
{
    static const char value[400];
    char key[16];
    size_t size = 0;
    if (number >= 30) return rw_txn_put(txn, BUCKET, key_of(key, number), slice_bytes(value, sizeof value));
    snprintf(key, sizeof key, "lock %06u", number);
    if (number != 20) return txn_put_text(txn, key, "locked");
    int code = rw_txn_get_for_update(txn, BUCKET, slice_text(key), NULL, &size);
    return code == RW_ENOTFOUND ? 0 : code;
}

/*
 * Who holds no lock waits for one whatever others hold, and however much, and keeps nothing meanwhile that the holder needs to end: it commits as many writes
 * as there is room for locks.
 */
static void test_full_of_locks(void)
{
    static int (*const calls[WAITERS])(void *) = {write_alone, write_batch, delete_range, write_optimistic,
                                                   delete_range, delete_range, delete_range, delete_range}; /* more than the cache has writers for */
    side_call waiters[WAITERS];
    rw_txn *txn, *second;
    int code = 0;
    unsigned locks = 0;
    const char *optimistic = "optimistic";
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &txn));
    for (; code == 0 && locks < 100000; locks++) code = lock_one(txn, locks);
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &second));
    tap_ok(code == RW_ENOMEM && locks > 100 && CHECK_CODE(txn_put_text(second, "another", "x"), RW_ENOMEM), "locks may take no more than %u do", locks);
    for (unsigned i = 0; i < WAITERS; i++) side_start(&waiters[i], calls[i], NULL);
    tap_ok(wait_for_waiting(db, WAITERS), "writers without locks wait all the same");
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    rw_txn_abort(second);
    bool written = true;
    for (unsigned i = 0; i < WAITERS; i++) {
        code = side_join(&waiters[i]);
        if (i == OPTIMISTIC && code == RW_ESNAPSHOT_TOO_OLD) optimistic = NULL; /* for the sake of what the commit kept */
        else written = TAP_CHECK(code == 0 || (tap_diag("writer %u: %s", i, waiters[i].words), false)) && written;
    }
    written = written && get_is_text(db, BUCKET, "lock 000000", "locked") && get_is_text(db, BUCKET, "lock 000001", "alone") &&
              get_is_text(db, BUCKET, "lock 000009", "batch") && key_absent(db, "lock 000010") &&
              (optimistic == NULL ? key_absent(db, "lock 000020") : get_is_text(db, BUCKET, "lock 000020", optimistic));
    tap_ok(written && wait_for_rest(db), "and write when the locks are given back");
}

int main(void)
{
    pthread_t threads[CROWD];
    char dir[DIRS_PATH_MAX], first[64], last[64];
    size_t first_size = sizeof first, last_size = sizeof last;
    bool good = true;
    rw_options options = options_small();
    if (!dir_make(dir, "crowd")) return 1;
    options.cache_bytes = MIB;
    options.partition_bytes = 128 << 10;
    options.workers = 1;
    db = open_or_exit(dir, &options);
    unsigned run_s = check_long() ? 60 : 3;
    alarm(run_s + PATIENCE_S); /* ends the program */
    end_ms = now_ms() + run_s * 1000;
    for (uintptr_t i = 0; i < CROWD; i++) pthread_create(&threads[i], NULL, crowd_run, (void *)(i + 1));
    for (unsigned i = 0; i < CROWD; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        good = good && failed == NULL;
    }
    tap_ok(good, "%d threads commit batches through a cache of 1 MiB", CROWD);
    CHECK_OK(rw_get(db, BUCKET, slice_text("a first"), first, &first_size));
    CHECK_OK(rw_get(db, BUCKET, slice_text("z last"), last, &last_size));
    tap_ok(slice_same(slice_bytes(first, first_size), slice_bytes(last, last_size)), "the first and the last key are of one batch");
    test_full_of_locks();
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    return tap_done();
}
