#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/isolation/history_internal.h"

history_checker *history_checker_new(void)
{
    return calloc(1, sizeof(history_checker));
}

void history_checker_free(history_checker *c)
{
    if (c == NULL) return;
    pair_list *lists[] = {&c->heads, &c->absent, &c->deletes, &c->recoveries, &c->by_from, &c->by_to, &c->spare};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) free(lists[i]->pairs);
    free(c->ops);
    free(c->keys);
    free(c->txns);
    free(c->degrees);
    free(c->stack);
    free(c->barriers);
    free(c->barrier_heads);
    free(c);
}

void history_found(history_checker *c, history_anomaly anomaly, const char *format, ...)
{
    history_result *result = c->result;
    uint32_t named = c->named_count;
    c->named_count = 0;
    if (result->found++ >= HISTORY_FINDINGS_MAX) return;
    history_finding *finding = &result->findings[result->found - 1];
    finding->anomaly = anomaly;
    finding->txn_count = named;
    memcpy(finding->txns, c->named, sizeof(finding->txns));
    va_list args;
    va_start(args, format);
    vsnprintf(finding->text, sizeof(finding->text), format, args);
    va_end(args);
}

static void txn_text(const history *h, uint32_t txn, char text[96])
{
    static const char *const outcomes[] = {"open", "committed", "aborted", "unknown"};
    const history_txn *t = &h->txns[txn];
    uint32_t strand = 0;
    while (strand + 1 < h->strand_count && h->strands[strand + 1].txn_first <= txn) strand++;
    snprintf(text, 96, "T%u (strand %u, %s, %s, %llu-%llu..%llu-%llu)", txn + 1, strand, history_mode_name((history_mode)t->mode), outcomes[t->outcome],
             (unsigned long long)t->begin_from, (unsigned long long)t->begin_to, (unsigned long long)t->commit_from, (unsigned long long)t->commit_to);
}

const char *history_txn_text(history_checker *c, uint32_t txn, char text[96])
{
    if (c->named_count < HISTORY_FINDING_TXNS) c->named[c->named_count++] = txn;
    txn_text(c->h, txn, text);
    return text;
}

static void op_print(FILE *out, const char *prefix, const history *h, uint32_t i)
{
    static const char *const kinds[] = {"read", "write", "delete", "roll back to operation"};
    const history_op *op = &h->ops[i];
    char version[40];
    if (op->version == HISTORY_INITIAL) snprintf(version, sizeof(version), "the initial version");
    else if (op->version == HISTORY_ABSENT) snprintf(version, sizeof(version), "absent");
    else if (op->version == HISTORY_BLIND) snprintf(version, sizeof(version), "what it read, or blind");
    else if (op->version == HISTORY_GARBAGE) snprintf(version, sizeof(version), "what nobody wrote");
    else snprintf(version, sizeof(version), "version %u of T%u", op->version, op->version <= h->op_max ? h->ops[op->version - 1].txn + 1 : 0);
    if (op->kind == HISTORY_ROLLBACK) fprintf(out, "%s  %s %u\n", prefix, kinds[op->kind], op->version);
    else if (op->kind == HISTORY_READ)
        fprintf(out, "%s  read key %u: %s%s%s\n", prefix, op->key, version, op->flags & HISTORY_BY_SCAN ? ", by a scan" : "",
                op->flags & HISTORY_CLAIM ? ", for update" : "");
    else fprintf(out, "%s  %s key %u: version %u replaces %s\n", prefix, kinds[op->kind], op->key, i + 1, version);
}

void history_print(FILE *out, const char *prefix, const history *h, const history_finding *finding)
{
    fprintf(out, "%s%s: %s\n", prefix, history_anomaly_name(finding->anomaly), finding->text);
    for (uint32_t n = 0; n < finding->txn_count; n++) {
        const history_txn *t = &h->txns[finding->txns[n]];
        char text[96];
        txn_text(h, finding->txns[n], text);
        fprintf(out, "%s%s\n", prefix, text);
        for (uint32_t i = t->op_first; i < t->op_first + t->op_count; i++) op_print(out, prefix, h, i);
    }
}

