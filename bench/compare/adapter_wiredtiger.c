/* WiredTiger: a row store, raw keys, a session and a cursor for each thread. */
#include <stdio.h>
#include <stdlib.h>
#include <wiredtiger.h>

#include "bench/compare/adapters.h"

#define TABLE "table:records"

typedef struct {
    WT_CONNECTION *connection;
} wiredtiger_engine;

typedef struct {
    WT_SESSION *session;
    WT_CURSOR *cursor;
} wiredtiger_session;

static int wiredtiger_error(int error, const char *call)
{
    return rw_error(RW_EIO, "WiredTiger: %s: %s", call, wiredtiger_strerror(error));
}

static WT_ITEM wiredtiger_item(rw_slice slice)
{
    return (WT_ITEM){.data = slice.data, .size = slice.size};
}

static void wiredtiger_adapter_version(char text[COMPARE_TEXT])
{
    int major, minor, patch;
    wiredtiger_version(&major, &minor, &patch);
    snprintf(text, COMPARE_TEXT, "%d.%d.%d", major, minor, patch);
}

/* Small leaves where data is read from the disk at random, as its manual advises; else the default of 32 KiB. */
static const char *table_settings(const compare_settings *settings)
{
    return settings->direct ? "key_format=u,value_format=u,leaf_page_max=4KB" : "key_format=u,value_format=u";
}

static void connection_settings(const compare_settings *settings, char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "create,cache_size=%llu,session_max=%u,log=(enabled=true),transaction_sync=(%s),checkpoint=(wait=60)%s",
             (unsigned long long)settings->cache_bytes, settings->threads + 32, settings->durable ? "enabled=true,method=fsync" : "enabled=false",
             settings->direct ? ",direct_io=[data],mmap=false" : "");
}

static void wiredtiger_describe(const compare_settings *settings, char text[COMPARE_TEXT])
{
    connection_settings(settings, text);
    size_t size = strlen(text);
    snprintf(text + size, COMPARE_TEXT - size, "; %s", table_settings(settings));
}

static int wiredtiger_adapter_open(const compare_settings *settings, void **engine)
{
    wiredtiger_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return rw_error(RW_ENOMEM, "no memory");
    char text[COMPARE_TEXT];
    connection_settings(settings, text);
    int error = wiredtiger_open(settings->directory, NULL, text, &e->connection);
    WT_SESSION *session;
    if (error == 0) error = e->connection->open_session(e->connection, NULL, NULL, &session);
    if (error == 0) error = session->create(session, TABLE, table_settings(settings));
    if (error == 0) error = session->close(session, NULL);
    if (error == 0) {
        *engine = e;
        return 0;
    }
    if (e->connection != NULL) e->connection->close(e->connection, NULL);
    free(e);
    return wiredtiger_error(error, "open");
}

static int wiredtiger_close(void *engine)
{
    wiredtiger_engine *e = engine;
    int error = e->connection->close(e->connection, NULL);
    free(e);
    return error == 0 ? 0 : wiredtiger_error(error, "close");
}

static int wiredtiger_flush(void *engine)
{
    wiredtiger_engine *e = engine;
    WT_SESSION *session;
    int error = e->connection->open_session(e->connection, NULL, NULL, &session);
    if (error == 0) error = session->log_flush(session, "sync=on");
    if (error == 0) error = session->close(session, NULL);
    return error == 0 ? 0 : wiredtiger_error(error, "log_flush");
}

static int wiredtiger_settle(void *engine)
{
    wiredtiger_engine *e = engine;
    WT_SESSION *session;
    int error = e->connection->open_session(e->connection, NULL, NULL, &session);
    if (error == 0) error = session->checkpoint(session, NULL);
    if (error == 0) error = session->close(session, NULL);
    return error == 0 ? 0 : wiredtiger_error(error, "checkpoint");
}

static int wiredtiger_session_open(void *engine, void **session)
{
    wiredtiger_engine *e = engine;
    wiredtiger_session *s = calloc(1, sizeof *s);
    if (s == NULL) return rw_error(RW_ENOMEM, "no memory");
    int error = e->connection->open_session(e->connection, NULL, "isolation=snapshot", &s->session);
    if (error == 0) error = s->session->open_cursor(s->session, TABLE, NULL, NULL, &s->cursor);
    if (error == 0) {
        *session = s;
        return 0;
    }
    if (s->session != NULL) s->session->close(s->session, NULL);
    free(s);
    return wiredtiger_error(error, "open_session");
}

static void wiredtiger_session_close(void *session)
{
    wiredtiger_session *s = session;
    s->session->close(s->session, NULL); /* with its cursor */
    free(s);
}

