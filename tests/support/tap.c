#include "tests/support/tap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LIMIT_S 1200u              /* several times the longest on a slow machine */

static int tests_run, tests_failed;

/* A program that hangs fails, and the others go on. Those that take less long say so themselves, by another alarm. */
__attribute__((constructor)) static void limit_time(void)
{
    if (getenv("CHECK_LONG") == NULL) alarm(LIMIT_S);
}

bool tap_ok(bool condition, const char *format, ...)
{
    va_list args;
    tests_run++;
    if (!condition) tests_failed++;
    printf("%sok %d - ", condition ? "" : "not ", tests_run);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
    return condition;
}

void tap_diag(const char *format, ...)
{
    va_list args;
    printf("# ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

void tap_skip(const char *reason)
{
    printf("ok %d # skip %s\n", ++tests_run, reason);
}

int tap_done(void)
{
    printf("1..%d\n", tests_run);
    return tests_failed == 0 && tests_run > 0 ? 0 : 1;
}
