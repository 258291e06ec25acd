/*
 * Absent keys of a database that is much larger than its cache: told in every way of asking, mostly without a read; and never told of a key that is there, whatever is
 * deleted, put again and evicted meanwhile, by the threads themselves and beside open snapshots. ABSENT_SEED replays the draws, ABSENT_ROUNDS makes it longer.
 */
#include <pthread.h>
#include <stdio.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define RECORDS 60000u             /* even numbers; odd ones are absent */
#define VALUE_BYTES 100u
#define ASKED 20000u

static uint64_t seed;
static rw_db *db;

static rw_slice value_of(char to[VALUE_BYTES], uint64_t number, uint32_t version)
{
    memset(to, 'v', VALUE_BYTES);
    snprintf(to, VALUE_BYTES, "%llu version %u", (unsigned long long)number, version);
    return slice_bytes(to, VALUE_BYTES);
}

static void load(void)
{
    char key[16], value[VALUE_BYTES];
    uint64_t good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += rw_put(db, BUCKET, key_numbered(key, 2 * i), value_of(value, 2 * i, 0), RW_ASYNC) == 0;
    tap_ok(good == RECORDS, "%llu records, several times what the cache holds", (unsigned long long)good);
}

static uint64_t odd_draw(prng *random)
{
    return 2 * (prng_next(random) % RECORDS) + 1;
}

/* ---- every way of asking ----------------------------------------------------------------------------------------- */

static unsigned ask_gets(prng *random)
{
    char key[16];
    unsigned absent = 0;
    for (unsigned i = 0; i < ASKED; i++) absent += get_code(db, BUCKET, key_numbered(key, odd_draw(random))) == RW_ENOTFOUND;
    return absent;
}

static unsigned ask_multi_gets(prng *random)
{
    unsigned absent = 0;
    for (unsigned i = 0; i < ASKED; i += 50) {
        char keys[50][16];
        rw_get_item items[50];
        for (unsigned j = 0; j < 50; j++) items[j] = (rw_get_item){.key = key_numbered(keys[j], odd_draw(random))};
        CHECK_CODE(rw_multi_get(db, BUCKET, items, 50), 0);
        for (unsigned j = 0; j < 50; j++) absent += items[j].result == RW_ENOTFOUND;
    }
    return absent;
}

static unsigned ask_queue(prng *random)
{
    rw_queue *queue;
    unsigned absent = 0;
    if (!CHECK_OK(rw_queue_open(db, 50, &queue))) return 0;
    for (unsigned i = 0; i < ASKED; i += 50) {
        char keys[50][16];
        rw_op ops[50], *list[50], *done[50];
        for (unsigned j = 0; j < 50; j++) {
            ops[j] = (rw_op){.kind = RW_OP_GET, .bucket = BUCKET, .key = key_numbered(keys[j], odd_draw(random))};
            list[j] = &ops[j];
        }
        CHECK_OK(rw_submit(queue, list, 50));
        CHECK_CODE(rw_reap(queue, done, 50, 50, -1), 50);
        for (unsigned j = 0; j < 50; j++) absent += ops[j].result == RW_ENOTFOUND;
    }
    CHECK_OK(rw_queue_close(queue));
    return absent;
}

static unsigned ask_deletes(prng *random)
{
    char key[16];
    unsigned absent = 0;
    for (unsigned i = 0; i < ASKED; i++) absent += rw_del(db, BUCKET, key_numbered(key, odd_draw(random)), RW_ASYNC) == RW_ENOTFOUND;
    return absent;
}

static unsigned ask_snapshot(prng *random)
{
    rw_txn *txn;
    char key[16];
    unsigned absent = 0;
    size_t size = 0;
    if (!CHECK_OK(rw_txn_begin(db, RW_READONLY, &txn))) return 0;
    for (unsigned i = 0; i < ASKED; i++) absent += rw_txn_get(txn, BUCKET, key_numbered(key, odd_draw(random)), NULL, &size) == RW_ENOTFOUND;
    rw_txn_abort(txn);
    return absent;
}

static void test_ways(void)
{
    static const struct {
        const char *name;
        unsigned (*ask)(prng *random);
    } ways[] = {{"gets", ask_gets}, {"multi-gets", ask_multi_gets}, {"gets in a queue", ask_queue}, {"deletes", ask_deletes}, {"gets of a snapshot", ask_snapshot}};
    prng random = {.state = seed + 1};
    tap_ok(ask_gets(&random) == ASKED, "absent keys are absent");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        rw_stats_t before = stats_of(db);
        unsigned absent = ways[i].ask(&random);
        rw_stats_t after = stats_of(db);
        uint64_t reads = after.page_reads - before.page_reads, answers = after.filter_answers - before.filter_answers;
        tap_ok(absent == ASKED && reads < ASKED / 5 && answers > ASKED / 2, "%s: %u of %u absent, with %llu reads, by %llu answers of filters", ways[i].name, absent, ASKED,
               (unsigned long long)reads, (unsigned long long)answers);
    }
    rw_stats_t stats = stats_of(db);
    tap_ok(stats.filter_bytes > 0 && stats.filter_bytes <= stats.cache_frames * stats.page_size / 5, "they take %llu KiB of %llu KiB of frames",
           (unsigned long long)stats.filter_bytes >> 10, (unsigned long long)(stats.cache_frames * stats.page_size) >> 10);
    tap_ok(stats.filter_vain < stats.filter_answers / 5, "%llu reads were in vain", (unsigned long long)stats.filter_vain);
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

