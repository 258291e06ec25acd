#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "tests/isolation/history_internal.h"

void *history_grow(void *memory, size_t *room, size_t need, size_t item_size)
{
    if (need <= *room) return memory;
    size_t wanted = *room + *room / 2 > need ? *room + *room / 2 : need;
    memory = realloc(memory, wanted * item_size);
    if (memory == NULL) {
        fprintf(stderr, "no memory to check a history: %zu bytes\n", wanted * item_size);
        exit(1);
    }
    *room = wanted;
    return memory;
}

void pair_add(pair_list *list, uint64_t value, uint32_t item)
{
    if (list->count == list->room) list->pairs = history_grow(list->pairs, &list->room, list->count + 1024, sizeof(*list->pairs));
    list->pairs[list->count++] = (sort_pair){value, item};
}

#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)

static void sort_by_digit(const sort_pair *from, sort_pair *to, size_t count, unsigned shift, uint64_t least)
{
    uint32_t starts[DIGITS] = {0};
    uint32_t sum = 0;
    for (size_t i = 0; i < count; i++) starts[((from[i].value - least) >> shift) & (DIGITS - 1)]++;
    for (unsigned d = 0; d < DIGITS; d++) {
        uint32_t size = starts[d];
        starts[d] = sum;
        sum += size;
    }
    for (size_t i = 0; i < count; i++) to[starts[((from[i].value - least) >> shift) & (DIGITS - 1)]++] = from[i];
}

/* Only as many digits as the values differ in. HISTORY_FOREVER counts as one above the others, so that it does not cost more digits. */
void pairs_sort(pair_list *list, pair_list *spare)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (size_t i = 0; i < list->count; i++) {
        uint64_t value = list->pairs[i].value;
        if (value < least) least = value;
        if (value > most && value != HISTORY_FOREVER) most = value;
    }
    for (size_t i = 0; i < list->count; i++)
        if (list->pairs[i].value == HISTORY_FOREVER) list->pairs[i].value = most + 1;
    spare->pairs = history_grow(spare->pairs, &spare->room, list->count, sizeof(*spare->pairs));
    for (unsigned shift = 0; shift < 64 && list->count > 0 && most >= least && (most + 1 - least) >> shift != 0; shift += DIGIT_BITS) {
        sort_by_digit(list->pairs, spare->pairs, list->count, shift, least);
        pair_list sorted = {spare->pairs, list->count, spare->room};
        spare->pairs = list->pairs;
        spare->room = list->room;
        *list = sorted;
    }
}
