/* Runs in which the machine fails or lies while the clients work. Every call returns right data or an error, and nothing durable is lost. */
#include <errno.h>
#include <stdlib.h>

#include "tests/crash/crash_run.h"

typedef enum { SCENE_ERRORS, SCENE_FULL, SCENE_DELAYS, SCENE_LIES, SCENE_ROT_AT_REST } fault_scene;

/* Errors are the most various. */
static const fault_scene scenes[] = {SCENE_ERRORS, SCENE_ERRORS, SCENE_ERRORS, SCENE_FULL, SCENE_DELAYS, SCENE_LIES, SCENE_ROT_AT_REST};

#define CRASHES_AMID_ERRORS 3u

#define DATA_PATH "db/data"
#define LOG_PATH "db/log"

static uint64_t draw_countdown(rw_random *random)
{
    return 1 + rw_random_below(random, (uint64_t)1 << rw_random_below(random, 12));
}

static const char *draw_path(rw_random *random)
{
    static const char *const paths[] = {NULL, DATA_PATH, LOG_PATH};
    return paths[rw_random_below(random, RW_ARRAY_SIZE(paths))];
}

static void plan_errors(crash_run *run, rw_random *random)
{
    if (rw_random_below(random, 4) == 0) {   /* what it covered is lost, and must not be believed later */
        sim_fault_add(run->world, (sim_fault){.kind = SIM_FAULT_ERROR, .operations = SIM_ON_SYNC, .path_part = LOG_PATH,
                                              .countdown = draw_countdown(random), .errno_value = EIO});
        return;
    }
    for (uint64_t i = 1 + rw_random_below(random, 2); i > 0; i--) {
        sim_fault fault = {.kind = SIM_FAULT_ERROR, .countdown = draw_countdown(random), .path_part = draw_path(random)};
        fault.operations = 1u << rw_random_below(random, 4);
        fault.forever = rw_random_below(random, 3) == 0;
        fault.errno_value = fault.operations != SIM_ON_READ && fault.operations != SIM_ON_SYNC && rw_random_below(random, 2) == 0 ? ENOSPC : EIO;
        sim_fault_add(run->world, fault);
    }
}

static void plan_delays(crash_run *run, rw_random *random)
{
    for (uint64_t i = 20; i > 0; i--) {
        sim_fault_add(run->world, (sim_fault){.kind = SIM_FAULT_DELAY, .operations = SIM_ON_READ | SIM_ON_WRITE | SIM_ON_SYNC,
                                              .countdown = draw_countdown(random), .delay_ns = rw_random_below(random, 2000000000)});
    }
}

/* Lies about the data file only: a log that lies about its own end cannot be found out. */
static void plan_lies(crash_run *run, rw_random *random)
{
    static const sim_fault_kind kinds[] = {SIM_FAULT_MISDIRECT, SIM_FAULT_LOSE, SIM_FAULT_ROT};
    for (uint64_t i = 1 + rw_random_below(random, 3); i > 0; i--) {
        sim_fault fault = {.kind = kinds[rw_random_below(random, RW_ARRAY_SIZE(kinds))], .path_part = DATA_PATH};
        fault.operations = fault.kind != SIM_FAULT_LOSE && rw_random_below(random, 2) == 0 ? SIM_ON_READ : SIM_ON_WRITE;
        fault.countdown = 20 + draw_countdown(random);
        sim_fault_add(run->world, fault);
    }
}

/* Turns a few bits, or a few sectors, of the file. */
static void rot_at_rest(sim_disk *disk, const char *path, rw_random *random)
{
    uint64_t size;
    if (!sim_disk_size(disk, path, &size) || size == 0) return;
    for (uint64_t i = 1 + rw_random_below(random, 6); i > 0; i--) {
        uint64_t at = rw_random_below(random, size);
        if (rw_random_below(random, 3) == 0) {
            unsigned char junk[SIM_SECTOR_BYTES];
            for (size_t byte = 0; byte < sizeof junk; byte++) junk[byte] = (unsigned char)rw_random_next(random);
            sim_disk_write(disk, path, at / SIM_SECTOR_BYTES * SIM_SECTOR_BYTES, junk, sizeof junk);
        } else {
            sim_disk_flip(disk, path, at, (unsigned)rw_random_below(random, 8));
        }
    }
}

static void scene_plan(crash_run *run, fault_scene scene, rw_random *random)
{
    switch (scene) {
    case SCENE_ERRORS: plan_errors(run, random); break;
    case SCENE_FULL: sim_disk_limit(sim_world_disk(run->world), (300u << 10) + rw_random_below(random, 3u << 20)); break;
    case SCENE_DELAYS: plan_delays(run, random); break;
    case SCENE_LIES: plan_lies(run, random); break;
    default: break;
    }
}

/* After the run: what must be found on its disk, or on what a power cut leaves of it. */
static void scene_check(crash_run *run, fault_scene scene, sim_disk *disk, rw_random *random)
{
    sim_disk_limit(disk, UINT64_MAX);
    sim_disk *after = sim_disk_crash(disk, random);
    if (scene == SCENE_ROT_AT_REST) {
        bool hits_log = rw_random_below(random, 3) == 0;
        rot_at_rest(after, hits_log ? LOG_PATH : DATA_PATH, random);
        crash_check_damaged(run, after, random, hits_log);
    } else if (scene == SCENE_LIES) {
        if (run->was_opened) crash_check_damaged(run, after, random, false);
    } else {
        crash_check_disk(run, after, random);
    }
    sim_disk_destroy(after);
}

uint32_t crash_seed_faults(uint64_t seed)
{
    crash_run run;
    rw_random random;
    sim_disk *disk = sim_disk_create();
    crash_note(" --faults", seed, -1);
    rw_random_seed(&random, seed ^ 0xfa017);
    crash_run_open(&run, seed, disk);
    fault_scene scene = scenes[rw_random_below(&random, RW_ARRAY_SIZE(scenes))];
    run.faults = scene != SCENE_ROT_AT_REST && scene != SCENE_DELAYS;
    scene_plan(&run, scene, &random);
    if (scene == SCENE_ERRORS) {   /* a power cut after a failure finds more than one after the close that follows */
        run.states_max = CRASHES_AMID_ERRORS;
        run.until_capture = rw_random_below(&run.capture_random, 100 * run.plan.capture_mean);
        sim_step_hook(run.world, crash_capture, &run);
    }
    sim_run(run.world, crash_run_main, &run);
    crash_run_check_shared(&run);
    run.faults = true;
    scene_check(&run, scene, disk, &random);
    uint32_t checked = run.checked;
    crash_run_close(&run);
    sim_disk_destroy(disk);
    return checked;
}
