#include "bench/crash_model.h"

#include "base/random.h"

#define UNDONE_BIT ((uint64_t)1 << 63)
#define VALUE_CHECKSUM_AT 16u /* bytes before it are covered, and all after it */

enum { KEY_PADDING_MAX = 40 };

const char *const crash_bucket_names[CRASH_BUCKETS] = {"default", "crash-mixed", "crash-ranges"};

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t operation_seed(uint64_t seed, uint64_t round, unsigned lane, uint64_t sequence)
{
    return mix(mix(mix(seed + 1) + round) + lane) + sequence;
}

static void effect_add(crash_operation *operation, unsigned bucket, unsigned key, uint64_t id)
{
    RW_ASSERT(operation->count < CRASH_EFFECTS_MAX);
    operation->effects[operation->count++] = (crash_effect){.bucket = bucket, .key = key, .id = id};
}

/* Any key but those of large values. */
static unsigned draw_key(rw_random *random)
{
    return CRASH_KEYS_LARGE + (unsigned)rw_random_below(random, CRASH_KEYS - CRASH_KEYS_LARGE);
}

static void effect_draw(crash_operation *operation, rw_random *random, uint64_t id)
{
    bool is_delete = rw_random_below(random, 4) == 0;
    unsigned bucket = (unsigned)rw_random_below(random, CRASH_BUCKETS);
    effect_add(operation, bucket, draw_key(random), is_delete ? 0 : id);
}

static void range_draw(crash_operation *operation, rw_random *random)
{
    unsigned from = draw_key(random), count = 1 + (unsigned)rw_random_below(random, CRASH_RANGE_MAX);
    count = RW_MIN(count, CRASH_KEYS - from);
    operation->range_at = operation->count;
    operation->range_count = count;
    for (unsigned i = 0; i < count; i++) effect_add(operation, CRASH_BUCKET_RANGES, from + i, 0);
}

static void batch_draw(crash_operation *operation, rw_random *random, uint64_t id)
{
    unsigned writes = 2 + (unsigned)rw_random_below(random, CRASH_WRITES_MAX - 1);
    unsigned range_after = rw_random_below(random, 4) == 0 ? (unsigned)rw_random_below(random, writes) : writes;
    for (unsigned i = 0; i < writes; i++) {
        if (i == range_after) range_draw(operation, random);
        effect_draw(operation, random, id);
    }
}

void crash_operation_make(uint64_t seed, uint64_t round, unsigned lane, uint64_t sequence, crash_operation *operation)
{
    rw_random random;
    rw_random_seed(&random, operation_seed(seed, round, lane, sequence));
    uint64_t id = (round + 1) << 32 | sequence, draw = rw_random_below(&random, 1000);
    RW_ASSERT(sequence > 0 && sequence <= UINT32_MAX && (id & UNDONE_BIT) == 0);
    operation->count = operation->range_at = operation->range_count = 0;
    operation->undone = (crash_effect){.bucket = 0, .key = draw_key(&random), .id = id | UNDONE_BIT};
    if (draw < 500) {
        operation->kind = CRASH_PUT;
        bool large = rw_random_below(&random, 150) == 0;
        unsigned bucket = large ? 0 : (unsigned)rw_random_below(&random, CRASH_BUCKETS);
        effect_add(operation, bucket, large ? (unsigned)rw_random_below(&random, CRASH_KEYS_LARGE) : draw_key(&random), id);
    } else if (draw < 620) {
        operation->kind = CRASH_DELETE;
        effect_add(operation, (unsigned)rw_random_below(&random, CRASH_BUCKETS), draw_key(&random), 0);
    } else if (draw < 820) {
        operation->kind = CRASH_BATCH;
        batch_draw(operation, &random, id);
    } else if (draw < 850) {
        operation->kind = CRASH_RANGE;
        range_draw(operation, &random);
    } else if (draw < 970) {
        operation->kind = CRASH_TRANSACTION;
        unsigned writes = 1 + (unsigned)rw_random_below(&random, 8);
        for (unsigned i = 0; i < writes; i++) effect_draw(operation, &random, id);
    } else {
        operation->kind = CRASH_ABORT;
    }
}

bool crash_lane_flushes(uint64_t seed, uint64_t round, unsigned lane, uint64_t sequence)
{
    return mix(operation_seed(seed, round, lane, sequence)) % 60 == 0;
}

/* A bijection of the 32-bit numbers, so that a lane's keys lie anywhere between those of the others. */
static uint32_t scatter(uint32_t x)
{
    x *= 0x9e3779b1u;
    x ^= x >> 16;
    return x * 0x85ebca6bu;
}

