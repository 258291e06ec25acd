/*
 * What the modes promise beside isolation: waiting and its ends, repeating, lists and counters, and the limits: a transaction of a million writes, a hundred
 * thousand open at once, snapshots that are given up. Sizes are smaller under sanitizers.
 */
#include <sched.h>
#include <unistd.h>

#include "tests/api/txn_helpers.h"

static rw_txn *begin(rw_db *db, unsigned flags)
{
    rw_txn *txn = NULL;
    CHECK_OK(rw_txn_begin(db, flags, &txn));
    return txn;
}

static const unsigned modes[] = {RW_SNAPSHOT, RW_SERIALIZABLE, RW_PESSIMISTIC, RW_READONLY};

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
    for (size_t m = 0; m < 3; m++) {
        repeat r = {.db = db, .until = 5};
        good = CHECK_OK(rw_txn_run(db, modes[m] | RW_ASYNC, repeat_own, &r)) && TAP_CHECK(r.calls == 5) && good;
        good = TAP_CHECK(get_is_text(db, BUCKET, "run", "call 5")) && good;
        static const int ends[] = {1, 4711, RW_ENOTFOUND, RW_EIO, RW_EINVAL, -1000};
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
            r = (repeat){.db = db, .returns = ends[i]};
            good = TAP_CHECK(rw_txn_run(db, modes[m], repeat_own, &r) == ends[i] && r.calls == 1) && good;
        }
        good = TAP_CHECK(get_is_text(db, BUCKET, "run", "call 5")) && good;
        if (modes[m] == RW_PESSIMISTIC) continue;
        r = (repeat){.db = db, .until = 4};
        CHECK_OK(put_number(db, BUCKET, "run count", 0));
        good = CHECK_OK(rw_txn_run(db, modes[m], repeat_commit, &r)) && good;
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
        unsigned mode = c->way == COUNT_MIXED ? modes[prng_below(&random, 3)] : c->mode;
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

/* Lists. */
typedef struct {
    int count;
    int stop_after;
    rw_txn_info infos[16];
} txn_listing;

static int list_txn(void *arg, const rw_txn_info *info)
{
    txn_listing *list = arg;
    if (list->count < 16) list->infos[list->count] = *info;
    return ++list->count == list->stop_after ? 4242 : 0;
}

static txn_listing list_txns(rw_db *db)
{
    txn_listing list = {0};
    CHECK_OK(rw_txn_list(db, list_txn, &list));
    return list;
}

static void test_txn_list(rw_db *db)
{
    rw_txn *txns[4];
    rw_cursor *cursor = NULL;
    txn_listing list = list_txns(db);
    TAP_CHECK(list.count == 0);
    for (size_t m = 0; m < 4; m++) txns[m] = begin(db, modes[m]);
    CHECK_OK(txn_put_text(txns[0], "list a", "1"));
    CHECK_OK(txn_put_text(txns[0], "list b", "1"));
    CHECK_OK(txn_put_text(txns[0], "list a", "2"));
    txn_get_code(txns[1], "list c");
    CHECK_OK(txn_put_text(txns[2], "list c", "1"));
    txn_get_code(txns[2], "list d");
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    pause_us(2000);
    list = list_txns(db);
    if (TAP_CHECK(list.count == 5)) {
        for (size_t m = 0; m < 4; m++) {
            rw_txn_info *info = &list.infos[m];
            TAP_CHECK(info->id == rw_txn_id(txns[m]) && info->flags == modes[m] && info->age_us >= 2000 && info->waits_for == 0);
            TAP_CHECK((info->snapshot != 0) == (modes[m] != RW_PESSIMISTIC));
            TAP_CHECK(m == 0 || info->age_us <= list.infos[m - 1].age_us);
        }
        TAP_CHECK(list.infos[0].writes == 2 && list.infos[1].writes == 0 && list.infos[2].writes == 1 && list.infos[3].writes == 0);
        TAP_CHECK(list.infos[0].bytes > 0 && list.infos[2].locks == 2 && list.infos[0].locks == 0);
        TAP_CHECK(list.infos[4].id == 0 && list.infos[4].snapshot != 0);
    }
    rw_cursor_close(cursor);
    list = (txn_listing){.stop_after = 2};
    TAP_CHECK(rw_txn_list(db, list_txn, &list) == 4242 && list.count == 2);
    for (size_t m = 0; m < 4; m++) rw_txn_abort(txns[m]);
    tap_ok(list_txns(db).count == 0, "rw_txn_list");
}

