/* Shared keys: names, values, the record of what was done, and its checks. */
#include "tests/crash/crash_shared.h"

#include <stdlib.h>

#define VALUES_CLIENT 15u        /* in values: no client has this number */
#define VALUES_SLOT 16u          /* of each key; such slots have values that say something (crash_slot_is_empty_value) */
#define GAP_MAX 60u              /* numbers between two pairs: a scan over a few keys goes over so many slots for each */
#define TXNS_MAX 3000u           /* recorded of each client */
#define OPS_EACH 10u             /* room for operations, on average */

void shared_open(crash_shared *s, const crash_plan *plan, const crash_history *histories)
{
    *s = (crash_shared){.plan = plan, .histories = histories};
    if (plan->shared_keys == 0) return;
    uint32_t txns = RW_MIN(2 * plan->rounds * plan->operations + 64, TXNS_MAX);
    s->h = history_new(plan->shared_keys, plan->clients + 1, txns, txns * OPS_EACH + SHARED_OPS_MAX);
    s->checker = history_checker_new();
    s->txns = calloc((size_t)(plan->clients + 1) * txns, sizeof *s->txns);
    RW_ASSERT(s->h != NULL && s->checker != NULL && s->txns != NULL);
    for (unsigned i = 0; i < SHARED_COUNTERS; i++) {
        s->counters[i].capacity = (uint64_t)plan->clients * txns + 1;
        s->counters[i].returned = calloc(s->counters[i].capacity, 1);
        RW_ASSERT(s->counters[i].returned != NULL);
    }
}

void shared_close(crash_shared *s)
{
    history_free(s->h);
    if (s->checker != NULL) history_checker_free(s->checker);
    free(s->txns);
    for (unsigned i = 0; i < SHARED_COUNTERS; i++) free(s->counters[i].returned);
}

/* ---- keys and values ---- */

crash_bucket shared_key_bucket(uint32_t key)
{
    return key / 4 % 2 == 0 ? CRASH_DEFAULT : CRASH_SECOND;
}

bool shared_key_is_deleted(uint32_t key)
{
    return key % 4 == 3;
}

/* A name that no slot has, right behind that of a slot. */
rw_slice shared_key(const crash_plan *plan, uint32_t key, void *buffer)
{
    char *to = buffer;
    uint32_t numbers = plan->slots / 2 * plan->clients, gap = RW_MIN(numbers / (plan->shared_keys / 4), GAP_MAX);
    bool counter = key >= plan->shared_keys;
    uint32_t place = counter ? key - plan->shared_keys : shared_key_place(key);
    memset(to, 'p', plan->prefix_length);
    int digits = snprintf(to + plan->prefix_length, 32, "s%06u%c%u", place / 2 * gap, counter ? '+' : '~', place % 2);
    return rw_slice_of(buffer, plan->prefix_length + (size_t)digits);
}

bool shared_key_parse(const crash_plan *plan, rw_slice text, crash_bucket bucket, void *scratch, uint32_t *key)
{
    for (*key = 0; *key < shared_count(plan); ++*key) {
        crash_bucket own = *key >= plan->shared_keys ? CRASH_DEFAULT : shared_key_bucket(*key);
        if (own == bucket && rw_slice_equal(text, shared_key(plan, *key, scratch))) return true;
    }
    return false;
}

rw_slice shared_value(const crash_plan *plan, uint32_t key, uint32_t version, void *buffer)
{
    return crash_value(plan, VALUES_CLIENT, key * VALUES_SLOT, version, buffer);
}

uint32_t shared_value_version(const crash_plan *plan, uint32_t key, rw_slice value, void *scratch)
{
    uint32_t id = crash_value_id(plan, VALUES_CLIENT, key * VALUES_SLOT, value, scratch);
    return id == 0 ? HISTORY_GARBAGE : id;
}

/* ---- recording ---- */

static uint32_t current_index(const crash_shared *s, uint32_t client)
{
    const history_strand *strand = &s->h->strands[client];
    RW_ASSERT(strand->txn_count > 0);
    return strand->txn_first + strand->txn_count - 1;
}

bool shared_has_room(const crash_shared *s, uint32_t client)
{
    return s->h != NULL && history_has_room(s->h, client, 2, SHARED_OPS_MAX);
}

history_txn *shared_begin(crash_shared *s, uint32_t client, history_mode mode)
{
    history_txn *txn = history_begin(s->h, client, mode);
    s->txns[current_index(s, client)] = (shared_txn){0};
    txn->begin_from = shared_tick(s);
    return txn;
}

