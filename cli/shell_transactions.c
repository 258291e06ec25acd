/* The shell's transactions: BEGIN, COMMIT, ROLLBACK, SAVEPOINT; several at once, by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/shell.h"

const shell_mode shell_modes[] = {
    {"snapshot", RW_SNAPSHOT},
    {"serializable", RW_SERIALIZABLE},
    {"pessimistic", RW_PESSIMISTIC},
    {"readonly", RW_READONLY},
};

const size_t shell_mode_count = RW_ARRAY_SIZE(shell_modes);

bool shell_address(shell *s, const char *name, size_t size)
{
    memcpy(s->name, name, size);
    s->name[size] = '\0';
    s->addressed = NULL;
    for (size_t i = 0; i < s->transaction_count && s->addressed == NULL; i++)
        if (strcmp(s->transactions[i].name, s->name) == 0) s->addressed = &s->transactions[i];
    s->txn = s->addressed != NULL ? s->addressed->txn : NULL;
    return s->addressed != NULL;
}

const shell_transaction *shell_find_transaction_id(const shell *s, uint64_t id)
{
    for (size_t i = 0; i < s->transaction_count; i++)
        if (s->transactions[i].id == id) return &s->transactions[i];
    return NULL;
}

void shell_append_transaction(text_buffer *out, const shell_transaction *t)
{
    text_append_string(out, t->name[0] != '\0' ? "transaction @" : "the unnamed transaction");
    text_append_string(out, t->name);
}

/* Prints "Transaction @name done", with the time where the command took any. */
static bool say(shell *s, const char *done, bool time)
{
    printf("Transaction%s%s %s", s->name[0] != '\0' ? " @" : "", s->name, done);
    if (time) shell_print_time(s);
    putchar('\n');
    return true;
}

static void forget_savepoints(shell_transaction *t, size_t keep)
{
    while (t->savepoint_count > keep) free(t->savepoints[--t->savepoint_count].name);
}

/* The transaction addressed has ended: its name is free again. */
static void forget_addressed(shell *s)
{
    shell_transaction *t = s->addressed, *end = s->transactions + s->transaction_count;
    forget_savepoints(t, 0);
    free(t->savepoints);
    memmove(t, t + 1, (size_t)(end - (t + 1)) * sizeof *t);
    s->transaction_count--;
    s->addressed = NULL;
    s->txn = NULL;
}

static bool expect_transaction(const shell *s)
{
    return s->addressed != NULL || shell_error(s, "no transaction is open: BEGIN starts one");
}

/* The mode typed behind BEGIN; NULL: there is none of this name. */
static const shell_mode *read_mode(const shell *s, bool quoted)
{
    for (size_t i = 0; i < shell_mode_count; i++)
        if (shell_word_is(&s->word, quoted, shell_modes[i].name)) return &shell_modes[i];
    return NULL;
}

bool shell_begin(shell *s, const char *at, const char *end)
{
    bool quoted;
    const shell_mode *mode = &shell_modes[0];
    text_result result = shell_read_word(s, &at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_WORD) mode = read_mode(s, quoted);
    if (mode == NULL) return shell_usage_error(s);
    if (!shell_expect_end(s, at, end)) return false;
    if (s->addressed != NULL && s->name[0] != '\0') return shell_error(s, "transaction @%s is open already: COMMIT or ROLLBACK it, or set a SAVEPOINT", s->name);
    if (s->addressed != NULL) return shell_error(s, "a transaction is open already: COMMIT or ROLLBACK it, set a SAVEPOINT, or open another by name: @a BEGIN");
    shell_transaction *grown = realloc(s->transactions, (s->transaction_count + 1) * sizeof *grown);
    if (grown == NULL) return shell_error(s, "out of memory");
    s->transactions = grown;
    shell_transaction *t = &s->transactions[s->transaction_count];
    *t = (shell_transaction){0};
    int code = rw_txn_begin(s->db, mode->flags, &t->txn);
    if (code != 0) return shell_library_error(s, code);
    memcpy(t->name, s->name, sizeof t->name);
    t->id = rw_txn_id(t->txn);
    s->transaction_count++;
    return say(s, "started", false);
}

