/* Reading missing pages and hanging them into their trees. */
#include "base/memory.h"
#include "base/planted.h"
#include "btree/trees.h"
#include "btree/trees_internal.h"

/* A page whose bytes are what its parent has promised: whether they are a node that may hang there. */
static int page_check(trees *t, const tree_miss *miss, const node *n)
{
    if (n->page.type != PAGE_NODE || n->page.level != miss->level)
        return rw_error(RW_ECORRUPT, "%s: page at offset %llu has type %u and level %u, expected a tree node of level %u",
                        kio_file_path(store_file(t->store)), (unsigned long long)(page_ref_address(miss->ref) * RW_BLOCK_SIZE),
                        n->page.type, n->page.level, miss->level);
    int error = node_check(n, t->page_size, false);
    if (error != 0)
        return rw_error_prefix(error, "%s: page at offset %llu", kio_file_path(store_file(t->store)),
                               (unsigned long long)(page_ref_address(miss->ref) * RW_BLOCK_SIZE));
    atomic_fetch_add_explicit(&t->pool.counters.pages_read, 1, memory_order_relaxed);
    return 0;
}

/* A leaf that was read leaves its filter, and the record that a get wants of it, while the processor has its keys at hand. True: that will do. */
static bool leaf_note(trees *t, const tree_miss *miss, const node *n)
{
    if (miss->level != 0) return false;
    filters_keep_loaded(&t->filters, miss->ref, n);
    if (t->recovering) return false; /* what replay reads it changes */
    if (miss->asked != 0) return records_keep(&t->records, miss->ref, n, miss->asked, &t->pending.spills, miss->spills) && !miss->stays;
    records_walked(&t->records);
    return false;
}

/* Gets a page into a free frame and checks it; the frame is in no tree yet. bytes: the page, read already, or NULL. *spared: it need not become a page of one. */
static int page_read(trees *t, const tree_miss *miss, uint32_t f, const void *bytes, bool *spared)
{
    node *n = tree_node(t, f);
    RW_ASSERT(page_ref_blocks(miss->ref) == t->pool.page_blocks);
    if (bytes != NULL) memcpy(n, bytes, t->page_size);
    int error = bytes != NULL ? store_page_check(t->store, miss->ref, n) : store_page_read(t->store, miss->ref, n);
    if (error == 0) error = page_check(t, miss, n);
    *spared = error == 0 && leaf_note(t, miss, n);
    return error;
}

#define HINTS_AHEAD 32u                /* so many places are fetched from memory side by side */

/* While the cache is being warmed: a leaf's hints are there before its first gets. Once pages are evicted, only what is asked for gets one. */
static void leaf_hints_note(trees *t, uint32_t f)
{
    unsigned char key[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX];
    uint64_t hashes[HINTS_AHEAD];
    const node *n = tree_node(t, f);
    if (atomic_load_explicit(&t->pool.counters.pages_evicted, memory_order_relaxed) != 0) return;
    for (unsigned from = 0; from < n->count; from += HINTS_AHEAD) {
        unsigned count = RW_MIN(n->count - from, HINTS_AHEAD);
        for (unsigned i = 0; i < count; i++) {
            node_key_copy(n, from + i, key);
            hashes[i] = hints_hash(rw_slice_of(key, node_key_length(n, from + i)));
            hints_prefetch(&t->hints, hashes[i]);
        }
        for (unsigned i = 0; i < count; i++) tree_hint_note(t, hashes[i], f, from + i);
    }
}

/* What became of a page that was read. */
typedef enum {
    HANG_DONE,
    HANG_STALE,                /* its parent names it no more */
    HANG_FRAMES,               /* what waits for the leaf may need it split, and a writer with frames for that; if there was a writer, the page's bytes are void */
    HANG_PARENT,               /* the same, and the parent has no room for another child */
    HANG_RECALL                /* spills hold something for the leaf, which has to be read first. The page's bytes are what they were */
} hang_state;

