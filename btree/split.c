/* Making room: splits from the leaf upwards, under the partition's token. Frames come from the writer's reserve, so nothing fails half-way. */
#include "base/memory.h"
#include "btree/trees.h"
#include "btree/trees_internal.h"

#define RESERVE_TARGET 8u              /* enough for a split of a few levels; who needs more asks again. A small cache must not be drained by it */

int tree_writer_open(trees *t, tree_writer **out)
{
    tree_writer *w = calloc(1, sizeof *w);
    if (w != NULL) w->scratch = rw_memory_aligned(2u * t->page_size);
    if (w == NULL || w->scratch == NULL) {
        free(w);
        return rw_error(RW_ENOMEM, "no memory to change the tree");
    }
    w->t = t;
    w->target = RESERVE_TARGET;
    *out = w;
    return 0;
}

void tree_writer_close(tree_writer *w)
{
    while (w->reserved > 0) pool_frame_free(&w->t->pool, w->reserve[--w->reserved]);
    free(w->scratch);
    free(w);
}

#define RESERVE_SPLIT 2u               /* for one split: a new root, and the right half */

#define BALANCE_ROOM_DIVISOR 8u        /* of a leaf, to be free in both after records were moved between neighbours */

int tree_writer_fill(tree_writer *w)
{
    while (w->reserved < w->target) {
        int error = pool_frame_take(&w->t->pool, &w->reserve[w->reserved]);
        if (error != 0) return error;
        w->reserved++;
    }
    return 0;
}

int tree_writer_fill_holding(tree_writer *w, const partition_set *held)
{
    while (w->reserved < RESERVE_TARGET) {
        uint32_t f = pool_frame_try(&w->t->pool);
        if (f == FRAME_NONE && w->reserved >= RESERVE_SPLIT) return 0; /* there may be no more that this holder can evict */
        int error = f == FRAME_NONE ? pool_frame_take_holding(&w->t->pool, held, &f) : 0;
        if (error != 0) return error;
        w->reserve[w->reserved++] = f;
    }
    return 0;
}

static uint32_t reserve_pop(tree_writer *w)
{
    RW_ASSERT(w->reserved > 0);
    return w->reserve[--w->reserved];
}

/* Puts a new root above the old one, which becomes its only child. Readers who took the old root's version before see it change. */
static void root_grow(tree_writer *w, partition *p)
{
    trees *t = w->t;
    uint32_t old = tree_root(p), top = reserve_pop(w);
    frame *old_frame = tree_frame(t, old);
    node *n = tree_node(t, top), *old_node = tree_node(t, old);
    page_ref ref = tree_ref_of_frame(old);
    node_init(n, t->page_size, old_frame->level + 1u, node_lower_fence(old_node), node_upper_fence(old_node));
    n->page.newest_timestamp = old_node->page.newest_timestamp;
    node_insert(n, t->page_size, 0, node_lower_fence(old_node), tree_ref_value(&ref), 0);
    frame_change_begin(old_frame);
    tree_frame_install(t, p, top, old_frame->level + 1u, FRAME_NONE, page_ref_none());
    old_frame->parent = top;
    tree_frame(t, top)->resident_children = 1;
    tree_root_set(p, top);
    frame_change_end(old_frame);
    pool_mark_dirty(&t->pool, p, top);
    p->pages++;
}

/* The planned split of f; its parent has room for the separator. */
static void split_apply(tree_writer *w, partition *p, uint32_t f)
{
    trees *t = w->t;
    frame *left = tree_frame(t, f), *parent = tree_frame(t, left->parent);
    uint32_t parent_index = left->parent, right_index = reserve_pop(w);
    node *n = tree_node(t, f), *right = tree_node(t, right_index), *parent_node = tree_node(t, parent_index);
    page_ref ref = tree_ref_of_frame(right_index);
    frame_change_begin(left);
    frame_change_begin(parent);
    node_split_apply(n, right, t->page_size, &w->plan, w->scratch);
    tree_frame_install(t, p, right_index, left->level, parent_index, page_ref_none());
    node_insert(parent_node, t->page_size, node_slot_of_frame(parent_node, f) + 1,
                rw_slice_of(w->plan.separator, w->plan.separator_length), tree_ref_value(&ref), 0);
    uint32_t moved = tree_children_adopt(t, right_index);
    tree_frame(t, right_index)->resident_children = (uint16_t)moved;
    left->resident_children = (uint16_t)(left->resident_children - moved);
    left->flags |= FRAME_RESHAPED;
    frame_change_end(parent);
    frame_change_end(left);
    pool_mark_dirty(&t->pool, p, f);
    pool_mark_dirty(&t->pool, p, right_index);
    p->pages++;
    p->grown += left->level == 0;
}

/* Read-only: whether the children left and right of the border are parts of one leaf on disk, which it was split into as it came in. */
static bool leaf_is_cut(trees *t, const node *n, unsigned border)
{
    page_ref left = node_child(n, t->page_size, border - 1), right = node_child(n, t->page_size, border);
    if (!page_ref_is_frame(left) || !page_ref_is_frame(right)) return false;
    page_ref disk = tree_frame(t, page_ref_frame(left))->disk;
    return !page_ref_is_none(disk) && disk.word == tree_frame(t, page_ref_frame(right))->disk.word;
}

