/* The verb dump: all records of all buckets, as of one moment, as text (dump_format.h). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/dump_format.h"
#include "cli/range.h"
#include "cli/verb.h"

typedef struct {
    FILE *file;
    uint64_t buckets, records;
    text_buffer bucket_field;       /* the name of the bucket being written, escaped */
    text_buffer line;
} dump;

static int dump_record(void *arg, rw_slice key, rw_slice value)
{
    dump *d = arg;
    text_assign(&d->line, d->bucket_field.data, d->bucket_field.size);
    text_append_byte(&d->line, '\t');
    text_append_field(&d->line, key);
    text_append_byte(&d->line, '\t');
    text_append_field(&d->line, value);
    text_append_byte(&d->line, '\n');
    fwrite(d->line.data, 1, d->line.size, d->file);
    d->records++;
    return ferror(d->file) ? RW_EIO : 0;
}

static int dump_bucket(dump *d, rw_db *db, rw_txn *txn, const char *name)
{
    rw_bucket bucket;
    uint64_t rows;
    stopwatch watch = {0};
    range all = {.limit = UINT64_MAX};
    int code = rw_bucket_open(db, name, 0, &bucket);
    if (code != 0) return code;
    text_clear(&d->bucket_field);
    if (name[0] == '#') text_append_string(&d->bucket_field, "\\x23");
    text_append_field(&d->bucket_field, rw_slice_of(name + (name[0] == '#'), strlen(name + (name[0] == '#'))));
    fprintf(d->file, "%.*s\n", (int)d->bucket_field.size, d->bucket_field.data);
    d->buckets++;
    return range_walk(db, txn, bucket, &all, dump_record, d, &rows, &watch);
}

/* The names one after the other, each ended by a 0 byte. */
static int gather_name(void *arg, const char *name, rw_bucket bucket)
{
    (void)bucket;
    text_append(arg, name, strlen(name) + 1);
    return 0;
}

static int dump_all(dump *d, rw_db *db, const char *only_bucket)
{
    rw_txn *txn;
    text_buffer names = {0};
    int code = rw_txn_begin(db, RW_READONLY, &txn);
    if (code != 0) return code;
    code = only_bucket != NULL ? gather_name(&names, only_bucket, 0) : rw_bucket_list(db, gather_name, &names);
    fputs(DUMP_HEADER "\n", d->file);
    for (size_t at = 0; code == 0 && at < names.size; at += strlen(names.data + at) + 1) code = dump_bucket(d, db, txn, names.data + at);
    if (code == 0) fprintf(d->file, DUMP_END "%" PRIu64 " %" PRIu64 "\n", d->buckets, d->records);
    rw_txn_abort(txn);
    text_free(&names);
    return code;
}

/* Makes a file's bytes durable: a dump is a backup. */
static int finish_file(FILE *file, const char *path, int status)
{
    errno = 0;
    bool failed = ferror(file) != 0;
    failed |= fflush(file) != 0 || (fsync(fileno(file)) != 0 && errno != EINVAL && errno != EROFS);
    int error = errno;
    failed |= fclose(file) != 0;
    if (!failed) return status;
    cli_error("cannot write %s: %s", path, strerror(error != 0 ? error : errno != 0 ? errno : EIO));
    return EXIT_STORAGE;
}

int verb_dump(const arguments *a)
{
    database opened;
    const char *path = a->count > 1 ? a->positional[1] : NULL;
    int status = database_open(&opened, a, false);
    if (status != EXIT_DONE) return status;
    dump d = {.file = path != NULL ? fopen(path, "w") : stdout};
    if (d.file == NULL) {
        cli_error("cannot create %s: %s", path, strerror(errno));
        return database_close(&opened, EXIT_STORAGE);
    }
    int code = dump_all(&d, opened.db, a->bucket);
    if (code != 0 && !ferror(d.file)) status = cli_error_library(opened.db, code, "dump");
    text_free(&d.bucket_field);
    text_free(&d.line);
    status = path != NULL ? finish_file(d.file, path, status) : cli_finish_output(status);
    return database_close(&opened, status);
}
