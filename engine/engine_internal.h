/* Between the files of engine/: the database object and who may touch what in it. */
#ifndef RW_ENGINE_INTERNAL_H
#define RW_ENGINE_INTERNAL_H

#include "btree/trees.h"
#include "engine/engine.h"
#include "engine/fetch.h"
#include "txn/locks.h"
#include "txn/snapshots.h"
#include "txn/versions.h"
#include "txn/write_set.h"
#include "wal/wal.h"

#define ENGINE_WRITERS 16u
#define WORKER_BATCHES 4u
#define EXTENT_STAGING_BYTES ((size_t)256 << 10)
#define CATALOG_BUCKET 0u                  /* holds the names of buckets; not open to users */

typedef struct engine engine;

/* A worker: evicts and writes back ahead of demand, and reads pages for queues. */
typedef struct {
    engine *e;
    kio_thread *thread;
    kio_ring *ring;                        /* the worker's own; woken by others */
    write_batch batches[WORKER_BATCHES];
    fetcher fetcher;
    int error;                             /* of its start */
    _Atomic uint32_t ready;                /* 1: it runs, 2: it could not start, 3: it may close its ring */
} worker;

#define PUBLISH_BLOCKS 4096u               /* that wait for a superblock before one is published, between several images */
#define CHECKPOINT_RING_DEPTH 17u          /* sixteen reads and a write */

typedef struct {
    kio_thread *thread;
    _Atomic uint32_t word;                 /* raised to wake it */
    _Atomic uint32_t done_word;            /* raised when a round was finished */
    _Atomic uint64_t requested;            /* rounds asked for */
    _Atomic uint64_t finished;             /* rounds done */
    _Atomic uint64_t compactions_requested, compactions_finished;
    _Atomic uint32_t stop;
    /* its thread's only */
    tree_writer *writer;
    write_batch batch;
    kio_ring *ring;                        /* bulk reads and writes; NULL: whoever has any opens one */
    unsigned char *segment;                /* a segment's bytes, for cleaning and bulk reads */
    unsigned char *key_buffers;            /* room for two keys */
    uint32_t next_partition_id;
    uint64_t partition_bytes_few;          /* instead of options.partition_bytes while there are few partitions, so that writers seldom meet in one */
    bool end_is_new;                       /* something was published since the file's end was looked at: it may come free */
    bool grows_ahead;                      /* the data file, while batches are written; not where it is to become short */
    bool unpublished;                      /* images were made that no superblock names yet */
    uint64_t spilled_ns;                   /* when there was a spill last */
    uint64_t unreadable_ns;                /* when cleaning met something that cannot be read; 0: it did not since it last began anew */
    bool logged_again;                     /* the last flush met leaves that cannot be read */
    partition_set merges_wanted;           /* partitions with spills in segments that are to be emptied */
    uint32_t cleaning_stuck;               /* segments that cleaning could not empty */
    uint64_t garbage_unwinnable;           /* dead bytes that the last cleaning left, because no segment was worth it */
    bool sparse;                           /* the last look found segments that are half empty */
    bool space_turn;                       /* the last step was for dead space before all else */
    /* any thread, atomic */
    _Atomic uint64_t checkpoint_lsn;       /* of the newest superblock */
    _Atomic uint64_t published, cleaned, rewritten;
    _Atomic uint32_t flush_frames;         /* that bulk reads hold */
    _Atomic uint32_t idle;                 /* the thread sleeps, or is about to */
    _Atomic int64_t pend_debt_ns;          /* waiting that writers owe because of pending writes */
    _Atomic uint32_t space_behind;         /* 1: much of the file is dead, cleaning does not keep up: writers wait a little */
    _Atomic int last_error;                /* of the last round */
    char last_error_text[256];             /* written before last_error, by its thread */
} checkpointer;

/* A commit of several operations while it is applied: nobody sees any of it before all is there. Changed by the holder of the partition's token. */
typedef struct {
    RW_ALIGNED(64) _Atomic uint64_t begin, end;    /* its log positions; begin 0: there is none */
    _Atomic bool keeps_old;                /* readers find what it replaces in the version store */
    _Atomic uint32_t word, waiters;        /* raised when it is visible */
} apply_slot;

/* Striped, so that threads do not meet. */
#define TXN_COUNTERS 8u
typedef struct {
    RW_ALIGNED(64) _Atomic uint64_t committed, aborted, conflicted;
} txn_counters;