typedef struct {
    int count;
    int stop_after;
    struct {
        uint64_t txn;
        unsigned exclusive, waiting;
        rw_bucket bucket;
        bool range, to_end;
        size_t to_size;
        char from[32], to[32];
    } locks[32];
} lock_listing;

static int list_lock(void *arg, const rw_lock_info *info)
{
    lock_listing *list = arg;
    if (list->count < 32) {
        int i = list->count;
        list->locks[i].txn = info->txn, list->locks[i].bucket = info->bucket;
        list->locks[i].exclusive = info->exclusive, list->locks[i].waiting = info->waiting;
        list->locks[i].range = info->to.data != NULL, list->locks[i].to_end = info->to.data != NULL && info->to.size == 0;
        snprintf(list->locks[i].from, 32, "%.*s", (int)info->from.size, info->from.size == 0 ? "" : (const char *)info->from.data);
        list->locks[i].to_size = info->to.size < 32 ? info->to.size : 32;
        memset(list->locks[i].to, 0, 32);
        if (info->to.size > 0) memcpy(list->locks[i].to, info->to.data, list->locks[i].to_size);
    }
    return ++list->count == list->stop_after ? 4343 : 0;
}

static lock_listing list_locks(rw_db *db)
{
    lock_listing list = {0};
    CHECK_OK(rw_lock_list(db, list_lock, &list));
    return list;
}

/* Whether a lock on the key is listed. */
static bool lock_listed(rw_db *db, uint64_t txn, const char *key, unsigned exclusive, unsigned waiting)
{
    lock_listing list = list_locks(db);
    for (int i = 0; i < list.count && i < 32; i++) {
        if (list.locks[i].txn != txn || list.locks[i].exclusive != exclusive || list.locks[i].waiting != waiting || list.locks[i].bucket != BUCKET) continue;
        if (!list.locks[i].range && strcmp(list.locks[i].from, key) == 0) return true;
        bool below = list.locks[i].to_end || slice_compare(slice_text(key), slice_bytes(list.locks[i].to, list.locks[i].to_size)) < 0;
        if (list.locks[i].range && strcmp(list.locks[i].from, key) <= 0 && below) return true;
    }
    for (int i = 0; i < list.count && i < 32; i++)
        tap_diag("lock of %llu from \"%s\" to \"%.32s\" range %d exclusive %u waiting %u", (unsigned long long)list.locks[i].txn, list.locks[i].from, list.locks[i].to,
                 list.locks[i].range, list.locks[i].exclusive, list.locks[i].waiting);
    return false;
}

static void test_lock_list(rw_db *db)
{
    rw_txn *one = begin(db, RW_PESSIMISTIC), *two = begin(db, RW_PESSIMISTIC);
    uint64_t id_one = rw_txn_id(one), id_two = rw_txn_id(two);
    side_call waiter, single;
    side_op wait_op = {.db = db, .txn = two, .key = "lock b", .value = "two"}, single_op = {.db = db, .key = "lock a", .value = "single"};
    txn_get_code(two, "lock c");
    CHECK_OK(txn_put_text(one, "lock b", "one"));
    txn_get_code(one, "lock c");
    CHECK_OK(txn_put_text(one, "lock a", "one"));
    lock_listing list = list_locks(db);
    TAP_CHECK(list.count == 4 && stats_now(db).locks_held == 4);
    for (int i = 1; i < list.count; i++) TAP_CHECK(strcmp(list.locks[i - 1].from, list.locks[i].from) <= 0);
    bool good = lock_listed(db, id_one, "lock a", 1, 0) && lock_listed(db, id_one, "lock b", 1, 0);
    good = lock_listed(db, id_one, "lock c", 0, 0) && lock_listed(db, id_two, "lock c", 0, 0) && good;
    side_start(&waiter, side_op_run, &wait_op);
    TAP_CHECK(wait_for_waiting(db, 1));
    good = TAP_CHECK(lock_listed(db, id_two, "lock b", 1, 1)) && good;
    txn_listing txns = list_txns(db);
    good = TAP_CHECK(txns.count == 2 && txns.infos[1].waits_for == id_one && txns.infos[0].waits_for == 0 && txns.infos[0].locks == 3) && good;
    side_start(&single, side_op_run, &single_op);
    TAP_CHECK(wait_for_waiting(db, 2));
    good = TAP_CHECK(lock_listed(db, 0, "lock a", 1, 1)) && good;
    list = (lock_listing){.stop_after = 3};
    good = TAP_CHECK(rw_lock_list(db, list_lock, &list) == 4343 && list.count == 3) && good;
    CHECK_OK(rw_txn_commit(one, RW_ASYNC));
    CHECK_OK(side_join(&waiter));
    CHECK_OK(side_join(&single));
    CHECK_OK(rw_txn_commit(two, RW_ASYNC));
    good = TAP_CHECK(get_is_text(db, BUCKET, "lock a", "single") && get_is_text(db, BUCKET, "lock b", "two")) && good;
    tap_ok(good && list_locks(db).count == 0, "rw_lock_list: keys, held and waited for, and who waits for whom");
}

