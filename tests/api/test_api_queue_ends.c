/* Queues: waiting for their descriptor, cancelling, closing, locks in the way, wrong calls, other threads, a forked child, a killed process. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/api/queue_helpers.h"

#define RECORDS 20000u
#define DEPTH 64u

typedef struct {
    rw_op op;
    unsigned char key[QUEUE_KEY_SIZE], value[QUEUE_VALUE_SIZE];
    unsigned reaped;
} call;

typedef struct {
    rw_db *db;
    rw_queue *q;
    call calls[DEPTH];
    rw_op *list[DEPTH];
} bed;

/* Each on a number of its own, chosen so that with a small cache most miss a page. */
static void calls_set(bed *b, rw_op_kind kind, unsigned flags, uint64_t first, uint64_t generation)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        call *c = &b->calls[i];
        uint64_t number = (first + i * 311) % RECORDS;
        c->reaped = 0;
        numbered_key(number, c->key);
        if (kind == RW_OP_PUT) numbered_value(number, generation, c->value);
        c->op = (rw_op){.kind = kind,
                        .flags = flags,
                        .bucket = BUCKET,
                        .key = slice_bytes(c->key, sizeof c->key),
                        .value = slice_bytes(c->value, sizeof c->value),
                        .buf = c->value,
                        .size = sizeof c->value,
                        .result = 77};
        b->list[i] = &c->op;
    }
}

/* Those that came back, noted. The number of them. */
static unsigned reap_some(bed *b, unsigned min, int64_t timeout_ns)
{
    rw_op *done[DEPTH];
    int got = rw_reap(b->q, done, min, DEPTH, timeout_ns);
    TAP_CHECK(got >= 0);
    for (int i = 0; i < got; i++) ((call *)(void *)done[i])->reaped++;
    return got > 0 ? (unsigned)got : 0;
}

static bool all_reaped_once(const bed *b)
{
    for (unsigned i = 0; i < DEPTH; i++)
        if (b->calls[i].reaped != 1) return false;
    return true;
}

/* ---- the descriptor ---------------------------------------------------------------------------------------------- */

static bool readable(int fd, int timeout_ms)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, timeout_ms) == 1 && (wanted.revents & POLLIN) != 0;
}

/* Everything is waited for by the descriptor alone. The number of times that it said there was something. */
static unsigned poll_all(bed *b, int fd)
{
    unsigned got = 0, wakes = 0;
    while (got < DEPTH && TAP_CHECK(readable(fd, 20000))) {
        wakes++;
        got += reap_some(b, 0, 0);
    }
    return wakes;
}

static void test_descriptor(bed *b)
{
    int fd = rw_queue_fd(b->q);
    tap_ok(fd >= 0 && rw_queue_fd(b->q) == fd, "a descriptor, the same each time");
    unsigned wakes = 0;
    bool right = true;
    for (unsigned round = 0; round < 30; round++) {
        calls_set(b, round % 3 == 0 ? RW_OP_GET : RW_OP_PUT, round % 3 == 1 ? RW_SYNC : RW_ASYNC, round * 7919, round);
        if (round % 3 == 0)
            for (unsigned i = 0; i < DEPTH; i++) b->calls[i].op.flags = 0;
        CHECK_OK(rw_submit(b->q, b->list, DEPTH));
        wakes += poll_all(b, fd);
        right = right && all_reaped_once(b);
        for (unsigned i = 0; i < DEPTH; i++) right = right && b->calls[i].op.result == 0;
    }
    tap_ok(right, "a loop that waits for the descriptor only gets every operation, once");
    tap_ok(wakes <= 30 * DEPTH * 4, "it is not woken for nothing all the time: %u times for %u operations", wakes, 30 * DEPTH);
    reap_some(b, 0, 0);
    tap_ok(!readable(fd, 50), "with nothing in the queue it is not readable");
    calls_set(b, RW_OP_GET, 0, 1, 0);
    CHECK_OK(rw_submit(b->q, b->list, DEPTH));
    unsigned got = 0;
    while (got < DEPTH && TAP_CHECK(readable(fd, 20000))) {
        rw_op *one;
        int code = rw_reap(b->q, &one, 0, 1, 0);
        if (!TAP_CHECK(code >= 0)) break;
        got += (unsigned)code;
    }
    tap_ok(got == DEPTH, "reaped one by one, it stays readable for the others");
}

