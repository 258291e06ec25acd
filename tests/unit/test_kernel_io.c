/* The back ends for real files, each through the same tests, in a directory under $TMPDIR: files, names, the lock, which back end is chosen. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/support/no_uring.h"
#include "tests/unit/kernel_io_test.h"

/* ---- files ---- */

static void test_file_open(kio *k)
{
    kio_file *file = NULL;
    char path[DIRS_PATH_MAX];
    path_join(path, dir, "opened");
    tap_ok(kio_file_open(k, path, 0, &file) == RW_ENOENT && file == NULL && sentence_has(path), "%s: no such file", backend);
    TAP_CHECK(kio_file_open(k, path, KIO_CREATE | KIO_EXCLUSIVE, &file) == 0);
    tap_ok(strcmp(kio_file_path(file), path) == 0 && kio_file_path(file) != path, "%s: a file knows its path", backend);
    tap_ok(!kio_file_is_direct(k, file), "%s: not direct unless asked for", backend);
    tap_ok((fcntl(posix_file_fd(file), F_GETFL) & O_NONBLOCK) == 0, "%s: an open file's transfers wait", backend);
    kio_file_close(k, file);
    file = NULL;
    tap_ok(kio_file_open(k, path, KIO_CREATE | KIO_EXCLUSIVE, &file) == RW_EEXIST && file == NULL, "%s: exclusive creation", backend);
    TAP_CHECK(kio_file_open(k, path, KIO_CREATE, &file) == 0);
    kio_file_close(k, file);

    TAP_CHECK(kio_file_open(k, path, KIO_READ_ONLY, &file) == 0);
    char byte = 'x';
    tap_ok(kio_file_write(k, file, &byte, 1, 0) == RW_EIO && sentence_has("errno 9"), "%s: a read-only file takes no write", backend);
    kio_file_close(k, file);
    tap_ok(kio_file_open(k, dir, KIO_READ_ONLY, &file) == RW_EINVAL && sentence_has("regular"), "%s: a directory is no file", backend);
    path_join(path, dir, "pipe");
    TAP_CHECK(mkfifo(path, 0600) == 0);
    tap_ok(kio_file_open(k, path, KIO_READ_ONLY, &file) == RW_EINVAL && sentence_has("regular"), "%s: a pipe is no file", backend);
    TAP_CHECK(unlink(path) == 0);
    path_join(path, dir, "opened/below");
    tap_ok(kio_file_open(k, path, KIO_CREATE, &file) == RW_EIO && sentence_has("errno 20"), "%s: a file is no directory", backend);
}

static int open_as_nobody(void *arg)
{
    const char *path = arg;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 2;
    kio *k = backend_open();
    kio_file *file = NULL;
    int code = kio_file_open(k, path, 0, &file);
    bool good = CHILD_CHECK(code == RW_EACCESS) && CHILD_CHECK(strstr(rw_error_text(), path) != NULL);
    kio_close(k);
    return !good;
}

static void test_file_access(kio *k)
{
    char path[DIRS_PATH_MAX];
    path_join(path, dir, "forbidden");
    kio_file_close(k, file_make(k, "forbidden", 0));
    TAP_CHECK(chmod(path, 0) == 0);
    tap_ok(child_run(open_as_nobody, path, CHILD_SECONDS) == 0, "%s: permission denied %s", backend, child_said());
}

static int open_many(void *arg)
{
    (void)arg;
    kio *k = backend_open();
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_NOFILE, &none);
    kio_file *file = NULL;
    kio_lock *lock = NULL;
    bool good = CHILD_CHECK(kio_file_open(k, path_of("opened"), 0, &file) == RW_EFILES) &&
                CHILD_CHECK(kio_lock_take(k, path_of("opened"), 0, &lock) == RW_EFILES) &&
                CHILD_CHECK(kio_directory_sync(k, dir) == RW_EFILES);
    kio *second = NULL;
    if (strcmp(backend, "uring") == 0) {
        kio_ring *ring = NULL;
        good = good && CHILD_CHECK(kio_ring_open(k, 4, &ring) == RW_EFILES) && CHILD_CHECK(ring == NULL) &&
               CHILD_CHECK(kio_open("uring", NULL, NULL, &second) == RW_EFILES) &&
               CHILD_CHECK(kio_open("auto", NULL, NULL, &second) == RW_EFILES) && CHILD_CHECK(second == NULL);
    }
    kio_close(k);
    return !good;
}

