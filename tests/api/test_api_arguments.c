/* Every wrong argument of every call: refused by code, out-parameters untouched. */
#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

static int note_bucket(void *arg, const char *name, rw_bucket bucket)
{
    int *listed = arg;
    *listed += name != NULL && bucket != 0;
    return 0;
}

static void test_sizes_refused(rw_db *db)
{
    static const char small[16];
    CHECK_CODE(rw_put(db, BUCKET, slice_text("k"), slice_bytes(small, RW_VALUE_SIZE_MAX + 1), RW_ASYNC), RW_ETOOBIG);
    CHECK_CODE(rw_put(db, BUCKET, slice_text("k"), slice_bytes(small, SIZE_MAX), RW_ASYNC), RW_ETOOBIG);
    CHECK_CODE(rw_put(db, BUCKET, slice_bytes(small, SIZE_MAX), slice_text("v"), RW_ASYNC), RW_ETOOBIG);
    CHECK_CODE(get_code(db, BUCKET, slice_text("k")), RW_ENOTFOUND);
    tap_ok(true, "values past RW_VALUE_SIZE_MAX are RW_ETOOBIG");
}

static void test_wrong_arguments(rw_db *db)
{
    char byte = 'x';
    size_t size = 1;
    rw_slice key = slice_text("k"), value = slice_text("v"), bad = slice_bytes(NULL, 3);
    CHECK_CODE(rw_put(db, BUCKET, NO_KEY, value, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_put(db, BUCKET, bad, value, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_put(db, BUCKET, key, bad, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_put(db, BUCKET, key, value, 2), RW_EINVAL);
    CHECK_CODE(rw_put(db, BUCKET, key, value, 0x80000000u), RW_EINVAL);
    CHECK_CODE(rw_get(db, BUCKET, NO_KEY, &byte, &size), RW_EINVAL);
    CHECK_CODE(rw_get(db, BUCKET, bad, &byte, &size), RW_EINVAL);
    CHECK_CODE(rw_get(db, BUCKET, key, &byte, NULL), RW_EINVAL);
    CHECK_CODE(rw_get(db, BUCKET, key, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_del(db, BUCKET, NO_KEY, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_del(db, BUCKET, bad, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_del(db, BUCKET, key, 8), RW_EINVAL);
    CHECK_CODE(rw_delete_range(db, BUCKET, bad, NO_KEY, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_delete_range(db, BUCKET, NO_KEY, bad, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, 2), RW_EINVAL);
    TAP_CHECK(size == 1 && byte == 'x');
    TAP_CHECK(count_keys(db, BUCKET) == 0);
    tap_ok(true, "empty keys, NULL slices and unknown flags are RW_EINVAL");
}

static void test_null_arguments(rw_db *db)
{
    size_t size = 0;
    rw_bucket bucket = 7;
    rw_stats_t stats;
    int listed = 0;
    rw_slice key = slice_text("k"), value = slice_text("v");
    CHECK_CODE(rw_put(NULL, BUCKET, key, value, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_get(NULL, BUCKET, key, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_del(NULL, BUCKET, key, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_delete_range(NULL, BUCKET, NO_KEY, NO_KEY, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_flush(NULL), RW_EINVAL);
    CHECK_CODE(rw_checkpoint(NULL), RW_EINVAL);
    CHECK_CODE(rw_compact(NULL), RW_EINVAL);
    CHECK_CODE(rw_close(NULL), RW_EINVAL);
    CHECK_CODE(rw_stats(NULL, &stats), RW_EINVAL);
    CHECK_CODE(rw_stats(db, NULL), RW_EINVAL);
    CHECK_CODE(rw_bucket_open(NULL, "b", RW_CREATE, &bucket), RW_EINVAL);
    CHECK_CODE(rw_bucket_open(db, NULL, RW_CREATE, &bucket), RW_EINVAL);
    CHECK_CODE(rw_bucket_open(db, "b", RW_CREATE, NULL), RW_EINVAL);
    CHECK_CODE(rw_bucket_open(db, "b", 0, &bucket), RW_ENOTFOUND);
    CHECK_CODE(rw_bucket_drop(NULL, BUCKET), RW_EINVAL);
    CHECK_CODE(rw_bucket_list(NULL, note_bucket, &listed), RW_EINVAL);
    CHECK_CODE(rw_bucket_list(db, NULL, &listed), RW_EINVAL);
    tap_ok(bucket == 7 && size == 0 && listed == 0, "NULL handles and out-parameters are RW_EINVAL");
}

static void test_null_handles(rw_db *db)
{
    rw_batch *batch = (rw_batch *)(void *)db, *old_batch = batch;
    rw_txn *txn = (rw_txn *)(void *)db, *old_txn = txn;
    rw_cursor *cursor = (rw_cursor *)(void *)db, *old_cursor = cursor;
    rw_slice out = NO_KEY, key = slice_text("k");
    unsigned id = 9;
    size_t size = 0;
    CHECK_CODE(rw_batch_new(NULL, &batch), RW_EINVAL);
    CHECK_CODE(rw_batch_new(db, NULL), RW_EINVAL);
    CHECK_CODE(rw_batch_put(NULL, BUCKET, key, key), RW_EINVAL);
    CHECK_CODE(rw_batch_del(NULL, BUCKET, key), RW_EINVAL);
    CHECK_CODE(rw_batch_delete_range(NULL, BUCKET, NO_KEY, NO_KEY), RW_EINVAL);
    CHECK_CODE(rw_batch_commit(NULL, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_txn_begin(NULL, RW_SNAPSHOT, &txn), RW_EINVAL);
    CHECK_CODE(rw_txn_begin(db, RW_SNAPSHOT, NULL), RW_EINVAL);
    CHECK_CODE(rw_txn_get(NULL, BUCKET, key, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_txn_put(NULL, BUCKET, key, key), RW_EINVAL);
    CHECK_CODE(rw_txn_del(NULL, BUCKET, key), RW_EINVAL);
    CHECK_CODE(rw_txn_savepoint(NULL, &id), RW_EINVAL);
    CHECK_CODE(rw_txn_rollback_to(NULL, 0), RW_EINVAL);
    CHECK_CODE(rw_txn_commit(NULL, RW_ASYNC), RW_EINVAL);
    CHECK_CODE(rw_cursor_open(NULL, NULL, BUCKET, &cursor), RW_EINVAL);
    CHECK_CODE(rw_cursor_open(db, NULL, BUCKET, NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_open(db, NULL, 999999, &cursor), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_seek(NULL, key), RW_EINVAL);
    CHECK_CODE(rw_cursor_first(NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_last(NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_next(NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_prev(NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_key(NULL, &out), RW_EINVAL);
    CHECK_CODE(rw_cursor_value(NULL, &out), RW_EINVAL);
    TAP_CHECK(batch == old_batch && txn == old_txn && cursor == old_cursor && id == 9);
    rw_batch_clear(NULL);
    rw_batch_free(NULL);
    rw_txn_abort(NULL);
    rw_cursor_close(NULL);
    tap_ok(true, "NULL batches, transactions and cursors are RW_EINVAL, or nothing to free");
}

static void test_error_texts(rw_db *db)
{
    static const struct {
        int code;
        const char *text;
    } errors[] = {
#define ERROR_ROW(name, code, text) {name, text},
        RW_ERROR_MAP(ERROR_ROW)
#undef ERROR_ROW
    };
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) TAP_CHECK(strcmp(rw_strerror(errors[i].code), errors[i].text) == 0);
    TAP_CHECK(strcmp(rw_strerror(0), "success") == 0);
    TAP_CHECK(strcmp(rw_strerror(1), "unknown error") == 0);
    TAP_CHECK(strcmp(rw_strerror(-1000), "unknown error") == 0);
    TAP_CHECK(strcmp(rw_strerror(INT32_MIN), "unknown error") == 0);
    TAP_CHECK(rw_last_error(NULL) != NULL && rw_last_error(db) != NULL);
    CHECK_CODE(rw_put(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC), RW_EINVAL);
    tap_ok(rw_last_error(db)[0] != 0, "rw_strerror and rw_last_error: %s", rw_last_error(db));
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(dir, "arguments")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    test_sizes_refused(db);
    test_wrong_arguments(db);
    test_null_arguments(db);
    test_null_handles(db);
    test_error_texts(db);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    return tap_done();
}