size_t crash_key_bound(unsigned lane, unsigned key, unsigned char *bytes)
{
    bytes[0] = (unsigned char)lane;
    bytes[1] = (unsigned char)(key >> 8);
    bytes[2] = (unsigned char)key;
    return 3;
}

/* [scattered number (4 bytes), not in the bucket of ranges] lane, key (2 bytes, big-endian), padding of a length that varies. */
size_t crash_key_make(unsigned lane, unsigned bucket, unsigned key, unsigned char *bytes)
{
    size_t size = 0;
    uint32_t number = key * CRASH_LANES + lane, padding = scatter(number) % KEY_PADDING_MAX;
    if (bucket != CRASH_BUCKET_RANGES) {
        uint32_t scattered = __builtin_bswap32(scatter(number));
        memcpy(bytes, &scattered, sizeof scattered);
        size = sizeof scattered;
    }
    size += crash_key_bound(lane, key, bytes + size);
    for (uint32_t i = 0; i < padding; i++) bytes[size++] = (unsigned char)('a' + (number + i) % 26);
    return size;
}

bool crash_key_parse(unsigned bucket, rw_slice bytes, unsigned *lane, unsigned *key)
{
    const unsigned char *at = bytes.data;
    size_t before = bucket == CRASH_BUCKET_RANGES ? 0 : 4;
    if (bytes.size < before + 3 || bytes.size > CRASH_KEY_SIZE_MAX) return false;
    *lane = at[before];
    *key = (unsigned)at[before + 1] << 8 | at[before + 2];
    if (*lane >= CRASH_LANES || *key >= CRASH_KEYS) return false;
    unsigned char made[CRASH_KEY_SIZE_MAX];
    return rw_slice_equal(rw_slice_of(made, crash_key_make(*lane, bucket, *key, made)), bytes);
}

/* Mostly small, some longer than fits a page; between 32 KiB and the maximum for the keys of large values. */
static size_t value_size(crash_effect effect)
{
    uint64_t draw = mix(effect.id * 31 + effect.key);
    if (effect.bucket == 0 && effect.key < CRASH_KEYS_LARGE) return ((size_t)32 << 10 << draw % 8) - (size_t)(draw >> 8 & 0x3fff);
    if (draw % 100 < 70) return CRASH_VALUE_SIZE_MIN + (draw >> 8) % 200;
    if (draw % 100 < 95) return CRASH_VALUE_SIZE_MIN + (draw >> 8) % 1000;
    return CRASH_VALUE_SIZE_MIN + (draw >> 8) % 12000;
}

static uint32_t value_checksum(const unsigned char *bytes, size_t size)
{
    uint32_t sum = rw_checksum(0, bytes, VALUE_CHECKSUM_AT);
    return rw_checksum(sum, bytes + VALUE_CHECKSUM_AT + 4, size - VALUE_CHECKSUM_AT - 4);
}

/* id (8 bytes), lane (1), bucket (1), key (2), size (4), checksum (4), then bytes that follow from the id. */
size_t crash_value_make(unsigned lane, crash_effect effect, unsigned char *bytes)
{
    size_t size = value_size(effect), at = VALUE_CHECKSUM_AT + 4;
    rw_store_u64(bytes, effect.id);
    bytes[8] = (unsigned char)lane;
    bytes[9] = (unsigned char)effect.bucket;
    bytes[10] = (unsigned char)(effect.key >> 8);
    bytes[11] = (unsigned char)effect.key;
    rw_store_u32(bytes + 12, (uint32_t)size);
    uint64_t word = mix(effect.id + effect.key);
    for (; at + 8 <= size; at += 8) {
        rw_store_u64(bytes + at, word);
        word = word * 6364136223846793005u + 1442695040888963407u;
    }
    for (; at < size; at++) bytes[at] = (unsigned char)(word >> 56);
    rw_store_u32(bytes + VALUE_CHECKSUM_AT, value_checksum(bytes, size));
    return size;
}

uint64_t crash_value_id(unsigned lane, unsigned bucket, unsigned key, rw_slice bytes)
{
    const unsigned char *at = bytes.data;
    if (bytes.size < CRASH_VALUE_SIZE_MIN || rw_load_u32(at + 12) != bytes.size) return 0;
    if (at[8] != lane || at[9] != bucket || ((unsigned)at[10] << 8 | at[11]) != key) return 0;
    return rw_load_u32(at + VALUE_CHECKSUM_AT) == value_checksum(at, bytes.size) ? rw_load_u64(at) : 0;
}

void crash_state_apply(crash_state *state, unsigned lane, const crash_operation *operation)
{
    for (unsigned i = 0; i < operation->count; i++) {
        const crash_effect *effect = &operation->effects[i];
        state->ids[lane][effect->bucket][effect->key] = effect->id;
    }
}
