/* The table: a head, a line for each workload as it ends, then costs, distributions and a summary. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "bench/measure.h"
#include "bench/report_parts.h"
#include "bench/text.h"

static void durability_print(const bench_report *report)
{
    bool sync = false, async = false;
    for (unsigned i = 0; i < report->arguments->job_count; i++) {
        const bench_request *job = &report->arguments->jobs[i];
        if (!job->workload->writes) continue;
        sync |= job->sync;
        async |= !job->sync;
    }
    const rw_stats_t *s = report->opened;
    if (sync) puts("sync         each write returns when it is durable");
    if (sync || async) {
        printf("log          made durable %s", strcmp(s->log_sync, "dsync") == 0 ? "by writes with RWF_DSYNC" : "by fdatasync after its writes");
        if (s->log_fdatasync_ns != 0) printf(" (measured: write and fdatasync %s us", bench_text_us(s->log_fdatasync_ns));
        if (s->log_fdatasync_ns != 0 && s->log_dsync_ns != 0) printf(", RWF_DSYNC %s us)", bench_text_us(s->log_dsync_ns));
        else if (s->log_fdatasync_ns != 0) printf(", RWF_DSYNC not possible)");
        puts("");
    }
    if (async)
        printf("async        each write returns when it is visible, is durable within %u ms, and the clock stops when all are\n",
               report->arguments->options.async_delay_ms);
}

static void loop_print(const bench_report *report)
{
    double rate = report->arguments->job_count > 0 ? report->arguments->jobs[0].rate : 0;
    uint32_t in_flight = report->arguments->job_count > 0 ? report->arguments->jobs[0].in_flight : 0;
    if (in_flight > 0) printf("in flight    %u operations of each thread in workloads of gets and updates alone (q%u), by a queue\n", in_flight, in_flight);
    if (rate > 0) printf("loop         open: %s operations a second over all threads, latencies from the intended start\n", bench_text_count(rate));
    else puts("loop         closed: a thread begins an operation when its last one ended");
}

static void environment_print(const bench_environment *e)
{
    printf("directory    %s\n", e->directory);
    printf("file system  %s (%s) on %s%s%s%s%s\n", e->file_system, e->mount_options, e->device, e->device_model[0] != '\0' ? ", " : "",
           e->device_model, e->write_cache[0] != '\0' ? ", write cache: " : "", e->write_cache);
    if (e->memory_only) printf("             %s is memory: writes cost no device, and nothing here survives a power cut\n", e->file_system);
    printf("kernel       %s\n", e->kernel);
    printf("machine      %s, %u processors, %s\n", e->processor, e->cpus, bench_text_bytes(e->memory_bytes));
    printf("clock        %s, %.0f ns a reading\n", bench_clock_chosen.tsc ? "processor's counter" : "clock_gettime", bench_clock_chosen.reading_ns);
}

/* The column beside the throughput, in reports about transactions. */
static void aborted_print(const bench_report *report, const char *text)
{
    bool shown = false;
    for (unsigned i = 0; i < report->arguments->job_count; i++) shown |= report->arguments->jobs[i].workload->transactional;
    if (shown) printf(" %8s", text);
}

void bench_report_head(const bench_report *report)
{
    if (report->arguments->format != BENCH_TABLE) return;
    const bench_dataset *d = report->dataset;
    const rw_stats_t *s = report->opened;
    printf("records      %s, keys %u B (%s), values %u B, not compressible; %s in all\n", bench_text_count((double)d->records), d->key_size,
           d->hashed ? "hashed" : "numeric", d->value_size, bench_text_bytes(d->records * (d->key_size + d->value_size)));
    printf("cache        %s, page size %" PRIu64 ", %" PRIu64 " workers\n", bench_text_bytes(s->cache_bytes), s->page_size, s->workers);
    printf("io           %s%s%s\n", s->io_backend, s->io_backend_note[0] != '\0' ? ": " : "", s->io_backend_note);
    durability_print(report);
    loop_print(report);
    environment_print(report->environment);
    printf("seed         %" PRIu64 "\n\n", d->seed);
    printf("%-22s %7s %13s %9s %12s", "", "", "", "", "");
    aborted_print(report, "");
    printf("  %s\n", "latency, microseconds");
    printf("%-22s %7s %13s %9s %12s", "workload", "threads", "operations", "seconds", "per second");
    aborted_print(report, "aborted");
    for (unsigned i = 0; i < BENCH_PERCENTILES; i++) printf(" %8s", bench_percentiles[i].name);
    puts("");
    fflush(stdout);
}