static void test_file_size(kio *k)
{
    kio_file *file = file_make(k, "sized", 0);
    uint64_t size = 99;
    unsigned char bytes[3 * 4096];
    TAP_CHECK(kio_file_size(k, file, &size) == 0 && size == 0);
    TAP_CHECK(kio_file_resize(k, file, 10000) == 0 && kio_file_size(k, file, &size) == 0);
    memset(bytes, 1, sizeof bytes);
    tap_ok(size == 10000 && kio_file_read(k, file, bytes, 10000, 0) == 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, 9999) == 0,
           "%s: what resize adds reads as zeros", backend);
    memset(bytes, 7, sizeof bytes);
    TAP_CHECK(kio_file_write(k, file, bytes, 5000, 100) == 0);
    int code = kio_file_allocate(k, file, 0, sizeof bytes);
    TAP_CHECK(kio_file_size(k, file, &size) == 0);
    memset(bytes, 1, sizeof bytes);
    TAP_CHECK(kio_file_read(k, file, bytes, sizeof bytes, 0) == 0);
    bool kept = true;
    for (size_t i = 0; i < sizeof bytes; i++) kept = kept && bytes[i] == (i >= 100 && i < 5100 ? 7 : 0);
    tap_ok(code == 0 && size == sizeof bytes && kept, "%s: allocate grows the file and keeps what is there", backend);
    TAP_CHECK(kio_file_resize(k, file, 50) == 0 && kio_file_size(k, file, &size) == 0);
    tap_ok(size == 50 && kio_file_sync(k, file) == 0, "%s: resize shrinks", backend);
    kio_file_close(k, file);
}

static void test_file_transfer(kio *k)
{
    kio_file *file = file_make(k, "transfer", 0);
    size_t size = 3 << 20;
    unsigned char *out = malloc(size), *in = malloc(size);
    rw_random random;
    rw_random_seed(&random, seed);
    for (size_t i = 0; i < size; i++) out[i] = (unsigned char)rw_random_next(&random);
    TAP_CHECK(kio_file_write(k, file, out, size, 12345) == 0 && kio_file_sync(k, file) == 0);
    TAP_CHECK(kio_file_read(k, file, in, size, 12345) == 0);
    tap_ok(memcmp(out, in, size) == 0, "%s: what was written is read", backend);
    memset(out + 4096, 'd', 10000);
    TAP_CHECK(kio_file_write_durable(k, file, out + 4096, 10000, 12345 + 4096) == 0 && kio_file_read(k, file, in, size, 12345) == 0);
    tap_ok(memcmp(out, in, size) == 0, "%s: so is what was written durably", backend);
    kio_file *other = file_make(k, "transfer-other", 0);
    tap_ok(kio_file_device(k, file) != 0 && kio_file_device(k, file) == kio_file_device(k, other), "%s: two files beside each other are on one device", backend);
    kio_file_close(k, other);
    tap_ok(kio_file_read(k, file, in, 4096, 12345 + size - 100) == RW_EIO && sentence_has(kio_file_path(file)) &&
               sentence_has("the file ends after 100 bytes") && sentence_has("offset 3157973"),
           "%s: a read across the end: %s", backend, rw_error_text());
    tap_ok(kio_file_read(k, file, in, 1, (uint64_t)1 << 40) == RW_EIO && sentence_has("ends after 0 bytes"), "%s: a read past the end", backend);
    kio_file_close(k, file);
    free(out);
    free(in);
}

static void test_sync_times(kio *k)
{
    kio_file *file = file_make(k, "measured", KIO_DIRECT);
    kio_sync_times times = {0};
    unsigned char *blocks = blocks_make(6), *zeros = blocks_make(1);
    memset(blocks, 'm', 6 * BLOCK);
    memset(zeros, 0, BLOCK);
    TAP_CHECK(kio_file_write(k, file, blocks, 6 * BLOCK, 0) == 0 && kio_file_sync(k, file) == 0);
    uint64_t begin = kio_now_ns(k);
    int code = kio_sync_times_measure(k, file, BLOCK, 4 * BLOCK, zeros, &times);
    uint64_t took = kio_now_ns(k) - begin;
    tap_ok(code == 0 && times.device == kio_file_device(k, file) && times.sync_ns > 0 && took < UINT64_C(20000000000),
           "%s: measured: %u ns with a sync, %u ns with a durable write, in %u us", backend, times.sync_ns, times.durable_write_ns, (unsigned)(took / 1000));
    TAP_CHECK(kio_file_read(k, file, blocks, 6 * BLOCK, 0) == 0);
    bool zero = true;
    for (size_t i = BLOCK; i < 2 * BLOCK; i++) zero = zero && blocks[i] == 0;
    tap_ok(zero && blocks[BLOCK - 1] == 'm' && blocks[5 * BLOCK] == 'm', "%s: by writing within the range, and nowhere else", backend);
    kio_file_close(k, file);
    free(blocks);
    free(zeros);
}

