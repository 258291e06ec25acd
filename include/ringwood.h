/*
 * ringwood: an embedded, ordered, transactional key-value store for Linux.
 *
 * Conventions that hold for every call here:
 *
 * - A call returns 0 or a negative RW_E... code. On failure its out-parameters are untouched (the one exception is
 *   stated at rw_get) and the store is unchanged, unless the code is RW_EUNKNOWN.
 * - rw_last_error() tells in words what the calling thread's last failed call met.
 * - A database handle may be used by any number of threads at once. A batch, transaction, cursor or queue belongs to one thread
 *   at a time.
 * - Slices are borrowed for the length of the call; the store copies what it keeps.
 * - Keys are 1 byte to rw_key_size_max(page size) bytes, ordered as unsigned bytes, a prefix before what it begins.
 *   Values are 0 bytes to RW_VALUE_SIZE_MAX.
 * - The library never exits the process, installs no signal handler and prints nothing unless a logger is set.
 * - After fork() the child must not use handles of its parent: its calls fail with RW_EFORK.
 */
#ifndef RINGWOOD_H
#define RINGWOOD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RW_PUBLIC __attribute__((visibility("default")))
#else
#define RW_PUBLIC
#endif

#define RW_VERSION_MAJOR 0
#define RW_VERSION_MINOR 1
#define RW_VERSION_PATCH 0

/* Every way to fail: name, code, sentence. The numbers are part of the ABI and never change their meaning. */
#define RW_ERROR_MAP(X)                                                                       \
    X(RW_ENOTFOUND, -1, "not found")                                                          \
    X(RW_ECONFLICT, -2, "a concurrent transaction changed the same data")                     \
    X(RW_EDEADLOCK, -3, "chosen as the victim of a deadlock")                                 \
    X(RW_ETOOSMALL, -4, "the buffer is too small")                                            \
    X(RW_ETOOBIG, -5, "too big")                                                              \
    X(RW_ECORRUPT, -6, "stored data is damaged")                                              \
    X(RW_EIO, -7, "input/output error")                                                       \
    X(RW_ENOSPC, -8, "no space left on the device")                                           \
    X(RW_EBUSY, -9, "in use")                                                                 \
    X(RW_EINVAL, -10, "invalid argument")                                                     \
    X(RW_EVERSION, -11, "format version or feature not supported by this library")            \
    X(RW_EREADONLY, -12, "read-only")                                                         \
    X(RW_ENOMEM, -13, "out of memory")                                                        \
    X(RW_EACCESS, -14, "permission denied")                                                   \
    X(RW_ENOENT, -15, "no such file or directory")                                            \
    X(RW_EEXIST, -16, "already exists")                                                       \
    X(RW_ECLOSED, -17, "the handle is closed")                                                \
    X(RW_EFORK, -18, "the handle belongs to the parent process")                              \
    X(RW_EUNKNOWN, -19, "the outcome is unknown: the log could not be made durable")          \
    X(RW_EFILES, -20, "too many open files")                                                  \
    X(RW_EFOREIGN, -21, "not a ringwood file, or a file of another database")                 \
    X(RW_ENOTSUP, -22, "not supported here")                                                  \
    X(RW_ETIMEOUT, -23, "timed out")                                                          \
    X(RW_ESNAPSHOT_TOO_OLD, -24, "the snapshot is too old: what it could still read was given up") \
    X(RW_ECANCELED, -25, "cancelled")

enum {
#define RW_ERROR_ENUM(name, code, text) name = code,
    RW_ERROR_MAP(RW_ERROR_ENUM)
#undef RW_ERROR_ENUM
};

typedef struct rw_db rw_db;
typedef struct rw_batch rw_batch;
typedef struct rw_txn rw_txn;
typedef struct rw_cursor rw_cursor;
typedef struct rw_queue rw_queue;

typedef struct {
    const void *data;
    size_t size;
} rw_slice;

typedef uint32_t rw_bucket;

#define RW_DEFAULT_BUCKET ((rw_bucket)1)      /* is always there, named "default" */
#define RW_VALUE_SIZE_MAX ((size_t)1 << 30)   /* bytes */
#define RW_BUCKET_NAME_MAX ((size_t)255)      /* bytes, without the final 0 */

/* Flags of a write or commit. */
#define RW_SYNC 0u           /* returns when the write is durable */
#define RW_ASYNC 1u          /* returns when it is visible; durable within options.async_delay_ms, or after rw_flush */

/* Flags of rw_bucket_open. */
#define RW_CREATE 1u         /* create the bucket when it is missing */

