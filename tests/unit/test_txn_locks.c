/* The lock table in one thread, by hand: who conflicts with whom, who is let in next, who is chosen, and how it is with very many. */
#include "tests/unit/txn_locks_test.h"

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
        tap_ok(chosen && strcmp(young->victim_text, "deadlock: transaction 4 waits for 2, that for 4; 4 was chosen") == 0,
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
    return tap_done();
}
