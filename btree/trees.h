/*
 * The face of btree/: the ordered map over all partitions. See README.md for the rules (T1..).
 *
 * Reads (trees_get, trees_copy_leaf) take no token, and of cached leaves write nothing shared (T1). Everything that changes a tree is called with the token of its
 * partition held, and never waits: what needs a page that is not in the cache returns TREE_MISS, what needs frames returns TREE_FRAMES, having
 * changed nothing that matters; the caller lets the token go, does what is missing, and begins again.
 */
#ifndef RW_TREES_H
#define RW_TREES_H

#include "btree/filters.h"
#include "btree/hints.h"
#include "btree/key_filter.h"
#include "btree/node.h"
#include "btree/pending.h"
#include "btree/recall.h"
#include "btree/records.h"
#include "btree/router.h"
#include "buffer/buffer.h"

typedef enum {
    TREES_COVERING,            /* the leaf whose range holds key */
    TREES_BEFORE               /* the leaf whose range holds the keys just below key; an empty key: the last leaf */
} trees_side;

/* Where a copy of a leaf comes from, and when; and where a walk in the same direction may find the next one. Zeros: nothing is known. */
typedef struct {
    uint32_t frame;
    uint64_t version;
    uint32_t parent;           /* + 1: the frame that named it, at this slot */
    unsigned slot;
    uint32_t next;             /* + 1: the frame of its neighbour. Like a hint it is believed in nothing (T11) */
    trees_side side;           /* where the walk goes */
    uint32_t leaves;           /* that it has come by */
    uint32_t runs;             /* how often leaves of it were missing */
} trees_mark;

typedef enum { KEY_LEARNING_REST, KEY_LEARNING_EMPTY, KEY_LEARNING_BEFORE, KEY_LEARNING_WALK, KEY_LEARNING_AFTER } key_learning_stage;

/* How far the filter of all keys is made. */
typedef struct {
    _Atomic uint32_t allowed;  /* the database is open */
    void (*wake)(void *arg);   /* that thread; set before it is allowed */
    void *wake_arg;
    /* the thread that calls trees_learn_keys */
    key_learning_stage stage;
    size_t at;                 /* words emptied, tokens passed */
    uint64_t state;            /* of the filter, by this thread's own last turn */
    uint64_t began_ns, retry_at_ns, retry_ns;
    unsigned char *key;        /* the walk goes on there */
    size_t key_size;
    node *page;
    trees_mark mark;
} key_learning;

typedef struct trees {
    kio *kio;
    store *store;
    uint32_t page_size;
    bool read_only;            /* set by the engine: what spills hold for a leaf is made in memory, again and again */
    bool recovering;           /* set by the engine while it replays the log: no records move between existing leaves then (T8) */
    pool pool;
    key_hints hints;
    key_filter key_filter;
    key_learning learning;
    filters filters;
    pending pending;
    record_cache records;
    router router;
    partition partitions[RW_PARTITIONS_MAX];
    _Atomic uint32_t partitions_used;      /* those ever used since the open lie below it */
    _Atomic uint64_t restarts;
    _Atomic uint32_t run_frames;           /* that leaves read side by side for walks hold */
    _Atomic uint32_t walk_length[2];       /* for each trees_side: leaves of the walks that had to read some, lately; in parts */
    kio_mutex split_mutex;     /* held by the one who, without tokens, splits a leaf while it comes in: so few frames lie idle for that */
} trees;

/* Results besides 0 and RW_E codes. */
enum { TREE_MISS = 1, TREE_FRAMES = 2, TREE_BUSY = 3 };

int trees_open(trees *t, kio *k, store *s, uint32_t page_size, uint64_t cache_bytes);
void trees_close(trees *t);

/* ---- partitions -------------------------------------------------------------------------------------------------- */

