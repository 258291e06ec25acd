/*
 * Records kept apart from their leaves, of a database much larger than its cache: hot keys that are spread over all leaves are read once and then answered from memory, in
 * every way of asking; after every way of changing them, what is answered is what was written; keys asked for in their order do not cost a read each. RECORDS_SEED
 * replays the draws.
 */
#include <pthread.h>

#define RECORDS 100000u            /* several times the cache */

#include "tests/api/versioned.h"
#include "tests/support/dirs.h"
#include "tests/support/prng.h"

#define HOT 2500u                  /* spread evenly; with a leaf for each the cache would not hold them */
#define APART (RECORDS / HOT)
#define SCATTER 7919u              /* no factor of RECORDS */
#define ROUNDS 6u

static uint64_t seed;

static uint64_t hot_draw(prng *random)
{
    return prng_next(random) % HOT * APART;
}

static void load(void)
{
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += put(i * SCATTER % RECORDS, 0);
    CHECK_OK(rw_checkpoint(db));
    tap_ok(good == RECORDS, "%u records, several times what the cache holds", good);
}

/* ---- hot keys ----------------------------------------------------------------------------------------------------- */

static unsigned hot_gets(prng *random, unsigned count)
{
    unsigned good = 0;
    for (unsigned i = 0; i < count; i++) good += holds(hot_draw(random));
    return good;
}

static unsigned hot_multi_gets(prng *random, unsigned count)
{
    unsigned good = 0;
    for (unsigned i = 0; i < count; i += 50) {
        uint64_t numbers[50];
        char keys[50][16], values[50][VALUE_BYTES], expected[VALUE_BYTES];
        rw_get_item items[50];
        for (unsigned k = 0; k < 50; k++) {
            numbers[k] = hot_draw(random);
            items[k] = (rw_get_item){.key = key_numbered(keys[k], numbers[k]), .buf = values[k], .size = VALUE_BYTES};
        }
        CHECK_OK(rw_multi_get(db, BUCKET, items, 50));
        for (unsigned k = 0; k < 50; k++)
            good += items[k].result == 0 && slice_same(slice_bytes(values[k], items[k].size), value_of(expected, numbers[k], version_of[numbers[k]]));
    }
    return good;
}

static unsigned hot_transactions(prng *random, unsigned count)
{
    unsigned good = 0;
    char key[16], value[VALUE_BYTES], expected[VALUE_BYTES];
    for (unsigned i = 0; i < count; i += 50) {
        rw_txn *txn;
        if (!CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn))) return good;
        for (unsigned k = 0; k < 50; k++) {
            uint64_t number = hot_draw(random);
            size_t size = sizeof value;
            good += rw_txn_get(txn, BUCKET, key_numbered(key, number), value, &size) == 0 && slice_same(slice_bytes(value, size), value_of(expected, number, version_of[number]));
        }
        rw_txn_abort(txn);
    }
    return good;
}

static void test_hot(void)
{
    static const struct {
        const char *name;
        unsigned (*read)(prng *random, unsigned count);
    } ways[] = {{"gets", hot_gets}, {"multi-gets", hot_multi_gets}, {"transactions", hot_transactions}};
    prng random = {.state = seed};
    const unsigned count = 20u * HOT;
    unsigned warm = hot_gets(&random, 2 * count);
    tap_ok(warm == 2 * count && stats_of(db).record_bytes > 0, "hot keys are read, and records take %llu KiB", (unsigned long long)stats_of(db).record_bytes >> 10);
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        rw_stats_t before = stats_of(db);
        unsigned good = ways[i].read(&random, count);
        rw_stats_t after = stats_of(db);
        uint64_t answers = after.record_answers - before.record_answers, reads = after.page_reads - before.page_reads;
        tap_ok(good == count && answers > count / 2 && reads < count / 4, "%u by %s: %llu answered by records, %llu pages read", good, ways[i].name, (unsigned long long)answers,
               (unsigned long long)reads);
    }
}

/* ---- changes ------------------------------------------------------------------------------------------------------ */

static bool batch_change(prng *random, uint32_t version)
{
    rw_batch *batch;
    char key[16], value[VALUE_BYTES];
    bool good = CHECK_OK(rw_batch_new(db, &batch));
    for (unsigned i = 0; i < 20 && good; i++) {
        uint64_t number = hot_draw(random);
        good = CHECK_OK(rw_batch_put(batch, BUCKET, key_numbered(key, number), value_of(value, number, version)));
        version_of[number] = version;
    }
    good = good && CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    rw_batch_free(batch);
    return good;
}

static bool range_delete(prng *random)
{
    char from[16], to[16];
    uint64_t number = hot_draw(random);
    version_of[number] = GONE;
    return CHECK_OK(rw_delete_range(db, BUCKET, key_numbered(from, number), key_numbered(to, number + 1), RW_ASYNC));
}

