/* The text codecs of the command: what is printed can be typed back. The codecs are no part of the library, so they are compiled in here. */
#include "cli/text.c"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include "base/random.h"
#include "tests/support/tap.h"

/* What text.c needs of the command. */
void cli_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
}

static bool holds(const text_buffer *b, const char *data, size_t size)
{
    return b->size == size && (size == 0 || memcmp(b->data, data, size) == 0);
}

#define BYTES(literal) literal, sizeof(literal) - 1

typedef struct {
    const char *bytes;
    size_t size;
    const char *printed;
} example;

static void check_examples(const char *what, void (*append)(text_buffer *, rw_slice), const example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        text_buffer out = {0};
        append(&out, (rw_slice){.data = examples[i].bytes, .size = examples[i].size});
        bool same = holds(&out, examples[i].printed, strlen(examples[i].printed));
        if (!tap_ok(same, "%s %s", what, examples[i].printed)) tap_diag("got %.*s", (int)out.size, out.data);
        text_free(&out);
    }
}

static void test_printing(void)
{
    const example words[] = {
        {BYTES("user:1"), "user:1"}, {BYTES(""), "\"\""}, {BYTES("a b"), "\"a b\""}, {BYTES("a\\b"), "\"a\\\\b\""},
        {BYTES("a\"b"), "a\"b"}, {BYTES("\"a"), "\"\\\"a\""}, {BYTES("gr\303\274n"), "gr\303\274n"}, {BYTES("\xff\n\t\x01"), "\"\\xff\\n\\t\\x01\""},
        {BYTES("limit"), "\"limit\""}, {BYTES("REVERSE"), "\"REVERSE\""}, {BYTES("limits"), "limits"},
        {BYTES("\0"), "\"\\x00\""}, {BYTES("\342\200\256x"), "\"\\xe2\\x80\\xaex\""}, {BYTES("\303"), "\"\\xc3\""},
    };
    const example values[] = {
        {BYTES("{\"name\": \"Alice\", \"age\": 30}"), "{\"name\": \"Alice\", \"age\": 30}"}, {BYTES(""), "\"\""},
        {BYTES(" x"), "\" x\""}, {BYTES("x "), "\"x \""}, {BYTES("\"x\""), "\"\\\"x\\\"\""}, {BYTES("a\\b"), "a\\b"},
        {BYTES("a\nb"), "\"a\\nb\""}, {BYTES("\302\205"), "\"\\xc2\\x85\""},
    };
    const example exchange[] = {
        {BYTES("a\"b\\n"), "a\"b\\n"}, {BYTES("\xfe"), "\\xfe"}, {BYTES("\\x41"), "\\x5cx41"}, {BYTES("\\xZZ"), "\\xZZ"}, {BYTES("\0"), "\\x00"},
        {BYTES("\xed\xa0\x80"), "\\xed\\xa0\\x80"}, {BYTES("\xc0\x80"), "\\xc0\\x80"}, {BYTES("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80"},
    };
    const example fields[] = {
        {BYTES("a b\tc\nd\\e\"f"), "a b\\tc\\nd\\\\e\"f"}, {BYTES("\x80"), "\\x80"}, {BYTES(""), ""},
    };
    check_examples("word", text_append_word, words, sizeof words / sizeof *words);
    check_examples("value", text_append_value, values, sizeof values / sizeof *values);
    check_examples("exchange", text_append_exchange, exchange, sizeof exchange / sizeof *exchange);
    check_examples("field", text_append_field, fields, sizeof fields / sizeof *fields);
}

static void test_reading_words(void)
{
    const char line[] = "  put \"a \\\"b\\\\\" c\\x20d\\t\t{\"x\":1} ";
    const char *at = line, *end = line + sizeof line - 1;
    text_buffer word = {0};
    bool quoted;
    text_mistake mistake;
    tap_ok(text_read_word(&at, end, &word, &quoted, &mistake) == TEXT_WORD && holds(&word, BYTES("put")) && !quoted, "a bare word");
    tap_ok(text_read_word(&at, end, &word, &quoted, &mistake) == TEXT_WORD && holds(&word, BYTES("a \"b\\")) && quoted, "a quoted word");
    tap_ok(text_read_word(&at, end, &word, &quoted, &mistake) == TEXT_WORD && holds(&word, BYTES("c d\t")), "escapes in a bare word");
    tap_ok(text_read_word(&at, end, &word, &quoted, &mistake) == TEXT_WORD && holds(&word, BYTES("{\"x\":1}")), "quotes inside a bare word");
    tap_ok(text_read_word(&at, end, &word, &quoted, &mistake) == TEXT_NONE, "blanks at the end are no word");
    text_free(&word);
}

static void test_mistakes(void)
{
    static const char *const lines[] = {"\"abc", "\"a\"b", "a\\q", "a\\x4", "a\\xg0", "a\\", "\"a\\\""};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const char *at = lines[i];
        text_buffer word = {0};
        bool quoted;
        text_mistake mistake = {{0}};
        text_result result = text_read_word(&at, lines[i] + strlen(lines[i]), &word, &quoted, &mistake);
        tap_ok(result == TEXT_MISTAKE && mistake.words[0] != '\0', "%s is refused: %s", lines[i], mistake.words);
        text_free(&word);
    }
    text_buffer bytes = {0};
    text_mistake mistake;
    const char value[] = "\"a\" b", blanks[] = " \t ", raw[] = "a\001b", broken[] = "a\xff";
    tap_ok(text_read_value(value, value + sizeof value - 1, &bytes, &mistake) == TEXT_MISTAKE, "text behind a quoted value is refused");
    tap_ok(text_read_value(blanks, blanks + sizeof blanks - 1, &bytes, &mistake) == TEXT_NONE, "blanks are no value");
    tap_ok(text_read_field(raw, raw + sizeof raw - 1, &bytes, &mistake) == TEXT_MISTAKE, "a control byte in a field is refused");
    tap_ok(text_read_field(broken, broken + sizeof broken - 1, &bytes, &mistake) == TEXT_MISTAKE, "a byte that is no text is refused in a field");
    text_free(&bytes);
}

