/*
 * Allocation against a model that knows the owner of every block: random allocations, gifts back, retirements, releases, cuts, full devices,
 * clean and unclean closes. test_store_segments [seed [rounds]] plays a run again.
 */
#include "tests/unit/store_test.h"

#define MODEL_SEGMENTS 400u
#define MODEL_RUNS 40000u

typedef struct {
    uint64_t address;
    uint32_t blocks;
} run;

typedef struct {
    bed b;
    rw_random random;
    bool taken[MODEL_SEGMENTS * SEGMENT_BLOCKS];
    uint32_t live[MODEL_SEGMENTS];
    bool spanned[MODEL_SEGMENTS];
    uint32_t open[STORE_STREAMS];    /* segment of each stream's last allocation */
    run runs[MODEL_RUNS];
    uint32_t count;
    uint64_t live_blocks;
    store_retired retired, waiting;
    uint32_t wrong;
} model;

#define WRONG(m, ...) ((m)->wrong++ < 5 ? tap_diag(__VA_ARGS__) : (void)0)

static void model_mark(model *m, uint64_t address, uint32_t blocks, bool taken)
{
    for (uint64_t at = address; at < address + blocks; at++) {
        if (m->taken[at] == taken) WRONG(m, "block %" PRIu64 " is %s twice", at, taken ? "taken" : "given back");
        m->taken[at] = taken;
        m->live[at / SEGMENT_BLOCKS] += taken ? 1u : -1u;
        if (m->live[at / SEGMENT_BLOCKS] == 0) m->spanned[at / SEGMENT_BLOCKS] = false;
    }
    m->live_blocks += taken ? blocks : -(uint64_t)blocks;
}

/* Blocks of the space map, which the store allocates for itself, in segment n; the model's maps are small. */
static uint32_t model_map_blocks(const model *m, uint32_t n)
{
    uint64_t address;
    uint32_t blocks;
    store_space_map_run(m->b.s, &address, &blocks);
    return blocks > 0 && address / SEGMENT_BLOCKS == n ? blocks : 0;
}

static bool model_is_open(const model *m, uint32_t n)
{
    bool is_open = false;
    for (unsigned stream = 0; stream < STORE_STREAMS; stream++) is_open = is_open || m->open[stream] == n;
    return is_open;
}

/* The lowest segment that holds nothing and that no stream appends to. */
static uint32_t model_lowest_free(const model *m)
{
    uint32_t n = 1;
    while (m->live[n] + model_map_blocks(m, n) != 0 || model_is_open(m, n)) n++;
    return n;
}

static void model_placed(model *m, store_stream stream, uint64_t address, uint32_t blocks)
{
    uint32_t n = (uint32_t)(address / SEGMENT_BLOCKS), within = (uint32_t)(address % SEGMENT_BLOCKS);
    if (blocks > SEGMENT_BLOCKS) {
        for (uint32_t i = n; (uint64_t)i * SEGMENT_BLOCKS < address + blocks; i++) {
            if (m->live[i] != 0 || model_is_open(m, i)) WRONG(m, "a run over several segments shares segment %u", i);
        }
        if (within != 0) WRONG(m, "a run over several segments begins inside one");
        return;
    }
    if (within + blocks > SEGMENT_BLOCKS) WRONG(m, "a run of %u crosses the end of segment %u", blocks, n);
    if (n == m->open[stream]) return;
    if (n != model_lowest_free(m) || within != 0) WRONG(m, "segment %u was opened, %u is the lowest free one", n, model_lowest_free(m));
    if (model_is_open(m, n)) WRONG(m, "two streams append to segment %u", n);
    m->open[stream] = n;
}

static void model_compare(model *m)
{
    store_space space;
    store_space_get(m->b.s, &space);
    uint32_t free_count = 0, map_blocks;
    uint64_t map_address;
    store_space_map_run(m->b.s, &map_address, &map_blocks);
    for (uint32_t n = 1; n < space.segments; n++) {
        uint32_t extra = model_map_blocks(m, n);
        uint32_t live = store_segment_live(m->b.s, n);
        if (live != (m->live[n] + extra) * RW_BLOCK_SIZE) WRONG(m, "segment %u has %u live bytes, expected %u blocks", n, live, m->live[n] + extra);
        free_count += m->live[n] + extra == 0 && !model_is_open(m, n);
    }
    if (space.live_bytes != (m->live_blocks + map_blocks) * RW_BLOCK_SIZE) WRONG(m, "%" PRIu64 " live bytes", space.live_bytes);
    if (space.segments_free != free_count) WRONG(m, "%u segments are free, expected %u", space.segments_free, free_count);
    if ((int64_t)space.file_bytes > file_size(m->b.path)) WRONG(m, "the file is shorter than its segments");
    segments_check(m->b.s);
}

