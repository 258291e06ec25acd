#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/isolation/workload_internal.h"

bool workload_failed(worker *self, const char *what, int code)
{
    if (self->failure[0] == 0)
        snprintf(self->failure, sizeof(self->failure), "%s: %d (%s): %s", what, code, rw_strerror(code), code < 0 ? rw_last_error(NULL) : "");
    atomic_store(&self->w->failed, true);
    return false;
}

/* Of the strand's transaction. */
uint32_t calls_recorded(const worker *self)
{
    const history *h = self->w->h;
    const history_strand *strand = &h->strands[self->strand];
    return h->txns[strand->txn_first + strand->txn_count - 1].op_count;
}

/* Other threads get their turn inside transactions too, or two cores would see little of each other. */
static void let_others_run(worker *self)
{
    if (prng_below(&self->random, 8) == 0) sched_yield();
}

key_view *call_view(worker *self, uint32_t key)
{
    key_view *view = &self->views[key];
    if (view->stamp != self->stamp) *view = (key_view){.stamp = self->stamp};
    return view;
}

/* The version of a counter's number, if this transaction wrote it; else the number, to be looked up when all are known. */
static uint32_t counter_version(const worker *self, uint32_t key, int64_t count, unsigned *flags)
{
    for (uint32_t i = self->counter_write_count; i-- > 0;) {
        const counter_write *write = &self->counter_writes[i];
        if (write->key == key && write->count == count) return write->version;
    }
    *flags |= HISTORY_COUNTED;
    return (uint32_t)count;
}

/* Records what a read of a key returned. */
static void record_read(worker *self, uint32_t key, bool present, const void *value, size_t size, unsigned flags)
{
    key_view *view = call_view(self, key);
    value_head head;
    uint32_t version = HISTORY_ABSENT;
    view->present = present;
    view->known = view->known || !view->touched;
    view->count = 0;
    if (present) {
        version = workload_value_version(self->w, key, value, size, &head, &view->count);
        if (workload_key_kind(key) == KEY_COUNTER && version != HISTORY_GARBAGE) version = counter_version(self, key, view->count, &flags);
        if (version == HISTORY_GARBAGE && self->failure[0] == 0)
            snprintf(self->failure, sizeof(self->failure), "key %u: a value of %zu bytes that is torn, or none of its own", key, size);
    }
    history_read(self->w->h, self->strand, key, version, flags);
}

static int get_raw(worker *self, uint32_t key, bool for_update, size_t *size)
{
    char text[16];
    rw_slice name = workload_key(self->w, key, text);
    rw_bucket bucket = workload_key_bucket(self->w, key);
    *size = sizeof(self->value);
    if (self->txn == NULL) return rw_get(self->w->db, bucket, name, self->value, size);
    return for_update ? rw_txn_get_for_update(self->txn, bucket, name, self->value, size) : rw_txn_get(self->txn, bucket, name, self->value, size);
}

/*
 * An absent key whose witness tells by which version it is absent. A witness that says that it is there contradicts what was read, whatever version
 * the absent key is taken to be.
 */
static int ask_witness(worker *self, uint32_t key, uint32_t op)
{
    key_view *witness = call_view(self, key + 1);
    size_t size;
    value_head head;
    int64_t count;
    if (witness->touched || call_view(self, key)->touched) return 0;
    int code = get_raw(self, key + 1, false, &size);
    if (code != 0 && code != RW_ENOTFOUND) return code;
    record_read(self, key + 1, code == 0, self->value, size, 0);
    history *h = self->w->h;
    if (code != 0) h->ops[op].version = HISTORY_INITIAL;
    else if (workload_value_version(self->w, key + 1, self->value, size, &head, &count) != HISTORY_GARBAGE)
        h->ops[op].version = head.other_deleted ? head.other : HISTORY_INITIAL;
    return 0;
}

int call_get(worker *self, uint32_t key, bool for_update, bool *present)
{
    size_t size;
    let_others_run(self);
    int code = get_raw(self, key, for_update, &size);
    if (code != 0 && code != RW_ENOTFOUND) return code;
    *present = code == 0;
    record_read(self, key, *present, self->value, size, for_update ? HISTORY_CLAIM : 0);
    if (*present) {
        memcpy(self->expected, self->value, size);
        self->expected_size = size;
        return 0;
    }
    const history_strand *strand = &self->w->h->strands[self->strand];
    if (self->txn != NULL && workload_key_kind(key) == KEY_WITNESSED && prng_below(&self->random, 2) == 0)
        return ask_witness(self, key, strand->op_first + strand->op_count - 1);
    return 0;
}

/* Puts a new version, or for a counter the next number after what was read. */
int call_put(worker *self, uint32_t key, uint32_t other, bool other_deleted, uint32_t *version)
{
    char text[16];
    key_view *view = call_view(self, key);
    uint32_t kept = calls_recorded(self);
    size_t size = 8;
    int64_t count = view->count + 1;
    let_others_run(self);
    *version = history_write(self->w->h, self->strand, HISTORY_WRITE, key, HISTORY_BLIND, 0);
    if (workload_key_kind(key) == KEY_COUNTER) memcpy(self->value, &count, 8);
    else size = workload_value(self, key, *version, other, other_deleted);
    rw_slice name = workload_key(self->w, key, text), value = {self->value, size};
    rw_bucket bucket = workload_key_bucket(self->w, key);
    int code = self->txn != NULL ? rw_txn_put(self->txn, bucket, name, value) : rw_put(self->w->db, bucket, name, value, RW_ASYNC);
    view->touched = true;
    if (code != 0) {
        history_rollback(self->w->h, self->strand, kept);
        return code;
    }
    view->present = true;
    if (workload_key_kind(key) != KEY_COUNTER) return 0;
    view->count = count;
    self->counter_writes[self->counter_write_count++] = (counter_write){key, *version, count};
    return 0;
}

