/* Time for each operation: a clock whose reading costs little, and what it costs. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "base/histogram.h"

/* Written by bench_clock_init, before any thread starts; constant afterwards. */
typedef struct {
    bool tsc;                /* the processor's counter, when it is invariant; else clock_gettime */
    uint64_t ns_per_tick_q32; /* nanoseconds in a tick, times 2^32 */
    double reading_ns;       /* what one reading costs */
} bench_clock;

extern bench_clock bench_clock_chosen;

/* Chooses and calibrates the clock; takes about 50 ms. */
void bench_clock_init(void);

static inline uint64_t bench_clock_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t bench_clock_ticks(void)
{
#if defined(__x86_64__)
    if (__builtin_expect(bench_clock_chosen.tsc, 1)) return __rdtsc();
#endif
    return bench_clock_monotonic_ns();
}

static inline uint64_t bench_clock_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * bench_clock_chosen.ns_per_tick_q32) >> 32);
}

static inline uint64_t bench_clock_ticks_from_seconds(double seconds)
{
    return (uint64_t)(seconds * 1e9 / ((double)bench_clock_chosen.ns_per_tick_q32 / 4294967296.0));
}

/* Processor time of the whole process, user and system, microseconds. */
double bench_cpu_us(void);
/* The most memory that the process ever had resident, bytes. */
uint64_t bench_resident_bytes_max(void);

#endif