/* Flags of rw_txn_begin: one mode. */
#define RW_SNAPSHOT 0u       /* the default: reads one moment; of two that write the same key the first to commit wins */
#define RW_SERIALIZABLE 2u   /* as if transactions ran one after the other: what was read is validated at commit */
#define RW_READONLY 4u       /* reads one moment; writes fail with RW_EREADONLY; never blocks, never conflicts */
#define RW_PESSIMISTIC 8u    /* the same promise as RW_SERIALIZABLE, kept by locks that are held to the end: waits instead of conflicts */

/* Levels given to a logger. */
#define RW_LOG_INFO 0
#define RW_LOG_WARNING 1
#define RW_LOG_ERROR 2

/* Called from any thread of the library, with a message that ends without a newline. It must not call the library. */
typedef void (*rw_logger_fn)(void *arg, int level, const char *message);

typedef struct rw_options {
    size_t struct_size;          /* set by rw_options_init */
    uint64_t cache_bytes;        /* one hard limit over frames, staging, old values, locks and filters; 256 MiB; at least 1 MiB, and 48 pages */
    uint32_t page_size;          /* 4096, 8192, 16384, 32768 or 65536 bytes; fixed at creation; 4096 */
    uint32_t workers;            /* worker threads, 1 to 64; 0: one for each core this process may use */
    const char *io_backend;      /* "auto" (io_uring, or psync where it is forbidden), "uring" or "psync" */
    uint64_t log_bytes;          /* log kept before a checkpoint must have caught up; bounds recovery time; 64 MiB; at least 8 MiB */
    uint32_t async_delay_ms;     /* how soon an RW_ASYNC write is durable, 1 to 60000; 50 */
    uint64_t partition_bytes;    /* a partition whose tree has more bytes of pages is split in two; large values lie beside and do not count; at least 128 KiB; 0: an eighth
                                  * of cache_bytes, but 1 to 32 MiB, and at most 2 MiB while there are fewer than 32 */
    uint32_t create;             /* 1 (default): create the database when it is missing; 0: fail with RW_ENOENT */
    uint32_t read_only;          /* 1: writes fail with RW_EREADONLY; a log left by a crash is replayed in memory only */
    uint64_t snapshot_bytes_max; /* of the cache, for what old snapshots can still read; above it the oldest is given up; 0: a quarter of the frames; at most a third of them; more than half of the cache is refused */
    uint64_t txn_bytes_max;      /* memory for the writes, reads and locks of one transaction; above it RW_ETOOBIG; 1 GiB */
    uint32_t lock_timeout_ms;    /* how long a lock is waited for before RW_ETIMEOUT, 1 to 3600000; 10000 */
    rw_logger_fn logger;         /* NULL: silent */
    void *logger_arg;
    const char *log_sync;        /* how commits are made durable: "fdatasync" (after the writes), "dsync" (writes with RWF_DSYNC), or "auto": the faster of them,
                                    measured on the log's device when the database is created, or is found on another device, and kept; "auto" */
} rw_options;

/* Fills in the defaults. Any thread. */
RW_PUBLIC void rw_options_init(rw_options *options);

/*
 * Sets one option by name, as text: "cache" "256M", "page_size" "16K", "workers" "2", "io_backend" "psync", "log" "64M",
 * "async_delay_ms" "10", "partition" "64M", "create" "0", "read_only" "1", "snapshot_bytes" "64M", "txn_bytes" "1G", "lock_timeout_ms" "500",
 * "log_sync" "dsync". The names of the fields are accepted too. Sizes take K, M, G
 * (powers of 1024). RW_EINVAL for an unknown name or a value that does not parse or is out of range. The text of
 * io_backend and of log_sync is not copied when it is one of the known names.
 */
RW_PUBLIC int rw_options_set(rw_options *options, const char *name, const char *value);

/* The constant sentence for a code; "success" for 0, "unknown error" for a code that is none. Any thread. */
RW_PUBLIC const char *rw_strerror(int code);

/*
 * What the calling thread's last failed call met, in words, with file, offset and errno where there are any. db may be NULL (after a failed
 * rw_open). The text is good until the thread's next call into the library. Never NULL.
 */
RW_PUBLIC const char *rw_last_error(rw_db *db);

/* The longest key for a page size, in bytes; 0 for a page size that is not supported. */
RW_PUBLIC size_t rw_key_size_max(uint32_t page_size);

