/*
 * The log under power cuts: threads append, wait and trim, the power goes at any step, recovery must bring back everything that was durable, in
 * order, byte for byte, and nothing that was not appended; then it goes on from there, for several generations.
 */
#include "tests/unit/wal_test.h"

#define THREADS 3u
#define GENERATIONS 6u
#ifdef RW_TINY
#define SEEDS_DEFAULT 300u
#else
#define SEEDS_DEFAULT 40u   /* segments of full size take their time */
#endif

typedef struct {
    uint32_t generation, thread, number, size;
    uint64_t lsn, end;         /* lsn 0: wal_append has not returned */
} entry;

/* What is known to have been appended and promised; copied at the moment of a crash. */
typedef struct {
    entry *entries;
    size_t count, room;
    uint64_t durable, trim;
} model;

typedef struct {
    uint64_t seed;
    uint32_t generation;
    sim_world *world;
    kio *k;
    wal *w;
    bool running;
    rw_random random;
    model now, at_crash;
    sim_disk *crashed;
    uint64_t crash_step;
    uint32_t per_thread;
    bool fail_sync;
    bool uniform;              /* every record fills a block: cut and new records meet at the same LSNs */
    bool failed;
    size_t matched;
    uint64_t next_lsn;
} scene;

static bool broken;

#define CHECK(s, condition)                                                                                                    \
    do {                                                                                                                       \
        if (!(condition) && !broken) {                                                                                         \
            broken = true;                                                                                                     \
            tap_ok(false, "%s:%d: %s (%s); replay: WAL_SEED=%llu generation %u", __FILE__, __LINE__, #condition, rw_error_text(), \
                   (unsigned long long)(s)->seed, (s)->generation);                                                            \
        }                                                                                                                      \
    } while (0)

static size_t model_add(model *m, entry e)
{
    if (m->count == m->room) {
        m->room = m->room * 2 + 64;
        m->entries = realloc(m->entries, m->room * sizeof *m->entries);
    }
    m->entries[m->count] = e;
    return m->count++;
}

static model model_copy(const model *m)
{
    model copy = *m;
    copy.room = m->count;
    copy.entries = malloc((m->count + 1) * sizeof *copy.entries);
    if (m->count > 0) memcpy(copy.entries, m->entries, m->count * sizeof *copy.entries);
    return copy;
}

/* Each open makes the log durable in its own way. */
static wal_options draw_options(scene *s)
{
    wal_options options = wal_test_options();
    options.sync = (wal_sync)rw_random_below(&s->random, WAL_SYNC_DSYNC + 1);
    return options;
}

/* ---- appending ---- */

static uint32_t draw_size(scene *s)
{
    if (s->uniform) return WAL_PAYLOAD_BYTES - WAL_FRAGMENT_HEADER_BYTES;
    switch (rw_random_below(&s->random, 12)) {
    case 0: return WAL_TEST_HEADER + (uint32_t)rw_random_below(&s->random, 3 * RW_LOG_FRAGMENT_BYTES);
    case 1: return (uint32_t)(WAL_PAYLOAD_BYTES - 8 + 8 * rw_random_below(&s->random, 3));
    case 2: return rw_random_below(&s->random, 40) == 0 ? RW_LOG_STAGING_BYTES + 1000 : 5000;
    default: return WAL_TEST_HEADER + (uint32_t)rw_random_below(&s->random, 600);
    }
}

typedef struct {
    scene *s;
    uint32_t number;
} appender;

