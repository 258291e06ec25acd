/*
 * Recalling: pages of spills (spill.h), read so that leaves on their way into the cache get what those hold for them. The pages needed are known only under the token, and read without it: so whoever hangs a leaf in
 * is told which are lacking, reads them, and tries again.
 */
#ifndef RW_RECALL_H
#define RW_RECALL_H

#include "btree/pending.h"

typedef struct {
    page_ref ref;
    node *page;
} recall_page;

/* Pages that were read together. */
typedef struct recall_block {
    struct recall_block *next;
    unsigned char *bytes;
    size_t size;
} recall_block;

/* One thread's, for one leaf or many. Zeros: it has nothing. */
typedef struct {
    recall_page *pages;                /* in the order of their places */
    uint32_t count, capacity;
    recall_block *blocks;
    page_ref *wanted;                  /* asked for by recall_ready, and not read yet */
    uint32_t wanted_count, wanted_capacity;
    int error;                         /* why what is lacking cannot even be asked for; the sentence is the thread's */
} leaf_recall;

/* Under the token: whether the recall (NULL: it has nothing) has all pages that hold something for the leaf n, which was read as ref names it; else it wants them. */
bool recall_ready(leaf_recall *r, const pending *pg, const partition *p, page_ref ref, const node *n);
/* The leaves of spill number i that hold something for the leaf in those bounds. At most SPILL_LEAF_PAGES; 0 if the leaf, as ref names it, contains the spill. */
uint32_t recall_leaves(const pending *pg, const partition *p, uint32_t i, page_ref ref, rw_slice lower, rw_slice upper, page_ref leaves[SPILL_LEAF_PAGES]);
/* Under the token: all pages of the partition's spills are wanted. RW_ENOMEM. */
int recall_want_all(leaf_recall *r, const pending *pg, const partition *p);
/* Reads what is wanted. Not under a token, but by those who may read there. RW_ENOMEM, RW_EIO, RW_ECORRUPT: nothing is wanted any more. */
int recall_read(leaf_recall *r, kio *k, store *st, const pool *p);
/* NULL: it is not there. */
const node *recall_find(const leaf_recall *r, page_ref ref);
void recall_free(leaf_recall *r);

/* Checks a leaf of a spill that was read. RW_ECORRUPT. */
int recall_check(store *st, const pool *p, page_ref ref, const node *n);

#endif
