/* TAP for test programs: ok lines on stdout, diagnostics behind '#'. */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdbool.h>

/* Reports one test; returns condition. */
bool tap_ok(bool condition, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tap_diag(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tap_skip(const char *reason);
/* Prints the plan; returns the exit status for main. */
int tap_done(void);

/* Inside longer checks: a failure prints where, counts as a failed test, and the caller goes on. */
#define TAP_CHECK(condition) ((condition) ? true : tap_ok(false, "%s:%d: %s", __FILE__, __LINE__, #condition))

#endif
