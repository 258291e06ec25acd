/*
 * Filters by themselves: no false negatives, few false positives, whatever the keys; other images at the same address; a table that grows, is full, or gets no memory;
 * and cells that are overwritten while others read them. Argument: SEED.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "btree/filters.h"
#include "btree/hints.h"
#include "tests/support/tap.h"

#define RECORDS_MAX 4096u

static uint64_t seed = 1;

/* ---- a leaf, and references to it -------------------------------------------------------------------------------- */

typedef struct {
    node *page;
    uint32_t page_size, count;
    rw_slice keys[RECORDS_MAX];
    unsigned char bytes[RECORDS_MAX][64];
} test_leaf;

static test_leaf *leaf_new(uint32_t page_size)
{
    test_leaf *leaf = calloc(1, sizeof *leaf);
    RW_ASSERT(leaf != NULL);
    leaf->page_size = page_size;
    leaf->page = aligned_alloc(RW_CACHE_LINE, page_size);
    RW_ASSERT(leaf->page != NULL);
    return leaf;
}

static void leaf_free(test_leaf *leaf)
{
    free(leaf->page);
    free(leaf);
}

/* Binary keys with a common prefix of `shared` bytes, of up to `length` bytes, zeros among them. */
static rw_slice key_draw(rw_random *random, size_t shared, size_t length, unsigned char *to)
{
    size_t size = shared + 1 + rw_random_below(random, length);
    memset(to, 'p', shared);
    for (size_t i = shared; i < size; i++) to[i] = (unsigned char)(rw_random_below(random, 3) == 0 ? 0 : rw_random_next(random));
    return rw_slice_of(to, size);
}

static void leaf_fill(test_leaf *leaf, rw_random *random, size_t value_size)
{
    static const char value[RW_PAGE_SIZE_MAX];
    size_t shared = rw_random_below(random, 2) * rw_random_below(random, 20), length = 3 + rw_random_below(random, 30);
    unsigned char upper[64];
    memset(upper, 'p', shared);
    memset(upper + shared, 0xff, 40);
    unsigned char lower[64];
    memset(lower, 'p', shared);
    node_init(leaf->page, leaf->page_size, 0, rw_slice_of(lower, shared), rw_slice_of(upper, shared + 40));
    for (leaf->count = 0; leaf->count < RECORDS_MAX;) {
        bool found;
        rw_slice key = key_draw(random, shared, length, leaf->bytes[leaf->count]);
        unsigned slot = node_lower_bound(leaf->page, leaf->page_size, key, &found);
        if (found) continue;
        if (!node_fits(leaf->page, leaf->page_size, key.size, value_size)) break;
        node_insert(leaf->page, leaf->page_size, slot, key, rw_slice_of(value, value_size), 0);
        leaf->keys[leaf->count++] = key;
    }
}

static page_ref leaf_ref(const test_leaf *leaf, uint64_t address, uint32_t checksum)
{
    return page_ref_disk(address, leaf->page_size / RW_BLOCK_SIZE, checksum, leaf->page->count);
}

/* ---- a table ----------------------------------------------------------------------------------------------------- */

typedef struct {
    pool pool;
    filters filters;
} table;

static void table_open(table *t, uint32_t page_size, uint32_t pool_frames, uint32_t frames_max)
{
    int error = pool_open(&t->pool, NULL, NULL, NULL, NULL, page_size, (uint64_t)pool_frames * (page_size + sizeof(frame)));
    if (error == 0) error = filters_open(&t->filters, &t->pool, page_size, frames_max);
    RW_ASSERT(error == 0);
    filters_want(&t->filters);
}

static void table_close(table *t)
{
    filters_close(&t->filters);
    pool_close(&t->pool);
}

typedef struct {
    unsigned unknown, absent, maybe;
} answers;

static void answer_add(answers *sum, filter_answer answer)
{
    sum->unknown += answer == FILTER_UNKNOWN;
    sum->absent += answer == FILTER_ABSENT;
    sum->maybe += answer == FILTER_MAYBE;
}

static answers ask_present(const table *t, const test_leaf *leaf, page_ref ref)
{
    answers sum = {0};
    for (uint32_t i = 0; i < leaf->count; i++) answer_add(&sum, filters_ask(&t->filters, ref, hints_hash(leaf->keys[i])));
    return sum;
}