/* The child at slot of parent, which is on disk as disk, is in frame f from now on. */
static void child_hang(trees *t, partition *p, uint32_t f, unsigned level, uint32_t parent, unsigned slot, page_ref disk, leaf_fold *fold)
{
    page_ref in_memory = tree_ref_of_frame(f);
    in_memory.estimate = disk.estimate;
    tree_frame_install(t, p, f, level, parent, disk);
    frame_change_begin(tree_frame(t, parent));
    node_child_set(tree_node(t, parent), slot, in_memory);
    if (fold != NULL) fold_hang_rest(fold, parent, slot, disk);
    frame_change_end(tree_frame(t, parent));
}

/* A leaf that writes wait for, in memory or in spills. waiting: or NULL. */
static hang_state leaf_hang(trees *t, partition *p, tree_writer *w, uint32_t f, uint32_t parent, unsigned slot, page_ref disk, leaf_recall *recall, const pending_leaf *waiting)
{
    leaf_fold fold;
    hang_state state = HANG_DONE;
    fold_begin(&fold, t, p, w, f);
    if ((w == NULL && waiting != NULL && fold_needs_writer(&fold, waiting)) || !fold_writes(&fold, disk, recall, waiting)) state = HANG_FRAMES;
    else if (!fold_fits_parent(&fold, tree_node(t, parent))) state = HANG_PARENT;
    if (state == HANG_DONE) {
        child_hang(t, p, f, 0, parent, slot, disk, &fold);
        fold_finish(&fold, disk, waiting);
    }
    fold_end(&fold);
    return state;
}

/* Hangs a page that was read under its parent, if the parent still names it on disk. The page's own lower fence leads there. w, recall: or NULL. */
static hang_state page_install(trees *t, partition *p, tree_writer *w, leaf_recall *recall, const tree_miss *miss, uint32_t f)
{
    tree_miss other;
    uint32_t parent;
    rw_slice lower = node_lower_fence(tree_node(t, f));
    if (tree_frame(t, tree_root(p))->level <= miss->level) return HANG_STALE;
    if (tree_descend(t, p, lower, miss->level + 1, &parent, &other) != 0) return HANG_STALE;
    node *n = tree_node(t, parent);
    unsigned slot = node_child_slot(n, t->page_size, lower);
    page_ref ref = node_child(n, t->page_size, slot);
    bool is_named = ref.word == miss->ref.word && ref.checksum == miss->ref.checksum;
    if (!is_named && !RW_PLANTED(hang_in_unchecked)) return HANG_STALE;
    page_ref disk = miss->ref;
    disk.estimate = ref.estimate;
    const pending_leaf *waiting = miss->level == 0 ? pending_find(&t->pending, p, disk) : NULL;
    bool spilled = miss->level == 0 && pending_spills(&t->pending, p->index) > 0 && !RW_PLANTED(spill_lost);
    if (spilled && !recall_ready(recall, &t->pending, p, disk, tree_node(t, f))) return HANG_RECALL;
    if (waiting != NULL || spilled) {
        hang_state state = leaf_hang(t, p, w, f, parent, slot, disk, spilled ? recall : NULL, waiting);
        if (state != HANG_DONE) return state;
    } else child_hang(t, p, f, miss->level, parent, slot, disk, NULL);
    if (miss->level == 0) leaf_hints_note(t, f);
    if (miss->asked != 0) atomic_store_explicit(&tree_frame(t, f)->cool, FRAME_FRESH, memory_order_relaxed);
    return HANG_DONE;
}

/* One attempt without tokens. The bytes in f were checked. */
static hang_state page_install_alone(trees *t, tree_writer *w, leaf_recall *recall, const tree_miss *miss, uint32_t f)
{
    tree_miss above;
    partition *p = trees_lock(t, node_lower_fence(tree_node(t, f)));
    hang_state state = page_install(t, p, w, recall, miss, f);
    trees_unlock(t, p);
    RW_ASSERT(state != HANG_PARENT || w != NULL); /* only a leaf that was split needs more room there */
    if (state == HANG_PARENT && tree_writer_fill(w) == 0) { /* the attempt may have used up what the inner page needs */
        p = trees_lock(t, node_lower_fence(tree_node(t, f)));
        (void)tree_make_room_above(w, p, node_lower_fence(tree_node(t, f)), &above); /* the next attempt finds out */
        trees_unlock(t, p);
    }
    return state;
}

