/* How fast a log is replayed: a process overwrites records at random until its log is as long as asked for, makes it durable, and is killed. */
#include <string.h>

#include "base/base.h"
#include "base/random.h"
#include "bench/figures/scale.h"
#include "bench/measure.h"

#define LOOK_EVERY 4096u           /* puts between two looks at the log's length */

typedef struct {
    uint64_t puts, log_bytes;      /* since the last checkpoint */
    uint64_t number;               /* of some record */
    uint64_t records, replayed_us;
    double open_seconds, answer_seconds, cpu_us;
} recovery;

static uint64_t log_length(rw_db *db)
{
    rw_stats_t stats;
    scale_expect(rw_stats(db, &stats), "stats");
    return stats.log_lsn_end - stats.log_lsn_checkpoint;
}

static rw_options recovery_options(const scale_plan *plan)
{
    rw_options options = plan->options;
    /* No checkpoint comes in between: one is made when half of it is written. */
    options.log_bytes = 4 * plan->log_bytes + ((uint64_t)64 << 20);
    return options;
}

static void write_and_die(const scale_plan *plan, const char *path, void *result)
{
    recovery *r = result;
    rw_options options = recovery_options(plan);
    rw_random random;
    rw_db *db;
    scale_expect(rw_open(path, &options, &db), "open");
    scale_load(plan, db, plan->records);
    scale_expect(rw_checkpoint(db), "checkpoint");
    rw_random_seed(&random, 1);
    while (log_length(db) < plan->log_bytes) {
        for (unsigned i = 0; i < LOOK_EVERY; i++) scale_put(plan, db, rw_random_below(&random, plan->records));
        r->puts += LOOK_EVERY;
    }
    scale_expect(rw_flush(db), "flush");
    r->log_bytes = log_length(db);
    scale_kill_self();
}

/* Killed as well, so that the next round finds the same log. */
static void recover_and_die(const scale_plan *plan, const char *path, void *result)
{
    recovery *r = result;
    rw_options options = recovery_options(plan);
    rw_stats_t stats;
    rw_db *db;
    double begin = scale_seconds();
    scale_expect(rw_open(path, &options, &db), "open");
    r->open_seconds = scale_seconds() - begin;
    scale_get(plan, db, r->number);
    r->answer_seconds = scale_seconds() - begin;
    r->cpu_us = bench_cpu_us();
    scale_expect(rw_stats(db, &stats), "stats");
    r->records = stats.recovery_records;
    r->replayed_us = stats.recovery_us;
    scale_kill_self();
}

void scale_recovery(scale_plan *plan)
{
    recovery *r = scale_shared(sizeof *r);
    bench_scratch scratch;
    scale_expect(bench_scratch_make_in(&scratch, plan->directory, "scale-recovery"), "make a directory");
    scale_process(plan, scratch.path, write_and_die, r, true);
    for (unsigned round = 0; round < plan->rounds; round++) {
        r->number = (round + 1) * 7919 % plan->records;
        scale_process(plan, scratch.path, recover_and_die, r, true);
        if (r->records < r->puts) scale_fail(scratch.path, "not every put was replayed: the log was cut by a checkpoint");
        double seconds = (double)r->replayed_us * 1e-6;
        scale_column columns[] = {
            {"log_MiB", (double)r->log_bytes / 1048576, 1},  {"operations", (double)r->records, 0},       {"replay_s", seconds, 3},
            {"operations_per_s", (double)r->records / seconds, 0}, {"open_s", r->open_seconds, 3}, {"first_answer_s", r->answer_seconds, 3},
            {"cpu_us_per_operation", r->cpu_us / (double)r->records, 3},
        };
        scale_row_print(plan, "recovery", columns, RW_ARRAY_SIZE(columns));
    }
    scale_expect(bench_scratch_remove(scratch.path), "remove");
}
