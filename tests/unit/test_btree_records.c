/*
 * Records of leaves on disk by themselves: whatever is kept, goes over to new images, is pushed out or moved as the table grows and shrinks, an answer is what the image that
 * was asked about holds. Argument: SEED.
 */
#include <pthread.h>

#include "base/random.h"
#include "tests/unit/trees_test.h"

#define LEAVES 400u
#define LEAF_KEYS 20u
#define VALUE_MAX 120u
#define STEPS 300000u
#define THREADS 4u
#define THREAD_STEPS 60000u

static uint64_t seed = 1;
static bed *b;

/* ---- leaves whose images follow from their numbers ---------------------------------------------------------------- */

static page_ref ref_of(uint32_t leaf, uint32_t image)
{
    return (page_ref){.word = 1000 + leaf, .checksum = image};
}

static rw_slice key_in(char text[16], uint32_t leaf, uint32_t number)
{
    return rw_slice_of(text, (size_t)snprintf(text, 16, "%06u/%03u", leaf, number));
}

/* Its size changes in one image of eight. */
static rw_slice value_in(char text[VALUE_MAX], uint32_t leaf, uint32_t number, uint32_t image)
{
    memset(text, 'v', VALUE_MAX);
    int length = snprintf(text, VALUE_MAX, "%u %u %u", leaf, number, image);
    text[length] = ' ';
    return rw_slice_of(text, VALUE_MAX - number - (image / 8) % 5);
}

static void image_make(node *n, uint32_t leaf, uint32_t image)
{
    char low[16], key[16], value[VALUE_MAX];
    node_init(n, PAGE_BYTES, 0, rw_slice_of(low, (size_t)snprintf(low, 16, "%06u", leaf)), rw_slice_of("", 0));
    for (uint32_t i = 0; i < LEAF_KEYS; i++) {
        bool found;
        rw_slice k = key_in(key, leaf, i);
        unsigned slot = node_lower_bound(n, PAGE_BYTES, k, &found);
        node_insert(n, PAGE_BYTES, slot, k, value_in(value, leaf, i, image), 0);
    }
}

/* True: there is no answer, or it is the image's. */
static bool ask(uint32_t leaf, uint32_t number, uint32_t image, uint64_t *answers)
{
    char key[16], buf[VALUE_MAX], value[VALUE_MAX];
    pending_value answer;
    rw_slice k = key_in(key, leaf, number);
    if (!records_get(&b->t.records, ref_of(leaf, image), k, hints_hash(k), buf, sizeof buf, &answer)) return true;
    ++*answers;
    return answer.fits && answer.timestamp == TREES_TIMESTAMP_UNKNOWN && rw_slice_equal(rw_slice_of(buf, answer.size), value_in(value, leaf, number, image));
}

static void keep(const node *n, uint32_t leaf, uint32_t number, uint32_t image)
{
    char key[16];
    (void)records_keep(&b->t.records, ref_of(leaf, image), n, hints_hash(key_in(key, leaf, number)), &b->t.pending.spills, 0);
}

/* ---- one thread --------------------------------------------------------------------------------------------------- */

