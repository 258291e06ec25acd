#include "tests/isolation/made.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/prng.h"

#define ACCESSES_MAX 24u
#define OPS_MAX 64u
#define NOBODY UINT32_MAX

/* A version as the model keeps it. moment: of its commit. */
typedef struct {
    uint32_t version;
    uint64_t moment;
    bool deleted;
} kept;

typedef struct {
    kept *versions;              /* oldest first */
    size_t count, room;
    uint32_t readers;            /* clients that hold it shared, a bit each */
    uint32_t writer;             /* the client that holds it exclusively */
} cell;

typedef struct {
    uint32_t key, version;
    bool deleted, claim, absent; /* absent: of reads */
} access;

typedef enum { IDLE, BEGINNING, BEGUN, COMMITTING, COMMITTED } phase;

typedef struct {
    phase phase;
    history_txn *txn;
    history_mode mode;
    uint64_t snapshot;
    uint32_t ops_left;
    access reads[ACCESSES_MAX], writes[ACCESSES_MAX];
    uint32_t read_count, write_count, undone_count;
    access undone[ACCESSES_MAX];
    uint32_t applied;            /* of its writes, when it commits in halves */
    bool aborts, halves;
} client;

typedef struct {
    const made_options *options;
    history *h;
    prng random;
    cell *cells;
    client *clients;
    uint64_t clock, moment;
    uint64_t faults;
} made;

const char *made_fault_text(made_fault fault)
{
    static const char *const texts[MADE_FAULTS] = {
#define MADE_FAULT_TEXT(name, text) text,
        MADE_FAULT_MAP(MADE_FAULT_TEXT)
#undef MADE_FAULT_TEXT
    };
    return texts[fault];
}

/* Whether to do this wrong now. */
static bool wrong(made *m, made_fault fault)
{
    if (m->options->fault != fault || prng_below(&m->random, m->options->fault_one_in) != 0) return false;
    m->faults++;
    return true;
}

static uint32_t strand_of(const made *m, const client *self)
{
    return (uint32_t)(self - m->clients);
}

static const kept *newest(const cell *at)
{
    return at->count > 0 ? &at->versions[at->count - 1] : NULL;
}

static const kept *visible(made *m, client *self, const cell *at)
{
    size_t n = at->count;
    if (self->mode != HISTORY_PESSIMISTIC && self->mode != HISTORY_SINGLE && !(n > 0 && wrong(m, MADE_READS_NEWEST)))
        while (n > 0 && at->versions[n - 1].moment > self->snapshot) n--;
    if (n > 1 && wrong(m, MADE_READS_OLD)) n--;
    return n > 0 ? &at->versions[n - 1] : NULL;
}

/* Locks are held in the model by all that write, at their commit, and by pessimistic transactions from the first access on. */
static bool lock_free(const made *m, const client *self, uint32_t key, bool exclusive)
{
    const cell *at = &m->cells[key];
    uint32_t own = strand_of(m, self);
    if (at->writer != NOBODY && at->writer != own) return false;
    return !exclusive || (at->readers & ~(1u << own)) == 0;
}

static bool lock_take(made *m, client *self, uint32_t key, bool exclusive)
{
    if (self->mode != HISTORY_PESSIMISTIC) return true;
    if (wrong(m, exclusive ? MADE_EXCLUSIVE_UNLOCKED : MADE_SHARED_UNLOCKED)) return true;
    if (!lock_free(m, self, key, exclusive)) return false;
    if (exclusive) m->cells[key].writer = strand_of(m, self);
    else m->cells[key].readers |= 1u << strand_of(m, self);
    return true;
}

static void locks_drop(made *m, const client *self)
{
    uint32_t own = strand_of(m, self);
    for (uint32_t key = 0; key < m->options->keys; key++) {
        if (m->cells[key].writer == own) m->cells[key].writer = NOBODY;
        m->cells[key].readers &= ~(1u << own);
    }
}

static access *own_write(client *self, uint32_t key)
{
    for (uint32_t i = self->write_count; i-- > 0;)
        if (self->writes[i].key == key) return &self->writes[i];
    return NULL;
}

/* Somebody's write that is not committed. */
static const access *dirty_write(made *m, const client *self, uint32_t key)
{
    for (uint32_t i = 0; i < m->options->clients; i++) {
        client *other = &m->clients[i];
        if (other != self && other->phase == BEGUN && other->mode != HISTORY_SINGLE) {
            const access *write = own_write(other, key);
            if (write != NULL && !write->deleted) return write;
        }
    }
    return NULL;
}

