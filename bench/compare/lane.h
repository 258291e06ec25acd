/* A thread of a workload: its keys and values, its clock, and what it finds wrong. What is used in timed loops is inline. */
#ifndef BENCH_COMPARE_LANE_H
#define BENCH_COMPARE_LANE_H

#include <stdatomic.h>

#include "base/histogram.h"
#include "bench/compare/plan.h"
#include "bench/dataset.h"
#include "bench/measure.h"
#include "bench/pacer.h"
#include "bench/series.h"

#define COMPARE_COMPLAINT 256u

/* A running workload. Constant while its threads run, but for stop. */
typedef struct {
    const compare_adapter *adapter;
    void *engine;
    const bench_dataset *dataset;
    const compare_workload *workload;
    bench_zipfian zipfian;
    uint64_t begin_ticks;
    uint64_t deadline_ticks;     /* of those that do not touch every record once */
    _Atomic bool stop;           /* a thread failed */
} compare_shared;

/* One thread of it. */
typedef struct {
    compare_shared *shared;
    void *session;
    rw_random random;
    uint64_t next, limit;        /* load: positions */
    unsigned char *keys, *values; /* COMPARE_BATCH_PUTS of them, or as many as are in flight */
    rw_slice key_slices[COMPARE_BATCH_PUTS], value_slices[COMPARE_BATCH_PUTS]; /* the first ones */
    compare_request *requests;   /* in_flight of them, request i with key i and value i; NULL without */
    bench_pacer pacer;
    bench_recorder recorder;
    bool records_series;
    uint64_t operations;
    uint64_t puts;               /* records written */
    uint64_t records;            /* records that scans went over */
    uint64_t behind;             /* open loop: operations that did not begin in time */
    uint64_t end_ticks;          /* when the last one ended */
    uint64_t wrong;              /* wrong answers */
    int code;                    /* the failure that ended it */
    char complaint[COMPARE_COMPLAINT]; /* the first failure or wrong answer, in words */
    rw_histogram latency;        /* nanoseconds */
} compare_lane;

_Static_assert(COMPARE_MULTI_GETS <= COMPARE_BATCH_PUTS, "the keys of a call have room");

/* Memory for keys and values. RW_ENOMEM. */
int compare_lane_init(compare_lane *lane, compare_shared *shared, uint64_t seed, unsigned index, unsigned count);
void compare_lane_free(compare_lane *lane);
/* Before the threads begin, once begin_ticks is known. rate 0: a closed loop. */
int compare_lane_begin(compare_lane *lane, double rate, bool series, unsigned index, unsigned count);
/* Notes a wrong answer; the first one in words. */
void lane_wrong(compare_lane *lane, const unsigned char *key, const char *what);
/* Notes what the engine said of its failure; returns code. */
int lane_failed(compare_lane *lane, int code);

static inline unsigned char *lane_key_bytes(compare_lane *lane, unsigned i)
{
    return lane->keys + (size_t)i * lane->shared->dataset->key_size;
}

static inline unsigned char *lane_value_bytes(compare_lane *lane, unsigned i)
{
    return lane->values + (size_t)i * lane->shared->dataset->value_size;
}

static inline rw_slice lane_key(compare_lane *lane, unsigned i)
{
    return rw_slice_of(lane_key_bytes(lane, i), lane->shared->dataset->key_size);
}

static inline rw_slice lane_value(compare_lane *lane, unsigned i)
{
    return rw_slice_of(lane_value_bytes(lane, i), lane->shared->dataset->value_size);
}

static inline void lane_make_key(compare_lane *lane, unsigned i, uint64_t code)
{
    bench_dataset_key(lane->shared->dataset, code, lane_key_bytes(lane, i));
}

static inline void lane_make_value(compare_lane *lane, unsigned i)
{
    bench_dataset_value(lane->shared->dataset, lane_key_bytes(lane, i), &lane->random, lane_value_bytes(lane, i));
}

/* An existing record, by the workload's distribution, becomes key i. */
static inline void lane_draw_key(compare_lane *lane, unsigned i)
{
    const compare_shared *shared = lane->shared;
    bool zipfian = shared->workload->distribution == BENCH_ZIPFIAN;
    uint64_t position = zipfian ? bench_zipfian_rank(&shared->zipfian, &lane->random) : rw_random_below(&lane->random, shared->dataset->records);
    lane_make_key(lane, i, bench_dataset_code(shared->dataset, position));
}

/* When the next operation begins: now, or, in an open loop, when it is due. */
static inline uint64_t lane_start(compare_lane *lane, uint64_t count)
{
    if (RW_LIKELY(!bench_pacer_is_on(&lane->pacer))) return bench_clock_ticks();
    return bench_pacer_wait(&lane->pacer, count, &lane->shared->stop);
}

/* count operations began at start and end now; they are one latency. */
static inline void lane_record(compare_lane *lane, uint64_t start, uint64_t count)
{
    uint64_t now = bench_clock_ticks(), ns = bench_clock_ns(now > start ? now - start : 0);
    rw_histogram_add(&lane->latency, ns);
    if (lane->records_series) bench_recorder_add(&lane->recorder, now, ns, count);
    lane->operations += count;
    lane->end_ticks = now;
}

#endif
