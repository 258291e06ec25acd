/* The transaction object, between txn*.c and cursor*.c. */
#ifndef RW_ENGINE_TXN_H
#define RW_ENGINE_TXN_H

#include "engine/body.h"
#include "txn/read_set.h"

#define SNAPSHOT_NEWEST UINT64_MAX /* reads see the newest committed state */

/* Its memory is never freed, but used again for later transactions: a stale handle finds another generation. */
typedef struct transaction {
    /* any thread, atomic */
    RW_ALIGNED(64) _Atomic uint64_t state;  /* generation, TXN_LIVE, TXN_BUSY (txn_handle.c) */
    _Atomic(engine *) e;
    _Atomic uint64_t id;
    _Atomic uint64_t writes_count, bytes;   /* for lists */
    uint32_t index;                /* its place among all; set when it is made */
    _Atomic uint32_t next_free;
    /* set at begin */
    rw_db *db;
    _Atomic uint32_t flags;        /* of rw_txn_begin */
    _Atomic uint64_t begun_ns;
    /* the thread that is in it (txn_enter) */
    write_set *writes;
    read_set *reads;               /* RW_SERIALIZABLE, and keys read for update; else NULL until needed */
    snapshot snapshot;             /* all modes but RW_PESSIMISTIC */
    bool snapshot_open;            /* until a commit was validated, at the latest */
    lock_owner locks;              /* RW_PESSIMISTIC */
    unsigned cursors;              /* open ones */
    int doomed;                    /* RW_EDEADLOCK: it was a victim, only abort is left */
    commit_body body;              /* room for a commit's record, kept */
} transaction;

/*
 * Every public call on a transaction or on a cursor of one: enter, work, leave. RW_EINVAL (NULL), RW_ECLOSED (committed, aborted), RW_EBUSY (another
 * thread is in it), RW_EFORK, RW_EDEADLOCK (doomed).
 */
int txn_enter(rw_txn *handle, transaction **t);
void txn_leave(transaction *t);
/* The same for an end, of a doomed one too; for a commit: RW_EBUSY while it has open cursors. */
int txn_enter_to_end(rw_txn *handle, transaction **t);
int txn_enter_to_commit(rw_txn *handle, transaction **t);

/* txn_handle.c: a transaction that nobody uses, entered; RW_ENOMEM. Its handle, and its end: the handle means nothing any more. */
int txn_slot_take(transaction **t);
rw_txn *txn_handle(const transaction *t);
void txn_slot_give(transaction *t);
/* Calls fn for each live one of an engine, in no order; what it reads of it may change meanwhile. */
int txn_slots_for_each(const engine *e, int (*fn)(void *arg, transaction *t), void *arg);

/* txn.c: the parts of public calls that others need, for a transaction that was entered. */
int txn_begin(rw_db *db, engine *e, unsigned flags, transaction **out);
/* Ends it; the handle is void then. */
int txn_commit(transaction *t, unsigned flags);
/*
 * The same in parts: prepare; if that went well apply (with ENGINE_NO_WAIT again for as long as it is COMMIT_LOCKED); in any case end, which is given the error of what
 * failed, or 0, and returns it. After apply it is visible, and durable once the log is up to *end_lsn (0: there was nothing to write).
 */
int txn_commit_prepare(transaction *t, unsigned flags);
int txn_commit_apply(transaction *t, unsigned flags, uint64_t *end_lsn);
int txn_commit_end(transaction *t, int error);
void txn_abort(transaction *t);
/* Nothing is read at its snapshot any more. */
void txn_snapshot_end(transaction *t);

static inline bool txn_mode_is(const transaction *t, unsigned flag)
{
    return (atomic_load_explicit(&t->flags, memory_order_relaxed) & flag) != 0;
}

/* The moment that its reads see, or SNAPSHOT_NEWEST. */
static inline uint64_t txn_moment(const transaction *t)
{
    return txn_mode_is(t, RW_PESSIMISTIC) ? SNAPSHOT_NEWEST : t->snapshot.timestamp;
}

/*
 * To be called before a pessimistic transaction looks at [from, to) for good, and after others have: locks the range (pessimistic: waits; RW_EDEADLOCK, RW_ETIMEOUT,
 * RW_ETOOBIG, RW_ENOMEM), notes it for validation (serializable), or does nothing. Stored keys; to is never empty (the bucket's end has a key).
 */
int txn_claim_range(transaction *t, rw_slice from, rw_slice to);

#endif
