/* Frames as pages of a tree: on the way down to one, taken, given up, moved elsewhere. */
#include "btree/trees.h"
#include "btree/trees_internal.h"

int tree_descend(trees *t, partition *p, rw_slice key, unsigned level, uint32_t *out, tree_miss *miss)
{
    uint32_t f = tree_root(p);
    while (tree_frame(t, f)->level > level) {
        const node *n = tree_node(t, f);
        page_ref ref = node_child(n, t->page_size, node_child_slot(n, t->page_size, key));
        frame_use(tree_frame(t, f));
        if (!page_ref_is_frame(ref)) {
            RW_ASSERT(!page_ref_is_none(ref));
            *miss = (tree_miss){.ref = ref, .level = tree_frame(t, f)->level - 1u};
            return TREE_MISS;
        }
        f = page_ref_frame(ref);
        tree_page_prefetch(tree_node(t, f));
    }
    frame_use(tree_frame(t, f));
    *out = f;
    return 0;
}

int tree_leaf_named(trees *t, partition *p, rw_slice key, page_ref *leaf, tree_miss *miss)
{
    uint32_t f = tree_root(p);
    if (tree_frame(t, f)->level > 0) {
        int state = tree_descend(t, p, key, 1, &f, miss);
        if (state != 0) return state;
        const node *n = tree_node(t, f);
        *leaf = node_child(n, t->page_size, node_child_slot(n, t->page_size, key));
    } else *leaf = tree_ref_of_frame(f);
    return 0;
}

void tree_frame_install(trees *t, partition *p, uint32_t f, unsigned level, uint32_t parent, page_ref disk)
{
    frame *fr = tree_frame(t, f);
    RW_ASSERT(fr->flags == 0 && fr->resident_children == 0);
    fr->level = (uint8_t)level;
    fr->parent = parent;
    fr->disk = disk;
    if (parent != FRAME_NONE) tree_frame(t, parent)->resident_children++;
    atomic_store_explicit(&fr->cool, 0, memory_order_relaxed);
    atomic_store_explicit(&fr->partition, p->index, memory_order_release);
    frame_change_end(fr);
}

void tree_frame_drop(trees *t, partition *p, uint32_t f)
{
    frame *fr = tree_frame(t, f);
    RW_ASSERT(fr->resident_children == 0);
    pool_mark_clean(&t->pool, p, f);
    if (fr->level == 0 && !page_ref_is_none(fr->disk)) filters_drop(&t->filters, fr->disk);
    if (!page_ref_is_none(fr->disk)) store_retire(&p->retired, page_ref_address(fr->disk), page_ref_blocks(fr->disk));
    if (fr->parent != FRAME_NONE) tree_frame(t, fr->parent)->resident_children--;
    pool_frame_free(&t->pool, f);
    if (p->pages > 1) p->pages--; /* it was a guess to begin with */
}

uint32_t tree_children_adopt(trees *t, uint32_t f)
{
    const node *n = tree_node(t, f);
    uint32_t resident = 0;
    if (tree_frame(t, f)->level == 0) return 0;
    for (unsigned i = 0; i < n->count; i++) {
        page_ref ref = node_child(n, t->page_size, i);
        if (!page_ref_is_frame(ref)) continue;
        tree_frame(t, page_ref_frame(ref))->parent = f;
        resident++;
    }
    return resident;
}

void tree_root_set(partition *p, uint32_t f)
{
    atomic_store_explicit(&p->root, f, memory_order_release);
}

int tree_move(trees *t, partition *p, rw_slice lower, unsigned level, uint64_t address, tree_miss *miss)
{
    uint32_t f;
    if (tree_frame(t, tree_root(p))->level < level) return 0;
    int state = tree_descend(t, p, lower, level, &f, miss);
    if (state == TREE_MISS && miss->level == level && page_ref_address(miss->ref) != address) return 0;
    if (state != 0) return state;
    if (page_ref_address(tree_frame(t, f)->disk) == address) pool_mark_dirty(&t->pool, p, f);
    return 0;
}
