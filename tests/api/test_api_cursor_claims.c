/*
 * What a cursor's moves mean for others: a serializable transaction conflicts with, and a pessimistic one holds off, changes of exactly what its cursors went over.
 * And cursors whose transaction has ended, is busy or waits.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "tests/support/dirs.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define LOCK_TIMEOUT_MS 40
#define OWN_KEY "zz own"

static rw_bucket bucket, neighbour;

static void fill(rw_db *db)
{
    static const char *const keys[4] = {"b", "d", "f", "h"};
    CHECK_OK(rw_delete_range(db, bucket, NO_KEY, NO_KEY, RW_ASYNC));
    CHECK_OK(rw_delete_range(db, neighbour, NO_KEY, NO_KEY, RW_ASYNC));
    for (int i = 0; i < 4; i++) CHECK_OK(put_text(db, bucket, keys[i], keys[i]));
}

/* F and L: first and last; n and p: next and prev; a small letter behind s: seek to it. */
static void move(rw_cursor *cursor, const char *moves)
{
    char target[2] = "";
    for (const char *at = moves; *at != 0; at++) {
        int code = 0;
        switch (*at) {
        case 'F': code = rw_cursor_first(cursor); break;
        case 'L': code = rw_cursor_last(cursor); break;
        case 'n': code = rw_cursor_next(cursor); break;
        case 'p': code = rw_cursor_prev(cursor); break;
        default:
            target[0] = *++at;
            code = rw_cursor_seek(cursor, slice_text(target));
        }
        if (code != 0) CHECK_CODE(code, RW_ENOTFOUND);
    }
}

typedef struct {
    const char *moves, *stands;  /* NULL: past an end */
    const char *key;             /* put by somebody else, or with '-' in front deleted */
    bool gone_over;
} claim_case;

static const claim_case cases[] = {
    {"F", "b", "a", true},       {"F", "b", "b", true},        {"F", "b", "-b", true},       {"F", "b", "b1", false},     {"F", "b", "-d", false},
    {"Fn", "d", "c", true},      {"Fn", "d", "d", true},       {"Fn", "d", "-b", true},      {"Fn", "d", "e", false},     {"Fn", "d", "h", false},
    {"sc", "d", "c", true},      {"sc", "d", "c1", true},      {"sc", "d", "d", true},       {"sc", "d", "b", false},     {"sc", "d", "d1", false},
    {"sd", "d", "-d", true},     {"sd", "d", "c", false},      {"scp", "b", "b1", true},     {"scp", "b", "b", true},     {"scp", "b", "a", false},
    {"L", "h", "i", true},       {"L", "h", "h", true},        {"L", "h", "-h", true},       {"L", "h", "g", false},      {"L", "h", "-f", false},
    {"Lp", "f", "g", true},      {"Lp", "f", "-f", true},      {"Lp", "f", "e", false},      {"p", "h", "i", true},       {"n", "b", "a", true},
    {"Fnnnn", NULL, "x", true},  {"Fnnnn", NULL, "e", true},   {"Lpppp", NULL, "a", true},   {"Lpppp", NULL, "y", true},  {"si", NULL, "k", true},
    {"si", NULL, "g", false},    {"si", NULL, "-h", false},    {"Lnp", "h", "i", true},      {"Fpn", "b", "a", true},     {"sdnpp", "b", "c", true},
    {"sdnpp", "b", "e", true},   {"sdnpp", "b", "a", false},   {"sdnpp", "b", "g", false},
};

static int write_as(rw_db *db, const claim_case *one)
{
    return one->key[0] == '-' ? del_text(db, bucket, one->key + 1) : put_text(db, bucket, one->key, "somebody else's");
}

