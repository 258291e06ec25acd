/*
 * ringwood by itself, at sizes that grow:
 *
 *   scale recovery DIR   a log of --log bytes is left by a killed process, and replayed: operations a second, time until the first answer
 *   scale open DIR       a database of --records, closed cleanly: time until the first answer
 *   scale curve DIR      from 10,000 records to --records, times ten each: time of a get and a put, of an open, memory, size, height
 *
 * Each measurement is made in a process of its own. A table goes to stdout; --json FILE takes the same rows.
 */
#include "bench/figures/scale.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "bench/environment.h"
#include "bench/measure.h"
#include "bench/parse.h"

#define LOAD_BATCH 500u

static const char usage[] =
    "usage: scale recovery|open|curve DIR [options]\n"
    "  --records N        records (recovery: 2M, those that are overwritten; open: 20M; curve: 10M, the most)\n"
    "  --log SIZE         recovery: the log to be replayed (1G)\n"
    "  --value-size N     bytes (recovery, open: 100; curve: 8); keys have 16\n"
    "  --cache SIZE       memory (recovery: 1G; else 256M)\n"
    "  --rounds N         recovery, open: how often (3)\n"
    "  --seconds S        curve: of each measurement (3)\n"
    "  --set NAME=VALUE   an option of the library\n"
    "  --json FILE        writes the rows there, too\n";

_Noreturn void scale_fail(const char *what, const char *why)
{
    fprintf(stderr, "scale: %s: %s\n", what, why);
    exit(1);
}

void scale_expect(int code, const char *what)
{
    if (code != 0) scale_fail(what, rw_last_error(NULL));
}

double scale_seconds(void)
{
    return (double)bench_clock_monotonic_ns() * 1e-9;
}

/* ---- records ---- */

void scale_key_make(char key[SCALE_KEY_BYTES], uint64_t number)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < SCALE_KEY_BYTES; i++) key[i] = digits[number >> (60 - 4 * i) & 15];
}

void scale_value_make(const scale_plan *plan, char *value, uint64_t number)
{
    memset(value, (int)(number % 251), plan->value_bytes);
    memcpy(value, &number, RW_MIN(sizeof number, plan->value_bytes));
}

void scale_get(const scale_plan *plan, rw_db *db, uint64_t number)
{
    char key[SCALE_KEY_BYTES], value[SCALE_VALUE_BYTES_MAX], expected[SCALE_VALUE_BYTES_MAX];
    size_t size = sizeof value;
    scale_key_make(key, number);
    scale_value_make(plan, expected, number);
    scale_expect(rw_get(db, RW_DEFAULT_BUCKET, (rw_slice){key, sizeof key}, value, &size), "get");
    if (size != plan->value_bytes || memcmp(value, expected, size) != 0) scale_fail("get", "wrong value");
}

void scale_put(const scale_plan *plan, rw_db *db, uint64_t number)
{
    char key[SCALE_KEY_BYTES], value[SCALE_VALUE_BYTES_MAX];
    scale_key_make(key, number);
    scale_value_make(plan, value, number);
    scale_expect(rw_put(db, RW_DEFAULT_BUCKET, (rw_slice){key, sizeof key}, (rw_slice){value, plan->value_bytes}, RW_ASYNC), "put");
}

void scale_load(const scale_plan *plan, rw_db *db, uint64_t records)
{
    rw_batch *batch;
    scale_expect(rw_batch_new(db, &batch), "batch");
    for (uint64_t number = 0; number < records;) {
        for (unsigned i = 0; i < LOAD_BATCH && number < records; i++, number++) {
            char key[SCALE_KEY_BYTES], value[SCALE_VALUE_BYTES_MAX];
            scale_key_make(key, number);
            scale_value_make(plan, value, number);
            scale_expect(rw_batch_put(batch, RW_DEFAULT_BUCKET, (rw_slice){key, sizeof key}, (rw_slice){value, plan->value_bytes}), "batch");
        }
        scale_expect(rw_batch_commit(batch, RW_ASYNC), "commit");
    }
    rw_batch_free(batch);
}

/* ---- processes ---- */

void *scale_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) scale_fail("memory", "none");
    return memory;
}

_Noreturn void scale_kill_self(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

void scale_process(const scale_plan *plan, const char *path, scale_work work, void *result, bool to_be_killed)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        work(plan, path, result);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) scale_fail("fork", "no process");
    bool good = to_be_killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!good) scale_fail(path, "the process that works on it did not end as it should");
}

/* ---- output ---- */

static void json_row(scale_plan *plan, const char *figure, const scale_column *columns, unsigned count)
{
    fprintf(plan->json, "%s\n    {\"figure\": \"%s\"", plan->rows == 0 ? "" : ",", figure);
    for (unsigned i = 0; i < count; i++) fprintf(plan->json, ", \"%s\": %.9g", columns[i].name, columns[i].value);
    fputs("}", plan->json);
}

