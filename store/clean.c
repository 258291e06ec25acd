/* Which segments are worth rewriting. */
#include "store/store_internal.h"

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
        if (g->live[n] >= least || g->flags[n].state != SEGMENT_CLOSED || g->flags[n].cleaning || g->flags[n].unreadable || g->flags[n].spanned) continue;
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

void store_clean_end(store *s, uint32_t segment, bool unreadable)
{
    kio_mutex_lock(s->k, &s->mutex);
    if (segment < s->segments.count && s->segments.flags[segment].cleaning) {
        s->segments.flags[segment].cleaning = false;
        s->segments.flags[segment].unreadable = unreadable;
        s->segments.cleaning_count--;
    }
    kio_mutex_unlock(s->k, &s->mutex);
}

void store_clean_retry(store *s)
{
    kio_mutex_lock(s->k, &s->mutex);
    for (uint32_t n = 0; n < s->segments.count; n++) s->segments.flags[n].unreadable = false;
    kio_mutex_unlock(s->k, &s->mutex);
}
