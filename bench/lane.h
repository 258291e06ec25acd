/* What every operation of a lane is made of: its record, its clock, and what it finds wrong. What is used in timed loops is inline. */
#ifndef BENCH_LANE_H
#define BENCH_LANE_H

#include "bench/measure.h"
#include "bench/operations.h"

static inline rw_slice lane_key(const bench_lane *lane)
{
    return rw_slice_of(lane->key, lane->shared->dataset->key_size);
}

static inline rw_slice lane_value(const bench_lane *lane)
{
    return rw_slice_of(lane->value, lane->shared->dataset->value_size);
}

static inline void lane_make_key(bench_lane *lane, uint64_t code)
{
    bench_dataset_key(lane->shared->dataset, code, lane->key);
}

static inline void lane_make_value(bench_lane *lane)
{
    bench_dataset_value(lane->shared->dataset, lane->key, &lane->random, lane->value);
}

/* When the next count operations begin: now, or, in an open loop, when they are due. */
static inline uint64_t lane_start(bench_lane *lane, uint64_t count)
{
    if (RW_LIKELY(!bench_pacer_is_on(&lane->pacer))) return bench_clock_ticks();
    return bench_pacer_wait(&lane->pacer, count, &lane->shared->stop);
}

/* count operations began at start and end now; they are one latency. */
static inline void lane_record(bench_lane *lane, bench_kind kind, uint64_t start, uint64_t count)
{
    uint64_t now = bench_clock_ticks(), ns = bench_clock_ns(now > start ? now - start : 0);
    rw_histogram_add(&lane->histograms[kind], ns);
    if (RW_UNLIKELY(lane->recorder.seconds != NULL)) bench_recorder_add(&lane->recorder, now, ns, count);
    lane->last_ticks = now;
    lane->left -= RW_MIN(count, lane->left);
    uint64_t operations = atomic_load_explicit(&lane->operations, memory_order_relaxed);
    atomic_store_explicit(&lane->operations, operations + count, memory_order_relaxed);
}

/* Another kind of operation each time, by the workload's shares. */
static inline bench_kind lane_draw_kind(bench_lane *lane)
{
    const unsigned *shares = lane->shared->shares;
    bench_kind kind = BENCH_READ;
    if (shares[BENCH_READ] == 100) return kind;
    unsigned draw = (unsigned)rw_random_below(&lane->random, 100);
    for (; draw >= shares[kind]; kind++) draw -= shares[kind];
    RW_ASSERT(kind < BENCH_DELETE);
    return kind;
}

/* The position of an existing record, by the workload's distribution. */
uint64_t lane_draw(bench_lane *lane);

static inline void lane_draw_key(bench_lane *lane)
{
    lane_make_key(lane, bench_dataset_code(lane->shared->dataset, lane_draw(lane)));
}

/* Notes a wrong answer about that key. 0: the workload goes on, and fails at its end. */
int lane_wrong(bench_lane *lane, const unsigned char *key, const char *what);
/* Notes why a call of the library failed. Returns code. */
int lane_failed(bench_lane *lane, int code, const char *call);

/* What a get of an existing record came to. 0, or a code that ends the run. */
static inline int lane_judge_read(bench_lane *lane, const unsigned char *key, int code, rw_slice value)
{
    if (RW_UNLIKELY(code == RW_ENOTFOUND)) return lane_wrong(lane, key, "an existing record was not found");
    if (RW_UNLIKELY(code == RW_ETOOSMALL)) return lane_wrong(lane, key, "the value is longer than what was written");
    if (RW_UNLIKELY(code != 0)) return lane_failed(lane, code, "a get");
    if (RW_UNLIKELY(!bench_dataset_value_is_right(lane->shared->dataset, key, value.data, value.size))) return lane_wrong(lane, key, "the value is not the key's");
    return 0;
}

#endif
