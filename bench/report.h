/* How a benchmark's results are said: a table that grows line by line, or JSON or CSV at the end. All of it on stdout. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench/arguments.h"
#include "bench/crash.h"
#include "bench/dataset.h"
#include "bench/environment.h"
#include "bench/workload.h"

typedef struct {
    const bench_arguments *arguments;
    const bench_dataset *dataset;
    const bench_environment *environment;
    const rw_stats_t *opened;          /* right after rw_open: what is in effect */
    const bench_result *results;       /* of the workloads run so far */
    unsigned count;
    const crash_result *crash;         /* NULL: not run */
    bool interrupted;
} bench_report;

/* Table: what is run, on what. Nothing for the other formats. */
void bench_report_head(const bench_report *report);
/* Table: the line of the newest result. */
void bench_report_workload(const bench_report *report);
/* Table: costs, distributions, summary. JSON, CSV: everything. */
void bench_report_end(const bench_report *report);
/* The crash test alone. */
void bench_report_crash(bench_format format, const crash_request *request, const crash_result *result);

#endif