history_txn *shared_current(crash_shared *s, uint32_t client)
{
    return &s->h->txns[current_index(s, client)];
}

/* Whether the client's commit of own slots that has begun is a part of its current transaction. */
static bool is_mixed(const crash_shared *s, uint32_t client)
{
    const crash_history *own = &s->histories[client];
    return own->commit_count > own->acked && own->commits[own->commit_count - 1].shared_begun == s->h->txns[current_index(s, client)].begin_from;
}

void shared_ending(crash_shared *s, uint32_t client)
{
    shared_txn *txn = &s->txns[current_index(s, client)];
    txn->ending = true;
    for (uint32_t i = 0; i < s->plan->clients; i++) txn->acked_before[i] = s->histories[i].acked;
    if (is_mixed(s, client)) txn->acked_before[client]++;
}

void shared_end(crash_shared *s, uint32_t client, history_outcome outcome, uint64_t now_ns, bool durable)
{
    shared_txn *txn = &s->txns[current_index(s, client)];
    history_txn *record = shared_current(s, client);
    record->commit_to = shared_tick(s);
    if (record->begin_to == 0) record->begin_to = record->commit_from = record->commit_to; /* it never came to be */
    history_end(s->h, client, outcome);
    txn->ending = false;
    if (outcome != HISTORY_COMMITTED) return;
    txn->acked_ns = now_ns;
    txn->is_durable = durable;
}

static void each_committed(crash_shared *s, void (*fn)(crash_shared *s, uint32_t index, uint64_t arg), uint64_t arg)
{
    for (uint32_t strand = 0; strand < s->plan->clients; strand++) {
        uint32_t first = s->h->strands[strand].txn_first;
        for (uint32_t i = first; i < first + s->h->strands[strand].txn_count; i++)
            if (s->h->txns[i].outcome == HISTORY_COMMITTED) fn(s, i, arg);
    }
}

static void mark_durable(crash_shared *s, uint32_t index, uint64_t before)
{
    if (s->h->txns[index].commit_to < before) s->txns[index].is_durable = true;
}

void shared_durable(crash_shared *s, uint64_t before)
{
    if (s->h != NULL) each_committed(s, mark_durable, before);
}

/* ---- checks ---- */

static bool checked(crash_shared *s, char *text, size_t size)
{
    history_result result;
    text[0] = 0;
    if (history_check(s->checker, s->h, &result)) return true;
    snprintf(text, size, "%s: %s", history_anomaly_name(result.findings[0].anomaly), result.findings[0].text);
    return false;
}

bool shared_check(crash_shared *s, char *text, size_t size)
{
    text[0] = 0;
    return s->h == NULL || checked(s, text, size);
}

/* For one check: what must be there by the time, or because own slots are there that were written after it. */
static void require_durable(crash_shared *s, uint32_t index, uint64_t before)
{
    const shared_txn *txn = &s->txns[index];
    s->h->txns[index].durable = txn->is_durable || txn->acked_ns < s->due_ns || s->h->txns[index].commit_to < before;
}

/* The commits that are being made at this moment: as if they had just been cut off. Returns a set of clients. */
static unsigned cut_off(crash_shared *s, const uint32_t *fewest)
{
    unsigned cut = 0;
    for (uint32_t i = 0; i < s->plan->clients; i++) {
        if (s->h->strands[i].txn_count == 0) continue;
        uint32_t index = current_index(s, i);
        history_txn *txn = &s->h->txns[index];
        if (txn->outcome != HISTORY_OPEN || !s->txns[index].ending) continue;
        bool survived = is_mixed(s, i) && fewest[i] == s->histories[i].commit_count;
        txn->outcome = survived ? HISTORY_COMMITTED : HISTORY_UNKNOWN;
        txn->durable = survived;
        txn->commit_to = HISTORY_FOREVER;
        cut |= 1u << i;
    }
    return cut;
}

static void cut_off_undo(crash_shared *s, unsigned cut)
{
    for (uint32_t i = 0; i < s->plan->clients; i++) {
        if ((cut & 1u << i) == 0) continue;
        history_txn *txn = shared_current(s, i);
        txn->outcome = HISTORY_OPEN;
        txn->durable = false;
    }
}

