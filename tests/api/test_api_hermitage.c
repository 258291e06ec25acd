/*
 * The Hermitage anomalies, and more like them, in every interleaving of the transactions' steps, in every mode.
 *
 * A case is a few transactions written as steps. Every merge of the steps is run and judged (txn_history.h). Each case is also run without transactions,
 * as single reads and writes, and then the judge must find fault: a case that cannot show its anomaly is worth nothing. In snapshot mode write skew is
 * allowed, and must be seen where a case is built for it.
 *
 * HERMITAGE_ONLY="name layout mode merge" runs the one thing that a failure names. HERMITAGE_MERGES=n takes at most n merges of a case, evenly, where
 * nothing must be seen.
 *
 * Steps, for items 0 to 3 and values V:  B begin (else the first step does)   C commit   A abort
 *   rI read   uI read for update   wI=V write   +I=V write what was last read of it, plus V   dI delete   p set a savepoint   b roll back to it
 *   sI-J scan forwards (s: all)   SI-J scan backwards   fI first item from I on   lI last item down from I   DV delete all that have V   RI-J delete_range
 */
#include <ctype.h>
#include <math.h>
#include <sched.h>
#include <semaphore.h>
#include <unistd.h>

#include "tests/api/txn_helpers.h"
#include "tests/api/txn_history.h"

#define STEPS_MAX 10
#define BLOCKED_US (SLOW_BUILD ? 200000 : 20000)              /* a call that takes longer waits for somebody */
#define CONTROL 'u'

/* Whether in snapshot mode the outcome may be one that no serial order has. */
typedef enum { NEVER, MAY, MUST } skew;
/* How the items lie: in one leaf, in partitions of their own, in buckets of their own. */
enum { NEAR = 1, FAR = 2, BUCKETS = 4, ALL = 7, LAYOUTS = 3 };

typedef struct {
    const char *name;
    const char *modes;                /* of those transactions that name none: n snapshot, z serializable, p pessimistic */
    unsigned layouts;
    skew skew;
    const char *txns[TXNS_MAX];       /* "M:" before the steps gives the mode: n, z, p, r read-only, 1 single operation, y batch */
    int before[ITEMS];                /* all 0: 10 20 GONE GONE */
} test_case;

