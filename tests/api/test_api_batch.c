/* Batches: order of the writes in one, atomicity over keys and buckets, reuse, refusal, and all-or-nothing across a killed process. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

static int batch_put_text(rw_batch *batch, rw_bucket bucket, const char *key, const char *value)
{
    return rw_batch_put(batch, bucket, slice_text(key), slice_text(value));
}

static int batch_delete_range_text(rw_batch *batch, const char *from, const char *to)
{
    return rw_batch_delete_range(batch, BUCKET, slice_text(from), slice_text(to));
}

static bool absent(rw_db *db, const char *key)
{
    return get_code(db, BUCKET, slice_text(key)) == RW_ENOTFOUND;
}

static void clear_bucket(rw_db *db)
{
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
}

static void test_order_in_batch(rw_db *db)
{
    rw_batch *batch = NULL;
    CHECK_OK(put_text(db, BUCKET, "b", "before"));
    CHECK_OK(put_text(db, BUCKET, "c", "before"));
    CHECK_OK(put_text(db, BUCKET, "d", "before"));
    CHECK_OK(rw_batch_new(db, &batch));
    CHECK_OK(batch_put_text(batch, BUCKET, "a", "first"));
    CHECK_OK(batch_put_text(batch, BUCKET, "a", "second"));
    CHECK_OK(batch_put_text(batch, BUCKET, "b", "gone"));
    CHECK_OK(rw_batch_del(batch, BUCKET, slice_text("b")));
    CHECK_OK(rw_batch_del(batch, BUCKET, slice_text("c")));
    CHECK_OK(batch_put_text(batch, BUCKET, "c", "back"));
    CHECK_OK(rw_batch_del(batch, BUCKET, slice_text("never there")));
    CHECK_OK(rw_batch_del(batch, BUCKET, slice_text("d")));
    CHECK_OK(rw_batch_del(batch, BUCKET, slice_text("d")));
    TAP_CHECK(absent(db, "a") && get_is_text(db, BUCKET, "b", "before") && get_is_text(db, BUCKET, "d", "before"));
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "second") && absent(db, "b") && absent(db, "d"));
    tap_ok(get_is_text(db, BUCKET, "c", "back"), "later writes of a key win, nothing is seen before the commit");
    rw_batch_free(batch);
    clear_bucket(db);
}

static void test_ranges_in_batch(rw_db *db)
{
    rw_batch *batch = NULL;
    for (char c = 'a'; c <= 'j'; c++) CHECK_OK(put_text(db, BUCKET, (char[2]){c, 0}, "old"));
    CHECK_OK(rw_batch_new(db, &batch));
    CHECK_OK(batch_put_text(batch, BUCKET, "bb", "swallowed by the range after it"));
    CHECK_OK(batch_put_text(batch, BUCKET, "z", "outside"));
    CHECK_OK(batch_delete_range_text(batch, "b", "e"));
    CHECK_OK(batch_put_text(batch, BUCKET, "c", "put after the range"));
    CHECK_OK(batch_put_text(batch, BUCKET, "e", "the end is not in it"));
    CHECK_OK(batch_delete_range_text(batch, "g", "h"));
    CHECK_OK(batch_delete_range_text(batch, "q", "q"));
    CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    TAP_CHECK(absent(db, "b") && absent(db, "bb") && absent(db, "d") && absent(db, "g"));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "old") && get_is_text(db, BUCKET, "h", "old") && get_is_text(db, BUCKET, "z", "outside"));
    TAP_CHECK(get_is_text(db, BUCKET, "c", "put after the range") && get_is_text(db, BUCKET, "e", "the end is not in it"));
    TAP_CHECK(count_keys(db, BUCKET) == 8);    /* a c e f h i j z */
    CHECK_OK(rw_batch_delete_range(batch, BUCKET, NO_KEY, NO_KEY));
    CHECK_OK(batch_put_text(batch, BUCKET, "only", "one"));
    CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    tap_ok(count_keys(db, BUCKET) == 1 && get_is_text(db, BUCKET, "only", "one"), "ranges in a batch keep their place among its writes");
    rw_batch_free(batch);
    clear_bucket(db);
}

static void test_reuse(rw_db *db)
{
    rw_batch *batch = NULL;
    CHECK_OK(rw_batch_new(db, &batch));
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    CHECK_OK(batch_put_text(batch, BUCKET, "a", "1"));
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    CHECK_OK(del_text(db, BUCKET, "a"));
    CHECK_OK(batch_put_text(batch, BUCKET, "b", "2"));
    CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    TAP_CHECK(absent(db, "a") && get_is_text(db, BUCKET, "b", "2"));
    CHECK_OK(batch_put_text(batch, BUCKET, "c", "cleared"));
    rw_batch_clear(batch);
    CHECK_OK(batch_put_text(batch, BUCKET, "d", "4"));
    CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    TAP_CHECK(absent(db, "c") && get_is_text(db, BUCKET, "d", "4"));
    CHECK_OK(batch_put_text(batch, BUCKET, "e", "freed"));
    rw_batch_free(batch);
    tap_ok(absent(db, "e") && count_keys(db, BUCKET) == 2, "a batch is empty after a commit or a clear, and freeing commits nothing");
    clear_bucket(db);
}

