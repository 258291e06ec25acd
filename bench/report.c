#include "bench/report.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "base/base.h"
#include "bench/measure.h"

static const struct {
    const char *name;
    double fraction;
} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}, {"max", 1}};

static const char *const distribution_names[] = {[BENCH_UNIFORM] = "uniform", [BENCH_ZIPFIAN] = "zipfian", [BENCH_LATEST] = "latest"};

/* Costs of one operation. */
typedef struct {
    double page_reads, page_writes, read_bytes, write_bytes, log_bytes, log_syncs, cpu_us;
} operation_costs;

static operation_costs costs_of(const bench_result *result)
{
    const rw_stats_t *a = &result->before, *b = &result->after;
    double operations = result->operations == 0 ? 1 : (double)result->operations;
    if (b->page_size == 0) return (operation_costs){.cpu_us = result->cpu_us / operations}; /* it failed before its end */
    return (operation_costs){
        .page_reads = (double)(b->page_reads - a->page_reads) / operations,
        .page_writes = (double)(b->page_writes - a->page_writes) / operations,
        .read_bytes = (double)(b->page_read_bytes - a->page_read_bytes) / operations,
        .write_bytes = (double)(b->page_write_bytes - a->page_write_bytes) / operations,
        .log_bytes = (double)(b->log_write_bytes - a->log_write_bytes) / operations,
        .log_syncs = (double)(b->log_syncs - a->log_syncs) / operations,
        .cpu_us = result->cpu_us / operations,
    };
}

static double rate_of(const bench_result *result)
{
    return result->seconds > 0 ? (double)result->operations / result->seconds : 0;
}

static const char *durability_of(const bench_result *result)
{
    if (!result->request.workload->writes) return "";
    return result->request.sync ? "sync" : "async";
}

static uint64_t errors_of(const bench_result *result)
{
    return result->wrong + (result->code != 0);
}

/* A number of bytes in words, such as 256M. Four texts may be in use at once. */
static const char *bytes_text(uint64_t bytes)
{
    static char texts[4][32];
    static unsigned next;
    static const char units[] = " KMGTP";
    char *text = texts[next++ % RW_ARRAY_SIZE(texts)];
    double value = (double)bytes;
    unsigned unit = 0;
    for (; value >= 1024 && unit < 5; unit++) value /= 1024;
    if (unit == 0) snprintf(text, sizeof texts[0], "%" PRIu64 " B", bytes);
    else snprintf(text, sizeof texts[0], value < 10 && value != (double)(int)value ? "%.1f %ciB" : "%.0f %ciB", value, units[unit]);
    return text;
}

/* 1234567 as 1,234,567. Four texts may be in use at once. */
static const char *count_text(double count)
{
    static char texts[4][40];
    static unsigned next;
    char *text = texts[next++ % RW_ARRAY_SIZE(texts)], digits[32];
    int size = snprintf(digits, sizeof digits, "%.0f", count), at = 0;
    for (int i = 0; i < size; i++) {
        text[at++] = digits[i];
        if ((size - 1 - i) % 3 == 0 && i + 1 < size) text[at++] = ',';
    }
    text[at] = '\0';
    return text;
}

/* Microseconds, with as many digits as mean something. */
static const char *us_text(uint64_t ns)
{
    static char texts[8][24];
    static unsigned next;
    char *text = texts[next++ % RW_ARRAY_SIZE(texts)];
    double us = (double)ns / 1000;
    snprintf(text, sizeof texts[0], us < 10 ? "%.2f" : us < 100 ? "%.1f" : "%.0f", us);
    return text;
}

static void durability_print(const bench_report *report)
{
    bool sync = false, async = false;
    for (unsigned i = 0; i < report->arguments->job_count; i++) {
        const bench_request *job = &report->arguments->jobs[i];
        if (!job->workload->writes) continue;
        sync |= job->sync;
        async |= !job->sync;
    }
    if (sync) puts("sync         each write returns when it is durable");
    if (async)
        printf("async        each write returns when it is visible, is durable within %u ms, and the clock stops when all are\n",
               report->arguments->options.async_delay_ms);
}

