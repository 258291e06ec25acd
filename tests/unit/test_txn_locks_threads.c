/*
 * The lock table among threads, of the machine and of the simulator: waiting, timeouts, cycles closed at once from many sides, and random
 * transactions that must exclude each other, all come to an end, and lose none but to a real cycle.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "tests/sim/sim.h"
#include "tests/support/tap.h"
#include "txn/locks.h"

#define THREADS_MAX 16u
#define SEEDS 40u                  /* of the simulator */
#define LONG_NS ((int64_t)600 * 1000000000)
#define IDS_MAX 65536u
#define KEYS 24u
#define VIEWS_MAX 512u

typedef struct bed {
    kio *k;
    pool pool;
    locks *locks;
    uint64_t seed;
    bool small;                    /* the simulator: fewer rounds */
    _Atomic uint32_t arrived;      /* at the barrier */
    unsigned count;                /* threads of this case */
    /* cycles */
    _Atomic uint32_t victims;
    _Atomic uint64_t last_victim;
    _Atomic uint32_t wrong;
    /* random transactions */
    bool ordered, timeouts;
    _Atomic uint64_t next_id;
    _Atomic uint8_t chosen[IDS_MAX];           /* by id: it was a victim */
    _Atomic uint32_t commits, timed_out;
    kio_mutex mutex;
    uint64_t gone[IDS_MAX];        /* who was named as waiting, and did not any more: must have been chosen, too. Under mutex */
    unsigned gone_count;
    uint64_t data[KEYS];           /* no one's but the locks' */
} bed;

typedef struct {
    bed *b;
    unsigned index;
    kio_thread *thread;
    lock_owner owner;
} actor;

static void bed_open(bed *b, kio *k, uint64_t seed, bool small)
{
    memset(b, 0, sizeof *b);
    b->k = k;
    b->seed = seed;
    b->small = small;
    if (pool_open(&b->pool, k, NULL, NULL, NULL, 4096, 4u << 20) != 0 || locks_open(k, &b->pool, 2u << 20, &b->locks) != 0) {
        tap_ok(false, "opening: %s", rw_error_text());
        exit(tap_done());
    }
}

static void bed_close(bed *b)
{
    TAP_CHECK(!locks_active(b->locks));
    locks_close(b->locks);
    TAP_CHECK(atomic_load(&b->pool.free_count) == b->pool.frame_count);
    pool_close(&b->pool);
}

static void actors_run(bed *b, unsigned count, void (*run)(void *))
{
    actor actors[THREADS_MAX];
    memset(actors, 0, sizeof actors);
    b->count = count;
    atomic_store(&b->arrived, 0);
    for (unsigned i = 0; i < count; i++) {
        actors[i].b = b;
        actors[i].index = i;
        TAP_CHECK(kio_thread_start(b->k, "actor", -1, run, &actors[i], &actors[i].thread) == 0);
    }
    for (unsigned i = 0; i < count; i++) kio_thread_join(b->k, actors[i].thread);
}

/* The n-th meeting of all actors. */
static void barrier(bed *b, unsigned n)
{
    atomic_fetch_add(&b->arrived, 1);
    while (atomic_load(&b->arrived) < n * b->count) kio_yield(b->k);
}

static rw_slice key_of(char *to, size_t room, unsigned number)
{
    snprintf(to, room, "k%03u", number);
    return rw_slice_of(to, strlen(to));
}

static int take(actor *a, unsigned key, unsigned end, lock_mode mode, int64_t timeout_ns)
{
    char from[16], to[16];
    rw_slice end_key = key_of(to, sizeof to, end);
    return locks_take(a->b->locks, &a->owner, key_of(from, sizeof from, key), end == key ? NULL : &end_key, mode, timeout_ns);
}

/* ---- timeouts ---------------------------------------------------------------------------------------------------- */

/* 0 holds a shared lock; 1 waits for an exclusive one, in vain; 2 stands behind 1 until then. */
static void timeout_actor(void *arg)
{
    actor *a = arg;
    bed *b = a->b;
    lock_owner_init(&a->owner, a->index + 1);
    if (a->index == 0) TAP_CHECK(take(a, 1, 1, LOCK_SHARED, 0) == 0);
    barrier(b, 1);
    if (a->index == 1) {
        uint64_t begun = kio_now_ns(b->k);
        TAP_CHECK(take(a, 0, 9, LOCK_EXCLUSIVE, 300000000) == RW_ETIMEOUT);
        TAP_CHECK(kio_now_ns(b->k) - begun >= 300000000);
        TAP_CHECK(b->small || strcmp(rw_error_text(), "a lock was not granted within 300 ms: transaction 1 holds it") == 0);
        TAP_CHECK(a->owner.count == 0 && a->owner.waiting == NULL);
    } else if (a->index == 2) {
        lock_counters counters;
        do {
            kio_yield(b->k);
            locks_counters(b->locks, &counters);
        } while (counters.waits == 0);
        int rc = take(a, 1, 1, LOCK_SHARED, 0);
        TAP_CHECK(rc == RW_ETIMEOUT || (rc == 0 && counters.timeouts == 1));
        TAP_CHECK(take(a, 1, 1, LOCK_SHARED, LONG_NS) == 0);
    }
    barrier(b, 2);
    locks_release(b->locks, &a->owner);
}

