/* What the files records*.c share: where a key's bucket is, and the bytes of one bucket. Nobody else includes it. */
#ifndef RW_RECORDS_INTERNAL_H
#define RW_RECORDS_INTERNAL_H

#include "btree/records.h"

/* ---- one bucket, under its latch ---------------------------------------------------------------------------------- */

#define USED_MAX 3u                    /* rounds of the hand that a record stays for, at most, without another use */

typedef struct {
    uint32_t tag;                      /* of the key's hash */
    uint16_t offset;                   /* of the record in the bucket */
    uint8_t used;                      /* times, less those that the hand has come by since */
    uint8_t zero;
} bucket_slot;

/* Slots behind it, records at the frame's end. */
typedef struct {
    uint32_t heap_start;
    uint16_t count, hand;
    bucket_slot slots[];
} bucket;

typedef struct {
    uint64_t word;                     /* page_ref of the image that it was read from */
    uint32_t checksum;
    uint16_t key_size, value_size;
    unsigned char bytes[];             /* key, value */
} kept_record;

_Static_assert(sizeof(bucket_slot) == 8 && sizeof(bucket) == 8 && sizeof(kept_record) == 16, "records stay aligned");

static inline kept_record *record_at(bucket *b, unsigned slot)
{
    return (kept_record *)(void *)((unsigned char *)b + b->slots[slot].offset);
}

static inline uint32_t record_bytes(size_t key_size, size_t value_size)
{
    return (uint32_t)rw_align_up(sizeof(kept_record) + key_size + value_size, 8);
}

static inline void bucket_init(bucket *b, uint32_t page_size)
{
    *b = (bucket){.heap_start = page_size};
}

static inline uint32_t bucket_room(const bucket *b)
{
    return b->heap_start - (uint32_t)(sizeof *b + b->count * sizeof *b->slots);
}

/* Returns count when the key is not there. */
static inline unsigned bucket_find(bucket *b, rw_slice key, uint64_t hash)
{
    unsigned slot = 0;
    for (; slot < b->count; slot++) {
        if (b->slots[slot].tag != (uint32_t)hash) continue;
        const kept_record *one = record_at(b, slot);
        if (rw_slice_equal(rw_slice_of(one->bytes, one->key_size), key)) break;
    }
    return slot;
}

static inline void bucket_remove(bucket *b, unsigned slot)
{
    const kept_record *one = record_at(b, slot);
    uint32_t size = record_bytes(one->key_size, one->value_size), offset = b->slots[slot].offset;
    unsigned char *heap = (unsigned char *)b + b->heap_start;
    memmove(heap + size, heap, offset - b->heap_start);
    b->heap_start += size;
    b->slots[slot] = b->slots[--b->count];
    for (unsigned i = 0; i < b->count; i++)
        if (b->slots[i].offset < offset) b->slots[i].offset = (uint16_t)(b->slots[i].offset + size);
}

/* Until there is room. Who was asked for gets another round. */
static inline void bucket_make_room(bucket *b, uint32_t needed, records_latch *latch)
{
    while (bucket_room(b) < needed) {
        if (b->hand >= b->count) b->hand = 0;
        bucket_slot *at = &b->slots[b->hand];
        if (at->used != 0) {
            at->used--;
            b->hand++;
            continue;
        }
        bucket_remove(b, b->hand);
        b->hand++; /* past the newest, which is there now */
        latch->pushed_out++;
    }
}

static inline void bucket_add(bucket *b, page_ref leaf, uint64_t hash, rw_slice key, rw_slice value, uint8_t used)
{
    b->heap_start -= record_bytes(key.size, value.size);
    b->slots[b->count] = (bucket_slot){.tag = (uint32_t)hash, .offset = (uint16_t)b->heap_start, .used = used};
    kept_record *one = record_at(b, b->count++);
    *one = (kept_record){.word = leaf.word, .checksum = leaf.checksum, .key_size = (uint16_t)key.size, .value_size = (uint16_t)value.size};
    memcpy(one->bytes, key.data, key.size);
    if (value.size > 0) memcpy(one->bytes + key.size, value.data, value.size);
}

/* ---- which bucket ------------------------------------------------------------------------------------------------- */

/* With a count of buckets between two powers of two, what belongs to those still to come lies with their lower halves. */
static inline uint32_t bucket_index(uint64_t hash, uint32_t buckets)
{
    uint32_t power = rw_power_below(buckets), index = (uint32_t)(hash >> 32) & (2 * power - 1);
    return index < buckets ? index : index & (power - 1);
}

static inline bucket *bucket_at(const record_cache *r, uint32_t index)
{
    return pool_page(r->pool, atomic_load_explicit(&r->frames[index], memory_order_relaxed));
}

/* Which bit of a bucket's filter stands for a key: not those of the hash that choose the bucket. */
static inline unsigned filter_bit(uint32_t tag)
{
    return tag % (RECORDS_FILTER_WORDS * 64);
}

/* Without the latch: false, the key has no record here, or not yet. */
static inline bool filter_may_have(const record_cache *r, uint64_t hash, uint32_t buckets)
{
    unsigned bit = filter_bit((uint32_t)hash);
    size_t word = (size_t)bucket_index(hash, buckets) * RECORDS_FILTER_WORDS + bit / 64;
    return (atomic_load_explicit(&r->filters[word], memory_order_relaxed) >> (bit % 64) & 1) != 0;
}

/* Under the latch, after the bucket has changed. */
static inline void filter_make(record_cache *r, uint32_t index, const bucket *b)
{
    uint64_t words[RECORDS_FILTER_WORDS] = {0};
    for (unsigned slot = 0; slot < b->count; slot++) {
        unsigned bit = filter_bit(b->slots[slot].tag);
        words[bit / 64] |= (uint64_t)1 << (bit % 64);
    }
    for (unsigned i = 0; i < RECORDS_FILTER_WORDS; i++)
        atomic_store_explicit(&r->filters[(size_t)index * RECORDS_FILTER_WORDS + i], words[i], memory_order_relaxed);
}

static inline records_latch *latch_of(record_cache *r, uint32_t index)
{
    return &r->latches[index & (RW_RECORDS_LATCHES - 1)];
}

#endif
