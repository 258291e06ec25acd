/* Handles: what a public call may rely on. A handle is never freed, so that its use after rw_close is an error and not a crash. */
#include <pthread.h>

#include "engine/engine_internal.h"

static _Atomic(rw_db *) handles;                 /* all ever made; keeps them reachable */
_Atomic uint32_t handle_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_in_child(void)
{
    atomic_fetch_add(&handle_generation, 1);
}

static void fork_watch(void)
{
    pthread_atfork(NULL, NULL, fork_in_child);
}

rw_db *handle_make(engine *e)
{
    rw_db *db = calloc(1, sizeof *db);
    if (db == NULL) return NULL;
    pthread_once(&fork_once, fork_watch);
    atomic_init(&db->engine, e);
    db->generation = atomic_load(&handle_generation);
    db->next = atomic_load(&handles);
    while (!atomic_compare_exchange_weak(&handles, &db->next, db)) continue;
    return db;
}

int engine_of(rw_db *db, engine **out)
{
    if (RW_UNLIKELY(db == NULL)) return rw_error(RW_EINVAL, "the database handle is NULL");
    engine *e = atomic_load_explicit(&db->engine, memory_order_acquire);
    if (RW_UNLIKELY(e == NULL)) return rw_error(RW_ECLOSED, "the database was closed");
    if (RW_UNLIKELY(handle_is_inherited(db)))
        return rw_error(RW_EFORK, "the database was opened by the parent process: a forked child must open it itself");
    *out = e;
    return 0;
}

/* The engine, taken out of its handle: the caller closes it. NULL: another thread was first. */
engine *handle_close(rw_db *db)
{
    return atomic_exchange(&db->engine, NULL);
}

void engine_fail(engine *e, int code, const char *reason)
{
    kio_mutex_lock(e->kio, &e->failure_mutex);
    if (atomic_load(&e->failure) == 0) {
        snprintf(e->failure_text, sizeof e->failure_text, "%s", reason);
        atomic_store(&e->failure, code);
        if (e->options.logger != NULL) e->options.logger(e->options.logger_arg, RW_LOG_ERROR, e->failure_text);
    }
    kio_mutex_unlock(e->kio, &e->failure_mutex);
}

int engine_write_allowed(engine *e)
{
    if (RW_UNLIKELY(e->read_only)) return rw_error(RW_EREADONLY, "%s: opened read-only", e->dir);
    if (RW_UNLIKELY(atomic_load_explicit(&e->failure, memory_order_relaxed) != 0)) {
        kio_mutex_lock(e->kio, &e->failure_mutex);
        rw_error(RW_EREADONLY, "%s: read-only since a failure: %s", e->dir, e->failure_text);
        kio_mutex_unlock(e->kio, &e->failure_mutex);
        return RW_EREADONLY;
    }
    return 0;
}

int engine_of_writer(rw_db *db, engine **out)
{
    int error = engine_of(db, out);
    return error != 0 ? error : engine_write_allowed(*out);
}
