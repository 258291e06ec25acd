/*
 * What a crash run writes, and what of it must be found again. Each client owns a set of slots, each slot is one key; what a client wrote last
 * to a slot is an id, 0 for nothing. Keys and values are made from their numbers, so the model holds numbers only, and every
 * value read tells which write it came from.
 *
 * A client's commits are totally ordered, since only it writes its slots. What is recovered must be the state after one of them, not before the last
 * that must be durable, not after the last begun; and a commit that is there proves all that were acknowledged before it began.
 *
 * Commits that were under way together, in a queue, form a group: they have no order, but write different slots. Of the last group that is there at all any may be
 * missing that need not be durable, each whole, if nothing is there that began after it was acknowledged.
 */
#ifndef TESTS_CRASH_MODEL_H
#define TESTS_CRASH_MODEL_H

#include "base/base.h"
#include "base/random.h"

#define CRASH_CLIENTS_MAX 4u
#define CRASH_KEY_MAX 4096u
#define CRASH_SECOND_BUCKET "second"
#define CRASH_UNREADABLE UINT32_MAX   /* in what was found: reading it is an error; fits anything */
#define CRASH_GROUP_MAX 32u      /* commits */
#define CRASH_ID_PRESENT 1u      /* the only id of a slot whose values are empty */

/* The run's shape, drawn from its seed. */
typedef struct {
    uint64_t seed;
    uint32_t clients;
    uint32_t slots;              /* of each client; 0 and 2 are always written together, with the same id */
    uint32_t operations;         /* of each client and round */
    uint32_t rounds;             /* the database is closed and opened again between them */
    uint32_t page_size;
    uint32_t value_max;          /* bytes of the largest value */
    uint32_t prefix_length;      /* bytes that all keys begin with */
    uint32_t value_scale;        /* 0: small values mostly */
    uint32_t async_delay_ms;
    uint32_t large_256;          /* chance of a large value, of 256 */
    uint32_t capture_mean;       /* steps between two crashes */
    bool loads_first;            /* all slots are written in order before anything else */
    uint32_t shared_keys;        /* keys that all clients share (crash_shared.h), a multiple of 8; 0: none */
    uint32_t shared_percent;     /* of what clients do: on these keys */
    bool crowded;                /* short calls on two of these keys, most of the time: reads and snapshots meet the middle of commits */
    uint32_t queue_percent;      /* of what clients do: a while with a queue */
    bool plain;                  /* no transactions and cursors of the clients' own, and many puts: so these may wait for pages on disk */
    bool cold;                   /* plain, with several times more than the cache holds, so that puts wait, and spill */
    uint32_t snapshot_bytes, lock_timeout_ms;   /* options */
} crash_plan;

void crash_plan_draw(crash_plan *plan, uint64_t seed);
void crash_plan_options(const crash_plan *plan, rw_random *random, rw_options *options);

/* A slot's key; buffer: CRASH_KEY_MAX bytes. */
rw_slice crash_key(const crash_plan *plan, uint32_t client, uint32_t slot, void *buffer);
/* The same without its tail: at or below this slot's key and above the one before it. */
rw_slice crash_key_stem(const crash_plan *plan, uint32_t client, uint32_t slot, void *buffer);
/*
 * Which bucket a slot lies in: the default one, a second one that all clients share, or one of the client's own, which it creates and drops.
 * CRASH_OWN_EXISTS is no key: its id is CRASH_ID_PRESENT while the client's own bucket is there.
 */
#define CRASH_OWN_EXISTS 1u
typedef enum { CRASH_DEFAULT, CRASH_SECOND, CRASH_OWN } crash_bucket;
crash_bucket crash_slot_bucket(uint32_t slot);
void crash_own_bucket_name(uint32_t client, char name[16]);
/* The slots of a client's own contiguous range of keys, in key order: index 0 to crash_own_count - 1; those that are CRASH_DEFAULT. */
static inline uint32_t crash_own_count(const crash_plan *plan) { return plan->slots / 2; }
static inline uint32_t crash_own_slot(uint32_t index) { return 2 * index + 1; }

