/*
 * A partition: a contiguous range of keys with a tree of its own, and the unit of ownership. Whoever changes anything in its tree, pages or
 * lists holds its token.
 */
#ifndef RW_PARTITION_H
#define RW_PARTITION_H

#include "base/base.h"
#include "kernel_io/kernel_io.h"
#include "store/store.h"

#define PARTITION_NONE UINT16_MAX
#define TREE_LEVELS_MAX 16u

typedef struct {
    uint32_t head, tail;               /* frames; FRAME_NONE: empty */
} dirty_list;

typedef struct partition {
    /* any thread */
    RW_ALIGNED(64) kio_mutex token;
    _Atomic uint32_t root;             /* frame; FRAME_NONE: the partition is not in use */
    /* changed by the token's holder, read by any thread: how far commits have got (engine/moment.c) */
    _Atomic uint64_t committing;       /* the commit that is on its way into this partition, as wal_append announces it; 0: none */
    _Atomic uint64_t applied_lsn;      /* end of the newest commit that was applied and had this partition first */
    _Atomic uint32_t applying;         /* + 1: the apply_slot of the commit of several operations that is being applied; 0: none */
    /* set when it comes into use */
    uint16_t index;                    /* its place in the array */
    uint32_t id;                       /* never used twice in a database */
    /* token holder */
    uint32_t epoch;                    /* raised when a checkpoint of it begins and ends */
    uint32_t imaging_epoch;            /* while its checkpoint runs: the epoch it began with; pages with a smaller dirty_epoch belong to it. 0: none runs */
    _Atomic uint32_t writes_in_flight[4];  /* write-back batches, by the epoch in which they were filled, modulo 4 */
    dirty_list dirty[TREE_LEVELS_MAX]; /* for each level, in the order in which pages became dirty */
    uint32_t dirty_count;
    uint64_t pages;                    /* nodes in its tree, about */
    uint64_t commits;
    uint64_t grown;                    /* records that its leaves got in addition, and splits of leaves, since the checkpointer looked last */
    uint32_t calm;                     /* so many times in a row it had seen few of either then (T17) */
    uint64_t scattered;                /* pages written since it was last written again as a whole: so many places lie dead among those of that writing, about */
    bool rewritten;                    /* as a whole, since the open; else what lies dead among its pages is a guess */
    store_retired retired;             /* runs that the tree stopped naming, but a checkpoint that runs may still name */
    store_retired maturing;            /* those that the checkpoint that runs, or ran last, does not name: free once it is published */
    store_retired extents;             /* the same of large values; records of the log may name them that are replayed as long as what is pending holds the image back, */
    store_retired extents_passed;      /* or not any more: they mature with the next checkpoint */
    /* the checkpointer's */
    page_ref image_root;               /* newest complete image */
    uint64_t image_lsn;
    uint32_t image_height;
    uint32_t image_spill_count, image_spill_number;
    store_spill image_spills[STORE_SPILLS_MAX];    /* that it names */
    bool spills_changed;               /* they are others by now */
    bool whole;                        /* its next image, with what was written for that already, is of all pages */
    uint64_t merge_failed_ns;          /* when a merge of them failed last; 0: none did since one succeeded */
    bool image_needed;                 /* its range changed: no superblock may be published before a new image is there */
} partition;

/* The partitions whose tokens a thread holds. */
typedef struct {
    uint64_t bits[RW_PARTITIONS_MAX / 64];
} partition_set;

static inline bool partition_set_has(const partition_set *set, unsigned index)
{
    return (set->bits[index / 64] >> (index % 64) & 1) != 0;
}

static inline void partition_set_add(partition_set *set, unsigned index)
{
    set->bits[index / 64] |= (uint64_t)1 << (index % 64);
}

static inline void partition_lock(kio *k, partition *p)
{
    kio_mutex_lock(k, &p->token);
}

static inline bool partition_try(partition *p)
{
    return kio_mutex_try(&p->token);
}

static inline void partition_unlock(kio *k, partition *p)
{
    kio_mutex_unlock(k, &p->token);
}

#define PARTITION_GAP_PAUSES 8u        /* in which a processor that spins for a token sees that it is free, and takes it */

/* The token is free for a moment, for who spins for it. Who is asleep for it gets it in the end (kernel_io/README.md, 14). */
static inline void partition_gap(void)
{
    for (unsigned i = 0; i < PARTITION_GAP_PAUSES; i++) rw_cpu_relax();
}

/* Between two steps of something long: others' changes come in between. A step is to take a microsecond or two, as long as who wants the token spins. */
static inline void partition_pass(kio *k, partition *p)
{
    partition_unlock(k, p);
    partition_gap();
    partition_lock(k, p);
}

#endif
