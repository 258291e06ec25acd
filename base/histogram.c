#include "base/histogram.h"

#include <string.h>

#include "base/error.h"

#define SUB_COUNT ((uint64_t)1 << RW_HISTOGRAM_SUB_BITS)

/*
 * Values below SUB_COUNT have a bucket each. Above, the row is the place of the highest bit, the column the SUB_BITS bits that
 * follow it.
 */
static unsigned bucket_of(uint64_t value)
{
    if (value < SUB_COUNT) return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - RW_HISTOGRAM_SUB_BITS;
    return (unsigned)(((uint64_t)shift << RW_HISTOGRAM_SUB_BITS) + (value >> shift));
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_bound(unsigned bucket)
{
    if (bucket < SUB_COUNT) return bucket;
    unsigned shift = (bucket >> RW_HISTOGRAM_SUB_BITS) - 1;
    uint64_t top_bits = (bucket & (SUB_COUNT - 1)) + SUB_COUNT;
    return (top_bits << shift) + (((uint64_t)1 << shift) - 1);
}

void rw_histogram_init(rw_histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
    histogram->min = UINT64_MAX;
}

void rw_histogram_add(rw_histogram *histogram, uint64_t value)
{
    unsigned bucket = bucket_of(value);
    RW_ASSERT_SLOW(bucket < RW_HISTOGRAM_BUCKETS);
    RW_ASSERT_SLOW(value <= bucket_bound(bucket));
    histogram->buckets[bucket]++;
    histogram->count++;
    histogram->sum += value;
    if (value < histogram->min) histogram->min = value;
    if (value > histogram->max) histogram->max = value;
}

void rw_histogram_merge(rw_histogram *into, const rw_histogram *from)
{
    for (unsigned i = 0; i < RW_HISTOGRAM_BUCKETS; i++) into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum += from->sum;
    if (from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
}

/* How many values must not exceed the quantile: fraction of count, rounded up, but not for what is only the product's rounding error. */
static uint64_t quantile_rank(uint64_t count, double fraction)
{
    double exact = fraction * (double)count;
    uint64_t rank = (uint64_t)exact;
    if (exact - (double)rank > exact * 1e-12) rank++;
    if (rank == 0) return 1;
    return rank < count ? rank : count;
}

uint64_t rw_histogram_quantile(const rw_histogram *histogram, double fraction)
{
    if (histogram->count == 0) return 0;
    if (fraction <= 0) return histogram->min;
    if (fraction >= 1) return histogram->max;
    uint64_t rank = quantile_rank(histogram->count, fraction), seen = 0;
    for (unsigned i = 0; i < RW_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen < rank) continue;
        uint64_t bound = bucket_bound(i);
        return bound < histogram->max ? bound : histogram->max;
    }
    return histogram->max;
}

double rw_histogram_mean(const rw_histogram *histogram)
{
    return histogram->count == 0 ? 0 : (double)histogram->sum / (double)histogram->count;
}