static const test_case cases[] = {
    /* Hermitage's ten */
    {"G0", "nzp", ALL, NEVER, {"B w0=11 w1=21 C", "B w0=12 w1=22 C"}, {0}},
    {"G1a", "nzp", ALL, NEVER, {"B w0=101 A", "B r0 r0 C"}, {0}},
    {"G1a-range", "nzp", ALL, NEVER, {"B w0=101 w2=30 A", "B s s C"}, {0}},
    {"G1b", "nzp", ALL, NEVER, {"B w0=101 w0=11 C", "B r0 r0 C"}, {0}},
    {"G1c", "nzp", ALL, MAY, {"B w0=11 r1 C", "B w1=22 r0 C"}, {0}},
    {"OTV", "nzp", NEAR | FAR, NEVER, {"w0=11 w1=19 C", "w0=12 w1=18 C", "r0 r1 r1 C"}, {0}},
    {"PMP", "nzp", ALL, NEVER, {"B s s C", "B w2=30 C"}, {0}},
    {"PMP-write", "nzp", ALL, NEVER, {"B s +0=10 +1=10 C", "B D20 C"}, {0}},
    {"P4", "nzp", ALL, NEVER, {"B r0 +0=1 C", "B r0 +0=1 C"}, {0}},
    {"G-single", "nzp", ALL, NEVER, {"B r0 r1 C", "B r0 r1 w0=12 w1=18 C"}, {0}},
    {"G-single-range", "nzp", ALL, NEVER, {"B s r1 C", "B w0=12 w1=18 C"}, {0}},
    {"G-single-write", "nzp", ALL, NEVER, {"B r0 D20 C", "B w0=12 w1=18 C"}, {0}},
    {"G2-item", "nzp", ALL, MUST, {"B r0 r1 w0=11 C", "B r0 r1 w1=21 C"}, {0}},
    {"G2", "nzp", ALL, MUST, {"B s w2=30 C", "B s w3=42 C"}, {0}},
    {"G2-two-edges", "nzp", ALL, MUST, {"s w0=0 C", "r1 w1=25 C", "s C"}, {0}},
    /* absent keys */
    {"absent-skew", "nzp", ALL, MUST, {"B r2 w3=1 C", "B r3 w2=1 C"}, {0}},
    {"absent-race", "nzp", NEAR, NEVER, {"B r2 w2=1 C", "B r2 w2=2 C"}, {0}},
    {"absent-delete", "nzp", NEAR, NEVER, {"B d2 w3=1 C", "B w2=5 w3=6 C"}, {0}},
    {"come-and-gone", "nzp", NEAR, NEVER, {"r2 w0=1 r2 C", "w2=5 C", "d2 C"}, {0}},
    /* deletions */
    {"delete-skew", "nzp", ALL, MUST, {"B r0 d1 C", "B r1 d0 C"}, {0}},
    {"delete-update", "nzp", ALL, NEVER, {"B r0 d0 C", "B r0 w0=5 C"}, {0}},
    {"delete-insert", "nzp", NEAR, NEVER, {"B d0 w0=11 C", "B r0 r0 C"}, {0}},
    {"delete-insert-same", "nzp", NEAR | FAR, NEVER, {"B s w2=1 C", "B d0 w0=10 w2=2 C"}, {0}},
    {"delete-all", "nzp", NEAR | BUCKETS, NEVER, {"B s s C", "B d0 d1 w2=1 C"}, {0}},
    /* ranges */
    {"range-first", "nzp", NEAR | FAR, MUST, {"B f0 w3=31 C", "B r3 w0=5 C"}, {GONE, 20, GONE, GONE}},
    {"range-last", "nzp", NEAR | FAR, MUST, {"B l3 w0=1 C", "B r0 w3=9 C"}, {0}},
    {"range-beyond", "nz", ALL, NEVER, {"B f0 w3=31 C", "B r3 w2=7 w3=8 C"}, {GONE, 20, GONE, GONE}},
    {"range-part", "nzp", ALL, MUST, {"B s2-3 w0=1 C", "B r0 w3=9 C"}, {0}},
    {"range-back", "nzp", ALL, MUST, {"B S w2=30 C", "B S w3=42 C"}, {0}},
    {"range-back-part", "nzp", NEAR | FAR, MUST, {"B S1-2 w3=1 C", "B r3 d1 C"}, {0}},
    {"range-own", "nzp", ALL, NEVER, {"B w2=7 s d0 S C", "B w0=1 w3=2 C"}, {0}},
    {"range-delete", "nzp", NEAR | FAR, NEVER, {"B s D10 w3=1 C", "B s3-3 w2=10 w3=2 C"}, {0}},
    /* more than two */
    {"three-cycle", "nzp", ALL, MUST, {"r0 w1=1 C", "r1 w2=1 C", "r2 w0=1 C"}, {0}},
    {"three-counters", "nzp", NEAR, NEVER, {"r0 +0=1 C", "r0 +0=1 C", "r0 +0=1 C"}, {0}},
    {"blind", "nzp", NEAR | FAR, NEVER, {"w0=1 w1=1 C", "w1=2 w0=2 C", "r0 r1 C"}, {0}},
    /* read-only ones among writers */
    {"reader", "nzp", ALL, NEVER, {"r:B r0 r1 r0 C", "B w0=11 w1=21 C"}, {0}},
    {"reader-range", "nzp", NEAR | FAR, NEVER, {"r:s S C", "w0=1 d1 C", "w2=3 w0=4 C"}, {0}},
    {"reader-anomaly", "zp", ALL, NEVER, {"s w0=0 C", "r1 w1=25 C", "r:s C"}, {0}},
    {"reader-singles", "r", NEAR, NEVER, {"r0 s r1 r0 C", "1:w0=1", "1:w1=2", "1:R0-3"}, {0}},
    /* claims */
    {"claim", "nzp", ALL, NEVER, {"B u0 u1 w0=11 C", "B u0 u1 w1=21 C"}, {0}},
    {"claim-absent", "nzp", ALL, NEVER, {"B u2 u3 w2=1 C", "B u2 u3 w3=1 C"}, {0}},
    {"claim-one", "nzp", NEAR, MAY, {"B r0 u1 w0=11 C", "B r0 r1 w1=21 C"}, {0}},
    {"claim-counter", "nzp", NEAR | FAR, NEVER, {"u0 +0=1 C", "u0 +0=1 C", "r0 +0=1 C"}, {0}},
    /* savepoints */
    {"rolled-back", "nzp", ALL, NEVER, {"B p w0=11 b w1=21 C", "B r1 w0=12 C"}, {0}},
    {"rolled-back-reads", "nzp", NEAR, MUST, {"B p r0 w2=1 b w1=21 C", "B r1 w0=12 C"}, {0}},
    {"rolled-back-delete", "nzp", NEAR, NEVER, {"B p d0 b r0 +0=1 C", "B r0 w0=12 C"}, {0}},
    /* modes side by side */
    {"mixed-zn", "m", ALL, MAY, {"z:B r0 r1 w0=11 C", "n:B r0 r1 w1=21 C"}, {0}},
    {"mixed-zp", "m", ALL, NEVER, {"z:B r0 r1 w0=11 C", "p:B r0 r1 w1=21 C"}, {0}},
    {"mixed-np", "m", ALL, MAY, {"n:B r0 r1 w0=11 C", "p:B r0 r1 w1=21 C"}, {0}},
    {"mixed-counter", "m", ALL, NEVER, {"n:r0 +0=1 C", "z:r0 +0=1 C", "p:r0 +0=1 C"}, {0}},
    {"mixed-range", "m", ALL, NEVER, {"z:B s w2=30 C", "p:B s w3=42 C"}, {0}},
    {"mixed-three", "m", NEAR | FAR, NEVER, {"p:s w2=30 C", "1:w3=42", "z:r2 r3 w0=1 C"}, {0}},
    {"mixed-batch", "m", ALL, NEVER, {"p:r0 r1 r0 C", "y:w0=1 w1=2 C", "r:r0 r1 C"}, {0}},
    {"single-update", "nzp", ALL, NEVER, {"B r0 +0=1 C", "1:w0=50", "1:d0"}, {0}},
    {"single-range", "nzp", NEAR, MAY, {"B s s w2=1 C", "1:R0-3", "1:w2=9"}, {0}},
    {"single-range-one", "nzp", ALL, MAY, {"B s r1 w0=1 C", "1:R1-1", "1:w1=9"}, {0}},
    {"single-insert", "nzp", ALL, NEVER, {"B s s C", "1:w2=5", "1:w3=6"}, {0}},
    {"batch-skew", "nzp", ALL, NEVER, {"B r0 r1 w0=11 r1 C", "y:w0=3 w1=4 C"}, {0}},
    {"batch-delete", "nzp", NEAR | FAR, NEVER, {"B s r2 w1=5 C", "y:d0 w2=1 d1 C"}, {0}},
};