/* ---- the steps ---- */

static void step_allocate(model *m)
{
    store_stream stream = (store_stream)rw_random_below(&m->random, STORE_STREAMS);
    uint64_t dice = rw_random_below(&m->random, 100), address = 12345;
    uint32_t blocks = 1 + (uint32_t)rw_random_below(&m->random, dice < 70 ? 16 : dice < 97 ? SEGMENT_BLOCKS : 5 * SEGMENT_BLOCKS);
    store_space before, after;
    if (m->count == MODEL_RUNS) return;
    store_space_get(m->b.s, &before);
    int result = store_allocate(m->b.s, stream, blocks, &address);
    store_space_get(m->b.s, &after);
    if (result == RW_ENOSPC) {
        if (!space_same(&before, &after) || address != 12345) WRONG(m, "a full device changed something");
        if ((uint64_t)file_size(m->b.path) != before.file_bytes) WRONG(m, "a full device left the file %lld bytes long", (long long)file_size(m->b.path));
        return;
    }
    if (result != 0) {
        WRONG(m, "allocate: %s", rw_error_text());
        return;
    }
    if (after.segments > MODEL_SEGMENTS) WRONG(m, "the file grew to %u segments", after.segments);
    model_placed(m, stream, address, blocks);
    model_mark(m, address, blocks, true);
    for (uint64_t n = address / SEGMENT_BLOCKS; blocks > SEGMENT_BLOCKS && n * SEGMENT_BLOCKS < address + blocks; n++) m->spanned[n] = true;
    m->runs[m->count++] = (run){address, blocks};
}

static run model_take(model *m, uint64_t newest)
{
    uint32_t which = m->count - 1 - (uint32_t)rw_random_below(&m->random, RW_MIN(newest, m->count));
    run taken = m->runs[which];
    m->runs[which] = m->runs[--m->count];
    return taken;
}

static void step_give_back(model *m)
{
    if (m->count == 0) return;
    run given = model_take(m, 4);
    store_give_back(m->b.s, given.address, given.blocks);
    model_mark(m, given.address, given.blocks, false);
}

static void step_retire(model *m)
{
    if (m->count == 0) return;
    run gone = model_take(m, m->count);
    store_retire(&m->retired, gone.address, gone.blocks);
}

static void step_release(model *m)
{
    store_retired_move(&m->waiting, &m->retired);
    if (m->retired.count != 0 || m->retired.blocks != 0) WRONG(m, "a list that was moved is not empty");
    for (uint32_t i = 0; i < m->waiting.count; i++) model_mark(m, m->waiting.runs[i].address, m->waiting.runs[i].blocks, false);
    store_release(m->b.s, &m->waiting);
    if (m->waiting.count != 0 || m->waiting.blocks != 0) WRONG(m, "a list that was released is not empty");
}

static void step_shrink(model *m)
{
    store_space before, after;
    uint64_t bytes = 0;
    store_space_get(m->b.s, &before);
    uint32_t kept_free = rw_random_below(&m->random, 2) == 0 ? 0 : (uint32_t)rw_random_below(&m->random, before.segments);
    if (store_shrink(m->b.s, kept_free, &bytes) != 0) WRONG(m, "shrink: %s", rw_error_text());
    store_space_get(m->b.s, &after);
    if (before.file_bytes - after.file_bytes != bytes || (uint64_t)file_size(m->b.path) != after.file_bytes) WRONG(m, "cut, but not by what it says");
    if (after.segments_free < RW_MIN(before.segments_free, kept_free)) WRONG(m, "%u free segments are left, not %u", after.segments_free, kept_free);
    for (uint32_t n = after.segments; n < before.segments; n++)
        if (m->live[n] != 0) WRONG(m, "segment %u was cut off alive", n);
}

