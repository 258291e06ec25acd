#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/isolation/workload_internal.h"

static history_txn *txn_current(worker *self)
{
    history *h = self->w->h;
    const history_strand *strand = &h->strands[self->strand];
    return &h->txns[strand->txn_first + strand->txn_count - 1];
}

static void txn_open(worker *self, history_mode mode)
{
    history_txn *txn = history_begin(self->w->h, self->strand, mode);
    self->stamp++;
    self->mode = mode;
    self->counter_write_count = 0;
    txn->begin_from = workload_tick(self->w);
}

/* Now that they are committed, the numbers that it wrote name versions. Only its last of each counter was ever to be seen. */
static void counters_publish(worker *self)
{
    for (uint32_t i = 0; i < self->counter_write_count; i++) {
        const counter_write *write = &self->counter_writes[i];
        bool last = true;
        for (uint32_t j = i + 1; j < self->counter_write_count; j++) last = last && self->counter_writes[j].key != write->key;
        _Atomic uint32_t *slot = workload_counter_version(self->w, write->key, write->count);
        if (last && slot != NULL) atomic_store_explicit(slot, write->version, memory_order_relaxed);
    }
}

static void txn_close(worker *self, int code)
{
    txn_current(self)->commit_to = workload_tick(self->w);
    history_end(self->w->h, self->strand, code == 0 ? HISTORY_COMMITTED : HISTORY_ABORTED);
    if (code == 0) counters_publish(self);
    self->txn = NULL;
}

/* Whether a code is one that any transaction may meet; counts it. Others are failures. */
static bool code_expected(worker *self, const char *what, int code)
{
    switch (code) {
    case 0: return true;
    case RW_ECONFLICT: self->conflicts++; return true;
    case RW_EDEADLOCK: self->deadlocks++; return true;
    case RW_ETIMEOUT: self->timeouts++; return true;
    case RW_ESNAPSHOT_TOO_OLD: self->snapshots_too_old++; return true;
    case RW_ENOMEM: self->lock_memory++; return true;         /* locks have a share of a tiny cache, and range locks over filler are many */
    default: return workload_failed(self, what, code);
    }
}

/* Half of all accesses go to the first keys, so that there are conflicts however many keys there are. */
static uint32_t draw_key(worker *self)
{
    uint32_t few = self->w->keys < 32 ? self->w->keys : 32;
    return (uint32_t)prng_below(&self->random, prng_below(&self->random, 2) == 0 ? few : self->w->keys);
}

static int change_witness(worker *self, uint32_t key, uint32_t version, bool deleted)
{
    bool present;
    uint32_t own;
    int code = call_get(self, key + 1, prng_below(&self->random, 2) == 0, &present);
    return code != 0 ? code : call_put(self, key + 1, version, deleted, &own);
}

/* Whether a delete surely is a write: not one that may only take back what the transaction wrote itself, over nobody knows what. */
static bool delete_tells(worker *self, uint32_t key)
{
    const key_view *view = call_view(self, key);
    return view->known || !view->touched;
}

/* Reads a key and writes what depends on it. */
static int do_update(worker *self, uint32_t key)
{
    bool present;
    uint32_t version;
    key_kind kind = workload_key_kind(key);
    int code;
    if (kind == KEY_WITNESS) {
        key--;
        kind = KEY_WITNESSED;
    }
    if ((code = call_get(self, key, prng_below(&self->random, 3) == 0, &present)) != 0) return code;
    bool removes = present && (kind == KEY_BARE || kind == KEY_WITNESSED) && prng_below(&self->random, 5) < 2 && delete_tells(self, key);
    code = removes ? call_del(self, key, &version) : call_put(self, key, 0, false, &version);
    if (code == RW_ENOTFOUND) return 0;      /* it was read as present: the check will say what that is */
    return code == 0 && kind == KEY_WITNESSED && (removes || !present) ? change_witness(self, key, version, removes) : code;
}

