#include "bench/workload.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#include "base/base.h"
#include "bench/in_flight.h"
#include "bench/measure.h"

_Atomic bool bench_interrupted;

const bench_workload bench_workloads[] = {
    {.name = "fillseq", .text = "writes every record, in key order", .step = bench_step_fill_sequential, .loads = true, .writes = true,
     .changes_set = true, .batches = true},
    {.name = "fillrandom", .text = "writes every record once, in random order", .step = bench_step_fill_random, .loads = true, .writes = true,
     .changes_set = true, .batches = true},
    {.name = "readrandom", .text = "gets existing records", .step = bench_step_mix, .shares = {[BENCH_READ] = 100}},
    {.name = "readmissing", .text = "gets keys that do not exist, spread between those that do", .step = bench_step_read_missing},
    {.name = "readseq", .text = "reads every record in key order, each thread its share", .step = bench_step_read_sequential, .whole = true},
    {.name = "scan", .text = "reads --scan-length records from a random one on", .step = bench_step_mix, .shares = {[BENCH_SCAN] = 100}},
    {.name = "overwrite", .text = "puts new values to existing records", .step = bench_step_mix, .shares = {[BENCH_UPDATE] = 100}, .writes = true,
     .batches = true},
    {.name = "deleterandom", .text = "deletes existing records, half of them unless told otherwise", .step = bench_step_delete, .writes = true,
     .changes_set = true, .batches = true},
    {.name = "mixed", .text = "gets and overwrites, --read-share percent gets", .step = bench_step_mix, .share_is_asked = true, .writes = true},
    {.name = "ycsb-a", .text = "50% gets, 50% updates, zipfian", .step = bench_step_mix, .shares = {[BENCH_READ] = 50, [BENCH_UPDATE] = 50},
     .distribution = BENCH_ZIPFIAN, .distribution_is_set = true, .writes = true},
    {.name = "ycsb-b", .text = "95% gets, 5% updates, zipfian", .step = bench_step_mix, .shares = {[BENCH_READ] = 95, [BENCH_UPDATE] = 5},
     .distribution = BENCH_ZIPFIAN, .distribution_is_set = true, .writes = true},
    {.name = "ycsb-c", .text = "gets, zipfian", .step = bench_step_mix, .shares = {[BENCH_READ] = 100}, .distribution = BENCH_ZIPFIAN,
     .distribution_is_set = true},
    {.name = "ycsb-d", .text = "95% gets of the latest records, 5% inserts", .step = bench_step_mix,
     .shares = {[BENCH_READ] = 95, [BENCH_INSERT] = 5}, .distribution = BENCH_LATEST, .distribution_is_set = true, .writes = true,
     .changes_set = true},
    {.name = "ycsb-e", .text = "95% scans of 1 to --scan-length records, zipfian, 5% inserts", .step = bench_step_mix,
     .shares = {[BENCH_SCAN] = 95, [BENCH_INSERT] = 5}, .distribution = BENCH_ZIPFIAN, .distribution_is_set = true,
     .scan_length_varies = true, .writes = true, .changes_set = true},
    {.name = "ycsb-f", .text = "50% gets, 50% read-modify-write transactions, zipfian", .step = bench_step_mix,
     .shares = {[BENCH_READ] = 50, [BENCH_MODIFY] = 50}, .distribution = BENCH_ZIPFIAN, .distribution_is_set = true, .writes = true,
     .transactional = true},
    {.name = "txn", .text = "transactions of --txn-reads gets and --txn-writes puts of existing records, in --txn-mode", .step = bench_step_mix,
     .shares = {[BENCH_TRANSACTION] = 100}, .writes = true, .transactional = true},
    {.name = NULL},
};

const bench_workload *bench_workload_find(const char *name, size_t size)
{
    for (const bench_workload *w = bench_workloads; w->name != NULL; w++)
        if (strlen(w->name) == size && memcmp(w->name, name, size) == 0) return w;
    return NULL;
}

bool bench_workload_takes_in_flight(const bench_workload *workload)
{
    return workload->share_is_asked || workload->shares[BENCH_READ] + workload->shares[BENCH_UPDATE] == 100;
}

static void sem_wait_uninterrupted(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) RW_ASSERT(errno == EINTR);
}

/* One run: the lanes, their threads, and how they start together. */
typedef struct {
    const bench_workload *workload;
    bench_shared *shared;
    bench_lane *lanes;
    bench_flight **flights;         /* of each lane; all NULL: operations follow one another */
    pthread_t *threads;
    unsigned count, started;
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    enum { GATE_CLOSED, GATE_OPEN, GATE_GO_HOME } gate; /* under mutex */
    sem_t arrived, ended;
} crew;

