/*
 * Commits of several operations: tokens of all partitions concerned, in key order; check; one record; apply; give the tokens back.
 *
 * A small commit first tries without a writer: then nothing may be missing and nothing needs a split, which is so nearly always. What is missing is read
 * without tokens, and it begins again; after a few such rounds, and from the start when it is big, it takes a writer, and does what is needed with its tokens held.
 */
#include "base/planted.h"
#include "base/preempt.h"
#include "engine/commit_many.h"

#define MISSES_WITHOUT_WRITER 64u

/* ---- the operations and their order ------------------------------------------------------------------------------ */

/* By key; of the same key in the order of the log. */
static inline bool op_before(const placed_op *a, const placed_op *b)
{
    if (RW_LIKELY(a->head != b->head)) return a->head < b->head;
    int order = rw_slice_compare(a->op.key, b->op.key);
    return order != 0 ? order < 0 : a->offset < b->offset;
}

#define SORT_RUN 8u                    /* so many are sorted by insertion */

static void sort_run(placed_op **ops, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        placed_op *op = ops[i];
        size_t to = i;
        for (; to > 0 && op_before(op, ops[to - 1]); to--) ops[to] = ops[to - 1];
        ops[to] = op;
    }
}

/* The runs [left, middle) and [middle, end). */
static void runs_merge(placed_op **to, placed_op *const *left, placed_op *const *middle, placed_op *const *end)
{
    placed_op *const *right = middle;
    while (left < middle && right < end) {
        bool from_right = op_before(*right, *left);
        *to++ = *(from_right ? right : left);
        right += from_right;
        left += !from_right;
    }
    while (left < middle) *to++ = *left++;
    while (right < end) *to++ = *right++;
}

/* Merges runs, to and fro between the two halves of `ops`. The result lies in the first. */
static void ops_sort(placed_op **ops, size_t count)
{
    placed_op **from = ops, **to = ops + count;
    for (size_t i = 0; i < count; i += SORT_RUN) sort_run(ops + i, RW_MIN(count - i, (size_t)SORT_RUN));
    for (size_t run = SORT_RUN; run < count; run *= 2) {
        for (size_t i = 0; i < count; i += 2 * run)
            runs_merge(to + i, from + i, from + RW_MIN(count, i + run), from + RW_MIN(count, i + 2 * run));
        placed_op **swap = from;
        from = to;
        to = swap;
    }
    if (from != ops) memcpy(ops, from, count * sizeof *ops);
}

static int commit_memory(commit *c)
{
    c->ops = c->count <= COMMIT_SMALL ? c->small_ops : malloc(c->count * sizeof *c->ops);
    c->sorted = c->count <= COMMIT_SMALL ? c->small_sorted : malloc(2 * c->count * sizeof(placed_op *));
    if (c->ops == NULL || c->sorted == NULL) return rw_error(RW_ENOMEM, "no memory for a commit of %zu writes", c->count);
    return 0;
}

/* Decodes the operations. Returns how many bytes all their keys share. */
static size_t commit_decode(commit *c)
{
    size_t at = 0, shared = SIZE_MAX;
    for (size_t i = 0; i < c->count; i++) {
        placed_op *placed = &c->ops[i];
        placed->offset = at;
        placed->head = placed->at.hash = 0;
        placed->at.leaf = FRAME_NONE;
        placed->part = NULL;
        placed->shrink = false;
        int error = wal_op_decode(c->body, &at, &placed->op);
        RW_ASSERT(error == 0);
        c->sorted[i] = placed;
        if (placed->op.kind == WAL_OP_DELETE_RANGE) c->has_range = true;
        else {
            placed->at.hash = trees_hash(placed->op.key);
            if (c->count <= COMMIT_LARGE) trees_get_ahead_hashed(&c->e->trees, placed->at.hash, TREES_AHEAD_HINT);
        }
        if (placed->op.kind == WAL_OP_PUT_EXTENT) c->record_flags = WAL_NEEDS_DATA;
        shared = RW_MIN(shared, placed->op.key.size);
        if (memcmp(c->ops[0].op.key.data, placed->op.key.data, shared) != 0) shared = rw_slice_common_prefix(c->ops[0].op.key, placed->op.key);
    }
    RW_ASSERT(at == c->body.size);
    return shared;
}

/* Padded with zeros: heads that differ order the keys, equal ones say nothing. */
static uint64_t key_head(rw_slice key, size_t from)
{
    uint64_t head = 0;
    const unsigned char *bytes = (const unsigned char *)key.data + from;
    if (RW_LIKELY(key.size - from >= sizeof head)) return __builtin_bswap64(rw_load_u64(bytes));
    memcpy(&head, bytes, key.size - from);
    return __builtin_bswap64(head);
}