static void environment_print(const bench_environment *e)
{
    printf("directory    %s\n", e->directory);
    printf("file system  %s (%s) on %s%s%s%s%s\n", e->file_system, e->mount_options, e->device, e->device_model[0] != '\0' ? ", " : "",
           e->device_model, e->write_cache[0] != '\0' ? ", write cache: " : "", e->write_cache);
    if (e->memory_only) printf("             %s is memory: writes cost no device, and nothing here survives a power cut\n", e->file_system);
    printf("kernel       %s\n", e->kernel);
    printf("machine      %s, %u processors, %s\n", e->processor, e->cpus, bytes_text(e->memory_bytes));
    printf("clock        %s, %.0f ns a reading\n", bench_clock_chosen.tsc ? "processor's counter" : "clock_gettime", bench_clock_chosen.reading_ns);
}

void bench_report_head(const bench_report *report)
{
    if (report->arguments->format != BENCH_TABLE) return;
    const bench_dataset *d = report->dataset;
    const rw_stats_t *s = report->opened;
    printf("records      %s, keys %u B (%s), values %u B, not compressible; %s in all\n", count_text((double)d->records), d->key_size,
           d->hashed ? "hashed" : "numeric", d->value_size, bytes_text(d->records * (d->key_size + d->value_size)));
    printf("cache        %s, page size %" PRIu64 ", %" PRIu64 " workers\n", bytes_text(s->cache_bytes), s->page_size, s->workers);
    printf("io           %s%s%s\n", s->io_backend, s->io_backend_note[0] != '\0' ? ": " : "", s->io_backend_note);
    durability_print(report);
    environment_print(report->environment);
    printf("seed         %" PRIu64 "\n\n", d->seed);
    printf("%-22s %7s %13s %9s %12s  %s\n", "", "", "", "", "", "latency, microseconds");
    printf("%-22s %7s %13s %9s %12s", "workload", "threads", "operations", "seconds", "per second");
    for (unsigned i = 0; i < RW_ARRAY_SIZE(percentiles); i++) printf(" %8s", percentiles[i].name);
    puts("");
    fflush(stdout);
}

static void latencies_print(const rw_histogram *histogram)
{
    for (unsigned i = 0; i < RW_ARRAY_SIZE(percentiles); i++) printf(" %8s", us_text(rw_histogram_quantile(histogram, percentiles[i].fraction)));
    puts("");
}

static void name_of(const bench_result *result, char *name, size_t room)
{
    const char *durability = durability_of(result);
    char batch[32] = "";
    if (result->request.batch > 1 && result->request.workload->batches) snprintf(batch, sizeof batch, " x%u", result->request.batch);
    snprintf(name, room, "%s%s%s%s", result->request.workload->name, batch, durability[0] != '\0' ? " " : "", durability);
}

static unsigned kinds_of(const bench_result *result)
{
    unsigned kinds = 0;
    for (int k = 0; k < BENCH_KINDS; k++) kinds += result->kinds[k].count > 0;
    return kinds;
}

void bench_report_workload(const bench_report *report)
{
    if (report->arguments->format != BENCH_TABLE) return;
    const bench_result *result = &report->results[report->count - 1];
    char name[64];
    name_of(result, name, sizeof name);
    printf("%-22s %7u %13s %9.2f %12s", name, result->request.threads, count_text((double)result->operations), result->seconds,
           count_text(rate_of(result)));
    latencies_print(&result->all);
    for (int k = 0; k < BENCH_KINDS && kinds_of(result) > 1; k++) {
        if (result->kinds[k].count == 0) continue;
        printf("  %-20s %7s %13s %9s %12s", bench_kind_names[k], "", count_text((double)result->kinds[k].count), "", "");
        latencies_print(&result->kinds[k]);
    }
    if (result->complaint[0] != '\0') printf("  %s\n", result->complaint);
    fflush(stdout);
}

/* Steps halve what is left to 100%, as HdrHistogram prints them; five to each half. */
static double distribution_next(double fraction)
{
    return fraction + (1 - fraction) * 0.129449436703876; /* 1 - 2^(-1/5) */
}

static void distribution_print(const bench_result *result)
{
    char name[64];
    name_of(result, name, sizeof name);
    printf("\n%s: latency distribution\n%14s %12s %14s\n", name, "microseconds", "percentile", "operations");
    double count = (double)result->all.count;
    for (double fraction = 0; fraction < 1 && (1 - fraction) * count >= 1; fraction = distribution_next(fraction))
        printf("%14s %12.6f %14.0f\n", us_text(rw_histogram_quantile(&result->all, fraction)), 100 * fraction, fraction * count);
    printf("%14s %12.6f %14.0f\n", us_text(result->all.max), 100.0, count);
}

