/* Lines from a terminal: editing, history kept in a file, completion, ^C that gives up the line and not the session. */
#ifndef RW_CLI_LINE_EDITOR_H
#define RW_CLI_LINE_EDITOR_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/line_reader.h"

typedef struct line_editor line_editor;

/* Calls add for each word that could stand at the end of line (size bytes before the cursor); the words begin with what is there already. */
typedef void (*line_candidate_fn)(void *add_arg, const char *word);
typedef void (*line_complete_fn)(void *arg, const char *line, size_t size, line_candidate_fn add, void *add_arg);

/* history_path NULL: history lasts for the session. NULL when the terminal cannot be used: errno says why. One at a time. */
line_editor *line_editor_open(const char *history_path, line_complete_fn complete, void *arg);
#define LINE_PROMPT_MAX 72u     /* bytes, with the final 0 */
void line_editor_set_prompt(line_editor *editor, const char *prompt);
/* *line is good until the next call; without its newline. */
line_result line_editor_next(line_editor *editor, const char **line, size_t *size);
/* Keeps the history. */
void line_editor_close(line_editor *editor);

/* Whether ^C was typed since the line was handed out. */
bool line_editor_interrupted(void);

#endif