static void check_case(rw_db *db, const claim_case *one, unsigned mode)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    rw_slice out = NO_KEY;
    bool waits = mode == RW_PESSIMISTIC;
    fill(db);
    CHECK_OK(rw_txn_begin(db, mode, &txn));
    CHECK_OK(rw_txn_put(txn, bucket, slice_text(OWN_KEY), slice_text("v")));
    CHECK_OK(rw_txn_del(txn, bucket, slice_text(OWN_KEY)));
    CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor));
    move(cursor, one->moves);
    bool stands = one->stands != NULL ? cursor_at(cursor, one->stands, one->stands) : rw_cursor_key(cursor, &out) == RW_ENOTFOUND;
    int wrote = write_as(db, one), beside = put_text(db, neighbour, "beside", "v");
    rw_cursor_close(cursor);
    int committed = rw_txn_commit(txn, RW_ASYNC);
    bool good = stands && beside == 0;
    good &= waits ? wrote == (one->gone_over ? RW_ETIMEOUT : 0) && committed == 0 : wrote == 0 && committed == (one->gone_over ? RW_ECONFLICT : 0);
    if (!good)
        tap_ok(false, "mode %u, moves %s, key %s: stands %d, the write returned %d, in another bucket %d, the commit %d", mode, one->moves, one->key, (int)stands, wrote,
               beside, committed);
}

static void test_claims(rw_db *db)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) check_case(db, &cases[i], RW_SERIALIZABLE);
    tap_ok(true, "serializable: conflicts with what changes where a cursor went, and with nothing else");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) check_case(db, &cases[i], RW_PESSIMISTIC);
    tap_ok(true, "pessimistic: the same is locked, and nothing else");
}

/* Snapshot and read-only transactions hold nothing off. */
static void test_no_claims(rw_db *db)
{
    static const unsigned modes[2] = {RW_SNAPSHOT, RW_READONLY};
    for (int i = 0; i < 2; i++) {
        rw_txn *txn = NULL;
        rw_cursor *cursor = NULL;
        fill(db);
        CHECK_OK(rw_txn_begin(db, modes[i], &txn));
        CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor));
        move(cursor, "Fn");
        CHECK_OK(put_text(db, bucket, "c", "later"));
        CHECK_OK(del_text(db, bucket, "d"));
        CHECK_OK(put_text(db, bucket, "f", "later"));
        TAP_CHECK(cursor_at(cursor, "d", "d"));
        move(cursor, "n");
        TAP_CHECK(cursor_at(cursor, "f", "f"));
        move(cursor, "pp");
        TAP_CHECK(cursor_at(cursor, "b", "b"));
        rw_cursor_close(cursor);
        if (modes[i] == RW_SNAPSHOT) CHECK_OK(rw_txn_put(txn, bucket, slice_text(OWN_KEY), slice_text("v")));
        CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    }
    tap_ok(true, "a snapshot's cursor sees one moment, and is in nobody's way");
}

/* What a pessimistic cursor has not gone over yet may change, and it sees that. */
static void test_sees_newest(rw_db *db)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    fill(db);
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &txn));
    CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor));
    move(cursor, "F");
    CHECK_OK(put_text(db, bucket, "c", "new c"));
    move(cursor, "n");
    TAP_CHECK(cursor_at(cursor, "c", "new c"));
    CHECK_OK(del_text(db, bucket, "d"));
    CHECK_OK(put_text(db, bucket, "f", "new f"));
    move(cursor, "n");
    TAP_CHECK(cursor_at(cursor, "f", "new f"));
    CHECK_CODE(put_text(db, bucket, "d", "again"), RW_ETIMEOUT);
    CHECK_OK(rw_delete_range(db, bucket, slice_text("g"), NO_KEY, RW_ASYNC));
    CHECK_CODE(rw_cursor_next(cursor), RW_ENOTFOUND);
    CHECK_CODE(put_text(db, bucket, "i", "behind"), RW_ETIMEOUT);
    move(cursor, "pp");
    TAP_CHECK(cursor_at(cursor, "c", "new c"));
    rw_cursor_close(cursor);
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    tap_ok(CHECK_OK(put_text(db, bucket, "i", "behind")), "a pessimistic cursor sees the newest state, which then stays");
}