/* Such parts leave together, to be one child of their parent again (pages.c): so they stay under the same one. */
static void plan_keep_leaves(trees *t, const node *n, node_split *plan)
{
    unsigned border = plan->slot;
    while (border > 1 && leaf_is_cut(t, n, border)) border--;
    if (leaf_is_cut(t, n, border))
        for (border = plan->slot; border < n->count && leaf_is_cut(t, n, border);) border++;
    RW_ASSERT(border < n->count); /* there is the child that room is made for */
    if (border != plan->slot) node_split_plan_at(n, border, plan);
}

/* Splits f, and first what is above it as far as needed. Every step leaves a sound tree, so it may stop between two: TREE_FRAMES. */
static int split(tree_writer *w, partition *p, uint32_t f, rw_slice key)
{
    trees *t = w->t;
    for (;;) {
        if (w->reserved < RESERVE_SPLIT) return TREE_FRAMES;
        if (tree_frame(t, f)->parent == FRAME_NONE) root_grow(w, p);
        uint32_t parent = tree_frame(t, f)->parent;
        node_split_plan(tree_node(t, f), t->page_size, key, &w->plan);
        if (t->read_only && tree_frame(t, f)->level == 1) plan_keep_leaves(t, tree_node(t, f), &w->plan);
        if (node_fits(tree_node(t, parent), t->page_size, w->plan.separator_length, sizeof(page_ref))) break;
        int state = split(w, p, parent, key);
        if (state != 0) return state;
    }
    split_apply(w, p, f);
    return 0;
}

int tree_make_room_above(tree_writer *w, partition *p, rw_slice key, tree_miss *miss)
{
    uint32_t f;
    if (tree_frame(w->t, tree_root(p))->level == 0) return 0;
    int state = tree_descend(w->t, p, key, 1, &f, miss);
    return state != 0 ? state : split(w, p, f, key);
}

/* ---- before a leaf is split: its neighbours --------------------------------------------------------------------- */

bool tree_pair_move(tree_writer *w, partition *p, uint32_t left, uint32_t right)
{
    trees *t = w->t;
    uint32_t parent = tree_frame(t, left)->parent;
    node *n = tree_node(t, parent);
    unsigned right_slot = node_slot_of_frame(n, right);
    page_ref right_ref = node_child(n, t->page_size, right_slot);
    RW_ASSERT(tree_frame(t, right)->parent == parent && node_slot_of_frame(n, left) + 1 == right_slot);
    if (!node_fits(n, t->page_size, w->plan.separator_length, sizeof(page_ref))) return false;
    frame_change_begin(tree_frame(t, left));
    frame_change_begin(tree_frame(t, right));
    frame_change_begin(tree_frame(t, parent));
    node_balance_apply(tree_node(t, left), tree_node(t, right), t->page_size, &w->plan, w->scratch);
    node_remove(n, t->page_size, right_slot);
    node_insert(n, t->page_size, right_slot, rw_slice_of(w->plan.separator, w->plan.separator_length), tree_ref_value(&right_ref), 0);
    tree_frame(t, left)->flags |= FRAME_RESHAPED;
    tree_frame(t, right)->flags |= FRAME_RESHAPED;
    frame_change_end(tree_frame(t, parent));
    frame_change_end(tree_frame(t, right));
    frame_change_end(tree_frame(t, left));
    pool_mark_dirty(&t->pool, p, left);
    pool_mark_dirty(&t->pool, p, right);
    return true;
}

/* Evens out two leaves that stand in the parent's slots right_slot - 1 and right_slot. false, nothing changed: it would make too little room. */
static bool pair_balance(tree_writer *w, partition *p, uint32_t parent, unsigned right_slot, size_t incoming_bytes)
{
    trees *t = w->t;
    const node *n = tree_node(t, parent);
    page_ref left_ref = node_child(n, t->page_size, right_slot - 1), right_ref = node_child(n, t->page_size, right_slot);
    if (!page_ref_is_frame(left_ref) || !page_ref_is_frame(right_ref)) return false;
    uint32_t left = page_ref_frame(left_ref), right = page_ref_frame(right_ref);
    return node_balance_plan(tree_node(t, left), tree_node(t, right), t->page_size, incoming_bytes, &w->plan) && tree_pair_move(w, p, left, right);
}

/* Moves records of a full leaf to a neighbour that has room: pages stay fuller than splits alone would leave them (with random inserts 79% instead
 * of 70%). Both are to have some room afterwards, or the next inserts would do it again. */
static bool leaf_balance(tree_writer *w, partition *p, uint32_t f, size_t incoming_bytes)
{
    trees *t = w->t;
    uint32_t parent = tree_frame(t, f)->parent;
    if (w->t->recovering || parent == FRAME_NONE) return false;
    const node *n = tree_node(t, parent);
    unsigned slot = node_slot_of_frame(n, f);
    size_t room = incoming_bytes + node_capacity(t->page_size) / BALANCE_ROOM_DIVISOR;
    return (slot + 1u < n->count && pair_balance(w, p, parent, slot + 1, room)) || (slot > 0 && pair_balance(w, p, parent, slot, room));
}

int tree_make_room(tree_writer *w, partition *p, rw_slice key, size_t value_length, tree_position *at, tree_miss *miss)
{
    for (;;) {
        int state = tree_find_again(w->t, p, key, at, miss);
        if (state != 0) return state;
        if (tree_has_room(w->t, at, key, value_length)) return 0;
        if (leaf_balance(w, p, at->leaf, key.size + value_length + sizeof(node_slot))) continue;
        state = split(w, p, at->leaf, key);
        if (state != 0) return state;
    }
}

unsigned tree_height(trees *t, const partition *p)
{
    return tree_frame(t, tree_root(p))->level + 1u;
}
