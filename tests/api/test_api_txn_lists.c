/* What can be asked about transactions while they run: rw_txn_list, rw_lock_list, and the counters of rw_stats. */
#include <unistd.h>

#include "tests/api/txn_helpers.h"

typedef struct {
    int count;
    int stop_after;
    rw_txn_info infos[16];
} txn_listing;

static int list_txn(void *arg, const rw_txn_info *info)
{
    txn_listing *list = arg;
    if (list->count < 16) list->infos[list->count] = *info;
    return ++list->count == list->stop_after ? 4242 : 0;
}

static txn_listing list_txns(rw_db *db)
{
    txn_listing list = {0};
    CHECK_OK(rw_txn_list(db, list_txn, &list));
    return list;
}

static void test_txn_list(rw_db *db)
{
    rw_txn *txns[TXN_MODES];
    rw_cursor *cursor = NULL;
    txn_listing list = list_txns(db);
    TAP_CHECK(list.count == 0);
    for (size_t m = 0; m < TXN_MODES; m++) txns[m] = txn_begin(db, txn_modes[m]);
    CHECK_OK(txn_put_text(txns[0], "list a", "1"));
    CHECK_OK(txn_put_text(txns[0], "list b", "1"));
    CHECK_OK(txn_put_text(txns[0], "list a", "2"));
    txn_get_code(txns[1], "list c");
    CHECK_OK(txn_put_text(txns[2], "list c", "1"));
    txn_get_code(txns[2], "list d");
    CHECK_OK(rw_cursor_open(db, NULL, BUCKET, &cursor));
    pause_us(2000);
    list = list_txns(db);
    if (TAP_CHECK(list.count == 5)) {
        for (size_t m = 0; m < TXN_MODES; m++) {
            rw_txn_info *info = &list.infos[m];
            TAP_CHECK(info->id == rw_txn_id(txns[m]) && info->flags == txn_modes[m] && info->age_us >= 2000 && info->waits_for == 0);
            TAP_CHECK((info->snapshot != 0) == (txn_modes[m] != RW_PESSIMISTIC));
            TAP_CHECK(m == 0 || info->age_us <= list.infos[m - 1].age_us);
        }
        TAP_CHECK(list.infos[0].writes == 2 && list.infos[1].writes == 0 && list.infos[2].writes == 1 && list.infos[3].writes == 0);
        TAP_CHECK(list.infos[0].bytes > 0 && list.infos[2].locks == 2 && list.infos[0].locks == 0);
        TAP_CHECK(list.infos[4].id == 0 && list.infos[4].snapshot != 0);
    }
    rw_cursor_close(cursor);
    list = (txn_listing){.stop_after = 2};
    TAP_CHECK(rw_txn_list(db, list_txn, &list) == 4242 && list.count == 2);
    for (size_t m = 0; m < TXN_MODES; m++) rw_txn_abort(txns[m]);
    tap_ok(list_txns(db).count == 0, "rw_txn_list");
}

typedef struct {
    int count;
    int stop_after;
    struct {
        uint64_t txn;
        unsigned exclusive, waiting;
        rw_bucket bucket;
        bool range, to_end;
        size_t to_size;
        char from[32], to[32];
    } locks[32];
} lock_listing;

static int list_lock(void *arg, const rw_lock_info *info)
{
    lock_listing *list = arg;
    if (list->count < 32) {
        int i = list->count;
        list->locks[i].txn = info->txn, list->locks[i].bucket = info->bucket;
        list->locks[i].exclusive = info->exclusive, list->locks[i].waiting = info->waiting;
        list->locks[i].range = info->to.data != NULL, list->locks[i].to_end = info->to.data != NULL && info->to.size == 0;
        snprintf(list->locks[i].from, 32, "%.*s", (int)info->from.size, info->from.size == 0 ? "" : (const char *)info->from.data);
        list->locks[i].to_size = info->to.size < 32 ? info->to.size : 32;
        memset(list->locks[i].to, 0, 32);
        if (info->to.size > 0) memcpy(list->locks[i].to, info->to.data, list->locks[i].to_size);
    }
    return ++list->count == list->stop_after ? 4343 : 0;
}

