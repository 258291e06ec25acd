/* The log's promises while it runs: framing, order, group commit, recycling, a full disk, failures, opening, printing. */
#include <errno.h>

#include "kernel_io/kernel_io.h"
#include "tests/support/dirs.h"
#include "tests/unit/wal_test.h"
#include "wal/wal_internal.h"

typedef struct {
    sim_disk *disk;
    sim_world *world;
    kio *k;
    wal *w;
    uint64_t end;
    rw_random random;
    unsigned data_syncs, failures;
    int failure_code;
    char failure_text[128];
} scene;

static void run(scene *s, uint64_t seed, void (*fn)(void *))
{
    s->disk = sim_disk_create();
    s->world = sim_world_open(s->disk, seed);
    s->k = sim_world_kio(s->world);
    rw_random_seed(&s->random, seed);
    sim_run(s->world, fn, s);
    sim_world_close(s->world);
    sim_disk_destroy(s->disk);
}

/* ---- framing ---- */

static const uint32_t interesting[] = {16, 17, 23, 24, 25, 4000, 4016, 4023, 4024, 4025, 4032, 8056, 8057, RW_LOG_FRAGMENT_BYTES - 9, RW_LOG_FRAGMENT_BYTES - 8,
                                       RW_LOG_FRAGMENT_BYTES - 7, 2 * RW_LOG_FRAGMENT_BYTES - 16, 2 * RW_LOG_FRAGMENT_BYTES - 15,
                                       RW_LOG_STAGING_BYTES - 8, RW_LOG_STAGING_BYTES, RW_LOG_STAGING_BYTES + 1, 3 * RW_LOG_STAGING_BYTES + 12345};

static void test_framing(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end = WAL_LSN_FIRST, last = WAL_LSN_FIRST;
    uint32_t count = 0;
    bool good = true;
    s->w = wal_test_create(s->k, "");
    for (uint32_t turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < RW_ARRAY_SIZE(interesting); i++) {
            good = good && wal_test_append(s->w, 0, 0, count++, interesting[i], &lsn, &end) == 0 && lsn == last && end > lsn;
            last = end;
            if (turn == 1 || (turn == 2 && i % 3 == 0)) good = good && wal_wait(s->w, end) == 0 && wal_durable_lsn(s->w) >= end;
        }
    }
    good = good && wal_end_lsn(s->w) == end;
    rw_slice empty = {NULL, 0};
    TAP_CHECK(wal_append(s->w, WAL_COMMIT, &empty, 0, 0, &lsn, &last, NULL) == 0 && last == lsn + WAL_FRAGMENT_HEADER_BYTES);
    tap_ok(wal_close(s->w) == 0 && good, "%u records of all lengths around the seams are taken", count);
    wal_test_seen seen;
    uint64_t found = 0;
    int rc = wal_test_reopen(s->k, "", WAL_LSN_FIRST, last, &s->w, &seen, &found);
    tap_ok(rc == 0 && seen.count == count + 1 && found == last, "close makes all of them durable, and they come back: %s", rc == 0 ? "" : rw_error_text());
    /* All but the empty one, which is no sound body of ours, are checked byte for byte. */
    rc = wal_replay(s->w, WAL_LSN_FIRST, end, wal_test_see, &seen, &found);
    wal_close(s->w);
    tap_ok(rc == 0 && seen.last_number == count - 1, "in order");
}

static int see_all_but_empty(void *arg, const wal_record *record)
{
    return record->body.size == 0 ? 0 : wal_test_see(arg, record);
}

static int stop_at_second(void *arg, const wal_record *record)
{
    unsigned *count = arg;
    (void)record;
    return ++*count == 2 ? RW_EBUSY : 0;
}

static void test_bodies(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end, found = 0;
    wal_options options = wal_test_options();
    s->w = wal_test_create(s->k, "");
    for (uint32_t i = 0; i < 200; i++) {
        TAP_CHECK(wal_test_append(s->w, 1, 2, i, interesting[i % RW_ARRAY_SIZE(interesting)], &lsn, &end) == 0);
    }
    unsigned char much[8];
    rw_slice huge[2] = {{much, 8}, {much, (size_t)1 << 30}};
    tap_ok(wal_append(s->w, WAL_COMMIT, huge, 2, 0, &lsn, &found, NULL) == RW_ETOOBIG && wal_end_lsn(s->w) == end, "a record above 1 GiB is refused");
    TAP_CHECK(wal_close(s->w) == 0);
    TAP_CHECK(wal_open(s->k, "", &options, &s->w) == 0);
    wal_test_seen seen = {.sound = true};
    TAP_CHECK(wal_replay(s->w, WAL_LSN_FIRST, end, see_all_but_empty, &seen, &found) == 0);
    tap_ok(seen.sound && seen.count == 200 && found == end, "every byte of every body comes back");
    unsigned count = 0;
    tap_ok(wal_replay(s->w, WAL_LSN_FIRST, end, stop_at_second, &count, &found) == RW_EBUSY && count == 2, "what the callback returns stops the replay");
    wal_close(s->w);
}

