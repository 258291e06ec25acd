/*
 * A ring over a few threads that make blocking calls. Threads are added when more work waits than threads are idle, up to THREADS_MAX or the
 * ring's depth; they stay until the ring is closed.
 */
#include <stdlib.h>

#include "kernel_io/posix.h"

#define THREADS_MAX 16u

typedef struct {
    kio_op *head, **tail;
} op_list;

struct kio_ring {
    /* set at open */
    kio *k;
    unsigned threads_max;
    /* owner only */
    unsigned threads;
    kio_thread *thread[THREADS_MAX];
    /* under mutex */
    kio_mutex mutex;
    op_list queued, finished;
    unsigned queued_count;        /* length of queued */
    unsigned idle;                /* threads that sleep, or were woken and have not taken work yet */
    bool stopping;
    /* changed under mutex, read by anyone */
    _Atomic uint32_t finished_count;   /* length of finished */
    _Atomic uint32_t work;        /* changes when there is something new for the threads; idle ones sleep on it */
    /* atomic */
    posix_waker waker;            /* the waiting owner sleeps on its state */
};

static void list_init(op_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_push(op_list *list, kio_op *op)
{
    op->next = NULL;
    *list->tail = op;
    list->tail = &op->next;
}

static kio_op *list_pop(op_list *list)
{
    kio_op *op = list->head;
    RW_ASSERT(op != NULL);
    list->head = op->next;
    if (list->head == NULL) list->tail = &list->head;
    op->next = NULL;
    return op;
}

/* Under the mutex. NULL: the ring is being closed and all work is done. */
static kio_op *work_take(kio_ring *r)
{
    while (r->queued.head == NULL) {
        if (r->stopping) return NULL;
        uint32_t seen = atomic_load(&r->work);
        r->idle++;
        kio_mutex_unlock(r->k, &r->mutex);
        kio_sleep(r->k, &r->work, seen, -1);
        kio_mutex_lock(r->k, &r->mutex);
        r->idle--;
    }
    r->queued_count--;
    return list_pop(&r->queued);
}

static void thread_run(void *arg)
{
    kio_ring *r = arg;
    kio_mutex_lock(r->k, &r->mutex);
    for (kio_op *op; (op = work_take(r)) != NULL;) {
        kio_mutex_unlock(r->k, &r->mutex);
        posix_op_run(op);
        kio_mutex_lock(r->k, &r->mutex);
        list_push(&r->finished, op);
        atomic_fetch_add(&r->finished_count, 1);
        if (posix_waker_interrupt(&r->waker)) kio_wake(r->k, &r->waker.state, 1);
    }
    kio_mutex_unlock(r->k, &r->mutex);
}

static int thread_add(kio_ring *r)
{
    int code = kio_thread_start(r->k, "rw-psync", -1, thread_run, r, &r->thread[r->threads]);
    if (code == 0) r->threads++;
    return code;
}

int psync_ring_open(kio *k, unsigned depth, kio_ring **out)
{
    RW_ASSERT(depth > 0);
    kio_ring *r = calloc(1, sizeof *r);
    if (r == NULL) return rw_error(RW_ENOMEM, "cannot open an I/O ring: out of memory");
    r->k = k;
    r->threads_max = RW_MIN(depth, THREADS_MAX);
    list_init(&r->queued);
    list_init(&r->finished);
    int code = thread_add(r);
    if (code != 0) {
        free(r);
        return code;
    }
    *out = r;
    return 0;
}

/* What is queued and in flight is carried out before the threads end. */
void psync_ring_close(kio *k, kio_ring *r)
{
    kio_mutex_lock(k, &r->mutex);
    r->stopping = true;
    atomic_fetch_add(&r->work, 1);
    kio_mutex_unlock(k, &r->mutex);
    kio_wake(k, &r->work, UINT32_MAX);
    for (unsigned i = 0; i < r->threads; i++) kio_thread_join(k, r->thread[i]);
    RW_ASSERT(r->queued.head == NULL);
    free(r);
}

void psync_ring_submit(kio *k, kio_ring *r, kio_op **ops, unsigned count)
{
    if (count == 0) return;
    for (unsigned i = 0; i < count; i++) posix_op_start(ops[i]);
    kio_mutex_lock(k, &r->mutex);
    for (unsigned i = 0; i < count; i++) list_push(&r->queued, ops[i]);
    r->queued_count += count;
    unsigned to_wake = RW_MIN(count, r->idle), missing = r->queued_count > r->idle ? r->queued_count - r->idle : 0;
    atomic_fetch_add(&r->work, 1);
    kio_mutex_unlock(k, &r->mutex);
    if (to_wake > 0) kio_wake(k, &r->work, to_wake);
    /* fewer threads than wished are still enough to get everything done */
    for (; missing > 0 && r->threads < r->threads_max; missing--) {
        if (thread_add(r) != 0) break;
    }
}

static unsigned finished_take(kio_ring *r, kio_op **done, unsigned max)
{
    if (atomic_load(&r->finished_count) == 0) return 0;
    unsigned count = 0;
    kio_mutex_lock(r->k, &r->mutex);
    while (count < max && r->finished.head != NULL) done[count++] = list_pop(&r->finished);
    atomic_fetch_sub(&r->finished_count, count);
    kio_mutex_unlock(r->k, &r->mutex);
    return count;
}

/* Until an operation is finished, a wake comes or the time is over. */
static void owner_wait(kio_ring *r, int64_t wait_ns)
{
    uint64_t deadline = wait_ns < 0 ? 0 : kio_now_ns(r->k) + (uint64_t)wait_ns;
    if (!posix_waker_begin_wait(&r->waker)) return;
    /* what was finished before WAITING could be seen interrupts nobody: look once more */
    while (posix_waker_is_waiting(&r->waker) && atomic_load(&r->finished_count) == 0) {
        int64_t left = -1;
        if (wait_ns >= 0) {
            uint64_t now = kio_now_ns(r->k);
            if (now >= deadline) break;
            left = (int64_t)(deadline - now);
        }
        kio_sleep(r->k, &r->waker.state, POSIX_WAKER_WAITING, left);
    }
    posix_waker_end_wait(&r->waker);
}

unsigned psync_ring_reap(kio *k, kio_ring *r, kio_op **done, unsigned max, int64_t wait_ns)
{
    (void)k;
    RW_ASSERT(max > 0);
    unsigned count = finished_take(r, done, max);
    if (count > 0 || wait_ns == 0) return count;
    owner_wait(r, wait_ns);
    return finished_take(r, done, max);
}

void psync_ring_wake(kio *k, kio_ring *r)
{
    if (posix_waker_wake(&r->waker)) kio_wake(k, &r->waker.state, 1);
}
