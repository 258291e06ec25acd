/* Single keys: put, get, del, delete_range, buckets, sizes, order. */
#include <stdio.h>

#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

static void test_put_get_del(rw_db *db)
{
    CHECK_CODE(get_code(db, BUCKET, slice_text("a")), RW_ENOTFOUND);
    CHECK_CODE(del_text(db, BUCKET, "a"), RW_ENOTFOUND);
    CHECK_OK(rw_put(db, BUCKET, slice_text("a"), slice_text("one"), RW_SYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "one"));
    CHECK_OK(put_text(db, BUCKET, "a", "two and longer"));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "two and longer"));
    CHECK_OK(put_text(db, BUCKET, "a", "3"));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "3"));
    TAP_CHECK(get_code(db, BUCKET, slice_text("A")) == RW_ENOTFOUND);
    CHECK_OK(rw_del(db, BUCKET, slice_text("a"), RW_SYNC));
    CHECK_CODE(get_code(db, BUCKET, slice_text("a")), RW_ENOTFOUND);
    CHECK_CODE(del_text(db, BUCKET, "a"), RW_ENOTFOUND);
    CHECK_OK(put_text(db, BUCKET, "a", "again"));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "again"));
    CHECK_OK(del_text(db, BUCKET, "a"));
    tap_ok(true, "put, overwrite, delete and put again");
}

static void test_get_sizes(rw_db *db)
{
    char buffer[16];
    size_t size = sizeof(buffer);
    memset(buffer, 'x', sizeof(buffer));
    CHECK_CODE(rw_get(db, BUCKET, slice_text("none"), buffer, &size), RW_ENOTFOUND);
    TAP_CHECK(size == sizeof(buffer) && buffer[0] == 'x');

    CHECK_OK(put_text(db, BUCKET, "k", "12345"));
    size = 4;
    CHECK_CODE(rw_get(db, BUCKET, slice_text("k"), buffer, &size), RW_ETOOSMALL);
    TAP_CHECK(size == 5);
    TAP_CHECK(memcmp(buffer, "xxxxxxxxxxxxxxxx", sizeof(buffer)) == 0);
    CHECK_OK(rw_get(db, BUCKET, slice_text("k"), buffer, &size));
    TAP_CHECK(size == 5 && memcmp(buffer, "12345x", 6) == 0);

    size = 0;
    CHECK_CODE(rw_get(db, BUCKET, slice_text("k"), NULL, &size), RW_ETOOSMALL);
    TAP_CHECK(size == 5);
    size = sizeof(buffer);
    CHECK_OK(rw_get(db, BUCKET, slice_text("k"), buffer, &size));
    tap_ok(size == 5, "get: exact room, too little room, no room, more room");
    CHECK_OK(del_text(db, BUCKET, "k"));
}

static void test_empty_value(rw_db *db)
{
    char byte = 'x';
    size_t size = 0;
    CHECK_OK(rw_put(db, BUCKET, slice_text("empty"), slice_bytes(NULL, 0), RW_ASYNC));
    CHECK_OK(rw_get(db, BUCKET, slice_text("empty"), NULL, &size));
    TAP_CHECK(size == 0);
    size = 1;
    CHECK_OK(rw_get(db, BUCKET, slice_text("empty"), &byte, &size));
    TAP_CHECK(size == 0 && byte == 'x');
    CHECK_OK(put_text(db, BUCKET, "empty", "not any more"));
    TAP_CHECK(get_is_text(db, BUCKET, "empty", "not any more"));
    CHECK_OK(put_text(db, BUCKET, "empty", ""));
    tap_ok(get_is_text(db, BUCKET, "empty", ""), "an empty value is a value");
    CHECK_OK(del_text(db, BUCKET, "empty"));
}

