/* The verbs that read and write as one operation: cas, add. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/verb.h"

/* A value given as argument; a lone - is none: *slice is then NULL. Returns an exit code. */
static int read_optional(const arguments *a, unsigned index, text_buffer *value, rw_slice *room, const rw_slice **slice)
{
    bool none = strcmp(a->positional[index], "-") == 0;
    int status = none ? EXIT_DONE : verb_read_value(a, index, value);
    *room = text_slice(value);
    *slice = none ? NULL : room;
    return status;
}

int verb_cas(const arguments *a)
{
    database d;
    text_buffer key = {0}, expected = {0}, desired = {0};
    rw_slice expected_room, desired_room;
    const rw_slice *expected_value = NULL, *desired_value = NULL;
    int status = verb_read_key(a, 1, &key);
    if (status == EXIT_DONE) status = read_optional(a, 2, &expected, &expected_room, &expected_value);
    if (status == EXIT_DONE) status = read_optional(a, 3, &desired, &desired_room, &desired_value);
    if (status == EXIT_DONE) status = database_open(&d, a, true);
    if (status == EXIT_DONE) {
        int code = rw_cas(d.db, d.bucket, text_slice(&key), expected_value, desired_value, a->write_flags);
        if (code != 0) status = cli_error_library(d.db, code, "cas %.60s", a->positional[1]);
        status = database_close(&d, status);
    }
    text_free(&key);
    text_free(&expected);
    text_free(&desired);
    return status;
}

int verb_add(const arguments *a)
{
    database d;
    text_buffer key = {0};
    int64_t delta, sum = 0;
    int status = verb_read_key(a, 1, &key);
    if (status == EXIT_DONE && !arguments_read_signed(a->positional[2], &delta)) {
        cli_error("add: \"%.60s\" is not a whole number of 64 bits", a->positional[2]);
        status = EXIT_USAGE;
    }
    if (status == EXIT_DONE) status = database_open(&d, a, true);
    if (status == EXIT_DONE) {
        int code = rw_add(d.db, d.bucket, text_slice(&key), delta, &sum, a->write_flags);
        if (code == 0) printf("%" PRId64 "\n", sum);
        else status = cli_error_library(d.db, code, "add %.60s", a->positional[1]);
        status = database_close(&d, status);
    }
    text_free(&key);
    return cli_finish_output(status);
}
