/* Transactions: own writes, rollback, savepoints, ends, and cursors that merge own writes with what is committed. */
#include <stdio.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

static int txn_put_text(rw_txn *txn, const char *key, const char *value)
{
    return rw_txn_put(txn, BUCKET, slice_text(key), slice_text(value));
}

static bool txn_is_in(rw_txn *txn, rw_bucket bucket, const char *key, const char *value)
{
    char buffer[64];
    size_t size = sizeof(buffer);
    return rw_txn_get(txn, bucket, slice_text(key), buffer, &size) == 0 && slice_same(slice_bytes(buffer, size), slice_text(value));
}

static bool txn_is(rw_txn *txn, const char *key, const char *value)
{
    return txn_is_in(txn, BUCKET, key, value);
}

static bool txn_absent(rw_txn *txn, const char *key)
{
    size_t size = 0;
    return rw_txn_get(txn, BUCKET, slice_text(key), NULL, &size) == RW_ENOTFOUND;
}

static bool absent(rw_db *db, const char *key)
{
    return get_code(db, BUCKET, slice_text(key)) == RW_ENOTFOUND;
}

static void reset(rw_db *db)
{
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    CHECK_OK(put_text(db, BUCKET, "a", "old a"));
    CHECK_OK(put_text(db, BUCKET, "b", "old b"));
}

static void test_own_writes(rw_db *db)
{
    rw_txn *txn = NULL;
    char buffer[2];
    size_t size = sizeof(buffer);
    reset(db);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    TAP_CHECK(txn_is(txn, "a", "old a"));
    CHECK_OK(txn_put_text(txn, "a", "new a"));
    CHECK_OK(txn_put_text(txn, "c", "new c"));
    CHECK_OK(rw_txn_del(txn, BUCKET, slice_text("b")));
    CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text("b")), RW_ENOTFOUND);
    CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text("never")), RW_ENOTFOUND);
    TAP_CHECK(txn_is(txn, "a", "new a") && txn_is(txn, "c", "new c") && txn_absent(txn, "b"));
    CHECK_CODE(rw_txn_get(txn, BUCKET, slice_text("c"), buffer, &size), RW_ETOOSMALL);
    TAP_CHECK(size == 5);
    CHECK_OK(txn_put_text(txn, "d", ""));
    TAP_CHECK(txn_is(txn, "d", ""));
    CHECK_OK(rw_txn_del(txn, BUCKET, slice_text("d")));
    TAP_CHECK(txn_absent(txn, "d"));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "old a") && get_is_text(db, BUCKET, "b", "old b") && absent(db, "c"));
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "new a") && absent(db, "b") && absent(db, "d"));
    tap_ok(get_is_text(db, BUCKET, "c", "new c"), "a transaction reads its own writes, nobody else does before the commit");
}

static void test_abort(rw_db *db)
{
    rw_txn *txn = NULL;
    reset(db);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_OK(txn_put_text(txn, "a", "x"));
    CHECK_OK(rw_txn_del(txn, BUCKET, slice_text("b")));
    rw_txn_abort(txn);
    TAP_CHECK(get_is_text(db, BUCKET, "a", "old a") && get_is_text(db, BUCKET, "b", "old b"));
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_OK(txn_put_text(txn, "a", "x"));
    CHECK_CODE(rw_txn_commit(txn, 2), RW_EINVAL);
    tap_ok(get_is_text(db, BUCKET, "a", "old a"), "an aborted, an empty and a refused transaction change nothing");
}

