/* What must hold of a database found on a crashed disk. */
#include <stdlib.h>

#include "engine/engine.h"
#include "tests/crash/crash_run.h"

#define DEPTH_MAX 2u
#define DUE_SLACK_NS 3000000000u   /* over async_delay_ms: latencies of the simulated disk, slow threads */
#define NEW_IDS 0x40000000u        /* ids of what the check writes; the run's own are smaller */

/* One disk's check, in a world of its own. */
typedef struct crash_check {
    crash_run *run;
    sim_world *world;
    kio *k;
    rw_db *db;
    rw_options options;
    rw_bucket second, own[CRASH_CLIENTS_MAX];
    bool has_second, has_own[CRASH_CLIENTS_MAX];
    rw_random *random;
    unsigned depth;
    const uint32_t *exact;          /* all slots of all clients, when nothing but this may be found */
    bool some_bucket_unreadable;
    bool damaged;                   /* the medium has lied: errors are fine, wrong data is not */
    bool any_history;               /* it has lied about the log: commits may be lost, too */
    bool recovering;                /* crashes may strike */
    bool wants_exact_crash;         /* one more crash now: what was read before must be there still */
    uint64_t until_crash;           /* steps */
    uint32_t *found;                /* ids, clients * slots; then versions of the shared keys, 0: absent; then the counters' sums */
    unsigned char *value, *scratch;
    unsigned char key[CRASH_KEY_MAX];
} crash_check;

static void check_disk(crash_run *run, sim_disk *disk, rw_random *random, unsigned depth, const uint32_t *exact);

static uint32_t all_slots(const crash_check *c)
{
    return c->run->plan.clients * c->run->plan.slots;
}

static uint32_t all_found(const crash_check *c)
{
    return all_slots(c) + shared_count(&c->run->plan);
}

static rw_bucket bucket_of(const crash_check *c, uint32_t client, crash_bucket bucket)
{
    switch (bucket) {
    case CRASH_SECOND: return c->second;
    case CRASH_OWN: return c->own[client];
    default: return RW_DEFAULT_BUCKET;
    }
}

static bool has_bucket(const crash_check *c, uint32_t client, crash_bucket bucket)
{
    return bucket == CRASH_DEFAULT || (bucket == CRASH_SECOND ? c->has_second : c->has_own[client]);
}

static void expect_ok(const crash_check *c, int rc, const char *what)
{
    if (rc != 0) crash_fail("%s after %s: %s: %s", what, sim_disk_origin(sim_world_disk(c->world)), rw_strerror(rc), rw_last_error(c->db));
}

/* What a call may return that meets damage. */
static bool is_damage(int rc)
{
    return rc == RW_ECORRUPT || rc == RW_EIO || rc == RW_EFOREIGN || rc == RW_EVERSION || rc == RW_ENOENT || rc == RW_EREADONLY;
}

static void on_finding(void *arg, const char *finding)
{
    (void)arg;
    printf("# verify: %s\n", finding);
}

static void check_verify(crash_check *c, const char *when)
{
    int rc = db_verify_with(c->k, CRASH_DIRECTORY, on_finding, NULL);
    if (rc != 0) crash_fail("verify %s, after %s: %s: %s", when, sim_disk_origin(sim_world_disk(c->world)), rw_strerror(rc), rw_last_error(NULL));
}

static bool open_bucket(crash_check *c, const char *name, rw_bucket *bucket)
{
    int rc = rw_bucket_open(c->db, name, 0, bucket);
    if (rc != 0 && rc != RW_ENOTFOUND && !(c->damaged && is_damage(rc))) expect_ok(c, rc, "bucket_open");
    if (rc != 0 && rc != RW_ENOTFOUND) c->some_bucket_unreadable = true;
    return rc == 0;
}

static void open_buckets(crash_check *c)
{
    c->has_second = open_bucket(c, CRASH_SECOND_BUCKET, &c->second);
    for (uint32_t client = 0; client < c->run->plan.clients; client++) {
        char name[16];
        crash_own_bucket_name(client, name);
        c->has_own[client] = open_bucket(c, name, &c->own[client]);
    }
}

