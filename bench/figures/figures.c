/*
 * The first figures: ringwood beside LMDB and LevelDB, on the same records, in one process, in turn, several rounds, medians.
 *
 *   figures DIR [RECORDS [ROUNDS [SECONDS]]]
 *
 * Records of 16 + 100 bytes, all cached. LMDB: no sync (reads only are compared), one read transaction for each get, as an embedding service does it.
 * LevelDB: no compression, a cache of 1 GiB, a Bloom filter of 10 bits; sync writes where ringwood's are durable.
 */
#include <leveldb/c.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/figures/figures.h"
#include "ringwood.h"

#define THREADS_MAX 64

typedef enum { RINGWOOD, LMDB, LEVELDB } engine;

static const char *const engine_names[] = {"ringwood", "LMDB", "LevelDB"};

static struct {
    uint64_t records;
    double seconds;
    rw_db *ringwood;
    MDB_env *lmdb;
    MDB_dbi lmdb_table;
    leveldb_t *leveldb;
    leveldb_readoptions_t *leveldb_read;
    leveldb_writeoptions_t *leveldb_async, *leveldb_sync;
} work;

/* ---- one operation of each engine ---------------------------------------------------------------------------------- */

static void lmdb_get(const char *key, uint64_t number)
{
    MDB_txn *txn;
    MDB_val k = {KEY_BYTES, (void *)key}, v;
    if (mdb_txn_begin(work.lmdb, NULL, MDB_RDONLY, &txn) != 0 || mdb_get(txn, work.lmdb_table, &k, &v) != 0) fail("LMDB", "get failed");
    if (v.mv_size != VALUE_BYTES || memcmp(v.mv_data, &number, sizeof number) != 0) fail("LMDB", "wrong value");
    mdb_txn_abort(txn);
}

static void leveldb_get_one(const char *key, uint64_t number)
{
    char *error = NULL;
    size_t size;
    char *value = leveldb_get(work.leveldb, work.leveldb_read, key, KEY_BYTES, &size, &error);
    if (value == NULL || size != VALUE_BYTES || memcmp(value, &number, sizeof number) != 0) fail("LevelDB", "wrong value");
    leveldb_free(value);
}

static void ringwood_get(const char *key, uint64_t number)
{
    char value[VALUE_BYTES];
    size_t size = sizeof value;
    if (rw_get(work.ringwood, RW_DEFAULT_BUCKET, (rw_slice){key, KEY_BYTES}, value, &size) != 0) fail("ringwood", rw_last_error(work.ringwood));
    if (size != VALUE_BYTES || memcmp(value, &number, sizeof number) != 0) fail("ringwood", "wrong value");
}

static void put_one(engine e, uint64_t number, bool durable)
{
    char key[KEY_BYTES], value[VALUE_BYTES], *error = NULL;
    key_make(key, number);
    value_make(value, number);
    if (e == RINGWOOD) {
        int code = rw_put(work.ringwood, RW_DEFAULT_BUCKET, (rw_slice){key, KEY_BYTES}, (rw_slice){value, VALUE_BYTES}, durable ? RW_SYNC : RW_ASYNC);
        if (code != 0) fail("ringwood", rw_last_error(work.ringwood));
        return;
    }
    leveldb_put(work.leveldb, durable ? work.leveldb_sync : work.leveldb_async, key, KEY_BYTES, value, VALUE_BYTES, &error);
    if (error != NULL) fail("LevelDB", error);
}

static void get_one(engine e, uint64_t number)
{
    char key[KEY_BYTES];
    key_make(key, number);
    if (e == RINGWOOD) ringwood_get(key, number);
    else if (e == LMDB) lmdb_get(key, number);
    else leveldb_get_one(key, number);
}

/* ---- many operations ----------------------------------------------------------------------------------------------- */

typedef enum { GET, DURABLE_PUT } operation;

typedef struct {
    pthread_t thread;
    engine e;
    operation op;
    uint64_t seed, done;
} client;

static void *client_run(void *arg)
{
    client *c = arg;
    uint64_t random = c->seed * 0x9e3779b97f4a7c15u + 88172645463325252u;
    unsigned step = c->op == GET ? 256 : 1;
    for (double end = now() + work.seconds; now() < end; c->done += step) {
        for (unsigned i = 0; i < step; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            uint64_t number = (random >> 11) % work.records;
            if (c->op == GET) get_one(c->e, number);
            else put_one(c->e, number, true);
        }
    }
    return NULL;
}

