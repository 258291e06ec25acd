/* The version store, by hand: ranges that are longer than an overlay, a hot key, the limit of its bytes, and no memory at all. */
#include "tests/unit/txn_versions_test.h"

/* ---- long ranges ------------------------------------------------------------------------------------------------- */

#define MANY 2000u

/* Puts what an operation replaced of the key with this number into the store: value. */
static bool record_number(bed *b, uint32_t number, const char *value)
{
    unsigned char key[16];
    uint64_t timestamp = operation_begin(b);
    partition *p = bed_partition(b, number_key(number, key));
    version_image image = {.present = true, .value = rw_slice_of(value, strlen(value))};
    partition_lock(b->k, p);
    versions_record(&b->v, p, number_key(number, key), timestamp, &image);
    partition_unlock(b->k, p);
    operation_end(b, timestamp);
    return versions_written_since(&b->v, p, number_key(number, key), timestamp);
}

/* Goes over all of [from, end) in as many overlays as it takes. Returns the number of keys; 0 when one was wrong. Every third key was written since. */
static uint32_t page_through(bed *b, uint64_t since, bool backwards)
{
    version_overlay o = {0};
    unsigned char bound[16], key[16];
    uint32_t low = 0, high = MANY, seen = 0;
    bool complete = false;
    while (!complete) {
        rw_slice from = number_key(low, bound), to = number_key(high, key);
        must(versions_collect(&b->v, from, to, backwards, since, &o, &complete) == 0, "collect");
        if (o.count > VERSION_OVERLAY_MAX || (!complete && o.count != VERSION_OVERLAY_MAX)) return 0;
        for (unsigned i = 0; i < o.count; i++) {
            uint32_t number = key_number(version_overlay_key(&o, i));
            uint32_t expected = backwards ? (high - 1) / 3 * 3 - 3 * (o.count - 1 - i) : (low + 2) / 3 * 3 + 3 * i;
            if (number != expected || !rw_slice_equal(version_overlay_value(&o, i), rw_slice_of("second", 6))) return 0;
        }
        seen += o.count;
        if (o.count == 0) break;
        rw_slice last = version_overlay_key(&o, backwards ? 0 : o.count - 1);
        uint32_t number = key_number(last);
        if (backwards) high = number;
        else low = number + 1;
    }
    version_overlay_free(&o);
    return seen;
}

static void test_long_range(void)
{
    bed *b = bed_make(CACHE_BYTES);
    snapshot old, new;
    unsigned char key[16];
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    for (uint32_t i = 0; i < MANY; i++) record_number(b, i, "first");
    snapshots_begin(&b->s, &new, 0, bed_moment, b);
    for (uint32_t i = 0; i < MANY; i += 3)
        for (unsigned n = 0; n < 12; n++) record_number(b, i, n == 0 ? "second" : "later"); /* only the first of them is needed */
    tap_ok(versions_count(&b->v) == MANY + (MANY + 2) / 3, "a version that no snapshot needs is not recorded");
    for (uint32_t i = 300; i < MANY; i += 450) bed_cut(b, number_key(i, key), PARTITIONS_MAX);
    tap_ok(router_count(&b->t.router) == 5 && page_through(b, new.timestamp, false) == (MANY + 2) / 3, "a long range over several partitions, forwards");
    tap_ok(page_through(b, new.timestamp, true) == (MANY + 2) / 3, "and backwards");
    version_overlay o = {0};
    bool complete = false;
    must(versions_collect(&b->v, rw_slice_of("", 0), rw_slice_of("", 0), true, old.timestamp, &o, &complete) == 0, "collect");
    tap_ok(!complete && o.count == VERSION_OVERLAY_MAX && rw_slice_equal(version_overlay_key(&o, o.count - 1), number_key(MANY - 1, key)), "from the end of all");
    version_overlay_free(&o);
    snapshots_end(&b->s, &new);
    for (uint32_t i = 0; i < MANY; i += 3) record_number(b, i, "later");
    snapshots_end(&b->s, &old);
    bed_end_clean(b, "all goes when the snapshots have ended");
}