static bool test_timeout(bed *b)
{
    actors_run(b, 3, timeout_actor);
    lock_counters counters;
    locks_counters(b->locks, &counters);
    return counters.timeouts == 1 && counters.deadlocks == 0;
}

/* ---- cycles ------------------------------------------------------------------------------------------------------ */

/* Each holds its key, or the range up to the next one's, and wants the next one's. */
static void cycle_actor(void *arg)
{
    actor *a = arg;
    bed *b = a->b;
    unsigned next = (a->index + 1) % b->count;
    lock_owner_init(&a->owner, 1 + (a->index * 7 + b->count + b->seed) % b->count);
    if (take(a, a->index * 10, a->index * 10 + (a->index % 2) * 5, LOCK_EXCLUSIVE, 0) != 0) atomic_fetch_add(&b->wrong, 1);
    barrier(b, 1);
    int rc = take(a, next * 10, next * 10 + (a->index % 3) * 3, a->index % 5 == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE, LONG_NS);
    if (rc == RW_EDEADLOCK) {
        atomic_fetch_add(&b->victims, 1);
        atomic_store(&b->last_victim, a->owner.id);
    } else if (rc != 0) {
        atomic_fetch_add(&b->wrong, 1);
    }
    locks_release(b->locks, &a->owner);
}

static bool test_cycles(bed *b)
{
    bool good = true;
    for (unsigned length = 2; length <= THREADS_MAX; length++) {
        if (length % 7 == 0) continue;     /* ids are drawn by sevens */
        atomic_store(&b->victims, 0);
        actors_run(b, length, cycle_actor);
        bool right = atomic_load(&b->victims) == 1 && atomic_load(&b->last_victim) == length && atomic_load(&b->wrong) == 0;
        if (!right) tap_diag("length %u: %u victims, the last one %llu", length, atomic_load(&b->victims), (unsigned long long)atomic_load(&b->last_victim));
        good = good && right;
    }
    return good;
}

/* All read one key, then all want to write it: the oldest may. */
static void upgrade_actor(void *arg)
{
    actor *a = arg;
    bed *b = a->b;
    lock_owner_init(&a->owner, 1 + (a->index + b->seed) % b->count);
    if (take(a, 1, 1 + a->index % 2, LOCK_SHARED, 0) != 0) atomic_fetch_add(&b->wrong, 1);
    barrier(b, 1);
    int rc = take(a, 1, 1, LOCK_EXCLUSIVE, LONG_NS);
    if (rc == RW_EDEADLOCK) atomic_fetch_add(&b->victims, 1);
    if (rc != (a->owner.id == 1 ? 0 : RW_EDEADLOCK)) atomic_fetch_add(&b->wrong, 1);
    locks_release(b->locks, &a->owner);
}

static bool test_upgrades(bed *b)
{
    atomic_store(&b->victims, 0);
    actors_run(b, THREADS_MAX, upgrade_actor);
    return atomic_load(&b->victims) == THREADS_MAX - 1 && atomic_load(&b->wrong) == 0;
}

/* ---- random transactions ----------------------------------------------------------------------------------------- */

typedef struct {
    struct {
        uint64_t owner;
        lock_mode mode;
        bool waiting;
        unsigned from, to;         /* keys, the last one included */
    } views[VIEWS_MAX];
    unsigned count;
} view_list;

static unsigned key_number(rw_slice key)
{
    char copy[16] = {0};
    memcpy(copy, key.data, RW_MIN(key.size, sizeof copy - 1));
    return (unsigned)strtoul(copy + 1, NULL, 10);
}

static int view_add(void *arg, const lock_view *view)
{
    view_list *list = arg;
    if (list->count == VIEWS_MAX) return 1;
    unsigned from = key_number(view->from), at = list->count++;
    list->views[at].owner = view->owner;
    list->views[at].mode = view->mode;
    list->views[at].waiting = view->waiting;
    list->views[at].from = from;
    list->views[at].to = view->is_range ? key_number(view->to) - 1 : from;
    return 0;
}