static void append_run(void *arg)
{
    appender *a = arg;
    scene *s = a->s;
    for (uint32_t i = 0; i < s->per_thread && !s->failed; i++) {
        entry e = {.generation = s->generation, .thread = a->number, .number = i, .size = draw_size(s)};
        size_t index = model_add(&s->now, e);
        int rc = wal_test_append(s->w, e.generation, e.thread, e.number, e.size, &e.lsn, &e.end);
        if (rc != 0) {
            CHECK(s, s->fail_sync && rc == RW_EREADONLY);
            s->failed = true;
            return;
        }
        s->now.entries[index] = e;
        if (rw_random_below(&s->random, 3) == 0) continue;
        rc = wal_wait(s->w, e.end);
        if (rc != 0) {
            CHECK(s, s->fail_sync && rc == RW_EUNKNOWN);
            s->failed = true;
            return;
        }
        CHECK(s, wal_durable_lsn(s->w) >= e.end);
        if (rw_random_below(&s->random, 6) == 0) {
            s->now.trim = RW_MAX(s->now.trim, e.end);
            wal_trim(s->w, s->now.trim);
        }
        if (rw_random_below(&s->random, 30) == 0) CHECK(s, wal_shrink(s->w) == 0 || s->fail_sync);
    }
}

/* ---- recovery ---- */

static int match(void *arg, const wal_record *record)
{
    scene *s = arg;
    const char *bytes = record->body.data;
    CHECK(s, wal_test_body_sound(record->body));
    if (broken) return 0;
    CHECK(s, record->lsn >= s->now.trim && (s->next_lsn == 0 || record->lsn == s->next_lsn));
    s->next_lsn = record->end_lsn;
    for (size_t i = 0; i < s->now.count; i++) {
        entry *e = &s->now.entries[i];
        if (e->generation != rw_load_u32(bytes) || e->thread != rw_load_u32(bytes + 4) || e->number != rw_load_u32(bytes + 8)) continue;
        CHECK(s, e->lsn == 0 || (e->lsn == record->lsn && e->end == record->end_lsn));
        e->lsn = record->lsn;
        e->end = record->end_lsn;
        s->matched++;
        return 0;
    }
    CHECK(s, !"a record that was not appended, or was cut before");
    return 0;
}

/* Replays from the trim mark; forgets in the model what recovery cut. */
static bool recover(scene *s)
{
    wal_options options = draw_options(s);
    uint64_t end = 0, again = 0;
    size_t kept = 0, expected = 0;
    int rc = wal_open(s->k, "", &options, &s->w);
    CHECK(s, rc == 0);
    if (rc != 0) return false;
    s->matched = 0;
    s->next_lsn = 0;
    rc = wal_replay(s->w, s->now.trim, s->now.durable, match, s, &end);
    CHECK(s, rc == 0);
    if (rc != 0) {
        if (getenv("WAL_PRINT") != NULL) wal_print(s->k, "/log", stdout);
        wal_close(s->w);
        return false;
    }
    CHECK(s, s->next_lsn == 0 || s->next_lsn == end);
    CHECK(s, end >= s->now.durable);
    size_t matched = s->matched;
    s->next_lsn = 0;
    CHECK(s, wal_replay(s->w, s->now.trim, s->now.durable, match, s, &again) == 0 && again == end && s->matched == 2 * matched);
    for (size_t i = 0; i < s->now.count; i++) {
        entry e = s->now.entries[i];
        if (e.lsn == 0 || e.lsn >= end || e.lsn < s->now.trim) continue;
        expected++;
        s->now.entries[kept++] = e;
    }
    s->now.count = kept;
    CHECK(s, matched == expected);
    s->now.durable = end;
    return true;
}

/* ---- one generation ---- */

static void take_crash(scene *s)
{
    bool killed = rw_random_below(&s->random, 4) == 0;
    s->crashed = (killed ? sim_disk_kill : sim_disk_crash)(sim_world_disk(s->world), &s->random);
    if (getenv("WAL_SEED") != NULL) tap_diag("generation %u, step %llu: %s", s->generation, (unsigned long long)sim_world_steps(s->world), sim_disk_origin(s->crashed));
    if (s->running) s->now.durable = RW_MAX(s->now.durable, wal_durable_lsn(s->w));
    s->at_crash = model_copy(&s->now);
}

static void on_step(void *arg)
{
    scene *s = arg;
    if (s->crashed == NULL && sim_world_steps(s->world) >= s->crash_step) take_crash(s);
}