/*
 * Opens the database in directory dir, creating it (the directory itself, not its parents) when options->create is 1, and recovers it
 * after a crash. options NULL: defaults. The page size of an existing database is that of its files: options->page_size is used at
 * creation only. On success *db is the caller's, until rw_close.
 * Errors: RW_EINVAL (absurd option, named), RW_ENOENT, RW_EACCESS, RW_EREADONLY (file system), RW_EBUSY (open elsewhere: the
 * message says by which process), RW_EEXIST (a log with commits, and no data file beside it), RW_EFOREIGN, RW_EVERSION, RW_ECORRUPT,
 * RW_ENOSPC, RW_EFILES, RW_EIO, RW_ENOMEM, RW_ENOTSUP.
 */
RW_PUBLIC int rw_open(const char *dir, const rw_options *options, rw_db **db);

/*
 * Makes everything durable, writes a checkpoint and closes. RW_EBUSY, and nothing is closed, while batches, transactions, cursors or
 * queues of it are open. No other call may be running. Whatever else it returns, the handle is closed and any later use of it fails with
 * RW_ECLOSED.
 */
RW_PUBLIC int rw_close(rw_db *db);

/*
 * A bucket is a named keyspace of its own. *bucket is good for the life of db, or until the bucket is dropped. name: 1 to
 * RW_BUCKET_NAME_MAX bytes of text. flags: 0 or RW_CREATE. Creating is durable on return.
 * Errors: RW_ENOTFOUND (no such bucket and no RW_CREATE), RW_EINVAL, RW_EREADONLY, and those of rw_put.
 */
RW_PUBLIC int rw_bucket_open(rw_db *db, const char *name, unsigned flags, rw_bucket *bucket);

/*
 * Drops the bucket and all that is in it, as one durable commit: calls that begin later get RW_ENOTFOUND, and so does the commit of a transaction or batch that has
 * writes in it (RW_ECONFLICT if it replaces what the drop deleted); cursors and transactions whose snapshot is older go on reading what was there. RW_EINVAL for the
 * default bucket, RW_ENOTFOUND for none, RW_EBUSY: a pessimistic transaction has locks in it. Costs what rw_delete_range of all its keys does: its pages are read, and what
 * old snapshots may read of it is kept within snapshot_bytes_max.
 */
RW_PUBLIC int rw_bucket_drop(rw_db *db, rw_bucket bucket);

/* Called for each bucket, in order of name; a non-zero return stops the listing and is what rw_bucket_list returns. */
typedef int (*rw_bucket_fn)(void *arg, const char *name, rw_bucket bucket);
RW_PUBLIC int rw_bucket_list(rw_db *db, rw_bucket_fn fn, void *arg);

/*
 * Copies the newest committed value of key to buf. *size: in, the room in buf in bytes; out, the value's size. buf may be NULL when *size is
 * 0. RW_ENOTFOUND; RW_ETOOSMALL when the value does not fit: then *size, and only it, is set to the value's size.
 * Cost: a get of a key whose page is cached takes no lock and writes no shared memory. One whose page is not costs one page read, or more where inner pages
 * are missing, too; none when a write that waits for the page, or a filter, answers.
 */
RW_PUBLIC int rw_get(rw_db *db, rw_bucket bucket, rw_slice key, void *buf, size_t *size);

/* One key of several that are read together. */
typedef struct {
    rw_slice key;
    void *buf;                   /* room for the value; may be NULL when size is 0 */
    size_t size;                 /* in: the room, bytes; out: the value's size, if result is 0 or RW_ETOOSMALL */
    int result;                  /* out: what rw_get would have returned */
} rw_get_item;

/*
 * Reads several keys of a bucket, each as rw_get does: not at one moment together (that is what transactions are for). 0: every item has been answered
 * with 0, RW_ENOTFOUND or RW_ETOOSMALL; else the first other result that an item has. RW_EINVAL (items NULL, or one with a wrong key or no buffer),
 * RW_ENOTFOUND (bucket), RW_ENOMEM: nothing was read.
 * Cost: the keys' ways through memory go side by side, so that 64 cached keys cost less than half of 64 gets; pages that are missing are read side by side.
 */
RW_PUBLIC int rw_multi_get(rw_db *db, rw_bucket bucket, rw_get_item *items, size_t count);

