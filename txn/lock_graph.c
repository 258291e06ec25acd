/*
 * Who waits for whom. The graph is not stored: an owner's edges are read from the index when a search comes by. Searches keep their marks in the owners
 * and walk without recursion, so any number may wait.
 */
#include <stdio.h>

#include "txn/locks_internal.h"

lock_request *lock_blocker_next(const locks *l, const lock_claim *claim, const lock_request *after, unsigned flags)
{
    unsigned at = (flags & LOCK_SOFT) != 0 ? TABLE_WAITING_EXCLUSIVE : TABLE_GRANTED_EXCLUSIVE;
    const unsigned end = (flags & LOCK_HARD) != 0 ? TABLE_GRANTED_SHARED : TABLE_WAITING_SHARED;
    const unsigned step = claim->mode == LOCK_SHARED ? 2 : 1;      /* past the shared ones */
    lock_limit limit = {.none = true};
    if (after != NULL) {
        at = lock_table_of(after);
        limit = (lock_limit){.from = rw_slice_of(after->bytes, after->from_size), .arrival = (flags & LOCK_NEXT_KEY) != 0 ? 0 : after->arrival};
    }
    while (at <= end) {
        lock_request *r = lock_index_last(l->table[at], IN_TABLE, claim->interval, limit);
        if (r == NULL) {
            at += step;
            limit = (lock_limit){.none = true};
            continue;
        }
        bool later = r->waiting && r->arrival >= claim->arrival;
        if (r->owner != claim->owner && !later) return r;
        limit = (lock_limit){.from = rw_slice_of(r->bytes, r->from_size), .arrival = later ? claim->arrival : r->arrival};
    }
    return NULL;
}

/* ---- one step of a search ---------------------------------------------------------------------------------------- */

static void search_enter(locks *l, lock_owner *owner, lock_owner *from)
{
    lock_search *s = &owner->search;
    s->visited = l->searches;
    s->from = from;
    s->at = NULL;
    s->covered = 0;
}

static bool search_visited(const locks *l, const lock_owner *owner)
{
    return owner->search.visited == l->searches;
}

/* The owner at the end of the next hard edge; NULL: there are no more. */
static lock_owner *hard_edge_next(locks *l, lock_owner *owner)
{
    if (owner->waiting == NULL) return NULL;
    lock_claim claim = lock_request_claim(owner->waiting);
    const lock_request *r = lock_blocker_next(l, &claim, owner->search.at, LOCK_HARD);
    owner->search.at = r;
    return r == NULL ? NULL : r->owner;
}

/*
 * The same for edges of both kinds. An exclusive waiter whose interval contains the claim's waits itself for all that the claim would have to wait
 * for, of what was granted or came before that waiter: those edges are left out, what can be reached stays the same, and a queue of n waiters has n
 * edges instead of n * n.
 */
static lock_owner *edge_next(locks *l, lock_owner *owner)
{
    if (owner->waiting == NULL) return NULL;
    lock_claim claim = lock_request_claim(owner->waiting);
    lock_search *s = &owner->search;
    unsigned next_key = 0;
    for (;;) {
        const lock_request *r = lock_blocker_next(l, &claim, s->at, LOCK_SOFT | LOCK_HARD | next_key);
        if (r == NULL || (s->covered != 0 && !r->waiting)) return NULL;
        s->at = r;
        if (r->arrival < s->covered) {
            next_key = LOCK_NEXT_KEY;
            continue;
        }
        next_key = 0;
        if (r->waiting && r->mode == LOCK_EXCLUSIVE && lock_interval_covers(lock_request_interval(r), claim.interval)) s->covered = r->arrival;
        return r->owner;
    }
}

/* ---- victims ----------------------------------------------------------------------------------------------------- */

/* Finds a cycle of hard edges through owner, without doomed ones: each of it has the one that it waits for in search.next. */
static bool cycle_find(locks *l, lock_owner *owner)
{
    l->searches++;
    search_enter(l, owner, NULL);
    for (lock_owner *at = owner; at != NULL;) {
        lock_owner *to = hard_edge_next(l, at);
        if (to == NULL) {
            at = at->search.from;
        } else if (to == owner) {
            for (; at != NULL; at = at->search.from) {
                at->search.next = to;
                to = at;
            }
            return true;
        } else if (to->waiting != NULL && !to->search.doomed && !search_visited(l, to)) {
            search_enter(l, to, at);
            at = to;
        }
    }
    return false;
}