static void test_file_direct(kio *k)
{
    kio_file *file = file_make(k, "direct", KIO_DIRECT);
    if (!kio_file_is_direct(k, file)) {
        kio_file_close(k, file);
        tap_skip("the file system has no direct I/O");
        return;
    }
    unsigned char *blocks = blocks_make(4), *back = blocks_make(4);
    memset(blocks, 'd', 4 * BLOCK);
    TAP_CHECK(kio_file_write(k, file, blocks, 4 * BLOCK, 0) == 0 && kio_file_read(k, file, back, 4 * BLOCK, 0) == 0);
    tap_ok(memcmp(blocks, back, 4 * BLOCK) == 0, "%s: direct write and read", backend);
    memset(blocks, 'e', 4 * BLOCK);
    TAP_CHECK(kio_file_write_durable(k, file, blocks, 2 * BLOCK, BLOCK) == 0 && kio_file_read(k, file, back, 4 * BLOCK, 0) == 0);
    tap_ok(back[0] == 'd' && memcmp(back + BLOCK, blocks, 2 * BLOCK) == 0 && back[3 * BLOCK] == 'd', "%s: durable direct write", backend);
    TAP_CHECK(kio_file_resize(k, file, 2 * BLOCK + 100) == 0);
    tap_ok(kio_file_read(k, file, back, 4 * BLOCK, 0) == RW_EIO && sentence_has("ends after 8292 bytes"), "%s: direct read across an odd end", backend);
    TAP_CHECK(kio_file_resize(k, file, 2 * BLOCK + 512) == 0);
    tap_ok(kio_file_read(k, file, back, 4 * BLOCK, 0) == RW_EIO && sentence_has("ends after 8704 bytes"), "%s: across an end at a sector", backend);
    TAP_CHECK(kio_file_resize(k, file, 2 * BLOCK) == 0);
    tap_ok(kio_file_read(k, file, back, 4 * BLOCK, 0) == RW_EIO && sentence_has("ends after 8192 bytes"), "%s: across an end at a block", backend);
    kio_file_close(k, file);
    free(blocks);
    free(back);
}

static void test_names(kio *k)
{
    char to[DIRS_PATH_MAX], below[DIRS_PATH_MAX];
    path_join(to, dir, "name_to");
    path_join(below, dir, "sub/sub");
    kio_file_close(k, file_make(k, "name_to", 0));
    tap_ok(kio_unlink(k, to) == 0 && kio_unlink(k, to) == RW_ENOENT && sentence_has(to), "%s: unlink", backend);
    tap_ok(kio_directory_create(k, below) == RW_ENOENT, "%s: a directory is made one level at a time", backend);
    tap_ok(kio_directory_create(k, path_of("sub")) == 0 && kio_directory_create(k, path_of("sub")) == 0, "%s: and may be there", backend);
    tap_ok(kio_directory_create(k, path_of("opened")) == RW_EEXIST, "%s: but not as a file", backend);
    tap_ok(kio_directory_sync(k, dir) == 0 && kio_directory_sync(k, to) == RW_ENOENT && sentence_has(to), "%s: directory sync", backend);
}

/* A file system with neither direct I/O nor fallocate. */
static int files_on_ramfs(void *arg)
{
    (void)arg;
    if (!child_own_mounts() || mount("ramfs", dir, "ramfs", 0, NULL) != 0) return 2;
    kio *k = backend_open();
    kio_file *file = NULL;
    unsigned char *blocks = blocks_make(300);
    uint64_t size = 0;
    bool good = CHILD_CHECK(kio_file_open(k, path_of("plain"), KIO_CREATE | KIO_EXCLUSIVE | KIO_DIRECT, &file) == 0) &&
                CHILD_CHECK(!kio_file_is_direct(k, file)) && CHILD_CHECK(kio_file_write(k, file, "kept", 4, 1) == 0) &&
                CHILD_CHECK(kio_file_allocate(k, file, 0, 300 * BLOCK) == 0) &&
                CHILD_CHECK(kio_file_size(k, file, &size) == 0 && size == 300 * BLOCK) &&
                CHILD_CHECK(kio_file_read(k, file, blocks, 300 * BLOCK, 0) == 0) &&
                CHILD_CHECK(memcmp(blocks, "\0kept", 6) == 0);
    for (size_t i = 6; good && i < 300 * BLOCK; i++) good = CHILD_CHECK(blocks[i] == 0);
    struct stat information;
    good = good && CHILD_CHECK(stat(kio_file_path(file), &information) == 0 && information.st_blocks * 512 >= (int64_t)(299 * BLOCK));
    kio_file_close(k, file);
    kio_close(k);
    free(blocks);
    return !good;
}