void scale_row_print(scale_plan *plan, const char *figure, const scale_column *columns, unsigned count)
{
    for (unsigned i = 0; i < count && plan->rows == 0; i++) printf("%s%*s", i == 0 ? "" : "  ", (int)RW_MAX(strlen(columns[i].name), (size_t)11), columns[i].name);
    if (plan->rows == 0) puts("");
    for (unsigned i = 0; i < count; i++) {
        int width = (int)RW_MAX(strlen(columns[i].name), (size_t)11);
        printf("%s%*.*f", i == 0 ? "" : "  ", width, (int)columns[i].digits, columns[i].value);
    }
    puts("");
    fflush(stdout);
    if (plan->json != NULL) json_row(plan, figure, columns, count);
    plan->rows++;
}

static void head_print(const scale_plan *plan, const char *figure)
{
    bench_environment e;
    bench_environment_read(&e, plan->directory);
    printf("%s: keys %u B, values %u B, cache %llu MiB\n%s, %u processors; %s; %s (%s) on %s\n", figure, SCALE_KEY_BYTES, plan->value_bytes,
           (unsigned long long)(plan->options.cache_bytes >> 20), e.processor, e.cpus, e.kernel, e.file_system, e.mount_options, e.device);
    if (plan->json == NULL) return;
    fprintf(plan->json, "{\n  \"processor\": \"%s\", \"processors\": %u, \"kernel\": \"%s\", \"file_system\": \"%s\", \"device\": \"%s\",\n", e.processor,
            e.cpus, e.kernel, e.file_system, e.device);
    fprintf(plan->json, "  \"key_bytes\": %u, \"value_bytes\": %u, \"cache_bytes\": %llu,\n  \"rows\": [", SCALE_KEY_BYTES, plan->value_bytes,
            (unsigned long long)plan->options.cache_bytes);
}

/* ---- arguments ---- */

typedef struct {
    const char *name;
    void (*run)(scale_plan *plan);
    uint64_t records, cache_bytes;
    uint32_t value_bytes;
} figure;

static const figure figures[] = {
    {"recovery", scale_recovery, 2000000, (uint64_t)1 << 30, 100},
    {"open", scale_open, 20000000, (uint64_t)256 << 20, 100},
    {"curve", scale_curve, 10000000, (uint64_t)256 << 20, 8},
};

static bool setting_take(rw_options *options, char *text)
{
    char *equals = strchr(text, '=');
    if (equals == NULL) return false;
    *equals = 0;
    scale_expect(rw_options_set(options, text, equals + 1), "--set");
    return true;
}

static bool argument_take(scale_plan *plan, int option, char *text)
{
    uint64_t number = 0;
    bool good;
    switch (option) {
    case 'r': return bench_parse_count(text, 1000, 10000000000, &plan->records);
    case 'l': return bench_parse_bytes(text, 1 << 20, (uint64_t)64 << 30, &plan->log_bytes);
    case 'c': return bench_parse_bytes(text, 1 << 20, (uint64_t)1 << 40, &plan->options.cache_bytes);
    case 's': return bench_parse_seconds(text, &plan->seconds);
    case 'o': return setting_take(&plan->options, text);
    case 'j': return (plan->json = fopen(text, "we")) != NULL;
    case 'v':
        good = bench_parse_count(text, 8, SCALE_VALUE_BYTES_MAX, &number);
        plan->value_bytes = (uint32_t)number;
        return good;
    case 'n':
        good = bench_parse_count(text, 1, 100, &number);
        plan->rounds = (unsigned)number;
        return good;
    default: return false;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"records", required_argument, NULL, 'r'}, {"log", required_argument, NULL, 'l'},     {"cache", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 's'}, {"set", required_argument, NULL, 'o'},     {"json", required_argument, NULL, 'j'},
        {"rounds", required_argument, NULL, 'n'},  {"value-size", required_argument, NULL, 'v'}, {0},
    };
    const figure *chosen = NULL;
    for (size_t i = 0; i < RW_ARRAY_SIZE(figures) && argc > 2; i++)
        if (strcmp(argv[1], figures[i].name) == 0) chosen = &figures[i];
    if (chosen == NULL) {
        fputs(usage, stderr);
        return 2;
    }
    scale_plan plan = {.directory = argv[2], .records = chosen->records, .log_bytes = (uint64_t)1 << 30,
                       .value_bytes = chosen->value_bytes, .rounds = 3, .seconds = 3};
    rw_options_init(&plan.options);
    plan.options.cache_bytes = chosen->cache_bytes;
    optind = 3;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (argument_take(&plan, option, optarg)) continue;
        fputs(usage, stderr);
        return 2;
    }
    bench_clock_init();
    head_print(&plan, chosen->name);
    chosen->run(&plan);
    if (plan.json != NULL) fputs("\n  ]\n}\n", plan.json);
    return plan.json == NULL || fclose(plan.json) == 0 ? 0 : 1;
}
