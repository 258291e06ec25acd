/* Walks over a range of keys, and reads of values of any size: what verbs and shell share. All time is that of the library's calls. */
#ifndef RW_CLI_RANGE_H
#define RW_CLI_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/text.h"
#include "ringwood.h"

/* Sums the time between start and stop, nanoseconds. Zero-initialised is 0. */
typedef struct {
    uint64_t started_ns, total_ns;
} stopwatch;

void stopwatch_start(stopwatch *watch);
void stopwatch_stop(stopwatch *watch);

/* from <= key < to; an empty bound is none. */
typedef struct {
    rw_slice from, to;
    bool reverse;
    bool keys_only;             /* rows come with an empty value */
    uint64_t limit;             /* rows; UINT64_MAX: all */
} range;

/* A non-zero return ends the walk, and is what it returns. */
typedef int (*range_row_fn)(void *arg, rw_slice key, rw_slice value);

/* Calls fn, unless it is NULL, for each record. txn NULL: a snapshot of its own. *rows counts the records met, also after a failure. */
int range_walk(rw_db *db, rw_txn *txn, rw_bucket bucket, const range *r, range_row_fn fn, void *arg, uint64_t *rows, stopwatch *watch);

/* Sets *end to the first key behind all that begin with prefix; empty when there is no such key. */
void range_prefix_end(rw_slice prefix, text_buffer *end);

/* Whether both bounds are given and out of order. */
bool range_is_backward(rw_slice from, rw_slice to);

/* Reads a value of any size. txn NULL: the newest committed one; else for_update also claims the key. */
int range_get(rw_db *db, rw_txn *txn, rw_bucket bucket, rw_slice key, bool for_update, text_buffer *value, stopwatch *watch);

#endif
