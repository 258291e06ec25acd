/*
 * Deadlocks of pessimistic transactions: each cycle costs one victim, told which transactions it was about, and the others finish; without a cycle there is no
 * victim. Locks are waited for without limit here, in effect: a deadlock that is not found ends the program by its alarm.
 *
 * DEADLOCK_SEED=n replays the random parts.
 */
#include <unistd.h>

#include "tests/api/txn_helpers.h"

#define CYCLE_MAX 16

/* Where the keys of a cycle lie. */
typedef struct {
    const char *name;
    rw_bucket buckets[2];
    bool far;
} place;

static void place_key(const place *at, int i, char key[32])
{
    snprintf(key, 32, at->far ? "far %02d" : "near %02d", i);
}

/* What a transaction does to its own key first, and then to the next one's. */
typedef enum { BY_PUT, BY_GET, BY_CLAIM, BY_DEL, BY_SCAN, WAYS } way;

static const char *const way_names[WAYS] = {"put", "get", "claim", "del", "scan"};

typedef struct {
    rw_db *db;
    rw_txn *txn;
    uint64_t id;
    rw_bucket bucket;
    char key[32];
    way how;
} lock_step;

static int step_take(const lock_step *s)
{
    rw_slice key = slice_text(s->key);
    rw_cursor *cursor = NULL;
    size_t size = 0;
    int code;
    switch (s->how) {
    case BY_PUT: return rw_txn_put(s->txn, s->bucket, key, slice_text("x"));
    case BY_DEL: code = rw_txn_del(s->txn, s->bucket, key); break;
    case BY_CLAIM: code = rw_txn_get_for_update(s->txn, s->bucket, key, NULL, &size); break;
    case BY_GET: code = rw_txn_get(s->txn, s->bucket, key, NULL, &size); break;
    default:
        code = rw_cursor_open(s->db, s->txn, s->bucket, &cursor);
        if (code == 0) code = rw_cursor_seek(cursor, key);
        if (cursor != NULL) rw_cursor_close(cursor);
    }
    return code == RW_ENOTFOUND || code == RW_ETOOSMALL ? 0 : code;
}

/* Takes it and ends: by a commit, or, for a victim, by the abort that is left. */
static int step_run(void *arg)
{
    lock_step *s = arg;
    int code = step_take(s);
    return code == 0 ? rw_txn_commit(s->txn, RW_ASYNC) : code;
}

/* Ends the victims; counts them. Every other call must have gone well; each victim is told the ids of its cycle. */
static int join_all(side_call *calls, lock_step *steps, int count, int cycle)
{
    int victims = 0;
    bool good = true;
    for (int i = 0; i < count; i++) {
        int code = side_join(&calls[i]);
        if (code == 0) continue;
        if (code != RW_EDEADLOCK) {
            tap_diag("transaction %d of %d: %d %s", i, count, code, calls[i].words);
            good = false;
        }
        victims++;
        for (int j = 0; j < cycle; j++) {
            if (text_names_id(calls[i].words, steps[j].id)) continue;
            tap_diag("transaction %llu is not named in \"%s\"", (unsigned long long)steps[j].id, calls[i].words);
            good = false;
        }
    }
    for (int i = 0; i < count; i++)
        if (calls[i].code == RW_EDEADLOCK) rw_txn_abort(steps[i].txn);
    return good ? victims : -1;
}