/* A transaction's come in order. */
static void commit_order(commit *c, size_t shared)
{
    bool ascending = true;
    c->large = c->has_range || c->count > COMMIT_LARGE;
    c->rewrites = c->has_range && c->count > 1;
    if (c->count == 1) return;
    for (size_t i = 0; i < c->count; i++) c->ops[i].head = key_head(c->ops[i].op.key, shared);
    for (size_t i = 1; i < c->count && ascending; i++) ascending = op_before(&c->ops[i - 1], &c->ops[i]);
    if (!ascending) ops_sort(c->sorted, c->count);
    for (size_t i = 1; i < c->count && !c->rewrites; i++) {
        const placed_op *one = c->sorted[i - 1], *next = c->sorted[i];
        c->rewrites = one->head == next->head && rw_slice_equal(one->op.key, next->op.key);
    }
}

static int writer_take(commit *c)
{
    int error = c->writer != NULL ? 0 : engine_writer_take(c->e, &c->writer);
    return error != 0 ? error : tree_writer_fill(c->writer);
}

static void writer_give(commit *c)
{
    engine_writer_give(c->e, c->writer);
    c->writer = NULL;
}

/* Without clearing what has its own marks of being unused. */
static int commit_open(commit *c, engine *e, const commit_body *body, unsigned flags, transaction *t)
{
    memset(c, 0, offsetof(commit, parts));
    c->part_count = 0;
    c->writer = NULL;
    c->bound = NULL;
    c->suspect = page_ref_none();
    c->owner_used = false;
    c->e = e;
    c->body = body_slice(body);
    c->flags = flags;
    c->txn = t;
    c->count = body->count;
    RW_ASSERT(c->count > 0);
    int error = commit_memory(c);
    if (error != 0) return error;
    commit_order(c, commit_decode(c));
    if (c->has_range || (t != NULL && t->reads != NULL)) {
        c->bound = malloc(e->trees.router.key_stride);
        if (c->bound == NULL) return rw_error(RW_ENOMEM, "no memory for a commit that goes over ranges");
    }
    return c->large ? writer_take(c) : 0;
}

static void commit_close(commit *c)
{
    writer_give(c);
    if (c->owner_used) locks_release(c->e->locks, &c->owner);
    if (c->ops != c->small_ops) free(c->ops);
    if (c->sorted != c->small_sorted) free(c->sorted);
    free(c->bound);
}

/* ---- applying ---------------------------------------------------------------------------------------------------- */

/* Where the check has found it: there is room, and nothing can have moved the leaf. */
static void op_apply_in_place(commit *c, placed_op *placed, uint64_t lsn)
{
    trees *t = &c->e->trees;
    const wal_op *op = &placed->op;
    tree_position *at = &placed->at;
    int state = tree_find_again(t, placed->part, op->key, at, &c->miss);
    RW_ASSERT(state == 0);
    if (op->kind == WAL_OP_DELETE && !at->found) return;
    unsigned flags = engine_record(c->e, placed->part, op->key, lsn, at);
    if (op->kind == WAL_OP_DELETE) {
        tree_delete_at(t, placed->part, at, op->key, flags, lsn);
        placed->shrink = tree_wants_shrink(t, at->leaf);
    } else tree_put_at(t, placed->part, at, op->key, op->second, flags | (op->kind == WAL_OP_PUT_EXTENT ? NODE_SLOT_EXTENT : 0), lsn);
}

static int ops_apply(commit *c, uint64_t lsn)
{
    for (size_t i = 0; i < c->count; i++) {
        placed_op *placed = &c->ops[i];
        RW_PREEMPT(c->e->kio);
        if (c->writer == NULL) {
            op_apply_in_place(c, placed, lsn + placed->offset);
            continue;
        }
        placed->shrink = placed->op.kind == WAL_OP_DELETE;
        int error = engine_apply(c->e, c->writer, &c->held, placed->part, &placed->op, &placed->at, lsn + placed->offset);
        if (error == 0) continue;
        engine_fail(c->e, error, rw_error_text()); /* it is in the log, and only a new open can make memory agree with it */
        return rw_error_prefix(RW_EUNKNOWN, "the commit was logged and not applied");
    }
    return 0;
}

