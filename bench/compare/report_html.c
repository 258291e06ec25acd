/* A page that needs nothing else: tables, latency curves, and what happened in each second, drawn as SVG. */
#include <math.h>

#include "bench/compare/report.h"
#include "bench/text.h"

enum { PLOT_WIDTH = 640, PLOT_HEIGHT = 300, PLOT_LEFT = 70, PLOT_RIGHT = 20, PLOT_TOP = 16, PLOT_BOTTOM = 40 };

static const char *const colours[COMPARE_ENGINES_MAX] = {"#c0392b", "#2471a3", "#1e8449", "#b9770e", "#7d3c98", "#5d6d7e", "#117a65", "#943126"};

static const char style[] =
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:.6em 0;font-variant-numeric:tabular-nums;font-size:13px}"
    "td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}"
    "svg{max-width:100%;height:auto;margin-right:1em}svg text{font:11px system-ui,sans-serif;fill:#444}.words td{text-align:left}.failed{color:#c0392b}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}svg text{fill:#bbb}}";

static void escaped(const char *text, FILE *out)
{
    for (; *text != '\0'; text++) {
        if (*text == '<') fputs("&lt;", out);
        else if (*text == '>') fputs("&gt;", out);
        else if (*text == '&') fputs("&amp;", out);
        else fputc(*text, out);
    }
}

/* A table's row of words; cells end with NULL. */
static void words_row(const char *const *cells, FILE *out)
{
    fputs("<tr>", out);
    for (; *cells != NULL; cells++) {
        fputs("<td>", out);
        escaped(*cells, out);
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
}

/* ---- plots ------------------------------------------------------------------------------------------------------------ */

/* Both axes, as the numbers that lie at their ends; a logarithm is taken by the caller. */
typedef struct {
    double x_least, x_most, y_least, y_most;
} plot;

static double plot_x(const plot *p, double x)
{
    return PLOT_LEFT + (x - p->x_least) / (p->x_most - p->x_least) * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT);
}

static double plot_y(const plot *p, double y)
{
    return PLOT_HEIGHT - PLOT_BOTTOM - (y - p->y_least) / (p->y_most - p->y_least) * (PLOT_HEIGHT - PLOT_BOTTOM - PLOT_TOP);
}

static void plot_begin(const char *title, FILE *out)
{
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\"><title>", PLOT_WIDTH, PLOT_HEIGHT, PLOT_WIDTH);
    escaped(title, out);
    fprintf(out, "</title><text x=\"%d\" y=\"11\">", PLOT_LEFT);
    escaped(title, out);
    fputs("</text>\n", out);
}

static void plot_line(double x1, double y1, double x2, double y2, FILE *out)
{
    fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#999\" stroke-width=\".5\" stroke-opacity=\".6\"/>\n", x1, y1, x2, y2);
}

/* Lines across at each power of ten of microseconds; y is the logarithm of nanoseconds. */
static void plot_powers(const plot *p, FILE *out)
{
    for (int power = (int)ceil(p->y_least); power <= (int)floor(p->y_most); power++) {
        double y = plot_y(p, power), us = pow(10, power - 3);
        plot_line(PLOT_LEFT, y, PLOT_WIDTH - PLOT_RIGHT, y, out);
        fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g %s</text>\n", PLOT_LEFT - 6, y + 4, us < 1000 ? us : us < 1e6 ? us / 1000 : us / 1e6,
                us < 1000 ? "µs" : us < 1e6 ? "ms" : "s");
    }
}

static void plot_mark_x(const plot *p, double x, const char *text, FILE *out)
{
    plot_line(plot_x(p, x), PLOT_TOP, plot_x(p, x), PLOT_HEIGHT - PLOT_BOTTOM, out);
    fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", plot_x(p, x), PLOT_HEIGHT - PLOT_BOTTOM + 15, text);
}

static void legend(const compare_plan *plan, FILE *out)
{
    double x = PLOT_LEFT;
    for (unsigned e = 0; e < plan->engine_count; e++) {
        fprintf(out, "<rect x=\"%.0f\" y=\"%d\" width=\"10\" height=\"10\" fill=\"%s\"/><text x=\"%.0f\" y=\"%d\">%s</text>\n", x, PLOT_HEIGHT - 14, colours[e], x + 14,
                PLOT_HEIGHT - 5, plan->engines[e]->title);
        x += 26 + 7 * (double)strlen(plan->engines[e]->title);
    }
}