static void test_txn_refused(rw_db *db)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    rw_slice bad = slice_bytes(NULL, 2);
    static const char small[4] = "v";
    size_t max = rw_key_size_max(4096), size = 0;
    char *longest = calloc(1, max + 1);
    if (!TAP_CHECK(longest != NULL)) return;
    CHECK_CODE(rw_txn_begin(db, 1, &txn), RW_EINVAL);
    CHECK_CODE(rw_txn_begin(db, RW_SERIALIZABLE | RW_PESSIMISTIC, &txn), RW_EINVAL);
    TAP_CHECK(txn == NULL);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_CODE(rw_txn_put(txn, BUCKET, NO_KEY, slice_text("v")), RW_EINVAL);
    CHECK_CODE(rw_txn_put(txn, BUCKET, bad, slice_text("v")), RW_EINVAL);
    CHECK_CODE(rw_txn_put(txn, BUCKET, slice_text("k"), bad), RW_EINVAL);
    CHECK_CODE(rw_txn_put(txn, BUCKET, slice_bytes(longest, max + 1), slice_text("v")), RW_ETOOBIG);
    CHECK_CODE(rw_txn_put(txn, BUCKET, slice_text("k"), slice_bytes(small, RW_VALUE_SIZE_MAX + 1)), RW_ETOOBIG);
    CHECK_CODE(rw_txn_del(txn, BUCKET, NO_KEY), RW_EINVAL);
    CHECK_CODE(rw_txn_get(txn, BUCKET, NO_KEY, NULL, &size), RW_EINVAL);
    CHECK_CODE(rw_txn_get(txn, BUCKET, slice_text("a"), NULL, NULL), RW_EINVAL);
    CHECK_CODE(rw_txn_get(txn, 424242, slice_text("a"), NULL, &size), RW_ENOTFOUND);
    CHECK_CODE(rw_txn_savepoint(txn, NULL), RW_EINVAL);
    CHECK_CODE(rw_txn_rollback_to(txn, 12345), RW_EINVAL);
    CHECK_CODE(rw_cursor_open(db, txn, 424242, &cursor), RW_ENOTFOUND);
    TAP_CHECK(cursor == NULL);
    rw_txn_abort(txn);
    free(longest);
    tap_ok(true, "wrong arguments to a transaction");
}

static void test_read_only(rw_db *db)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    reset(db);
    CHECK_OK(rw_txn_begin(db, RW_READONLY, &txn));
    CHECK_CODE(txn_put_text(txn, "a", "x"), RW_EREADONLY);
    CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text("a")), RW_EREADONLY);
    TAP_CHECK(txn_is(txn, "a", "old a") && txn_absent(txn, "zz"));
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_OK(rw_cursor_last(cursor));
    TAP_CHECK(cursor_at(cursor, "b", "old b"));
    rw_cursor_close(cursor);
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    tap_ok(get_is_text(db, BUCKET, "a", "old a"), "RW_READONLY refuses writes and reads on");
}

static void test_savepoints(rw_db *db)
{
    rw_txn *txn = NULL;
    unsigned zero = 0, one = 0, two = 0, again = 0;
    reset(db);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_OK(rw_txn_savepoint(txn, &zero));
    CHECK_OK(txn_put_text(txn, "a", "1"));
    CHECK_OK(rw_txn_savepoint(txn, &one));
    CHECK_OK(txn_put_text(txn, "a", "2"));
    CHECK_OK(rw_txn_del(txn, BUCKET, slice_text("b")));
    CHECK_OK(rw_txn_savepoint(txn, &two));
    CHECK_OK(txn_put_text(txn, "a", "3"));
    CHECK_OK(txn_put_text(txn, "c", "3"));
    TAP_CHECK(zero != one && one != two && zero != two);
    CHECK_OK(rw_txn_rollback_to(txn, two));
    TAP_CHECK(txn_is(txn, "a", "2") && txn_absent(txn, "b") && txn_absent(txn, "c"));
    CHECK_OK(txn_put_text(txn, "c", "4"));
    CHECK_OK(rw_txn_rollback_to(txn, two));
    TAP_CHECK(txn_absent(txn, "c"));
    CHECK_OK(rw_txn_rollback_to(txn, one));
    TAP_CHECK(txn_is(txn, "a", "1") && txn_is(txn, "b", "old b"));
    CHECK_CODE(rw_txn_rollback_to(txn, two), RW_EINVAL);
    CHECK_OK(rw_txn_savepoint(txn, &again));
    CHECK_OK(txn_put_text(txn, "d", "5"));
    CHECK_OK(rw_txn_rollback_to(txn, again));
    CHECK_OK(rw_txn_rollback_to(txn, zero));
    TAP_CHECK(txn_is(txn, "a", "old a") && txn_absent(txn, "d"));
    CHECK_CODE(rw_txn_rollback_to(txn, one), RW_EINVAL);
    CHECK_OK(txn_put_text(txn, "e", "6"));
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "a", "old a") && get_is_text(db, BUCKET, "b", "old b") && count_keys(db, BUCKET) == 3);
    tap_ok(get_is_text(db, BUCKET, "e", "6"), "savepoints nest; rolling back forgets the later ones and keeps its own");
}

