#include "bench/compare/adapters.h"
#include "bench/compare/fio.h"

/* COMPARE_HAVE_... are set by the Makefile. */
const compare_adapter *const compare_adapters[] = {
    &compare_ringwood,
#ifdef COMPARE_HAVE_lmdb
    &compare_lmdb,
#endif
#ifdef COMPARE_HAVE_rocksdb
    &compare_rocksdb,
#endif
#ifdef COMPARE_HAVE_wiredtiger
    &compare_wiredtiger,
#endif
#ifdef COMPARE_HAVE_leveldb
    &compare_leveldb,
#endif
#ifdef COMPARE_HAVE_sqlite
    &compare_sqlite,
#endif
    &compare_fio,
    NULL,
};

const char compare_adapters_missing[] =
#ifndef COMPARE_HAVE_lmdb
    " LMDB (liblmdb-dev)"
#endif
#ifndef COMPARE_HAVE_rocksdb
    " RocksDB (librocksdb-dev)"
#endif
#ifndef COMPARE_HAVE_wiredtiger
    " WiredTiger (libwiredtiger-dev)"
#endif
#ifndef COMPARE_HAVE_leveldb
    " LevelDB (libleveldb-dev)"
#endif
#ifndef COMPARE_HAVE_sqlite
    " SQLite (libsqlite3-dev)"
#endif
    "";
