/*
 * Readers: reads that many threads wait for, handed to the kernel together, where that is faster.
 *
 * A read that a thread makes by itself costs it a system call, a word to the device, an interrupt and two changes of threads. Where many threads of one core wait for
 * reads, a thread of that core collects what they want meanwhile, and hands it over by one system call on a ring of its own: the device is told once for several
 * reads, and tells once that they are done. Where few wait it would only be in the way, so they read by themselves; and where many wait a trial tells which way is the faster one here.
 *
 *     caller:  own read, or:  inbox --> sleeps ----------------------> goes on
 *     reader:                 takes the inbox --> ring --> counts, wakes
 *
 * One thread that wants several reads at once makes them on a ring that it borrows (uring_lent.c), or gets them from the reader, too.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel_io/posix.h"
#include "kernel_io/read_trial.h"

#define READER_FROM 5u                 /* so many reads under way on a core are collected; with fewer a hand-over costs more than it saves (measured: docs/PERFORMANCE.md) */
#define READER_UNTIL 3u                /* until there are fewer than these */
#define READER_DEPTH 256u
#define READER_BYTES_MAX 65536u        /* larger reads are as good alone */
#define TRIAL_LOOK 64u                 /* reads of a core between two looks at the trial; a power of two */

typedef enum { READER_NONE, READER_STARTING, READER_READY, READER_FAILED, READER_STOPPED } reader_state;

/* One for each core, started when it is first wanted. */
typedef struct {
    /* any thread, atomic */
    RW_ALIGNED(RW_CACHE_LINE) _Atomic uint32_t under_way;  /* reads begun on this core, about: threads move */
    _Atomic uint32_t collects;         /* so many are under way that the trial's way counts */
    _Atomic uint64_t made;             /* reads, while it did */
    _Atomic uint32_t state;            /* reader_state */
    _Atomic uint32_t stop;
    _Atomic(kio_op *) inbox;           /* last in first, linked by next; context: the word on which the caller sleeps until none of his reads is left */
    /* set at open */
    kio *k;
    int cpu;
    /* set before state is READER_READY */
    kio_ring *ring;
    /* set by who started it */
    kio_thread *thread;
} reader;

struct uring_readers {
    read_trial trial;
    uring_lent *lent;
    unsigned count;
    reader each[];
};

/* ---- the reader's part ------------------------------------------------------------------------------------------- */

static void state_set(reader *r, reader_state state)
{
    atomic_store(&r->state, state);
    posix_wake(r->k, &r->state, 1);
}

static void inbox_submit(reader *r)
{
    kio_op *batch[READER_DEPTH], *op = atomic_exchange(&r->inbox, NULL);
    while (op != NULL) {
        unsigned count = 0;
        for (; op != NULL && count < READER_DEPTH; op = op->next) batch[count++] = op;
        uring_ring_submit(r->k, r->ring, batch, count);
    }
}

static void reader_run(void *arg)
{
    reader *r = arg;
    kio_op *done[READER_DEPTH];
    if (uring_ring_open(r->k, READER_DEPTH, &r->ring) != 0) {
        state_set(r, READER_FAILED);
        return;
    }
    /* It does not push aside the thread that wakes it, and those behind that: they may want reads, too. Without this right it does, and batches are smaller. */
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){0});
    state_set(r, READER_READY);
    while (atomic_load(&r->stop) == 0) {
        inbox_submit(r);
        unsigned count = uring_ring_reap(r->k, r->ring, done, READER_DEPTH, -1);
        for (unsigned i = 0; i < count; i++) {
            _Atomic uint32_t *left = done[i]->context;
            /* after this the caller may have gone on: nobody sleeps there then, or somebody who looks again */
            if (atomic_fetch_sub(left, 1) == 1) posix_wake(r->k, left, 1);
        }
    }
    while (atomic_load(&r->state) == READER_READY) posix_sleep(r->k, &r->state, READER_READY, -1); /* the stop's wake still looks at the ring */
    uring_ring_close(r->k, r->ring);
}

/* ---- the caller's part ------------------------------------------------------------------------------------------- */

static void reader_start(reader *r)
{
    uint32_t expected = READER_NONE;
    if (!atomic_compare_exchange_strong(&r->state, &expected, READER_STARTING)) return;
    if (posix_thread_start(r->k, "ringwood-reader", r->cpu, reader_run, r, &r->thread) != 0) atomic_store(&r->state, READER_FAILED);
}

/* Not yet, for who starts it. */
static bool reader_is_ready(reader *r)
{
    uint32_t state = atomic_load_explicit(&r->state, memory_order_acquire);
    if (RW_UNLIKELY(state == READER_NONE)) reader_start(r);
    return state == READER_READY;
}

/* Whether so many reads are under way on its core that they may be collected. */
static bool reader_is_wanted(reader *r, uint32_t under_way)
{
    bool collects = atomic_load_explicit(&r->collects, memory_order_relaxed) != 0;
    bool wanted = under_way >= (collects ? READER_UNTIL : READER_FROM);
    if (wanted != collects) atomic_store_explicit(&r->collects, wanted, memory_order_relaxed);
    return wanted;
}

