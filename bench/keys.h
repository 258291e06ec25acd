/* Which record comes next: a bijective permutation for loads, and the popularity curves of the read and update workloads. */
#ifndef BENCH_KEYS_H
#define BENCH_KEYS_H

#include <stdint.h>

#include "base/random.h"

#define BENCH_ZIPFIAN_THETA 0.99 /* YCSB's skew */

typedef enum { BENCH_UNIFORM, BENCH_ZIPFIAN, BENCH_LATEST } bench_distribution;

/* A bijection of [0, count), drawn by a seed. Needs no memory for each record. */
typedef struct {
    uint64_t count;
    uint64_t mask;          /* the next power of two, less one: the domain that the rounds permute */
    unsigned shift;
    uint64_t multiply[3];   /* odd */
    uint64_t add[3];
} bench_permutation;

/* count > 0 */
void bench_permutation_init(bench_permutation *permutation, uint64_t count, uint64_t seed);
/* index < count */
uint64_t bench_permutation_at(const bench_permutation *permutation, uint64_t index);

/* Ranks 0, 1, 2 ... of count, rank r drawn in proportion to 1 / (r + 1)^theta (Gray et al., SIGMOD 1994, as YCSB does). */
typedef struct {
    uint64_t count;
    double alpha, zeta, eta, second;
} bench_zipfian;

/* count > 0, 0 < theta < 1 */
void bench_zipfian_init(bench_zipfian *zipfian, uint64_t count, double theta);
uint64_t bench_zipfian_rank(const bench_zipfian *zipfian, rw_random *random);
/* The sum of 1 / i^theta for i from 1 to count. */
double bench_zipfian_zeta(uint64_t count, double theta);

#endif
