/*
 * Records of leaves that have left the cache, each by itself: those that gets have had read. A get that meets the leaf's reference in its parent is answered from here,
 * without a read of the page, if nothing waits for the key (btree/pending.h). In memory only, in frames borrowed from the pool.
 *
 * A record stands under the image of the leaf that it was read from: page reference, checksum included. An image never changes, so what stands here is right for as long
 * as some parent names that image, whatever happened since (T19). When a leaf is written again, the records that are here go over to the new image, with their new values.
 *
 * A leaf that is written again asks for each of its keys; so each bucket has a filter apart from it, a bit for each key, which is small enough to be looked up for all of a leaf's keys side by side.
 *
 * The table is made of buckets, a frame each, added one by one (linear hashing). In a bucket a hand goes round: who was asked for since it came by last stays.
 */
#ifndef RW_RECORDS_H
#define RW_RECORDS_H

#include "btree/node.h"
#include "btree/pending.h"
#include "buffer/buffer.h"

#define RECORDS_RECENT 1024u           /* power of two */
#define RECORDS_FILTER_WORDS 2u        /* a frame of 4 KiB has about 26 records of 16 + 100 bytes: a fifth of the bits */

/* Everything in a bucket is under its latch. Counted under it, too: */
typedef struct {
    RW_ALIGNED(64) kio_mutex mutex;
    uint64_t answered;                 /* gets */
    uint64_t pushed_out;               /* by others; nobody had asked for them lately */
} records_latch;

typedef struct {
    /* set at open */
    kio *kio;
    pool *pool;
    pending *pending;                  /* shares the frames that may be borrowed */
    _Atomic uint32_t *frames;          /* of the pool, one for each bucket; written before buckets is raised */
    _Atomic uint64_t *filters;         /* RECORDS_FILTER_WORDS for each bucket: a bit for each key that is there, changed under its latch */
    uint32_t buckets_max;
    size_t bytes;                      /* of frames and filters */
    size_t record_max;                 /* bytes of key and value */
    /* any thread, atomic */
    RW_ALIGNED(64) _Atomic uint32_t buckets;       /* 0, or at least one for each latch, so that a bucket and the one that is split off it have the same */
    _Atomic uint32_t tending;          /* 1: a thread does */
    RW_ALIGNED(64) _Atomic uint64_t asked;         /* leaves read for gets, with a record that could be kept */
    _Atomic uint64_t walked;           /* other leaves that were read for somebody, who needs the leaf */
    _Atomic uint32_t near;             /* how usual it is that a leaf is read again at once */
    _Atomic uint32_t recent[RECORDS_RECENT];       /* leaves that were read for gets lately, by their address */
    /* who tends */
    uint64_t answered, asked_seen, walked_seen, added_seen;    /* at the end of the last window */
    uint64_t pushed_out_seen;          /* last time */
    uint32_t gathered;                 /* of the first frames, before there is a table */
    double share;                      /* of what may be borrowed, that records are worth */
    uint32_t target;                   /* buckets to be reached */
    records_latch latches[RW_RECORDS_LATCHES];
} record_cache;

/* May take frames_max frames of the pool, which may be opened later. RW_ENOMEM. */
int records_open(record_cache *r, kio *k, pool *p, pending *pg, uint32_t page_size, uint32_t frames_max);
void records_close(record_cache *r);

/* Any thread. As pending_get: what the image that leaf names says of a key, if that is known here. Whether the leaf is still what its parent names is the caller's matter. */
bool records_get(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, void *buf, size_t room, pending_value *out);
/* A leaf was read, as leaf names it, for a get of the key with that hash; n holds the image, or a leaf of a spill (spill.h) that is newer, and does not change meanwhile. moment: what *moments was before the
 * get asked what waits for the leaf; it is raised whenever that may have gone to disk, so that n is out of date. True: the record is here, and the leaf need not stay. */
bool records_keep(record_cache *r, page_ref leaf, const node *n, uint64_t hash, const _Atomic uint32_t *moments, uint32_t moment);
/* A write that waited for that leaf went into a spill: a record that is here gets its value; one that was asked for while it waited is here from now on. *moments was raised before. */
void records_spilled(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value, bool asked);
/* A write that gets have asked for while it waited is made in its leaf now: once the leaf is written (records_renew) it is here. */
void records_keep_made(record_cache *r, rw_slice key, rw_slice value);
/* n is about to be written as leaf: those of its records that are here go over to that image. */
void records_renew(record_cache *r, page_ref leaf, const node *n);

/* Whether there is a table for them: else a record that is read is kept nowhere. */
static inline bool records_are_kept(const record_cache *r)
{
    return atomic_load_explicit(&r->buckets, memory_order_relaxed) != 0;
}

/* A leaf was read for somebody to whom a record is of no use. */
static inline void records_walked(record_cache *r)
{
    atomic_fetch_add_explicit(&r->walked, 1, memory_order_relaxed);
}

/* A small step towards the number of buckets that records are worth, by one thread at a time, which waits for nothing but latches. Gets that read leaves call it now and
 * then, and workers while they evict. */
void records_tend(record_cache *r);

typedef struct {
    uint64_t bytes, answered;
} records_figures;
records_figures records_figures_get(record_cache *r);

#endif
