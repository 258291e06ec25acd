/* Opening and closing: persistence, page sizes, worker counts, paths, permissions, read-only. */
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define RECORDS 3000

static void make_record(uint64_t i, uint64_t generation, char key[24], char value[120])
{
    prng random = {i * 1000003 + generation};
    snprintf(key, 24, "key-%012llu", (unsigned long long)(i * 7919 % RECORDS));
    memset(value, (int)('a' + i % 26), 119);
    value[prng_below(&random, 119) + 1] = 0;
}

static void write_records(rw_db *db, uint64_t generation)
{
    char key[24], value[120];
    for (uint64_t i = 0; i < RECORDS; i++) {
        make_record(i, generation, key, value);
        if (!CHECK_OK(put_text(db, BUCKET, key, value))) return;
    }
}

static int wrong_records(rw_db *db, uint64_t generation)
{
    char key[24], value[120];
    int wrong = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        make_record(i, generation, key, value);
        wrong += !get_is_text(db, BUCKET, key, value);
    }
    return wrong + (count_keys(db, BUCKET) != RECORDS);
}

static void test_create_flag(void)
{
    char parent[DIRS_PATH_MAX], dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_db *db = NULL;
    if (!dir_make(parent, "open")) return;
    path_join(dir, parent, "db");
    options.create = 0;
    CHECK_CODE(rw_open(dir, &options, &db), RW_ENOENT);
    TAP_CHECK(strstr(rw_last_error(NULL), dir) != NULL);
    TAP_CHECK(db == NULL && file_size(dir) == -1);
    CHECK_CODE(rw_verify(dir, ignore_finding, NULL), RW_ENOENT);
    TAP_CHECK(mkdir(dir, 0700) == 0);
    CHECK_CODE(rw_open(dir, &options, &db), RW_ENOENT);
    options.create = 1;
    CHECK_OK(rw_open(dir, &options, &db));
    CHECK_OK(put_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_close(db));
    options.create = 0;
    CHECK_OK(rw_open(dir, &options, &db));
    tap_ok(get_is_text(db, BUCKET, "k", "v"), "create 0 opens what is there and makes nothing");
    CHECK_OK(rw_close(db));
    dir_remove(parent);
}

static void test_bad_paths(void)
{
    char parent[DIRS_PATH_MAX], dir[DIRS_PATH_MAX], file[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_db *db = NULL;
    if (!dir_make(parent, "open")) return;
    path_join(dir, parent, "missing/db");
    CHECK_CODE(rw_open(dir, &options, &db), RW_ENOENT);
    tap_ok(strstr(rw_last_error(NULL), "missing/db") != NULL, "missing parent: %s", rw_last_error(NULL));
    path_join(file, parent, "file");
    FILE *made = fopen(file, "w");
    if (!TAP_CHECK(made != NULL)) return;
    fputs("not a directory\n", made);
    fclose(made);
    int code = rw_open(file, &options, &db);
    tap_ok(code < 0 && strstr(rw_last_error(NULL), file) != NULL, "not a directory: %d, %s", code, rw_last_error(NULL));
    path_join(dir, file, "db");
    code = rw_open(dir, &options, &db);
    tap_ok(code < 0 && strstr(rw_last_error(NULL), file) != NULL, "below a file: %d, %s", code, rw_last_error(NULL));
    TAP_CHECK(file_size(file) == 16);
    TAP_CHECK(db == NULL);
    dir_remove(parent);
}

static int open_without_permission(void *arg)
{
    const char *dir = arg;
    rw_options options = options_small();
    rw_db *db = NULL;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 2;
    if (access(dir, R_OK | W_OK) == 0) return 2;
    if (!CHILD_CODE(rw_open(dir, &options, &db), RW_EACCESS)) return 1;
    return CHILD_CHECK(strstr(rw_last_error(NULL), dir) != NULL) && CHILD_CHECK(db == NULL) ? 0 : 1;
}

static void test_no_permission(void)
{
    char parent[DIRS_PATH_MAX], dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(parent, "open")) return;
    chmod(parent, 0755);
    path_join(dir, parent, "db");
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(rw_close(db));
    chmod(dir, 0000);
    int code = child_run(open_without_permission, dir, 20);
    chmod(dir, 0700);
    if (code == 2) tap_skip("this user may read everything");
    else tap_ok(code == 0, "no permission is RW_EACCESS: %d %s", code, child_said());
    dir_remove(parent);
}

