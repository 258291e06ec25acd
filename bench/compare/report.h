/* How a comparison is said: a table, JSON or CSV on stdout; a page of HTML in a file. */
#ifndef BENCH_COMPARE_REPORT_H
#define BENCH_COMPARE_REPORT_H

#include <stdio.h>

#include "bench/compare/results.h"
#include "bench/environment.h"
#include "bench/percentiles.h"

typedef struct {
    const compare_results *results;
    const bench_environment *environment;
    bool interrupted;
} compare_report;

void compare_report_table(const compare_report *report, FILE *out);
void compare_report_json(const compare_report *report, FILE *out);
void compare_report_csv(const compare_report *report, FILE *out);
void compare_report_html(const compare_report *report, FILE *out);

/* What the reports share. */

/* The summary of a workload, in memory that the next call uses again. */
const compare_summary *compare_report_summary(const compare_report *report, unsigned stage, unsigned engine, unsigned workload);
/* The load is in each stage; it is shown only when it was asked for. */
bool compare_report_shows(const compare_stage *stage, unsigned workload);
/* Whether the engine has any part in the stage: fio only where a workload stands beside it. */
bool compare_report_takes_part(const compare_stage *stage, const compare_adapter *adapter);
/* In a stage with direct I/O: this engine reads through the kernel's page cache all the same. */
bool compare_report_is_unlimited(const compare_stage *stage, const compare_adapter *adapter);
/* Measurements of workloads that only read in which others took more than a tenth of a processor: how many, and of how many. Without writes there is nothing that the
 * kernel's threads would do for an engine, so the machine was not quiet. */
unsigned compare_report_disturbed(const compare_report *report, unsigned *total);
/* Engines that failed: how many complaints there are, and each. */
unsigned compare_report_complaints(const compare_report *report);
const char *compare_report_complaint(const compare_report *report, unsigned index);

#endif
