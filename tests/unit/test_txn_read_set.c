/* What a transaction has read: cases by hand, and random keys and ranges against a bitmap over a small world of keys. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/prng.h"
#include "tests/support/tap.h"
#include "txn/read_set.h"

static rw_slice text(const char *s)
{
    return rw_slice_of(s, strlen(s));
}

static read_set *opened(void)
{
    read_set *set;
    if (read_set_open(&set) != 0) exit(1);
    return set;
}

/* The entries in words: "a b..c d". */
static void describe(const read_set *set, char *to, size_t room)
{
    size_t length = 0;
    to[0] = 0;
    for (size_t i = 0; i < read_set_count(set) && length < room; i++) {
        read_entry e = read_set_entry(set, i);
        length += (size_t)snprintf(to + length, room - length, "%s%.*s%s%.*s", i == 0 ? "" : " ", (int)e.from.size, (const char *)e.from.data, e.is_key ? "" : "..",
                                   e.is_key ? 0 : (int)e.to.size, e.is_key ? "" : (const char *)e.to.data);
    }
}

/* Adds "a b..c d" one by one. */
static void add(read_set *set, const char *what)
{
    char from[64], to[64];
    int length;
    for (; sscanf(what, " %63[^. ]%n", from, &length) == 1; what += length) {
        what += length;
        if (sscanf(what, "..%63[^. ]%n", to, &length) == 1) {
            TAP_CHECK(read_set_add_range(set, text(from), text(to)) == 0);
        } else {
            TAP_CHECK(read_set_add_key(set, text(from)) == 0);
            length = 0;
        }
    }
}

static void test_cases(void)
{
    static const struct {
        const char *added, *settled;
        size_t count;              /* before it was settled */
    } cases[] = {
        {"", "", 0},
        {"b a b", "a b", 3},
        {"b b b", "b", 1},
        {"a..b b..c c..d", "a..d", 1},
        {"c..d b..c a..b", "a..d", 1},
        {"b..d a..c c..e", "a..e", 1},
        {"a..b x b..c", "a..c x", 2},
        {"a..d b c d a", "a..d d", 2},
        {"b d a..d", "a..d d", 3},
        {"b b..c", "b..c", 2},
        {"b a..b", "a..b b", 2},
        {"a..b c..d b..c", "a..d", 2},
        {"a..c c..a a..a", "a..c", 1},
        {"m..n a..b c..z a a..b", "a..b c..z", 5},
    };
    for (unsigned i = 0; i < RW_ARRAY_SIZE(cases); i++) {
        read_set *set = opened();
        add(set, cases[i].added);
        size_t count = read_set_count(set);
        char found[256];
        TAP_CHECK(read_set_settle(set) == 0);
        describe(set, found, sizeof found);
        tap_ok(count == cases[i].count && strcmp(found, cases[i].settled) == 0, "'%s' is '%s' (%zu entries, '%s')", cases[i].added, cases[i].settled, count, found);
        read_set_free(set);
    }
}

/* A scan of any length is one range, and takes little memory; forwards and backwards. */
static void test_scan(void)
{
    for (unsigned backwards = 0; backwards < 2; backwards++) {
        read_set *set = opened();
        char bound[2][1200] = {"k000000", "k100000"};
        for (unsigned i = 0; i < 100000; i++) {
            char *next = bound[i % 2 == backwards];
            const char *last = bound[i % 2 != backwards];
            snprintf(next, sizeof bound[0], "k%06u", backwards != 0 ? 99999 - i : i + 1);
            if (i % 1000 == 999) memset(next + 7, 'x', 1000), next[1007] = 0;
            TAP_CHECK(read_set_add_range(set, text(backwards != 0 ? next : last), text(backwards != 0 ? last : next)) == 0);
        }
        read_entry e = read_set_entry(set, 0);
        bool ends = e.from.size == (backwards != 0 ? 1007 : 7) && memcmp(e.from.data, "k000000", 7) == 0 && memcmp(e.to.data, "k100000", 7) == 0 &&
                    e.to.size == (backwards != 0 ? 7 : 1007);
        tap_ok(read_set_count(set) == 1 && ends && read_set_bytes(set) < 30000, "a scan %s is one range, in %zu bytes", backwards != 0 ? "backwards" : "forwards",
               read_set_bytes(set));
        read_set_free(set);
    }
}

/* ---- random ------------------------------------------------------------------------------------------------------ */

/*
 * The world has the keys 0 to WORLD-1, two letters each, and the places just behind them. Bit 2k: key k was read; bit 2k+1: what lies between it and the next.
 */
#define WORLD 60u

static void world_key(unsigned k, char *key)
{
    key[0] = (char)('a' + k / 8);
    key[1] = (char)('a' + k % 8);
    key[2] = 0;
}

static bool random_run(uint64_t seed)
{
    prng random = {.state = seed};
    read_set *set = opened();
    bool read[2 * WORLD] = {false};
    char from[3], to[3];
    unsigned adds = (unsigned)prng_below(&random, 60), rounds = 1 + (unsigned)prng_below(&random, 3), last = 0;
    for (unsigned i = 0; i < adds * rounds; i++) {
        unsigned a = prng_below(&random, 3) == 0 ? last : (unsigned)prng_below(&random, WORLD), b = a + (unsigned)prng_below(&random, 6);
        b = RW_MIN(b, WORLD - 1);
        last = b;
        world_key(a, from);
        world_key(b, to);
        if (prng_below(&random, 2) == 0) {
            if (read_set_add_key(set, text(from)) != 0) return false;
            read[2 * a] = true;
        } else {
            if (read_set_add_range(set, text(from), text(to)) != 0) return false;
            for (unsigned bit = 2 * a; bit < 2 * b; bit++) read[bit] = true;
        }
        if (i % adds == adds - 1 && read_set_settle(set) != 0) return false;
    }
    bool found[2 * WORLD] = {false};
    const char *end = "";
    bool end_open = false, good = true;
    char copy[3] = "";
    for (size_t i = 0; i < read_set_count(set); i++) {
        read_entry e = read_set_entry(set, i);
        unsigned a = 0, b = 0;
        for (unsigned k = 0; k < WORLD; k++) {
            world_key(k, from);
            if (rw_slice_equal(e.from, text(from))) a = k;
            if (!e.is_key && rw_slice_equal(e.to, text(from))) b = k;
        }
        int order = i == 0 ? 1 : rw_slice_compare(e.from, text(end));
        good = good && (order > 0 || (order == 0 && end_open && e.is_key)) && (e.is_key || a < b);
        for (unsigned bit = 2 * a; bit < (e.is_key ? 2 * a + 1 : 2 * b); bit++) good = good && !found[bit], found[bit] = true;
        world_key(e.is_key ? a : b, copy);
        end = copy;
        end_open = !e.is_key;
    }
    good = good && memcmp(found, read, sizeof read) == 0;
    read_set_free(set);
    return good;
}

static void test_random(void)
{
    const char *given = getenv("READ_SET_SEED");
    uint64_t first = given != NULL ? strtoull(given, NULL, 10) : 1, count = given != NULL ? 1 : 20000;
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (random_run(seed)) continue;
        tap_ok(false, "READ_SET_SEED=%llu", (unsigned long long)seed);
        return;
    }
    tap_ok(true, "random keys and ranges are settled as a bitmap says");
}

int main(void)
{
    test_cases();
    test_scan();
    test_random();
    return tap_done();
}
