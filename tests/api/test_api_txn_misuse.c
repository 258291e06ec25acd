/* Transactions used wrongly: each a clear error, never a crash, and nothing else is harmed. */
#include <unistd.h>

#include "tests/api/txn_helpers.h"

/* Every call on a handle that has ended, or is doomed, gives this code. */
static bool all_refused(rw_db *db, rw_txn *txn, int code)
{
    rw_cursor *cursor = NULL;
    char buffer[8];
    size_t size = sizeof(buffer);
    unsigned id = 77;
    bool good = CHECK_CODE(rw_txn_get(txn, BUCKET, slice_text("a"), buffer, &size), code);
    good = TAP_CHECK(size == sizeof(buffer)) && good;
    good = CHECK_CODE(rw_txn_get_for_update(txn, BUCKET, slice_text("a"), buffer, &size), code) && good;
    good = CHECK_CODE(txn_put_text(txn, "a", "stale"), code) && good;
    good = CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text("a")), code) && good;
    good = CHECK_CODE(rw_txn_savepoint(txn, &id), code) && good;
    good = TAP_CHECK(id == 77) && good;
    good = CHECK_CODE(rw_txn_rollback_to(txn, 0), code) && good;
    good = CHECK_CODE(rw_cursor_open(db, txn, BUCKET, &cursor), code) && good;
    return TAP_CHECK(cursor == NULL) && good;
}

static bool all_closed(rw_db *db, rw_txn *txn)
{
    bool good = all_refused(db, txn, RW_ECLOSED);
    good = CHECK_CODE(rw_txn_commit(txn, RW_ASYNC), RW_ECLOSED) && good;
    good = TAP_CHECK(words_have("transaction")) && good;
    good = TAP_CHECK(rw_txn_id(txn) == 0) && good;
    rw_txn_abort(txn);
    return good;
}

static void test_use_after_end(rw_db *db)
{
    bool good = true;
    for (size_t m = 0; m < TXN_MODES; m++) {
        rw_txn *committed = txn_begin(db, txn_modes[m]), *aborted = txn_begin(db, txn_modes[m]);
        good = TAP_CHECK(committed != aborted && rw_txn_id(committed) != 0 && rw_txn_id(committed) != rw_txn_id(aborted)) && good;
        if (txn_modes[m] != RW_READONLY) CHECK_OK(txn_put_text(committed, "a", "committed"));
        if (txn_modes[m] == RW_SNAPSHOT) CHECK_OK(txn_put_text(aborted, "b", "aborted"));
        CHECK_OK(rw_txn_commit(committed, RW_ASYNC));
        rw_txn_abort(aborted);
        good = all_closed(db, committed) && all_closed(db, aborted) && good;
        good = TAP_CHECK(get_is_text(db, BUCKET, "a", "committed") || txn_modes[m] == RW_READONLY) && good;
        good = TAP_CHECK(key_absent(db, "b")) && good;
    }
    tap_ok(good, "committing twice, and all other use after an end, in every mode");
}

/* Handles are used again only in a way that the old ones never hit, however many transactions came since. */
static void test_stale_handles(rw_db *db)
{
    enum { OPEN = 500, CYCLES = SLOW_BUILD ? 70000 : 300000, STALE = 64 };
    static rw_txn *open[OPEN], *stale[STALE];
    bool good = true;
    for (int i = 0; i < STALE; i++) rw_txn_abort(stale[i] = txn_begin(db, txn_modes[(size_t)i % TXN_MODES]));
    for (int i = 0; i < OPEN; i++) {
        char value[16];
        snprintf(value, sizeof(value), "of %d", i);
        open[i] = txn_begin(db, RW_SNAPSHOT);
        CHECK_OK(txn_put_text(open[i], "mine", value));
    }
    for (int i = 0; i < STALE && good; i++) good = all_closed(db, stale[i]);
    for (int i = 0; i < OPEN && good; i++) {
        char value[16];
        snprintf(value, sizeof(value), "of %d", i);
        good = TAP_CHECK(txn_is(open[i], "mine", value) && rw_txn_id(open[i]) != 0);
    }
    for (int i = 0; i < OPEN; i++) rw_txn_abort(open[i]);
    rw_txn *old = txn_begin(db, RW_SNAPSHOT);
    rw_txn_abort(old);
    for (int i = 0; i < CYCLES && good; i++) {
        rw_txn *txn = txn_begin(db, RW_SNAPSHOT);
        good = TAP_CHECK(txn != old && txn != NULL);
        rw_txn_abort(txn);
        if (i % 5000 == 0 || (i >= 65500 && i < 65570)) good = CHECK_CODE(txn_put_text(old, "a", "stale"), RW_ECLOSED) && good;
    }
    good = all_closed(db, old) && good;
    tap_ok(good, "an old handle never hits one of %d later transactions", CYCLES + OPEN);
}

