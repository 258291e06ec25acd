/* Versions go with their keys when partitions are cut and joined (X7). */
#include "txn/versions_internal.h"

/* One at a time: partitions are cut and joined by one thread. The sequence makes readers begin again who looked for a key in the one store while it was on its
 * way to the other. */
void versions_move_begin(versions *v)
{
    RW_ASSERT((atomic_load_explicit(&v->moves, memory_order_relaxed) & 1) == 0);
    atomic_fetch_add_explicit(&v->moves, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

void versions_move_end(versions *v)
{
    RW_ASSERT((atomic_load_explicit(&v->moves, memory_order_relaxed) & 1) == 1);
    atomic_fetch_add_explicit(&v->moves, 1, memory_order_release);
}

/* Hangs what stands behind before[] in `from` to the end of `to`. */
static void index_splice(version_store *from, version_store *to, version *const before[VERSION_LEVELS])
{
    version *last[VERSION_LEVELS];
    version_seek_last(to, last);
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        version **cut = before[level] == NULL ? &from->head[level] : &before[level]->links[level].next;
        version *first = *cut;
        if (first == NULL) continue;
        *cut = NULL;
        *(last[level] == NULL ? &to->head[level] : &last[level]->links[level].next) = first;
        first->links[level].previous = last[level];
    }
}

static void list_take(version_store *s, version *one)
{
    *(one->older == NULL ? &s->oldest : &one->older->younger) = one->younger;
    *(one->younger == NULL ? &s->youngest : &one->younger->older) = one->older;
}

/* In front of `younger`; NULL: at the end. */
static void list_put(version_store *s, version *one, version *younger)
{
    one->younger = younger;
    one->older = younger == NULL ? s->youngest : younger->older;
    *(one->older == NULL ? &s->oldest : &one->older->younger) = one;
    *(younger == NULL ? &s->youngest : &younger->older) = one;
}

/* Both lists are in order of timestamp, and so is what becomes of them. */
static uint32_t list_merge(version_store *from, version_store *to, const version_key *low)
{
    uint32_t moved = 0;
    version *at = to->oldest;
    for (version *one = from->oldest, *younger; one != NULL; one = younger) {
        younger = one->younger;
        if (version_key_order(one, low) < 0) continue;
        while (at != NULL && at->timestamp <= one->timestamp) at = at->younger;
        list_take(from, one);
        list_put(to, one, at);
        moved++;
    }
    return moved;
}

static void store_move(version_store *from, version_store *to, const version_key *low)
{
    version *before[VERSION_LEVELS], *last[VERSION_LEVELS];
    version *first = version_seek(from, low, 0, before);
    if (first == NULL) return;
    version_seek_last(to, last);
    if (last[0] != NULL) {
        version_key key = version_key_at(first);
        RW_ASSERT(version_key_order(last[0], &key) < 0);
    }
    index_splice(from, to, before);
    uint32_t moved = list_merge(from, to, low);
    from->hand = NULL;
    version_store_count(from, atomic_load_explicit(&from->count, memory_order_relaxed) - moved);
    version_store_count(to, atomic_load_explicit(&to->count, memory_order_relaxed) + moved);
    uint64_t newest = atomic_load_explicit(&from->newest, memory_order_relaxed);
    if (atomic_load_explicit(&to->newest, memory_order_relaxed) < newest) atomic_store_explicit(&to->newest, newest, memory_order_relaxed);
}

void versions_move(versions *v, const partition *from, const partition *to, rw_slice low)
{
    kio *k = v->trees->kio;
    version_store *a = &v->stores[from->index], *b = &v->stores[to->index];
    version_key key = version_key_of(low);
    RW_ASSERT((atomic_load_explicit(&v->moves, memory_order_relaxed) & 1) == 1 && from != to);
    /* nobody else holds two latches */
    kio_mutex_lock(k, &a->latch);
    kio_mutex_lock(k, &b->latch);
    store_move(a, b, &key);
    kio_mutex_unlock(k, &b->latch);
    kio_mutex_unlock(k, &a->latch);
    if (a->oldest == NULL) frame_arena_close(&v->heap, &a->arena);
}
