#include "btree/key_filter.h"

#include "base/memory.h"
#include "base/planted.h"
#include "base/preempt.h"

int key_filter_open(key_filter *f, kio *k, size_t bytes)
{
    *f = (key_filter){.kio = k};
    unsigned bits = 0;
    if (bytes < RW_KEY_FILTER_BYTES_MIN) return 0;
    while (((size_t)2 << bits) * sizeof(uint64_t) <= bytes) bits++;
    f->bytes = ((size_t)1 << bits) * sizeof(uint64_t);
    f->shift = 64 - bits;
    f->keys_max = f->bytes * 8 / RW_KEY_FILTER_BITS;
    f->words = rw_memory_map(f->bytes);
    return f->words != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for a filter of keys, %zu bytes", f->bytes);
}

void key_filter_close(key_filter *f)
{
    rw_memory_unmap((void *)f->words, f->bytes);
    f->words = NULL;
}

bool key_filter_denies(const key_filter *f, uint64_t hash)
{
    uint64_t state = atomic_load_explicit(&f->state, memory_order_acquire), mask = key_filter_mask(hash);
    if (key_filter_phase_of(state) != KEY_FILTER_COMPLETE) return false;
    RW_PREEMPT(f->kio);
    if ((atomic_load_explicit(key_filter_word(f, hash), memory_order_relaxed) & mask) == mask) return false;
    /* If the word was read after it was emptied, the state shows it. */
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&f->state, memory_order_relaxed) == state || RW_PLANTED(deny_from_memory);
}

void key_filter_note(key_filter *f, uint64_t hash)
{
    uint64_t state = atomic_load_explicit(&f->state, memory_order_relaxed), mask = key_filter_mask(hash);
    if (key_filter_phase_of(state) == KEY_FILTER_OFF || RW_PLANTED(key_filter_lacks_key)) return;
    _Atomic uint64_t *word = key_filter_word(f, hash);
    if ((atomic_load_explicit(word, memory_order_relaxed) & mask) == mask) return;
    atomic_fetch_or(word, mask);
    RW_PREEMPT(f->kio);
    if (RW_LIKELY((hash >> 24) % RW_KEY_FILTER_SAMPLE != 0)) return;
    if (atomic_fetch_add_explicit(&f->keys, RW_KEY_FILTER_SAMPLE, memory_order_relaxed) >= f->keys_max) key_filter_turn(f, &state, KEY_FILTER_OFF);
}

bool key_filter_turn(key_filter *f, uint64_t *state, key_filter_phase to)
{
    uint64_t from = *state, next = ((from | KEY_FILTER_PHASE_BITS) + 1) | to;
    bool turned = atomic_compare_exchange_strong(&f->state, &from, next);
    if (turned) *state = next;
    return turned;
}
