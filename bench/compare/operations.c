#include "bench/compare/operations.h"

#include "bench/compare/in_flight.h"

/* ---- operations ------------------------------------------------------------------------------------------------------ */

/* The answer to a get of the key that must be there is looked at within the time of the get: engines that return a pointer have not yet read it. */
static int get_one(compare_lane *lane)
{
    const compare_shared *shared = lane->shared;
    rw_slice value;
    lane_draw_key(lane, 0);
    uint64_t start = lane_start(lane, 1);
    int code = shared->adapter->get(lane->session, lane->key_slices[0], &value);
    bool right = true;
    if (RW_LIKELY(code == 0)) {
        right = bench_dataset_value_is_right(shared->dataset, lane->keys, value.data, value.size);
        if (shared->adapter->release != NULL) shared->adapter->release(lane->session);
    }
    lane_record(lane, start, 1);
    if (RW_UNLIKELY(code == RW_ENOTFOUND)) lane_wrong(lane, lane->keys, "an existing record was not found");
    else if (RW_UNLIKELY(code != 0)) return lane_failed(lane, code);
    else if (RW_UNLIKELY(!right)) lane_wrong(lane, lane->keys, "the value is not the key's");
    return 0;
}

static int get_absent(compare_lane *lane)
{
    const compare_shared *shared = lane->shared;
    rw_slice value;
    lane_make_key(lane, 0, rw_random_below(&lane->random, shared->dataset->records) << BENCH_SLOT_BITS | 1);
    uint64_t start = lane_start(lane, 1);
    int code = shared->adapter->get(lane->session, lane->key_slices[0], &value);
    if (RW_UNLIKELY(code == 0) && shared->adapter->release != NULL) shared->adapter->release(lane->session);
    lane_record(lane, start, 1);
    if (RW_LIKELY(code == RW_ENOTFOUND)) return 0;
    if (code != 0) return lane_failed(lane, code);
    lane_wrong(lane, lane->keys, "a key that was never written was found");
    return 0;
}

/* Puts a value to key 0. */
static int put_key(compare_lane *lane)
{
    lane_make_value(lane, 0);
    uint64_t start = lane_start(lane, 1);
    int code = lane->shared->adapter->put(lane->session, lane->key_slices[0], lane->value_slices[0]);
    lane_record(lane, start, 1);
    lane->puts++;
    return RW_LIKELY(code == 0) ? 0 : lane_failed(lane, code);
}

static int put_one(compare_lane *lane)
{
    lane_draw_key(lane, 0);
    return put_key(lane);
}

static int put_batch(compare_lane *lane)
{
    for (unsigned i = 0; i < COMPARE_BATCH_PUTS; i++) {
        lane_draw_key(lane, i);
        lane_make_value(lane, i);
    }
    uint64_t start = lane_start(lane, COMPARE_BATCH_PUTS);
    int code = lane->shared->adapter->batch(lane->session, lane->key_slices, lane->value_slices, COMPARE_BATCH_PUTS);
    lane_record(lane, start, COMPARE_BATCH_PUTS);
    lane->puts += COMPARE_BATCH_PUTS;
    return code == 0 ? 0 : lane_failed(lane, code);
}

static bool modify_check(void *arg, rw_slice key, rw_slice value)
{
    compare_lane *lane = arg;
    bool right = bench_dataset_value_is_right(lane->shared->dataset, key.data, value.data, value.size);
    if (!right) lane_wrong(lane, key.data, "the value read to be modified is not the key's");
    return true;
}

static int modify_one(compare_lane *lane)
{
    lane_draw_key(lane, 0);
    lane_make_value(lane, 0);
    uint64_t start = lane_start(lane, 1);
    int code = lane->shared->adapter->modify(lane->session, lane->key_slices[0], lane->value_slices[0], modify_check, lane);
    lane_record(lane, start, 1);
    lane->puts++;
    if (code == RW_ENOTFOUND) lane_wrong(lane, lane->keys, "an existing record was not found to be modified");
    else if (code != 0) return lane_failed(lane, code);
    return 0;
}

static int mix_one(compare_lane *lane)
{
    const compare_workload *workload = lane->shared->workload;
    if (rw_random_below(&lane->random, 100) < workload->get_share) return get_one(lane);
    return workload->modifies ? modify_one(lane) : put_one(lane);
}

/* ---- many gets in a call ----------------------------------------------------------------------------------------------- */

typedef struct {
    compare_lane *lane;
    unsigned right;
} multi_check;

static bool multi_record(void *arg, rw_slice key, rw_slice value)
{
    multi_check *check = arg;
    compare_lane *lane = check->lane;
    bool right = bench_dataset_value_is_right(lane->shared->dataset, key.data, value.data, value.size);
    if (right) check->right++;
    else lane_wrong(lane, key.data, "the value is not the key's");
    return true;
}

/* For an engine that has no such call. */
static int multi_by_single_gets(compare_lane *lane, multi_check *check)
{
    const compare_adapter *adapter = lane->shared->adapter;
    for (unsigned i = 0; i < COMPARE_MULTI_GETS; i++) {
        rw_slice value;
        int code = adapter->get(lane->session, lane->key_slices[i], &value);
        if (code == RW_ENOTFOUND) continue;
        if (code != 0) return code;
        multi_record(check, lane->key_slices[i], value);
        if (adapter->release != NULL) adapter->release(lane->session);
    }
    return 0;
}

