/*
 * Walks over leaves: copies for cursors, one neighbour after the other. The next one is noted, to be fetched from memory while this one is looked at; those that are missing are read side by side, as many as walks have
 * wanted lately.
 */
#include "base/memory.h"
#include "base/planted.h"
#include "btree/trees.h"
#include "btree/trees_internal.h"

#define RUN_FRAMES_SHARE 64u           /* of the frames, at most, for the leaves of a run */
#define RUN_SECOND 4u                  /* leaves, when a walk goes beyond those that were read first; twice as many each time after that */
#define WALK_LENGTH_PARTS 256u
#define WALK_LENGTH_SHARE 8u           /* of a new walk's length in that of all */
#define WALK_LENGTH_UP 192u            /* parts: from a quarter of a leaf more on it is rounded up */

void trees_walk_end(trees *t, trees_mark *mark)
{
    if (mark->runs > 0) {
        _Atomic uint32_t *lengths = &t->walk_length[mark->side];
        int32_t length = (int32_t)(RW_MIN(mark->leaves, LEAF_RUN_MAX) * WALK_LENGTH_PARTS), known = (int32_t)atomic_load_explicit(lengths, memory_order_relaxed);
        atomic_store_explicit(lengths, (uint32_t)(known + (length - known) / (int32_t)WALK_LENGTH_SHARE), memory_order_relaxed);
    }
    *mark = (trees_mark){0};
}

/* A leaf at that place is asked for: if it is not the next one of the walk, another walk begins. So does one that turns round. */
static void walk_step(trees *t, trees_mark *walk, trees_side side, uint32_t parent, unsigned slot)
{
    bool goes_on = walk->side == side && walk->parent == parent + 1 && slot == (side == TREES_COVERING ? walk->slot + 1 : walk->slot - 1);
    bool was_read = walk->side == side && walk->parent == 0 && walk->runs > 0; /* for this walk, of which it is the first leaf */
    if (goes_on || was_read) return;
    trees_walk_end(t, walk);
    walk->side = side;
}

/* How many leaves to read where one is missing. */
static unsigned run_length(const trees *t, const trees_mark *walk)
{
    unsigned most = RW_MIN(RW_MIN(LEAF_RUN_BYTES / t->page_size, LEAF_RUN_MAX), t->pool.frame_count / RUN_FRAMES_SHARE);
    unsigned wanted = walk->runs == 0 ? (atomic_load_explicit(&t->walk_length[walk->side], memory_order_relaxed) + WALK_LENGTH_UP) / WALK_LENGTH_PARTS
                                      : RUN_SECOND << RW_MIN(walk->runs - 1, 4u);
    return RW_MAX(RW_MIN(wanted, most), 1u);
}

/* The leaf that is missing, and what is missing of those behind it on the way of the walk, below the same parent. at: that; 0: it has changed. */
RW_RACY static unsigned run_gather(const trees *t, trees_side side, const leaf_seen *at, unsigned slot, unsigned length, tree_miss *run)
{
    const node *n = pool_page(&t->pool, at->frame);
    unsigned slots = node_count_bounded(n, t->page_size), count = 0;
    for (unsigned i = 0; i < length && slot < slots; i++, slot += side == TREES_COVERING ? 1u : -1u) {
        page_ref ref = node_child(n, t->page_size, slot);
        if (!page_ref_is_frame(ref) && !page_ref_is_none(ref)) run[count++] = (tree_miss){.ref = ref};
    }
    return frame_unchanged(&t->pool.frames[at->frame], at->version) ? count : 0;
}

/* Reads the leaf that is missing below at, and others with it. False: it has to be read alone. */
RW_RACY static bool run_read(trees *t, rw_slice key, trees_side side, const leaf_seen *at, trees_mark *walk)
{
    tree_miss run[LEAF_RUN_MAX];
    const node *n = pool_page(&t->pool, at->frame);
    unsigned slot = side == TREES_COVERING ? node_child_slot(n, t->page_size, key) : node_child_slot_before(n, t->page_size, key);
    walk_step(t, walk, side, at->frame, slot);
    unsigned length = run_length(t, walk);
    walk->runs++;
    unsigned count = length > 1 ? run_gather(t, side, at, slot, length, run) : 1;
    if (count > 1) tree_load_run(t, run, count);
    return count > 1;
}