typedef struct {
    crew *crew;
    bench_lane *lane;
    bench_flight *flight;
} crew_member;

static void *member_run(void *arg)
{
    crew_member *member = arg;
    crew *c = member->crew;
    pthread_setname_np(pthread_self(), c->workload->name); /* tools/profile knows them by it; all names are short enough */
    sem_post(&c->arrived);
    pthread_mutex_lock(&c->mutex);
    while (c->gate == GATE_CLOSED) pthread_cond_wait(&c->opened, &c->mutex);
    bool go = c->gate == GATE_OPEN;
    pthread_mutex_unlock(&c->mutex);
    if (go && member->flight != NULL) bench_flight_run(member->flight);
    else if (go) bench_lane_run(member->lane, c->workload->step);
    sem_post(&c->ended);
    return NULL;
}

static void crew_open_gate(crew *c, bool go)
{
    pthread_mutex_lock(&c->mutex);
    c->gate = go ? GATE_OPEN : GATE_GO_HOME;
    pthread_cond_broadcast(&c->opened);
    pthread_mutex_unlock(&c->mutex);
}

static uint64_t crew_operations(const crew *c)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < c->count; i++) sum += atomic_load_explicit(&c->lanes[i].operations, memory_order_relaxed);
    return sum;
}

static void progress_print(const crew *c, uint64_t begin_ns, uint64_t *last_ns, uint64_t *last_operations)
{
    uint64_t now = bench_clock_monotonic_ns(), operations = crew_operations(c);
    double rate = (double)(operations - *last_operations) / ((double)(now - *last_ns) / 1e9);
    fprintf(stderr, "\r%-14s %4.0f s  %12llu operations  %12.0f/s ", c->workload->name, (double)(now - begin_ns) / 1e9,
            (unsigned long long)operations, rate);
    *last_ns = now;
    *last_operations = operations;
}

/* Waits until all lanes ended. Wakes five times a second, to hand on an interruption and to show progress. */
static void crew_watch(crew *c, bool progress)
{
    uint64_t begin = bench_clock_monotonic_ns(), last = begin, last_operations = 0;
    for (unsigned ended = 0; ended < c->count;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 200000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (sem_timedwait(&c->ended, &until) == 0) ended++;
        if (atomic_load_explicit(&bench_interrupted, memory_order_relaxed)) atomic_store_explicit(&c->shared->stop, true, memory_order_relaxed);
        if (progress && bench_clock_monotonic_ns() - last >= 1000000000u) progress_print(c, begin, &last, &last_operations);
    }
    if (progress && last != begin) fprintf(stderr, "\r%72s\r", "");
}

static void lane_free(bench_lane *lane)
{
    if (lane->cursor != NULL) rw_cursor_close(lane->cursor);
    if (lane->batch != NULL) rw_batch_free(lane->batch);
    free(lane->key);
    free(lane->value);
    free(lane->buffer);
    free(lane->codes);
    bench_recorder_free(&lane->recorder);
}

static int lane_init(bench_lane *lane, bench_shared *shared, const bench_request *request, unsigned index)
{
    memset(lane, 0, sizeof *lane);
    lane->shared = shared;
    rw_random_seed(&lane->random, request->seed * 1000003 + index);
    for (int i = 0; i < BENCH_KINDS; i++) rw_histogram_init(&lane->histograms[i]);
    lane->key = malloc(shared->dataset->key_size);
    lane->value = malloc((size_t)shared->dataset->value_size + 1);
    lane->buffer = malloc((size_t)shared->dataset->value_size + 1);
    lane->codes = calloc((size_t)request->txn_reads + request->txn_writes + 1, sizeof *lane->codes);
    if (lane->key == NULL || lane->value == NULL || lane->buffer == NULL || lane->codes == NULL) return rw_error(RW_ENOMEM, "no memory for a thread's records");
    return request->batch > 1 && request->workload->batches ? rw_batch_new(shared->db, &lane->batch) : 0;
}