/* A new partition, its root an empty leaf without fences: the first of a new database. */
int trees_create_first(trees *t, uint32_t id);
/* A partition of an existing database: reads its root page. */
int trees_adopt(trees *t, const store_partition *image);
/* Salvage, read-only: an empty partition in the place of one whose root cannot be read, up to high (empty: the last one). */
int trees_adopt_lost(trees *t, const store_partition *image, rw_slice high);
/* About how many pages a partition's tree has, under its token; exact when there are one or two levels. */
uint64_t trees_pages(trees *t, partition *p);
/* The partition that key belongs to, its token taken. */
partition *trees_lock(trees *t, rw_slice key);
/* The same without waiting. NULL: it is taken, or was while its bounds were changed. */
partition *trees_try(trees *t, rw_slice key);
static inline void trees_unlock(trees *t, partition *p) { partition_unlock(t->kio, p); }
/* Whether a partition whose token is held covers key. */
bool trees_covers(trees *t, const partition *p, rw_slice key);

/*
 * Cuts a partition in two at its root, under its token: costs no page, moves no record. Needs a frame from writer's reserve (TREE_FRAMES). *created: the new
 * one (right half), its token held by the caller. RW_ENOTFOUND: its root is a leaf, or there is no free partition.
 */
struct tree_writer;
int trees_partition_split(struct tree_writer *w, partition *p, uint32_t new_id, partition **created);
/* Joins right, one empty leaf, to its left neighbour, both tokens held. TREE_MISS: a page of left's right edge is missing; RW_ENOTFOUND: one has no
 * room for the other fence, or pages of right are still being written. Nothing was changed then. */
int trees_partition_join(struct tree_writer *w, partition *left, partition *right, tree_miss *miss);

/* ---- reads ------------------------------------------------------------------------------------------------------- */

/* What a leaf said of a key besides the value's bytes. */
typedef struct {
    bool found, fits, is_extent;
    bool denied;               /* not found, says the filter of all keys: at some moment during the call. Nothing else is set */
    uint16_t partition;        /* that the leaf belonged to when it was read */
    uint64_t timestamp;        /* the leaf's newest, if asked for: it stands in a cache line of its own; or TREES_TIMESTAMP_UNKNOWN */
    size_t size;               /* of the value */
    extent_ref extent;
} tree_value;

/* A filter has answered for the leaf: it may have changed at any time. */
#define TREES_TIMESTAMP_UNKNOWN UINT64_MAX

enum {
    TREES_TIMESTAMP = 1,       /* of the leaf */
    TREES_LEAF = 2,            /* the leaf itself is to be read, no filter may answer for it */
    TREES_NEWEST = 4           /* the filter of all keys may answer, too: it knows neither timestamps nor the past */
};

/*
 * Copies the newest value of key to buf, if it fits room bytes. A large value is not read: seen->extent says where it is. 0 also when nothing was found: seen
 * tells. A missing page is read, or, if miss is not NULL, put there with TREE_MISS as the result. RW_ECORRUPT, RW_EIO.
 */
int trees_get(trees *t, rw_slice key, void *buf, size_t room, unsigned wanted, tree_value *seen, tree_miss *miss);

/* What hints are found by; for those who need it more than once. */
static inline uint64_t trees_hash(rw_slice key) { return hints_hash(key); }
/* For several keys: fetches from memory what each needs first, then what its hint names, for a get or for a change; so that they wait together. */
typedef enum { TREES_AHEAD_HINT, TREES_AHEAD_LEAF, TREES_AHEAD_CHANGE } trees_ahead;
void trees_get_ahead(trees *t, rw_slice key, trees_ahead step);
void trees_get_ahead_hashed(trees *t, uint64_t hash, trees_ahead step);

/* ---- the filter of all keys (T18) ---- */

int trees_learn_open(trees *t);
void trees_learn_close(trees *t);
/* The database is open: from now on the filter may be made. */
void trees_learn_allow(trees *t);
/* A small step of making the filter, by one thread, which waits for nothing. When it wants to be called again, ns from now; < 0: once it is woken. */
int64_t trees_learn_keys(trees *t);
/* Any thread: an absent key was asked for, at the price of a descent. */
void trees_learn_want(trees *t);

