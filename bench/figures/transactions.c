/*
 * Transactions beside RocksDB and WiredTiger: 2 reads, then 2 writes, of the same records, in one process, in turn, several rounds, medians.
 *
 *   transactions DIR [RECORDS [ROUNDS [SECONDS]]]
 *
 * Records of 16 + 100 bytes, all cached, no compression, no sync before a commit returns (RocksDB: log on, sync 0; WiredTiger: log on, commits not synced;
 * ringwood: RW_ASYNC, which syncs within 50 ms all the same). A transaction that is aborted is begun again at once, with the same keys, until it is committed;
 * the rate is that of committed ones; beside it stand the share of attempts that were aborted, and the processor's time for each committed one, threads behind
 * the scenes included, which a machine that does other things disturbs less. Popular records of the zipfian draws (theta 0.99) are spread
 * over the keys.
 */
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>
#include <wiredtiger.h>

#include "bench/figures/figures.h"
#include "bench/keys.h"
#include "ringwood.h"

#define READS 2
#define WRITES 2
#define THREADS_MAX 2
#define CACHE_BYTES ((size_t)1 << 30)

/* Ours first. */
typedef enum { SNAPSHOT, SERIALIZABLE, PESSIMISTIC, ROCKSDB_SNAPSHOT, ROCKSDB_VALIDATED, ROCKSDB_LOCKED, WIREDTIGER, CONTESTANTS } contestant;
#define OURS (PESSIMISTIC + 1)

static const struct {
    const char *name;
    bool validates_reads;          /* what was read may not have changed at the commit: as much as our serializable and pessimistic promise here */
} contestants[CONTESTANTS] = {
    {"ringwood snapshot", false},
    {"ringwood serializable", true},
    {"ringwood pessimistic", true},
    {"RocksDB optimistic", false},                  /* gets by the transaction's snapshot */
    {"RocksDB optimistic, checked", true},          /* gets for update: validated at commit */
    {"RocksDB pessimistic", true},                  /* gets under shared locks, puts under exclusive ones, deadlocks detected */
    {"WiredTiger snapshot", false},
};

static struct {
    uint64_t records;
    double seconds;
    bench_zipfian zipfian;
    rw_db *ringwood;
    rocksdb_optimistictransactiondb_t *optimistic;
    rocksdb_transactiondb_t *locked;
    rocksdb_writeoptions_t *rocksdb_write;
    rocksdb_optimistictransaction_options_t *optimistic_options;
    rocksdb_transaction_options_t *locked_options;
    WT_CONNECTION *wiredtiger;
} work;

/* One thread's part. */
typedef struct {
    pthread_t thread;
    contestant who;
    bool zipfian;
    rw_random random;
    uint64_t numbers[READS + WRITES];   /* of the records that the transaction is about */
    uint64_t commits, aborts;
    rocksdb_transaction_t *rocksdb;     /* begun again and again in the same memory */
    rocksdb_readoptions_t *rocksdb_read;
    WT_SESSION *session;
    WT_CURSOR *cursor;
} client;

static void check_value(contestant who, const void *value, size_t size, uint64_t number)
{
    if (value == NULL || size != VALUE_BYTES || memcmp(value, &number, sizeof number) != 0) fail(contestants[who].name, "wrong value");
}

/* ---- one attempt of each: true when it is committed, false when it has to be begun again ---------------------------- */

static bool ringwood_may_retry(int code)
{
    if (code == RW_ECONFLICT || code == RW_EDEADLOCK || code == RW_ETIMEOUT || code == RW_ESNAPSHOT_TOO_OLD) return true;
    fail("ringwood", rw_last_error(work.ringwood));
}

