#include "bench/arguments.h"
#include "bench/in_flight.h"
#include "bench/parse.h"

#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/base.h"

enum { DURABLE_THREADS = 16, STANDARD_CRASH_ROUNDS = 10 };
static const double standard_seconds = 10;

static const char usage[] =
    "usage: ringwood bench [DIR] [options]\n"
    "\n"
    "Measures a database in DIR, which is created and kept, or in a directory made under the present one and removed at the end.\n"
    "Every answer is verified. Without --workloads: random writes, durable writes, random reads, range scans, then the crash recovery test.\n"
    "\n"
    "  --workloads LIST       comma separated, run in order over one database; each may be followed by :sync, :async, :threads=N\n"
    "                         and, for txn, a mode\n"
    "  --records N            records loaded (1M)\n"
    "  --key-size BYTES       4 or more (16)\n"
    "  --value-size BYTES     0 or more (100)\n"
    "  --keys numeric|hashed  keys are their big-endian numbers, or hashes of them (numeric)\n"
    "  --threads N            client threads (one for each processor)\n"
    "  --ops N                operations of each workload, but for those that touch every record once\n"
    "  --seconds S            time limit of each workload, but for those that touch every record once\n"
    "  --rate N               open loop: N operations a second over all threads, latencies from the intended start; not for those that touch\n"
    "                         every record once\n"
    "  --series               also what happened in each second: operations, p50, p99.9, longest\n"
    "  --sync, --async        each write returns when it is durable; or when it is visible, and the clock stops when all are durable (--async)\n"
    "  --batch N              writes in a commit, for fills, overwrite and deleterandom (1)\n"
    "  --in-flight N          each thread has N operations under way together, by a queue of the library; for workloads of gets and updates\n"
    "                         alone: readrandom, overwrite, mixed, ycsb-a, ycsb-b, ycsb-c\n"
    "  --scan-length N        records in a scan (100)\n"
    "  --read-share PERCENT   of mixed (50)\n"
    "  --distribution uniform|zipfian|latest\n"
    "                         for readrandom, scan, overwrite, mixed and txn (uniform)\n"
    "  --txn-mode snapshot|serializable|pessimistic\n"
    "                         of txn (snapshot)\n"
    "  --txn-reads N, --txn-writes N\n"
    "                         records that a transaction of txn gets, and puts (2, 2)\n"
    "  --seed N               of records, draws and kills (drawn)\n"
    "  --crash-rounds N       rounds of the crash recovery test at the end; 0: none (10, and 0 when workloads are named)\n"
    "  --cache BYTES          memory limit of the database (256M)\n"
    "  --workers N            worker threads (one for each processor)\n"
    "  --page-size BYTES      of a new database (4K)\n"
    "  --io-backend NAME      auto, uring or psync (auto)\n"
    "  --set NAME=VALUE       any option of the library\n"
    "  --use-existing         go on with the records that an earlier run left in DIR\n"
    "  --format table|json|csv\n"
    "  --histogram            also the whole latency distribution (table and json)\n"
    "  --help\n"
    "\n"
    "Counts take k, M, G (thousands), bytes K, M, G (powers of 1024).\n"
    "\n"
    "Workloads:\n";

enum {
    OPTION_WORKLOADS = 256, OPTION_RECORDS, OPTION_KEY_SIZE, OPTION_VALUE_SIZE, OPTION_KEYS, OPTION_THREADS, OPTION_OPS, OPTION_SECONDS, OPTION_RATE, OPTION_SERIES, OPTION_SYNC,
    OPTION_ASYNC, OPTION_BATCH, OPTION_IN_FLIGHT, OPTION_SCAN_LENGTH, OPTION_READ_SHARE, OPTION_DISTRIBUTION, OPTION_TXN_MODE, OPTION_TXN_READS,
    OPTION_TXN_WRITES, OPTION_SEED, OPTION_CRASH_ROUNDS, OPTION_CACHE,
    OPTION_WORKERS, OPTION_PAGE_SIZE, OPTION_IO_BACKEND, OPTION_SET, OPTION_USE_EXISTING, OPTION_FORMAT, OPTION_HISTOGRAM, OPTION_HELP,
};

