/* The shell's commands that read and write as one operation: cas, add. */
#include <inttypes.h>
#include <stdio.h>

#include "base/base.h"
#include "cli/shell.h"

/* Reads a value typed as a word; a bare - is none: *slice is then NULL. */
static bool read_optional(shell *s, const char **at, const char *end, text_buffer *out, rw_slice *room, const rw_slice **slice)
{
    bool quoted;
    text_result result = shell_read_word(s, at, end, out, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_NONE) return shell_usage_error(s);
    *room = text_slice(out);
    *slice = shell_word_is(out, quoted, "-") ? NULL : room;
    return true;
}

bool shell_cas(shell *s, const char *at, const char *end)
{
    bool quoted;
    rw_slice expected_room, desired_room;
    const rw_slice *expected = NULL, *desired = NULL;
    text_result result = shell_read_word(s, &at, end, &s->key, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_NONE) return shell_usage_error(s);
    if (!read_optional(s, &at, end, &s->value, &expected_room, &expected) || !read_optional(s, &at, end, &s->to, &desired_room, &desired) ||
        !shell_expect_end(s, at, end) || !shell_refuse_in_transaction(s))
        return false;
    stopwatch_start(&s->watch);
    int code = rw_cas(s->db, s->bucket, text_slice(&s->key), expected, desired, s->args->write_flags);
    stopwatch_stop(&s->watch);
    return code == 0 ? shell_say(s, "OK") : shell_library_error(s, code);
}

bool shell_add(shell *s, const char *at, const char *end)
{
    bool quoted;
    int64_t delta, sum;
    char digits[24];
    text_result result = shell_read_word(s, &at, end, &s->key, &quoted);
    if (result == TEXT_MISTAKE) return false;
    if (result == TEXT_NONE) return shell_usage_error(s);
    if (!shell_read_only_word(s, at, end, &s->word)) return false;
    text_append_byte(&s->word, '\0');
    if (!arguments_read_signed(s->word.data, &delta)) return shell_error(s, "add needs a whole number of 64 bits");
    if (!shell_refuse_in_transaction(s)) return false;
    stopwatch_start(&s->watch);
    int code = rw_add(s->db, s->bucket, text_slice(&s->key), delta, &sum, s->args->write_flags);
    stopwatch_stop(&s->watch);
    if (code != 0) return shell_library_error(s, code);
    snprintf(digits, sizeof digits, "%" PRId64, sum);
    return shell_say(s, digits);
}
