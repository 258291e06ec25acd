/*
 * Queues: every kind of operation, alone and many at once, with everything in the cache and with a cache far smaller than the data; multi-get, which needs none.
 *
 * QUEUE_SEED=n replays the choices of the mixed run.
 */
#include <stdio.h>

#include "tests/api/queue_helpers.h"
#include "tests/support/prng.h"

#define RECORDS 20000u
#define DEPTH 128u
#define MIXED_ROUNDS 20000u

typedef struct {
    rw_db *db;
    rw_queue *q;
} bed;

/* ---- one of each kind -------------------------------------------------------------------------------------------- */

static void test_single_keys(bed *b)
{
    char buf[32];
    rw_op put = {.kind = RW_OP_PUT, .bucket = BUCKET, .key = slice_text("one"), .value = slice_text("1")};
    rw_op get = {.kind = RW_OP_GET, .bucket = BUCKET, .key = slice_text("one"), .buf = buf, .size = sizeof buf, .context = b};
    rw_op del = {.kind = RW_OP_DEL, .bucket = BUCKET, .key = slice_text("one"), .flags = RW_ASYNC};
    tap_ok(run_one(b->q, &put) == 0 && get_is_text(b->db, BUCKET, "one", "1"), "put");
    tap_ok(run_one(b->q, &get) == 0 && get.size == 1 && buf[0] == '1' && get.context == b, "get");
    get.size = 0;
    tap_ok(run_one(b->q, &get) == RW_ETOOSMALL && get.size == 1, "get with too little room says how much is needed");
    tap_ok(run_one(b->q, &del) == 0 && run_one(b->q, &del) == RW_ENOTFOUND, "del, and del of what is not there");
    get.size = sizeof buf;
    tap_ok(run_one(b->q, &get) == RW_ENOTFOUND && get.size == sizeof buf, "get of what is not there");
}

static void test_large_values(bed *b)
{
    size_t size = 3 << 20;
    unsigned char *value = malloc(size), *back = malloc(size);
    if (!TAP_CHECK(value != NULL && back != NULL)) return;
    for (size_t i = 0; i < size; i++) value[i] = (unsigned char)(i * 7 + i / 4096);
    rw_op put = {.kind = RW_OP_PUT, .bucket = BUCKET, .key = slice_text("large"), .value = slice_bytes(value, size)};
    rw_op get = {.kind = RW_OP_GET, .bucket = BUCKET, .key = slice_text("large"), .buf = back, .size = size};
    tap_ok(run_one(b->q, &put) == 0 && run_one(b->q, &get) == 0 && get.size == size && memcmp(value, back, size) == 0, "a value of 3 MiB");
    rw_op del = {.kind = RW_OP_DEL, .bucket = BUCKET, .key = slice_text("large")};
    CHECK_OK(run_one(b->q, &del));
    free(value);
    free(back);
}

static void test_commits(bed *b)
{
    rw_batch *batch;
    rw_txn *txn, *loser;
    CHECK_OK(rw_batch_new(b->db, &batch));
    CHECK_OK(rw_batch_put(batch, BUCKET, slice_text("b1"), slice_text("x")));
    CHECK_OK(rw_batch_put(batch, BUCKET, slice_text("b2"), slice_text("y")));
    rw_op op = {.kind = RW_OP_BATCH, .batch = batch};
    tap_ok(run_one(b->q, &op) == 0 && get_is_text(b->db, BUCKET, "b1", "x") && get_is_text(b->db, BUCKET, "b2", "y"), "a batch");
    tap_ok(run_one(b->q, &op) == 0, "which is empty then");
    rw_batch_free(batch);

    CHECK_OK(rw_txn_begin(b->db, RW_SNAPSHOT, &txn));
    CHECK_OK(rw_txn_begin(b->db, RW_SNAPSHOT, &loser));
    CHECK_OK(rw_txn_put(txn, BUCKET, slice_text("b1"), slice_text("z")));
    CHECK_OK(rw_txn_put(loser, BUCKET, slice_text("b1"), slice_text("w")));
    rw_op commit = {.kind = RW_OP_TXN, .txn = txn}, lose = {.kind = RW_OP_TXN, .txn = loser};
    tap_ok(run_one(b->q, &commit) == 0 && get_is_text(b->db, BUCKET, "b1", "z"), "a transaction's commit");
    tap_ok(run_one(b->q, &lose) == RW_ECONFLICT && get_is_text(b->db, BUCKET, "b1", "z"), "a commit that conflicts");
    tap_ok(rw_txn_commit(txn, 0) == RW_ECLOSED && rw_txn_commit(loser, 0) == RW_ECLOSED, "both transactions have ended");
    rw_op again = {.kind = RW_OP_TXN, .txn = txn};
    tap_ok(run_one(b->q, &again) == RW_ECLOSED, "a commit of one that has ended");
    CHECK_OK(del_text(b->db, BUCKET, "b1"));
    CHECK_OK(del_text(b->db, BUCKET, "b2"));
}