static bool ringwood_attempt(client *c)
{
    static const unsigned modes[OURS] = {RW_SNAPSHOT, RW_SERIALIZABLE, RW_PESSIMISTIC};
    rw_txn *txn;
    char key[KEY_BYTES], value[VALUE_BYTES];
    int code = rw_txn_begin(work.ringwood, modes[c->who], &txn);
    if (code != 0) return !ringwood_may_retry(code);
    for (unsigned i = 0; i < READS + WRITES && code == 0; i++) {
        key_make(key, c->numbers[i]);
        if (i < READS) {
            size_t size = sizeof value;
            code = rw_txn_get(txn, RW_DEFAULT_BUCKET, (rw_slice){key, KEY_BYTES}, value, &size);
            if (code == 0) check_value(c->who, value, size, c->numbers[i]);
        } else {
            value_make(value, c->numbers[i]);
            code = rw_txn_put(txn, RW_DEFAULT_BUCKET, (rw_slice){key, KEY_BYTES}, (rw_slice){value, VALUE_BYTES});
        }
    }
    if (code == 0) {
        code = rw_txn_commit(txn, RW_ASYNC);
        return code == 0 || !ringwood_may_retry(code);
    }
    bool retry = ringwood_may_retry(code);
    rw_txn_abort(txn);
    return !retry;
}

/* RocksDB's ways to refuse a transaction; anything else is a failure. */
static void rocksdb_expect_refusal(char *error)
{
    static const char *const refusals[] = {"Resource busy", "Operation timed out", "Operation failed. Try again"};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        if (strncmp(error, refusals[i], strlen(refusals[i])) != 0) continue;
        rocksdb_free(error);
        return;
    }
    fail("RocksDB", error);
}

static void rocksdb_read_one(client *c, uint64_t number, char **error)
{
    char key[KEY_BYTES];
    size_t size;
    key_make(key, number);
    rocksdb_pinnableslice_t *pinned =
        c->who == ROCKSDB_SNAPSHOT ? rocksdb_transaction_get_pinned(c->rocksdb, c->rocksdb_read, key, KEY_BYTES, error)
                                   : rocksdb_transaction_get_pinned_for_update(c->rocksdb, c->rocksdb_read, key, KEY_BYTES, 0, error);
    if (*error != NULL) return;
    if (pinned == NULL) fail(contestants[c->who].name, "a record is missing");
    const char *value = rocksdb_pinnableslice_value(pinned, &size);
    check_value(c->who, value, size, number);
    rocksdb_pinnableslice_destroy(pinned);
}

static bool rocksdb_attempt(client *c)
{
    char key[KEY_BYTES], value[VALUE_BYTES], *error = NULL, *rollback_error = NULL;
    const rocksdb_snapshot_t *snapshot = NULL;
    if (c->who == ROCKSDB_LOCKED) c->rocksdb = rocksdb_transaction_begin(work.locked, work.rocksdb_write, work.locked_options, c->rocksdb);
    else c->rocksdb = rocksdb_optimistictransaction_begin(work.optimistic, work.rocksdb_write, work.optimistic_options, c->rocksdb);
    if (c->who == ROCKSDB_SNAPSHOT) {
        snapshot = rocksdb_transaction_get_snapshot(c->rocksdb);
        rocksdb_readoptions_set_snapshot(c->rocksdb_read, snapshot);
    }
    for (unsigned i = 0; i < READS && error == NULL; i++) rocksdb_read_one(c, c->numbers[i], &error);
    for (unsigned i = READS; i < READS + WRITES && error == NULL; i++) {
        key_make(key, c->numbers[i]);
        value_make(value, c->numbers[i]);
        rocksdb_transaction_put(c->rocksdb, key, KEY_BYTES, value, VALUE_BYTES, &error);
    }
    if (error == NULL) rocksdb_transaction_commit(c->rocksdb, &error);
    rocksdb_free((void *)(uintptr_t)snapshot);      /* the transaction's own; only its wrapper is freed */
    if (error == NULL) return true;
    rocksdb_expect_refusal(error);
    rocksdb_transaction_rollback(c->rocksdb, &rollback_error);
    if (rollback_error != NULL) fail("RocksDB rollback", rollback_error);
    return false;
}

