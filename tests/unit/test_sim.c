/* The simulator keeps its own rules: determinism, what a crash may take, faults, futexes, rings, nesting. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "tests/support/tap.h"

#define SEEDS 200u

typedef struct {
    sim_world *world;
    kio *k;
    _Atomic uint32_t word, other;
    uint64_t counter;
    kio_ring *ring;
    int descriptor;
    sim_disk *crashed;
    rw_random random;
    unsigned seen;
} scene;

static void scene_run(scene *s, sim_disk *disk, uint64_t seed, void (*fn)(void *))
{
    rw_random_seed(&s->random, seed + 1000);
    s->world = sim_world_open(disk, seed);
    s->k = sim_world_kio(s->world);
    sim_step_limit(s->world, 2000000);
    sim_run(s->world, fn, s);
}

/* One world over a new disk, all closed at the end. */
static uint64_t scene_once(uint64_t seed, void (*fn)(void *))
{
    scene s = {0};
    sim_disk *disk = sim_disk_create();
    scene_run(&s, disk, seed, fn);
    uint64_t hash = sim_world_trace_hash(s.world);
    sim_world_close(s.world);
    sim_disk_destroy(disk);
    return hash;
}

static kio_file *open_file(scene *s, const char *path)
{
    kio_file *file = NULL;
    TAP_CHECK(kio_file_open(s->k, path, KIO_CREATE, &file) == 0);
    return file;
}

static void write_fill(scene *s, kio_file *file, unsigned char fill, size_t length, uint64_t offset)
{
    unsigned char *bytes = malloc(length);
    memset(bytes, fill, length);
    TAP_CHECK(kio_file_write(s->k, file, bytes, length, offset) == 0);
    free(bytes);
}

/* How many of the sectors of the range hold only that byte. */
static unsigned sectors_of(const sim_disk *disk, const char *path, unsigned char fill, uint64_t offset, unsigned sectors)
{
    unsigned count = 0;
    for (unsigned i = 0; i < sectors; i++) {
        unsigned char bytes[SIM_SECTOR_BYTES], expected[SIM_SECTOR_BYTES];
        memset(expected, fill, sizeof expected);
        if (!sim_disk_read(disk, path, offset + i * SIM_SECTOR_BYTES, bytes, sizeof bytes)) return 0;
        count += memcmp(bytes, expected, sizeof bytes) == 0;
    }
    return count;
}

/* ---- threads ---- */

static void adder(void *arg)
{
    scene *s = arg;
    for (unsigned i = 0; i < 50; i++) {
        uint32_t expected = 0;
        while (!atomic_compare_exchange_strong(&s->word, &expected, 1)) {
            kio_sleep(s->k, &s->word, expected, -1);
            expected = 0;
        }
        uint64_t before = s->counter;
        kio_yield(s->k);
        s->counter = before + 1;
        atomic_store(&s->word, 0);
        kio_wake(s->k, &s->word, 1);
    }
}

static void run_adders(void *arg)
{
    scene *s = arg;
    kio_thread *threads[4];
    for (unsigned i = 0; i < RW_ARRAY_SIZE(threads); i++) TAP_CHECK(kio_thread_start(s->k, "adder", -1, adder, s, &threads[i]) == 0);
    for (unsigned i = 0; i < RW_ARRAY_SIZE(threads); i++) kio_thread_join(s->k, threads[i]);
    TAP_CHECK(s->counter == 200);
}

static void slow_writer(void *arg)
{
    scene *s = arg;
    kio_file *file = open_file(s, "spin");
    write_fill(s, file, 1, 4096, 0);
    kio_file_close(s->k, file);
    atomic_store(&s->word, 1);
}

