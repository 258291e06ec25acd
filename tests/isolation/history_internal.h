/*
 * The check's own structures. Each transaction is one or two events of a dependency graph that is never stored: its edges are read off the operations.
 *
 * Node 2t is the moment at which transaction t read, node 2t + 1 the one at which it committed, if these differ (SPLIT: snapshot and serializable
 * transactions that wrote). All promises are orders between such moments:
 *   wr  the commit of a version before whatever read it;           ww  the commit of a version before the snapshot of what replaced it (first committer wins);
 *   rw  what read a version before the commit that replaced it: the snapshot, or, of what is validated at commit, the commit;
 *   rt  what had ended before what began;                          the snapshot of a transaction before its commit.
 * The history is sound if the moments can be put in one order. A cycle with two rw edges in a row is none here for snapshot transactions (write skew),
 * as it leaves by the snapshot and arrives at the commit, and is one for all others.
 */
#ifndef TESTS_HISTORY_INTERNAL_H
#define TESTS_HISTORY_INTERNAL_H

#include "tests/isolation/history.h"

/*
 * READ: of another's version, with all its edges. READ_WR: without its rw. FINAL: what a transaction left of a key; BURIED: what it wrote over; UNDONE: what
 * it rolled back. VOID: a delete that is left of an insert and a delete, so that nothing was written. MAYBE_VOID: one of which that cannot be told, as the
 * transaction never read what was there before.
 */
enum { ROLE_NONE, ROLE_READ, ROLE_READ_WR, ROLE_FINAL, ROLE_BURIED, ROLE_UNDONE, ROLE_VOID, ROLE_MAYBE_VOID };

typedef struct {
    uint32_t seen;           /* of a read: the version. Of a write: the version it replaced, of another transaction */
    uint32_t next;           /* of a write: the version that replaced it, a BARRIER, or 0 for none */
    uint32_t list;           /* of a write: its readers, op + 1; of a read: the next reader. In the first pass: the own write before */
    uint32_t role;
} op_state;

typedef struct {
    uint32_t stamp;          /* txn + 1 of whom own and outside are */
    uint32_t own;            /* its last write of the key, as a version; 0: none */
    uint32_t outside;        /* what it read of the key; HISTORY_BLIND: nothing */
    uint32_t first;          /* replaced the initial version */
    bool deleted;            /* by a committed transaction: an absent key may be any of its deletes */
    bool maybe_deleted;      /* by one of unknown outcome */
} key_state;

enum { TXN_VISIBLE = 1, TXN_WRITES = 2, TXN_SPLIT = 4, TXN_READS_AT_COMMIT = 8, TXN_DURABLE = 16 };

/* In op_state.next: the successor is one of several heads; the number of the barrier. */
#define BARRIER UINT32_C(0x80000000)

/* Between two groups of chains of one key whose order is known, while the order inside them is not: two nodes, one for ww and one for rw. */
typedef struct {
    uint32_t head_first, head_count;
} barrier;

typedef struct {
    uint64_t value;
    uint32_t item;
} sort_pair;

typedef struct {
    sort_pair *pairs;
    size_t count, room;
} pair_list;

struct history_checker {
    const history *h;
    history_result *result;
    uint32_t named[HISTORY_FINDING_TXNS], named_count;   /* for the next finding */
    op_state *ops;
    key_state *keys;
    uint8_t *txns;
    uint32_t *degrees;
    uint32_t *stack;
    size_t op_room, key_room, txn_room, degree_room, stack_room;
    pair_list heads;         /* key, op: chains that begin with an unknown predecessor */
    pair_list absent;        /* key, op: reads of ABSENT that several versions may answer */
    pair_list deletes;       /* key, op: visible ones */
    pair_list recoveries;    /* 0, txn */
    pair_list by_from, by_to;/* time, node: the windows of the nodes */
    pair_list spare;
    barrier *barriers;
    uint32_t *barrier_heads;
    size_t barrier_count, barrier_room, barrier_head_count, barrier_head_room;
};

typedef struct {
    uint64_t from, to;
} history_window;

/* history_memory.c */
void *history_grow(void *memory, size_t *room, size_t need, size_t item_size);
void pair_add(pair_list *list, uint64_t value, uint32_t item);
void pairs_sort(pair_list *list, pair_list *spare);          /* by value, stable */

/* history_check.c */
void history_found(history_checker *c, history_anomaly anomaly, const char *format, ...) __attribute__((format(printf, 3, 4)));
history_window history_node_window(const history_checker *c, uint32_t node);
/* Notes the transaction, as one of the next finding's. */
const char *history_txn_text(history_checker *c, uint32_t txn, char text[96]);

/* history_order.c */
void history_order_chains(history_checker *c);
void history_resolve_absent(history_checker *c);

/* history_cycle.c: of the nodes without the bit DONE in their degree */
void history_name_cycles(history_checker *c, uint32_t node_count);

