#include <stdio.h>
#include <stdlib.h>

#include "tests/isolation/workload_internal.h"

key_kind workload_key_kind(uint32_t key)
{
    static const key_kind kinds[8] = {KEY_PLAIN, KEY_PLAIN, KEY_PLAIN, KEY_COUNTER, KEY_BARE, KEY_BARE, KEY_WITNESSED, KEY_WITNESS};
    key_kind kind = kinds[key % 8];
    return kind == KEY_COUNTER && key / 8 >= WORKLOAD_COUNTER_GROUPS ? KEY_PLAIN : kind;
}

rw_bucket workload_key_bucket(const workload *w, uint32_t key)
{
    return key / 8 % 2 == 0 ? w->dense : w->spread;
}

uint32_t workload_position(uint32_t key)
{
    return key / 16 * 8 + key % 8;
}

uint32_t workload_key_at(const workload *w, rw_bucket bucket, uint32_t position)
{
    return position / 8 * 16 + position % 8 + (bucket == w->dense ? 0 : 8);
}

rw_slice workload_key(const workload *w, uint32_t key, char text[16])
{
    uint32_t position = workload_position(key);
    if (workload_key_bucket(w, key) == w->spread) return workload_filler_key(position * w->spacing, text);
    return (rw_slice){text, (size_t)snprintf(text, 16, "key%08u", position)};
}

bool workload_key_parse(const workload *w, rw_bucket bucket, rw_slice text, uint32_t *key)
{
    char digits[9] = {0};
    size_t prefix = bucket == w->dense ? 3 : 0;
    if (text.size != prefix + 8 || (prefix != 0 && memcmp(text.data, "key", 3) != 0)) return false;
    memcpy(digits, (const char *)text.data + prefix, 8);
    char *end;
    uint32_t number = (uint32_t)strtoul(digits, &end, 10);
    if (*end != 0) return false;
    *key = UINT32_MAX;
    if (bucket == w->dense) *key = workload_key_at(w, bucket, number);
    else if (number % w->spacing == 0) *key = workload_key_at(w, bucket, number / w->spacing);
    return *key == UINT32_MAX ? number < workload_numbers(w) && workload_filler_is(w, number) : *key < w->keys;
}

static uint8_t padding_byte(const value_head *head, size_t at)
{
    return (uint8_t)(head->version * 31 + head->key * 7 + at);
}

/* Mostly short, sometimes most of a page, now and then more than one. */
static size_t value_size(prng *random)
{
    uint64_t draw = prng_below(random, 256);
    size_t extra = draw == 0 ? WORKLOAD_VALUE_MAX - sizeof(value_head) : draw < 4 ? 1500 : 60;
    return sizeof(value_head) + (size_t)prng_below(random, extra);
}

size_t workload_value(worker *self, uint32_t key, uint32_t version, uint32_t other, bool other_deleted)
{
    size_t size = value_size(&self->random);
    value_head head = {self->w->round, key, version, other, other_deleted, (uint32_t)size};
    memcpy(self->value, &head, sizeof(head));
    for (size_t i = sizeof(head); i < size; i++) self->value[i] = padding_byte(&head, i);
    return size;
}

uint32_t workload_value_version(const workload *w, uint32_t key, const void *value, size_t size, value_head *head, int64_t *count)
{
    const uint8_t *bytes = value;
    if (workload_key_kind(key) == KEY_COUNTER) {
        memcpy(count, value, size == 8 ? 8 : 0);
        return size == 8 && *count > 0 && *count < (int64_t)w->counter_max ? (uint32_t)*count : HISTORY_GARBAGE;
    }
    if (size < sizeof(*head)) return HISTORY_GARBAGE;
    memcpy(head, value, sizeof(*head));
    if (head->round != w->round || head->key != key || head->size != size) return HISTORY_GARBAGE;
    for (size_t i = sizeof(*head); i < size; i++)
        if (bytes[i] != padding_byte(head, i)) return HISTORY_GARBAGE;
    return head->version;
}

rw_slice workload_filler_key(uint32_t number, char text[16])
{
    return (rw_slice){text, (size_t)snprintf(text, 16, "%08u", number)};
}

size_t workload_filler_value(uint32_t number, uint32_t generation, uint8_t value[WORKLOAD_FILLER_SIZE])
{
    size_t size = WORKLOAD_FILLER_SIZE - generation % 32;
    memcpy(value, &number, 4);
    memcpy(value + 4, &generation, 4);
    for (size_t i = 8; i < size; i++) value[i] = (uint8_t)(number * 13 + generation * 5 + i);
    return size;
}

bool workload_filler_sound(uint32_t number, const void *value, size_t size)
{
    uint8_t want[WORKLOAD_FILLER_SIZE];
    uint32_t generation;
    if (size < 8) return false;
    memcpy(&generation, (const uint8_t *)value + 4, 4);
    return workload_filler_value(number, generation, want) == size && memcmp(want, value, size) == 0;
}

bool workload_filler_is(const workload *w, uint32_t number)
{
    return number % w->slot != 0;
}

/* The numbers of the spread bucket, keys and filler. */
uint32_t workload_numbers(const workload *w)
{
    return w->keys_max / 2 * w->slot;
}

_Atomic uint32_t *workload_counter_version(const workload *w, uint32_t key, int64_t count)
{
    if (count <= 0 || count >= (int64_t)w->counter_max) return NULL;
    return &w->counters[(size_t)(key / 8) * w->counter_max + (size_t)count];
}