/* Ahead of demand: free segments at the end, no more than a sixteenth; on a full device nothing. */
static void step_grow_ahead(model *m)
{
    store_space before, after;
    store_space_get(m->b.s, &before);
    store_grow_ahead(m->b.s);
    store_space_get(m->b.s, &after);
    uint32_t grown = after.segments - before.segments;
    if (after.segments_free != before.segments_free + grown || after.live_bytes != before.live_bytes) WRONG(m, "growing ahead changed more than the length");
    if (grown > 0 && after.segments_free > before.segments / 16) WRONG(m, "grown ahead to %u free of %u segments", after.segments_free, after.segments);
    if (grown > 0 && (uint64_t)file_size(m->b.path) != after.file_bytes) WRONG(m, "grown, but the file is %lld bytes long", (long long)file_size(m->b.path));
    if (after.file_bytes > m->b.io.space) WRONG(m, "grown beyond the device");
}

/* What is picked is sparse and closed, nothing sparser was left out, and it is not picked twice. */
static void step_pick(model *m)
{
    store_space space;
    store_space_get(m->b.s, &space);
    unsigned percent = 1 + (unsigned)rw_random_below(&m->random, 100);
    uint32_t from = (uint32_t)rw_random_below(&m->random, space.segments), best = 0;
    for (uint32_t n = RW_MAX(from, 1); n < space.segments; n++) {
        uint32_t live = store_segment_live(m->b.s, n) / RW_BLOCK_SIZE;
        if (live == 0 || model_is_open(m, n) || m->spanned[n] || live * 100 >= percent * SEGMENT_BLOCKS) continue;
        if (best == 0 || live * RW_BLOCK_SIZE < store_segment_live(m->b.s, best)) best = n;
    }
    uint32_t picked = store_clean_pick(m->b.s, percent, from);
    if (picked != best) WRONG(m, "segment %u was picked for cleaning, %u is the sparsest", picked, best);
    if (picked != 0 && store_clean_pick(m->b.s, percent, from) == picked) WRONG(m, "segment %u was picked twice", picked);
    for (uint32_t n = 1; n < space.segments; n++) store_clean_end(m->b.s, n, false);
}

/* ---- closing and opening ---- */

static void model_opened(model *m)
{
    memset(m->open, 0, sizeof m->open);
    must(bed_open(&m->b), "open");
}

static void step_reopen_clean(model *m)
{
    /* what is retired must be released, or the map would say that it is alive */
    if (publish_mark(&m->b, 5, false) != 0) WRONG(m, "publish: %s", rw_error_text());
    step_release(m);
    int result = publish_mark(&m->b, 6, true);
    if (result == RW_ENOSPC) return;
    if (result != 0) WRONG(m, "clean publish: %s", rw_error_text());
    uint64_t address;
    if (store_allocate(m->b.s, STORE_PAGES, 1, &address) != RW_ECLOSED) WRONG(m, "an allocation after a clean publish");
    bed_close(&m->b);
    model_opened(m);
    if (store_claims_needed(m->b.s)) WRONG(m, "claims after a clean close: %s", store_space_map_damage(m->b.s));
    store_claims_end(m->b.s);
}

static void step_reopen_claiming(model *m)
{
    if (publish_mark(&m->b, 7, false) != 0) WRONG(m, "publish: %s", rw_error_text());
    step_release(m);
    bed_close(&m->b);
    model_opened(m);
    if (!store_claims_needed(m->b.s)) WRONG(m, "no claims after an unclean close");
    memset(m->spanned, 0, sizeof m->spanned);
    for (uint32_t i = 0; i < m->count; i++) {
        uint32_t other = i + (uint32_t)rw_random_below(&m->random, m->count - i);
        run claimed = m->runs[other];
        m->runs[other] = m->runs[i];
        m->runs[i] = claimed;
        if (store_is_claimed(m->b.s, claimed.address, claimed.blocks)) WRONG(m, "claimed before it was");
        if (store_claim(m->b.s, claimed.address, claimed.blocks) != 0) WRONG(m, "claim: %s", rw_error_text());
        if (!store_is_claimed(m->b.s, claimed.address, claimed.blocks)) WRONG(m, "not claimed after it was");
        uint32_t part = (uint32_t)rw_random_below(&m->random, claimed.blocks);
        if (store_claim(m->b.s, claimed.address + part, 1) != RW_ECORRUPT) WRONG(m, "a block was claimed twice");
        for (uint64_t n = claimed.address / SEGMENT_BLOCKS; claimed.blocks > SEGMENT_BLOCKS && n * SEGMENT_BLOCKS < claimed.address + claimed.blocks; n++)
            m->spanned[n] = true;
    }
    store_claims_end(m->b.s);
}

