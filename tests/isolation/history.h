/*
 * Histories of transactions, and the check that they keep what their isolation modes promise. Plain C structures: no threads, no clock, nothing of the
 * library, so that any driver (threads on a real database, clients in the simulator, text by hand) can record one.
 *
 * A history is made of transactions, a transaction of operations in the order they returned, which name exact versions. A version is the write that
 * made it: the number history_write returns, which the driver puts into the value that it stores, so that whoever reads the value can say which
 * version it saw. Strands are parts of the arrays that one thread each fills without a lock.
 *
 * Times are numbers of the driver's choice that grow: for threads, draws from one atomic counter. They bound the two moments of a transaction, that of its
 * snapshot and that of its commit: a draw before and one after the call.
 */
#ifndef TESTS_HISTORY_H
#define TESTS_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define HISTORY_INITIAL 0u                   /* the version before the history's first write of a key */
#define HISTORY_ABSENT UINT32_MAX            /* no such key; after which of its deletes is not known */
#define HISTORY_BLIND (UINT32_MAX - 1)       /* replaced by a write that did not read: it may be any version */
#define HISTORY_GARBAGE (UINT32_MAX - 2)     /* what was read was never written */
#define HISTORY_VERSION_MAX (UINT32_MAX - 3)
#define HISTORY_FOREVER UINT64_MAX

typedef enum {
    HISTORY_SNAPSHOT,
    HISTORY_SERIALIZABLE,
    HISTORY_PESSIMISTIC,
    HISTORY_READONLY,
    HISTORY_SINGLE,          /* one call that is atomic by itself: a put, a get, a batch, a compare-and-set */
    HISTORY_RECOVERY,        /* reads what a crash left: after everything durable, else at any moment */
    HISTORY_MODES
} history_mode;

typedef enum {
    HISTORY_OPEN,            /* not ended: no part of the history */
    HISTORY_COMMITTED,
    HISTORY_ABORTED,         /* by its owner or the store: its writes must never be seen, its reads must still be sound */
    HISTORY_UNKNOWN          /* committed if anybody saw it: cut off by a crash */
} history_outcome;

typedef enum {
    HISTORY_READ,            /* version: what was seen */
    HISTORY_WRITE,           /* version: what it replaced, of this transaction or another; its own is its place, see history_write */
    HISTORY_DELETE,          /* the same; the version it makes is read as HISTORY_ABSENT, or by number when the driver can tell */
    HISTORY_ROLLBACK         /* version: the number of the transaction's operations whose writes stay */
} history_kind;

#define HISTORY_BY_SCAN 1u   /* of a read: by a range read. An absent key of the range is a read too */
#define HISTORY_CLAIM 2u     /* of a read: for update, so validated at commit in every mode */
#define HISTORY_COUNTED 4u   /* for the driver: version is a count that it still has to turn into a version; the check refuses it */

typedef struct {
    uint32_t key;            /* below history.keys */
    uint32_t version;
    uint32_t txn;
    uint8_t kind;
    uint8_t flags;
    uint16_t unused;
} history_op;

/* A single call has begin_from = commit_from and begin_to = commit_to. The commit of an aborted one is the call that ended it. */
typedef struct {
    uint64_t begin_from, begin_to;
    uint64_t commit_from, commit_to;
    uint32_t op_first, op_count;
    uint8_t mode, outcome;
    bool durable;            /* acknowledged as durable: a HISTORY_RECOVERY must see it */
    bool aside;              /* the driver's, for one that it takes out of the history (HISTORY_OPEN) for a while */
    uint8_t unused[4];
} history_txn;

typedef struct {
    uint32_t txn_first, txn_count, txn_max;
    uint32_t op_first, op_count, op_max;
    uint8_t unused[40];      /* strands of different threads lie in different cache lines */
} history_strand;

typedef struct {
    uint32_t keys, strand_count;
    history_strand *strands;
    history_txn *txns;       /* of all strands, one after the other */
    history_op *ops;
    uint32_t txn_max, op_max;
    uint8_t *initially_present;   /* for each key; all 0 after history_new and history_clear */
} history;

