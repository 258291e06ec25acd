/* Cursors over one unchanging state where old values lie close together, are many, are moved, or are given up; and where nothing changes. */
#include "tests/api/cursor_keys.h"
#include "tests/support/dirs.h"

/* Small buckets side by side in one leaf, all of them changed after the cursors were opened. */
static void test_buckets_keep_apart(rw_db *db)
{
    enum { BUCKETS = 7 };
    rw_bucket buckets[BUCKETS];
    rw_cursor *cursors[BUCKETS];
    char name[16], want[16];
    for (int i = 0; i < BUCKETS; i++) {
        snprintf(name, sizeof(name), "b%d", i);
        CHECK_OK(rw_bucket_open(db, name, RW_CREATE, &buckets[i]));
        if (i % 3 != 2) {
            CHECK_OK(put_text(db, buckets[i], "first", name));
            CHECK_OK(put_text(db, buckets[i], "second", name));
        }
        CHECK_OK(rw_cursor_open(db, NULL, buckets[i], &cursors[i]));
    }
    for (int i = 0; i < BUCKETS; i++) {
        CHECK_OK(rw_delete_range(db, buckets[i], NO_KEY, NO_KEY, RW_ASYNC));
        CHECK_OK(put_text(db, buckets[i], "between", "new"));
        CHECK_OK(put_text(db, buckets[i], "zulu", "new"));
    }
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < BUCKETS; i++) {
            snprintf(want, sizeof(want), "b%d", i);
            if (i % 3 != 2) {
                CHECK_OK(rw_cursor_next(cursors[i]));
                TAP_CHECK(cursor_at(cursors[i], "first", want));
                CHECK_OK(rw_cursor_next(cursors[i]));
                TAP_CHECK(cursor_at(cursors[i], "second", want));
            }
            CHECK_CODE(rw_cursor_next(cursors[i]), RW_ENOTFOUND);
            for (int back = i % 3 != 2 ? 2 : 0; back > 0; back--) CHECK_OK(rw_cursor_prev(cursors[i]));
            CHECK_CODE(rw_cursor_prev(cursors[i]), RW_ENOTFOUND);
        }
    for (int i = 0; i < BUCKETS; i++) {
        TAP_CHECK(count_keys(db, buckets[i]) == 2);
        rw_cursor_close(cursors[i]);
    }
    tap_ok(true, "old values stay in their bucket");
}

/* More old values in one leaf than a cursor takes at a time: thousands of keys were deleted, and their leaves merged. */
static void test_emptied(rw_db *db)
{
    enum { MANY = 5000 };
    rw_cursor *forwards = NULL, *backwards = NULL;
    char key[KEY_ROOM];
    int wrong = 0;
    for (int i = 0; i < MANY; i++) CHECK_OK(rw_put(db, BUCKET, key_of(i, key), slice_text("v"), RW_ASYNC));
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &forwards));
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &backwards));
    for (int i = 0; i < MANY; i++) CHECK_OK(rw_del(db, BUCKET, key_of(i, key), RW_ASYNC));
    CHECK_OK(rw_put(db, BUCKET, key_of(MANY / 2, key), slice_text("another"), RW_ASYNC));
    for (int i = 0; i < MANY; i++) {
        rw_slice got = NO_KEY, value = NO_KEY;
        wrong += rw_cursor_next(forwards) != 0 || rw_cursor_key(forwards, &got) != 0 || !slice_same(got, key_of(i, key));
        wrong += rw_cursor_value(forwards, &value) != 0 || !slice_same(value, slice_text("v"));
        wrong += rw_cursor_prev(backwards) != 0 || rw_cursor_key(backwards, &got) != 0 || !slice_same(got, key_of(MANY - 1 - i, key));
    }
    CHECK_CODE(rw_cursor_next(forwards), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_prev(backwards), RW_ENOTFOUND);
    rw_cursor_close(forwards);
    rw_cursor_close(backwards);
    tap_ok(wrong == 0 && count_keys(db, BUCKET) == 1, "%d keys deleted under two cursors are there for them (%d wrong)", MANY, wrong);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
}