typedef struct {
    char op;
    int item;                         /* or the first of a range, or a value */
    int value;                        /* or the last of a range */
} step;

typedef struct {
    rw_bucket bucket[ITEMS];
    char key[ITEMS][24];
    bool far;
} layout;

/* One transaction while it runs. */
typedef struct {
    rw_db *db;
    const layout *items;
    txn_history *t;
    rw_txn *txn;
    rw_batch *batch;
    _Atomic uint64_t id;
    unsigned savepoint;
    int saved[ITEMS];
    int last[ITEMS];                  /* what was last read */
    const step *steps;
    int next;
} actor;

static atomic_long clock_ticks;

static long tick(void)
{
    return atomic_fetch_add(&clock_ticks, 1);
}

static void fail(actor *a, const char *what, int code)
{
    if (a->t->failure[0] == 0) snprintf(a->t->failure, sizeof(a->t->failure), "%s: %d %s", what, code, code < 0 ? rw_last_error(NULL) : "");
}

static void note_read(actor *a, int item, int value)
{
    txn_history *t = a->t;
    int own = t->writes[item];
    if (value != THERE) a->last[item] = value;
    if (own != UNTOUCHED && t->mode != MODE_UNPROTECTED) {
        if (value == THERE ? own == GONE : own != value) fail(a, "it did not read its own write of item", item);
    } else if (t->reads_count < READS_MAX) {
        t->reads[t->reads_count++] = (item_read){item, value};
    }
}

static int value_of(const char *text, size_t size)
{
    int value = 0;
    for (size_t i = 0; i < size; i++) value = value * 10 + (text[i] - '0');
    return value;
}

static rw_slice item_key(const actor *a, int item)
{
    return slice_text(a->items->key[item]);
}

static int do_get(actor *a, int item, bool claim)
{
    char text[16];
    size_t size = sizeof(text);
    rw_bucket bucket = a->items->bucket[item];
    int code;
    if (a->txn == NULL) code = rw_get(a->db, bucket, item_key(a, item), text, &size);
    else if (claim) code = rw_txn_get_for_update(a->txn, bucket, item_key(a, item), text, &size);
    else code = rw_txn_get(a->txn, bucket, item_key(a, item), text, &size);
    if (code != 0 && code != RW_ENOTFOUND) return code;
    if (claim) a->t->claimed[item] = true;
    note_read(a, item, code == 0 ? value_of(text, size) : GONE);
    return 0;
}

static int do_put(actor *a, int item, int value)
{
    char text[16];
    rw_slice data = slice_bytes(text, (size_t)snprintf(text, sizeof(text), "%d", value));
    rw_bucket bucket = a->items->bucket[item];
    int code;
    if (a->batch != NULL) code = rw_batch_put(a->batch, bucket, item_key(a, item), data);
    else if (a->txn != NULL) code = rw_txn_put(a->txn, bucket, item_key(a, item), data);
    else code = rw_put(a->db, bucket, item_key(a, item), data, RW_ASYNC);
    if (code == 0) a->t->writes[item] = value;
    return code;
}

