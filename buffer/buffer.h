/*
 * The face of buffer/: frames in one arena, their versions, clock eviction, write-back. See README.md for the invariants (B1..).
 *
 * This part does not know what is inside a page: page_ops, given by btree/, says how a page's image is made and how a parent forgets a child.
 */
#ifndef RW_BUFFER_H
#define RW_BUFFER_H

#include "base/base.h"
#include "buffer/partition.h"
#include "kernel_io/kernel_io.h"
#include "store/store.h"

#define FRAME_NONE UINT32_MAX

enum {
    FRAME_DIRTY = 1,       /* differs from what `disk` names, or a page below it does */
    FRAME_WRITING = 2,     /* what `disk` names is still on its way to the file */
    FRAME_RESHAPED = 4     /* its key range changed since `disk` was written */
};

/* Read for a single use, which does not count: who comes back for a page makes it worth more than the many that nobody does. */
#define FRAME_FRESH UINT8_MAX

typedef struct frame {
    /* any thread; in words of their own, since a compiler may read neighbours together */
    _Atomic uint64_t version;          /* odd: being changed, or free */
    _Atomic uint8_t cool;              /* how often the clock came by since the page was used, who clears it; or FRAME_FRESH */
    _Atomic uint16_t partition;        /* PARTITION_NONE: free, or not yet installed. Read by the clock without the token, checked under it */
    _Atomic uint32_t free_next;
    /* holder of the partition's token; level is also read by optimistic readers, under the version */
    uint8_t level;
    uint8_t flags;
    uint16_t resident_children;
    uint32_t parent;                   /* frame; FRAME_NONE: root of its partition */
    uint32_t dirty_previous, dirty_next;
    uint32_t dirty_epoch;              /* the partition's epoch when it became dirty */
    page_ref disk;                     /* its newest image; none: never written */
} RW_ALIGNED(64) frame;

_Static_assert(sizeof(frame) == 64, "one cache line for each frame");

typedef struct pool pool;

typedef struct {
    /* Copies the page in frame f to `to` (page_size bytes) as it goes to disk, with children as disk references, sealed for address.
     * scratch: page_size bytes. *dirty_below: a resident child is dirty, so the page must stay so too. */
    page_ref (*image)(pool *p, uint32_t f, void *to, void *scratch, uint64_t address, bool *dirty_below);
    /* The parent of f forgets that f is resident, and names ref instead. */
    void (*detach)(pool *p, uint32_t f, page_ref ref);
    /* Appends to list (room for max) the frames that must be written so that f can be, f last, children first. Returns how many; when it
     * runs out of room, what fits, never a page before its children. */
    uint32_t (*gather)(pool *p, uint32_t f, uint32_t *list, uint32_t max);
} page_ops;

typedef struct {
    RW_ALIGNED(64) _Atomic uint64_t pages_read, pages_written, pages_evicted;
} pool_counters;

#define POOL_LOADS 1024u

struct pool {
    /* set at open */
    kio *kio;
    store *store;
    const page_ops *ops;
    unsigned char *arena;
    frame *frames;
    partition *partitions;             /* RW_PARTITIONS_MAX of them */
    size_t arena_bytes, frames_bytes;
    uint32_t page_size, page_blocks;
    uint32_t frame_count;
    uint32_t free_low, free_high;      /* eviction begins below low and ends at high */
    uint32_t populate_step;            /* frames that get memory at once */
    void (*need_frames)(void *arg);    /* wakes the workers */
    void *need_frames_arg;
    /* any thread, atomic */
    RW_ALIGNED(64) _Atomic uint64_t free_head;     /* frame + 1, with a tag in the upper half against reuse races */
    _Atomic uint32_t free_count;
    RW_ALIGNED(64) _Atomic uint32_t free_word;     /* raised when frames come free; slept on by those who wait for one */
    _Atomic uint32_t free_waiters;
    _Atomic uint32_t hand;
    _Atomic int write_error;           /* a write-back failed: final, nothing dirty is evicted any more */
    _Atomic int space_error;           /* the last try to place dirty pages found no space; 0 after one that did */
    _Atomic uint32_t dirty_count;
    _Atomic uint64_t lent;             /* frames of all frame_heaps */
    RW_ALIGNED(64) _Atomic uint32_t populated;     /* frames below it have memory, or a worker gets it for them now */
    _Atomic uint32_t populate_wanted;  /* so many should have */
    pool_counters counters;
    _Atomic uint64_t loads[POOL_LOADS];            /* addresses being read, so that a page is read once; 0: none */
    _Atomic uint32_t load_word, load_waiters;
    /* under landed_mutex, which comes after tokens: batches that were written, whose pages wait for tokens to be let go. Their entries are under it, too */
    kio_mutex landed_mutex;
    struct write_batch *landed;
    /* under emergency_mutex: for those who must evict while they hold tokens */
    kio_mutex emergency_mutex;
    struct write_batch *emergency;
};

static inline void *pool_page(const pool *p, uint32_t f)
{
    return p->arena + (size_t)f * p->page_size;
}

/* cache_bytes is all that frames, their headers may take. */
int pool_open(pool *p, kio *k, store *s, const page_ops *ops, partition *partitions, uint32_t page_size, uint64_t cache_bytes);
void pool_close(pool *p);

/* ---- versions (optimistic reads) --------------------------------------------------------------------------------- */

/* The version to check against later; odd: the page is being changed, begin again. */
static inline uint64_t frame_version(const frame *f)
{
    return atomic_load_explicit(&f->version, memory_order_acquire);
}

static inline bool frame_unchanged(const frame *f, uint64_t version)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&f->version, memory_order_relaxed) == version;
}