/*
 * Writes one key. flags: RW_SYNC (0) or RW_ASYNC. Visible to every thread before it returns.
 * Errors: RW_EINVAL (empty key, NULL, unknown flag), RW_ETOOBIG (key or value), RW_ENOTFOUND (bucket), RW_ENOSPC, RW_EREADONLY, RW_EIO,
 * RW_ECORRUPT; RW_ETIMEOUT: a pessimistic transaction held the key's lock for longer than options.lock_timeout_ms; RW_ENOMEM;
 * RW_EUNKNOWN: the sync of the log failed, the write is visible but may not survive, the database is read-only from now on.
 */
RW_PUBLIC int rw_put(rw_db *db, rw_bucket bucket, rw_slice key, rw_slice value, unsigned flags);

/* Deletes one key. RW_ENOTFOUND when it was not there; otherwise as rw_put. */
RW_PUBLIC int rw_del(rw_db *db, rw_bucket bucket, rw_slice key, unsigned flags);

/*
 * Deletes all keys from <= key < to, as one atomic commit. An empty from is the bucket's beginning, an empty to its end. from > to:
 * RW_EINVAL. Nothing in the range is success. Cost: proportional to the pages the range touches.
 */
RW_PUBLIC int rw_delete_range(rw_db *db, rw_bucket bucket, rw_slice from, rw_slice to, unsigned flags);

/* Returns when every commit acknowledged before the call is durable. */
RW_PUBLIC int rw_flush(rw_db *db);

/* A batch gathers writes and commits them as one atomic step over all buckets. Reusable after a commit, which empties it. */
RW_PUBLIC int rw_batch_new(rw_db *db, rw_batch **batch);
RW_PUBLIC int rw_batch_put(rw_batch *batch, rw_bucket bucket, rw_slice key, rw_slice value);
RW_PUBLIC int rw_batch_del(rw_batch *batch, rw_bucket bucket, rw_slice key);     /* an absent key is no error */
RW_PUBLIC int rw_batch_delete_range(rw_batch *batch, rw_bucket bucket, rw_slice from, rw_slice to);
/* On failure (but RW_EUNKNOWN) nothing was changed and the batch keeps its writes. Later writes of a key win over earlier ones. */
RW_PUBLIC int rw_batch_commit(rw_batch *batch, unsigned flags);
RW_PUBLIC void rw_batch_clear(rw_batch *batch);
RW_PUBLIC void rw_batch_free(rw_batch *batch);

/*
 * Transactions. A transaction's writes are private until its commit makes them visible, all at one moment; its reads see them. flags: RW_SNAPSHOT (0),
 * RW_SERIALIZABLE, RW_PESSIMISTIC or RW_READONLY. All modes may run side by side, beside single writes and batches too.
 *
 *   RW_SNAPSHOT      every read sees the committed state of the moment of rw_txn_begin. RW_ECONFLICT from commit: a key that it writes (or
 *                    read with rw_txn_get_for_update) was written by another commit since then. Write skew is possible.
 *   RW_SERIALIZABLE  reads the same; commit also fails with RW_ECONFLICT when anything it read, a key that was absent or a range that a cursor went
 *                    over included, was changed by another commit since then.
 *   RW_PESSIMISTIC   reads and writes take locks first (shared for reads, absent keys and ranges too, exclusive for writes and
 *                    rw_txn_get_for_update), then see the newest committed state. They wait for who holds a conflicting lock: RW_ETIMEOUT after
 *                    options.lock_timeout_ms (the transaction goes on); RW_EDEADLOCK, naming the transactions of the cycle, when this one was chosen as the
 *                    victim: its locks are given up at once, and only rw_txn_abort is left. Its commit does not conflict. RW_ENOMEM: all
 *                    transactions' locks together take a quarter of the cache's pages. Only these meet that limit: who commits without holding
 *                    locks (single writes, batches, the other modes) waits for them whatever they take.
 *   RW_READONLY      as RW_SNAPSHOT without writes.
 *
 * RW_ESNAPSHOT_TOO_OLD: the transaction's snapshot was given up, because old snapshots held more than options.snapshot_bytes_max; abort it.
 * RW_ETOOBIG: it would hold more than options.txn_bytes_max. A handle may be used by one thread at a time: a call that meets another one in it fails with
 * RW_EBUSY. A handle that was committed or aborted fails with RW_ECLOSED.
 */
RW_PUBLIC int rw_txn_begin(rw_db *db, unsigned flags, rw_txn **txn);
RW_PUBLIC int rw_txn_get(rw_txn *txn, rw_bucket bucket, rw_slice key, void *buf, size_t *size);   /* as rw_get */
/* The same, and claims the key: by an exclusive lock; or, without locks, the commit fails with RW_ECONFLICT if another has written it since the snapshot (two that only
 * claim it do not conflict). RW_EREADONLY in a read-only one. */
