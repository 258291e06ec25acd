/*
 * The comparison's judge: an engine in memory that can be made to answer wrongly in every way that is looked for, and each must be noticed; the arithmetic
 * of medians and ratios; the open loop and what it records of each second. None of it is part of the library, so it is compiled in here. Argument: seed.
 */
#include "bench/compare/fio.c"
#include "bench/compare/in_flight.c"
#include "bench/compare/lane.c"
#include "bench/compare/operations.c"
#include "bench/compare/plan.c"
#include "bench/compare/process.c"
#include "bench/compare/results.c"
#include "bench/compare/run.c"
#include "bench/dataset.c"
#include "bench/keys.c"
#include "bench/measure.c"
#include "bench/pacer.c"
#include "bench/scratch.c"
#include "bench/series.c"

#include "tests/support/dirs.h"
#include "tests/support/tap.h"

enum { RECORDS = 3000, KEY_SIZE = 16, VALUE_SIZE = 40, DEPTH_MAX = 1024 };

/* ---- an engine in memory, and its faults ------------------------------------------------------------------------------- */

typedef enum {
    FAULT_NONE,
    FAULT_PUT_LOST, FAULT_PUT_FAILS, FAULT_OPEN_FAILS, FAULT_DIES,
    FAULT_GET_WRONG, FAULT_GET_HALF, FAULT_GET_LONG, FAULT_GET_MISSING, FAULT_GET_FAILS,
    FAULT_ABSENT_FOUND,
    FAULT_SCAN_SKIPS, FAULT_SCAN_TWICE, FAULT_SCAN_WRONG, FAULT_SCAN_SHORT, FAULT_SCAN_FAILS,
    FAULT_MODIFY_WRONG, FAULT_MODIFY_MISSING,
    FAULT_MULTI_LOSES, FAULT_MULTI_WRONG,
    FAULT_SUBMIT_FAILS, FAULT_REAP_FAILS, FAULT_REAP_SWAPS,
    FAULT_STALLS,
} fault;

static struct {
    pthread_mutex_t mutex;
    unsigned char keys[RECORDS][KEY_SIZE], values[RECORDS][VALUE_SIZE + 1];
    bool there[RECORDS];
    _Atomic unsigned calls;      /* of the kind that the fault is about */
    _Atomic unsigned under_way_max, slots_twice; /* of one session; requests that had the slot of another one under way */
    _Atomic uint64_t reads;
    fault planted;
} mock = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Whether the fault shows in this call: now and then, not at first. */
static bool strikes(fault f)
{
    return mock.planted == f && ++mock.calls % 37 == 20;
}

/* RECORDS for a key that no record has. */
static unsigned number_of(rw_slice key)
{
    uint64_t code = __builtin_bswap64(rw_load_u64(key.data));
    return (code & 0xff) == 0 && code >> BENCH_SLOT_BITS < RECORDS ? (unsigned)(code >> BENCH_SLOT_BITS) : RECORDS;
}

static void mock_version(char text[COMPARE_TEXT]) { snprintf(text, COMPARE_TEXT, "0"); }
static void mock_describe(const compare_settings *settings, char text[COMPARE_TEXT]) { (void)settings, snprintf(text, COMPARE_TEXT, "none"); }
static int mock_close(void *engine) { (void)engine; return 0; }
static int mock_flush(void *engine) { (void)engine; return 0; }
static void mock_session_close(void *session) { free(session); }
static int mock_reads(void *engine, uint64_t *count) { (void)engine; *count = mock.reads; return 0; }

static int mock_open(const compare_settings *settings, void **engine)
{
    (void)settings;
    if (mock.planted == FAULT_OPEN_FAILS) return rw_error(RW_EIO, "the planted failure of open");
    *engine = &mock;
    return 0;
}

/* Begins with the value that it returned last. */
typedef struct {
    unsigned char value[VALUE_SIZE + 1];
    compare_request *under_way[DEPTH_MAX];
    bool taken[DEPTH_MAX];       /* slots */
    unsigned char answers[DEPTH_MAX][VALUE_SIZE + 1];
    unsigned count;
} mock_session;

