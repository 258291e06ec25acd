/* Figures of a running database. */
#include "engine/engine_internal.h"

static void partitions_count(engine *e, rw_stats_t *stats)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) == FRAME_NONE) continue;
        partition_lock(e->kio, p);
        if (atomic_load(&p->root) != FRAME_NONE) {
            uint64_t height = tree_height(&e->trees, p);
            stats->partitions++;
            stats->commits += p->commits;
            stats->records_estimate += p->image_root.estimate & PAGE_REF_ESTIMATE_MAX;
            stats->tree_height_max = RW_MAX(stats->tree_height_max, height);
        }
        partition_unlock(e->kio, p);
    }
}

static void pool_count(engine *e, rw_stats_t *stats)
{
    pool *p = &e->trees.pool;
    stats->cache_frames = p->frame_count;
    stats->cache_frames_free = atomic_load(&p->free_count);
    stats->cache_frames_dirty = atomic_load(&p->dirty_count);
    stats->page_reads = atomic_load(&p->counters.pages_read);
    stats->page_read_bytes = stats->page_reads * e->page_size;
    stats->page_writes = atomic_load(&p->counters.pages_written);
    stats->page_write_bytes = stats->page_writes * e->page_size;
    stats->pages_evicted = atomic_load(&p->counters.pages_evicted);
    filter_figures figures = filters_figures(&e->trees.filters);
    stats->filter_bytes = figures.bytes;
    stats->filter_answers = figures.absent;
    stats->filter_vain = figures.vain;
    const pending *pg = &e->trees.pending;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) stats->pending_writes += atomic_load_explicit(&pg->sets[i].writes, memory_order_relaxed);
    stats->pending_bytes = pending_frames(pg) * e->page_size;
    stats->pending_puts = atomic_load(&pg->taken);
    stats->pending_answers = atomic_load(&pg->answered);
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) stats->spills += pending_spills(pg, (uint16_t)i);
    stats->spilled_puts = atomic_load(&pg->spilled);
    stats->spill_answers = atomic_load(&pg->spill_answers);
    records_figures kept = records_figures_get(&e->trees.records);
    stats->record_bytes = kept.bytes;
    stats->record_answers = kept.answered;
    bool complete = key_filter_phase_of(atomic_load(&e->trees.key_filter.state)) == KEY_FILTER_COMPLETE;
    stats->key_filter_bytes = complete ? e->trees.key_filter.bytes : 0;
}

static void files_count(engine *e, rw_stats_t *stats)
{
    store_space space;
    wal_counters log;
    store_space_get(e->store, &space);
    wal_counters_get(e->wal, &log);
    stats->data_file_bytes = space.file_bytes;
    stats->data_live_bytes = space.live_bytes;
    stats->segments_free = space.segments_free;
    stats->partitions_rewritten = atomic_load(&e->checkpointer.rewritten);
    stats->segments_cleaned = atomic_load(&e->checkpointer.cleaned);
    stats->log_lsn_end = wal_end_lsn(e->wal);
    stats->log_lsn_durable = wal_durable_lsn(e->wal);
    stats->log_lsn_checkpoint = atomic_load(&e->checkpointer.checkpoint_lsn);
    stats->log_file_bytes = log.file_bytes;
    stats->log_writes = log.writes;
    stats->log_write_bytes = log.write_bytes;
    stats->log_syncs = log.syncs;
    stats->checkpoints = atomic_load(&e->checkpointer.published);
}

static void log_sync_show(engine *e, rw_stats_t *stats)
{
    static const char *const names[] = {[WAL_SYNC_AUTO] = "auto", [WAL_SYNC_FDATASYNC] = "fdatasync", [WAL_SYNC_DSYNC] = "dsync"};
    kio_sync_times times;
    snprintf(stats->log_sync, sizeof stats->log_sync, "%s", names[wal_sync_mode(e->wal, &times)]);
    stats->log_fdatasync_ns = times.sync_ns;
    stats->log_dsync_ns = times.durable_write_ns;
}

static void transactions_count(engine *e, rw_stats_t *stats)
{
    lock_counters counters;
    for (unsigned i = 0; i < TXN_COUNTERS; i++) {
        stats->txns_committed += atomic_load(&e->txn_counters[i].committed);
        stats->txns_aborted += atomic_load(&e->txn_counters[i].aborted);
        stats->txns_conflicted += atomic_load(&e->txn_counters[i].conflicted);
    }
    uint64_t begun = atomic_load(&e->next_txn_id), ended = stats->txns_committed + stats->txns_aborted + stats->txns_conflicted;
    stats->txns_open = begun > ended ? begun - ended : 0;
    locks_counters(e->locks, &counters);
    stats->locks_held = counters.held;
    stats->lock_waits = counters.waits;
    stats->lock_timeouts = counters.timeouts;
    stats->deadlocks = counters.deadlocks;
    stats->snapshots_open = snapshots_count(&e->snapshots);
    stats->snapshot_oldest_age_us = snapshots_oldest_age(&e->snapshots) / 1000;
    stats->snapshots_given_up = atomic_load(&e->snapshots.given_up_count);
    stats->versions = versions_count(&e->versions);
    stats->version_bytes = versions_bytes(&e->versions);
    stats->version_bytes_max = e->versions.bytes_max;
}

int rw_stats(rw_db *db, rw_stats_t *out)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (out == NULL) return rw_error(RW_EINVAL, "the out-parameter is NULL");
    rw_stats_t stats = {.page_size = e->page_size, .workers = e->options.workers, .cache_bytes = e->options.cache_bytes};
    stats.buckets = atomic_load(&e->buckets.count);
    partitions_count(e, &stats);
    pool_count(e, &stats);
    files_count(e, &stats);
    transactions_count(e, &stats);
    log_sync_show(e, &stats);
    stats.reads_restarted = atomic_load(&e->trees.restarts);
    stats.recovery_records = e->recovery_records;
    stats.recovery_us = e->recovery_ns / 1000;
    snprintf(stats.io_backend, sizeof stats.io_backend, "%s", kio_name(e->kio));
    snprintf(stats.io_backend_note, sizeof stats.io_backend_note, "%s", e->kio->note);
    kio_mutex_lock(e->kio, &e->failure_mutex);
    snprintf(stats.read_only_reason, sizeof stats.read_only_reason, "%.*s", (int)sizeof stats.read_only_reason - 1,
             e->read_only ? "opened read-only" : e->failure_text);
    kio_mutex_unlock(e->kio, &e->failure_mutex);
    *out = stats;
    return 0;
}
