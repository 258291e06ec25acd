/* What the kinds of report share. Private to bench/report*.c. */
#ifndef BENCH_REPORT_PARTS_H
#define BENCH_REPORT_PARTS_H

#include "bench/percentiles.h"
#include "bench/report.h"

/* Costs of one operation. */
typedef struct {
    double page_reads, page_writes, read_bytes, write_bytes, log_bytes, log_syncs, cpu_us;
} bench_costs;

bench_costs bench_result_costs(const bench_result *result);
double bench_result_rate(const bench_result *result);          /* operations a second */
const char *bench_result_durability(const bench_result *result); /* empty when it did not write */
uint64_t bench_result_errors(const bench_result *result);
uint64_t bench_result_aborts(const bench_result *result);       /* transactions begun again */
double bench_result_abort_rate(const bench_result *result);     /* of all attempts at a transaction */
/* The mode of a workload whose mode is asked for; empty for others. */
const char *bench_result_mode(const bench_result *result);
unsigned bench_result_kinds(const bench_result *result);       /* kinds of operations that it did */

const char *bench_crash_verdict(const crash_result *crash);

void bench_table_end(const bench_report *report);
void bench_table_crash(const crash_result *crash);
void bench_json_end(const bench_report *report);
void bench_json_crash(const crash_request *request, const crash_result *result);

#endif
