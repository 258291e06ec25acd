/* Cursors: the public calls, and standing somewhere. */
#include "engine/cursor.h"

static void cursor_free(rw_cursor *c)
{
    version_overlay_free(&c->window.overlay);
    free(c->value);
    free(c);
}

/* The leaf's copy and its keys' room follow the cursor itself. */
static rw_cursor *cursor_make(const engine *e)
{
    size_t room = (size_t)e->trees.router.key_stride + 1;
    rw_cursor *c = malloc(sizeof *c + e->page_size + 6 * room);
    if (c == NULL) return NULL;
    memset(c, 0, sizeof *c);
    c->window.leaf = (node *)(c + 1);
    cursor_key *const keys[6] = {&c->key, &c->found, &c->edge, &c->claimed, &c->window.low, &c->window.high};
    for (size_t i = 0; i < 6; i++) keys[i]->bytes = (unsigned char *)(c + 1) + e->page_size + i * room;
    return c;
}

/* Takes back what cursor_open did with a transaction entered, or none. */
static void cursor_unbegin(rw_cursor *c)
{
    if (c->txn == NULL) snapshots_end(&c->e->snapshots, &c->snapshot);
    atomic_fetch_sub(&c->e->children, 1);
    cursor_free(c);
}

/* t: txn's transaction, entered, or NULL. */
static int cursor_open(engine *e, rw_db *db, rw_txn *txn, transaction *t, rw_bucket bucket, rw_cursor **out)
{
    if (out == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    if (t != NULL && t->e != e) return rw_error(RW_EINVAL, "the transaction belongs to another database");
    int error = bucket_check_at(e, bucket, t != NULL ? txn_moment(t) : BUCKET_LIVE);
    if (error != 0) return error;
    rw_cursor *c = cursor_make(e);
    if (c == NULL) return rw_error(RW_ENOMEM, "no memory for a cursor");
    c->e = e;
    c->db = db;
    c->bucket = bucket;
    c->generation = db->generation;
    bucket_prefix_store(c->low, bucket);
    bucket_prefix_store(c->high, bucket + 1);
    atomic_fetch_add(&e->children, 1);
    if (t != NULL) {
        c->txn = txn;
        c->moment = txn_moment(t);
        c->claims = txn_mode_is(t, RW_SERIALIZABLE | RW_PESSIMISTIC) && !txn_mode_is(t, RW_READONLY);
    } else {
        snapshots_begin(&e->snapshots, &c->snapshot, 0, engine_moment, e);
        c->moment = c->snapshot.timestamp;
    }
    error = bucket_check_at(e, bucket, c->moment); /* it may have been dropped between the look and the moment; from now on this cursor cannot lose it */
    if (error != 0) {
        cursor_unbegin(c);
        return error;
    }
    if (t != NULL) t->cursors++;
    *out = c;
    return 0;
}

int rw_cursor_open(rw_db *db, rw_txn *txn, rw_bucket bucket, rw_cursor **out)
{
    engine *e;
    transaction *t = NULL;
    int error = engine_of(db, &e);
    if (error == 0 && txn != NULL) error = txn_enter(txn, &t);
    if (error != 0) return error;
    error = cursor_open(e, db, txn, t, bucket, out);
    if (t != NULL) txn_leave(t);
    return error;
}

/*
 * The transaction may have ended, and another thread in it is waited for, because a close cannot be refused. What the caller's last failed call met stays what
 * rw_last_error says.
 */
static void cursor_leave_transaction(rw_cursor *c)
{
    transaction *t;
    char words[512];
    int error;
    snprintf(words, sizeof words, "%s", rw_error_text());
    while ((error = txn_enter_to_end(c->txn, &t)) == RW_EBUSY) kio_yield(c->e->kio);
    if (error == 0) {
        t->cursors--;
        txn_leave(t);
    }
    rw_error(0, "%s", words);
}

void rw_cursor_close(rw_cursor *c)
{
    engine *e;
    if (c == NULL) return;
    if (engine_of(c->db, &e) == 0) {       /* not in a forked child: its copy of the registries belongs to nobody */
        if (c->txn != NULL) cursor_leave_transaction(c);
        else snapshots_end(&e->snapshots, &c->snapshot);
        trees_walk_end(&e->trees, &c->window.mark);
        atomic_fetch_sub(&e->children, 1);
    }
    cursor_free(c);
}

/* ---- one thread at a time ---------------------------------------------------------------------------------------- */

static int cursor_usable(rw_cursor *c)
{
    engine *e;
    int error = c->txn != NULL ? txn_enter(c->txn, &c->in) : engine_of(c->db, &e);
    if (error != 0) return error;
    error = bucket_check_at(c->e, c->bucket, c->moment);
    if (RW_UNLIKELY(error != 0) && c->in != NULL) {
        txn_leave(c->in);
        c->in = NULL;
    }
    return error;
}

/* Short strings of unforeseeable length: cheaper than a call of memcpy. The second piece overlaps the first. */
static inline void bytes_copy(unsigned char *to, const unsigned char *from, size_t size)
{
    if (size >= 8 && size <= 16) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    } else if (size > 16 && size <= 32) {
        memcpy(to, from, 16);
        memcpy(to + size - 16, from + size - 16, 16);
    } else memcpy(to, from, size);
}