/* ---- the run ---- */

static void model_step(model *m, uint32_t fullness)
{
    uint64_t dice = rw_random_below(&m->random, 1000);
    if (dice < 400 + fullness) step_allocate(m);
    else if (dice < 500 + fullness) step_give_back(m);
    else if (dice < 900) step_retire(m);
    else if (dice < 930) step_release(m);
    else if (dice < 940) step_pick(m);
    else if (dice < 943) step_shrink(m);
    else if (dice < 944) step_grow_ahead(m);
    else if (dice < 946) step_reopen_clean(m);
    else if (dice < 948) step_reopen_claiming(m);
    else if (dice < 960) model_compare(m);
}

static void test_model(uint64_t seed, uint32_t rounds)
{
    model *m = calloc(1, sizeof *m);
    bed_create(&m->b, "model");
    rw_random_seed(&m->random, seed);
    /* room for a part of what the model can hold, so that full devices come and go */
    m->b.io.space = (uint64_t)(MODEL_SEGMENTS / 4) * RW_SEGMENT_BYTES;
    must(publish_mark(&m->b, 1, false), "publish");
    for (uint32_t i = 0; i < rounds && m->wrong == 0; i++) model_step(m, i / (rounds / 4 + 1) % 2 == 0 ? 300 : 0);
    model_compare(m);
    if (!tap_ok(m->wrong == 0, "allocation agrees with the model, seed %" PRIu64, seed))
        tap_diag("replay: test_store_segments %" PRIu64 " %u", seed, rounds);
    store_retired_free(&m->retired);
    store_retired_free(&m->waiting);
    bed_end(&m->b);
    free(m);
}

/* ---- by hand ---- */

static void test_growth(void)
{
    bed b;
    uint64_t address;
    bed_create(&b, "growth");
    for (uint32_t i = 0; i < 200; i++) must(store_allocate(b.s, STORE_PAGES, SEGMENT_BLOCKS, &address), "allocate");
    store_space space;
    store_space_get(b.s, &space);
    tap_ok(b.io.allocates < 80 && space.segments < 200 + 200 / 16 + 2, "200 segments in %u steps, %u in the file", (unsigned)b.io.allocates, space.segments);
    while (space.segments_free > 0) {
        must(store_allocate(b.s, STORE_PAGES, SEGMENT_BLOCKS, &address), "allocate");
        store_space_get(b.s, &space);
    }
    b.io.space = space.file_bytes + RW_SEGMENT_BYTES;
    TAP_CHECK(store_allocate(b.s, STORE_PAGES, 1, &address) == 0);
    store_space_get(b.s, &space);
    tap_ok(space.file_bytes == b.io.space, "where there is no room for a large step, a small one is taken");
    TAP_CHECK(store_allocate(b.s, STORE_EXTENTS, 1, &address) == RW_ENOSPC);
    tap_ok(store_allocate(b.s, STORE_PAGES, 1, &address) == 0, "a full device leaves the open segment usable");
    bed_end(&b);
}

static void allocate_segments(store *s, uint32_t count)
{
    uint64_t address;
    for (uint32_t i = 0; i < count; i++) must(store_allocate(s, STORE_PAGES, SEGMENT_BLOCKS, &address), "allocate");
}

static void test_growing_ahead(void)
{
    bed b;
    store_space space;
    bed_create(&b, "ahead");
    store_grow_ahead(b.s);
    store_space_get(b.s, &space);
    tap_ok(b.io.allocates == 1 && space.segments == 1, "a small file grows on demand only");
    do {
        allocate_segments(b.s, 1);
        store_space_get(b.s, &space);
    } while (space.segments < 160 || space.segments_free > 0);
    store_grow_ahead(b.s);
    store_grow_ahead(b.s);
    store_grow_ahead(b.s);
    store_space_get(b.s, &space);
    uint64_t allocates = b.io.allocates;
    uint32_t ahead = space.segments_free;
    tap_ok(ahead >= 5 && ahead <= space.segments / 16, "%u segments ahead of demand", ahead);
    allocate_segments(b.s, ahead);
    tap_ok(b.io.allocates == allocates, "are used without growing");
    b.io.space = space.file_bytes;
    store_grow_ahead(b.s);
    allocates = b.io.allocates;
    store_grow_ahead(b.s);
    tap_ok(b.io.allocates == allocates && (uint64_t)file_size(b.path) == space.file_bytes, "a full device is asked once");
    b.io.space = NEVER;
    allocate_segments(b.s, 1);
    uint64_t address;
    store_space_get(b.s, &space);
    allocate_segments(b.s, space.segments_free);
    allocates = b.io.allocates;
    store_grow_ahead(b.s);
    tap_ok(b.io.allocates == allocates + 1, "and again when it has given space since");
    must(publish_mark(&b, 1, false), "publish");
    must(publish_mark(&b, 2, true), "publish");
    store_space_get(b.s, &space);
    store_grow_ahead(b.s);
    tap_ok((uint64_t)file_size(b.path) == space.file_bytes && store_allocate(b.s, STORE_PAGES, 1, &address) == RW_ECLOSED, "closed cleanly it keeps its length");
    bed_end(&b);
}

