/*
 * What the crash test's writer does and what must be found afterwards: both follow from seed, round, lane and sequence number alone, so
 * the parent that kills and the writer that is killed need exchange only counters.
 *
 * Each lane (a thread of the writer) has keys of its own, mixed among those of the others, and commits one operation after the other. So after a crash
 * a lane's keys must stand as after some prefix of its operations, no shorter than what it was told is durable and no longer than what it
 * had begun. Batches and transactions have many effects in one operation: a prefix holds all of them or none.
 */
#ifndef BENCH_CRASH_MODEL_H
#define BENCH_CRASH_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "ringwood.h"

enum {
    CRASH_LANES = 6,
    CRASH_LANES_SYNC = 4,        /* the others write asynchronously and flush now and then */
    CRASH_BUCKETS = 3,
    CRASH_BUCKET_RANGES = 2,     /* keys of a lane lie together here: ranges of them can be deleted */
    CRASH_KEYS = 2048,           /* of a lane in a bucket */
    CRASH_KEYS_LARGE = 4,        /* the first keys of the first bucket hold large values */
    CRASH_KEY_SIZE_MAX = 64,     /* bytes */
    CRASH_VALUE_SIZE_MIN = 24,   /* bytes */
    CRASH_VALUE_SIZE_MAX = 4 << 20,
    CRASH_WRITES_MAX = 40,       /* in a batch */
    CRASH_RANGE_MAX = 40,        /* keys */
    CRASH_EFFECTS_MAX = CRASH_WRITES_MAX + CRASH_RANGE_MAX,
};

typedef enum { CRASH_PUT, CRASH_DELETE, CRASH_BATCH, CRASH_RANGE, CRASH_TRANSACTION, CRASH_ABORT } crash_kind;

/* The id of a value says which operation wrote it; 0: there is none. */
typedef struct {
    unsigned bucket, key;
    uint64_t id;
} crash_effect;

typedef struct {
    crash_kind kind;
    unsigned count;
    crash_effect effects[CRASH_EFFECTS_MAX]; /* in order: later ones win */
    unsigned range_at, range_count;          /* these effects are one delete of a range of keys; count 0: none */
    crash_effect undone;                     /* CRASH_TRANSACTION, CRASH_ABORT: written and rolled back; must never be found */
} crash_operation;

/* Operation sequence (1, 2, ...) of a lane in a round. */
void crash_operation_make(uint64_t seed, uint64_t round, unsigned lane, uint64_t sequence, crash_operation *operation);
/* An asynchronous lane flushes after this operation. */
bool crash_lane_flushes(uint64_t seed, uint64_t round, unsigned lane, uint64_t sequence);

extern const char *const crash_bucket_names[CRASH_BUCKETS]; /* the first is the default one */

/* Writes at most CRASH_KEY_SIZE_MAX bytes, returns how many. */
size_t crash_key_make(unsigned lane, unsigned bucket, unsigned key, unsigned char *bytes);
/* Writes the bound below the key and above all keys of the lane before it, in CRASH_BUCKET_RANGES. key may be CRASH_KEYS. */
size_t crash_key_bound(unsigned lane, unsigned key, unsigned char *bytes);
/* false: no key that this test ever wrote. */
bool crash_key_parse(unsigned bucket, rw_slice bytes, unsigned *lane, unsigned *key);

/* Writes at most CRASH_VALUE_SIZE_MAX bytes, returns how many. */
size_t crash_value_make(unsigned lane, crash_effect effect, unsigned char *bytes);
/* The id in a value that is whole and belongs to the key; 0 when it is not. */
uint64_t crash_value_id(unsigned lane, unsigned bucket, unsigned key, rw_slice bytes);

/* What a database holds: the id of each key's value. */
typedef struct {
    uint64_t ids[CRASH_LANES][CRASH_BUCKETS][CRASH_KEYS];
} crash_state;

void crash_state_apply(crash_state *state, unsigned lane, const crash_operation *operation);

typedef enum { CRASH_STARTED, CRASH_OPENED, CRASH_CLOSING, CRASH_CLOSED } crash_phase;

/* The memory that parent and writer share. It survives the writer's death as it stands at that moment. */
typedef struct {
    /* set by the parent before the writer starts */
    uint64_t seed, round;
    rw_options options;
    char io_backend[16], log_sync[16];    /* those of the options, as text that crosses processes */
    crash_state state;           /* what the database holds when the round begins */
    /* written by the parent, read by the writer */
    _Atomic bool close_wanted;
    /* written by the writer, read by the parent */
    _Atomic uint32_t phase;      /* crash_phase */
    _Atomic bool in_checkpoint;
    _Atomic bool failed;         /* failure is filled in */
    char failure[400];
    struct {
        RW_ALIGNED(RW_CACHE_LINE) _Atomic uint64_t started; /* the sequence number last begun */
        _Atomic uint64_t durable;                            /* all up to it were acknowledged as durable */
    } lanes[CRASH_LANES];
} crash_shared;

/* The hidden side of the verb: the process that writes until it is killed. Returns its exit code. */
int crash_writer_main(const char *directory, int shared_fd);

/* Where a lane's operations of a round stand: all up to durable must be there, none after started can. */
typedef struct {
    uint64_t seed, round;
    uint64_t durable[CRASH_LANES], started[CRASH_LANES];
} crash_bounds;

/*
 * Whether found is a state in which a round that began with state may have left the database. state is moved on to the durable bounds.
 * 0; RW_ENOTFOUND: a promise was broken, complaint says which; RW_ENOMEM.
 */
int crash_compare(const crash_bounds *bounds, crash_state *state, const crash_state *found, char *complaint, size_t room);

/*
 * Reads the whole database and compares it so. On success state is what was found.
 * 0; RW_ENOTFOUND with a complaint: a promise was broken; else the failure of a call.
 */
int crash_check(rw_db *db, const crash_bounds *bounds, crash_state *state, uint64_t *records, char *complaint, size_t room);

#endif
