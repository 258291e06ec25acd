/* Frames: the arena, the free list, waiting for a frame, the table of pages being read. */
#include "base/memory.h"
#include "buffer/buffer.h"

#define FRAME_WAIT_NS 5000000          /* how long a waiter sleeps before it looks by itself */
#define POPULATE_BYTES (2u << 20)      /* a huge page */
#define FRAME_WAIT_ROUNDS 20           /* waits before "cannot be written" is given as the reason of failure */

static void pool_size(pool *p, uint64_t cache_bytes)
{
    p->frame_count = (uint32_t)RW_MIN(cache_bytes / (p->page_size + sizeof(frame)), (uint64_t)UINT32_MAX - 1);
    p->free_low = RW_MAX(4u, p->frame_count / 64);
    p->free_high = RW_MAX(8u, p->frame_count / 32);
    p->populate_step = POPULATE_BYTES / p->page_size;
    atomic_init(&p->populate_wanted, RW_MIN(p->populate_step, p->frame_count));
    p->arena_bytes = (size_t)p->frame_count * p->page_size;
    p->frames_bytes = (size_t)p->frame_count * sizeof(frame);
}

int pool_open(pool *p, kio *k, store *s, const page_ops *ops, partition *partitions, uint32_t page_size, uint64_t cache_bytes)
{
    memset(p, 0, sizeof *p);
    p->kio = k;
    p->store = s;
    p->ops = ops;
    p->partitions = partitions;
    p->page_size = page_size;
    p->page_blocks = page_size / RW_BLOCK_SIZE;
    pool_size(p, cache_bytes);
    p->arena = rw_memory_map(p->arena_bytes);
    p->frames = rw_memory_map(p->frames_bytes);
    p->emergency = calloc(1, sizeof *p->emergency);
    if (p->arena == NULL || p->frames == NULL || p->emergency == NULL || write_batch_init(p->emergency, page_size, p->frame_count) != 0) {
        pool_close(p);
        return rw_error(RW_ENOMEM, "no memory for a cache of %llu bytes", (unsigned long long)cache_bytes);
    }
    for (uint32_t i = p->frame_count; i-- > 0;) {
        frame *f = &p->frames[i];
        atomic_init(&f->version, 1);
        atomic_init(&f->partition, PARTITION_NONE);
        pool_frame_free(p, i);
    }
    return 0;
}

void pool_close(pool *p)
{
    rw_memory_unmap(p->arena, p->arena_bytes);
    rw_memory_unmap(p->frames, p->frames_bytes);
    if (p->emergency != NULL) write_batch_destroy(p->emergency);
    free(p->emergency);
    p->arena = NULL;
    p->frames = NULL;
    p->emergency = NULL;
}

/* The free list is a stack; the tag in the upper half changes with every push and pop, so that a stale head never matches. */
static uint64_t free_head_make(uint64_t old, uint32_t frame_plus_one)
{
    return ((old >> 32) + 1) << 32 | frame_plus_one;
}

/* Frames that were never used are taken in the order of their numbers: the workers get memory a step ahead. */
static void populate_ask(pool *p, uint32_t f)
{
    uint32_t populated = atomic_load_explicit(&p->populated, memory_order_relaxed);
    if (RW_LIKELY(f + p->populate_step < populated || populated >= p->frame_count) || p->need_frames == NULL) return;
    atomic_store(&p->populate_wanted, RW_MIN(f + 2 * p->populate_step, p->frame_count));
    p->need_frames(p->need_frames_arg);
}

bool pool_populate(pool *p)
{
    uint32_t from = atomic_load(&p->populated), to = RW_MIN(from + p->populate_step, p->frame_count);
    if (from >= atomic_load(&p->populate_wanted)) return false;
    if (atomic_compare_exchange_strong(&p->populated, &from, to)) rw_memory_populate(pool_page(p, from), (size_t)(to - from) * p->page_size);
    return true;
}

