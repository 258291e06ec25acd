/* The clock: cools pages, evicts those that are still cool when it comes round again. */
#include "base/racy.h"
#include "buffer/buffer.h"
#include "buffer/buffer_internal.h"

#define EVICT_CANDIDATES 256u          /* looked at in one step */
#define EVICT_INNER_ROUNDS 64u
#define EVICT_INNER_ROUNDS_PRESSED 4u

typedef struct {
    uint16_t partition;
    uint32_t frame;
} candidate;

void evict_clean(pool *p, uint32_t f)
{
    frame *fr = &p->frames[f];
    RW_ASSERT(fr->flags == 0 && fr->resident_children == 0 && fr->parent != FRAME_NONE && !page_ref_is_none(fr->disk));
    p->ops->detach(p, f, fr->disk);
    frame_change_begin(fr);
    pool_frame_free(p, f);
    atomic_fetch_add_explicit(&p->counters.pages_evicted, 1, memory_order_relaxed);
}

/* How often the hand must have come by since the page was used. An inner page stands for a hundred leaves: without it each of their puts and gets reads it again. */
static uint8_t rounds_unused(const frame *fr, bool pressed)
{
    return rw_racy_u8(&fr->level) == 0 ? 1 : pressed ? EVICT_INNER_ROUNDS_PRESSED : EVICT_INNER_ROUNDS;
}

/* Moves the hand on and gathers frames that it found cool often enough. */
static uint32_t clock_turn(pool *p, candidate *out, uint32_t max, bool pressed)
{
    uint32_t found = 0, scan = RW_MIN(POOL_EVICT_SCAN, p->frame_count);
    for (uint32_t i = 0; i < scan && found < max; i++) {
        uint32_t f = atomic_fetch_add_explicit(&p->hand, 1, memory_order_relaxed) % p->frame_count;
        frame *fr = &p->frames[f];
        uint16_t part = atomic_load_explicit(&fr->partition, memory_order_relaxed);
        if (part == PARTITION_NONE) continue;
        uint8_t rounds = atomic_load_explicit(&fr->cool, memory_order_relaxed);
        if (rounds < rounds_unused(fr, pressed)) {
            atomic_store_explicit(&fr->cool, (uint8_t)(rounds + 1), memory_order_relaxed);
            continue;
        }
        out[found++] = (candidate){.partition = part, .frame = f};
    }
    return found;
}

static int candidate_compare(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->partition != y->partition) return x->partition < y->partition ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static bool evictable(const partition *part, const frame *fr)
{
    return atomic_load_explicit(&fr->partition, memory_order_relaxed) == part->index &&
           atomic_load_explicit(&fr->cool, memory_order_relaxed) != 0 && fr->resident_children == 0 && fr->parent != FRAME_NONE &&
           (fr->flags & FRAME_WRITING) == 0;
}

/* Under the token: evicts the clean ones, returns the dirty ones in dirty. */
static uint32_t evict_candidates(pool *p, partition *part, const candidate *list, uint32_t count, uint32_t *dirty, uint32_t dirty_max)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        frame *fr = &p->frames[list[i].frame];
        if (!evictable(part, fr)) continue;
        if (fr->flags == 0) evict_clean(p, list[i].frame);
        else if (found < dirty_max) dirty[found++] = list[i].frame;
    }
    return found;
}

static write_batch *batch_idle(write_batch *batches, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!batches[i].in_flight) return &batches[i];
    return NULL;
}

unsigned pool_evict_step(pool *p, write_batch *batches, unsigned batch_count, bool pressed)
{
    candidate list[EVICT_CANDIDATES];
    uint32_t dirty[EVICT_CANDIDATES];
    unsigned filled = 0;
    uint32_t count = clock_turn(p, list, EVICT_CANDIDATES, pressed);
    qsort(list, count, sizeof *list, candidate_compare);
    for (uint32_t from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count && list[to].partition == list[from].partition;) to++;
        partition *part = &p->partitions[list[from].partition];
        if (!partition_try(part)) continue;
        write_batch *batch = atomic_load(&p->write_error) == 0 ? batch_idle(batches, batch_count) : NULL;
        uint32_t dirty_max = batch == NULL ? 0 : RW_MIN(batch->capacity, EVICT_CANDIDATES);
        uint32_t n = evict_candidates(p, part, &list[from], to - from, dirty, dirty_max);
        if (n > 0 && write_batch_fill(p, batch, part, dirty, n) == 0) {
            batch->in_flight = true;
            filled++;
        }
        partition_unlock(p->kio, part);
    }
    return filled;
}