/* The calls between which the moment lies that a node stands for. */
history_window history_node_window(const history_checker *c, uint32_t node)
{
    if (node >= 2 * c->h->txn_max) return (history_window){0, HISTORY_FOREVER};
    const history_txn *t = &c->h->txns[node / 2];
    uint64_t end = t->outcome == HISTORY_UNKNOWN ? HISTORY_FOREVER : t->commit_to;
    if (node & 1) return (history_window){t->commit_from, end};
    if (c->txns[node / 2] & TXN_SPLIT) return (history_window){t->begin_from, t->begin_to};
    switch (t->mode) {
    case HISTORY_RECOVERY: return (history_window){0, HISTORY_FOREVER};
    case HISTORY_SINGLE: return (history_window){t->begin_from, end};
    case HISTORY_PESSIMISTIC: return (history_window){t->outcome == HISTORY_ABORTED ? t->begin_from : t->commit_from, end};
    default: return (history_window){t->begin_from, t->begin_to};
    }
}

typedef void (*txn_pass_fn)(history_checker *c, uint32_t txn);

#define SLICE 64u

/* In slices of all strands in turn: those of the same time, which know each other's versions, are in the cache together. */
static void each_txn(history_checker *c, txn_pass_fn pass)
{
    uint32_t longest = 0;
    for (uint32_t s = 0; s < c->h->strand_count; s++)
        if (c->h->strands[s].txn_count > longest) longest = c->h->strands[s].txn_count;
    uint64_t slices = longest / SLICE + 1;
    for (uint64_t slice = 0; slice < slices; slice++)
        for (uint32_t s = 0; s < c->h->strand_count; s++) {
            const history_strand *strand = &c->h->strands[s];
            uint32_t from = strand->txn_first + (uint32_t)(strand->txn_count * slice / slices);
            uint32_t to = strand->txn_first + (uint32_t)(strand->txn_count * (slice + 1) / slices);
            for (uint32_t t = from; t < to; t++)
                if (c->h->txns[t].outcome != HISTORY_OPEN) pass(c, t);
        }
}

/* Whether it is the number of a write that was recorded, of this key. */
static bool version_exists(const history *h, uint32_t version, uint32_t key)
{
    if (!history_version_is_write(version) || version > h->op_max) return false;
    const history_strand *strand = &h->strands[(version - 1) / (h->op_max / h->strand_count)];
    if (version - 1 - strand->op_first >= strand->op_count) return false;
    const history_op *op = &h->ops[version - 1];
    return (op->kind == HISTORY_WRITE || op->kind == HISTORY_DELETE) && op->key == key && h->txns[op->txn].outcome != HISTORY_OPEN;
}

static void own_rollback(history_checker *c, uint32_t first, uint32_t from)
{
    for (uint32_t i = from; i-- > first;) {
        op_state *state = &c->ops[i];
        if (state->role != ROLE_FINAL && state->role != ROLE_BURIED) continue;
        state->role = ROLE_UNDONE;
        c->keys[c->h->ops[i].key].own = state->list;
        if (state->list != 0) c->ops[state->list - 1].role = ROLE_FINAL;
    }
}

static void own_write(history_checker *c, uint32_t i, key_state *key)
{
    const history_op *op = &c->h->ops[i];
    op_state *state = &c->ops[i];
    state->list = key->own;
    state->role = ROLE_FINAL;
    if (key->own != 0) {
        state->seen = c->ops[key->own - 1].seen;
        c->ops[key->own - 1].role = ROLE_BURIED;
    } else if (key->outside != HISTORY_BLIND && !(key->outside == HISTORY_ABSENT && op->version <= HISTORY_VERSION_MAX)) {
        state->seen = key->outside;          /* one that read cannot be blind: its predecessor must be what it read */
    } else {
        state->seen = op->version;
    }
    key->own = i + 1;
}

