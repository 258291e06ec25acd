/*
 * Puts of cold keys, which wait in memory for their page: every way of reading sees them, snapshots keep what they began with, a reopening and a crash-like copy
 * of the files find them, and a page that cannot be read keeps them waiting, logged, without harm to others. PENDING_SEED replays the draws.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORDS 60000u             /* several times the cache */

#include "tests/api/versioned.h"
#include "tests/support/child.h"
#include "tests/support/dirs.h"
#include "tests/support/prng.h"

#define PUTS 3000u
#define SCATTER 7919u              /* no factor of RECORDS: in the order of its multiples the leaves are split in their middle */
#define RECORD_OVERHEAD 24u        /* of a leaf's record: its slot, and what is left of the key */

static uint64_t seed;

static void load(void)
{
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += put(i, 0);
    tap_ok(good == RECORDS, "%u records, several times what the cache holds", good);
}

static uint64_t puts_draw(prng *random, unsigned count, uint32_t version, uint64_t *numbers)
{
    uint64_t before = stats_of(db).pending_puts;
    for (unsigned i = 0; i < count; i++) {
        numbers[i] = prng_next(random) % RECORDS;
        if (!put(numbers[i], version)) break;
    }
    return stats_of(db).pending_puts - before;
}

/* ---- ways of reading --------------------------------------------------------------------------------------------- */

static unsigned read_by_gets(const uint64_t *numbers)
{
    unsigned good = 0;
    for (unsigned i = 0; i < PUTS; i++) good += holds(numbers[i]);
    return good;
}

static unsigned read_by_multi_gets(const uint64_t *numbers)
{
    unsigned good = 0;
    for (unsigned i = 0; i < PUTS; i += 50) {
        char keys[50][16], values[50][VALUE_BYTES], expected[VALUE_BYTES];
        rw_get_item items[50];
        for (unsigned j = 0; j < 50; j++) items[j] = (rw_get_item){.key = key_numbered(keys[j], numbers[i + j]), .buf = values[j], .size = VALUE_BYTES};
        CHECK_OK(rw_multi_get(db, BUCKET, items, 50));
        for (unsigned j = 0; j < 50; j++)
            good += items[j].result == 0 && slice_same(slice_bytes(values[j], items[j].size), value_of(expected, numbers[i + j], version_of[numbers[i + j]]));
    }
    return good;
}

static unsigned read_by_cursor(const uint64_t *numbers)
{
    rw_cursor *cursor;
    unsigned good = 0;
    char expected[VALUE_BYTES], key[16];
    if (!CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor))) return 0;
    for (unsigned i = 0; i < PUTS; i++) {
        rw_slice value;
        if (!CHECK_OK(rw_cursor_seek(cursor, key_numbered(key, numbers[i]))) || !CHECK_OK(rw_cursor_value(cursor, &value))) break;
        good += slice_same(value, value_of(expected, numbers[i], version_of[numbers[i]]));
    }
    rw_cursor_close(cursor);
    return good;
}

static unsigned read_by_transaction(const uint64_t *numbers)
{
    rw_txn *txn;
    unsigned good = 0;
    char key[16], value[VALUE_BYTES], expected[VALUE_BYTES];
    if (!CHECK_OK(rw_txn_begin(db, RW_SERIALIZABLE, &txn))) return 0;
    for (unsigned i = 0; i < PUTS; i++) {
        size_t size = VALUE_BYTES;
        good += rw_txn_get(txn, BUCKET, key_numbered(key, numbers[i]), value, &size) == 0 &&
                slice_same(slice_bytes(value, size), value_of(expected, numbers[i], version_of[numbers[i]]));
    }
    rw_txn_abort(txn);
    return good;
}