static bool read_key(made *m, client *self, uint32_t key, unsigned flags)
{
    const access *own = own_write(self, key), *dirty;
    if (!lock_take(m, self, key, flags & HISTORY_CLAIM)) return false;
    if (own != NULL && !wrong(m, MADE_OWN_UNSEEN)) {
        history_read(m->h, strand_of(m, self), key, own->deleted ? HISTORY_ABSENT : own->version, flags);
        return true;
    }
    if (m->options->fault == MADE_READS_DIRTY && own == NULL && (dirty = dirty_write(m, self, key)) != NULL && wrong(m, MADE_READS_DIRTY)) {
        history_read(m->h, strand_of(m, self), key, dirty->version, flags);
        return true;
    }
    const kept *seen = visible(m, self, &m->cells[key]);
    bool absent = seen == NULL || seen->deleted;
    history_read(m->h, strand_of(m, self), key, absent ? HISTORY_ABSENT : seen->version, flags);
    self->reads[self->read_count++] = (access){key, absent ? 0 : seen->version, false, flags & HISTORY_CLAIM, absent};
    return true;
}

static bool sees_absent(made *m, client *self, uint32_t key)
{
    const access *own = own_write(self, key);
    const kept *seen = visible(m, self, &m->cells[key]);
    return own != NULL ? own->deleted : seen == NULL || seen->deleted;
}

static bool write_key(made *m, client *self, uint32_t key, bool deleted)
{
    if (!lock_take(m, self, key, true)) return false;
    if (deleted && sees_absent(m, self, key)) return true;
    uint32_t version = history_write(m->h, strand_of(m, self), deleted ? HISTORY_DELETE : HISTORY_WRITE, key, HISTORY_BLIND, 0);
    self->writes[self->write_count++] = (access){key, version, deleted, false, false};
    return true;
}

static void savepoint_undo(made *m, client *self, uint32_t writes, uint32_t ops)
{
    while (self->write_count > writes) self->undone[self->undone_count++] = self->writes[--self->write_count];
    history_rollback(m->h, strand_of(m, self), ops);
}

/* A read and a write of it; blind, a write only. */
static bool update_key(made *m, client *self, uint32_t key, bool blind)
{
    unsigned flags = prng_below(&m->random, 4) == 0 ? HISTORY_CLAIM : 0;
    if (!blind && !read_key(m, self, key, flags)) return false;
    return write_key(m, self, key, key % 4 == 3 && !blind && prng_below(&m->random, 2) == 0);
}

static bool access_any(made *m, client *self)
{
    uint32_t key = (uint32_t)prng_below(&m->random, m->options->keys);
    uint64_t draw = self->mode == HISTORY_READONLY ? prng_below(&m->random, 50) : prng_below(&m->random, 100);
    if (self->read_count + 4 > ACCESSES_MAX || self->write_count + self->undone_count + 2 > ACCESSES_MAX) return true;
    if (draw < 40) return read_key(m, self, key, self->mode != HISTORY_READONLY && draw < 10 ? HISTORY_CLAIM : 0);
    if (draw < 50) {
        for (uint32_t i = 0; i < 3; i++)
            if (!read_key(m, self, (key + i) % m->options->keys, HISTORY_BY_SCAN)) return false;
        return true;
    }
    uint32_t writes = self->write_count, ops = self->txn->op_count;
    if (!update_key(m, self, key, draw >= 90)) return false;
    if (prng_below(&m->random, 16) == 0) savepoint_undo(m, self, writes, ops);
    return true;
}

static bool changed(const made *m, const client *self, uint32_t key)
{
    const kept *last = newest(&m->cells[key]);
    return last != NULL && last->moment > self->snapshot;
}

/* Whether the commit may be: what the mode asks for, and no lock of others. */
static bool commit_allowed(made *m, client *self)
{
    bool optimistic = self->mode == HISTORY_SNAPSHOT || self->mode == HISTORY_SERIALIZABLE;
    for (uint32_t i = 0; i < self->write_count; i++) {
        uint32_t key = self->writes[i].key;
        if (!lock_free(m, self, key, true)) return false;
        if (optimistic && changed(m, self, key) && !wrong(m, MADE_WRITES_UNCHECKED)) return false;
    }
    for (uint32_t i = 0; i < self->read_count && self->write_count > 0 && optimistic; i++) {
        const access *read = &self->reads[i];
        if (!changed(m, self, read->key) || (self->mode == HISTORY_SNAPSHOT && !read->claim)) continue;
        made_fault fault = read->claim ? MADE_CLAIMS_UNCHECKED : read->absent ? MADE_ABSENT_UNCHECKED : MADE_READS_UNCHECKED;
        if (!wrong(m, fault)) return false;
    }
    return true;
}

static void apply(made *m, const access *write)
{
    cell *at = &m->cells[write->key];
    if (at->count == at->room) {
        at->room = at->room * 2 + 16;
        at->versions = realloc(at->versions, at->room * sizeof(*at->versions));
        if (at->versions == NULL) abort();
    }
    at->versions[at->count++] = (kept){write->version, m->moment, write->deleted};
}

static void apply_last_of_keys(made *m, client *self)
{
    for (uint32_t i = 0; i < self->write_count; i++) {
        const access *write = &self->writes[i];
        if (own_write(self, write->key) != write) continue;
        const kept *last = newest(&m->cells[write->key]);
        bool is_void = write->deleted && (last == NULL || last->deleted);
        if (!is_void && !(self->write_count > 1 && wrong(m, MADE_COMMIT_LOSES))) apply(m, write);
    }
}