static void run_waits(void *arg)
{
    scene *s = arg;
    uint64_t start = kio_now_ns(s->k);
    do kio_sleep(s->k, &s->other, 0, 5000000);   /* may return early */
    while (kio_now_ns(s->k) < start + 5000000);
    TAP_CHECK(kio_now_ns(s->k) < start + 100000000);
    kio_thread *thread;
    TAP_CHECK(kio_thread_start(s->k, "slow", -1, slow_writer, s, &thread) == 0);
    while (atomic_load(&s->word) == 0) kio_yield(s->k);
    kio_thread_join(s->k, thread);
    start = kio_now_ns(s->k);
    while (kio_now_ns(s->k) < start + 1000000) kio_yield(s->k);
}

/* Raises the descriptor ten times, each time that it was taken. */
static void raiser(void *arg)
{
    scene *s = arg;
    for (uint32_t i = 1; i <= 10; i++) {
        atomic_store(&s->word, i);
        kio_event_raise(s->k, s->descriptor);
        while (atomic_load(&s->other) < i) kio_yield(s->k);
    }
}

static void run_descriptor(void *arg)
{
    scene *s = arg;
    kio_thread *thread;
    TAP_CHECK(kio_event_open(s->k, &s->descriptor) == 0);
    TAP_CHECK(!sim_descriptor_wait(s->k, s->descriptor, 1000));
    TAP_CHECK(kio_thread_start(s->k, "raiser", -1, raiser, s, &thread) == 0);
    for (uint32_t i = 1; i <= 10; i++) {
        TAP_CHECK(sim_descriptor_wait(s->k, s->descriptor, -1) && sim_descriptor_wait(s->k, s->descriptor, 0));
        TAP_CHECK(atomic_load(&s->word) == i);
        kio_event_clear(s->k, s->descriptor);
        TAP_CHECK(!sim_descriptor_wait(s->k, s->descriptor, 0));
        atomic_store(&s->other, i);
    }
    kio_thread_join(s->k, thread);
    kio_event_close(s->k, s->descriptor);
}

static void test_threads(void)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        scene_once(seed, run_adders);
        scene_once(seed, run_waits);
        scene_once(seed, run_descriptor);
    }
    tap_ok(true, "futexes exclude, waits end, descriptors are readable from raise to clear, spinning lets time pass");
    uint64_t first = scene_once(7, run_adders), again = scene_once(7, run_adders), other = scene_once(8, run_adders);
    tap_ok(first == again, "the same seed gives the same trace");
    tap_ok(first != other, "another seed gives another trace");
}

static void run_deadlock(void *arg)
{
    scene *s = arg;
    for (;;) kio_sleep(s->k, &s->word, 0, -1);
}

static void run_livelock(void *arg)
{
    scene *s = arg;
    while (atomic_load(&s->word) == 0) kio_yield(s->k);
}

static void run_left_over(void *arg)
{
    scene *s = arg;
    kio_thread *thread;
    TAP_CHECK(kio_thread_start(s->k, "left", -1, run_deadlock, s, &thread) == 0);
}

/* Runs fn in a child; true when it aborts and says what is expected. */
static bool aborts_saying(void (*fn)(void *), const char *expected)
{
    int ends[2];
    if (pipe(ends) != 0) return false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 2);
        signal(SIGABRT, SIG_DFL);
        scene_once(1, fn);
        _exit(0);
    }
    close(ends[1]);
    char text[8192];
    size_t size = 0;
    for (ssize_t got; size + 1 < sizeof text && (got = read(ends[0], text + size, sizeof text - 1 - size)) > 0;) size += (size_t)got;
    text[size] = 0;
    close(ends[0]);
    int status;
    return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && strstr(text, expected) != NULL;
}

static void test_hangs(void)
{
    tap_ok(aborts_saying(run_deadlock, "main: sleeps on"), "a deadlock is reported with what each thread waits for");
    tap_ok(aborts_saying(run_livelock, "only yield"), "threads that only yield are reported");
    tap_ok(aborts_saying(run_left_over, "left others"), "a thread left over is reported");
}

/* ---- crashes ---- */

