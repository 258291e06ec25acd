/*
 * The lock table in one thread: an owner that has to wait is left in the queue by leaving its call, so that every step and its outcome are known.
 * Cases by hand, then random steps against a model that knows requests in a list and reachability by brute force.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/prng.h"
#include "tests/support/tap.h"
#include "txn/locks_internal.h"

#define WAITS 1                    /* what take returns when the owner went to sleep */
#define LONG_NS ((int64_t)1000000000)

/* ---- a kernel without sleep -------------------------------------------------------------------------------------- */

static jmp_buf asleep;

static uint64_t bed_now(kio *k)
{
    (void)k;
    return 0;
}

static void bed_sleep(kio *k, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    (void)k, (void)word, (void)expected, (void)timeout_ns;
    longjmp(asleep, 1);
}

static void bed_wake(kio *k, const _Atomic uint32_t *word, unsigned count)
{
    (void)k, (void)word, (void)count;
}

static const kio_vtable bed_vtable = {.name = "bed", .now_ns = bed_now, .sleep = bed_sleep, .wake = bed_wake};
static kio bed_kio = {.ops = &bed_vtable};
static pool bed_pool;
static locks *table;

static void bed_open(uint64_t locks_bytes)
{
    if (pool_open(&bed_pool, &bed_kio, NULL, NULL, NULL, 4096, locks_bytes + (1u << 20)) != 0 || locks_open(&bed_kio, &bed_pool, locks_bytes, &table) != 0) {
        tap_ok(false, "opening: %s", rw_error_text());
        exit(tap_done());
    }
}

static void bed_close(void)
{
    locks_close(table);
    TAP_CHECK(atomic_load(&bed_pool.free_count) == bed_pool.frame_count);
    pool_close(&bed_pool);
}

static rw_slice text(const char *s)
{
    return rw_slice_of(s, strlen(s));
}

static int take_or_leave(lock_owner *owner, rw_slice from, const rw_slice *to, lock_mode mode, int64_t timeout_ns)
{
    return setjmp(asleep) != 0 ? WAITS : locks_take(table, owner, from, to, mode, timeout_ns);
}

/* to: NULL for a key, "" for no end. */
static int take(lock_owner *owner, const char *from, const char *to, lock_mode mode, int64_t timeout_ns)
{
    rw_slice end = to == NULL ? rw_slice_of(NULL, 0) : text(to);
    return take_or_leave(owner, text(from), to == NULL ? NULL : &end, mode, timeout_ns);
}

static int try(lock_owner *owner, const char *from, const char *to, lock_mode mode)
{
    return take(owner, from, to, mode, 0);
}

typedef struct {
    const lock_owner *owner;
    uint64_t waits_for;
} wait_search;

static int wait_find(void *arg, const lock_view *view)
{
    wait_search *search = arg;
    if (view->waiting && view->owner == search->owner->id) search->waits_for = view->waits_for;
    return 0;
}

/* The id of a transaction that owner waits for; 0: it does not wait. */
static uint64_t waits_for(locks *l, const lock_owner *owner)
{
    wait_search search = {.owner = owner};
    locks_for_each(l, wait_find, &search);
    return search.waits_for;
}

static bool waits(const lock_owner *owner)
{
    return owner->waiting != NULL;
}

/* The end of a sleeper's call, if it was chosen. */
static bool was_chosen(lock_owner *owner)
{
    bool chosen = owner->victim;
    owner->victim = false;
    return chosen;
}

static void owners_init(lock_owner *owners, unsigned count)
{
    for (unsigned i = 0; i < count; i++) lock_owner_init(&owners[i], i + 1);
}

static void owners_release(lock_owner *owners, unsigned count)
{
    for (unsigned round = 0; round < count; round++) {
        for (unsigned i = 0; i < count; i++) {
            if (!waits(&owners[i])) locks_release(table, &owners[i]);
        }
        if (!locks_active(table)) return;
    }
    tap_ok(false, "owners wait for good");
}

/* ---- by hand ----------------------------------------------------------------------------------------------------- */

