/* Operations for queues: made, and looked at when they are over. */
#include <stdlib.h>

#include "tests/crash/crash_queue.h"

#define WRITES_MAX 6u
#define SCAN_SLOTS_MAX 12u

static const crash_plan *plan_of(const queue_session *s)
{
    return &s->c->run->plan;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void *block_new(queue_item *item, size_t size)
{
    RW_ASSERT(item->block_count < QUEUE_BLOCKS_MAX);
    void *block = malloc(size + 1);
    RW_ASSERT(block != NULL);
    item->blocks[item->block_count++] = block;
    return block;
}

static rw_slice slice_keep(queue_item *item, rw_slice slice)
{
    void *copy = block_new(item, slice.size);
    if (slice.size > 0) memcpy(copy, slice.data, slice.size);
    return rw_slice_of(copy, slice.size);
}

static void item_free(queue_item *item)
{
    while (item->block_count > 0) free(item->blocks[--item->block_count]);
    item->is_used = false;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

/* One of the own slots that no other operation of the group touches. */
static bool slot_draw(queue_session *s, uint32_t *slot)
{
    for (unsigned i = 0; i < 8; i++) {
        *slot = client_draw_slot(s->c);
        if (s->touched[*slot]) continue;
        s->touched[*slot] = true;
        return true;
    }
    return false;
}

static rw_slice slot_key(queue_session *s, queue_item *item, uint32_t owner, uint32_t slot)
{
    return slice_keep(item, crash_key(plan_of(s), owner, slot, s->c->key));
}

static uint32_t id_draw(client *c, uint32_t slot)
{
    return client_draw(c, 4) == 0 ? 0 : crash_history_new_id(c->history, slot);
}

static void commit_begin(queue_session *s, queue_item *item)
{
    crash_history *own = s->c->history;
    item->commit = crash_group_add(s->c->run->histories, own->client);
    own->commits[item->commit].shared_clock = shared_tick(&s->c->run->shared);
    s->group_commits++;
}

/* ---- making: writes ---------------------------------------------------------------------------------------------- */

static bool make_write(queue_session *s, queue_item *item)
{
    client *c = s->c;
    uint32_t slot;
    if (!slot_draw(s, &slot)) return false;
    uint32_t id = id_draw(c, slot), me = c->history->client;
    commit_begin(s, item);
    crash_commit_add(c->history, slot, id);
    item->was_there = c->history->current[slot] != 0;
    item->op.kind = id == 0 ? RW_OP_DEL : RW_OP_PUT;
    item->op.bucket = client_bucket_of(c, me, slot);
    item->op.key = slot_key(s, item, me, slot);
    if (id != 0) item->op.value = slice_keep(item, crash_value(plan_of(s), me, slot, id, c->value));
    return true;
}

/* A range of own keys that nobody touches, its deletion added to the batch. */
static int batch_range(queue_session *s, rw_batch *batch)
{
    client *c = s->c;
    const crash_plan *plan = plan_of(s);
    uint32_t count = crash_own_count(plan), me = c->history->client, first = 1 + (uint32_t)client_draw(c, count - 1);
    uint32_t length = 1 + (uint32_t)client_draw(c, 6), end = RW_MIN(count, first + length);
    for (uint32_t i = first; i < end; i++)
        if (s->touched[crash_own_slot(i)]) return 0;
    for (uint32_t i = first; i < end; i++) {
        s->touched[crash_own_slot(i)] = true;
        if (crash_slot_bucket(crash_own_slot(i)) == CRASH_DEFAULT) crash_commit_add(c->history, crash_own_slot(i), 0);
    }
    rw_slice from = crash_key_stem(plan, me, crash_own_slot(first), c->key), to = crash_key_stem(plan, me, crash_own_slot(end), c->other_key);
    return rw_batch_delete_range(batch, RW_DEFAULT_BUCKET, from, to);
}

static bool make_batch(queue_session *s, queue_item *item)
{
    client *c = s->c;
    uint32_t slot;
    if (!crash_result(c->run, rw_batch_new(c->run->db, &item->op.batch), "batch_new")) return false;
    commit_begin(s, item);
    int rc = 0;
    if (!s->touched[0] && client_draw(c, 2) == 0) {   /* the pair */
        uint32_t id = crash_history_new_id(c->history, 0);
        s->touched[0] = true;
        rc = client_batch_write(c, item->op.batch, 0, id);
        if (rc == 0) rc = client_batch_write(c, item->op.batch, 2, id);
    }
    for (uint64_t i = 1 + client_draw(c, WRITES_MAX); i > 0 && rc == 0; i--) {
        if (client_draw(c, 8) == 0) rc = batch_range(s, item->op.batch);
        else if (slot_draw(s, &slot)) rc = client_batch_write(c, item->op.batch, slot, id_draw(c, slot));
    }
    item->op.kind = RW_OP_BATCH;
    if (rc == 0) return true;
    (void)crash_result(c->run, rc, "batch");
    crash_group_failed(c->history, item->commit);
    rw_batch_free(item->op.batch);
    return false;
}

static bool make_txn(queue_session *s, queue_item *item)
{
    client *c = s->c;
    uint32_t slots[WRITES_MAX], count = 0;
    if (!crash_result(c->run, rw_txn_begin(c->run->db, client_draw(c, 3) == 0 ? RW_SERIALIZABLE : RW_SNAPSHOT, &item->op.txn), "txn_begin")) return false;
    memcpy(c->staged, c->history->current, plan_of(s)->slots * sizeof *c->staged);
    int rc = 0;
    for (uint64_t i = 1 + client_draw(c, WRITES_MAX); i > 0 && rc == 0; i--) {
        if (!slot_draw(s, &slots[count])) break;
        if (client_draw(c, 3) == 0) rc = client_txn_read(c, item->op.txn, slots[count]);
        if (rc == 0) rc = client_txn_write(c, item->op.txn, slots[count], id_draw(c, slots[count]));
        count++;
    }
    if (!crash_result(c->run, rc, "transaction")) {
        rw_txn_abort(item->op.txn);
        return false;
    }
    commit_begin(s, item);
    for (uint32_t i = 0; i < count; i++) crash_commit_add(c->history, slots[i], c->staged[slots[i]]);
    item->op.kind = RW_OP_TXN;
    return true;
}

/* ---- making: reads ----------------------------------------------------------------------------------------------- */

/* Some slot of some client; of an own one the id is known, so others leave it alone meanwhile. */
static bool read_add(queue_session *s, queue_item *item)
{
    client *c = s->c;
    uint32_t i = item->key_count, me = c->history->client, owner = (uint32_t)client_draw(c, plan_of(s)->clients), slot;
    if (owner == me || client_draw(c, 2) == 0) {
        owner = me;
        if (!slot_draw(s, &slot)) return false;
    } else {
        slot = (uint32_t)client_draw(c, plan_of(s)->slots);
        if (slot == CRASH_OWN_EXISTS || (crash_slot_bucket(slot) == CRASH_OWN && c->run->own[owner] == 0)) return false;
    }
    item->owners[i] = owner;
    item->slots[i] = slot;
    item->expected[i] = c->history->current[slot];
    item->items[i].key = slot_key(s, item, owner, slot);
    item->items[i].size = plan_of(s)->value_max;
    item->items[i].buf = block_new(item, item->items[i].size);
    item->key_count++;
    return true;
}

static bool make_get(queue_session *s, queue_item *item)
{
    if (!read_add(s, item)) return false;
    item->op.kind = RW_OP_GET;
    item->op.bucket = client_bucket_of(s->c, item->owners[0], item->slots[0]);
    item->op.key = item->items[0].key;
    item->op.buf = item->items[0].buf;
    item->op.size = item->items[0].size;
    return true;
}

/* All of one bucket. */
static bool make_multi_get(queue_session *s, queue_item *item)
{
    rw_bucket bucket = client_draw(s->c, 2) == 0 ? RW_DEFAULT_BUCKET : s->c->run->second;
    for (unsigned tries = 0; tries < 3 * QUEUE_KEYS_MAX && item->key_count < QUEUE_KEYS_MAX && item->block_count + 2 <= QUEUE_BLOCKS_MAX; tries++) {
        if (!read_add(s, item)) continue;
        uint32_t last = item->key_count - 1;
        if (client_bucket_of(s->c, item->owners[last], item->slots[last]) != bucket) item->key_count--;
    }
    item->op.kind = RW_OP_MULTI_GET;
    item->op.bucket = bucket;
    item->op.items = item->items;
    item->op.count = item->key_count;
    return item->key_count > 0;
}

static bool make_scan(queue_session *s, queue_item *item)
{
    client *c = s->c;
    const crash_plan *plan = plan_of(s);
    static const size_t rooms[] = {64, 3000, 40000, 400000};
    uint32_t count = crash_own_count(plan), me = c->history->client, first = 1 + (uint32_t)client_draw(c, count - 1);
    uint32_t length = 1 + (uint32_t)client_draw(c, SCAN_SLOTS_MAX), end = RW_MIN(count, first + length);
    for (uint32_t i = first; i < end; i++)
        if (s->touched[crash_own_slot(i)]) return false;
    for (uint32_t i = first; i < end; i++) s->touched[crash_own_slot(i)] = true;
    item->index = first;
    item->index_end = end;
    item->room = rooms[client_draw(c, RW_ARRAY_SIZE(rooms))];
    item->limit = client_draw(c, 2) == 0 ? 0 : 1 + (size_t)client_draw(c, 6);
    item->op.kind = RW_OP_SCAN;
    item->op.bucket = RW_DEFAULT_BUCKET;
    item->op.key = slice_keep(item, crash_key_stem(plan, me, crash_own_slot(first), c->key));
    item->op.end = slice_keep(item, crash_key_stem(plan, me, crash_own_slot(end), c->key));
    item->op.buf = block_new(item, item->room);
    item->op.size = item->room;
    item->op.count = item->limit;
    return true;
}

/* ---- making: shared keys ----------------------------------------------------------------------------------------- */

static void shared_op(queue_session *s, queue_item *item, rw_op_kind kind)
{
    item->op.kind = kind;
    item->op.bucket = shared_bucket_for(s->c, shared_key_bucket(item->shared_key));
    item->op.key = slice_keep(item, shared_key_for(s->c, item->shared_key));
}

static void make_shared_get(queue_session *s, queue_item *item)
{
    shared_single_begin(s->c);
    shared_op(s, item, RW_OP_GET);
    item->op.size = plan_of(s)->value_max;
    item->op.buf = block_new(item, item->op.size);
}

static void make_shared_write(queue_session *s, queue_item *item)
{
    client *c = s->c;
    uint32_t version;
    shared_single_begin(c);
    shared_ending(shared_of(c), strand_of(c));
    item->removes = shared_key_is_deleted(item->shared_key) && client_draw(c, 2) == 0;
    if (item->removes) history_write(shared_of(c)->h, strand_of(c), HISTORY_DELETE, item->shared_key, HISTORY_BLIND, 0);
    else item->op.value = slice_keep(item, shared_value_for(c, item->shared_key, &version));
    shared_op(s, item, item->removes ? RW_OP_DEL : RW_OP_PUT);
}

static bool make_shared_batch(queue_session *s, queue_item *item)
{
    client *c = s->c;
    uint32_t key = item->shared_key, version;
    if (!crash_result(c->run, rw_batch_new(c->run->db, &item->op.batch), "batch_new")) return false;
    shared_single_begin(c);
    int rc = 0;
    for (uint64_t i = 1 + client_draw(c, 5); i > 0 && rc == 0; i--, key = client_draw(c, 2) == 0 ? key ^ 1 : shared_draw_key(c)) {
        rw_slice value = shared_value_for(c, key, &version);
        rc = rw_batch_put(item->op.batch, shared_bucket_for(c, shared_key_bucket(key)), shared_key_for(c, key), value);
    }
    shared_ending(shared_of(c), strand_of(c));
    item->op.kind = RW_OP_BATCH;
    if (rc == 0) return true;
    shared_single_end(c, rc, false, "batch");
    rw_batch_free(item->op.batch);
    return false;
}

static bool make_shared_txn(queue_session *s, queue_item *item)
{
    item->work = (shared_work){.c = s->c, .mode = shared_draw_mode(s->c)};
    if (!shared_transaction_fill(&item->work, false)) return false;
    shared_commit_begin(s->c);
    item->op.kind = RW_OP_TXN;
    item->op.txn = item->work.txn;
    return true;
}

/* Some places in a row, as of one moment. */
static void make_shared_scan(queue_session *s, queue_item *item)
{
    client *c = s->c;
    uint32_t all = plan_of(s)->shared_keys / 2, place = shared_key_place(item->shared_key);
    item->places = 1 + (uint32_t)client_draw(c, 4);
    item->place = RW_MIN(place, all - item->places);
    item->bucket = client_draw(c, 2) == 0 ? CRASH_DEFAULT : CRASH_SECOND;
    (void)shared_begin(shared_of(c), strand_of(c), HISTORY_READONLY);
    item->op.kind = RW_OP_SCAN;
    item->op.bucket = shared_bucket_for(c, item->bucket);
    item->op.key = slice_keep(item, shared_key_for(c, shared_key_at(item->bucket, item->place)));
    rw_slice last = shared_key_for(c, shared_key_at(item->bucket, item->place + item->places - 1));
    char *end = block_new(item, last.size + 1);
    memcpy(end, last.data, last.size);
    end[last.size] = 0;
    item->op.end = rw_slice_of(end, last.size + 1);
    item->op.size = (size_t)1 << 20;
    item->op.buf = block_new(item, item->op.size);
}

static bool make_on_shared(queue_session *s, queue_item *item)
{
    uint64_t choice = client_draw(s->c, 20);
    item->kind = ON_SHARED;
    item->shared_key = shared_draw_key(s->c);
    if (choice < 3) make_shared_get(s, item);
    else if (choice < 7) make_shared_write(s, item);
    else if (choice < 10) return make_shared_batch(s, item);
    else if (choice < 13) make_shared_scan(s, item);
    else return make_shared_txn(s, item);
    return true;
}

static bool make_on_own(queue_session *s, queue_item *item)
{
    uint64_t choice = client_draw(s->c, s->c->history->is_stopped ? 30 : 100);
    item->kind = ON_OWN;
    if (choice < 14) return make_get(s, item);
    if (choice < 22) return make_multi_get(s, item);
    if (choice < 30) return make_scan(s, item);
    if (choice < 65) return make_write(s, item);
    if (choice < 80) return make_batch(s, item);
    return make_txn(s, item);
}

bool queue_item_make(queue_session *s, queue_item *item)
{
    client *c = s->c;
    *item = (queue_item){.is_used = true};
    item->op.context = item;
    item->op.flags = client_draw(c, 2) == 0 ? RW_SYNC : RW_ASYNC;
    bool shared = !s->shared_under_way && client_draw(c, 4) == 0 && shared_has_room(shared_of(c), strand_of(c));
    bool made = shared ? make_on_shared(s, item) : make_on_own(s, item);
    if (made) s->shared_under_way = s->shared_under_way || shared;
    else item_free(item);
    return made;
}

/* ---- over: own slots --------------------------------------------------------------------------------------------- */

static void over_write(queue_session *s, queue_item *item)
{
    client *c = s->c;
    int rc = item->op.result;
    if (item->op.kind == RW_OP_DEL && ((rc == 0 && !item->was_there) || (rc == RW_ENOTFOUND && item->was_there)))
        crash_fail("queue: del of a key that is %s has result %d", item->was_there ? "there" : "not there", rc);
    bool expected = rc == RW_ECANCELED || (rc == RW_ENOTFOUND && item->op.kind == RW_OP_DEL) || (rc == RW_EUNKNOWN && c->run->faults);
    if (rc == 0) crash_group_acked(c->history, item->commit, sim_world_now_ns(c->run->world), item->op.flags == RW_SYNC);
    else if (rc == RW_EUNKNOWN && c->run->faults) crash_group_unknown(c->history, item->commit);
    else crash_group_failed(c->history, item->commit);
    if (!expected) (void)crash_result(c->run, rc, "a write in a queue");
}

static void check_read(queue_session *s, const queue_item *item, uint32_t i, int rc, size_t size)
{
    client *c = s->c;
    uint32_t owner = item->owners[i], slot = item->slots[i], id = 0;
    if (rc != RW_ENOTFOUND && !crash_result(c->run, rc, "a read in a queue")) return;
    if (rc == 0) id = crash_value_id(plan_of(s), owner, slot, rw_slice_of(item->items[i].buf, size), c->scratch);
    if (rc == 0 && id == 0) crash_fail("queue: client %u, slot %u: a value that was never written, %zu bytes", owner, slot, size);
    if (owner == c->history->client && id != item->expected[i])
        crash_fail("queue: client %u, slot %u: expected id %u, found %u", owner, slot, item->expected[i], id);
}

static void over_multi_get(queue_session *s, queue_item *item)
{
    int first = 0;
    for (uint32_t i = 0; i < item->key_count; i++) {
        int rc = item->items[i].result;
        check_read(s, item, i, rc, item->items[i].size);
        if (first == 0 && rc != RW_ENOTFOUND) first = rc;
    }
    if (item->op.result != first) crash_fail("queue: a multi-get's result is %d, its items' %d", item->op.result, first);
}

/* The next index of the scan's range that has a record. */
static uint32_t scan_next(const queue_session *s, const queue_item *item, uint32_t index)
{
    for (; index < item->index_end; index++) {
        uint32_t slot = crash_own_slot(index);
        if (crash_slot_bucket(slot) == CRASH_DEFAULT && s->c->history->current[slot] != 0) return index;
    }
    return UINT32_MAX;
}

static size_t scan_record_size(queue_session *s, uint32_t slot)
{
    client *c = s->c;
    uint32_t me = c->history->client;
    size_t key = crash_key(plan_of(s), me, slot, c->key).size;
    return 8 + key + crash_value(plan_of(s), me, slot, c->history->current[slot], c->value).size;
}

static void over_scan(queue_session *s, queue_item *item)
{
    client *c = s->c;
    rw_op *op = &item->op;
    uint32_t me = c->history->client, index = scan_next(s, item, item->index);
    size_t position = 0, count = 0;
    rw_slice key, value;
    if (op->result != RW_ETOOSMALL && !crash_result(c->run, op->result, "a scan in a queue")) return;
    for (; rw_op_record(op, &position, &key, &value) == 0; count++) {
        if (index == UINT32_MAX) crash_fail("queue: a scan of client %u finds a record too many", me);
        uint32_t slot = crash_own_slot(index);
        if (!rw_slice_equal(key, crash_key(plan_of(s), me, slot, c->key))) crash_fail("queue: a scan of client %u finds another key than slot %u", me, slot);
        uint32_t id = crash_value_id(plan_of(s), me, slot, value, c->scratch);
        if (id != c->history->current[slot]) crash_fail("queue: client %u, slot %u in a scan: expected id %u, found %u", me, slot, c->history->current[slot], id);
        index = scan_next(s, item, index + 1);
    }
    bool more = index != UINT32_MAX;
    if (count != op->count || more != (op->more != 0)) crash_fail("queue: a scan of client %u finds %zu records, more: %u", me, count, op->more);
    if ((op->result == RW_ETOOSMALL) != (more && count == 0)) crash_fail("queue: a scan's result is %d with %zu records", op->result, count);
    bool full = more && scan_record_size(s, crash_own_slot(index)) > item->room - op->size;
    if (more && !full && count != item->limit) crash_fail("queue: a scan of client %u ends after %zu records for no reason", me, count);
}

static void over_own(queue_session *s, queue_item *item)
{
    switch (item->op.kind) {
    case RW_OP_PUT:
    case RW_OP_DEL:
    case RW_OP_TXN: over_write(s, item); return;
    case RW_OP_BATCH:
        over_write(s, item);
        rw_batch_free(item->op.batch);
        return;
    default: break;
    }
    if (item->op.result == RW_ECANCELED) return;
    if (item->op.kind == RW_OP_GET) check_read(s, item, 0, item->op.result, item->op.size);
    else if (item->op.kind == RW_OP_MULTI_GET) over_multi_get(s, item);
    else over_scan(s, item);
}

/* ---- over: shared keys ------------------------------------------------------------------------------------------- */

static void record_scan(queue_session *s, const queue_item *item)
{
    client *c = s->c;
    rw_slice name, value;
    size_t position = 0;
    uint32_t key, seen = 0;
    while (rw_op_record(&item->op, &position, &name, &value) == 0) {
        if (!shared_key_parse(plan_of(s), name, item->bucket, c->key, &key) || key >= plan_of(s)->shared_keys) continue;
        uint32_t place = shared_key_place(key) - item->place;
        if (place >= item->places || (seen & 1u << place) != 0) crash_fail("queue: a scan meets shared key %u, outside of its range or twice", key);
        seen |= 1u << place;
        shared_record_read(c, key, 0, value, HISTORY_BY_SCAN);
    }
    for (uint32_t i = 0; i < item->places; i++)
        if ((seen & 1u << i) == 0)
            shared_record_read(c, shared_key_at(item->bucket, item->place + i), RW_ENOTFOUND, rw_slice_of("", 0), HISTORY_BY_SCAN);
}

/* Its moment lies somewhere between submission and now. Not all of it: then nothing is recorded. */
static void over_shared_scan(queue_session *s, queue_item *item)
{
    client *c = s->c;
    int rc = item->op.result;
    bool whole = rc == 0 && item->op.more == 0;
    history_txn *record = shared_current(shared_of(c), strand_of(c));
    if (whole) record_scan(s, item);
    record->begin_to = shared_tick(shared_of(c));
    record->commit_from = shared_tick(shared_of(c));
    shared_record_end(c, whole ? 0 : RW_EIO, false);
    if (rc != RW_ECANCELED && rc != RW_ETOOSMALL) (void)crash_result(c->run, rc, "a scan in a queue");
}

static void over_shared(queue_session *s, queue_item *item)
{
    client *c = s->c;
    rw_op *op = &item->op;
    bool durable = op->flags == RW_SYNC;
    int rc = op->result;
    switch (op->kind) {
    case RW_OP_GET:
        if (rc == 0 || rc == RW_ENOTFOUND) shared_record_read(c, item->shared_key, rc, rw_slice_of(op->buf, op->size), 0);
        shared_single_end(c, rc == RW_ENOTFOUND ? 0 : rc, false, "a get in a queue");
        break;
    case RW_OP_DEL:
        if (rc == RW_ENOTFOUND) {
            history_rollback(shared_of(c)->h, strand_of(c), 0);
            history_read(shared_of(c)->h, strand_of(c), item->shared_key, HISTORY_ABSENT, 0);
            rc = 0;
        }
        shared_single_end(c, rc, durable, "a del in a queue");
        break;
    case RW_OP_TXN: shared_commit_end(&item->work, rc, op->flags); break;
    case RW_OP_SCAN: over_shared_scan(s, item); break;
    default: shared_single_end(c, rc, durable, "a write in a queue"); break;
    }
    if (op->kind == RW_OP_BATCH) rw_batch_free(op->batch);
    s->shared_under_way = false;
}

void queue_item_over(queue_session *s, queue_item *item)
{
    bool cancelled = item->op.result == RW_ECANCELED;
    if (cancelled != item->is_cancelled && !(cancelled && s->is_closed))
        crash_fail("queue: an operation of kind %d has result %d, and was %scancelled", (int)item->op.kind, item->op.result, item->is_cancelled ? "" : "not ");
    if (item->kind == ON_SHARED) over_shared(s, item);
    else over_own(s, item);
    item_free(item);
}
