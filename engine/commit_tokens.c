/* Taking the tokens of all partitions that a commit writes, or validates reads in, in key order (W2). */
#include "engine/commit_many.h"

static partition *part_at(const commit *c, rw_slice key)
{
    return &c->e->trees.partitions[router_find_now(c->e->kio, &c->e->trees.router, key)];
}

static void part_hold(commit *c, partition *p)
{
    RW_ASSERT(!partition_set_has(&c->held, p->index));
    partition_set_add(&c->held, p->index);
    c->parts[c->part_count++] = p;
}

/* The partition of key, locked now or before. Called with keys in ascending order, so tokens are taken in key order. */
static partition *key_hold(commit *c, rw_slice key)
{
    if (c->part_count > 0) {
        partition *p = part_at(c, key);
        if (partition_set_has(&c->held, p->index)) return p; /* its bounds cannot move while it is held */
    }
    partition *p = trees_lock(&c->e->trees, key);
    part_hold(c, p);
    return p;
}

/* The partitions of [from, to). */
static int range_hold(commit *c, rw_slice from, rw_slice to)
{
    engine *e = c->e;
    unsigned char *low = malloc(e->trees.router.key_stride);
    if (low == NULL) return rw_error(RW_ENOMEM, "no memory to lock a range");
    partition *p = key_hold(c, from);
    for (;;) {
        rw_slice ignored, high;
        router_bounds(e->kio, &e->trees.router, p->index, low, &ignored, c->bound, &high);
        if (high.size == 0 || rw_slice_compare(high, to) >= 0) break;
        p = key_hold(c, high);
    }
    free(low);
    return 0;
}

/* How many of the operations from the first one on, in key order, have keys of the partition, which is held and has the first one's. */
static size_t ops_within(const commit *c, const partition *p, size_t first)
{
    size_t low = first + 1, high = c->count;
    if (low == high || part_at(c, c->sorted[high - 1]->op.key) == p) return high - first; /* most often; else it is looked for */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (part_at(c, c->sorted[middle]->op.key) == p) low = middle + 1;
        else high = middle;
    }
    return low - first;
}

/* run: how many operations are known to lie in the partition of the one before. */
static int op_hold(commit *c, size_t i, size_t *run)
{
    placed_op *placed = c->sorted[i];
    if (*run > 0) placed->part = c->sorted[i - 1]->part;
    else {
        placed->part = key_hold(c, placed->op.key);
        *run = ops_within(c, placed->part, i);
    }
    --*run;
    return placed->op.kind == WAL_OP_DELETE_RANGE ? range_hold(c, placed->op.key, placed->op.second) : 0;
}

static int read_hold(commit *c, const read_entry *entry)
{
    if (!entry->is_key) return range_hold(c, entry->from, entry->to);
    key_hold(c, entry->from);
    return 0;
}

/* Writes and reads, both in key order, merged. */
int tokens_take(commit *c)
{
    const read_set *reads = c->txn != NULL ? c->txn->reads : NULL;
    size_t read_count = reads != NULL ? read_set_count(reads) : 0, r = 0, run = 0;
    int error = 0;
    c->part_count = 0;
    memset(&c->held, 0, sizeof c->held);
    for (size_t i = 0; i < c->count && error == 0; i++) {
        for (; r < read_count && error == 0; r++) {
            read_entry entry = read_set_entry(reads, r);
            if (rw_slice_compare(entry.from, c->sorted[i]->op.key) > 0) break;
            error = read_hold(c, &entry);
        }
        if (error == 0) error = op_hold(c, i, &run);
    }
    for (; r < read_count && error == 0; r++) {
        read_entry entry = read_set_entry(reads, r);
        error = read_hold(c, &entry);
    }
    if (error != 0) tokens_give(c);
    return error;
}

void tokens_give(commit *c)
{
    for (unsigned i = c->part_count; i-- > 0;) trees_unlock(&c->e->trees, c->parts[i]);
    c->part_count = 0;
}

partition *part_of(const commit *c, rw_slice key)
{
    partition *p = part_at(c, key);
    RW_ASSERT(partition_set_has(&c->held, p->index));
    return p;
}
