/*
 * The filter of all keys beside writers, in the simulator, while it is thrown away and made anew all the time: an absent key is denied only while it is absent, and never before the
 * commit that deleted it can be seen. KEY_FILTER_SEED replays one seed. Builds with planted bugs, and without sanitizers, plant those that belong to the filter.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/planted.h"
#include "engine/engine.h"
#include "engine/engine_internal.h"
#include "tests/sim/sim.h"
#include "tests/support/rw_helpers.h"
#include "tests/support/tap.h"

#define SEEDS 60u
#define PLANTED_SEEDS 1500u
#define WRITERS 3u
#define READERS 2u
#define OWN 20u                    /* keys of one writer: FELLOWS of them are always written together */
#define FELLOWS 12u
#define OPERATIONS 800u
#define KEYS (WRITERS * OWN)

typedef struct {
    bool present;                  /* as of the last operation that is over */
    bool busy;                     /* one is on its way */
    uint32_t operations;           /* that are over */
} key_state;

typedef struct {
    kio *k;
    rw_db *db;
    engine *e;
    uint64_t seed;
    key_state keys[KEYS];
    _Atomic uint32_t writing, never;
    uint64_t denied, complete;     /* gets that the filter answered, times that it was seen complete */
    unsigned wrong;
    char what[128];
} scene;

typedef struct {
    scene *s;
    unsigned number;
    rw_random random;
} actor;

static void must(scene *s, int code)
{
    if (CHECK_OK(code)) return;
    tap_diag("KEY_FILTER_SEED=%llu", (unsigned long long)s->seed);
    tap_done();
    _Exit(1);
}

static const unsigned char value_bytes[600];     /* the fellows take several leaves */
static const rw_slice value = {value_bytes, sizeof value_bytes};

static void wrong(scene *s, const char *what, unsigned key)
{
    if (s->wrong++ == 0) snprintf(s->what, sizeof s->what, "key %u %s", key, what);
}

static rw_slice key_of(unsigned key, char text[16])
{
    snprintf(text, 16, "%u/%02u", key / OWN % 10, key % OWN % 100);
    return slice_text(text);
}

/* ---- writers ----------------------------------------------------------------------------------------------------- */

static void finish(scene *s, unsigned key, bool present)
{
    s->keys[key].present = present;
    s->keys[key].busy = false;
    s->keys[key].operations++;
}

static void write_one(scene *s, unsigned key, bool present)
{
    char text[16];
    s->keys[key].busy = true;
    if (present) must(s, rw_put(s->db, BUCKET, key_of(key, text), value, RW_ASYNC));
    else if (s->keys[key].present) must(s, rw_del(s->db, BUCKET, key_of(key, text), RW_ASYNC));
    finish(s, key, present);
}

/* From the first of the fellows on. What a deletion of a range replaces is kept for those who read meanwhile, so they see the old state of what is not deleted yet. */
static void write_together(scene *s, unsigned first, bool present)
{
    char text[16], end[16];
    rw_batch *batch;
    for (unsigned key = first; key < first + FELLOWS; key++) s->keys[key].busy = true;
    must(s, rw_batch_new(s->db, &batch));
    for (unsigned key = first; key < first + FELLOWS && present; key++) must(s, rw_batch_put(batch, BUCKET, key_of(key, text), value));
    if (!present) must(s, rw_batch_delete_range(batch, BUCKET, key_of(first, text), key_of(first + FELLOWS, end)));
    must(s, rw_batch_commit(batch, RW_ASYNC));
    rw_batch_free(batch);
    for (unsigned key = first; key < first + FELLOWS; key++) finish(s, key, present);
}

static void write_run(void *arg)
{
    actor *a = arg;
    scene *s = a->s;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        unsigned own = (unsigned)rw_random_below(&a->random, OWN), key = a->number * OWN + own;
        bool present = rw_random_below(&a->random, 2) == 0;
        if (own >= FELLOWS) write_one(s, key, present);
        else write_together(s, a->number * OWN, present);
        if (rw_random_below(&a->random, 4) == 0) kio_sleep(s->k, &s->never, 0, (int64_t)rw_random_below(&a->random, 200000));
    }
    atomic_fetch_sub(&s->writing, 1);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static bool get(scene *s, unsigned key)
{
    char text[16], room[sizeof value_bytes];
    size_t size = sizeof room;
    int code = rw_get(s->db, BUCKET, key_of(key, text), room, &size);
    if (code != RW_ENOTFOUND) must(s, code);
    return code == 0;
}

static void read_one(scene *s, unsigned key)
{
    key_state before = s->keys[key];
    bool there = get(s, key);
    if (!before.busy && !s->keys[key].busy && s->keys[key].operations == before.operations && there != before.present)
        wrong(s, there ? "was found though it is absent" : "was not found though it is there", key);
}

/* What is written together becomes visible at once: whoever has seen one of the fellows changed sees the others changed, too. */
static void read_together(scene *s, unsigned first)
{
    key_state before = s->keys[first];
    bool one = get(s, first), other = get(s, first + FELLOWS - 1);
    bool one_change = s->keys[first].operations + s->keys[first].busy <= before.operations + 1;
    if (one_change && one != before.present && other == before.present) wrong(s, "had changed, and its fellow had not", first);
}

