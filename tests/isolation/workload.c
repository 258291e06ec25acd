#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/isolation/workload_internal.h"

#define OPS_EACH 12u                 /* room for operations, for each transaction on average */

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Of this thread: what checking costs, however busy the machine is. */
static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool report_failure(workload_report *report, const char *what, int code)
{
    if (report->failure[0] == 0) snprintf(report->failure, sizeof(report->failure), "%s: %d (%s): %s", what, code, rw_strerror(code), rw_last_error(NULL));
    return false;
}

static void *worker_main(void *arg)
{
    worker *self = arg;
    workload *w = self->w;
    const history_strand *strand = &w->h->strands[self->strand];
    while (strand->txn_count < self->quota && !atomic_load_explicit(&w->failed, memory_order_relaxed)) {
        if (!history_has_room(w->h, self->strand, 2, WORKLOAD_OPS_MAX)) break;    /* a compare-and-set makes two */
        workload_step(self);
    }
    return NULL;
}

typedef struct {
    workload *w;
    uint64_t seed;
    pthread_t thread;
    char failure[512];
} loader;

/* Rewrites filler, a little at a time, so that pages are dirty and the cache is short; keeps checkpoints and compaction going. */
static void *loader_main(void *arg)
{
    loader *self = arg;
    workload *w = self->w;
    prng random = {self->seed};
    for (uint64_t turn = 1; !atomic_load(&w->stop) && self->failure[0] == 0; turn++) {
        int code = 0;
        for (unsigned i = 0; i < 16 && code == 0; i++) {
            char text[16];
            uint8_t value[WORKLOAD_FILLER_SIZE];
            uint32_t number = (uint32_t)prng_below(&random, workload_numbers(w));
            size_t size = workload_filler_value(number, (uint32_t)prng_next(&random), value);
            if (workload_filler_is(w, number)) code = rw_put(w->db, w->spread, workload_filler_key(number, text), (rw_slice){value, size}, RW_ASYNC);
        }
        if (code == RW_ETIMEOUT || code == RW_ENOMEM) code = 0;   /* a range that is locked, or no memory to wait for it */
        if (code == 0 && turn % 500 == 0) code = rw_checkpoint(w->db);
        if (code == 0 && turn % 5000 == 0) code = rw_compact(w->db);
        if (code != 0) snprintf(self->failure, sizeof(self->failure), "load: %d (%s): %s", code, rw_strerror(code), rw_last_error(NULL));
        nanosleep(&(struct timespec){0, 300000}, NULL);
    }
    return NULL;
}

static bool filler_write(workload *w, workload_report *report)
{
    uint32_t numbers = workload_numbers(w);
    for (uint32_t number = 0; number < numbers; number++) {
        char text[16];
        uint8_t value[WORKLOAD_FILLER_SIZE];
        size_t size = workload_filler_value(number, 0, value);
        if (!workload_filler_is(w, number)) continue;
        int code = rw_put(w->db, w->spread, workload_filler_key(number, text), (rw_slice){value, size}, RW_ASYNC);
        if (code != 0) return report_failure(report, "filler", code);
    }
    return true;
}

/* Between rounds nobody else is there. */
static bool keys_delete(workload *w, workload_report *report)
{
    char text[16];
    int code = rw_delete_range(w->db, w->dense, (rw_slice){NULL, 0}, (rw_slice){NULL, 0}, RW_ASYNC);
    for (uint32_t key = 0; key < w->keys && code == 0; key++) {
        if (workload_key_bucket(w, key) == w->dense) continue;
        code = rw_del(w->db, w->spread, workload_key(w, key, text), RW_ASYNC);
        if (code == RW_ENOTFOUND) code = 0;
    }
    return code == 0 || report_failure(report, "deleting the keys", code);
}

/* Turns the numbers that were read of counters into the versions that made them. */
static void counters_resolve(workload *w)
{
    for (uint32_t s = 0; s < w->h->strand_count; s++) {
        const history_strand *strand = &w->h->strands[s];
        for (uint32_t i = strand->op_first; i < strand->op_first + strand->op_count; i++) {
            history_op *op = &w->h->ops[i];
            if (!(op->flags & HISTORY_COUNTED)) continue;
            _Atomic uint32_t *slot = workload_counter_version(w, op->key, op->version);
            uint32_t version = slot == NULL ? 0 : atomic_load_explicit(slot, memory_order_relaxed);
            op->version = version == 0 ? HISTORY_GARBAGE : version;
            op->flags &= (uint8_t)~HISTORY_COUNTED;
        }
    }
}

