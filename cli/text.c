#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/cli.h"

void text_reserve(text_buffer *buffer, size_t capacity)
{
    if (capacity <= buffer->capacity) return;
    size_t grown = buffer->capacity + buffer->capacity / 2;
    if (grown < capacity) grown = capacity;
    if (grown < 64) grown = 64;
    char *data = realloc(buffer->data, grown);
    if (data == NULL) {
        cli_error("out of memory: %zu bytes are needed", grown);
        exit(EXIT_STORAGE);
    }
    buffer->data = data;
    buffer->capacity = grown;
}

void text_append(text_buffer *buffer, const void *data, size_t size)
{
    if (size == 0) return;
    text_reserve(buffer, buffer->size + size);
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

void text_append_string(text_buffer *buffer, const char *string)
{
    text_append(buffer, string, strlen(string));
}

void text_append_byte(text_buffer *buffer, char byte)
{
    text_append(buffer, &byte, 1);
}

void text_assign(text_buffer *buffer, const void *data, size_t size)
{
    buffer->size = 0;
    text_append(buffer, data, size);
}

void text_free(text_buffer *buffer)
{
    free(buffer->data);
    *buffer = (text_buffer){0};
}

size_t text_utf8_sequence(const unsigned char *p, size_t room, uint32_t *code_point)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
    if (length == 0 || length > room) return 0;
    uint32_t code = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return 0;
    *code_point = code;
    return length;
}

/* Control characters, and the marks that turn the direction of a line or break it: what could make a terminal show something else. */
static bool is_printable(uint32_t code)
{
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) return false;
    if (code == 0x200e || code == 0x200f || (code >= 0x2028 && code <= 0x202e)) return false;
    return !(code >= 0x2066 && code <= 0x2069);
}

/* The length of the printable sequence at p, or 0. */
static size_t printable_sequence(const unsigned char *p, size_t room)
{
    uint32_t code = 0;
    size_t length = text_utf8_sequence(p, room, &code);
    return length != 0 && is_printable(code) ? length : 0;
}

static void append_hex(text_buffer *out, unsigned char byte)
{
    static const char digits[] = "0123456789abcdef";
    const char escape[4] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    text_append(out, escape, sizeof escape);
}

/* The body shared by quoted strings and fields. */
static void append_escaped(text_buffer *out, rw_slice bytes, bool quotes)
{
    const unsigned char *p = bytes.data, *end = p + bytes.size;
    while (p < end) {
        size_t length = printable_sequence(p, (size_t)(end - p));
        if (*p == '\\' || (*p == '"' && quotes)) text_append_byte(out, '\\');
        if (length != 0) {
            text_append(out, p, length);
            p += length;
            continue;
        }
        if (*p == '\n') text_append_string(out, "\\n");
        else if (*p == '\t') text_append_string(out, "\\t");
        else append_hex(out, *p);
        p++;
    }
}

static void append_quoted(text_buffer *out, rw_slice bytes)
{
    text_append_byte(out, '"');
    append_escaped(out, bytes, true);
    text_append_byte(out, '"');
}

static bool is_all_printable(rw_slice bytes)
{
    const unsigned char *p = bytes.data, *end = p + bytes.size;
    while (p < end) {
        size_t length = printable_sequence(p, (size_t)(end - p));
        if (length == 0) return false;
        p += length;
    }
    return true;
}

/* Words that mean something to scan and prefix when they are bare. */
static bool is_keyword(rw_slice bytes)
{
    return (bytes.size == 5 && strncasecmp(bytes.data, "limit", 5) == 0) || (bytes.size == 7 && strncasecmp(bytes.data, "reverse", 7) == 0);
}

void text_append_word(text_buffer *out, rw_slice bytes)
{
    const char *data = bytes.data;
    bool bare = bytes.size != 0 && data[0] != '"' && memchr(data, ' ', bytes.size) == NULL && memchr(data, '\\', bytes.size) == NULL &&
                is_all_printable(bytes) && !is_keyword(bytes);
    if (bare) text_append(out, data, bytes.size);
    else append_quoted(out, bytes);
}

void text_append_value(text_buffer *out, rw_slice bytes)
{
    const char *data = bytes.data;
    bool bare = bytes.size != 0 && data[0] != '"' && data[0] != ' ' && data[bytes.size - 1] != ' ' && is_all_printable(bytes);
    if (bare) text_append(out, data, bytes.size);
    else append_quoted(out, bytes);
}