static void latencies_print(const rw_histogram *histogram)
{
    for (unsigned i = 0; i < BENCH_PERCENTILES; i++) printf(" %8s", bench_text_us(rw_histogram_quantile(histogram, bench_percentiles[i].fraction)));
    puts("");
}

static void name_of(const bench_result *result, char *name, size_t room)
{
    const char *durability = bench_result_durability(result), *mode = bench_result_mode(result);
    char batch[32] = "";
    if (result->request.in_flight > 0) snprintf(batch, sizeof batch, " q%u", result->request.in_flight);
    if (result->request.batch > 1 && result->request.workload->batches) snprintf(batch, sizeof batch, " x%u", result->request.batch);
    snprintf(name, room, "%s%s%s%s%s%s", result->request.workload->name, mode[0] != '\0' ? " " : "", mode, batch, durability[0] != '\0' ? " " : "", durability);
}

/* The share of attempts at a transaction that had to be begun again, in percent. */
static const char *aborted_text(const bench_result *result)
{
    static char text[16];
    if (!result->request.workload->transactional) return "";
    snprintf(text, sizeof text, "%.3f%%", 100 * bench_result_abort_rate(result));
    return text;
}

void bench_report_workload(const bench_report *report)
{
    if (report->arguments->format != BENCH_TABLE) return;
    const bench_result *result = &report->results[report->count - 1];
    char name[64];
    name_of(result, name, sizeof name);
    printf("%-22s %7u %13s %9.2f %12s", name, result->request.threads, bench_text_count((double)result->operations), result->seconds,
           bench_text_count(bench_result_rate(result)));
    aborted_print(report, aborted_text(result));
    latencies_print(&result->all);
    for (int k = 0; k < BENCH_KINDS && bench_result_kinds(result) > 1; k++) {
        if (result->kinds[k].count == 0) continue;
        printf("  %-20s %7s %13s %9s %12s", bench_kind_names[k], "", bench_text_count((double)result->kinds[k].count), "", "");
        aborted_print(report, "");
        latencies_print(&result->kinds[k]);
    }
    if (result->behind > 0) printf("  %s operations that were due had not begun at the end\n", bench_text_count((double)result->behind));
    if (result->complaint[0] != '\0') printf("  %s\n", result->complaint);
    fflush(stdout);
}

static void distribution_print(const bench_result *result)
{
    char name[64];
    name_of(result, name, sizeof name);
    printf("\n%s: latency distribution\n%14s %12s %14s\n", name, "microseconds", "percentile", "operations");
    double count = (double)result->all.count;
    for (double fraction = 0; fraction < 1 && (1 - fraction) * count >= 1; fraction = bench_distribution_next(fraction))
        printf("%14s %12.6f %14.0f\n", bench_text_us(rw_histogram_quantile(&result->all, fraction)), 100 * fraction, fraction * count);
    printf("%14s %12.6f %14.0f\n", bench_text_us(result->all.max), 100.0, count);
}

static void series_print(const bench_result *result)
{
    char name[64];
    name_of(result, name, sizeof name);
    printf("\n%s: each second\n%8s %13s %10s %10s %10s\n", name, "second", "operations", "p50 us", "p99.9 us", "max us");
    for (uint32_t i = 0; i < result->series_count; i++)
        printf("%8u %13s %10s %10s %10s\n", i, bench_text_count((double)result->series[i].operations), bench_text_us(result->series[i].p50),
               bench_text_us(result->series[i].p999), bench_text_us(result->series[i].max));
}

