/* Commits of many operations: tokens of all partitions concerned, in key order; check; one record; apply; give the tokens back. */
#include "base/planted.h"
#include "engine/engine_internal.h"

typedef struct {
    wal_op op;
    uint64_t offset;               /* in the record's body: with the record's LSN, the operation's own */
} placed_op;

typedef struct {
    engine *e;
    rw_slice body;
    placed_op *ops;                /* in log order */
    placed_op **sorted;            /* by key */
    size_t count;
    partition_set held;
    partition *parts[RW_PARTITIONS_MAX];
    unsigned part_count;
    tree_writer *writer;
    unsigned char *bound;          /* a key's room, for walks over ranges */
} commit;

static int sorted_compare(const void *a, const void *b)
{
    const placed_op *x = *(placed_op *const *)a, *y = *(placed_op *const *)b;
    int order = rw_slice_compare(x->op.key, y->op.key);
    if (order != 0) return order;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static size_t ops_count(rw_slice body)
{
    wal_op op;
    size_t at = 0, count = 0;
    while (wal_op_decode(body, &at, &op) == 0) count++;
    return count;
}

static int commit_open(commit *c, engine *e, rw_slice body)
{
    memset(c, 0, sizeof *c);
    c->e = e;
    c->body = body;
    c->count = ops_count(body);
    RW_ASSERT(c->count > 0);
    c->ops = malloc(c->count * sizeof *c->ops);
    c->sorted = malloc(c->count * sizeof(placed_op *));
    c->bound = malloc(e->trees.router.key_stride);
    if (c->ops == NULL || c->sorted == NULL || c->bound == NULL) return rw_error(RW_ENOMEM, "no memory for a commit of %zu writes", c->count);
    size_t at = 0;
    for (size_t i = 0; i < c->count; i++) {
        c->ops[i].offset = at;
        int error = wal_op_decode(body, &at, &c->ops[i].op);
        RW_ASSERT(error == 0);
        c->sorted[i] = &c->ops[i];
    }
    qsort(c->sorted, c->count, sizeof(placed_op *), sorted_compare);
    int error = engine_writer_take(e, &c->writer);
    return error != 0 ? error : tree_writer_fill(c->writer);
}

static void writer_give(commit *c)
{
    engine_writer_give(c->e, c->writer);
    c->writer = NULL;
}

static void commit_close(commit *c)
{
    writer_give(c);
    free(c->ops);
    free(c->sorted);
    free(c->bound);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static void part_hold(commit *c, partition *p)
{
    RW_ASSERT(!partition_set_has(&c->held, p->index));
    partition_set_add(&c->held, p->index);
    c->parts[c->part_count++] = p;
}

/* The partition of key, locked now or before. Called with keys in ascending order, so tokens are taken in key order. */
static void key_hold(commit *c, rw_slice key)
{
    if (c->part_count > 0 && trees_covers(&c->e->trees, c->parts[c->part_count - 1], key)) return;
    for (unsigned i = 0; i < c->part_count; i++)
        if (trees_covers(&c->e->trees, c->parts[i], key)) return; /* a range went on beyond this key */
    part_hold(c, trees_lock(&c->e->trees, key));
}

/* The partitions of [from, to). */
static int range_hold(commit *c, rw_slice from, rw_slice to)
{
    engine *e = c->e;
    unsigned char *low = malloc(e->trees.router.key_stride);
    if (low == NULL) return rw_error(RW_ENOMEM, "no memory to lock a range");
    key_hold(c, from);
    rw_slice at = from;
    for (;;) {
        rw_slice ignored, high;
        partition *p = &e->trees.partitions[router_find_now(e->kio, &e->trees.router, at)];
        RW_ASSERT(partition_set_has(&c->held, p->index));
        router_bounds(e->kio, &e->trees.router, p->index, low, &ignored, c->bound, &high);
        if (high.size == 0 || rw_slice_compare(high, to) >= 0) break;
        key_hold(c, high);
        at = high;
    }
    free(low);
    return 0;
}

static int tokens_take(commit *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const wal_op *op = &c->sorted[i]->op;
        int error = 0;
        if (op->kind == WAL_OP_DELETE_RANGE) error = range_hold(c, op->key, op->second);
        else key_hold(c, op->key);
        if (error != 0) return error;
    }
    return 0;
}

static void tokens_give(commit *c)
{
    for (unsigned i = c->part_count; i-- > 0;) trees_unlock(&c->e->trees, c->parts[i]);
    c->part_count = 0;
}

static partition *part_of(commit *c, rw_slice key)
{
    partition *p = &c->e->trees.partitions[router_find_now(c->e->kio, &c->e->trees.router, key)];
    RW_ASSERT(partition_set_has(&c->held, p->index));
    return p;
}

/* ---- check and apply --------------------------------------------------------------------------------------------- */

/* Reads every leaf of [from, to), so that a damaged page is met before anything is logged. */
static int range_check(commit *c, rw_slice from, rw_slice to)
{
    trees *t = &c->e->trees;
    rw_slice at = from;
    while (rw_slice_compare(at, to) < 0) {
        tree_position position;
        tree_miss miss;
        partition *p = part_of(c, at);
        int state = tree_find(t, p, at, &position, &miss);
        if (state == TREE_MISS) {
            int error = trees_load_holding(c->writer, p, &c->held, &miss);
            if (error != 0) return error;
            continue;
        }
        rw_slice upper = node_upper_fence(pool_page(&t->pool, position.leaf));
        if (upper.size == 0) return 0;
        memcpy(c->bound, upper.data, upper.size);
        at = rw_slice_of(c->bound, upper.size);
    }
    return 0;
}

static int key_check_resident(commit *c, rw_slice key)
{
    trees *t = &c->e->trees;
    partition *p = part_of(c, key);
    for (;;) {
        tree_position position;
        tree_miss miss;
        if (tree_find(t, p, key, &position, &miss) == 0) return 0;
        int error = trees_load_holding(c->writer, p, &c->held, &miss);
        if (error != 0) return error;
    }
}

static int commit_check(commit *c, unsigned flags)
{
    for (size_t i = 0; i < c->count; i++) {
        const wal_op *op = &c->sorted[i]->op;
        int error = (flags & ENGINE_CATALOG) != 0 ? 0 : bucket_check_stored(c->e, op->key);
        if (error != 0) return error;
        error = op->kind == WAL_OP_DELETE_RANGE ? range_check(c, op->key, op->second) : key_check_resident(c, op->key);
        if (error != 0) return error;
    }
    return 0;
}

static int commit_apply(commit *c, uint64_t lsn)
{
    for (size_t i = 0; i < c->count; i++) {
        const placed_op *placed = &c->ops[i];
        int error = engine_apply(c->e, c->writer, &c->held, part_of(c, placed->op.key), &placed->op, lsn + placed->offset);
        if (error == 0) continue;
        engine_fail(c->e, error, rw_error_text()); /* it is in the log, and only a new open can make memory agree with it */
        return rw_error_prefix(RW_EUNKNOWN, "the commit was logged and not applied");
    }
    c->parts[0]->commits++;
    return 0;
}

/* Brings the pages that will be needed into the cache while no token is held; errors are met again, and reported, under the tokens. */
static void commit_preload(commit *c)
{
    trees *t = &c->e->trees;
    size_t most = RW_MIN(c->count, (size_t)t->pool.frame_count / 8);
    for (size_t i = 0; i < most; i++) {
        page_ref suspect = page_ref_none();
        for (;;) {
            tree_position position;
            tree_miss miss;
            partition *p = trees_lock(t, c->sorted[i]->op.key);
            int state = tree_find(t, p, c->sorted[i]->op.key, &position, &miss);
            trees_unlock(t, p);
            if (state != TREE_MISS || trees_load(t, &miss, &suspect) != 0) break;
        }
    }
}

static unsigned record_flags(const commit *c)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->ops[i].op.kind == WAL_OP_PUT_EXTENT) return WAL_NEEDS_DATA;
    return 0;
}