static void check_open(crash_check *c)
{
    crash_plan_options(&c->run->plan, c->random, &c->options);
    c->options.create = !c->run->was_opened;
    expect_ok(c, db_open_with(c->k, CRASH_DIRECTORY, &c->options, &c->db), "open");
    open_buckets(c);
    if (!c->has_second && c->run->has_second) crash_fail("the second bucket is gone, after %s", sim_disk_origin(sim_world_disk(c->world)));
}

static void check_close(crash_check *c)
{
    rw_db *db = c->db;
    c->db = NULL;
    expect_ok(c, rw_close(db), "close");
}

/* ---- contents ---- */

/* The id that slot holds, by get; 0: absent. */
static uint32_t read_slot(crash_check *c, uint32_t client, uint32_t slot)
{
    crash_bucket bucket = crash_slot_bucket(slot);
    if (!has_bucket(c, client, bucket)) return 0;
    if (slot == CRASH_OWN_EXISTS) return CRASH_ID_PRESENT;
    const crash_plan *plan = &c->run->plan;
    size_t size = plan->value_max;
    rw_slice key = crash_key(plan, client, slot, c->key);
    int rc = rw_get(c->db, bucket_of(c, client, bucket), key, c->value, &size);
    if (rc == RW_ENOTFOUND) return 0;
    if (c->damaged && is_damage(rc)) return CRASH_UNREADABLE;
    expect_ok(c, rc, "get");
    uint32_t id = crash_value_id(plan, client, slot, rw_slice_of(c->value, size), c->scratch);
    if (id == 0) crash_fail("client %u, slot %u: a value that was never written, %zu bytes", client, slot, size);
    return id;
}

/* The version that a shared key holds, or a counter's sum; 0: absent. */
static uint32_t read_shared(crash_check *c, uint32_t key)
{
    const crash_plan *plan = &c->run->plan;
    bool counter = key >= shared_key_count(plan);
    crash_bucket bucket = counter ? CRASH_DEFAULT : shared_key_bucket(key);
    if (!has_bucket(c, 0, bucket)) return 0;
    size_t size = plan->value_max;
    int rc = rw_get(c->db, bucket_of(c, 0, bucket), shared_key(plan, key, c->key), c->value, &size);
    if (rc == RW_ENOTFOUND) return 0;
    if (c->damaged && is_damage(rc)) return CRASH_UNREADABLE;
    expect_ok(c, rc, "get of a shared key");
    if (counter && size == 8) return (uint32_t)rw_load_u64(c->value);
    uint32_t version = shared_value_version(plan, key, rw_slice_of(c->value, size), c->scratch);
    if (counter || version == HISTORY_GARBAGE) crash_fail("shared key %u: a value that was never written, %zu bytes", key, size);
    return version;
}

static void read_all(crash_check *c, uint32_t *ids)
{
    for (uint32_t i = 0; i < all_slots(c); i++) ids[i] = read_slot(c, i / c->run->plan.slots, i % c->run->plan.slots);
    for (uint32_t i = all_slots(c); i < all_found(c); i++) ids[i] = read_shared(c, i - all_slots(c));
}

/* Which slot a key is; false: none. */
static bool slot_of_key(crash_check *c, rw_slice key, crash_bucket bucket, uint32_t *client, uint32_t *slot)
{
    const crash_plan *plan = &c->run->plan;
    if (key.size < plan->prefix_length + 7) return false;
    char text[16] = {0};
    memcpy(text, (const char *)key.data + plan->prefix_length, RW_MIN(key.size - plan->prefix_length, sizeof text - 1));
    unsigned number;
    if (sscanf(text, "c%u/%6u", client, &number) == 2) {
        *slot = 2 * number + 1;
    } else if (sscanf(text, "s%6u", &number) == 1) {
        *client = number % plan->clients;
        *slot = number / plan->clients * 2;
    } else {
        return false;
    }
    return *client < plan->clients && *slot < plan->slots && *slot != CRASH_OWN_EXISTS && crash_slot_bucket(*slot) == bucket &&
           rw_slice_equal(key, crash_key(plan, *client, *slot, c->key));
}

