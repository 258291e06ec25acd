/*
 * The version store, as writers use it. A skip list by key and timestamp, whose links go both ways, so that a version is taken out without a search; and a list
 * by timestamp, whose front is what no snapshot needs any more.
 *
 * Why X2 and X3 hold. Let S be an open snapshot, k a key, and T the first operation on k with T >= S, if there is one. Then k's version T is in the store:
 *  - When T comes, all versions of k are below S. S is in the registry, or being begun (if T had its place in the log before that was announced, S would lie above
 *    T), so newest >= S, which is above the newest version of k: T is recorded. Later operations on k may be recorded or not, it does not matter to S.
 *  - T is dropped only when no snapshot lies in (the timestamp of the version of k before T, T], or when T is below the oldest snapshot. The version before T is
 *    below S, so S lies in that interval; and the oldest is not above S.
 * So the smallest version >= S is what S sees, and there is one exactly when k was written at or after S. That a version before T was dropped, or never recorded, only
 * makes the interval longer.
 */
#include "base/planted.h"
#include "txn/versions_internal.h"

#define TRIM_AT_WRITE 2u           /* old versions dropped with each one recorded */
#define TRIM_AT_LIMIT 8u           /* while there are too many */
#define TRIM_ELSEWHERE 32u
#define TRIM_LATCHED 16u           /* dropped in one hold of the latch */
#define STALE_LOOKS 2u             /* older versions of a key that are looked at when a new one comes */
#define SWEEP_AT_WRITE 2u          /* versions that the hand goes past with each one recorded */
#define SWEEP_FROM 16u             /* with fewer it is not worth it */

void versions_init(versions *v, trees *t, snapshots *s, uint64_t bytes_max)
{
    memset(v, 0, sizeof *v);
    v->trees = t;
    v->snapshots = s;
    v->bytes_max = bytes_max;
    frame_heap_init(&v->heap, &t->pool);
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        atomic_init(&v->stores[i].front, UINT64_MAX);
        rw_random_seed(&v->stores[i].random, 0x76657273696f6e73u + i);
    }
}

void versions_close(versions *v)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        version_store *s = &v->stores[i];
        for (version *one = s->oldest, *younger; one != NULL; one = younger) {
            younger = one->younger;
            frame_heap_free(&v->heap, one);
        }
        frame_arena_close(&v->heap, &s->arena);
    }
    RW_ASSERT(atomic_load(&v->heap.frames) == 0);
}

uint64_t versions_count(const versions *v)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) count += atomic_load_explicit(&v->stores[i].count, memory_order_relaxed);
    return count;
}

/* ---- the index --------------------------------------------------------------------------------------------------- */

version *version_seek(const version_store *s, const version_key *key, uint64_t timestamp, version *before[VERSION_LEVELS])
{
    version *at = NULL, *next = NULL, *behind = NULL;
    for (unsigned level = VERSION_LEVELS; level-- > 0;) {
        for (;;) {
            next = at == NULL ? s->head[level] : at->links[level].next;
            if (next == behind) break; /* the end, or known from the level above to be behind */
            int order = version_key_order(next, key);
            if (order > 0 || (order == 0 && next->timestamp >= timestamp)) {
                behind = next;
                break;
            }
            at = next;
        }
        if (before != NULL) before[level] = at;
    }
    return next;
}

void version_seek_last(const version_store *s, version *last[VERSION_LEVELS])
{
    version *at = NULL, *next;
    for (unsigned level = VERSION_LEVELS; level-- > 0;) {
        while ((next = at == NULL ? s->head[level] : at->links[level].next) != NULL) at = next;
        last[level] = at;
    }
}

/* Behind before[], and as the youngest. */
static void store_link(version_store *s, version *new, version *const before[VERSION_LEVELS])
{
    for (unsigned level = 0; level < new->levels; level++) {
        version **from = before[level] == NULL ? &s->head[level] : &before[level]->links[level].next;
        new->links[level] = (version_link){.next = *from, .previous = before[level]};
        if (*from != NULL) (*from)->links[level].previous = new;
        *from = new;
    }
    new->older = s->youngest;
    new->younger = NULL;
    *(s->youngest == NULL ? &s->oldest : &s->youngest->younger) = new;
    s->youngest = new;
    version_store_count(s, atomic_load_explicit(&s->count, memory_order_relaxed) + 1);
}