static double log_ns(uint64_t ns)
{
    return log10((double)RW_MAX(ns, (uint64_t)10));
}

/* Latency over percentile: x is the number of nines, y the logarithm. */
static void curves(const compare_report *report, unsigned s, unsigned w, FILE *out)
{
    static const struct {
        double nines;
        const char *text;
    } marks[] = {{0, "0%"}, {1, "90%"}, {2, "99%"}, {3, "99.9%"}, {4, "99.99%"}, {5, "99.999%"}, {6, "99.9999%"}};
    const compare_plan *plan = report->results->plan;
    plot p = {.x_least = 0, .x_most = 1, .y_least = 20, .y_most = 0};
    for (unsigned e = 0; e < plan->engine_count; e++) {
        const rw_histogram *h = &compare_report_summary(report, s, e, w)->latency;
        if (h->count == 0) continue;
        p.x_most = RW_MIN(RW_MAX(p.x_most, ceil(log10((double)h->count))), 6);
        p.y_least = RW_MIN(p.y_least, floor(log_ns(h->min)));
        p.y_most = RW_MAX(p.y_most, ceil(log_ns(h->max)));
    }
    if (p.y_least >= p.y_most) return;
    plot_begin("latency over percentile", out);
    plot_powers(&p, out);
    for (unsigned i = 0; i < RW_ARRAY_SIZE(marks) && marks[i].nines <= p.x_most; i++) plot_mark_x(&p, marks[i].nines, marks[i].text, out);
    for (unsigned e = 0; e < plan->engine_count; e++) {
        const rw_histogram *h = &compare_report_summary(report, s, e, w)->latency;
        if (h->count == 0) continue;
        fprintf(out, "<polyline fill=\"none\" stroke-width=\"1.8\" stroke=\"%s\" points=\"", colours[e]);
        double last = RW_MIN(p.x_most, log10((double)h->count));
        for (double fraction = 0, nines = 0; nines < last; fraction = bench_distribution_next(fraction), nines = -log10(1 - fraction))
            fprintf(out, "%.1f,%.1f ", plot_x(&p, nines), plot_y(&p, log_ns(rw_histogram_quantile(h, fraction))));
        fprintf(out, "%.1f,%.1f\"/>\n", plot_x(&p, last), plot_y(&p, log_ns(h->count <= 1000000 ? h->max : rw_histogram_quantile(h, 0.999999))));
    }
    legend(plan, out);
    fputs("</svg>\n", out);
}

typedef enum { SERIES_OPERATIONS, SERIES_P999, SERIES_MAX, SERIES_KINDS } series_kind;

static double series_value(const bench_second *second, series_kind kind)
{
    if (kind == SERIES_OPERATIONS) return (double)second->operations;
    return log_ns(kind == SERIES_P999 ? second->p999 : second->max);
}

/* What happened in each second of the last round. */
static void series(const compare_report *report, unsigned s, unsigned w, series_kind kind, FILE *out)
{
    static const char *const titles[SERIES_KINDS] = {"operations in each second", "p99.9 in each second", "the longest in each second"};
    const compare_plan *plan = report->results->plan;
    plot p = {.x_least = 0, .x_most = 1, .y_least = kind == SERIES_OPERATIONS ? 0 : 20, .y_most = 1};
    for (unsigned e = 0; e < plan->engine_count; e++) {
        const compare_measurement *m = compare_report_summary(report, s, e, w)->last;
        for (uint32_t i = 0; m != NULL && i < m->series_count; i++) {
            double value = series_value(&m->series[i], kind);
            p.x_most = RW_MAX(p.x_most, (double)i);
            p.y_most = RW_MAX(p.y_most, kind == SERIES_OPERATIONS ? value * 1.05 : ceil(value));
            if (kind != SERIES_OPERATIONS) p.y_least = RW_MIN(p.y_least, floor(value));
        }
    }
    if (p.y_least >= p.y_most) return;
    plot_begin(titles[kind], out);
    if (kind != SERIES_OPERATIONS) plot_powers(&p, out);
    for (int i = 0; i <= 4 && kind == SERIES_OPERATIONS; i++) {
        double y = p.y_most * i / 4;
        plot_line(PLOT_LEFT, plot_y(&p, y), PLOT_WIDTH - PLOT_RIGHT, plot_y(&p, y), out);
        fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", PLOT_LEFT - 6, plot_y(&p, y) + 4, bench_text_count(y));
    }
    for (int i = 0; i <= 4; i++) {
        char text[32];
        snprintf(text, sizeof text, "%g s", p.x_most * i / 4);
        plot_mark_x(&p, p.x_most * i / 4, text, out);
    }
    for (unsigned e = 0; e < plan->engine_count; e++) {
        const compare_measurement *m = compare_report_summary(report, s, e, w)->last;
        if (m == NULL || m->series_count == 0) continue;
        fprintf(out, "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"%s\" points=\"", colours[e]);
        for (uint32_t i = 0; i < m->series_count; i++) fprintf(out, "%.1f,%.1f ", plot_x(&p, i), plot_y(&p, series_value(&m->series[i], kind)));
        fputs("\"/>\n", out);
    }
    legend(plan, out);
    fputs("</svg>\n", out);
}

