/*
 * btree/node: a row of neighbouring nodes under random operations, against a sorted array; separators and space at their worst; and searches,
 * the checker and the printer on damaged bytes.
 *
 * One random run is replayed by: test_node PAGE_SIZE LEVEL SHAPE SEED
 */
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
} world;

/* A failed check ends the run, whose line tells how to replay it. */
#define EXPECT(w, condition)                                                                   \
    do {                                                                                       \
        if (!(condition) && !(w)->failed) {                                                    \
            (w)->failed = true;                                                                \
            tap_diag("%s:%d: %s (%s)", __FILE__, __LINE__, #condition, rw_error_text());       \
        }                                                                                      \
    } while (0)

static node *page_new(uint32_t page_size)
{
    node *n = aligned_alloc(RW_CACHE_LINE, page_size);
    RW_ASSERT(n != NULL);
    memset(n, 0xa5, page_size);
    return n;
}

static unsigned char *bytes_copy(const void *from, size_t size)
{
    unsigned char *copy = malloc(size + 1);
    RW_ASSERT(copy != NULL);
    if (size != 0) memcpy(copy, from, size);
    return copy;
}

static rw_slice record_key(const record *r)
{
    return rw_slice_of(r->key, r->key_size);
}

static rw_slice record_value(const record *r)
{
    return rw_slice_of(r->value, r->value_size);
}

static unsigned below(world *w, unsigned bound)
{
    return (unsigned)prng_below(&w->random, bound);
}

/* First record with a key >= key. */
static unsigned model_find(const world *w, rw_slice key, bool *found)
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

static void model_insert(world *w, unsigned at, rw_slice key, rw_slice value, unsigned flags)
{
    RW_ASSERT(w->record_count < RECORDS_MAX);
    memmove(&w->records[at + 1], &w->records[at], (w->record_count - at) * sizeof(record));
    w->records[at] = (record){bytes_copy(key.data, key.size), key.size, bytes_copy(value.data, value.size), value.size, flags};
    w->record_count++;
}

static void model_remove(world *w, unsigned at)
{
    free(w->records[at].key);
    free(w->records[at].value);
    w->record_count--;
    memmove(&w->records[at], &w->records[at + 1], (w->record_count - at) * sizeof(record));
}

/* The records of a node by its fences. */
static void node_range(const world *w, const node *n, unsigned *first, unsigned *end)
{
    bool found;
    *first = model_find(w, node_lower_fence(n), &found);
    *end = node_upper_fence(n).size == 0 ? w->record_count : model_find(w, node_upper_fence(n), &found);
}

/* ---- keys and values --------------------------------------------------------------------------------------------------- */

static size_t tail_of_shape(world *w, unsigned char *to, size_t room)
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
static rw_slice key_make(world *w, unsigned char *to)
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

static rw_slice value_make(world *w, size_t key_size, unsigned char *to, unsigned *flags)
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

/* ---- agreement --------------------------------------------------------------------------------------------------------- */

static void check_search(world *w, const node *n, unsigned first, unsigned end, rw_slice key)
{
    bool model_found, found;
    unsigned at = model_find(w, key, &model_found);
    unsigned expected = RW_MIN(RW_MAX(at, first), end) - first;
    model_found = model_found && at >= first && at < end;
    if (w->level == 0) {
        EXPECT(w, node_lower_bound(n, w->page_size, key, &found) == expected && found == model_found);
        return;
    }
    unsigned covering = model_found ? expected : expected - (expected != 0);
    EXPECT(w, node_child_slot(n, w->page_size, key) == covering);
    EXPECT(w, node_child_slot_before(n, w->page_size, key) == (key.size == 0 ? end - first - 1 : expected - (expected != 0)));
}

static void check_slot_content(world *w, const node *n, unsigned slot, const record *r, unsigned char *key)
{
    unsigned flags;
    size_t size = node_key_length(n, slot);
    bool stands_for_fence = slot == 0 && w->level != 0;
    if (!stands_for_fence) {
        node_key_copy(n, slot, key);
        EXPECT(w, rw_slice_equal(rw_slice_of(key, size), record_key(r)));
    } else {
        EXPECT(w, node_key_rest(n, 0).size == 0 && rw_slice_equal(node_lower_fence(n), record_key(r)));
    }
    EXPECT(w, rw_slice_equal(node_value(n, w->page_size, slot, &flags), record_value(r)) && flags == r->flags);
    if (w->level == 0) return;
    page_ref child = node_child(n, w->page_size, slot);
    EXPECT(w, memcmp(&child, r->value, sizeof child) == 0);
    if (page_ref_is_frame(child) && below(w, 16) == 0) EXPECT(w, node_slot_of_frame(n, page_ref_frame(child)) == slot);
}

static void check_node(world *w, const node *n)
{
    static unsigned char key[KEY_BYTES];
    unsigned first, end;
    node_range(w, n, &first, &end);
    EXPECT(w, node_check(n, w->page_size, true) == 0);
    EXPECT(w, node_count(n) == end - first);
    if (w->failed) return;
    for (unsigned i = first; i < end && !w->failed; i++) check_slot_content(w, n, i - first, &w->records[i], key);
    for (unsigned i = 0; i < 4; i++) check_search(w, n, first, end, key_make(w, key));
    for (unsigned i = 0; i < 4 && first < end; i++) check_search(w, n, first, end, record_key(&w->records[first + below(w, end - first)]));
    check_search(w, n, first, end, rw_slice_of("", 0));
    check_search(w, n, first, end, rw_slice_of("\xff\xff\xff\xff", 4));
    if (w->lower.size > 1) check_search(w, n, first, end, rw_slice_of(w->lower.data, w->lower.size - 1));
}

static void check_row(world *w)
{
    rw_slice fence = w->lower;
    for (unsigned i = 0; i < w->node_count && !w->failed; i++) {
        EXPECT(w, rw_slice_equal(node_lower_fence(w->nodes[i]), fence));
        fence = node_upper_fence(w->nodes[i]);
        check_node(w, w->nodes[i]);
    }
    EXPECT(w, rw_slice_equal(fence, w->upper));
}

/* ---- operations -------------------------------------------------------------------------------------------------------- */

static unsigned row_find(const world *w, rw_slice key)
{
    unsigned low = 0, high = w->node_count;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (rw_slice_compare(node_lower_fence(w->nodes[middle]), key) <= 0) low = middle;
        else high = middle;
    }
    return low;
}

