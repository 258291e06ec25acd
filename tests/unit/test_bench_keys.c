/* The benchmark's permutation and popularity curves, which are no part of the library and so compiled in here. Argument: seed. */
#include "bench/keys.c"

#include <stdlib.h>
#include <time.h>

#include "tests/support/tap.h"

enum { DRAWS = 2000000, RANKS = 100000 };

static bool is_bijective(uint64_t count, uint64_t seed)
{
    bench_permutation permutation;
    bench_permutation_init(&permutation, count, seed);
    bool *met = calloc(count, sizeof *met), right = met != NULL;
    for (uint64_t i = 0; right && i < count; i++) {
        uint64_t at = bench_permutation_at(&permutation, i);
        right = at < count && !met[at];
        if (right) met[at] = true;
    }
    free(met);
    return right;
}

static void test_bijective(uint64_t seed)
{
    bool right = true;
    for (uint64_t count = 1; count <= 300; count++) right &= TAP_CHECK(is_bijective(count, seed + count));
    tap_ok(right, "a permutation of every count up to 300 is one");
    for (unsigned bits = 9; bits <= 20; bits++)
        for (int off = -1; off <= 1; off++) right &= TAP_CHECK(is_bijective((UINT64_C(1) << bits) + (uint64_t)(int64_t)off, seed + bits));
    tap_ok(right, "so are those around powers of two");
}

/* Neighbours must not stay neighbours, and seeds must differ: else random loads would not be random. */
static void test_scattering(uint64_t seed)
{
    enum { COUNT = 100000 };
    bench_permutation permutation, other;
    bench_permutation_init(&permutation, COUNT, seed);
    bench_permutation_init(&other, COUNT, seed + 1);
    double distance = 0;
    unsigned ascending = 0, same = 0;
    for (uint64_t i = 0; i + 1 < COUNT; i++) {
        uint64_t a = bench_permutation_at(&permutation, i), b = bench_permutation_at(&permutation, i + 1);
        distance += fabs((double)a - (double)b);
        ascending += a < b;
        same += a == bench_permutation_at(&other, i);
    }
    distance /= COUNT;
    tap_ok(distance > COUNT * 0.30 && distance < COUNT * 0.37, "neighbours end up a third of the range apart on average (%.3f)", distance / COUNT);
    tap_ok(ascending > COUNT * 0.45 && ascending < COUNT * 0.55, "ascents and descents are even (%.3f)", (double)ascending / COUNT);
    tap_ok(same < 50, "another seed is another order (%u places agree)", same);
}

static void test_zeta(void)
{
    double direct = 0;
    bool right = true;
    for (uint64_t i = 1; i <= 1000000; i++) {
        direct += pow((double)i, -BENCH_ZIPFIAN_THETA);
        if (i == 1 || i == 2 || i == 9999 || i == 10000 || i == 10001 || i == 1000000)
            right &= TAP_CHECK(fabs(bench_zipfian_zeta(i, BENCH_ZIPFIAN_THETA) - direct) < 1e-7);
    }
    tap_ok(right, "zeta agrees with the plain sum");
    tap_ok(fabs(bench_zipfian_zeta(10000000000, BENCH_ZIPFIAN_THETA) - 26.46902820178302) < 1e-6, "and with YCSB's constant for ten thousand million items");
}

static void test_shape(uint64_t seed)
{
    rw_random random;
    rw_random_seed(&random, seed);
    bench_zipfian zipfian;
    bench_zipfian_init(&zipfian, RANKS, BENCH_ZIPFIAN_THETA);
    uint32_t *drawn = calloc(RANKS, sizeof *drawn);
    if (!tap_ok(drawn != NULL, "memory for the counts")) return;
    bool inside = true;
    for (unsigned i = 0; i < DRAWS; i++) {
        uint64_t rank = bench_zipfian_rank(&zipfian, &random);
        inside &= rank < RANKS;
        if (rank < RANKS) drawn[rank]++;
    }
    tap_ok(inside, "every rank is in the range");
    double zeta = bench_zipfian_zeta(RANKS, BENCH_ZIPFIAN_THETA);
    tap_ok(fabs(drawn[0] * zeta / DRAWS - 1) < 0.03, "the first rank is drawn 1 / zeta of the time (%.4f)", drawn[0] * zeta / DRAWS);
    tap_ok(fabs(drawn[1] * zeta * pow(2, BENCH_ZIPFIAN_THETA) / DRAWS - 1) < 0.03, "the second by its share");
    bool right = true;
    for (uint64_t top = 10; top <= RANKS; top *= 10) {
        uint64_t sum = 0;
        for (uint64_t i = 0; i < top; i++) sum += drawn[i];
        double share = (double)sum / DRAWS, wanted = bench_zipfian_zeta(top, BENCH_ZIPFIAN_THETA) / zeta;
        /* Gray's formula is an approximation of the curve between the second and the last rank */
        right &= TAP_CHECK(fabs(share - wanted) < 0.02);
        tap_diag("the first %llu ranks: %.4f of the draws, exactly %.4f", (unsigned long long)top, share, wanted);
    }
    tap_ok(right, "the first 10, 100, ... ranks have their share");
    free(drawn);
}

static void test_small_counts(uint64_t seed)
{
    rw_random random;
    rw_random_seed(&random, seed);
    bool right = true;
    for (uint64_t count = 1; count <= 5; count++) {
        bench_zipfian zipfian;
        bench_zipfian_init(&zipfian, count, BENCH_ZIPFIAN_THETA);
        unsigned drawn[5] = {0};
        for (int i = 0; i < 20000; i++) {
            uint64_t rank = bench_zipfian_rank(&zipfian, &random);
            right &= TAP_CHECK(rank < count);
            if (rank < count) drawn[rank]++;
        }
        for (uint64_t i = 0; i + 1 < count; i++) right &= TAP_CHECK(drawn[i] > drawn[i + 1] && drawn[i + 1] > 0);
    }
    tap_ok(right, "one to five items: all drawn, each less often than the one before");
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    tap_diag("replay: test_bench_keys %llu", (unsigned long long)seed);
    test_bijective(seed);
    test_scattering(seed);
    test_zeta();
    test_shape(seed);
    test_small_counts(seed);
    return tap_done();
}
