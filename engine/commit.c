/*
 * Commits. Under the tokens of all partitions concerned: make sure that the change can be made, append the record to the log, make the change. So
 * the log's order is the order in which each key changed, and a change that is refused was neither logged nor made.
 */
#include "base/planted.h"
#include "base/memory.h"
#include "base/preempt.h"
#include "engine/commit_many.h"

#define THROTTLE_FROM_HALVES 3u        /* how many halves of options.log_bytes the log may be ahead before writers wait a little */
#define THROTTLE_LIMIT_HALVES 4u       /* and before they wait until it is less */
#define THROTTLE_WAIT_MAX_NS 8e6
#define SPACE_WAIT_NS 2000000          /* once for each write while cleaning is behind */
#define CROWDED_WAIT_NS 2000000
#define CROWDED_WAITS 5                /* so that no put waits long for a flush */
#define SHRINK_ATTEMPTS 16
#define WRITER_FRAMES 32u              /* of the cache for each writer that is out: its reserve, and the pages that it works on */

/* Writers wait for the frames of their reserves one by one: with too many of them each would end up with a part, and none left. */
static bool writer_admit(engine *e, bool waited, tree_writer **idle)
{
    kio_mutex_lock(e->kio, &e->writers_mutex);
    bool admitted = e->writers_out < RW_MAX(e->trees.pool.frame_count / WRITER_FRAMES, 1u);
    if (admitted) {
        e->writers_out++;
        *idle = e->writer_count > 0 ? e->writers[--e->writer_count] : NULL;
    }
    if (waited && admitted) e->writers_waiting--;
    if (!waited && !admitted) e->writers_waiting++;
    kio_mutex_unlock(e->kio, &e->writers_mutex);
    return admitted;
}

/* w: NULL when none could be made. */
static void writer_leave(engine *e, tree_writer *w)
{
    kio_mutex_lock(e->kio, &e->writers_mutex);
    bool kept = w != NULL && e->writer_count < ENGINE_WRITERS, waiting = e->writers_waiting > 0;
    if (kept) e->writers[e->writer_count++] = w;
    e->writers_out--;
    kio_mutex_unlock(e->kio, &e->writers_mutex);
    if (w != NULL && !kept) tree_writer_close(w);
    if (!waiting) return;
    atomic_fetch_add(&e->writers_word, 1);
    kio_wake(e->kio, &e->writers_word, 1);
}

int engine_writer_take(engine *e, tree_writer **w)
{
    uint32_t word = atomic_load(&e->writers_word);
    for (bool waited = false; !writer_admit(e, waited, w); waited = true) {
        kio_sleep(e->kio, &e->writers_word, word, -1);
        word = atomic_load(&e->writers_word);
    }
    int error = *w != NULL ? 0 : tree_writer_open(&e->trees, w);
    if (error != 0) writer_leave(e, NULL);
    return error;
}

void engine_writer_give(engine *e, tree_writer *w)
{
    if (w == NULL) return;
    while (w->reserved > 0) pool_frame_free(&e->trees.pool, w->reserve[--w->reserved]); /* a small cache cannot spare idle frames */
    writer_leave(e, w);
}

/* How far the log is ahead of the checkpoints. */
static inline uint64_t log_lag(engine *e)
{
    return wal_end_lsn(e->wal) - atomic_load_explicit(&e->checkpointer.checkpoint_lsn, memory_order_relaxed);
}

/* Many small waits, the longer the nearer the limit is, rather than one long one at the limit. */
int64_t engine_throttle_ns(engine *e, bool waited)
{
    bool behind = atomic_load_explicit(&e->checkpointer.space_behind, memory_order_relaxed) != 0;
    uint64_t half = e->options.log_bytes / 2, from = half * THROTTLE_FROM_HALVES, limit = half * THROTTLE_LIMIT_HALVES, lag = log_lag(e);
    if (RW_LIKELY(lag <= from)) return behind && !waited ? SPACE_WAIT_NS : 0;
    if ((waited && lag <= limit) || atomic_load(&e->failure) != 0 || atomic_load(&e->checkpointer.last_error) != 0) return 0;
    double share = (double)(RW_MIN(lag, limit) - from) / (double)(limit - from);
    return RW_MAX((int64_t)(share * share * THROTTLE_WAIT_MAX_NS), behind ? SPACE_WAIT_NS : 1);
}

void engine_throttle(engine *e)
{
    uint32_t word = atomic_load_explicit(&e->checkpointer.done_word, memory_order_acquire);
    int64_t wait_ns = engine_throttle_ns(e, false);
    while (RW_UNLIKELY(wait_ns > 0)) {
        kio_sleep(e->kio, &e->checkpointer.done_word, word, wait_ns);
        word = atomic_load(&e->checkpointer.done_word);
        wait_ns = engine_throttle_ns(e, true);
    }
}

