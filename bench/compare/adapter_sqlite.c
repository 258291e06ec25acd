/* SQLite: a WITHOUT ROWID table in WAL mode, prepared statements, a connection for each thread. */
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/compare/adapters.h"

#define BUSY_TIMEOUT_MS 60000
#define LOG_PAGES 16384             /* before a checkpoint: 64 MiB, as much as ringwood keeps; with the default of 4 MiB most of the time goes into checkpoints */

typedef struct {
    pthread_mutex_t writing;     /* there is one writer at a time: waiting here is faster and fairer than the busy handler's sleeps */
    sqlite3 *db;                 /* for opening, flushing and settling */
    char path[4096];
    compare_settings settings;
} sqlite_engine;

enum { STATEMENT_GET, STATEMENT_PUT, STATEMENT_SCAN, STATEMENT_SCAN_ALL, STATEMENT_BEGIN_READ, STATEMENT_BEGIN_WRITE, STATEMENT_COMMIT, STATEMENT_ROLLBACK, STATEMENTS };

static const char *const statement_texts[STATEMENTS] = {
    [STATEMENT_GET] = "SELECT value FROM records WHERE key = ?1",
    [STATEMENT_PUT] = "INSERT OR REPLACE INTO records (key, value) VALUES (?1, ?2)",
    [STATEMENT_SCAN] = "SELECT key, value FROM records WHERE key >= ?1 ORDER BY key",
    [STATEMENT_SCAN_ALL] = "SELECT key, value FROM records ORDER BY key",
    [STATEMENT_BEGIN_READ] = "BEGIN",
    [STATEMENT_BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [STATEMENT_COMMIT] = "COMMIT",
    [STATEMENT_ROLLBACK] = "ROLLBACK",
};

typedef struct {
    sqlite_engine *engine;
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
} sqlite_session;

static int sqlite_error(sqlite3 *db, const char *call)
{
    return rw_error((sqlite3_errcode(db) & 0xff) == SQLITE_FULL ? RW_ENOSPC : RW_EIO, "SQLite: %s: %s", call, sqlite3_errmsg(db));
}

static void sqlite_version(char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "%s", sqlite3_libversion());
}

/* Each connection has a page cache of its own. With everything cached, pages are read in a map of the file instead, which all share. */
static void sqlite_pragmas(const compare_settings *settings, char text[COMPARE_TEXT])
{
    unsigned long long cache_kib = settings->cache_bytes / 1024 / RW_MAX(settings->threads, 1u), map = settings->direct ? 0 : settings->cache_bytes;
    snprintf(text, COMPARE_TEXT, "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA cache_size=-%llu; PRAGMA mmap_size=%llu; PRAGMA wal_autocheckpoint=%d;",
             settings->durable ? "FULL" : "NORMAL", cache_kib, map, LOG_PAGES);
}

static void sqlite_describe(const compare_settings *settings, char text[COMPARE_TEXT])
{
    sqlite_pragmas(settings, text);
    size_t size = strlen(text);
    snprintf(text + size, COMPARE_TEXT - size, " WITHOUT ROWID; a connection for each thread");
}

static int connection_open(const sqlite_engine *e, sqlite3 **db)
{
    char pragmas[COMPARE_TEXT];
    sqlite_pragmas(&e->settings, pragmas);
    int error = sqlite3_open_v2(e->path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (error == SQLITE_OK) error = sqlite3_busy_timeout(*db, BUSY_TIMEOUT_MS);
    if (error == SQLITE_OK) error = sqlite3_exec(*db, pragmas, NULL, NULL, NULL);
    if (error == SQLITE_OK) return 0;
    int code = sqlite_error(*db, "open");
    sqlite3_close(*db);
    return code;
}

static int sqlite_open(const compare_settings *settings, void **engine)
{
    sqlite_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return rw_error(RW_ENOMEM, "no memory");
    e->settings = *settings;
    pthread_mutex_init(&e->writing, NULL);
    snprintf(e->path, sizeof e->path, "%s/db", settings->directory);
    int code = connection_open(e, &e->db);
    if (code == 0 && sqlite3_exec(e->db, "CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID", NULL, NULL, NULL) != SQLITE_OK) {
        code = sqlite_error(e->db, "CREATE TABLE");
        sqlite3_close(e->db);
    }
    if (code == 0) *engine = e;
    else free(e);
    return code;
}

static int sqlite_close(void *engine)
{
    sqlite_engine *e = engine;
    int code = sqlite3_close(e->db) == SQLITE_OK ? 0 : sqlite_error(e->db, "close");
    pthread_mutex_destroy(&e->writing);
    free(e);
    return code;
}

/* The log is synced before its pages are copied, so afterwards all of it is durable, with synchronous=NORMAL too. */
static int sqlite_flush(void *engine)
{
    sqlite_engine *e = engine;
    pthread_mutex_lock(&e->writing);
    int error = sqlite3_wal_checkpoint_v2(e->db, NULL, SQLITE_CHECKPOINT_FULL, NULL, NULL);
    pthread_mutex_unlock(&e->writing);
    return error == SQLITE_OK ? 0 : sqlite_error(e->db, "wal_checkpoint");
}

static void sqlite_session_close(void *session)
{
    sqlite_session *s = session;
    for (int i = 0; i < STATEMENTS; i++) sqlite3_finalize(s->statements[i]);
    sqlite3_close(s->db);
    free(s);
}

static int sqlite_session_open(void *engine, void **session)
{
    sqlite_session *s = calloc(1, sizeof *s);
    if (s == NULL) return rw_error(RW_ENOMEM, "no memory");
    s->engine = engine;
    int code = connection_open(s->engine, &s->db);
    if (code != 0) {
        free(s);
        return code;
    }
    for (int i = 0; i < STATEMENTS && code == 0; i++)
        if (sqlite3_prepare_v3(s->db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i], NULL) != SQLITE_OK)
            code = sqlite_error(s->db, statement_texts[i]);
    if (code == 0) *session = s;
    else sqlite_session_close(s);
    return code;
}