static bool wiredtiger_attempt(client *c)
{
    char key[KEY_BYTES], value[VALUE_BYTES];
    WT_ITEM k = {.data = key, .size = KEY_BYTES}, v = {0};
    int code = c->session->begin_transaction(c->session, NULL);
    for (unsigned i = 0; i < READS + WRITES && code == 0; i++) {
        key_make(key, c->numbers[i]);
        c->cursor->set_key(c->cursor, &k);
        if (i < READS) {
            code = c->cursor->search(c->cursor);
            if (code == 0) code = c->cursor->get_value(c->cursor, &v);
            if (code == 0) check_value(c->who, v.data, v.size, c->numbers[i]);
        } else {
            value_make(value, c->numbers[i]);
            v = (WT_ITEM){.data = value, .size = VALUE_BYTES};
            c->cursor->set_value(c->cursor, &v);
            code = c->cursor->insert(c->cursor);
        }
    }
    if (code == 0) {
        code = c->session->commit_transaction(c->session, NULL);
        if (code == 0) return true;
    } else if (code == WT_ROLLBACK) {
        int rolled_back = c->session->rollback_transaction(c->session, NULL);
        if (rolled_back != 0) fail("WiredTiger rollback", wiredtiger_strerror(rolled_back));
    }
    if (code != WT_ROLLBACK) fail("WiredTiger", wiredtiger_strerror(code));
    return false;
}

/* ---- many transactions --------------------------------------------------------------------------------------------- */

static void wiredtiger_session_open(client *c)
{
    int code = work.wiredtiger->open_session(work.wiredtiger, NULL, "isolation=snapshot", &c->session);
    if (code == 0) code = c->session->open_cursor(c->session, "table:records", NULL, NULL, &c->cursor);
    if (code != 0) fail("WiredTiger session", wiredtiger_strerror(code));
}

static void client_open(client *c)
{
    if (c->who == WIREDTIGER) wiredtiger_session_open(c);
    else if (c->who >= OURS) c->rocksdb_read = rocksdb_readoptions_create();
}

static void client_close(client *c)
{
    if (c->session != NULL) c->session->close(c->session, NULL);
    if (c->rocksdb != NULL) rocksdb_transaction_destroy(c->rocksdb);
    if (c->rocksdb_read != NULL) rocksdb_readoptions_destroy(c->rocksdb_read);
}

static void *client_run(void *arg)
{
    client *c = arg;
    bool (*attempt)(client *) = c->who < OURS ? ringwood_attempt : c->who == WIREDTIGER ? wiredtiger_attempt : rocksdb_attempt;
    client_open(c);
    for (double end = now() + work.seconds; now() < end;) {
        for (unsigned i = 0; i < 64; i++) {
            for (unsigned k = 0; k < READS + WRITES; k++)
                c->numbers[k] = c->zipfian ? bench_zipfian_rank(&work.zipfian, &c->random) : rw_random_below(&c->random, work.records);
            while (!attempt(c)) c->aborts++;
            c->commits++;
        }
    }
    client_close(c);
    return NULL;
}

typedef struct {
    double rate, abort_share, cpu_us;
} measured;

