#include "bench/compare/in_flight.h"

#include <stdlib.h>

typedef struct {
    compare_lane *lane;
    unsigned depth;
    uint64_t *starts;            /* of the request with that number */
    unsigned *unused;            /* numbers of requests that are not under way */
    unsigned unused_count;
    compare_request **list;      /* of one call */
} flight;

/* Whether one more is to begin now. In an open loop when it is due; with nothing under way it is waited for. */
static bool flight_is_due(const flight *f, unsigned begun)
{
    const compare_lane *lane = f->lane;
    if (f->unused_count == 0) return false;
    if (RW_LIKELY(!bench_pacer_is_on(&lane->pacer))) return true;
    uint64_t due = bench_pacer_due(&lane->pacer);
    if (due >= lane->shared->deadline_ticks) return false;
    return due <= bench_clock_ticks() || (f->unused_count == f->depth && begun == 0);
}

/* Keys and values are made before the clock is read: one reading for all that begin together, but in an open loop. */
static int flight_begin(flight *f)
{
    compare_lane *lane = f->lane;
    bool put = lane->shared->workload->kind == COMPARE_PUT;
    unsigned count = 0;
    while (flight_is_due(f, count)) {
        unsigned i = f->unused[--f->unused_count];
        lane_draw_key(lane, i);
        if (put) lane_make_value(lane, i);
        if (bench_pacer_is_on(&lane->pacer)) f->starts[i] = lane_start(lane, 1);
        lane->requests[i] = (compare_request){.slot = i, .put = put, .key = lane_key(lane, i), .value = put ? lane_value(lane, i) : (rw_slice){0}};
        f->list[count++] = &lane->requests[i];
    }
    if (count == 0) return 0;
    uint64_t now = bench_clock_ticks();
    for (unsigned i = 0; i < count && !bench_pacer_is_on(&lane->pacer); i++) f->starts[f->list[i]->slot] = now;
    int code = lane->shared->adapter->submit(lane->session, f->list, count);
    return RW_LIKELY(code == 0) ? 0 : lane_failed(lane, code);
}

/* Until one has ended; in an open loop until the next one is due, if it can begin then. */
static int64_t flight_timeout(const flight *f)
{
    const compare_lane *lane = f->lane;
    if (RW_LIKELY(!bench_pacer_is_on(&lane->pacer)) || f->unused_count == 0) return -1;
    uint64_t due = bench_pacer_due(&lane->pacer), now = bench_clock_ticks();
    if (due >= lane->shared->deadline_ticks) return -1;
    return due > now ? (int64_t)bench_clock_ns(due - now) : 0;
}

static int request_end(flight *f, const compare_request *r)
{
    compare_lane *lane = f->lane;
    bool right = r->put || r->code != 0 || bench_dataset_value_is_right(lane->shared->dataset, r->key.data, r->value.data, r->value.size);
    lane_record(lane, f->starts[r->slot], 1);
    lane->puts += r->put;
    f->unused[f->unused_count++] = r->slot;
    if (RW_UNLIKELY(r->code == RW_ENOTFOUND && !r->put)) lane_wrong(lane, r->key.data, "an existing record was not found");
    else if (RW_UNLIKELY(r->code != 0)) return lane_failed(lane, r->code);
    else if (RW_UNLIKELY(!right)) lane_wrong(lane, r->key.data, "the value is not the key's");
    return 0;
}

static int flight_end(flight *f)
{
    compare_lane *lane = f->lane;
    if (f->unused_count == f->depth) return 0;
    int ended = lane->shared->adapter->reap(lane->session, f->list, f->depth, flight_timeout(f)), code = 0;
    if (ended < 0) return lane_failed(lane, ended);
    for (int i = 0; i < ended && code == 0; i++) code = request_end(f, f->list[i]);
    return code;
}

static int flight_run(flight *f)
{
    compare_lane *lane = f->lane;
    const compare_shared *shared = lane->shared;
    int code = 0;
    while (code == 0 && lane->end_ticks < shared->deadline_ticks && !atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        bool over = bench_pacer_is_on(&lane->pacer) && bench_pacer_due(&lane->pacer) >= shared->deadline_ticks;
        if (over && f->unused_count == f->depth) break;
        code = flight_begin(f);
        if (code == 0) code = flight_end(f);
    }
    lane->behind = bench_pacer_behind(&lane->pacer, shared->deadline_ticks);
    while (code == 0 && f->unused_count < f->depth) code = flight_end(f);
    return code;
}

int compare_in_flight_run(compare_lane *lane)
{
    unsigned depth = lane->shared->workload->in_flight;
    flight f = {.lane = lane, .depth = depth, .unused_count = depth, .starts = calloc(depth, sizeof *f.starts), .unused = calloc(depth, sizeof *f.unused),
                .list = calloc(depth, sizeof *f.list)};
    int code = 0;
    if (f.starts == NULL || f.unused == NULL || f.list == NULL) code = lane_failed(lane, rw_error(RW_ENOMEM, "no memory for %u requests", depth));
    for (unsigned i = 0; i < depth && code == 0; i++) f.unused[i] = depth - 1 - i;
    if (code == 0) code = flight_run(&f);
    free(f.starts);
    free(f.unused);
    free(f.list);
    return code;
}
