/* Partitions: opening the set of trees, finding and locking, cutting one in two, joining an empty one to its neighbour. */
#include "base/preempt.h"
#include "btree/trees.h"
#include "btree/trees_internal.h"

#define HINTS_SHARE 16u                /* of the cache, at most */
#define FILTERS_SHARE_NUMBER 5u        /* of the frames, at most: room for the filters of ten times as many leaves */
#define FILTERS_SHARE_OF 32u
#define BORROWED_SHARE_NUMBER 9u       /* of the frames, at most 9/16 for pending writes and records, */
#define BORROWED_SHARE_OF 16u
#define BORROWED_FRAMES_LEFT 64u       /* but for so many: a small cache needs them for splits and reads */

/* Of a pool with so many frames. */
static uint32_t borrowed_max(uint64_t frames)
{
    return (uint32_t)((frames - RW_MIN(frames, (uint64_t)BORROWED_FRAMES_LEFT)) / BORROWED_SHARE_OF * BORROWED_SHARE_NUMBER);
}

int trees_open(trees *t, kio *k, store *s, uint32_t page_size, uint64_t cache_bytes)
{
    t->kio = k;
    t->store = s;
    t->page_size = page_size;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        t->partitions[i].index = (uint16_t)i;
        atomic_init(&t->partitions[i].root, FRAME_NONE);
    }
    int error = router_open(&t->router, rw_limits_key_max(page_size) + RW_BUCKET_PREFIX);
    if (error != 0) return error;
    error = hints_open(&t->hints, cache_bytes / HINTS_SHARE);
    if (error == 0) error = key_filter_open(&t->key_filter, k, cache_bytes / RW_KEY_FILTER_SHARE);
    if (error == 0) error = trees_learn_open(t);
    if (error == 0) error = filters_open(&t->filters, &t->pool, page_size, (uint32_t)(cache_bytes / page_size / FILTERS_SHARE_OF * FILTERS_SHARE_NUMBER));
    if (error == 0) error = records_open(&t->records, k, &t->pool, &t->pending, page_size, borrowed_max(cache_bytes / page_size));
    uint64_t tables = t->hints.bytes + t->key_filter.bytes + t->filters.bytes + t->records.bytes;
    if (error == 0) error = pool_open(&t->pool, k, s, &tree_page_ops, t->partitions, page_size, cache_bytes - tables);
    pending_init(&t->pending, k, &t->pool, &t->key_filter, page_size, borrowed_max(t->pool.frame_count));
    if (error == 0) return 0;
    records_close(&t->records);
    filters_close(&t->filters);
    trees_learn_close(t);
    key_filter_close(&t->key_filter);
    hints_close(&t->hints);
    router_close(&t->router);
    return error;
}

void trees_close(trees *t)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        for (uint32_t k = 0; k < pending_spills(&t->pending, (uint16_t)i); k++) spill_close(t->pending.sets[i].spills[k], &t->pool);
        store_retired_free(&t->partitions[i].retired);
        store_retired_free(&t->partitions[i].maturing);
        store_retired_free(&t->partitions[i].extents);
        store_retired_free(&t->partitions[i].extents_passed);
    }
    pool_close(&t->pool);
    records_close(&t->records);
    filters_close(&t->filters);
    trees_learn_close(t);
    key_filter_close(&t->key_filter);
    hints_close(&t->hints);
    router_close(&t->router);
}

static void partition_begin(partition *p, uint32_t id)
{
    RW_ASSERT(p->dirty_count == 0 && p->retired.count == 0 && p->maturing.count == 0 && p->extents.count == 0 && p->extents_passed.count == 0);
    p->id = id;
    p->epoch = 1;
    p->imaging_epoch = 0;
    p->pages = 0;
    p->commits = 0;
    p->grown = 0;
    p->calm = 0;
    p->image_root = page_ref_none();
    p->image_lsn = 0;
    p->image_height = 0;
    p->image_spill_count = p->image_spill_number = 0;
    p->spills_changed = false;
    p->merge_failed_ns = 0;
    p->image_needed = true;
    for (unsigned i = 0; i < TREE_LEVELS_MAX; i++) p->dirty[i] = (dirty_list){FRAME_NONE, FRAME_NONE};
}

