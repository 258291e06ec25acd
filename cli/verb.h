/* The verbs of the command, and what those that work on a database share. */
#ifndef RW_CLI_VERB_H
#define RW_CLI_VERB_H

#include "cli/arguments.h"
#include "cli/text.h"
#include "ringwood.h"

typedef struct {
    const char *name;
    const char *usage;              /* the positional arguments */
    const char *summary;            /* one line for the list of verbs */
    const char *help;               /* further lines for --help; may be empty */
    unsigned groups;                /* options it takes (arguments.h) */
    unsigned arguments_min, arguments_max;
    int (*run)(const arguments *a);              /* returns an exit code */
    int (*own_main)(int argc, char **argv);      /* instead of run: parses its own arguments, argv[0] is the verb */
} verb;

int verb_shell(const arguments *a);
int verb_get(const arguments *a);
int verb_put(const arguments *a);
int verb_del(const arguments *a);
int verb_cas(const arguments *a);
int verb_add(const arguments *a);
int verb_scan(const arguments *a);
int verb_prefix(const arguments *a);
int verb_count(const arguments *a);
int verb_first(const arguments *a);
int verb_last(const arguments *a);
int verb_delete_range(const arguments *a);
int verb_bucket(const arguments *a);
int verb_stat(const arguments *a);
int verb_verify(const arguments *a);
int verb_log(const arguments *a);
int verb_repair(const arguments *a);
int verb_checkpoint(const arguments *a);
int verb_compact(const arguments *a);
int verb_dump(const arguments *a);
int verb_load(const arguments *a);

/* Replaces the process, unless it returns. */
int verb_compare(int argc, char **argv);

/* An open database and the bucket that the verb works in. */
typedef struct {
    rw_db *db;
    rw_bucket bucket;
} database;

/* Opens the database named by the first argument, and the bucket; says what went wrong. Returns an exit code. create: make it when missing. */
int database_open(database *d, const arguments *a, bool create);
/* Closes it. Returns status, or what the failure to close stands for when that is worse. */
int database_close(database *d, int status);

/* Decodes a key given as argument (text.h: word; or raw). Returns an exit code. */
int verb_read_key(const arguments *a, unsigned index, text_buffer *key);
/* The same for a value: quoted when it begins with a quote, else as it stands. */
int verb_read_value(const arguments *a, unsigned index, text_buffer *value);

/* Prints the names of all buckets. Returns rw_bucket_list's code. */
int bucket_print(FILE *file, output_format format, rw_db *db);

/* Prints the statistics of an open database: aligned lines with what each number means, or one row. */
void stat_print(FILE *file, output_format format, const rw_stats_t *stats);

/* Runs rw_verify and prints its findings as rows. Returns rw_verify's code. */
int verify_print(FILE *file, output_format format, const char *directory, uint64_t *findings);

#endif
