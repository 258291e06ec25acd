/* At which fractions a latency distribution is told. */
#ifndef BENCH_PERCENTILES_H
#define BENCH_PERCENTILES_H

#define BENCH_PERCENTILES 6u

extern const struct bench_percentile {
    const char *name;
    double fraction;
} bench_percentiles[BENCH_PERCENTILES];

/* The next fraction at which a distribution is sampled. */
double bench_distribution_next(double fraction);

#endif
