/* The shell's looks at what is going on: show transactions, show locks. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/output.h"
#include "cli/shell.h"

/* Texts for the cells of one row, and the names of buckets, gathered before the listing: its callback must not call the library. */
typedef struct {
    const shell *s;
    output out;
    uint64_t rows;
    text_buffer name, what, bucket;
    struct bucket_name {
        rw_bucket bucket;
        char *name;
    } *buckets;
    size_t bucket_count;
} listing;

/* The heading of a table, before its first row. */
static void print_heading(listing *l, const char *const *names, unsigned columns)
{
    output_cell cells[OUTPUT_COLUMNS_MAX];
    if (l->rows++ != 0) return;
    output_begin(&l->out, stdout, OUTPUT_TABLE, false, names, columns);
    for (unsigned i = 0; i < columns; i++) cells[i] = output_cell_text(names[i]);
    output_row(&l->out, cells);
}

/* Ends the table, or says that there was nothing to put in it. */
static bool finish(listing *l, int code, const char *nothing)
{
    bool any = l->rows != 0;
    if (any) output_end(&l->out);
    text_free(&l->name);
    text_free(&l->what);
    text_free(&l->bucket);
    for (size_t i = 0; i < l->bucket_count; i++) free(l->buckets[i].name);
    free(l->buckets);
    if (code != 0) return shell_library_error(l->s, code);
    if (!any) puts(nothing);
    return true;
}

static output_cell cell_of(text_buffer *text)
{
    text_append_byte(text, '\0');
    return output_cell_text(text->data);
}

/* Whose it is, as the session names it: @name, "unnamed", or none of the session's. */
static output_cell name_cell(listing *l, uint64_t id, const char *none)
{
    const shell_transaction *t = id != 0 ? shell_find_transaction_id(l->s, id) : NULL;
    text_clear(&l->name);
    text_append_string(&l->name, t == NULL ? none : t->name[0] != '\0' ? "@" : "unnamed");
    if (t != NULL) text_append_string(&l->name, t->name);
    return cell_of(&l->name);
}

static const char *mode_name(unsigned flags)
{
    for (size_t i = 0; i < shell_mode_count; i++)
        if (shell_modes[i].flags == flags) return shell_modes[i].name;
    return "?";
}

/* What a cursor reads has no transaction; a transaction that awaits nobody has nothing in that column. */
static int print_transaction(void *arg, const rw_txn_info *info)
{
    static const char *const names[] = {"name", "id", "mode", "snapshot", "writes", "bytes", "locks", "waits_for", "age"};
    listing *l = arg;
    char id[24] = "-", snapshot[24] = "-", waits_for[24] = "-", age[32];
    print_heading(l, names, RW_ARRAY_SIZE(names));
    if (info->id != 0) snprintf(id, sizeof id, "%" PRIu64, info->id);
    if (info->snapshot != 0) snprintf(snapshot, sizeof snapshot, "%" PRIu64, info->snapshot);
    if (info->waits_for != 0) snprintf(waits_for, sizeof waits_for, "%" PRIu64, info->waits_for);
    text_format_ms(info->age_us * 1000, age);
    output_row(&l->out, (output_cell[]){name_cell(l, info->id, "-"), output_cell_text(id), output_cell_text(info->id != 0 ? mode_name(info->flags) : "cursor"),
                                        output_cell_text(snapshot), output_cell_number(info->writes), output_cell_number(info->bytes),
                                        output_cell_number(info->locks), output_cell_text(waits_for), output_cell_text(age)});
    return 0;
}

static int gather_bucket(void *arg, const char *name, rw_bucket bucket)
{
    listing *l = arg;
    struct bucket_name *grown = realloc(l->buckets, (l->bucket_count + 1) * sizeof *grown);
    if (grown != NULL) l->buckets = grown;
    char *copy = strdup(name);
    if (grown == NULL || copy == NULL) {
        free(copy);
        return RW_ENOMEM;
    }
    l->buckets[l->bucket_count++] = (struct bucket_name){.bucket = bucket, .name = copy};
    return 0;
}

static output_cell bucket_cell(listing *l, rw_bucket bucket)
{
    text_clear(&l->bucket);
    for (size_t i = 0; i < l->bucket_count; i++)
        if (l->buckets[i].bucket == bucket) text_append_word(&l->bucket, rw_slice_of(l->buckets[i].name, strlen(l->buckets[i].name)));
    if (l->bucket.size == 0) text_append_string(&l->bucket, "-");
    return cell_of(&l->bucket);
}

static int print_lock(void *arg, const rw_lock_info *info)
{
    static const char *const names[] = {"name", "id", "mode", "state", "bucket", "lock"};
    listing *l = arg;
    char id[24] = "-";
    print_heading(l, names, RW_ARRAY_SIZE(names));
    if (info->txn != 0) snprintf(id, sizeof id, "%" PRIu64, info->txn);
    text_clear(&l->what);
    text_append_string(&l->what, info->to.data == NULL ? "key " : "range ");
    text_append_word(&l->what, info->from);
    if (info->to.data != NULL) {
        text_append_byte(&l->what, ' ');
        text_append_word(&l->what, info->to);
    }
    output_row(&l->out, (output_cell[]){name_cell(l, info->txn, "-"), output_cell_text(id), output_cell_text(info->exclusive ? "exclusive" : "shared"),
                                        output_cell_text(info->waiting ? "waits" : "held"), bucket_cell(l, info->bucket), cell_of(&l->what)});
    return 0;
}

bool shell_show(shell *s, const char *at, const char *end)
{
    listing l = {.s = s};
    if (!shell_read_only_word(s, at, end, &s->word)) return false;
    if (shell_word_is(&s->word, false, "transactions")) return finish(&l, rw_txn_list(s->db, print_transaction, &l), "No transaction is open");
    if (!shell_word_is(&s->word, false, "locks")) return shell_usage_error(s);
    int code = rw_bucket_list(s->db, gather_bucket, &l);
    if (code == 0) code = rw_lock_list(s->db, print_lock, &l);
    return finish(&l, code, "No lock is held");
}
