/*
 * Hints: for a key's hash, the leaf and the slot where it was last found. A get that finds its key there is spared the descent: instead of one page after the
 * other, all that it needs to look at is fetched from memory at once. Never trusted: what a hint says is checked against the leaf, under its version (T11), and a wrong one
 * only costs the descent. So nothing keeps them up to date, and each is simply overwritten by the next key that falls on its place.
 */
#ifndef RW_HINTS_H
#define RW_HINTS_H

#include "base/base.h"
#include "btree/node_format.h"

/* An entry: frame + 1 (28 bits), slot (12), place of the record in the page in units of 16 bytes (12), tag (12). 0: empty. */
typedef struct {
    _Atomic(_Atomic uint64_t *) entries;   /* any thread; NULL: there are none, or not yet */
    /* set at open */
    unsigned shift;                /* 64 - log2 of their number */
    size_t bytes;
    _Atomic uint64_t *area;
    /* whoever calls hints_populate */
    size_t populated;              /* bytes */
} key_hints;

typedef struct {
    uint32_t frame;
    unsigned slot;
    unsigned offset;               /* bytes, of the 16 in which the record begins */
} hint;

#define HINT_UNIT 16u

/*
 * bytes: memory for them, at most; too little for any is no error: there are none then. RW_ENOMEM. A large table is of no use until it has been populated:
 * hints fall all over it, so that nearly every one of the first operations would wait for the memory of a huge page.
 */
int hints_open(key_hints *h, size_t bytes);
/* Gets memory for a part of the table, in 0.2 to 5 ms; with the last part the table is in use. One thread. False: there was nothing to do. */
bool hints_populate(key_hints *h);
void hints_close(key_hints *h);

static inline uint64_t hints_hash(rw_slice key)
{
    const unsigned char *p = key.data;
    size_t n = key.size;
    uint64_t hash = n * 0x9e3779b97f4a7c15u;
    for (; n > 8; p += 8, n -= 8) {
        hash = (hash ^ rw_load_u64(p)) * 0xd6e8feb86659fd93u;
        hash ^= hash >> 32;
    }
    uint64_t last = 0;
    if (RW_LIKELY(key.size >= 8)) last = rw_load_u64((const unsigned char *)key.data + key.size - 8);
    else memcpy(&last, p, n);
    hash = (hash ^ last) * 0xd6e8feb86659fd93u;
    hash ^= hash >> 32;
    return hash * 0x9e3779b97f4a7c15u;
}

/* The places where a key's hint may stand: a quarter to a half of a cache line. */
#define HINT_PLACES 4u

/* NULL: there are no hints. */
static inline _Atomic uint64_t *hints_bucket(const key_hints *h, uint64_t hash)
{
    _Atomic uint64_t *entries = atomic_load_explicit(&h->entries, memory_order_acquire);
    return RW_LIKELY(entries != NULL) ? &entries[(hash >> h->shift) * HINT_PLACES] : NULL;
}

static inline void hints_prefetch(const key_hints *h, uint64_t hash)
{
    __builtin_prefetch((const void *)hints_bucket(h, hash));
}

#define HINT_TAG 0xfffu

/* false: there is none for this key. */
static inline bool hints_find(const key_hints *h, uint64_t hash, hint *out)
{
    _Atomic uint64_t *bucket = hints_bucket(h, hash);
    if (RW_UNLIKELY(bucket == NULL)) return false;
    for (unsigned i = 0; i < HINT_PLACES; i++) {
        uint64_t entry = atomic_load_explicit(&bucket[i], memory_order_relaxed);
        if (((entry ^ hash) & HINT_TAG) != 0 || entry < HINT_TAG + 1) continue;
        *out = (hint){.frame = (uint32_t)(entry >> 36) - 1, .slot = (unsigned)(entry >> 24) & 0xfff, .offset = ((unsigned)(entry >> 12) & 0xfff) * HINT_UNIT};
        return true;
    }
    return false;
}

/* In the place of what has the same tag, or of nothing, or of the one that the hash chooses. */
static inline void hints_note(const key_hints *h, uint64_t hash, uint32_t leaf, unsigned slot, unsigned offset)
{
    _Atomic uint64_t *bucket = hints_bucket(h, hash);
    if (RW_UNLIKELY(bucket == NULL || slot > 0xfff || leaf >= (1u << 28) - 1)) return;
    uint64_t entry = (uint64_t)(leaf + 1) << 36 | (uint64_t)slot << 24 | (uint64_t)(offset / HINT_UNIT) << 12 | (hash & HINT_TAG);
    _Atomic uint64_t *place = &bucket[(hash >> 12) % HINT_PLACES];
    for (unsigned i = HINT_PLACES; i-- > 0;) {
        uint64_t old = atomic_load_explicit(&bucket[i], memory_order_relaxed);
        if (old == entry) return;
        if (old == 0) place = &bucket[i];
        if (((old ^ hash) & HINT_TAG) != 0) continue;
        place = &bucket[i];
        break;
    }
    atomic_store_explicit(place, entry, memory_order_relaxed);
}

#endif
