/* Runs of one seed: with crashes, or with faults. */
#include "tests/crash/crash_run.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#define DISK_BYTES (512u << 20)    /* far more than any run needs: growth without end is found */

static struct {
    const char *kind;
    char line[160];
} note;

void crash_note(const char *kind, uint64_t seed, int64_t state)
{
    note.kind = kind;
    int size = snprintf(note.line, sizeof note.line, "# replay: crash_sim%s --seed %llu", kind, (unsigned long long)seed);
    if (state >= 0) snprintf(note.line + size, sizeof note.line - (size_t)size, " --state %lld", (long long)state);
}

void crash_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("not ok 1 - ");
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n%s\n", note.line);
    fflush(NULL);
    _exit(1);
}

/* For a signal handler: the line alone. */
void crash_note_write(void)
{
    ssize_t written = write(1, note.line, strlen(note.line));
    written += write(1, "\n", 1);
    (void)written;
}

void crash_expect_ok(int rc, const char *what)
{
    if (rc != 0) crash_fail("%s: %s: %s", what, rw_strerror(rc), rw_last_error(NULL));
}

void crash_run_open(crash_run *run, uint64_t seed, sim_disk *disk)
{
    *run = (crash_run){.only_state = -1};
    crash_plan_draw(&run->plan, seed);
    rw_random_seed(&run->random, seed ^ 0x5eed);
    rw_random_seed(&run->capture_random, seed ^ 0xcafe);
    for (uint32_t i = 0; i < run->plan.clients; i++) crash_history_open(&run->histories[i], &run->plan, i);
    shared_open(&run->shared, &run->plan, run->histories);
    sim_disk_limit(disk, DISK_BYTES);
    run->world = sim_world_open(disk, rw_random_next(&run->random));
    run->k = sim_world_kio(run->world);
    sim_step_limit(run->world, CRASH_STEP_LIMIT);
}

void crash_run_close(crash_run *run)
{
    sim_world_close(run->world);
    shared_close(&run->shared);
    for (uint32_t i = 0; i < run->plan.clients; i++) crash_history_close(&run->histories[i]);
}

crash_met crash_met_all;

void crash_run_met(crash_run *run)
{
    rw_stats_t stats = {0};
    if (rw_stats(run->db, &stats) != 0) return;
#define CRASH_MET_ADD(name) crash_met_all.name += stats.name;
    CRASH_MET_MAP(CRASH_MET_ADD)
#undef CRASH_MET_ADD
    if (strcmp(stats.log_sync, "dsync") == 0) crash_met_all.rounds_dsync++;
    else crash_met_all.rounds_fdatasync++;
    crash_met_all.partitions_max = RW_MAX(crash_met_all.partitions_max, stats.partitions);
}

void crash_met_print(void)
{
#define CRASH_MET_PRINT(name) printf("# %s: %llu\n", #name, (unsigned long long)crash_met_all.name);
    CRASH_MET_MAP(CRASH_MET_PRINT)
#undef CRASH_MET_PRINT
    printf("# operations in queues: %llu, cancelled: %llu, queues closed with some under way: %llu\n", (unsigned long long)crash_met_all.queue_operations,
           (unsigned long long)crash_met_all.queue_cancelled, (unsigned long long)crash_met_all.queue_closed);
    printf("# rounds with fdatasync: %llu, with dsync: %llu\n", (unsigned long long)crash_met_all.rounds_fdatasync, (unsigned long long)crash_met_all.rounds_dsync);
    printf("# partitions, at most: %llu\n", (unsigned long long)crash_met_all.partitions_max);
}

void crash_run_check_shared(crash_run *run)
{
    char text[1600];
    if (!shared_check(&run->shared, text, sizeof text)) crash_fail("shared keys: %s", text);
}

void crash_capture(void *arg)
{
    crash_run *run = arg;
    if (run->states == run->states_max || run->until_capture-- > 0) return;
    run->until_capture = rw_random_below(&run->capture_random, 2 * run->plan.capture_mean);
    int64_t state = run->states++;
    if (run->only_state >= 0 && run->only_state != state) return;
    rw_random random;
    rw_random_seed(&random, run->plan.seed * 0x9E3779B97F4A7C15u + (uint64_t)state);
    crash_note(note.kind, run->plan.seed, state);
    sim_disk *disk = sim_world_disk(run->world), *crashed;
    crashed = rw_random_below(&random, 6) == 0 ? sim_disk_kill(disk, &random) : sim_disk_crash(disk, &random);
    crash_check_disk(run, crashed, &random);
    sim_disk_destroy(crashed);
    crash_note(note.kind, run->plan.seed, -1);
}

void crash_seed_repeats(uint64_t seed)
{
    uint64_t hashes[2];
    crash_note("", seed, -1);
    for (unsigned i = 0; i < 2; i++) {
        crash_run run;
        sim_disk *disk = sim_disk_create();
        crash_run_open(&run, seed, disk);
        sim_run(run.world, crash_run_main, &run);
        hashes[i] = sim_world_trace_hash(run.world);
        crash_run_close(&run);
        sim_disk_destroy(disk);
    }
    if (hashes[0] != hashes[1]) crash_fail("seed %llu does not run the same way twice", (unsigned long long)seed);
}

uint32_t crash_seed_crashes(uint64_t seed, uint32_t states_max, int64_t only_state)
{
    crash_run run;
    sim_disk *disk = sim_disk_create();
    crash_note("", seed, -1);
    crash_run_open(&run, seed, disk);
    run.states_max = states_max;
    run.only_state = only_state;
    run.until_capture = rw_random_below(&run.capture_random, 20 * run.plan.capture_mean);
    sim_step_hook(run.world, crash_capture, &run);
    sim_run(run.world, crash_run_main, &run);
    crash_run_check_shared(&run);
    uint32_t checked = run.checked;
    crash_run_close(&run);
    sim_disk_destroy(disk);
    return checked;
}
