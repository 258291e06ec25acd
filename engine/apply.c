/* Applying logged operations to the trees, with tokens held: by commits of several operations, and by recovery. */
#include "base/planted.h"
#include "base/preempt.h"
#include "engine/engine_internal.h"

typedef struct {
    engine *e;
    tree_writer *w;
    const partition_set *held;     /* NULL: what is missing is the caller's matter */
    const tree_position *before;   /* where the operation's key was found before, or NULL */
    tree_miss *miss;               /* for TREE_MISS, without held */
} applier;

/* Finds key's place, from where it was found before, with room for value_length bytes, waiting for pages and frames as needed. */
static int position_find(const applier *a, partition *p, rw_slice key, size_t value_length, bool room, tree_position *at)
{
    trees *t = &a->e->trees;
    for (;;) {
        tree_miss miss;
        int state = tree_find_again(t, p, key, at, &miss), error = 0;
        if (state == 0 && room && !tree_has_room(t, at, key, value_length)) state = tree_make_room(a->w, p, key, value_length, at, &miss);
        if (state == 0) return 0;
        if (a->held == NULL) {
            if (state == TREE_MISS) *a->miss = miss;
            return state;
        }
        if (state == TREE_MISS) error = trees_load_holding(a->w, p, a->held, &miss);
        else if (state == TREE_FRAMES) error = tree_writer_fill_holding(a->w, a->held);
        else error = state;
        if (error != 0) return error;
    }
}

/* ---- old values for snapshots ------------------------------------------------------------------------------------ */

unsigned engine_record(engine *e, partition *p, rw_slice key, uint64_t timestamp, const tree_position *at)
{
    if (!versions_wanted(&e->versions) || RW_PLANTED(forget_version)) return 0;
    unsigned flags = 0;
    version_image image = {.present = at->found};
    if (at->found) image.value = tree_value_at(&e->trees, at, &flags);
    image.is_extent = (flags & NODE_SLOT_EXTENT) != 0;
    unsigned kept = versions_record(&e->versions, p, key, timestamp, &image) ? TREE_KEEP_EXTENT : 0;
    RW_PREEMPT(e->kio);
    return kept;
}

bool engine_record_needs_frame(engine *e, const partition *p, rw_slice key, const tree_position *at, size_t others)
{
    if (!versions_wanted(&e->versions) || !versions_may_grow(&e->versions)) return false; /* without memory snapshots are given up (I2) */
    unsigned flags = 0;
    size_t value_size = at->found ? tree_value_at(&e->trees, at, &flags).size : 0;
    size_t size = versions_size(&e->versions, key.size, value_size) * (others + 1);
    return !versions_has_room(&e->versions, p, RW_MIN(size, frame_heap_object_max(&e->versions.heap)));
}

/* Memory for what stands at the position. *moved: pages may have been evicted for it, the position is void. Without memory snapshots are given up. */
static void record_prepare(const applier *a, partition *p, rw_slice key, const tree_position *at, bool *moved)
{
    uint32_t f;
    *moved = false;
    if (!engine_record_needs_frame(a->e, p, key, at, 0)) return;
    f = pool_frame_try(&a->e->trees.pool);
    if (f == FRAME_NONE) {
        *moved = true;
        if (pool_frame_take_holding(&a->e->trees.pool, a->held, &f) != 0) return;
    }
    versions_feed(&a->e->versions, p, f);
}

/* Records each key that a deletion of a range removes. */
typedef struct {
    engine *e;
    uint64_t timestamp;
} range_record;

static bool range_removed(void *arg, partition *p, rw_slice key, rw_slice value, unsigned flags)
{
    range_record *r = arg;
    if (!versions_wanted(&r->e->versions) || RW_PLANTED(forget_version)) return false;
    const version_image image = {.present = true, .is_extent = (flags & NODE_SLOT_EXTENT) != 0, .value = value};
    return versions_record(&r->e->versions, p, key, r->timestamp, &image);
}

/* Recovery only: an operation that the leaf's image holds already. Its extent, claimed because the log names it, may have been replaced since. */
static void already_there(trees *t, partition *p, const tree_position *at, const wal_op *op)
{
    extent_ref logged, present;
    if (op->kind != WAL_OP_PUT_EXTENT) return;
    memcpy(&logged, op->second.data, sizeof logged);
    if (at->found && tree_extent_at(t, at, &present) && present.address == logged.address) return;
    store_retire(&p->extents, logged.address, extent_blocks((uint32_t)op->key.size, logged.length));
}

/* The position, with memory for the version of what it holds. */
static int position_prepare(const applier *a, partition *p, const wal_op *op, tree_position *at)
{
    bool put = op->kind != WAL_OP_DELETE, moved = false;
    int error = position_find(a, p, op->key, put ? op->second.size : 0, put, at);
    if (error == 0) record_prepare(a, p, op->key, at, &moved);
    return error == 0 && moved ? position_find(a, p, op->key, put ? op->second.size : 0, put, at) : error;
}