static void run_write_some(void *arg)
{
    scene *s = arg;
    TAP_CHECK(kio_directory_create(s->k, "db") == 0);
    TAP_CHECK(kio_directory_sync(s->k, "") == 0);
    kio_file *file = open_file(s, "db/data");
    write_fill(s, file, 'a', 65536, 0);
    TAP_CHECK(kio_file_sync(s->k, file) == 0);
    TAP_CHECK(kio_directory_sync(s->k, "db") == 0);
    write_fill(s, file, 'b', 32768, 0);
    write_fill(s, file, 'c', 8192, 65536);
    kio_file_close(s->k, file);
    file = open_file(s, "db/unsynced_name");
    write_fill(s, file, 'd', 4096, 0);
    TAP_CHECK(kio_file_sync(s->k, file) == 0);
    kio_file_close(s->k, file);
}

static void check_crashed(const sim_disk *crashed, unsigned seen[6])
{
    uint64_t size = 0;
    TAP_CHECK(sim_disk_size(crashed, "db/data", &size));
    TAP_CHECK(size == 65536 || size == 73728);
    TAP_CHECK(sectors_of(crashed, "db/data", 'a', 32768, 64) == 64);
    unsigned old = sectors_of(crashed, "db/data", 'a', 0, 64), fresh = sectors_of(crashed, "db/data", 'b', 0, 64);
    TAP_CHECK(old + fresh <= 64);
    seen[0] += old == 64;
    seen[1] += fresh == 64;
    seen[2] += old + fresh == 64 && old != 0 && fresh != 0;
    seen[3] += old + fresh < 64;
    seen[4] += size == 73728;
    seen[5] += sim_disk_size(crashed, "db/unsynced_name", &size);
}

static void test_power_cut(void)
{
    scene s = {0};
    sim_disk *disk = sim_disk_create();
    scene_run(&s, disk, 1, run_write_some);
    unsigned seen[6] = {0};
    for (unsigned i = 0; i < SEEDS; i++) {
        sim_disk *crashed = sim_disk_crash(disk, &s.random);
        check_crashed(crashed, seen);
        sim_disk *twice = sim_disk_crash(crashed, &s.random);
        TAP_CHECK(sectors_of(twice, "db/data", 'b', 0, 64) == sectors_of(crashed, "db/data", 'b', 0, 64));
        sim_disk_destroy(twice);
        sim_disk_destroy(crashed);
    }
    tap_ok(seen[0] > 0 && seen[1] > 0 && seen[2] > 0 && seen[3] > 0, "unsynced sectors are kept, dropped, torn and garbled: %u %u %u %u",
           seen[0], seen[1], seen[2], seen[3]);
    tap_ok(seen[4] > 0 && seen[4] < SEEDS, "an unsynced size is kept or not");
    tap_ok(seen[5] > 0 && seen[5] < SEEDS, "a name waits for the sync of its directory");
    sim_disk *dropped = sim_disk_crash_styled(disk, SIM_CRASH_DROP_ALL, &s.random);
    tap_ok(sectors_of(dropped, "db/data", 'a', 0, 128) == 128 && sim_disk_path(dropped, 1) == NULL, "all unsynced changes can be dropped");
    sim_disk *killed = sim_disk_kill(disk, &s.random);
    tap_ok(sectors_of(killed, "db/data", 'b', 0, 64) == 64 && sectors_of(killed, "db/unsynced_name", 'd', 0, 8) == 8,
           "a kill leaves what was completed");
    tap_ok(sectors_of(disk, "db/data", 'b', 0, 64) == 64, "the crashed disk is left as it was");
    sim_disk_destroy(killed);
    sim_disk_destroy(dropped);
    sim_world_close(s.world);
    sim_disk_destroy(disk);
}

