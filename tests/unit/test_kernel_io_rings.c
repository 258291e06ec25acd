/* The back ends for real files, each through the same tests: threads, sleeping, time, and rings with random operations, failures and wakes. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/kernel_io_test.h"

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
    slot->op = (kio_op){.kind = kind == 0 ? KIO_SYNC : kind == 1 ? KIO_WRITE_DURABLE : kind < 5 ? KIO_WRITE : KIO_READ, .file = run->file, .buffer = slot->buffer,
                        .offset = block * BLOCK, .length = RW_BLOCK_SIZE, .context = slot};
    bool writes = slot->op.kind == KIO_WRITE || slot->op.kind == KIO_WRITE_DURABLE;
    if (writes) run->content[block] = (unsigned char)rw_random_next(&run->random);
    slot->expected = run->content[block];
    memset(slot->buffer, writes ? slot->expected : 0xee, BLOCK);
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
    op.kind = KIO_WRITE_DURABLE;
    posix_op_start(&op);
    tap_ok(!posix_op_advance(&op, 4096) && posix_op_advance(&op, -EIO) && op.result == RW_EIO && kio_op_error(&op) == RW_EIO && sentence_has("write durably"),
           "a durable write that fails half-way has failed");
    posix_op_start(&op);
    tap_ok(posix_op_advance(&op, -EOPNOTSUPP) && op.result == RW_ENOTSUP, "a file system without durable writes");
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

static void test_backend(const char *name)
{
    backend = name;
    if (!dir_make(dir, name)) abort();
    kio *k = backend_open();
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

static bool has_uring(void)
{
    kio *k = NULL;
    if (kio_open("uring", NULL, NULL, &k) != 0) return false;
    kio_close(k);
    return true;
}

int main(int argc, char **argv)
{
    seed_take(argc, argv);
    test_backend("psync");
    if (has_uring()) test_backend("uring");
    else tap_skip("no io_uring here");
    return tap_done();
}
