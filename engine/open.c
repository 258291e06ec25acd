/* Opening and closing. */
#include <sched.h>
#include <unistd.h>

#include "base/memory.h"
#include "engine/engine_internal.h"

#define LOCK_BYTES_DIVISOR 4u          /* locks may take this part of the frames */
#define FRAMES_MIN 24u                 /* fewer pages than this cannot hold the paths of a few operations at once */

static char *path_join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);
    if (path != NULL) snprintf(path, size, "%s/%s", dir, name);
    return path;
}

static unsigned cores_usable(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    return (unsigned)RW_MIN(CPU_COUNT(&set), (int)RW_WORKERS_MAX);
}

#define PARTITION_CACHE_SHARE 8u

static void options_fill(engine *e)
{
    rw_options *options = &e->options;
    if (options->workers == 0) options->workers = cores_usable();
    e->checkpointer.partition_bytes_few = options->partition_bytes;
    if (options->partition_bytes != 0) return;
    /* of a size that the cache has room for while all of it is changed (flush.c) */
    options->partition_bytes = RW_MAX(RW_MIN(options->cache_bytes / PARTITION_CACHE_SHARE, (uint64_t)RW_PARTITION_BYTES_DEFAULT), (uint64_t)RW_SEGMENT_BYTES);
    e->checkpointer.partition_bytes_few = RW_MIN(options->partition_bytes, (uint64_t)RW_PARTITION_BYTES_FEW);
}

/* What is taken beside the frames: staging of the log, of write-back, of cleaning. In a small cache frames get at least half. */
static uint64_t frames_bytes(const engine *e)
{
    uint64_t beside = 2 * (uint64_t)RW_LOG_STAGING_BYTES + (uint64_t)(e->options.workers * WORKER_BATCHES + 2) * RW_WRITE_BATCH_BYTES + RW_SEGMENT_BYTES;
    uint64_t cache = e->options.cache_bytes;
    return cache > 2 * beside ? cache - beside : cache / 2;
}

/* A quarter unless told otherwise, and never so much that, in a small cache, old values, locks and filters (5/32) together leave no pages to work with. */
static uint64_t versions_bytes_max(const engine *e)
{
    uint64_t frames = frames_bytes(e), asked = e->options.snapshot_bytes_max;
    return asked == 0 ? frames / 4 : RW_MIN(asked, frames / 3);
}

static int cache_check(engine *e)
{
    uint64_t need = 2 * (uint64_t)FRAMES_MIN * (e->page_size + sizeof(frame));
    if (frames_bytes(e) >= need / 2) return 0;
    return rw_error(RW_EINVAL, "cache_bytes: %llu is too small for pages of %u bytes, at least %llu are needed",
                    (unsigned long long)e->options.cache_bytes, e->page_size, (unsigned long long)need);
}

/* ---- the log's calls back ---------------------------------------------------------------------------------------- */

static int log_sync_data(void *arg)
{
    engine *e = arg;
    return store_sync(e->store);
}

static void log_failed(void *arg, int code, const char *text)
{
    engine_fail(arg, code, text);
}

static wal_sync log_sync_asked(const engine *e)
{
    const char *asked = e->options.log_sync;
    return strcmp(asked, "fdatasync") == 0 ? WAL_SYNC_FDATASYNC : strcmp(asked, "dsync") == 0 ? WAL_SYNC_DSYNC : WAL_SYNC_AUTO;
}

/* What this open has measured goes into the next superblock. */
static void log_sync_keep(engine *e)
{
    kio_sync_times times;
    (void)wal_sync_mode(e->wal, &times);
    if (times.device != 0) store_sync_times_keep(e->store, &times);
}

static wal_options log_options(engine *e)
{
    return (wal_options){.database_id = e->database_id,
                         .async_delay_ms = e->options.async_delay_ms,
                         .read_only = e->read_only,
                         .salvage = e->salvage != NULL,
                         .sync = log_sync_asked(e),
                         .sync_times = store_sync_times(e->store),
                         .sync_data = log_sync_data,
                         .sync_data_arg = e,
                         .on_failure = log_failed,
                         .on_failure_arg = e};
}

/* The trees, and what transactions keep beside them. */
static int trees_and_locks_open(engine *e)
{
    e->trees.read_only = e->read_only;
    int error = trees_open(&e->trees, e->kio, e->store, e->page_size, frames_bytes(e));
    if (error != 0) return error;
    snapshots_init(&e->snapshots, e->kio);
    versions_init(&e->versions, &e->trees, &e->snapshots, versions_bytes_max(e));
    return locks_open(e->kio, &e->trees.pool, frames_bytes(e) / LOCK_BYTES_DIVISOR, &e->locks);
}

/* ---- the pieces, in order ---------------------------------------------------------------------------------------- */

/* Who makes no database leaves a directory without one as it is: not even a lock file is made there. */
static int data_expect(engine *e)
{
    kio_file *file;
    char *path = path_join(e->dir, "data");
    if (path == NULL) return rw_error(RW_ENOMEM, "no memory for a path");
    int error = kio_file_open(e->kio, path, KIO_READ_ONLY, &file);
    free(path);
    if (error == 0) kio_file_close(e->kio, file);
    return error;
}

