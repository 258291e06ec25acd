/* The verb `ringwood crash`: starts the writer, kills it, opens the database, compares; round after round. */
#include "bench/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "bench/arguments.h"
#include "bench/bench.h"
#include "bench/crash_model.h"
#include "bench/measure.h"
#include "bench/report.h"
#include "bench/scratch.h"
#include "bench/parse.h"

enum { PATIENCE_MS = 120000, WORKERS_MAX = 3, CACHE_BYTES = 16 << 20, CACHE_BYTES_READ_ONLY = 256 << 20 };

typedef enum { KILL_RUNNING, KILL_OPENING, KILL_IN_CHECKPOINT, KILL_CLOSING, LET_CLOSE, PLANS } kill_plan;

static const char *const plan_names[PLANS] = {"running", "opening", "in a checkpoint", "closing", "none, it closes"};

typedef struct {
    const crash_request *request;
    crash_result *result;
    rw_random random;
    crash_shared *shared;
    int shared_fd;
    crash_state state;          /* what the database holds between rounds */
    double *recoveries_ms;
    unsigned recovery_count;
    /* this round */
    uint64_t round;
    kill_plan plan;
    uint64_t delay_us;
    pid_t writer;
    bool was_killed;
    uint64_t commits;
} crash_run_state;

static int broken(crash_run_state *run, const char *what)
{
    snprintf(run->result->complaint, sizeof run->result->complaint, "round %" PRIu64 " (kill: %s): %s", run->round, plan_names[run->plan], what);
    return BENCH_EXIT_FAILED;
}

static int call_failed(crash_run_state *run, rw_db *db, int code, const char *call)
{
    const char *words = rw_last_error(db);
    snprintf(run->result->complaint, sizeof run->result->complaint, "round %" PRIu64 " (kill: %s): %s: %.300s", run->round, plan_names[run->plan], call,
             words[0] != '\0' ? words : rw_strerror(code));
    return code == RW_ECORRUPT ? BENCH_EXIT_FAILED : BENCH_EXIT_STORAGE;
}

static void sleep_us(uint64_t us)
{
    struct timespec time = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) continue;
}

static uint64_t draw_log(rw_random *random, double least, double most)
{
    return (uint64_t)(least * pow(most / least, rw_random_unit(random)));
}

/* The first round proves that something was written and killed; after that, any moment. */
static void round_plan(crash_run_state *run)
{
    uint64_t draw = run->round == 0 ? 0 : rw_random_below(&run->random, 100);
    if (draw < 45) {
        run->plan = KILL_RUNNING;
        run->delay_us = run->round == 0 ? 200000 : draw_log(&run->random, 500, 400000);
    } else if (draw < 60) {
        run->plan = KILL_OPENING;
        run->delay_us = draw_log(&run->random, 300, 50000);
    } else if (draw < 80) {
        run->plan = KILL_IN_CHECKPOINT;
        run->delay_us = rw_random_below(&run->random, 4000);
    } else if (draw < 95) {
        run->plan = KILL_CLOSING;
        run->delay_us = draw_log(&run->random, 50, 30000);
    } else {
        run->plan = LET_CLOSE;
        run->delay_us = 0;
    }
}

static void shared_prepare(crash_run_state *run)
{
    crash_shared *shared = run->shared;
    memset(shared, 0, sizeof *shared);
    shared->seed = run->request->seed;
    shared->round = run->round;
    shared->options = run->request->options;
    shared->options.logger = NULL;
    shared->options.logger_arg = NULL;
    /* Opening with another number of workers only assigns partitions anew. */
    if (shared->options.workers == 0) shared->options.workers = 1 + (uint32_t)rw_random_below(&run->random, WORKERS_MAX);
    snprintf(shared->io_backend, sizeof shared->io_backend, "%s", run->request->options.io_backend);
    snprintf(shared->log_sync, sizeof shared->log_sync, "%s", run->request->options.log_sync);
    shared->state = run->state;
}