/* Closing in any order: a commit waits for cursors, an abort disables them. */
static void test_ends_with_cursors(rw_db *db)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    rw_slice out = NO_KEY;
    reset(db);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_OK(txn_put_text(txn, "c", "new"));
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_OK(rw_cursor_last(cursor));
    CHECK_CODE(rw_txn_commit(txn, RW_SYNC), RW_EBUSY);
    TAP_CHECK(cursor_at(cursor, "c", "new") && absent(db, "c"));
    CHECK_OK(txn_put_text(txn, "d", "after the refusal"));
    rw_cursor_close(cursor);
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    TAP_CHECK(get_is_text(db, BUCKET, "c", "new") && get_is_text(db, BUCKET, "d", "after the refusal"));
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_OK(rw_cursor_first(cursor));
    rw_txn_abort(txn);
    TAP_CHECK(rw_cursor_next(cursor) < 0 && rw_cursor_first(cursor) < 0 && rw_cursor_seek(cursor, slice_text("a")) < 0);
    TAP_CHECK(rw_cursor_key(cursor, &out) < 0 && out.data == NULL);
    CHECK_CODE(rw_close(db), RW_EBUSY);
    rw_cursor_close(cursor);
    tap_ok(true, "commit is RW_EBUSY under a cursor; after an abort its cursors fail until closed");
}

static void test_txn_buckets(rw_db *db)
{
    rw_txn *txn = NULL;
    rw_bucket one = 0, two = 0;
    rw_slice key = slice_text("k");
    CHECK_OK(rw_bucket_open(db, "one", RW_CREATE, &one));
    CHECK_OK(rw_bucket_open(db, "two", RW_CREATE, &two));
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_OK(rw_txn_put(txn, one, key, slice_text("in one")));
    CHECK_OK(rw_txn_put(txn, two, key, slice_text("in two")));
    TAP_CHECK(txn_is_in(txn, one, "k", "in one") && txn_is_in(txn, two, "k", "in two") && txn_absent(txn, "k"));
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    TAP_CHECK(get_is_text(db, one, "k", "in one") && get_is_text(db, two, "k", "in two"));
    CHECK_OK(rw_bucket_drop(db, one));
    CHECK_OK(rw_bucket_drop(db, two));
    tap_ok(true, "a transaction over buckets");
}

/* Two transactions that write one key: the first to commit wins, the other changes nothing. */
static void test_two_writers(rw_db *db)
{
    rw_txn *first = NULL, *second = NULL;
    reset(db);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &first));
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &second));
    CHECK_OK(txn_put_text(first, "a", "first"));
    CHECK_OK(txn_put_text(second, "a", "second"));
    CHECK_OK(txn_put_text(second, "z", "second"));
    TAP_CHECK(txn_is(first, "a", "first") && txn_is(second, "a", "second"));
    CHECK_OK(rw_txn_commit(first, RW_ASYNC));
    TAP_CHECK(txn_is(second, "a", "second"));
    CHECK_CODE(rw_txn_commit(second, RW_ASYNC), RW_ECONFLICT);
    tap_ok(absent(db, "z") && get_is_text(db, BUCKET, "a", "first"), "two transactions on one key: the first to commit wins");
}

/* A model of a small keyspace: the generation of each key's value, -1 for absent. */
#define MODEL_KEYS 40

typedef struct {
    int values[MODEL_KEYS];
} model;

enum { STANDS_NOWHERE = -3, STANDS_BEFORE = -2, STANDS_AFTER = MODEL_KEYS };

static void model_key(int i, char key[8])
{
    snprintf(key, 8, "k%02d", i);
}

static int model_next(const model *state, int at)
{
    for (int i = at + 1; i < MODEL_KEYS; i++)
        if (state->values[i] >= 0) return i;
    return STANDS_AFTER;
}

static int model_prev(const model *state, int at)
{
    for (int i = at - 1; i >= 0; i--)
        if (state->values[i] >= 0) return i;
    return STANDS_BEFORE;
}

static void model_commit_base(rw_db *db, model *base, prng *random)
{
    char key[8], value[16];
    CHECK_OK(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC));
    uint64_t density = prng_below(random, 4);
    for (int i = 0; i < MODEL_KEYS; i++) {
        base->values[i] = prng_below(random, 4) < density ? i : -1;
        if (base->values[i] < 0) continue;
        model_key(i, key);
        snprintf(value, sizeof(value), "v%d", i);
        CHECK_OK(put_text(db, BUCKET, key, value));
    }
}

