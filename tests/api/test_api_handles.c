/* Who may use a handle: not after close, not in a forked child, not while another opener holds the directory. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

static void test_closed_handle(void)
{
    char dir[DIRS_PATH_MAX], byte = 'x';
    size_t size = 1;
    rw_options options = options_small();
    rw_bucket bucket = 9;
    rw_batch *batch = NULL;
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    rw_stats_t stats;
    if (!dir_make(dir, "open")) return;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(put_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_close(db));
    CHECK_CODE(rw_close(db), RW_ECLOSED);
    CHECK_CODE(rw_close(db), RW_ECLOSED);
    CHECK_CODE(put_text(db, BUCKET, "k", "v"), RW_ECLOSED);
    CHECK_CODE(rw_get(db, BUCKET, slice_text("k"), &byte, &size), RW_ECLOSED);
    CHECK_CODE(del_text(db, BUCKET, "k"), RW_ECLOSED);
    CHECK_CODE(rw_delete_range(db, BUCKET, NO_KEY, NO_KEY, RW_ASYNC), RW_ECLOSED);
    CHECK_CODE(rw_flush(db), RW_ECLOSED);
    CHECK_CODE(rw_checkpoint(db), RW_ECLOSED);
    CHECK_CODE(rw_compact(db), RW_ECLOSED);
    CHECK_CODE(rw_stats(db, &stats), RW_ECLOSED);
    CHECK_CODE(rw_bucket_open(db, "b", RW_CREATE, &bucket), RW_ECLOSED);
    CHECK_CODE(rw_bucket_drop(db, 2), RW_ECLOSED);
    CHECK_CODE(rw_batch_new(db, &batch), RW_ECLOSED);
    CHECK_CODE(rw_txn_begin(db, 0, &txn), RW_ECLOSED);
    CHECK_CODE(rw_cursor_open(db, NULL, BUCKET, &cursor), RW_ECLOSED);
    TAP_CHECK(rw_last_error(db) != NULL);
    TAP_CHECK(batch == NULL && txn == NULL && cursor == NULL && bucket == 9 && size == 1 && byte == 'x');
    rw_db *other = open_or_exit(dir, &options);
    CHECK_CODE(put_text(db, BUCKET, "k", "v"), RW_ECLOSED);
    TAP_CHECK(get_is_text(other, BUCKET, "k", "v"));
    CHECK_OK(rw_close(other));
    tap_ok(true, "a closed handle answers RW_ECLOSED, also after the directory is opened again");
    dir_remove(dir);
}

static void test_close_busy(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_batch *batch = NULL;
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    if (!dir_make(dir, "open")) return;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(put_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_batch_new(db, &batch));
    CHECK_CODE(rw_close(db), RW_EBUSY);
    TAP_CHECK(get_is_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_batch_put(batch, BUCKET, slice_text("b"), slice_text("w")));
    CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    rw_batch_free(batch);
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &txn));
    CHECK_CODE(rw_close(db), RW_EBUSY);
    CHECK_OK(rw_txn_put(txn, BUCKET, slice_text("t"), slice_text("x")));
    CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    CHECK_CODE(rw_close(db), RW_EBUSY);
    CHECK_OK(rw_cursor_first(cursor));
    TAP_CHECK(cursor_at(cursor, "b", "w"));
    rw_cursor_close(cursor);
    CHECK_OK(rw_txn_begin(db, RW_READONLY, &txn));
    CHECK_CODE(rw_close(db), RW_EBUSY);
    rw_txn_abort(txn);
    tap_ok(CHECK_OK(rw_close(db)), "rw_close is RW_EBUSY under an open batch, transaction or cursor, which go on working");
    dir_remove(dir);
}

typedef struct {
    rw_db *db;
    rw_batch *batch;
    rw_txn *txn;
    rw_cursor *cursor;
} parents_handles;

static int use_parents_handles(void *arg)
{
    parents_handles *parent = arg;
    rw_slice key = slice_text("k"), out = NO_KEY;
    size_t size = 0;
    rw_bucket bucket = 0;
    unsigned id = 0;
    rw_txn *txn = NULL;
    bool good = CHILD_CODE(put_text(parent->db, BUCKET, "child", "v"), RW_EFORK) &&
                CHILD_CODE(rw_get(parent->db, BUCKET, key, NULL, &size), RW_EFORK) &&
                CHILD_CODE(del_text(parent->db, BUCKET, "k"), RW_EFORK) && CHILD_CODE(rw_flush(parent->db), RW_EFORK) &&
                CHILD_CODE(rw_checkpoint(parent->db), RW_EFORK) &&
                CHILD_CODE(rw_bucket_open(parent->db, "b", RW_CREATE, &bucket), RW_EFORK) &&
                CHILD_CODE(rw_txn_begin(parent->db, 0, &txn), RW_EFORK) &&
                CHILD_CODE(rw_batch_put(parent->batch, BUCKET, key, key), RW_EFORK) &&
                CHILD_CODE(rw_batch_commit(parent->batch, RW_ASYNC), RW_EFORK) &&
                CHILD_CODE(rw_txn_get(parent->txn, BUCKET, key, NULL, &size), RW_EFORK) &&
                CHILD_CODE(rw_txn_put(parent->txn, BUCKET, key, key), RW_EFORK) &&
                CHILD_CODE(rw_txn_savepoint(parent->txn, &id), RW_EFORK) &&
                CHILD_CODE(rw_txn_commit(parent->txn, RW_ASYNC), RW_EFORK) &&
                CHILD_CODE(rw_cursor_next(parent->cursor), RW_EFORK) &&
                CHILD_CODE(rw_cursor_key(parent->cursor, &out), RW_EFORK) && CHILD_CODE(rw_close(parent->db), RW_EFORK);
    rw_batch_free(parent->batch);
    rw_cursor_close(parent->cursor);
    return good ? 0 : 1;
}

static void test_fork(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    parents_handles handles = {0};
    if (!dir_make(dir, "open")) return;
    rw_db *db = handles.db = open_or_exit(dir, &options);
    CHECK_OK(put_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_batch_new(db, &handles.batch));
    CHECK_OK(rw_batch_put(handles.batch, BUCKET, slice_text("batch"), slice_text("v")));
    CHECK_OK(rw_txn_begin(db, RW_SNAPSHOT, &handles.txn));
    CHECK_OK(rw_txn_put(handles.txn, BUCKET, slice_text("txn"), slice_text("v")));
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &handles.cursor));
    int code = child_run(use_parents_handles, &handles, 20);
    tap_ok(code == 0, "every call of a forked child is RW_EFORK: %d %s", code, child_said());
    CHECK_OK(rw_cursor_next(handles.cursor));
    TAP_CHECK(cursor_at(handles.cursor, "k", "v"));
    rw_cursor_close(handles.cursor);
    CHECK_OK(rw_batch_commit(handles.batch, RW_SYNC));
    rw_batch_free(handles.batch);
    CHECK_OK(rw_txn_commit(handles.txn, RW_SYNC));
    CHECK_OK(rw_close(db));
    db = open_or_exit(dir, &options);
    TAP_CHECK(count_keys(db, BUCKET) == 3);
    tap_ok(get_is_text(db, BUCKET, "batch", "v") && get_is_text(db, BUCKET, "txn", "v"), "the parent's handles are unharmed");
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

typedef struct {
    char dir[DIRS_PATH_MAX];
    pid_t holder;
} lock_place;

static bool names_pid(pid_t pid)
{
    char text[24];
    snprintf(text, sizeof(text), "%d", (int)pid);
    return strstr(rw_last_error(NULL), text) != NULL;
}

static int open_locked(void *arg)
{
    lock_place *place = arg;
    rw_options options = options_small();
    rw_db *db = NULL;
    bool good = CHILD_CODE(rw_open(place->dir, &options, &db), RW_EBUSY);
    if (good && !names_pid(place->holder)) {
        child_say("the message does not name process %d: %s", (int)place->holder, rw_last_error(NULL));
        return 1;
    }
    return good && CHILD_CODE(rw_verify(place->dir, ignore_finding, NULL), RW_EBUSY) ? 0 : 1;
}

static void test_second_opener(void)
{
    lock_place place;
    char parent[DIRS_PATH_MAX], link[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_db *second = NULL;
    if (!dir_make(parent, "open")) return;
    path_join(place.dir, parent, "db");
    path_join(link, parent, "link");
    place.holder = getpid();
    rw_db *db = open_or_exit(place.dir, &options);
    CHECK_CODE(rw_open(place.dir, &options, &second), RW_EBUSY);
    tap_ok(names_pid(getpid()), "a second opener in this process: %s", rw_last_error(NULL));
    TAP_CHECK(symlink(place.dir, link) == 0);
    CHECK_CODE(rw_open(link, &options, &second), RW_EBUSY);
    TAP_CHECK(second == NULL);
    CHECK_CODE(rw_verify(place.dir, note_finding, NULL), RW_EBUSY);
    int code = child_run(open_locked, &place, 20);
    tap_ok(code == 0, "an opener in another process: %d %s", code, child_said());
    CHECK_OK(put_text(db, BUCKET, "still", "here"));
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_open(link, &options, &second));
    TAP_CHECK(get_is_text(second, BUCKET, "still", "here"));
    tap_ok(CHECK_OK(rw_close(second)), "after rw_close it opens again, also through a link");
    dir_remove(parent);
}

static int hold_and_die(void *arg)
{
    lock_place *place = arg;
    rw_options options = options_small();
    rw_db *db = NULL;
    if (!CHILD_CODE(rw_open(place->dir, &options, &db), 0)) return 1;
    if (!CHILD_CODE(rw_put(db, BUCKET, slice_text("last"), slice_text("words"), RW_SYNC), 0)) return 1;
    kill(getpid(), SIGKILL);
    return 1;
}

static void test_killed_holder(void)
{
    lock_place place = {.holder = 0};
    rw_options options = options_small();
    if (!dir_make(place.dir, "open")) return;
    for (int i = 0; i < 3; i++) {
        int code = child_run(hold_and_die, &place, 20);
        TAP_CHECK(code == CHILD_SIGNAL(SIGKILL));
        if (code != CHILD_SIGNAL(SIGKILL)) tap_diag("%s", child_said());
    }
    rw_db *db = open_or_exit(place.dir, &options);
    tap_ok(get_is_text(db, BUCKET, "last", "words"), "a killed process leaves no lock, and its durable write");
    CHECK_OK(rw_close(db));
    dir_remove(place.dir);
}

/* Several processes open one directory at the same moment, which the first of them creates. */
#define RACERS 6

