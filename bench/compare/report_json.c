/* JSON: environment, engines, and for each set and workload each engine with its summary and its rounds. */
#include <jansson.h>

#include "bench/compare/report.h"
#include "bench/measure.h"

static json_t *environment_json(const bench_environment *e)
{
    return json_pack("{s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:f}", "kernel", e->kernel, "processor", e->processor, "processors", (int)e->cpus,
                     "memory_bytes", (json_int_t)e->memory_bytes, "directory", e->directory, "file_system", e->file_system, "mount_options",
                     e->mount_options, "device", e->device, "device_model", e->device_model, "write_cache", e->write_cache, "clock",
                     bench_clock_chosen.tsc ? "tsc" : "clock_gettime", "clock_reading_ns", bench_clock_chosen.reading_ns);
}

static json_t *engines_json(const compare_results *results)
{
    const compare_plan *plan = results->plan;
    json_t *array = json_array();
    for (unsigned i = 0; i < plan->engine_count; i++) {
        const compare_adapter *a = plan->engines[i];
        char version[COMPARE_TEXT];
        a->version(version);
        if (a->yardstick) {
            json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:b}", "name", a->name, "title", a->title, "version", version, "yardstick", 1));
            continue;
        }
        json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "name", a->name, "title", a->title, "version", version, "async",
                                               a->async_words, "durable", a->durable_words, "memory", a->memory_words, "read_modify_write",
                                               a->modify_words, "multi_get", a->multi_get != NULL ? a->multi_get_words : "single gets",
                                               "in_flight", a->submit != NULL ? a->in_flight_words : "threads", "sync_way",
                                               compare_results_sync_way(results, i)));
    }
    return array;
}

static json_t *spread_json(const compare_spread *spread)
{
    if (spread->count == 0) return json_null();
    return json_pack("{s:f, s:f, s:f}", "median", spread->median, "min", spread->min, "max", spread->max);
}

static json_t *latency_json(const rw_histogram *histogram)
{
    if (histogram->count == 0) return json_null();
    json_t *object = json_pack("{s:f}", "mean", rw_histogram_mean(histogram) / 1000);
    for (unsigned i = 0; i < BENCH_PERCENTILES; i++)
        json_object_set_new(object, bench_percentiles[i].name, json_real((double)rw_histogram_quantile(histogram, bench_percentiles[i].fraction) / 1000));
    return object;
}

static json_t *series_json(const compare_measurement *m)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < m->series_count; i++)
        json_array_append_new(array, json_pack("{s:i, s:I, s:f, s:f, s:f}", "second", (int)i, "operations", (json_int_t)m->series[i].operations, "p50_us",
                                               (double)m->series[i].p50 / 1000, "p99.9_us", (double)m->series[i].p999 / 1000, "max_us",
                                               (double)m->series[i].max / 1000));
    return array;
}

static json_t *round_json(const compare_measurement *m, unsigned round, bool series)
{
    json_t *object = json_pack("{s:i, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:b, s:I}", "round", (int)round + 1, "operations", (json_int_t)m->operations,
                               "seconds", m->seconds, "operations_per_second", compare_measurement_rate(m), "puts", (json_int_t)m->puts, "write_bytes",
                               (json_int_t)m->write_bytes, "read_bytes", (json_int_t)m->read_bytes, "resident_bytes_max", (json_int_t)m->resident_max,
                               "anonymous_bytes", (json_int_t)m->anonymous, "file_bytes", (json_int_t)m->file_bytes, "cpu_us", m->cpu_us, "others_cpu", m->others_cpu, "settle_seconds",
                               m->settle_seconds, "settled", m->puts > 0 && m->settled, "behind", (json_int_t)m->behind);
    if (series) json_object_set_new(object, "series", series_json(m));
    return object;
}

static json_t *label_json(const compare_workload *workload)
{
    char label[64];
    compare_workload_label(workload, label, sizeof label);
    return json_string(label);
}

/* null where operations are not in flight, or nobody else is there. */
static json_t *best_other_json(const compare_report *report, unsigned s, unsigned w)
{
    const compare_plan *plan = report->results->plan;
    const compare_workload *workload = &plan->stages[s].workloads[w];
    compare_summary sum;
    unsigned best = workload->in_flight > 0 ? compare_results_best_other(report->results, s, w, &sum) : plan->engine_count;
    if (best == plan->engine_count) return json_null();
    return json_pack("{s:s, s:o, s:f, s:f}", "engine", plan->engines[best]->name, "workload", label_json(sum.instead != NULL ? sum.instead : workload), "operations_per_second",
                     sum.rate.median, "ratio", sum.ratio.median);
}