static void run_sync_in_flight(void *arg)
{
    scene *s = arg;
    static unsigned char early[4096] RW_ALIGNED(4096), late[4096] RW_ALIGNED(4096);
    memset(early, 'e', sizeof early);
    memset(late, 'l', sizeof late);
    kio_file *file = open_file(s, "file");
    TAP_CHECK(kio_file_resize(s->k, file, 8192) == 0 && kio_file_sync(s->k, file) == 0 && kio_directory_sync(s->k, "") == 0);
    kio_ring *ring;
    TAP_CHECK(kio_ring_open(s->k, 4, &ring) == 0);
    kio_op write_early = {.kind = KIO_WRITE, .file = file, .buffer = early, .length = 4096};
    kio_op write_late = {.kind = KIO_WRITE, .file = file, .buffer = late, .length = 4096, .offset = 4096};
    kio_op sync = {.kind = KIO_SYNC, .file = file};
    kio_op *done[4], *first = &write_early, *both[2] = {&sync, &write_late};
    kio_ring_submit(s->k, ring, &first, 1);
    while (kio_ring_reap(s->k, ring, done, 4, -1) == 0) continue;
    TAP_CHECK(done[0] == &write_early && done[0]->result == 0);
    kio_ring_submit(s->k, ring, both, 2);
    for (unsigned reaped = 0; reaped < 2;) reaped += kio_ring_reap(s->k, ring, done, 4, -1);
    TAP_CHECK(sync.result == 0 && write_late.result == 0);
    s->crashed = sim_disk_crash_styled(sim_world_disk(s->world), SIM_CRASH_DROP_ALL, &s->random);
    kio_ring_close(s->k, ring);
    kio_file_close(s->k, file);
}

static void test_sync_cover(void)
{
    unsigned covered = 0, wrong = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        scene s = {0};
        sim_disk *disk = sim_disk_create();
        scene_run(&s, disk, seed, run_sync_in_flight);
        covered += sectors_of(s.crashed, "file", 'e', 0, 8) == 8;
        wrong += sectors_of(s.crashed, "file", 'l', 4096, 8) != 0;
        sim_disk_destroy(s.crashed);
        sim_world_close(s.world);
        sim_disk_destroy(disk);
    }
    tap_ok(covered == SEEDS && wrong == 0, "a sync covers what completed before it was issued, and nothing else");
}

/* Open bytes over two blocks; durable ones over the first; open ones over its second sector. */
static void run_durable_write(void *arg)
{
    scene *s = arg;
    unsigned char durable[4096];
    memset(durable, 'd', sizeof durable);
    kio_file *file = open_file(s, "file");
    TAP_CHECK(kio_file_resize(s->k, file, 8192) == 0 && kio_file_sync(s->k, file) == 0 && kio_directory_sync(s->k, "") == 0);
    write_fill(s, file, 'o', 8192, 0);
    TAP_CHECK(kio_file_write_durable(s->k, file, durable, sizeof durable, 0) == 0);
    write_fill(s, file, 'z', 512, 512);
    s->crashed = sim_disk_crash(sim_world_disk(s->world), &s->random);
    TAP_CHECK(kio_file_sync(s->k, file) == 0);
    kio_file_close(s->k, file);
}

static void test_durable_write(void)
{
    unsigned wrong = 0, kept = 0, dropped = 0, later = 0, synced = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        scene s = {0};
        sim_disk *disk = sim_disk_create();
        scene_run(&s, disk, seed, run_durable_write);
        wrong += sectors_of(s.crashed, "file", 'd', 0, 1) != 1 || sectors_of(s.crashed, "file", 'd', 1024, 6) != 6 || sectors_of(s.crashed, "file", 'o', 512, 1) != 0;
        later += sectors_of(s.crashed, "file", 'z', 512, 1);
        kept += sectors_of(s.crashed, "file", 'o', 4096, 8) > 0;
        dropped += sectors_of(s.crashed, "file", 0, 4096, 8) > 0;
        sim_disk_destroy(s.crashed);
        s.crashed = sim_disk_crash_styled(disk, SIM_CRASH_DROP_ALL, &s.random);
        synced += sectors_of(s.crashed, "file", 'd', 0, 8) == 7 && sectors_of(s.crashed, "file", 'z', 512, 1) == 1 && sectors_of(s.crashed, "file", 'o', 4096, 8) == 8;
        sim_disk_destroy(s.crashed);
        sim_world_close(s.world);
        sim_disk_destroy(disk);
    }
    tap_ok(wrong == 0, "what a durable write wrote survives, over what was open before it");
    tap_ok(kept > 0 && dropped > 0 && later > 0 && later < SEEDS, "and what is open before and after it may survive, or not: %u %u %u", kept, dropped, later);
    tap_ok(synced == SEEDS, "a sync covers the rest, in order");
}

