/*
 * Walks over leaves that are not in the cache: each finds what is there, forwards and backwards, wherever it begins and ends; and where many leaves are wanted, few round trips to the
 * device are made for them, but one leaf where one is wanted. In the simulator; WALKS_SEED replays the draws.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "engine/engine.h"
#include "tests/sim/sim.h"
#include "tests/support/rw_helpers.h"
#include "tests/support/tap.h"

#define RECORDS 300000u            /* five times the cache */
#define VALUE_BYTES 100u
#define WALKS 400u
#define SCATTER 7919u              /* no factor of RECORDS */

static kio_vtable operations;
static int (*read_one)(kio *, kio_file *, void *, size_t, uint64_t);
static uint64_t trips;             /* reads, or several side by side, that the engine has waited for */
static rw_db *db;
static uint64_t seed;

static int counted_read(kio *k, kio_file *file, void *buffer, size_t length, uint64_t offset)
{
    trips++;
    return read_one(k, file, buffer, length, offset);
}

static void counted_read_all(kio *k, kio_op **ops, unsigned count)
{
    uint64_t before = trips;
    kio_read_each(k, ops, count);
    trips = before + 1;
}

static rw_slice value_of(char to[VALUE_BYTES], uint64_t number)
{
    memset(to, 'v', VALUE_BYTES);
    snprintf(to, VALUE_BYTES, "%llu", (unsigned long long)number);
    return slice_bytes(to, VALUE_BYTES);
}

/* How many of the records from first on, length of them at most, in one direction, are what they should be. */
static unsigned walk(uint64_t first, unsigned length, bool forward)
{
    char key[16], value[VALUE_BYTES];
    rw_cursor *cursor;
    unsigned good = 0;
    if (!CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor))) return 0;
    int code = rw_cursor_seek(cursor, key_numbered(key, first));
    for (uint64_t number = first; good < length && code == 0; number = forward ? number + 1 : number - 1) {
        rw_slice found, content;
        if (!CHECK_OK(rw_cursor_key(cursor, &found)) || !CHECK_OK(rw_cursor_value(cursor, &content))) break;
        if (!slice_same(found, key_numbered(key, number)) || !slice_same(content, value_of(value, number))) break;
        good++;
        if (good < length) code = forward ? rw_cursor_next(cursor) : rw_cursor_prev(cursor);
    }
    if (good < length) tap_diag("walk from %llu ended after %u of %u: %d", (unsigned long long)first, good, length, code);
    rw_cursor_close(cursor);
    return good;
}

/* Round trips for each walk of one length, once walks of that length are known. */
static double trips_of(rw_random *random, unsigned length, bool forward)
{
    unsigned good = 0;
    uint64_t before = 0;
    for (unsigned i = 0; i < WALKS; i++) {
        if (i == WALKS / 2) before = trips;
        good += walk(length + rw_random_below(random, RECORDS - 2 * length), length, forward);
    }
    tap_ok(good == WALKS * length, "%u walks of %u records %s", WALKS, length, forward ? "forwards" : "backwards");
    return (double)(trips - before) / (WALKS / 2);
}

static void test_lengths(void)
{
    rw_random random;
    rw_random_seed(&random, seed);
    double one = trips_of(&random, 1, true), hundred = trips_of(&random, 100, true), back = trips_of(&random, 100, false), again = trips_of(&random, 1, true);
    rw_stats_t before, after;
    CHECK_OK(rw_stats(db, &before));
    double third = trips_of(&random, 1, true);
    CHECK_OK(rw_stats(db, &after));
    double pages = (double)(after.page_reads - before.page_reads) / WALKS;
    tap_ok(one < 1.3 && again < 1.3 && third < 1.3 && pages < 1.3, "a seek costs %.2f reads, %.2f after long walks, %.2f pages", one, again, pages);
    tap_ok(hundred < 1.7 && back < 2.7, "a walk of 100, over five leaves, costs %.2f reads, backwards, after the seek, %.2f", hundred, back);
}

static void test_all(void)
{
    uint64_t before = trips;
    tap_ok(walk(0, RECORDS, true) == RECORDS && walk(RECORDS - 1, RECORDS, false) == RECORDS, "walks over everything, both ways");
    tap_ok(trips - before < RECORDS / 25, "which cost %llu reads", (unsigned long long)(trips - before));
}

static void run(void *arg)
{
    kio *k = arg;
    char key[16], value[VALUE_BYTES];
    rw_options options = options_small();
    unsigned good = 0;
    options.cache_bytes = 6 * MIB;
    if (!CHECK_OK(db_open_with(k, "walks", &options, &db))) return;
    for (uint64_t i = 0; i < RECORDS; i++) {
        uint64_t number = i * SCATTER % RECORDS;
        good += CHECK_OK(rw_put(db, BUCKET, key_numbered(key, number), value_of(value, number), RW_ASYNC));
    }
    CHECK_OK(rw_compact(db)); /* nothing is spilled any more: that would have to be read, too */
    tap_ok(good == RECORDS, "%u records", good);
    test_lengths();
    test_all();
    CHECK_OK(rw_close(db));
}

int main(void)
{
    const char *text = getenv("WALKS_SEED");
    seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    tap_diag("WALKS_SEED=%llu", (unsigned long long)seed);
    sim_disk *disk = sim_disk_create();
    sim_world *world = sim_world_open(disk, seed);
    kio *k = sim_world_kio(world);
    operations = *k->ops;
    read_one = operations.file_read;
    operations.file_read = counted_read;
    operations.read_all = counted_read_all;
    k->ops = &operations;
    sim_run(world, run, k);
    sim_world_close(world);
    sim_disk_destroy(disk);
    return tap_done();
}