static int mock_session_open(void *engine, void **session)
{
    (void)engine;
    *session = calloc(1, sizeof(mock_session));
    return *session != NULL ? 0 : rw_error(RW_ENOMEM, "no memory");
}

static int mock_get(void *session, rw_slice key, rw_slice *value)
{
    unsigned number = number_of(key);
    mock.reads += 3;
    if (strikes(FAULT_STALLS)) nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
    if (strikes(FAULT_GET_FAILS)) return rw_error(RW_EIO, "the planted failure of get");
    if (number == RECORDS && !strikes(FAULT_ABSENT_FOUND)) return RW_ENOTFOUND;
    if (number == RECORDS) number = 0;
    pthread_mutex_lock(&mock.mutex);
    memcpy(session, mock.values[number], VALUE_SIZE);
    bool there = mock.there[number];
    if (strikes(FAULT_GET_WRONG)) memcpy(session, mock.values[(number + 1) % RECORDS], VALUE_SIZE);
    if (strikes(FAULT_GET_HALF)) ((unsigned char *)session)[VALUE_SIZE - 1] ^= 1;
    pthread_mutex_unlock(&mock.mutex);
    *value = rw_slice_of(session, VALUE_SIZE + strikes(FAULT_GET_LONG));
    return there && !strikes(FAULT_GET_MISSING) ? 0 : RW_ENOTFOUND;
}

static int mock_put(void *session, rw_slice key, rw_slice value)
{
    (void)session;
    unsigned number = number_of(key);
    if (mock.planted == FAULT_DIES && ++mock.calls == 100) raise(SIGKILL);
    if (strikes(FAULT_PUT_FAILS)) return rw_error(RW_EIO, "the planted failure of put");
    if (strikes(FAULT_PUT_LOST)) return 0;
    pthread_mutex_lock(&mock.mutex);
    memcpy(mock.keys[number], key.data, KEY_SIZE);
    memcpy(mock.values[number], value.data, VALUE_SIZE);
    mock.there[number] = true;
    pthread_mutex_unlock(&mock.mutex);
    return 0;
}

static int mock_batch(void *session, const rw_slice *keys, const rw_slice *values, unsigned count)
{
    int code = 0;
    for (unsigned i = 0; i < count && code == 0; i++) code = mock_put(session, keys[i], values[i]);
    return code;
}

static int mock_scan(void *session, rw_slice key, compare_record_fn fn, void *arg)
{
    (void)session;
    if (strikes(FAULT_SCAN_FAILS)) return rw_error(RW_EIO, "the planted failure of scan");
    for (unsigned i = key.size == 0 ? 0 : number_of(key); i < RECORDS; i++) {
        if (!mock.there[i] || strikes(FAULT_SCAN_SKIPS)) continue;
        if (strikes(FAULT_SCAN_SHORT)) break;
        unsigned from = strikes(FAULT_SCAN_WRONG) ? (i + 1) % RECORDS : i;
        rw_slice found = rw_slice_of(mock.keys[i], KEY_SIZE), value = rw_slice_of(mock.values[from], VALUE_SIZE);
        if (strikes(FAULT_SCAN_TWICE) && !fn(arg, found, value)) break;
        if (!fn(arg, found, value)) break;
    }
    return 0;
}

static int mock_modify(void *session, rw_slice key, rw_slice value, compare_record_fn fn, void *arg)
{
    rw_slice present;
    if (strikes(FAULT_MODIFY_MISSING)) return RW_ENOTFOUND;
    int code = mock_get(session, key, &present);
    if (strikes(FAULT_MODIFY_WRONG)) memcpy(session, mock.values[(number_of(key) + 1) % RECORDS], VALUE_SIZE);
    if (code == 0 && !fn(arg, key, present)) code = RW_ENOTFOUND;
    return code == 0 ? mock_put(session, key, value) : code;
}

