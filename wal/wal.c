/* The log's handle: creating, opening, starting, failing, closing. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/planted.h"
#include "wal/wal_internal.h"

/* ---- the file, counted ---- */

int wal_file_write(wal *w, const void *from, size_t length, uint64_t offset)
{
    int rc = kio_file_write(w->k, w->file, from, length, offset);
    if (rc != 0) return rc;
    atomic_fetch_add_explicit(&w->writes, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->write_bytes, length, memory_order_relaxed);
    return 0;
}

/*
 * One at a time, and none after one that failed: a failed sync may have lost what another thread wrote, and that thread's own sync would
 * succeed.
 */
int wal_file_sync(wal *w)
{
    kio_mutex_lock(w->k, &w->sync_mutex);
    int rc = wal_has_failed(w) ? wal_failure(w, w->failure_code) : kio_file_sync(w->k, w->file);
    if (rc != 0 && RW_PLANTED(retry_failed_sync)) rc = kio_file_sync(w->k, w->file);
    if (rc != 0) wal_fail(w, rc);
    else atomic_fetch_add_explicit(&w->syncs, 1, memory_order_relaxed);
    kio_mutex_unlock(w->k, &w->sync_mutex);
    return rc;
}

/* Under the same mutex: the two report failures of writes through the same open file, and each failure is reported once. */
int wal_file_write_durable(wal *w, const void *from, size_t length, uint64_t offset)
{
    kio_mutex_lock(w->k, &w->sync_mutex);
    int rc = wal_has_failed(w) ? wal_failure(w, w->failure_code) : kio_file_write_durable(w->k, w->file, from, length, offset);
    if (rc != 0) {
        wal_fail(w, rc);
    } else {
        atomic_fetch_add_explicit(&w->writes, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&w->write_bytes, length, memory_order_relaxed);
        atomic_fetch_add_explicit(&w->syncs, 1, memory_order_relaxed);
    }
    kio_mutex_unlock(w->k, &w->sync_mutex);
    return rc;
}

void wal_counters_get(const wal *w, wal_counters *counters)
{
    *counters = (wal_counters){
        .file_bytes = atomic_load_explicit(&w->file_bytes, memory_order_relaxed),
        .writes = atomic_load_explicit(&w->writes, memory_order_relaxed),
        .write_bytes = atomic_load_explicit(&w->write_bytes, memory_order_relaxed),
        .syncs = atomic_load_explicit(&w->syncs, memory_order_relaxed),
    };
}

/* ---- how batches are made durable ---- */

/* What the options say, or what was kept of this device; nothing is measured. */
static void sync_recall(wal *w)
{
    const kio_sync_times *kept = &w->options.sync_times;
    if (kept->device == kio_file_device(w->k, w->file)) w->sync_times = *kept;
    w->sync = w->options.sync;
    if (w->sync != WAL_SYNC_AUTO || w->sync_times.device == 0) return;
    w->sync = kio_sync_times_prefer_durable_write(&w->sync_times) ? WAL_SYNC_DSYNC : WAL_SYNC_FDATASYNC;
}

/*
 * Decides, once the epoch has begun and before anything is appended. It writes behind the start block, where the first records will come: what is there
 * belongs to no segment of this epoch, and zeros never do. So a crash in the middle leaves nothing that a crash after the start block could not leave.
 */
static int sync_choose(wal *w)
{
    uint64_t offset = (uint64_t)w->current * RW_LOG_SEGMENT_BYTES + RW_BLOCK_SIZE;
    RW_ASSERT(w->index == 1);
    if (w->sync == WAL_SYNC_DSYNC && w->options.sync == WAL_SYNC_DSYNC) {
        int rc = kio_file_write_durable(w->k, w->file, w->zeros, RW_BLOCK_SIZE, offset);
        return rc == RW_ENOTSUP ? rw_error(rc, "log_sync: dsync is not possible in the file system of %s", kio_file_path(w->file)) : rc;
    }
    if (w->sync != WAL_SYNC_AUTO) return 0;
    int rc = kio_sync_times_measure(w->k, w->file, offset, RW_LOG_SEGMENT_BYTES - RW_BLOCK_SIZE, w->zeros, &w->sync_times);
    if (rc == 0) w->sync = kio_sync_times_prefer_durable_write(&w->sync_times) ? WAL_SYNC_DSYNC : WAL_SYNC_FDATASYNC;
    return rc;
}

wal_sync wal_sync_mode(const wal *w, kio_sync_times *times)
{
    *times = w->sync_times;
    return w->sync;
}

/* ---- failure ---- */

void wal_fail(wal *w, int code)
{
    kio_mutex_lock(w->k, &w->failure_mutex);
    bool first = atomic_load(&w->failed) == 0;
    if (first) {
        w->failure_code = code;
        strncpy(w->failure_text, rw_error_text(), sizeof w->failure_text - 1);
        atomic_store(&w->failed, 1);
    }
    kio_mutex_unlock(w->k, &w->failure_mutex);
    if (!first) return;
    if (w->options.on_failure != NULL) w->options.on_failure(w->options.on_failure_arg, code, w->failure_text);
    _Atomic uint32_t *words[] = {&w->batch_word[0], &w->batch_word[1], &w->space_word, &w->slot_word};
    for (size_t i = 0; i < RW_ARRAY_SIZE(words); i++) {
        atomic_fetch_add(words[i], 1);
        kio_wake(w->k, words[i], INT_MAX);
    }
    wal_watchers_notify(w);
}

int wal_failure(wal *w, int code)
{
    RW_ASSERT(wal_has_failed(w));
    return rw_error(code, "the log takes no more records since it failed: %s", w->failure_text);
}