/* ---- recycling ---- */

static void test_recycling(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end, size = 0, most = 0;
    s->w = wal_test_create(s->k, "");
    uint64_t total = 40 * (uint64_t)RW_LOG_SEGMENT_BYTES / (RW_LOG_FRAGMENT_BYTES / 2);
    for (uint64_t i = 0; i < total; i++) {
        TAP_CHECK(wal_test_append(s->w, 0, 0, (uint32_t)i, RW_LOG_FRAGMENT_BYTES / 2, &lsn, &end) == 0);
        if (i % 8 == 7) {
            TAP_CHECK(wal_wait(s->w, end) == 0);
            wal_trim(s->w, end);
            sim_disk_size(s->disk, "/log", &size);
            most = RW_MAX(most, size);
        }
    }
    tap_ok(most <= 4 * (uint64_t)RW_LOG_SEGMENT_BYTES, "40 segments' worth of records, trimmed as they go, take %llu slots",
           (unsigned long long)(most / RW_LOG_SEGMENT_BYTES));
    /* The checkpoint lags: the log grows, and is given back later. */
    for (uint64_t i = 0; i < total / 4; i++) TAP_CHECK(wal_test_append(s->w, 0, 0, (uint32_t)i, RW_LOG_FRAGMENT_BYTES / 2, &lsn, &end) == 0);
    TAP_CHECK(wal_wait(s->w, end) == 0);
    wal_counters counters;
    wal_counters_get(s->w, &counters);
    uint64_t grown = counters.file_bytes;
    for (uint64_t i = 0; i < 2 * total; i++) {
        TAP_CHECK(wal_test_append(s->w, 0, 0, (uint32_t)i, RW_LOG_FRAGMENT_BYTES / 2, &lsn, &end) == 0);
        if (i % 8 == 7) wal_trim(s->w, wal_durable_lsn(s->w));
    }
    TAP_CHECK(wal_wait(s->w, end) == 0);
    wal_trim(s->w, end);
    TAP_CHECK(wal_shrink(s->w) == 0);
    wal_counters_get(s->w, &counters);
    sim_disk_size(s->disk, "/log", &size);
    tap_ok(grown >= 10 * (uint64_t)RW_LOG_SEGMENT_BYTES && size <= 4 * (uint64_t)RW_LOG_SEGMENT_BYTES && size == counters.file_bytes,
           "a log that grew to %llu slots gives back all but %llu", (unsigned long long)(grown / RW_LOG_SEGMENT_BYTES),
           (unsigned long long)(size / RW_LOG_SEGMENT_BYTES));
    TAP_CHECK(wal_close(s->w) == 0);
    wal_test_seen seen;
    uint64_t found = 0;
    int rc = wal_test_reopen(s->k, "", end, end, &s->w, &seen, &found);
    tap_ok(rc == 0 && found == end && seen.count == 0, "it opens where it was trimmed to");
    if (rc == 0) wal_close(s->w);
    rc = wal_test_reopen(s->k, "", WAL_LSN_FIRST, end, &s->w, &seen, &found);
    tap_ok(rc == RW_ECORRUPT && strstr(rw_error_text(), "/log") != NULL, "and not where it no longer reaches back to: %s", rw_error_text());
}

/* ---- a full disk ---- */

static void test_full(void *arg)
{
    scene *s = arg;
    uint64_t lsn = 0, end = 0, last = WAL_LSN_FIRST;
    uint32_t taken = 0;
    int rc;
    s->w = wal_test_create(s->k, "");
    sim_disk_limit(s->disk, 3 * (uint64_t)RW_LOG_SEGMENT_BYTES + RW_LOG_SEGMENT_BYTES / 2);
    /* Alone in its block each: the worst padding. */
    while ((rc = wal_test_append(s->w, 0, 0, taken, 100, &lsn, &end)) == 0) {
        taken++;
        last = end;
        if (!TAP_CHECK(wal_wait(s->w, end) == 0)) return;
    }
    tap_ok(rc == RW_ENOSPC && wal_end_lsn(s->w) == last && taken >= 2 * WAL_SEGMENT_BLOCKS, "the disk is full after %u records of a block each: %s",
           taken, rw_error_text());
    rc = wal_test_append(s->w, 0, 0, taken, 100000, &lsn, &end);
    tap_ok(rc == RW_ENOSPC && wal_end_lsn(s->w) == last && wal_durable_lsn(s->w) == last, "a long record is refused before anything is appended");
    sim_disk_limit(s->disk, UINT64_MAX);
    rc = wal_test_append(s->w, 0, 0, taken++, 100000, &lsn, &end);
    tap_ok(rc == 0 && lsn == last && wal_wait(s->w, end) == 0, "with space there again it is taken");
    sim_disk_limit(s->disk, sim_disk_used(s->disk));
    while ((rc = wal_test_append(s->w, 0, 0, taken, 3000, &lsn, &end)) == 0) taken++;
    wal_trim(s->w, wal_durable_lsn(s->w));
    int again = wal_test_append(s->w, 0, 0, taken, 3000, &lsn, &end);
    tap_ok(rc == RW_ENOSPC && again == 0 && wal_wait(s->w, end) == 0, "trimming makes space on a full disk");
    taken++;
    uint64_t from = lsn;
    TAP_CHECK(wal_close(s->w) == 0);
    wal_test_seen seen;
    rc = wal_test_reopen(s->k, "", from, end, &s->w, &seen, &s->end);
    tap_ok(rc == 0 && seen.sound && seen.last_number == taken - 1, "what was taken is there");
    if (rc == 0) wal_close(s->w);
}