static void test_large_runs(void)
{
    bed b;
    uint64_t holes[6], large;
    uint32_t wanted = 3 * SEGMENT_BLOCKS + 1;
    bed_create(&b, "large");
    for (unsigned i = 0; i < 6; i++) must(store_allocate(b.s, STORE_PAGES, SEGMENT_BLOCKS, &holes[i]), "allocate");
    store_space before, after;
    store_space_get(b.s, &before);
    store_give_back(b.s, holes[0], SEGMENT_BLOCKS);
    store_give_back(b.s, holes[1], SEGMENT_BLOCKS);
    must(store_allocate(b.s, STORE_EXTENTS, wanted, &large), "allocate");
    tap_ok(large / SEGMENT_BLOCKS == 7, "two holes are not enough for four segments: at the end");
    store_give_back(b.s, large, wanted);
    store_give_back(b.s, holes[2], SEGMENT_BLOCKS);
    store_give_back(b.s, holes[3], SEGMENT_BLOCKS);
    must(store_allocate(b.s, STORE_EXTENTS, wanted, &large), "allocate");
    tap_ok(large / SEGMENT_BLOCKS == 1, "four holes in a row are");
    TAP_CHECK(store_clean_pick(b.s, 50, 0) == 0);
    tap_ok(store_segment_live(b.s, 4) == RW_BLOCK_SIZE, "its last segment holds one block, and is not worth cleaning");
    uint64_t other;
    must(store_allocate(b.s, STORE_EXTENTS, 1, &other), "allocate");
    tap_ok(other / SEGMENT_BLOCKS != 4, "nor is the rest of it given to others");
    store_give_back(b.s, large, wanted);
    store_give_back(b.s, other, 1);
    for (unsigned i = 4; i < 6; i++) store_give_back(b.s, holes[i], SEGMENT_BLOCKS);
    store_space_get(b.s, &after);
    tap_ok(after.live_bytes == 0, "given back, nothing is alive");
    bed_end(&b);
}

static void test_doubtful_claims(void)
{
    bed b;
    uint64_t one, large;
    bed_create(&b, "doubt");
    must(store_allocate(b.s, STORE_PAGES, 3, &one), "allocate");
    must(store_allocate(b.s, STORE_EXTENTS, SEGMENT_BLOCKS + 2, &large), "allocate");
    must(publish_mark(&b, 1, false), "publish");
    bed_reopen(&b);
    uint64_t end = (large / SEGMENT_BLOCKS + 2) * SEGMENT_BLOCKS;
    tap_ok(store_claim(b.s, 0, 1) == RW_ECORRUPT && store_claim(b.s, SEGMENT_BLOCKS - 1, 2) == RW_ECORRUPT, "no claim in the superblocks' segment");
    tap_ok(store_claim(b.s, end, 1) == RW_ECORRUPT && store_claim(b.s, end - 1, 2) == RW_ECORRUPT && store_claim(b.s, UINT64_MAX, 2) == RW_ECORRUPT &&
               store_claim(b.s, one, 0) == RW_ECORRUPT && store_claim(b.s, one, UINT32_MAX) == RW_ECORRUPT,
           "nor outside of the file");
    tap_ok(store_claim(b.s, one + SEGMENT_BLOCKS - 1, 2) == RW_ECORRUPT, "nor across a segment's end");
    tap_ok(store_claim(b.s, large + 1, SEGMENT_BLOCKS + 1) == RW_ECORRUPT, "nor a large run from inside a segment");
    TAP_CHECK(store_claim(b.s, large, SEGMENT_BLOCKS + 2) == 0);
    tap_ok(store_claim(b.s, large + SEGMENT_BLOCKS + 2, 1) == RW_ECORRUPT, "nor behind a large run's end in its last segment");
    TAP_CHECK(store_claim(b.s, one, 3) == 0);
    tap_ok(store_claim(b.s, one + 2, 2) == RW_ECORRUPT && !store_is_claimed(b.s, one + 2, 2), "nor over another");
    store_claims_end(b.s);
    store_space space;
    store_space_get(b.s, &space);
    tap_ok(space.live_bytes == (SEGMENT_BLOCKS + 5ull) * RW_BLOCK_SIZE, "refused claims leave no trace");
    bed_end(&b);
}