/* ---- min, max, time ---------------------------------------------------------------------------------------------- */

static void test_counts(bed *b)
{
    rw_op *done[DEPTH];
    tap_ok(rw_reap(b->q, done, 1, DEPTH, -1) == 0, "an empty queue is not waited for");
    calls_set(b, RW_OP_PUT, RW_SYNC, 3, 100);
    CHECK_OK(rw_submit(b->q, b->list, DEPTH));
    tap_ok(rw_reap(b->q, done, 0, 0, -1) == 0, "no room for any");
    int got = rw_reap(b->q, done, 5, 10, -1);
    tap_ok(got >= 5 && got <= 10, "between min and max: %d", got);
    tap_ok(rw_reap(b->q, done, DEPTH, DEPTH, -1) == (int)DEPTH - got, "min above what is there: all of it");
    tap_ok(rw_reap(b->q, done, 2, 1, 0) == RW_EINVAL && rw_reap(b->q, NULL, 0, 1, 0) == RW_EINVAL && rw_reap(NULL, done, 0, 1, 0) == RW_EINVAL, "wrong arguments");
}

static void test_submit_errors(bed *b)
{
    rw_queue *none = NULL;
    calls_set(b, RW_OP_PUT, RW_SYNC, 11, 200);
    rw_op *twice[2] = {b->list[0], b->list[0]}, *with_null[2] = {b->list[0], NULL}, *done[DEPTH];
    tap_ok(rw_submit(b->q, twice, 2) == RW_EBUSY && rw_submit(b->q, with_null, 2) == RW_EINVAL && rw_submit(b->q, NULL, 1) == RW_EINVAL &&
               rw_submit(NULL, b->list, 1) == RW_EINVAL && rw_submit(b->q, NULL, 0) == 0 && rw_reap(b->q, done, 1, DEPTH, 0) == 0,
           "the same one twice, NULL: nothing is submitted");
    CHECK_OK(rw_submit(b->q, b->list, DEPTH));
    rw_op more = {.kind = RW_OP_GET, .bucket = BUCKET, .key = slice_text("x")}, *more_list[1] = {&more};
    tap_ok(rw_submit(b->q, more_list, 1) == RW_EBUSY && rw_submit(b->q, b->list, 1) == RW_EBUSY, "more than there is room for");
    while (reap_some(b, 1, -1) > 0) continue;
    tap_ok(all_reaped_once(b), "those that were admitted are reaped, once");
    rw_op wrong_kind = {.kind = (rw_op_kind)99}, no_key = {.kind = RW_OP_GET, .bucket = BUCKET}, no_bucket = {.kind = RW_OP_GET, .bucket = 99, .key = slice_text("x")};
    rw_op wrong_flag = {.kind = RW_OP_PUT, .bucket = BUCKET, .key = slice_text("x"), .flags = 64}, no_buf = {.kind = RW_OP_GET, .bucket = BUCKET, .key = slice_text("x"), .size = 1};
    rw_op no_batch = {.kind = RW_OP_BATCH}, no_txn = {.kind = RW_OP_TXN};
    tap_ok(run_one(b->q, &wrong_kind) == RW_EINVAL && run_one(b->q, &no_key) == RW_EINVAL && run_one(b->q, &no_bucket) == RW_ENOTFOUND &&
               run_one(b->q, &wrong_flag) == RW_EINVAL && run_one(b->q, &no_buf) == RW_EINVAL && run_one(b->q, &no_batch) == RW_EINVAL && run_one(b->q, &no_txn) == RW_EINVAL,
           "what is wrong with an operation is its result");
    tap_ok(rw_queue_open(b->db, 0, &none) == RW_EINVAL && rw_queue_open(b->db, 65537, &none) == RW_EINVAL && rw_queue_open(b->db, 1, NULL) == RW_EINVAL && none == NULL,
           "absurd depths");
}

/* ---- cancelling and closing -------------------------------------------------------------------------------------- */