static json_t *engine_json(const compare_report *report, unsigned s, unsigned w, unsigned e)
{
    const compare_results *results = report->results;
    const compare_summary *sum = compare_report_summary(report, s, e, w);
    json_t *object = json_pack("{s:s, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "engine", results->plan->engines[e]->name, "operations_per_second",
                               spread_json(&sum->rate), "ratio", spread_json(&sum->ratio), "latency_us", latency_json(&sum->latency), "cpu_us_per_op", sum->cpu_us, "others_cpu", sum->others_cpu,
                               "written_per_byte_put", sum->write_bytes, "read_bytes_per_op", sum->read_bytes, "resident_bytes_max", sum->resident_max,
                               "anonymous_bytes", sum->anonymous, "file_bytes", sum->file_bytes, "settle_seconds", sum->settle_seconds, "behind",
                               (json_int_t)sum->behind);
    json_object_set_new(object, "reads_per_op", sum->reads >= 0 ? json_real(sum->reads) : json_null());
    json_object_set_new(object, "instead", sum->instead != NULL ? label_json(sum->instead) : json_null());
    json_t *rounds = json_array();
    for (unsigned round = 0; round < results->rounds; round++) {
        const compare_measurement *m = compare_results_measurement(results, s, e, round, w);
        if (m != NULL) json_array_append_new(rounds, round_json(m, round, results->plan->series));
    }
    json_object_set_new(object, "rounds", rounds);
    return object;
}

static json_t *workloads_json(const compare_report *report, unsigned s)
{
    const compare_stage *stage = &report->results->plan->stages[s];
    json_t *array = json_array();
    for (unsigned w = 0; w < stage->count; w++) {
        if (!compare_report_shows(stage, w)) continue;
        json_t *engines = json_array();
        for (unsigned e = 0; e < report->results->plan->engine_count; e++) json_array_append_new(engines, engine_json(report, s, w, e));
        json_array_append_new(array, json_pack("{s:s, s:s, s:i, s:i, s:o, s:o}", "workload", stage->workloads[w].name, "text", stage->workloads[w].text, "threads",
                                               (int)stage->workloads[w].threads, "in_flight", (int)stage->workloads[w].in_flight, "best_other",
                                               best_other_json(report, s, w), "engines", engines));
    }
    return array;
}

static json_t *sets_json(const compare_report *report)
{
    const compare_plan *plan = report->results->plan;
    json_t *array = json_array();
    for (unsigned s = 0; s < plan->stage_count; s++) {
        const compare_settings *settings = &plan->stages[s].settings;
        json_t *effective = json_object(), *unlimited = json_array();
        for (unsigned e = 0; e < plan->engine_count; e++) {
            char text[COMPARE_TEXT];
            plan->engines[e]->describe(settings, text);
            json_object_set_new(effective, plan->engines[e]->name, json_string(text));
            if (compare_report_is_unlimited(&plan->stages[s], plan->engines[e])) json_array_append_new(unlimited, json_string(plan->engines[e]->name));
        }
        json_array_append_new(array, json_pack("{s:s, s:s, s:I, s:f, s:i, s:i, s:I, s:b, s:b, s:o, s:o, s:o}", "set", plan->stages[s].set->name, "text",
                                               plan->stages[s].set->text, "records", (json_int_t)plan->stages[s].records, "seconds", plan->stages[s].seconds, "key_size", (int)settings->key_size,
                                               "value_size", (int)settings->value_size, "cache_bytes", (json_int_t)settings->cache_bytes, "durable",
                                               (int)settings->durable, "direct", (int)settings->direct, "settings", effective, "cache_not_limited", unlimited,
                                               "workloads", workloads_json(report, s)));
    }
    return array;
}

void compare_report_json(const compare_report *report, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    json_t *failures = json_array();
    for (unsigned i = 0; i < compare_report_complaints(report); i++) json_array_append_new(failures, json_string(compare_report_complaint(report, i)));
    unsigned total, disturbed = compare_report_disturbed(report, &total);
    json_t *root = json_pack("{s:o, s:o, s:s, s:i, s:f, s:I, s:s, s:o, s:o, s:i, s:i, s:b}", "environment", environment_json(report->environment), "engines", engines_json(report->results),
                             "not_built_in", compare_adapters_missing, "rounds", (int)report->results->rounds, "rate", plan->rate, "seed",
                             (json_int_t)plan->seed, "ratios_of", plan->engines[compare_results_base(plan)]->name, "sets", sets_json(report), "failures", failures, "disturbed_measurements", (int)disturbed, "undisturbed_measurements", (int)(total - disturbed),
                             "interrupted", (int)report->interrupted);
    json_dumpf(root, out, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    fputc('\n', out);
    json_decref(root);
}
