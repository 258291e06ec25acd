/* What the tests of the version store share: one over real trees, whose partitions are cut and joined as the engine does it; and keys that are numbers. */
#ifndef TESTS_TXN_VERSIONS_TEST_H
#define TESTS_TXN_VERSIONS_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/tap.h"
#include "txn/versions.h"

#define PAGE_BYTES 4096u
#define CACHE_BYTES (4u << 20)
#define PARTITIONS_MAX 12u

static uint64_t seed;              /* of a run that is drawn; 0: nothing is */

static inline void must(bool condition, const char *what)
{
    if (condition) return;
    if (seed != 0) tap_diag("replay: VERSIONS_SEED=%llu", (unsigned long long)seed);
    tap_ok(false, "%s: %s", what, rw_error_text());
    tap_done();
    _exit(1);
}

typedef struct {
    trees t;
    snapshots s;
    versions v;
    kio *k;
    store *store;
    char dir[DIRS_PATH_MAX];
    uint32_t frames_free;          /* when there is no version */
    bool slow_moves;               /* readers are to come in between */
    _Atomic uint64_t reserved;     /* the next timestamp */
    _Atomic uint64_t applied;      /* all below are */
} bed;

static inline bed *bed_make(uint64_t bytes_max)
{
    store_params params = {.page_size = PAGE_BYTES};
    bed *b = aligned_alloc(64, (size_t)rw_align_up(sizeof *b, 64));
    must(b != NULL, "memory");
    memset(b, 0, sizeof *b);
    must(dir_make(b->dir, "versions"), "directory");
    must(kio_open("psync", NULL, NULL, &b->k) == 0, "back end");
    must(store_create(b->k, b->dir, &params, &b->store) == 0, "data file");
    must(trees_open(&b->t, b->k, b->store, PAGE_BYTES, CACHE_BYTES) == 0, "trees");
    must(trees_create_first(&b->t, 1) == 0, "first partition");
    snapshots_init(&b->s, b->k);
    versions_init(&b->v, &b->t, &b->s, bytes_max);
    b->frames_free = atomic_load(&b->t.pool.free_count);
    atomic_store(&b->reserved, 100);
    atomic_store(&b->applied, 100);
    return b;
}

static inline void bed_end(bed *b)
{
    versions_close(&b->v);
    trees_close(&b->t);
    store_close(b->store);
    kio_close(b->k);
    dir_remove(b->dir);
    free(b);
}

/* As the engine has it: everything that has its place in the log is waited for. */
static inline uint64_t bed_moment(void *arg)
{
    bed *b = arg;
    uint64_t end = atomic_load(&b->reserved);
    while (atomic_load(&b->applied) < end) kio_yield(b->k);
    return end;
}

static inline uint64_t operation_begin(bed *b)
{
    return atomic_fetch_add(&b->reserved, 1);
}

static inline void operation_end(bed *b, uint64_t timestamp)
{
    atomic_store(&b->applied, timestamp + 1);
}

static inline partition *bed_partition(bed *b, rw_slice key)
{
    return &b->t.partitions[router_find_now(b->k, &b->t.router, key)];
}

static inline void trim_all(bed *b)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &b->t.partitions[i];
        partition_lock(b->k, p);
        while (versions_trim(&b->v, p, 7)) continue;
        partition_unlock(b->k, p);
    }
}

static inline bool bed_is_clean(const bed *b)
{
    return versions_count(&b->v) == 0 && versions_bytes(&b->v) == 0 && atomic_load(&b->t.pool.free_count) == b->frames_free;
}

/* Where all snapshots have ended. */
static inline void bed_end_clean(bed *b, const char *name)
{
    trim_all(b);
    tap_ok(bed_is_clean(b), "%s", name);
    bed_end(b);
}

static inline void pause_move(bed *b)
{
    static const _Atomic uint32_t word;
    if (b->slow_moves) kio_sleep(b->k, &word, 0, 20000);
}

/* Cuts the partition that holds key at key, under both tokens; false: it begins there already, or there are too many. */
static inline bool bed_cut(bed *b, rw_slice key, unsigned partitions_max)
{
    unsigned char low_bytes[2 * RW_PAGE_SIZE_MAX / 4];
    rw_slice low, high;
    partition *p = bed_partition(b, key), *q = NULL;
    router_bounds(b->k, &b->t.router, p->index, low_bytes, &low, low_bytes + RW_PAGE_SIZE_MAX / 4, &high);
    if (rw_slice_equal(low, key) || router_count(&b->t.router) >= partitions_max) return false;
    for (unsigned i = partitions_max; i-- > 1;) /* the test's own choice of a place: those in use have a root */
        if (atomic_load(&b->t.partitions[i].root) == FRAME_NONE) q = &b->t.partitions[i];
    partition_lock(b->k, p);
    partition_lock(b->k, q);
    atomic_store(&q->root, 0);
    versions_move_begin(&b->v);
    router_insert(b->k, &b->t.router, key, q->index);
    pause_move(b);
    versions_move(&b->v, p, q, key);
    versions_move_end(&b->v);
    partition_unlock(b->k, q);
    partition_unlock(b->k, p);
    return true;
}

/* Joins the partition that holds key to its left neighbour. */
static inline void bed_join(bed *b, rw_slice key)
{
    unsigned char low_bytes[2 * RW_PAGE_SIZE_MAX / 4];
    rw_slice low, high;
    partition *right = bed_partition(b, key);
    router_bounds(b->k, &b->t.router, right->index, low_bytes, &low, low_bytes + RW_PAGE_SIZE_MAX / 4, &high);
    if (low.size == 0) return;
    partition *left = &b->t.partitions[router_find_before(&b->t.router, low)];
    partition_lock(b->k, left);
    partition_lock(b->k, right);
    versions_move_begin(&b->v);
    router_remove(b->k, &b->t.router, right->index);
    pause_move(b);
    versions_move(&b->v, right, left, low);
    versions_move_end(&b->v);
    store_retired_move(&left->retired, &right->retired);
    atomic_store(&right->root, FRAME_NONE);
    partition_unlock(b->k, right);
    partition_unlock(b->k, left);
}

/* Numbers in order. */
static inline rw_slice number_key(uint32_t number, unsigned char buffer[16])
{
    memcpy(buffer, "\0\0\0\2", 4);
    snprintf((char *)buffer + 4, 12, "%06u", number);
    return rw_slice_of(buffer, 10);
}

static inline uint32_t key_number(rw_slice key)
{
    char digits[7] = {0};
    must(key.size == 10, "a key as the test made it");
    memcpy(digits, (const char *)key.data + 4, 6);
    return (uint32_t)strtoul(digits, NULL, 10);
}

#endif