static void test_conflicts(void)
{
    static const struct {
        const char *from, *to, *other_from, *other_to;
        bool overlap;
    } cases[] = {
        {"b", NULL, "b", NULL, true},  {"b", NULL, "c", NULL, false}, {"b", NULL, "b0", NULL, false}, {"b", NULL, "a", "c", true},
        {"b", NULL, "a", "b", false},  {"b", NULL, "b", "c", true},   {"b", NULL, "a", "", true},     {"b", NULL, "b0", "", false},
        {"a", "c", "c", "d", false},   {"a", "c", "b", "d", true},    {"a", "d", "b", "c", true},     {"a", "", "z", "", true},
        {"a", "b", "a", "b", true},    {"a", "b0", "b", NULL, true},  {"a", "b", "b", "b", false},    {"c", "a", "b", NULL, false},
    };
    bed_open(1 << 20);
    lock_owner o[2];
    owners_init(o, 2);
    unsigned wrong = 0;
    for (unsigned i = 0; i < RW_ARRAY_SIZE(cases) * 8; i++) {
        unsigned c = i / 8;
        lock_mode first = (i & 1) != 0 ? LOCK_EXCLUSIVE : LOCK_SHARED, second = (i & 2) != 0 ? LOCK_EXCLUSIVE : LOCK_SHARED;
        bool turned = (i & 4) != 0, conflict = cases[c].overlap && (first == LOCK_EXCLUSIVE || second == LOCK_EXCLUSIVE);
        const char *from = turned ? cases[c].other_from : cases[c].from, *to = turned ? cases[c].other_to : cases[c].to;
        const char *from2 = turned ? cases[c].from : cases[c].other_from, *to2 = turned ? cases[c].to : cases[c].other_to;
        wrong += try(&o[0], from, to, first) != 0;
        rw_slice end = to2 == NULL ? rw_slice_of(NULL, 0) : text(to2);
        uint64_t holder = 0;
        wrong += locks_conflict(table, &o[1], text(from2), to2 == NULL ? NULL : &end, second, &holder) != conflict || holder != (conflict ? 1u : 0u);
        wrong += locks_conflict(table, &o[0], text(from2), to2 == NULL ? NULL : &end, second, &holder);
        wrong += try(&o[1], from2, to2, second) != (conflict ? RW_ETIMEOUT : 0);
        bool empty = to2 != NULL && to2[0] != 0 && strcmp(from2, to2) >= 0, excluded = first == LOCK_EXCLUSIVE || second == LOCK_EXCLUSIVE;
        wrong += try(&o[0], from2, to2, first) != (!cases[c].overlap && !empty && excluded ? RW_ETIMEOUT : 0);
        owners_release(o, 2);
    }
    tap_ok(wrong == 0, "keys and ranges, shared and exclusive, conflict where they overlap (%u wrong)", wrong);
    bed_close();
}

static void test_own(void)
{
    bed_open(1 << 20);
    lock_owner o[2];
    owners_init(o, 2);
    TAP_CHECK(!locks_active(table));
    TAP_CHECK(try(&o[0], "b", NULL, LOCK_SHARED) == 0 && o[0].count == 1 && locks_active(table));
    TAP_CHECK(try(&o[0], "b", NULL, LOCK_SHARED) == 0 && o[0].count == 1);
    uint64_t bytes = o[0].bytes;
    TAP_CHECK(try(&o[0], "b", NULL, LOCK_EXCLUSIVE) == 0 && o[0].count == 1 && o[0].bytes == bytes);
    TAP_CHECK(try(&o[0], "b", NULL, LOCK_SHARED) == 0 && o[0].count == 1);
    tap_ok(o[0].count == 1, "a lock that is held already takes nothing; an upgrade takes the place of the shared one");
    TAP_CHECK(try(&o[0], "a", "m", LOCK_SHARED) == 0 && o[0].count == 2);
    TAP_CHECK(try(&o[0], "c", NULL, LOCK_SHARED) == 0 && try(&o[0], "c", "m", LOCK_SHARED) == 0 && try(&o[0], "a", "m", LOCK_SHARED) == 0 && o[0].count == 2);
    TAP_CHECK(try(&o[0], "c", NULL, LOCK_EXCLUSIVE) == 0 && o[0].count == 3);
    TAP_CHECK(try(&o[0], "m", NULL, LOCK_SHARED) == 0 && try(&o[0], "c", "m0", LOCK_SHARED) == 0 && o[0].count == 5);
    TAP_CHECK(try(&o[0], "a", "m", LOCK_EXCLUSIVE) == 0 && o[0].count == 5);
    tap_ok(o[0].count == 5, "a range covers keys and ranges within it, and nothing beyond");
    lock_counters counters;
    locks_counters(table, &counters);
    tap_ok(counters.held == 5 && counters.bytes == 4096 && counters.waits == 0, "the counters know what is held");
    TAP_CHECK(try(&o[1], "d", NULL, LOCK_SHARED) == RW_ETIMEOUT && strstr(rw_error_text(), "transaction 1 holds it") != NULL);
    tap_ok(o[1].count == 0, "what is not granted leaves nothing: %s", rw_error_text());
    owners_release(o, 2);
    bed_close();
}

