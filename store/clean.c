/* Which segments are worth rewriting, and giving the end of the file back. */
#include "store/store_internal.h"

/* Segments cut off at a time: file systems make reads of a file wait while it is cut, ext4 about 0.2 ms for each MiB. */
#define SHRINK_STEP 8u

/*
 * The comparison is strict and goes upwards, so among equals the lowest is taken: that empties the file from its front, where new runs
 * are put, and all the same lets the end be cut off, which is asked for with `from`.
 */
uint32_t store_clean_pick(store *s, unsigned max_live_percent, uint32_t from)
{
    segments *g = &s->segments;
    uint32_t picked = 0;
    kio_mutex_lock(s->k, &s->mutex);
    uint32_t least = (uint32_t)(((uint64_t)SEGMENT_BLOCKS * max_live_percent + 99) / 100);
    for (uint32_t n = RW_MAX(from, 1); n < g->count; n++) {
        if (g->live[n] >= least || g->flags[n].state != SEGMENT_CLOSED || g->flags[n].cleaning || g->flags[n].spanned) continue;
        least = g->live[n];
        picked = n;
    }
    if (picked != 0) {
        g->flags[picked].cleaning = true;
        g->cleaning_count++;
    }
    kio_mutex_unlock(s->k, &s->mutex);
    return picked;
}

void store_clean_end(store *s, uint32_t segment)
{
    kio_mutex_lock(s->k, &s->mutex);
    if (segment < s->segments.count && s->segments.flags[segment].cleaning) {
        s->segments.flags[segment].cleaning = false;
        s->segments.cleaning_count--;
    }
    kio_mutex_unlock(s->k, &s->mutex);
}

/* One step of it: at most `most` segments, as long as more than kept_free are free. *cut: how many. */
static int shrink_step(store *s, uint32_t kept_free, uint32_t most, uint32_t *cut)
{
    segments *g = &s->segments;
    kio_mutex_lock(s->k, &s->mutex);
    RW_ASSERT(!g->claiming);
    uint32_t count = g->count, kept = count;
    most = RW_MIN(most, g->free_count > kept_free ? g->free_count - kept_free : 0);
    while (kept > count - most && g->flags[kept - 1].state == SEGMENT_FREE) kept--;
    int result = kept == count ? 0 : kio_file_resize(s->k, s->file, (uint64_t)kept * RW_SEGMENT_BYTES);
    if (result == 0) {
        /* out of the file is: no bit, and a state that growing finds */
        for (uint32_t n = kept; n < count; n++) segment_from_free(g, n, SEGMENT_FREE);
        atomic_store_explicit(&g->count, kept, memory_order_relaxed);
        *cut = count - kept;
    }
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
        int result = shrink_step(s, kept_free, RW_MIN(left, SHRINK_STEP), &cut);
        if (result != 0) return result;
        *bytes += (uint64_t)cut * RW_SEGMENT_BYTES;
    }
    return 0;
}
