/* Where the system says no: no space, a file size limit, no file descriptors, a read-only file system. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/sample_db.h"

#define NOT_PERMITTED 42
#define VALUE_BYTES 8000
#define KEYS_MAX 40000

/* What each key's put returned; the store is held to exactly that. */
typedef struct {
    char parent[DIRS_PATH_MAX];
    char dir[DIRS_PATH_MAX];
    char filler[DIRS_PATH_MAX];
    uint32_t next;
    bool acknowledged[KEYS_MAX];
} shortage;

static rw_options shortage_options(void)
{
    rw_options options = options_small();
    options.workers = 1;
    return options;
}

static rw_slice number_key(uint32_t number, char key[16])
{
    return slice_bytes(key, (size_t)snprintf(key, 16, "%08u", (unsigned)(number * 7919 % 100000)));
}

static rw_slice number_value(uint32_t number, char value[VALUE_BYTES])
{
    prng random = {number};
    prng_fill(&random, value, VALUE_BYTES);
    return slice_bytes(value, VALUE_BYTES);
}

static int put_next(shortage *self, rw_db *db)
{
    static char value[VALUE_BYTES];
    char key[16];
    uint32_t number = self->next++;
    int code = rw_put(db, BUCKET, number_key(number, key), number_value(number, value), number % 16 == 0 ? RW_SYNC : RW_ASYNC);
    self->acknowledged[number] = code == 0;
    return code;
}

/* Puts until one is refused; returns its code, 0 when none was. */
static int put_until_refused(shortage *self, rw_db *db, uint32_t most)
{
    int code = 0;
    for (uint32_t i = 0; i < most && self->next < KEYS_MAX && code == 0; i++) code = put_next(self, db);
    return code;
}

/* Every step-th key must be there exactly if its put was acknowledged. */
static bool holds_acknowledged(shortage *self, rw_db *db, uint32_t step)
{
    static char value[VALUE_BYTES];
    char key[16];
    for (uint32_t number = 0; number < self->next; number += step) {
        rw_slice name = number_key(number, key);
        bool there = get_is(db, BUCKET, name, number_value(number, value));
        bool gone = !there && get_code(db, BUCKET, name) == RW_ENOTFOUND;
        if (self->acknowledged[number] ? there : gone) continue;
        child_say("put %u of %u was %s, but its key is %s: %s", (unsigned)number, (unsigned)self->next,
                  self->acknowledged[number] ? "acknowledged" : "refused", there ? "there" : gone ? "gone" : "wrong", rw_last_error(db));
        return false;
    }
    return true;
}

static bool make_filler(const char *path, size_t size)
{
    FILE *file = fopen(path, "w");
    char block[4096] = {1};
    bool good = file != NULL;
    for (size_t at = 0; at < size && good; at += sizeof(block)) good = fwrite(block, sizeof(block), 1, file) == 1;
    return file != NULL && fclose(file) == 0 && good;
}

/* Space is there again; the store may need a moment to notice. */
static int put_after_relief(shortage *self, rw_db *db)
{
    int code = 0;
    for (int attempt = 0; attempt < 500; attempt++) {
        code = put_next(self, db);
        if (code == 0) return rw_flush(db);
        usleep(10000);
    }
    return code;
}

static bool reopen_and_check(shortage *self)
{
    rw_options options = shortage_options();
    rw_db *db = NULL;
    if (!CHILD_CODE(rw_open(self->dir, &options, &db), 0)) return false;
    bool good = holds_acknowledged(self, db, 1) && CHILD_CODE(put_next(self, db), 0);
    good = CHILD_CODE(rw_close(db), 0) && good;
    return good && CHILD_CODE(rw_verify(self->dir, ignore_finding, NULL), 0);
}

static bool fill_and_relieve(shortage *self)
{
    rw_options options = shortage_options();
    rw_db *db = NULL;
    if (!CHILD_CODE(rw_open(self->dir, &options, &db), 0)) return false;
    if (!CHILD_CODE(put_until_refused(self, db, KEYS_MAX / 2), RW_ENOSPC)) return false;
    if (!CHILD_CHECK(self->next > 500)) return false;
    for (int i = 0; i < 50; i++) {
        int code = put_next(self, db);
        if (code != 0 && !CHILD_CODE(code, RW_ENOSPC)) return false;
    }
    if (!holds_acknowledged(self, db, 7)) return false;
    unlink(self->filler);
    if (!CHILD_CODE(put_after_relief(self, db), 0) || !CHILD_CODE(put_until_refused(self, db, 100), 0)) return false;
    if (!holds_acknowledged(self, db, 7)) return false;
    if (!CHILD_CODE(put_until_refused(self, db, KEYS_MAX / 2), RW_ENOSPC)) return false;
    int code = rw_close(db);
    return CHILD_CHECK(code == 0 || code == RW_ENOSPC);
}