RW_PUBLIC int rw_txn_get_for_update(rw_txn *txn, rw_bucket bucket, rw_slice key, void *buf, size_t *size);
RW_PUBLIC int rw_txn_put(rw_txn *txn, rw_bucket bucket, rw_slice key, rw_slice value);
RW_PUBLIC int rw_txn_del(rw_txn *txn, rw_bucket bucket, rw_slice key);           /* RW_ENOTFOUND when it is not there */
/* *id names the present state of the write set; rolling back to it undoes what came later and forgets later savepoints. What was read stays read, and
 * locks stay held, to the end of the transaction. */
RW_PUBLIC int rw_txn_savepoint(rw_txn *txn, unsigned *id);
RW_PUBLIC int rw_txn_rollback_to(rw_txn *txn, unsigned id);                      /* RW_EINVAL: no such savepoint */
/* Ends the transaction, committed or not; txn is gone whatever is returned, but for RW_EBUSY: cursors of it are open, or another thread is in it.
 * flags: RW_SYNC or RW_ASYNC. RW_ECONFLICT names the key. RW_ETIMEOUT: a pessimistic transaction kept a lock on what is written, longer than lock_timeout_ms; RW_ENOTFOUND: a
 * bucket that it writes to was dropped. A transaction without writes commits without waiting and without conflict. */
RW_PUBLIC int rw_txn_commit(rw_txn *txn, unsigned flags);
/* Open cursors of it fail from then on and must still be closed. Does nothing while another thread is in the transaction, which stays open. */
RW_PUBLIC void rw_txn_abort(rw_txn *txn);
/* A number that names the transaction in messages and lists; 0 for a handle that has ended, or that another thread is in. */
RW_PUBLIC uint64_t rw_txn_id(rw_txn *txn);

/*
 * Begins a transaction, calls fn with it and commits; does so again after RW_ECONFLICT, RW_EDEADLOCK or RW_ESNAPSHOT_TOO_OLD of fn's own calls or of the
 * commit (RW_ETIMEOUT is returned: the lock has been waited for), with a jittered pause that doubles from 50 us to at most 20 ms, up to 1000 times. flags: a mode of rw_txn_begin, with or without RW_ASYNC. fn returns 0 to
 * commit; RW_ECONFLICT to be run again; anything else aborts and is returned (positive numbers are the caller's own). fn must not
 * commit or abort the transaction, must close its cursors, and must bear being run more than once.
 */
typedef int (*rw_txn_fn)(rw_txn *txn, void *arg);
RW_PUBLIC int rw_txn_run(rw_db *db, unsigned flags, rw_txn_fn fn, void *arg);

/*
 * Compares and sets as one atomic operation: if key's value is expected (NULL: if the key is absent), it becomes desired (NULL: the key is deleted).
 * RW_ECONFLICT: the key has another value, or none, or is there; nothing was changed. flags: RW_SYNC or RW_ASYNC. Values too large for a leaf are compared and set in a
 * transaction of the call's own, which txn_bytes_max bounds (RW_ETOOBIG). Other errors: those of rw_put.
 */
RW_PUBLIC int rw_cas(rw_db *db, rw_bucket bucket, rw_slice key, const rw_slice *expected, const rw_slice *desired, unsigned flags);

/*
 * Adds delta to a counter as one atomic operation: a value of 8 bytes, a signed number, least byte first; an absent key counts as 0. *result, if result is
 * not NULL: the sum. RW_EINVAL: the value has another size; RW_ETOOBIG: the sum leaves 64 bits.
 */
RW_PUBLIC int rw_add(rw_db *db, rw_bucket bucket, rw_slice key, int64_t delta, int64_t *result, unsigned flags);

/* An open transaction, or a cursor's own snapshot (id 0). */
typedef struct {
    uint64_t id;
    unsigned flags;              /* as given to rw_txn_begin */
    uint64_t age_us;
    uint64_t snapshot;           /* the log position that its reads see; 0: it has none (RW_PESSIMISTIC), or it was given up */
    uint64_t writes;             /* keys written so far */
    uint64_t bytes;              /* memory taken */
    uint64_t locks;              /* held */
    uint64_t waits_for;          /* the id of a transaction whose lock it waits for; 0: it does not wait */
} rw_txn_info;
/* Called for each, oldest first; it must not call the library. A non-zero return stops the listing and is what the call returns. */
typedef int (*rw_txn_list_fn)(void *arg, const rw_txn_info *info);
RW_PUBLIC int rw_txn_list(rw_db *db, rw_txn_list_fn fn, void *arg);

