/* What tests of trees without an engine share: trees over a real data file, and numbered records. */
#ifndef TESTS_TREES_TEST_H
#define TESTS_TREES_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "btree/trees.h"
#include "tests/support/dirs.h"
#include "tests/support/tap.h"

#define PAGE_BYTES 4096u

static inline void must(bool condition, const char *what)
{
    if (condition) return;
    tap_ok(false, "%s: %s", what, rw_error_text());
    tap_done();
    _exit(1);
}

typedef struct {
    trees t;
    kio *k;
    store *store;
    tree_writer *writer;
    partition *left, *right;       /* after bed_cut */
    char dir[DIRS_PATH_MAX];
} bed;

static inline bed *bed_make(const char *name, uint64_t cache_bytes)
{
    store_params params = {.page_size = PAGE_BYTES};
    bed *b = aligned_alloc(64, (size_t)rw_align_up(sizeof *b, 64));
    must(b != NULL, "memory");
    memset(b, 0, sizeof *b);
    must(dir_make(b->dir, name), "directory");
    must(kio_open("psync", NULL, NULL, &b->k) == 0, "back end");
    must(store_create(b->k, b->dir, &params, &b->store) == 0, "data file");
    must(trees_open(&b->t, b->k, b->store, PAGE_BYTES, cache_bytes) == 0, "trees");
    must(trees_create_first(&b->t, 1) == 0, "first partition");
    must(tree_writer_open(&b->t, &b->writer) == 0, "writer");
    return b;
}

static inline void bed_end(bed *b)
{
    tree_writer_close(b->writer);
    trees_close(&b->t);
    store_close(b->store);
    kio_close(b->k);
    dir_remove(b->dir);
    free(b);
}

static inline rw_slice key_of(char text[16], uint32_t number)
{
    return rw_slice_of(text, (size_t)snprintf(text, 16, "key %08u", number));
}

static inline void bed_put(bed *b, uint32_t number, uint64_t timestamp)
{
    static const char value[200];
    char text[16];
    rw_slice key = key_of(text, number);
    tree_position at = {.leaf = FRAME_NONE, .hash = trees_hash(key)};
    tree_miss miss;
    must(tree_writer_fill(b->writer) == 0, "frames");
    partition *p = trees_lock(&b->t, key);
    must(tree_make_room(b->writer, p, key, sizeof value, &at, &miss) == 0, "room");
    tree_put_at(&b->t, p, &at, key, rw_slice_of(value, sizeof value), 0, timestamp);
    trees_unlock(&b->t, p);
}

/* Cuts the only partition in two; both tokens are held afterwards. */
static inline void bed_cut(bed *b)
{
    must(tree_writer_fill(b->writer) == 0, "frames");
    b->left = trees_lock(&b->t, rw_slice_of("", 0));
    must(trees_partition_split(b->writer, b->left, 2, &b->right) == 0, "cut");
}

#endif
