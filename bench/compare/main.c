/* ringwood-compare: the rounds, the turns in each, and the report. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/compare/report.h"
#include "bench/measure.h"
#include "bench/scratch.h"

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&compare_interrupted, true);
    pid_t child = atomic_load(&compare_child);
    if (child > 0) kill(child, SIGKILL);
}

static void interrupt_prepare(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void progress(const compare_plan *plan, unsigned round, unsigned stage, const compare_adapter *adapter)
{
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\rround %u of %u: %s, %s%20s", round + 1, plan->rounds, plan->stages[stage].set->name, adapter->title, "");
}

/* Every round lets another engine be first: what the machine does at one time is not always the same one's. An engine that failed has no further turns. */
static void rounds_run(compare_results *results)
{
    const compare_plan *plan = results->plan;
    bool failed[COMPARE_ENGINES_MAX] = {false};
    for (unsigned round = 0; round < plan->rounds && !atomic_load(&compare_interrupted); round++) {
        results->rounds = round + 1;
        for (unsigned s = 0; s < plan->stage_count; s++) {
            for (unsigned i = 0; i < plan->engine_count && !atomic_load(&compare_interrupted); i++) {
                unsigned e = (i + round) % plan->engine_count;
                if (failed[e]) continue;
                compare_turn *turn = compare_results_turn(results, s, e, round);
                progress(plan, round, s, plan->engines[e]);
                compare_turn_run(plan, &plan->stages[s], plan->engines[e], round, turn);
                if (turn->code == 0 || atomic_load(&compare_interrupted)) continue;
                failed[e] = true;
                fprintf(stderr, "%serror: %s\n", isatty(STDERR_FILENO) ? "\n" : "", turn->complaint);
            }
        }
    }
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%72s\r", "");
}

/* 0, or an exit code. */
static int report_write(const compare_report *report, FILE *page)
{
    static void (*const formats[])(const compare_report *, FILE *) = {[COMPARE_TABLE] = compare_report_table, [COMPARE_JSON] = compare_report_json,
                                                                      [COMPARE_CSV] = compare_report_csv};
    formats[report->results->plan->format](report, stdout);
    int status = BENCH_EXIT_DONE;
    if (page != NULL) {
        compare_report_html(report, page);
        if (fclose(page) != 0) status = BENCH_EXIT_STORAGE;
    }
    return fflush(stdout) != 0 ? BENCH_EXIT_STORAGE : status;
}

/* In the plan's directory, which is then the present one. */
static int compare(compare_plan *plan, FILE *page)
{
    bench_scratch scratch;
    bench_environment environment;
    compare_results results = {.plan = plan, .turns = compare_turns_new((size_t)COMPARE_SETS * COMPARE_ENGINES_MAX * COMPARE_ROUNDS_MAX)};
    if (results.turns == NULL || bench_scratch_make(&scratch, "ringwood-compare") != 0) {
        fprintf(stderr, "error: cannot begin: %s\n", results.turns == NULL ? "no memory for results" : rw_error_text());
        if (page != NULL) fclose(page);
        return BENCH_EXIT_STORAGE;
    }
    plan->scratch = scratch.path;
    bench_environment_read(&environment, plan->directory);
    rounds_run(&results);
    bool interrupted = atomic_load(&compare_interrupted);
    int removed = bench_scratch_remove(scratch.path);
    if (removed != 0) fprintf(stderr, "error: %s\n", rw_error_text());
    int status = report_write(&(compare_report){.results = &results, .environment = &environment, .interrupted = interrupted}, page);
    if (interrupted) return BENCH_EXIT_INTERRUPTED;
    if (compare_results_code(&results) != 0) return BENCH_EXIT_FAILED;
    return removed != 0 ? BENCH_EXIT_STORAGE : status;
}

int main(int argc, char **argv)
{
    static compare_plan plan;
    int parsed = compare_plan_parse(&plan, argc, argv);
    if (parsed != 0) return parsed > 0 ? BENCH_EXIT_DONE : BENCH_EXIT_USAGE;
    FILE *page = plan.report_path != NULL ? fopen(plan.report_path, "we") : NULL;
    if (plan.report_path != NULL && page == NULL) {
        fprintf(stderr, "error: %s: %s\n", plan.report_path, strerror(errno));
        return BENCH_EXIT_USAGE;
    }
    char *directory = realpath(plan.directory, NULL);
    if (directory == NULL || chdir(directory) != 0) {
        fprintf(stderr, "error: %s: %s\n", plan.directory, strerror(errno));
        free(directory);
        if (page != NULL) fclose(page);
        return BENCH_EXIT_USAGE;
    }
    plan.directory = directory;
    interrupt_prepare();
    bench_clock_init();
    int status = compare(&plan, page);
    free(directory);
    return status;
}
