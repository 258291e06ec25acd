/* The verb load: reads what dump wrote (dump_format.h). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/dump_format.h"
#include "cli/line_reader.h"
#include "cli/verb.h"

#define LOAD_BATCH_RECORDS 1000u
#define LOAD_BATCH_BYTES (256u << 10)

typedef struct {
    rw_db *db;
    const char *input_name;
    line_reader reader;
    rw_batch *batch;
    uint64_t batch_records, batch_bytes;
    uint64_t buckets, records;          /* lines read */
    uint64_t committed;                 /* records */
    bool ended;                         /* the #end line was read */
    rw_bucket bucket;                   /* the one named by bucket_name; none while that is empty */
    text_buffer bucket_name;            /* ended by a 0 byte */
    text_buffer name, key, value;
} load;

static int load_mistake(const load *l, const char *words)
{
    cli_error("%s, line %" PRIu64 ": %s", l->input_name, l->reader.number, words);
    return EXIT_STORAGE;
}

/* Whatever the library complains of came from the input, so it is never a mistake in the usage. */
static int load_failure(const load *l, int code)
{
    cli_error_library(l->db, code, "%s, line %" PRIu64, l->input_name, l->reader.number);
    return EXIT_STORAGE;
}

/* After a failure the batch is given up: a second try would fail again. */
static int commit_batch(load *l)
{
    uint64_t records = l->batch_records;
    l->batch_records = l->batch_bytes = 0;
    if (records == 0) return EXIT_DONE;
    int code = rw_batch_commit(l->batch, RW_ASYNC);
    if (code != 0) return load_failure(l, code);
    l->committed += records;
    return EXIT_DONE;
}

/* Reads one field into out. */
static int read_field(const load *l, const char *at, const char *end, const char *what, text_buffer *out)
{
    text_mistake mistake;
    char words[256];
    if (text_read_field(at, end, out, &mistake) == TEXT_WORD) return EXIT_DONE;
    snprintf(words, sizeof words, "the %s: %s", what, mistake.words);
    return load_mistake(l, words);
}

/* Makes the bucket of this name, creating it if need be, the one that records go to. */
static int use_bucket(load *l)
{
    if (l->name.size == 0) return load_mistake(l, "the bucket's name is empty");
    if (memchr(l->name.data, '\0', l->name.size) != NULL) return load_mistake(l, "the bucket's name holds a 0 byte");
    text_append_byte(&l->name, '\0');
    if (rw_slice_equal(text_slice(&l->name), text_slice(&l->bucket_name))) return EXIT_DONE;
    int code = rw_bucket_open(l->db, l->name.data, RW_CREATE, &l->bucket);
    if (code != 0) return load_failure(l, code);
    text_assign(&l->bucket_name, l->name.data, l->name.size);
    return EXIT_DONE;
}

static int load_record(load *l, const char *key, const char *value, const char *end)
{
    int status = read_field(l, key, value - 1, "key", &l->key);
    if (status == EXIT_DONE) status = read_field(l, value, end, "value", &l->value);
    if (status != EXIT_DONE) return status;
    int code = rw_batch_put(l->batch, l->bucket, text_slice(&l->key), text_slice(&l->value));
    if (code != 0) return load_failure(l, code);
    l->records++;
    l->batch_records++;
    l->batch_bytes += l->key.size + l->value.size;
    return l->batch_records >= LOAD_BATCH_RECORDS || l->batch_bytes >= LOAD_BATCH_BYTES ? commit_batch(l) : EXIT_DONE;
}

static int load_end(load *l, const char *line)
{
    char expected[80];
    snprintf(expected, sizeof expected, DUMP_END "%" PRIu64 " %" PRIu64, l->buckets, l->records);
    if (strcmp(line, expected) == 0) {
        l->ended = true;
        return EXIT_DONE;
    }
    char words[200];
    snprintf(words, sizeof words, "the counts do not fit: what came before makes \"%s\"", expected);
    return load_mistake(l, words);
}

