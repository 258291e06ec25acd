/*
 * The version store: values that commits replaced and that open snapshots may still read, by key and by the timestamp of the operation that replaced them (X2
 * to X7). One store for each partition. Writers hold the partition's token; readers, in any thread, take the store's latch.
 */
#ifndef RW_VERSIONS_H
#define RW_VERSIONS_H

#include "base/random.h"
#include "btree/trees.h"
#include "buffer/frame_heap.h"
#include "txn/snapshots.h"

typedef struct version version;    /* versions_internal.h */

#define VERSION_LEVELS 16u

/* What an operation replaced. */
typedef struct {
    bool present;                  /* false: the key was not there */
    bool is_extent;                /* value: an extent_ref */
    rw_slice value;
} version_image;

typedef struct {
    /* token holder changes, anyone reads */
    RW_ALIGNED(64) _Atomic uint32_t count;    /* versions in it */
    _Atomic uint64_t newest;       /* timestamp of the newest version ever recorded here */
    _Atomic uint64_t front;        /* timestamp of the oldest version that is here; UINT64_MAX: none */
    /* under latch; the index is changed only by who holds the token, too */
    kio_mutex latch;
    version *head[VERSION_LEVELS]; /* skip list by (key, timestamp) */
    version *oldest, *youngest;    /* in order of timestamp */
    /* token holder */
    frame_arena arena;
    version *hand;                 /* of the sweep through the list by timestamp; NULL: at its begin */
    rw_random random;              /* heights */
} version_store;

typedef struct versions {
    trees *trees;
    snapshots *snapshots;
    uint64_t bytes_max;
    frame_heap heap;
    version_store stores[RW_PARTITIONS_MAX];
    _Atomic uint32_t moves;        /* odd: versions are on their way between stores */
} versions;

void versions_init(versions *v, trees *t, snapshots *s, uint64_t bytes_max);
/* All stores must be empty of versions that anyone reads: drops what is left, without retiring. */
void versions_close(versions *v);

/* ---- writers, with p's token ------------------------------------------------------------------------------------- */

/* Whether recording has anything to do at all: a snapshot is open, or being begun. To be asked after the operation has its timestamp. */
static inline bool versions_wanted(const versions *v)
{
    return RW_UNLIKELY(atomic_load(&v->snapshots->newest) != 0);
}
/* Memory of one version. */
size_t versions_size(const versions *v, size_t key_size, size_t value_size);
/* Whether `size` bytes (of one version) can be recorded without more memory; else feed it a frame first. */
bool versions_has_room(const versions *v, const partition *p, size_t size);
/* Whether there may be another frame: twice bytes_max is the end, for those too who feed one that they have. */
bool versions_may_grow(const versions *v);
void versions_feed(versions *v, const partition *p, uint32_t index);
/*
 * Records what an operation with this timestamp is about to replace, if some snapshot may need it; drops versions of the key that none needs any more, and a few
 * old ones. Timestamps never fall within a partition, and one operation replaces a key once. Never fails: without memory the snapshots up to timestamp are given
 * up. While the stores hold more than bytes_max, and nothing in them is free to go, the oldest snapshot is given up; more than twice bytes_max they never hold.
 * true: image's extent is the version's now, and must not be retired by the tree.
 */
bool versions_record(versions *v, partition *p, rw_slice key, uint64_t timestamp, const version_image *image);
/* Drops up to max versions that no snapshot needs, oldest first, and retires their extents. Returns whether there may be more. */
bool versions_trim(versions *v, partition *p, unsigned max);
/* Whether that would find something. Any thread, no token needed. */
static inline bool versions_wants_trim(const versions *v, const partition *p)
{
    return atomic_load_explicit(&v->stores[p->index].front, memory_order_relaxed) < atomic_load(&v->snapshots->oldest);
}
/* Whether an operation with a timestamp >= since has written key, or any key of [from, to): the key is copied to found (room for a stored key), its size to *size. */
bool versions_written_since(versions *v, const partition *p, rw_slice key, uint64_t since);
bool versions_range_written_since(versions *v, const partition *p, rw_slice from, rw_slice to, uint64_t since, unsigned char *found, size_t *size);

/* Around a cut or a join of partitions, by who holds the tokens: begin, change the router, move, end. Both stores' tokens are held. One at a time. */
void versions_move_begin(versions *v);
/* Moves those with keys >= low from one partition to the other, where all keys are below them. */
void versions_move(versions *v, const partition *from, const partition *to, rw_slice low);
void versions_move_end(versions *v);

/* ---- readers, without tokens ------------------------------------------------------------------------------------- */

typedef enum {
    VERSION_NONE,                  /* nothing was replaced since: the leaf, read before this call, is right */
    VERSION_ABSENT,                /* the key was not there */
    VERSION_VALUE,                 /* *size is set, and the value copied when it fits */
    VERSION_EXTENT                 /* *extent is set */
} version_state;

/* What key was at snapshot since. room: of buf, in bytes. */
version_state versions_find(versions *v, rw_slice key, uint64_t since, void *buf, size_t room, size_t *size, extent_ref *extent);

/* Old values of a range, for a cursor: they take the place of what the leaf says, in key order. Zero-initialised: empty. */
typedef struct {
    unsigned char *bytes;
    size_t bytes_size, bytes_capacity;
    struct version_entry {
        size_t key_offset, value_offset;   /* in bytes */
        uint32_t key_size, value_size;
        bool present, is_extent;
    } *entries;
    unsigned count, capacity;
} version_overlay;

#define VERSION_OVERLAY_MAX 256u

/*
 * Collects what keys in [from, to) (to.size 0: no end) were at snapshot since, as far as they were written since: from the low end, or with backwards from the high
 * end, at most VERSION_OVERLAY_MAX of them. *complete: the whole range was covered; else the overlay covers it from its end up to its last entry (backwards:
 * down to its first), inclusive. Entries are in ascending order either way. RW_ENOMEM.
 */
int versions_collect(versions *v, rw_slice from, rw_slice to, bool backwards, uint64_t since, version_overlay *overlay, bool *complete);
static inline rw_slice version_overlay_key(const version_overlay *o, unsigned i)
{
    return rw_slice_of(o->bytes + o->entries[i].key_offset, o->entries[i].key_size);
}
static inline rw_slice version_overlay_value(const version_overlay *o, unsigned i)
{
    return rw_slice_of(o->bytes + o->entries[i].value_offset, o->entries[i].value_size);
}
void version_overlay_free(version_overlay *overlay);

/* ---- any thread -------------------------------------------------------------------------------------------------- */

uint64_t versions_count(const versions *v);
static inline uint64_t versions_bytes(const versions *v) { return frame_heap_bytes(&v->heap); }

#endif