static double rate(engine e, operation op, unsigned threads)
{
    client clients[THREADS_MAX] = {0};
    double began = now();
    uint64_t done = 0;
    for (unsigned i = 0; i < threads; i++) {
        clients[i] = (client){.e = e, .op = op, .seed = i + 1};
        pthread_create(&clients[i].thread, NULL, client_run, &clients[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(clients[i].thread, NULL);
        done += clients[i].done;
    }
    return (double)done / (now() - began);
}

static void compare(const char *name, operation op, unsigned threads, engine peer, unsigned rounds)
{
    double ours[ROUNDS_MAX], theirs[ROUNDS_MAX], ratios[ROUNDS_MAX];
    for (unsigned i = 0; i < rounds; i++) {
        ours[i] = rate(RINGWOOD, op, threads);
        theirs[i] = rate(peer, op, threads);
        ratios[i] = ours[i] / theirs[i];
    }
    double middle = median(ratios, rounds);
    printf("%-24s %2u threads   ringwood %9.0f/s   %-8s %9.0f/s   ratio %5.2f (%.2f to %.2f)\n", name, threads, median(ours, rounds),
           engine_names[peer], median(theirs, rounds), middle, ratios[0], ratios[rounds - 1]);
    fflush(stdout);
}

/* ---- setting up ---------------------------------------------------------------------------------------------------- */

static void engines_open(const char *dir)
{
    char path[4096], *error = NULL;
    rw_options options;
    rw_options_init(&options);
    options.cache_bytes = (uint64_t)1 << 30;
    path_make(path, sizeof path, dir, "ringwood");
    if (rw_open(path, &options, &work.ringwood) != 0) fail("ringwood", rw_last_error(NULL));
    path_make(path, sizeof path, dir, "lmdb");
    MDB_txn *txn;
    if (mdb_env_create(&work.lmdb) != 0 || mdb_env_set_mapsize(work.lmdb, (size_t)8 << 30) != 0 || mdb_env_set_maxreaders(work.lmdb, 128) != 0 ||
        mdb_env_open(work.lmdb, path, MDB_NOSYNC, 0644) != 0 || mdb_txn_begin(work.lmdb, NULL, 0, &txn) != 0 ||
        mdb_dbi_open(txn, NULL, 0, &work.lmdb_table) != 0 || mdb_txn_commit(txn) != 0)
        fail("LMDB", "cannot be opened");
    path_make(path, sizeof path, dir, "leveldb");
    leveldb_options_t *level = leveldb_options_create();
    leveldb_options_set_create_if_missing(level, 1);
    leveldb_options_set_compression(level, leveldb_no_compression);
    leveldb_options_set_cache(level, leveldb_cache_create_lru((size_t)1 << 30));
    leveldb_options_set_filter_policy(level, leveldb_filterpolicy_create_bloom(10));
    work.leveldb = leveldb_open(level, path, &error);
    if (error != NULL) fail("LevelDB", error);
    work.leveldb_read = leveldb_readoptions_create();
    work.leveldb_async = leveldb_writeoptions_create();
    work.leveldb_sync = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(work.leveldb_sync, 1);
}

static double fill(engine e)
{
    double began = now();
    for (uint64_t i = 0; i < work.records; i++) put_one(e, i, false);
    return (double)work.records / (now() - began);
}

static void fill_lmdb(void)
{
    MDB_txn *txn = NULL;
    for (uint64_t i = 0; i < work.records; i++) {
        char key[KEY_BYTES], value[VALUE_BYTES];
        MDB_val k = {KEY_BYTES, key}, v = {VALUE_BYTES, value};
        key_make(key, i);
        value_make(value, i);
        if (txn == NULL && mdb_txn_begin(work.lmdb, NULL, 0, &txn) != 0) fail("LMDB", "begin failed");
        if (mdb_put(txn, work.lmdb_table, &k, &v, 0) != 0) fail("LMDB", "put failed");
        if (i % 10000 != 9999 && i + 1 < work.records) continue;
        if (mdb_txn_commit(txn) != 0) fail("LMDB", "commit failed");
        txn = NULL;
    }
}

int main(int argc, char **argv)
{
    figures_plan plan = plan_read(argc, argv, 2000000);
    work.records = plan.records;
    work.seconds = plan.seconds;
    engines_open(plan.dir);
    double ours = fill(RINGWOOD), theirs = fill(LEVELDB);
    printf("%-24s %2u threads   ringwood %9.0f/s   %-8s %9.0f/s   ratio %5.2f\n", "random insert, async", 1, ours, "LevelDB", theirs, ours / theirs);
    fill_lmdb();
    compare("random get", GET, 1, LMDB, plan.rounds);
    compare("random get", GET, 2, LMDB, plan.rounds);
    compare("durable put", DURABLE_PUT, 1, LEVELDB, plan.rounds);
    compare("durable put", DURABLE_PUT, 16, LEVELDB, plan.rounds);
    compare("durable put", DURABLE_PUT, 64, LEVELDB, plan.rounds);
    leveldb_close(work.leveldb);
    mdb_env_close(work.lmdb);
    return rw_close(work.ringwood) == 0 ? 0 : 1;
}
