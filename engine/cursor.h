/*
 * A cursor's insides, between cursor.c (public calls, standing somewhere) and cursor_walk.c (windows, steps, merging, claims).
 *
 * A cursor reads through a window: a private copy of one leaf, and over it what its snapshot still sees of values that were replaced since (X4). For a
 * snapshot a window stays right for ever; in a pessimistic transaction, which sees the newest state, a copy is good until its leaf changes.
 * Where the cursor stands is its key, so windows may be replaced at any time.
 */
#ifndef RW_ENGINE_CURSOR_H
#define RW_ENGINE_CURSOR_H

#include "engine/txn.h"

typedef enum { CURSOR_NOWHERE, CURSOR_AT, CURSOR_BEFORE_FIRST, CURSOR_AFTER_LAST } cursor_state;

/*
 * Who is in it. Riding: nobody is, and it stands on a slot of the leaf copy, within its run, and without a transaction: so nothing but the copy has to be asked. Neither can the bucket get lost any more: a
 * drop comes after the cursor's moment.
 */
typedef enum { CURSOR_FREE, CURSOR_BUSY, CURSOR_RIDES } cursor_use;

/* Where a key's value is to be had. */
typedef enum {
    CURSOR_LEAF,                   /* a slot of the leaf copy */
    CURSOR_OLD,                    /* an entry of the overlay */
    CURSOR_OWN,                    /* the transaction's own write; standing on it copies it */
    CURSOR_UNKNOWN                 /* the window went on without the cursor: to be read by key */
} cursor_source;

typedef struct {
    bool found;
    cursor_source source;
    unsigned index;                /* slot or entry */
    rw_slice own_value;
} cursor_place;

typedef struct {
    unsigned char *bytes;          /* room for the longest stored key and one byte more: the next larger key ends in it */
    size_t size;
} cursor_key;

typedef struct {
    node *leaf;
    trees_mark mark;               /* of the leaf that was copied */
    bool leaf_valid;
    bool overlaid;                 /* the leaf has changes that the moment must not see: only [low, high) is known, through the overlay */
    bool overlay_valid;
    cursor_key low, high;
    version_overlay overlay;       /* empty when !overlaid */
    unsigned slot_first, slot_end; /* of the leaf: what lies in the bucket, and in [low, high) */
} cursor_window;

struct rw_cursor {
    /* set at open */
    engine *e;
    rw_db *db;
    rw_txn *txn;                   /* or NULL */
    rw_bucket bucket;
    unsigned char low[RW_BUCKET_PREFIX], high[RW_BUCKET_PREFIX];   /* the bucket's stored keys are in [low, high) */
    uint64_t moment;               /* what it sees, or SNAPSHOT_NEWEST */
    bool claims;                   /* the transaction wants to know what was gone over */
    snapshot snapshot;             /* without a transaction */
    tree_miss *miss;               /* a queue's, which does not wait for pages: moves return TREE_MISS and say there which one; else NULL */
    uint32_t generation;           /* of handles: another one in a forked child */
    /* any thread, atomic */
    _Atomic uint32_t use;          /* cursor_use */
    /* the thread that is in it */
    unsigned index;                /* CURSOR_AT: slot or entry */
    unsigned run_first, run_end;   /* CURSOR_LEAF: within these slots, the leaf's neighbours are what the window says */
    bool key_behind;               /* it has gone on to the slot `index`, and key is still that of the slot before */
    bool value_valid;
    bool in_window;                /* CURSOR_LEAF: the window has not gone on without the cursor */
    const char *ahead, *ahead_end; /* of the neighbour's page, in the cache: what is still to be fetched from memory */
    cursor_key key;                /* CURSOR_AT: stored key */
    cursor_source source;
    cursor_state state;
    transaction *in;               /* the transaction, entered */
    unsigned char *value;          /* a large value, read when asked for, or an own one */
    size_t value_size;
    /* the walk */
    cursor_window window;
    cursor_key found, edge, claimed;
};

static inline rw_slice cursor_key_slice(const cursor_key *key)
{
    return rw_slice_of(key->bytes, key->size);
}

/* The smallest key above key; good until key changes. */
static inline rw_slice cursor_key_successor(cursor_key *key)
{
    key->bytes[key->size] = 0;
    return rw_slice_of(key->bytes, key->size + 1);
}

static inline void cursor_key_set(cursor_key *key, rw_slice from)
{
    memmove(key->bytes, from.data, from.size);
    key->size = from.size;
}

static inline rw_slice cursor_low(const rw_cursor *c)
{
    return rw_slice_of(c->low, sizeof c->low);
}

static inline rw_slice cursor_high(const rw_cursor *c)
{
    return rw_slice_of(c->high, sizeof c->high);
}

/* ---- cursor_walk.c ----------------------------------------------------------------------------------------------- */

/*
 * Looks for the first key >= from (> from when strict, which is for where the cursor stands only), or backwards the last key < from, and claims what it went over.
 * *place: what was found, its key in c->found. The cursor does not move.
 */
int cursor_look(rw_cursor *c, rw_slice from, bool strict, bool forward, cursor_place *place);
/* After it stands on the slot `index` that it was led to in this direction: how far steps may go from slot to slot. */
void cursor_run_measure(rw_cursor *c, bool forward);

/* RW_ESNAPSHOT_TOO_OLD when what was read may be wrong. */
int cursor_check_snapshot(const rw_cursor *c);

#endif
