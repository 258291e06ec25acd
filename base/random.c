#include "base/random.h"

#include "base/error.h"

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

/* The state must not be all zeros; splitmix64 spreads any seed, 0 too, over it. */
void rw_random_seed(rw_random *random, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        random->state[i] = z ^ (z >> 31);
    }
}

uint64_t rw_random_next(rw_random *random)
{
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* The high word of the product: the bias is at most bound / 2^64. */
uint64_t rw_random_below(rw_random *random, uint64_t bound)
{
    RW_ASSERT(bound > 0);
    return (uint64_t)(((unsigned __int128)rw_random_next(random) * bound) >> 64);
}

double rw_random_unit(rw_random *random)
{
    return (double)(rw_random_next(random) >> 11) * 0x1p-53;
}
