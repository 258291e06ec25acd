/* What buffer/ must know of nodes: making the image of a page, forgetting a child, which pages must be written before which. */
#include "btree/trees.h"

static frame *child_frame(pool *p, page_ref ref)
{
    return &p->frames[page_ref_frame(ref)];
}

/* Sums estimates; the upper bit says that an extent is named below. */
static uint32_t estimate_add(uint32_t sum, uint32_t child)
{
    uint64_t records = (uint64_t)(sum & PAGE_REF_ESTIMATE_MAX) + (child & PAGE_REF_ESTIMATE_MAX);
    return (uint32_t)RW_MIN(records, (uint64_t)PAGE_REF_ESTIMATE_MAX) | ((sum | child) & PAGE_REF_HAS_EXTENTS);
}

/* Replaces frames by what they were last written as (rule T6), and returns the sum of the children's estimates. */
static uint32_t image_children(pool *p, node *image, bool *dirty_below)
{
    uint32_t estimate = 0;
    for (unsigned i = 0; i < image->count; i++) {
        page_ref ref = node_child(image, p->page_size, i);
        if (page_ref_is_frame(ref)) {
            frame *child = child_frame(p, ref);
            RW_ASSERT(!page_ref_is_none(child->disk) && (child->flags & FRAME_RESHAPED) == 0);
            if ((child->flags & FRAME_DIRTY) != 0) *dirty_below = true;
            ref = child->disk;
            node_child_set(image, i, ref);
        }
        estimate = estimate_add(estimate, image->page.level == 1 ? ref.estimate & (PAGE_REF_LEAF_RECORDS | PAGE_REF_HAS_EXTENTS) : ref.estimate);
    }
    return estimate;
}

static trees *trees_of(pool *p)
{
    return RW_CONTAINER_OF(p, trees, pool);
}

/* A new image of a leaf. A page that is not cool is written for a checkpoint, and stays. */
static void leaf_note(pool *p, const frame *leaf, page_ref ref, const node *image)
{
    filters *f = &trees_of(p)->filters;
    records_renew(&trees_of(p)->records, ref, image);
    if (!page_ref_is_none(leaf->disk)) filters_drop(f, leaf->disk);
    if (atomic_load_explicit(&leaf->cool, memory_order_relaxed) != 0) filters_keep(f, ref, image);
}

static page_ref page_image(pool *p, uint32_t f, void *to, void *scratch, uint64_t address, bool *dirty_below)
{
    node *image = to;
    uint32_t estimate;
    memcpy(image, pool_page(p, f), p->page_size);
    if (image->page.level > 0) estimate = image_children(p, image, dirty_below);
    else estimate = image->count | (image->extents > 0 ? PAGE_REF_HAS_EXTENTS : 0);
    node_tidy(image, p->page_size, scratch);
    image->page.partition = p->partitions[atomic_load_explicit(&p->frames[f].partition, memory_order_relaxed)].id;
    RW_ASSERT_SLOW(node_check(image, p->page_size, true) == 0);
    page_ref ref = store_page_seal(p->store, image, p->page_size, PAGE_NODE, address, estimate);
    if (image->page.level > 0) return ref;
    leaf_note(p, &p->frames[f], ref, image);
    return page_ref_with_spill(ref, trees_of(p)->pending.sets[atomic_load_explicit(&p->frames[f].partition, memory_order_relaxed)].spill_number);
}

/* Read-only: whether the slot's child is a part of the leaf that ref names. */
static bool is_part_of(pool *p, const node *n, unsigned slot, page_ref ref)
{
    page_ref child = node_child(n, p->page_size, slot);
    return page_ref_is_frame(child) && child_frame(p, child)->disk.word == ref.word;
}

/* Read-only: f, at slot, may be a part of a leaf that was split as it came in with what spills hold for it. All parts leave together, and the first one's slot is the leaf's again. Returns that. The parent's version is odd. */
static unsigned parts_detach(pool *p, uint32_t f, node *n, unsigned slot, page_ref ref)
{
    unsigned first = slot, end = slot + 1;
    while (first > 0 && is_part_of(p, n, first - 1, ref)) first--;
    while (end < n->count && is_part_of(p, n, end, ref)) end++;
    for (unsigned i = first; i < end; i++) {
        uint32_t part = page_ref_frame(node_child(n, p->page_size, i));
        if (part == f) continue;
        frame_change_begin(&p->frames[part]);
        p->frames[p->frames[f].parent].resident_children--;
        pool_frame_free(p, part);
    }
    if (end - first > 1) node_remove_many(n, p->page_size, first + 1, end);
    return first;
}

static void page_detach(pool *p, uint32_t f, page_ref ref)
{
    frame *fr = &p->frames[f], *parent = &p->frames[fr->parent];
    node *n = pool_page(p, fr->parent);
    bool alone = fr->level > 0 || !trees_of(p)->read_only;
    unsigned slot = node_slot_of_frame(n, f);
    RW_ASSERT(parent->resident_children > 0);
    if (fr->level == 0 && alone) filters_keep_evicted(&trees_of(p)->filters, ref, pool_page(p, f));
    frame_change_begin(parent);
    node_child_set(n, alone ? slot : parts_detach(p, f, n, slot, ref), ref);
    frame_change_end(parent);
    parent->resident_children--;
}

static uint32_t page_gather(pool *p, uint32_t f, uint32_t *list, uint32_t max)
{
    const node *n = pool_page(p, f);
    uint32_t count = 0;
    if (n->page.level > 0) {
        for (unsigned i = 0; i < n->count; i++) {
            page_ref ref = node_child(n, p->page_size, i);
            if (!page_ref_is_frame(ref)) continue;
            frame *child = child_frame(p, ref);
            if (!page_ref_is_none(child->disk) && (child->flags & FRAME_RESHAPED) == 0) continue;
            count += page_gather(p, page_ref_frame(ref), list + count, max - count);
            if (count == max) return count; /* f itself has no room, or must wait for more children */
        }
    }
    if (count < max) list[count++] = f;
    return count;
}

const page_ops tree_page_ops = {.image = page_image, .detach = page_detach, .gather = page_gather};
