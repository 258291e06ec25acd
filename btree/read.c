/* Optimistic reads: descend without a token, validate, begin again when something moved (rules T1 to T3). */
#include "base/planted.h"
#include "btree/trees.h"
#include "btree/trees_internal.h"

#define RESTARTS_BEFORE_YIELD 16

typedef enum { DESCENT_LEAF, DESCENT_MISS, DESCENT_RESTART } descent;

typedef struct {
    uint32_t frame;
    uint64_t version;
} leaf_seen;

/* The first lines of a page are needed at once: fetch them side by side. */
static inline void page_prefetch(const node *n)
{
    const char *bytes = (const char *)n;
    __builtin_prefetch(bytes + 64);
    __builtin_prefetch(bytes + 128);
    __builtin_prefetch(bytes + 192);
    __builtin_prefetch(bytes + 256);
    __builtin_prefetch(bytes + 320);
    __builtin_prefetch(bytes + 384);
}

/* The partition's root, with a version that was good while the router and the partition named it. */
RW_RACY static inline bool root_find(trees *t, rw_slice key, trees_side side, leaf_seen *at)
{
    uint64_t version = router_version(&t->router);
    if ((version & 1) != 0) return false;
    uint16_t index = side == TREES_COVERING ? router_find(&t->router, key) : router_find_before(&t->router, key);
    partition *p = &t->partitions[index];
    uint32_t root = atomic_load_explicit(&p->root, memory_order_acquire);
    if (root >= t->pool.frame_count) return false;
    at->frame = root;
    at->version = frame_version(&t->pool.frames[root]);
    return (at->version & 1) == 0 && atomic_load_explicit(&p->root, memory_order_acquire) == root &&
           router_unchanged(&t->router, version);
}

/* From a root to the leaf. Each step: the child's version is taken while its parent is known not to have changed. */
RW_RACY static descent descend(trees *t, rw_slice key, trees_side side, leaf_seen *at, tree_miss *miss)
{
    if (!root_find(t, key, side, at)) return DESCENT_RESTART;
    for (;;) {
        frame *fr = &t->pool.frames[at->frame];
        const node *n = pool_page(&t->pool, at->frame);
        unsigned level = rw_racy_u8(&fr->level);
        frame_use(fr);
        if (level == 0) return DESCENT_LEAF;
        unsigned slot = side == TREES_COVERING ? node_child_slot(n, t->page_size, key) : node_child_slot_before(n, t->page_size, key);
        page_ref ref = node_child(n, t->page_size, slot);
        if (page_ref_is_frame(ref) && page_ref_frame(ref) < t->pool.frame_count) {
            uint32_t child = page_ref_frame(ref);
            page_prefetch(pool_page(&t->pool, child));
            uint64_t version = frame_version(&t->pool.frames[child]);
            if ((version & 1) != 0 || !frame_unchanged(fr, at->version)) return DESCENT_RESTART;
            *at = (leaf_seen){.frame = child, .version = version};
            continue;
        }
        if (!frame_unchanged(fr, at->version)) return DESCENT_RESTART;
        RW_ASSERT(!page_ref_is_frame(ref) && !page_ref_is_none(ref));
        *miss = (tree_miss){.ref = ref, .level = level - 1};
        return DESCENT_MISS;
    }
}

static void restart_wait(trees *t, unsigned *restarts)
{
    atomic_fetch_add_explicit(&t->restarts, 1, memory_order_relaxed);
    if (++*restarts >= RESTARTS_BEFORE_YIELD) {
        kio_yield(t->kio);
        *restarts = 0;
    } else rw_cpu_relax();
}

/* Descends until it stands on a leaf, reading what is missing; or, with asked, saying what is. */
static int leaf_find(trees *t, rw_slice key, trees_side side, leaf_seen *at, unsigned *restarts, tree_miss *asked)
{
    page_ref suspect = page_ref_none();
    for (;;) {
        tree_miss miss;
        descent found = descend(t, key, side, at, &miss);
        if (RW_LIKELY(found == DESCENT_LEAF)) return 0;
        if (found == DESCENT_RESTART) {
            restart_wait(t, restarts);
            continue;
        }
        if (asked != NULL) {
            *asked = miss;
            return TREE_MISS;
        }
        int error = trees_load(t, &miss, &suspect);
        if (error != 0) return error;
    }
}

/* Whether a hint leads to the leaf that covers key. */
RW_RACY static bool hinted_touch(trees *t, rw_slice key)
{
    hint h;
    if (!tree_hint_find(t, hints_hash(key), &h)) return false;
    frame *fr = &t->pool.frames[h.frame];
    const node *n = pool_page(&t->pool, h.frame);
    uint64_t version = frame_version(fr);
    if ((version & 1) != 0 || rw_racy_u8(&fr->level) != 0) return false;
    if (!node_slot_holds(n, t->page_size, h.slot, key) && !node_covers(n, t->page_size, key)) return false;
    frame_use(fr);
    return frame_unchanged(fr, version);
}

