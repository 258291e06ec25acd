/* Numbers for people. Each function's text is good until its fourth next call. */
#ifndef BENCH_TEXT_H
#define BENCH_TEXT_H

#include <stdint.h>

/* A number of bytes, such as 256 MiB. */
const char *bench_text_bytes(uint64_t bytes);
/* 1234567 as 1,234,567. */
const char *bench_text_count(double count);
/* Microseconds, with as many digits as mean something. */
const char *bench_text_us(uint64_t ns);

#endif
