/* Recovery's readers, between preload.c and recovery.c. */
#ifndef RW_ENGINE_PRELOAD_H
#define RW_ENGINE_PRELOAD_H

#include "engine/engine_internal.h"

typedef struct preload preload;

int preload_open(engine *e, preload **out);
/* Brings the leaves of these keys into the cache. No token is held. */
void preload_run(preload *p, const rw_slice *keys, uint32_t count);
void preload_close(preload *p);

#endif
