/*
 * What instructions.t counts under callgrind: each of the library's frequent operations, many times over, on a database that lies in the cache. Between two client
 * requests nothing is done but calls of the library: keys are made and drawn beforehand. Argument: a directory for the database. For each
 * operation a line on stdout: its name, and how often it was done.
 *
 * Collecting is switched for the calling thread alone, so what the library's own threads do is not counted. They have nothing to do anyway: everything is in the
 * cache, nothing is durable when it returns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

#include "ringwood.h"
#include "tests/support/prng.h"

enum { RECORDS = 30000, KEY_SIZE = 16, VALUE_SIZE = 100, GETS = 20000, MULTI_GETS = 64, PUTS = 5000, SCANS = 200, SCAN_ROWS = 100, TXNS = 2000, QUEUED = 64,
       BATCHES = 50, BATCH_PUTS = 100, LARGE_BATCHES = 5, LARGE_BATCH_PUTS = 1000, INSERTS = 5000, DELETES = 5000 };

static unsigned char keys[RECORDS][KEY_SIZE], absent[RECORDS][KEY_SIZE];
static unsigned char values[RECORDS][VALUE_SIZE];
static unsigned drawn[GETS];
static rw_db *db;

static void must(int code, const char *what)
{
    if (code >= 0) return;
    fprintf(stderr, "%s: %s: %s\n", what, rw_strerror(code), rw_last_error(db));
    exit(1);
}

static void must_be(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static rw_slice slice(const void *data, size_t size)
{
    return (rw_slice){data, size};
}

static rw_slice drawn_key(unsigned i)
{
    return slice(keys[drawn[i]], KEY_SIZE);
}

/* Macros, since they expand to the instructions that valgrind looks for, with a name that is a literal. */
#define COUNT_BEGIN() CALLGRIND_TOGGLE_COLLECT
#define COUNT_PAUSE() CALLGRIND_TOGGLE_COLLECT
#define COUNT_REPORT(name, operations)              \
    do {                                            \
        CALLGRIND_DUMP_STATS_AT(name);              \
        printf("%s %u\n", name, (unsigned)(operations)); \
    } while (0)

/* Keys without an order that the numbers have; those of absent records lie between them. */
static void data_make(void)
{
    prng random = {2024};
    for (unsigned i = 0; i < RECORDS; i++) {
        prng_fill(&random, keys[i], KEY_SIZE);
        prng_fill(&random, values[i], VALUE_SIZE);
        keys[i][KEY_SIZE - 1] &= 0xfe;
        memcpy(absent[i], keys[i], KEY_SIZE);
        absent[i][KEY_SIZE - 1] |= 1;
    }
    for (unsigned i = 0; i < GETS; i++) drawn[i] = (unsigned)prng_below(&random, RECORDS);
}

static void database_open(const char *directory)
{
    rw_options options;
    rw_options_init(&options);
    options.cache_bytes = (uint64_t)64 << 20;
    options.workers = 1;
    options.io_backend = "psync"; /* valgrind lets no other thread run while one waits in io_uring_enter */
    options.async_delay_ms = 60000; /* no sync comes between */
    must(rw_open(directory, &options, &db), "rw_open");
}

/* Every record is read once, too: what a first read leaves behind for later ones is there when counting begins. */
static void database_load(void)
{
    unsigned char value[VALUE_SIZE];
    for (unsigned i = 0; i < RECORDS; i++) must(rw_put(db, RW_DEFAULT_BUCKET, slice(keys[i], KEY_SIZE), slice(values[i], VALUE_SIZE), RW_ASYNC), "load");
    must(rw_checkpoint(db), "rw_checkpoint");
    for (unsigned i = 0; i < RECORDS; i++) {
        size_t size = sizeof value;
        must(rw_get(db, RW_DEFAULT_BUCKET, slice(keys[i], KEY_SIZE), value, &size), "reading all after the load");
        must_be(size == VALUE_SIZE && memcmp(value, values[i], VALUE_SIZE) == 0, "a record has a wrong value after the load");
    }
}