/* The value is good until the cursor moves: the next call does that anyway. */
static int wiredtiger_get(void *session, rw_slice key, rw_slice *value)
{
    wiredtiger_session *s = session;
    WT_ITEM k = wiredtiger_item(key), v = {0};
    s->cursor->set_key(s->cursor, &k);
    int error = s->cursor->search(s->cursor);
    if (error == WT_NOTFOUND) return RW_ENOTFOUND;
    if (error == 0) error = s->cursor->get_value(s->cursor, &v);
    if (RW_UNLIKELY(error != 0)) return wiredtiger_error(error, "search");
    *value = rw_slice_of(v.data, v.size);
    return 0;
}

static int cursor_insert(wiredtiger_session *s, rw_slice key, rw_slice value)
{
    WT_ITEM k = wiredtiger_item(key), v = wiredtiger_item(value);
    s->cursor->set_key(s->cursor, &k);
    s->cursor->set_value(s->cursor, &v);
    return s->cursor->insert(s->cursor);
}

/* A transaction of its own. WT_ROLLBACK: another one wrote the key, or the cache was full; it is begun again. */
static int wiredtiger_put(void *session, rw_slice key, rw_slice value)
{
    int error;
    do error = cursor_insert(session, key, value);
    while (error == WT_ROLLBACK);
    return error == 0 ? 0 : wiredtiger_error(error, "insert");
}

static int batch_once(wiredtiger_session *s, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    int error = s->session->begin_transaction(s->session, NULL);
    if (error != 0) return error;
    for (unsigned i = 0; i < count && error == 0; i++) error = cursor_insert(s, keys[i], values[i]);
    if (error == 0) return s->session->commit_transaction(s->session, NULL);
    s->session->rollback_transaction(s->session, NULL);
    return error;
}

static int wiredtiger_batch(void *session, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    int error;
    do error = batch_once(session, keys, values, count);
    while (error == WT_ROLLBACK);
    return error == 0 ? 0 : wiredtiger_error(error, "insert");
}

static int wiredtiger_scan(void *session, rw_slice key, compare_record_fn fn, void *arg)
{
    wiredtiger_session *s = session;
    WT_CURSOR *cursor = s->cursor;
    WT_ITEM k = wiredtiger_item(key), v = {0};
    int error, exact = 0;
    if (key.size != 0) {
        cursor->set_key(cursor, &k);
        error = cursor->search_near(cursor, &exact);
        if (error == 0 && exact < 0) error = cursor->next(cursor);
    } else {
        error = cursor->reset(cursor);
        if (error == 0) error = cursor->next(cursor); /* from nowhere: the first */
    }
    for (; error == 0; error = cursor->next(cursor)) {
        error = cursor->get_key(cursor, &k);
        if (error == 0) error = cursor->get_value(cursor, &v);
        if (error != 0 || !fn(arg, rw_slice_of(k.data, k.size), rw_slice_of(v.data, v.size))) break;
    }
    cursor->reset(cursor);
    return error == 0 || error == WT_NOTFOUND ? 0 : wiredtiger_error(error, "next");
}

static int modify_once(wiredtiger_session *s, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    WT_ITEM k = wiredtiger_item(key), v = {0};
    int error = s->session->begin_transaction(s->session, NULL);
    if (error != 0) return error;
    s->cursor->set_key(s->cursor, &k);
    error = s->cursor->search(s->cursor);
    if (error == 0) error = s->cursor->get_value(s->cursor, &v);
    if (error == 0 && !fn(arg, key, rw_slice_of(v.data, v.size))) error = WT_NOTFOUND;
    if (error == 0) error = cursor_insert(s, key, value);
    if (error == 0) return s->session->commit_transaction(s->session, NULL);
    s->session->rollback_transaction(s->session, NULL);
    return error;
}

static int wiredtiger_modify(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    int error;
    do error = modify_once(session, key, value, fn, arg);
    while (error == WT_ROLLBACK);
    return error == 0 ? 0 : error == WT_NOTFOUND ? RW_ENOTFOUND : wiredtiger_error(error, "insert");
}

const compare_adapter compare_wiredtiger = {
    .name = "wiredtiger",
    .title = "WiredTiger",
    .async_words = "in the process's log buffer, written in the background; a kill or a power cut may take the last ones",
    .durable_words = "log written and synced before the write returns (transaction_sync, method=fsync)",
    .memory_words = "the cache holds pages as they are in memory, larger than on disk; without direct I/O the kernel's page cache comes on top",
    .modify_words = "snapshot transaction, begun again after a conflict",
    .direct_possible = true,
    .version = wiredtiger_adapter_version,
    .describe = wiredtiger_describe,
    .open = wiredtiger_adapter_open,
    .close = wiredtiger_close,
    .flush = wiredtiger_flush,
    .settle = wiredtiger_settle,
    .session_open = wiredtiger_session_open,
    .session_close = wiredtiger_session_close,
    .get = wiredtiger_get,
    .put = wiredtiger_put,
    .batch = wiredtiger_batch,
    .scan = wiredtiger_scan,
    .modify = wiredtiger_modify,
};