static void test_read_only(rw_db *db)
{
    rw_txn *txn = txn_begin(db, RW_READONLY);
    char buffer[16];
    size_t size = sizeof(buffer);
    unsigned id = 0;
    CHECK_CODE(txn_put_text(txn, "a", "x"), RW_EREADONLY);
    TAP_CHECK(words_have("read-only"));
    CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text("a")), RW_EREADONLY);
    CHECK_CODE(rw_txn_get_for_update(txn, BUCKET, slice_text("a"), buffer, &size), RW_EREADONLY);
    TAP_CHECK(words_have("read-only"));
    TAP_CHECK(size == sizeof(buffer));
    CHECK_OK(rw_txn_savepoint(txn, &id));
    CHECK_OK(rw_txn_rollback_to(txn, id));
    CHECK_OK(put_text(db, BUCKET, "a", "later"));
    TAP_CHECK(!txn_is(txn, "a", "later"));
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    tap_ok(get_is_text(db, BUCKET, "a", "later"), "writes and claims in a read-only transaction");
}

static int never_called(rw_txn *txn, void *arg)
{
    (void)txn, (void)arg;
    return 4242;
}

static void test_flags(rw_db *db)
{
    static const unsigned bad_begin[] = {1, 16, 2 | 4, 2 | 8, 4 | 8, 2 | 4 | 8, 1 | 2, 1 | 8, 32 | 4, 0x80000000u, UINT32_MAX};
    static const unsigned bad_commit[] = {2, 4, 8, 16, 3, 0x80000000u, UINT32_MAX};
    static const unsigned bad_run[] = {16, 2 | 4, 2 | 8, 1 | 4 | 8, 32, 0x80000001u};
    rw_txn *txn = NULL;
    bool good = true;
    for (size_t i = 0; i < sizeof(bad_begin) / sizeof(bad_begin[0]); i++) {
        bool refused = CHECK_CODE(rw_txn_begin(db, bad_begin[i], &txn), RW_EINVAL);
        if (refused) refused = TAP_CHECK(txn == NULL && words_have("flag"));
        else tap_diag("the flags were 0x%x", bad_begin[i]), rw_txn_abort(txn), txn = NULL;
        good = refused && good;
    }
    for (size_t i = 0; i < sizeof(bad_commit) / sizeof(bad_commit[0]); i++) {
        txn = txn_begin(db, RW_PESSIMISTIC);
        CHECK_OK(txn_put_text(txn, "flags", "x"));
        good = CHECK_CODE(rw_txn_commit(txn, bad_commit[i]), RW_EINVAL) && good;
        good = TAP_CHECK(words_have("flag")) && good;
        good = CHECK_CODE(rw_txn_commit(txn, RW_ASYNC), RW_ECLOSED) && good;
        good = TAP_CHECK(key_absent(db, "flags") && stats_now(db).locks_held == 0) && good;
    }
    for (size_t i = 0; i < sizeof(bad_run) / sizeof(bad_run[0]); i++) good = CHECK_CODE(rw_txn_run(db, bad_run[i], never_called, NULL), RW_EINVAL) && good;
    good = CHECK_CODE(rw_add(db, BUCKET, slice_text("flags"), 1, NULL, 2), RW_EINVAL) && good;
    good = CHECK_CODE(rw_cas(db, BUCKET, slice_text("flags"), NULL, &(rw_slice){"x", 1}, 4), RW_EINVAL) && good;
    tap_ok(good && key_absent(db, "flags"), "two modes at once and unknown bits");
}

static int list_nothing(void *arg, const rw_txn_info *info)
{
    (void)arg, (void)info;
    return 0;
}

static int locks_nothing(void *arg, const rw_lock_info *info)
{
    (void)arg, (void)info;
    return 0;
}

