/*
 * Checkpoints: the image of one partition after the other, in small steps under its token, then the superblock. See README.md, C1 to C7.
 */
#include "base/planted.h"
#include "engine/engine_internal.h"

#define DIRTY_ALL_SHARE 4u             /* when 3/4 of a partition's pages are dirty, the others are written too */
#define DRAIN_WAIT_NS 200000           /* between looks at writes in flight */
#define PAGES_AT_ONCE 1u               /* copied under one hold of the token: 1.5 us, as long as who wants it spins */

/* After the checkpointer's batch was written, or failed to be, as the thread's sentence says. Without a token. */
static int batch_end(engine *e, int error, bool evict)
{
    if (error != 0) engine_fail(e, error, rw_error_text());
    write_batch_finish(&e->trees.pool, &e->checkpointer.batch, evict, true);
    if (error == 0 && e->checkpointer.grows_ahead) store_grow_ahead(e->store);
    return error;
}

int checkpoint_batch_end(engine *e, bool evict)
{
    const kio_op *op = &e->checkpointer.batch.op;
    return batch_end(e, op->result == 0 ? 0 : kio_op_error(op), evict);
}

static int batch_write(engine *e, write_batch *batch)
{
    batch->op.result = kio_file_write(e->kio, batch->op.file, batch->buffer, batch->op.length, batch->op.offset);
    return batch_end(e, batch->op.result, false);
}

/* Under the token: pages of a level that were dirty when the checkpoint began, with what must be written before them. */
static uint32_t level_gather(engine *e, partition *p, unsigned level, uint32_t *list, uint32_t max)
{
    pool *frames = &e->trees.pool;
    uint32_t count = 0;
    for (uint32_t f = p->dirty[level].head; f != FRAME_NONE && count < max; f = frames->frames[f].dirty_next) {
        if (frames->frames[f].dirty_epoch >= p->imaging_epoch) break;
        count += frames->ops->gather(frames, f, list + count, max - count);
    }
    return count;
}

/* Under the token: the root, when it is not fit to be named by a superblock. */
static uint32_t root_gather(engine *e, partition *p, uint32_t *list, uint32_t max)
{
    pool *frames = &e->trees.pool;
    uint32_t f = atomic_load(&p->root);
    const frame *root = &frames->frames[f];
    bool of_checkpoint = (root->flags & FRAME_DIRTY) != 0 && root->dirty_epoch < p->imaging_epoch;
    if (!page_ref_is_none(root->disk) && (root->flags & FRAME_RESHAPED) == 0 && !of_checkpoint) return 0;
    return frames->ops->gather(frames, f, list, max);
}

/* Under the token: what to write next; 0 when the image is complete. */
static uint32_t image_gather(engine *e, partition *p, uint32_t *list, uint32_t max)
{
    unsigned top = tree_height(&e->trees, p);
    for (unsigned level = 0; level < top; level++) {
        uint32_t count = level_gather(e, p, level, list, max);
        if (count > 0) return count;
    }
    return root_gather(e, p, list, max);
}

/* In steps, so that no writer waits for a pass over all. */
void checkpoint_widen(engine *e, partition *p, bool all)
{
    partition_lock(e->kio, p);
    bool more = all || p->dirty_count * DIRTY_ALL_SHARE >= p->pages * (DIRTY_ALL_SHARE - 1);
    partition_unlock(e->kio, p);
    for (unsigned slot = 0; more; slot++) {
        partition_lock(e->kio, p);
        more = tree_dirty_below(&e->trees, p, slot);
        partition_unlock(e->kio, p);
    }
}

int spills_done(engine *e, partition *p)
{
    if (e->trees.pending.sets[p->index].spill_number == 0) return 0;
    int state = tree_spills_forget(&e->trees, p);
    if (state != 0) return state;
    pending_spills_drop(&e->trees.pending, p, &p->retired);
    p->spills_changed = true;
    return 0;
}

