/*
 * Handles of transactions. A handle is a number dressed as a pointer: the place of the transaction's slot, and the generation of its use. Slots are never freed; so
 * a handle that was committed or aborted, even if its slot serves another transaction by now, is recognised and refused, and so is a second thread.
 */
#include "engine/txn.h"

#define CHUNK_SLOTS 256u
#define CHUNKS 16384u
#define INDEX_BITS 22u                 /* CHUNKS * CHUNK_SLOTS places; the rest of a handle is the generation */
#define INDEX_NONE UINT32_MAX

_Static_assert(CHUNKS * CHUNK_SLOTS == 1u << INDEX_BITS, "places of slots");
_Static_assert(sizeof(rw_txn *) == 8, "a handle has 64 bits");

/* A slot's state: generation << 2 | TXN_LIVE | TXN_BUSY */
#define TXN_BUSY 1u
#define TXN_LIVE 2u
#define GENERATION_SHIFT 2u

static _Atomic(transaction *) chunks[CHUNKS];
static _Atomic uint32_t slots_made;
static _Atomic uint64_t free_slots = INDEX_NONE;   /* a stack: index, and a tag above it against reuse races */

static transaction *slot_at(uint32_t index)
{
    transaction *chunk = atomic_load_explicit(&chunks[index / CHUNK_SLOTS], memory_order_acquire);
    return chunk == NULL ? NULL : &chunk[index % CHUNK_SLOTS];
}

static transaction *slot_pop(void)
{
    uint64_t head = atomic_load(&free_slots);
    while ((uint32_t)head != INDEX_NONE) {
        transaction *t = slot_at((uint32_t)head);
        RW_ASSERT(t != NULL);
        uint32_t next = atomic_load_explicit(&t->next_free, memory_order_relaxed); /* may be old: then the exchange fails by the tag */
        if (atomic_compare_exchange_weak(&free_slots, &head, ((head >> 32) + 1) << 32 | next)) return t;
    }
    return NULL;
}

static void slot_push(transaction *t)
{
    uint64_t head = atomic_load(&free_slots);
    do {
        atomic_store_explicit(&t->next_free, (uint32_t)head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak(&free_slots, &head, ((head >> 32) + 1) << 32 | t->index));
}

/* A chunk of new slots; the caller gets the first. */
static transaction *chunk_make(void)
{
    transaction *chunk = aligned_alloc(RW_CACHE_LINE, CHUNK_SLOTS * sizeof *chunk);
    if (chunk == NULL) return NULL;
    uint32_t first = atomic_fetch_add(&slots_made, CHUNK_SLOTS);
    if (first >= 1u << INDEX_BITS) {
        atomic_fetch_sub(&slots_made, CHUNK_SLOTS);
        free(chunk);
        return NULL;
    }
    memset(chunk, 0, CHUNK_SLOTS * sizeof *chunk);
    for (uint32_t i = 0; i < CHUNK_SLOTS; i++) {
        chunk[i].index = first + i;
        atomic_init(&chunk[i].state, (uint64_t)1 << GENERATION_SHIFT);
    }
    atomic_store_explicit(&chunks[first / CHUNK_SLOTS], chunk, memory_order_release);
    for (uint32_t i = CHUNK_SLOTS - 1; i > 0; i--) slot_push(&chunk[i]);
    return chunk;
}

int txn_slot_take(transaction **out)
{
    transaction *t = slot_pop();
    if (t == NULL) t = chunk_make();
    if (t == NULL) return rw_error(RW_ENOMEM, "no memory for another transaction");
    /* nobody else changes it while it is not live */
    atomic_store_explicit(&t->state, atomic_load_explicit(&t->state, memory_order_relaxed) | TXN_BUSY, memory_order_relaxed);
    *out = t;
    return 0;
}

rw_txn *txn_handle(const transaction *t)
{
    uint64_t generation = atomic_load_explicit(&t->state, memory_order_relaxed) >> GENERATION_SHIFT;
    return (rw_txn *)(uintptr_t)(generation << INDEX_BITS | t->index); /* not NULL: generations begin at 1 */
}

void txn_slot_give(transaction *t)
{
    uint64_t generation = atomic_load_explicit(&t->state, memory_order_relaxed) >> GENERATION_SHIFT;
    atomic_store_explicit(&t->state, (generation + 1) << GENERATION_SHIFT, memory_order_release);
    slot_push(t);
}

int txn_enter_to_end(rw_txn *handle, transaction **out)
{
    if (handle == NULL) return rw_error(RW_EINVAL, "the transaction is NULL");
    uint64_t number = (uint64_t)(uintptr_t)handle, generation = number >> INDEX_BITS;
    transaction *t = slot_at((uint32_t)(number & ((1u << INDEX_BITS) - 1)));
    uint64_t idle = generation << GENERATION_SHIFT | TXN_LIVE, seen = idle;
    if (t == NULL) return rw_error(RW_EINVAL, "the handle is no transaction's");
    if (RW_UNLIKELY(!atomic_compare_exchange_strong(&t->state, &seen, idle | TXN_BUSY))) {
        if (seen >> GENERATION_SHIFT != generation) return rw_error(RW_ECLOSED, "the transaction has ended");
        return rw_error(RW_EBUSY, "transaction %llu is in use by another thread", (unsigned long long)atomic_load(&t->id));
    }
    engine *e;
    int error = engine_of(t->db, &e);
    if (RW_UNLIKELY(error != 0)) {
        txn_leave(t);
        return error;
    }
    *out = t;
    return 0;
}

int txn_enter(rw_txn *handle, transaction **out)
{
    transaction *t;
    int error = txn_enter_to_end(handle, &t);
    if (error != 0) return error;
    if (RW_UNLIKELY(t->doomed != 0)) {
        error = rw_error(t->doomed, "transaction %llu was the victim of a deadlock and can only be aborted", (unsigned long long)atomic_load(&t->id));
        txn_leave(t);
        return error;
    }
    *out = t;
    return 0;
}

void txn_leave(transaction *t)
{
    uint64_t generation = atomic_load_explicit(&t->state, memory_order_relaxed) >> GENERATION_SHIFT;
    atomic_store_explicit(&t->state, generation << GENERATION_SHIFT | TXN_LIVE, memory_order_release);
}

int txn_slots_for_each(const engine *e, int (*fn)(void *arg, transaction *t), void *arg)
{
    uint32_t made = atomic_load(&slots_made);
    int result = 0;
    for (uint32_t i = 0; i < made && result == 0; i++) {
        transaction *t = slot_at(i);
        if (t == NULL) continue;
        uint64_t state = atomic_load(&t->state);
        if ((state & TXN_LIVE) != 0 && atomic_load(&t->e) == e) result = fn(arg, t);
    }
    return result;
}
