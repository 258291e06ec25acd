#include "bench/operations.h"

#include <sched.h>

#include "bench/lane.h"

enum { DELETE_CHUNK = 16, ATTEMPTS_MAX = 10000 };

const char *const bench_kind_names[BENCH_KINDS] = {"reads", "updates", "inserts", "scans", "read-modify-writes", "transactions", "deletes"};
const char *const bench_abort_names[BENCH_ABORTS] = {"conflicts", "deadlocks", "timeouts", "snapshots given up"};

void bench_frontier_advance(bench_frontier *frontier)
{
    if (atomic_exchange_explicit(&frontier->advancing, true, memory_order_acquire)) return;
    uint64_t done = atomic_load_explicit(&frontier->done, memory_order_relaxed);
    while (atomic_load_explicit(&frontier->finished[done % BENCH_INSERT_WINDOW], memory_order_acquire) != 0) {
        atomic_store_explicit(&frontier->finished[done % BENCH_INSERT_WINDOW], 0, memory_order_relaxed);
        atomic_store_explicit(&frontier->done, ++done, memory_order_release);
    }
    atomic_store_explicit(&frontier->advancing, false, memory_order_release);
}

static int operation_read(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    lane_draw_key(lane);
    size_t size = (size_t)shared->dataset->value_size + 1;
    uint64_t start = lane_start(lane, 1);
    int code = rw_get(shared->db, shared->bucket, lane_key(lane), lane->buffer, &size);
    lane_record(lane, BENCH_READ, start, 1);
    return lane_judge_read(lane, lane->key, code, rw_slice_of(lane->buffer, size));
}

int bench_step_read_missing(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    lane_make_key(lane, rw_random_below(&lane->random, shared->dataset->records) << BENCH_SLOT_BITS | 1);
    size_t size = (size_t)shared->dataset->value_size + 1;
    uint64_t start = lane_start(lane, 1);
    int code = rw_get(shared->db, shared->bucket, lane_key(lane), lane->buffer, &size);
    lane_record(lane, BENCH_READ, start, 1);
    if (RW_LIKELY(code == RW_ENOTFOUND)) return 0;
    if (code == 0 || code == RW_ETOOSMALL) return lane_wrong(lane, lane->key, "a key that was never written was found");
    return lane_failed(lane, code, "rw_get");
}

static int operation_put(bench_lane *lane, bench_kind kind)
{
    bench_shared *shared = lane->shared;
    lane_make_value(lane);
    uint64_t start = lane_start(lane, 1);
    int code = rw_put(shared->db, shared->bucket, lane_key(lane), lane_value(lane), shared->flags);
    lane_record(lane, kind, start, 1);
    return code == 0 ? 0 : lane_failed(lane, code, "rw_put");
}

/* Commits what the batch holds. Its latency, from start, stands for count writes. */
static int batch_commit(bench_lane *lane, bench_kind kind, uint64_t start, uint64_t count)
{
    int code = rw_batch_commit(lane->batch, lane->shared->flags);
    lane_record(lane, kind, start, count);
    return code == 0 ? 0 : lane_failed(lane, code, "rw_batch_commit");
}

static int batch_put(bench_lane *lane)
{
    lane_make_value(lane);
    int code = rw_batch_put(lane->batch, lane->shared->bucket, lane_key(lane), lane_value(lane));
    return code == 0 ? 0 : lane_failed(lane, code, "rw_batch_put");
}

static int operation_update(bench_lane *lane)
{
    uint64_t wanted = RW_MIN((uint64_t)lane->shared->batch, lane->left);
    if (lane->batch == NULL) {
        lane_draw_key(lane);
        return operation_put(lane, BENCH_UPDATE);
    }
    uint64_t start = lane_start(lane, wanted);
    for (uint64_t i = 0; i < wanted; i++) {
        lane_draw_key(lane);
        int code = batch_put(lane);
        if (code != 0) return code;
    }
    return batch_commit(lane, BENCH_UPDATE, start, wanted);
}

static int fill(bench_lane *lane, bool sequential)
{
    bench_shared *shared = lane->shared;
    if (lane->next >= lane->limit) return RW_ENOTFOUND;
    uint64_t wanted = lane->batch == NULL ? 1 : RW_MIN((uint64_t)shared->batch, lane->limit - lane->next);
    uint64_t start = bench_clock_ticks();
    for (uint64_t i = 0; i < wanted; i++) {
        uint64_t at = lane->next++;
        lane_make_key(lane, sequential ? at << BENCH_SLOT_BITS : bench_dataset_code(shared->dataset, at));
        if (lane->batch == NULL) return operation_put(lane, BENCH_INSERT);
        int code = batch_put(lane);
        if (code != 0) return code;
    }
    return batch_commit(lane, BENCH_INSERT, start, wanted);
}

