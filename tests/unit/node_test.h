/* What the tests of nodes share: a row of neighbouring nodes beside a sorted array that holds the same, keys of many shapes, and values. */
#ifndef TESTS_NODE_TEST_H
#define TESTS_NODE_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "btree/node.h"
#include "tests/support/prng.h"
#include "tests/support/tap.h"

#define KEY_BYTES (RW_PAGE_SIZE_MAX / 4)
#define NODES_MAX 4096u
#define RECORDS_MAX 8192u

/* ---- the model ------------------------------------------------------------------------------------------------------ */

typedef struct {
    unsigned char *key;
    size_t key_size;
    unsigned char *value;
    size_t value_size;
    unsigned flags;
} record;

enum shape { SHORT, ASCENDING, DESCENDING, RANDOM16, LONGEST, RELATED, EQUAL_HEADS, STREAMS, SHAPES };

static const char *const shape_names[SHAPES] = {"short", "ascending", "descending", "random16", "longest", "related", "equal-heads", "streams"};

/* A row of neighbouring nodes of one level and what they hold together. In an inner row the key of the first record of each node is its lower fence. */
typedef struct {
    uint32_t page_size, key_max;
    unsigned level;
    enum shape shape;
    prng random;
    unsigned serial;
    char upper_text[16], lower_text[16];
    rw_slice lower, upper;
    unsigned node_count, record_count;
    node *nodes[NODES_MAX];
    record records[RECORDS_MAX];
    unsigned char *scratch;
    bool failed;
    bool some_even;                  /* splits are planned by both functions */
} world;

/* A failed check ends the run, whose line tells how to replay it. */
#define EXPECT(w, condition)                                                                   \
    do {                                                                                       \
        if (!(condition) && !(w)->failed) {                                                    \
            (w)->failed = true;                                                                \
            tap_diag("%s:%d: %s (%s)", __FILE__, __LINE__, #condition, rw_error_text());       \
        }                                                                                      \
    } while (0)

static inline node *page_new(uint32_t page_size)
{
    node *n = aligned_alloc(RW_CACHE_LINE, page_size);
    RW_ASSERT(n != NULL);
    memset(n, 0xa5, page_size);
    return n;
}

static inline unsigned char *bytes_copy(const void *from, size_t size)
{
    unsigned char *copy = malloc(size + 1);
    RW_ASSERT(copy != NULL);
    if (size != 0) memcpy(copy, from, size);
    return copy;
}

static inline rw_slice record_key(const record *r)
{
    return rw_slice_of(r->key, r->key_size);
}

static inline rw_slice record_value(const record *r)
{
    return rw_slice_of(r->value, r->value_size);
}

static inline unsigned below(world *w, unsigned bound)
{
    return (unsigned)prng_below(&w->random, bound);
}

/* First record with a key >= key. */
static inline unsigned model_find(const world *w, rw_slice key, bool *found)
{
    unsigned low = 0, high = w->record_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (rw_slice_compare(record_key(&w->records[middle]), key) < 0) low = middle + 1;
        else high = middle;
    }
    *found = low < w->record_count && rw_slice_equal(record_key(&w->records[low]), key);
    return low;
}

static inline void model_insert(world *w, unsigned at, rw_slice key, rw_slice value, unsigned flags)
{
    RW_ASSERT(w->record_count < RECORDS_MAX);
    memmove(&w->records[at + 1], &w->records[at], (w->record_count - at) * sizeof(record));
    w->records[at] = (record){bytes_copy(key.data, key.size), key.size, bytes_copy(value.data, value.size), value.size, flags};
    w->record_count++;
}

static inline void model_remove(world *w, unsigned at)
{
    free(w->records[at].key);
    free(w->records[at].value);
    w->record_count--;
    memmove(&w->records[at], &w->records[at + 1], (w->record_count - at) * sizeof(record));
}

/* The records of a node by its fences. */
static inline void node_range(const world *w, const node *n, unsigned *first, unsigned *end)
{
    bool found;
    *first = model_find(w, node_lower_fence(n), &found);
    *end = node_upper_fence(n).size == 0 ? w->record_count : model_find(w, node_upper_fence(n), &found);
}

/* ---- keys and values --------------------------------------------------------------------------------------------------- */

