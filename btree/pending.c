#include "btree/pending.h"

#include "base/planted.h"
#include "btree/hints.h"

#define RECORD_DIVISOR 8u              /* of a page: the largest record that may wait, */
#define LEAF_DIVISOR 2u                /* and what may wait for one leaf: T16 */
#define KEY_DIVISOR 8u                 /* of leaf_max: the longest key; it may become a separator, and the parts of one leaf have theirs in one parent */
#define LOAD_MAX 2u                    /* leaves for each bucket, until the table is doubled */

void pending_init(pending *pg, kio *k, pool *p, key_filter *keys, uint32_t page_size, uint64_t frames_max)
{
    pg->kio = k;
    pg->pool = p;
    pg->keys = keys;
    pg->frames_max = frames_max;
    pg->record_max = page_size / RECORD_DIVISOR;
    pg->leaf_max = page_size / LEAF_DIVISOR;
    pg->frame_buckets = page_size / (uint32_t)sizeof(pending_leaf *);
    frame_heap_init(&pg->heap, p);
}

/* ---- the table ---------------------------------------------------------------------------------------------------- */

static pending_leaf **bucket_of(const pending *pg, const pending_set *s, page_ref leaf)
{
    uint64_t mixed = page_ref_address(leaf) * 0x9e3779b97f4a7c15u;
    mixed ^= mixed >> 32;
    if (s->bucket_frames == 0) return (pending_leaf **)&s->few[mixed & (PENDING_BUCKETS_FEW - 1)];
    return &s->buckets[mixed & (s->bucket_frames - 1)][mixed >> 8 & (pg->frame_buckets - 1)];
}

/* Where the leaf's entry hangs, or NULL hangs where it would. */
static pending_leaf **place_find(const pending *pg, const pending_set *s, page_ref leaf)
{
    pending_leaf **place = bucket_of(pg, s, leaf);
    while (*place != NULL && ((*place)->ref.word != leaf.word || (*place)->ref.checksum != leaf.checksum)) place = &(*place)->next;
    return place;
}

static void entry_hang(const pending *pg, pending_set *s, pending_leaf *entry)
{
    pending_leaf **bucket = bucket_of(pg, s, entry->ref);
    entry->next = *bucket;
    *bucket = entry;
}

/* All entries, out of the table, as a list. */
static pending_leaf *entries_take(const pending *pg, pending_set *s)
{
    pending_leaf *all = NULL;
    uint32_t count = s->bucket_frames == 0 ? PENDING_BUCKETS_FEW : s->bucket_frames * pg->frame_buckets;
    for (uint32_t i = 0; i < count; i++) {
        pending_leaf **bucket = s->bucket_frames == 0 ? &s->few[i] : &s->buckets[i / pg->frame_buckets][i % pg->frame_buckets], *next;
        for (pending_leaf *entry = *bucket; entry != NULL; entry = next) {
            next = entry->next;
            entry->next = all;
            all = entry;
        }
        *bucket = NULL;
    }
    return all;
}

static void entries_hang(const pending *pg, pending_set *s, pending_leaf *all)
{
    for (pending_leaf *next; all != NULL; all = next) {
        next = all->next;
        entry_hang(pg, s, all);
    }
}

static uint32_t frame_borrow(pending *pg)
{
    return pending_frames(pg) < pending_limit(pg) ? pool_frame_try(pg->pool) : FRAME_NONE;
}

/* Twice as many buckets, if there is memory for them. Under the latch. */
static void table_double(pending *pg, pending_set *s)
{
    uint32_t wanted = RW_MAX(2 * s->bucket_frames, 1u), got = s->bucket_frames;
    if (wanted > PENDING_BUCKET_FRAMES) return;
    uint32_t taken[PENDING_BUCKET_FRAMES];
    for (; got < wanted; got++) {
        taken[got] = frame_borrow(pg);
        if (taken[got] == FRAME_NONE) break;
    }
    if (got < wanted) {
        while (got-- > s->bucket_frames) pool_frame_free(pg->pool, taken[got]);
        return;
    }
    pending_leaf *all = entries_take(pg, s);
    for (uint32_t i = s->bucket_frames; i < wanted; i++) {
        s->buckets[i] = pool_page(pg->pool, taken[i]);
        memset(s->buckets[i], 0, pg->pool->page_size);
    }
    atomic_fetch_add_explicit(&pg->bucket_frames, wanted - s->bucket_frames, memory_order_relaxed);
    s->bucket_frames = wanted;
    entries_hang(pg, s, all);
}

