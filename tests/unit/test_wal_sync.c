/* How the log is made durable: what is measured, kept and believed, and that a batch of durable writes is durable, alone and to the last of them. */
#include <errno.h>

#include "tests/unit/wal_test.h"
#include "wal/wal_internal.h"

#define SEEDS 40u

typedef struct {
    sim_disk *disk;
    sim_world *world;
    kio *k;
    wal *w;
    wal_options options;
    rw_random random;
    unsigned fail_sync;        /* which sync after wal_create fails; 0: none */
    int errno_value;
    int rc;                    /* of wal_start */
    wal_sync mode;
    kio_sync_times times;
    uint64_t end;              /* of the records that were waited for */
    bool good;
    sim_disk *crashed;
} scene;

static void scene_run(scene *s, uint64_t seed, void (*fn)(void *))
{
    s->disk = sim_disk_create();
    s->world = sim_world_open(s->disk, seed);
    s->k = sim_world_kio(s->world);
    s->options.database_id = WAL_TEST_DATABASE;
    s->options.async_delay_ms = 20;
    rw_random_seed(&s->random, seed);
    sim_run(s->world, fn, s);
    sim_world_close(s->world);
    sim_disk_destroy(s->disk);
}

/* Creates and starts the log; what it has decided. */
static void begin(scene *s)
{
    uint64_t end = 0;
    wal_test_seen seen = {.sound = true};
    TAP_CHECK(wal_create(s->k, "", &s->options, &s->w) == 0);
    TAP_CHECK(wal_replay(s->w, WAL_LSN_FIRST, WAL_LSN_FIRST, wal_test_see, &seen, &end) == 0);
    if (s->fail_sync > 0) {
        sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_ERROR, .operations = SIM_ON_SYNC, .path_part = "log", .countdown = s->fail_sync,
                                            .errno_value = s->errno_value});
    }
    s->rc = wal_start(s->w, end);
    s->mode = wal_sync_mode(s->w, &s->times);
}

static void run_start(void *arg)
{
    scene *s = arg;
    begin(s);
    wal_close(s->w);
}

/* ---- the choice ---- */

static bool prefers(uint32_t sync_ns, uint32_t durable_write_ns)
{
    return kio_sync_times_prefer_durable_write(&(kio_sync_times){.device = 1, .sync_ns = sync_ns, .durable_write_ns = durable_write_ns});
}

static void test_rule(void)
{
    tap_ok(prefers(1000, 899) && !prefers(1000, 900) && !prefers(1000, 1000) && !prefers(1000, 4000), "durable writes are taken when they are faster by a tenth");
    tap_ok(!prefers(1000, 0) && prefers(UINT32_MAX, 1) && !prefers(UINT32_MAX, UINT32_MAX) && !prefers(1, UINT32_MAX), "never where there are none; no overflow");
}

static void test_measured(void)
{
    unsigned chosen[3] = {0};
    bool follows = true, measured = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        scene s = {0};
        scene_run(&s, seed, run_start);
        chosen[s.mode]++;
        follows = follows && s.rc == 0 && s.mode == (kio_sync_times_prefer_durable_write(&s.times) ? WAL_SYNC_DSYNC : WAL_SYNC_FDATASYNC);
        measured = measured && s.times.device == 1 && s.times.sync_ns > 0 && s.times.durable_write_ns > 0;
    }
    tap_ok(follows && measured, "without anything kept the log measures, and follows what it finds");
    tap_ok(chosen[WAL_SYNC_FDATASYNC] > 0 && chosen[WAL_SYNC_DSYNC] > 0, "which differs from device to device: %u and %u of %u", chosen[WAL_SYNC_FDATASYNC],
           chosen[WAL_SYNC_DSYNC], SEEDS);
}

static void test_kept(void)
{
    kio_sync_times fast = {.device = 1, .sync_ns = 1000, .durable_write_ns = 10}, slow = {.device = 1, .sync_ns = 1000, .durable_write_ns = 5000};
    kio_sync_times other = {.device = 2, .sync_ns = 1000, .durable_write_ns = 10};
    scene a = {.options.sync_times = fast}, b = {.options.sync_times = slow}, c = {.options.sync_times = other};
    scene_run(&a, 1, run_start);
    scene_run(&b, 1, run_start);
    scene_run(&c, 1, run_start);
    tap_ok(a.mode == WAL_SYNC_DSYNC && memcmp(&a.times, &fast, sizeof fast) == 0 && b.mode == WAL_SYNC_FDATASYNC && memcmp(&b.times, &slow, sizeof slow) == 0,
           "what was kept of this device is believed");
    tap_ok(c.times.device == 1 && c.times.sync_ns != other.sync_ns && c.mode != WAL_SYNC_AUTO, "what was kept of another device is not: it is measured anew");
}

