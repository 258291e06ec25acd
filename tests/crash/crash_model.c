/* Keys, values and the history of commits. */
#include "tests/crash/crash_model.h"

#include <stdlib.h>

#define STEM_DIGITS 6
#define VALUE_HEADER 16u     /* id, client, slot, hash of the rest's seed */

static uint64_t mix(uint64_t z)
{
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t number_of(const crash_plan *plan, uint32_t client, uint32_t slot, uint32_t id)
{
    return mix(mix(plan->seed ^ (uint64_t)client << 56) ^ (uint64_t)slot << 32 ^ id);
}

static uint32_t pick(rw_random *random, const uint32_t *values, size_t count)
{
    return values[rw_random_below(random, count)];
}
#define PICK(random, ...) pick(random, (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

void crash_plan_draw(crash_plan *plan, uint64_t seed)
{
    rw_random random;
    rw_random_seed(&random, seed);
    *plan = (crash_plan){.seed = seed};
    plan->clients = PICK(&random, 1, 2, 3, 4);
    plan->slots = PICK(&random, 32, 120, 120, 400, 800);
    plan->operations = PICK(&random, 20, 80, 250, 600);
    plan->rounds = PICK(&random, 1, 1, 2, 3);
    plan->page_size = PICK(&random, 4096, 4096, 4096, 8192, 16384);
    plan->value_scale = PICK(&random, 0, 0, 1, 2);
    plan->large_256 = PICK(&random, 0, 2, 8);
    plan->value_max = PICK(&random, 20000, 100000, 300000);
    plan->prefix_length = PICK(&random, 0, 0, 9, 200);
    plan->async_delay_ms = PICK(&random, 1, 20, 50);
    plan->capture_mean = PICK(&random, 3, 15, 60, 250);
    if (rw_random_below(&random, 6) == 0) {   /* long enough for the log to be recycled, and blocks */
        plan->operations = 1500;
        plan->value_scale = 2;
        plan->capture_mean = 1000;
    }
    plan->loads_first = rw_random_below(&random, 2) == 0;
    plan->shared_keys = PICK(&random, 0, 8, 8, 16, 32);
    plan->shared_percent = PICK(&random, 25, 60, 90);
    plan->snapshot_bytes = PICK(&random, 0, 0, 32 << 10, 128 << 10);
    plan->lock_timeout_ms = PICK(&random, 3, 50, 10000);
    plan->queue_percent = PICK(&random, 0, 0, 2, 10);
    plan->crowded = rw_random_below(&random, 3) == 0;
    if (plan->crowded) {
        plan->clients = CRASH_CLIENTS_MAX;
        plan->operations = 600;
        plan->shared_keys = 8;
        plan->shared_percent = PICK(&random, 70, 90);
        plan->capture_mean = 250;
    } else if (rw_random_below(&random, 5) == 0) {
        plan->plain = true;
        plan->shared_keys = 0;
        plan->slots = PICK(&random, 400, 800, 800);
        plan->loads_first = true;
        plan->cold = rw_random_below(&random, 2) == 0;
    }
    if (!plan->cold) return;
    plan->page_size = 4096;
    plan->clients = CRASH_CLIENTS_MAX;
    plan->slots = 1600;
    plan->operations = PICK(&random, 600, 1500);
    plan->large_256 = PICK(&random, 0, 1);
    plan->capture_mean = 400;
}

void crash_plan_options(const crash_plan *plan, rw_random *random, rw_options *options)
{
    /* Drawn at each open, so that a log is written in both ways, one after the other; auto measures in the machine's own time. */
    static const char *const log_syncs[] = {"auto", "fdatasync", "dsync"};
    rw_options_init(options);
    options->page_size = plan->page_size;
    options->cache_bytes = plan->cold ? 1u << 20 : PICK(random, 1 << 20, 1 << 20, 3 << 19, 4 << 20) * RW_MAX(plan->page_size / 8192, 1u);
    options->workers = PICK(random, 1, 2, 3);
    options->async_delay_ms = plan->async_delay_ms;
    options->snapshot_bytes_max = plan->snapshot_bytes;
    options->lock_timeout_ms = plan->lock_timeout_ms;
    options->log_bytes = PICK(random, 256 << 10, 256 << 10, 1 << 20, 4 << 20);
    options->log_sync = log_syncs[rw_random_below(random, RW_ARRAY_SIZE(log_syncs))];
    options->partition_bytes = PICK(random, 0, 16 << 10, 64 << 10, 256 << 10);
}

/* ---- keys and values ---- */

crash_bucket crash_slot_bucket(uint32_t slot)
{
    if (slot % 4 == 2) return CRASH_SECOND;
    return slot == CRASH_OWN_EXISTS || slot % 8 == 5 ? CRASH_OWN : CRASH_DEFAULT;
}

void crash_own_bucket_name(uint32_t client, char name[16])
{
    snprintf(name, 16, "own%u", client);
}

bool crash_slot_is_empty_value(uint32_t slot)
{
    return slot % 16 == 7;
}

rw_slice crash_key_stem(const crash_plan *plan, uint32_t client, uint32_t slot, void *buffer)
{
    char *to = buffer;
    memset(to, 'p', plan->prefix_length);
    char *at = to + plan->prefix_length;
    int digits;
    if (slot % 2 == 1) digits = snprintf(at, 32, "c%u/%0*u", client, STEM_DIGITS, slot / 2);
    else digits = snprintf(at, 32, "s%0*u", STEM_DIGITS, slot / 2 * plan->clients + client);
    return rw_slice_of(buffer, plan->prefix_length + (size_t)digits);
}

rw_slice crash_key(const crash_plan *plan, uint32_t client, uint32_t slot, void *buffer)
{
    rw_slice key = crash_key_stem(plan, client, slot, buffer);
    uint64_t number = number_of(plan, client, slot, 0);
    size_t tail = number % 4 == 0 ? (number >> 8) % 40 : 0;
    size_t most = RW_MIN(rw_key_size_max(plan->page_size), (size_t)CRASH_KEY_MAX);
    if (number % 64 == 1) tail = most - key.size;
    RW_ASSERT(key.size + tail <= most);
    memset((char *)buffer + key.size, 'a' + (int)(number >> 60), tail);
    key.size += tail;
    return key;
}

static size_t value_size(const crash_plan *plan, uint32_t client, uint32_t slot, uint32_t id)
{
    uint64_t number = number_of(plan, client, slot, id);
    size_t most;
    if ((number >> 40 & 255) < plan->large_256) most = plan->value_max;
    else if (plan->cold) return VALUE_HEADER + 280 + (number >> 8) % 120;
    else if (number % 16 < 10) most = 100u << (2 * plan->value_scale);
    else if (number % 16 < 15) most = 700u << plan->value_scale;
    else most = 3 * plan->page_size;
    return VALUE_HEADER + (number >> 8) % (RW_MIN(most, plan->value_max) - VALUE_HEADER + 1);
}

rw_slice crash_value(const crash_plan *plan, uint32_t client, uint32_t slot, uint32_t id, void *buffer)
{
    RW_ASSERT(id != 0);
    if (crash_slot_is_empty_value(slot)) return rw_slice_of("", 0);
    unsigned char *to = buffer;
    size_t size = value_size(plan, client, slot, id);
    uint64_t number = number_of(plan, client, slot, id);
    rw_store_u32(to, id);
    rw_store_u32(to + 4, client << 24 | slot);
    rw_store_u64(to + 8, number);
    for (size_t at = VALUE_HEADER; at < size; at += sizeof number) {
        number = number * 0xD1342543DE82EF95u + 1;
        uint64_t bits = number ^ number >> 32;
        memcpy(to + at, &bits, RW_MIN(sizeof bits, size - at));
    }
    return rw_slice_of(buffer, size);
}

uint32_t crash_value_id(const crash_plan *plan, uint32_t client, uint32_t slot, rw_slice value, void *scratch)
{
    if (crash_slot_is_empty_value(slot)) return value.size == 0 ? CRASH_ID_PRESENT : 0;
    if (value.size < VALUE_HEADER) return 0;
    uint32_t id = rw_load_u32(value.data);
    if (id == 0 || value.size != value_size(plan, client, slot, id)) return 0;
    return rw_slice_equal(value, crash_value(plan, client, slot, id, scratch)) ? id : 0;
}

/* ---- histories ---- */

void crash_history_open(crash_history *history, const crash_plan *plan, uint32_t client)
{
    *history = (crash_history){.plan = plan, .client = client, .next_id = CRASH_ID_PRESENT + 1};
    history->current = calloc(plan->slots, sizeof *history->current);
    RW_ASSERT(history->current != NULL);
}

void crash_history_close(crash_history *history)
{
    free(history->current);
    free(history->commits);
    free(history->writes);
}

uint32_t crash_history_new_id(crash_history *history, uint32_t slot)
{
    return crash_slot_is_empty_value(slot) ? CRASH_ID_PRESENT : history->next_id++;
}

static crash_commit *commit_new(crash_history *all, uint32_t client)
{
    crash_history *history = &all[client];
    RW_ASSERT(!history->is_stopped);
    if (history->commit_count == history->commit_capacity) {
        history->commit_capacity = 2 * history->commit_capacity + 64;
        history->commits = realloc(history->commits, history->commit_capacity * sizeof *history->commits);
        RW_ASSERT(history->commits != NULL);
    }
    crash_commit *commit = &history->commits[history->commit_count++];
    *commit = (crash_commit){.first_write = history->write_count};
    for (uint32_t i = 0; i < history->plan->clients; i++) commit->acked_before[i] = all[i].acked;
    return commit;
}

void crash_commit_begin(crash_history *all, uint32_t client)
{
    RW_ASSERT(all[client].acked == all[client].commit_count);
    (void)commit_new(all, client);
}

void crash_commit_add(crash_history *history, uint32_t slot, uint32_t id)
{
    RW_ASSERT(history->commit_count > history->acked);
    if (history->write_count == history->write_capacity) {
        history->write_capacity = 2 * history->write_capacity + 256;
        history->writes = realloc(history->writes, history->write_capacity * sizeof *history->writes);
        RW_ASSERT(history->writes != NULL);
    }
    history->writes[history->write_count++] = (crash_write){.slot = slot, .id = id};
    history->commits[history->commit_count - 1].write_count++;
}

static void commit_apply(const crash_history *history, const crash_commit *commit, uint32_t *state)
{
    for (uint32_t i = 0; i < commit->write_count; i++) {
        const crash_write *write = &history->writes[commit->first_write + i];
        state[write->slot] = write->id;
    }
}

/* Whether it changed anything. */
static bool commit_acked(crash_history *history, crash_commit *commit, uint64_t now_ns)
{
    commit->acked_ns = now_ns;
    bool changes = false;
    for (uint32_t i = 0; i < commit->write_count; i++) {
        const crash_write *write = &history->writes[commit->first_write + i];
        changes = changes || history->current[write->slot] != write->id;
    }
    commit_apply(history, commit, history->current);
    return changes;
}

void crash_commit_acked(crash_history *history, uint64_t now_ns, bool durable)
{
    crash_commit *commit = &history->commits[history->acked++];
    RW_ASSERT(history->acked == history->commit_count);
    bool changes = commit_acked(history, commit, now_ns);
    if (durable && changes) history->durable = history->acked;
}

void crash_commit_failed(crash_history *history)
{
    crash_commit *commit = &history->commits[--history->commit_count];
    RW_ASSERT(history->acked == history->commit_count);
    history->write_count = commit->first_write;
}

void crash_commit_unknown(crash_history *history)
{
    RW_ASSERT(history->acked + 1 == history->commit_count);
    commit_apply(history, &history->commits[history->acked], history->current);
    history->is_stopped = true;
}

/* ---- groups ---- */

void crash_group_begin(crash_history *history)
{
    RW_ASSERT(history->acked == history->commit_count || history->is_stopped);
    history->group_first = history->commit_count;
    history->group_acked = 0;
}

uint32_t crash_group_add(crash_history *all, uint32_t client)
{
    crash_history *history = &all[client];
    RW_ASSERT(history->commit_count - history->group_first < CRASH_GROUP_MAX);
    crash_commit *commit = commit_new(all, client);
    commit->after = history->group_acked;
    for (uint32_t i = history->group_first; i < history->commit_count; i++) history->commits[i].group_end = history->commit_count;
    return history->commit_count - 1;
}

/* It is over, with success or not. */
static crash_commit *group_over(crash_history *history, uint32_t number)
{
    RW_ASSERT(number >= history->group_first && number < history->commit_count);
    history->group_acked |= 1u << (number - history->group_first);
    return &history->commits[number];
}

/* It counts as there with its group, and may never have been logged. */
static void commit_proves_nothing(crash_commit *commit)
{
    memset(commit->acked_before, 0, sizeof commit->acked_before);
    commit->shared_clock = 0;
}

void crash_group_acked(crash_history *history, uint32_t number, uint64_t now_ns, bool durable)
{
    crash_commit *commit = group_over(history, number);
    bool changes = commit_acked(history, commit, now_ns);
    commit->must_survive = changes && durable;
    if (!changes) commit_proves_nothing(commit);
    if (commit->must_survive) history->durable = RW_MAX(history->durable, history->group_first);
}

void crash_group_failed(crash_history *history, uint32_t number)
{
    crash_commit *commit = group_over(history, number);
    commit->write_count = 0;
    commit_proves_nothing(commit);
}

void crash_group_unknown(crash_history *history, uint32_t number)
{
    commit_apply(history, group_over(history, number), history->current);
    history->is_stopped = true;
}

void crash_group_end(crash_history *history)
{
    if (!history->is_stopped) history->acked = history->commit_count;
}

void crash_history_due(crash_history *history, uint64_t before_ns)
{
    while (history->durable < history->acked && history->commits[history->durable].acked_ns < before_ns) history->durable++;
}

static bool state_fits(const uint32_t *state, const uint32_t *found, uint32_t slots)
{
    for (uint32_t slot = 0; slot < slots; slot++) {
        if (state[slot] != found[slot] && found[slot] != CRASH_UNREADABLE) return false;
    }
    return true;
}

static bool commit_fits(const crash_history *history, const crash_commit *commit, const uint32_t *state, const uint32_t *found)
{
    for (uint32_t i = 0; i < commit->write_count; i++) {
        uint32_t slot = history->writes[commit->first_write + i].slot;
        if (found[slot] != state[slot] && found[slot] != CRASH_UNREADABLE) return false;
    }
    return true;
}

/* Whether what is there of the group [first, end) may be there alone: state is that before it, after that with all of it. *fewest: behind the last one that is there. */
static bool group_fits(const crash_history *history, uint32_t first, uint32_t end, const uint32_t *state, const uint32_t *after, const uint32_t *found,
                       uint32_t *fewest)
{
    uint32_t there = 0;     /* certainly, a bit each */
    *fewest = first;
    if (history->durable > end) return false;
    for (uint32_t slot = 0; slot < history->plan->slots; slot++)
        if (found[slot] != state[slot] && found[slot] != after[slot] && found[slot] != CRASH_UNREADABLE) return false;
    for (uint32_t i = end; i-- > first;) {
        const crash_commit *commit = &history->commits[i];
        uint32_t bit = 1u << (i - first);
        bool is_there = commit_fits(history, commit, after, found);
        bool is_missing = commit_fits(history, commit, state, found);    /* with neither it is torn, with both one cannot tell */
        bool must_be_there = !is_missing || i < history->durable || commit->must_survive || (there & bit) != 0;
        if (must_be_there && !is_there) return false;
        if (must_be_there) there |= bit | commit->after;
        if (!is_missing && *fewest == first) *fewest = i + 1;
    }
    return true;
}

bool crash_history_match(const crash_history *history, const uint32_t *found, uint32_t *fewest, uint32_t *most)
{
    uint32_t slots = history->plan->slots;
    uint32_t *state = calloc(slots, sizeof *state), *after = calloc(slots, sizeof *after);
    RW_ASSERT(state != NULL && after != NULL);
    bool matched = false;
    for (uint32_t count = 0, next; count <= history->commit_count; count = next) {
        uint32_t group_end = count < history->commit_count ? history->commits[count].group_end : 0;
        next = group_end != 0 ? group_end : count + 1;
        for (uint32_t i = count; i < next && i < history->commit_count; i++) commit_apply(history, &history->commits[i], after);
        uint32_t least = count;
        bool fits = group_end != 0 ? group_fits(history, count, group_end, state, after, found, &least)
                                   : count >= history->durable && state_fits(state, found, slots);
        if (fits) {
            if (!matched) *fewest = least;
            *most = count;
            matched = true;
        }
        memcpy(state, after, slots * sizeof *state);
    }
    free(state);
    free(after);
    return matched;
}

/* Slots in which two states differ; *first one of them. */
static uint32_t state_distance(const uint32_t *a, const uint32_t *b, uint32_t slots, uint32_t *first)
{
    uint32_t distance = 0;
    for (uint32_t slot = slots; slot-- > 0;) {
        if (a[slot] == b[slot] || b[slot] == CRASH_UNREADABLE) continue;
        distance++;
        *first = slot;
    }
    return distance;
}

void crash_history_explain(const crash_history *history, const uint32_t *found, char *text, size_t size)
{
    uint32_t slots = history->plan->slots, best = UINT32_MAX, nearest = 0, slot = 0, expected = 0;
    uint32_t *state = calloc(slots, sizeof *state);
    RW_ASSERT(state != NULL);
    for (uint32_t count = 0; count <= history->commit_count; count++) {
        uint32_t first = 0, distance = state_distance(state, found, slots, &first);
        if (distance < best) best = distance, nearest = count, slot = first, expected = state[first];
        if (count < history->commit_count) commit_apply(history, &history->commits[count], state);
    }
    char buffer[CRASH_KEY_MAX];
    rw_slice key = crash_key_stem(history->plan, history->client, slot, buffer);
    snprintf(text, size,
             "client %u: %u commits begun, %u acknowledged, %u must be durable; nearest to the state after %u commits, %u slots differ, "
             "first slot %u (key %.*s...): expected id %u, found %u",
             history->client, history->commit_count, history->acked, history->durable, nearest, best, slot, (int)key.size,
             (const char *)key.data, expected, found[slot]);
    free(state);
}