/* Attempts without tokens, until all that spills hold for the leaf has been read. *state: HANG_RECALL only with an error. */
static int page_install_recalling(trees *t, tree_writer *w, leaf_recall *recall, const tree_miss *miss, uint32_t f, hang_state *state)
{
    int error = 0;
    while (error == 0 && (*state = page_install_alone(t, w, recall, miss, f)) == HANG_RECALL) error = recall_read(recall, t->kio, t->store, &t->pool);
    return error;
}

/*
 * With a writer, for a leaf that has to be split. One thread at a time, and nobody waits for his turn with a frame in hand: a small cache has not so many. The page is
 * read again, unless the caller has its bytes.
 */
static int page_install_splitting(trees *t, leaf_recall *recall, const tree_miss *miss, const void *bytes)
{
    tree_writer *w;
    hang_state state = HANG_FRAMES;
    int error = tree_writer_open(t, &w);
    if (error != 0) return error;
    kio_mutex_lock(t->kio, &t->split_mutex);
    while (error == 0 && (state == HANG_FRAMES || state == HANG_PARENT)) {
        error = tree_writer_fill(w);
        if (error != 0) break;
        uint32_t f = w->reserve[--w->reserved];
        bool spared;
        error = page_read(t, miss, f, bytes, &spared);
        if (error == 0) error = page_install_recalling(t, w, recall, miss, f, &state);
        if (state == HANG_FRAMES) w->target = RW_MIN(2 * w->target, RW_ARRAY_SIZE(w->reserve));
        if (error != 0 || state != HANG_DONE) pool_frame_free(&t->pool, f);
    }
    kio_mutex_unlock(t->kio, &t->split_mutex);
    tree_writer_close(w);
    return error;
}

/* A leaf of a spill was read, or result, an error, came instead. *kept: the record that was wanted of it is here now; else only the leaf of the tree will do. */
static int spilled_take(trees *t, const tree_miss *miss, const node *n, int result, bool *kept)
{
    int error = result != 0 ? result : recall_check(t->store, &t->pool, miss->ref, n);
    *kept = error == 0 && records_keep(&t->records, miss->leaf, n, miss->asked, &t->pending.spills, miss->spills);
    if (error == 0) atomic_fetch_add_explicit(&t->pool.counters.pages_read, 1, memory_order_relaxed);
    if (*kept) atomic_fetch_add_explicit(&t->pending.spill_answers, 1, memory_order_relaxed);
    return error;
}

/* What cannot be read or believed: the place may have been used again meanwhile, or cut off with the file's end; it is an error when it is met twice. */
static int load_result(int error, page_ref ref, page_ref *suspect)
{
    if ((error != RW_ECORRUPT && error != RW_EIO) || (suspect->word == ref.word && suspect->checksum == ref.checksum)) return error;
    *suspect = ref;
    return 0;
}

static int page_load(trees *t, const tree_miss *miss, const void *bytes, page_ref *suspect)
{
    uint64_t address = page_ref_address(miss->ref);
    if (!pool_load_begin(&t->pool, address)) return 0;
    uint32_t f;
    int error = pool_frame_take(&t->pool, &f);
    if (error == 0) {
        hang_state state = HANG_STALE;
        leaf_recall recall = {0};
        bool spared;
        error = page_read(t, miss, f, bytes, &spared);
        if (error == 0 && !spared) error = page_install_recalling(t, NULL, &recall, miss, f, &state);
        if (state != HANG_DONE) pool_frame_free(&t->pool, f);
        if (state == HANG_FRAMES) error = page_install_splitting(t, &recall, miss, bytes);
        recall_free(&recall);
    }
    pool_load_end(&t->pool, address);
    return load_result(error, miss->ref, suspect);
}

int trees_load(trees *t, const tree_miss *miss, page_ref *suspect)
{
    RW_ASSERT(!miss->spilled);
    return page_load(t, miss, NULL, suspect);
}

/* What the leaf of a spill says of the key. */
static bool spilled_find(const trees *t, const node *n, rw_slice key, void *buf, size_t room, pending_value *out)
{
    bool found;
    unsigned flags = 0, slot = node_lower_bound(n, t->page_size, key, &found);
    if (!found) return false;
    rw_slice value = node_value(n, t->page_size, slot, &flags);
    *out = (pending_value){.timestamp = TREES_TIMESTAMP_UNKNOWN, .size = value.size, .fits = value.size <= room};
    if (out->fits && value.size > 0) memcpy(buf, value.data, value.size);
    return true;
}