/* Where it has ridden on: its key. The prefix is there already. */
static inline void key_catch_up(rw_cursor *c)
{
    if (!c->key_behind) return;
    const node *n = c->window.leaf;
    const node_slot *slot = &n->slots[c->index];
    c->key.size = n->prefix_length + (size_t)slot->key_length;
    c->key_behind = false;
    bytes_copy(c->key.bytes + n->prefix_length, (const unsigned char *)n + slot->offset, slot->key_length); /* last: so nothing has to be kept over a call */
}

static int cursor_enter(rw_cursor *c)
{
    if (RW_UNLIKELY(c == NULL)) return rw_error(RW_EINVAL, "the cursor is NULL");
    uint32_t before = atomic_exchange_explicit(&c->use, CURSOR_BUSY, memory_order_acquire);
    if (RW_UNLIKELY(before == CURSOR_BUSY)) return rw_error(RW_EBUSY, "another thread is in the cursor");
    int error = cursor_usable(c);
    if (RW_UNLIKELY(error != 0)) atomic_store_explicit(&c->use, before, memory_order_release);
    else key_catch_up(c);
    return error;
}

/* Whether the copy of the leaf answers, without entering. Where the cursor must not be used, entering says why. A database is not closed under a cursor, but its process may fork. */
static inline bool cursor_rides(const rw_cursor *c)
{
    return RW_LIKELY(c != NULL) && RW_LIKELY(atomic_load_explicit(&c->use, memory_order_acquire) == CURSOR_RIDES) && RW_LIKELY(handle_is_of_this_process(c->generation));
}

static int cursor_leave(rw_cursor *c, int result)
{
    if (c->in != NULL) {
        txn_leave(c->in);
        c->in = NULL;
    }
    atomic_store_explicit(&c->use, c->in_window && c->txn == NULL ? CURSOR_RIDES : CURSOR_FREE, memory_order_release);
    return result;
}

/* ---- standing somewhere ------------------------------------------------------------------------------------------ */

static int stand_past(rw_cursor *c, bool forward)
{
    c->state = forward ? CURSOR_AFTER_LAST : CURSOR_BEFORE_FIRST;
    c->value_valid = false;
    c->in_window = false;
    return rw_error_fixed(RW_ENOTFOUND, "the cursor is past the end");
}

/* An own value is copied: a rollback to a savepoint would free it. */
static int value_keep(rw_cursor *c, rw_slice value)
{
    unsigned char *room = realloc(c->value, RW_MAX(value.size, (size_t)1));
    if (room == NULL) return rw_error(RW_ENOMEM, "no memory for a value of %zu bytes", value.size);
    c->value = room;
    if (value.size > 0) memcpy(c->value, value.data, value.size);
    c->value_size = value.size;
    return 0;
}

/* On what was found; fails before anything changed. */
static int stand_on(rw_cursor *c, const cursor_place *place, bool forward)
{
    bool own = place->source == CURSOR_OWN;
    int error = own ? value_keep(c, place->own_value) : 0;
    if (error != 0) return error;
    cursor_key previous = c->key;
    c->key = c->found;
    c->found = previous;
    c->state = CURSOR_AT;
    c->source = place->source;
    c->index = place->index;
    c->value_valid = own;
    c->in_window = place->source == CURSOR_LEAF;
    if (place->source == CURSOR_LEAF) cursor_run_measure(c, forward);
    return 0;
}