/* What each lane of count has to do. */
static void lane_budget(bench_lane *lane, const bench_shared *shared, const bench_request *request, unsigned index)
{
    const bench_workload *workload = request->workload;
    uint64_t count = request->threads, records = shared->dataset->records;
    lane->left = UINT64_MAX;
    if (workload->loads) {
        lane->next = (uint64_t)((unsigned __int128)records * index / count);
        lane->limit = (uint64_t)((unsigned __int128)records * (index + 1) / count);
    } else if (workload->whole) {
        /* shares of the keys' order: of the record numbers, or of the whole range of hashes */
        unsigned __int128 range = shared->dataset->hashed ? (unsigned __int128)1 << 64 : (unsigned __int128)records << BENCH_SLOT_BITS;
        lane->next = (uint64_t)(range * index / count);
        lane->limit = index + 1 == count ? 0 : (uint64_t)(range * (index + 1) / count);
    } else if (request->operations != 0 && workload->step != bench_step_delete) {
        lane->left = request->operations * (index + 1) / count - request->operations * index / count;
    }
}

static void shared_set_shares(bench_shared *shared, const bench_request *request)
{
    memcpy(shared->shares, request->workload->shares, sizeof shared->shares);
    if (!request->workload->share_is_asked) return;
    shared->shares[BENCH_READ] = request->read_share;
    shared->shares[BENCH_UPDATE] = 100 - request->read_share;
}

static int shared_init(bench_shared *shared, rw_db *db, const bench_dataset *dataset, const bench_request *request, bench_distribution distribution)
{
    const bench_workload *workload = request->workload;
    memset(shared, 0, sizeof *shared);
    shared->db = db;
    shared->bucket = RW_DEFAULT_BUCKET;
    shared->dataset = dataset;
    shared->name = workload->name;
    shared->flags = request->sync ? RW_SYNC : RW_ASYNC;
    shared->batch = request->batch;
    shared->scan_length = request->scan_length;
    shared->scan_length_varies = workload->scan_length_varies;
    shared->distribution = distribution;
    shared->first = dataset->first;
    shared->end = dataset->end;
    shared->txn_mode = request->txn_mode;
    shared->txn_reads = request->txn_reads;
    shared->txn_writes = request->txn_writes;
    shared_set_shares(shared, request);
    if (workload->loads) return 0;
    uint64_t present = shared->end - shared->first;
    if (!dataset->loaded || present == 0) return rw_error(RW_EINVAL, "there are no records; run fillseq or fillrandom first");
    if (distribution != BENCH_UNIFORM) bench_zipfian_init(&shared->zipfian, present, BENCH_ZIPFIAN_THETA);
    bool deletes = workload->step == bench_step_delete;
    /* Only loaded records are deleted: so a later fill brings back all positions below those of the inserts. */
    if (deletes) shared->delete_end = RW_MIN(shared->first + request->operations, RW_MAX(dataset->records, shared->first));
    atomic_init(&shared->frontier.claimed, deletes ? shared->first : shared->end);
    atomic_init(&shared->frontier.done, shared->end);
    return 0;
}

static void dataset_update(bench_dataset *dataset, const bench_workload *workload, bench_shared *shared)
{
    uint64_t claimed = atomic_load(&shared->frontier.claimed);
    if (workload->loads) {
        dataset->loaded = true;
        dataset->first = 0;
        dataset->end = RW_MAX(dataset->end, dataset->records); /* inserts of earlier workloads are still there */
    } else if (workload->step == bench_step_delete) {
        dataset->first = RW_MIN(claimed, shared->delete_end);
    } else if (workload->changes_set) {
        bench_frontier_advance(&shared->frontier);
        dataset->end = atomic_load(&shared->frontier.done);
    }
}

static int series_gather(const crew *c, bench_result *result)
{
    const bench_recorder **recorders = calloc(c->count, sizeof *recorders);
    if (recorders == NULL) return rw_error(RW_ENOMEM, "no memory for what happened in each second");
    for (unsigned i = 0; i < c->count; i++) recorders[i] = &c->lanes[i].recorder;
    uint32_t length = bench_series_length(recorders, c->count);
    result->series = calloc(RW_MAX(length, 1u), sizeof *result->series);
    if (result->series != NULL) result->series_count = bench_series_gather(recorders, c->count, result->series, length);
    free(recorders);
    return result->series != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for what happened in each second");
}

static void result_gather(bench_result *result, const crew *c)
{
    result->operations = crew_operations(c);
    for (unsigned i = 0; i < c->count; i++) {
        const bench_lane *lane = &c->lanes[i];
        result->scanned += lane->scanned;
        for (int k = 0; k < BENCH_ABORTS; k++) result->aborts[k] += lane->aborts[k];
        result->wrong += lane->wrong;
        if (result->code == 0) result->code = lane->code;
        if (result->complaint[0] == '\0') memcpy(result->complaint, lane->complaint, sizeof result->complaint);
        for (int k = 0; k < BENCH_KINDS; k++) rw_histogram_merge(&result->kinds[k], &lane->histograms[k]);
    }
    for (int k = 0; k < BENCH_KINDS; k++) rw_histogram_merge(&result->all, &result->kinds[k]);
    if (result->request.series && result->code == 0) result->code = series_gather(c, result);
    result->transactions = result->kinds[BENCH_MODIFY].count + result->kinds[BENCH_TRANSACTION].count;
}

