/* Reading missing pages and hanging them into their trees; taking and giving up frames as pages of a tree. */
#include "base/memory.h"
#include "base/planted.h"
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

/* ---- loading ----------------------------------------------------------------------------------------------------- */

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
    if (miss->asked != 0) return records_keep(&t->records, miss->ref, n, miss->asked) && !miss->stays;
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
    HANG_PARENT                /* the same, and the parent has no room for another child */
} hang_state;

/* The child at slot of parent, which is on disk as disk, is in frame f from now on. */
static void child_hang(trees *t, partition *p, uint32_t f, unsigned level, uint32_t parent, unsigned slot, page_ref disk, leaf_fold *fold)
{
    page_ref in_memory = tree_ref_of_frame(f);
    in_memory.estimate = disk.estimate;
    tree_frame_install(t, p, f, level, parent, disk);
    frame_change_begin(tree_frame(t, parent));
    node_child_set(tree_node(t, parent), slot, in_memory);
    if (fold != NULL) fold_hang_rest(fold, parent, slot);
    frame_change_end(tree_frame(t, parent));
}

/* A leaf that writes wait for. */
static hang_state leaf_hang(trees *t, partition *p, tree_writer *w, uint32_t f, uint32_t parent, unsigned slot, page_ref disk, const pending_leaf *waiting)
{
    leaf_fold fold;
    hang_state state = HANG_DONE;
    fold_begin(&fold, t, p, w, f);
    if ((w == NULL && fold_needs_writer(&fold, waiting)) || !fold_writes(&fold, waiting)) state = HANG_FRAMES;
    else if (!fold_fits_parent(&fold, tree_node(t, parent))) state = HANG_PARENT;
    if (state == HANG_DONE) {
        child_hang(t, p, f, 0, parent, slot, disk, &fold);
        fold_finish(&fold, disk);
    }
    fold_end(&fold);
    return state;
}

/* Hangs a page that was read under its parent, if the parent still names it on disk. The page's own lower fence leads there. w: or NULL. */
static hang_state page_install(trees *t, partition *p, tree_writer *w, const tree_miss *miss, uint32_t f)
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
    if (waiting != NULL) {
        hang_state state = leaf_hang(t, p, w, f, parent, slot, disk, waiting);
        if (state != HANG_DONE) return state;
    } else child_hang(t, p, f, miss->level, parent, slot, disk, NULL);
    if (miss->level == 0) leaf_hints_note(t, f);
    if (miss->asked != 0) atomic_store_explicit(&tree_frame(t, f)->cool, FRAME_FRESH, memory_order_relaxed);
    return HANG_DONE;
}

/* One attempt without tokens. The bytes in f were checked. */
static hang_state page_install_alone(trees *t, tree_writer *w, const tree_miss *miss, uint32_t f)
{
    tree_miss above;
    partition *p = trees_lock(t, node_lower_fence(tree_node(t, f)));
    hang_state state = page_install(t, p, w, miss, f);
    if (state == HANG_PARENT) (void)tree_make_room_above(w, p, node_lower_fence(tree_node(t, f)), &above); /* the next attempt finds out */
    trees_unlock(t, p);
    return state;
}

/*
 * With a writer, for a leaf that has to be split. One thread at a time, and nobody waits for his turn with a frame in hand: a small cache has not so many. The page is
 * read again, unless the caller has its bytes.
 */
static int page_install_splitting(trees *t, const tree_miss *miss, const void *bytes)
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
        if (error == 0) state = page_install_alone(t, w, miss, f);
        if (error != 0 || state != HANG_DONE) pool_frame_free(&t->pool, f);
    }
    kio_mutex_unlock(t->kio, &t->split_mutex);
    tree_writer_close(w);
    return error;
}

static int page_load(trees *t, const tree_miss *miss, const void *bytes, page_ref *suspect)
{
    uint64_t address = page_ref_address(miss->ref);
    if (!pool_load_begin(&t->pool, address)) return 0;
    uint32_t f;
    int error = pool_frame_take(&t->pool, &f);
    if (error == 0) {
        hang_state state = HANG_STALE;
        bool spared;
        error = page_read(t, miss, f, bytes, &spared);
        if (error == 0 && !spared) state = page_install_alone(t, NULL, miss, f);
        if (state != HANG_DONE) pool_frame_free(&t->pool, f);
        if (state == HANG_FRAMES) error = page_install_splitting(t, miss, bytes);
    }
    pool_load_end(&t->pool, address);
    /* Its old place may have been used again, or cut off with the file's end. */
    if ((error == RW_ECORRUPT || error == RW_EIO) && (suspect->word != miss->ref.word || suspect->checksum != miss->ref.checksum)) {
        *suspect = miss->ref;
        return 0;
    }
    return error;
}

int trees_load(trees *t, const tree_miss *miss, page_ref *suspect)
{
    return page_load(t, miss, NULL, suspect);
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
    int error = read->checked ? 0 : read_check(t, read, result);
    bool spared = error == 0 && !read->checked && leaf_note(t, &read->miss, n);
    read->checked = error == 0;
    hang_state state = HANG_STALE;
    if (error == 0 && !spared) {
        partition *p = trees_try(t, node_lower_fence(n));
        if (p == NULL) return TREE_BUSY;
        state = page_install(t, p, NULL, &read->miss, read->frame);
        trees_unlock(t, p);
    }
    read_done(t, read, state);
    return error == 0 && state == HANG_FRAMES ? TREE_FRAMES : error;
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
    int error = trees_read_check(t, read, bytes, result);
    for (unsigned i = 0; i < INSTALL_ATTEMPTS && error == 0; i++) {
        if (i > 0) memcpy(tree_node(t, read->frame), bytes, t->page_size);
        int filled = tree_writer_fill(w); /* most pages need none of it */
        state = page_install_alone(t, w, &read->miss, read->frame);
        if (filled != 0 || (state != HANG_FRAMES && state != HANG_PARENT)) break;
    }
    /* not because somebody uses it: the clock need not come by twice */
    if (state == HANG_DONE) atomic_store_explicit(&tree_frame(t, read->frame)->cool, 1, memory_order_relaxed);
    read_done(t, read, state);
    return error;
}

#define RUNS_SHARE 8u                  /* of the frames, at most, for the leaves of all runs that are being read */

/* One of a run's: its bytes, or NULL. */
static void run_page_end(trees *t, tree_read *read, const void *bytes)
{
    node *n = tree_node(t, read->frame);
    hang_state state = HANG_STALE;
    if (bytes != NULL) memcpy(n, bytes, t->page_size);
    if (bytes != NULL && read_check(t, read, 0) == 0) {
        (void)leaf_note(t, &read->miss, n);
        state = page_install_alone(t, NULL, &read->miss, read->frame);
    }
    if (state == HANG_DONE) atomic_store_explicit(&tree_frame(t, read->frame)->cool, FRAME_FRESH, memory_order_relaxed);
    read_done(t, read, state);
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
    unsigned claimed = 0;
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
        run_page_end(t, &reads[i], at);
    }
    free(bytes);
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
    unsigned least = RESERVE_LEAST;
    do {
        bool spared;
        error = page_read(t, miss, f, NULL, &spared);
        state = error == 0 ? page_install(t, p, w, miss, f) : HANG_STALE;
        if (state == HANG_FRAMES || state == HANG_PARENT) error = room_holding(w, p, held, state, node_lower_fence(tree_node(t, f)), least++);
    } while (error == 0 && (state == HANG_FRAMES || state == HANG_PARENT));
    if (state != HANG_DONE) pool_frame_free(&t->pool, f);
    return error;
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
