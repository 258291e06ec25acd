/* The transaction object, between txn*.c and cursor*.c. */
#ifndef RW_ENGINE_TXN_H
#define RW_ENGINE_TXN_H

#include "engine/engine_internal.h"
#include "txn/read_set.h"

#define SNAPSHOT_NEWEST UINT64_MAX /* reads see the newest committed state */

typedef struct transaction {
    engine *e;
    rw_db *db;
    rw_txn *handle;
    uint64_t id;
    unsigned flags;                /* of rw_txn_begin */
    uint64_t begun_ns;
    /* the thread that is in it (txn_enter) */
    write_set *writes;
    read_set *reads;               /* RW_SERIALIZABLE, and keys read for update; else NULL until needed */
    snapshot snapshot;             /* all modes but RW_PESSIMISTIC */
    lock_owner locks;              /* RW_PESSIMISTIC */
    unsigned cursors;              /* open ones */
    int doomed;                    /* RW_EDEADLOCK: it was a victim, only abort is left */
    /* under the engine's txns_mutex */
    struct transaction *older, *newer;
    /* copies for lists, atomic */
    _Atomic uint64_t writes_count, bytes;
} transaction;

/*
 * Every public call on a transaction or on a cursor of one: enter, work, leave. RW_EINVAL (NULL), RW_ECLOSED (committed, aborted), RW_EBUSY (another
 * thread is in it), RW_EFORK, RW_EDEADLOCK (doomed).
 */
int txn_enter(rw_txn *handle, transaction **t);
void txn_leave(transaction *t);
/* The same for an end, of a doomed one too. */
int txn_enter_to_end(rw_txn *handle, transaction **t);

/* The moment that its reads see, or SNAPSHOT_NEWEST. */
static inline uint64_t txn_moment(const transaction *t)
{
    return (t->flags & RW_PESSIMISTIC) != 0 ? SNAPSHOT_NEWEST : t->snapshot.timestamp;
}

/*
 * To be called before a pessimistic transaction looks at [from, to) for good, and after others have: locks the range (pessimistic: waits; RW_EDEADLOCK, RW_ETIMEOUT,
 * RW_ETOOBIG, RW_ENOMEM), notes it for validation (serializable), or does nothing. Stored keys; to is never empty (the bucket's end has a key).
 */
int txn_claim_range(transaction *t, rw_slice from, rw_slice to);

#endif