#define BUCKET_LIVE UINT64_MAX

/* Which bucket ids are in use: changed under the mutex, and read by anyone. */
typedef struct {
    kio_mutex mutex;
    _Atomic uint32_t next_id;
    _Atomic uint32_t count;
    _Atomic uint64_t *until;               /* for each id: BUCKET_LIVE; the timestamp of the commit that dropped it since the open, which snapshots before it do not see; 0: never was */
} bucket_table;

struct engine {
    /* set at open */
    kio *kio;
    bool kio_owned;
    bool read_only;
    struct salvage *salvage;               /* NULL, unless opened by db_open_salvage: what cannot be read is passed over. Gone after the open */
    rw_options options;                    /* as in effect */
    char *dir;
    kio_lock *lock;                        /* NULL: none yet, or for a reader where there is no lock file and he may not make one */
    store *store;
    wal *wal;
    uint64_t database_id;
    uint32_t page_size;
    uint32_t key_max;                      /* of a user's key */
    trees trees;
    worker *workers;
    unsigned worker_count;
    checkpointer checkpointer;
    bucket_table buckets;
    snapshots snapshots;
    versions versions;
    locks *locks;
    apply_slot apply_slots[RW_PARTITIONS_MAX];     /* each that of the commit which has this partition first */
    txn_counters txn_counters[TXN_COUNTERS];
    RW_ALIGNED(64) _Atomic uint64_t rewrites;      /* commits that changed some key more than once, raised before they become visible */
    uint64_t recovery_records, recovery_ns;
    bool replay_pends;                 /* during recovery: a put whose leaf is on disk may wait for it */
    /* any thread */
    _Atomic uint32_t evicting;             /* the workers were told that frames are wanted */
    _Atomic uint32_t workers_stop;
    _Atomic uint32_t fetch_frames;         /* that reads of all workers hold; at most a FETCH_SHAREth of all */
    _Atomic int failure;                   /* why the database takes no writes any more; 0: it does */
    kio_mutex failure_mutex;
    char failure_text[256];                /* under failure_mutex */
    _Atomic uint64_t next_txn_id;
    _Atomic uint32_t children;             /* open batches, transactions, cursors, queues */
    /* under writers_mutex */
    kio_mutex writers_mutex;
    tree_writer *writers[ENGINE_WRITERS];  /* idle ones */
    unsigned writer_count;
    unsigned writers_out, writers_waiting; /* those that operations hold; operations that wait for one */
    /* any thread */
    _Atomic uint32_t writers_word;         /* raised when one was given back */
};

/* ---- handles (handle.c) ------------------------------------------------------------------------------------------ */

/* What every public call begins with: 0 and the engine, or RW_EINVAL, RW_ECLOSED, RW_EFORK. */
struct rw_db {
    _Atomic(engine *) engine;              /* NULL: closed */
    uint32_t generation;                   /* of the process that made it */
    struct rw_db *next;
};
extern _Atomic uint32_t handle_generation; /* another one in each forked child */
static inline bool handle_is_of_this_process(uint32_t generation)
{
    return generation == atomic_load_explicit(&handle_generation, memory_order_relaxed);
}
/* Whether it came into this process by a fork. */
static inline bool handle_is_inherited(const rw_db *db)
{
    return !handle_is_of_this_process(db->generation);
}
int engine_of(rw_db *db, engine **e);
/* The same for calls that write: also RW_EREADONLY. */
int engine_of_writer(rw_db *db, engine **e);
/* Turns the database read-only for good; the first reason counts. */
void engine_fail(engine *e, int code, const char *reason);
int engine_write_allowed(engine *e);
rw_db *handle_make(engine *e);
engine *handle_close(rw_db *db);

/* ---- keys and buckets (keys.c, bucket.c) ------------------------------------------------------------------------- */

/* A key with its bucket in front, on the stack of the caller when it is short. */
typedef struct {
    rw_slice slice;
    unsigned char *heap;
    unsigned char small[96];
} stored_key;