int engine_durable(engine *e, uint64_t end_lsn, unsigned flags)
{
    return (flags & RW_ASYNC) != 0 || RW_PLANTED(ack_before_sync) ? 0 : wal_wait(e->wal, end_lsn);
}

/* ---- large values ------------------------------------------------------------------------------------------------ */

int engine_place_value(engine *e, wal_op *op, extent_ref *ref)
{
    if (op->kind != WAL_OP_PUT || op->second.size <= node_value_inline_max(e->page_size, op->key.size)) return 0;
    void *staging = rw_memory_aligned(EXTENT_STAGING_BYTES);
    if (staging == NULL) return rw_error(RW_ENOMEM, "no memory to write a value of %zu bytes", op->second.size);
    int error = store_extent_write(e->store, op->key, op->second, staging, EXTENT_STAGING_BYTES, ref);
    free(staging);
    if (error != 0) return error;
    op->kind = WAL_OP_PUT_EXTENT;
    op->second = rw_slice_of(ref, sizeof *ref);
    return 0;
}

void engine_unplace_value(engine *e, const wal_op *op)
{
    if (op->kind != WAL_OP_PUT_EXTENT) return;
    extent_ref ref;
    memcpy(&ref, op->second.data, sizeof ref);
    store_give_back(e->store, ref.address, extent_blocks((uint32_t)op->key.size, ref.length));
}

/* ---- one operation on one key ------------------------------------------------------------------------------------ */

/* One operation on its way into one partition. */
typedef struct {
    engine *e;
    wal_op op;
    tree_position at;                  /* of its key, found last */
    const commit_condition *condition; /* decides op's kind and value under the token; NULL: they stand */
    tree_writer *writer;               /* or NULL */
    tree_miss miss;
    uint64_t end_lsn;
    bool shrink;
    bool stops_at_miss, stops_at_lock; /* TREE_MISS, COMMIT_LOCKED are results, and not waited for */
    unsigned waits_left;               /* for memory in which the put could wait for its leaf; then the leaf is read for it alone */
    bool pended;                       /* it waits */
    lock_owner *owner;                 /* holds the lock that was in the way; or NULL */
} key_commit;

/* The key's position, to be found; its hint comes from memory meanwhile. */
static inline tree_position key_ahead(engine *e, rw_slice key)
{
    tree_position at = {.leaf = FRAME_NONE, .hash = trees_hash(key)};
    trees_get_ahead_hashed(&e->trees, at.hash, TREES_AHEAD_HINT);
    return at;
}

static int op_log(key_commit *c, _Atomic uint64_t *announce, uint64_t *lsn)
{
    unsigned char head[16];
    const wal_op *op = &c->op;
    rw_slice pieces[3] = {rw_slice_of(head, wal_op_encode_head(op, head)), op->key, op->second};
    unsigned flags = op->kind == WAL_OP_PUT_EXTENT ? WAL_NEEDS_DATA : 0;
    return wal_append(c->e->wal, WAL_COMMIT, pieces, op->second.size > 0 ? 3 : 2, flags, lsn, &c->end_lsn, announce);
}

/* Frames for what the operation needs, as far as the writer has them. 0 or TREE_FRAMES. */
static int version_room(key_commit *c, partition *p, const tree_position *at)
{
    if (!engine_record_needs_frame(c->e, p, c->op.key, at, 0)) return 0;
    if (c->writer == NULL || c->writer->reserved == 0) return TREE_FRAMES;
    versions_feed(&c->e->versions, p, c->writer->reserve[--c->writer->reserved]);
    return 0;
}

static int key_decide(key_commit *c, const tree_position *at)
{
    unsigned flags = 0;
    rw_slice present = {0};
    if (at->found) present = tree_value_at(&c->e->trees, at, &flags);
    return c->condition->decide(c->condition->arg, at->found, (flags & NODE_SLOT_EXTENT) != 0, present, &c->op);
}

static void key_applied(const key_commit *c, partition *p)
{
    p->commits++;
    atomic_store_explicit(&p->applied_lsn, c->end_lsn, memory_order_relaxed);
    atomic_store_explicit(&p->committing, 0, memory_order_release);
}

/*
 * A put whose leaf is on disk waits for it in memory (btree/pending.h), unless a snapshot may need what it replaces. That must be known before it is logged. So it is announced
 * before it looks, and until it can be read; and whoever begins a snapshot lets those through that are announced so before he reads the log's end (engine/moment.c).
 */