/* ---- scans ------------------------------------------------------------------------------------------------------- */

/* The records of a scan, as "key=value " one after the other. */
static const char *records_text(const rw_op *op, char *text, size_t room)
{
    size_t at = 0, used = 0, count = 0;
    rw_slice key, value;
    int code;
    text[0] = 0;
    for (; (code = rw_op_record(op, &at, &key, &value)) == 0; count++)
        used += (size_t)snprintf(text + used, room - used, "%.*s=%.*s ", (int)key.size, (const char *)key.data, (int)value.size, (const char *)value.data);
    TAP_CHECK(code == RW_ENOTFOUND && count == op->count);
    return text;
}

static bool scan_is(bed *b, rw_bucket bucket, const char *from, const char *end, size_t limit, size_t room, int result, unsigned more, const char *expected)
{
    char buf[256], text[512];
    rw_op op = {.kind = RW_OP_SCAN, .bucket = bucket, .key = slice_text(from), .end = slice_text(end), .count = limit, .buf = buf, .size = room};
    int code = run_one(b->q, &op);
    bool right = code == result && op.more == more && strcmp(records_text(&op, text, sizeof text), expected) == 0;
    if (!right) tap_diag("result %d, more %u, records: %s", code, op.more, text);
    return right;
}

static void test_scans(bed *b)
{
    rw_bucket bucket;
    CHECK_OK(rw_bucket_open(b->db, "scans", RW_CREATE, &bucket));
    tap_ok(scan_is(b, bucket, "", "", 0, 256, 0, 0, ""), "a scan of nothing");
    CHECK_OK(put_text(b->db, bucket, "a", "1"));
    CHECK_OK(put_text(b->db, bucket, "b", "2"));
    CHECK_OK(put_text(b->db, bucket, "c", ""));
    CHECK_OK(put_text(b->db, bucket, "d", "4"));
    tap_ok(scan_is(b, bucket, "", "", 0, 256, 0, 0, "a=1 b=2 c= d=4 "), "a scan of a bucket");
    tap_ok(scan_is(b, bucket, "b", "d", 0, 256, 0, 0, "b=2 c= "), "between bounds");
    tap_ok(scan_is(b, bucket, "", "", 3, 256, 0, 1, "a=1 b=2 c= ") && scan_is(b, bucket, "", "", 4, 256, 0, 0, "a=1 b=2 c= d=4 "), "of so many, and whether there are more");
    tap_ok(scan_is(b, bucket, "", "", 0, 25, 0, 1, "a=1 b=2 "), "as much as there is room for");
    tap_ok(scan_is(b, bucket, "", "", 0, 5, RW_ETOOSMALL, 1, ""), "no room for the first one");
    tap_ok(scan_is(b, bucket, "x", "", 0, 256, 0, 0, "") && scan_is(b, bucket, "d", "b", 0, 256, 0, 0, ""), "behind the last, and backwards");
    CHECK_OK(rw_bucket_drop(b->db, bucket));
}

/* ---- several keys ------------------------------------------------------------------------------------------------ */

#define ITEMS 300u

