/*
 * The check of what is resident of a tree, for tests: nodes, their places in the tree, and what buffer/ keeps of them. Under the partition's
 * token.
 */
#include "btree/trees.h"
#include "btree/trees_internal.h"

typedef struct {
    trees *t;
    partition *p;
    uint32_t frames;                       /* met in the tree */
    uint32_t dirty[TREE_LEVELS_MAX];       /* dirty ones, by level */
    unsigned char *keys;                   /* for each level, room for the two bounds of a child; behind them, for those of the partition */
} resident_check;

static unsigned char *key_room(const resident_check *c, unsigned level, unsigned which)
{
    return c->keys + ((size_t)level * 2 + which) * c->t->router.key_stride;
}

static int wrong(const resident_check *c, uint32_t f, const char *what)
{
    const frame *fr = tree_frame(c->t, f);
    return rw_error(RW_ECORRUPT, "partition %u, frame %u, level %u, flags %#x: %s", c->p->id, f, fr->level, fr->flags, what);
}

/* ---- one page ---------------------------------------------------------------------------------------------------- */

static int check_frame(const resident_check *c, uint32_t f, unsigned level, uint32_t parent)
{
    const frame *fr = tree_frame(c->t, f);
    if ((atomic_load(&fr->version) & 1) != 0) return wrong(c, f, "its version is odd, and nobody changes it");
    if (atomic_load(&fr->partition) != c->p->index) return wrong(c, f, "it belongs to another partition");
    if (fr->level != level || tree_node(c->t, f)->page.level != level) return wrong(c, f, "it is not of the level at which it stands");
    if (fr->parent != parent) return wrong(c, f, "the frame that names it is not its parent");
    return 0;
}

/* Never written, or its key range changed: it must be written before its parent is. */
static bool written_with_parent(const frame *fr)
{
    return page_ref_is_none(fr->disk) || (fr->flags & FRAME_RESHAPED) != 0;
}

static int check_flags(const resident_check *c, uint32_t f)
{
    const frame *fr = tree_frame(c->t, f);
    bool dirty = (fr->flags & FRAME_DIRTY) != 0;
    if (page_ref_is_none(fr->disk) && !dirty) return wrong(c, f, "it was never written, and is not dirty");
    if ((fr->flags & FRAME_RESHAPED) != 0 && !dirty) return wrong(c, f, "its key range changed, and it is not dirty");
    if (page_ref_is_none(fr->disk) && (fr->flags & FRAME_WRITING) != 0) return wrong(c, f, "it is being written to nowhere");
    if (dirty && fr->dirty_epoch > c->p->epoch) return wrong(c, f, "it became dirty in an epoch to come");
    if (page_ref_is_frame(fr->disk)) return wrong(c, f, "its own reference names a frame");
    return 0;
}

/* Rule B3. A parent that goes to the file with its own parent's image may have become dirty later than its child. */
static int check_dirty_above(const resident_check *c, uint32_t f)
{
    const frame *fr = tree_frame(c->t, f), *parent;
    if ((fr->flags & FRAME_DIRTY) == 0 || fr->parent == FRAME_NONE) return 0;
    parent = tree_frame(c->t, fr->parent);
    if ((parent->flags & FRAME_DIRTY) == 0) return wrong(c, f, "it is dirty, its parent is not");
    if (parent->dirty_epoch > fr->dirty_epoch && !written_with_parent(parent)) return wrong(c, f, "its parent became dirty in a later epoch");
    return 0;
}

