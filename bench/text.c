#include "bench/text.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/base.h"

const char *bench_text_bytes(uint64_t bytes)
{
    static char texts[4][32];
    static unsigned next;
    static const char units[] = " KMGTP";
    char *text = texts[next++ % RW_ARRAY_SIZE(texts)];
    double value = (double)bytes;
    unsigned unit = 0;
    for (; value >= 1024 && unit < 5; unit++) value /= 1024;
    if (unit == 0) snprintf(text, sizeof texts[0], "%" PRIu64 " B", bytes);
    else snprintf(text, sizeof texts[0], value < 10 && value != (double)(int)value ? "%.1f %ciB" : "%.0f %ciB", value, units[unit]);
    return text;
}

const char *bench_text_count(double count)
{
    static char texts[4][40];
    static unsigned next;
    char *text = texts[next++ % RW_ARRAY_SIZE(texts)], digits[32];
    int size = snprintf(digits, sizeof digits, "%.0f", count), at = 0;
    for (int i = 0; i < size; i++) {
        text[at++] = digits[i];
        if ((size - 1 - i) % 3 == 0 && i + 1 < size) text[at++] = ',';
    }
    text[at] = '\0';
    return text;
}

const char *bench_text_us(uint64_t ns)
{
    static char texts[8][24];
    static unsigned next;
    char *text = texts[next++ % RW_ARRAY_SIZE(texts)];
    double us = (double)ns / 1000;
    snprintf(text, sizeof texts[0], us < 10 ? "%.2f" : us < 100 ? "%.1f" : "%.0f", us);
    return text;
}
