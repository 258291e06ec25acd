/* Single calls, batches and cursors of their own on the shared keys, each recorded. */
#include <stdlib.h>

#include "tests/crash/crash_txn.h"

history_txn *shared_single_begin(client *c)
{
    history_txn *record = shared_begin(shared_of(c), strand_of(c), HISTORY_SINGLE);
    record->commit_from = record->begin_from;
    record->begin_to = record->commit_to = HISTORY_FOREVER;
    return record;
}

void shared_single_end(client *c, int rc, bool durable, const char *what)
{
    shared_record_end(c, rc, durable);
    history_txn *record = shared_current(shared_of(c), strand_of(c));
    record->begin_to = record->commit_to;
    if (rc != RW_ECANCELED && (rc != RW_EUNKNOWN || !c->run->faults)) (void)crash_result(c->run, rc, what);
}

/* Several in a row: what one has seen the next may not take back. Most of one group, whose keys are written together. */
static void shared_gets(client *c)
{
    shared_work w = {.c = c, .mode = HISTORY_SINGLE, .hurries = client_draw(c, 4) != 0};
    uint32_t key = shared_draw_key(c);
    int rc = 0;
    for (uint64_t i = 2 + client_draw(c, 6); i > 0 && rc == 0 && shared_has_room(shared_of(c), strand_of(c)); i--) {
        shared_single_begin(c);
        rc = shared_get(&w, key, false);
        shared_single_end(c, rc, false, "get");
        key = client_draw(c, 4) == 0 ? shared_draw_key(c) : key / 4 * 4 + (uint32_t)client_draw(c, 4);
    }
}

static void shared_put(client *c)
{
    uint32_t key = shared_draw_key(c), version;
    crash_shared *s = shared_of(c);
    unsigned flags = client_draw_flags(c);
    rw_bucket bucket = shared_bucket_for(c, shared_key_bucket(key));
    bool removes = shared_key_is_deleted(key) && client_draw(c, 2) == 0;
    shared_single_begin(c);
    shared_ending(s, strand_of(c));
    int rc;
    if (removes) {
        history_write(s->h, strand_of(c), HISTORY_DELETE, key, HISTORY_BLIND, 0);
        rc = rw_del(c->run->db, bucket, shared_key_for(c, key), flags);
        if (rc == RW_ENOTFOUND) {
            history_rollback(s->h, strand_of(c), 0);
            history_read(s->h, strand_of(c), key, HISTORY_ABSENT, 0);
            rc = 0;
        }
    } else {
        rw_slice value = shared_value_for(c, key, &version);
        rc = rw_put(c->run->db, bucket, shared_key_for(c, key), value, flags);
    }
    shared_single_end(c, rc, flags == RW_SYNC, removes ? "del" : "put");
}

/* Puts a new version in the place of the one that a get just saw. */
static void shared_cas(client *c)
{
    crash_shared *s = shared_of(c);
    shared_work w = {.c = c, .mode = HISTORY_SINGLE};
    uint32_t key = shared_draw_key(c), version;
    unsigned flags = client_draw_flags(c);
    shared_single_begin(c);
    int rc = shared_get(&w, key, false);
    shared_single_end(c, rc, false, "get");
    if (rc != 0 || !shared_has_room(s, strand_of(c))) return;
    uint32_t seen = s->h->ops[s->h->strands[strand_of(c)].op_first + s->h->strands[strand_of(c)].op_count - 1].version;
    shared_single_begin(c);
    history_read(s->h, strand_of(c), key, seen, 0);
    bool removes = seen != HISTORY_ABSENT && shared_key_is_deleted(key) && client_draw(c, 2) == 0;
    unsigned char *present = malloc(w.size + 1);
    RW_ASSERT(present != NULL);
    if (seen != HISTORY_ABSENT) memcpy(present, c->value, w.size);
    rw_slice expected = rw_slice_of(present, w.size), desired = {0};
    if (removes) history_write(s->h, strand_of(c), HISTORY_DELETE, key, HISTORY_BLIND, 0);
    else desired = shared_value_for(c, key, &version);
    shared_let_others_run(c);
    shared_ending(s, strand_of(c));
    rc = rw_cas(c->run->db, shared_bucket_for(c, shared_key_bucket(key)), shared_key_for(c, key), seen == HISTORY_ABSENT ? NULL : &expected,
                removes ? NULL : &desired, flags);
    free(present);
    shared_single_end(c, rc == RW_ECONFLICT ? 0 : rc, flags == RW_SYNC, "cas");
    if (rc != 0 && rc != RW_EUNKNOWN) history_end(s->h, strand_of(c), HISTORY_OPEN);   /* it has read another version, nobody knows which */
}