/* What a reader of JSON or CSV does: each \xNN is a byte, nothing else is an escape. */
static void read_exchange(const text_buffer *from, text_buffer *bytes)
{
    const char *at = from->data, *end = at + from->size;
    text_clear(bytes);
    while (at < end) {
        bool escape = is_hex_escape(at, end);
        text_append_byte(bytes, escape ? hex_escape_byte(at) : *at);
        at += escape ? 4 : 1;
    }
}

/* Bytes of the kinds that matter: any, ASCII, pieces of escapes, whole and broken UTF-8. */
static void random_bytes(rw_random *random, text_buffer *out)
{
    static const char *const pieces[] = {"\\", "x", "\"", "\\x", "41", " ", "\t", "\n", "\303\274", "\342\200\256", "\303", "\302\205", "limit", "\r", "\360\237\230\200"};
    size_t count = rw_random_below(random, 12);
    text_clear(out);
    while (count-- > 0) {
        if (rw_random_below(random, 3) == 0) text_append_byte(out, (char)rw_random_below(random, 256));
        else text_append_string(out, pieces[rw_random_below(random, sizeof pieces / sizeof *pieces)]);
    }
}

static bool is_valid_utf8(const text_buffer *b)
{
    uint32_t code;
    for (size_t i = 0, length; i < b->size; i += length) {
        length = text_utf8_sequence((const unsigned char *)b->data + i, b->size - i, &code);
        if (length == 0) return false;
    }
    return true;
}

static bool has_control_byte(const text_buffer *b)
{
    for (size_t i = 0; i < b->size; i++)
        if ((unsigned char)b->data[i] < ' ' || b->data[i] == 0x7f) return true;
    return false;
}

static bool round_trips(const text_buffer *bytes)
{
    text_buffer shown = {0}, back = {0};
    text_mistake mistake;
    bool quoted, fine;
    text_append_word(&shown, text_slice(bytes));
    const char *at = shown.data;
    fine = TAP_CHECK(!has_control_byte(&shown) && is_valid_utf8(&shown));
    fine &= TAP_CHECK(text_read_word(&at, shown.data + shown.size, &back, &quoted, &mistake) == TEXT_WORD);
    fine &= TAP_CHECK(at == shown.data + shown.size && holds(&back, bytes->data, bytes->size));
    text_append_byte(&shown, '\0');
    fine &= TAP_CHECK(text_read_argument(shown.data, &back, &mistake) == TEXT_WORD && holds(&back, bytes->data, bytes->size));
    text_clear(&shown);
    text_append_value(&shown, text_slice(bytes));
    fine &= TAP_CHECK(!has_control_byte(&shown) && is_valid_utf8(&shown));
    fine &= TAP_CHECK(text_read_value(shown.data, shown.data + shown.size, &back, &mistake) == TEXT_WORD);
    fine &= TAP_CHECK(holds(&back, bytes->data, bytes->size));
    text_clear(&shown);
    text_append_field(&shown, text_slice(bytes));
    fine &= TAP_CHECK(!has_control_byte(&shown));
    fine &= TAP_CHECK(text_read_field(shown.data, shown.data + shown.size, &back, &mistake) == TEXT_WORD && holds(&back, bytes->data, bytes->size));
    text_clear(&shown);
    text_append_exchange(&shown, text_slice(bytes));
    read_exchange(&shown, &back);
    fine &= TAP_CHECK(is_valid_utf8(&shown) && holds(&back, bytes->data, bytes->size));
    text_free(&shown);
    text_free(&back);
    return fine;
}

static void test_round_trips(uint64_t seed)
{
    rw_random random;
    text_buffer bytes = {0};
    bool fine = true;
    rw_random_seed(&random, seed);
    for (int i = 0; i < 20000 && fine; i++) {
        random_bytes(&random, &bytes);
        fine = round_trips(&bytes);
    }
    text_free(&bytes);
    if (!tap_ok(fine, "what is shown reads back as the same bytes")) tap_diag("replay: test_cli_text %llu", (unsigned long long)seed);
}

static void test_times(void)
{
    static const struct {
        uint64_t nanoseconds;
        const char *text;
    } times[] = {{100000, "0.1ms"}, {20000, "0.02ms"}, {950, "0.001ms"}, {95000, "0.1ms"}, {300, "0.0003ms"}, {12345678, "12.3ms"}, {0, "0.0000ms"}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char text[32];
        text_format_ms(times[i].nanoseconds, text);
        tap_ok(strcmp(text, times[i].text) == 0, "%llu ns is %s", (unsigned long long)times[i].nanoseconds, text);
    }
}

int main(int argc, char **argv)
{
    test_printing();
    test_reading_words();
    test_mistakes();
    test_times();
    test_round_trips(argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL));
    return tap_done();
}
