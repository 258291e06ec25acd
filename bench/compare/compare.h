/*
 * The face of an adapter: how one engine does the work that all engines are compared by. One file for each, adapter_<name>.c.
 *
 * Every call returns 0, RW_ENOTFOUND where that is an answer, or another negative code after rw_error() said in words what failed. Adapters
 * take the time of nothing, verify nothing and draw nothing: bench/compare/operations.c does, the same for all.
 */
#ifndef BENCH_COMPARE_COMPARE_H
#define BENCH_COMPARE_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

#define COMPARE_TEXT 256u

typedef struct {
    const char *directory;       /* there, and empty or left by an earlier open */
    uint64_t cache_bytes;
    uint64_t data_bytes;         /* all keys and values */
    uint32_t key_size, value_size;
    unsigned threads;            /* the most at once, each with a session */
    unsigned in_flight;          /* the most operations that a session has under way together; 0: it is asked for one after the other */
    bool durable;                /* each write is on stable storage when its call returns */
    bool direct;                 /* pass by the kernel's page cache, where the engine can */
} compare_settings;

/* Is handed a record, good during the call. false: stop. */
typedef bool (*compare_record_fn)(void *arg, rw_slice key, rw_slice value);

/* One of many operations that are under way together, a get or a put. With all that it names it is left alone from submit on until reap hands it back or the session
 * is closed. */
typedef struct {
    uint32_t slot;               /* below in_flight of the settings; no other one that is under way has it */
    bool put;
    rw_slice key;
    rw_slice value;              /* get: set, good until the slot is submitted again */
    int code;                    /* set: what the call would have returned */
} compare_request;

/* What an engine does not have is NULL. A session is used by one thread, which also opens and closes it. */
typedef struct {
    const char *name;            /* on the command line */
    const char *title;
    const char *async_words;     /* what a write that returned survives, when it is not durable */
    const char *durable_words;   /* how it is made durable */
    const char *memory_words;    /* what holds memory besides the cache that is asked for */
    const char *modify_words;    /* how a read-modify-write is made atomic */
    const char *multi_get_words; /* what multi_get calls; NULL as it */
    const char *in_flight_words; /* what submit and reap call; NULL as they */
    bool yardstick;              /* no engine but what measures the device itself: fio.h. It has a version and a description, and no calls */
    bool direct_possible;        /* false: its pages also lie in the kernel's page cache, which nothing limits */

    void (*version)(char text[COMPARE_TEXT]);
    /* The settings in effect that differ from the engine's defaults, in the engine's own words. */
    void (*describe)(const compare_settings *settings, char text[COMPARE_TEXT]);
    int (*open)(const compare_settings *settings, void **engine);
    int (*close)(void *engine);
    /* How this engine makes its log durable on this device, where that is chosen by measuring. */
    void (*sync_way)(void *engine, char text[COMPARE_TEXT]);
    /* Everything acknowledged is on stable storage when it returns. */
    int (*flush)(void *engine);
    /* Asks for what the engine would do sooner or later: a checkpoint, its memory tables written out. */
    int (*settle)(void *engine);

    int (*session_open)(void *engine, void **session);
    void (*session_close)(void *session);
    /* *value is good until release, or, where there is none, until the session's next call. */
    int (*get)(void *session, rw_slice key, rw_slice *value);
    void (*release)(void *session);
    int (*put)(void *session, rw_slice key, rw_slice value);
    /* count puts as one atomic commit. */
    int (*batch)(void *session, const rw_slice *keys, const rw_slice *values, unsigned count);
    /* Hands fn the records from key on (from the first one, when it is empty), in order, until it says to stop or they end. */
    int (*scan)(void *session, rw_slice key, compare_record_fn fn, void *arg);
    /* Hands fn the present value, then puts the new one; atomic among modifies and puts of the key. RW_ENOTFOUND: there is none; nothing was put. */
    int (*modify)(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg);
    /* Hands fn each key with its value, in any order; keys that are not there are left out. NULL: single gets are made in its place. */
    int (*multi_get)(void *session, const rw_slice *keys, unsigned count, compare_record_fn fn, void *arg);
    /* Begins count requests, which run side by side with those under way. NULL, as reap: what it does best with threads stands in the place of what it cannot do. */
    int (*submit)(void *session, compare_request **requests, unsigned count);
    /* Hands back requests that have ended, up to max; waits for one, for at most timeout_ns (< 0: no limit). How many there are, or a negative code. */
    int (*reap)(void *session, compare_request **ended, unsigned max, int64_t timeout_ns);
    /* Reads from its files since it was opened. NULL: it does not count them. */
    int (*reads)(void *engine, uint64_t *count);
} compare_adapter;

/* Those that were built, ringwood first; up to NULL. */
extern const compare_adapter *const compare_adapters[];
/* Those that were not, each with the package that it needs; empty when all are there. */
extern const char compare_adapters_missing[];

#endif
