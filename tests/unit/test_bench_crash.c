/*
 * The judge of the crash test: it must accept every state that a crash may leave and no other. Both sides of the test are no part of the
 * library, so they are compiled in here. Argument: seed.
 */
#include "bench/crash_check.c"
#include "bench/crash_model.c"

#include <time.h>

#include "tests/support/tap.h"

enum { ROUND = 3, DURABLE = 400, STARTED = 460 };

static char complaint[400];

/* The database after the lane's first operations. */
static void state_after(crash_state *state, uint64_t seed, unsigned lane, uint64_t operations)
{
    memset(state->ids[lane], 0, sizeof state->ids[lane]);
    for (uint64_t s = 1; s <= operations; s++) {
        crash_operation operation;
        crash_operation_make(seed, ROUND, lane, s, &operation);
        crash_state_apply(state, lane, &operation);
    }
}

static bool accepted(const crash_bounds *bounds, const crash_state *found)
{
    static crash_state before;
    memset(&before, 0, sizeof before);
    return crash_compare(bounds, &before, found, complaint, sizeof complaint) == 0;
}

/* What a crash may leave of lane 1, each state as a whole: some operations cancel out what others did. */
static uint64_t prefixes[STARTED - DURABLE + 1][CRASH_BUCKETS][CRASH_KEYS];

static void prefixes_make(uint64_t seed)
{
    static crash_state state;
    for (uint64_t operations = DURABLE; operations <= STARTED; operations++) {
        state_after(&state, seed, 1, operations);
        memcpy(prefixes[operations - DURABLE], state.ids[1], sizeof prefixes[0]);
    }
}

static bool is_prefix(const crash_state *state)
{
    bool same = false;
    for (unsigned i = 0; i <= STARTED - DURABLE && !same; i++) same = memcmp(prefixes[i], state->ids[1], sizeof prefixes[0]) == 0;
    return same;
}

/* The first operation after from of which cutting the second half off leaves a state that is no prefix. */
static bool tear(const crash_bounds *bounds, crash_state *found, unsigned lane, uint64_t from)
{
    for (uint64_t s = from; s <= STARTED; s++) {
        crash_operation operation;
        crash_operation_make(bounds->seed, ROUND, lane, s, &operation);
        if (operation.kind != CRASH_BATCH || operation.range_count > 0) continue;
        state_after(found, bounds->seed, lane, s - 1);
        const crash_effect *first = &operation.effects[0], *last = &operation.effects[operation.count - 1];
        if (first->id == 0 || last->id == 0 || (first->bucket == last->bucket && first->key == last->key)) continue;
        found->ids[lane][first->bucket][first->key] = first->id;
        if (!is_prefix(found)) return true;
    }
    return false;
}

static void test_prefixes(crash_bounds *bounds, crash_state *found)
{
    bool right = true;
    for (uint64_t operations = DURABLE; operations <= STARTED; operations++) {
        state_after(found, bounds->seed, 1, operations);
        right &= TAP_CHECK(accepted(bounds, found));
    }
    tap_ok(right, "every prefix between the bounds is accepted");
    unsigned refused = 0, wrong = 0;
    for (uint64_t operations = DURABLE - 40; operations < DURABLE; operations++) {
        state_after(found, bounds->seed, 1, operations);
        bool good = is_prefix(found);
        wrong += accepted(bounds, found) != good;
        refused += !good;
    }
    tap_ok(refused >= 20 && wrong == 0, "a shorter one is refused, unless its operations cancel out (%u of 40): %s", refused, complaint);
    state_after(found, bounds->seed, 1, STARTED + 40);
    tap_ok(!accepted(bounds, found), "a longer one is refused: %s", complaint);
}