/* A key that is written again and again, while short snapshots come and go beside a long one: what only they needed goes with them. */
static void test_hot_key(void)
{
    bed *b = bed_make(CACHE_BYTES);
    snapshot old, new[20];
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    for (unsigned i = 0; i < 5000; i++) {
        if (i >= 20) snapshots_end(&b->s, &new[i % 20]);
        snapshots_begin(&b->s, &new[i % 20], 0, bed_moment, b);
        record_number(b, 1, "hot");
    }
    tap_ok(versions_count(&b->v) >= 20 && versions_count(&b->v) < 60, "%llu versions of a hot key for 21 snapshots", (unsigned long long)versions_count(&b->v));
    for (unsigned i = 0; i < 20; i++) snapshots_end(&b->s, &new[i]);
    snapshots_end(&b->s, &old);
    bed_end_clean(b, "none of them stays");
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void test_bytes_max(void)
{
    bed *b = bed_make(32 * PAGE_BYTES);
    snapshot old, new;
    static char value[400];
    unsigned char key[16];
    memset(value, 'v', sizeof value - 1);
    for (uint32_t i = 1000; i < 4000; i += 1000) bed_cut(b, number_key(i, key), PARTITIONS_MAX);
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    uint32_t written = 0;
    while (versions_bytes(&b->v) <= 16 * PAGE_BYTES) record_number(b, written++ * 37 % 4000, value);
    must(!old.given_up, "half of the memory is no reason");
    snapshots_begin(&b->s, &new, 0, bed_moment, b);
    while (!old.given_up) record_number(b, written++ * 37 % 4000, value);
    tap_ok(snapshots_is_lost(&b->s, old.timestamp) && !new.given_up && !snapshots_is_lost(&b->s, new.timestamp),
           "above its limit the store gives up the oldest snapshot");
    uint64_t most = 0;
    for (unsigned i = 0; i < 40; i++) {
        record_number(b, 4000 + i, value); /* in the last partition: the others' share is trimmed from there */
        most = RW_MAX(most, versions_bytes(&b->v));
    }
    tap_ok(!new.given_up && versions_bytes(&b->v) <= 32 * PAGE_BYTES, "what that sets free in all partitions is enough for the next one");
    for (unsigned i = 0; i < 3000; i++) {
        if (new.given_up) {
            snapshots_end(&b->s, &new);
            snapshots_begin(&b->s, &new, 0, bed_moment, b);
        }
        record_number(b, written++ * 37 % 4000, value);
        most = RW_MAX(most, versions_bytes(&b->v));
    }
    tap_ok(b->s.given_up_count > 5 && most <= 34 * PAGE_BYTES, "and so on: never more than %llu pages", (unsigned long long)(most / PAGE_BYTES));
    snapshots_end(&b->s, &old);
    snapshots_end(&b->s, &new);
    bed_end_clean(b, "all goes in the end");
}

/* What could go stands in a partition whose token is taken: the limit is passed, but not twice. */
static void test_bytes_max_held(void)
{
    bed *b = bed_make(32 * PAGE_BYTES);
    snapshot old, new;
    static char value[400];
    unsigned char key[16];
    uint64_t most = 0;
    memset(value, 'v', sizeof value - 1);
    bed_cut(b, number_key(5000, key), PARTITIONS_MAX);
    partition *held = bed_partition(b, number_key(5000, key));
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    for (uint32_t i = 0; versions_bytes(&b->v) < 20 * PAGE_BYTES; i++) record_number(b, 5000 + i, value);
    snapshots_begin(&b->s, &new, 0, bed_moment, b);
    snapshots_end(&b->s, &old);
    partition_lock(b->k, held);
    for (uint32_t i = 0; i < 2000 && !new.given_up; i++) {
        record_number(b, i, value);
        most = RW_MAX(most, versions_bytes(&b->v));
    }
    partition_unlock(b->k, held);
    tap_ok(new.given_up && most == 64 * PAGE_BYTES, "twice the limit is the end of all snapshots");
    snapshots_end(&b->s, &new);
    bed_end_clean(b, "and all goes in the end");
}

static void test_no_memory(void)
{
    bed *b = bed_make(CACHE_BYTES);
    static uint32_t taken[CACHE_BYTES / PAGE_BYTES];
    uint32_t count = 0, f;
    snapshot one;
    unsigned char key[16];
    partition *p = bed_partition(b, number_key(1, key));
    size_t size = versions_size(&b->v, 10, 6);
    snapshots_begin(&b->s, &one, 0, bed_moment, b);
    tap_ok(!versions_has_room(&b->v, p, size), "an empty store has no room");
    while ((f = pool_frame_try(&b->t.pool)) != FRAME_NONE) taken[count++] = f;
    must(count > 2, "some frames");
    versions_feed(&b->v, p, taken[--count]);
    tap_ok(versions_has_room(&b->v, p, size) && record_number(b, 1, "second") && !one.given_up, "it has when it was fed a frame");
    uint32_t n = 1;
    while (versions_has_room(&b->v, p, size)) must(record_number(b, ++n, "second"), "what has room is recorded");
    tap_ok(versions_bytes(&b->v) == PAGE_BYTES && n > PAGE_BYTES / 200, "%u versions in one frame", n);
    tap_ok(!record_number(b, ++n, "second") && one.given_up && snapshots_is_lost(&b->s, one.timestamp), "without memory the snapshots are given up");
    snapshots_end(&b->s, &one);
    while (count > 0) pool_frame_free(&b->t.pool, taken[--count]);
    bed_end_clean(b, "the frame goes back");
}

int main(void)
{
    test_long_range();
    test_hot_key();
    test_bytes_max();
    test_bytes_max_held();
    test_no_memory();
    return tap_done();
}
