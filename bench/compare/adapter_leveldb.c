/* LevelDB, through its C interface. */
#include <leveldb/c.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/compare/adapters.h"
#include "bench/compare/stripes.h"

typedef struct {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter;
    leveldb_readoptions_t *read;
    leveldb_writeoptions_t *write, *write_sync;
    compare_stripes *stripes;
} leveldb_engine;

typedef struct {
    leveldb_engine *engine;
    leveldb_writebatch_t *batch;
    char *value;                 /* what the last get returned, until it is released */
} leveldb_session;

/* Frees the words. */
static int leveldb_failure(char *words, const char *call)
{
    int code = rw_error(RW_EIO, "LevelDB: %s: %s", call, words);
    leveldb_free(words);
    return code;
}

static void leveldb_version(char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "%d.%d", leveldb_major_version(), leveldb_minor_version());
}

static void leveldb_describe(const compare_settings *settings, char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "block cache of %llu bytes, bloom filter of 10 bits, no compression, sync=%d", (unsigned long long)settings->cache_bytes,
             settings->durable ? 1 : 0);
}

static void engine_free(leveldb_engine *e)
{
    if (e->db != NULL) leveldb_close(e->db);
    leveldb_readoptions_destroy(e->read);
    leveldb_writeoptions_destroy(e->write);
    leveldb_writeoptions_destroy(e->write_sync);
    leveldb_options_destroy(e->options);
    leveldb_cache_destroy(e->cache);
    leveldb_filterpolicy_destroy(e->filter);
    compare_stripes_free(e->stripes);
    free(e);
}

static int leveldb_adapter_open(const compare_settings *settings, void **engine)
{
    leveldb_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return rw_error(RW_ENOMEM, "no memory");
    e->stripes = compare_stripes_new();
    e->cache = leveldb_cache_create_lru(settings->cache_bytes);
    e->filter = leveldb_filterpolicy_create_bloom(10);
    e->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(e->options, 1);
    leveldb_options_set_compression(e->options, leveldb_no_compression);
    leveldb_options_set_cache(e->options, e->cache);
    leveldb_options_set_filter_policy(e->options, e->filter);
    e->read = leveldb_readoptions_create();
    e->write = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(e->write, settings->durable);
    e->write_sync = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(e->write_sync, 1);
    char *error = NULL;
    e->db = leveldb_open(e->options, settings->directory, &error);
    if (error == NULL && e->stripes != NULL) {
        *engine = e;
        return 0;
    }
    engine_free(e);
    return error != NULL ? leveldb_failure(error, "open") : rw_error(RW_ENOMEM, "no memory");
}

static int leveldb_adapter_close(void *engine)
{
    engine_free(engine);
    return 0;
}

/* A synced write of nothing: the log before it is synced with it. */
static int leveldb_flush(void *engine)
{
    leveldb_engine *e = engine;
    char *error = NULL;
    leveldb_writebatch_t *batch = leveldb_writebatch_create();
    leveldb_write(e->db, e->write_sync, batch, &error);
    leveldb_writebatch_destroy(batch);
    return error == NULL ? 0 : leveldb_failure(error, "write");
}

static int leveldb_session_open(void *engine, void **session)
{
    leveldb_session *s = calloc(1, sizeof *s);
    if (s == NULL) return rw_error(RW_ENOMEM, "no memory");
    s->engine = engine;
    s->batch = leveldb_writebatch_create();
    *session = s;
    return 0;
}

static void leveldb_session_close(void *session)
{
    leveldb_session *s = session;
    leveldb_writebatch_destroy(s->batch);
    free(s);
}

static void leveldb_release(void *session)
{
    leveldb_session *s = session;
    leveldb_free(s->value);
    s->value = NULL;
}

static int leveldb_adapter_get(void *session, rw_slice key, rw_slice *value)
{
    leveldb_session *s = session;
    char *error = NULL;
    size_t size;
    s->value = leveldb_get(s->engine->db, s->engine->read, key.data, key.size, &size, &error);
    if (RW_UNLIKELY(error != NULL)) return leveldb_failure(error, "get");
    if (s->value == NULL) return RW_ENOTFOUND;
    *value = rw_slice_of(s->value, size);
    return 0;
}

static int leveldb_adapter_put(void *session, rw_slice key, rw_slice value)
{
    leveldb_session *s = session;
    char *error = NULL;
    leveldb_put(s->engine->db, s->engine->write, key.data, key.size, value.data, value.size, &error);
    return RW_LIKELY(error == NULL) ? 0 : leveldb_failure(error, "put");
}

static int leveldb_batch(void *session, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    leveldb_session *s = session;
    char *error = NULL;
    leveldb_writebatch_clear(s->batch);
    for (unsigned i = 0; i < count; i++) leveldb_writebatch_put(s->batch, keys[i].data, keys[i].size, values[i].data, values[i].size);
    leveldb_write(s->engine->db, s->engine->write, s->batch, &error);
    return error == NULL ? 0 : leveldb_failure(error, "write");
}

static int leveldb_scan(void *session, rw_slice key, compare_record_fn fn, void *arg)
{
    leveldb_session *s = session;
    leveldb_iterator_t *iterator = leveldb_create_iterator(s->engine->db, s->engine->read);
    char *error = NULL;
    if (key.size == 0) leveldb_iter_seek_to_first(iterator);
    else leveldb_iter_seek(iterator, key.data, key.size);
    for (; leveldb_iter_valid(iterator); leveldb_iter_next(iterator)) {
        rw_slice found, value;
        found.data = leveldb_iter_key(iterator, &found.size);
        value.data = leveldb_iter_value(iterator, &value.size);
        if (!fn(arg, found, value)) break;
    }
    leveldb_iter_get_error(iterator, &error);
    leveldb_iter_destroy(iterator);
    return error == NULL ? 0 : leveldb_failure(error, "iterator");
}

static int leveldb_modify(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    leveldb_session *s = session;
    pthread_mutex_t *lock = compare_stripes_of(s->engine->stripes, key);
    rw_slice present;
    pthread_mutex_lock(lock);
    int code = leveldb_adapter_get(session, key, &present);
    if (code == 0) {
        if (!fn(arg, key, present)) code = RW_ENOTFOUND;
        leveldb_release(session);
    }
    if (code == 0) code = leveldb_adapter_put(session, key, value);
    pthread_mutex_unlock(lock);
    return code;
}

const compare_adapter compare_leveldb = {
    .name = "leveldb",
    .title = "LevelDB",
    .async_words = "in the kernel's page cache: survives a kill; a power cut takes what the kernel had not written back",
    .durable_words = "log written and synced before the write returns (sync=1); commits share syncs",
    .memory_words = "the cache holds blocks of data; two memory tables of 4 MiB come on top, and the kernel's page cache, which nothing limits",
    .modify_words = "get and put under one of the program's locks",
    .version = leveldb_version,
    .describe = leveldb_describe,
    .open = leveldb_adapter_open,
    .close = leveldb_adapter_close,
    .flush = leveldb_flush,
    .session_open = leveldb_session_open,
    .session_close = leveldb_session_close,
    .get = leveldb_adapter_get,
    .release = leveldb_release,
    .put = leveldb_adapter_put,
    .batch = leveldb_batch,
    .scan = leveldb_scan,
    .modify = leveldb_modify,
};
