/* Spilled writes of a partition, made in its leaves (btree/spill.h). All of it is the checkpointer's. */
#ifndef RW_MERGE_H
#define RW_MERGE_H

#include "engine/engine_internal.h"

/* The partition's spills, read as a whole; and the leaves on disk that lacked something of what they hold when the merge began. */
typedef struct {
    leaf_recall recall;
    uint32_t number;                   /* of the last one */
    tree_miss *leaves;                 /* in the order of their places */
    uint32_t count, capacity;
    bool read;                         /* they were, once: the caller's */
} merge;

/* Whether a merge of the partition's spills has not failed a moment ago: pages that cannot be read will not be better so soon. */
bool merge_may_succeed(engine *e, const partition *p);
/*
 * Reads the spills and lists the leaves; leaves that come into the cache from then on take what they lack from what was read. False: something cannot be read, and the spills stay; what is pending can be
 * made all the same, where what they hold for its leaves can be read. merge_free afterwards, in either case.
 */
bool merge_begin(engine *e, partition *p, merge *m);
/* Reads those of the leaves that still lack something, and writes them again. */
void merge_rewrite(engine *e, partition *p, const merge *m);
/* Leaves that were not read with the others are read one by one; then all contain the spills, which go. */
void merge_end(engine *e, partition *p, merge *m);
void merge_free(engine *e, merge *m);

#endif
