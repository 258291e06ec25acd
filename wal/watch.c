/* Watchers: those who want to be told when the log is durable up to some place, rather than wait for it. */
#include "base/planted.h"
#include "base/preempt.h"
#include "wal/wal_internal.h"

void wal_watch_begin(wal *w, wal_watcher *watcher)
{
    atomic_store(&watcher->wanted, 0);
    kio_mutex_lock(w->k, &w->watchers_mutex);
    watcher->next = w->watchers;
    w->watchers = watcher;
    atomic_fetch_add(&w->watcher_count, 1);
    kio_mutex_unlock(w->k, &w->watchers_mutex);
}

void wal_watch_end(wal *w, wal_watcher *watcher)
{
    kio_mutex_lock(w->k, &w->watchers_mutex);
    wal_watcher **link = &w->watchers;
    while (*link != watcher) link = &(*link)->next;
    *link = watcher->next;
    atomic_fetch_sub(&w->watcher_count, 1);
    kio_mutex_unlock(w->k, &w->watchers_mutex);
}

/* What is wanted is stored before durable is looked at, and durable before what is wanted: one of the two threads sees the other's, and the exchange lets only one
 * of them count. */
bool wal_watch(wal *w, wal_watcher *watcher, uint64_t lsn, uint64_t all_lsn)
{
    RW_ASSERT(lsn > 0 && lsn <= all_lsn && all_lsn <= wal_reserved(w));
    bool looked = RW_PLANTED(watch_too_late) && atomic_load(&w->durable) < lsn;
    RW_PREEMPT(w->k);
    atomic_store(&watcher->wanted, lsn);
    if (atomic_load(&w->durable) < all_lsn) wal_demand(w, all_lsn);
    RW_PREEMPT(w->k);
    bool over = !looked && (atomic_load(&w->durable) >= lsn || wal_has_failed(w));
    return !over || atomic_exchange(&watcher->wanted, 0) == 0;
}

void wal_watchers_notify(wal *w)
{
    if (atomic_load(&w->watcher_count) == 0) return;
    uint64_t reached = wal_has_failed(w) ? UINT64_MAX : atomic_load(&w->durable);
    kio_mutex_lock(w->k, &w->watchers_mutex);
    for (wal_watcher *watcher = w->watchers; watcher != NULL; watcher = watcher->next) {
        uint64_t wanted = atomic_load(&watcher->wanted);
        RW_PREEMPT(w->k);
        if (wanted == 0 || wanted > reached || !atomic_compare_exchange_strong(&watcher->wanted, &wanted, 0)) continue;
        watcher->notify(watcher->arg);
    }
    kio_mutex_unlock(w->k, &w->watchers_mutex);
}

int wal_poll(wal *w, uint64_t end_lsn)
{
    if (atomic_load_explicit(&w->durable, memory_order_acquire) >= end_lsn) return 0;
    if (!wal_has_failed(w)) return RW_EBUSY;
    /* it may have become durable just before that */
    return atomic_load(&w->durable) >= end_lsn ? 0 : wal_failure(w, RW_EUNKNOWN);
}