static void test_lock_ranges(rw_db *db)
{
    rw_txn *txn = begin(db, RW_PESSIMISTIC);
    rw_cursor *cursor = NULL;
    uint64_t id = rw_txn_id(txn);
    CHECK_OK(put_text(db, BUCKET, "range b", "1"));
    CHECK_OK(put_text(db, BUCKET, "range d", "1"));
    CHECK_OK(put_text(db, BUCKET, "range f", "1"));
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_OK(rw_cursor_seek(cursor, slice_text("range a")));
    CHECK_OK(rw_cursor_next(cursor));
    bool good = TAP_CHECK(cursor_key_is(cursor, "range d"));
    static const char *const in[] = {"range a", "range b", "range c", "range d"};
    for (size_t i = 0; i < 4; i++) good = TAP_CHECK(lock_listed(db, id, in[i], 0, 0)) && good;
    CHECK_OK(rw_cursor_last(cursor));
    good = TAP_CHECK(lock_listed(db, id, "zzz", 0, 0)) && good;
    rw_cursor_close(cursor);
    good = TAP_CHECK(lock_listed(db, id, "range c", 0, 0)) && good;
    rw_txn_abort(txn);
    tap_ok(good && list_locks(db).count == 0, "rw_lock_list: ranges that a cursor went over, until the end of the transaction");
}

/* Waiting. */
typedef enum { WAIT_PUT, WAIT_DEL, WAIT_BATCH, WAIT_DELETE_RANGE, WAIT_ADD, WAIT_CAS, WAIT_SNAPSHOT, WAIT_SERIALIZABLE, WAIT_PESSIMISTIC, WAIT_INSERT, WAITS } wait_kind;

static const char *const wait_names[WAITS] = {"put", "del", "batch", "delete_range", "add", "cas", "snapshot commit", "serializable commit", "pessimistic put", "insert"};

typedef struct {
    rw_db *db;
    wait_kind kind;
} wait_call;

static int wait_in_txn(rw_db *db, unsigned mode, int64_t value)
{
    rw_txn *txn = NULL;
    int code = rw_txn_begin(db, mode, &txn);
    if (code == 0) code = txn_put_number(txn, BUCKET, "wait m", value);
    if (code == 0) return rw_txn_commit(txn, RW_ASYNC);
    rw_txn_abort(txn);
    return code;
}

static int wait_run(void *arg)
{
    wait_call *c = arg;
    rw_slice key = slice_text("wait m");
    int64_t seven = 7, zero = 0;
    rw_slice value = slice_bytes(&seven, 8), old = slice_bytes(&zero, 8);
    rw_batch *batch = NULL;
    int code;
    switch (c->kind) {
    case WAIT_PUT: return rw_put(c->db, BUCKET, key, value, RW_ASYNC);
    case WAIT_DEL: return rw_del(c->db, BUCKET, key, RW_ASYNC);
    case WAIT_DELETE_RANGE: return rw_delete_range(c->db, BUCKET, slice_text("wait a"), slice_text("wait z"), RW_ASYNC);
    case WAIT_ADD: return rw_add(c->db, BUCKET, key, 7, NULL, RW_ASYNC);
    case WAIT_CAS: return rw_cas(c->db, BUCKET, key, &old, &value, RW_ASYNC);
    case WAIT_SNAPSHOT: return wait_in_txn(c->db, RW_SNAPSHOT, 7);
    case WAIT_SERIALIZABLE: return wait_in_txn(c->db, RW_SERIALIZABLE, 7);
    case WAIT_PESSIMISTIC: return wait_in_txn(c->db, RW_PESSIMISTIC, 7);
    case WAIT_INSERT: return rw_put(c->db, BUCKET, slice_text("wait n"), value, RW_SYNC);
    default: break;
    }
    code = rw_batch_new(c->db, &batch);
    if (code == 0) code = rw_batch_put(batch, BUCKET, slice_text("wait b"), value);
    if (code == 0) code = rw_batch_put(batch, BUCKET, key, value);
    if (code == 0) code = rw_batch_commit(batch, RW_ASYNC);
    rw_batch_free(batch);
    return code;
}