static partition *partition_unused(trees *t)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        if (atomic_load_explicit(&t->partitions[i].root, memory_order_relaxed) != FRAME_NONE) continue;
        if (i >= atomic_load_explicit(&t->partitions_used, memory_order_relaxed)) atomic_store(&t->partitions_used, i + 1); /* before any commit to it */
        return &t->partitions[i];
    }
    return NULL;
}

/* A partition whose root is an empty leaf over [low, high). */
static int create_empty(trees *t, uint32_t id, rw_slice low, rw_slice high)
{
    partition *p = partition_unused(t);
    uint32_t f;
    if (p == NULL) return rw_error(RW_ECORRUPT, "there are more than %u partitions", RW_PARTITIONS_MAX);
    int error = pool_frame_take(&t->pool, &f);
    if (error != 0) return error;
    partition_begin(p, id);
    node_init(tree_node(t, f), t->page_size, 0, low, high);
    tree_frame_install(t, p, f, 0, FRAME_NONE, page_ref_none());
    p->pages = 1;
    pool_mark_dirty(&t->pool, p, f);
    tree_root_set(p, f);
    router_insert(t->kio, &t->router, low, p->index);
    return 0;
}

int trees_create_first(trees *t, uint32_t id)
{
    return create_empty(t, id, rw_slice_of("", 0), rw_slice_of("", 0));
}

int trees_adopt_lost(trees *t, const store_partition *image, rw_slice high)
{
    if (image->low_key.size > t->router.key_stride || high.size > t->router.key_stride)
        return rw_error(RW_ECORRUPT, "the superblock's entry for partition %u is impossible", image->id);
    return create_empty(t, image->id, image->low_key, high);
}

/* About how many pages a tree has, from its root alone: exact for two levels, a fair guess above. */
static uint64_t pages_guess(const trees *t, const node *root)
{
    uint64_t pages = 1, fan_out = t->page_size / 48, below = root->count;
    for (unsigned level = root->page.level; level > 0; level--) {
        pages += below;
        below *= fan_out;
    }
    return pages;
}

/* A leaf at the root has come into the cache, so there is nothing left that it could lack. */
static int spills_adopt(trees *t, partition *p, const store_partition *image)
{
    t->pending.sets[p->index].spill_number = image->spill_number;
    int error = image->spill_count > 0 && image->height < 2 ? rw_error(RW_ECORRUPT, "partition %u has spills and no leaf that they could be for", image->id) : 0;
    for (uint32_t i = 0; i < image->spill_count && error == 0; i++) {
        spill *s;
        error = spill_open(t->store, &t->pool, &image->spills[i], &s);
        if (error == 0) pending_spill_add(&t->pending, p, s);
    }
    store_retired ignored = {0};
    if (error != 0) pending_spills_drop(&t->pending, p, &ignored);
    store_retired_free(&ignored);
    p->image_spill_count = image->spill_count;
    p->image_spill_number = image->spill_number;
    memcpy(p->image_spills, image->spills, sizeof p->image_spills);
    return error;
}

int trees_adopt(trees *t, const store_partition *image)
{
    partition *p = partition_unused(t);
    uint32_t f;
    if (p == NULL) return rw_error(RW_ECORRUPT, "the superblock names more than %u partitions", RW_PARTITIONS_MAX);
    if (page_ref_blocks(image->root) != t->pool.page_blocks || image->low_key.size > t->router.key_stride)
        return rw_error(RW_ECORRUPT, "the superblock's entry for partition %u is impossible", image->id);
    int error = pool_frame_take(&t->pool, &f);
    if (error != 0) return error;
    node *n = tree_node(t, f);
    error = store_page_read(t->store, image->root, n);
    if (error == 0) error = node_check(n, t->page_size, true);
    if (error == 0 && (n->page.type != PAGE_NODE || n->page.level + 1u != image->height ||
                       !rw_slice_equal(node_lower_fence(n), image->low_key)))
        error = rw_error(RW_ECORRUPT, "the root page of partition %u is not the one that the superblock names", image->id);
    if (error != 0) {
        pool_frame_free(&t->pool, f);
        return error;
    }
    partition_begin(p, image->id);
    error = spills_adopt(t, p, image);
    if (error != 0) {
        pool_frame_free(&t->pool, f);
        return error;
    }
    tree_frame_install(t, p, f, n->page.level, FRAME_NONE, image->root);
    p->pages = pages_guess(t, n);
    p->image_root = image->root;
    p->image_lsn = image->lsn;
    p->image_height = image->height;
    p->image_needed = false;
    tree_root_set(p, f);
    router_insert(t->kio, &t->router, image->low_key, p->index);
    return 0;
}