/* Splits the node at index for key; returns the index of the side that key belongs to. */
static unsigned row_split(world *w, unsigned index, rw_slice key)
{
    static node_split plan;
    node *n = w->nodes[index], *right = page_new(w->page_size);
    unsigned count = node_count(n);
    n->page.newest_timestamp = w->serial;
    node_split_plan(n, w->page_size, key, &plan);
    node_split_apply(n, right, w->page_size, &plan, w->scratch);
    RW_ASSERT(w->node_count < NODES_MAX);
    memmove(&w->nodes[index + 2], &w->nodes[index + 1], (w->node_count - index - 1) * sizeof(node *));
    w->nodes[index + 1] = right;
    w->node_count++;
    EXPECT(w, n->page.newest_timestamp == w->serial && right->page.newest_timestamp == w->serial);
    EXPECT(w, rw_slice_equal(node_upper_fence(n), rw_slice_of(plan.separator, plan.separator_length)));
    EXPECT(w, node_count(n) == plan.slot && node_count(right) == count - plan.slot);
    bool goes_right = rw_slice_compare(key, rw_slice_of(plan.separator, plan.separator_length)) >= 0;
    EXPECT(w, node_count(goes_right ? right : n) < count);
    check_node(w, n);
    check_node(w, right);
    return index + goes_right;
}

static void do_put(world *w, rw_slice key, rw_slice value, unsigned flags)
{
    bool found, there;
    unsigned index = row_find(w, key), at = model_find(w, key, &found), first, end;
    if (w->level != 0 && found) return;
    for (unsigned splits = 0;; splits++) {
        node *n = w->nodes[index];
        node_range(w, n, &first, &end);
        bool fits = found ? node_fits_update(n, w->page_size, at - first, value.size) : node_fits(n, w->page_size, key.size, value.size);
        if (fits || w->failed) break;
        EXPECT(w, splits < 32);
        index = row_split(w, index, key);
    }
    if (w->failed) return;
    node *n = w->nodes[index];
    unsigned slot = node_lower_bound(n, w->page_size, key, &there);
    EXPECT(w, there == found && slot == at - first);
    if (found) {
        node_update(n, w->page_size, slot, value, flags);
        model_remove(w, at);
    } else {
        node_insert(n, w->page_size, slot, key, value, flags);
    }
    model_insert(w, at, key, value, flags);
    check_node(w, n);
}

/* The first child of an inner node hands its key to its follower. */
static void model_remove_of(world *w, unsigned at, unsigned first, unsigned end)
{
    if (w->level != 0 && at == first && at + 1 < end) {
        record *r = &w->records[at], *next = r + 1;
        unsigned char *key = next->key;
        next->key = r->key;
        next->key_size = r->key_size;
        r->key = key;
    }
    model_remove(w, at);
}

