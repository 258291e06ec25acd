/*
 * Several reads of one thread, side by side: on a ring that it borrows while it waits for them. It hands them over and sleeps until all are done with one system call, and no other thread has to run.
 * A ring belongs to nobody between two uses, so the kernel cannot be promised a single issuer (kernel_io/README.md, The set-up of io_uring).
 */
#include <liburing.h>
#include <stdlib.h>

#include "kernel_io/posix.h"
#include "kernel_io/sanitize.h"

#define LENT_RINGS 16u                 /* threads that may do so at once; who finds none reads in another way */
#define LENT_DEPTH 32u

typedef enum { LENT_CLOSED, LENT_FREE, LENT_TAKEN, LENT_FAILED } lent_state;

typedef struct {
    RW_ALIGNED(RW_CACHE_LINE) _Atomic uint32_t state; /* lent_state */
    struct io_uring uring;             /* whose it is */
} lent_ring;

struct uring_lent {
    unsigned flags;                    /* set at open */
    lent_ring each[LENT_RINGS];
};

static bool lent_open(const uring_lent *lent, lent_ring *r)
{
    struct io_uring_params params = {.flags = lent->flags};
    if (io_uring_queue_init_params(LENT_DEPTH, &r->uring, &params) != 0) return false;
    (void)io_uring_ring_dontfork(&r->uring);
    return true;
}

static lent_ring *lent_take(uring_lent *lent)
{
    for (unsigned i = 0; i < LENT_RINGS; i++) {
        lent_ring *r = &lent->each[i];
        uint32_t state = atomic_load_explicit(&r->state, memory_order_relaxed);
        if (state != LENT_FREE && state != LENT_CLOSED) continue;
        if (!atomic_compare_exchange_strong_explicit(&r->state, &state, LENT_TAKEN, memory_order_acquire, memory_order_relaxed)) continue;
        if (state == LENT_FREE || lent_open(lent, r)) return r;
        atomic_store(&r->state, LENT_FAILED);
        return NULL;                   /* too little memory or too many files: no use in trying the next one */
    }
    return NULL;
}

static void op_prepare(lent_ring *r, kio_op *op)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&r->uring);
    RW_ASSERT(entry != NULL);          /* no more than LENT_DEPTH are under way */
    io_uring_prep_read(entry, posix_file_fd(op->file), (unsigned char *)op->buffer + op->done, op->length - op->done, op->offset + op->done);
    io_uring_sqe_set_data(entry, op);
}

/* Takes in what has ended; what was short is handed over again. Returns how many reads are finished. */
static unsigned completions_take(lent_ring *r)
{
    struct io_uring_cqe *completion;
    unsigned head, seen = 0, finished = 0;
    io_uring_for_each_cqe(&r->uring, head, completion)
    {
        kio_op *op = io_uring_cqe_get_data(completion);
        seen++;
        if (posix_op_advance(op, completion->res)) {
            sanitize_kernel_writes(op->buffer, op->length);
            finished++;
        } else op_prepare(r, op);
    }
    if (seen > 0) io_uring_cq_advance(&r->uring, seen);
    return finished;
}

/* At most LENT_DEPTH. */
static void reads_make(kio *k, lent_ring *r, kio_op **ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        RW_ASSERT(ops[i]->kind == KIO_READ);
        posix_op_start(ops[i]);
        sanitize_kernel_writes(ops[i]->buffer, ops[i]->length);
        op_prepare(r, ops[i]);
    }
    for (unsigned left = count; left > 0; left -= completions_take(r)) {
        int returned = io_uring_submit_and_wait(&r->uring, left);
        RW_ASSERT(returned >= 0 || returned == -EINTR || returned == -EAGAIN || returned == -EBUSY);
        if (returned == -EAGAIN || returned == -EBUSY) kio_yield(k); /* a passing lack of memory */
    }
}

bool uring_lent_read(kio *k, uring_lent *lent, kio_op **ops, unsigned count)
{
    lent_ring *r = lent_take(lent);
    if (r == NULL) return false;
    for (unsigned from = 0; from < count; from += LENT_DEPTH) reads_make(k, r, ops + from, RW_MIN(count - from, LENT_DEPTH));
    atomic_store_explicit(&r->state, LENT_FREE, memory_order_release);
    return true;
}

uring_lent *uring_lent_open(unsigned ring_flags)
{
    uring_lent *lent = aligned_alloc(RW_CACHE_LINE, rw_align_up(sizeof *lent, RW_CACHE_LINE));
    if (lent == NULL) return NULL;
    memset(lent, 0, sizeof *lent);
    lent->flags = ring_flags & ~(unsigned)(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if ((ring_flags & IORING_SETUP_TASKRUN_FLAG) != 0) lent->flags |= IORING_SETUP_COOP_TASKRUN;
    return lent;
}

void uring_lent_close(uring_lent *lent)
{
    for (unsigned i = 0; i < LENT_RINGS; i++) {
        uint32_t state = atomic_load(&lent->each[i].state);
        RW_ASSERT(state != LENT_TAKEN);
        if (state == LENT_FREE) io_uring_queue_exit(&lent->each[i].uring);
    }
    free(lent);
}
