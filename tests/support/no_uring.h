/* Doing without io_uring: where the system forbids it, or under valgrind, which waits for io_uring_enter with all other threads stopped. */
#ifndef TESTS_NO_URING_H
#define TESTS_NO_URING_H

#include <stdbool.h>

/* io_uring_setup fails with the given errno in this process from now on. False: not permitted here. With NO_URING in the environment every test
 * program begins so, with EPERM, and what asks for "auto" gets psync. */
bool uring_forbid(int errno_value);

#endif
