/*
 * Between locks.c (the calls), lock_queue.c (granting and waiting), lock_graph.c (who waits for whom) and lock_index.c (requests by interval).
 * Everything here is under the table's mutex.
 */
#ifndef RW_LOCKS_INTERNAL_H
#define RW_LOCKS_INTERNAL_H

#include "base/random.h"
#include "txn/locks.h"

typedef enum { END_CLOSED, END_OPEN, END_NONE } lock_end;

/* [from, to] with to = from (END_CLOSED: a key), [from, to) (END_OPEN), or [from, without end (END_NONE). */
typedef struct {
    rw_slice from, to;
    lock_end end;
} lock_interval;

/* Which of its indexes a request stands in: one of the table's, and, once granted, one of its owner's. */
enum { IN_TABLE, IN_OWNER, INDEXES };

/* A place in a treap: ordered by (from, arrival), a heap by priority. */
typedef struct {
    lock_request *left, *right, *parent;
    lock_request *reach;           /* of the subtree, the one whose interval ends last */
} lock_node;

/* What a request has while it waits. */
typedef struct {
    lock_request *watched;         /* one that it waits for; when that one goes, this one is looked at again */
    lock_request *watch_next, *watch_previous;     /* who watches the same */
    lock_request *candidate_next;  /* list of those to be looked at again */
} lock_wait;

struct lock_request {
    lock_node in_table;
    union {
        lock_node in_owner;        /* granted */
        lock_wait wait;            /* waiting */
    };
    lock_owner *owner;
    lock_request *watchers;        /* of those that wait */
    uint64_t arrival;              /* number in the order of coming */
    uint32_t priority;
    uint32_t from_size, to_size;   /* to_size: 0 unless END_OPEN */
    uint8_t mode, end;
    bool waiting;
    unsigned char bytes[];         /* from, to */
};

/* All requests, in four indexes, in the order in which lock_blocker_next goes through them. */
enum { TABLE_WAITING_EXCLUSIVE, TABLE_WAITING_SHARED, TABLE_GRANTED_EXCLUSIVE, TABLE_GRANTED_SHARED, LOCK_TABLES };

struct locks {
    _Atomic uint64_t requests;     /* granted and waiting; changed under the mutex, read by anyone (locks_active) */
    kio *kio;
    uint64_t bytes_max;
    frame_heap heap;
    kio_mutex mutex;
    frame_arena arena;
    lock_request *table[LOCK_TABLES];
    uint64_t arrivals;
    uint64_t waiting;              /* requests */
    uint64_t searches;             /* numbers them, for lock_search.visited */
    rw_random random;              /* priorities; the same in every run */
    lock_counters counters;
};

static inline unsigned lock_table_of(const lock_request *r)
{
    return (unsigned)(r->waiting ? TABLE_WAITING_EXCLUSIVE : TABLE_GRANTED_EXCLUSIVE) + (r->mode == LOCK_SHARED ? 1u : 0u);
}

static inline lock_interval lock_request_interval(const lock_request *r)
{
    rw_slice from = rw_slice_of(r->bytes, r->from_size);
    return (lock_interval){.from = from, .to = r->end == END_CLOSED ? from : rw_slice_of(r->bytes + r->from_size, r->to_size), .end = (lock_end)r->end};
}

/* Whether key lies before the interval's end. */
static inline bool lock_interval_reaches(lock_interval i, rw_slice key)
{
    if (i.end == END_NONE) return true;
    int order = rw_slice_compare(key, i.to);
    return order < 0 || (order == 0 && i.end == END_CLOSED);
}

/* Of two ends. */
static inline int lock_end_compare(lock_interval a, lock_interval b)
{
    if (a.end == END_NONE || b.end == END_NONE) return (a.end == END_NONE) - (b.end == END_NONE);
    int order = rw_slice_compare(a.to, b.to);
    return order != 0 ? order : (a.end == END_CLOSED) - (b.end == END_CLOSED);
}

/* Whether outer contains inner. */
static inline bool lock_interval_covers(lock_interval outer, lock_interval inner)
{
    return rw_slice_compare(outer.from, inner.from) <= 0 && lock_end_compare(outer, inner) >= 0;
}

/* ---- lock_index.c ------------------------------------------------------------------------------------------------ */

/* `in`: IN_TABLE or IN_OWNER. O(log n) each. */
void lock_index_insert(lock_request **root, unsigned in, lock_request *r);
void lock_index_remove(lock_request **root, unsigned in, lock_request *r);

