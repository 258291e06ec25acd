/* Shorthand over the public header. All inline: programs that do not link the engine can still link the other helpers here. */
#ifndef TESTS_RW_HELPERS_H
#define TESTS_RW_HELPERS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringwood.h"
#include "tests/support/child.h"
#include "tests/support/tap.h"

#define BUCKET RW_DEFAULT_BUCKET
#define NO_KEY ((rw_slice){NULL, 0})
/* Notes which process has the database open, so its bytes change even when it is opened for reading. */
#define LOCK_FILE "lock"
#define MIB ((uint64_t)1 << 20)

static inline rw_slice slice_bytes(const void *data, size_t size)
{
    return (rw_slice){data, size};
}

static inline rw_slice slice_text(const char *text)
{
    return (rw_slice){text, strlen(text)};
}

static inline bool slice_same(rw_slice a, rw_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Unsigned bytes, a prefix before what it begins. */
static inline int slice_compare(rw_slice a, rw_slice b)
{
    size_t shorter = a.size < b.size ? a.size : b.size;
    int order = shorter == 0 ? 0 : memcmp(a.data, b.data, shorter);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* Checks a call's return code; a mismatch is a failed test with the place, both codes and the library's own words. */
#define CHECK_CODE(call, want) check_code(__FILE__, __LINE__, #call, (call), (want))
#define CHECK_OK(call) CHECK_CODE(call, 0)

static inline bool check_code(const char *file, int line, const char *call, int got, int want)
{
    if (got == want) return true;
    const char *words = got == 0 ? "" : rw_last_error(NULL);
    return tap_ok(false, "%s:%d: %s returned %d (%s), not %d (%s): %s", file, line, call, got, rw_strerror(got), want,
                  rw_strerror(want), words);
}

/* The same inside a forked child, whose words go to the parent instead. */
#define CHILD_CODE(call, want) child_code(__FILE__, __LINE__, #call, (call), (want))

static inline bool child_code(const char *file, int line, const char *call, int got, int want)
{
    if (got == want) return true;
    const char *words = got == 0 ? "" : rw_last_error(NULL);
    child_say("%s:%d: %s returned %d (%s), not %d (%s): %s", file, line, call, got, rw_strerror(got), want, rw_strerror(want), words);
    return false;
}

/* Small enough that tests meet eviction and log wrap-around. */
static inline rw_options options_small(void)
{
    rw_options options;
    rw_options_init(&options);
    options.cache_bytes = 4 * MIB;
    options.log_bytes = 8 * MIB;
    options.workers = 2;
    return options;
}

/* Opens or ends the program: nothing after a failed open would mean anything. */
static inline rw_db *open_or_exit(const char *dir, const rw_options *options)
{
    rw_db *db = NULL;
    int code = rw_open(dir, options, &db);
    if (code == 0 && db != NULL) return db;
    tap_ok(false, "rw_open(%s) returned %d: %s", dir, code, rw_last_error(NULL));
    exit(tap_done());
}

static inline int put_text(rw_db *db, rw_bucket bucket, const char *key, const char *value)
{
    return rw_put(db, bucket, slice_text(key), slice_text(value), RW_ASYNC);
}

static inline int del_text(rw_db *db, rw_bucket bucket, const char *key)
{
    return rw_del(db, bucket, slice_text(key), RW_ASYNC);
}

/* The code that rw_get returns for a key whose value does not matter. */
static inline int get_code(rw_db *db, rw_bucket bucket, rw_slice key)
{
    size_t size = 0;
    int code = rw_get(db, bucket, key, NULL, &size);
    return code == RW_ETOOSMALL ? 0 : code;
}

/* The key of a numbered record; keys are in the order of their numbers. */
static inline rw_slice key_numbered(char to[16], uint64_t number)
{
    snprintf(to, 16, "key %010llu", (unsigned long long)number);
    return slice_text(to);
}

static inline rw_stats_t stats_of(rw_db *db)
{
    rw_stats_t stats = {0};
    CHECK_OK(rw_stats(db, &stats));
    return stats;
}

/* Whether the store holds exactly this value. */
static inline bool get_is(rw_db *db, rw_bucket bucket, rw_slice key, rw_slice value)
{
    size_t size = value.size + 1;
    char *buffer = malloc(size);
    bool same = buffer != NULL && rw_get(db, bucket, key, buffer, &size) == 0 && slice_same(slice_bytes(buffer, size), value);
    free(buffer);
    return same;
}

static inline bool get_is_text(rw_db *db, rw_bucket bucket, const char *key, const char *value)
{
    return get_is(db, bucket, slice_text(key), slice_text(value));
}

static inline bool cursor_key_is(rw_cursor *cursor, const char *key)
{
    rw_slice at = NO_KEY;
    return rw_cursor_key(cursor, &at) == 0 && slice_same(at, slice_text(key));
}

static inline bool cursor_at(rw_cursor *cursor, const char *key, const char *value)
{
    rw_slice at = NO_KEY;
    return cursor_key_is(cursor, key) && rw_cursor_value(cursor, &at) == 0 && slice_same(at, slice_text(value));
}

/* The number of keys a full scan in one direction meets; -1 when it ends by anything but RW_ENOTFOUND. */
static inline int64_t count_keys(rw_db *db, rw_bucket bucket)
{
    rw_cursor *cursor = NULL;
    int64_t count = 0;
    int code = rw_cursor_open(db, NULL, bucket, &cursor);
    if (code != 0) return -1;
    while ((code = rw_cursor_next(cursor)) == 0) count++;
    rw_cursor_close(cursor);
    return code == RW_ENOTFOUND ? count : -1;
}

/* For rw_verify: findings as diagnostics, or none. */
static inline void note_finding(void *arg, const char *finding)
{
    (void)arg;
    tap_diag("rw_verify: %s", finding);
}

static inline void ignore_finding(void *arg, const char *finding)
{
    (void)arg, (void)finding;
}

/* A setting in the environment. */
static inline uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != 0 ? strtoull(text, NULL, 10) : otherwise;
}

/* Whether the long form of the tests was asked for. */
static inline bool check_long(void)
{
    const char *text = getenv("CHECK_LONG");
    return text != NULL && text[0] != 0 && strcmp(text, "0") != 0;
}

#endif
