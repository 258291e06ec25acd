/*
 * The keys of a workload lie in groups of eight, of kinds that differ in how their versions can be told apart:
 *   0 1 2  plain: never deleted, so an absent one is the initial version
 *   3      counter: a number, changed by rw_add and by transactions; the number is the version. In the first groups only; plain in the others
 *   4 5    bare: deleted and inserted again; what an absent one replaced is told by time
 *   6 7    witnessed and its witness: who deletes or inserts the first also rewrites the second with the version of the first
 * Groups lie in turn in a bucket of their own, where they are adjacent, and in one where filler lies between all keys.
 */
#ifndef TESTS_WORKLOAD_INTERNAL_H
#define TESTS_WORKLOAD_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "tests/isolation/workload.h"
#include "tests/support/prng.h"

#define WORKLOAD_VALUE_MAX 6000u
#define WORKLOAD_COUNTER_GROUPS 8u
#define WORKLOAD_OPS_MAX 200u        /* of one transaction: six savepoints of three updates */
#define WORKLOAD_FILLER_SIZE 100u

typedef enum { KEY_PLAIN, KEY_COUNTER, KEY_BARE, KEY_WITNESSED, KEY_WITNESS } key_kind;

/* What a value begins with, but a counter's. */
typedef struct {
    uint32_t round, key, version;
    uint32_t other;              /* in a witness: the version of the witnessed key */
    uint32_t other_deleted;      /* whether that version is a delete */
    uint32_t size;
} value_head;

typedef struct {
    rw_db *db;
    const workload_options *options;
    rw_bucket dense, spread;
    uint32_t keys_max, slot;     /* the spread bucket has filler at all numbers but the multiples of slot */
    uint32_t keys, spacing;      /* of this round; its keys are at multiples of spacing there */
    uint32_t round;
    history *h;
    uint32_t counter_max;
    _Atomic uint32_t *counters;  /* for each counter and number: the version that wrote it; 0: none so far */
    _Atomic uint64_t clock __attribute__((aligned(64)));
    _Atomic bool stop __attribute__((aligned(64)));
    _Atomic bool failed;
} workload;

/* What a transaction knows of a key; good while the stamp is its own. */
typedef struct {
    uint32_t stamp;
    bool present;
    bool touched;                /* written at any time by this transaction */
    bool known;                  /* read before that */
    int64_t count;
} key_view;

typedef struct {
    uint32_t key, version;
    int64_t count;
} counter_write;

typedef struct {
    workload *w;
    uint32_t strand, stamp;
    prng random;
    rw_txn *txn;                 /* NULL: single calls */
    history_mode mode;
    key_view *views;
    counter_write counter_writes[WORKLOAD_OPS_MAX];
    uint32_t counter_write_count;
    uint64_t quota;
    uint64_t conflicts, deadlocks, timeouts, snapshots_too_old, lock_memory;
    uint8_t value[WORKLOAD_VALUE_MAX + 64], expected[WORKLOAD_VALUE_MAX + 64];
    size_t expected_size;
    char failure[512];
    pthread_t thread;
} worker;

/* workload_keys.c */
key_kind workload_key_kind(uint32_t key);
rw_bucket workload_key_bucket(const workload *w, uint32_t key);
rw_slice workload_key(const workload *w, uint32_t key, char text[16]);
/* Positions number a bucket's keys in their order. */
uint32_t workload_position(uint32_t key);
uint32_t workload_key_at(const workload *w, rw_bucket bucket, uint32_t position);
/* The key that a cursor's key is; UINT32_MAX for filler. False: it is neither. */
bool workload_key_parse(const workload *w, rw_bucket bucket, rw_slice text, uint32_t *key);
size_t workload_value(worker *self, uint32_t key, uint32_t version, uint32_t other, bool other_deleted);
/* The version that a value is; HISTORY_GARBAGE for one that none of this round's writers wrote there. head is filled in unless it is a counter's. */
uint32_t workload_value_version(const workload *w, uint32_t key, const void *value, size_t size, value_head *head, int64_t *count);
rw_slice workload_filler_key(uint32_t number, char text[16]);
size_t workload_filler_value(uint32_t number, uint32_t generation, uint8_t value[WORKLOAD_FILLER_SIZE]);
bool workload_filler_sound(uint32_t number, const void *value, size_t size);
bool workload_filler_is(const workload *w, uint32_t number);
uint32_t workload_numbers(const workload *w);
_Atomic uint32_t *workload_counter_version(const workload *w, uint32_t key, int64_t count);

static inline uint64_t workload_tick(workload *w)
{
    return atomic_fetch_add(&w->clock, 1) + 1;
}

/* workload_calls.c: one call of the library each, recorded. They return its code. */
bool workload_failed(worker *self, const char *what, int code);
int call_get(worker *self, uint32_t key, bool for_update, bool *present);
int call_put(worker *self, uint32_t key, uint32_t other, bool other_deleted, uint32_t *version);
int call_del(worker *self, uint32_t key, uint32_t *version);
int call_scan(worker *self, rw_bucket bucket, uint32_t position, uint32_t count, bool backwards);
uint32_t calls_recorded(const worker *self);
key_view *call_view(worker *self, uint32_t key);

/* workload_txn.c */
void workload_step(worker *self);

#endif
