#include "cli/arguments.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"

typedef struct {
    const char *name;
    const char *value_name;         /* NULL: takes no value */
    unsigned group;                 /* 0: every verb takes it */
    const char *setting;            /* handed to rw_options_set under this name */
    const char *setting_value;      /* what a flag sets it to */
    bool (*apply)(arguments *a, const char *value);
    const char *help;
} option;

static void log_to_stderr(void *arg, int level, const char *message)
{
    const bool *verbose = arg;
    if (level < RW_LOG_WARNING && !*verbose) return;
    fprintf(stderr, "%s: %s\n", level == RW_LOG_ERROR ? "error" : level == RW_LOG_WARNING ? "warning" : "info", message);
}

static bool apply_set(arguments *a, const char *value)
{
    char name[64];
    const char *equals = strchr(value, '=');
    if (equals == NULL || (size_t)(equals - value) >= sizeof name) {
        cli_error("--set takes NAME=VALUE, not \"%s\"", value);
        return false;
    }
    memcpy(name, value, (size_t)(equals - value));
    name[equals - value] = '\0';
    if (rw_options_set(&a->options, name, equals + 1) == 0) return true;
    cli_error("--set %s: %s", value, rw_last_error(NULL));
    return false;
}

static bool apply_verbose(arguments *a, const char *value)
{
    (void)value;
    return a->verbose = true;
}

static bool apply_bucket(arguments *a, const char *value)
{
    a->bucket = value;
    return true;
}

static bool apply_async(arguments *a, const char *value)
{
    (void)value;
    a->write_flags = RW_ASYNC;
    return true;
}

static bool apply_format(arguments *a, const char *value)
{
    static const char *const names[] = {[OUTPUT_TABLE] = "table", [OUTPUT_JSON] = "json", [OUTPUT_CSV] = "csv"};
    for (size_t i = 0; i < RW_ARRAY_SIZE(names); i++) {
        if (strcmp(value, names[i]) != 0) continue;
        a->format = (output_format)i;
        return true;
    }
    cli_error("--format is table, json or csv, not \"%s\"", value);
    return false;
}

static bool apply_raw(arguments *a, const char *value)
{
    (void)value;
    return a->raw = true;
}

static bool apply_stdin(arguments *a, const char *value)
{
    (void)value;
    return a->from_stdin = true;
}

static bool apply_limit(arguments *a, const char *value)
{
    if (arguments_read_count(value, &a->limit)) return true;
    cli_error("--limit takes a number, not \"%s\"", value);
    return false;
}

static bool apply_reverse(arguments *a, const char *value)
{
    (void)value;
    return a->reverse = true;
}

static bool apply_help(arguments *a, const char *value)
{
    (void)value;
    return a->help = true;
}

static const option option_table[] = {
    {"bucket", "NAME", ARGUMENTS_BUCKET, NULL, NULL, apply_bucket, "the bucket to work in; \"default\" unless given"},
    {"limit", "N", ARGUMENTS_RANGE, NULL, NULL, apply_limit, "stop after N records"},
    {"reverse", NULL, ARGUMENTS_RANGE, NULL, NULL, apply_reverse, "from the last key to the first"},
    {"async", NULL, ARGUMENTS_ASYNC, NULL, NULL, apply_async, "return before the write is durable"},
    {"stdin", NULL, ARGUMENTS_STDIN, NULL, NULL, apply_stdin, "read the value from standard input, byte for byte"},
    {"raw", NULL, ARGUMENTS_RAW, NULL, NULL, apply_raw, "keys and values in arguments are bytes as they stand: no quotes, no escapes"},
    {"format", "FORMAT", ARGUMENTS_FORMAT, NULL, NULL, apply_format, "table (default), json or csv"},
    {"cache", "SIZE", ARGUMENTS_DATABASE, "cache", NULL, NULL, "memory limit, as 256M"},
    {"workers", "N", ARGUMENTS_DATABASE, "workers", NULL, NULL, "worker threads; 0: one for each core"},
    {"io-backend", "NAME", ARGUMENTS_DATABASE, "io_backend", NULL, NULL, "auto, uring or psync"},
    {"page-size", "SIZE", ARGUMENTS_DATABASE, "page_size", NULL, NULL, "4K to 64K; counts when the database is created"},
    {"read-only", NULL, ARGUMENTS_DATABASE, "read_only", "1", NULL, "change no file"},
    {"lock-timeout", "MS", ARGUMENTS_SESSION, "lock_timeout_ms", NULL, NULL, "how long a lock is waited for, milliseconds; 500"},
    {"set", "NAME=VALUE", ARGUMENTS_DATABASE, NULL, NULL, apply_set, "any option of the library, by its name"},
    {"verbose", NULL, ARGUMENTS_DATABASE, NULL, NULL, apply_verbose, "show what the library reports, not only its warnings"},
    {"help", NULL, 0, NULL, NULL, apply_help, "this text"},
};

