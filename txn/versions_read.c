/* The version store, as readers use it: without tokens, under the latch of one store at a time, and again when partitions were cut or joined meanwhile (X7). */
#include "txn/versions_internal.h"

#define KEYS_LATCHED 16u           /* keys looked at in one hold of the latch */
#define NEAR_LOOKS 6u              /* steps along the lowest level before it is worth a search */

/* The number to hand to moves_unchanged. */
static uint32_t moves_settled(versions *v)
{
    for (;;) {
        uint32_t moves = atomic_load_explicit(&v->moves, memory_order_acquire);
        if ((moves & 1) == 0) return moves;
        kio_yield(v->trees->kio);
    }
}

static bool moves_unchanged(const versions *v, uint32_t moves)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&v->moves, memory_order_relaxed) == moves;
}

/* Whether a store has nothing at all for a snapshot. Without the latch: what the snapshot needs was recorded before the leaf changed that the reader has read. */
static bool store_is_quiet(const version_store *s, uint64_t since)
{
    return atomic_load_explicit(&s->newest, memory_order_relaxed) < since || atomic_load_explicit(&s->count, memory_order_relaxed) == 0;
}

static version_state version_read(const version *one, void *buf, size_t room, size_t *size, extent_ref *extent)
{
    if (!one->present) return VERSION_ABSENT;
    rw_slice value = version_value(one);
    if (one->is_extent) {
        memcpy(extent, value.data, sizeof *extent);
        return VERSION_EXTENT;
    }
    *size = value.size;
    if (value.size > 0 && value.size <= room) memcpy(buf, value.data, value.size);
    return VERSION_VALUE;
}

version_state versions_find(versions *v, rw_slice key, uint64_t since, void *buf, size_t room, size_t *size, extent_ref *extent)
{
    version_key wanted = version_key_of(key);
    for (;;) {
        version_state state = VERSION_NONE;
        uint32_t moves = moves_settled(v);
        version_store *s = &v->stores[router_find_now(v->trees->kio, &v->trees->router, key)];
        if (!store_is_quiet(s, since)) {
            kio_mutex_lock(v->trees->kio, &s->latch);
            const version *one = version_seek(s, &wanted, since, NULL);
            if (version_has_key(one, &wanted)) state = version_read(one, buf, room, size, extent);
            kio_mutex_unlock(v->trees->kio, &s->latch);
        }
        if (moves_unchanged(v, moves)) return state;
    }
}

/* ---- overlays ---------------------------------------------------------------------------------------------------- */

void version_overlay_free(version_overlay *overlay)
{
    free(overlay->bytes);
    free(overlay->entries);
    *overlay = (version_overlay){0};
}

static int overlay_no_memory(void)
{
    return rw_error_fixed(RW_ENOMEM, "no memory for the old values of a range");
}

static int overlay_bytes_reserve(version_overlay *o, size_t more)
{
    if (o->bytes_capacity - o->bytes_size >= more) return 0;
    size_t capacity = RW_MAX(RW_MAX(o->bytes_capacity * 2, (size_t)4096), o->bytes_size + more);
    unsigned char *bytes = realloc(o->bytes, capacity);
    if (bytes == NULL) return overlay_no_memory();
    o->bytes = bytes;
    o->bytes_capacity = capacity;
    return 0;
}

static int overlay_entries_reserve(version_overlay *o)
{
    if (o->count < o->capacity) return 0;
    unsigned capacity = RW_MAX(o->capacity * 2, 16);
    struct version_entry *entries = realloc(o->entries, capacity * sizeof *entries);
    if (entries == NULL) return overlay_no_memory();
    o->entries = entries;
    o->capacity = capacity;
    return 0;
}

static int overlay_add(version_overlay *o, const version *one)
{
    int error = overlay_bytes_reserve(o, (size_t)one->key_size + one->value_size);
    if (error == 0) error = overlay_entries_reserve(o);
    if (error != 0) return error;
    o->entries[o->count++] = (struct version_entry){.key_offset = o->bytes_size,
                                                    .value_offset = o->bytes_size + one->key_size,
                                                    .key_size = one->key_size,
                                                    .value_size = one->value_size,
                                                    .present = one->present,
                                                    .is_extent = one->is_extent};
    /* in a version the value stands behind the key, too */
    memcpy(o->bytes + o->bytes_size, version_key_bytes(one).data, (size_t)one->key_size + one->value_size);
    o->bytes_size += (size_t)one->key_size + one->value_size;
    return 0;
}

static void overlay_reverse(version_overlay *o)
{
    for (unsigned i = 0; i < o->count / 2; i++) {
        struct version_entry one = o->entries[i];
        o->entries[i] = o->entries[o->count - 1 - i];
        o->entries[o->count - 1 - i] = one;
    }
}

/* ---- walks over the keys of one store (under its latch) ---------------------------------------------------------- */

typedef struct {
    versions *v;
    version_key from, to;
    bool backwards;
    uint64_t since;
    version_overlay *overlay;
    bool full;                     /* the overlay, and there is more */
} collection;

/* The first at or after (key of one, timestamp), where one is not behind that. */
static const version *walk_forward(const version_store *s, const version *one, uint64_t timestamp)
{
    version_key key = version_key_at(one);
    for (unsigned i = 0; i < NEAR_LOOKS; i++) {
        if (!version_has_key(one, &key) || one->timestamp >= timestamp) return one;
        one = one->links[0].next;
    }
    return version_seek(s, &key, timestamp, NULL);
}

