/* LMDB: one write transaction for each put, read transactions that are renewed. */
#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/compare/adapters.h"

#define MAP_FACTOR 8u                         /* of the data: pages are half full after random inserts, and freed ones wait for readers */
#define MAP_BYTES_MIN ((uint64_t)1 << 30)

typedef struct {
    MDB_env *env;
    MDB_dbi table;
} lmdb_engine;

typedef struct {
    lmdb_engine *engine;
    MDB_txn *txn;                /* read-only; reset while it is not used */
    MDB_cursor *cursor;
} lmdb_session;

static int lmdb_error(int error, const char *call)
{
    return rw_error(error == ENOSPC || error == MDB_MAP_FULL ? RW_ENOSPC : RW_EIO, "LMDB: %s: %s", call, mdb_strerror(error));
}

static MDB_val lmdb_val(rw_slice slice)
{
    return (MDB_val){slice.size, (void *)(uintptr_t)slice.data};
}

static rw_slice lmdb_slice(MDB_val value)
{
    return rw_slice_of(value.mv_data, value.mv_size);
}

static void lmdb_version(char text[COMPARE_TEXT])
{
    int major, minor, patch;
    mdb_version(&major, &minor, &patch);
    snprintf(text, COMPARE_TEXT, "%d.%d.%d", major, minor, patch);
}

static uint64_t lmdb_map_bytes(const compare_settings *settings)
{
    return rw_align_up(RW_MAX(settings->data_bytes * MAP_FACTOR, MAP_BYTES_MIN), (uint64_t)1 << 20);
}

static unsigned lmdb_flags(const compare_settings *settings)
{
    return MDB_NOTLS | (settings->durable ? 0u : MDB_NOSYNC) | (settings->direct ? MDB_NORDAHEAD : 0u);
}

static void lmdb_describe(const compare_settings *settings, char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "map of %llu MiB, MDB_NOTLS%s%s; a write transaction for each put", (unsigned long long)(lmdb_map_bytes(settings) >> 20),
             settings->durable ? "" : ", MDB_NOSYNC", settings->direct ? ", MDB_NORDAHEAD" : "");
}

static int lmdb_open(const compare_settings *settings, void **engine)
{
    lmdb_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return rw_error(RW_ENOMEM, "no memory");
    MDB_txn *txn;
    int error = mdb_env_create(&e->env);
    if (error == 0) error = mdb_env_set_mapsize(e->env, lmdb_map_bytes(settings));
    if (error == 0) error = mdb_env_set_maxreaders(e->env, settings->threads + 8);
    if (error == 0) error = mdb_env_open(e->env, settings->directory, lmdb_flags(settings), 0644);
    if (error == 0) error = mdb_txn_begin(e->env, NULL, 0, &txn);
    if (error == 0) {
        error = mdb_dbi_open(txn, NULL, 0, &e->table);
        if (error == 0) error = mdb_txn_commit(txn);
        else mdb_txn_abort(txn);
    }
    if (error == 0) {
        *engine = e;
        return 0;
    }
    if (e->env != NULL) mdb_env_close(e->env);
    free(e);
    return lmdb_error(error, "mdb_env_open");
}

static int lmdb_flush(void *engine)
{
    lmdb_engine *e = engine;
    int error = mdb_env_sync(e->env, 1);
    return error == 0 ? 0 : lmdb_error(error, "mdb_env_sync");
}

static int lmdb_close(void *engine)
{
    lmdb_engine *e = engine;
    mdb_env_close(e->env);
    free(e);
    return 0;
}

static int lmdb_session_open(void *engine, void **session)
{
    lmdb_session *s = calloc(1, sizeof *s);
    if (s == NULL) return rw_error(RW_ENOMEM, "no memory");
    s->engine = engine;
    int error = mdb_txn_begin(s->engine->env, NULL, MDB_RDONLY, &s->txn);
    if (error == 0) {
        error = mdb_cursor_open(s->txn, s->engine->table, &s->cursor);
        mdb_txn_reset(s->txn);
    }
    if (error == 0) {
        *session = s;
        return 0;
    }
    if (s->txn != NULL) mdb_txn_abort(s->txn);
    free(s);
    return lmdb_error(error, "mdb_txn_begin");
}

static void lmdb_session_close(void *session)
{
    lmdb_session *s = session;
    mdb_cursor_close(s->cursor);
    mdb_txn_abort(s->txn);
    free(s);
}

static void lmdb_release(void *session)
{
    lmdb_session *s = session;
    mdb_txn_reset(s->txn);
}