/* This program again, with the hidden argument: a fresh process that shares nothing with this one but the counters. */
static int writer_start(crash_run_state *run)
{
    char fd[16];
    snprintf(fd, sizeof fd, "%d", run->shared_fd);
    char *const arguments[] = {(char[]){"ringwood"}, (char[]){"crash"}, (char[]){"--writer"}, fd, (char *)(uintptr_t)run->request->directory, NULL};
    fflush(NULL);
    run->writer = fork();
    if (run->writer < 0) return broken(run, "cannot start the writer"), BENCH_EXIT_STORAGE;
    if (run->writer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_IGN); /* a terminal sends it to the writer too, which only the parent may end */
        execv("/proc/self/exe", arguments);
        _exit(127);
    }
    return BENCH_EXIT_DONE;
}

/* Waits until the writer came to a phase, or ended by itself. false: neither within the patience. */
static bool writer_wait_phase(crash_run_state *run, crash_phase phase)
{
    for (uint64_t begin = bench_clock_monotonic_ns(); bench_clock_monotonic_ns() - begin < PATIENCE_MS * UINT64_C(1000000);) {
        if (atomic_load(&run->shared->phase) >= (uint32_t)phase || atomic_load(&run->shared->failed)) return true;
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_PID, (id_t)run->writer, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) return true;
        sleep_us(100);
    }
    return false;
}

/* Waits for the moment at which the writer is to die. false: it hangs. */
static bool moment_await(crash_run_state *run)
{
    crash_shared *shared = run->shared;
    if (run->plan != KILL_OPENING && !writer_wait_phase(run, CRASH_OPENED)) return false;
    if (run->plan == KILL_IN_CHECKPOINT) {
        sleep_us(rw_random_below(&run->random, 100000));
        for (int i = 0; i < 20000 && !atomic_load(&shared->in_checkpoint); i++) sleep_us(50);
    } else if (run->plan == KILL_CLOSING || run->plan == LET_CLOSE) {
        sleep_us(rw_random_below(&run->random, 150000));
        atomic_store(&shared->close_wanted, true);
        if (run->plan == LET_CLOSE) return writer_wait_phase(run, CRASH_CLOSED);
        if (!writer_wait_phase(run, CRASH_CLOSING)) return false;
    }
    sleep_us(run->delay_us);
    return true;
}

/* Lets it run, kills it, and notes what it was doing. */
static int writer_kill(crash_run_state *run)
{
    crash_shared *shared = run->shared;
    bool alive = moment_await(run);
    int status;
    if (run->plan != LET_CLOSE || !alive) kill(run->writer, SIGKILL);
    while (waitpid(run->writer, &status, 0) < 0)
        if (errno != EINTR) return broken(run, "the writer cannot be waited for"), BENCH_EXIT_STORAGE;
    if (atomic_load(&shared->failed)) return broken(run, shared->failure);
    if (!alive) return broken(run, "the writer did not get on for two minutes");
    run->was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!run->was_killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        char words[80];
        snprintf(words, sizeof words, "the writer ended by itself, %s %d", WIFSIGNALED(status) ? "by signal" : "with exit code",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        return broken(run, words);
    }
    if (!run->was_killed) return BENCH_EXIT_DONE;
    uint32_t phase = atomic_load(&shared->phase);
    run->result->killed++;
    run->result->killed_opening += phase == CRASH_STARTED;
    run->result->killed_closing += phase == CRASH_CLOSING;
    run->result->killed_in_checkpoint += phase == CRASH_OPENED && atomic_load(&shared->in_checkpoint);
    return BENCH_EXIT_DONE;
}

static void finding_keep(void *arg, const char *finding)
{
    char *first = arg;
    if (first[0] == '\0') snprintf(first, 300, "%s", finding);
}

static int verify(crash_run_state *run, const char *when)
{
    char finding[300] = "", words[400];
    int code = rw_verify(run->request->directory, finding_keep, finding);
    if (code == 0) return BENCH_EXIT_DONE;
    if (code != RW_ECORRUPT) return call_failed(run, NULL, code, "rw_verify");
    snprintf(words, sizeof words, "rw_verify %s: %s", when, finding[0] != '\0' ? finding : rw_last_error(NULL));
    return broken(run, words);
}

