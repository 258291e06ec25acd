/* RocksDB, through its C interface, over the default column family. */
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/compare/adapters.h"
#include "bench/compare/stripes.h"

#define MULTI_GET_MAX 256u

typedef struct {
    rocksdb_t *db;
    rocksdb_column_family_handle_t *family;
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    compare_stripes *stripes;
} rocksdb_engine;

typedef struct {
    rocksdb_engine *engine;
    rocksdb_writebatch_t *batch;
    rocksdb_pinnableslice_t *pinned;  /* what the last get returned, until it is released */
    const char *datas[MULTI_GET_MAX];
    size_t sizes[MULTI_GET_MAX];
} rocksdb_session;

/* Frees the words. */
static int rocksdb_failure(char *words, const char *call)
{
    int code = rw_error(RW_EIO, "RocksDB: %s: %s", call, words);
    rocksdb_free(words);
    return code;
}

static void rocksdb_version(char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "%s", COMPARE_ROCKSDB_VERSION);
}

static void rocksdb_describe(const compare_settings *settings, char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "block_cache=%llu, bloom filter of 10 bits, compression=none, max_background_jobs=2, sync=%d%s",
             (unsigned long long)settings->cache_bytes, settings->durable ? 1 : 0,
             settings->direct ? ", use_direct_reads, use_direct_io_for_flush_and_compaction" : "");
}

static void engine_free(rocksdb_engine *e)
{
    if (e->family != NULL) rocksdb_column_family_handle_destroy(e->family);
    if (e->db != NULL) rocksdb_close(e->db);
    rocksdb_readoptions_destroy(e->read);
    rocksdb_writeoptions_destroy(e->write);
    rocksdb_options_destroy(e->options);
    rocksdb_cache_destroy(e->cache);
    compare_stripes_free(e->stripes);
    free(e);
}

static void engine_options(rocksdb_engine *e, const compare_settings *settings)
{
    e->cache = rocksdb_cache_create_lru(settings->cache_bytes);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, e->cache);
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
    e->options = rocksdb_options_create();
    rocksdb_options_set_block_based_table_factory(e->options, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_create_if_missing(e->options, 1);
    rocksdb_options_set_compression(e->options, rocksdb_no_compression);
    rocksdb_options_set_max_background_jobs(e->options, 2);
    rocksdb_options_set_use_direct_reads(e->options, settings->direct);
    rocksdb_options_set_use_direct_io_for_flush_and_compaction(e->options, settings->direct);
    e->read = rocksdb_readoptions_create();
    e->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(e->write, settings->durable);
}

static int rocksdb_adapter_open(const compare_settings *settings, void **engine)
{
    static const char *const families[] = {"default"};
    rocksdb_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return rw_error(RW_ENOMEM, "no memory");
    engine_options(e, settings);
    e->stripes = compare_stripes_new();
    const rocksdb_options_t *options[] = {e->options};
    char *error = NULL;
    e->db = rocksdb_open_column_families(e->options, settings->directory, 1, families, options, &e->family, &error);
    if (error == NULL && e->stripes != NULL) {
        *engine = e;
        return 0;
    }
    engine_free(e);
    return error != NULL ? rocksdb_failure(error, "open") : rw_error(RW_ENOMEM, "no memory");
}

static int rocksdb_adapter_close(void *engine)
{
    engine_free(engine);
    return 0;
}

static int rocksdb_adapter_flush(void *engine)
{
    rocksdb_engine *e = engine;
    char *error = NULL;
    rocksdb_flush_wal(e->db, 1, &error);
    return error == NULL ? 0 : rocksdb_failure(error, "flush_wal");
}

/* Compactions that follow go on in the background. */
static int rocksdb_settle(void *engine)
{
    rocksdb_engine *e = engine;
    char *error = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(options, 1);
    rocksdb_flush(e->db, options, &error);
    rocksdb_flushoptions_destroy(options);
    return error == NULL ? 0 : rocksdb_failure(error, "flush");
}

static int rocksdb_session_open(void *engine, void **session)
{
    rocksdb_session *s = calloc(1, sizeof *s);
    if (s == NULL) return rw_error(RW_ENOMEM, "no memory");
    s->engine = engine;
    s->batch = rocksdb_writebatch_create();
    *session = s;
    return 0;
}

static void rocksdb_session_close(void *session)
{
    rocksdb_session *s = session;
    rocksdb_writebatch_destroy(s->batch);
    free(s);
}

static void rocksdb_release(void *session)
{
    rocksdb_session *s = session;
    rocksdb_pinnableslice_destroy(s->pinned);
    s->pinned = NULL;
}