/* What the holder does before: 0 reads the key, 1 claims it, 2 writes it, 3 goes over the range with a cursor. */
static void hold(rw_db *db, rw_txn *txn, int how)
{
    int64_t value = 1;
    size_t size = sizeof(value);
    rw_cursor *cursor = NULL;
    switch (how) {
    case 0: CHECK_OK(rw_txn_get(txn, BUCKET, slice_text("wait m"), &value, &size)); return;
    case 1: CHECK_OK(rw_txn_get_for_update(txn, BUCKET, slice_text("wait m"), &value, &size)); return;
    case 2: CHECK_OK(txn_put_number(txn, BUCKET, "wait m", 0)); return;
    default:
        CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
        CHECK_OK(rw_cursor_seek(cursor, slice_text("wait")));
        while (rw_cursor_next(cursor) == 0) {}
        rw_cursor_close(cursor);
    }
}

static bool wait_trial(rw_db *db, wait_kind kind, int how, bool commit)
{
    side_call call;
    wait_call c = {.db = db, .kind = kind};
    int64_t value = -1, other = -1;
    CHECK_OK(rw_delete_range(db, BUCKET, slice_text("wait"), slice_text("wait~"), RW_ASYNC));
    CHECK_OK(put_number(db, BUCKET, "wait m", 0));
    rw_txn *holder = begin(db, RW_PESSIMISTIC), *reader = begin(db, RW_READONLY);
    hold(db, holder, how);
    side_start(&call, wait_run, &c);
    bool waits = wait_for_waiting(db, 1) && !atomic_load(&call.done);
    bool free_reads = get_number(db, BUCKET, "wait m", &value) == 0 && value == 0 && txn_get_number(reader, BUCKET, "wait m", &value) == 0 && value == 0;
    bool alone = get_number(db, BUCKET, "wait b", &other) == 0 && other == 0;
    pause_us(1000);
    waits = waits && !atomic_load(&call.done);
    if (commit) CHECK_OK(rw_txn_commit(holder, RW_ASYNC));
    else rw_txn_abort(holder);
    int code = side_join(&call), want = 0;
    bool snapshot = kind == WAIT_SNAPSHOT || kind == WAIT_SERIALIZABLE;
    if (snapshot && how == 2 && commit) want = RW_ECONFLICT;
    CHECK_OK(get_number(db, BUCKET, kind == WAIT_INSERT ? "wait n" : "wait m", &value));
    bool done = value == (kind == WAIT_DEL || kind == WAIT_DELETE_RANGE || want != 0 ? 0 : 7);
    bool still = txn_get_number(reader, BUCKET, "wait m", &value) == 0 && value == 0;
    rw_txn_abort(reader);
    if (waits && free_reads && alone && code == want && done && still) return true;
    tap_diag("%s, holder's way %d, %s: waits %d, reads free %d, nothing done before %d, code %d %s, done %d, snapshot still %d", wait_names[kind], how,
             commit ? "commit" : "abort", waits, free_reads, alone, code, call.words, done, still);
    return false;
}

static void test_waiting(rw_db *db)
{
    bool good = true;
    uint64_t waits = stats_now(db).lock_waits;
    for (int kind = 0; kind < WAITS; kind++)
        for (int how = kind == WAIT_INSERT ? 3 : 0; how < 4; how++)
            for (int commit = 0; commit < 2; commit++) good = wait_trial(db, (wait_kind)kind, how, commit == 1) && good;
    TAP_CHECK(stats_now(db).lock_waits > waits);
    tap_ok(good && stats_now(db).locks_held == 0, "whatever writes waits for a pessimistic transaction's locks, and goes on after it; reads do not wait");
}

/* A writer that waits holds nobody up who has nothing to do with it. */
static void test_waiting_alone(rw_db *db)
{
    rw_txn *holder = begin(db, RW_PESSIMISTIC);
    side_call calls[3];
    side_op ops[3];
    for (int i = 0; i < 3; i++) ops[i] = (side_op){.db = db, .key = "alone", .value = "waits"};
    CHECK_OK(txn_put_text(holder, "alone", "held"));
    for (int i = 0; i < 3; i++) side_start(&calls[i], side_op_run, &ops[i]);
    bool good = TAP_CHECK(wait_for_waiting(db, 3));
    for (int i = 0; i < 1000; i++) {
        char key[24];
        snprintf(key, sizeof(key), "alone %d", i);
        good = CHECK_OK(put_text(db, BUCKET, key, "free")) && good;
    }
    CHECK_OK(rw_checkpoint(db));
    CHECK_OK(rw_flush(db));
    CHECK_OK(txn_put_text(holder, "alone", "held still"));
    CHECK_OK(rw_txn_commit(holder, RW_SYNC));
    for (int i = 0; i < 3; i++) good = CHECK_OK(side_join(&calls[i])) && good;
    tap_ok(good && get_is_text(db, BUCKET, "alone", "waits"), "writes beside the lock, checkpoints and flushes do not wait with those that wait");
}

