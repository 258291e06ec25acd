/*
 * A commit becomes visible at one moment, over all its keys, in whatever partitions and buckets they lie.
 *
 * Groups of keys have one writer each, whose every commit gives all keys of a group the same, next number. Readers look in all the ways there are. What they
 * may rely on: a number seen in one key is not undercut by a later look at another key of the group, nor by any look after the commit has returned; a snapshot,
 * a cursor and a pessimistic transaction see one number in all keys. Two groups have thousands of keys, and one is written by rw_delete_range, too.
 *
 * ATOMIC_SEED=n ATOMIC_SECONDS=s replays the choices, if not the threads' turns.
 */
#include <unistd.h>

#include "tests/api/txn_helpers.h"

#define PARTS 8                      /* stretches of the key space, four in each of two buckets */
#define SMALL_GROUPS 12
#define BIG_GROUPS 2
#define BIG_EACH 300                 /* keys of a big group in each part */
#define SPAN_GROUP (SMALL_GROUPS + BIG_GROUPS)   /* one range over partitions, which is put and deleted */
#define SPAN_KEYS 400
#define SPAN_FILL 600
#define GROUPS (SPAN_GROUP + 1)
#define WRITERS 4
#define READERS 4
#define VALUE_MAX 700

typedef struct {
    rw_db *db;
    rw_bucket buckets[2];
    _Atomic int64_t end_us;
    _Atomic int64_t committed[GROUPS];     /* the number of the newest commit that has returned */
    _Atomic bool failed;
    uint64_t seed;
} world;

typedef struct {
    world *w;
    int number;
    side_call call;
    prng random;
    uint64_t commits, looks, given_up;
    int64_t numbers[GROUPS];
    char what[256];
} actor;

static bool running(const actor *a)
{
    return now_us() < atomic_load(&a->w->end_us) && !atomic_load(&a->w->failed);
}

/* Ends everybody. */
static int fail(actor *a, const char *what, int group, int64_t one, int64_t two)
{
    snprintf(a->what, sizeof(a->what), "%s: group %d, %lld and %lld", what, group, (long long)one, (long long)two);
    atomic_store(&a->w->failed, true);
    return 1;
}

static int fail_code(actor *a, const char *what, int code)
{
    snprintf(a->what, sizeof(a->what), "%s: %d %s", what, code, rw_last_error(NULL));
    atomic_store(&a->w->failed, true);
    return 1;
}

static int group_size(int group)
{
    return group == SPAN_GROUP ? SPAN_KEYS : group >= SMALL_GROUPS ? PARTS * BIG_EACH : PARTS;
}

static rw_bucket group_key(const world *w, int group, int i, char key[32], rw_slice *slice)
{
    int size;
    if (group == SPAN_GROUP) {
        size = snprintf(key, 32, "span/%05d", i);
        *slice = slice_bytes(key, (size_t)size);
        return w->buckets[0];
    }
    int part = i % PARTS;
    size = snprintf(key, 32, "p%d/g%02d/%05d", part, group, i / PARTS);
    *slice = slice_bytes(key, (size_t)size);
    return w->buckets[part / (PARTS / 2)];
}

/* The number, then bytes that follow from it and the key. */
static rw_slice value_of(int group, int i, int64_t number, uint8_t value[VALUE_MAX])
{
    prng random = {(uint64_t)number << 20 ^ (uint64_t)(group * 10007 + i)};
    size_t size = group == SPAN_GROUP ? SPAN_FILL : 8 + (size_t)prng_below(&random, group < SMALL_GROUPS ? VALUE_MAX - 8 : 60);
    memset(value, (int)(number + i) & 255, size);
    memcpy(value, &number, 8);
    return slice_bytes(value, size);
}

static int64_t number_in(int group, int i, const void *data, size_t size)
{
    uint8_t want[VALUE_MAX];
    int64_t number = 0;
    if (size < 8) return -1;
    memcpy(&number, data, 8);
    return slice_same(value_of(group, i, number, want), slice_bytes(data, size)) ? number : -1;
}

/* Reads one key's number; 0 when it is not there. txn NULL: plainly. */
static int look(actor *a, rw_txn *txn, int group, int i, int64_t *number)
{
    char key[32];
    uint8_t value[VALUE_MAX];
    rw_slice name;
    size_t size = sizeof(value);
    rw_bucket bucket = group_key(a->w, group, i, key, &name);
    int code = txn == NULL ? rw_get(a->w->db, bucket, name, value, &size) : rw_txn_get(txn, bucket, name, value, &size);
    a->looks++;
    *number = code == 0 ? number_in(group, i, value, size) : 0;
    return code == RW_ENOTFOUND ? 0 : code;
}