/* Checks bucket and key; on success key_free must follow. */
int key_make(engine *e, rw_bucket bucket, rw_slice key, stored_key *out);
/* The same for a read of a snapshot of that moment (SNAPSHOT_NEWEST: of now). */
int key_make_at(engine *e, rw_bucket bucket, uint64_t moment, rw_slice key, stored_key *out);
/* For bounds: an empty key is allowed (the bucket's beginning), or, with after, the first key behind the bucket. */
int key_make_bound(engine *e, rw_bucket bucket, uint64_t moment, rw_slice key, bool after, stored_key *out);
/* A stored key in words, for messages: quoted, what cannot be printed as \\xNN, the bucket's number when it is not the default one. */
#define KEY_TEXT_MAX 160
const char *key_text(rw_slice stored, char text[KEY_TEXT_MAX]);
static inline void key_free(stored_key *key)
{
    if (RW_UNLIKELY(key->heap != NULL)) free(key->heap);
}
int value_check(rw_slice value);
int bucket_check(engine *e, rw_bucket bucket);
int bucket_check_at(engine *e, rw_bucket bucket, uint64_t moment);
/* Whether a snapshot of that moment sees the bucket; with BUCKET_LIVE, whether it is there now. */
static inline bool bucket_seen(const _Atomic uint64_t *until, uint64_t moment)
{
    uint64_t end = atomic_load_explicit(until, memory_order_acquire);
    return end == BUCKET_LIVE || end > moment;
}
/* The commit that drops it, at timestamp, was applied and is about to become visible. */
void bucket_dropped(engine *e, rw_bucket bucket, uint64_t timestamp);
static inline rw_bucket bucket_of_stored(rw_slice key)
{
    return __builtin_bswap32(rw_load_u32(key.data));
}
/* bucket_check for a stored key, under its partition's token: a bucket that was dropped since the call began takes no more writes. */
static inline int bucket_check_stored(engine *e, rw_slice key)
{
    return bucket_check(e, bucket_of_stored(key));
}
int buckets_open(engine *e);
/* Salvage: a bucket of that number is there. False: it was known. */
bool bucket_adopt(engine *e, rw_bucket bucket);
void buckets_close(engine *e);
static inline void bucket_prefix_store(unsigned char *to, rw_bucket bucket)
{
    rw_store_u32(to, __builtin_bswap32(bucket));
}

/* ---- reading and writing (read.c, commit.c, apply.c) ------------------------------------------------------------- */

int engine_get(engine *e, rw_slice key, void *buf, size_t *size);
/* The same for who does not wait for pages: TREE_MISS says which. */
int engine_get_begin(engine *e, rw_slice key, void *buf, size_t *size, tree_miss *miss);
/* What a snapshot sees, or with SNAPSHOT_NEWEST what engine_get does; RW_ESNAPSHOT_TOO_OLD. */
int engine_get_at(engine *e, rw_slice key, uint64_t moment, void *buf, size_t *size);
/* Parts of a multi-get (multi_get.c): the arguments; one item, whose result is set unless TREE_MISS is returned (miss not NULL); the result of all. */
int multi_get_check(engine *e, rw_bucket bucket, rw_get_item *items, size_t count);
int multi_get_one(engine *e, rw_bucket bucket, rw_get_item *item, tree_miss *miss);
int multi_get_result(const rw_get_item *items, size_t count);
/* For snapshots_begin: the end of what is applied. Every commit that was acknowledged before the call lies below it. */
uint64_t engine_moment(void *engine);
/* Reads a large value (extent.length bytes) into buf, and checks it. */
int engine_extent_read(engine *e, rw_slice key, extent_ref extent, void *buf);

/* Commits operations given in WAL order. Keys are stored keys. RW_ENOTFOUND: one operation, a delete, and nothing was there. */
int engine_commit_one(engine *e, const wal_op *op, unsigned flags);
/* The same for who waits neither for pages (TREE_MISS), nor for locks (COMMIT_LOCKED), nor until it is durable, and has throttled himself. miss NULL: he reads pages
 * himself, and a large value is written; with miss it must be none. */
int engine_commit_begin(engine *e, const wal_op *op, tree_miss *miss, uint64_t *end_lsn);
/* Flag beside RW_ASYNC, for the engine's own commits: the catalog may be written, and a bucket that is being dropped. */
#define ENGINE_CATALOG 0x80000000u
/* Waits for no lock (COMMIT_LOCKED), and has throttled itself. */
#define ENGINE_NO_WAIT 0x40000000u
/* At least one operation. */
struct commit_body;
int engine_commit_many(engine *e, const struct commit_body *body, unsigned flags);
/* The same for a transaction: validated; its own locks are no hindrance. Does not wait until it is durable: *end_lsn is for engine_durable. */
struct transaction;
int engine_commit_txn(engine *e, const struct commit_body *body, unsigned flags, struct transaction *t, uint64_t *end_lsn);
/*
 * Decides, under the token, what becomes of a key: present or not, and its value (of an extent: the extent_ref). Fills op's kind and second, or returns an error,
 * which is then the result and nothing is changed.
 */
