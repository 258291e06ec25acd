/* The verbs that concern one record: get, put, del. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/range.h"
#include "cli/verb.h"

static void print_value(const arguments *a, rw_slice key, rw_slice value)
{
    static const char *const names[] = {"key", "value"};
    output o;
    if (a->raw) {
        fwrite(value.data, 1, value.size, stdout);
    } else if (a->format == OUTPUT_TABLE) {
        output_begin(&o, stdout, OUTPUT_TABLE, true, names + 1, 1);
        output_row(&o, (output_cell[]){output_cell_value(value)});
        output_end(&o);
    } else {
        output_begin(&o, stdout, a->format, true, names, 2);
        output_row(&o, (output_cell[]){output_cell_word(key), output_cell_value(value)});
        output_end(&o);
    }
}

int verb_get(const arguments *a)
{
    database d;
    text_buffer key = {0}, value = {0};
    stopwatch watch = {0};
    if (a->raw && a->format != OUTPUT_TABLE) {
        cli_error("--raw and --format exclude each other");
        return EXIT_USAGE;
    }
    int status = verb_read_key(a, 1, &key);
    if (status == EXIT_DONE) status = database_open(&d, a, false);
    if (status == EXIT_DONE) {
        int code = range_get(d.db, NULL, d.bucket, text_slice(&key), false, &value, &watch);
        if (code == 0) print_value(a, text_slice(&key), text_slice(&value));
        else status = cli_error_library(d.db, code, "get %.60s", a->positional[1]);
        status = database_close(&d, status);
    }
    text_free(&key);
    text_free(&value);
    return cli_finish_output(status);
}

static int read_all_of_stdin(text_buffer *value)
{
    for (;;) {
        text_reserve(value, value->size + 65536);
        ssize_t got = read(STDIN_FILENO, value->data + value->size, value->capacity - value->size);
        if (got == 0) return EXIT_DONE;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            cli_error("cannot read the value from standard input: %s", strerror(errno));
            return EXIT_STORAGE;
        }
        value->size += (size_t)got;
        if (value->size > RW_VALUE_SIZE_MAX) {
            cli_error("the value on standard input is longer than %zu bytes", RW_VALUE_SIZE_MAX);
            return EXIT_USAGE;
        }
    }
}

/* The value of put: standard input, or the last argument. */
static int read_value(const arguments *a, text_buffer *value)
{
    if (a->from_stdin != (a->count == 2)) {
        cli_error("put takes a value, or --stdin and no value");
        return EXIT_USAGE;
    }
    return a->from_stdin ? read_all_of_stdin(value) : verb_read_value(a, 2, value);
}

int verb_put(const arguments *a)
{
    database d;
    text_buffer key = {0}, value = {0};
    int status = verb_read_key(a, 1, &key);
    if (status == EXIT_DONE) status = read_value(a, &value);
    if (status == EXIT_DONE) status = database_open(&d, a, true);
    if (status == EXIT_DONE) {
        int code = rw_put(d.db, d.bucket, text_slice(&key), text_slice(&value), a->write_flags);
        if (code != 0) status = cli_error_library(d.db, code, "put %.60s", a->positional[1]);
        status = database_close(&d, status);
    }
    text_free(&key);
    text_free(&value);
    return status;
}

int verb_del(const arguments *a)
{
    database d;
    text_buffer key = {0};
    int status = verb_read_key(a, 1, &key);
    if (status == EXIT_DONE) status = database_open(&d, a, false);
    if (status == EXIT_DONE) {
        int code = rw_del(d.db, d.bucket, text_slice(&key), a->write_flags);
        if (code != 0) status = cli_error_library(d.db, code, "del %.60s", a->positional[1]);
        status = database_close(&d, status);
    }
    text_free(&key);
    return status;
}