static inline size_t tail_of_shape(world *w, unsigned char *to, size_t room)
{
    static const char alphabet[] = {0, 'a', 'b', (char)0xff};
    size_t size = 0;
    char text[32];
    switch (w->shape) {
    case SHORT:
        size = below(w, 7);
        for (size_t i = 0; i < size; i++) to[i] = (unsigned char)alphabet[below(w, 4)];
        return size;
    case ASCENDING:
        size = (size_t)snprintf(text, sizeof text, "user%012u", w->serial++);
        break;
    case DESCENDING:
        size = (size_t)snprintf(text, sizeof text, "user%012u", 1000000 - w->serial++);
        break;
    case STREAMS:
        size = (size_t)snprintf(text, sizeof text, "%c/%08u", 'a' + (int)below(w, 5), w->serial++);
        break;
    case EQUAL_HEADS:
        size = (size_t)snprintf(text, sizeof text, "same%u", below(w, 100000));
        break;
    case RANDOM16:
        prng_fill(&w->random, to, 16);
        return 16;
    case LONGEST:
        memset(to, 'k', room);
        for (int i = 0; i < 3; i++) to[below(w, 2) ? room - 1 - below(w, 3) : below(w, (unsigned)room)] = (unsigned char)('a' + below(w, 26));
        return room - (below(w, 4) == 0 ? below(w, 9) : 0);
    default:
        size = below(w, (unsigned)room);
        for (size_t i = 0; i < size; i++) to[i] = (unsigned char)alphabet[below(w, 50) ? 1 : below(w, 4)];
        return size;
    }
    memcpy(to, text, size);
    return size;
}

/* A key of the row's range: its lower end and a tail of the shape; RELATED also bends keys that are there. */
static inline rw_slice key_make(world *w, unsigned char *to)
{
    size_t start = w->lower.size < w->key_max ? w->lower.size : 1;
    if (w->shape == RELATED && w->record_count != 0 && below(w, 3) != 0) {
        const record *r = &w->records[below(w, w->record_count)];
        size_t size = r->key_size;
        memcpy(to, r->key, size);
        if (size > start && below(w, 2)) size = start + below(w, (unsigned)(size - start));
        else if (size < w->key_max) to[size++] = below(w, 2) ? 0 : 'a';
        return rw_slice_of(to, size);
    }
    if (start != 0) memcpy(to, w->lower.data, start);
    return rw_slice_of(to, start + tail_of_shape(w, to + start, w->key_max - start));
}

static inline rw_slice value_make(world *w, size_t key_size, unsigned char *to, unsigned *flags)
{
    *flags = 0;
    if (w->level != 0) {
        page_ref ref = below(w, 2) ? page_ref_disk(below(w, 1u << 30) + 1, 1 + below(w, 16), below(w, 1u << 30), below(w, 1000))
                                   : (page_ref){.word = PAGE_REF_IN_MEMORY | w->serial++};
        if (below(w, 8) == 0) ref.estimate |= PAGE_REF_HAS_EXTENTS;
        memcpy(to, &ref, sizeof ref);
        return rw_slice_of(to, sizeof ref);
    }
    uint32_t most = node_value_inline_max(w->page_size, key_size);
    size_t size = below(w, 3) == 0 ? below(w, most + 1) : below(w, 4) == 0 ? 0 : below(w, RW_MIN(most, 120u) + 1);
    if (below(w, 10) == 0) size = most;
    if (below(w, 10) == 0) {
        *flags = NODE_SLOT_EXTENT;
        size = sizeof(extent_ref);
    }
    prng_fill(&w->random, to, size);
    return rw_slice_of(to, size);
}

/* ---- runs ----------------------------------------------------------------------------------------------------------------- */

static inline world *world_new(uint32_t page_size, unsigned level, enum shape shape, uint64_t seed)
{
    world *w = calloc(1, sizeof *w);
    RW_ASSERT(w != NULL);
    w->page_size = page_size;
    w->key_max = rw_limits_key_max(page_size) + RW_BUCKET_PREFIX;
    w->level = level;
    w->shape = shape;
    w->random.state = seed;
    w->scratch = aligned_alloc(RW_CACHE_LINE, 2 * (size_t)page_size);
    switch (seed % 3) {
    case 0:     /* everything */
        break;
    case 1:     /* one bucket: a prefix of 3 bytes */
        memcpy(w->lower_text, "\0\0\0\7", w->lower.size = 4);
        memcpy(w->upper_text, "\0\0\0\x08", w->upper.size = 4);
        break;
    default:    /* the end of its level: no upper fence, so no prefix */
        memcpy(w->lower_text, "bucket\0\0", w->lower.size = 8);
        break;
    }
    w->lower.data = w->lower_text;
    w->upper.data = w->upper_text;
    w->nodes[0] = page_new(page_size);
    w->node_count = 1;
    node_init(w->nodes[0], page_size, level, w->lower, w->upper);
    if (level != 0) {
        page_ref ref = page_ref_disk(77, 1, 0, 0);
        rw_slice value = rw_slice_of(&ref, sizeof ref);
        node_insert(w->nodes[0], page_size, 0, w->lower, value, 0);
        model_insert(w, 0, w->lower, value, 0);
    }
    return w;
}

static inline void world_free(world *w)
{
    while (w->record_count != 0) model_remove(w, w->record_count - 1);
    for (unsigned i = 0; i < w->node_count; i++) free(w->nodes[i]);
    free(w->scratch);
    free(w);
}

#endif