static int do_blind(worker *self, uint32_t key)
{
    uint32_t version;
    key_kind kind = workload_key_kind(key);
    if (kind != KEY_PLAIN && kind != KEY_BARE) return do_update(self, key);
    if (kind == KEY_PLAIN || prng_below(&self->random, 2) == 0 || !delete_tells(self, key)) return call_put(self, key, 0, false, &version);
    int code = call_del(self, key, &version);
    return code == RW_ENOTFOUND ? 0 : code;
}

/* Short ranges, so that histories stay small; in the spread bucket they may cross hundreds of filler records and several partitions. */
static int do_scan(worker *self)
{
    workload *w = self->w;
    bool dense = prng_below(&self->random, 4) != 0;
    uint32_t most = dense ? 8 : 600 / w->spacing + 1, positions = w->keys / 2;
    uint32_t count = 1 + (uint32_t)prng_below(&self->random, most > 8 ? 8 : most);
    uint32_t position = workload_position(draw_key(self));
    if (count > positions) count = positions;
    if (position + count > positions) position = positions - count;
    return call_scan(self, dense ? w->dense : w->spread, position, count, prng_below(&self->random, 2) == 0);
}

static int do_filler(worker *self)
{
    char text[16];
    uint8_t value[WORKLOAD_FILLER_SIZE];
    uint32_t number = (uint32_t)prng_below(&self->random, workload_numbers(self->w));
    size_t size = sizeof(value);
    if (!workload_filler_is(self->w, number)) return 0;
    rw_slice name = workload_filler_key(number, text);
    int code = self->txn != NULL ? rw_txn_get(self->txn, self->w->spread, name, value, &size) : rw_get(self->w->db, self->w->spread, name, value, &size);
    if (code == 0 && !workload_filler_sound(number, value, size)) workload_failed(self, "damaged filler", 0);
    return code;
}

static int do_savepoint(worker *self)
{
    unsigned id;
    uint32_t kept = calls_recorded(self), counters = self->counter_write_count;
    uint32_t keys[3];
    uint64_t count = 1 + prng_below(&self->random, 3);
    int code = rw_txn_savepoint(self->txn, &id);
    for (uint64_t i = 0; i < count && code == 0; i++) {
        keys[i] = draw_key(self);
        code = prng_below(&self->random, 2) == 0 ? do_update(self, keys[i]) : do_blind(self, keys[i]);
    }
    if (code != 0 || prng_below(&self->random, 3) == 0) return code;
    if ((code = rw_txn_rollback_to(self->txn, id)) != 0) return code;
    history_rollback(self->w->h, self->strand, kept);
    self->counter_write_count = counters;
    bool present;
    return call_get(self, keys[0], false, &present);
}

static int do_any(worker *self)
{
    bool present, writes = self->mode != HISTORY_READONLY;
    uint64_t draw = prng_below(&self->random, 100);
    if (draw < 35 || (draw < 80 && !writes)) return call_get(self, draw_key(self), writes && draw < 8, &present);
    if (draw < 65) return do_update(self, draw_key(self));
    if (draw < 75) return do_blind(self, draw_key(self));
    if (draw < 80) return do_savepoint(self);
    return draw < 90 ? do_scan(self) : do_filler(self);
}

/* A savepoint makes up to 9 calls of 3 operations, a scan up to 8. */
static int do_some(worker *self)
{
    uint64_t count = 1 + prng_below(&self->random, prng_below(&self->random, 8) == 0 ? 6 : 4);
    int code = 0;
    for (uint64_t i = 0; i < count && code == 0; i++) {
        code = do_any(self);
        if (code == RW_ETIMEOUT && prng_below(&self->random, 2) == 0) {
            self->timeouts++;                /* the transaction goes on */
            code = 0;
        }
        if (prng_below(&self->random, 4096) == 0) nanosleep(&(struct timespec){0, 200000}, NULL);
    }
    return code;
}

static unsigned mode_flag(history_mode mode)
{
    static const unsigned flags[] = {RW_SNAPSHOT, RW_SERIALIZABLE, RW_PESSIMISTIC, RW_READONLY};
    return flags[mode];
}

