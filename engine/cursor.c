/*
 * Cursors: a private copy of one leaf at a time, read at leisure; moves inside it touch nothing shared. In a transaction the write set is merged
 * in at each step. Where the cursor stands is its key, so leaf copies may be replaced at any time.
 */
#include "base/memory.h"
#include "engine/txn.h"

typedef enum { CURSOR_NOWHERE, CURSOR_AT, CURSOR_BEFORE_FIRST, CURSOR_AFTER_LAST } cursor_state;

struct rw_cursor {
    engine *e;
    rw_db *db;
    rw_txn *txn;                   /* or NULL */
    unsigned char low[RW_BUCKET_PREFIX], high[RW_BUCKET_PREFIX];   /* the bucket's stored keys are in [low, high) */
    cursor_state state;
    /* CURSOR_AT */
    unsigned char *key;            /* stored key; room for the longest */
    size_t key_size;
    bool own;                      /* the value is the transaction's own write */
    unsigned slot;                 /* else: where in the leaf */
    /* the leaf copy */
    node *leaf;
    bool leaf_valid;
    /* a large value, read when asked for, or an own one */
    unsigned char *value;
    size_t value_size;
    bool value_valid;
    unsigned char *fence;          /* room for a fence, while the leaf is replaced */
};

/* One of the two sources of keys of a step. */
typedef struct {
    bool found;
    unsigned slot;
} leaf_step;

int rw_cursor_open(rw_db *db, rw_txn *txn, rw_bucket bucket, rw_cursor **out)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error == 0 && txn != NULL) error = txn_usable(txn, &e);
    if (error != 0) return error;
    if (out == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    if (txn != NULL && txn->db != db) return rw_error(RW_EINVAL, "the transaction belongs to another database");
    error = bucket_check(e, bucket);
    if (error != 0) return error;
    rw_cursor *c = calloc(1, sizeof *c);
    if (c != NULL) {
        c->leaf = rw_memory_aligned(e->page_size);
        c->key = malloc(e->trees.router.key_stride);
        c->fence = malloc(e->trees.router.key_stride);
    }
    if (c == NULL || c->leaf == NULL || c->key == NULL || c->fence == NULL) {
        if (c != NULL) {
            free(c->leaf);
            free(c->key);
            free(c->fence);
        }
        free(c);
        return rw_error(RW_ENOMEM, "no memory for a cursor");
    }
    c->e = e;
    c->db = db;
    c->txn = txn;
    bucket_prefix_store(c->low, bucket);
    bucket_prefix_store(c->high, bucket + 1);
    if (txn != NULL) txn->cursors++;
    atomic_fetch_add(&e->children, 1);
    *out = c;
    return 0;
}

void rw_cursor_close(rw_cursor *c)
{
    if (c == NULL) return;
    if (c->txn != NULL) txn_cursor_closed(c->txn);
    atomic_fetch_sub(&c->e->children, 1);
    free(c->leaf);
    free(c->key);
    free(c->fence);
    free(c->value);
    free(c);
}

static int cursor_usable(rw_cursor *c)
{
    engine *e;
    if (c == NULL) return rw_error(RW_EINVAL, "the cursor is NULL");
    int error = c->txn != NULL ? txn_usable(c->txn, &e) : engine_of(c->db, &e);
    return error != 0 ? error : bucket_check(e, __builtin_bswap32(rw_load_u32(c->low)));
}

/* ---- steps over leaves ------------------------------------------------------------------------------------------- */

static int leaf_take(rw_cursor *c, rw_slice key, trees_side side)
{
    c->leaf_valid = false;
    int error = trees_copy_leaf(&c->e->trees, key, side, c->leaf);
    c->leaf_valid = error == 0;
    return error;
}

static bool leaf_covers(const rw_cursor *c, rw_slice key)
{
    rw_slice upper = node_upper_fence(c->leaf);
    return c->leaf_valid && rw_slice_compare(node_lower_fence(c->leaf), key) <= 0 && (upper.size == 0 || rw_slice_compare(key, upper) < 0);
}

static rw_slice fence_keep(rw_cursor *c, rw_slice fence)
{
    memcpy(c->fence, fence.data, fence.size);
    return rw_slice_of(c->fence, fence.size);
}

/* The first key >= from (> from when strict) in the tree. */
static int leaf_forward(rw_cursor *c, rw_slice from, bool strict, leaf_step *step)
{
    *step = (leaf_step){0};
    if (!leaf_covers(c, from)) {
        int error = leaf_take(c, from, TREES_COVERING);
        if (error != 0) return error;
    }
    bool equal;
    unsigned slot = node_lower_bound(c->leaf, c->e->page_size, from, &equal);
    if (equal && strict) slot++;
    while (slot >= c->leaf->count) {
        rw_slice upper = node_upper_fence(c->leaf);
        if (upper.size == 0 || rw_slice_compare(upper, rw_slice_of(c->high, sizeof c->high)) >= 0) return 0;
        rw_slice at = fence_keep(c, upper);
        int error = leaf_take(c, at, TREES_COVERING);
        if (error != 0) return error;
        slot = node_lower_bound(c->leaf, c->e->page_size, at, &equal);
    }
    *step = (leaf_step){.found = true, .slot = slot};
    return 0;
}