static void test_page_sizes(void)
{
    for (uint32_t page_size = 4096; page_size <= 65536; page_size *= 2) {
        char dir[DIRS_PATH_MAX];
        rw_options options = options_small();
        rw_stats_t stats = {0};
        if (!dir_make(dir, "open")) return;
        options.page_size = page_size;
        options.cache_bytes = page_size * UINT64_C(1024);
        rw_db *db = open_or_exit(dir, &options);
        write_records(db, page_size);
        CHECK_OK(rw_close(db));
        options.page_size = page_size == 4096 ? 16384 : 4096;
        db = open_or_exit(dir, &options);
        CHECK_OK(rw_stats(db, &stats));
        TAP_CHECK(stats.page_size == page_size);
        tap_ok(wrong_records(db, page_size) == 0, "page size %u stays when opened with option %u", (unsigned)stats.page_size,
               (unsigned)options.page_size);
        CHECK_OK(rw_close(db));
        CHECK_OK(rw_verify(dir, note_finding, NULL));
        dir_remove(dir);
    }
    TAP_CHECK(rw_key_size_max(0) == 0 && rw_key_size_max(2048) == 0 && rw_key_size_max(5000) == 0);
    TAP_CHECK(rw_key_size_max(131072) == 0 && rw_key_size_max(UINT32_MAX) == 0);
    for (uint32_t page_size = 8192; page_size <= 65536; page_size *= 2)
        TAP_CHECK(rw_key_size_max(page_size) >= rw_key_size_max(page_size / 2) && rw_key_size_max(page_size) < page_size);
}

static void test_persistence(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_bucket bucket = 0, same = 0;
    if (!dir_make(dir, "open")) return;
    for (uint64_t round = 0; round < 4; round++) {
        rw_db *db = open_or_exit(dir, &options);
        if (round > 0) TAP_CHECK(wrong_records(db, round - 1) == 0);
        write_records(db, round);
        CHECK_OK(rw_bucket_open(db, "kept", RW_CREATE, &same));
        if (round > 0) TAP_CHECK(get_is_text(db, same, "round", round % 2 ? "even" : "odd"));
        CHECK_OK(put_text(db, same, "round", round % 2 ? "odd" : "even"));
        bucket = same;
        if (round == 2) CHECK_OK(rw_checkpoint(db));
        CHECK_OK(rw_close(db));
    }
    rw_db *db = open_or_exit(dir, &options);
    rw_stats_t stats;
    CHECK_OK(rw_stats(db, &stats));
    TAP_CHECK(stats.recovery_records == 0);
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    CHECK_OK(rw_bucket_drop(db, bucket));
    CHECK_OK(rw_close(db));
    db = open_or_exit(dir, &options);
    TAP_CHECK(count_keys(db, BUCKET) == 0);
    CHECK_CODE(rw_bucket_open(db, "kept", 0, &bucket), RW_ENOTFOUND);
    CHECK_OK(rw_close(db));
    tap_ok(true, "records, buckets and their removal outlive reopening");
    dir_remove(dir);
}

static void test_workers(void)
{
    static const uint32_t workers[] = {1, 2, 3, 8, 2, 1};
    char dir[DIRS_PATH_MAX];
    rw_stats_t stats;
    if (!dir_make(dir, "open")) return;
    for (uint64_t i = 0; i < sizeof(workers) / sizeof(workers[0]); i++) {
        rw_options options = options_small();
        options.workers = workers[i];
        options.partition_bytes = 256 * 1024;
        rw_db *db = open_or_exit(dir, &options);
        CHECK_OK(rw_stats(db, &stats));
        TAP_CHECK(stats.workers == workers[i]);
        if (i > 0) TAP_CHECK(wrong_records(db, i - 1) == 0);
        write_records(db, i);
        TAP_CHECK(wrong_records(db, i) == 0);
        CHECK_OK(rw_close(db));
        CHECK_OK(rw_verify(dir, note_finding, NULL));
        tap_ok(true, "%u workers on the same files", workers[i]);
    }
    dir_remove(dir);
}

static int hold_and_die(void *arg)
{
    rw_options options = options_small();
    rw_db *db = NULL;
    if (!CHILD_CODE(rw_open(arg, &options, &db), 0)) return 1;
    if (!CHILD_CODE(rw_put(db, BUCKET, slice_text("last"), slice_text("words"), RW_SYNC), 0)) return 1;
    kill(getpid(), SIGKILL);
    return 1;
}