typedef struct {
    uint64_t txn;                /* id; 0: a single write or batch that waits, or has just been let through */
    unsigned exclusive;          /* 1: exclusive, 0: shared */
    unsigned waiting;            /* 1: it is waited for, 0: held */
    rw_bucket bucket;
    rw_slice from, to;           /* good during the call. A range [from, to), an empty to: the bucket's end; to.data NULL: the one key from */
} rw_lock_info;
/* As rw_txn_list, for locks, in order of key. */
typedef int (*rw_lock_list_fn)(void *arg, const rw_lock_info *info);
RW_PUBLIC int rw_lock_list(rw_db *db, rw_lock_list_fn fn, void *arg);

/*
 * A cursor walks one bucket in key order, forwards and backwards, over one unchanging state: that of its transaction's snapshot with the transaction's own
 * writes, or, without a transaction, that of the moment of rw_cursor_open. In a pessimistic transaction it locks each range that it goes over. A new cursor
 * stands nowhere: next is first, prev is last. After running past an end it stands past that end. What it stands on stays what it was when it moved there: writes that its
 * transaction makes, or takes back, later are met by later moves. RW_ESNAPSHOT_TOO_OLD as for transactions.
 */
RW_PUBLIC int rw_cursor_open(rw_db *db, rw_txn *txn_or_null, rw_bucket bucket, rw_cursor **cursor);
RW_PUBLIC int rw_cursor_seek(rw_cursor *cursor, rw_slice key);   /* to the first key >= it; an empty key: the first */
RW_PUBLIC int rw_cursor_first(rw_cursor *cursor);                /* RW_ENOTFOUND past either end, for all of these */
RW_PUBLIC int rw_cursor_last(rw_cursor *cursor);
RW_PUBLIC int rw_cursor_next(rw_cursor *cursor);
RW_PUBLIC int rw_cursor_prev(rw_cursor *cursor);
RW_PUBLIC int rw_cursor_key(rw_cursor *cursor, rw_slice *key);       /* good until the cursor moves or is closed */
RW_PUBLIC int rw_cursor_value(rw_cursor *cursor, rw_slice *value);   /* the same; RW_ENOTFOUND when it stands on nothing */
RW_PUBLIC void rw_cursor_close(rw_cursor *cursor);

/*
 * Queues: operations that do not make their caller wait. rw_submit begins them; rw_reap gives them back when they are complete, in any order. What needs nothing
 * but the cache is done inside rw_submit; pages that are missing are read, and durable writes become durable, side by side, in the library's own threads.
 *
 * The operation and all that it points to are the caller's, who leaves them alone from rw_submit until the operation was reaped: each one is reaped exactly
 * once. Operations that are under way together have no order: who needs one submits the second after the first was reaped. A write is visible to all at the latest
 * when it is reaped, and with RW_SYNC durable. No memory is taken for an operation, but for scans (a page) and values too long for a leaf.
 *
 * Work that goes on after a page has come in is done inside rw_reap: who waits on rw_queue_fd calls rw_reap whenever it is readable, also when nothing is complete then.
 * Inside the calls that follow the calling thread may wait: for values too long for a leaf, which it reads and writes itself; for splits of a page, when the cache has no
 * free frame; for neighbours of a page that a delete has left too empty, and what a commit of several writes needs beside the pages of its keys; and for moments, where
 * another thread is in the same partition. It never waits for a lock: that is looked at again each millisecond, for options.lock_timeout_ms.
 */
typedef enum {
    RW_OP_GET = 1,               /* bucket, key, buf, size: as rw_get */
    RW_OP_PUT = 2,               /* bucket, key, value, flags: as rw_put */
    RW_OP_DEL = 3,               /* bucket, key, flags: as rw_del */
    RW_OP_MULTI_GET = 4,         /* bucket, items, count: as rw_multi_get */
    RW_OP_SCAN = 5,              /* bucket, records key <= ... < end as of one moment, into buf; see rw_op_record */
    RW_OP_BATCH = 6,             /* batch, flags: as rw_batch_commit */
    RW_OP_TXN = 7                /* txn, flags: as rw_txn_commit: ends the transaction; until it is reaped other calls on txn fail with RW_EBUSY or RW_ECLOSED */
} rw_op_kind;