static bool value_now(bed *b, const call *c, uint64_t generation)
{
    uint64_t number;
    unsigned char value[QUEUE_VALUE_SIZE];
    memcpy(&number, c->key + 8, sizeof number);
    numbered_value(number, generation, value);
    return get_is(b->db, BUCKET, slice_bytes(c->key, sizeof c->key), slice_bytes(value, sizeof value));
}

/* Whether each write is there exactly if its result says so. */
static bool results_hold(bed *b, uint64_t generation, unsigned *cancelled)
{
    bool right = true;
    *cancelled = 0;
    for (unsigned i = 0; i < DEPTH; i++) {
        const call *c = &b->calls[i];
        *cancelled += c->op.result == RW_ECANCELED;
        right = right && (c->op.result == 0 || c->op.result == RW_ECANCELED) && value_now(b, c, generation) == (c->op.result == 0);
    }
    return right;
}

/* It may need what puts replace: so no put waits in memory for its page, the operation waits for it. */
static rw_txn *snapshot_open(bed *b)
{
    rw_txn *snapshot = NULL;
    CHECK_OK(rw_txn_begin(b->db, RW_SNAPSHOT, &snapshot));
    return snapshot;
}

static void test_cancel(bed *b)
{
    unsigned cancelled = 0, agreed = 0, sum = 0, reported;
    bool right = true;
    rw_txn *snapshot = snapshot_open(b);
    for (unsigned round = 0; round < 20; round++) {
        calls_set(b, RW_OP_PUT, RW_SYNC, round * 1237, 1000 + round);
        CHECK_OK(rw_submit(b->q, b->list, DEPTH));
        agreed = 0;
        for (unsigned i = round % 3; i < DEPTH; i += 3) {
            int code = rw_cancel(b->q, b->list[i]);
            right = right && (code == 0 || code == RW_EBUSY);
            agreed += code == 0;
        }
        while (reap_some(b, 1, -1) > 0) continue;
        right = right && all_reaped_once(b) && results_hold(b, 1000 + round, &reported) && reported == agreed;
        cancelled += agreed;
        sum += DEPTH;
    }
    rw_txn_abort(snapshot);
    tap_ok(right, "a cancelled write has changed nothing, one that could not be cancelled is there; each is reaped once");
    tap_ok(cancelled > 0 && cancelled < sum, "some could be cancelled: %u of %u", cancelled, sum);
    tap_ok(rw_cancel(b->q, b->list[0]) == RW_ENOTFOUND && rw_cancel(b->q, NULL) == RW_EINVAL && rw_cancel(NULL, b->list[0]) == RW_EINVAL, "nothing to cancel");
}

static void test_close(bed *b)
{
    bool right = true;
    unsigned cancelled, sum = 0;
    rw_txn *snapshot = snapshot_open(b);
    for (unsigned round = 0; round < 10; round++) {
        calls_set(b, RW_OP_PUT, round % 2 == 0 ? RW_SYNC : RW_ASYNC, round * 977, 2000 + round);
        CHECK_OK(rw_submit(b->q, b->list, DEPTH));
        CHECK_OK(rw_queue_close(b->q));
        right = right && results_hold(b, 2000 + round, &cancelled);
        sum += cancelled;
        CHECK_OK(rw_queue_open(b->db, DEPTH, &b->q));
    }
    rw_txn_abort(snapshot);
    tap_ok(right && sum > 0, "after a close each operation's result says what became of it (%u were cancelled)", sum);
    tap_ok(rw_queue_close(NULL) == RW_EINVAL, "a close of NULL");
}

/* ---- locks ------------------------------------------------------------------------------------------------------- */

