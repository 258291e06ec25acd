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
    return node_used(tree_node(fold->t, fold->frames[0]), page_size) + waiting->bytes > node_capacity(page_size);
}

static bool write_make(leaf_fold *fold, const pending_write *one)
{
    trees *t = fold->t;
    rw_slice key = pending_key(one), value = pending_data(one);
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
        } else node_insert(n, t->page_size, slot, key, value, 0);
        if (n->page.newest_timestamp < one->timestamp) n->page.newest_timestamp = one->timestamp;
        return true;
    }
}

/* What replay put there may be in the image already: then so is everything that waits and is not newer (R2). */
bool fold_writes(leaf_fold *fold, const pending_leaf *waiting)
{
    uint64_t image = tree_node(fold->t, fold->frames[0])->page.newest_timestamp;
    if (RW_PLANTED(pending_lost)) return true;
    for (const pending_write *one = waiting->writes; one != NULL; one = one->next) {
        if (one->timestamp <= image) continue;
        if (!write_make(fold, one)) return false;
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
        needed += sizeof(node_slot) + node_lower_fence(tree_node(fold->t, fold->frames[i])).size + sizeof(page_ref);
    return needed == 0 || node_used(parent, page_size) + needed <= node_capacity(page_size);
}

/* The right halves, beside the leaf, which has its place in the parent at slot; the parent's version is odd. */
void fold_hang_rest(leaf_fold *fold, uint32_t parent, unsigned slot)
{
    trees *t = fold->t;
    partition *p = fold->p;
    for (unsigned i = 1; i < fold->count; i++) {
        uint32_t f = fold->frames[i];
        page_ref ref = tree_ref_of_frame(f);
        tree_frame_install(t, p, f, 0, parent, page_ref_none());
        atomic_store_explicit(&tree_frame(t, f)->cool, 1, memory_order_relaxed); /* nobody asked for it; who does will say so */
        node_insert(tree_node(t, parent), t->page_size, slot + i, node_lower_fence(tree_node(t, f)), tree_ref_value(&ref), 0);
        p->pages++;
    }
    if (fold->count > 1) tree_frame(t, fold->frames[0])->flags |= FRAME_RESHAPED;
}

/* After the parent's version is even again: the pages are the tree's. */
void fold_finish(leaf_fold *fold, page_ref leaf)
{
    trees *t = fold->t;
    for (unsigned i = 0; i < fold->count; i++) pool_mark_dirty(&t->pool, fold->p, fold->frames[i]);
    fold->count = 1;
    store_retired_move(&fold->p->extents, &fold->replaced);
    pending_drop(&t->pending, fold->p, leaf);
}