bool shell_commit(shell *s, const char *at, const char *end)
{
    if (!shell_expect_end(s, at, end) || !expect_transaction(s)) return false;
    stopwatch_start(&s->watch);
    int code = rw_txn_commit(s->txn, s->args->write_flags);
    stopwatch_stop(&s->watch);
    RW_ASSERT(code != RW_EBUSY);        /* no command leaves a cursor open */
    forget_addressed(s);
    if (code == 0) return say(s, "committed", true);
    const char *words = rw_last_error(s->db), *at_sign = s->name[0] != '\0' ? " @" : "";
    if (words[0] == '\0') words = rw_strerror(code);
    if (code == RW_EUNKNOWN) return shell_error(s, "the transaction%s%s has ended: %s", at_sign, s->name, words);
    return shell_error(s, "the transaction%s%s was rolled back: %s", at_sign, s->name, words);
}

static bool rollback_to(shell *s)
{
    shell_transaction *t = s->addressed;
    size_t i = t->savepoint_count;
    text_append_byte(&s->word, '\0');
    while (i > 0 && strcmp(t->savepoints[i - 1].name, s->word.data) != 0) i--;
    if (i == 0) return shell_error(s, "there is no savepoint \"%.80s\"", s->word.data);
    int code = rw_txn_rollback_to(s->txn, t->savepoints[i - 1].id);
    if (code != 0) return shell_library_error(s, code);
    forget_savepoints(t, i);
    printf("Rolled back to savepoint %s\n", s->word.data);
    return true;
}

bool shell_rollback(shell *s, const char *at, const char *end)
{
    bool quoted;
    text_result result = shell_read_word(s, &at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_WORD) {
        if (!shell_word_is(&s->word, quoted, "to")) return shell_usage_error(s);
        return shell_read_only_word(s, at, end, &s->word) && expect_transaction(s) && rollback_to(s);
    }
    if (!expect_transaction(s)) return false;
    rw_txn_abort(s->txn);
    forget_addressed(s);
    return say(s, "rolled back", false);
}

/* The name of a new savepoint into s->word, ended by a 0 byte: the one typed, or the next number. */
static bool read_savepoint(shell *s, const char *at, const char *end)
{
    bool quoted;
    text_result result = shell_read_word(s, &at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE || !shell_expect_end(s, at, end) || !expect_transaction(s)) return false;
    if (result == TEXT_NONE) {
        char digits[16];
        snprintf(digits, sizeof digits, "%u", ++s->addressed->savepoints_numbered);
        text_assign(&s->word, digits, strlen(digits));
    }
    if (memchr(s->word.data, '\0', s->word.size) != NULL) return shell_error(s, "a savepoint's name cannot hold a 0 byte");
    text_append_byte(&s->word, '\0');
    return true;
}

bool shell_savepoint_set(shell *s, const char *at, const char *end)
{
    shell_savepoint savepoint;
    if (!read_savepoint(s, at, end)) return false;
    shell_transaction *t = s->addressed;
    int code = rw_txn_savepoint(s->txn, &savepoint.id);
    if (code != 0) return shell_library_error(s, code);
    savepoint.name = strdup(s->word.data);
    shell_savepoint *grown = realloc(t->savepoints, (t->savepoint_count + 1) * sizeof *grown);
    if (grown != NULL) t->savepoints = grown;
    if (grown == NULL || savepoint.name == NULL) {
        free(savepoint.name);
        return shell_error(s, "out of memory");
    }
    t->savepoints[t->savepoint_count++] = savepoint;
    printf("Savepoint %s set\n", savepoint.name);
    return true;
}

bool shell_refuse_while_open(const shell *s)
{
    text_buffer names = {0};
    if (s->transaction_count == 0) return true;
    for (size_t i = 0; i < s->transaction_count; i++) {
        if (i != 0) text_append_string(&names, ", ");
        shell_append_transaction(&names, &s->transactions[i]);
    }
    shell_error(s, "%s needs the database closed, and open is %.*s: COMMIT or ROLLBACK first", s->command->name, (int)names.size, names.data);
    text_free(&names);
    return false;
}

void shell_abandon_transactions(shell *s)
{
    while (s->transaction_count != 0) {
        const char *name = s->transactions[0].name;
        shell_address(s, name, strlen(name));
        rw_txn_abort(s->txn);
        forget_addressed(s);
        say(s, "rolled back: the session ended before COMMIT", false);
    }
    free(s->transactions);
}
