/* Dropping a bucket beside transactions: older snapshots go on seeing it, serializable ones are held to what they read of it, and a drop that is refused changes nothing. */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/api/txn_helpers.h"

#define KEYS 200u

static rw_db *db;

static rw_bucket bucket_made(const char *name)
{
    rw_bucket bucket = 0;
    char key[16];
    CHECK_OK(rw_bucket_open(db, name, RW_CREATE, &bucket));
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%03u", i);
        CHECK_OK(put_text(db, bucket, key, key));
    }
    return bucket;
}

static unsigned cursor_count(rw_cursor *cursor)
{
    unsigned count = 0;
    for (int code = rw_cursor_first(cursor); code == 0; code = rw_cursor_next(cursor)) count++;
    return count;
}

/* ---- a drop that is refused --------------------------------------------------------------------------------------- */

typedef struct {
    rw_bucket bucket;
    _Atomic int stop;
    _Atomic unsigned refused;
    unsigned other;
} dropper;

static void *drops_run(void *arg)
{
    dropper *d = arg;
    while (atomic_load(&d->stop) == 0) {
        if (rw_bucket_drop(db, d->bucket) == RW_EBUSY) d->refused++;
        else d->other++;
    }
    return NULL;
}

/* What a reader finds of a bucket that is there all the time. Returns how often it was wrong. */
static unsigned reads_wrong(rw_bucket bucket)
{
    char value[8];
    size_t size = sizeof value;
    unsigned wrong = 0;
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    wrong += rw_get(db, bucket, slice_text("k007"), value, &size) != 0;
    wrong += rw_txn_begin(db, RW_READONLY, &txn) != 0;
    size = sizeof value;
    wrong += rw_txn_get(txn, bucket, slice_text("k008"), value, &size) != 0;
    rw_txn_abort(txn);
    wrong += rw_cursor_open(db, NULL, bucket, &cursor) != 0;
    if (cursor != NULL) wrong += cursor_count(cursor) != KEYS;
    rw_cursor_close(cursor);
    wrong += rw_put(db, bucket, slice_text("k009"), slice_text("k009"), RW_ASYNC) != 0;
    return wrong;
}

static void test_refused(void)
{
    dropper d = {.bucket = bucket_made("held")};
    pthread_t thread;
    unsigned wrong = 0;
    rw_txn *holder = txn_begin(db, RW_PESSIMISTIC);
    CHECK_OK(rw_txn_put(holder, d.bucket, slice_text("k000"), slice_text("held")));
    pthread_create(&thread, NULL, drops_run, &d);
    for (unsigned i = 0; (i < 2000 || d.refused == 0) && wrong == 0; i++) wrong += reads_wrong(d.bucket);
    atomic_store(&d.stop, 1);
    pthread_join(thread, NULL);
    tap_ok(wrong == 0 && d.refused > 0 && d.other == 0, "%u drops are refused because of a lock, and nobody notices", d.refused);
    CHECK_OK(rw_txn_commit(holder, RW_ASYNC));
    tap_ok(get_is_text(db, d.bucket, "k000", "held"), "the transaction that holds it commits");
    CHECK_OK(rw_bucket_drop(db, d.bucket));
    CHECK_CODE(rw_bucket_drop(db, d.bucket), RW_ENOTFOUND);
}

/* ---- snapshots ----------------------------------------------------------------------------------------------------- */

static void test_snapshots(unsigned mode, const char *name)
{
    rw_bucket bucket = bucket_made(name);
    char value[8];
    size_t size = sizeof value;
    rw_txn *txn = txn_begin(db, mode);
    rw_cursor *of_txn = NULL, *own = NULL, *late = NULL;
    CHECK_OK(rw_cursor_open(db, txn, bucket, &of_txn));
    CHECK_OK(rw_cursor_open(db, NULL, bucket, &own));
    CHECK_OK(rw_cursor_first(own));
    CHECK_OK(rw_bucket_drop(db, bucket));
    CHECK_CODE(rw_get(db, bucket, slice_text("k001"), value, &size), RW_ENOTFOUND);
    CHECK_CODE(rw_put(db, bucket, slice_text("k001"), slice_text("new"), RW_ASYNC), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_open(db, NULL, bucket, &late), RW_ENOTFOUND);
    size = sizeof value;
    bool found = CHECK_OK(rw_txn_get(txn, bucket, slice_text("k001"), value, &size)) && size == 4 && memcmp(value, "k001", 4) == 0;
    tap_ok(found && cursor_count(of_txn) == KEYS && cursor_count(own) == KEYS, "%s: older snapshots see the whole bucket after it was dropped", name);
    CHECK_OK(rw_cursor_open(db, txn, bucket, &late));
    tap_ok(cursor_count(late) == KEYS, "%s: and cursors that they open", name);
    rw_cursor_close(late);
    rw_txn *younger = txn_begin(db, mode);
    size = sizeof value;
    CHECK_CODE(rw_txn_get(younger, bucket, slice_text("k001"), value, &size), RW_ENOTFOUND);
    CHECK_CODE(rw_cursor_open(db, younger, bucket, &late), RW_ENOTFOUND);
    rw_txn_abort(younger);
    rw_cursor_close(of_txn);
    rw_cursor_close(own);
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    CHECK_OK(rw_checkpoint(db));
    tap_ok(stats_now(db).versions == 0, "%s: what was kept for them is gone with them", name);
}

