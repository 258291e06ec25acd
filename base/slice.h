/* Byte strings: the order of keys, and loads of numbers at any alignment (files are little-endian, and so are the machines we run on). */
#ifndef RW_SLICE_H
#define RW_SLICE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "ringwood.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "formats are little-endian and read in place");

static inline rw_slice rw_slice_of(const void *data, size_t size)
{
    return (rw_slice){.data = data, .size = size};
}

/* Unsigned bytes; a prefix comes before what it begins. <0, 0, >0. */
static inline int rw_slice_compare(rw_slice a, rw_slice b)
{
    size_t shared = a.size < b.size ? a.size : b.size;
    int order = shared == 0 ? 0 : memcmp(a.data, b.data, shared);
    if (order != 0) return order;
    return a.size < b.size ? -1 : a.size > b.size;
}

static inline bool rw_slice_equal(rw_slice a, rw_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline size_t rw_slice_common_prefix(rw_slice a, rw_slice b)
{
    size_t shared = a.size < b.size ? a.size : b.size, i = 0;
    const unsigned char *x = a.data, *y = b.data;
    while (i < shared && x[i] == y[i]) i++;
    return i;
}

static inline uint32_t rw_load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t rw_load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void rw_store_u32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void rw_store_u64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

#endif
