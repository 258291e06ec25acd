/* Large values and large keys: sizes around every boundary, growing and shrinking, space that comes back, separators as long as can be. */
#include <stdio.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define LARGEST ((size_t)16 << 20)

/* A value's bytes depend on where they lie and on a seed, so that a page missing, swapped or stale shows. */
static void fill_pattern(uint8_t *bytes, size_t size, uint64_t seed)
{
    prng random = {seed};
    size_t whole = size / 8;
    for (size_t i = 0; i < whole; i++) {
        uint64_t word = prng_next(&random);
        memcpy(bytes + i * 8, &word, 8);
    }
    prng_fill(&random, bytes + whole * 8, size % 8);
}

typedef struct {
    uint8_t *put;
    uint8_t *got;
} buffers;

static bool buffers_make(buffers *room, size_t size)
{
    room->put = malloc(size + 64);
    room->got = malloc(size + 64);
    return TAP_CHECK(room->put != NULL && room->got != NULL);
}

static void buffers_free(buffers *room)
{
    free(room->put);
    free(room->got);
}

static rw_slice size_key(uint64_t number, char key[32])
{
    return slice_bytes(key, (size_t)snprintf(key, 32, "value-%010llu", (unsigned long long)number));
}

static bool put_sized(rw_db *db, buffers *room, rw_slice key, size_t size, uint64_t seed)
{
    fill_pattern(room->put, size, seed);
    return CHECK_OK(rw_put(db, BUCKET, key, slice_bytes(room->put, size), RW_ASYNC));
}

static bool holds_sized(rw_db *db, buffers *room, rw_slice key, size_t size, uint64_t seed)
{
    size_t room_size = size + 1;
    fill_pattern(room->put, size, seed);
    room->got[size] = 0x5a;
    if (!CHECK_OK(rw_get(db, BUCKET, key, room->got, &room_size))) return false;
    bool same = room_size == size && memcmp(room->put, room->got, size) == 0 && room->got[size] == 0x5a;
    if (!same) tap_diag("the value of %.*s is wrong: %zu bytes of %zu", (int)key.size, (const char *)key.data, room_size, size);
    return TAP_CHECK(same);
}

/* Every size where a representation may change, and its neighbours. */
static size_t boundary_sizes(uint32_t page_size, size_t *sizes, size_t max)
{
    size_t bases[64], bases_count = 0, count = 0, page = page_size;
    for (size_t part = 16; part >= 1; part /= 2) bases[bases_count++] = page / part;
    bases[bases_count++] = page / 3;
    bases[bases_count++] = page * 3 / 4;
    bases[bases_count++] = page - 32;
    bases[bases_count++] = page - 64;
    for (size_t pages = 2; pages <= 5; pages++) bases[bases_count++] = page * pages;
    for (size_t size = 32768; size <= LARGEST; size *= 2) bases[bases_count++] = size;
    bases[bases_count++] = 3 * MIB;
    bases[bases_count++] = 1 << 8;
    for (size_t size = 0; size < 4; size++) sizes[count++] = size;
    for (size_t i = 0; i < bases_count; i++)
        for (int delta = -17; delta <= 17; delta += delta == -1 || delta == 0 ? 1 : 16)
            if (count < max) sizes[count++] = bases[i] + (size_t)delta;
    return count;
}

static void test_boundaries(rw_db *db, uint32_t page_size, buffers *room)
{
    static size_t sizes[512];
    size_t count = boundary_sizes(page_size, sizes, 512), wrong = 0;
    char key[32];
    for (size_t i = 0; i < count; i++) {
        if (sizes[i] > LARGEST) sizes[i] = LARGEST;
        if (!put_sized(db, room, size_key(i, key), sizes[i], i)) break;
        if (sizes[i] > 4 * MIB) wrong += !holds_sized(db, room, size_key(i, key), sizes[i], i);
    }
    for (size_t i = 0; i < count; i++) wrong += !holds_sized(db, room, size_key(i, key), sizes[i], i);
    CHECK_OK(rw_checkpoint(db));
    size_t refused = 0;
    for (size_t i = 0; i < count; i++) {
        size_t size = sizes[i] > 0 ? sizes[i] - 1 : 0;
        refused += sizes[i] > 0 && rw_get(db, BUCKET, size_key(i, key), room->got, &size) == RW_ETOOSMALL && size == sizes[i];
        refused += sizes[i] == 0;
    }
    TAP_CHECK(refused == count);
    tap_ok(wrong == 0, "page size %u: %zu values of 0 B to 16 MiB", (unsigned)page_size, count);
}