static void test_one_byte_keys(rw_db *db)
{
    rw_cursor *cursor = NULL;
    int seen = 0;
    for (int i = 255; i >= 0; i--) {
        uint8_t key = (uint8_t)i, value[2] = {(uint8_t)~key, key};
        CHECK_OK(rw_put(db, BUCKET, slice_bytes(&key, 1), slice_bytes(value, 2), RW_ASYNC));
    }
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    while (rw_cursor_next(cursor) == 0) {
        rw_slice key = NO_KEY, value = NO_KEY;
        uint8_t want = (uint8_t)seen, want_value[2] = {(uint8_t)~want, want};
        CHECK_OK(rw_cursor_key(cursor, &key));
        CHECK_OK(rw_cursor_value(cursor, &value));
        if (!TAP_CHECK(slice_same(key, slice_bytes(&want, 1)) && slice_same(value, slice_bytes(want_value, 2)))) break;
        seen++;
    }
    rw_cursor_close(cursor);
    tap_ok(seen == 256, "all 256 keys of one byte, in order (%d)", seen);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 0);
}

static void test_key_lengths(rw_db *db, uint32_t page_size)
{
    size_t max = rw_key_size_max(page_size);
    char *key = malloc(max + 1);
    if (!TAP_CHECK(key != NULL && max > 0)) return;
    memset(key, 0xff, max + 1);
    for (size_t size = max; size > 0; size = size > 9 ? size - 7 : size - 1)
        CHECK_OK(rw_put(db, BUCKET, slice_bytes(key, size), slice_bytes(&size, sizeof(size)), RW_ASYNC));
    for (size_t size = max; size > 0; size = size > 9 ? size - 7 : size - 1)
        TAP_CHECK(get_is(db, BUCKET, slice_bytes(key, size), slice_bytes(&size, sizeof(size))));
    CHECK_CODE(rw_put(db, BUCKET, slice_bytes(key, max + 1), slice_text("v"), RW_ASYNC), RW_ETOOBIG);
    int code = get_code(db, BUCKET, slice_bytes(key, max + 1));
    TAP_CHECK(code == RW_ETOOBIG || code == RW_ENOTFOUND);
    code = rw_del(db, BUCKET, slice_bytes(key, max + 1), RW_ASYNC);
    TAP_CHECK(code == RW_ETOOBIG || code == RW_ENOTFOUND);
    TAP_CHECK(get_is(db, BUCKET, slice_bytes(key, max), slice_bytes(&max, sizeof(max))));
    free(key);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    tap_ok(count_keys(db, BUCKET) == 0, "keys of 1 to %zu bytes; one more is RW_ETOOBIG", max);
}

/* Every string over {00, 61, ff} of up to 5 bytes: prefixes, zeros at the end, high bytes. */
static size_t make_ordered_keys(uint8_t keys[][8], size_t sizes[])
{
    static const uint8_t letters[3] = {0x00, 0x61, 0xff};
    size_t count = 0;
    for (size_t length = 1; length <= 5; length++) {
        size_t words = 1;
        for (size_t i = 0; i < length; i++) words *= 3;
        for (size_t word = 0; word < words; word++, count++) {
            size_t rest = word;
            for (size_t i = 0; i < length; i++, rest /= 3) keys[count][i] = letters[rest % 3];
            sizes[count] = length;
        }
    }
    return count;
}

static void test_order(rw_db *db)
{
    static uint8_t keys[400][8];
    static size_t sizes[400];
    size_t count = make_ordered_keys(keys, sizes), seen = 0;
    uint8_t previous[8] = {0};
    size_t previous_size = 0;
    rw_cursor *cursor = NULL;
    for (size_t i = 0; i < count; i++)
        CHECK_OK(rw_put(db, BUCKET, slice_bytes(keys[i], sizes[i]), slice_bytes(&i, sizeof(i)), RW_ASYNC));
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    for (; rw_cursor_next(cursor) == 0; seen++) {
        rw_slice key = NO_KEY;
        CHECK_OK(rw_cursor_key(cursor, &key));
        if (!TAP_CHECK(key.size >= 1 && key.size <= 5)) break;
        if (!TAP_CHECK(slice_compare(slice_bytes(previous, previous_size), key) < 0)) break;
        memcpy(previous, key.data, key.size);
        previous_size = key.size;
    }
    rw_cursor_close(cursor);
    for (size_t i = 0; i < count; i++) TAP_CHECK(get_is(db, BUCKET, slice_bytes(keys[i], sizes[i]), slice_bytes(&i, sizeof(i))));
    tap_ok(seen == count, "unsigned byte order, prefixes first: %zu of %zu keys", seen, count);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
}