/* Half of them absent, some twice, by rw_multi_get or by an operation. */
static bool items_right(bed *b, bool queued)
{
    static unsigned char keys[ITEMS][QUEUE_KEY_SIZE], values[ITEMS][QUEUE_VALUE_SIZE];
    rw_get_item items[ITEMS];
    rw_op op = {.kind = RW_OP_MULTI_GET, .bucket = BUCKET, .items = items, .count = ITEMS};
    unsigned wrong = 0;
    for (unsigned i = 0; i < ITEMS; i++) {
        numbered_key(i % 2 == 0 ? i * 97 % RECORDS : RECORDS + i, keys[i]);
        items[i] = (rw_get_item){.key = slice_bytes(keys[i], QUEUE_KEY_SIZE), .buf = values[i], .size = i % 10 == 0 ? 8 : QUEUE_VALUE_SIZE, .result = 77};
    }
    int code = queued ? run_one(b->q, &op) : rw_multi_get(b->db, BUCKET, items, ITEMS);
    for (unsigned i = 0; i < ITEMS; i++) {
        int expected = i % 2 != 0 ? RW_ENOTFOUND : i % 10 == 0 ? RW_ETOOSMALL : 0;
        bool size_right = i % 2 != 0 || items[i].size == QUEUE_VALUE_SIZE;
        wrong += items[i].result != expected || !size_right || (expected == 0 && !value_is(values[i], items[i].size, i * 97 % RECORDS, 0));
    }
    return code == 0 && wrong == 0;
}

static void test_multi_get(bed *b)
{
    tap_ok(items_right(b, false), "rw_multi_get of %u keys", ITEMS);
    tap_ok(items_right(b, true), "the same as an operation");
    rw_get_item item = {.key = NO_KEY, .result = 77};
    rw_op op = {.kind = RW_OP_MULTI_GET, .bucket = BUCKET, .items = &item, .count = 1};
    tap_ok(rw_multi_get(b->db, BUCKET, &item, 1) == RW_EINVAL && run_one(b->q, &op) == RW_EINVAL && item.result == 77, "an empty key among the items");
    tap_ok(rw_multi_get(b->db, BUCKET, NULL, 0) == 0 && rw_multi_get(b->db, BUCKET, NULL, 1) == RW_EINVAL && rw_multi_get(b->db, 99, &item, 0) == RW_ENOTFOUND,
           "no items, NULL, no such bucket");
}

/* ---- many at once ------------------------------------------------------------------------------------------------ */

/* An operation of the mixed run, on a number that no other one under way is on. */
typedef struct {
    rw_op op;
    uint64_t number, generation;
    unsigned char key[QUEUE_KEY_SIZE], value[QUEUE_VALUE_SIZE], back[QUEUE_VALUE_SIZE];
} mixed_op;

typedef struct {
    uint64_t generation;           /* of the value; UINT64_MAX: it is deleted */
    bool under_way;
} mixed_record;

static mixed_record *records;

static void mixed_draw(mixed_op *m, prng *random)
{
    do m->number = prng_below(random, RECORDS);
    while (records[m->number].under_way);
    mixed_record *record = &records[m->number];
    uint64_t choice = prng_below(random, 10);
    record->under_way = true;
    numbered_key(m->number, m->key);
    m->op = (rw_op){.kind = choice < 6 ? RW_OP_GET : choice < 9 ? RW_OP_PUT : RW_OP_DEL,
                    .bucket = BUCKET,
                    .key = slice_bytes(m->key, sizeof m->key),
                    .flags = choice == 6 ? RW_SYNC : RW_ASYNC,
                    .buf = m->back,
                    .size = sizeof m->back};
    if (m->op.kind == RW_OP_GET) m->op.flags = 0;
    m->generation = record->generation + 1;
    numbered_value(m->number, m->generation, m->value);
    m->op.value = slice_bytes(m->value, sizeof m->value);
}

static bool mixed_right(mixed_op *m)
{
    mixed_record *record = &records[m->number];
    bool present = record->generation != UINT64_MAX, right = m->op.result == 0;
    record->under_way = false;
    switch (m->op.kind) {
    case RW_OP_GET: return m->op.result == (present ? 0 : RW_ENOTFOUND) && (!present || value_is(m->back, m->op.size, m->number, record->generation));
    case RW_OP_PUT: record->generation = m->generation; return right;
    default: record->generation = UINT64_MAX; return m->op.result == (present ? 0 : RW_ENOTFOUND);
    }
}