static void test_ways(void)
{
    static const struct {
        const char *name;
        unsigned (*read)(const uint64_t *numbers);
    } ways[] = {{"gets", read_by_gets}, {"multi-gets", read_by_multi_gets}, {"a cursor", read_by_cursor}, {"a transaction", read_by_transaction}};
    prng random = {.state = seed + 1};
    static uint64_t numbers[PUTS];
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        uint64_t waited = puts_draw(&random, PUTS, 100 + i, numbers);
        unsigned good = ways[i].read(numbers);
        tap_ok(waited > PUTS / 2 && good == PUTS, "%u puts, of which %llu waited: %u are seen by %s", PUTS, (unsigned long long)waited, good, ways[i].name);
    }
    rw_stats_t stats = stats_of(db);
    tap_ok(stats.pending_answers > 0 && stats.pending_bytes < stats.cache_frames * stats.page_size, "%llu gets were answered by what waited",
           (unsigned long long)stats.pending_answers);
}

/* ---- other writes of the same keys ------------------------------------------------------------------------------- */

static void test_writes(void)
{
    prng random = {.state = seed + 2};
    char key[16], value[VALUE_BYTES];
    unsigned twice = 0, gone = 0, swapped = 0;
    for (unsigned i = 0; i < 300; i++) {
        uint64_t number = prng_next(&random) % RECORDS;
        if (!put(number, 200) || !put(number, 201)) break;
        twice += holds(number);
        CHECK_OK(rw_cas(db, BUCKET, key_numbered(key, number), &(rw_slice){value, value_of(value, number, 201).size}, &(rw_slice){"swapped", 7}, RW_ASYNC));
        swapped += get_is_text(db, BUCKET, key, "swapped");
        number = (number + RECORDS / 2) % RECORDS;
        if (!put(number, 202)) break;
        CHECK_OK(rw_del(db, BUCKET, key_numbered(key, number), RW_ASYNC));
        gone += get_code(db, BUCKET, slice_text(key)) == RW_ENOTFOUND;
        put(number, 203);
    }
    tap_ok(twice == 300 && swapped == 300 && gone == 300, "what waits is replaced (%u), compared (%u) and deleted (%u)", twice, swapped, gone);
    for (uint64_t i = 0; i < RECORDS; i++) put(i, 204); /* known again, and many leaves split: there is more of it */
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    tap_ok(good == RECORDS, "all records are there");
}

/* ---- snapshots ---------------------------------------------------------------------------------------------------- */

static _Atomic int stop;

static void *writer_run(void *arg)
{
    prng random = {.state = seed + 3};
    char key[16], value[VALUE_BYTES];
    uint64_t *puts = arg;
    for (uint32_t i = 0; !stop; i++, (*puts)++) {
        uint64_t number = prng_next(&random) % RECORDS;
        if (rw_put(db, BUCKET, key_numbered(key, number), value_of(value, number, 300 + i), RW_ASYNC) != 0) break;
    }
    return NULL;
}

/* Snapshots are opened and closed all the time, so that puts wait in between; what one has seen of a key it sees again. */
static void test_snapshots(void)
{
    pthread_t writer;
    uint64_t puts = 0, before = stats_of(db).pending_puts;
    prng random = {.state = seed + 4};
    unsigned same = 0, looks = 4000;
    stop = 0;
    pthread_create(&writer, NULL, writer_run, &puts);
    for (unsigned i = 0; i < looks; i++) {
        rw_txn *txn;
        char key[16], first[VALUE_BYTES], second[VALUE_BYTES];
        size_t first_size = VALUE_BYTES, second_size = VALUE_BYTES;
        key_numbered(key, prng_next(&random) % RECORDS);
        if (!CHECK_OK(rw_txn_begin(db, RW_READONLY, &txn))) break;
        int one = rw_txn_get(txn, BUCKET, slice_text(key), first, &first_size);
        int two = rw_txn_get(txn, BUCKET, slice_text(key), second, &second_size);
        same += one == 0 && two == 0 && slice_same(slice_bytes(first, first_size), slice_bytes(second, second_size));
        rw_txn_abort(txn);
        if (i % 4 == 0) usleep(100); /* without a snapshot */
    }
    stop = 1;
    pthread_join(writer, NULL);
    tap_ok(same == looks, "%u of %u snapshots see the same twice, beside %llu puts, of which %llu waited", same, looks, (unsigned long long)puts,
           (unsigned long long)(stats_of(db).pending_puts - before));
}

