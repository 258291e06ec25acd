/* Cursors: both directions, seeks, ends, buckets that do not leak, many partitions, and scans under concurrent writers. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

static rw_cursor *open_cursor(rw_db *db, rw_bucket bucket)
{
    rw_cursor *cursor = NULL;
    CHECK_OK(rw_cursor_open(db, NULL, bucket, &cursor));
    return cursor;
}

static bool stands_nowhere(rw_cursor *cursor)
{
    rw_slice key = {"untouched", 9}, value = key;
    bool refused = rw_cursor_key(cursor, &key) == RW_ENOTFOUND && rw_cursor_value(cursor, &value) == RW_ENOTFOUND;
    return refused && slice_same(key, slice_text("untouched")) && slice_same(value, slice_text("untouched"));
}

static void test_empty(rw_db *db, rw_bucket bucket)
{
    rw_cursor *cursor = open_cursor(db, bucket);
    TAP_CHECK(stands_nowhere(cursor));
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_prev(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_first(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_last(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_seek(cursor, slice_text("k")), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_seek(cursor, NO_KEY), RW_ENOTFOUND);
    tap_ok(stands_nowhere(cursor), "an empty bucket: every move is RW_ENOTFOUND");
    rw_cursor_close(cursor);
}

static void fill_bdf(rw_db *db, rw_bucket bucket)
{
    CHECK_OK(put_text(db, bucket, "b", "1"));
    CHECK_OK(put_text(db, bucket, "d", "2"));
    CHECK_OK(put_text(db, bucket, "f", "3"));
}

static void test_directions(rw_db *db, rw_bucket bucket)
{
    rw_cursor *cursor = open_cursor(db, bucket);
    CHECK_OK(rw_cursor_next(cursor));
    TAP_CHECK(cursor_at(cursor, "b", "1"));
    rw_cursor_close(cursor);
    cursor = open_cursor(db, bucket);
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_at(cursor, "f", "3"));
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_at(cursor, "d", "2"));
    CHECK_OK(rw_cursor_next(cursor));
    TAP_CHECK(cursor_at(cursor, "f", "3"));
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    TAP_CHECK(stands_nowhere(cursor));
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_at(cursor, "f", "3"));
    CHECK_OK(rw_cursor_first(cursor));
    TAP_CHECK(cursor_at(cursor, "b", "1"));
    CHECK_CODE(rw_cursor_prev(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_prev(cursor), RW_ENOTFOUND);
    CHECK_OK(rw_cursor_next(cursor));
    TAP_CHECK(cursor_at(cursor, "b", "1"));
    CHECK_OK(rw_cursor_last(cursor));
    tap_ok(cursor_at(cursor, "f", "3"), "next and prev, past either end and back");
    rw_cursor_close(cursor);
}

static void test_seek(rw_db *db, rw_bucket bucket)
{
    static const char *targets[][2] = {{"b", "b"}, {"d", "d"}, {"f", "f"}, {"", "b"}, {"a", "b"}, {"b!", "d"}, {"c", "d"}, {"e", "f"}};
    rw_cursor *cursor = open_cursor(db, bucket);
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        CHECK_OK(rw_cursor_seek(cursor, slice_text(targets[i][0])));
        TAP_CHECK(cursor_key_is(cursor, targets[i][1]));
    }
    CHECK_CODE(rw_cursor_seek(cursor, slice_text("g")), RW_ENOTFOUND);
    TAP_CHECK(stands_nowhere(cursor));
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_key_is(cursor, "f"));
    CHECK_CODE(rw_cursor_seek(cursor, slice_text("f!")), RW_ENOTFOUND);
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_key_is(cursor, "f"));
    CHECK_OK(rw_cursor_seek(cursor, slice_text("c")));
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_key_is(cursor, "b"));
    CHECK_OK(rw_cursor_seek(cursor, slice_text("c")));
    CHECK_OK(rw_cursor_next(cursor));
    TAP_CHECK(cursor_key_is(cursor, "f"));
    CHECK_CODE(rw_cursor_seek(cursor, slice_bytes(NULL, 4)), RW_EINVAL);
    CHECK_CODE(rw_cursor_key(cursor, NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_value(cursor, NULL), RW_EINVAL);
    tap_ok(cursor_key_is(cursor, "f"), "seek to keys present, absent and past the end");
    rw_cursor_close(cursor);
}

/* The bucket of a cursor that was opened at b, d, f, and what it sees of it. */
static void check_sees_bdf(rw_cursor *cursor)
{
    CHECK_OK(rw_cursor_seek(cursor, slice_text("c")));
    TAP_CHECK(cursor_at(cursor, "d", "2"));
    CHECK_OK(rw_cursor_next(cursor));
    TAP_CHECK(cursor_at(cursor, "f", "3"));
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    for (int i = 0; i < 2; i++) CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_at(cursor, "d", "2"));
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_at(cursor, "b", "1"));
    CHECK_CODE(rw_cursor_prev(cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_seek(cursor, slice_text("g")), RW_ENOTFOUND);
}