static int do_del(actor *a, int item)
{
    rw_bucket bucket = a->items->bucket[item];
    int code;
    if (a->batch != NULL) {
        code = rw_batch_del(a->batch, bucket, item_key(a, item));
    } else {
        code = a->txn != NULL ? rw_txn_del(a->txn, bucket, item_key(a, item)) : rw_del(a->db, bucket, item_key(a, item), RW_ASYNC);
        if (code == 0 || code == RW_ENOTFOUND) note_read(a, item, code == 0 ? THERE : GONE);
        if (code == RW_ENOTFOUND) return 0;
    }
    if (code == 0) a->t->writes[item] = GONE;
    return code;
}

/* Where a cursor came to, from item `from` in one direction: what it passed is absent. Returns whether it has come to item `to` or past it. */
static bool arrive(actor *a, rw_cursor *cursor, int code, int from, int to, bool forwards, int found[ITEMS])
{
    rw_slice key = NO_KEY, value = NO_KEY;
    bool past = true;
    if (code == 0 && ((code = rw_cursor_key(cursor, &key)) != 0 || (code = rw_cursor_value(cursor, &value)) != 0)) fail(a, "a cursor stands nowhere", code);
    for (int i = 0; i < ITEMS; i++) {
        if (a->items->bucket[i] != a->items->bucket[from] || (forwards ? i < from : i > from)) continue;
        int side = code != 0 ? (forwards ? -1 : 1) : slice_compare(item_key(a, i), key);
        if (side == 0) found[i] = value_of(value.data, value.size);
        else if (found[i] == UNTOUCHED && (forwards ? side < 0 : side > 0)) found[i] = GONE;
        if (i == to && (forwards ? side > 0 : side < 0)) past = false;
    }
    return past;
}

static bool at_item(const actor *a, rw_cursor *cursor, int item)
{
    rw_slice key = NO_KEY;
    return rw_cursor_key(cursor, &key) == 0 && slice_same(key, item_key(a, item));
}

/* from and to are in the same bucket. one: stops at the first item that is there. */
static int scan_bucket(actor *a, rw_cursor *cursor, int from, int to, bool forwards, bool one, int found[ITEMS])
{
    int code = rw_cursor_seek(cursor, item_key(a, from));
    arrive(a, cursor, code, from, from, true, found);
    if (!forwards && code == RW_ENOTFOUND) code = rw_cursor_last(cursor);
    else if (!forwards && code == 0 && !at_item(a, cursor, from)) code = rw_cursor_prev(cursor);
    while (code == 0) {
        bool past = arrive(a, cursor, code, from, to, forwards, found), hit = false;
        for (int i = 0; i < ITEMS && one; i++) hit = hit || (a->items->bucket[i] == a->items->bucket[from] && at_item(a, cursor, i));
        if (past || hit) return 0;
        code = forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor);
    }
    if (code != RW_ENOTFOUND) return code;
    arrive(a, cursor, code, from, to, forwards, found);
    return 0;
}

/* Reads items from..to by cursors, one for each bucket. */
static int do_scan(actor *a, int from, int to, bool forwards, bool one)
{
    int found[ITEMS], way = forwards ? 1 : -1, code = 0;
    for (int i = 0; i < ITEMS; i++) found[i] = UNTOUCHED;
    for (int i = from, last; code == 0 && (forwards ? i <= to : i >= to); i = last + way) {
        rw_cursor *cursor = NULL;
        for (last = i; last != to && a->items->bucket[last + way] == a->items->bucket[i];) last += way;
        code = rw_cursor_open(a->db, a->txn, a->items->bucket[i], &cursor);
        if (code == 0) code = scan_bucket(a, cursor, i, last, forwards, one, found);
        if (cursor != NULL) rw_cursor_close(cursor);
        if (one && found[last] >= 0) break;
    }
    for (int i = 0; i < ITEMS && code == 0; i++)
        if (found[i] != UNTOUCHED) note_read(a, i, found[i]);
    return code;
}

static int do_delete_where(actor *a, int value)
{
    int code = do_scan(a, 0, ITEMS - 1, true, false);
    for (int i = 0; i < ITEMS && code == 0; i++)
        if (a->last[i] == value) code = do_del(a, i);
    return code;
}

static int do_delete_range(actor *a, int from, int to)
{
    int code = 0;
    char end[32];
    for (int i = from, last; code == 0 && i <= to; i = last + 1) {
        for (last = i; last < to && a->items->bucket[last + 1] == a->items->bucket[i];) last++;
        snprintf(end, sizeof(end), "%s!", a->items->key[last]);
        code = rw_delete_range(a->db, a->items->bucket[i], item_key(a, i), slice_text(end), RW_ASYNC);
    }
    for (int i = from; i <= to && code == 0; i++) a->t->writes[i] = GONE;
    return code;
}

