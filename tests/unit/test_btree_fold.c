/*
 * Writes that wait for a leaf, made in it (btree/fold.c): whatever the sizes of records, keys and fences, as much as may wait splits a leaf into no more pages than a fold
 * has places for, a parent that has no other child has room for their separators, and the pages hold what the leaf and the writes say.
 *
 * One random fold is replayed by: test_btree_fold SEED 1
 */
#include <limits.h>

#include "base/random.h"
#include "btree/trees_internal.h"
#include "tests/unit/trees_test.h"

#define KEY_BYTES (rw_limits_key_max(PAGE_BYTES) + RW_BUCKET_PREFIX)
#define KEY_ROOM (PAGE_BYTES / 4)
#define RECORDS_MAX 1024u
#define FILL_ATTEMPTS 12u          /* records drawn in vain before a leaf counts as full */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define FOLDS 10000u               /* ten times slower */
#else
#define FOLDS 60000u
#endif
#define SPILLED_ONE_OF 8u          /* folds: writing takes time */

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

typedef struct {
    size_t key_size, value_size;
    unsigned char key[KEY_ROOM], value[PAGE_BYTES];
} record;

typedef struct {
    rw_random random;
    unsigned char lower[KEY_ROOM], upper[KEY_ROOM];
    size_t shared, lower_size, upper_size;
    size_t key_tail, value_max;    /* of most records drawn now */
    record *records;               /* what the leaf and the writes say, in key order */
    unsigned count;
    int room_least;                /* in the parent of a leaf's parts, of all folds: bytes */
} world;

static rw_slice key_of_record(const record *r) { return rw_slice_of(r->key, r->key_size); }
static rw_slice value_of_record(const record *r) { return rw_slice_of(r->value, r->value_size); }

static uint64_t below(world *w, uint64_t bound)
{
    return rw_random_below(&w->random, bound);
}

static void bytes_draw(world *w, unsigned char *to, size_t size)
{
    for (size_t i = 0; i < size; i++) to[i] = (unsigned char)rw_random_next(&w->random);
}

/* Fences that share none, a few, or nearly all of the bytes that a key may have. */
static void fences_draw(world *w)
{
    const size_t shares[] = {0, 0, 8, 100, 500, KEY_BYTES - 40};
    w->shared = shares[below(w, COUNT_OF(shares))];
    bytes_draw(w, w->lower, w->shared);
    memcpy(w->upper, w->lower, w->shared);
    size_t tail = below(w, 2) == 0 ? 4 : KEY_BYTES - w->shared;
    w->lower_size = w->shared + 1 + below(w, tail);
    w->upper_size = w->shared + 1 + below(w, tail);
    bytes_draw(w, w->lower + w->shared, w->lower_size - w->shared);
    bytes_draw(w, w->upper + w->shared, w->upper_size - w->shared);
    w->lower[w->shared] = 1;
    w->upper[w->shared] = 0xff;
}

/* Between the fences. */
static size_t key_draw(world *w, unsigned char *to, size_t tail_max)
{
    size_t size = w->shared + 1 + below(w, RW_MIN(tail_max, KEY_BYTES - w->shared));
    memcpy(to, w->lower, w->shared);
    bytes_draw(w, to + w->shared, size - w->shared);
    to[w->shared] = (unsigned char)(2 + below(w, 0xfd));
    return size;
}

static unsigned record_find(const world *w, rw_slice key, bool *found)
{
    unsigned at = 0;
    while (at < w->count && rw_slice_compare(key_of_record(&w->records[at]), key) < 0) at++;
    *found = at < w->count && rw_slice_equal(key_of_record(&w->records[at]), key);
    return at;
}

static void record_put(world *w, rw_slice key, rw_slice value)
{
    bool found;
    unsigned at = record_find(w, key, &found);
    if (!found) {
        must(w->count < RECORDS_MAX, "room for records");
        memmove(&w->records[at + 1], &w->records[at], (w->count - at) * sizeof *w->records);
        w->count++;
    }
    record *r = &w->records[at];
    r->key_size = key.size;
    r->value_size = value.size;
    memcpy(r->key, key.data, key.size);
    if (value.size > 0) memcpy(r->value, value.data, value.size);
}

/* Small, middling or large ones, now and then others among them. */
static void sizes_draw(world *w)
{
    const size_t tails[] = {12, 40, 400, KEY_BYTES}, values[] = {1, 30, 120, 500, 1300, PAGE_BYTES};
    w->key_tail = tails[below(w, COUNT_OF(tails))];
    w->value_max = values[below(w, COUNT_OF(values))];
}

