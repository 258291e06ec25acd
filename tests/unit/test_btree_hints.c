/* Hints by themselves: what is noted is found, newer ones replace older ones, and nothing is found that was not noted. */
#include "base/random.h"
#include "btree/hints.h"
#include "tests/support/tap.h"

#define TABLE_BYTES ((size_t)64 << 10)
#define KEYS 20000u

typedef struct {
    uint32_t frame;
    unsigned slot, offset;
} place;

static uint64_t key_hash(uint32_t key)
{
    return hints_hash(rw_slice_of(&key, sizeof key));
}

static place place_of(uint32_t key, uint32_t generation)
{
    return (place){.frame = key * 7 + generation, .slot = (key + generation) & 0xfff, .offset = (key & 0xfff) * HINT_UNIT};
}

static bool found_at(const key_hints *h, uint32_t key, uint32_t generation)
{
    hint found;
    place expected = place_of(key, generation);
    return hints_find(h, key_hash(key), &found) && found.frame == expected.frame && found.slot == expected.slot && found.offset == expected.offset;
}

static void note(const key_hints *h, uint32_t key, uint32_t generation)
{
    place at = place_of(key, generation);
    hints_note(h, key_hash(key), at.frame, at.slot, at.offset + key % HINT_UNIT);
}

static void test_sizes(void)
{
    key_hints h;
    hint found;
    tap_ok(hints_open(&h, 0) == 0 && h.bytes == 0, "no memory for hints is no error");
    hints_note(&h, key_hash(1), 1, 1, 1);
    tap_ok(!hints_find(&h, key_hash(1), &found), "and there are none then");
    hints_close(&h);
    for (size_t bytes = 32; bytes <= TABLE_BYTES; bytes = bytes * 3 / 2) {
        TAP_CHECK(hints_open(&h, bytes) == 0 && h.bytes <= bytes && (h.bytes == 0 || h.bytes > bytes / 2));
        hints_close(&h);
    }
    tap_ok(true, "a table takes more than half of what it may, and no more");
}

static void test_populate(void)
{
    key_hints h;
    hint found;
    unsigned steps = 0;
    if (!tap_ok(hints_open(&h, TABLE_BYTES) == 0 && !hints_populate(&h), "a small table is in use at once")) return;
    hints_close(&h);
    if (!tap_ok(hints_open(&h, (size_t)9 << 20) == 0 && h.bytes == (size_t)8 << 20, "a large table")) return;
    note(&h, 1, 0);
    hints_prefetch(&h, key_hash(1));
    bool early = hints_find(&h, key_hash(1), &found);
    while (hints_populate(&h)) {
        steps++;
        if (steps == 4) break;
        note(&h, 1, 0);
        early = early || hints_find(&h, key_hash(1), &found);
    }
    tap_ok(!early && steps == 4 && !hints_populate(&h), "is used when all of it has memory, not before: %u steps", steps);
    tap_ok(!hints_find(&h, key_hash(1), &found), "and is empty then");
    note(&h, 1, 0);
    tap_ok(found_at(&h, 1, 0), "what is noted from now on is found");
    hints_close(&h);
}

static void test_newest(void)
{
    key_hints h;
    if (!tap_ok(hints_open(&h, TABLE_BYTES) == 0, "a table")) return;
    unsigned right = 0, replaced = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        note(&h, key, 0);
        right += found_at(&h, key, 0);
        note(&h, key, 1);
        replaced += found_at(&h, key, 1) && !found_at(&h, key, 0);
    }
    tap_ok(right == KEYS, "what was just noted is found, however full the table: %u of %u", right, KEYS);
    tap_ok(replaced == KEYS, "a newer place replaces the older one of the same key: %u", replaced);
    unsigned wrong = 0, kept = 0;
    for (uint32_t key = 0; key < 2 * KEYS; key++) {
        hint found;
        if (!hints_find(&h, key_hash(key), &found)) continue;
        bool own = key < KEYS && found_at(&h, key, 1);
        kept += own;
        wrong += !own;
    }
    size_t places = h.bytes / sizeof(uint64_t);
    tap_ok(kept > places / 2, "a full table holds hints that are right: %u in %zu places", kept, places);
    tap_ok(wrong < KEYS / 100, "few keys share a tag in their bucket: %u of %u", wrong, 2 * KEYS);
    hints_close(&h);
}

static void test_limits(void)
{
    key_hints h;
    hint found;
    if (!tap_ok(hints_open(&h, TABLE_BYTES) == 0, "a table")) return;
    hints_note(&h, 5, (1u << 28) - 2, 0xfff, 65535);
    tap_ok(hints_find(&h, 5, &found) && found.frame == (1u << 28) - 2 && found.slot == 0xfff && found.offset == 65520, "the largest frame, slot and offset");
    hints_note(&h, 6, (1u << 28) - 1, 0, 0);
    hints_note(&h, 7, 1, 0x1000, 0);
    tap_ok(!hints_find(&h, 6, &found) && !hints_find(&h, 7, &found), "what does not fit is not noted");
    hints_note(&h, 0x8000, 0, 0, 0);
    tap_ok(hints_find(&h, 0x8000, &found) && found.frame == 0 && !hints_find(&h, 0x9001, &found), "frame 0 is no empty place");
    hints_close(&h);
}

int main(void)
{
    test_sizes();
    test_populate();
    test_newest();
    test_limits();
    return tap_done();
}
