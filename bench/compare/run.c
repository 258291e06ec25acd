#include "bench/compare/run.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/compare/fio.h"
#include "bench/compare/process.h"
#include "bench/measure.h"
#include "bench/scratch.h"

enum { REST_LOOK_MS = 100, REST_LOOKS = 3 };
static const double rest_seconds_max = 120;
static const double rest_cpu_share = 0.05;  /* of one processor: what timers of an idle engine may take */

_Atomic bool compare_interrupted;
_Atomic pid_t compare_child;

compare_turn *compare_turns_new(size_t count)
{
    void *memory = mmap(NULL, count * sizeof(compare_turn), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* An engine that is open in this process, and what is done to it. */
typedef struct {
    const compare_plan *plan;
    const compare_stage *stage;
    const compare_adapter *adapter;
    compare_settings settings;
    bench_dataset *dataset;
    void *engine;
    unsigned round;
} turn_state;

/* ---- the threads of a workload ---------------------------------------------------------------------------------------- */

typedef struct {
    compare_shared shared;
    compare_lane *lanes;
    unsigned count;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned arrived;            /* under mutex, as is open */
    bool open;
} crew;

typedef struct {
    crew *crew;
    compare_lane *lane;
} crew_member;

static void *member_run(void *arg)
{
    crew_member *member = arg;
    crew *c = member->crew;
    compare_lane *lane = member->lane;
    const compare_adapter *adapter = c->shared.adapter;
    int code = adapter->session_open(c->shared.engine, &lane->session);
    if (code != 0) {
        lane->code = code;
        snprintf(lane->complaint, sizeof lane->complaint, "%s: cannot begin a session: %s", adapter->title, rw_error_text());
        atomic_store(&c->shared.stop, true);
    }
    pthread_mutex_lock(&c->mutex);
    c->arrived++;
    pthread_cond_broadcast(&c->changed);
    while (!c->open) pthread_cond_wait(&c->changed, &c->mutex);
    pthread_mutex_unlock(&c->mutex);
    if (code == 0 && !atomic_load(&c->shared.stop)) compare_lane_run(lane);
    if (code == 0) adapter->session_close(lane->session);
    return NULL;
}

/* Starts the threads, lets them begin together, waits for their ends. */
static int crew_run(crew *c, const compare_plan *plan, const compare_stage *stage)
{
    pthread_t threads[COMPARE_THREADS_MAX];
    crew_member members[COMPARE_THREADS_MAX];
    unsigned started = 0;
    int error = 0, code = 0;
    for (; started < c->count && error == 0; started += error == 0) {
        members[started] = (crew_member){.crew = c, .lane = &c->lanes[started]};
        error = pthread_create(&threads[started], NULL, member_run, &members[started]);
    }
    pthread_mutex_lock(&c->mutex);
    while (c->arrived < started) pthread_cond_wait(&c->changed, &c->mutex);
    if (error != 0) atomic_store(&c->shared.stop, true);
    c->shared.begin_ticks = bench_clock_ticks();
    c->shared.deadline_ticks = c->shared.begin_ticks + bench_clock_ticks_from_seconds(stage->seconds);
    for (unsigned i = 0; i < c->count && code == 0; i++) code = compare_lane_begin(&c->lanes[i], plan->rate, plan->series, i, c->count);
    if (code != 0) atomic_store(&c->shared.stop, true);
    c->open = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    for (unsigned i = 0; i < started; i++) pthread_join(threads[i], NULL);
    return error == 0 ? code : rw_error_errno(RW_ENOMEM, error, "cannot start thread %u of %u", started + 1, c->count);
}

static int crew_init(crew *c, const turn_state *state, const compare_workload *workload)
{
    memset(c, 0, sizeof *c);
    c->shared = (compare_shared){.adapter = state->adapter, .engine = state->engine, .dataset = state->dataset, .workload = workload};
    if (workload->distribution == BENCH_ZIPFIAN) bench_zipfian_init(&c->shared.zipfian, state->dataset->records, BENCH_ZIPFIAN_THETA);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->lanes = calloc(workload->threads, sizeof *c->lanes);
    if (c->lanes == NULL) return rw_error(RW_ENOMEM, "no memory for %u threads", workload->threads);
    int code = 0;
    for (; c->count < workload->threads && code == 0; c->count++)
        code = compare_lane_init(&c->lanes[c->count], &c->shared, state->plan->seed + state->round, c->count, workload->threads);
    return code;
}

static void crew_free(crew *c)
{
    for (unsigned i = 0; i < c->count; i++) compare_lane_free(&c->lanes[i]);
    free(c->lanes);
    pthread_mutex_destroy(&c->mutex);
    pthread_cond_destroy(&c->changed);
}

/* ---- measuring ----------------------------------------------------------------------------------------------------------- */

/* Whether the process does next to nothing by itself for a moment. */
static bool engine_rests(void)
{
    process_counters before, after;
    process_counters_read(&before);
    double cpu = bench_cpu_us();
    nanosleep(&(struct timespec){.tv_nsec = REST_LOOK_MS * 1000000L}, NULL);
    process_counters_read(&after);
    return after.write_bytes == before.write_bytes && bench_cpu_us() - cpu < REST_LOOK_MS * 1000 * rest_cpu_share;
}

/* After writes: what was put off is done now, so that it is not found in the next workload's numbers but in this one's costs. */
static int engine_settle(const turn_state *state, compare_measurement *m)
{
    uint64_t begin = bench_clock_monotonic_ns();
    int code = state->adapter->settle != NULL ? state->adapter->settle(state->engine) : 0;
    double waited = 0;
    for (int looks = 0; code == 0 && looks < REST_LOOKS && waited < rest_seconds_max;) {
        looks = engine_rests() ? looks + 1 : 0;
        waited = (double)(bench_clock_monotonic_ns() - begin) / 1e9;
        m->settled = looks == REST_LOOKS;
    }
    m->settle_seconds = (double)(bench_clock_monotonic_ns() - begin) / 1e9;
    return code;
}

static int lanes_gather(const crew *c, compare_measurement *m, compare_turn *turn)
{
    int code = 0;
    rw_histogram_init(&m->latency);
    uint64_t end = c->shared.begin_ticks, wrong = 0;
    const bench_recorder *recorders[COMPARE_THREADS_MAX];
    for (unsigned i = 0; i < c->count; i++) {
        const compare_lane *lane = &c->lanes[i];
        m->operations += lane->operations;
        m->puts += lane->puts;
        m->records += lane->records;
        m->behind += lane->behind;
        wrong += lane->wrong;
        end = RW_MAX(end, lane->end_ticks);
        rw_histogram_merge(&m->latency, &lane->latency);
        recorders[i] = &lane->recorder;
        if (code == 0) code = lane->code;
        if (turn->complaint[0] == '\0') memcpy(turn->complaint, lane->complaint, sizeof turn->complaint);
    }
    m->seconds = (double)bench_clock_ns(end - c->shared.begin_ticks) / 1e9;
    if (c->count > 0 && c->lanes[0].records_series) m->series_count = bench_series_gather(recorders, c->count, m->series, COMPARE_SERIES_MAX);
    return code == 0 && wrong > 0 ? 1 : code;
}

/* Waits for acknowledged writes to be durable, which is part of the time, then for the engine to rest, which is not. */
static int measure_writes(const turn_state *state, bool durable, compare_measurement *m)
{
    uint64_t begin = bench_clock_monotonic_ns();
    if (!durable) {
        int code = state->adapter->flush(state->engine);
        if (code != 0) return code;
        m->seconds += (double)(bench_clock_monotonic_ns() - begin) / 1e9;
    }
    return engine_settle(state, m);
}

/* What the engine has read so far. */
static int reads_count(const turn_state *state, compare_measurement *m, uint64_t *count)
{
    m->reads_counted = state->adapter->reads != NULL;
    return m->reads_counted ? state->adapter->reads(state->engine, count) : 0;
}

static int workload_run(const turn_state *state, const compare_workload *workload, compare_measurement *m, compare_turn *turn)
{
    crew c;
    process_counters before, after;
    uint64_t reads = 0;
    int code = crew_init(&c, state, workload);
    if (code == 0) code = reads_count(state, m, &reads);
    process_resident_reset();
    process_counters_read(&before);
    double cpu = bench_cpu_us();
    uint64_t begin = bench_clock_monotonic_ns();
    if (code == 0) code = crew_run(&c, state->plan, state->stage);
    if (code == 0) code = lanes_gather(&c, m, turn);
    if (code == 0 && compare_workload_writes(workload)) code = measure_writes(state, state->settings.durable, m);
    if (code == 0) code = reads_count(state, m, &m->reads);
    m->reads = code == 0 ? m->reads - reads : 0;
    m->cpu_us = bench_cpu_us() - cpu;
    double elapsed_us = (double)(bench_clock_monotonic_ns() - begin) / 1e3;
    process_counters_read(&after);
    m->others_cpu = RW_MAX(after.machine_cpu_us - before.machine_cpu_us - m->cpu_us, 0.0) / elapsed_us;
    crew_free(&c);
    m->write_bytes = after.write_bytes - before.write_bytes;
    m->read_bytes = after.read_bytes - before.read_bytes;
    m->resident_max = after.resident_max;
    m->anonymous = after.anonymous;
    m->file_bytes = process_directory_bytes(state->settings.directory);
    m->done = code == 0;
    return code;
}

/* ---- the child -------------------------------------------------------------------------------------------------------------- */

/* Between the load and the rest: the database is opened again, durably where that is asked for, and read once in key order, which is measured by nothing: so
 * every engine begins with as much in its cache as it holds, and every record is known to be there. */
static int load_follow(turn_state *state, compare_turn *turn)
{
    static const compare_workload warm_up = {.name = "reading all after the load", .kind = COMPARE_SCAN_FULL, .threads = 1};
    int code = state->adapter->close(state->engine);
    state->engine = NULL;
    state->settings.durable = state->stage->settings.durable;
    if (code == 0) code = state->adapter->open(&state->settings, &state->engine);
    return code == 0 ? workload_run(state, &warm_up, &turn->warm_up, turn) : code;
}

/* Loading is never durable by the put: that would take hours. */
static int workloads_run(turn_state *state, bool sequential, compare_turn *turn)
{
    const compare_stage *stage = state->stage;
    int code = 0;
    for (unsigned i = 0; i < stage->count && code == 0; i++) {
        const compare_workload *workload = &stage->workloads[i];
        if ((workload->kind == COMPARE_LOAD_SEQUENTIAL) != sequential || (workload->in_flight > 0 && state->adapter->submit == NULL)) continue;
        code = workload_run(state, workload, &turn->workloads[i], turn);
        if (code == 0 && workload->kind == COMPARE_LOAD && i + 1 < stage->count) code = load_follow(state, turn);
    }
    return code;
}

void compare_stage_run(const compare_plan *plan, const compare_stage *stage, const compare_adapter *adapter, const char *directory, bool sequential,
                       unsigned round, compare_turn *turn)
{
    bench_dataset dataset = {.records = stage->records, .key_size = stage->settings.key_size, .value_size = stage->settings.value_size, .seed = plan->seed};
    turn_state state = {.plan = plan, .stage = stage, .adapter = adapter, .settings = stage->settings, .dataset = &dataset, .round = round};
    state.settings.directory = directory;
    state.settings.durable = false;
    if (adapter->yardstick) {
        compare_fio_run(stage, directory, turn);
        return;
    }
    int code = bench_dataset_init(&dataset);
    if (code == 0) code = adapter->open(&state.settings, &state.engine);
    if (code == 0 && adapter->sync_way != NULL) adapter->sync_way(state.engine, turn->sync_way);
    if (code == 0) code = workloads_run(&state, sequential, turn);
    if (code < 0 && turn->complaint[0] == '\0') snprintf(turn->complaint, sizeof turn->complaint, "%s: %s", adapter->title, rw_error_text());
    int closed = state.engine != NULL ? adapter->close(state.engine) : 0;
    if (closed != 0 && code == 0) snprintf(turn->complaint, sizeof turn->complaint, "%s: cannot be closed: %s", adapter->title, rw_error_text());
    turn->code = code != 0 ? code : closed;
    bench_dataset_free(&dataset);
    turn->finished = turn->code == 0;
}

/* ---- the parent -------------------------------------------------------------------------------------------------------------- */

/* Forks before anything of an engine exists, so that the child begins with as little as the parent has. */
static void child_run(const compare_plan *plan, const compare_stage *stage, const compare_adapter *adapter, const char *directory, bool sequential,
                      unsigned round, compare_turn *turn)
{
    turn->finished = false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        turn->code = RW_ENOMEM;
        snprintf(turn->complaint, sizeof turn->complaint, "%s: no process of its own could be made", adapter->title);
        return;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        compare_stage_run(plan, stage, adapter, directory, sequential, round, turn);
        _exit(0);
    }
    int status = 0;
    atomic_store(&compare_child, pid);
    if (atomic_load(&compare_interrupted)) kill(pid, SIGKILL); /* before the handler could know it */
    while (waitpid(pid, &status, 0) < 0) RW_ASSERT(errno == EINTR);
    atomic_store(&compare_child, 0);
    if (turn->finished || turn->code != 0) return;
    turn->code = RW_EIO;
    if (atomic_load(&compare_interrupted)) snprintf(turn->complaint, sizeof turn->complaint, "%s: interrupted", adapter->title);
    else snprintf(turn->complaint, sizeof turn->complaint, "%s: its process %s %d", adapter->title, WIFSIGNALED(status) ? "was killed by signal" : "ended with code",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

void compare_turn_run(const compare_plan *plan, const compare_stage *stage, const compare_adapter *adapter, unsigned round, compare_turn *turn)
{
    bool has_sequential = false;
    for (unsigned i = 0; i < stage->count; i++) has_sequential |= stage->workloads[i].kind == COMPARE_LOAD_SEQUENTIAL && !adapter->yardstick;
    for (int sequential = has_sequential; sequential >= 0 && turn->code == 0 && !atomic_load(&compare_interrupted); sequential--) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", plan->scratch, adapter->name);
        if (mkdir(path, 0755) != 0) turn->code = rw_error(RW_EIO, "%s cannot be made", path);
        else child_run(plan, stage, adapter, path, sequential, round, turn);
        if (bench_scratch_remove(path) != 0 && turn->code == 0) turn->code = RW_EIO;
        if (turn->code < 0 && turn->complaint[0] == '\0') snprintf(turn->complaint, sizeof turn->complaint, "%s", rw_error_text());
    }
}