/* ---- a page that cannot be read ----------------------------------------------------------------------------------- */

/* Damages each page of the data file that holds this text. Returns how many there are. */
static unsigned damage(const char *dir, const char *text)
{
    char path[DIRS_PATH_MAX];
    static unsigned char page[4096];
    unsigned found = 0;
    path_join(path, dir, "data");
    int fd = open(path, O_RDWR);
    for (off_t at = 8192; fd >= 0 && pread(fd, page, sizeof page, at) == (ssize_t)sizeof page; at += (off_t)sizeof page) {
        if (memmem(page, sizeof page, text, strlen(text)) == NULL) continue;
        memset(page + 2000, 0x5a, 64);
        found += pwrite(fd, page, sizeof page, at) == (ssize_t)sizeof page;
    }
    if (fd >= 0) close(fd);
    return found;
}

static void test_damaged(const char *dir)
{
    rw_options options = options_small();
    char key[16], value[VALUE_BYTES], other[16];
    db = open_or_exit(dir, &options);
    for (uint64_t i = 0; i < RECORDS; i++) put(i, 400);
    CHECK_OK(rw_close(db));
    db = open_or_exit(dir, &options);
    key_numbered(key, 31234);
    int cold = get_code(db, BUCKET, key_numbered(other, 5));
    unsigned copies = damage(dir, "31234 version 400");
    int waits = rw_put(db, BUCKET, slice_text(key), value_of(value, 31234, 401), RW_SYNC);
    int checkpoint = rw_checkpoint(db);
    bool there = get_is(db, BUCKET, slice_text(key), value_of(value, 31234, 401));
    rw_stats_t now = stats_of(db);
    tap_ok(copies > 0 && cold == 0 && waits == 0 && checkpoint == 0 && there && now.pending_writes + now.spills == 1,
           "a put whose page is damaged (%u copies) waits, outlives a checkpoint and is read", copies);
    CHECK_CODE(get_code(db, BUCKET, key_numbered(other, 31235)), RW_ECORRUPT);
    tap_ok(get_code(db, BUCKET, key_numbered(other, 40000)) == 0, "its neighbours on the page fail, others go on");
    CHECK_OK(rw_close(db));
    db = open_or_exit(dir, &options);
    tap_ok(get_is(db, BUCKET, slice_text(key), value_of(value, 31234, 401)), "after a reopening it is there");
    rw_close(db);
}

/* ---- what it costs to make them ----------------------------------------------------------------------------------- */

/* One put for every other leaf at least, and then a checkpoint: each partition is read and written once, as a whole. */
static void test_cost(void)
{
    const unsigned apart = 25;
    unsigned good = 0, puts = 0;
    CHECK_OK(rw_checkpoint(db));
    rw_stats_t before = stats_of(db);
    uint64_t pages = before.data_live_bytes / before.page_size;
#ifdef RW_TINY
    uint64_t most = 2 * pages; /* the log's length may ask for a flush in between */
#else
    uint64_t most = pages * 5 / 4;
#endif
    for (uint64_t i = 0; i < RECORDS; i += apart, puts++) good += put(i, 900);
    CHECK_OK(rw_checkpoint(db));
    rw_stats_t after = stats_of(db);
    uint64_t reads = after.page_reads - before.page_reads, writes = after.page_writes - before.page_writes;
    tap_ok(good == puts && after.pending_writes == 0 && reads <= most && writes <= most, "%u puts over %llu pages: %llu reads, %llu writes", puts,
           (unsigned long long)pages, (unsigned long long)reads, (unsigned long long)writes);
    good = 0;
    for (uint64_t i = 0; i < RECORDS; i += apart) good += holds(i);
    tap_ok(good == puts, "all of them are found");
}

