/*
 * The face of engine/ to tests (opening a database over a given back end) and to the command's repair and log. Everyone else uses ringwood.h.
 */
#ifndef RW_ENGINE_H
#define RW_ENGINE_H

#include <stdio.h>

#include "kernel_io/kernel_io.h"

/* As rw_open and rw_verify, with all I/O, time and threads through k, which the caller closes after the database. */
int db_open_with(kio *k, const char *dir, const rw_options *options, rw_db **db);
int db_verify_with(kio *k, const char *dir, rw_verify_fn fn, void *arg);

/*
 * For the command's repair: opens dir for reading only, whatever options say, and passes over what it cannot read instead of refusing. A log that is damaged ends before
 * the damage; operations of the log whose pages cannot be read, partitions whose root cannot, and the names of buckets, are missed. found is called with one sentence for
 * each. What cannot be read later is met by whoever reads there (RW_ECORRUPT, RW_EIO). A log that ends below what images on disk hold already leaves
 * the database in a state that it never had: of a commit of several keys only those may be there whose pages were written after it.
 */
int db_open_salvage(const char *dir, const rw_options *options, rw_verify_fn found, void *arg, rw_db **db);

/* Behind damage that a cursor of such a database met after key (empty: at the bucket's beginning): the first key that a seek may go on with, of *size bytes, into
 * next (room for the longest key). RW_ENOTFOUND: the damage reaches to the bucket's end. */
int db_salvage_behind(rw_db *db, rw_bucket bucket, rw_slice key, void *next, size_t *size);
/* Of such a database, the buckets that hold records and whose names were not read, under names made of their numbers. From here on they can be read. */
int db_salvage_unnamed(rw_db *db, rw_bucket_fn fn, void *arg);

/* For the command's log: prints the blocks and records of a closed database's log as far as they decode. Changes nothing. Errors as rw_verify, and what the printing met. */
int db_print_log(const char *dir, FILE *to);

/* Checks what is in memory of a database that is open for writing: every tree's resident part, dirty lists, frames. No other call may be running.
 * RW_ECORRUPT says what is wrong. */
int db_check_resident(rw_db *db);

#endif