uint64_t trees_pages(trees *t, partition *p)
{
    const node *root = tree_node(t, tree_root(p));
    if (root->page.level == 0) p->pages = 1;
    if (root->page.level == 1) p->pages = 1u + root->count;
    return p->pages;
}

partition *trees_lock(trees *t, rw_slice key)
{
    for (;;) {
        uint64_t version = router_version(&t->router);
        partition *p = &t->partitions[router_find_now(t->kio, &t->router, key)];
        partition_lock(t->kio, p);
        if (router_unchanged(&t->router, version) || trees_covers(t, p, key)) return p;
        partition_unlock(t->kio, p);
    }
}

partition *trees_try(trees *t, rw_slice key)
{
    partition *p = &t->partitions[router_find_now(t->kio, &t->router, key)];
    if (!partition_try(p)) return NULL;
    if (trees_covers(t, p, key)) return p;
    partition_unlock(t->kio, p);
    return NULL;
}

bool trees_covers(trees *t, const partition *p, rw_slice key)
{
    return router_find_now(t->kio, &t->router, key) == p->index;
}

/* ---- split and join ---------------------------------------------------------------------------------------------- */

/* Puts a page and all resident below it under a partition. */
static void subtree_move(trees *t, uint32_t f, uint16_t to)
{
    const node *n = tree_node(t, f);
    atomic_store_explicit(&tree_frame(t, f)->partition, to, memory_order_release);
    if (tree_frame(t, f)->level == 0 || tree_frame(t, f)->resident_children == 0) return;
    for (unsigned i = 0; i < n->count; i++) {
        page_ref ref = node_child(n, t->page_size, i);
        if (page_ref_is_frame(ref)) subtree_move(t, page_ref_frame(ref), to);
    }
}

static void subtree_dirty(trees *t, partition *p, uint32_t f)
{
    const node *n = tree_node(t, f);
    pool_mark_dirty(&t->pool, p, f);
    if (tree_frame(t, f)->resident_children == 0) return;
    for (unsigned i = 0; i < n->count; i++) {
        page_ref ref = node_child(n, t->page_size, i);
        if (page_ref_is_frame(ref)) subtree_dirty(t, p, page_ref_frame(ref));
    }
}

bool tree_dirty_below(trees *t, partition *p, unsigned slot)
{
    const node *root = tree_node(t, tree_root(p));
    if (root->page.level == 0 || slot >= root->count) return false;
    page_ref ref = node_child(root, t->page_size, slot);
    if (page_ref_is_frame(ref)) subtree_dirty(t, p, page_ref_frame(ref));
    return true;
}

static uint32_t missing_below(trees *t, uint32_t f, bool leaves, tree_miss *missing, uint32_t max)
{
    const node *n = tree_node(t, f);
    uint32_t count = 0;
    if (n->page.level == 0 || (n->page.level == 1 && !leaves)) return 0;
    for (unsigned i = 0; i < n->count && count < max; i++) {
        page_ref ref = node_child(n, t->page_size, i);
        if (page_ref_is_frame(ref)) count += missing_below(t, page_ref_frame(ref), leaves, missing + count, max - count);
        else if (leaves == (n->page.level == 1)) missing[count++] = (tree_miss){.ref = ref, .level = n->page.level - 1u};
    }
    return count;
}

uint32_t tree_missing(trees *t, partition *p, bool leaves, tree_miss *missing, uint32_t max)
{
    return missing_below(t, tree_root(p), leaves, missing, max);
}

