/* Optimistic reads: descend without a token, validate, begin again when something moved (rules T1 to T3). */
#include "base/memory.h"
#include "base/planted.h"
#include "base/preempt.h"
#include "btree/trees.h"
#include "btree/trees_internal.h"

#define RESTARTS_BEFORE_YIELD 16

typedef enum { DESCENT_LEAF, DESCENT_MISS, DESCENT_RESTART, DESCENT_DENIED, DESCENT_ANSWERED } descent;

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
    at->parent = FRAME_NONE;
    at->parent_slot = 0;
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
            tree_page_prefetch(pool_page(&t->pool, child));
            uint64_t version = frame_version(&t->pool.frames[child]);
            if ((version & 1) != 0 || !frame_unchanged(fr, at->version)) return DESCENT_RESTART;
            *at = (leaf_seen){.frame = child, .version = version, .parent = at->frame, .parent_slot = slot};
            continue;
        }
        if (!frame_unchanged(fr, at->version)) return DESCENT_RESTART;
        RW_ASSERT(!page_ref_is_frame(ref) && !page_ref_is_none(ref));
        *miss = (tree_miss){.ref = ref, .level = level - 1};
        return DESCENT_MISS;
    }
}

void tree_restart_wait(trees *t, unsigned *restarts)
{
    atomic_fetch_add_explicit(&t->restarts, 1, memory_order_relaxed);
    if (++*restarts >= RESTARTS_BEFORE_YIELD) {
        kio_yield(t->kio);
        *restarts = 0;
    } else rw_cpu_relax();
}

/* What a get asks before it has a missing leaf read. */
typedef struct {
    rw_slice key;
    uint64_t hash;             /* of the key */
    void *buf;                 /* for the value, of room bytes */
    size_t room;
    pending_value answer;      /* DESCENT_ANSWERED */
    uint16_t partition;        /* that the leaf belonged to, which something else answered for */
    bool newest;               /* the leaf need not stay */
    bool waits;                /* for reads, and so takes the answer at once, where others find it among the records later */
    bool spilled;              /* a spill may hold the key */
    bool doubted;              /* the last filter that was asked could not exclude the key */
} miss_use;

/* Whether the missing leaf, and its partition, are what they were: what stands for the leaf was right then. The partition is read last, as that of a leaf is. */
static bool miss_stands(trees *t, const leaf_seen *at, miss_use *use)
{
    frame *fr = &t->pool.frames[at->frame];
    RW_PREEMPT(t->kio);
    atomic_thread_fence(memory_order_acquire);
    use->partition = atomic_load_explicit(&fr->partition, memory_order_relaxed);
    return frame_unchanged(fr, at->version);
}

/* Asks what waits for a leaf that is missing, whose parent at stands on; DESCENT_MISS: it says nothing of the key. While a partition is cut both
 * sets are latched: who looked in the old one too late finds the frame in the new partition afterwards, who looks in the new one early waits. */
static descent miss_pending(trees *t, const leaf_seen *at, const tree_miss *miss, miss_use *use)
{
    uint16_t index = atomic_load_explicit(&t->pool.frames[at->frame].partition, memory_order_acquire);
    if (index >= RW_PARTITIONS_MAX) return DESCENT_RESTART;
    bool found = !pending_is_empty(&t->pending, index) && pending_get(&t->pending, index, miss->ref, use->key, use->hash, use->buf, use->room, &use->answer);
    if (!miss_stands(t, at, use) || use->partition != index) return DESCENT_RESTART;
    return found ? DESCENT_ANSWERED : DESCENT_MISS;
}

/* Asks for the record that the leaf's image holds, once nothing of the key waits for the leaf. */
static descent miss_record(trees *t, const leaf_seen *at, const tree_miss *miss, miss_use *use)
{
    if (!records_get(&t->records, miss->ref, use->key, use->hash, use->buf, use->room, &use->answer)) return DESCENT_MISS;
    return miss_stands(t, at, use) ? DESCENT_ANSWERED : DESCENT_RESTART;
}

/* Asks what spills hold for a leaf that is missing, once nothing of the key waits for it, and no record is here. *miss: what to read, if one may hold the key. */
static descent miss_spilled(trees *t, const leaf_seen *at, tree_miss *miss, miss_use *use)
{
    uint16_t index = atomic_load_explicit(&t->pool.frames[at->frame].partition, memory_order_acquire);
    if (index >= RW_PARTITIONS_MAX) return DESCENT_RESTART;
    if (pending_spills(&t->pending, index) == 0 || RW_PLANTED(spill_unseen)) return DESCENT_MISS;
    page_ref leaf = pending_spilled(&t->pending, index, miss->ref, use->key, use->hash);
    if (!miss_stands(t, at, use) || use->partition != index) return DESCENT_RESTART;
    if (page_ref_is_none(leaf)) return DESCENT_MISS;
    if (use->waits || (use->newest && records_are_kept(&t->records))) *miss = (tree_miss){.ref = leaf, .leaf = miss->ref, .spilled = true};
    use->spilled = true;
    return DESCENT_MISS;
}