static void do_remove(world *w, bool many)
{
    node *n = w->nodes[below(w, w->node_count)];
    unsigned first, end;
    node_range(w, n, &first, &end);
    unsigned count = end - first, least = w->level != 0;
    if (count <= least) return;
    unsigned from = below(w, count), removed = many ? 1 + below(w, RW_MIN(count - from, 9u)) : 1;
    if (removed + least > count) removed = count - least;
    if (from + removed > count) from = count - removed;
    if (many) node_remove_many(n, w->page_size, from, from + removed);
    else node_remove(n, w->page_size, from);
    for (unsigned i = 0; i < removed; i++) model_remove_of(w, first + from, first, end - i);
    check_node(w, n);
}

static void do_child_set(world *w)
{
    unsigned char bytes[sizeof(page_ref)];
    unsigned flags, first, end;
    node *n = w->nodes[below(w, w->node_count)];
    node_range(w, n, &first, &end);
    unsigned slot = below(w, end - first);
    page_ref ref;
    memcpy(&ref, value_make(w, 0, bytes, &flags).data, sizeof ref);
    node_child_set(n, slot, ref);
    memcpy(w->records[first + slot].value, &ref, sizeof ref);
    check_node(w, n);
}

static void do_merge(world *w)
{
    if (w->node_count < 2) return;
    unsigned index = below(w, w->node_count - 1);
    node *left = w->nodes[index], *right = w->nodes[index + 1];
    if (!node_merge_fits(left, right, w->page_size, below(w, 4) * 50)) return;
    left->page.newest_timestamp = 5;
    right->page.newest_timestamp = 7;
    node_merge(left, right, w->page_size, w->scratch);
    EXPECT(w, left->page.newest_timestamp == 7);
    free(right);
    w->node_count--;
    memmove(&w->nodes[index + 1], &w->nodes[index + 2], (w->node_count - index - 1) * sizeof(node *));
    check_node(w, left);
}

static void do_balance(world *w)
{
    static node_split separator;
    if (w->node_count < 2) return;
    unsigned index = below(w, w->node_count - 1), incoming = below(w, 300);
    node *left = w->nodes[index], *right = w->nodes[index + 1];
    if (node_balance_plan(left, right, w->page_size, incoming, &separator)) {
        node_balance_apply(left, right, w->page_size, &separator, w->scratch);
        EXPECT(w, rw_slice_equal(node_upper_fence(left), rw_slice_of(separator.separator, separator.separator_length)));
        EXPECT(w, rw_slice_equal(node_upper_fence(left), node_lower_fence(right)));
        EXPECT(w, RW_MAX(node_used(left, w->page_size), node_used(right, w->page_size)) + incoming <= node_capacity(w->page_size));
        EXPECT(w, node_count(left) == separator.slot);
    }
    check_node(w, left);
    check_node(w, right);
}

/* There and back again: widen a node's fences to the row's, if it fits, and narrow them. Inner keys hang on the lower fence, which stays. */
static void do_refence(world *w)
{
    node *n = w->nodes[below(w, w->node_count)];
    rw_slice lower = node_lower_fence(n), upper = node_upper_fence(n);
    rw_slice old_lower = rw_slice_of(bytes_copy(lower.data, lower.size), lower.size);
    rw_slice old_upper = rw_slice_of(bytes_copy(upper.data, upper.size), upper.size);
    if (node_refence(n, w->page_size, w->level == 0 ? w->lower : old_lower, w->upper, w->scratch)) {
        EXPECT(w, node_check(n, w->page_size, true) == 0);
        EXPECT(w, rw_slice_equal(node_upper_fence(n), w->upper));
        EXPECT(w, node_refence(n, w->page_size, old_lower, old_upper, w->scratch));
    }
    free((void *)(uintptr_t)old_lower.data);
    free((void *)(uintptr_t)old_upper.data);
    check_node(w, n);
}

static void do_tidy(world *w)
{
    node *n = w->nodes[below(w, w->node_count)];
    uint32_t used = node_used(n, w->page_size);
    node_tidy(n, w->page_size, w->scratch);
    EXPECT(w, n->heap_garbage == 0 && node_used(n, w->page_size) == used);
    const unsigned char *gap = (const unsigned char *)&n->slots[n->count], *heap = (const unsigned char *)n + n->heap_start;
    while (gap < heap && *gap == 0) gap++;
    EXPECT(w, gap == heap);
    check_node(w, n);
}

