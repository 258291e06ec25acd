/* Shorthand for the tests of transactions: values that are numbers, calls made by another thread, waiting for a state. */
#ifndef TESTS_TXN_HELPERS_H
#define TESTS_TXN_HELPERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

/* Sanitizers cost a factor of ten: what only counts is made smaller for them. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOW_BUILD 1
#else
#define SLOW_BUILD 0
#endif

#define PATIENCE_MS 20000   /* for what must happen, on a machine with other work */

static inline int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline void pause_us(int64_t us)
{
    struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

static inline rw_stats_t stats_now(rw_db *db)
{
    rw_stats_t stats;
    memset(&stats, 0, sizeof(stats));
    CHECK_OK(rw_stats(db, &stats));
    return stats;
}

/* Whether the calling thread's last failure says this in words. */
static inline bool words_have(const char *part)
{
    if (strstr(rw_last_error(NULL), part) != NULL) return true;
    tap_diag("\"%s\" is not in \"%s\"", part, rw_last_error(NULL));
    return false;
}

static inline bool text_names_id(const char *text, uint64_t id)
{
    char digits[24];
    size_t size = (size_t)snprintf(digits, sizeof(digits), "%llu", (unsigned long long)id);
    for (const char *at = text; (at = strstr(at, digits)) != NULL; at++)
        if ((at == text || at[-1] < '0' || at[-1] > '9') && (at[size] < '0' || at[size] > '9')) return true;
    return false;
}

/* Those that write first. */
#define TXN_MODES_WRITING 3
#define TXN_MODES 4
static const unsigned txn_modes[TXN_MODES] = {RW_SNAPSHOT, RW_SERIALIZABLE, RW_PESSIMISTIC, RW_READONLY};

static inline rw_txn *txn_begin(rw_db *db, unsigned flags)
{
    rw_txn *txn = NULL;
    CHECK_OK(rw_txn_begin(db, flags, &txn));
    return txn;
}

static inline int txn_put_text(rw_txn *txn, const char *key, const char *value)
{
    return rw_txn_put(txn, BUCKET, slice_text(key), slice_text(value));
}

static inline int txn_get_code(rw_txn *txn, const char *key)
{
    char buffer[256];
    size_t size = sizeof(buffer);
    return rw_txn_get(txn, BUCKET, slice_text(key), buffer, &size);
}

static inline bool txn_is(rw_txn *txn, const char *key, const char *value)
{
    char buffer[256];
    size_t size = sizeof(buffer);
    return rw_txn_get(txn, BUCKET, slice_text(key), buffer, &size) == 0 && slice_same(slice_bytes(buffer, size), slice_text(value));
}

static inline bool key_absent(rw_db *db, const char *key)
{
    size_t size = 0;
    return rw_get(db, BUCKET, slice_text(key), NULL, &size) == RW_ENOTFOUND;
}

/* Counters: 8 bytes, least byte first, as rw_add has them; an absent one is 0. A value of another size is RW_EINVAL. */
static inline int put_number(rw_db *db, rw_bucket bucket, const char *key, int64_t number)
{
    return rw_put(db, bucket, slice_text(key), slice_bytes(&number, sizeof(number)), RW_ASYNC);
}

static inline int number_of(int code, size_t size, int64_t *number)
{
    if (code == RW_ENOTFOUND) return *number = 0, 0;
    return code == 0 && size != sizeof(*number) ? RW_EINVAL : code;
}

static inline int get_number(rw_db *db, rw_bucket bucket, const char *key, int64_t *number)
{
    size_t size = sizeof(*number);
    int code = rw_get(db, bucket, slice_text(key), number, &size);
    return number_of(code, size, number);
}

static inline int txn_get_number(rw_txn *txn, rw_bucket bucket, const char *key, int64_t *number)
{
    size_t size = sizeof(*number);
    int code = rw_txn_get(txn, bucket, slice_text(key), number, &size);
    return number_of(code, size, number);
}

static inline int txn_put_number(rw_txn *txn, rw_bucket bucket, const char *key, int64_t number)
{
    return rw_txn_put(txn, bucket, slice_text(key), slice_bytes(&number, sizeof(number)));
}

/* Waits until test(arg) holds; false after PATIENCE_MS. */
static inline bool wait_until(bool (*test)(void *arg), void *arg)
{
    int64_t end = now_us() + PATIENCE_MS * 1000;
    while (!test(arg)) {
        if (now_us() > end) return false;
        pause_us(200);
    }
    return true;
}

static inline int count_waiting(void *arg, const rw_lock_info *info)
{
    if (info->waiting != 0) (*(unsigned *)arg)++;
    return 0;
}

static inline unsigned waiting_locks(rw_db *db)
{
    unsigned count = 0;
    CHECK_OK(rw_lock_list(db, count_waiting, &count));
    return count;
}

/* Waits until so many locks are waited for: the calls of so many other threads stand. */
static inline bool wait_for_waiting(rw_db *db, unsigned count)
{
    int64_t end = now_us() + PATIENCE_MS * 1000;
    while (waiting_locks(db) < count && now_us() < end) pause_us(200);
    return waiting_locks(db) >= count;
}

/* Waits until nothing is left of transactions: no open ones, no snapshots, no locks, no old values. */
static inline bool wait_for_rest(rw_db *db)
{
    int64_t end = now_us() + PATIENCE_MS * 1000;
    for (;;) {
        rw_stats_t stats = stats_now(db);
        if (stats.txns_open + stats.snapshots_open + stats.locks_held + stats.versions + stats.version_bytes == 0) return true;
        if (now_us() > end) {
            tap_diag("left over: %llu transactions, %llu snapshots, %llu locks, %llu versions of %llu bytes",
                     (unsigned long long)stats.txns_open, (unsigned long long)stats.snapshots_open, (unsigned long long)stats.locks_held,
                     (unsigned long long)stats.versions, (unsigned long long)stats.version_bytes);
            return false;
        }
        pause_us(1000);
    }
}

/* A call made by a thread of its own: its code and its words are kept. */
typedef struct {
    int (*fn)(void *arg);
    void *arg;
    pthread_t thread;
    _Atomic bool done;
    int code;
    char words[512];
} side_call;

static inline void *side_main(void *arg)
{
    side_call *call = arg;
    call->code = call->fn(call->arg);
    snprintf(call->words, sizeof(call->words), "%s", call->code == 0 ? "" : rw_last_error(NULL));
    atomic_store(&call->done, true);
    return NULL;
}

static inline bool side_start(side_call *call, int (*fn)(void *arg), void *arg)
{
    call->fn = fn, call->arg = arg;
    call->code = 0, call->words[0] = 0;
    atomic_store(&call->done, false);
    if (pthread_create(&call->thread, NULL, side_main, call) == 0) return true;
    tap_ok(false, "a thread could not be started");
    exit(tap_done());
}

static inline int side_join(side_call *call)
{
    pthread_join(call->thread, NULL);
    return call->code;
}

/* One operation of a transaction or, where txn is NULL, a single one, for side_start. */
typedef struct {
    rw_db *db;
    rw_txn *txn;
    const char *key;
    const char *value;      /* NULL: the key is read */
} side_op;

static inline int side_op_run(void *arg)
{
    side_op *op = arg;
    if (op->value == NULL) return op->txn != NULL ? txn_get_code(op->txn, op->key) : get_code(op->db, BUCKET, slice_text(op->key));
    if (op->txn != NULL) return txn_put_text(op->txn, op->key, op->value);
    return rw_put(op->db, BUCKET, slice_text(op->key), slice_text(op->value), RW_ASYNC);
}

#endif
