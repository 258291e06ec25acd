/* A partition that was emptied is joined to its left neighbour: the leaf that takes in its range is as new as what was deleted there (T8). There is no engine here. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "btree/trees.h"
#include "tests/support/dirs.h"
#include "tests/support/tap.h"

#define PAGE_BYTES 4096u
#define CACHE_BYTES (2u << 20)
#define RECORDS 300u

static void must(bool condition, const char *what)
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
    char dir[DIRS_PATH_MAX];
} bed;

static bed *bed_make(void)
{
    store_params params = {.page_size = PAGE_BYTES};
    bed *b = aligned_alloc(64, (size_t)rw_align_up(sizeof *b, 64));
    must(b != NULL, "memory");
    memset(b, 0, sizeof *b);
    must(dir_make(b->dir, "join"), "directory");
    must(kio_open("psync", NULL, NULL, &b->k) == 0, "back end");
    must(store_create(b->k, b->dir, &params, &b->store) == 0, "data file");
    must(trees_open(&b->t, b->k, b->store, PAGE_BYTES, CACHE_BYTES) == 0, "trees");
    must(trees_create_first(&b->t, 1) == 0, "first partition");
    must(tree_writer_open(&b->t, &b->writer) == 0, "writer");
    return b;
}

static void bed_end(bed *b)
{
    tree_writer_close(b->writer);
    trees_close(&b->t);
    store_close(b->store);
    kio_close(b->k);
    dir_remove(b->dir);
    free(b);
}

static rw_slice key_of(char text[16], uint32_t number)
{
    return rw_slice_of(text, (size_t)snprintf(text, 16, "key %08u", number));
}

static void put(bed *b, uint32_t number, uint64_t timestamp)
{
    static const char value[200];
    char text[16];
    rw_slice key = key_of(text, number);
    tree_position at;
    tree_miss miss;
    must(tree_writer_fill(b->writer) == 0, "frames");
    partition *p = trees_lock(&b->t, key);
    must(tree_make_room(b->writer, p, key, sizeof value, &miss) == 0 && tree_find(&b->t, p, key, &at, &miss) == 0, "room");
    tree_put_at(&b->t, p, &at, key, rw_slice_of(value, sizeof value), 0, timestamp);
    trees_unlock(&b->t, p);
}

static void delete(bed *b, uint32_t number, uint64_t timestamp)
{
    char text[16];
    rw_slice key = key_of(text, number);
    tree_position at;
    tree_miss miss;
    partition *p = trees_lock(&b->t, key);
    must(tree_find(&b->t, p, key, &at, &miss) == 0 && at.found, "the key is there");
    tree_delete_at(&b->t, p, &at, key, 0, timestamp);
    must(tree_shrink(b->writer, p, key, &miss) == 0, "shrink");
    trees_unlock(&b->t, p);
}

/* Of the leaf that covers the key. */
static uint64_t leaf_timestamp(bed *b, uint32_t number, partition **p)
{
    char text[16];
    rw_slice key = key_of(text, number);
    tree_position at;
    tree_miss miss;
    *p = trees_lock(&b->t, key);
    must(tree_find(&b->t, *p, key, &at, &miss) == 0, "leaf");
    uint64_t timestamp = tree_leaf_timestamp(&b->t, at.leaf);
    trees_unlock(&b->t, *p);
    return timestamp;
}

int main(void)
{
    bed *b = bed_make();
    partition *left, *right, *of;
    tree_miss miss;
    uint32_t first = 0;
    for (uint32_t i = 0; i < RECORDS; i++) put(b, i, 100 + i);
    must(tree_writer_fill(b->writer) == 0, "frames");
    left = trees_lock(&b->t, rw_slice_of("", 0));
    must(trees_partition_split(b->writer, left, 2, &right) == 0, "cut");
    trees_unlock(&b->t, right);
    trees_unlock(&b->t, left);
    while (leaf_timestamp(b, first, &of) != 0 && of == left) first++;
    tap_ok(first > 0 && first < RECORDS, "two partitions, the second from record %u on", first);
    uint64_t before = leaf_timestamp(b, first - 1, &of);
    for (uint32_t i = RECORDS; i-- > first;) delete(b, i, 10000 + i);
    partition_lock(b->k, left);
    partition_lock(b->k, right);
    must(trees_partition_join(b->writer, left, right, &miss) == 0, "join");
    partition_unlock(b->k, right);
    partition_unlock(b->k, left);
    uint64_t after = leaf_timestamp(b, RECORDS - 1, &of);
    tap_ok(of == left, "once it is empty it is joined to the first");
    tap_ok(before < 10000 && after >= 10000 + RECORDS - 1, "the leaf that takes it in was last changed at %llu, and counts as changed at %llu", (unsigned long long)before,
           (unsigned long long)after);
    bed_end(b);
    return tap_done();
}
