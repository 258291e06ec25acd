/*
 * Spills in a database: what was sorted out to disk is seen by every way of reading, replaced, deleted, found again after a crash and opened read-only; it is merged when there is time; and where it
 * is damaged nothing older is taken for it. SPILLS_SEED replays the draws.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORDS 24000u             /* several times the cache */

#include "btree/node.h"
#include "engine/engine.h"
#include "store/store.h"
#include "tests/api/versioned.h"
#include "tests/support/dirs.h"
#include "tests/support/prng.h"

#define SCATTER 7919u              /* no factor of RECORDS */
#define SAMPLE 4000u
#define ABSENT_EVERY 3u

static uint64_t seed;
static prng draws;

/* Little cache: where more than a part of the leaves is in it, partitions are written again for dead space so often (engine C11) that few of them come to spill. */
static rw_options options_spills(void)
{
    rw_options options = options_small();
    options.cache_bytes = 2 * MIB;
    return options;
}

/* Cold puts, until some of them are spilled and not merged yet. */
static uint64_t spill_some(uint32_t version)
{
    uint64_t before = stats_of(db).spilled_puts, made = 0;
    while (made < 40 * RECORDS && (stats_of(db).spills == 0 || stats_of(db).spilled_puts - before < 1000))
        for (unsigned i = 0; i < 500; i++, made++)
            if (!put(prng_next(&draws) % RECORDS, version)) return 0;
    return stats_of(db).spilled_puts - before;
}

/* In key order, so that each leaf is read about once. */
static unsigned found(void)
{
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    return good;
}

/* ---- ways of reading ---------------------------------------------------------------------------------------------- */

static unsigned by_gets(void)
{
    unsigned good = 0;
    for (unsigned i = 0; i < SAMPLE; i++) good += holds(prng_next(&draws) % RECORDS);
    return good;
}

static unsigned by_queue(void)
{
    enum { DEPTH = 50 };
    rw_queue *queue;
    unsigned good = 0;
    if (!CHECK_OK(rw_queue_open(db, DEPTH, &queue))) return 0;
    for (unsigned i = 0; i < SAMPLE; i += DEPTH) {
        static char keys[DEPTH][16], values[DEPTH][VALUE_BYTES];
        uint64_t numbers[DEPTH];
        rw_op ops[DEPTH], *submitted[DEPTH], *done[DEPTH];
        memset(ops, 0, sizeof ops);
        for (unsigned k = 0; k < DEPTH; k++) {
            numbers[k] = prng_next(&draws) % RECORDS;
            ops[k].kind = RW_OP_GET;
            ops[k].bucket = BUCKET;
            ops[k].key = key_numbered(keys[k], numbers[k]);
            ops[k].buf = values[k];
            ops[k].size = VALUE_BYTES;
            submitted[k] = &ops[k];
        }
        if (rw_submit(queue, submitted, DEPTH) != 0) break;
        for (unsigned left = DEPTH; left > 0;) {
            int reaped = rw_reap(queue, done, 1, DEPTH, -1);
            if (reaped <= 0) break;
            left -= (unsigned)reaped;
        }
        for (unsigned k = 0; k < DEPTH; k++) {
            char expected[VALUE_BYTES];
            uint32_t version = version_of[numbers[k]];
            good += version == GONE ? ops[k].result == RW_ENOTFOUND
                                    : ops[k].result == 0 && slice_same(slice_bytes(values[k], ops[k].size), value_of(expected, numbers[k], version));
        }
    }
    rw_queue_close(queue);
    return good;
}

static unsigned by_cursor(void)
{
    rw_cursor *cursor;
    unsigned good = 0, steps = 0;
    char expected[VALUE_BYTES], key[16];
    if (!CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor))) return 0;
    while (steps < SAMPLE) {
        uint64_t from = prng_next(&draws) % (RECORDS - 50);
        rw_slice value, name;
        int code = rw_cursor_seek(cursor, key_numbered(key, from));
        for (uint64_t i = from; i < from + 50; i++, steps++) {
            if (version_of[i] == GONE) {
                good++;
                continue;
            }
            good += code == 0 && rw_cursor_key(cursor, &name) == 0 && rw_cursor_value(cursor, &value) == 0 && slice_same(name, key_numbered(key, i)) &&
                    slice_same(value, value_of(expected, i, version_of[i]));
            code = rw_cursor_next(cursor);
        }
    }
    rw_cursor_close(cursor);
    return good;
}

