/* Large areas of memory that live as long as a database: zeroed, in huge pages if they can be had, not copied into forked children. */
#ifndef RW_MEMORY_H
#define RW_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* NULL when there is no memory. Spread over the NUMA nodes: readers come from all of them. */
void *rw_memory_map(size_t bytes);
void rw_memory_unmap(void *area, size_t bytes);

/* Gets the memory for a part of a mapped area, whose content stays, before it is touched: the first touch of a huge page takes from 0.2 ms to
 * 5 ms (in a virtual machine that must ask for it). Advice: without it memory comes at the first touch. */
void rw_memory_populate(void *from, size_t bytes);

/* Of the machine, in bytes; UINT64_MAX: it does not say. */
uint64_t rw_memory_physical(void);

/* Some MiB for a moment: zeroed, aligned to RW_BLOCK_SIZE; what is not touched takes nothing, and all of it is the system's again after rw_memory_unmap, where the heap would keep it, in pieces. NULL when
 * there is none. */
void *rw_memory_borrow(size_t bytes);

/* Aligned to RW_BLOCK_SIZE, for direct I/O; NULL when there is no memory. Freed with free(). */
void *rw_memory_aligned(size_t bytes);

#endif
