/* The table: what was compared on what; for each workload all engines with everything measured; rates and ratios of all workloads at the end. */
#include "bench/compare/report.h"
#include "bench/measure.h"
#include "bench/text.h"

static void head_print(const compare_report *report, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const bench_environment *e = report->environment;
    fprintf(out, "rounds       %u, the engines in turn, another one first in each; each turn is a process and a directory of its own; seed %llu\n",
            report->results->rounds, (unsigned long long)plan->seed);
    if (plan->rate > 0) fprintf(out, "loop         open: %s operations a second over all threads, latencies from the intended start\n", bench_text_count(plan->rate));
    else fputs("loop         closed: a thread begins an operation when its last one ended\n", out);
    fprintf(out, "directory    %s\n", e->directory);
    fprintf(out, "file system  %s (%s) on %s%s%s%s%s\n", e->file_system, e->mount_options, e->device, e->device_model[0] != '\0' ? ", " : "", e->device_model,
            e->write_cache[0] != '\0' ? ", write cache: " : "", e->write_cache);
    if (e->memory_only) fprintf(out, "             %s is memory: writes cost no device, and nothing here survives a power cut\n", e->file_system);
    fprintf(out, "kernel       %s\n", e->kernel);
    fprintf(out, "machine      %s, %u processors, %s\n", e->processor, e->cpus, bench_text_bytes(e->memory_bytes));
    fprintf(out, "clock        %s, %.0f ns a reading; two readings are part of each latency\n", bench_clock_chosen.tsc ? "processor's counter" : "clock_gettime",
            bench_clock_chosen.reading_ns);
    if (compare_adapters_missing[0] != '\0') fprintf(out, "not built in%s\n", compare_adapters_missing);
}

static void engines_print(const compare_report *report, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    bool durable = false, async = false;
    for (unsigned s = 0; s < plan->stage_count; s++) {
        durable |= plan->stages[s].settings.durable;
        async |= !plan->stages[s].settings.durable;
    }
    for (unsigned i = 0; i < plan->engine_count; i++) {
        const compare_adapter *a = plan->engines[i];
        char version[COMPARE_TEXT];
        a->version(version);
        fprintf(out, "\n%s %s\n", a->title, version);
        if (a->yardstick) continue;
        if (async) fprintf(out, "  async writes        %s\n", a->async_words);
        const char *sync_way = compare_results_sync_way(report->results, i);
        if (durable) fprintf(out, "  durable writes      %s\n", a->durable_words);
        if (sync_way[0] != '\0') fprintf(out, "  made durable by     %s\n", sync_way);
        fprintf(out, "  read-modify-write   %s\n", a->modify_words);
        fprintf(out, "  multi-get           %s\n", a->multi_get != NULL ? a->multi_get_words : "single gets: it has no such call");
        fprintf(out, "  many under way      %s\n", a->submit != NULL ? a->in_flight_words : "with threads: it has no such calls");
        fprintf(out, "  memory              %s\n", a->memory_words);
    }
}

static void stage_head_print(const compare_plan *plan, const compare_stage *stage, FILE *out)
{
    const compare_settings *s = &stage->settings;
    fprintf(out, "\n==== %s: %s\n", stage->set->name, stage->set->text);
    fprintf(out, "%s records, keys %u B, values %u B, not compressible, %s in all; cache %s for each engine; %g s a workload, but for loads and full scans\n", bench_text_count((double)stage->records),
            s->key_size, s->value_size, bench_text_bytes(s->data_bytes), bench_text_bytes(s->cache_bytes), stage->seconds);
    for (unsigned i = 0; i < plan->engine_count; i++) {
        char settings[COMPARE_TEXT];
        if (!compare_report_takes_part(stage, plan->engines[i])) continue;
        plan->engines[i]->describe(s, settings);
        fprintf(out, "  %-11s %s\n", plan->engines[i]->title, settings);
    }
}

static void unlimited_print(const compare_plan *plan, const compare_stage *stage, FILE *out)
{
    bool any = false;
    for (unsigned i = 0; i < plan->engine_count; i++) any |= compare_report_is_unlimited(stage, plan->engines[i]);
    if (any) fputs("* without direct I/O: the kernel's page cache is its cache, which nothing limits here, so its rates do not compare with the others'\n", out);
}