typedef struct {
    char dir[DIRS_PATH_MAX];
    int inside;               /* processes that have it open right now */
    int most_inside;
    int opened;
} race;

static int race_to_open(void *arg)
{
    race *shared = arg;
    rw_options options = options_small();
    for (int attempt = 0; attempt < 20; attempt++) {
        rw_db *db = NULL;
        int code = rw_open(shared->dir, &options, &db);
        if (code == 0) {
            int inside = __atomic_add_fetch(&shared->inside, 1, __ATOMIC_SEQ_CST);
            if (inside > shared->most_inside) shared->most_inside = inside;
            __atomic_add_fetch(&shared->opened, 1, __ATOMIC_SEQ_CST);
            usleep(2000);
            __atomic_sub_fetch(&shared->inside, 1, __ATOMIC_SEQ_CST);
            if (!CHILD_CODE(rw_close(db), 0)) return 1;
        } else if (!CHILD_CODE(code, RW_EBUSY)) {
            return 1;
        }
        usleep(1000);
    }
    return 0;
}

static void test_race_to_open(void)
{
    race *shared = child_shared(sizeof(*shared));
    pid_t racers[RACERS];
    char parent[DIRS_PATH_MAX];
    int failed = 0;
    if (!dir_make(parent, "handles")) return;
    path_join(shared->dir, parent, "db");
    fflush(NULL);
    for (int i = 0; i < RACERS; i++)
        if ((racers[i] = fork()) == 0) {
            alarm(60);
            int status = race_to_open(shared);
            if (status != 0) fprintf(stderr, "# %s\n", child_said());
            _exit(status);
        }
    for (int i = 0; i < RACERS; i++) {
        int status = 0;
        failed += waitpid(racers[i], &status, 0) != racers[i] || status != 0;
    }
    tap_ok(failed == 0 && shared->most_inside == 1, "%d processes race to open: %d of them failed, %d opens, %d at once at most", RACERS, failed,
           shared->opened, shared->most_inside);
    dir_remove(parent);
}

static void *fail_elsewhere(void *arg)
{
    rw_db *db = arg;
    rw_bucket bucket = 0;
    rw_bucket_open(db, "a name of the other thread", 0, &bucket);
    return strstr(rw_last_error(db), "a name of the other thread") == NULL ? db : NULL;
}

static void test_last_error_per_thread(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    rw_bucket bucket = 0;
    pthread_t thread;
    void *wrong = NULL;
    if (!dir_make(dir, "open")) return;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_CODE(rw_bucket_open(db, "my own name", 0, &bucket), RW_ENOTFOUND);
    TAP_CHECK(pthread_create(&thread, NULL, fail_elsewhere, db) == 0 && pthread_join(thread, &wrong) == 0);
    tap_ok(wrong == NULL && strstr(rw_last_error(db), "my own name") != NULL, "rw_last_error is the calling thread's: %s",
           rw_last_error(db));
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

int main(void)
{
    test_fork();
    test_second_opener();
    test_killed_holder();
    test_race_to_open();
    test_closed_handle();
    test_close_busy();
    test_last_error_per_thread();
    return tap_done();
}
