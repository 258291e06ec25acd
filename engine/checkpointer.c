/* The checkpointer's thread: when to image which partition, when to cut one, when to clean. */
#include "base/memory.h"
#include "engine/merge.h"

#define CHECKPOINT_SHARE 8u            /* a batch of a checkpoint holds at most this part of the frames */
#define PUBLISH_SHARE 32u              /* of the used space may wait for a superblock, at most */
#define LOOK_NS 20000000               /* between looks at the log's length, when nothing is asked */
#define COMPACT_LIVE_PERCENT 95u
#define RETIRED_DIVISOR 8u             /* a partition is imaged when runs worth 1/8 of it wait for a checkpoint */
#define RETIRED_BLOCKS_MIN 256u

/* ---- cutting partitions ------------------------------------------------------------------------------------------ */

/* Pages only: partition_bytes bounds what an image may have to write, and extents are in none. */
static bool split_allowed(engine *e, partition *p)
{
    uint64_t bytes = trees_pages(&e->trees, p) * e->page_size;
    uint32_t partitions = router_count(&e->trees.router);
    uint64_t most = partitions < RW_PARTITIONS_FEW ? e->checkpointer.partition_bytes_few : e->options.partition_bytes;
    return bytes > most && atomic_load(&e->trees.pool.space_error) == 0 && tree_height(&e->trees, p) > 1 && partitions < RW_PARTITIONS_MAX && partitions * 32u < e->trees.pool.frame_count;
}

typedef struct {
    store_image image;
    store_partition entries[RW_PARTITIONS_MAX];
} table_size_probe;

static void probe_add(void *arg, uint16_t index, rw_slice low)
{
    table_size_probe *probe = arg;
    (void)index;
    probe->entries[probe->image.partition_count++] = (store_partition){.low_key = low, .spill_count = STORE_SPILLS_MAX};
}

bool table_has_room(engine *e, bool one_more)
{
    table_size_probe *probe = calloc(1, sizeof *probe);
    unsigned char *longest = calloc(1, e->trees.router.key_stride);
    bool room = false;
    if (probe != NULL && longest != NULL) {
        probe->image.partitions = probe->entries;
        router_for_each(e->kio, &e->trees.router, probe_add, probe);
        room = !one_more || probe->image.partition_count < RW_PARTITIONS_MAX;
        if (room && one_more) probe->entries[probe->image.partition_count++] = (store_partition){.low_key = rw_slice_of(longest, e->trees.router.key_stride), .spill_count = STORE_SPILLS_MAX};
        room = room && store_image_fits(&probe->image);
    }
    free(probe);
    free(longest);
    return room;
}

/* Old values that a partition may have when it is cut or joined: they are moved under its token. */
#define MOVE_VERSIONS_MAX 20000u

static bool versions_are_few(engine *e, const partition *p)
{
    return atomic_load(&e->versions.stores[p->index].count) <= MOVE_VERSIONS_MAX;
}

/* What moved to the new one, right of p. Both tokens are held. */
static void versions_cut(engine *e, partition *p, partition *created)
{
    unsigned char *buffers = e->checkpointer.key_buffers;
    rw_slice low, high;
    router_bounds(e->kio, &e->trees.router, created->index, buffers, &low, buffers + e->trees.router.key_stride, &high);
    versions_move(&e->versions, p, created, low);
}

/* Before a partition is cut: what was spilled belongs to both halves. */
static bool spills_merge(engine *e, partition *p)
{
    const pending_set *set = &e->trees.pending.sets[p->index];
    if (set->spill_number == 0) return true;
    /* what the merge sets free is published before the halves need images, without which nothing can be */
    return merge_may_succeed(e, p) && checkpoint_partition(e, p, FLUSH_SPILLS) == 0 && set->spill_number == 0 && checkpoint_publish(e, false) == 0;
}

/* Returns the last partition of what was p. */
static partition *partition_cut(engine *e, partition *p)
{
    checkpointer *c = &e->checkpointer;
    partition *last = p, *created;
    if (tree_writer_fill(c->writer) != 0) return last;
    partition_lock(e->kio, p);
    versions_move_begin(&e->versions);
    if (versions_are_few(e, p) && trees_partition_split(c->writer, p, c->next_partition_id, &created) == 0) {
        c->next_partition_id++;
        last = created;
        versions_cut(e, p, created);
        partition_unlock(e->kio, created);
    }
    versions_move_end(&e->versions);
    partition_unlock(e->kio, p);
    return last;
}

