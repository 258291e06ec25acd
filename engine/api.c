/* The public calls on single keys and ranges. */
#include "base/planted.h"
#include "engine/engine_internal.h"

static int flags_check(unsigned flags)
{
    return RW_LIKELY((flags & ~RW_ASYNC) == 0) ? 0 : rw_error(RW_EINVAL, "unknown write flag 0x%x", flags & ~RW_ASYNC);
}

int rw_get(rw_db *db, rw_bucket bucket, rw_slice key, void *buf, size_t *size)
{
    engine *e;
    stored_key stored;
    int error = engine_of(db, &e);
    if (RW_UNLIKELY(error != 0)) return error;
    if (RW_UNLIKELY(size == NULL || (buf == NULL && *size > 0))) return rw_error(RW_EINVAL, "the %s is NULL", size == NULL ? "size" : "buffer");
    error = key_make(e, bucket, key, &stored);
    if (RW_UNLIKELY(error != 0)) return error;
    error = engine_get(e, stored.slice, buf, size);
    if (error == RW_ENOTFOUND) rw_error_fixed(error, "the key was not found");
    key_free(&stored);
    return error;
}

static int write_one(rw_db *db, rw_bucket bucket, wal_op_kind kind, rw_slice key, rw_slice value, unsigned flags)
{
    engine *e;
    stored_key stored;
    int error = engine_of_writer(db, &e);
    if (error == 0) error = flags_check(flags);
    if (error == 0) error = value_check(value);
    if (error == 0) error = key_make(e, bucket, key, &stored);
    if (RW_UNLIKELY(error != 0)) return error;
    const wal_op op = {.kind = kind, .key = stored.slice, .second = value};
    error = engine_commit_one(e, &op, flags);
    if (error == RW_ENOTFOUND) rw_error_fixed(error, "the key was not found");
    key_free(&stored);
    return error;
}

int rw_put(rw_db *db, rw_bucket bucket, rw_slice key, rw_slice value, unsigned flags)
{
    return write_one(db, bucket, WAL_OP_PUT, key, value, flags);
}

int rw_del(rw_db *db, rw_bucket bucket, rw_slice key, unsigned flags)
{
    return write_one(db, bucket, WAL_OP_DELETE, key, rw_slice_of(NULL, 0), flags);
}

int rw_delete_range(rw_db *db, rw_bucket bucket, rw_slice from, rw_slice to, unsigned flags)
{
    rw_batch *batch;
    int error = flags_check(flags);
    if (error != 0) return error;
    error = rw_batch_new(db, &batch);
    if (error != 0) return error;
    error = rw_batch_delete_range(batch, bucket, from, to);
    if (error == 0) error = rw_batch_commit(batch, flags);
    rw_batch_free(batch);
    return error;
}

int rw_flush(rw_db *db)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0 || e->read_only || RW_PLANTED(lose_async_flush)) return error;
    return wal_wait(e->wal, wal_end_lsn(e->wal));
}

int rw_checkpoint(rw_db *db)
{
    engine *e;
    int error = engine_of_writer(db, &e);
    return error != 0 ? error : checkpointer_round(e, false);
}

int rw_compact(rw_db *db)
{
    engine *e;
    int error = engine_of_writer(db, &e);
    return error != 0 ? error : checkpointer_round(e, true);
}

size_t rw_key_size_max(uint32_t page_size)
{
    bool supported = rw_is_power_of_two(page_size) && page_size >= RW_PAGE_SIZE_MIN && page_size <= RW_PAGE_SIZE_MAX;
    return supported ? rw_limits_key_max(page_size) : 0;
}

const char *rw_last_error(rw_db *db)
{
    (void)db; /* the sentence belongs to the thread */
    return rw_error_text();
}