static void test_changes_under_cursor(rw_db *db, rw_bucket bucket)
{
    rw_cursor *cursor = open_cursor(db, bucket), *unmoved = open_cursor(db, bucket);
    rw_slice key = NO_KEY, value = NO_KEY;
    CHECK_OK(rw_cursor_seek(cursor, slice_text("d")));
    CHECK_OK(rw_cursor_key(cursor, &key));
    CHECK_OK(rw_cursor_value(cursor, &value));
    CHECK_OK(put_text(db, bucket, "d", "overwritten with something else"));
    TAP_CHECK(slice_same(key, slice_text("d")) && slice_same(value, slice_text("2")));
    CHECK_OK(del_text(db, bucket, "d"));
    for (int i = 0; i < 2000; i++) {
        char other[16];
        snprintf(other, sizeof(other), "c%06d", i);
        CHECK_OK(put_text(db, bucket, other, other));
    }
    TAP_CHECK(slice_same(key, slice_text("d")) && slice_same(value, slice_text("2")));
    check_sees_bdf(cursor);
    check_sees_bdf(unmoved);
    rw_cursor *later = open_cursor(db, bucket);
    CHECK_OK(rw_cursor_seek(later, slice_text("d")));
    TAP_CHECK(cursor_at(later, "f", "3"));
    CHECK_OK(rw_cursor_prev(later));
    TAP_CHECK(cursor_at(later, "c001999", "c001999"));
    CHECK_OK(rw_delete_range(db, bucket, slice_text("c"), slice_text("d"), RW_ASYNC));
    CHECK_OK(put_text(db, bucket, "d", "back"));
    check_sees_bdf(unmoved);
    CHECK_OK(rw_cursor_prev(later));
    TAP_CHECK(cursor_at(later, "c001998", "c001998"));
    CHECK_OK(rw_cursor_seek(later, slice_text("d")));
    TAP_CHECK(cursor_at(later, "f", "3") && count_keys(db, bucket) == 3);
    CHECK_OK(put_text(db, bucket, "d", "2"));
    tap_ok(true, "a cursor sees what was there when it was opened, whatever happens");
    rw_cursor_close(cursor);
    rw_cursor_close(unmoved);
    rw_cursor_close(later);
}