/* Of the whole process. */
static double cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static measured measure(contestant who, bool zipfian, unsigned threads, unsigned round)
{
    client clients[THREADS_MAX] = {0};
    uint64_t commits = 0, aborts = 0;
    usleep(300000);                     /* what the one before left to its threads behind the scenes */
    double began = now(), cpu_began = cpu_us();
    for (unsigned i = 0; i < threads; i++) {
        clients[i] = (client){.who = who, .zipfian = zipfian};
        rw_random_seed(&clients[i].random, round * THREADS_MAX + i + 1);
        pthread_create(&clients[i].thread, NULL, client_run, &clients[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(clients[i].thread, NULL);
        commits += clients[i].commits;
        aborts += clients[i].aborts;
    }
    return (measured){.rate = (double)commits / (now() - began), .abort_share = (double)aborts / (double)(commits + aborts),
                      .cpu_us = (cpu_us() - cpu_began) / (double)commits};
}

/* Ratio of ours to the best peer of each round, to the best of those that promise as much with equal set. */
static void print_ratio(const char *label, measured results[][ROUNDS_MAX], contestant ours, bool equal, unsigned rounds)
{
    double ratios[ROUNDS_MAX];
    for (unsigned r = 0; r < rounds; r++) {
        double best = 0;
        for (unsigned peer = OURS; peer < CONTESTANTS; peer++)
            if ((!equal || contestants[peer].validates_reads || !contestants[ours].validates_reads) && results[peer][r].rate > best) best = results[peer][r].rate;
        ratios[r] = results[ours][r].rate / best;
    }
    double middle = median(ratios, rounds);
    printf("   %s %5.2f (%.2f to %.2f)", label, middle, ratios[0], ratios[rounds - 1]);
}

static void compare(bool zipfian, unsigned threads, unsigned rounds)
{
    static measured results[CONTESTANTS][ROUNDS_MAX];
    for (unsigned r = 0; r < rounds; r++)
        for (unsigned i = 0; i < CONTESTANTS; i++) {
            contestant who = (i + r) % CONTESTANTS;
            results[who][r] = measure(who, zipfian, threads, r);
        }
    printf("\n%u reads + %u writes, %s, %u thread%s\n", READS, WRITES, zipfian ? "zipfian" : "uniform", threads, threads == 1 ? "" : "s");
    for (unsigned who = 0; who < CONTESTANTS; who++) {
        double rates[ROUNDS_MAX], aborts[ROUNDS_MAX], cpu[ROUNDS_MAX];
        for (unsigned r = 0; r < rounds; r++) {
            rates[r] = results[who][r].rate;
            aborts[r] = results[who][r].abort_share;
            cpu[r] = results[who][r].cpu_us;
        }
        printf("  %-28s %9.0f/s  aborted %7.4f%%  CPU %6.1f us", contestants[who].name, median(rates, rounds), 100 * median(aborts, rounds),
               median(cpu, rounds));
        if (who < OURS) {
            print_ratio("to the best", results, who, false, rounds);
            if (contestants[who].validates_reads) print_ratio("to the best that checks reads", results, who, true, rounds);
        }
        puts("");
    }
    fflush(stdout);
}

/* ---- setting up ---------------------------------------------------------------------------------------------------- */

/* Reads every record once, so that what is measured is cached: the others have all of it in memory from writing it. */
static void rocksdb_warm(rocksdb_t *optimistic, rocksdb_transactiondb_t *locked)
{
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    for (uint64_t i = 0; i < work.records; i++) {
        char key[KEY_BYTES], *error = NULL;
        size_t size;
        key_make(key, i);
        char *value = optimistic != NULL ? rocksdb_get(optimistic, options, key, KEY_BYTES, &size, &error)
                                         : rocksdb_transactiondb_get(locked, options, key, KEY_BYTES, &size, &error);
        if (error != NULL) fail("RocksDB", error);
        check_value(optimistic != NULL ? ROCKSDB_SNAPSHOT : ROCKSDB_LOCKED, value, size, i);
        rocksdb_free(value);
    }
    rocksdb_readoptions_destroy(options);
}

static rocksdb_options_t *rocksdb_settings(void)
{
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(CACHE_BYTES));
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom(10));
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, 0.1);
    rocksdb_options_set_memtable_whole_key_filtering(options, 1);
    rocksdb_options_set_max_write_buffer_number(options, 4);
    return options;
}

static void rocksdb_fill_optimistic(const char *dir)
{
    char path[4096], key[KEY_BYTES], value[VALUE_BYTES], *error = NULL;
    path_make(path, sizeof path, dir, "rocksdb-optimistic");
    work.optimistic = rocksdb_optimistictransactiondb_open(rocksdb_settings(), path, &error);
    if (error != NULL) fail("RocksDB", error);
    work.optimistic_options = rocksdb_optimistictransaction_options_create();
    rocksdb_optimistictransaction_options_set_set_snapshot(work.optimistic_options, 1);
    rocksdb_t *base = rocksdb_optimistictransactiondb_get_base_db(work.optimistic);
    for (uint64_t i = 0; i < work.records; i++) {
        key_make(key, i);
        value_make(value, i);
        rocksdb_put(base, work.rocksdb_write, key, KEY_BYTES, value, VALUE_BYTES, &error);
        if (error != NULL) fail("RocksDB", error);
    }
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    rocksdb_flush(base, flush, &error);
    if (error != NULL) fail("RocksDB", error);
    rocksdb_compact_range(base, NULL, 0, NULL, 0);
    rocksdb_flushoptions_destroy(flush);
    rocksdb_warm(base, NULL);
    rocksdb_optimistictransactiondb_close_base_db(base);
}

