#include "bench/dataset.h"

#include <stdlib.h>

#include "base/base.h"

#define POOL_BYTES_MIN ((size_t)1 << 20)

int bench_dataset_init(bench_dataset *dataset)
{
    uint32_t code_bytes = RW_MIN(dataset->key_size, 8u);
    if (dataset->key_size < BENCH_KEY_SIZE_MIN || (dataset->hashed && dataset->key_size < 8))
        return rw_error(RW_EINVAL, "keys of %u bytes are too short", dataset->key_size);
    if (dataset->records == 0 || dataset->records > (uint64_t)1 << 48 || (code_bytes < 8 && dataset->records > (uint64_t)1 << (8 * code_bytes - BENCH_SLOT_BITS)))
        return rw_error(RW_EINVAL, "keys of %u bytes do not number %llu records", dataset->key_size, (unsigned long long)dataset->records);
    rw_random random;
    rw_random_seed(&random, dataset->seed);
    dataset->pool_size = RW_MAX(POOL_BYTES_MIN, 2 * (size_t)dataset->value_size) & ~(size_t)7;
    dataset->pool = malloc(dataset->pool_size);
    if (dataset->pool == NULL) return rw_error(RW_ENOMEM, "no memory for %zu bytes of values", dataset->pool_size);
    for (size_t i = 0; i < dataset->pool_size; i += 8) rw_store_u64(dataset->pool + i, rw_random_next(&random));
    bench_permutation_init(&dataset->order, dataset->records, dataset->seed);
    return 0;
}

void bench_dataset_free(bench_dataset *dataset)
{
    free(dataset->pool);
    dataset->pool = NULL;
}

uint64_t bench_dataset_code(const bench_dataset *dataset, uint64_t position)
{
    if (RW_LIKELY(position < dataset->records)) return bench_permutation_at(&dataset->order, position) << BENCH_SLOT_BITS;
    uint64_t inserted = position - dataset->records, generation = inserted / dataset->records;
    return bench_permutation_at(&dataset->order, inserted % dataset->records) << BENCH_SLOT_BITS | ((generation + 1) * 2 & 0xff);
}

void bench_dataset_key(const bench_dataset *dataset, uint64_t code, unsigned char *key)
{
    uint32_t size = dataset->key_size;
    uint64_t number = __builtin_bswap64(dataset->hashed ? bench_dataset_mix(code) : size < 8 ? code << (64 - 8 * size) : code);
    memcpy(key, &number, RW_MIN(size, 8u));
    /* What follows the number is different from key to key, as it is in real keys, and cannot be cut off as a common prefix. */
    for (uint32_t at = 8; at < size; at += 8) {
        uint64_t filler = bench_dataset_mix(code + at);
        memcpy(key + at, &filler, RW_MIN(size - at, 8u));
    }
}

/* check (4 bytes), random bytes, and in the last 4 bytes check ^ the first random ones: so halves of two values do not pass for one. */
void bench_dataset_value(const bench_dataset *dataset, const unsigned char *key, rw_random *random, unsigned char *value)
{
    uint32_t size = dataset->value_size, check = bench_dataset_value_check(bench_dataset_key_order(dataset, key));
    size_t from = (size_t)rw_random_below(random, dataset->pool_size - size);
    memcpy(value, dataset->pool + from, size);
    memcpy(value, &check, RW_MIN(size, 4u));
    if (size >= BENCH_VALUE_ENDS) rw_store_u32(value + size - 4, check ^ rw_load_u32(value + 4));
}