static int result_failed(bench_result *result, rw_db *db, int code, const char *what)
{
    const char *words = rw_last_error(db);
    result->code = code;
    snprintf(result->complaint, sizeof result->complaint, "%s: %s: %s", result->request.workload->name, what,
             words[0] != '\0' ? words : rw_strerror(code));
    return code;
}

/* The open loop, and the recording of seconds, both from begin on. What touches every record once runs as fast as it can. */
static int crew_begin(crew *c, const bench_request *request, uint64_t begin, bench_result *result)
{
    const bench_workload *workload = request->workload;
    int code = 0;
    result->paced = request->rate > 0 && !workload->loads && !workload->whole;
    for (unsigned i = 0; i < c->count && code == 0; i++) {
        if (result->paced) bench_pacer_init(&c->lanes[i].pacer, begin, request->rate, i, c->count);
        if (request->series) code = bench_recorder_init(&c->lanes[i].recorder, begin);
    }
    return code;
}

void bench_result_free(bench_result *result)
{
    free(result->series);
    result->series = NULL;
}

/* From the moment all threads are there until the last one ended and, after asynchronous writes, until these are durable. */
static int crew_measure(crew *c, rw_db *db, const bench_request *request, bench_result *result)
{
    int code = rw_stats(db, &result->before);
    double cpu = bench_cpu_us();
    uint64_t begin = bench_clock_ticks(), end = begin;
    if (request->seconds > 0 && !request->workload->loads && !request->workload->whole)
        c->shared->deadline_ticks = begin + bench_clock_ticks_from_seconds(request->seconds);
    if (code == 0) code = crew_begin(c, request, begin, result);
    crew_open_gate(c, code == 0);
    crew_watch(c, request->progress);
    for (unsigned i = 0; i < c->count; i++) {
        end = RW_MAX(end, c->lanes[i].last_ticks);
        if (c->shared->deadline_ticks != 0) result->behind += bench_pacer_behind(&c->lanes[i].pacer, c->shared->deadline_ticks);
    }
    int flushed = 0;
    if (request->workload->writes && !request->sync) {
        uint64_t before_flush = bench_clock_ticks();
        flushed = rw_flush(db);
        end = bench_clock_ticks();
        result->flush_seconds = (double)bench_clock_ns(end - before_flush) / 1e9;
    }
    result->cpu_us = bench_cpu_us() - cpu;
    result->seconds = (double)bench_clock_ns(end - begin) / 1e9;
    if (flushed != 0) return result_failed(result, db, flushed, "rw_flush");
    if (code == 0) code = rw_stats(db, &result->after);
    return code == 0 ? 0 : result_failed(result, db, code, "rw_stats");
}

/* Starts the threads, measures, waits for their ends. */
static int crew_run(crew *c, rw_db *db, const bench_request *request, bench_result *result)
{
    crew_member *members = calloc(c->count, sizeof *members);
    if (members == NULL) return rw_error(RW_ENOMEM, "no memory for threads");
    int error = 0;
    for (; error == 0 && c->started < c->count; c->started += error == 0) {
        members[c->started] = (crew_member){.crew = c, .lane = &c->lanes[c->started], .flight = c->flights[c->started]};
        error = pthread_create(&c->threads[c->started], NULL, member_run, &members[c->started]);
    }
    for (unsigned i = 0; i < c->started; i++) sem_wait_uninterrupted(&c->arrived);
    if (error == 0) crew_measure(c, db, request, result);
    else crew_open_gate(c, false);
    for (unsigned i = 0; i < c->started; i++) pthread_join(c->threads[i], NULL);
    free(members);
    return error == 0 ? 0 : rw_error_errno(RW_ENOMEM, error, "cannot start thread %u of %u", c->started + 1, c->count);
}

static void result_check(bench_result *result, const bench_dataset *dataset)
{
    if (result->code != 0 || !result->request.workload->whole) return;
    uint64_t present = dataset->end - dataset->first;
    if (result->operations == present || atomic_load(&bench_interrupted)) return;
    result->wrong++;
    if (result->complaint[0] == '\0')
        snprintf(result->complaint, sizeof result->complaint, "%s: %llu records were read where %llu exist", result->request.workload->name,
                 (unsigned long long)result->operations, (unsigned long long)present);
}

