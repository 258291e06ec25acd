/* What is to be compared: sets of workloads, and how much of each. Made from the command line by arguments.c, read by everyone. */
#ifndef BENCH_COMPARE_PLAN_H
#define BENCH_COMPARE_PLAN_H

#include "bench/compare/compare.h"
#include "bench/keys.h"

#define COMPARE_ENGINES_MAX 8u
#define COMPARE_WORKLOADS_MAX 24u   /* of a set */
#define COMPARE_ROUNDS_MAX 31u
#define COMPARE_THREADS_MAX 256u

typedef enum {
    COMPARE_LOAD,                   /* puts every record once, in random order; the first of a set */
    COMPARE_LOAD_SEQUENTIAL,        /* the same in key order, into a database of its own, which is removed */
    COMPARE_GET,
    COMPARE_GET_ABSENT,
    COMPARE_SCAN,                   /* of COMPARE_SCAN_LENGTH records from a random one on */
    COMPARE_SCAN_FULL,
    COMPARE_PUT,                    /* of existing records */
    COMPARE_BATCH,                  /* COMPARE_BATCH_PUTS of them in a commit */
    COMPARE_MULTI_GET,              /* COMPARE_MULTI_GETS of them in a call */
    COMPARE_MIX,                    /* gets; the others puts, or read-modify-writes */
} compare_kind;

/* What fio does that a workload stands beside: 4 KiB each, direct I/O, with as many under way as the workload has. */
typedef enum { COMPARE_NO_FIO, COMPARE_FIO_READ, COMPARE_FIO_WRITE_SYNC } compare_fio_job;

#define COMPARE_SCAN_LENGTH 100u
#define COMPARE_BATCH_PUTS 100u
#define COMPARE_MULTI_GETS 64u

typedef struct {
    const char *name, *text;
    compare_kind kind;
    unsigned threads;
    bench_distribution distribution;
    unsigned get_share;             /* percent; COMPARE_MIX */
    bool modifies;                  /* the rest are read-modify-writes */
    unsigned in_flight;             /* operations that each thread has under way together; 0: one after the other. COMPARE_GET, COMPARE_PUT */
    const char *instead;            /* with in_flight: engines without such calls stand beside it with their best of the workloads of this name */
    compare_fio_job fio;
    bool quick;                     /* part of the quick comparison */
} compare_workload;

typedef enum { COMPARE_CACHED, COMPARE_DURABLE, COMPARE_LARGE, COMPARE_SETS } compare_set_name;

typedef struct {
    const char *name, *text;
    uint64_t records, cache_bytes;
    double seconds;                 /* of a workload */
    bool durable, direct;
    const compare_workload *workloads; /* up to one without a name */
} compare_set;

extern const compare_set compare_sets[COMPARE_SETS];

/* A set as this run does it. */
typedef struct {
    const compare_set *set;
    compare_settings settings;      /* directory is set for each run */
    uint64_t records;
    double seconds;                 /* of each workload that does not touch every record once */
    compare_workload workloads[COMPARE_WORKLOADS_MAX]; /* the load first, wanted or not */
    unsigned count;
    bool load_is_shown;             /* the load was asked for */
} compare_stage;

typedef enum { COMPARE_TABLE, COMPARE_JSON, COMPARE_CSV } compare_format;

typedef struct {
    compare_stage stages[COMPARE_SETS];
    unsigned stage_count;
    const compare_adapter *engines[COMPARE_ENGINES_MAX];
    unsigned engine_count;
    unsigned rounds;
    double rate;                    /* operations a second, open loop; 0: closed */
    bool series;                    /* what happened in each second is kept; always with a rate */
    bool quick;
    uint64_t seed;
    const char *directory;          /* databases are made in a directory of the run's own below it */
    const char *scratch;            /* that one */
    const char *report_path;        /* NULL: no page */
    compare_format format;
} compare_plan;

/* Whether it writes. */
bool compare_workload_writes(const compare_workload *workload);
/* Whether it touches every record once: its time is its own. */
bool compare_workload_is_whole(const compare_workload *workload);
/* Operations that are under way together, in all threads. */
unsigned compare_workload_depth(const compare_workload *workload);
/* "name:threads". */
void compare_workload_label(const compare_workload *workload, char *text, size_t room);

/* 0; 1: help was printed; or -1: a mistake was explained on stderr. */
int compare_plan_parse(compare_plan *plan, int argc, char **argv);

#endif
