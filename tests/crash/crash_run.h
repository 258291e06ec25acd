/* One run from one seed: clients work on a database in a simulated machine, which is crashed again and again on the side. */
#ifndef TESTS_CRASH_RUN_H
#define TESTS_CRASH_RUN_H

#include "kernel_io/kernel_io.h"
#include "tests/crash/crash_shared.h"
#include "tests/sim/sim.h"

#define CRASH_STEP_LIMIT 30000000u

typedef struct crash_run {
    crash_plan plan;
    sim_world *world;
    kio *k;
    rw_db *db;
    rw_options options;
    rw_bucket second, own[CRASH_CLIENTS_MAX];
    rw_random random;                /* the main thread's */
    crash_history histories[CRASH_CLIENTS_MAX];
    crash_shared shared;
    bool was_opened;                 /* rw_open has returned: the database is there from now on */
    bool has_second;                 /* the same for the second bucket */
    bool faults;                     /* calls may fail; they must not lie */
    uint32_t refusals;               /* calls that failed */
    /* crashes */
    rw_random capture_random;
    uint64_t until_capture;          /* steps */
    uint32_t states, states_max;
    int64_t only_state;              /* check this one; -1: all */
    uint32_t checked;
} crash_run;

#define CRASH_DIRECTORY "db"

/* What is running, for the line that replays it. */
void crash_note(const char *kind, uint64_t seed, int64_t state);
void crash_note_write(void);   /* the line, from a signal handler */
/* Prints the replay line and the words, and ends the process with status 1. */
_Noreturn void crash_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the run unless rc is 0. */
void crash_expect_ok(int rc, const char *what);

/* The machine for a run. */
void crash_run_open(crash_run *run, uint64_t seed, sim_disk *disk);
void crash_run_close(crash_run *run);

/* The main thread of a run; arg: crash_run. Opens the database, starts clients, joins them, closes; for each round. */
void crash_run_main(void *arg);
/* True when rc is 0. Ends the run when it is an error that cannot be; while faults are planned most can. */
bool crash_result(crash_run *run, int rc, const char *what);
/* Ends the run when the record of the shared keys is not sound. */
void crash_run_check_shared(crash_run *run);

/* Everything durable so far by time: called before a state is checked. */
void crash_run_due(crash_run *run);

/*
 * Opens what is on that disk in a world of its own and checks it against the histories of run, down to further crashes during the
 * recovery. The disk is the caller's; it is changed. random: all draws of the check come from it.
 */
void crash_check_disk(crash_run *run, sim_disk *disk, rw_random *random);

/* The same over a medium that has lied: calls may fail, but what they return must be right. any_history: the log was hit; only that values are
 * values that were written is certain then. */
void crash_check_damaged(crash_run *run, sim_disk *disk, rw_random *random, bool any_history);

/* Step hook of a run: crashes and checks at drawn steps; arg: crash_run. */
void crash_capture(void *arg);

/* What runs have met so far, from rw_stats of each round: printed, to see that the runs reach what they are for. */
#define CRASH_MET_MAP(X)                                                                                                     \
    X(txns_committed) X(txns_aborted) X(txns_conflicted) X(deadlocks) X(lock_waits) X(lock_timeouts) X(snapshots_given_up) \
    X(pages_evicted) X(filter_answers) X(pending_puts) X(pending_answers) X(record_answers) X(spilled_puts) X(spill_answers) X(partitions_rewritten) X(checkpoints)
typedef struct {
#define CRASH_MET_FIELD(name) uint64_t name;
    CRASH_MET_MAP(CRASH_MET_FIELD)
#undef CRASH_MET_FIELD
    uint64_t partitions_max;
    uint64_t rounds_fdatasync, rounds_dsync;    /* how their log was made durable */
    uint64_t queue_operations, queue_cancelled, queue_closed;    /* closed: with operations under way */
} crash_met;
extern crash_met crash_met_all;
void crash_run_met(crash_run *run);      /* before a round's close */
void crash_met_print(void);

/* One seed of each kind; returns how many states were checked. */
uint32_t crash_seed_crashes(uint64_t seed, uint32_t states_max, int64_t only_state);
uint32_t crash_seed_faults(uint64_t seed);
/* Ends the process unless the seed's run has the same trace twice: else no failure could be replayed. */
void crash_seed_repeats(uint64_t seed);

#endif
