/* Transactions: a private write set, committed as one record. */
#include "engine/txn.h"

#include "engine/body.h"

int rw_txn_begin(rw_db *db, unsigned flags, rw_txn **out)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (out == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    if ((flags & ~RW_READONLY) != 0) return rw_error(RW_EINVAL, "unknown flag 0x%x for rw_txn_begin", flags & ~RW_READONLY);
    rw_txn *txn = calloc(1, sizeof *txn);
    if (txn == NULL) return rw_error(RW_ENOMEM, "no memory for a transaction");
    error = write_set_open(&txn->writes);
    if (error != 0) {
        free(txn);
        return error;
    }
    txn->e = e;
    txn->db = db;
    txn->read_only = (flags & RW_READONLY) != 0;
    atomic_fetch_add(&e->children, 1);
    *out = txn;
    return 0;
}

int txn_usable(rw_txn *txn, engine **e)
{
    if (txn == NULL) return rw_error(RW_EINVAL, "the transaction is NULL");
    if (txn->ended) return rw_error(RW_ECLOSED, "the transaction has ended");
    return engine_of(txn->db, e);
}

static int txn_writable(rw_txn *txn, engine **e)
{
    int error = txn_usable(txn, e);
    if (error != 0) return error;
    if (txn->read_only) return rw_error(RW_EREADONLY, "the transaction is read-only");
    return engine_write_allowed(*e);
}

/* The end of a transaction; the object stays while cursors point to it. */
static void txn_end(rw_txn *txn)
{
    write_set_free(txn->writes);
    txn->writes = NULL;
    txn->ended = true;
    atomic_fetch_sub(&txn->e->children, 1);
    if (txn->cursors == 0) free(txn);
}

void txn_cursor_closed(rw_txn *txn)
{
    txn->cursors--;
    if (txn->ended && txn->cursors == 0) free(txn);
}

/* The value as the transaction sees it. */
static int txn_read(rw_txn *txn, rw_slice key, void *buf, size_t *size)
{
    write_entry own;
    if (!write_set_find(txn->writes, key, &own)) return engine_get(txn->e, key, buf, size);
    if (own.deleted) return RW_ENOTFOUND;
    size_t room = *size;
    *size = own.value.size;
    if (own.value.size > room) return rw_error(RW_ETOOSMALL, "the value has %zu bytes, the buffer %zu", own.value.size, room);
    if (own.value.size > 0) memcpy(buf, own.value.data, own.value.size);
    return 0;
}

int rw_txn_get(rw_txn *txn, rw_bucket bucket, rw_slice key, void *buf, size_t *size)
{
    engine *e;
    stored_key stored;
    int error = txn_usable(txn, &e);
    if (error != 0) return error;
    if (size == NULL || (buf == NULL && *size > 0)) return rw_error(RW_EINVAL, "the %s is NULL", size == NULL ? "size" : "buffer");
    error = key_make(e, bucket, key, &stored);
    if (error != 0) return error;
    error = txn_read(txn, stored.slice, buf, size);
    if (error == RW_ENOTFOUND) rw_error_fixed(error, "the key was not found");
    key_free(&stored);
    return error;
}

int rw_txn_put(rw_txn *txn, rw_bucket bucket, rw_slice key, rw_slice value)
{
    engine *e;
    stored_key stored;
    int error = txn_writable(txn, &e);
    if (error != 0) return error;
    error = value_check(value);
    if (error == 0) error = key_make(e, bucket, key, &stored);
    if (error != 0) return error;
    error = write_set_put(txn->writes, stored.slice, value);
    key_free(&stored);
    return error;
}

int rw_txn_del(rw_txn *txn, rw_bucket bucket, rw_slice key)
{
    engine *e;
    stored_key stored;
    char no_room[1];
    size_t size = 0;
    int error = txn_writable(txn, &e);
    if (error == 0) error = key_make(e, bucket, key, &stored);
    if (error != 0) return error;
    error = txn_read(txn, stored.slice, no_room, &size);
    if (error == 0 || error == RW_ETOOSMALL) error = write_set_delete(txn->writes, stored.slice);
    if (error == RW_ENOTFOUND) rw_error_fixed(error, "the key was not found");
    key_free(&stored);
    return error;
}

int rw_txn_savepoint(rw_txn *txn, unsigned *id)
{
    engine *e;
    int error = txn_usable(txn, &e);
    if (error != 0) return error;
    if (id == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    return write_set_savepoint(txn->writes, id);
}

int rw_txn_rollback_to(rw_txn *txn, unsigned id)
{
    engine *e;
    int error = txn_usable(txn, &e);
    return error != 0 ? error : write_set_rollback(txn->writes, id);
}

/* ---- commit ------------------------------------------------------------------------------------------------------ */

static int txn_commit_writes(rw_txn *txn, unsigned flags)
{
    engine *e = txn->e;
    commit_body body = {0};
    write_entry entry;
    int error = engine_write_allowed(e);
    bool more = write_set_seek(txn->writes, rw_slice_of("", 0), false, &entry);
    while (error == 0 && more) {
        const wal_op delete = {.kind = WAL_OP_DELETE, .key = entry.key};
        error = entry.deleted ? body_add(&body, &delete) : body_add_put(e, &body, entry.key, entry.value);
        more = write_set_seek(txn->writes, entry.key, true, &entry);
    }
    if (error == 0) error = engine_commit_many(e, body_slice(&body), flags);
    if (error != 0 && error != RW_EUNKNOWN) body_discard(e, &body);
    body_free(&body);
    return error;
}

int rw_txn_commit(rw_txn *txn, unsigned flags)
{
    engine *e;
    int error = txn_usable(txn, &e);
    if (error != 0) return error;
    if (txn->cursors > 0) return rw_error(RW_EBUSY, "%u cursors of the transaction are open", txn->cursors);
    if ((flags & ~RW_ASYNC) != 0) error = rw_error(RW_EINVAL, "unknown write flag 0x%x", flags & ~RW_ASYNC);
    else if (write_set_count(txn->writes) > 0) error = txn_commit_writes(txn, flags);
    txn_end(txn);
    return error;
}

void rw_txn_abort(rw_txn *txn)
{
    if (txn == NULL || txn->ended) return;
    txn_end(txn);
}