/* RW_ENOTFOUND is recorded as a read. */
int call_del(worker *self, uint32_t key, uint32_t *version)
{
    char text[16];
    key_view *view = call_view(self, key);
    uint32_t kept = calls_recorded(self);
    let_others_run(self);
    *version = history_write(self->w->h, self->strand, HISTORY_DELETE, key, HISTORY_BLIND, 0);
    rw_slice name = workload_key(self->w, key, text);
    rw_bucket bucket = workload_key_bucket(self->w, key);
    int code = self->txn != NULL ? rw_txn_del(self->txn, bucket, name) : rw_del(self->w->db, bucket, name, RW_ASYNC);
    view->touched = true;
    if (code != 0) history_rollback(self->w->h, self->strand, kept);
    if (code == RW_ENOTFOUND) history_read(self->w->h, self->strand, key, HISTORY_ABSENT, 0);
    if (code == 0 || code == RW_ENOTFOUND) view->present = false;
    return code;
}

typedef struct {
    rw_cursor *cursor;
    rw_bucket bucket;
    uint32_t position, count;
    bool backwards;
    uint64_t seen;               /* positions met, a bit each */
} scan;

static int scan_start(worker *self, scan *s)
{
    char text[16];
    uint32_t at = s->backwards ? s->position + s->count - 1 : s->position;
    rw_slice name = workload_key(self->w, workload_key_at(self->w, s->bucket, at), text), found;
    int code = rw_cursor_seek(s->cursor, name);
    if (!s->backwards) return code;
    if (code == RW_ENOTFOUND) return rw_cursor_last(s->cursor);
    if (code != 0 || (code = rw_cursor_key(s->cursor, &found)) != 0) return code;
    bool same = found.size == name.size && memcmp(found.data, name.data, name.size) == 0;
    return same ? 0 : rw_cursor_prev(s->cursor);
}

/* Records the record that the cursor stands on; RW_ENOTFOUND when it lies beyond the range. */
static int scan_record(worker *self, scan *s)
{
    rw_slice name, value;
    uint32_t key, position;
    char copy[32];
    int code = rw_cursor_key(s->cursor, &name);
    if (code != 0) return code;
    snprintf(copy, sizeof(copy), "%.*s", (int)(name.size < 20 ? name.size : 20), (const char *)name.data);
    if ((code = rw_cursor_value(s->cursor, &value)) != 0) return code;
    if (!workload_key_parse(self->w, s->bucket, (rw_slice){copy, strlen(copy)}, &key)) {
        if (self->failure[0] == 0) snprintf(self->failure, sizeof(self->failure), "a scan met a key that nobody wrote: %s", copy);
        return RW_ECORRUPT;
    }
    uint32_t number = (uint32_t)strtoul(copy + (s->bucket == self->w->dense ? 3 : 0), NULL, 10);
    uint32_t low = s->bucket == self->w->dense ? s->position : s->position * self->w->spacing;
    uint32_t high = s->bucket == self->w->dense ? s->position + s->count - 1 : (s->position + s->count - 1) * self->w->spacing;
    if (number < low || number > high) return RW_ENOTFOUND;
    if (key == UINT32_MAX) {
        if (workload_filler_sound(number, value.data, value.size)) return 0;
        if (self->failure[0] == 0) snprintf(self->failure, sizeof(self->failure), "a scan met damaged filler, number %u", number);
        return RW_ECORRUPT;
    }
    position = workload_position(key);
    uint64_t bit = UINT64_C(1) << (position - s->position);
    if (s->seen & bit) {
        if (self->failure[0] == 0) snprintf(self->failure, sizeof(self->failure), "a scan met key %u twice", key);
        return RW_ECORRUPT;
    }
    s->seen |= bit;
    record_read(self, key, true, value.data, value.size, HISTORY_BY_SCAN);
    return 0;
}

/* Reads count keys (at most 64) in one go; those that are not met are read as absent. Without a transaction: of the cursor's own moment. */
int call_scan(worker *self, rw_bucket bucket, uint32_t position, uint32_t count, bool backwards)
{
    scan s = {NULL, bucket, position, count, backwards, 0};
    let_others_run(self);
    int code = rw_cursor_open(self->w->db, self->txn, bucket, &s.cursor);
    if (code != 0) return code;
    if (self->txn == NULL) {                 /* its moment is over */
        history_strand *strand = &self->w->h->strands[self->strand];
        self->w->h->txns[strand->txn_first + strand->txn_count - 1].begin_to = workload_tick(self->w);
    }
    code = scan_start(self, &s);
    while (code == 0 && (code = scan_record(self, &s)) == 0) {
        let_others_run(self);
        code = backwards ? rw_cursor_prev(s.cursor) : rw_cursor_next(s.cursor);
    }
    rw_cursor_close(s.cursor);
    if (code != RW_ENOTFOUND) return code;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = workload_key_at(self->w, bucket, position + i);
        if (!(s.seen & UINT64_C(1) << i)) record_read(self, key, false, NULL, 0, HISTORY_BY_SCAN);
    }
    return 0;
}
