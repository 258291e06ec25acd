/*
 * The queue: who watches whom, who is granted, who goes. All of it under the table's mutex.
 *
 * A waiter watches one request that it has to wait for. When that one goes, the waiter is looked at again: it finds another one to watch, or is
 * granted. So a release looks at those only whom it may let through, and in a queue on one key each watches the one before it. README.md has the
 * argument why nobody sleeps for good.
 */
#include <stdlib.h>

#include "txn/locks_internal.h"

#define SORT_LISTS 40u             /* of up to 2^i requests each */

/* ---- waking ------------------------------------------------------------------------------------------------------ */

void lock_wakes_flush(locks *l, lock_wakes *wakes)
{
    for (unsigned i = 0; i < wakes->count; i++) kio_wake(l->kio, wakes->words[i], 1);
    wakes->count = 0;
}

/* The owner's wait is over; nothing of it may be touched after this but what its locks keep. */
static void owner_wake(locks *l, lock_owner *owner, lock_wakes *wakes)
{
    if (wakes->count == LOCK_WAKES_MAX) lock_wakes_flush(l, wakes);
    wakes->words[wakes->count++] = &owner->word;
    atomic_fetch_add_explicit(&owner->word, 1, memory_order_release);
}

/* ---- in and out of the table, watching --------------------------------------------------------------------------- */

static size_t request_size(const lock_request *r)
{
    return sizeof *r + r->from_size + r->to_size;
}

void lock_table_insert(locks *l, lock_request *r, lock_owner *owner)
{
    r->owner = owner;
    r->arrival = ++l->arrivals;
    lock_index_insert(&l->table[lock_table_of(r)], IN_TABLE, r);
    atomic_fetch_add(&l->requests, 1);
}

static void table_remove(locks *l, lock_request *r)
{
    lock_index_remove(&l->table[lock_table_of(r)], IN_TABLE, r);
    atomic_fetch_sub(&l->requests, 1);
}

/* Out of the table, and watched by nobody. */
static void request_free(locks *l, lock_request *r)
{
    if (r->owner->single) free(r);
    else frame_heap_free(&l->heap, r);
}

void lock_watch(lock_request *r, lock_request *watched)
{
    r->wait.watched = watched;
    r->wait.watch_previous = NULL;
    r->wait.watch_next = watched->watchers;
    if (watched->watchers != NULL) watched->watchers->wait.watch_previous = r;
    watched->watchers = r;
}

static void unwatch(lock_request *r)
{
    lock_wait *w = &r->wait;
    if (w->watched == NULL) return;
    if (w->watch_previous != NULL) w->watch_previous->wait.watch_next = w->watch_next;
    else w->watched->watchers = w->watch_next;
    if (w->watch_next != NULL) w->watch_next->wait.watch_previous = w->watch_previous;
    w->watched = NULL;
}

void lock_watchers_take(lock_request *r, lock_request **candidates)
{
    for (lock_request *w; (w = r->watchers) != NULL;) {
        unwatch(w);
        w->wait.candidate_next = *candidates;
        *candidates = w;
    }
}

/* ---- granting ---------------------------------------------------------------------------------------------------- */

void lock_drop(locks *l, lock_request *r)
{
    lock_owner *owner = r->owner;
    owner->count--;
    owner->bytes -= request_size(r);
    l->counters.held--;
    table_remove(l, r);
    request_free(l, r);
}

/* An upgrade: takes the place of the same owner's shared lock on the same interval, with those who watch it. */
static void shared_replace(locks *l, lock_request *r)
{
    lock_owner *owner = r->owner;
    lock_interval i = lock_request_interval(r);
    lock_interval point = {.from = i.from, .to = i.from, .end = END_CLOSED};
    lock_limit limit = lock_limit_behind(i.from);
    lock_request *old;
    while ((old = lock_index_last(owner->held[LOCK_SHARED], IN_OWNER, point, limit)) != NULL) {
        lock_interval j = lock_request_interval(old);
        if (!rw_slice_equal(j.from, i.from)) return;
        if (lock_end_compare(i, j) == 0) break;
        limit.arrival = old->arrival;
    }
    if (old == NULL) return;
    for (lock_request *w; (w = old->watchers) != NULL;) {
        unwatch(w);
        lock_watch(w, r);
    }
    lock_index_remove(&owner->held[LOCK_SHARED], IN_OWNER, old);
    lock_drop(l, old);
}

