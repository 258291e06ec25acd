/* The registry of snapshots: against a plain list, and with writers and a trimmer at work while snapshots come and go. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/random.h"
#include "tests/support/tap.h"
#include "txn/snapshots.h"

static kio *k;

static void must(bool condition, const char *what)
{
    if (condition) return;
    tap_ok(false, "%s: %s", what, rw_error_text());
    tap_done();
    _exit(1);
}

/* ---- one thread, step by step ------------------------------------------------------------------------------------ */

typedef struct {
    snapshots *s;
    uint64_t moment;
    uint64_t newest, oldest;       /* as they were while it was asked */
    bool between_below, between_above;
    bool disturbed;                /* a commit that is applied meanwhile is noticed */
    uint64_t give_up;
    snapshot *inner;               /* begun meanwhile */
} question;

static uint64_t ask(void *arg)
{
    question *q = arg;
    q->newest = atomic_load(&q->s->newest);
    q->oldest = atomic_load(&q->s->oldest);
    q->between_below = snapshots_between(q->s, 1, 49);
    q->between_above = snapshots_between(q->s, 200, 300);
    if (q->give_up != 0) snapshots_give_up(q->s, q->give_up);
    if (q->inner != NULL) snapshots_begin_at(q->s, q->inner, 0, q->moment);
    uint64_t before = atomic_load(&q->s->disturbed);
    snapshots_disturb(q->s);
    q->disturbed = atomic_load(&q->s->disturbed) != before;
    return q->moment;
}

static void test_announced(void)
{
    snapshots s;
    snapshot one, two, three;
    snapshots_init(&s, k);
    tap_ok(s.newest == 0 && s.oldest == UINT64_MAX && snapshots_oldest_age(&s) == 0 && !snapshots_give_up_oldest(&s), "an empty registry");
    question q = {.s = &s, .moment = 50};
    snapshots_begin(&s, &one, 7, ask, &q);
    tap_ok(q.newest == SNAPSHOT_BEGINNING && q.oldest == 0 && q.between_below && q.between_above, "a snapshot is announced before its moment is asked for");
    uint64_t before = atomic_load(&s.disturbed);
    snapshots_disturb(&s);
    tap_ok(q.disturbed && atomic_load(&s.disturbed) == before, "commits are noticed while one is being begun, and only then");
    tap_ok(s.newest == 50 && s.oldest == 50 && one.timestamp == 50 && one.owner == 7 && s.count == 1, "then it stands at its moment");
    q = (question){.s = &s, .moment = 60};
    snapshots_begin(&s, &two, 8, ask, &q);
    tap_ok(q.newest == SNAPSHOT_BEGINNING && q.oldest == 50 && !q.between_below && q.between_above,
           "the next one will not lie below the moment that was reached, which lets go what is older");
    snapshots_end(&s, &one);
    tap_ok(s.newest == 60 && s.oldest == 60, "the older one ends");
    q = (question){.s = &s, .moment = 60, .inner = &three};
    snapshots_begin(&s, &one, 9, ask, &q);
    tap_ok(s.count == 3 && s.newest == 60 && !one.given_up && !three.given_up, "others may begin meanwhile");
    snapshots_end(&s, &two);
    snapshots_end(&s, &three);
    q = (question){.s = &s, .moment = 70, .give_up = 80};
    snapshots_begin(&s, &two, 9, ask, &q);
    tap_ok(one.given_up && two.given_up && s.count == 0 && s.given_up_count == 2 && snapshots_is_lost(&s, 70) && !snapshots_is_lost(&s, 81) && s.newest == 0 &&
               s.oldest == UINT64_MAX,
           "and may give up what is not there yet");
    snapshots_end(&s, &one);
    snapshots_end(&s, &two);
    tap_ok(!one.given_up && !two.given_up && s.count == 0, "what was given up ends once more, quietly");
}

/* ---- claims in the midst of others ------------------------------------------------------------------------------- */

#define CROWD 10u                  /* more than are looked at from either end */

typedef struct {
    snapshots *s;
    bool gap, claimed, below;      /* whether something may be in there */
} claim_question;

/* Asked while a claim stands at 50, snapshots at 40, and at 100 and above. */
static uint64_t ask_in_crowd(void *arg)
{
    claim_question *q = arg;
    q->gap = snapshots_between(q->s, 60, 70);
    q->claimed = snapshots_between(q->s, 45, 49);
    q->below = snapshots_between(q->s, 20, 39);
    return 120;
}