static int write_batch(actor *a, int group, int64_t number, unsigned flags)
{
    rw_batch *batch = NULL;
    int code = rw_batch_new(a->w->db, &batch), count = group_size(group), start = (int)prng_below(&a->random, (uint64_t)count);
    for (int i = 0; i < count && code == 0; i++) {
        char key[32];
        uint8_t value[VALUE_MAX];
        rw_slice name;
        int at = (start + i) % count;
        rw_bucket bucket = group_key(a->w, group, at, key, &name);
        code = rw_batch_put(batch, bucket, name, value_of(group, at, number, value));
    }
    if (code == 0) code = rw_batch_commit(batch, flags);
    rw_batch_free(batch);
    return code;
}

typedef struct {
    actor *a;
    int group;
    int64_t number;
} group_write;

static int write_in_txn(rw_txn *txn, void *arg)
{
    group_write *g = arg;
    int code = 0, count = group_size(g->group), start = (int)prng_below(&g->a->random, (uint64_t)count);
    for (int i = 0; i < count && code == 0; i++) {
        char key[32];
        uint8_t value[VALUE_MAX];
        rw_slice name;
        int at = (start + i) % count;
        rw_bucket bucket = group_key(g->a->w, g->group, at, key, &name);
        code = rw_txn_put(txn, bucket, name, value_of(g->group, at, g->number, value));
    }
    return code;
}

/* Writes the group's next number. The span's even numbers are its absence. */
static int write_group(actor *a, int group)
{
    static const unsigned modes[] = {RW_SNAPSHOT, RW_SERIALIZABLE, RW_PESSIMISTIC};
    int64_t number = ++a->numbers[group];
    unsigned flags = prng_below(&a->random, 64) == 0 ? RW_SYNC : RW_ASYNC;
    uint64_t how = prng_below(&a->random, 6);
    int code;
    if (group == SPAN_GROUP && number % 2 == 0) {
        code = rw_delete_range(a->w->db, a->w->buckets[0], slice_text("span/"), slice_text("span0"), flags);
    } else if (how < 3) {
        code = write_batch(a, group, number, flags);
    } else {
        group_write g = {a, group, number};
        code = rw_txn_run(a->w->db, modes[how - 3] | flags, write_in_txn, &g);
        if (code == RW_ENOMEM && modes[how - 3] == RW_PESSIMISTIC) code = write_batch(a, group, number, flags);
    }
    if (code == 0) atomic_store(&a->w->committed[group], number);
    a->commits++;
    return code;
}

static int write_on(void *arg)
{
    actor *a = arg;
    while (running(a)) {
        int group = a->number < 2 ? a->number + 2 * (int)prng_below(&a->random, SMALL_GROUPS / 2) : a->number == 2 ? SMALL_GROUPS + (int)prng_below(&a->random, BIG_GROUPS) : SPAN_GROUP;
        int code = write_group(a, group);
        if (code != 0) return fail_code(a, "a write", code);
    }
    return 0;
}

/* Key after key, plainly: never an older number than before, nor than that of a commit that had returned. The span's keys may be gone in between. */
static int look_plainly(actor *a, int group)
{
    int64_t least = atomic_load(&a->w->committed[group]), number = 0;
    uint64_t count = (uint64_t)group_size(group), looks = 2 + prng_below(&a->random, 4);
    for (uint64_t i = 0; i < looks; i++) {
        int code = look(a, NULL, group, (int)prng_below(&a->random, count), &number);
        if (code != 0) return fail_code(a, "rw_get", code);
        bool gone = group == SPAN_GROUP && number == 0;
        if (gone && least % 2 != 0) least++;
        if (number < 0 || (!gone && number < least)) return fail(a, "rw_get went backwards", group, least, number);
        if (!gone) least = number;
    }
    return 0;
}

/* Whether a look may end so: its snapshot was given up, it was a victim, or the smallest cache has no room for so many locks. */
static bool gave_up(actor *a, int code, bool locks)
{
    bool may = code == RW_ESNAPSHOT_TOO_OLD || (locks && (code == RW_EDEADLOCK || code == RW_ENOMEM));
    a->given_up += may;
    return may;
}

/* A few keys, or all, in one transaction: all the same. */
static int look_in_txn(actor *a, int group, unsigned mode)
{
    rw_txn *txn = NULL;
    int64_t least = atomic_load(&a->w->committed[group]), first = 0, number = 0;
    uint64_t count = (uint64_t)group_size(group), looks = prng_below(&a->random, 8) == 0 ? count : 3;
    int code = rw_txn_begin(a->w->db, mode, &txn), bad = 0;
    for (uint64_t i = 0; i < looks && code == 0 && bad == 0; i++) {
        code = look(a, txn, group, (int)(looks == count ? i : prng_below(&a->random, count)), &number);
        if (code != 0) break;
        if (i == 0) first = number;
        if (number < 0 || number != first) bad = fail(a, "a transaction saw a mixture", group, first, number);
        else if (number < least && (group != SPAN_GROUP || number != 0)) bad = fail(a, "a transaction missed a commit", group, least, number);
    }
    if (txn != NULL) rw_txn_abort(txn);
    if (gave_up(a, code, mode == RW_PESSIMISTIC)) return bad;
    return code != 0 ? fail_code(a, "rw_txn_get", code) : bad;
}

