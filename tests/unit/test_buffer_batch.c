/* A batch that is filled a page at a time, so that others get the token in between. */
#include <pthread.h>

#include "tests/unit/trees_test.h"

#define CACHE_BYTES (4u << 20)
#define RECORDS 3000u
#define PLACES 8u
#define TURNS_MAX 1000000u

/* So many of the leaves that became dirty first. */
static void dirty_list_get(const bed *b, const partition *p, uint32_t *list, uint32_t count)
{
    uint32_t f = p->dirty[0].head;
    for (uint32_t i = 0; i < count; i++, f = b->t.pool.frames[f].dirty_next) {
        must(f != FRAME_NONE, "dirty leaves");
        list[i] = f;
    }
}

static uint64_t live_bytes(const bed *b)
{
    store_space space;
    store_space_get(b->t.store, &space);
    return space.live_bytes;
}

/* Places that were not needed can be had by others at once. */
static void test_places(void)
{
    write_batch batch, second;
    bed *b = bed_make("batch", CACHE_BYTES);
    partition *p = &b->t.partitions[0];
    for (uint32_t i = 0; i < RECORDS; i++) bed_put(b, i * 7919 % RECORDS, 100 + i);
    must(write_batch_init(&batch, PAGE_BYTES, UINT32_MAX) == 0 && write_batch_init(&second, PAGE_BYTES, UINT32_MAX) == 0, "batches");
    uint64_t before = live_bytes(b);
    partition_lock(b->k, p);
    must(write_batch_begin(&b->t.pool, &batch, p, PLACES) == 0, "begin");
    tap_ok(live_bytes(b) == before + PLACES * PAGE_BYTES, "places are taken when a batch begins");
    uint32_t list[PLACES];
    bool held = true;
    for (unsigned i = 0; i < 3; i++) {
        dirty_list_get(b, p, list, 1);
        must(write_batch_add(&b->t.pool, &batch, list, 1) == 1, "add");
        held = held && write_batch_yield(&b->t.pool, &batch);
    }
    tap_ok(held, "the token comes back when nobody wants it");
    partition_unlock(b->k, p);
    write_batch_close(&b->t.pool, &batch);
    tap_ok(live_bytes(b) == before + 3 * PAGE_BYTES && batch.op.length == 3 * PAGE_BYTES, "those that were not used are given back: %u bytes to write", batch.op.length);
    partition_lock(b->k, p);
    dirty_list_get(b, p, list, PLACES);
    must(write_batch_fill(&b->t.pool, &second, p, list, PLACES) == 0, "fill");
    tap_ok(second.address == batch.address + 3 * b->t.pool.page_blocks, "the next batch lies directly behind the first");
    batch.op.result = kio_file_write(b->k, batch.op.file, batch.buffer, batch.op.length, batch.op.offset);
    partition_unlock(b->k, p);
    must(write_batch_finish(&b->t.pool, &batch, false, true), "finish");
    partition_lock(b->k, p);
    must(write_batch_begin(&b->t.pool, &batch, p, 2) == 0, "begin");
    dirty_list_get(b, p, list, 3);
    tap_ok(write_batch_add(&b->t.pool, &batch, list, 1) == 1 && write_batch_add(&b->t.pool, &batch, &list[1], 2) == 1, "a batch takes as many as there are places for");
    tap_ok(write_batch_add(&b->t.pool, &batch, &list[2], 1) == 0 && batch.count == 2, "and no more");
    write_batch_close(&b->t.pool, &batch);
    partition_unlock(b->k, p);
    write_batch *const both[2] = {&batch, &second};
    for (unsigned i = 0; i < 2; i++) {
        both[i]->op.result = kio_file_write(b->k, both[i]->op.file, both[i]->buffer, both[i]->op.length, both[i]->op.offset);
        must(write_batch_finish(&b->t.pool, both[i], false, true), "finish");
        write_batch_destroy(both[i]);
    }
    bed_end(b);
}

typedef struct {
    bed *b;
    _Atomic bool has, let_go;
} other;

static void *other_main(void *arg)
{
    other *o = arg;
    partition *p = &o->b->t.partitions[0];
    partition_lock(o->b->k, p);
    atomic_store(&o->has, true);
    while (!atomic_load(&o->let_go)) kio_yield(o->b->k);
    partition_unlock(o->b->k, p);
    return NULL;
}

/* Who waits for the token gets it between two pages, and who fills the batch does not wait for him: he may wait for its frames. */
static void test_yield(void)
{
    write_batch batch;
    bed *b = bed_make("batch", CACHE_BYTES);
    partition *p = &b->t.partitions[0];
    other o = {.b = b};
    pthread_t thread;
    for (uint32_t i = 0; i < RECORDS; i++) bed_put(b, i * 7919 % RECORDS, 100 + i);
    must(write_batch_init(&batch, PAGE_BYTES, UINT32_MAX) == 0, "a batch");
    partition_lock(b->k, p);
    must(write_batch_begin(&b->t.pool, &batch, p, PLACES) == 0, "begin");
    uint32_t f, turns = 0;
    dirty_list_get(b, p, &f, 1);
    must(write_batch_add(&b->t.pool, &batch, &f, 1) == 1, "add");
    must(pthread_create(&thread, NULL, other_main, &o) == 0, "a thread");
    bool held = true;
    while (held && turns++ < TURNS_MAX) held = write_batch_yield(&b->t.pool, &batch);
    tap_ok(!held && atomic_load(&o.has), "who waits for the token has it after %u turns, and keeps it", turns);
    write_batch_close(&b->t.pool, &batch);
    batch.op.result = kio_file_write(b->k, batch.op.file, batch.buffer, batch.op.length, batch.op.offset);
    tap_ok(batch.op.result == 0 && !write_batch_finish(&b->t.pool, &batch, false, false), "what there is can be written meanwhile");
    atomic_store(&o.let_go, true);
    must(pthread_join(thread, NULL) == 0, "join");
    must(write_batch_finish(&b->t.pool, &batch, false, true), "finish");
    write_batch_destroy(&batch);
    bed_end(b);
}

int main(void)
{
    test_places();
    test_yield();
    return tap_done();
}