static bool change(prng *random, uint32_t version)
{
    char key[16];
    uint64_t kind = prng_next(random) % 100, number = hot_draw(random);
    if (kind < 70) return put(number, version);
    if (kind < 72) return batch_change(random, version);
    if (kind < 74) return range_delete(random);
    int want = version_of[number] == GONE ? RW_ENOTFOUND : 0;
    version_of[number] = GONE;
    return CHECK_CODE(rw_del(db, BUCKET, key_numbered(key, number), RW_ASYNC), want);
}

static void test_changes(void)
{
    prng random = {.state = seed + 1};
    unsigned changed = 0, good = 0, all = 0;
    rw_stats_t before = stats_of(db);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < HOT; i++) changed += change(&random, round + 1);
        good += hot_gets(&random, 4 * HOT);
        if (round % 2 == 0) CHECK_OK(rw_checkpoint(db));
        good += hot_gets(&random, 4 * HOT);
    }
    for (uint64_t i = 0; i < RECORDS; i++) all += holds(i);
    uint64_t answers = stats_of(db).record_answers - before.record_answers;
    tap_ok(changed == ROUNDS * HOT && good == ROUNDS * 8 * HOT && all == RECORDS && answers > 0, "%u changes, gets in between: all as written, %llu answered by records", changed,
           (unsigned long long)answers);
}

/* What a snapshot began with is read whatever is put over it, and written out, meanwhile. */
static void test_snapshot(void)
{
    prng random = {.state = seed + 2};
    rw_txn *txn;
    char key[16], value[VALUE_BYTES], expected[VALUE_BYTES];
    unsigned good = 0;
    uint32_t old[HOT];
    for (unsigned i = 0; i < HOT; i++) put((uint64_t)i * APART, 50);
    good += hot_gets(&random, HOT) == HOT;
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    for (unsigned i = 0; i < HOT; i++) old[i] = version_of[i * APART];
    for (unsigned i = 0; i < HOT; i += 7) put((uint64_t)i * APART, 51);
    CHECK_OK(rw_checkpoint(db));
    good += hot_gets(&random, 4 * HOT) == 4 * HOT;
    for (unsigned i = 0; i < HOT; i++) {
        size_t size = sizeof value;
        good += rw_txn_get(txn, BUCKET, key_numbered(key, (uint64_t)i * APART), value, &size) == 0 &&
                slice_same(slice_bytes(value, size), value_of(expected, (uint64_t)i * APART, old[i]));
    }
    rw_txn_abort(txn);
    tap_ok(good == HOT + 2, "a snapshot reads what it began with");
}

/* ---- neighbouring keys -------------------------------------------------------------------------------------------- */

static void test_in_order(void)
{
    CHECK_OK(rw_compact(db)); /* what is spilled would have to be read, too */
    rw_stats_t before = stats_of(db);
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    rw_stats_t after = stats_of(db);
    uint64_t reads = after.page_reads - before.page_reads, pages = after.data_live_bytes / after.page_size;
    tap_ok(good == RECORDS && reads < pages * 5 / 4, "%u gets in the order of keys: %llu pages of %llu read", good, (unsigned long long)reads, (unsigned long long)pages);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

#define THREADS 4u
#define THREAD_STEPS 20000u

/* Changes keys of its own, and knows what each holds. */
static void *thread_run(void *arg)
{
    uint64_t me = (uint64_t)(uintptr_t)arg;
    prng random = {.state = seed + 10 + me};
    unsigned wrong = 0;
    for (uint32_t i = 0; i < THREAD_STEPS; i++) {
        uint64_t number = prng_next(&random) % (HOT / THREADS) * APART * THREADS + me;
        if (prng_next(&random) % 8 == 0) wrong += !put(number, 100 + i);
        else wrong += !holds(number);
    }
    return (void *)(uintptr_t)wrong;
}

static void test_threads(void)
{
    pthread_t threads[THREADS];
    uintptr_t wrong = 0;
    rw_stats_t before = stats_of(db);
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, thread_run, (void *)i);
    for (unsigned i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (uintptr_t)result;
    }
    rw_stats_t after = stats_of(db);
    tap_ok(wrong == 0 && after.record_answers > before.record_answers, "%u threads find what they put; %llu answers by records", THREADS,
           (unsigned long long)(after.record_answers - before.record_answers));
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    seed = number_from("RECORDS_SEED", 1);
    tap_diag("RECORDS_SEED=%llu", (unsigned long long)seed);
    if (!dir_make(dir, "records")) return 1;
    db = open_or_exit(dir, &options);
    load();
    test_hot();
    test_changes();
    test_snapshot();
    test_in_order();
    test_threads();
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    return tap_done();
}