/* Asks the filter of a leaf that is missing, once nothing of the key waits for it: a filter speaks of the image only. */
static descent miss_filter(trees *t, const leaf_seen *at, const tree_miss *miss, miss_use *use)
{
    filter_answer answer = filters_ask(&t->filters, miss->ref, use->hash);
    use->doubted = answer == FILTER_MAYBE;
    if (answer != FILTER_ABSENT) return DESCENT_MISS;
    return miss_stands(t, at, use) ? DESCENT_DENIED : DESCENT_RESTART;
}

/* All that may spare the get the leaf. miss: what it has to have read, else. */
static descent miss_ask(trees *t, const leaf_seen *at, tree_miss *miss, miss_use *use)
{
    use->spilled = false;
    uint32_t spills = atomic_load(&t->pending.spills);
    descent found = miss_pending(t, at, miss, use);
    if (found == DESCENT_MISS) found = miss_record(t, at, miss, use);
    if (found == DESCENT_MISS) found = miss_spilled(t, at, miss, use);
    if (found == DESCENT_MISS && !use->spilled) found = miss_filter(t, at, miss, use);
    miss->spills = spills;
    miss->asked = use->spilled && !miss->spilled ? 0 : use->hash; /* what the leaf's image says of the key may be out of date */
    miss->stays = !use->newest; /* a transaction may write the leaf soon */
    return found;
}

/* Besides TREE_MISS and errors: the leaf is missing, and its filter says that it does not hold the key; or what the key's value is, is known without it. */
#define LEAF_DENIES 100
#define LEAF_SPARED 101

/* Descends until it stands on a leaf, reading what is missing; or, with asked, saying what is, and standing on its parent. use: may be NULL: only the leaf
 * itself will do. */
static int leaf_find(trees *t, rw_slice key, trees_side side, leaf_seen *at, unsigned *restarts, miss_use *use, tree_miss *asked)
{
    page_ref suspect = page_ref_none();
    for (;;) {
        tree_miss miss;
        descent found = descend(t, key, side, at, &miss);
        if (RW_LIKELY(found == DESCENT_LEAF)) return 0;
        if (found == DESCENT_MISS && use != NULL && miss.level == 0) {
            found = miss_ask(t, at, &miss, use);
        }
        if (found == DESCENT_DENIED) return LEAF_DENIES;
        if (found == DESCENT_ANSWERED) return LEAF_SPARED;
        if (found == DESCENT_RESTART) {
            tree_restart_wait(t, restarts);
            continue;
        }
        if (asked != NULL) {
            *asked = miss;
            return TREE_MISS;
        }
        bool answered = false;
        int error = miss.spilled ? tree_spilled_get(t, &miss, use->key, use->buf, use->room, &use->answer, &answered, &suspect) : trees_load(t, &miss, &suspect);
        if (error != 0) return error;
        if (answered) return LEAF_SPARED; /* as of the moment when nothing was found to wait for the leaf */
    }
}

