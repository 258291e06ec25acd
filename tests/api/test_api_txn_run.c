/* What is repeated until it goes through, and what needs no repeating: rw_txn_run; counters counted up in every way; rw_cas and rw_add. */
#include <sched.h>
#include <unistd.h>

#include "tests/api/txn_helpers.h"

/* rw_txn_run. */
typedef struct {
    rw_db *db;
    int calls;
    int until;                /* conflicts before this call */
    int returns;
} repeat;

static int repeat_own(rw_txn *txn, void *arg)
{
    repeat *r = arg;
    char value[24];
    snprintf(value, sizeof(value), "call %d", ++r->calls);
    int code = txn_put_text(txn, "run", value);
    return code != 0 ? code : r->calls < r->until ? RW_ECONFLICT : r->returns;
}

/* Makes the commit conflict, by a single write behind the transaction's back. */
static int repeat_commit(rw_txn *txn, void *arg)
{
    repeat *r = arg;
    int64_t number = 0;
    int code = txn_get_number(txn, BUCKET, "run count", &number);
    if (code == 0 && ++r->calls < r->until) code = put_number(r->db, BUCKET, "run count", number + 100);
    return code != 0 ? code : txn_put_number(txn, BUCKET, "run count", number + 1);
}

static int repeat_for_ever(void *arg)
{
    repeat *r = arg;
    return rw_txn_run(r->db, RW_ASYNC, repeat_own, r);
}

static void test_run(rw_db *db)
{
    bool good = true;
    for (size_t m = 0; m < TXN_MODES_WRITING; m++) {
        repeat r = {.db = db, .until = 5};
        good = CHECK_OK(rw_txn_run(db, txn_modes[m] | RW_ASYNC, repeat_own, &r)) && TAP_CHECK(r.calls == 5) && good;
        good = TAP_CHECK(get_is_text(db, BUCKET, "run", "call 5")) && good;
        static const int ends[] = {1, 4711, RW_ENOTFOUND, RW_EIO, RW_EINVAL, -1000};
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
            r = (repeat){.db = db, .returns = ends[i]};
            good = TAP_CHECK(rw_txn_run(db, txn_modes[m], repeat_own, &r) == ends[i] && r.calls == 1) && good;
        }
        good = TAP_CHECK(get_is_text(db, BUCKET, "run", "call 5")) && good;
        if (txn_modes[m] == RW_PESSIMISTIC) continue;
        r = (repeat){.db = db, .until = 4};
        CHECK_OK(put_number(db, BUCKET, "run count", 0));
        good = CHECK_OK(rw_txn_run(db, txn_modes[m], repeat_commit, &r)) && good;
        int64_t number = 0;
        CHECK_OK(get_number(db, BUCKET, "run count", &number));
        good = TAP_CHECK(r.calls == 4 && number == 301) && good;
    }
    repeat r = {.db = db};
    good = CHECK_CODE(rw_txn_run(db, RW_READONLY, repeat_own, &r), RW_EREADONLY) && TAP_CHECK(r.calls == 1) && good;
    tap_ok(good && stats_now(db).txns_open == 0, "rw_txn_run repeats after conflicts and hands on every other code");
}

/* Counters that threads count up, each in its own way: not one is lost. */
#define COUNTERS 3
#define COUNT_THREADS 4

typedef enum { COUNT_TXN, COUNT_CLAIM, COUNT_ADD, COUNT_CAS, COUNT_MIXED } count_way;

typedef struct {
    rw_db *db;
    unsigned mode;
    count_way way;
    int number;
    int count;
    unsigned tries;
    int64_t sums[COUNTERS];
    char key[32];
} counting;

static int count_once(rw_txn *txn, void *arg)
{
    counting *c = arg;
    int64_t value = 0;
    size_t size = sizeof(value);
    rw_slice key = slice_text(c->key);
    c->tries++;
    int code = c->way == COUNT_CLAIM ? rw_txn_get_for_update(txn, BUCKET, key, &value, &size) : rw_txn_get(txn, BUCKET, key, &value, &size);
    code = number_of(code, size, &value);
    if (c->tries % 8 == 0) sched_yield();
    return code != 0 ? code : txn_put_number(txn, BUCKET, c->key, value + 1);
}

static int count_by_cas(counting *c)
{
    for (;;) {
        int64_t value = 0;
        size_t size = sizeof(value);
        rw_slice key = slice_text(c->key);
        int code = rw_get(c->db, BUCKET, key, &value, &size);
        if (code != 0 && code != RW_ENOTFOUND) return code;
        int64_t next = (code == 0 ? value : 0) + 1;
        rw_slice expected = slice_bytes(&value, sizeof(value)), desired = slice_bytes(&next, sizeof(next));
        if (c->tries++ % 8 == 0) sched_yield();
        code = rw_cas(c->db, BUCKET, key, code == 0 ? &expected : NULL, &desired, RW_ASYNC);
        if (code != RW_ECONFLICT) return code;
    }
}