static void bind_slice(sqlite3_stmt *statement, int at, rw_slice slice)
{
    sqlite3_bind_blob64(statement, at, slice.data, slice.size, SQLITE_STATIC);
}

static rw_slice column_slice(sqlite3_stmt *statement, int column)
{
    const void *data = sqlite3_column_blob(statement, column);
    return rw_slice_of(data, (size_t)sqlite3_column_bytes(statement, column));
}

/* A statement without result. */
static int run(sqlite_session *s, int which)
{
    int error = sqlite3_step(s->statements[which]);
    sqlite3_reset(s->statements[which]);
    return error == SQLITE_DONE ? 0 : sqlite_error(s->db, statement_texts[which]);
}

static void sqlite_release(void *session)
{
    sqlite_session *s = session;
    sqlite3_reset(s->statements[STATEMENT_GET]);
}

static int sqlite_get(void *session, rw_slice key, rw_slice *value)
{
    sqlite_session *s = session;
    sqlite3_stmt *statement = s->statements[STATEMENT_GET];
    bind_slice(statement, 1, key);
    int error = sqlite3_step(statement);
    if (RW_LIKELY(error == SQLITE_ROW)) {
        *value = column_slice(statement, 0);
        return 0;
    }
    sqlite3_reset(statement);
    return error == SQLITE_DONE ? RW_ENOTFOUND : sqlite_error(s->db, "SELECT");
}

static int put_locked(sqlite_session *s, rw_slice key, rw_slice value)
{
    bind_slice(s->statements[STATEMENT_PUT], 1, key);
    bind_slice(s->statements[STATEMENT_PUT], 2, value);
    return run(s, STATEMENT_PUT);
}

static int sqlite_put(void *session, rw_slice key, rw_slice value)
{
    sqlite_session *s = session;
    pthread_mutex_lock(&s->engine->writing);
    int code = put_locked(s, key, value);
    pthread_mutex_unlock(&s->engine->writing);
    return code;
}

static int sqlite_batch(void *session, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    sqlite_session *s = session;
    pthread_mutex_lock(&s->engine->writing);
    int code = run(s, STATEMENT_BEGIN_WRITE);
    for (unsigned i = 0; i < count && code == 0; i++) code = put_locked(s, keys[i], values[i]);
    if (code == 0) code = run(s, STATEMENT_COMMIT);
    pthread_mutex_unlock(&s->engine->writing);
    return code;
}

static int sqlite_scan(void *session, rw_slice key, compare_record_fn fn, void *arg)
{
    sqlite_session *s = session;
    sqlite3_stmt *statement = s->statements[key.size == 0 ? STATEMENT_SCAN_ALL : STATEMENT_SCAN];
    if (key.size != 0) bind_slice(statement, 1, key);
    int error;
    while ((error = sqlite3_step(statement)) == SQLITE_ROW)
        if (!fn(arg, column_slice(statement, 0), column_slice(statement, 1))) break;
    sqlite3_reset(statement);
    return error == SQLITE_ROW || error == SQLITE_DONE ? 0 : sqlite_error(s->db, "SELECT");
}

static int sqlite_modify(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    sqlite_session *s = session;
    rw_slice present;
    pthread_mutex_lock(&s->engine->writing);
    int code = run(s, STATEMENT_BEGIN_WRITE);
    if (code == 0) {
        code = sqlite_get(session, key, &present);
        if (code == 0 && !fn(arg, key, present)) code = RW_ENOTFOUND;
        sqlite_release(session);
        if (code == 0) code = put_locked(s, key, value);
        int ended = run(s, code == 0 ? STATEMENT_COMMIT : STATEMENT_ROLLBACK);
        if (code == 0) code = ended;
    }
    pthread_mutex_unlock(&s->engine->writing);
    return code;
}

static int sqlite_multi_get(void *session, const rw_slice *keys, unsigned count, compare_record_fn fn, void *arg)
{
    int code = run(session, STATEMENT_BEGIN_READ);
    for (unsigned i = 0; i < count && code == 0; i++) {
        rw_slice value;
        code = sqlite_get(session, keys[i], &value);
        if (code == 0) fn(arg, keys[i], value);
        sqlite_release(session);
        if (code == RW_ENOTFOUND) code = 0;
    }
    return code == 0 ? run(session, STATEMENT_COMMIT) : code;
}

const compare_adapter compare_sqlite = {
    .name = "sqlite",
    .title = "SQLite",
    .async_words = "in the kernel's page cache: survives a kill; a power cut takes the last commits (synchronous=NORMAL)",
    .durable_words = "log written and synced by each commit (synchronous=FULL)",
    .memory_words = "each connection has its share of the cache; the kernel's page cache comes on top, which nothing limits",
    .modify_words = "write transaction (BEGIN IMMEDIATE)",
    .multi_get_words = "gets in one read transaction",
    .version = sqlite_version,
    .describe = sqlite_describe,
    .open = sqlite_open,
    .close = sqlite_close,
    .flush = sqlite_flush,
    .settle = sqlite_flush,
    .session_open = sqlite_session_open,
    .session_close = sqlite_session_close,
    .get = sqlite_get,
    .release = sqlite_release,
    .put = sqlite_put,
    .batch = sqlite_batch,
    .scan = sqlite_scan,
    .modify = sqlite_modify,
    .multi_get = sqlite_multi_get,
};
