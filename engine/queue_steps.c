/* What each kind of operation does, as far as it can without waiting. */
#include "engine/cursor.h"
#include "engine/queue.h"

#define LOCK_RETRY_NS 1000000          /* between looks at a lock that another holds */

/* ---- parking ----------------------------------------------------------------------------------------------------- */

/* For operations that want one thing at a time. */
static queue_fetch *fetch_of(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    if (back != NULL) return back;
    queue_fetch *f = queue_fetch_take(q, slot);
    RW_ASSERT(f != NULL); /* its own is free */
    return f;
}

static int park_for_page(rw_queue *q, queue_slot *slot, queue_fetch *back, const tree_miss *miss)
{
    queue_park_for_page(q, fetch_of(q, slot, back), miss, 0);
    return STEP_PARKED;
}

/* Writers wait for checkpoints that are behind, once, and as long as they are too far behind. */
static bool throttle_park(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    int64_t wait_ns = engine_throttle_ns(q->e, slot->throttled);
    if (RW_LIKELY(wait_ns == 0)) return false;
    slot->throttled = true;
    queue_park_for_time(q, fetch_of(q, slot, back), wait_ns);
    return true;
}

/* A lock in the way is looked at again a little later, until it has been too long. */
static int lock_park(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    uint64_t now = kio_now_ns(q->e->kio);
    if (slot->deadline_ns == 0) slot->deadline_ns = now + (uint64_t)q->e->options.lock_timeout_ms * 1000000;
    if (now >= slot->deadline_ns) return rw_error(RW_ETIMEOUT, "a transaction held a lock on what was to be written for %u ms", q->e->options.lock_timeout_ms);
    queue_park_for_time(q, fetch_of(q, slot, back), LOCK_RETRY_NS);
    return STEP_PARKED;
}

/* The end of a write: visible; durable too, or to be waited for. */
static int step_written(queue_slot *slot, uint64_t end_lsn)
{
    if ((slot->op->flags & RW_ASYNC) != 0 || end_lsn == 0) return 0;
    slot->end_lsn = end_lsn;
    return STEP_DURABLE;
}

static int flags_check(const rw_op *op)
{
    return RW_LIKELY((op->flags & ~RW_ASYNC) == 0) ? 0 : rw_error(RW_EINVAL, "unknown write flag 0x%x", op->flags & ~RW_ASYNC);
}

/* ---- one key ----------------------------------------------------------------------------------------------------- */

static int get_step(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    rw_op *op = slot->op;
    tree_miss miss;
    if (op->buf == NULL && op->size > 0) return rw_error(RW_EINVAL, "the buffer is NULL");
    rw_get_item item = {.key = op->key, .buf = op->buf, .size = op->size};
    int state = multi_get_one(q->e, op->bucket, &item, slot->alone ? NULL : &miss);
    op->size = item.size;
    return state == TREE_MISS ? park_for_page(q, slot, back, &miss) : state;
}

static int write_check(rw_queue *q, const rw_op *op)
{
    int error = engine_write_allowed(q->e);
    if (error == 0) error = flags_check(op);
    if (error == 0 && op->kind == RW_OP_PUT) error = value_check(op->value);
    return error;
}

static int write_step(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    const rw_op *op = slot->op;
    stored_key key;
    tree_miss miss;
    uint64_t end_lsn;
    int state = write_check(q, op);
    if (state != 0) return state;
    if (throttle_park(q, slot, back)) return STEP_PARKED;
    state = key_make(q->e, op->bucket, op->key, &key);
    if (state != 0) return state;
    bool is_put = op->kind == RW_OP_PUT;
    const wal_op write = {.kind = is_put ? WAL_OP_PUT : WAL_OP_DELETE, .key = key.slice, .second = is_put ? op->value : rw_slice_of(NULL, 0)};
    /* what is too long for a leaf is written, and what could not be fetched read, by this thread; but it waits for no lock: the holder's commit may be in this queue */
    bool alone = slot->alone || write.second.size > node_value_inline_max(q->e->page_size, key.slice.size);
    state = engine_commit_begin(q->e, &write, alone ? NULL : &miss, &end_lsn);
    if (state == 0) state = step_written(slot, end_lsn);
    else if (state == TREE_MISS) state = park_for_page(q, slot, back, &miss);
    else if (state == COMMIT_LOCKED) state = lock_park(q, slot, back);
    if (state == RW_ENOTFOUND) rw_error_fixed(state, "the key was not found");
    key_free(&key);
    return state;
}

/* ---- several keys ------------------------------------------------------------------------------------------------ */

/*
 * Goes over the parts of an operation, parking each that misses a page, with as many reads at once as there are fetches: a fetch that comes back goes on with its
 * own part, then with the next one that misses something. one looks at the part at *at and sets *at behind it; false: it has parked f.
 * True: all parts were looked at, and none is parked.
 */
