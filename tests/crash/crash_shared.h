/*
 * Keys that all clients of a run share, and the record of everything that was done to them, for the checker of histories (tests/isolation/history.h).
 * A value is made from its key's number and the version that the history gave the write, so every value read tells which write it came from.
 *
 * Shared keys stand in groups of four: two neighbours, then a gap, then two more, the last of which may be deleted and inserted again. The groups lie
 * in turn in the default bucket and in the second one, between the clients' slots. Beside them there are counters, which only rw_add changes: what
 * it returns is different every time, and a counter lies between what was acknowledged and what was begun.
 */
#ifndef TESTS_CRASH_SHARED_H
#define TESTS_CRASH_SHARED_H

#include "tests/crash/crash_model.h"
#include "tests/isolation/history.h"

#define SHARED_COUNTERS 2u
#define SHARED_OPS_MAX 200u      /* of one transaction */

/* Beside the history's own record of a transaction, by the same index. */
typedef struct {
    uint64_t acked_ns;           /* virtual time; 0: not committed */
    uint32_t acked_before[CRASH_CLIENTS_MAX];   /* commits of own slots that must be there if this one is; those that are a part of it, too */
    bool is_durable;             /* it must survive, whatever the time */
    bool ending;                 /* its commit, or the single call that it is, runs now: it may or may not survive */
} shared_txn;

typedef struct {
    uint64_t begun, acked, durable;
    uint64_t capacity;
    unsigned char *returned;     /* for each sum: whether some rw_add has returned it */
} shared_counter;

typedef struct {
    const crash_plan *plan;
    const crash_history *histories;      /* of own slots */
    history *h;                  /* a strand for each client, and one for what is recovered; NULL: nothing is shared in this run */
    history_checker *checker;
    shared_txn *txns;
    shared_counter counters[SHARED_COUNTERS];
    uint64_t clock;              /* grows with every question */
    uint64_t due_ns;             /* what was acknowledged before must have become durable by itself */
} crash_shared;

void shared_open(crash_shared *s, const crash_plan *plan, const crash_history *histories);
void shared_close(crash_shared *s);
static inline uint64_t shared_tick(crash_shared *s) { return ++s->clock; }

/* ---- keys: 0 to shared_key_count - 1, then the counters ---- */

static inline uint32_t shared_key_count(const crash_plan *plan) { return plan->shared_keys; }
/* With the counters. */
static inline uint32_t shared_count(const crash_plan *plan) { return plan->shared_keys == 0 ? 0 : plan->shared_keys + SHARED_COUNTERS; }
crash_bucket shared_key_bucket(uint32_t key);
rw_slice shared_key(const crash_plan *plan, uint32_t key, void *buffer);
bool shared_key_is_deleted(uint32_t key);      /* sometimes */
/* Keys of a bucket by their place in its order. */
static inline uint32_t shared_key_at(crash_bucket bucket, uint32_t place) { return place / 4 * 8 + place % 4 + (bucket == CRASH_DEFAULT ? 0 : 4); }
static inline uint32_t shared_key_place(uint32_t key) { return key / 8 * 4 + key % 4; }
/* Which shared key that is; false: none. scratch: CRASH_KEY_MAX bytes. */
bool shared_key_parse(const crash_plan *plan, rw_slice text, crash_bucket bucket, void *scratch, uint32_t *key);
rw_slice shared_value(const crash_plan *plan, uint32_t key, uint32_t version, void *buffer);
/* HISTORY_GARBAGE when no write of that key made it. */
uint32_t shared_value_version(const crash_plan *plan, uint32_t key, rw_slice value, void *scratch);

/* ---- recording ---- */

/* Whether the client can record one more. */
bool shared_has_room(const crash_shared *s, uint32_t client);
history_txn *shared_begin(crash_shared *s, uint32_t client, history_mode mode);
history_txn *shared_current(crash_shared *s, uint32_t client);
/* Before the call that commits: from now on it may be found after a crash. */
void shared_ending(crash_shared *s, uint32_t client);
/* After it. durable: it was acknowledged as such. */
void shared_end(crash_shared *s, uint32_t client, history_outcome outcome, uint64_t now_ns, bool durable);
/* Everything committed so far is durable, if it was before that moment of the clock. */
void shared_durable(crash_shared *s, uint64_t before);

/* ---- checks ---- */

/* Everything recorded so far. text: words about what is wrong, "" when nothing is. */
bool shared_check(crash_shared *s, char *text, size_t size);
/*
 * The same with what was found after a crash: versions of the keys, 0 for absent, or CRASH_UNREADABLE; then the counters' sums. fewest, most: how many
 * commits of own slots are there, for each client.
 */
bool shared_check_found(crash_shared *s, const uint32_t *found, const uint32_t *fewest, const uint32_t *most, char *text, size_t size);

#endif
