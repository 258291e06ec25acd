/*
 * The only places where memory is read that another thread may be changing at that moment. An optimistic reader reads a page's bytes through
 * these, checks every offset before it uses it, and trusts nothing until the frame's version has been found unchanged
 * (buffer/README.md). The thread sanitizer is told so here and nowhere else.
 */
#ifndef RW_RACY_H
#define RW_RACY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
/* Functions marked RW_RACY are not instrumented, and must not call the sanitizer's own memcpy and memcmp. */
#define RW_RACY __attribute__((no_sanitize("thread")))

RW_RACY static inline void rw_racy_copy(void *to, const void *from, size_t size)
{
    volatile unsigned char *t = to;
    const volatile unsigned char *f = from;
    for (size_t i = 0; i < size; i++) t[i] = f[i];
}

RW_RACY static inline int rw_racy_compare(const void *a, const void *b, size_t size)
{
    const volatile unsigned char *x = a, *y = b;
    for (size_t i = 0; i < size; i++) {
        unsigned char cx = x[i], cy = y[i];
        if (cx != cy) return cx < cy ? -1 : 1;
    }
    return 0;
}
#else
#define RW_RACY

static inline void rw_racy_copy(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
}

static inline int rw_racy_compare(const void *a, const void *b, size_t size)
{
    return memcmp(a, b, size);
}
#endif

RW_RACY static inline uint8_t rw_racy_u8(const void *p)
{
    uint8_t v;
    rw_racy_copy(&v, p, sizeof v);
    return v;
}

RW_RACY static inline uint16_t rw_racy_u16(const void *p)
{
    uint16_t v;
    rw_racy_copy(&v, p, sizeof v);
    return v;
}

RW_RACY static inline uint32_t rw_racy_u32(const void *p)
{
    uint32_t v;
    rw_racy_copy(&v, p, sizeof v);
    return v;
}

RW_RACY static inline uint64_t rw_racy_u64(const void *p)
{
    uint64_t v;
    rw_racy_copy(&v, p, sizeof v);
    return v;
}

#endif