static bool model_write(rw_txn *txn, model *state, prng *random, int generation)
{
    char key[8], value[16];
    int i = (int)prng_below(random, MODEL_KEYS);
    model_key(i, key);
    if (prng_below(random, 5) < 2) {
        int want = state->values[i] < 0 ? RW_ENOTFOUND : 0;
        state->values[i] = -1;
        return CHECK_CODE(rw_txn_del(txn, BUCKET, slice_text(key)), want);
    }
    state->values[i] = generation;
    snprintf(value, sizeof(value), "v%d", generation);
    return CHECK_OK(txn_put_text(txn, key, value));
}

static int model_seek(rw_cursor *cursor, const model *state, prng *random, int *at)
{
    char key[8];
    int target = (int)prng_below(random, MODEL_KEYS);
    bool between = prng_below(random, 3) == 0;
    model_key(target, key);
    if (between) key[3] = '!', key[4] = 0;
    *at = model_next(state, between ? target : target - 1);
    return rw_cursor_seek(cursor, slice_text(key));
}

/* One step of the walk; *at becomes where the model then stands. Returns the store's code. */
static int model_move(rw_cursor *cursor, const model *state, prng *random, int *at)
{
    uint64_t step = prng_below(random, 16);
    if (step == 0) return *at = model_next(state, -1), rw_cursor_first(cursor);
    if (step == 1) return *at = model_prev(state, MODEL_KEYS), rw_cursor_last(cursor);
    if (step < 4) return model_seek(cursor, state, random, at);
    bool forwards = prng_below(random, 2) == 0;
    if (*at == STANDS_NOWHERE) *at = forwards ? -1 : MODEL_KEYS;
    if (*at == STANDS_BEFORE) *at = -1;
    *at = forwards ? model_next(state, *at) : model_prev(state, *at);
    return forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor);
}

static bool model_stands(rw_cursor *cursor, const model *state, int at, int code)
{
    rw_slice out = NO_KEY;
    char key[8], value[16];
    if (at < 0 || at >= MODEL_KEYS)
        return code == RW_ENOTFOUND && rw_cursor_key(cursor, &out) == RW_ENOTFOUND && rw_cursor_value(cursor, &out) == RW_ENOTFOUND;
    model_key(at, key);
    snprintf(value, sizeof(value), "v%d", state->values[at]);
    return code == 0 && cursor_at(cursor, key, value);
}

/* first on an empty keyspace may stand past either end; the walk must not depend on which. */
static bool model_empty(const model *state)
{
    return model_next(state, -1) == STANDS_AFTER;
}

static bool walk(rw_cursor *cursor, rw_txn *txn, model *state, prng *random)
{
    int at = STANDS_NOWHERE;
    for (int step = 0; step < 200; step++) {
        if (txn != NULL && prng_below(random, 4) == 0 && !model_write(txn, state, random, 1000 + step)) return false;
        bool was_empty = model_empty(state);
        int code = model_move(cursor, state, random, &at);
        if (!model_stands(cursor, state, at, code)) {
            tap_diag("step %d: the model stands at %d of %d, the cursor returned %d", step, at, MODEL_KEYS, code);
            return false;
        }
        if (was_empty) return true;
    }
    return true;
}

/* Own puts and deletes made before the cursor was opened and while it stands somewhere, in both directions. */
static void test_cursor_merges(rw_db *db)
{
    bool good = true;
    for (uint64_t seed = 1; seed <= 300 && good; seed++) {
        prng random = {seed};
        model state;
        rw_txn *txn = NULL;
        rw_cursor *cursor = NULL;
        model_commit_base(db, &state, &random);
        CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
        for (uint64_t i = prng_below(&random, 40); i > 0; i--) model_write(txn, &state, &random, 500);
        CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
        bool writes_meanwhile = seed % 2 == 0;
        good = walk(cursor, writes_meanwhile ? txn : NULL, &state, &random);
        if (!good) tap_diag("seed %llu", (unsigned long long)seed);
        rw_cursor_close(cursor);
        rw_txn_abort(txn);
    }
    tap_ok(good, "a transaction's cursor merges its writes in both directions, with turns");
}