static int check_node(const resident_check *c, uint32_t f, rw_slice low, rw_slice high)
{
    const node *n = tree_node(c->t, f);
    int error = node_check(n, c->t->page_size, true);
    if (error != 0) return rw_error_prefix(error, "partition %u, frame %u, level %u", c->p->id, f, tree_frame(c->t, f)->level);
    if (!rw_slice_equal(node_lower_fence(n), low)) return wrong(c, f, "its lower fence is not the bound that its parent has for it");
    if (!rw_slice_equal(node_upper_fence(n), high)) return wrong(c, f, "its upper fence is not the bound that its parent has for it");
    return 0;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static rw_slice bound_copy(const node *n, unsigned slot, rw_slice fence, unsigned char *to)
{
    if (slot > 0 && slot < n->count) {
        node_key_copy(n, slot, to);
        return rw_slice_of(to, node_key_length(n, slot));
    }
    if (fence.size > 0) memcpy(to, fence.data, fence.size);
    return rw_slice_of(to, fence.size);
}

static int walk(resident_check *c, uint32_t f, unsigned level, uint32_t parent, rw_slice low, rw_slice high);

static int walk_children(resident_check *c, uint32_t f, unsigned level)
{
    const node *n = tree_node(c->t, f);
    uint32_t resident = 0;
    for (unsigned i = 0; i < n->count; i++) {
        page_ref ref = node_child(n, c->t->page_size, i);
        if (!page_ref_is_frame(ref)) {
            if (page_ref_blocks(ref) != c->t->pool.page_blocks) return wrong(c, f, "it names a page of another size than pages have");
            continue;
        }
        if (page_ref_frame(ref) >= c->t->pool.frame_count) return wrong(c, f, "it names a frame that there is not");
        resident++;
        rw_slice low = bound_copy(n, i, node_lower_fence(n), key_room(c, level, 0));
        rw_slice high = bound_copy(n, i + 1, node_upper_fence(n), key_room(c, level, 1));
        int error = walk(c, page_ref_frame(ref), level - 1, f, low, high);
        if (error != 0) return error;
    }
    return resident == tree_frame(c->t, f)->resident_children ? 0 : wrong(c, f, "its count of resident children is not theirs");
}

static int walk(resident_check *c, uint32_t f, unsigned level, uint32_t parent, rw_slice low, rw_slice high)
{
    int error = check_frame(c, f, level, parent);
    if (error == 0) error = check_flags(c, f);
    if (error == 0) error = check_dirty_above(c, f);
    if (error == 0) error = check_node(c, f, low, high);
    if (error != 0) return error;
    c->frames++;
    c->dirty[level] += (tree_frame(c->t, f)->flags & FRAME_DIRTY) != 0;
    return level > 0 ? walk_children(c, f, level) : 0;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* One level's dirty list: members, links, order. *count: how many there are. */
static int check_list(const resident_check *c, unsigned level, uint32_t *count)
{
    const dirty_list *list = &c->p->dirty[level];
    uint32_t previous = FRAME_NONE;
    *count = 0;
    for (uint32_t f = list->head; f != FRAME_NONE; f = tree_frame(c->t, f)->dirty_next) {
        const frame *fr = tree_frame(c->t, f);
        if (fr->dirty_previous != previous) return wrong(c, f, "it stands in the dirty list with a wrong link back");
        if ((fr->flags & FRAME_DIRTY) == 0 || fr->level != level || atomic_load(&fr->partition) != c->p->index)
            return wrong(c, f, "it stands in a dirty list that is not its own");
        if (previous != FRAME_NONE && tree_frame(c->t, previous)->dirty_epoch > fr->dirty_epoch)
            return wrong(c, f, "it stands in the dirty list behind a page of a later epoch");
        if (++*count > c->t->pool.frame_count) return wrong(c, f, "the dirty list has no end");
        previous = f;
    }
    return list->tail == previous ? 0 : rw_error(RW_ECORRUPT, "partition %u: the tail of the dirty list of level %u is wrong", c->p->id, level);
}

static int check_lists(const resident_check *c)
{
    uint32_t sum = 0;
    for (unsigned level = 0; level < TREE_LEVELS_MAX; level++) {
        uint32_t count;
        int error = check_list(c, level, &count);
        if (error != 0) return error;
        if (count != c->dirty[level])
            return rw_error(RW_ECORRUPT, "partition %u: %u dirty pages of level %u in the tree, %u in the list", c->p->id, c->dirty[level], level, count);
        sum += count;
    }
    return sum == c->p->dirty_count ? 0 : rw_error(RW_ECORRUPT, "partition %u: %u dirty pages, counted as %u", c->p->id, sum, c->p->dirty_count);
}

/* Frames that say that they are the partition's, but that its tree does not name. */
static int check_strays(const resident_check *c)
{
    uint32_t frames = 0;
    for (uint32_t f = 0; f < c->t->pool.frame_count; f++) frames += atomic_load(&tree_frame(c->t, f)->partition) == c->p->index;
    return frames == c->frames ? 0 : rw_error(RW_ECORRUPT, "partition %u: %u frames, of which %u are in its tree", c->p->id, frames, c->frames);
}

int tree_check_resident(trees *t, partition *p)
{
    resident_check c = {.t = t, .p = p};
    rw_slice low, high;
    uint32_t root = tree_root(p);
    unsigned level = tree_frame(t, root)->level;
    if (level >= TREE_LEVELS_MAX) return rw_error(RW_ECORRUPT, "partition %u: its root says level %u", p->id, level);
    c.keys = malloc((size_t)(TREE_LEVELS_MAX + 1) * 2 * t->router.key_stride);
    if (c.keys == NULL) return rw_error(RW_ENOMEM, "no memory to check a tree");
    router_bounds(t->kio, &t->router, p->index, key_room(&c, TREE_LEVELS_MAX, 0), &low, key_room(&c, TREE_LEVELS_MAX, 1), &high);
    int error = walk(&c, root, level, FRAME_NONE, low, high);
    if (error == 0) error = check_lists(&c);
    if (error == 0) error = check_strays(&c);
    free(c.keys);
    return error;
}