static int mock_multi_get(void *session, const rw_slice *keys, unsigned count, compare_record_fn fn, void *arg)
{
    for (unsigned i = 0; i < count; i++) {
        rw_slice value;
        if (mock_get(session, keys[i], &value) != 0 || strikes(FAULT_MULTI_LOSES)) continue;
        fn(arg, keys[strikes(FAULT_MULTI_WRONG) ? (i + 1) % count : i], value);
    }
    return 0;
}

/* What was submitted is done at once and kept until it is reaped. */
static int mock_submit(void *session, compare_request **requests, unsigned count)
{
    mock_session *s = session;
    if (strikes(FAULT_SUBMIT_FAILS)) return rw_error(RW_EIO, "the planted failure of submit");
    for (unsigned i = 0; i < count; i++) {
        compare_request *r = requests[i];
        rw_slice value = {0};
        mock.slots_twice += s->taken[r->slot];
        s->taken[r->slot] = true;
        r->code = r->put ? mock_put(s, r->key, r->value) : mock_get(s, r->key, &value);
        if (!r->put && r->code == 0) r->value = rw_slice_of(memcpy(s->answers[r->slot], value.data, VALUE_SIZE), value.size);
        s->under_way[s->count++] = r;
    }
    if (s->count > mock.under_way_max) mock.under_way_max = s->count;
    return 0;
}

/* A third of it, the newest first: nobody may rely on an order. */
static int mock_reap(void *session, compare_request **ended, unsigned max, int64_t timeout_ns)
{
    mock_session *s = session;
    unsigned count = RW_MIN((s->count + 2) / 3, max);
    if (timeout_ns > 0) nanosleep(&(struct timespec){.tv_nsec = (long)RW_MIN(timeout_ns, (int64_t)100000)}, NULL);
    if (strikes(FAULT_REAP_FAILS)) return rw_error(RW_EIO, "the planted failure of reap");
    for (unsigned i = 0; i < count; i++) {
        ended[i] = s->under_way[--s->count];
        s->taken[ended[i]->slot] = false;
    }
    if (count > 1 && strikes(FAULT_REAP_SWAPS)) ended[0]->value = ended[1]->value;
    return (int)count;
}

static compare_adapter mock_adapter = {
    .name = "mock", .title = "Mock", .version = mock_version, .describe = mock_describe, .open = mock_open, .close = mock_close, .flush = mock_flush,
    .session_open = mock_session_open, .session_close = mock_session_close, .get = mock_get, .put = mock_put, .batch = mock_batch, .scan = mock_scan,
    .modify = mock_modify, .multi_get = mock_multi_get, .submit = mock_submit,
    .reap = mock_reap, .reads = mock_reads,
};

/* ---- turns ------------------------------------------------------------------------------------------------------------------ */

static compare_plan plan;
static compare_turn *turn;

static compare_stage stage_of(const compare_workload *workload)
{
    compare_stage stage = {.set = &compare_sets[COMPARE_CACHED], .records = RECORDS, .seconds = 0.05, .count = 1,
                           .settings = {.key_size = KEY_SIZE, .value_size = VALUE_SIZE, .threads = 2, .in_flight = workload != NULL ? workload->in_flight : 0}};
    stage.workloads[0] = compare_sets[COMPARE_CACHED].workloads[0];
    if (workload != NULL) stage.workloads[stage.count++] = *workload;
    return stage;
}

/* Load, then the workload, in this process. */
static void turn_run(const compare_workload *workload, fault planted)
{
    compare_stage stage = stage_of(workload);
    if (planted == FAULT_STALLS) stage.seconds = 0.3;
    memset(mock.there, 0, sizeof mock.there);
    memset(turn, 0, sizeof *turn);
    mock.calls = mock.under_way_max = mock.slots_twice = 0;
    mock.planted = planted;
    compare_stage_run(&plan, &stage, &mock_adapter, ".", false, 0, turn);
}

static const compare_workload *in_flight_of(compare_set_name set)
{
    const compare_workload *w = compare_sets[set].workloads;
    while (w->in_flight == 0) w++;
    return w;
}

