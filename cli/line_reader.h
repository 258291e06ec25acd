/* Lines of any length from a file descriptor: pipes and files. Knows nothing of terminals (line_editor.h). */
#ifndef RW_CLI_LINE_READER_H
#define RW_CLI_LINE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/text.h"

typedef enum {
    LINE_READ,
    LINE_END,
    LINE_INTERRUPTED,           /* a terminal's ^C; never from a line_reader */
    LINE_FAILED,                /* errno says why */
} line_result;

typedef struct {
    int fd;
    bool at_end;                /* read() has reported the end */
    uint64_t number;            /* of the line handed out last; the first is 1 */
    text_buffer buffer;
    size_t next;                /* where in buffer the next line begins */
} line_reader;

void line_reader_init(line_reader *reader, int fd);
/* *line is good until the next call; without its newline. A last line without a newline is a line. Flushes stdout before it waits. */
line_result line_reader_next(line_reader *reader, const char **line, size_t *size);
void line_reader_free(line_reader *reader);

#endif
