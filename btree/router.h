/*
 * The router: which partition a key belongs to. A sorted table of low keys, read optimistically like a page (its version is odd while it
 * changes) and changed only by who holds the tokens of the partitions whose bounds move.
 */
#ifndef RW_ROUTER_H
#define RW_ROUTER_H

#include "base/base.h"
#include "base/racy.h"
#include "kernel_io/kernel_io.h"

typedef struct {
    uint64_t head;             /* first 8 bytes of the low key, big-endian, zero-padded */
    uint16_t length;
    uint16_t partition;
    uint32_t key_slot;         /* where its bytes stand in keys */
} router_entry;

typedef struct router {
    RW_ALIGNED(64) _Atomic uint64_t version;
    uint32_t count;
    uint32_t key_stride;       /* set at open: bytes of one key slot */
    router_entry entries[RW_PARTITIONS_MAX];
    unsigned char *keys;       /* RW_PARTITIONS_MAX slots */
    bool slot_taken[RW_PARTITIONS_MAX];
    kio_mutex mutex;           /* between changers */
} router;

int router_open(router *r, uint32_t key_max);
void router_close(router *r);

/* The version to hand to router_unchanged later; odd: begin again. */
static inline uint64_t router_version(const router *r)
{
    return atomic_load_explicit(&r->version, memory_order_acquire);
}

static inline bool router_unchanged(const router *r, uint64_t version)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&r->version, memory_order_relaxed) == version;
}

/* The partition that covers key. To be validated by router_unchanged. */
RW_RACY uint16_t router_find(const router *r, rw_slice key);
/* The one that covers the keys just below key (an empty key: the last). */
RW_RACY uint16_t router_find_before(const router *r, rw_slice key);
/* As router_find, validated. */
uint16_t router_find_now(kio *k, const router *r, rw_slice key);

/* Adds a partition at its place. */
void router_insert(kio *k, router *r, rw_slice low, uint16_t partition);
void router_remove(kio *k, router *r, uint16_t partition);

/* The bounds of a partition whose token the caller holds: they cannot change meanwhile, but the table can move, so they are copied to buffers of
 * key_stride bytes. high.size 0: none. */
void router_bounds(kio *k, router *r, uint16_t partition, void *low_buffer, rw_slice *low, void *high_buffer, rw_slice *high);
/* Calls fn for each partition in key order; low is good during the call. No token needed, but what is seen may be old. */
void router_for_each(kio *k, router *r, void (*fn)(void *arg, uint16_t partition, rw_slice low), void *arg);
uint32_t router_count(const router *r);

#endif
