/*
 * What a serializable transaction has read: keys, present or absent, and ranges, to be validated at commit. Belongs to one thread at a time.
 */
#ifndef RW_READ_SET_H
#define RW_READ_SET_H

#include "base/base.h"

typedef struct read_set read_set;

/* One interval [from, to); a single key has is_key, and no to. */
typedef struct {
    rw_slice from, to;             /* stored keys; good until the set changes */
    bool is_key;
} read_entry;

int read_set_open(read_set **out);
void read_set_free(read_set *set);

int read_set_add_key(read_set *set, rw_slice key);
/* [from, to). What follows on the last range added, forwards or backwards, makes it longer. */
int read_set_add_range(read_set *set, rw_slice from, rw_slice to);
size_t read_set_bytes(const read_set *set);
size_t read_set_count(const read_set *set);

/* Sorts, and joins what overlaps. Afterwards entries 0 to count-1 are disjoint and ascending. */
int read_set_settle(read_set *set);
read_entry read_set_entry(const read_set *set, size_t index);

#endif