static int do_begin(actor *a)
{
    txn_history *t = a->t;
    t->begin_call = tick();
    int code = 0;
    if (t->mode == MODE_BATCH) code = rw_batch_new(a->db, &a->batch);
    else if (t->mode != MODE_SINGLE && t->mode != MODE_UNPROTECTED) code = rw_txn_begin(a->db, t->mode, &a->txn);
    if (a->txn != NULL) atomic_store(&a->id, rw_txn_id(a->txn));
    t->begin_done = tick();
    return code;
}

/* Ends it, whatever came. */
static void do_end(actor *a, bool commit)
{
    txn_history *t = a->t;
    int code = 0;
    t->end_call = t->mode == MODE_SINGLE ? t->begin_call : tick();
    if (commit && a->batch != NULL) code = rw_batch_commit(a->batch, RW_ASYNC);
    else if (commit && a->txn != NULL) code = rw_txn_commit(a->txn, RW_ASYNC);
    else if (a->txn != NULL) rw_txn_abort(a->txn);
    if (code != 0 && (code != RW_ECONFLICT || (t->mode != RW_SNAPSHOT && t->mode != RW_SERIALIZABLE))) fail(a, "commit", code);
    if (a->batch != NULL) rw_batch_free(a->batch);
    t->end = !commit ? ABORTED : code == 0 ? COMMITTED : CONFLICTED;
    t->end_done = tick();
}

static int do_step(actor *a, const step *s)
{
    switch (s->op) {
    case 'r': return do_get(a, s->item, false);
    case 'u': return do_get(a, s->item, true);
    case 'w': return do_put(a, s->item, s->value);
    case '+': return a->last[s->item] < 0 ? 0 : do_put(a, s->item, a->last[s->item] + s->value);
    case 'd': return do_del(a, s->item);
    case 's': return do_scan(a, s->item, s->value, true, false);
    case 'S': return do_scan(a, s->value, s->item, false, false);
    case 'f': return do_scan(a, s->item, ITEMS - 1, true, true);
    case 'l': return do_scan(a, s->item, 0, false, true);
    case 'D': return do_delete_where(a, s->item);
    case 'R': return do_delete_range(a, s->item, s->value);
    case 'p': memcpy(a->saved, a->t->writes, sizeof(a->saved)); return a->txn != NULL ? rw_txn_savepoint(a->txn, &a->savepoint) : 0;
    case 'b': memcpy(a->t->writes, a->saved, sizeof(a->saved)); return a->txn != NULL ? rw_txn_rollback_to(a->txn, a->savepoint) : 0;
    default: return 0;
    }
}

/* Makes the next step; none once it has ended. */
static void act(actor *a)
{
    const step *s = &a->steps[a->next++];
    txn_history *t = a->t;
    if (t->end != RUNNING) return;
    int code = t->begin_call == 0 ? do_begin(a) : 0;
    if (s->op == 'C' || s->op == 'A') return do_end(a, s->op == 'C');
    if (code == 0) code = do_step(a, s);
    if (code == 0 && t->mode != MODE_SINGLE) return;
    if (code != 0 && (code != RW_EDEADLOCK || t->mode != RW_PESSIMISTIC)) fail(a, "step", code);
    do_end(a, t->mode == MODE_SINGLE && code == 0);
    if (code == RW_EDEADLOCK) t->end = DEADLOCKED;
}

/* Threads for transactions that wait for each other. */
typedef struct {
    pthread_t thread;
    sem_t go;
    actor *a;
    atomic_int allowed, done;
    atomic_bool quit;
} stepper;

static stepper steppers[TXNS_MAX];
static sem_t settled;

static void *step_on(void *arg)
{
    stepper *s = arg;
    for (;;) {
        while (sem_wait(&s->go) != 0) {}
        if (atomic_load(&s->quit)) return NULL;
        act(s->a);
        atomic_fetch_add(&s->done, 1);
        sem_post(&settled);
    }
}

static void steppers_start(void)
{
    sem_init(&settled, 0, 0);
    for (int n = 0; n < TXNS_MAX; n++) {
        sem_init(&steppers[n].go, 0, 0);
        if (pthread_create(&steppers[n].thread, NULL, step_on, &steppers[n]) != 0) exit(1);
    }
}

static void steppers_stop(void)
{
    for (int n = 0; n < TXNS_MAX; n++) {
        atomic_store(&steppers[n].quit, true);
        sem_post(&steppers[n].go);
        pthread_join(steppers[n].thread, NULL);
    }
}

static bool busy(int n)
{
    return atomic_load(&steppers[n].allowed) != atomic_load(&steppers[n].done);
}

static bool any_busy(int count)
{
    for (int n = 0; n < count; n++)
        if (busy(n)) return true;
    return false;
}

typedef struct {
    int count;
    uint64_t ids[16];
} waiting_ids;

static int note_waiting(void *arg, const rw_lock_info *info)
{
    waiting_ids *waiting = arg;
    if (info->waiting != 0 && waiting->count < 16) waiting->ids[waiting->count++] = info->txn;
    return 0;
}

