/*
 * Which moment a snapshot is given while commits are on their way, each state acted out: what commits announce in a partition, and what was applied to it last.
 */
#include "engine/engine.h"
#include "engine/engine_internal.h"
#include "tests/sim/sim.h"
#include "tests/support/rw_helpers.h"
#include "tests/support/tap.h"

#define PATIENCE_NS 100000000      /* long enough for whoever need not wait, though the simulator holds some threads up */
#define LOOK_NS 1000000

static kio *k;

static void must_ok(int code)
{
    if (CHECK_OK(code)) return;
    tap_done();
    _Exit(1);
}

/* One who asks for a moment, in a thread. */
typedef struct {
    engine *e;
    uint64_t moment;
    _Atomic bool done;
} asker;

static void asker_run(void *arg)
{
    asker *a = arg;
    a->moment = engine_moment(a->e);
    atomic_store(&a->done, true);
}

static void wait_for(const asker *a)
{
    static const _Atomic uint32_t never = 0;
    uint64_t end = kio_now_ns(k) + PATIENCE_NS;
    while (!atomic_load(&a->done) && kio_now_ns(k) < end) kio_sleep(k, &never, 0, LOOK_NS);
}

/* With these in the partition: 0: it waits until nothing is announced any more; else the moment. */
static uint64_t moment_beside(engine *e, uint64_t announced, uint64_t applied)
{
    partition *p = &e->trees.partitions[0];
    uint64_t before = atomic_load(&p->applied_lsn);
    asker a = {.e = e};
    kio_thread *thread;
    atomic_store(&p->committing, announced);
    atomic_store(&p->applied_lsn, applied);
    must_ok(kio_thread_start(k, "asker", -1, asker_run, &a, &thread));
    wait_for(&a);
    bool waits = !atomic_load(&a.done);
    atomic_store(&p->committing, 0);
    kio_thread_join(k, thread);
    atomic_store(&p->applied_lsn, before);
    if (waits) TAP_CHECK(a.moment == wal_end_lsn(e->wal));
    return waits ? 0 : a.moment;
}

static void put(rw_db *db, const char *value)
{
    must_ok(rw_put(db, BUCKET, slice_text("key"), slice_text(value), RW_SYNC));
}

static void test_moments(engine *e, uint64_t before, uint64_t between)
{
    uint64_t end = wal_end_lsn(e->wal), later = end + 4096;
    tap_ok(moment_beside(e, 0, end) == end, "with nothing on its way a snapshot begins at the end of the log");
    tap_ok(moment_beside(e, 0, later) == end, "what was applied since it looked at the end does not delay it");
    tap_ok(moment_beside(e, WAL_ANNOUNCE_BUSY, before) == 0, "it waits for a commit that is taking its place");
    tap_ok(moment_beside(e, between | WAL_ANNOUNCE_BUSY, before) == 0, "and for one that is being applied");
    tap_ok(moment_beside(e, end | WAL_ANNOUNCE_BUSY, end) == end, "but for none that has its place at the end or beyond");
    tap_ok(moment_beside(e, between, before) == between, "it begins below a commit that keeps what it replaces");
    tap_ok(moment_beside(e, between, between) == between, "with all that was acknowledged below it");
    tap_ok(moment_beside(e, between, end) == 0, "unless a commit above it was acknowledged");
    tap_ok(moment_beside(e, between, later) == 0, "or may have been, and is hidden behind one that came since it looked at the end");
}

static void run(void *arg)
{
    rw_options options;
    rw_db *db;
    engine *e;
    (void)arg;
    rw_options_init(&options);
    options.cache_bytes = RW_CACHE_BYTES_MIN;
    options.workers = 1;
    must_ok(db_open_with(k, "/db", &options, &db));
    must_ok(engine_of(db, &e));
    put(db, "first");
    uint64_t before = wal_end_lsn(e->wal);
    put(db, "second");
    uint64_t between = wal_end_lsn(e->wal);
    put(db, "third");
    test_moments(e, before, between);
    must_ok(rw_close(db));
}

int main(void)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        sim_disk *disk = sim_disk_create();
        sim_world *world = sim_world_open(disk, seed);
        k = sim_world_kio(world);
        sim_run(world, run, NULL);
        sim_world_close(world);
        sim_disk_destroy(disk);
    }
    return tap_done();
}