/* The last one before the first of one's key. */
static const version *walk_back(const version_store *s, const version *one)
{
    version_key key = version_key_at(one);
    version *before[VERSION_LEVELS];
    for (unsigned i = 0; i < NEAR_LOOKS; i++) {
        one = one->links[0].previous;
        if (!version_has_key(one, &key)) return one;
    }
    version_seek(s, &key, 0, before);
    return before[0];
}

/* *one: the first version of its key. Adds what counts, and goes to the next key. */
static int take_forward(collection *c, const version_store *s, const version **one)
{
    version_key key = version_key_at(*one);
    const version *at = walk_forward(s, *one, c->since);
    int error = 0;
    if (version_has_key(at, &key)) {
        error = overlay_add(c->overlay, at);
        at = walk_forward(s, at, UINT64_MAX);
    }
    *one = at;
    return error;
}

/* *one: the last version of its key. */
static int take_backward(collection *c, const version_store *s, const version **one)
{
    int error = 0;
    if ((*one)->timestamp >= c->since) {
        version_key key = version_key_at(*one);
        error = overlay_add(c->overlay, version_seek(s, &key, c->since, NULL));
    }
    *one = walk_back(s, *one);
    return error;
}

static bool in_range(const collection *c, const version *one)
{
    if (one == NULL) return false;
    if (c->backwards) return version_key_order(one, &c->from) >= 0;
    return c->to.slice.size == 0 || version_key_order(one, &c->to) < 0;
}

/* Where a walk begins, or, behind a key that it has stopped at, where it goes on. */
static const version *walk_begin(const collection *c, const version_store *s, const version_key *stopped)
{
    version *before[VERSION_LEVELS];
    if (!c->backwards) return version_seek(s, stopped == NULL ? &c->from : stopped, 0, NULL);
    if (stopped == NULL && c->to.slice.size == 0) version_seek_last(s, before);
    else version_seek(s, stopped == NULL ? &c->to : stopped, stopped == NULL ? 0 : UINT64_MAX, before);
    return before[0];
}

/* A few keys. *going_on: the walk has stopped at the key that stands behind the overlay's bytes, of this size; 0: it is over. */
static int collect_some(collection *c, const version_store *s, size_t *stopped_size)
{
    version_overlay *o = c->overlay;
    version_key stopped = version_key_of(rw_slice_of(*stopped_size > 0 ? o->bytes + o->bytes_size : NULL, *stopped_size));
    const version *one = walk_begin(c, s, *stopped_size > 0 ? &stopped : NULL);
    int error = 0;
    *stopped_size = 0;
    for (unsigned i = 0; error == 0 && in_range(c, one); i++) {
        if (o->count == VERSION_OVERLAY_MAX) {
            c->full = true;
            return 0;
        }
        if (i == KEYS_LATCHED) {
            error = overlay_bytes_reserve(o, one->key_size);
            if (error != 0) return error;
            memcpy(o->bytes + o->bytes_size, version_key_bytes(one).data, one->key_size);
            *stopped_size = one->key_size;
            return 0;
        }
        error = c->backwards ? take_backward(c, s, &one) : take_forward(c, s, &one);
    }
    return error;
}

static int collect_store(collection *c, version_store *s)
{
    size_t stopped_size = 0;
    int error;
    if (store_is_quiet(s, c->since)) return 0;
    do {
        kio_mutex_lock(c->v->trees->kio, &s->latch);
        error = collect_some(c, s, &stopped_size);
        kio_mutex_unlock(c->v->trees->kio, &s->latch);
    } while (error == 0 && stopped_size > 0);
    return error;
}

/* ---- the partitions of a range ----------------------------------------------------------------------------------- */

typedef struct {
    uint16_t first, last;
    bool inside;
    unsigned count;
    uint16_t order[RW_PARTITIONS_MAX];
} partition_run;

static void run_add(void *arg, uint16_t index, rw_slice low)
{
    partition_run *run = arg;
    (void)low;
    if (index == run->first) run->inside = true;
    if (run->inside) run->order[run->count++] = index;
    if (index == run->last) run->inside = false;
}

static uint16_t find_before_now(trees *t, rw_slice key)
{
    for (;;) {
        uint64_t seen = router_version(&t->router);
        if ((seen & 1) == 0) {
            uint16_t index = router_find_before(&t->router, key);
            if (router_unchanged(&t->router, seen)) return index;
        }
        kio_yield(t->kio);
    }
}

/* Nearly always one. What is wrong because the router changes meanwhile shows by the moves. */
static void run_find(trees *t, rw_slice from, rw_slice to, partition_run *run)
{
    run->first = router_find_now(t->kio, &t->router, from);
    run->last = find_before_now(t, to);
    run->inside = false;
    run->count = 0;
    if (run->first != run->last) router_for_each(t->kio, &t->router, run_add, run);
    else run->order[run->count++] = run->first;
}

int versions_collect(versions *v, rw_slice from, rw_slice to, bool backwards, uint64_t since, version_overlay *overlay, bool *complete)
{
    collection c = {.v = v, .from = version_key_of(from), .to = version_key_of(to), .backwards = backwards, .since = since, .overlay = overlay};
    partition_run run;
    uint32_t moves;
    int error = 0;
    do {
        moves = moves_settled(v);
        overlay->count = 0;
        overlay->bytes_size = 0;
        c.full = false;
        run_find(v->trees, from, to, &run);
        for (unsigned i = 0; i < run.count && error == 0 && !c.full; i++)
            error = collect_store(&c, &v->stores[run.order[backwards ? run.count - 1 - i : i]]);
    } while (error == 0 && !moves_unchanged(v, moves));
    if (error != 0) return error;
    if (backwards) overlay_reverse(overlay);
    *complete = !c.full;
    return 0;
}