/* Which id in found a record under a cursor is, and what id its value has. */
static uint32_t check_record(crash_check *c, rw_slice key, rw_slice value, uint32_t owner, crash_bucket bucket, uint32_t *id)
{
    uint32_t client, slot;
    if (shared_key_parse(&c->run->plan, key, bucket, c->key, &slot)) {
        bool counter = slot >= shared_key_count(&c->run->plan);
        *id = counter && value.size == 8 ? (uint32_t)rw_load_u64(value.data) : shared_value_version(&c->run->plan, slot, value, c->scratch);
        return all_slots(c) + slot;
    }
    bool known = slot_of_key(c, key, bucket, &client, &slot) && (bucket != CRASH_OWN || client == owner);
    if (!known) crash_fail("a key that was never written, %zu bytes", key.size);
    *id = crash_value_id(&c->run->plan, client, slot, value, c->scratch);
    return client * c->run->plan.slots + slot;
}

/* Walks a bucket from one end; every record must be what get found, in order; returns how many. */
static uint32_t check_walk(crash_check *c, uint32_t owner, crash_bucket bucket, bool forwards)
{
    rw_cursor *cursor;
    expect_ok(c, rw_cursor_open(c->db, NULL, bucket_of(c, owner, bucket), &cursor), "cursor_open");
    unsigned char last[CRASH_KEY_MAX];
    size_t last_size = 0;
    uint32_t count = 0;
    int rc;
    while ((rc = forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor)) == 0) {
        rw_slice key, value;
        uint32_t id;
        expect_ok(c, rw_cursor_key(cursor, &key), "cursor_key");
        expect_ok(c, rw_cursor_value(cursor, &value), "cursor_value");
        uint32_t index = check_record(c, key, value, owner, bucket, &id);
        int order = rw_slice_compare(rw_slice_of(last, last_size), key);
        if (count > 0 && (forwards ? order >= 0 : order <= 0)) crash_fail("keys out of order at index %u", index);
        uint32_t got = c->found[index];
        if (id == 0 || id != got) crash_fail("index %u: get finds id %u, a cursor %u", index, got, id);
        memcpy(last, key.data, key.size);
        last_size = key.size;
        count++;
    }
    if (rc != RW_ENOTFOUND) expect_ok(c, rc, "cursor step");
    rw_cursor_close(cursor);
    return count;
}

static void check_bucket(crash_check *c, uint32_t owner, crash_bucket bucket)
{
    if (!has_bucket(c, owner, bucket)) return;
    uint32_t expected = 0;
    for (uint32_t i = 0; i < all_slots(c); i++) {
        uint32_t client = i / c->run->plan.slots, slot = i % c->run->plan.slots;
        if (c->found[i] == 0 || slot == CRASH_OWN_EXISTS || crash_slot_bucket(slot) != bucket) continue;
        if (bucket != CRASH_OWN || client == owner) expected++;
    }
    for (uint32_t key = 0; key < shared_count(&c->run->plan); key++) {
        crash_bucket own = key >= shared_key_count(&c->run->plan) ? CRASH_DEFAULT : shared_key_bucket(key);
        if (own == bucket && c->found[all_slots(c) + key] != 0) expected++;
    }
    for (unsigned forwards = 0; forwards < 2; forwards++) {
        uint32_t count = check_walk(c, owner, bucket, forwards == 1);
        if (count != expected) crash_fail("get finds %u keys, a cursor %u", expected, count);
    }
}

static void check_walks(crash_check *c)
{
    check_bucket(c, 0, CRASH_DEFAULT);
    check_bucket(c, 0, CRASH_SECOND);
    for (uint32_t client = 0; client < c->run->plan.clients; client++) check_bucket(c, client, CRASH_OWN);
}

