/* Large areas of memory that live as long as a database: zeroed, in huge pages if they can be had, not copied into forked children. */
#ifndef RW_MEMORY_H
#define RW_MEMORY_H

#include <stddef.h>

/* NULL when there is no memory. Spread over the NUMA nodes: readers come from all of them. */
void *rw_memory_map(size_t bytes);
void rw_memory_unmap(void *area, size_t bytes);

/* Aligned to RW_BLOCK_SIZE, for direct I/O; NULL when there is no memory. Freed with free(). */
void *rw_memory_aligned(size_t bytes);

#endif
