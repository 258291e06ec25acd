/* The lock table: taking, waiting, giving back, lists. */
#include "txn/locks_internal.h"

#define RELEASE_STEP 512u          /* locks given back before others get a turn at the mutex */

int locks_open(kio *k, pool *p, uint64_t bytes_max, locks **out)
{
    locks *l = calloc(1, sizeof *l);
    if (l == NULL) return rw_error(RW_ENOMEM, "no memory for the lock table");
    l->kio = k;
    l->bytes_max = bytes_max;
    frame_heap_init(&l->heap, p);
    rw_random_seed(&l->random, 1);
    *out = l;
    return 0;
}

void locks_close(locks *l)
{
    RW_ASSERT(!locks_active(l));
    frame_arena_close(&l->heap, &l->arena);
    free(l);
}

void lock_owner_init(lock_owner *owner, uint64_t id)
{
    memset(owner, 0, offsetof(lock_owner, victim_text));
    owner->victim_text[0] = 0;
    owner->id = id;
}

void lock_owner_init_single(lock_owner *owner, uint64_t id)
{
    lock_owner_init(owner, id);
    owner->single = true;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static int request_allocate_single(const lock_owner *owner, size_t size, lock_request **r)
{
    RW_ASSERT(owner->count == 0);
    *r = malloc(size);
    return *r != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for a lock of %zu bytes", size);
}

/* With the mutex held; leaves it for a while when memory is short. */
static int request_allocate(locks *l, size_t size, lock_request **r)
{
    RW_ASSERT(size <= frame_heap_object_max(&l->heap));
    while ((*r = frame_arena_allocate(&l->heap, &l->arena, size)) == NULL) {
        if (frame_heap_bytes(&l->heap) + l->heap.pool->page_size > l->bytes_max) {
            return rw_error(RW_ENOMEM, "the locks of all transactions take %llu bytes, and may not take more than %llu, a part of cache_bytes", (unsigned long long)frame_heap_bytes(&l->heap),
                            (unsigned long long)l->bytes_max);
        }
        uint32_t fresh;
        kio_mutex_unlock(l->kio, &l->mutex);
        int rc = pool_frame_take(l->heap.pool, &fresh);
        kio_mutex_lock(l->kio, &l->mutex);
        if (rc != 0) return rw_error_prefix(rc, "memory for a lock");
        if (frame_arena_has_room(&l->heap, &l->arena, size)) pool_frame_free(l->heap.pool, fresh);
        else frame_arena_feed(&l->heap, &l->arena, fresh);
    }
    return 0;
}

static int request_make(locks *l, const lock_claim *claim, lock_request **out)
{
    const lock_interval *i = &claim->interval;
    size_t to_size = i->end == END_OPEN ? i->to.size : 0, size = sizeof(lock_request) + i->from.size + to_size;
    lock_request *r;
    int rc = claim->owner->single ? request_allocate_single(claim->owner, size, &r) : request_allocate(l, size, &r);
    if (rc != 0) return rc;
    r->watchers = NULL;
    r->priority = (uint32_t)rw_random_next(&l->random);
    r->from_size = (uint32_t)i->from.size;
    r->to_size = (uint32_t)to_size;
    r->mode = (uint8_t)claim->mode;
    r->end = (uint8_t)i->end;
    r->waiting = false;
    memcpy(r->bytes, i->from.data, i->from.size);
    if (to_size > 0) memcpy(r->bytes + i->from.size, i->to.data, to_size);
    *out = r;
    return 0;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static int timeout_error(const lock_request *blocker, int64_t timeout_ns)
{
    const char *how = blocker->waiting ? "waits before it" : "holds it";
    long long ms = (long long)timeout_ns / 1000000;
    if (blocker->owner->id == 0) return rw_error(RW_ETIMEOUT, "a lock was not granted within %lld ms: a single write %s", ms, how);
    return rw_error(RW_ETIMEOUT, "a lock was not granted within %lld ms: transaction %llu %s", ms, (unsigned long long)blocker->owner->id, how);
}

/* Sleeps until the wait is over, one way or the other. Without the mutex. */
static int waiter_sleep(locks *l, lock_owner *owner, uint32_t word, int64_t timeout_ns)
{
    uint64_t begun = kio_now_ns(l->kio);
    for (int64_t left = timeout_ns; atomic_load_explicit(&owner->word, memory_order_acquire) == word;) {
        if (left > 0) {
            kio_sleep(l->kio, &owner->word, word, left);
            left = timeout_ns - (int64_t)(kio_now_ns(l->kio) - begun);
            continue;
        }
        lock_wakes wakes = {.count = 0};
        kio_mutex_lock(l->kio, &l->mutex);
        lock_request *r = owner->waiting, *candidates = NULL;
        int rc = 0;
        if (r != NULL) {
            rc = timeout_error(r->wait.watched, timeout_ns);
            l->counters.timeouts++;
            lock_waiter_withdraw(l, r, &candidates);
            lock_candidates_settle(l, candidates, &wakes);
        }
        kio_mutex_unlock(l->kio, &l->mutex);
        lock_wakes_flush(l, &wakes);
        if (rc != 0) return rc;
    }
    if (!owner->victim) return 0;
    owner->victim = false;
    return rw_error(RW_EDEADLOCK, "%s", owner->victim_text);
}

/* With the mutex held, which it gives back: what r claims is not free. */
static int request_wait(locks *l, lock_owner *owner, lock_request *r, lock_request *blocker, int64_t timeout_ns)
{
    bool alone = owner->count == 0 || l->waiting == 0;     /* nobody waits for owner: no cycle goes through it */
    lock_wakes wakes = {.count = 0};
    uint32_t word = atomic_load_explicit(&owner->word, memory_order_relaxed);
    r->waiting = true;
    lock_table_insert(l, r, owner);
    r->wait.watched = NULL;
    owner->waiting = r;
    l->waiting++;
    int rc = 0;
    if (timeout_ns <= 0) {
        if (!alone) blocker = lock_blocker_find(l, r);
        if (blocker == NULL) {
            lock_grant(l, r);
        } else {
            lock_request *candidates = NULL;
            rc = timeout_error(blocker, 0);
            lock_waiter_withdraw(l, r, &candidates);
        }
        kio_mutex_unlock(l->kio, &l->mutex);
        return rc;
    }
    if (alone) {
        lock_watch(r, blocker);
    } else if (lock_waiter_arrive(l, r, &wakes)) {
        rc = rw_error(RW_EDEADLOCK, "%s", owner->victim_text);
    }
    bool sleeps = owner->waiting != NULL;
    if (sleeps) l->counters.waits++;
    kio_mutex_unlock(l->kio, &l->mutex);
    lock_wakes_flush(l, &wakes);
    return sleeps ? waiter_sleep(l, owner, word, timeout_ns) : rc;
}

/* Whether owner holds a lock of this mode that contains i. */
static bool owner_covers(const lock_owner *owner, lock_interval i, lock_mode mode)
{
    lock_interval point = {.from = i.from, .to = i.from, .end = END_CLOSED};
    lock_limit limit = lock_limit_behind(i.from);
    lock_request *r;
    while ((r = lock_index_last(owner->held[mode], IN_OWNER, point, limit)) != NULL) {
        if (lock_interval_covers(lock_request_interval(r), i)) return true;
        limit = (lock_limit){.from = rw_slice_of(r->bytes, r->from_size), .arrival = r->arrival};
    }
    return false;
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

static lock_interval interval_of(rw_slice from, const rw_slice *to)
{
    if (to == NULL) return (lock_interval){.from = from, .to = from, .end = END_CLOSED};
    return (lock_interval){.from = from, .to = *to, .end = to->size == 0 ? END_NONE : END_OPEN};
}

static bool interval_is_empty(lock_interval i)
{
    return i.end == END_OPEN && rw_slice_compare(i.from, i.to) >= 0;
}

int locks_take(locks *l, lock_owner *owner, rw_slice from, const rw_slice *to, lock_mode mode, int64_t timeout_ns)
{
    lock_claim claim = {.owner = owner, .interval = interval_of(from, to), .mode = mode, .arrival = UINT64_MAX};
    if (interval_is_empty(claim.interval)) return 0;
    kio_mutex_lock(l->kio, &l->mutex);
    RW_ASSERT(owner->waiting == NULL && !owner->victim);
    lock_request *r = NULL;
    int rc = 0;
    bool held = owner_covers(owner, claim.interval, LOCK_EXCLUSIVE) || (mode == LOCK_SHARED && owner_covers(owner, claim.interval, LOCK_SHARED));
    if (held || (rc = request_make(l, &claim, &r)) != 0) {
        kio_mutex_unlock(l->kio, &l->mutex);
        return rc;
    }
    lock_request *blocker = lock_blocker_next(l, &claim, NULL, LOCK_SOFT | LOCK_HARD);
    if (RW_UNLIKELY(blocker != NULL)) return request_wait(l, owner, r, blocker, timeout_ns);
    lock_table_insert(l, r, owner);
    lock_grant(l, r);
    kio_mutex_unlock(l->kio, &l->mutex);
    return 0;
}

void locks_release(locks *l, lock_owner *owner)
{
    bool more = true;
    while (more) {
        lock_wakes wakes = {.count = 0};
        lock_request *candidates = NULL, *r;
        kio_mutex_lock(l->kio, &l->mutex);
        RW_ASSERT(owner->waiting == NULL);
        for (unsigned i = 0; i < RELEASE_STEP && owner->count > 0; i++) {
            lock_request **root = &owner->held[owner->held[LOCK_EXCLUSIVE] != NULL ? LOCK_EXCLUSIVE : LOCK_SHARED];
            r = lock_index_pop(root, IN_OWNER);
            lock_watchers_take(r, &candidates);
            lock_drop(l, r);
        }
        more = owner->count > 0;
        lock_candidates_settle(l, candidates, &wakes);
        kio_mutex_unlock(l->kio, &l->mutex);
        lock_wakes_flush(l, &wakes);
    }
}

bool locks_conflict(locks *l, const lock_owner *owner, rw_slice from, const rw_slice *to, lock_mode mode, uint64_t *holder)
{
    lock_claim claim = {.owner = owner, .interval = interval_of(from, to), .mode = mode, .arrival = UINT64_MAX};
    if (interval_is_empty(claim.interval)) return false;
    kio_mutex_lock(l->kio, &l->mutex);
    const lock_request *r = lock_blocker_next(l, &claim, NULL, LOCK_HARD);
    if (r != NULL) *holder = r->owner->id;
    kio_mutex_unlock(l->kio, &l->mutex);
    return r != NULL;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static bool comes_first(const lock_request *a, const lock_request *b)
{
    int order = rw_slice_compare(rw_slice_of(a->bytes, a->from_size), rw_slice_of(b->bytes, b->from_size));
    return order != 0 ? order < 0 : a->arrival < b->arrival;
}

int locks_for_each(locks *l, int (*fn)(void *arg, const lock_view *view), void *arg)
{
    int rc = 0;
    kio_mutex_lock(l->kio, &l->mutex);
    lock_request *next[LOCK_TABLES];
    for (unsigned i = 0; i < LOCK_TABLES; i++) next[i] = lock_index_first(l->table[i], IN_TABLE);
    while (rc == 0) {
        unsigned which = LOCK_TABLES;
        for (unsigned i = 0; i < LOCK_TABLES; i++) {
            if (next[i] != NULL && (which == LOCK_TABLES || comes_first(next[i], next[which]))) which = i;
        }
        if (which == LOCK_TABLES) break;
        const lock_request *r = next[which];
        lock_interval i = lock_request_interval(r);
        lock_view view = {.owner = r->owner->id, .mode = (lock_mode)r->mode, .waiting = r->waiting, .is_range = i.end != END_CLOSED, .from = i.from};
        if (i.end == END_OPEN) view.to = i.to;
        if (r->waiting) view.waits_for = r->wait.watched->owner->id;
        rc = fn(arg, &view);
        next[which] = lock_index_next(next[which], IN_TABLE);
    }
    kio_mutex_unlock(l->kio, &l->mutex);
    return rc;
}

void locks_counters(locks *l, lock_counters *counters)
{
    kio_mutex_lock(l->kio, &l->mutex);
    *counters = l->counters;
    kio_mutex_unlock(l->kio, &l->mutex);
    counters->bytes = frame_heap_bytes(&l->heap);
}
