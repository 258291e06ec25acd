/* The verbs that look after a database: stat, verify, log, checkpoint, compact. */
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/verb.h"
#include "engine/engine.h"

static const char *const stat_names[] = {
#define STAT_NAME(name, text) #name,
    RW_STATS_MAP(STAT_NAME)
#undef STAT_NAME
    "io_backend", "io_backend_note", "read_only_reason", "log_sync",
};

static const char *const stat_meanings[] = {
#define STAT_MEANING(name, text) text,
    RW_STATS_MAP(STAT_MEANING)
#undef STAT_MEANING
    "the I/O back end in effect", "why it is not the one asked for", "why the database takes no writes", "how commits are made durable",
};

void stat_print(FILE *file, output_format format, const rw_stats_t *stats)
{
    const output_cell cells[] = {
#define STAT_CELL(name, text) output_cell_number(stats->name),
        RW_STATS_MAP(STAT_CELL)
#undef STAT_CELL
        output_cell_text(stats->io_backend), output_cell_text(stats->io_backend_note), output_cell_text(stats->read_only_reason),
        output_cell_text(stats->log_sync),
    };
    static const char *const columns[] = {"name", "value", "meaning"};
    output o;
    if (format != OUTPUT_TABLE) {
        output_begin(&o, file, format, true, stat_names, RW_ARRAY_SIZE(cells));
        output_row(&o, cells);
        output_end(&o);
        return;
    }
    output_begin(&o, file, OUTPUT_TABLE, false, columns, 3);
    for (size_t i = 0; i < RW_ARRAY_SIZE(cells); i++) {
        bool empty = cells[i].kind == OUTPUT_TEXT && cells[i].bytes.size == 0;
        if (!empty) output_row(&o, (output_cell[]){output_cell_text(stat_names[i]), cells[i], output_cell_text(stat_meanings[i])});
    }
    output_end(&o);
}

int verb_stat(const arguments *a)
{
    database d;
    rw_stats_t stats;
    int status = database_open(&d, a, false);
    if (status != EXIT_DONE) return status;
    int code = rw_stats(d.db, &stats);
    if (code == 0) stat_print(stdout, a->format, &stats);
    else status = cli_error_library(d.db, code, "stat");
    return cli_finish_output(database_close(&d, status));
}

typedef struct {
    output out;
    uint64_t count;
} findings_report;

static void print_finding(void *arg, const char *finding)
{
    findings_report *report = arg;
    report->count++;
    output_row(&report->out, (output_cell[]){output_cell_text(finding)});
}

int verify_print(FILE *file, output_format format, const char *directory, uint64_t *findings)
{
    static const char *const columns[] = {"finding"};
    findings_report report = {0};
    output_begin(&report.out, file, format, false, columns, 1);
    int code = rw_verify(directory, print_finding, &report);
    output_end(&report.out);
    *findings = report.count;
    return code;
}

int verb_verify(const arguments *a)
{
    uint64_t findings;
    int code = verify_print(stdout, a->format, a->positional[0], &findings), status = EXIT_DONE;
    if (code == 0 && a->format == OUTPUT_TABLE) puts("sound");
    if (code == RW_ECORRUPT && findings != 0) {
        cli_error("%s is damaged: %llu finding%s", a->positional[0], (unsigned long long)findings, findings == 1 ? "" : "s");
        status = EXIT_NEGATIVE;
    } else if (code != 0) {
        status = cli_error_library(NULL, code, "verify %s", a->positional[0]);
    }
    return cli_finish_output(status);
}

int verb_log(const arguments *a)
{
    int code = db_print_log(a->positional[0], stdout);
    return cli_finish_output(code == 0 ? EXIT_DONE : cli_error_library(NULL, code, "log %s", a->positional[0]));
}

static int maintain(const arguments *a, int (*call)(rw_db *), const char *name)
{
    database d;
    int status = database_open(&d, a, false);
    if (status != EXIT_DONE) return status;
    int code = call(d.db);
    if (code != 0) status = cli_error_library(d.db, code, "%s", name);
    return database_close(&d, status);
}

int verb_checkpoint(const arguments *a)
{
    return maintain(a, rw_checkpoint, "checkpoint");
}

int verb_compact(const arguments *a)
{
    return maintain(a, rw_compact, "compact");
}