static lock_listing list_locks(rw_db *db)
{
    lock_listing list = {0};
    CHECK_OK(rw_lock_list(db, list_lock, &list));
    return list;
}

/* Whether a lock on the key is listed. */
static bool lock_listed(rw_db *db, uint64_t txn, const char *key, unsigned exclusive, unsigned waiting)
{
    lock_listing list = list_locks(db);
    for (int i = 0; i < list.count && i < 32; i++) {
        if (list.locks[i].txn != txn || list.locks[i].exclusive != exclusive || list.locks[i].waiting != waiting || list.locks[i].bucket != BUCKET) continue;
        if (!list.locks[i].range && strcmp(list.locks[i].from, key) == 0) return true;
        bool below = list.locks[i].to_end || slice_compare(slice_text(key), slice_bytes(list.locks[i].to, list.locks[i].to_size)) < 0;
        if (list.locks[i].range && strcmp(list.locks[i].from, key) <= 0 && below) return true;
    }
    for (int i = 0; i < list.count && i < 32; i++)
        tap_diag("lock of %llu from \"%s\" to \"%.32s\" range %d exclusive %u waiting %u", (unsigned long long)list.locks[i].txn, list.locks[i].from, list.locks[i].to,
                 list.locks[i].range, list.locks[i].exclusive, list.locks[i].waiting);
    return false;
}

static void test_lock_list(rw_db *db)
{
    rw_txn *one = txn_begin(db, RW_PESSIMISTIC), *two = txn_begin(db, RW_PESSIMISTIC);
    uint64_t id_one = rw_txn_id(one), id_two = rw_txn_id(two);
    side_call waiter, single;
    side_op wait_op = {.db = db, .txn = two, .key = "lock b", .value = "two"}, single_op = {.db = db, .key = "lock a", .value = "single"};
    txn_get_code(two, "lock c");
    CHECK_OK(txn_put_text(one, "lock b", "one"));
    txn_get_code(one, "lock c");
    CHECK_OK(txn_put_text(one, "lock a", "one"));
    lock_listing list = list_locks(db);
    TAP_CHECK(list.count == 4 && stats_now(db).locks_held == 4);
    for (int i = 1; i < list.count; i++) TAP_CHECK(strcmp(list.locks[i - 1].from, list.locks[i].from) <= 0);
    bool good = lock_listed(db, id_one, "lock a", 1, 0) && lock_listed(db, id_one, "lock b", 1, 0);
    good = lock_listed(db, id_one, "lock c", 0, 0) && lock_listed(db, id_two, "lock c", 0, 0) && good;
    side_start(&waiter, side_op_run, &wait_op);
    TAP_CHECK(wait_for_waiting(db, 1));
    good = TAP_CHECK(lock_listed(db, id_two, "lock b", 1, 1)) && good;
    txn_listing txns = list_txns(db);
    good = TAP_CHECK(txns.count == 2 && txns.infos[1].waits_for == id_one && txns.infos[0].waits_for == 0 && txns.infos[0].locks == 3) && good;
    side_start(&single, side_op_run, &single_op);
    TAP_CHECK(wait_for_waiting(db, 2));
    good = TAP_CHECK(lock_listed(db, 0, "lock a", 1, 1)) && good;
    list = (lock_listing){.stop_after = 3};
    good = TAP_CHECK(rw_lock_list(db, list_lock, &list) == 4343 && list.count == 3) && good;
    CHECK_OK(rw_txn_commit(one, RW_ASYNC));
    CHECK_OK(side_join(&waiter));
    CHECK_OK(side_join(&single));
    CHECK_OK(rw_txn_commit(two, RW_ASYNC));
    good = TAP_CHECK(get_is_text(db, BUCKET, "lock a", "single") && get_is_text(db, BUCKET, "lock b", "two")) && good;
    tap_ok(good && list_locks(db).count == 0, "rw_lock_list: keys, held and waited for, and who waits for whom");
}