/* What is asked for lies so deep that the looks from the newest end give up, or not. */
static void claim_in_crowd(unsigned newer, const char *how)
{
    snapshots s;
    snapshot old, reached, new, crowd[CROWD];
    question at_fifty = {.s = &s, .moment = 50};
    claim_question q = {.s = &s};
    snapshots_init(&s, k);
    snapshots_begin(&s, &reached, 0, ask, &at_fifty);
    snapshots_end(&s, &reached);
    snapshots_begin_at(&s, &old, 0, 40);
    for (unsigned i = 0; i < newer; i++) snapshots_begin_at(&s, &crowd[i], 0, 100 + i);
    snapshots_begin(&s, &new, 0, ask_in_crowd, &q);
    tap_ok(q.gap, "a claim may come to lie in a gap above it, %s", how);
    tap_ok(!q.claimed && !q.below, "but in none below it, %s", how);
    TAP_CHECK(!snapshots_between(&s, 60, 70) && snapshots_between(&s, 110, 120));
    for (unsigned i = 0; i < newer; i++) snapshots_end(&s, &crowd[i]);
    snapshots_end(&s, &new);
    snapshots_end(&s, &old);
}

static void test_claims(void)
{
    claim_in_crowd(0, "seen from the newest end");
    claim_in_crowd(CROWD, "seen from the oldest end");
}

/* ---- against a plain list ---------------------------------------------------------------------------------------- */

#define OPEN_MAX 40u

typedef struct {
    snapshots s;
    rw_random random;
    uint64_t seed, now, lost;
    snapshot open[OPEN_MAX];
    uint64_t timestamp[OPEN_MAX];  /* 0: not in use */
    uint64_t past;                 /* of for_each */
    unsigned seen;
} model;

static uint64_t model_now(void *arg)
{
    return ((model *)arg)->now;
}

static void model_must(const model *m, bool condition, const char *what)
{
    if (condition) return;
    tap_ok(false, "SNAPSHOTS_SEED=%llu: %s", (unsigned long long)m->seed, what);
    tap_done();
    _exit(1);
}

static int see(void *arg, const snapshot *one)
{
    model *m = arg;
    model_must(m, one->timestamp >= m->past, "the list is in order");
    m->past = one->timestamp;
    m->seen++;
    return 0;
}

static bool model_alive(const model *m, unsigned i)
{
    return m->timestamp[i] != 0 && m->timestamp[i] > m->lost;
}

static void model_check(model *m)
{
    uint64_t newest = 0, oldest = UINT64_MAX, after = rw_random_below(&m->random, m->now + 2), upto = after + rw_random_below(&m->random, 20);
    unsigned count = 0;
    bool between = false;
    for (unsigned i = 0; i < OPEN_MAX; i++) {
        if (m->timestamp[i] == 0) continue;
        model_must(m, m->open[i].given_up == !model_alive(m, i) && snapshots_is_lost(&m->s, m->timestamp[i]) == !model_alive(m, i), "what is given up");
        if (!model_alive(m, i)) continue;
        count++;
        newest = RW_MAX(newest, m->timestamp[i]);
        oldest = RW_MIN(oldest, m->timestamp[i]);
        between = between || (m->timestamp[i] > after && m->timestamp[i] <= upto);
    }
    model_must(m, m->s.newest == newest && m->s.oldest == oldest && m->s.count == count, "newest, oldest, count");
    bool answer = snapshots_between(&m->s, after, upto);
    model_must(m, answer || !between, "no snapshot is overlooked");
    model_must(m, count > 8 || answer == between, "among few the answer is exact");
    m->past = 0;
    m->seen = 0;
    model_must(m, snapshots_for_each(&m->s, see, m) == 0 && m->seen == count, "all are listed");
}

static void model_step(model *m)
{
    unsigned i = (unsigned)rw_random_below(&m->random, OPEN_MAX);
    uint64_t choice = rw_random_below(&m->random, 100), back = rw_random_below(&m->random, 20);
    m->now += rw_random_below(&m->random, 3);
    if (choice < 2 && m->now > 20) {
        m->lost = RW_MAX(m->lost, m->now - back);
        snapshots_give_up(&m->s, m->lost);
    } else if (choice < 6) {
        uint64_t oldest = m->s.oldest;
        model_must(m, snapshots_give_up_oldest(&m->s) == (oldest != UINT64_MAX), "the oldest is given up");
        if (oldest != UINT64_MAX) m->lost = RW_MAX(m->lost, oldest);
    } else if (m->timestamp[i] != 0) {
        snapshots_end(&m->s, &m->open[i]);
        m->timestamp[i] = 0;
    } else if (choice < 20) {
        m->timestamp[i] = m->now > back ? m->now - back : 1;
        snapshots_begin_at(&m->s, &m->open[i], i, m->timestamp[i]);
    } else {
        snapshots_begin(&m->s, &m->open[i], i, model_now, m);
        m->timestamp[i] = m->open[i].timestamp;
        model_must(m, m->timestamp[i] == m->now, "a snapshot stands at its moment");
    }
}

