/* Temporary directories, and copies of and damage to the files in them. Functions return false after printing why. */
#ifndef TESTS_DIRS_H
#define TESTS_DIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIRS_PATH_MAX 512
#define DIRS_FILES_MAX 64

typedef struct {
    size_t count;
    char names[DIRS_FILES_MAX][DIRS_PATH_MAX];   /* relative to the directory, sorted */
} dir_listing;

/* Makes a fresh directory under ${TMPDIR:-/tmp}; it is removed when the process that made it exits, if dir_remove did not do so before. */
bool dir_make(char path[DIRS_PATH_MAX], const char *tag);
void dir_remove(const char *path);

/* Joins two parts with a '/'. */
void path_join(char path[DIRS_PATH_MAX], const char *dir, const char *name);

/* Lists the regular files below path, in subdirectories too. */
bool dir_list(const char *path, dir_listing *listing);

/* Copies all files of from to the directory to, which is made when missing and emptied when not. Holes stay holes. */
bool dir_copy(const char *from, const char *to);

/* Whether both directories hold the same names with the same bytes. The bytes of the file named except are not compared; NULL for none. */
bool dir_same(const char *a, const char *b, const char *except);

/* -1 when there is no such file. */
int64_t file_size(const char *path);
bool file_copy(const char *from, const char *to);
/* Returns the whole file in malloc'd memory, NULL on failure. */
uint8_t *file_read(const char *path, size_t *size);
bool file_write_at(const char *path, uint64_t offset, const void *data, size_t size);
bool file_zero(const char *path, uint64_t offset, uint64_t size);
bool file_truncate(const char *path, uint64_t size);
/* Replaces the byte at offset by itself xor mask. */
bool file_flip(const char *path, uint64_t offset, uint8_t mask);
/* The offset of the first occurrence of the pattern at or after from; -1 for none. */
int64_t file_find(const char *path, const void *pattern, size_t size, uint64_t from);

#endif
