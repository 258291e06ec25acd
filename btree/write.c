/* Changes to one leaf, under its partition's token. Structure is changed elsewhere (split.c, merge.c): here there is room. */
#include "btree/trees.h"
#include "btree/trees_internal.h"

/* Under the token: a frame of the partition stays what it is. */
static bool hinted_find(trees *t, const partition *p, rw_slice key, uint64_t hash, tree_position *at)
{
    hint h;
    if (!tree_hint_find(t, hash, &h)) return false;
    frame *fr = tree_frame(t, h.frame);
    const node *n = tree_node(t, h.frame);
    __builtin_prefetch(&n->page.newest_timestamp, 1);
    if (atomic_load_explicit(&fr->partition, memory_order_acquire) != p->index || fr->level != 0) return false;
    RW_ASSERT((frame_version(fr) & 1) == 0);
    at->found = node_slot_holds(n, t->page_size, h.slot, key);
    at->hinted = at->found && n->slots[h.slot].offset / HINT_UNIT * HINT_UNIT == h.offset;
    if (!at->found) {
        if (!node_covers(n, t->page_size, key)) return false;
        h.slot = node_lower_bound(n, t->page_size, key, &at->found);
    }
    at->leaf = h.frame;
    at->slot = h.slot;
    frame_use(fr);
    return true;
}

int tree_find_hashed(trees *t, partition *p, rw_slice key, uint64_t hash, tree_position *at, tree_miss *miss)
{
    if (!hinted_find(t, p, key, hash, at)) {
        int state = tree_descend(t, p, key, 0, &at->leaf, miss);
        if (state != 0) return state;
        at->slot = node_lower_bound(tree_node(t, at->leaf), t->page_size, key, &at->found);
        at->hinted = false;
    }
    at->hash = hash;
    at->version = frame_version(tree_frame(t, at->leaf));
    return 0;
}

int tree_find(trees *t, partition *p, rw_slice key, tree_position *at, tree_miss *miss)
{
    return tree_find_hashed(t, p, key, hints_hash(key), at, miss);
}

/* What the token and the version say of a hinted leaf (T10, T11) they say of one that was found before, too. */
bool tree_found_before(trees *t, const partition *p, rw_slice key, tree_position *at)
{
    const frame *fr = tree_frame(t, at->leaf);
    const node *n = tree_node(t, at->leaf);
    if (atomic_load_explicit(&fr->partition, memory_order_acquire) != p->index || fr->level != 0) return false;
    uint64_t version = frame_version(fr);
    if (RW_LIKELY(at->version == version)) return true;
    RW_ASSERT((version & 1) == 0);
    if (!node_covers(n, t->page_size, key)) return false;
    at->slot = node_lower_bound(n, t->page_size, key, &at->found);
    at->hinted = false;
    at->version = version;
    return true;
}

bool tree_denies(trees *t, const partition *p, rw_slice key, const tree_miss *miss)
{
    uint64_t hash = hints_hash(key);
    filters_want(&t->filters);
    if (pending_find(&t->pending, p, miss->ref) != NULL || pending_may_be_spilled(&t->pending, p, miss->ref, hash)) return false;
    if (miss->level != 0 || filters_ask(&t->filters, miss->ref, hash) != FILTER_ABSENT) return false;
    filters_count_absent(&t->filters, hash);
    return true;
}

bool tree_has_room(trees *t, const tree_position *at, rw_slice key, size_t value_length)
{
    const node *n = tree_node(t, at->leaf);
    if (at->found) return node_fits_update(n, t->page_size, at->slot, value_length);
    return node_fits(n, t->page_size, key.size, value_length);
}

size_t tree_growth(trees *t, const tree_position *at, rw_slice key, size_t value_length)
{
    const node *n = tree_node(t, at->leaf);
    if (!at->found) return sizeof(node_slot) + key.size - RW_MIN(key.size, (size_t)n->prefix_length) + value_length;
    size_t present = n->slots[at->slot].value_length;
    return value_length > present ? value_length - present : 0;
}

size_t tree_room(trees *t, uint32_t leaf)
{
    const node *n = tree_node(t, leaf);
    return node_capacity(t->page_size) - node_used(n, t->page_size);
}

static void extent_retire(partition *p, rw_slice key, extent_ref extent)
{
    store_retire(&p->extents, extent.address, extent_blocks((uint32_t)key.size, extent.length));
}

bool tree_extent_at(trees *t, const tree_position *at, extent_ref *extent)
{
    unsigned flags = 0;
    RW_ASSERT(at->found);
    rw_slice value = node_value(tree_node(t, at->leaf), t->page_size, at->slot, &flags);
    if ((flags & NODE_SLOT_EXTENT) == 0) return false;
    RW_ASSERT(value.size == sizeof *extent);
    memcpy(extent, value.data, sizeof *extent);
    return true;
}