/* After a lock could not be had the cursor stands where it stood, and the move may be made again. */
static void test_timeout_keeps_place(rw_db *db)
{
    rw_txn *holder = NULL, *txn = NULL;
    rw_cursor *cursor = NULL;
    static char large[20000];
    memset(large, 'l', sizeof(large));
    fill(db);
    CHECK_OK(rw_put(db, bucket, slice_text("f"), slice_bytes(large, sizeof(large)), RW_ASYNC));
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &holder));
    CHECK_OK(rw_txn_put(holder, bucket, slice_text("d"), slice_text("held")));
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &txn));
    CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor));
    move(cursor, "sb");
    CHECK_CODE(rw_cursor_next(cursor), RW_ETIMEOUT);
    CHECK_CODE(rw_cursor_next(cursor), RW_ETIMEOUT); /* in the leaf as it was */
    TAP_CHECK(cursor_at(cursor, "b", "b"));
    CHECK_OK(put_text(db, bucket, "a", "moves b to another place in its leaf"));
    CHECK_CODE(rw_cursor_next(cursor), RW_ETIMEOUT);
    TAP_CHECK(cursor_at(cursor, "b", "b"));
    CHECK_CODE(rw_cursor_next(cursor), RW_ETIMEOUT);
    move(cursor, "sf");
    CHECK_CODE(rw_cursor_prev(cursor), RW_ETIMEOUT);
    rw_slice value = NO_KEY;
    TAP_CHECK(cursor_key_is(cursor, "f") && rw_cursor_value(cursor, &value) == 0 && slice_same(value, slice_bytes(large, sizeof(large))));
    CHECK_CODE(rw_cursor_seek(cursor, slice_text("c")), RW_ETIMEOUT);
    TAP_CHECK(cursor_key_is(cursor, "f"));
    CHECK_OK(rw_txn_commit(holder, RW_ASYNC));
    CHECK_OK(rw_cursor_prev(cursor));
    TAP_CHECK(cursor_at(cursor, "d", "held"));
    rw_cursor_close(cursor);
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    tap_ok(true, "a cursor that waited in vain stands where it stood");
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void check_closed(rw_cursor *cursor)
{
    rw_slice out = NO_KEY;
    CHECK_CODE(rw_cursor_next(cursor), RW_ECLOSED);
    CHECK_CODE(rw_cursor_prev(cursor), RW_ECLOSED);
    CHECK_CODE(rw_cursor_first(cursor), RW_ECLOSED);
    CHECK_CODE(rw_cursor_last(cursor), RW_ECLOSED);
    CHECK_CODE(rw_cursor_seek(cursor, slice_text("b")), RW_ECLOSED);
    CHECK_CODE(rw_cursor_key(cursor, &out), RW_ECLOSED);
    CHECK_CODE(rw_cursor_value(cursor, &out), RW_ECLOSED);
    TAP_CHECK(slice_same(out, NO_KEY));
}

static void test_ends(rw_db *db, unsigned mode)
{
    rw_txn *txn = NULL, *next = NULL;
    rw_cursor *cursors[3] = {NULL, NULL, NULL}, *late = NULL;
    fill(db);
    CHECK_OK(rw_txn_begin(db, mode, &txn));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(rw_cursor_open(db, txn, bucket, &cursors[i]));
        move(cursors[i], i == 0 ? "" : "F");
    }
    rw_cursor_close(cursors[0]);
    CHECK_CODE(rw_txn_commit(txn, RW_ASYNC), RW_EBUSY);
    TAP_CHECK(cursor_at(cursors[1], "b", "b"));
    CHECK_CODE(rw_cursor_seek(cursors[1], slice_bytes(NULL, 3)), RW_EINVAL);
    rw_txn_abort(txn);
    CHECK_CODE(rw_cursor_open(db, txn, bucket, &late), RW_ECLOSED);
    check_closed(cursors[1]);
    CHECK_OK(rw_txn_begin(db, mode, &next));
    check_closed(cursors[1]);      /* the handle's place may serve another one by now */
    char words[512];
    CHECK_CODE(rw_cursor_seek(NULL, slice_text("b")), RW_EINVAL);
    snprintf(words, sizeof(words), "%s", rw_last_error(db));
    rw_cursor_close(cursors[1]);
    TAP_CHECK(strcmp(words, rw_last_error(db)) == 0);
    CHECK_CODE(rw_close(db), RW_EBUSY);
    CHECK_OK(rw_txn_commit(next, RW_ASYNC));
    CHECK_CODE(rw_close(db), RW_EBUSY);
    rw_cursor_close(cursors[2]);
    tap_ok(late == NULL, "mode %u: cursors of a transaction that has ended are RW_ECLOSED, and must be closed", mode);
}

