/*
 * The offline check of the trees: every page that the superblock's partitions reference, depth first, with one page of memory for each level. Each
 * page is held against what its parent says of it: checksum, level, bounds, records below.
 */
#include "base/memory.h"
#include "engine/verify.h"

/* What the parent, or the superblock, says of a page. */
typedef struct {
    page_ref ref;
    unsigned level;
    rw_slice low, high;            /* high.size 0: none */
} expected_page;

#define PAGE_WHERE_BYTES 400

/* Where a finding is: file, offset, place in the tree. */
static const char *page_where(const verifier *v, const store_partition *p, const expected_page *expected, char text[PAGE_WHERE_BYTES])
{
    snprintf(text, PAGE_WHERE_BYTES, "%.255s: page at offset %llu (partition %u, level %u)", kio_file_path(store_file(v->store)),
             (unsigned long long)page_ref_address(expected->ref) * RW_BLOCK_SIZE, p->id, expected->level);
    return text;
}

/* ---- one page ---------------------------------------------------------------------------------------------------- */

static uint32_t child_records(const node *n, uint32_t page_size, unsigned slot)
{
    page_ref child = node_child(n, page_size, slot);
    return n->page.level == 1 ? page_ref_records(child) : child.estimate & PAGE_REF_ESTIMATE_MAX;
}

static uint32_t estimate_of(const verifier *v, const node *n)
{
    uint64_t records = 0;
    if (n->page.level == 0) records = n->count;
    for (unsigned i = 0; n->page.level > 0 && i < n->count; i++) records += child_records(n, v->page_size, i);
    return (uint32_t)RW_MIN(records, (uint64_t)PAGE_REF_ESTIMATE_MAX) | (n->extents > 0 ? PAGE_REF_HAS_EXTENTS : 0);
}

/* What is not used must be zero: bytes of memory that are nobody's business must not reach the file. */
static bool unused_bytes_are_zero(const node *n)
{
    const unsigned char *bytes = (const unsigned char *)n;
    uint32_t from = (uint32_t)(offsetof(node, slots) + n->count * sizeof(node_slot));
    for (uint32_t i = from; i < n->heap_start; i++)
        if (bytes[i] != 0) return false;
    return n->heap_garbage == 0;
}

static void check_bounds(verifier *v, const node *n, const expected_page *expected, const char *where)
{
    if (!rw_slice_equal(node_lower_fence(n), expected->low))
        verify_finding(v, "%s: its lower fence is not the bound that its parent has for it", where);
    if (!rw_slice_equal(node_upper_fence(n), expected->high))
        verify_finding(v, "%s: its upper fence is not the bound that its parent has for it", where);
}

static void check_figures(verifier *v, const node *n, const expected_page *expected, const char *where)
{
    uint32_t estimate = estimate_of(v, n);
    if (estimate != (expected->level == 0 ? page_ref_with_spill(expected->ref, 0) : expected->ref).estimate)
        verify_finding(v, "%s: it has %u records%s below it, its parent says %u%s", where, estimate & PAGE_REF_ESTIMATE_MAX,
                       estimate & PAGE_REF_HAS_EXTENTS ? " and extents" : "", expected->ref.estimate & PAGE_REF_ESTIMATE_MAX,
                       expected->ref.estimate & PAGE_REF_HAS_EXTENTS ? " and extents" : "");
    if (n->page.newest_timestamp >= v->image->durable_lsn)
        verify_finding(v, "%s: it holds a commit at LSN %llu, the checkpoint says that there was none from %llu on", where,
                       (unsigned long long)n->page.newest_timestamp, (unsigned long long)v->image->durable_lsn);
    if (!unused_bytes_are_zero(n)) verify_finding(v, "%s: bytes that it does not use are not zero", where);
}

/* Reads the page into n. False: nothing in it can be relied on; the finding is made. A code other than 0 ends the check. */
static int page_take(verifier *v, const expected_page *expected, node *n, const char *where, bool *usable)
{
    *usable = false;
    if (page_ref_is_frame(expected->ref) || page_ref_blocks(expected->ref) * RW_BLOCK_SIZE != v->page_size)
        return verify_finding(v, "%s: a page of %u blocks is referenced, pages have %u", where, page_ref_blocks(expected->ref),
                              v->page_size / RW_BLOCK_SIZE);
    if (!verify_claim(v, page_ref_address(expected->ref), page_ref_blocks(expected->ref), where)) return 0;
    int error = store_page_read(v->store, expected->ref, n);
    if (error != 0) return verify_take_error(v, error, where);
    error = node_check(n, v->page_size, true);
    if (error != 0) return verify_take_error(v, error, where);
    if (n->page.level != expected->level) return verify_finding(v, "%s: its own level says %u", where, n->page.level);
    *usable = true;
    return 0;
}

