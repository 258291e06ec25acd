/* Reads of many threads on one core, which readers hand to the kernel together: each gets what is in the file, or the error that is due, and few threads are left to themselves. */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>

#include "tests/unit/kernel_io_test.h"

#define BLOCKS 2048u
#define THREADS_MAX 24u
#define READS 400u              /* of each thread: enough for both ways to have their turn */
#define LARGE 4u               /* blocks of some reads */

/* Block n is full of n's number. */
static void file_fill(kio *k, kio_file *file)
{
    uint64_t *blocks = blocks_make(BLOCKS);
    for (size_t i = 0; i < BLOCKS * BLOCK / sizeof *blocks; i++) blocks[i] = i * sizeof *blocks / BLOCK;
    TAP_CHECK(kio_file_write(k, file, blocks, BLOCKS * BLOCK, 0) == 0 && kio_file_sync(k, file) == 0);
    free(blocks);
}

typedef struct {
    kio *k;
    kio_file *file;
    uint64_t seed;
    bool beyond;               /* of the file's end */
    unsigned wrong;
} reads;

static bool is_right(const uint64_t *blocks, size_t count, uint64_t first)
{
    for (size_t i = 0; i < count * BLOCK / sizeof *blocks; i++)
        if (blocks[i] != first + i * sizeof *blocks / BLOCK) return false;
    return true;
}

static void *reads_run(void *arg)
{
    reads *r = arg;
    rw_random random;
    rw_random_seed(&random, r->seed);
    uint64_t *blocks = blocks_make(LARGE);
    for (unsigned i = 0; i < READS; i++) {
        uint64_t count = rw_random_below(&random, 8) == 0 ? LARGE : 1, first = rw_random_below(&random, BLOCKS - LARGE);
        bool beyond = r->beyond && rw_random_below(&random, 4) == 0;
        if (beyond) first = BLOCKS - count / 2;
        int error = kio_file_read(r->k, r->file, blocks, count * BLOCK, first * BLOCK);
        bool good = beyond ? error == RW_EIO && sentence_has("the file ends") && sentence_has("readers") : error == 0 && is_right(blocks, count, first);
        r->wrong += !good;
    }
    free(blocks);
    return NULL;
}

/* Threads of this process that are readers. */
static unsigned readers_count(void)
{
    unsigned count = 0;
    DIR *tasks = opendir("/proc/self/task");
    TAP_CHECK(tasks != NULL);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        char path[512], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *comm = fopen(path, "r");
        if (comm == NULL) continue;
        if (fgets(name, sizeof name, comm) != NULL && strncmp(name, "ringwood-reader", 15) == 0) count++;
        fclose(comm);
    }
    closedir(tasks);
    return count;
}

/* How many reads went wrong. */
static unsigned threads_run(kio *k, kio_file *file, unsigned count, bool beyond, void *(*run)(void *))
{
    pthread_t threads[THREADS_MAX];
    reads each[THREADS_MAX];
    unsigned wrong = 0;
    for (unsigned i = 0; i < count; i++) {
        each[i] = (reads){.k = k, .file = file, .seed = seed + i, .beyond = beyond};
        TAP_CHECK(pthread_create(&threads[i], NULL, run, &each[i]) == 0);
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        wrong += each[i].wrong;
    }
    return wrong;
}

static unsigned threads_read(kio *k, kio_file *file, unsigned count, bool beyond)
{
    return threads_run(k, file, count, beyond, reads_run);
}

static void test_backend(bool has_readers)
{
    kio *k = backend_open();
    kio_file *file = file_make(k, "readers", KIO_DIRECT);
    file_fill(k, file);
    bool direct = kio_file_is_direct(k, file);
    tap_ok(threads_read(k, file, 2, false) == 0 && readers_count() == 0, "%s: two threads read by themselves", backend);
    tap_ok(threads_read(k, file, THREADS_MAX, false) == 0, "%s: %u threads on one core read what is there", backend, THREADS_MAX);
    if (direct) tap_ok(readers_count() == (has_readers ? 1 : 0), "%s: with %u", backend, readers_count());
    else tap_skip("no direct I/O here");
    tap_ok(threads_read(k, file, THREADS_MAX, true) == 0, "%s: who reads beyond the end is told so, the others read on", backend);
    kio_file_close(k, file);
    kio_close(k);
    tap_ok(readers_count() == 0, "%s: closed, no reader is left", backend);
    TAP_CHECK(unlink(path_of("readers")) == 0);
}

#define SEVERAL 16u

/* A thread that wants several at once, again and again; one of them, at most, lies beyond the end. */
static void *several_run(void *arg)
{
    reads *r = arg;
    rw_random random;
    uint64_t *blocks = blocks_make(SEVERAL * LARGE);
    rw_random_seed(&random, r->seed);
    for (unsigned round = 0; round < READS; round++) {
        kio_op ops[SEVERAL], *all[SEVERAL];
        unsigned count = 1 + (unsigned)rw_random_below(&random, SEVERAL), beyond = (unsigned)rw_random_below(&random, 2 * SEVERAL);
        for (unsigned i = 0; i < count; i++) {
            uint32_t length = (uint32_t)(1 + rw_random_below(&random, LARGE));
            uint64_t first = i == beyond ? BLOCKS : rw_random_below(&random, BLOCKS - LARGE);
            ops[i] = (kio_op){.kind = KIO_READ, .file = r->file, .buffer = blocks + i * LARGE * BLOCK / sizeof *blocks, .offset = first * BLOCK, .length = length * (uint32_t)BLOCK};
            all[i] = &ops[i];
        }
        kio_read_all(r->k, all, count);
        for (unsigned i = 0; i < count; i++) {
            bool good = i == beyond ? ops[i].result == RW_EIO : ops[i].result == 0 && is_right(ops[i].buffer, ops[i].length / BLOCK, ops[i].offset / BLOCK);
            r->wrong += !good;
        }
    }
    free(blocks);
    return NULL;
}

static void test_several(void)
{
    kio *k = backend_open();
    kio_file *file = file_make(k, "readers", KIO_DIRECT);
    file_fill(k, file);
    tap_ok(threads_run(k, file, 1, false, several_run) == 0, "%s: several at once for one thread", backend);
    tap_ok(threads_run(k, file, THREADS_MAX, false, several_run) == 0, "%s: and for %u threads, more than there are rings to lend", backend, THREADS_MAX);
    kio_file_close(k, file);
    kio_close(k);
    TAP_CHECK(unlink(path_of("readers")) == 0);
}

/* One never wanted, or wanted a moment before the end. */
static void test_short_lives(void)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < 20; i++) {
        kio *k = backend_open();
        kio_file *file = file_make(k, "readers", KIO_DIRECT);
        if (i == 0) file_fill(k, file);
        if (i % 2 == 1) wrong += threads_read(k, file, 6, false);
        kio_file_close(k, file);
        kio_close(k);
    }
    tap_ok(wrong == 0 && readers_count() == 0, "%s: opened and closed many times", backend);
}

int main(int argc, char **argv)
{
    seed_take(argc, argv);
    if (!dir_make(dir, "readers")) abort();
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)sched_getcpu(), &set);
    TAP_CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
    backend = "psync";
    test_backend(false);
    test_several();
    kio *k = NULL;
    if (kio_open("uring", NULL, NULL, &k) == 0) {
        kio_close(k);
        backend = "uring";
        test_backend(true);
        test_several();
        test_short_lives();
    } else tap_skip("no io_uring here");
    dir_remove(dir);
    return tap_done();
}