static inline void frame_use(frame *f)
{
    uint8_t cool = atomic_load_explicit(&f->cool, memory_order_relaxed);
    if (RW_UNLIKELY(cool != 0)) atomic_store_explicit(&f->cool, cool == FRAME_FRESH, memory_order_relaxed);
}

/* Token holders only. */
static inline void frame_change_begin(frame *f)
{
    uint64_t v = atomic_load_explicit(&f->version, memory_order_relaxed);
    RW_ASSERT((v & 1) == 0);
    atomic_store_explicit(&f->version, v + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static inline void frame_change_end(frame *f)
{
    uint64_t v = atomic_load_explicit(&f->version, memory_order_relaxed);
    RW_ASSERT((v & 1) == 1);
    atomic_store_explicit(&f->version, v + 1, memory_order_release);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

/* A free frame, its version odd; FRAME_NONE when there is none at the moment. */
uint32_t pool_frame_try(pool *p);
/* Waits for one. Never while holding a token (B6). RW_ENOSPC or RW_EIO when none can come free because dirty pages cannot be written. */
int pool_frame_take(pool *p, uint32_t *f);
/* Why none can come free at the moment: RW_ENOSPC or RW_EIO; 0: they can. */
int pool_frames_error(pool *p);
/* For holders of tokens: evicts pages of the partitions held, itself, when there is nothing free. */
int pool_frame_take_holding(pool *p, const partition_set *held, uint32_t *f);
/* For workers: gets memory for frames that will be taken next, a step of it. False: there is enough. */
bool pool_populate(pool *p);
/* Gives a frame back; its version is odd, and it is in no list and named by no page. */
void pool_frame_free(pool *p, uint32_t f);

/* ---- dirty pages (token holder) ---------------------------------------------------------------------------------- */

/* Marks a page and all above it (B3). */
void pool_mark_dirty(pool *p, partition *part, uint32_t f);
/* Takes a page off the dirty list, because it is being dropped or was written. */
void pool_mark_clean(pool *p, partition *part, uint32_t f);
/* After pages were put under another partition (their frames' partition was set): moves those on from's dirty lists that are to's now. */
void pool_dirty_move(pool *p, partition *from, partition *to);

/* ---- reading pages ----------------------------------------------------------------------------------------------- */

/* Claims the reading of a page. false: another thread was reading it, and has finished: look again. */
bool pool_load_begin(pool *p, uint64_t address);
/* The same without waiting. false: another thread is reading it. */
bool pool_load_try(pool *p, uint64_t address);
void pool_load_end(pool *p, uint64_t address);

/* ---- write-back -------------------------------------------------------------------------------------------------- */

typedef struct write_batch {
    kio_op op;                 /* context: the batch */
    void *buffer;              /* RW_WRITE_BATCH_BYTES, block-aligned */
    void *scratch;             /* a page */
    uint32_t *frames;          /* what it holds, in order */
    uint32_t count, capacity;
    uint32_t places;           /* that were allocated for its pages */
    store_stream stream;       /* in which its pages are placed; STORE_PAGES unless its owner says otherwise */
    uint64_t address;          /* blocks, of the first */
    partition *partition;
    uint32_t epoch_slot;       /* of the partition's writes_in_flight */
    bool in_flight;            /* its owner's: until it is finished */
    bool landed;               /* its owner's: op was reaped */
    bool is_listed;            /* its owner's: among the pool's landed ones */
    struct write_batch *next_landed;
} write_batch;

/* pages_max: how many pages it may hold at most. Pages in flight cannot be evicted by those who hold tokens, so all batches together must leave
 * them most of the frames. */
int write_batch_init(write_batch *batch, uint32_t page_size, uint32_t pages_max);
void write_batch_destroy(write_batch *batch);
/* Under the token: allocates space for pages of part, copies their images, retires what they replace, and sets op up. Takes the first ones of frames,
 * as many as the open segment has room for; those are clean then, and FRAME_WRITING. RW_ENOSPC: nothing was changed. */
int write_batch_fill(pool *p, write_batch *batch, partition *part, const uint32_t *frames, uint32_t count);
/*
 * The same a little at a time, for who would hold the token for long: copying a page and making its image takes longer than a put. Begin and add under the token; it may be let go in between, for others, and only tried
 * for after that: who has it may wait for frames that the batch holds (B6). Close without it, or with it, once there is a page.
 */
int write_batch_begin(pool *p, write_batch *batch, partition *part, uint32_t count);
/* Returns how many of the first ones it took: what it has places for. */
uint32_t write_batch_add(pool *p, write_batch *batch, const uint32_t *frames, uint32_t count);
/* Lets others have the token for a moment. False: it is somebody else's now. */
bool write_batch_yield(pool *p, const write_batch *batch);
void write_batch_close(pool *p, write_batch *batch);
/* When op was reaped: takes the tokens it needs itself. The pages may be evicted now; evict: those that are still cool and clean are. After a
 * failed write nothing is: the pool evicts dirty pages no more, and the error is kept. Without wait, false: a token was taken, call again. */
bool write_batch_finish(pool *p, write_batch *batch, bool evict, bool wait);

/* ---- eviction ---------------------------------------------------------------------------------------------------- */

/* One eviction step of a worker: turns the clock, evicts what is cool and clean, fills idle batches with what is cool and dirty. Returns the number of
 * batches filled, to be submitted. Never blocks: partitions whose token is taken are passed over. pressed: a whole turn has found nothing, so inner pages are spared less. */
#define POOL_EVICT_SCAN 4096u          /* frames the hand passes in one step */
unsigned pool_evict_step(pool *p, write_batch *batches, unsigned batch_count, bool pressed);
static inline bool pool_wants_eviction(const pool *p)
{
    return atomic_load_explicit(&p->free_count, memory_order_relaxed) < p->free_high;
}

#endif
