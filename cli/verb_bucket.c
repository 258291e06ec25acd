/* The verb bucket: create, list, drop. */
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/verb.h"

static int bucket_create(database *d, const char *name)
{
    rw_bucket bucket;
    int code = rw_bucket_open(d->db, name, 0, &bucket);
    if (code == 0) {
        cli_error("the bucket \"%s\" is there already", name);
        return EXIT_NEGATIVE;
    }
    if (code == RW_ENOTFOUND) code = rw_bucket_open(d->db, name, RW_CREATE, &bucket);
    return code == 0 ? EXIT_DONE : cli_error_library(d->db, code, "bucket create %s", name);
}

static int bucket_drop(database *d, const char *name)
{
    rw_bucket bucket;
    int code = rw_bucket_open(d->db, name, 0, &bucket);
    if (code == 0) code = rw_bucket_drop(d->db, bucket);
    return code == 0 ? EXIT_DONE : cli_error_library(d->db, code, "bucket drop %s", name);
}

static int print_bucket(void *arg, const char *name, rw_bucket bucket)
{
    (void)bucket;
    output_row(arg, (output_cell[]){output_cell_word(rw_slice_of(name, strlen(name)))});
    return 0;
}

int bucket_print(FILE *file, output_format format, rw_db *db)
{
    static const char *const columns[] = {"bucket"};
    output o;
    output_begin(&o, file, format, false, columns, 1);
    int code = rw_bucket_list(db, print_bucket, &o);
    output_end(&o);
    return code;
}

static int bucket_list(database *d, output_format format)
{
    int code = bucket_print(stdout, format, d->db);
    return code == 0 ? EXIT_DONE : cli_error_library(d->db, code, "bucket list");
}

int verb_bucket(const arguments *a)
{
    database d;
    const char *action = a->positional[1], *name = a->count == 3 ? a->positional[2] : NULL;
    bool list = strcmp(action, "list") == 0, create = strcmp(action, "create") == 0;
    if (!list && !create && strcmp(action, "drop") != 0) {
        cli_error("bucket: \"%s\" is none of create, list, drop", action);
        return EXIT_USAGE;
    }
    if (list != (name == NULL)) {
        cli_error(list ? "bucket list takes no name" : "bucket %s needs a name", action);
        return EXIT_USAGE;
    }
    int status = database_open(&d, a, create);
    if (status != EXIT_DONE) return status;
    status = list ? bucket_list(&d, a->format) : create ? bucket_create(&d, name) : bucket_drop(&d, name);
    return cli_finish_output(database_close(&d, status));
}