static void test_cursor_plain(rw_db *db)
{
    bool good = true;
    for (uint64_t seed = 1; seed <= 100 && good; seed++) {
        prng random = {seed};
        model state;
        rw_cursor *cursor = NULL;
        model_commit_base(db, &state, &random);
        CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
        good = walk(cursor, NULL, &state, &random);
        if (!good) tap_diag("seed %llu", (unsigned long long)seed);
        rw_cursor_close(cursor);
    }
    tap_ok(good, "a plain cursor in both directions, with turns");
}

static bool model_matches(rw_txn *txn, rw_db *db, const model *state)
{
    char key[8], value[16];
    for (int i = 0; i < MODEL_KEYS; i++) {
        model_key(i, key);
        snprintf(value, sizeof(value), "v%d", state->values[i]);
        bool there = txn != NULL ? txn_is(txn, key, value) : get_is_text(db, BUCKET, key, value);
        bool gone = txn != NULL ? txn_absent(txn, key) : absent(db, key);
        if (state->values[i] < 0 ? !gone : !there) return false;
    }
    return true;
}

#define SAVED_MAX 12

/* Random writes, nested savepoints and rollbacks, then a commit or an abort. */
static bool savepoint_run(rw_db *db, prng *random)
{
    model base, state, saved[SAVED_MAX];
    unsigned ids[SAVED_MAX];
    size_t depth = 0;
    rw_txn *txn = NULL;
    model_commit_base(db, &base, random);
    state = base;
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    for (int step = 0; step < 120; step++) {
        uint64_t what = prng_below(random, 10);
        if (what == 0 && depth < SAVED_MAX) {
            CHECK_OK(rw_txn_savepoint(txn, &ids[depth]));
            saved[depth++] = state;
        } else if (what == 1 && depth > 0) {
            depth = prng_below(random, depth) + 1;
            CHECK_OK(rw_txn_rollback_to(txn, ids[depth - 1]));
            state = saved[depth - 1];
            if (!model_matches(txn, db, &state)) return rw_txn_abort(txn), false;
        } else {
            model_write(txn, &state, random, 100 + step);
        }
    }
    bool good = model_matches(txn, db, &state) && model_matches(NULL, db, &base);
    bool commit = prng_below(random, 3) > 0;
    if (commit) CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    else rw_txn_abort(txn);
    return good && model_matches(NULL, db, commit ? &state : &base);
}

static void test_savepoints_random(rw_db *db)
{
    bool good = true;
    for (uint64_t seed = 1; seed <= 150 && good; seed++) {
        prng random = {seed};
        good = savepoint_run(db, &random);
        if (!good) tap_diag("seed %llu", (unsigned long long)seed);
    }
    tap_ok(good, "nested savepoints and rollbacks against a model");
}

/* A write set of many pages, with a large value in it. */
static void test_big_transaction(rw_db *db)
{
    enum { WRITES = 5000, LARGE = 300 * 1024 };
    rw_txn *txn = NULL;
    char key[16], *large = malloc(LARGE);
    if (!TAP_CHECK(large != NULL)) return;
    memset(large, 'L', LARGE);
    reset(db);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    for (int i = 0; i < WRITES; i++) {
        snprintf(key, sizeof(key), "k%08d", i * 7 % WRITES);
        if (!CHECK_OK(txn_put_text(txn, key, key))) break;
    }
    CHECK_OK(rw_txn_put(txn, BUCKET, slice_text("large"), slice_bytes(large, LARGE)));
    TAP_CHECK(count_keys(db, BUCKET) == 2);
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    TAP_CHECK(count_keys(db, BUCKET) == WRITES + 3);
    tap_ok(get_is(db, BUCKET, slice_text("large"), slice_bytes(large, LARGE)), "a transaction of %d writes and a large value", WRITES);
    free(large);
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    options.partition_bytes = 128 * 1024;
    if (!dir_make(dir, "txn")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    test_own_writes(db);
    test_abort(db);
    test_txn_refused(db);
    test_read_only(db);
    test_savepoints(db);
    test_ends_with_cursors(db);
    test_txn_buckets(db);
    test_two_writers(db);
    test_cursor_plain(db);
    test_cursor_merges(db);
    test_savepoints_random(db);
    test_big_transaction(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    return tap_done();
}
