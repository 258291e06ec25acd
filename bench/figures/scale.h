/* What grows with the data: how fast a log is replayed, how soon a database is open, what an operation costs from ten thousand records up. */
#ifndef BENCH_FIGURES_SCALE_H
#define BENCH_FIGURES_SCALE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bench/scratch.h"
#include "ringwood.h"

#define SCALE_KEY_BYTES 16u
#define SCALE_VALUE_BYTES_MAX 4096u

typedef struct {
    const char *directory;         /* databases are made in it, and removed */
    uint64_t records;              /* the curve: at most */
    uint64_t log_bytes;            /* to be replayed */
    uint32_t value_bytes;
    unsigned rounds;
    double seconds;                /* of each measurement of the curve */
    rw_options options;
    FILE *json;                    /* NULL: none */
    unsigned rows;                 /* printed so far */
} scale_plan;

/* ---- the figures ---- */
void scale_recovery(scale_plan *plan);
void scale_open(scale_plan *plan);
void scale_curve(scale_plan *plan);

/* ---- what they share ---- */

_Noreturn void scale_fail(const char *what, const char *why);
/* Ends the program unless code is 0. */
void scale_expect(int code, const char *what);

/*
 * Runs work in a process of its own, so that what it measures begins with nothing in memory. result: from scale_shared. to_be_killed: the work ends by killing its
 * process, as nothing else may end it.
 */
typedef void (*scale_work)(const scale_plan *plan, const char *path, void *result);
void scale_process(const scale_plan *plan, const char *path, scale_work work, void *result, bool to_be_killed);
/* Memory that processes share, zeroed. */
void *scale_shared(size_t bytes);
_Noreturn void scale_kill_self(void);

/* A number as a key, in hexadecimal, so that keys have the order of the numbers; and a value that tells it. */
void scale_key_make(char key[SCALE_KEY_BYTES], uint64_t number);
void scale_value_make(const scale_plan *plan, char *value, uint64_t number);
/* Gets a record and looks at its value. */
void scale_get(const scale_plan *plan, rw_db *db, uint64_t number);
void scale_put(const scale_plan *plan, rw_db *db, uint64_t number);
/* Puts numbers 0 to records in order, in batches. */
void scale_load(const scale_plan *plan, rw_db *db, uint64_t records);
double scale_seconds(void);

/* One row of a table, and of the JSON. The first row of a figure prints the head. */
typedef struct {
    const char *name;              /* with its unit */
    double value;
    unsigned digits;               /* behind the point, in the table */
} scale_column;
void scale_row_print(scale_plan *plan, const char *figure, const scale_column *columns, unsigned count);

#endif
