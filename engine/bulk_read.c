/*
 * Pages of a partition, many at once, for the checkpointer: in the order in which they lie on disk, those that lie side by side with one read. An image leaves a partition's
 * leaves so; what is read with them costs a copy, where a read of its own costs a request.
 *
 * Leaves that pending writes changed on their way in are written again while the next ones are read, and give their frames back: so a flush takes few frames, however large
 * the partition, and pages that are in use stay.
 */
#include "engine/engine_internal.h"

#define RUN_BYTES RW_MAX(RW_SEGMENT_BYTES / 16, RW_PAGE_SIZE_MAX)
#define RUNS (RW_SEGMENT_BYTES / RUN_BYTES)    /* reads under way at a time, beside a write; together they take the buffer of cleaning */
#define RUN_PAGES_MAX (RUN_BYTES / RW_PAGE_SIZE_MIN)
#define GAP_BYTES 16384u               /* nobody asked for, read all the same, rather than begin another run */
#define WINDOW_PAGES (RUNS * RUN_PAGES_MAX) /* of those that are written again, so many are brought into the order of their places: else they come, and lie, in key order */
#define FRAMES_SHARE 16u               /* runs under way hold at most this part of the frames */
#define FRAME_WAITS_MAX 1000u
#define PACKED_AT_ONCE 1u              /* leaves filled up under one hold of the token */

_Static_assert(RUNS >= 1 && RUNS < CHECKPOINT_RING_DEPTH, "all reads and the write are under way together");

typedef struct {
    kio_op op;
    unsigned char *bytes;
    uint64_t begin, end;               /* blocks */
    unsigned count;
    tree_read reads[RUN_PAGES_MAX];
} page_run;

typedef struct {
    engine *e;
    kio_ring *ring;
    page_run runs[RUNS];
    page_run *idle[RUNS];
    page_run *landed[RUNS];            /* read, and not hung in yet */
    unsigned idle_count, landed_count;
    uint32_t frames, frames_max;       /* that runs hold */
    partition *rewritten;              /* NULL: pages are only read, or could not be written */
    bool all;                          /* clean ones too */
    bool writing;                      /* the checkpointer's batch is under way */
    uint32_t came[RW_WRITE_BATCH_BYTES / RW_PAGE_SIZE_MIN + RUNS * RUN_PAGES_MAX]; /* frames of its leaves, to be written; no run begins while there is a batch of them */
    uint32_t came_count;
} bulk_read;

int bulk_place_compare(const void *a, const void *b)
{
    uint64_t x = page_ref_address(((const tree_miss *)a)->ref), y = page_ref_address(((const tree_miss *)b)->ref);
    return x < y ? -1 : x > y;
}

/* Whether the page lies where the run may still reach. */
static bool run_reaches(const bulk_read *b, const page_run *run, uint64_t address)
{
    if (run->count == 0) return true;
    uint64_t end = address + b->e->trees.pool.page_blocks;
    return run->count < RUN_PAGES_MAX && (end - run->begin) * RW_BLOCK_SIZE <= RUN_BYTES && address - run->end <= GAP_BYTES / RW_BLOCK_SIZE;
}

/* Returns how many pages were dealt with: those that somebody else reads are left to him. */
static uint32_t run_fill(bulk_read *b, page_run *run, const tree_miss *pages, uint32_t count)
{
    trees *t = &b->e->trees;
    uint32_t i = 0;
    run->count = 0;
    for (; i < count && b->frames < b->frames_max; i++) {
        uint64_t address = page_ref_address(pages[i].ref);
        if (!run_reaches(b, run, address)) break;
        int state = trees_read_claim(t, &pages[i], &run->reads[run->count]);
        if (state == TREE_FRAMES) break;
        if (state != 0) continue;
        if (run->count++ == 0) run->begin = address;
        run->end = address + t->pool.page_blocks;
        b->frames++;
        atomic_fetch_add(&b->e->checkpointer.flush_frames, 1);
    }
    return i;
}

