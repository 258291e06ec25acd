/*
 * Histories written by hand. Transactions are separated by '|'; each is
 *   mode[outcome] begin commit: operations
 * mode: S snapshot, Z serializable, P pessimistic, R read-only, O a single call, X recovery. outcome: nothing for committed, ! aborted, ? unknown,
 * * committed and durable. begin and commit are times; "from-to" gives a moment the width of a call.
 * Operations: r read, s read by a scan, u read for update; w write, d delete; then a key (a to z) and a version: 0 the initial one, - absent, ~ one that nobody
 * wrote, or any other letter or digit that names a version of that key. A write's "<v" says what it replaced; without it, it is what its transaction read, or
 * unknown. { } around writes that a savepoint takes back. "+xy" in front of everything: these keys are there at first.
 */
#ifndef TESTS_HISTORY_TEXT_H
#define TESTS_HISTORY_TEXT_H

#include "tests/isolation/history.h"

/* Ends the program with a message when the text is malformed. */
history *history_from_text(const char *text);

#endif