/* ---- leaves ------------------------------------------------------------------------------------------------------ */

int verify_extent(verifier *v, rw_slice key, extent_ref extent, const char *where)
{
    int error = store_extent_read(v->store, extent, key, NULL, v->staging, EXTENT_STAGING_BYTES);
    return error == 0 ? 0 : verify_take_error(v, error, where);
}

static int leaf_extent(verifier *v, rw_slice key, rw_slice value, const char *where)
{
    extent_ref extent;
    memcpy(&extent, value.data, sizeof extent); /* node_check has seen to the size */
    if (!verify_claim(v, extent.address, extent_blocks((uint32_t)key.size, extent.length), where)) return 0;
    return verify_extent(v, key, extent, where);
}

static int leaf_walk(verifier *v, const node *n, const char *where)
{
    int error = 0;
    for (unsigned i = 0; i < n->count && error == 0; i++) {
        unsigned flags = 0;
        rw_slice value = node_value(n, v->page_size, i, &flags);
        node_key_copy(n, i, v->key);
        rw_slice key = rw_slice_of(v->key, node_key_length(n, i));
        if (key.size < RW_BUCKET_PREFIX) error = verify_finding(v, "%s: the key of slot %u has %zu bytes, too few for a bucket", where, i, key.size);
        else if (rw_load_u32(key.data) == CATALOG_BUCKET) error = verify_catalog_add(v, key, value, false, where);
        if (error == 0 && (flags & NODE_SLOT_EXTENT) != 0) error = leaf_extent(v, key, value, where);
    }
    return error;
}

/* ---- the descent ------------------------------------------------------------------------------------------------- */

static rw_slice separator_copy(const node *n, unsigned slot, rw_slice fence, unsigned char *to)
{
    if (slot > 0 && slot < n->count) {
        node_key_copy(n, slot, to);
        return rw_slice_of(to, node_key_length(n, slot));
    }
    if (fence.size > 0) memcpy(to, fence.data, fence.size);
    return rw_slice_of(to, fence.size);
}

static int page_walk(verifier *v, const store_partition *p, const expected_page *expected);

/* The bounds of a child are the page's own separators and fences, whatever the page's parent thinks of these. */
static int children_walk(verifier *v, const store_partition *p, const node *n, verify_level *level)
{
    int error = 0;
    for (unsigned i = 0; i < n->count && error == 0; i++) {
        const expected_page child = {
            .ref = node_child(n, v->page_size, i),
            .level = n->page.level - 1u,
            .low = separator_copy(n, i, node_lower_fence(n), level->low),
            .high = separator_copy(n, i + 1, node_upper_fence(n), level->high),
        };
        error = page_walk(v, p, &child);
    }
    return error;
}

static int level_memory(verifier *v, unsigned level)
{
    verify_level *l = &v->levels[level];
    if (l->page != NULL) return 0;
    l->page = rw_memory_aligned(v->page_size);
    l->low = malloc(v->key_stride);
    l->high = malloc(v->key_stride);
    return l->page != NULL && l->low != NULL && l->high != NULL ? 0 : rw_error(RW_ENOMEM, "no memory to check a page of %u bytes", v->page_size);
}

static int page_walk(verifier *v, const store_partition *p, const expected_page *expected)
{
    char where[PAGE_WHERE_BYTES];
    bool usable;
    int error = level_memory(v, expected->level);
    if (error != 0) return error;
    node *n = v->levels[expected->level].page;
    page_where(v, p, expected, where);
    error = page_take(v, expected, n, where, &usable);
    if (error != 0 || !usable) {
        v->incomplete = true;
        return error;
    }
    check_bounds(v, n, expected, where);
    check_figures(v, n, expected, where);
    return expected->level == 0 ? leaf_walk(v, n, where) : children_walk(v, p, n, &v->levels[expected->level]);
}

/* ---- spills ------------------------------------------------------------------------------------------------------ */

/* Keys of a spill's leaf: within the partition, each above all before it, v->key the last of these; with their values in the leaf. */
static int spilled_walk(verifier *v, const store_partition *p, const node *n, rw_slice high, rw_slice *last, const char *where)
{
    for (unsigned i = 0; i < n->count; i++) {
        unsigned char *bytes = v->levels[0].low; /* a leaf has no children whose bounds would stand there */
        rw_slice key = rw_slice_of(bytes, node_key_length(n, i));
        unsigned flags = 0;
        node_key_copy(n, i, bytes);
        (void)node_value(n, v->page_size, i, &flags);
        if (rw_slice_compare(key, p->low_key) < 0 || (high.size > 0 && rw_slice_compare(key, high) >= 0)) return verify_finding(v, "%s: the key of slot %u lies outside of the partition", where, i);
        if (last->size > 0 && rw_slice_compare(*last, key) >= 0) return verify_finding(v, "%s: the key of slot %u is not above the one before it", where, i);
        if ((flags & NODE_SLOT_EXTENT) != 0 || rw_load_u32(key.data) == CATALOG_BUCKET) return verify_finding(v, "%s: slot %u holds what is never spilled", where, i);
        memcpy(v->key, key.data, key.size);
        *last = rw_slice_of(v->key, key.size);
    }
    return 0;
}

