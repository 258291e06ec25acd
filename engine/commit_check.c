/*
 * What is checked under the tokens before anything is logged: locks of others, conflicts with what was committed since the transaction's snapshot, buckets, pages
 * and memory. Whatever fails here has changed nothing.
 */
#include "base/planted.h"
#include "base/preempt.h"
#include "engine/commit_many.h"

/* ---- locks ------------------------------------------------------------------------------------------------------- */

static const lock_owner *locks_owner(const commit *c)
{
    if (c->txn != NULL && txn_mode_is(c->txn, RW_PESSIMISTIC)) return &c->txn->locks;
    return c->owner_used ? &c->owner : NULL;
}

/* The first operation on what another transaction has locked. */
static const wal_op *locked_op(const commit *c)
{
    if (RW_LIKELY(!locks_active(c->e->locks)) || RW_PLANTED(write_through_locks)) return NULL;
    for (size_t i = 0; i < c->count; i++) {
        const wal_op *op = &c->sorted[i]->op;
        uint64_t holder;
        if (locks_conflict(c->e->locks, locks_owner(c), op->key, op->kind == WAL_OP_DELETE_RANGE ? &op->second : NULL, LOCK_EXCLUSIVE, &holder)) return op;
    }
    return NULL;
}

int lock_wait(engine *e, lock_owner *owner, rw_slice key, const rw_slice *to, int64_t timeout_ns)
{
    char text[KEY_TEXT_MAX];
    int error = locks_take(e->locks, owner, key, to, LOCK_EXCLUSIVE, timeout_ns);
    if (error == RW_EDEADLOCK) return 0; /* it holds nothing that it could give up: it queues again */
    return error == RW_ETIMEOUT ? rw_error_prefix(error, "the lock on key %s", key_text(key, text)) : error;
}

/* One lock at a time, with nothing else held: so such a commit is part of no deadlock. */
int commit_wait_for_locks(commit *c)
{
    engine *e = c->e;
    const wal_op *op = c->locked;
    if (c->txn != NULL && txn_mode_is(c->txn, RW_PESSIMISTIC)) return rw_error(RW_ECONFLICT, "a lock of the transaction was lost");
    int64_t timeout = (c->flags & ENGINE_CATALOG) != 0 ? 0 : (int64_t)e->options.lock_timeout_ms * 1000000;
    if (c->owner_used) locks_release(e->locks, &c->owner);
    else lock_owner_init_single(&c->owner, c->txn != NULL ? atomic_load(&c->txn->id) : 0);
    c->owner_used = true;
    int error = lock_wait(e, &c->owner, op->key, op->kind == WAL_OP_DELETE_RANGE ? &op->second : NULL, timeout);
    if (error == RW_ETIMEOUT && timeout == 0) return rw_error_prefix(RW_EBUSY, "a transaction is at work in the bucket");
    return error;
}

/* ---- conflicts --------------------------------------------------------------------------------------------------- */

static int conflict(rw_slice key, const char *what)
{
    char text[KEY_TEXT_MAX];
    return rw_error(RW_ECONFLICT, "conflict: another commit has written key %s, which the transaction %s", key_text(key, text), what);
}

static int writes_validate(const commit *c, uint64_t moment)
{
    if (RW_PLANTED(miss_write_conflict)) return 0;
    for (size_t i = 0; i < c->count; i++) {
        const placed_op *placed = c->sorted[i];
        if (versions_written_since(&c->e->versions, placed->part, placed->op.key, moment)) return conflict(placed->op.key, "writes");
    }
    return 0;
}

/* Partition by partition. */
static int range_validate(const commit *c, const read_entry *entry, uint64_t moment)
{
    if (RW_PLANTED(miss_phantom)) return 0;
    for (unsigned i = 0; i < c->part_count; i++) {
        size_t size = 0;
        if (versions_range_written_since(&c->e->versions, c->parts[i], entry->from, entry->to, moment, c->bound, &size))
            return conflict(rw_slice_of(c->bound, size), "has read in a range");
    }
    return 0;
}

static int reads_validate(const commit *c, uint64_t moment)
{
    const read_set *reads = c->txn->reads;
    if (reads == NULL) return 0;
    for (size_t i = 0; i < read_set_count(reads); i++) {
        read_entry entry = read_set_entry(reads, i);
        int error = 0;
        if (!entry.is_key) error = range_validate(c, &entry, moment);
        else if (!RW_PLANTED(miss_read_conflict) && versions_written_since(&c->e->versions, part_of(c, entry.from), entry.from, moment))
            error = conflict(entry.from, "has read");
        if (error != 0) return error;
    }
    return 0;
}