static void count_gets(void)
{
    unsigned char value[VALUE_SIZE];
    unsigned found = 0;
    COUNT_BEGIN();
    for (unsigned i = 0; i < GETS; i++) {
        size_t size = sizeof value;
        found += rw_get(db, RW_DEFAULT_BUCKET, drawn_key(i), value, &size) == 0;
    }
    COUNT_PAUSE();
    COUNT_REPORT("get", GETS);
    must_be(found == GETS, "a get missed a record");
}

static void count_absent(void)
{
    unsigned char value[VALUE_SIZE];
    unsigned missed = 0;
    COUNT_BEGIN();
    for (unsigned i = 0; i < GETS; i++) {
        size_t size = sizeof value;
        missed += rw_get(db, RW_DEFAULT_BUCKET, slice(absent[drawn[i]], KEY_SIZE), value, &size) == RW_ENOTFOUND;
    }
    COUNT_PAUSE();
    COUNT_REPORT("get-absent", GETS);
    must_be(missed == GETS, "a get found what was never written");
}

static void count_multi_gets(void)
{
    static rw_get_item items[MULTI_GETS];
    static unsigned char found[MULTI_GETS][VALUE_SIZE];
    unsigned calls = GETS / MULTI_GETS, right = 0;
    for (unsigned call = 0; call < calls; call++) {
        for (unsigned i = 0; i < MULTI_GETS; i++)
            items[i] = (rw_get_item){.key = drawn_key(call * MULTI_GETS + i), .buf = found[i], .size = VALUE_SIZE};
        COUNT_BEGIN();
        right += rw_multi_get(db, RW_DEFAULT_BUCKET, items, MULTI_GETS) == 0;
        COUNT_PAUSE();
        for (unsigned i = 0; i < MULTI_GETS; i++) must_be(items[i].result == 0, "a multi-get missed a record");
    }
    COUNT_REPORT("multi-get-record", calls * MULTI_GETS);
    must_be(right == calls, "a multi-get failed");
}

static void count_queued_gets(void)
{
    static rw_op ops[QUEUED], *list[QUEUED], *done[QUEUED];
    static unsigned char found[QUEUED][VALUE_SIZE];
    rw_queue *queue;
    unsigned rounds = GETS / QUEUED, right = 0;
    must(rw_queue_open(db, QUEUED, &queue), "rw_queue_open");
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < QUEUED; i++) {
            ops[i] = (rw_op){.kind = RW_OP_GET, .bucket = RW_DEFAULT_BUCKET, .key = drawn_key(round * QUEUED + i), .buf = found[i], .size = VALUE_SIZE};
            list[i] = &ops[i];
        }
        COUNT_BEGIN();
        must(rw_submit(queue, list, QUEUED), "rw_submit");
        int reaped = rw_reap(queue, done, QUEUED, QUEUED, -1);
        COUNT_PAUSE();
        must_be(reaped == QUEUED, "rw_reap");
        for (unsigned i = 0; i < QUEUED; i++) right += ops[i].result == 0;
    }
    COUNT_REPORT("queued-get", rounds * QUEUED);
    must_be(right == rounds * QUEUED, "a get of a queue missed a record");
    must(rw_queue_close(queue), "rw_queue_close");
}

static void count_scans(void)
{
    rw_cursor *cursor;
    rw_slice key, value;
    unsigned rows = 0;
    COUNT_BEGIN();
    for (unsigned i = 0; i < SCANS; i++) {
        must(rw_cursor_open(db, NULL, RW_DEFAULT_BUCKET, &cursor), "rw_cursor_open");
        int code = rw_cursor_seek(cursor, drawn_key(i));
        for (unsigned row = 0; row < SCAN_ROWS && code == 0; row++, rows++, code = rw_cursor_next(cursor)) {
            must(rw_cursor_key(cursor, &key), "rw_cursor_key");
            must(rw_cursor_value(cursor, &value), "rw_cursor_value");
        }
        rw_cursor_close(cursor);
    }
    COUNT_PAUSE();
    COUNT_REPORT("scan-row", rows);
    must_be(rows > SCANS * SCAN_ROWS * 9 / 10, "scans met too few records");
}