static void test_no_leak(rw_db *db)
{
    static const char *names[5] = {"n1", "n2", "n3", "n4", "n5"};
    static const uint8_t low[3] = {0, 0, 0}, high[3] = {255, 255, 255};
    rw_bucket buckets[5];
    for (int i = 0; i < 5; i++) CHECK_OK(rw_bucket_open(db, names[i], RW_CREATE, &buckets[i]));
    for (int i = 0; i < 5; i += 2) {
        CHECK_OK(rw_put(db, buckets[i], slice_bytes(low, 1), slice_text(names[i]), RW_ASYNC));
        CHECK_OK(rw_put(db, buckets[i], slice_bytes(high, 3), slice_text(names[i]), RW_ASYNC));
    }
    for (int i = 0; i < 5; i++) {
        rw_cursor *cursor = open_cursor(db, buckets[i]);
        int seen = 0, want = i % 2 == 0 ? 2 : 0;
        rw_slice value = NO_KEY;
        while (rw_cursor_next(cursor) == 0)
            seen += TAP_CHECK(rw_cursor_value(cursor, &value) == 0 && slice_same(value, slice_text(names[i])));
        TAP_CHECK(seen == want);
        while (rw_cursor_prev(cursor) == 0)
            seen += TAP_CHECK(rw_cursor_value(cursor, &value) == 0 && slice_same(value, slice_text(names[i])));
        TAP_CHECK(seen == 2 * want);
        CHECK_CODE(rw_cursor_seek(cursor, slice_bytes(high, 3)), want > 0 ? 0 : RW_ENOTFOUND);
        CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
        CHECK_OK(rw_delete_range(db, buckets[i], slice_bytes(low, 3), NO_KEY, RW_ASYNC));
        rw_cursor_close(cursor);
    }
    for (int i = 0; i < 5; i++) TAP_CHECK(count_keys(db, buckets[i]) == (i % 2 == 0 ? 1 : 0));
    for (int i = 0; i < 5; i++) CHECK_OK(rw_bucket_drop(db, buckets[i]));
    tap_ok(true, "cursors stay in their bucket");
}

static void test_dropped_under_cursor(rw_db *db)
{
    rw_bucket bucket = 0;
    CHECK_OK(rw_bucket_open(db, "dropped", RW_CREATE, &bucket));
    fill_bdf(db, bucket);
    rw_cursor *cursor = open_cursor(db, bucket);
    CHECK_OK(rw_cursor_first(cursor));
    int code = rw_bucket_drop(db, bucket);
    TAP_CHECK(code == 0 || code == RW_EBUSY);
    int moved = rw_cursor_next(cursor);
    TAP_CHECK(code == 0 && moved == 0 && cursor_key_is(cursor, "d"));
    rw_cursor_close(cursor);
    if (code == RW_EBUSY) CHECK_OK(rw_bucket_drop(db, bucket));
    tap_ok(true, "dropping a bucket under a cursor (%d)", code);
}

static void test_many_cursors(rw_db *db)
{
    enum { MANY = 100 };
    rw_cursor *cursors[MANY];
    char key[16];
    for (int i = 0; i < MANY * 20; i++) {
        snprintf(key, sizeof(key), "m%06d", i);
        CHECK_OK(put_text(db, BUCKET, key, key));
    }
    for (int i = 0; i < MANY; i++) {
        cursors[i] = open_cursor(db, BUCKET);
        snprintf(key, sizeof(key), "m%06d", i * 20);
        CHECK_OK(rw_cursor_seek(cursors[i], slice_text(key)));
    }
    for (int step = 0; step < 19; step++)
        for (int i = 0; i < MANY; i++) CHECK_OK(rw_cursor_next(cursors[i]));
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof(key), "m%06d", i * 20 + 19);
        TAP_CHECK(cursor_at(cursors[i], key, key));
        rw_cursor_close(cursors[i]);
    }
    tap_ok(true, "%d cursors at once", MANY);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
}