static int commit_validate(const commit *c)
{
    if (c->txn == NULL || txn_mode_is(c->txn, RW_PESSIMISTIC)) return 0;
    uint64_t moment = c->txn->snapshot.timestamp;
    int error = writes_validate(c, moment);
    if (error == 0) error = reads_validate(c, moment);
    if (error == 0 && snapshots_is_lost(&c->e->snapshots, moment))
        error = rw_error(RW_ESNAPSHOT_TOO_OLD, "the transaction's snapshot, at log position %llu, was given up", (unsigned long long)moment);
    return error;
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */

/* A page that is missing: with a writer it is read on the spot, without one the tokens must be given back first. */
static int miss_load(commit *c, partition *p)
{
    if (c->writer == NULL) return TREE_MISS;
    return trees_load_holding(c->writer, p, &c->held, &c->miss);
}

/* Reads every leaf of [from, to), so that a damaged page is met before anything is logged. */
static int range_resident(commit *c, rw_slice from, rw_slice to)
{
    trees *t = &c->e->trees;
    rw_slice at = from;
    while (rw_slice_compare(at, to) < 0) {
        tree_position position;
        partition *p = part_of(c, at);
        int state = tree_find(t, p, at, &position, &c->miss);
        if (state == TREE_MISS) {
            state = miss_load(c, p);
            if (state != 0) return state;
            continue;
        }
        rw_slice upper = node_upper_fence(pool_page(&t->pool, position.leaf));
        if (upper.size == 0) return 0;
        memcpy(c->bound, upper.data, upper.size);
        at = rw_slice_of(c->bound, upper.size);
    }
    return 0;
}

/* What the commit adds to one leaf: its operations follow each other in key order. */
typedef struct {
    uint32_t leaf;
    size_t bytes;
} leaf_growth;

/* Whether the leaf has room for this operation, too, whatever the order in which those of the commit are applied. */
static bool op_fits(const commit *c, const wal_op *op, const tree_position *at, leaf_growth *growth)
{
    trees *t = &c->e->trees;
    if (growth->leaf != at->leaf) *growth = (leaf_growth){.leaf = at->leaf};
    if (op->kind == WAL_OP_DELETE) return true;
    size_t more = tree_growth(t, at, op->key, op->second.size);
    growth->bytes += more;
    return more == 0 || growth->bytes <= tree_room(t, at->leaf);
}

static int key_resident(commit *c, placed_op *placed, leaf_growth *growth)
{
    for (;;) {
        int state = tree_find_again(&c->e->trees, placed->part, placed->op.key, &placed->at, &c->miss);
        if (state == TREE_MISS) {
            state = miss_load(c, placed->part);
            if (state != 0) return state;
            continue;
        }
        if (c->writer != NULL) return 0;
        if (!op_fits(c, &placed->op, &placed->at, growth)) return TREE_FRAMES;
        return c->records && engine_record_needs_frame(c->e, placed->part, placed->op.key, &placed->at, c->count - 1) ? TREE_FRAMES : 0;
    }
}

static int pages_check(commit *c)
{
    leaf_growth growth = {.leaf = FRAME_NONE};
    c->records = versions_wanted(&c->e->versions) && !(c->txn != NULL && c->txn->snapshot_open && snapshots_is_alone(&c->e->snapshots, &c->txn->snapshot));
    for (size_t i = 0; i < c->count; i++) {
        placed_op *placed = c->sorted[i];
        const wal_op *op = &placed->op;
        if (i + AHEAD_LEAF < c->count) trees_get_ahead_hashed(&c->e->trees, c->sorted[i + AHEAD_LEAF]->at.hash, TREES_AHEAD_CHANGE);
        int state = (c->flags & ENGINE_CATALOG) != 0 ? 0 : bucket_check_stored(c->e, op->key);
        if (state == 0) state = op->kind == WAL_OP_DELETE_RANGE ? range_resident(c, op->key, op->second) : key_resident(c, placed, &growth);
        if (state != 0) return state;
    }
    return 0;
}

/* On a full disk what splits will need must be free before anything is logged: dirty pages cannot make room then (W4). */
static int frames_check(const commit *c)
{
    pool *p = &c->e->trees.pool;
    int full = atomic_load_explicit(&p->space_error, memory_order_relaxed);
    uint64_t need = RW_MIN(c->count + TREE_LEVELS_MAX, (uint64_t)p->frame_count / 2);
    if (full == 0 || c->writer == NULL || atomic_load(&p->free_count) >= need) return 0;
    return rw_error(full, "the disk is full, and the cache has no room for a commit of %zu writes", c->count);
}

int commit_check(commit *c)
{
    c->locked = locked_op(c);
    if (RW_UNLIKELY(c->locked != NULL)) return COMMIT_LOCKED;
    RW_PREEMPT(c->e->kio);
    int state = commit_validate(c);
    if (state == 0) state = pages_check(c);
    return state != 0 ? state : frames_check(c);
}
