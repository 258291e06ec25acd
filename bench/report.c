#include "bench/report.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/base.h"
#include "bench/bench.h"
#include "bench/report_parts.h"

bench_costs bench_result_costs(const bench_result *result)
{
    const rw_stats_t *a = &result->before, *b = &result->after;
    double operations = result->operations == 0 ? 1 : (double)result->operations;
    if (b->page_size == 0) return (bench_costs){.cpu_us = result->cpu_us / operations}; /* it failed before its end */
    return (bench_costs){
        .page_reads = (double)(b->page_reads - a->page_reads) / operations,
        .page_writes = (double)(b->page_writes - a->page_writes) / operations,
        .read_bytes = (double)(b->page_read_bytes - a->page_read_bytes) / operations,
        .write_bytes = (double)(b->page_write_bytes - a->page_write_bytes) / operations,
        .log_bytes = (double)(b->log_write_bytes - a->log_write_bytes) / operations,
        .log_syncs = (double)(b->log_syncs - a->log_syncs) / operations,
        .cpu_us = result->cpu_us / operations,
    };
}

double bench_result_rate(const bench_result *result)
{
    return result->seconds > 0 ? (double)result->operations / result->seconds : 0;
}

const char *bench_result_durability(const bench_result *result)
{
    if (!result->request.workload->writes) return "";
    return result->request.sync ? "sync" : "async";
}

uint64_t bench_result_errors(const bench_result *result)
{
    return result->wrong + (result->code != 0);
}

uint64_t bench_result_aborts(const bench_result *result)
{
    uint64_t sum = 0;
    for (int i = 0; i < BENCH_ABORTS; i++) sum += result->aborts[i];
    return sum;
}

double bench_result_abort_rate(const bench_result *result)
{
    uint64_t aborts = bench_result_aborts(result);
    return aborts == 0 ? 0 : (double)aborts / (double)(aborts + result->transactions);
}

const char *bench_result_mode(const bench_result *result)
{
    return result->request.workload->shares[BENCH_TRANSACTION] > 0 ? bench_mode_name(result->request.txn_mode) : "";
}

unsigned bench_result_kinds(const bench_result *result)
{
    unsigned kinds = 0;
    for (int k = 0; k < BENCH_KINDS; k++) kinds += result->kinds[k].count > 0;
    return kinds;
}

static void series_csv(const bench_report *report)
{
    puts("\nworkload,threads,durability,second,operations,p50_us,p99.9_us,max_us");
    for (unsigned i = 0; i < report->count; i++) {
        const bench_result *r = &report->results[i];
        for (uint32_t k = 0; k < r->series_count; k++)
            printf("%s,%u,%s,%u,%" PRIu64 ",%.3f,%.3f,%.3f\n", r->request.workload->name, r->request.threads, bench_result_durability(r), k, r->series[k].operations,
                   (double)r->series[k].p50 / 1000, (double)r->series[k].p999 / 1000, (double)r->series[k].max / 1000);
    }
}

static void end_csv(const bench_report *report)
{
    const bench_dataset *d = report->dataset;
    const rw_stats_t *s = report->opened;
    fputs("workload,threads,durability,batch,records,key_size,value_size,cache_bytes,page_size,workers,io_backend,log_sync,file_system,kernel,"
          "operations,seconds,operations_per_second,rate,behind,txn_mode,aborts,abort_rate",
          stdout);
    for (unsigned i = 0; i < BENCH_PERCENTILES; i++) printf(",%s_us", bench_percentiles[i].name);
    fputs(",page_reads_per_op,page_writes_per_op,page_read_bytes_per_op,page_write_bytes_per_op,log_bytes_per_op,log_syncs_per_op,cpu_us_per_op,errors,in_flight\n", stdout);
    for (unsigned i = 0; i < report->count; i++) {
        const bench_result *r = &report->results[i];
        bench_costs c = bench_result_costs(r);
        printf("%s,%u,%s,%u,%" PRIu64 ",%u,%u,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s,%s,%s,\"%s\",%" PRIu64 ",%.6f,%.1f,%.1f,%" PRIu64 ",%s,%" PRIu64 ",%.6f", r->request.workload->name,
               r->request.threads, bench_result_durability(r), r->request.workload->batches ? r->request.batch : 1, d->records, d->key_size, d->value_size,
               s->cache_bytes, s->page_size, s->workers, s->io_backend, s->log_sync, report->environment->file_system, report->environment->kernel, r->operations,
               r->seconds, bench_result_rate(r), r->paced ? r->request.rate : 0, r->behind, bench_result_mode(r), bench_result_aborts(r), bench_result_abort_rate(r));
        for (unsigned p = 0; p < BENCH_PERCENTILES; p++)
            printf(",%.3f", (double)rw_histogram_quantile(&r->all, bench_percentiles[p].fraction) / 1000);
        printf(",%.6f,%.6f,%.3f,%.3f,%.3f,%.6f,%.4f,%" PRIu64 ",%u\n", c.page_reads, c.page_writes, c.read_bytes, c.write_bytes, c.log_bytes, c.log_syncs,
               c.cpu_us, bench_result_errors(r), r->request.in_flight);
    }
}

const char *bench_crash_verdict(const crash_result *crash)
{
    if (crash->passed) return "PASSED";
    return crash->exit_code == BENCH_EXIT_INTERRUPTED ? "INTERRUPTED" : "FAILED";
}

static void crash_csv(const crash_result *crash)
{
    puts("crash_recovery_test,rounds,killed,killed_opening,killed_in_checkpoint,killed_closing,commits,records_checked,recovery_ms_median,recovery_ms_max");
    printf("%s,%u,%u,%u,%u,%u,%" PRIu64 ",%" PRIu64 ",%.3f,%.3f\n", bench_crash_verdict(crash), crash->rounds, crash->killed,
           crash->killed_opening, crash->killed_in_checkpoint, crash->killed_closing, crash->commits, crash->records, crash->recovery_ms_median,
           crash->recovery_ms_max);
}

void bench_report_end(const bench_report *report)
{
    switch (report->arguments->format) {
    case BENCH_TABLE: bench_table_end(report); break;
    case BENCH_JSON: bench_json_end(report); break;
    case BENCH_CSV:
        end_csv(report);
        if (report->count > 0 && report->results[0].series != NULL) series_csv(report);
        if (report->crash != NULL) {
            puts("");
            crash_csv(report->crash);
        }
        break;
    }
}

void bench_report_crash(bench_format format, const crash_request *request, const crash_result *result)
{
    switch (format) {
    case BENCH_TABLE:
        printf("seed %" PRIu64 "\n", request->seed);
        bench_table_crash(result);
        break;
    case BENCH_JSON: bench_json_crash(request, result); break;
    case BENCH_CSV: crash_csv(result); break;
    }
}
