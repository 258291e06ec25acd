/* The clients of a run: what they write, and what they expect to read while nothing has crashed yet. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "tests/crash/crash_client.h"

#define MULTI_GET_MAX 100u
#define REFUSALS_MAX 200u    /* a machine that does nothing any more is of no interest; on a full disk every refusal takes long */

bool crash_result(crash_run *run, int rc, const char *what)
{
    if (rc == 0) return true;
    bool possible = run->faults && (rc == RW_EIO || rc == RW_ENOSPC || rc == RW_EREADONLY || rc == RW_EUNKNOWN || rc == RW_ECORRUPT ||
                                    rc == RW_EFOREIGN || rc == RW_EVERSION || rc == RW_EACCESS || rc == RW_EFILES);
    if (rc == RW_ESNAPSHOT_TOO_OLD || (run->plan.shared_keys > 0 && (rc == RW_ETIMEOUT || rc == RW_EDEADLOCK))) return false;
    /* few frames are the locks' in a small cache, and one live lock keeps a whole one */
    if (rc == RW_ENOMEM && run->plan.shared_keys > 0 && strstr(rw_last_error(run->db), "locks take ") != NULL) return false;
    if (!possible) crash_fail("%s: %s: %s", what, rw_strerror(rc), rw_last_error(run->db));
    run->refusals++;
    return false;
}

uint64_t client_draw(client *c, uint64_t bound)
{
    return rw_random_below(&c->random, bound);
}

uint32_t client_draw_slot(client *c)
{
    uint32_t slot;
    do slot = 3 + (uint32_t)client_draw(c, c->history->plan->slots - 3);
    while (crash_slot_bucket(slot) == CRASH_OWN && c->history->current[CRASH_OWN_EXISTS] == 0);
    return slot;
}

rw_bucket client_bucket_of(const client *c, uint32_t owner, uint32_t slot)
{
    switch (crash_slot_bucket(slot)) {
    case CRASH_SECOND: return c->run->second;
    case CRASH_OWN: return c->run->own[owner];
    default: return RW_DEFAULT_BUCKET;
    }
}

static rw_bucket own_bucket_of(const client *c, uint32_t slot)
{
    return client_bucket_of(c, c->history->client, slot);
}

static rw_slice key_of(client *c, uint32_t owner, uint32_t slot)
{
    return crash_key(c->history->plan, owner, slot, c->key);
}

static rw_slice value_of(client *c, uint32_t slot, uint32_t id)
{
    return crash_value(c->history->plan, c->history->client, slot, id, c->value);
}

unsigned client_draw_flags(client *c)
{
    return client_draw(c, 3) == 0 ? RW_SYNC : RW_ASYNC;
}

void client_commit_begin(client *c)
{
    crash_commit_begin(c->run->histories, c->history->client);
    c->history->commits[c->history->commit_count - 1].shared_clock = shared_tick(&c->run->shared);
}

/* Ends the commit that began, as rc says. */
void client_commit_end(client *c, int rc, unsigned flags, const char *what)
{
    if (rc == 0) {
        crash_commit_acked(c->history, sim_world_now_ns(c->run->world), flags == RW_SYNC);
    } else if (rc == RW_EUNKNOWN && c->run->faults) {
        crash_commit_unknown(c->history);
    } else {
        crash_commit_failed(c->history);
        if (rc != RW_ENOTFOUND && rc != RW_ECONFLICT) (void)crash_result(c->run, rc, what);
    }
}

/* ---- single writes ---- */

static void client_put(client *c)
{
    uint32_t slot = client_draw_slot(c), id = crash_history_new_id(c->history, slot);
    unsigned flags = client_draw_flags(c);
    client_commit_begin(c);
    crash_commit_add(c->history, slot, id);
    int rc = rw_put(c->run->db, own_bucket_of(c, slot), key_of(c, c->history->client, slot), value_of(c, slot, id), flags);
    if (rc == RW_ENOTFOUND) crash_fail("put: not found: %s", rw_last_error(c->run->db));
    client_commit_end(c, rc, flags, "put");
}