static void test_in_flight(void)
{
    for (int set = COMPARE_DURABLE; set <= COMPARE_LARGE; set++) {
        const compare_workload *w = in_flight_of((compare_set_name)set);
        turn_run(w, FAULT_NONE);
        const compare_measurement *m = &turn->workloads[1];
        bool right = turn->finished && m->operations > w->in_flight && m->latency.count == m->operations;
        if (!tap_ok(right && (m->puts == m->operations) == (w->kind == COMPARE_PUT), "%s: right answers pass", w->name)) tap_diag("%s", turn->complaint);
        tap_ok(mock.under_way_max == w->in_flight && mock.slots_twice == 0, "as many as were asked for are under way, each in a slot of its own: %u", mock.under_way_max);
    }
    tap_ok(turn->workloads[1].reads_counted && turn->workloads[1].reads == 3 * turn->workloads[1].operations, "what the engine read is counted");
    plan.rate = 1000;
    turn_run(in_flight_of(COMPARE_LARGE), FAULT_STALLS);
    plan.rate = 0;
    const compare_measurement *m = &turn->workloads[1];
    uint64_t due = m->operations + m->behind;
    tap_ok(due >= 299 && due <= 301 && rw_histogram_quantile(&m->latency, 0.5) > 5000000, "in an open loop each begins when it is due: %llu done, %llu behind",
           (unsigned long long)m->operations, (unsigned long long)m->behind);
    mock_adapter.submit = NULL;
    turn_run(in_flight_of(COMPARE_LARGE), FAULT_NONE);
    tap_ok(turn->finished && !turn->workloads[1].done, "an engine without such calls is not asked");
    mock_adapter.submit = mock_submit;
}

static void test_right_answers(void)
{
    for (const compare_workload *w = compare_sets[COMPARE_CACHED].workloads + 1; w->name != NULL; w++) {
        turn_run(w, FAULT_NONE);
        const compare_measurement *m = &turn->workloads[1];
        bool right = turn->finished && turn->code == 0 && m->done && m->operations > 0 && turn->workloads[0].operations == RECORDS;
        right = TAP_CHECK((m->puts > 0) == compare_workload_writes(w)) && right;
        right = TAP_CHECK(w->kind != COMPARE_SCAN_FULL || m->operations == RECORDS) && right;
        right = TAP_CHECK(w->kind == COMPARE_MULTI_GET || w->kind == COMPARE_BATCH || w->kind == COMPARE_SCAN_FULL || m->latency.count == m->operations) && right;
        tap_ok(right, "%s:%u: right answers pass", w->name, w->threads) ? (void)0 : tap_diag("%s", turn->complaint);
    }
    test_in_flight();
    mock_adapter.multi_get = NULL;
    compare_workload many = {.name = "multi-get", .kind = COMPARE_MULTI_GET, .threads = 1};
    turn_run(&many, FAULT_NONE);
    tap_ok(turn->finished && turn->workloads[1].operations % COMPARE_MULTI_GETS == 0, "an engine without multi-get is asked for single ones");
    turn_run(&many, FAULT_GET_WRONG);
    tap_ok(turn->code == 1, "and its wrong answers are noticed");
    mock_adapter.multi_get = mock_multi_get;
}