static int lock_take(engine *e)
{
    char *path = path_join(e->dir, "lock");
    if (path == NULL) return rw_error(RW_ENOMEM, "no memory for a path");
    int error = kio_lock_take(e->kio, path, e->read_only ? KIO_READ_ONLY : 0, &e->lock);
    free(path);
    return error;
}

static void store_adopt(engine *e, const store_params *params)
{
    e->database_id = params->database_id;
    e->page_size = params->page_size;
    e->key_max = rw_limits_key_max(params->page_size);
}

static int log_must_be_empty(void *arg, const wal_record *record)
{
    const engine *e = arg;
    return rw_error(RW_ECORRUPT, "%s: there is no database, but a log with a record at LSN %llu", e->dir, (unsigned long long)record->lsn);
}

/* The directory's own name must survive, too: it lies in the parent. */
static int parent_sync(engine *e)
{
    char *parent = path_join(e->dir, "");
    if (parent == NULL) return rw_error(RW_ENOMEM, "no memory for a path");
    size_t length = strlen(parent);
    while (length > 0 && parent[length - 1] == '/') length--;
    while (length > 0 && parent[length - 1] != '/') length--;
    parent[length] = 0;
    int error = kio_directory_sync(e->kio, length == 0 ? "." : parent);
    free(parent);
    return error == RW_EACCESS ? 0 : error; /* who may not read it did not make the directory in it just now */
}

/* Files and first image of a new database. The superblock comes last: without it there is no database. */
static int database_create(engine *e)
{
    store_params params = {.page_size = e->options.page_size};
    int error = parent_sync(e);
    /* Whatever is refused of the log is refused before there is a new data file. */
    if (error == 0) error = wal_make_way(e->kio, e->dir, store_creation_is_marked(e->kio, e->dir));
    if (error != 0) return error;
    error = store_create(e->kio, e->dir, &params, &e->store);
    if (error != 0) return error;
    store_adopt(e, &params);
    error = cache_check(e);
    if (error != 0) return error;
    wal_options options = log_options(e);
    error = wal_create(e->kio, e->dir, &options, &e->wal);
    if (error == 0) error = trees_and_locks_open(e);
    if (error == 0) error = workers_start(e);
    if (error == 0) error = checkpointer_start(e);
    if (error == 0) error = trees_create_first(&e->trees, 1);
    e->checkpointer.next_partition_id = 2;
    uint64_t end_lsn;
    if (error == 0) error = wal_replay(e->wal, WAL_LSN_FIRST, WAL_LSN_FIRST, log_must_be_empty, e, &end_lsn);
    if (error == 0) error = wal_start(e->wal, end_lsn);
    if (error == 0) log_sync_keep(e);
    if (error == 0) error = checkpoint_all(e, false, FLUSH_PENDING);
    return error;
}

static int database_open(engine *e)
{
    store_params params = {.read_only = e->read_only};
    int error = store_open(e->kio, e->dir, &params, &e->store);
    if (error != 0) return error;
    store_adopt(e, &params);
    error = cache_check(e);
    if (error != 0) return error;
    const store_image *image = store_image_opened(e->store);
    uint64_t checkpoint_lsn = image->checkpoint_lsn;
    wal_options options = log_options(e);
    options.closed_lsn = image->log_closed ? image->durable_lsn : 0;
    error = wal_open(e->kio, e->dir, &options, &e->wal);
    if (error == RW_ENOENT) error = rw_error(RW_ECORRUPT, "%s: the data file is there, but the log is missing", e->dir);
    if (error == 0) error = trees_and_locks_open(e);
    if (error == 0) error = workers_start(e);
    if (error == 0) error = checkpointer_start(e);
    if (error != 0) return error;
    e->trees.recovering = true;
    e->checkpointer.next_partition_id = image->next_partition_id;
    error = recovery_run(e);
    e->trees.recovering = false;
    atomic_store(&e->checkpointer.checkpoint_lsn, checkpoint_lsn);
    if (error != 0 || e->read_only) return error;
    error = store_log_begin(e->store);
    if (error == 0) error = wal_start(e->wal, checkpoint_lsn);
    if (error == 0) log_sync_keep(e);
    return error;
}

static void engine_free(engine *e)
{
    if (e->kio == NULL) {
        free(e);
        return;
    }
    checkpointer_stop(e);
    workers_stop(e);
    if (e->wal != NULL) wal_close(e->wal);
    checkpointer_free(e);
    while (e->writer_count > 0) tree_writer_close(e->writers[--e->writer_count]);
    if (e->locks != NULL) {
        locks_close(e->locks);
        versions_close(&e->versions);
    }
    if (e->trees.page_size != 0) trees_close(&e->trees);
    if (e->store != NULL) store_close(e->store);
    buckets_close(e);
    if (e->lock != NULL) kio_lock_release(e->kio, e->lock);
    if (e->kio_owned) kio_close(e->kio);
    free(e->dir);
    free(e);
}