static void leaf_fill(world *w, node *n)
{
    unsigned char key[KEY_ROOM], value[PAGE_BYTES];
    w->count = 0;
    node_init(n, PAGE_BYTES, 0, rw_slice_of(w->lower, w->lower_size), rw_slice_of(w->upper, w->upper_size));
    sizes_draw(w);
    for (unsigned failed = 0; failed < FILL_ATTEMPTS && w->count < RECORDS_MAX / 2;) {
        if (failed == FILL_ATTEMPTS / 2 || below(w, 20) == 0) sizes_draw(w);
        size_t key_size = key_draw(w, key, w->key_tail), value_size = below(w, RW_MIN(w->value_max, node_value_inline_max(PAGE_BYTES, key_size)) + 1);
        bytes_draw(w, value, value_size);
        bool found;
        unsigned slot = node_lower_bound(n, PAGE_BYTES, rw_slice_of(key, key_size), &found);
        if (found || !node_fits(n, PAGE_BYTES, key_size, value_size)) {
            failed++;
            continue;
        }
        node_insert(n, PAGE_BYTES, slot, rw_slice_of(key, key_size), rw_slice_of(value, value_size), 0);
        record_put(w, rw_slice_of(key, key_size), rw_slice_of(value, value_size));
    }
}

/* A key for a write: of a record that is there, right behind the last write's, or any. */
static size_t write_key_draw(world *w, unsigned char *to, rw_slice last)
{
    uint64_t kind = below(w, 3);
    if (kind == 0 && w->count > 0) {
        const record *r = &w->records[below(w, w->count)];
        memcpy(to, r->key, r->key_size);
        return r->key_size;
    }
    if (kind == 1 && last.size > w->shared + 1 && last.size < KEY_BYTES) {
        memcpy(to, last.data, last.size);
        to[last.size] = (unsigned char)below(w, 256);
        return last.size + 1;
    }
    return key_draw(w, to, w->key_tail);
}

/* As many as may wait, as pending_prepare counts them. */
static void writes_draw(world *w, partition *p, pending *pg, page_ref ref)
{
    unsigned char key[KEY_ROOM], value[PAGE_BYTES];
    size_t key_size = 0;
    sizes_draw(w);
    for (unsigned failed = 0, made = 0; failed < FILL_ATTEMPTS; made++) {
        if (failed == FILL_ATTEMPTS / 2 || below(w, 20) == 0) sizes_draw(w);
        key_size = write_key_draw(w, key, rw_slice_of(key, key_size));
        size_t value_size = below(w, w->value_max + 1);
        bytes_draw(w, value, value_size);
        pending_state state = pending_prepare(pg, p, ref, rw_slice_of(key, key_size), made, value_size);
        must(state != PENDING_FULL, "memory for what waits");
        if (state == PENDING_UNFIT) {
            failed++;
            continue;
        }
        /* no key twice: that would be another write's own way */
        bool waits = false;
        const pending_leaf *entry = pending_find(pg, p, ref);
        for (const pending_write *one = entry != NULL ? entry->writes : NULL; one != NULL; one = one->next)
            waits = waits || rw_slice_equal(pending_key(one), rw_slice_of(key, key_size));
        if (waits) {
            failed++;
            continue;
        }
        pending_put(pg, p, ref, rw_slice_of(key, key_size), made, rw_slice_of(value, value_size), made + 1, made + 1);
        record_put(w, rw_slice_of(key, key_size), rw_slice_of(value, value_size));
    }
}

/* Page by page, what the records say, in their order. */
static bool pages_hold(const world *w, const leaf_fold *fold)
{
    unsigned at = 0;
    unsigned char key[KEY_ROOM];
    rw_slice fence = rw_slice_of(w->lower, w->lower_size);
    for (unsigned i = 0; i < fold->count; i++) {
        const node *n = tree_node(fold->t, fold->frames[i]);
        if (node_check(n, PAGE_BYTES, true) != 0 || !rw_slice_equal(node_lower_fence(n), fence)) return false;
        for (unsigned slot = 0; slot < n->count; slot++, at++) {
            unsigned flags;
            node_key_copy(n, slot, key);
            if (at == w->count || !rw_slice_equal(rw_slice_of(key, node_key_length(n, slot)), key_of_record(&w->records[at]))) return false;
            if (!rw_slice_equal(node_value(n, PAGE_BYTES, slot, &flags), value_of_record(&w->records[at]))) return false;
        }
        fence = node_upper_fence(n);
    }
    return at == w->count && rw_slice_equal(fence, rw_slice_of(w->upper, w->upper_size));
}

static int write_compare(const void *a, const void *b)
{
    return rw_slice_compare(pending_key(*(const pending_write *const *)a), pending_key(*(const pending_write *const *)b));
}