static void store_unlink(version_store *s, version *old)
{
    for (unsigned level = 0; level < old->levels; level++) {
        version_link link = old->links[level];
        *(link.previous == NULL ? &s->head[level] : &link.previous->links[level].next) = link.next;
        if (link.next != NULL) link.next->links[level].previous = link.previous;
    }
    *(old->older == NULL ? &s->oldest : &old->older->younger) = old->younger;
    *(old->younger == NULL ? &s->youngest : &old->younger->older) = old->older;
    if (s->hand == old) s->hand = old->younger;
    version_store_count(s, atomic_load_explicit(&s->count, memory_order_relaxed) - 1);
}

/* ---- dropping ---------------------------------------------------------------------------------------------------- */

/* After it was unlinked: nobody finds it any more. */
static void version_drop(versions *v, partition *p, version *old)
{
    if (old->is_extent) {
        extent_ref extent;
        memcpy(&extent, version_value(old).data, sizeof extent);
        store_retire(&p->extents, extent.address, extent_blocks(old->key_size, extent.length));
    }
    frame_heap_free(&v->heap, old);
}

/* Whether the front of the list may go. */
static bool store_trim(versions *v, partition *p, unsigned max)
{
    version_store *s = &v->stores[p->index];
    uint64_t oldest = atomic_load(&v->snapshots->oldest);
    if (RW_PLANTED(trim_too_early) && oldest != UINT64_MAX) oldest++;
    while (max > 0 && s->oldest != NULL && s->oldest->timestamp < oldest) {
        version *dropped[TRIM_LATCHED];
        unsigned count = 0, some = RW_MIN(max, TRIM_LATCHED);
        kio_mutex_lock(v->trees->kio, &s->latch);
        for (; count < some && s->oldest != NULL && s->oldest->timestamp < oldest; count++) {
            dropped[count] = s->oldest;
            store_unlink(s, s->oldest);
        }
        kio_mutex_unlock(v->trees->kio, &s->latch);
        for (unsigned i = 0; i < count; i++) version_drop(v, p, dropped[i]);
        max -= count;
    }
    return s->oldest != NULL && s->oldest->timestamp < oldest;
}

/* An empty store keeps no frame. */
static void store_settle(versions *v, version_store *s)
{
    if (s->oldest == NULL) frame_arena_close(&v->heap, &s->arena);
}

bool versions_trim(versions *v, partition *p, unsigned max)
{
    bool more = store_trim(v, p, max);
    store_settle(v, &v->stores[p->index]);
    return more;
}

/* X5. The token's holder may look without the latch: only he changes the index. */
static bool version_is_stale(const versions *v, const version *one)
{
    version_key key = version_key_at(one);
    const version *previous = one->links[0].previous;
    return !snapshots_between(v->snapshots, version_has_key(previous, &key) ? previous->timestamp : 0, one->timestamp);
}

/* Of the versions of a key, newest given, those that no snapshot needs, among the last few. */
static unsigned stale_versions(const versions *v, version *newest, version *stale[STALE_LOOKS])
{
    unsigned count = 0;
    if (newest == NULL) return 0;
    version_key key = version_key_at(newest);
    version *one = newest;
    for (unsigned i = 0; i < STALE_LOOKS && version_has_key(one, &key); i++) {
        if (version_is_stale(v, one)) stale[count++] = one;
        one = one->links[0].previous;
    }
    return count;
}

/*
 * While a long snapshot holds the front of the list, what only shorter ones needed lies behind it, however often they come and go. So a hand goes round, faster
 * than versions come: there is never much more garbage than there are versions that are needed.
 */
static void store_sweep(versions *v, partition *p, unsigned looks)
{
    version_store *s = &v->stores[p->index];
    for (unsigned i = 0; i < looks && s->oldest != NULL; i++) {
        version *one = s->hand == NULL ? s->oldest : s->hand;
        s->hand = one->younger;
        if (!version_is_stale(v, one)) continue;
        kio_mutex_lock(v->trees->kio, &s->latch);
        store_unlink(s, one);
        kio_mutex_unlock(v->trees->kio, &s->latch);
        version_drop(v, p, one);
    }
}

