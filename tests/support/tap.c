#include "tests/support/tap.h"

#include <stdarg.h>
#include <stdio.h>

static int tests_run, tests_failed;

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