/* The last key < before in the tree. */
static int leaf_backward(rw_cursor *c, rw_slice before, leaf_step *step)
{
    *step = (leaf_step){0};
    if (!leaf_covers(c, before)) {
        int error = leaf_take(c, before, TREES_BEFORE);
        if (error != 0) return error;
    }
    bool equal;
    unsigned slot = node_lower_bound(c->leaf, c->e->page_size, before, &equal);
    while (slot == 0) {
        rw_slice lower = node_lower_fence(c->leaf);
        if (lower.size == 0 || rw_slice_compare(lower, rw_slice_of(c->low, sizeof c->low)) <= 0) return 0;
        rw_slice at = fence_keep(c, lower);
        int error = leaf_take(c, at, TREES_BEFORE);
        if (error != 0) return error;
        slot = node_lower_bound(c->leaf, c->e->page_size, at, &equal);
    }
    *step = (leaf_step){.found = true, .slot = slot - 1};
    return 0;
}

/* ---- standing somewhere ------------------------------------------------------------------------------------------ */

static int stand_past(rw_cursor *c, cursor_state state)
{
    c->state = state;
    c->value_valid = false;
    return rw_error_fixed(RW_ENOTFOUND, "the cursor is past the end");
}

static bool in_bucket(const rw_cursor *c, rw_slice key)
{
    return key.size >= RW_BUCKET_PREFIX && memcmp(key.data, c->low, RW_BUCKET_PREFIX) == 0;
}

static void stand_on_leaf(rw_cursor *c, unsigned slot)
{
    c->key_size = node_key_length(c->leaf, slot);
    node_key_copy(c->leaf, slot, c->key);
    c->slot = slot;
    c->own = false;
    c->value_valid = false;
    c->state = CURSOR_AT;
}

/* The value is copied: a rollback to a savepoint would free it. */
static int stand_on_own(rw_cursor *c, const write_entry *entry)
{
    memcpy(c->key, entry->key.data, entry->key.size);
    c->key_size = entry->key.size;
    c->own = true;
    c->value_valid = false;
    c->state = CURSOR_AT;
    if (entry->deleted) return 0;
    unsigned char *room = realloc(c->value, RW_MAX(entry->value.size, (size_t)1));
    if (room == NULL) return rw_error(RW_ENOMEM, "no memory for a value of %zu bytes", entry->value.size);
    c->value = room;
    if (entry->value.size > 0) memcpy(c->value, entry->value.data, entry->value.size);
    c->value_size = entry->value.size;
    c->value_valid = true;
    return 0;
}

static rw_slice cursor_key(const rw_cursor *c)
{
    return rw_slice_of(c->key, c->key_size);
}

#define STEP_ON 1                  /* the next key was deleted in the transaction: the cursor stands on it, and must go on */

/* Takes the nearer of the tree's key and the transaction's own. */
static int stand_merged(rw_cursor *c, const leaf_step *step, const write_entry *own, bool own_found, bool forward)
{
    int order = 0;                 /* of the tree's key against the own one, in the direction of the walk */
    if (step->found && own_found) {
        size_t size = node_key_length(c->leaf, step->slot);
        node_key_copy(c->leaf, step->slot, c->fence);
        order = rw_slice_compare(rw_slice_of(c->fence, size), own->key);
        if (!forward) order = -order;
    } else order = step->found ? -1 : 1;
    if (order < 0) {
        stand_on_leaf(c, step->slot);
        return 0;
    }
    int error = stand_on_own(c, own);
    return error == 0 && own->deleted ? STEP_ON : error;
}

static bool slot_in_bucket(rw_cursor *c, unsigned slot)
{
    size_t size = node_key_length(c->leaf, slot);
    node_key_copy(c->leaf, slot, c->fence);
    return in_bucket(c, rw_slice_of(c->fence, size));
}

static int walk_steps(rw_cursor *c, rw_slice from, bool strict, bool forward)
{
    for (;;) {
        leaf_step step;
        write_entry own;
        int error = forward ? leaf_forward(c, from, strict, &step) : leaf_backward(c, from, &step);
        if (error != 0) return error;
        if (step.found && !slot_in_bucket(c, step.slot)) step.found = false;
        bool own_found = c->txn != NULL && (forward ? write_set_seek(c->txn->writes, from, strict, &own)
                                                    : write_set_seek_before(c->txn->writes, from, &own));
        if (own_found && !in_bucket(c, own.key)) own_found = false;
        if (!step.found && !own_found) return stand_past(c, forward ? CURSOR_AFTER_LAST : CURSOR_BEFORE_FIRST);
        error = stand_merged(c, &step, &own, own_found, forward);
        if (error != STEP_ON) return error;
        from = cursor_key(c);
        strict = true;
    }
}