int trees_touch(trees *t, rw_slice key, tree_miss *miss)
{
    unsigned restarts = 0;
    leaf_seen at;
    if (hinted_touch(t, key)) return 0;
    return leaf_find(t, key, TREES_COVERING, &at, &restarts, miss);
}

/* What the leaf says of key; the value goes to buf when it fits room. Means something only if the version holds afterwards. The partition is read last: if a
 * commit that is still being applied wrote what was read, the leaf cannot have changed its partition since. */
RW_RACY static inline void leaf_read(trees *t, uint32_t leaf, unsigned slot, void *buf, size_t room, bool timestamp, tree_value *seen)
{
    unsigned flags = 0;
    const node *n = pool_page(&t->pool, leaf);
    if (timestamp) seen->timestamp = rw_racy_u64(&n->page.newest_timestamp);
    seen->is_extent = seen->fits = false;
    if (seen->found) {
        rw_slice value = node_value(n, t->page_size, slot, &flags);
        seen->found = value.data != NULL;
        seen->size = value.size;
        seen->is_extent = seen->found && (flags & NODE_SLOT_EXTENT) != 0;
        if (RW_UNLIKELY(seen->is_extent)) rw_racy_copy(&seen->extent, value.data, RW_MIN(sizeof seen->extent, value.size));
        seen->fits = seen->found && !seen->is_extent && value.size <= room;
        if (seen->fits && value.size > 0) rw_racy_copy(buf, value.data, value.size);
    }
    atomic_thread_fence(memory_order_acquire);
    seen->partition = atomic_load_explicit(&t->pool.frames[leaf].partition, memory_order_relaxed);
}

/* What a hint leads to. Its leaf may have changed since, and then still be the one that covers key. */
RW_RACY static inline bool hinted_read(trees *t, rw_slice key, uint64_t hash, void *buf, size_t room, bool timestamp, tree_value *seen)
{
    hint h;
    if (!tree_hint_find(t, hash, &h)) return false;
    frame *fr = &t->pool.frames[h.frame];
    const node *n = pool_page(&t->pool, h.frame);
    uint64_t version = frame_version(fr);
    if (((version & 1) != 0 && !RW_PLANTED(hint_of_freed_page)) || rw_racy_u8(&fr->level) != 0) return false;
    seen->found = node_slot_holds(n, t->page_size, h.slot, key) || RW_PLANTED(trust_hint);
    if (RW_UNLIKELY(!seen->found)) {
        if (!node_covers(n, t->page_size, key)) return false;
        h.slot = node_lower_bound(n, t->page_size, key, &seen->found);
        if (seen->found) tree_hint_note(t, hash, h.frame, h.slot);
    }
    frame_use(fr);
    leaf_read(t, h.frame, h.slot, buf, room, timestamp, seen);
    return frame_unchanged(fr, version);
}

int trees_get(trees *t, rw_slice key, void *buf, size_t room, bool timestamp, tree_value *seen, tree_miss *miss)
{
    unsigned restarts = 0;
    uint64_t hash = hints_hash(key);
    if (RW_LIKELY(hinted_read(t, key, hash, buf, room, timestamp, seen))) return 0;
    for (;;) {
        leaf_seen at;
        int error = leaf_find(t, key, TREES_COVERING, &at, &restarts, miss);
        if (error != 0) return error;
        unsigned slot = node_lower_bound(pool_page(&t->pool, at.frame), t->page_size, key, &seen->found);
        if (seen->found) tree_hint_note(t, hash, at.frame, slot);
        leaf_read(t, at.frame, slot, buf, room, timestamp, seen);
        if (RW_LIKELY(frame_unchanged(&t->pool.frames[at.frame], at.version))) return 0;
        restart_wait(t, &restarts);
    }
}

void trees_get_ahead(trees *t, rw_slice key, trees_ahead step)
{
    trees_get_ahead_hashed(t, hints_hash(key), step);
}

void trees_get_ahead_hashed(trees *t, uint64_t hash, trees_ahead step)
{
    hint h;
    if (step == TREES_AHEAD_HINT) hints_prefetch(&t->hints, hash);
    else if (tree_hint_find(t, hash, &h) && step == TREES_AHEAD_CHANGE) __builtin_prefetch(&tree_node(t, h.frame)->page.newest_timestamp);
}

RW_RACY static void page_copy(trees *t, uint32_t f, node *to)
{
    rw_racy_copy(to, pool_page(&t->pool, f), t->page_size);
}

int trees_copy_leaf(trees *t, rw_slice key, trees_side side, node *page, trees_mark *mark, tree_miss *miss)
{
    unsigned restarts = 0;
    for (;;) {
        leaf_seen at;
        int error = leaf_find(t, key, side, &at, &restarts, miss);
        if (error != 0) return error;
        page_copy(t, at.frame, page);
        if (mark != NULL) *mark = (trees_mark){.frame = at.frame, .version = at.version};
        if (frame_unchanged(&t->pool.frames[at.frame], at.version)) return 0;
        restart_wait(t, &restarts);
    }
}
