#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void cli_error(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs("error: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static int exit_code_of(int code)
{
    switch (code) {
    case 0: return EXIT_DONE;
    case RW_ENOTFOUND:
    case RW_ECONFLICT: return EXIT_NEGATIVE;
    case RW_EINVAL:
    case RW_ETOOBIG: return EXIT_USAGE;
    default: return EXIT_STORAGE;
    }
}

int cli_error_library(rw_db *db, int code, const char *format, ...)
{
    char what[512];
    const char *words = rw_last_error(db);
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    cli_error("%s: %s", what, words[0] != '\0' ? words : rw_strerror(code));
    return exit_code_of(code);
}

/* Whether the reader of a pipe has gone: he has what he wanted, and needs no message. */
static bool reader_gone(int error)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    return error == EPIPE || (poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0);
}

int cli_finish_output(int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    int error = errno; /* 0: it was an earlier write that failed */
    if (!reader_gone(error)) cli_error("cannot write the output%s%s", error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
    return EXIT_STORAGE;
}