static void fill_letters(rw_db *db)
{
    for (char c = 'a'; c <= 'z'; c++) {
        char key[2] = {c, 0};
        CHECK_OK(put_text(db, BUCKET, key, key));
    }
}

static void test_delete_range(rw_db *db)
{
    fill_letters(db);
    CHECK_CODE(rw_delete_range(db, BUCKET, slice_text("z"), slice_text("a"), RW_ASYNC), RW_EINVAL);
    TAP_CHECK(count_keys(db, BUCKET) == 26);
    CHECK_OK(rw_delete_range(db, BUCKET, slice_text("m"), slice_text("m"), RW_ASYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 26);
    CHECK_OK(rw_delete_range(db, BUCKET, slice_text("ca"), slice_text("cz"), RW_ASYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 26);
    CHECK_OK(rw_delete_range(db, BUCKET, slice_text("c"), slice_text("e"), RW_SYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 24);
    TAP_CHECK(get_is_text(db, BUCKET, "b", "b") && get_is_text(db, BUCKET, "e", "e"));
    CHECK_CODE(get_code(db, BUCKET, slice_text("c")), RW_ENOTFOUND);
    CHECK_CODE(get_code(db, BUCKET, slice_text("d")), RW_ENOTFOUND);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, slice_text("b"), RW_ASYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 23 && get_is_text(db, BUCKET, "b", "b"));
    CHECK_OK(rw_delete_range(db, BUCKET, slice_text("y"), NO_KEY, RW_ASYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 21 && get_is_text(db, BUCKET, "x", "x"));
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 0);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    fill_letters(db);
    CHECK_OK(rw_delete_range(db, BUCKET, slice_text("a"), slice_text("zz"), RW_ASYNC));
    tap_ok(count_keys(db, BUCKET) == 0, "delete_range: half open, open ends, empty, reversed");
}

/* A range over many pages, with neighbours that must stay. */
static void test_delete_range_big(rw_db *db)
{
    char key[16], value[200];
    memset(value, 'v', sizeof(value));
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "%08d", i);
        CHECK_OK(rw_put(db, BUCKET, slice_text(key), slice_bytes(value, sizeof(value)), RW_ASYNC));
    }
    CHECK_OK(rw_delete_range(db, BUCKET, slice_text("00000007"), slice_text("00004990"), RW_ASYNC));
    TAP_CHECK(count_keys(db, BUCKET) == 17);
    TAP_CHECK(get_code(db, BUCKET, slice_text("00000006")) == 0 && get_code(db, BUCKET, slice_text("00004990")) == 0);
    TAP_CHECK(get_code(db, BUCKET, slice_text("00000007")) == RW_ENOTFOUND);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    tap_ok(count_keys(db, BUCKET) == 0, "delete_range over many pages");
}

typedef struct {
    int count;
    int stop_after;
    char names[8][RW_BUCKET_NAME_MAX + 1];
    rw_bucket buckets[8];
} bucket_names;

static int note_bucket(void *arg, const char *name, rw_bucket bucket)
{
    bucket_names *names = arg;
    if (names->count < 8) {
        snprintf(names->names[names->count], sizeof(names->names[0]), "%s", name);
        names->buckets[names->count] = bucket;
    }
    names->count++;
    return names->count == names->stop_after ? 77 : 0;
}