static void test_model(uint64_t seed)
{
    model *m = calloc(1, sizeof *m);
    must(m != NULL, "memory");
    m->seed = seed;
    m->now = 1;
    rw_random_seed(&m->random, seed);
    snapshots_init(&m->s, k);
    for (unsigned i = 0; i < 20000; i++) {
        model_step(m);
        model_check(m);
    }
    for (unsigned i = 0; i < OPEN_MAX; i++)
        if (m->timestamp[i] != 0) snapshots_end(&m->s, &m->open[i]);
    model_must(m, m->s.count == 0 && m->s.head == NULL && m->s.newest == 0 && m->s.oldest == UINT64_MAX, "empty in the end");
    free(m);
}

/* ---- threads: what a writer keeps, and what a trimmer lets go ---------------------------------------------------- */

/*
 * The writer takes a timestamp, looks at newest, and notes whether it keeps a version; much later it drops what lies below oldest. A snapshot must find, for as
 * long as it is open, everything kept that was written at or above it.
 */
#define OPERATIONS 60000u
#define BEGINNERS 3u
enum { PENDING, FORGOTTEN, KEPT, DROPPED };

static struct {
    snapshots s;
    _Atomic uint64_t clock;        /* the next timestamp */
    _Atomic uint64_t applied;      /* all below are */
    _Atomic uint8_t fate[OPERATIONS + 1];
    _Atomic uint64_t wrong, begun;
} stage;

static uint64_t stage_moment(void *arg)
{
    (void)arg;
    uint64_t end = atomic_load(&stage.clock);
    while (atomic_load(&stage.applied) < end) kio_yield(k);
    return end;
}

static void write_all(void *arg)
{
    (void)arg;
    uint64_t behind = 1;
    for (;;) {
        uint64_t timestamp = atomic_fetch_add(&stage.clock, 1);
        if (timestamp > OPERATIONS) break;
        uint8_t fate = atomic_load(&stage.s.newest) != 0 ? KEPT : FORGOTTEN;
        atomic_store_explicit(&stage.fate[timestamp], fate, memory_order_release);
        if (timestamp % 64 == 0) snapshots_between(&stage.s, timestamp - 30, timestamp); /* takes the mutex while others begin */
        atomic_store(&stage.applied, timestamp + 1);
        for (uint64_t oldest = atomic_load(&stage.s.oldest); behind < timestamp && behind < oldest; behind++)
            if (atomic_load_explicit(&stage.fate[behind], memory_order_relaxed) == KEPT)
                atomic_store_explicit(&stage.fate[behind], DROPPED, memory_order_relaxed);
        while (atomic_load_explicit(&stage.begun, memory_order_relaxed) < timestamp / 100) kio_yield(k);
    }
    atomic_store(&stage.applied, UINT64_MAX);
}

static void begin_all(void *arg)
{
    snapshot own;
    (void)arg;
    while (atomic_load(&stage.clock) <= OPERATIONS) {
        snapshots_begin(&stage.s, &own, 0, stage_moment, NULL);
        kio_yield(k);
        uint64_t end = RW_MIN(atomic_load(&stage.clock), OPERATIONS + 1);
        for (unsigned round = 0; round < 2; round++) {
            for (uint64_t t = own.timestamp; t < end; t++) {
                uint8_t fate;
                while ((fate = atomic_load_explicit(&stage.fate[t], memory_order_acquire)) == PENDING) kio_yield(k);
                if (fate != KEPT) atomic_fetch_add(&stage.wrong, 1);
            }
            kio_yield(k);
        }
        atomic_fetch_add(&stage.begun, 1);
        snapshots_end(&stage.s, &own);
    }
}

static void test_threads(void)
{
    kio_thread *threads[BEGINNERS + 1];
    snapshots_init(&stage.s, k);
    atomic_store(&stage.clock, 1);
    atomic_store(&stage.applied, 1);
    must(kio_thread_start(k, "writer", -1, write_all, NULL, &threads[BEGINNERS]) == 0, "thread");
    for (unsigned i = 0; i < BEGINNERS; i++) must(kio_thread_start(k, "reader", -1, begin_all, NULL, &threads[i]) == 0, "thread");
    for (unsigned i = 0; i <= BEGINNERS; i++) kio_thread_join(k, threads[i]);
    tap_ok(stage.wrong == 0 && stage.begun > 0, "%llu snapshots beside a writer miss nothing", (unsigned long long)stage.begun);
    tap_ok(stage.s.count == 0 && stage.s.beginning == 0 && stage.s.newest == 0 && stage.s.oldest == UINT64_MAX, "and leave nothing");
}

int main(void)
{
    const char *given = getenv("SNAPSHOTS_SEED");
    must(kio_open("psync", NULL, NULL, &k) == 0, "back end");
    test_announced();
    test_claims();
    if (given != NULL) test_model(strtoull(given, NULL, 10));
    for (uint64_t seed = 1; given == NULL && seed <= 10; seed++) test_model(seed);
    tap_ok(true, "as a plain list has it");
    test_threads();
    kio_close(k);
    return tap_done();
}