static void own_read(history_checker *c, uint32_t i, key_state *key)
{
    const history_op *op = &c->h->ops[i];
    char text[96];
    if (key->own != 0) {
        bool right = op->version == key->own || (op->version == HISTORY_ABSENT && c->h->ops[key->own - 1].kind == HISTORY_DELETE);
        if (!right)
            history_found(c, HISTORY_INTERNAL, "%s wrote version %u of key %u and then read version %u", history_txn_text(c, op->txn, text), key->own, op->key,
                          op->version);
        return;
    }
    if (op->version != HISTORY_INITIAL && op->version != HISTORY_ABSENT && !version_exists(c->h, op->version, op->key)) {
        history_found(c, HISTORY_UNWRITTEN, "%s read version %u of key %u, which nobody wrote", history_txn_text(c, op->txn, text), op->version, op->key);
        return;
    }
    c->ops[i].role = ROLE_READ;
    c->ops[i].seen = op->version;
    if (key->outside == HISTORY_BLIND || key->outside == HISTORY_ABSENT) key->outside = op->version; /* a delete's number, once told, says what was absent before */
}

/* A transaction's last write of a key is a delete. */
static void own_delete(history_checker *c, uint32_t i)
{
    const history *h = c->h;
    op_state *state = &c->ops[i];
    key_state *key = &c->keys[h->ops[i].key];
    history_outcome outcome = (history_outcome)h->txns[h->ops[i].txn].outcome;
    bool was_absent = state->seen == HISTORY_ABSENT || (state->seen == HISTORY_INITIAL && !h->initially_present[h->ops[i].key]) ||
                      (version_exists(h, state->seen, h->ops[i].key) && h->ops[state->seen - 1].kind == HISTORY_DELETE);
    if (was_absent) {
        state->role = ROLE_VOID;
        return;
    }
    if (state->seen == HISTORY_BLIND && state->list != 0) state->role = ROLE_MAYBE_VOID;
    if (outcome == HISTORY_COMMITTED && state->role == ROLE_FINAL) key->deleted = true;
    else if (outcome == HISTORY_COMMITTED || outcome == HISTORY_UNKNOWN) key->maybe_deleted = true;
}

/* First pass: what each transaction saw of others and what it left. */
static void pass_own(history_checker *c, uint32_t txn)
{
    const history *h = c->h;
    const history_txn *t = &h->txns[txn];
    uint32_t end = t->op_first + t->op_count;
    bool writes = false;
    for (uint32_t i = t->op_first; i < end; i++) {
        const history_op *op = &h->ops[i];
        key_state *key = &c->keys[op->key];
        if (op->flags & HISTORY_COUNTED) abort();
        if (key->stamp != txn + 1) {
            key->stamp = txn + 1;
            key->own = 0;
            key->outside = HISTORY_BLIND;
        }
        c->ops[i] = (op_state){.role = ROLE_NONE};
        if (op->kind == HISTORY_READ) own_read(c, i, key);
        else if (op->kind == HISTORY_ROLLBACK) own_rollback(c, t->op_first + op->version, i);
        else own_write(c, i, key);
    }
    for (uint32_t i = t->op_first; i < end; i++) {
        const history_op *op = &h->ops[i];
        if (op->kind == HISTORY_DELETE && c->ops[i].role == ROLE_FINAL) own_delete(c, i);
        if (c->ops[i].role == ROLE_FINAL) writes = true;
        if (op->kind != HISTORY_READ) c->ops[i].list = 0;
    }
    c->txns[txn] = (uint8_t)((writes ? TXN_WRITES : 0) | (t->outcome == HISTORY_COMMITTED ? TXN_VISIBLE : 0));
    if (t->mode == HISTORY_RECOVERY) pair_add(&c->recoveries, 0, txn);
    c->result->txns++;
    c->result->ops += t->op_count;
    if (t->outcome == HISTORY_COMMITTED) c->result->committed++;
}

