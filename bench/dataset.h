/*
 * The records that a benchmark works on: keys and values made from numbers, and which of them exist at this moment.
 *
 * A record has a position: 0, 1, 2 ... in the order in which fillrandom writes them; later inserts follow. Those present are always the
 * positions first <= p < end: deletes take loaded ones from the front, inserts add at the end. Positions map to key codes by a bijection,
 * so that neighbours in position are strewn over the key range, and drawing positions by a popularity curve is a scrambled draw of keys.
 *
 * A key code is record number * 256 + slot: slot 0 for a loaded record, 1 for keys that never exist, 2, 4, 6 ... for inserts, which so
 * land between loaded records.
 */
#ifndef BENCH_DATASET_H
#define BENCH_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "base/random.h"
#include "bench/keys.h"
#include "ringwood.h"

#define BENCH_KEY_SIZE_MIN 4u
#define BENCH_VALUE_SIZE_MAX ((uint64_t)64 << 20)
#define BENCH_SLOT_BITS 8u

typedef struct {
    /* set by bench_dataset_init, constant afterwards */
    uint64_t records;         /* as loaded */
    uint32_t key_size;        /* bytes */
    uint32_t value_size;      /* bytes */
    bool hashed;              /* keys are hashes of their codes, not the codes themselves */
    uint64_t seed;
    bench_permutation order;
    unsigned char *pool;      /* random bytes that values are cut from */
    size_t pool_size;
    /* changed between workloads only */
    bool loaded;
    uint64_t first, end;      /* positions present */
} bench_dataset;

/* The fields from records to seed must be set. RW_EINVAL when the keys are too short for so many records. */
int bench_dataset_init(bench_dataset *dataset);
void bench_dataset_free(bench_dataset *dataset);

uint64_t bench_dataset_code(const bench_dataset *dataset, uint64_t position);
/* Writes dataset->key_size bytes. */
void bench_dataset_key(const bench_dataset *dataset, uint64_t code, unsigned char *key);
/* Writes dataset->value_size bytes: not compressible, another value at each call, and checkable against the key. */
void bench_dataset_value(const bench_dataset *dataset, const unsigned char *key, rw_random *random, unsigned char *value);

/* ---- checks: inline, because a scan makes one for each record, and what they cost counts as the engine's ---- */

/* A bijection of the 64-bit numbers (the finalizer of MurmurHash3). */
static inline uint64_t bench_dataset_mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

/* The number that orders the key: its first 8 bytes (or all of them, when it is shorter), big-endian. */
static inline uint64_t bench_dataset_key_order(const bench_dataset *dataset, const unsigned char *key)
{
    if (RW_LIKELY(dataset->key_size >= 8)) return __builtin_bswap64(rw_load_u64(key));
    uint64_t number = 0;
    memcpy(&number, key, dataset->key_size);
    return __builtin_bswap64(number) >> (64 - 8 * dataset->key_size);
}

/* What the value of a key with this order begins with. */
static inline uint32_t bench_dataset_value_check(uint64_t key_order)
{
    return (uint32_t)(bench_dataset_mix(key_order + 0x9e3779b97f4a7c15u) >> 32);
}

#define BENCH_VALUE_ENDS 12u   /* values of at least this many bytes are checked at both ends */

static inline bool bench_dataset_value_is_right(const bench_dataset *dataset, const unsigned char *key, const void *value, size_t size)
{
    const unsigned char *bytes = value;
    if (RW_UNLIKELY(size != dataset->value_size)) return false;
    uint32_t check = bench_dataset_value_check(bench_dataset_key_order(dataset, key));
    if (RW_UNLIKELY(size < 4)) return size == 0 || memcmp(bytes, &check, size) == 0;
    if (RW_UNLIKELY(rw_load_u32(bytes) != check)) return false;
    return size < BENCH_VALUE_ENDS || rw_load_u32(bytes + size - 4) == (check ^ rw_load_u32(bytes + 4));
}

/* The dataset's description is kept in the database itself, so that a later run can go on with it (--use-existing). */
int bench_dataset_store(const bench_dataset *dataset, rw_db *db, bool busy);
/* RW_ENOTFOUND: none was stored. RW_EBUSY: the run that changed it last did not finish. */
int bench_dataset_load(bench_dataset *dataset, rw_db *db);

#endif
