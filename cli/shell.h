/* Inside the shell: the session, and what its commands share. Outsiders see verb_shell (verb.h). */
#ifndef RW_CLI_SHELL_H
#define RW_CLI_SHELL_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/arguments.h"
#include "cli/range.h"
#include "cli/text.h"
#include "ringwood.h"

typedef struct shell shell;

typedef struct {
    const char *name;
    const char *usage;              /* with the name */
    const char *summary;            /* one line */
    bool transactional;             /* it may stand behind @name */
    /* at to end: what stands behind the name. False: it failed, and has said why. */
    bool (*run)(shell *s, const char *at, const char *end);
} shell_command;

typedef struct {
    char *name;
    unsigned id;
} shell_savepoint;

#define SHELL_NAME_MAX 32u          /* bytes of a transaction's name */

typedef struct {
    char name[SHELL_NAME_MAX + 1];  /* as typed, without the @; empty: the unnamed one */
    rw_txn *txn;
    uint64_t id;                    /* by which the library's messages name it */
    shell_savepoint *savepoints;    /* oldest first */
    size_t savepoint_count;
    unsigned savepoints_numbered;   /* those that got a number for a name */
} shell_transaction;

/* How a transaction can be begun. */
typedef struct {
    const char *name;
    unsigned flags;
} shell_mode;

struct shell {
    /* set when the session begins */
    const arguments *args;
    rw_options options;             /* for opening again; `set` changes them */
    bool interactive;               /* a person types: prompt and editing */
    /* the session */
    rw_db *db;                      /* NULL: it could not be opened again after verify, and the session ends */
    rw_bucket bucket;
    text_buffer bucket_name;        /* ended by a 0 byte */
    shell_transaction *transactions; /* those that are open, oldest first */
    size_t transaction_count;
    bool timing;
    bool quit;
    /* the command that runs */
    const shell_command *command;
    char name[SHELL_NAME_MAX + 1];  /* of the transaction that it is for; empty: the unnamed one */
    shell_transaction *addressed;   /* that transaction; NULL: it is not open */
    rw_txn *txn;                    /* its handle; NULL: the command commits for itself */
    uint64_t line_number;           /* of a pipe */
    stopwatch watch;                /* the time of its library calls */
    text_buffer key, to, value, word;
};

extern const shell_command shell_commands[];
extern const size_t shell_command_count;
const shell_command *shell_find_command(const char *name, size_t size);

/* Says "error: ..." with the line's number where the input has no person behind it; returns false. */
bool shell_error(const shell *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for a failed call of the library; says which transactions of the session the library's numbers mean. */
bool shell_library_error(const shell *s, int code);
bool shell_usage_error(const shell *s);
/* Prints text and the command's time, as " (0.1ms)" while timing is on; returns true. */
bool shell_say(const shell *s, const char *text);
/* "not found" is an answer, not a mistake; other codes are. */
bool shell_say_missing(const shell *s, int code);
void shell_print_time(const shell *s);

/* Reads the next word into out; says what is wrong with it. */
text_result shell_read_word(shell *s, const char **at, const char *end, text_buffer *out, bool *quoted);
/* Reads exactly one word and the end of the line. */
bool shell_read_only_word(shell *s, const char *at, const char *end, text_buffer *out);
/* Whether nothing is left; else says how the command is used. */
bool shell_expect_end(const shell *s, const char *at, const char *end);
/* Whether out holds this word, in any case. */
bool shell_word_is(const text_buffer *word, bool quoted, const char *keyword);
/* Refuses, with a reason, what cannot be done while a transaction is open. */
bool shell_refuse_in_transaction(const shell *s);

/* The commands, by file: shell_records.c */
bool shell_put(shell *s, const char *at, const char *end);
bool shell_get(shell *s, const char *at, const char *end);
bool shell_get_for_update(shell *s, const char *at, const char *end);
bool shell_del(shell *s, const char *at, const char *end);
bool shell_scan(shell *s, const char *at, const char *end);
bool shell_prefix(shell *s, const char *at, const char *end);
bool shell_count(shell *s, const char *at, const char *end);
bool shell_first(shell *s, const char *at, const char *end);
bool shell_last(shell *s, const char *at, const char *end);
bool shell_delete_range(shell *s, const char *at, const char *end);
/* shell_atomic.c */
bool shell_cas(shell *s, const char *at, const char *end);
bool shell_add(shell *s, const char *at, const char *end);
/* shell_transactions.c */
extern const shell_mode shell_modes[];
extern const size_t shell_mode_count;
/* Sets addressed and txn to the transaction of this name; false: it is not open. */
bool shell_address(shell *s, const char *name, size_t size);
/* What the session's messages call it: "transaction @name", or "the unnamed transaction". */
void shell_append_transaction(text_buffer *out, const shell_transaction *t);
const shell_transaction *shell_find_transaction_id(const shell *s, uint64_t id);
bool shell_begin(shell *s, const char *at, const char *end);
bool shell_commit(shell *s, const char *at, const char *end);
bool shell_rollback(shell *s, const char *at, const char *end);
bool shell_savepoint_set(shell *s, const char *at, const char *end);
/* Rolls back what is open when the session ends, and says so. */
void shell_abandon_transactions(shell *s);
/* Refuses, with a reason, what needs the database closed while any transaction is open. */
bool shell_refuse_while_open(const shell *s);
/* shell_show.c */
bool shell_show(shell *s, const char *at, const char *end);
/* shell_maintenance.c */
bool shell_bucket(shell *s, const char *at, const char *end);
bool shell_buckets(shell *s, const char *at, const char *end);
bool shell_stat(shell *s, const char *at, const char *end);
bool shell_checkpoint(shell *s, const char *at, const char *end);
bool shell_flush(shell *s, const char *at, const char *end);
bool shell_compact(shell *s, const char *at, const char *end);
bool shell_verify(shell *s, const char *at, const char *end);
bool shell_set(shell *s, const char *at, const char *end);
/* shell_commands.c */
bool shell_timing(shell *s, const char *at, const char *end);
bool shell_help(shell *s, const char *at, const char *end);
bool shell_quit(shell *s, const char *at, const char *end);

#endif