/* The last one is gone: so is the table. Under the latch. */
static void table_give(pending *pg, pending_set *s)
{
    for (uint32_t i = 0; i < s->bucket_frames; i++) {
        size_t offset = (size_t)((unsigned char *)s->buckets[i] - pg->pool->arena);
        pool_frame_free(pg->pool, (uint32_t)(offset / pg->pool->page_size));
    }
    atomic_fetch_sub_explicit(&pg->bucket_frames, s->bucket_frames, memory_order_relaxed);
    s->bucket_frames = 0;
    frame_arena_close(&pg->heap, &s->arena);
}

/* ---- writes ------------------------------------------------------------------------------------------------------- */

static size_t write_bytes(size_t key_size, size_t value_size)
{
    return (size_t)rw_align_up(offsetof(pending_write, bytes) + key_size + value_size, 8);
}

static uint32_t tag_bit(uint32_t tag)
{
    return 1u << (tag & 31);
}

static pending_write *write_find(const pending_leaf *entry, rw_slice key, uint64_t hash)
{
    if ((entry->tags & tag_bit((uint32_t)hash)) == 0) return NULL;
    for (pending_write *w = entry->writes; w != NULL; w = w->next)
        if (w->tag == (uint32_t)hash && rw_slice_equal(pending_key(w), key)) return w;
    return NULL;
}

pending_state pending_prepare(pending *pg, const partition *p, page_ref leaf, rw_slice key, uint64_t hash, size_t value_size)
{
    pending_set *s = pending_set_of(pg, p);
    if (key.size + value_size > pg->record_max || key.size * KEY_DIVISOR > pg->leaf_max) return PENDING_UNFIT;
    const pending_leaf *entry = *place_find(pg, s, leaf);
    const pending_write *same = entry != NULL ? write_find(entry, key, hash) : NULL;
    if (same != NULL && same->value_size == value_size) return PENDING_READY;
    if (entry != NULL && entry->bytes + pending_growth(key.size, value_size) > pg->leaf_max) return PENDING_UNFIT;
    size_t size = write_bytes(key.size, value_size) + (entry == NULL ? sizeof *entry : 0);
    if (frame_arena_has_room(&pg->heap, &s->arena, size)) return PENDING_READY;
    uint32_t f = frame_borrow(pg);
    if (f == FRAME_NONE) return PENDING_FULL;
    frame_arena_feed(&pg->heap, &s->arena, f);
    return PENDING_READY;
}

static pending_leaf *entry_make(pending *pg, pending_set *s, page_ref leaf)
{
    uint32_t leaves = atomic_load_explicit(&s->leaves, memory_order_relaxed);
    uint32_t buckets = RW_MAX(s->bucket_frames * pg->frame_buckets, PENDING_BUCKETS_FEW);
    if (leaves >= buckets * LOAD_MAX) table_double(pg, s);
    pending_leaf *entry = frame_arena_allocate(&pg->heap, &s->arena, sizeof *entry);
    RW_ASSERT(entry != NULL);
    *entry = (pending_leaf){.ref = leaf};
    entry_hang(pg, s, entry);
    atomic_store_explicit(&s->leaves, leaves + 1, memory_order_release);
    return entry;
}

static void count_add(pending_set *s, int64_t change)
{
    uint32_t before = atomic_load_explicit(&s->writes, memory_order_relaxed);
    atomic_store_explicit(&s->writes, (uint32_t)((int64_t)before + change), memory_order_relaxed);
}

/* In the place of what waits for the key, if it is as long; else beside it, and that is taken out. */
static void write_place(pending *pg, pending_set *s, pending_leaf *entry, rw_slice key, uint64_t hash, rw_slice value, uint64_t timestamp)
{
    pending_write *same = write_find(entry, key, hash), *w = same;
    if (same == NULL || same->value_size != value.size) {
        w = frame_arena_allocate(&pg->heap, &s->arena, write_bytes(key.size, value.size));
        RW_ASSERT(w != NULL);
        *w = (pending_write){.next = entry->writes, .tag = (uint32_t)hash, .key_size = (uint16_t)key.size, .value_size = (uint16_t)value.size};
        memcpy(w->bytes, key.data, key.size);
        entry->writes = w;
        entry->tags |= tag_bit(w->tag);
        entry->bytes += pending_growth(key.size, value.size);
        count_add(s, 1);
        if (same == NULL) atomic_fetch_add_explicit(&pg->added, 1, memory_order_relaxed);
    }
    if (value.size > 0) memcpy(w->bytes + key.size, value.data, value.size);
    RW_ASSERT(same == NULL || same->timestamp < timestamp);
    w->timestamp = timestamp;
    if (same == NULL || same == w) return;
    pending_write **place = &w->next;
    while (*place != same) place = &(*place)->next;
    *place = same->next;
    entry->bytes -= pending_growth(same->key_size, same->value_size);
    frame_heap_free(&pg->heap, same);
    count_add(s, -1);
}