/* ---- tables ---------------------------------------------------------------------------------------------------------------- */

static void head(const compare_report *report, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const bench_environment *e = report->environment;
    char text[512];
    fputs("<table class=\"words\">\n", out);
    snprintf(text, sizeof text, "%u, the engines in turn, each turn a process of its own; seed %llu", report->results->rounds,
             (unsigned long long)plan->seed);
    words_row((const char *const[]){"rounds", text, NULL}, out);
    if (plan->rate > 0) snprintf(text, sizeof text, "open: %s operations a second, latencies from the intended start", bench_text_count(plan->rate));
    else snprintf(text, sizeof text, "closed: a thread begins an operation when its last one ended");
    words_row((const char *const[]){"loop", text, NULL}, out);
    snprintf(text, sizeof text, "%s (%s) on %s %s, write cache: %s%s", e->file_system, e->mount_options, e->device, e->device_model, e->write_cache,
             e->memory_only ? "; memory only, nothing survives a power cut" : "");
    words_row((const char *const[]){"file system", text, NULL}, out);
    words_row((const char *const[]){"kernel", e->kernel, NULL}, out);
    snprintf(text, sizeof text, "%s, %u processors, %s", e->processor, e->cpus, bench_text_bytes(e->memory_bytes));
    words_row((const char *const[]){"machine", text, NULL}, out);
    if (compare_adapters_missing[0] != '\0') words_row((const char *const[]){"not built in", compare_adapters_missing, NULL}, out);
    fputs("</table>\n<table class=\"words\"><tr><td>engine</td><td>writes that are not durable</td><td>durable writes</td><td>memory</td></tr>\n", out);
    for (unsigned i = 0; i < plan->engine_count; i++) {
        const compare_adapter *a = plan->engines[i];
        char version[COMPARE_TEXT], name[COMPARE_TEXT + 32], durable[3 * COMPARE_TEXT];
        a->version(version);
        snprintf(name, sizeof name, "%s %s", a->title, version);
        if (a->yardstick) {
            words_row((const char *const[]){name, "-", "-", "-", NULL}, out);
            continue;
        }
        const char *sync_way = compare_results_sync_way(report->results, i);
        snprintf(durable, sizeof durable, "%s%s%s", a->durable_words, sync_way[0] != '\0' ? "; here: " : "", sync_way);
        words_row((const char *const[]){name, a->async_words, durable, a->memory_words, NULL}, out);
    }
    fputs("</table>\n", out);
}

static void engine_row(const compare_adapter *adapter, const compare_summary *sum, FILE *out)
{
    if (sum->rate.count == 0) {
        if (!adapter->yardstick) fprintf(out, "<tr><td>%s</td><td>not done</td></tr>\n", adapter->title);
        return;
    }
    char label[64];
    fprintf(out, "<tr><td>%s</td><td>%s</td>", adapter->title, bench_text_count(sum->rate.median));
    fprintf(out, "<td>%s–%s</td>", bench_text_count(sum->rate.min), bench_text_count(sum->rate.max));
    if (sum->ratio.count > 0) fprintf(out, "<td>%.2f (%.2f–%.2f)</td>", sum->ratio.median, sum->ratio.min, sum->ratio.max);
    else fputs("<td></td>", out);
    if (adapter->yardstick) {
        fputs("</tr>\n", out);
        return;
    }
    for (unsigned i = 0; i < BENCH_PERCENTILES; i++) fprintf(out, "<td>%s</td>", bench_text_us(rw_histogram_quantile(&sum->latency, bench_percentiles[i].fraction)));
    fprintf(out, "<td>%.2f</td><td>%.2f</td>", sum->cpu_us, sum->others_cpu);
    if (sum->write_bytes > 0) fprintf(out, "<td>%.2f</td>", sum->write_bytes);
    else fputs("<td></td>", out);
    fprintf(out, "<td>%s</td>", bench_text_bytes((uint64_t)sum->read_bytes));
    if (sum->reads >= 0) fprintf(out, "<td>%.2f</td>", sum->reads);
    else fputs("<td></td>", out);
    fprintf(out, "<td>%s</td><td>%s</td><td>%.1f s%s</td></tr>\n", bench_text_bytes((uint64_t)sum->resident_max), bench_text_bytes((uint64_t)sum->file_bytes),
            sum->settle_seconds, sum->settled ? "" : ", not at rest");
    if (sum->instead != NULL) {
        compare_workload_label(sum->instead, label, sizeof label);
        fprintf(out, "<tr><td></td><td colspan=\"17\">this is %s: it has no calls that leave operations under way</td></tr>\n", label);
    }
    if (sum->behind > 0) fprintf(out, "<tr><td></td><td colspan=\"17\">%s operations that were due had not begun at the end</td></tr>\n", bench_text_count((double)sum->behind));
}

