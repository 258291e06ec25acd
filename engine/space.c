/*
 * Dead space in the data file: when it is worth winning back, and how.
 *
 * Segments that are more than half empty are cleaned first: what is alive in them is moved (clean.c), each page a dirty page in the cache until its partition's next image. What lies dead in fuller ones costs more than
 * it gains that way. Most of that lies among the pages of partitions some of whose leaves were written again elsewhere. Such a partition is written again as a whole: its leaves are read and written in large pieces that
 * lie side by side, and nothing of its last image stays alive (flush.c). Fuller segments are cleaned where no partition answers for it.
 *
 * Much that is free is given back, by cutting the file's end. New runs go to the lowest free segments, so the end comes free by and by; what is left there, some pages of a segment that is written to
 * seldom, would keep all that is before it from being cut, and is moved.
 */
#include "engine/engine_internal.h"

#define CLEAN_SPARSE_PERCENT 50u       /* alive: segments below this are cleaned before any partition is written again */
#define CLEAN_LIVE_PERCENT 75u         /* segments above this are not worth cleaning */
#define SPACE_GARBAGE_DIVISOR 5u       /* cleaning begins when more than 1/5 of the used segments is dead */
#define SPACE_BEHIND_PERCENT 33u       /* of the used segments dead: writers are slowed down */
#define CLEAN_SEGMENTS_MIN 16u         /* smaller files are let alone */
#define CLEAN_GAIN_DIVISOR 16u         /* new garbage, as a part of what is used, that makes another cleaning worth while */
#define CLEAN_STEPS 8u                 /* segments cleaned between two looks at the log */
#define CLEAN_WAITING_MIN 8u           /* so many cleaned segments, */
#define CLEAN_WAITING_DIVISOR 8u       /* or this part of all, but no more than of the cache, may wait for a checkpoint to make them free */
#define CLEAN_RETRY_NS 10000000000u    /* after something could not be read */
#define KEPT_DIVISOR 10u               /* of all segments: this part may be free, since it will be needed soon, */
#define KEPT_BYTES ((uint64_t)96 << 20) /* or so many of them: new images of a large partition or two beside the old ones; */
#define CUT_FROM_THIRDS 5u             /* the file's end is cut when so many thirds of that are free */
#define CLEAN_END_PERCENT 25u          /* alive: segments at the end below this are cleaned to be cut off */
#define SCATTERED_DIVISOR 5u           /* a partition is written again when so much lies dead for what it has alive: as cleaning a segment that is so full */

/* Bytes in used segments that nothing alive takes. */
static uint64_t space_garbage(const store_space *space, uint64_t *used)
{
    *used = (uint64_t)(space->segments - 1 - space->segments_free) * RW_SEGMENT_BYTES;
    return *used > space->live_bytes ? *used - space->live_bytes : 0;
}

/* What the last cleaning could not win are tails that no run fits. */
bool space_is_wasted(engine *e)
{
    store_space space;
    uint64_t used;
    store_space_get(e->store, &space);
    uint64_t garbage = space_garbage(&space, &used);
    return used > CLEAN_SEGMENTS_MIN * (uint64_t)RW_SEGMENT_BYTES && garbage > used / SPACE_GARBAGE_DIVISOR &&
           garbage > e->checkpointer.garbage_unwinnable + used / CLEAN_GAIN_DIVISOR;
}

void space_watch(engine *e)
{
    store_space space;
    uint64_t used;
    store_space_get(e->store, &space);
    uint64_t garbage = space_garbage(&space, &used);
    bool behind = space_is_wasted(e) && garbage > used * SPACE_BEHIND_PERCENT / 100;
    atomic_store_explicit(&e->checkpointer.space_behind, behind, memory_order_relaxed);
}

/* ---- partitions -------------------------------------------------------------------------------------------------- */

bool space_wants_partitions(engine *e)
{
    return !e->checkpointer.sparse && space_is_wasted(e);
}

/* Under the token: pages that lie dead among the partition's. What was there before the open is not known, and taken to be what it is everywhere. */
static uint64_t scattered_pages(engine *e, partition *p)
{
    store_space space;
    uint64_t used;
    if (p->rewritten) return p->scattered;
    store_space_get(e->store, &space);
    uint64_t garbage = space_garbage(&space, &used);
    return RW_MAX(p->scattered, (uint64_t)((double)trees_pages(&e->trees, p) * (double)garbage / (double)RW_MAX(used, 1u)));
}

bool space_is_scattered(engine *e, partition *p)
{
    uint64_t scattered = scattered_pages(e, p);
    return scattered >= RW_SCATTERED_PAGES_MIN && scattered * SCATTERED_DIVISOR >= trees_pages(&e->trees, p);
}