static void test_wrong_answers(void)
{
    static const compare_workload get = {.name = "get", .kind = COMPARE_GET, .threads = 2}, absent = {.name = "absent", .kind = COMPARE_GET_ABSENT, .threads = 1},
        scan_some = {.name = "scan", .kind = COMPARE_SCAN, .threads = 1}, mix = {.name = "ycsb-f", .kind = COMPARE_MIX, .threads = 1, .get_share = 50, .modifies = true},
        gets_queued = {.name = "get-queue", .kind = COMPARE_GET, .threads = 1, .in_flight = 64}, puts_queued = {.name = "put-queue", .kind = COMPARE_PUT, .threads = 2, .in_flight = 7},
        many = {.name = "multi-get", .kind = COMPARE_MULTI_GET, .threads = 1}, puts_ = {.name = "overwrite", .kind = COMPARE_PUT, .threads = 1};
    static const struct {
        fault planted;
        const compare_workload *workload;
        int code;                /* of the turn; 1: a wrong answer */
        const char *words;
    } cases[] = {
        {FAULT_GET_WRONG, &get, 1, "the value is not the key's"},
        {FAULT_GET_HALF, &get, 1, "the value is not the key's"},
        {FAULT_GET_LONG, &get, 1, "the value is not the key's"},
        {FAULT_GET_MISSING, &get, 1, "an existing record was not found"},
        {FAULT_GET_FAILS, &get, RW_EIO, "the planted failure of get"},
        {FAULT_ABSENT_FOUND, &absent, 1, "never written"},
        {FAULT_SCAN_SKIPS, &scan_some, 1, "another one comes next"},
        {FAULT_SCAN_TWICE, &scan_some, 1, "another one comes next"},
        {FAULT_SCAN_WRONG, &scan_some, 1, "a scan met a value"},
        {FAULT_SCAN_SHORT, &scan_some, 1, "ended too early"},
        {FAULT_SCAN_FAILS, &scan_some, RW_EIO, "the planted failure of scan"},
        {FAULT_MODIFY_WRONG, &mix, 1, "read to be modified"},
        {FAULT_MODIFY_MISSING, &mix, 1, "not found to be modified"},
        {FAULT_MULTI_LOSES, &many, 1, "some were not found"},
        {FAULT_MULTI_WRONG, &many, 1, "the value is not the key's"},
        {FAULT_PUT_LOST, &get, 1, "reading all after the load"},
        {FAULT_PUT_FAILS, &puts_, RW_EIO, "the planted failure of put"},
        {FAULT_GET_WRONG, &gets_queued, 1, "the value is not the key's"},
        {FAULT_GET_LONG, &gets_queued, 1, "the value is not the key's"},
        {FAULT_GET_MISSING, &gets_queued, 1, "an existing record was not found"},
        {FAULT_REAP_SWAPS, &gets_queued, 1, "the value is not the key's"},
        {FAULT_GET_FAILS, &gets_queued, RW_EIO, "the planted failure of get"},
        {FAULT_SUBMIT_FAILS, &gets_queued, RW_EIO, "the planted failure of submit"},
        {FAULT_REAP_FAILS, &puts_queued, RW_EIO, "the planted failure of reap"},
        {FAULT_PUT_FAILS, &puts_queued, RW_EIO, "the planted failure of put"},
        {FAULT_OPEN_FAILS, &get, RW_EIO, "the planted failure of open"},
    };
    for (size_t i = 0; i < RW_ARRAY_SIZE(cases); i++) {
        turn_run(cases[i].workload, cases[i].planted);
        bool right = turn->code == cases[i].code && !turn->finished && strstr(turn->complaint, cases[i].words) != NULL && !turn->workloads[1].done;
        if (!tap_ok(right, "%s: %s", cases[i].workload->name, cases[i].words)) tap_diag("code %d: %s", turn->code, turn->complaint);
    }
}

/* In a process of its own, as the program does it. */
static void test_child(void)
{
    compare_stage stage = stage_of(NULL);
    char path[DIRS_PATH_MAX];
    if (!TAP_CHECK(dir_make(path, "compare"))) return;
    plan.scratch = path;
    memset(turn, 0, sizeof *turn);
    mock.planted = FAULT_NONE;
    compare_turn_run(&plan, &stage, &mock_adapter, 0, turn);
    tap_ok(turn->finished && turn->workloads[0].operations == RECORDS && turn->workloads[0].resident_max > 0, "a child hands its results to the parent");
    memset(turn, 0, sizeof *turn);
    mock.planted = FAULT_DIES;
    mock.calls = 0;
    compare_turn_run(&plan, &stage, &mock_adapter, 0, turn);
    tap_ok(!turn->finished && turn->code != 0 && strstr(turn->complaint, "killed by signal 9") != NULL, "one that dies is a failure: %s", turn->complaint);
    dir_listing left;
    tap_ok(dir_list(path, &left) && left.count == 0, "and nothing of it is left behind");
    mock.planted = FAULT_NONE;
}

