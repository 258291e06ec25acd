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
/* The number that orders the key: its first 8 bytes (or all of them, when it is shorter), big-endian. */
uint64_t bench_dataset_key_order(const bench_dataset *dataset, const unsigned char *key);
/* Writes dataset->value_size bytes: not compressible, another value at each call, and checkable against the key. */
void bench_dataset_value(const bench_dataset *dataset, const unsigned char *key, rw_random *random, unsigned char *value);
bool bench_dataset_value_is_right(const bench_dataset *dataset, const unsigned char *key, const void *value, size_t size);

/* The dataset's description is kept in the database itself, so that a later run can go on with it (--use-existing). */
int bench_dataset_store(const bench_dataset *dataset, rw_db *db, bool busy);
/* RW_ENOTFOUND: none was stored. RW_EBUSY: the run that changed it last did not finish. */
int bench_dataset_load(bench_dataset *dataset, rw_db *db);

#endif