static bool round_init(workload *w, const workload_options *options, uint64_t round, uint64_t transactions)
{
    static const uint32_t shares[] = {1, 4, 16, 64};
    uint32_t share = shares[round % 4];
    uint32_t each = (uint32_t)(transactions / options->threads) + 64;
    w->round = (uint32_t)round + 1;
    w->keys = w->keys_max / share < 16 ? 16 : w->keys_max / share;
    w->spacing = w->keys_max / w->keys * w->slot;
    w->counter_max = (uint32_t)transactions + 1;
    atomic_store(&w->clock, 0);
    size_t slots = (size_t)WORKLOAD_COUNTER_GROUPS * w->counter_max;
    w->h = history_new(w->keys, options->threads + 1, each, each * OPS_EACH + 2 * WORKLOAD_OPS_MAX + w->keys);
    w->counters = calloc(slots, sizeof(*w->counters));
    return w->h != NULL && w->counters != NULL;
}

static worker *worker_new(workload *w, uint32_t strand, uint64_t quota, uint64_t seed)
{
    worker *self = calloc(1, sizeof(*self));
    key_view *views = calloc(w->keys, sizeof(*views));
    if (self == NULL || views == NULL) abort();
    self->w = w;
    self->strand = strand;
    self->quota = quota;
    self->random.state = seed;
    self->views = views;
    return self;
}

static void worker_end(worker *self, workload_report *report)
{
    report->conflicts += self->conflicts;
    report->deadlocks += self->deadlocks;
    report->timeouts += self->timeouts;
    report->snapshots_too_old += self->snapshots_too_old;
    report->lock_memory += self->lock_memory;
    if (self->failure[0] != 0 && report->failure[0] == 0) snprintf(report->failure, sizeof(report->failure), "%s", self->failure);
    free(self->views);
    free(self);
}

/* What is there in the end, read by one who is alone. */
static void read_all(workload *w, worker *self)
{
    history_txn *txn = history_begin(w->h, self->strand, HISTORY_READONLY);
    bool present;
    int code;
    self->stamp++;
    txn->begin_from = workload_tick(w);
    code = rw_txn_begin(w->db, RW_READONLY, &self->txn);
    txn->begin_to = txn->commit_from = workload_tick(w);
    if (code != 0) {
        workload_failed(self, "rw_txn_begin", code);
        return;
    }
    for (uint32_t key = 0; key < w->keys && code == 0; key++) code = call_get(self, key, false, &present);
    if (code != 0) workload_failed(self, "the last reads", code);
    rw_txn_abort(self->txn);
    txn->commit_to = workload_tick(w);
    history_end(w->h, self->strand, HISTORY_COMMITTED);
}

static void round_run(workload *w, const workload_options *options, uint64_t transactions, workload_report *report)
{
    worker **workers = calloc(options->threads + 1, sizeof(*workers));
    loader *loaders = calloc(options->load_threads + 1, sizeof(*loaders));
    if (workers == NULL || loaders == NULL) abort();
    prng seeds = {options->seed * 1000003 + w->round};
    atomic_store(&w->stop, false);
    for (uint32_t i = 0; i < options->load_threads; i++) {
        loaders[i] = (loader){.w = w, .seed = prng_next(&seeds)};
        if (pthread_create(&loaders[i].thread, NULL, loader_main, &loaders[i]) != 0) abort();
    }
    for (uint32_t i = 0; i < options->threads; i++) {
        workers[i] = worker_new(w, i, transactions / options->threads + (i < transactions % options->threads), prng_next(&seeds));
        if (pthread_create(&workers[i]->thread, NULL, worker_main, workers[i]) != 0) abort();
    }
    for (uint32_t i = 0; i < options->threads; i++) {
        pthread_join(workers[i]->thread, NULL);
        worker_end(workers[i], report);
    }
    atomic_store(&w->stop, true);
    for (uint32_t i = 0; i < options->load_threads; i++) {
        pthread_join(loaders[i].thread, NULL);
        if (loaders[i].failure[0] != 0 && report->failure[0] == 0) snprintf(report->failure, sizeof(report->failure), "%s", loaders[i].failure);
    }
    worker *last = worker_new(w, options->threads, 0, prng_next(&seeds));
    if (!atomic_load(&w->failed)) read_all(w, last);
    worker_end(last, report);
    free(workers);
    free(loaders);
}

