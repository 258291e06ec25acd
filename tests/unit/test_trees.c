/*
 * Trees in a small cache, cut in small partitions, over the simulator: random writes against a model, with the resident structure checked between them,
 * the files checked after each close and after power cuts on the side, now and then on a disk that is full, and everything deleted in the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/engine.h"
#include "tests/sim/sim.h"
#include "tests/support/rw_helpers.h"
#include "tests/support/tap.h"

#include "base/base.h"

#define DIRECTORY "/db"
#define KEYS (RW_CACHE_BYTES_MIN / 256)   /* of them all more than the smallest cache holds */
#define VALUE_MAX 3000u
#define CHECK_EVERY (KEYS / 16)
#define SETTLE_ROUNDS 12u
#define BATCH_MAX 30u
#define CUT_STEPS 4000u                   /* between power cuts, on average half of it */
#define CUTS_MAX 60u                      /* in one seed */

typedef struct {
    unsigned char bytes[1000];
    size_t size;
} test_key;

typedef struct {
    uint64_t seed;
    kio *k;
    rw_random random;
    rw_options options;
    rw_db *db;
    test_key keys[KEYS];           /* in order */
    uint32_t value[KEYS];          /* which value; 0: absent */
    uint32_t key_count, next_value, operations;
    uint64_t partitions_max;
    sim_world *world;
    sim_disk *disk;
    bool disk_fills;               /* writes and checkpoints may meet a full disk */
    bool tight;                    /* it is nearly full now */
    bool made;                     /* the database: from now on it can be cut off at any step */
    uint64_t next_cut, cuts;       /* step */
    rw_random cut_random;
} bed;

static kio *cut_kio;               /* of the world that looks at what a power cut leaves */

/* A failure ends the program, with what replays it: a world in the middle of things cannot be closed. */
static void must(const bed *b, bool condition, const char *what)
{
    if (condition) return;
    tap_ok(false, "TREES_SEED=%llu: %s, after %u operations: %s", (unsigned long long)b->seed, what, b->operations, rw_error_text());
    tap_done();
    _exit(1);
}

static uint64_t below(bed *b, uint64_t bound)
{
    return rw_random_below(&b->random, bound);
}

/* What a call may say when the disk is full, and then has changed nothing. */
static bool refused(const bed *b, int code)
{
    return code == RW_ENOSPC && b->disk_fills;
}

/* ---- keys and values --------------------------------------------------------------------------------------------- */

static int key_compare(const void *a, const void *b)
{
    const test_key *x = a, *y = b;
    return rw_slice_compare(rw_slice_of(x->bytes, x->size), rw_slice_of(y->bytes, y->size));
}

/* Numbers, long keys that share much, short ones of few letters, long random ones: each seed has its own mix. */
static void key_make(bed *b, test_key *key, unsigned shape, uint32_t number)
{
    size_t max = RW_MIN(sizeof key->bytes, rw_key_size_max(b->options.page_size));
    switch (shape) {
    case 0: key->size = (size_t)snprintf((char *)key->bytes, sizeof key->bytes, "%08u", number); return;
    case 1:
        key->size = (size_t)snprintf((char *)key->bytes, sizeof key->bytes, "a long beginning that all of these keys have in common/%05u/%u",
                                     number / 7, number % 7);
        return;
    case 2:
        key->size = 1 + below(b, 9);
        for (size_t i = 0; i < key->size; i++) key->bytes[i] = (unsigned char)("\0ab\xff"[below(b, 4)]);
        return;
    default:
        key->size = 1 + below(b, max);
        for (size_t i = 0; i < key->size; i++) key->bytes[i] = (unsigned char)(i < key->size / 2 ? 'x' : below(b, 256));
    }
}

static void keys_make(bed *b)
{
    unsigned shapes = 1 + (unsigned)below(b, 15);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        unsigned shape;
        do shape = (unsigned)below(b, 4);
        while ((shapes >> shape & 1) == 0);
        key_make(b, &b->keys[i], shape, i);
    }
    qsort(b->keys, KEYS, sizeof *b->keys, key_compare);
    for (uint32_t i = 0; i < KEYS; i++)
        if (kept == 0 || key_compare(&b->keys[kept - 1], &b->keys[i]) != 0) b->keys[kept++] = b->keys[i];
    b->key_count = kept;
}