static int no_space(void *arg)
{
    shortage *self = arg;
    char mount_point[DIRS_PATH_MAX];
    path_join(mount_point, self->parent, "mount");
    if (mkdir(mount_point, 0700) != 0 || !child_own_mounts()) return NOT_PERMITTED;
    if (mount("none", mount_point, "tmpfs", 0, "size=64m") != 0) return NOT_PERMITTED;
    path_join(self->dir, mount_point, "db");
    path_join(self->filler, mount_point, "filler");
    if (!CHILD_CHECK(make_filler(self->filler, 16 * MIB)) || !fill_and_relieve(self)) return 1;
    if (!CHILD_CHECK(mount("none", mount_point, "tmpfs", MS_REMOUNT, "size=256m") == 0)) return 1;
    return reopen_and_check(self) ? 0 : 1;
}

static void run_shortage(int (*fn)(void *), const char *what)
{
    shortage *self = child_shared(sizeof(*self));
    if (!dir_make(self->parent, "limits")) return;
    int code = child_run(fn, self, 120);
    if (code == NOT_PERMITTED) tap_skip("mounts are not permitted here");
    else tap_ok(code == 0, "%s (%u puts): %d %s", what, (unsigned)self->next, code, child_said());
    dir_remove(self->parent);
}

/* No space at all to begin with: nothing half made may stand in the way later. */
static int no_space_to_create(void *arg)
{
    shortage *self = arg;
    char mount_point[DIRS_PATH_MAX];
    rw_options options = shortage_options();
    rw_db *db = NULL;
    path_join(mount_point, self->parent, "mount");
    if (mkdir(mount_point, 0700) != 0 || !child_own_mounts()) return NOT_PERMITTED;
    if (mount("none", mount_point, "tmpfs", 0, "size=128k") != 0) return NOT_PERMITTED;
    path_join(self->dir, mount_point, "db");
    if (!CHILD_CODE(rw_open(self->dir, &options, &db), RW_ENOSPC) || !CHILD_CHECK(db == NULL)) return 1;
    if (!CHILD_CODE(rw_open(self->dir, &options, &db), RW_ENOSPC)) return 1;
    if (!CHILD_CHECK(mount("none", mount_point, "tmpfs", MS_REMOUNT, "size=64m") == 0)) return 1;
    if (!CHILD_CODE(rw_open(self->dir, &options, &db), 0) || !CHILD_CODE(put_until_refused(self, db, 50), 0)) return 1;
    if (!CHILD_CODE(rw_close(db), 0)) return 1;
    return reopen_and_check(self) ? 0 : 1;
}

/* RLIMIT_FSIZE: writes past it fail with EFBIG when SIGXFSZ is ignored. */
static int file_size_limit(void *arg)
{
    shortage *self = arg;
    struct rlimit limit = {24 * MIB, RLIM_INFINITY};
    rw_options options = shortage_options();
    rw_db *db = NULL;
    path_join(self->dir, self->parent, "db");
    signal(SIGXFSZ, SIG_IGN);
    if (!CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0) || !CHILD_CODE(rw_open(self->dir, &options, &db), 0)) return 1;
    int code = put_until_refused(self, db, 8000);
    if (!CHILD_CHECK(code == RW_ENOSPC || code == RW_EIO || code == RW_ETOOBIG) || !holds_acknowledged(self, db, 7)) return 1;
    limit.rlim_cur = RLIM_INFINITY;
    if (!CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0)) return 1;
    if (code == RW_ENOSPC && !CHILD_CODE(put_after_relief(self, db), 0)) return 1;
    rw_close(db);
    return reopen_and_check(self) ? 0 : 1;
}