static void step(world *w)
{
    static unsigned char key[KEY_BYTES], value[RW_PAGE_SIZE_MAX];
    unsigned what = below(w, 100), flags;
    if (what < 60 || w->record_count == 0) {
        rw_slice k = key_make(w, key), v = value_make(w, k.size, value, &flags);
        do_put(w, k, v, flags);
    } else if (what < 70 && w->level == 0) {
        const record *r = &w->records[below(w, w->record_count)];
        memcpy(key, r->key, r->key_size);
        rw_slice k = rw_slice_of(key, r->key_size), v = value_make(w, k.size, value, &flags);
        do_put(w, k, v, flags);
    } else if (what < 70) {
        do_child_set(w);
    } else if (what < 85) {
        do_remove(w, what >= 83);
    } else if (what < 90) {
        do_merge(w);
    } else if (what < 94) {
        do_balance(w);
    } else if (what < 97) {
        do_refence(w);
    } else {
        do_tidy(w);
    }
}

/* ---- runs ----------------------------------------------------------------------------------------------------------------- */

static world *world_new(uint32_t page_size, unsigned level, enum shape shape, uint64_t seed)
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

static void world_free(world *w)
{
    while (w->record_count != 0) model_remove(w, w->record_count - 1);
    for (unsigned i = 0; i < w->node_count; i++) free(w->nodes[i]);
    free(w->scratch);
    free(w);
}

static bool random_run(uint32_t page_size, unsigned level, enum shape shape, uint64_t seed)
{
    world *w = world_new(page_size, level, shape, seed);
    unsigned steps = page_size > 8192 || shape == LONGEST || shape == RELATED ? 700 : 1600;
    for (unsigned i = 0; i < steps && !w->failed; i++) step(w);
    if (!w->failed) check_row(w);
    bool passed = !w->failed;
    if (!passed) tap_diag("replay: test_node %u %u %u %llu", page_size, level, (unsigned)shape, (unsigned long long)seed);
    world_free(w);
    return passed;
}

static void test_random(void)
{
    for (uint32_t page_size = RW_PAGE_SIZE_MIN; page_size <= RW_PAGE_SIZE_MAX; page_size *= 2) {
        for (unsigned level = 0; level < 2; level++) {
            unsigned passed = 0;
            for (unsigned shape = 0; shape < SHAPES; shape++)
                for (unsigned seed = 0; seed < 3; seed++) passed += random_run(page_size, level, (enum shape)shape, 3 * page_size + shape * 3 + seed);
            tap_ok(passed == 3 * SHAPES, "random operations, %u byte pages, %s", page_size, level == 0 ? "leaves" : "inner nodes");
        }
    }
}

/* How full the nodes of a row become. */
static double fill_after(enum shape shape, unsigned level, uint64_t seed, unsigned inserts)
{
    static unsigned char key[KEY_BYTES], value[RW_PAGE_SIZE_MAX];
    world *w = world_new(4096, level, shape, seed);
    unsigned flags;
    for (unsigned i = 0; i < inserts && !w->failed; i++) {
        rw_slice k = key_make(w, key), v = level ? value_make(w, k.size, value, &flags) : rw_slice_of(value, 100);
        do_put(w, k, v, 0);
    }
    double used = 0, rooms = (double)node_capacity(4096) * w->node_count;
    for (unsigned i = 0; i < w->node_count; i++) used += node_used(w->nodes[i], 4096);
    bool failed = w->failed;
    world_free(w);
    return failed ? 0 : used / rooms;
}

static void test_fill(void)
{
    for (unsigned seed = 0; seed < 3; seed++) {
        double up = fill_after(ASCENDING, 0, seed, 2000), down = fill_after(DESCENDING, 0, seed, 2000), any = fill_after(RANDOM16, 0, seed, 2000);
        /* Not full to the brim: the prefix grows when a node at the end gets its upper fence. */
        tap_ok(up > 0.8 && down > 0.8, "ascending and descending loads fill their leaves (%.2f, %.2f)", up, down);
        tap_ok(any > 0.6 && any < 0.8, "random loads fill their leaves as splits in the middle do (%.2f)", any);
        up = fill_after(ASCENDING, 1, seed, 3000);
        tap_ok(up > 0.6, "ascending loads fill their inner nodes (%.2f)", up);
    }
}

/* ---- the worst cases ------------------------------------------------------------------------------------------------------ */

