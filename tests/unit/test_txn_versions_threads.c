/* The version store among threads: readers beside a writer, while partitions are cut and joined and a worker trims. VERSIONS_SEED replays the draws. */
#include "tests/unit/txn_versions_test.h"

/* A value is the timestamp of the write that made it, so what a snapshot sees is known: the newest below it. */
#define STAGE_KEYS 48u
#define STAGE_WRITES 40000u
#define READERS 3u

static struct {
    bed *b;
    _Atomic uint64_t value[STAGE_KEYS];        /* the leaf: 0: absent; the lowest bit: deleted by the write */
    _Atomic uint32_t key[STAGE_WRITES + 200];  /* of each write, by timestamp, + 1 */
    _Atomic uint64_t wrong, reads, old_values, lost, ranges;
    _Atomic uint32_t done;
} stage;

/* What the snapshot must find: two for each timestamp, so that a deletion has a number, too. 0: absent. */
static uint64_t stage_expected(uint32_t key, uint64_t since)
{
    for (uint64_t t = since; t-- > 100;)
        if (atomic_load_explicit(&stage.key[t], memory_order_relaxed) == key + 1) return t % 4 == 0 ? 0 : t;
    return 0;
}

static void stage_write(rw_random *random)
{
    unsigned char bytes[16];
    bed *b = stage.b;
    uint32_t key = (uint32_t)rw_random_below(random, STAGE_KEYS);
    partition *p = bed_partition(b, number_key(key, bytes));
    partition_lock(b->k, p);
    uint64_t timestamp = operation_begin(b), before = atomic_load_explicit(&stage.value[key], memory_order_relaxed);
    version_image image = {.present = before != 0, .value = rw_slice_of(&before, sizeof before)};
    atomic_store_explicit(&stage.key[timestamp], key + 1, memory_order_relaxed);
    if (versions_wanted(&b->v)) versions_record(&b->v, p, number_key(key, bytes), timestamp, &image);
    atomic_store_explicit(&stage.value[key], timestamp % 4 == 0 ? 0 : timestamp, memory_order_release);
    operation_end(b, timestamp);
    partition_unlock(b->k, p);
}

static void stage_writer(void *arg)
{
    rw_random random;
    unsigned char bytes[16];
    (void)arg;
    rw_random_seed(&random, seed);
    for (unsigned i = 0; i < STAGE_WRITES; i++) {
        stage_write(&random);
        rw_slice key = number_key((uint32_t)rw_random_below(&random, STAGE_KEYS), bytes);
        uint64_t choice = rw_random_below(&random, 100);
        if (choice == 0) bed_cut(stage.b, key, 6);
        else if (choice == 1) bed_join(stage.b, key);
        while (atomic_load_explicit(&stage.reads, memory_order_relaxed) < i / 8) kio_yield(stage.b->k);
    }
    atomic_store(&stage.done, 1);
}

/* A worker, as it were. */
static void stage_trimmer(void *arg)
{
    bed *b = stage.b;
    (void)arg;
    while (atomic_load(&stage.done) == 0) {
        for (unsigned i = 0; i < 6; i++) {
            partition *p = &b->t.partitions[i];
            if (!versions_wants_trim(&b->v, p) || !partition_try(p)) continue;
            versions_trim(&b->v, p, 20);
            partition_unlock(b->k, p);
        }
        kio_yield(b->k);
    }
}

static bool stage_read(uint32_t key, uint64_t since, uint64_t expected)
{
    unsigned char bytes[16];
    uint64_t old = 0, seen = atomic_load_explicit(&stage.value[key], memory_order_acquire);
    size_t size = 0;
    extent_ref extent;
    version_state state = versions_find(&stage.b->v, number_key(key, bytes), since, &old, sizeof old, &size, &extent);
    if (state != VERSION_NONE) atomic_fetch_add_explicit(&stage.old_values, 1, memory_order_relaxed);
    if (state == VERSION_VALUE && size != sizeof old) return false;
    if (state == VERSION_VALUE) seen = old;
    if (state == VERSION_ABSENT) seen = 0;
    return seen == expected && state != VERSION_EXTENT;
}

static bool stage_read_range(uint64_t since, bool backwards, const uint64_t *expected, version_overlay *o)
{
    uint64_t seen[STAGE_KEYS];
    bool complete = false;
    for (uint32_t key = 0; key < STAGE_KEYS; key++) seen[key] = atomic_load_explicit(&stage.value[key], memory_order_acquire);
    if (versions_collect(&stage.b->v, rw_slice_of("", 0), rw_slice_of("", 0), backwards, since, o, &complete) != 0 || !complete) return false;
    for (unsigned i = 0; i < o->count; i++) {
        uint32_t key = key_number(version_overlay_key(o, i));
        seen[key] = o->entries[i].present ? rw_load_u64(version_overlay_value(o, i).data) : 0;
    }
    atomic_fetch_add_explicit(&stage.ranges, 1, memory_order_relaxed);
    return memcmp(seen, expected, sizeof seen) == 0;
}

