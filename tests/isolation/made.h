/*
 * Histories made by a small model of a store instead of a store: clients take turns step by step, drawn from a seed, so the same seed makes the same history.
 * The model keeps all versions, and keeps what the modes promise, or breaks it in one of the ways below, now and then.
 */
#ifndef TESTS_MADE_H
#define TESTS_MADE_H

#include "tests/isolation/history.h"

#define MADE_FAULT_MAP(X)                                                                     \
    X(NOTHING, "nothing")                                                                     \
    X(WRITES_UNCHECKED, "a commit does not look whether what it writes was changed")          \
    X(READS_UNCHECKED, "a serializable commit does not look whether what it read was changed") \
    X(ABSENT_UNCHECKED, "the same for keys that were absent")                                 \
    X(CLAIMS_UNCHECKED, "the same for keys read for update")                                  \
    X(READS_NEWEST, "a snapshot's read sees the newest version")                              \
    X(READS_OLD, "a read sees the version before the right one")                              \
    X(READS_DIRTY, "a read sees a write that is not committed")                               \
    X(SNAPSHOT_OLD, "a snapshot is older than the transaction")                               \
    X(SNAPSHOT_NEW, "a snapshot is younger than the transaction's first call")                \
    X(COMMIT_IN_HALVES, "a commit becomes visible key by key")                                \
    X(COMMIT_LOSES, "a commit leaves a write out")                                            \
    X(ABORT_APPLIES, "an abort leaves its writes behind")                                     \
    X(ROLLBACK_APPLIES, "what was rolled back to a savepoint is committed")                   \
    X(OWN_UNSEEN, "a transaction does not see its own write")                                 \
    X(SHARED_UNLOCKED, "a pessimistic read does not lock")                                    \
    X(EXCLUSIVE_UNLOCKED, "a pessimistic write does not lock")

typedef enum {
#define MADE_FAULT_ENUM(name, text) MADE_##name,
    MADE_FAULT_MAP(MADE_FAULT_ENUM)
#undef MADE_FAULT_ENUM
    MADE_FAULTS
} made_fault;

#define MADE_MIXED HISTORY_MODES     /* a mode of its own: all of them */

typedef struct {
    uint64_t seed;
    uint32_t txns, clients, keys;
    uint32_t mode;                   /* of the transactions that write */
    made_fault fault;
    uint32_t fault_one_in;           /* of the occasions */
} made_options;

const char *made_fault_text(made_fault fault);
/* faults: how often the fault was committed. Ends the program when there is no memory. */
history *made_history(const made_options *options, uint64_t *faults);

#endif