/* A back end over the simulator's that does, as ext4 does, a part of an allocation that fails. */
static const kio_vtable *whole_ops;

static int allocate_partly(kio *k, kio_file *file, uint64_t offset, uint64_t bytes)
{
    int rc = whole_ops->file_allocate(k, file, offset, bytes);
    if (rc != RW_ENOSPC) return rc;
    for (uint64_t part = bytes / 2; part >= RW_BLOCK_SIZE; part /= 2)
        if (whole_ops->file_allocate(k, file, offset, part) == 0) break;
    return rw_error(RW_ENOSPC, "%s: the first error", kio_file_path(file));
}

/* Opens at end; what wal_start returned, with the log closed again. */
static int start_again(scene *s, uint64_t end)
{
    wal_test_seen seen;
    int rc = wal_test_reopen(s->k, "", WAL_LSN_FIRST, end, &s->w, &seen, &s->end);
    TAP_CHECK(rc == 0 && s->end == end);
    if (rc != 0) return rc;
    rc = wal_start(s->w, WAL_LSN_FIRST);
    char text[256];
    snprintf(text, sizeof text, "%s", rw_error_text());
    wal_close(s->w);
    return rc == 0 ? 0 : rw_error(rc, "%s", text);
}

static void test_full_partly(void *arg)
{
    scene *s = arg;
    const uint64_t slots = 3, room = slots * RW_LOG_SEGMENT_BYTES + RW_LOG_SEGMENT_BYTES * 3 / 4;
    uint64_t lsn = 0, end = 0, last = WAL_LSN_FIRST, size = 0;
    uint32_t taken = 0;
    int rc;
    kio_vtable ops = *s->k->ops;
    whole_ops = s->k->ops;
    ops.file_allocate = allocate_partly;
    s->k->ops = &ops;
    s->w = wal_test_create(s->k, "");
    sim_disk_limit(s->disk, room);
    while ((rc = wal_test_append(s->w, 0, 0, taken++, 3000, &lsn, &end)) == 0) last = end;
    TAP_CHECK(rc == RW_ENOSPC && wal_wait(s->w, last) == 0);
    sim_disk_size(s->disk, "/log", &size);
    tap_ok(size == slots * RW_LOG_SEGMENT_BYTES && sim_disk_used(s->disk) == size, "an allocation that fails halfway leaves the file at %llu slots: %s",
           (unsigned long long)(size / RW_LOG_SEGMENT_BYTES), rw_error_text());
    TAP_CHECK(wal_close(s->w) == 0);
    bool told = true;
    for (unsigned i = 0; i < 3; i++) {
        rc = start_again(s, last);
        told = told && rc == RW_ENOSPC && strstr(rw_error_text(), "the first error") != NULL;
        sim_disk_size(s->disk, "/log", &size);
        told = told && size == slots * RW_LOG_SEGMENT_BYTES && sim_disk_used(s->disk) == size;
    }
    tap_ok(told, "starts on the full disk fail, and take nothing: %s", rw_error_text());
    /* what an earlier failure left there, uncut */
    sim_disk_truncate(s->disk, "/log", size + RW_LOG_SEGMENT_BYTES / 2);
    rc = start_again(s, last);
    sim_disk_size(s->disk, "/log", &size);
    tap_ok(rc == RW_ENOSPC && size == slots * RW_LOG_SEGMENT_BYTES, "a part of a slot that was left before is given back, too");
    sim_disk_limit(s->disk, room + RW_LOG_SEGMENT_BYTES);
    tap_ok(start_again(s, last) == 0, "with space for one slot it starts: %s", rw_error_text());
    s->k->ops = whole_ops;
}

#ifdef RW_TINY
#define FLOOD_SEEDS 60u
#else
#define FLOOD_SEEDS 4u
#endif

/*
 * Appends until not even the shortest record is taken, so that what is reserved comes as near to the limit as it can. Short ones that are
 * waited for eat space by their padding; those longer than the staging space are reserved long before they are filled.
 */