static void stage_reader(void *arg)
{
    rw_random random;
    snapshot own;
    version_overlay overlay = {0};
    rw_random_seed(&random, seed * 100 + (uintptr_t)arg);
    while (atomic_load(&stage.done) == 0) {
        uint64_t expected[STAGE_KEYS];
        snapshots_begin(&stage.b->s, &own, 0, bed_moment, stage.b);
        for (uint32_t key = 0; key < STAGE_KEYS; key++) expected[key] = stage_expected(key, own.timestamp);
        for (uint64_t i = rw_random_below(&random, 300); i > 0 && !snapshots_is_lost(&stage.b->s, own.timestamp); i--) {
            uint32_t key = (uint32_t)rw_random_below(&random, STAGE_KEYS);
            bool range = rw_random_below(&random, 20) == 0;
            bool right = range ? stage_read_range(own.timestamp, i % 2 == 0, expected, &overlay) : stage_read(key, own.timestamp, expected[key]);
            if (snapshots_is_lost(&stage.b->s, own.timestamp)) atomic_fetch_add(&stage.lost, 1);
            else if (!right) atomic_fetch_add(&stage.wrong, 1);
            atomic_fetch_add_explicit(&stage.reads, 1, memory_order_relaxed);
            kio_yield(stage.b->k);
        }
        snapshots_end(&stage.b->s, &own);
    }
    version_overlay_free(&overlay);
}

/* A reader waits for the latch of a store that a move takes its version from. */
static void move_race_reader(void *arg)
{
    snapshot *own = arg;
    if (!stage_read(1, own->timestamp, 0)) atomic_fetch_add(&stage.wrong, 1);
}

static void test_move_race(void)
{
    bed *b = stage.b = bed_make(CACHE_BYTES);
    snapshot own;
    kio_thread *reader;
    unsigned char key[16];
    snapshots_begin(&b->s, &own, 0, bed_moment, b);
    uint64_t timestamp = operation_begin(b);
    partition *p = bed_partition(b, number_key(1, key)), *q = &b->t.partitions[p->index + 1u];
    versions_record(&b->v, p, number_key(1, key), timestamp, &(version_image){.present = false});
    atomic_store(&stage.value[1], timestamp);
    operation_end(b, timestamp);
    for (unsigned i = 0; i < 50; i++) {
        kio_mutex *latch = &b->v.stores[p->index].latch;
        kio_mutex_lock(b->k, latch);
        must(kio_thread_start(b->k, "reader", -1, move_race_reader, &own, &reader) == 0, "thread");
        while (atomic_load(&latch->state) != 2) kio_yield(b->k);
        versions_move_begin(&b->v);
        router_insert(b->k, &b->t.router, number_key(1, key), q->index);
        kio_mutex_unlock(b->k, latch);
        versions_move(&b->v, p, q, number_key(1, key)); /* most often before the reader is awake */
        versions_move_end(&b->v);
        kio_thread_join(b->k, reader);
        versions_move_begin(&b->v);
        router_remove(b->k, &b->t.router, q->index);
        versions_move(&b->v, q, p, number_key(1, key));
        versions_move_end(&b->v);
    }
    tap_ok(stage.wrong == 0 && stage.old_values == 50, "who has waited for a store looks again where the version is now");
    snapshots_end(&b->s, &own);
    trim_all(b);
    bed_end(b);
}

static void test_threads(uint64_t bytes_max)
{
    kio_thread *threads[READERS + 2];
    memset(&stage, 0, sizeof stage);
    stage.b = bed_make(bytes_max);
    stage.b->slow_moves = true;
    kio *k = stage.b->k;
    must(kio_thread_start(k, "writer", -1, stage_writer, NULL, &threads[READERS]) == 0, "thread");
    must(kio_thread_start(k, "trimmer", -1, stage_trimmer, NULL, &threads[READERS + 1]) == 0, "thread");
    for (uintptr_t i = 0; i < READERS; i++) must(kio_thread_start(k, "reader", -1, stage_reader, (void *)i, &threads[i]) == 0, "thread");
    for (unsigned i = 0; i < READERS + 2; i++) kio_thread_join(k, threads[i]);
    tap_ok(stage.wrong == 0 && stage.reads > 0 && stage.ranges > 0, "%llu reads beside a writer, %llu of old values, %llu of ranges, %llu lost",
           (unsigned long long)stage.reads, (unsigned long long)stage.old_values, (unsigned long long)stage.ranges, (unsigned long long)stage.lost);
    bed_end_clean(stage.b, "nothing is left");
}

int main(void)
{
    const char *given = getenv("VERSIONS_SEED");
    seed = given == NULL ? 10 : strtoull(given, NULL, 10);
    test_move_race();
    test_threads(CACHE_BYTES / 2);
    test_threads(5 * PAGE_BYTES);
    return tap_done();
}