/* Whether a bucket was dropped, which apply_end makes known. */
static void drop_note(commit *c, uint64_t lsn)
{
    if ((c->flags & ENGINE_CATALOG) == 0) return;
    for (size_t i = 0; i < c->count; i++) {
        const placed_op *placed = &c->ops[i];
        if (placed->op.kind != WAL_OP_DELETE_RANGE) continue;
        c->dropped = bucket_of_stored(placed->op.key);
        c->dropped_at = lsn + placed->offset;
    }
}

static int commit_log_and_apply(commit *c, uint64_t *end_lsn)
{
    uint64_t lsn;
    rw_slice body = c->body;
    partition *first = c->parts[0];
    if (RW_PLANTED(lose_one_of_batch) && c->count > 1) body.size = c->ops[c->count - 1].offset;
    if (c->txn != NULL) txn_snapshot_end(c->txn); /* it was validated: nothing that the commit replaces need be kept for it (I7) */
    int error = wal_append(c->e->wal, WAL_COMMIT, &body, 1, c->record_flags, &lsn, end_lsn, &first->committing);
    if (error != 0) return error;
    apply_begin(c->e, c, lsn, *end_lsn);
    error = ops_apply(c, lsn);
    if (error == 0) drop_note(c, lsn);
    RW_PREEMPT(c->e->kio);
    apply_end(c->e, c, lsn, *end_lsn);
    first->commits++;
    return error;
}

static int commit_attempt(commit *c, uint64_t *end_lsn)
{
    int state = tokens_take(c);
    if (state != 0) return state;
    state = commit_check(c);
    if (state == 0) state = commit_log_and_apply(c, end_lsn);
    tokens_give(c);
    return state;
}

/* Brings the pages that will be needed into the cache while no token is held; errors are met again, and reported, under the tokens. */
static void commit_preload(commit *c)
{
    size_t most = c->count > 1 ? RW_MIN(c->count, (size_t)c->e->trees.pool.frame_count / 8) : 0;
    for (size_t i = 0; i < most; i++) {
        if (i + AHEAD_HINT < most) trees_get_ahead_hashed(&c->e->trees, c->sorted[i + AHEAD_HINT]->at.hash, TREES_AHEAD_HINT);
        if (i + AHEAD_LEAF < most) trees_get_ahead_hashed(&c->e->trees, c->sorted[i + AHEAD_LEAF]->at.hash, TREES_AHEAD_LEAF);
        int ignored = trees_touch(&c->e->trees, c->sorted[i]->op.key, NULL);
        (void)ignored;
    }
}

static int commit_attempts(commit *c, uint64_t *end_lsn)
{
    for (unsigned misses = 0;;) {
        int state = commit_attempt(c, end_lsn), error = 0;
        bool writer = c->writer != NULL || state == TREE_FRAMES || (state == TREE_MISS && ++misses > MISSES_WITHOUT_WRITER);
        if (state == COMMIT_LOCKED && (c->flags & ENGINE_NO_WAIT) == 0) {
            writer_give(c); /* whoever holds the lock may need it, and the frames, to end (I5) */
            error = commit_wait_for_locks(c);
        } else if (state == TREE_MISS) {
            error = trees_load(&c->e->trees, &c->miss, &c->suspect);
            if (error == 0 && misses == 1 && !writer) commit_preload(c); /* where one page is missing, others are */
        } else if (state != TREE_FRAMES) {
            return state;
        }
        if (error == 0 && writer) error = writer_take(c);
        if (error != 0) return error;
    }
}

static void commit_shrink(commit *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const placed_op *placed = &c->ops[i];
        if (placed->shrink) engine_shrink(c->e, placed->op.key);
        else if (placed->op.kind == WAL_OP_DELETE_RANGE) engine_shrink_range(c->e, placed->op.key, placed->op.second);
    }
}

int engine_commit_txn(engine *e, const commit_body *body, unsigned flags, transaction *t, uint64_t *end_lsn)
{
    commit c;
    if ((flags & ENGINE_NO_WAIT) == 0) engine_throttle(e);
    int error = commit_open(&c, e, body, flags, t);
    if (error == 0 && c.writer != NULL) commit_preload(&c);
    if (error == 0) error = commit_attempts(&c, end_lsn);
    writer_give(&c); /* merging takes one of its own */
    if (error == 0) commit_shrink(&c);
    commit_close(&c);
    return error;
}

int engine_commit_many(engine *e, const commit_body *body, unsigned flags)
{
    uint64_t end_lsn = 0;
    int error = engine_commit_txn(e, body, flags, NULL, &end_lsn);
    return error != 0 ? error : engine_durable(e, end_lsn, flags);
}
