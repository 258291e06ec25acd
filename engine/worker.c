/*
 * Workers: one for each core. They keep frames free, and with memory behind them, ahead of demand, write dirty pages back in large pieces, and read pages for
 * operations that do not wait (fetch.h).
 */
#include "engine/engine_internal.h"

#define IDLE_STEPS_BEFORE_WAIT 4u      /* fruitless turns of the clock before a worker waits a little */
#define FRUITLESS_WAIT_NS 1000000
#define SETTLE_WAIT_NS 100000          /* between tries of a token that was taken */
#define WRITE_BACK_SHARE 4u            /* all workers' batches together hold at most this part of the frames */
#define REAP_MAX 64u

/* Called by whoever takes a frame and sees few left. */
static void frames_wanted(void *arg)
{
    engine *e = arg;
    if (atomic_load_explicit(&e->evicting, memory_order_relaxed) != 0) return;
    if (atomic_exchange(&e->evicting, 1) != 0) return;
    for (unsigned i = 0; i < e->worker_count; i++)
        if (e->workers[i].ring != NULL) kio_ring_wake(e->kio, e->workers[i].ring);
}

/* By whoever wants the filter of all keys, which the first worker makes. */
static void learner_wake(void *arg)
{
    engine *e = arg;
    kio_ring_wake(e->kio, e->workers[0].ring);
}

/* Finishes what has landed; what is under a token that is taken, a later time: its holder may be waiting for this worker to evict. */
static bool worker_settle(worker *w)
{
    bool all = true;
    for (unsigned i = 0; i < WORKER_BATCHES; i++) {
        write_batch *batch = &w->batches[i];
        if (!batch->landed) continue;
        if (!write_batch_finish(&w->e->trees.pool, batch, true, false)) {
            all = false;
            continue;
        }
        batch->landed = batch->in_flight = false;
        int error = batch->op.result;
        if (error != 0) {
            kio_op_error(&batch->op);
            engine_fail(w->e, error, rw_error_text());
        }
    }
    return all;
}

static int64_t shorter(int64_t wait_ns, int64_t limit_ns)
{
    return limit_ns >= 0 && (wait_ns < 0 || wait_ns > limit_ns) ? limit_ns : wait_ns;
}

/* wait_ns < 0: until there is something to do. */
static void worker_reap(worker *w, int64_t wait_ns)
{
    kio_op *done[REAP_MAX];
    fetcher_begin(w->e, &w->fetcher, w->ring);
    if (!worker_settle(w)) wait_ns = shorter(wait_ns, SETTLE_WAIT_NS);
    wait_ns = shorter(wait_ns, fetcher_patience(w->e, &w->fetcher));
    unsigned count = kio_ring_reap(w->e->kio, w->ring, done, REAP_MAX, wait_ns);
    for (unsigned i = 0; i < count; i++)
        if (!fetcher_landed(&w->fetcher, done[i])) ((write_batch *)done[i]->context)->landed = true;
    worker_settle(w);
    fetcher_settle(w->e, &w->fetcher);
}

/* The first worker gets memory for hints. False: they have it all. */
static bool worker_hints_step(worker *w)
{
    return w == &w->e->workers[0] && hints_populate(&w->e->trees.hints);
}

static unsigned worker_in_flight(const worker *w)
{
    unsigned count = 0;
    for (unsigned i = 0; i < WORKER_BATCHES; i++) count += w->batches[i].in_flight;
    return count;
}

static void worker_submit(worker *w, const bool *was_in_flight)
{
    kio_op *ops[WORKER_BATCHES];
    unsigned count = 0;
    for (unsigned i = 0; i < WORKER_BATCHES; i++)
        if (w->batches[i].in_flight && !was_in_flight[i]) ops[count++] = &w->batches[i].op;
    if (count > 0) kio_ring_submit(w->e->kio, w->ring, ops, count);
}

/* Evicts until enough is free. */
static void worker_evict(worker *w)
{
    pool *p = &w->e->trees.pool;
    unsigned fruitless = 0, revolution = p->frame_count / POOL_EVICT_SCAN + 1;
    while (pool_wants_eviction(p) && atomic_load(&w->e->workers_stop) == 0) {
        bool was_in_flight[WORKER_BATCHES];
        uint64_t evicted = atomic_load_explicit(&p->counters.pages_evicted, memory_order_relaxed);
        for (unsigned i = 0; i < WORKER_BATCHES; i++) was_in_flight[i] = w->batches[i].in_flight;
        records_tend(&w->e->trees.records);
        unsigned filled = pool_evict_step(p, w->batches, WORKER_BATCHES, fruitless > revolution);
        worker_submit(w, was_in_flight);
        bool progress = filled > 0 || atomic_load_explicit(&p->counters.pages_evicted, memory_order_relaxed) != evicted;
        fruitless = progress ? 0 : fruitless + 1;
        bool waits = worker_in_flight(w) == WORKER_BATCHES || fruitless > IDLE_STEPS_BEFORE_WAIT + 2 * revolution;
        worker_reap(w, waits && !worker_hints_step(w) ? FRUITLESS_WAIT_NS : 0);
    }
}