typedef struct {
    int (*decide)(void *arg, bool present, bool is_extent, rw_slice value, wal_op *op);
    void *arg;
} commit_condition;
int engine_commit_decided(engine *e, rw_slice key, const commit_condition *condition, unsigned flags);
/* For the version store, before a change at a position, under the token: flags for tree_put_at and tree_delete_at. */
unsigned engine_record(engine *e, partition *p, rw_slice key, uint64_t timestamp, const tree_position *at);
/* Whether recording what stands at a position, and `others` more like it, may need a frame first. */
bool engine_record_needs_frame(engine *e, const partition *p, rw_slice key, const tree_position *at, size_t others);
/* Value of a put, written to an extent when it is too long for a leaf: then *op becomes a PUT_EXTENT that points to *ref. */
int engine_place_value(engine *e, wal_op *op, extent_ref *ref);
void engine_unplace_value(engine *e, const wal_op *op);
/* Applies one operation with tokens held, waiting for pages where it must. before: where its key was found last, or NULL. lsn: the operation's own (record's + its
 * place in the body). */
int engine_apply(engine *e, tree_writer *w, const partition_set *held, partition *p, const wal_op *op, const tree_position *before, uint64_t lsn);
/* Recovery's, for one key, under its partition's token: 0, an error, or TREE_MISS, TREE_FRAMES, having changed nothing. So the token need not be held while pages and
 * frames are waited for: a worker that has written pages of this partition needs it to make them free. */
int engine_apply_try(engine *e, tree_writer *w, partition *p, const wal_op *op, uint64_t lsn, tree_miss *miss);
/* Waits while too many are out. Never while holding tokens, or another writer. */
int engine_writer_take(engine *e, tree_writer **w);
void engine_writer_give(engine *e, tree_writer *w);
/* Merges what a delete left too empty around key. Best effort. */
void engine_shrink(engine *e, rw_slice key);
void engine_shrink_range(engine *e, rw_slice from, rw_slice to);
/* Waits while the log has outrun the checkpoints too far. */
void engine_throttle(engine *e);
/* How long a write is to wait now, ns; waited: it has done so already, and goes on as soon as it may at all. */
int64_t engine_throttle_ns(engine *e, bool waited);
int engine_durable(engine *e, uint64_t end_lsn, unsigned flags);

/* ---- threads ----------------------------------------------------------------------------------------------------- */

int workers_start(engine *e);
void workers_stop(engine *e);
/* Memory, then the thread; stop ends the thread, free gives the memory back. */
int checkpointer_start(engine *e);
int checkpointer_run_thread(engine *e);
void checkpointer_stop(engine *e);
void checkpointer_free(engine *e);
/* What goes into an image. */
typedef enum {
    FLUSH_NOTHING,                         /* the image is as of before the oldest of what is pending */
    FLUSH_PENDING,                         /* what is pending is made first, or spilled */
    FLUSH_SPILLS,                          /* it is made, and what was spilled, too */
    FLUSH_WHOLE                            /* and all other leaves are written again, too */
} flush_extent;
/* One full checkpoint by the calling thread; no checkpointer may be running. */
int checkpoint_all(engine *e, bool clean, flush_extent flush);
/* Asks for a round and waits for it. */
int checkpointer_round(engine *e, bool compact);
/* Whether the superblock has room for the partition table, with as many spills as there may be, and for one more partition, with the longest low key. */
bool table_has_room(engine *e, bool one_more);

/* The checkpointer's parts: image of one partition; superblock; space. */
/* Pages that most of the partition's are dirty with, or with all, that its next image is to rewrite: all other resident ones become dirty too. */
void checkpoint_widen(engine *e, partition *p, bool all);
/* After the checkpointer's batch was written, or failed to be; without a token. evict: what was not used meanwhile leaves the cache. */
int checkpoint_batch_end(engine *e, bool evict);
/* For qsort and bsearch: tree_miss in the order of their places. */
int bulk_place_compare(const void *a, const void *b);
/* Reads pages that are missing, and hangs them in: all that can be; the order of the list changes. */
void bulk_read_pages(engine *e, tree_miss *pages, uint32_t count);
/* The same for leaves of p, which are written again, and leave the cache, while others are still read: those that pending writes, or all, made dirty. What could not be
 * written stays dirty: false. */