static void run_durable_write_failing(void *arg)
{
    scene *s = arg;
    unsigned char durable[4096];
    memset(durable, 'd', sizeof durable);
    kio_file *file = open_file(s, "file");
    TAP_CHECK(kio_file_resize(s->k, file, 4096) == 0 && kio_file_sync(s->k, file) == 0 && kio_directory_sync(s->k, "") == 0);
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_ERROR, .operations = SIM_ON_SYNC, .countdown = 1, .errno_value = EIO});
    TAP_CHECK(kio_file_write_durable(s->k, file, durable, sizeof durable, 0) == RW_EIO);
    s->crashed = sim_disk_crash_styled(sim_world_disk(s->world), SIM_CRASH_DROP_ALL, &s->random);
    TAP_CHECK(kio_file_sync(s->k, file) == 0);
    kio_file_close(s->k, file);
}

static void test_durable_write_failing(void)
{
    unsigned durable = 0, by_sync = 0, lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        scene s = {0};
        sim_disk *disk = sim_disk_create();
        scene_run(&s, disk, seed, run_durable_write_failing);
        unsigned at_once = sectors_of(s.crashed, "file", 'd', 0, 8), read = sectors_of(disk, "file", 'd', 0, 8);
        sim_disk_destroy(s.crashed);
        s.crashed = sim_disk_crash_styled(disk, SIM_CRASH_KEEP_ALL, &s.random);
        unsigned at_last = sectors_of(s.crashed, "file", 'd', 0, 8);
        sim_disk_destroy(s.crashed);
        durable += at_once > 0;
        by_sync += at_once == 0 && at_last > 0;
        lost += read > at_last;
        sim_world_close(s.world);
        sim_disk_destroy(disk);
    }
    tap_ok(durable > 0 && by_sync > 0 && lost > 0, "one that failed is durable in part, or waits for a sync, or is lost for good: %u %u %u", durable, by_sync, lost);
}

/* ---- rings ---- */

static void ring_waker(void *arg)
{
    scene *s = arg;
    while (s->ring == NULL) kio_yield(s->k);
    kio_ring_wake(s->k, s->ring);
    atomic_store(&s->word, 1);
}

static void run_ring(void *arg)
{
    scene *s = arg;
    static unsigned char blocks[16][4096] RW_ALIGNED(4096);
    kio_file *file = NULL;
    TAP_CHECK(kio_file_open(s->k, "ring", KIO_CREATE | KIO_DIRECT, &file) == 0 && kio_file_is_direct(s->k, file));
    kio_ring *ring;
    TAP_CHECK(kio_ring_open(s->k, 4, &ring) == 0);
    kio_op ops[16], *list[16], *done[16];
    for (unsigned i = 0; i < 16; i++) {
        memset(blocks[i], (int)i, 4096);
        ops[i] = (kio_op){.kind = KIO_WRITE, .file = file, .buffer = blocks[i], .offset = (uint64_t)i * 4096, .length = 4096};
        list[i] = &ops[i];
    }
    kio_ring_submit(s->k, ring, list, 16);
    bool in_order = true;
    for (unsigned reaped = 0; reaped < 16;) {
        unsigned count = kio_ring_reap(s->k, ring, done, 16, -1);
        for (unsigned i = 0; i < count; i++, reaped++) {
            TAP_CHECK(done[i]->result == 0);
            in_order = in_order && done[i] == &ops[reaped];
        }
    }
    s->seen += !in_order;
    ops[0] = (kio_op){.kind = KIO_READ, .file = file, .buffer = blocks[0], .offset = 16 * 4096, .length = 4096};
    kio_ring_submit(s->k, ring, list, 1);
    while (kio_ring_reap(s->k, ring, done, 16, -1) == 0) continue;
    TAP_CHECK(ops[0].result == RW_EIO);
    uint64_t start = kio_now_ns(s->k);
    TAP_CHECK(kio_ring_reap(s->k, ring, done, 16, 1000000) == 0 && kio_now_ns(s->k) >= start + 1000000);
    kio_thread *thread;
    s->ring = ring;
    TAP_CHECK(kio_thread_start(s->k, "waker", -1, ring_waker, s, &thread) == 0);
    TAP_CHECK(kio_ring_reap(s->k, ring, done, 16, -1) == 0);
    kio_thread_join(s->k, thread);
    kio_ring_close(s->k, ring);
    kio_file_close(s->k, file);
}

