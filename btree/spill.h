/*
 * Spilled writes: pending writes of a partition (pending.h) that were sorted and written together, as a small tree of nodes beside the partition's own, because their leaves had gathered too few of
 * them to be worth a page each. A partition's image consists of its tree and its spills; a leaf on disk lacks what they hold for it, and gets it when it comes into the cache (recall.h, T20).
 *
 * What is above the leaves of a spill is in memory, in frames borrowed from the pool, and a filter of the keys.
 */
#ifndef RW_SPILL_H
#define RW_SPILL_H

#include "base/base.h"
#include "btree/node.h"
#include "buffer/buffer.h"

typedef struct {
    store_spill image;                 /* as the superblock names it */
    uint64_t writes;                   /* how many; 0: not known */
    /* frames of the pool */
    uint32_t *parents;                 /* the nodes above the leaves, in key order */
    uint32_t parent_count;
    uint32_t *filter;                  /* NULL: there is none, any key may be there */
    uint32_t filter_count;
    /* on disk */
    page_ref *inner;                   /* all that is above the leaves, the root included */
    uint32_t inner_count;
} spill;

#define SPILL_LEAF_PAGES 16u           /* of a spill: more than hold something for one leaf of the tree, for which half a page has waited at most (T16) */

/* ---- any thread that keeps the spill from going away ---------------------------------------------------------------- */

bool spill_may_hold(const spill *s, const pool *p, uint64_t hash);
/* The leaf that would hold key; none: its keys are all larger. */
page_ref spill_leaf(const spill *s, const pool *p, rw_slice key);
/* The leaves that may hold keys in [from, to) (to.size 0: no end), at most max of them. Returns how many. */
uint32_t spill_leaves(const spill *s, const pool *p, rw_slice from, rw_slice to, page_ref *leaves, uint32_t max);
/* Whether it has a page at that place. */
bool spill_names(const spill *s, const pool *p, uint64_t address);
/* Frames that it takes. */
static inline uint32_t spill_frames(const spill *s) { return s->parent_count + s->filter_count; }
/* All of its pages. */
void spill_retire(const spill *s, const pool *p, store_retired *retired);

/* ---- making and reading one ------------------------------------------------------------------------------------------ */

/* Takes key after key, in order, and writes pages. */
typedef struct spill_writer spill_writer;
/* Nothing of it can be referenced before spill_write_end. batch: RW_WRITE_BATCH_BYTES, block-aligned, the writer's until it is gone. RW_ENOMEM. */
int spill_write_begin(kio *k, store *st, pool *p, void *batch, uint32_t number, uint64_t writes, uint64_t newest, spill_writer **out);
/* RW_ENOSPC, RW_ENOMEM (of frames, too), RW_EIO: the writer can only be abandoned. */
int spill_write_add(spill_writer *w, rw_slice key, uint64_t hash, rw_slice value);
/* With at least one write added. The writer is gone if it is 0. */
int spill_write_end(spill_writer *w, spill **out);
/* Gives back all that was placed. */
void spill_write_abandon(spill_writer *w);
/* One that a superblock names: reads what is above its leaves. */
int spill_open(store *st, pool *p, const store_spill *image, spill **out);
/* Gives its frames back; what is on disk is the caller's matter. */
void spill_close(spill *s, pool *p);

#endif
