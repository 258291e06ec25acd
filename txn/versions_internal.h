/* Between the files of the version store: one version, and the search for it. */
#ifndef RW_VERSIONS_INTERNAL_H
#define RW_VERSIONS_INTERNAL_H

#include "txn/versions.h"

typedef struct {
    version *next, *previous;
} version_link;

/* What an operation with this timestamp replaced under this key. Never changes but for its links; behind them stand the key's bytes, then the value's. */
struct version {
    uint64_t timestamp;
    uint64_t head;                 /* key bytes 4 to 11, behind the bucket; big-endian, zero-padded */
    uint32_t bucket;               /* key bytes 0 to 3, the same */
    uint32_t value_size;
    version *older, *younger;      /* in order of timestamp */
    uint16_t key_size;
    uint8_t levels;
    bool present, is_extent;
    version_link links[];
};

/* A key, as it is compared. */
typedef struct {
    rw_slice slice;
    uint64_t head;
    uint32_t bucket;
} version_key;

static inline version_key version_key_of(rw_slice key)
{
    unsigned char bytes[12] = {0};
    if (key.size > 0) memcpy(bytes, key.data, RW_MIN(key.size, sizeof bytes));
    return (version_key){.slice = key, .head = __builtin_bswap64(rw_load_u64(bytes + 4)), .bucket = __builtin_bswap32(rw_load_u32(bytes))};
}

static inline rw_slice version_key_bytes(const version *one)
{
    return rw_slice_of(&one->links[one->levels], one->key_size);
}

static inline rw_slice version_value(const version *one)
{
    return rw_slice_of((const unsigned char *)&one->links[one->levels] + one->key_size, one->value_size);
}

static inline version_key version_key_at(const version *one)
{
    return (version_key){.slice = version_key_bytes(one), .head = one->head, .bucket = one->bucket};
}

/* Zero padding keeps the order of keys that differ in their first bytes, and tells nothing of those that do not. */
static inline int version_key_order(const version *one, const version_key *key)
{
    if (one->bucket != key->bucket) return one->bucket < key->bucket ? -1 : 1;
    if (one->head != key->head) return one->head < key->head ? -1 : 1;
    return rw_slice_compare(version_key_bytes(one), key->slice);
}

static inline bool version_has_key(const version *one, const version_key *key)
{
    return one != NULL && one->head == key->head && one->bucket == key->bucket && rw_slice_equal(version_key_bytes(one), key->slice);
}

/*
 * The first version at or after (key, timestamp), under the latch or the token. before, when it is not NULL: on each level the last one before that place; NULL: none,
 * the place is the first.
 */
version *version_seek(const version_store *s, const version_key *key, uint64_t timestamp, version *before[VERSION_LEVELS]);
/* The last one on each level. */
void version_seek_last(const version_store *s, version *last[VERSION_LEVELS]);

/* After the list by timestamp changed. */
static inline void version_store_count(version_store *s, uint32_t count)
{
    atomic_store_explicit(&s->count, count, memory_order_relaxed);
    atomic_store_explicit(&s->front, s->oldest == NULL ? UINT64_MAX : s->oldest->timestamp, memory_order_relaxed);
}

#endif
