/* Applying logged operations to the trees, with tokens held: by commits of several operations, and by recovery. */
#include "engine/engine_internal.h"

typedef struct {
    engine *e;
    tree_writer *w;
    const partition_set *held;
} applier;

/* Finds key's place with room for value_length bytes, waiting for pages and frames as needed. */
static int position_find(const applier *a, partition *p, rw_slice key, size_t value_length, bool room, tree_position *at)
{
    trees *t = &a->e->trees;
    for (;;) {
        tree_miss miss;
        int state = tree_find(t, p, key, at, &miss);
        if (state == 0 && (!room || tree_has_room(t, at, key, value_length))) return 0;
        if (state == 0) state = tree_make_room(a->w, p, key, value_length, &miss);
        int error = 0;
        if (state == TREE_MISS) error = trees_load_holding(a->w, p, a->held, &miss);
        else if (state == TREE_FRAMES) error = tree_writer_fill_holding(a->w, a->held);
        else if (state != 0) error = state;
        if (error != 0) return error;
    }
}

/* Recovery only: an operation that the leaf's image holds already. Its extent, claimed because the log names it, may have been replaced since. */
static void already_there(trees *t, partition *p, const tree_position *at, const wal_op *op)
{
    extent_ref logged, present;
    if (op->kind != WAL_OP_PUT_EXTENT) return;
    memcpy(&logged, op->second.data, sizeof logged);
    if (at->found && tree_extent_at(t, at, &present) && present.address == logged.address) return;
    store_retire(&p->retired, logged.address, extent_blocks((uint32_t)op->key.size, logged.length));
}

static int apply_put(const applier *a, partition *p, const wal_op *op, uint64_t lsn)
{
    tree_position at;
    int error = position_find(a, p, op->key, op->second.size, true, &at);
    if (error != 0) return error;
    if (tree_leaf_timestamp(&a->e->trees, at.leaf) >= lsn) {
        RW_ASSERT(a->e->trees.recovering);
        already_there(&a->e->trees, p, &at, op);
        return 0;
    }
    tree_put_at(&a->e->trees, p, &at, op->key, op->second, op->kind == WAL_OP_PUT_EXTENT ? NODE_SLOT_EXTENT : 0, lsn);
    return 0;
}

static int apply_delete(const applier *a, partition *p, const wal_op *op, uint64_t lsn)
{
    tree_position at;
    int error = position_find(a, p, op->key, 0, false, &at);
    if (error != 0) return error;
    if (!at.found || tree_leaf_timestamp(&a->e->trees, at.leaf) >= lsn) return 0;
    tree_delete_at(&a->e->trees, p, &at, op->key, lsn);
    return 0;
}

/* Leaf after leaf, over all partitions of the range. */
static int apply_delete_range(const applier *a, const wal_op *op, uint64_t lsn)
{
    trees *t = &a->e->trees;
    unsigned char *buffer = malloc(2 * (size_t)t->router.key_stride);
    if (buffer == NULL) return rw_error(RW_ENOMEM, "no memory to delete a range");
    int error = 0;
    rw_slice at = op->key;
    while (rw_slice_compare(at, op->second) < 0) {
        tree_miss miss;
        rw_slice next;
        partition *p = &t->partitions[router_find_now(a->e->kio, &t->router, at)];
        unsigned char *to = at.data == buffer ? buffer + t->router.key_stride : buffer;
        int state = tree_delete_in_leaf(t, p, at, op->second, lsn, to, &next, &miss);
        if (state == TREE_MISS) {
            error = trees_load_holding(a->w, p, a->held, &miss);
            if (error != 0) break;
            continue;
        }
        if (next.size == 0) break;
        at = next;
    }
    free(buffer);
    return error;
}

int engine_apply(engine *e, tree_writer *w, const partition_set *held, partition *p, const wal_op *op, uint64_t lsn)
{
    const applier a = {.e = e, .w = w, .held = held};
    switch (op->kind) {
    case WAL_OP_PUT:
    case WAL_OP_PUT_EXTENT: return apply_put(&a, p, op, lsn);
    case WAL_OP_DELETE: return apply_delete(&a, p, op, lsn);
    case WAL_OP_DELETE_RANGE: return apply_delete_range(&a, op, lsn);
    }
    return rw_error(RW_ECORRUPT, "unknown operation %d in the log", (int)op->kind);
}
