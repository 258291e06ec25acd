/*
 * What the tests of the lock table in one thread share: a kernel without sleep, in which an owner that has to wait is left in the queue by leaving its call,
 * so that every step and its outcome are known.
 */
#ifndef TESTS_TXN_LOCKS_TEST_H
#define TESTS_TXN_LOCKS_TEST_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/tap.h"
#include "txn/locks_internal.h"

#define WAITS 1                    /* what take returns when the owner went to sleep */
#define LONG_NS ((int64_t)1000000000)

static jmp_buf asleep;

static inline uint64_t bed_now(kio *k)
{
    (void)k;
    return 0;
}

static inline void bed_sleep(kio *k, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    (void)k, (void)word, (void)expected, (void)timeout_ns;
    longjmp(asleep, 1);
}

static inline void bed_wake(kio *k, const _Atomic uint32_t *word, unsigned count)
{
    (void)k, (void)word, (void)count;
}

static const kio_vtable bed_vtable = {.name = "bed", .now_ns = bed_now, .sleep = bed_sleep, .wake = bed_wake};
static kio bed_kio = {.ops = &bed_vtable};
static pool bed_pool;
static locks *table;

static inline void bed_open(uint64_t locks_bytes)
{
    if (pool_open(&bed_pool, &bed_kio, NULL, NULL, NULL, 4096, locks_bytes + (1u << 20)) != 0 || locks_open(&bed_kio, &bed_pool, locks_bytes, &table) != 0) {
        tap_ok(false, "opening: %s", rw_error_text());
        exit(tap_done());
    }
}

static inline void bed_close(void)
{
    locks_close(table);
    TAP_CHECK(atomic_load(&bed_pool.free_count) == bed_pool.frame_count);
    pool_close(&bed_pool);
}

static inline rw_slice text(const char *s)
{
    return rw_slice_of(s, strlen(s));
}

static inline int take_or_leave(lock_owner *owner, rw_slice from, const rw_slice *to, lock_mode mode, int64_t timeout_ns)
{
    return setjmp(asleep) != 0 ? WAITS : locks_take(table, owner, from, to, mode, timeout_ns);
}

/* to: NULL for a key, "" for no end. */
static inline int take(lock_owner *owner, const char *from, const char *to, lock_mode mode, int64_t timeout_ns)
{
    rw_slice end = to == NULL ? rw_slice_of(NULL, 0) : text(to);
    return take_or_leave(owner, text(from), to == NULL ? NULL : &end, mode, timeout_ns);
}

static inline bool waits(const lock_owner *owner)
{
    return owner->waiting != NULL;
}

/* The end of a sleeper's call, if it was chosen. */
static inline bool was_chosen(lock_owner *owner)
{
    bool chosen = owner->victim;
    owner->victim = false;
    return chosen;
}

#endif