/* A ring: each holds its key and asks for the next one's. `order` is the order in which they ask. */
static bool ring(rw_db *db, const place *at, int length, way first, way second, prng *random)
{
    lock_step steps[CYCLE_MAX];
    side_call calls[CYCLE_MAX];
    int order[CYCLE_MAX];
    uint64_t deadlocks = stats_now(db).deadlocks;
    for (int i = 0; i < length; i++) {
        steps[i] = (lock_step){.db = db, .txn = txn_begin(db, RW_PESSIMISTIC), .bucket = at->buckets[i % 2], .how = first};
        steps[i].id = rw_txn_id(steps[i].txn);
        place_key(at, i, steps[i].key);
        CHECK_OK(put_text(db, at->buckets[i % 2], steps[i].key, "there"));
        if (!CHECK_OK(step_take(&steps[i]))) return false;
        order[i] = i;
    }
    for (int i = length - 1; i > 0; i--) {
        int j = (int)prng_below(random, (uint64_t)i + 1), swap = order[i];
        order[i] = order[j], order[j] = swap;
    }
    for (int i = 0; i < length; i++) {
        int next = (i + 1) % length;
        steps[i].how = second, steps[i].bucket = at->buckets[next % 2];
        place_key(at, next, steps[i].key);
    }
    for (int i = 0; i < length; i++) side_start(&calls[order[i]], step_run, &steps[order[i]]);
    int victims = join_all(calls, steps, length, length);
    rw_stats_t stats = stats_now(db);
    if (victims == 1 && stats.deadlocks == deadlocks + 1 && stats.txns_open == 0 && stats.locks_held == 0) return true;
    tap_diag("a ring of %d, %s, then %s: %d victims, %llu deadlocks, %llu transactions and %llu locks left", length, way_names[first], way_names[second], victims,
             (unsigned long long)(stats.deadlocks - deadlocks), (unsigned long long)stats.txns_open, (unsigned long long)stats.locks_held);
    return false;
}

/* The second lock conflicts with the first in each of these. */
static const struct {
    way first, second;
} ring_ways[] = {{BY_PUT, BY_PUT}, {BY_PUT, BY_GET}, {BY_GET, BY_PUT}, {BY_CLAIM, BY_CLAIM}, {BY_GET, BY_DEL}, {BY_PUT, BY_SCAN}, {BY_CLAIM, BY_SCAN}};

static void test_rings(rw_db *db, const place *at, prng *random)
{
    for (size_t w = 0; w < sizeof(ring_ways) / sizeof(ring_ways[0]); w++) {
        bool good = true;
        for (int length = 2; length <= CYCLE_MAX && good; length++)
            for (int round = 0; round < 3 && good; round++) good = ring(db, at, length, ring_ways[w].first, ring_ways[w].second, random);
        tap_ok(good, "rings of 2 to %d, %s: %s, then %s: one victim each", CYCLE_MAX, at->name, way_names[ring_ways[w].first], way_names[ring_ways[w].second]);
    }
}

/* Rings that form at the same time and have nothing to do with each other: one victim each. */
static void test_rings_at_once(rw_db *db, const place *at)
{
    enum { RINGS = 5, LENGTH = 4, COUNT = RINGS * LENGTH };
    lock_step steps[COUNT];
    side_call calls[COUNT];
    bool good = true;
    for (int i = 0; i < COUNT; i++) {
        steps[i] = (lock_step){.db = db, .txn = txn_begin(db, RW_PESSIMISTIC), .bucket = at->buckets[0], .how = BY_PUT};
        steps[i].id = rw_txn_id(steps[i].txn);
        place_key(at, i, steps[i].key);
        CHECK_OK(step_take(&steps[i]));
    }
    for (int i = 0; i < COUNT; i++) {
        place_key(at, i / LENGTH * LENGTH + (i + 1) % LENGTH, steps[i].key);
    }
    for (int i = 0; i < LENGTH; i++)
        for (int r = 0; r < RINGS; r++) side_start(&calls[r * LENGTH + i], step_run, &steps[r * LENGTH + i]);
    for (int r = 0; r < RINGS; r++) good = TAP_CHECK(join_all(&calls[r * LENGTH], &steps[r * LENGTH], LENGTH, LENGTH) == 1) && good;
    tap_ok(good && stats_now(db).locks_held == 0, "%d rings at once, %s: a victim in each", RINGS, at->name);
}