static int files_on_full(void *arg)
{
    (void)arg;
    if (!child_own_mounts() || mount("tmpfs", dir, "tmpfs", 0, "size=256k") != 0) return 2;
    kio *k = backend_open();
    unsigned char *blocks = blocks_make(128);
    memset(blocks, 1, 128 * BLOCK);
    kio_file *file = file_make(k, "full", KIO_DIRECT);
    bool good = CHILD_CHECK(kio_file_allocate(k, file, 0, 128 * BLOCK) == RW_ENOSPC) && CHILD_CHECK(sentence_has("full")) &&
                CHILD_CHECK(kio_file_write(k, file, blocks, 128 * BLOCK, 0) == RW_ENOSPC);
    kio_file *elsewhere = NULL;
    good = good && CHILD_CHECK(kio_file_open(k, "/proc/self/exe", KIO_READ_ONLY, &elsewhere) == 0) &&
           CHILD_CHECK(kio_file_device(k, elsewhere) != kio_file_device(k, file));
    if (elsewhere != NULL) kio_file_close(k, elsewhere);
    kio_ring *ring = NULL;
    kio_op op = {.kind = KIO_WRITE, .file = file, .buffer = blocks, .length = 128 * RW_BLOCK_SIZE}, *ops[] = {&op};
    good = good && CHILD_CHECK(kio_ring_open(k, 4, &ring) == 0);
    if (good) {
        kio_ring_submit(k, ring, ops, 1);
        good = CHILD_CHECK(kio_ring_reap(k, ring, ops, 1, -1) == 1) && CHILD_CHECK(op.result == RW_ENOSPC && op.errno_value == ENOSPC) &&
               CHILD_CHECK(kio_op_error(&op) == RW_ENOSPC && sentence_has("full"));
        kio_ring_close(k, ring);
    }
    kio_file_close(k, file);
    kio_close(k);
    free(blocks);
    return !good;
}

/* ---- the lock ---- */

typedef struct {
    char path[DIRS_PATH_MAX];
    volatile int pid;          /* of the process that holds it */
    volatile int stage;
} lock_shared;

static int lock_expect_busy(void *arg)
{
    lock_shared *shared = arg;
    kio *k = backend_open();
    kio_lock *lock = NULL;
    char text[64];
    snprintf(text, sizeof text, "process %d", shared->pid);
    uint64_t before = kio_now_ns(k);
    bool good = CHILD_CHECK(kio_lock_take(k, shared->path, 0, &lock) == RW_EBUSY) && CHILD_CHECK(lock == NULL) &&
                CHILD_CHECK(strstr(rw_error_text(), text) != NULL && strstr(rw_error_text(), shared->path) != NULL) &&
                CHILD_CHECK(kio_now_ns(k) - before >= 190 * (uint64_t)MILLISECOND);
    kio_close(k);
    return !good;
}

/* A child that lives on must not hold what its parent took. */
static int lock_holder_with_child(void *arg)
{
    lock_shared *shared = arg;
    kio *k = backend_open();
    kio_lock *lock = NULL;
    if (kio_lock_take(k, shared->path, 0, &lock) != 0) return 1;
    if (fork() == 0) {
        for (int i = 0; i < 2000 && shared->stage == 0; i++) usleep(1000);
        _exit(0);
    }
    kill(getpid(), SIGKILL);
    return 1;
}

static void test_lock(kio *k)
{
    lock_shared *shared = child_shared(sizeof *shared);
    path_join(shared->path, dir, "LOCK");
    shared->pid = getpid();
    kio_lock *lock = NULL, *second = NULL;
    tap_ok(kio_lock_take(k, shared->path, 0, &lock) == 0, "%s: the lock is taken", backend);
    tap_ok(kio_lock_take(k, shared->path, 0, &second) == RW_EBUSY && second == NULL && sentence_has("this process"), "%s: this process is named", backend);
    tap_ok(child_run(lock_expect_busy, shared, CHILD_SECONDS) == 0, "%s: the holder's pid is named %s", backend, child_said());
    tap_ok(child_run(lock_expect_busy, shared, CHILD_SECONDS) == 0, "%s: a former opener's end changes nothing %s", backend, child_said());
    kio_lock_release(k, lock);
    tap_ok(kio_lock_take(k, shared->path, 0, &lock) == 0, "%s: free again", backend);
    kio_lock_release(k, lock);
    int status = child_run(lock_holder_with_child, shared, CHILD_SECONDS);
    lock = NULL;
    tap_ok(status == CHILD_SIGNAL(SIGKILL) && kio_lock_take(k, shared->path, 0, &lock) == 0, "%s: a killed holder's child does not keep it", backend);
    shared->stage = 1;
    if (lock != NULL) kio_lock_release(k, lock);
}

