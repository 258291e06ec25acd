#include "bench/compare/stripes.h"

#include <stdlib.h>

compare_stripes *compare_stripes_new(void)
{
    compare_stripes *stripes = aligned_alloc(RW_CACHE_LINE, sizeof *stripes);
    for (unsigned i = 0; stripes != NULL && i < COMPARE_STRIPES; i++) pthread_mutex_init(&stripes->locks[i].mutex, NULL);
    return stripes;
}

void compare_stripes_free(compare_stripes *stripes)
{
    for (unsigned i = 0; stripes != NULL && i < COMPARE_STRIPES; i++) pthread_mutex_destroy(&stripes->locks[i].mutex);
    free(stripes);
}

pthread_mutex_t *compare_stripes_of(compare_stripes *stripes, rw_slice key)
{
    const unsigned char *bytes = key.data;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < key.size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return &stripes->locks[(hash >> 32) % COMPARE_STRIPES].mutex;
}