typedef bool (*part_fn)(rw_queue *q, queue_slot *slot, queue_fetch *f, size_t *at);
static bool parts_step(rw_queue *q, queue_slot *slot, queue_fetch *back, size_t end, part_fn one)
{
    queue_fetch *f = back;
    if (back != NULL && back->fetch.due_ns == 0) {
        size_t at = back->part;
        if (!one(q, slot, back, &at)) f = NULL;
    }
    while (slot->next_part < end) {
        if (f == NULL) f = queue_fetch_take(q, slot);
        if (f == NULL) break;
        if (!one(q, slot, f, &slot->next_part)) f = NULL;
    }
    if (f != NULL) queue_fetch_give(q, f);
    return slot->fetches == 0;
}

static bool item_step(rw_queue *q, queue_slot *slot, queue_fetch *f, size_t *at)
{
    size_t i = (*at)++;
    rw_get_item *item = &slot->op->items[i];
    tree_miss miss;
    int state = multi_get_one(q->e, slot->op->bucket, item, slot->alone ? NULL : &miss);
    if (state != TREE_MISS) return true;
    queue_park_for_page(q, f, &miss, i);
    return false;
}

static int multi_get_step(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    const rw_op *op = slot->op;
    int error = slot->begun ? 0 : multi_get_check(q->e, op->bucket, op->items, op->count);
    if (error != 0) return error;
    return parts_step(q, slot, back, op->count, item_step) ? multi_get_result(op->items, op->count) : STEP_PARKED;
}

/* ---- scans ------------------------------------------------------------------------------------------------------- */

/* A record in a scan's buffer: the lengths of key and value, 4 bytes each, least byte first, key, value. */
#define RECORD_HEADER 8u

static void scan_close(queue_slot *slot)
{
    rw_cursor_close(slot->cursor);
    slot->cursor = NULL;
}

/* The record that the cursor stands on. *fits: there was room for it. */
static int record_add(rw_op *op, rw_cursor *c, size_t room, bool *fits)
{
    rw_slice key, value;
    int error = rw_cursor_key(c, &key);
    if (error == 0) error = rw_cursor_value(c, &value);
    if (error != 0) return error;
    *fits = room - op->size >= RECORD_HEADER + key.size + value.size;
    if (!*fits) return 0;
    unsigned char *to = (unsigned char *)op->buf + op->size;
    rw_store_u32(to, (uint32_t)key.size);
    rw_store_u32(to + 4, (uint32_t)value.size);
    memcpy(to + RECORD_HEADER, key.data, key.size);
    if (value.size > 0) memcpy(to + RECORD_HEADER + key.size, value.data, value.size);
    op->size += RECORD_HEADER + key.size + value.size;
    return 0;
}

int rw_op_record(const rw_op *op, size_t *position, rw_slice *key, rw_slice *value)
{
    if (op == NULL || position == NULL || key == NULL || value == NULL) return rw_error(RW_EINVAL, "an argument is NULL");
    if (op->kind != RW_OP_SCAN) return rw_error(RW_EINVAL, "the operation is no scan");
    if (*position >= op->size) return rw_error_fixed(RW_ENOTFOUND, "there are no more records");
    const unsigned char *from = (const unsigned char *)op->buf + *position;
    size_t key_size = rw_load_u32(from), value_size = rw_load_u32(from + 4);
    *key = rw_slice_of(from + RECORD_HEADER, key_size);
    *value = rw_slice_of(from + RECORD_HEADER + key_size, value_size);
    *position += RECORD_HEADER + key_size + value_size;
    return 0;
}

/* 0: there was room for what the cursor stands on, and more is wanted. */
enum { SCAN_OVER = 1 };

static int scan_take(queue_slot *slot)
{
    rw_op *op = slot->op;
    rw_slice key;
    bool fits = false;
    int error = rw_cursor_key(slot->cursor, &key);
    if (error != 0) return error;
    if (op->end.size > 0 && rw_slice_compare(key, op->end) >= 0) return SCAN_OVER;
    if (slot->limit > 0 && op->count == slot->limit) {
        op->more = 1;
        return SCAN_OVER;
    }
    error = record_add(op, slot->cursor, slot->room, &fits);
    if (error != 0) return error;
    if (fits) {
        op->count++;
        return 0;
    }
    op->more = 1;
    return op->count > 0 ? SCAN_OVER : rw_error(RW_ETOOSMALL, "the first record does not fit the %zu bytes of the buffer", slot->room);
}