static void test_null_database(void)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    rw_slice key = slice_text("a");
    size_t size = 0;
    unsigned id = 0;
    CHECK_CODE(rw_txn_begin(NULL, 0, &txn), RW_EINVAL);
    CHECK_CODE(rw_txn_get(NULL, BUCKET, key, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_txn_get_for_update(NULL, BUCKET, key, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_txn_put(NULL, BUCKET, key, key), RW_EINVAL);
    CHECK_CODE(rw_txn_del(NULL, BUCKET, key), RW_EINVAL);
    CHECK_CODE(rw_txn_savepoint(NULL, &id), RW_EINVAL);
    CHECK_CODE(rw_txn_rollback_to(NULL, 0), RW_EINVAL);
    CHECK_CODE(rw_txn_commit(NULL, 0), RW_EINVAL);
    rw_txn_abort(NULL);
    rw_cursor_close(NULL);
    CHECK_CODE(rw_txn_run(NULL, 0, never_called, NULL), RW_EINVAL);
    CHECK_CODE(rw_cas(NULL, BUCKET, key, NULL, &key, 0), RW_EINVAL);
    CHECK_CODE(rw_add(NULL, BUCKET, key, 1, NULL, 0), RW_EINVAL);
    CHECK_CODE(rw_txn_list(NULL, list_nothing, NULL), RW_EINVAL);
    CHECK_CODE(rw_lock_list(NULL, locks_nothing, NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_open(NULL, NULL, BUCKET, &cursor), RW_EINVAL);
    TAP_CHECK(txn == NULL && cursor == NULL && size == 0 && id == 0);
    tap_ok(rw_txn_id(NULL) == 0, "no database or transaction at all");
}

static void test_null_arguments(rw_db *db)
{
    rw_txn *txn = txn_begin(db, RW_SERIALIZABLE);
    rw_slice bad = slice_bytes(NULL, 3), key = slice_text("a");
    size_t size = 0, two = 2;
    CHECK_CODE(rw_txn_begin(db, 0, NULL), RW_EINVAL);
    CHECK_CODE(rw_txn_get(txn, BUCKET, key, NULL, NULL), RW_EINVAL);
    CHECK_CODE(rw_txn_get(txn, BUCKET, key, NULL, &two), RW_EINVAL);
    CHECK_CODE(rw_txn_get(txn, BUCKET, bad, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_txn_get_for_update(txn, BUCKET, key, NULL, NULL), RW_EINVAL);
    CHECK_CODE(rw_txn_get_for_update(txn, BUCKET, bad, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_txn_get_for_update(txn, BUCKET, NO_KEY, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_txn_put(txn, BUCKET, bad, key), RW_EINVAL);
    CHECK_CODE(rw_txn_put(txn, BUCKET, key, bad), RW_EINVAL);
    CHECK_CODE(rw_txn_del(txn, BUCKET, bad), RW_EINVAL);
    CHECK_CODE(rw_txn_savepoint(txn, NULL), RW_EINVAL);
    CHECK_CODE(rw_cursor_open(db, txn, BUCKET, NULL), RW_EINVAL);
    CHECK_OK(rw_txn_commit(txn, 0));
    CHECK_CODE(rw_txn_run(db, 0, NULL, NULL), RW_EINVAL);
    CHECK_CODE(rw_txn_list(db, NULL, NULL), RW_EINVAL);
    CHECK_CODE(rw_lock_list(db, NULL, NULL), RW_EINVAL);
    CHECK_CODE(rw_cas(db, BUCKET, bad, NULL, &key, 0), RW_EINVAL);
    CHECK_CODE(rw_cas(db, BUCKET, NO_KEY, NULL, &key, 0), RW_EINVAL);
    CHECK_CODE(rw_cas(db, BUCKET, key, &bad, &key, 0), RW_EINVAL);
    CHECK_CODE(rw_cas(db, BUCKET, key, NULL, &bad, 0), RW_EINVAL);
    CHECK_CODE(rw_add(db, BUCKET, bad, 1, NULL, 0), RW_EINVAL);
    CHECK_CODE(rw_add(db, BUCKET, NO_KEY, 1, NULL, 0), RW_EINVAL);
    tap_ok(size == 0 && two == 2, "NULL where something must be");
}

static void test_sizes(rw_db *db)
{
    size_t max = rw_key_size_max(4096);
    char *longest = calloc(1, max + 1);
    rw_slice key = slice_text("a"), long_key = slice_bytes(longest, max + 1), huge = slice_bytes(longest, RW_VALUE_SIZE_MAX + 1);
    if (!TAP_CHECK(longest != NULL)) return;
    rw_txn *txn = txn_begin(db, RW_PESSIMISTIC);
    CHECK_CODE(rw_txn_put(txn, BUCKET, long_key, key), RW_ETOOBIG);
    CHECK_CODE(rw_txn_put(txn, BUCKET, key, huge), RW_ETOOBIG);
    CHECK_OK(rw_txn_put(txn, BUCKET, slice_bytes(longest, max), key));
    CHECK_CODE(rw_txn_put(txn, 424242, key, key), RW_ENOTFOUND);
    TAP_CHECK(words_have("bucket"));
    CHECK_CODE(rw_txn_del(txn, 424242, key), RW_ENOTFOUND);
    rw_txn_abort(txn);
    CHECK_CODE(rw_cas(db, BUCKET, long_key, NULL, &key, 0), RW_ETOOBIG);
    CHECK_CODE(rw_cas(db, BUCKET, slice_text("never"), NULL, &huge, 0), RW_ETOOBIG);
    CHECK_CODE(rw_cas(db, 424242, key, NULL, &key, 0), RW_ENOTFOUND);
    CHECK_CODE(rw_add(db, BUCKET, long_key, 1, NULL, 0), RW_ETOOBIG);
    CHECK_CODE(rw_add(db, 424242, key, 1, NULL, 0), RW_ENOTFOUND);
    free(longest);
    tap_ok(key_absent(db, "never"), "keys and values that are too big, buckets that are not there");
}

static void test_cursors(rw_db *db)
{
    bool good = true;
    for (size_t m = 0; m < TXN_MODES; m++) {
        rw_txn *txn = txn_begin(db, txn_modes[m]);
        rw_cursor *one = NULL, *two = NULL, *orphan = NULL;
        rw_slice out = NO_KEY;
        CHECK_OK(rw_cursor_open(db, txn, BUCKET, &one));
        CHECK_OK(rw_cursor_open(db, txn, BUCKET, &two));
        CHECK_OK(rw_cursor_first(one));
        good = CHECK_CODE(rw_txn_commit(txn, RW_ASYNC), RW_EBUSY) && TAP_CHECK(words_have("cursor")) && good;
        rw_cursor_close(one);
        good = CHECK_CODE(rw_txn_commit(txn, RW_ASYNC), RW_EBUSY) && CHECK_OK(rw_cursor_last(two)) && good;
        if (txn_modes[m] != RW_READONLY) good = CHECK_OK(txn_put_text(txn, "under cursors", "x")) && good;
        rw_cursor_close(two);
        good = CHECK_OK(rw_txn_commit(txn, RW_ASYNC)) && good;
        txn = txn_begin(db, txn_modes[m]);
        CHECK_OK(rw_cursor_open(db, txn, BUCKET, &orphan));
        CHECK_OK(rw_cursor_first(orphan));
        rw_txn_abort(txn);
        rw_txn *later = txn_begin(db, txn_modes[m]);
        good = CHECK_CODE(rw_cursor_next(orphan), RW_ECLOSED) && CHECK_CODE(rw_cursor_seek(orphan, slice_text("a")), RW_ECLOSED) && good;
        good = CHECK_CODE(rw_cursor_prev(orphan), RW_ECLOSED) && CHECK_CODE(rw_cursor_last(orphan), RW_ECLOSED) && good;
        good = TAP_CHECK(rw_cursor_value(orphan, &out) < 0 && rw_cursor_key(orphan, &out) < 0 && out.data == NULL) && good;
        rw_cursor_close(orphan);
        good = CHECK_CODE(txn_get_code(later, "a"), 0) && good;
        rw_txn_abort(later);
    }
    tap_ok(good, "ends under cursors, and cursors that outlive their transaction");
}

static void test_other_database(rw_db *db)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_cursor *cursor = NULL;
    if (!dir_make(dir, "other")) return;
    rw_db *other = open_or_exit(dir, &options);
    rw_txn *txn = txn_begin(other, RW_SNAPSHOT);
    CHECK_CODE(rw_cursor_open(db, txn, BUCKET, &cursor), RW_EINVAL);
    TAP_CHECK(cursor == NULL && words_have("database"));
    CHECK_OK(rw_cursor_open(other, txn, BUCKET, &cursor));
    rw_cursor_close(cursor);
    CHECK_OK(txn_put_text(txn, "k", "v"));
    for (size_t m = 0; m < TXN_MODES; m++) {
        rw_txn *open = txn_begin(other, txn_modes[m]);
        CHECK_CODE(rw_close(other), RW_EBUSY);
        TAP_CHECK(words_have("transaction"));
        rw_txn_abort(open);
    }
    CHECK_CODE(rw_close(other), RW_EBUSY);
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    TAP_CHECK(get_is_text(other, BUCKET, "k", "v"));
    CHECK_OK(rw_close(other));
    CHECK_CODE(rw_txn_get(txn, BUCKET, slice_text("k"), NULL, &(size_t){0}), RW_ECLOSED);
    CHECK_CODE(rw_txn_begin(other, 0, &txn), RW_ECLOSED);
    dir_remove(dir);
    tap_ok(true, "a transaction of another database; closing under open transactions");
}

/* A thread stands in a transaction, waiting for a lock: nobody else gets in. */
static void test_two_threads_wait(rw_db *db)
{
    rw_txn *holder = txn_begin(db, RW_PESSIMISTIC), *txn = txn_begin(db, RW_PESSIMISTIC);
    rw_cursor *cursor = NULL;
    side_call call;
    side_op op = {.db = db, .txn = txn, .key = "busy", .value = "mine"};
    uint64_t id = rw_txn_id(txn);
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_OK(txn_put_text(holder, "busy", "held"));
    side_start(&call, side_op_run, &op);
    TAP_CHECK(wait_for_waiting(db, 1));
    bool good = all_refused(db, txn, RW_EBUSY);
    good = CHECK_CODE(rw_txn_commit(txn, RW_ASYNC), RW_EBUSY) && TAP_CHECK(words_have("thread")) && good;
    good = CHECK_CODE(rw_cursor_first(cursor), RW_EBUSY) && CHECK_CODE(rw_close(db), RW_EBUSY) && good;
    rw_txn_abort(holder);
    good = CHECK_OK(side_join(&call)) && good;
    good = TAP_CHECK(rw_txn_id(txn) == id) && CHECK_OK(rw_cursor_first(cursor)) && good;
    rw_cursor_close(cursor);
    good = CHECK_OK(rw_txn_commit(txn, RW_ASYNC)) && good;
    tap_ok(good && get_is_text(db, BUCKET, "busy", "mine"), "a call that meets a waiting one in the same transaction");
}

/* The same, and the second one aborts: whatever comes of it, both calls return, and no lock is left. */
static void test_two_threads_abort(rw_db *db)
{
    rw_txn *holder = txn_begin(db, RW_PESSIMISTIC), *txn = txn_begin(db, RW_PESSIMISTIC);
    side_call call;
    side_op op = {.db = db, .txn = txn, .key = "busy", .value = "again"};
    CHECK_OK(txn_put_text(holder, "busy", "held"));
    side_start(&call, side_op_run, &op);
    TAP_CHECK(wait_for_waiting(db, 1));
    rw_txn_abort(txn);
    rw_txn_abort(holder);
    int code = side_join(&call);
    TAP_CHECK(code == 0 || code == RW_ECLOSED || code == RW_EBUSY);
    rw_txn_abort(txn);
    CHECK_CODE(txn_get_code(txn, "a"), RW_ECLOSED);
    rw_stats_t stats = stats_now(db);
    tap_ok(stats.locks_held == 0 && stats.txns_open == 0, "an abort that meets a waiting call in the same transaction");
}

typedef struct {
    rw_txn *txn;
    int number;
    _Atomic int64_t end_us;
    unsigned busy, done;
} hammer;

static int hammer_run(void *arg)
{
    hammer *h = arg;
    char key[24];
    unsigned id;
    for (int i = 0; now_us() < atomic_load(&h->end_us); i++) {
        int code;
        snprintf(key, sizeof(key), "hammer %d", i % 100);
        switch (i % 5) {
        case 0: code = txn_get_code(h->txn, key); break;
        case 1: code = rw_txn_del(h->txn, BUCKET, slice_text(key)); break;
        case 2: code = rw_txn_savepoint(h->txn, &id) == 0 ? rw_txn_rollback_to(h->txn, id) : RW_EBUSY; break;
        default: code = txn_put_text(h->txn, key, h->number == 0 ? "zero" : "one"); break;
        }
        if (code == RW_EINVAL && i % 5 == 2) code = 0;   /* the other one's rollback forgot it */
        if (code == RW_EBUSY) h->busy++;
        else if (code == 0 || code == RW_ENOTFOUND) h->done++;
        else return code;
    }
    return 0;
}

static void test_two_threads_hammer(rw_db *db)
{
    bool good = true;
    for (size_t m = 0; m < TXN_MODES_WRITING; m++) {
        rw_txn *txn = txn_begin(db, txn_modes[m]);
        hammer hammers[2];
        side_call calls[2];
        for (int i = 0; i < 2; i++) {
            hammers[i] = (hammer){.txn = txn, .number = i, .end_us = now_us() + 150000};
            side_start(&calls[i], hammer_run, &hammers[i]);
        }
        for (int i = 0; i < 2; i++) good = CHECK_OK(side_join(&calls[i])) && good;
        tap_diag("mode %u: %u and %u calls done, %u and %u met another", txn_modes[m], hammers[0].done, hammers[1].done, hammers[0].busy, hammers[1].busy);
        CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
        for (int i = 0; i < 100; i++) {
            char key[24];
            snprintf(key, sizeof(key), "hammer %d", i);
            good = TAP_CHECK(key_absent(db, key) || get_is_text(db, BUCKET, key, "zero") || get_is_text(db, BUCKET, key, "one")) && good;
        }
    }
    tap_ok(good, "two threads hammer one transaction: RW_EBUSY or one after the other");
}

typedef struct {
    rw_db *db;
    int what;
    int calls;
    rw_cursor *cursor;
    rw_txn *txn;
} run_state;

static int run_put(rw_txn *txn, void *arg)
{
    (void)arg;
    return txn_put_text(txn, "inner", "x");
}

static int run_misused(rw_txn *txn, void *arg)
{
    run_state *state = arg;
    int code = txn_put_text(txn, "outer", "x");
    state->txn = txn;
    if (code != 0 || state->calls++ > 3) return code != 0 ? code : 99;
    switch (state->what) {
    case 0: return rw_txn_run(state->db, RW_SERIALIZABLE | RW_ASYNC, run_put, NULL);
    case 1: return rw_txn_commit(txn, RW_ASYNC);
    case 2: return rw_txn_abort(txn), 0;
    case 3: return rw_txn_abort(txn), RW_ECONFLICT;
    default: return rw_cursor_open(state->db, txn, BUCKET, &state->cursor);
    }
}

static void test_run(rw_db *db)
{
    run_state state = {.db = db};
    CHECK_OK(rw_txn_run(db, RW_PESSIMISTIC | RW_ASYNC, run_misused, &state));
    TAP_CHECK(get_is_text(db, BUCKET, "inner", "x") && get_is_text(db, BUCKET, "outer", "x") && state.calls == 1);
    tap_ok(rw_txn_id(state.txn) == 0, "rw_txn_run inside rw_txn_run");
    for (int what = 1; what <= 2; what++) {
        state = (run_state){.db = db, .what = what};
        CHECK_CODE(rw_txn_run(db, RW_ASYNC, run_misused, &state), RW_EINVAL);
        TAP_CHECK(state.calls == 1 && words_have("transaction"));
    }
    state = (run_state){.db = db, .what = 3};
    CHECK_CODE(rw_txn_run(db, RW_ASYNC, run_misused, &state), RW_EINVAL);
    state = (run_state){.db = db, .what = 4};
    CHECK_CODE(rw_txn_run(db, RW_ASYNC, run_misused, &state), RW_EBUSY);
    TAP_CHECK(words_have("cursor") && state.cursor != NULL);
    CHECK_CODE(rw_cursor_first(state.cursor), RW_ECLOSED);
    rw_cursor_close(state.cursor);
    tap_ok(stats_now(db).txns_open == 0, "a function of rw_txn_run that ends its transaction or leaves a cursor open");
}

/* Two transactions in a cycle: *victim lost, the other one commits. */
static void make_deadlock(rw_db *db, rw_txn **victim)
{
    rw_txn *one = txn_begin(db, RW_PESSIMISTIC), *two = txn_begin(db, RW_PESSIMISTIC);
    side_call call;
    side_op op = {.db = db, .txn = one, .key = "d2", .value = "one"};
    CHECK_OK(txn_put_text(one, "d1", "one"));
    CHECK_OK(txn_put_text(two, "d2", "two"));
    side_start(&call, side_op_run, &op);
    TAP_CHECK(wait_for_waiting(db, 1));
    int code = txn_put_text(two, "d1", "two");
    if (code == 0) CHECK_OK(rw_txn_commit(two, RW_ASYNC));
    int other = side_join(&call);
    TAP_CHECK((code == RW_EDEADLOCK) != (other == RW_EDEADLOCK) && (code == 0 || other == 0));
    *victim = code == RW_EDEADLOCK ? two : one;
    if (code == RW_EDEADLOCK) CHECK_OK(rw_txn_commit(one, RW_ASYNC));
}

static void test_after_deadlock(rw_db *db)
{
    rw_txn *victim = NULL;
    make_deadlock(db, &victim);
    TAP_CHECK(stats_now(db).locks_held == 0);
    bool good = all_refused(db, victim, RW_EDEADLOCK);
    good = TAP_CHECK(rw_txn_id(victim) != 0) && good;
    good = CHECK_CODE(rw_close(db), RW_EBUSY) && good;
    rw_txn_abort(victim);
    good = all_closed(db, victim) && good;
    make_deadlock(db, &victim);
    good = CHECK_CODE(rw_txn_commit(victim, RW_ASYNC), RW_EDEADLOCK) && good;
    rw_txn_abort(victim);
    good = all_closed(db, victim) && good;
    good = TAP_CHECK(get_is_text(db, BUCKET, "d1", "one") == get_is_text(db, BUCKET, "d2", "one")) && good;
    tap_ok(good && stats_now(db).txns_open == 0, "after a deadlock only the abort is left to the victim");
}

static void test_savepoint_ids(rw_db *db)
{
    rw_txn *txn = txn_begin(db, RW_SNAPSHOT);
    unsigned one = 0, two = 0, three = 0;
    CHECK_OK(rw_txn_savepoint(txn, &one));
    CHECK_CODE(rw_txn_rollback_to(txn, one + 1), RW_EINVAL);
    TAP_CHECK(words_have("savepoint"));
    CHECK_CODE(rw_txn_rollback_to(txn, UINT32_MAX), RW_EINVAL);
    CHECK_OK(txn_put_text(txn, "s", "1"));
    CHECK_OK(rw_txn_savepoint(txn, &two));
    CHECK_OK(rw_txn_savepoint(txn, &three));
    TAP_CHECK(one != two && two != three);
    CHECK_OK(rw_txn_rollback_to(txn, one));
    CHECK_CODE(rw_txn_rollback_to(txn, two), RW_EINVAL);
    CHECK_CODE(rw_txn_rollback_to(txn, three), RW_EINVAL);
    CHECK_OK(rw_txn_rollback_to(txn, one));
    CHECK_OK(txn_put_text(txn, "s", "2"));
    for (int i = 0; i < 20000; i++)
        if (!CHECK_OK(rw_txn_savepoint(txn, &two))) break;
    CHECK_OK(txn_put_text(txn, "s", "3"));
    CHECK_OK(rw_txn_rollback_to(txn, two));
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    tap_ok(get_is_text(db, BUCKET, "s", "2"), "savepoints of the future, forgotten ones, and 20,000 of them");
}

/* What a bucket that is dropped takes with it. */
static void test_dropped_bucket(rw_db *db)
{
    bool good = true;
    for (size_t m = 0; m < TXN_MODES_WRITING; m++) {
        rw_bucket bucket = 0;
        CHECK_OK(rw_bucket_open(db, "doomed", RW_CREATE, &bucket));
        CHECK_OK(put_text(db, bucket, "k", "v"));
        CHECK_OK(put_text(db, BUCKET, "kept", "old"));
        rw_txn *txn = txn_begin(db, txn_modes[m]);
        CHECK_OK(txn_put_text(txn, "kept", "new"));
        if (txn_modes[m] != RW_PESSIMISTIC) CHECK_OK(rw_txn_put(txn, bucket, slice_text("k"), slice_text("w")));
        CHECK_OK(rw_bucket_drop(db, bucket));
        if (txn_modes[m] == RW_PESSIMISTIC) good = CHECK_CODE(rw_txn_put(txn, bucket, slice_text("k"), slice_text("w")), RW_ENOTFOUND) && good;
        int code = rw_txn_commit(txn, RW_ASYNC);
        good = TAP_CHECK(txn_modes[m] == RW_PESSIMISTIC ? code == 0 : code == RW_ENOTFOUND || code == RW_ECONFLICT) && good;
        good = TAP_CHECK(get_is_text(db, BUCKET, "kept", code == 0 ? "new" : "old")) && good;
    }
    tap_ok(good, "a commit into a bucket that was dropped changes nothing");
}

static int use_in_child(void *arg)
{
    void **handles = arg;
    rw_txn *txn = handles[1];
    size_t size = 0;
    int code;
    if (!CHILD_CODE(rw_txn_get(txn, BUCKET, slice_text("a"), NULL, &size), RW_EFORK)) return 1;
    if (!CHILD_CODE(rw_txn_put(txn, BUCKET, slice_text("a"), slice_text("child")), RW_EFORK)) return 2;
    if (!CHILD_CODE(rw_txn_begin(handles[0], 0, &txn), RW_EFORK)) return 3;
    if (!CHILD_CODE(rw_txn_run(handles[0], 0, run_put, NULL), RW_EFORK)) return 4;
    if (!CHILD_CODE(rw_add(handles[0], BUCKET, slice_text("n"), 1, NULL, 0), RW_EFORK)) return 5;
    if (!CHILD_CODE(rw_cas(handles[0], BUCKET, slice_text("n"), NULL, NULL, 0), RW_EFORK)) return 6;
    if (!CHILD_CODE(rw_cursor_first(handles[2]), RW_EFORK)) return 7;
    if (!CHILD_CODE(rw_txn_list(handles[0], list_nothing, NULL), RW_EFORK)) return 8;
    code = rw_txn_commit(txn, 0);
    rw_txn_abort(txn);
    return code == RW_EFORK ? 0 : 9;
}

static void test_fork(rw_db *db)
{
    rw_txn *txn = txn_begin(db, RW_SNAPSHOT);
    rw_cursor *cursor = NULL;
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_OK(txn_put_text(txn, "forked", "parent"));
    void *handles[3] = {db, txn, cursor};
    int status = child_run(use_in_child, handles, 20);
    if (status != 0) tap_diag("%d: %s", status, child_said());
    rw_cursor_close(cursor);
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    tap_ok(status == 0 && get_is_text(db, BUCKET, "forked", "parent"), "a child's use of its parent's transaction is RW_EFORK, and the parent goes on");
}

static void test_read_only_database(const char *dir)
{
    rw_options options = options_small();
    rw_txn *txn = NULL;
    options.read_only = 1;
    rw_db *db = open_or_exit(dir, &options);
    for (size_t m = 0; m < TXN_MODES; m++) {
        CHECK_OK(rw_txn_begin(db, txn_modes[m], &txn));
        CHECK_OK(txn_get_code(txn, "a"));
        CHECK_CODE(txn_put_text(txn, "a", "x"), RW_EREADONLY);
        CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text("a")), RW_EREADONLY);
        CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    }
    CHECK_CODE(rw_add(db, BUCKET, slice_text("n"), 1, NULL, 0), RW_EREADONLY);
    CHECK_CODE(rw_cas(db, BUCKET, slice_text("n"), NULL, &(rw_slice){"x", 1}, 0), RW_EREADONLY);
    CHECK_CODE(rw_txn_run(db, 0, run_put, NULL), RW_EREADONLY);
    CHECK_OK(rw_close(db));
    tap_ok(true, "transactions of a read-only database");
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    alarm(240);
    options.lock_timeout_ms = 30000;
    if (!dir_make(dir, "misuse")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(put_text(db, BUCKET, "a", "0"));
    test_use_after_end(db);
    test_stale_handles(db);
    test_read_only(db);
    test_flags(db);
    test_null_database();
    test_null_arguments(db);
    test_sizes(db);
    test_cursors(db);
    test_other_database(db);
    test_two_threads_wait(db);
    test_two_threads_abort(db);
    test_two_threads_hammer(db);
    test_run(db);
    test_after_deadlock(db);
    test_savepoint_ids(db);
    test_dropped_bucket(db);
    test_fork(db);
    tap_ok(wait_for_rest(db), "nothing is left of them");
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    test_read_only_database(dir);
    dir_remove(dir);
    return tap_done();
}