static void test_timeouts(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_cursor *cursor = NULL;
    options.lock_timeout_ms = 60;
    if (!dir_make(dir, "timeout")) return;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(put_text(db, BUCKET, "a", "0"));
    rw_txn *holder = begin(db, RW_PESSIMISTIC), *txn = begin(db, RW_PESSIMISTIC);
    CHECK_OK(txn_put_text(holder, "a", "holder"));
    CHECK_OK(txn_put_text(txn, "b", "before"));
    int64_t begun = now_us();
    CHECK_CODE(txn_put_text(txn, "a", "in vain"), RW_ETIMEOUT);
    int64_t took = now_us() - begun;
    TAP_CHECK(took >= 59000 && took < 10000000);
    CHECK_CODE(txn_get_code(txn, "a"), RW_ETIMEOUT);
    CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text("a")), RW_ETIMEOUT);
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_CODE(rw_cursor_first(cursor), RW_ETIMEOUT);
    CHECK_OK(rw_cursor_seek(cursor, slice_text("b")));
    TAP_CHECK(cursor_at(cursor, "b", "before"));
    TAP_CHECK(waiting_locks(db) == 0 && stats_now(db).lock_timeouts == 4);
    rw_txn_abort(holder);
    CHECK_OK(rw_cursor_first(cursor));
    TAP_CHECK(cursor_at(cursor, "a", "0"));
    rw_cursor_close(cursor);
    CHECK_OK(txn_put_text(txn, "a", "after"));
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "after") && get_is_text(db, BUCKET, "b", "before"));
    tap_ok(stats_now(db).locks_held == 0, "RW_ETIMEOUT after %lld ms of 60, and the transaction goes on", (long long)took / 1000);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

static void test_stats(rw_db *db)
{
    TAP_CHECK(wait_for_rest(db));
    rw_stats_t before = stats_now(db);
    CHECK_OK(put_text(db, BUCKET, "stats", "0"));
    rw_txn *reader = begin(db, RW_READONLY), *writer = begin(db, RW_SNAPSHOT), *loser = begin(db, RW_SNAPSHOT);
    CHECK_OK(txn_put_text(writer, "stats", "1"));
    CHECK_OK(txn_put_text(loser, "stats", "2"));
    TAP_CHECK(stats_now(db).txns_open == 3 && stats_now(db).snapshots_open == 3);
    CHECK_OK(rw_txn_commit(writer, RW_ASYNC));
    CHECK_CODE(rw_txn_commit(loser, RW_ASYNC), RW_ECONFLICT);
    TAP_CHECK(words_have("stats"));
    rw_stats_t during = stats_now(db);
    TAP_CHECK(during.txns_open == 1 && during.snapshots_open == 1 && during.versions >= 1 && during.version_bytes > 0 && during.version_bytes_max > 0);
    TAP_CHECK(during.txns_committed == before.txns_committed + 1 && during.txns_conflicted == before.txns_conflicted + 1);
    pause_us(3000);
    TAP_CHECK(stats_now(db).snapshot_oldest_age_us >= 3000 && txn_is(reader, "stats", "0"));
    rw_txn_abort(reader);
    TAP_CHECK(stats_now(db).txns_aborted == before.txns_aborted + 1);
    bool rest = wait_for_rest(db);
    TAP_CHECK(stats_now(db).snapshot_oldest_age_us == 0);
    tap_ok(rest, "counters of transactions, snapshots and versions, and their way back to 0");
}

/* A transaction of very many writes. */
#define BIG_WRITES (SLOW_BUILD ? 30000 : 1000000)

typedef struct {
    rw_db *db;
    _Atomic bool end;
    uint64_t polls;
    char what[128];
} poller;

static int big_key(int i, char key[17])
{
    return snprintf(key, 17, "big/%012d", i);
}

/* 0: not there. */
enum { BIG_WRONG = -1, BIG_GIVEN_UP = -2 };