/* What a single call reads is known by its success only. Of one whose outcome is unknown: if anybody saw what it wrote. */
static bool reads_count(const history_checker *c, uint32_t txn)
{
    const history_txn *t = &c->h->txns[txn];
    return t->mode != HISTORY_SINGLE || t->outcome != HISTORY_UNKNOWN || (c->txns[txn] & TXN_VISIBLE) != 0;
}

/* An unknown outcome was a commit if anybody saw it; then what this one saw was committed too. */
static void txn_seen(history_checker *c, uint32_t txn, size_t *depth)
{
    const history_txn *t = &c->h->txns[txn];
    for (uint32_t i = t->op_first; i < t->op_first + t->op_count; i++) {
        bool names = (c->ops[i].role == ROLE_READ && reads_count(c, txn)) || (c->ops[i].role == ROLE_FINAL && (c->txns[txn] & TXN_VISIBLE));
        if (!names || !version_exists(c->h, c->ops[i].seen, c->h->ops[i].key)) continue;
        uint32_t writer = c->h->ops[c->ops[i].seen - 1].txn;
        if (writer == txn || c->h->txns[writer].outcome != HISTORY_UNKNOWN || (c->txns[writer] & TXN_VISIBLE)) continue;
        c->txns[writer] |= TXN_VISIBLE;
        c->stack[(*depth)++] = writer;
    }
}

static void pass_visible(history_checker *c, uint32_t txn)
{
    size_t depth = 0;
    txn_seen(c, txn, &depth);
    while (depth > 0) txn_seen(c, c->stack[--depth], &depth);
}

static bool any_unknown(const history *h)
{
    for (uint32_t s = 0; s < h->strand_count; s++)
        for (uint32_t t = 0; t < h->strands[s].txn_count; t++)
            if (h->txns[h->strands[s].txn_first + t].outcome == HISTORY_UNKNOWN) return true;
    return false;
}

/* Whether the version is one that a transaction left to others. */
static bool version_sound(history_checker *c, uint32_t txn, uint32_t i)
{
    uint32_t version = c->ops[i].seen;
    char text[96], other[96];
    if (version == HISTORY_INITIAL) return true;
    if (!version_exists(c->h, version, c->h->ops[i].key)) {
        history_found(c, HISTORY_UNWRITTEN, "%s replaced version %u of key %u, which nobody wrote", history_txn_text(c, txn, text), version, c->h->ops[i].key);
        return false;
    }
    uint32_t writer = c->h->ops[version - 1].txn, role = c->ops[version - 1].role;
    history_anomaly anomaly = writer == txn ? HISTORY_INTERNAL : !(c->txns[writer] & TXN_VISIBLE) || role == ROLE_UNDONE ? HISTORY_G1A
                              : role == ROLE_BURIED ? HISTORY_G1B : HISTORY_NONE;
    if (anomaly == HISTORY_NONE) return true;
    history_found(c, anomaly, "%s saw version %u of key %u, %s %s", history_txn_text(c, txn, text), version, c->h->ops[i].key,
                  anomaly == HISTORY_G1B ? "which was overwritten inside" : "which was undone by or is still to come of", history_txn_text(c, writer, other));
    return false;
}

/* Turns what left a key absent without writing it into the version before, and ABSENT into a version where only the initial one can be meant. */
static void absent_simplify(history_checker *c, uint32_t i)
{
    const key_state *key = &c->keys[c->h->ops[i].key];
    while (version_exists(c->h, c->ops[i].seen, c->h->ops[i].key) && (c->txns[c->h->ops[c->ops[i].seen - 1].txn] & TXN_VISIBLE)) {
        const op_state *version = &c->ops[c->ops[i].seen - 1];
        if (version->role != ROLE_VOID && version->role != ROLE_MAYBE_VOID) break;
        c->ops[i].seen = version->role == ROLE_VOID ? version->seen : HISTORY_ABSENT;
    }
    if (c->ops[i].seen == HISTORY_ABSENT && !key->deleted && !key->maybe_deleted && !c->h->initially_present[c->h->ops[i].key])
        c->ops[i].seen = HISTORY_INITIAL;
}