static void bounds_read(const crash_run_state *run, crash_bounds *bounds)
{
    *bounds = (crash_bounds){.seed = run->request->seed, .round = run->round};
    for (unsigned i = 0; i < CRASH_LANES; i++) {
        bounds->durable[i] = atomic_load(&run->shared->lanes[i].durable);
        bounds->started[i] = atomic_load(&run->shared->lanes[i].started);
    }
}

static int compare(crash_run_state *run, rw_db *db)
{
    char complaint[400];
    crash_bounds bounds;
    bounds_read(run, &bounds);
    int code = crash_check(db, &bounds, &run->state, &run->result->records, complaint, sizeof complaint);
    if (code == RW_ENOTFOUND && complaint[0] != '\0') return broken(run, complaint);
    if (code != 0) return call_failed(run, db, code, "reading the database");
    run->commits = 0;
    for (unsigned i = 0; i < CRASH_LANES; i++) run->commits += bounds.durable[i];
    run->result->commits += run->commits;
    return BENCH_EXIT_DONE;
}

/*
 * Opens, compares, closes. In every other round read-only: then what the crash left stays as it is, the next writer has to recover from
 * it again, and is perhaps killed in the middle of that.
 */
static int database_check(crash_run_state *run)
{
    rw_options options = run->request->options;
    rw_db *db;
    options.read_only = run->round % 2 == 1;
    /* What a read-only opening replays stays in memory, all of it: it needs room for every page that the log changed. */
    if (options.read_only) options.cache_bytes = RW_MAX(options.cache_bytes, (uint64_t)CACHE_BYTES_READ_ONLY);
    uint64_t begin = bench_clock_monotonic_ns();
    int code = rw_open(run->request->directory, &options, &db);
    if (code != 0) return call_failed(run, NULL, code, "rw_open after the kill");
    if (run->was_killed) run->recoveries_ms[run->recovery_count++] = (double)(bench_clock_monotonic_ns() - begin) / 1e6;
    int status = compare(run, db);
    code = rw_close(db);
    if (status == BENCH_EXIT_DONE && code != 0) status = call_failed(run, NULL, code, "rw_close");
    return status == BENCH_EXIT_DONE ? verify(run, "after the check") : status;
}

