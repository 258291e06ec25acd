/* Frames for who holds tokens (B6), when nobody else can do anything: there is no worker here, and the other partition is held by somebody else. */
#include "tests/unit/trees_test.h"

#define CACHE_BYTES (1u << 20)
#define FRAMES_USED_SHARE 2u           /* of the frames are pages */

/* Two partitions, all of whose pages are dirty, both held. */
static bed *bed_of_two(void)
{
    bed *b = bed_make("holding", CACHE_BYTES);
    uint32_t frames = atomic_load(&b->t.pool.free_count);
    for (uint32_t i = 0; atomic_load(&b->t.pool.free_count) > frames / FRAMES_USED_SHARE; i++) bed_put(b, i, 100 + i);
    bed_cut(b);
    return b;
}

/* Images of leaves of a partition that is held, as a worker's batch: written, but not finished, since that takes the token. */
static void batch_write(bed *b, write_batch *batch, partition *p, uint32_t max)
{
    uint32_t list[RW_WRITE_BATCH_BYTES / PAGE_BYTES], count = 0;
    for (uint32_t f = p->dirty[0].head; f != FRAME_NONE && count < RW_MIN(batch->capacity, max); f = b->t.pool.frames[f].dirty_next) list[count++] = f;
    must(count > 0 && write_batch_fill(&b->t.pool, batch, p, list, count) == 0, "batch");
    batch->op.result = kio_file_write(b->k, batch->op.file, batch->buffer, batch->op.length, batch->op.offset);
    must(!write_batch_finish(&b->t.pool, batch, true, false), "a batch is not finished without the token");
}

/* Takes all free frames, and five more, holding the left partition. */
static void test_take(bed *b, const char *name)
{
    uint32_t list[CACHE_BYTES / PAGE_BYTES], count = 0;
    partition_set held = {0};
    int error = 0;
    partition_set_add(&held, b->left->index);
    while ((list[count] = pool_frame_try(&b->t.pool)) != FRAME_NONE) count++;
    for (uint32_t i = 0; i < 5 && error == 0; i++) {
        error = pool_frame_take_holding(&b->t.pool, &held, &list[count]);
        count += error == 0;
    }
    tap_ok(error == 0, "%s: %d %s", name, error, error != 0 ? rw_error_text() : "");
    while (count > 0) pool_frame_free(&b->t.pool, list[--count]);
}

static void test_own(void)
{
    bed *b = bed_of_two();
    test_take(b, "who holds a partition evicts its pages");
    trees_unlock(&b->t, b->right);
    trees_unlock(&b->t, b->left);
    bed_end(b);
}

#define BATCHES_MAX 64u

/* All workers' batches may be full of such pages, and all other partitions held by those who wait for this one. */
static void test_landed(void)
{
    write_batch batches[BATCHES_MAX];
    unsigned used = 0;
    bed *b = bed_of_two();
    for (; b->left->dirty[0].head != FRAME_NONE; used++) {
        must(used < BATCHES_MAX && write_batch_init(&batches[used], PAGE_BYTES, UINT32_MAX) == 0, "a batch");
        batch_write(b, &batches[used], b->left, UINT32_MAX);
    }
    test_take(b, "and those that others have written and cannot let go without the token");
    trees_unlock(&b->t, b->right);
    trees_unlock(&b->t, b->left);
    for (unsigned i = 0; i < used; i++) {
        must(write_batch_finish(&b->t.pool, &batches[i], true, false), "finish");
        write_batch_destroy(&batches[i]);
    }
    tap_ok(atomic_load(&b->left->writes_in_flight[0]) + atomic_load(&b->left->writes_in_flight[1]) == 0, "no batch is in flight after that");
    bed_end(b);
}

/* Dirty pages that cannot be written hide no clean ones. */
static void test_unwritable(void)
{
    write_batch batch;
    bed *b = bed_of_two();
    must(write_batch_init(&batch, PAGE_BYTES, UINT32_MAX) == 0, "a batch");
    batch_write(b, &batch, b->left, 7);
    trees_unlock(&b->t, b->left);
    must(write_batch_finish(&b->t.pool, &batch, true, false), "finish");
    partition_lock(b->k, b->left);
    atomic_store(&b->t.pool.write_error, RW_EIO);
    test_take(b, "though no dirty page can be written, the clean ones go");
    uint32_t f;
    partition_set held = {0};
    partition_set_add(&held, b->left->index);
    while (pool_frame_try(&b->t.pool) != FRAME_NONE) continue;
    int error = 0;
    for (unsigned i = 0; i < 8 && error == 0; i++) error = pool_frame_take_holding(&b->t.pool, &held, &f);
    tap_ok(error == RW_EIO, "after the last one the reason is told: %d %s", error, rw_error_text());
    trees_unlock(&b->t, b->right);
    trees_unlock(&b->t, b->left);
    write_batch_destroy(&batch);
    bed_end(b);
}

int main(void)
{
    test_own();
    test_landed();
    test_unwritable();
    return tap_done();
}