static void test_small(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_bucket bucket = 0;
    if (!dir_make(dir, "cursor")) return;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(rw_bucket_open(db, "small", RW_CREATE, &bucket));
    test_empty(db, bucket);
    fill_bdf(db, bucket);
    test_directions(db, bucket);
    test_seek(db, bucket);
    test_changes_under_cursor(db, bucket);
    CHECK_OK(rw_delete_range(db, bucket, NO_KEY, NO_KEY, RW_ASYNC));
    test_empty(db, bucket);
    test_no_leak(db);
    test_dropped_under_cursor(db);
    test_many_cursors(db);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

#define STABLE_KEYS 200000

static rw_slice stable_key(uint64_t i, char key[24])
{
    return slice_bytes(key, (size_t)snprintf(key, 24, "stable %09llu", (unsigned long long)i));
}

static void load_stable(rw_db *db, uint64_t count)
{
    rw_batch *batch = NULL;
    CHECK_OK(rw_batch_new(db, &batch));
    for (uint64_t i = 0; i < count; i++) {
        char key[24];
        uint64_t number = i * 7919 % count;
        if (!CHECK_OK(rw_batch_put(batch, BUCKET, stable_key(number, key), slice_bytes(&number, sizeof(number))))) break;
        if (i % 500 == 499) CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    }
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    rw_batch_free(batch);
}

/* Whether the cursor stands on stable key i with its value; *stable says whether it stands on a stable key at all. */
static bool is_stable(rw_cursor *cursor, uint64_t i, bool *stable)
{
    char want[24];
    rw_slice key = NO_KEY, value = NO_KEY;
    if (rw_cursor_key(cursor, &key) != 0 || rw_cursor_value(cursor, &value) != 0) return false;
    *stable = key.size == 16;
    if (!*stable) return true;
    return slice_same(key, stable_key(i, want)) && slice_same(value, slice_bytes(&i, sizeof(i)));
}

/*
 * A scan and the writers beside it keep pace with each other, one write for every KEYS_PER_WRITE keys scanned, so that at any speed of the machine
 * there are writes beside all of the scan, and what they replace fits snapshot_bytes_max.
 */
static struct {
    bool shared;   /* there are writers */
    uint64_t owed; /* writes that they may still make */
} pace;

#define KEYS_PER_WRITE 32
#define OWED_MAX       256

static void pace_keys_scanned(void)
{
    if (!__atomic_load_n(&pace.shared, __ATOMIC_RELAXED)) return;
    uint64_t owed = __atomic_add_fetch(&pace.owed, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 1000 && owed > OWED_MAX; i++) {
        usleep(100);
        owed = __atomic_load_n(&pace.owed, __ATOMIC_RELAXED);
    }
}

static bool pace_may_write(void)
{
    uint64_t owed = __atomic_load_n(&pace.owed, __ATOMIC_RELAXED);
    while (owed > 0)
        if (__atomic_compare_exchange_n(&pace.owed, &owed, owed - 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return true;
    return false;
}

/* A full scan; returns the number of stable keys met in order before the first thing wrong. Keys between them are passed over. */
static uint64_t scan_stable(rw_db *db, uint64_t count, bool forwards)
{
    rw_cursor *cursor = NULL;
    uint64_t seen = 0;
    int code = rw_cursor_open(db, NULL, BUCKET, &cursor);
    if (code != 0) return 0;
    while ((code = forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor)) == 0) {
        bool stable = false;
        uint64_t want = forwards ? seen : count - 1 - seen;
        if (!is_stable(cursor, want, &stable)) break;
        seen += stable;
        if (stable && seen % KEYS_PER_WRITE == 0) pace_keys_scanned();
    }
    if (code != RW_ENOTFOUND) tap_diag("the scan ended behind %llu keys: %d, %s", (unsigned long long)seen, code, rw_last_error(db));
    rw_cursor_close(cursor);
    return code == RW_ENOTFOUND ? seen : seen == count ? 0 : seen;
}

static void test_seek_stable(rw_db *db, uint64_t count)
{
    prng random = {11};
    rw_cursor *cursor = open_cursor(db, BUCKET);
    uint64_t wrong = 0;
    for (int i = 0; i < 5000; i++) {
        char key[24];
        bool stable = false;
        uint64_t at = prng_below(&random, count);
        wrong += rw_cursor_seek(cursor, stable_key(at, key)) != 0 || !is_stable(cursor, at, &stable);
        bool forwards = prng_below(&random, 2) == 0;
        if (forwards && at + 1 < count) wrong += rw_cursor_next(cursor) != 0 || !is_stable(cursor, at + 1, &stable);
        if (!forwards && at > 0) wrong += rw_cursor_prev(cursor) != 0 || !is_stable(cursor, at - 1, &stable);
    }
    rw_cursor_close(cursor);
    tap_ok(wrong == 0, "5000 seeks with a step to either side (%llu wrong)", (unsigned long long)wrong);
}

static void test_many_keys(rw_db *db)
{
    rw_stats_t stats;
    load_stable(db, STABLE_KEYS);
    CHECK_OK(rw_checkpoint(db));
    CHECK_OK(rw_stats(db, &stats));
    tap_ok(stats.partitions > 1, "%d keys lie in %llu partitions", STABLE_KEYS, (unsigned long long)stats.partitions);
    uint64_t seen = scan_stable(db, STABLE_KEYS, true);
    tap_ok(seen == STABLE_KEYS, "forwards: %llu keys", (unsigned long long)seen);
    seen = scan_stable(db, STABLE_KEYS, false);
    tap_ok(seen == STABLE_KEYS, "backwards: %llu keys", (unsigned long long)seen);
    test_seek_stable(db, STABLE_KEYS);
}

typedef struct {
    rw_db *db;
    uint64_t seed;
    bool stop;
    int failed;
} disturber;

/* Puts and deletes keys between the stable ones, "stable 000012345x...", of all sizes, so that pages split and merge under the scans. */
static void *disturb(void *arg)
{
    disturber *self = arg;
    prng random = {self->seed};
    static const char value[600] = "disturbance";
    while (!__atomic_load_n(&self->stop, __ATOMIC_RELAXED) && self->failed == 0) {
        if (!pace_may_write()) {
            usleep(50);
            continue;
        }
        char key[64];
        rw_slice between = stable_key(prng_below(&random, STABLE_KEYS), key);
        key[between.size++] = (char)('a' + prng_below(&random, 26));
        int code;
        if (prng_below(&random, 3) == 0) code = rw_del(self->db, BUCKET, between, RW_ASYNC);
        else code = rw_put(self->db, BUCKET, between, slice_bytes(value, prng_below(&random, sizeof(value))), RW_ASYNC);
        if (code != 0 && code != RW_ENOTFOUND) self->failed = code;
    }
    return NULL;
}

static void test_scan_under_writers(rw_db *db)
{
    enum { WRITERS = 2 };
    disturber writers[WRITERS];
    pthread_t threads[WRITERS];
    int rounds = check_long() ? 20 : 2;
    __atomic_store_n(&pace.shared, true, __ATOMIC_RELAXED);
    for (uint64_t i = 0; i < WRITERS; i++) {
        writers[i] = (disturber){.db = db, .seed = i + 1};
        TAP_CHECK(pthread_create(&threads[i], NULL, disturb, &writers[i]) == 0);
    }
    for (int round = 0; round < rounds; round++) {
        uint64_t forwards = scan_stable(db, STABLE_KEYS, true), backwards = scan_stable(db, STABLE_KEYS, false);
        tap_ok(forwards == STABLE_KEYS && backwards == STABLE_KEYS, "under writers every stable key once, in order: %llu, %llu",
               (unsigned long long)forwards, (unsigned long long)backwards);
    }
    for (int i = 0; i < WRITERS; i++) {
        __atomic_store_n(&writers[i].stop, true, __ATOMIC_RELAXED);
        pthread_join(threads[i], NULL);
        TAP_CHECK(writers[i].failed == 0);
    }
    __atomic_store_n(&pace.shared, false, __ATOMIC_RELAXED);
    tap_ok(pace.owed <= OWED_MAX + 1, "%d writes for each scan of %d keys, made beside it", STABLE_KEYS / KEYS_PER_WRITE, STABLE_KEYS);
}

static void test_big(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    options.partition_bytes = MIB;
    options.cache_bytes = 8 * MIB;
    options.snapshot_bytes_max = 2 * MIB;
    if (!dir_make(dir, "cursor")) return;
    rw_db *db = open_or_exit(dir, &options);
    test_many_keys(db);
    test_scan_under_writers(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    db = open_or_exit(dir, &options);
    uint64_t seen = scan_stable(db, STABLE_KEYS, true);
    tap_ok(seen == STABLE_KEYS, "after reopening: %llu keys", (unsigned long long)seen);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

int main(void)
{
    test_small();
    test_big();
    return tap_done();
}
