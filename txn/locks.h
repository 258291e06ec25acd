/*
 * The lock table: shared and exclusive locks on keys and ranges of stored keys, held by transactions to their end; fair queues; deadlocks found by the request
 * that closes the cycle (X8, X9). One mutex; no token may be waited for, and no token held, while waiting for a lock.
 */
#ifndef RW_LOCKS_H
#define RW_LOCKS_H

#include "buffer/frame_heap.h"

typedef struct locks locks;
typedef struct lock_request lock_request;      /* locks.c */

typedef enum { LOCK_SHARED, LOCK_EXCLUSIVE } lock_mode;

/* A search's marks on an owner (lock_graph.c). */
typedef struct {
    uint64_t visited;              /* number of the search that came by last */
    struct lock_owner *from;       /* the search came from there */
    struct lock_owner *next;       /* in its result, or on its stack */
    const lock_request *at;        /* the last edge that it followed */
    uint64_t covered;              /* arrival of a waiter that stands for all that came before it; 0: none yet */
    uint64_t order, low;           /* for finding knots */
    bool stacked;
    bool doomed;                   /* chosen, while the search for others goes on */
    struct lock_owner *doomed_next;
} lock_search;

/* One transaction's part; lies in it, at one address as long as it holds or waits for locks. */
typedef struct lock_owner {
    uint64_t id;                   /* names it in messages; 0: a single write */
    bool single;                   /* has one lock at a time, in memory of its own */
    /* under the table's mutex */
    lock_request *held[2];         /* its granted locks, an index for each mode */
    lock_request *waiting;         /* the one it waits for */
    uint64_t count;                /* of held */
    uint64_t bytes;                /* memory that they take */
    lock_search search;
    bool victim;                   /* chosen while it waited */
    _Atomic uint32_t word;         /* it sleeps on this; raised when it was granted what it waits for, or chosen */
    char victim_text[504];         /* the cycle, in words */
} lock_owner;

/* Memory comes from frames of p, up to bytes_max; that of single owners is their own. */
int locks_open(kio *k, pool *p, uint64_t bytes_max, locks **out);
void locks_close(locks *l);        /* nothing is held any more */

void lock_owner_init(lock_owner *owner, uint64_t id);
/* One that holds or waits for one lock at a time. What others hold leaves it no less room (X11). */
void lock_owner_init_single(lock_owner *owner, uint64_t id);

/*
 * Takes a lock on the key from (to NULL), or on the range [from, *to) (an empty one: no end). Waits, at most timeout_ns (0: not at all). 0 also
 * when owner holds it already, in this mode or a stronger one; a shared lock that it holds becomes exclusive. RW_EDEADLOCK: it was chosen as the
 * victim of a cycle, its sentence names the transactions in it; nothing was granted, what it holds stays until it is released. RW_ETIMEOUT names who
 * holds it or waits before it. RW_ENOMEM: locks take all the memory that they may; for a single owner, that there is none at all.
 */
int locks_take(locks *l, lock_owner *owner, rw_slice from, const rw_slice *to, lock_mode mode, int64_t timeout_ns);
/* Gives all back and wakes whom that lets through. */
void locks_release(locks *l, lock_owner *owner);

/* Whether anything is held or waited for: a writer that holds the partition's token, and finds false here, need not ask further. */
static inline bool locks_active(const locks *l)
{
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)l, memory_order_relaxed) != 0; /* locks.requests, which comes first */
}
/* Whether another transaction than owner (NULL: any) holds a lock that conflicts. To be asked under the token of the keys' partitions; *holder: its id. */
bool locks_conflict(locks *l, const lock_owner *owner, rw_slice from, const rw_slice *to, lock_mode mode, uint64_t *holder);

/* For lists. Calls fn for each lock, in order of from; under the mutex. */
typedef struct {
    uint64_t owner;
    lock_mode mode;
    bool waiting, is_range;
    rw_slice from, to;
    uint64_t waits_for;            /* waiting: the id of an owner that it waits for */
} lock_view;
int locks_for_each(locks *l, int (*fn)(void *arg, const lock_view *view), void *arg);

typedef struct {
    uint64_t held, waits, timeouts, deadlocks, bytes;
} lock_counters;
void locks_counters(locks *l, lock_counters *counters);

#endif