static bool same_through_cursor(rw_cursor *cursor, buffers *room, uint64_t number, size_t size)
{
    char want[32];
    rw_slice key = NO_KEY, value = NO_KEY;
    if (!CHECK_OK(rw_cursor_key(cursor, &key)) || !CHECK_OK(rw_cursor_value(cursor, &value))) return false;
    fill_pattern(room->put, size, number);
    return TAP_CHECK(slice_same(key, size_key(number, want)) && slice_same(value, slice_bytes(room->put, size)));
}

static void test_boundaries_scan(rw_db *db, uint32_t page_size, buffers *room)
{
    static size_t sizes[512];
    size_t count = boundary_sizes(page_size, sizes, 512), seen = 0;
    rw_cursor *cursor = NULL;
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    for (; rw_cursor_next(cursor) == 0 && seen < count; seen++)
        if (!same_through_cursor(cursor, room, seen, sizes[seen] > LARGEST ? LARGEST : sizes[seen])) break;
    size_t back = 0;
    while (back < 20 && back < seen && rw_cursor_prev(cursor) == 0) {
        back++;
        size_t size = sizes[count - back];
        if (!same_through_cursor(cursor, room, count - back, size > LARGEST ? LARGEST : size)) break;
    }
    tap_ok(seen == count && back == 20, "page size %u: after reopening, through a cursor: %zu, %zu", (unsigned)page_size, seen, back);
    rw_cursor_close(cursor);
}

static void test_page_size(uint32_t page_size, buffers *room)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    options.page_size = page_size;
    options.cache_bytes = 24 * MIB;
    options.log_bytes = 64 * MIB;
    if (!dir_make(dir, "large")) return;
    rw_db *db = open_or_exit(dir, &options);
    test_boundaries(db, page_size, room);
    CHECK_OK(rw_close(db));
    db = open_or_exit(dir, &options);
    test_boundaries_scan(db, page_size, room);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

/* One key whose value grows and shrinks through all representations, with small neighbours that must not notice. */
static void test_overwrite(rw_db *db, buffers *room)
{
    static const size_t sizes[] = {10, 5000, 10, 70000, 0, 1 << 20, 3, 4096, 3 << 20, 1000, 2 << 20, 2 << 20, 100};
    char key[32];
    for (uint64_t i = 0; i < 200; i++) put_sized(db, room, size_key(i, key), 50, i);
    for (uint64_t round = 0; round < 6; round++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            if (!put_sized(db, room, size_key(100, key), sizes[i], round * 100 + i)) return;
            if (!holds_sized(db, room, size_key(100, key), sizes[i], round * 100 + i)) return;
        }
        if (round == 2) CHECK_OK(rw_checkpoint(db));
    }
    CHECK_OK(rw_del(db, BUCKET, size_key(100, key), RW_ASYNC));
    CHECK_CODE(get_code(db, BUCKET, size_key(100, key)), RW_ENOTFOUND);
    for (uint64_t i = 0; i < 200; i++)
        if (i != 100) holds_sized(db, room, size_key(i, key), 50, i);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    tap_ok(count_keys(db, BUCKET) == 0, "a value that grows and shrinks between small neighbours");
}