/* Own slots must be there that were written before a shared write which is there. */
static bool check_before(const crash_shared *s, uint32_t key, uint32_t version, const uint32_t *most, char *text, size_t size)
{
    if (!history_version_is_write(version) || version > s->h->op_max) return true; /* the history's check will say what that is */
    const shared_txn *writer = &s->txns[history_writer_op(s->h, version)->txn];
    for (uint32_t i = 0; i < s->plan->clients; i++) {
        if (most[i] >= writer->acked_before[i]) continue;
        snprintf(text, size, "shared key %u, version %u is there, whose commit came after %u of client %u, of which at most %u are there", key, version,
                 writer->acked_before[i], i, most[i]);
        return false;
    }
    return true;
}

static bool check_counters(const crash_shared *s, const uint32_t *found, char *text, size_t size)
{
    for (unsigned i = 0; i < SHARED_COUNTERS; i++) {
        const shared_counter *counter = &s->counters[i];
        uint32_t sum = found[s->plan->shared_keys + i];
        if (sum == CRASH_UNREADABLE || (sum >= counter->durable && sum <= counter->begun)) continue;
        snprintf(text, size, "counter %u: %u found, %llu must be durable, %llu were begun", i, sum, (unsigned long long)counter->durable,
                 (unsigned long long)counter->begun);
        return false;
    }
    return true;
}

/* A get by itself: no transaction. */
static bool is_lone_get(const history *h, const history_txn *txn)
{
    for (uint32_t i = 0; i < txn->op_count; i++)
        if (h->ops[txn->op_first + i].kind != HISTORY_READ) return false;
    return txn->mode == HISTORY_SINGLE;
}

static void lone_gets_set_aside(crash_shared *s, bool aside)
{
    for (uint32_t strand = 0; strand < s->plan->clients; strand++) {
        uint32_t first = s->h->strands[strand].txn_first;
        for (uint32_t i = first; i < first + s->h->strands[strand].txn_count; i++) {
            history_txn *txn = &s->h->txns[i];
            if (aside ? txn->outcome != HISTORY_COMMITTED || !is_lone_get(s->h, txn) : !txn->aside) continue;
            txn->aside = aside;
            txn->outcome = aside ? HISTORY_OPEN : HISTORY_COMMITTED;
        }
    }
}

/*
 * Whether what was recovered fits the record. A get by itself may still miss a commit that has its place in the log, and come after one that was acknowledged and lies behind it
 * there. Which of the two a crash leaves the log decides; so such gets are held to the record without the crash, and the crash to the record without such gets.
 */
static bool checked_with_recovery(crash_shared *s, uint32_t strand, char *text, size_t size)
{
    if (checked(s, text, size)) return true;
    uint32_t recoveries = s->h->strands[strand].txn_count;
    s->h->strands[strand].txn_count = 0;
    bool sound = checked(s, text, size);
    s->h->strands[strand].txn_count = recoveries;
    if (!sound) return false;
    lone_gets_set_aside(s, true);
    sound = checked(s, text, size);
    lone_gets_set_aside(s, false);
    return sound;
}

bool shared_check_found(crash_shared *s, const uint32_t *found, const uint32_t *fewest, const uint32_t *most, char *text, size_t size)
{
    const crash_plan *plan = s->plan;
    uint32_t strand = plan->clients;
    uint64_t before = 0;
    text[0] = 0;
    if (s->h == NULL) return true;
    if (!check_counters(s, found, text, size)) return false;
    for (uint32_t i = 0; i < plan->clients; i++)
        if (fewest[i] > 0) before = RW_MAX(before, s->histories[i].commits[fewest[i] - 1].shared_clock);
    each_committed(s, require_durable, before);
    unsigned cut = cut_off(s, fewest);
    history_txn *recovery = history_begin(s->h, strand, HISTORY_RECOVERY);
    recovery->commit_to = HISTORY_FOREVER;
    for (uint32_t key = 0; key < plan->shared_keys; key++)
        if (found[key] != CRASH_UNREADABLE) history_read(s->h, strand, key, found[key] == 0 ? HISTORY_ABSENT : found[key], 0);
    history_end(s->h, strand, HISTORY_COMMITTED);
    bool sound = checked_with_recovery(s, strand, text, size);
    for (uint32_t key = 0; key < plan->shared_keys && sound; key++)
        if (found[key] != 0 && found[key] != CRASH_UNREADABLE) sound = check_before(s, key, found[key], most, text, size);
    s->h->strands[strand].txn_count = s->h->strands[strand].op_count = 0;
    cut_off_undo(s, cut);
    return sound;
}
