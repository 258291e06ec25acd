/* The offline check of a closed database: superblock, trees, space, log, catalog. It reads and reports; nothing is changed. */
#include "engine/verify.h"

#include <stdarg.h>

#include "base/memory.h"

#define FINDING_BYTES 1024

/* ---- findings ---------------------------------------------------------------------------------------------------- */

static void finding_tell(verifier *v, const char *text)
{
    if (v->damaged + v->unreadable == 0) snprintf(v->first, sizeof v->first, "%.*s", (int)sizeof v->first - 1, text);
    if (v->fn != NULL) v->fn(v->arg, text);
}

int verify_finding(verifier *v, const char *format, ...)
{
    char text[FINDING_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    finding_tell(v, text);
    v->damaged++;
    return 0;
}

int verify_take_error(verifier *v, int code, const char *where)
{
    char text[FINDING_BYTES];
    if (code != RW_ECORRUPT && code != RW_EIO) return code;
    snprintf(text, sizeof text, "%s: %s", where, rw_error_text());
    finding_tell(v, text);
    if (code == RW_EIO) v->unreadable++;
    else v->damaged++;
    return 0;
}

/* What was found, as the result of the whole check. A place that cannot be read is not known to be damaged. */
static int findings_result(const verifier *v)
{
    uint64_t count = v->damaged + v->unreadable;
    if (count == 0) return 0;
    return rw_error(v->damaged > 0 ? RW_ECORRUPT : RW_EIO, "%s: %llu finding%s, the first: %s", v->dir, (unsigned long long)count,
                    count == 1 ? "" : "s", v->first);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* NULL: no memory, which the thread's error says. */
static char *path_make(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);
    if (path != NULL) snprintf(path, size, "%s/%s", dir, name);
    else rw_error(RW_ENOMEM, "no memory for a path");
    return path;
}

static int path_exists(kio *k, const char *dir, const char *name, bool *exists)
{
    kio_file *file;
    char *path = path_make(dir, name);
    if (path == NULL) return RW_ENOMEM;
    int error = kio_file_open(k, path, KIO_READ_ONLY, &file);
    free(path);
    *exists = error == 0;
    if (error == 0) kio_file_close(k, file);
    return error == RW_ENOENT ? 0 : error;
}

/* Nothing is made, not even a lock file, where there is no database. */
static int database_look(verifier *v, bool *exists)
{
    bool log;
    int error = path_exists(v->k, v->dir, "data", exists);
    if (error != 0 || *exists) return error;
    error = path_exists(v->k, v->dir, "log", &log);
    if (error != 0) return error;
    if (!log) return rw_error(RW_ENOENT, "%s: there is no database", v->dir);
    return verify_finding(v, "%s: the log is there, but the data file is missing", v->dir);
}

static int lock_take(verifier *v)
{
    char *path = path_make(v->dir, "lock");
    if (path == NULL) return RW_ENOMEM;
    int error = kio_lock_take(v->k, path, KIO_READ_ONLY, &v->lock);
    free(path);
    return error;
}

static int memory_take(verifier *v)
{
    v->key_stride = rw_limits_key_max(v->page_size) + RW_BUCKET_PREFIX;
    v->staging = rw_memory_aligned(EXTENT_STAGING_BYTES);
    v->key = malloc(v->key_stride);
    if (v->staging == NULL || v->key == NULL) return rw_error(RW_ENOMEM, "no memory to check a database");
    return verify_space_open(v);
}

/* *sound: there is something to look at. What is wrong beyond that was reported. */
static int files_open(verifier *v, bool *sound)
{
    store_params params = {.read_only = true};
    *sound = false;
    int error = store_open(v->k, v->dir, &params, &v->store);
    if (error != 0) return verify_take_error(v, error, "superblock");
    v->page_size = params.page_size;
    v->image = store_image_opened(v->store);
    wal_options options = {.database_id = params.database_id, .read_only = true};
    error = wal_open(v->k, v->dir, &options, &v->log);
    if (error == RW_ENOENT) {
        v->log = NULL;
        error = verify_finding(v, "%s: the data file is there, but the log is missing", v->dir);
    }
    if (error != 0) error = verify_take_error(v, error, "log");
    *sound = true;
    return error == 0 ? memory_take(v) : error;
}

static void verifier_close(verifier *v)
{
    for (unsigned i = 0; i < TREE_LEVELS_MAX; i++) {
        free(v->levels[i].page);
        free(v->levels[i].low);
        free(v->levels[i].high);
    }
    free(v->catalog.entries);
    free(v->catalog.names);
    free(v->staging);
    free(v->key);
    free(v->claimed);
    free(v->segments);
    if (v->log != NULL) wal_close(v->log);
    if (v->store != NULL) store_close(v->store);
    if (v->lock != NULL) kio_lock_release(v->k, v->lock);
}

/* ---- the check --------------------------------------------------------------------------------------------------- */

static int parts_check(verifier *v)
{
    bool exists = false, sound = false;
    int error = database_look(v, &exists);
    if (error != 0 || !exists) return error;
    error = lock_take(v);
    if (error == 0) error = files_open(v, &sound);
    if (error != 0 || !sound) return error;
    error = verify_trees(v);
    if (error == 0) error = verify_space_map(v); /* before the log, whose extents came after the map */
    if (error == 0 && v->log != NULL) error = verify_log(v);
    if (error == 0) error = verify_catalog_check(v);
    return error;
}

int db_verify_with(kio *k, const char *dir, rw_verify_fn fn, void *arg)
{
    char text[256];
    if (dir == NULL) return rw_error(RW_EINVAL, "the directory is NULL");
    if (dir[0] == 0) return rw_error(RW_EINVAL, "the directory's name is empty");
    verifier *v = calloc(1, sizeof *v);
    if (v == NULL) return rw_error(RW_ENOMEM, "no memory to check a database");
    v->k = k;
    v->dir = dir;
    v->fn = fn;
    v->arg = arg;
    int error = parts_check(v);
    if (error == 0) error = findings_result(v);
    snprintf(text, sizeof text, "%s", rw_error_text());
    verifier_close(v);
    free(v);
    return error == 0 ? 0 : rw_error(error, "%s", text);
}

int rw_verify(const char *dir, rw_verify_fn fn, void *arg)
{
    kio *k;
    int error = kio_open("psync", NULL, NULL, &k); /* one read at a time, in the caller's thread */
    if (error != 0) return error;
    error = db_verify_with(k, dir, fn, arg);
    kio_close(k);
    return error;
}

/* ---- the log, printed -------------------------------------------------------------------------------------------- */

static int log_print(verifier *v, FILE *to)
{
    bool exists;
    int error = path_exists(v->k, v->dir, "log", &exists);
    if (error == 0 && !exists) error = rw_error(RW_ENOENT, "%s: there is no log", v->dir);
    if (error == 0) error = lock_take(v);
    char *path = error == 0 ? path_make(v->dir, "log") : NULL;
    if (path == NULL) return error != 0 ? error : RW_ENOMEM;
    error = wal_print(v->k, path, to);
    free(path);
    if (v->lock != NULL) kio_lock_release(v->k, v->lock);
    return error;
}

int db_print_log(const char *dir, FILE *to)
{
    verifier v = {.dir = dir};
    int error = kio_open("psync", NULL, NULL, &v.k);
    if (error != 0) return error;
    error = log_print(&v, to);
    kio_close(v.k);
    return error;
}