/* Fences, keys and values as long as they may be, with nothing in common: a split must always lead to room. */
static bool longest_everything(uint32_t page_size, unsigned level, unsigned order)
{
    static unsigned char key[KEY_BYTES], value[RW_PAGE_SIZE_MAX];
    static char low[KEY_BYTES], high[KEY_BYTES];
    world *w = world_new(page_size, level, LONGEST, 0);
    memset(low, 1, sizeof low);
    memset(high, 0xfe, sizeof high);
    w->lower = rw_slice_of(low, w->key_max);
    w->upper = rw_slice_of(high, w->key_max);
    node_init(w->nodes[0], page_size, level, w->lower, w->upper);
    if (level != 0) {
        model_remove(w, 0);
        page_ref ref = page_ref_disk(77, 1, 0, 0);
        node_insert(w->nodes[0], page_size, 0, w->lower, rw_slice_of(&ref, sizeof ref), 0);
        model_insert(w, 0, w->lower, rw_slice_of(&ref, sizeof ref), 0);
    }
    for (unsigned i = 0; i < 120 && !w->failed; i++) {
        unsigned place = order == 0 ? 2 * i : order == 1 ? 2 * (120 - i) : below(w, 250), flags = 0;
        size_t size = order == 3 ? w->key_max / (1 + below(w, 5)) : w->key_max;
        memset(key, order == 2 ? 'k' : 2 + (int)(place % 250), size);
        key[below(w, 2) ? size - 1 : size / 2] = (unsigned char)(2 + place);
        rw_slice k = rw_slice_of(key, size);
        memset(value, 'v', sizeof value);
        rw_slice v = level ? value_make(w, 0, value, &flags) : rw_slice_of(value, node_value_inline_max(page_size, size));
        do_put(w, k, v, flags);
    }
    check_row(w);
    bool passed = !w->failed && w->node_count > 4;
    world_free(w);
    return passed;
}

static void test_longest(void)
{
    for (uint32_t page_size = RW_PAGE_SIZE_MIN; page_size <= RW_PAGE_SIZE_MAX; page_size *= 2)
        for (unsigned level = 0; level < 2; level++)
            for (unsigned order = 0; order < 4; order++)
                TAP_CHECK(longest_everything(page_size, level, order));
    tap_ok(true, "the longest fences, keys and values always find room by splitting");
}

/* An empty leaf between the longest fences takes the largest record of every key length. */
static void test_inline_max(void)
{
    static unsigned char low[KEY_BYTES], high[KEY_BYTES], key[KEY_BYTES], value[RW_PAGE_SIZE_MAX];
    bool fits = true, checks = true;
    memset(high, 0xff, sizeof high);
    memset(key, 'k', sizeof key);
    for (uint32_t page_size = RW_PAGE_SIZE_MIN; page_size <= RW_PAGE_SIZE_MAX; page_size *= 2) {
        uint32_t key_max = rw_limits_key_max(page_size) + RW_BUCKET_PREFIX;
        node *n = page_new(page_size);
        for (uint32_t size = 1; size <= key_max; size += size < 40 || size + 40 > key_max ? 1 : 31) {
            uint32_t most = node_value_inline_max(page_size, size);
            node_init(n, page_size, 0, rw_slice_of(low, key_max), rw_slice_of(high, key_max));
            fits = fits && most >= sizeof(extent_ref) && node_fits(n, page_size, size, most);
            node_insert(n, page_size, 0, rw_slice_of(key, size), rw_slice_of(value, most), 0);
            checks = checks && node_check(n, page_size, true) == 0;
        }
        free(n);
    }
    tap_ok(fits && checks, "an empty leaf between the longest fences takes every record that may stay inline");
    tap_ok(node_value_inline_max(4096, 24) >= 1000, "1000-byte values stay in a leaf of 4 KiB");
}

/* As many slots as a page can have: keys of no or few bytes, no values. */
static void test_many_slots(void)
{
    for (uint32_t page_size = RW_PAGE_SIZE_MIN; page_size <= RW_PAGE_SIZE_MAX; page_size *= 2) {
        node *n = page_new(page_size);
        node_init(n, page_size, 0, rw_slice_of(NULL, 0), rw_slice_of(NULL, 0));
        node_insert(n, page_size, 0, rw_slice_of(NULL, 0), rw_slice_of(NULL, 0), 0);
        unsigned inserted = 1;
        for (unsigned i = 0; i < 65536; i++) {
            unsigned scattered = i * 40503u % 65536;
            unsigned char key[2] = {(unsigned char)(scattered >> 8), (unsigned char)scattered};
            bool found;
            if (!node_fits(n, page_size, 2, 0)) break;
            unsigned slot = node_lower_bound(n, page_size, rw_slice_of(key, 2), &found);
            TAP_CHECK(!found);
            node_insert(n, page_size, slot, rw_slice_of(key, 2), rw_slice_of(NULL, 0), 0);
            inserted++;
        }
        tap_ok(node_check(n, page_size, true) == 0 && node_count(n) == inserted && inserted >= node_capacity(page_size) / 14,
               "%u slots in %u bytes", inserted, page_size);
        unsigned misplaced = 0;
        for (unsigned i = 0; i < inserted; i++) {
            unsigned char key[2];
            bool found;
            size_t size = node_key_length(n, i);
            node_key_copy(n, i, key);
            misplaced += node_lower_bound(n, page_size, rw_slice_of(key, size), &found) != i || !found;
        }
        node_remove_many(n, page_size, 0, inserted - 1);
        tap_ok(misplaced == 0 && node_check(n, page_size, true) == 0 && node_count(n) == 1, "each is found");
        free(n);
    }
}