void pending_put(pending *pg, const partition *p, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value, uint64_t timestamp, uint64_t logged)
{
    pending_set *s = pending_set_of(pg, p);
    if (atomic_load_explicit(&s->leaves, memory_order_relaxed) == 0) s->oldest = logged;
    RW_ASSERT(s->oldest <= logged && logged <= timestamp);
    key_filter_note(pg->keys, hash);
    kio_mutex_lock(pg->kio, &s->latch);
    pending_leaf *entry = *place_find(pg, s, leaf);
    if (entry == NULL) entry = entry_make(pg, s, leaf);
    write_place(pg, s, entry, key, hash, value, timestamp);
    kio_mutex_unlock(pg->kio, &s->latch);
    atomic_fetch_add_explicit(&pg->taken, 1, memory_order_relaxed);
}

const pending_leaf *pending_find(const pending *pg, const partition *p, page_ref leaf)
{
    return pending_is_empty(pg, p->index) ? NULL : *place_find(pg, pending_set_of(pg, p), leaf);
}

/* Those of an entry that are older than `before`. Under the latch. */
static void writes_free(pending *pg, pending_set *s, pending_leaf *entry, uint64_t before)
{
    int64_t gone = 0;
    entry->tags = 0;
    for (pending_write **place = &entry->writes, *w; (w = *place) != NULL;) {
        if (w->timestamp >= before) {
            entry->tags |= tag_bit(w->tag);
            place = &w->next;
            continue;
        }
        *place = w->next;
        entry->bytes -= pending_growth(w->key_size, w->value_size);
        frame_heap_free(&pg->heap, w);
        gone++;
    }
    count_add(s, -gone);
}

/* With nothing waiting in it. Under the latch. */
static void entry_free(pending *pg, pending_set *s, pending_leaf **place)
{
    pending_leaf *entry = *place;
    *place = entry->next;
    frame_heap_free(&pg->heap, entry);
    uint32_t leaves = atomic_load_explicit(&s->leaves, memory_order_relaxed) - 1;
    atomic_store_explicit(&s->leaves, leaves, memory_order_release);
    if (leaves == 0) table_give(pg, s);
}

void pending_drop(pending *pg, const partition *p, page_ref leaf)
{
    pending_set *s = pending_set_of(pg, p);
    kio_mutex_lock(pg->kio, &s->latch);
    pending_leaf **place = place_find(pg, s, leaf), *entry = *place;
    RW_ASSERT(entry != NULL);
    writes_free(pg, s, entry, UINT64_MAX);
    entry_free(pg, s, place);
    kio_mutex_unlock(pg->kio, &s->latch);
}

void pending_forget(pending *pg, const partition *p, page_ref leaf, uint64_t before)
{
    pending_set *s = pending_set_of(pg, p);
    kio_mutex_lock(pg->kio, &s->latch);
    pending_leaf **place = place_find(pg, s, leaf);
    if (*place != NULL) {
        writes_free(pg, s, *place, before);
        if ((*place)->writes == NULL) entry_free(pg, s, place);
    }
    kio_mutex_unlock(pg->kio, &s->latch);
}

uint64_t pending_oldest(const pending *pg, const partition *p)
{
    return pending_is_empty(pg, p->index) || RW_PLANTED(pending_held_by_nothing) ? UINT64_MAX : pending_set_of(pg, p)->oldest;
}

void pending_passed(pending *pg, const partition *p, uint64_t before)
{
    pending_set *s = pending_set_of(pg, p);
    if (s->oldest < before) s->oldest = before;
}

