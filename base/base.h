/* The face of base/: what every part uses. No I/O, no threads of its own. */
#ifndef RW_BASE_H
#define RW_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/checksum.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/slice.h"

#define RW_LIKELY(x) __builtin_expect(!!(x), 1)
#define RW_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define RW_MIN(a, b) ((a) < (b) ? (a) : (b))
#define RW_MAX(a, b) ((a) > (b) ? (a) : (b))
#define RW_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define RW_CACHE_LINE 64
#define RW_ALIGNED(n) __attribute__((aligned(n)))
#define RW_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t rw_align_up(uint64_t n, uint64_t power_of_two)
{
    return (n + power_of_two - 1) & ~(power_of_two - 1);
}

/* The largest power of two that is not above n > 0. */
static inline uint32_t rw_power_below(uint32_t n)
{
    return (uint32_t)1 << (31 - (unsigned)__builtin_clz(n));
}

static inline bool rw_is_power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* Tells the processor that this is a spin loop. */
static inline void rw_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

#endif
