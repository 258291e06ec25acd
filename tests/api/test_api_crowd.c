/*
 * A crowd of threads over the smallest cache: commits of many writes over all keys, so that each needs tokens and frames that others hold. Promised
 * and checked here: nobody waits for ever, no commit fails for want of memory, and a batch ends whole.
 */
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

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
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    return tap_done();
}
