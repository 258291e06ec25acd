/* How soon a database that was closed cleanly answers, and what operations cost, at sizes that grow. */
#include <unistd.h>

#include "base/base.h"
#include "base/random.h"
#include "bench/figures/scale.h"
#include "bench/measure.h"

#define CURVE_FROM 10000u
#define TURN 256u                  /* operations between two looks at the clock */

typedef struct {
    uint64_t records, seed;
    double load_seconds, close_seconds, open_seconds, answer_seconds;
    double get_us, put_us;
    uint64_t resident_bytes;       /* after the gets and puts */
    uint64_t file_bytes;           /* of the data, after the load */
    uint64_t height, partitions;
} point;

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL || fscanf(file, "%*s %llu", &pages) != 1) scale_fail("/proc/self/statm", "cannot be read");
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Loads in key order and closes. */
static void load(const scale_plan *plan, const char *path, void *result)
{
    point *p = result;
    rw_stats_t stats;
    rw_db *db;
    scale_expect(rw_open(path, &plan->options, &db), "open");
    double begin = scale_seconds();
    scale_load(plan, db, p->records);
    scale_expect(rw_checkpoint(db), "checkpoint");
    p->load_seconds = scale_seconds() - begin;
    scale_expect(rw_stats(db, &stats), "stats");
    p->file_bytes = stats.data_file_bytes;
    begin = scale_seconds();
    scale_expect(rw_close(db), "close");
    p->close_seconds = scale_seconds() - begin;
}

static rw_db *open_timed(const scale_plan *plan, const char *path, point *p, rw_random *random)
{
    rw_db *db;
    rw_random_seed(random, p->seed);
    double begin = scale_seconds();
    scale_expect(rw_open(path, &plan->options, &db), "open");
    p->open_seconds = scale_seconds() - begin;
    scale_get(plan, db, rw_random_below(random, p->records));
    p->answer_seconds = scale_seconds() - begin;
    return db;
}

static void open_and_close(const scale_plan *plan, const char *path, void *result)
{
    point *p = result;
    rw_random random;
    rw_stats_t stats;
    rw_db *db = open_timed(plan, path, p, &random);
    scale_expect(rw_stats(db, &stats), "stats");
    p->file_bytes = stats.data_file_bytes;
    p->partitions = stats.partitions;
    double begin = scale_seconds();
    scale_expect(rw_close(db), "close");
    p->close_seconds = scale_seconds() - begin;
}

/* Microseconds of one operation on a record drawn uniformly, by one thread. */
static double operation_us(const scale_plan *plan, rw_db *db, const point *p, rw_random *random, void (*operation)(const scale_plan *, rw_db *, uint64_t))
{
    double begin = scale_seconds(), now;
    uint64_t count = 0;
    do {
        for (unsigned i = 0; i < TURN; i++) operation(plan, db, rw_random_below(random, p->records));
        count += TURN;
        now = scale_seconds();
    } while (now - begin < plan->seconds);
    return (now - begin) * 1e6 / (double)count;
}

static void work(const scale_plan *plan, const char *path, void *result)
{
    point *p = result;
    rw_random random;
    rw_stats_t stats;
    rw_db *db = open_timed(plan, path, p, &random);
    operation_us(plan, db, p, &random, scale_get); /* what fits the cache is in it */
    p->get_us = operation_us(plan, db, p, &random, scale_get);
    p->put_us = operation_us(plan, db, p, &random, scale_put);
    p->resident_bytes = resident_bytes();
    scale_expect(rw_stats(db, &stats), "stats");
    p->height = stats.tree_height_max;
    p->partitions = stats.partitions;
    scale_expect(rw_close(db), "close");
}

void scale_open(scale_plan *plan)
{
    point *p = scale_shared(sizeof *p);
    bench_scratch scratch;
    p->records = plan->records;
    scale_expect(bench_scratch_make_in(&scratch, plan->directory, "scale-open"), "make a directory");
    scale_process(plan, scratch.path, load, p, false);
    for (unsigned round = 0; round < plan->rounds; round++) {
        p->seed = round + 1;
        scale_process(plan, scratch.path, open_and_close, p, false);
        scale_column columns[] = {
            {"records", (double)p->records, 0}, {"file_MiB", (double)p->file_bytes / 1048576, 1}, {"partitions", (double)p->partitions, 0},
            {"open_ms", p->open_seconds * 1e3, 3}, {"first_answer_ms", p->answer_seconds * 1e3, 3}, {"close_ms", p->close_seconds * 1e3, 3},
        };
        scale_row_print(plan, "open", columns, RW_ARRAY_SIZE(columns));
    }
    scale_expect(bench_scratch_remove(scratch.path), "remove");
}

static void point_print(scale_plan *plan, const point *p)
{
    scale_column columns[] = {
        {"records", (double)p->records, 0},
        {"load_per_s", (double)p->records / p->load_seconds, 0},
        {"file_MiB", (double)p->file_bytes / 1048576, 1},
        {"partitions", (double)p->partitions, 0},
        {"height", (double)p->height, 0},
        {"open_ms", p->open_seconds * 1e3, 3},
        {"first_answer_ms", p->answer_seconds * 1e3, 3},
        {"get_us", p->get_us, 3},
        {"put_us", p->put_us, 3},
        {"resident_MiB", (double)p->resident_bytes / 1048576, 1},
    };
    scale_row_print(plan, "curve", columns, RW_ARRAY_SIZE(columns));
}

void scale_curve(scale_plan *plan)
{
    point *p = scale_shared(sizeof *p);
    for (uint64_t records = CURVE_FROM; records <= plan->records; records *= 10) {
        bench_scratch scratch;
        *p = (point){.records = records, .seed = 1};
        scale_expect(bench_scratch_make_in(&scratch, plan->directory, "scale-curve"), "make a directory");
        scale_process(plan, scratch.path, load, p, false);
        scale_process(plan, scratch.path, work, p, false);
        point_print(plan, p);
        scale_expect(bench_scratch_remove(scratch.path), "remove");
    }
}