static void test_rings(void)
{
    unsigned out_of_order = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        scene s = {0};
        sim_disk *disk = sim_disk_create();
        scene_run(&s, disk, seed, run_ring);
        out_of_order += s.seen;
        sim_world_close(s.world);
        for (unsigned i = 0; i < 16; i++) TAP_CHECK(sectors_of(disk, "ring", (unsigned char)i, i * 4096u, 8) == 8);
        sim_disk_destroy(disk);
    }
    tap_ok(out_of_order > 0, "rings finish everything, out of order");
}

/* ---- faults ---- */

static void run_errors(void *arg)
{
    scene *s = arg;
    unsigned char byte[512];
    kio_file *file = open_file(s, "faulty"), *sound = open_file(s, "sound");
    write_fill(s, file, 'x', 8192, 0);
    unsigned once = sim_fault_add(s->world, (sim_fault){.operations = SIM_ON_READ, .path_part = "faulty", .countdown = 2, .errno_value = EIO});
    TAP_CHECK(kio_file_read(s->k, file, byte, sizeof byte, 0) == 0 && byte[0] == 'x');
    TAP_CHECK(kio_file_read(s->k, file, byte, sizeof byte, 0) == RW_EIO && strstr(rw_error_text(), "faulty") != NULL);
    TAP_CHECK(kio_file_read(s->k, file, byte, sizeof byte, 0) == 0 && sim_fault_fired(s->world, once) == 1);
    TAP_CHECK(kio_file_read(s->k, file, byte, sizeof byte, 8192 - 511) == RW_EIO);
    unsigned always = sim_fault_add(s->world, (sim_fault){.operations = SIM_ON_WRITE, .path_part = "faulty", .countdown = 1, .forever = true, .errno_value = ENOSPC});
    TAP_CHECK(kio_file_write(s->k, file, byte, sizeof byte, 0) == RW_ENOSPC && kio_file_write(s->k, file, byte, sizeof byte, 0) == RW_ENOSPC);
    TAP_CHECK(kio_file_write(s->k, sound, byte, sizeof byte, 0) == 0 && sim_fault_fired(s->world, always) == 2);
    sim_fault_clear(s->world);
    TAP_CHECK(kio_file_write(s->k, file, byte, sizeof byte, 0) == 0);
    uint64_t start = kio_now_ns(s->k);
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_DELAY, .operations = SIM_ON_SYNC, .countdown = 1, .delay_ns = 1000000000});
    TAP_CHECK(kio_file_sync(s->k, file) == 0 && kio_now_ns(s->k) >= start + 1000000000);
    kio_file_close(s->k, file);
    kio_file_close(s->k, sound);
}