/* ---- joining empty ones ------------------------------------------------------------------------------------------ */

static bool partition_empty(engine *e, partition *p)
{
    uint32_t root = atomic_load(&p->root);
    const node *n = pool_page(&e->trees.pool, root);
    return e->trees.pool.frames[root].level == 0 && n->count == 0;
}

static bool partition_has_lone_child(engine *e, partition *p)
{
    uint32_t root = atomic_load(&p->root);
    const node *n = pool_page(&e->trees.pool, root);
    return e->trees.pool.frames[root].level > 0 && n->count == 1;
}

/* A root with one child, as cutting may leave it, gives way to the child, which may be empty. */
static void partition_lower(engine *e, partition *p)
{
    unsigned char *low = malloc(2 * (size_t)e->trees.router.key_stride);
    if (low == NULL) return;
    rw_slice from, to;
    router_bounds(e->kio, &e->trees.router, p->index, low, &from, low + e->trees.router.key_stride, &to);
    engine_shrink(e, from);
    free(low);
}

/* An empty partition goes to its left neighbour. Tokens are taken in key order. */
static void partition_join(engine *e, partition *left, partition *right)
{
    checkpointer *c = &e->checkpointer;
    page_ref suspect = page_ref_none();
    for (unsigned attempt = 0; attempt < TREE_LEVELS_MAX; attempt++) {
        tree_miss miss;
        partition_lock(e->kio, left);
        partition_lock(e->kio, right);
        versions_move_begin(&e->versions);
        bool wanted = partition_empty(e, right) && versions_are_few(e, right);
        if (wanted) (void)spills_done(e, right); /* its only leaf is in the cache */
        int state = wanted ? trees_partition_join(c->writer, left, right, &miss) : RW_ENOTFOUND;
        if (state == 0) versions_move(&e->versions, right, left, rw_slice_of("", 0));
        versions_move_end(&e->versions);
        partition_unlock(e->kio, right);
        partition_unlock(e->kio, left);
        if (state != TREE_MISS || trees_load(&e->trees, &miss, &suspect) != 0) return;
    }
}

typedef struct {
    uint16_t order[RW_PARTITIONS_MAX];
    unsigned count;
} partition_list;

static void list_add(void *arg, uint16_t index, rw_slice low)
{
    partition_list *list = arg;
    (void)low;
    list->order[list->count++] = index;
}

static void partitions_reshape(engine *e)
{
    partition_list list = {.count = 0};
    router_for_each(e->kio, &e->trees.router, list_add, &list);
    for (unsigned i = 0; i < list.count; i++) {
        partition *p = &e->trees.partitions[list.order[i]];
        partition_lock(e->kio, p);
        bool cut = split_allowed(e, p), empty = partition_empty(e, p), lone = partition_has_lone_child(e, p);
        partition_unlock(e->kio, p);
        if (lone) partition_lower(e, p);
        /* list.order[i] becomes the next one's left neighbour */
        /* those need an image each before there can be a superblock again, for which space may be lacking: not before what is imaged already has its own */
        if ((cut || empty) && e->checkpointer.unpublished && checkpoint_publish(e, false) != 0) return;
        if (cut && table_has_room(e, true) && spills_merge(e, p)) {
            list.order[i] = partition_cut(e, p)->index;
        } else if (empty && i > 0) {
            partition_join(e, &e->trees.partitions[list.order[i - 1]], p);
            if (atomic_load(&p->root) == FRAME_NONE) list.order[i] = list.order[i - 1];
        }
    }
}

/* ---- what to do next --------------------------------------------------------------------------------------------- */

/* Partitions without a change since their image need no writing: their image is as of now. */
static bool image_advance(engine *e, partition *p)
{
    partition_lock(e->kio, p);
    const frame *root = &e->trees.pool.frames[atomic_load(&p->root)];
    bool unchanged = p->dirty_count == 0 && !p->image_needed && p->image_root.word == root->disk.word && p->retired.count + p->extents.count + p->extents_passed.count == 0 &&
                     !p->spills_changed && pending_is_empty(&e->trees.pending, p->index);
    if (unchanged) p->image_lsn = wal_end_lsn(e->wal);
    partition_unlock(e->kio, p);
    return unchanged;
}

/* The partition whose image is the oldest. */
static partition *partition_oldest(engine *e)
{
    partition *oldest = NULL;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) == FRAME_NONE) continue;
        if (oldest == NULL || p->image_lsn < oldest->image_lsn) oldest = p;
    }
    return oldest;
}

