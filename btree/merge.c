/* Fewer pages: those that are too empty are merged with a neighbour under the same parent, roots with one child go; leaves about to be written are filled up. */
#include "btree/trees.h"
#include "btree/trees_internal.h"

bool tree_root_collapse(trees *t, partition *p)
{
    uint32_t f = tree_root(p);
    frame *root = tree_frame(t, f);
    const node *n = tree_node(t, f);
    if (root->level == 0 || n->count != 1) return false;
    page_ref ref = node_child(n, t->page_size, 0);
    if (!page_ref_is_frame(ref)) return false;
    uint32_t child = page_ref_frame(ref);
    frame_change_begin(root);
    tree_frame(t, child)->parent = FRAME_NONE;
    root->resident_children = 0;
    tree_root_set(p, child);
    tree_frame_drop(t, p, f);
    return true;
}

/* The page right of f goes into f. Both have the same parent, where right stands in the slot behind f's. */
static void merge_apply(tree_writer *w, partition *p, uint32_t f, uint32_t right_index)
{
    trees *t = w->t;
    frame *left = tree_frame(t, f), *right = tree_frame(t, right_index), *parent = tree_frame(t, left->parent);
    node *parent_node = tree_node(t, left->parent);
    unsigned right_slot = node_slot_of_frame(parent_node, right_index);
    RW_ASSERT(right->parent == left->parent && right_slot == node_slot_of_frame(parent_node, f) + 1);
    frame_change_begin(left);
    frame_change_begin(right);
    frame_change_begin(parent);
    node_merge(tree_node(t, f), tree_node(t, right_index), t->page_size, w->scratch);
    node_remove(parent_node, t->page_size, right_slot);
    left->resident_children = (uint16_t)tree_children_adopt(t, f);
    right->resident_children = 0;
    left->flags |= FRAME_RESHAPED;
    frame_change_end(parent);
    frame_change_end(left);
    uint32_t parent_index = left->parent;
    tree_frame_drop(t, p, right_index);
    pool_mark_dirty(&t->pool, p, f);
    pool_mark_dirty(&t->pool, p, parent_index);
}

typedef enum { MERGED, NOT_MERGED, NEIGHBOUR_MISSING } merge_result;

/* Tries the pair of parent's slots left and left + 1. */
static merge_result merge_pair(tree_writer *w, partition *p, uint32_t parent, unsigned left, tree_miss *miss)
{
    trees *t = w->t;
    const node *n = tree_node(t, parent);
    page_ref a = node_child(n, t->page_size, left), b = node_child(n, t->page_size, left + 1);
    if (!page_ref_is_frame(a) || !page_ref_is_frame(b)) {
        *miss = (tree_miss){.ref = page_ref_is_frame(a) ? b : a, .level = n->page.level - 1u};
        return NEIGHBOUR_MISSING;
    }
    uint32_t x = page_ref_frame(a), y = page_ref_frame(b);
    uint32_t keep_free = node_capacity(t->page_size) / 4;
    if (tree_node(t, x)->count == 0 || tree_node(t, y)->count == 0) keep_free = 0;
    if (!node_merge_fits(tree_node(t, x), tree_node(t, y), t->page_size, keep_free)) return NOT_MERGED;
    merge_apply(w, p, x, y);
    return MERGED;
}

/* Tries both neighbours of f, those in the cache first. */
static merge_result merge_with_neighbour(tree_writer *w, partition *p, uint32_t f, tree_miss *miss)
{
    trees *t = w->t;
    uint32_t parent = tree_frame(t, f)->parent;
    const node *n = tree_node(t, parent);
    unsigned slot = node_slot_of_frame(n, f), count = n->count;
    merge_result left = NOT_MERGED, right = NOT_MERGED;
    if (slot > 0) left = merge_pair(w, p, parent, slot - 1, miss);
    if (left == MERGED) return MERGED;
    if (slot + 1 < count) right = merge_pair(w, p, parent, slot, miss);
    if (right == MERGED) return MERGED;
    return left == NEIGHBOUR_MISSING || right == NEIGHBOUR_MISSING ? NEIGHBOUR_MISSING : NOT_MERGED;
}

