/*
 * How much may be asked of transactions: one of a million writes, a hundred thousand open at once, snapshots that are given up, and txn_bytes_max.
 * Sizes are smaller under sanitizers.
 */
#include <unistd.h>

#include "tests/api/txn_helpers.h"

/* A transaction of very many writes. */
#define BIG_WRITES (SLOW_BUILD ? 30000 : 1000000)

typedef struct {
    rw_db *db;
    _Atomic bool end;
    uint64_t polls;
    char what[128];
} poller;

static int big_key(int i, char key[17])
{
    return snprintf(key, 17, "big/%012d", i);
}

/* 0: not there. */
enum { BIG_WRONG = -1, BIG_GIVEN_UP = -2 };

static int64_t big_generation(rw_db *db, rw_txn *txn, int i)
{
    char key[17], value[100];
    size_t size = sizeof(value);
    int64_t generation = 0;
    rw_slice name = slice_bytes(key, (size_t)big_key(i, key));
    int code = txn != NULL ? rw_txn_get(txn, BUCKET, name, value, &size) : rw_get(db, BUCKET, name, value, &size);
    if (code == RW_ENOTFOUND) return 0;
    if (code == RW_ESNAPSHOT_TOO_OLD && txn != NULL) return BIG_GIVEN_UP;
    if (code != 0 || size != sizeof(value)) return BIG_WRONG;
    memcpy(&generation, value, sizeof(generation));
    return generation;
}

/* Looks at both ends in both orders, plainly and by snapshots. */
static int poll_ends(void *arg)
{
    poller *p = arg;
    while (!atomic_load(&p->end)) {
        int one = p->polls % 2 == 0 ? 0 : BIG_WRITES - 1, two = BIG_WRITES - 1 - one;
        int64_t first = big_generation(p->db, NULL, one), second = big_generation(p->db, NULL, two);
        if (first < 0 || second < first) return snprintf(p->what, sizeof(p->what), "key %d had %lld, then key %d %lld", one, (long long)first, two, (long long)second);
        rw_txn *txn = NULL;
        if (rw_txn_begin(p->db, RW_READONLY, &txn) != 0) return snprintf(p->what, sizeof(p->what), "begin: %s", rw_last_error(NULL));
        first = big_generation(p->db, txn, one), second = big_generation(p->db, txn, two);
        int64_t middle = big_generation(p->db, txn, BIG_WRITES / 2);
        rw_txn_abort(txn);
        p->polls++;
        if (first == BIG_GIVEN_UP || middle == BIG_GIVEN_UP || second == BIG_GIVEN_UP) continue;
        if (first < 0 || second != first || middle != first)
            return snprintf(p->what, sizeof(p->what), "a snapshot has %lld, %lld, %lld", (long long)first, (long long)middle, (long long)second);
        if (p->polls % 64 == 0) pause_us(500);   /* there are few processors */
    }
    return 0;
}

static bool big_commit(rw_db *db, unsigned mode, int64_t generation)
{
    char key[17], value[100];
    rw_txn *txn = txn_begin(db, mode);
    int64_t begun = now_us();
    memset(value, 'v', sizeof(value));
    memcpy(value, &generation, sizeof(generation));
    for (int i = 0; i < BIG_WRITES; i++) {
        int at = (int)((int64_t)i * 7919 % BIG_WRITES);
        if (!CHECK_OK(rw_txn_put(txn, BUCKET, slice_bytes(key, (size_t)big_key(at, key)), slice_bytes(value, sizeof(value))))) return false;
    }
    int64_t written = now_us();
    bool good = CHECK_OK(rw_txn_commit(txn, RW_SYNC));
    tap_diag("%d writes in one transaction, mode %u: gathered in %lld ms, committed in %lld ms", BIG_WRITES, mode, (long long)(written - begun) / 1000,
             (long long)(now_us() - written) / 1000);
    return good;
}

static bool big_all_are(rw_db *db, int64_t generation)
{
    rw_cursor *cursor = NULL;
    rw_slice value = NO_KEY;
    int64_t count = 0;
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    for (int code = rw_cursor_seek(cursor, slice_text("big/")); code == 0; code = rw_cursor_next(cursor), count++)
        if (rw_cursor_value(cursor, &value) != 0 || value.size != 100 || memcmp(value.data, &generation, sizeof(generation)) != 0) break;
    rw_cursor_close(cursor);
    return count == BIG_WRITES;
}

