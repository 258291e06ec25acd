#include "bench/percentiles.h"

const struct bench_percentile bench_percentiles[BENCH_PERCENTILES] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}, {"max", 1}};

/* Steps halve what is left to 100%, as HdrHistogram prints them; five to each half. */
double bench_distribution_next(double fraction)
{
    return fraction + (1 - fraction) * 0.129449436703876; /* 1 - 2^(-1/5) */
}