static int crew_init(crew *c, const bench_workload *workload, bench_shared *shared, unsigned count)
{
    memset(c, 0, sizeof *c);
    c->workload = workload;
    c->shared = shared;
    c->count = count;
    c->lanes = aligned_alloc(RW_CACHE_LINE, count * sizeof *c->lanes);
    c->threads = calloc(count, sizeof *c->threads);
    c->flights = calloc(count, sizeof(bench_flight *));
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->opened, NULL);
    sem_init(&c->arrived, 0, 0);
    sem_init(&c->ended, 0, 0);
    if (c->lanes == NULL || c->threads == NULL || c->flights == NULL) return rw_error(RW_ENOMEM, "no memory for %u threads", count);
    memset(c->lanes, 0, count * sizeof *c->lanes);
    return 0;
}

static void crew_free(crew *c)
{
    for (unsigned i = 0; c->flights != NULL && i < c->count; i++) bench_flight_close(c->flights[i]);
    for (unsigned i = 0; c->lanes != NULL && i < c->count; i++) lane_free(&c->lanes[i]);
    free(c->flights);
    free(c->lanes);
    free(c->threads);
    pthread_mutex_destroy(&c->mutex);
    pthread_cond_destroy(&c->opened);
    sem_destroy(&c->arrived);
    sem_destroy(&c->ended);
}

/* The number of operations when neither it nor a time was given: about what touches each record once. */
static uint64_t operations_default(const bench_workload *workload, const bench_dataset *dataset, const bench_request *request)
{
    uint64_t present = dataset->end - dataset->first;
    if (workload->step == bench_step_delete) return RW_MAX(present / 2, (uint64_t)1);
    if (request->seconds > 0) return 0;
    return workload->shares[BENCH_SCAN] > 0 ? RW_MAX(present / request->scan_length, (uint64_t)1) : present;
}

/* While the set of records changes, the stored description says so: an interrupted run is then noticed by the next one. */
static int run_marked(crew *c, rw_db *db, bench_dataset *dataset, bench_result *result)
{
    const bench_request *request = &result->request;
    bool changes = request->workload->changes_set;
    int code = changes ? bench_dataset_store(dataset, db, true) : 0;
    if (code == 0) code = crew_run(c, db, request, result);
    if (code != 0) return result_failed(result, db, code, "cannot run");
    result_gather(result, c);
    if (result->code != 0 || (request->workload->loads && result->operations != dataset->records)) return result->code;
    dataset_update(dataset, request->workload, c->shared);
    result_check(result, dataset);
    code = changes ? bench_dataset_store(dataset, db, false) : 0;
    return code == 0 ? 0 : result_failed(result, db, code, "cannot store what records exist");
}

int bench_workload_run(rw_db *db, bench_dataset *dataset, const bench_request *request, bench_result *result)
{
    const bench_workload *workload = request->workload;
    memset(result, 0, sizeof *result);
    rw_histogram_init(&result->all);
    for (int k = 0; k < BENCH_KINDS; k++) rw_histogram_init(&result->kinds[k]);
    result->request = *request;
    result->distribution = workload->distribution_is_set ? workload->distribution : request->distribution;
    result->draws = workload->step == bench_step_mix;
    if (!bench_workload_takes_in_flight(workload)) result->request.in_flight = 0;
    if (result->request.operations == 0) result->request.operations = operations_default(workload, dataset, request);
    bench_shared *shared = aligned_alloc(RW_CACHE_LINE, rw_align_up(sizeof *shared, RW_CACHE_LINE));
    if (shared == NULL) return result_failed(result, db, rw_error(RW_ENOMEM, "no memory"), "cannot run");
    crew c;
    int code = crew_init(&c, workload, shared, request->threads);
    if (code == 0) code = shared_init(shared, db, dataset, &result->request, result->distribution);
    for (unsigned i = 0; code == 0 && i < c.count; i++) {
        code = lane_init(&c.lanes[i], shared, &result->request, i);
        if (code == 0) lane_budget(&c.lanes[i], shared, &result->request, i);
        if (code == 0 && result->request.in_flight > 0) code = bench_flight_open(&c.lanes[i], result->request.in_flight, &c.flights[i]);
    }
    if (code == 0) run_marked(&c, db, dataset, result);
    else result_failed(result, db, code, "cannot run");
    crew_free(&c);
    free(shared);
    return result->code;
}