/* ---- writers ------------------------------------------------------------------------------------------------------- */

typedef enum { READ_KEY, READ_ABSENT, READ_RANGE, READ_NOTHING } what_read;

/* A transaction reads of a bucket, which is dropped, and writes elsewhere. */
static int commit_after_drop(unsigned mode, what_read what)
{
    rw_bucket bucket = bucket_made("read");
    char value[8];
    size_t size = sizeof value;
    rw_cursor *cursor = NULL;
    rw_txn *txn = txn_begin(db, mode);
    if (what == READ_KEY) CHECK_OK(rw_txn_get(txn, bucket, slice_text("k100"), value, &size));
    else if (what == READ_ABSENT) CHECK_CODE(rw_txn_get(txn, bucket, slice_text("absent"), value, &size), RW_ENOTFOUND);
    else if (what == READ_RANGE) {
        CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor));
        TAP_CHECK(cursor_count(cursor) == KEYS);
        rw_cursor_close(cursor);
    }
    CHECK_OK(rw_bucket_drop(db, bucket));
    CHECK_OK(rw_txn_put(txn, BUCKET, slice_text("elsewhere"), slice_text("1")));
    return rw_txn_commit(txn, RW_ASYNC);
}

static void test_writers(void)
{
    tap_ok(CHECK_CODE(commit_after_drop(RW_SERIALIZABLE, READ_KEY), RW_ECONFLICT), "a key that was read, and then dropped with its bucket, is a conflict");
    tap_ok(CHECK_CODE(commit_after_drop(RW_SERIALIZABLE, READ_RANGE), RW_ECONFLICT), "and so is a range");
    tap_ok(CHECK_OK(commit_after_drop(RW_SERIALIZABLE, READ_ABSENT)), "what was absent is absent still");
    tap_ok(CHECK_OK(commit_after_drop(RW_SERIALIZABLE, READ_NOTHING)) && CHECK_OK(commit_after_drop(RW_SNAPSHOT, READ_RANGE)), "no conflict for those who read nothing of it, or need not");
    rw_bucket bucket = bucket_made("written");
    rw_txn *txn = txn_begin(db, RW_SNAPSHOT);
    CHECK_OK(rw_txn_put(txn, bucket, slice_text("new"), slice_text("1")));
    CHECK_OK(rw_txn_put(txn, BUCKET, slice_text("with it"), slice_text("1")));
    CHECK_OK(rw_bucket_drop(db, bucket));
    CHECK_CODE(rw_txn_put(txn, bucket, slice_text("more"), slice_text("1")), RW_ENOTFOUND);
    CHECK_CODE(rw_txn_commit(txn, RW_ASYNC), RW_ENOTFOUND);
    tap_ok(!get_is_text(db, BUCKET, "with it", "1"), "who has written to it cannot commit any of it");
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

/* One lock_timeout_ms, however large the value. */
static void test_cas_waits_once(void)
{
    static char large[100000];
    rw_slice desired = slice_bytes(large, sizeof large), expected = slice_text("small");
    CHECK_OK(put_text(db, BUCKET, "cas", "small"));
    rw_txn *holder = txn_begin(db, RW_PESSIMISTIC);
    CHECK_OK(rw_txn_put(holder, BUCKET, slice_text("cas"), slice_text("held")));
    int64_t begin = now_us();
    int code = rw_cas(db, BUCKET, slice_text("cas"), &expected, &desired, RW_ASYNC);
    tap_ok(CHECK_CODE(code, RW_ETIMEOUT) && now_us() - begin < 5000000, "comparing and setting a large value waits for a lock once");
    rw_txn_abort(holder);
    CHECK_OK(rw_cas(db, BUCKET, slice_text("cas"), &expected, &desired, RW_ASYNC));
    tap_ok(get_is(db, BUCKET, slice_text("cas"), desired), "and then sets it");
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    options.lock_timeout_ms = 50;
    if (!dir_make(dir, "drop")) return 1;
    db = open_or_exit(dir, &options);
    test_refused();
    test_snapshots(RW_SNAPSHOT, "snapshot");
    test_snapshots(RW_SERIALIZABLE, "serializable");
    test_snapshots(RW_READONLY, "read-only");
    test_writers();
    test_cas_waits_once();
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(dir, NULL, NULL) == 0, "the closed files are sound");
    dir_remove(dir);
    return tap_done();
}
