/*
 * btree/node: a row of neighbouring nodes under random operations, against a sorted array; separators and space at their worst.
 *
 * One random run is replayed by: test_node PAGE_SIZE LEVEL SHAPE SEED
 */
#include "tests/unit/node_test.h"

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
    if (w->some_even && below(w, 2) == 0) node_split_plan_even(n, w->page_size, key, &plan);
    else node_split_plan(n, w->page_size, key, &plan);
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

static void do_pack(world *w)
{
    static node_split separator;
    if (w->node_count < 2 || w->level > 0) return;
    unsigned index = below(w, w->node_count - 1), capacity = node_capacity(w->page_size), free_bytes = below(w, capacity / 2);
    node *left = w->nodes[index], *right = w->nodes[index + 1];
    unsigned before = node_count(left), all = before + node_count(right);
    if (node_pack_plan(left, right, w->page_size, free_bytes, &separator)) {
        node_balance_apply(left, right, w->page_size, &separator, w->scratch);
        EXPECT(w, node_count(left) == separator.slot && separator.slot > before && separator.slot < all && node_count(left) + node_count(right) == all);
        EXPECT(w, rw_slice_equal(node_upper_fence(left), rw_slice_of(separator.separator, separator.separator_length)));
        EXPECT(w, rw_slice_equal(node_upper_fence(left), node_lower_fence(right)));
        EXPECT(w, node_used(left, w->page_size) + free_bytes <= capacity);
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
        if (below(w, 2) == 0) do_pack(w);
        else do_balance(w);
    } else if (what < 97) {
        do_refence(w);
    } else {
        do_tidy(w);
    }
}

/* ---- runs ----------------------------------------------------------------------------------------------------------------- */

static bool random_run(uint32_t page_size, unsigned level, enum shape shape, uint64_t seed)
{
    world *w = world_new(page_size, level, shape, seed);
    unsigned steps = page_size > 8192 || shape == LONGEST || shape == RELATED ? 700 : 1600;
    w->some_even = true;
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

/* Records put in in their order, and one more behind them: a sequential load keeps the left side full, an even split does not, whatever comes. */
static void test_even(void)
{
    static const unsigned char value[100];
    static node_split plan;
    node *n = page_new(4096);
    char key[8];
    unsigned count = 0;
    node_init(n, 4096, 0, rw_slice_of("a", 1), rw_slice_of("d", 1));
    for (;; count++) {
        snprintf(key, sizeof key, "b%04u", count);
        if (!node_fits(n, 4096, 5, sizeof value)) break;
        node_insert(n, 4096, count, rw_slice_of(key, 5), rw_slice_of(value, sizeof value), 0);
    }
    node_split_plan(n, 4096, rw_slice_of(key, 5), &plan);
    tap_ok(plan.slot == count, "behind the last of %u records a sequential load goes on in another leaf", count);
    node_split_plan_even(n, 4096, rw_slice_of(key, 5), &plan);
    tap_ok(plan.slot >= count * 3 / 8 - 1 && plan.slot <= count * 5 / 8 + 1, "an even split leaves about half of them on either side");
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
    test_split_point();
    test_even();
    test_inline_max();
    test_many_slots();
    test_longest();
    test_fill();
    test_random();
    return tap_done();
}
