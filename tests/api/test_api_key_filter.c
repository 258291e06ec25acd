/*
 * The filter of all keys, as a user meets it: complete soon after creating, and after reopening once everything is cached; given up when there are more keys than it can tell;
 * and never in the way of a key that was put, by whatever thread.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

#define RECORDS 5000u
#define TOO_MANY 120000u           /* for the filter of a cache of 4 MiB */
#define PATIENCE_MS 60000u
#define RELAYED 30000u

static rw_db *db;

static bool filter_complete(void)
{
    rw_stats_t stats;
    CHECK_OK(rw_stats(db, &stats));
    return stats.key_filter_bytes > 0;
}

static bool found(uint64_t number)
{
    char key[16];
    int code = get_code(db, BUCKET, key_numbered(key, number));
    if (code != RW_ENOTFOUND) CHECK_OK(code);
    return code == 0;
}

/* Asks for absent keys until the filter is made. */
static bool filter_comes(void)
{
    struct timespec pause = {.tv_nsec = 1000000};
    for (unsigned ms = 0; ms < PATIENCE_MS && !filter_complete(); ms++) {
        for (uint64_t i = 0; i < 200; i++) TAP_CHECK(!found(1000000000 + ms * 200 + i));
        nanosleep(&pause, NULL);
    }
    return filter_complete();
}

static bool put_all(uint64_t from, uint64_t to)
{
    char key[16];
    uint64_t good = 0;
    for (uint64_t i = from; i < to; i++) good += rw_put(db, BUCKET, key_numbered(key, 2 * i), slice_text("a value"), RW_ASYNC) == 0 && found(2 * i);
    return good == to - from;
}

static bool all_as_they_are(uint64_t count)
{
    uint64_t right = 0;
    for (uint64_t i = 0; i < count; i++) right += found(2 * i) && !found(2 * i + 1);
    return right == count;
}

static void open_with(const char *dir, uint64_t cache_bytes)
{
    rw_options options;
    rw_options_init(&options);
    options.cache_bytes = cache_bytes;
    if (!CHECK_OK(rw_open(dir, &options, &db))) abort();
}

static void test_life(void)
{
    char dir[DIRS_PATH_MAX], key[16];
    dir_make(dir, "key_filter");
    open_with(dir, 64 * MIB);
    tap_ok(filter_comes(), "a new database has a filter of all keys");
    tap_ok(put_all(0, RECORDS), "what is put is found at once");
    tap_ok(all_as_they_are(RECORDS) && filter_comes(), "present keys are found and absent ones are not, with the filter complete");
    for (uint64_t i = 0; i < RECORDS; i += 4) CHECK_OK(rw_del(db, BUCKET, key_numbered(key, 2 * i), RW_ASYNC));
    unsigned gone = 0, back = 0;
    for (uint64_t i = 0; i < RECORDS; i += 4) gone += !found(2 * i);
    tap_ok(gone == RECORDS / 4, "deleted keys are gone");
    for (uint64_t i = 0; i < RECORDS; i += 4) back += rw_put(db, BUCKET, key_numbered(key, 2 * i), slice_text("again"), RW_ASYNC) == 0 && found(2 * i);
    tap_ok(back == RECORDS / 4, "and back again");
    CHECK_OK(rw_close(db));
    open_with(dir, 64 * MIB);
    tap_ok(all_as_they_are(RECORDS), "after reopening all is as it was");
    tap_ok(filter_comes(), "and the filter is made again, now that all leaves were read");
    tap_ok(all_as_they_are(RECORDS) && put_all(RECORDS, RECORDS + 1000), "and is right");
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

static void test_too_many(void)
{
    char dir[DIRS_PATH_MAX];
    dir_make(dir, "key_filter");
    open_with(dir, 4 * MIB);
    tap_ok(filter_comes(), "a small cache has a small filter");
    tap_ok(put_all(0, TOO_MANY), "%u keys are put", TOO_MANY);
    tap_ok(!filter_complete() && all_as_they_are(TOO_MANY), "it is given up when there are more keys than it can tell");
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

/* ---- from thread to thread --------------------------------------------------------------------------------------- */

static _Atomic uint64_t relayed;
static _Atomic unsigned missed;

static void *relay_read(void *arg)
{
    (void)arg;
    for (uint64_t last = 0, now; last < RELAYED; last = now) {
        now = atomic_load(&relayed);
        if (now != last && !found(2 * (now - 1))) atomic_fetch_add(&missed, 1);
    }
    return NULL;
}

static void test_relay(void)
{
    char dir[DIRS_PATH_MAX], key[16];
    pthread_t thread;
    uint64_t good = 0;
    dir_make(dir, "key_filter");
    open_with(dir, 512 * MIB);
    if (!tap_ok(filter_comes() && pthread_create(&thread, NULL, relay_read, NULL) == 0, "a reader follows a writer")) abort();
    for (uint64_t i = 0; i < RELAYED; i++) {
        good += rw_put(db, BUCKET, key_numbered(key, 2 * i), slice_text("a value"), RW_ASYNC) == 0;
        atomic_store(&relayed, i + 1);
    }
    pthread_join(thread, NULL);
    tap_ok(good == RELAYED && missed == 0 && filter_complete(), "and finds every key that it was told of");
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

int main(void)
{
    test_life();
    test_too_many();
    test_relay();
    return tap_done();
}
