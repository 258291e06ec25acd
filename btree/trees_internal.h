/* Between the files of btree/. */
#ifndef RW_TREES_INTERNAL_H
#define RW_TREES_INTERNAL_H

#include "btree/trees.h"

/* The first lines of a page are needed at once: fetch them side by side. */
static inline void tree_page_prefetch(const node *n)
{
    const char *bytes = (const char *)n;
    __builtin_prefetch(bytes + 64);
    __builtin_prefetch(bytes + 128);
    __builtin_prefetch(bytes + 192);
    __builtin_prefetch(bytes + 256);
    __builtin_prefetch(bytes + 320);
    __builtin_prefetch(bytes + 384);
}

static inline node *tree_node(trees *t, uint32_t f)
{
    return pool_page(&t->pool, f);
}

static inline frame *tree_frame(trees *t, uint32_t f)
{
    return &t->pool.frames[f];
}

/* Everything of the leaf that will be looked at is asked for before any of it is: its frame, its header, the slot, the record, the fences. */
RW_RACY static inline bool tree_hint_find(const trees *t, uint64_t hash, hint *h)
{
    if (!hints_find(&t->hints, hash, h) || RW_UNLIKELY(h->frame >= t->pool.frame_count)) return false;
    const char *page = pool_page(&t->pool, h->frame);
    __builtin_prefetch(&t->pool.frames[h->frame]);
    __builtin_prefetch(page + offsetof(node, count));
    __builtin_prefetch(page + offsetof(node, slots) + h->slot * sizeof(node_slot));
    __builtin_prefetch(page + h->offset);
    __builtin_prefetch(page + h->offset + RW_CACHE_LINE);
    __builtin_prefetch(page + t->page_size - RW_CACHE_LINE);
    return true;
}

RW_RACY static inline void tree_hint_note(const trees *t, uint64_t hash, uint32_t leaf, unsigned slot)
{
    const node *n = pool_page(&t->pool, leaf);
    hints_note(&t->hints, hash, leaf, slot, node_load_u16(&n->slots[slot].offset));
}

static inline page_ref tree_ref_of_frame(uint32_t f)
{
    return (page_ref){.word = PAGE_REF_IN_MEMORY | f, .checksum = 0, .estimate = 0};
}

static inline rw_slice tree_ref_value(const page_ref *ref)
{
    return rw_slice_of(ref, sizeof *ref);
}

/* ---- frames (frames.c) -------------------------------------------------------------------------------------------- */

/* The page at `level` on the way to key, under the token: 0, or TREE_MISS with the page that is missing. */
int tree_descend(trees *t, partition *p, rw_slice key, unsigned level, uint32_t *f, tree_miss *miss);
/* Makes a frame with an odd version part of p's tree: fields set, version even. Its place in a parent is the caller's matter. */
void tree_frame_install(trees *t, partition *p, uint32_t f, unsigned level, uint32_t parent, page_ref disk);
/* Takes a page out of the tree for good: its run is retired, its frame freed. Its version is odd already. */
void tree_frame_drop(trees *t, partition *p, uint32_t f);
/* The children of an inner page that are resident get it as their parent. Returns how many. */
uint32_t tree_children_adopt(trees *t, uint32_t f);
void tree_root_set(partition *p, uint32_t f);
/* So empty that it should be merged with a neighbour. Two long fences alone may take more than a quarter of a page. */
static inline bool tree_node_sparse(const trees *t, const node *n)
{
    return n->count == 0 || node_used(n, t->page_size) < node_capacity(t->page_size) / 4;
}
/* Moves records between two leaves that are neighbours under one parent, as w->plan says. False, nothing changed: the parent has no room for the separator. */
bool tree_pair_move(tree_writer *w, partition *p, uint32_t left, uint32_t right);
/* A root with one resident child gives way to it. */
bool tree_root_collapse(trees *t, partition *p);
static inline uint32_t tree_root(const partition *p)
{
    return atomic_load_explicit(&p->root, memory_order_relaxed);
}

/* ---- reading without a token (read.c) ---------------------------------------------------------------------------- */

/* A page that was met on the way down. */
typedef struct {
    uint32_t frame;
    uint64_t version;
    uint32_t parent;           /* FRAME_NONE: it is a root; else it was found in this frame, at this slot */
    unsigned parent_slot;
} leaf_seen;

/* Descends until it stands on the leaf; a page that is missing is read, or, with miss, said (TREE_MISS), and it stands on that one's parent. */
int tree_leaf_find(trees *t, rw_slice key, trees_side side, leaf_seen *at, unsigned *restarts, tree_miss *miss);
/* Before another attempt. */
void tree_restart_wait(trees *t, unsigned *restarts);
/* To be trusted if the version stands afterwards. */
void tree_page_copy(trees *t, uint32_t f, node *to);

/* Reads a leaf of a spill, which miss names, for a get of the key. *found: it has answered; else the leaf of the tree was brought in. Errors as of trees_load. */
int tree_spilled_get(trees *t, const tree_miss *miss, rw_slice key, void *buf, size_t room, pending_value *out, bool *found, page_ref *suspect);

/* ---- several leaves (load.c) -------------------------------------------------------------------------------------- */

#define LEAF_RUN_BYTES 65536u          /* read at once, at most */
#define LEAF_RUN_MAX (LEAF_RUN_BYTES / RW_PAGE_SIZE_MIN)

/* Leaves, read side by side, and those that lie so on disk, in either direction, with one read: as far as frames are free and nobody else reads them. What comes is hung in, without a
 * word of what does not: that is missing still. They are wanted once. */
void tree_load_run(trees *t, const tree_miss *leaves, unsigned count);

/* ---- what waits for a leaf (fold.c) ------------------------------------------------------------------------------ */

#define FOLD_PAGES_MAX 16u             /* a leaf, and half a page for each spill and for what waits; where fences take half of a page a split may leave its sides a fifth full */

/* A leaf on its way into a tree, and the pages that it is split into on the way. */
typedef struct {
    trees *t;
    partition *p;
    tree_writer *w;                    /* or NULL: no page can be split */
    uint32_t frames[FOLD_PAGES_MAX];   /* in key order; the first is the leaf's own */
    unsigned count;
    unsigned inserted;             /* records that the leaf has in addition */
    bool changed;
    store_retired replaced;            /* extents of values that are no more */
} leaf_fold;

void fold_begin(leaf_fold *fold, trees *t, partition *p, tree_writer *w, uint32_t leaf);
/* Whether it might come to a split. */
bool fold_needs_writer(const leaf_fold *fold, const pending_leaf *waiting);
/* What the partition's spills hold for the leaf, as its parent names it, which the recall has (NULL: nothing), and what waits for it (or NULL). False: for want of a frame in the writer's reserve; the leaf's bytes are void then. */
bool fold_writes(leaf_fold *fold, page_ref disk, const leaf_recall *recall, const pending_leaf *waiting);
bool fold_fits_parent(const leaf_fold *fold, const node *parent);
/* disk: the leaf's. */
void fold_hang_rest(leaf_fold *fold, uint32_t parent, unsigned slot, page_ref disk);
void fold_finish(leaf_fold *fold, page_ref leaf, const pending_leaf *waiting);
/* Gives back what did not become part of the tree, but for the leaf's own frame. */
void fold_end(leaf_fold *fold);

#endif