#define DEGREE_ADMITTED UINT32_C(0x80000000)
#define DEGREE_DONE UINT32_C(0x40000000)

static inline uint32_t node_in(uint32_t txn)
{
    return 2 * txn;
}
static inline uint32_t node_out(const history_checker *c, uint32_t txn)
{
    return 2 * txn + ((c->txns[txn] & TXN_SPLIT) != 0);
}
static inline uint32_t *version_next(history_checker *c, uint32_t key, uint32_t version)
{
    return version == HISTORY_INITIAL ? &c->keys[key].first : &c->ops[version - 1].next;
}

typedef enum { EDGE_INSIDE = 1, EDGE_WW = 2, EDGE_WR = 4, EDGE_RW = 8, EDGE_RW_RANGE = 16, EDGE_RT = 32 } history_edge;

/* Called for each edge of a node; op: the index of the operation of the node that makes it, UINT32_MAX for none. */
typedef void (*history_visit_fn)(void *arg, uint32_t to, history_edge kind, uint32_t op);

static inline __attribute__((always_inline)) void edges_of_version(history_checker *c, uint32_t txn, uint32_t i, history_visit_fn visit, void *arg)
{
    uint32_t next = c->ops[i].next;
    for (uint32_t r = c->ops[i].list; r != 0; r = c->ops[r - 1].list) {
        uint32_t reader = c->h->ops[r - 1].txn;
        if (reader != txn) visit(arg, node_in(reader), EDGE_WR, i);
    }
    if (next == 0) return;
    if (next & BARRIER) visit(arg, 2 * c->h->txn_max + 2 * (next & ~BARRIER), EDGE_WW, i);
    else if (c->h->ops[next - 1].txn != txn) visit(arg, node_in(c->h->ops[next - 1].txn), EDGE_WW, i);
}

/*
 * A commit of several keys has its place in the log before any of it is visible, and later ones may be visible earlier. So a get may miss one, see others that come
 * after it in the log, and then a crash keeps the former only. Nobody was told that it was made, so nothing is broken. (A snapshot lies at one place of the log.)
 */
static inline bool may_miss(const history *h, uint32_t reader, uint32_t writer)
{
    return h->txns[reader].mode == HISTORY_SINGLE && h->txns[writer].outcome == HISTORY_UNKNOWN;
}

static inline __attribute__((always_inline)) void edges_of_read(history_checker *c, uint32_t txn, uint32_t i, history_visit_fn visit, void *arg)
{
    const history_op *op = &c->h->ops[i];
    uint32_t next = *version_next(c, op->key, c->ops[i].seen);
    if (next == 0) return;
    bool range = (op->flags & HISTORY_BY_SCAN) && op->version == HISTORY_ABSENT;
    history_edge kind = range ? EDGE_RW_RANGE : EDGE_RW;
    if (next & BARRIER) visit(arg, 2 * c->h->txn_max + 2 * (next & ~BARRIER) + 1, kind, i);
    else if (c->h->ops[next - 1].txn != txn && !may_miss(c->h, txn, c->h->ops[next - 1].txn)) visit(arg, node_out(c, c->h->ops[next - 1].txn), kind, i);
}

static inline __attribute__((always_inline)) void history_edges(history_checker *c, uint32_t node, history_visit_fn visit, void *arg)
{
    const history *h = c->h;
    if (node >= 2 * h->txn_max) {
        const barrier *b = &c->barriers[(node - 2 * h->txn_max) / 2];
        for (uint32_t i = 0; i < b->head_count; i++) {
            uint32_t txn = h->ops[c->barrier_heads[b->head_first + i]].txn;
            visit(arg, node & 1 ? node_out(c, txn) : node_in(txn), EDGE_INSIDE, UINT32_MAX);
        }
        return;
    }
    uint32_t txn = node / 2;
    const history_txn *t = &h->txns[txn];
    unsigned flags = c->txns[txn];
    bool is_out = node == node_out(c, txn), split = flags & TXN_SPLIT;
    if (!is_out) visit(arg, node + 1, EDGE_INSIDE, UINT32_MAX);
    for (uint32_t i = t->op_first; i < t->op_first + t->op_count; i++) {
        if (c->ops[i].role == ROLE_READ) {
            bool at_commit = split && ((flags & TXN_READS_AT_COMMIT) || (h->ops[i].flags & HISTORY_CLAIM));
            if (at_commit ? is_out : node == node_in(txn)) edges_of_read(c, txn, i, visit, arg);
        } else if (c->ops[i].role == ROLE_FINAL && is_out && (flags & TXN_VISIBLE)) {
            edges_of_version(c, txn, i, visit, arg);
        }
    }
    if ((flags & TXN_DURABLE) && is_out)
        for (size_t i = 0; i < c->recoveries.count; i++) visit(arg, node_in(c->recoveries.pairs[i].item), EDGE_RT, UINT32_MAX);
}

#endif
