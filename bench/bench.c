/* The verb `ringwood bench`: opens the database, runs the workloads in order, reports. */
#include "bench/bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"
#include "bench/arguments.h"
#include "bench/crash.h"
#include "bench/environment.h"
#include "bench/measure.h"
#include "bench/report.h"
#include "bench/scratch.h"

/* Everything that one run of the verb holds. */
typedef struct {
    bench_arguments arguments;
    bench_scratch scratch;      /* used when no directory was given */
    const char *directory;
    rw_db *db;
    bench_dataset dataset;
    bench_environment environment;
    rw_stats_t opened;
    bench_result *results;
    crash_result crash;
    bench_report report;
} bench_session;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&bench_interrupted, true);
}

/* The first interruption ends the workloads and cleans up, the second one ends the process. */
static void interrupt_prepare(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int fail(rw_db *db, int code, const char *what)
{
    const char *words = rw_last_error(db);
    fflush(stdout);
    fprintf(stderr, "error: %s: %s\n", what, words[0] != '\0' ? words : rw_strerror(code));
    return code == RW_EINVAL || code == RW_ETOOBIG ? BENCH_EXIT_USAGE : BENCH_EXIT_STORAGE;
}

/* A directory with a database in it is only ever used when the user said so. */
static int require_no_database(const bench_session *session)
{
    rw_options options = session->arguments.options;
    options.create = 0;
    rw_db *db;
    int code = rw_open(session->directory, &options, &db);
    if (code == RW_ENOENT) return BENCH_EXIT_DONE;
    if (code != 0) return fail(NULL, code, "cannot open the database");
    rw_close(db);
    fprintf(stderr, "error: %s holds a database; --use-existing goes on with one that an earlier benchmark left\n", session->directory);
    return BENCH_EXIT_USAGE;
}

static int dataset_open(bench_session *session)
{
    bench_dataset *dataset = &session->dataset;
    const bench_arguments *arguments = &session->arguments;
    if (arguments->use_existing) {
        int code = bench_dataset_load(dataset, session->db);
        if (code == RW_ENOTFOUND) {
            fprintf(stderr, "error: %s holds no records of an earlier benchmark\n", session->directory);
            return BENCH_EXIT_USAGE;
        }
        if (code != 0) return fail(session->db, code, "cannot use the existing records");
    } else {
        *dataset = (bench_dataset){.records = arguments->records, .key_size = arguments->key_size, .value_size = arguments->value_size,
                                   .hashed = arguments->hashed, .seed = arguments->seed};
    }
    size_t key_size_max = rw_key_size_max((uint32_t)session->opened.page_size);
    if (dataset->key_size > key_size_max) {
        fprintf(stderr, "error: keys of %u bytes: with pages of this size a key has at most %zu\n", dataset->key_size, key_size_max);
        return BENCH_EXIT_USAGE;
    }
    int code = bench_dataset_init(dataset);
    return code == 0 ? BENCH_EXIT_DONE : fail(session->db, code, "cannot make records");
}

static int session_open(bench_session *session)
{
    int code = rw_open(session->directory, &session->arguments.options, &session->db);
    if (code != 0) return fail(NULL, code, "cannot open the database");
    code = rw_stats(session->db, &session->opened);
    if (code != 0) return fail(session->db, code, "cannot read the statistics");
    bench_environment_read(&session->environment, session->directory);
    return dataset_open(session);
}

static int exit_code_of(const bench_result *result)
{
    if (result->code == RW_EINVAL) return BENCH_EXIT_USAGE;
    if (result->code != 0) return BENCH_EXIT_STORAGE;
    return result->wrong > 0 ? BENCH_EXIT_FAILED : BENCH_EXIT_DONE;
}

/* Runs the jobs in order, up to the first that fails. */
static int jobs_run(bench_session *session)
{
    bench_arguments *arguments = &session->arguments;
    bench_report_head(&session->report);
    for (unsigned i = 0; i < arguments->job_count && !atomic_load(&bench_interrupted); i++) {
        bench_request *job = &arguments->jobs[i];
        job->seed = session->dataset.seed + i;
        job->progress = isatty(STDERR_FILENO) != 0;
        bench_result *result = &session->results[i];
        bench_workload_run(session->db, &session->dataset, job, result);
        session->report.count++;
        bench_report_workload(&session->report);
        int status = exit_code_of(result);
        if (status == BENCH_EXIT_DONE) continue;
        fflush(stdout);
        fprintf(stderr, "error: %s\n", result->complaint);
        return status;
    }
    return BENCH_EXIT_DONE;
}

/* Beside the database: in the run's own directory, or under the name of the user's with an ending. */
static int crash_test_run(bench_session *session)
{
    enum { CRASH_CACHE = 16 << 20 }; /* small, so that pages are evicted and checkpoints written all the time */
    char path[PATH_MAX + 16];
    size_t size = strlen(session->directory);
    while (size > 1 && session->directory[size - 1] == '/') size--;
    snprintf(path, sizeof path, "%.*s.crash", (int)size, session->directory);
    crash_request request = {.directory = path, .rounds = session->arguments.crash_rounds, .seed = session->arguments.seed,
                             .progress = isatty(STDERR_FILENO) != 0, .options = session->arguments.options};
    request.options.cache_bytes = RW_MIN(request.options.cache_bytes, (uint64_t)CRASH_CACHE);
    int status = crash_run(&request, &session->crash);
    session->report.crash = &session->crash;
    session->report.interrupted = status == BENCH_EXIT_INTERRUPTED;
    if (status == BENCH_EXIT_DONE || status == BENCH_EXIT_INTERRUPTED)
        return bench_scratch_remove(path) == 0 ? status : fail(NULL, RW_EIO, "cannot clean up");
    fprintf(stderr, "error: %s\n", session->crash.complaint);
    if (status != BENCH_EXIT_USAGE) fprintf(stderr, "kept for inspection: %s\n", path);
    return status;
}

static int session_run(bench_session *session)
{
    int status = session->arguments.use_existing ? BENCH_EXIT_DONE : require_no_database(session);
    if (status != BENCH_EXIT_DONE) return status;
    status = session_open(session);
    bool opened = session->db != NULL, ready = status == BENCH_EXIT_DONE;
    if (ready) status = jobs_run(session);
    if (opened) {
        int code = rw_close(session->db);
        if (code != 0 && status == BENCH_EXIT_DONE) status = fail(NULL, code, "cannot close the database");
    }
    if (!ready) return status;
    session->report.interrupted = atomic_load(&bench_interrupted);
    if (status == BENCH_EXIT_DONE && !session->report.interrupted && session->arguments.crash_rounds > 0) status = crash_test_run(session);
    bench_report_end(&session->report);
    return session->report.interrupted ? BENCH_EXIT_INTERRUPTED : status;
}

/* With a directory of the run's own, which is removed whatever came of it, unless a crash test failed in it. */
static int session_run_in_scratch(bench_session *session)
{
    char path[PATH_MAX + 8];
    int code = bench_scratch_make(&session->scratch, "ringwood-bench");
    if (code != 0) return fail(NULL, code, "cannot begin");
    snprintf(path, sizeof path, "%s/db", session->scratch.path);
    session->directory = path;
    int status = session_run(session);
    bool crash_failed = session->report.crash != NULL && !session->crash.passed && !session->report.interrupted;
    if (crash_failed) return status;
    code = bench_scratch_remove(session->scratch.path);
    return code != 0 && status == BENCH_EXIT_DONE ? fail(NULL, code, "cannot clean up") : status;
}

static void session_free(bench_session *session)
{
    bench_dataset_free(&session->dataset);
    for (unsigned i = 0; i < session->report.count; i++) bench_result_free(&session->results[i]);
    free(session->results);
    free(session);
}

int bench_main(int argc, char **argv)
{
    bench_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        fputs("error: out of memory\n", stderr);
        return BENCH_EXIT_STORAGE;
    }
    int status, parsed = bench_arguments_parse(&session->arguments, argc, argv);
    if (parsed != 0) {
        free(session);
        return parsed > 0 ? BENCH_EXIT_DONE : BENCH_EXIT_USAGE;
    }
    session->results = calloc(session->arguments.job_count, sizeof *session->results);
    session->directory = session->arguments.directory;
    session->report = (bench_report){.arguments = &session->arguments, .dataset = &session->dataset, .environment = &session->environment,
                                     .opened = &session->opened, .results = session->results};
    interrupt_prepare();
    bench_clock_init();
    if (session->results == NULL) status = fail(NULL, rw_error(RW_ENOMEM, "no memory for results"), "cannot begin");
    else status = session->directory != NULL ? session_run(session) : session_run_in_scratch(session);
    session_free(session);
    if (fflush(stdout) != 0 && status == BENCH_EXIT_DONE) return BENCH_EXIT_STORAGE;
    return status;
}