int bench_step_fill_sequential(bench_lane *lane)
{
    return fill(lane, true);
}

int bench_step_fill_random(bench_lane *lane)
{
    return fill(lane, false);
}

static int operation_insert(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    bench_frontier *frontier = &shared->frontier;
    uint64_t position = atomic_fetch_add_explicit(&frontier->claimed, 1, memory_order_relaxed);
    if (position >= shared->dataset->records * 127) {
        rw_error(RW_EINVAL, "more inserts than the keys can number; load more records");
        return lane_failed(lane, RW_EINVAL, "insert");
    }
    while (position - atomic_load_explicit(&frontier->done, memory_order_acquire) >= BENCH_INSERT_WINDOW) {
        if (atomic_load_explicit(&shared->stop, memory_order_relaxed)) return RW_ENOTFOUND;
        bench_frontier_advance(frontier);
        sched_yield();
    }
    lane_make_key(lane, bench_dataset_code(shared->dataset, position));
    int code = operation_put(lane, BENCH_INSERT);
    if (code != 0) return code;
    atomic_store_explicit(&frontier->finished[position % BENCH_INSERT_WINDOW], 1, memory_order_release);
    bench_frontier_advance(frontier);
    return 0;
}

/* Whether a transaction that ended so is begun again; counted. */
static bool lane_begins_again(bench_lane *lane, int code, unsigned attempts)
{
    static const int codes[BENCH_ABORTS] = {RW_ECONFLICT, RW_EDEADLOCK, RW_ETIMEOUT, RW_ESNAPSHOT_TOO_OLD};
    for (int i = 0; i < BENCH_ABORTS; i++) {
        if (code != codes[i]) continue;
        lane->aborts[i]++;
        return attempts < ATTEMPTS_MAX;
    }
    return false;
}

/* Whether what a transaction read of an existing record (key and buffer of the lane) is wrong. */
static bool lane_read_is_wrong(const bench_lane *lane, int code, size_t size)
{
    return code == RW_ENOTFOUND || code == RW_ETOOSMALL ||
           (code == 0 && !bench_dataset_value_is_right(lane->shared->dataset, lane->key, lane->buffer, size));
}

/* One attempt: 0, a reason to begin again, or a failure. */
static int modify_once(bench_lane *lane, bool *wrong)
{
    bench_shared *shared = lane->shared;
    rw_txn *txn;
    size_t size = (size_t)shared->dataset->value_size + 1;
    int code = rw_txn_begin(shared->db, RW_SNAPSHOT, &txn);
    if (code != 0) return code;
    code = rw_txn_get(txn, shared->bucket, lane_key(lane), lane->buffer, &size);
    *wrong = lane_read_is_wrong(lane, code, size);
    if (*wrong) code = 0;
    if (code == 0) code = rw_txn_put(txn, shared->bucket, lane_key(lane), lane_value(lane));
    if (code == 0) return rw_txn_commit(txn, shared->flags);
    rw_txn_abort(txn);
    return code;
}

static int operation_modify(bench_lane *lane)
{
    lane_draw_key(lane);
    lane_make_value(lane);
    bool wrong = false;
    uint64_t start = lane_start(lane, 1);
    int code = modify_once(lane, &wrong);
    for (unsigned attempts = 1; lane_begins_again(lane, code, attempts); attempts++) code = modify_once(lane, &wrong);
    lane_record(lane, BENCH_MODIFY, start, 1);
    if (code != 0) return lane_failed(lane, code, "read-modify-write transaction");
    return wrong ? lane_wrong(lane, lane->key, "the record read by a transaction is not what was written") : 0;
}

/* The reads and writes of one attempt; wrong answers are counted. */
static int transaction_body(bench_lane *lane, rw_txn *txn)
{
    bench_shared *shared = lane->shared;
    int code = 0;
    for (uint32_t i = 0; i < shared->txn_reads && code == 0; i++) {
        lane_make_key(lane, lane->codes[i]);
        size_t size = (size_t)shared->dataset->value_size + 1;
        code = rw_txn_get(txn, shared->bucket, lane_key(lane), lane->buffer, &size);
        if (RW_UNLIKELY(lane_read_is_wrong(lane, code, size))) code = lane_wrong(lane, lane->key, "the record read by a transaction is not what was written");
    }
    for (uint32_t i = 0; i < shared->txn_writes && code == 0; i++) {
        lane_make_key(lane, lane->codes[shared->txn_reads + i]);
        lane_make_value(lane);
        code = rw_txn_put(txn, shared->bucket, lane_key(lane), lane_value(lane));
    }
    return code;
}