int tree_spilled_get(trees *t, const tree_miss *miss, rw_slice key, void *buf, size_t room, pending_value *out, bool *found, page_ref *suspect)
{
    uint32_t f;
    bool kept;
    *found = false;
    int error = pool_frame_take(&t->pool, &f);
    if (error != 0) return error;
    node *n = tree_node(t, f);
    error = kio_file_read(t->kio, store_file(t->store), n, t->page_size, page_ref_address(miss->ref) * RW_BLOCK_SIZE);
    error = spilled_take(t, miss, n, error, &kept);
    if (error == 0) *found = spilled_find(t, n, key, buf, room, out);
    if (*found && !kept) atomic_fetch_add_explicit(&t->pending.spill_answers, 1, memory_order_relaxed);
    pool_frame_free(&t->pool, f);
    if (error != 0) return load_result(error, miss->ref, suspect);
    const tree_miss leaf = {.ref = miss->leaf}; /* the filter was wrong; what the leaf's image alone says may be out of date */
    return *found ? 0 : page_load(t, &leaf, NULL, suspect);
}

int trees_load_bytes(trees *t, const tree_miss *miss, const void *bytes, page_ref *suspect)
{
    return page_load(t, miss, bytes, suspect);
}

int trees_read_claim(trees *t, const tree_miss *miss, tree_read *read)
{
    RW_ASSERT(page_ref_blocks(miss->ref) == t->pool.page_blocks);
    if (!pool_load_try(&t->pool, page_ref_address(miss->ref))) return TREE_BUSY;
    uint32_t f = pool_frame_try(&t->pool);
    if (f == FRAME_NONE) {
        pool_load_end(&t->pool, page_ref_address(miss->ref));
        return TREE_FRAMES;
    }
    *read = (tree_read){.miss = *miss, .frame = f};
    return 0;
}

int trees_read_begin(trees *t, const tree_miss *miss, tree_read *read, kio_op *op)
{
    int state = trees_read_claim(t, miss, read);
    if (state != 0) return state;
    op->kind = KIO_READ;
    op->file = store_file(t->store);
    op->buffer = tree_node(t, read->frame);
    op->offset = page_ref_address(miss->ref) * RW_BLOCK_SIZE;
    op->length = t->page_size;
    return 0;
}

/* result: of the read. */
static int read_check(trees *t, const tree_read *read, int result)
{
    const node *n = tree_node(t, read->frame);
    int error = result;
    if (error == 0) error = store_page_check(t->store, read->miss.ref, n);
    return error == 0 ? page_check(t, &read->miss, n) : error;
}

static void read_done(trees *t, tree_read *read, hang_state state)
{
    if (state != HANG_DONE) {
        pool_frame_free(&t->pool, read->frame);
        read->frame = FRAME_NONE;
    }
    pool_load_end(&t->pool, page_ref_address(read->miss.ref));
}

int trees_read_end(trees *t, tree_read *read, int result)
{
    node *n = tree_node(t, read->frame);
    if (read->miss.spilled) {
        bool kept;
        int failed = spilled_take(t, &read->miss, n, result, &kept);
        read_done(t, read, HANG_STALE);
        return failed == 0 && !kept ? TREE_FRAMES : failed;
    }
    int error = read->checked ? 0 : read_check(t, read, result);
    bool spared = error == 0 && !read->checked && leaf_note(t, &read->miss, n);
    read->checked = error == 0;
    hang_state state = HANG_STALE;
    if (error == 0 && !spared) {
        partition *p = trees_try(t, node_lower_fence(n));
        if (p == NULL) return TREE_BUSY;
        state = page_install(t, p, NULL, NULL, &read->miss, read->frame);
        trees_unlock(t, p);
    }
    read_done(t, read, state);
    return error == 0 && (state == HANG_FRAMES || state == HANG_RECALL) ? TREE_FRAMES : error;
}

int trees_read_check(trees *t, tree_read *read, const void *bytes, int result)
{
    if (read->checked) return 0;
    if (result == 0) memcpy(tree_node(t, read->frame), bytes, t->page_size);
    int error = read_check(t, read, result);
    read->checked = error == 0;
    return error;
}