static int lmdb_get(void *session, rw_slice key, rw_slice *value)
{
    lmdb_session *s = session;
    MDB_val k = lmdb_val(key), v;
    int error = mdb_txn_renew(s->txn);
    if (error != 0) return lmdb_error(error, "mdb_txn_renew");
    error = mdb_get(s->txn, s->engine->table, &k, &v);
    if (RW_LIKELY(error == 0)) {
        *value = lmdb_slice(v);
        return 0;
    }
    mdb_txn_reset(s->txn);
    return error == MDB_NOTFOUND ? RW_ENOTFOUND : lmdb_error(error, "mdb_get");
}

static int lmdb_batch(void *session, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    lmdb_session *s = session;
    MDB_txn *txn;
    int error = mdb_txn_begin(s->engine->env, NULL, 0, &txn);
    if (error != 0) return lmdb_error(error, "mdb_txn_begin");
    for (unsigned i = 0; i < count && error == 0; i++) {
        MDB_val k = lmdb_val(keys[i]), v = lmdb_val(values[i]);
        error = mdb_put(txn, s->engine->table, &k, &v, 0);
    }
    if (error == 0) error = mdb_txn_commit(txn);
    else mdb_txn_abort(txn);
    return error == 0 ? 0 : lmdb_error(error, "mdb_put");
}

static int lmdb_put(void *session, rw_slice key, rw_slice value)
{
    return lmdb_batch(session, &key, &value, 1);
}

static int lmdb_scan(void *session, rw_slice key, compare_record_fn fn, void *arg)
{
    lmdb_session *s = session;
    MDB_val k = lmdb_val(key), v;
    int error = mdb_txn_renew(s->txn);
    if (error != 0) return lmdb_error(error, "mdb_txn_renew");
    error = mdb_cursor_renew(s->txn, s->cursor);
    if (error == 0) error = mdb_cursor_get(s->cursor, &k, &v, key.size == 0 ? MDB_FIRST : MDB_SET_RANGE);
    while (error == 0 && fn(arg, lmdb_slice(k), lmdb_slice(v))) error = mdb_cursor_get(s->cursor, &k, &v, MDB_NEXT);
    mdb_txn_reset(s->txn);
    return error == 0 || error == MDB_NOTFOUND ? 0 : lmdb_error(error, "mdb_cursor_get");
}

static int lmdb_modify(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    lmdb_session *s = session;
    MDB_txn *txn;
    MDB_val k = lmdb_val(key), v;
    int error = mdb_txn_begin(s->engine->env, NULL, 0, &txn);
    if (error != 0) return lmdb_error(error, "mdb_txn_begin");
    error = mdb_get(txn, s->engine->table, &k, &v);
    if (error == 0 && !fn(arg, key, lmdb_slice(v))) error = MDB_NOTFOUND;
    v = lmdb_val(value);
    if (error == 0) error = mdb_put(txn, s->engine->table, &k, &v, 0);
    if (error == 0) error = mdb_txn_commit(txn);
    else mdb_txn_abort(txn);
    return error == 0 ? 0 : error == MDB_NOTFOUND ? RW_ENOTFOUND : lmdb_error(error, "mdb_put");
}

static int lmdb_multi_get(void *session, const rw_slice *keys, unsigned count, compare_record_fn fn, void *arg)
{
    lmdb_session *s = session;
    int error = mdb_txn_renew(s->txn);
    if (error != 0) return lmdb_error(error, "mdb_txn_renew");
    for (unsigned i = 0; i < count && error == 0; i++) {
        MDB_val k = lmdb_val(keys[i]), v;
        error = mdb_get(s->txn, s->engine->table, &k, &v);
        if (error == 0 && !fn(arg, keys[i], lmdb_slice(v))) break;
        if (error == MDB_NOTFOUND) error = 0;
    }
    mdb_txn_reset(s->txn);
    return error == 0 ? 0 : lmdb_error(error, "mdb_get");
}

const compare_adapter compare_lmdb = {
    .name = "lmdb",
    .title = "LMDB",
    .async_words = "in the kernel's page cache: survives a kill; a power cut may damage the whole database (MDB_NOSYNC)",
    .durable_words = "pages, then the meta page, written and synced by each commit",
    .memory_words = "the kernel's page cache is its cache: nothing limits it, and pages of it that are mapped count as resident",
    .modify_words = "write transaction",
    .multi_get_words = "gets in one read transaction",
    .version = lmdb_version,
    .describe = lmdb_describe,
    .open = lmdb_open,
    .close = lmdb_close,
    .flush = lmdb_flush,
    .settle = lmdb_flush,
    .session_open = lmdb_session_open,
    .session_close = lmdb_session_close,
    .get = lmdb_get,
    .release = lmdb_release,
    .put = lmdb_put,
    .batch = lmdb_batch,
    .scan = lmdb_scan,
    .modify = lmdb_modify,
    .multi_get = lmdb_multi_get,
};
