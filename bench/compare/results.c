#include "bench/compare/results.h"

#include <stdlib.h>

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

compare_spread compare_spread_of(double *values, unsigned count)
{
    if (count == 0) return (compare_spread){0};
    qsort(values, count, sizeof *values, compare_doubles);
    double median = count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
    return (compare_spread){.median = median, .min = values[0], .max = values[count - 1], .count = count};
}

compare_turn *compare_results_turn(const compare_results *results, unsigned stage, unsigned engine, unsigned round)
{
    return &results->turns[((size_t)stage * COMPARE_ENGINES_MAX + engine) * COMPARE_ROUNDS_MAX + round];
}

const compare_measurement *compare_results_measurement(const compare_results *results, unsigned stage, unsigned engine, unsigned round, unsigned workload)
{
    const compare_measurement *m = &compare_results_turn(results, stage, engine, round)->workloads[workload];
    return m->done ? m : NULL;
}

unsigned compare_results_base(const compare_plan *plan)
{
    for (unsigned i = 0; i < plan->engine_count; i++)
        if (strcmp(plan->engines[i]->name, "ringwood") == 0) return i;
    return 0;
}

double compare_measurement_rate(const compare_measurement *m)
{
    return m->seconds > 0 ? (double)m->operations / m->seconds : 0;
}

/* The workload with which an engine stands in a comparison: itself; but for one in flight and an engine that has no such calls the one with threads in which its median rate
 * is the highest. */
static unsigned stands_with(const compare_results *results, unsigned stage, unsigned engine, unsigned workload)
{
    const compare_stage *s = &results->plan->stages[stage];
    const compare_adapter *adapter = results->plan->engines[engine];
    const char *name = s->workloads[workload].instead;
    unsigned found = workload;
    double highest = 0;
    if (name == NULL || adapter->submit != NULL || adapter->yardstick) return workload;
    for (unsigned w = 0; w < s->count; w++) {
        double rates[COMPARE_ROUNDS_MAX];
        unsigned count = 0;
        for (unsigned round = 0; round < results->rounds && strcmp(s->workloads[w].name, name) == 0; round++) {
            const compare_measurement *m = compare_results_measurement(results, stage, engine, round, w);
            if (m != NULL) rates[count++] = compare_measurement_rate(m);
        }
        double median = compare_spread_of(rates, count).median;
        if (median > highest) found = w, highest = median;
    }
    return found;
}

/* What is taken from each round, and of which the summary holds the median. */
typedef enum { RATE, RATIO, CPU, OTHERS, WRITTEN, READ, READS, RESIDENT, ANONYMOUS, FILES, SETTLE, QUANTITIES } quantity;

typedef struct {
    double values[QUANTITIES][COMPARE_ROUNDS_MAX];
    unsigned counts[QUANTITIES];
} gathered;

static void gather(gathered *g, quantity q, double value)
{
    g->values[q][g->counts[q]++] = value;
}

static void gather_round(gathered *g, const compare_measurement *m, const compare_measurement *base, uint64_t record_bytes)
{
    double rate = compare_measurement_rate(m), operations = m->operations == 0 ? 1 : (double)m->operations;
    gather(g, RATE, rate);
    if (base != NULL && rate > 0) gather(g, RATIO, compare_measurement_rate(base) / rate);
    gather(g, CPU, m->cpu_us / operations);
    gather(g, OTHERS, m->others_cpu);
    if (m->puts > 0) gather(g, WRITTEN, (double)m->write_bytes / ((double)m->puts * (double)record_bytes));
    gather(g, READ, (double)m->read_bytes / operations);
    if (m->reads_counted) gather(g, READS, (double)m->reads / operations);
    gather(g, RESIDENT, (double)m->resident_max);
    gather(g, ANONYMOUS, (double)m->anonymous);
    gather(g, FILES, (double)m->file_bytes);
    gather(g, SETTLE, m->settle_seconds);
}

void compare_results_summarise(const compare_results *results, unsigned stage, unsigned engine, unsigned workload, compare_summary *summary)
{
    const compare_stage *s = &results->plan->stages[stage];
    unsigned base = compare_results_base(results->plan), own = stands_with(results, stage, engine, workload);
    gathered g = {.counts = {0}};
    memset(summary, 0, sizeof *summary);
    summary->instead = own != workload ? &s->workloads[own] : NULL;
    rw_histogram_init(&summary->latency);
    summary->settled = true;
    for (unsigned round = 0; round < results->rounds; round++) {
        const compare_measurement *m = compare_results_measurement(results, stage, engine, round, own);
        if (m == NULL) continue;
        gather_round(&g, m, compare_results_measurement(results, stage, base, round, workload), s->settings.key_size + s->settings.value_size);
        rw_histogram_merge(&summary->latency, &m->latency);
        summary->behind += m->behind;
        if (m->puts > 0) summary->settled &= m->settled;
        summary->last = m;
    }
    summary->rate = compare_spread_of(g.values[RATE], g.counts[RATE]);
    summary->ratio = compare_spread_of(g.values[RATIO], g.counts[RATIO]);
    summary->cpu_us = compare_spread_of(g.values[CPU], g.counts[CPU]).median;
    summary->others_cpu = compare_spread_of(g.values[OTHERS], g.counts[OTHERS]).median;
    summary->write_bytes = compare_spread_of(g.values[WRITTEN], g.counts[WRITTEN]).median;
    summary->read_bytes = compare_spread_of(g.values[READ], g.counts[READ]).median;
    summary->reads = g.counts[READS] > 0 ? compare_spread_of(g.values[READS], g.counts[READS]).median : -1;
    summary->resident_max = compare_spread_of(g.values[RESIDENT], g.counts[RESIDENT]).median;
    summary->anonymous = compare_spread_of(g.values[ANONYMOUS], g.counts[ANONYMOUS]).median;
    summary->file_bytes = compare_spread_of(g.values[FILES], g.counts[FILES]).median;
    summary->settle_seconds = compare_spread_of(g.values[SETTLE], g.counts[SETTLE]).median;
}

unsigned compare_results_best_other(const compare_results *results, unsigned stage, unsigned workload, compare_summary *summary)
{
    const compare_plan *plan = results->plan;
    unsigned base = compare_results_base(plan), best = plan->engine_count;
    double least = 0;
    for (unsigned e = 0; e < plan->engine_count; e++) {
        bool unlimited = plan->stages[stage].settings.direct && !plan->engines[e]->direct_possible;
        if (e == base || plan->engines[e]->yardstick || unlimited) continue;
        compare_results_summarise(results, stage, e, workload, summary);
        if (summary->ratio.count == 0 || (best < plan->engine_count && summary->ratio.median >= least)) continue;
        best = e;
        least = summary->ratio.median;
    }
    if (best < plan->engine_count) compare_results_summarise(results, stage, best, workload, summary);
    return best;
}

int compare_results_code(const compare_results *results)
{
    for (unsigned s = 0; s < results->plan->stage_count; s++)
        for (unsigned e = 0; e < results->plan->engine_count; e++)
            for (unsigned round = 0; round < results->rounds; round++)
                if (compare_results_turn(results, s, e, round)->code != 0) return 1;
    return 0;
}

const char *compare_results_sync_way(const compare_results *results, unsigned engine)
{
    for (unsigned s = 0; s < results->plan->stage_count; s++)
        for (unsigned round = 0; round < results->rounds; round++) {
            const compare_turn *turn = compare_results_turn(results, s, engine, round);
            if (turn->sync_way[0] != '\0') return turn->sync_way;
        }
    return "";
}