static void test_locks(bed *b)
{
    rw_txn *holder, *waiter;
    rw_batch *batch;
    rw_op *done[4];
    CHECK_OK(rw_txn_begin(b->db, RW_PESSIMISTIC, &holder));
    CHECK_OK(rw_txn_put(holder, BUCKET, slice_text("locked"), slice_text("h")));
    CHECK_OK(rw_batch_new(b->db, &batch));
    CHECK_OK(rw_batch_put(batch, BUCKET, slice_text("locked"), slice_text("b")));
    CHECK_OK(rw_txn_begin(b->db, RW_SNAPSHOT, &waiter));
    CHECK_OK(rw_txn_put(waiter, BUCKET, slice_text("locked"), slice_text("w")));
    rw_op put = {.kind = RW_OP_PUT, .bucket = BUCKET, .key = slice_text("locked"), .value = slice_text("p")}, many = {.kind = RW_OP_BATCH, .batch = batch};
    rw_op commit = {.kind = RW_OP_TXN, .txn = waiter}, get = {.kind = RW_OP_GET, .bucket = BUCKET, .key = slice_text("locked")};
    rw_op *list[4] = {&put, &many, &commit, &get};
    CHECK_OK(rw_submit(b->q, list, 4));
    tap_ok(rw_reap(b->q, done, 4, 4, 100000000) == 1 && done[0] == &get && get.result == RW_ENOTFOUND, "writes wait for a lock, a read does not");
    tap_ok(rw_txn_commit(waiter, 0) == RW_EBUSY, "a transaction whose commit is in a queue is in use");
    rw_txn_abort(holder);
    int got = rw_reap(b->q, done, 3, 3, -1);
    tap_ok(got == 3 && put.result == 0 && many.result == 0 && (commit.result == 0 || commit.result == RW_ECONFLICT), "and go on when it is given back: %d, %d, %d, %d", got,
           put.result, many.result, commit.result);

    CHECK_OK(rw_txn_begin(b->db, RW_PESSIMISTIC, &holder));
    CHECK_OK(rw_txn_put(holder, BUCKET, slice_text("locked"), slice_text("h")));
    tap_ok(run_one(b->q, &put) == RW_ETIMEOUT, "a lock that is held for too long");
    CHECK_OK(rw_submit(b->q, list, 1));
    tap_ok(rw_cancel(b->q, &put) == 0 && rw_reap(b->q, done, 1, 1, -1) == 1 && put.result == RW_ECANCELED, "a write that waits for a lock can be cancelled");
    CHECK_OK(rw_txn_commit(holder, 0));
    tap_ok(get_is_text(b->db, BUCKET, "locked", "h"), "neither has changed anything");
    rw_batch_free(batch);
}

/* ---- threads and processes --------------------------------------------------------------------------------------- */

typedef struct {
    bed *b;
    int codes[3];
} visitor;

static void *visit(void *arg)
{
    visitor *v = arg;
    rw_op *done[1];
    v->codes[0] = rw_submit(v->b->q, NULL, 0);
    v->codes[1] = rw_reap(v->b->q, done, 0, 1, 0);
    v->codes[2] = rw_cancel(v->b->q, v->b->list[0]);
    return NULL;
}

/* While the main thread waits in rw_reap for a lock that nobody gives back before the time is over. */
static void *visit_during_reap(void *arg)
{
    usleep(100000);
    return visit(arg);
}

static void test_threads(bed *b)
{
    pthread_t thread;
    visitor v = {.b = b};
    rw_txn *holder;
    rw_op *done[1];
    CHECK_OK(rw_txn_begin(b->db, RW_PESSIMISTIC, &holder));
    CHECK_OK(rw_txn_put(holder, BUCKET, slice_text("locked"), slice_text("t")));
    rw_op put = {.kind = RW_OP_PUT, .bucket = BUCKET, .key = slice_text("locked"), .value = slice_text("p")}, *list[1] = {&put};
    CHECK_OK(rw_submit(b->q, list, 1));
    TAP_CHECK(pthread_create(&thread, NULL, visit_during_reap, &v) == 0);
    int got = rw_reap(b->q, done, 1, 1, 300000000);
    pthread_join(thread, NULL);
    tap_ok(got == 0 && v.codes[0] == RW_EBUSY && v.codes[1] == RW_EBUSY && v.codes[2] == RW_EBUSY, "a second thread in a queue: %d, %d, %d", v.codes[0], v.codes[1], v.codes[2]);
    rw_txn_abort(holder);
    TAP_CHECK(pthread_create(&thread, NULL, visit, &v) == 0);
    pthread_join(thread, NULL);
    tap_ok(v.codes[0] == 0 && v.codes[1] >= 0 && v.codes[2] == RW_ENOTFOUND, "handed over to another thread, it works");
    while (v.codes[1] == 0 && rw_reap(b->q, done, 1, 1, -1) != 1) continue;
    tap_ok(put.result == 0, "and the operation ends");
}

