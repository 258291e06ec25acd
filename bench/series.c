#include "bench/series.h"

#include <stdlib.h>

#include "base/base.h"
#include "bench/measure.h"

#define SUB_COUNT ((uint64_t)1 << BENCH_SERIES_SUB_BITS)

/* As base/histogram.c does it, with fewer buckets; the last one holds all that is larger. */
static unsigned bucket_of(uint64_t value)
{
    if (value < SUB_COUNT) return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - BENCH_SERIES_SUB_BITS;
    uint64_t bucket = ((uint64_t)shift << BENCH_SERIES_SUB_BITS) + (value >> shift);
    return (unsigned)RW_MIN(bucket, (uint64_t)BENCH_SERIES_BUCKETS - 1);
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_bound(unsigned bucket)
{
    if (bucket < SUB_COUNT) return bucket;
    unsigned shift = (bucket >> BENCH_SERIES_SUB_BITS) - 1;
    return ((((uint64_t)bucket & (SUB_COUNT - 1)) + SUB_COUNT) << shift) + (((uint64_t)1 << shift) - 1);
}

int bench_recorder_init(bench_recorder *recorder, uint64_t begin_ticks)
{
    uint64_t second_ticks = bench_clock_ticks_from_seconds(1);
    *recorder = (bench_recorder){.begin_ticks = begin_ticks, .second_ticks = second_ticks, .end_ticks = begin_ticks + second_ticks,
                                 .limit = BENCH_SERIES_SECONDS_MAX};
    recorder->seconds = calloc(recorder->limit, sizeof *recorder->seconds);
    return recorder->seconds != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for what happened in each second");
}

void bench_recorder_free(bench_recorder *recorder)
{
    for (uint32_t i = 0; recorder->seconds != NULL && i <= recorder->second; i++) free(recorder->seconds[i]);
    free(recorder->seconds);
    recorder->seconds = NULL;
}

void bench_recorder_add(bench_recorder *recorder, uint64_t now_ticks, uint64_t ns, uint64_t count)
{
    if (RW_UNLIKELY(now_ticks >= recorder->end_ticks)) {
        uint64_t second = (now_ticks - recorder->begin_ticks) / recorder->second_ticks;
        recorder->second = (uint32_t)RW_MIN(second, (uint64_t)recorder->limit - 1);
        recorder->end_ticks = recorder->begin_ticks + (second + 1) * recorder->second_ticks;
    }
    bench_second_recorded *s = recorder->seconds[recorder->second];
    if (RW_UNLIKELY(s == NULL)) {
        s = recorder->seconds[recorder->second] = calloc(1, sizeof *s);
        RW_ASSERT(s != NULL);
    }
    s->operations += count;
    s->max = RW_MAX(s->max, ns);
    s->buckets[bucket_of(ns)]++;
}

uint32_t bench_series_length(const bench_recorder *const *recorders, unsigned count)
{
    uint32_t length = 0;
    for (unsigned i = 0; i < count; i++)
        if (recorders[i]->seconds[recorders[i]->second] != NULL) length = RW_MAX(length, recorders[i]->second + 1);
    return length;
}

static uint64_t quantile(const uint64_t *buckets, double fraction, uint64_t max)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < BENCH_SERIES_BUCKETS; i++) total += buckets[i];
    double rank = fraction * (double)total;
    for (unsigned i = 0; i < BENCH_SERIES_BUCKETS; i++) {
        seen += buckets[i];
        if (seen > 0 && (double)seen >= rank) return RW_MIN(bucket_bound(i), max);
    }
    return max;
}

static bench_second second_gather(const bench_recorder *const *recorders, unsigned count, uint32_t second)
{
    bench_second sum = {0};
    uint64_t buckets[BENCH_SERIES_BUCKETS] = {0};
    for (unsigned i = 0; i < count; i++) {
        const bench_second_recorded *s = second <= recorders[i]->second ? recorders[i]->seconds[second] : NULL;
        if (s == NULL) continue;
        sum.operations += s->operations;
        sum.max = RW_MAX(sum.max, s->max);
        for (unsigned b = 0; b < BENCH_SERIES_BUCKETS; b++) buckets[b] += s->buckets[b];
    }
    if (sum.operations == 0) return sum;
    sum.p50 = quantile(buckets, 0.5, sum.max);
    sum.p999 = quantile(buckets, 0.999, sum.max);
    return sum;
}

uint32_t bench_series_gather(const bench_recorder *const *recorders, unsigned count, bench_second *seconds, uint32_t limit)
{
    uint32_t length = RW_MIN(bench_series_length(recorders, count), limit);
    for (uint32_t i = 0; i < length; i++) seconds[i] = second_gather(recorders, count, i);
    return length;
}