static answers ask_absent(const table *t, page_ref ref, rw_random *random, unsigned count)
{
    answers sum = {0};
    for (unsigned i = 0; i < count; i++) {
        unsigned char bytes[64];
        bytes[0] = 'a'; /* one byte longer than any that was drawn, and none begins so: */
        memset(bytes + 1, 1, 3);
        rw_slice key = key_draw(random, 0, 40, bytes + 4);
        answer_add(&sum, filters_ask(&t->filters, ref, hints_hash(rw_slice_of(bytes, key.size + 4))));
    }
    return sum;
}

/* ---- leaves of all kinds ----------------------------------------------------------------------------------------- */

static void test_leaves(uint32_t page_size, size_t value_size)
{
    static table t;
    rw_random random;
    answers present = {0}, absent = {0};
    uint64_t records = 0;
    rw_random_seed(&random, seed);
    table_open(&t, page_size, 200, 100);
    test_leaf *leaf = leaf_new(page_size);
    for (uint64_t i = 0; i < 60; i++) {
        leaf_fill(leaf, &random, value_size);
        page_ref ref = leaf_ref(leaf, 1000 + i * page_size / RW_BLOCK_SIZE, (uint32_t)rw_random_next(&random));
        filters_keep(&t.filters, ref, leaf->page);
        answers one = ask_present(&t, leaf, ref), other = ask_absent(&t, ref, &random, 200);
        present.unknown += one.unknown, present.absent += one.absent, present.maybe += one.maybe;
        absent.unknown += other.unknown, absent.absent += other.absent, absent.maybe += other.maybe;
        records += leaf->count;
    }
    leaf_free(leaf);
    tap_ok(present.absent == 0, "pages of %u, about %llu records: no key of a leaf is denied (seed %llu)", page_size, (unsigned long long)(records / 60),
           (unsigned long long)seed);
    tap_ok(present.unknown < present.maybe / 50, "of %u keys %u meet no filter", present.maybe + present.unknown, present.unknown);
    /* fuller cells in leaves with more records than FILTER_CELLS_MAX cells are meant for */
    tap_ok(absent.maybe < (absent.maybe + absent.absent) / 12, "of %u absent keys %u are not excluded", absent.maybe + absent.absent, absent.maybe);
    table_close(&t);
}

