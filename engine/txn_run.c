/* Transactions that are run again after a conflict; single operations that read and write as one step. */
#include "engine/txn.h"

#define RUN_ATTEMPTS 1000u
#define PAUSE_FIRST_NS 50000u
#define PAUSE_MAX_NS 20000000u
#define COUNTER_BYTES 8u

static bool worth_another_run(int error)
{
    return error == RW_ECONFLICT || error == RW_EDEADLOCK || error == RW_ESNAPSHOT_TOO_OLD;
}

/* Half of the pause is certain, half is chance: those who met do not meet again. */
static void run_pause(engine *e, rw_random *random, unsigned attempt)
{
    static const _Atomic uint32_t never;
    uint64_t pause = (uint64_t)PAUSE_FIRST_NS << RW_MIN(attempt, 10u);
    pause = RW_MIN(pause, (uint64_t)PAUSE_MAX_NS);
    kio_sleep(e->kio, &never, 0, (int64_t)(pause / 2 + rw_random_below(random, pause / 2)));
}

static int run_once(rw_db *db, engine *e, unsigned flags, rw_txn_fn fn, void *arg, uint64_t *id)
{
    transaction *t;
    int error = txn_begin(db, e, flags & ~RW_ASYNC, &t);
    if (error != 0) return error;
    rw_txn *handle = txn_handle(t);
    *id = atomic_load(&t->id);
    txn_leave(t);
    int result = fn(handle, arg);
    error = txn_enter_to_end(handle, &t);
    if (error != 0) return rw_error_prefix(RW_EINVAL, "the function given to rw_txn_run must not end the transaction");
    if (result == 0 && t->cursors > 0) result = rw_error(RW_EBUSY, "the function given to rw_txn_run left %u cursors open", t->cursors);
    if (result == 0) return txn_commit(t, flags & RW_ASYNC);
    txn_abort(t);
    return result;
}

int rw_txn_run(rw_db *db, unsigned flags, rw_txn_fn fn, void *arg)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (fn == NULL) return rw_error(RW_EINVAL, "the function is NULL");
    rw_random random;
    bool seeded = false;
    for (unsigned attempt = 0;; attempt++) {
        uint64_t id = 0;
        error = run_once(db, e, flags, fn, arg, &id);
        if (!worth_another_run(error) || attempt + 1 == RUN_ATTEMPTS) return error;
        if (!seeded) rw_random_seed(&random, id);
        seeded = true;
        run_pause(e, &random, attempt);
    }
}

/* ---- compare and set --------------------------------------------------------------------------------------------- */

typedef struct {
    engine *e;
    rw_bucket bucket;
    rw_slice key, stored;
    const rw_slice *expected, *desired;
} cas;

static int cas_differs(rw_slice stored)
{
    char text[KEY_TEXT_MAX];
    return rw_error(RW_ECONFLICT, "key %s has another value than the one expected", key_text(stored, text));
}

/* In a transaction: for values that are, or become, too large for a leaf. */
static int cas_in_txn(rw_txn *txn, void *arg)
{
    const cas *c = arg;
    size_t size = 0;
    unsigned char *present = NULL;
    int error = rw_txn_get_for_update(txn, c->bucket, c->key, NULL, &size);
    if (error != 0 && error != RW_ETOOSMALL && error != RW_ENOTFOUND) return error;
    bool found = error != RW_ENOTFOUND, same = found == (c->expected != NULL) && (!found || size == c->expected->size);
    if (same && found && size > 0) {
        present = malloc(size);
        if (present == NULL) return rw_error(RW_ENOMEM, "no memory to compare a value of %zu bytes", size);
        error = rw_txn_get(txn, c->bucket, c->key, present, &size);
        same = error == 0 && memcmp(present, c->expected->data, size) == 0;
        free(present);
        if (error != 0) return error;
    }
    if (!same) return 1;
    if (c->desired != NULL) return rw_txn_put(txn, c->bucket, c->key, *c->desired);
    return found ? rw_txn_del(txn, c->bucket, c->key) : 0;
}

#define CAS_IN_TXN (-1000) /* decided: the value is an extent. No error has this number; what is above 0 would mean another attempt */

static int cas_decide(void *arg, bool present, bool is_extent, rw_slice value, wal_op *op)
{
    const cas *c = arg;
    if (present != (c->expected != NULL)) return cas_differs(c->stored);
    if (is_extent) return CAS_IN_TXN;
    if (present && !rw_slice_equal(value, *c->expected)) return cas_differs(c->stored);
    op->kind = c->desired == NULL ? WAL_OP_DELETE : WAL_OP_PUT;
    op->second = c->desired == NULL ? rw_slice_of("", 0) : *c->desired;
    return 0;
}

int rw_cas(rw_db *db, rw_bucket bucket, rw_slice key, const rw_slice *expected, const rw_slice *desired, unsigned flags)
{
    engine *e;
    stored_key stored;
    int error = engine_of_writer(db, &e);
    if (error != 0) return error;
    if ((flags & ~RW_ASYNC) != 0) return rw_error(RW_EINVAL, "unknown write flag 0x%x", flags & ~RW_ASYNC);
    if (expected != NULL) error = value_check(*expected);
    if (error == 0 && desired != NULL) error = value_check(*desired);
    if (error == 0) error = key_make(e, bucket, key, &stored);
    if (error != 0) return error;
    cas c = {.e = e, .bucket = bucket, .key = key, .stored = stored.slice, .expected = expected, .desired = desired};
    const commit_condition condition = {cas_decide, &c};
    bool large = desired != NULL && desired->size > node_value_inline_max(e->page_size, stored.slice.size);
    error = large ? CAS_IN_TXN : engine_commit_decided(e, stored.slice, &condition, flags);
    if (error == RW_ENOTFOUND && expected == NULL) error = 0; /* absent as expected, and so to stay */
    if (error == CAS_IN_TXN) error = rw_txn_run(db, RW_SNAPSHOT | flags, cas_in_txn, &c);
    if (error > 0) error = cas_differs(c.stored);
    key_free(&stored);
    return error;
}

/* ---- counters ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t delta, sum;
    unsigned char bytes[COUNTER_BYTES];
} addition;

static int add_decide(void *arg, bool present, bool is_extent, rw_slice value, wal_op *op)
{
    addition *a = arg;
    int64_t before = 0;
    if (is_extent || (present && value.size != COUNTER_BYTES)) return rw_error(RW_EINVAL, "the value is no counter: it does not have 8 bytes");
    if (present) memcpy(&before, value.data, sizeof before);
    if (__builtin_add_overflow(before, a->delta, &a->sum))
        return rw_error(RW_ETOOBIG, "%lld and %lld make more than a counter of 64 bits holds", (long long)before, (long long)a->delta);
    memcpy(a->bytes, &a->sum, sizeof a->sum);
    op->second = rw_slice_of(a->bytes, sizeof a->bytes);
    return 0;
}

int rw_add(rw_db *db, rw_bucket bucket, rw_slice key, int64_t delta, int64_t *result, unsigned flags)
{
    engine *e;
    stored_key stored;
    int error = engine_of_writer(db, &e);
    if (error != 0) return error;
    if ((flags & ~RW_ASYNC) != 0) return rw_error(RW_EINVAL, "unknown write flag 0x%x", flags & ~RW_ASYNC);
    error = key_make(e, bucket, key, &stored);
    if (error != 0) return error;
    addition a = {.delta = delta};
    const commit_condition condition = {add_decide, &a};
    error = engine_commit_decided(e, stored.slice, &condition, flags);
    key_free(&stored);
    if (error == 0 && result != NULL) *result = a.sum;
    return error;
}
