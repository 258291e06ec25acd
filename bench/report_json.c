/* JSON: settings, environment, workloads, space, crash test. */
#include <jansson.h>
#include <stdio.h>

#include "bench/measure.h"
#include "bench/report_parts.h"

static const char *const distribution_names[] = {[BENCH_UNIFORM] = "uniform", [BENCH_ZIPFIAN] = "zipfian", [BENCH_LATEST] = "latest"};

static json_t *latency_json(const rw_histogram *histogram)
{
    json_t *object = json_object();
    json_object_set_new(object, "mean", json_real(rw_histogram_mean(histogram) / 1000));
    for (unsigned i = 0; i < BENCH_PERCENTILES; i++)
        json_object_set_new(object, bench_percentiles[i].name, json_real((double)rw_histogram_quantile(histogram, bench_percentiles[i].fraction) / 1000));
    return object;
}

static json_t *distribution_json(const rw_histogram *histogram)
{
    json_t *array = json_array();
    double count = (double)histogram->count;
    for (double fraction = 0; fraction < 1 && (1 - fraction) * count >= 1; fraction = bench_distribution_next(fraction))
        json_array_append_new(array, json_pack("[f, f]", fraction, (double)rw_histogram_quantile(histogram, fraction) / 1000));
    json_array_append_new(array, json_pack("[f, f]", 1.0, (double)histogram->max / 1000));
    return array;
}

static json_t *transactions_json(const bench_result *result)
{
    json_t *object = json_pack("{s:I, s:f}", "aborts", (json_int_t)bench_result_aborts(result), "abort_rate", bench_result_abort_rate(result));
    for (int i = 0; i < BENCH_ABORTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s", bench_abort_names[i]);
        for (char *p = name; *p != '\0'; p++) *p = *p == ' ' ? '_' : *p;
        json_object_set_new(object, name, json_integer((json_int_t)result->aborts[i]));
    }
    if (result->request.workload->shares[BENCH_TRANSACTION] == 0) return object;
    json_object_set_new(object, "txn_mode", json_string(bench_result_mode(result)));
    json_object_set_new(object, "txn_reads", json_integer((json_int_t)result->request.txn_reads));
    json_object_set_new(object, "txn_writes", json_integer((json_int_t)result->request.txn_writes));
    return object;
}

static json_t *series_json(const bench_result *result)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < result->series_count; i++) {
        const bench_second *s = &result->series[i];
        json_array_append_new(array, json_pack("{s:i, s:I, s:f, s:f, s:f}", "second", (int)i, "operations", (json_int_t)s->operations, "p50_us", (double)s->p50 / 1000,
                                               "p99.9_us", (double)s->p999 / 1000, "max_us", (double)s->max / 1000));
    }
    return array;
}

static json_t *result_json(const bench_result *result, bool histogram)
{
    const bench_request *request = &result->request;
    bench_costs c = bench_result_costs(result);
    json_t *object = json_pack("{s:s, s:i, s:I, s:f, s:f, s:I}", "workload", request->workload->name, "threads", (int)request->threads, "operations",
                               (json_int_t)result->operations, "seconds", result->seconds, "operations_per_second", bench_result_rate(result), "errors",
                               (json_int_t)bench_result_errors(result));
    if (request->workload->transactional) json_object_update_missing_new(object, transactions_json(result));
    if (request->workload->writes) {
        json_object_set_new(object, "durability", json_string(bench_result_durability(result)));
        json_object_set_new(object, "flush_seconds", json_real(result->flush_seconds));
    }
    if (request->workload->batches) json_object_set_new(object, "batch", json_integer((json_int_t)request->batch));
    if (request->in_flight > 0) json_object_set_new(object, "in_flight", json_integer((json_int_t)request->in_flight));
    if (result->draws) json_object_set_new(object, "distribution", json_string(distribution_names[result->distribution]));
    json_object_set_new(object, "latency_us", latency_json(&result->all));
    for (int k = 0; k < BENCH_KINDS && bench_result_kinds(result) > 1; k++) {
        if (result->kinds[k].count == 0) continue;
        char name[40];
        snprintf(name, sizeof name, "%s_latency_us", bench_kind_names[k]);
        json_object_set_new(object, name, latency_json(&result->kinds[k]));
    }
    json_object_set_new(object, "for_each_operation",
                        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "page_reads", c.page_reads, "page_writes", c.page_writes, "page_read_bytes",
                                  c.read_bytes, "page_write_bytes", c.write_bytes, "log_bytes", c.log_bytes, "log_syncs", c.log_syncs, "cpu_us", c.cpu_us));
    if (request->workload->shares[BENCH_SCAN] > 0) json_object_set_new(object, "records_scanned", json_integer((json_int_t)result->scanned));
    json_object_set_new(object, "loop", json_string(result->paced ? "open" : "closed"));
    if (result->paced) {
        json_object_set_new(object, "rate", json_real(request->rate));
        json_object_set_new(object, "behind", json_integer((json_int_t)result->behind));
    }
    if (result->series != NULL) json_object_set_new(object, "series", series_json(result));
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
    return json_pack("{s:I, s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:i, s:s, s:I, s:I}", "records", (json_int_t)d->records, "key_size", (int)d->key_size, "value_size",
                     (int)d->value_size, "keys", d->hashed ? "hashed" : "numeric", "seed", (json_int_t)d->seed, "cache_bytes", (json_int_t)s->cache_bytes,
                     "page_size", (json_int_t)s->page_size, "workers", (json_int_t)s->workers, "io_backend", s->io_backend, "io_backend_note",
                     s->io_backend_note, "async_delay_ms", (int)report->arguments->options.async_delay_ms, "log_sync", s->log_sync,
                     "log_fdatasync_ns", (json_int_t)s->log_fdatasync_ns, "log_dsync_ns", (json_int_t)s->log_dsync_ns);
}

static void json_print(json_t *root)
{
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
}

void bench_json_end(const bench_report *report)
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

void bench_json_crash(const crash_request *request, const crash_result *result)
{
    json_t *object = crash_json(result);
    json_object_set_new(object, "seed", json_integer((json_int_t)request->seed));
    json_print(object);
}