int tree_leaf_find(trees *t, rw_slice key, trees_side side, leaf_seen *at, unsigned *restarts, tree_miss *miss)
{
    return leaf_find(t, key, side, at, restarts, NULL, miss);
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
    return leaf_find(t, key, TREES_COVERING, &at, &restarts, NULL, miss);
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

/* The commit that deleted the key, if one did, may be of any time: the timestamp says so. */
static void filter_read(trees *t, const miss_use *use, tree_value *seen)
{
    filters_want(&t->filters);
    filters_count_absent(&t->filters, use->hash);
    uint64_t timestamp = RW_PLANTED(filter_hides_old) ? 0 : TREES_TIMESTAMP_UNKNOWN;
    *seen = (tree_value){.found = false, .partition = use->partition, .timestamp = timestamp};
}

/* Without a hint. */
static int get_descending(trees *t, rw_slice key, uint64_t hash, void *buf, size_t room, unsigned wanted, tree_value *seen, tree_miss *miss)
{
    unsigned restarts = 0;
    miss_use use = {.key = key, .hash = hash, .buf = buf, .room = room, .newest = (wanted & TREES_NEWEST) != 0, .waits = miss == NULL};
    for (;;) {
        leaf_seen at;
        int error = leaf_find(t, key, TREES_COVERING, &at, &restarts, (wanted & TREES_LEAF) == 0 ? &use : NULL, miss);
        if (error == LEAF_DENIES) {
            filter_read(t, &use, seen);
            return 0;
        }
        if (error == LEAF_SPARED) { /* no snapshot is open that begins below what waits; of a record it is not known */
            *seen = (tree_value){.found = true, .fits = use.answer.fits, .size = use.answer.size, .partition = use.partition, .timestamp = use.answer.timestamp};
            return 0;
        }
        if (error != 0) return error;
        unsigned slot = node_lower_bound(pool_page(&t->pool, at.frame), t->page_size, key, &seen->found);
        if (seen->found) tree_hint_note(t, hash, at.frame, slot);
        leaf_read(t, at.frame, slot, buf, room, (wanted & TREES_TIMESTAMP) != 0, seen);
        if (RW_LIKELY(frame_unchanged(&t->pool.frames[at.frame], at.version))) break;
        tree_restart_wait(t, &restarts);
    }
    if (!seen->found) {
        trees_learn_want(t);
        filters_want(&t->filters);
        if (use.doubted) filters_count_vain(&t->filters, hash);
    }
    return 0;
}

int trees_get(trees *t, rw_slice key, void *buf, size_t room, unsigned wanted, tree_value *seen, tree_miss *miss)
{
    uint64_t hash = hints_hash(key);
    if ((wanted & TREES_NEWEST) != 0) key_filter_prefetch(&t->key_filter, hash);
    seen->denied = false;
    if (RW_LIKELY(hinted_read(t, key, hash, buf, room, (wanted & TREES_TIMESTAMP) != 0, seen))) return 0;
    if ((wanted & TREES_NEWEST) != 0 && key_filter_denies(&t->key_filter, hash)) {
        *seen = (tree_value){.denied = true};
        return 0;
    }
    return get_descending(t, key, hash, buf, room, wanted, seen, miss);
}

void trees_get_ahead(trees *t, rw_slice key, trees_ahead step)
{
    trees_get_ahead_hashed(t, hints_hash(key), step);
}

void trees_get_ahead_hashed(trees *t, uint64_t hash, trees_ahead step)
{
    hint h;
    if (step == TREES_AHEAD_HINT) {
        hints_prefetch(&t->hints, hash);
        key_filter_prefetch(&t->key_filter, hash);
    } else if (tree_hint_find(t, hash, &h) && step == TREES_AHEAD_CHANGE) __builtin_prefetch(&tree_node(t, h.frame)->page.newest_timestamp);
}

/* Without the gap between slots and heap: a fifth of the memory that would have to come. Where the page is changing, anything. */
RW_RACY void tree_page_copy(trees *t, uint32_t f, node *to)
{
    const node *n = pool_page(&t->pool, f);
    size_t slots_end = offsetof(node, slots) + rw_racy_u16(&n->count) * sizeof(node_slot), heap = rw_racy_u16(&n->heap_start);
    if (RW_UNLIKELY(slots_end > heap || heap > t->page_size)) return;
    rw_racy_copy(to, n, slots_end);
    rw_racy_copy((char *)to + heap, (const char *)n + heap, t->page_size - heap);
}

int trees_behind_damage(trees *t, rw_slice key, void *end, size_t *size)
{
    node *parent = rw_memory_aligned(t->page_size);
    if (parent == NULL) return rw_error(RW_ENOMEM, "no memory to copy a page");
    page_ref suspect = page_ref_none();
    unsigned restarts = 0;
    for (;;) {
        leaf_seen at;
        tree_miss miss;
        descent found = descend(t, key, TREES_COVERING, &at, &miss);
        if (found == DESCENT_LEAF) {
            free(parent);
            return rw_error(RW_ENOTFOUND, "no page is missing there");
        }
        if (found == DESCENT_RESTART) {
            tree_restart_wait(t, &restarts);
            continue;
        }
        tree_page_copy(t, at.frame, parent);     /* before the read, while it stands there */
        if (!frame_unchanged(&t->pool.frames[at.frame], at.version)) continue;
        int error = trees_load(t, &miss, &suspect);
        if (error == RW_ECORRUPT || error == RW_EIO) break;
        if (error != 0) {
            free(parent);
            return error;
        }
    }
    unsigned slot = node_child_slot(parent, t->page_size, key) + 1;
    rw_slice upper = node_upper_fence(parent);
    *size = slot < parent->count ? node_key_length(parent, slot) : upper.size;
    if (slot < parent->count) node_key_copy(parent, slot, end);
    else if (upper.size > 0) memcpy(end, upper.data, upper.size);
    free(parent);
    return 0;
}
