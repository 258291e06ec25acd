/* The shell's transactions: BEGIN, COMMIT, ROLLBACK, SAVEPOINT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/shell.h"

static void forget_savepoints(shell *s, size_t keep)
{
    while (s->savepoint_count > keep) free(s->savepoints[--s->savepoint_count].name);
}

static void end_transaction(shell *s)
{
    s->txn = NULL;
    forget_savepoints(s, 0);
}

static bool expect_transaction(const shell *s)
{
    return s->txn != NULL || shell_error(s, "no transaction is open: BEGIN starts one");
}

bool shell_begin(shell *s, const char *at, const char *end)
{
    bool quoted;
    text_result result = shell_read_word(s, &at, end, &s->word, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_WORD && !shell_word_is(&s->word, quoted, "readonly")) return shell_usage_error(s);
    if (!shell_expect_end(s, at, end)) return false;
    if (s->txn != NULL) return shell_error(s, "a transaction is open already: COMMIT or ROLLBACK it, or set a SAVEPOINT");
    int code = rw_txn_begin(s->db, result == TEXT_WORD ? RW_READONLY : RW_SNAPSHOT, &s->txn);
    if (code != 0) return shell_library_error(s, code);
    puts("Transaction started");
    return true;
}

bool shell_commit(shell *s, const char *at, const char *end)
{
    if (!shell_expect_end(s, at, end) || !expect_transaction(s)) return false;
    stopwatch_start(&s->watch);
    int code = rw_txn_commit(s->txn, s->args->write_flags);
    stopwatch_stop(&s->watch);
    RW_ASSERT(code != RW_EBUSY);        /* no command leaves a cursor open */
    end_transaction(s);
    if (code == 0) return shell_say(s, "Transaction committed");
    const char *words = rw_last_error(s->db);
    if (code == RW_EUNKNOWN) return shell_error(s, "%s", words);
    return shell_error(s, "the transaction was rolled back: %s", words[0] != '\0' ? words : rw_strerror(code));
}

static bool rollback_to(shell *s)
{
    size_t i = s->savepoint_count;
    text_append_byte(&s->word, '\0');
    while (i > 0 && strcmp(s->savepoints[i - 1].name, s->word.data) != 0) i--;
    if (i == 0) return shell_error(s, "there is no savepoint \"%.80s\"", s->word.data);
    int code = rw_txn_rollback_to(s->txn, s->savepoints[i - 1].id);
    if (code != 0) return shell_library_error(s, code);
    forget_savepoints(s, i);
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
    end_transaction(s);
    puts("Transaction rolled back");
    return true;
}

bool shell_savepoint_set(shell *s, const char *at, const char *end)
{
    shell_savepoint savepoint;
    if (!shell_read_only_word(s, at, end, &s->word) || !expect_transaction(s)) return false;
    if (memchr(s->word.data, '\0', s->word.size) != NULL) return shell_error(s, "a savepoint's name cannot hold a 0 byte");
    int code = rw_txn_savepoint(s->txn, &savepoint.id);
    if (code != 0) return shell_library_error(s, code);
    text_append_byte(&s->word, '\0');
    savepoint.name = strdup(s->word.data);
    shell_savepoint *grown = realloc(s->savepoints, (s->savepoint_count + 1) * sizeof *grown);
    if (grown != NULL) s->savepoints = grown;
    if (grown == NULL || savepoint.name == NULL) {
        free(savepoint.name);
        return shell_error(s, "out of memory");
    }
    s->savepoints[s->savepoint_count++] = savepoint;
    printf("Savepoint %s set\n", savepoint.name);
    return true;
}

void shell_abandon_transaction(shell *s)
{
    if (s->txn != NULL) {
        rw_txn_abort(s->txn);
        end_transaction(s);
        puts("Transaction rolled back: the session ended before COMMIT");
    }
    free(s->savepoints);
}