/* ---- damaged bytes -------------------------------------------------------------------------------------------------------- */

/* Whatever the bytes: in range, and inside the page (the sanitizer watches the page's end). */
static bool searches_in_range(const node *n, uint32_t page_size, rw_slice key)
{
    bool found;
    static volatile unsigned sink;     /* so that the bytes are really read */
    unsigned flags, most = node_capacity(page_size) / (unsigned)sizeof(node_slot);
    unsigned slot = node_lower_bound(n, page_size, key, &found), child = node_child_slot(n, page_size, key);
    unsigned before = node_child_slot_before(n, page_size, key);
    rw_slice value = node_value(n, page_size, slot, &flags);
    page_ref ref = node_child(n, page_size, child);
    const unsigned char *bytes = value.data;
    for (size_t i = 0; i < value.size; i++) sink = sink + bytes[i];
    sink = sink + ref.checksum;
    return slot <= most && child <= most && before <= most && value.size <= page_size;
}

/* A node that passed the checker can be used for everything. */
static bool accepted_is_usable(const node *checked, uint32_t page_size, FILE *nowhere, unsigned char *scratch)
{
    static unsigned char key[RW_PAGE_SIZE_MAX];
    node *n = page_new(page_size);
    memcpy(n, checked, page_size);
    node_print(n, page_size, nowhere);
    bool good = true;
    for (unsigned i = 0; i < node_count(n); i++) {
        bool found;
        size_t size = node_key_length(n, i);
        node_key_copy(n, i, key);
        if (i > 0 || n->page.level == 0) good = good && node_lower_bound(n, page_size, rw_slice_of(key, size), &found) == i && found;
    }
    node_tidy(n, page_size, scratch);
    good = good && node_check(n, page_size, true) == 0;
    if (node_count(n) > 1) node_remove(n, page_size, node_count(n) / 2);
    good = good && node_check(n, page_size, true) == 0;
    free(n);
    return good;
}

static void mutate(prng *random, node *n, uint32_t page_size)
{
    unsigned char *bytes = (unsigned char *)n;
    uint32_t slots_end = (uint32_t)offsetof(node, slots) + 12u * RW_MIN(n->count, 40u);
    for (uint64_t i = prng_below(random, 4); i < 4; i++) {
        uint64_t at = prng_below(random, 3) == 0 ? prng_below(random, page_size) : 64 + prng_below(random, slots_end - 64);
        switch (prng_below(random, 3)) {
        case 0: bytes[at] ^= (unsigned char)(1 << prng_below(random, 8)); break;
        case 1: bytes[at] = (unsigned char)prng_next(random); break;
        default: bytes[at] = (unsigned char)(bytes[at] + (prng_below(random, 2) ? 1 : 255)); break;
        }
    }
}

static node *random_node(prng *random, uint32_t page_size, unsigned level)
{
    static unsigned char key[KEY_BYTES], value[RW_PAGE_SIZE_MAX];
    world *w = world_new(page_size, level, (enum shape)prng_below(random, SHAPES), prng_next(random));
    node *n = w->nodes[0];
    unsigned flags;
    for (unsigned i = (unsigned)prng_below(random, 80); i != 0; i--) {
        bool found;
        rw_slice k = key_make(w, key), v = value_make(w, k.size, value, &flags);
        unsigned slot = node_lower_bound(n, page_size, k, &found);
        if (!found && slot >= level && node_fits(n, page_size, k.size, v.size)) node_insert(n, page_size, slot, k, v, flags);
    }
    w->nodes[0] = page_new(page_size);
    world_free(w);
    return n;
}