static unsigned by_transaction(void)
{
    rw_txn *txn;
    unsigned good = 0;
    char key[16], value[VALUE_BYTES], expected[VALUE_BYTES];
    if (!CHECK_OK(rw_txn_begin(db, RW_SERIALIZABLE, &txn))) return 0;
    for (unsigned i = 0; i < SAMPLE; i++) {
        size_t size = VALUE_BYTES;
        uint64_t number = prng_next(&draws) % RECORDS;
        int code = rw_txn_get(txn, BUCKET, key_numbered(key, number), value, &size);
        good += version_of[number] == GONE ? code == RW_ENOTFOUND : code == 0 && slice_same(slice_bytes(value, size), value_of(expected, number, version_of[number]));
    }
    rw_txn_abort(txn);
    return good;
}

static void test_ways(void)
{
    static const struct {
        const char *name;
        unsigned (*read)(void);
    } ways[] = {{"gets", by_gets}, {"a queue", by_queue}, {"a cursor", by_cursor}, {"a transaction", by_transaction}};
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        uint64_t spilled = spill_some(10 + i);
        unsigned good = ways[i].read();
        tap_ok(spilled > 0 && good == SAMPLE, "%llu puts are spilled: %s finds %u of %u records", (unsigned long long)spilled, ways[i].name, good, SAMPLE);
    }
    unsigned good = 0, rounds = 0;
    for (; rounds < 50 && stats_of(db).spill_answers < 50; rounds++) { /* until it is worth while to keep records apart from their leaves */
        spill_some(14 + rounds % 4);
        good += by_gets() + by_gets();
    }
    tap_ok(good == 2 * rounds * SAMPLE && stats_of(db).spill_answers > 0, "%llu gets were answered by spills, in %u rounds", (unsigned long long)stats_of(db).spill_answers, rounds);
}

/* ---- changes on top ----------------------------------------------------------------------------------------------- */

static void test_changes(void)
{
    char key[16], value[VALUE_BYTES];
    unsigned gone = 0, compared = 0;
    spill_some(20);
    for (unsigned i = 0; i < 500; i++) {
        uint64_t number = prng_next(&draws) % RECORDS;
        if (version_of[number] == GONE) put(number, 21);
        CHECK_OK(rw_cas(db, BUCKET, key_numbered(key, number), &(rw_slice){value, value_of(value, number, version_of[number]).size}, &(rw_slice){"swapped", 7}, RW_ASYNC));
        compared += get_is_text(db, BUCKET, key, "swapped");
        CHECK_OK(rw_del(db, BUCKET, key_numbered(key, number), RW_ASYNC));
        version_of[number] = GONE;
        gone += holds(number);
    }
    char from[16], to[16];
    CHECK_OK(rw_delete_range(db, BUCKET, key_numbered(from, 20000), key_numbered(to, 21000), RW_ASYNC));
    for (unsigned i = 20000; i < 21000; i++) version_of[i] = GONE;
    tap_ok(compared == 500 && gone == 500, "what is spilled is compared (%u) and deleted (%u)", compared, gone);
    spill_some(22);
    tap_ok(found() == RECORDS, "all is as it should be, with later spills on top");
}

/* Puts and gets of threads' own records, side by side with spills and merges. */
static void *thread_run(void *arg)
{
    uint64_t me = (uint64_t)(uintptr_t)arg;
    prng random = {.state = seed + 100 + me};
    uintptr_t wrong = 0;
    for (unsigned i = 0; i < 30000; i++) {
        uint64_t number = prng_next(&random) % (RECORDS / 3) * 3 + me;
        if (i % 4 == 3) wrong += !holds(number);
        else if (i % 64 == 0) {
            char key[16];
            int code = rw_del(db, BUCKET, key_numbered(key, number), RW_ASYNC);
            wrong += code != 0 && code != RW_ENOTFOUND;
            version_of[number] = GONE;
        } else wrong += !put(number, i);
    }
    return (void *)wrong;
}

