/* Between the files of the clients: crash_client.c, crash_queue.c, crash_txn.c, crash_single.c. */
#ifndef TESTS_CRASH_CLIENT_H
#define TESTS_CRASH_CLIENT_H

#include "tests/crash/crash_run.h"

typedef struct {
    crash_run *run;
    crash_history *history;
    rw_random random;
    unsigned char *value;        /* value_max bytes each */
    unsigned char *scratch;
    unsigned char key[CRASH_KEY_MAX], other_key[CRASH_KEY_MAX];
    uint32_t *staged;            /* for each slot: what a batch or transaction leaves */
} client;

/* crash_client.c */
rw_bucket client_bucket_of(const client *c, uint32_t owner, uint32_t slot);
uint64_t client_draw(client *c, uint64_t bound);
uint32_t client_draw_slot(client *c);
unsigned client_draw_flags(client *c);
void client_pause(client *c, uint64_t most_ms);
/* A commit of own slots begins, and ends as rc says. */
void client_commit_begin(client *c);
void client_commit_end(client *c, int rc, unsigned flags, const char *what);
/* Adds to the commit what differs between staged and what the client last wrote. */
void client_commit_staged(client *c);
/* Writes to own slots, into staged too. A batch's are added to the commit that has begun. */
int client_batch_fill(client *c, rw_batch *batch);
int client_batch_write(client *c, rw_batch *batch, uint32_t slot, uint32_t id);
int client_txn_write(client *c, rw_txn *txn, uint32_t slot, uint32_t id);
int client_txn_read(client *c, rw_txn *txn, uint32_t slot);

/* crash_queue.c: a queue is opened, used for a while, and closed. */
void client_queue(client *c);

/* crash_single.c: one transaction, single call or batch over the keys that all clients share. */
void client_shared(client *c);

#endif