static int round_run(crash_run_state *run)
{
    round_plan(run);
    shared_prepare(run);
    int status = writer_start(run);
    if (status == BENCH_EXIT_DONE) status = writer_kill(run);
    if (status == BENCH_EXIT_DONE) status = database_check(run);
    if (status != BENCH_EXIT_DONE) return status;
    run->result->rounds++;
    if (run->request->progress)
        fprintf(stderr, "round %3" PRIu64 "  %-16s %-10s %8" PRIu64 " commits found again, opened in %.1f ms\n", run->round, plan_names[run->plan],
                run->was_killed ? "killed" : "not killed", run->commits,
                run->was_killed ? run->recoveries_ms[run->recovery_count - 1] : 0.0);
    return BENCH_EXIT_DONE;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int rounds_run(crash_run_state *run)
{
    uint64_t begin = bench_clock_monotonic_ns();
    int status = BENCH_EXIT_DONE;
    for (; status == BENCH_EXIT_DONE && run->round < run->request->rounds && !atomic_load(&bench_interrupted); run->round++) {
        double elapsed = (double)(bench_clock_monotonic_ns() - begin) / 1e9;
        if (run->request->seconds_max > 0 && elapsed > run->request->seconds_max) break;
        status = round_run(run);
    }
    if (run->recovery_count > 0) {
        qsort(run->recoveries_ms, run->recovery_count, sizeof *run->recoveries_ms, compare_double);
        run->result->recovery_ms_median = run->recoveries_ms[run->recovery_count / 2];
        run->result->recovery_ms_max = run->recoveries_ms[run->recovery_count - 1];
    }
    if (status != BENCH_EXIT_DONE) return status;
    if (atomic_load(&bench_interrupted)) return broken(run, "interrupted before all rounds were done"), BENCH_EXIT_INTERRUPTED;
    if (run->result->killed == 0 || run->result->commits == 0)
        return broken(run, "nothing was proven: no writer was killed after it had been told that a commit is durable");
    return BENCH_EXIT_DONE;
}

/* The directory must hold no database: the test knows only what it wrote itself. */
static int require_no_database(crash_run_state *run)
{
    rw_options options = run->request->options;
    options.create = 0;
    rw_db *db;
    int code = rw_open(run->request->directory, &options, &db);
    if (code == RW_ENOENT) return BENCH_EXIT_DONE;
    if (code != 0) return call_failed(run, NULL, code, "rw_open before the first round");
    rw_close(db);
    snprintf(run->result->complaint, sizeof run->result->complaint, "%.400s holds a database already", run->request->directory);
    return BENCH_EXIT_USAGE;
}

static int shared_make(crash_run_state *run)
{
    run->shared_fd = memfd_create("ringwood-crash", 0);
    if (run->shared_fd < 0 || ftruncate(run->shared_fd, sizeof *run->shared) != 0) return -1;
    void *memory = mmap(NULL, sizeof *run->shared, PROT_READ | PROT_WRITE, MAP_SHARED, run->shared_fd, 0);
    if (memory == MAP_FAILED) return -1;
    run->shared = memory;
    return 0;
}

int crash_run(const crash_request *request, crash_result *result)
{
    memset(result, 0, sizeof *result);
    result->exit_code = BENCH_EXIT_STORAGE;
    snprintf(result->complaint, sizeof result->complaint, "no memory for the crash test");
    crash_run_state *run = calloc(1, sizeof *run);
    if (run == NULL) return result->exit_code;
    run->request = request;
    run->result = result;
    run->recoveries_ms = calloc(request->rounds + 1, sizeof *run->recoveries_ms);
    rw_random_seed(&run->random, request->seed);
    if (run->recoveries_ms != NULL && shared_make(run) == 0) {
        result->complaint[0] = '\0';
        result->exit_code = require_no_database(run);
        if (result->exit_code == BENCH_EXIT_DONE) result->exit_code = rounds_run(run);
    }
    result->passed = result->exit_code == BENCH_EXIT_DONE;
    if (run->shared != NULL) munmap(run->shared, sizeof *run->shared);
    if (run->shared_fd > 0) close(run->shared_fd);
    free(run->recoveries_ms);
    free(run);
    return result->exit_code;
}

static const char usage[] =
    "usage: ringwood crash [DIR] [options]\n"
    "\n"
    "Starts a process that writes, kills it at a random moment, and checks that every commit it was told is durable is there, whole, and nothing\n"
    "that was never written; again and again on one database. In DIR, which is created and kept, or in a directory made under the present one and\n"
    "removed when the test passed.\n"
    "\n"
    "  --rounds N             (20)\n"
    "  --seconds-max S        no round begins later than this\n"
    "  --seed N               of what is written and of the moments of the kills (drawn)\n"
    "  --cache BYTES          memory limit of the database (16M)\n"
    "  --workers N            worker threads (another number in each round)\n"
    "  --page-size BYTES      (4K)\n"
    "  --io-backend NAME      auto, uring or psync (auto)\n"
    "  --set NAME=VALUE       any option of the library\n"
    "  --format table|json|csv\n"
    "  --help\n";

static const struct option option_table[] = {
    {"rounds", required_argument, NULL, 'r'},    {"seconds-max", required_argument, NULL, 't'}, {"seed", required_argument, NULL, 's'},
    {"cache", required_argument, NULL, 'c'},     {"workers", required_argument, NULL, 'w'},     {"page-size", required_argument, NULL, 'p'},
    {"io-backend", required_argument, NULL, 'i'}, {"set", required_argument, NULL, 'S'},         {"format", required_argument, NULL, 'f'},
    {"help", no_argument, NULL, 'h'},            {NULL, 0, NULL, 0},
};

static bool option_take(crash_request *request, bench_format *format, int option, const char *text)
{
    uint64_t number;
    switch (option) {
    case 'r':
        if (!bench_parse_count(text, 1, 1000000, &number)) return false;
        request->rounds = (unsigned)number;
        return true;
    case 't': return bench_parse_seconds(text, &request->seconds_max);
    case 's': return bench_parse_count(text, 0, INT64_MAX, &request->seed);
    case 'c': return rw_options_set(&request->options, "cache", text) == 0;
    case 'w': return rw_options_set(&request->options, "workers", text) == 0;
    case 'p': return rw_options_set(&request->options, "page_size", text) == 0;
    case 'i': return rw_options_set(&request->options, "io_backend", text) == 0;
    case 'f': return bench_parse_format(text, format);
    default: return bench_parse_setting(&request->options, text) == 0;
    }
}

/* 0, 1 when help was printed, -1 when a mistake was explained. */
static int arguments_parse(crash_request *request, bench_format *format, int argc, char **argv)
{
    *request = (crash_request){.rounds = 20, .seed = (uint64_t)time(NULL) % 1000000, .progress = isatty(STDERR_FILENO) != 0};
    rw_options_init(&request->options);
    request->options.cache_bytes = CACHE_BYTES;
    optind = 0;
    int option, index = 0;
    while ((option = getopt_long(argc, argv, ":", option_table, &index)) != -1) {
        if (option == 'h') return fputs(usage, stdout), 1;
        if (option == '?' || option == ':') return bench_option_refuse(argv[optind - 1], option == ':');
        if (option_take(request, format, option, optarg)) continue;
        fprintf(stderr, "error: --%s %s: not a value it takes\n", option_table[index].name, optarg);
        return -1;
    }
    if (optind < argc) request->directory = argv[optind++];
    if (optind < argc) fprintf(stderr, "error: '%s' is one argument too many\n", argv[optind]);
    bool can_write = request->options.create && !request->options.read_only;
    if (!can_write) fprintf(stderr, "error: the test writes a database of its own: create must be 1 and read_only 0\n");
    return optind < argc || !can_write ? -1 : 0;
}

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&bench_interrupted, true);
}

