/* What the programs that compare ringwood with its peers share: what they are asked for, records, the clock, medians. */
#ifndef BENCH_FIGURES_H
#define BENCH_FIGURES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define KEY_BYTES 16
#define VALUE_BYTES 100
#define ROUNDS_MAX 15

static inline _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    const char *dir;
    uint64_t records;
    unsigned rounds;
    double seconds;              /* of each round */
} figures_plan;

static inline figures_plan plan_read(int argc, char **argv, uint64_t records)
{
    if (argc < 2) fail(argv[0], "usage: DIR [RECORDS [ROUNDS [SECONDS]]]");
    figures_plan plan = {
        .dir = argv[1],
        .records = argc > 2 ? strtoull(argv[2], NULL, 10) : records,
        .rounds = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 5,
        .seconds = argc > 4 ? strtod(argv[4], NULL) : 2,
    };
    if (plan.records == 0 || plan.rounds == 0 || plan.rounds > ROUNDS_MAX || plan.seconds <= 0) fail(argv[0], "a number is out of range");
    return plan;
}

/* A bijection of the record's number, so that keys are spread, in hexadecimal. */
static inline void key_make(char *key, uint64_t number)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t h = (number + 1) * 0x9e3779b97f4a7c15u;
    h ^= h >> 31;
    h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 29;
    for (int i = 0; i < KEY_BYTES; i++) key[i] = digits[h >> (60 - 4 * i) & 15];
}

static inline void value_make(char *value, uint64_t number)
{
    memset(value, (int)(number % 251), VALUE_BYTES);
    memcpy(value, &number, sizeof number);
}

static inline int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sorts. */
static inline double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return values[count / 2];
}

static inline void path_make(char *path, size_t size, const char *dir, const char *name)
{
    snprintf(path, size, "%s/%s", dir, name);
    if (mkdir(path, 0755) != 0) fail(path, "cannot be made: it must not exist");
}

#endif
