#include "bench/keys.h"

#include <math.h>

#include "base/base.h"

void bench_permutation_init(bench_permutation *permutation, uint64_t count, uint64_t seed)
{
    RW_ASSERT(count > 0 && count <= (uint64_t)1 << 62);
    rw_random random;
    rw_random_seed(&random, seed);
    unsigned bits = 2; /* so that the shift is at least 1 */
    while ((uint64_t)1 << bits < count) bits++;
    permutation->count = count;
    permutation->mask = ((uint64_t)1 << bits) - 1;
    permutation->shift = bits / 2;
    for (unsigned i = 0; i < 3; i++) {
        permutation->multiply[i] = rw_random_next(&random) | 1;
        permutation->add[i] = rw_random_next(&random);
    }
}

/* Each step (odd multiplication, addition, xor with the own high bits) is a bijection of the power of two. */
static uint64_t permutation_mix(const bench_permutation *permutation, uint64_t x)
{
    for (unsigned i = 0; i < 3; i++) {
        x = (x * permutation->multiply[i] + permutation->add[i]) & permutation->mask;
        x ^= x >> permutation->shift;
    }
    return x;
}

uint64_t bench_permutation_at(const bench_permutation *permutation, uint64_t index)
{
    RW_ASSERT(index < permutation->count);
    /* Values past count are walked on: the cycle that begins inside ends inside. Fewer than two steps on average. */
    do index = permutation_mix(permutation, index);
    while (index >= permutation->count);
    return index;
}

double bench_zipfian_zeta(uint64_t count, double theta)
{
    enum { SUMMED = 10000 };
    double sum = 0;
    uint64_t direct = RW_MIN(count, (uint64_t)SUMMED);
    for (uint64_t i = 1; i <= direct; i++) sum += pow((double)i, -theta);
    if (count == direct) return sum;
    /* Euler-Maclaurin for the rest: the error is below 1e-9, and no pass over all records is needed. */
    double from = (double)direct, to = (double)count;
    sum += (pow(to, 1 - theta) - pow(from, 1 - theta)) / (1 - theta);
    sum += (pow(to, -theta) - pow(from, -theta)) / 2;
    sum += theta / 12 * (pow(from, -theta - 1) - pow(to, -theta - 1));
    return sum;
}

void bench_zipfian_init(bench_zipfian *zipfian, uint64_t count, double theta)
{
    RW_ASSERT(count > 0 && theta > 0 && theta < 1);
    double n = (double)count;
    zipfian->count = count;
    zipfian->alpha = 1 / (1 - theta);
    zipfian->zeta = bench_zipfian_zeta(count, theta);
    zipfian->second = 1 + pow(0.5, theta);
    zipfian->eta = count <= 2 ? 0 : (1 - pow(2 / n, 1 - theta)) / (1 - zipfian->second / zipfian->zeta);
}

uint64_t bench_zipfian_rank(const bench_zipfian *zipfian, rw_random *random)
{
    double u = rw_random_unit(random), share = u * zipfian->zeta;
    if (share < 1 || zipfian->count == 1) return 0;
    if (share < zipfian->second || zipfian->count == 2) return 1;
    uint64_t rank = (uint64_t)((double)zipfian->count * pow(zipfian->eta * u - zipfian->eta + 1, zipfian->alpha));
    return RW_MIN(rank, zipfian->count - 1);
}