static int transaction_once(bench_lane *lane)
{
    rw_txn *txn;
    int code = rw_txn_begin(lane->shared->db, lane->shared->txn_mode, &txn);
    if (code != 0) return code;
    code = transaction_body(lane, txn);
    if (code == 0) return rw_txn_commit(txn, lane->shared->flags);
    rw_txn_abort(txn);
    return code;
}

/* The same records in every attempt; the latency is that of all attempts together. */
static int operation_transaction(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    for (uint32_t i = 0; i < shared->txn_reads + shared->txn_writes; i++) lane->codes[i] = bench_dataset_code(shared->dataset, lane_draw(lane));
    uint64_t start = lane_start(lane, 1);
    int code = transaction_once(lane);
    for (unsigned attempts = 1; lane_begins_again(lane, code, attempts); attempts++) code = transaction_once(lane);
    lane_record(lane, BENCH_TRANSACTION, start, 1);
    return code == 0 ? 0 : lane_failed(lane, code, "transaction");
}

/* What a cursor's records are checked against. */
typedef struct {
    uint64_t order;     /* of the last record */
    uint64_t number;    /* of the last loaded record */
    bool dense;         /* every loaded record exists, and keys are numbers: none may be skipped */
} scan_check;

/* Checks the record under the cursor. 0, or a failure; wrong answers are counted. */
static int scan_record(bench_lane *lane, rw_cursor *cursor, scan_check *check, bool is_first)
{
    const bench_dataset *dataset = lane->shared->dataset;
    rw_slice key, value;
    int code = rw_cursor_key(cursor, &key);
    if (code == 0) code = rw_cursor_value(cursor, &value);
    if (code != 0) return lane_failed(lane, code, "rw_cursor_value");
    if (key.size != dataset->key_size) return lane_wrong(lane, lane->key, "a scan from here met a key of another length");
    uint64_t order = bench_dataset_key_order(dataset, key.data);
    if (!is_first && order <= check->order) return lane_wrong(lane, key.data, "a scan met it out of order");
    if (!bench_dataset_value_is_right(dataset, key.data, value.data, value.size)) return lane_wrong(lane, key.data, "a scan met a value that is not the key's");
    bool loaded = (order & (((uint64_t)1 << BENCH_SLOT_BITS) - 1)) == 0;
    uint64_t number = order >> BENCH_SLOT_BITS;
    if (check->dense && loaded) {
        if (!is_first && number != check->number + 1) return lane_wrong(lane, key.data, "a scan skipped a record before it");
        check->number = number;
    }
    check->order = order;
    return 0;
}

/* The scan itself, from the record of lane->key. Adds the records seen to *seen. */
static int scan_walk(bench_lane *lane, rw_cursor *cursor, uint64_t length, uint64_t *seen)
{
    const bench_dataset *dataset = lane->shared->dataset;
    uint64_t sought = bench_dataset_key_order(dataset, lane->key);
    scan_check check = {.number = sought >> BENCH_SLOT_BITS, .dense = !dataset->hashed && lane->shared->first == 0};
    int code = rw_cursor_seek(cursor, lane_key(lane));
    for (; code == 0 && *seen < length; code = *seen < length ? rw_cursor_next(cursor) : 0) {
        code = scan_record(lane, cursor, &check, *seen == 0);
        if (code != 0) return code;
        if (*seen == 0 && check.order != sought) return lane_wrong(lane, lane->key, "a scan did not find the record it began at");
        ++*seen;
    }
    if (code != 0 && code != RW_ENOTFOUND) return lane_failed(lane, code, "rw_cursor_next");
    bool ended = code == RW_ENOTFOUND;
    if (ended && (*seen == 0 || (check.dense && check.number != dataset->records - 1))) return lane_wrong(lane, lane->key, "a scan from here ended too early");
    return 0;
}

static int operation_scan(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    lane_draw_key(lane);
    uint64_t length = shared->scan_length, seen = 0;
    if (shared->scan_length_varies) length = 1 + rw_random_below(&lane->random, length);
    rw_cursor *cursor;
    uint64_t start = lane_start(lane, 1);
    int code = rw_cursor_open(shared->db, NULL, shared->bucket, &cursor);
    if (code != 0) return lane_failed(lane, code, "rw_cursor_open");
    code = scan_walk(lane, cursor, length, &seen);
    rw_cursor_close(cursor);
    lane_record(lane, BENCH_SCAN, start, 1);
    lane->scanned += seen;
    return code;
}