static void test_buckets(rw_db *db)
{
    rw_bucket one = 0, two = 0, gone = 0;
    rw_batch *batch = NULL;
    CHECK_OK(rw_bucket_open(db, "one", RW_CREATE, &one));
    CHECK_OK(rw_bucket_open(db, "two", RW_CREATE, &two));
    CHECK_OK(rw_bucket_open(db, "gone", RW_CREATE, &gone));
    CHECK_OK(put_text(db, two, "k", "old"));
    CHECK_OK(rw_batch_new(db, &batch));
    CHECK_OK(batch_put_text(batch, BUCKET, "k", "default"));
    CHECK_OK(batch_put_text(batch, one, "k", "one"));
    CHECK_OK(rw_batch_delete_range(batch, two, NO_KEY, NO_KEY));
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "k", "default") && get_is_text(db, one, "k", "one") && count_keys(db, two) == 0);
    CHECK_OK(batch_put_text(batch, one, "k", "must not arrive"));
    int code = batch_put_text(batch, gone, "k", "nor this");
    CHECK_OK(rw_bucket_drop(db, gone));
    TAP_CHECK(code == 0);
    CHECK_CODE(rw_batch_commit(batch, RW_SYNC), RW_ENOTFOUND);
    tap_ok(get_is_text(db, one, "k", "one"), "a batch is atomic over buckets; a dropped bucket in it refuses all of it");
    rw_batch_clear(batch);
    code = batch_put_text(batch, 987654, "k", "v");
    if (code == 0) code = rw_batch_commit(batch, RW_ASYNC);
    TAP_CHECK(code == RW_ENOTFOUND);
    rw_batch_free(batch);
    CHECK_OK(rw_bucket_drop(db, one));
    CHECK_OK(rw_bucket_drop(db, two));
    clear_bucket(db);
}

static void test_refused(rw_db *db)
{
    rw_batch *batch = NULL;
    char key[8] = "key";
    rw_slice bad = slice_bytes(NULL, 2);
    size_t max = rw_key_size_max(4096);
    char *longest = calloc(1, max + 1);
    if (!TAP_CHECK(longest != NULL)) return;
    CHECK_OK(rw_batch_new(db, &batch));
    CHECK_OK(batch_put_text(batch, BUCKET, "kept", "v"));
    CHECK_CODE(rw_batch_put(batch, BUCKET, NO_KEY, slice_text("v")), RW_EINVAL);
    CHECK_CODE(rw_batch_put(batch, BUCKET, bad, slice_text("v")), RW_EINVAL);
    CHECK_CODE(rw_batch_put(batch, BUCKET, slice_text("k"), bad), RW_EINVAL);
    CHECK_CODE(rw_batch_put(batch, BUCKET, slice_bytes(longest, max + 1), slice_text("v")), RW_ETOOBIG);
    CHECK_CODE(rw_batch_put(batch, BUCKET, slice_text("k"), slice_bytes(key, RW_VALUE_SIZE_MAX + 1)), RW_ETOOBIG);
    CHECK_CODE(rw_batch_del(batch, BUCKET, NO_KEY), RW_EINVAL);
    CHECK_CODE(batch_delete_range_text(batch, "b", "a"), RW_EINVAL);
    CHECK_CODE(rw_batch_commit(batch, 2), RW_EINVAL);
    TAP_CHECK(absent(db, "kept"));
    CHECK_OK(rw_batch_put(batch, BUCKET, slice_text(key), slice_text("borrowed")));
    memset(key, 'x', sizeof(key) - 1);
    CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "kept", "v") && get_is_text(db, BUCKET, "key", "borrowed"));
    tap_ok(count_keys(db, BUCKET) == 2, "refused writes leave a batch as it was; what is given is copied");
    rw_batch_free(batch);
    free(longest);
    clear_bucket(db);
}

static void test_big_batch(rw_db *db)
{
    enum { BIG = 20000 };
    rw_batch *batch = NULL;
    char key[24], value[48];
    CHECK_OK(rw_batch_new(db, &batch));
    for (uint64_t i = 0; i < BIG; i++) {
        snprintf(key, sizeof(key), "%010llu", (unsigned long long)(i * 7919 % BIG));
        snprintf(value, sizeof(value), "value of %s", key);
        if (!CHECK_OK(batch_put_text(batch, BUCKET, key, value))) break;
    }
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    TAP_CHECK(count_keys(db, BUCKET) == BIG);
    for (uint64_t i = 0; i < BIG; i += 97) {
        snprintf(key, sizeof(key), "%010llu", (unsigned long long)i);
        snprintf(value, sizeof(value), "value of %s", key);
        TAP_CHECK(get_is_text(db, BUCKET, key, value));
    }
    for (uint64_t i = 0; i < BIG; i++) {
        snprintf(key, sizeof(key), "%010llu", (unsigned long long)i);
        if (!CHECK_OK(rw_batch_del(batch, BUCKET, slice_text(key)))) break;
    }
    CHECK_OK(rw_batch_commit(batch, RW_SYNC));
    tap_ok(count_keys(db, BUCKET) == 0, "a batch of %d writes", BIG);
    rw_batch_free(batch);
}