static int count_by_add(counting *c, int64_t *last)
{
    int64_t result = 0;
    c->tries++;
    int code = rw_add(c->db, BUCKET, slice_text(c->key), 1, &result, RW_ASYNC);
    if (code == 0 && result <= *last) return RW_EIO;   /* each sum is above those before */
    *last = result;
    return code;
}

static int count_up(void *arg)
{
    counting *c = arg;
    prng random = {(uint64_t)c->number};
    int64_t last[COUNTERS] = {0};
    for (int i = 0; i < c->count; i++) {
        size_t which = prng_below(&random, COUNTERS);
        count_way way = c->way == COUNT_MIXED ? (count_way)prng_below(&random, 4) : c->way;
        unsigned mode = c->way == COUNT_MIXED ? txn_modes[prng_below(&random, TXN_MODES_WRITING)] : c->mode;
        snprintf(c->key, sizeof(c->key), "counter %zu", which);
        int code = way == COUNT_ADD ? count_by_add(c, &last[which]) : way == COUNT_CAS ? count_by_cas(c) : rw_txn_run(c->db, mode | RW_ASYNC, count_once, c);
        if (code != 0) return code;
        c->sums[which]++;
    }
    return 0;
}

static void test_counting(rw_db *db, const char *name, unsigned mode, count_way way, int count)
{
    counting threads[COUNT_THREADS];
    side_call calls[COUNT_THREADS];
    bool good = CHECK_OK(rw_delete_range(db, BUCKET, slice_text("counter"), slice_text("counter~"), RW_ASYNC));
    unsigned tries = 0;
    int64_t begun = now_us();
    for (int i = 0; i < COUNT_THREADS; i++) {
        threads[i] = (counting){.db = db, .mode = mode, .way = way, .number = i, .count = SLOW_BUILD ? count / 5 : count};
        side_start(&calls[i], count_up, &threads[i]);
    }
    for (int i = 0; i < COUNT_THREADS; i++) {
        if (side_join(&calls[i]) != 0) good = tap_ok(false, "thread %d: %d %s", i, calls[i].code, calls[i].words);
        tries += threads[i].tries;
    }
    for (int which = 0; which < COUNTERS; which++) {
        char key[32];
        int64_t sum = 0, is = -1;
        snprintf(key, sizeof(key), "counter %d", which);
        for (int i = 0; i < COUNT_THREADS; i++) sum += threads[i].sums[which];
        CHECK_OK(get_number(db, BUCKET, key, &is));
        if (is != sum) good = tap_ok(false, "%s: counter %d is %lld, not %lld", name, which, (long long)is, (long long)sum);
    }
    tap_ok(good, "%d counted by %d threads, %s: %u tries, %lld ms", count, COUNT_THREADS, name, tries, (long long)(now_us() - begun) / 1000);
}

static void test_counters(rw_db *db)
{
    test_counting(db, "snapshot", RW_SNAPSHOT, COUNT_TXN, 3000);
    test_counting(db, "serializable", RW_SERIALIZABLE, COUNT_TXN, 3000);
    test_counting(db, "pessimistic, upgrading", RW_PESSIMISTIC, COUNT_TXN, 1000);
    test_counting(db, "pessimistic, claiming", RW_PESSIMISTIC, COUNT_CLAIM, 3000);
    test_counting(db, "rw_add", 0, COUNT_ADD, 20000);
    test_counting(db, "rw_cas", 0, COUNT_CAS, 5000);
    test_counting(db, "all ways at once", 0, COUNT_MIXED, 2000);
}

static bool cas(rw_db *db, const char *expected, const char *desired, int code)
{
    rw_slice from = slice_text(expected != NULL ? expected : ""), to = slice_text(desired != NULL ? desired : "");
    return CHECK_CODE(rw_cas(db, BUCKET, slice_text("cas"), expected != NULL ? &from : NULL, desired != NULL ? &to : NULL, RW_ASYNC), code);
}