/* Random insertion leaves leaves two thirds full; a flush that writes them all again fills them up. */
static void test_filled(const char *dir)
{
    rw_options options = options_small();
    db = open_or_exit(dir, &options);
    uint64_t full = (uint64_t)RECORDS * (VALUE_BYTES + RECORD_OVERHEAD) / options.page_size, pages = 0;
    unsigned good = 0;
    for (uint32_t version = 0; version < 3; version++) {
        for (uint64_t i = 0; i < RECORDS; i++) good += put(i * SCATTER % RECORDS, version);
        CHECK_OK(rw_compact(db)); /* spills, too, are made */
        rw_stats_t now = stats_of(db);
        pages = now.data_live_bytes / now.page_size;
        tap_diag("version %u: %llu pages hold what fills %llu", version, (unsigned long long)pages, (unsigned long long)full);
    }
    tap_ok(good == 3 * RECORDS && pages <= full * 5 / 4, "%llu pages hold what fills %llu", (unsigned long long)pages, (unsigned long long)full);
    good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    tap_ok(good == RECORDS, "and all records");
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(dir, NULL, NULL) == 0, "the closed files are sound");
}

/* ---- leaves that are split on their way in ------------------------------------------------------------------------ */

#define SERIES 1500u
#define SERIES_LENGTH 20u
#define APPENDED 10u
#define LONGER 2u
#define SERIES_ROUNDS 5u

static rw_slice series_key(unsigned char to[16], uint64_t series, uint64_t number)
{
    for (unsigned i = 0; i < 8; i++) {
        to[i] = (unsigned char)(series * SCATTER >> (56 - 8 * i));
        to[8 + i] = (unsigned char)(number >> (56 - 8 * i));
    }
    return slice_bytes(to, 16);
}

static bool series_put(uint64_t series, uint64_t number, size_t bytes)
{
    unsigned char key[16];
    char value[VALUE_BYTES] = {(char)number};
    return CHECK_OK(rw_put(db, BUCKET, series_key(key, series, number), slice_bytes(value, bytes), RW_ASYNC));
}

/* A page that is missing is loaded by a get; by a batch that holds the tokens of its partitions; or by a flush. */
static bool series_load(uint64_t series)
{
    unsigned char key[16];
    char value[VALUE_BYTES];
    size_t size = sizeof value;
    if (series % 3 == 0) return CHECK_OK(rw_get(db, BUCKET, series_key(key, series, SERIES_LENGTH - 1), value, &size));
    if (series % 3 == 1) return true;
    rw_batch *batch;
    bool good = CHECK_OK(rw_batch_new(db, &batch));
    for (unsigned i = 0; i < 2; i++) good = good && CHECK_OK(rw_batch_put(batch, BUCKET, series_key(key, (series + i * SERIES / 2) % SERIES, SERIES_LENGTH - 1), slice_bytes("", 0)));
    good = good && CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    rw_batch_free(batch);
    return good;
}

/* Ascending puts behind the last record of a full leaf: each, made where a sequential load would go on, could have a page of its own. */
static void test_series(const char *dir)
{
    rw_options options = options_small();
    uint64_t waited;
    unsigned good = 0;
    db = open_or_exit(dir, &options);
    for (unsigned less = LONGER * SERIES_ROUNDS; less > 0; less -= LONGER) /* longer each time, until most leaves are full, and their images in the order of keys */
        for (uint64_t i = 0; i < SERIES; i++)
            for (uint64_t k = 0; k < SERIES_LENGTH; k++) good += series_put(i, k, VALUE_BYTES - less);
    CHECK_OK(rw_checkpoint(db));
    for (uint64_t i = 0; i < RECORDS; i++) good += put(i, 0); /* so that they are cold */
    waited = stats_of(db).pending_puts;
    for (uint64_t i = 0; i < SERIES; i++) {
        for (uint64_t k = 0; k < APPENDED; k++) good += series_put(i, SERIES_LENGTH + k, VALUE_BYTES * 3 / 4);
        good += series_load(i);
    }
    waited = stats_of(db).pending_puts - waited;
    CHECK_OK(rw_checkpoint(db));
    int64_t count = count_keys(db, BUCKET);
    tap_ok(good == SERIES * (SERIES_ROUNDS * SERIES_LENGTH + APPENDED + 1) + RECORDS && count == SERIES * (SERIES_LENGTH + APPENDED) + RECORDS,
           "%u records appended to series, %llu of which waited for full leaves: all are there", SERIES * APPENDED, (unsigned long long)waited);
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(dir, NULL, NULL) == 0, "the closed files are sound");
}