static void test_damage(crash_bounds *bounds, crash_state *found)
{
    tap_ok(tear(bounds, found, 1, DURABLE) && !accepted(bounds, found), "half a batch is refused: %s", complaint);
    state_after(found, bounds->seed, 1, DURABLE);
    found->ids[1][0][100] = found->ids[1][0][100] == 0 ? (uint64_t)1 << 32 | 7 : 0;
    tap_ok(!accepted(bounds, found), "a key lost or risen again is refused: %s", complaint);
    state_after(found, bounds->seed, 1, DURABLE);
    crash_operation operation;
    uint64_t sequence = 1;
    do crash_operation_make(bounds->seed, ROUND, 1, sequence++, &operation);
    while (operation.kind != CRASH_ABORT);
    found->ids[1][operation.undone.bucket][operation.undone.key] = operation.undone.id;
    tap_ok(!accepted(bounds, found), "a write that was rolled back is refused: %s", complaint);
    state_after(found, bounds->seed, 1, DURABLE);
    found->ids[4][2][9] = (uint64_t)(ROUND + 1) << 32 | 1;
    tap_ok(!accepted(bounds, found), "a record of a lane that wrote nothing is refused: %s", complaint);
    found->ids[4][2][9] = 0;
    tap_ok(accepted(bounds, found), "without it the state is good again");
}

static void test_keys_and_values(uint64_t seed)
{
    rw_random random;
    rw_random_seed(&random, seed);
    unsigned char *value = malloc(CRASH_VALUE_SIZE_MAX);
    if (!tap_ok(value != NULL, "memory for a value")) return;
    bool keys = true, values = true, damage = true;
    for (unsigned bucket = 0; bucket < CRASH_BUCKETS; bucket++) {
        for (unsigned number = 0; number < CRASH_KEYS * CRASH_LANES; number++) {
            unsigned lane = number % CRASH_LANES, key = number / CRASH_LANES, lane_read, key_read;
            unsigned char bytes[CRASH_KEY_SIZE_MAX];
            size_t size = crash_key_make(lane, bucket, key, bytes);
            keys &= TAP_CHECK(crash_key_parse(bucket, rw_slice_of(bytes, size), &lane_read, &key_read) && lane_read == lane && key_read == key);
            bytes[rw_random_below(&random, size)] ^= 4;
            bool parsed = crash_key_parse(bucket, rw_slice_of(bytes, size), &lane_read, &key_read);
            keys &= TAP_CHECK(!parsed || lane_read != lane || key_read != key);
            if (number % 64 != 0) continue;
            crash_effect effect = {.bucket = bucket, .key = key, .id = rw_random_next(&random) | 1};
            size = crash_value_make(lane, effect, value);
            values &= TAP_CHECK(size <= CRASH_VALUE_SIZE_MAX && crash_value_id(lane, bucket, key, rw_slice_of(value, size)) == effect.id);
            values &= TAP_CHECK(crash_value_id(lane, bucket, key + 1, rw_slice_of(value, size)) == 0);
            value[rw_random_below(&random, size)] ^= (unsigned char)(1 + rw_random_below(&random, 255));
            damage &= TAP_CHECK(crash_value_id(lane, bucket, key, rw_slice_of(value, size)) == 0);
        }
    }
    free(value);
    tap_ok(keys, "keys are read as they were made, and no other bytes pass for them");
    tap_ok(values, "so are values");
    tap_ok(damage, "a changed byte in a value is noticed");
}

int main(int argc, char **argv)
{
    static crash_state found;
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    tap_diag("replay: test_bench_crash %llu", (unsigned long long)seed);
    crash_bounds bounds = {.round = ROUND};
    bounds.durable[1] = DURABLE;
    bounds.started[1] = STARTED;
    for (bounds.seed = seed;; bounds.seed++) { /* with few, one in hundreds, no half of a batch can be told from a prefix */
        prefixes_make(bounds.seed);
        if (tear(&bounds, &found, 1, DURABLE)) break;
    }
    test_prefixes(&bounds, &found);
    test_damage(&bounds, &found);
    test_keys_and_values(seed);
    return tap_done();
}