static void test_other_database(rw_db *db, rw_db *other)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL;
    CHECK_OK(rw_txn_begin(other, RW_SNAPSHOT, &txn));
    CHECK_CODE(rw_cursor_open(db, txn, BUCKET, &cursor), RW_EINVAL);
    CHECK_CODE(rw_cursor_open(other, txn, BUCKET, NULL), RW_EINVAL);
    CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    tap_ok(cursor == NULL, "a cursor cannot be opened in another database's transaction");
}

/* ---- more threads ------------------------------------------------------------------------------------------------ */

typedef struct {
    rw_cursor *cursor;
    bool forwards;
    int steps, code;
    bool done;
    pthread_t thread;
} mover;

static void *move_alone(void *arg)
{
    mover *m = arg;
    for (int i = 0; i < m->steps && m->code == 0; i++) m->code = m->forwards ? rw_cursor_next(m->cursor) : rw_cursor_prev(m->cursor);
    __atomic_store_n(&m->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static int note_waiting(void *arg, const rw_txn_info *info)
{
    int *waiting = arg;
    *waiting += info->waits_for != 0;
    return 0;
}

/* Begins a move that has to wait for a lock, and returns when it does. */
static void move_until_it_waits(rw_db *db, mover *m)
{
    int waiting = 0;
    if (!TAP_CHECK(pthread_create(&m->thread, NULL, move_alone, m) == 0)) exit(tap_done());
    while (CHECK_OK(rw_txn_list(db, note_waiting, &waiting)) && waiting == 0 && !__atomic_load_n(&m->done, __ATOMIC_ACQUIRE)) sched_yield();
    TAP_CHECK(waiting == 1);
}

/* One thread waits for a lock inside rw_cursor_next: the cursor and its transaction are busy for others. */
static void test_busy(rw_db *db)
{
    rw_txn *holder = NULL, *txn = NULL;
    rw_cursor *cursor = NULL, *second = NULL;
    rw_slice out = NO_KEY;
    fill(db);
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &holder));
    CHECK_OK(rw_txn_put(holder, bucket, slice_text("d"), slice_text("held")));
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &txn));
    CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor));
    CHECK_OK(rw_cursor_open(db, txn, bucket, &second));
    move(cursor, "F");
    mover m = {.cursor = cursor, .forwards = true, .steps = 1};
    move_until_it_waits(db, &m);
    CHECK_CODE(rw_cursor_key(cursor, &out), RW_EBUSY);
    CHECK_CODE(rw_cursor_value(cursor, &out), RW_EBUSY);
    CHECK_CODE(rw_cursor_next(cursor), RW_EBUSY);
    CHECK_CODE(rw_cursor_next(second), RW_EBUSY);
    CHECK_OK(rw_txn_commit(holder, RW_ASYNC));
    pthread_join(m.thread, NULL);
    CHECK_OK(m.code);
    TAP_CHECK(cursor_at(cursor, "d", "held"));
    rw_cursor_close(second);
    rw_cursor_close(cursor);
    tap_ok(CHECK_OK(rw_txn_commit(txn, RW_ASYNC)), "a second thread in a cursor, or in another one of its transaction, is RW_EBUSY");
}

/* The key that a cursor waits for is gone when it has the lock: it goes further, and has all of the way locked. */
static void test_waits_for_deleted(rw_db *db, bool forwards)
{
    rw_txn *holder = NULL, *txn = NULL;
    rw_cursor *cursor = NULL;
    fill(db);
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &holder));
    CHECK_OK(rw_txn_del(holder, bucket, slice_text("d")));
    CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &txn));
    CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor));
    move(cursor, forwards ? "sb" : "sf");
    mover m = {.cursor = cursor, .forwards = forwards, .steps = 1};
    move_until_it_waits(db, &m);
    CHECK_OK(rw_txn_commit(holder, RW_ASYNC));
    pthread_join(m.thread, NULL);
    CHECK_OK(m.code);
    TAP_CHECK(forwards ? cursor_at(cursor, "f", "f") : cursor_at(cursor, "b", "b"));
    CHECK_OK(put_text(db, bucket, forwards ? "g" : "a", "beyond"));
    CHECK_CODE(put_text(db, bucket, forwards ? "e" : "c", "on the way"), RW_ETIMEOUT);
    rw_cursor_close(cursor);
    tap_ok(CHECK_OK(rw_txn_commit(txn, RW_ASYNC)), "%s: the key that was waited for is gone", forwards ? "forwards" : "backwards");
}

