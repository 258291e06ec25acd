/*
 * Pending writes: puts whose leaf is on disk and that need nothing of what it holds. They wait in memory, by leaf, in frames borrowed from the pool, and are made
 * when the leaf comes into the cache for whatever reason, before anybody can look at it (T14). So a put of a cold key costs no read, and a leaf that is read
 * serves all that wait for it; the checkpointer reads the leaves of a whole partition at a time, in the order in which they lie on disk.
 *
 * The log has them all. What they hold back is the log's beginning: a partition's image is as of the oldest write that waits in it (T15).
 */
#ifndef RW_PENDING_H
#define RW_PENDING_H

#include "btree/key_filter.h"
#include "btree/node.h"
#include "btree/spill.h"
#include "buffer/buffer.h"
#include "buffer/frame_heap.h"

/* A page that an operation met and that is not in the cache. */
typedef struct {
    page_ref ref;
    unsigned level;
    uint64_t asked;            /* hash of the key that a get wants of it; 0: the page itself is wanted, */
    bool stays;                /* or it, too, perhaps */
    bool spilled;              /* it is a leaf of a spill, which may hold that key for the leaf that is missing: */
    page_ref leaf;
    uint32_t spills;           /* pending.spills, read before it was asked what waits */
} tree_miss;

/* A record. Its memory lies in the arena of a partition. */
typedef struct pending_write {
    struct pending_write *next;        /* of the same leaf */
    uint64_t timestamp;                /* of the operation */
    uint32_t tag;                      /* of the key's hash */
    uint16_t key_size, value_size;     /* bytes */
    _Atomic uint16_t asked;            /* 1: a get was answered by it */
    unsigned char bytes[];             /* key, value */
} pending_write;

static inline rw_slice pending_key(const pending_write *w) { return rw_slice_of(w->bytes, w->key_size); }
static inline rw_slice pending_data(const pending_write *w) { return rw_slice_of(w->bytes + w->key_size, w->value_size); }

/* All that waits for a leaf, which is on disk, and whose parent names it so. */
typedef struct pending_leaf {
    struct pending_leaf *next;         /* in its bucket */
    page_ref ref;
    pending_write *writes;             /* each of another key */
    uint32_t bytes;                    /* that the leaf may grow by */
    uint32_t tags;                     /* a bit for each write, of its tag: of a key whose bit is not set none waits, and the list need not be fetched from memory */
} pending_leaf;

#define PENDING_BUCKETS_FEW 16u
#define PENDING_BUCKET_FRAMES 32u

/* What waits in a partition. */
typedef struct {
    /* token holder changes, anyone reads */
    RW_ALIGNED(64) _Atomic uint32_t leaves;
    _Atomic uint32_t writes;
    /* under latch; changed only by who holds the token, too */
    kio_mutex latch;
    pending_leaf *few[PENDING_BUCKETS_FEW];            /* the table as long as it is small */
    pending_leaf **buckets[PENDING_BUCKET_FRAMES];     /* a frame each */
    uint32_t bucket_frames;            /* power of two; 0: few */
    spill *spills[STORE_SPILLS_MAX];   /* in the order in which they were made */
    /* token holder changes, anyone reads */
    _Atomic uint32_t spill_count;
    uint32_t spill_number;             /* the last that was given: what is in the cache contains it, and so do images of leaves made since */
    /* token holder */
    frame_arena arena;
    uint64_t oldest;                   /* no record of a write that waits begins before it in the log; means something only if leaves > 0 */
} pending_set;

typedef struct {
    /* set at open */
    kio *kio;
    pool *pool;
    key_filter *keys;                  /* what is put is noted there first */
    uint64_t frames_max;
    size_t record_max, leaf_max;       /* bytes: of a write's key and value; of all that a leaf may grow by */
    uint32_t frame_buckets;            /* power of two */
    /* any thread, atomic */
    frame_heap heap;
    _Atomic uint64_t bucket_frames, spill_frames;
    _Atomic uint32_t reserved;         /* frames of frames_max that are kept for records (records.h) */
    RW_ALIGNED(64) _Atomic uint64_t taken, answered;
    _Atomic uint64_t added;            /* of those taken, that were not put in the place of one that waited */
    _Atomic uint32_t spills;           /* raised with each spill, before what it holds is no longer pending: what was read from disk before that may be out of date */
    _Atomic uint64_t spilled;          /* writes */
    _Atomic uint64_t spill_answers;    /* gets for which a leaf of a spill was read, and told */
    pending_set sets[RW_PARTITIONS_MAX];
} pending;

/* May take frames_max frames of the pool, which may be opened later. */
void pending_init(pending *pg, kio *k, pool *p, key_filter *keys, uint32_t page_size, uint64_t frames_max);

/* ---- with p's token ---------------------------------------------------------------------------------------------- */