static int in_child(void *arg)
{
    bed *b = arg;
    rw_op *done[1];
    bool right = CHILD_CODE(rw_submit(b->q, NULL, 0), RW_EFORK) && CHILD_CODE(rw_reap(b->q, done, 0, 1, 0), RW_EFORK) && CHILD_CODE(rw_queue_close(b->q), RW_EFORK);
    return right ? 0 : 1;
}

typedef struct {
    const char *dir;
    _Atomic uint64_t *durable;     /* shared: so many numbers were reaped as durable, from 0 on */
} killed;

/* Writes number after number, DEPTH at once, and notes how many from the beginning are durable. Is killed. */
static int write_for_ever(void *arg)
{
    killed *k = arg;
    static bed b;
    static bool ended[1u << 20];
    rw_options options = options_small();
    if (!CHILD_CODE(rw_open(k->dir, &options, &b.db), 0) || !CHILD_CODE(rw_queue_open(b.db, DEPTH, &b.q), 0)) return 1;
    uint64_t next = 0, first = 0;
    static uint64_t numbers[DEPTH];
    unsigned idle = DEPTH;
    calls_set(&b, RW_OP_PUT, RW_SYNC, 0, 0);
    while (next < (1u << 20) - DEPTH) {
        for (unsigned i = 0; i < idle; i++, next++) {
            call *c = (call *)(void *)b.list[i];
            numbers[c - b.calls] = next;
            numbered_key(next, c->key);
            numbered_value(next, 5, c->value);
        }
        if (!CHILD_CODE(rw_submit(b.q, b.list, idle), 0)) return 1;
        int got = rw_reap(b.q, b.list, 1, DEPTH, -1);
        if (!CHILD_CHECK(got > 0)) return 1;
        for (int i = 0; i < got; i++) {
            if (!CHILD_CODE(b.list[i]->result, 0)) return 1;
            ended[numbers[(call *)(void *)b.list[i] - b.calls]] = true;
        }
        idle = (unsigned)got;
        while (ended[first]) first++;
        *k->durable = first;
        if (first > 3000) raise(SIGKILL);
    }
    return 1;
}

static void test_kill(void)
{
    char dir[DIRS_PATH_MAX];
    if (!dir_make(dir, "queue-kill")) return;
    killed k = {.dir = dir, .durable = child_shared(sizeof(uint64_t))};
    int status = child_run(write_for_ever, &k, 120);
    if (!tap_ok(status == CHILD_SIGNAL(SIGKILL), "a process that writes through a queue is killed: %d %s", status, child_said())) return;
    rw_options options = options_small();
    rw_db *db = open_or_exit(dir, &options);
    unsigned lost = 0;
    for (uint64_t i = 0; i < *k.durable; i++) {
        unsigned char key[QUEUE_KEY_SIZE], value[QUEUE_VALUE_SIZE];
        numbered_key(i, key);
        numbered_value(i, 5, value);
        lost += !get_is(db, BUCKET, slice_bytes(key, sizeof key), slice_bytes(value, sizeof value));
    }
    tap_ok(lost == 0 && *k.durable > 3000, "what was reaped before is there: %u of %llu are not", lost, (unsigned long long)*k.durable);
    CHECK_OK(rw_close(db));
    dir_remove(dir);
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    static bed b;
    rw_options options = options_small();
    options.cache_bytes = 2 * MIB;
    options.lock_timeout_ms = 700;
    if (!dir_make(dir, "queue-ends")) return 1;
    b.db = open_or_exit(dir, &options);
    fill_numbered(b.db, RECORDS);
    if (CHECK_OK(rw_queue_open(b.db, DEPTH, &b.q))) {
        test_descriptor(&b);
        test_counts(&b);
        test_submit_errors(&b);
        test_cancel(&b);
        test_close(&b);
        test_locks(&b);
        test_threads(&b);
        tap_ok(child_run(in_child, &b, 20) == 0, "a forked child cannot use it %s", child_said());
        CHECK_OK(rw_queue_close(b.q));
    }
    CHECK_OK(rw_close(b.db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    test_kill();
    return tap_done();
}