static void test_told(void)
{
    kio_sync_times fast = {.device = 1, .sync_ns = 1000, .durable_write_ns = 10};
    scene a = {.options.sync = WAL_SYNC_FDATASYNC, .options.sync_times = fast}, b = {.options.sync = WAL_SYNC_DSYNC}, c = {.options.read_only = true};
    scene_run(&a, 1, run_start);
    scene_run(&b, 1, run_start);
    scene_run(&c, 1, run_start);
    tap_ok(a.rc == 0 && a.mode == WAL_SYNC_FDATASYNC && a.times.device == 1, "who is told fdatasync does that, whatever was kept");
    tap_ok(b.rc == 0 && b.mode == WAL_SYNC_DSYNC && b.times.device == 0, "who is told dsync measures nothing");
    tap_ok(c.rc == RW_EREADONLY && c.mode == WAL_SYNC_AUTO && c.times.device == 0, "a log that is only read decides nothing");
}

/* wal_start syncs the zeroed slot, then the start block; then comes the measuring, or the trial. */
static void test_impossible(void)
{
    scene a = {.fail_sync = 4, .errno_value = EOPNOTSUPP}, b = {.options.sync = WAL_SYNC_DSYNC, .fail_sync = 3, .errno_value = EOPNOTSUPP};
    scene_run(&a, 1, run_start);
    tap_ok(a.rc == 0 && a.mode == WAL_SYNC_FDATASYNC && a.times.device == 1 && a.times.sync_ns > 0 && a.times.durable_write_ns == 0,
           "a file system without durable writes is written without them");
    scene_run(&b, 1, run_start);
    tap_ok(b.rc == RW_ENOTSUP && strstr(rw_error_text(), "log_sync: dsync") != NULL, "who insists is told: %s", rw_error_text());
}

static void test_failing(void)
{
    bool good = true;
    for (unsigned number = 1; number <= 4; number++) {
        scene s = {.fail_sync = number, .errno_value = EIO};
        scene_run(&s, 1, run_start);
        good = good && s.rc == RW_EIO && (number > 2 || s.times.device == 0);
    }
    tap_ok(good, "a sync or durable write that fails at the start is final");
}

/* ---- the writing ---- */

/* Some records, each waited for, over the end of a segment; then the power goes. */
static void run_writing(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end = 0;
    begin(s);
    s->good = s->rc == 0;
    for (uint32_t i = 0; i < 40 && s->good; i++) {
        uint32_t size = WAL_TEST_HEADER + (uint32_t)rw_random_below(&s->random, RW_LOG_STAGING_BYTES / 2);
        s->good = wal_test_append(s->w, 0, 0, i, size, &lsn, &end) == 0 && wal_wait(s->w, end) == 0;
    }
    s->end = end;
    s->crashed = sim_disk_crash_styled(s->disk, SIM_CRASH_DROP_ALL, &s->random);
    wal_close(s->w);
}

static void run_reading(void *arg)
{
    scene *s = arg;
    uint64_t end = 0;
    wal_test_seen seen;
    int rc = wal_test_reopen(s->k, "", WAL_LSN_FIRST, s->end, &s->w, &seen, &end);
    s->good = rc == 0 && end == s->end && seen.sound && seen.count == 40;
    if (s->w != NULL) wal_close(s->w);
}

static void test_writing(void)
{
    bool good = true;
    for (unsigned mode = WAL_SYNC_FDATASYNC; mode <= WAL_SYNC_DSYNC; mode++) {
        for (uint64_t seed = 1; seed <= 10; seed++) {
            scene s = {.options.sync = (wal_sync)mode};
            scene_run(&s, seed, run_writing);
            good = good && s.good;
            wal_test_run(s.crashed, seed, run_reading, &s, &s.k);
            good = good && s.good;
            sim_disk_destroy(s.crashed);
        }
    }
    tap_ok(good, "in both ways, what was waited for is there when all that was not durable is dropped");
}

static void run_failing_write(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end = 0;
    begin(s);
    TAP_CHECK(s->rc == 0 && wal_test_append(s->w, 0, 0, 0, 500, &lsn, &end) == 0 && wal_wait(s->w, end) == 0);
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_ERROR, .operations = SIM_ON_SYNC, .path_part = "log", .countdown = 1, .errno_value = EIO});
    TAP_CHECK(wal_test_append(s->w, 0, 0, 1, 500, &lsn, &end) == 0);
    s->good = wal_wait(s->w, end) == RW_EUNKNOWN && wal_durable_lsn(s->w) < end && wal_test_append(s->w, 0, 0, 2, 500, &lsn, &end) == RW_EREADONLY;
    s->rc = wal_close(s->w);
}

static void test_failing_write(void)
{
    bool good = true;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        scene s = {.options.sync = WAL_SYNC_DSYNC};
        scene_run(&s, seed, run_failing_write);
        good = good && s.good && s.rc == RW_EIO;
    }
    tap_ok(good, "a durable write that fails is as final as a failed sync");
}

int main(void)
{
    test_rule();
    test_measured();
    test_kept();
    test_told();
    test_impossible();
    test_failing();
    test_writing();
    test_failing_write();
    return tap_done();
}