static const option *find_option(unsigned groups, const char *name, size_t length)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(option_table); i++) {
        const option *o = &option_table[i];
        if ((o->group == 0 || (o->group & groups) != 0) && strlen(o->name) == length && memcmp(o->name, name, length) == 0) return o;
    }
    return NULL;
}

static bool apply_option(arguments *a, const option *o, const char *value)
{
    if (o->setting == NULL) return o->apply(a, value);
    if (rw_options_set(&a->options, o->setting, o->value_name != NULL ? value : o->setting_value) == 0) return true;
    cli_error("--%s %s: %s", o->name, value, rw_last_error(NULL));
    return false;
}

/* Takes the option at argv[*i], and its value where it is the next argument. */
static bool parse_option(arguments *a, unsigned groups, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const option *o = find_option(groups, name, length);
    if (o == NULL) {
        cli_error("%s: unknown option --%.*s (%s --help lists them; an argument that begins with -- goes behind a lone --)", argv[0],
                  (int)length, name, argv[0]);
        return false;
    }
    if (o->value_name == NULL) {
        if (equals == NULL) return apply_option(a, o, "");
        cli_error("--%s takes no value", o->name);
        return false;
    }
    if (equals != NULL) return apply_option(a, o, equals + 1);
    if (*i + 1 == argc) {
        cli_error("--%s needs a value: %s", o->name, o->value_name);
        return false;
    }
    return apply_option(a, o, argv[++*i]);
}

bool arguments_parse(arguments *a, unsigned groups, int argc, char **argv)
{
    *a = (arguments){.limit = UINT64_MAX};
    rw_options_init(&a->options);
    if ((groups & ARGUMENTS_SESSION) != 0) a->options.lock_timeout_ms = SESSION_LOCK_TIMEOUT_MS;
    a->options.logger = log_to_stderr;
    a->options.logger_arg = &a->verbose;
    a->positional = calloc((size_t)argc, sizeof *a->positional);
    if (a->positional == NULL) {
        cli_error("out of memory");
        return false;
    }
    if (argc > 1 && strcmp(argv[1], "-h") == 0) return a->help = true;
    bool options_end = false;
    for (int i = 1; i < argc && !a->help; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0) options_end = true;
        else if (!options_end && strncmp(argv[i], "--", 2) == 0) {
            if (!parse_option(a, groups, argc, argv, &i)) return false;
        } else {
            a->positional[a->count++] = argv[i];
        }
    }
    return true;
}

void arguments_free(arguments *a)
{
    free(a->positional);
    a->positional = NULL;
}

void arguments_print_options(FILE *file, unsigned groups)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(option_table); i++) {
        const option *o = &option_table[i];
        if (o->group != 0 && (o->group & groups) == 0) continue;
        char left[40];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->value_name != NULL ? "=" : "", o->value_name != NULL ? o->value_name : "");
        fprintf(file, "  %-18s %s\n", left, o->help);
    }
}

bool arguments_read_count(const char *text, uint64_t *count)
{
    uint64_t n = 0;
    if (*text == '\0') return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || n > (UINT64_MAX - 9) / 10) return false;
        n = n * 10 + (uint64_t)(*text - '0');
    }
    *count = n;
    return true;
}

bool arguments_read_signed(const char *text, int64_t *number)
{
    uint64_t size;
    bool negative = *text == '-';
    if (*text == '-' || *text == '+') text++;
    if (!arguments_read_count(text, &size) || size > (uint64_t)INT64_MAX + negative) return false;
    *number = (int64_t)(negative ? 0 - size : size);
    return true;
}
