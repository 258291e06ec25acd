/*
 * What happened in each second of a workload: how many operations ended in it, and how long they took. So a stall shows that an average hides.
 *
 * Each thread keeps a recorder of its own; they are added up when all have ended. A recorder's histograms are coarse (relative error 2^-4),
 * 2.5 KiB for each second.
 */
#ifndef BENCH_SERIES_H
#define BENCH_SERIES_H

#include <stdbool.h>
#include <stdint.h>

#define BENCH_SERIES_SUB_BITS 4u
#define BENCH_SERIES_ROWS 40u               /* powers of two of nanoseconds: up to hours */
#define BENCH_SERIES_BUCKETS (BENCH_SERIES_ROWS << BENCH_SERIES_SUB_BITS)
#define BENCH_SERIES_SECONDS_MAX 86400u     /* what comes later counts to the last one */

/* One second of all threads. */
typedef struct {
    uint64_t operations;
    uint64_t p50, p999, max;                /* nanoseconds; 0 when nothing ended in it */
} bench_second;

/* One second of one thread. */
typedef struct {
    uint64_t operations, max;
    uint32_t buckets[BENCH_SERIES_BUCKETS];
} bench_second_recorded;

typedef struct {
    uint64_t begin_ticks, second_ticks;
    uint64_t end_ticks;                     /* of the present second */
    uint32_t second;                        /* the present one */
    uint32_t limit;                         /* seconds that there is room for */
    bench_second_recorded **seconds;        /* NULL: nothing ended in it */
} bench_recorder;

/* RW_ENOMEM. The recorder's seconds begin at begin_ticks. */
int bench_recorder_init(bench_recorder *recorder, uint64_t begin_ticks);
void bench_recorder_free(bench_recorder *recorder);
/* count operations ended at now_ticks, after ns nanoseconds. */
void bench_recorder_add(bench_recorder *recorder, uint64_t now_ticks, uint64_t ns, uint64_t count);
/* Adds up the recorders. At most limit seconds are written; returns how many. */
uint32_t bench_series_gather(const bench_recorder *const *recorders, unsigned count, bench_second *seconds, uint32_t limit);
/* The seconds up to the last in which something ended in any of them. */
uint32_t bench_series_length(const bench_recorder *const *recorders, unsigned count);

#endif