static void reader_read(reader *r, kio_op **ops, unsigned count)
{
    _Atomic uint32_t left = count;
    for (unsigned i = 0; i < count; i++) {
        ops[i]->context = &left;
        if (i > 0) ops[i - 1]->next = ops[i];
    }
    kio_op *first = atomic_load_explicit(&r->inbox, memory_order_relaxed);
    do ops[count - 1]->next = first;
    while (!atomic_compare_exchange_weak(&r->inbox, &first, ops[0]));
    if (first == NULL) uring_ring_wake(r->k, r->ring); /* who found it empty tells; who takes the inbox takes all of it */
    for (uint32_t now; (now = atomic_load(&left)) > 0;) posix_sleep(r->k, &left, now, -1);
}

static reader *reader_here(uring_readers *readers)
{
    int cpu = sched_getcpu();
    return &readers->each[cpu < 0 ? 0 : (unsigned)cpu % readers->count];
}

/* Reads were made of which the way counts. */
static void trial_note(uring_readers *readers, reader *r, unsigned count)
{
    uint64_t before = atomic_fetch_add_explicit(&r->made, count, memory_order_relaxed), reads = 0;
    if (before / TRIAL_LOOK == (before + count) / TRIAL_LOOK) return;
    for (unsigned i = 0; i < readers->count; i++) reads += atomic_load_explicit(&readers->each[i].made, memory_order_relaxed);
    read_trial_look(&readers->trial, posix_now_ns(r->k), reads);
}

static int collected_read(reader *r, kio_file *file, void *buffer, size_t length, uint64_t offset)
{
    kio_op op = {.kind = KIO_READ, .file = file, .buffer = buffer, .offset = offset, .length = (uint32_t)length}, *ops = &op;
    reader_read(r, &ops, 1);
    return op.result == 0 ? 0 : kio_op_error(&op);
}

int uring_file_read(kio *k, kio_file *file, void *buffer, size_t length, uint64_t offset)
{
    /* what is in the page cache needs no device */
    if (!file->direct || length > READER_BYTES_MAX) return posix_file_read(k, file, buffer, length, offset);
    uring_readers *readers = ((posix_kio *)k)->readers;
    reader *r = reader_here(readers);
    bool wanted = reader_is_wanted(r, atomic_fetch_add_explicit(&r->under_way, 1, memory_order_relaxed) + 1);
    bool collected = wanted && read_trial_way(&readers->trial) == READ_COLLECTED && reader_is_ready(r);
    int error = collected ? collected_read(r, file, buffer, length, offset) : posix_file_read(k, file, buffer, length, offset);
    atomic_fetch_sub_explicit(&r->under_way, 1, memory_order_relaxed);
    if (wanted) trial_note(readers, r, 1);
    return error;
}

/* Several are worth a ring, or a hand-over, for the time that it saves, however few others there are. */
void uring_read_all(kio *k, kio_op **ops, unsigned count)
{
    uring_readers *readers = ((posix_kio *)k)->readers;
    reader *r = reader_here(readers);
    bool direct = true, wanted = reader_is_wanted(r, atomic_fetch_add_explicit(&r->under_way, count, memory_order_relaxed) + count);
    for (unsigned i = 0; i < count; i++) direct = direct && ops[i]->kind == KIO_READ && ops[i]->file->direct;
    bool collected = wanted && read_trial_way(&readers->trial) == READ_COLLECTED, together = count > 1 && direct;
    if (!together || collected || !uring_lent_read(k, readers->lent, ops, count)) {
        if (together && reader_is_ready(r)) reader_read(r, ops, count);
        else kio_read_each(k, ops, count);
    }
    atomic_fetch_sub_explicit(&r->under_way, count, memory_order_relaxed);
    if (wanted) trial_note(readers, r, count);
}

int uring_readers_open(kio *k, unsigned ring_flags, uring_readers **out)
{
    long cores = sysconf(_SC_NPROCESSORS_CONF);
    unsigned count = cores < 1 ? 1 : (unsigned)RW_MIN(cores, CPU_SETSIZE);
    size_t bytes = rw_align_up(sizeof(uring_readers), RW_CACHE_LINE) + count * sizeof(reader);
    uring_readers *readers = aligned_alloc(RW_CACHE_LINE, bytes);
    uring_lent *lent = uring_lent_open(ring_flags);
    if (readers == NULL || lent == NULL) {
        free(readers);
        free(lent);
        return rw_error(RW_ENOMEM, "cannot open the I/O back end: out of memory");
    }
    memset(readers, 0, bytes);
    read_trial_init(&readers->trial);
    readers->lent = lent;
    readers->count = count;
    for (unsigned i = 0; i < count; i++) {
        readers->each[i].k = k;
        readers->each[i].cpu = (int)i;
    }
    *out = readers;
    return 0;
}

void uring_readers_close(uring_readers *readers)
{
    for (unsigned i = 0; i < readers->count; i++) {
        reader *r = &readers->each[i];
        RW_ASSERT(atomic_load(&r->under_way) == 0);
        if (r->thread == NULL) continue;
        while (atomic_load(&r->state) == READER_STARTING) posix_sleep(r->k, &r->state, READER_STARTING, -1);
        atomic_store(&r->stop, 1);
        if (atomic_load(&r->state) == READER_READY) uring_ring_wake(r->k, r->ring);
        state_set(r, READER_STOPPED);
        posix_thread_join(r->k, r->thread);
    }
    uring_lent_close(readers->lent);
    free(readers);
}