/* Reads so many absent and present keys that everything else leaves the cache. */
static bool churn(prng *random)
{
    char key[16], value[VALUE_BYTES];
    bool good = true;
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t number = 1000 + prng_next(random) % (2 * RECORDS - 1000);
        size_t size = sizeof value;
        good = good && rw_get(db, BUCKET, key_numbered(key, number), value, &size) == (number % 2 == 0 ? 0 : RW_ENOTFOUND);
    }
    return good;
}

/* Deleted, looked for, put again, looked for: each time after the page went. A snapshot from before sees what was there. */
static void test_changes(void)
{
    prng random = {.state = seed + 2};
    char key[16], value[VALUE_BYTES];
    unsigned rounds = (unsigned)number_from("ABSENT_ROUNDS", 6), seen = 0, gone = 0, old = 0;
    bool churned = true;
    for (unsigned round = 0; round < rounds; round++) {
        rw_txn *txn;
        size_t size = sizeof value;
        uint64_t number = 2 * (prng_next(&random) % 400);
        CHECK_OK(rw_txn_begin(db, round % 2 == 0 ? RW_SNAPSHOT : RW_SERIALIZABLE, &txn));
        CHECK_OK(rw_del(db, BUCKET, key_numbered(key, number), RW_ASYNC));
        churned = churned && churn(&random);
        gone += get_code(db, BUCKET, key_numbered(key, number)) == RW_ENOTFOUND;
        churned = churned && churn(&random);
        old += rw_txn_get(txn, BUCKET, key_numbered(key, number), value, &size) == 0;
        rw_txn_abort(txn);
        CHECK_OK(rw_put(db, BUCKET, key_numbered(key, number), value_of(value, number, round + 1), RW_ASYNC));
        churned = churned && churn(&random);
        seen += get_is(db, BUCKET, key_numbered(key, number), value_of(value, number, round + 1));
    }
    tap_ok(churned, "the other keys are what they were");
    tap_ok(gone == rounds && seen == rounds, "of %u keys %u are gone when deleted, and %u there when put again", rounds, gone, seen);
    tap_ok(old == rounds, "and %u seen by snapshots from before", old);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define THREADS 4u
#define OWN_KEYS 300u              /* of each thread, spread over all leaves, between the others' */

/* Puts and deletes keys of its own, and knows of each whether it is there. */
static void *thread_run(void *arg)
{
    uint64_t me = (uint64_t)(uintptr_t)arg;
    prng random = {.state = seed + 10 + me};
    char key[16], value[VALUE_BYTES];
    uint32_t version[OWN_KEYS] = {0};
    bool good = true;
    for (unsigned i = 0; i < 8000 && good; i++) {
        unsigned own = (unsigned)(prng_next(&random) % OWN_KEYS);
        uint64_t number = 2 * (own * (RECORDS / OWN_KEYS) + me) + 1, choice = prng_next(&random) % 4;
        key_numbered(key, number);
        if (choice == 0) {
            good = CHECK_OK(rw_put(db, BUCKET, slice_text(key), value_of(value, number, i + 1), RW_ASYNC));
            version[own] = i + 1;
        } else if (choice == 1) {
            good = CHECK_CODE(rw_del(db, BUCKET, slice_text(key), RW_ASYNC), version[own] == 0 ? RW_ENOTFOUND : 0);
            version[own] = 0;
        } else if (version[own] == 0) {
            good = CHECK_CODE(get_code(db, BUCKET, slice_text(key)), RW_ENOTFOUND);
        } else {
            good = TAP_CHECK(get_is(db, BUCKET, slice_text(key), value_of(value, number, version[own])));
        }
    }
    return good ? NULL : arg;
}

static void test_threads(void)
{
    pthread_t threads[THREADS];
    unsigned failed = 0;
    rw_stats_t before = stats_of(db);
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, thread_run, (void *)(i + 1));
    for (unsigned i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed += result != NULL;
    }
    rw_stats_t after = stats_of(db);
    tap_ok(failed == 0, "%u threads always found their own keys as they had left them", THREADS);
    tap_ok(after.filter_answers > before.filter_answers && after.pages_evicted > before.pages_evicted, "%llu answers of filters, %llu pages evicted meanwhile",
           (unsigned long long)(after.filter_answers - before.filter_answers), (unsigned long long)(after.pages_evicted - before.pages_evicted));
}

/* ---- where nothing leaves the cache ------------------------------------------------------------------------------ */

static void test_cached(const char *dir, rw_options options)
{
    char key[16];
    unsigned right = 0;
    CHECK_OK(rw_compact(db)); /* nothing is dead, so nothing is written again after the open, passing through the cache */
    CHECK_OK(rw_close(db));
    options.cache_bytes = 64 * MIB;
    db = open_or_exit(dir, &options);
    for (uint64_t i = 0; i < RECORDS / 4; i++) {
        right += get_code(db, BUCKET, key_numbered(key, 8 * i)) == 0;
        right += get_code(db, BUCKET, key_numbered(key, 2 * RECORDS + i)) == RW_ENOTFOUND;
    }
    rw_stats_t stats = stats_of(db);
    tap_ok(right == RECORDS / 2 && stats.pages_evicted == 0 && stats.filter_bytes == 0, "a database that fits its cache gives no memory to filters");
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    seed = number_from("ABSENT_SEED", 1);
    tap_diag("ABSENT_SEED=%llu", (unsigned long long)seed);
    if (!dir_make(dir, "absent")) return 1;
    options.cache_bytes = 3 * MIB;
    db = open_or_exit(dir, &options);
    load();
    test_ways();
    test_changes();
    test_threads();
    test_cached(dir, options);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    return tap_done();
}
