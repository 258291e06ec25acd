/*
 * The open loop: operations have intended starts at a fixed rate, whether the one before has ended or not, and their latency counts from there. An
 * operation that had to wait because its thread was held up in an earlier one has that wait in its latency, as a user's request would.
 */
#ifndef BENCH_PACER_H
#define BENCH_PACER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One thread's share of the rate. interval 0: a closed loop. */
typedef struct {
    uint64_t begin_ticks;
    double interval;             /* ticks between intended starts */
    double due;                  /* the next intended start, ticks after begin */
} bench_pacer;

/* rate: operations a second of all threads; the starts of lane index of count lie between those of the others. */
void bench_pacer_init(bench_pacer *pacer, uint64_t begin_ticks, double rate, unsigned index, unsigned count);

static inline bool bench_pacer_is_on(const bench_pacer *pacer)
{
    return pacer->interval > 0;
}

static inline uint64_t bench_pacer_due(const bench_pacer *pacer)
{
    return pacer->begin_ticks + (uint64_t)pacer->due;
}

/* Sleeps until the next intended start, not at all when it has passed, and returns it; the one after comes count intervals later. */
uint64_t bench_pacer_wait(bench_pacer *pacer, uint64_t count, const _Atomic bool *stop);
/* Operations that should have begun before the deadline and did not. */
uint64_t bench_pacer_behind(const bench_pacer *pacer, uint64_t deadline_ticks);

#endif