/* Whether every call that has not returned is listed as waiting for a lock. */
static bool all_busy_wait(rw_db *db, int count)
{
    waiting_ids waiting = {0};
    if (rw_lock_list(db, note_waiting, &waiting) != 0) return false;
    for (int n = 0; n < count; n++) {
        bool listed = !busy(n);
        for (int i = 0; i < waiting.count; i++) listed = listed || waiting.ids[i] == atomic_load(&steppers[n].a->id);
        for (int i = 0; i < waiting.count && steppers[n].a->t->mode != RW_PESSIMISTIC; i++) listed = listed || waiting.ids[i] == 0;
        if (!listed) return false;
    }
    return true;
}

/* Returns when every call has returned or waits for another transaction. */
static void settle(rw_db *db, int count)
{
    for (int i = 0; i < 10 && any_busy(count); i++) sched_yield();
    for (int64_t end = now_us() + BLOCKED_US; any_busy(count) && now_us() < end;) {
        if (all_busy_wait(db, count)) return;
        if (sem_trywait(&settled) != 0) pause_us(20);
    }
}

static void run_threads(rw_db *db, actor *actors, int count, const char *merge)
{
    for (int n = 0; n < count; n++) {
        steppers[n].a = &actors[n];
        atomic_store(&steppers[n].allowed, 0);
        atomic_store(&steppers[n].done, 0);
    }
    for (const char *at = merge; *at != 0; at++) {
        int n = *at - '0';
        atomic_fetch_add(&steppers[n].allowed, 1);
        sem_post(&steppers[n].go);
        settle(db, count);
    }
    int64_t end = now_us() + PATIENCE_MS * 1000;
    while (any_busy(count)) {
        pause_us(20);
        if (now_us() < end) continue;
        tap_ok(false, "merge %s stands still", merge);
        exit(tap_done());
    }
    while (sem_trywait(&settled) == 0) {}
}

/* The cases' text. */
static unsigned mode_of(char letter)
{
    switch (letter) {
    case 'n': return RW_SNAPSHOT;
    case 'z': return RW_SERIALIZABLE;
    case 'p': return RW_PESSIMISTIC;
    case 'r': return RW_READONLY;
    case '1': return MODE_SINGLE;
    case 'y': return MODE_BATCH;
    default: return MODE_UNPROTECTED;
    }
}

typedef struct {
    int count;
    int lengths[TXNS_MAX];
    unsigned modes[TXNS_MAX];
    step steps[TXNS_MAX][STEPS_MAX];
} program;

static int parse_number(const char **at)
{
    int value = 0;
    while (isdigit((unsigned char)**at)) value = value * 10 + *(*at)++ - '0';
    return value;
}

static int parse_steps(const char *at, step *steps)
{
    int count = 0;
    for (; *at != 0 && count < STEPS_MAX; count++) {
        step *s = &steps[count];
        s->op = *at++;
        bool all = !isdigit((unsigned char)*at);
        s->item = parse_number(&at);
        s->value = all ? ITEMS - 1 : 0;
        if (*at == '=' || *at == '-') at++, s->value = parse_number(&at);
        while (*at == ' ') at++;
    }
    return count;
}

static void parse(const test_case *c, char mode, program *p)
{
    memset(p, 0, sizeof(*p));
    for (int n = 0; n < TXNS_MAX && c->txns[n] != NULL; n++) {
        const char *text = c->txns[n];
        bool named = text[1] == ':';
        p->modes[n] = mode_of(named && (mode != CONTROL || strchr("1y", text[0]) != NULL) ? text[0] : mode);
        p->lengths[n] = parse_steps(named ? text + 2 : text, p->steps[n]);
        p->count++;
    }
}

/* The next merge in lexical order, in place; false after the last. */
static bool next_merge(char *merge)
{
    size_t size = strlen(merge), i = size - 1, j = size - 1;
    while (i > 0 && merge[i - 1] >= merge[i]) i--;
    if (i == 0) return false;
    while (merge[j] <= merge[i - 1]) j--;
    char swap = merge[i - 1];
    merge[i - 1] = merge[j], merge[j] = swap;
    for (j = size - 1; i < j; i++, j--) swap = merge[i], merge[i] = merge[j], merge[j] = swap;
    return true;
}

static void first_merge(const program *p, char *merge)
{
    for (int n = 0; n < p->count; n++)
        for (int i = 0; i < p->lengths[n]; i++) *merge++ = (char)('0' + n);
    *merge = 0;
}

typedef struct {
    rw_db *db;
    const test_case *c;
    const layout *items;
    const char *layout_name;
    char mode;
    program p;
    unsigned runs, failed, skewed, lost;   /* lost: transactions that did not commit though they wanted to */
} trial;