static void count_puts(void)
{
    unsigned done = 0;
    COUNT_BEGIN();
    for (unsigned i = 0; i < PUTS; i++) done += rw_put(db, RW_DEFAULT_BUCKET, drawn_key(i), slice(values[i], VALUE_SIZE), RW_ASYNC) == 0;
    COUNT_PAUSE();
    COUNT_REPORT("put-async", PUTS);
    must_be(done == PUTS, "a put failed");
}

/* One get, one put of the same key. */
static void count_txns(void)
{
    unsigned char value[VALUE_SIZE];
    unsigned done = 0;
    COUNT_BEGIN();
    for (unsigned i = 0; i < TXNS; i++) {
        rw_txn *txn;
        size_t size = sizeof value;
        must(rw_txn_begin(db, RW_SNAPSHOT, &txn), "rw_txn_begin");
        must(rw_txn_get(txn, RW_DEFAULT_BUCKET, drawn_key(i), value, &size), "rw_txn_get");
        must(rw_txn_put(txn, RW_DEFAULT_BUCKET, drawn_key(i), slice(values[i], VALUE_SIZE)), "rw_txn_put");
        done += rw_txn_commit(txn, RW_ASYNC) == 0;
    }
    COUNT_PAUSE();
    COUNT_REPORT("txn-get-put", TXNS);
    must_be(done == TXNS, "a transaction did not commit");
}

/* fresh: of new keys, otherwise of such as are drawn from all records. */
static void count_batches(const char *name, unsigned batches, unsigned puts, int fresh)
{
    rw_batch *batch;
    unsigned done = 0;
    must(rw_batch_new(db, &batch), "rw_batch_new");
    COUNT_BEGIN();
    for (unsigned i = 0; i < batches; i++) {
        for (unsigned put = 0; put < puts; put++) {
            unsigned at = i * puts + put;
            must(rw_batch_put(batch, RW_DEFAULT_BUCKET, fresh ? slice(absent[INSERTS + at], KEY_SIZE) : drawn_key(at), slice(values[i + put], VALUE_SIZE)), "rw_batch_put");
        }
        done += rw_batch_commit(batch, RW_ASYNC) == 0;
    }
    COUNT_PAUSE();
    COUNT_REPORT(name, batches * puts);
    must_be(done == batches, "a batch did not commit");
    rw_batch_free(batch);
}

static void count_inserts(void)
{
    unsigned done = 0;
    COUNT_BEGIN();
    for (unsigned i = 0; i < INSERTS; i++) done += rw_put(db, RW_DEFAULT_BUCKET, slice(absent[i], KEY_SIZE), slice(values[i], VALUE_SIZE), RW_ASYNC) == 0;
    COUNT_PAUSE();
    COUNT_REPORT("insert-async", INSERTS);
    must_be(done == INSERTS, "an insert failed");
}

static void count_deletes(void)
{
    unsigned done = 0;
    COUNT_BEGIN();
    for (unsigned i = 0; i < DELETES; i++) done += rw_del(db, RW_DEFAULT_BUCKET, slice(keys[i], KEY_SIZE), RW_ASYNC) == 0;
    COUNT_PAUSE();
    COUNT_REPORT("delete-async", DELETES);
    must_be(done == DELETES, "a delete failed");
}

int main(int argc, char **argv)
{
    must_be(argc == 2, "usage: instructions DIRECTORY");
    data_make();
    database_open(argv[1]);
    database_load();
    CALLGRIND_START_INSTRUMENTATION;
    count_gets();
    count_absent();
    count_multi_gets();
    count_queued_gets();
    count_scans();
    count_puts();
    count_txns();
    count_batches("batch-put-record", BATCHES, BATCH_PUTS, 0);
    count_batches("large-batch-record", LARGE_BATCHES, LARGE_BATCH_PUTS, 0);
    count_inserts();
    count_batches("batch-insert-record", BATCHES, BATCH_PUTS, 1);
    count_deletes();
    CALLGRIND_STOP_INSTRUMENTATION;
    must(rw_close(db), "rw_close");
    return 0;
}
