/* Lists of runs that wait for their release. */
#include "store/store_internal.h"

/*
 * There is no way to fail: with no memory for the list the run stays counted as alive. It is lost until an open after a crash claims
 * what is alive anew; nothing is ever freed too early.
 */
void store_retire(store_retired *list, uint64_t address, uint32_t blocks)
{
    RW_ASSERT(address >= SEGMENT_BLOCKS && blocks > 0);
    if (list->count == list->capacity) {
        uint32_t capacity = RW_MAX(64, list->capacity * 2);
        void *runs = realloc(list->runs, capacity * sizeof *list->runs);
        if (runs == NULL) return;
        list->runs = runs;
        list->capacity = capacity;
    }
    list->runs[list->count].address = address;
    list->runs[list->count].blocks = blocks;
    list->count++;
    list->blocks += blocks;
}

void store_retired_move(store_retired *to, store_retired *from)
{
    if (to->count == 0) {
        store_retired empty = *to;
        *to = *from;
        *from = empty;
        return;
    }
    for (uint32_t i = 0; i < from->count; i++) store_retire(to, from->runs[i].address, from->runs[i].blocks);
    from->count = 0;
    from->blocks = 0;
}

void store_retired_free(store_retired *list)
{
    free(list->runs);
    *list = (store_retired){0};
}

void store_release(store *s, store_retired *list)
{
    if (list->count == 0) return;
    kio_mutex_lock(s->k, &s->mutex);
    RW_ASSERT(!s->sealed);
    for (uint32_t i = 0; i < list->count; i++) segments_release(s, list->runs[i].address, list->runs[i].blocks, false);
    kio_mutex_unlock(s->k, &s->mutex);
    list->count = 0;
    list->blocks = 0;
}