/* The value of that write; buffer: value_max bytes. */
rw_slice crash_value(const crash_plan *plan, uint32_t client, uint32_t slot, uint32_t id, void *buffer);
bool crash_slot_is_empty_value(uint32_t slot);
/* The id of the write that this value is of; 0: it is none of this slot's. scratch: value_max bytes. */
uint32_t crash_value_id(const crash_plan *plan, uint32_t client, uint32_t slot, rw_slice value, void *scratch);

typedef struct {
    uint32_t slot, id;
} crash_write;

typedef struct {
    uint32_t first_write, write_count;
    uint64_t acked_ns;                            /* virtual time; 0: not acknowledged */
    uint32_t acked_before[CRASH_CLIENTS_MAX];     /* commits of each client acknowledged before this one began */
    uint64_t shared_clock;                        /* of the shared keys' record, when it began */
    uint64_t shared_begun;                        /* begin_from of the record of which this is a part; 0: none */
    uint32_t group_end;                           /* in a group: the commit behind it; else 0 */
    uint32_t after;                               /* in a group: which of its commits were acknowledged before this one began, a bit each */
    bool must_survive;                            /* in a group: it was acknowledged as durable */
} crash_commit;

typedef struct {
    const crash_plan *plan;
    uint32_t client;
    uint32_t *current;           /* for each slot: the id as the client sees it */
    crash_commit *commits;
    crash_write *writes;
    uint32_t commit_count, commit_capacity, write_count, write_capacity;
    uint32_t acked;              /* the first so many commits were acknowledged: all but the last, or all */
    uint32_t durable;            /* the first so many commits must survive */
    uint32_t next_id;
    bool is_stopped;             /* the outcome of the last commit is unknown: no more of them */
    uint32_t group_first, group_acked;   /* of the group under way: its first commit, and which have been acknowledged, a bit each */
} crash_history;

void crash_history_open(crash_history *history, const crash_plan *plan, uint32_t client);
void crash_history_close(crash_history *history);
uint32_t crash_history_new_id(crash_history *history, uint32_t slot);
/* A commit begins; writes are added; then it ends in one of three ways. */
void crash_commit_begin(crash_history *all, uint32_t client);
void crash_commit_add(crash_history *history, uint32_t slot, uint32_t id);
/* durable: it was a durable one. Of a commit that changed nothing that says nothing of those before it: it may not have been logged. */
void crash_commit_acked(crash_history *history, uint64_t now_ns, bool durable);
void crash_commit_failed(crash_history *history);     /* nothing was changed */
void crash_commit_unknown(crash_history *history);    /* visible, may or may not survive */
/*
 * A group begins; commits are added to it, up to CRASH_GROUP_MAX, each with all its writes (crash_commit_add) before the next one, and end in any order, as
 * single ones do; then it ends, and they count as acknowledged.
 */
void crash_group_begin(crash_history *history);
uint32_t crash_group_add(crash_history *all, uint32_t client);   /* its number, for what follows */
void crash_group_acked(crash_history *history, uint32_t number, uint64_t now_ns, bool durable);
void crash_group_failed(crash_history *history, uint32_t number);
void crash_group_unknown(crash_history *history, uint32_t number);
void crash_group_end(crash_history *history);
/* Commits acknowledged before that time must be durable by now. */
void crash_history_due(crash_history *history, uint64_t before_ns);

/* Fits found (an id for each slot) to the history: the fewest and the most commits that give this state. False: none. */
bool crash_history_match(const crash_history *history, const uint32_t *found, uint32_t *fewest, uint32_t *most);
/* Words about a mismatch with the nearest state: to print. */
void crash_history_explain(const crash_history *history, const uint32_t *found, char *text, size_t size);

#endif