static void flood(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end;
    uint32_t size = 100;
    for (uint32_t i = 0; size >= WAL_TEST_HEADER; i++) {
        int rc = wal_test_append(s->w, 0, 0, i, size, &lsn, &end);
        TAP_CHECK(rc == 0 || rc == RW_ENOSPC);
        uint64_t draw = rw_random_below(&s->random, 10);
        if (rc != 0) {
            size -= size / 16 + 1;
        } else {
            if (size < 1000 && draw != 0) TAP_CHECK(wal_wait(s->w, end) == 0);
            size = draw == 1 ? RW_LOG_STAGING_BYTES + (uint32_t)rw_random_below(&s->random, RW_LOG_STAGING_BYTES) : 30 + (uint32_t)draw * 20;
        }
    }
    TAP_CHECK(wal_wait(s->w, wal_end_lsn(s->w)) == 0);
}

/* Several threads against the limit at once: what was accepted can always be written. */
static void test_full_threads(void *arg)
{
    scene *s = arg;
    kio_thread *threads[4];
    s->w = wal_test_create(s->k, "");
    sim_disk_limit(s->disk, 2 * (uint64_t)RW_LOG_SEGMENT_BYTES + 4096);
    uint64_t from = WAL_LSN_FIRST;
    for (unsigned round = 0; round < 3; round++) {
        from = wal_end_lsn(s->w);
        wal_trim(s->w, from);
        for (size_t i = 0; i < RW_ARRAY_SIZE(threads); i++) TAP_CHECK(kio_thread_start(s->k, "flood", -1, flood, s, &threads[i]) == 0);
        for (size_t i = 0; i < RW_ARRAY_SIZE(threads); i++) kio_thread_join(s->k, threads[i]);
    }
    s->end = wal_end_lsn(s->w);
    TAP_CHECK(wal_close(s->w) == 0);
    wal_test_seen seen;
    uint64_t found = 0;
    TAP_CHECK(wal_test_reopen(s->k, "", from, s->end, &s->w, &seen, &found) == 0 && seen.sound && found == s->end);
    wal_close(s->w);
}

/* The account by itself, with room reserved that no appender has filled yet: a state that lasts for moments only. */
static void test_account(void *arg)
{
    scene *s = arg;
    wal *w = wal_test_create(s->k, "");
    wal_counters counters;
    do {
        kio_yield(s->k);
        wal_counters_get(w, &counters);
    } while (counters.file_bytes < 2 * (uint64_t)RW_LOG_SEGMENT_BYTES);
    uint64_t start = wal_end_lsn(w), limit = atomic_load(&w->limit), capacity = w->capacity, paid = 0, padded = 0;
    bool good = limit <= capacity;
    atomic_store(&w->reserve, limit);
    while (wal_slots_charge(w, 100) == 100) {
        padded++;
        paid += WAL_PAYLOAD_BYTES - 100;
        good = good && atomic_load(&w->limit) <= w->capacity && w->capacity == capacity - paid && wal_end_lsn(w) <= w->capacity;
    }
    good = good && padded >= WAL_MARGIN_BYTES / WAL_PAYLOAD_BYTES && w->capacity == capacity - paid && atomic_load(&w->limit) <= w->capacity;
    tap_ok(good, "%llu padded batches are paid for, the next would break what was promised", (unsigned long long)padded);
    tap_ok(wal_slots_charge(w, WAL_PAYLOAD_BYTES + 100) == WAL_PAYLOAD_BYTES && wal_slots_charge(w, WAL_PAYLOAD_BYTES) == WAL_PAYLOAD_BYTES &&
           w->capacity == capacity - paid, "whole blocks are still taken");
    atomic_store(&w->reserve, start);
    tap_ok(wal_slots_charge(w, 100) == 100 && atomic_load(&w->limit) <= w->capacity && (atomic_load(&w->reserve) & WAL_RESERVE_TAG) != 0,
           "when less is reserved the limit is lowered, and the tag tells the appenders");
    TAP_CHECK(wal_close(w) == 0);
}

/* ---- failures ---- */

static void on_failure(void *arg, int code, const char *text)
{
    scene *s = arg;
    s->failures++;
    s->failure_code = code;
    snprintf(s->failure_text, sizeof s->failure_text, "%s", text);
}

static int sync_data(void *arg)
{
    scene *s = arg;
    s->data_syncs++;
    return s->data_syncs == 3 ? rw_error(RW_EIO, "the data file cannot be synced") : 0;
}