static int number_at_end(rw_slice key)
{
    char digits[6] = "";
    if (key.size >= 5) memcpy(digits, (const char *)key.data + key.size - 5, 5);
    return atoi(digits);
}

/* The group's keys in one part, by a cursor; the number they have. Returns how many keys, or an error. */
static int scan_part(actor *a, rw_cursor *cursor, int group, int part, bool forwards, int64_t *number)
{
    char from[24], to[24];
    int count = 0, code;
    rw_slice key = NO_KEY, value = NO_KEY;
    snprintf(from, sizeof(from), group == SPAN_GROUP ? "span/" : "p%d/g%02d/", part, group);
    snprintf(to, sizeof(to), group == SPAN_GROUP ? "span0" : "p%d/g%02d0", part, group);
    code = rw_cursor_seek(cursor, slice_text(forwards ? from : to));
    if (!forwards) code = code == RW_ENOTFOUND ? rw_cursor_last(cursor) : code == 0 ? rw_cursor_prev(cursor) : code;
    while (code == 0 && (code = rw_cursor_key(cursor, &key)) == 0 && (code = rw_cursor_value(cursor, &value)) == 0) {
        if (slice_compare(key, slice_text(from)) < 0 || slice_compare(key, slice_text(to)) >= 0) return count;
        int i = number_at_end(key);
        int64_t is = number_in(group, group == SPAN_GROUP ? i : i * PARTS + part, value.data, value.size);
        if (count++ == 0 && *number == 0) *number = is;
        if (is < 0 || is != *number) return fail(a, "a cursor saw a mixture", group, *number, is), RW_ECORRUPT;
        code = forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor);
    }
    return code == RW_ENOTFOUND ? count : code;
}

/* Cursors over the group, in some parts: of one transaction in both buckets, or a plain one in one. */
static int look_by_cursor(actor *a, int group, rw_txn *txn)
{
    int64_t least = atomic_load(&a->w->committed[group]), number = 0;
    rw_cursor *cursors[2] = {NULL, NULL};
    int plain = (int)prng_below(&a->random, 2), code = 0, want = group == SPAN_GROUP ? SPAN_KEYS : group_size(group) / PARTS;
    uint64_t parts = group == SPAN_GROUP ? 1 : 4;
    for (uint64_t i = 0; i < parts && code == 0; i++) {
        int part = group == SPAN_GROUP ? 0 : (int)prng_below(&a->random, PARTS), b = part / (PARTS / 2);
        if (txn == NULL && group != SPAN_GROUP) b = plain, part = part % (PARTS / 2) + b * (PARTS / 2);
        if (cursors[b] == NULL) code = rw_cursor_open(a->w->db, txn, a->w->buckets[b], &cursors[b]);
        int count = code != 0 ? code : scan_part(a, cursors[b], group, part, prng_below(&a->random, 2) == 0, &number);
        a->looks++;
        if (count < 0) code = count;
        else if (count != want && (group != SPAN_GROUP || count != 0)) code = fail(a, "a cursor saw some keys only", group, want, count);
    }
    for (int b = 0; b < 2; b++)
        if (cursors[b] != NULL) rw_cursor_close(cursors[b]);
    if (code == 0 && number < least && txn == NULL && group != SPAN_GROUP) code = fail(a, "a cursor missed a commit", group, least, number);
    if (gave_up(a, code, txn != NULL)) return 0;
    return code < 0 && a->what[0] == 0 ? fail_code(a, "a cursor", code) : code;
}

static int look_by_txn_cursor(actor *a, int group, unsigned mode)
{
    rw_txn *txn = NULL;
    int code = rw_txn_begin(a->w->db, mode, &txn);
    if (code != 0) return fail_code(a, "rw_txn_begin", code);
    code = look_by_cursor(a, group, txn);
    rw_txn_abort(txn);
    return code;
}

static int read_on(void *arg)
{
    static const unsigned modes[] = {RW_READONLY, RW_SNAPSHOT, RW_SERIALIZABLE};
    actor *a = arg;
    int code = 0;
    while (code == 0 && running(a)) {
        int group = (int)prng_below(&a->random, GROUPS);
        unsigned mode = prng_below(&a->random, 12) == 0 ? RW_PESSIMISTIC : modes[prng_below(&a->random, 3)];
        switch (prng_below(&a->random, 8)) {
        case 0: code = look_in_txn(a, group, mode); break;
        case 1: code = look_by_cursor(a, group, NULL); break;
        case 2: code = look_by_txn_cursor(a, group, mode); break;
        default: code = look_plainly(a, group); break;
        }
    }
    return code;
}