/* Deletes are claimed in runs of positions that are finished even after the deadline, so that those deleted are always the first ones. */
int bench_step_delete(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    uint64_t chunk = RW_MAX((uint64_t)DELETE_CHUNK, (uint64_t)shared->batch);
    uint64_t next = atomic_fetch_add_explicit(&shared->frontier.claimed, chunk, memory_order_relaxed);
    if (next >= shared->delete_end) return RW_ENOTFOUND;
    uint64_t limit = RW_MIN(next + chunk, shared->delete_end);
    while (next < limit) {
        uint64_t wanted = lane->batch == NULL ? 1 : RW_MIN((uint64_t)shared->batch, limit - next);
        uint64_t start = lane_start(lane, wanted);
        int code = 0;
        for (uint64_t i = 0; i < wanted && lane->batch != NULL && code == 0; i++) {
            lane_make_key(lane, bench_dataset_code(shared->dataset, next + i));
            code = rw_batch_del(lane->batch, shared->bucket, lane_key(lane));
        }
        if (code != 0) return lane_failed(lane, code, "rw_batch_del");
        if (lane->batch != NULL) {
            code = batch_commit(lane, BENCH_DELETE, start, wanted);
            if (code != 0) return code;
        } else {
            lane_make_key(lane, bench_dataset_code(shared->dataset, next));
            if (!bench_pacer_is_on(&lane->pacer)) start = bench_clock_ticks();
            code = rw_del(shared->db, shared->bucket, lane_key(lane), shared->flags);
            lane_record(lane, BENCH_DELETE, start, 1);
            if (code == RW_ENOTFOUND) lane_wrong(lane, lane->key, "an existing record was not there to be deleted");
            else if (code != 0) return lane_failed(lane, code, "rw_del");
        }
        next += wanted;
    }
    return 0;
}

/* The first step opens the cursor at the lane's share of the keys. */
static int sequential_begin(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    uint32_t size = RW_MIN(shared->dataset->key_size, 8u);
    uint64_t from = __builtin_bswap64(size < 8 ? lane->next << (64 - 8 * size) : lane->next);
    int code = rw_cursor_open(shared->db, NULL, shared->bucket, &lane->cursor);
    if (code != 0) return lane_failed(lane, code, "rw_cursor_open");
    code = rw_cursor_seek(lane->cursor, rw_slice_of(&from, size));
    return code == 0 || code == RW_ENOTFOUND ? code : lane_failed(lane, code, "rw_cursor_seek");
}

/* One clock reading a record: what ends one begins the next. */
int bench_step_read_sequential(bench_lane *lane)
{
    bench_shared *shared = lane->shared;
    uint64_t start = lane->last_ticks;
    bool is_first = lane->cursor == NULL;
    int code = is_first ? sequential_begin(lane) : rw_cursor_next(lane->cursor);
    if (code == RW_ENOTFOUND) return code;
    if (code != 0) return lane_failed(lane, code, "rw_cursor_next");
    rw_slice key;
    code = rw_cursor_key(lane->cursor, &key);
    if (code != 0) return lane_failed(lane, code, "rw_cursor_key");
    if (lane->limit != 0 && key.size == shared->dataset->key_size && bench_dataset_key_order(shared->dataset, key.data) >= lane->limit) return RW_ENOTFOUND;
    scan_check check = {.order = lane->next, .dense = false};
    code = scan_record(lane, lane->cursor, &check, is_first);
    lane->next = check.order;
    lane_record(lane, BENCH_READ, start, 1);
    return code;
}

int bench_step_mix(bench_lane *lane)
{
    static int (*const operations[BENCH_KINDS])(bench_lane *) = {operation_read, operation_update, operation_insert, operation_scan, operation_modify, operation_transaction, NULL};
    return operations[lane_draw_kind(lane)](lane);
}

void bench_lane_run(bench_lane *lane, bench_step step)
{
    bench_shared *shared = lane->shared;
    lane->last_ticks = bench_clock_ticks();
    while (lane->left > 0 && !atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        if (shared->deadline_ticks != 0 && lane->last_ticks >= shared->deadline_ticks) break;
        if (bench_pacer_is_on(&lane->pacer) && shared->deadline_ticks != 0 && bench_pacer_due(&lane->pacer) >= shared->deadline_ticks) break;
        int code = step(lane);
        if (RW_LIKELY(code == 0)) continue;
        if (code == RW_ENOTFOUND) break;
        lane->code = code;
        atomic_store_explicit(&shared->stop, true, memory_order_relaxed);
    }
    lane->last_ticks = bench_clock_ticks();
}