static void test_model(void)
{
    static uint32_t newest[LEAVES];
    rw_random random;
    node *n = aligned_alloc(RW_CACHE_LINE, PAGE_BYTES);
    record_cache *r = &b->t.records;
    uint64_t answers = 0, wrong = 0, most = 0, least_later = UINT64_MAX;
    must(n != NULL, "memory");
    rw_random_seed(&random, seed);
    for (unsigned step = 0; step < STEPS; step++) {
        uint32_t leaf = (uint32_t)rw_random_below(&random, LEAVES), number = (uint32_t)rw_random_below(&random, LEAF_KEYS);
        uint64_t kind = rw_random_below(&random, 100);
        if (kind < 60) {
            wrong += !ask(leaf, number, newest[leaf], &answers);
            if (newest[leaf] > 0) wrong += !ask(leaf, number, newest[leaf] - 1, &answers);
        } else if (kind < 90) {
            image_make(n, leaf, newest[leaf]);
            keep(n, leaf, number, newest[leaf]);
        } else if (kind < 98) {
            image_make(n, leaf, ++newest[leaf]);
            if (kind < 96) records_renew(r, ref_of(leaf, newest[leaf]), n); /* else it is written while there was no table, say */
        } else {
            char key[16], value[VALUE_MAX];
            for (unsigned i = 0; i < LEAF_KEYS && kind == 98; i++) records_keep_made(r, key_in(key, leaf, i), value_in(value, leaf, i, newest[leaf] + 1)); /* asked for only after it was written */
            records_tend(r);
        }
        if (step % (STEPS / 20) == 0) r->share = (double)rw_random_below(&random, 3) / 2;
        uint64_t buckets = atomic_load(&r->buckets);
        most = RW_MAX(most, buckets);
        if (most > RW_RECORDS_LATCHES) least_later = RW_MIN(least_later, buckets);
    }
    tap_ok(wrong == 0 && answers > STEPS / 20, "%llu answers, %llu wrong", (unsigned long long)answers, (unsigned long long)wrong);
    tap_ok(most <= r->buckets_max && most > RW_RECORDS_LATCHES && least_later < most, "the table had up to %llu buckets, and %llu again", (unsigned long long)most, (unsigned long long)least_later);
    free(n);
}

static bool says(uint32_t leaf, uint32_t number, uint32_t image, rw_slice expected)
{
    char key[16], buf[VALUE_MAX];
    pending_value answer;
    rw_slice k = key_in(key, leaf, number);
    return records_get(&b->t.records, ref_of(leaf, image), k, hints_hash(k), buf, sizeof buf, &answer) && answer.fits && rw_slice_equal(rw_slice_of(buf, answer.size), expected);
}

/* A spill is newer than the leaf's image: records get its values, and who read the image before it keeps nothing. */
static void test_spilled(void)
{
    char key[16], value[VALUE_MAX];
    uint64_t answers = 0;
    record_cache *r = &b->t.records;
    node *n = aligned_alloc(RW_CACHE_LINE, PAGE_BYTES);
    must(n != NULL, "memory");
    r->share = 1;
    for (unsigned i = 0; i < 1000 && atomic_load(&r->buckets) == 0; i++) records_tend(r);
    image_make(n, LEAVES + 1, 1);
    keep(n, LEAVES + 1, 0, 1);
    for (uint32_t number = 0; number < 3; number++) {
        rw_slice k = key_in(key, LEAVES + 1, number);
        records_spilled(r, ref_of(LEAVES + 1, 1), k, hints_hash(k), value_in(value, LEAVES + 1, number, 2), number == 1);
    }
    tap_ok(says(LEAVES + 1, 0, 1, value_in(value, LEAVES + 1, 0, 2)) && says(LEAVES + 1, 1, 1, value_in(value, LEAVES + 1, 1, 2)) && ask(LEAVES + 1, 2, 1, &answers) && answers == 0,
           "records that are here, or were asked for, have the values that were spilled");
    atomic_fetch_add(&b->t.pending.spills, 1);
    keep(n, LEAVES + 1, 0, 1);
    keep(n, LEAVES + 1, 3, 1);
    tap_ok(says(LEAVES + 1, 0, 1, value_in(value, LEAVES + 1, 0, 2)) && ask(LEAVES + 1, 3, 1, &answers) && answers == 0, "what was read before a spill is not kept after it");
    atomic_store(&b->t.pending.spills, 0);
    free(n);
}

