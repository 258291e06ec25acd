/* What the tests of the back ends for real files share: the back end under test, a directory of its own, children. */
#ifndef TESTS_KERNEL_IO_TEST_H
#define TESTS_KERNEL_IO_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static inline kio *backend_open(void)
{
    kio *k = NULL;
    int code = kio_open(backend, NULL, NULL, &k);
    if (code != 0) {
        tap_diag("cannot open %s: %s", backend, rw_error_text());
        abort();
    }
    return k;
}

static inline char *path_of(const char *name)
{
    static char path[DIRS_PATH_MAX];
    path_join(path, dir, name);
    return path;
}

static inline kio_file *file_make(kio *k, const char *name, unsigned flags)
{
    kio_file *file = NULL;
    if (kio_file_open(k, path_of(name), flags | KIO_CREATE, &file) != 0) {
        tap_diag("%s", rw_error_text());
        abort();
    }
    return file;
}

static inline void *blocks_make(size_t count)
{
    void *blocks = aligned_alloc(BLOCK, count * BLOCK);
    if (blocks == NULL) abort();
    memset(blocks, 0, count * BLOCK);
    return blocks;
}

static inline bool sentence_has(const char *text)
{
    if (strstr(rw_error_text(), text) != NULL) return true;
    tap_diag("no \"%s\" in: %s", text, rw_error_text());
    return false;
}
static inline void child_test(int (*fn)(void *), void *arg, const char *what)
{
    int status = child_run(fn, arg, CHILD_SECONDS);
    if (status == 2) {
        tap_skip("not permitted here");
        return;
    }
    tap_ok(status == 0, "%s: %s %s", backend, what, child_said());
}

static inline void seed_take(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    tap_diag("replay: %s %llu", argv[0], (unsigned long long)seed);
    alarm(300);
}

#endif
