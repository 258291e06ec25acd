/* The operations of one commit, put together in the form in which the log will hold them. */
#ifndef RW_ENGINE_BODY_H
#define RW_ENGINE_BODY_H

#include "engine/engine_internal.h"

/* A zeroed one is empty. */
typedef struct commit_body {
    unsigned char *bytes;
    size_t size, capacity;
    size_t count;                  /* of operations */
} commit_body;

static inline rw_slice body_slice(const commit_body *body)
{
    return rw_slice_of(body->bytes, body->size);
}

/* Empties it, and keeps its memory: what was placed for it belongs to somebody else now, or there was nothing. */
static inline void body_clear(commit_body *body)
{
    body->size = body->count = 0;
}

int body_add(commit_body *body, const wal_op *op);
/* A put of a value of any length: a large one is placed in an extent first. */
int body_add_put(engine *e, commit_body *body, rw_slice key, rw_slice value);
/* Gives back the extents of a body that was not committed, and empties it. */
void body_discard(engine *e, commit_body *body);
void body_free(commit_body *body);

/* batch.c: a commit in parts. Checks it (db: whose it must be, or NULL) and says what it writes; then apply, with ENGINE_NO_WAIT again for as long as it is COMMIT_LOCKED. */
int batch_check(rw_db *db, rw_batch *batch, unsigned flags, rw_slice *body);
int batch_apply(rw_batch *batch, unsigned flags, uint64_t *end_lsn);

#endif