static void client_delete(client *c)
{
    uint32_t slot = client_draw_slot(c);
    bool is_there = c->history->current[slot] != 0;
    unsigned flags = client_draw_flags(c);
    client_commit_begin(c);
    crash_commit_add(c->history, slot, 0);
    int rc = rw_del(c->run->db, own_bucket_of(c, slot), key_of(c, c->history->client, slot), flags);
    if ((rc == 0 && !is_there) || (rc == RW_ENOTFOUND && is_there)) {
        crash_fail("del of a key that is %s returned %d", is_there ? "there" : "not there", rc);
    }
    client_commit_end(c, rc, flags, "del");
}

/* Draws a range of the client's own keys, and adds its deletion to the commit and to staged. */
static void range_draw(client *c, rw_slice *from, rw_slice *to)
{
    const crash_plan *plan = c->history->plan;
    uint32_t count = crash_own_count(plan), me = c->history->client;
    uint32_t first = 1 + (uint32_t)client_draw(c, count - 1);
    uint32_t end = first + 1 + (uint32_t)client_draw(c, client_draw(c, 4) == 0 ? count : 8);
    if (end > count) end = count;
    *from = crash_key_stem(plan, me, crash_own_slot(first), c->key);
    *to = crash_key_stem(plan, me, crash_own_slot(end), c->other_key);
    for (uint32_t index = first; index < end; index++) {
        if (crash_slot_bucket(crash_own_slot(index)) != CRASH_DEFAULT) continue;
        crash_commit_add(c->history, crash_own_slot(index), 0);
        c->staged[crash_own_slot(index)] = 0;
    }
}

static void client_delete_range(client *c)
{
    unsigned flags = client_draw_flags(c);
    rw_slice from, to;
    client_commit_begin(c);
    range_draw(c, &from, &to);
    client_commit_end(c, rw_delete_range(c->run->db, RW_DEFAULT_BUCKET, from, to, flags), flags, "delete_range");
}

/* Creates the client's own bucket, or drops it with all that is in it. Either is durable on return. */
static void client_bucket(client *c)
{
    char name[16];
    int rc;
    crash_own_bucket_name(c->history->client, name);
    client_commit_begin(c);
    if (c->history->current[CRASH_OWN_EXISTS] == 0) {
        crash_commit_add(c->history, CRASH_OWN_EXISTS, CRASH_ID_PRESENT);
        rc = rw_bucket_open(c->run->db, name, RW_CREATE, &c->run->own[c->history->client]);
    } else {
        for (uint32_t slot = 0; slot < c->history->plan->slots; slot++) {
            if (crash_slot_bucket(slot) == CRASH_OWN) crash_commit_add(c->history, slot, 0);
        }
        rc = rw_bucket_drop(c->run->db, c->run->own[c->history->client]);
    }
    if (rc == RW_ENOTFOUND) crash_fail("bucket %s: %s", name, rw_last_error(c->run->db));
    client_commit_end(c, rc, RW_SYNC, "bucket");
}

/* ---- batches and transactions ---- */

int client_batch_write(client *c, rw_batch *batch, uint32_t slot, uint32_t id)
{
    crash_commit_add(c->history, slot, id);
    c->staged[slot] = id;
    rw_slice key = key_of(c, c->history->client, slot);
    if (id == 0) return rw_batch_del(batch, own_bucket_of(c, slot), key);
    return rw_batch_put(batch, own_bucket_of(c, slot), key, value_of(c, slot, id));
}