static void chain_write(history_checker *c, uint32_t txn, uint32_t i)
{
    uint32_t seen = c->ops[i].seen, key = c->h->ops[i].key;
    if (seen == HISTORY_BLIND || seen == HISTORY_ABSENT || !version_sound(c, txn, i)) {
        pair_add(&c->heads, key, i);
        return;
    }
    uint32_t *next = version_next(c, key, seen);
    if (*next == 0) {
        *next = i + 1;
        return;
    }
    char text[96], other[96];
    history_found(c, HISTORY_LOST_UPDATE, "%s and %s both replaced version %u of key %u", history_txn_text(c, c->h->ops[*next - 1].txn, text),
                  history_txn_text(c, txn, other), seen, key);
}

static void chain_read(history_checker *c, uint32_t txn, uint32_t i)
{
    const history_op *op = &c->h->ops[i];
    char text[96];
    if (c->ops[i].seen != HISTORY_ABSENT) {
        if (!version_sound(c, txn, i)) c->ops[i].role = ROLE_NONE;
        return;
    }
    c->ops[i].role = ROLE_NONE;
    if (c->keys[op->key].maybe_deleted) c->result->unresolved++;
    else if (c->keys[op->key].deleted) pair_add(&c->absent, op->key, i);
    else history_found(c, HISTORY_UNWRITTEN, "%s found no key %u, which was there from the beginning and never deleted",
                       history_txn_text(c, txn, text), op->key);
}

/* Second pass: the chain of each key's versions, and which reads count. */
static void pass_chain(history_checker *c, uint32_t txn)
{
    const history_txn *t = &c->h->txns[txn];
    unsigned flags = c->txns[txn];
    if ((flags & TXN_VISIBLE) && (flags & TXN_WRITES)) {
        if (t->mode <= HISTORY_SERIALIZABLE) flags |= TXN_SPLIT;
        if (t->mode == HISTORY_SERIALIZABLE) flags |= TXN_READS_AT_COMMIT;
        if (t->durable && t->outcome == HISTORY_COMMITTED) flags |= TXN_DURABLE;
        c->txns[txn] = (uint8_t)flags;
    }
    for (uint32_t i = t->op_first; i < t->op_first + t->op_count; i++) {
        uint32_t role = c->ops[i].role;
        if (role != ROLE_READ && role != ROLE_FINAL) continue;
        if (role == ROLE_READ && !reads_count(c, txn)) {
            c->ops[i].role = ROLE_NONE;
            continue;
        }
        absent_simplify(c, i);
        if (role == ROLE_READ) {
            chain_read(c, txn, i);
        } else if (flags & TXN_VISIBLE) {
            chain_write(c, txn, i);
            if (c->h->ops[i].kind == HISTORY_DELETE) pair_add(&c->deletes, c->h->ops[i].key, i);
        }
    }
}

/* Third pass: who read each version, and the windows of the moments. */
static void pass_readers(history_checker *c, uint32_t txn)
{
    const history_txn *t = &c->h->txns[txn];
    for (uint32_t i = t->op_first; i < t->op_first + t->op_count; i++) {
        op_state *state = &c->ops[i];
        if ((state->role != ROLE_READ && state->role != ROLE_READ_WR) || state->seen == HISTORY_INITIAL) continue;
        op_state *version = &c->ops[state->seen - 1];
        state->list = version->list;
        version->list = i + 1;
    }
    for (uint32_t node = node_in(txn); node <= node_out(c, txn); node++) {
        history_window window = history_node_window(c, node);
        pair_add(&c->by_from, window.from, node);
        pair_add(&c->by_to, window.to, node);
    }
}

static inline void count_edge(void *arg, uint32_t to, history_edge kind, uint32_t op)
{
    history_checker *c = arg;
    (void)op;
    c->degrees[to]++;
    c->result->ww += kind == EDGE_WW;
    c->result->wr += kind == EDGE_WR;
    c->result->rw += kind == EDGE_RW || kind == EDGE_RW_RANGE;
    c->result->rw_range += kind == EDGE_RW_RANGE;
}