/* A move that fails leaves the cursor where it was, so that it can be tried again; without its snapshot it stands nowhere. */
static int stand_failed(rw_cursor *c, int error)
{
    c->in_window = false;
    if (error == RW_ESNAPSHOT_TOO_OLD) {
        c->state = CURSOR_NOWHERE;
        c->window.leaf_valid = false;
    }
    if (c->source == CURSOR_LEAF || c->source == CURSOR_OLD) {
        c->source = CURSOR_UNKNOWN;
        c->value_valid = false;
    }
    return error;
}

static int walk(rw_cursor *c, rw_slice from, bool strict, bool forward)
{
    cursor_place place;
    int error = cursor_look(c, from, strict, forward, &place);
    if (error == 0 && !place.found) return stand_past(c, forward);
    if (error == 0) error = stand_on(c, &place, forward);
    return error == 0 ? 0 : stand_failed(c, error);
}

/* Whether steps may go from slot to slot: nobody wants to know, and nothing is merged in. */
static bool steps_plainly(const rw_cursor *c)
{
    if (c->state != CURSOR_AT || c->source != CURSOR_LEAF) return false;
    return c->in == NULL || (!c->claims && write_set_count(c->in->writes) == 0);
}

#define AHEAD_LINES 3u                 /* fetched with each step: a leaf of 4 KiB is there after 21 */

/* The neighbour is fetched from memory a little with each step: all at once would wait for each other. */
static inline void neighbour_fetch(rw_cursor *c)
{
    if (c->ahead >= c->ahead_end) return;
    for (unsigned i = 0; i < AHEAD_LINES; i++) __builtin_prefetch(c->ahead + i * RW_CACHE_LINE);
    c->ahead += AHEAD_LINES * RW_CACHE_LINE;
}

/* To another slot of the same leaf. */
static inline int stand_on_slot(rw_cursor *c, unsigned slot)
{
    RW_ASSERT(slot < c->window.leaf->count);
    c->index = slot;
    c->key_behind = true;
    c->value_valid = false;
    neighbour_fetch(c);
    return 0;
}

/* ---- public moves ------------------------------------------------------------------------------------------------ */

/* To the first key in the direction of the walk: forward the bucket's first, backwards its last. */
static int move_from_end(rw_cursor *c, bool forward)
{
    return walk(c, forward ? cursor_low(c) : cursor_high(c), false, forward);
}

static int move_on(rw_cursor *c, bool forward)
{
    if (c->state == CURSOR_AT) return walk(c, cursor_key_slice(&c->key), true, forward);
    if (c->state == (forward ? CURSOR_AFTER_LAST : CURSOR_BEFORE_FIRST)) return stand_past(c, forward);
    return move_from_end(c, forward);
}

int rw_cursor_seek(rw_cursor *c, rw_slice key)
{
    stored_key stored;
    int error = cursor_enter(c);
    if (error != 0) return error;
    error = key_make_bound(c->e, c->bucket, c->moment, key, false, &stored);
    if (error == 0) {
        error = walk(c, stored.slice, false, true);
        key_free(&stored);
    }
    return cursor_leave(c, error);
}

int rw_cursor_first(rw_cursor *c)
{
    int error = cursor_enter(c);
    return error != 0 ? error : cursor_leave(c, move_from_end(c, true));
}

int rw_cursor_last(rw_cursor *c)
{
    int error = cursor_enter(c);
    return error != 0 ? error : cursor_leave(c, move_from_end(c, false));
}

/* What is not for every record stands apart, so that the rest needs no room on the stack. */
#define CURSOR_APART __attribute__((noinline)) static

CURSOR_APART int next_entered(rw_cursor *c)
{
    int error = cursor_enter(c);
    if (RW_UNLIKELY(error != 0)) return error;
    if (RW_LIKELY(steps_plainly(c) && c->index + 1 < c->run_end)) return cursor_leave(c, stand_on_slot(c, c->index + 1));
    return cursor_leave(c, move_on(c, true));
}

int rw_cursor_next(rw_cursor *c)
{
    return RW_LIKELY(cursor_rides(c)) && RW_LIKELY(c->index + 1 < c->run_end) ? stand_on_slot(c, c->index + 1) : next_entered(c);
}

CURSOR_APART int prev_entered(rw_cursor *c)
{
    int error = cursor_enter(c);
    if (RW_UNLIKELY(error != 0)) return error;
    if (RW_LIKELY(steps_plainly(c) && c->index > c->run_first)) return cursor_leave(c, stand_on_slot(c, c->index - 1));
    return cursor_leave(c, move_on(c, false));
}