int client_batch_fill(client *c, rw_batch *batch)
{
    int rc = 0;
    if (client_draw(c, 2) == 0) {   /* the pair */
        uint32_t id = crash_history_new_id(c->history, 0);
        rc = client_batch_write(c, batch, 0, id);
        if (rc == 0) rc = client_batch_write(c, batch, 2, id);
    }
    uint64_t writes = client_draw(c, 4) == 0 ? 40 : 6;
    for (uint64_t i = client_draw(c, writes) + 1; i > 0 && rc == 0; i--) {
        uint32_t slot = client_draw_slot(c);
        rw_slice from, to;
        if (client_draw(c, 16) == 0) {
            range_draw(c, &from, &to);
            rc = rw_batch_delete_range(batch, RW_DEFAULT_BUCKET, from, to);
        } else {
            rc = client_batch_write(c, batch, slot, client_draw(c, 4) == 0 ? 0 : crash_history_new_id(c->history, slot));
        }
    }
    return rc;
}

static void client_batch(client *c)
{
    unsigned flags = client_draw_flags(c);
    rw_batch *batch;
    int rc = rw_batch_new(c->run->db, &batch);
    if (!crash_result(c->run, rc, "batch_new")) return;
    client_commit_begin(c);
    rc = client_batch_fill(c, batch);
    if (rc == 0) rc = rw_batch_commit(batch, flags);
    if (rc == RW_ENOTFOUND || rc == RW_ECONFLICT) crash_fail("batch: %s", rw_last_error(c->run->db));
    client_commit_end(c, rc, flags, "batch");
    rw_batch_free(batch);
}

/* Reads a slot of the client's own in a transaction, and compares with what it must see. */
int client_txn_read(client *c, rw_txn *txn, uint32_t slot)
{
    size_t size = c->history->plan->value_max;
    uint32_t expected = c->staged[slot];
    int rc = rw_txn_get(txn, own_bucket_of(c, slot), key_of(c, c->history->client, slot), c->value, &size);
    if (rc != 0 && rc != RW_ENOTFOUND) return rc;
    uint32_t id = rc == 0 ? crash_value_id(c->history->plan, c->history->client, slot, rw_slice_of(c->value, size), c->scratch) : 0;
    if (id != expected || (rc == 0 && id == 0)) {
        crash_fail("client %u, slot %u, read in a transaction: expected id %u, found %u", c->history->client, slot, expected, id);
    }
    return 0;
}

int client_txn_write(client *c, rw_txn *txn, uint32_t slot, uint32_t id)
{
    rw_slice key = key_of(c, c->history->client, slot);
    int rc;
    if (id == 0) {
        rc = rw_txn_del(txn, own_bucket_of(c, slot), key);
        bool is_there = c->staged[slot] != 0;
        if ((rc == 0 && !is_there) || (rc == RW_ENOTFOUND && is_there)) crash_fail("txn_del: %d for a key that is %sthere", rc, is_there ? "" : "not ");
        if (rc == RW_ENOTFOUND) rc = 0;
    } else {
        rc = rw_txn_put(txn, own_bucket_of(c, slot), key, value_of(c, slot, id));
    }
    if (rc == 0) c->staged[slot] = id;
    return rc;
}

static int txn_fill(client *c, rw_txn *txn)
{
    const crash_plan *plan = c->history->plan;
    uint32_t *at_savepoint = calloc(plan->slots, sizeof *at_savepoint);
    RW_ASSERT(at_savepoint != NULL);
    bool has_savepoint = false;
    unsigned savepoint = 0;
    int rc = 0;
    for (uint64_t i = client_draw(c, 12) + 1; i > 0 && rc == 0; i--) {
        uint32_t slot = client_draw_slot(c);
        uint64_t choice = client_draw(c, 10);
        if (choice < 5) {
            rc = client_txn_write(c, txn, slot, client_draw(c, 4) == 0 ? 0 : crash_history_new_id(c->history, slot));
        } else if (choice < 8) {
            rc = client_txn_read(c, txn, slot);
        } else if (choice == 8 || !has_savepoint) {
            rc = rw_txn_savepoint(txn, &savepoint);
            memcpy(at_savepoint, c->staged, plan->slots * sizeof *at_savepoint);
            has_savepoint = true;
        } else {
            rc = rw_txn_rollback_to(txn, savepoint);
            memcpy(c->staged, at_savepoint, plan->slots * sizeof *at_savepoint);
        }
    }
    free(at_savepoint);
    return rc;
}

