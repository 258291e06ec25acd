/* The back ends for real files, each through the same tests, in a directory under $TMPDIR. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/random.h"
#include "kernel_io/kernel_io.h"
#include "kernel_io/posix.h"
#include "tests/support/child.h"
#include "tests/support/dirs.h"
#include "tests/support/tap.h"

#define BLOCK ((size_t)RW_BLOCK_SIZE)
#define MILLISECOND ((int64_t)1000000)
#define CHILD_SECONDS 60

static uint64_t seed;
static const char *backend;          /* under test */
static char dir[DIRS_PATH_MAX];

static kio *backend_open(void)
{
    kio *k = NULL;
    int code = kio_open(backend, NULL, NULL, &k);
    if (code != 0) {
        tap_diag("cannot open %s: %s", backend, rw_error_text());
        abort();
    }
    return k;
}

static char *path_of(const char *name)
{
    static char path[DIRS_PATH_MAX];
    path_join(path, dir, name);
    return path;
}

static kio_file *file_make(kio *k, const char *name, unsigned flags)
{
    kio_file *file = NULL;
    if (kio_file_open(k, path_of(name), flags | KIO_CREATE, &file) != 0) {
        tap_diag("%s", rw_error_text());
        abort();
    }
    return file;
}

static void *blocks_make(size_t count)
{
    void *blocks = aligned_alloc(BLOCK, count * BLOCK);
    if (blocks == NULL) abort();
    memset(blocks, 0, count * BLOCK);
    return blocks;
}

static bool sentence_has(const char *text)
{
    if (strstr(rw_error_text(), text) != NULL) return true;
    tap_diag("no \"%s\" in: %s", text, rw_error_text());
    return false;
}

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
                CHILD_CHECK(kio_lock_take(k, path_of("opened"), &lock) == RW_EFILES) &&
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
    tap_ok(kio_file_read(k, file, in, 4096, 12345 + size - 100) == RW_EIO && sentence_has(kio_file_path(file)) &&
               sentence_has("the file ends after 100 bytes") && sentence_has("offset 3157973"),
           "%s: a read across the end: %s", backend, rw_error_text());
    tap_ok(kio_file_read(k, file, in, 1, (uint64_t)1 << 40) == RW_EIO && sentence_has("ends after 0 bytes"), "%s: a read past the end", backend);
    kio_file_close(k, file);
    free(out);
    free(in);
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
    char from[DIRS_PATH_MAX], to[DIRS_PATH_MAX], below[DIRS_PATH_MAX];
    path_join(from, dir, "name_from");
    path_join(to, dir, "name_to");
    path_join(below, dir, "sub/sub");
    kio_file *file = file_make(k, "name_from", 0);
    TAP_CHECK(kio_file_write(k, file, "new", 3, 0) == 0);
    kio_file_close(k, file);
    kio_file_close(k, file_make(k, "name_to", 0));
    tap_ok(kio_rename(k, from, to) == 0 && access(from, F_OK) != 0 && file_size(to) == 3, "%s: rename replaces", backend);
    tap_ok(kio_rename(k, from, to) == RW_ENOENT && sentence_has(from) && sentence_has(to), "%s: rename of nothing", backend);
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

static void child_test(int (*fn)(void *), void *arg, const char *what)
{
    int status = child_run(fn, arg, CHILD_SECONDS);
    if (status == 2) {
        tap_skip("not permitted here");
        return;
    }
    tap_ok(status == 0, "%s: %s %s", backend, what, child_said());
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
    bool good = CHILD_CHECK(kio_lock_take(k, shared->path, &lock) == RW_EBUSY) && CHILD_CHECK(lock == NULL) &&
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
    if (kio_lock_take(k, shared->path, &lock) != 0) return 1;
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
    tap_ok(kio_lock_take(k, shared->path, &lock) == 0, "%s: the lock is taken", backend);
    tap_ok(kio_lock_take(k, shared->path, &second) == RW_EBUSY && second == NULL && sentence_has("this process"), "%s: this process is named", backend);
    tap_ok(child_run(lock_expect_busy, shared, CHILD_SECONDS) == 0, "%s: the holder's pid is named %s", backend, child_said());
    tap_ok(child_run(lock_expect_busy, shared, CHILD_SECONDS) == 0, "%s: a former opener's end changes nothing %s", backend, child_said());
    kio_lock_release(k, lock);
    tap_ok(kio_lock_take(k, shared->path, &lock) == 0, "%s: free again", backend);
    kio_lock_release(k, lock);
    int status = child_run(lock_holder_with_child, shared, CHILD_SECONDS);
    lock = NULL;
    tap_ok(status == CHILD_SIGNAL(SIGKILL) && kio_lock_take(k, shared->path, &lock) == 0, "%s: a killed holder's child does not keep it", backend);
    shared->stage = 1;
    if (lock != NULL) kio_lock_release(k, lock);
}