bool bulk_rewrite_leaves(engine *e, partition *p, tree_miss *pages, uint32_t count, bool all);
/* There may be something to do. */
void checkpointer_wake(engine *e);
int checkpoint_partition(engine *e, partition *p, flush_extent flush);
int checkpoint_publish(engine *e, bool clean);
/* Under the token: all leaves contain the partition's spills, which go. TREE_MISS: an inner page is missing, so that they stay for now. */
int spills_done(engine *e, partition *p);
/* Makes what is pending in a partition, or spills it, unless what was spilled is to be made, too. When that is most leaves, all are written again. Not FLUSH_NOTHING. */
int flush_partition(engine *e, partition *p, flush_extent extent);

/* ---- dead space (space.c); the checkpointer's, without tokens but where it is said ---- */

/* Whether cleaning is worth while: much of the file is dead, and more than what the last cleaning could not win. */
bool space_is_wasted(engine *e);
/* Whether that is so, and no segment is so empty that it is better cleaned. */
bool space_wants_partitions(engine *e);
/* Under the token: whether so much lies dead among the partition's pages that writing them again as a whole is the way to win it. */
bool space_is_scattered(engine *e, partition *p);
/* The partition that has most of it, if space is wasted; or NULL. */
partition *space_most_scattered(engine *e);
/* Tells writers whether they make garbage faster than it is cleaned. */
void space_watch(engine *e);
/* Cleans the emptiest segments, ahead of the checkpoints that will make them free, where no partition is to be written again. *worked: at least one. */
int space_clean_ahead(engine *e, bool *worked);
/* Cuts off what is free at the file's end, when much is free. */
void space_cut_end(engine *e);
/* After a publication: cleans one of the emptiest segments at the file's end, when much is free that lies before them. *worked: it did. */
int space_clear_end(engine *e, bool *worked);
/* Partitions must be imaged before what was cleaned is free: done when nothing else asks for it. */
int space_settle(engine *e, bool *worked);
/* Reads what is above the partition's leaves, without which they could not be hung in; pages: room for so many. */
void flush_parents_read(engine *e, partition *p, tree_miss *pages, uint32_t room);
/* Spills what is pending, if that is worth while. False: it was not, or not all of it was. */
bool spill_partition(engine *e, partition *p);
/* For who has made a write pend: waits a little when they take much of what they may, so that writers go as fast as pending writes are made. */
void flush_throttle(engine *e);
/* Waits until there is memory for pending writes, at most so long. */
void flush_wait(engine *e, int64_t wait_ns);
/* The partition to be flushed because pending writes take much of the cache; NULL: none. */
partition *flush_wanted(engine *e);
/*
 * Cleans one sparse segment at or after `from`, if there is one below max_live_percent. *done: whether there was one. *unreadable: 0, or why something in it had to stay: it is not picked again before
 * store_clean_retry.
 */
int clean_step(engine *e, unsigned max_live_percent, uint32_t from, bool *done, int *unreadable);

/* Drops old values that no snapshot needs, some in each partition. Returns whether there are more. */
bool versions_tend(engine *e);

/* ---- open -------------------------------------------------------------------------------------------------------- */

int recovery_run(engine *e);
int replay_log(engine *e);

/* ---- salvage (salvage.c): what an opening passes over, and tells ------------------------------------------------- */

typedef struct salvage {
    rw_verify_fn found;
    void *arg;
    uint64_t operations;                   /* of the log, passed over because their pages cannot be read */
    char first[256];                       /* why the first of them was */
} salvage;

/* Whether a salvage passes over a place that failed so. */
static inline bool salvage_passes(const engine *e, int error)
{
    return e->salvage != NULL && (error == RW_ECORRUPT || error == RW_EIO);
}
/* The place of something lost, in words; why is added. Returns 0. */
int salvage_tell(engine *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* An operation of the log failed: 0 when it is passed over, else the error. */
int salvage_operation(engine *e, const wal_op *op, int error);
/* A partition whose root cannot be read, number i of the image: the same. */
int salvage_partition(engine *e, uint32_t i, int error);
/* The log was replayed. */
void salvage_log_end(engine *e, uint64_t end_lsn);
/* The image's partition that key belongs to. */
const store_partition *image_partition(const store_image *image, rw_slice key);
int options_check(const rw_options *options);

#endif