static void test_threads(void)
{
    pthread_t threads[3];
    uintptr_t wrong = 0;
    uint64_t before = stats_of(db).spilled_puts;
    for (uintptr_t i = 0; i < 3; i++) pthread_create(&threads[i], NULL, thread_run, (void *)i);
    for (unsigned i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (uintptr_t)result;
    }
    uint64_t spilled = stats_of(db).spilled_puts - before;
    tap_ok(wrong == 0 && spilled > 0 && found() == RECORDS, "threads: %llu puts spilled, %llu answers wrong", (unsigned long long)spilled, (unsigned long long)wrong);
}

static void test_rest(void)
{
    spill_some(30);
    for (unsigned i = 0; i < 300 && stats_of(db).spills > 0; i++) usleep(100000);
    tap_ok(stats_of(db).spills == 0 && found() == RECORDS, "with time for it, spills are merged");
    spill_some(31);
    CHECK_OK(rw_compact(db));
    tap_ok(stats_of(db).spills == 0 && found() == RECORDS, "and by a compaction");
}

/* ---- after a crash ------------------------------------------------------------------------------------------------ */

/*
 * A copy of the files at one moment, as after a crash, if everything is durable that should be. Nothing of this process runs meanwhile: the checkpointer would use again what an image held that is gone.
 */
static bool crash_copy(const char *dir, char copy[DIRS_PATH_MAX])
{
    char command[3 * DIRS_PATH_MAX];
    if (!dir_make(copy, "spilled")) return false;
    snprintf(command, sizeof command, "kill -STOP $PPID && cp %s/* %s/; result=$?; kill -CONT $PPID; exit $result", dir, copy);
    return system(command) == 0;
}

/* What the original holds, while a copy is changed. */
static uint32_t kept[RECORDS];

/* With spills that a superblock names. False: it did not come to that. */
static bool copy_with_spills(const char *dir, char copy[DIRS_PATH_MAX], uint32_t version)
{
    for (unsigned tries = 0; tries < 20; tries++) {
        spill_some(version);
        if (!CHECK_OK(rw_checkpoint(db)) || !crash_copy(dir, copy)) return false;
        if (stats_of(db).spills > 0) return true;
        dir_remove(copy);
    }
    return false;
}

static void test_crash(const char *dir)
{
    char copy[DIRS_PATH_MAX];
    rw_options options = options_spills();
    rw_db *original = db;
    if (!tap_ok(copy_with_spills(dir, copy, 40), "a crash with spills")) return;
    memcpy(kept, version_of, sizeof kept);
    tap_ok(rw_verify(copy, NULL, NULL) == 0, "the files are sound");
    options.read_only = 1;
    db = open_or_exit(copy, &options);
    uint64_t spills = stats_of(db).spills;
    unsigned good = by_gets() + by_cursor() + by_transaction();
    tap_ok(spills > 0 && good == 3 * SAMPLE, "opened read-only: %llu spills, %u records of %u", (unsigned long long)spills, good, 3 * SAMPLE);
    CHECK_OK(rw_close(db));
    options.read_only = 0;
    db = open_or_exit(copy, &options);
    spills = stats_of(db).spills;
    good = found();
    tap_ok(spills > 0 && good == RECORDS, "recovered: %llu spills, %u records of %u", (unsigned long long)spills, good, RECORDS);
    for (unsigned i = 0; i < 300 && stats_of(db).spills > 0; i++) usleep(100000);
    tap_ok(stats_of(db).spills == 0, "which are merged, though nothing is written");
    spill_some(41);
    tap_ok(found() == RECORDS, "and after more spills");
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(copy, NULL, NULL) == 0, "the closed files are sound");
    db = open_or_exit(copy, &options);
    tap_ok(stats_of(db).spills == 0 && found() == RECORDS, "which hold no spills");
    CHECK_OK(rw_close(db));
    dir_remove(copy);
    memcpy(version_of, kept, sizeof kept);
    db = original;
}

