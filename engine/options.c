/* Options: defaults, text form, sanity. */
#include "base/memory.h"
#include "engine/engine_internal.h"

#include <limits.h>

void rw_options_init(rw_options *options)
{
    if (options == NULL) return;
    *options = (rw_options){
        .struct_size = sizeof *options,
        .cache_bytes = (uint64_t)256 << 20,
        .page_size = 4096,
        .workers = 0,
        .io_backend = "auto",
        .log_bytes = (uint64_t)64 << 20,
        .async_delay_ms = 50,
        .partition_bytes = 0,
        .create = 1,
        .txn_bytes_max = (uint64_t)1 << 30,
        .lock_timeout_ms = 10000,
        .log_sync = "auto",
    };
}

/* Digits with an optional K, M, G (and an optional B behind). */
static int number_parse(const char *name, const char *text, uint64_t *out)
{
    uint64_t value = 0;
    const char *at = text;
    if (*at < '0' || *at > '9') return rw_error(RW_EINVAL, "option %s: '%s' is no number", name, text);
    for (; *at >= '0' && *at <= '9'; at++) {
        if (value > (UINT64_MAX - 9) / 10) return rw_error(RW_EINVAL, "option %s: '%s' is too large", name, text);
        value = value * 10 + (uint64_t)(*at - '0');
    }
    unsigned shift = 0;
    if (*at == 'k' || *at == 'K') shift = 10;
    else if (*at == 'm' || *at == 'M') shift = 20;
    else if (*at == 'g' || *at == 'G') shift = 30;
    if (shift > 0) at++;
    if (shift > 0 && (*at == 'b' || *at == 'B')) at++;
    if (*at != 0) return rw_error(RW_EINVAL, "option %s: '%s' is no number", name, text);
    if (value > UINT64_MAX >> shift) return rw_error(RW_EINVAL, "option %s: '%s' is too large", name, text);
    *out = value << shift;
    return 0;
}

typedef struct {
    const char *name, *field;
    size_t offset;
    bool wide;                     /* uint64_t, else uint32_t */
} option_entry;

#define OPTION(name, field, wide) {name, #field, offsetof(rw_options, field), wide}

static const option_entry number_options[] = {
    OPTION("cache", cache_bytes, true),   OPTION("page_size", page_size, false),           OPTION("workers", workers, false),
    OPTION("log", log_bytes, true),       OPTION("async_delay_ms", async_delay_ms, false), OPTION("partition", partition_bytes, true),
    OPTION("create", create, false),      OPTION("read_only", read_only, false),
    OPTION("snapshot_bytes", snapshot_bytes_max, true), OPTION("txn_bytes", txn_bytes_max, true), OPTION("lock_timeout_ms", lock_timeout_ms, false),
};

/* Options that are one of three words. */
typedef struct {
    const char *name;
    size_t offset;
    const char *words[3];
} option_words;

static const option_words word_options[] = {
    {"io_backend", offsetof(rw_options, io_backend), {"auto", "uring", "psync"}},
    {"log_sync", offsetof(rw_options, log_sync), {"auto", "fdatasync", "dsync"}},
};

/* The word as it is in the table, which outlives the caller's text. */
static int word_parse(const option_words *option, const char *value, const char **out)
{
    const char *const *words = option->words;
    if (value == NULL) return rw_error(RW_EINVAL, "%s is NULL", option->name);
    for (size_t i = 0; i < RW_ARRAY_SIZE(option->words); i++) {
        if (strcmp(value, words[i]) != 0) continue;
        *out = words[i];
        return 0;
    }
    return rw_error(RW_EINVAL, "%s: '%s' is none of %s, %s, %s", option->name, value, words[0], words[1], words[2]);
}

static int words_check(const rw_options *options)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(word_options); i++) {
        const char *value, *ignored = NULL;
        memcpy(&value, (const char *)options + word_options[i].offset, sizeof value);
        if (word_parse(&word_options[i], value, &ignored) != 0) return RW_EINVAL;
    }
    return 0;
}

