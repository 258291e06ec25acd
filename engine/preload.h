/* Recovery's readers, between preload.c and replay.c. */
#ifndef RW_ENGINE_PRELOAD_H
#define RW_ENGINE_PRELOAD_H

#include "engine/engine_internal.h"

typedef struct preload preload;

int preload_open(engine *e, preload **out);
/* A place that a piece of the log changes. */
typedef struct {
    rw_slice key;
    bool pends;                        /* its leaf need not be read, if there is memory for what waits for it */
} preload_key;
/* Begins to bring the leaves of these keys, which stay the caller's and where they are, into the cache; none may be under way. */
void preload_begin(preload *p, const preload_key *keys, uint32_t count);
/* Returns when what was begun, if anything was, is done. No token is held. */
void preload_wait(preload *p);
void preload_close(preload *p);

#endif
