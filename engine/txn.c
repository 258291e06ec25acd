/* Transactions: begin, reads, writes, savepoints, end. What they check at commit is in commit_check.c, their handles in txn_handle.c. */
#include "engine/txn.h"

#include "base/planted.h"
#include "base/preempt.h"

#define TXN_MODES (RW_SERIALIZABLE | RW_READONLY | RW_PESSIMISTIC)
#define WRITES_KEPT ((size_t)8 << 10)      /* bytes of a write set that an idle slot keeps */

/* ---- begin and end ----------------------------------------------------------------------------------------------- */

static txn_counters *counters_of(const transaction *t)
{
    return &atomic_load_explicit(&t->e, memory_order_relaxed)->txn_counters[t->index % TXN_COUNTERS];
}

static int flags_check(unsigned flags)
{
    if ((flags & ~TXN_MODES) != 0) return rw_error(RW_EINVAL, "unknown flag 0x%x for a transaction", flags & ~TXN_MODES);
    if ((flags & (flags - 1)) == 0) return 0;
    return rw_error(RW_EINVAL, "a transaction has one mode, and flags 0x%x name several", flags);
}

int txn_begin(rw_db *db, engine *e, unsigned flags, transaction **out)
{
    transaction *t;
    int error = flags_check(flags);
    if (error == 0) error = txn_slot_take(&t);
    if (error != 0) return error;
    atomic_store_explicit(&t->e, e, memory_order_relaxed);
    t->db = db;
    if (t->writes == NULL) error = write_set_open(&t->writes);
    if (error != 0) {
        txn_slot_give(t);
        return error;
    }
    uint64_t id = atomic_fetch_add(&e->next_txn_id, 1) + 1;
    atomic_store_explicit(&t->id, id, memory_order_relaxed);
    atomic_store_explicit(&t->flags, flags, memory_order_relaxed);
    atomic_store_explicit(&t->writes_count, 0, memory_order_relaxed);
    atomic_store_explicit(&t->bytes, 0, memory_order_relaxed);
    t->cursors = 0;
    t->doomed = 0;
    lock_owner_init(&t->locks, id);
    t->snapshot_open = (flags & RW_PESSIMISTIC) == 0;
    if (!t->snapshot_open) atomic_store_explicit(&t->begun_ns, kio_now_ns(e->kio), memory_order_relaxed);
    else {
        snapshots_begin(&e->snapshots, &t->snapshot, id, engine_moment, e);
        atomic_store_explicit(&t->begun_ns, t->snapshot.begun_ns, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&e->children, 1, memory_order_relaxed);
    *out = t;
    return 0;
}

void txn_snapshot_end(transaction *t)
{
    if (!t->snapshot_open) return;
    t->snapshot_open = false;
    snapshots_end(&atomic_load_explicit(&t->e, memory_order_relaxed)->snapshots, &t->snapshot);
}

/* Gives back what others wait for: locks, and what its snapshot keeps alive. */
static void txn_release(transaction *t)
{
    if (txn_mode_is(t, RW_PESSIMISTIC)) locks_release(atomic_load_explicit(&t->e, memory_order_relaxed)->locks, &t->locks);
    txn_snapshot_end(t);
}

static void txn_end(transaction *t)
{
    engine *e = atomic_load_explicit(&t->e, memory_order_relaxed);
    if (write_set_bytes(t->writes) <= WRITES_KEPT) write_set_clear(t->writes);
    else {
        write_set_free(t->writes);
        t->writes = NULL;
    }
    if (t->reads != NULL) read_set_free(t->reads);
    t->reads = NULL;
    if (t->body.capacity > WRITES_KEPT) body_free(&t->body);
    body_clear(&t->body);
    txn_slot_give(t);
    atomic_fetch_sub_explicit(&e->children, 1, memory_order_release);
}

int rw_txn_begin(rw_db *db, unsigned flags, rw_txn **out)
{
    engine *e;
    transaction *t;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (out == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    error = txn_begin(db, e, flags, &t);
    if (error != 0) return error;
    *out = txn_handle(t);
    txn_leave(t);
    return 0;
}

uint64_t rw_txn_id(rw_txn *handle)
{
    transaction *t;
    if (txn_enter_to_end(handle, &t) != 0) return 0;
    uint64_t id = atomic_load(&t->id);
    txn_leave(t);
    return id;
}

/* ---- claims: what is read or written is locked, or noted ----------------------------------------------------------- */

static void bytes_note(transaction *t)
{
    size_t bytes = write_set_bytes(t->writes) + (t->reads != NULL ? read_set_bytes(t->reads) : 0) + t->locks.bytes;
    atomic_store_explicit(&t->bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&t->writes_count, write_set_count(t->writes), memory_order_relaxed);
}

/* Whether `more` bytes may still be taken. */
static int room_check(transaction *t, size_t more)
{
    uint64_t most = t->e->options.txn_bytes_max, bytes = atomic_load_explicit(&t->bytes, memory_order_relaxed);
    if (RW_LIKELY(bytes + more <= most)) return 0;
    return rw_error(RW_ETOOBIG, "transaction %llu would hold more than %llu bytes (txn_bytes_max)", (unsigned long long)atomic_load(&t->id),
                    (unsigned long long)most);
}

/* A victim's locks are given up at once: the others of the cycle wait for them. */
static int lock_failed(transaction *t, rw_slice key, int error)
{
    char key_words[KEY_TEXT_MAX];
    if (error == RW_ETIMEOUT) return rw_error_prefix(error, "the lock on key %s", key_text(key, key_words));
    if (error != RW_EDEADLOCK) return error;
    char text[512];
    snprintf(text, sizeof text, "%s", rw_error_text());
    t->doomed = RW_EDEADLOCK;
    locks_release(t->e->locks, &t->locks);
    return rw_error(RW_EDEADLOCK, "%s", text);
}

static int64_t lock_timeout(const transaction *t)
{
    return (int64_t)atomic_load_explicit(&t->e, memory_order_relaxed)->options.lock_timeout_ms * 1000000;
}

static int claim_lock(transaction *t, rw_slice from, const rw_slice *to, lock_mode mode)
{
    int error = locks_take(t->e->locks, &t->locks, from, to, mode, lock_timeout(t));
    RW_PREEMPT(t->e->kio);
    return error == 0 ? 0 : lock_failed(t, from, error);
}

static int reads_ready(transaction *t)
{
    return t->reads != NULL ? 0 : read_set_open(&t->reads);
}

/* Writers that hold the token and looked for locks before this one was there are done when the token has been free once. */
static void writers_pass(engine *e, rw_slice key)
{
    if (RW_PLANTED(read_before_token)) return;
    trees_unlock(&e->trees, trees_lock(&e->trees, key));
}

static int writers_pass_range(engine *e, rw_slice from, rw_slice to)
{
    size_t stride = e->trees.router.key_stride;
    unsigned char *buffer = malloc(2 * stride);
    if (buffer == NULL) return rw_error(RW_ENOMEM, "no memory to lock a range");
    for (rw_slice at = from;;) {
        rw_slice low, high;
        partition *p = trees_lock(&e->trees, at);
        router_bounds(e->kio, &e->trees.router, p->index, buffer, &low, buffer + stride, &high);
        trees_unlock(&e->trees, p);
        if (high.size == 0 || rw_slice_compare(high, to) >= 0) break;
        at = high; /* its bytes are copied before router_bounds writes there again: trees_lock is done with them by then */
    }
    free(buffer);
    return 0;
}

/* Before a key is read. */
static int claim_key(transaction *t, rw_slice key, bool for_update)
{
    int error = room_check(t, key.size);
    if (error != 0) return error;
    if (txn_mode_is(t, RW_PESSIMISTIC)) {
        bool lost = RW_PLANTED(lose_absent_lock) && !for_update;
        error = lost ? 0 : claim_lock(t, key, NULL, for_update ? LOCK_EXCLUSIVE : LOCK_SHARED);
        if (error == 0) writers_pass(t->e, key);
    } else if (for_update || txn_mode_is(t, RW_SERIALIZABLE)) {
        error = reads_ready(t);
        if (error == 0) error = read_set_add_key(t->reads, key);
    } else return 0;
    bytes_note(t);
    return error;
}

int txn_claim_range(transaction *t, rw_slice from, rw_slice to)
{
    int error = room_check(t, from.size + to.size);
    if (error != 0 || rw_slice_compare(from, to) >= 0) return error;
    if (txn_mode_is(t, RW_PESSIMISTIC)) {
        if (!RW_PLANTED(lose_range_lock)) error = claim_lock(t, from, &to, LOCK_SHARED);
        if (error == 0) error = writers_pass_range(t->e, from, to);
    } else if (txn_mode_is(t, RW_SERIALIZABLE)) {
        error = reads_ready(t);
        if (error == 0) error = read_set_add_range(t->reads, from, to);
    } else return 0;
    bytes_note(t);
    return error;
}

/* ---- reads and writes -------------------------------------------------------------------------------------------- */

static int own_value(const write_entry *own, void *buf, size_t *size)
{
    if (own->deleted) return RW_ENOTFOUND;
    size_t room = *size;
    *size = own->value.size;
    if (own->value.size > room) return rw_error(RW_ETOOSMALL, "the value has %zu bytes, the buffer %zu", own->value.size, room);
    if (own->value.size > 0) memcpy(buf, own->value.data, own->value.size);
    return 0;
}

static int read_in(transaction *t, rw_slice key, bool for_update, void *buf, size_t *size)
{
    write_entry own;
    bool is_own = write_set_count(t->writes) > 0 && write_set_find(t->writes, key, &own);
    int error = is_own && !for_update ? 0 : claim_key(t, key, for_update);
    if (error != 0) return error;
    return is_own ? own_value(&own, buf, size) : engine_get_at(t->e, key, txn_moment(t), buf, size);
}

static int txn_get(rw_txn *handle, rw_bucket bucket, rw_slice key, bool for_update, void *buf, size_t *size)
{
    transaction *t;
    stored_key stored;
    int error = txn_enter(handle, &t);
    if (error != 0) return error;
    if (size == NULL || (buf == NULL && *size > 0)) error = rw_error(RW_EINVAL, "the %s is NULL", size == NULL ? "size" : "buffer");
    else if (for_update && txn_mode_is(t, RW_READONLY)) error = rw_error(RW_EREADONLY, "the transaction is read-only");
    if (error == 0) error = for_update ? key_make(t->e, bucket, key, &stored) : key_make_at(t->e, bucket, txn_moment(t), key, &stored);
    if (error == 0) {
        error = read_in(t, stored.slice, for_update, buf, size);
        if (error == RW_ENOTFOUND) rw_error_fixed(error, "the key was not found");
        key_free(&stored);
    }
    txn_leave(t);
    return error;
}

int rw_txn_get(rw_txn *handle, rw_bucket bucket, rw_slice key, void *buf, size_t *size)
{
    return txn_get(handle, bucket, key, false, buf, size);
}

int rw_txn_get_for_update(rw_txn *handle, rw_bucket bucket, rw_slice key, void *buf, size_t *size)
{
    return txn_get(handle, bucket, key, true, buf, size);
}

static int txn_writable(const transaction *t)
{
    if (txn_mode_is(t, RW_READONLY)) return rw_error(RW_EREADONLY, "the transaction is read-only");
    return engine_write_allowed(atomic_load_explicit(&t->e, memory_order_relaxed));
}

static int txn_put(transaction *t, rw_slice key, rw_slice value)
{
    int error = room_check(t, key.size + value.size);
    if (error == 0 && txn_mode_is(t, RW_PESSIMISTIC)) error = claim_lock(t, key, NULL, LOCK_EXCLUSIVE);
    if (error == 0) error = write_set_put(t->writes, key, value);
    bytes_note(t);
    return error;
}

int rw_txn_put(rw_txn *handle, rw_bucket bucket, rw_slice key, rw_slice value)
{
    transaction *t;
    stored_key stored;
    int error = txn_enter(handle, &t);
    if (error != 0) return error;
    error = txn_writable(t);
    if (error == 0) error = value_check(value);
    if (error == 0) error = key_make(t->e, bucket, key, &stored);
    if (error == 0) {
        error = txn_put(t, stored.slice, value);
        key_free(&stored);
    }
    txn_leave(t);
    return error;
}

static int txn_delete(transaction *t, rw_slice key)
{
    char no_room[1];
    size_t size = 0;
    int error = room_check(t, key.size);
    if (error == 0) error = read_in(t, key, txn_mode_is(t, RW_PESSIMISTIC), no_room, &size);
    if (error == 0 || error == RW_ETOOSMALL) error = write_set_delete(t->writes, key);
    bytes_note(t);
    return error;
}

int rw_txn_del(rw_txn *handle, rw_bucket bucket, rw_slice key)
{
    transaction *t;
    stored_key stored;
    int error = txn_enter(handle, &t);
    if (error != 0) return error;
    error = txn_writable(t);
    if (error == 0) error = key_make(t->e, bucket, key, &stored);
    if (error == 0) {
        error = txn_delete(t, stored.slice);
        if (error == RW_ENOTFOUND) rw_error_fixed(error, "the key was not found");
        key_free(&stored);
    }
    txn_leave(t);
    return error;
}

int rw_txn_savepoint(rw_txn *handle, unsigned *id)
{
    transaction *t;
    int error = txn_enter(handle, &t);
    if (error != 0) return error;
    error = id == NULL ? rw_error(RW_EINVAL, "the out-parameter is NULL") : write_set_savepoint(t->writes, id);
    txn_leave(t);
    return error;
}

int rw_txn_rollback_to(rw_txn *handle, unsigned id)
{
    transaction *t;
    int error = txn_enter(handle, &t);
    if (error != 0) return error;
    error = write_set_rollback(t->writes, id);
    bytes_note(t);
    txn_leave(t);
    return error;
}

/* ---- commit and abort -------------------------------------------------------------------------------------------- */

static int write_gather(void *arg, const write_entry *one)
{
    transaction *t = arg;
    const wal_op delete = {.kind = WAL_OP_DELETE, .key = one->key};
    return one->deleted ? body_add(&t->body, &delete) : body_add_put(t->e, &t->body, one->key, one->value);
}

int txn_commit_prepare(transaction *t, unsigned flags)
{
    int error = t->doomed;
    if (error != 0) return rw_error(error, "transaction %llu was the victim of a deadlock", (unsigned long long)atomic_load(&t->id));
    if ((flags & ~RW_ASYNC) != 0) return rw_error(RW_EINVAL, "unknown write flag 0x%x", flags & ~RW_ASYNC);
    if (write_set_count(t->writes) == 0) return 0;
    error = engine_write_allowed(t->e);
    if (error == 0) error = write_set_for_each(t->writes, write_gather, t);
    if (error == 0 && t->reads != NULL) error = read_set_settle(t->reads);
    return error;
}

int txn_commit_apply(transaction *t, unsigned flags, uint64_t *end_lsn)
{
    engine *e = t->e;
    if (t->body.size == 0) return 0;
    if (RW_PLANTED(release_locks_early) && txn_mode_is(t, RW_PESSIMISTIC)) locks_release(e->locks, &t->locks);
    RW_PREEMPT(e->kio);
    return engine_commit_txn(e, &t->body, flags, t, end_lsn);
}

int txn_commit_end(transaction *t, int error)
{
    if (error != 0 && error != RW_EUNKNOWN) {
        char text[512];
        snprintf(text, sizeof text, "%s", rw_error_text());
        body_discard(t->e, &t->body);
        rw_error(error, "%s", text);
    }
    txn_counters *counters = counters_of(t);
    _Atomic uint64_t *counter = error == 0 ? &counters->committed : error == RW_ECONFLICT ? &counters->conflicted : &counters->aborted;
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    txn_release(t); /* what comes after it in the log cannot be durable before it */
    txn_end(t);
    return error;
}

int txn_commit(transaction *t, unsigned flags)
{
    engine *e = t->e;
    uint64_t end_lsn = 0;
    int error = txn_commit_prepare(t, flags);
    if (error == 0) error = txn_commit_apply(t, flags, &end_lsn);
    error = txn_commit_end(t, error);
    return error == 0 && end_lsn != 0 ? engine_durable(e, end_lsn, flags) : error;
}

int txn_enter_to_commit(rw_txn *handle, transaction **out)
{
    transaction *t;
    int error = txn_enter_to_end(handle, &t);
    if (error != 0) return error;
    if (t->cursors > 0) {
        error = rw_error(RW_EBUSY, "%u cursors of the transaction are open", t->cursors);
        txn_leave(t);
        return error;
    }
    *out = t;
    return 0;
}

int rw_txn_commit(rw_txn *handle, unsigned flags)
{
    transaction *t = NULL;
    int error = txn_enter_to_commit(handle, &t);
    return error != 0 ? error : txn_commit(t, flags);
}

void txn_abort(transaction *t)
{
    atomic_fetch_add_explicit(&counters_of(t)->aborted, 1, memory_order_relaxed);
    txn_release(t);
    txn_end(t);
}

void rw_txn_abort(rw_txn *handle)
{
    transaction *t;
    if (handle != NULL && txn_enter_to_end(handle, &t) == 0) txn_abort(t);
}