/* Read-only, with new records spilled that split most leaves as they come in: more than the cache would hold, and nothing can be written. */
static void test_read_only(void)
{
    char dir[DIRS_PATH_MAX], copy[DIRS_PATH_MAX], key[16], value[VALUE_BYTES];
    static bool present[2 * RECORDS];
    rw_options options = options_spills();
    rw_db *original = db;
    uint64_t count = RECORDS;
    if (!tap_ok(dir_make(dir, "inserted"), "another database")) return;
    db = open_or_exit(dir, &options);
    memset(present, 0, sizeof present);
    for (uint64_t i = 0; i < RECORDS; i++) {
        present[2 * i] = true;
        CHECK_OK(rw_put(db, BUCKET, key_numbered(key, 2 * i), value_of(value, 2 * i, 0), RW_ASYNC));
    }
    CHECK_OK(rw_compact(db));
    for (uint64_t i = 0; i < RECORDS / 3; i++) {
        uint64_t number = prng_next(&draws) % RECORDS * 2 + 1;
        count += !present[number];
        present[number] = true;
        CHECK_OK(rw_put(db, BUCKET, key_numbered(key, number), value_of(value, number, 0), RW_ASYNC));
    }
    bool copied = CHECK_OK(rw_checkpoint(db)) && crash_copy(dir, copy);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    if (!copied) return;
    options.read_only = 1;
    db = open_or_exit(copy, &options);
    unsigned wrong = 0;
    for (uint64_t i = 0; i < 2 * RECORDS + 2 * RECORDS / 5; i++) { /* all in key order, then some of each leaf, far apart */
        uint64_t number = i < 2 * RECORDS ? i : i * SCATTER % (2 * RECORDS);
        if (present[number]) wrong += !get_is(db, BUCKET, key_numbered(key, number), value_of(value, number, 0));
        else wrong += get_code(db, BUCKET, key_numbered(key, number)) != RW_ENOTFOUND;
    }
    int64_t walked = count_keys(db, BUCKET);
    tap_ok(stats_of(db).spills > 0 && wrong == 0 && walked == (int64_t)count, "read-only, %llu spills of new records: %u gets wrong, a cursor finds %lld of %llu", (unsigned long long)stats_of(db).spills, wrong,
           (long long)walked, (unsigned long long)count);
    CHECK_OK(rw_close(db));
    dir_remove(copy);
    db = original;
}

/* ---- damage ------------------------------------------------------------------------------------------------------- */

/* The places of the root of a partition's newest spill, which nothing hides, and of its last leaf. */
static bool spill_places(const char *dir, uint64_t *root, uint64_t *leaf)
{
    kio *k;
    store *s;
    store_params params = {.read_only = true};
    *root = *leaf = 0;
    if (kio_open("psync", NULL, NULL, &k) != 0 || store_open(k, dir, &params, &s) != 0) return false;
    const store_image *image = store_image_opened(s);
    for (uint32_t i = 0; i < image->partition_count && *root == 0; i++) {
        uint32_t count = image->partitions[i].spill_count;
        if (count == 0) continue;
        const store_spill *newest = &image->partitions[i].spills[count - 1];
        page_ref ref = newest->root;
        node *n = aligned_alloc(4096, params.page_size);
        *root = page_ref_address(ref) * RW_BLOCK_SIZE;
        for (uint32_t level = newest->height - 1; level > 0 && store_page_read(s, ref, n) == 0; level--) ref = node_child(n, params.page_size, n->count - 1u); /* the first one may be asked for by the open */
        *leaf = page_ref_address(ref) * RW_BLOCK_SIZE;
        free(n);
    }
    store_close(s);
    kio_close(k);
    return *root != 0 && *leaf != 0 && *leaf != *root;
}

static void byte_flip(const char *dir, uint64_t at)
{
    char path[DIRS_PATH_MAX];
    path_join(path, dir, "data");
    tap_ok(file_flip(path, at, 0x10), "a bit of %s at %llu is flipped", path, (unsigned long long)at);
}