/* Takes some request out, without keeping the index fit for anything else. NULL: it is empty. */
lock_request *lock_index_pop(lock_request **root, unsigned in);

/* A place in the order, for lock_index_last: before the request (from, arrival). */
typedef struct {
    rw_slice from;
    uint64_t arrival;
    bool none;                     /* no limit */
} lock_limit;

static inline lock_limit lock_limit_behind(rw_slice from)
{
    return (lock_limit){.from = from, .arrival = UINT64_MAX};
}

/* The last request before limit that overlaps i; NULL: none. */
lock_request *lock_index_last(lock_request *root, unsigned in, lock_interval i, lock_limit limit);
/* In order. */
lock_request *lock_index_first(lock_request *root, unsigned in);
lock_request *lock_index_next(lock_request *r, unsigned in);

/* ---- lock_graph.c ------------------------------------------------------------------------------------------------ */

/* What somebody wants, or waits for. */
typedef struct {
    const lock_owner *owner;
    lock_interval interval;
    lock_mode mode;
    uint64_t arrival;
} lock_claim;

static inline lock_claim lock_request_claim(const lock_request *r)
{
    return (lock_claim){.owner = r->owner, .interval = lock_request_interval(r), .mode = (lock_mode)r->mode, .arrival = r->arrival};
}

#define LOCK_HARD 1u
#define LOCK_SOFT 2u
#define LOCK_NEXT_KEY 4u           /* go on with requests that begin elsewhere */

/*
 * What a claim has to wait for: granted locks of others that conflict (LOCK_HARD: hard edges of the wait-for graph), and conflicting requests of
 * others that came before it and still wait (LOCK_SOFT: soft edges). The soft ones come first; of each kind exclusive ones, then shared ones; each by
 * from, and then arrival, backwards. after: the one returned before; NULL: the first.
 */
lock_request *lock_blocker_next(const locks *l, const lock_claim *claim, const lock_request *after, unsigned flags);

/*
 * Chooses victims until no cycle of hard edges goes through owner, who has just begun to wait. true: owner itself was chosen, and no one else; its
 * victim_text is set. Else *victims: those chosen, linked by search.doomed_next, with their victim_text.
 */
bool lock_graph_victims(locks *l, lock_owner *owner, lock_owner **victims);

/* The knot around a waiting owner: all that it reaches and that reach it, over edges of both kinds, linked by search.next. Good until the next search. */
lock_owner *lock_graph_knot(locks *l, lock_owner *owner);
/* Whether other was in the knot that lock_graph_knot has just found. */
static inline bool lock_graph_in_knot(const locks *l, const lock_owner *other)
{
    return other->search.visited == l->searches && other->search.stacked;
}

/* ---- lock_queue.c ------------------------------------------------------------------------------------------------ */

#define LOCK_WAKES_MAX 32u

/* Words to wake after the mutex was given back. Not owners: they may be gone by then, and a wake of a word that nobody sleeps on does nothing. */
typedef struct {
    const _Atomic uint32_t *words[LOCK_WAKES_MAX];
    unsigned count;
} lock_wakes;

/* The one that may be called without the mutex. */
void lock_wakes_flush(locks *l, lock_wakes *wakes);

void lock_table_insert(locks *l, lock_request *r, lock_owner *owner);
void lock_watch(lock_request *r, lock_request *watched);
/* r goes: those who watch it are to be looked at again. */
void lock_watchers_take(lock_request *r, lock_request **candidates);
/* Looks at them, in the order of their coming. */
void lock_candidates_settle(locks *l, lock_request *list, lock_wakes *wakes);

/* r is in the table, and nothing is in its way. */
void lock_grant(locks *l, lock_request *r);
/* A granted one, out of its owner's index already, and watched by nobody. */
void lock_drop(locks *l, lock_request *r);

/* What a waiter has to wait for. Who stands before it, but in a knot with it, does not count (X8). */
lock_request *lock_blocker_find(locks *l, const lock_request *r);
/*
 * After r began to wait: all that its edges may have closed. Cycles of hard edges lose a victim each; in a knot, who stands behind one that waits for
 * him goes before it, r above all: when it goes on, there is no new knot. true: r's owner is a victim, and r is gone.
 */
bool lock_waiter_arrive(locks *l, lock_request *r, lock_wakes *wakes);
/* Takes a waiter out of the queue. */
void lock_waiter_withdraw(locks *l, lock_request *r, lock_request **candidates);

#endif
