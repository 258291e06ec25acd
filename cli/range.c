#include "cli/range.h"

#include <time.h>

#include "base/base.h"

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void stopwatch_start(stopwatch *watch)
{
    watch->started_ns = now_ns();
}

void stopwatch_stop(stopwatch *watch)
{
    watch->total_ns += now_ns() - watch->started_ns;
}

/* Moves a new cursor to the range's first row, in the direction of the walk. */
static int walk_begin(rw_cursor *cursor, const range *r)
{
    if (!r->reverse) return r->from.size != 0 ? rw_cursor_seek(cursor, r->from) : rw_cursor_first(cursor);
    if (r->to.size == 0) return rw_cursor_last(cursor);
    int code = rw_cursor_seek(cursor, r->to);
    if (code == RW_ENOTFOUND) return rw_cursor_last(cursor);
    return code != 0 ? code : rw_cursor_prev(cursor);
}

/* Whether the key lies behind the range's end, in the direction of the walk. */
static bool walk_is_over(const range *r, rw_slice key)
{
    if (r->reverse) return r->from.size != 0 && rw_slice_compare(key, r->from) < 0;
    return r->to.size != 0 && rw_slice_compare(key, r->to) >= 0;
}

static int walk_row(rw_cursor *cursor, const range *r, rw_slice *key, rw_slice *value)
{
    int code = rw_cursor_key(cursor, key);
    if (code != 0 || walk_is_over(r, *key)) return code != 0 ? code : RW_ENOTFOUND;
    return r->keys_only ? 0 : rw_cursor_value(cursor, value);
}

static int walk(rw_cursor *cursor, const range *r, range_row_fn fn, void *arg, uint64_t *rows, stopwatch *watch)
{
    for (bool begun = false; *rows < r->limit; begun = true) {
        rw_slice key = {0}, value = {0};
        stopwatch_start(watch);
        int code = !begun ? walk_begin(cursor, r) : r->reverse ? rw_cursor_prev(cursor) : rw_cursor_next(cursor);
        if (code == 0) code = walk_row(cursor, r, &key, &value);
        stopwatch_stop(watch);
        if (code != 0) return code == RW_ENOTFOUND ? 0 : code;
        ++*rows;
        code = fn != NULL ? fn(arg, key, value) : 0;
        if (code != 0) return code;
    }
    return 0;
}

int range_walk(rw_db *db, rw_txn *txn, rw_bucket bucket, const range *r, range_row_fn fn, void *arg, uint64_t *rows, stopwatch *watch)
{
    rw_cursor *cursor;
    *rows = 0;
    stopwatch_start(watch);
    int code = rw_cursor_open(db, txn, bucket, &cursor);
    stopwatch_stop(watch);
    if (code != 0) return code;
    code = walk(cursor, r, fn, arg, rows, watch);
    rw_cursor_close(cursor);
    return code;
}

void range_prefix_end(rw_slice prefix, text_buffer *end)
{
    const unsigned char *bytes = prefix.data;
    size_t size = prefix.size;
    while (size != 0 && bytes[size - 1] == 0xff) size--;
    text_assign(end, bytes, size);
    if (size != 0) end->data[size - 1] = (char)(bytes[size - 1] + 1);
}

bool range_is_backward(rw_slice from, rw_slice to)
{
    return to.size != 0 && rw_slice_compare(from, to) > 0;
}

static int get(rw_db *db, rw_txn *txn, rw_bucket bucket, rw_slice key, bool for_update, void *buf, size_t *size)
{
    if (txn == NULL) return rw_get(db, bucket, key, buf, size);
    return for_update ? rw_txn_get_for_update(txn, bucket, key, buf, size) : rw_txn_get(txn, bucket, key, buf, size);
}

int range_get(rw_db *db, rw_txn *txn, rw_bucket bucket, rw_slice key, bool for_update, text_buffer *value, stopwatch *watch)
{
    text_reserve(value, 4096);
    for (;;) {
        size_t size = value->capacity;
        stopwatch_start(watch);
        int code = get(db, txn, bucket, key, for_update, value->data, &size);
        stopwatch_stop(watch);
        if (code == 0) value->size = size;
        if (code != RW_ETOOSMALL) return code;
        text_reserve(value, size);
    }
}
