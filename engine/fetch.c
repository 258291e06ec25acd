#include "engine/fetch.h"

#include "base/planted.h"
#include "base/preempt.h"
#include "engine/engine_internal.h"

#define AGAIN_NS 50000                     /* until what could not be begun or hung in, because another thread is at it, is tried again */
#define FETCH_SHARE 8u                     /* all workers' reads together hold at most this part of the frames: who holds a token that they wait for may want one */

/* ---- lists that many threads add to and one takes whole ---------------------------------------------------------- */

typedef _Atomic(page_fetch *) fetch_list;

/* Whether it was empty. */
static bool list_push(fetch_list *list, page_fetch *fetch)
{
    page_fetch *first = atomic_load_explicit(list, memory_order_relaxed);
    do {
        fetch->next = first;
    } while (!atomic_compare_exchange_weak_explicit(list, &first, fetch, memory_order_seq_cst, memory_order_relaxed));
    return first == NULL;
}

/* In the order in which they were added. */
static page_fetch *list_take(fetch_list *list)
{
    if (atomic_load_explicit(list, memory_order_relaxed) == NULL) return NULL;
    page_fetch *taken = atomic_exchange(list, NULL), *first = NULL, *next;
    for (; taken != NULL; taken = next) {
        next = taken->next;
        taken->next = first;
        first = taken;
    }
    return first;
}

/* ---- mailboxes --------------------------------------------------------------------------------------------------- */

page_fetch *mailbox_take(fetch_mailbox *mailbox)
{
    return list_take(&mailbox->fetches);
}

void mailbox_raise(fetch_mailbox *mailbox)
{
    atomic_fetch_add(&mailbox->word, 1);
    kio_wake(mailbox->kio, &mailbox->word, 1);
    if (mailbox->notify != NULL) mailbox->notify(mailbox->arg);
}

/* The first of several tells; who takes the list takes all of it. */
static void fetch_done(page_fetch *fetch, bool failed)
{
    fetch_mailbox *mailbox = fetch->mailbox;
    fetch->failed = failed;
    atomic_fetch_add(&mailbox->senders, 1);
    if (RW_PLANTED(raise_before_put)) {
        mailbox_raise(mailbox);
        list_push(&mailbox->fetches, fetch);
    } else if (list_push(&mailbox->fetches, fetch)) mailbox_raise(mailbox);
    atomic_fetch_sub(&mailbox->senders, 1); /* it may be gone from here on */
}