#define RACE_KEYS 200
#define RACE_STEPS 12

typedef struct {
    rw_db *db;
    uint64_t seed;
    const bool *stop;
    int failed;
    uint64_t *writes;            /* of all */
    pthread_t thread;
} racer;

static rw_slice race_key(uint64_t number, char key[16])
{
    return slice_bytes(key, (size_t)snprintf(key, 16, "race %03d", (int)number));
}

static void *race(void *arg)
{
    racer *r = arg;
    prng random = {r->seed};
    char key[16];
    while (!__atomic_load_n(r->stop, __ATOMIC_ACQUIRE) && r->failed == 0) {
        uint64_t stamp = prng_next(&random);
        rw_slice at = race_key(prng_below(&random, RACE_KEYS), key);
        int code = stamp % 2 == 0 ? rw_put(r->db, bucket, at, slice_bytes(&stamp, sizeof(stamp)), RW_ASYNC) : rw_del(r->db, bucket, at, RW_ASYNC);
        if (code != 0 && code != RW_ENOTFOUND && code != RW_ETIMEOUT) r->failed = code;
        __atomic_fetch_add(r->writes, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

typedef struct {
    int count;
    char keys[RACE_STEPS][16];
    uint64_t values[RACE_STEPS];
} race_view;

static bool look(rw_cursor *cursor, race_view *view, int at)
{
    rw_slice key = NO_KEY, value = NO_KEY;
    if (rw_cursor_key(cursor, &key) != 0 || rw_cursor_value(cursor, &value) != 0 || key.size >= 16 || value.size != 8) return false;
    memset(view->keys[at], 0, 16);
    memcpy(view->keys[at], key.data, key.size);
    memcpy(&view->values[at], value.data, 8);
    return true;
}

/* Some steps from a key on; then by another cursor the same way back and forth again: nothing has changed, nothing has come between. */
static bool race_round(rw_db *db, prng *random)
{
    rw_txn *txn = NULL;
    rw_cursor *cursor = NULL, *again = NULL;
    race_view first = {0}, back = {0}, second = {0};
    char key[16];
    rw_slice from = race_key(prng_below(random, RACE_KEYS), key);
    bool good = CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &txn)) && CHECK_OK(rw_cursor_open(db, txn, bucket, &cursor)) &&
                CHECK_OK(rw_cursor_open(db, txn, bucket, &again));
    int code = rw_cursor_seek(cursor, from);
    for (; code == 0 && first.count < RACE_STEPS && good; code = rw_cursor_next(cursor)) good = look(cursor, &first, first.count++);
    if (first.count > 0 && good) good = CHECK_OK(rw_cursor_seek(again, slice_text(first.keys[first.count - 1])));
    for (int i = first.count; i > 0 && good; i--) {
        good = look(again, &back, i - 1) && (i == 1 || CHECK_OK(rw_cursor_prev(again)));
        back.count++;
    }
    code = good && first.count > 0 ? rw_cursor_seek(again, from) : RW_ENOTFOUND;
    for (; code == 0 && second.count < first.count && good; code = second.count < first.count ? rw_cursor_next(again) : 0)
        good = look(again, &second, second.count++);
    rw_cursor_close(cursor);
    rw_cursor_close(again);
    good &= CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    return good && memcmp(&first, &back, sizeof(first)) == 0 && memcmp(&first, &second, sizeof(first)) == 0;
}

static void test_repeatable(rw_db *db)
{
    enum { RACERS = 2 };
    racer racers[RACERS];
    bool stop = false;
    int wrong = 0, rounds = 0;
    prng random = {5};
    uint64_t writes = 0, enough = check_long() ? 100000 : 3000;
    CHECK_OK(rw_delete_range(db, bucket, NO_KEY, NO_KEY, RW_ASYNC));
    for (uint64_t i = 0; i < RACERS; i++) {
        racers[i] = (racer){.db = db, .seed = i, .stop = &stop, .writes = &writes};
        TAP_CHECK(pthread_create(&racers[i].thread, NULL, race, &racers[i]) == 0);
    }
    for (; __atomic_load_n(&writes, __ATOMIC_RELAXED) < enough && wrong == 0; rounds++) wrong += !race_round(db, &random);
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < RACERS; i++) {
        pthread_join(racers[i].thread, NULL);
        CHECK_OK(racers[i].failed);
    }
    tap_ok(wrong == 0, "%d pessimistic transactions meet the same again on their way back, beside %llu writes", rounds, (unsigned long long)writes);
}