/* From a key on to the next that is there; after a failed read the cursor stands nowhere. */
static int walk(rw_cursor *c, rw_slice from, bool strict, bool forward)
{
    int error = walk_steps(c, from, strict, forward);
    if (error != 0 && error != RW_ENOTFOUND) c->state = CURSOR_NOWHERE;
    return error;
}

/* ---- public moves ------------------------------------------------------------------------------------------------ */

int rw_cursor_seek(rw_cursor *c, rw_slice key)
{
    stored_key stored;
    int error = cursor_usable(c);
    if (error != 0) return error;
    rw_bucket bucket = __builtin_bswap32(rw_load_u32(c->low));
    error = key_make_bound(c->e, bucket, key, false, &stored);
    if (error != 0) return error;
    c->leaf_valid = false;         /* a seek looks at the newest state */
    error = walk(c, stored.slice, false, true);
    key_free(&stored);
    return error;
}

int rw_cursor_first(rw_cursor *c)
{
    int error = cursor_usable(c);
    if (error != 0) return error;
    c->leaf_valid = false;
    return walk(c, rw_slice_of(c->low, sizeof c->low), false, true);
}

int rw_cursor_last(rw_cursor *c)
{
    int error = cursor_usable(c);
    if (error != 0) return error;
    c->leaf_valid = false;
    return walk(c, rw_slice_of(c->high, sizeof c->high), false, false);
}

int rw_cursor_next(rw_cursor *c)
{
    int error = cursor_usable(c);
    if (error != 0) return error;
    switch (c->state) {
    case CURSOR_NOWHERE:
    case CURSOR_BEFORE_FIRST: return rw_cursor_first(c);
    case CURSOR_AFTER_LAST: return stand_past(c, CURSOR_AFTER_LAST);
    case CURSOR_AT: break;
    }
    if (c->txn == NULL && c->leaf_valid && c->slot + 1u < c->leaf->count) {
        stand_on_leaf(c, c->slot + 1); /* the common step; a leaf may hold the next bucket's keys too */
        if (RW_LIKELY(in_bucket(c, cursor_key(c)))) return 0;
        return stand_past(c, CURSOR_AFTER_LAST);
    }
    return walk(c, cursor_key(c), true, true);
}

int rw_cursor_prev(rw_cursor *c)
{
    int error = cursor_usable(c);
    if (error != 0) return error;
    switch (c->state) {
    case CURSOR_NOWHERE:
    case CURSOR_AFTER_LAST: return rw_cursor_last(c);
    case CURSOR_BEFORE_FIRST: return stand_past(c, CURSOR_BEFORE_FIRST);
    case CURSOR_AT: break;
    }
    return walk(c, cursor_key(c), true, false);
}

/* ---- what it stands on ------------------------------------------------------------------------------------------- */

static int cursor_standing(rw_cursor *c)
{
    int error = cursor_usable(c);
    if (error != 0) return error;
    return c->state == CURSOR_AT ? 0 : rw_error_fixed(RW_ENOTFOUND, "the cursor stands on nothing");
}

int rw_cursor_key(rw_cursor *c, rw_slice *key)
{
    int error = cursor_standing(c);
    if (error != 0) return error;
    if (key == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    *key = rw_slice_of(c->key + RW_BUCKET_PREFIX, c->key_size - RW_BUCKET_PREFIX);
    return 0;
}

/* Reads the large value that the leaf copy names; when it was replaced since the copy was made, the newest one. */
static int value_fetch(rw_cursor *c, extent_ref extent)
{
    size_t size = extent.length;
    for (;;) {
        unsigned char *room = realloc(c->value, size);
        if (room == NULL) return rw_error(RW_ENOMEM, "no memory for a value of %zu bytes", size);
        c->value = room;
        int error = engine_extent_read(c->e, cursor_key(c), extent, c->value);
        if (error == RW_ECORRUPT || error == RW_EIO) error = engine_get(c->e, cursor_key(c), c->value, &size);
        if (error == RW_ETOOSMALL) continue;
        if (error != 0) return error;
        c->value_size = size;
        c->value_valid = true;
        return 0;
    }
}

int rw_cursor_value(rw_cursor *c, rw_slice *value)
{
    int error = cursor_standing(c);
    if (error != 0) return error;
    if (value == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    if (c->own) {
        *value = rw_slice_of(c->value, c->value_size);
        return 0;
    }
    unsigned flags = 0;
    rw_slice inline_value = node_value(c->leaf, c->e->page_size, c->slot, &flags);
    if ((flags & NODE_SLOT_EXTENT) == 0) {
        *value = inline_value;
        return 0;
    }
    extent_ref extent;
    memcpy(&extent, inline_value.data, sizeof extent);
    if (!c->value_valid) error = value_fetch(c, extent);
    if (error != 0) return error;
    *value = rw_slice_of(c->value, c->value_size);
    return 0;
}