static void costs_print(const bench_report *report)
{
    printf("\n%-22s %10s %11s %11s %11s %11s %10s %9s %9s\n", "for each operation", "page reads", "page writes", "bytes read", "B written", "log bytes",
           "log syncs", "CPU us", "errors");
    for (unsigned i = 0; i < report->count; i++) {
        const bench_result *result = &report->results[i];
        operation_costs c = costs_of(result);
        char name[64];
        name_of(result, name, sizeof name);
        printf("%-22s %10.4f %11.4f %11.1f %11.1f %11.1f %10.4f %9.3f %9" PRIu64 "\n", name, c.page_reads, c.page_writes, c.read_bytes, c.write_bytes,
               c.log_bytes, c.log_syncs, c.cpu_us, errors_of(result));
        if (result->request.workload->shares[BENCH_SCAN] > 0 && result->seconds > 0)
            printf("  %s records scanned a second\n", count_text((double)result->scanned / result->seconds));
        if (result->conflicts > 0) printf("  %s transactions begun again after a conflict\n", count_text((double)result->conflicts));
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

static void crash_print(const crash_result *crash)
{
    printf("  %u rounds, %u writers killed (%u while opening, %u while a checkpoint was written, %u while closing)\n", crash->rounds, crash->killed,
           crash->killed_opening, crash->killed_in_checkpoint, crash->killed_closing);
    printf("  %s acknowledged commits found again, %s records checked; recovery took %.1f ms in the median, %.1f ms at most\n",
           count_text((double)crash->commits), count_text((double)crash->records), crash->recovery_ms_median, crash->recovery_ms_max);
    if (crash->complaint[0] != '\0') printf("  %s\n", crash->complaint);
    printf("Crash recovery test: %s\n", crash->passed ? "PASSED" : "FAILED");
}

/* The few lines that most readers came for. */
static void summary_print(const bench_report *report)
{
    const bench_result *writes = result_named(report, "fillrandom", false), *writes_sync = result_named(report, "fillrandom", true);
    const bench_result *durable = result_named(report, "overwrite", true), *reads = result_named(report, "readrandom", false);
    const bench_result *scans = result_named(report, "scan", false);
    puts("");
    if (writes == NULL) writes = writes_sync;
    if (writes != NULL) printf("Random writes:   %12s a second (%s)\n", count_text(rate_of(writes)), writes->request.sync ? "durable one by one" : "all durable at the end");
    if (durable != NULL) printf("Durable writes:  %12s a second (each durable when it returned, %u threads)\n", count_text(rate_of(durable)), durable->request.threads);
    if (reads != NULL) printf("Random reads:    %12s a second\n", count_text(rate_of(reads)));
    if (scans != NULL) printf("Range scans:     %12s a second (%u records each)\n", count_text(rate_of(scans)), scans->request.scan_length);
    if (report->crash != NULL) crash_print(report->crash);
}

static void end_table(const bench_report *report)
{
    costs_print(report);
    for (unsigned i = 0; i < report->count && report->arguments->histogram; i++) distribution_print(&report->results[i]);
    const rw_stats_t *last = report->count > 0 ? &report->results[report->count - 1].after : NULL;
    printf("\nresident memory at most %s", bytes_text(bench_resident_bytes_max()));
    if (last != NULL && last->page_size != 0)
        printf("; data file %s, of which %s alive; log %s", bytes_text(last->data_file_bytes), bytes_text(last->data_live_bytes), bytes_text(last->log_file_bytes));
    puts("");
    if (report->arguments->standard_job || report->crash != NULL) summary_print(report);
    if (report->interrupted) puts("interrupted: what stands above is what was done until then");
}

static json_t *latency_json(const rw_histogram *histogram)
{
    json_t *object = json_object();
    json_object_set_new(object, "mean", json_real(rw_histogram_mean(histogram) / 1000));
    for (unsigned i = 0; i < RW_ARRAY_SIZE(percentiles); i++)
        json_object_set_new(object, percentiles[i].name, json_real((double)rw_histogram_quantile(histogram, percentiles[i].fraction) / 1000));
    return object;
}

static json_t *distribution_json(const rw_histogram *histogram)
{
    json_t *array = json_array();
    double count = (double)histogram->count;
    for (double fraction = 0; fraction < 1 && (1 - fraction) * count >= 1; fraction = distribution_next(fraction))
        json_array_append_new(array, json_pack("[f, f]", fraction, (double)rw_histogram_quantile(histogram, fraction) / 1000));
    json_array_append_new(array, json_pack("[f, f]", 1.0, (double)histogram->max / 1000));
    return array;
}

static json_t *result_json(const bench_result *result, bool histogram)
{
    const bench_request *request = &result->request;
    operation_costs c = costs_of(result);
    json_t *object = json_pack("{s:s, s:i, s:I, s:f, s:f, s:I}", "workload", request->workload->name, "threads", (int)request->threads, "operations",
                               (json_int_t)result->operations, "seconds", result->seconds, "operations_per_second", rate_of(result), "errors",
                               (json_int_t)errors_of(result));
    if (request->workload->writes) {
        json_object_set_new(object, "durability", json_string(durability_of(result)));
        json_object_set_new(object, "flush_seconds", json_real(result->flush_seconds));
    }
    if (request->workload->batches) json_object_set_new(object, "batch", json_integer((json_int_t)request->batch));
    if (result->draws) json_object_set_new(object, "distribution", json_string(distribution_names[result->distribution]));
    json_object_set_new(object, "latency_us", latency_json(&result->all));
    for (int k = 0; k < BENCH_KINDS && kinds_of(result) > 1; k++) {
        if (result->kinds[k].count == 0) continue;
        char name[40];
        snprintf(name, sizeof name, "%s_latency_us", bench_kind_names[k]);
        json_object_set_new(object, name, latency_json(&result->kinds[k]));
    }
    json_object_set_new(object, "for_each_operation",
                        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "page_reads", c.page_reads, "page_writes", c.page_writes, "page_read_bytes",
                                  c.read_bytes, "page_write_bytes", c.write_bytes, "log_bytes", c.log_bytes, "log_syncs", c.log_syncs, "cpu_us", c.cpu_us));
    if (request->workload->shares[BENCH_SCAN] > 0) json_object_set_new(object, "records_scanned", json_integer((json_int_t)result->scanned));
    if (request->workload->shares[BENCH_MODIFY] > 0) json_object_set_new(object, "conflicts", json_integer((json_int_t)result->conflicts));
    if (histogram) json_object_set_new(object, "latency_distribution_us", distribution_json(&result->all));
    if (result->complaint[0] != '\0') json_object_set_new(object, "complaint", json_string(result->complaint));
    return object;
}

static json_t *crash_json(const crash_result *crash)
{
    json_t *object = json_pack("{s:b, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:f, s:f}", "passed", (int)crash->passed, "rounds", (int)crash->rounds, "killed",
                               (int)crash->killed, "killed_opening", (int)crash->killed_opening, "killed_in_checkpoint", (int)crash->killed_in_checkpoint,
                               "killed_closing", (int)crash->killed_closing, "commits", (json_int_t)crash->commits, "records_checked",
                               (json_int_t)crash->records, "recovery_ms_median", crash->recovery_ms_median, "recovery_ms_max", crash->recovery_ms_max);
    if (crash->complaint[0] != '\0') json_object_set_new(object, "complaint", json_string(crash->complaint));
    return object;
}

static json_t *environment_json(const bench_environment *e)
{
    return json_pack("{s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:f}", "kernel", e->kernel, "processor", e->processor, "processors", (int)e->cpus,
                     "memory_bytes", (json_int_t)e->memory_bytes, "directory", e->directory, "file_system", e->file_system, "mount_options",
                     e->mount_options, "device", e->device, "device_model", e->device_model, "write_cache", e->write_cache, "clock",
                     bench_clock_chosen.tsc ? "tsc" : "clock_gettime", "clock_reading_ns", bench_clock_chosen.reading_ns);
}

static json_t *settings_json(const bench_report *report)
{
    const bench_dataset *d = report->dataset;
    const rw_stats_t *s = report->opened;
    return json_pack("{s:I, s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:i}", "records", (json_int_t)d->records, "key_size", (int)d->key_size, "value_size",
                     (int)d->value_size, "keys", d->hashed ? "hashed" : "numeric", "seed", (json_int_t)d->seed, "cache_bytes", (json_int_t)s->cache_bytes,
                     "page_size", (json_int_t)s->page_size, "workers", (json_int_t)s->workers, "io_backend", s->io_backend, "io_backend_note",
                     s->io_backend_note, "async_delay_ms", (int)report->arguments->options.async_delay_ms);
}

static void json_print(json_t *root)
{
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
}

static void end_json(const bench_report *report)
{
    json_t *root = json_object(), *workloads = json_array();
    json_object_set_new(root, "settings", settings_json(report));
    json_object_set_new(root, "environment", environment_json(report->environment));
    for (unsigned i = 0; i < report->count; i++) json_array_append_new(workloads, result_json(&report->results[i], report->arguments->histogram));
    json_object_set_new(root, "workloads", workloads);
    if (report->count > 0) {
        const rw_stats_t *last = &report->results[report->count - 1].after;
        json_object_set_new(root, "space", json_pack("{s:I, s:I, s:I}", "data_file_bytes", (json_int_t)last->data_file_bytes, "data_live_bytes",
                                                     (json_int_t)last->data_live_bytes, "log_file_bytes", (json_int_t)last->log_file_bytes));
    }
    json_object_set_new(root, "resident_bytes_max", json_integer((json_int_t)bench_resident_bytes_max()));
    if (report->crash != NULL) json_object_set_new(root, "crash_recovery_test", crash_json(report->crash));
    json_object_set_new(root, "interrupted", json_boolean(report->interrupted));
    json_print(root);
}

static void end_csv(const bench_report *report)
{
    const bench_dataset *d = report->dataset;
    const rw_stats_t *s = report->opened;
    fputs("workload,threads,durability,batch,records,key_size,value_size,cache_bytes,page_size,workers,io_backend,file_system,kernel,"
          "operations,seconds,operations_per_second",
          stdout);
    for (unsigned i = 0; i < RW_ARRAY_SIZE(percentiles); i++) printf(",%s_us", percentiles[i].name);
    fputs(",page_reads_per_op,page_writes_per_op,page_read_bytes_per_op,page_write_bytes_per_op,log_bytes_per_op,log_syncs_per_op,cpu_us_per_op,errors\n", stdout);
    for (unsigned i = 0; i < report->count; i++) {
        const bench_result *r = &report->results[i];
        operation_costs c = costs_of(r);
        printf("%s,%u,%s,%u,%" PRIu64 ",%u,%u,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s,%s,\"%s\",%" PRIu64 ",%.6f,%.1f", r->request.workload->name,
               r->request.threads, durability_of(r), r->request.workload->batches ? r->request.batch : 1, d->records, d->key_size, d->value_size,
               s->cache_bytes, s->page_size, s->workers, s->io_backend, report->environment->file_system, report->environment->kernel, r->operations,
               r->seconds, rate_of(r));
        for (unsigned p = 0; p < RW_ARRAY_SIZE(percentiles); p++)
            printf(",%.3f", (double)rw_histogram_quantile(&r->all, percentiles[p].fraction) / 1000);
        printf(",%.6f,%.6f,%.3f,%.3f,%.3f,%.6f,%.4f,%" PRIu64 "\n", c.page_reads, c.page_writes, c.read_bytes, c.write_bytes, c.log_bytes, c.log_syncs,
               c.cpu_us, errors_of(r));
    }
}

static void crash_csv(const crash_result *crash)
{
    puts("crash_recovery_test,rounds,killed,killed_opening,killed_in_checkpoint,killed_closing,commits,records_checked,recovery_ms_median,recovery_ms_max");
    printf("%s,%u,%u,%u,%u,%u,%" PRIu64 ",%" PRIu64 ",%.3f,%.3f\n", crash->passed ? "PASSED" : "FAILED", crash->rounds, crash->killed,
           crash->killed_opening, crash->killed_in_checkpoint, crash->killed_closing, crash->commits, crash->records, crash->recovery_ms_median,
           crash->recovery_ms_max);
}

void bench_report_end(const bench_report *report)
{
    switch (report->arguments->format) {
    case BENCH_TABLE: end_table(report); break;
    case BENCH_JSON: end_json(report); break;
    case BENCH_CSV:
        end_csv(report);
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
        crash_print(result);
        break;
    case BENCH_JSON: {
        json_t *object = crash_json(result);
        json_object_set_new(object, "seed", json_integer((json_int_t)request->seed));
        json_print(object);
        break;
    }
    case BENCH_CSV: crash_csv(result); break;
    }
}