/* ---- open and close ---- */

static void wal_free(wal *w)
{
    if (w->file != NULL) kio_file_close(w->k, w->file);
    free(w->staging);
    free(w->blocks);
    free(w->zeros);
    free(w->slots);
    free(w);
}

/* A handle over dir/log, opened with those flags. */
static int open_file(kio *k, const char *dir, const wal_options *options, unsigned flags, wal **out)
{
    wal *w = aligned_alloc(RW_CACHE_LINE, rw_align_up(sizeof *w, RW_CACHE_LINE));
    char *path = NULL;
    if (w != NULL) memset(w, 0, sizeof *w);
    if (w == NULL || asprintf(&path, "%s/log", dir) < 0) {
        free(w);
        return rw_error(RW_ENOMEM, "no memory to open the log of %s", dir);
    }
    w->k = k;
    w->options = *options;
    w->prepare_slot = WAL_NO_SLOT;
    int rc = kio_file_open(k, path, flags | KIO_DIRECT, &w->file);
    free(path);
    if (rc != 0) {
        wal_free(w);
        return rc;
    }
    sync_recall(w);
    *out = w;
    return 0;
}

int wal_open(kio *k, const char *dir, const wal_options *options, wal **out)
{
    wal *w = NULL;
    int rc = open_file(k, dir, options, options->read_only ? KIO_READ_ONLY : 0, &w);
    if (rc != 0) return rc;
    /* What a crashed process wrote may still be on its way: it must not be read now and be gone after the next crash. */
    if (!options->read_only) rc = kio_file_sync(k, w->file);
    if (rc == 0) rc = wal_slots_scan(w);
    if (rc != 0) {
        wal_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

int wal_create(kio *k, const char *dir, const wal_options *options, wal **out)
{
    wal *w = NULL;
    int rc = open_file(k, dir, options, KIO_CREATE, &w);
    if (rc != 0) return rc;
    /* What a creation that was cut short left behind is taken over; records, and what is not ours, are not. */
    rc = wal_leftover_check(k, w->file, false);
    if (rc == 0) rc = wal_slots_table(w, 0);
    if (rc == 0) rc = kio_file_resize(k, w->file, 0);
    if (rc == 0) rc = kio_file_sync(k, w->file);
    if (rc == 0) rc = kio_directory_sync(k, dir);
    if (rc != 0) {
        wal_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

/* The memory of a log that takes records. */
static int allocate(wal *w)
{
    if (w->staging != NULL) return 0;
    w->zeros = rw_memory_aligned(WAL_IO_BYTES);
    w->blocks = rw_memory_aligned((WAL_BATCH_BLOCKS + 1) * RW_BLOCK_SIZE);
    w->staging = rw_memory_aligned(RW_LOG_STAGING_BYTES);
    if (w->zeros == NULL || w->blocks == NULL || w->staging == NULL) return rw_error(RW_ENOMEM, "no memory for the log's staging space");
    memset(w->zeros, 0, WAL_IO_BYTES);
    memset(w->blocks, 0, (WAL_BATCH_BLOCKS + 1) * RW_BLOCK_SIZE);
    memset(w->staging, 0, RW_LOG_STAGING_BYTES);
    return 0;
}

/* The stream's positions, all at lsn. */
static void set_positions(wal *w, uint64_t lsn)
{
    atomic_store(&w->reserve, lsn);
    atomic_store(&w->consumed, lsn);
    atomic_store(&w->durable, lsn);
    atomic_store(&w->demand, lsn);
    atomic_store(&w->extent[0], lsn);
    atomic_store(&w->extent[1], lsn);
    w->scanned = w->next_header = w->record_end = w->tick_lsn = lsn;
}

int wal_start(wal *w, uint64_t keep_lsn)
{
    RW_ASSERT(w->replayed && !w->started && keep_lsn <= w->replay_end_lsn);
    if (w->options.read_only) return rw_error(RW_EREADONLY, "%s is open for reading only", kio_file_path(w->file));
    if (wal_has_failed(w)) return wal_failure(w, RW_EREADONLY);
    int rc = allocate(w);
    if (rc != 0) return rc;
    uint32_t failures = w->growth_failures;
    w->growth_blocked = false;
    w->capacity = 0;
    wal_slots_lay_out(w, w->replay_end_lsn, keep_lsn);
    while (w->ready_count == 0) {
        wal_slots_prepare(w, UINT64_MAX);
        if (wal_has_failed(w)) return wal_failure(w, w->failure_code);
        if (w->growth_failures != failures) return rw_error(w->growth_code, "the log cannot grow: %s", w->growth_text);
    }
    rc = wal_slots_begin(w, w->replay_end_lsn);
    if (rc == 0) rc = sync_choose(w);
    if (rc != 0) {
        wal_fail(w, rc);
        return rc;
    }
    set_positions(w, w->replay_end_lsn);
    w->started = true;
    rc = wal_writer_start(w);
    if (rc != 0) w->started = false;
    return rc;
}

int wal_close(wal *w)
{
    int rc = 0;
    if (w->started) {
        wal_wait(w, wal_reserved(w));
        wal_writer_stop(w);
        if (wal_has_failed(w)) rc = wal_failure(w, w->failure_code);
    }
    wal_free(w);
    return rc;
}

uint64_t wal_end_lsn(const wal *w)
{
    return w->started ? wal_reserved(w) : w->replay_end_lsn;
}

uint64_t wal_durable_lsn(const wal *w)
{
    return w->started ? atomic_load_explicit(&w->durable, memory_order_acquire) : w->replay_end_lsn;
}
