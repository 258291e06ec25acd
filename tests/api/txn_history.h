/*
 * What a few transactions over a few items read, wrote and ended as, and the rule that says whether that may be.
 *
 * The rule knows nothing of how the store works. It looks for an order of the commits that keeps real time (a commit that had returned before another was
 * called comes first) and in which each transaction saw what its mode promises:
 *   snapshot, read-only   one state, of a moment while rw_txn_begin ran; nothing it wrote was written between that state and its own commit
 *   serializable          the same, and at its commit what it had read was still so
 *   pessimistic           the state just before its own commit
 * Of a transaction that did not commit, what it read must be of one state too.
 */
#ifndef TESTS_TXN_HISTORY_H
#define TESTS_TXN_HISTORY_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "ringwood.h"

#define ITEMS 4
#define TXNS_MAX 4
#define READS_MAX 96

/* Modes beside those of rw_txn_begin. A single write or batch is one commit; an unprotected transaction is none at all, and there to be found out. */
#define MODE_SINGLE 1u
#define MODE_BATCH 3u
#define MODE_UNPROTECTED 5u

/* An item's value is a number, or: */
enum { GONE = -1, UNTOUCHED = -2, THERE = -3 };

typedef enum { RUNNING, COMMITTED, CONFLICTED, DEADLOCKED, ABORTED } txn_end;

typedef struct {
    int item;
    int value;                        /* a number, GONE, or THERE: a deletion that found it */
} item_read;

typedef struct {
    unsigned mode;
    txn_end end;
    long begin_call, begin_done;      /* ticks of one clock, for real time */
    long end_call, end_done;
    int writes[ITEMS];                /* UNTOUCHED, GONE or the value */
    bool claimed[ITEMS];              /* read for update */
    int reads_count;
    item_read reads[READS_MAX];       /* of what it had not written itself */
    char failure[192];                /* what may never be, whatever the others do; empty for nothing */
} txn_history;

typedef struct {
    int count;
    txn_history txns[TXNS_MAX];
    int before[ITEMS];
    int after[ITEMS];
} history;

/* One order of the commits that is being tried. */
typedef struct {
    const history *h;
    bool strict;                      /* hold every transaction to what a serializable one is promised */
    int commits;
    int order[TXNS_MAX];
    int position[TXNS_MAX];           /* in order; -1: changed nothing */
    int states[TXNS_MAX + 1][ITEMS];  /* states[p]: after the first p commits */
} ordering;

static inline bool history_writes(const txn_history *t)
{
    for (int i = 0; i < ITEMS; i++)
        if (t->writes[i] != UNTOUCHED) return t->end == COMMITTED;
    return false;
}

static inline bool history_reads_match(const txn_history *t, const int state[ITEMS])
{
    for (int i = 0; i < t->reads_count; i++) {
        int is = state[t->reads[i].item], saw = t->reads[i].value;
        if (saw == THERE ? is == GONE : is != saw) return false;
    }
    return true;
}

static inline bool history_locks(const ordering *o, const txn_history *t)
{
    return t->mode == RW_PESSIMISTIC || t->mode == MODE_SINGLE || t->mode == MODE_BATCH || t->mode == MODE_UNPROTECTED || (o->strict && t->mode != RW_READONLY);
}

/* The earliest tick at which a commit may count as made. Whether a history is serializable at all does not depend on when commit was called. */
static inline long history_takes_effect(const ordering *o, const txn_history *t)
{
    return o->strict || t->mode == MODE_UNPROTECTED ? t->begin_call : t->end_call;
}

/* Whether any commit from position p on, before t's own, wrote what t claims. */
static inline bool history_overwritten(const ordering *o, const txn_history *t, int p, int own)
{
    for (; p < own; p++) {
        const txn_history *other = &o->h->txns[o->order[p]];
        for (int i = 0; i < ITEMS; i++) {
            bool wrote = other->writes[i] != UNTOUCHED && (other->writes[i] != GONE || o->states[p][i] != GONE);
            if (wrote && (t->writes[i] != UNTOUCHED || t->claimed[i])) return true;
        }
    }
    return false;
}

/* The states that transaction number n may have read: those after its oldest, up to its newest, number of commits. */
static inline void history_bounds(const ordering *o, int n, int *oldest, int *newest)
{
    const txn_history *t = &o->h->txns[n];
    bool locks = history_locks(o, t);
    *oldest = 0, *newest = o->commits;
    for (int p = 0; p < o->commits; p++) {
        const txn_history *other = &o->h->txns[o->order[p]];
        if (other == t) continue;
        if (other->end_done < t->begin_call && *oldest <= p) *oldest = p + 1;
        if (other->end_call > (locks ? t->end_done : t->begin_done) && *newest > p) *newest = p;
    }
}