/* What waits for the leaf goes into a spill. */
static void writes_spill(bed *b, partition *p, page_ref ref)
{
    pending *pg = &b->t.pending;
    const pending_write *sorted[RECORDS_MAX];
    static RW_ALIGNED(4096) unsigned char batch[RW_WRITE_BATCH_BYTES];
    unsigned count = 0;
    spill_writer *writer;
    spill *made;
    uint32_t number = pending_spill_begin(pg, p);
    for (const pending_write *one = pending_find(pg, p, ref)->writes; one != NULL; one = one->next) sorted[count++] = one;
    qsort(sorted, count, sizeof *sorted, write_compare);
    must(spill_write_begin(b->k, b->store, &b->t.pool, batch, number, count, count, &writer) == 0, "a spill");
    for (unsigned i = 0; i < count; i++) must(spill_write_add(writer, pending_key(sorted[i]), trees_hash(pending_key(sorted[i])), pending_data(sorted[i])) == 0, "a write in a spill");
    must(spill_write_end(writer, &made) == 0, "the spill's end");
    for (unsigned i = 0; i < count; i++) must(spill_may_hold(made, &b->t.pool, trees_hash(pending_key(sorted[i]))), "a spill's filter");
    pending_spill_add(pg, p, made);
    pending_forget(pg, p, ref, UINT64_MAX);
}

/* In bytes: what the parts' separators leave of a parent that has no other child; below 0: they need more. */
static int room_in_parent(const world *w, const leaf_fold *fold)
{
    static RW_ALIGNED(4096) unsigned char bytes[PAGE_BYTES];
    node *parent = (node *)bytes;
    node_init(parent, PAGE_BYTES, 1, rw_slice_of(w->lower, w->lower_size), rw_slice_of(w->upper, w->upper_size));
    size_t used = node_used(parent, PAGE_BYTES) + sizeof(node_slot) + sizeof(page_ref);
    for (unsigned i = 1; i < fold->count; i++)
        used += sizeof(node_slot) + node_lower_fence(tree_node(fold->t, fold->frames[i])).size - parent->prefix_length + sizeof(page_ref);
    return (int)node_capacity(PAGE_BYTES) - (int)used;
}

/* Returns the number of pages; 0: wrong. */
static unsigned fold_once(bed *b, world *w, partition *p)
{
    const page_ref ref = {.word = 77, .checksum = 5};
    pending *pg = &b->t.pending;
    uint32_t f;
    leaf_fold fold;
    must(tree_writer_fill(b->writer) == 0 && pool_frame_take(&b->t.pool, &f) == 0, "frames");
    fences_draw(w);
    leaf_fill(w, tree_node(&b->t, f));
    for (uint64_t spills = below(w, SPILLED_ONE_OF) == 0 ? 1 + below(w, STORE_SPILLS_MAX) : 0; spills > 0; spills--) {
        writes_draw(w, p, pg, ref);
        if (!pending_is_empty(pg, p->index)) writes_spill(b, p, ref);
    }
    writes_draw(w, p, pg, ref);
    unsigned pages = 1;
    leaf_recall recall = {0};
    store_retired retired = {0};
    const pending_leaf *waiting = pending_find(pg, p, ref);
    while (!recall_ready(&recall, pg, p, ref, tree_node(&b->t, f))) must(recall_read(&recall, b->k, b->store, &b->t.pool) == 0, "what was spilled");
    fold_begin(&fold, &b->t, p, b->writer, f);
    if (waiting != NULL || pending_spills(pg, p->index) > 0) pages = fold_writes(&fold, ref, &recall, waiting) && pages_hold(w, &fold) ? fold.count : 0;
    if (waiting != NULL) pending_drop(pg, p, ref);
    w->room_least = RW_MIN(w->room_least, room_in_parent(w, &fold));
    fold_end(&fold);
    pool_frame_free(&b->t.pool, f);
    pending_spills_drop(pg, p, &retired);
    store_release(b->store, &retired);
    store_retired_free(&retired);
    recall_free(&recall);
    return pages;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, folds = argc > 2 ? strtoull(argv[2], NULL, 0) : FOLDS;
    bed *b = bed_make("fold", 4u << 20);
    world *w = calloc(1, sizeof *w);
    unsigned of_pages[FOLD_PAGES_MAX + 1] = {0};
    must(w != NULL && (w->records = calloc(RECORDS_MAX, sizeof *w->records)) != NULL, "memory");
    partition *p = &b->t.partitions[0];
    b->writer->target = FOLD_PAGES_MAX - 1;
    w->room_least = INT_MAX;
    for (uint64_t i = 0; i < folds; i++) {
        rw_random_seed(&w->random, seed + i);
        unsigned pages = fold_once(b, w, p);
        of_pages[pages]++;
        if (pages == 0) {
            tap_diag("replay: test_btree_fold %llu 1", (unsigned long long)(seed + i));
            break;
        }
    }
    for (unsigned i = 1; i <= FOLD_PAGES_MAX; i++) tap_diag("%u pages: %u folds", i, of_pages[i]);
    tap_ok(of_pages[0] == 0, "%llu leaves hold what waited for them", (unsigned long long)folds);
    tap_ok(of_pages[FOLD_PAGES_MAX] + of_pages[FOLD_PAGES_MAX - 1] == 0, "and none of them came near to as many pages as there are places for");
    tap_ok(w->room_least >= 0, "their separators fit one parent: %d bytes were left in the narrowest one", w->room_least);
    free(w->records);
    free(w);
    bed_end(b);
    return tap_done();
}