/* *extents: large values are part of it. */
static partition *partition_with_garbage(engine *e, bool *extents)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) == FRAME_NONE) continue;
        partition_lock(e->kio, p);
        *extents = p->extents.count > 0;
        uint64_t waiting = p->retired.blocks + p->extents.blocks + p->extents_passed.blocks, size = p->pages * e->trees.pool.page_blocks;
        partition_unlock(e->kio, p);
        if (waiting > RETIRED_BLOCKS_MIN && waiting > size / RETIRED_DIVISOR) return p;
    }
    return NULL;
}

static int lsn_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/*
 * Whether the log asks for the oldest image to be made anew. None is to be older than half the log. Those that are equally old, as after a load, are made one by one while the log grows by three eighths: who
 * writes would else share processors and device with all of them at once.
 */
static bool log_is_long(engine *e)
{
    uint64_t lsns[RW_PARTITIONS_MAX], end = wal_end_lsn(e->wal), limit = e->options.log_bytes / 2;
    uint32_t count = 0;
    bool is_long = false;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++)
        if (atomic_load(&e->trees.partitions[i].root) != FRAME_NONE) lsns[count++] = e->trees.partitions[i].image_lsn;
    qsort(lsns, count, sizeof *lsns, lsn_compare);
    for (uint32_t i = 0; i < count && !is_long; i++) is_long = end - lsns[i] + limit * 3 / 4 * i / count > limit; /* in time for those before it */
    return is_long;
}

#define TEND_VERSIONS 512u                 /* dropped at a time, under a token */
#define TEND_ROUNDS 64u

bool versions_tend(engine *e)
{
    bool more = false;
    uint32_t used = atomic_load(&e->trees.partitions_used);
    for (uint32_t i = 0; i < used; i++) {
        partition *p = &e->trees.partitions[i];
        bool some = atomic_load(&e->versions.stores[i].count) > 0;
        for (unsigned round = 0; round < TEND_ROUNDS && some; round++) {
            partition_lock(e->kio, p);
            some = versions_trim(&e->versions, p, TEND_VERSIONS);
            partition_unlock(e->kio, p);
        }
        more = more || some;
    }
    return more;
}

/*
 * Each publication waits for three syncs, so several images share one; but not while they keep much of the space, or of the log, from being used again. What is left is published when there is nothing
 * else to do.
 */
static bool publication_due(engine *e)
{
    store_space space;
    uint64_t waiting = 0;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) waiting += e->trees.partitions[i].maturing.blocks; /* only this thread changes it */
    store_space_get(e->store, &space);
    uint64_t used = (uint64_t)(space.segments - 1 - space.segments_free) * (RW_SEGMENT_BYTES / RW_BLOCK_SIZE);
    return waiting > RW_MIN(PUBLISH_BLOCKS, used / PUBLISH_SHARE) || atomic_load(&e->trees.pool.space_error) != 0 ||
           partition_oldest(e)->image_lsn > atomic_load(&e->checkpointer.checkpoint_lsn) + e->options.log_bytes / 8;
}

/* What an image that was made already sets free waits for its superblock: if the next one of the same partition were given up for want of space, that would go on waiting. */
static int image_renew(engine *e, partition *p, flush_extent flush)
{
    bool merges = flush == FLUSH_WHOLE || (flush == FLUSH_SPILLS && e->trees.pending.sets[p->index].spill_number > 0);
    if (!merges && image_advance(e, p)) {
        e->checkpointer.unpublished = true;
        return 0;
    }
    int error = p->maturing.count > 0 && e->checkpointer.unpublished ? checkpoint_publish(e, false) : 0;
    return error == 0 ? checkpoint_partition(e, p, flush) : error;
}

/* Images that are not published yet may set free what was lacking. The first error is told. */
static int step_failed(engine *e, int error)
{
    char text[sizeof e->checkpointer.last_error_text];
    if (!e->checkpointer.unpublished) return error;
    snprintf(text, sizeof text, "%s", rw_error_text());
    (void)checkpoint_publish(e, false); /* what is worse than a lack of space has made the database read-only, and said why */
    return rw_error(error, "%s", text);
}

#define MERGE_REST_NS 1000000000       /* without a spill: there is time for what makes reads cheaper */

