/*
 * Partitions that were emptied are joined to their left neighbours, under the eyes of an older snapshot: gets and cursors of it find everything that was there when
 * it began, though the leaves that answer for it now have themselves not changed since.
 */
#include <stdio.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

#define RECORDS 20000u
#define KEPT 4000u                 /* the first ones; the others are deleted */
#define PARTITIONS 8u              /* at least, before the deletes: 2.4 MB in partitions of at most 256 KiB; the records that are kept fill up to 4 */
#define ROUNDS_MAX 200u            /* of checkpoints, until partitions are cut or joined */

static rw_slice value_of(char to[100], uint64_t number)
{
    memset(to, 'v', 100);
    snprintf(to, 100, "value %llu", (unsigned long long)number);
    return slice_bytes(to, 100);
}

static uint64_t load(rw_db *db)
{
    char key[16], value[100];
    for (uint64_t i = 0; i < RECORDS; i++)
        if (!CHECK_OK(rw_put(db, BUCKET, key_numbered(key, i), value_of(value, i), RW_ASYNC))) break;
    for (unsigned i = 0; i < ROUNDS_MAX && stats_of(db).partitions < PARTITIONS; i++) CHECK_OK(rw_checkpoint(db));
    return stats_of(db).partitions;
}

static void delete_one_by_one(rw_db *db)
{
    char key[16];
    for (uint64_t i = KEPT; i < RECORDS; i++)
        if (!CHECK_OK(rw_del(db, BUCKET, key_numbered(key, i), RW_ASYNC))) return;
}

static void delete_as_range(rw_db *db)
{
    char from[16];
    CHECK_OK(rw_delete_range(db, BUCKET, key_numbered(from, KEPT), slice_text("kez"), RW_ASYNC));
}

static unsigned found_by_gets(rw_txn *txn)
{
    unsigned found = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        char key[16], value[100], got[128];
        size_t size = sizeof got;
        rw_slice expected = value_of(value, i);
        int code = rw_txn_get(txn, BUCKET, key_numbered(key, i), got, &size);
        bool right = code == 0 && size == expected.size && memcmp(got, expected.data, size) == 0;
        if (!right && i == found) tap_diag("record %llu: %d %s", (unsigned long long)i, code, rw_last_error(NULL));
        found += right;
    }
    return found;
}

static unsigned found_by_cursor(rw_db *db, rw_txn *txn, bool forward)
{
    rw_cursor *cursor;
    unsigned found = 0;
    if (!CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor))) return 0;
    int code = forward ? rw_cursor_first(cursor) : rw_cursor_last(cursor);
    for (; code == 0; code = forward ? rw_cursor_next(cursor) : rw_cursor_prev(cursor)) {
        char key[16], value[100];
        rw_slice got_key, got;
        uint64_t number = forward ? found : RECORDS - 1 - found;
        if (rw_cursor_key(cursor, &got_key) != 0 || !slice_same(got_key, key_numbered(key, number))) break;
        if (rw_cursor_value(cursor, &got) != 0 || !slice_same(got, value_of(value, number))) break;
        found++;
    }
    rw_cursor_close(cursor);
    return found;
}

static void test_joined(const char *name, void (*delete)(rw_db *db))
{
    char dir[DIRS_PATH_MAX];
    rw_options options;
    rw_txn *txn;
    if (!dir_make(dir, "joined")) return;
    rw_options_init(&options);
    options.cache_bytes = 64 * MIB;
    options.partition_bytes = 256 << 10;
    options.snapshot_bytes_max = 16 * MIB;
    rw_db *db = open_or_exit(dir, &options);
    uint64_t before = load(db), after = before;
    if (CHECK_OK(rw_txn_begin(db, RW_READONLY, &txn))) {
        delete(db);
        for (unsigned i = 0; i < ROUNDS_MAX && (after = stats_of(db).partitions) > PARTITIONS / 2; i++) CHECK_OK(rw_checkpoint(db));
        tap_ok(before >= PARTITIONS && after <= PARTITIONS / 2, "%s: %llu partitions are %llu", name, (unsigned long long)before, (unsigned long long)after);
        unsigned gets = found_by_gets(txn), forward = found_by_cursor(db, txn, true), backward = found_by_cursor(db, txn, false);
        tap_ok(gets == RECORDS && forward == RECORDS && backward == RECORDS, "an older snapshot finds all %u: %u by gets, %u and %u by cursors", RECORDS, gets, forward, backward);
        rw_txn_abort(txn);
    }
    unsigned now = found_by_cursor(db, NULL, true);
    tap_ok(now == KEPT, "a new one those that are left: %u", now);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

int main(void)
{
    test_joined("deleted one by one", delete_one_by_one);
    test_joined("deleted as a range", delete_as_range);
    return tap_done();
}
