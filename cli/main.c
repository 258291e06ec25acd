/* The command `ringwood`: finds the verb, parses its arguments, runs it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "bench/bench.h"
#include "bench/crash.h"
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/verb.h"

#define OPEN ARGUMENTS_DATABASE
#define RECORD (ARGUMENTS_DATABASE | ARGUMENTS_BUCKET | ARGUMENTS_RAW)
#define BOUNDS_HELP "FROM <= key < TO; without TO to the last key, without FROM all keys. An empty argument is no bound.\n"
#define TYPING_HELP "A key may be \"quoted\" and may hold the escapes \\n \\t \\\" \\\\ \\xNN; a value that begins with a quote is a quoted string.\n"

static int verb_help(int argc, char **argv);
static int verb_version(int argc, char **argv);

static const verb verbs[] = {
    {"shell", "DIR", "work with a database by hand or by a script", "Reads commands from a terminal or a pipe; its command help lists them.\n"
     "From a pipe the exit code is 1 when any line failed.\n",
     OPEN | ARGUMENTS_BUCKET | ARGUMENTS_ASYNC | ARGUMENTS_SESSION, 1, 1, verb_shell, NULL},
    {"get", "DIR KEY", "print the value of a key", TYPING_HELP "--raw prints exactly the value's bytes. The exit code is 1 when there is no such key.\n",
     RECORD | ARGUMENTS_FORMAT, 2, 2, verb_get, NULL},
    {"put", "DIR KEY [VALUE]", "write a record", TYPING_HELP, RECORD | ARGUMENTS_ASYNC | ARGUMENTS_STDIN, 2, 3, verb_put, NULL},
    {"del", "DIR KEY", "delete a record", TYPING_HELP "The exit code is 1 when there is no such key.\n", RECORD | ARGUMENTS_ASYNC, 2, 2, verb_del, NULL},
    {"cas", "DIR KEY EXPECTED NEW", "write a record if its value is the expected one", TYPING_HELP
     "A lone - stands for no value: as EXPECTED the key must be absent, as NEW it is deleted; \"-\" in quotes is the value -.\n"
     "The exit code is 1 when the value is another one; nothing is changed then.\n",
     RECORD | ARGUMENTS_ASYNC, 4, 4, verb_cas, NULL},
    {"add", "DIR KEY DELTA", "add to a counter and print the sum", TYPING_HELP
     "A counter is a value of 8 bytes, a signed number, least byte first. An absent key counts as 0.\n",
     RECORD | ARGUMENTS_ASYNC, 3, 3, verb_add, NULL},
    {"scan", "DIR [FROM [TO]]", "print the records of a range", BOUNDS_HELP, RECORD | ARGUMENTS_FORMAT | ARGUMENTS_RANGE, 1, 3, verb_scan, NULL},
    {"prefix", "DIR PREFIX", "print the records whose key begins so", "", RECORD | ARGUMENTS_FORMAT | ARGUMENTS_RANGE, 2, 2, verb_prefix, NULL},
    {"count", "DIR [FROM [TO]]", "count the records of a range", BOUNDS_HELP, RECORD | ARGUMENTS_FORMAT, 1, 3, verb_count, NULL},
    {"first", "DIR", "print the record with the first key", "", OPEN | ARGUMENTS_BUCKET | ARGUMENTS_FORMAT, 1, 1, verb_first, NULL},
    {"last", "DIR", "print the record with the last key", "", OPEN | ARGUMENTS_BUCKET | ARGUMENTS_FORMAT, 1, 1, verb_last, NULL},
    {"delete-range", "DIR FROM TO", "delete the records of a range", "FROM <= key < TO. An empty argument is no bound.\n",
     RECORD | ARGUMENTS_ASYNC, 3, 3, verb_delete_range, NULL},
    {"bucket", "DIR create NAME | list | drop NAME", "work with buckets", "", OPEN | ARGUMENTS_FORMAT, 2, 3, verb_bucket, NULL},
    {"stat", "DIR", "print the counters of the store", "Counters run from the opening, so most tell of this opening.\n", OPEN | ARGUMENTS_FORMAT, 1, 1, verb_stat, NULL},
    {"verify", "DIR", "check a closed database in full", "Prints each finding. Changes nothing. The exit code is 1 when anything was found.\n",
     ARGUMENTS_FORMAT, 1, 1, verb_verify, NULL},
    {"log", "DIR", "print the log of a closed database",
     "Prints each block of the log and the records in it, in the order of the file, as far as they decode: what happened since the last checkpoints, and older\n"
     "records that are not overwritten yet. Keys begin with the four bytes of their bucket's number; \\xx stands for a byte, long values are cut. Changes nothing.\n",
     0, 1, 1, verb_log, NULL},
    {"repair", "DIR NEWDIR", "copy what can be read of a damaged database into a new one",
     "Changes nothing in DIR. NEWDIR must not be there yet, or be empty. A log that is damaged is taken as ending before the damage; of a page that cannot be\n"
     "read the records are left out. Prints what was copied, bucket by bucket, and what was lost. The exit code is 1 when anything was lost.\n"
     "Where the log ends below what the pages hold already, a commit of several keys may be there in part. DIR and NEWDIR take the memory of --cache each.\n",
     OPEN, 2, 2, verb_repair, NULL},
    {"checkpoint", "DIR", "write a checkpoint", "", OPEN, 1, 1, verb_checkpoint, NULL},
    {"compact", "DIR", "give free space back to the file system", "", OPEN, 1, 1, verb_compact, NULL},
    {"dump", "DIR [FILE]", "write all records as text", "Writes to standard output when there is no FILE. All is of one moment.\n",
     OPEN | ARGUMENTS_BUCKET, 1, 2, verb_dump, NULL},
    {"load", "DIR [FILE]", "read what dump wrote", "Reads standard input when there is no FILE. Records that are there already are overwritten.\n",
     OPEN, 1, 2, verb_load, NULL},
    {"bench", "", "measure speed", "", 0, 0, 0, NULL, bench_main},
    {"compare", "", "measure ringwood beside other engines", "", 0, 0, 0, NULL, verb_compare},
    {"crash", "", "kill a writing process and look for its commits", "", 0, 0, 0, NULL, crash_main},
    {"version", "", "print the version", "", 0, 0, 0, NULL, verb_version},
    {"help", "[VERB]", "print this, or more of one verb", "", 0, 0, 1, NULL, verb_help},
};

static const verb *find_verb(const char *name)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(verbs); i++)
        if (strcmp(verbs[i].name, name) == 0) return &verbs[i];
    return NULL;
}

static void print_overview(FILE *file)
{
    fputs("usage: ringwood VERB [ARGUMENTS] [OPTIONS]\n\n", file);
    for (size_t i = 0; i < RW_ARRAY_SIZE(verbs); i++) fprintf(file, "  %-13s %s\n", verbs[i].name, verbs[i].summary);
    fputs("\nringwood VERB --help tells more. DIR is the directory of a database.\n"
          "Exit codes: 0 done, 1 not found or check failed, 2 usage, 3 input/output error or corruption.\n", file);
}

static int print_verb_help(const verb *v)
{
    printf("usage: ringwood %s%s%s%s\n\n%s\n%s\nOptions\n", v->name, v->usage[0] != '\0' ? " " : "", v->usage, v->groups != 0 ? " [OPTIONS]" : "",
           v->summary, v->help);
    arguments_print_options(stdout, v->groups);
    return cli_finish_output(EXIT_DONE);
}

static int run_verb(const verb *v, int argc, char **argv)
{
    arguments a;
    int status = EXIT_USAGE;
    if (v->own_main != NULL) return v->own_main(argc, argv);
    if (arguments_parse(&a, v->groups, argc, argv)) {
        if (a.help) status = print_verb_help(v);
        else if (a.count < v->arguments_min || a.count > v->arguments_max) cli_error("usage: ringwood %s %s (--help tells more)", v->name, v->usage);
        else status = v->run(&a);
    }
    arguments_free(&a);
    return status;
}

/* Parses the arguments of help and version. -1: go on; else the exit code. */
static int parse_plain(arguments *a, int argc, char **argv)
{
    const verb *v = find_verb(argv[0]);
    if (!arguments_parse(a, v->groups, argc, argv)) return EXIT_USAGE;
    if (a->help) return print_verb_help(v);
    if (a->count <= v->arguments_max) return -1;
    cli_error("usage: ringwood %s %s", v->name, v->usage);
    return EXIT_USAGE;
}