/* What the check found says more than what a thread met, which comes behind it. */
static void report_finding(workload *w, const workload_options *options, const history_result *result, workload_report *report)
{
    char met[200];
    for (uint64_t i = 0; i < result->found && i < HISTORY_FINDINGS_MAX; i++) history_print(stdout, "# ", w->h, &result->findings[i]);
    snprintf(met, sizeof(met), "%.199s", report->failure);
    snprintf(report->failure, sizeof(report->failure), "round %u, seed %llu, %u keys: %llu found; %s: %.1100s %s", w->round, (unsigned long long)options->seed,
             w->keys, (unsigned long long)result->found, history_anomaly_name(result->findings[0].anomaly), result->findings[0].text, met);
}

/* Whether a store that is serializable could have done all this. */
static bool round_serializable(workload *w, history_checker *checker)
{
    history_result result;
    for (uint32_t t = 0; t < w->h->txn_max; t++)
        if (w->h->txns[t].mode == HISTORY_SNAPSHOT) w->h->txns[t].mode = HISTORY_SERIALIZABLE;
    return history_check(checker, w->h, &result);
}

static void round_check(workload *w, const workload_options *options, history_checker *checker, workload_report *report)
{
    history_result *result = calloc(1, sizeof(*result));
    if (result == NULL) abort();
    counters_resolve(w);
    double start = processor_seconds();
    bool sound = history_check(checker, w->h, result);
    report->check_seconds += processor_seconds() - start;
    report->transactions += result->txns;
    report->committed += result->committed;
    report->operations += result->ops;
    report->ww += result->ww;
    report->wr += result->wr;
    report->rw += result->rw;
    report->rw_range += result->rw_range;
    report->unordered += result->unordered;
    report->unresolved += result->unresolved;
    if (!sound) report_finding(w, options, result, report);
    else if (options->keep_power) report->skews += !round_serializable(w, checker);
    free(result);
}

static bool one_round(workload *w, const workload_options *options, history_checker *checker, workload_report *report)
{
    uint64_t left = options->transactions - report->transactions;
    uint64_t transactions = left < options->round ? left : options->round;
    if (!round_init(w, options, report->rounds, transactions)) return report_failure(report, "no memory for a history", RW_ENOMEM);
    double start = now_seconds();
    round_run(w, options, transactions, report);
    report->run_seconds += now_seconds() - start;
    if (!atomic_load(&w->failed)) round_check(w, options, checker, report);
    report->rounds++;
    history_free(w->h);
    free((void *)w->counters);
    return report->failure[0] == 0 && keys_delete(w, report);
}

bool workload_run(rw_db *db, const workload_options *options, workload_report *report)
{
    memset(report, 0, sizeof(*report));
    workload *w = aligned_alloc(64, sizeof(*w));
    history_checker *checker = history_checker_new();
    if (w == NULL || checker == NULL) abort();
    memset(w, 0, sizeof(*w));
    w->db = db;
    w->options = options;
    w->keys_max = w->keys = options->keys;
    w->slot = options->filler / (options->keys / 2) + 1;
    w->spacing = w->slot;
    int code = rw_bucket_open(db, "dense", RW_CREATE, &w->dense);
    if (code == 0) code = rw_bucket_open(db, "spread", RW_CREATE, &w->spread);
    bool sound = code == 0 ? keys_delete(w, report) && filler_write(w, report) : report_failure(report, "rw_bucket_open", code);
    while (sound && report->transactions < options->transactions) sound = one_round(w, options, checker, report);
    history_checker_free(checker);
    free(w);
    return sound;
}