static void fill(world *w)
{
    char key[32];
    uint8_t value[700] = {0};
    for (int part = 0; part < PARTS; part++)
        for (int i = 0; i < 250; i++) {
            snprintf(key, sizeof(key), "p%d/filler/%05d", part, i);
            CHECK_OK(rw_put(w->db, w->buckets[part / (PARTS / 2)], slice_text(key), slice_bytes(value, sizeof(value)), RW_ASYNC));
        }
}

/* Writes every group once, so that all keys but the span's are there from now on. */
static void write_first(world *w, actor *writers)
{
    for (int group = 0; group < GROUPS; group++) {
        int owner = group < SMALL_GROUPS ? group % 2 : group < SPAN_GROUP ? 2 : 3;
        CHECK_OK(write_group(&writers[owner], group));
    }
    int64_t end = now_us() + PATIENCE_MS * 1000;
    while (stats_now(w->db).partitions < PARTS && now_us() < end) CHECK_OK(rw_checkpoint(w->db));
    tap_ok(stats_now(w->db).partitions >= PARTS, "the keys lie in %llu partitions", (unsigned long long)stats_now(w->db).partitions);
}

static void check_last(world *w, actor *reader)
{
    bool good = true;
    for (int group = 0; group < GROUPS && good; group++) {
        int64_t want = atomic_load(&w->committed[group]), number = 0;
        if (group == SPAN_GROUP && want % 2 == 0) want = 0;
        for (int i = 0; i < group_size(group) && good; i++) good = CHECK_OK(look(reader, NULL, group, i, &number)) && TAP_CHECK(number == want);
    }
    tap_ok(good, "in the end every key has its group's last number");
}

static void run(uint64_t cache_bytes, double seconds, uint64_t seed)
{
    static world w;
    static actor writers[WRITERS], readers[READERS];
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    uint64_t commits = 0, looks = 0, given_up = 0;
    options.partition_bytes = 128 * 1024;
    options.cache_bytes = cache_bytes;
    options.lock_timeout_ms = 60000;
    if (!dir_make(dir, "atomic")) return;
    memset(&w, 0, sizeof(w)), memset(writers, 0, sizeof(writers)), memset(readers, 0, sizeof(readers));
    w.db = open_or_exit(dir, &options);
    w.seed = seed;
    CHECK_OK(rw_bucket_open(w.db, "left", RW_CREATE, &w.buckets[0]));
    CHECK_OK(rw_bucket_open(w.db, "right", RW_CREATE, &w.buckets[1]));
    for (int i = 0; i < WRITERS; i++) writers[i].w = &w, writers[i].number = i, writers[i].random.state = seed + (uint64_t)i;
    for (int i = 0; i < READERS; i++) readers[i].w = &w, readers[i].number = i, readers[i].random.state = seed + 100 + (uint64_t)i;
    fill(&w);
    write_first(&w, writers);
    atomic_store(&w.end_us, now_us() + (int64_t)(seconds * 1e6));
    for (int i = 0; i < WRITERS; i++) side_start(&writers[i].call, write_on, &writers[i]);
    for (int i = 0; i < READERS; i++) side_start(&readers[i].call, read_on, &readers[i]);
    for (int i = 0; i < WRITERS + READERS; i++) {
        actor *a = i < WRITERS ? &writers[i] : &readers[i - WRITERS];
        if (side_join(&a->call) != 0) tap_ok(false, "%s %d: %s", i < WRITERS ? "writer" : "reader", a->number, a->what);
        commits += a->commits, looks += a->looks, given_up += a->given_up;
    }
    tap_ok(!atomic_load(&w.failed), "%llu commits, %llu looks, no mixture, with a cache of %llu MiB (%llu looks were given up)", (unsigned long long)commits,
           (unsigned long long)looks, (unsigned long long)(cache_bytes / MIB), (unsigned long long)given_up);
    check_last(&w, &readers[0]);
    tap_ok(wait_for_rest(w.db), "nothing is left of them");
    CHECK_OK(rw_close(w.db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

int main(void)
{
    const char *seed_text = getenv("ATOMIC_SEED"), *seconds_text = getenv("ATOMIC_SECONDS");
    double seconds = seconds_text != NULL ? atof(seconds_text) : check_long() ? 120 : 5;
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : (uint64_t)now_us();
    alarm((unsigned)(seconds * 2) + 180);
    tap_diag("ATOMIC_SEED=%llu ATOMIC_SECONDS=%.0f", (unsigned long long)seed, seconds);
    run(4 * MIB, seconds, seed);
    run(64 * MIB, seconds, seed + 1000);
    return tap_done();
}
