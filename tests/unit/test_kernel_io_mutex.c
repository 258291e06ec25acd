/* The mutex: one at a time, nobody asleep for ever, nobody kept out by a thread that takes it again and again. In the simulator, and with threads. */
#include <stdlib.h>

#include "base/base.h"
#include "base/random.h"
#include "kernel_io/kernel_io.h"
#include "tests/sim/sim.h"
#include "tests/support/tap.h"

#define SEEDS 300u
#define GREEDY_TURNS 3000u
#define HOLD_NS 300000
#define WAITERS 3u
#define WAITS 20u
#define TURNS_MOST 40u         /* 12 ms: the patience, what the simulator lets a thread stand still, and who else is waiting */

typedef struct {
    kio *k;
    kio_mutex mutex;
    unsigned inside;           /* under the mutex */
    uint64_t turns;            /* of the greedy one */
    uint64_t most;             /* turns that one waiter has waited for; under the mutex */
    uint64_t counter;          /* under the mutex */
    _Atomic uint32_t never;    /* slept on until the time is over */
    _Atomic uint32_t waiting;
    bool overlapped;
} scene;

static void hold(scene *s, int64_t time_ns)
{
    s->overlapped = s->overlapped || s->inside++ != 0;
    if (time_ns > 0) kio_sleep(s->k, &s->never, 0, time_ns);
    s->inside--;
}

/* Unlocks only to lock again. */
static void run_greedy(void *arg)
{
    scene *s = arg;
    for (unsigned i = 0; i < GREEDY_TURNS && atomic_load(&s->waiting) > 0; i++) {
        kio_mutex_lock(s->k, &s->mutex);
        s->turns++;
        hold(s, HOLD_NS);
        kio_mutex_unlock(s->k, &s->mutex);
    }
}

static void run_waiter(void *arg)
{
    scene *s = arg;
    for (unsigned i = 0; i < WAITS; i++) {
        uint64_t before = s->turns;
        kio_mutex_lock(s->k, &s->mutex);
        s->most = RW_MAX(s->most, s->turns - before);
        s->counter++;
        hold(s, i % 2 == 0 ? 0 : HOLD_NS);
        kio_mutex_unlock(s->k, &s->mutex);
        kio_sleep(s->k, &s->never, 0, 5000000);
    }
    atomic_fetch_sub(&s->waiting, 1);
}

static void run_scene(void *arg)
{
    scene *s = arg;
    kio_thread *threads[WAITERS + 1];
    atomic_init(&s->waiting, WAITERS);
    for (unsigned i = 0; i <= WAITERS; i++)
        TAP_CHECK(kio_thread_start(s->k, i == 0 ? "greedy" : "waiter", -1, i == 0 ? run_greedy : run_waiter, s, &threads[i]) == 0);
    for (unsigned i = 0; i <= WAITERS; i++) kio_thread_join(s->k, threads[i]);
}

static void test_greedy(void)
{
    uint64_t most = 0, worst = 0, turns = 0;
    unsigned served = 0, apart = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        scene s = {0};
        sim_disk *disk = sim_disk_create();
        sim_world *world = sim_world_open(disk, seed);
        s.k = sim_world_kio(world);
        sim_step_limit(world, 2000000);
        sim_run(world, run_scene, &s);
        served += s.counter == WAITERS * WAITS;
        apart += !s.overlapped && kio_mutex_try(&s.mutex);
        turns += s.turns;
        if (s.most > most) most = s.most, worst = seed;
        sim_world_close(world);
        sim_disk_destroy(disk);
    }
    tap_ok(served == SEEDS && apart == SEEDS, "all are served, one at a time: %u and %u of %u", served, apart, SEEDS);
    tap_ok(turns > SEEDS * WAITERS * WAITS, "while one takes the mutex all the time: %llu turns", (unsigned long long)turns);
    tap_ok(most <= TURNS_MOST, "and for at most %u turns of that one: %llu (seed %llu)", TURNS_MOST, (unsigned long long)most, (unsigned long long)worst);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define THREADS 6u
#define THREAD_TURNS 30000u

typedef struct {
    scene *s;
    unsigned number;
} thread_arg;

static void run_thread(void *arg)
{
    const thread_arg *a = arg;
    scene *s = a->s;
    rw_random random;
    rw_random_seed(&random, a->number);
    for (unsigned i = 0; i < THREAD_TURNS; i++) {
        if (rw_random_below(&random, 16) != 0 || !kio_mutex_try(&s->mutex)) kio_mutex_lock(s->k, &s->mutex);
        s->counter++;
        /* now and then for longer than a sleeper's patience, so that all of the states are met */
        hold(s, rw_random_below(&random, 1000) == 0 ? 1500000 : 0);
        kio_mutex_unlock(s->k, &s->mutex);
        if (rw_random_below(&random, 64) == 0) kio_yield(s->k);
    }
}

static void test_threads(void)
{
    scene s = {0};
    kio_thread *threads[THREADS];
    thread_arg args[THREADS];
    TAP_CHECK(kio_open("psync", NULL, NULL, &s.k) == 0);
    for (unsigned i = 0; i < THREADS; i++) {
        args[i] = (thread_arg){&s, i};
        TAP_CHECK(kio_thread_start(s.k, "mutex", -1, run_thread, &args[i], &threads[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) kio_thread_join(s.k, threads[i]);
    tap_ok(s.counter == (uint64_t)THREADS * THREAD_TURNS && !s.overlapped && kio_mutex_try(&s.mutex), "%u threads, one at a time", THREADS);
    kio_close(s.k);
}

int main(void)
{
    test_greedy();
    test_threads();
    return tap_done();
}
