#include "bench/compare/report.h"

const compare_summary *compare_report_summary(const compare_report *report, unsigned stage, unsigned engine, unsigned workload)
{
    static compare_summary summary;
    compare_results_summarise(report->results, stage, engine, workload, &summary);
    return &summary;
}

bool compare_report_shows(const compare_stage *stage, unsigned workload)
{
    return stage->workloads[workload].kind != COMPARE_LOAD || stage->load_is_shown;
}

bool compare_report_takes_part(const compare_stage *stage, const compare_adapter *adapter)
{
    bool any = !adapter->yardstick;
    for (unsigned w = 0; w < stage->count; w++) any |= stage->workloads[w].fio != COMPARE_NO_FIO;
    return any;
}

bool compare_report_is_unlimited(const compare_stage *stage, const compare_adapter *adapter)
{
    return stage->settings.direct && !adapter->direct_possible;
}

/* The complaint with this index, or NULL; the number of all of them. */
static unsigned complaints(const compare_report *report, unsigned index, const char **text)
{
    const compare_results *results = report->results;
    unsigned count = 0;
    for (unsigned s = 0; s < results->plan->stage_count; s++)
        for (unsigned e = 0; e < results->plan->engine_count; e++)
            for (unsigned round = 0; round < results->rounds; round++) {
                const compare_turn *turn = compare_results_turn(results, s, e, round);
                if (turn->code == 0) continue;
                if (count++ == index) *text = turn->complaint;
            }
    return count;
}

unsigned compare_report_complaints(const compare_report *report)
{
    const char *none;
    return complaints(report, UINT32_MAX, &none);
}

const char *compare_report_complaint(const compare_report *report, unsigned index)
{
    const char *text = "";
    complaints(report, index, &text);
    return text;
}

unsigned compare_report_disturbed(const compare_report *report, unsigned *total)
{
    const compare_results *results = report->results;
    unsigned disturbed = 0;
    *total = 0;
    for (unsigned s = 0; s < results->plan->stage_count; s++)
        for (unsigned e = 0; e < results->plan->engine_count; e++)
            for (unsigned round = 0; round < results->rounds; round++)
                for (unsigned w = 0; w < results->plan->stages[s].count; w++) {
                    const compare_measurement *m = compare_results_measurement(results, s, e, round, w);
                    if (m == NULL || m->puts > 0) continue;
                    ++*total;
                    disturbed += m->others_cpu > 0.1;
                }
    return disturbed;
}

/* ---- CSV ------------------------------------------------------------------------------------------------------------- */

static void csv_row(const compare_report *report, unsigned s, unsigned w, unsigned e, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const compare_stage *stage = &plan->stages[s];
    const compare_workload *workload = &stage->workloads[w];
    const compare_summary *sum = compare_report_summary(report, s, e, w);
    char version[COMPARE_TEXT];
    if (plan->engines[e]->yardstick && sum->rate.count == 0) return;
    plan->engines[e]->version(version);
    fprintf(out, "%s,%s,%u,%s,%s,%s,%llu,%u,%u,%llu,%u,%.1f,%.1f,%.1f", stage->set->name, workload->name, workload->threads, plan->engines[e]->name, version,
            stage->settings.durable && workload->kind != COMPARE_LOAD ? "durable" : "async", (unsigned long long)stage->records, stage->settings.key_size,
            stage->settings.value_size, (unsigned long long)stage->settings.cache_bytes, sum->rate.count, sum->rate.median, sum->rate.min, sum->rate.max);
    if (sum->ratio.count > 0) fprintf(out, ",%.4f,%.4f,%.4f", sum->ratio.median, sum->ratio.min, sum->ratio.max);
    else fputs(",,,", out);
    for (unsigned p = 0; p < BENCH_PERCENTILES && sum->latency.count == 0; p++) fputc(',', out);
    for (unsigned p = 0; p < BENCH_PERCENTILES && sum->latency.count > 0; p++) fprintf(out, ",%.3f", (double)rw_histogram_quantile(&sum->latency, bench_percentiles[p].fraction) / 1000);
    char reads[32] = "", instead[64] = "";
    if (sum->reads >= 0) snprintf(reads, sizeof reads, "%.4f", sum->reads);
    if (sum->instead != NULL) compare_workload_label(sum->instead, instead, sizeof instead);
    fprintf(out, ",%.4f,%.3f,%.4f,%.1f,%.0f,%.0f,%.0f,%.3f,%d,%llu,%s,%s\n", sum->cpu_us, sum->others_cpu, sum->write_bytes, sum->read_bytes, sum->resident_max, sum->anonymous, sum->file_bytes,
            sum->settle_seconds, sum->settled ? 1 : 0, (unsigned long long)sum->behind, reads, instead);
}

static void csv_series(const compare_report *report, unsigned s, unsigned w, unsigned e, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const compare_workload *workload = &plan->stages[s].workloads[w];
    for (unsigned round = 0; round < report->results->rounds; round++) {
        const compare_measurement *m = compare_results_measurement(report->results, s, e, round, w);
        for (uint32_t i = 0; m != NULL && i < m->series_count; i++)
            fprintf(out, "%s,%s,%u,%s,%u,%u,%llu,%.3f,%.3f,%.3f\n", plan->stages[s].set->name, workload->name, workload->threads, plan->engines[e]->name, round + 1, i,
                    (unsigned long long)m->series[i].operations, (double)m->series[i].p50 / 1000, (double)m->series[i].p999 / 1000,
                    (double)m->series[i].max / 1000);
    }
}

/* For each workload shown and each engine. */
static void csv_rows(const compare_report *report, void (*row)(const compare_report *, unsigned, unsigned, unsigned, FILE *), FILE *out)
{
    const compare_plan *plan = report->results->plan;
    for (unsigned s = 0; s < plan->stage_count; s++)
        for (unsigned w = 0; w < plan->stages[s].count; w++)
            for (unsigned e = 0; e < plan->engine_count && compare_report_shows(&plan->stages[s], w); e++) row(report, s, w, e, out);
}

void compare_report_csv(const compare_report *report, FILE *out)
{
    fputs("set,workload,threads,engine,version,durability,records,key_size,value_size,cache_bytes,rounds,operations_per_second,operations_per_second_min,"
          "operations_per_second_max,ratio,ratio_min,ratio_max", out);
    for (unsigned p = 0; p < BENCH_PERCENTILES; p++) fprintf(out, ",%s_us", bench_percentiles[p].name);
    fputs(",cpu_us_per_op,others_cpu,written_per_byte_put,read_bytes_per_op,resident_bytes_max,anonymous_bytes,file_bytes,settle_seconds,settled,behind,reads_per_op,instead\n", out);
    csv_rows(report, csv_row, out);
    if (!report->results->plan->series) return;
    fputs("\nset,workload,threads,engine,round,second,operations,p50_us,p99.9_us,max_us\n", out);
    csv_rows(report, csv_series, out);
}