/* Whether the list has from waiting for what to holds. */
static bool views_have(const view_list *list, uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < list->count; i++) {
        for (unsigned j = 0; j < list->count && list->views[i].owner == from && list->views[i].waiting; j++) {
            bool other = list->views[j].owner == to && !list->views[j].waiting;
            bool excluded = list->views[i].mode == LOCK_EXCLUSIVE || list->views[j].mode == LOCK_EXCLUSIVE;
            if (other && excluded && list->views[i].from <= list->views[j].to && list->views[j].from <= list->views[i].to) return true;
        }
    }
    return false;
}

/*
 * The victim still holds its locks, so who waits for it still waits, and so on backwards around the cycle, up to one that was chosen for another
 * cycle: that is noted, and looked up when all victims are known.
 */
static void victim_check(bed *b, const actor *a)
{
    view_list list = {.count = 0};
    if (locks_for_each(b->locks, view_add, &list) != 0) atomic_fetch_add(&b->wrong, 1);
    const char *at = strstr(a->owner.victim_text, "transaction ");
    unsigned long long first, next, chosen = 0;
    uint64_t cycle[THREADS_MAX + 1];
    unsigned count = 0;
    int length = 0;
    at = at == NULL ? "" : at + strlen("transaction ");
    bool begun = sscanf(at, "%llu waits for %llu%n", &first, &next, &length) == 2;
    cycle[0] = begun ? first : 0;
    for (at += length; begun && count < THREADS_MAX; at += length) {
        cycle[++count] = next;
        begun = sscanf(at, ", that for %llu%n", &next, &length) == 1;
        if (!begun) length = 0;
    }
    bool named = count > 1 && cycle[0] == a->owner.id && cycle[count] == a->owner.id;
    if (!named || sscanf(at, "; %llu was chosen", &chosen) != 1 || chosen != a->owner.id) {
        tap_diag("not a cycle: %s", a->owner.victim_text);
        atomic_fetch_add(&b->wrong, 1);
        return;
    }
    unsigned i = count - 1;
    while (i > 0 && views_have(&list, cycle[i], cycle[i + 1])) i--;
    if (i == 0) return;
    kio_mutex_lock(b->k, &b->mutex);
    b->gone[b->gone_count++] = cycle[i];
    kio_mutex_unlock(b->k, &b->mutex);
}

/* Writes, or reads, what its locks give it the right to. */
static void data_use(actor *a, unsigned from, unsigned to, lock_mode mode)
{
    bed *b = a->b;
    uint64_t sum = 0;
    for (unsigned i = from; i <= to; i++) {
        if (mode == LOCK_EXCLUSIVE) b->data[i] = a->owner.id;
        sum += b->data[i];
    }
    kio_yield(b->k);
    for (unsigned i = from; i <= to; i++) sum -= b->data[i];
    if (sum != 0) atomic_fetch_add(&b->wrong, 1);
}

static void transaction(actor *a, rw_random *random)
{
    bed *b = a->b;
    unsigned next = 0, steps = 1 + (unsigned)rw_random_below(random, 6);
    for (unsigned i = 0; i < steps; i++) {
        unsigned from = b->ordered ? next + (unsigned)rw_random_below(random, 4) : (unsigned)rw_random_below(random, KEYS);
        unsigned width = rw_random_below(random, 3) == 0 ? 1 + (unsigned)rw_random_below(random, 5) : 1;
        if (from + width > KEYS) return;
        next = from + width;
        lock_mode mode = rw_random_below(random, 2) == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE;
        int64_t timeout = b->timeouts && rw_random_below(random, 2) == 0 ? (int64_t)rw_random_below(random, 300000) : LONG_NS;
        bool range = width > 1 || rw_random_below(random, 8) == 0;
        int rc = take(a, from, range ? from + width : from, mode, timeout);
        if (rc == RW_EDEADLOCK) {
            atomic_store(&b->chosen[a->owner.id], 1);
            atomic_fetch_add(&b->victims, 1);
            if (!b->timeouts) victim_check(b, a);
            return;
        }
        if (rc == RW_ETIMEOUT && b->timeouts) {
            atomic_fetch_add(&b->timed_out, 1);
            continue;
        }
        if (rc != 0) atomic_fetch_add(&b->wrong, 1);
        else data_use(a, from, next - 1, mode);
    }
    atomic_fetch_add(&b->commits, 1);
}