/* What a snapshot from before all of it may see. */
static bool big_old(rw_db *db, rw_txn *old, int i)
{
    int64_t generation = big_generation(db, old, i);
    return generation == 0 || generation == BIG_GIVEN_UP;
}

static void test_big(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options;
    rw_options_init(&options);
    options.workers = 2;
    if (!dir_make(dir, "big")) return;
    rw_db *db = open_or_exit(dir, &options);
    poller p = {.db = db};
    side_call call;
    side_start(&call, poll_ends, &p);
    rw_txn *old = txn_begin(db, RW_READONLY);
    bool good = big_commit(db, RW_SNAPSHOT, 1);
    good = TAP_CHECK(big_generation(db, NULL, 0) == 1 && big_old(db, old, 0) && big_old(db, old, BIG_WRITES - 1)) && good;
    good = big_commit(db, SLOW_BUILD ? RW_PESSIMISTIC : RW_SERIALIZABLE, 2) && good;
    good = TAP_CHECK(big_generation(db, NULL, 0) == 2 && big_old(db, old, BIG_WRITES / 3)) && good;
    rw_txn_abort(old);
    atomic_store(&p.end, true);
    if (side_join(&call) != 0) good = tap_ok(false, "%s", p.what);
    good = TAP_CHECK(big_all_are(db, 2)) && TAP_CHECK(wait_for_rest(db)) && good;
    tap_ok(good, "%d writes of 16 + 100 bytes in one transaction are one moment for %llu polls of both ends", BIG_WRITES, (unsigned long long)p.polls);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

/* Very many at once. */
#define CROWD (SLOW_BUILD ? 10000 : 100000)

static int count_txns(void *arg, const rw_txn_info *info)
{
    uint64_t *sums = arg;
    sums[0]++, sums[1] += info->locks, sums[2] += info->snapshot != 0;
    return 0;
}

static void test_crowd(rw_db *db)
{
    rw_txn **txns = calloc(CROWD, sizeof(*txns));
    uint64_t sums[3] = {0};
    bool good = TAP_CHECK(txns != NULL);
    int64_t begun = now_us();
    CHECK_OK(put_text(db, BUCKET, "crowd", "old"));
    for (int i = 0; i < CROWD && good; i++) {
        char key[32];
        snprintf(key, sizeof(key), "crowd/%08d", i);
        txns[i] = txn_begin(db, i % 2 == 0 ? RW_SNAPSHOT : RW_PESSIMISTIC);
        good = TAP_CHECK(txns[i] != NULL);
        if (good && i % 2 == 1) good = CHECK_OK(txn_put_text(txns[i], key, "mine"));
        if (i == CROWD / 2) CHECK_OK(put_text(db, BUCKET, "crowd", "new"));
    }
    int64_t opened = now_us();
    rw_stats_t stats = stats_now(db);
    CHECK_OK(rw_txn_list(db, count_txns, sums));
    good = TAP_CHECK(stats.txns_open == CROWD && stats.snapshots_open == CROWD / 2 && stats.locks_held == CROWD / 2) && good;
    good = TAP_CHECK(sums[0] == CROWD && sums[1] == CROWD / 2 && sums[2] == CROWD / 2) && good;
    for (int i = 0; i < CROWD && good; i += i < CROWD - 2000 ? 998 : 2) good = TAP_CHECK(txn_is(txns[i], "crowd", i <= CROWD / 2 ? "old" : "new")) && good;
    int64_t looked = now_us();
    for (int i = 0; i < CROWD && txns != NULL; i++) {
        if (txns[i] == NULL) break;
        if (i % 3 == 0) good = CHECK_OK(rw_txn_commit(txns[i], RW_ASYNC)) && good;
        else rw_txn_abort(txns[i]);
    }
    int64_t ended = now_us();
    good = TAP_CHECK(get_is_text(db, BUCKET, "crowd/00000003", "mine") && key_absent(db, "crowd/00000001")) && good;
    free(txns);
    tap_ok(wait_for_rest(db) && good, "%d open transactions: begun in %lld ms, looked at in %lld ms, ended in %lld ms", CROWD, (long long)(opened - begun) / 1000,
           (long long)(looked - opened) / 1000, (long long)(ended - looked) / 1000);
}

/* Snapshots that hold too much. */
#define AGED_KEYS 400
#define AGED_SIZE 1000

static int put_aged(rw_db *db, int i, char generation)
{
    char key[32], value[AGED_SIZE];
    snprintf(key, sizeof(key), "aged %04d", i);
    memset(value, generation, sizeof(value));
    return rw_put(db, BUCKET, slice_text(key), slice_bytes(value, sizeof(value)), RW_ASYNC);
}

/* How many keys it reads as of its generation; -1 for a wrong one. *given_up counts RW_ESNAPSHOT_TOO_OLD. */
static int read_aged(rw_txn *txn, char generation, int *given_up)
{
    int good = 0;
    *given_up = 0;
    for (int i = 0; i < AGED_KEYS; i++) {
        char key[32], value[AGED_SIZE];
        size_t size = sizeof(value);
        snprintf(key, sizeof(key), "aged %04d", i);
        int code = rw_txn_get(txn, BUCKET, slice_text(key), value, &size);
        if (code == RW_ESNAPSHOT_TOO_OLD) ++*given_up;
        else if (code == 0 && size == AGED_SIZE && value[0] == generation && value[AGED_SIZE - 1] == generation) good++;
        else return tap_diag("%s is %d of '%c', not '%c'", key, code, value[0], generation), -1;
    }
    return good;
}

/* The same by a cursor. */
static bool scan_aged(rw_db *db, rw_txn *txn, char generation, bool may_be_given_up)
{
    rw_cursor *cursor = NULL;
    rw_slice value = NO_KEY;
    int count = 0, code = rw_cursor_open(db, txn, BUCKET, &cursor);
    while (code == 0 && (code = rw_cursor_next(cursor)) == 0) {
        if ((code = rw_cursor_value(cursor, &value)) != 0) break;
        if (value.size != AGED_SIZE || ((const char *)value.data)[0] != generation) break;
        count++;
    }
    if (cursor != NULL) rw_cursor_close(cursor);
    return (code == RW_ENOTFOUND && count == AGED_KEYS) || (code == RW_ESNAPSHOT_TOO_OLD && may_be_given_up);
}

static void put_all_aged(rw_db *db, char generation)
{
    for (int i = 0; i < AGED_KEYS; i++)
        if (!CHECK_OK(put_aged(db, i, generation))) return;
}

/* Each round of writes leaves 400 KB of old values; the limit is 1 MiB. */
static void test_too_old(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    int given_up = 0;
    options.cache_bytes = 8 * MIB;
    options.snapshot_bytes_max = MIB;
    if (!dir_make(dir, "aged")) return;
    rw_db *db = open_or_exit(dir, &options);
    put_all_aged(db, 'a');
    rw_txn *oldest = txn_begin(db, RW_SNAPSHOT), *lock = txn_begin(db, RW_PESSIMISTIC);
    CHECK_OK(txn_put_text(lock, "lock", "x"));
    put_all_aged(db, 'b');
    TAP_CHECK(read_aged(oldest, 'a', &given_up) == AGED_KEYS && scan_aged(db, oldest, 'a', false));
    rw_txn *middle = txn_begin(db, RW_READONLY);
    put_all_aged(db, 'c');
    rw_txn *young = txn_begin(db, RW_SERIALIZABLE);
    put_all_aged(db, 'd');
    put_all_aged(db, 'e');
    int read = read_aged(oldest, 'a', &given_up);
    TAP_CHECK(read >= 0 && given_up > 0 && scan_aged(db, oldest, 'a', true));
    int put = txn_put_text(oldest, "oldest", "x");
    TAP_CHECK(put == 0 || put == RW_ESNAPSHOT_TOO_OLD);
    rw_stats_t stats = stats_now(db);
    TAP_CHECK(stats.snapshots_given_up >= 1 && stats.version_bytes <= stats.version_bytes_max && stats.version_bytes_max <= MIB);
    TAP_CHECK(read_aged(young, 'c', &given_up) == AGED_KEYS && scan_aged(db, young, 'c', false));
    TAP_CHECK(read_aged(middle, 'b', &given_up) >= 0);
    rw_txn *fresh = txn_begin(db, RW_SNAPSHOT);
    TAP_CHECK(read_aged(fresh, 'e', &given_up) == AGED_KEYS && scan_aged(db, fresh, 'e', false));
    CHECK_OK(txn_put_text(fresh, "fresh", "x"));
    CHECK_OK(rw_txn_commit(fresh, RW_ASYNC));
    int end = rw_txn_commit(oldest, RW_ASYNC);
    TAP_CHECK(end == 0 || end == RW_ESNAPSHOT_TOO_OLD);
    TAP_CHECK(end == 0 && put == 0 ? get_is_text(db, BUCKET, "oldest", "x") : key_absent(db, "oldest"));
    CHECK_OK(rw_txn_commit(middle, RW_ASYNC));
    rw_txn_abort(young);
    CHECK_OK(rw_txn_commit(lock, RW_SYNC));
    tap_ok(wait_for_rest(db), "a snapshot that holds too much is given up (%d of %d keys still read), others go on", read, AGED_KEYS);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

/* txn_bytes_max. */
static void begin_again(rw_txn **txn, rw_db *db, unsigned mode)
{
    rw_txn_abort(*txn);
    *txn = txn_begin(db, mode);
}

/* Puts until RW_ETOOBIG; the number of writes that went in. */
static int fill_writes(rw_txn *txn, size_t value_size)
{
    static char value[4096];
    char key[24];
    for (int i = 0; i < 1000000; i++) {
        snprintf(key, sizeof(key), "fill %08d", i);
        int code = rw_txn_put(txn, BUCKET, slice_text(key), slice_bytes(value, value_size));
        if (code == 0) continue;
        CHECK_CODE(code, RW_ETOOBIG);
        TAP_CHECK(words_have("transaction"));
        return i;
    }
    return -1;
}

static void test_txn_bytes_writes(rw_db *db)
{
    for (size_t m = 0; m < TXN_MODES_WRITING; m++) {
        char key[24];
        unsigned id = 0;
        rw_txn *txn = txn_begin(db, txn_modes[m]);
        int count = fill_writes(txn, 2000);
        TAP_CHECK(count > 10 && count <= 600);
        snprintf(key, sizeof(key), "fill %08d", count);
        TAP_CHECK(txn_get_code(txn, key) == RW_ENOTFOUND || txn_modes[m] != RW_SNAPSHOT);
        CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
        TAP_CHECK(key_absent(db, key));
        snprintf(key, sizeof(key), "fill %08d", count - 1);
        TAP_CHECK(!key_absent(db, key));
        CHECK_OK(rw_delete_range(db, BUCKET, slice_text("fill"), slice_text("fill~"), RW_ASYNC));
        txn = txn_begin(db, txn_modes[m]);
        CHECK_OK(txn_put_text(txn, "fill first", "1"));
        CHECK_OK(rw_txn_savepoint(txn, &id));
        TAP_CHECK(fill_writes(txn, 100) > 100);
        CHECK_OK(rw_txn_rollback_to(txn, id));
        CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
        TAP_CHECK(get_is_text(db, BUCKET, "fill first", "1") && key_absent(db, "fill 00000000"));
        txn = txn_begin(db, txn_modes[m]);
        fill_writes(txn, 4000);
        begin_again(&txn, db, txn_modes[m]);
        CHECK_OK(txn_put_text(txn, "fill small", "x"));
        CHECK_OK(rw_txn_commit(txn, RW_ASYNC));
    }
    tap_ok(wait_for_rest(db), "txn_bytes_max and writes: RW_ETOOBIG, and the rest can be committed or aborted");
}

/* Reads that must be remembered, and locks, count too. */
static void test_txn_bytes_reads(rw_db *db)
{
    bool good = true;
    for (size_t m = 1; m < TXN_MODES_WRITING; m++) {
        rw_txn *txn = txn_begin(db, txn_modes[m]);
        char key[400];
        int code = 0, i = 0;
        CHECK_OK(txn_put_text(txn, "kept", "reads"));
        memset(key, 'x', sizeof(key));
        for (; i < 200000 && (code == 0 || code == RW_ENOTFOUND); i++) {
            snprintf(key, 24, "%d reads", i * 7919 % 200000);
            key[strlen(key)] = 'x';
            size_t size = 0;
            code = rw_txn_get(txn, BUCKET, slice_bytes(key, sizeof(key)), NULL, &size);
        }
        good = CHECK_CODE(code, RW_ETOOBIG) && TAP_CHECK(i > 100) && good;
        tap_diag("mode %u: %d reads of absent keys", txn_modes[m], i);
        good = CHECK_OK(rw_txn_commit(txn, RW_ASYNC)) && TAP_CHECK(get_is_text(db, BUCKET, "kept", "reads")) && good;
        CHECK_OK(put_text(db, BUCKET, "kept", "old"));
    }
    tap_ok(good && wait_for_rest(db), "txn_bytes_max and what was read: RW_ETOOBIG, and the rest can be committed");
}

/* A range that cannot be remembered is not gone over; the cursor stands where it stood, however often that is tried. */
static void test_txn_bytes_cursor(rw_db *db)
{
    for (const char *key = "abc"; *key != 0; key++) CHECK_OK(rw_put(db, BUCKET, slice_bytes(key, 1), slice_bytes(key, 1), RW_ASYNC));
    for (size_t m = 1; m < TXN_MODES_WRITING; m++) {
        rw_txn *txn = txn_begin(db, txn_modes[m]);
        rw_cursor *cursor = NULL;
        rw_slice key = {NULL, 0}, value = {NULL, 0};
        CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
        CHECK_OK(rw_cursor_first(cursor));
        TAP_CHECK(fill_writes(txn, 1) > 100);
        for (int i = 0; i < 3; i++) CHECK_CODE(rw_cursor_next(cursor), RW_ETOOBIG);
        TAP_CHECK(rw_cursor_key(cursor, &key) == 0 && slice_same(key, slice_text("a")) && rw_cursor_value(cursor, &value) == 0 && slice_same(value, slice_text("a")));
        rw_cursor_close(cursor);
        rw_txn_abort(txn);
    }
    tap_ok(wait_for_rest(db), "txn_bytes_max and a cursor: RW_ETOOBIG as often as it is tried, and it stands where it stood");
}

static void test_txn_bytes(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    options.txn_bytes_max = MIB;
    options.cache_bytes = 16 * MIB;
    if (!dir_make(dir, "bytes")) return;
    rw_db *db = open_or_exit(dir, &options);
    test_txn_bytes_writes(db);
    test_txn_bytes_reads(db);
    test_txn_bytes_cursor(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

/* ---- one commit that replaces more than old values may take ------------------------------------------------------ */

#define REPLACED_KEYS 12000

static bool replace_all(rw_db *db, char with, unsigned flags)
{
    rw_batch *batch = NULL;
    char key[24], value[200];
    bool good = CHECK_OK(rw_batch_new(db, &batch));
    memset(value, with, sizeof(value));
    for (int i = 0; i < REPLACED_KEYS && good; i++) {
        snprintf(key, sizeof(key), "replaced %d", i);
        good = CHECK_OK(rw_batch_put(batch, BUCKET, slice_text(key), slice_bytes(value, sizeof(value))));
    }
    good = good && CHECK_OK(rw_batch_commit(batch, flags));
    rw_batch_free(batch);
    return good;
}

/* The commit's own readers, and a snapshot, would need all of it: they are given up before the pages have no room left. */
static void test_replaced(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(dir, "replaced")) return;
    rw_db *db = open_or_exit(dir, &options);
    bool good = replace_all(db, 'a', RW_ASYNC);
    for (int round = 0; round < 4 && good; round++) {
        rw_txn *txn = txn_begin(db, RW_SNAPSHOT);
        good = replace_all(db, (char)('b' + round), RW_ASYNC);
        rw_stats_t stats = stats_now(db);
        tap_diag("old values: %llu bytes, limit %llu", (unsigned long long)stats.version_bytes, (unsigned long long)stats.version_bytes_max);
        good = TAP_CHECK(stats.version_bytes <= 2 * stats.version_bytes_max + 8 * stats.page_size) && TAP_CHECK(stats.read_only_reason[0] == 0) && good;
        size_t size = 0;
        int code = rw_txn_get(txn, BUCKET, slice_text("replaced 7"), NULL, &size);
        good = TAP_CHECK(code == RW_ESNAPSHOT_TOO_OLD) && good;
        rw_txn_abort(txn);
    }
    tap_ok(good, "a commit that replaces more than old values may take: the snapshot is given up, they keep to their limit, the commit goes on");
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    alarm(SLOW_BUILD ? 600 : 240);
    options.cache_bytes = 64 * MIB;
    options.lock_timeout_ms = 60000;
    if (!dir_make(dir, "crowd")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    test_crowd(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    test_too_old();
    test_big();
    test_txn_bytes();
    test_replaced();
    return tap_done();
}