static int key_pend(key_commit *c, partition *p)
{
    engine *e = c->e;
    pending *pg = &e->trees.pending;
    const wal_op *op = &c->op;
    uint64_t lsn;
    if (op->kind != WAL_OP_PUT || c->condition != NULL || c->miss.level != 0 || versions_wanted(&e->versions) || bucket_of_stored(op->key) == CATALOG_BUCKET) return TREE_MISS;
    pending_state room = pending_prepare(pg, p, c->miss.ref, op->key, c->at.hash, op->second.size);
    if (room == PENDING_FULL && c->waits_left > 0 && atomic_load(&e->checkpointer.last_error) == 0) return COMMIT_CROWDED;
    if (room != PENDING_READY) return TREE_MISS;
    atomic_store(&p->committing, WAL_ANNOUNCE_BUSY);
    RW_PREEMPT(e->kio);
    int state = versions_wanted(&e->versions) ? TREE_MISS : 0;
    RW_PREEMPT(e->kio);
    if (state == 0) state = op_log(c, NULL, &lsn);
    RW_PREEMPT(e->kio);
    if (state == 0) {
        pending_put(pg, p, c->miss.ref, op->key, c->at.hash, op->second, lsn, lsn);
        key_applied(c, p);
        c->pended = true;
    } else {
        atomic_store_explicit(&p->committing, 0, memory_order_release);
        pending_release(pg, p);
    }
    return state;
}

/* One attempt with p's token held: 0 committed, TREE_MISS, TREE_FRAMES, COMMIT_LOCKED or an error. */
static int key_attempt(key_commit *c, partition *p)
{
    engine *e = c->e;
    trees *t = &e->trees;
    tree_position *at = &c->at;
    uint64_t holder;
    int state = bucket_check_stored(e, c->op.key);
    if (RW_UNLIKELY(locks_active(e->locks)) && state == 0 && !RW_PLANTED(write_through_locks) &&
        locks_conflict(e->locks, c->owner, c->op.key, NULL, LOCK_EXCLUSIVE, &holder)) return COMMIT_LOCKED;
    RW_PREEMPT(e->kio);
    if (state == 0) state = tree_find_again(t, p, c->op.key, at, &c->miss);
    if (state == TREE_MISS && c->op.kind == WAL_OP_DELETE && tree_denies(t, p, c->op.key, &c->miss)) return RW_ENOTFOUND;
    if (state == TREE_MISS) return key_pend(c, p);
    if (state == 0 && c->condition != NULL) state = key_decide(c, at);
    if (state == 0 && versions_wanted(&e->versions)) state = version_room(c, p, at);
    if (state != 0) return state;
    if (c->op.kind == WAL_OP_DELETE && !at->found) return RW_ENOTFOUND;
    if (c->op.kind != WAL_OP_DELETE && RW_UNLIKELY(!tree_has_room(t, at, c->op.key, c->op.second.size))) {
        if (c->writer == NULL) return TREE_FRAMES;
        state = tree_make_room(c->writer, p, c->op.key, c->op.second.size, at, &c->miss);
        if (state != 0) return state;
    }
    uint64_t lsn;
    int error = op_log(c, &p->committing, &lsn);
    if (error != 0) return error;
    RW_PREEMPT(e->kio);
    unsigned flags = 0;
    if (versions_wanted(&e->versions)) {
        snapshots_disturb(&e->snapshots);
        flags = engine_record(e, p, c->op.key, lsn, at);
    }
    if (c->op.kind == WAL_OP_DELETE) {
        tree_delete_at(t, p, at, c->op.key, flags, lsn);
        c->shrink = tree_wants_shrink(t, at->leaf);
    } else {
        tree_put_at(t, p, at, c->op.key, c->op.second, flags | (c->op.kind == WAL_OP_PUT_EXTENT ? NODE_SLOT_EXTENT : 0), lsn);
    }
    RW_PREEMPT(e->kio);
    key_applied(c, p);
    return 0;
}

/* Does what an attempt has found missing. */
static int key_prepare(key_commit *c, int state, page_ref *suspect, lock_owner *own)
{
    engine *e = c->e;
    int error = 0;
    if (state == TREE_MISS) return trees_load(&e->trees, &c->miss, suspect);
    if (state == COMMIT_CROWDED) {
        c->waits_left--;
        engine_writer_give(e, c->writer);
        c->writer = NULL;
        flush_wait(e, CROWDED_WAIT_NS);
        return 0;
    }
    if (state == COMMIT_LOCKED) {
        if (c->owner == NULL) lock_owner_init_single(own, 0);
        c->owner = own;
        engine_writer_give(e, c->writer); /* whoever holds the lock may need it, and the frames, to end (I5) */
        c->writer = NULL;
        return lock_wait(e, own, c->op.key, NULL, (int64_t)e->options.lock_timeout_ms * 1000000);
    }
    if (c->writer == NULL) error = engine_writer_take(e, &c->writer);
    return error != 0 ? error : tree_writer_fill(c->writer);
}