void client_commit_staged(client *c)
{
    for (uint32_t slot = 0; slot < c->history->plan->slots; slot++) {
        if (c->staged[slot] != c->history->current[slot]) crash_commit_add(c->history, slot, c->staged[slot]);
    }
}

static void client_transaction(client *c)
{
    unsigned flags = client_draw_flags(c);
    rw_txn *txn;
    if (!crash_result(c->run, rw_txn_begin(c->run->db, RW_SNAPSHOT, &txn), "txn_begin")) return;
    int rc = txn_fill(c, txn);
    if (!crash_result(c->run, rc, "transaction") || client_draw(c, 6) == 0) {
        rw_txn_abort(txn);
        return;
    }
    client_commit_begin(c);   /* perhaps of nothing */
    client_commit_staged(c);
    int committed = rw_txn_commit(txn, flags);
    if (committed == RW_ECONFLICT) crash_fail("conflict over keys that nobody else writes: %s", rw_last_error(c->run->db));
    client_commit_end(c, committed, flags, "txn_commit");
}

/* ---- reads ---- */

/* What a get said of a slot of any client. */
static void get_check(client *c, uint32_t owner, uint32_t slot, int rc, rw_slice value)
{
    uint32_t expected = c->history->current[slot];
    if (rc != RW_ENOTFOUND && !crash_result(c->run, rc, "get")) return;
    uint32_t id = rc == 0 ? crash_value_id(&c->run->plan, owner, slot, value, c->scratch) : 0;
    if (rc == 0 && id == 0) crash_fail("client %u, slot %u: a value that was never written, %zu bytes", owner, slot, value.size);
    if (owner == c->history->client && id != expected) crash_fail("client %u, slot %u: expected id %u, found %u", owner, slot, expected, id);
}

/* A slot of any client that has a bucket now. */
static bool get_draw(client *c, uint32_t *owner, uint32_t *slot)
{
    *owner = (uint32_t)client_draw(c, c->run->plan.clients);
    *slot = (uint32_t)client_draw(c, c->run->plan.slots);
    return *slot != CRASH_OWN_EXISTS && (crash_slot_bucket(*slot) != CRASH_OWN || c->run->own[*owner] != 0);
}

static void client_get(client *c)
{
    uint32_t owner, slot;
    size_t size = c->run->plan.value_max;
    if (!get_draw(c, &owner, &slot)) return;
    int rc = rw_get(c->run->db, client_bucket_of(c, owner, slot), key_of(c, owner, slot), c->value, &size);
    get_check(c, owner, slot, rc, rw_slice_of(c->value, size));
}

/* Many at once, so that they hold all the frames that they are let. */
static void client_multi_get(client *c)
{
    rw_get_item items[MULTI_GET_MAX];
    uint32_t owners[MULTI_GET_MAX], slots[MULTI_GET_MAX], count = 0, wanted = 1 + (uint32_t)client_draw(c, MULTI_GET_MAX);
    rw_bucket bucket = client_draw(c, 4) == 0 ? c->run->second : RW_DEFAULT_BUCKET;
    for (unsigned tries = 0; tries < 3 * MULTI_GET_MAX && count < wanted; tries++) {
        if (!get_draw(c, &owners[count], &slots[count]) || client_bucket_of(c, owners[count], slots[count]) != bucket) continue;
        rw_slice key = key_of(c, owners[count], slots[count]);
        unsigned char *room = malloc(key.size + c->run->plan.value_max);
        RW_ASSERT(room != NULL);
        memcpy(room, key.data, key.size);
        items[count++] = (rw_get_item){.key = rw_slice_of(room, key.size), .buf = room + key.size, .size = c->run->plan.value_max};
    }
    int rc = rw_multi_get(c->run->db, bucket, items, count);
    bool failed = rc != 0;
    for (uint32_t i = 0; i < count; i++) {
        get_check(c, owners[i], slots[i], items[i].result, rw_slice_of(items[i].buf, items[i].size));
        failed = failed && items[i].result != rc;
        free((void *)(uintptr_t)items[i].key.data);
    }
    if (failed) crash_fail("multi_get: %d, which no item says: %s", rc, rw_last_error(c->run->db));
}

