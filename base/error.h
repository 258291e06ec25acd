/*
 * Errors: a code from RW_ERROR_MAP, and one sentence for each thread that says what the last failure met. The place that finds a
 * failure writes the sentence; those above hand on the code, and may put words in front.
 */
#ifndef RW_BASE_ERROR_H
#define RW_BASE_ERROR_H

#include <stdio.h>
#include <stdlib.h>

#include "ringwood.h"

/* Sets the thread's sentence and returns code, so that a caller can write: return rw_error(RW_EIO, "...", ...). */
int rw_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As rw_error, for a constant sentence on a hot path: nothing is formatted or copied. */
int rw_error_fixed(int code, const char *constant);

/* As rw_error, with ": " and the words for errno_value at the end. */
int rw_error_errno(int code, int errno_value, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts words and ": " in front of the thread's sentence; returns code. */
int rw_error_prefix(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The thread's sentence; never NULL. */
const char *rw_error_text(void);

/* The code that stands for an errno of a file operation: ENOSPC and EDQUOT RW_ENOSPC, EACCES and EPERM RW_EACCESS, ENOENT RW_ENOENT, EROFS
 * RW_EREADONLY, EMFILE and ENFILE RW_EFILES, EEXIST RW_EEXIST, ENOMEM RW_ENOMEM, EINVAL RW_EINVAL, EOPNOTSUPP RW_ENOTSUP, else RW_EIO. */
int rw_error_from_errno(int errno_value);

/* A broken invariant. Prints to stderr and aborts: a process that goes on could write what is wrong to the disk. */
_Noreturn void rw_assert_failed(const char *condition, const char *file, int line);

/* Cheap assertions: on in release builds too. */
#define RW_ASSERT(condition)                                                            \
    do {                                                                                \
        if (__builtin_expect(!(condition), 0)) rw_assert_failed(#condition, __FILE__, __LINE__); \
    } while (0)

/* Costly ones (walks over a structure): on in debug and test builds, -DRW_CHECKS. */
#ifdef RW_CHECKS
#define RW_ASSERT_SLOW(condition) RW_ASSERT(condition)
#else
#define RW_ASSERT_SLOW(condition) ((void)0)
#endif

#endif