/* A partition whose spills are in the way of cleaning, or, when nothing else is to be done, any that has some. */
static partition *merge_wanted(engine *e)
{
    bool rests = kio_now_ns(e->kio) - e->checkpointer.spilled_ns > MERGE_REST_NS;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        if (e->trees.pending.sets[i].spill_number == 0 || atomic_load(&e->trees.partitions[i].root) == FRAME_NONE) continue;
        if ((!rests && !partition_set_has(&e->checkpointer.merges_wanted, i)) || !merge_may_succeed(e, &e->trees.partitions[i])) continue;
        e->checkpointer.merges_wanted.bits[i / 64] &= ~((uint64_t)1 << (i % 64));
        return &e->trees.partitions[i];
    }
    return NULL;
}

/* Flushes come first, and win space as they write partitions again; where that is not enough a partition is written again for that alone with every second step. */
static bool rewrite_has_precedence(engine *e)
{
    checkpointer *c = &e->checkpointer;
    c->space_turn = !c->space_turn && atomic_load_explicit(&c->space_behind, memory_order_relaxed) != 0;
    return c->space_turn;
}

/* One small step of background work. *worked: there was something to do. */
static int background_step(engine *e, bool *worked)
{
    partition *p = NULL;
    *worked = false;
    partitions_reshape(e);
    versions_tend(e);
    space_watch(e);
    int error = space_clean_ahead(e, worked);
    if (error == 0) error = space_clear_end(e, worked);
    if (error != 0) return step_failed(e, error);
    flush_extent flush = FLUSH_PENDING;
    if (log_is_long(e)) p = partition_oldest(e);
    if (p == NULL && rewrite_has_precedence(e) && (p = space_most_scattered(e)) != NULL) flush = FLUSH_WHOLE;
    if (p == NULL) p = flush_wanted(e);
    if (p == NULL && (p = space_most_scattered(e)) != NULL) flush = FLUSH_WHOLE;
    bool extents;
    if (p == NULL && (p = partition_with_garbage(e, &extents)) != NULL && !extents) flush = FLUSH_NOTHING; /* without a flush those might have to wait */
    if (p == NULL && (p = merge_wanted(e)) != NULL) flush = FLUSH_SPILLS;
    if (p == NULL && e->checkpointer.unpublished) {
        *worked = true;
        return checkpoint_publish(e, false);
    }
    if (p == NULL) return space_settle(e, worked);
    e->checkpointer.logged_again = false;
    error = image_renew(e, p, flush);
    *worked = !e->checkpointer.logged_again; /* else the same may be wanted again at once */
    if (error != 0) return step_failed(e, error);
    return publication_due(e) ? checkpoint_publish(e, false) : 0;
}

/* ---- compaction -------------------------------------------------------------------------------------------------- */

/* At most as many steps as stated: what is moved makes new segments, which may be sparse, or far behind, again. */
static int clean_pass(engine *e, unsigned max_live_percent, uint32_t from, uint32_t steps)
{
    bool done = true;
    int error = 0, unreadable = 0;
    for (uint32_t i = 0; i < steps && done && error == 0; i++) {
        error = clean_step(e, max_live_percent, from, &done, &unreadable);
        if (error == 0) error = unreadable;
    }
    return error == 0 ? checkpoint_all(e, false, FLUSH_SPILLS) : error;
}

/*
 * First empties what is sparse, once: that may need room before it gives any back. Then moves what lies behind as many segments as are in use
 * into free ones, as long as the file gets shorter by it.
 */