static void prepare(trial *run, history *h)
{
    rw_batch *batch = NULL;
    static const int usual[ITEMS] = {10, 20, GONE, GONE};
    bool given = false;
    memset(h, 0, sizeof(*h));
    for (int i = 0; i < ITEMS; i++) given = given || run->c->before[i] != 0;
    memcpy(h->before, given ? run->c->before : usual, sizeof(h->before));
    CHECK_OK(rw_batch_new(run->db, &batch));
    for (int i = 0; i < ITEMS; i++) {
        char text[16];
        rw_slice key = slice_text(run->items->key[i]);
        snprintf(text, sizeof(text), "%d", h->before[i]);
        CHECK_OK(h->before[i] == GONE ? rw_batch_del(batch, run->items->bucket[i], key) : rw_batch_put(batch, run->items->bucket[i], key, slice_text(text)));
    }
    CHECK_OK(rw_batch_commit(batch, RW_ASYNC));
    rw_batch_free(batch);
}

static void read_after(trial *run, history *h)
{
    for (int i = 0; i < ITEMS; i++) {
        char text[16];
        size_t size = sizeof(text);
        int code = rw_get(run->db, run->items->bucket[i], slice_text(run->items->key[i]), text, &size);
        if (code != 0 && code != RW_ENOTFOUND) CHECK_OK(code);
        h->after[i] = code == 0 ? value_of(text, size) : GONE;
    }
}

/* What may never be, in words; NULL when all is well. */
static const char *fault(trial *run, const history *h)
{
    bool serial = history_allowed(h, true);
    for (int n = 0; n < h->count; n++) {
        const txn_history *t = &h->txns[n];
        if (t->failure[0] != 0) return t->failure;
        if (t->end == RUNNING) return "a transaction did not end";
        if (t->end == CONFLICTED && !history_conflict_has_cause(h, t)) return "a conflict without a cause";
        if (t->end == DEADLOCKED && !history_deadlock_has_cause(h, t)) return "a deadlock without a cause";
        if (t->end == CONFLICTED || t->end == DEADLOCKED) run->lost++;
    }
    if (!history_allowed(h, false)) return "no order of the commits explains it";
    bool may = run->c->skew != NEVER && (run->mode == 'n' || run->mode == 'm');
    if (!serial && !may) return run->mode == 'n' ? "an anomaly that snapshots do not have" : "not serializable";
    run->skewed += !serial;
    return NULL;
}

static void report(trial *run, const history *h, const char *merge, const char *what)
{
    tap_diag("HERMITAGE_ONLY=\"%s %s %c %s\" %s", run->c->name, run->layout_name, run->mode, merge, what);
    for (int n = 0; n < h->count; n++) {
        char text[1024];
        history_print_txn(&h->txns[n], n, text, sizeof(text));
        tap_diag("    %s", text);
    }
    tap_diag("    before %d %d %d %d, after %d %d %d %d", h->before[0], h->before[1], h->before[2], h->before[3], h->after[0], h->after[1], h->after[2],
             h->after[3]);
}

static void run_merge(trial *run, const char *merge)
{
    history h;
    actor actors[TXNS_MAX];
    bool threads = false;
    prepare(run, &h);
    atomic_store(&clock_ticks, 1);
    memset(actors, 0, sizeof(actors));
    h.count = run->p.count;
    for (int n = 0; n < h.count; n++) {
        h.txns[n].mode = run->p.modes[n];
        actors[n] = (actor){.db = run->db, .items = run->items, .t = &h.txns[n], .steps = run->p.steps[n]};
        for (int i = 0; i < ITEMS; i++) h.txns[n].writes[i] = UNTOUCHED, actors[n].last[i] = GONE;
        threads = threads || run->p.modes[n] == RW_PESSIMISTIC;
    }
    if (threads) run_threads(run->db, actors, h.count, merge);
    else for (const char *at = merge; *at != 0; at++) act(&actors[*at - '0']);
    read_after(run, &h);
    const char *what = fault(run, &h);
    run->runs++;
    if (what != NULL && run->failed++ < 3 && run->mode != CONTROL) report(run, &h, merge, what);
}

/* How many merges of a case are taken, if there are more: HERMITAGE_MERGES; else all, but in slow builds, where far items have thousands of keys between them. */
static double merges_most(const trial *run)
{
    const char *text = getenv("HERMITAGE_MERGES");
    double otherwise = !SLOW_BUILD ? INFINITY : run->items->far ? 30 : 300;
    return text != NULL ? fmin(atof(text), otherwise) : otherwise;
}

/* Every so many merges one is taken. What must be seen, or found fault with, needs them all. */
static unsigned merge_stride(const trial *run)
{
    double merges = 1, most = merges_most(run);
    for (int n = 0, total = 0; n < run->p.count; n++)
        for (int i = 1; i <= run->p.lengths[n]; i++) merges = merges * ++total / i;
    if (merges <= most || run->mode == CONTROL || (run->c->skew == MUST && run->mode == 'n')) return 1;
    return (unsigned)(merges / most) + 1;
}

