/*
 * What a worker does for operations that do not wait: it reads a page into the cache, or lets a time pass, and says so. The reads of one worker are in flight
 * side by side on its ring. It runs nothing of the operation itself, so nothing that could make it wait.
 */
#ifndef RW_ENGINE_FETCH_H
#define RW_ENGINE_FETCH_H

#include "btree/trees.h"

struct page_fetch;

/* Where fetches come back to: one thread takes them. */
typedef struct {
    /* set before the first fetch */
    kio *kio;
    void (*notify)(void *arg);             /* called from workers when fetches come in after none were there; must not wait. NULL: the word is enough */
    void *arg;
    /* any thread, atomic */
    _Atomic(struct page_fetch *) fetches;  /* last in first */
    _Atomic uint32_t word;                 /* raised before notify; to sleep on */
    _Atomic uint32_t senders;              /* workers that are at it */
} fetch_mailbox;

/* From fetch_start until it is in its mailbox it is a worker's. */
typedef struct page_fetch {
    /* set before fetch_start */
    tree_miss miss;
    uint64_t due_ns;                       /* 0: the page is wanted; else only this moment (kio_now_ns) */
    fetch_mailbox *mailbox;
    /* set when it is in its mailbox */
    bool failed;                           /* the page could not be read, or not be believed: who reads it himself learns why, or that it has moved */
    /* who has it */
    struct page_fetch *next;
} page_fetch;

/* A read of a worker's. */
typedef struct {
    kio_op op;
    tree_read read;
    page_fetch *fetches;                   /* who wait for it; NULL: nobody reads */
    bool landed;                           /* op was reaped; the page is not in the tree yet */
} page_read;

/* The part of a worker that reads pages. */
typedef struct {
    _Atomic(page_fetch *) inbox;           /* any thread: last in first */
    /* the worker's thread */
    page_fetch *waiting, **waiting_end;    /* to be begun, in order */
    page_fetch *timed;
    page_read *reads;                      /* RW_IO_DEPTH */
    unsigned in_flight;                    /* reads that the ring has */
    unsigned landed;
} fetcher;

struct engine;

/* Any thread. The worker is told by fetch_kick, once for several. */
void fetch_start(struct engine *e, page_fetch *fetch);
void fetch_kick(struct engine *e);

/* What has come back, in that order, linked by next. The word is raised for whoever sleeps on it, too. */
page_fetch *mailbox_take(fetch_mailbox *mailbox);
void mailbox_raise(fetch_mailbox *mailbox);
/* When all fetches have come back: returns when no worker touches the mailbox any more. */
void mailbox_close(fetch_mailbox *mailbox);

/* ---- for the worker ---- */

int fetcher_open(fetcher *f);
void fetcher_close(fetcher *f);
/* Takes in what was asked for and begins what can be begun. */
void fetcher_begin(struct engine *e, fetcher *f, kio_ring *ring);
/* Whether a reaped operation is one of its reads, which has landed now. */
bool fetcher_landed(fetcher *f, kio_op *op);
/* Hangs in what has landed, and sends back what is there and those whose time has come. */
void fetcher_settle(struct engine *e, fetcher *f);
/* How long the worker may sleep, ns; < 0: as far as reads are concerned until it is woken. */
int64_t fetcher_patience(struct engine *e, const fetcher *f);

#endif
