/* Command lines: numbers, and options that there are not. */
#ifndef BENCH_PARSE_H
#define BENCH_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* All of text must be a number: with K, M, G as powers of 1000 (counts) or of 1024 (bytes). false when it is not, or not in the range. */
bool bench_parse_count(const char *text, uint64_t least, uint64_t most, uint64_t *count);
bool bench_parse_bytes(const char *text, uint64_t least, uint64_t most, uint64_t *bytes);
bool bench_parse_seconds(const char *text, double *seconds);
/* For what getopt did not take: prints why. Returns -1. */
int bench_option_refuse(const char *argument, bool value_missing);

#endif