static void test_bucket_names(rw_db *db)
{
    char longest[RW_BUCKET_NAME_MAX + 2];
    rw_bucket bucket = 4242, same = 0;
    memset(longest, 'n', sizeof(longest));
    longest[RW_BUCKET_NAME_MAX + 1] = 0;
    CHECK_CODE(rw_bucket_open(db, "absent", 0, &bucket), RW_ENOTFOUND);
    CHECK_CODE(rw_bucket_open(db, "", RW_CREATE, &bucket), RW_EINVAL);
    int code = rw_bucket_open(db, longest, RW_CREATE, &bucket);
    TAP_CHECK(code == RW_EINVAL || code == RW_ETOOBIG);
    CHECK_CODE(rw_bucket_open(db, "flags", 2, &bucket), RW_EINVAL);
    TAP_CHECK(bucket == 4242);
    longest[RW_BUCKET_NAME_MAX] = 0;
    CHECK_OK(rw_bucket_open(db, longest, RW_CREATE, &bucket));
    TAP_CHECK(bucket != 4242 && bucket != RW_DEFAULT_BUCKET);
    CHECK_OK(rw_bucket_open(db, longest, 0, &same));
    TAP_CHECK(same == bucket);
    CHECK_OK(rw_bucket_open(db, longest, RW_CREATE, &same));
    TAP_CHECK(same == bucket);
    CHECK_OK(rw_bucket_open(db, "default", 0, &same));
    TAP_CHECK(same == RW_DEFAULT_BUCKET);
    CHECK_OK(rw_bucket_drop(db, bucket));
    CHECK_CODE(rw_bucket_open(db, longest, 0, &same), RW_ENOTFOUND);
    tap_ok(true, "bucket names of 1 to 255 bytes");
}

static void test_bucket_list(rw_db *db)
{
    static const char *want[4] = {"Zoo", "alpha", "default", "zeta"};
    bucket_names names = {0};
    rw_bucket zeta = 0, alpha = 0, zoo = 0;
    CHECK_OK(rw_bucket_open(db, "zeta", RW_CREATE, &zeta));
    CHECK_OK(rw_bucket_open(db, "alpha", RW_CREATE, &alpha));
    CHECK_OK(rw_bucket_open(db, "Zoo", RW_CREATE, &zoo));
    CHECK_OK(rw_bucket_list(db, note_bucket, &names));
    TAP_CHECK(names.count == 4);
    for (int i = 0; i < 4; i++) TAP_CHECK(strcmp(names.names[i], want[i]) == 0);
    TAP_CHECK(names.buckets[0] == zoo && names.buckets[1] == alpha && names.buckets[2] == BUCKET && names.buckets[3] == zeta);
    names = (bucket_names){.stop_after = 2};
    CHECK_CODE(rw_bucket_list(db, note_bucket, &names), 77);
    TAP_CHECK(names.count == 2);
    rw_stats_t stats;
    CHECK_OK(rw_stats(db, &stats));
    tap_ok(stats.buckets == 4, "bucket_list: order of name, stops when told (%d)", (int)stats.buckets);
    CHECK_OK(rw_bucket_drop(db, zeta));
    CHECK_OK(rw_bucket_drop(db, alpha));
    CHECK_OK(rw_bucket_drop(db, zoo));
}

static void test_bucket_keyspaces(rw_db *db)
{
    rw_bucket one = 0, two = 0;
    CHECK_OK(rw_bucket_open(db, "one", RW_CREATE, &one));
    CHECK_OK(rw_bucket_open(db, "two", RW_CREATE, &two));
    CHECK_OK(put_text(db, one, "k", "in one"));
    CHECK_OK(put_text(db, two, "k", "in two"));
    CHECK_CODE(get_code(db, BUCKET, slice_text("k")), RW_ENOTFOUND);
    TAP_CHECK(get_is_text(db, one, "k", "in one") && get_is_text(db, two, "k", "in two"));
    CHECK_OK(rw_delete_range(db, one, NO_KEY, NO_KEY, RW_ASYNC));
    TAP_CHECK(get_code(db, one, slice_text("k")) == RW_ENOTFOUND && get_is_text(db, two, "k", "in two"));
    CHECK_OK(rw_bucket_drop(db, two));
    CHECK_CODE(get_code(db, two, slice_text("k")), RW_ENOTFOUND);
    CHECK_CODE(put_text(db, two, "k", "v"), RW_ENOTFOUND);
    CHECK_CODE(del_text(db, two, "k"), RW_ENOTFOUND);
    CHECK_CODE(rw_delete_range(db, two, NO_KEY, NO_KEY, RW_ASYNC), RW_ENOTFOUND);
    CHECK_CODE(rw_bucket_drop(db, two), RW_ENOTFOUND);
    CHECK_OK(rw_bucket_open(db, "two", RW_CREATE, &two));
    TAP_CHECK(count_keys(db, two) == 0);
    CHECK_CODE(rw_bucket_drop(db, RW_DEFAULT_BUCKET), RW_EINVAL);
    CHECK_CODE(rw_bucket_drop(db, 0), RW_ENOTFOUND);
    CHECK_CODE(rw_bucket_drop(db, 999999), RW_ENOTFOUND);
    CHECK_CODE(put_text(db, 999999, "k", "v"), RW_ENOTFOUND);
    CHECK_CODE(get_code(db, 999999, slice_text("k")), RW_ENOTFOUND);
    CHECK_OK(rw_bucket_drop(db, one));
    CHECK_OK(rw_bucket_drop(db, two));
    tap_ok(true, "buckets are keyspaces of their own, gone when dropped, empty when made again");
}

