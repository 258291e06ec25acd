#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* Longer sentences are cut. */
#define TEXT_SIZE 512

static _Thread_local char error_text[TEXT_SIZE];

/*
 * Every writer formats into a buffer of its own first: an argument may well be the present sentence.
 */
static void text_set(const char *text)
{
    memcpy(error_text, text, strlen(text) + 1);
}

int rw_error(int code, const char *format, ...)
{
    char text[TEXT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text_set(text);
    return code;
}

int rw_error_errno(int code, int errno_value, const char *format, ...)
{
    char text[TEXT_SIZE], words_buffer[128];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < sizeof text) {
        const char *words = strerror_r(errno_value, words_buffer, sizeof words_buffer);
        snprintf(text + length, sizeof text - (size_t)length, ": %s (errno %d)", words, errno_value);
    }
    text_set(text);
    return code;
}

int rw_error_prefix(int code, const char *format, ...)
{
    char text[TEXT_SIZE];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < sizeof text) snprintf(text + length, sizeof text - (size_t)length, ": %s", error_text);
    text_set(text);
    return code;
}

const char *rw_error_text(void)
{
    return error_text;
}

int rw_error_from_errno(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT: return RW_ENOSPC;
    case EACCES:
    case EPERM: return RW_EACCESS;
    case ENOENT: return RW_ENOENT;
    case EROFS: return RW_EREADONLY;
    case EMFILE:
    case ENFILE: return RW_EFILES;
    case EEXIST: return RW_EEXIST;
    case ENOMEM: return RW_ENOMEM;
    case EINVAL: return RW_EINVAL;
    case EOPNOTSUPP: return RW_ENOTSUP;
    default: return RW_EIO;
    }
}

const char *rw_strerror(int code)
{
    switch (code) {
    case 0: return "success";
#define TEXT_CASE(name, number, text) \
    case number: return text;
        RW_ERROR_MAP(TEXT_CASE)
#undef TEXT_CASE
    default: return "unknown error";
    }
}

_Noreturn void rw_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "ringwood: broken invariant at %s:%d: %s\n", file, line, condition);
    abort();
}