/* fio: only how often it did it. */
static void yardstick_row_print(const compare_adapter *adapter, const compare_summary *sum, const char *spread, const char *ratio, FILE *out)
{
    fprintf(out, "  %-11s %11s %23s %7s\n", adapter->title, bench_text_count(sum->rate.median), spread, ratio);
}

static void engine_row_print(const compare_adapter *adapter, const compare_summary *sum, FILE *out)
{
    if (sum->rate.count == 0) {
        if (!adapter->yardstick) fprintf(out, "  %-11s not done\n", adapter->title);
        return;
    }
    char spread[64] = "", ratio[32] = "", written[16] = "-", reads[16] = "-", label[64];
    if (sum->rate.count > 1) snprintf(spread, sizeof spread, "%s-%s", bench_text_count(sum->rate.min), bench_text_count(sum->rate.max));
    if (sum->ratio.count > 0) snprintf(ratio, sizeof ratio, "%.2f", sum->ratio.median);
    if (sum->write_bytes > 0) snprintf(written, sizeof written, "%.2f", sum->write_bytes);
    if (sum->reads >= 0) snprintf(reads, sizeof reads, "%.2f", sum->reads);
    if (adapter->yardstick) {
        yardstick_row_print(adapter, sum, spread, ratio, out);
        return;
    }
    fprintf(out, "  %-11s %11s %23s %7s", adapter->title, bench_text_count(sum->rate.median), spread, ratio);
    for (unsigned p = 0; p < BENCH_PERCENTILES; p++) fprintf(out, " %8s", bench_text_us(rw_histogram_quantile(&sum->latency, bench_percentiles[p].fraction)));
    fprintf(out, " %8.2f %7.2f %8s %9s %6s %9s %9s %7.1f%s\n", sum->cpu_us, sum->others_cpu, written, bench_text_bytes((uint64_t)sum->read_bytes), reads, bench_text_bytes((uint64_t)sum->resident_max), bench_text_bytes((uint64_t)sum->file_bytes),
            sum->settle_seconds, sum->settled ? "" : " not at rest");
    if (sum->instead != NULL) {
        compare_workload_label(sum->instead, label, sizeof label);
        fprintf(out, "  %-11s this is %s: it has no calls that leave operations under way\n", "", label);
    }
    if (sum->behind > 0) fprintf(out, "  %-11s %s operations that were due had not begun at the end\n", "", bench_text_count((double)sum->behind));
}

static void workload_print(const compare_report *report, unsigned s, unsigned w, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const compare_workload *workload = &plan->stages[s].workloads[w];
    char label[64];
    compare_workload_label(workload, label, sizeof label);
    fprintf(out, "\n%s  %s\n", label, workload->text);
    fprintf(out, "  %-11s %11s %23s %7s", "", "per second", "spread", "ratio");
    for (unsigned p = 0; p < BENCH_PERCENTILES; p++) fprintf(out, " %8s", bench_percentiles[p].name);
    fprintf(out, " %8s %7s %8s %9s %6s %9s %9s %7s\n", "cpu us", "others", "written", "read", "reads", "resident", "files", "settle");
    for (unsigned e = 0; e < plan->engine_count; e++) engine_row_print(plan->engines[e], compare_report_summary(report, s, e, w), out);
}

typedef enum { MATRIX_RATES, MATRIX_RATIOS, MATRIX_P999 } matrix;

static void matrix_cell(const compare_summary *sum, matrix kind, char *cell, size_t room)
{
    const compare_spread *spread = kind == MATRIX_RATIOS ? &sum->ratio : &sum->rate;
    if (spread->count == 0) snprintf(cell, room, "-");
    else if (kind == MATRIX_P999) snprintf(cell, room, "%s", bench_text_us(rw_histogram_quantile(&sum->latency, 0.999)));
    else if (kind == MATRIX_RATES) snprintf(cell, room, "%s", bench_text_count(spread->median));
    else if (spread->count == 1) snprintf(cell, room, "%.2f", spread->median);
    else snprintf(cell, room, "%.2f (%.2f-%.2f)", spread->median, spread->min, spread->max);
}

static void matrix_title(const compare_report *report, const compare_stage *stage, matrix kind, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const char *base = plan->engines[compare_results_base(plan)]->title;
    fprintf(out, "\n%s: ", stage->set->name);
    if (kind == MATRIX_RATES) fprintf(out, "operations a second, medians of %u round%s\n", report->results->rounds, report->results->rounds == 1 ? "" : "s");
    else if (kind == MATRIX_P999) fputs("p99.9 from the intended start, microseconds, all rounds together\n", out);
    else fprintf(out, "%s's rate divided by the other's; above 1, %s is faster; medians of the rounds' ratios (least to most)\n", base, base);
}