static void image_begin(engine *e, partition *p, uint64_t *lsn)
{
    partition_lock(e->kio, p);
    /* whatever changed p before holds its token no more, so it is in the pages, or pending (C1) */
    *lsn = RW_MIN(wal_end_lsn(e->wal), pending_oldest(&e->trees.pending, p));
    if (tree_height(&e->trees, p) == 1) (void)spills_done(e, p); /* the leaf is in the cache, so it lacks nothing */
    p->epoch++;
    p->imaging_epoch = p->epoch;
    store_retired_move(&p->maturing, &p->retired);
    store_retired_move(&p->maturing, &p->extents_passed);
    if (pending_is_empty(&e->trees.pending, p->index) || RW_PLANTED(reuse_extent_early)) store_retired_move(&p->maturing, &p->extents);
    if (RW_PLANTED(reuse_block_early)) store_release(e->store, &p->maturing);
    partition_unlock(e->kio, p);
}

/* Under the token. */
static void image_end(engine *e, partition *p, uint64_t lsn)
{
    const frame *root = &e->trees.pool.frames[atomic_load(&p->root)];
    p->image_root = root->disk;
    p->image_height = root->level + 1u;
    p->image_lsn = lsn;
    if (root->level == 0) (void)spills_done(e, p); /* it may have become the only page meanwhile */
    p->image_spill_count = pending_spills(&e->trees.pending, p->index);
    for (uint32_t i = 0; i < p->image_spill_count; i++) p->image_spills[i] = e->trees.pending.sets[p->index].spills[i]->image;
    p->image_spill_number = e->trees.pending.sets[p->index].spill_number;
    p->spills_changed = false;
    p->image_needed = false;
    if (p->whole) {
        p->scattered = 0;
        p->rewritten = true;
        p->whole = false;
    }
    p->imaging_epoch = 0;
    p->epoch++;
}

/* Under the token, when there is no space: tried again later. The newest complete image still names what it was to replace, and a checkpoint of
 * another partition may be published before this one's. */
static void image_abandon(partition *p)
{
    store_retired_move(&p->retired, &p->maturing);
    p->imaging_epoch = 0;
}

/* Waits for batches of workers that hold pages of the image: all that were filled before image_end. */
static void image_drain(engine *e, partition *p)
{
    for (unsigned slot = 0; slot < 4; slot++) {
        if (slot == (p->epoch & 3)) continue;
        while (atomic_load(&p->writes_in_flight[slot]) != 0) {
            uint32_t word = atomic_load(&p->writes_in_flight[slot]);
            if (word != 0) kio_sleep(e->kio, &p->writes_in_flight[slot], word, DRAIN_WAIT_NS);
        }
    }
}

/* A page whose write failed may be named by any image that was made since (B7). The one who met it was a commit, perhaps, that told only its caller. */
static int writes_check(engine *e)
{
    if (atomic_load(&e->trees.pool.write_error) == 0) return 0;
    int error = rw_error(RW_EIO, "%s: a page could not be written, so there can be no checkpoint any more", e->dir);
    engine_fail(e, error, rw_error_text());
    return error;
}

/* Begins a batch of the image's pages, or, if none is left, ends the image. Others get the token after each few pages, so what comes next is looked for anew each time. */
static int image_fill(engine *e, partition *p, write_batch *batch, uint64_t lsn, bool *complete)
{
    pool *frames = &e->trees.pool;
    uint32_t list[PAGES_AT_ONCE];
    partition_lock(e->kio, p);
    uint32_t count = image_gather(e, p, list, PAGES_AT_ONCE);
    *complete = count == 0;
    int error = *complete ? 0 : write_batch_begin(frames, batch, p, RW_MIN(batch->capacity, RW_MAX(p->dirty_count, count)));
    if (*complete) image_end(e, p, lsn);
    else if (error != 0) image_abandon(p);
    bool held = true, filling = error == 0;
    while (held && filling && count > 0) {
        filling = write_batch_add(frames, batch, list, count) == count;
        held = write_batch_yield(frames, batch);
        count = held ? image_gather(e, p, list, PAGES_AT_ONCE) : 0;
    }
    if (held) partition_unlock(e->kio, p);
    if (error == 0 && !*complete) write_batch_close(frames, batch);
    return error;
}

int checkpoint_partition(engine *e, partition *p, flush_extent flush)
{
    write_batch *batch = &e->checkpointer.batch;
    uint64_t lsn;
    int error = flush != FLUSH_NOTHING || p->image_needed ? flush_partition(e, p, flush == FLUSH_NOTHING ? FLUSH_PENDING : flush) : 0;
    if (error == RW_ENOSPC && !p->image_needed) error = 0; /* an image as of before what is pending may still find space, and set some free */
    if (error != 0) return error;
    checkpoint_widen(e, p, false);
    image_begin(e, p, &lsn);
    for (bool complete = false; error == 0 && !complete;) {
        error = image_fill(e, p, batch, lsn, &complete);
        if (error == 0 && !complete) error = batch_write(e, batch);
    }
    image_drain(e, p); /* of an abandoned one too: its epoch's place among writes_in_flight is used again */
    if (error != 0) return error;
    e->checkpointer.unpublished = true;
    return writes_check(e);
}

