#include "base/memory.h"

#include <numa.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/limits.h"

void *rw_memory_map(size_t bytes)
{
    void *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) return NULL;
    /* Both are advice: without them everything works, only slower or heavier at fork. */
    (void)madvise(area, bytes, MADV_HUGEPAGE);
    (void)madvise(area, bytes, MADV_DONTFORK);
    if (numa_available() >= 0 && numa_num_configured_nodes() > 1) numa_interleave_memory(area, bytes, numa_all_nodes_ptr);
    return area;
}

void *rw_memory_borrow(size_t bytes)
{
    void *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return area == MAP_FAILED ? NULL : area;
}

void rw_memory_populate(void *from, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    (void)madvise(from, bytes, MADV_POPULATE_WRITE);
#else
    (void)from, (void)bytes;
#endif
}

void rw_memory_unmap(void *area, size_t bytes)
{
    if (area != NULL) munmap(area, bytes);
}

void *rw_memory_aligned(size_t bytes)
{
    void *area = NULL;
    return posix_memalign(&area, RW_BLOCK_SIZE, bytes) == 0 ? area : NULL;
}

uint64_t rw_memory_physical(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && bytes > 0 ? (uint64_t)pages * (uint64_t)bytes : UINT64_MAX;
}