static void workload(const compare_report *report, unsigned s, unsigned w, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    const compare_workload *load = &plan->stages[s].workloads[w];
    char label[64];
    compare_workload_label(load, label, sizeof label);
    fprintf(out, "<h3>%s</h3><p>%s</p>\n<table><tr><th>engine</th><th>per second</th><th>spread</th><th>%s's rate / this</th>", label, load->text,
            plan->engines[compare_results_base(plan)]->title);
    for (unsigned i = 0; i < BENCH_PERCENTILES; i++) fprintf(out, "<th>%s µs</th>", bench_percentiles[i].name);
    fputs("<th>cpu µs/op</th><th>others' cpu</th><th>written/byte put</th><th>read/op</th><th>reads/op</th><th>resident</th><th>files</th><th>settle</th></tr>\n", out);
    for (unsigned e = 0; e < plan->engine_count; e++) engine_row(plan->engines[e], compare_report_summary(report, s, e, w), out);
    fputs("</table>\n", out);
    if (load->kind != COMPARE_SCAN_FULL) curves(report, s, w, out);
    for (unsigned kind = 0; kind < SERIES_KINDS && plan->series && load->kind != COMPARE_SCAN_FULL; kind++) series(report, s, w, (series_kind)kind, out);
}

void compare_report_html(const compare_report *report, FILE *out)
{
    const compare_plan *plan = report->results->plan;
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ringwood compare</title>\n", out);
    fprintf(out, "<style>%s</style></head><body>\n<h1>ringwood compare</h1>\n", style);
    for (unsigned i = 0; i < compare_report_complaints(report); i++) {
        fputs("<p class=\"failed\">failed: ", out);
        escaped(compare_report_complaint(report, i), out);
        fputs("</p>\n", out);
    }
    unsigned total, disturbed = compare_report_disturbed(report, &total);
    if (disturbed > 0)
        fprintf(out, "<p class=\"failed\">The machine was not quiet: others took more than a tenth of a processor in %u of %u measurements that only read.</p>\n",
                disturbed, total);
    if (report->interrupted) fputs("<p class=\"failed\">interrupted: what is here is of the work done until then</p>\n", out);
    head(report, out);
    for (unsigned s = 0; s < plan->stage_count; s++) {
        const compare_stage *stage = &plan->stages[s];
        fprintf(out,
                "<h2>%s</h2><p>%s. %s records, keys %u B, values %u B; cache %s for each engine; %g s a workload, but for loads and full scans.</p>\n"
                "<table class=\"words\">\n", stage->set->name, stage->set->text,
                bench_text_count((double)stage->records), stage->settings.key_size, stage->settings.value_size, bench_text_bytes(stage->settings.cache_bytes), stage->seconds);
        for (unsigned e = 0; e < plan->engine_count; e++) {
            char settings[COMPARE_TEXT];
            if (!compare_report_takes_part(stage, plan->engines[e])) continue;
            plan->engines[e]->describe(&stage->settings, settings);
            bool unlimited = compare_report_is_unlimited(stage, plan->engines[e]);
            const char *note = unlimited ? "no direct I/O: its cache is the kernel's, which nothing limits here" : "";
            words_row((const char *const[]){plan->engines[e]->title, settings, note, NULL}, out);
        }
        fputs("</table>\n", out);
        for (unsigned w = 0; w < stage->count; w++)
            if (compare_report_shows(stage, w)) workload(report, s, w, out);
    }
    fputs("</body></html>\n", out);
}