static void test_cleaning_marks(void)
{
    bed b;
    uint64_t run_of[3], address;
    bed_create(&b, "clean");
    for (unsigned i = 0; i < 3; i++) must(store_allocate(b.s, STORE_PAGES, SEGMENT_BLOCKS, &run_of[i]), "allocate");
    store_give_back(b.s, run_of[0] + 1, SEGMENT_BLOCKS - 1);
    store_give_back(b.s, run_of[1] + 2, SEGMENT_BLOCKS - 2);
    uint32_t first = store_clean_pick(b.s, 50, 0), second = store_clean_pick(b.s, 50, 0), third = store_clean_pick(b.s, 50, 0);
    tap_ok(first == 1 && second == 2 && third == 0, "the sparsest first, each once, full and open ones never");
    store_clean_end(b.s, 2, false);
    tap_ok(store_clean_pick(b.s, 50, 0) == 2, "given up, it may be picked again");
    store_clean_end(b.s, 2, true);
    bool passed = store_clean_pick(b.s, 50, 0) != 2;
    store_clean_retry(b.s);
    tap_ok(passed && store_clean_pick(b.s, 50, 0) == 2, "given up because something in it cannot be read, only after a while");
    store_give_back(b.s, run_of[0], 1);
    must(store_allocate(b.s, STORE_EXTENTS, 1, &address), "allocate");
    TAP_CHECK(address / SEGMENT_BLOCKS == 1);
    must(store_allocate(b.s, STORE_EXTENTS, SEGMENT_BLOCKS, &address), "allocate");
    tap_ok(store_clean_pick(b.s, 50, 0) == 1, "free once, it may be picked again");
    bed_end(&b);
}

/* A run given back at the end of what a stream has appended is used again by the next one. */
static void test_rewind(void)
{
    bed b;
    uint64_t first, second, third;
    bed_create(&b, "rewind");
    must(store_allocate(b.s, STORE_PAGES, 2, &first), "allocate");
    must(store_allocate(b.s, STORE_PAGES, 3, &second), "allocate");
    store_give_back(b.s, second, 3);
    must(store_allocate(b.s, STORE_PAGES, 4, &third), "allocate");
    tap_ok(third == second, "the end of an open segment is used again when it is given back");
    store_give_back(b.s, first, 2);
    must(store_allocate(b.s, STORE_PAGES, 1, &second), "allocate");
    tap_ok(second == third + 4, "what is given back before it is not");
    store_give_back(b.s, third, 4);
    store_give_back(b.s, second, 1);
    must(store_allocate(b.s, STORE_PAGES, 1, &second), "allocate");
    tap_ok(second == first, "an open segment with nothing alive begins anew");
    bed_end(&b);
}

/* A stream that is hardly used keeps its segment at the end of a file from being cut, until it is told to leave it; others go on. */
static void test_streams_end(void)
{
    enum { FULL = 10 };
    bed b;
    uint64_t full[FULL], last, next, cut;
    bed_create(&b, "streams");
    for (unsigned i = 0; i < FULL; i++) must(store_allocate(b.s, STORE_PAGES, SEGMENT_BLOCKS, &full[i]), "allocate");
    must(store_allocate(b.s, STORE_EXTENTS, 1, &last), "allocate");
    uint32_t end = (uint32_t)(last / SEGMENT_BLOCKS);
    for (unsigned i = 1; i < FULL - 1; i++) store_give_back(b.s, full[i], SEGMENT_BLOCKS);
    store_give_back(b.s, full[FULL - 1] + 1, SEGMENT_BLOCKS - 1);
    store_streams_end(b.s, end);
    must(store_allocate(b.s, STORE_PAGES, 1, &next), "allocate");
    tap_ok(next == full[FULL - 1] + 1, "a stream whose segment lies before the end goes on there");
    must(store_allocate(b.s, STORE_EXTENTS, 1, &next), "allocate");
    tap_ok(next == full[1], "one at the end goes on in the lowest free segment");
    store_give_back(b.s, last, 1);
    must(store_shrink(b.s, 0, &cut), "shrink");
    tap_ok(atomic_load(&b.s->segments.count) == end && cut > 0, "and what was its own is cut off, once nothing is alive there");
    bed_end(&b);
}