/* Many read one key, then all want to write it: all but one lose, two by two. */
static void test_upgrades(rw_db *db, const place *at)
{
    bool good = true;
    for (int count = 2; count <= 8; count++)
        for (int scans = 0; scans < 2; scans++) {
            lock_step steps[CYCLE_MAX];
            side_call calls[CYCLE_MAX];
            for (int i = 0; i < count; i++) {
                steps[i] = (lock_step){.db = db, .txn = txn_begin(db, RW_PESSIMISTIC), .bucket = at->buckets[0], .how = scans == 1 ? BY_SCAN : BY_GET};
                steps[i].id = rw_txn_id(steps[i].txn);
                place_key(at, 3, steps[i].key);
                good = CHECK_OK(step_take(&steps[i])) && good;
                steps[i].how = BY_PUT;
            }
            for (int i = 0; i < count; i++) side_start(&calls[i], step_run, &steps[i]);
            good = TAP_CHECK(join_all(calls, steps, count, count == 2 ? 2 : 0) == count - 1) && good;
        }
    rw_stats_t stats = stats_now(db);
    tap_ok(good && stats.locks_held == 0 && stats.txns_open == 0, "upgrades of 2 to 8 readers of one key, %s: one wins", at->name);
}

/* An upgrade with nobody in the way takes no time and no victim. */
static void test_upgrade_alone(rw_db *db, const place *at)
{
    lock_step s = {.db = db, .txn = txn_begin(db, RW_PESSIMISTIC), .bucket = at->buckets[0]};
    uint64_t waits = stats_now(db).lock_waits;
    place_key(at, 1, s.key);
    for (int how = 0; how < WAYS; how++) {
        s.how = (way)(WAYS - 1 - how);
        CHECK_OK(step_take(&s));
    }
    for (int how = 0; how < WAYS; how++) {
        s.how = (way)how;
        CHECK_OK(step_take(&s));
    }
    CHECK_OK(rw_txn_commit(s.txn, RW_ASYNC));
    tap_ok(stats_now(db).lock_waits == waits, "a transaction does not wait for itself, whatever it takes twice");
}

/* Goes over all keys of the place's first bucket that are in [from, to). */
static int scan(rw_db *db, rw_txn *txn, rw_bucket bucket, const char *from, const char *to)
{
    rw_cursor *cursor = NULL;
    rw_slice key = NO_KEY;
    int code = rw_cursor_open(db, txn, bucket, &cursor);
    if (code == 0) code = rw_cursor_seek(cursor, slice_text(from));
    while (code == 0 && rw_cursor_key(cursor, &key) == 0 && slice_compare(key, slice_text(to)) < 0) code = rw_cursor_next(cursor);
    if (cursor != NULL) rw_cursor_close(cursor);
    return code == RW_ENOTFOUND ? 0 : code;
}

/* One goes over a range that the other wants to insert into, and wants what the other wrote; or both go over ranges and insert into each other's. */
static void test_ranges(rw_db *db, rw_bucket bucket, const char *name)
{
    bool good = CHECK_OK(put_text(db, bucket, "range d", "bound")) && CHECK_OK(put_text(db, bucket, "range h", "bound"));
    for (int both = 0; both < 2; both++)
        for (int turn = 0; turn < 2; turn++) {
            lock_step steps[2];
            side_call calls[2];
            for (int i = 0; i < 2; i++) {
                steps[i] = (lock_step){.db = db, .txn = txn_begin(db, RW_PESSIMISTIC), .bucket = bucket, .how = BY_PUT};
                steps[i].id = rw_txn_id(steps[i].txn);
            }
            good = CHECK_OK(scan(db, steps[0].txn, bucket, "range b", "range d")) && good;
            if (both == 1) good = CHECK_OK(scan(db, steps[1].txn, bucket, "range f", "range h")) && good;
            else good = CHECK_OK(rw_txn_put(steps[1].txn, bucket, slice_text("range g"), slice_text("x"))) && good;
            snprintf(steps[0].key, sizeof(steps[0].key), "range g");
            snprintf(steps[1].key, sizeof(steps[1].key), "range c new");
            for (int i = 0; i < 2; i++) {
                side_start(&calls[i ^ turn], step_run, &steps[i ^ turn]);
                if (i == 0) TAP_CHECK(wait_for_waiting(db, 1));
            }
            good = TAP_CHECK(join_all(calls, steps, 2, 2) == 1) && good;
            CHECK_OK(rw_delete_range(db, bucket, slice_text("range c new"), slice_text("range c new!"), RW_ASYNC));
        }
    tap_ok(good && stats_now(db).locks_held == 0, "ranges against points and against ranges, %s: one victim each", name);
}