void lock_grant(locks *l, lock_request *r)
{
    lock_owner *owner = r->owner;
    if (r->waiting) {
        lock_index_remove(&l->table[lock_table_of(r)], IN_TABLE, r);
        r->waiting = false;
        lock_index_insert(&l->table[lock_table_of(r)], IN_TABLE, r);
        owner->waiting = NULL;
        l->waiting--;
    }
    if (r->mode == LOCK_EXCLUSIVE && owner->held[LOCK_SHARED] != NULL) shared_replace(l, r);
    lock_index_insert(&owner->held[r->mode], IN_OWNER, r);
    owner->count++;
    owner->bytes += request_size(r);
    l->counters.held++;
}

lock_request *lock_blocker_find(locks *l, const lock_request *r)
{
    lock_claim claim = lock_request_claim(r);
    lock_request *blocker = lock_blocker_next(l, &claim, NULL, LOCK_HARD);
    if (blocker != NULL) return blocker;
    blocker = lock_blocker_next(l, &claim, NULL, LOCK_SOFT);
    if (blocker == NULL) return NULL;
    lock_graph_knot(l, r->owner);
    while (blocker != NULL && lock_graph_in_knot(l, blocker->owner)) blocker = lock_blocker_next(l, &claim, blocker, LOCK_SOFT);
    return blocker;
}

/* Grants a waiter, or finds it something to watch. */
static void waiter_settle(locks *l, lock_request *r, lock_wakes *wakes)
{
    unwatch(r);
    lock_request *blocker = lock_blocker_find(l, r);
    if (blocker != NULL) {
        lock_watch(r, blocker);
        return;
    }
    lock_grant(l, r);
    owner_wake(l, r->owner, wakes);
}

static lock_request *candidates_merge(lock_request *a, lock_request *b)
{
    lock_request *merged = NULL, **end = &merged;
    while (a != NULL && b != NULL) {
        lock_request **first = a->arrival < b->arrival ? &a : &b;
        *end = *first;
        end = &(*first)->wait.candidate_next;
        *first = *end;
    }
    *end = a != NULL ? a : b;
    return merged;
}

static lock_request *candidates_sort(lock_request *list)
{
    lock_request *sorted[SORT_LISTS] = {0};
    while (list != NULL) {
        lock_request *one = list;
        list = one->wait.candidate_next;
        one->wait.candidate_next = NULL;
        unsigned i = 0;
        for (; sorted[i] != NULL; sorted[i++] = NULL) one = candidates_merge(sorted[i], one);
        sorted[i] = one;
    }
    for (unsigned i = 0; i < SORT_LISTS; i++) list = candidates_merge(sorted[i], list);
    return list;
}

void lock_candidates_settle(locks *l, lock_request *list, lock_wakes *wakes)
{
    if (list == NULL) return;
    for (lock_request *r = candidates_sort(list), *next; r != NULL; r = next) {
        next = r->wait.candidate_next;
        waiter_settle(l, r, wakes);
    }
}

/* ---- coming and going --------------------------------------------------------------------------------------------- */

void lock_waiter_withdraw(locks *l, lock_request *r, lock_request **candidates)
{
    unwatch(r);
    lock_watchers_take(r, candidates);
    table_remove(l, r);
    r->owner->waiting = NULL;
    l->waiting--;
    request_free(l, r);
}

bool lock_waiter_arrive(locks *l, lock_request *r, lock_wakes *wakes)
{
    lock_owner *owner = r->owner, *victims;
    lock_request *candidates = NULL;
    if (lock_graph_victims(l, owner, &victims)) {
        lock_waiter_withdraw(l, r, &candidates);
        RW_ASSERT(candidates == NULL);
        l->counters.deadlocks++;
        return true;
    }
    for (lock_owner *v = victims; v != NULL; v = v->search.doomed_next) unwatch(v->waiting);      /* so that none becomes a candidate */
    for (lock_owner *v = victims, *next; v != NULL; v = next) {
        next = v->search.doomed_next;
        v->victim = true;
        l->counters.deadlocks++;
        lock_waiter_withdraw(l, v->waiting, &candidates);
        owner_wake(l, v, wakes);
    }
    waiter_settle(l, r, wakes);
    for (lock_owner *o = owner->waiting == NULL ? NULL : lock_graph_knot(l, owner); o != NULL; o = o->search.next) {
        lock_request *w = o->waiting;
        const lock_request *watched = w->wait.watched;     /* NULL: it is a candidate already */
        if (watched == NULL || !watched->waiting || !lock_graph_in_knot(l, watched->owner)) continue;
        w->wait.candidate_next = candidates;
        candidates = w;
    }
    lock_candidates_settle(l, candidates, wakes);
    return false;
}