/* ---- in recovery -------------------------------------------------------------------------------------------------- */

#define OVERWRITES 3u

typedef struct {
    const char *dir;
    uint64_t puts;
    uint32_t version;
} writing;

static rw_options options_roomy(void)
{
    rw_options options = options_small();
    options.cache_bytes = 64 * MIB;
    options.log_bytes = 256 * MIB;     /* so that no image is made meanwhile */
    return options;
}

static int write_and_die(void *arg)
{
    const writing *w = arg;
    rw_options options = options_roomy();
    unsigned good = 0;
    db = open_or_exit(w->dir, &options);
    for (uint64_t i = 0; i < w->puts; i++) good += put(i * SCATTER % RECORDS, w->version + (uint32_t)(i / RECORDS));
    return rw_flush(db) == 0 && good == w->puts ? 0 : 1;
}

/* How many puts waited for their leaves in the recovery of a process that was killed after so many of them; all records are as they should be. */
static uint64_t recovery_waits(const char *dir, uint64_t puts, uint32_t version)
{
    rw_options options = options_roomy();
    writing w = {.dir = dir, .puts = puts, .version = version};
    unsigned good = 0;
    tap_ok(child_run(write_and_die, &w, 60) == 0, "a process puts %llu records and ends without closing", (unsigned long long)puts);
    for (uint64_t i = 0; i < puts; i++) version_of[i * SCATTER % RECORDS] = version + (uint32_t)(i / RECORDS);
    db = open_or_exit(dir, &options);
    uint64_t waited = stats_of(db).pending_puts;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    tap_ok(good == RECORDS, "all records are recovered");
    CHECK_OK(rw_close(db));
    return waited;
}

/* A short log is replayed without reading leaves; one that is longer than the data, which the cache has room for, reads all of them (R5). */
static void test_recovery(const char *dir)
{
    rw_options options = options_roomy();
    db = open_or_exit(dir, &options);
    load();
    CHECK_OK(rw_close(db));
    uint64_t few = recovery_waits(dir, RECORDS / 100, 1), many = recovery_waits(dir, (uint64_t)RECORDS * OVERWRITES, 2);
    tap_ok(few > RECORDS / 200, "of a short log %llu puts waited for their leaves", (unsigned long long)few);
#ifdef RW_TINY
    tap_diag("of a long one %llu did; with small limits images may be made in between, so that it is short again", (unsigned long long)many);
#else
    tap_ok(many == 0, "of a long one %llu did", (unsigned long long)many);
#endif
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    seed = number_from("PENDING_SEED", 1);
    tap_diag("PENDING_SEED=%llu", (unsigned long long)seed);
    if (!dir_make(dir, "pending")) return 1;
    db = open_or_exit(dir, &options);
    load();
    test_ways();
    test_writes();
    test_snapshots();
    test_cost();
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(dir, NULL, NULL) == 0, "the closed files are sound");
    test_damaged(dir);
    dir_remove(dir);
    if (!dir_make(dir, "filled")) return 1;
    test_filled(dir);
    dir_remove(dir);
    if (!dir_make(dir, "series")) return 1;
    test_series(dir);
    dir_remove(dir);
    if (!dir_make(dir, "recovered")) return 1;
    test_recovery(dir);
    dir_remove(dir);
    return tap_done();
}