static wal *start_watched(scene *s)
{
    wal_options options = wal_test_options();
    uint64_t end;
    options.on_failure = on_failure;
    options.sync_data = sync_data;
    options.on_failure_arg = options.sync_data_arg = s;
    TAP_CHECK(wal_create(s->k, "", &options, &s->w) == 0);
    wal_test_seen seen = {.sound = true};
    TAP_CHECK(wal_replay(s->w, WAL_LSN_FIRST, WAL_LSN_FIRST, wal_test_see, &seen, &end) == 0);
    TAP_CHECK(wal_start(s->w, end) == 0);
    return s->w;
}

static void test_failure(scene *s, unsigned operation, const char *name)
{
    uint64_t lsn, first = 0, end = 0, found;
    wal *w = start_watched(s);
    /* The spare slot is being made ready by the writer thread: let it finish. */
    for (unsigned i = 0; i < 3; i++) TAP_CHECK(wal_test_append(w, 0, 0, i, 100, &lsn, &first) == 0 && wal_wait(w, first) == 0);
    wal_counters counters;
    do {
        kio_yield(s->k);
        wal_counters_get(w, &counters);
    } while (counters.file_bytes < 2 * (uint64_t)RW_LOG_SEGMENT_BYTES);
    sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_ERROR, .operations = operation, .path_part = "log", .countdown = 1, .errno_value = EIO});
    TAP_CHECK(wal_test_append(w, 0, 0, 3, 100, &lsn, &end) == 0);
    int waited = wal_wait(w, end);
    tap_ok(waited == RW_EUNKNOWN && strstr(rw_error_text(), "/log") != NULL, "%s fails: whoever waits is told that the outcome is unknown: %s", name, rw_error_text());
    tap_ok(wal_wait(w, end) == RW_EUNKNOWN && wal_wait(w, first) == 0, "later waits too; what was durable is durable");
    uint64_t before = wal_end_lsn(w);
    tap_ok(wal_test_append(w, 0, 0, 4, 100, &lsn, &found) == RW_EREADONLY && wal_end_lsn(w) == before && strstr(rw_error_text(), "/log") != NULL,
           "appends are refused, naming the cause: %s", rw_error_text());
    tap_ok(wal_durable_lsn(w) == first, "the durable LSN stays");
    tap_ok(wal_close(w) == RW_EIO && s->failures == 1 && s->failure_code == RW_EIO && s->failure_text[0] != 0, "the failure was told once, and by close");
}

static void test_sync_failure(void *arg)
{
    test_failure(arg, SIM_ON_SYNC, "a sync");
}

static void test_write_failure(void *arg)
{
    test_failure(arg, SIM_ON_WRITE, "a write");
}

static void test_needs_data(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end;
    unsigned char body[64] = {0};
    rw_slice piece = {body, sizeof body};
    wal *w = start_watched(s);
    TAP_CHECK(wal_append(w, WAL_COMMIT, &piece, 1, 0, &lsn, &end, NULL) == 0 && wal_wait(w, end) == 0);
    TAP_CHECK(s->data_syncs == 0);
    for (unsigned i = 1; i < 3; i++) {
        TAP_CHECK(wal_append(w, WAL_COMMIT, &piece, 1, WAL_NEEDS_DATA, &lsn, &end, NULL) == 0);
        TAP_CHECK(s->data_syncs == i - 1 && wal_wait(w, end) == 0 && s->data_syncs == i);
    }
    uint64_t durable = end;
    TAP_CHECK(wal_append(w, WAL_COMMIT, &piece, 1, WAL_NEEDS_DATA, &lsn, &end, NULL) == 0);
    TAP_CHECK(wal_wait(w, end) == RW_EUNKNOWN && wal_durable_lsn(w) == durable && s->failures == 1);
    TAP_CHECK(wal_close(w) == RW_EIO);
    wal_test_seen seen;
    int rc = wal_test_reopen(s->k, "", WAL_LSN_FIRST, durable, &s->w, &seen, &s->end);
    tap_ok(rc == 0 && s->end == durable && seen.count == 3, "a record that needs the data file is not written before that is durable");
    if (rc == 0) wal_close(s->w);
}

/* A record nobody waits for becomes durable in time. The simulator now and then keeps a thread waiting for its turn, for up to 100 ms: the writer, or this one. */
static void test_async(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end = 0, latest = 0;
    unsigned late = 0;
    s->w = wal_test_create(s->k, "");
    for (uint32_t i = 0; i < 50; i++) {
        TAP_CHECK(wal_test_append(s->w, 0, 0, i, 200, &lsn, &end) == 0);
        uint64_t start = kio_now_ns(s->k);
        _Atomic uint32_t never = 0;
        while (wal_durable_lsn(s->w) < end && kio_now_ns(s->k) < start + 1000000000) kio_sleep(s->k, &never, 0, 1000000);
        uint64_t took = kio_now_ns(s->k) - start;
        latest = RW_MAX(latest, took);
        late += took > 30000000;
        kio_sleep(s->k, &never, 0, (int64_t)(i % 7) * 10000000);
    }
    tap_ok(late <= 10 && latest <= 250000000, "with a delay of 20 ms, records are durable within 30 ms, but for %u of 50, at the latest after %llu us", late,
           (unsigned long long)latest / 1000);
    TAP_CHECK(wal_close(s->w) == 0);
}