static void check_refuses_writes(rw_db *db)
{
    rw_batch *batch = NULL;
    rw_txn *txn = NULL;
    rw_bucket bucket = 0;
    rw_slice key = slice_text("k"), value = slice_text("new");
    CHECK_CODE(rw_put(db, BUCKET, key, value, RW_ASYNC), RW_EREADONLY);
    CHECK_CODE(rw_del(db, BUCKET, key, RW_ASYNC), RW_EREADONLY);
    CHECK_CODE(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC), RW_EREADONLY);
    CHECK_CODE(rw_bucket_open(db, "new", RW_CREATE, &bucket), RW_EREADONLY);
    CHECK_OK(rw_bucket_open(db, "default", RW_CREATE, &bucket));
    CHECK_OK(rw_batch_new(db, &batch));
    int code = rw_batch_put(batch, BUCKET, key, value);
    if (code == 0) code = rw_batch_commit(batch, RW_ASYNC);
    TAP_CHECK(code == RW_EREADONLY);
    rw_batch_free(batch);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    code = rw_txn_put(txn, BUCKET, key, value);
    int end = rw_txn_commit(txn, RW_ASYNC);
    TAP_CHECK(code == RW_EREADONLY || end == RW_EREADONLY);
    rw_stats_t stats;
    CHECK_OK(rw_stats(db, &stats));
    TAP_CHECK(stats.read_only_reason[0] != 0);
}

static void test_read_only(void)
{
    char dir[DIRS_PATH_MAX], copy[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_db *db = NULL;
    if (!dir_make(dir, "open") || !dir_make(copy, "open")) return;
    options.read_only = 1;
    int code = rw_open(dir, &options, &db);
    TAP_CHECK(code == RW_ENOENT || code == RW_EINVAL);
    TAP_CHECK(child_run(hold_and_die, dir, 20) == CHILD_SIGNAL(SIGKILL));
    if (!dir_copy(dir, copy)) return;
    for (int i = 0; i < 2; i++) {
        db = open_or_exit(copy, &options);
        TAP_CHECK(get_is_text(db, BUCKET, "last", "words") && count_keys(db, BUCKET) == 1);
        check_refuses_writes(db);
        TAP_CHECK(get_is_text(db, BUCKET, "last", "words") && count_keys(db, BUCKET) == 1);
        CHECK_OK(rw_close(db));
    }
    tap_ok(dir_same(dir, copy, LOCK_FILE), "read_only replays the log in memory and leaves the files as they were");
    options.read_only = 0;
    db = open_or_exit(copy, &options);
    TAP_CHECK(get_is_text(db, BUCKET, "last", "words"));
    CHECK_OK(put_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    dir_remove(copy);
}

/* Two databases in one process share nothing. */
static void test_two_databases(void)
{
    char a[DIRS_PATH_MAX], b[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(a, "open") || !dir_make(b, "open")) return;
    rw_db *db_a = open_or_exit(a, &options), *db_b = open_or_exit(b, &options);
    CHECK_OK(put_text(db_a, BUCKET, "k", "a"));
    CHECK_OK(put_text(db_b, BUCKET, "k", "b"));
    TAP_CHECK(get_is_text(db_a, BUCKET, "k", "a") && get_is_text(db_b, BUCKET, "k", "b"));
    CHECK_OK(rw_close(db_a));
    TAP_CHECK(get_is_text(db_b, BUCKET, "k", "b"));
    tap_ok(CHECK_OK(rw_close(db_b)), "two databases in one process");
    dir_remove(a);
    dir_remove(b);
}

/* Nothing may be left behind by opening and closing: descriptors, threads. */
static void test_open_many_times(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(dir, "open")) return;
    int before = dup(0);
    close(before);
    for (int i = 0; i < 50; i++) {
        rw_db *db = open_or_exit(dir, &options);
        CHECK_OK(put_text(db, BUCKET, "k", "v"));
        CHECK_OK(rw_close(db));
    }
    int after = dup(0);
    close(after);
    tap_ok(before == after, "50 times open and close leave no file descriptor (%d, %d)", before, after);
    dir_remove(dir);
}

int main(void)
{
    test_no_permission();
    test_create_flag();
    test_bad_paths();
    test_page_sizes();
    test_persistence();
    test_workers();
    test_read_only();
    test_two_databases();
    test_open_many_times();
    return tap_done();
}