/* Beside workloads in flight: who of the others comes nearest, and with what. */
static void best_others_print(const compare_report *report, unsigned s, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const compare_stage *stage = &plan->stages[s];
    for (unsigned w = 0; w < stage->count; w++) {
        char label[64], instead[64];
        compare_summary sum;
        if (stage->workloads[w].in_flight == 0) continue;
        unsigned best = compare_results_best_other(report->results, s, w, &sum);
        if (best == plan->engine_count) continue;
        compare_workload_label(&stage->workloads[w], label, sizeof label);
        compare_workload_label(sum.instead != NULL ? sum.instead : &stage->workloads[w], instead, sizeof instead);
        fprintf(out, "%s is %.2f times the best of the others: %s with %s, %s a second\n", label, sum.ratio.median, plan->engines[best]->title, instead,
                bench_text_count(sum.rate.median));
    }
}

/* Workloads down, engines across. */
static void matrix_print(const compare_report *report, unsigned s, matrix kind, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const compare_stage *stage = &plan->stages[s];
    unsigned left_out = kind == MATRIX_RATIOS ? compare_results_base(plan) : UINT32_MAX;
    int width = kind == MATRIX_RATIOS && report->results->rounds > 1 ? 18 : 12;
    matrix_title(report, stage, kind, out);
    fprintf(out, "%-14s", "");
    for (unsigned e = 0; e < plan->engine_count; e++) {
        char title[32];
        snprintf(title, sizeof title, "%s%s", plan->engines[e]->title, compare_report_is_unlimited(stage, plan->engines[e]) ? " *" : "");
        if (e != left_out && compare_report_takes_part(stage, plan->engines[e])) fprintf(out, " %*s", width, title);
    }
    fputc('\n', out);
    for (unsigned w = 0; w < stage->count; w++) {
        char label[64], cell[64];
        if (!compare_report_shows(stage, w)) continue;
        compare_workload_label(&stage->workloads[w], label, sizeof label);
        fprintf(out, "%-14s", label);
        for (unsigned e = 0; e < plan->engine_count; e++) {
            if (e == left_out || !compare_report_takes_part(stage, plan->engines[e])) continue;
            matrix_cell(compare_report_summary(report, s, e, w), kind, cell, sizeof cell);
            fprintf(out, " %*s", width, cell);
        }
        fputc('\n', out);
    }
    if (kind == MATRIX_RATIOS) best_others_print(report, s, out);
    unlimited_print(plan, stage, out);
}

void compare_report_table(const compare_report *report, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    head_print(report, out);
    engines_print(report, out);
    fputs("\nratio: the first's rate divided by this one's. Latencies in microseconds, of all rounds together. cpu us: of all threads of the process, for each\n"
          "operation, until the engine rests again. others: processors that were taken by others meanwhile, on average; much of it spoils the numbers.\n"
          "written: bytes written for each byte put, until the engine rests. read: bytes read from the device for each operation; reads: and how often, where the\n"
          "engine counts it. resident: the most memory in the workload, pages of files that are mapped\n"
          "included. files: disk space at its end. settle: seconds until the engine rested after the writes.\n", out);
    for (unsigned s = 0; s < plan->stage_count; s++) {
        stage_head_print(plan, &plan->stages[s], out);
        for (unsigned w = 0; w < plan->stages[s].count; w++)
            if (compare_report_shows(&plan->stages[s], w)) workload_print(report, s, w, out);
    }
    for (unsigned s = 0; s < plan->stage_count; s++) {
        matrix_print(report, s, MATRIX_RATES, out);
        if (plan->rate > 0) matrix_print(report, s, MATRIX_P999, out);
        else if (plan->engine_count > 1) matrix_print(report, s, MATRIX_RATIOS, out);
    }
    unsigned total, disturbed = compare_report_disturbed(report, &total);
    if (disturbed > 0)
        fprintf(out, "\nThe machine was not quiet: others took more than a tenth of a processor in %u of %u measurements that only read.\n", disturbed, total);
    for (unsigned i = 0; i < compare_report_complaints(report); i++) fprintf(out, "\nfailed: %s\n", compare_report_complaint(report, i));
    if (report->interrupted) fputs("\ninterrupted: what is above is of the work done until then\n", out);
}
