/* The device itself, measured by fio in the rounds of the comparison like an engine: a file of the database's size in the same directory, direct I/O, 4 KiB. */
#ifndef BENCH_COMPARE_FIO_H
#define BENCH_COMPARE_FIO_H

#include "bench/compare/run.h"

extern const compare_adapter compare_fio;

/* Whether there is a fio to run. */
bool compare_fio_is_installed(void);

/* The work of its child in directory: a job for each workload of the stage that stands beside one. */
void compare_fio_run(const compare_stage *stage, const char *directory, compare_turn *turn);

#endif