static rw_slice key_of(const bed *b, uint32_t i)
{
    return rw_slice_of(b->keys[i].bytes, b->keys[i].size);
}

/* Bytes that follow from the value's number; now and then more than a leaf holds. */
static rw_slice value_make(uint32_t number, unsigned char buffer[VALUE_MAX])
{
    rw_random random;
    rw_random_seed(&random, number);
    size_t size = rw_random_below(&random, 20) == 0 ? rw_random_below(&random, VALUE_MAX) : rw_random_below(&random, 500);
    for (size_t i = 0; i < size; i++) buffer[i] = (unsigned char)(number + i);
    return rw_slice_of(buffer, size);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static void put(bed *b, uint32_t i)
{
    unsigned char value[VALUE_MAX];
    uint32_t number = ++b->next_value;
    int code = rw_put(b->db, RW_DEFAULT_BUCKET, key_of(b, i), value_make(number, value), RW_ASYNC);
    if (refused(b, code)) return;
    must(b, code == 0, "put");
    b->value[i] = number;
}

static void delete(bed *b, uint32_t i)
{
    int code = rw_del(b->db, RW_DEFAULT_BUCKET, key_of(b, i), RW_ASYNC);
    if (refused(b, code)) return;
    must(b, code == (b->value[i] == 0 ? RW_ENOTFOUND : 0), "delete");
    b->value[i] = 0;
}

static void delete_range(bed *b, uint32_t from, uint32_t to)
{
    rw_slice end = to == b->key_count ? rw_slice_of(NULL, 0) : key_of(b, to);
    int code = rw_delete_range(b->db, RW_DEFAULT_BUCKET, key_of(b, from), end, RW_ASYNC);
    if (refused(b, code)) return;
    must(b, code == 0, "delete a range");
    memset(b->value + from, 0, (to - from) * sizeof *b->value);
}

static void batch(bed *b)
{
    rw_batch *all;
    unsigned char value[VALUE_MAX];
    uint32_t keys[BATCH_MAX], numbers[BATCH_MAX], count = 1 + (uint32_t)below(b, BATCH_MAX);
    must(b, rw_batch_new(b->db, &all) == 0, "new batch");
    for (uint32_t n = 0; n < count; n++) {
        keys[n] = (uint32_t)below(b, b->key_count);
        numbers[n] = below(b, 3) == 0 ? 0 : ++b->next_value;
        int code = numbers[n] == 0 ? rw_batch_del(all, RW_DEFAULT_BUCKET, key_of(b, keys[n]))
                                   : rw_batch_put(all, RW_DEFAULT_BUCKET, key_of(b, keys[n]), value_make(numbers[n], value));
        must(b, code == 0 || refused(b, code), "batch");
        if (code != 0) numbers[n] = b->value[keys[n]], count = n;
    }
    int code = rw_batch_commit(all, RW_ASYNC);
    must(b, code == 0 || refused(b, code), "commit");
    for (uint32_t n = 0; n < count && code == 0; n++) b->value[keys[n]] = numbers[n];
    rw_batch_free(all);
}

static void get(bed *b, uint32_t i)
{
    unsigned char value[VALUE_MAX], found[VALUE_MAX];
    size_t size = sizeof found;
    int code = rw_get(b->db, RW_DEFAULT_BUCKET, key_of(b, i), found, &size);
    if (refused(b, code)) return; /* the cache is full of pages that cannot be written */
    if (b->value[i] == 0) must(b, code == RW_ENOTFOUND, "get of an absent key");
    else must(b, code == 0 && rw_slice_equal(rw_slice_of(found, size), value_make(b->value[i], value)), "get");
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static void check_all(bed *b)
{
    rw_cursor *cursor;
    rw_slice key, value;
    unsigned char expected[VALUE_MAX];
    must(b, rw_cursor_open(b->db, NULL, RW_DEFAULT_BUCKET, &cursor) == 0, "open a cursor");
    for (uint32_t i = 0; i < b->key_count; i++) {
        if (b->value[i] == 0) continue;
        must(b, rw_cursor_next(cursor) == 0 && rw_cursor_key(cursor, &key) == 0 && rw_cursor_value(cursor, &value) == 0, "next");
        must(b, rw_slice_equal(key, key_of(b, i)), "the key of a scan");
        must(b, rw_slice_equal(value, value_make(b->value[i], expected)), "the value of a scan");
    }
    must(b, rw_cursor_next(cursor) == RW_ENOTFOUND, "the end of a scan");
    rw_cursor_close(cursor);
}

static void check_resident(bed *b)
{
    rw_stats_t stats;
    must(b, db_check_resident(b->db) == 0, "the resident trees are sound");
    must(b, rw_stats(b->db, &stats) == 0, "stats");
    b->partitions_max = RW_MAX(b->partitions_max, stats.partitions);
}

static void open_database(bed *b)
{
    must(b, db_open_with(b->k, DIRECTORY, &b->options, &b->db) == 0, "open");
    b->made = true;
}

static void disk_widen(bed *b)
{
    sim_disk_limit(b->disk, UINT64_MAX);
    b->tight = false;
}

static void close_and_verify(bed *b)
{
    disk_widen(b);
    must(b, rw_close(b->db) == 0, "close");
    must(b, db_verify_with(b->k, DIRECTORY, note_finding, NULL) == 0, "verify");
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

static void maintain(bed *b, uint64_t one_in, int (*call)(rw_db *), const char *what)
{
    int code = below(b, one_in) == 0 ? call(b->db) : 0;
    must(b, code == 0 || refused(b, code), what);
}

/* A disk with little room, or none, for a while. */
static void disk_change(bed *b)
{
    if (!b->disk_fills) return;
    disk_widen(b);
    b->tight = below(b, 2) == 0;
    if (b->tight) sim_disk_limit(b->disk, sim_disk_used(b->disk) + below(b, 3) * RW_SEGMENT_BYTES / 2);
}

/* One step of random work; deletes: how many of 10 writes take something away. */
static void step(bed *b, unsigned deletes)
{
    uint32_t i = (uint32_t)below(b, b->key_count);
    uint64_t what = below(b, 100);
    b->operations++;
    if (b->tight && what < 2) return; /* many writes that meet a full disk half-way end the database's taking writes (W4) */
    switch (what) {
    case 0: batch(b); return;
    case 1: delete_range(b, i, i + (uint32_t)below(b, RW_MIN(b->key_count - i, deletes > 5 ? 200u : 20u) + 1)); return;
    case 2: maintain(b, 4, rw_checkpoint, "checkpoint"); return;
    case 3: maintain(b, 20, rw_compact, "compact"); return;
    case 9: disk_change(b); return;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8: get(b, i); return;
    default: break;
    }
    if (below(b, 10) < deletes) delete(b, i);
    else put(b, i);
}

static void work(bed *b, uint32_t count, unsigned deletes)
{
    for (uint32_t i = 0; i < count; i++) {
        step(b, deletes);
        if (i % CHECK_EVERY == 0) check_resident(b);
    }
    disk_widen(b);
    check_resident(b);
    check_all(b);
}

static void delete_all(bed *b)
{
    unsigned way = (unsigned)below(b, 3);
    if (way == 0) delete_range(b, 0, b->key_count);
    uint32_t start = (uint32_t)below(b, b->key_count);
    for (uint32_t n = 0; way != 0 && n < b->key_count; n++) {
        uint32_t i = way == 1 ? (start + n) % b->key_count : b->key_count - 1 - n;
        if (b->value[i] != 0) delete(b, i);
        if (n % CHECK_EVERY == 0) check_resident(b);
    }
    check_resident(b);
    check_all(b);
}

/* Whatever was there: one partition is left, of one empty page, and its place is all that is alive in the file. */
static void check_empty(bed *b)
{
    rw_stats_t stats = {0};
    for (unsigned round = 0; round < SETTLE_ROUNDS; round++) {
        must(b, rw_checkpoint(b->db) == 0, "checkpoint");
        must(b, rw_stats(b->db, &stats) == 0, "stats");
        if (stats.partitions == 1 && stats.tree_height_max == 1 && stats.data_live_bytes == stats.page_size) break;
    }
    rw_error(RW_ECORRUPT, "%llu partitions, %llu levels, %llu bytes alive", (unsigned long long)stats.partitions,
             (unsigned long long)stats.tree_height_max, (unsigned long long)stats.data_live_bytes);
    must(b, stats.partitions == 1, "empty partitions are joined");
    must(b, stats.tree_height_max == 1, "an empty tree is one page");
    must(b, stats.data_live_bytes == stats.page_size, "the space of what was deleted is free");
    check_resident(b);
}

static void run(void *arg)
{
    bed *b = arg;
    open_database(b);
    for (unsigned round = 0; round < 2; round++) {
        work(b, KEYS, 2);
        if (below(b, 2) == 0) {
            close_and_verify(b);
            open_database(b);
            check_all(b);
        }
        work(b, KEYS / 2, 8);
        if (below(b, 2) == 0) delete_all(b);
    }
    delete_all(b);
    check_empty(b);
    put(b, 0);
    check_all(b);
    close_and_verify(b);
}

/* ---- power cuts on the side -------------------------------------------------------------------------------------- */

static void cut_verify(void *arg)
{
    int *code = arg;
    *code = db_verify_with(cut_kio, DIRECTORY, note_finding, NULL);
}

/* Called before every step of the world. What a power cut would leave at this moment must be sound, before anything repairs it. */
static void cut(void *arg)
{
    bed *b = arg;
    if (!b->made || b->cuts == CUTS_MAX || sim_world_steps(b->world) < b->next_cut) return;
    b->next_cut = sim_world_steps(b->world) + 1 + rw_random_below(&b->cut_random, CUT_STEPS);
    sim_disk *left = sim_disk_crash(b->disk, &b->cut_random);
    sim_world *world = sim_world_open(left, b->seed);
    int code = -1;
    cut_kio = sim_world_kio(world);
    sim_run(world, cut_verify, &code);
    sim_world_close(world);
    must(b, code == 0, "what a power cut leaves is sound");
    sim_disk_destroy(left);
    b->cuts++;
}

static void options_draw(bed *b)
{
    static const uint32_t sizes[] = {4096, 4096, 4096, 8192};
    rw_options_init(&b->options);
    b->options.cache_bytes = (uint64_t)RW_CACHE_BYTES_MIN << below(b, 3);
    b->options.log_bytes = 4 * RW_LOG_STAGING_BYTES;
    b->options.page_size = sizes[below(b, RW_ARRAY_SIZE(sizes))];
    b->options.workers = 1 + (uint32_t)below(b, 2);
    b->options.partition_bytes = RW_SEGMENT_BYTES / 8;
}

static void run_seed(uint64_t seed, uint64_t *partitions_max, uint64_t *cuts)
{
    bed *b = calloc(1, sizeof *b);
    RW_ASSERT(b != NULL);
    b->disk = sim_disk_create();
    b->world = sim_world_open(b->disk, seed);
    b->seed = seed;
    b->k = sim_world_kio(b->world);
    rw_random_seed(&b->random, seed);
    rw_random_seed(&b->cut_random, seed);
    b->disk_fills = below(b, 3) == 0;
    options_draw(b);
    keys_make(b);
    sim_step_hook(b->world, cut, b);
    sim_run(b->world, run, b);
    *partitions_max = RW_MAX(*partitions_max, b->partitions_max);
    *cuts += b->cuts;
    sim_world_close(b->world);
    sim_disk_destroy(b->disk);
    free(b);
}

int main(void)
{
    const char *replay = getenv("TREES_SEED");
    uint64_t first = replay != NULL ? strtoull(replay, NULL, 0) : 1, count = replay != NULL ? 1 : check_long() ? 60 : 5;
    uint64_t partitions_max = 0, cuts = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        run_seed(seed, &partitions_max, &cuts);
        tap_ok(true, "seed %llu: trees and files stay sound, and nothing is left when all is deleted", (unsigned long long)seed);
    }
    if (replay != NULL) return tap_done();
    tap_ok(cuts > count, "%llu power cuts", (unsigned long long)cuts);
    tap_ok(partitions_max > 4, "up to %llu partitions", (unsigned long long)partitions_max);
    return tap_done();
}