void mailbox_close(fetch_mailbox *mailbox)
{
    while (atomic_load(&mailbox->senders) > 0) kio_yield(mailbox->kio);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

/* All wishes for a page go to one worker, so that it is read once for all of them. */
static worker *fetch_worker(engine *e, const page_fetch *fetch)
{
    uint64_t number = fetch->due_ns != 0 ? 0 : page_ref_address(fetch->miss.ref) / e->trees.pool.page_blocks;
    return &e->workers[number % e->worker_count];
}

void fetch_start(engine *e, page_fetch *fetch)
{
    list_push(&fetch_worker(e, fetch)->fetcher.inbox, fetch);
}

void fetch_kick(engine *e)
{
    for (unsigned i = 0; i < e->worker_count; i++)
        if (atomic_load(&e->workers[i].fetcher.inbox) != NULL) kio_ring_wake(e->kio, e->workers[i].ring);
}

/* ---- the worker's part ------------------------------------------------------------------------------------------- */

int fetcher_open(fetcher *f)
{
    f->waiting_end = &f->waiting;
    f->reads = calloc(RW_IO_DEPTH, sizeof *f->reads);
    return f->reads != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for a worker's reads");
}

void fetcher_close(fetcher *f)
{
    free(f->reads);
    f->reads = NULL;
}

static void waiting_add(fetcher *f, page_fetch *fetch)
{
    fetch->next = NULL;
    *f->waiting_end = fetch;
    f->waiting_end = &fetch->next;
}

static void inbox_take(fetcher *f)
{
    page_fetch *fetch = list_take(&f->inbox), *next;
    for (; fetch != NULL; fetch = next) {
        next = fetch->next;
        if (fetch->due_ns == 0) {
            waiting_add(f, fetch);
        } else {
            fetch->next = f->timed;
            f->timed = fetch;
        }
    }
}

static page_read *read_free(fetcher *f)
{
    for (unsigned i = 0; i < RW_IO_DEPTH; i++)
        if (f->reads[i].fetches == NULL) return &f->reads[i];
    return NULL;
}

/* Joins the read of the same page that is under way here. Not of a spill's: each wants another record of it, for another leaf. */
static bool read_join(fetcher *f, page_fetch *fetch)
{
    if (fetch->miss.spilled) return false;
    for (unsigned i = 0; i < RW_IO_DEPTH; i++) {
        page_read *read = &f->reads[i];
        if (read->fetches == NULL || read->read.miss.ref.word != fetch->miss.ref.word || read->read.miss.ref.checksum != fetch->miss.ref.checksum) continue;
        fetch->next = read->fetches;
        read->fetches = fetch;
        if (read->read.miss.asked != fetch->miss.asked) read->read.miss.stays = true; /* more than one record is wanted of it */
        return true;
    }
    return false;
}

static bool frame_admit(engine *e)
{
    if (atomic_fetch_add(&e->fetch_frames, 1) < RW_MAX(e->trees.pool.frame_count / FETCH_SHARE, 1u)) return true;
    atomic_fetch_sub(&e->fetch_frames, 1);
    return false;
}

/* Result of read_begin besides 0, TREE_FRAMES and TREE_BUSY: there are enough reads under way. */
enum { READ_NO_ROOM = TREE_BUSY + 1 };

static int read_begin(engine *e, fetcher *f, const page_fetch *fetch, unsigned in_hand, page_read **out)
{
    if (in_hand == RW_IO_DEPTH || !frame_admit(e)) return READ_NO_ROOM;
    *out = read_free(f);
    RW_ASSERT(*out != NULL);
    int state = trees_read_begin(&e->trees, &fetch->miss, &(*out)->read, &(*out)->op);
    if (state != 0) atomic_fetch_sub(&e->fetch_frames, 1);
    return state;
}

void fetcher_begin(engine *e, fetcher *f, kio_ring *ring)
{
    kio_op *ops[RW_IO_DEPTH];
    unsigned count = 0;
    bool room = true;
    inbox_take(f);
    page_fetch *fetch = f->waiting, *next;
    f->waiting = NULL;
    f->waiting_end = &f->waiting;
    for (; fetch != NULL; fetch = next) {
        next = fetch->next;
        page_read *read = NULL;
        int state = room ? read_begin(e, f, fetch, f->in_flight + f->landed + count, &read) : READ_NO_ROOM;
        room = state != READ_NO_ROOM;
        if (state == 0) {
            fetch->next = NULL;
            read->fetches = fetch;
            read->landed = false;
            ops[count++] = &read->op;
        } else if (state == TREE_FRAMES && pool_frames_error(&e->trees.pool) != 0) {
            fetch_done(fetch, true);
        } else if (state != TREE_BUSY || !read_join(f, fetch)) waiting_add(f, fetch);
    }
    f->in_flight += count;
    if (count > 0) kio_ring_submit(e->kio, ring, ops, count);
}

bool fetcher_landed(fetcher *f, kio_op *op)
{
    page_read *read = RW_CONTAINER_OF(op, page_read, op);
    if (read < f->reads || read >= f->reads + RW_IO_DEPTH) return false;
    RW_ASSERT(read->fetches != NULL && !read->landed);
    read->landed = true;
    f->in_flight--;
    f->landed++;
    return true;
}

static void reads_settle(engine *e, fetcher *f)
{
    for (unsigned i = 0; i < RW_IO_DEPTH && f->landed > 0; i++) {
        page_read *read = &f->reads[i];
        if (read->fetches == NULL || !read->landed) continue;
        int state = trees_read_end(&e->trees, &read->read, read->op.result);
        if (state == TREE_BUSY) continue;
        page_fetch *fetch = read->fetches, *next;
        read->fetches = NULL;
        f->landed--;
        atomic_fetch_sub(&e->fetch_frames, 1);
        for (; fetch != NULL; fetch = next) {
            next = fetch->next; /* it is not ours any more after this */
            fetch_done(fetch, state != 0);
        }
    }
}

static void timed_settle(engine *e, fetcher *f)
{
    if (f->timed == NULL) return;
    uint64_t now = kio_now_ns(e->kio);
    page_fetch *fetch = f->timed, *next;
    f->timed = NULL;
    for (; fetch != NULL; fetch = next) {
        next = fetch->next;
        if (fetch->due_ns <= now) {
            fetch_done(fetch, false);
        } else {
            fetch->next = f->timed;
            f->timed = fetch;
        }
    }
}

void fetcher_settle(engine *e, fetcher *f)
{
    if (f->landed > 0) reads_settle(e, f);
    timed_settle(e, f);
}

int64_t fetcher_patience(engine *e, const fetcher *f)
{
    if (atomic_load(&f->inbox) != NULL) return 0;
    if (f->landed > 0 || (f->waiting != NULL && f->in_flight == 0)) return AGAIN_NS; /* a read that comes in is a reason to look, too */
    if (f->timed == NULL) return -1;
    uint64_t now = kio_now_ns(e->kio), due = UINT64_MAX;
    for (const page_fetch *fetch = f->timed; fetch != NULL; fetch = fetch->next) due = RW_MIN(due, fetch->due_ns);
    return due > now ? (int64_t)(due - now) : 0;
}
