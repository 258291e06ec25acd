/*
 * Sanitizers do not see what the kernel does on our behalf. Told here, both when an operation is handed over and when it is reaped: so memory that
 * is freed, or touched by another thread, while the kernel has it, is found.
 */
#ifndef RW_KERNEL_IO_SANITIZE_H
#define RW_KERNEL_IO_SANITIZE_H

#include <stddef.h>

#include "base/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define RW_SANITIZE_ADDRESSABLE(buffer, length) RW_ASSERT(__asan_region_is_poisoned((buffer), (length)) == NULL)
#else
#define RW_SANITIZE_ADDRESSABLE(buffer, length) ((void)0)
#endif

#if defined(__SANITIZE_THREAD__)
void __tsan_read_range(void *address, long size);
void __tsan_write_range(void *address, long size);
#else
#define __tsan_read_range(address, size) ((void)0)
#define __tsan_write_range(address, size) ((void)0)
#endif

static inline void sanitize_kernel_reads(void *buffer, size_t length)
{
    RW_SANITIZE_ADDRESSABLE(buffer, length);
    __tsan_read_range(buffer, (long)length);
    (void)buffer, (void)length;
}

static inline void sanitize_kernel_writes(void *buffer, size_t length)
{
    RW_SANITIZE_ADDRESSABLE(buffer, length);
    __tsan_write_range(buffer, (long)length);
    (void)buffer, (void)length;
}

#endif
