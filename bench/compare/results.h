/* From what the rounds measured to what is said: medians, spread, ratios. */
#ifndef BENCH_COMPARE_RESULTS_H
#define BENCH_COMPARE_RESULTS_H

#include "bench/compare/run.h"

typedef struct {
    double median, min, max;
    unsigned count;                 /* of values; 0: the others mean nothing */
} compare_spread;

/* Sorts values. The median of an even number of values is the mean of the middle two. */
compare_spread compare_spread_of(double *values, unsigned count);

/* All turns of a run: for each stage, engine and round. */
typedef struct {
    const compare_plan *plan;
    unsigned rounds;                /* begun; the last may be cut short */
    compare_turn *turns;
} compare_results;

compare_turn *compare_results_turn(const compare_results *results, unsigned stage, unsigned engine, unsigned round);
/* NULL: it was not done. */
const compare_measurement *compare_results_measurement(const compare_results *results, unsigned stage, unsigned engine, unsigned round, unsigned workload);


/* One workload of one engine over all rounds. */
typedef struct {
    const compare_workload *instead; /* all of this is of that one: the engine cannot do the workload itself. NULL: it is its own */
    compare_spread rate;            /* operations a second */
    compare_spread ratio;           /* of the base engine's rate to this one's, each round by itself */
    rw_histogram latency;           /* all rounds together */
    double cpu_us;                  /* for each operation; from here on medians */
    double write_bytes;             /* for each byte put; 0 when nothing was put */
    double read_bytes;              /* for each operation */
    double reads;                   /* for each operation; negative: the engine does not count them */
    double others_cpu;              /* processors that were not the engine's */
    double resident_max, anonymous, file_bytes, settle_seconds;
    bool settled;                   /* in every round */
    uint64_t behind;                /* all rounds */
    const compare_measurement *last; /* of the last round that did it; its series */
} compare_summary;

/* The engine that ratios refer to: ringwood, or the first one when ringwood does not take part. */
unsigned compare_results_base(const compare_plan *plan);
void compare_results_summarise(const compare_results *results, unsigned stage, unsigned engine, unsigned workload, compare_summary *summary);
/* The engine that comes nearest to the base engine in a workload, or leaves it behind: of those that are no yardstick and keep to the cache that they were given. Its ratio
 * is in *summary. engine_count of the plan: there is none. */
unsigned compare_results_best_other(const compare_results *results, unsigned stage, unsigned workload, compare_summary *summary);
/* Operations a second; 0 when nothing was done. */
double compare_measurement_rate(const compare_measurement *m);

/* What some turn of the engine tells of how its log was made durable; empty: nothing. */
const char *compare_results_sync_way(const compare_results *results, unsigned engine);

/* 0; 1: there were wrong answers or an engine failed; a negative code is not returned. Interruption is no failure. */
int compare_results_code(const compare_results *results);

#endif
