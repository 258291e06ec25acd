/*
 * The forms in which bytes are typed and shown. Every key and every value can be typed, and what is printed can be typed back.
 *
 *   word      a key or a name in the shell: bare up to the next blank, or "quoted". Escapes in both: \n \t \" \\ \xNN.
 *   value     the rest of the line as it stands; when it begins with a quote: one quoted string with the escapes of a word.
 *   exchange  inside JSON and CSV strings: a byte that is no part of valid UTF-8, and NUL, is \xNN; a backslash that would read as such an
 *             escape is \x5c; all else stands for itself. So a value that is text without NUL and without "\xNN" is unchanged.
 *   field     in a dump: never a control byte, blanks as they are, escapes as in a word but without quotes.
 */
#ifndef RW_CLI_TEXT_H
#define RW_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ringwood.h"

/* Bytes that grow. Zero-initialised is empty. Running out of memory ends the process: the command has nothing better to do. */
typedef struct {
    char *data;
    size_t size, capacity;
} text_buffer;

void text_reserve(text_buffer *buffer, size_t capacity);
void text_append(text_buffer *buffer, const void *data, size_t size);
void text_append_string(text_buffer *buffer, const char *string);
void text_append_byte(text_buffer *buffer, char byte);
/* Replaces what is there. */
void text_assign(text_buffer *buffer, const void *data, size_t size);
void text_free(text_buffer *buffer);
static inline void text_clear(text_buffer *buffer) { buffer->size = 0; }
static inline rw_slice text_slice(const text_buffer *buffer) { return (rw_slice){.data = buffer->data, .size = buffer->size}; }

/* The length of the UTF-8 sequence at p, with its code point; 0 when there is none (overlong, surrogate, cut, out of range). room > 0. */
size_t text_utf8_sequence(const unsigned char *p, size_t room, uint32_t *code_point);

void text_append_word(text_buffer *out, rw_slice bytes);
void text_append_value(text_buffer *out, rw_slice bytes);
void text_append_exchange(text_buffer *out, rw_slice bytes);
void text_append_field(text_buffer *out, rw_slice bytes);

/* Why something typed could not be read. */
typedef struct {
    char words[160];
} text_mistake;

typedef enum { TEXT_NONE, TEXT_WORD, TEXT_MISTAKE } text_result;

/* Reads the word at *at, blanks before it skipped, and moves *at behind it. TEXT_NONE: only blanks were left. */
text_result text_read_word(const char **at, const char *end, text_buffer *word, bool *quoted, text_mistake *mistake);
/* Reads the value that takes up all from at to end, leading blanks skipped. */
text_result text_read_value(const char *at, const char *end, text_buffer *value, text_mistake *mistake);
/* One word that takes up all of argument: blanks do not end it. */
text_result text_read_argument(const char *argument, text_buffer *word, text_mistake *mistake);
text_result text_read_field(const char *at, const char *end, text_buffer *bytes, text_mistake *mistake);

/* A duration in milliseconds as the shell shows it: one decimal, or as many as the first digit that is not 0 needs, four at most. */
void text_format_ms(uint64_t nanoseconds, char out[32]);

#endif
