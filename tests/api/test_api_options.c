/* Options as a struct and as text: defaults, every limit, every bad value named, none of them opening anything. */
#include <stdio.h>

#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

static void test_defaults(void)
{
    rw_options options;
    memset(&options, 0xaa, sizeof(options));
    rw_options_init(&options);
    TAP_CHECK(options.struct_size == sizeof(options));
    TAP_CHECK(options.cache_bytes == 256 * MIB);
    TAP_CHECK(options.page_size == 4096);
    TAP_CHECK(options.workers == 0);
    TAP_CHECK(options.io_backend != NULL && strcmp(options.io_backend, "auto") == 0);
    TAP_CHECK(options.log_bytes == 64 * MIB);
    TAP_CHECK(options.async_delay_ms == 50);
    TAP_CHECK(options.partition_bytes == 0);
    TAP_CHECK(options.create == 1 && options.read_only == 0);
    TAP_CHECK(options.logger == NULL && options.logger_arg == NULL);
    TAP_CHECK(options.log_sync != NULL && strcmp(options.log_sync, "auto") == 0);
    rw_options_init(NULL);
    tap_ok(true, "rw_options_init gives the documented defaults");
}

static void test_text_good(void)
{
    rw_options options;
    rw_options_init(&options);
    CHECK_OK(rw_options_set(&options, "cache", "1G"));
    TAP_CHECK(options.cache_bytes == 1024 * MIB);
    CHECK_OK(rw_options_set(&options, "cache_bytes", "2048K"));
    TAP_CHECK(options.cache_bytes == 2 * MIB);
    CHECK_OK(rw_options_set(&options, "cache", "1048576"));
    TAP_CHECK(options.cache_bytes == MIB);
    CHECK_OK(rw_options_set(&options, "page_size", "64K"));
    TAP_CHECK(options.page_size == 65536);
    CHECK_OK(rw_options_set(&options, "page_size", "8192"));
    TAP_CHECK(options.page_size == 8192);
    CHECK_OK(rw_options_set(&options, "workers", "64"));
    TAP_CHECK(options.workers == 64);
    CHECK_OK(rw_options_set(&options, "workers", "0"));
    TAP_CHECK(options.workers == 0);
    CHECK_OK(rw_options_set(&options, "log", "16M"));
    TAP_CHECK(options.log_bytes == 16 * MIB);
    CHECK_OK(rw_options_set(&options, "log_bytes", "32M"));
    TAP_CHECK(options.log_bytes == 32 * MIB);
    CHECK_OK(rw_options_set(&options, "async_delay_ms", "60000"));
    TAP_CHECK(options.async_delay_ms == 60000);
    CHECK_OK(rw_options_set(&options, "partition", "64M"));
    TAP_CHECK(options.partition_bytes == 64 * MIB);
    CHECK_OK(rw_options_set(&options, "partition_bytes", "0"));
    TAP_CHECK(options.partition_bytes == 0);
    CHECK_OK(rw_options_set(&options, "create", "0"));
    TAP_CHECK(options.create == 0);
    CHECK_OK(rw_options_set(&options, "read_only", "1"));
    tap_ok(options.read_only == 1, "options as text, by their short names and by the fields' names");
}

/* What two options together must be is asked at rw_open only, so that they can be set in any order. */
static void test_together(const char *dir)
{
    rw_options options;
    rw_db *db = NULL;
    rw_options_init(&options);
    CHECK_OK(rw_options_set(&options, "snapshot_bytes", "1G"));
    CHECK_CODE(rw_open(dir, &options, &db), RW_EINVAL);
    tap_ok(strstr(rw_last_error(NULL), "snapshot_bytes_max") != NULL, "more for old values than half of the cache: %s", rw_last_error(NULL));
    CHECK_OK(rw_options_set(&options, "cache", "4G"));
    CHECK_OK(rw_options_set(&options, "snapshot_bytes", "0"));
    CHECK_OK(rw_options_set(&options, "cache", "16000G"));
    CHECK_CODE(rw_open(dir, &options, &db), RW_EINVAL);
    tap_ok(strstr(rw_last_error(NULL), "cache_bytes") != NULL && strstr(rw_last_error(NULL), "memory") != NULL, "more cache than the machine has memory: %s",
           rw_last_error(NULL));
}

