#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* Longer sentences are cut. */
#define TEXT_SIZE 512

static _Thread_local char error_text[TEXT_SIZE];
static _Thread_local const char *error_fixed;      /* in place of error_text, when set */

/* A sentence being put together. What does not fit is cut. */
typedef struct {
    char text[TEXT_SIZE];
    size_t length;
} sentence;

static void sentence_add_list(sentence *s, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void sentence_add(sentence *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void sentence_add_list(sentence *s, const char *format, va_list args)
{
    size_t room = TEXT_SIZE - s->length;
    int added = vsnprintf(s->text + s->length, room, format, args);
    if (added > 0) s->length += (size_t)added < room ? (size_t)added : room - 1;
}

static void sentence_add(sentence *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    sentence_add_list(s, format, args);
    va_end(args);
}

/* The last step of each function below, and not before: an argument of theirs may be the present sentence. */
static void sentence_publish(const sentence *s)
{
    memcpy(error_text, s->text, s->length);
    error_text[s->length] = 0;
    error_fixed = NULL;
}

int rw_error(int code, const char *format, ...)
{
    sentence s = {.length = 0};
    va_list args;
    va_start(args, format);
    sentence_add_list(&s, format, args);
    va_end(args);
    sentence_publish(&s);
    return code;
}

int rw_error_fixed(int code, const char *constant)
{
    error_fixed = constant;
    return code;
}

int rw_error_errno(int code, int errno_value, const char *format, ...)
{
    sentence s = {.length = 0};
    char buffer[128];
    va_list args;
    va_start(args, format);
    sentence_add_list(&s, format, args);
    va_end(args);
    sentence_add(&s, ": %s (errno %d)", strerror_r(errno_value, buffer, sizeof buffer), errno_value);
    sentence_publish(&s);
    return code;
}

int rw_error_prefix(int code, const char *format, ...)
{
    sentence s = {.length = 0};
    va_list args;
    va_start(args, format);
    sentence_add_list(&s, format, args);
    va_end(args);
    sentence_add(&s, ": %s", error_text);
    sentence_publish(&s);
    return code;
}

const char *rw_error_text(void)
{
    return error_fixed != NULL ? error_fixed : error_text;
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
