/*
 * Results as a table (aligned, without a heading), as JSON (one object for a row; rows are an array, written as they come) or as CSV
 * (quoted as in RFC 4180, lines end in a newline, with a heading). Nothing is held back but the first rows of a table, whose widths decide the columns.
 */
#ifndef RW_CLI_OUTPUT_H
#define RW_CLI_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/text.h"

typedef enum { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_CSV } output_format;

/* How a cell is written in a table: as a word or a value of the shell (text.h), or plainly. */
typedef enum { OUTPUT_WORD, OUTPUT_VALUE, OUTPUT_TEXT, OUTPUT_NUMBER } output_kind;

typedef struct {
    output_kind kind;
    rw_slice bytes;         /* all but OUTPUT_NUMBER */
    uint64_t number;
} output_cell;

#define OUTPUT_COLUMNS_MAX 128u
#define OUTPUT_HELD_ROWS 64u           /* rows of a table whose widths are looked at */
#define OUTPUT_HELD_BYTES (64u << 10)
#define OUTPUT_WIDTH_MAX 40u           /* a wider cell does not widen its column, characters */

typedef struct {
    FILE *file;
    output_format format;
    bool single;                       /* one row, no array around it */
    unsigned columns;
    const char *const *names;
    uint64_t rows;
    text_buffer scratch;
    /* table: rows held back, as text with each cell ended by a 0 byte (no cell of a table holds one) */
    text_buffer held;
    unsigned held_rows;
    bool widths_known;
    unsigned widths[OUTPUT_COLUMNS_MAX];
} output;

/* names are borrowed until output_end. */
void output_begin(output *o, FILE *file, output_format format, bool single, const char *const *names, unsigned columns);
void output_row(output *o, const output_cell *cells);
void output_end(output *o);

output_cell output_cell_word(rw_slice bytes);
output_cell output_cell_value(rw_slice bytes);
output_cell output_cell_text(const char *string);
output_cell output_cell_number(uint64_t number);

#endif