/* Large values that are moved, and then replaced, after the cursor has copied where they lay; and their old places are written over. */
static void test_moved_values(rw_db *db)
{
    enum { MANY = 120, LARGE = 20000 };
    static char value[LARGE], other[LARGE];
    rw_cursor *cursor = NULL;
    rw_stats_t stats;
    char key[KEY_ROOM];
    int wrong = 0;
    memset(other, 'o', sizeof(other));
    for (int i = 0; i < MANY * 3; i++) {
        memset(value, 'a' + i % 26, sizeof(value));
        CHECK_OK(rw_put(db, BUCKET, key_of(i, key), slice_bytes(value, sizeof(value)), RW_ASYNC));
    }
    for (int i = 0; i < MANY * 3; i++)
        if (i % 3 != 0) CHECK_OK(rw_del(db, BUCKET, key_of(i, key), RW_ASYNC));
    CHECK_OK(rw_checkpoint(db));
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    CHECK_OK(rw_cursor_first(cursor));
    CHECK_OK(rw_compact(db));
    CHECK_OK(rw_stats(db, &stats));
    for (int i = 0; i < MANY; i += 2) CHECK_OK(rw_put(db, BUCKET, key_of(i * 3, key), slice_text("replaced"), RW_ASYNC));
    for (int i = 0; i < MANY * 2; i++) CHECK_OK(rw_put(db, BUCKET, key_of(MANY * 3 + i, key), slice_bytes(other, sizeof(other)), RW_ASYNC));
    for (int i = 0; i < MANY; i++) {
        rw_slice got = NO_KEY;
        memset(value, 'a' + i * 3 % 26, sizeof(value));
        wrong += rw_cursor_value(cursor, &got) != 0 || !slice_same(got, slice_bytes(value, sizeof(value)));
        wrong += rw_cursor_next(cursor) != (i + 1 < MANY ? 0 : RW_ENOTFOUND);
    }
    rw_cursor_close(cursor);
    tap_ok(wrong == 0 && stats.segments_cleaned > 0, "large values that were moved and replaced: %d of %d are not what they were; %llu segments were cleaned", wrong, MANY,
           (unsigned long long)stats.segments_cleaned);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
}

/* A snapshot is given up when old values take more than they may; what was given out before is right, and later cursors are not concerned. */
static void test_too_old(rw_db *db)
{
    enum { MANY = 2000, FEW = 100 };
    rw_cursor *cursor = NULL;
    rw_stats_t stats;
    char key[KEY_ROOM], value[200];
    rw_slice out = NO_KEY;
    int code = 0, stepped = 0;
    memset(value, 'v', sizeof(value));
    for (int i = 0; i < MANY; i++) CHECK_OK(rw_put(db, BUCKET, key_of(i, key), slice_bytes(value, sizeof(value)), RW_ASYNC));
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    for (; stepped < FEW && code == 0; stepped++) code = rw_cursor_next(cursor);
    TAP_CHECK(code == 0 && rw_cursor_key(cursor, &out) == 0 && slice_same(out, key_of(FEW - 1, key)));
    for (int i = MANY - 1; i >= 0; i--) CHECK_OK(rw_put(db, BUCKET, key_of(i, key), slice_text("new"), RW_ASYNC));
    for (code = 0; code == 0 && stepped < MANY; stepped++) {
        code = rw_cursor_next(cursor);
        if (code == 0) TAP_CHECK(rw_cursor_key(cursor, &out) == 0 && slice_same(out, key_of(stepped, key)));
        if (code == 0) TAP_CHECK(rw_cursor_value(cursor, &out) == 0 && slice_same(out, slice_bytes(value, sizeof(value))));
    }
    CHECK_CODE(code, RW_ESNAPSHOT_TOO_OLD);
    CHECK_CODE(rw_cursor_key(cursor, &out), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_first(cursor), RW_ESNAPSHOT_TOO_OLD);
    CHECK_CODE(rw_cursor_last(cursor), RW_ESNAPSHOT_TOO_OLD);
    CHECK_CODE(rw_cursor_seek(cursor, key_of(3, key)), RW_ESNAPSHOT_TOO_OLD);
    CHECK_CODE(rw_cursor_prev(cursor), RW_ESNAPSHOT_TOO_OLD);
    rw_cursor_close(cursor);
    CHECK_OK(rw_stats(db, &stats));
    TAP_CHECK(stats.snapshots_given_up == 1 && stats.snapshots_open == 0);
    tap_ok(count_keys(db, BUCKET) == MANY, "a cursor whose snapshot was given up says so, after %d steps", stepped);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
}

/* What is opened read-only does not change, but has cursors and read-only transactions all the same. */
static void test_read_only(const char *dir, rw_options options)
{
    rw_cursor *cursor = NULL, *inside = NULL;
    rw_txn *txn = NULL;
    options.read_only = 1;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    CHECK_OK(rw_cursor_last(cursor));
    TAP_CHECK(cursor_at(cursor, "only", "value"));
    CHECK_OK(rw_txn_begin(db, RW_READONLY, &txn));
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &inside));
    CHECK_OK(rw_cursor_next(inside));
    TAP_CHECK(cursor_at(inside, "only", "value"));
    CHECK_CODE(rw_cursor_next(inside), RW_ENOTFOUND);
    rw_cursor_close(inside);
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    rw_cursor_close(cursor);
    tap_ok(CHECK_OK(rw_close(db)), "cursors of a database that is open for reading only");
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(dir, "snapshot")) return 1;
    options.cache_bytes = 16 * MIB;
    options.snapshot_bytes_max = 4 * MIB;
    rw_db *db = open_or_exit(dir, &options);
    test_buckets_keep_apart(db);
    test_emptied(db);
    test_moved_values(db);
    CHECK_OK(rw_close(db));
    options.cache_bytes = 4 * MIB;
    options.snapshot_bytes_max = MIB / 8;
    db = open_or_exit(dir, &options);
    test_too_old(db);
    CHECK_OK(put_text(db, BUCKET, "only", "value"));
    CHECK_OK(rw_close(db));
    test_read_only(dir, options);
    dir_remove(dir);
    return tap_done();
}
