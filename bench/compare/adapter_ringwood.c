/* ringwood, through its public interface. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/compare/adapters.h"
#include "bench/compare/plan.h"
#include "ringwood.h"

typedef struct {
    rw_db *db;
    unsigned flags;              /* of a write */
    size_t value_size;
    unsigned in_flight;
} ringwood_engine;

typedef struct {
    ringwood_engine *engine;
    rw_batch *batch;
    unsigned char *buffer;       /* COMPARE_MULTI_GETS values */
    size_t room;                 /* for each */
    rw_get_item items[COMPARE_MULTI_GETS];
    rw_queue *queue;             /* opened by the first submit, with what follows: in_flight of each */
    rw_op *ops, **list;
    unsigned char *answers;
} ringwood_session;

static void ringwood_version(char text[COMPARE_TEXT])
{
    snprintf(text, COMPARE_TEXT, "%d.%d.%d", RW_VERSION_MAJOR, RW_VERSION_MINOR, RW_VERSION_PATCH);
}

/* For data that is larger than the cache: as long as the cache is large, so that writes which wait for their pages are made because memory, not the log, is full. */
static uint64_t log_bytes(const compare_settings *settings)
{
    return settings->cache_bytes;
}

static void ringwood_describe(const compare_settings *settings, char text[COMPARE_TEXT])
{
    int used = snprintf(text, COMPARE_TEXT, "cache=%llu; writes with %s", (unsigned long long)settings->cache_bytes, settings->durable ? "RW_SYNC" : "RW_ASYNC");
    if (settings->direct) snprintf(text + used, COMPARE_TEXT - (size_t)used, "; log=%llu", (unsigned long long)log_bytes(settings));
}

static int ringwood_open(const compare_settings *settings, void **engine)
{
    ringwood_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return rw_error(RW_ENOMEM, "no memory");
    rw_options options;
    rw_options_init(&options);
    options.cache_bytes = settings->cache_bytes;
    if (settings->direct) options.log_bytes = log_bytes(settings);
    e->flags = settings->durable ? RW_SYNC : RW_ASYNC;
    e->value_size = settings->value_size;
    e->in_flight = settings->in_flight;
    int code = rw_open(settings->directory, &options, &e->db);
    if (code == 0) *engine = e;
    else free(e);
    return code;
}

static int ringwood_close(void *engine)
{
    ringwood_engine *e = engine;
    int code = rw_close(e->db);
    free(e);
    return code;
}

static void ringwood_sync_way(void *engine, char text[COMPARE_TEXT])
{
    ringwood_engine *e = engine;
    rw_stats_t stats;
    if (rw_stats(e->db, &stats) != 0) return;
    snprintf(text, COMPARE_TEXT, "%s (measured: write and fdatasync %.0f us, RWF_DSYNC %.0f us)", stats.log_sync, (double)stats.log_fdatasync_ns / 1000,
             (double)stats.log_dsync_ns / 1000);
}

static int ringwood_flush(void *engine)
{
    ringwood_engine *e = engine;
    return rw_flush(e->db);
}

static int ringwood_settle(void *engine)
{
    ringwood_engine *e = engine;
    return rw_checkpoint(e->db);
}

static void ringwood_session_close(void *session)
{
    ringwood_session *s = session;
    if (s->queue != NULL) rw_queue_close(s->queue);
    free(s->ops);
    free(s->list);
    free(s->answers);
    if (s->batch != NULL) rw_batch_free(s->batch);
    free(s->buffer);
    free(s);
}

static int ringwood_session_open(void *engine, void **session)
{
    ringwood_session *s = calloc(1, sizeof *s);
    if (s == NULL) return rw_error(RW_ENOMEM, "no memory");
    s->engine = engine;
    s->room = s->engine->value_size + 1; /* so that a value that is too long does not pass */
    s->buffer = malloc(COMPARE_MULTI_GETS * s->room);
    int code = s->buffer == NULL ? rw_error(RW_ENOMEM, "no memory") : rw_batch_new(s->engine->db, &s->batch);
    if (code == 0) *session = s;
    else ringwood_session_close(s);
    return code;
}

static int ringwood_get(void *session, rw_slice key, rw_slice *value)
{
    ringwood_session *s = session;
    size_t size = s->room;
    int code = rw_get(s->engine->db, RW_DEFAULT_BUCKET, key, s->buffer, &size);
    if (RW_LIKELY(code == 0)) *value = (rw_slice){s->buffer, size};
    return code;
}

static int ringwood_multi_get(void *session, const rw_slice *keys, unsigned count, compare_record_fn fn, void *arg)
{
    ringwood_session *s = session;
    RW_ASSERT(count <= COMPARE_MULTI_GETS);
    for (unsigned i = 0; i < count; i++) s->items[i] = (rw_get_item){.key = keys[i], .buf = s->buffer + i * s->room, .size = s->room};
    int code = rw_multi_get(s->engine->db, RW_DEFAULT_BUCKET, s->items, count);
    for (unsigned i = 0; i < count && code == 0; i++) {
        if (s->items[i].result == RW_ENOTFOUND) continue;
        if (s->items[i].result != 0) return s->items[i].result;
        if (!fn(arg, keys[i], (rw_slice){s->items[i].buf, s->items[i].size})) break;
    }
    return code;
}