/* Whether a put for a leaf on disk can wait: makes room for it. */
typedef enum {
    PENDING_READY,
    PENDING_UNFIT,                     /* it is too large, or the leaf has enough: read the leaf */
    PENDING_FULL                       /* there is no memory */
} pending_state;
pending_state pending_prepare(pending *pg, const partition *p, page_ref leaf, rw_slice key, uint64_t hash, size_t value_size);
/* After pending_prepare. hash: hints_hash of key. timestamp: above that of what waits there for the same key. logged: where its record begins in the log, or before. */
void pending_put(pending *pg, const partition *p, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value, uint64_t timestamp, uint64_t logged);
/* What waits for a leaf; NULL: nothing. */
const pending_leaf *pending_find(const pending *pg, const partition *p, page_ref leaf);
/* It was made, or is not to be: forgets it. */
void pending_drop(pending *pg, const partition *p, page_ref leaf);
/* From where on the log must be kept for what waits; UINT64_MAX: nothing does. */
uint64_t pending_oldest(const pending *pg, const partition *p);
/* What was there when `before` was the end of the log is gone, or was logged again behind that. */
void pending_passed(pending *pg, const partition *p, uint64_t before);
/* A write that waits was logged again. */
void pending_restamp(pending *pg, const partition *p, pending_write *write, uint64_t timestamp);
/* Whether one of the writes that wait there is older than `before`. */
bool pending_has_older(const pending_leaf *entry, uint64_t before);
/* The leaves for which writes older than `before` wait: at most max of them. Returns how many. */
uint32_t pending_leaves(const pending *pg, const partition *p, uint64_t before, tree_miss *leaves, uint32_t max);
/* Around the move of frames to a new partition, when one is cut: what belongs to keys from low on goes there with them. Both tokens are held. In between, who asks either
 * set waits: so what a reader finds fits the partition that he sees the frame in afterwards, whichever he saw it in before. */
void pending_move_begin(pending *pg, const partition *from, const partition *to);
void pending_move_end(pending *pg, const partition *from, const partition *to, rw_slice low);
/* After pending_prepare, when nothing was put: a frame is not kept for a set with nothing in it. */
void pending_release(pending *pg, const partition *p);

/* Those older than `before` wait no longer for the leaf: they are in a spill. */
void pending_forget(pending *pg, const partition *p, page_ref leaf, uint64_t before);
/* The number of the next spill, for what waits now. What is in the cache from now on contains it; what goes there gets it from what waits, or from the spill. 0: there are none left until pending_spills_drop. */
uint32_t pending_spill_begin(pending *pg, const partition *p);
/* A spill of that number, which is the set's from now on: there is room for it. */
void pending_spill_add(pending *pg, const partition *p, spill *s);
/* All leaves contain the spills, and no reference to one has a spill's number any more: takes them all out; their pages go to retired. */
void pending_spills_drop(pending *pg, const partition *p, store_retired *retired);
/* Whether a spill may hold the key for the leaf that leaf names. */
bool pending_may_be_spilled(const pending *pg, const partition *p, page_ref leaf, uint64_t hash);

/* ---- any thread -------------------------------------------------------------------------------------------------- */

/* The leaf of the newest spill that may hold the key and that the leaf named by `leaf` does not contain; none: no spill does. Whether what waits was asked before, and the parent and the partition stand, is the
 * caller's matter. */
page_ref pending_spilled(pending *pg, uint16_t index, page_ref leaf, rw_slice key, uint64_t hash);
/* What a record takes of a leaf, at most. */
static inline uint32_t pending_growth(size_t key_size, size_t value_size)
{
    return (uint32_t)(sizeof(node_slot) + key_size + value_size);
}
static inline pending_set *pending_set_of(const pending *pg, const partition *p)
{
    return (pending_set *)&pg->sets[p->index];
}
static inline uint32_t pending_spills(const pending *pg, uint16_t index)
{
    return atomic_load_explicit(&pg->sets[index].spill_count, memory_order_acquire);
}

/* What waits for a key of a leaf that its parent names on disk, in the partition with this index. Whether the parent stands, and the partition, is the caller's matter. */
typedef struct {
    uint64_t timestamp;
    size_t size;
    bool fits;                         /* the value was copied */
} pending_value;
bool pending_get(pending *pg, uint16_t index, page_ref leaf, rw_slice key, uint64_t hash, void *buf, size_t room, pending_value *out);

static inline bool pending_is_empty(const pending *pg, uint16_t index)
{
    return atomic_load_explicit(&pg->sets[index].leaves, memory_order_acquire) == 0;
}

/* Frames that pending writes take, and spills. */
static inline uint64_t pending_frames(const pending *pg)
{
    return atomic_load_explicit(&pg->heap.frames, memory_order_relaxed) + atomic_load_explicit(&pg->bucket_frames, memory_order_relaxed) +
           atomic_load_explicit(&pg->spill_frames, memory_order_relaxed);
}

/* What they and records may take: old values and locks, which do not wait for what pends to be made, come first. */
static inline uint64_t pending_borrowable(const pending *pg)
{
    uint64_t lent = atomic_load_explicit(&pg->pool->lent, memory_order_relaxed), own = atomic_load_explicit(&pg->heap.frames, memory_order_relaxed);
    uint64_t others = lent > own ? lent - own : 0;
    return pg->frames_max > others ? pg->frames_max - others : 0;
}

/* What they may take now. */
static inline uint64_t pending_limit(const pending *pg)
{
    uint64_t all = pending_borrowable(pg), records = atomic_load_explicit(&pg->reserved, memory_order_relaxed);
    return all > records ? all - records : 0;
}

#define PENDING_FLUSH_SHARE 16u        /* they are made when they take 15/16 of that */

static inline uint64_t pending_flush_from(const pending *pg)
{
    uint64_t limit = pending_limit(pg);
    return limit - limit / PENDING_FLUSH_SHARE;
}

/* Whether there is memory for some more of them; exactness does not matter. */
static inline bool pending_takes_more(const pending *pg)
{
    return pending_frames(pg) + 1 < pending_limit(pg);
}

#endif
