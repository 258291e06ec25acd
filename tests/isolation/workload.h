/*
 * Random transactions from many threads on a database that is open, recorded and checked in rounds, so that any number of them needs bounded memory. Uses
 * nothing but the public calls.
 */
#ifndef TESTS_WORKLOAD_H
#define TESTS_WORKLOAD_H

#include "ringwood.h"
#include "tests/isolation/history.h"

typedef enum { WORKLOAD_SNAPSHOT, WORKLOAD_SERIALIZABLE, WORKLOAD_PESSIMISTIC, WORKLOAD_MIXED, WORKLOAD_MODES } workload_mode;

typedef struct {
    workload_mode mode;
    uint64_t transactions;       /* recorded, whatever their outcome */
    uint32_t round;              /* transactions checked together */
    uint32_t threads;
    uint32_t keys;               /* at most: 16 times a power of two. Rounds take turns with all of them, and with fewer */
    uint32_t filler;             /* records beside them, which push pages out of a small cache and make partitions split */
    uint32_t load_threads;       /* rewrite the filler, write checkpoints and compact meanwhile */
    uint64_t seed;
    bool keep_power;             /* also check the last round as if all its snapshot transactions were serializable */
} workload_options;

typedef struct {
    uint64_t transactions, committed, operations;
    uint64_t conflicts, deadlocks, timeouts, snapshots_too_old, lock_memory;
    uint64_t rounds;
    double run_seconds;
    double check_seconds;        /* of the processor */
    uint64_t ww, wr, rw, rw_range, unordered, unresolved;
    uint64_t skews;              /* rounds with keep_power that no serializable store could have produced */
    char failure[1600];          /* empty: everything was sound */
} workload_report;

/* Returns whether everything was sound. Leaves the database's keys deleted, the filler in place. */
bool workload_run(rw_db *db, const workload_options *options, workload_report *report);

#endif