/* ---- opening ---- */

static void test_opening(void *arg)
{
    scene *s = arg;
    wal_options options = wal_test_options(), other = wal_test_options(), reader = wal_test_options();
    uint64_t lsn, end = 0, found;
    wal *w = NULL;
    tap_ok(wal_open(s->k, "", &options, &w) == RW_ENOENT && w == NULL, "a log that is not there: %s", rw_error_text());
    w = wal_test_create(s->k, "");
    TAP_CHECK(wal_close(w) == 0);
    w = wal_test_create(s->k, "");
    tap_ok(wal_test_append(w, 0, 0, 0, 50, &lsn, &end) == 0 && lsn == WAL_LSN_FIRST, "a log without records may be created again");
    TAP_CHECK(wal_close(w) == 0);
    tap_ok(wal_create(s->k, "", &options, &w) == RW_EEXIST, "one with records may not: %s", rw_error_text());
    other.database_id = 99;
    tap_ok(wal_open(s->k, "", &other, &w) == RW_EFOREIGN, "another database's log: %s", rw_error_text());
    reader.read_only = true;
    wal_test_seen seen = {.sound = true};
    TAP_CHECK(wal_open(s->k, "", &reader, &w) == 0 && wal_replay(w, WAL_LSN_FIRST, end, wal_test_see, &seen, &found) == 0);
    tap_ok(seen.count == 1 && wal_start(w, found) == RW_EREADONLY, "a log open for reading replays and does not start");
    wal_close(w);
    unsigned char block[RW_BLOCK_SIZE];
    wal_block_header *header = (wal_block_header *)(void *)block;
    for (uint64_t at = 0; sim_disk_read(s->disk, "/log", at, block, sizeof block); at += RW_LOG_SEGMENT_BYTES) {
        header->version = 2;
        header->checksum = wal_block_checksum(block);
        if (header->magic == WAL_BLOCK_MAGIC) sim_disk_write(s->disk, "/log", at, block, sizeof block);
    }
    tap_ok(wal_open(s->k, "", &options, &w) == RW_EVERSION, "a later format: %s", rw_error_text());
}

/* What wal_make_way and wal_create say of a log of that many bytes, and whether it is still there as it was. */
static int make_way(scene *s, const unsigned char *bytes, size_t size, bool own, bool *kept)
{
    unsigned char *after = malloc(size);
    wal_options options = wal_test_options();
    uint64_t now = 0;
    wal *w = NULL;
    sim_disk_remove(s->disk, "/log");
    sim_disk_write(s->disk, "/log", 0, bytes, size);
    int created = own ? 0 : wal_create(s->k, "", &options, &w);
    if (w != NULL) {
        TAP_CHECK(wal_close(w) == 0);
        sim_disk_write(s->disk, "/log", 0, bytes, size);
    }
    int rc = wal_make_way(s->k, "", own);
    TAP_CHECK(own || rc == created);
    sim_disk_size(s->disk, "/log", &now);
    *kept = now == size && sim_disk_read(s->disk, "/log", 0, after, size) && memcmp(bytes, after, size) == 0;
    free(after);
    return rc;
}

