/* The command line of `ringwood bench`, and what `ringwood crash` shares of it. */
#ifndef BENCH_ARGUMENTS_H
#define BENCH_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/parse.h"
#include "bench/workload.h"
#include "ringwood.h"

#define BENCH_JOBS_MAX 64u

typedef enum { BENCH_TABLE, BENCH_JSON, BENCH_CSV } bench_format;

typedef struct {
    const char *directory;      /* NULL: a new one under the present one */
    bench_request jobs[BENCH_JOBS_MAX]; /* seed and progress are set when they run */
    unsigned job_count;
    bool standard_job;          /* no workloads were named: random writes, durable writes, random reads, scans */
    uint64_t records;
    uint32_t key_size, value_size; /* bytes */
    bool hashed;
    bool shape_given;           /* one of the four above was given */
    uint64_t seed;
    unsigned crash_rounds;      /* 0: no crash test */
    bench_format format;
    bool histogram;
    bool use_existing;
    rw_options options;
} bench_arguments;

/* 0; 1: help was printed; or -1: a mistake was explained on stderr. */
int bench_arguments_parse(bench_arguments *arguments, int argc, char **argv);

/* "snapshot", "serializable" or "pessimistic", of a flag of rw_txn_begin. */
const char *bench_mode_name(unsigned mode);
bool bench_parse_format(const char *text, bench_format *format);
/* Sets an option given as name=value. 0, or the code of rw_options_set. */
int bench_parse_setting(rw_options *options, const char *text);

#endif