typedef struct {
    /* set by the caller; what a kind does not name is not looked at */
    rw_op_kind kind;
    unsigned flags;              /* writes and commits: RW_SYNC (0) or RW_ASYNC */
    rw_bucket bucket;
    rw_slice key;                /* scan: the first key; empty: the bucket's beginning */
    rw_slice value;
    rw_slice end;                /* scan: the key before which it ends; empty: the bucket's end */
    void *buf;                   /* get, scan */
    size_t size;                 /* get: as *size of rw_get; scan: in, the room in buf, bytes, out, how much of it is filled */
    rw_get_item *items;
    size_t count;                /* multi-get: items; scan: in, the most records (0: as many as there is room for), out, the number found */
    rw_batch *batch;
    rw_txn *txn;
    void *context;               /* the caller's own */
    /* set before it is reaped */
    int result;                  /* what the call of the same name would have returned, or RW_ECANCELED */
    unsigned more;               /* scan: 1: there are more records before end. With 0 of them found the first does not fit: result is RW_ETOOSMALL */
    /* the queue's own */
    uint32_t slot;
} rw_op;

/* The record at *position (0: the first) of a scan's buf, and *position behind it. Slices point into buf. RW_ENOTFOUND: there are no more. */
RW_PUBLIC int rw_op_record(const rw_op *op, size_t *position, rw_slice *key, rw_slice *value);

/* depth: operations that may be in the queue together, submitted and not reaped, 1 to 65536. Memory for all of them is taken here. */
RW_PUBLIC int rw_queue_open(rw_db *db, unsigned depth, rw_queue **queue);

/*
 * Cancels what can be cancelled, waits for the rest, and frees the queue. No operation is the queue's any more then; each one's result says what became of it.
 */
RW_PUBLIC int rw_queue_close(rw_queue *queue);

/* A descriptor, an eventfd, that is readable while there may be something to reap, for poll, epoll or io_uring; only to be waited for. It is the queue's, to its end.
 * RW_EFILES. Any thread may wait for it. */
RW_PUBLIC int rw_queue_fd(rw_queue *queue);

/*
 * Begins count operations. 0: all of them are in the queue, and each one's own failure, even of its arguments, is in its result. Otherwise none is:
 * RW_EBUSY: they are more than the queue has room for, or one of them is in it already; RW_EINVAL: NULL.
 */
RW_PUBLIC int rw_submit(rw_queue *queue, rw_op **ops, unsigned count);

/*
 * Gives back up to max operations that are complete. Waits until there are min of them (or all that are in the queue, if that is less), for at most timeout_ns (0: not
 * at all, < 0: no limit). Returns how many there are, which may be 0; or RW_EINVAL. What fails is in the operations; rw_last_error
 * says what the last one met that failed inside rw_submit or rw_reap of this thread.
 */
RW_PUBLIC int rw_reap(rw_queue *queue, rw_op **done, unsigned min, unsigned max, int64_t timeout_ns);

/*
 * Asks for the end of an operation that is in the queue. 0: it will be reaped with RW_ECANCELED, having changed nothing (a transaction is aborted), and its buffers
 * are not written any more. RW_EBUSY: too late, it is complete, or a write that is already visible: it will be reaped as if nothing had been asked. RW_ENOTFOUND: it is not in
 * the queue.
 */
RW_PUBLIC int rw_cancel(rw_queue *queue, rw_op *op);

/* Writes a checkpoint of everything committed before the call; returns when it is durable. */
RW_PUBLIC int rw_checkpoint(rw_db *db);

/* Rewrites what is alive out of sparse segments and gives free space at the file's end back to the file system. */
RW_PUBLIC int rw_compact(rw_db *db);

/*
 * Checks a closed database in full: superblocks, every page and its checksum, key order, extents, space accounting, log. Changes
 * nothing. fn is called with one sentence for each thing found wrong. 0: sound; RW_ECORRUPT: something was reported; else as rw_open.
 */
typedef void (*rw_verify_fn)(void *arg, const char *finding);
RW_PUBLIC int rw_verify(const char *dir, rw_verify_fn fn, void *arg);