static void leaf_stamp(node *n, uint64_t timestamp)
{
    if (n->page.newest_timestamp < timestamp) n->page.newest_timestamp = timestamp;
}

rw_slice tree_value_at(trees *t, const tree_position *at, unsigned *flags)
{
    RW_ASSERT(at->found);
    return node_value(tree_node(t, at->leaf), t->page_size, at->slot, flags);
}

void tree_put_at(trees *t, partition *p, const tree_position *at, rw_slice key, rw_slice value, unsigned flags, uint64_t timestamp)
{
    frame *fr = tree_frame(t, at->leaf);
    node *n = tree_node(t, at->leaf);
    extent_ref old;
    RW_ASSERT(fr->level == 0);
    if (at->found && (flags & TREE_KEEP_EXTENT) == 0 && tree_extent_at(t, at, &old)) extent_retire(p, key, old);
    flags &= ~TREE_KEEP_EXTENT;
    bool hinted = at->hinted && at->found;
    uint16_t place = hinted ? n->slots[at->slot].offset : 0;
    if (!at->found) key_filter_note(&t->key_filter, at->hash);
    frame_change_begin(fr);
    if (at->found) node_update(n, t->page_size, at->slot, value, flags);
    else node_insert(n, t->page_size, at->slot, key, value, flags);
    p->grown += !at->found;
    leaf_stamp(n, timestamp);
    frame_change_end(fr);
    pool_mark_dirty(&t->pool, p, at->leaf);
    if (!hinted || n->slots[at->slot].offset != place) tree_hint_note(t, at->hash, at->leaf, at->slot);
}

void tree_delete_at(trees *t, partition *p, const tree_position *at, rw_slice key, unsigned flags, uint64_t timestamp)
{
    frame *fr = tree_frame(t, at->leaf);
    node *n = tree_node(t, at->leaf);
    extent_ref old;
    RW_ASSERT(at->found && fr->level == 0);
    if ((flags & TREE_KEEP_EXTENT) == 0 && tree_extent_at(t, at, &old)) extent_retire(p, key, old);
    frame_change_begin(fr);
    node_remove(n, t->page_size, at->slot);
    leaf_stamp(n, timestamp);
    frame_change_end(fr);
    pool_mark_dirty(&t->pool, p, at->leaf);
}

uint64_t tree_leaf_timestamp(trees *t, uint32_t leaf)
{
    return tree_node(t, leaf)->page.newest_timestamp;
}

/* Tells of each record that goes, and retires the extents that they name. */
static void leaf_records_leave(trees *t, partition *p, const node *n, unsigned first, unsigned end, const tree_range_walk *walk)
{
    for (unsigned i = first; i < end; i++) {
        unsigned flags = 0;
        rw_slice value = node_value(n, t->page_size, i, &flags);
        if (walk->removed != NULL) {
            node_key_copy(n, i, walk->key);
            if (walk->removed(walk->arg, p, rw_slice_of(walk->key, node_key_length(n, i)), value, flags)) continue;
        }
        if ((flags & NODE_SLOT_EXTENT) == 0) continue;
        extent_ref extent;
        memcpy(&extent, value.data, sizeof extent);
        store_retire(&p->extents, extent.address, extent_blocks((uint32_t)node_key_length(n, i), extent.length));
    }
}

int tree_delete_in_leaf(trees *t, partition *p, rw_slice from, rw_slice to, uint64_t timestamp, tree_range_walk *walk, tree_miss *miss)
{
    tree_position at;
    int state = tree_find(t, p, from, &at, miss);
    if (state != 0) return state;
    node *n = tree_node(t, at.leaf);
    rw_slice upper = node_upper_fence(n);
    bool ignored;
    unsigned end = to.size == 0 ? n->count : node_lower_bound(n, t->page_size, to, &ignored);
    memcpy(walk->buffer, upper.size == 0 ? "" : upper.data, upper.size);
    walk->next = rw_slice_of(walk->buffer, upper.size);
    if (end <= at.slot || n->page.newest_timestamp >= timestamp) return 0;
    leaf_records_leave(t, p, n, at.slot, end, walk);
    frame_change_begin(tree_frame(t, at.leaf));
    node_remove_many(n, t->page_size, at.slot, end);
    leaf_stamp(n, timestamp);
    frame_change_end(tree_frame(t, at.leaf));
    pool_mark_dirty(&t->pool, p, at.leaf);
    return 0;
}

bool tree_wants_shrink(trees *t, uint32_t leaf)
{
    return tree_frame(t, leaf)->parent != FRAME_NONE && tree_node_sparse(t, tree_node(t, leaf));
}