/* Brings the leaf that covers key into the cache, for use soon; or, with miss, says what is missing for that. */
int trees_touch(trees *t, rw_slice key, tree_miss *miss);

/* A validated private copy of a leaf, to be read with the node_ functions at leisure. page: page_size bytes. mark: that of the copy before, or zeros, or NULL. miss: as
 * for trees_get. */
int trees_copy_leaf(trees *t, rw_slice key, trees_side side, node *page, trees_mark *mark, tree_miss *miss);
/* After a copy: the page in the cache that a walk will probably want next, to be fetched from memory; NULL: none. */
const char *trees_walk_ahead(const trees *t, const trees_mark *mark);
/* No other leaf will be asked for with this mark. */
void trees_walk_end(trees *t, trees_mark *mark);
/* Salvage: where the page ends that cannot be read on the way to key: the first key behind it, of *size bytes, into end (room for the longest stored key); 0 bytes: it is the
 * last page. RW_ENOTFOUND: all pages on the way can be read. */
int trees_behind_damage(trees *t, rw_slice key, void *end, size_t *size);
/* Whether the leaf is unchanged since: the copy is as good as a new one. */
static inline bool trees_copy_is_current(const trees *t, trees_mark mark)
{
    return frame_unchanged(&t->pool.frames[mark.frame], mark.version);
}

/*
 * Reads a missing page and hangs it into its tree. 0 also when another thread has done it, or when it is not missing any more. Without a token the
 * page may have moved since the miss, and its old place may hold something else by now: what reads as damaged, or not at all, is therefore noted in *suspect (at
 * first page_ref_none) with 0 as the result, and is an error only if the tree still names it, that is, when it comes a second time.
 */
int trees_load(trees *t, const tree_miss *miss, page_ref *suspect);

/* A page on its way into the cache for somebody who does not wait for it. */
typedef struct {
    tree_miss miss;
    uint32_t frame;            /* FRAME_NONE, in the end: it was not hung in */
    bool checked;
} tree_read;
/* Claims the reading of a page and a frame for it. TREE_FRAMES: there is no free frame; TREE_BUSY: somebody else is reading the page. */
int trees_read_claim(trees *t, const tree_miss *miss, tree_read *read);
/* The same, and sets up op, all but its context. */
int trees_read_begin(trees *t, const tree_miss *miss, tree_read *read, kio_op *op);
/* After the page was read into its frame, or result, an error, came instead: checks the page and hangs it in, if it is still missing. TREE_BUSY: the token of its partition is
 * taken, call again. TREE_FRAMES: it was not hung in, because what waits for it may need it split; trees_load has what that takes. */
int trees_read_end(trees *t, tree_read *read, int result);
/* For a page that was read elsewhere, to bytes: brings it into its frame and checks it, without a token, ahead of the next. */
int trees_read_check(trees *t, tree_read *read, const void *bytes, int result);
/* As trees_read_end, for a page that was read elsewhere, to bytes, in order to be changed and written; checked already or not: waits for the token, splits the leaf and makes room above it where that is needed.
 * The page is among the next that the clock takes. */
int trees_read_end_changing(trees *t, tree_read *read, const void *bytes, int result, struct tree_writer *w);

/* As trees_load, for a page whose bytes the caller has read already. */
int trees_load_bytes(trees *t, const tree_miss *miss, const void *bytes, page_ref *suspect);
/* As trees_load, for who holds the tokens of held, p's among them. What reads as damaged is. With nothing free the page goes to a frame of w's reserve:
 * all other pages may be under tokens whose holders wait for one of held, so those that this holder can evict must be enough to work with. */
int trees_load_holding(struct tree_writer *w, partition *p, const partition_set *held, const tree_miss *miss);