/* ---- threads, sleeping, time, random ---- */

typedef struct {
    kio *k;
    kio_mutex mutex;
    uint64_t counter;                     /* under mutex */
    _Atomic uint32_t word, answer;
    bool signals_blocked;
    char name[32];
} thread_shared;

static void thread_observe(void *arg)
{
    thread_shared *s = arg;
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    s->signals_blocked = sigismember(&set, SIGINT) == 1 && sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGALRM) == 1;
    pthread_getname_np(pthread_self(), s->name, sizeof s->name);
    while (atomic_load(&s->word) == 0) kio_sleep(s->k, &s->word, 0, -1);
    atomic_store(&s->answer, 1);
    kio_wake(s->k, &s->answer, 1);
}

static void thread_count(void *arg)
{
    thread_shared *s = arg;
    for (unsigned i = 0; i < 20000; i++) {
        if (i % 16 != 0 || !kio_mutex_try(&s->mutex)) kio_mutex_lock(s->k, &s->mutex);
        s->counter++;
        if (i % 1000 == 0) kio_yield(s->k);
        kio_mutex_unlock(s->k, &s->mutex);
    }
}

static void test_threads(kio *k)
{
    thread_shared s = {.k = k};
    kio_thread *thread[4];
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    TAP_CHECK(kio_thread_start(k, "a-name-longer-than-15", 0, thread_observe, &s, &thread[0]) == 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    atomic_store(&s.word, 1);
    kio_wake(k, &s.word, 1);
    while (atomic_load(&s.answer) == 0) kio_sleep(k, &s.answer, 0, -1);
    kio_thread_join(k, thread[0]);
    tap_ok(s.signals_blocked && sigismember(&before, SIGINT) == sigismember(&after, SIGINT), "%s: all signals are blocked in a thread", backend);
    tap_ok(strcmp(s.name, "a-name-longer-t") == 0, "%s: a thread has its name", backend);
    TAP_CHECK(kio_thread_start(k, "nowhere", CPU_SETSIZE - 1, thread_count, &s, &thread[0]) == 0);
    kio_thread_join(k, thread[0]);
    tap_ok(s.counter == 20000, "%s: a core that is not there does not matter", backend);
    for (unsigned i = 0; i < 4; i++) TAP_CHECK(kio_thread_start(k, "count", -1, thread_count, &s, &thread[i]) == 0);
    for (unsigned i = 0; i < 4; i++) kio_thread_join(k, thread[i]);
    tap_ok(s.counter == 100000 && kio_mutex_try(&s.mutex) && !kio_mutex_try(&s.mutex), "%s: the mutex lets one in at a time", backend);

    _Atomic uint32_t word = 5;
    uint64_t start = kio_now_ns(k);
    kio_sleep(k, &word, 4, -1);
    for (unsigned i = 0; i < 100 && kio_now_ns(k) - start < 20 * (uint64_t)MILLISECOND; i++) kio_sleep(k, &word, 5, 20 * MILLISECOND);
    uint64_t slept = kio_now_ns(k) - start;
    tap_ok(slept >= 20 * (uint64_t)MILLISECOND && slept < 10000 * (uint64_t)MILLISECOND, "%s: a sleep ends by its time", backend);

    unsigned char a[300] = {0}, b[300] = {0};
    tap_ok(kio_random(k, a, sizeof a) == 0 && kio_random(k, b, sizeof b) == 0 && memcmp(a, b, sizeof a) != 0 && memcmp(a + 250, b, 50) != 0,
           "%s: random bytes", backend);
}

/* ---- rings ---- */

static kio_ring *ring_make(kio *k, unsigned depth)
{
    kio_ring *ring = NULL;
    if (kio_ring_open(k, depth, &ring) != 0) {
        tap_diag("%s", rw_error_text());
        abort();
    }
    return ring;
}

#define RANDOM_OPS 1000u
#define RANDOM_BLOCKS 64u
#define RANDOM_SLOTS 24u

typedef struct {
    kio_op op;
    unsigned char *buffer;
    unsigned block;
    unsigned char expected;     /* of a read; or what a write writes */
    bool busy;
} random_slot;

typedef struct {
    rw_random random;
    kio_file *file;
    random_slot slots[RANDOM_SLOTS];
    unsigned char content[RANDOM_BLOCKS];
    bool block_busy[RANDOM_BLOCKS];
    unsigned submitted, reaped;
    bool good;
} random_run;

/* Blocks in flight are left alone, so what a read must find is known. */
static bool random_prepare(random_run *run, random_slot *slot)
{
    unsigned block = (unsigned)rw_random_below(&run->random, RANDOM_BLOCKS), kind = (unsigned)rw_random_below(&run->random, 10);
    if (run->block_busy[block]) return false;
    run->block_busy[block] = slot->busy = true;
    slot->block = block;
    slot->op = (kio_op){.kind = kind == 0 ? KIO_SYNC : kind < 5 ? KIO_WRITE : KIO_READ, .file = run->file, .buffer = slot->buffer,
                        .offset = block * BLOCK, .length = RW_BLOCK_SIZE, .context = slot};
    if (slot->op.kind == KIO_WRITE) run->content[block] = (unsigned char)rw_random_next(&run->random);
    slot->expected = run->content[block];
    memset(slot->buffer, slot->op.kind == KIO_WRITE ? slot->expected : 0xee, BLOCK);
    return true;
}

static void random_finish(random_run *run, kio_op *op)
{
    random_slot *slot = op->context;
    bool good = slot->busy && op == &slot->op && op->result == 0 && op->errno_value == 0;
    if (op->kind != KIO_SYNC) {
        good = good && op->done == BLOCK && slot->buffer[0] == slot->expected && memcmp(slot->buffer, slot->buffer + 1, BLOCK - 1) == 0;
    }
    run->good = run->good && good;
    slot->busy = run->block_busy[slot->block] = false;
    run->reaped++;
}

static void random_submit(random_run *run, kio *k, kio_ring *ring)
{
    kio_op *batch[RANDOM_SLOTS];
    unsigned count = 0, limit = 1 + (unsigned)rw_random_below(&run->random, RANDOM_SLOTS);
    for (unsigned i = 0; i < RANDOM_SLOTS && count < limit && run->submitted + count < RANDOM_OPS; i++) {
        if (!run->slots[i].busy && random_prepare(run, &run->slots[i])) batch[count++] = &run->slots[i].op;
    }
    kio_ring_submit(k, ring, batch, count);
    run->submitted += count;
}

/* More operations than the ring is deep, so that some wait inside. */
static void test_ring_random(kio *k, unsigned depth, unsigned file_flags)
{
    random_run run = {.file = file_make(k, "random", file_flags), .good = true};
    rw_random_seed(&run.random, seed + depth);
    for (unsigned i = 0; i < RANDOM_SLOTS; i++) run.slots[i].buffer = blocks_make(1);
    TAP_CHECK(kio_file_resize(k, run.file, 0) == 0 && kio_file_resize(k, run.file, RANDOM_BLOCKS * BLOCK) == 0);
    kio_ring *ring = ring_make(k, depth);
    while (run.reaped < RANDOM_OPS && run.good) {
        random_submit(&run, k, ring);
        kio_op *done[7];
        int64_t wait = run.submitted == run.reaped || rw_random_below(&run.random, 2) == 0 ? 0 : -1;
        unsigned count = kio_ring_reap(k, ring, done, 1 + (unsigned)rw_random_below(&run.random, 7), wait);
        if (wait < 0) run.good = run.good && count > 0;
        for (unsigned i = 0; i < count; i++) random_finish(&run, done[i]);
    }
    tap_ok(run.good && run.reaped == run.submitted, "%s: %u random operations, depth %u%s", backend, run.reaped, depth,
           kio_file_is_direct(k, run.file) ? ", direct" : "");
    kio_ring_close(k, ring);
    kio_file_close(k, run.file);
    for (unsigned i = 0; i < RANDOM_SLOTS; i++) free(run.slots[i].buffer);
}

static void test_ring_failures(kio *k)
{
    kio_file_close(k, file_make(k, "failing", 0));
    kio_file *file = NULL;
    unsigned char *block = blocks_make(2);
    TAP_CHECK(kio_file_open(k, path_of("failing"), KIO_READ_ONLY, &file) == 0);
    TAP_CHECK(truncate(path_of("failing"), 5000) == 0);
    kio_ring *ring = ring_make(k, 4);
    kio_op read = {.kind = KIO_READ, .file = file, .buffer = block, .offset = 4000, .length = 4096, .context = &read}, *ops[2] = {&read};
    kio_op write = {.kind = KIO_WRITE, .file = file, .buffer = block + BLOCK, .offset = 8192, .length = 4096};
    kio_ring_submit(k, ring, ops, 1);
    TAP_CHECK(kio_ring_reap(k, ring, ops, 2, -1) == 1 && ops[0] == &read && read.context == &read);
    tap_ok(read.result == RW_EIO && read.errno_value == 0 && read.done == 1000, "%s: a ring's read across the end", backend);
    tap_ok(kio_op_error(&read) == RW_EIO && sentence_has("failing") && sentence_has("offset 4000") && sentence_has("ends after 1000"),
           "%s: its sentence: %s", backend, rw_error_text());
    ops[0] = &write;
    kio_ring_submit(k, ring, ops, 1);
    TAP_CHECK(kio_ring_reap(k, ring, ops, 2, -1) == 1 && ops[0] == &write);
    tap_ok(write.result == RW_EIO && write.errno_value == EBADF && kio_op_error(&write) == RW_EIO && sentence_has("offset 8192") &&
               sentence_has("errno 9"), "%s: a ring's write to a read-only file", backend);
    kio_ring_close(k, ring);
    kio_file_close(k, file);
    free(block);
}

/* The kernel shortens the write at the limit, and refuses the rest: so the rest was handed over again. */
static int short_write(void *arg)
{
    (void)arg;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {3 * BLOCK, 3 * BLOCK};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    kio *k = backend_open();
    kio_file *file = file_make(k, "short", 0);
    unsigned char *blocks = blocks_make(4);
    memset(blocks, 's', 4 * BLOCK);
    kio_ring *ring = ring_make(k, 2);
    kio_op op = {.kind = KIO_WRITE, .file = file, .buffer = blocks, .offset = BLOCK, .length = 4 * RW_BLOCK_SIZE}, *ops[1] = {&op};
    kio_ring_submit(k, ring, ops, 1);
    bool good = CHILD_CHECK(kio_ring_reap(k, ring, ops, 1, -1) == 1) && CHILD_CHECK(op.result == RW_EIO && op.errno_value == EFBIG) &&
                CHILD_CHECK(op.done == 2 * BLOCK) && CHILD_CHECK(kio_file_read(k, file, blocks, 2 * BLOCK, BLOCK) == 0) &&
                CHILD_CHECK(kio_file_write(k, file, blocks, 4 * BLOCK, BLOCK) == RW_EIO && sentence_has("errno 27"));
    kio_ring_close(k, ring);
    kio_file_close(k, file);
    kio_close(k);
    free(blocks);
    return !good;
}

static void test_ring_close(kio *k)
{
    enum { COUNT = 40 };
    kio_file *file = file_make(k, "closing", 0);
    kio_ring *ring = ring_make(k, 3);
    unsigned char *blocks = blocks_make(COUNT), *back = blocks_make(COUNT);
    kio_op ops[COUNT], *list[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        memset(blocks + i * BLOCK, (int)i + 1, BLOCK);
        ops[i] = (kio_op){.kind = KIO_WRITE, .file = file, .buffer = blocks + i * BLOCK, .offset = i * BLOCK, .length = RW_BLOCK_SIZE};
        list[i] = &ops[i];
    }
    kio_ring_submit(k, ring, list, COUNT);
    kio_ring_wake(k, ring);
    kio_ring_close(k, ring);
    tap_ok(kio_file_read(k, file, back, COUNT * BLOCK, 0) == 0 && memcmp(blocks, back, COUNT * BLOCK) == 0,
           "%s: closing a ring carries out what it was given", backend);
    kio_file_close(k, file);
    free(blocks);
    free(back);
}

static void test_ring_wake(kio *k)
{
    kio_ring *ring = ring_make(k, 4);
    kio_op *done[4];
    uint64_t start = kio_now_ns(k);
    kio_ring_wake(k, ring);
    kio_ring_wake(k, ring);
    tap_ok(kio_ring_reap(k, ring, done, 4, 0) == 0 && kio_ring_reap(k, ring, done, 4, 5000 * MILLISECOND) == 0 &&
               kio_now_ns(k) - start < 4000 * (uint64_t)MILLISECOND, "%s: a wake before the wait is not lost", backend);
    start = kio_now_ns(k);
    tap_ok(kio_ring_reap(k, ring, done, 4, 30 * MILLISECOND) == 0 && kio_now_ns(k) - start >= 30 * (uint64_t)MILLISECOND,
           "%s: two wakes end one wait, the next one lasts its time", backend);
    kio_ring_close(k, ring);
}

typedef struct {
    kio *k;
    kio_ring *ring;
    _Atomic uint32_t sent, seen;
} ping_shared;

#define PINGS 3000u

/* Each turn waits until the owner has seen the former one: a lost wake-up is a hang, which the alarm ends. */
static void ping_run(void *arg)
{
    ping_shared *s = arg;
    for (uint32_t i = 1; i <= PINGS; i++) {
        atomic_store(&s->sent, i);
        kio_ring_wake(s->k, s->ring);
        if (i % 64 == 0) kio_yield(s->k);
        for (uint32_t seen; (seen = atomic_load(&s->seen)) != i;) kio_sleep(s->k, &s->seen, seen, -1);
    }
}

/* With reads in flight all the time, so that waits end for both reasons. */
static void test_ring_ping(kio *k, bool with_reads)
{
    ping_shared s = {.k = k, .ring = ring_make(k, 4)};
    kio_file *file = file_make(k, "pinged", 0);
    unsigned char *block = blocks_make(1);
    TAP_CHECK(kio_file_write(k, file, block, BLOCK, 0) == 0);
    kio_op op = {.kind = KIO_READ, .file = file, .buffer = block, .length = RW_BLOCK_SIZE}, *list[1] = {&op};
    kio_thread *thread;
    TAP_CHECK(kio_thread_start(k, "ping", -1, ping_run, &s, &thread) == 0);
    bool in_flight = false, good = true;
    while (atomic_load(&s.seen) < PINGS) {
        list[0] = &op;
        if (with_reads && !in_flight) kio_ring_submit(k, s.ring, list, 1);
        in_flight = with_reads;
        if (kio_ring_reap(k, s.ring, list, 1, -1) == 1) {
            good = good && in_flight && op.result == 0;
            in_flight = false;
        }
        uint32_t sent = atomic_load(&s.sent);
        if (atomic_exchange(&s.seen, sent) != sent) kio_wake(k, &s.seen, 1);
    }
    kio_thread_join(k, thread);
    kio_ring_close(k, s.ring);
    kio_file_close(k, file);
    free(block);
    tap_ok(good, "%s: %u wakes from another thread%s", backend, PINGS, with_reads ? ", with reads in flight" : "");
}

static void test_ring_timeout(kio *k)
{
    kio_ring *ring = ring_make(k, 1);
    kio_op *done[1];
    uint64_t start = kio_now_ns(k);
    unsigned count = kio_ring_reap(k, ring, done, 1, 10 * MILLISECOND);
    tap_ok(count == 0 && kio_now_ns(k) - start >= 10 * (uint64_t)MILLISECOND, "%s: a wait ends by its time", backend);
    kio_ring_submit(k, ring, done, 0);
    tap_ok(kio_ring_reap(k, ring, done, 1, 0) == 0, "%s: nothing submitted, nothing reaped", backend);
    kio_ring_close(k, ring);
}

/* A child that has the ring's memory could hand over operations of its parent's. */
static void test_ring_fork(kio *k)
{
    kio_ring *ring = ring_make(k, 8);
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[512];
    unsigned areas = 0, marked = 0;
    bool is_ring = false;
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        if (strstr(line, "io_uring") != NULL) {
            is_ring = true;
            areas++;
        }
        if (is_ring && strncmp(line, "VmFlags:", 8) == 0) {
            marked += strstr(line, " dc") != NULL;
            is_ring = false;
        }
    }
    if (maps != NULL) fclose(maps);
    tap_ok(areas == marked && (areas > 0) == (strcmp(backend, "uring") == 0), "%s: a fork does not copy the ring, %u areas", backend, areas);
    kio_ring_close(k, ring);
}