int tree_shrink(tree_writer *w, partition *p, rw_slice key, tree_miss *miss)
{
    trees *t = w->t;
    unsigned level = 0, reach = 0; /* pages of this level and below had a neighbour change or are alone: worth a look */
    while (level <= reach) {
        uint32_t f;
        while (tree_root_collapse(t, p)) continue;
        if (tree_frame(t, tree_root(p))->level <= level) return 0;
        int state = tree_descend(t, p, key, level, &f, miss);
        if (state != 0) return state;
        const node *n = tree_node(t, f);
        bool only_child = tree_node(t, tree_frame(t, f)->parent)->count == 1;
        merge_result result = NOT_MERGED;
        if (!only_child && tree_node_sparse(t, n)) result = merge_with_neighbour(w, p, f, miss);
        if (result == NEIGHBOUR_MISSING) return TREE_MISS;
        if (only_child || result == MERGED) reach = RW_MAX(reach, level + 1);
        level = result == MERGED ? 0 : level + 1; /* below a merged inner page, leaves that were alone have neighbours now */
    }
    return 0;
}

/* ---- filling leaves up ------------------------------------------------------------------------------------------- */

#define PACK_FREE_DIVISOR 10u          /* of a leaf, left free for what comes next, */
#define PACK_FREE_CALM_DIVISOR 100u    /* or where next to nothing came, */
#define PACK_CALM_MIN 2u               /* so many times in a row */

/* The leaf right of f under the same parent, if it is to be written too, and nobody uses it: what is used is to stay in memory. FRAME_NONE: there is none. */
static uint32_t idle_neighbour(trees *t, uint32_t f)
{
    uint32_t parent = tree_frame(t, f)->parent;
    if (parent == FRAME_NONE) return FRAME_NONE;
    const node *n = tree_node(t, parent);
    unsigned slot = node_slot_of_frame(n, f) + 1u;
    page_ref ref = slot < n->count ? node_child(n, t->page_size, slot) : page_ref_none();
    if (!page_ref_is_frame(ref)) return FRAME_NONE;
    const frame *right = tree_frame(t, page_ref_frame(ref));
    bool fit = (right->flags & (FRAME_DIRTY | FRAME_WRITING)) == FRAME_DIRTY && atomic_load_explicit(&right->cool, memory_order_relaxed) != 0;
    return fit ? page_ref_frame(ref) : FRAME_NONE;
}

bool tree_pack(tree_writer *w, partition *p, uint32_t f, bool fill)
{
    trees *t = w->t;
    uint32_t free_bytes = node_capacity(t->page_size) / (fill && p->calm >= PACK_CALM_MIN ? PACK_FREE_CALM_DIVISOR : PACK_FREE_DIVISOR), right = idle_neighbour(t, f);
    RW_ASSERT(tree_frame(t, f)->level == 0);
    if (right == FRAME_NONE || t->recovering) return false;
    const node *n = tree_node(t, f), *other = tree_node(t, right);
    if (node_used(n, t->page_size) + free_bytes >= node_capacity(t->page_size)) return false;
    if (node_merge_fits(n, other, t->page_size, free_bytes)) {
        merge_apply(w, p, f, right);
        return true;
    }
    if (fill && node_pack_plan(n, other, t->page_size, free_bytes, &w->plan)) (void)tree_pair_move(w, p, f, right);
    return false;
}

uint32_t tree_unwritten_neighbour(trees *t, uint32_t f)
{
    uint32_t right = idle_neighbour(t, f);
    return right != FRAME_NONE && page_ref_is_none(tree_frame(t, right)->disk) ? right : FRAME_NONE;
}