/* ---- for holders of tokens --------------------------------------------------------------------------------------- */

#define EVICT_HELD_DIRTY 64u
#define HOLDING_ROUNDS_BUSY 9u         /* until a millisecond is waited in each, */
#define HOLDING_ROUNDS 4000u           /* in all */

/* A round over the frames for those of held partitions: clean ones go, dirty ones of one partition are gathered. What was used since the last round stays. When
 * dirty pages could not be written of late, all frames are looked at, for the sake of the clean ones. */
static uint32_t evict_held_scan(pool *p, const partition_set *held, partition **part, uint32_t *dirty, uint32_t dirty_max)
{
    uint32_t n = 0;
    bool failing = pool_frames_error(p) != 0;
    for (uint32_t f = 0; f < p->frame_count && (n < dirty_max || failing); f++) {
        frame *fr = &p->frames[f];
        uint16_t index = atomic_load_explicit(&fr->partition, memory_order_relaxed);
        if (index == PARTITION_NONE || !partition_set_has(held, index)) continue;
        if (atomic_exchange_explicit(&fr->cool, 1, memory_order_relaxed) == 0 || !evictable(&p->partitions[index], fr)) continue;
        if (fr->flags == 0) {
            evict_clean(p, f);
            if (atomic_load(&p->free_count) >= p->free_low) return 0;
        } else if (n == 0 || (n < dirty_max && *part == &p->partitions[index])) {
            *part = &p->partitions[index];
            dirty[n++] = f;
        }
    }
    return n;
}

/* That there is no space for dirty pages, or that they cannot be written any more, matters only while there are no clean ones. */
static int evict_held(pool *p, const partition_set *held)
{
    uint32_t dirty[EVICT_HELD_DIRTY];
    partition *part = NULL;
    write_batches_let_go(p, held);
    uint32_t n = evict_held_scan(p, held, &part, dirty, RW_MIN(p->emergency->capacity, EVICT_HELD_DIRTY));
    if (n == 0) return 0;
    if (atomic_load(&p->write_error) != 0)
        return atomic_load(&p->free_count) > 0 ? 0 : rw_error(RW_EIO, "dirty pages cannot be written any more");
    kio_mutex_lock(p->kio, &p->emergency_mutex);
    int error = write_batch_now(p, p->emergency, part, dirty, n);
    kio_mutex_unlock(p->kio, &p->emergency_mutex);
    return error == RW_ENOSPC && atomic_load(&p->free_count) > 0 ? 0 : error;
}

/* Nothing of our own to evict: the workers may find something elsewhere. */
static void frame_await(pool *p)
{
    uint32_t word = atomic_load(&p->free_word);
    atomic_fetch_add(&p->free_waiters, 1);
    if (atomic_load(&p->free_count) == 0) kio_sleep(p->kio, &p->free_word, word, 1000000);
    atomic_fetch_sub(&p->free_waiters, 1);
}

int pool_frame_take_holding(pool *p, const partition_set *held, uint32_t *out)
{
    bool failed = false;
    for (unsigned round = 0; round < HOLDING_ROUNDS; round++) {
        uint32_t f = pool_frame_try(p);
        if (f != FRAME_NONE) {
            *out = f;
            return 0;
        }
        int error = evict_held(p, held);
        if (error != 0 && (failed || error != RW_ENOSPC)) return error;
        failed = error != 0; /* once more: with that known, clean ones are looked for behind the dirty ones */
        if (round >= HOLDING_ROUNDS_BUSY) frame_await(p);
    }
    if (atomic_load(&p->write_error) != 0) return rw_error(RW_EIO, "dirty pages cannot be written any more, and no other page of the cache can be evicted");
    return rw_error(RW_ENOMEM, "no page of the cache can be evicted");
}