static void run_lies(void *arg)
{
    scene *s = arg;
    unsigned char bytes[4096];
    kio_file *file = open_file(s, "lied");
    for (unsigned i = 0; i < 8; i++) write_fill(s, file, (unsigned char)('0' + i), 4096, i * 4096u);
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_LOSE, .operations = SIM_ON_WRITE, .countdown = 1});
    write_fill(s, file, 'x', 4096, 0);
    TAP_CHECK(kio_file_read(s->k, file, bytes, sizeof bytes, 0) == 0 && bytes[0] == '0');
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_MISDIRECT, .operations = SIM_ON_WRITE, .countdown = 1});
    write_fill(s, file, 'y', 4096, 0);
    unsigned strayed = 0;
    for (unsigned i = 0; i < 8; i++) strayed += sectors_of(sim_world_disk(s->world), "lied", 'y', i * 4096u, 8);
    TAP_CHECK(strayed == 8);
    write_fill(s, file, 'z', 4096, 0);
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_ROT, .operations = SIM_ON_READ, .countdown = 1});
    unsigned rotten = 0;
    TAP_CHECK(kio_file_read(s->k, file, bytes, sizeof bytes, 0) == 0);
    for (unsigned i = 0; i < 4096; i++) rotten += bytes[i] != 'z';
    TAP_CHECK(rotten == 1);
    kio_file_close(s->k, file);
}

static void run_failed_sync(void *arg)
{
    scene *s = arg;
    kio_file *file = open_file(s, "name");
    TAP_CHECK(kio_directory_sync(s->k, "") == 0);
    write_fill(s, file, '1', 512, 0);
    sim_fault_add(s->world, (sim_fault){.operations = SIM_ON_SYNC, .countdown = 1, .errno_value = EIO});
    TAP_CHECK(kio_file_sync(s->k, file) == RW_EIO);
    TAP_CHECK(kio_file_sync(s->k, file) == 0);
    sim_disk *crashed = sim_disk_crash_styled(sim_world_disk(s->world), SIM_CRASH_KEEP_ALL, &s->random);
    s->seen = sectors_of(crashed, "name", '1', 0, 1);
    sim_disk_destroy(crashed);
    kio_file_close(s->k, file);
}

static void run_full_disk(void *arg)
{
    scene *s = arg;
    sim_disk *disk = sim_world_disk(s->world);
    sim_disk_limit(disk, 65536);
    kio_file *file = open_file(s, "full");
    TAP_CHECK(kio_file_allocate(s->k, file, 0, 61440) == 0 && sim_disk_used(disk) == 61440);
    TAP_CHECK(kio_file_allocate(s->k, file, 61440, 8192) == RW_ENOSPC);
    write_fill(s, file, '1', 4096, 61440);
    unsigned char byte = 1;
    TAP_CHECK(kio_file_write(s->k, file, &byte, 1, 65536) == RW_ENOSPC);
    TAP_CHECK(kio_file_write(s->k, file, &byte, 1, 100) == 0);
    sim_disk_limit(disk, 131072);
    TAP_CHECK(kio_file_write(s->k, file, &byte, 1, 65536) == 0);
    TAP_CHECK(kio_file_resize(s->k, file, 4096) == 0 && sim_disk_used(disk) == 4096);
    kio_file_close(s->k, file);
}

static void run_lock(void *arg)
{
    scene *s = arg;
    kio_lock *lock, *second;
    TAP_CHECK(kio_lock_take(s->k, "nowhere/lock", 0, &lock) == RW_ENOENT);
    TAP_CHECK(kio_lock_take(s->k, "lock", 0, &lock) == 0 && kio_lock_take(s->k, "lock", 0, &second) == RW_EBUSY);
    kio_lock_release(s->k, lock);
    TAP_CHECK(kio_lock_take(s->k, "lock", 0, &second) == 0);
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_ERROR, .operations = SIM_ON_OPEN, .path_part = "lock", .countdown = 1, .forever = true, .errno_value = EROFS});
    TAP_CHECK(kio_lock_take(s->k, "lock", KIO_READ_ONLY, &lock) == RW_EBUSY);
    kio_lock_release(s->k, second);
    kio_lock *third = NULL;
    TAP_CHECK(kio_lock_take(s->k, "lock", 0, &lock) == RW_EREADONLY);
    TAP_CHECK(kio_lock_take(s->k, "lock", KIO_READ_ONLY, &lock) == 0 && kio_lock_take(s->k, "lock", KIO_READ_ONLY, &second) == 0);
    kio_lock_release(s->k, second);
    TAP_CHECK(kio_lock_take(s->k, "lock-absent", KIO_READ_ONLY, &third) == 0 && third == NULL);
    kio_lock_release(s->k, lock);
    sim_fault_clear(s->world);
    kio_file *file;
    TAP_CHECK(kio_file_open(s->k, "lock", KIO_CREATE | KIO_EXCLUSIVE, &file) == RW_EEXIST);
    TAP_CHECK(kio_file_open(s->k, "absent", 0, &file) == RW_ENOENT);
}