/* ---- which back end ---- */

static unsigned warnings;
static char warning_text[256];

static void count_warning(void *arg, int level, const char *message)
{
    *(int *)arg = level;
    warnings++;
    snprintf(warning_text, sizeof warning_text, "%s", message);
}

static int open_forbidden(void *arg)
{
    int error = *(int *)arg, level = -1;
    const char *reason = error == ENOSYS ? "ENOSYS" : error == ENOMEM ? "RLIMIT_MEMLOCK" : error == EPERM ? "seccomp" : "errno";
    if (!uring_forbid(error)) return 2;
    kio *k = NULL;
    bool good = CHILD_CHECK(kio_open("uring", count_warning, &level, &k) == RW_ENOTSUP) && CHILD_CHECK(k == NULL && warnings == 0) &&
                CHILD_CHECK(sentence_has(reason)) && CHILD_CHECK(kio_open("auto", count_warning, &level, &k) == 0) &&
                CHILD_CHECK(warnings == 1 && level == RW_LOG_WARNING) && CHILD_CHECK(strstr(warning_text, reason) != NULL) &&
                CHILD_CHECK(strcmp(kio_name(k), "psync") == 0) && CHILD_CHECK(strstr(k->note, reason) != NULL);
    if (k == NULL) return 1;
    kio_ring *ring = NULL;
    kio_op *done[1];
    good = good && CHILD_CHECK(kio_ring_open(k, 2, &ring) == 0) && CHILD_CHECK(kio_ring_reap(k, ring, done, 1, MILLISECOND) == 0) &&
           CHILD_CHECK(warnings == 1);
    kio_ring_close(k, ring);
    kio_close(k);
    good = good && CHILD_CHECK(kio_open("auto", NULL, NULL, &k) == 0);
    kio_close(k);
    good = good && CHILD_CHECK(kio_open("psync", count_warning, &level, &k) == 0) && CHILD_CHECK(warnings == 1 && k->note[0] == 0);
    kio_close(k);
    return !good;
}

/* Returns whether io_uring is there. */
static bool test_choice(void)
{
    kio *k = NULL;
    int level = -1;
    backend = "auto";
    tap_ok(kio_open("aio", NULL, NULL, &k) == RW_EINVAL && k == NULL && sentence_has("\"aio\""), "an unknown back end");
    TAP_CHECK(kio_open("auto", count_warning, &level, &k) == 0);
    bool has_uring = strcmp(kio_name(k), "uring") == 0;
    tap_ok(has_uring == (k->note[0] == 0) && warnings == (has_uring ? 0 : 1), "auto is uring, or says why not: %s %s", kio_name(k), k->note);
    kio_close(k);
    warnings = 0;
    TAP_CHECK(kio_open("psync", count_warning, &level, &k) == 0);
    tap_ok(strcmp(kio_name(k), "psync") == 0 && k->note[0] == 0 && warnings == 0, "psync when asked for");
    kio_close(k);
    static int errors[] = {EPERM, ENOSYS, ENOMEM, ENXIO};
    for (size_t i = 0; i < RW_ARRAY_SIZE(errors); i++) child_test(open_forbidden, &errors[i], "io_uring forbidden");
    return has_uring;
}

static void test_backend(const char *name)
{
    backend = name;
    if (!dir_make(dir, name)) abort();
    kio *k = backend_open();
    tap_ok(strcmp(kio_name(k), name) == 0 && k->note[0] == 0, "%s: opened", name);
    test_file_open(k);
    test_file_access(k);
    child_test(open_many, NULL, "too many open files");
    test_file_size(k);
    test_file_transfer(k);
    test_file_direct(k);
    test_sync_times(k);
    test_names(k);
    child_test(files_on_ramfs, NULL, "files on ramfs");
    child_test(files_on_full, NULL, "a full file system");
    test_lock(k);
    kio_close(k);
    dir_remove(dir);
}

int main(int argc, char **argv)
{
    seed_take(argc, argv);
    bool has_uring = test_choice();
    test_backend("psync");
    if (has_uring) test_backend("uring");
    else tap_skip("no io_uring here");
    return tap_done();
}
