/*
 * A histogram of 64-bit values with bounded relative error (2^-6), fixed memory, no allocation: powers of two, each cut into 64 equal
 * buckets. One writer; add several together for a total.
 */
#ifndef RW_HISTOGRAM_H
#define RW_HISTOGRAM_H

#include <stdint.h>

#define RW_HISTOGRAM_SUB_BITS 6
#define RW_HISTOGRAM_BUCKETS ((64 - RW_HISTOGRAM_SUB_BITS + 1) << RW_HISTOGRAM_SUB_BITS)

typedef struct {
    uint64_t count, sum, min, max;
    uint64_t buckets[RW_HISTOGRAM_BUCKETS];
} rw_histogram;

void rw_histogram_init(rw_histogram *histogram);
void rw_histogram_add(rw_histogram *histogram, uint64_t value);
void rw_histogram_merge(rw_histogram *into, const rw_histogram *from);
/* The smallest bucket bound that at least fraction (0 to 1) of the values do not exceed; exact for 0 and 1. 0 when empty. */
uint64_t rw_histogram_quantile(const rw_histogram *histogram, double fraction);
double rw_histogram_mean(const rw_histogram *histogram);

#endif