/* Every option by itself. */
static int each_check(const rw_options *o)
{
    if (o->struct_size != sizeof *o) return rw_error(RW_EINVAL, "struct_size: %zu: the options were not set up by rw_options_init", o->struct_size);
    if (o->cache_bytes < RW_CACHE_BYTES_MIN)
        return rw_error(RW_EINVAL, "cache_bytes: %llu is less than %u", (unsigned long long)o->cache_bytes, RW_CACHE_BYTES_MIN);
    if (o->cache_bytes > (uint64_t)1 << 44) return rw_error(RW_EINVAL, "cache_bytes: %llu is absurd", (unsigned long long)o->cache_bytes);
    if (rw_key_size_max(o->page_size) == 0)
        return rw_error(RW_EINVAL, "page_size: %u is none of 4096, 8192, 16384, 32768, 65536", o->page_size);
    if (o->workers > RW_WORKERS_MAX) return rw_error(RW_EINVAL, "workers: %u is more than %u", o->workers, RW_WORKERS_MAX);
    if (words_check(o) != 0) return RW_EINVAL;
    if (o->log_bytes < 4 * RW_LOG_STAGING_BYTES)
        return rw_error(RW_EINVAL, "log_bytes: %llu is less than %u", (unsigned long long)o->log_bytes, 4 * RW_LOG_STAGING_BYTES);
    if (o->log_bytes > (uint64_t)1 << 40) return rw_error(RW_EINVAL, "log_bytes: %llu is absurd", (unsigned long long)o->log_bytes);
    if (o->async_delay_ms < 1 || o->async_delay_ms > 60000)
        return rw_error(RW_EINVAL, "async_delay_ms: %u is not between 1 and 60000", o->async_delay_ms);
    if (o->partition_bytes != 0 && o->partition_bytes < RW_SEGMENT_BYTES / 8)
        return rw_error(RW_EINVAL, "partition_bytes: %llu is less than %u", (unsigned long long)o->partition_bytes, RW_SEGMENT_BYTES / 8);
    if (o->partition_bytes > (uint64_t)1 << 40) return rw_error(RW_EINVAL, "partition_bytes: %llu is absurd", (unsigned long long)o->partition_bytes);
    if (o->txn_bytes_max < 4096) return rw_error(RW_EINVAL, "txn_bytes_max: %llu is less than 4096", (unsigned long long)o->txn_bytes_max);
    if (o->lock_timeout_ms < 1 || o->lock_timeout_ms > 3600000)
        return rw_error(RW_EINVAL, "lock_timeout_ms: %u is not between 1 and 3600000", o->lock_timeout_ms);
    if (o->create > 1) return rw_error(RW_EINVAL, "create: %u is neither 0 nor 1", o->create);
    if (o->read_only > 1) return rw_error(RW_EINVAL, "read_only: %u is neither 0 nor 1", o->read_only);
    return 0;
}

int rw_options_set(rw_options *options, const char *name, const char *value)
{
    if (options == NULL || name == NULL || value == NULL) return rw_error(RW_EINVAL, "an argument of rw_options_set is NULL");
    for (size_t i = 0; i < RW_ARRAY_SIZE(word_options); i++) {
        const char *word = NULL;
        if (strcmp(name, word_options[i].name) != 0) continue;
        int error = word_parse(&word_options[i], value, &word);
        if (error == 0) memcpy((char *)options + word_options[i].offset, &word, sizeof word);
        return error;
    }
    for (size_t i = 0; i < RW_ARRAY_SIZE(number_options); i++) {
        const option_entry *entry = &number_options[i];
        if (strcmp(name, entry->name) != 0 && strcmp(name, entry->field) != 0) continue;
        rw_options changed = *options;
        uint64_t number = 0;
        int error = number_parse(name, value, &number);
        if (error != 0) return error;
        if (!entry->wide && number > UINT32_MAX) return rw_error(RW_EINVAL, "option %s: '%s' is too large", name, value);
        if (entry->wide) memcpy((char *)&changed + entry->offset, &number, sizeof number);
        else memcpy((char *)&changed + entry->offset, &(uint32_t){(uint32_t)number}, sizeof(uint32_t));
        error = each_check(&changed);
        if (error == 0) *options = changed;
        return error;
    }
    return rw_error(RW_EINVAL, "there is no option '%s'", name);
}

int options_check(const rw_options *o)
{
    int error = each_check(o);
    if (error != 0) return error;
    uint64_t memory = rw_memory_physical();
    if (o->cache_bytes > memory)
        return rw_error(RW_EINVAL, "cache_bytes: %llu is more than the machine's memory, %llu", (unsigned long long)o->cache_bytes, (unsigned long long)memory);
    if (o->snapshot_bytes_max > o->cache_bytes / 2)
        return rw_error(RW_EINVAL, "snapshot_bytes_max: %llu is more than half of the cache", (unsigned long long)o->snapshot_bytes_max);
    return 0;
}