static void costs_print(const bench_report *report)
{
    printf("\n%-22s %10s %11s %11s %11s %11s %10s %9s %9s\n", "for each operation", "page reads", "page writes", "bytes read", "B written", "log bytes",
           "log syncs", "CPU us", "errors");
    for (unsigned i = 0; i < report->count; i++) {
        const bench_result *result = &report->results[i];
        bench_costs c = bench_result_costs(result);
        char name[64];
        name_of(result, name, sizeof name);
        printf("%-22s %10.4f %11.4f %11.1f %11.1f %11.1f %10.4f %9.3f %9" PRIu64 "\n", name, c.page_reads, c.page_writes, c.read_bytes, c.write_bytes,
               c.log_bytes, c.log_syncs, c.cpu_us, bench_result_errors(result));
        if (result->request.workload->shares[BENCH_SCAN] > 0 && result->seconds > 0)
            printf("  %s records scanned a second\n", bench_text_count((double)result->scanned / result->seconds));
        if (bench_result_aborts(result) == 0) continue;
        printf("  %s transactions begun again", bench_text_count((double)bench_result_aborts(result)));
        for (int k = 0; k < BENCH_ABORTS; k++)
            if (result->aborts[k] > 0) printf(", %s %s", bench_text_count((double)result->aborts[k]), bench_abort_names[k]);
        puts("");
    }
}

static const bench_result *result_named(const bench_report *report, const char *name, bool sync)
{
    for (unsigned i = report->count; i-- > 0;) {
        const bench_result *result = &report->results[i];
        if (strcmp(result->request.workload->name, name) == 0 && (!result->request.workload->writes || result->request.sync == sync)) return result;
    }
    return NULL;
}

void bench_table_crash(const crash_result *crash)
{
    printf("  %u rounds, %u writers killed (%u while opening, %u while a checkpoint was written, %u while closing)\n", crash->rounds, crash->killed,
           crash->killed_opening, crash->killed_in_checkpoint, crash->killed_closing);
    printf("  %s acknowledged commits found again, %s records checked; recovery took %.1f ms in the median, %.1f ms at most\n",
           bench_text_count((double)crash->commits), bench_text_count((double)crash->records), crash->recovery_ms_median, crash->recovery_ms_max);
    if (crash->complaint[0] != '\0') printf("  %s\n", crash->complaint);
    printf("Crash recovery test: %s\n", bench_crash_verdict(crash));
}

/* The few lines that most readers came for. */
static void summary_print(const bench_report *report)
{
    const bench_result *writes = result_named(report, "fillrandom", false), *writes_sync = result_named(report, "fillrandom", true);
    const bench_result *durable = result_named(report, "overwrite", true), *reads = result_named(report, "readrandom", false);
    const bench_result *scans = result_named(report, "scan", false);
    puts("");
    if (writes == NULL) writes = writes_sync;
    if (writes != NULL) printf("Random writes:   %12s a second (%s)\n", bench_text_count(bench_result_rate(writes)), writes->request.sync ? "durable one by one" : "all durable at the end");
    if (durable != NULL) printf("Durable writes:  %12s a second (each durable when it returned, %u threads)\n", bench_text_count(bench_result_rate(durable)), durable->request.threads);
    if (reads != NULL) printf("Random reads:    %12s a second\n", bench_text_count(bench_result_rate(reads)));
    if (scans != NULL) printf("Range scans:     %12s a second (%u records each)\n", bench_text_count(bench_result_rate(scans)), scans->request.scan_length);
    if (report->crash != NULL) bench_table_crash(report->crash);
}

void bench_table_end(const bench_report *report)
{
    costs_print(report);
    for (unsigned i = 0; i < report->count && report->arguments->histogram; i++) distribution_print(&report->results[i]);
    for (unsigned i = 0; i < report->count; i++)
        if (report->results[i].series != NULL) series_print(&report->results[i]);
    const rw_stats_t *last = report->count > 0 ? &report->results[report->count - 1].after : NULL;
    printf("\nresident memory at most %s", bench_text_bytes(bench_resident_bytes_max()));
    if (last != NULL && last->page_size != 0)
        printf("; data file %s, of which %s alive; log %s", bench_text_bytes(last->data_file_bytes), bench_text_bytes(last->data_live_bytes), bench_text_bytes(last->log_file_bytes));
    puts("");
    if (report->arguments->standard_job || report->crash != NULL) summary_print(report);
    if (report->interrupted) puts("interrupted: what stands above is what was done until then");
}

