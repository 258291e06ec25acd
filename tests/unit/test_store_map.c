/* The space map: a clean close spares the claims, and no damage to the map loses or invents space. */
#include "tests/unit/store_test.h"

/* Fills the file with count runs of pseudo-random lengths, one in seven over several segments; returns them. */
static store_retired *runs_make(bed *b, uint32_t count)
{
    store_retired *all = calloc(1, sizeof *all);
    rw_random random;
    rw_random_seed(&random, count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t blocks = 1 + (uint32_t)rw_random_below(&random, i % 7 == 6 ? 3 * SEGMENT_BLOCKS : SEGMENT_BLOCKS / 2);
        uint64_t address;
        must(store_allocate(b->s, STORE_EXTENTS, blocks, &address), "allocate");
        store_retire(all, address, blocks);
    }
    return all;
}

static uint32_t *lives(bed *b, uint32_t *count)
{
    store_space space;
    store_space_get(b->s, &space);
    *count = space.segments;
    uint32_t *live = calloc(space.segments, sizeof *live);
    for (uint32_t n = 0; n < space.segments; n++) live[n] = store_segment_live(b->s, n);
    return live;
}

static bool lives_same(bed *b, const uint32_t *live, uint32_t count)
{
    uint32_t now_count;
    uint32_t *now = lives(b, &now_count);
    bool same = now_count == count && memcmp(now, live, count * sizeof *now) == 0;
    free(now);
    return same;
}

static void runs_free(store_retired *all)
{
    store_retired_free(all);
    free(all);
}

/* Enough segments for a map of several blocks, and in the tiny build of several segments. */
static void test_round(uint32_t sparse_segments)
{
    bed b;
    uint32_t count;
    bed_create(&b, "map");
    store_retired *all = runs_make(&b, 100), gap = {0};
    if (sparse_segments > 0) {
        uint64_t address;
        must(store_allocate(b.s, STORE_PAGES, sparse_segments * SEGMENT_BLOCKS, &address), "allocate");
        store_retire(&gap, address, sparse_segments * SEGMENT_BLOCKS);
        must(store_allocate(b.s, STORE_PAGES, 1, &address), "allocate");
    }
    must(publish_mark(&b, 1, false), "publish");
    store_release(b.s, &gap);
    for (unsigned round = 0; round < 3; round++) {
        TAP_CHECK(publish_mark(&b, 2 + round, true) == 0);
        uint64_t address, address_now;
        uint32_t blocks, blocks_now;
        uint32_t *live = lives(&b, &count);
        store_space_map_run(b.s, &address, &blocks);
        bed_reopen(&b);
        store_space_map_run(b.s, &address_now, &blocks_now);
        tap_ok(!store_claims_needed(b.s) && store_space_map_damage(b.s) == NULL && lives_same(&b, live, count) && address == address_now &&
                   blocks == blocks_now && blocks == space_map_blocks(count),
               "round %u: the map of %u segments in %u blocks goes round", round, count, blocks);
        store_claims_end(b.s);
        segments_check(b.s);
        free(live);
    }
    /* the map itself goes with the next publish, and then what was allocated; the sums come out at nothing */
    TAP_CHECK(publish_mark(&b, 9, false) == 0);
    store_release(b.s, all);
    store_space space;
    store_space_get(b.s, &space);
    tap_ok(space.live_bytes == (sparse_segments > 0 ? RW_BLOCK_SIZE : 0), "released, nothing of maps is left alive");
    runs_free(all);
    store_retired_free(&gap);
    bed_end(&b);
}