partition *space_most_scattered(engine *e)
{
    partition *most = NULL;
    double share, largest = 0;
    if (!space_wants_partitions(e) || atomic_load(&e->trees.pool.space_error) != 0) return NULL;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) == FRAME_NONE) continue;
        partition_lock(e->kio, p);
        share = space_is_scattered(e, p) ? (double)scattered_pages(e, p) / (double)trees_pages(&e->trees, p) : 0;
        partition_unlock(e->kio, p);
        if (share <= largest) continue;
        largest = share;
        most = p;
    }
    return most;
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

/* What was moved is dirty until its partition is imaged: so much that it would crowd out what is in use is not worth it. */
static bool clean_enough(engine *e, const store_space *space)
{
    uint64_t cache = (uint64_t)e->trees.pool.frame_count * e->page_size / RW_SEGMENT_BYTES;
    return space->segments_cleaning > RW_MAX(CLEAN_WAITING_MIN, RW_MIN(space->segments, cache) / CLEAN_WAITING_DIVISOR);
}

int space_clean_ahead(engine *e, bool *worked)
{
    checkpointer *c = &e->checkpointer;
    if (c->unreadable_ns != 0 && kio_now_ns(e->kio) - c->unreadable_ns > CLEAN_RETRY_NS) {
        store_clean_retry(e->store);
        c->unreadable_ns = 0;
        c->garbage_unwinnable = 0;
    }
    unsigned percent = CLEAN_SPARSE_PERCENT;
    c->sparse = false;
    for (unsigned i = 0; i < CLEAN_STEPS; i++) {
        store_space space;
        uint64_t used;
        bool done;
        int unreadable;
        store_space_get(e->store, &space);
        if (!space_is_wasted(e) || clean_enough(e, &space)) return 0;
        int error = clean_step(e, percent, 1, &done, &unreadable);
        if (error != 0) return error;
        if (unreadable != 0) c->unreadable_ns = kio_now_ns(e->kio); /* and on: damage in one place must not keep others from being imaged, nor the log from being cut (C10) */
        if (done) {
            *worked = true;
            c->sparse = percent == CLEAN_SPARSE_PERCENT;
        } else if (percent == CLEAN_SPARSE_PERCENT) {
            c->sparse = false;
            if (space_most_scattered(e) != NULL) return 0;
            percent = CLEAN_LIVE_PERCENT;
        } else {
            if (space.segments_cleaning == 0) c->garbage_unwinnable = space_garbage(&space, &used);
            return 0;
        }
    }
    return 0;
}

/* ---- the file's end ---------------------------------------------------------------------------------------------- */

/* How many segments too many are free; 0: no more than will be needed soon. *kept: how many are to be. */
static uint32_t segments_surplus(const store_space *space, uint32_t *kept)
{
    *kept = RW_MIN(space->segments / KEPT_DIVISOR, (uint32_t)(KEPT_BYTES / RW_SEGMENT_BYTES));
    return space->segments_free > *kept * CUT_FROM_THIRDS / 3 ? space->segments_free - *kept : 0;
}

void space_cut_end(engine *e)
{
    store_space space;
    uint64_t cut;
    uint32_t kept;
    store_space_get(e->store, &space);
    if (segments_surplus(&space, &kept) > 0) (void)store_shrink(e->store, kept, &cut); /* a file too long does no harm */
    e->checkpointer.end_is_new = true;
}

int space_clear_end(engine *e, bool *worked)
{
    store_space space;
    uint32_t kept;
    bool done;
    int unreadable;
    if (!e->checkpointer.end_is_new) return 0; /* who only reads is left in peace */
    e->checkpointer.end_is_new = false;
    store_space_get(e->store, &space);
    uint32_t surplus = segments_surplus(&space, &kept);
    if (surplus == 0 || space.segments <= CLEAN_SEGMENTS_MIN || clean_enough(e, &space)) return 0;
    store_streams_end(e->store, space.segments - surplus);
    int error = clean_step(e, CLEAN_END_PERCENT, space.segments - surplus, &done, &unreadable);
    if (unreadable != 0) e->checkpointer.unreadable_ns = kio_now_ns(e->kio);
    *worked |= done;
    return error;
}

int space_settle(engine *e, bool *worked)
{
    store_space space;
    store_space_get(e->store, &space);
    if (*worked || space.segments_cleaning == 0 || space.segments_cleaning == e->checkpointer.cleaning_stuck) return 0;
    *worked = true;
    int error = checkpoint_all(e, false, FLUSH_NOTHING);
    store_space_get(e->store, &space);
    e->checkpointer.cleaning_stuck = space.segments_cleaning; /* those hold what cannot be moved now, extents of open batches for one */
    return error;
}