static int commit_key(key_commit *c)
{
    engine *e = c->e;
    page_ref suspect = page_ref_none();
    lock_owner own;
    int state;
    do {
        partition *p = trees_lock(&e->trees, c->op.key);
        state = key_attempt(c, p);
        trees_unlock(&e->trees, p);
        if (state <= 0 || (state == TREE_MISS && c->stops_at_miss) || (state == COMMIT_LOCKED && c->stops_at_lock)) break;
        int error = key_prepare(c, state, &suspect, &own);
        if (error != 0) state = error;
    } while (state > 0);
    engine_writer_give(e, c->writer);
    if (c->owner != NULL) locks_release(e->locks, c->owner);
    if (state == 0 && c->shrink) engine_shrink(e, c->op.key);
    return state;
}

int engine_commit_one(engine *e, const wal_op *op, unsigned flags)
{
    RW_ASSERT(op->kind != WAL_OP_DELETE_RANGE);
    extent_ref ref;
    key_commit c = {.e = e, .op = *op, .at = key_ahead(e, op->key), .waits_left = CROWDED_WAITS};
    engine_throttle(e);
    int error = engine_place_value(e, &c.op, &ref);
    if (error != 0) return error;
    error = commit_key(&c);
    if (error != 0) {
        engine_unplace_value(e, &c.op);
        return error;
    }
    if (c.pended) flush_throttle(e);
    return engine_durable(e, c.end_lsn, flags);
}

/* A look without consequences: the commit looks again. */
static bool key_is_locked(engine *e, rw_slice key)
{
    uint64_t holder;
    if (RW_LIKELY(!locks_active(e->locks)) || RW_PLANTED(write_through_locks)) return false;
    partition *p = trees_lock(&e->trees, key);
    bool locked = locks_conflict(e->locks, NULL, key, NULL, LOCK_EXCLUSIVE, &holder);
    trees_unlock(&e->trees, p);
    return locked;
}

int engine_commit_begin(engine *e, const wal_op *op, tree_miss *miss, uint64_t *end_lsn)
{
    extent_ref ref;
    key_commit c = {.e = e, .op = *op, .at = key_ahead(e, op->key), .stops_at_miss = miss != NULL, .stops_at_lock = true};
    if (miss == NULL && key_is_locked(e, op->key)) return COMMIT_LOCKED; /* before a large value is written for nothing */
    int state = miss == NULL ? engine_place_value(e, &c.op, &ref) : 0;
    if (state != 0) return state;
    state = commit_key(&c);
    if (state != 0 && miss == NULL) engine_unplace_value(e, &c.op);
    if (miss != NULL) *miss = c.miss;
    *end_lsn = c.end_lsn;
    return state;
}

int engine_commit_decided(engine *e, rw_slice key, const commit_condition *condition, unsigned flags)
{
    key_commit c = {.e = e, .op = {.kind = WAL_OP_PUT, .key = key}, .at = key_ahead(e, key), .condition = condition};
    engine_throttle(e);
    int error = commit_key(&c);
    return error != 0 ? error : engine_durable(e, c.end_lsn, flags);
}

static void shrink_at(engine *e, tree_writer *w, rw_slice key)
{
    page_ref suspect = page_ref_none();
    for (unsigned attempt = 0; attempt < SHRINK_ATTEMPTS; attempt++) {
        tree_miss miss;
        partition *p = trees_lock(&e->trees, key);
        int state = tree_shrink(w, p, key, &miss);
        trees_unlock(&e->trees, p);
        if (state != TREE_MISS || trees_load(&e->trees, &miss, &suspect) != 0) return;
    }
}

void engine_shrink(engine *e, rw_slice key)
{
    tree_writer *w;
    if (engine_writer_take(e, &w) != 0) return;
    shrink_at(e, w, key);
    engine_writer_give(e, w);
}

void engine_shrink_range(engine *e, rw_slice from, rw_slice to)
{
    tree_writer *w;
    if (engine_writer_take(e, &w) != 0) return;
    node *leaf = rw_memory_aligned(e->page_size);
    unsigned char *key = malloc(e->trees.router.key_stride);
    rw_slice at = from;
    while (leaf != NULL && key != NULL && rw_slice_compare(at, to) < 0) {
        shrink_at(e, w, at);
        if (trees_copy_leaf(&e->trees, at, TREES_COVERING, leaf, NULL, NULL) != 0) break;
        rw_slice upper = node_upper_fence(leaf);
        if (upper.size == 0) break;
        memcpy(key, upper.data, upper.size);
        at = rw_slice_of(key, upper.size);
    }
    free(key);
    free(leaf);
    engine_writer_give(e, w);
}
