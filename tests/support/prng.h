/* Seeded random numbers for generated tests: the same seed gives the same run on every machine. */
#ifndef TESTS_PRNG_H
#define TESTS_PRNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t state;
} prng;

static inline uint64_t prng_next(prng *random)
{
    uint64_t z = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 <= result < bound; bound > 0. The bias of the modulo does not matter here. */
static inline uint64_t prng_below(prng *random, uint64_t bound)
{
    return prng_next(random) % bound;
}

static inline void prng_fill(prng *random, void *bytes, size_t size)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++) at[i] = (uint8_t)(prng_next(random) >> 32);
}

#endif
