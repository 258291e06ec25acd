/* One engine's turn: a process of its own that loads, runs the workloads of a set and measures them; its results lie in memory shared with the parent. */
#ifndef BENCH_COMPARE_RUN_H
#define BENCH_COMPARE_RUN_H

#include <sys/types.h>

#include "base/histogram.h"
#include "bench/compare/operations.h"
#include "bench/compare/plan.h"
#include "bench/series.h"

#define COMPARE_SERIES_MAX 3600u    /* seconds of a workload that are kept */

/* What one workload came to in one round. */
typedef struct {
    bool done;
    uint64_t operations;
    uint64_t puts;                  /* records written */
    uint64_t records;               /* records that scans went over */
    uint64_t behind;                /* open loop: operations that did not begin in time */
    double seconds;                 /* to the end of the last operation; after writes, to when all were durable */
    double settle_seconds;          /* after writes: until the engine had come to rest */
    bool settled;                   /* it did, in the time that it was given */
    double cpu_us;                  /* of the process, until it had come to rest */
    double others_cpu;              /* processors that other processes, the kernel's threads and other machines on this one took meanwhile, on average */
    uint64_t write_bytes;           /* that the process had the kernel write, until then; memory that is mapped and the file system's own not counted */
    uint64_t read_bytes;            /* from the device */
    uint64_t reads;                 /* from its files, if the engine counts them */
    bool reads_counted;
    uint64_t resident_max;          /* the most memory resident in this workload */
    uint64_t anonymous;             /* at its end, without what maps files */
    uint64_t file_bytes;            /* at its end: disk space of the database's files */
    rw_histogram latency;           /* nanoseconds */
    uint32_t series_count;
    bench_second series[COMPARE_SERIES_MAX];
} compare_measurement;

typedef struct {
    bool finished;                  /* all workloads, and closed */
    int code;                       /* 0, a negative code, or 1: wrong answers */
    char complaint[COMPARE_COMPLAINT];
    char sync_way[COMPARE_TEXT];    /* see compare_adapter; empty: the engine does not choose */
    compare_measurement warm_up;    /* of no interest but that it went well */
    compare_measurement workloads[COMPARE_WORKLOADS_MAX];
} compare_turn;

/* Memory for count turns that children may write to; NULL when there is none. It takes what is used of it only. */
compare_turn *compare_turns_new(size_t count);

/* Runs a stage with one engine, in children that are gone, and files that are removed, when it returns. turn->code says how it went. */
void compare_turn_run(const compare_plan *plan, const compare_stage *stage, const compare_adapter *adapter, unsigned round, compare_turn *turn);

/* Set by a signal handler, which also kills the child, if there is one. */
extern _Atomic bool compare_interrupted;
extern _Atomic pid_t compare_child;

/* The work of the child: in this process, in directory. sequential: the load in key order alone; else all others. */
void compare_stage_run(const compare_plan *plan, const compare_stage *stage, const compare_adapter *adapter, const char *directory, bool sequential,
                       unsigned round, compare_turn *turn);

#endif