/* ---- changes, under the token ------------------------------------------------------------------------------------ */

typedef struct {
    uint32_t leaf;             /* frame */
    unsigned slot;             /* where key is, or would go */
    bool found;
    bool hinted;               /* the key's hint says just this, and need not be written again as long as the record stays where it is */
    uint64_t hash;             /* of the key */
    uint64_t version;          /* of the leaf, for tree_find_again */
} tree_position;

/* Finds key's place. 0 or TREE_MISS. */
int tree_find(trees *t, partition *p, rw_slice key, tree_position *at, tree_miss *miss);
/* After TREE_MISS for key: whether the missing leaf's filter says that it is not there. */
bool tree_denies(trees *t, const partition *p, rw_slice key, const tree_miss *miss);
/* The same for who has the key's hash at hand. */
int tree_find_hashed(trees *t, partition *p, rw_slice key, uint64_t hash, tree_position *at, tree_miss *miss);
/* The same for who has found the position before, and let go of the token, or made changes, since: cheap where it still holds. leaf FRAME_NONE: it was not found yet. */
bool tree_found_before(trees *t, const partition *p, rw_slice key, tree_position *at);
static inline int tree_find_again(trees *t, partition *p, rw_slice key, tree_position *at, tree_miss *miss)
{
    return at->leaf != FRAME_NONE && tree_found_before(t, p, key, at) ? 0 : tree_find_hashed(t, p, key, at->hash, at, miss);
}
/* Whether a put there needs tree_make_room first. */
bool tree_has_room(trees *t, const tree_position *at, rw_slice key, size_t value_length);
/* Bytes that a put there adds to its leaf at most; and how many the leaf has left. */
size_t tree_growth(trees *t, const tree_position *at, rw_slice key, size_t value_length);
size_t tree_room(trees *t, uint32_t leaf);
/* The value of a key that was found, in the page. *flags: NODE_SLOT_EXTENT: it is an extent_ref. */
rw_slice tree_value_at(trees *t, const tree_position *at, unsigned *flags);
/* Beside NODE_SLOT_EXTENT in the flags of a put, alone in those of a delete: a replaced extent is not retired, somebody else sees to it. */
#define TREE_KEEP_EXTENT 0x10000u
/* Puts or replaces; there is room. A replaced extent is retired. timestamp: the commit's LSN. */
void tree_put_at(trees *t, partition *p, const tree_position *at, rw_slice key, rw_slice value, unsigned flags, uint64_t timestamp);
/* Removes a key that was found. Its extent is retired. */
void tree_delete_at(trees *t, partition *p, const tree_position *at, rw_slice key, unsigned flags, uint64_t timestamp);
/* The extent that a found key names; false: the value is inline. */
bool tree_extent_at(trees *t, const tree_position *at, extent_ref *extent);
/* Called for each record before it is removed. true: its extent is not to be retired. */
typedef bool (*tree_removed_fn)(void *arg, partition *p, rw_slice key, rw_slice value, unsigned flags);
/* Removes all keys of one leaf in [from, to) (to.size 0: no end). next->next: the leaf's upper fence, copied to next->buffer (a key's room), size 0: last leaf of the
 * partition. */
typedef struct {
    unsigned char *buffer, *key;       /* room for a key each; key is scratch */
    rw_slice next;
    tree_removed_fn removed;           /* or NULL */
    void *arg;
} tree_range_walk;
int tree_delete_in_leaf(trees *t, partition *p, rw_slice from, rw_slice to, uint64_t timestamp, tree_range_walk *walk, tree_miss *miss);
uint64_t tree_leaf_timestamp(trees *t, uint32_t leaf);
/* Whether the leaf is so empty that tree_shrink is worth calling. */
bool tree_wants_shrink(trees *t, uint32_t leaf);