uint32_t pool_frame_try(pool *p)
{
    uint64_t head = atomic_load_explicit(&p->free_head, memory_order_acquire);
    uint32_t top;
    do {
        top = (uint32_t)head;
        if (top == 0) break;
    } while (!atomic_compare_exchange_weak_explicit(
        &p->free_head, &head, free_head_make(head, atomic_load_explicit(&p->frames[top - 1].free_next, memory_order_relaxed)),
        memory_order_acq_rel, memory_order_acquire));
    if (top == 0) {
        if (p->need_frames != NULL) p->need_frames(p->need_frames_arg);
        return FRAME_NONE;
    }
    uint32_t left = atomic_fetch_sub_explicit(&p->free_count, 1, memory_order_relaxed) - 1;
    if (left < p->free_low && p->need_frames != NULL) p->need_frames(p->need_frames_arg);
    populate_ask(p, top - 1);
    frame *f = &p->frames[top - 1];
    RW_ASSERT((atomic_load_explicit(&f->version, memory_order_relaxed) & 1) == 1);
    RW_ASSERT(f->flags == 0);
    return top - 1;
}

void pool_frame_free(pool *p, uint32_t index)
{
    frame *f = &p->frames[index];
    RW_ASSERT((atomic_load_explicit(&f->version, memory_order_relaxed) & 1) == 1);
    f->flags = 0;
    f->parent = FRAME_NONE;
    f->resident_children = 0;
    f->disk = page_ref_none();
    atomic_store_explicit(&f->partition, PARTITION_NONE, memory_order_release);
    atomic_store_explicit(&f->cool, 0, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&p->free_head, memory_order_relaxed);
    do {
        atomic_store_explicit(&f->free_next, (uint32_t)head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&p->free_head, &head, free_head_make(head, index + 1), memory_order_acq_rel,
                                                    memory_order_relaxed));
    atomic_fetch_add(&p->free_count, 1);
    if (atomic_load(&p->free_waiters) != 0) {
        atomic_fetch_add(&p->free_word, 1);
        kio_wake(p->kio, &p->free_word, 1);
    }
}

int pool_frames_error(pool *p)
{
    int code = atomic_load(&p->write_error);
    if (code == 0) code = atomic_load(&p->space_error);
    if (code == 0) return 0;
    return rw_error(code, "the cache is full of pages that cannot be written: %s", rw_strerror(code));
}

int pool_frame_take(pool *p, uint32_t *f)
{
    for (unsigned round = 0;; round++) {
        uint32_t word = atomic_load(&p->free_word);
        uint32_t got = pool_frame_try(p);
        if (got != FRAME_NONE) {
            /* Should it be its memory's first touch, which may take milliseconds, here no token is held. */
            *(volatile unsigned char *)pool_page(p, got) = 0;
            *f = got;
            return 0;
        }
        if (round >= FRAME_WAIT_ROUNDS || atomic_load(&p->write_error) != 0) {
            int error = pool_frames_error(p);
            if (error != 0) return error;
        }
        atomic_fetch_add(&p->free_waiters, 1);
        if (atomic_load(&p->free_count) == 0) kio_sleep(p->kio, &p->free_word, word, FRAME_WAIT_NS);
        atomic_fetch_sub(&p->free_waiters, 1);
    }
}

/* ---- pages being read -------------------------------------------------------------------------------------------- */

static _Atomic uint64_t *load_slot(pool *p, uint64_t address)
{
    _Static_assert(POOL_LOADS == 1u << 10, "the hash takes the 10 upper bits");
    return &p->loads[(address * 0x9e3779b97f4a7c15u) >> 54];
}

bool pool_load_try(pool *p, uint64_t address)
{
    uint64_t expected = 0;
    if (atomic_compare_exchange_strong(load_slot(p, address), &expected, address)) return true;
    return expected != address; /* the slot serves another page: read without a claim, installing settles who wins */
}

bool pool_load_begin(pool *p, uint64_t address)
{
    _Atomic uint64_t *slot = load_slot(p, address);
    if (pool_load_try(p, address)) return true;
    while (atomic_load(slot) == address) {
        uint32_t word = atomic_load(&p->load_word);
        atomic_fetch_add(&p->load_waiters, 1);
        if (atomic_load(slot) == address) kio_sleep(p->kio, &p->load_word, word, FRAME_WAIT_NS);
        atomic_fetch_sub(&p->load_waiters, 1);
    }
    return false;
}

void pool_load_end(pool *p, uint64_t address)
{
    uint64_t expected = address;
    if (!atomic_compare_exchange_strong(load_slot(p, address), &expected, 0) || atomic_load(&p->load_waiters) == 0) return;
    atomic_fetch_add(&p->load_word, 1);
    kio_wake(p->kio, &p->load_word, UINT32_MAX);
}