/* ---- the open loop ------------------------------------------------------------------------------------------------------------ */

static void test_stall_shows(void)
{
    compare_workload get = {.name = "get", .kind = COMPARE_GET, .threads = 1};
    turn_run(&get, FAULT_STALLS);   /* closed: as many gets as fit, of which one in 37 is slow */
    uint64_t closed = rw_histogram_quantile(&turn->workloads[1].latency, 0.5);
    plan.rate = 1000;
    plan.series = true;
    turn_run(&get, FAULT_STALLS);
    plan.rate = 0;
    plan.series = false;
    const compare_measurement *m = &turn->workloads[1];
    uint64_t open = rw_histogram_quantile(&m->latency, 0.5);
    tap_ok(closed < 5000000 && open > 5000000, "a stall of 60 ms is in the median of an open loop, not of a closed one: %llu, %llu ns", (unsigned long long)open,
           (unsigned long long)closed);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->series_count; i++) sum += m->series[i].operations;
    tap_ok(sum == m->operations && m->series[0].max >= 60000000, "each second's operations add up to all, and show it too");
    tap_ok(m->operations + m->behind >= 299 && m->operations + m->behind <= 301, "%llu done and %llu behind are those that were due", (unsigned long long)m->operations,
           (unsigned long long)m->behind);
}

static void test_pacer(void)
{
    bench_pacer a, b;
    _Atomic bool stop = true;    /* so that it never sleeps */
    uint64_t begin = bench_clock_ticks(), second = bench_clock_ticks_from_seconds(1);
    bench_pacer_init(&a, begin, 100, 0, 2);
    bench_pacer_init(&b, begin, 100, 1, 2);
    bool right = true;
    for (unsigned i = 0; i < 50; i++) {
        uint64_t first = bench_pacer_wait(&a, 1, &stop), next = bench_pacer_wait(&b, 1, &stop);
        right &= TAP_CHECK(llabs((int64_t)(first - begin) - (int64_t)(second * (2 * i) / 100)) <= 2);
        right &= TAP_CHECK(llabs((int64_t)(next - begin) - (int64_t)(second * (2 * i + 1) / 100)) <= 2);
    }
    tap_ok(right, "two threads start in turn, a hundredth of a second apart");
    tap_ok(bench_pacer_behind(&a, begin + second * 99 / 100) == 0 && bench_pacer_behind(&a, begin + second * 101 / 100) == 1 &&
               bench_pacer_behind(&a, begin + second * 201 / 100) == 51,
           "what was not begun in time is counted");
    bench_pacer_init(&a, begin, 100, 0, 1);
    bench_pacer_wait(&a, 64, &stop);
    tap_ok(llabs((int64_t)(bench_pacer_due(&a) - begin) - (int64_t)(second * 64 / 100)) <= 2, "a call for 64 takes 64 intervals");
}

static void test_series(uint64_t seed)
{
    bench_recorder recorders[2];
    rw_random random;
    rw_random_seed(&random, seed);
    uint64_t second = bench_clock_ticks_from_seconds(1), most = 0;
    for (int i = 0; i < 2; i++)
        if (!TAP_CHECK(bench_recorder_init(&recorders[i], 5) == 0)) return;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t ns = 1000 + rw_random_below(&random, 1000);
        most = RW_MAX(most, ns);
        bench_recorder_add(&recorders[i % 2], 5 + second * 3 + i, i == 500 ? 8000000 : ns, 2);
    }
    bench_recorder_add(&recorders[1], 5 + second * 7, 10, 1);
    const bench_recorder *all[2] = {&recorders[0], &recorders[1]};
    bench_second seconds[10];
    tap_ok(bench_series_length(all, 2) == 8 && bench_series_gather(all, 2, seconds, 10) == 8, "seconds up to the last one");
    tap_ok(seconds[0].operations == 0 && seconds[0].max == 0 && seconds[4].operations == 0, "a second without operations is empty");
    tap_ok(seconds[3].operations == 2000 && seconds[3].max == 8000000 && seconds[7].operations == 1 && seconds[7].p999 == 10, "counts and the longest are exact");
    tap_ok(seconds[3].p50 > 1350 && seconds[3].p50 < 1700 && seconds[3].p999 >= most - most / 16 && seconds[3].p999 <= most + most / 16,
           "quantiles are those of both threads together: %llu, %llu", (unsigned long long)seconds[3].p50, (unsigned long long)seconds[3].p999);
    tap_ok(bench_series_gather(all, 2, seconds, 4) == 4, "no more than there is room for");
    for (int i = 0; i < 2; i++) bench_recorder_free(&recorders[i]);
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------------------- */

