#include "cli/line_reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (64u << 10)

void line_reader_init(line_reader *reader, int fd)
{
    *reader = (line_reader){.fd = fd};
}

void line_reader_free(line_reader *reader)
{
    text_free(&reader->buffer);
}

/* Reads more behind what is there. */
static line_result fill(line_reader *reader)
{
    text_buffer *b = &reader->buffer;
    if (reader->next != 0) {
        b->size -= reader->next;
        memmove(b->data, b->data + reader->next, b->size);
        reader->next = 0;
    }
    text_reserve(b, b->size + READ_BYTES);
    fflush(stdout);
    for (;;) {
        ssize_t got = read(reader->fd, b->data + b->size, b->capacity - b->size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return LINE_FAILED;
        reader->at_end = got == 0;
        b->size += (size_t)got;
        return LINE_READ;
    }
}

static line_result hand_out(line_reader *reader, size_t end, size_t next, const char **line, size_t *size)
{
    *line = reader->buffer.data + reader->next;
    *size = end - reader->next;
    reader->next = next;
    reader->number++;
    return LINE_READ;
}

line_result line_reader_next(line_reader *reader, const char **line, size_t *size)
{
    size_t searched = 0;        /* bytes of this line known to hold no newline */
    for (;;) {
        const text_buffer *b = &reader->buffer;
        size_t from = reader->next + searched;
        const char *newline = from < b->size ? memchr(b->data + from, '\n', b->size - from) : NULL;
        if (newline != NULL) return hand_out(reader, (size_t)(newline - b->data), (size_t)(newline - b->data) + 1, line, size);
        if (reader->at_end) return reader->next == b->size ? LINE_END : hand_out(reader, b->size, b->size, line, size);
        searched = b->size - reader->next;
        if (fill(reader) == LINE_FAILED) return LINE_FAILED;
    }
}
