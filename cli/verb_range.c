/* The verbs that concern a range of keys: scan, prefix, count, first, last, delete-range. */
#include <stdio.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/range.h"
#include "cli/verb.h"

static const char *const record_columns[] = {"key", "value"};

static int print_record(void *arg, rw_slice key, rw_slice value)
{
    output *o = arg;
    output_row(o, (output_cell[]){output_cell_word(key), output_cell_value(value)});
    return ferror(o->file) ? RW_EIO : 0;
}

/* Opens the database and walks; says what went wrong. o NULL: nothing is printed for the records. *walked: to the end, whatever went wrong afterwards. */
static int walk_database(const arguments *a, const range *r, output *o, uint64_t *rows, bool *walked)
{
    database d;
    stopwatch watch = {0};
    int status = database_open(&d, a, false);
    *walked = false;
    if (status != EXIT_DONE) return status;
    int code = range_walk(d.db, NULL, d.bucket, r, o != NULL ? print_record : NULL, o, rows, &watch);
    if (code != 0 && !ferror(stdout)) status = cli_error_library(d.db, code, "reading %s", a->positional[0]);
    *walked = code == 0;
    return database_close(&d, status);
}

static int print_range(const arguments *a, const range *r)
{
    output o;
    uint64_t rows;
    bool walked;
    output_begin(&o, stdout, a->format, false, record_columns, 2);
    int status = walk_database(a, r, &o, &rows, &walked);
    output_end(&o);
    return cli_finish_output(status);
}

/* Decodes the bounds from and to where they are given, at index 1 and 2. */
static int read_bounds(const arguments *a, text_buffer *from, text_buffer *to)
{
    int status = EXIT_DONE;
    if (a->count > 1) status = verb_read_key(a, 1, from);
    if (status == EXIT_DONE && a->count > 2) status = verb_read_key(a, 2, to);
    if (status != EXIT_DONE || !range_is_backward(text_slice(from), text_slice(to))) return status;
    cli_error("the range ends before it begins: from %s to %s", a->positional[1], a->positional[2]);
    return EXIT_USAGE;
}

int verb_scan(const arguments *a)
{
    text_buffer from = {0}, to = {0};
    int status = read_bounds(a, &from, &to);
    if (status == EXIT_DONE) {
        range r = {.from = text_slice(&from), .to = text_slice(&to), .reverse = a->reverse, .limit = a->limit};
        status = print_range(a, &r);
    }
    text_free(&from);
    text_free(&to);
    return status;
}

int verb_prefix(const arguments *a)
{
    text_buffer from = {0}, to = {0};
    int status = verb_read_key(a, 1, &from);
    if (status == EXIT_DONE) {
        range_prefix_end(text_slice(&from), &to);
        range r = {.from = text_slice(&from), .to = text_slice(&to), .reverse = a->reverse, .limit = a->limit};
        status = print_range(a, &r);
    }
    text_free(&from);
    text_free(&to);
    return status;
}

int verb_count(const arguments *a)
{
    static const char *const columns[] = {"count"};
    text_buffer from = {0}, to = {0};
    output o;
    uint64_t rows = 0;
    bool walked = false;
    int status = read_bounds(a, &from, &to);
    if (status == EXIT_DONE) {
        range r = {.from = text_slice(&from), .to = text_slice(&to), .keys_only = true, .limit = UINT64_MAX};
        status = walk_database(a, &r, NULL, &rows, &walked);
    }
    if (walked) {
        output_begin(&o, stdout, a->format, true, columns, 1);
        output_row(&o, (output_cell[]){output_cell_number(rows)});
        output_end(&o);
    }
    text_free(&from);
    text_free(&to);
    return cli_finish_output(status);
}

static int print_end(const arguments *a, bool reverse)
{
    output o;
    uint64_t rows = 0;
    bool walked;
    range r = {.reverse = reverse, .limit = 1};
    output_begin(&o, stdout, a->format, true, record_columns, 2);
    int status = walk_database(a, &r, &o, &rows, &walked);
    output_end(&o);
    if (status == EXIT_DONE && rows == 0) {
        cli_error("not found: there are no records");
        status = EXIT_NEGATIVE;
    }
    return cli_finish_output(status);
}

int verb_first(const arguments *a)
{
    return print_end(a, false);
}

int verb_last(const arguments *a)
{
    return print_end(a, true);
}

int verb_delete_range(const arguments *a)
{
    database d;
    text_buffer from = {0}, to = {0};
    int status = read_bounds(a, &from, &to);
    if (status == EXIT_DONE) status = database_open(&d, a, false);
    if (status == EXIT_DONE) {
        int code = rw_delete_range(d.db, d.bucket, text_slice(&from), text_slice(&to), a->write_flags);
        if (code != 0) status = cli_error_library(d.db, code, "delete-range");
        status = database_close(&d, status);
    }
    text_free(&from);
    text_free(&to);
    return status;
}
