/*
 * Locks by key, for the read-modify-write of engines whose plain handle has none: what a program would put around a get and a put. Much cheaper than a
 * transaction of the engine's. Workloads with read-modify-writes do no plain puts, so these need not take them.
 */
#ifndef BENCH_COMPARE_STRIPES_H
#define BENCH_COMPARE_STRIPES_H

#include <pthread.h>

#include "base/base.h"

#define COMPARE_STRIPES 1024u

typedef struct {
    struct {
        RW_ALIGNED(RW_CACHE_LINE) pthread_mutex_t mutex;
    } locks[COMPARE_STRIPES];
} compare_stripes;

/* Aligned memory; NULL when there is none. */
compare_stripes *compare_stripes_new(void);
void compare_stripes_free(compare_stripes *stripes);
/* The lock of a key. */
pthread_mutex_t *compare_stripes_of(compare_stripes *stripes, rw_slice key);

#endif