/*
 * A cycle that is closed by a place in a queue: one reads, one waits to write, one waits to read behind it, and the first wants what the last has. A victim, or
 * letting the reader pass, are both ways out.
 */
static void test_queue(rw_db *db, const place *at)
{
    lock_step steps[3];
    side_call calls[3];
    for (int i = 0; i < 3; i++) {
        steps[i] = (lock_step){.db = db, .txn = txn_begin(db, RW_PESSIMISTIC), .bucket = at->buckets[0], .how = BY_GET};
        steps[i].id = rw_txn_id(steps[i].txn);
    }
    place_key(at, 0, steps[0].key);
    CHECK_OK(step_take(&steps[0]));
    place_key(at, 1, steps[2].key);
    steps[2].how = BY_PUT;
    CHECK_OK(step_take(&steps[2]));
    place_key(at, 0, steps[1].key);
    steps[1].how = BY_PUT;
    side_start(&calls[1], step_run, &steps[1]);
    TAP_CHECK(wait_for_waiting(db, 1));
    place_key(at, 0, steps[2].key);
    steps[2].how = BY_GET;
    side_start(&calls[2], step_run, &steps[2]);
    for (int i = 0; i < 50 && !atomic_load(&calls[2].done) && waiting_locks(db) < 2; i++) pause_us(1000);
    bool let_through = atomic_load(&calls[2].done);
    place_key(at, 1, steps[0].key);
    steps[0].how = BY_PUT;
    side_start(&calls[0], step_run, &steps[0]);
    int victims = join_all(calls, steps, 3, 0);
    rw_stats_t stats = stats_now(db);
    tap_ok((victims == 0 || (victims == 1 && !let_through)) && stats.locks_held == 0 && stats.txns_open == 0, "a cycle through a place in a queue (the reader %s): %d victims",
           let_through ? "was let through" : "waited", victims);
}

static int batch_run(void *arg)
{
    const place *at = ((void **)arg)[1];
    rw_batch *batch = NULL;
    char key[32];
    int code = rw_batch_new(((void **)arg)[0], &batch);
    for (int i = 0; i < 4 && code == 0; i++) {
        place_key(at, i, key);
        code = rw_batch_put(batch, at->buckets[0], slice_text(key), slice_text("batch"));
    }
    if (code == 0) code = rw_batch_commit(batch, RW_ASYNC);
    rw_batch_free(batch);
    return code;
}

/* A batch that waits holds nothing that others would have to wait for: whoever it waits for goes on at once, in both directions. */
static void test_batches(rw_db *db, const place *at)
{
    bool good = true;
    for (int first = 0; first < 4; first++) {
        rw_txn *one = txn_begin(db, RW_PESSIMISTIC);
        lock_step step = {.db = db, .txn = one, .bucket = at->buckets[0], .how = BY_PUT};
        side_call call;
        void *arg[2] = {db, (void *)(uintptr_t)at};
        place_key(at, first, step.key);
        good = CHECK_OK(step_take(&step)) && good;
        side_start(&call, batch_run, arg);
        good = TAP_CHECK(wait_for_waiting(db, 1)) && good;
        for (int i = 0; i < 4; i++) {
            place_key(at, i, step.key);
            good = CHECK_OK(step_take(&step)) && good;
        }
        good = CHECK_OK(rw_txn_commit(one, RW_ASYNC)) && good;
        good = CHECK_OK(side_join(&call)) && good;
        good = TAP_CHECK(get_is_text(db, at->buckets[0], step.key, "batch")) && good;
    }
    tap_ok(good, "a waiting batch does not hold up whom it waits for, %s", at->name);
}

/* Keys taken in ascending order, in all ways, by many: nobody may be chosen. */
#define CROWD_THREADS 6
#define CROWD_KEYS 24