/* So many buckets, with keys, that their names do not fit one page. */
static void test_many_buckets(rw_db *db)
{
    enum { MANY = 300 };
    static rw_bucket buckets[MANY];
    char name[64];
    bucket_names names = {0};
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "a bucket with a rather long name, number %04d", i);
        if (!CHECK_OK(rw_bucket_open(db, name, RW_CREATE, &buckets[i]))) return;
        CHECK_OK(put_text(db, buckets[i], "name", name));
    }
    CHECK_OK(rw_bucket_list(db, note_bucket, &names));
    TAP_CHECK(names.count == MANY + 1);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "a bucket with a rather long name, number %04d", i);
        TAP_CHECK(get_is_text(db, buckets[i], "name", name) && count_keys(db, buckets[i]) == 1);
    }
    for (int i = 0; i < MANY; i++) CHECK_OK(rw_bucket_drop(db, buckets[i]));
    names = (bucket_names){0};
    CHECK_OK(rw_bucket_list(db, note_bucket, &names));
    tap_ok(names.count == 1, "%d buckets made, listed and dropped", MANY);
}

static void test_flush(rw_db *db)
{
    rw_stats_t before, after;
    for (int i = 0; i < 100; i++) CHECK_OK(put_text(db, BUCKET, "flushed", "value"));
    CHECK_OK(rw_stats(db, &before));
    CHECK_OK(rw_flush(db));
    CHECK_OK(rw_stats(db, &after));
    TAP_CHECK(after.log_lsn_durable >= before.log_lsn_end);
    CHECK_OK(rw_put(db, BUCKET, slice_text("flushed"), slice_text("sync"), RW_SYNC));
    CHECK_OK(rw_stats(db, &after));
    TAP_CHECK(after.log_lsn_durable > before.log_lsn_durable && after.commits >= before.commits + 1);
    tap_ok(after.log_lsn_end >= after.log_lsn_durable, "rw_flush and RW_SYNC move the durable mark");
    CHECK_OK(del_text(db, BUCKET, "flushed"));
}

static void test_page_size(uint32_t page_size)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    options.page_size = page_size;
    options.cache_bytes = page_size * UINT64_C(1024);
    if (!TAP_CHECK(dir_make(dir, "basic"))) return;
    tap_diag("page size %u", (unsigned)page_size);
    rw_db *db = open_or_exit(dir, &options);
    test_put_get_del(db);
    test_get_sizes(db);
    test_empty_value(db);
    test_one_byte_keys(db);
    test_key_lengths(db, page_size);
    test_order(db);
    test_delete_range(db);
    test_delete_range_big(db);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    for (uint32_t page_size = 4096; page_size <= 65536; page_size *= 2) test_page_size(page_size);
    if (!dir_make(dir, "basic")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    test_bucket_names(db);
    test_bucket_list(db);
    test_bucket_keyspaces(db);
    test_many_buckets(db);
    test_flush(db);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    return tap_done();
}
