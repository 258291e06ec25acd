#include "bench/lane.h"

#include <stdio.h>

uint64_t lane_draw(bench_lane *lane)
{
    const bench_shared *shared = lane->shared;
    if (shared->distribution == BENCH_UNIFORM) return shared->first + rw_random_below(&lane->random, shared->end - shared->first);
    uint64_t rank = bench_zipfian_rank(&shared->zipfian, &lane->random);
    if (shared->distribution == BENCH_ZIPFIAN) return shared->first + rank;
    return atomic_load_explicit(&shared->frontier.done, memory_order_acquire) - 1 - rank;
}

int lane_wrong(bench_lane *lane, const unsigned char *key, const char *what)
{
    lane->wrong++;
    if (lane->complaint[0] != '\0') return 0;
    char hex[2 * 32 + 1];
    uint32_t shown = RW_MIN(lane->shared->dataset->key_size, 32u);
    for (uint32_t i = 0; i < shown; i++) snprintf(hex + (size_t)2 * i, 3, "%02x", key[i]);
    snprintf(lane->complaint, sizeof lane->complaint, "%s: key %s: %s", lane->shared->name, hex, what);
    return 0;
}

int lane_failed(bench_lane *lane, int code, const char *call)
{
    const char *words = rw_last_error(lane->shared->db);
    snprintf(lane->complaint, sizeof lane->complaint, "%s: %s: %s", lane->shared->name, call, words[0] != '\0' ? words : rw_strerror(code));
    return code;
}