static void test_text_backend(void)
{
    static const char *names[3] = {"psync", "uring", "auto"};
    rw_options options;
    rw_options_init(&options);
    for (int i = 0; i < 3; i++) {
        char copy[16];
        snprintf(copy, sizeof(copy), "%s", names[i]);
        CHECK_OK(rw_options_set(&options, "io_backend", copy));
        memset(copy, 'x', sizeof(copy));
        tap_ok(strcmp(options.io_backend, names[i]) == 0 || options.io_backend == copy, "io_backend %s", names[i]);
    }
}

static void test_text_bad(void)
{
    static const char *bad[][2] = {
        {"cache", ""},           {"cache", "abc"},        {"cache", "M"},          {"cache", "12Q"},
        {"cache", "-1"},         {"cache", "1023K"},      {"cache", "0"},          {"cache", "99999999999999999999"},
        {"cache", "17179869184G"}, {"cache", "256M256M"}, {"cache", "1MM"},        {"page_size", "5000"},
        {"page_size", "2048"},   {"page_size", "128K"},   {"page_size", "0"},      {"page_size", "4294971392"},
        {"workers", "65"},       {"workers", "-1"},       {"workers", "two"},      {"workers", "4294967297"},
        {"io_backend", "bogus"}, {"io_backend", ""},      {"log", "0"},            {"log", "x"},
        {"async_delay_ms", "0"}, {"async_delay_ms", "60001"}, {"async_delay_ms", "5s"}, {"create", "2"},
        {"create", "yes"},       {"read_only", "2"},      {"read_only", "-0x1"},   {"partition", "big"},
        {"no_such_option", "1"}, {"", "1"},               {"Cache", "1M"},         {"logger", "1"},
        {"struct_size", "1"},    {"log_sync", "fsync"},   {"log_sync", ""},        {"log_sync", "DSYNC"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rw_options options, before;
        rw_options_init(&options);
        memcpy(&before, &options, sizeof(options));
        int code = rw_options_set(&options, bad[i][0], bad[i][1]);
        const char *words = rw_last_error(NULL);
        bool named = strstr(words, bad[i][0]) != NULL;
        tap_ok(code == RW_EINVAL && named && memcmp(&before, &options, sizeof(options)) == 0,
               "%s=\"%s\" is refused by name: %d, %s", bad[i][0], bad[i][1], code, words);
    }
}

static void test_text_null(void)
{
    rw_options options;
    rw_options_init(&options);
    CHECK_CODE(rw_options_set(NULL, "cache", "1M"), RW_EINVAL);
    CHECK_CODE(rw_options_set(&options, NULL, "1M"), RW_EINVAL);
    CHECK_CODE(rw_options_set(&options, "cache", NULL), RW_EINVAL);
    tap_ok(options.cache_bytes == 256 * MIB, "rw_options_set refuses NULL");
}

/* One bad field: rw_open must say RW_EINVAL, name the option by its text name or tell of rw_options_init, leave *db alone and make nothing. */
static void refuse(const rw_options *options, const char *name, const char *said, const char *what)
{
    char parent[DIRS_PATH_MAX], dir[DIRS_PATH_MAX];
    rw_db *db = (rw_db *)(void *)parent;
    if (!dir_make(parent, "options")) return;
    path_join(dir, parent, "db");
    int code = rw_open(dir, options, &db);
    const char *words = rw_last_error(NULL);
    bool named = strstr(words, said) != NULL;
    tap_ok(code == RW_EINVAL && named && db == (rw_db *)(void *)parent, "%s %s is refused by name: %d, %s", name, what, code,
           code == 0 ? "" : words);
    if (code == 0) rw_close(db);
    TAP_CHECK(file_size(dir) == -1);
    dir_remove(parent);
}

#define REFUSE(field, said, value)                 \
    do {                                           \
        rw_options options;                        \
        rw_options_init(&options);                 \
        options.field = (value);                   \
        refuse(&options, #field, said, #value);    \
    } while (0)

static void test_struct_bad(void)
{
    REFUSE(struct_size, "rw_options_init", 0);
    REFUSE(struct_size, "rw_options_init", 8);
    REFUSE(cache_bytes, "cache", 0);
    REFUSE(cache_bytes, "cache", MIB - 1);
    REFUSE(page_size, "page_size", 0);
    REFUSE(page_size, "page_size", 2048);
    REFUSE(page_size, "page_size", 4097);
    REFUSE(page_size, "page_size", 12288);
    REFUSE(page_size, "page_size", 131072);
    REFUSE(workers, "workers", 65);
    REFUSE(workers, "workers", UINT32_MAX);
    REFUSE(io_backend, "io_backend", "bogus");
    REFUSE(log_sync, "log_sync", "always");
    REFUSE(log_sync, "log_sync", NULL);
    REFUSE(log_bytes, "log", 0);
    REFUSE(async_delay_ms, "async_delay_ms", 0);
    REFUSE(async_delay_ms, "async_delay_ms", 60001);
    REFUSE(create, "create", 2);
    REFUSE(read_only, "read_only", 2);
}

static void test_open_null(void)
{
    char dir[DIRS_PATH_MAX];
    rw_db *db = (rw_db *)(void *)dir;
    if (!dir_make(dir, "options")) return;
    CHECK_CODE(rw_open(NULL, NULL, &db), RW_EINVAL);
    CHECK_CODE(rw_open(dir, NULL, NULL), RW_EINVAL);
    int code = rw_open("", NULL, &db);
    TAP_CHECK(code == RW_EINVAL || code == RW_ENOENT);
    TAP_CHECK(db == (rw_db *)(void *)dir);
    CHECK_OK(rw_open(dir, NULL, &db));
    rw_stats_t stats;
    CHECK_OK(rw_stats(db, &stats));
    tap_ok(stats.page_size == 4096 && stats.cache_bytes == 256 * MIB && stats.workers >= 1, "NULL options are the defaults");
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

static void backend_works(const char *name)
{
    char dir[DIRS_PATH_MAX];
    rw_stats_t stats;
    rw_db *db = NULL;
    rw_options options = options_small();
    options.io_backend = name;
    if (!dir_make(dir, "options")) return;
    int code = rw_open(dir, &options, &db);
    if (code == RW_ENOTSUP && strcmp(name, "uring") == 0) {
        tap_skip("io_uring is not permitted here");
        return;
    }
    if (!tap_ok(code == 0, "opens with io_backend %s (%d)", name, code)) return;
    CHECK_OK(rw_put(db, BUCKET, slice_text("k"), slice_text("v"), RW_SYNC));
    CHECK_OK(rw_checkpoint(db));
    TAP_CHECK(get_is_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_stats(db, &stats));
    bool asked = strcmp(name, "auto") == 0 || strcmp(stats.io_backend, name) == 0;
    tap_ok(asked || stats.io_backend_note[0] != 0, "stats name the back end: %s %s", stats.io_backend, stats.io_backend_note);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

/* One open: a durable write, and what the figures say of it. */
static rw_stats_t log_sync_open(const char *dir, const char *log_sync, uint32_t read_only)
{
    rw_stats_t stats = {0};
    rw_options options = options_small();
    CHECK_OK(rw_options_set(&options, "log_sync", log_sync));
    options.read_only = read_only;
    rw_db *db = open_or_exit(dir, &options);
    if (read_only == 0) CHECK_OK(rw_put(db, BUCKET, slice_text("k"), slice_text(log_sync), RW_SYNC));
    if (read_only == 0) TAP_CHECK(get_is_text(db, BUCKET, "k", log_sync));
    CHECK_OK(rw_stats(db, &stats));
    CHECK_OK(rw_close(db));
    return stats;
}

/* Measured once, believed from then on; what is asked for counts more. */
static void test_log_sync(void)
{
    char dir[DIRS_PATH_MAX], told[DIRS_PATH_MAX];
    if (!dir_make(dir, "log-sync") || !dir_make(told, "log-sync-told")) return;
    rw_stats_t first = log_sync_open(dir, "auto", 0), again = log_sync_open(dir, "auto", 0), reading = log_sync_open(dir, "auto", 1);
    bool faster = first.log_dsync_ns != 0 && first.log_dsync_ns * 10 < first.log_fdatasync_ns * 9;
    tap_ok(first.log_fdatasync_ns > 0 && strcmp(first.log_sync, faster ? "dsync" : "fdatasync") == 0, "a new database measures: fdatasync %llu ns, dsync %llu ns, so %s",
           (unsigned long long)first.log_fdatasync_ns, (unsigned long long)first.log_dsync_ns, first.log_sync);
    tap_ok(again.log_fdatasync_ns == first.log_fdatasync_ns && again.log_dsync_ns == first.log_dsync_ns && strcmp(again.log_sync, first.log_sync) == 0,
           "the next open believes it");
    tap_ok(reading.log_fdatasync_ns == first.log_fdatasync_ns && strcmp(reading.log_sync, first.log_sync) == 0, "and so does one for reading only");
    rw_stats_t dsync = log_sync_open(told, "dsync", 0), read_only = log_sync_open(told, "auto", 1), fdatasync = log_sync_open(told, "fdatasync", 0);
    tap_ok(strcmp(dsync.log_sync, "dsync") == 0 && dsync.log_fdatasync_ns == 0 && dsync.log_syncs > 0, "a database that is told dsync measures nothing");
    tap_ok(strcmp(read_only.log_sync, "auto") == 0, "so one that only reads it does not know");
    tap_ok(strcmp(fdatasync.log_sync, "fdatasync") == 0 && fdatasync.log_fdatasync_ns == 0, "it may be told fdatasync the next time");
    rw_stats_t later = log_sync_open(told, "auto", 0);
    tap_ok(later.log_fdatasync_ns > 0, "and is measured when it is asked to choose");
    dir_remove(dir);
    dir_remove(told);
}

typedef struct {
    int messages;
    bool newline;
} log_seen;

static void note_message(void *arg, int level, const char *message)
{
    log_seen *seen = arg;
    size_t size = strlen(message);
    __atomic_add_fetch(&seen->messages, 1, __ATOMIC_RELAXED);
    if (size == 0 || message[size - 1] == '\n' || level < RW_LOG_INFO || level > RW_LOG_ERROR)
        __atomic_store_n(&seen->newline, true, __ATOMIC_RELAXED);
}

static void test_logger(void)
{
    char dir[DIRS_PATH_MAX];
    log_seen seen = {0, false};
    rw_options options = options_small();
    options.logger = note_message;
    options.logger_arg = &seen;
    if (!dir_make(dir, "options")) return;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(put_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_close(db));
    tap_ok(!seen.newline, "the logger gets messages without newlines, at known levels (%d)", seen.messages);
    dir_remove(dir);
}

int main(void)
{
    test_defaults();
    test_text_good();
    test_text_backend();
    test_text_bad();
    test_text_null();
    test_struct_bad();
    test_together("options-nowhere");
    test_open_null();
    test_log_sync();
    backend_works("psync");
    backend_works("uring");
    backend_works("auto");
    test_logger();
    return tap_done();
}