/* NULL when there is no memory. Each strand has room for that many transactions and operations. */
history *history_new(uint32_t keys, uint32_t strands, uint32_t txns_each, uint32_t ops_each);
void history_free(history *h);
void history_clear(history *h);
/* Whether the strand has room for so many more. */
bool history_has_room(const history *h, uint32_t strand, uint32_t txns, uint32_t ops);
/* Begins the strand's next transaction; it is good until the next call for this strand. The caller fills in its times. */
history_txn *history_begin(history *h, uint32_t strand, history_mode mode);
void history_read(history *h, uint32_t strand, uint32_t key, uint32_t version, unsigned flags);
/* Returns the version that the write makes. kind: HISTORY_WRITE or HISTORY_DELETE. */
uint32_t history_write(history *h, uint32_t strand, history_kind kind, uint32_t key, uint32_t replaced, unsigned flags);
/* The writes after the transaction's first ops_kept operations are undone: by a savepoint, or because the call failed. They must never be seen outside. */
void history_rollback(history *h, uint32_t strand, uint32_t ops_kept);
void history_end(history *h, uint32_t strand, history_outcome outcome);

static inline bool history_version_is_write(uint32_t version)
{
    return version != HISTORY_INITIAL && version <= HISTORY_VERSION_MAX;
}
static inline const history_op *history_writer_op(const history *h, uint32_t version)
{
    return &h->ops[version - 1];
}

/*
 * Names after Adya, and Elle for those that need real time: a cycle through "T1 had ended before T2 began".
 * G-nonadjacent: several anti-dependencies, no two in a row (snapshot forbids it). Lost update: a G-single of two transactions that both replaced one version.
 */
#define HISTORY_ANOMALY_MAP(X)                                   \
    X(NONE, "none")                                              \
    X(UNWRITTEN, "unwritten read")                                  \
    X(INTERNAL, "internal")                                      \
    X(G1A, "G1a")                                                \
    X(G1B, "G1b")                                                \
    X(LOST_UPDATE, "lost update")                                \
    X(G0, "G0")                                                  \
    X(G1C, "G1c")                                                \
    X(G_SINGLE, "G-single")                                      \
    X(G_NONADJACENT, "G-nonadjacent")                            \
    X(G2_ITEM, "G2-item")                                        \
    X(G2, "G2")                                                  \
    X(G0_REALTIME, "G0-realtime")                                \
    X(G1C_REALTIME, "G1c-realtime")                              \
    X(G_SINGLE_REALTIME, "G-single-realtime")                    \
    X(G_NONADJACENT_REALTIME, "G-nonadjacent-realtime")          \
    X(G2_ITEM_REALTIME, "G2-item-realtime")                      \
    X(G2_REALTIME, "G2-realtime")

typedef enum {
#define HISTORY_ANOMALY_ENUM(name, text) HISTORY_##name,
    HISTORY_ANOMALY_MAP(HISTORY_ANOMALY_ENUM)
#undef HISTORY_ANOMALY_ENUM
    HISTORY_ANOMALIES
} history_anomaly;

const char *history_anomaly_name(history_anomaly anomaly);
const char *history_mode_name(history_mode mode);

#define HISTORY_FINDINGS_MAX 8u

#define HISTORY_FINDING_TXNS 8u

typedef struct {
    history_anomaly anomaly;
    uint32_t txn_count, txns[HISTORY_FINDING_TXNS];   /* those of the text */
    char text[1200];
} history_finding;

typedef struct {
    uint64_t found;                  /* anomalies; the first HISTORY_FINDINGS_MAX are kept. 0: the history is sound */
    history_finding findings[HISTORY_FINDINGS_MAX];
    uint64_t txns, committed, ops;
    uint64_t ww, wr, rw, rw_range;   /* edges; rw_range: of rw, those of absent keys in ranges */
    uint64_t unordered;              /* blind writes and inserts whose predecessor could not be told */
    uint64_t unresolved;             /* absent reads of which the same holds: they had no edges */
} history_result;

/* Working memory, kept from check to check. */
typedef struct history_checker history_checker;
history_checker *history_checker_new(void);
void history_checker_free(history_checker *checker);

/* Returns whether the history is sound. Ends the program when there is no memory. The driver's HISTORY_COUNTED must be gone. */
bool history_check(history_checker *checker, const history *h, history_result *result);

/* Writes out the operations of the finding's transactions, a line each, every one behind the prefix. */
void history_print(FILE *out, const char *prefix, const history *h, const history_finding *finding);

#endif