/* Drops what is free to go in another partition. Its token is only tried for: its holder may be waiting for ours. false: there is none to go anywhere. */
static bool trim_elsewhere(versions *v, const partition *here)
{
    for (unsigned i = 1; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &v->trees->partitions[(here->index + i) % RW_PARTITIONS_MAX];
        if (!versions_wants_trim(v, p)) continue;
        if (partition_try(p)) {
            versions_trim(v, p, TRIM_ELSEWHERE);
            partition_unlock(v->trees->kio, p);
        }
        return true;
    }
    return false;
}

/* Before a version comes, some go; the arena stays, it may have been fed for the one that comes. As long as any can go without it, no snapshot is given up. */
static void trim_before_record(versions *v, partition *p, uint64_t timestamp)
{
    version_store *s = &v->stores[p->index];
    uint32_t count = atomic_load_explicit(&s->count, memory_order_relaxed);
    bool more = store_trim(v, p, TRIM_AT_WRITE);
    if (count > SWEEP_FROM && atomic_load_explicit(&s->count, memory_order_relaxed) == count) store_sweep(v, p, SWEEP_AT_WRITE);
    if (RW_LIKELY(versions_bytes(v) <= v->bytes_max)) return;
    if (more) more = store_trim(v, p, TRIM_AT_LIMIT);
    if (more || versions_bytes(v) <= v->bytes_max || trim_elsewhere(v, p)) return;
    if (atomic_load(&v->snapshots->oldest) > timestamp) return;
    snapshots_give_up_oldest(v->snapshots);
    store_trim(v, p, TRIM_AT_LIMIT);
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static size_t size_with_levels(size_t key_size, size_t value_size, unsigned levels)
{
    return sizeof(version) + levels * sizeof(version_link) + key_size + value_size;
}

/* With the lowest height, which is what a version gets that would not fit with the one that was drawn for it. */
size_t versions_size(const versions *v, size_t key_size, size_t value_size)
{
    size_t size = size_with_levels(key_size, value_size, 1);
    RW_ASSERT(size <= frame_heap_object_max(&v->heap));
    return size;
}

bool versions_has_room(const versions *v, const partition *p, size_t size)
{
    return frame_arena_has_room(&v->heap, &v->stores[p->index].arena, size);
}

bool versions_may_grow(const versions *v)
{
    return versions_bytes(v) < 2 * v->bytes_max;
}

void versions_feed(versions *v, const partition *p, uint32_t index)
{
    frame_arena_feed(&v->heap, &v->stores[p->index].arena, index);
}

/* One in four has a level more. */
static unsigned levels_draw(rw_random *random)
{
    unsigned levels = 1;
    for (uint64_t bits = rw_random_next(random); levels < VERSION_LEVELS && (bits & 3) == 0; bits >>= 2) levels++;
    return levels;
}

static version *version_make(versions *v, const partition *p, const version_key *key, uint64_t timestamp, const version_image *image)
{
    version_store *s = &v->stores[p->index];
    size_t value_size = image->present ? image->value.size : 0;
    unsigned levels = levels_draw(&s->random);
    RW_ASSERT(!image->present || !image->is_extent || value_size == sizeof(extent_ref));
    if (!versions_has_room(v, p, versions_size(v, key->slice.size, value_size))) {
        uint32_t index = versions_may_grow(v) ? pool_frame_try(&v->trees->pool) : FRAME_NONE;
        if (index == FRAME_NONE) return NULL;
        versions_feed(v, p, index);
    }
    if (!versions_has_room(v, p, size_with_levels(key->slice.size, value_size, levels))) levels = 1;
    version *new = frame_arena_allocate(&v->heap, &s->arena, size_with_levels(key->slice.size, value_size, levels));
    RW_ASSERT(new != NULL);
    *new = (version){.timestamp = timestamp,
                     .head = key->head,
                     .bucket = key->bucket,
                     .value_size = (uint32_t)value_size,
                     .key_size = (uint16_t)key->slice.size,
                     .levels = (uint8_t)levels,
                     .present = image->present,
                     .is_extent = image->present && image->is_extent};
    unsigned char *bytes = (unsigned char *)&new->links[levels];
    memcpy(bytes, key->slice.data, key->slice.size);
    if (value_size > 0) memcpy(bytes + key->slice.size, image->value.data, value_size);
    return new;
}

/* With the latch in between: readers meet the new one or the old ones, and both serve them. */
static void store_replace(versions *v, version_store *s, version *new, version *const before[VERSION_LEVELS], version *const *stale, unsigned stale_count)
{
    kio_mutex_lock(v->trees->kio, &s->latch);
    store_link(s, new, before);
    for (unsigned i = 0; i < stale_count; i++) store_unlink(s, stale[i]);
    kio_mutex_unlock(v->trees->kio, &s->latch);
    /* relaxed: who needs it has read the leaf as the operation leaves it, and that is still to come */
    atomic_store_explicit(&s->newest, new->timestamp, memory_order_relaxed);
}

static bool record_needed(versions *v, partition *p, const version_key *key, uint64_t timestamp, const version_image *image)
{
    version_store *s = &v->stores[p->index];
    version *before[VERSION_LEVELS], *stale[STALE_LOOKS];
    version *behind = version_seek(s, key, timestamp, before);
    RW_ASSERT(!version_has_key(behind, key));
    version *last = version_has_key(before[0], key) ? before[0] : NULL;
    if (atomic_load(&v->snapshots->newest) <= (last == NULL ? 0 : last->timestamp)) return false; /* they all see last, or an older one */
    version *new = version_make(v, p, key, timestamp, image);
    if (new == NULL) {
        snapshots_give_up(v->snapshots, timestamp);
        return false;
    }
    unsigned stale_count = stale_versions(v, last, stale);
    store_replace(v, s, new, before, stale, stale_count);
    for (unsigned i = 0; i < stale_count; i++) version_drop(v, p, stale[i]);
    return true;
}

bool versions_record(versions *v, partition *p, rw_slice key, uint64_t timestamp, const version_image *image)
{
    version_store *s = &v->stores[p->index];
    version_key wanted = version_key_of(key);
    RW_ASSERT(key.size > 0 && (s->youngest == NULL || s->youngest->timestamp <= timestamp));
    trim_before_record(v, p, timestamp);
    bool recorded = versions_wanted(v) && record_needed(v, p, &wanted, timestamp, image);
    store_settle(v, s);
    return recorded && image->present && image->is_extent;
}

/* ---- what was written (X3) --------------------------------------------------------------------------------------- */

bool versions_written_since(versions *v, const partition *p, rw_slice key, uint64_t since)
{
    const version_store *s = &v->stores[p->index];
    version_key wanted = version_key_of(key);
    if (s->youngest == NULL || s->youngest->timestamp < since) return false;
    return version_has_key(version_seek(s, &wanted, since, NULL), &wanted); /* no latch: the token's holder only reads what only he changes */
}

static bool range_hit(const version *one, const version_key *from, const version_key *to, uint64_t since, unsigned char *found, size_t *size)
{
    if (one->timestamp < since || version_key_order(one, from) < 0 || (to->slice.size > 0 && version_key_order(one, to) >= 0)) return false;
    memcpy(found, version_key_bytes(one).data, one->key_size);
    *size = one->key_size;
    return true;
}

/* Two walks at once, over the keys of the range and over what is young enough: the shorter one decides. */
bool versions_range_written_since(versions *v, const partition *p, rw_slice from, rw_slice to, uint64_t since, unsigned char *found, size_t *size)
{
    const version_store *s = &v->stores[p->index];
    version_key low = version_key_of(from), high = version_key_of(to);
    const version *young = s->youngest;
    if (young == NULL || young->timestamp < since) return false;
    const version *one = version_seek(s, &low, 0, NULL);
    while (one != NULL && (to.size == 0 || version_key_order(one, &high) < 0) && young != NULL && young->timestamp >= since) {
        if (range_hit(one, &low, &high, since, found, size) || range_hit(young, &low, &high, since, found, size)) return true;
        one = one->links[0].next;
        young = young->older;
    }
    return false;
}