/* Deletes a slot that the transaction sees, and reads so much that its page leaves the cache: the transaction must see it all the same. */
static void old_snapshot_read(client *c, rw_txn *txn)
{
    uint32_t slot = client_draw_slot(c);
    if (c->history->is_stopped || c->staged[slot] == 0 || c->history->current[slot] != c->staged[slot]) return;
    client_commit_begin(c);
    crash_commit_add(c->history, slot, 0);
    client_commit_end(c, rw_del(c->run->db, own_bucket_of(c, slot), key_of(c, c->history->client, slot), RW_ASYNC), RW_ASYNC, "del");
    for (unsigned i = 0; i < 6; i++) client_multi_get(c);
    (void)crash_result(c->run, client_txn_read(c, txn, slot), "txn_get of what was deleted since");
}

/* Reads the own slots in a transaction that can do nothing else. */
static void client_read_only(client *c)
{
    rw_txn *txn;
    if (!crash_result(c->run, rw_txn_begin(c->run->db, RW_READONLY, &txn), "txn_begin")) return;
    for (unsigned i = 0; i < 4; i++) (void)crash_result(c->run, client_txn_read(c, txn, client_draw_slot(c)), "txn_get");
    uint32_t slot = client_draw_slot(c);
    int rc = rw_txn_put(txn, own_bucket_of(c, slot), key_of(c, c->history->client, slot), rw_slice_of("x", 1));
    if (rc != RW_EREADONLY) crash_fail("txn_put in a read-only transaction returns %d", rc);
    if (client_draw(c, 4) == 0) old_snapshot_read(c, txn);
    rw_txn_abort(txn);
}

/* Where a walk over the own keys stands: the next index that must come. */
static uint32_t own_next(const client *c, uint32_t index, bool forwards)
{
    uint32_t count = crash_own_count(&c->run->plan);
    for (; index < count; index = forwards ? index + 1 : index - 1) {
        uint32_t slot = crash_own_slot(index);
        if (crash_slot_bucket(slot) == CRASH_DEFAULT && c->staged[slot] != 0) return index;
    }
    return UINT32_MAX;
}

static bool own_expect(client *c, rw_cursor *cursor, uint32_t index)
{
    rw_slice key, value;
    uint32_t slot = crash_own_slot(index);
    if (!crash_result(c->run, rw_cursor_key(cursor, &key), "cursor_key")) return false;
    if (!crash_result(c->run, rw_cursor_value(cursor, &value), "cursor_value")) return false;
    if (!rw_slice_equal(key, key_of(c, c->history->client, slot))) {
        crash_fail("client %u: a cursor stands on the wrong key, slot %u expected", c->history->client, slot);
    }
    uint32_t id = crash_value_id(&c->run->plan, c->history->client, slot, value, c->scratch);
    if (id != c->staged[slot]) crash_fail("client %u, slot %u under a cursor: id %u, found %u", c->history->client, slot, c->staged[slot], id);
    return true;
}

