/* What every file of the command shares: exit codes, and how a mistake is said. */
#ifndef RW_CLI_H
#define RW_CLI_H

#include "ringwood.h"

enum {
    EXIT_DONE = 0,
    EXIT_NEGATIVE = 1,      /* not found, or a check failed */
    EXIT_USAGE = 2,
    EXIT_STORAGE = 3,       /* input/output or corruption */
};

/* Prints "error: ..." to stderr, after what stdout still holds. */
void cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints a failed call of the library as an error, with words in front; returns the exit code that stands for it. */
int cli_error_library(rw_db *db, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Flushes stdout. When that or an earlier write failed, says so (but for a reader that went away) and returns EXIT_STORAGE, else status. */
int cli_finish_output(int status);

#endif
