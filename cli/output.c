#include "cli/output.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"

output_cell output_cell_word(rw_slice bytes)
{
    return (output_cell){.kind = OUTPUT_WORD, .bytes = bytes};
}

output_cell output_cell_value(rw_slice bytes)
{
    return (output_cell){.kind = OUTPUT_VALUE, .bytes = bytes};
}

output_cell output_cell_text(const char *string)
{
    return (output_cell){.kind = OUTPUT_TEXT, .bytes = rw_slice_of(string, strlen(string))};
}

output_cell output_cell_number(uint64_t number)
{
    return (output_cell){.kind = OUTPUT_NUMBER, .number = number};
}

/* Table */

static void append_table_cell(text_buffer *out, const output_cell *cell)
{
    char digits[24];
    switch (cell->kind) {
    case OUTPUT_WORD: text_append_word(out, cell->bytes); break;
    case OUTPUT_VALUE: text_append_value(out, cell->bytes); break;
    case OUTPUT_TEXT: text_append(out, cell->bytes.data, cell->bytes.size); break;
    case OUTPUT_NUMBER:
        snprintf(digits, sizeof digits, "%" PRIu64, cell->number);
        text_append_string(out, digits);
        break;
    }
}

/* Characters, counted by the bytes that begin one. */
static unsigned width_of(const char *text, size_t size)
{
    unsigned width = 0;
    for (size_t i = 0; i < size; i++) width += ((unsigned char)text[i] & 0xc0) != 0x80;
    return width;
}

static void print_padded(output *o, const char *text, size_t size, unsigned column)
{
    fwrite(text, 1, size, o->file);
    if (column + 1 == o->columns) {
        fputc('\n', o->file);
        return;
    }
    unsigned width = width_of(text, size), wanted = o->widths[column] + 1;
    fprintf(o->file, "%*s", width < wanted ? (int)(wanted - width) : 1, "");
}

/* Fixes the widths and prints the rows held back. */
static void release_held(output *o)
{
    const char *p = o->held.data, *end = p + o->held.size;
    unsigned column = 0;
    for (const char *at = p; at < end; at += strlen(at) + 1) {
        unsigned width = width_of(at, strlen(at));
        if (width <= OUTPUT_WIDTH_MAX && width > o->widths[column]) o->widths[column] = width;
        column = (column + 1) % o->columns;
    }
    column = 0;
    for (const char *at = p; at < end; at += strlen(at) + 1) {
        print_padded(o, at, strlen(at), column);
        column = (column + 1) % o->columns;
    }
    RW_ASSERT(column == 0);
    o->widths_known = true;
    text_free(&o->held);
}

static void table_row(output *o, const output_cell *cells)
{
    for (unsigned i = 0; i < o->columns; i++) {
        if (!o->widths_known) {
            append_table_cell(&o->held, &cells[i]);
            text_append_byte(&o->held, '\0');
        } else {
            text_clear(&o->scratch);
            append_table_cell(&o->scratch, &cells[i]);
            print_padded(o, o->scratch.data, o->scratch.size, i);
        }
    }
    if (o->widths_known) return;
    o->held_rows++;
    if (o->held_rows == OUTPUT_HELD_ROWS || o->held.size >= OUTPUT_HELD_BYTES) release_held(o);
}

/* JSON */

static void json_row(output *o, const output_cell *cells)
{
    json_t *object = json_object();
    int failed = object == NULL;
    for (unsigned i = 0; i < o->columns; i++) {
        json_t *member;
        if (cells[i].kind == OUTPUT_NUMBER) {
            RW_ASSERT(cells[i].number <= INT64_MAX);
            member = json_integer((json_int_t)cells[i].number);
        } else {
            text_clear(&o->scratch);
            text_append_exchange(&o->scratch, cells[i].bytes);
            member = json_stringn(o->scratch.size != 0 ? o->scratch.data : "", o->scratch.size);
        }
        failed |= json_object_set_new(object, o->names[i], member);
    }
    if (!o->single) fputs(o->rows == 0 ? "[\n" : ",\n", o->file);
    failed |= json_dumpf(object, o->file, 0);
    json_decref(object);
    if (failed && !ferror(o->file)) {
        cli_error("out of memory while writing JSON");
        exit(EXIT_STORAGE);
    }
    if (o->single) fputc('\n', o->file);
}

/* CSV */

static void csv_cell(output *o, const char *text, size_t size)
{
    bool quotes = false;
    for (size_t i = 0; i < size; i++) quotes |= text[i] == '"' || text[i] == ',' || text[i] == '\n' || text[i] == '\r';
    quotes |= size != 0 && (text[0] == ' ' || text[size - 1] == ' ');
    if (!quotes) {
        fwrite(text, 1, size, o->file);
        return;
    }
    fputc('"', o->file);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"') fputc('"', o->file);
        fputc(text[i], o->file);
    }
    fputc('"', o->file);
}

static void csv_heading(output *o)
{
    for (unsigned i = 0; i < o->columns; i++) fprintf(o->file, "%s%s", i == 0 ? "" : ",", o->names[i]);
    fputc('\n', o->file);
}

static void csv_row(output *o, const output_cell *cells)
{
    for (unsigned i = 0; i < o->columns; i++) {
        if (i != 0) fputc(',', o->file);
        if (cells[i].kind == OUTPUT_NUMBER) {
            fprintf(o->file, "%" PRIu64, cells[i].number);
            continue;
        }
        text_clear(&o->scratch);
        text_append_exchange(&o->scratch, cells[i].bytes);
        csv_cell(o, o->scratch.data, o->scratch.size);
    }
    fputc('\n', o->file);
}

void output_begin(output *o, FILE *file, output_format format, bool single, const char *const *names, unsigned columns)
{
    RW_ASSERT(columns > 0 && columns <= OUTPUT_COLUMNS_MAX);
    *o = (output){.file = file, .format = format, .single = single, .names = names, .columns = columns};
    if (format == OUTPUT_CSV) csv_heading(o);
}

void output_row(output *o, const output_cell *cells)
{
    RW_ASSERT(!o->single || o->rows == 0);
    switch (o->format) {
    case OUTPUT_TABLE: table_row(o, cells); break;
    case OUTPUT_JSON: json_row(o, cells); break;
    case OUTPUT_CSV: csv_row(o, cells); break;
    }
    o->rows++;
}

void output_end(output *o)
{
    if (o->format == OUTPUT_TABLE && !o->widths_known) release_held(o);
    if (o->format == OUTPUT_JSON && !o->single) fputs(o->rows == 0 ? "[]\n" : "\n]\n", o->file);
    text_free(&o->scratch);
    text_free(&o->held);
}
