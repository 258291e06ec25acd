/* Between the files of a commit of several operations: commit_many.c, commit_tokens.c, commit_check.c, moment.c. */
#ifndef RW_ENGINE_COMMIT_MANY_H
#define RW_ENGINE_COMMIT_MANY_H

#include "base/planted.h"
#include "engine/txn.h"

#define COMMIT_SMALL 16u               /* operations that need no memory of their own */
/* With more, readers are given old values instead of being made to wait, for longer than a tenth of a millisecond. */
#ifdef RW_TINY
#define COMMIT_LARGE 64u
#else
#define COMMIT_LARGE 256u
#endif

/* Operations before an operation's turn that its hint, and its leaf, are fetched from memory; the hints of all but large commits are when they are opened. */
#define AHEAD_HINT 16u
#define AHEAD_LEAF 8u

/* Result of an attempt besides 0, TREE_MISS, TREE_FRAMES and errors: another transaction's lock is in the way. */
enum { COMMIT_LOCKED = 4 };
/* The same of one operation: it could wait for its leaf, but for memory. */
enum { COMMIT_CROWDED = 5 };

typedef struct {
    wal_op op;
    uint64_t offset;               /* in the record's body: with the record's LSN, the operation's own */
    uint64_t head;                 /* the 8 bytes of the key behind what all keys of the commit share, as a number: their order, if they differ */
    partition *part;               /* its key's, set with the tokens held */
    tree_position at;              /* where the check has found it; not of a range. Without a writer nothing moves its leaf until the operation is applied */
    bool shrink;                   /* a delete that may have left its leaf too empty */
} placed_op;

typedef struct commit {
    engine *e;
    rw_slice body;
    unsigned flags;                /* RW_ASYNC, ENGINE_CATALOG */
    rw_bucket dropped;             /* and at which timestamp; 0: none */
    uint64_t dropped_at;
    transaction *txn;              /* or NULL */
    placed_op *ops;                /* in log order */
    placed_op **sorted;            /* by key; and behind them as much room again */
    size_t count;
    bool has_range, large;
    bool rewrites;                 /* some key is, or may be, changed by more than one of them */
    unsigned record_flags;         /* for wal_append */
    /* one attempt's */
    partition_set held;
    partition *parts[RW_PARTITIONS_MAX];   /* in key order */
    unsigned part_count;
    tree_miss miss;
    bool records;                  /* snapshots besides the transaction's own need what it replaces, as far as can be told beforehand */
    const wal_op *locked;          /* COMMIT_LOCKED: what could not be written */
    /* over all attempts */
    tree_writer *writer;           /* NULL: no page may be missing, and nothing needs a split */
    page_ref suspect;
    lock_owner owner;              /* for a commit that is no pessimistic transaction's, when locks are in its way */
    bool owner_used;
    snapshot own_snapshot;         /* of a large one */
    unsigned char *bound;          /* a key's room, for walks over ranges; NULL: there are none */
    placed_op small_ops[COMMIT_SMALL];
    placed_op *small_sorted[2 * COMMIT_SMALL];
} commit;

/* commit_tokens.c */
int tokens_take(commit *c);
void tokens_give(commit *c);
partition *part_of(const commit *c, rw_slice key);

/* commit_check.c: under the tokens, before anything is logged. 0, TREE_MISS, TREE_FRAMES, COMMIT_LOCKED or an error. */
int commit_check(commit *c);
/* An exclusive lock for a commit that holds no other: 0 also when it has to try, and queue, again. */
int lock_wait(engine *e, lock_owner *owner, rw_slice key, const rw_slice *to, int64_t timeout_ns);
/* Without tokens: waits until the lock in the way is given back, and holds it for this commit. */
int commit_wait_for_locks(commit *c);

/* moment.c: around the applying of a commit. Its partitions' tokens are held. */
void apply_begin(engine *e, commit *c, uint64_t lsn, uint64_t end_lsn);
void apply_end(engine *e, commit *c, uint64_t lsn, uint64_t end_lsn);
/*
 * A leaf that was read while a commit changed the same key twice may hold what it had in between, and must not be trusted if the commit has ended by the time that one
 * looks whether it hides what was read. One that ended in the meantime has raised `rewrites`; one that goes on is seen.
 */
static inline uint64_t rewrites_before(const engine *e) { return atomic_load_explicit(&e->rewrites, memory_order_acquire); }
static inline bool rewrites_ended_since(const engine *e, uint64_t before)
{
    return RW_UNLIKELY(atomic_load_explicit(&e->rewrites, memory_order_acquire) != before) && !RW_PLANTED(trust_rewritten);
}
/* The newest value that is visible; what a snapshot sees. As trees_get. */
int read_newest(engine *e, rw_slice key, void *buf, size_t room, tree_value *seen);
int read_at(engine *e, rw_slice key, uint64_t moment, void *buf, size_t room, tree_value *seen);

#endif
