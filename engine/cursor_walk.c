/* How a cursor finds its next key: windows over the tree, merged with the transaction's own writes, and claimed for it. */
#include "base/planted.h"
#include "base/preempt.h"
#include "engine/cursor.h"

int cursor_check_snapshot(const rw_cursor *c)
{
    if (RW_LIKELY(!snapshots_is_lost(&c->e->snapshots, c->moment))) return 0;
    return rw_error(RW_ESNAPSHOT_TOO_OLD, "the cursor's snapshot was given up: old snapshots held more than snapshot_bytes_max, %llu bytes",
                    (unsigned long long)c->e->versions.bytes_max);
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

static unsigned leaf_bound(const rw_cursor *c, rw_slice key, bool *equal)
{
    return node_lower_bound(c->window.leaf, c->e->page_size, key, equal);
}

/* The first entry with a key >= key. */
static unsigned overlay_bound(const version_overlay *o, rw_slice key, bool *equal)
{
    unsigned low = 0, high = o->count;
    *equal = false;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        int order = rw_slice_compare(version_overlay_key(o, middle), key);
        if (order == 0) *equal = true;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static bool leaf_covers(const rw_cursor *c, rw_slice at, bool forward)
{
    if (!c->window.leaf_valid) return false;
    int below = rw_slice_compare(node_lower_fence(c->window.leaf), at);
    if (forward ? below > 0 : below >= 0) return false;
    rw_slice upper = node_upper_fence(c->window.leaf);
    if (upper.size == 0) return true;
    int above = rw_slice_compare(at, upper);
    return forward ? above < 0 : above <= 0;
}

static bool overlay_covers(const rw_cursor *c, rw_slice at, bool forward)
{
    const cursor_window *w = &c->window;
    if (!w->overlaid) return true;
    if (!w->overlay_valid) return false;
    int below = rw_slice_compare(cursor_key_slice(&w->low), at), above = rw_slice_compare(at, cursor_key_slice(&w->high));
    return forward ? below <= 0 && above < 0 : below < 0 && above <= 0;
}

static int window_copy_leaf(rw_cursor *c, rw_slice at, bool forward)
{
    cursor_window *w = &c->window;
    c->in_window = false;
    w->leaf_valid = false;
    w->overlay_valid = false;
    w->overlay.count = 0;
    int error = trees_copy_leaf(&c->e->trees, at, forward ? TREES_COVERING : TREES_BEFORE, w->leaf, &w->mark, c->miss);
    if (error != 0) return error;
    RW_PREEMPT(c->e->kio);
    c->ahead = trees_walk_ahead(&c->e->trees, &w->mark);
    c->ahead_end = c->ahead != NULL ? c->ahead + c->e->page_size : NULL;
    bool ignored;
    rw_slice upper = node_upper_fence(w->leaf);
    bool begins_before = rw_slice_compare(node_lower_fence(w->leaf), cursor_low(c)) < 0;
    bool ends_after = upper.size == 0 || rw_slice_compare(upper, cursor_high(c)) > 0;
    w->slot_first = begins_before ? leaf_bound(c, cursor_low(c), &ignored) : 0;
    w->slot_end = ends_after ? leaf_bound(c, cursor_high(c), &ignored) : w->leaf->count;
    w->overlaid = w->leaf->page.newest_timestamp >= c->moment;
    w->leaf_valid = true;
    return 0;
}

/* From `at` on in the direction of the walk, as far as the leaf and the bucket go and the overlay has room. Comes after the leaf was copied, never before (X4). */
static int window_collect(rw_cursor *c, rw_slice at, bool forward)
{
    cursor_window *w = &c->window;
    rw_slice lower = node_lower_fence(w->leaf), upper = node_upper_fence(w->leaf);
    bool begins_before = rw_slice_compare(lower, cursor_low(c)) < 0;
    bool ends_after = upper.size == 0 || rw_slice_compare(upper, cursor_high(c)) > 0;
    bool complete, ignored;
    c->in_window = false;
    w->overlay_valid = false;
    cursor_key_set(&w->low, forward ? at : begins_before ? cursor_low(c) : lower);
    cursor_key_set(&w->high, !forward ? at : ends_after ? cursor_high(c) : upper);
    int error = versions_collect(&c->e->versions, cursor_key_slice(&w->low), cursor_key_slice(&w->high), !forward, c->moment, &w->overlay, &complete);
    if (error != 0) {
        w->overlay.count = 0;
        return error;
    }
    RW_ASSERT(complete || w->overlay.count > 0);
    if (!complete && forward) {
        cursor_key_set(&w->high, version_overlay_key(&w->overlay, w->overlay.count - 1));
        w->high.size = cursor_key_successor(&w->high).size;
    }
    if (!complete && !forward) cursor_key_set(&w->low, version_overlay_key(&w->overlay, 0));
    w->slot_first = leaf_bound(c, cursor_key_slice(&w->low), &ignored);
    w->slot_end = leaf_bound(c, cursor_key_slice(&w->high), &ignored);
    w->overlay_valid = true;
    return 0;
}

/* A window that holds `at`, or backwards the keys just below it. */
static int window_cover(rw_cursor *c, rw_slice at, bool forward)
{
    if (!leaf_covers(c, at, forward)) {
        int error = window_copy_leaf(c, at, forward);
        if (error != 0) return error;
    }
    return overlay_covers(c, at, forward) ? 0 : window_collect(c, at, forward);
}

/* ---- steps over windows ------------------------------------------------------------------------------------------ */

static void found_in_leaf(rw_cursor *c, unsigned slot, cursor_place *place)
{
    c->found.size = node_key_length(c->window.leaf, slot);
    node_key_copy(c->window.leaf, slot, c->found.bytes);
    *place = (cursor_place){.found = true, .source = CURSOR_LEAF, .index = slot};
}

static void found_in_overlay(rw_cursor *c, unsigned entry, cursor_place *place)
{
    cursor_key_set(&c->found, version_overlay_key(&c->window.overlay, entry));
    *place = (cursor_place){.found = true, .source = CURSOR_OLD, .index = entry};
}

/* The first key of the window that is >= from (> from when strict): the overlay's entries take the place of the leaf's. */
static void window_next(rw_cursor *c, rw_slice from, bool strict, cursor_place *place)
{
    const cursor_window *w = &c->window;
    bool equal, from_the_first = !strict && rw_slice_equal(node_lower_fence(w->leaf), from);
    unsigned slot = from_the_first ? 0 : leaf_bound(c, from, &equal);
    if (!from_the_first && equal && strict) slot++;
    if (slot < w->slot_first) slot = w->slot_first;
    *place = (cursor_place){0};
    if (w->overlay.count == 0) {
        if (slot < w->slot_end) found_in_leaf(c, slot, place);
        return;
    }
    unsigned entry = overlay_bound(&w->overlay, from, &equal);
    if (equal && strict) entry++;
    for (; slot < w->slot_end || entry < w->overlay.count; entry++) {
        int order = 1;             /* of the leaf's key against the entry's */
        if (slot < w->slot_end) {
            found_in_leaf(c, slot, place);
            order = entry == w->overlay.count ? -1 : rw_slice_compare(cursor_key_slice(&c->found), version_overlay_key(&w->overlay, entry));
        }
        if (order < 0) return;
        if (order == 0) slot++;
        if (w->overlay.entries[entry].present) {
            found_in_overlay(c, entry, place);
            return;
        }
    }
    place->found = false;
}

/* The last key of the window that is < before. */
static void window_previous(rw_cursor *c, rw_slice before, cursor_place *place)
{
    const cursor_window *w = &c->window;
    bool ignored;
    unsigned slot = leaf_bound(c, before, &ignored);
    if (slot > w->slot_end) slot = w->slot_end;
    *place = (cursor_place){0};
    if (w->overlay.count == 0) {
        if (slot > w->slot_first) found_in_leaf(c, slot - 1, place);
        return;
    }
    unsigned entry = overlay_bound(&w->overlay, before, &ignored);
    for (; slot > w->slot_first || entry > 0; entry--) {
        int order = -1;
        if (slot > w->slot_first) {
            found_in_leaf(c, slot - 1, place);
            order = entry == 0 ? 1 : rw_slice_compare(cursor_key_slice(&c->found), version_overlay_key(&w->overlay, entry - 1));
        }
        if (order > 0) return;
        if (order == 0) slot--;
        if (w->overlay.entries[entry - 1].present) {
            found_in_overlay(c, entry - 1, place);
            return;
        }
    }
    place->found = false;
}

/* Where the window ends in the direction of the walk; false: that is the bucket's end. Copied, because the next window is made from there. */
static bool window_edge(rw_cursor *c, bool forward)
{
    const cursor_window *w = &c->window;
    rw_slice edge = forward ? w->overlaid ? cursor_key_slice(&w->high) : node_upper_fence(w->leaf)
                            : w->overlaid ? cursor_key_slice(&w->low) : node_lower_fence(w->leaf);
    if (edge.size == 0) return false;
    if (forward ? rw_slice_compare(edge, cursor_high(c)) >= 0 : rw_slice_compare(edge, cursor_low(c)) <= 0) return false;
    cursor_key_set(&c->edge, edge);
    return true;
}

/* Whether the walk goes on from where the cursor stands, and that is the last slot of the window: then there is nothing in the window to look for. */
static bool window_is_left(const rw_cursor *c, rw_slice from, bool strict, bool forward)
{
    const cursor_window *w = &c->window;
    if (!strict || from.data != c->key.bytes || !c->in_window || !w->leaf_valid || w->overlay.count > 0) return false;
    RW_ASSERT(c->state == CURSOR_AT && c->source == CURSOR_LEAF);
    return forward ? c->index + 1 == w->slot_end : c->index == w->slot_first;
}

/* What the moment sees, without the transaction's own writes. */
static int look_in_tree(rw_cursor *c, rw_slice from, bool strict, bool forward, cursor_place *place)
{
    if (window_is_left(c, from, strict, forward)) {
        *place = (cursor_place){0};
        if (!window_edge(c, forward)) return 0;
        from = cursor_key_slice(&c->edge);
        strict = false;
    }
    for (;;) {
        int error = window_cover(c, from, forward);
        if (error != 0) return error;
        if (forward) window_next(c, from, strict, place);
        else window_previous(c, from, place);
        if (place->found || !window_edge(c, forward)) return 0;
        from = cursor_key_slice(&c->edge);
        strict = false;
    }
}

static bool own_find(rw_cursor *c, rw_slice from, bool strict, bool forward, write_entry *own)
{
    if (c->in == NULL) return false;
    bool found = forward ? write_set_seek(c->in->writes, from, strict, own) : write_set_seek_before(c->in->writes, from, own);
    return found && own->key.size >= RW_BUCKET_PREFIX && memcmp(own->key.data, c->low, RW_BUCKET_PREFIX) == 0;
}

/* The nearer of the tree's key and the transaction's own; what it deleted is passed over. */
static int look_merged(rw_cursor *c, rw_slice from, bool strict, bool forward, cursor_place *place)
{
    for (;;) {
        write_entry own;
        int error = look_in_tree(c, from, strict, forward, place);
        if (error != 0) return error;
        if (!own_find(c, from, strict, forward, &own)) return 0;
        if (place->found) {
            int order = rw_slice_compare(cursor_key_slice(&c->found), own.key);
            if (forward ? order < 0 : order > 0) return 0;
        }
        if (!own.deleted) {
            cursor_key_set(&c->found, own.key);
            *place = (cursor_place){.found = true, .source = CURSOR_OWN, .own_value = own.value};
            return 0;
        }
        from = own.key;
        strict = true;
    }
}

/* ---- claims ------------------------------------------------------------------------------------------------------ */

/* From where the walk began to the key found, inclusive, or to the bucket's end. */
static int claim(rw_cursor *c, rw_slice from, bool strict, bool forward, bool found)
{
    if (!forward) return txn_claim_range(c->in, found ? cursor_key_slice(&c->found) : cursor_low(c), from);
    RW_ASSERT(!strict || from.data == c->key.bytes);
    return txn_claim_range(c->in, strict ? cursor_key_successor(&c->key) : from, found ? cursor_key_successor(&c->found) : cursor_high(c));
}

/*
 * The newest state: what is ahead is claimed, then looked at again, until what is found lies in what was claimed, and so cannot change any more. A copy of a leaf
 * that is unchanged since is as good as a new one: whoever may have written without seeing the lock has changed its version by the time the token was passed (I6).
 */
static int look_locking(rw_cursor *c, rw_slice from, bool strict, bool forward, cursor_place *place)
{
    bool claimed = false, claimed_all = false;
    for (;;) {
        c->window.leaf_valid = c->window.leaf_valid && (trees_copy_is_current(&c->e->trees, c->window.mark) || RW_PLANTED(trust_old_leaf));
        int error = look_merged(c, from, strict, forward, place);
        if (error != 0 || claimed_all) return error;
        if (claimed && place->found) {
            int order = rw_slice_compare(cursor_key_slice(&c->found), cursor_key_slice(&c->claimed));
            if (forward ? order <= 0 : order >= 0) return 0;
        }
        error = claim(c, from, strict, forward, place->found);
        if (error != 0) return error;
        claimed = true;
        claimed_all = !place->found;
        if (place->found) cursor_key_set(&c->claimed, cursor_key_slice(&c->found));
    }
}

int cursor_look(rw_cursor *c, rw_slice from, bool strict, bool forward, cursor_place *place)
{
    if (c->moment == SNAPSHOT_NEWEST) return look_locking(c, from, strict, forward, place);
    int error = look_merged(c, from, strict, forward, place);
    int lost = cursor_check_snapshot(c);
    if (lost != 0) return lost;
    return error == 0 && c->claims ? claim(c, from, strict, forward, place->found) : error;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

void cursor_run_measure(rw_cursor *c, bool forward)
{
    const cursor_window *w = &c->window;
    bool equal;
    c->run_first = w->slot_first;
    c->run_end = w->slot_end;
    if (w->overlay.count == 0) return;
    unsigned entry = overlay_bound(&w->overlay, cursor_key_slice(&c->key), &equal);
    if (forward) {
        c->run_first = c->index;
        if (entry < w->overlay.count) c->run_end = leaf_bound(c, version_overlay_key(&w->overlay, entry), &equal);
        return;
    }
    c->run_end = c->index + 1;
    if (entry == 0) return;
    c->run_first = leaf_bound(c, version_overlay_key(&w->overlay, entry - 1), &equal);
    if (equal) c->run_first++;
}