static bool near(double a, double b)
{
    return a > b - 1e-9 && a < b + 1e-9;
}

static void measured(compare_results *results, unsigned engine, unsigned round, uint64_t operations, uint64_t latency)
{
    compare_measurement *m = &compare_results_turn(results, 0, engine, round)->workloads[0];
    *m = (compare_measurement){.done = true, .operations = operations, .seconds = 2, .puts = operations, .write_bytes = operations * 30 * (round + 1), .cpu_us = 5.0 * (double)operations,
                               .settled = round != 1};
    rw_histogram_init(&m->latency);
    rw_histogram_add(&m->latency, latency);
}

static void test_summaries(void)
{
    double odd[] = {5, 1, 3}, even[] = {4, 1, 3, 10};
    compare_spread a = compare_spread_of(odd, 3), b = compare_spread_of(even, 4), none = compare_spread_of(odd, 0);
    tap_ok(near(a.median, 3) && near(a.min, 1) && near(a.max, 5) && a.count == 3, "the median of three, least and most");
    tap_ok(near(b.median, 3.5) && near(b.min, 1) && near(b.max, 10) && none.count == 0, "of four it lies between the middle two; of none there is none");

    compare_plan two = {.stage_count = 1, .engine_count = 2, .rounds = 3};
    static compare_adapter ours = {.name = "ringwood"};
    two.engines[0] = &mock_adapter;
    two.engines[1] = &ours;
    two.stages[0] = stage_of(NULL);
    two.stages[0].settings = (compare_settings){.key_size = 10, .value_size = 20};
    compare_results results = {.plan = &two, .rounds = 3, .turns = compare_turns_new((size_t)COMPARE_ENGINES_MAX * COMPARE_ROUNDS_MAX)};
    if (!TAP_CHECK(results.turns != NULL)) return;
    measured(&results, 0, 0, 100, 10), measured(&results, 0, 1, 200, 20), measured(&results, 0, 2, 400, 30);
    measured(&results, 1, 0, 300, 1), measured(&results, 1, 1, 400, 1);
    static compare_summary mocks, ringwoods;
    compare_results_summarise(&results, 0, 0, 0, &mocks);
    compare_results_summarise(&results, 0, 1, 0, &ringwoods);
    tap_ok(compare_results_base(&two) == 1, "ratios are of ringwood, wherever it stands");
    tap_ok(near(mocks.rate.median, 100) && near(mocks.rate.min, 50) && near(mocks.rate.max, 200), "rates are operations over seconds");
    tap_ok(mocks.ratio.count == 2 && near(mocks.ratio.min, 2) && near(mocks.ratio.max, 3) && near(mocks.ratio.median, 2.5),
           "ratios are taken round by round, where both were measured");
    tap_ok(ringwoods.ratio.count == 2 && near(ringwoods.ratio.median, 1), "its own is 1");
    tap_ok(near(mocks.write_bytes, 2) && near(mocks.cpu_us, 5), "bytes written for each byte put, processor time for each operation");
    tap_ok(mocks.latency.count == 3 && mocks.latency.max == 30 && !mocks.settled, "latencies are of all rounds; one that did not come to rest is told");
    tap_ok(compare_results_code(&results) == 0, "all went well");
    compare_results_turn(&results, 0, 1, 2)->code = RW_EIO;
    tap_ok(compare_results_code(&results) == 1, "until one turn failed");
}