/* Deletes the key as a range: the same commit puts it again, so nobody may ever see it gone, and the history need not know. */
static int batch_remove_first(client *c, rw_batch *batch, uint32_t key)
{
    rw_slice from = shared_key_for(c, key), to = {.data = c->other_key, .size = from.size + 1};
    memcpy(c->other_key, from.data, from.size);
    ((char *)c->other_key)[from.size] = 0;
    return rw_batch_delete_range(batch, shared_bucket_for(c, shared_key_bucket(key)), from, to);
}

static int batch_put_shared(client *c, rw_batch *batch, uint32_t key)
{
    uint32_t version;
    rw_slice value = shared_value_for(c, key, &version);
    return rw_batch_put(batch, shared_bucket_for(c, shared_key_bucket(key)), shared_key_for(c, key), value);
}

/* Shared keys, and sometimes own slots, ranges of them included, in one commit. */
static void shared_batch(client *c)
{
    rw_batch *batch;
    unsigned flags = client_draw_flags(c);
    if (!crash_result(c->run, rw_batch_new(c->run->db, &batch), "batch_new")) return;
    bool mixed = !c->history->is_stopped && client_draw(c, 2) == 0;
    history_txn *record = shared_single_begin(c);
    uint32_t first = shared_draw_key(c), key = first;
    bool again = client_draw(c, 2) == 0;
    int rc = again ? batch_remove_first(c, batch, first) : 0;
    for (uint64_t i = 1 + client_draw(c, 5); i > 0 && rc == 0; i--) {
        if (!again || key != first) rc = batch_put_shared(c, batch, key);
        key = client_draw(c, 2) == 0 ? key ^ 1 : shared_draw_key(c);
    }
    if (again && rc == 0) rc = batch_put_shared(c, batch, first);
    if (mixed) {
        client_commit_begin(c);
        c->history->commits[c->history->commit_count - 1].shared_begun = record->begin_from;
        if (rc == 0) rc = client_batch_fill(c, batch);
    }
    shared_let_others_run(c);
    shared_ending(shared_of(c), strand_of(c));
    if (rc == 0) rc = rw_batch_commit(batch, flags);
    if (mixed) client_commit_end(c, rc, flags, "batch");
    shared_single_end(c, rc, flags == RW_SYNC, "batch");
    rw_batch_free(batch);
}

/* A cursor of its own has a moment of its own. */
static void shared_scan_alone(client *c)
{
    shared_work w = {.c = c, .mode = HISTORY_READONLY};
    history_txn *record = shared_begin(shared_of(c), strand_of(c), HISTORY_READONLY);
    int rc = shared_scan(&w);
    if (record->begin_to == 0) record->begin_to = shared_tick(shared_of(c));
    record->commit_from = shared_tick(shared_of(c));
    shared_record_end(c, rc == 0 ? 0 : RW_EIO, false);
    (void)shared_result(&w, false, rc, "a cursor of its own");
}

static void shared_add(client *c)
{
    uint32_t number = (uint32_t)client_draw(c, SHARED_COUNTERS);
    shared_counter *counter = &shared_of(c)->counters[number];
    unsigned flags = client_draw_flags(c);
    int64_t sum = 0;
    uint64_t before = counter->acked;
    if (counter->begun + 1 == counter->capacity) return;
    counter->begun++;
    int rc = rw_add(c->run->db, RW_DEFAULT_BUCKET, shared_key_for(c, c->run->plan.shared_keys + number), 1, &sum, flags);
    if (!crash_result(c->run, rc, "add")) return;
    bool right = sum > (int64_t)before && sum <= (int64_t)counter->begun && counter->returned[sum] == 0;
    if (!right) {
        crash_fail("counter %u: rw_add returned %lld after %llu, %llu were begun", number, (long long)sum, (unsigned long long)before,
                   (unsigned long long)counter->begun);
    }
    counter->returned[sum] = 1;
    counter->acked = RW_MAX(counter->acked, (uint64_t)sum);
    if (flags == RW_SYNC) counter->durable = RW_MAX(counter->durable, (uint64_t)sum);
}

void client_shared(client *c)
{
    shared_work alone = {.c = c, .mode = HISTORY_SINGLE};
    uint64_t choice = client_draw(c, 100);
    if (c->run->plan.crowded && client_draw(c, 4) != 0) {
        if (choice < 40) shared_gets(c);
        else if (choice < 55) shared_put(c);
        else if (choice < 85) shared_batch(c);
        else shared_scan_alone(c);
        return;
    }
    if (choice < 44) shared_transaction(c);
    else if (choice < 52) shared_run(c);
    else if (choice < 68) shared_gets(c);
    else if (choice < 78) shared_put(c);
    else if (choice < 84) shared_cas(c);
    else if (choice < 91) shared_batch(c);
    else if (choice < 95) shared_scan_alone(c);
    else if (choice < 99) shared_add(c);
    else (void)crash_result(c->run, shared_read_counter(&alone), "get of a counter");
}
