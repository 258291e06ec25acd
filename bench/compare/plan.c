#include "bench/compare/plan.h"

#include <stdio.h>

static const compare_workload cached_workloads[] = {
    {.name = "load", .text = "puts every record once, in random order", .kind = COMPARE_LOAD, .threads = 1, .quick = true},
    {.name = "get", .text = "gets records drawn uniformly", .kind = COMPARE_GET, .threads = 1, .quick = true},
    {.name = "get", .text = "the same", .kind = COMPARE_GET, .threads = 2, .quick = true},
    {.name = "get-zipf", .text = "gets records drawn by a zipfian curve (theta 0.99)", .kind = COMPARE_GET, .threads = 2, .distribution = BENCH_ZIPFIAN},
    {.name = "absent", .text = "gets keys that do not exist, spread between those that do", .kind = COMPARE_GET_ABSENT, .threads = 2, .quick = true},
    {.name = "multi-get", .text = "gets 64 records in a call; an operation is a record", .kind = COMPARE_MULTI_GET, .threads = 1},
    {.name = "scan", .text = "reads 100 records from a random one on; an operation is a scan", .kind = COMPARE_SCAN, .threads = 1, .quick = true},
    {.name = "scan-full", .text = "reads every record once, in key order; an operation is a record", .kind = COMPARE_SCAN_FULL, .threads = 1},
    {.name = "overwrite", .text = "puts new values to records drawn uniformly", .kind = COMPARE_PUT, .threads = 1, .quick = true},
    {.name = "overwrite", .text = "the same", .kind = COMPARE_PUT, .threads = 2, .quick = true},
    {.name = "batch", .text = "the same, 100 in a commit; an operation is a put", .kind = COMPARE_BATCH, .threads = 1},
    {.name = "ycsb-a", .text = "50% gets, 50% puts, zipfian", .kind = COMPARE_MIX, .threads = 2, .distribution = BENCH_ZIPFIAN, .get_share = 50, .quick = true},
    {.name = "ycsb-b", .text = "95% gets, 5% puts, zipfian", .kind = COMPARE_MIX, .threads = 2, .distribution = BENCH_ZIPFIAN, .get_share = 95},
    {.name = "ycsb-f", .text = "50% gets, 50% read-modify-writes, zipfian", .kind = COMPARE_MIX, .threads = 2, .distribution = BENCH_ZIPFIAN, .get_share = 50,
     .modifies = true},
    {.name = NULL},
};

static const compare_workload durable_workloads[] = {
    {.name = "load", .text = "puts every record once, in random order, not durably", .kind = COMPARE_LOAD, .threads = 1},
    {.name = "put", .text = "puts new values to records drawn uniformly, each durable when it returns", .kind = COMPARE_PUT, .threads = 1, .fio = COMPARE_FIO_WRITE_SYNC, .quick = true},
    {.name = "put", .text = "the same", .kind = COMPARE_PUT, .threads = 16, .quick = true},
    {.name = "put", .text = "the same", .kind = COMPARE_PUT, .threads = 64},
    {.name = "put-queue", .text = "the same, 1,024 under way in a thread that waits for none; engines that have no such calls stand with what they did best with threads",
     .kind = COMPARE_PUT, .threads = 1, .in_flight = 1024, .instead = "put", .quick = true},
    {.name = NULL},
};

static const compare_workload large_workloads[] = {
    {.name = "load", .text = "puts every record once, in random order", .kind = COMPARE_LOAD, .threads = 1, .quick = true},
    {.name = "load-seq", .text = "puts every record once, in key order, into a database of its own", .kind = COMPARE_LOAD_SEQUENTIAL, .threads = 1},
    {.name = "get", .text = "gets records drawn uniformly", .kind = COMPARE_GET, .threads = 1, .fio = COMPARE_FIO_READ},
    {.name = "get", .text = "the same", .kind = COMPARE_GET, .threads = 32, .fio = COMPARE_FIO_READ, .quick = true},
    {.name = "get-queue", .text = "the same, 128 under way in a thread that waits for none; engines that have no such calls stand with what they did best with threads",
     .kind = COMPARE_GET, .threads = 1, .in_flight = 128, .instead = "get", .fio = COMPARE_FIO_READ, .quick = true},
    {.name = "absent", .text = "gets keys that do not exist, spread between those that do", .kind = COMPARE_GET_ABSENT, .threads = 32},
    {.name = "scan", .text = "reads 100 records from a random one on; an operation is a scan", .kind = COMPARE_SCAN, .threads = 8, .quick = true},
    {.name = "ycsb-a", .text = "50% gets, 50% puts, zipfian", .kind = COMPARE_MIX, .threads = 32, .distribution = BENCH_ZIPFIAN, .get_share = 50},
    {.name = "ycsb-b", .text = "95% gets, 5% puts, zipfian", .kind = COMPARE_MIX, .threads = 32, .distribution = BENCH_ZIPFIAN, .get_share = 95},
    {.name = "overwrite", .text = "puts new values to records drawn uniformly", .kind = COMPARE_PUT, .threads = 32, .quick = true},
    {.name = NULL},
};

const compare_set compare_sets[COMPARE_SETS] = {
    [COMPARE_CACHED] = {.name = "cached", .text = "everything in the cache; writes are not durable when they return", .records = 2000000,
                        .cache_bytes = (uint64_t)1 << 30, .seconds = 1.5, .workloads = cached_workloads},
    [COMPARE_DURABLE] = {.name = "durable", .text = "everything in the cache; each write is durable when it returns", .records = 200000,
                         .cache_bytes = (uint64_t)1 << 30, .seconds = 1.5, .durable = true, .workloads = durable_workloads},
    [COMPARE_LARGE] = {.name = "large", .text = "ten times more data than cache, direct I/O where the engine can; writes are not durable when they return",
                       .records = 20000000, .cache_bytes = (uint64_t)256 << 20, .seconds = 10, .direct = true, .workloads = large_workloads},
};

bool compare_workload_writes(const compare_workload *workload)
{
    switch (workload->kind) {
    case COMPARE_LOAD: case COMPARE_LOAD_SEQUENTIAL: case COMPARE_PUT: case COMPARE_BATCH: case COMPARE_MIX: return true;
    default: return false;
    }
}

bool compare_workload_is_whole(const compare_workload *workload)
{
    return workload->kind == COMPARE_LOAD || workload->kind == COMPARE_LOAD_SEQUENTIAL || workload->kind == COMPARE_SCAN_FULL;
}

unsigned compare_workload_depth(const compare_workload *workload)
{
    return workload->in_flight > 0 ? workload->in_flight * workload->threads : workload->threads;
}

void compare_workload_label(const compare_workload *workload, char *text, size_t room)
{
    snprintf(text, room, "%s:%u", workload->name, workload->threads);
}