/* Notes the leaf that a walk over leaves will want next. Whatever it is by now, it is only looked at. */
RW_RACY static void neighbour_note(const trees *t, trees_side side, trees_mark *mark)
{
    mark->next = 0;
    if (mark->parent == 0 || (side == TREES_BEFORE && mark->slot == 0)) return;
    unsigned slot = side == TREES_COVERING ? mark->slot + 1 : mark->slot - 1;
    page_ref ref = node_child(pool_page(&t->pool, mark->parent - 1), t->page_size, slot);
    if (!page_ref_is_frame(ref) || page_ref_frame(ref) >= t->pool.frame_count) return;
    mark->next = page_ref_frame(ref) + 1;
    __builtin_prefetch(&t->pool.frames[page_ref_frame(ref)]);
}

const char *trees_walk_ahead(const trees *t, const trees_mark *mark)
{
    return mark->next != 0 ? pool_page(&t->pool, mark->next - 1) : NULL;
}

/* The neighbour of the copy before, if it is what is wanted: a leaf whose fences enclose key answers for it (T10). */
RW_RACY static bool neighbour_copy(trees *t, rw_slice key, trees_side side, node *page, trees_mark *mark)
{
    if (mark->next == 0) return false;
    uint32_t f = mark->next - 1;
    frame *fr = &t->pool.frames[f];
    const node *n = pool_page(&t->pool, f);
    uint64_t version = frame_version(fr);
    if ((version & 1) != 0 || rw_racy_u8(&fr->level) != 0) return false;
    bool holds = side == TREES_COVERING ? node_covers(n, t->page_size, key) : node_covers_below(n, t->page_size, key);
    if (!holds && !RW_PLANTED(trust_neighbour)) return false;
    frame_use(fr);
    tree_page_copy(t, f, page);
    if (!frame_unchanged(fr, version)) return false;
    *mark = (trees_mark){.frame = f, .version = version, .parent = mark->parent, .slot = side == TREES_COVERING ? mark->slot + 1 : mark->slot - 1, .side = side,
                          .leaves = mark->leaves + 1, .runs = mark->runs};
    return true;
}

/* A leaf that is not where the walk expected it, or where no walk is. */
static int leaf_copy(trees *t, rw_slice key, trees_side side, node *page, trees_mark *mark, tree_miss *asked)
{
    page_ref suspect = page_ref_none();
    unsigned restarts = 0;
    bool alone = mark == NULL;
    for (;;) {
        leaf_seen at;
        tree_miss miss;
        int state = tree_leaf_find(t, key, side, &at, &restarts, asked != NULL ? asked : &miss);
        if (state == 0) {
            tree_page_copy(t, at.frame, page);
            if (!frame_unchanged(&t->pool.frames[at.frame], at.version)) {
                tree_restart_wait(t, &restarts);
                continue;
            }
            if (mark == NULL) return 0;
            walk_step(t, mark, side, at.parent, at.parent_slot);
            *mark = (trees_mark){.frame = at.frame, .version = at.version, .parent = at.parent + 1, .slot = at.parent_slot, .side = side, .leaves = mark->leaves + 1, .runs = mark->runs};
            return 0;
        }
        if (state != TREE_MISS || asked != NULL) return state;
        bool leaf = miss.level == 0 && !alone;
        alone = alone || leaf; /* what is missing after that is read alone: it tells what is wrong with it */
        if (leaf && run_read(t, key, side, &at, mark)) continue;
        int error = trees_load(t, &miss, &suspect);
        if (error != 0) return error;
    }
}

int trees_copy_leaf(trees *t, rw_slice key, trees_side side, node *page, trees_mark *mark, tree_miss *miss)
{
    int state = mark != NULL && neighbour_copy(t, key, side, page, mark) ? 0 : leaf_copy(t, key, side, page, mark, miss);
    if (state == 0 && mark != NULL) neighbour_note(t, side, mark);
    return state;
}
