/*
 * The reference for the differential test: an ordered keyspace per bucket in an in-memory SQLite database, whose blobs compare as
 * unsigned bytes, prefix first. Inline, so that only programs that use it need the library. A failed SQLite call ends the process.
 */
#ifndef TESTS_SQLITE_MODEL_H
#define TESTS_SQLITE_MODEL_H

#include <sqlite3.h>
#include <stdio.h>

#include "tests/support/rw_helpers.h"

typedef struct {
    sqlite3 *db;
    sqlite3_stmt *put, *del, *get, *del_range, *forwards, *backwards, *nth;
} sqlite_model;

static inline void model_die(sqlite_model *model, const char *what)
{
    tap_diag("SQLite: %s: %s", what, sqlite3_errmsg(model->db));
    abort();
}

static inline void model_exec(sqlite_model *model, const char *sql)
{
    if (sqlite3_exec(model->db, sql, NULL, NULL, NULL) != SQLITE_OK) model_die(model, sql);
}

static inline sqlite3_stmt *model_prepare(sqlite_model *model, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(model->db, sql, -1, &statement, NULL) != SQLITE_OK) model_die(model, sql);
    return statement;
}

static inline void model_open(sqlite_model *model)
{
    if (sqlite3_open(":memory:", &model->db) != SQLITE_OK) model_die(model, "open");
    model_exec(model, "CREATE TABLE kv (b INTEGER, k BLOB, v BLOB, PRIMARY KEY (b, k)) WITHOUT ROWID");
    model->put = model_prepare(model, "INSERT OR REPLACE INTO kv VALUES (?1, ?2, ?3)");
    model->del = model_prepare(model, "DELETE FROM kv WHERE b = ?1 AND k = ?2");
    model->get = model_prepare(model, "SELECT v FROM kv WHERE b = ?1 AND k = ?2");
    model->del_range = model_prepare(model, "DELETE FROM kv WHERE b = ?1 AND k >= ?2 AND (length(?3) = 0 OR k < ?3)");
    model->forwards = model_prepare(model, "SELECT k, v FROM kv WHERE b = ?1 AND k >= ?2 ORDER BY k LIMIT ?3");
    model->backwards = model_prepare(model, "SELECT k, v FROM kv WHERE b = ?1 AND (length(?2) = 0 OR k < ?2) ORDER BY k DESC LIMIT ?3");
    model->nth = model_prepare(model, "SELECT k FROM kv WHERE b = ?1 AND k >= ?2 ORDER BY k LIMIT 1 OFFSET ?3");
}

static inline void model_close(sqlite_model *model)
{
    sqlite3_stmt *all[] = {model->put, model->del, model->get, model->del_range, model->forwards, model->backwards, model->nth};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) sqlite3_finalize(all[i]);
    sqlite3_close(model->db);
}

static inline void model_bind(sqlite_model *model, sqlite3_stmt *statement, int index, rw_slice slice)
{
    const void *data = slice.data == NULL ? "" : slice.data;
    if (sqlite3_bind_blob64(statement, index, data, slice.size, SQLITE_STATIC) != SQLITE_OK) model_die(model, "bind");
}

static inline rw_slice model_column(sqlite3_stmt *statement, int column)
{
    const void *data = sqlite3_column_blob(statement, column);
    return slice_bytes(data, (size_t)sqlite3_column_bytes(statement, column));
}

/* Runs a statement that returns no row; returns the number of rows it changed. */
static inline int model_run(sqlite_model *model, sqlite3_stmt *statement)
{
    if (sqlite3_step(statement) != SQLITE_DONE) model_die(model, "step");
    sqlite3_reset(statement);
    return sqlite3_changes(model->db);
}

static inline void model_put(sqlite_model *model, int bucket, rw_slice key, rw_slice value)
{
    sqlite3_bind_int(model->put, 1, bucket);
    model_bind(model, model->put, 2, key);
    model_bind(model, model->put, 3, value);
    model_run(model, model->put);
}

/* Returns whether the key was there. */
static inline bool model_del(sqlite_model *model, int bucket, rw_slice key)
{
    sqlite3_bind_int(model->del, 1, bucket);
    model_bind(model, model->del, 2, key);
    return model_run(model, model->del) > 0;
}

static inline void model_delete_range(sqlite_model *model, int bucket, rw_slice from, rw_slice to)
{
    sqlite3_bind_int(model->del_range, 1, bucket);
    model_bind(model, model->del_range, 2, from);
    model_bind(model, model->del_range, 3, to);
    model_run(model, model->del_range);
}

/* Returns whether the key is there; *value is good until the next model_get, which must come before any write. */
static inline bool model_get(sqlite_model *model, int bucket, rw_slice key, rw_slice *value)
{
    sqlite3_reset(model->get);
    sqlite3_bind_int(model->get, 1, bucket);
    model_bind(model, model->get, 2, key);
    int code = sqlite3_step(model->get);
    if (code != SQLITE_ROW && code != SQLITE_DONE) model_die(model, "get");
    if (code == SQLITE_ROW) *value = model_column(model->get, 0);
    return code == SQLITE_ROW;
}

static inline void model_get_done(sqlite_model *model)
{
    sqlite3_reset(model->get);
}

/* Starts a walk of at most limit rows, from the first key >= key on, or from the last key < key back (an empty key: from the end). */
static inline sqlite3_stmt *model_walk(sqlite_model *model, int bucket, rw_slice key, bool forwards, int limit)
{
    sqlite3_stmt *walk = forwards ? model->forwards : model->backwards;
    sqlite3_bind_int(walk, 1, bucket);
    model_bind(model, walk, 2, key);
    sqlite3_bind_int(walk, 3, limit);
    return walk;
}

/* Copies the key that stands distance rows after key to buffer; returns its size, 0 when there is none. */
static inline size_t model_nth(sqlite_model *model, int bucket, rw_slice key, int distance, void *buffer, size_t room)
{
    size_t size = 0;
    sqlite3_bind_int(model->nth, 1, bucket);
    model_bind(model, model->nth, 2, key);
    sqlite3_bind_int(model->nth, 3, distance);
    if (sqlite3_step(model->nth) == SQLITE_ROW) {
        rw_slice found = model_column(model->nth, 0);
        size = found.size <= room ? found.size : 0;
        memcpy(buffer, found.data, size);
    }
    sqlite3_reset(model->nth);
    return size;
}

#endif
