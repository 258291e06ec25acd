/* Whatever writes waits for a pessimistic transaction's locks, and for nothing else; how waiting ends. */
#include <unistd.h>

#include "tests/api/txn_helpers.h"

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
    rw_txn *holder = txn_begin(db, RW_PESSIMISTIC), *reader = txn_begin(db, RW_READONLY);
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
    rw_txn *holder = txn_begin(db, RW_PESSIMISTIC);
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
    rw_txn *holder = txn_begin(db, RW_PESSIMISTIC), *txn = txn_begin(db, RW_PESSIMISTIC);
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

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    alarm(SLOW_BUILD ? 600 : 240);
    options.cache_bytes = 64 * MIB;
    options.lock_timeout_ms = 60000;
    if (!dir_make(dir, "waiting")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    test_waiting(db);
    test_waiting_alone(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    test_timeouts();
    return tap_done();
}