int rw_cursor_prev(rw_cursor *c)
{
    return RW_LIKELY(cursor_rides(c)) && RW_LIKELY(c->index > c->run_first) ? stand_on_slot(c, c->index - 1) : prev_entered(c);
}

/* ---- what it stands on ------------------------------------------------------------------------------------------- */

static int cursor_standing(const rw_cursor *c)
{
    return RW_LIKELY(c->state == CURSOR_AT) ? 0 : rw_error_fixed(RW_ENOTFOUND, "the cursor stands on nothing");
}

static inline rw_slice key_without_bucket(const rw_cursor *c)
{
    return rw_slice_of(c->key.bytes + RW_BUCKET_PREFIX, c->key.size - RW_BUCKET_PREFIX);
}

static int key_give(const rw_cursor *c, rw_slice *key)
{
    int error = cursor_standing(c);
    if (error != 0) return error;
    if (key == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    *key = key_without_bucket(c);
    return 0;
}

CURSOR_APART int key_entered(rw_cursor *c, rw_slice *key)
{
    int error = cursor_enter(c);
    return error != 0 ? error : cursor_leave(c, key_give(c, key));
}

int rw_cursor_key(rw_cursor *c, rw_slice *key)
{
    if (RW_UNLIKELY(!cursor_rides(c) || key == NULL)) return key_entered(c, key);
    key_catch_up(c);
    *key = key_without_bucket(c);
    return 0;
}

/* The value as the window has it; *is_extent: it is an extent_ref. */
static rw_slice window_value(const rw_cursor *c, bool *is_extent)
{
    if (c->source == CURSOR_OLD) {
        *is_extent = c->window.overlay.entries[c->index].is_extent;
        return version_overlay_value(&c->window.overlay, c->index);
    }
    unsigned flags = 0;
    rw_slice value = node_value(c->window.leaf, c->e->page_size, c->index, &flags);
    *is_extent = (flags & NODE_SLOT_EXTENT) != 0;
    return value;
}

/*
 * Reads the large value that the window names. When that run is no more (cleaning moved it), or the window is none of the cursor's any more, the key is
 * looked up again.
 */
static int value_fetch(rw_cursor *c, const extent_ref *extent)
{
    size_t size = extent != NULL ? extent->length : 0;
    for (;;) {
        unsigned char *room = realloc(c->value, RW_MAX(size, (size_t)1));
        if (room == NULL) return rw_error(RW_ENOMEM, "no memory for a value of %zu bytes", size);
        c->value = room;
        int error = extent != NULL ? engine_extent_read(c->e, cursor_key_slice(&c->key), *extent, c->value) : 0;
        if (extent == NULL || error == RW_ECORRUPT || error == RW_EIO) {
            extent = NULL;
            error = engine_get_at(c->e, cursor_key_slice(&c->key), c->moment, c->value, &size);
        }
        if (error == RW_ETOOSMALL) continue;
        if (error != 0) return error;
        c->value_size = size;
        c->value_valid = true;
        return 0;
    }
}

static int value_give(rw_cursor *c, rw_slice *value)
{
    int error = cursor_standing(c);
    if (error != 0) return error;
    if (value == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    if (!c->value_valid) {
        bool is_extent = false;
        extent_ref extent;
        bool known = c->source != CURSOR_UNKNOWN;
        rw_slice there = known ? window_value(c, &is_extent) : rw_slice_of("", 0);
        if (known && !is_extent) {
            *value = there;
            return 0;
        }
        if (known) memcpy(&extent, there.data, sizeof extent);
        error = value_fetch(c, known ? &extent : NULL);
        int lost = cursor_check_snapshot(c);
        if (lost != 0) error = lost;
        if (error != 0) return stand_failed(c, error);
    }
    *value = rw_slice_of(c->value, c->value_size);
    return 0;
}

CURSOR_APART int value_entered(rw_cursor *c, rw_slice *value)
{
    int error = cursor_enter(c);
    return error != 0 ? error : cursor_leave(c, value_give(c, value));
}

int rw_cursor_value(rw_cursor *c, rw_slice *value)
{
    if (RW_UNLIKELY(!cursor_rides(c) || value == NULL)) return value_entered(c, value);
    const node_slot *slot = &c->window.leaf->slots[c->index];
    if (RW_UNLIKELY((slot->flags & NODE_SLOT_EXTENT) != 0)) return value_entered(c, value);
    *value = rw_slice_of((const unsigned char *)c->window.leaf + slot->offset + slot->key_length, slot->value_length);
    return 0;
}
