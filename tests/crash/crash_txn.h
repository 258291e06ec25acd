/* Between crash_txn.c and crash_single.c: calls on shared keys, recorded. They return the library's codes. */
#ifndef TESTS_CRASH_TXN_H
#define TESTS_CRASH_TXN_H

#include "tests/crash/crash_client.h"

typedef struct {
    client *c;
    rw_txn *txn;                 /* NULL: single calls */
    history_mode mode;
    bool is_recorded;            /* by rw_txn_run: an attempt has begun */
    bool hurries;                /* from one call to the next */
    size_t size;                 /* of the value that it left in c->value */
} shared_work;

static inline crash_shared *shared_of(const client *c) { return &c->run->shared; }
static inline uint32_t strand_of(const client *c) { return c->history->client; }

/* crash_txn.c */
void shared_let_others_run(client *c);
rw_bucket shared_bucket_for(const client *c, crash_bucket bucket);
rw_slice shared_key_for(client *c, uint32_t key);
uint32_t shared_draw_key(client *c);
/* A new version, recorded: its value names it, so that comes before the call. */
rw_slice shared_value_for(client *c, uint32_t key, uint32_t *version);
int shared_get(shared_work *w, uint32_t key, bool for_update);
int shared_scan(shared_work *w);
int shared_read_counter(shared_work *w);
void shared_record_read(client *c, uint32_t key, int rc, rw_slice value, unsigned flags);
/* Ends the record as rc says. */
void shared_record_end(client *c, int rc, bool durable);
/* True when rc is 0. Ends the run when it is not to be expected of such a transaction. */
bool shared_result(const shared_work *w, bool committing, int rc, const char *what);
history_mode shared_draw_mode(client *c);
void shared_transaction(client *c);
/* Its parts: begins one and works in it, true: it is to be committed; that begins; it has ended. */
bool shared_transaction_fill(shared_work *w, bool mixed);
void shared_commit_begin(client *c);
void shared_commit_end(shared_work *w, int rc, unsigned flags);
/* crash_single.c: around a single call. */
history_txn *shared_single_begin(client *c);
void shared_single_end(client *c, int rc, bool durable, const char *what);
void shared_run(client *c);

#endif