static void run_submit(bulk_read *b, page_run *run)
{
    kio_op *op = &run->op;
    *op = (kio_op){.kind = KIO_READ, .file = store_file(b->e->store), .buffer = run->bytes, .context = run};
    op->offset = run->begin * RW_BLOCK_SIZE;
    op->length = (uint32_t)((run->end - run->begin) * RW_BLOCK_SIZE);
    kio_ring_submit(b->e->kio, b->ring, &op, 1);
}

/* ---- writing again ------------------------------------------------------------------------------------------------ */

/* Under the token: whether the frame, which may be another page's by now, has something to write. */
static bool wants_writing(const bulk_read *b, uint32_t f)
{
    const frame *fr = &b->e->trees.pool.frames[f];
    return atomic_load_explicit(&fr->partition, memory_order_relaxed) == b->rewritten->index && fr->level == 0 && fr->parent != FRAME_NONE &&
           (fr->flags & FRAME_DIRTY) != 0 && (fr->flags & FRAME_WRITING) == 0;
}

static int key_compare(const void *a, const void *b, void *arg)
{
    const pool *frames = arg;
    return rw_slice_compare(node_lower_fence(pool_page(frames, *(const uint32_t *)a)), node_lower_fence(pool_page(frames, *(const uint32_t *)b)));
}

/* Under the token: what came, in key order. Those that are written next, and others to fill them from, count as changed even if they are not. Returns how many these are. */
static uint32_t came_order(bulk_read *b)
{
    pool *frames = &b->e->trees.pool;
    uint32_t left = 0;
    for (uint32_t i = 0; i < b->came_count; i++) {
        const frame *fr = &frames->frames[b->came[i]];
        if (atomic_load_explicit(&fr->partition, memory_order_relaxed) != b->rewritten->index || fr->level != 0 || fr->parent == FRAME_NONE) continue;
        if ((fr->flags & FRAME_WRITING) == 0) b->came[left++] = b->came[i]; /* else a worker has evicted it, or will */
    }
    b->came_count = left;
    qsort_r(b->came, left, sizeof *b->came, key_compare, frames);
    left = RW_MIN(left, b->e->checkpointer.batch.capacity * 3 / 2 + 1); /* no more: without space nobody can make them clean */
    for (uint32_t i = 0; i < left; i++) pool_mark_dirty(frames, b->rewritten, b->came[i]);
    return left;
}

static bool list_has(const uint32_t *list, uint32_t count, uint32_t f)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == f) return true;
    return false;
}

/* Under the token: a leaf that came, with those that it was split into on its way in, each filled from its neighbour: an image of few pages is written, and read, sooner. */
static uint32_t leaf_list(bulk_read *b, uint32_t f, uint32_t *list, uint32_t count)
{
    tree_writer *w = b->e->checkpointer.writer;
    while (f != FRAME_NONE && count < b->e->checkpointer.batch.capacity && !list_has(list, count, f)) {
        while (tree_pack(w, b->rewritten, f, b->all)) continue;
        list[count++] = f;
        f = tree_unwritten_neighbour(&b->e->trees, f);
    }
    return count;
}

/* Without those that went into a left neighbour that came after them, or that somebody else wrote meanwhile. */
static uint32_t list_clean(const bulk_read *b, uint32_t *list, uint32_t count)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++)
        if (wants_writing(b, list[i])) list[left++] = list[i];
    return left;
}

static void rewriting_end(bulk_read *b)
{
    b->rewritten = NULL;
    b->came_count = 0;
}