static void random_actor(void *arg)
{
    actor *a = arg;
    bed *b = a->b;
    rw_random random;
    rw_random_seed(&random, b->seed * THREADS_MAX + a->index);
    for (unsigned round = b->small ? 25 : 400; round > 0; round--) {
        lock_owner_init(&a->owner, atomic_fetch_add(&b->next_id, 1));
        transaction(a, &random);
        locks_release(b->locks, &a->owner);
    }
}

static bool test_random(bed *b, bool ordered, bool timeouts)
{
    b->ordered = ordered;
    b->timeouts = timeouts;
    atomic_store(&b->next_id, 1);
    atomic_store(&b->victims, 0);
    atomic_store(&b->commits, 0);
    atomic_store(&b->timed_out, 0);
    b->gone_count = 0;
    for (unsigned i = 0; i < IDS_MAX; i++) atomic_store_explicit(&b->chosen[i], 0, memory_order_relaxed);
    actors_run(b, 8, random_actor);
    unsigned unreal = 0, victims = atomic_load(&b->victims);
    for (unsigned i = 0; i < b->gone_count; i++) unreal += !atomic_load(&b->chosen[b->gone[i]]);
    bool good = unreal == 0 && atomic_load(&b->wrong) == 0 && (!ordered || victims == 0);
    if (!good) tap_diag("%u victims, %u waits that were none, %u wrong", victims, unreal, atomic_load(&b->wrong));
    if (!b->small) tap_diag("%u victims, %u commits, %u timeouts", victims, atomic_load(&b->commits), atomic_load(&b->timed_out));
    lock_counters counters;
    locks_counters(b->locks, &counters);
    return good && counters.held == 0;
}

/* ---- where ------------------------------------------------------------------------------------------------------- */

#define CASES_MAP(X)                                                                                                \
    X(test_timeout(b), "who waits in vain gives up, and lets those behind through")                                 \
    X(test_cycles(b), "cycles of 2 to 16, closed from all sides at once, lose one victim each: the youngest")       \
    X(test_upgrades(b), "of 16 who read and then want to write, the oldest may")                                    \
    X(test_random(b, true, false), "transactions that take keys and ranges in one order lose none")                 \
    X(test_random(b, false, false), "transactions in any order end, and each victim's cycle is real")               \
    X(test_random(b, false, true), "they end with timeouts, too")

enum {
#define CASE_COUNT(call, name) +1
    CASES = 0 CASES_MAP(CASE_COUNT)
};

typedef struct {
    bed *b;
    bool good[CASES];
} all_cases;

static void cases_run(void *arg)
{
    all_cases *all = arg;
    bed *b = all->b;
    unsigned i = 0;
#define CASE_RUN(call, name) all->good[i++] = call;
    CASES_MAP(CASE_RUN)
}

static const char *const case_names[CASES] = {
#define CASE_NAME(call, name) name,
    CASES_MAP(CASE_NAME)
};

static bed one_bed;

static void run_machine(void)
{
    kio *k = NULL;
    if (kio_open("psync", NULL, NULL, &k) != 0) exit(1);
    bed_open(&one_bed, k, 1, false);
    all_cases all = {.b = &one_bed};
    cases_run(&all);
    for (unsigned i = 0; i < CASES; i++) tap_ok(all.good[i], "threads: %s", case_names[i]);
    bed_close(&one_bed);
    kio_close(k);
}

static void run_simulator(uint64_t seed)
{
    sim_disk *disk = sim_disk_create();
    sim_world *world = sim_world_open(disk, seed);
    sim_step_limit(world, 20000000);
    bed_open(&one_bed, sim_world_kio(world), seed, true);
    all_cases all = {.b = &one_bed};
    sim_run(world, cases_run, &all);
    for (unsigned i = 0; i < CASES; i++) {
        if (!all.good[i]) tap_ok(false, "LOCKS_SIM_SEED=%llu: %s", (unsigned long long)seed, case_names[i]);
    }
    bed_close(&one_bed);
    sim_world_close(world);
    sim_disk_destroy(disk);
}

int main(void)
{
    const char *given = getenv("LOCKS_SIM_SEED");
    if (given != NULL) {
        run_simulator(strtoull(given, NULL, 10));
        return tap_done();
    }
    run_machine();
#if !defined(__SANITIZE_THREAD__)      /* has one thread of the machine only */
    for (uint64_t seed = 1; seed <= SEEDS; seed++) run_simulator(seed);
    tap_ok(true, "simulator: %u seeds", SEEDS);
#endif
    return tap_done();
}