static const struct option option_table[] = {
    {"workloads", required_argument, NULL, OPTION_WORKLOADS},
    {"records", required_argument, NULL, OPTION_RECORDS},
    {"key-size", required_argument, NULL, OPTION_KEY_SIZE},
    {"value-size", required_argument, NULL, OPTION_VALUE_SIZE},
    {"keys", required_argument, NULL, OPTION_KEYS},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"ops", required_argument, NULL, OPTION_OPS},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"series", no_argument, NULL, OPTION_SERIES},
    {"sync", no_argument, NULL, OPTION_SYNC},
    {"async", no_argument, NULL, OPTION_ASYNC},
    {"batch", required_argument, NULL, OPTION_BATCH},
    {"in-flight", required_argument, NULL, OPTION_IN_FLIGHT},
    {"scan-length", required_argument, NULL, OPTION_SCAN_LENGTH},
    {"read-share", required_argument, NULL, OPTION_READ_SHARE},
    {"distribution", required_argument, NULL, OPTION_DISTRIBUTION},
    {"txn-mode", required_argument, NULL, OPTION_TXN_MODE},
    {"txn-reads", required_argument, NULL, OPTION_TXN_READS},
    {"txn-writes", required_argument, NULL, OPTION_TXN_WRITES},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"crash-rounds", required_argument, NULL, OPTION_CRASH_ROUNDS},
    {"cache", required_argument, NULL, OPTION_CACHE},
    {"workers", required_argument, NULL, OPTION_WORKERS},
    {"page-size", required_argument, NULL, OPTION_PAGE_SIZE},
    {"io-backend", required_argument, NULL, OPTION_IO_BACKEND},
    {"set", required_argument, NULL, OPTION_SET},
    {"use-existing", no_argument, NULL, OPTION_USE_EXISTING},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {"histogram", no_argument, NULL, OPTION_HISTOGRAM},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

bool bench_parse_format(const char *text, bench_format *format)
{
    static const char *const names[] = {[BENCH_TABLE] = "table", [BENCH_JSON] = "json", [BENCH_CSV] = "csv"};
    for (unsigned i = 0; i < RW_ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i]) != 0) continue;
        *format = (bench_format)i;
        return true;
    }
    return false;
}

static const struct {
    const char *name;
    unsigned mode;
} modes[] = {{"snapshot", RW_SNAPSHOT}, {"serializable", RW_SERIALIZABLE}, {"pessimistic", RW_PESSIMISTIC}};

static bool parse_mode(const char *text, unsigned *mode)
{
    for (unsigned i = 0; i < RW_ARRAY_SIZE(modes); i++) {
        if (strcmp(text, modes[i].name) != 0) continue;
        *mode = modes[i].mode;
        return true;
    }
    return false;
}

const char *bench_mode_name(unsigned mode)
{
    unsigned i = 0;
    while (modes[i].mode != mode) i++;
    return modes[i].name;
}

int bench_parse_setting(rw_options *options, const char *text)
{
    const char *equals = strchr(text, '=');
    char name[64];
    if (equals == NULL || (size_t)(equals - text) >= sizeof name) return rw_error(RW_EINVAL, "'%s' is not of the form name=value", text);
    memcpy(name, text, (size_t)(equals - text));
    name[equals - text] = '\0';
    return rw_options_set(options, name, equals + 1);
}

static bool parse_distribution(const char *text, bench_distribution *distribution)
{
    static const char *const names[] = {[BENCH_UNIFORM] = "uniform", [BENCH_ZIPFIAN] = "zipfian", [BENCH_LATEST] = "latest"};
    for (unsigned i = 0; i < RW_ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i]) != 0) continue;
        *distribution = (bench_distribution)i;
        return true;
    }
    return false;
}

static unsigned processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

/* One workload with what may follow its name, size bytes long. */
static bool job_parse(const char *text, size_t size, const bench_request *common, bench_request *job)
{
    *job = *common;
    size_t name = 0;
    while (name < size && text[name] != ':') name++;
    job->workload = bench_workload_find(text, name);
    if (job->workload == NULL) return false;
    for (size_t at = name; at < size;) {
        size_t end = ++at;
        while (end < size && text[end] != ':') end++;
        char word[32];
        uint64_t threads;
        if (end - at >= sizeof word) return false;
        memcpy(word, text + at, end - at);
        word[end - at] = '\0';
        if (strcmp(word, "sync") == 0) job->sync = true;
        else if (strcmp(word, "async") == 0) job->sync = false;
        else if (strncmp(word, "threads=", 8) == 0 && bench_parse_count(word + 8, 1, BENCH_THREADS_MAX, &threads)) job->threads = (unsigned)threads;
        else if (job->workload->shares[BENCH_TRANSACTION] == 0 || !parse_mode(word, &job->txn_mode)) return false;
        at = end;
    }
    return true;
}

static bool jobs_parse(bench_arguments *arguments, const char *list, const bench_request *common)
{
    for (const char *at = list;;) {
        size_t size = strcspn(at, ",");
        if (arguments->job_count == BENCH_JOBS_MAX) {
            fprintf(stderr, "error: more than %u workloads\n", BENCH_JOBS_MAX);
            return false;
        }
        if (!job_parse(at, size, common, &arguments->jobs[arguments->job_count])) {
            fprintf(stderr, "error: '%.*s' is not a workload; 'ringwood bench --help' lists them\n", (int)size, at);
            return false;
        }
        arguments->job_count++;
        if (at[size] == '\0') return true;
        at += size + 1;
    }
}

