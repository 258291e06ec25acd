/* The adapters, each in a file of its own. Which of them are built is decided by the Makefile: those whose library is installed. */
#ifndef BENCH_COMPARE_ADAPTERS_H
#define BENCH_COMPARE_ADAPTERS_H

#include "bench/compare/compare.h"

extern const compare_adapter compare_ringwood, compare_lmdb, compare_rocksdb, compare_wiredtiger, compare_leveldb, compare_sqlite;

#endif
