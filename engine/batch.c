/* Batches: writes gathered in the form in which the log will hold them. Large values are placed in extents as they are added. */
#include "engine/body.h"

struct rw_batch {
    engine *e;
    rw_db *db;
    commit_body body;
};

int rw_batch_new(rw_db *db, rw_batch **out)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (out == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    rw_batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL) return rw_error(RW_ENOMEM, "no memory for a batch");
    batch->e = e;
    batch->db = db;
    atomic_fetch_add(&e->children, 1);
    *out = batch;
    return 0;
}

static int batch_usable(rw_batch *batch, engine **e)
{
    if (batch == NULL) return rw_error(RW_EINVAL, "the batch is NULL");
    return engine_of_writer(batch->db, e);
}

int rw_batch_put(rw_batch *batch, rw_bucket bucket, rw_slice key, rw_slice value)
{
    engine *e;
    stored_key stored;
    int error = batch_usable(batch, &e);
    if (error != 0) return error;
    error = value_check(value);
    if (error == 0) error = key_make(e, bucket, key, &stored);
    if (error != 0) return error;
    error = body_add_put(e, &batch->body, stored.slice, value);
    key_free(&stored);
    return error;
}

int rw_batch_del(rw_batch *batch, rw_bucket bucket, rw_slice key)
{
    engine *e;
    stored_key stored;
    int error = batch_usable(batch, &e);
    if (error == 0) error = key_make(e, bucket, key, &stored);
    if (error != 0) return error;
    const wal_op op = {.kind = WAL_OP_DELETE, .key = stored.slice};
    error = body_add(&batch->body, &op);
    key_free(&stored);
    return error;
}

int rw_batch_delete_range(rw_batch *batch, rw_bucket bucket, rw_slice from, rw_slice to)
{
    engine *e;
    stored_key low, high;
    int error = batch_usable(batch, &e);
    if (error == 0) error = key_make_bound(e, bucket, BUCKET_LIVE, from, false, &low);
    if (error != 0) return error;
    error = key_make_bound(e, bucket, BUCKET_LIVE, to, true, &high);
    if (error != 0) {
        key_free(&low);
        return error;
    }
    int order = rw_slice_compare(low.slice, high.slice);
    const wal_op op = {.kind = WAL_OP_DELETE_RANGE, .key = low.slice, .second = high.slice};
    if (order > 0) error = rw_error(RW_EINVAL, "the range ends before it begins");
    else if (order < 0) error = body_add(&batch->body, &op);
    key_free(&low);
    key_free(&high);
    return error;
}

int batch_check(rw_db *db, rw_batch *batch, unsigned flags, rw_slice *body)
{
    engine *e;
    int error = batch_usable(batch, &e);
    if (error != 0) return error;
    if (db != NULL && batch->db != db) return rw_error(RW_EINVAL, "the batch belongs to another database");
    if ((flags & ~RW_ASYNC) != 0) return rw_error(RW_EINVAL, "unknown write flag 0x%x", flags & ~RW_ASYNC);
    *body = body_slice(&batch->body);
    return 0;
}

int batch_apply(rw_batch *batch, unsigned flags, uint64_t *end_lsn)
{
    if (batch->body.count == 0) return 0;
    int error = engine_commit_txn(batch->e, &batch->body, flags, NULL, end_lsn);
    if (error == 0 || error == RW_EUNKNOWN) body_clear(&batch->body); /* what was placed belongs to the tree now */
    return error;
}

int rw_batch_commit(rw_batch *batch, unsigned flags)
{
    rw_slice body;
    uint64_t end_lsn = 0;
    int error = batch_check(NULL, batch, flags, &body);
    if (error == 0) error = batch_apply(batch, flags, &end_lsn);
    return error == 0 && end_lsn != 0 ? engine_durable(batch->e, end_lsn, flags) : error;
}

void rw_batch_clear(rw_batch *batch)
{
    if (batch != NULL) body_discard(batch->e, &batch->body);
}

void rw_batch_free(rw_batch *batch)
{
    if (batch == NULL) return;
    body_discard(batch->e, &batch->body);
    body_free(&batch->body);
    atomic_fetch_sub(&batch->e->children, 1);
    free(batch);
}