/* A name, what it counts, and its unit. Counters run from rw_open. */
#define RW_STATS_MAP(X)                                                                        \
    X(page_size, "size of a page, bytes")                                                      \
    X(workers, "worker threads")                                                               \
    X(partitions, "key ranges with a tree of their own")                                       \
    X(buckets, "buckets, the default one included")                                            \
    X(records_estimate, "records, as of each page's last write-back")                          \
    X(tree_height_max, "levels of the highest tree")                                           \
    X(cache_bytes, "memory limit, bytes")                                                      \
    X(cache_frames, "page frames in the cache")                                                \
    X(cache_frames_free, "page frames holding nothing")                                        \
    X(cache_frames_dirty, "page frames newer than the file")                                   \
    X(page_reads, "pages read from the data file")                                             \
    X(page_read_bytes, "bytes read from the data file")                                        \
    X(page_writes, "pages written to the data file")                                           \
    X(page_write_bytes, "bytes written to the data file")                                      \
    X(pages_evicted, "pages dropped from the cache")                                           \
    X(data_file_bytes, "size of the data file")                                                \
    X(data_live_bytes, "bytes of it that are referenced")                                      \
    X(segments_free, "segments of it that may be reused")                                      \
    X(segments_cleaned, "sparse segments rewritten")                                           \
    X(log_lsn_end, "log sequence number after the newest record, bytes")                       \
    X(log_lsn_durable, "log sequence number known durable")                                    \
    X(log_lsn_checkpoint, "log sequence number from which recovery would replay")              \
    X(log_file_bytes, "size of the log file")                                                  \
    X(log_writes, "write operations on the log")                                               \
    X(log_write_bytes, "bytes written to the log")                                             \
    X(log_syncs, "syncs of the log")                                                           \
    X(checkpoints, "checkpoints published")                                                    \
    X(commits, "commits")                                                                      \
    X(txns_open, "open transactions")                                                          \
    X(txns_committed, "transactions committed")                                                \
    X(txns_aborted, "transactions aborted by their owner")                                     \
    X(txns_conflicted, "transactions that failed with a conflict at commit")                   \
    X(deadlocks, "transactions chosen as the victim of a deadlock")                            \
    X(lock_waits, "locks that had to be waited for")                                           \
    X(lock_timeouts, "locks that were waited for in vain")                                     \
    X(locks_held, "locks held")                                                                \
    X(snapshots_open, "open snapshots, of transactions and cursors")                           \
    X(snapshot_oldest_age_us, "age of the oldest open snapshot, microseconds")                 \
    X(snapshots_given_up, "snapshots given up because old values took too much memory")        \
    X(versions, "old values kept for snapshots")                                               \
    X(version_bytes, "cache memory that they take")                                            \
    X(version_bytes_max, "limit of it")                                                        \
    X(reads_restarted, "optimistic reads that met a change and began again")                   \
    X(recovery_records, "log records replayed by rw_open")                                     \
    X(recovery_us, "time rw_open spent replaying, microseconds")                               \
    X(log_fdatasync_ns, "median time of a 4 KiB write and fdatasync on this device, nanoseconds; 0: not measured") \
    X(log_dsync_ns, "the same of a write with RWF_DSYNC; 0: not measured, or not possible") \
    X(filter_bytes, "cache memory taken by filters, which tell absent keys of pages on disk")   \
    X(filter_answers, "absent keys that they told, each a page not read")                      \
    X(filter_vain, "pages read for absent keys that a filter did not exclude, by gets that waited") \
    X(pending_writes, "puts that wait in memory for their page, which is on disk; the log has them") \
    X(pending_bytes, "cache memory that they take")                                            \
    X(pending_puts, "puts that waited since the open, each a page not read for itself")        \
    X(pending_answers, "gets that they answered")                                              \
    X(key_filter_bytes, "cache memory of the filter of all keys, which tells absent ones without a look at the trees; 0: it is not complete") \
    X(record_bytes, "cache memory taken by records of pages on disk that gets have asked for") \
    X(record_answers, "gets that they answered, each a page not read")                         \
    X(spills, "sorted runs of puts on disk that wait there for their pages")                   \
    X(spilled_puts, "puts that went into one since the open, together with others, instead of each into its page") \
    X(spill_answers, "gets for which one was read")                                            \
    X(partitions_rewritten, "partitions written again as a whole since the open, because too much lay dead among their pages")

typedef struct {
#define RW_STATS_FIELD(name, text) uint64_t name;
    RW_STATS_MAP(RW_STATS_FIELD)
#undef RW_STATS_FIELD
    char io_backend[16];        /* the back end in effect */
    char io_backend_note[112];  /* why, when it is not the one asked for */
    char read_only_reason[128]; /* empty while the database takes writes */
    char log_sync[16];          /* how commits are made durable: fdatasync or dsync; auto: not decided, as nothing is written */
} rw_stats_t;

RW_PUBLIC int rw_stats(rw_db *db, rw_stats_t *stats);

#ifdef __cplusplus
}
#endif
#endif
