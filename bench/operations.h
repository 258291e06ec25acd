/*
 * The operations that workloads are made of, each timed, counted and its answer verified. A lane is one thread of a workload with all that
 * only it touches; lanes share nothing that is written in the timed path, but for the claim of a position to insert or delete.
 */
#ifndef BENCH_OPERATIONS_H
#define BENCH_OPERATIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "base/histogram.h"
#include "bench/dataset.h"
#include "bench/pacer.h"
#include "bench/series.h"

typedef enum { BENCH_READ, BENCH_UPDATE, BENCH_INSERT, BENCH_SCAN, BENCH_MODIFY, BENCH_TRANSACTION, BENCH_DELETE, BENCH_KINDS } bench_kind;

extern const char *const bench_kind_names[BENCH_KINDS];

/* Why a transaction was begun again. */
typedef enum { BENCH_CONFLICT, BENCH_DEADLOCK, BENCH_TIMEOUT, BENCH_GIVEN_UP, BENCH_ABORTS } bench_abort;

extern const char *const bench_abort_names[BENCH_ABORTS];

#define BENCH_TRANSACTION_KEYS_MAX 1000u /* reads, and writes, of a transaction */

#define BENCH_INSERT_WINDOW 65536u /* inserts that may be ahead of the oldest unfinished one */

/* Inserts end out of order; readers may only draw positions below which all are done. */
typedef struct {
    RW_ALIGNED(RW_CACHE_LINE) _Atomic uint64_t claimed; /* next position to insert, or to delete */
    RW_ALIGNED(RW_CACHE_LINE) _Atomic uint64_t done;    /* all positions below are inserted */
    _Atomic bool advancing;                             /* held by who moves done */
    _Atomic uint8_t finished[BENCH_INSERT_WINDOW];      /* by position modulo the window */
} bench_frontier;

/* A running workload. */
typedef struct {
    /* constant while lanes run */
    rw_db *db;
    rw_bucket bucket;
    const bench_dataset *dataset;
    const char *name;
    unsigned flags;             /* RW_SYNC or RW_ASYNC */
    uint32_t batch;             /* writes in a commit */
    uint32_t scan_length;       /* records */
    bool scan_length_varies;    /* 1 to scan_length, uniformly */
    unsigned shares[BENCH_KINDS]; /* percent, in all 100 */
    unsigned txn_mode;          /* RW_SNAPSHOT, RW_SERIALIZABLE or RW_PESSIMISTIC */
    uint32_t txn_reads, txn_writes; /* keys of a transaction */
    bench_distribution distribution;
    bench_zipfian zipfian;
    uint64_t first, end;        /* positions present when it began */
    uint64_t delete_end;        /* positions from first up to it are to be deleted */
    uint64_t deadline_ticks;    /* 0: none */
    /* atomic */
    _Atomic bool stop;          /* a lane failed, or the user wants to end */
    bench_frontier frontier;
} bench_shared;

typedef struct {
    /* lane only, until it ended */
    bench_shared *shared;
    rw_random random;
    unsigned char *key, *value; /* of the dataset's sizes */
    unsigned char *buffer;      /* what is read; one byte more than a value */
    rw_batch *batch;
    rw_cursor *cursor;
    uint64_t left;              /* operations still to do; UINT64_MAX: the deadline ends it */
    uint64_t next, limit;       /* fill, delete: positions; sequential read: key order numbers, limit exclusive, 0: no limit */
    uint64_t last_ticks;        /* when the last operation ended */
    uint64_t scanned;           /* records seen by scans */
    bench_pacer pacer;          /* open loop */
    bench_recorder recorder;    /* without memory: what happened in each second is not kept */
    uint64_t *codes;            /* key codes of the transaction that runs: first those that it reads */
    uint64_t aborts[BENCH_ABORTS]; /* transactions begun again, by reason */
    uint64_t wrong;             /* wrong answers */
    int code;                   /* the failure that ended the lane */
    char complaint[256];        /* the first failure or wrong answer, in words */
    rw_histogram histograms[BENCH_KINDS]; /* nanoseconds */
    /* written by the lane, read by all */
    RW_ALIGNED(RW_CACHE_LINE) _Atomic uint64_t operations;
} bench_lane;

/* One step of a workload: 0, or a negative code that ends the whole run. RW_ENOTFOUND ends this lane only: nothing is left to do. */
typedef int (*bench_step)(bench_lane *lane);

int bench_step_mix(bench_lane *lane);            /* reads, updates, inserts, scans, read-modify-writes, transactions by their shares */
int bench_step_read_missing(bench_lane *lane);
int bench_step_fill_sequential(bench_lane *lane);
int bench_step_fill_random(bench_lane *lane);
int bench_step_delete(bench_lane *lane);
int bench_step_read_sequential(bench_lane *lane);

/* Runs steps until the lane's budget is used up, the deadline has passed or something failed. */
void bench_lane_run(bench_lane *lane, bench_step step);
/* After all lanes ended: moves frontier.done over everything inserted. */
void bench_frontier_advance(bench_frontier *frontier);

#endif
