/* The options and positional arguments of one verb, parsed the same way for all of them. */
#ifndef RW_CLI_ARGUMENTS_H
#define RW_CLI_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/output.h"
#include "ringwood.h"

/* Groups of options that a verb takes: a set of these. */
enum {
    ARGUMENTS_DATABASE = 1u << 0,   /* --cache --workers --io-backend --page-size --read-only --set --verbose */
    ARGUMENTS_BUCKET = 1u << 1,     /* --bucket */
    ARGUMENTS_ASYNC = 1u << 2,      /* --async */
    ARGUMENTS_FORMAT = 1u << 3,     /* --format */
    ARGUMENTS_RAW = 1u << 4,        /* --raw */
    ARGUMENTS_STDIN = 1u << 5,      /* --stdin */
    ARGUMENTS_RANGE = 1u << 6,      /* --limit --reverse */
    ARGUMENTS_SESSION = 1u << 7,    /* --lock-timeout, with a short default */
};

/* One thread cannot give up a lock that it waits for: a session's waits are short. */
#define SESSION_LOCK_TIMEOUT_MS 500u

typedef struct {
    rw_options options;             /* for rw_open; borrows from argv */
    const char *bucket;             /* NULL: the default bucket */
    unsigned write_flags;           /* RW_SYNC or RW_ASYNC */
    output_format format;
    bool raw;
    bool from_stdin;
    bool reverse;
    bool verbose;
    bool help;                      /* --help was given; nothing else counts */
    uint64_t limit;                 /* UINT64_MAX: none */
    const char **positional;        /* owned; the strings are argv's */
    unsigned count;
} arguments;

/* argv[0] is the verb. On a mistake says what is wrong and returns false. In both cases arguments_free is due. */
bool arguments_parse(arguments *a, unsigned groups, int argc, char **argv);
void arguments_free(arguments *a);
/* The lines of a help text that describe the options of these groups. */
void arguments_print_options(FILE *file, unsigned groups);
/* A count of rows as typed: decimal digits. */
bool arguments_read_count(const char *text, uint64_t *count);
/* A signed number of 64 bits: decimal digits, with a sign before them or none. */
bool arguments_read_signed(const char *text, int64_t *number);

#endif