#define INSTALL_ATTEMPTS 4u            /* each that fails has made room in another page above */

int trees_read_end_changing(trees *t, tree_read *read, const void *bytes, int result, tree_writer *w)
{
    hang_state state = HANG_STALE;
    leaf_recall own = {0}, *recall = w->recall != NULL ? w->recall : &own;
    int error = trees_read_check(t, read, bytes, result);
    for (unsigned i = 0; i < INSTALL_ATTEMPTS && error == 0; i++) {
        if (i > 0) memcpy(tree_node(t, read->frame), bytes, t->page_size);
        int filled = tree_writer_fill(w); /* most pages need none of it */
        error = page_install_recalling(t, w, recall, &read->miss, read->frame, &state);
        if (filled != 0 || (state != HANG_FRAMES && state != HANG_PARENT)) break;
    }
    recall_free(&own);
    /* not because somebody uses it: the clock need not come by twice */
    if (state == HANG_DONE) atomic_store_explicit(&tree_frame(t, read->frame)->cool, 1, memory_order_relaxed);
    read_done(t, read, state);
    return error;
}

#define RUNS_SHARE 8u                  /* of the frames, at most, for the leaves of all runs that are being read */

/* One of a run's: its bytes, or NULL. False: what spills hold for it has to be read, which the recall wants. */
static bool run_page_end(trees *t, tree_read *read, leaf_recall *recall, const void *bytes)
{
    node *n = tree_node(t, read->frame);
    hang_state state = HANG_STALE;
    if (bytes != NULL && !read->checked) memcpy(n, bytes, t->page_size);
    if (bytes != NULL && (read->checked || read_check(t, read, 0) == 0)) {
        if (!read->checked) (void)leaf_note(t, &read->miss, n);
        read->checked = true;
        state = page_install_alone(t, NULL, recall, &read->miss, read->frame);
        if (state == HANG_RECALL) return false;
    }
    if (state == HANG_DONE) atomic_store_explicit(&tree_frame(t, read->frame)->cool, FRAME_FRESH, memory_order_relaxed);
    read_done(t, read, state);
    return true;
}

/* Those for which something has to be read before: that is read for all of them together. */
static void run_recall(trees *t, tree_read *reads, unsigned count, leaf_recall *recall)
{
    while (count > 0 && recall_read(recall, t->kio, t->store, &t->pool) == 0) {
        unsigned left = 0;
        for (unsigned i = 0; i < count; i++)
            if (!run_page_end(t, &reads[i], recall, tree_node(t, reads[i].frame))) reads[left++] = reads[i];
        count = left;
    }
    for (unsigned i = 0; i < count; i++) read_done(t, &reads[i], HANG_STALE); /* who needs one reads it alone, and learns why it cannot be had */
}

/* Reads of what lies side by side, in either direction; bytes: room for all. Returns how many reads that takes. */
static unsigned run_reads(trees *t, const tree_read *reads, unsigned count, unsigned char *bytes, kio_op *ops)
{
    unsigned made = 0;
    const int64_t blocks = (int64_t)t->pool.page_blocks;
    for (unsigned i = 0, next; i < count; i = next, made++) {
        int64_t first = (int64_t)page_ref_address(reads[i].miss.ref), last = first, step = 0;
        for (next = i + 1; next < count; next++) {
            int64_t address = (int64_t)page_ref_address(reads[next].miss.ref);
            if (step == 0 && (address == last + blocks || address == last - blocks)) step = address - last;
            if (step == 0 || address != last + step) break;
            last = address;
        }
        ops[made] = (kio_op){.kind = KIO_READ, .file = store_file(t->store), .buffer = bytes + (size_t)i * t->page_size,
                             .offset = (uint64_t)RW_MIN(first, last) * RW_BLOCK_SIZE, .length = (next - i) * t->page_size};
    }
    return made;
}

/* Who holds a token that one of the run's pages waits for may want a frame itself: so all runs together hold few. */
static unsigned run_admit(trees *t, unsigned wanted)
{
    uint32_t most = t->pool.frame_count / RUNS_SHARE, held = atomic_fetch_add_explicit(&t->run_frames, wanted, memory_order_relaxed);
    unsigned admitted = held >= most ? 0 : RW_MIN(wanted, most - held);
    atomic_fetch_sub_explicit(&t->run_frames, wanted - admitted, memory_order_relaxed);
    return admitted;
}