/* A room too small says how much is needed; an extent's record, and one too large, are not kept. */
static void test_unfit(void)
{
    char key[16], buf[4], value[VALUE_MAX];
    static const char large[PAGE_BYTES / 4];
    record_cache *r = &b->t.records;
    node *n = aligned_alloc(RW_CACHE_LINE, PAGE_BYTES);
    must(n != NULL, "memory");
    r->share = 1;
    for (unsigned i = 0; i < 1000 && atomic_load(&r->buckets) == 0; i++) records_tend(r);
    image_make(n, LEAVES, 1);
    keep(n, LEAVES, 3, 1);
    pending_value answer = {0};
    rw_slice k = key_in(key, LEAVES, 3);
    bool found = records_get(r, ref_of(LEAVES, 1), k, hints_hash(k), buf, sizeof buf, &answer);
    tap_ok(found && !answer.fits && answer.size == value_in(value, LEAVES, 3, 1).size, "a value that does not fit tells its size");
    bool found_slot;
    k = key_in(key, LEAVES, LEAF_KEYS);
    node_insert(n, PAGE_BYTES, node_lower_bound(n, PAGE_BYTES, k, &found_slot), k, rw_slice_of(large, 600), 0);
    keep(n, LEAVES, LEAF_KEYS, 1);
    found = records_get(r, ref_of(LEAVES, 1), k, hints_hash(k), buf, sizeof buf, &answer);
    k = key_in(key, LEAVES, LEAF_KEYS + 1);
    node_insert(n, PAGE_BYTES, node_lower_bound(n, PAGE_BYTES, k, &found_slot), k, rw_slice_of(large, sizeof(extent_ref)), NODE_SLOT_EXTENT);
    keep(n, LEAVES, LEAF_KEYS + 1, 1);
    found = found || records_get(r, ref_of(LEAVES, 1), k, hints_hash(k), buf, sizeof buf, &answer);
    tap_ok(!found, "large ones and names of extents are not kept");
    free(n);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

static _Atomic uint64_t thread_answers, thread_wrong;
static _Atomic uint32_t thread_newest[LEAVES];

static void *reader_run(void *arg)
{
    rw_random random;
    node *n = aligned_alloc(RW_CACHE_LINE, PAGE_BYTES);
    uint64_t answers = 0, wrong = 0;
    rw_random_seed(&random, seed * 100 + (uintptr_t)arg);
    for (unsigned step = 0; step < THREAD_STEPS && n != NULL; step++) {
        uint32_t leaf = (uint32_t)rw_random_below(&random, LEAVES), number = (uint32_t)rw_random_below(&random, LEAF_KEYS);
        uint32_t image = atomic_load(&thread_newest[leaf]);
        uint64_t kind = rw_random_below(&random, 10);
        if (kind < 7) wrong += !ask(leaf, number, image, &answers);
        else if (kind < 9) {
            image_make(n, leaf, image);
            keep(n, leaf, number, image);
        } else if (atomic_compare_exchange_strong(&thread_newest[leaf], &image, image + 1)) {
            image_make(n, leaf, image + 1);
            records_renew(&b->t.records, ref_of(leaf, image + 1), n);
        }
        if (step % 64 == 0) records_tend(&b->t.records);
    }
    free(n);
    atomic_fetch_add(&thread_answers, answers);
    atomic_fetch_add(&thread_wrong, wrong);
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[THREADS];
    for (uint32_t i = 0; i < LEAVES; i++) atomic_store(&thread_newest[i], 1u << 20); /* other images than before */
    for (uintptr_t i = 0; i < THREADS; i++) must(pthread_create(&threads[i], NULL, reader_run, (void *)i) == 0, "thread");
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    tap_ok(atomic_load(&thread_wrong) == 0 && atomic_load(&thread_answers) > 0, "%u threads: %llu answers, none wrong", THREADS, (unsigned long long)atomic_load(&thread_answers));
}

/* ---- frames ------------------------------------------------------------------------------------------------------- */

static void test_given_back(uint32_t free_before)
{
    record_cache *r = &b->t.records;
    bool had = atomic_load(&r->buckets) > 0;
    atomic_store(&b->t.pending.added, UINT64_C(1) << 40); /* puts only, for ever */
    for (unsigned i = 0; i < 1000 && atomic_load(&r->buckets) > 0; i++) {
        atomic_fetch_add(&b->t.pending.added, RW_RECORDS_WINDOW * 1000);
        records_tend(r);
    }
    tap_ok(had && atomic_load(&r->buckets) == 0 && atomic_load(&b->t.pending.reserved) == 0 && atomic_load(&b->t.pool.free_count) == free_before,
           "where only puts come all frames are given back");
}

int main(int argc, char **argv)
{
    if (argc > 1) seed = strtoull(argv[1], NULL, 0);
    b = bed_make("records", 4u << 20);
    uint32_t free_before = atomic_load(&b->t.pool.free_count);
    test_model();
    test_spilled();
    test_unfit();
    test_threads();
    test_given_back(free_before);
    bed_end(b);
    return tap_done();
}