static void test_fair(void)
{
    bed_open(1 << 20);
    lock_owner o[6];
    owners_init(o, 6);
    TAP_CHECK(try(&o[0], "k", NULL, LOCK_SHARED) == 0);
    TAP_CHECK(take(&o[1], "a", "z", LOCK_EXCLUSIVE, LONG_NS) == WAITS && waits_for(table, &o[1]) == 1);
    TAP_CHECK(try(&o[2], "k", NULL, LOCK_SHARED) == RW_ETIMEOUT && strstr(rw_error_text(), "transaction 2 waits before it") != NULL);
    tap_ok(try(&o[2], "z", NULL, LOCK_SHARED) == 0, "nobody goes before one who waits, but where they do not meet");
    TAP_CHECK(take(&o[2], "k", NULL, LOCK_SHARED, LONG_NS) == WAITS && take(&o[3], "k", "l", LOCK_SHARED, LONG_NS) == WAITS);
    TAP_CHECK(take(&o[4], "k", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS && take(&o[5], "k", NULL, LOCK_SHARED, LONG_NS) == WAITS);
    locks_release(table, &o[0]);
    tap_ok(!waits(&o[1]) && waits(&o[2]) && waits(&o[3]) && waits(&o[4]) && waits(&o[5]), "the first in the queue is let in alone");
    locks_release(table, &o[1]);
    tap_ok(!waits(&o[2]) && !waits(&o[3]) && waits(&o[4]) && waits(&o[5]), "readers are let in together, up to the next writer");
    locks_release(table, &o[2]);
    TAP_CHECK(waits(&o[4]) && waits_for(table, &o[4]) == 4 && waits_for(table, &o[5]) == 5);
    locks_release(table, &o[3]);
    TAP_CHECK(!waits(&o[4]) && waits(&o[5]));
    locks_release(table, &o[4]);
    tap_ok(!waits(&o[5]) && waits_for(table, &o[5]) == 0, "the last one comes last");
    lock_counters counters;
    locks_counters(table, &counters);
    TAP_CHECK(counters.waits == 5 && counters.held == 1 && counters.deadlocks == 0);
    owners_release(o, 6);
    bed_close();
}

static void test_upgrades(void)
{
    bed_open(1 << 20);
    lock_owner o[4];
    owners_init(o, 4);
    TAP_CHECK(try(&o[0], "k", NULL, LOCK_SHARED) == 0 && take(&o[1], "k", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS);
    TAP_CHECK(take(&o[2], "k", NULL, LOCK_SHARED, LONG_NS) == WAITS);
    tap_ok(try(&o[0], "k", NULL, LOCK_EXCLUSIVE) == 0, "an upgrade goes before those who wait for its owner, directly or not");
    TAP_CHECK(o[0].count == 1 && waits_for(table, &o[1]) == 1);
    locks_release(table, &o[0]);
    TAP_CHECK(!waits(&o[1]) && waits(&o[2]));
    owners_release(o, 4);

    TAP_CHECK(try(&o[0], "k", NULL, LOCK_SHARED) == 0 && try(&o[2], "k", NULL, LOCK_SHARED) == 0);
    TAP_CHECK(take(&o[1], "k", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS && take(&o[0], "k", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS);
    TAP_CHECK(waits_for(table, &o[0]) == 3);
    locks_release(table, &o[2]);
    tap_ok(!waits(&o[0]) && waits(&o[1]) && !was_chosen(&o[1]), "an upgrade waits for readers only, and comes before the writer that waits for it");
    owners_release(o, 4);

    for (unsigned later = 0; later < 2; later++) {
        lock_owner *young = &o[3], *old = &o[1], *first = later == 0 ? young : old, *second = later == 0 ? old : young;
        TAP_CHECK(try(old, "k", NULL, LOCK_SHARED) == 0 && try(young, "k", NULL, LOCK_SHARED) == 0);
        TAP_CHECK(take(first, "k", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS);
        int rc = take(second, "k", NULL, LOCK_EXCLUSIVE, LONG_NS);
        bool chosen = second == young ? rc == RW_EDEADLOCK : rc == WAITS && was_chosen(young);
        tap_ok(chosen && strcmp(young->victim_text, "deadlock: transaction 4 waits for 2, 2 waits for 4; 4 was chosen") == 0,
               "of two upgrades the younger one loses: %s", young->victim_text);
        TAP_CHECK(young->count == 1 && !waits(young) && waits(old));
        locks_release(table, young);
        TAP_CHECK(!waits(old) && old->count == 1);
        owners_release(o, 4);
    }
    bed_close();
}

/* Those who wait for their turn only, and not for a lock that is held, must not keep each other from going on. */
static void test_knots(void)
{
    bed_open(1 << 20);
    lock_owner o[4];
    owners_init(o, 4);
    TAP_CHECK(try(&o[0], "a", NULL, LOCK_SHARED) == 0 && take(&o[1], "a", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS);
    TAP_CHECK(take(&o[2], "a", "c", LOCK_SHARED, LONG_NS) == WAITS && waits_for(table, &o[2]) == 2);
    TAP_CHECK(try(&o[3], "b", NULL, LOCK_EXCLUSIVE) == RW_ETIMEOUT);
    tap_ok(take(&o[0], "b", NULL, LOCK_EXCLUSIVE, LONG_NS) == 0, "a request goes before one who waits behind one who waits for its owner");
    owners_release(o, 4);

    TAP_CHECK(try(&o[0], "l", NULL, LOCK_EXCLUSIVE) == 0 && take(&o[1], "k", "m", LOCK_EXCLUSIVE, LONG_NS) == WAITS);
    TAP_CHECK(take(&o[2], "k", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS && waits_for(table, &o[2]) == 2);
    TAP_CHECK(try(&o[3], "n", NULL, LOCK_EXCLUSIVE) == 0 && take(&o[0], "k", "o", LOCK_SHARED, LONG_NS) == WAITS);
    tap_ok(!waits(&o[2]) && waits(&o[0]) && waits(&o[1]), "in a knot whose last one must wait, the first whom nothing stops that is held goes on");
    locks_release(table, &o[3]);
    TAP_CHECK(waits(&o[0]) && waits_for(table, &o[0]) == 3);
    locks_release(table, &o[2]);
    TAP_CHECK(!waits(&o[0]) && o[0].count == 2 && waits(&o[1]));
    locks_release(table, &o[0]);
    TAP_CHECK(!waits(&o[1]));
    lock_counters counters;
    locks_counters(table, &counters);
    tap_ok(counters.deadlocks == 0, "none of it is a deadlock");
    owners_release(o, 4);
    bed_close();
}

static void test_victims(void)
{
    static const struct {
        unsigned requester, first, second;     /* the two wait for the requester, who then waits for both */
        bool chosen[3];
    } cases[] = {{1, 2, 3, {false, true, true}}, {3, 1, 2, {true, false, false}}, {2, 3, 1, {true, false, false}}, {2, 1, 3, {true, false, false}}};
    bed_open(1 << 20);
    for (unsigned i = 0; i < RW_ARRAY_SIZE(cases); i++) {
        lock_owner o[4];
        owners_init(o, 4);
        lock_owner *r = &o[cases[i].requester - 1], *a = &o[cases[i].first - 1], *b = &o[cases[i].second - 1];
        TAP_CHECK(try(r, "a", NULL, LOCK_EXCLUSIVE) == 0 && try(r, "b", NULL, LOCK_EXCLUSIVE) == 0);
        TAP_CHECK(try(a, "c", NULL, LOCK_SHARED) == 0 && try(b, "c", NULL, LOCK_SHARED) == 0);
        TAP_CHECK(take(a, "a", NULL, LOCK_SHARED, LONG_NS) == WAITS && take(b, "b", "bb", LOCK_SHARED, LONG_NS) == WAITS);
        int rc = take(r, "a", "d", LOCK_EXCLUSIVE, LONG_NS);
        bool chosen[3] = {rc == RW_EDEADLOCK, was_chosen(a), was_chosen(b)};
        bool right = memcmp(chosen, cases[i].chosen, sizeof chosen) == 0;
        tap_ok(right, "one request closes two cycles: each loses its youngest, and no one else is chosen (%u)", i);
        owners_release(o, 4);
    }
    lock_owner single, txn;
    lock_owner_init(&single, 0);
    lock_owner_init(&txn, 7);
    TAP_CHECK(try(&single, "a", NULL, LOCK_EXCLUSIVE) == 0 && try(&txn, "b", NULL, LOCK_EXCLUSIVE) == 0);
    TAP_CHECK(take(&txn, "a", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS && take(&single, "b", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS);
    tap_ok(was_chosen(&txn), "single writes are chosen last: %s", txn.victim_text);
    locks_release(table, &txn);
    locks_release(table, &single);
    bed_close();
}

/* Owner i holds key i and waits for key i + 1, in turned order: the first request that closes the cycle finds it. */
static void test_cycles(void)
{
    bed_open(4 << 20);
    unsigned wrong = 0;
    for (unsigned length = 2; length <= 40; length++) {
        for (unsigned turn = 0; turn < length; turn++) {
            lock_owner o[40];
            for (unsigned i = 0; i < length; i++) lock_owner_init(&o[i], 1 + (i + turn) % length);
            char key[8], next[8];
            bool ranges = length % 3 == 0;
            for (unsigned i = 0; i < length; i++) {
                snprintf(key, sizeof key, "k%03u", i);
                wrong += try(&o[i], key, NULL, i % 2 == 0 ? LOCK_EXCLUSIVE : LOCK_SHARED) != 0;
            }
            unsigned victims = 0, right = 0;
            for (unsigned i = length; i-- > 0;) {
                snprintf(key, sizeof key, "k%03u", (i + 1) % length);
                snprintf(next, sizeof next, "k%03u.", (i + 1) % length);
                int rc = take(&o[i], key, ranges ? next : NULL, LOCK_EXCLUSIVE, LONG_NS);
                victims += rc == RW_EDEADLOCK;
                right += rc == RW_EDEADLOCK && o[i].id == length;
                wrong += rc != WAITS && rc != RW_EDEADLOCK;
            }
            for (unsigned i = 0; i < length; i++) {
                if (!was_chosen(&o[i])) continue;
                victims++;
                right += o[i].id == length;
            }
            wrong += victims != 1 || right != 1;
            for (unsigned i = 0; i < length; i++) {
                if (o[i].id == length) locks_release(table, &o[i]);
            }
            owners_release(o, length);
        }
    }
    tap_ok(wrong == 0, "cycles of 2 to 40 lose one victim each, the youngest (%u wrong)", wrong);
    bed_close();
}

/* full holds shared locks on k00000 and the next ones, and there is no memory for another one. */
static void single_writers_beside(lock_owner *full)
{
    lock_owner one, two, range;
    uint64_t bytes = frame_heap_bytes(&table->heap);
    lock_owner_init_single(&one, 0);
    lock_owner_init_single(&two, 9);
    lock_owner_init_single(&range, 0);
    TAP_CHECK(try(full, "z", NULL, LOCK_SHARED) == RW_ENOMEM);
    int rc = try(&one, "k00000", NULL, LOCK_EXCLUSIVE);
    tap_ok(rc == RW_ETIMEOUT && !waits(&one), "a single writer is not refused for want of memory: %s", rw_error_text());
    bool queues = take(&one, "k00000", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS && take(&two, "k00000", NULL, LOCK_EXCLUSIVE, LONG_NS) == WAITS &&
                  take(&range, "k00000", "k00010", LOCK_EXCLUSIVE, LONG_NS) == WAITS;
    tap_ok(queues && frame_heap_bytes(&table->heap) == bytes, "but waits, in memory of its own");
    locks_release(table, full);
    tap_ok(one.count == 1 && waits(&two) && waits(&range), "and is granted in its turn");
    locks_release(table, &one);
    locks_release(table, &two);
    locks_release(table, &range);
    TAP_CHECK(one.count + two.count + range.count == 0 && !locks_active(table));
}

static void test_memory(void)
{
    bed_open(64 << 10);
    lock_owner o;
    lock_owner_init(&o, 1);
    char key[16];
    int rc = 0;
    unsigned count = 0;
    for (; rc == 0 && count < 10000; count++) {
        snprintf(key, sizeof key, "k%05u", count);
        rc = try(&o, key, NULL, LOCK_SHARED);
    }
    tap_ok(rc == RW_ENOMEM && o.count == count - 1 && count > 300, "locks end where their memory does: %s", rw_error_text());
    TAP_CHECK(try(&o, "k00000", NULL, LOCK_SHARED) == 0);
    single_writers_beside(&o);
    locks_release(table, &o);
    TAP_CHECK(try(&o, "k", NULL, LOCK_SHARED) == 0);
    locks_release(table, &o);
    TAP_CHECK(o.bytes == 0 && o.count == 0);
    bed_close();
}

/* ---- many -------------------------------------------------------------------------------------------------------- */

#ifdef RW_TINY
#define MANY 20000u
#else
#define MANY 100000u
#endif

static void test_many(void)
{
    bed_open(96 << 20);
    lock_owner *o = calloc(MANY, sizeof *o);
    char key[16], next[16];
    unsigned wrong = 0;
    owners_init(o, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "k%06u", (unsigned)(i * 7919u % MANY));
        wrong += try(&o[i], key, NULL, LOCK_EXCLUSIVE) != 0 || try(&o[i], "a", NULL, LOCK_SHARED) != 0 || try(&o[i], "b", "c", LOCK_SHARED) != 0 ||
                 try(&o[i], "bb", NULL, LOCK_SHARED) != 0;
    }
    wrong += try(&o[5], "a", NULL, LOCK_EXCLUSIVE) != RW_ETIMEOUT;
    owners_release(o, MANY);
    tap_ok(wrong == 0, "%u owners with three locks each, two of them in common", MANY);

    for (unsigned i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "k%06u", (unsigned)(i * 7919u % MANY));
        wrong += try(&o[0], key, NULL, LOCK_EXCLUSIVE) != 0;
    }
    wrong += o[0].count != MANY || try(&o[1], "k000100", "k000200", LOCK_SHARED) != RW_ETIMEOUT || try(&o[0], "", "", LOCK_EXCLUSIVE) != 0;
    owners_release(o, 2);
    tap_ok(wrong == 0, "one owner with %u locks", MANY);

    for (unsigned i = 0; i < MANY; i++) snprintf(key, sizeof key, "k%06u", i), wrong += try(&o[i], key, NULL, LOCK_EXCLUSIVE) != 0;
    for (unsigned i = 0; i < MANY - 1; i++) {
        snprintf(next, sizeof next, "k%06u", i + 1);
        wrong += take(&o[i], next, NULL, LOCK_SHARED, LONG_NS) != WAITS;
    }
    wrong += take(&o[MANY - 1], "k000000", NULL, LOCK_SHARED, LONG_NS) != RW_EDEADLOCK;
    char end[64];
    snprintf(end, sizeof end, " and so on, in a cycle of %u; %u was chosen", MANY, MANY);
    tap_ok(wrong == 0 && strstr(o[MANY - 1].victim_text, end) != NULL, "a cycle of %u: %s", MANY, o[MANY - 1].victim_text);
    for (unsigned i = MANY; i-- > 0;) wrong += waits(&o[i]), locks_release(table, &o[i]);
    TAP_CHECK(!locks_active(table) && wrong == 0);

    TAP_CHECK(try(&o[0], "k", NULL, LOCK_EXCLUSIVE) == 0);
    for (unsigned i = 1; i < MANY; i++) wrong += take(&o[i], "k", NULL, i % 3 == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE, LONG_NS) != WAITS;
    for (unsigned i = 0; i < MANY; i++) wrong += waits(&o[i]), locks_release(table, &o[i]);
    tap_ok(wrong == 0 && !locks_active(table), "a queue of %u on one key, served in order", MANY);
    free(o);
    bed_close();
}

/* ---- random steps against a model -------------------------------------------------------------------------------- */

#define OWNERS 9u
#define REQUESTS_MAX 400u

typedef struct {
    unsigned owner;
    char from[8], to[8];           /* to: meaningless for a key, "" for no end */
    bool is_key;
    lock_mode mode;
    bool waiting;
} model_request;

typedef struct {
    uint64_t seed;
    prng random;
    unsigned steps;
    lock_owner owners[OWNERS];
    uint64_t next_id;
    model_request requests[REQUESTS_MAX];      /* in order of arrival */
    unsigned count;
    bool hard[OWNERS][OWNERS], edge[OWNERS][OWNERS];
    unsigned victims, granted_late, knots;
} model;

static bool model_must(const model *m, bool condition, const char *what)
{
    if (condition) return true;
    tap_ok(false, "LOCKS_SEED=%llu: %s, at step %u", (unsigned long long)m->seed, what, m->steps);
    exit(tap_done());
}

static bool model_overlap(const model_request *a, const model_request *b)
{
    bool a_begins = b->is_key ? strcmp(a->from, b->from) <= 0 : b->to[0] == 0 || strcmp(a->from, b->to) < 0;
    bool b_begins = a->is_key ? strcmp(b->from, a->from) <= 0 : a->to[0] == 0 || strcmp(b->from, a->to) < 0;
    return a_begins && b_begins;
}

static bool model_conflict(const model_request *a, const model_request *b)
{
    return a->owner != b->owner && (a->mode == LOCK_EXCLUSIVE || b->mode == LOCK_EXCLUSIVE) && model_overlap(a, b);
}

static bool model_covers(const model_request *a, const model_request *b)
{
    if (a->is_key) return b->is_key && strcmp(a->from, b->from) == 0;
    if (strcmp(a->from, b->from) > 0) return false;
    if (a->to[0] == 0) return true;
    return b->is_key ? strcmp(b->from, a->to) < 0 : b->to[0] != 0 && strcmp(b->to, a->to) <= 0;
}

/* Edges between owners, and what can be reached by them (edge), by hard ones (hard). */
static void model_graph(model *m)
{
    memset(m->hard, 0, sizeof m->hard);
    memset(m->edge, 0, sizeof m->edge);
    for (unsigned i = 0; i < m->count; i++) {
        const model_request *r = &m->requests[i];
        for (unsigned j = 0; r->waiting && j < m->count; j++) {
            const model_request *other = &m->requests[j];
            if (!model_conflict(r, other) || (other->waiting && j > i)) continue;
            m->edge[r->owner][other->owner] = true;
            if (!other->waiting) m->hard[r->owner][other->owner] = true;
        }
    }
    for (unsigned k = 0; k < OWNERS; k++) {
        for (unsigned i = 0; i < OWNERS; i++) {
            for (unsigned j = 0; j < OWNERS; j++) {
                m->edge[i][j] = m->edge[i][j] || (m->edge[i][k] && m->edge[k][j]);
                m->hard[i][j] = m->hard[i][j] || (m->hard[i][k] && m->hard[k][j]);
            }
        }
    }
}

static bool model_grantable(model *m, unsigned i)
{
    const model_request *r = &m->requests[i];
    model_graph(m);
    bool passes = false;
    for (unsigned j = 0; j < m->count; j++) {
        const model_request *other = &m->requests[j];
        if (!model_conflict(r, other) || (other->waiting && j > i)) continue;
        if (!other->waiting || !m->edge[other->owner][r->owner]) return false;
        passes = true;
    }
    m->knots += passes;
    return true;
}

static void model_remove(model *m, unsigned i)
{
    memmove(&m->requests[i], &m->requests[i + 1], (m->count - i - 1) * sizeof m->requests[0]);
    m->count--;
}

static void model_grant(model *m, unsigned i)
{
    m->requests[i].waiting = false;
    model_request r = m->requests[i];
    for (unsigned j = 0; j < m->count; j++) {
        const model_request *old = &m->requests[j];
        bool same = old->owner == r.owner && strcmp(old->from, r.from) == 0 && old->is_key == r.is_key && (r.is_key || strcmp(old->to, r.to) == 0);
        if (!same || r.mode != LOCK_EXCLUSIVE || old->mode != LOCK_SHARED) continue;
        model_remove(m, j);
        return;
    }
}

/* Returns whether its shared lock went. */
static bool model_try(model *m, unsigned i)
{
    unsigned before = m->count;
    if (!m->requests[i].waiting || !model_grantable(m, i)) return false;
    model_grant(m, i);
    m->granted_late++;
    return m->count < before;
}

/* All who wait, in order of arrival. */
static void model_settle(model *m)
{
    for (unsigned i = 0; i < m->count; i++) {
        if (model_try(m, i)) i--;
    }
}

static unsigned model_waiting(const model *m, unsigned owner)
{
    for (unsigned i = 0; i < m->count; i++) {
        if (m->requests[i].waiting && m->requests[i].owner == owner) return i;
    }
    return REQUESTS_MAX;
}

static unsigned model_owner(const model *m, unsigned long long id)
{
    for (unsigned i = 0; i < OWNERS; i++) {
        if (m->owners[i].id == id) return i;
    }
    model_must(m, false, "a victim's text names somebody unknown");
    return 0;
}

/* Whether the text names a cycle of the graph as it is: each waits for a lock that the next holds, and the youngest was chosen. */
static void model_check_text(model *m, unsigned victim)
{
    const char *at = strstr(m->owners[victim].victim_text, "transaction ");
    model_must(m, at != NULL, "a victim's text is no sentence");
    at += strlen("transaction ");
    unsigned long long first = 0, last = 0, from, to, chosen = 0;
    int length;
    for (unsigned n = 0; sscanf(at, "%llu waits for %llu%n", &from, &to, &length) == 2; n++) {
        unsigned waiting = model_waiting(m, model_owner(m, from)), holder = model_owner(m, to);
        model_must(m, waiting < REQUESTS_MAX && (n == 0 || from == last), "a victim's text is no chain");
        bool holds = false;
        for (unsigned i = 0; i < m->count; i++) {
            holds = holds || (m->requests[i].owner == holder && !m->requests[i].waiting && model_conflict(&m->requests[i], &m->requests[waiting]));
        }
        model_must(m, holds && from <= m->owners[victim].id, "a victim's text names a wait that is none, or an older victim");
        if (n == 0) first = from;
        last = to;
        at += length;
        if (strncmp(at, ", ", 2) == 0) at += 2;
    }
    bool closed = first != 0 && first == last && sscanf(at, "; %llu was chosen", &chosen) == 1;
    model_must(m, closed && chosen == m->owners[victim].id, "a victim's text names no cycle");
}

/* The table's list is the model's, in order. */
typedef struct {
    model *m;
    bool seen[REQUESTS_MAX];
    unsigned count;
    char last[8];
} model_comparison;

static int model_compare(void *arg, const lock_view *view)
{
    model_comparison *c = arg;
    model *m = c->m;
    model_must(m, view->waiting == (view->waits_for != 0), "the list does not say whom a request waits for");
    for (unsigned i = 0; i < m->count; i++) {
        const model_request *r = &m->requests[i];
        if (c->seen[i] || m->owners[r->owner].id != view->owner || r->mode != view->mode || r->waiting != view->waiting) continue;
        if (r->is_key == view->is_range) continue;
        if (!rw_slice_equal(view->from, text(r->from)) || (!r->is_key && !rw_slice_equal(view->to, text(r->to)))) continue;
        c->seen[i] = true;
        c->count++;
        model_must(m, strcmp(c->last, r->from) <= 0, "the list is out of order");
        memcpy(c->last, r->from, sizeof c->last);
        return 0;
    }
    return 1;
}

/* The treap's own rules; returns how many are in it. */
static unsigned model_check_index(const model *m, lock_request *root, unsigned in)
{
    unsigned count = 0;
    const lock_request *last = NULL;
    for (lock_request *r = lock_index_first(root, in); r != NULL; r = lock_index_next(r, in), count++) {
        const lock_node *n = in == IN_TABLE ? &r->in_table : &r->in_owner;
        const lock_request *children[2] = {n->left, n->right}, *reach = r;
        for (unsigned i = 0; i < 2; i++) {
            if (children[i] == NULL) continue;
            const lock_node *child = in == IN_TABLE ? &children[i]->in_table : &children[i]->in_owner;
            model_must(m, child->parent == r && children[i]->priority <= r->priority, "a treap is no heap");
            int order = lock_end_compare(lock_request_interval(child->reach), lock_request_interval(reach));
            if (order > 0 || (order == 0 && child->reach->arrival > reach->arrival)) reach = child->reach;
        }
        model_must(m, n->reach == reach, "a subtree does not know what ends last in it");
        int order = last == NULL ? -1 : rw_slice_compare(lock_request_interval(last).from, lock_request_interval(r).from);
        model_must(m, order < 0 || (order == 0 && last->arrival < r->arrival), "a treap is out of order");
        last = r;
    }
    return count;
}

static void model_check_indexes(const model *m)
{
    unsigned count = 0, held = 0;
    for (unsigned i = 0; i < LOCK_TABLES; i++) count += model_check_index(m, table->table[i], IN_TABLE);
    model_must(m, count == m->count, "requests were lost");
    for (unsigned i = 0; i < OWNERS; i++) {
        for (unsigned mode = 0; mode < 2; mode++) held += model_check_index(m, m->owners[i].held[mode], IN_OWNER);
        held += waits(&m->owners[i]);
    }
    model_must(m, held == count, "locks were lost");
}

static void model_check(model *m)
{
    model_comparison c = {.m = m};
    model_check_indexes(m);
    model_must(m, locks_for_each(table, model_compare, &c) == 0 && c.count == m->count, "the table holds something else than the model");
    model_graph(m);
    for (unsigned i = 0; i < OWNERS; i++) {
        unsigned held = 0;
        for (unsigned j = 0; j < m->count; j++) held += m->requests[j].owner == i && !m->requests[j].waiting;
        model_must(m, !m->hard[i][i], "a cycle was left");
        model_must(m, m->owners[i].count == held && (held > 0 || m->owners[i].bytes == 0), "an owner's count is wrong");
        model_must(m, (model_waiting(m, i) < REQUESTS_MAX) == waits(&m->owners[i]), "an owner waits, or should");
    }
    for (unsigned i = 0; i < m->count; i++) {
        for (unsigned j = 0; j < i; j++) {
            bool both = !m->requests[i].waiting && !m->requests[j].waiting;
            model_must(m, !both || !model_conflict(&m->requests[i], &m->requests[j]), "two hold what excludes the other");
        }
    }
    model_must(m, locks_active(table) == (m->count > 0), "locks_active is wrong");
}

static void model_release(model *m, unsigned owner)
{
    locks_release(table, &m->owners[owner]);
    for (unsigned i = m->count; i-- > 0;) {
        if (m->requests[i].owner == owner) model_remove(m, i);
    }
    model_settle(m);
    m->owners[owner].id = ++m->next_id;
}

static model_request model_draw(model *m, unsigned owner)
{
    model_request r = {.owner = owner, .mode = prng_below(&m->random, 2) == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE, .is_key = prng_below(&m->random, 3) != 0};
    char *ends[2] = {r.from, r.to};
    for (unsigned end = 0; end < 2; end++) {
        unsigned size = 1 + (unsigned)prng_below(&m->random, 2);
        for (unsigned i = 0; i < size; i++) ends[end][i] = (char)('a' + prng_below(&m->random, 3));
    }
    if (r.is_key) r.to[0] = 0;
    else if (prng_below(&m->random, 12) == 0) memset(r.to, 0, sizeof r.to);
    return r;
}

/* Whether a cycle through owner would be left without this victim. */
static bool model_needed(const model *m, const bool *chosen, unsigned victim, unsigned owner)
{
    static model without;
    without = *m;
    for (unsigned i = 0; i < OWNERS; i++) {
        if (chosen[i] && i != victim) model_remove(&without, model_waiting(&without, i));
    }
    model_graph(&without);
    return without.hard[owner][owner];
}

/* The victims of a request, checked against the graph with it, and taken out of it. */
static bool model_victims(model *m, unsigned owner, int rc)
{
    bool chosen[OWNERS] = {false};
    for (unsigned i = 0; i < OWNERS; i++) {
        chosen[i] = i == owner ? rc == RW_EDEADLOCK : was_chosen(&m->owners[i]);
        if (!chosen[i]) continue;
        m->victims++;
        model_check_text(m, i);
        model_graph(m);
        model_must(m, m->hard[i][owner] && m->hard[owner][i], "a victim is in no cycle with the request");
        model_must(m, i == owner || rc != RW_EDEADLOCK, "others were chosen beside the one who closed the cycle");
    }
    for (unsigned i = 0; i < OWNERS; i++) {
        model_must(m, !chosen[i] || model_needed(m, chosen, i, owner), "a victim could have been spared");
    }
    for (unsigned i = 0; i < OWNERS; i++) {
        if (chosen[i]) model_remove(m, model_waiting(m, i));
    }
    return rc == RW_EDEADLOCK;
}

static void model_take(model *m, unsigned owner)
{
    model_request r = model_draw(m, owner);
    bool may_wait = prng_below(&m->random, 3) != 0;
    int rc = take(&m->owners[owner], r.from, r.is_key ? NULL : r.to, r.mode, may_wait ? LONG_NS : 0);
    bool nothing = !r.is_key && r.to[0] != 0 && strcmp(r.from, r.to) >= 0;
    for (unsigned i = 0; i < m->count && !nothing; i++) {
        const model_request *held = &m->requests[i];
        nothing = held->owner == owner && held->mode >= r.mode && model_covers(held, &r);
    }
    if (nothing) {
        model_must(m, rc == 0, "nothing new was asked for, and refused");
        return;
    }
    r.waiting = true;
    m->requests[m->count++] = r;
    if (!may_wait) {
        bool granted = model_grantable(m, m->count - 1);
        if (granted) model_grant(m, m->count - 1);
        else m->count--;
        model_must(m, rc == (granted ? 0 : RW_ETIMEOUT), "a request that may not wait came out wrong");
        return;
    }
    if (model_victims(m, owner, rc)) return;
    model_try(m, m->count - 1);
    model_settle(m);
    model_must(m, rc == (model_waiting(m, owner) < REQUESTS_MAX ? WAITS : 0) || (rc == WAITS && !waits(&m->owners[owner])), "a request came out wrong");
}

static model model_run(uint64_t seed, unsigned steps)
{
    model m = {.seed = seed, .random = {.state = seed}};
    for (unsigned i = 0; i < OWNERS; i++) lock_owner_init(&m.owners[i], ++m.next_id);
    for (; m.steps < steps; m.steps++) {
        unsigned owner = (unsigned)prng_below(&m.random, OWNERS);
        while (waits(&m.owners[owner])) owner = (owner + 1) % OWNERS;
        bool end = m.owners[owner].count > 8 || prng_below(&m.random, 8) == 0;
        if (end) model_release(&m, owner);
        else model_take(&m, owner);
        model_check(&m);
    }
    for (unsigned round = 0; m.count > 0; round++) {
        for (unsigned i = 0; i < OWNERS; i++) {
            if (!waits(&m.owners[i])) model_release(&m, i);
        }
        model_must(&m, round < OWNERS, "owners wait for good");
    }
    return m;
}

static void test_model(void)
{
    const char *given = getenv("LOCKS_SEED");
    uint64_t first = given != NULL ? strtoull(given, NULL, 10) : 1, count = given != NULL ? 1 : 200;
    unsigned victims = 0, late = 0, knots = 0;
    bed_open(4 << 20);
    for (uint64_t seed = first; seed < first + count; seed++) {
        model m = model_run(seed, 600);
        victims += m.victims;
        late += m.granted_late;
        knots += m.knots;
    }
    bool met = given != NULL || (victims > 100 && late > 1000 && knots > 100);
    tap_ok(met, "random steps end as in the model: %u victims, %u let in later, %u passed others in a knot", victims, late, knots);
    bed_close();
}

int main(void)
{
    test_conflicts();
    test_own();
    test_fair();
    test_upgrades();
    test_knots();
    test_victims();
    test_cycles();
    test_memory();
    test_many();
    test_model();
    return tap_done();
}
