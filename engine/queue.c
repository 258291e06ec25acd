/* Queues: the public calls, and the way of operations through them. */
#include "base/planted.h"
#include "base/preempt.h"
#include "engine/queue.h"

#define QUEUE_DEPTH_MAX 65536u

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static void list_open(slot_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void list_add(slot_list *list, queue_slot *slot)
{
    slot->next = NULL;
    *list->end = slot;
    list->end = &slot->next;
}

static queue_slot *list_take(slot_list *list)
{
    queue_slot *slot = list->first;
    if (slot == NULL) return NULL;
    list->first = slot->next;
    if (list->first == NULL) list->end = &list->first;
    return slot;
}

/* ---- from other threads ------------------------------------------------------------------------------------------ */

/* Beside the word: the descriptor, by the first who finds it not raised. What there is to find was put where it is found before. */
static void queue_event(void *arg)
{
    rw_queue *q = arg;
    int event = atomic_load(&q->event);
    if (event >= 0 && atomic_exchange(&q->raised, 1) == 0) kio_event_raise(q->e->kio, event);
}

/*
 * Cleared first, then said to be: whoever saw it raised, and left it at that, is found in the lists that are looked at next. It is cleared each time, raised or
 * not: of a thread that says so and has not raised it yet the descriptor is readable later, for nothing, and must not stay so.
 */
static void queue_event_clear(rw_queue *q)
{
    int event = atomic_load_explicit(&q->event, memory_order_relaxed);
    if (event < 0) return;
    bool too_early = RW_PLANTED(rest_before_clear);
    if (too_early) atomic_store(&q->raised, 0);
    kio_event_clear(q->e->kio, event);
    if (!too_early) atomic_store(&q->raised, 0);
    atomic_thread_fence(memory_order_seq_cst); /* the looks at the lists are weaker */
}

static void queue_durable(void *arg)
{
    rw_queue *q = arg;
    mailbox_raise(&q->mailbox);
}

/* ---- fetches ----------------------------------------------------------------------------------------------------- */

queue_fetch *queue_fetch_take(rw_queue *q, queue_slot *slot)
{
    queue_fetch *f = &slot->own;
    if (f->slot != NULL) {
        f = q->free_fetches;
        if (f == NULL) return NULL;
        q->free_fetches = f->next;
    }
    f->slot = slot;
    return f;
}

void queue_fetch_give(rw_queue *q, queue_fetch *f)
{
    queue_slot *slot = f->slot;
    f->slot = NULL;
    if (f == &slot->own) return;
    f->next = q->free_fetches;
    q->free_fetches = f;
}

static void fetch_park(rw_queue *q, queue_fetch *f)
{
    f->fetch.mailbox = &q->mailbox;
    f->slot->fetches++;
    q->fetches_out++;
    q->kick = true;
    fetch_start(q->e, &f->fetch);
}

void queue_park_for_page(rw_queue *q, queue_fetch *f, const tree_miss *miss, size_t part)
{
    f->part = part;
    f->fetch.miss = *miss;
    f->fetch.due_ns = 0;
    fetch_park(q, f);
}

void queue_park_for_time(rw_queue *q, queue_fetch *f, int64_t wait_ns)
{
    f->fetch.due_ns = kio_now_ns(q->e->kio) + (uint64_t)wait_ns;
    fetch_park(q, f);
}

static void workers_kick(rw_queue *q)
{
    if (q->kick) fetch_kick(q->e);
    q->kick = false;
}

/* ---- an operation's way ------------------------------------------------------------------------------------------ */

static void slot_complete(rw_queue *q, queue_slot *slot, int result)
{
    RW_ASSERT(slot->fetches == 0 && slot->cursor == NULL && slot->txn == NULL && result <= 0);
    if (RW_PLANTED(cancelled_and_done) && slot->cancelled) result = RW_ECANCELED;
    slot->op->result = result;
    slot->state = SLOT_COMPLETE;
    list_add(&q->complete, slot);
}

static void slot_advance(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    int state = queue_step(q, slot, back);
    slot->begun = true;
    if (state == STEP_PARKED) {
        slot->state = SLOT_PARKED;
    } else if (state == STEP_DURABLE) {
        slot->state = SLOT_LOGGED;
        RW_ASSERT(slot->end_lsn > q->logged_lsn); /* the log's order is the order in which one thread commits */
        q->logged_lsn = slot->end_lsn;
        list_add(&q->logged, slot);
    } else {
        if (back != NULL && back->slot == slot) queue_fetch_give(q, back);
        slot_complete(q, slot, state);
    }
}

static void slot_resume(rw_queue *q, queue_fetch *back)
{
    queue_slot *slot = back->slot;
    RW_ASSERT(slot->state == SLOT_PARKED && slot->fetches > 0);
    slot->fetches--;
    q->fetches_out--;
    slot->alone = slot->alone || back->fetch.failed;
    if (!slot->cancelled || RW_PLANTED(cancelled_and_done)) {
        slot_advance(q, slot, back);
        return;
    }
    queue_fetch_give(q, back);
    if (slot->fetches > 0) return;
    queue_step_undo(slot);
    slot_complete(q, slot, rw_error(RW_ECANCELED, "the operation was cancelled"));
}

static void ready_take(rw_queue *q)
{
    page_fetch *fetch = mailbox_take(&q->mailbox), *next;
    for (; fetch != NULL; fetch = next) {
        next = fetch->next;
        slot_resume(q, RW_CONTAINER_OF(fetch, queue_fetch, fetch));
    }
    workers_kick(q);
}

static void logged_take(rw_queue *q)
{
    while (q->logged.first != NULL) {
        int error = RW_PLANTED(complete_before_durable) ? 0 : wal_poll(q->e->wal, q->logged.first->end_lsn);
        if (error == RW_EBUSY) return;
        slot_complete(q, list_take(&q->logged), error);
    }
}

/* Everything that has come back from others. */
static void queue_work(rw_queue *q)
{
    queue_event_clear(q);
    ready_take(q);
    logged_take(q);
}

/* Whoever waits for the log is told by it. False: there is something to take already. */
static bool queue_watch(rw_queue *q)
{
    return q->logged.first == NULL || wal_watch(q->e->wal, &q->watcher, q->logged.first->end_lsn, q->logged_lsn);
}

/* Before the thread leaves it: what is going on goes on, and the descriptor tells when there is something. */
static void queue_settle(rw_queue *q)
{
    workers_kick(q);
    bool more = !queue_watch(q) || q->complete.first != NULL;
    if (more) queue_event(q);
}

/* ---- one thread at a time ---------------------------------------------------------------------------------------- */

static int queue_enter(rw_queue *q)
{
    engine *e;
    if (q == NULL) return rw_error(RW_EINVAL, "the queue is NULL");
    int error = engine_of(q->db, &e);
    if (error != 0) return error;
    return atomic_exchange_explicit(&q->busy, 1, memory_order_acquire) == 0 ? 0 : rw_error(RW_EBUSY, "another thread is in the queue");
}

static int queue_leave(rw_queue *q, int result)
{
    atomic_store_explicit(&q->busy, 0, memory_order_release);
    return result;
}

/* ---- the public calls -------------------------------------------------------------------------------------------- */

static void queue_free(rw_queue *q)
{
    free(q->slots);
    free(q->fetches);
    free(q);
}

static rw_queue *queue_make(unsigned depth)
{
    rw_queue *q = calloc(1, sizeof *q);
    if (q == NULL) return NULL;
    q->depth = depth;
    q->slots = calloc(depth, sizeof *q->slots);
    q->fetches = calloc(QUEUE_FETCHES, sizeof *q->fetches);
    if (q->slots == NULL || q->fetches == NULL) {
        queue_free(q);
        return NULL;
    }
    for (unsigned i = depth; i-- > 0;) {
        q->slots[i].owner = q;
        q->slots[i].next = q->free;
        q->free = &q->slots[i];
    }
    for (unsigned i = 0; i < QUEUE_FETCHES; i++) {
        q->fetches[i].next = q->free_fetches;
        q->free_fetches = &q->fetches[i];
    }
    list_open(&q->logged);
    list_open(&q->complete);
    atomic_init(&q->event, -1);
    return q;
}

int rw_queue_open(rw_db *db, unsigned depth, rw_queue **out)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (out == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    if (depth == 0 || depth > QUEUE_DEPTH_MAX) return rw_error(RW_EINVAL, "a queue's depth is 1 to %u, not %u", QUEUE_DEPTH_MAX, depth);
    rw_queue *q = queue_make(depth);
    if (q == NULL) return rw_error(RW_ENOMEM, "no memory for a queue of %u operations", depth);
    q->e = e;
    q->db = db;
    q->mailbox.kio = e->kio;
    q->mailbox.notify = queue_event;
    q->mailbox.arg = q;
    q->watcher.notify = queue_durable;
    q->watcher.arg = q;
    wal_watch_begin(e->wal, &q->watcher);
    atomic_fetch_add(&e->children, 1);
    *out = q;
    return 0;
}

int rw_queue_fd(rw_queue *q)
{
    int event, error = queue_enter(q);
    if (error != 0) return error;
    event = atomic_load(&q->event);
    if (event >= 0) return queue_leave(q, event);
    error = kio_event_open(q->e->kio, &event);
    if (error != 0) return queue_leave(q, error);
    atomic_store(&q->event, event);
    queue_event(q); /* what came before found no descriptor */
    return queue_leave(q, event);
}

static queue_slot *slot_of(rw_queue *q, const rw_op *op)
{
    queue_slot *slot = op->slot < q->depth ? &q->slots[op->slot] : NULL;
    return slot != NULL && slot->state != SLOT_FREE && slot->op == op ? slot : NULL;
}

/* Takes their places, or none. */
static int ops_admit(rw_queue *q, rw_op **ops, unsigned count)
{
    if (count > q->depth - q->count) return rw_error(RW_EBUSY, "the queue has room for %u more operations, not for %u", q->depth - q->count, count);
    unsigned taken = 0;
    int error = 0;
    for (; taken < count && error == 0; taken++) {
        rw_op *op = ops[taken];
        if (op == NULL) error = rw_error(RW_EINVAL, "operation %u is NULL", taken);
        else if (slot_of(q, op) != NULL) error = rw_error(RW_EBUSY, "operation %u is in the queue already", taken);
        if (error != 0) break;
        queue_slot *slot = q->free;
        q->free = slot->next;
        *slot = (queue_slot){.owner = q, .op = op, .state = SLOT_PARKED};
        op->slot = (uint32_t)(slot - q->slots);
    }
    q->count += taken;
    while (error != 0 && taken > 0) {
        queue_slot *slot = &q->slots[ops[--taken]->slot];
        slot->state = SLOT_FREE;
        slot->next = q->free;
        q->free = slot;
        q->count--;
    }
    return error;
}

int rw_submit(rw_queue *q, rw_op **ops, unsigned count)
{
    int error = queue_enter(q);
    if (error != 0) return error;
    if (ops == NULL && count > 0) return queue_leave(q, rw_error(RW_EINVAL, "the operations are NULL"));
    error = ops_admit(q, ops, count);
    if (error != 0) return queue_leave(q, error);
    for (unsigned i = 0; i < count; i++) slot_advance(q, &q->slots[ops[i]->slot], NULL);
    queue_settle(q);
    return queue_leave(q, 0);
}

static unsigned complete_take(rw_queue *q, rw_op **done, unsigned max)
{
    unsigned taken = 0;
    while (taken < max && q->complete.first != NULL) {
        queue_slot *slot = list_take(&q->complete);
        done[taken++] = slot->op;
        slot->state = SLOT_FREE;
        slot->next = q->free;
        q->free = slot;
        q->count--;
    }
    return taken;
}

/* Sleeps until there may be something, or the deadline (UINT64_MAX: none). False: it has passed. */
static bool queue_sleep(rw_queue *q, uint32_t word, uint64_t deadline_ns)
{
    int64_t timeout_ns = -1;
    if (!queue_watch(q) || atomic_load(&q->mailbox.fetches) != NULL) return true;
    if (deadline_ns != UINT64_MAX) {
        uint64_t now = kio_now_ns(q->e->kio);
        if (now >= deadline_ns) return false;
        timeout_ns = (int64_t)(deadline_ns - now);
    }
    kio_sleep(q->e->kio, &q->mailbox.word, word, timeout_ns);
    return true;
}

int rw_reap(rw_queue *q, rw_op **done, unsigned min, unsigned max, int64_t timeout_ns)
{
    int error = queue_enter(q);
    if (error != 0) return error;
    if (max > 0 && done == NULL) return queue_leave(q, rw_error(RW_EINVAL, "the room for operations is NULL"));
    if (min > max || max > INT32_MAX) return queue_leave(q, rw_error(RW_EINVAL, "at least %u and at most %u operations cannot be reaped", min, max));
    min = RW_MIN(min, q->count);
    uint64_t deadline_ns = timeout_ns <= 0 ? UINT64_MAX : kio_now_ns(q->e->kio) + (uint64_t)timeout_ns;
    unsigned taken = 0;
    for (;;) {
        uint32_t word = atomic_load(&q->mailbox.word);
        queue_work(q);
        taken += complete_take(q, done + taken, max - taken);
        if (taken >= min || timeout_ns == 0 || !queue_sleep(q, word, deadline_ns)) break;
    }
    queue_settle(q);
    return queue_leave(q, (int)taken);
}

int rw_cancel(rw_queue *q, rw_op *op)
{
    int error = queue_enter(q);
    if (error != 0) return error;
    if (op == NULL) return queue_leave(q, rw_error(RW_EINVAL, "the operation is NULL"));
    queue_slot *slot = slot_of(q, op);
    if (slot == NULL) return queue_leave(q, rw_error(RW_ENOTFOUND, "the operation is not in the queue"));
    if (slot->state != SLOT_PARKED) return queue_leave(q, rw_error(RW_EBUSY, "the operation is over, or too far gone to be cancelled"));
    slot->cancelled = true;
    return queue_leave(q, 0);
}

int rw_queue_close(rw_queue *q)
{
    int error = queue_enter(q);
    if (error != 0) return error;
    for (unsigned i = 0; i < q->depth; i++)
        if (q->slots[i].state == SLOT_PARKED) q->slots[i].cancelled = true;
    while (q->fetches_out > 0 || q->logged.first != NULL) {
        uint32_t word = atomic_load(&q->mailbox.word);
        queue_work(q);
        if (q->fetches_out > 0 || q->logged.first != NULL) queue_sleep(q, word, UINT64_MAX);
    }
    wal_watch_end(q->e->wal, &q->watcher);
    mailbox_close(&q->mailbox);
    int event = atomic_load(&q->event);
    if (event >= 0) kio_event_close(q->e->kio, event);
    atomic_fetch_sub(&q->e->children, 1);
    queue_free(q);
    return 0;
}