static int load_first_line(const load *l, const char *line, size_t size)
{
    if (size == strlen(DUMP_HEADER) && memcmp(line, DUMP_HEADER, size) == 0) return EXIT_DONE;
    size_t named = strlen(DUMP_HEADER_NAME);
    bool other_version = size > named && memcmp(line, DUMP_HEADER_NAME, named) == 0;
    for (size_t i = named; i < size; i++) other_version &= line[i] >= '0' && line[i] <= '9';
    return load_mistake(l, other_version ? "this version of the dump format is not known" : "no ringwood dump: it must begin with \"" DUMP_HEADER "\"");
}

static int load_line(load *l, const char *line, size_t size)
{
    const char *end = line + size;
    if (l->reader.number == 1) return load_first_line(l, line, size);
    if (l->ended) return load_mistake(l, "there is more behind the #end line");
    if (size >= strlen(DUMP_END) && memcmp(line, DUMP_END, strlen(DUMP_END)) == 0) {
        char text[80];
        snprintf(text, sizeof text, "%.*s", (int)RW_MIN(size, sizeof text - 1), line);
        return load_end(l, text);
    }
    if (size == 0 || line[0] == '#') return load_mistake(l, size == 0 ? "an empty line" : "a line that begins with # and is not the last");
    const char *tab = memchr(line, '\t', size);
    int status = read_field(l, line, tab != NULL ? tab : end, "bucket's name", &l->name);
    if (status == EXIT_DONE) status = use_bucket(l);
    if (status != EXIT_DONE) return status;
    if (tab == NULL) {
        l->buckets++;
        return EXIT_DONE;
    }
    const char *second = memchr(tab + 1, '\t', (size_t)(end - tab - 1));
    if (second == NULL) return load_mistake(l, "the value is missing: a record is bucket, key and value with tabs between");
    return load_record(l, tab + 1, second + 1, end);
}

static int load_lines(load *l)
{
    const char *line;
    size_t size;
    int status = EXIT_DONE;
    line_result result = LINE_READ;
    while (status == EXIT_DONE && (result = line_reader_next(&l->reader, &line, &size)) == LINE_READ) status = load_line(l, line, size);
    if (result == LINE_FAILED) {
        cli_error("cannot read %s: %s", l->input_name, strerror(errno));
        return EXIT_STORAGE;
    }
    if (l->reader.number == 0) return load_mistake(l, "there is nothing to read");
    if (status == EXIT_DONE && !l->ended) status = load_mistake(l, "the input ends without an #end line: it was cut short");
    return status;
}

/* Reads all lines; what was read before a mistake is kept and durable. */
static int load_all(load *l)
{
    int code = rw_batch_new(l->db, &l->batch);
    if (code != 0) return load_failure(l, code);
    int status = load_lines(l);
    int committed = commit_batch(l);
    if (status == EXIT_DONE) status = committed;
    rw_batch_free(l->batch);
    code = rw_flush(l->db);
    if (code != 0) status = cli_error_library(l->db, code, "making the records durable");
    return status;
}

static void load_report(const load *l, int status)
{
    if (status == EXIT_DONE)
        printf("%" PRIu64 " record%s in %" PRIu64 " bucket%s loaded\n", l->records, l->records == 1 ? "" : "s", l->buckets,
               l->buckets == 1 ? "" : "s");
    else cli_error("%" PRIu64 " record%s before that %s loaded", l->committed, l->committed == 1 ? "" : "s", l->committed == 1 ? "was" : "were");
}

int verb_load(const arguments *a)
{
    database opened;
    const char *path = a->count > 1 ? a->positional[1] : NULL;
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    if (fd < 0) {
        cli_error("cannot open %s: %s", path, strerror(errno));
        return EXIT_STORAGE;
    }
    int status = database_open(&opened, a, true);
    if (status == EXIT_DONE) {
        load l = {.db = opened.db, .input_name = path != NULL ? path : "standard input"};
        line_reader_init(&l.reader, fd);
        status = load_all(&l);
        load_report(&l, status);
        line_reader_free(&l.reader);
        text_free(&l.bucket_name);
        text_free(&l.name);
        text_free(&l.key);
        text_free(&l.value);
        status = database_close(&opened, status);
    }
    if (path != NULL) close(fd);
    return cli_finish_output(status);
}