/* Whether f, an inner page, and all inner pages below it are in the cache. */
static bool inner_is_resident(trees *t, uint32_t f)
{
    const node *n = tree_node(t, f);
    bool resident = true;
    for (unsigned slot = 0; slot < n->count && n->page.level > 1 && resident; slot++) {
        page_ref ref = node_child(n, t->page_size, slot);
        resident = page_ref_is_frame(ref) && inner_is_resident(t, page_ref_frame(ref));
    }
    return resident;
}

/* What the page's own image says of its leaves must go, too, whether they are in the cache or not: so it counts as changed. */
static void parent_forgets(trees *t, partition *p, uint32_t f)
{
    frame *fr = tree_frame(t, f);
    node *n = tree_node(t, f);
    bool spoke = false;
    frame_change_begin(fr);
    for (unsigned slot = 0; slot < n->count; slot++) {
        page_ref ref = node_child(n, t->page_size, slot), *disk = page_ref_is_frame(ref) ? &tree_frame(t, page_ref_frame(ref))->disk : &ref;
        if (page_ref_spill(*disk) == 0) continue;
        *disk = page_ref_with_spill(*disk, 0);
        if (!page_ref_is_frame(ref)) node_child_set(n, slot, ref);
        spoke = true;
    }
    frame_change_end(fr);
    if (spoke) pool_mark_dirty(&t->pool, p, f);
}

static void below_forget(trees *t, partition *p, uint32_t f)
{
    const node *n = tree_node(t, f);
    if (n->page.level == 1) parent_forgets(t, p, f);
    for (unsigned slot = 0; slot < n->count && n->page.level > 1; slot++) below_forget(t, p, page_ref_frame(node_child(n, t->page_size, slot)));
}

int tree_spills_forget(trees *t, partition *p)
{
    uint32_t root = tree_root(p);
    if (tree_frame(t, root)->level == 0) return 0;
    if (!inner_is_resident(t, root)) return TREE_MISS; /* all or none: a leaf that a spill is forgotten of would get what that holds once more */
    below_forget(t, p, root);
    return 0;
}

int trees_partition_split(tree_writer *w, partition *p, uint32_t new_id, partition **created)
{
    trees *t = w->t;
    uint32_t f = tree_root(p);
    frame *root = tree_frame(t, f);
    node *n = tree_node(t, f);
    partition *q = partition_unused(t);
    if (q == NULL || root->level == 0 || n->count < 2 || t->pending.sets[p->index].spill_number > 0) return RW_ENOTFOUND;
    if (w->reserved == 0) return TREE_FRAMES;
    w->plan.slot = n->count / 2u;
    w->plan.separator_length = (uint32_t)node_key_length(n, w->plan.slot);
    node_key_copy(n, w->plan.slot, w->plan.separator);
    uint32_t right = w->reserve[--w->reserved];
    unsigned total = n->count;

    partition_lock(t->kio, q); /* the clock must not touch its pages before they are all there */
    partition_begin(q, new_id);
    q->epoch = p->epoch;
    q->image_lsn = p->image_lsn;
    frame_change_begin(root);
    node_split_apply(n, tree_node(t, right), t->page_size, &w->plan, w->scratch);
    tree_frame_install(t, q, right, root->level, FRAME_NONE, page_ref_none());
    uint32_t moved = tree_children_adopt(t, right);
    tree_frame(t, right)->resident_children = (uint16_t)moved;
    root->resident_children = (uint16_t)(root->resident_children - moved);
    root->flags |= FRAME_RESHAPED;
    pending_move_begin(&t->pending, p, q);
    subtree_move(t, right, q->index);
    RW_PREEMPT(t->kio);
    pending_move_end(&t->pending, p, q, rw_slice_of(w->plan.separator, w->plan.separator_length));
    pool_dirty_move(&t->pool, p, q);
    pool_mark_dirty(&t->pool, p, f);
    pool_mark_dirty(&t->pool, q, right);
    q->pages = 1 + p->pages * (total - w->plan.slot) / total;
    p->pages = p->pages - q->pages + 2;
    p->image_needed = true;
    tree_root_set(q, right);
    router_insert(t->kio, &t->router, rw_slice_of(w->plan.separator, w->plan.separator_length), q->index);
    frame_change_end(root);
    tree_root_collapse(t, p);
    tree_root_collapse(t, q);
    *created = q;
    return 0;
}