/* ---- how short and failed transfers are taken ---- */

static void test_advance(void)
{
    int fd = open(path_of("advance"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    TAP_CHECK(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    char name[] = "advance";
    posix_file file = {.base = {.path = name, .direct = true}, .fd = fd};
    unsigned char *block = blocks_make(4);
    kio_op op = {.kind = KIO_WRITE, .file = &file.base, .buffer = block, .length = 4 * RW_BLOCK_SIZE};

    posix_op_start(&op);
    tap_ok(!posix_op_advance(&op, 4096) && op.done == 4096 && !posix_op_advance(&op, 4096 + 512) && op.done == 8192 &&
               posix_op_advance(&op, 8192) && op.result == 0 && op.done == op.length, "a direct transfer goes on at whole blocks");
    posix_op_start(&op);
    unsigned tries = 1;
    while (!posix_op_advance(&op, tries % 3 == 0 ? -EINTR : tries % 3 == 1 ? -EAGAIN : 512)) tries++;
    tap_ok(tries == POSIX_ATTEMPTS_MAX && op.result == RW_EIO, "no progress is tried again, but not for ever");
    posix_op_start(&op);
    for (unsigned i = 0; i < 3 * POSIX_ATTEMPTS_MAX; i++) {
        if (i % 60 == 59 && op.done < 3 * BLOCK) TAP_CHECK(!posix_op_advance(&op, 4096));
        else if (op.done < 3 * BLOCK) TAP_CHECK(!posix_op_advance(&op, -EAGAIN));
    }
    tap_ok(posix_op_advance(&op, 4096) && op.result == 0, "progress begins the count anew");
    posix_op_start(&op);
    tap_ok(posix_op_advance(&op, 0) && op.result == RW_EIO && op.errno_value == 0 && kio_op_error(&op) == RW_EIO &&
               sentence_has("the transfer stopped after 0 bytes"), "a write of 0 bytes is an error");
    posix_op_start(&op);
    tap_ok(posix_op_advance(&op, -EINVAL) && op.result == RW_EIO && op.errno_value == EINVAL, "EINVAL is no argument of the caller's");
    posix_op_start(&op);
    tap_ok(posix_op_advance(&op, -ENOSPC) && op.result == RW_ENOSPC, "ENOSPC");
    op.kind = KIO_SYNC;
    posix_op_start(&op);
    tap_ok(posix_op_advance(&op, -EINTR) && op.result == RW_EIO && kio_op_error(&op) == RW_EIO && sentence_has("sync file advance"),
           "a failed sync is never retried");
    op.errno_value = 0;
    tap_ok(kio_op_error(&op) == RW_EIO && sentence_has("cannot sync file advance: input/output error"), "a sync without errno");
    op.kind = KIO_READ;
    op.result = RW_ECORRUPT;
    tap_ok(kio_op_error(&op) == RW_ECORRUPT && sentence_has("stored data is damaged"), "a code without errno");
    free(block);
    close(fd);
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

/* io_uring_setup fails with the given errno from now on. */
static bool forbid_uring(int errno_value)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)errno_value & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = RW_ARRAY_SIZE(filter), .filter = filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int open_forbidden(void *arg)
{
    int error = *(int *)arg, level = -1;
    const char *reason = error == ENOSYS ? "ENOSYS" : error == ENOMEM ? "RLIMIT_MEMLOCK" : error == EPERM ? "seccomp" : "errno";
    if (!forbid_uring(error)) return 2;
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
    test_names(k);
    child_test(files_on_ramfs, NULL, "files on ramfs");
    child_test(files_on_full, NULL, "a full file system");
    test_lock(k);
    test_threads(k);
    test_ring_timeout(k);
    test_ring_wake(k);
    test_ring_ping(k, false);
    test_ring_ping(k, true);
    test_ring_random(k, 1, 0);
    test_ring_random(k, 8, KIO_DIRECT);
    test_ring_random(k, 128, KIO_DIRECT);
    test_ring_failures(k);
    child_test(short_write, NULL, "a short write");
    test_ring_close(k);
    test_ring_fork(k);
    test_advance();
    kio_close(k);
    dir_remove(dir);
}

int main(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    tap_diag("replay: %s %llu", argv[0], (unsigned long long)seed);
    alarm(300);
    bool has_uring = test_choice();
    test_backend("psync");
    if (has_uring) test_backend("uring");
    else tap_skip("no io_uring here");
    return tap_done();
}
