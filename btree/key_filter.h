/*
 * One Bloom filter over all keys that the database holds, so that a get of an absent key needs neither a descent nor a page (T18). A key's bits lie in one word. Keys that are
 * deleted stay in it until it is made anew, by a walk over all leaves; it is of use only while that found all of them in the cache. Nothing of it is on disk.
 */
#ifndef RW_KEY_FILTER_H
#define RW_KEY_FILTER_H

#include "base/base.h"
#include "base/limits.h"
#include "kernel_io/kernel_io.h"

/* OFF: is not asked, and nothing is noted. LEARNING: all new keys are noted, the others are being collected. COMPLETE: holds every key. */
typedef enum { KEY_FILTER_OFF, KEY_FILTER_LEARNING, KEY_FILTER_COMPLETE } key_filter_phase;

typedef struct {
    /* set at open */
    kio *kio;
    _Atomic uint64_t *words;       /* NULL: there is none */
    unsigned shift;                /* 64 - log2 of their number */
    size_t bytes;
    uint64_t keys_max;             /* with more, too many bits are set to be of use */
    /* any thread */
    RW_ALIGNED(RW_CACHE_LINE)
    _Atomic uint64_t state;        /* phase in the low two bits; above them how often it was changed, so that no state comes twice */
    _Atomic uint32_t wanted;       /* an absent key was asked for, at the price of a descent */
    RW_ALIGNED(RW_CACHE_LINE)
    _Atomic uint64_t keys;         /* about so many were noted since it was emptied */
    _Atomic uint32_t absent;       /* about so many absent keys were asked for while it was off */
} key_filter;

/* bytes: memory for it, at most; too little for any is no error: there is none then. RW_ENOMEM. */
int key_filter_open(key_filter *f, kio *k, size_t bytes);
void key_filter_close(key_filter *f);

#define KEY_FILTER_PHASE_BITS 3u

static inline key_filter_phase key_filter_phase_of(uint64_t state)
{
    return (key_filter_phase)(state & KEY_FILTER_PHASE_BITS);
}

static inline _Atomic uint64_t *key_filter_word(const key_filter *f, uint64_t hash)
{
    return &f->words[hash >> f->shift];
}

/* The upper bits of the hash choose the word. */
static inline uint64_t key_filter_mask(uint64_t hash)
{
    return (uint64_t)1 << (hash & 63) | (uint64_t)1 << (hash >> 6 & 63) | (uint64_t)1 << (hash >> 12 & 63) | (uint64_t)1 << (hash >> 18 & 63);
}

static inline void key_filter_prefetch(const key_filter *f, uint64_t hash)
{
    if (RW_LIKELY(f->words != NULL)) __builtin_prefetch((const void *)key_filter_word(f, hash));
}

/* Any thread, without a token: whether no key with this hash was in the database at some moment during the call. */
bool key_filter_denies(const key_filter *f, uint64_t hash);
/* Under the token of the key's partition, before the key can be seen; the walk that makes the filter needs none (T18). */
void key_filter_note(key_filter *f, uint64_t hash);

/* To another phase, if *state is still what it is in; then *state is the new one. */
bool key_filter_turn(key_filter *f, uint64_t *state, key_filter_phase to);

#endif
