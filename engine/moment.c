/*
 * Moments: which commits a snapshot sees, and when a commit of several operations becomes visible to those who read without one.
 *
 * A snapshot's timestamp S must have every commit below it applied, and every commit at or above it must keep what it replaces. Each commit announces itself in
 * its first partition (partition.committing): busy from before it takes its place in the log until it is applied. Whoever begins a snapshot has told so
 * (snapshots.newest) before it reads the log's end; a commit looks at that after it has its place. So a commit whose place lies at or beyond the end that
 * was read knows of the snapshot, and of one below it the announcement is seen here (docs/CONCURRENCY.md). And it tells before it is applied (snapshots.disturbed): so when
 * nobody told, there was an instant at which all that lies below S was visible and nothing else was.
 */
#include "base/planted.h"
#include "base/preempt.h"
#include "engine/commit_many.h"

typedef enum { MOMENT_GOOD, MOMENT_BUSY, MOMENT_DISTURBED } moment_state;

/* One look at all partitions. */
static moment_state moment_try(engine *e, uint64_t *moment)
{
    uint64_t disturbed = atomic_load(&e->snapshots.disturbed), end = wal_end_lsn(e->wal), lowest = end, acknowledged = 0;
    uint32_t used = atomic_load(&e->trees.partitions_used);
    for (uint32_t i = 0; i < used; i++) {
        RW_PREEMPT(e->kio);
        const partition *p = &e->trees.partitions[i];
        uint64_t announced = atomic_load_explicit(&p->committing, memory_order_acquire);
        uint64_t applied = atomic_load_explicit(&p->applied_lsn, memory_order_relaxed);
        if (announced != 0) {
            uint64_t lsn = announced & ~WAL_ANNOUNCE_BUSY;
            if ((announced & WAL_ANNOUNCE_BUSY) != 0 && lsn < end) return MOMENT_BUSY;
            lowest = RW_MIN(lowest, lsn);
        }
        acknowledged = RW_MAX(acknowledged, RW_MIN(applied, end)); /* the last one, applied since end was read, may hide one that was acknowledged before */
    }
    if (RW_PLANTED(snapshot_too_new)) lowest = end;
    if (lowest < acknowledged) return MOMENT_BUSY; /* a commit that was acknowledged lies behind one that is still on its way */
    if (snapshots_is_lost(&e->snapshots, lowest)) return MOMENT_BUSY; /* a commit whose old values could not be kept */
    if (atomic_load(&e->snapshots.disturbed) != disturbed) return MOMENT_DISTURBED;
    *moment = lowest;
    return MOMENT_GOOD;
}

/* A put that is to wait for its leaf looks for snapshots before it has its place in the log, and only then: one that did not see this one is let through, so that its
 * place lies below the end that will be read. It announces itself by WAL_ANNOUNCE_BUSY alone (engine/commit.c). */
static void pending_puts_wait(engine *e)
{
    uint32_t used = atomic_load(&e->trees.partitions_used);
    for (uint32_t i = 0; i < used; i++)
        while (atomic_load(&e->trees.partitions[i].committing) == WAL_ANNOUNCE_BUSY) kio_yield(e->kio);
}

#define DISTURBED_TRIES 4u             /* before others are let run */

uint64_t engine_moment(void *engine_)
{
    engine *e = engine_;
    uint64_t moment = 0;
    if (e->read_only) return UINT64_MAX / 2; /* nothing changes, and nothing is appended */
    pending_puts_wait(e);
    for (unsigned tries = 1;; tries++) {
        moment_state state = moment_try(e, &moment);
        if (state == MOMENT_GOOD) return moment;
        if (state == MOMENT_BUSY || tries % DISTURBED_TRIES == 0) kio_yield(e->kio);
    }
}

/* ---- visibility of commits of several operations ----------------------------------------------------------------- */

void apply_begin(engine *e, commit *c, uint64_t lsn, uint64_t end_lsn)
{
    partition *first = c->parts[0];
    apply_slot *slot = &e->apply_slots[first->index];
    snapshots_disturb(&e->snapshots);
    if (c->large) {
        /* its own pre-images serve those who read meanwhile; and since it keeps them all, snapshots may begin below it */
        snapshots_begin_at(&e->snapshots, &c->own_snapshot, SNAPSHOT_OF_COMMIT, lsn);
        atomic_store(&first->committing, lsn);
    }
    if (c->count == 1 && !c->large) return;
    if (RW_PLANTED(visible_in_pieces)) return;
    atomic_store_explicit(&slot->keeps_old, c->large, memory_order_relaxed);
    atomic_store_explicit(&slot->end, end_lsn, memory_order_relaxed);
    atomic_store_explicit(&slot->begin, lsn, memory_order_release);
    for (unsigned i = 0; i < c->part_count; i++) atomic_store_explicit(&c->parts[i]->applying, first->index + 1u, memory_order_release);
}

#define DROP_AT_ONCE 1024u

/* What it kept for those who read meanwhile: as much as it was, at about a tenth of the commit's own cost. */
static void own_versions_drop(engine *e, const commit *c)
{
    for (unsigned i = 0; i < c->part_count; i++)
        while (versions_trim(&e->versions, c->parts[i], DROP_AT_ONCE)) continue;
}

