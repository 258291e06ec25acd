/*
 * Filters: for a leaf that has left the cache, which keys it surely does not hold. A get of an absent key that meets the leaf's reference in its parent needs no
 * read of the page then. In memory only, in frames borrowed from the pool, and only since leaves have left.
 *
 * A leaf of n records has a cell for every FILTER_CELL_KEYS of them (n is the estimate of its page reference, exact for a leaf), and a key's hash says which cell is
 * its own. A cell is a small Bloom filter under a tag made of the whole page reference, checksum included. A page's image never changes, so what a cell says is
 * right for as long as some parent names that image, whatever happened since (T12). Nothing keeps cells: each may be overwritten by the next one that falls
 * on its buckets.
 *
 * The table grows by a frame at a time (linear hashing): a database that is a little larger than its cache gives little of the cache away. Chunks that are still to
 * be halved are fuller than others; so each cell has two buckets to choose from, and goes to the emptier one.
 *
 * A leaf's cells are made when its bytes are in the processor's cache anyway: when it is written to be evicted, and when it was read, as long as the table has room.
 * Cells that must push out others, those of clean pages that are evicted, and every question cost more than they bring where nobody gets absent keys: all
 * that depends on whether somebody has lately.
 */
#ifndef RW_FILTERS_H
#define RW_FILTERS_H

#include "btree/node.h"
#include "buffer/buffer.h"

#define FILTER_CELL_KEYS 32u           /* on average at most; 8 bits for each key then, one answer in 45 useless */
#define FILTER_CELL_WORDS 4u
#define FILTER_CELLS_MAX 128u          /* of one leaf; one with more records has fuller cells */
#define FILTER_WANTED 1024u            /* leaves evicted since the last get of an absent key, until filters are asked no more */
#define FILTER_WAYS 3u                 /* cells of a bucket: neighbours in memory */
#define FILTER_CHOICES 2u              /* buckets in which a cell may lie */

/* tag: key (58 bits; 0: empty), version (6 bits; odd: being changed). */
typedef struct {
    _Atomic uint64_t tag;
    _Atomic uint64_t bits[FILTER_CELL_WORDS];
} filter_cell;

typedef struct {
    RW_ALIGNED(2 * RW_CACHE_LINE) filter_cell cells[FILTER_WAYS];
} filter_bucket;

_Static_assert(sizeof(filter_bucket) == 2 * RW_CACHE_LINE, "two cache lines");

/* Striped, so that threads seldom meet. */
#define FILTER_COUNTERS 8u
typedef struct {
    RW_ALIGNED(64) _Atomic uint64_t absent, vain;
} filter_counters;

typedef struct {
    /* set at open */
    pool *pool;
    _Atomic uint32_t *frames;          /* of the pool, one for each chunk; written before chunks is raised */
    uint32_t chunks_max;
    uint32_t chunk_buckets;            /* power of two */
    size_t bytes;                      /* of frames */
    /* any thread, atomic */
    RW_ALIGNED(64) _Atomic uint32_t chunks;
    _Atomic uint32_t growing;          /* 1: a thread adds a chunk */
    _Atomic uint64_t used;             /* cells that are not empty, about */
    RW_ALIGNED(64) _Atomic uint32_t wanted;        /* counts down from FILTER_WANTED; exactness does not matter */
    filter_counters counters[FILTER_COUNTERS];
} filters;

/* May take frames_max frames of the pool, which may be opened later. RW_ENOMEM. */
int filters_open(filters *f, pool *p, uint32_t page_size, uint32_t frames_max);
void filters_close(filters *f);

/* An absent key was asked for. */
static inline void filters_want(filters *f)
{
    if (RW_UNLIKELY(atomic_load_explicit(&f->wanted, memory_order_relaxed) < FILTER_WANTED / 2))
        atomic_store_explicit(&f->wanted, FILTER_WANTED, memory_order_relaxed);
}

static inline bool filters_wanted(const filters *f)
{
    return atomic_load_explicit(&f->wanted, memory_order_relaxed) != 0;
}

/* For a leaf as ref names it. leaf does not change meanwhile. */
void filters_keep(filters *f, page_ref ref, const node *leaf);
/* The same for one that was just read, without a token: while there is room, or filters are wanted; and not before pages had to leave the cache. */
void filters_keep_loaded(filters *f, page_ref ref, const node *leaf);
/* The same for one that is evicted: while filters are wanted. */
void filters_keep_evicted(filters *f, page_ref ref, const node *leaf);
/* For an image that no page in memory will name again. */
void filters_drop(filters *f, page_ref ref);

typedef enum {
    FILTER_UNKNOWN,            /* there is no filter for that image, or none is wanted */
    FILTER_ABSENT,             /* the leaf does not hold the key */
    FILTER_MAYBE
} filter_answer;
/* hash: hints_hash of the whole key. Any thread. The answer is about the image: whether that is still the leaf is the caller's matter. */
filter_answer filters_ask(const filters *f, page_ref ref, uint64_t hash);

static inline void filters_count_absent(filters *f, uint64_t hash)
{
    atomic_fetch_add_explicit(&f->counters[hash % FILTER_COUNTERS].absent, 1, memory_order_relaxed);
}

/* A leaf was read, and did not hold the key. */
static inline void filters_count_vain(filters *f, uint64_t hash)
{
    atomic_fetch_add_explicit(&f->counters[hash % FILTER_COUNTERS].vain, 1, memory_order_relaxed);
}

typedef struct {
    uint64_t bytes;
    uint64_t absent;           /* answers that needed no read */
    uint64_t vain;             /* reads that a filter could not save, though it was there */
} filter_figures;
filter_figures filters_figures(const filters *f);

#endif
