#include "bench/parse.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool parse_number(const char *text, uint64_t unit, uint64_t least, uint64_t most, uint64_t *number)
{
    if (text[0] < '0' || text[0] > '9') return false;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0) return false;
    uint64_t factor = 1;
    switch (*end) {
    case 'k': case 'K': factor = unit; break;
    case 'M': factor = unit * unit; break;
    case 'G': factor = unit * unit * unit; break;
    case '\0': break;
    default: return false;
    }
    if (*end != '\0' && end[1] != '\0') return false;
    if (n > UINT64_MAX / factor || n * factor < least || n * factor > most) return false;
    *number = n * factor;
    return true;
}

bool bench_parse_count(const char *text, uint64_t least, uint64_t most, uint64_t *count)
{
    return parse_number(text, 1000, least, most, count);
}

bool bench_parse_bytes(const char *text, uint64_t least, uint64_t most, uint64_t *bytes)
{
    return parse_number(text, 1024, least, most, bytes);
}

bool bench_parse_seconds(const char *text, double *seconds)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value <= 0 || value > 1e7) return false;
    *seconds = value;
    return true;
}

int bench_option_refuse(const char *argument, bool value_missing)
{
    fprintf(stderr, "error: %s: %s\n", argument, value_missing ? "the value is missing" : "no such option; --help lists them");
    return -1;
}