static void generation_run(void *arg)
{
    scene *s = arg;
    if (s->generation == 0) {
        wal_options options = draw_options(s);
        uint64_t end = 0;
        CHECK(s, wal_create(s->k, "", &options, &s->w) == 0);
        CHECK(s, wal_replay(s->w, WAL_LSN_FIRST, WAL_LSN_FIRST, match, s, &end) == 0);
    } else if (!recover(s)) {
        return;
    } else if (rw_random_below(&s->random, 8) == 0) {
        wal_close(s->w);   /* only looked at: what was seen must still be there after the next power cut */
        return;
    }
    if (s->fail_sync) {
        sim_fault_add(s->world, (sim_fault){.kind = SIM_FAULT_ERROR, .operations = SIM_ON_SYNC | SIM_ON_WRITE, .errno_value = 5,
                                            .countdown = 1 + rw_random_below(&s->random, 60)});
    }
    int rc = wal_start(s->w, s->now.trim);
    CHECK(s, rc == 0 || s->fail_sync);
    if (rc == 0) {
        appender appenders[THREADS];
        kio_thread *threads[THREADS];
        s->running = true;
        for (uint32_t i = 0; i < THREADS; i++) {
            appenders[i] = (appender){.s = s, .number = i};
            CHECK(s, kio_thread_start(s->k, "appender", -1, append_run, &appenders[i], &threads[i]) == 0);
        }
        for (uint32_t i = 0; i < THREADS; i++) kio_thread_join(s->k, threads[i]);
        uint64_t end = wal_end_lsn(s->w);
        s->running = false;
        s->now.durable = RW_MAX(s->now.durable, wal_durable_lsn(s->w));
        rc = wal_close(s->w);
        CHECK(s, rc == 0 || s->fail_sync);
        if (rc == 0) s->now.durable = end;
    } else {
        wal_close(s->w);
    }
}

/* Runs one generation over the disk; returns what the power cut left of it. */
static sim_disk *generation(scene *s, sim_disk *disk)
{
    s->running = s->failed = false;
    s->fail_sync = s->generation > 0 && rw_random_below(&s->random, 5) == 0;
    s->per_thread = (uint32_t)rw_random_below(&s->random, 150);
    /* Early in recovery, anywhere, or after the end. The first one is not cut while the log is being created. */
    static const uint64_t spans[] = {60, 400, 1000, 2500};
    uint64_t span = spans[rw_random_below(&s->random, RW_ARRAY_SIZE(spans))];
    s->crash_step = (s->generation == 0 ? 200 : 1) + rw_random_below(&s->random, span);
    s->crashed = NULL;
    s->world = sim_world_open(disk, rw_random_next(&s->random));
    s->k = sim_world_kio(s->world);
    sim_step_limit(s->world, 5000000);
    sim_step_hook(s->world, on_step, s);
    sim_run(s->world, generation_run, s);
    if (s->crashed == NULL) take_crash(s);
    sim_world_close(s->world);
    free(s->now.entries);
    s->now = s->at_crash;
    sim_disk_destroy(disk);
    return s->crashed;
}

static void chain(uint64_t seed)
{
    scene s = {.seed = seed, .uniform = seed % 4 == 0, .now = {.durable = WAL_LSN_FIRST, .trim = WAL_LSN_FIRST}};
    rw_random_seed(&s.random, seed);
    sim_disk *disk = sim_disk_create();
    for (s.generation = 0; s.generation < GENERATIONS && !broken; s.generation++) disk = generation(&s, disk);
    sim_disk_destroy(disk);
    free(s.now.entries);
}

int main(void)
{
    const char *one = getenv("WAL_SEED"), *many = getenv("WAL_SEEDS");
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1, count = one != NULL ? 1 : SEEDS_DEFAULT;
    if (one == NULL && many != NULL) count = strtoull(many, NULL, 10);
    for (uint64_t seed = first; seed < first + count && !broken; seed++) chain(seed);
    tap_ok(!broken, "%llu chains of %u power cuts and kills: every durable record is found, in order, and nothing else", (unsigned long long)count,
           GENERATIONS);
    return tap_done();
}