typedef struct {
    rw_db *db;
    const place *at;
    uint64_t seed;
    int rounds;
    bool ordered;
    int64_t victims, commits;
} crowd;

static int move_money(crowd *c, rw_txn *txn, prng *random)
{
    char from[32], to[32];
    int64_t left = 0, right = 0, amount = (int64_t)prng_below(random, 10);
    int i = (int)prng_below(random, CROWD_KEYS), j = (int)prng_below(random, CROWD_KEYS);
    bool claims = prng_below(random, 2) == 0;
    if (i == j) return 0;
    place_key(c->at, i, from), place_key(c->at, j, to);
    size_t size = sizeof(left);
    int code = claims ? rw_txn_get_for_update(txn, c->at->buckets[0], slice_text(from), &left, &size) : txn_get_number(txn, c->at->buckets[0], from, &left);
    if (code == 0) code = txn_put_number(txn, c->at->buckets[0], from, left - amount);
    if (code == 0) code = txn_get_number(txn, c->at->buckets[0], to, &right);
    return code != 0 ? code : txn_put_number(txn, c->at->buckets[0], to, right + amount);
}

static int take_ascending(crowd *c, rw_txn *txn, prng *random)
{
    lock_step step = {.db = c->db, .txn = txn, .bucket = c->at->buckets[0]};
    int code = 0;
    for (int i = 0; i < CROWD_KEYS && code == 0; i++) {
        if (prng_below(random, 3) != 0) continue;
        static const way ways[] = {BY_GET, BY_CLAIM, BY_GET, BY_SCAN};
        step.how = ways[prng_below(random, 4)];
        place_key(c->at, i, step.key);
        code = step_take(&step);
    }
    return code;
}

static int crowd_run(void *arg)
{
    crowd *c = arg;
    prng random = {c->seed};
    for (int round = 0; round < c->rounds; round++) {
        rw_txn *txn = NULL;
        int code = rw_txn_begin(c->db, RW_PESSIMISTIC, &txn);
        if (code != 0) return code;
        code = c->ordered ? take_ascending(c, txn, &random) : move_money(c, txn, &random);
        if (code == 0 && prng_below(&random, 8) != 0) {
            code = rw_txn_commit(txn, RW_ASYNC);
            c->commits += code == 0;
        } else {
            rw_txn_abort(txn);
        }
        if (code == RW_EDEADLOCK) c->victims++;
        else if (code != 0) return code;
    }
    return 0;
}

static void test_crowd(rw_db *db, const place *at, bool ordered, uint64_t seed)
{
    crowd crowds[CROWD_THREADS];
    side_call calls[CROWD_THREADS];
    bool good = true;
    int64_t victims = 0, commits = 0, sum = 0;
    uint64_t deadlocks = stats_now(db).deadlocks;
    char key[32];
    for (int i = 0; i < CROWD_KEYS; i++) place_key(at, i, key), CHECK_OK(put_number(db, at->buckets[0], key, 1000));
    for (int i = 0; i < CROWD_THREADS; i++) {
        crowds[i] = (crowd){.db = db, .at = at, .seed = seed + (uint64_t)i, .rounds = SLOW_BUILD ? 150 : 1500, .ordered = ordered};
        side_start(&calls[i], crowd_run, &crowds[i]);
    }
    for (int i = 0; i < CROWD_THREADS; i++) {
        if (side_join(&calls[i]) != 0) good = tap_ok(false, "thread %d: %d %s", i, calls[i].code, calls[i].words);
        victims += crowds[i].victims, commits += crowds[i].commits;
    }
    for (int i = 0; i < CROWD_KEYS; i++) {
        int64_t number = 0;
        place_key(at, i, key);
        CHECK_OK(get_number(db, at->buckets[0], key, &number));
        sum += number;
    }
    rw_stats_t stats = stats_now(db);
    good = TAP_CHECK(sum == 1000 * CROWD_KEYS && stats.locks_held == 0 && stats.deadlocks - deadlocks == (uint64_t)victims) && good;
    tap_ok(good && (!ordered || victims == 0), "%d threads, %s order, %s: %lld commits, %lld victims", CROWD_THREADS, ordered ? "one" : "any", at->name, (long long)commits,
           (long long)victims);
}

