#include "cli/cli.h"
#include "cli/verb.h"

int database_open(database *d, const arguments *a, bool create)
{
    rw_options options = a->options;
    const char *directory = a->positional[0];
    if (!create) options.create = 0;
    int code = rw_open(directory, &options, &d->db);
    if (code != 0) return cli_error_library(NULL, code, "cannot open %s", directory);
    d->bucket = RW_DEFAULT_BUCKET;
    if (a->bucket == NULL) return EXIT_DONE;
    code = rw_bucket_open(d->db, a->bucket, 0, &d->bucket);
    if (code == 0) return EXIT_DONE;
    if (code == RW_ENOTFOUND) {
        cli_error("there is no bucket \"%s\" (ringwood bucket %s create makes one)", a->bucket, directory);
        return database_close(d, EXIT_NEGATIVE);
    }
    return database_close(d, cli_error_library(d->db, code, "bucket \"%s\"", a->bucket));
}

int database_close(database *d, int status)
{
    int code = rw_close(d->db);
    if (code == 0) return status;
    int closed = cli_error_library(NULL, code, "closing the database");
    return closed > status ? closed : status;
}

int verb_read_key(const arguments *a, unsigned index, text_buffer *key)
{
    text_mistake mistake;
    const char *argument = a->positional[index];
    if (a->raw) {
        text_clear(key);
        text_append_string(key, argument);
        return EXIT_DONE;
    }
    if (text_read_argument(argument, key, &mistake) == TEXT_WORD) return EXIT_DONE;
    cli_error("key %.60s: %s (--raw takes it as it stands)", argument, mistake.words);
    return EXIT_USAGE;
}

int verb_read_value(const arguments *a, unsigned index, text_buffer *value)
{
    text_mistake mistake;
    const char *argument = a->positional[index];
    text_clear(value);
    if (a->raw || argument[0] != '"') {
        text_append_string(value, argument);
        return EXIT_DONE;
    }
    if (text_read_argument(argument, value, &mistake) == TEXT_WORD) return EXIT_DONE;
    cli_error("value: %s (--raw takes it as it stands)", mistake.words);
    return EXIT_USAGE;
}