static int queue_prepare(ringwood_session *s)
{
    unsigned depth = s->engine->in_flight;
    s->ops = calloc(depth, sizeof *s->ops);
    s->list = calloc(depth, sizeof(rw_op *));
    s->answers = malloc(depth * s->room);
    if (s->ops == NULL || s->list == NULL || s->answers == NULL) return rw_error(RW_ENOMEM, "no memory for %u operations", depth);
    return rw_queue_open(s->engine->db, depth, &s->queue);
}

static int ringwood_submit(void *session, compare_request **requests, unsigned count)
{
    ringwood_session *s = session;
    int code = RW_LIKELY(s->queue != NULL) ? 0 : queue_prepare(s);
    for (unsigned i = 0; i < count && code == 0; i++) {
        compare_request *r = requests[i];
        rw_op *op = s->list[i] = &s->ops[r->slot];
        *op = (rw_op){.kind = r->put ? RW_OP_PUT : RW_OP_GET, .bucket = RW_DEFAULT_BUCKET, .key = r->key, .context = r};
        if (r->put) op->value = r->value, op->flags = s->engine->flags;
        else op->buf = s->answers + r->slot * s->room, op->size = s->room;
    }
    return code == 0 ? rw_submit(s->queue, s->list, count) : code;
}

static int ringwood_reap(void *session, compare_request **ended, unsigned max, int64_t timeout_ns)
{
    ringwood_session *s = session;
    int count = rw_reap(s->queue, s->list, 1, max, timeout_ns);
    for (int i = 0; i < count; i++) {
        const rw_op *op = s->list[i];
        ended[i] = op->context;
        ended[i]->code = op->result;
        if (op->kind == RW_OP_GET && op->result == 0) ended[i]->value = (rw_slice){op->buf, op->size};
    }
    return count;
}

static int ringwood_reads(void *engine, uint64_t *count)
{
    ringwood_engine *e = engine;
    rw_stats_t stats;
    int code = rw_stats(e->db, &stats);
    if (code == 0) *count = stats.page_reads;
    return code;
}

static int ringwood_put(void *session, rw_slice key, rw_slice value)
{
    ringwood_session *s = session;
    return rw_put(s->engine->db, RW_DEFAULT_BUCKET, key, value, s->engine->flags);
}

static int ringwood_batch(void *session, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    ringwood_session *s = session;
    int code = 0;
    for (unsigned i = 0; i < count && code == 0; i++) code = rw_batch_put(s->batch, RW_DEFAULT_BUCKET, keys[i], values[i]);
    return code == 0 ? rw_batch_commit(s->batch, s->engine->flags) : code;
}

static int ringwood_scan(void *session, rw_slice key, compare_record_fn fn, void *arg)
{
    ringwood_session *s = session;
    rw_cursor *cursor;
    int code = rw_cursor_open(s->engine->db, NULL, RW_DEFAULT_BUCKET, &cursor);
    if (code != 0) return code;
    for (code = rw_cursor_seek(cursor, key); code == 0; code = rw_cursor_next(cursor)) {
        rw_slice found, value;
        code = rw_cursor_key(cursor, &found);
        if (code == 0) code = rw_cursor_value(cursor, &value);
        if (code != 0 || !fn(arg, found, value)) break;
    }
    rw_cursor_close(cursor);
    return code == RW_ENOTFOUND ? 0 : code;
}

static int modify_once(ringwood_session *s, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    rw_txn *txn;
    size_t size = s->room;
    int code = rw_txn_begin(s->engine->db, RW_SNAPSHOT, &txn);
    if (code != 0) return code;
    code = rw_txn_get(txn, RW_DEFAULT_BUCKET, key, s->buffer, &size);
    if (code == 0 && !fn(arg, key, (rw_slice){s->buffer, size})) code = RW_ENOTFOUND;
    if (code == 0) code = rw_txn_put(txn, RW_DEFAULT_BUCKET, key, value);
    if (code == 0) return rw_txn_commit(txn, s->engine->flags);
    rw_txn_abort(txn);
    return code;
}

static int ringwood_modify(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    int code;
    do code = modify_once(session, key, value, fn, arg);
    while (code == RW_ECONFLICT || code == RW_ESNAPSHOT_TOO_OLD);
    return code;
}

const compare_adapter compare_ringwood = {
    .name = "ringwood",
    .title = "ringwood",
    .async_words = "in the log, on stable storage within 50 ms; a kill or a power cut before that may take it",
    .durable_words = "log written with direct I/O and made durable before the write returns, by fdatasync or by writes with RWF_DSYNC, whichever is faster on the device; commits share that",
    .memory_words = "the cache is one limit over pages, staging, old values and locks",
    .modify_words = "snapshot transaction, begun again after a conflict",
    .multi_get_words = "rw_multi_get",
    .in_flight_words = "rw_submit, rw_reap",
    .direct_possible = true,
    .version = ringwood_version,
    .describe = ringwood_describe,
    .open = ringwood_open,
    .close = ringwood_close,
    .sync_way = ringwood_sync_way,
    .flush = ringwood_flush,
    .settle = ringwood_settle,
    .session_open = ringwood_session_open,
    .session_close = ringwood_session_close,
    .get = ringwood_get,
    .put = ringwood_put,
    .batch = ringwood_batch,
    .scan = ringwood_scan,
    .modify = ringwood_modify,
    .multi_get = ringwood_multi_get,
    .submit = ringwood_submit,
    .reap = ringwood_reap,
    .reads = ringwood_reads,
};