static void test_faults(void)
{
    unsigned survived = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        scene_once(seed, run_errors);
        scene_once(seed, run_lies);
        scene_once(seed, run_full_disk);
        scene_once(seed, run_lock);
        scene s = {0};
        sim_disk *disk = sim_disk_create();
        scene_run(&s, disk, seed, run_failed_sync);
        survived += s.seen;
        sim_world_close(s.world);
        sim_disk_destroy(disk);
    }
    tap_ok(true, "errors, lies, a full disk and locks, as planned");
    tap_ok(survived > 0 && survived < SEEDS, "what a failed sync covered may be lost for ever");
}

/* ---- nesting ---- */

static void run_inner(void *arg)
{
    scene *s = arg;
    kio_file *file = NULL;
    int rc = kio_file_open(s->k, "log", 0, &file);
    TAP_CHECK(rc == 0 || rc == RW_ENOENT);
    if (rc != 0) return;
    uint64_t size;
    TAP_CHECK(kio_file_size(s->k, file, &size) == 0);
    write_fill(s, file, 'i', 512, size);
    kio_file_close(s->k, file);
}

static void hook_nested(void *arg)
{
    scene *outer = arg;
    if (rw_random_below(&outer->random, 10) != 0) return;
    sim_disk *crashed = sim_disk_crash(sim_world_disk(outer->world), &outer->random);
    scene inner = {0};
    scene_run(&inner, crashed, rw_random_next(&outer->random), run_inner);
    sim_world_close(inner.world);
    sim_disk_destroy(crashed);
    outer->seen++;
}

static void run_outer(void *arg)
{
    scene *s = arg;
    kio_file *file = open_file(s, "log");
    TAP_CHECK(kio_directory_sync(s->k, "") == 0);
    for (unsigned i = 0; i < 100; i++) {
        write_fill(s, file, (unsigned char)i, 512, i * 512u);
        if (i % 3 == 0) TAP_CHECK(kio_file_sync(s->k, file) == 0);
    }
    kio_file_close(s->k, file);
}

static void test_nested(void)
{
    scene s = {0}, plain = {0};
    sim_disk *disk = sim_disk_create(), *plain_disk = sim_disk_create();
    rw_random_seed(&s.random, 5);
    s.world = sim_world_open(disk, 5);
    s.k = sim_world_kio(s.world);
    sim_step_hook(s.world, hook_nested, &s);
    sim_run(s.world, run_outer, &s);
    scene_run(&plain, plain_disk, 5, run_outer);
    tap_ok(s.seen > 10, "worlds over crashed disks run inside the hook: %u", s.seen);
    tap_ok(sim_world_trace_hash(s.world) == sim_world_trace_hash(plain.world), "and do not disturb the outer one");
    for (unsigned i = 0; i < 100; i++) TAP_CHECK(sectors_of(disk, "log", (unsigned char)i, i * 512u, 1) == 1);
    sim_world_close(s.world);
    sim_world_close(plain.world);
    sim_disk_destroy(disk);
    sim_disk_destroy(plain_disk);
}

int main(void)
{
    test_threads();
    test_hangs();
    test_power_cut();
    test_sync_cover();
    test_durable_write();
    test_durable_write_failing();
    test_rings();
    test_faults();
    test_nested();
    return tap_done();
}