/* With frames for as many. */
static void run_load(trees *t, const tree_miss *leaves, unsigned count)
{
    tree_read reads[LEAF_RUN_MAX];
    kio_op ops[LEAF_RUN_MAX], *submitted[LEAF_RUN_MAX];
    leaf_recall recall = {0};
    unsigned claimed = 0, left = 0;
    while (claimed < count && trees_read_claim(t, &leaves[claimed], &reads[claimed]) == 0) claimed++;
    if (claimed == 0) return;
    unsigned char *bytes = rw_memory_aligned((size_t)claimed * t->page_size);
    unsigned made = bytes != NULL ? run_reads(t, reads, claimed, bytes, ops) : 0;
    for (unsigned i = 0; i < made; i++) submitted[i] = &ops[i];
    if (made > 0) kio_read_all(t->kio, submitted, made);
    for (unsigned i = 0, op = 0; i < claimed; i++) {
        const unsigned char *at = NULL;
        if (made > 0) {
            uint64_t offset = page_ref_address(reads[i].miss.ref) * RW_BLOCK_SIZE;
            while (offset < ops[op].offset || offset >= ops[op].offset + ops[op].length) op++;
            at = ops[op].result == 0 ? (const unsigned char *)ops[op].buffer + (offset - ops[op].offset) : NULL;
        }
        if (!run_page_end(t, &reads[i], &recall, at)) reads[left++] = reads[i];
    }
    free(bytes);
    run_recall(t, reads, left, &recall);
    recall_free(&recall);
}

void tree_load_run(trees *t, const tree_miss *leaves, unsigned count)
{
    RW_ASSERT(count <= LEAF_RUN_MAX);
    unsigned admitted = run_admit(t, count);
    run_load(t, leaves, admitted);
    atomic_fetch_sub_explicit(&t->run_frames, admitted, memory_order_relaxed);
}

#define FRAMES_TO_SPLIT (FOLD_PAGES_MAX - 1)
#define RESERVE_LEAST 2u

/* What a leaf that has to be split on its way in was lacking: more frames than the last time, all that it could need if they are free. */
static int room_holding(tree_writer *w, partition *p, const partition_set *held, hang_state state, rw_slice lower, unsigned least)
{
    tree_miss above;
    int error = 0;
    while (w->reserved < FRAMES_TO_SPLIT && error == 0) {
        uint32_t f = pool_frame_try(&w->t->pool);
        if (f == FRAME_NONE && w->reserved >= least) break;
        if (f == FRAME_NONE) error = pool_frame_take_holding(&w->t->pool, held, &f);
        if (error == 0) w->reserve[w->reserved++] = f;
    }
    if (error == 0 && state == HANG_PARENT) (void)tree_make_room_above(w, p, lower, &above);
    return error;
}

int trees_load_holding(tree_writer *w, partition *p, const partition_set *held, const tree_miss *miss)
{
    trees *t = w->t;
    uint32_t f = pool_frame_try(&t->pool);
    int error = 0;
    if (f == FRAME_NONE && w->reserved > 0) f = w->reserve[--w->reserved];
    if (f == FRAME_NONE) error = pool_frame_take_holding(&t->pool, held, &f);
    if (error != 0) return error;
    hang_state state;
    leaf_recall recall = {0};
    unsigned least = RESERVE_LEAST;
    do {
        bool spared;
        error = page_read(t, miss, f, NULL, &spared);
        state = error == 0 ? page_install(t, p, w, &recall, miss, f) : HANG_STALE;
        if (state == HANG_RECALL) error = recall_read(&recall, t->kio, t->store, &t->pool);
        if (state == HANG_FRAMES || state == HANG_PARENT) error = room_holding(w, p, held, state, node_lower_fence(tree_node(t, f)), least++);
    } while (error == 0 && (state == HANG_FRAMES || state == HANG_PARENT || state == HANG_RECALL));
    recall_free(&recall);
    if (state != HANG_DONE) pool_frame_free(&t->pool, f);
    return error;
}