static int scan_begin(rw_queue *q, queue_slot *slot)
{
    rw_op *op = slot->op;
    if (op->buf == NULL && op->size > 0) return rw_error(RW_EINVAL, "the buffer is NULL");
    if ((op->key.data == NULL && op->key.size > 0) || (op->end.data == NULL && op->end.size > 0)) return rw_error(RW_EINVAL, "a bound is NULL");
    int error = rw_cursor_open(q->db, NULL, op->bucket, &slot->cursor);
    if (error != 0) return error;
    slot->room = op->size;
    slot->limit = op->count;
    op->size = op->count = 0;
    op->more = 0;
    return 0;
}

static int scan_step(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    rw_op *op = slot->op;
    int state = slot->begun ? 0 : scan_begin(q, slot);
    if (state != 0) return state;
    slot->cursor->miss = slot->alone ? NULL : &slot->miss;
    do {
        state = slot->positioned ? rw_cursor_next(slot->cursor) : rw_cursor_seek(slot->cursor, op->key);
        if (state == TREE_MISS) return park_for_page(q, slot, back, &slot->miss);
        slot->positioned = true;
        if (state == 0) state = scan_take(slot);
    } while (state == 0);
    scan_close(slot);
    if (state < 0 && state != RW_ENOTFOUND && state != RW_ETOOSMALL) {
        op->size = slot->room;
        op->count = slot->limit;
        return state;
    }
    return state == RW_ETOOSMALL ? state : 0;
}

/* ---- commits ----------------------------------------------------------------------------------------------------- */

/* Brings in the page that a write needs. What is evicted again before the commit, or was not asked for because it is so much, the commit reads itself. */
static bool page_step(rw_queue *q, queue_slot *slot, queue_fetch *f, size_t *at)
{
    size_t begin = *at;
    wal_op op;
    tree_miss miss;
    int damaged = wal_op_decode(slot->body, at, &op);
    RW_ASSERT(damaged == 0); /* it was put together here */
    if (slot->alone || slot->pages_asked > q->e->trees.pool.frame_count / 8) return true;
    if (trees_touch(&q->e->trees, op.key, &miss) != TREE_MISS) return true;
    slot->pages_asked++;
    queue_park_for_page(q, f, &miss, begin);
    return false;
}

static int commit_prepare(rw_queue *q, queue_slot *slot)
{
    const rw_op *op = slot->op;
    if (op->kind == RW_OP_BATCH) return batch_check(q->db, op->batch, op->flags, &slot->body);
    transaction *t = NULL;
    int error = txn_enter_to_commit(op->txn, &t);
    if (error == 0 && t->db != q->db) {
        txn_leave(t);
        error = rw_error(RW_EINVAL, "the transaction belongs to another database");
    }
    if (error != 0) return error;
    slot->txn = t;
    error = txn_commit_prepare(t, op->flags);
    slot->body = body_slice(&t->body);
    return error;
}

/* A transaction is over with any result; a batch is again the caller's. */
static int commit_over(queue_slot *slot, int state)
{
    if (slot->txn != NULL) state = txn_commit_end(slot->txn, state);
    slot->txn = NULL;
    return state;
}

static int commit_step(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    const rw_op *op = slot->op;
    uint64_t end_lsn = 0;
    int state = slot->begun ? 0 : commit_prepare(q, slot);
    if (state != 0) return commit_over(slot, state);
    if (!parts_step(q, slot, back, slot->body.size, page_step) || throttle_park(q, slot, NULL)) return STEP_PARKED;
    state = slot->body.size > 0 ? engine_write_allowed(q->e) : 0; /* it may have been parked for long */
    if (state != 0) return commit_over(slot, state);
    unsigned flags = op->flags | ENGINE_NO_WAIT;
    state = slot->txn != NULL ? txn_commit_apply(slot->txn, flags, &end_lsn) : batch_apply(op->batch, flags, &end_lsn);
    if (state == COMMIT_LOCKED) state = lock_park(q, slot, NULL);
    if (state == STEP_PARKED) return state;
    state = commit_over(slot, state);
    return state == 0 ? step_written(slot, end_lsn) : state;
}

/* ---- all kinds --------------------------------------------------------------------------------------------------- */

void queue_step_undo(queue_slot *slot)
{
    if (slot->cursor != NULL) {
        slot->op->size = slot->room;
        slot->op->count = slot->limit;
        scan_close(slot);
    }
    (void)commit_over(slot, RW_ECANCELED);
}

int queue_step(rw_queue *q, queue_slot *slot, queue_fetch *back)
{
    switch (slot->op->kind) {
    case RW_OP_GET: return get_step(q, slot, back);
    case RW_OP_PUT:
    case RW_OP_DEL: return write_step(q, slot, back);
    case RW_OP_MULTI_GET: return multi_get_step(q, slot, back);
    case RW_OP_SCAN: return scan_step(q, slot, back);
    case RW_OP_BATCH:
    case RW_OP_TXN: return commit_step(q, slot, back);
    }
    return rw_error(RW_EINVAL, "there is no operation of kind %d", (int)slot->op->kind);
}