static uint64_t stat_file_bytes(rw_db *db, uint64_t *live)
{
    rw_stats_t stats = {0};
    CHECK_OK(rw_checkpoint(db));
    CHECK_OK(rw_stats(db, &stats));
    *live = stats.data_live_bytes;
    return stats.data_file_bytes;
}

/* 24 MiB written and deleted again and again: the file must not grow with the rounds. */
static void test_space_reuse(rw_db *db, buffers *room)
{
    uint64_t first = 0, last = 0, live = 0, most_live = 0;
    char key[32];
    for (uint64_t round = 0; round < 6; round++) {
        for (uint64_t i = 0; i < 24; i++) put_sized(db, room, size_key(i, key), MIB - 100 * i, round + i);
        for (uint64_t i = 1000; i < 3000; i++) put_sized(db, room, size_key(i, key), 300, i);
        last = stat_file_bytes(db, &live);
        if (live > most_live) most_live = live;
        if (round == 1) first = last;
        for (uint64_t i = 0; i < 24; i++) holds_sized(db, room, size_key(i, key), MIB - 100 * i, round + i);
        CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
        stat_file_bytes(db, &live);
    }
    TAP_CHECK(most_live >= 23 * MIB);
    TAP_CHECK(live < 4 * MIB);
    tap_ok(last <= first * 3 / 2 + 8 * MIB, "deleted space is used again: %llu MiB after 2 rounds, %llu MiB after 6, live %llu KiB",
           (unsigned long long)(first / MIB), (unsigned long long)(last / MIB), (unsigned long long)(live / 1024));
    CHECK_OK(rw_compact(db));
    uint64_t compacted = stat_file_bytes(db, &live);
    tap_ok(compacted <= last / 2, "rw_compact gives it back: %llu MiB", (unsigned long long)(compacted / MIB));
}

/* Compaction must move what is alive, large values among it. */
static void test_compact_keeps(rw_db *db, buffers *room)
{
    char key[32];
    for (uint64_t i = 0; i < 200; i++) put_sized(db, room, size_key(i, key), 20000 + 700 * i, i);
    for (uint64_t i = 0; i < 200; i++)
        if (i % 4 != 0) CHECK_OK(rw_del(db, BUCKET, size_key(i, key), RW_ASYNC));
    uint64_t live = 0, before = stat_file_bytes(db, &live);
    CHECK_OK(rw_compact(db));
    uint64_t after = stat_file_bytes(db, &live);
    for (uint64_t i = 0; i < 200; i += 4) holds_sized(db, room, size_key(i, key), 20000 + 700 * i, i);
    tap_ok(after <= before && count_keys(db, BUCKET) == 50, "compaction keeps what is alive: %llu KiB, then %llu KiB, live %llu KiB",
           (unsigned long long)(before / 1024), (unsigned long long)(after / 1024), (unsigned long long)(live / 1024));
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
}

/* Large values through batches and transactions, several in one commit. */
static void test_large_in_commits(rw_db *db, buffers *room)
{
    rw_batch *batch = NULL;
    rw_txn *txn = NULL;
    char key[32];
    CHECK_OK(rw_batch_new(db, &batch));
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    for (uint64_t i = 0; i < 4; i++) {
        fill_pattern(room->put, 300000, i);
        CHECK_OK(rw_batch_put(batch, BUCKET, size_key(i, key), slice_bytes(room->put, 300000)));
        fill_pattern(room->put, 200000, i + 10);
        CHECK_OK(rw_txn_put(txn, BUCKET, size_key(i + 10, key), slice_bytes(room->put, 200000)));
    }
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    rw_batch_free(batch);
    for (uint64_t i = 0; i < 4; i++) {
        holds_sized(db, room, size_key(i, key), 300000, i);
        holds_sized(db, room, size_key(i + 10, key), 200000, i + 10);
    }
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    tap_ok(count_keys(db, BUCKET) == 0, "large values in batches and transactions");
}

