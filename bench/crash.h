/* The face of the crash test: a writing process is killed again and again, and what it was told was durable must be there. */
#ifndef BENCH_CRASH_H
#define BENCH_CRASH_H

#include <stdbool.h>
#include <stdint.h>

#include "ringwood.h"

typedef struct {
    const char *directory;       /* of the database; must hold none yet */
    unsigned rounds;
    double seconds_max;          /* no round begins later than this; 0: no limit */
    uint64_t seed;
    bool progress;               /* a line for each round on stderr */
    rw_options options;
} crash_request;

typedef struct {
    bool passed;
    int exit_code;               /* 0, 1 when a promise was broken, 2 or 3 when the test could not run */
    unsigned rounds;             /* finished */
    unsigned killed;             /* writers killed; the others had ended before the signal came */
    unsigned killed_opening, killed_in_checkpoint, killed_closing; /* of those, where that is known */
    uint64_t commits;            /* acknowledged as durable, all found again */
    uint64_t records;            /* records checked, over all rounds */
    double recovery_ms_median, recovery_ms_max; /* rw_open after a kill */
    char complaint[512];         /* why it did not pass */
} crash_result;

/* Runs the rounds, all on one database. Returns result->exit_code. */
int crash_run(const crash_request *request, crash_result *result);

/* The verb. argv[0] is the verb. Returns the exit code of the command. */
int crash_main(int argc, char **argv);

#endif
