/* The clock: what it evicts, and when, of a tree that nobody uses. There is no worker here: the test turns it. */
#include "tests/unit/trees_test.h"

#define CACHE_BYTES (4u << 20)
#define RECORDS 6000u
#define TURNS_MAX 200u

typedef struct {
    uint32_t leaves, inner;            /* resident, but for the root */
} residents;

static residents residents_count(bed *b)
{
    residents r = {0};
    for (uint32_t f = 0; f < b->t.pool.frame_count; f++) {
        const frame *fr = &b->t.pool.frames[f];
        if (atomic_load(&fr->partition) == PARTITION_NONE || fr->parent == FRAME_NONE) continue;
        *(fr->level == 0 ? &r.leaves : &r.inner) += 1;
    }
    return r;
}

static void batch_write(bed *b, write_batch *batch, bool evict)
{
    batch->op.result = kio_file_write(b->k, batch->op.file, batch->buffer, batch->op.length, batch->op.offset);
    must(write_batch_finish(&b->t.pool, batch, evict, false), "finish");
}

/* All pages are clean then. */
static void pages_write(bed *b, write_batch *batch)
{
    uint32_t list[RW_WRITE_BATCH_BYTES / PAGE_BYTES], count;
    partition *p = &b->t.partitions[0];
    for (unsigned level = 0; level < TREE_LEVELS_MAX; level++)
        while (p->dirty[level].head != FRAME_NONE) {
            count = 0;
            for (uint32_t f = p->dirty[level].head; f != FRAME_NONE && count < batch->capacity; f = b->t.pool.frames[f].dirty_next) list[count++] = f;
            partition_lock(b->k, p);
            must(write_batch_fill(&b->t.pool, batch, p, list, count) == 0, "batch");
            partition_unlock(b->k, p);
            batch_write(b, batch, false);
        }
}

/* The hand comes by every frame once. What it makes dirty on its way, parents of pages that go, is written. */
static void turn(bed *b, write_batch *batch)
{
    uint32_t from = atomic_load(&b->t.pool.hand);
    while (atomic_load(&b->t.pool.hand) - from < b->t.pool.frame_count) {
        if (pool_evict_step(&b->t.pool, batch, 1, false) == 0) continue;
        batch_write(b, batch, true);
        batch->in_flight = false;
    }
}

static void test_levels(void)
{
    write_batch batch;
    bed *b = bed_make("clock", CACHE_BYTES);
    for (uint32_t i = 0; i < RECORDS; i++) bed_put(b, i * 7919 % RECORDS, 100 + i);
    must(write_batch_init(&batch, PAGE_BYTES, UINT32_MAX) == 0, "a batch");
    pages_write(b, &batch);
    residents first = residents_count(b), now = first;
    unsigned turns = 0, gone = 0;
    for (; turns < TURNS_MAX && now.leaves > 0; turns++) {
        turn(b, &batch);
        now = residents_count(b);
    }
    tap_ok(first.leaves > 100 && first.inner > 2 && now.leaves == 0 && turns <= 3, "%u leaves that nobody uses are gone after %u turns", first.leaves, turns);
    tap_ok(now.inner == first.inner, "all %u pages above them are still there", now.inner);
    for (uint32_t f = 0; f < b->t.pool.frame_count; f++)
        if (b->t.pool.frames[f].level > 0) frame_use(&b->t.pool.frames[f]);
    for (; gone < TURNS_MAX && now.inner > 0; gone++) {
        turn(b, &batch);
        now = residents_count(b);
    }
    tap_ok(now.inner == 0 && gone > 8, "once used, they go %u turns later", gone);
    write_batch_destroy(&batch);
    bed_end(b);
}

int main(void)
{
    test_levels();
    return tap_done();
}