/* Random writes, then as many durable ones as a group of threads gets, random reads, range scans. */
static void jobs_standard(bench_arguments *arguments, bench_request *common)
{
    static const char *const names[] = {"fillrandom", "overwrite", "readrandom", "scan"};
    arguments->standard_job = true;
    if (common->seconds == 0 && common->operations == 0) common->seconds = standard_seconds;
    for (unsigned i = 0; i < RW_ARRAY_SIZE(names); i++) {
        bench_request *job = &arguments->jobs[arguments->job_count++];
        *job = *common;
        job->workload = bench_workload_find(names[i], strlen(names[i]));
    }
    arguments->jobs[1].sync = true;
    arguments->jobs[1].threads = RW_MAX(common->threads, (unsigned)DURABLE_THREADS);
}

static void help_print(void)
{
    fputs(usage, stdout);
    for (const bench_workload *w = bench_workloads; w->name != NULL; w++) printf("  %-13s %s\n", w->name, w->text);
}

/* Options of the library under names of their own. */
static int library_option(rw_options *options, int option, const char *text)
{
    switch (option) {
    case OPTION_CACHE: return rw_options_set(options, "cache", text);
    case OPTION_WORKERS: return rw_options_set(options, "workers", text);
    case OPTION_PAGE_SIZE: return rw_options_set(options, "page_size", text);
    case OPTION_IO_BACKEND: return rw_options_set(options, "io_backend", text);
    default: return bench_parse_setting(options, text);
    }
}

static bool shape_option(bench_arguments *arguments, int option, const char *text)
{
    uint64_t number = 0;
    bool parsed = true;
    switch (option) {
    case OPTION_RECORDS: parsed = bench_parse_count(text, 1, (uint64_t)1 << 40, &arguments->records); break;
    case OPTION_KEY_SIZE:
        parsed = bench_parse_bytes(text, BENCH_KEY_SIZE_MIN, RW_PAGE_SIZE_MAX, &number);
        arguments->key_size = (uint32_t)number;
        break;
    case OPTION_VALUE_SIZE:
        parsed = bench_parse_bytes(text, 0, BENCH_VALUE_SIZE_MAX, &number);
        arguments->value_size = (uint32_t)number;
        break;
    default:
        arguments->hashed = strcmp(text, "hashed") == 0;
        parsed = arguments->hashed || strcmp(text, "numeric") == 0;
        break;
    }
    arguments->shape_given = true;
    return parsed;
}

static bool run_option(bench_request *common, int option, const char *text)
{
    uint64_t number = 0;
    bool parsed;
    switch (option) {
    case OPTION_THREADS: parsed = bench_parse_count(text, 1, BENCH_THREADS_MAX, &number); common->threads = (unsigned)number; break;
    case OPTION_OPS: parsed = bench_parse_count(text, 1, (uint64_t)1 << 50, &common->operations); break;
    case OPTION_SECONDS: parsed = bench_parse_seconds(text, &common->seconds); break;
    case OPTION_RATE: parsed = bench_parse_count(text, 1, 1000000000, &number); common->rate = (double)number; break;
    case OPTION_SERIES: common->series = true; return true;
    case OPTION_BATCH: parsed = bench_parse_count(text, 1, 1000000, &number); common->batch = (uint32_t)number; break;
    case OPTION_IN_FLIGHT: parsed = bench_parse_count(text, 1, BENCH_IN_FLIGHT_MAX, &number); common->in_flight = (uint32_t)number; break;
    case OPTION_SCAN_LENGTH: parsed = bench_parse_count(text, 1, 1000000000, &number); common->scan_length = (uint32_t)number; break;
    case OPTION_READ_SHARE: parsed = bench_parse_count(text, 0, 100, &number); common->read_share = (unsigned)number; break;
    case OPTION_DISTRIBUTION: parsed = parse_distribution(text, &common->distribution); break;
    case OPTION_TXN_MODE: parsed = parse_mode(text, &common->txn_mode); break;
    case OPTION_TXN_READS: parsed = bench_parse_count(text, 0, BENCH_TRANSACTION_KEYS_MAX, &number); common->txn_reads = (uint32_t)number; break;
    case OPTION_TXN_WRITES: parsed = bench_parse_count(text, 0, BENCH_TRANSACTION_KEYS_MAX, &number); common->txn_writes = (uint32_t)number; break;
    case OPTION_SYNC: common->sync = true; return true;
    default: common->sync = false; return true;
    }
    return parsed;
}