static void pass_degrees(history_checker *c, uint32_t txn)
{
    for (uint32_t node = node_in(txn); node <= node_out(c, txn); node++) history_edges(c, node, count_edge, c);
}

typedef struct {
    history_checker *c;
    size_t depth;
} removal;

static inline void remove_edge(void *arg, uint32_t to, history_edge kind, uint32_t op)
{
    removal *r = arg;
    (void)kind, (void)op;
    if (--r->c->degrees[to] == DEGREE_ADMITTED) r->c->stack[r->depth++] = to;
}

/*
 * Puts the moments in one order that respects all edges and windows: those without a predecessor left go, but none before the end of another moment's
 * window that ended before its own began. Returns how many are left over: those on cycles and behind them.
 */
static size_t order_moments(history_checker *c)
{
    removal r = {c, 0};
    size_t admitted = 0, ended = 0, count = c->by_from.count, done = 0;
    for (;;) {
        while (ended < count && (c->degrees[c->by_to.pairs[ended].item] & DEGREE_DONE)) ended++;
        if (ended == count) return 0;
        uint64_t limit = history_node_window(c, c->by_to.pairs[ended].item).to;
        for (; admitted < count && c->by_from.pairs[admitted].value <= limit; admitted++) {
            uint32_t node = c->by_from.pairs[admitted].item;
            c->degrees[node] |= DEGREE_ADMITTED;
            if (c->degrees[node] == DEGREE_ADMITTED) c->stack[r.depth++] = node;
        }
        if (r.depth == 0) return count - done;
        while (r.depth > 0) {
            uint32_t node = c->stack[--r.depth];
            c->degrees[node] |= DEGREE_DONE;
            done++;
            history_edges(c, node, remove_edge, &r);
        }
    }
}

static void check_order(history_checker *c)
{
    uint32_t first_barrier = 2 * c->h->txn_max, node_count = first_barrier + 2 * (uint32_t)c->barrier_count;
    c->degrees = history_grow(c->degrees, &c->degree_room, node_count, sizeof(*c->degrees));
    c->stack = history_grow(c->stack, &c->stack_room, node_count, sizeof(*c->stack));
    memset(c->degrees, 0, node_count * sizeof(*c->degrees));
    each_txn(c, pass_readers);
    for (uint32_t node = first_barrier; node < node_count; node++) {
        pair_add(&c->by_from, 0, node);
        pair_add(&c->by_to, HISTORY_FOREVER, node);
        history_edges(c, node, count_edge, c);
    }
    each_txn(c, pass_degrees);
    pairs_sort(&c->by_from, &c->spare);
    pairs_sort(&c->by_to, &c->spare);
    if (order_moments(c) != 0) history_name_cycles(c, node_count);
}

bool history_check(history_checker *c, const history *h, history_result *result)
{
    memset(result, 0, sizeof(*result));
    if (h->op_max >= BARRIER || h->txn_max >= BARRIER / 4) abort();
    c->h = h;
    c->result = result;
    c->ops = history_grow(c->ops, &c->op_room, h->op_max, sizeof(*c->ops));
    c->keys = history_grow(c->keys, &c->key_room, h->keys, sizeof(*c->keys));
    c->txns = history_grow(c->txns, &c->txn_room, h->txn_max, sizeof(*c->txns));
    c->stack = history_grow(c->stack, &c->stack_room, h->txn_max, sizeof(*c->stack));
    memset(c->keys, 0, h->keys * sizeof(*c->keys));
    c->heads.count = c->absent.count = c->deletes.count = c->recoveries.count = c->by_from.count = c->by_to.count = 0;
    c->barrier_count = c->barrier_head_count = 0;
    c->named_count = 0;
    each_txn(c, pass_own);
    if (any_unknown(h)) each_txn(c, pass_visible);
    each_txn(c, pass_chain);
    history_order_chains(c);
    history_resolve_absent(c);
    check_order(c);
    return result->found == 0;
}