static void run_case(trial *run, const char *only)
{
    char merge[TXNS_MAX * STEPS_MAX + 1];
    parse(run->c, run->mode, &run->p);
    first_merge(&run->p, merge);
    unsigned stride = merge_stride(run), number = 0;
    if (only != NULL) return run_merge(run, only);
    do {
        if (number++ % stride == 0) run_merge(run, merge);
    } while (next_merge(merge) && (run->mode != CONTROL || run->failed == 0));
    if (run->mode == CONTROL) {
        tap_ok(run->failed > 0, "%s, %s, no transactions: the judge finds fault", run->c->name, run->layout_name);
    } else {
        bool seen = run->c->skew != MUST || run->mode != 'n' || run->skewed > 0;
        tap_ok(run->failed == 0 && seen, "%s, %s, %c: %u merges, %u not serializable%s, %u transactions gave way", run->c->name, run->layout_name, run->mode, run->runs,
               run->skewed, run->c->skew == MUST && run->mode == 'n' ? " (must be seen)" : "", run->lost);
    }
}

#define FILLER_KEYS 260
#define FILLER_SIZE 700

/* Items of the far layout with so much between them that each lies in a partition of its own. */
static void fill_far(rw_db *db, const layout *far)
{
    char key[32], value[FILLER_SIZE];
    memset(value, 'f', sizeof(value));
    for (int i = 0; i < ITEMS; i++)
        for (int j = 0; j < FILLER_KEYS; j++) {
            snprintf(key, sizeof(key), "%s/%04d", far->key[i], j);
            CHECK_OK(rw_put(db, far->bucket[i], slice_text(key), slice_bytes(value, sizeof(value)), RW_ASYNC));
        }
    int64_t end = now_us() + PATIENCE_MS * 1000;
    while (stats_now(db).partitions < ITEMS && now_us() < end) CHECK_OK(rw_checkpoint(db));
    tap_ok(stats_now(db).partitions >= ITEMS, "the far items lie in %llu partitions", (unsigned long long)stats_now(db).partitions);
}

static void make_layouts(rw_db *db, layout layouts[LAYOUTS])
{
    rw_bucket far = 0;
    CHECK_OK(rw_bucket_open(db, "far", RW_CREATE, &far));
    for (int i = 0; i < ITEMS; i++) {
        char name[24];
        snprintf(name, sizeof(name), "bucket %d", i);
        for (int l = 0; l < LAYOUTS; l++) snprintf(layouts[l].key[i], sizeof(layouts[l].key[i]), "item %d", i);
        layouts[0].bucket[i] = BUCKET;
        layouts[1].bucket[i] = far;
        CHECK_OK(rw_bucket_open(db, name, RW_CREATE, &layouts[2].bucket[i]));
    }
    layouts[1].far = true;
    fill_far(db, &layouts[1]);
}

/* Whether HERMITAGE_ONLY, if there is one, names it; *merge becomes its last word. */
static bool wanted(const trial *run, const char **merge)
{
    const char *only = getenv("HERMITAGE_ONLY");
    char start[128];
    *merge = NULL;
    if (only == NULL) return true;
    snprintf(start, sizeof(start), "%s %s %c ", run->c->name, run->layout_name, run->mode);
    if (strncmp(only, start, strlen(start)) != 0) return false;
    *merge = only + strlen(start);
    return true;
}

static void run_all(rw_db *db, const layout layouts[LAYOUTS])
{
    static const char *const names[LAYOUTS] = {"near", "far", "buckets"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int l = 0; l < LAYOUTS; l++) {
            if ((cases[i].layouts & 1u << l) == 0) continue;
            char modes[8];
            snprintf(modes, sizeof(modes), "%s%s", cases[i].modes, l == 0 ? "u" : "");
            for (const char *mode = modes; *mode != 0; mode++) {
                trial run = {.db = db, .c = &cases[i], .items = &layouts[l], .layout_name = names[l], .mode = *mode};
                const char *merge;
                if (wanted(&run, &merge)) run_case(&run, merge);
                if (merge != NULL) tap_ok(run.failed == 0, "the one");
            }
        }
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    layout layouts[LAYOUTS] = {0};
    alarm(SLOW_BUILD ? 600 : 240);
    options.cache_bytes = 16 * MIB;
    options.log_bytes = 64 * MIB;
    options.partition_bytes = 128 * 1024;
    if (!dir_make(dir, "hermitage")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    make_layouts(db, layouts);
    steppers_start();
    run_all(db, layouts);
    steppers_stop();
    tap_ok(wait_for_rest(db), "nothing is left of them");
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    return tap_done();
}
