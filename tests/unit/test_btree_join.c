/* A partition that was emptied is joined to its left neighbour: the leaf that takes in its range is as new as what was deleted there (T8). There is no engine here. */
#include "tests/unit/trees_test.h"

#define CACHE_BYTES (2u << 20)
#define RECORDS 300u

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
    bed *b = bed_make("join", CACHE_BYTES);
    partition *of;
    tree_miss miss;
    uint32_t first = 0;
    for (uint32_t i = 0; i < RECORDS; i++) bed_put(b, i, 100 + i);
    bed_cut(b);
    partition *left = b->left, *right = b->right;
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