static int get_many(compare_lane *lane)
{
    const compare_adapter *adapter = lane->shared->adapter;
    multi_check check = {.lane = lane};
    for (unsigned i = 0; i < COMPARE_MULTI_GETS; i++) lane_draw_key(lane, i);
    uint64_t wrong = lane->wrong, start = lane_start(lane, COMPARE_MULTI_GETS);
    int code = adapter->multi_get != NULL ? adapter->multi_get(lane->session, lane->key_slices, COMPARE_MULTI_GETS, multi_record, &check)
                                          : multi_by_single_gets(lane, &check);
    lane_record(lane, start, COMPARE_MULTI_GETS);
    if (code != 0) return lane_failed(lane, code);
    if (check.right + (lane->wrong - wrong) != COMPARE_MULTI_GETS) lane_wrong(lane, lane->keys, "of the keys in one call, this one first, some were not found");
    return 0;
}

/* ---- scans --------------------------------------------------------------------------------------------------------------- */

typedef struct {
    compare_lane *lane;
    uint64_t expected;           /* the number of the record that must come next */
    uint64_t seen, wanted;
    bool wrong;
} scan_check;

/* Keys are numbers and every one exists, so the record that must come next is known. */
static bool scan_record(void *arg, rw_slice key, rw_slice value)
{
    scan_check *check = arg;
    compare_lane *lane = check->lane;
    const bench_dataset *dataset = lane->shared->dataset;
    if (RW_UNLIKELY(key.size != dataset->key_size || bench_dataset_key_order(dataset, key.data) != check->expected << BENCH_SLOT_BITS)) {
        lane_wrong(lane, key.size == dataset->key_size ? key.data : lane->keys, "a scan met it where another one comes next");
        check->wrong = true;
        return false;
    }
    if (RW_UNLIKELY(!bench_dataset_value_is_right(dataset, key.data, value.data, value.size))) lane_wrong(lane, key.data, "a scan met a value that is not the key's");
    check->expected++;
    return ++check->seen < check->wanted;
}

static int scan(compare_lane *lane, rw_slice from, uint64_t first, uint64_t wanted, uint64_t start)
{
    const bench_dataset *dataset = lane->shared->dataset;
    scan_check check = {.lane = lane, .expected = first, .wanted = wanted};
    int code = lane->shared->adapter->scan(lane->session, from, scan_record, &check);
    lane_record(lane, start, from.size == 0 ? check.seen : 1);
    lane->records += check.seen;
    if (code != 0) return lane_failed(lane, code);
    if (!check.wrong && check.seen != RW_MIN(wanted, dataset->records - first)) lane_wrong(lane, lane->keys, "a scan ended too early");
    return 0;
}

static int scan_one(compare_lane *lane)
{
    lane_draw_key(lane, 0);
    uint64_t first = bench_dataset_key_order(lane->shared->dataset, lane->keys) >> BENCH_SLOT_BITS;
    return scan(lane, lane->key_slices[0], first, COMPARE_SCAN_LENGTH, lane_start(lane, 1));
}

static int scan_full(compare_lane *lane)
{
    lane_make_key(lane, 0, 0);
    return scan(lane, (rw_slice){0}, 0, UINT64_MAX, bench_clock_ticks());
}

/* ---- the loop -------------------------------------------------------------------------------------------------------------- */

static int load(compare_lane *lane, bool sequential)
{
    int code = 0;
    for (; lane->next < lane->limit && code == 0 && !atomic_load_explicit(&lane->shared->stop, memory_order_relaxed); lane->next++) {
        lane_make_key(lane, 0, sequential ? lane->next << BENCH_SLOT_BITS : bench_dataset_code(lane->shared->dataset, lane->next));
        code = put_key(lane);
    }
    return code;
}

static int until_deadline(compare_lane *lane, int (*operation)(compare_lane *))
{
    const compare_shared *shared = lane->shared;
    int code = 0;
    while (code == 0 && lane->end_ticks < shared->deadline_ticks && !atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        if (bench_pacer_is_on(&lane->pacer) && bench_pacer_due(&lane->pacer) >= shared->deadline_ticks) break;
        code = operation(lane);
    }
    lane->behind = bench_pacer_behind(&lane->pacer, shared->deadline_ticks);
    return code;
}

void compare_lane_run(compare_lane *lane)
{
    static int (*const operations[])(compare_lane *) = {[COMPARE_GET] = get_one, [COMPARE_GET_ABSENT] = get_absent, [COMPARE_SCAN] = scan_one,
                                                        [COMPARE_PUT] = put_one, [COMPARE_BATCH] = put_batch, [COMPARE_MULTI_GET] = get_many,
                                                        [COMPARE_MIX] = mix_one};
    compare_kind kind = lane->shared->workload->kind;
    lane->end_ticks = lane->shared->begin_ticks;
    switch (kind) {
    case COMPARE_LOAD: lane->code = load(lane, false); break;
    case COMPARE_LOAD_SEQUENTIAL: lane->code = load(lane, true); break;
    case COMPARE_SCAN_FULL: lane->code = scan_full(lane); break;
    default: lane->code = lane->shared->workload->in_flight > 0 ? compare_in_flight_run(lane) : until_deadline(lane, operations[kind]); break;
    }
    if (lane->code != 0) atomic_store_explicit(&lane->shared->stop, true, memory_order_relaxed);
}
