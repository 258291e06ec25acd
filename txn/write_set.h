/*
 * The private writes of one transaction, ordered by key. Memory only; belongs to one thread at a time.
 *
 * Every write of a key is kept as a version on that key's entry, newest first, so that rolling back to a savepoint drops versions without copying.
 */
#ifndef RW_WRITE_SET_H
#define RW_WRITE_SET_H

#include "base/base.h"

typedef struct write_set write_set;

typedef struct {
    rw_slice key;              /* with bucket prefix; both good until the write set changes or is freed */
    rw_slice value;
    bool deleted;
} write_entry;

int write_set_open(write_set **out);
void write_set_free(write_set *set);
/* Empties it for another transaction. */
void write_set_clear(write_set *set);

int write_set_put(write_set *set, rw_slice key, rw_slice value);
int write_set_delete(write_set *set, rw_slice key);

/* false: the transaction has not written key. */
bool write_set_find(const write_set *set, rw_slice key, write_entry *out);
/* The first entry with key >= from (> from when strict). false: none. */
bool write_set_seek(const write_set *set, rw_slice from, bool strict, write_entry *out);
/* Calls fn for each entry, in key order. A non-zero result ends it, and is returned. */
int write_set_for_each(const write_set *set, int (*fn)(void *arg, const write_entry *one), void *arg);
/* The last entry with key < before; an empty key: the last of all. */
bool write_set_seek_before(const write_set *set, rw_slice before, write_entry *out);

size_t write_set_count(const write_set *set);      /* keys written */
size_t write_set_bytes(const write_set *set);      /* memory taken */

/* Savepoints: an id names the state of the set. RW_EINVAL: no such savepoint (never made, or forgotten by an earlier rollback). */
int write_set_savepoint(write_set *set, unsigned *id);
int write_set_rollback(write_set *set, unsigned id);

#endif
