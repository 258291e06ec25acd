/* The workloads by name, and running one: threads, budget, what it did to the set of records, and what was measured. */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/dataset.h"
#include "bench/operations.h"
#include "ringwood.h"

#define BENCH_THREADS_MAX 1024u

typedef struct {
    const char *name;
    const char *text;              /* what it does, for the help */
    bench_step step;
    unsigned shares[BENCH_KINDS];  /* percent, for bench_step_mix */
    bench_distribution distribution;
    bool distribution_is_set;      /* else the one that the user asked for */
    bool share_is_asked;           /* shares come from --read-share */
    bool scan_length_varies;
    bool loads;                    /* writes every record once: no budget */
    bool whole;                    /* reads every record once: no budget */
    bool writes;                   /* commits are awaited in durable form before the clock stops */
    bool changes_set;              /* afterwards other records exist */
    bool batches;                  /* --batch applies */
    bool transactional;            /* it runs transactions, which may have to be begun again */
} bench_workload;

/* All, up to one without a name. */
extern const bench_workload bench_workloads[];
/* NULL: there is none of this name, which is size bytes long. */
const bench_workload *bench_workload_find(const char *name, size_t size);

/* Whether it is made of gets and updates alone, so that a thread can have several under way together. */
bool bench_workload_takes_in_flight(const bench_workload *workload);

/* What a run is asked for. */
typedef struct {
    const bench_workload *workload;
    unsigned threads;
    bool sync;
    uint32_t batch;
    uint32_t in_flight;            /* operations that each thread has under way together, where the workload takes it; 0: one after the other */
    uint32_t scan_length;
    unsigned read_share;           /* percent */
    unsigned txn_mode;             /* RW_SNAPSHOT, RW_SERIALIZABLE or RW_PESSIMISTIC */
    uint32_t txn_reads, txn_writes;
    bench_distribution distribution;
    double seconds;                /* 0: no time limit */
    uint64_t operations;           /* 0: as many as the workload's nature gives, when there is no time limit either */
    double rate;                   /* operations a second of all threads, open loop; 0: closed */
    bool series;                   /* keep what happened in each second */
    uint64_t seed;
    bool progress;                 /* a line each second on stderr */
} bench_request;

typedef struct {
    bench_request request;
    bench_distribution distribution; /* in effect */
    bool draws;                    /* it drew records by the distribution */
    /* what came of it */
    int code;                      /* the failure that ended it, 0 when it ran to its end */
    uint64_t operations;
    uint64_t scanned;              /* records that scans returned */
    uint64_t transactions;         /* committed */
    uint64_t aborts[BENCH_ABORTS]; /* transactions begun again, by reason */
    uint64_t wrong;                /* wrong answers */
    char complaint[256];
    double seconds;                /* the last flush of asynchronous writes included */
    double flush_seconds;
    bool paced;                    /* it ran in an open loop */
    uint64_t behind;               /* of an open loop: operations that were due and had not begun at its end */
    bench_second *series;          /* NULL: not kept. The result's: bench_result_free */
    uint32_t series_count;
    double cpu_us;                 /* of the process, all threads */
    rw_stats_t before, after;
    rw_histogram all, kinds[BENCH_KINDS]; /* nanoseconds */
} bench_result;

/* Set by a signal handler: workloads end early. */
extern _Atomic bool bench_interrupted;

/* Runs it. The dataset's present positions are brought up to date. Returns result->code. */
int bench_workload_run(rw_db *db, bench_dataset *dataset, const bench_request *request, bench_result *result);
void bench_result_free(bench_result *result);

#endif