static void commit_shrink(commit *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const wal_op *op = &c->ops[i].op;
        if (op->kind == WAL_OP_DELETE) engine_shrink(c->e, op->key);
        else if (op->kind == WAL_OP_DELETE_RANGE) engine_shrink_range(c->e, op->key, op->second);
    }
}

/* On a full disk what splits will need must be free before anything is logged: dirty pages cannot make room then (W4). */
static int frames_check(const commit *c)
{
    pool *p = &c->e->trees.pool;
    int full = atomic_load_explicit(&p->space_error, memory_order_relaxed);
    uint64_t need = RW_MIN(c->count + TREE_LEVELS_MAX, (uint64_t)p->frame_count / 2);
    if (full == 0 || atomic_load(&p->free_count) >= need) return 0;
    return rw_error(full, "the disk is full, and the cache has no room for a commit of %zu writes", c->count);
}

int engine_commit_many(engine *e, rw_slice body, unsigned flags)
{
    commit c;
    uint64_t lsn = 0, end_lsn = 0;
    engine_throttle(e);
    int error = commit_open(&c, e, body);
    if (error == 0) {
        commit_preload(&c);
        error = tokens_take(&c);
        if (error == 0) error = commit_check(&c, flags);
        if (error == 0) error = frames_check(&c);
        if (RW_PLANTED(lose_one_of_batch) && c.count > 1) body.size = c.ops[c.count - 1].offset;
        if (error == 0) error = wal_append(e->wal, WAL_COMMIT, &body, 1, record_flags(&c), &lsn, &end_lsn);
        if (error == 0) error = commit_apply(&c, lsn);
        tokens_give(&c);
        writer_give(&c); /* merging takes one of its own */
        if (error == 0) commit_shrink(&c);
    }
    commit_close(&c);
    return error != 0 ? error : engine_durable(e, end_lsn, flags);
}