/* Under the token, which is given up, and given to others after each leaf: brings leaves of the list to the checkpointer's batch. Returns how many were dealt with. */
static uint32_t list_fill(const bulk_read *b, const uint32_t *list, uint32_t count, int *error)
{
    pool *frames = &b->e->trees.pool;
    write_batch *batch = &b->e->checkpointer.batch;
    uint32_t done = 0;
    bool held = true;
    *error = count > 0 ? write_batch_begin(frames, batch, b->rewritten, count) : 0;
    for (; held && *error == 0 && done < count && batch->count < batch->places; done++) {
        if (wants_writing(b, list[done])) (void)write_batch_add(frames, batch, &list[done], 1);
        held = write_batch_yield(frames, batch);
    }
    if (held) partition_unlock(b->e->kio, b->rewritten);
    if (*error == 0 && count > 0) write_batch_close(frames, batch);
    return done;
}

/* Begins to write some of the leaves that came, but for the last one while others may come that it could be filled from. */
static void came_write(bulk_read *b, bool more_come)
{
    uint32_t list[RW_WRITE_BATCH_BYTES / RW_PAGE_SIZE_MIN], count = 0, i = 0;
    write_batch *batch = &b->e->checkpointer.batch;
    if (atomic_load(&b->e->trees.pool.write_error) != 0) {
        rewriting_end(b); /* B7 */
        return;
    }
    partition_lock(b->e->kio, b->rewritten);
    uint32_t ready = b->all ? came_order(b) : b->came_count;
    uint32_t end = (more_come || ready < b->came_count) && ready > 1 ? ready - 1 : ready;
    for (; i < end && count < batch->capacity; i++) {
        if (wants_writing(b, b->came[i])) count = leaf_list(b, b->came[i], list, count);
        if ((i + 1) % PACKED_AT_ONCE != 0) continue;
        partition_pass(b->e->kio, b->rewritten);
    }
    count = list_clean(b, list, count);
    int error;
    uint32_t filled = list_fill(b, list, count, &error), left = 0; /* fewer where a segment ends, or somebody else has the token */
    for (uint32_t k = filled; k < count && left < i; k++) b->came[left++] = list[k];
    for (; i < b->came_count; i++) b->came[left++] = b->came[i];
    b->came_count = left;
    if (error != 0) {
        rewriting_end(b);
    } else if (filled > 0) {
        kio_op *op = &batch->op;
        kio_ring_submit(b->e->kio, b->ring, &op, 1);
        b->writing = true;
    }
}

static void write_end(bulk_read *b)
{
    b->writing = false;
    if (checkpoint_batch_end(b->e, true) != 0) rewriting_end(b);
}

