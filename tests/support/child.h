/* Runs a part of a test in a process of its own, so that a crash or a hang there is a result here. */
#ifndef TESTS_CHILD_H
#define TESTS_CHILD_H

#include <stdbool.h>
#include <stddef.h>

/* What child_run returns for a child that a signal ended; a hang ends by SIGALRM. */
#define CHILD_SIGNAL(number) (256 + (number))

/* Runs fn(arg) in a forked child. Returns its exit status, the low 8 bits of what fn returns, or CHILD_SIGNAL. */
int child_run(int (*fn)(void *arg), void *arg, unsigned timeout_seconds);

/* In the child: leaves words for the parent, the newest ones only. */
void child_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* In the parent: what the last child said; "" for nothing. */
const char *child_said(void);
/* In the child: says where and returns false, unless the condition holds. */
#define CHILD_CHECK(condition) ((condition) ? true : (child_say("%s:%d: %s", __FILE__, __LINE__, #condition), false))

/* Zeroed memory that the child and the parent both see; freed at exit. */
void *child_shared(size_t size);

/* Gives the calling process mounts of its own that vanish with it; false where that is not permitted. Call it in a child. */
bool child_own_mounts(void);

#endif