/* Past the log's and the cache's size a batch may be refused, but never applied in part. */
static void test_huge_batch(rw_db *db)
{
    enum { VALUES = 40, VALUE_BYTES = 512 * 1024 };
    rw_batch *batch = NULL;
    char key[16], *value = calloc(1, VALUE_BYTES);
    int code = 0;
    if (!TAP_CHECK(value != NULL)) return;
    CHECK_OK(rw_batch_new(db, &batch));
    for (int i = 0; i < VALUES && code == 0; i++) {
        snprintf(key, sizeof(key), "%03d", i);
        memset(value, 'A' + i, VALUE_BYTES);
        code = rw_batch_put(batch, BUCKET, slice_text(key), slice_bytes(value, VALUE_BYTES));
    }
    if (code == 0) code = rw_batch_commit(batch, RW_SYNC);
    int64_t keys = count_keys(db, BUCKET);
    tap_ok((code == 0 && keys == VALUES) || ((code == RW_ETOOBIG || code == RW_ENOMEM) && keys == 0),
           "a batch of 20 MiB under an 8 MiB log: %d, %lld keys", code, (long long)keys);
    for (int i = 0; i < VALUES && code == 0; i++) {
        snprintf(key, sizeof(key), "%03d", i);
        memset(value, 'A' + i, VALUE_BYTES);
        TAP_CHECK(get_is(db, BUCKET, slice_text(key), slice_bytes(value, VALUE_BYTES)));
    }
    rw_batch_free(batch);
    free(value);
    clear_bucket(db);
}

#define KILLED_KEYS 40

typedef struct {
    char dir[DIRS_PATH_MAX];
    volatile uint64_t acknowledged;   /* generations committed with RW_SYNC */
} killed_writer;

static int write_generations(void *arg)
{
    killed_writer *writer = arg;
    rw_options options = options_small();
    rw_bucket other = 0;
    rw_db *db = NULL;
    rw_batch *batch = NULL;
    options.partition_bytes = 128 * 1024;
    if (!CHILD_CODE(rw_open(writer->dir, &options, &db), 0) || !CHILD_CODE(rw_bucket_open(db, "other", RW_CREATE, &other), 0)) return 1;
    if (!CHILD_CODE(rw_batch_new(db, &batch), 0)) return 1;
    for (;;) {
        uint64_t generation = writer->acknowledged + 1;
        char key[16];
        for (int i = 0; i < KILLED_KEYS; i++) {
            snprintf(key, sizeof(key), "%02d-%d", i * 37 % KILLED_KEYS, i);
            rw_batch_put(batch, i % 2 ? BUCKET : other, slice_text(key), slice_bytes(&generation, sizeof(generation)));
        }
        if (!CHILD_CODE(rw_batch_commit(batch, RW_SYNC), 0)) return 1;
        writer->acknowledged = generation;
    }
}

/* The one generation that all keys hold; UINT64_MAX when they differ. */
static uint64_t common_generation(rw_db *db, rw_bucket other)
{
    uint64_t common = 0;
    for (int i = 0; i < KILLED_KEYS; i++) {
        char key[16];
        uint64_t generation = 0;
        size_t size = sizeof(generation);
        snprintf(key, sizeof(key), "%02d-%d", i * 37 % KILLED_KEYS, i);
        int code = rw_get(db, i % 2 ? BUCKET : other, slice_text(key), &generation, &size);
        if (code != 0 && code != RW_ENOTFOUND) return UINT64_MAX;
        if (i > 0 && generation != common) return UINT64_MAX;
        common = generation;
    }
    return common;
}

static void kill_one_writer(killed_writer *writer, prng *random)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) _exit(write_generations(writer));
    usleep((useconds_t)(20000 + prng_below(random, 80000)));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    TAP_CHECK(WIFSIGNALED(status));
}

static void test_killed_in_commit(void)
{
    killed_writer *writer = child_shared(sizeof(*writer));
    rw_options options = options_small();
    prng random = {7};
    if (!dir_make(writer->dir, "batch")) return;
    for (int round = 0; round < 8; round++) {
        kill_one_writer(writer, &random);
        rw_bucket other = 0;
        rw_db *db = open_or_exit(writer->dir, &options);
        CHECK_OK(rw_bucket_open(db, "other", RW_CREATE, &other));
        uint64_t recovered = common_generation(db, other), known = writer->acknowledged;
        if (!tap_ok(recovered == known || recovered == known + 1, "killed after batch %llu: found %lld whole", (unsigned long long)known,
                    (long long)recovered))
            break;
        writer->acknowledged = recovered;
        CHECK_OK(rw_close(db));
    }
    dir_remove(writer->dir);
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    test_killed_in_commit();
    options.partition_bytes = 128 * 1024;
    if (!dir_make(dir, "batch")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    test_order_in_batch(db);
    test_ranges_in_batch(db);
    test_reuse(db);
    test_buckets(db);
    test_refused(db);
    test_big_batch(db);
    test_huge_batch(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    return tap_done();
}