void pending_restamp(pending *pg, const partition *p, pending_write *write, uint64_t timestamp)
{
    pending_set *s = pending_set_of(pg, p);
    kio_mutex_lock(pg->kio, &s->latch);
    RW_ASSERT(write->timestamp < timestamp);
    write->timestamp = timestamp;
    kio_mutex_unlock(pg->kio, &s->latch);
}

bool pending_has_older(const pending_leaf *entry, uint64_t before)
{
    for (const pending_write *w = entry->writes; w != NULL; w = w->next)
        if (w->timestamp < before) return true;
    return false;
}

uint32_t pending_leaves(const pending *pg, const partition *p, uint64_t before, tree_miss *leaves, uint32_t max)
{
    const pending_set *s = pending_set_of(pg, p);
    uint32_t count = 0, buckets = s->bucket_frames == 0 ? PENDING_BUCKETS_FEW : s->bucket_frames * pg->frame_buckets;
    for (uint32_t i = 0; i < buckets && count < max; i++) {
        const pending_leaf *entry = s->bucket_frames == 0 ? s->few[i] : s->buckets[i / pg->frame_buckets][i % pg->frame_buckets];
        for (; entry != NULL && count < max; entry = entry->next)
            if (pending_has_older(entry, before)) leaves[count++] = (tree_miss){.ref = entry->ref};
    }
    return count;
}

void pending_move_begin(pending *pg, const partition *from, const partition *to)
{
    pending_set *a = pending_set_of(pg, from), *b = pending_set_of(pg, to);
    RW_ASSERT(pending_is_empty(pg, to->index));
    kio_mutex_lock(pg->kio, &a->latch);
    kio_mutex_lock(pg->kio, &b->latch);
    atomic_store_explicit(&b->leaves, 1, memory_order_release); /* not empty: who looks early waits for the latch */
}

void pending_move_end(pending *pg, const partition *from, const partition *to, rw_slice low)
{
    pending_set *a = pending_set_of(pg, from), *b = pending_set_of(pg, to);
    uint32_t stayed = 0, moved = 0, writes = 0;
    pending_leaf *all = entries_take(pg, a);
    for (pending_leaf *next; all != NULL; all = next) {
        next = all->next;
        bool goes = rw_slice_compare(pending_key(all->writes), low) >= 0 && !RW_PLANTED(pending_stays_behind);
        for (const pending_write *w = all->writes; goes && w != NULL; w = w->next) writes++;
        goes ? moved++ : stayed++;
        entry_hang(pg, goes ? b : a, all);
        if (goes && moved % PENDING_BUCKETS_FEW == 0 && moved >= RW_MAX(b->bucket_frames * pg->frame_buckets, PENDING_BUCKETS_FEW) * LOAD_MAX) table_double(pg, b);
    }
    b->oldest = a->oldest;
    count_add(a, -(int64_t)writes);
    count_add(b, writes);
    atomic_store_explicit(&a->leaves, stayed, memory_order_release);
    atomic_store_explicit(&b->leaves, moved, memory_order_release);
    if (stayed == 0) table_give(pg, a);
    kio_mutex_unlock(pg->kio, &b->latch);
    kio_mutex_unlock(pg->kio, &a->latch);
}

void pending_release(pending *pg, const partition *p)
{
    pending_set *s = pending_set_of(pg, p);
    if (pending_is_empty(pg, p->index)) frame_arena_close(&pg->heap, &s->arena);
}

bool pending_get(pending *pg, uint16_t index, page_ref leaf, rw_slice key, uint64_t hash, void *buf, size_t room, pending_value *out)
{
    pending_set *s = &pg->sets[index];
    if (RW_PLANTED(pending_unseen)) return false;
    kio_mutex_lock(pg->kio, &s->latch);
    const pending_leaf *entry = *place_find(pg, s, leaf);
    pending_write *w = entry != NULL ? write_find(entry, key, hash) : NULL;
    if (w != NULL) {
        atomic_store_explicit(&w->asked, 1, memory_order_relaxed);
        *out = (pending_value){.timestamp = w->timestamp, .size = w->value_size, .fits = w->value_size <= room};
        if (out->fits && w->value_size > 0) memcpy(buf, w->bytes + w->key_size, w->value_size);
    }
    kio_mutex_unlock(pg->kio, &s->latch);
    if (w != NULL) atomic_fetch_add_explicit(&pg->answered, 1, memory_order_relaxed);
    return w != NULL;
}