static int verb_version(int argc, char **argv)
{
    arguments a;
    int status = parse_plain(&a, argc, argv);
    arguments_free(&a);
    if (status >= 0) return status;
    printf("ringwood %d.%d.%d\n", RW_VERSION_MAJOR, RW_VERSION_MINOR, RW_VERSION_PATCH);
    return cli_finish_output(EXIT_DONE);
}

static int verb_help(int argc, char **argv)
{
    arguments a;
    int status = parse_plain(&a, argc, argv);
    const char *name = status < 0 && a.count == 1 ? a.positional[0] : NULL;
    arguments_free(&a);
    if (status >= 0) return status;
    if (name == NULL) {
        print_overview(stdout);
        return cli_finish_output(EXIT_DONE);
    }
    const verb *v = find_verb(name);
    if (v == NULL) {
        cli_error("there is no verb \"%s\" (ringwood help lists them)", name);
        return EXIT_USAGE;
    }
    char own_name[32], flag[] = "--help";
    snprintf(own_name, sizeof own_name, "%s", v->name);
    char *own_argv[] = {own_name, flag, NULL};
    return run_verb(v, 2, own_argv);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);       /* a reader that goes away must not kill the process with the database open */
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_overview(stdout);
        return cli_finish_output(EXIT_DONE);
    }
    const verb *v = find_verb(strcmp(argv[1], "--version") == 0 ? "version" : argv[1]);
    if (v != NULL) return run_verb(v, argc - 1, argv + 1);
    cli_error("there is no verb \"%s\" (ringwood help lists them)", argv[1]);
    return EXIT_USAGE;
}