static void read_run(void *arg)
{
    actor *a = arg;
    scene *s = a->s;
    while (atomic_load(&s->writing) > 0) {
        unsigned key = (unsigned)rw_random_below(&a->random, KEYS);
        if (key % OWN >= FELLOWS) read_one(s, key);
        else read_together(s, key / OWN * OWN);
        kio_yield(s->k);
    }
}

/* ---- the filter -------------------------------------------------------------------------------------------------- */

/* Throws the filter away at any moment, and lets the worker make it anew at once. */
static void upset_run(void *arg)
{
    actor *a = arg;
    scene *s = a->s;
    trees *t = &s->e->trees;
    while (atomic_load(&s->writing) > 0) {
        uint64_t state = atomic_load(&t->key_filter.state);
        s->complete += key_filter_phase_of(state) == KEY_FILTER_COMPLETE;
        key_filter_turn(&t->key_filter, &state, KEY_FILTER_OFF);
        t->learning.retry_at_ns = 0; /* the worker's own, but nothing else runs in the simulator now */
        t->learning.retry_ns = 1;
        trees_learn_want(t);
        kio_sleep(s->k, &s->never, 0, (int64_t)rw_random_below(&a->random, 2000000));
    }
}

static void scene_run(void *arg)
{
    scene *s = arg;
    rw_options options;
    actor actors[WRITERS + READERS + 1];
    kio_thread *threads[WRITERS + READERS + 1];
    rw_options_init(&options);
    options.cache_bytes = 4 * RW_CACHE_BYTES_MIN; /* the smallest cache has no filter */
    options.workers = 1 + (unsigned)(s->seed % 2);
    must(s, db_open_with(s->k, "/db", &options, &s->db));
    must(s, engine_of(s->db, &s->e));
    atomic_store(&s->e->trees.hints.entries, NULL); /* they would answer for most keys that are there, before the filter is asked */
    atomic_init(&s->writing, WRITERS);
    for (unsigned i = 0; i < RW_ARRAY_SIZE(actors); i++) {
        actors[i] = (actor){.s = s, .number = i};
        rw_random_seed(&actors[i].random, s->seed * 100 + i);
        void (*run)(void *) = i < WRITERS ? write_run : i < WRITERS + READERS ? read_run : upset_run;
        must(s, kio_thread_start(s->k, "actor", -1, run, &actors[i], &threads[i]));
    }
    for (unsigned i = 0; i < RW_ARRAY_SIZE(actors); i++) kio_thread_join(s->k, threads[i]);
    for (unsigned key = 0; key < KEYS; key++) read_one(s, key);
    must(s, rw_close(s->db));
}

static scene seed_run(uint64_t seed)
{
    scene s = {.seed = seed};
    sim_disk *disk = sim_disk_create();
    sim_world *world = sim_world_open(disk, seed);
    s.k = sim_world_kio(world);
    sim_run(world, scene_run, &s);
    sim_world_close(world);
    sim_disk_destroy(disk);
    return s;
}

static void test_seeds(uint64_t first, uint64_t last)
{
    uint64_t complete = 0;
    unsigned wrongs = 0;
    for (uint64_t seed = first; seed <= last; seed++) {
        scene s = seed_run(seed);
        complete += s.complete;
        if (s.wrong > 0 && wrongs++ == 0) tap_diag("KEY_FILTER_SEED=%llu: %s", (unsigned long long)seed, s.what);
    }
    tap_ok(wrongs == 0, "%llu seeds: gets are right beside writers, while the filter is made anew", (unsigned long long)(last - first + 1));
    tap_ok(complete > last - first, "and it was complete often enough: %llu times", (unsigned long long)complete);
}

#if defined(RW_PLANTED_BUGS) && !defined(__SANITIZE_ADDRESS__)
static void test_planted(void)
{
    static const struct {
        int number;
        const char *name;
    } bugs[] = {
#define BUG_OF_KEYS(name, text) {RW_PLANTED_##name, #name},
#define BUG_OF_crashes(name, text)
#define BUG_OF_faults(name, text)
#define BUG_OF_isolation(name, text)
#define BUG_ROW(name, kind, text) BUG_OF_##kind(name, text)
#define BUG_OF_keys(name, text) BUG_OF_KEYS(name, text)
        RW_PLANTED_MAP(BUG_ROW)
    };
    for (size_t i = 0; i < RW_ARRAY_SIZE(bugs); i++) {
        uint64_t seed = 1;
        rw_planted = bugs[i].number;
        while (seed < PLANTED_SEEDS && seed_run(seed).wrong == 0) seed++;
        rw_planted = RW_PLANTED_none;
        tap_ok(seed < PLANTED_SEEDS, "the planted bug %s is found: after %llu seeds", bugs[i].name, (unsigned long long)seed);
    }
}
#endif

int main(void)
{
    const char *asked = getenv("KEY_FILTER_SEED");
    uint64_t seed = asked != NULL ? strtoull(asked, NULL, 10) : 0;
    test_seeds(asked != NULL ? seed : 1, asked != NULL ? seed : SEEDS);
#if defined(RW_PLANTED_BUGS) && !defined(__SANITIZE_ADDRESS__)
    if (asked == NULL) test_planted();
#endif
    return tap_done();
}