/* With ever more descriptors, rw_open says RW_EFILES until it succeeds, and leaks none on the way. */
static int few_files(void *arg)
{
    sample_db *sample = arg;
    sample_check check;
    struct rlimit limit;
    rw_db *db = NULL;
    int refused = 0, free_before = dup(0), code = RW_EFILES;
    close(free_before);
    getrlimit(RLIMIT_NOFILE, &limit);
    for (rlim_t files = (rlim_t)free_before; files < (rlim_t)free_before + 64 && code != 0; files++) {
        limit.rlim_cur = files;
        if (!CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0)) return 1;
        code = rw_open(sample->dir, &sample->options, &db);
        if (code == 0) break;
        refused++;
        if (!CHILD_CODE(code, RW_EFILES)) return 1;
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        int free_now = dup(0);
        close(free_now);
        if (!CHILD_CHECK(free_now == free_before)) return 1;
    }
    if (!CHILD_CHECK(code == 0 && refused > 0)) return 1;
    if (!CHILD_CHECK(sample_compare_all(sample, db, &check) == SAMPLE_RIGHT)) return 1;
    return CHILD_CODE(put_text(db, BUCKET, "tail/0000", "v"), 0) && CHILD_CODE(rw_close(db), 0) ? 0 : 1;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_OURS 0      /* a sanitizer's shadow would be counted */
#else
#define MEMORY_IS_OURS 1
#endif

/* The most memory this process had resident so far, in bytes. */
static uint64_t memory_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static bool write_much(rw_db *db)
{
    static char value[VALUE_BYTES];
    rw_batch *batch = NULL;
    char key[16];
    if (!CHILD_CODE(rw_batch_new(db, &batch), 0)) return false;
    for (uint32_t number = 0; number < 15000; number++) {
        if (!CHILD_CODE(rw_batch_put(batch, BUCKET, number_key(number, key), number_value(number, value)), 0)) return false;
        if (number % 20 == 19 && !CHILD_CODE(rw_batch_commit(batch, RW_ASYNC), 0)) return false;
    }
    rw_batch_free(batch);
    return CHILD_CHECK(count_keys(db, BUCKET) == 15000);
}

/* 120 MiB through a store that may use 8: what the process grows by is the limit and a fixed part, not the data. */
static int memory_limit(void *arg)
{
    shortage *self = arg;
    rw_options options = shortage_options();
    rw_db *db = NULL;
    options.cache_bytes = 8 * MIB;
    path_join(self->dir, self->parent, "db");
    uint64_t before = memory_peak();
    if (!CHILD_CODE(rw_open(self->dir, &options, &db), 0) || !write_much(db)) return 1;
    uint64_t grown = memory_peak() - before;
    if (!CHILD_CODE(rw_close(db), 0)) return 1;
    child_say("%llu KiB", (unsigned long long)(grown / 1024));
    return grown <= options.cache_bytes + 16 * MIB ? 0 : 1;
}

static int read_only_mount(void *arg)
{
    sample_db *sample = arg;
    sample_check check;
    rw_db *db = NULL;
    if (!child_own_mounts()) return NOT_PERMITTED;
    if (mount(sample->dir, sample->dir, NULL, MS_BIND, NULL) != 0) return NOT_PERMITTED;
    if (mount(NULL, sample->dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) != 0) return NOT_PERMITTED;
    if (!CHILD_CODE(rw_open(sample->dir, &sample->options, &db), RW_EREADONLY) || !CHILD_CHECK(db == NULL)) return 1;
    sample->options.read_only = 1;
    if (!CHILD_CODE(rw_open(sample->dir, &sample->options, &db), 0)) return 1;
    sample_state state = sample_compare_all(sample, db, &check);
    if (state != SAMPLE_RIGHT) return 1;
    if (!CHILD_CODE(put_text(db, BUCKET, "k", "v"), RW_EREADONLY) || !CHILD_CODE(rw_close(db), 0)) return 1;
    return CHILD_CODE(rw_verify(sample->dir, ignore_finding, NULL), 0) ? 0 : 1;
}

static void test_samples(bool killed)
{
    static sample_db sample;
    const char *how = killed ? "a killed writer's" : "a closed";
    if (!sample_make(&sample, 5, killed)) return;
    int code = child_run(read_only_mount, &sample, 60);
    if (code == NOT_PERMITTED) tap_skip("mounts are not permitted here");
    else tap_ok(code == 0, "%s database on a read-only file system: %d %s", how, code, child_said());
    code = child_run(few_files, &sample, 60);
    tap_ok(code == 0, "%s database with few file descriptors: %d %s", how, code, child_said());
    dir_remove(sample.dir);
}

int main(void)
{
    run_shortage(no_space, "a full file system refuses commits, loses nothing, and takes them again when there is space");
    run_shortage(no_space_to_create, "no space to create a database, then space");
    run_shortage(file_size_limit, "a limit on file sizes refuses commits and loses nothing");
    if (MEMORY_IS_OURS) run_shortage(memory_limit, "memory stays within the limit and a fixed part");
    else tap_skip("memory cannot be measured under a sanitizer");
    test_samples(false);
    test_samples(true);
    return tap_done();
}