static int rocksdb_adapter_get(void *session, rw_slice key, rw_slice *value)
{
    rocksdb_session *s = session;
    char *error = NULL;
    s->pinned = rocksdb_get_pinned(s->engine->db, s->engine->read, key.data, key.size, &error);
    if (RW_UNLIKELY(error != NULL)) return rocksdb_failure(error, "get");
    if (s->pinned == NULL) return RW_ENOTFOUND;
    value->data = rocksdb_pinnableslice_value(s->pinned, &value->size);
    return 0;
}

static int rocksdb_adapter_put(void *session, rw_slice key, rw_slice value)
{
    rocksdb_session *s = session;
    char *error = NULL;
    rocksdb_put(s->engine->db, s->engine->write, key.data, key.size, value.data, value.size, &error);
    return RW_LIKELY(error == NULL) ? 0 : rocksdb_failure(error, "put");
}

static int rocksdb_batch(void *session, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    rocksdb_session *s = session;
    char *error = NULL;
    rocksdb_writebatch_clear(s->batch);
    for (unsigned i = 0; i < count; i++) rocksdb_writebatch_put(s->batch, keys[i].data, keys[i].size, values[i].data, values[i].size);
    rocksdb_write(s->engine->db, s->engine->write, s->batch, &error);
    return error == NULL ? 0 : rocksdb_failure(error, "write");
}

static int rocksdb_scan(void *session, rw_slice key, compare_record_fn fn, void *arg)
{
    rocksdb_session *s = session;
    rocksdb_iterator_t *iterator = rocksdb_create_iterator(s->engine->db, s->engine->read);
    char *error = NULL;
    if (key.size == 0) rocksdb_iter_seek_to_first(iterator);
    else rocksdb_iter_seek(iterator, key.data, key.size);
    for (; rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        rw_slice found, value;
        found.data = rocksdb_iter_key(iterator, &found.size);
        value.data = rocksdb_iter_value(iterator, &value.size);
        if (!fn(arg, found, value)) break;
    }
    rocksdb_iter_get_error(iterator, &error);
    rocksdb_iter_destroy(iterator);
    return error == NULL ? 0 : rocksdb_failure(error, "iterator");
}

static int rocksdb_modify(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    rocksdb_session *s = session;
    pthread_mutex_t *lock = compare_stripes_of(s->engine->stripes, key);
    rw_slice present;
    pthread_mutex_lock(lock);
    int code = rocksdb_adapter_get(session, key, &present);
    if (code == 0) {
        if (!fn(arg, key, present)) code = RW_ENOTFOUND;
        rocksdb_release(session);
    }
    if (code == 0) code = rocksdb_adapter_put(session, key, value);
    pthread_mutex_unlock(lock);
    return code;
}

static int rocksdb_adapter_multi_get(void *session, const rw_slice *keys, unsigned count, compare_record_fn fn, void *arg)
{
    rocksdb_session *s = session;
    rocksdb_pinnableslice_t *values[MULTI_GET_MAX];
    char *errors[MULTI_GET_MAX];
    RW_ASSERT(count <= MULTI_GET_MAX);
    for (unsigned i = 0; i < count; i++) {
        s->datas[i] = keys[i].data;
        s->sizes[i] = keys[i].size;
    }
    rocksdb_batched_multi_get_cf(s->engine->db, s->engine->read, s->engine->family, count, s->datas, s->sizes, values, errors, false);
    int code = 0;
    for (unsigned i = 0; i < count; i++) {
        if (errors[i] != NULL) code = rocksdb_failure(errors[i], "multi_get");
        if (values[i] == NULL) continue;
        rw_slice value;
        value.data = rocksdb_pinnableslice_value(values[i], &value.size);
        fn(arg, keys[i], value);
        rocksdb_pinnableslice_destroy(values[i]);
    }
    return code;
}

const compare_adapter compare_rocksdb = {
    .name = "rocksdb",
    .title = "RocksDB",
    .async_words = "in the kernel's page cache: survives a kill; a power cut takes what the kernel had not written back",
    .durable_words = "log written and synced before the write returns (sync=1); commits share syncs",
    .memory_words = "the cache holds blocks of data; up to two memory tables of 64 MiB, filters and indexes come on top",
    .modify_words = "get and put under one of the program's locks",
    .multi_get_words = "rocksdb_batched_multi_get_cf",
    .direct_possible = true,
    .version = rocksdb_version,
    .describe = rocksdb_describe,
    .open = rocksdb_adapter_open,
    .close = rocksdb_adapter_close,
    .flush = rocksdb_adapter_flush,
    .settle = rocksdb_settle,
    .session_open = rocksdb_session_open,
    .session_close = rocksdb_session_close,
    .get = rocksdb_adapter_get,
    .release = rocksdb_release,
    .put = rocksdb_adapter_put,
    .batch = rocksdb_batch,
    .scan = rocksdb_scan,
    .modify = rocksdb_modify,
    .multi_get = rocksdb_adapter_multi_get,
};