static void commit_moment(made *m, client *self)
{
    self->aborts = self->aborts || (!self->halves && !commit_allowed(m, self));
    if (self->aborts && !(self->write_count > 0 && wrong(m, MADE_ABORT_APPLIES))) return;
    m->moment++;
    if (!self->halves && self->write_count > 1 && self->mode != HISTORY_PESSIMISTIC && wrong(m, MADE_COMMIT_IN_HALVES)) self->halves = true;
    if (self->halves) {
        const access *write = &self->writes[self->applied++];
        if (own_write(self, write->key) == write) apply(m, write);
        return;
    }
    apply_last_of_keys(m, self);
    if (self->undone_count > 0 && wrong(m, MADE_ROLLBACK_APPLIES)) apply(m, &self->undone[0]);
}

static history_mode draw_mode(made *m)
{
    uint64_t draw = prng_below(&m->random, 100);
    if (draw < 10) return HISTORY_READONLY;
    if (draw < 25) return HISTORY_SINGLE;
    return m->options->mode == MADE_MIXED ? (history_mode)(draw % 3) : (history_mode)m->options->mode;
}

static void txn_begin(made *m, client *self)
{
    history_mode mode = draw_mode(m);
    *self = (client){.phase = BEGINNING, .mode = mode, .txn = history_begin(m->h, strand_of(m, self), mode)};
    self->txn->begin_from = ++m->clock;
    self->ops_left = 1 + (uint32_t)prng_below(&m->random, 5);
    self->aborts = prng_below(&m->random, 20) == 0 && mode != HISTORY_SINGLE;
}

/* A single call reads or writes one key, at its one moment. */
static void single_moment(made *m, client *self)
{
    uint32_t key = (uint32_t)prng_below(&m->random, m->options->keys);
    self->snapshot = m->moment;
    if (prng_below(&m->random, 2) == 0) read_key(m, self, key, 0);
    else if (lock_free(m, self, key, true)) update_key(m, self, key, prng_below(&m->random, 2) == 0);
    commit_moment(m, self);
}

static void txn_end(made *m, client *self)
{
    history_txn *txn = self->txn;
    txn->commit_to = ++m->clock;
    if (self->mode == HISTORY_SINGLE) {
        txn->commit_from = txn->begin_from;
        txn->begin_to = txn->commit_to;
    }
    history_end(m->h, strand_of(m, self), self->aborts ? HISTORY_ABORTED : HISTORY_COMMITTED);
    if (self->mode == HISTORY_PESSIMISTIC) locks_drop(m, self);
    self->phase = IDLE;
}

static void snapshot_moment(made *m, client *self)
{
    self->snapshot = m->moment;
    if (m->moment > 20 && wrong(m, MADE_SNAPSHOT_OLD)) self->snapshot -= 1 + prng_below(&m->random, 20);
    if (!wrong(m, MADE_SNAPSHOT_NEW)) self->txn->begin_to = ++m->clock;
    else {
        self->txn->begin_to = ++m->clock;
        self->snapshot = m->moment + 5;
    }
}

static void step(made *m, client *self)
{
    switch (self->phase) {
    case IDLE: txn_begin(m, self); return;
    case BEGINNING:
        self->phase = self->mode == HISTORY_SINGLE ? COMMITTED : BEGUN;
        if (self->mode == HISTORY_SINGLE) single_moment(m, self);
        else snapshot_moment(m, self);
        return;
    case BEGUN:
        if (self->ops_left-- > 0) {
            if (access_any(m, self)) return;
            self->aborts = true;
        }
        self->txn->commit_from = ++m->clock;
        self->phase = COMMITTING;
        return;
    case COMMITTING:
        commit_moment(m, self);
        if (!self->halves || self->applied == self->write_count) self->phase = COMMITTED;
        return;
    case COMMITTED: txn_end(m, self); return;
    }
}

history *made_history(const made_options *options, uint64_t *faults)
{
    made m = {.options = options, .random = {options->seed}};
    uint32_t each = options->txns / options->clients + 1;
    m.h = history_new(options->keys, options->clients, each, each * 10 + OPS_MAX);
    m.cells = calloc(options->keys, sizeof(*m.cells));
    m.clients = calloc(options->clients, sizeof(*m.clients));
    if (m.h == NULL || m.cells == NULL || m.clients == NULL || options->clients > 32) abort();
    for (uint32_t key = 0; key < options->keys; key++) m.cells[key].writer = NOBODY;
    for (uint32_t idle = 0; idle < options->clients;) {
        client *self = &m.clients[prng_below(&m.random, options->clients)];
        if (self->phase != IDLE || history_has_room(m.h, strand_of(&m, self), 1, OPS_MAX)) {
            step(&m, self);
            continue;
        }
        idle = 0;
        for (uint32_t i = 0; i < options->clients; i++) idle += m.clients[i].phase == IDLE && !history_has_room(m.h, i, 1, OPS_MAX);
    }
    for (uint32_t key = 0; key < options->keys; key++) free(m.cells[key].versions);
    free(m.cells);
    free(m.clients);
    if (faults != NULL) *faults = m.faults;
    return m.h;
}