/* Two cursors that walk towards each other, to keys that the other's transaction has written: one of them is the victim, and its cursor of no more use. */
static void test_deadlock(rw_db *db)
{
    rw_txn *txns[2] = {NULL, NULL};
    mover movers[2];
    fill(db);
    for (int i = 0; i < 2; i++) {
        rw_cursor *cursor = NULL;
        CHECK_OK(rw_txn_begin(db, RW_PESSIMISTIC, &txns[i]));
        CHECK_OK(rw_txn_put(txns[i], bucket, slice_text(i == 0 ? "b" : "f"), slice_text("written")));
        CHECK_OK(rw_cursor_open(db, txns[i], bucket, &cursor));
        move(cursor, i == 0 ? "sc" : "se");
        movers[i] = (mover){.cursor = cursor, .forwards = i == 0, .steps = i == 0 ? 1 : 2};
    }
    for (int i = 0; i < 2; i++) TAP_CHECK(pthread_create(&movers[i].thread, NULL, move_alone, &movers[i]) == 0);
    for (int i = 0; i < 2; i++) pthread_join(movers[i].thread, NULL);
    int victim = movers[0].code == RW_EDEADLOCK ? 0 : 1, other = 1 - victim;
    CHECK_CODE(movers[victim].code, RW_EDEADLOCK);
    CHECK_OK(movers[other].code);
    TAP_CHECK(other == 0 ? cursor_at(movers[0].cursor, "f", "f") : cursor_at(movers[1].cursor, "b", "b"));
    CHECK_CODE(rw_cursor_first(movers[victim].cursor), RW_EDEADLOCK);
    rw_cursor_close(movers[victim].cursor);
    rw_txn_abort(txns[victim]);
    rw_cursor_close(movers[other].cursor);
    tap_ok(CHECK_OK(rw_txn_commit(txns[other], RW_ASYNC)), "of two cursors in a deadlock one is the victim, the other goes on");
}

int main(void)
{
    char dir[DIRS_PATH_MAX], other_dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    options.lock_timeout_ms = LOCK_TIMEOUT_MS;
    if (!dir_make(dir, "claims") || !dir_make(other_dir, "claims")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(rw_bucket_open(db, "claims", RW_CREATE, &bucket));
    CHECK_OK(rw_bucket_open(db, "neighbour", RW_CREATE, &neighbour));
    test_claims(db);
    test_no_claims(db);
    test_sees_newest(db);
    test_timeout_keeps_place(db);
    test_ends(db, RW_SNAPSHOT);
    test_ends(db, RW_PESSIMISTIC);
    rw_db *other = open_or_exit(other_dir, &options);
    test_other_database(db, other);
    CHECK_OK(rw_close(other));
    CHECK_OK(rw_close(db));
    options.lock_timeout_ms = 3000;    /* what has to wait must not be let go by chance */
    db = open_or_exit(dir, &options);
    test_busy(db);
    test_waits_for_deleted(db, true);
    test_waits_for_deleted(db, false);
    test_repeatable(db);
    test_deadlock(db);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    dir_remove(other_dir);
    return tap_done();
}