void text_append_field(text_buffer *out, rw_slice bytes)
{
    append_escaped(out, bytes, false);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Whether \xNN stands at p. */
static bool is_hex_escape(const char *p, const char *end)
{
    return end - p >= 4 && p[0] == '\\' && p[1] == 'x' && hex_digit(p[2]) >= 0 && hex_digit(p[3]) >= 0;
}

static char hex_escape_byte(const char *p)
{
    return (char)(hex_digit(p[2]) << 4 | hex_digit(p[3]));
}

void text_append_exchange(text_buffer *out, rw_slice bytes)
{
    const char *p = bytes.data, *end = p + bytes.size;
    while (p < end) {
        uint32_t code = 0;
        size_t length = text_utf8_sequence((const unsigned char *)p, (size_t)(end - p), &code);
        if (length == 0 || code == 0 || is_hex_escape(p, end)) append_hex(out, (unsigned char)*p++);
        else {
            text_append(out, p, length);
            p += length;
        }
    }
}

/* Reads the escape at *at (a backslash) into out. */
static bool read_escape(const char **at, const char *end, text_buffer *out, text_mistake *mistake)
{
    const char *p = *at;
    if (is_hex_escape(p, end)) {
        text_append_byte(out, hex_escape_byte(p));
        *at = p + 4;
        return true;
    }
    static const char names[] = "nt\"\\", bytes[] = "\n\t\"\\";
    const char *found = end - p >= 2 && p[1] != '\0' ? strchr(names, p[1]) : NULL;
    if (found == NULL) {
        if (end - p < 2) snprintf(mistake->words, sizeof mistake->words, "a backslash at the end: write \\\\ for a backslash");
        else if (p[1] == 'x') snprintf(mistake->words, sizeof mistake->words, "\\x needs two hexadecimal digits behind it");
        else
            snprintf(mistake->words, sizeof mistake->words, "unknown escape \\%c: there are \\n \\t \\\" \\\\ and \\xNN",
                     p[1] > ' ' && p[1] < 0x7f ? p[1] : '?');
        return false;
    }
    text_append_byte(out, bytes[found - names]);
    *at = p + 2;
    return true;
}

/* Reads the quoted string at *at (a quote) and moves behind its closing quote. */
static text_result read_quoted(const char **at, const char *end, text_buffer *out, text_mistake *mistake)
{
    const char *p = *at + 1;
    while (p < end && *p != '"') {
        if (*p == '\\') {
            if (!read_escape(&p, end, out, mistake)) return TEXT_MISTAKE;
            continue;
        }
        text_append_byte(out, *p++);
    }
    if (p == end) {
        snprintf(mistake->words, sizeof mistake->words, "the closing quote is missing");
        return TEXT_MISTAKE;
    }
    *at = p + 1;
    return TEXT_WORD;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && is_blank(*p)) p++;
    return p;
}

static text_result glued_mistake(text_mistake *mistake)
{
    snprintf(mistake->words, sizeof mistake->words, "there is text right behind the closing quote (a quote inside is \\\")");
    return TEXT_MISTAKE;
}

text_result text_read_word(const char **at, const char *end, text_buffer *word, bool *quoted, text_mistake *mistake)
{
    const char *p = skip_blanks(*at, end);
    text_clear(word);
    if (p == end) return TEXT_NONE;
    *quoted = *p == '"';
    if (*quoted) {
        if (read_quoted(&p, end, word, mistake) != TEXT_WORD) return TEXT_MISTAKE;
        if (p < end && !is_blank(*p)) return glued_mistake(mistake);
        *at = p;
        return TEXT_WORD;
    }
    while (p < end && !is_blank(*p)) {
        if (*p == '\\') {
            if (!read_escape(&p, end, word, mistake)) return TEXT_MISTAKE;
        } else {
            text_append_byte(word, *p++);
        }
    }
    *at = p;
    return TEXT_WORD;
}

text_result text_read_value(const char *at, const char *end, text_buffer *value, text_mistake *mistake)
{
    const char *p = skip_blanks(at, end);
    text_clear(value);
    if (p == end) return TEXT_NONE;
    if (*p != '"') {
        text_append(value, p, (size_t)(end - p));
        return TEXT_WORD;
    }
    if (read_quoted(&p, end, value, mistake) != TEXT_WORD) return TEXT_MISTAKE;
    return skip_blanks(p, end) == end ? TEXT_WORD : glued_mistake(mistake);
}

text_result text_read_argument(const char *argument, text_buffer *word, text_mistake *mistake)
{
    const char *p = argument, *end = argument + strlen(argument);
    text_clear(word);
    if (p < end && *p == '"') {
        if (read_quoted(&p, end, word, mistake) != TEXT_WORD) return TEXT_MISTAKE;
        return p == end ? TEXT_WORD : glued_mistake(mistake);
    }
    while (p < end) {
        if (*p == '\\') {
            if (!read_escape(&p, end, word, mistake)) return TEXT_MISTAKE;
        } else {
            text_append_byte(word, *p++);
        }
    }
    return TEXT_WORD;
}

text_result text_read_field(const char *at, const char *end, text_buffer *bytes, text_mistake *mistake)
{
    text_clear(bytes);
    while (at < end) {
        if (*at == '\\') {
            if (!read_escape(&at, end, bytes, mistake)) return TEXT_MISTAKE;
            continue;
        }
        size_t length = printable_sequence((const unsigned char *)at, (size_t)(end - at));
        if (length == 0) {
            snprintf(mistake->words, sizeof mistake->words, "the byte %02x stands there without an escape", (unsigned)(unsigned char)*at);
            return TEXT_MISTAKE;
        }
        text_append(bytes, at, length);
        at += length;
    }
    return TEXT_WORD;
}

void text_format_ms(uint64_t nanoseconds, char out[32])
{
    int decimals = nanoseconds >= 95000 ? 1 : nanoseconds >= 9500 ? 2 : nanoseconds >= 950 ? 3 : 4;
    snprintf(out, 32, "%.*fms", decimals, (double)nanoseconds / 1e6);
}
