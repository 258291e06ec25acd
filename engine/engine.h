/*
 * The face of engine/ to tests: opening a database over a given back end. Everyone else uses ringwood.h.
 */
#ifndef RW_ENGINE_H
#define RW_ENGINE_H

#include "kernel_io/kernel_io.h"

/* As rw_open and rw_verify, with all I/O, time and threads through k, which the caller closes after the database. */
int db_open_with(kio *k, const char *dir, const rw_options *options, rw_db **db);
int db_verify_with(kio *k, const char *dir, rw_verify_fn fn, void *arg);

/* Checks what is in memory of a database that is open for writing: every tree's resident part, dirty lists, frames. No other call may be running.
 * RW_ECORRUPT says what is wrong. */
int db_check_resident(rw_db *db);

#endif