static int64_t big_generation(rw_db *db, rw_txn *txn, int i)
{
    char key[17], value[100];
    size_t size = sizeof(value);
    int64_t generation = 0;
    rw_slice name = slice_bytes(key, (size_t)big_key(i, key));
    int code = txn != NULL ? rw_txn_get(txn, BUCKET, name, value, &size) : rw_get(db, BUCKET, name, value, &size);
    if (code == RW_ENOTFOUND) return 0;
    if (code == RW_ESNAPSHOT_TOO_OLD && txn != NULL) return BIG_GIVEN_UP;
    if (code != 0 || size != sizeof(value)) return BIG_WRONG;
    memcpy(&generation, value, sizeof(generation));
    return generation;
}

/* Looks at both ends in both orders, plainly and by snapshots. */
static int poll_ends(void *arg)
{
    poller *p = arg;
    while (!atomic_load(&p->end)) {
        int one = p->polls % 2 == 0 ? 0 : BIG_WRITES - 1, two = BIG_WRITES - 1 - one;
        int64_t first = big_generation(p->db, NULL, one), second = big_generation(p->db, NULL, two);
        if (first < 0 || second < first) return snprintf(p->what, sizeof(p->what), "key %d had %lld, then key %d %lld", one, (long long)first, two, (long long)second);
        rw_txn *txn = NULL;
        if (rw_txn_begin(p->db, RW_READONLY, &txn) != 0) return snprintf(p->what, sizeof(p->what), "begin: %s", rw_last_error(NULL));
        first = big_generation(p->db, txn, one), second = big_generation(p->db, txn, two);
        int64_t middle = big_generation(p->db, txn, BIG_WRITES / 2);
        rw_txn_abort(txn);
        p->polls++;
        if (first == BIG_GIVEN_UP || middle == BIG_GIVEN_UP || second == BIG_GIVEN_UP) continue;
        if (first < 0 || second != first || middle != first)
            return snprintf(p->what, sizeof(p->what), "a snapshot has %lld, %lld, %lld", (long long)first, (long long)middle, (long long)second);
        if (p->polls % 64 == 0) pause_us(500);   /* there are few processors */
    }
    return 0;
}

static bool big_commit(rw_db *db, unsigned mode, int64_t generation)
{
    char key[17], value[100];
    rw_txn *txn = begin(db, mode);
    int64_t begun = now_us();
    memset(value, 'v', sizeof(value));
    memcpy(value, &generation, sizeof(generation));
    for (int i = 0; i < BIG_WRITES; i++) {
        int at = (int)((int64_t)i * 7919 % BIG_WRITES);
        if (!CHECK_OK(rw_txn_put(txn, BUCKET, slice_bytes(key, (size_t)big_key(at, key)), slice_bytes(value, sizeof(value))))) return false;
    }
    int64_t written = now_us();
    bool good = CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    tap_diag("%d writes in one transaction, mode %u: gathered in %lld ms, committed in %lld ms", BIG_WRITES, mode, (long long)(written - begun) / 1000,
             (long long)(now_us() - written) / 1000);
    return good;
}

static bool big_all_are(rw_db *db, int64_t generation)
{
    rw_cursor *cursor = NULL;
    rw_slice value = NO_KEY;
    int64_t count = 0;
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    for (int code = rw_cursor_seek(cursor, slice_text("big/")); code == 0; code = rw_cursor_next(cursor), count++)
        if (rw_cursor_value(cursor, &value) != 0 || value.size != 100 || memcmp(value.data, &generation, sizeof(generation)) != 0) break;
    rw_cursor_close(cursor);
    return count == BIG_WRITES;
}

/* What a snapshot from before all of it may see. */
static bool big_old(rw_db *db, rw_txn *old, int i)
{
    int64_t generation = big_generation(db, old, i);
    return generation == 0 || generation == BIG_GIVEN_UP;
}