static bool came_enough(const bulk_read *b)
{
    return b->came_count >= b->e->checkpointer.batch.capacity;
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static const unsigned char *run_page(const page_run *run, unsigned i)
{
    return run->bytes + (page_ref_address(run->reads[i].miss.ref) - run->begin) * RW_BLOCK_SIZE;
}

/* What of it needs no token, while something is being written. */
static void run_check(bulk_read *b, page_run *run)
{
    for (unsigned i = 0; i < run->count; i++) (void)trees_read_check(&b->e->trees, &run->reads[i], run_page(run, i), run->op.result);
}

/* Hangs its pages in. What failed, or has no place, is looked at alone later. */
static void run_end(bulk_read *b, page_run *run)
{
    trees *t = &b->e->trees;
    for (unsigned i = 0; i < run->count; i++) {
        tree_read *read = &run->reads[i];
        (void)trees_read_end_changing(t, read, run_page(run, i), run->op.result, b->e->checkpointer.writer);
        if (read->frame != FRAME_NONE && b->rewritten != NULL) b->came[b->came_count++] = read->frame;
        atomic_fetch_sub(&b->e->checkpointer.flush_frames, 1);
    }
    b->frames -= run->count;
    b->idle[b->idle_count++] = run;
}

/* Nothing is under way that would give a frame back. */
static bool frame_await(engine *e)
{
    uint32_t f;
    if (pool_frame_take(&e->trees.pool, &f) != 0) return false;
    pool_frame_free(&e->trees.pool, f);
    return true;
}

/* Returns how many pages were dealt with. */
static uint32_t runs_begin(bulk_read *b, const tree_miss *pages, uint32_t count)
{
    uint32_t begun = 0;
    if (b->all && b->rewritten == NULL) return count; /* those that something waits for are read by who comes next */
    while (begun < count && b->idle_count > 0 && !came_enough(b)) {
        page_run *run = b->idle[b->idle_count - 1];
        begun += run_fill(b, run, pages + begun, count - begun);
        if (run->count == 0) break;
        b->idle_count--;
        run_submit(b, run);
    }
    return begun;
}

/*
 * Pages are hung in only while nothing is being written: that takes tokens and frames, and who waits for these with a token in hand can let the pages of a batch that was
 * written go, but not those of one that is on its way (B6).
 */
static void something_end(bulk_read *b)
{
    kio_op *done[RUNS + 1];
    unsigned reaped = kio_ring_reap(b->e->kio, b->ring, done, RUNS + 1, -1);
    for (unsigned i = 0; i < reaped; i++) {
        if (done[i] == &b->e->checkpointer.batch.op) write_end(b);
        else b->landed[b->landed_count++] = done[i]->context;
    }
    for (unsigned i = 0; i < b->landed_count && b->writing; i++) run_check(b, b->landed[i]);
    if (b->writing) return;
    for (unsigned i = 0; i < b->landed_count; i++) run_end(b, b->landed[i]);
    b->landed_count = 0;
}

static void runs_read(bulk_read *b, const tree_miss *pages, uint32_t count)
{
    uint32_t begun = 0;
    for (unsigned waits = 0; waits < FRAME_WAITS_MAX;) {
        begun += runs_begin(b, pages + begun, count - begun);
        bool reading = b->idle_count < RUNS;
        bool ready = !reading || (came_enough(b) && !b->all); /* all that was begun has come: in key order nothing lies between */
        if (b->came_count > 0 && !b->writing && ready) came_write(b, reading || (b->all && begun < count));
        if (reading || b->writing) something_end(b);
        else if (begun == count || !frame_await(b->e)) return;
        else waits++;
    }
}

/* False: not all that came was written again. */
static bool pages_bring(engine *e, partition *rewritten, bool all, tree_miss *pages, uint32_t count)
{
    if (count == 0) return true;
    bulk_read *b = malloc(sizeof *b);
    if (b == NULL) return false;
    b->e = e;
    b->ring = e->checkpointer.ring;
    if (b->ring == NULL && kio_ring_open(e->kio, CHECKPOINT_RING_DEPTH, &b->ring) != 0) {
        free(b);
        return false;
    }
    b->idle_count = b->landed_count = b->frames = b->came_count = 0;
    b->rewritten = rewritten;
    b->all = all;
    b->writing = false;
    b->frames_max = RW_MAX(e->trees.pool.frame_count / FRAMES_SHARE, 1u);
    for (unsigned i = 0; i < RUNS; i++) {
        b->runs[i].bytes = e->checkpointer.segment + (size_t)i * RUN_BYTES;
        b->idle[b->idle_count++] = &b->runs[i];
    }
    uint32_t window = all ? WINDOW_PAGES : count;
    for (uint32_t i = 0; i < count; i += window) qsort(pages + i, RW_MIN(window, count - i), sizeof *pages, bulk_place_compare);
    runs_read(b, pages, count);
    if (e->checkpointer.ring == NULL) kio_ring_close(e->kio, b->ring);
    bool written = b->rewritten != NULL;
    free(b);
    tree_writer *w = e->checkpointer.writer;
    while (w->reserved > 0) pool_frame_free(&e->trees.pool, w->reserve[--w->reserved]);
    return written;
}

void bulk_read_pages(engine *e, tree_miss *pages, uint32_t count)
{
    (void)pages_bring(e, NULL, false, pages, count);
}

bool bulk_rewrite_leaves(engine *e, partition *p, tree_miss *pages, uint32_t count, bool all)
{
    return pages_bring(e, p, all, pages, count);
}