/* Recovery only: a put whose leaf is on disk waits for it, as it does when it is committed. Whether the leaf's image holds it already is seen when that is read. */
static bool put_pends(const applier *a, partition *p, const wal_op *op, uint64_t lsn, tree_position *at)
{
    trees *t = &a->e->trees;
    tree_miss miss;
    if (!t->recovering || !a->e->replay_pends || op->kind != WAL_OP_PUT || bucket_of_stored(op->key) == CATALOG_BUCKET) return false;
    if (tree_find_again(t, p, op->key, at, &miss) != TREE_MISS || miss.level != 0) return false;
    if (pending_prepare(&t->pending, p, miss.ref, op->key, at->hash, op->second.size) != PENDING_READY) return false;
    pending_put(&t->pending, p, miss.ref, op->key, at->hash, op->second, lsn, p->image_lsn); /* the record begins somewhere before lsn */
    return true;
}

static int apply_put(const applier *a, partition *p, const wal_op *op, uint64_t lsn)
{
    tree_position at = a->before != NULL ? *a->before : (tree_position){.leaf = FRAME_NONE, .hash = trees_hash(op->key)};
    if (put_pends(a, p, op, lsn, &at)) return 0;
    int error = position_prepare(a, p, op, &at);
    if (error != 0) return error;
    if (tree_leaf_timestamp(&a->e->trees, at.leaf) >= lsn) {
        RW_ASSERT(a->e->trees.recovering);
        already_there(&a->e->trees, p, &at, op);
        return 0;
    }
    unsigned flags = engine_record(a->e, p, op->key, lsn, &at);
    if (op->kind == WAL_OP_PUT_EXTENT) flags |= NODE_SLOT_EXTENT;
    tree_put_at(&a->e->trees, p, &at, op->key, op->second, flags, lsn);
    return 0;
}

static int apply_delete(const applier *a, partition *p, const wal_op *op, uint64_t lsn)
{
    tree_position at = a->before != NULL ? *a->before : (tree_position){.leaf = FRAME_NONE, .hash = trees_hash(op->key)};
    int error = position_prepare(a, p, op, &at);
    if (error != 0) return error;
    if (!at.found || tree_leaf_timestamp(&a->e->trees, at.leaf) >= lsn) return 0;
    tree_delete_at(&a->e->trees, p, &at, op->key, engine_record(a->e, p, op->key, lsn, &at), lsn);
    return 0;
}

/* A leaf's worth of versions takes a frame or two: sees to it that one is free, while that is still possible. */
static void frame_spare(const applier *a, const tree_range_walk *walk)
{
    uint32_t f;
    pool *p = &a->e->trees.pool;
    if (walk->removed == NULL || !versions_wanted(&a->e->versions) || atomic_load(&p->free_count) > 2) return;
    if (pool_frame_take_holding(p, a->held, &f) == 0) pool_frame_free(p, f);
}

/* Leaf after leaf, over all partitions of the range. */
static int apply_delete_range(const applier *a, const wal_op *op, uint64_t lsn)
{
    trees *t = &a->e->trees;
    size_t stride = t->router.key_stride;
    unsigned char *buffer = malloc(3 * stride);
    if (buffer == NULL) return rw_error(RW_ENOMEM, "no memory to delete a range");
    int error = 0;
    rw_slice at = op->key;
    range_record record = {.e = a->e, .timestamp = lsn};
    tree_range_walk walk = {.key = buffer + 2 * stride, .removed = t->recovering ? NULL : range_removed, .arg = &record}; /* recovery has no snapshots */
    while (rw_slice_compare(at, op->second) < 0) {
        tree_miss miss;
        partition *p = &t->partitions[router_find_now(a->e->kio, &t->router, at)];
        walk.buffer = at.data == buffer ? buffer + stride : buffer;
        frame_spare(a, &walk);
        RW_PREEMPT(a->e->kio);
        int state = tree_delete_in_leaf(t, p, at, op->second, lsn, &walk, &miss);
        if (state == TREE_MISS) {
            error = trees_load_holding(a->w, p, a->held, &miss);
            if (error != 0) break;
            continue;
        }
        if (walk.next.size == 0) break;
        at = walk.next;
    }
    free(buffer);
    return error;
}

static int op_apply(const applier *a, partition *p, const wal_op *op, uint64_t lsn)
{
    switch (op->kind) {
    case WAL_OP_PUT:
    case WAL_OP_PUT_EXTENT: return apply_put(a, p, op, lsn);
    case WAL_OP_DELETE: return apply_delete(a, p, op, lsn);
    case WAL_OP_DELETE_RANGE: return apply_delete_range(a, op, lsn);
    }
    return rw_error(RW_ECORRUPT, "unknown operation %d in the log", (int)op->kind);
}

int engine_apply(engine *e, tree_writer *w, const partition_set *held, partition *p, const wal_op *op, const tree_position *before, uint64_t lsn)
{
    const applier a = {.e = e, .w = w, .held = held, .before = before};
    return op_apply(&a, p, op, lsn);
}

int engine_apply_try(engine *e, tree_writer *w, partition *p, const wal_op *op, uint64_t lsn, tree_miss *miss)
{
    const applier a = {.e = e, .w = w, .miss = miss};
    RW_ASSERT(e->trees.recovering && op->kind != WAL_OP_DELETE_RANGE);
    return op_apply(&a, p, op, lsn);
}