static void test_mutated(void)
{
    static unsigned char scratch[RW_PAGE_SIZE_MAX] RW_ALIGNED(64), key[64];
    FILE *nowhere = fopen("/dev/null", "w");
    prng random = {.state = 42};
    unsigned accepted = 0, refused = 0, wrong = 0;
    for (unsigned round = 0; round < 6000; round++) {
        uint32_t page_size = RW_PAGE_SIZE_MIN << (round % 16 == 0 ? prng_below(&random, 5) : 0);
        uint64_t start = random.state;
        node *n = random_node(&random, page_size, round % 2);
        mutate(&random, n, page_size);
        prng_fill(&random, key, sizeof key);
        bool good = searches_in_range(n, page_size, rw_slice_of(key, prng_below(&random, sizeof key))) &&
                    searches_in_range(n, page_size, rw_slice_of("", 0));
        node_print(n, page_size, nowhere);
        int shallow = node_check(n, page_size, false), deep = node_check(n, page_size, true);
        good = good && (deep == 0 || deep == RW_ECORRUPT) && (shallow == 0 || deep != 0);
        if (deep == 0) good = good && accepted_is_usable(n, page_size, nowhere, scratch);
        accepted += deep == 0;
        refused += deep != 0;
        wrong += !good;
        if (!good) tap_diag("round %u, state %llu", round, (unsigned long long)start);
        free(n);
    }
    fclose(nowhere);
    tap_ok(wrong == 0, "damaged nodes are searched and checked safely; what the checker accepts can be used");
    tap_ok(accepted > 100 && refused > 1000, "of the damaged nodes %u are accepted, %u refused", accepted, refused);
}

static void test_garbage(void)
{
    FILE *nowhere = fopen("/dev/null", "w");
    prng random = {.state = 7};
    unsigned wrong = 0;
    unsigned char key[64];
    for (unsigned round = 0; round < 3000; round++) {
        uint32_t page_size = RW_PAGE_SIZE_MIN << prng_below(&random, 5);
        node *n = page_new(page_size);
        prng_fill(&random, n, round % 2 ? page_size : sizeof *n);
        if (round % 3) n->page.type = PAGE_NODE;
        prng_fill(&random, key, sizeof key);
        wrong += !searches_in_range(n, page_size, rw_slice_of(key, prng_below(&random, sizeof key)));
        if (round % 8 == 0) node_print(n, page_size, nowhere);
        wrong += node_check(n, page_size, true) == 0;
        free(n);
    }
    fclose(nowhere);
    tap_ok(wrong == 0, "random bytes are searched safely and never accepted");
}

/* Each rule of the checker is there: one damage each, and the sentence that names it. */
static void test_rules(void)
{
    static const struct { const char *words; unsigned offset; unsigned char change; } damages[] = {
        {"page type", 6, 3}, {"heap start", 67, 0xff}, {"unused header byte", 83, 1}, {"prefix length", 70, 1}, {"lower fence", 73, 0x20},
        {"upper fence", 79, 0x20}, {"hint", 91, 1}, {"accounted", 68, 1}, {"extents", 80, 1}, {"last 8 bytes", 4095, 1}, {"its head", 153, 1},
        {"is not in the heap", 157, 0xff}, {"unknown flags", 162, 2}, {"extent reference", 162, 1}, {"too long", 159, 4},
    };
    static const unsigned char zeros[300];
    for (unsigned i = 0; i < RW_ARRAY_SIZE(damages); i++) {
        node *n = page_new(4096);
        node_init(n, 4096, 0, rw_slice_of("ab", 2), rw_slice_of("ac", 2));
        node_insert(n, 4096, 0, rw_slice_of("ab1", 3), rw_slice_of(zeros, 200), 0);
        node_insert(n, 4096, 1, rw_slice_of("ab2", 3), rw_slice_of(zeros, 300), 0);
        ((unsigned char *)n)[damages[i].offset] ^= damages[i].change;
        if (damages[i].offset == 159) {     /* a key longer than any may be, that fills the heap otherwise */
            node_init(n, 4096, 0, rw_slice_of("ab", 2), rw_slice_of("ac", 2));
            node_insert(n, 4096, 0, rw_slice_of("ab1", 3), rw_slice_of(n, 0), 0);
            n->heap_start = 2000;
            n->slots[0].offset = 2000;
            n->slots[0].key_length = 2084;
        }
        int error = node_check(n, 4096, true);
        tap_ok(error == RW_ECORRUPT && strstr(rw_error_text(), damages[i].words) != NULL, "%s: %s", damages[i].words, rw_error_text());
        free(n);
    }
}