/* After a clean open the log may name runs that came after the map: in segments that it said were free. */
static void test_claims_beside_map(void)
{
    bed b;
    uint64_t first, second;
    bed_create(&b, "beside");
    must(store_allocate(b.s, STORE_EXTENTS, 3, &first), "allocate");
    must(publish_mark(&b, 1, true), "publish");
    bed_reopen(&b);
    store_claims_end(b.s);
    must(store_allocate(b.s, STORE_EXTENTS, 5, &second), "allocate");
    bed_reopen(&b);
    TAP_CHECK(!store_claims_needed(b.s) && !store_is_claimed(b.s, second, 5));
    tap_ok(store_claim(b.s, second, 5) == 0 && store_is_claimed(b.s, second, 5), "what was allocated after the clean close is claimed beside the map");
    tap_ok(store_claim(b.s, first, 3) == RW_ECORRUPT, "what the map counted is not claimed again");
    store_claims_end(b.s);
    store_space space;
    uint64_t map;
    uint32_t map_blocks;
    store_space_get(b.s, &space);
    store_space_map_run(b.s, &map, &map_blocks);
    tap_ok(space.live_bytes == (8 + map_blocks) * RW_BLOCK_SIZE, "both are alive, once");
    bed_end(&b);
}

/* A map that cannot be read: claims instead, and the same segments are free as with it. */
static void test_damaged(void)
{
    bed b;
    uint32_t count, blocks;
    uint64_t address;
    bed_create(&b, "damaged");
    store_retired *all = runs_make(&b, 40);
    must(publish_mark(&b, 1, true), "publish");
    uint32_t *live = lives(&b, &count);
    store_space_map_run(b.s, &address, &blocks);
    bed_close(&b);
    static const uint32_t places[] = {0, 5, 30, 64, 68, 72, 100, 4095};
    for (size_t i = 0; i < RW_ARRAY_SIZE(places); i++) {
        file_flip(b.path, address * RW_BLOCK_SIZE + places[i], 8);
        must(bed_open(&b), "open");
        bool good = TAP_CHECK(store_claims_needed(b.s) && store_space_map_damage(b.s) != NULL);
        for (uint32_t r = 0; r < all->count; r++) good &= TAP_CHECK(store_claim(b.s, all->runs[r].address, all->runs[r].blocks) == 0);
        good &= TAP_CHECK(store_claim(b.s, address, blocks) == RW_ECORRUPT);
        store_claims_end(b.s);
        tap_ok(good && lives_same(&b, live, count), "a map with byte %u flipped is replaced by claims", places[i]);
        bed_close(&b);
        file_flip(b.path, address * RW_BLOCK_SIZE + places[i], 8);
    }
    file_truncate(b.path, (address / SEGMENT_BLOCKS) * RW_SEGMENT_BYTES);
    must(bed_open(&b), "open");
    tap_ok(store_claims_needed(b.s) && strstr(store_space_map_damage(b.s), "outside") != NULL, "a map cut off the file's end is missed");
    store_space_map_run(b.s, &address, &blocks);
    TAP_CHECK(blocks == 0);
    free(live);
    runs_free(all);
    bed_end(&b);
}

static void test_no_room(void)
{
    bed b;
    uint64_t address;
    bed_create(&b, "room");
    must(store_allocate(b.s, STORE_PAGES, SEGMENT_BLOCKS, &address), "allocate");
    store_space before, after;
    store_space_get(b.s, &before);
    b.io.space = before.file_bytes;
    TAP_CHECK(publish_mark(&b, 1, true) == RW_ENOSPC);
    store_space_get(b.s, &after);
    tap_ok(space_same(&before, &after) && publish_mark(&b, 2, false) == 0, "no room for a map: publishing without it goes on");
    b.io.space = NEVER;
    TAP_CHECK(publish_mark(&b, 3, true) == 0);
    TAP_CHECK(store_allocate(b.s, STORE_PAGES, 1, &address) == RW_ECLOSED);
    tap_ok(publish_mark(&b, 4, false) == 0 && store_allocate(b.s, STORE_PAGES, 1, &address) == 0, "a publish without clean opens allocation again");
    bed_end(&b);
}

int main(void)
{
    test_round(0);
    test_round(3000);
    test_claims_beside_map();
    test_damaged();
    test_no_room();
    return tap_done();
}