static inline bool history_txn_allowed(const ordering *o, int n)
{
    const txn_history *t = &o->h->txns[n];
    int own = o->position[n], oldest, newest;
    bool locks = history_locks(o, t), validated = t->mode == RW_SERIALIZABLE;
    history_bounds(o, n, &oldest, &newest);
    if (own >= 0 && (locks || validated) && !history_reads_match(t, o->states[own])) return false;
    if (own >= 0 && locks) return true;
    if (own >= 0 && newest > own) newest = own;
    for (int p = oldest; p <= newest; p++)
        if (history_reads_match(t, o->states[p]) && (own < 0 || !history_overwritten(o, t, p, own))) return true;
    return false;
}

static inline bool history_order_allowed(const ordering *o)
{
    if (memcmp(o->states[o->commits], o->h->after, sizeof(o->h->after)) != 0) return false;
    for (int n = 0; n < o->h->count; n++)
        if (!history_txn_allowed(o, n)) return false;
    return true;
}

/* Places every commit that may come next. */
static inline bool history_try(ordering *o)
{
    const history *h = o->h;
    bool all_placed = true;
    for (int n = 0; n < h->count; n++) {
        if (!history_writes(&h->txns[n]) || o->position[n] >= 0) continue;
        all_placed = false;
        bool too_soon = false;
        for (int m = 0; m < h->count; m++)
            if (m != n && history_writes(&h->txns[m]) && o->position[m] < 0 && h->txns[m].end_done < history_takes_effect(o, &h->txns[n])) too_soon = true;
        if (too_soon) continue;
        memcpy(o->states[o->commits + 1], o->states[o->commits], sizeof(o->states[0]));
        for (int i = 0; i < ITEMS; i++)
            if (h->txns[n].writes[i] != UNTOUCHED) o->states[o->commits + 1][i] = h->txns[n].writes[i];
        o->position[n] = o->commits;
        o->order[o->commits++] = n;
        bool found = history_try(o);
        o->position[n] = -1;
        o->commits--;
        if (found) return true;
    }
    return all_placed && history_order_allowed(o);
}

/* strict: whether it may be even if every transaction had been a serializable one. */
static inline bool history_allowed(const history *h, bool strict)
{
    ordering o = {.h = h, .strict = strict};
    for (int n = 0; n < TXNS_MAX; n++) o.position[n] = -1;
    memcpy(o.states[0], h->before, sizeof(o.states[0]));
    return history_try(&o);
}

/* A conflict needs a commit, made after t began, of something that t wrote, claimed or, when it is serializable, read. */
static inline bool history_conflict_has_cause(const history *h, const txn_history *t)
{
    bool touched[ITEMS];
    for (int i = 0; i < ITEMS; i++) touched[i] = t->writes[i] != UNTOUCHED || t->claimed[i];
    for (int i = 0; t->mode == RW_SERIALIZABLE && i < t->reads_count; i++) touched[t->reads[i].item] = true;
    for (int n = 0; n < h->count; n++) {
        const txn_history *other = &h->txns[n];
        if (other == t || !history_writes(other) || other->end_done < t->begin_call) continue;
        for (int i = 0; i < ITEMS; i++)
            if (touched[i] && other->writes[i] != UNTOUCHED) return true;
    }
    return false;
}

/* A deadlock needs another transaction that was there at the same time. */
static inline bool history_deadlock_has_cause(const history *h, const txn_history *t)
{
    for (int n = 0; n < h->count; n++) {
        const txn_history *other = &h->txns[n];
        if (other != t && other->mode == RW_PESSIMISTIC && other->begin_call < t->end_done && other->end_done > t->begin_call) return true;
    }
    return false;
}

static inline size_t history_print_txn(const txn_history *t, int n, char *text, size_t room)
{
    static const char *const ends[] = {"runs", "committed", "conflicted", "deadlocked", "aborted"};
    size_t size = (size_t)snprintf(text, room, "T%d mode %u [%ld-%ld..%ld-%ld] %s reads", n, t->mode, t->begin_call, t->begin_done, t->end_call, t->end_done,
                                   ends[t->end]);
    for (int i = 0; i < t->reads_count && size < room; i++)
        size += (size_t)snprintf(text + size, room - size, " %d=%d", t->reads[i].item, t->reads[i].value);
    if (size < room) size += (size_t)snprintf(text + size, room - size, ", writes");
    for (int i = 0; i < ITEMS && size < room; i++)
        if (t->writes[i] != UNTOUCHED) size += (size_t)snprintf(text + size, room - size, " %d=%d", i, t->writes[i]);
    return size;
}

#endif
