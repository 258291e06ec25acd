/*
 * The length of the file. File systems take their time to change it (they read their maps of free space, and make readers of the file wait), so it is done ahead of
 * demand if possible, and never with the mutex over the accounting held.
 */
#include <stdio.h>

#include "store/store_internal.h"

#define GROW_DIVISOR 16u               /* the file grows by this part of it, or what is needed: a larger one in larger steps, so that it stays in few pieces */
#define GROW_AHEAD_STEP 8u             /* segments, while nobody needs them yet */
#define SHRINK_STEP 8u                 /* segments cut off at a time; ext4 takes about 0.2 ms for each MiB */

/* ---- growing: the length mutex is held ---- */

static int grow_by(store *s, uint32_t wanted)
{
    segments *g = &s->segments;
    kio_mutex_lock(s->k, &s->mutex);
    uint32_t count = g->count;
    int result = s->sealed ? rw_error(RW_ECLOSED, "%s is closed cleanly: it does not grow", kio_file_path(s->file)) : segments_reserve(g, count + wanted);
    kio_mutex_unlock(s->k, &s->mutex);
    if (result == 0) result = kio_file_allocate(s->k, s->file, (uint64_t)count * RW_SEGMENT_BYTES, (uint64_t)wanted * RW_SEGMENT_BYTES);
    if (result != 0) return result;
    kio_mutex_lock(s->k, &s->mutex);
    segments_append(g, wanted);
    kio_mutex_unlock(s->k, &s->mutex);
    return 0;
}

/* What a failed allocation may have added in part. A file left too long does no harm: its length counts again at the next open. */
static void grow_undo(store *s)
{
    char text[240];
    snprintf(text, sizeof text, "%s", rw_error_text());
    (void)kio_file_resize(s->k, s->file, (uint64_t)s->segments.count * RW_SEGMENT_BYTES);
    rw_error(RW_ENOSPC, "%s", text);
}

static int grow_or_undo(store *s, uint32_t wanted)
{
    int result = grow_by(s, wanted);
    if (result == RW_ENOSPC) grow_undo(s);
    return result;
}

static uint32_t step_of(uint32_t count)
{
    return RW_MIN(count / GROW_DIVISOR, (uint32_t)(GROW_BYTES_MAX / RW_SEGMENT_BYTES));
}

/* On a full device by what is needed alone. */
int segments_grow(store *s, uint32_t needed)
{
    uint32_t count = s->segments.count;
    if (needed > SEGMENTS_MAX - count) return rw_error(RW_ENOSPC, "%s has its greatest size, %u segments", kio_file_path(s->file), count);
    uint32_t step = RW_MIN(RW_MAX(step_of(count), needed), SEGMENTS_MAX - count);
    int result = grow_or_undo(s, step);
    return result == RW_ENOSPC && step > needed ? grow_or_undo(s, needed) : result;
}

int segments_grow_since(store *s, uint32_t seen, uint32_t needed)
{
    kio_mutex_lock(s->k, &s->length_mutex);
    int result = s->segments.count == seen ? segments_grow(s, needed) : 0;
    kio_mutex_unlock(s->k, &s->length_mutex);
    return result;
}

/* How many segments to add, less than half of a step being free; 0: none. */
static uint32_t ahead_wanted(store *s)
{
    const segments *g = &s->segments;
    kio_mutex_lock(s->k, &s->mutex);
    uint32_t step = step_of(g->count), free_count = g->free_count;
    bool wanted = !s->sealed && !g->claiming && free_count * 2 < step && g->count + step <= SEGMENTS_MAX;
    kio_mutex_unlock(s->k, &s->mutex);
    return wanted ? RW_MIN(step - free_count, GROW_AHEAD_STEP) : 0;
}

void store_grow_ahead(store *s)
{
    kio_mutex_lock(s->k, &s->length_mutex);
    uint32_t wanted = s->refused_at == s->segments.count ? 0 : ahead_wanted(s);
    if (wanted > 0 && grow_or_undo(s, wanted) != 0) s->refused_at = s->segments.count;
    kio_mutex_unlock(s->k, &s->length_mutex);
}

/* ---- cutting ---- */

/* Under the length mutex: at most `most` segments, as long as more than kept_free are free. *cut: how many. */
static int shrink_step(store *s, uint32_t kept_free, uint32_t most, uint32_t *cut)
{
    kio_mutex_lock(s->k, &s->mutex);
    uint32_t taken = segments_cut(&s->segments, kept_free, most);
    uint32_t kept = s->segments.count;
    kio_mutex_unlock(s->k, &s->mutex);
    int result = taken == 0 ? 0 : kio_file_resize(s->k, s->file, (uint64_t)kept * RW_SEGMENT_BYTES);
    if (result == 0) {
        *cut = taken;
        return 0;
    }
    kio_mutex_lock(s->k, &s->mutex);
    segments_append(&s->segments, taken);
    kio_mutex_unlock(s->k, &s->mutex);
    return result;
}

int store_shrink(store *s, uint32_t kept_free, uint64_t *bytes)
{
    store_space space;
    *bytes = 0;
    if (s->params.read_only) return rw_error(RW_EREADONLY, "%s is open read-only: not cut", kio_file_path(s->file));
    store_space_get(s, &space);
    /* of what is free now: else a writer who needs space between the steps, and makes the file grow, would keep us here */
    uint32_t left = space.segments_free > kept_free ? space.segments_free - kept_free : 0;
    for (uint32_t cut = 1; cut > 0 && left > 0; left -= cut) {
        cut = 0;
        kio_mutex_lock(s->k, &s->length_mutex);
        int result = shrink_step(s, kept_free, RW_MIN(left, SHRINK_STEP), &cut);
        kio_mutex_unlock(s->k, &s->length_mutex);
        if (result != 0) return result;
        *bytes += (uint64_t)cut * RW_SEGMENT_BYTES;
    }
    return 0;
}