/* The youngest has the least to lose. Single writes (0) come last; among equals, the one that has just come. */
static lock_owner *cycle_victim(lock_owner *owner)
{
    lock_owner *victim = owner;
    for (lock_owner *o = owner->search.next; o != owner; o = o->search.next) {
        if (o->id > victim->id) victim = o;
    }
    return victim;
}

typedef struct {
    char text[24];
} owner_name;

static owner_name name_of(const lock_owner *owner)
{
    owner_name name;
    if (owner->id == 0) snprintf(name.text, sizeof name.text, "a single write");
    else snprintf(name.text, sizeof name.text, "%llu", (unsigned long long)owner->id);
    return name;
}

/* Into the victim's text; of a long cycle, as much as there is room for. */
static void cycle_describe(lock_owner *victim)
{
    enum { END_ROOM = 72 };
    char *text = victim->victim_text;
    const size_t room = sizeof victim->victim_text;
    size_t length = (size_t)snprintf(text, room, "deadlock: %s%s waits for %s", victim->id == 0 ? "" : "transaction ", name_of(victim).text,
                                     name_of(victim->search.next).text);
    unsigned count = 1;
    bool cut = false;
    for (const lock_owner *o = victim->search.next; o != victim; o = o->search.next, count++) {
        cut = cut || length + END_ROOM + sizeof(owner_name) > room;
        if (!cut) length += (size_t)snprintf(text + length, room - length, ", that for %s", name_of(o->search.next).text);
    }
    if (cut) length += (size_t)snprintf(text + length, room - length, " and so on, in a cycle of %u", count);
    snprintf(text + length, room - length, "; %s was chosen", name_of(victim).text);
}

/* One that was chosen for a cycle may stand in an earlier one, too, and then that one's victim can be spared. */
static void victims_spare(locks *l, lock_owner *owner, lock_owner *last)
{
    for (lock_owner **place = &last->search.doomed_next, *v; (v = *place) != NULL;) {
        v->search.doomed = false;
        if (cycle_find(l, owner)) {
            v->search.doomed = true;
            place = &v->search.doomed_next;
        } else {
            *place = v->search.doomed_next;
        }
    }
}

bool lock_graph_victims(locks *l, lock_owner *owner, lock_owner **victims)
{
    bool own = false;
    *victims = NULL;
    while (cycle_find(l, owner)) {
        lock_owner *victim = cycle_victim(owner);
        cycle_describe(victim);
        own = victim == owner;
        if (own) break;
        victim->search.doomed = true;
        victim->search.doomed_next = *victims;
        *victims = victim;
    }
    if (!own && *victims != NULL) victims_spare(l, owner, *victims);
    for (lock_owner *v = *victims; v != NULL; v = v->search.doomed_next) v->search.doomed = false;
    return own;
}

/* ---- knots ------------------------------------------------------------------------------------------------------- */

static void knot_enter(locks *l, lock_owner *owner, lock_owner *from, lock_owner **stack, uint64_t *order)
{
    search_enter(l, owner, from);
    lock_search *s = &owner->search;
    s->order = s->low = ++*order;
    s->stacked = true;
    s->next = *stack;
    *stack = owner;
}

/* Tarjan's strongly connected components, from owner only: what is on the stack in the end is owner's. */
lock_owner *lock_graph_knot(locks *l, lock_owner *owner)
{
    lock_owner *stack = NULL;
    uint64_t order = 0;
    l->searches++;
    knot_enter(l, owner, NULL, &stack, &order);
    for (lock_owner *at = owner;;) {
        lock_owner *to = edge_next(l, at);
        lock_search *s = &at->search;
        if (to != NULL) {
            if (to->waiting == NULL) continue;
            if (!search_visited(l, to)) {
                knot_enter(l, to, at, &stack, &order);
                at = to;
            } else if (to->search.stacked) {
                s->low = RW_MIN(s->low, to->search.order);
            }
            continue;
        }
        if (s->from == NULL) return stack;
        if (s->low == s->order) {
            lock_owner *popped;
            do {
                popped = stack;
                stack = popped->search.next;
                popped->search.stacked = false;
            } while (popped != at);
        }
        s->from->search.low = RW_MIN(s->from->search.low, s->low);
        at = s->from;
    }
}