static int compact(engine *e)
{
    store_space space;
    uint64_t cut = 1;
    store_clean_retry(e->store);
    int error = checkpoint_all(e, false, FLUSH_SPILLS);
    store_space_get(e->store, &space);
    if (error == 0) error = clean_pass(e, COMPACT_LIVE_PERCENT, 1, space.segments);
    while (error == 0 && cut > 0) {
        store_streams_end(e->store, 0);
        store_space_get(e->store, &space);
        error = clean_pass(e, 101, space.segments - space.segments_free, space.segments_free);
        cut = 0;
        store_streams_end(e->store, 0);
        if (error == 0) error = store_shrink(e->store, 0, &cut);
    }
    if (error == 0) error = wal_shrink(e->wal);
    return error;
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static void round_report(checkpointer *c, int error)
{
    if (error != 0) snprintf(c->last_error_text, sizeof c->last_error_text, "%s", rw_error_text());
    atomic_store(&c->last_error, error);
}

static void round_done(engine *e, _Atomic uint64_t *finished, uint64_t round)
{
    atomic_store(finished, round);
    atomic_fetch_add(&e->checkpointer.done_word, 1);
    kio_wake(e->kio, &e->checkpointer.done_word, UINT32_MAX);
}

void checkpointer_wake(engine *e)
{
    atomic_fetch_add(&e->checkpointer.word, 1);
    kio_wake(e->kio, &e->checkpointer.word, 1);
}

static void checkpointer_run(void *arg)
{
    engine *e = arg;
    checkpointer *c = &e->checkpointer;
    if (kio_ring_open(e->kio, CHECKPOINT_RING_DEPTH, &c->ring) != 0) c->ring = NULL; /* bulk reads find out, each for itself */
    c->grows_ahead = true;
    while (atomic_load(&c->stop) == 0) {
        uint32_t word = atomic_load(&c->word);
        uint64_t wanted = atomic_load(&c->requested), compaction = atomic_load(&c->compactions_requested);
        bool worked = true;
        if (compaction != atomic_load(&c->compactions_finished)) {
            while (versions_tend(e)) continue;
            c->grows_ahead = false;
            round_report(c, compact(e));
            c->grows_ahead = true;
            round_done(e, &c->compactions_finished, compaction);
        } else if (wanted != atomic_load(&c->finished)) {
            partitions_reshape(e);
            while (versions_tend(e)) continue;
            round_report(c, checkpoint_all(e, false, FLUSH_PENDING));
            c->spilled_ns = 0; /* who asks for a checkpoint is done with something: spills are merged next */
            round_done(e, &c->finished, wanted);
        } else if (atomic_load(&e->failure) == 0) {
            int error = background_step(e, &worked);
            round_report(c, error);
            if (error != 0) worked = false; /* no space, perhaps: look again later */
            else if (worked) {
                atomic_fetch_add(&c->done_word, 1);
                kio_wake(e->kio, &c->done_word, UINT32_MAX);
            }
        } else worked = false;
        if (worked) continue;
        atomic_store(&c->idle, 1);
        kio_sleep(e->kio, &c->word, word, LOOK_NS);
        atomic_store(&c->idle, 0);
    }
    c->grows_ahead = false;
    if (c->ring != NULL) kio_ring_close(e->kio, c->ring);
    c->ring = NULL;
}

int checkpointer_start(engine *e)
{
    checkpointer *c = &e->checkpointer;
    c->segment = rw_memory_aligned(RW_SEGMENT_BYTES);
    c->key_buffers = malloc(2 * (size_t)e->trees.router.key_stride);
    if (c->segment == NULL || c->key_buffers == NULL) return rw_error(RW_ENOMEM, "no memory for cleaning");
    int error = write_batch_init(&c->batch, e->page_size, e->trees.pool.frame_count / CHECKPOINT_SHARE);
    c->batch.stream = STORE_IMAGES;
    if (error == 0) error = tree_writer_open(&e->trees, &c->writer);
    return error;
}

int checkpointer_run_thread(engine *e)
{
    return kio_thread_start(e->kio, "ringwood-check", -1, checkpointer_run, e, &e->checkpointer.thread);
}

void checkpointer_stop(engine *e)
{
    checkpointer *c = &e->checkpointer;
    if (c->thread == NULL) return;
    atomic_store(&c->stop, 1);
    checkpointer_wake(e);
    kio_thread_join(e->kio, c->thread);
    c->thread = NULL;
}

void checkpointer_free(engine *e)
{
    checkpointer *c = &e->checkpointer;
    if (c->writer != NULL) tree_writer_close(c->writer);
    write_batch_destroy(&c->batch);
    free(c->segment);
    free(c->key_buffers);
}

int checkpointer_round(engine *e, bool compaction)
{
    checkpointer *c = &e->checkpointer;
    _Atomic uint64_t *requested = compaction ? &c->compactions_requested : &c->requested;
    _Atomic uint64_t *finished = compaction ? &c->compactions_finished : &c->finished;
    uint64_t round = atomic_fetch_add(requested, 1) + 1;
    checkpointer_wake(e);
    while (atomic_load(finished) < round) {
        uint32_t word = atomic_load(&c->done_word);
        if (atomic_load(finished) >= round) break;
        kio_sleep(e->kio, &c->done_word, word, LOOK_NS);
    }
    int error = atomic_load(&c->last_error);
    return error == 0 ? 0 : rw_error(error, "the checkpoint failed: %s", c->last_error_text);
}
