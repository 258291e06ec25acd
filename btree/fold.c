/* A leaf that came from disk, and the writes that wait for it: made one in the leaf's private frame, before it becomes a page of the tree (T14). */
#include "base/planted.h"
#include "btree/trees.h"
#include "btree/trees_internal.h"

void fold_begin(leaf_fold *fold, trees *t, partition *p, tree_writer *w, uint32_t leaf)
{
    *fold = (leaf_fold){.t = t, .p = p, .w = w, .frames = {leaf}, .count = 1};
}

void fold_end(leaf_fold *fold)
{
    for (unsigned i = 1; i < fold->count; i++) pool_frame_free(&fold->t->pool, fold->frames[i]);
    store_retired_free(&fold->replaced);
}

/* The page whose range holds key. */
static unsigned page_of(const leaf_fold *fold, rw_slice key)
{
    for (unsigned i = fold->count - 1; i > 0; i--)
        if (rw_slice_compare(key, node_lower_fence(tree_node(fold->t, fold->frames[i]))) >= 0) return i;
    return 0;
}

/* Splits page i in two. False: for want of a frame. */
static bool page_split(leaf_fold *fold, unsigned i, rw_slice key)
{
    trees *t = fold->t;
    tree_writer *w = fold->w;
    if (w == NULL || w->reserved == 0) return false;
    RW_ASSERT(fold->count < FOLD_PAGES_MAX); /* all that waits takes half a page: T16 */
    node *n = tree_node(t, fold->frames[i]);
    uint32_t right = w->reserve[--w->reserved];
    node_split_plan_even(n, t->page_size, key, &w->plan); /* a guess at sequential insertion could make a page for each write, however small */
    node_split_apply(n, tree_node(t, right), t->page_size, &w->plan, w->scratch);
    for (unsigned k = fold->count++; k > i + 1; k--) fold->frames[k] = fold->frames[k - 1];
    fold->frames[i + 1] = right;
    return true;
}

static void replaced_note(leaf_fold *fold, const node *n, unsigned slot, rw_slice key)
{
    unsigned flags = 0;
    extent_ref old;
    rw_slice value = node_value(n, fold->t->page_size, slot, &flags);
    if ((flags & NODE_SLOT_EXTENT) == 0) return;
    memcpy(&old, value.data, sizeof old);
    store_retire(&fold->replaced, old.address, extent_blocks((uint32_t)key.size, old.length));
}

bool fold_needs_writer(const leaf_fold *fold, const pending_leaf *waiting)
{
    uint32_t page_size = fold->t->page_size;
    const node *n = tree_node(fold->t, fold->frames[0]);
    size_t used = node_used(n, page_size);
    if (used + waiting->bytes <= node_capacity(page_size)) return false;
    for (const pending_write *w = waiting->writes; w != NULL; w = w->next) { /* most take the place of what is there: full leaves have no room for them beside it */
        bool found;
        unsigned flags = 0, slot = node_lower_bound(n, page_size, pending_key(w), &found);
        size_t old = found ? node_value(n, page_size, slot, &flags).size : 0;
        used += !found ? pending_growth(w->key_size, w->value_size) : w->value_size > old ? w->value_size - old : 0;
    }
    return used > node_capacity(page_size);
}

static bool write_make(leaf_fold *fold, rw_slice key, rw_slice value, uint64_t timestamp)
{
    trees *t = fold->t;
    fold->changed = true;
    for (;;) {
        bool found;
        unsigned i = page_of(fold, key);
        node *n = tree_node(t, fold->frames[i]);
        unsigned slot = node_lower_bound(n, t->page_size, key, &found);
        bool fits = found ? node_fits_update(n, t->page_size, slot, value.size) : node_fits(n, t->page_size, key.size, value.size);
        if (!fits) {
            if (!page_split(fold, i, key)) return false;
            continue;
        }
        if (found) {
            replaced_note(fold, n, slot, key);
            node_update(n, t->page_size, slot, value, 0);
        } else {
            node_insert(n, t->page_size, slot, key, value, 0);
            fold->inserted++;
        }
        if (n->page.newest_timestamp < timestamp) n->page.newest_timestamp = timestamp;
        return true;
    }
}

/* The leaf's own range, while its fences may move. */
typedef struct {
    rw_slice from, to;                 /* to.size 0: no end */
    unsigned char from_bytes[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX], to_bytes[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX];
} leaf_range;

static void range_take(leaf_range *range, const node *n)
{
    rw_slice lower = node_lower_fence(n), upper = node_upper_fence(n);
    if (lower.size > 0) memcpy(range->from_bytes, lower.data, lower.size);
    if (upper.size > 0) memcpy(range->to_bytes, upper.data, upper.size);
    range->from = rw_slice_of(range->from_bytes, lower.size);
    range->to = rw_slice_of(range->to_bytes, upper.size);
}