/* What structure changes need: frames at hand, and scratch. Made for an operation that met TREE_FRAMES; kept and used again. */
typedef struct tree_writer {
    trees *t;
    uint32_t reserve[16];
    unsigned reserved, target; /* how many tree_writer_fill brings it to */
    node_split plan;
    unsigned char *scratch;    /* 2 pages */
    leaf_recall *recall;               /* for leaves that are read to be changed: or NULL */
} tree_writer;

int tree_writer_open(trees *t, tree_writer **out);
void tree_writer_close(tree_writer *w);
/* Fills the reserve: without tokens held; or with those of held (then it may evict their
 * pages: positions are void). */
int tree_writer_fill(tree_writer *w);
int tree_writer_fill_holding(tree_writer *w, const partition_set *held);

/* Splits the page above the leaf that covers key, so that it has room for more children. TREE_FRAMES, TREE_MISS as below. */
int tree_make_room_above(tree_writer *w, partition *p, rw_slice key, tree_miss *miss);
/* Splits until the leaf for key has room. at: where key was found before, as for tree_find_again; in the end where it is now. TREE_FRAMES, TREE_MISS never leave a half-done split. */
int tree_make_room(tree_writer *w, partition *p, rw_slice key, size_t value_length, tree_position *at, tree_miss *miss);
/* Merges the leaf that covers key, and what is above it, with neighbours as long as they are too empty. TREE_MISS: a neighbour had to be read;
 * worth trying again, but never a must. Not during recovery: a merged leaf would claim commits that its left half still waits for (T8). */
int tree_shrink(tree_writer *w, partition *p, rw_slice key, tree_miss *miss);
/*
 * Takes into a resident leaf that is about to be written its right neighbour, if that is to be written too, and nobody uses it, and it fits, with a tenth of the leaf left free, or a hundredth in a partition that does not grow. fill: if it
 * does not fit, as much of it as does, for who will fill what is left of the neighbour from the next one. True: the neighbour is no more; there may be another. Costs the copying of two pages.
 */
bool tree_pack(tree_writer *w, partition *p, uint32_t leaf, bool fill);
/* The right neighbour of a leaf, if that was never written and nobody uses it: what a leaf was split into on its way in, for one. Or FRAME_NONE. */
uint32_t tree_unwritten_neighbour(trees *t, uint32_t leaf);

/* If the tree names the copy of a page at `address` (its level and lower fence are known), makes the page dirty, so that its next image goes
 * elsewhere. 0 also when it names it no more; TREE_MISS. */
int tree_move(trees *t, partition *p, rw_slice lower, unsigned level, uint64_t address, tree_miss *miss);

/* Makes every resident page below the root's child at slot dirty: for a checkpoint that would write most of the partition anyway, so that its old
 * segments die whole. False: there is no such child. */
bool tree_dirty_below(trees *t, partition *p, unsigned slot);
/* What the parent of the leaf that covers key names, under the token: a page on disk, or a frame; the root's frame, if that is the leaf. 0, or TREE_MISS: the parent is missing. */
int tree_leaf_named(trees *t, partition *p, rw_slice key, page_ref *leaf, tree_miss *miss);
/* All leaves contain all spills: their references speak of none any more. TREE_MISS: an inner page is missing, nothing was changed. Looks at all references to leaves. */
int tree_spills_forget(trees *t, partition *p);
/* Pages below resident ones that are not resident themselves, under the token: leaves, or those above leaves; at most max, in key order. Returns how many. */
uint32_t tree_missing(trees *t, partition *p, bool leaves, tree_miss *missing, uint32_t max);

/* ---- images ------------------------------------------------------------------------------------------------------ */

/* What a parent's image and eviction need of nodes: given to the pool. */
extern const page_ops tree_page_ops;

/* Checks the resident part of a partition's tree under its token: fences, levels, parents, dirty flags. 0 or RW_ECORRUPT. */
int tree_check_resident(trees *t, partition *p);
unsigned tree_height(trees *t, const partition *p);

#endif