static void test_order_rules(void)
{
    node *n = page_new(4096);
    node_init(n, 4096, 0, rw_slice_of("b", 1), rw_slice_of("d", 1));
    node_insert(n, 4096, 0, rw_slice_of("b2", 2), rw_slice_of("", 0), 0);
    node_insert(n, 4096, 1, rw_slice_of("b1", 2), rw_slice_of("", 0), 0);
    tap_ok(node_check(n, 4096, false) == 0 && node_check(n, 4096, true) == RW_ECORRUPT, "order: %s", rw_error_text());
    node_remove_many(n, 4096, 0, 2);
    node_insert(n, 4096, 0, rw_slice_of("a", 1), rw_slice_of("", 0), 0);
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT, "below the fence: %s", rw_error_text());
    node_remove(n, 4096, 0);
    node_insert(n, 4096, 0, rw_slice_of("d", 1), rw_slice_of("", 0), 0);
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT, "not below the upper fence: %s", rw_error_text());
    node_remove(n, 4096, 0);
    node_insert(n, 4096, 0, rw_slice_of("b", 1), rw_slice_of("bbbb", 4), 0);
    node_insert(n, 4096, 1, rw_slice_of("bb", 2), rw_slice_of("bbb", 3), 0);
    tap_ok(node_check(n, 4096, true) == 0, "a key may equal the lower fence");
    n->slots[1].offset = n->slots[0].offset;
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT && strstr(rw_error_text(), "overlaps"), "overlap: %s", rw_error_text());
    free(n);
}

static node *inner_of_two(const char *separator, page_ref ref)
{
    node *n = page_new(4096);
    rw_slice value = rw_slice_of(&ref, sizeof ref);
    node_init(n, 4096, 1, rw_slice_of("l", 1), rw_slice_of("u", 1));
    node_insert(n, 4096, 0, rw_slice_of("l", 1), value, 0);
    node_insert(n, 4096, 1, rw_slice_of(separator, 1), value, 0);
    return n;
}

static void check_refused(node *n, const char *words)
{
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT && strstr(rw_error_text(), words) != NULL, "inner: %s: %s", words, rw_error_text());
    free(n);
}

static void test_inner_rules(void)
{
    page_ref ref = page_ref_disk(77, 1, 0, 0);
    node *n = inner_of_two("m", ref);
    TAP_CHECK(node_check(n, 4096, true) == 0);
    n->slots[0].flags = 1;
    check_refused(n, "flags 0x1");
    n = inner_of_two("m", ref);
    n->slots[1].value_length = 15;
    check_refused(n, "page reference of 15 bytes");
    check_refused(inner_of_two("m", page_ref_none()), "names no child");
    n = inner_of_two("m", ref);
    n->slots[0].key_length = 1;
    n->slots[0].head = (uint32_t)((unsigned char *)n)[n->slots[0].offset] << 24;
    check_refused(n, "first child has a separator");
    n = inner_of_two("m", ref);
    node_remove_many(n, 4096, 0, 2);
    check_refused(n, "without a child");
    check_refused(inner_of_two("l", ref), "not above the lower fence");
    n = inner_of_two("m", ref);
    ((unsigned char *)n)[n->lower_offset] = 'v';
    check_refused(n, "the lower fence is not below");
}

/* Of the points near the middle the shortest separator is taken, of those farther away none. */
static void test_split_point(void)
{
    static const char *const keys[] = {"a", "bbbb1", "bbbb2", "bbbb3", "bbbc1", "bbbc2", "bbbc3", "bbbc4", "bbbc5", "c"};
    static const unsigned order[RW_ARRAY_SIZE(keys)] = {5, 0, 9, 3, 7, 1, 8, 2, 6, 4};
    static const unsigned char value[200];
    static node_split plan;
    node *n = page_new(4096);
    node_init(n, 4096, 0, rw_slice_of("a", 1), rw_slice_of("d", 1));
    for (unsigned i = 0; i < RW_ARRAY_SIZE(keys); i++) {
        rw_slice key = rw_slice_of(keys[order[i]], strlen(keys[order[i]]));
        bool found;
        node_insert(n, 4096, node_lower_bound(n, 4096, key, &found), key, rw_slice_of(value, sizeof value), 0);
    }
    TAP_CHECK(node_check(n, 4096, true) == 0);
    node_split_plan(n, 4096, rw_slice_of("bbbb15", 6), &plan);
    tap_ok(plan.slot == 4 && plan.separator_length == 4 && memcmp(plan.separator, "bbbc", 4) == 0, "the separator is the shortest near the middle");
    free(n);
}

int main(int argc, char **argv)
{
    if (argc == 5) {
        uint32_t page_size = (uint32_t)strtoul(argv[1], NULL, 10);
        unsigned level = (unsigned)strtoul(argv[2], NULL, 10), shape = (unsigned)strtoul(argv[3], NULL, 10) % SHAPES;
        tap_ok(random_run(page_size, level, (enum shape)shape, strtoull(argv[4], NULL, 10)), "replay of %s", shape_names[shape]);
        return tap_done();
    }
    test_rules();
    test_order_rules();
    test_inner_rules();
    test_split_point();
    test_inline_max();
    test_many_slots();
    test_longest();
    test_fill();
    test_mutated();
    test_garbage();
    test_random();
    return tap_done();
}