/* Keys of the greatest size that differ in their last bytes only: separators cannot be shortened. */
static void make_max_key(uint8_t *key, size_t max, uint64_t i, bool differ_at_end)
{
    memset(key, 0x6b, max);
    uint8_t *digits = differ_at_end ? key + max - 4 : key;
    for (int digit = 3; digit >= 0; digit--, i /= 26) digits[digit] = (uint8_t)('a' + i % 26);
}

static void test_max_keys(uint32_t page_size, bool differ_at_end)
{
    enum { KEYS = 2000 };
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    size_t max = rw_key_size_max(page_size), wrong = 0;
    uint8_t *key = malloc(max);
    options.page_size = page_size;
    options.cache_bytes = 16 * MIB;
    options.partition_bytes = 4 * MIB;
    if (!TAP_CHECK(key != NULL) || !dir_make(dir, "large")) return;
    rw_db *db = open_or_exit(dir, &options);
    for (uint64_t i = 0; i < KEYS; i++) {
        uint64_t number = i * 1237 % KEYS;
        make_max_key(key, max, number, differ_at_end);
        if (!CHECK_OK(rw_put(db, BUCKET, slice_bytes(key, max), slice_bytes(&number, sizeof(number)), RW_ASYNC))) break;
    }
    for (uint64_t i = 0; i < KEYS; i++) {
        make_max_key(key, max, i, differ_at_end);
        wrong += !get_is(db, BUCKET, slice_bytes(key, max), slice_bytes(&i, sizeof(i)));
    }
    TAP_CHECK(count_keys(db, BUCKET) == KEYS);
    for (uint64_t i = 0; i < KEYS; i++) {
        make_max_key(key, max, i * 1237 % KEYS, differ_at_end);
        if (i % 10 != 0 && !CHECK_OK(rw_del(db, BUCKET, slice_bytes(key, max), RW_ASYNC))) break;
    }
    int64_t left = count_keys(db, BUCKET);
    tap_ok(wrong == 0 && left == KEYS / 10, "%d keys of %zu bytes that differ at the %s", KEYS, max, differ_at_end ? "end" : "beginning");
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    free(key);
}

static void test_one_gib(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options;
    buffers room;
    rw_options_init(&options);
    options.cache_bytes = 2048 * MIB + 512 * MIB;
    if (!dir_make(dir, "large") || !buffers_make(&room, RW_VALUE_SIZE_MAX)) return;
    rw_db *db = open_or_exit(dir, &options);
    bool good = put_sized(db, &room, slice_text("gib"), RW_VALUE_SIZE_MAX, 1);
    good = good && holds_sized(db, &room, slice_text("gib"), RW_VALUE_SIZE_MAX, 1);
    CHECK_OK(rw_close(db));
    db = open_or_exit(dir, &options);
    tap_ok(good && holds_sized(db, &room, slice_text("gib"), RW_VALUE_SIZE_MAX, 1), "a value of 1 GiB, before and after reopening");
    CHECK_OK(rw_del(db, BUCKET, slice_text("gib"), RW_SYNC));
    CHECK_OK(rw_close(db));
    buffers_free(&room);
    dir_remove(dir);
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    buffers room;
    rw_options options = options_small();
    if (!buffers_make(&room, LARGEST)) return tap_done();
    for (uint32_t page_size = 4096; page_size <= 65536; page_size *= 4) test_page_size(page_size, &room);
    options.cache_bytes = 16 * MIB;
    options.log_bytes = 32 * MIB;
    if (!dir_make(dir, "large")) return tap_done();
    rw_db *db = open_or_exit(dir, &options);
    test_overwrite(db, &room);
    test_large_in_commits(db, &room);
    test_compact_keeps(db, &room);
    test_space_reuse(db, &room);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    for (uint32_t page_size = 4096; page_size <= 65536; page_size *= 2) {
        test_max_keys(page_size, true);
        test_max_keys(page_size, false);
    }
    buffers_free(&room);
    if (check_long()) test_one_gib();
    else tap_skip("one value of 1 GiB: only with CHECK_LONG");
    return tap_done();
}