/* ringwood does a workload in flight; the mock cannot, and stands with its threads; the yardstick only with its own. */
static void test_stand_ins(void)
{
    enum { OURS, MOCK, FIO };
    static compare_adapter ours = {.name = "ringwood", .submit = mock_submit, .direct_possible = true}, theirs = {.name = "mock", .direct_possible = true};
    compare_plan three = {.stage_count = 1, .engine_count = 3, .rounds = 2, .engines = {&ours, &theirs, &compare_fio}};
    compare_stage *stage = &three.stages[0];
    *stage = stage_of(NULL);
    stage->workloads[0] = (compare_workload){.name = "put", .kind = COMPARE_PUT, .threads = 1, .fio = COMPARE_FIO_WRITE_SYNC};
    stage->workloads[1] = (compare_workload){.name = "put", .kind = COMPARE_PUT, .threads = 64};
    stage->workloads[2] = (compare_workload){.name = "put-queue", .kind = COMPARE_PUT, .threads = 1, .in_flight = 1024, .instead = "put"};
    stage->count = 3;
    compare_results results = {.plan = &three, .rounds = 2, .turns = compare_turns_new((size_t)COMPARE_ENGINES_MAX * COMPARE_ROUNDS_MAX)};
    if (!TAP_CHECK(results.turns != NULL)) return;
    static const uint64_t done[3][3] = {[OURS] = {10, 20, 900}, [MOCK] = {8, 50, 0}, [FIO] = {12, 0, 0}};
    for (unsigned e = 0; e < 3; e++)
        for (unsigned round = 0; round < 2; round++)
            for (unsigned w = 0; w < 3 && done[e][w] > 0; w++) {
                compare_measurement *m = &compare_results_turn(&results, 0, e, round)->workloads[w];
                *m = (compare_measurement){.done = true, .operations = done[e][w] * (round + 1), .seconds = 1, .reads_counted = e == OURS, .reads = 2 * done[e][w] * (round + 1)};
                rw_histogram_init(&m->latency);
            }
    static compare_summary sum;
    compare_results_summarise(&results, 0, MOCK, 2, &sum);
    tap_ok(sum.instead == &stage->workloads[1] && near(sum.rate.median, 75) && near(sum.ratio.median, 18), "who has no such calls stands with its best thread count");
    tap_ok(sum.reads < 0, "and has counted no reads");
    compare_results_summarise(&results, 0, OURS, 2, &sum);
    tap_ok(sum.instead == NULL && near(sum.rate.median, 1350) && near(sum.reads, 2), "who has them with its own; reads are for each operation");
    compare_results_summarise(&results, 0, FIO, 2, &sum);
    tap_ok(sum.rate.count == 0, "fio stands with nothing that it did not do");
    compare_results_summarise(&results, 0, FIO, 0, &sum);
    tap_ok(near(sum.ratio.median, 10.0 / 12), "but beside what it did");
    tap_ok(compare_results_best_other(&results, 0, 2, &sum) == MOCK && near(sum.ratio.median, 18), "the best of the others");
    three.engine_count = 1;
    tap_ok(compare_results_best_other(&results, 0, 2, &sum) == 1, "of whom there may be none");
    tap_ok(terse_number("3;fio-3.33;job;0;0;44;11;9", TERSE_READ) == 44 && terse_number("3;fio", 7) == 0, "fields of fio's line");
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    tap_diag("replay: test_bench_compare %llu", (unsigned long long)seed);
    bench_clock_init();
    plan = (compare_plan){.seed = seed, .rounds = 1};
    turn = compare_turns_new(1);
    if (turn == NULL) return 1;
    test_child();
    test_right_answers();
    test_wrong_answers();
    test_stall_shows();
    test_pacer();
    test_series(seed);
    test_summaries();
    test_stand_ins();
    return tap_done();
}