static int run_and_report(const crash_request *request, bench_format format)
{
    crash_result result;
    int status = crash_run(request, &result);
    bench_report_crash(format, request, &result);
    fflush(stdout);
    if (status != BENCH_EXIT_DONE) fprintf(stderr, "error: %s\n", result.complaint);
    if (status == BENCH_EXIT_FAILED || status == BENCH_EXIT_STORAGE)
        fprintf(stderr, "replay: ringwood crash --seed %" PRIu64 " --rounds %u; kept for inspection: %s\n", request->seed, result.rounds + 1, request->directory);
    return status;
}

int crash_main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--writer") == 0) return crash_writer_main(argv[3], atoi(argv[2]));
    crash_request request;
    bench_format format = BENCH_TABLE;
    bench_scratch scratch;
    int parsed = arguments_parse(&request, &format, argc, argv);
    if (parsed != 0) return parsed > 0 ? BENCH_EXIT_DONE : BENCH_EXIT_USAGE;
    signal(SIGINT, on_interrupt);
    bench_clock_init();
    if (request.directory != NULL) return run_and_report(&request, format);
    if (bench_scratch_make(&scratch, "ringwood-crash") != 0) {
        fprintf(stderr, "error: %s\n", rw_last_error(NULL));
        return BENCH_EXIT_STORAGE;
    }
    request.directory = scratch.path;
    int status = run_and_report(&request, format);
    bool done = status == BENCH_EXIT_DONE || status == BENCH_EXIT_INTERRUPTED;
    if (done && bench_scratch_remove(scratch.path) != 0) {
        fprintf(stderr, "error: %s\n", rw_last_error(NULL));
        return BENCH_EXIT_STORAGE;
    }
    return status;
}
