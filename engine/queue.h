/*
 * A queue's insides, between queue.c (public calls, the operations' way through it) and queue_steps.c (what each kind does).
 *
 *   rw_submit --> step --> parked (pages, a moment) --> ready --> step --> ... --> durable wanted --> complete --> rw_reap
 *                                 a worker                                            the log
 *
 * Steps are made by the thread that is in the queue, in rw_submit and rw_reap. Other threads only put what is ready on a list and wake it.
 */
#ifndef RW_ENGINE_QUEUE_H
#define RW_ENGINE_QUEUE_H

#include "engine/commit_many.h"
#include "engine/txn.h"

/* What a step comes to, besides RW_E codes: the operation is over with those, and with 0. */
enum { STEP_PARKED = 1, STEP_DURABLE = 2 };

/* A slot's state. */
typedef enum { SLOT_FREE, SLOT_PARKED, SLOT_LOGGED, SLOT_COMPLETE } slot_state;

struct queue_slot;

/* A fetch, and for which part of which operation. */
typedef struct queue_fetch {
    page_fetch fetch;
    struct queue_slot *slot;
    size_t part;               /* the part */
    struct queue_fetch *next;  /* in the list of free ones */
} queue_fetch;

/* An operation that is in the queue. */
typedef struct queue_slot {
    rw_queue *owner;
    rw_op *op;
    slot_state state;
    bool begun;                /* it made its first step */
    bool cancelled;
    bool throttled;            /* it has waited for the checkpoints */
    bool alone;                /* what could not be fetched it reads itself from now on */
    unsigned fetches;          /* that are with workers */
    size_t next_part;          /* the first that was not looked at yet: item of a multi-get, byte of body */
    uint32_t pages_asked;      /* for a commit */
    rw_slice body;             /* what a commit writes */
    uint64_t deadline_ns;      /* for a lock; 0: it has met none */
    uint64_t end_lsn;          /* SLOT_LOGGED */
    transaction *txn;          /* to be committed: entered, prepared; NULL: none, or over */
    rw_cursor *cursor;         /* of a scan under way */
    bool positioned;           /* the cursor has been led to the first key */
    size_t room, limit;        /* of the scan: op's size and count as they were */
    tree_miss miss;            /* what the cursor misses */
    queue_fetch own;           /* so that each can always have one */
    struct queue_slot *next;   /* in one list: free, logged, complete */
} queue_slot;

typedef struct {
    queue_slot *first, **end;
} slot_list;


#define QUEUE_FETCHES 256u     /* for those that want several pages at once, beside one for each */

struct rw_queue {
    /* set at open */
    engine *e;
    rw_db *db;
    unsigned depth;
    queue_slot *slots;
    /* any thread, atomic */
    fetch_mailbox mailbox;             /* what comes back; its word is raised by the log too */
    _Atomic int event;                 /* descriptor, -1: nobody has asked for one */
    _Atomic uint32_t raised;           /* 1: the event is, or a thread is about to raise it */
    _Atomic uint32_t busy;             /* a thread is in it */
    wal_watcher watcher;
    /* the thread that is in it */
    queue_slot *free;
    queue_fetch *fetches, *free_fetches;
    slot_list logged, complete;
    uint64_t logged_lsn;               /* of the last one logged */
    unsigned count;                    /* operations in it */
    unsigned fetches_out;
    bool kick;                         /* workers are to be told */
};

/* ---- queue_steps.c ----------------------------------------------------------------------------------------------- */

/* What of an operation can be done now. back: the fetch that has come back, or NULL: it is parked again, or, if it is still its slot's, given back by the caller. */
int queue_step(rw_queue *q, queue_slot *slot, queue_fetch *back);
/* Gives up what it holds, when it was cancelled. */
void queue_step_undo(queue_slot *slot);

/* ---- queue.c ----------------------------------------------------------------------------------------------------- */

/* A fetch for an operation: its own one, or one of those for all. NULL: there is none. */
queue_fetch *queue_fetch_take(rw_queue *q, queue_slot *slot);
void queue_fetch_give(rw_queue *q, queue_fetch *f);
/* Hands a fetch to a worker: for a page, or for a moment. */
void queue_park_for_page(rw_queue *q, queue_fetch *f, const tree_miss *miss, size_t part);
void queue_park_for_time(rw_queue *q, queue_fetch *f, int64_t wait_ns);

#endif