/* Whether every page on the right edge is resident and has room for another upper fence. */
static bool right_edge_ready(tree_writer *w, partition *left, rw_slice upper, tree_miss *miss)
{
    trees *t = w->t;
    for (uint32_t f = tree_root(left);;) {
        node *copy = (node *)(void *)w->scratch;
        memcpy(copy, tree_node(t, f), t->page_size);
        if (!node_refence(copy, t->page_size, node_lower_fence(tree_node(t, f)), upper, w->scratch + t->page_size)) return false;
        if (copy->page.level == 0) return true;
        page_ref last = node_child(tree_node(t, f), t->page_size, copy->count - 1u);
        if (!page_ref_is_frame(last)) {
            *miss = (tree_miss){.ref = last, .level = copy->page.level - 1u};
            return false;
        }
        f = page_ref_frame(last);
    }
}

/* newest: of what has changed in the range that is joined: a snapshot that finds a key of it absent must know that it may have been there (T8). */
static void right_edge_refence(tree_writer *w, partition *left, rw_slice upper, uint64_t newest)
{
    trees *t = w->t;
    uint32_t f = tree_root(left);
    for (;;) {
        frame *fr = tree_frame(t, f);
        node *n = tree_node(t, f);
        unsigned char lower[RW_PAGE_SIZE_MAX / 4];
        rw_slice old = node_lower_fence(n);
        memcpy(lower, old.size == 0 ? "" : old.data, old.size);
        frame_change_begin(fr);
        bool done = node_refence(n, t->page_size, rw_slice_of(lower, old.size), upper, w->scratch);
        RW_ASSERT(done);
        if (fr->level == 0) n->page.newest_timestamp = RW_MAX(n->page.newest_timestamp, newest);
        fr->flags |= FRAME_RESHAPED;
        frame_change_end(fr);
        pool_mark_dirty(&t->pool, left, f);
        if (fr->level == 0) return;
        f = page_ref_frame(node_child(n, t->page_size, n->count - 1u));
    }
}

/* Batches that place pages of p are on their way. */
static bool writes_pending(const partition *p)
{
    for (unsigned i = 0; i < RW_ARRAY_SIZE(p->writes_in_flight); i++)
        if (atomic_load(&p->writes_in_flight[i]) != 0) return true;
    return false;
}

int trees_partition_join(tree_writer *w, partition *left, partition *right, tree_miss *miss)
{
    trees *t = w->t;
    uint32_t f = tree_root(right);
    node *n = tree_node(t, f);
    unsigned char upper_bytes[RW_PAGE_SIZE_MAX / 4];
    RW_ASSERT(tree_frame(t, f)->level == 0 && n->count == 0);
    RW_ASSERT(rw_slice_equal(node_upper_fence(tree_node(t, tree_root(left))), node_lower_fence(n)));
    rw_slice upper = node_upper_fence(n);
    memcpy(upper_bytes, upper.size == 0 ? "" : upper.data, upper.size);
    upper.data = upper_bytes;
    miss->ref = page_ref_none();
    RW_ASSERT(pending_is_empty(&t->pending, right->index) && t->pending.sets[right->index].spill_number == 0);
    if (writes_pending(right)) return RW_ENOTFOUND; /* left's checkpoints would not wait for them before right's runs are used again */
    if (!right_edge_ready(w, left, upper, miss)) return page_ref_is_none(miss->ref) ? RW_ENOTFOUND : TREE_MISS;
    right_edge_refence(w, left, upper, n->page.newest_timestamp);
    frame_change_begin(tree_frame(t, f));
    router_remove(t->kio, &t->router, right->index);
    tree_frame_drop(t, right, f);
    store_retired_move(&left->retired, &right->retired);
    store_retired_move(&left->retired, &right->maturing);
    store_retired_move(&left->extents, &right->extents);
    store_retired_move(&left->extents, &right->extents_passed);
    left->image_needed = true;
    left->commits += right->commits;
    tree_root_set(right, FRAME_NONE);
    return 0;
}