/* Walks over the own keys with a cursor, while other clients write on around them. */
static void client_scan(client *c)
{
    rw_cursor *cursor;
    bool forwards = client_draw(c, 2) == 0;
    uint32_t count = crash_own_count(&c->run->plan);
    uint32_t start = (uint32_t)client_draw(c, count), index = own_next(c, start, true);
    if (index == UINT32_MAX) return;
    if (!crash_result(c->run, rw_cursor_open(c->run->db, NULL, RW_DEFAULT_BUCKET, &cursor), "cursor_open")) return;
    bool good = crash_result(c->run, rw_cursor_seek(cursor, crash_key_stem(&c->run->plan, c->history->client, crash_own_slot(start), c->key)), "seek");
    for (uint32_t left = 30; good && left > 0; left--) {
        good = own_expect(c, cursor, index);
        index = own_next(c, forwards ? index + 1 : index - 1, forwards);
        if (!good || index == UINT32_MAX) break;
        good = crash_result(c->run, forwards ? rw_cursor_next(cursor) : rw_cursor_prev(cursor), "cursor step");
    }
    rw_cursor_close(cursor);
}

/* ---- upkeep ---- */

/* All that was acknowledged before the call is durable after it. */
static void client_make_durable(client *c, int (*call)(rw_db *), const char *what)
{
    uint32_t acked[CRASH_CLIENTS_MAX] = {0};
    for (uint32_t i = 0; i < c->run->plan.clients; i++) acked[i] = c->run->histories[i].acked;
    uint64_t clock = shared_tick(&c->run->shared), sums[SHARED_COUNTERS];
    for (unsigned i = 0; i < SHARED_COUNTERS; i++) sums[i] = c->run->shared.counters[i].acked;
    if (!crash_result(c->run, call(c->run->db), what)) return;
    shared_durable(&c->run->shared, clock);
    for (unsigned i = 0; i < SHARED_COUNTERS; i++) c->run->shared.counters[i].durable = RW_MAX(c->run->shared.counters[i].durable, sums[i]);
    for (uint32_t i = 0; i < c->run->plan.clients; i++) {
        crash_history *own = &c->run->histories[i];
        own->durable = RW_MAX(own->durable, acked[i]);
    }
}

void client_pause(client *c, uint64_t most_ms)
{
    static const _Atomic uint32_t never = 0;
    kio_sleep(c->run->k, &never, 0, (int64_t)(1 + client_draw(c, most_ms)) * 1000000);
}

static void client_read(client *c)
{
    uint64_t choice = client_draw(c, c->run->plan.plain ? 4 : 6);
    if (choice < 3) client_get(c);
    else if (choice == 3) client_multi_get(c);
    else if (choice == 4) client_read_only(c);
    else client_scan(c);
}

static void client_step(client *c)
{
    memcpy(c->staged, c->history->current, c->run->plan.slots * sizeof *c->staged);
    if (client_draw(c, 100) < c->run->plan.queue_percent) {
        client_queue(c);
        return;
    }
    if (shared_has_room(&c->run->shared, c->history->client) && client_draw(c, 100) < c->run->plan.shared_percent) {
        client_shared(c);
        return;
    }
    uint64_t choice = client_draw(c, 100);
    if (choice >= 92) {
        if (choice == 92) (void)crash_result(c->run, rw_compact(c->run->db), "compact");
        else if (choice < 96) client_make_durable(c, rw_checkpoint, "checkpoint");
        else if (choice < 98) client_make_durable(c, rw_flush, "flush");
        else client_pause(c, client_draw(c, 8) == 0 ? 4000 : 60);
    } else if (choice >= 78 || c->history->is_stopped) {
        client_read(c);
    } else if (choice < 40 || (c->run->plan.plain && choice >= 54)) {
        client_put(c);
    } else if (choice < 50) {
        client_delete(c);
    } else if (choice < 54) {
        client_delete_range(c);
    } else if (choice < 56) {
        client_bucket(c);
    } else if (choice < 66) {
        client_batch(c);
    } else {
        client_transaction(c);
    }
}