/* ---- the superblock ---------------------------------------------------------------------------------------------- */

typedef struct {
    engine *e;
    store_image image;
    store_partition entries[RW_PARTITIONS_MAX];
} publication;

static void publication_add(void *arg, uint16_t index, rw_slice low)
{
    publication *pub = arg;
    const partition *p = &pub->e->trees.partitions[index];
    store_partition *entry = &pub->entries[pub->image.partition_count++];
    *entry = (store_partition){.root = p->image_root, .lsn = p->image_lsn, .id = p->id, .height = p->image_height, .spill_count = p->image_spill_count, .spill_number = p->image_spill_number, .low_key = low};
    memcpy(entry->spills, p->image_spills, sizeof entry->spills);
    if (RW_PLANTED(spill_unnamed) && entry->spill_count > 0) entry->spill_count--;
    if (pub->image.checkpoint_lsn < p->image_lsn && !RW_PLANTED(start_replay_late)) return;
    pub->image.checkpoint_lsn = p->image_lsn;
}

static int images_complete(engine *e)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) == FRAME_NONE || !p->image_needed) continue;
        int error = checkpoint_partition(e, p, FLUSH_NOTHING);
        if (error != 0) return error;
    }
    return 0;
}

/* What the new superblock no longer names is free now. */
static void images_mature(engine *e)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) == FRAME_NONE) continue;
        store_retired ripe = {0};
        partition_lock(e->kio, p);
        store_retired_move(&ripe, &p->maturing);
        partition_unlock(e->kio, p);
        store_release(e->store, &ripe);
        store_retired_free(&ripe);
    }
}

int checkpoint_publish(engine *e, bool clean)
{
    int error = images_complete(e);
    if (error == 0) error = writes_check(e);
    if (error != 0) return error;
    publication *pub = calloc(1, sizeof *pub);
    if (pub == NULL) return rw_error(RW_ENOMEM, "no memory for a checkpoint");
    pub->e = e;
    pub->image = (store_image){.checkpoint_lsn = UINT64_MAX, .partitions = pub->entries, .next_partition_id = e->checkpointer.next_partition_id};
    router_for_each(e->kio, &e->trees.router, publication_add, pub);
    uint64_t end = wal_end_lsn(e->wal); /* past everything that any image holds (C4) */
    error = RW_PLANTED(publish_early) ? 0 : wal_wait(e->wal, end);
    pub->image.durable_lsn = end;
    pub->image.log_closed = clean; /* the database is being closed: nothing is appended any more */
    if (error == 0) error = store_publish(e->store, &pub->image, clean);
    uint64_t checkpoint_lsn = pub->image.checkpoint_lsn;
    free(pub);
    if (error != 0) {
        if (error != RW_ENOSPC) engine_fail(e, error, rw_error_text());
        return error;
    }
    if (!clean) {
        images_mature(e);
        space_cut_end(e);
    }
    atomic_store(&e->checkpointer.checkpoint_lsn, checkpoint_lsn);
    atomic_fetch_add(&e->checkpointer.published, 1);
    e->checkpointer.unpublished = false;
    wal_trim(e->wal, checkpoint_lsn);
    return 0;
}

/* Publishes in between, so that not all of the old images wait for the last of the new ones. */
int checkpoint_all(engine *e, bool clean, flush_extent flush)
{
    uint64_t waiting = 0;
    int error = e->checkpointer.unpublished ? checkpoint_publish(e, false) : 0;
    if (error != 0) return error;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) == FRAME_NONE) continue;
        error = checkpoint_partition(e, p, flush);
        waiting += p->maturing.blocks; /* only this thread changes it now */
        if (error == 0 && waiting > PUBLISH_BLOCKS) {
            error = checkpoint_publish(e, false);
            waiting = 0;
        }
        if (error != 0) return error;
    }
    return checkpoint_publish(e, clean);
}
