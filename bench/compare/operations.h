/* What a thread of a workload does to an engine: every operation timed, every answer verified, the same way for all engines. */
#ifndef BENCH_COMPARE_OPERATIONS_H
#define BENCH_COMPARE_OPERATIONS_H

#include <stdatomic.h>

#include "base/histogram.h"
#include "bench/compare/plan.h"
#include "bench/dataset.h"
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
    unsigned char *keys, *values; /* COMPARE_BATCH_PUTS of them */
    rw_slice key_slices[COMPARE_BATCH_PUTS], value_slices[COMPARE_BATCH_PUTS];
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
/* Runs until the deadline, or until every record of the lane's share is done. */
void compare_lane_run(compare_lane *lane);

#endif