static unsigned draw_sync(worker *self)
{
    return prng_below(&self->random, 1024) == 0 ? RW_SYNC : RW_ASYNC;
}

static void run_txn(worker *self, history_mode mode)
{
    txn_open(self, mode);
    history_txn *record = txn_current(self);
    int code = rw_txn_begin(self->w->db, mode_flag(mode), &self->txn);
    record->begin_to = workload_tick(self->w);
    if (code != 0) {
        workload_failed(self, "rw_txn_begin", code);
        return;
    }
    int met = do_some(self);
    code_expected(self, "in a transaction", met);
    record->commit_from = workload_tick(self->w);
    if (met != 0 || prng_below(&self->random, 16) == 0) {
        rw_txn_abort(self->txn);
        txn_close(self, RW_ECONFLICT);
        return;
    }
    code = rw_txn_commit(self->txn, draw_sync(self));
    code_expected(self, "rw_txn_commit", code);
    txn_close(self, code);
}

/* One attempt of rw_txn_run. The one before it, if there was one, has failed; this one began at any time since that one's last call. */
static int run_attempt(rw_txn *txn, void *arg)
{
    worker *self = arg;
    if (self->txn != NULL) {
        uint64_t last_call = txn_current(self)->commit_from;
        txn_close(self, RW_ECONFLICT);
        if (!history_has_room(self->w->h, self->strand, 1, WORKLOAD_OPS_MAX)) return 1;
        txn_open(self, self->mode);
        txn_current(self)->begin_from = last_call;
    }
    self->txn = txn;
    txn_current(self)->begin_to = workload_tick(self->w);
    int code = do_some(self);
    txn_current(self)->commit_from = workload_tick(self->w);
    return code;
}

static void run_retried(worker *self, history_mode mode)
{
    txn_open(self, mode);
    self->txn = NULL;
    int code = rw_txn_run(self->w->db, mode_flag(mode) | RW_ASYNC, run_attempt, self);
    if (code != 1) code_expected(self, "rw_txn_run", code);
    if (self->txn != NULL) txn_close(self, code);
}

/* Ends a single call, or a scan by a cursor of its own. */
static void single_close(worker *self, const char *what, int code)
{
    history_txn *txn = txn_current(self);
    if (txn->mode == HISTORY_SINGLE) {
        txn->commit_from = txn->begin_from;
        txn->begin_to = workload_tick(self->w);
    } else {
        if (txn->begin_to == 0) txn->begin_to = workload_tick(self->w);
        txn->commit_from = txn->begin_to;
    }
    txn_close(self, code);
    code_expected(self, what, code);
}

static void single_get(worker *self, uint32_t key)
{
    bool present;
    single_close(self, "rw_get", call_get(self, key, false, &present));
}

static void single_put(worker *self, uint32_t key)
{
    uint32_t version;
    bool removes = workload_key_kind(key) == KEY_BARE && prng_below(&self->random, 2) == 0;
    int code = removes ? call_del(self, key, &version) : call_put(self, key, 0, false, &version);
    single_close(self, removes ? "rw_del" : "rw_put", code == RW_ENOTFOUND ? 0 : code);
}

/* Replaces what a get just saw. When that fails it saw another version, nobody knows which: that is no part of the history. */
static void single_cas(worker *self, uint32_t key)
{
    char text[16];
    bool present;
    int code = call_get(self, key, false, &present);
    single_close(self, "rw_get", code);
    if (code != 0) return;
    const history_op *read = &self->w->h->ops[txn_current(self)->op_first];
    uint32_t seen = read->version;
    bool removes = present && workload_key_kind(key) == KEY_BARE && prng_below(&self->random, 2) == 0;
    txn_open(self, HISTORY_SINGLE);
    history_read(self->w->h, self->strand, key, seen, 0);
    uint32_t version = history_write(self->w->h, self->strand, removes ? HISTORY_DELETE : HISTORY_WRITE, key, HISTORY_BLIND, 0);
    rw_slice name = workload_key(self->w, key, text), expected = {self->expected, self->expected_size}, desired = {self->value, 0};
    if (!removes) desired.size = workload_value(self, key, version, 0, false);
    sched_yield();
    code = rw_cas(self->w->db, workload_key_bucket(self->w, key), name, present ? &expected : NULL, removes ? NULL : &desired, RW_ASYNC);
    single_close(self, "rw_cas", code);
    if (code != 0) history_end(self->w->h, self->strand, HISTORY_OPEN);
}