static void test_empty_leaf(void)
{
    static table t;
    rw_random random;
    rw_random_seed(&random, seed);
    table_open(&t, 4096, 20, 4);
    test_leaf *leaf = leaf_new(4096);
    node_init(leaf->page, 4096, 0, rw_slice_of("", 0), rw_slice_of("", 0));
    page_ref ref = leaf_ref(leaf, 5, 5);
    filters_keep(&t.filters, ref, leaf->page);
    tap_ok(ask_absent(&t, ref, &random, 100).absent == 100, "an empty leaf holds no key at all");
    leaf_free(leaf);
    table_close(&t);
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

static void test_images(void)
{
    static table t;
    rw_random random;
    rw_random_seed(&random, seed);
    table_open(&t, 4096, 20, 4);
    test_leaf *leaf = leaf_new(4096), *other = leaf_new(4096);
    leaf_fill(leaf, &random, 100);
    leaf_fill(other, &random, 100);
    page_ref old = leaf_ref(leaf, 77, 1), reused = leaf_ref(other, 77, 2);
    filters_keep(&t.filters, old, leaf->page);
    tap_ok(ask_present(&t, other, reused).unknown == other->count, "the filter of an image says nothing of another one at its address");
    filters_keep(&t.filters, reused, other->page);
    tap_ok(ask_present(&t, other, reused).maybe == other->count && ask_present(&t, leaf, old).maybe == leaf->count, "each has its own");
    filters_drop(&t.filters, old);
    tap_ok(ask_present(&t, leaf, old).unknown == leaf->count && ask_present(&t, other, reused).maybe == other->count, "one that was dropped is gone, alone");
    uint64_t used = atomic_load(&t.filters.used);
    for (unsigned i = 0; i < 10; i++) filters_keep(&t.filters, reused, other->page);
    tap_ok(atomic_load(&t.filters.used) == used, "what is there already is not kept twice");
    page_ref moved = leaf_ref(other, 78, 2);
    tap_ok(ask_present(&t, other, moved).unknown == other->count, "the same bytes at another address are another image");
    filters_drop(&t.filters, moved);
    leaf_free(leaf);
    leaf_free(other);
    table_close(&t);
}

static void test_wanted(void)
{
    static table t;
    rw_random random;
    rw_random_seed(&random, seed);
    table_open(&t, 4096, 20, 4);
    test_leaf *leaf = leaf_new(4096);
    leaf_fill(leaf, &random, 100);
    filters_keep(&t.filters, leaf_ref(leaf, 1, 1), leaf->page);
    for (uint32_t i = 0; i < FILTER_WANTED; i++) filters_keep_evicted(&t.filters, leaf_ref(leaf, 1, 1), leaf->page);
    tap_ok(ask_present(&t, leaf, leaf_ref(leaf, 1, 1)).unknown == leaf->count, "after many evictions without an absent key no filter is asked");
    filters_keep_evicted(&t.filters, leaf_ref(leaf, 2, 2), leaf->page);
    filters_want(&t.filters);
    tap_ok(ask_present(&t, leaf, leaf_ref(leaf, 2, 2)).unknown == leaf->count, "nor is one made for what is evicted then");
    tap_ok(ask_present(&t, leaf, leaf_ref(leaf, 1, 1)).maybe == leaf->count, "after an absent key they are asked again");
    filters_keep_evicted(&t.filters, leaf_ref(leaf, 2, 2), leaf->page);
    tap_ok(ask_present(&t, leaf, leaf_ref(leaf, 2, 2)).maybe == leaf->count, "and made");
    leaf_free(leaf);
    table_close(&t);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define MANY_LEAVES 40000u
#define MANY_FRAMES 300u

/* A leaf of one record, which its address tells. */
static void numbered_leaf(test_leaf *leaf, uint64_t number)
{
    rw_store_u64(leaf->bytes[0], number);
    leaf->keys[0] = rw_slice_of(leaf->bytes[0], 8);
    leaf->count = 1;
    node_init(leaf->page, leaf->page_size, 0, rw_slice_of("", 0), rw_slice_of("", 0));
    node_insert(leaf->page, leaf->page_size, 0, leaf->keys[0], rw_slice_of("", 0), 0);
}

static unsigned many_known(const table *t, test_leaf *leaf, uint64_t leaves, unsigned *wrong)
{
    unsigned known = 0;
    for (uint64_t i = 1; i <= leaves; i++) {
        numbered_leaf(leaf, i);
        answers one = ask_present(t, leaf, leaf_ref(leaf, i, (uint32_t)i * 7));
        known += one.maybe;
        *wrong += one.absent;
    }
    return known;
}

static void test_growth(void)
{
    static table t;
    unsigned wrong = 0;
    const uint32_t chunk_cells = 4096 / sizeof(filter_bucket) * FILTER_WAYS;
    table_open(&t, 4096, MANY_FRAMES + 10, MANY_FRAMES);
    test_leaf *leaf = leaf_new(4096);
    tap_ok(filters_figures(&t.filters).bytes == 0, "no memory before a leaf has left");
    bool in_proportion = true;
    for (uint64_t i = 1; i <= MANY_LEAVES; i++) {
        numbered_leaf(leaf, i);
        filters_keep(&t.filters, leaf_ref(leaf, i, (uint32_t)i * 7), leaf->page);
        in_proportion = in_proportion && filters_figures(&t.filters).bytes <= 4096 * (2 + i * 3 / 2 / chunk_cells);
        if (i != MANY_LEAVES / 2) continue;
        unsigned known = many_known(&t, leaf, i, &wrong);
        tap_ok(known > i * 9 / 10, "of %u leaves, for which there is memory enough, %u have their filter", MANY_LEAVES / 2, known);
    }
    tap_ok(in_proportion, "memory grows as leaves leave");
    unsigned known = many_known(&t, leaf, MANY_LEAVES, &wrong);
    tap_ok(known > MANY_FRAMES * chunk_cells * 7 / 8, "a table that is full has %u filters in %u places", known, MANY_FRAMES * chunk_cells);
    tap_ok(filters_figures(&t.filters).bytes == MANY_FRAMES * 4096 && atomic_load(&t.pool.free_count) == 10, "and takes no more than it may");
    tap_ok(wrong == 0, "none says of its leaf's key that it is absent");
    for (uint64_t i = 1; i <= MANY_LEAVES; i++) {
        numbered_leaf(leaf, i);
        filters_drop(&t.filters, leaf_ref(leaf, i, (uint32_t)i * 7));
    }
    tap_ok(atomic_load(&t.filters.used) == 0, "all are dropped in the end");
    leaf_free(leaf);
    table_close(&t);
}

static void test_no_memory(void)
{
    static table t;
    table_open(&t, 4096, 10, 5);
    test_leaf *leaf = leaf_new(4096);
    uint32_t taken = 0;
    while (pool_frame_try(&t.pool) != FRAME_NONE) taken++;
    numbered_leaf(leaf, 1);
    filters_keep(&t.filters, leaf_ref(leaf, 1, 1), leaf->page);
    filters_drop(&t.filters, leaf_ref(leaf, 1, 1));
    tap_ok(taken == 10 && ask_present(&t, leaf, leaf_ref(leaf, 1, 1)).unknown == 1, "without a free frame there are no filters");
    pool_frame_free(&t.pool, 3);
    filters_keep(&t.filters, leaf_ref(leaf, 1, 1), leaf->page);
    tap_ok(ask_present(&t, leaf, leaf_ref(leaf, 1, 1)).maybe == 1, "with one there are");
    leaf_free(leaf);
    table_close(&t);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define STAGE_LEAVES 400u
#define STAGE_ROUNDS 60u
#define STAGE_KEEPERS 2u
#define STAGE_READERS 2u

/* A table of two frames for more leaves than it has room for: all is overwritten all the time. */
static struct {
    table t;
    test_leaf *leaves[STAGE_LEAVES];
    _Atomic uint32_t keepers;
    _Atomic uint64_t denied, known, absent;
} stage;

static page_ref stage_ref(unsigned i)
{
    return leaf_ref(stage.leaves[i], 10 + i, i * 17);
}

static void *stage_keep(void *arg)
{
    rw_random random;
    rw_random_seed(&random, seed + (uintptr_t)arg);
    for (unsigned i = 0; i < STAGE_ROUNDS * STAGE_LEAVES; i++) {
        unsigned l = (unsigned)rw_random_below(&random, STAGE_LEAVES);
        filters_want(&stage.t.filters);
        filters_keep(&stage.t.filters, stage_ref(l), stage.leaves[l]->page);
        if (rw_random_below(&random, 4) == 0) filters_drop(&stage.t.filters, stage_ref((unsigned)rw_random_below(&random, STAGE_LEAVES)));
    }
    atomic_fetch_sub(&stage.keepers, 1);
    return NULL;
}

static void *stage_read(void *arg)
{
    rw_random random;
    uint64_t denied = 0, known = 0, absent = 0;
    rw_random_seed(&random, seed + 100 + (uintptr_t)arg);
    while (atomic_load(&stage.keepers) > 0) {
        unsigned l = (unsigned)rw_random_below(&random, STAGE_LEAVES), other = (l + 1) % STAGE_LEAVES;
        answers one = ask_present(&stage.t, stage.leaves[l], stage_ref(l)), two = ask_present(&stage.t, stage.leaves[other], stage_ref(l));
        denied += one.absent;
        known += one.maybe;
        absent += two.absent;
    }
    atomic_fetch_add(&stage.denied, denied);
    atomic_fetch_add(&stage.known, known);
    atomic_fetch_add(&stage.absent, absent);
    return NULL;
}

static void test_threads(void)
{
    rw_random random;
    pthread_t threads[STAGE_KEEPERS + STAGE_READERS];
    rw_random_seed(&random, seed);
    table_open(&stage.t, 4096, 10, 2);
    for (unsigned i = 0; i < STAGE_LEAVES; i++) {
        stage.leaves[i] = leaf_new(4096);
        leaf_fill(stage.leaves[i], &random, 100);
    }
    atomic_store(&stage.keepers, STAGE_KEEPERS);
    for (uintptr_t i = 0; i < RW_ARRAY_SIZE(threads); i++) pthread_create(&threads[i], NULL, i < STAGE_KEEPERS ? stage_keep : stage_read, (void *)i);
    for (unsigned i = 0; i < RW_ARRAY_SIZE(threads); i++) pthread_join(threads[i], NULL);
    tap_ok(stage.denied == 0, "cells that change while they are read deny no key of their leaf");
    tap_ok(stage.known > 0 && stage.absent > 0, "%llu keys were possible, %llu excluded meanwhile", (unsigned long long)stage.known, (unsigned long long)stage.absent);
    for (unsigned i = 0; i < STAGE_LEAVES; i++) leaf_free(stage.leaves[i]);
    table_close(&stage.t);
}

int main(int argc, char **argv)
{
    if (argc > 1) seed = strtoull(argv[1], NULL, 10);
    test_leaves(4096, 100);
    test_leaves(4096, 0);
    test_leaves(16384, 30);
    test_leaves(65536, 1);
    test_empty_leaf();
    test_images();
    test_wanted();
    test_growth();
    test_no_memory();
    test_threads();
    return tap_done();
}
