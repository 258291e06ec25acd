#include "bench/compare/lane.h"

#include <stdio.h>
#include <stdlib.h>

int compare_lane_init(compare_lane *lane, compare_shared *shared, uint64_t seed, unsigned index, unsigned count)
{
    const bench_dataset *dataset = shared->dataset;
    memset(lane, 0, sizeof *lane);
    lane->shared = shared;
    rw_random_seed(&lane->random, seed * 1000003 + index);
    rw_histogram_init(&lane->latency);
    lane->next = (uint64_t)((unsigned __int128)dataset->records * index / count);
    lane->limit = (uint64_t)((unsigned __int128)dataset->records * (index + 1) / count);
    size_t room = RW_MAX(COMPARE_BATCH_PUTS, shared->workload->in_flight);
    lane->keys = malloc(room * dataset->key_size);
    lane->values = malloc(room * dataset->value_size + 1);
    if (lane->keys == NULL || lane->values == NULL) return rw_error(RW_ENOMEM, "no memory for a thread's records");
    lane->requests = shared->workload->in_flight > 0 ? calloc(shared->workload->in_flight, sizeof *lane->requests) : NULL;
    if (shared->workload->in_flight > 0 && lane->requests == NULL) return rw_error(RW_ENOMEM, "no memory for a thread's requests");
    for (unsigned i = 0; i < COMPARE_BATCH_PUTS; i++) {
        lane->key_slices[i] = lane_key(lane, i);
        lane->value_slices[i] = lane_value(lane, i);
    }
    return 0;
}

void compare_lane_free(compare_lane *lane)
{
    bench_recorder_free(&lane->recorder);
    free(lane->requests);
    free(lane->keys);
    free(lane->values);
}

int compare_lane_begin(compare_lane *lane, double rate, bool series, unsigned index, unsigned count)
{
    uint64_t begin = lane->shared->begin_ticks;
    if (rate > 0 && !compare_workload_is_whole(lane->shared->workload)) bench_pacer_init(&lane->pacer, begin, rate, index, count);
    lane->records_series = series;
    return series ? bench_recorder_init(&lane->recorder, begin) : 0;
}

void lane_wrong(compare_lane *lane, const unsigned char *key, const char *what)
{
    lane->wrong++;
    if (lane->complaint[0] != '\0') return;
    char hex[2 * 32 + 1];
    uint32_t shown = RW_MIN(lane->shared->dataset->key_size, 32u);
    for (uint32_t i = 0; i < shown; i++) snprintf(hex + (size_t)2 * i, 3, "%02x", key[i]);
    snprintf(lane->complaint, sizeof lane->complaint, "%s: %s: key %s: %s", lane->shared->adapter->title, lane->shared->workload->name, hex, what);
}

int lane_failed(compare_lane *lane, int code)
{
    snprintf(lane->complaint, sizeof lane->complaint, "%s: %s: %s", lane->shared->adapter->title, lane->shared->workload->name, rw_error_text());
    return code;
}
