/*
 * Recovery's readers: before a piece of the log is applied, by one thread, many find the places that it will change, so that as many reads are in flight
 * as the device likes, and the places are known. What they cannot read is met again, and reported, when it is applied.
 */
#include "engine/preload.h"

#define PRELOAD_THREADS 32u
#define PRELOAD_FRAMES_PER_THREAD 64u  /* in a small cache fewer, so that they do not evict each other's pages */
#define PRELOAD_CLAIM 16u              /* keys that a thread takes at a time */

struct preload {
    engine *e;
    kio_thread *threads[PRELOAD_THREADS];
    unsigned thread_count;
    /* set by preload_begin before the round is raised */
    const preload_key *keys;
    uint32_t key_count;
    /* any thread */
    _Atomic uint32_t next;             /* the next key that nobody has taken */
    _Atomic uint32_t round;            /* raised when there is work, or stop */
    _Atomic uint32_t busy;             /* threads that have not finished the round */
    _Atomic uint32_t stop;
};

/* Looks for the keys, not only for their leaves: so a hint is left for who applies the piece, and the descent, with its chain of cache misses, is made here. */
static void keys_find(preload *p)
{
    trees *t = &p->e->trees;
    tree_value ignored;
    tree_miss missing;
    for (;;) {
        uint32_t from = atomic_fetch_add(&p->next, PRELOAD_CLAIM), to = RW_MIN(from + PRELOAD_CLAIM, p->key_count);
        if (from >= p->key_count) return;
        for (uint32_t i = from; i < to; i++) trees_get_ahead(t, p->keys[i].key, TREES_AHEAD_HINT);
        for (uint32_t i = from; i < to; i++) trees_get_ahead(t, p->keys[i].key, TREES_AHEAD_LEAF);
        for (uint32_t i = from; i < to; i++) {
            bool read = !p->keys[i].pends || !pending_takes_more(&t->pending);
            (void)trees_get(t, p->keys[i].key, NULL, 0, 0, &ignored, read ? NULL : &missing);
        }
    }
}

static void preload_thread(void *arg)
{
    preload *p = arg;
    kio *k = p->e->kio;
    for (uint32_t seen = 0;; seen++) {
        while (atomic_load(&p->round) == seen) kio_sleep(k, &p->round, seen, -1);
        if (atomic_load(&p->stop) != 0) return;
        keys_find(p);
        if (atomic_fetch_sub(&p->busy, 1) == 1) kio_wake(k, &p->busy, 1);
    }
}

static void round_begin(preload *p)
{
    atomic_fetch_add(&p->round, 1);
    kio_wake(p->e->kio, &p->round, UINT32_MAX);
}

int preload_open(engine *e, preload **out)
{
    preload *p = calloc(1, sizeof *p);
    if (p == NULL) return rw_error(RW_ENOMEM, "no memory to read ahead");
    p->e = e;
    unsigned wanted = RW_MIN(PRELOAD_THREADS, 1 + e->trees.pool.frame_count / PRELOAD_FRAMES_PER_THREAD);
    int error = 0;
    while (p->thread_count < wanted && error == 0) {
        error = kio_thread_start(e->kio, "ringwood-read", -1, preload_thread, p, &p->threads[p->thread_count]);
        if (error == 0) p->thread_count++;
    }
    if (p->thread_count == 0) { /* fewer than wanted are enough, none is not */
        free(p);
        return error;
    }
    *out = p;
    return 0;
}

void preload_begin(preload *p, const preload_key *keys, uint32_t count)
{
    RW_ASSERT(atomic_load(&p->busy) == 0);
    p->keys = keys;
    p->key_count = count;
    atomic_store(&p->next, 0);
    atomic_store(&p->busy, p->thread_count);
    round_begin(p);
}

void preload_wait(preload *p)
{
    for (;;) {
        uint32_t busy = atomic_load(&p->busy);
        if (busy == 0) return;
        kio_sleep(p->e->kio, &p->busy, busy, -1);
    }
}

void preload_close(preload *p)
{
    preload_wait(p);
    atomic_store(&p->stop, 1);
    round_begin(p);
    for (unsigned i = 0; i < p->thread_count; i++) kio_thread_join(p->e->kio, p->threads[i]);
    free(p);
}
