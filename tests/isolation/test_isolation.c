/*
 * Random transactions of every mode on real files, under load and with a tiny cache, checked for anomalies. Without arguments: the suite, as TAP, of
 * ISOLATION_TRANSACTIONS for each mode, 300,000 unless told otherwise (CHECK_LONG=1: 100,000,000). With arguments: one run, which prints figures.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/planted.h"
#include "tests/isolation/workload.h"
#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

#define TINY_SHARE 25u                 /* of a mode's transactions when there are many: one in so many */

static const char *const mode_names[WORKLOAD_MODES] = {"snapshot", "serializable", "pessimistic", "mixed"};

typedef struct {
    workload_options workload;
    rw_options database;
} run_options;

/* load: everything fits, others write, checkpoint and compact. tiny: a small part of the data fits. */
static run_options options_of(workload_mode mode, bool tiny, uint64_t transactions, uint64_t seed)
{
    run_options options = {.workload = {mode, transactions, 65536, 8, 1024, tiny ? 40000 : 10000, 1, seed, true}};
    rw_options_init(&options.database);
    options.database.cache_bytes = (tiny ? 1 : 64) * MIB;
    options.database.log_bytes = 16 * MIB;
    options.database.partition_bytes = 128 << 10;
    options.database.lock_timeout_ms = 1000;
    options.database.workers = 2;
    return options;
}

static bool run_in(const char *dir, const run_options *options, workload_report *report)
{
    rw_db *db = open_or_exit(dir, &options->database);
    bool sound = workload_run(db, &options->workload, report);
    int code = rw_close(db);
    if (code != 0 && report->failure[0] == 0) snprintf(report->failure, sizeof(report->failure), "rw_close: %d: %s", code, rw_last_error(NULL));
    return sound && code == 0;
}

static bool run_once(const run_options *options, workload_report *report)
{
    char dir[DIRS_PATH_MAX];
    if (!dir_make(dir, "isolation")) return false;
    bool sound = run_in(dir, options, report);
    if (sound && (rw_verify(dir, note_finding, NULL) != 0)) {
        snprintf(report->failure, sizeof(report->failure), "rw_verify found the database damaged");
        sound = false;
    }
    dir_remove(dir);
    return sound;
}

static void print_report(const workload_report *report)
{
    tap_diag("%llu transactions, %llu committed, %llu operations, in %llu rounds: %.0f/s run, %.0f/s checked", (unsigned long long)report->transactions,
             (unsigned long long)report->committed, (unsigned long long)report->operations, (unsigned long long)report->rounds,
             (double)report->transactions / report->run_seconds, (double)report->transactions / report->check_seconds);
    tap_diag("%llu conflicts, %llu deadlocks, %llu timeouts, %llu snapshots too old, %llu times no memory for locks; "
             "edges: %llu ww, %llu wr, %llu rw, %llu of them of ranges; "
             "%llu writes unordered, %llu absent reads unresolved", (unsigned long long)report->conflicts, (unsigned long long)report->deadlocks,
             (unsigned long long)report->timeouts, (unsigned long long)report->snapshots_too_old,
             (unsigned long long)report->lock_memory, (unsigned long long)report->ww, (unsigned long long)report->wr,
             (unsigned long long)report->rw, (unsigned long long)report->rw_range, (unsigned long long)report->unordered,
             (unsigned long long)report->unresolved);
    if (report->skews != 0) tap_diag("%llu of the rounds could not have been serializable", (unsigned long long)report->skews);
    if (report->failure[0] != 0) tap_diag("%s", report->failure);
}

static void check_mode(workload_mode mode, bool tiny, uint64_t transactions, uint64_t seed)
{
    run_options options = options_of(mode, tiny, transactions, seed);
    workload_report report = {0};
    bool sound = run_once(&options, &report);
    if (!tap_ok(sound, "%s, %s: no anomaly", mode_names[mode], tiny ? "tiny cache" : "load"))
        tap_diag("replay: test_isolation --mode %s %s--transactions %llu --seed %llu", mode_names[mode], tiny ? "--tiny " : "",
                 (unsigned long long)transactions, (unsigned long long)seed);
    print_report(&report);
    if (!sound) return;
    tap_ok(report.transactions >= transactions && report.committed > transactions / 4, "%llu transactions, %llu committed",
           (unsigned long long)report.transactions, (unsigned long long)report.committed);
    if (mode == WORKLOAD_SNAPSHOT && transactions >= 50000)
        tap_ok(report.skews > 0, "the same histories are rejected where serializable is asked for: %llu rounds", (unsigned long long)report.skews);
}