/* A page of a spill, and all below it. */
static int spill_walk(verifier *v, const store_partition *p, const store_spill *s, page_ref ref, unsigned level, rw_slice high, rw_slice *last)
{
    char where[PAGE_WHERE_BYTES];
    bool usable;
    const expected_page expected = {.ref = ref, .level = level};
    int error = level_memory(v, level);
    if (error != 0) return error;
    node *n = v->levels[level].page;
    page_where(v, p, &expected, where);
    error = page_take(v, &expected, n, where, &usable);
    if (error != 0 || !usable) {
        v->incomplete = true;
        return error;
    }
    if (n->page.newest_timestamp != s->newest || n->count == 0) verify_finding(v, "%s: it is not a page of spill %u", where, s->number);
    if (estimate_of(v, n) != ref.estimate) verify_finding(v, "%s: it has %u records below it, what names it says %u", where, estimate_of(v, n), ref.estimate);
    if (!unused_bytes_are_zero(n)) verify_finding(v, "%s: bytes that it does not use are not zero", where);
    if (level == 0) return spilled_walk(v, p, n, high, last, where);
    for (unsigned i = 0; i < n->count && error == 0; i++) error = spill_walk(v, p, s, node_child(n, v->page_size, i), level - 1, high, last);
    return error;
}

static int spills_walk(verifier *v, const store_partition *p, rw_slice high)
{
    int error = 0;
    for (uint32_t i = 0; i < p->spill_count && error == 0; i++) {
        const store_spill *s = &p->spills[i];
        rw_slice last = rw_slice_of(NULL, 0);
        if (s->height > TREE_LEVELS_MAX || s->newest >= v->image->durable_lsn || p->height < 2)
            verify_finding(v, "%s: spill %u of partition %u is impossible: %u levels, a commit at LSN %llu, in a tree of %u levels", kio_file_path(store_file(v->store)), s->number, p->id, s->height,
                           (unsigned long long)s->newest, p->height);
        else error = spill_walk(v, p, s, s->root, s->height - 1, high, &last);
    }
    return error;
}

/* ---- partitions -------------------------------------------------------------------------------------------------- */

static int partition_walk(verifier *v, uint32_t index)
{
    const store_partition *p = &v->image->partitions[index];
    const char *path = kio_file_path(store_file(v->store));
    if (p->height == 0 || p->height > TREE_LEVELS_MAX || p->low_key.size > v->key_stride || page_ref_is_none(p->root)) {
        v->incomplete = true;
        return verify_finding(v, "%s: the superblock's entry for partition %u is impossible: %u levels, root at offset %llu, a low key of %zu bytes",
                              path, p->id, p->height, (unsigned long long)page_ref_address(p->root) * RW_BLOCK_SIZE, p->low_key.size);
    }
    if (p->lsn < v->image->checkpoint_lsn || p->lsn > v->image->durable_lsn)
        verify_finding(v, "%s: partition %u is as of LSN %llu, the checkpoint reaches from LSN %llu to %llu", path, p->id, (unsigned long long)p->lsn,
                       (unsigned long long)v->image->checkpoint_lsn, (unsigned long long)v->image->durable_lsn);
    bool last = index + 1 == v->image->partition_count;
    const expected_page root = {
        .ref = p->root,
        .level = p->height - 1,
        .low = p->low_key,
        .high = last ? rw_slice_of("", 0) : v->image->partitions[index + 1].low_key,
    };
    int error = page_walk(v, p, &root);
    return error == 0 ? spills_walk(v, p, root.high) : error;
}

static void partition_ids_check(verifier *v)
{
    for (uint32_t i = 0; i < v->image->partition_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (v->image->partitions[i].id == v->image->partitions[j].id)
                verify_finding(v, "%s: the superblock names two partitions with the id %u", kio_file_path(store_file(v->store)),
                               v->image->partitions[i].id);
}

int verify_trees(verifier *v)
{
    int error = 0;
    if (v->image->partition_count == 0) return verify_finding(v, "%s: the superblock names no partition", kio_file_path(store_file(v->store)));
    partition_ids_check(v);
    for (uint32_t i = 0; i < v->image->partition_count && error == 0; i++) error = partition_walk(v, i);
    return error;
}