/* ---- threads ---- */

#define THREADS 4u
#define THREAD_RUNS 3000u

typedef struct {
    bed *b;
    _Atomic unsigned char *owners;   /* one for each block */
    unsigned char self;
    uint32_t wrong;
} hand;

static void hand_mark(hand *h, uint64_t address, uint32_t blocks, unsigned char from, unsigned char to)
{
    for (uint64_t at = address; at < address + blocks; at++)
        if (atomic_exchange_explicit(&h->owners[at], to, memory_order_relaxed) != from) h->wrong++;
}

static void hand_run(void *arg)
{
    hand *h = arg;
    rw_random random;
    run held[32] = {{0, 0}};
    store_retired list = {0};
    uint64_t cut;
    rw_random_seed(&random, h->self);
    for (uint32_t i = 0; i < THREAD_RUNS; i++) {
        run *one = &held[rw_random_below(&random, 32)];
        if (one->blocks == 0) {
            one->blocks = 1 + (uint32_t)rw_random_below(&random, 24);
            if (store_allocate(h->b->s, (store_stream)(i % STORE_STREAMS), one->blocks, &one->address) != 0) h->wrong++;
            hand_mark(h, one->address, one->blocks, 0, h->self);
            continue;
        }
        hand_mark(h, one->address, one->blocks, h->self, 0);
        if (i % 3 == 0) {
            store_retire(&list, one->address, one->blocks);
            store_release(h->b->s, &list);
        } else {
            store_give_back(h->b->s, one->address, one->blocks);
        }
        one->blocks = 0;
        if (i % 5 == 0) store_grow_ahead(h->b->s);
        if (i % 7 == 0 && store_shrink(h->b->s, 0, &cut) != 0) h->wrong++;
    }
    for (unsigned i = 0; i < 32; i++) {
        if (held[i].blocks == 0) continue;
        hand_mark(h, held[i].address, held[i].blocks, h->self, 0);
        store_give_back(h->b->s, held[i].address, held[i].blocks);
    }
    store_retired_free(&list);
}

static void test_threads(void)
{
    bed b;
    hand hands[THREADS];
    kio_thread *threads[THREADS];
    store_space space;
    uint32_t wrong = 0;
    bed_create(&b, "threads");
    allocate_segments(b.s, 64); /* a file long enough to grow ahead of demand */
    _Atomic unsigned char *owners = calloc((size_t)MODEL_SEGMENTS * SEGMENT_BLOCKS, 1);
    for (unsigned i = 0; i < THREADS; i++) {
        hands[i] = (hand){.b = &b, .owners = owners, .self = (unsigned char)(i + 1)};
        must(kio_thread_start(b.io.inner, "hand", -1, hand_run, &hands[i], &threads[i]), "thread");
    }
    for (unsigned i = 0; i < THREADS; i++) {
        kio_thread_join(b.io.inner, threads[i]);
        wrong += hands[i].wrong;
    }
    store_space_get(b.s, &space);
    segments_check(b.s);
    tap_ok(wrong == 0 && space.live_bytes == 64 * RW_SEGMENT_BYTES, "threads that allocate and release at once, while the file grows and is cut, never share a block");
    tap_ok((uint64_t)file_size(b.path) == space.file_bytes, "and the file is as long as its segments");
    free(owners);
    bed_end(&b);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        test_model(strtoull(argv[1], NULL, 10), argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 20000);
        return tap_done();
    }
    test_growth();
    test_growing_ahead();
    test_large_runs();
    test_doubtful_claims();
    test_cleaning_marks();
    test_rewind();
    test_streams_end();
    test_threads();
    for (uint64_t seed = 1; seed <= 6; seed++) test_model(seed, 20000);
    return tap_done();
}