/* Every client's state is one of its history, and the clients' states fit together. */
static void check_histories(crash_check *c)
{
    crash_run *run = c->run;
    uint32_t fewest[CRASH_CLIENTS_MAX] = {0}, most[CRASH_CLIENTS_MAX] = {0};
    for (uint32_t client = 0; client < run->plan.clients; client++) {
        const uint32_t *found = c->found + client * run->plan.slots;
        if (crash_history_match(&run->histories[client], found, &fewest[client], &most[client])) continue;
        char text[CRASH_KEY_MAX + 512];
        crash_history_explain(&run->histories[client], found, text, sizeof text);
        crash_fail("after %s: %s", sim_disk_origin(sim_world_disk(c->world)), text);
    }
    for (uint32_t client = 0; client < run->plan.clients; client++) {
        if (fewest[client] == 0) continue;
        const crash_commit *last = &run->histories[client].commits[fewest[client] - 1];
        for (uint32_t other = 0; other < run->plan.clients; other++) {
            if (most[other] >= last->acked_before[other]) continue;
            crash_fail("after %s: %u commits of client %u are there, the last of which began after %u of client %u, of which at most %u are there",
                       sim_disk_origin(sim_world_disk(c->world)), fewest[client], client, last->acked_before[other], other, most[other]);
        }
    }
    char words[1600];
    if (shared_check_found(&run->shared, c->found + all_slots(c), fewest, most, words, sizeof words)) return;
    crash_fail("after %s: shared keys: %s", sim_disk_origin(sim_world_disk(c->world)), words);
}

static void check_same(crash_check *c, const uint32_t *expected, const char *when)
{
    for (uint32_t i = 0; i < all_found(c); i++) {
        if (c->found[i] == expected[i]) continue;
        crash_fail("%s, after %s: client %u, slot %u: id %u expected, %u found", when, sim_disk_origin(sim_world_disk(c->world)),
                   i / c->run->plan.slots, i % c->run->plan.slots, expected[i], c->found[i]);
    }
}

/* ---- the check's course, as the world's main thread ---- */

/* Closes, opens again, and finds the same. */
static void check_again(crash_check *c, const char *when)
{
    uint32_t *before = malloc(all_found(c) * sizeof *before);
    RW_ASSERT(before != NULL);
    memcpy(before, c->found, all_found(c) * sizeof *before);
    check_close(c);
    if (rw_random_below(c->random, 2) == 0) check_verify(c, when);
    check_open(c);
    read_all(c, c->found);
    check_same(c, before, when);
    free(before);
}

static void check_writes(crash_check *c)
{
    const crash_plan *plan = &c->run->plan;
    uint64_t writes = 1 + rw_random_below(c->random, 30);
    for (uint64_t i = 0; i < writes; i++) {
        uint32_t at = (uint32_t)rw_random_below(c->random, all_slots(c)), client = at / plan->slots, slot = at % plan->slots;
        crash_bucket bucket = crash_slot_bucket(slot);
        if (!has_bucket(c, client, bucket) || slot == CRASH_OWN_EXISTS) continue;
        uint32_t id = crash_slot_is_empty_value(slot) ? CRASH_ID_PRESENT : NEW_IDS + (uint32_t)i;
        unsigned flags = rw_random_below(c->random, 4) == 0 ? RW_SYNC : RW_ASYNC;
        rw_slice key = crash_key(plan, client, slot, c->key);
        expect_ok(c, rw_put(c->db, bucket_of(c, client, bucket), key, crash_value(plan, client, slot, id, c->value), flags), "put");
        c->found[at] = id;
    }
    if (rw_random_below(c->random, 4) == 0) expect_ok(c, rw_checkpoint(c->db), "checkpoint");
}

static void check_main(void *arg)
{
    crash_check *c = arg;
    if (c->run->was_opened && rw_random_below(c->random, 4) == 0) check_verify(c, "before recovery");
    c->recovering = c->depth < DEPTH_MAX && rw_random_below(c->random, 4) == 0;
    check_open(c);
    c->recovering = false;
    read_all(c, c->found);
    if (c->exact != NULL) check_same(c, c->exact, "a crash after recovery");
    check_histories(c);
    if (rw_random_below(c->random, 2) == 0) check_walks(c);
    c->wants_exact_crash = c->exact == NULL && c->depth < DEPTH_MAX && rw_random_below(c->random, 4) == 0;
    while (c->wants_exact_crash) kio_yield(c->k);
    check_again(c, "a second recovery");
    if (rw_random_below(c->random, 2) == 0) {
        check_writes(c);
        check_again(c, "writing on");
        check_walks(c);
    }
    check_close(c);
    check_verify(c, "at the end");
}