/* What one leaf of a spill holds for the range. */
static bool spilled_make(leaf_fold *fold, const node *from, const leaf_range *range, uint64_t timestamp)
{
    unsigned char bytes[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX];
    uint32_t page_size = fold->t->page_size;
    bool ignored;
    for (unsigned slot = node_lower_bound(from, page_size, range->from, &ignored); slot < from->count; slot++) {
        unsigned flags = 0;
        rw_slice key = rw_slice_of(bytes, node_key_length(from, slot));
        node_key_copy(from, slot, bytes);
        if (range->to.size > 0 && rw_slice_compare(key, range->to) >= 0) break;
        if (!write_make(fold, key, node_value(from, page_size, slot, &flags), timestamp)) return false;
    }
    return true;
}

/* The older spill first. */
static bool spills_make(leaf_fold *fold, page_ref disk, const leaf_recall *recall)
{
    const pending *pg = &fold->t->pending;
    uint32_t count = pending_spills(pg, fold->p->index);
    leaf_range range;
    range_take(&range, tree_node(fold->t, fold->frames[0]));
    for (uint32_t i = 0; i < count; i++) {
        page_ref leaves[SPILL_LEAF_PAGES];
        uint64_t newest = pg->sets[fold->p->index].spills[i]->image.newest;
        uint32_t found = recall_leaves(pg, fold->p, i, disk, range.from, range.to, leaves);
        for (uint32_t k = 0; k < found; k++) {
            const node *from = recall_find(recall, leaves[k]);
            RW_ASSERT(from != NULL); /* recall_ready has said so under this token */
            if (!spilled_make(fold, from, &range, newest)) return false;
        }
    }
    return true;
}

/* What replay put there may be in the image already: then so is everything that waits and is not newer (R2). */
bool fold_writes(leaf_fold *fold, page_ref disk, const leaf_recall *recall, const pending_leaf *waiting)
{
    uint64_t image = tree_node(fold->t, fold->frames[0])->page.newest_timestamp;
    if (RW_PLANTED(pending_lost)) return true;
    if (recall != NULL && !spills_make(fold, disk, recall)) return false;
    for (const pending_write *one = waiting != NULL ? waiting->writes : NULL; one != NULL; one = one->next) {
        if (one->timestamp <= image) continue;
        if (!write_make(fold, pending_key(one), pending_data(one), one->timestamp)) return false;
        if (atomic_load_explicit(&one->asked, memory_order_relaxed) != 0) records_keep_made(&fold->t->records, pending_key(one), pending_data(one));
    }
    return true;
}

/* Whether the parent has room for the separators of all pages but the first. */
bool fold_fits_parent(const leaf_fold *fold, const node *parent)
{
    uint32_t page_size = fold->t->page_size;
    size_t needed = 0;
    for (unsigned i = 1; i < fold->count; i++)
        needed += sizeof(node_slot) + node_lower_fence(tree_node(fold->t, fold->frames[i])).size - parent->prefix_length + sizeof(page_ref);
    return needed == 0 || node_used(parent, page_size) + needed <= node_capacity(page_size);
}

/* In a database opened read-only what spills hold cannot be written with the leaf. So its pages are clean, each an image of the whole leaf's place, and leave the cache together (pages.c); only what the replayed log
 * will change has to stay. */
static bool fold_is_passing(const leaf_fold *fold)
{
    return fold->t->read_only && !fold->t->recovering;
}

/* The right halves, beside the leaf, which has its place in the parent at slot; the parent's version is odd. */
void fold_hang_rest(leaf_fold *fold, uint32_t parent, unsigned slot, page_ref disk)
{
    trees *t = fold->t;
    partition *p = fold->p;
    for (unsigned i = 1; i < fold->count; i++) {
        uint32_t f = fold->frames[i];
        page_ref ref = tree_ref_of_frame(f);
        tree_frame_install(t, p, f, 0, parent, fold_is_passing(fold) ? disk : page_ref_none());
        atomic_store_explicit(&tree_frame(t, f)->cool, 1, memory_order_relaxed); /* nobody asked for it; who does will say so */
        node_insert(tree_node(t, parent), t->page_size, slot + i, node_lower_fence(tree_node(t, f)), tree_ref_value(&ref), 0);
        p->pages++;
    }
    if (fold->count > 1 && !fold_is_passing(fold)) tree_frame(t, fold->frames[0])->flags |= FRAME_RESHAPED;
}

/* After the parent's version is even again: the pages are the tree's. */
void fold_finish(leaf_fold *fold, page_ref leaf, const pending_leaf *waiting)
{
    trees *t = fold->t;
    for (unsigned i = 0; i < fold->count && fold->changed && !fold_is_passing(fold); i++) pool_mark_dirty(&t->pool, fold->p, fold->frames[i]);
    fold->p->grown += fold->inserted + fold->count - 1;
    fold->count = 1;
    store_retired_move(&fold->p->extents, &fold->replaced);
    if (waiting != NULL) pending_drop(&t->pending, fold->p, leaf);
}