static void count_finding(void *arg, const char *text)
{
    (*(unsigned *)arg)++;
    tap_diag("%s", text);
}

/* A get may fail, as what the key's leaf lacks cannot be read; what it finds is right. */
static void test_damaged_leaf(const char *copy, const rw_options *options)
{
    unsigned findings = 0, failed = 0, wrong = 0;
    tap_ok(rw_verify(copy, count_finding, &findings) == RW_ECORRUPT && findings > 0, "a damaged leaf of a spill is found by the check");
    rw_db *original = db;
    db = open_or_exit(copy, options);
    for (uint64_t i = 0; i < RECORDS; i++) {
        char key[16];
        int code = get_code(db, BUCKET, key_numbered(key, i));
        if (code == RW_ECORRUPT) failed++;
        else wrong += !holds(i);
    }
    tap_ok(failed > 0 && failed < RECORDS / 4 && wrong == 0, "%u gets fail, %u are wrong", failed, wrong);
    uint64_t spilled = stats_of(db).spilled_puts, log_end = stats_of(db).log_lsn_end;
    for (unsigned i = 0; i < 2 * RECORDS; i++) { /* one that needs its leaf may fail, too */
        char key[16], value[VALUE_BYTES];
        uint64_t number = prng_next(&draws) % RECORDS;
        if (rw_put(db, BUCKET, key_numbered(key, number), value_of(value, number, 51), RW_ASYNC) == 0) version_of[number] = 51;
    }
    spilled = stats_of(db).spilled_puts - spilled;
    wrong = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        char key[16];
        wrong += get_code(db, BUCKET, key_numbered(key, i)) != RW_ECORRUPT && !holds(i);
    }
    tap_ok(wrong == 0 && spilled > 0, "nor after %llu more puts were spilled", (unsigned long long)spilled);
    for (unsigned i = 0; i < 100 && stats_of(db).log_lsn_checkpoint <= log_end; i++) usleep(100000);
    tap_ok(stats_of(db).log_lsn_checkpoint > log_end, "and the log is cut all the same");
    CHECK_OK(rw_close(db));
    db = original;
}

static void test_damaged(const char *dir)
{
    char copy[DIRS_PATH_MAX];
    rw_options options = options_spills();
    uint64_t root, leaf;
    if (!tap_ok(copy_with_spills(dir, copy, 50), "another crash with spills") || !tap_ok(spill_places(copy, &root, &leaf), "whose places are known")) return;
    memcpy(kept, version_of, sizeof kept);
    byte_flip(copy, leaf + 200);
    test_damaged_leaf(copy, &options);
    memcpy(version_of, kept, sizeof kept);
    dir_remove(copy);
    rw_db *refused;
    unsigned findings = 0;
    if (!tap_ok(copy_with_spills(dir, copy, 52) && spill_places(copy, &root, &leaf), "another one")) return;
    byte_flip(copy, root + 200);
    tap_ok(rw_open(copy, &options, &refused) == RW_ECORRUPT && rw_verify(copy, count_finding, &findings) == RW_ECORRUPT && findings > 0,
           "a database with a damaged root of a spill is refused, and the check says why");
    findings = 0;
    int code = db_open_salvage(copy, &options, count_finding, &findings, &refused);
    tap_ok(code == 0 && findings > 0, "a salvage passes over it, and tells");
    if (code == 0) CHECK_OK(rw_close(refused));
    dir_remove(copy);
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_spills();
    seed = number_from("SPILLS_SEED", 1);
    draws.state = seed;
    tap_diag("SPILLS_SEED=%llu", (unsigned long long)seed);
    if (!dir_make(dir, "spills")) return 1;
    db = open_or_exit(dir, &options);
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += put(i * SCATTER % RECORDS, 1);
    tap_ok(good == RECORDS, "%u records, several times what the cache holds", good);
    test_ways();
    test_changes();
    test_threads();
    test_rest();
    test_crash(dir);
    test_read_only();
    test_damaged(dir);
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(dir, NULL, NULL) == 0, "the closed files are sound");
    dir_remove(dir);
    return tap_done();
}
