/* A small, fast, seeded generator (xoshiro256**). Not for secrets. */
#ifndef RW_RANDOM_H
#define RW_RANDOM_H

#include <stdint.h>

typedef struct {
    uint64_t state[4];
} rw_random;

void rw_random_seed(rw_random *random, uint64_t seed);
uint64_t rw_random_next(rw_random *random);
/* 0 <= result < bound, without bias worth a word; bound > 0. */
uint64_t rw_random_below(rw_random *random, uint64_t bound);
/* 0 <= result < 1. */
double rw_random_unit(rw_random *random);

#endif