/* Nothing is taken over that is not known. */
static void test_strangers(void *arg)
{
    scene *s = arg;
    static unsigned char bytes[2 * RW_LOG_SEGMENT_BYTES];
    unsigned char start[RW_BLOCK_SIZE];
    bool kept, good = true;
    s->w = wal_test_create(s->k, "");
    TAP_CHECK(wal_close(s->w) == 0 && sim_disk_read(s->disk, "/log", 0, start, sizeof start));
    sim_disk_remove(s->disk, "/log");
    tap_ok(wal_make_way(s->k, "", false) == 0 && !sim_disk_size(s->disk, "/log", &s->end), "no log is in nobody's way, and none is made");
    static const size_t sizes[] = {1, 19, RW_BLOCK_SIZE - 1, RW_BLOCK_SIZE, RW_BLOCK_SIZE + 1, 2 * RW_BLOCK_SIZE, RW_LOG_SEGMENT_BYTES, sizeof bytes};
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)rw_random_next(&s->random);
    for (size_t i = 0; i < RW_ARRAY_SIZE(sizes); i++) good = good && make_way(s, bytes, sizes[i], false, &kept) == RW_EFOREIGN && kept;
    tap_ok(good && strstr(rw_error_text(), "/log") != NULL, "a stranger's file is refused and left alone: %s", rw_error_text());
    good = make_way(s, bytes, sizeof bytes, true, &kept) == 0 && !kept;
    tap_ok(good, "what a power cut garbled is taken over while the mark of the creation stands");
    memset(bytes, 0, sizeof bytes);
    for (size_t i = 0; i < RW_ARRAY_SIZE(sizes); i++)
        good = good && make_way(s, bytes, sizes[i], false, &kept) == (sizes[i] % RW_BLOCK_SIZE == 0 ? 0 : RW_EFOREIGN) && kept == (sizes[i] % RW_BLOCK_SIZE != 0);
    memcpy(bytes, start, sizeof start);
    good = good && make_way(s, bytes, sizeof bytes, false, &kept) == 0 && !kept;
    memset(bytes + SIM_SECTOR_BYTES, 0, 3 * SIM_SECTOR_BYTES);
    good = good && make_way(s, bytes, sizeof bytes, false, &kept) == 0 && !kept;
    tap_ok(good, "zeros and start blocks, torn ones too, are what a creation leaves that was cut short");
    bytes[sizeof bytes - 1] = 1;
    tap_ok(make_way(s, bytes, sizeof bytes, false, &kept) == RW_EFOREIGN && kept, "but not with a byte of something else behind: %s", rw_error_text());
    wal_block_header *header = (wal_block_header *)(void *)(bytes + RW_BLOCK_SIZE);
    *header = (wal_block_header){.magic = WAL_BLOCK_MAGIC, .payload_bytes = 8};
    header->checksum = wal_block_checksum(header);
    good = make_way(s, bytes, sizeof bytes, false, &kept) == RW_EEXIST && kept;
    good = good && make_way(s, bytes, sizeof bytes, true, &kept) == RW_EEXIST && kept;
    tap_ok(good, "records are refused, whatever the mark says: %s", rw_error_text());
}

static void test_operations(void)
{
    static const struct { wal_op_kind kind; size_t key, second; } cases[] = {
        {WAL_OP_PUT, 5, 0}, {WAL_OP_PUT, 1, 127}, {WAL_OP_PUT, 127, 128}, {WAL_OP_PUT, 128, 16384}, {WAL_OP_DELETE, 16383, 0},
        {WAL_OP_DELETE_RANGE, 8, 9}, {WAL_OP_PUT_EXTENT, 20, 16}};
    unsigned char bytes[70000] = {0}, filler[17000];
    size_t size = 0, at = 0, i = 0;
    wal_op op;
    bool good = true;
    for (size_t b = 0; b < sizeof filler; b++) filler[b] = (unsigned char)(b * 3);
    for (i = 0; i < RW_ARRAY_SIZE(cases); i++) {
        op = (wal_op){cases[i].kind, {filler + i, cases[i].key}, {filler + 2 * i, cases[i].second}};
        size_t begin = size;
        size += wal_op_encode_head(&op, bytes + size);
        memcpy(bytes + size, op.key.data, op.key.size);
        memcpy(bytes + size + op.key.size, op.second.data, op.second.size);
        size += op.key.size + op.second.size;
        good = good && size - begin == wal_op_size(&op);
    }
    for (i = 0; wal_op_decode(rw_slice_of(bytes, size), &at, &op) == 0; i++) {
        good = good && op.kind == cases[i].kind && rw_slice_equal(op.key, rw_slice_of(filler + i, cases[i].key)) &&
               rw_slice_equal(op.second, rw_slice_of(filler + 2 * i, cases[i].second));
    }
    tap_ok(good && i == RW_ARRAY_SIZE(cases) && at == size, "operations are decoded as they were encoded");
    unsigned refused = 0, ends = 0;
    for (size_t cut = 1; cut < 300; cut++) {
        int rc;
        at = 0;
        while ((rc = wal_op_decode(rw_slice_of(bytes, cut), &at, &op)) == 0) {}
        refused += rc == RW_ECORRUPT;
        ends += rc == RW_ENOTFOUND;
    }
    bytes[0] = 9;
    at = 0;
    tap_ok(refused > 290 && refused + ends == 299 && wal_op_decode(rw_slice_of(bytes, size), &at, &op) == RW_ECORRUPT && at == 0,
           "a body that is cut short or makes no sense is refused");
}

static void test_print(void *arg)
{
    scene *s = arg;
    uint64_t lsn, end;
    char *text = NULL;
    size_t size = 0;
    s->w = wal_test_create(s->k, "");
    wal_op op = {WAL_OP_PUT, {"some\001key", 8}, {"a value", 7}};
    unsigned char head[11];
    rw_slice pieces[3] = {{head, wal_op_encode_head(&op, head)}, op.key, op.second};
    for (unsigned i = 0; i < 3; i++) TAP_CHECK(wal_append(s->w, WAL_COMMIT, pieces, 3, 0, &lsn, &end, NULL) == 0 && wal_wait(s->w, end) == 0);
    TAP_CHECK(wal_close(s->w) == 0);
    sim_disk_flip(s->disk, "/log", 2 * RW_BLOCK_SIZE + 70, 1);
    FILE *to = open_memstream(&text, &size);
    int rc = wal_print(s->k, "/log", to);
    fclose(to);
    const char *first = strstr(text, "put key(8) some\\01key value(7) a value");
    tap_ok(rc == 0 && first != NULL && strstr(text, "start of an epoch") != NULL, "the printer shows blocks and records");
    tap_ok(strstr(text, "no block in 4096 bytes at 8192") != NULL && first != NULL && strstr(first + 1, "put key") != NULL,
           "says where there is none, and goes on behind it");
    free(text);
}

