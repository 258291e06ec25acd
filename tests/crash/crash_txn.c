/* What clients do with the keys that they share: transactions of all modes, each recorded. */
#include "tests/crash/crash_txn.h"

#define OWN_WRITES_MANY 80u      /* enough for a commit that keeps what it replaces for readers */

/* Others get their turn between any two calls, and now and then for long: snapshots grow old, locks are waited for. */
void shared_let_others_run(client *c)
{
    if (client_draw(c, 4) == 0) kio_yield(c->run->k);
    if (client_draw(c, 60) == 0) client_pause(c, 30);
}

rw_bucket shared_bucket_for(const client *c, crash_bucket bucket)
{
    return bucket == CRASH_DEFAULT ? RW_DEFAULT_BUCKET : c->run->second;
}

rw_slice shared_key_for(client *c, uint32_t key)
{
    return shared_key(&c->run->plan, key, c->key);
}

/* Half of all go to the first few. */
uint32_t shared_draw_key(client *c)
{
    const crash_plan *plan = &c->run->plan;
    return (uint32_t)client_draw(c, client_draw(c, 2) == 0 ? plan->crowded ? 2 : 8 : plan->shared_keys);
}

static uint32_t ops_recorded(const client *c)
{
    return shared_current(shared_of(c), strand_of(c))->op_count;
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

void shared_record_read(client *c, uint32_t key, int rc, rw_slice value, unsigned flags)
{
    uint32_t version = HISTORY_ABSENT;
    if (rc == 0) version = shared_value_version(&c->run->plan, key, value, c->scratch);
    if (version == HISTORY_GARBAGE) crash_fail("shared key %u: a value that was never written, or is torn, %zu bytes", key, value.size);
    history_read(shared_of(c)->h, strand_of(c), key, version, flags);
}

int shared_get(shared_work *w, uint32_t key, bool for_update)
{
    client *c = w->c;
    rw_bucket bucket = shared_bucket_for(c, shared_key_bucket(key));
    if (!w->hurries) shared_let_others_run(c);
    w->size = c->run->plan.value_max;
    int rc = w->txn == NULL ? rw_get(c->run->db, bucket, shared_key_for(c, key), c->value, &w->size)
             : for_update   ? rw_txn_get_for_update(w->txn, bucket, shared_key_for(c, key), c->value, &w->size)
                            : rw_txn_get(w->txn, bucket, shared_key_for(c, key), c->value, &w->size);
    if (rc != 0 && rc != RW_ENOTFOUND) return rc;
    shared_record_read(c, key, rc, rw_slice_of(c->value, w->size), for_update ? HISTORY_CLAIM : 0);
    return 0;
}

/* The write is recorded before it is made: its value names it. */
rw_slice shared_value_for(client *c, uint32_t key, uint32_t *version)
{
    *version = history_write(shared_of(c)->h, strand_of(c), HISTORY_WRITE, key, HISTORY_BLIND, 0);
    return shared_value(&c->run->plan, key, *version, c->value);
}

static int do_put(shared_work *w, uint32_t key)
{
    client *c = w->c;
    uint32_t version, kept = ops_recorded(c);
    shared_let_others_run(c);
    rw_slice value = shared_value_for(c, key, &version);
    int rc = rw_txn_put(w->txn, shared_bucket_for(c, shared_key_bucket(key)), shared_key_for(c, key), value);
    if (rc != 0) history_rollback(shared_of(c)->h, strand_of(c), kept);
    return rc;
}

static int do_delete(shared_work *w, uint32_t key)
{
    client *c = w->c;
    crash_shared *s = shared_of(c);
    uint32_t kept = ops_recorded(c);
    shared_let_others_run(c);
    history_write(s->h, strand_of(c), HISTORY_DELETE, key, HISTORY_BLIND, 0);
    int rc = rw_txn_del(w->txn, shared_bucket_for(c, shared_key_bucket(key)), shared_key_for(c, key));
    if (rc != 0) history_rollback(s->h, strand_of(c), kept);
    if (rc != RW_ENOTFOUND) return rc;
    history_read(s->h, strand_of(c), key, HISTORY_ABSENT, 0);
    return 0;
}

static int do_write(shared_work *w, uint32_t key)
{
    if (shared_key_is_deleted(key) && client_draw(w->c, 2) == 0) return do_delete(w, key);
    return do_put(w, key);
}

/* Reads the key, and mostly writes it; sometimes another one, which only serializability keeps in step. */
static int do_update(shared_work *w)
{
    uint32_t key = shared_draw_key(w->c);
    int rc = shared_get(w, key, client_draw(w->c, 3) == 0);
    if (rc == 0) rc = do_write(w, client_draw(w->c, 3) == 0 ? key ^ 1 : key);
    return rc;
}

/* ---- scans ------------------------------------------------------------------------------------------------------- */

typedef struct {
    crash_bucket bucket;
    uint32_t place, count;
    bool backwards;
    uint64_t seen;               /* places met, a bit each */
} scan;

static bool scan_holds(client *c, const scan *s, rw_slice name)
{
    uint32_t end = s->backwards ? s->place : s->place + s->count - 1;
    int order = rw_slice_compare(name, shared_key_for(c, shared_key_at(s->bucket, end)));
    return s->backwards ? order >= 0 : order <= 0;
}

static int scan_start(client *c, rw_cursor *cursor, const scan *s)
{
    uint32_t start = s->backwards ? s->place + s->count - 1 : s->place;
    rw_slice from = shared_key(&c->run->plan, shared_key_at(s->bucket, start), c->other_key), found;
    int rc = rw_cursor_seek(cursor, from);
    if (!s->backwards) return rc;
    if (rc == RW_ENOTFOUND) return rw_cursor_last(cursor);
    if (rc == 0) rc = rw_cursor_key(cursor, &found);
    return rc != 0 || rw_slice_equal(found, from) ? rc : rw_cursor_prev(cursor);
}

/* RW_ENOTFOUND past the range. Slots that lie between are passed over. */
static int scan_record(client *c, rw_cursor *cursor, scan *s)
{
    rw_slice name, value;
    uint32_t key;
    int rc = rw_cursor_key(cursor, &name);
    if (rc != 0) return rc;
    if (!scan_holds(c, s, name)) return RW_ENOTFOUND;
    if (!shared_key_parse(&c->run->plan, name, s->bucket, c->key, &key) || key >= c->run->plan.shared_keys) return 0;
    uint64_t bit = (uint64_t)1 << (shared_key_place(key) - s->place);
    if ((s->seen & bit) != 0) crash_fail("a scan meets shared key %u twice", key);
    s->seen |= bit;
    rc = rw_cursor_value(cursor, &value);
    if (rc == 0) shared_record_read(c, key, 0, value, HISTORY_BY_SCAN);
    return rc;
}

static scan draw_scan(client *c)
{
    scan s = {.bucket = client_draw(c, 2) == 0 ? CRASH_DEFAULT : CRASH_SECOND, .backwards = client_draw(c, 2) == 0};
    uint32_t places = c->run->plan.shared_keys / 2, place = shared_key_place(shared_draw_key(c));
    s.count = 1 + (uint32_t)client_draw(c, 4);
    s.place = RW_MIN(place, places - s.count);
    return s;
}

/* All places of a range in one go; those not met are read as absent. */
int shared_scan(shared_work *w)
{
    client *c = w->c;
    rw_cursor *cursor;
    scan s = draw_scan(c);
    shared_let_others_run(c);
    int rc = rw_cursor_open(c->run->db, w->txn, shared_bucket_for(c, s.bucket), &cursor);
    if (rc != 0) return rc;
    if (w->txn == NULL) shared_current(shared_of(c), strand_of(c))->begin_to = shared_tick(shared_of(c));   /* its moment is over */
    rc = scan_start(c, cursor, &s);
    while (rc == 0 && (rc = scan_record(c, cursor, &s)) == 0) {
        if (client_draw(c, 8) == 0) kio_yield(c->run->k);
        rc = s.backwards ? rw_cursor_prev(cursor) : rw_cursor_next(cursor);
    }
    rw_cursor_close(cursor);
    if (rc != RW_ENOTFOUND) return rc;
    for (uint32_t i = 0; i < s.count; i++)
        if ((s.seen & (uint64_t)1 << i) == 0) shared_record_read(c, shared_key_at(s.bucket, s.place + i), RW_ENOTFOUND, rw_slice_of("", 0), HISTORY_BY_SCAN);
    return 0;
}

/* ---- counters ---------------------------------------------------------------------------------------------------- */

static int counter_get(shared_work *w, uint32_t number, uint64_t *sum)
{
    client *c = w->c;
    uint64_t value = 0;
    size_t size = sizeof value;
    rw_slice key = shared_key_for(c, c->run->plan.shared_keys + number);
    int rc = w->txn == NULL ? rw_get(c->run->db, RW_DEFAULT_BUCKET, key, &value, &size) : rw_txn_get(w->txn, RW_DEFAULT_BUCKET, key, &value, &size);
    *sum = rc == 0 ? value : 0;
    return rc == RW_ENOTFOUND ? 0 : rc;
}

/* In a transaction twice, and nothing may have changed; outside no less than what was acknowledged, and no more than was begun. */
int shared_read_counter(shared_work *w)
{
    client *c = w->c;
    uint32_t number = (uint32_t)client_draw(c, SHARED_COUNTERS);
    const shared_counter *counter = &shared_of(c)->counters[number];
    uint64_t sum, again, least = w->txn == NULL ? counter->acked : 0;
    int rc = counter_get(w, number, &sum);
    if (rc != 0) return rc;
    if (sum < least || sum > counter->begun) {
        crash_fail("counter %u: %llu read, %llu were acknowledged before", number, (unsigned long long)sum, (unsigned long long)least);
    }
    if (w->txn == NULL) return 0;
    shared_let_others_run(c);
    rc = counter_get(w, number, &again);
    if (rc == 0 && sum != again) crash_fail("counter %u: %llu and then %llu in one transaction", number, (unsigned long long)sum, (unsigned long long)again);
    return rc;
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

static int do_savepoint(shared_work *w)
{
    client *c = w->c;
    unsigned id;
    uint32_t kept = ops_recorded(c), key = shared_draw_key(c);
    int rc = rw_txn_savepoint(w->txn, &id);
    for (uint64_t i = 1 + client_draw(c, 3); i > 0 && rc == 0; i--) {
        rc = do_write(w, key);
        if (i > 1) key = shared_draw_key(c);
    }
    if (rc != 0 || client_draw(c, 3) == 0) return rc;
    rc = rw_txn_rollback_to(w->txn, id);
    if (rc != 0) return rc;
    history_rollback(shared_of(c)->h, strand_of(c), kept);
    return shared_get(w, key, false);
}

static int do_any(shared_work *w)
{
    client *c = w->c;
    bool writes = w->mode != HISTORY_READONLY;
    uint64_t choice = client_draw(c, 100);
    if (choice < 32) return shared_get(w, shared_draw_key(c), writes && client_draw(c, 6) == 0);
    if (choice < 50) return shared_scan(w);
    if (choice < 56) return shared_read_counter(w);
    if (!writes) return shared_get(w, shared_draw_key(c), false);
    if (choice < 80) return do_update(w);
    if (choice < 92) return do_write(w, shared_draw_key(c));
    return do_savepoint(w);
}

/* What calls may return besides damage and full disks, which crash_result knows. */
static bool is_possible(history_mode mode, bool committing, int rc)
{
    switch (rc) {
    case RW_EDEADLOCK:
    case RW_ETIMEOUT: return mode == HISTORY_PESSIMISTIC ? !committing : committing && mode != HISTORY_READONLY;
    case RW_ESNAPSHOT_TOO_OLD: return mode != HISTORY_PESSIMISTIC;
    case RW_ECONFLICT: return committing && (mode == HISTORY_SNAPSHOT || mode == HISTORY_SERIALIZABLE);
    default: return false;
    }
}

bool shared_result(const shared_work *w, bool committing, int rc, const char *what)
{
    if (rc == 0 || is_possible(w->mode, committing, rc)) return rc == 0;
    if (rc == RW_ECONFLICT || rc == RW_EDEADLOCK || rc == RW_ETIMEOUT || rc == RW_ESNAPSHOT_TOO_OLD)
        crash_fail("%s in a %s transaction: %s: %s", what, history_mode_name(w->mode), rw_strerror(rc), rw_last_error(w->c->run->db));
    return crash_result(w->c->run, rc, what);
}

static int do_some(shared_work *w)
{
    int rc = 0;
    for (uint64_t i = 1 + client_draw(w->c, 5); i > 0 && rc == 0; i--) {
        rc = do_any(w);
        if (rc == RW_ETIMEOUT && w->mode == HISTORY_PESSIMISTIC && client_draw(w->c, 2) == 0) rc = 0;   /* the transaction goes on */
    }
    return rc;
}

void shared_record_end(client *c, int rc, bool durable)
{
    history_outcome outcome = rc == 0 ? HISTORY_COMMITTED : rc == RW_EUNKNOWN ? HISTORY_UNKNOWN : HISTORY_ABORTED;
    shared_end(shared_of(c), strand_of(c), outcome, sim_world_now_ns(c->run->world), durable);
}

static unsigned mode_flag(history_mode mode)
{
    static const unsigned flags[] = {RW_SNAPSHOT, RW_SERIALIZABLE, RW_PESSIMISTIC, RW_READONLY};
    return flags[mode];
}

history_mode shared_draw_mode(client *c)
{
    uint64_t choice = client_draw(c, 16);
    return choice == 0 ? HISTORY_READONLY : (history_mode)(choice % 3);
}

/* Own slots in the same transaction: the whole is one commit. */
static int own_writes(client *c, rw_txn *txn)
{
    int rc = 0;
    uint64_t writes = 1 + client_draw(c, client_draw(c, 6) == 0 ? OWN_WRITES_MANY : 6);
    for (; writes > 0 && rc == 0; writes--) {
        uint32_t slot = client_draw_slot(c);
        if (client_draw(c, 6) == 0) rc = client_txn_read(c, txn, slot);
        else rc = client_txn_write(c, txn, slot, client_draw(c, 4) == 0 ? 0 : crash_history_new_id(c->history, slot));
    }
    return rc;
}

void shared_commit_begin(client *c)
{
    shared_current(shared_of(c), strand_of(c))->commit_from = shared_tick(shared_of(c));
    shared_ending(shared_of(c), strand_of(c));
}

void shared_commit_end(shared_work *w, int rc, unsigned flags)
{
    if (rc != RW_ECANCELED && (rc != RW_EUNKNOWN || !w->c->run->faults)) (void)shared_result(w, true, rc, "txn_commit");
    shared_record_end(w->c, rc, flags == RW_SYNC);
}

static void transaction_commit(shared_work *w, bool mixed)
{
    client *c = w->c;
    unsigned flags = client_draw_flags(c);
    if (mixed) {
        client_commit_begin(c);
        c->history->commits[c->history->commit_count - 1].shared_begun = shared_current(shared_of(c), strand_of(c))->begin_from;
        client_commit_staged(c);
    }
    shared_commit_begin(c);
    int rc = rw_txn_commit(w->txn, flags);
    if (rc == RW_ECANCELED) crash_fail("txn_commit: %s", rw_last_error(c->run->db));
    if (mixed) client_commit_end(c, rc, flags, "txn_commit");
    shared_commit_end(w, rc, flags);
}

bool shared_transaction_fill(shared_work *w, bool mixed)
{
    client *c = w->c;
    crash_shared *s = shared_of(c);
    history_txn *record = shared_begin(s, strand_of(c), w->mode);
    if (!shared_result(w, false, rw_txn_begin(c->run->db, mode_flag(w->mode), &w->txn), "txn_begin")) {
        shared_record_end(c, RW_EIO, false);
        return false;
    }
    record->begin_to = shared_tick(s);
    int rc = do_some(w);
    if (rc == 0 && mixed) rc = own_writes(c, w->txn);
    if (shared_result(w, false, rc, "in a transaction") && client_draw(c, 12) > 0) return true;
    record->commit_from = shared_tick(s);
    rw_txn_abort(w->txn);
    shared_record_end(c, RW_ECONFLICT, false);
    return false;
}

void shared_transaction(client *c)
{
    shared_work w = {.c = c, .mode = shared_draw_mode(c)};
    bool mixed = w.mode != HISTORY_READONLY && !c->history->is_stopped && client_draw(c, 4) == 0;
    if (shared_transaction_fill(&w, mixed)) transaction_commit(&w, mixed);
}

#define RUN_ENOUGH 1             /* returned by a function that does not want to be run again */

/* The attempt before it, if there was one, has failed. */
static int run_attempt(rw_txn *txn, void *arg)
{
    shared_work *w = arg;
    client *c = w->c;
    if (w->is_recorded) {
        uint64_t over = shared_current(shared_of(c), strand_of(c))->commit_from;
        shared_record_end(c, RW_ECONFLICT, false);
        w->is_recorded = false;
        if (!shared_has_room(shared_of(c), strand_of(c))) return RUN_ENOUGH;
        shared_begin(shared_of(c), strand_of(c), w->mode)->begin_from = over;   /* this one has begun already, at some time since then */
    }
    history_txn *record = shared_current(shared_of(c), strand_of(c));
    w->is_recorded = true;
    w->txn = txn;
    record->begin_to = shared_tick(shared_of(c));
    int rc = do_some(w);
    record->commit_from = shared_tick(shared_of(c));
    if (rc == 0) shared_ending(shared_of(c), strand_of(c));
    return rc;
}

void shared_run(client *c)
{
    shared_work w = {.c = c, .mode = shared_draw_mode(c)};
    unsigned flags = client_draw_flags(c);
    shared_begin(shared_of(c), strand_of(c), w.mode);
    int rc = rw_txn_run(c->run->db, mode_flag(w.mode) | flags, run_attempt, &w);
    if (rc != RUN_ENOUGH && (rc != RW_EUNKNOWN || !c->run->faults)) (void)crash_result(c->run, rc, "txn_run");
    if (w.is_recorded || rc != RUN_ENOUGH) shared_record_end(c, rc, flags == RW_SYNC);
}