/* The same over a medium that has lied. */
static void damaged_main(void *arg)
{
    crash_check *c = arg;
    crash_plan_options(&c->run->plan, c->random, &c->options);
    c->options.create = 0;
    int verified = db_verify_with(c->k, CRASH_DIRECTORY, NULL, NULL);
    if (verified != 0 && !is_damage(verified)) expect_ok(c, verified, "verify");
    int rc = db_open_with(c->k, CRASH_DIRECTORY, &c->options, &c->db);
    if (rc != 0 && verified != 0 && is_damage(rc)) return;
    expect_ok(c, rc, "open of what verify finds sound");
    open_buckets(c);
    if (!c->some_bucket_unreadable) {
        read_all(c, c->found);
        for (uint32_t i = 0; i < all_found(c) && verified == 0; i++) {
            if (c->found[i] == CRASH_UNREADABLE) crash_fail("verify finds the database sound, get does not: %s", rw_last_error(c->db));
        }
        if (!c->any_history) check_histories(c);
    }
    rw_db *db = c->db;
    c->db = NULL;
    rc = rw_close(db);
    if (rc != 0 && !is_damage(rc)) expect_ok(c, rc, "close");
}

/* Step hook: more crashes during the recovery, or right after it. */
static void check_hook(void *arg)
{
    crash_check *c = arg;
    bool exact = c->wants_exact_crash;
    if (!exact && (!c->recovering || c->until_crash-- > 0)) return;
    c->wants_exact_crash = false;
    c->until_crash = 5 + rw_random_below(c->random, 200);
    sim_disk *disk = sim_world_disk(c->world), *crashed;
    if (exact) crashed = sim_disk_crash_styled(disk, SIM_CRASH_DROP_ALL, c->random);
    else crashed = sim_disk_crash(disk, c->random);
    check_disk(c->run, crashed, c->random, c->depth + 1, exact ? c->found : c->exact);
    sim_disk_destroy(crashed);
}

static void check_run(crash_check *c, sim_disk *disk, void (*run)(void *))
{
    c->world = sim_world_open(disk, rw_random_next(c->random));
    c->k = sim_world_kio(c->world);
    c->until_crash = 1 + rw_random_below(c->random, 60);
    c->found = calloc(all_found(c), sizeof *c->found);
    c->value = malloc(c->run->plan.value_max);
    c->scratch = malloc(c->run->plan.value_max);
    RW_ASSERT(c->found != NULL && c->value != NULL && c->scratch != NULL);
    sim_step_limit(c->world, CRASH_STEP_LIMIT);
    sim_step_hook(c->world, check_hook, c);
    sim_run(c->world, run, c);
    sim_world_close(c->world);
    free(c->found);
    free(c->value);
    free(c->scratch);
    c->run->checked++;
}

static void check_disk(crash_run *run, sim_disk *disk, rw_random *random, unsigned depth, const uint32_t *exact)
{
    crash_check c = {.run = run, .random = random, .depth = depth, .exact = exact};
    check_run(&c, disk, check_main);
}

void crash_check_disk(crash_run *run, sim_disk *disk, rw_random *random)
{
    crash_run_due(run);
    check_disk(run, disk, random, 0, NULL);
}

void crash_check_damaged(crash_run *run, sim_disk *disk, rw_random *random, bool any_history)
{
    crash_check c = {.run = run, .random = random, .damaged = true, .any_history = any_history};
    check_run(&c, disk, damaged_main);
}

void crash_run_due(crash_run *run)
{
    if (run->faults) return;
    uint64_t now = sim_world_now_ns(run->world), slack = (uint64_t)run->plan.async_delay_ms * 1000000 + DUE_SLACK_NS;
    if (now < slack) return;
    for (uint32_t i = 0; i < run->plan.clients; i++) crash_history_due(&run->histories[i], now - slack);
    run->shared.due_ns = now - slack;
}