static int run_suite(void)
{
#if defined(RW_TINY) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    const bool slow = true;
#else
    const bool slow = false;
#endif
    uint64_t of_mode = number_from("ISOLATION_TRANSACTIONS", slow ? 8000 : check_long() ? 100000000 : 300000);
    uint64_t of_tiny = of_mode / (slow ? 2 : TINY_SHARE);  /* with a tiny cache they are ten times slower */
    uint64_t seed = number_from("ISOLATION_SEED", (uint64_t)time(NULL));
    for (workload_mode mode = 0; mode < WORKLOAD_MODES; mode++)
        for (int tiny = 0; tiny < 2; tiny++) check_mode(mode, tiny, tiny ? of_tiny : of_mode - of_tiny, seed);
    return tap_done();
}

static int usage(void)
{
    fprintf(stderr, "usage: test_isolation [--mode snapshot|serializable|pessimistic|mixed] [--tiny] [--transactions N] [--round N] [--threads N]\n"
                    "                      [--keys N] [--filler N] [--load-threads N] [--seed N] [--set OPTION=VALUE]... [--dir DIR]\n"
                    "                      [--planted BUG]\n"
                    "OPTION: one of rw_options_set's. Without arguments: the suite; ISOLATION_TRANSACTIONS, ISOLATION_SEED, CHECK_LONG=1.\n");
    return 2;
}

static bool set_option(run_options *options, const char *pair)
{
    char name[64];
    const char *value = strchr(pair, '=');
    if (value == NULL || (size_t)(value - pair) >= sizeof(name)) return false;
    memcpy(name, pair, (size_t)(value - pair));
    name[value - pair] = 0;
    return rw_options_set(&options->database, name, value + 1) == 0;
}

static bool parse_number(run_options *options, const char *name, const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    workload_options *w = &options->workload;
    if (*end != 0 || *text == 0) return false;
    if (strcmp(name, "--transactions") == 0) w->transactions = value;
    else if (strcmp(name, "--round") == 0) w->round = (uint32_t)value;
    else if (strcmp(name, "--threads") == 0) w->threads = (uint32_t)value;
    else if (strcmp(name, "--keys") == 0) w->keys = (uint32_t)value;
    else if (strcmp(name, "--filler") == 0) w->filler = (uint32_t)value;
    else if (strcmp(name, "--load-threads") == 0) w->load_threads = (uint32_t)value;
    else if (strcmp(name, "--seed") == 0) w->seed = value;
    else return false;
    return true;
}

/* Only a build with -DRW_PLANTED_BUGS has any. */
static bool parse_planted(const char *text)
{
#ifdef RW_PLANTED_BUGS
#define PLANTED_IS(name, kind, words) if (strcmp(text, #name) == 0) return (rw_planted = RW_PLANTED_##name) != RW_PLANTED_none;
    RW_PLANTED_MAP(PLANTED_IS)
#undef PLANTED_IS
#endif
    (void)text;
    return false;
}

static bool parse_mode(run_options *options, const char *text)
{
    for (workload_mode mode = 0; mode < WORKLOAD_MODES; mode++)
        if (strcmp(text, mode_names[mode]) == 0) {
            options->workload.mode = mode;
            return true;
        }
    return false;
}

static bool options_sound(const workload_options *w)
{
    return w->transactions > 0 && w->round > 0 && w->threads > 0 && w->threads <= 256 && w->keys >= 16 && w->keys <= 1u << 20 &&
           (w->keys & (w->keys - 1)) == 0 && (uint64_t)w->filler + w->keys < 99999999;
}

int main(int argc, char **argv)
{
    if (argc == 1) return run_suite();
    bool tiny = false;
    const char *dir = NULL;
    for (int i = 1; i < argc; i++) tiny = tiny || strcmp(argv[i], "--tiny") == 0;
    run_options options = options_of(WORKLOAD_MIXED, tiny, 1000000, 1);
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--tiny") == 0) continue;
        if (++i == argc) return usage();
        bool good = strcmp(name, "--mode") == 0 ? parse_mode(&options, argv[i]) : strcmp(name, "--set") == 0 ? set_option(&options, argv[i])
                    : strcmp(name, "--planted") == 0 ? parse_planted(argv[i])
                    : strcmp(name, "--dir") == 0 ? (dir = argv[i]) != NULL : parse_number(&options, name, argv[i]);
        if (!good) return usage();
    }
    if (!options_sound(&options.workload)) return usage();
    workload_report report = {0};
    bool sound = dir != NULL ? run_in(dir, &options, &report) : run_once(&options, &report);
    print_report(&report);
    printf("%s\n", sound ? "sound" : "NOT SOUND");
    return sound ? 0 : 1;
}