static int directory_prepare(engine *e)
{
    if (e->read_only || e->options.create == 0) return data_expect(e);
    return kio_directory_create(e->kio, e->dir);
}

static int engine_open(engine *e, const char *dir, const rw_options *options)
{
    e->options = *options;
    options_fill(e);
    e->read_only = options->read_only != 0;
    e->dir = strdup(dir);
    if (e->dir == NULL) return rw_error(RW_ENOMEM, "no memory to open '%s'", dir);
    int error = directory_prepare(e);
    if (error == 0) error = lock_take(e);
    if (error != 0) return error;
    error = database_open(e);
    if (error == RW_ENOENT && options->create != 0 && !e->read_only && e->store == NULL) error = database_create(e);
    if (error == 0) error = buckets_open(e);
    if (error == 0 && !e->read_only) error = checkpointer_run_thread(e);
    if (error == 0) trees_learn_allow(&e->trees);
    return error;
}

/* k NULL: a back end of its own. s NULL: an opening that refuses what is damaged. */
static int open_checked(kio *k, const char *dir, const rw_options *options, salvage *s, rw_db **out)
{
    if (dir == NULL || out == NULL) return rw_error(RW_EINVAL, "the %s is NULL", dir == NULL ? "directory" : "out-parameter");
    if (dir[0] == 0) return rw_error(RW_EINVAL, "the directory's name is empty");
    int error = options_check(options);
    if (error != 0) return error;
    engine *e = aligned_alloc(RW_CACHE_LINE, rw_align_up(sizeof *e, RW_CACHE_LINE));
    if (e == NULL) return rw_error(RW_ENOMEM, "no memory for a database");
    memset(e, 0, sizeof *e);
    e->kio = k;
    e->salvage = s;
    if (k == NULL) {
        error = kio_open(options->io_backend, options->logger, options->logger_arg, &e->kio);
        e->kio_owned = error == 0;
    }
    if (error == 0) error = engine_open(e, dir, options);
    rw_db *db = error == 0 ? handle_make(e) : NULL;
    if (error == 0 && db == NULL) error = rw_error(RW_ENOMEM, "no memory for a handle");
    if (error != 0) {
        engine_free(e);
        return error;
    }
    e->salvage = NULL;
    *out = db;
    return 0;
}

int db_open_with(kio *k, const char *dir, const rw_options *options, rw_db **out)
{
    rw_options defaults;
    rw_options_init(&defaults);
    return open_checked(k, dir, options != NULL ? options : &defaults, NULL, out);
}

int db_open_salvage(const char *dir, const rw_options *options, rw_verify_fn found, void *arg, rw_db **out)
{
    rw_options changed;
    salvage s = {.found = found, .arg = arg};
    rw_options_init(&changed);
    if (options != NULL) changed = *options;
    changed.read_only = 1;
    changed.create = 0;
    return open_checked(NULL, dir, &changed, &s, out);
}

int rw_open(const char *dir, const rw_options *options, rw_db **db)
{
    return db_open_with(NULL, dir, options, db);
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

static bool anything_retired(engine *e)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        const partition *p = &e->trees.partitions[i];
        if (atomic_load(&p->root) != FRAME_NONE && p->retired.count + p->maturing.count + p->extents.count + p->extents_passed.count > 0) return true;
    }
    return false;
}

/* Writes whose leaves cannot be read: the log must keep them. */
static bool anything_pending(const engine *e)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++)
        if (!pending_is_empty(&e->trees.pending, (uint16_t)i)) return true;
    return false;
}

/* A checkpoint of everything, and a superblock that says what is alive. */
static int close_cleanly(engine *e)
{
    uint64_t cut;
    int error = 0;
    while (versions_tend(e)) continue; /* extents that only old values named go now */
    for (unsigned round = 0; round < 4 && error == 0; round++) {
        error = checkpoint_all(e, false, FLUSH_SPILLS);
        if (!anything_retired(e)) break;
    }
    store_streams_end(e->store, 0);
    if (error == 0) error = store_shrink(e->store, 0, &cut);
    if (error == 0 && !anything_retired(e) && !anything_pending(e)) error = checkpoint_publish(e, true);
    return error;
}

int rw_close(rw_db *db)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    uint32_t children = atomic_load(&e->children);
    if (children > 0) return rw_error(RW_EBUSY, "%u batches, transactions, cursors or queues of the database are open", children);
    if (handle_close(db) == NULL) return rw_error(RW_ECLOSED, "the database was closed");
    checkpointer_stop(e);
    if (!e->read_only) {
        error = atomic_load(&e->failure) != 0 ? rw_error(RW_EREADONLY, "%s: closed after a failure: %s", e->dir, e->failure_text) : close_cleanly(e);
        wal *log = e->wal;
        e->wal = NULL;
        char text[256];
        snprintf(text, sizeof text, "%s", rw_error_text());
        int log_error = wal_close(log);
        if (error == 0) error = log_error;
        else rw_error(error, "%s", text);
    }
    char text[256];
    snprintf(text, sizeof text, "%s", rw_error_text());
    engine_free(e);
    return error == 0 ? 0 : rw_error(error, "%s", text);
}