/* What the first worker does for all readers when nothing is urgent. When it wants to go on, in ns; < 0: when it is woken. */
static int64_t worker_beside(worker *w)
{
    if (worker_hints_step(w)) return 0;
    return w == &w->e->workers[0] ? trees_learn_keys(&w->e->trees) : -1;
}

static void worker_loop(worker *w)
{
    engine *e = w->e;
    while (atomic_load(&e->workers_stop) == 0) {
        atomic_store(&e->evicting, 0);
        while (pool_populate(&e->trees.pool)) continue;
        if (pool_wants_eviction(&e->trees.pool)) {
            atomic_store(&e->evicting, 1);
            worker_evict(w);
            continue;
        }
        worker_reap(w, worker_beside(w));
    }
    while (worker_in_flight(w) > 0) worker_reap(w, -1);
    RW_ASSERT(w->fetcher.in_flight + w->fetcher.landed == 0); /* no queue is open when a database is closed */
}

static void worker_run(void *arg)
{
    worker *w = arg;
    engine *e = w->e;
    int error = kio_ring_open(e->kio, RW_IO_DEPTH, &w->ring);
    uint32_t pages_max = e->trees.pool.frame_count / WRITE_BACK_SHARE / (e->options.workers * WORKER_BATCHES);
    for (unsigned i = 0; i < WORKER_BATCHES && error == 0; i++) error = write_batch_init(&w->batches[i], e->page_size, pages_max);
    if (error == 0) error = fetcher_open(&w->fetcher);
    w->error = error;
    atomic_store(&w->ready, error == 0 ? 1 : 2);
    kio_wake(e->kio, &w->ready, 1);
    if (error == 0) worker_loop(w);
    while (atomic_load(&w->ready) == 1) kio_sleep(e->kio, &w->ready, 1, -1); /* the stop's wake still looks at the ring */
    for (unsigned i = 0; i < WORKER_BATCHES; i++) write_batch_destroy(&w->batches[i]);
    fetcher_close(&w->fetcher);
    if (w->ring != NULL) {
        kio_ring *ring = w->ring;
        w->ring = NULL;
        kio_ring_close(e->kio, ring);
    }
}

int workers_start(engine *e)
{
    e->worker_count = 0;
    e->workers = calloc(e->options.workers, sizeof *e->workers);
    if (e->workers == NULL) return rw_error(RW_ENOMEM, "no memory for %u workers", e->options.workers);
    for (unsigned i = 0; i < e->options.workers; i++) {
        worker *w = &e->workers[i];
        char name[32];
        w->e = e;
        snprintf(name, sizeof name, "ringwood-%u", i);
        int error = kio_thread_start(e->kio, name, (int)i, worker_run, w, &w->thread);
        if (error != 0) return error;
        e->worker_count++;
        while (atomic_load(&w->ready) == 0) kio_sleep(e->kio, &w->ready, 0, -1);
        if (w->error != 0) return rw_error(w->error, "a worker could not start: %s", rw_strerror(w->error));
    }
    e->trees.pool.need_frames_arg = e;
    e->trees.pool.need_frames = frames_wanted;
    e->trees.learning.wake_arg = e;
    e->trees.learning.wake = learner_wake;
    return 0;
}

void workers_stop(engine *e)
{
    e->trees.pool.need_frames = NULL;
    e->trees.learning.wake = NULL;
    atomic_store(&e->workers_stop, 1);
    for (unsigned i = 0; i < e->worker_count; i++) {
        worker *w = &e->workers[i];
        if (atomic_load(&w->ready) == 1) {
            kio_ring_wake(e->kio, w->ring);
            atomic_store(&w->ready, 3);
            kio_wake(e->kio, &w->ready, 1);
        }
        kio_thread_join(e->kio, w->thread);
    }
    free(e->workers);
    e->workers = NULL;
    e->worker_count = 0;
}