static void single_add(worker *self, uint32_t key)
{
    char text[16];
    int64_t sum = 0;
    int code = rw_add(self->w->db, workload_key_bucket(self->w, key), workload_key(self->w, key, text), 1, &sum, RW_ASYNC);
    if (code == 0 && (sum <= 0 || sum >= (int64_t)self->w->counter_max)) workload_failed(self, "rw_add returned a sum out of range", 0);
    else if (code == 0) {
        history_read(self->w->h, self->strand, key, sum == 1 ? HISTORY_ABSENT : (uint32_t)sum - 1, sum == 1 ? 0 : HISTORY_COUNTED);
        uint32_t version = history_write(self->w->h, self->strand, HISTORY_WRITE, key, HISTORY_BLIND, 0);
        self->counter_writes[self->counter_write_count++] = (counter_write){key, version, sum};
    }
    single_close(self, "rw_add", code);
}

static int batch_fill(worker *self, rw_batch *batch, uint64_t count)
{
    char text[16];
    int code = 0;
    for (uint64_t i = 0; i < count && code == 0; i++) {
        uint32_t key = draw_key(self);
        key_kind kind = workload_key_kind(key);
        if (kind != KEY_PLAIN && kind != KEY_BARE) continue;
        uint32_t version = history_write(self->w->h, self->strand, HISTORY_WRITE, key, HISTORY_BLIND, 0);
        size_t size = workload_value(self, key, version, 0, false);
        code = rw_batch_put(batch, workload_key_bucket(self->w, key), workload_key(self->w, key, text), (rw_slice){self->value, size});
    }
    return code;
}

static void single_batch(worker *self)
{
    rw_batch *batch;
    int code = rw_batch_new(self->w->db, &batch);
    if (code != 0) {
        workload_failed(self, "rw_batch_new", code);
        return;
    }
    code = batch_fill(self, batch, 2 + prng_below(&self->random, 5));
    if (code == 0) code = rw_batch_commit(batch, draw_sync(self));
    rw_batch_free(batch);
    single_close(self, "rw_batch_commit", code);
}

static void run_single(worker *self)
{
    uint32_t key = draw_key(self);
    key_kind kind = workload_key_kind(key);
    uint64_t draw = prng_below(&self->random, 100);
    bool scans = draw >= 88;
    txn_open(self, scans ? HISTORY_READONLY : HISTORY_SINGLE);
    if (scans) single_close(self, "a cursor of its own", do_scan(self));
    else if (draw >= 78) single_batch(self);
    else if (kind == KEY_COUNTER && draw >= 25) single_add(self, key);
    else if (draw < 35 || (kind != KEY_PLAIN && kind != KEY_BARE)) single_get(self, key);
    else if (draw < 55) single_put(self, key);
    else single_cas(self, key);
}

static history_mode draw_mode(worker *self)
{
    uint64_t draw = prng_below(&self->random, 100);
    if (draw < 8) return HISTORY_READONLY;
    switch (self->w->options->mode) {
    case WORKLOAD_SNAPSHOT: return HISTORY_SNAPSHOT;
    case WORKLOAD_SERIALIZABLE: return HISTORY_SERIALIZABLE;
    case WORKLOAD_PESSIMISTIC: return HISTORY_PESSIMISTIC;
    default: return (history_mode)(draw % 3);    /* the first three modes */
    }
}

/* One more transaction, or a single call. */
void workload_step(worker *self)
{
    uint64_t draw = prng_below(&self->random, 100);
    if (draw < 20) run_single(self);
    else if (draw < 25) run_retried(self, draw_mode(self));
    else run_txn(self, draw_mode(self));
}