static void test_mixed(bed *b, const char *what)
{
    uint64_t seed = number_from("QUEUE_SEED", 1);
    prng random;
    mixed_op *ops = calloc(DEPTH, sizeof *ops);
    rw_op *list[DEPTH];
    unsigned idle = DEPTH, wrong = 0;
    uint64_t begun = 0, ended = 0;
    records = calloc(RECORDS, sizeof *records);
    if (!TAP_CHECK(ops != NULL && records != NULL)) return;
    random = (prng){.state = seed};
    for (unsigned i = 0; i < DEPTH; i++) list[i] = &ops[i].op;
    while ((begun < MIXED_ROUNDS || ended < begun) && wrong == 0) {
        unsigned some = begun < MIXED_ROUNDS ? (unsigned)prng_below(&random, idle + 1) : 0;
        for (unsigned i = 0; i < some; i++) mixed_draw((mixed_op *)(void *)list[idle - some + i], &random);
        if (!CHECK_OK(rw_submit(b->q, list + idle - some, some))) break;
        begun += some;
        idle -= some;
        int got = rw_reap(b->q, list + idle, begun - ended > 0 ? 1 : 0, DEPTH - idle, -1);
        for (int i = 0; i < got; i++) wrong += !mixed_right((mixed_op *)(void *)list[idle + (unsigned)i]);
        if (!TAP_CHECK(got >= 0)) break;
        idle += (unsigned)got;
        ended += (uint64_t)got;
    }
    if (!tap_ok(wrong == 0 && ended == begun && idle == DEPTH, "%llu gets, puts and dels, up to %u at once, %s", (unsigned long long)ended, DEPTH, what))
        tap_diag("replay: QUEUE_SEED=%llu; wrong: %u", (unsigned long long)seed, wrong);
    unsigned lost = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        unsigned char key[QUEUE_KEY_SIZE], value[QUEUE_VALUE_SIZE];
        numbered_key(i, key);
        numbered_value(i, records[i].generation, value);
        rw_slice name = slice_bytes(key, sizeof key);
        lost += records[i].generation == UINT64_MAX ? get_code(b->db, BUCKET, name) != RW_ENOTFOUND : !get_is(b->db, BUCKET, name, slice_bytes(value, sizeof value));
    }
    tap_ok(lost == 0, "and every record is as they left it: %u are not", lost);
    free(ops);
    free(records);
}

static void test_with(uint64_t cache_bytes, const char *backend, const char *what)
{
    char dir[DIRS_PATH_MAX];
    bed b;
    rw_stats_t stats;
    rw_options options = options_small();
    options.cache_bytes = cache_bytes;
    options.io_backend = backend;
    tap_diag("%s", what);
    if (!dir_make(dir, "queue")) return;
    b.db = open_or_exit(dir, &options);
    fill_numbered(b.db, RECORDS);
    if (CHECK_OK(rw_queue_open(b.db, DEPTH, &b.q))) {
        test_single_keys(&b);
        test_large_values(&b);
        test_commits(&b);
        test_scans(&b);
        test_multi_get(&b);
        test_mixed(&b, what);
        tap_ok(rw_close(b.db) == RW_EBUSY, "a database with an open queue is not closed");
        CHECK_OK(rw_queue_close(b.q));
    }
    CHECK_OK(rw_stats(b.db, &stats));
    if (cache_bytes < 8 * MIB) tap_ok(stats.page_reads > RECORDS / 2, "most operations had to wait for a page: %llu reads", (unsigned long long)stats.page_reads);
    CHECK_OK(rw_close(b.db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

int main(void)
{
    test_with(64 * MIB, "auto", "with everything in the cache");
    test_with(2 * MIB, "auto", "with a cache smaller than the data");
    test_with(2 * MIB, "psync", "with a cache smaller than the data, without io_uring");
    return tap_done();
}