void apply_end(engine *e, commit *c, uint64_t lsn, uint64_t end_lsn)
{
    partition *first = c->parts[0];
    apply_slot *slot = &e->apply_slots[first->index];
    if (c->large) {
        snapshots_disturb(&e->snapshots); /* a moment below it may have been found while it was on its way: it must not become visible before that is settled */
        atomic_exchange(&first->committing, lsn | WAL_ANNOUNCE_BUSY);
    }
    /* the bucket is gone for everybody from now on, and for nobody before: writers look under their tokens, snapshots by the timestamp, and none begins just now */
    if (c->dropped_at != 0) bucket_dropped(e, c->dropped, c->dropped_at);
    atomic_store_explicit(&first->applied_lsn, end_lsn, memory_order_relaxed);
    if (c->rewrites) atomic_fetch_add(&e->rewrites, 1);
    if (atomic_load_explicit(&slot->begin, memory_order_relaxed) != 0) {
        atomic_store(&slot->begin, 0); /* now it is visible, everywhere at once */
        RW_PREEMPT(e->kio);
        atomic_fetch_add(&slot->word, 1);
        if (atomic_load(&slot->waiters) != 0) kio_wake(e->kio, &slot->word, UINT32_MAX);
        for (unsigned i = 0; i < c->part_count; i++) atomic_store_explicit(&c->parts[i]->applying, 0, memory_order_release);
    }
    RW_PREEMPT(e->kio);
    if (c->large) snapshots_end(&e->snapshots, &c->own_snapshot);
    atomic_store_explicit(&first->committing, 0, memory_order_release);
    if (c->large) own_versions_drop(e, c);
}

/* The commit whose operations a leaf with this timestamp holds, while it is not visible yet. */
static apply_slot *slot_hiding(engine *e, const tree_value *seen, uint64_t *begin)
{
    if (seen->partition >= RW_PARTITIONS_MAX) return NULL;
    for (;;) {
        uint32_t applying = atomic_load_explicit(&e->trees.partitions[seen->partition].applying, memory_order_acquire);
        if (applying == 0) return NULL;
        apply_slot *slot = &e->apply_slots[applying - 1];
        *begin = atomic_load_explicit(&slot->begin, memory_order_acquire);
        RW_PREEMPT(e->kio);
        uint64_t end = atomic_load_explicit(&slot->end, memory_order_acquire);
        if (*begin == 0) return NULL;
        if (atomic_load_explicit(&slot->begin, memory_order_acquire) != *begin) continue;
        return seen->timestamp >= *begin && seen->timestamp < end ? slot : NULL;
    }
}

#define APPLY_SPINS 64

static void slot_wait(engine *e, apply_slot *slot, uint64_t begin)
{
    for (unsigned i = 0; i < APPLY_SPINS; i++) {
        if (atomic_load(&slot->begin) != begin) return;
        kio_yield(e->kio);
    }
    atomic_fetch_add(&slot->waiters, 1);
    for (;;) {
        uint32_t word = atomic_load(&slot->word);
        if (atomic_load(&slot->begin) != begin) break;
        kio_sleep(e->kio, &slot->word, word, -1);
    }
    atomic_fetch_sub(&slot->waiters, 1);
}

int read_newest(engine *e, rw_slice key, void *buf, size_t room, tree_value *seen)
{
    for (;;) {
        uint64_t begin = 0, rewrites = rewrites_before(e);
        int error = trees_get(&e->trees, key, buf, room, TREES_TIMESTAMP | TREES_LEAF, seen, NULL);
        if (error != 0) return error;
        RW_PREEMPT(e->kio);
        apply_slot *slot = slot_hiding(e, seen, &begin);
        if (slot == NULL && !rewrites_ended_since(e, rewrites)) return 0;
        if (slot == NULL) continue;
        if (atomic_load_explicit(&slot->keeps_old, memory_order_relaxed)) {
            error = read_at(e, key, begin, buf, room, seen);
            bool hidden = atomic_load(&slot->begin) == begin || RW_PLANTED(trust_old_values);
            if (error == 0 && hidden) return 0;
            if (error != 0 && error != RW_ESNAPSHOT_TOO_OLD) return error;
        }
        slot_wait(e, slot, begin);
    }
}

int read_at(engine *e, rw_slice key, uint64_t moment, void *buf, size_t room, tree_value *seen)
{
    int error = trees_get(&e->trees, key, buf, room, TREES_TIMESTAMP, seen, NULL);
    if (error != 0 || seen->timestamp < moment) return error;
    size_t size = 0;
    RW_PREEMPT(e->kio);
    switch (versions_find(&e->versions, key, moment, buf, room, &size, &seen->extent)) {
    case VERSION_NONE: break;      /* the leaf was right: but what the store says of the value's bytes is not, they may have been overwritten */
    case VERSION_ABSENT: *seen = (tree_value){.found = false}; break;
    case VERSION_VALUE: *seen = (tree_value){.found = true, .fits = size <= room, .size = size}; break;
    case VERSION_EXTENT: *seen = (tree_value){.found = true, .is_extent = true, .extent = seen->extent}; break;
    }
    RW_PREEMPT(e->kio);
    if (snapshots_is_lost(&e->snapshots, moment)) return rw_error(RW_ESNAPSHOT_TOO_OLD, "the snapshot at log position %llu was given up", (unsigned long long)moment);
    return 0;
}