/* At first, all slots in order, so that there is something to lose. */
static void client_load(client *c)
{
    for (uint32_t slot = 3; slot < c->run->plan.slots && !c->history->is_stopped; slot++) {
        if (crash_slot_bucket(slot) == CRASH_OWN) continue;
        uint32_t id = crash_history_new_id(c->history, slot);
        client_commit_begin(c);
        crash_commit_add(c->history, slot, id);
        int rc = rw_put(c->run->db, own_bucket_of(c, slot), key_of(c, c->history->client, slot), value_of(c, slot, id), RW_ASYNC);
        client_commit_end(c, rc, RW_ASYNC, "put");
    }
}

static void client_main(void *arg)
{
    client *c = arg;
    if (c->run->plan.loads_first && c->history->commit_count == 0) client_load(c);
    for (uint32_t i = 0; i < c->run->plan.operations && c->run->refusals < REFUSALS_MAX; i++) client_step(c);
}

static void client_open(client *c, crash_run *run, uint32_t number)
{
    *c = (client){.run = run, .history = &run->histories[number]};
    rw_random_seed(&c->random, rw_random_next(&run->random));
    c->value = malloc(run->plan.value_max);
    c->scratch = malloc(run->plan.value_max);
    c->staged = calloc(run->plan.slots, sizeof *c->staged);
    RW_ASSERT(c->value != NULL && c->scratch != NULL && c->staged != NULL);
}

static void client_close(client *c)
{
    free(c->value);
    free(c->scratch);
    free(c->staged);
}

static void round_run(crash_run *run)
{
    client *clients = calloc(run->plan.clients, sizeof *clients);
    RW_ASSERT(clients != NULL);
    kio_thread *threads[CRASH_CLIENTS_MAX];
    for (uint32_t i = 0; i < run->plan.clients; i++) {
        char name[32];
        snprintf(name, sizeof name, "client %u", i);
        client_open(&clients[i], run, i);
        crash_expect_ok(kio_thread_start(run->k, name, -1, client_main, &clients[i], &threads[i]), "thread_start");
    }
    for (uint32_t i = 0; i < run->plan.clients; i++) {
        kio_thread_join(run->k, threads[i]);
        client_close(&clients[i]);
    }
    free(clients);
}

/* True when all is open that the clients need. */
static bool round_open(crash_run *run)
{
    crash_plan_options(&run->plan, &run->random, &run->options);
    if (run->was_opened) run->options.create = 0;
    run->db = NULL;
    if (!crash_result(run, db_open_with(run->k, CRASH_DIRECTORY, &run->options, &run->db), "open")) return false;
    run->was_opened = true;
    if (!crash_result(run, rw_bucket_open(run->db, CRASH_SECOND_BUCKET, RW_CREATE, &run->second), "bucket_open")) return false;
    run->has_second = true;
    for (uint32_t i = 0; i < run->plan.clients; i++) {
        char name[16];
        crash_own_bucket_name(i, name);
        if (run->histories[i].current[CRASH_OWN_EXISTS] == 0) continue;
        if (!crash_result(run, rw_bucket_open(run->db, name, 0, &run->own[i]), "bucket_open")) return false;
    }
    return true;
}

void crash_run_main(void *arg)
{
    crash_run *run = arg;
    for (uint32_t round = 0; round < run->plan.rounds; round++) {
        bool opened = round_open(run);
        if (opened) round_run(run);
        if (opened) crash_run_met(run);
        bool closed = run->db != NULL && crash_result(run, rw_close(run->db), "close");
        run->db = NULL;
        for (uint32_t i = 0; i < run->plan.clients && closed; i++) {
            if (!run->histories[i].is_stopped) run->histories[i].durable = run->histories[i].acked;
        }
        if (closed) shared_durable(&run->shared, UINT64_MAX);
        for (unsigned i = 0; i < SHARED_COUNTERS && closed; i++) run->shared.counters[i].durable = run->shared.counters[i].acked;
        if (!opened || !closed) return;
    }
}
