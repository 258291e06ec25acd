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

/* One load each, at any alignment: what was checked is what is used, the compiler may not read it again. */
#define RW_RACY_LOAD(bits)                                                                   \
    typedef struct {                                                                         \
        uint##bits##_t value;                                                                \
    } __attribute__((packed, may_alias)) rw_racy_cell_##bits;                                \
    RW_RACY static inline uint##bits##_t rw_racy_u##bits(const void *p)                      \
    {                                                                                        \
        return ((const volatile rw_racy_cell_##bits *)p)->value;                             \
    }

RW_RACY_LOAD(8)
RW_RACY_LOAD(16)
RW_RACY_LOAD(32)
RW_RACY_LOAD(64)
#undef RW_RACY_LOAD

#endif