static void rocksdb_fill_locked(const char *dir)
{
    char path[4096], key[KEY_BYTES], value[VALUE_BYTES], *error = NULL;
    path_make(path, sizeof path, dir, "rocksdb-pessimistic");
    work.locked = rocksdb_transactiondb_open(rocksdb_settings(), rocksdb_transactiondb_options_create(), path, &error);
    if (error != NULL) fail("RocksDB", error);
    work.locked_options = rocksdb_transaction_options_create();
    rocksdb_transaction_options_set_deadlock_detect(work.locked_options, 1);
    for (uint64_t i = 0; i < work.records; i++) {
        key_make(key, i);
        value_make(value, i);
        rocksdb_transactiondb_put(work.locked, work.rocksdb_write, key, KEY_BYTES, value, VALUE_BYTES, &error);
        if (error != NULL) fail("RocksDB", error);
    }
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    rocksdb_transactiondb_flush(work.locked, flush, &error);
    if (error != NULL) fail("RocksDB", error);
    rocksdb_flushoptions_destroy(flush);
    rocksdb_warm(NULL, work.locked);
}

static void wiredtiger_fill(const char *dir)
{
    char path[4096], key[KEY_BYTES], value[VALUE_BYTES];
    client c = {.who = WIREDTIGER};
    path_make(path, sizeof path, dir, "wiredtiger");
    int code = wiredtiger_open(path, NULL, "create,cache_size=1GB,log=(enabled=true),transaction_sync=(enabled=false),checkpoint=(log_size=512MB)",
                               &work.wiredtiger);
    if (code == 0) code = work.wiredtiger->open_session(work.wiredtiger, NULL, NULL, &c.session);
    if (code == 0) code = c.session->create(c.session, "table:records", "key_format=u,value_format=u");
    if (code != 0) fail("WiredTiger", wiredtiger_strerror(code));
    c.session->close(c.session, NULL);
    wiredtiger_session_open(&c);
    for (uint64_t i = 0; i < work.records && code == 0; i++) {
        key_make(key, i);
        value_make(value, i);
        WT_ITEM k = {.data = key, .size = KEY_BYTES}, v = {.data = value, .size = VALUE_BYTES};
        c.cursor->set_key(c.cursor, &k);
        c.cursor->set_value(c.cursor, &v);
        code = c.cursor->insert(c.cursor);
    }
    if (code == 0) code = c.session->checkpoint(c.session, NULL);
    if (code != 0) fail("WiredTiger", wiredtiger_strerror(code));
    client_close(&c);
}

static void ringwood_fill(const char *dir)
{
    char path[4096], key[KEY_BYTES], value[VALUE_BYTES];
    rw_options options;
    rw_options_init(&options);
    options.cache_bytes = CACHE_BYTES;
    path_make(path, sizeof path, dir, "ringwood");
    if (rw_open(path, &options, &work.ringwood) != 0) fail("ringwood", rw_last_error(NULL));
    for (uint64_t i = 0; i < work.records; i++) {
        key_make(key, i);
        value_make(value, i);
        if (rw_put(work.ringwood, RW_DEFAULT_BUCKET, (rw_slice){key, KEY_BYTES}, (rw_slice){value, VALUE_BYTES}, RW_ASYNC) != 0)
            fail("ringwood", rw_last_error(work.ringwood));
    }
    if (rw_checkpoint(work.ringwood) != 0) fail("ringwood", rw_last_error(work.ringwood));
}

int main(int argc, char **argv)
{
    figures_plan plan = plan_read(argc, argv, 1000000);
    work.records = plan.records;
    work.seconds = plan.seconds;
    bench_zipfian_init(&work.zipfian, work.records, BENCH_ZIPFIAN_THETA);
    work.rocksdb_write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(work.rocksdb_write, 0);
    ringwood_fill(plan.dir);
    rocksdb_fill_optimistic(plan.dir);
    rocksdb_fill_locked(plan.dir);
    wiredtiger_fill(plan.dir);
    for (unsigned threads = 1; threads <= THREADS_MAX; threads++) {
        compare(false, threads, plan.rounds);
        compare(true, threads, plan.rounds);
    }
    rocksdb_optimistictransactiondb_close(work.optimistic);
    rocksdb_transactiondb_close(work.locked);
    work.wiredtiger->close(work.wiredtiger, NULL);
    return rw_close(work.ringwood) == 0 ? 0 : 1;
}