/* So much between the far keys that they lie in partitions of their own. */
static void fill_far(rw_db *db, const place *far)
{
    char key[40], value[700];
    memset(value, 'f', sizeof(value));
    for (int i = 0; i < CROWD_KEYS; i++)
        for (int j = 0; j < 70; j++) {
            snprintf(key, sizeof(key), "far %02d/%d", i, j);
            CHECK_OK(rw_put(db, far->buckets[0], slice_text(key), slice_bytes(value, sizeof(value)), RW_ASYNC));
        }
    int64_t end = now_us() + PATIENCE_MS * 1000;
    while (stats_now(db).partitions < 5 && now_us() < end) CHECK_OK(rw_checkpoint(db));
    tap_ok(stats_now(db).partitions >= 5, "the far keys lie in %llu partitions", (unsigned long long)stats_now(db).partitions);
}

/* What a victim can still do: close its cursors, and end. */
static void test_victim_with_cursor(rw_db *db)
{
    lock_step steps[2];
    side_call call;
    rw_cursor *cursor = NULL;
    for (int i = 0; i < 2; i++) {
        steps[i] = (lock_step){.db = db, .txn = txn_begin(db, RW_PESSIMISTIC), .bucket = BUCKET, .how = BY_PUT};
        snprintf(steps[i].key, sizeof steps[i].key, "cursor %d", i);
        CHECK_OK(step_take(&steps[i]));
    }
    CHECK_OK(rw_cursor_open(db, steps[1].txn, BUCKET, &cursor));
    snprintf(steps[0].key, sizeof steps[0].key, "cursor 1");
    snprintf(steps[1].key, sizeof steps[1].key, "cursor 0");
    side_start(&call, step_run, &steps[0]);
    CHECK_CODE(step_take(&steps[1]), RW_EDEADLOCK); /* the younger one, whoever asked first */
    CHECK_CODE(rw_txn_commit(steps[1].txn, RW_ASYNC), RW_EBUSY);
    rw_cursor_close(cursor);
    tap_ok(CHECK_CODE(rw_txn_commit(steps[1].txn, RW_ASYNC), RW_EDEADLOCK) && rw_txn_id(steps[1].txn) == 0, "a victim whose cursor was closed ends with its commit");
    CHECK_OK(side_join(&call));
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    const char *text = getenv("DEADLOCK_SEED");
    prng random = {text != NULL ? strtoull(text, NULL, 10) : (uint64_t)now_us()};
    rw_options options = options_small();
    place places[3] = {{"near", {BUCKET, BUCKET}, false}, {"far", {0, 0}, true}, {"buckets", {BUCKET, 0}, false}};
    alarm(SLOW_BUILD ? 600 : 240);
    tap_diag("DEADLOCK_SEED=%llu", (unsigned long long)random.state);
    options.partition_bytes = 128 * 1024;
    options.lock_timeout_ms = 3600000;
    if (!dir_make(dir, "deadlock")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    CHECK_OK(rw_bucket_open(db, "far", RW_CREATE, &places[1].buckets[0]));
    CHECK_OK(rw_bucket_open(db, "other", RW_CREATE, &places[2].buckets[1]));
    places[1].buckets[1] = places[1].buckets[0];
    fill_far(db, &places[1]);
    for (int i = 0; i < 3; i++) {
        test_rings(db, &places[i], &random);
        test_rings_at_once(db, &places[i]);
        test_upgrades(db, &places[i]);
        test_queue(db, &places[i]);
        test_batches(db, &places[i]);
        test_upgrade_alone(db, &places[i]);
    }
    test_ranges(db, BUCKET, "near");
    test_ranges(db, places[1].buckets[0], "beside filler");
    for (int i = 0; i < 2; i++) {
        test_crowd(db, &places[i], true, prng_next(&random));
        test_crowd(db, &places[i], false, prng_next(&random));
    }
    test_victim_with_cursor(db);
    tap_ok(wait_for_rest(db), "nothing is left of them");
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    return tap_done();
}