/* One option. false when its argument makes no sense; *words then says why, where there is more to say. */
static bool option_take(bench_arguments *arguments, bench_request *common, const char **list, int option, const char *text, const char **words)
{
    uint64_t number = 0;
    bool parsed = true;
    switch (option) {
    case OPTION_WORKLOADS: *list = text; break;
    case OPTION_RECORDS: case OPTION_KEY_SIZE: case OPTION_VALUE_SIZE: case OPTION_KEYS: return shape_option(arguments, option, text);
    case OPTION_SEED: return bench_parse_count(text, 0, INT64_MAX, &arguments->seed);
    case OPTION_CRASH_ROUNDS:
        parsed = bench_parse_count(text, 0, 1000000, &number);
        arguments->crash_rounds = (unsigned)number;
        break;
    case OPTION_CACHE: case OPTION_WORKERS: case OPTION_PAGE_SIZE: case OPTION_IO_BACKEND: case OPTION_SET:
        parsed = library_option(&arguments->options, option, text) == 0;
        if (!parsed) *words = rw_last_error(NULL);
        break;
    case OPTION_USE_EXISTING: arguments->use_existing = true; break;
    case OPTION_FORMAT: return bench_parse_format(text, &arguments->format);
    case OPTION_HISTOGRAM: arguments->histogram = true; break;
    default: return run_option(common, option, text);
    }
    return parsed;
}

/* --in-flight that no workload takes would do nothing; and what is under way together is in no batch. */
static const char *in_flight_contradiction(const bench_arguments *arguments)
{
    bool taken = false;
    for (unsigned i = 0; i < arguments->job_count; i++) {
        const bench_request *job = &arguments->jobs[i];
        if (job->in_flight == 0) return NULL;
        bool takes = bench_workload_takes_in_flight(job->workload);
        if (takes && job->workload->batches && job->batch > 1) return "--in-flight and --batch: what is under way together is not in one commit";
        taken = taken || takes;
    }
    return taken ? NULL : "--in-flight: none of the workloads consists of gets and updates alone";
}

static const char *contradiction(const bench_arguments *arguments)
{
    if (arguments->use_existing && arguments->directory == NULL) return "--use-existing needs DIR";
    if (arguments->use_existing && arguments->shape_given) return "with --use-existing, records and their sizes are those that DIR holds";
    if (arguments->histogram && arguments->format == BENCH_CSV) return "--histogram goes with --format=table or json";
    if (arguments->options.read_only) return "a benchmark writes down what it did: read_only is not possible";
    if (in_flight_contradiction(arguments) != NULL) return in_flight_contradiction(arguments);
    for (unsigned i = 0; i < arguments->job_count; i++)
        if (arguments->jobs[i].txn_reads + arguments->jobs[i].txn_writes == 0) return "a transaction of nothing: --txn-reads or --txn-writes must be more than 0";
    for (unsigned i = 0; arguments->hashed && i < arguments->job_count; i++)
        if (strcmp(arguments->jobs[i].workload->name, "fillseq") == 0) return "fillseq writes in key order, which --keys hashed does not know";
    return NULL;
}

int bench_arguments_parse(bench_arguments *arguments, int argc, char **argv)
{
    memset(arguments, 0, sizeof *arguments);
    rw_options_init(&arguments->options);
    arguments->records = 1000000;
    arguments->key_size = 16;
    arguments->value_size = 100;
    arguments->crash_rounds = UINT_MAX;
    arguments->seed = (uint64_t)time(NULL) % 1000000;
    bench_request common = {.threads = RW_MIN(processors(), BENCH_THREADS_MAX), .batch = 1, .scan_length = 100, .read_share = 50, .txn_reads = 2, .txn_writes = 2};
    const char *list = NULL;
    optind = 0;
    int option, index = 0;
    while ((option = getopt_long(argc, argv, ":", option_table, &index)) != -1) {
        const char *words = "";
        if (option == OPTION_HELP) return help_print(), 1;
        if (option == '?' || option == ':') return bench_option_refuse(argv[optind - 1], option == ':');
        if (option_take(arguments, &common, &list, option, optarg, &words)) continue;
        fprintf(stderr, "error: --%s %s: %s\n", option_table[index].name, optarg, words[0] != '\0' ? words : "not a value it takes");
        return -1;
    }
    if (optind < argc) arguments->directory = argv[optind++];
    if (optind < argc) {
        fprintf(stderr, "error: '%s' is one argument too many\n", argv[optind]);
        return -1;
    }
    if (list == NULL) jobs_standard(arguments, &common);
    else if (!jobs_parse(arguments, list, &common)) return -1;
    if (arguments->crash_rounds == UINT_MAX) arguments->crash_rounds = list == NULL ? STANDARD_CRASH_ROUNDS : 0;
    const char *mistake = contradiction(arguments);
    if (mistake != NULL) fprintf(stderr, "error: %s\n", mistake);
    return mistake != NULL ? -1 : 0;
}
