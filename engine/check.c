/* The check of a running database, for tests at quiet moments: every partition's resident tree, and where all frames are. */
#include "engine/engine_internal.h"

#define FRAMES_IN_HAND_MAX (2 * sizeof(((tree_writer *)NULL)->reserve) / sizeof(uint32_t) + 1)

typedef struct {
    uint16_t order[RW_PARTITIONS_MAX];     /* partitions by key */
    unsigned count;
} partition_order;

static void order_add(void *arg, uint16_t index, rw_slice low)
{
    partition_order *order = arg;
    (void)low;
    order->order[order->count++] = index;
}

static void tokens_give(engine *e, const partition_order *order)
{
    for (unsigned i = order->count; i-- > 0;) partition_unlock(e->kio, &e->trees.partitions[order->order[i]]);
}

/* All tokens, in key order; again when a partition was cut or joined meanwhile. */
static void tokens_take(engine *e, partition_order *order)
{
    for (;;) {
        partition_order now = {.count = 0};
        order->count = 0;
        router_for_each(e->kio, &e->trees.router, order_add, order);
        for (unsigned i = 0; i < order->count; i++) partition_lock(e->kio, &e->trees.partitions[order->order[i]]);
        router_for_each(e->kio, &e->trees.router, order_add, &now);
        if (now.count == order->count && memcmp(now.order, order->order, now.count * sizeof *now.order) == 0) return;
        tokens_give(e, order);
    }
}

/* Each frame is free, in a tree, memory of old values, locks, filters or pending writes, or in the hands of the checkpointer, which may be reading pages, or of
 * workers, which read for queues. More than these are lost. */
static int frames_check(engine *e)
{
    const pool *p = &e->trees.pool;
    uint32_t reads = atomic_load(&e->fetch_frames) + atomic_load(&e->checkpointer.flush_frames), free_count = atomic_load(&p->free_count), in_trees = 0;
    for (uint32_t f = 0; f < p->frame_count; f++) in_trees += atomic_load(&p->frames[f].partition) != PARTITION_NONE;
    lock_counters locks_now;
    locks_counters(e->locks, &locks_now);
    uint64_t borrowed = versions_bytes(&e->versions) + locks_now.bytes + filters_figures(&e->trees.filters).bytes +
                        pending_frames(&e->trees.pending) * e->page_size + records_figures_get(&e->trees.records).bytes;
    uint64_t in_heaps = borrowed / e->page_size, known = free_count + in_trees + in_heaps;
    if (known <= p->frame_count && p->frame_count - known <= FRAMES_IN_HAND_MAX + reads) return 0;
    return rw_error(RW_ECORRUPT, "of %u frames %u are free, %u in trees and %llu are borrowed", p->frame_count, free_count, in_trees,
                    (unsigned long long)in_heaps);
}

static int dirty_check(engine *e, const partition_order *order)
{
    uint32_t dirty = 0, counted = atomic_load(&e->trees.pool.dirty_count);
    for (unsigned i = 0; i < order->count; i++) dirty += e->trees.partitions[order->order[i]].dirty_count;
    return dirty == counted ? 0 : rw_error(RW_ECORRUPT, "%u dirty pages in all partitions, counted as %u", dirty, counted);
}

int db_check_resident(rw_db *db)
{
    engine *e;
    partition_order order;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    tokens_take(e, &order);
    for (unsigned i = 0; i < order.count && error == 0; i++) error = tree_check_resident(&e->trees, &e->trees.partitions[order.order[i]]);
    if (error == 0) error = dirty_check(e, &order);
    if (error == 0) error = frames_check(e);
    tokens_give(e, &order);
    return error;
}