/* ---- real threads ---- */

#define THREADS 8u
#define EACH 1500u

typedef struct {
    kio *k;
    wal *w;
    uint32_t thread;
    bool good;
    uint64_t longest_ns;       /* wait */
} client;

static void client_run(void *arg)
{
    client *c = arg;
    uint64_t lsn, end = 0, last = 0;
    c->good = true;
    for (uint32_t i = 0; i < EACH && c->good; i++) {
        uint32_t size = i % 400 == 13 ? RW_LOG_STAGING_BYTES / 3 : 16 + (i * 37 + c->thread * 11) % 900;
        c->good = wal_test_append(c->w, 5, c->thread, i, size, &lsn, &end) == 0 && lsn >= last;
        last = end;
        if (i % (c->thread + 1) != 0) continue;
        uint64_t start = kio_now_ns(c->k);
        c->good = c->good && wal_wait(c->w, end) == 0 && wal_durable_lsn(c->w) >= end;
        c->longest_ns = RW_MAX(c->longest_ns, kio_now_ns(c->k) - start);
    }
}

typedef struct {
    uint32_t next[THREADS];
    bool good;
} order;

static int check_order(void *arg, const wal_record *record)
{
    order *o = arg;
    const char *body = record->body.data;
    uint32_t thread = rw_load_u32(body + 4);
    o->good = o->good && wal_test_body_sound(record->body) && thread < THREADS && rw_load_u32(body + 8) == o->next[thread];
    if (o->good) o->next[thread]++;
    return 0;
}

static void test_threads(void)
{
    char dir[DIRS_PATH_MAX];
    kio *k = NULL;
    client clients[THREADS];
    kio_thread *threads[THREADS];
    wal_options options = wal_test_options();
    if (!dir_make(dir, "wal") || kio_open("psync", NULL, NULL, &k) != 0) {
        tap_ok(false, "no directory or back end: %s", rw_error_text());
        return;
    }
    wal *w = NULL;
    uint64_t end = 0, found = 0, longest_ns = 0;
    wal_test_seen seen = {.sound = true};
    /* The tick comes only every minute: a wake-up that is lost is not made up for before. */
    options.async_delay_ms = 120000;
    bool good = wal_create(k, dir, &options, &w) == 0 && wal_replay(w, WAL_LSN_FIRST, WAL_LSN_FIRST, wal_test_see, &seen, &end) == 0;
    TAP_CHECK(good && wal_start(w, end) == 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        clients[i] = (client){.k = k, .w = w, .thread = i};
        TAP_CHECK(kio_thread_start(k, "client", -1, client_run, &clients[i], &threads[i]) == 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        kio_thread_join(k, threads[i]);
        good = good && clients[i].good;
        longest_ns = RW_MAX(longest_ns, clients[i].longest_ns);
    }
    end = wal_end_lsn(w);
    good = wal_close(w) == 0 && good;
    order o = {.good = true};
    good = good && wal_open(k, dir, &options, &w) == 0 && wal_replay(w, WAL_LSN_FIRST, end, check_order, &o, &found) == 0;
    for (uint32_t i = 0; i < THREADS; i++) good = good && o.next[i] == EACH;
    tap_ok(good && o.good && found == end, "%u threads, %u records each, some waited for: all are found in each thread's order", THREADS, EACH);
    tap_ok(longest_ns < 30000000000, "no wake-up is lost: the longest wait took %llu ms", (unsigned long long)longest_ns / 1000000);
    wal_close(w);
    kio_close(k);
    dir_remove(dir);
}

int main(void)
{
    scene s = {0};
    test_operations();
    run(&s, 1, test_framing);
    run(&s, 2, test_bodies);
    run(&s, 3, test_recycling);
    run(&s, 4, test_full);
    run(&s, 4, test_full_partly);
    for (uint64_t seed = 1; seed < FLOOD_SEEDS; seed++) run(&s, seed, test_full_threads);
    run(&s, 1, test_account);
    run(&s, 5, test_sync_failure);
    s = (scene){0};
    run(&s, 6, test_write_failure);
    s = (scene){0};
    run(&s, 7, test_needs_data);
    run(&s, 8, test_async);
    run(&s, 9, test_opening);
    run(&s, 10, test_print);
    run(&s, 11, test_strangers);
    test_threads();
    return tap_done();
}