static void test_cas(rw_db *db)
{
    enum { LARGE = 100000 };
    char *large = calloc(1, LARGE);
    if (!TAP_CHECK(large != NULL)) return;
    bool good = cas(db, "x", "y", RW_ECONFLICT) && cas(db, "", "y", RW_ECONFLICT) && TAP_CHECK(key_absent(db, "cas"));
    good = cas(db, "", NULL, RW_ECONFLICT) && cas(db, NULL, NULL, 0) && TAP_CHECK(key_absent(db, "cas")) && good;
    good = cas(db, NULL, "one", 0) && cas(db, NULL, "two", RW_ECONFLICT) && cas(db, "on", "two", RW_ECONFLICT) && cas(db, "one1", "two", RW_ECONFLICT) && good;
    good = TAP_CHECK(get_is_text(db, BUCKET, "cas", "one")) && cas(db, NULL, NULL, RW_ECONFLICT) && cas(db, "one", "two", 0) && good;
    good = cas(db, "two", "two", 0) && cas(db, "two", "", 0) && TAP_CHECK(get_is_text(db, BUCKET, "cas", "")) && good;
    good = cas(db, NULL, "x", RW_ECONFLICT) && cas(db, "two", "x", RW_ECONFLICT) && good;
    rw_slice nothing = slice_bytes(NULL, 0), big = slice_bytes(large, LARGE), bigger = slice_bytes(large, LARGE - 1), key = slice_text("cas");
    good = CHECK_OK(rw_cas(db, BUCKET, key, &nothing, &big, RW_SYNC)) && TAP_CHECK(get_is(db, BUCKET, key, big)) && good;
    good = CHECK_CODE(rw_cas(db, BUCKET, key, &bigger, &nothing, 0), RW_ECONFLICT) && good;
    large[LARGE - 1] = 1;
    good = CHECK_CODE(rw_cas(db, BUCKET, key, &big, &nothing, 0), RW_ECONFLICT) && TAP_CHECK(words_have("value")) && good;
    large[LARGE - 1] = 0;
    good = CHECK_OK(rw_cas(db, BUCKET, key, &big, &nothing, RW_ASYNC)) && TAP_CHECK(get_is_text(db, BUCKET, "cas", "")) && good;
    good = cas(db, "", NULL, 0) && TAP_CHECK(key_absent(db, "cas")) && cas(db, "", NULL, RW_ECONFLICT) && good;
    free(large);
    tap_ok(good, "rw_cas: absent, empty, large, same, deleting");
}

static void test_add(rw_db *db)
{
    rw_slice key = slice_text("add");
    int64_t result = 77, value = 0;
    bool good = CHECK_OK(rw_add(db, BUCKET, key, -5, &result, RW_SYNC)) && TAP_CHECK(result == -5);
    good = CHECK_OK(rw_add(db, BUCKET, key, 5, NULL, RW_ASYNC)) && CHECK_OK(get_number(db, BUCKET, "add", &value)) && TAP_CHECK(value == 0) && good;
    uint8_t low_first[8] = {1, 2, 0, 0, 0, 0, 0, 0};
    CHECK_OK(rw_put(db, BUCKET, key, slice_bytes(low_first, 8), RW_ASYNC));
    good = CHECK_OK(rw_add(db, BUCKET, key, 0, &result, RW_ASYNC)) && TAP_CHECK(result == 513) && good;
    static const int64_t edges[][2] = {{INT64_MAX, 1}, {INT64_MIN, -1}, {INT64_MAX, INT64_MAX}, {INT64_MIN, INT64_MIN}, {-2, INT64_MIN}};
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        CHECK_OK(put_number(db, BUCKET, "add", edges[i][0]));
        result = 77;
        good = CHECK_CODE(rw_add(db, BUCKET, key, edges[i][1], &result, 0), RW_ETOOBIG) && TAP_CHECK(result == 77 && words_have("counter")) && good;
        good = CHECK_OK(get_number(db, BUCKET, "add", &value)) && TAP_CHECK(value == edges[i][0]) && good;
    }
    CHECK_OK(put_number(db, BUCKET, "add", INT64_MAX));
    good = CHECK_OK(rw_add(db, BUCKET, key, INT64_MIN, &result, RW_ASYNC)) && TAP_CHECK(result == -1) && good;
    static const char *const wrong[] = {"", "1234567", "123456789"};
    for (size_t i = 0; i < 3; i++) {
        CHECK_OK(put_text(db, BUCKET, "add", wrong[i]));
        good = CHECK_CODE(rw_add(db, BUCKET, key, 1, &result, 0), RW_EINVAL) && TAP_CHECK(get_is_text(db, BUCKET, "add", wrong[i])) && good;
    }
    tap_ok(good && result == -1, "rw_add: signs, byte order, overflow, values of another size");
}

/* A transaction that keeps losing ends. It takes a while, mostly asleep: it runs beside everything else. */
static void end_for_ever(side_call *call, repeat *r, const char *dir)
{
    int code = side_join(call);
    tap_ok(code == RW_ECONFLICT && (r->calls == 1000 || r->calls == 1001), "rw_txn_run gives up after %d calls", r->calls);
    TAP_CHECK(key_absent(r->db, "run"));
    CHECK_OK(rw_close(r->db));
    dir_remove(dir);
}

int main(void)
{
    char dir[DIRS_PATH_MAX], side_dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    alarm(SLOW_BUILD ? 600 : 240);
    options.cache_bytes = 64 * MIB;
    options.lock_timeout_ms = 60000;
    if (!dir_make(dir, "run") || !dir_make(side_dir, "for-ever")) return 1;
    repeat for_ever = {.db = open_or_exit(side_dir, NULL), .until = INT32_MAX};
    side_call call;
    side_start(&call, repeat_for_ever, &for_ever);
    rw_db *db = open_or_exit(dir, &options);
    test_run(db);
    test_cas(db);
    test_add(db);
    test_counters(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    end_for_ever(&call, &for_ever, side_dir);
    return tap_done();
}