static void test_lock_ranges(rw_db *db)
{
    rw_txn *txn = txn_begin(db, RW_PESSIMISTIC);
    rw_cursor *cursor = NULL;
    uint64_t id = rw_txn_id(txn);
    CHECK_OK(put_text(db, BUCKET, "range b", "1"));
    CHECK_OK(put_text(db, BUCKET, "range d", "1"));
    CHECK_OK(put_text(db, BUCKET, "range f", "1"));
    CHECK_OK(rw_cursor_open(db, txn, BUCKET, &cursor));
    CHECK_OK(rw_cursor_seek(cursor, slice_text("range a")));
    CHECK_OK(rw_cursor_next(cursor));
    bool good = TAP_CHECK(cursor_key_is(cursor, "range d"));
    static const char *const in[] = {"range a", "range b", "range c", "range d"};
    for (size_t i = 0; i < 4; i++) good = TAP_CHECK(lock_listed(db, id, in[i], 0, 0)) && good;
    CHECK_OK(rw_cursor_last(cursor));
    good = TAP_CHECK(lock_listed(db, id, "zzz", 0, 0)) && good;
    rw_cursor_close(cursor);
    good = TAP_CHECK(lock_listed(db, id, "range c", 0, 0)) && good;
    rw_txn_abort(txn);
    tap_ok(good && list_locks(db).count == 0, "rw_lock_list: ranges that a cursor went over, until the end of the transaction");
}

static void test_stats(rw_db *db)
{
    TAP_CHECK(wait_for_rest(db));
    rw_stats_t before = stats_now(db);
    CHECK_OK(put_text(db, BUCKET, "stats", "0"));
    rw_txn *reader = txn_begin(db, RW_READONLY), *writer = txn_begin(db, RW_SNAPSHOT), *loser = txn_begin(db, RW_SNAPSHOT);
    CHECK_OK(txn_put_text(writer, "stats", "1"));
    CHECK_OK(txn_put_text(loser, "stats", "2"));
    TAP_CHECK(stats_now(db).txns_open == 3 && stats_now(db).snapshots_open == 3);
    CHECK_OK(rw_txn_commit(writer, RW_ASYNC));
    CHECK_CODE(rw_txn_commit(loser, RW_ASYNC), RW_ECONFLICT);
    TAP_CHECK(words_have("stats"));
    rw_stats_t during = stats_now(db);
    TAP_CHECK(during.txns_open == 1 && during.snapshots_open == 1 && during.versions >= 1 && during.version_bytes > 0 && during.version_bytes_max > 0);
    TAP_CHECK(during.txns_committed == before.txns_committed + 1 && during.txns_conflicted == before.txns_conflicted + 1);
    pause_us(3000);
    TAP_CHECK(stats_now(db).snapshot_oldest_age_us >= 3000 && txn_is(reader, "stats", "0"));
    rw_txn_abort(reader);
    TAP_CHECK(stats_now(db).txns_aborted == before.txns_aborted + 1);
    bool rest = wait_for_rest(db);
    TAP_CHECK(stats_now(db).snapshot_oldest_age_us == 0);
    tap_ok(rest, "counters of transactions, snapshots and versions, and their way back to 0");
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    alarm(SLOW_BUILD ? 600 : 240);
    options.cache_bytes = 64 * MIB;
    options.lock_timeout_ms = 60000;
    if (!dir_make(dir, "lists")) return 1;
    rw_db *db = open_or_exit(dir, &options);
    test_txn_list(db);
    test_lock_list(db);
    test_lock_ranges(db);
    test_stats(db);
    CHECK_OK(rw_close(db));
    CHECK_OK(rw_verify(dir, note_finding, NULL));
    dir_remove(dir);
    return tap_done();
}