static void test_big(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options;
    rw_options_init(&options);
    options.workers = 2;
    if (!dir_make(dir, "big")) return;
    rw_db *db = open_or_exit(dir, &options);
    poller p = {.db = db};
    side_call call;
    side_start(&call, poll_ends, &p);
    rw_txn *old = begin(db, RW_READONLY);
    bool good = big_commit(db, RW_SNAPSHOT, 1);
    good = TAP_CHECK(big_generation(db, NULL, 0) == 1 && big_old(db, old, 0) && big_old(db, old, BIG_WRITES - 1)) && good;
    good = big_commit(db, SLOW_BUILD ? RW_PESSIMISTIC : RW_SERIALIZABLE, 2) && good;
    good = TAP_CHECK(big_generation(db, NULL, 0) == 2 && big_old(db, old, BIG_WRITES / 3)) && good;
    rw_txn_abort(old);
    atomic_store(&p.end, true);
    if (side_join(&call) != 0) good = tap_ok(false, "%s", p.what);
    good = TAP_CHECK(big_all_are(db, 2)) && TAP_CHECK(wait_for_rest(db)) && good;
    tap_ok(good, "%d writes of 16 + 100 bytes in one transaction are one moment for %llu polls of both ends", BIG_WRITES, (unsigned long long)p.polls);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

/* Very many at once. */
#define CROWD (SLOW_BUILD ? 10000 : 100000)

static int count_txns(void *arg, const rw_txn_info *info)
{
    uint64_t *sums = arg;
    sums[0]++, sums[1] += info->locks, sums[2] += info->snapshot != 0;
    return 0;
}

static void test_crowd(rw_db *db)
{
    rw_txn **txns = calloc(CROWD, sizeof(*txns));
    uint64_t sums[3] = {0};
    bool good = TAP_CHECK(txns != NULL);
    int64_t begun = now_us();
    CHECK_OK(put_text(db, BUCKET, "crowd", "old"));
    for (int i = 0; i < CROWD && good; i++) {
        char key[32];
        snprintf(key, sizeof(key), "crowd/%08d", i);
        txns[i] = begin(db, i % 2 == 0 ? RW_SNAPSHOT : RW_PESSIMISTIC);
        good = TAP_CHECK(txns[i] != NULL);
        if (good && i % 2 == 1) good = CHECK_OK(txn_put_text(txns[i], key, "mine"));
        if (i == CROWD / 2) CHECK_OK(put_text(db, BUCKET, "crowd", "new"));
    }
    int64_t opened = now_us();
    rw_stats_t stats = stats_now(db);
    CHECK_OK(rw_txn_list(db, count_txns, sums));
    good = TAP_CHECK(stats.txns_open == CROWD && stats.snapshots_open == CROWD / 2 && stats.locks_held == CROWD / 2) && good;
    good = TAP_CHECK(sums[0] == CROWD && sums[1] == CROWD / 2 && sums[2] == CROWD / 2) && good;
    for (int i = 0; i < CROWD && good; i += i < CROWD - 2000 ? 998 : 2) good = TAP_CHECK(txn_is(txns[i], "crowd", i <= CROWD / 2 ? "old" : "new")) && good;
    int64_t looked = now_us();
    for (int i = 0; i < CROWD && txns != NULL; i++) {
        if (txns[i] == NULL) break;
        if (i % 3 == 0) good = CHECK_OK(rw_txn_commit(txns[i], RW_ASYNC)) && good;
        else rw_txn_abort(txns[i]);
    }
    int64_t ended = now_us();
    good = TAP_CHECK(get_is_text(db, BUCKET, "crowd/00000003", "mine") && key_absent(db, "crowd/00000001")) && good;
    free(txns);
    tap_ok(wait_for_rest(db) && good, "%d open transactions: begun in %lld ms, looked at in %lld ms, ended in %lld ms", CROWD, (long long)(opened - begun) / 1000,
           (long long)(looked - opened) / 1000, (long long)(ended - looked) / 1000);
}

/* Snapshots that hold too much. */
#define AGED_KEYS 400
#define AGED_SIZE 1000

static int put_aged(rw_db *db, int i, char generation)
{
    char key[32], value[AGED_SIZE];
    snprintf(key, sizeof(key), "aged %04d", i);
    memset(value, generation, sizeof(value));
    return rw_put(db, BUCKET, slice_text(key), slice_bytes(value, sizeof(value)), RW_ASYNC);
}

/* How many keys it reads as of its generation; -1 for a wrong one. *given_up counts RW_ESNAPSHOT_TOO_OLD. */
static int read_aged(rw_txn *txn, char generation, int *given_up)
{
    int good = 0;
    *given_up = 0;
    for (int i = 0; i < AGED_KEYS; i++) {
        char key[32], value[AGED_SIZE];
        size_t size = sizeof(value);
        snprintf(key, sizeof(key), "aged %04d", i);
        int code = rw_txn_get(txn, BUCKET, slice_text(key), value, &size);
        if (code == RW_ESNAPSHOT_TOO_OLD) ++*given_up;
        else if (code == 0 && size == AGED_SIZE && value[0] == generation && value[AGED_SIZE - 1] == generation) good++;
        else return tap_diag("%s is %d of '%c', not '%c'", key, code, value[0], generation), -1;
    }
    return good;
}

/* The same by a cursor. */
static bool scan_aged(rw_db *db, rw_txn *txn, char generation, bool may_be_given_up)
{
    rw_cursor *cursor = NULL;
    rw_slice value = NO_KEY;
    int count = 0, code = rw_cursor_open(db, txn, BUCKET, &cursor);
    while (code == 0 && (code = rw_cursor_next(cursor)) == 0) {
        if ((code = rw_cursor_value(cursor, &value)) != 0) break;
        if (value.size != AGED_SIZE || ((const char *)value.data)[0] != generation) break;
        count++;
    }
    if (cursor != NULL) rw_cursor_close(cursor);
    return (code == RW_ENOTFOUND && count == AGED_KEYS) || (code == RW_ESNAPSHOT_TOO_OLD && may_be_given_up);
}

static void put_all_aged(rw_db *db, char generation)
{
    for (int i = 0; i < AGED_KEYS; i++)
        if (!CHECK_OK(put_aged(db, i, generation))) return;
}

/* Each round of writes leaves 400 KB of old values; the limit is 1 MiB. */
static void test_too_old(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    int given_up = 0;
    options.cache_bytes = 8 * MIB;
    options.snapshot_bytes_max = MIB;
    if (!dir_make(dir, "aged")) return;
    rw_db *db = open_or_exit(dir, &options);
    put_all_aged(db, 'a');
    rw_txn *oldest = begin(db, RW_SNAPSHOT), *lock = begin(db, RW_PESSIMISTIC);
    CHECK_OK(txn_put_text(lock, "lock", "x"));
    put_all_aged(db, 'b');
    TAP_CHECK(read_aged(oldest, 'a', &given_up) == AGED_KEYS && scan_aged(db, oldest, 'a', false));
    rw_txn *middle = begin(db, RW_READONLY);
    put_all_aged(db, 'c');
    rw_txn *young = begin(db, RW_SERIALIZABLE);
    put_all_aged(db, 'd');
    put_all_aged(db, 'e');
    int read = read_aged(oldest, 'a', &given_up);
    TAP_CHECK(read >= 0 && given_up > 0 && scan_aged(db, oldest, 'a', true));
    int put = txn_put_text(oldest, "oldest", "x");
    TAP_CHECK(put == 0 || put == RW_ESNAPSHOT_TOO_OLD);
    rw_stats_t stats = stats_now(db);
    TAP_CHECK(stats.snapshots_given_up >= 1 && stats.version_bytes <= stats.version_bytes_max && stats.version_bytes_max <= MIB);
    TAP_CHECK(read_aged(young, 'c', &given_up) == AGED_KEYS && scan_aged(db, young, 'c', false));
    TAP_CHECK(read_aged(middle, 'b', &given_up) >= 0);
    rw_txn *fresh = begin(db, RW_SNAPSHOT);
    TAP_CHECK(read_aged(fresh, 'e', &given_up) == AGED_KEYS && scan_aged(db, fresh, 'e', false));
    CHECK_OK(txn_put_text(fresh, "fresh", "x"));
    CHECK_OK(rw_txn_commit(fresh, RW_ASYNC));
    int end = rw_txn_commit(oldest, RW_ASYNC);
    TAP_CHECK(end == 0 || end == RW_ESNAPSHOT_TOO_OLD);
    TAP_CHECK(end == 0 && put == 0 ? get_is_text(db, BUCKET, "oldest", "x") : key_absent(db, "oldest"));
    CHECK_OK(rw_txn_commit(middle, RW_ASYNC));
    rw_txn_abort(young);
    CHECK_OK(rw_txn_commit(lock, RW_SYNC));
    tap_ok(wait_for_rest(db), "a snapshot that holds too much is given up (%d of %d keys still read), others go on", read, AGED_KEYS);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
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
    if (!dir_make(dir, "modes") || !dir_make(side_dir, "for-ever")) return 1;
    repeat for_ever = {.db = open_or_exit(side_dir, NULL), .until = INT32_MAX};
    side_call call;
    side_start(&call, repeat_for_ever, &for_ever);
    rw_db *db = open_or_exit(dir, &options);
    test_run(db);
    test_cas(db);
    test_add(db);
    test_txn_list(db);
    test_lock_list(db);
    test_lock_ranges(db);
    test_stats(db);
    test_waiting(db);
    test_waiting_alone(db);
    test_counters(db);
    test_crowd(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    test_timeouts();
    test_too_old();
    test_big();
    end_for_ever(&call, &for_ever, side_dir);
    return tap_done();
}
