#include "bench/in_flight.h"

#include <stdlib.h>

#include "bench/lane.h"

#define TICK_NS 50000                  /* an open loop looks no more often what has ended and what is due: each look costs as much as several operations */

/* One that may be under way, with what it points to. */
typedef struct {
    rw_op op;
    bench_kind kind;
    uint64_t start;              /* ticks */
    unsigned char *key, *value, *buffer;
} flight_operation;

struct bench_flight {
    bench_lane *lane;
    rw_queue *queue;
    unsigned depth, unused_count;
    flight_operation *operations;
    flight_operation **unused;   /* those that are not under way */
    rw_op **list;                /* of one call */
    unsigned char *bytes;        /* of all keys, values and buffers */
};

int bench_flight_open(bench_lane *lane, unsigned depth, bench_flight **flight)
{
    const bench_dataset *dataset = lane->shared->dataset;
    size_t value = (size_t)dataset->value_size + 1, each = dataset->key_size + 2 * value;
    bench_flight *f = calloc(1, sizeof *f);
    *flight = f;
    if (f == NULL) return rw_error(RW_ENOMEM, "no memory for operations under way");
    f->lane = lane;
    f->depth = f->unused_count = depth;
    f->operations = calloc(depth, sizeof *f->operations);
    f->unused = calloc(depth, sizeof(flight_operation *));
    f->list = calloc(depth, sizeof(rw_op *));
    f->bytes = malloc(depth * each);
    if (f->operations == NULL || f->unused == NULL || f->list == NULL || f->bytes == NULL) return rw_error(RW_ENOMEM, "no memory for %u operations under way", depth);
    for (unsigned i = 0; i < depth; i++) {
        flight_operation *one = f->unused[depth - 1 - i] = &f->operations[i];
        one->key = f->bytes + i * each;
        one->value = one->key + dataset->key_size;
        one->buffer = one->value + value;
    }
    return rw_queue_open(lane->shared->db, depth, &f->queue);
}

void bench_flight_close(bench_flight *f)
{
    if (f == NULL) return;
    if (f->queue != NULL) rw_queue_close(f->queue);
    free(f->operations);
    free(f->unused);
    free(f->list);
    free(f->bytes);
    free(f);
}

static unsigned under_way(const bench_flight *f)
{
    return f->depth - f->unused_count;
}

/* Nothing more is to begin. */
static bool flight_is_over(const bench_flight *f)
{
    const bench_lane *lane = f->lane;
    uint64_t deadline = lane->shared->deadline_ticks;
    if (lane->left <= under_way(f) || lane->code != 0 || atomic_load_explicit(&lane->shared->stop, memory_order_relaxed)) return true;
    return deadline != 0 && (lane->last_ticks >= deadline || (bench_pacer_is_on(&lane->pacer) && bench_pacer_due(&lane->pacer) >= deadline));
}

/* Whether one more is to begin now. In an open loop when it is due; with nothing under way that is waited for. */
static bool flight_is_due(const bench_flight *f)
{
    const bench_lane *lane = f->lane;
    if (f->unused_count == 0 || flight_is_over(f)) return false;
    return !bench_pacer_is_on(&lane->pacer) || bench_pacer_due(&lane->pacer) <= bench_clock_ticks() || under_way(f) == 0;
}

/* Keys and values are made before the clock is read. */
static void operation_prepare(bench_lane *lane, flight_operation *one)
{
    const bench_shared *shared = lane->shared;
    const bench_dataset *dataset = shared->dataset;
    one->kind = lane_draw_kind(lane);
    bench_dataset_key(dataset, bench_dataset_code(dataset, lane_draw(lane)), one->key);
    one->op = (rw_op){.kind = one->kind == BENCH_READ ? RW_OP_GET : RW_OP_PUT, .flags = shared->flags, .bucket = shared->bucket, .key = rw_slice_of(one->key, dataset->key_size), .context = one};
    if (one->kind == BENCH_READ) {
        one->op.buf = one->buffer;
        one->op.size = (size_t)dataset->value_size + 1;
    } else {
        bench_dataset_value(dataset, one->key, &lane->random, one->value);
        one->op.value = rw_slice_of(one->value, dataset->value_size);
    }
}

static int flight_begin(bench_flight *f)
{
    bench_lane *lane = f->lane;
    bool paced = bench_pacer_is_on(&lane->pacer);
    unsigned count = 0;
    while (flight_is_due(f)) {
        flight_operation *one = f->unused[--f->unused_count];
        operation_prepare(lane, one);
        if (paced) one->start = lane_start(lane, 1);
        f->list[count++] = &one->op;
    }
    if (count == 0) return 0;
    uint64_t now = bench_clock_ticks();
    for (unsigned i = 0; i < count && !paced; i++) ((flight_operation *)f->list[i]->context)->start = now;
    int code = rw_submit(f->queue, f->list, count);
    return RW_LIKELY(code == 0) ? 0 : lane_failed(lane, code, "rw_submit");
}

static int operation_end(bench_flight *f, const rw_op *op)
{
    flight_operation *one = op->context;
    lane_record(f->lane, one->kind, one->start, 1);
    f->unused[f->unused_count++] = one;
    if (one->kind == BENCH_READ) return lane_judge_read(f->lane, one->key, op->result, rw_slice_of(one->buffer, op->size));
    return op->result == 0 ? 0 : lane_failed(f->lane, op->result, "a put");
}

/* Until one has ended; in an open loop for a tick, or until the next one is due, if that is later, and it can begin then. Nanoseconds; below 0: no limit. */
static int64_t flight_timeout(const bench_flight *f)
{
    const bench_pacer *pacer = &f->lane->pacer;
    if (!bench_pacer_is_on(pacer) || f->unused_count == 0 || flight_is_over(f)) return -1;
    uint64_t due = bench_pacer_due(pacer), now = bench_clock_ticks();
    return RW_MAX(due > now ? (int64_t)bench_clock_ns(due - now) : 0, TICK_NS);
}

static int flight_end(bench_flight *f)
{
    int64_t timeout = flight_timeout(f);
    int ended = rw_reap(f->queue, f->list, timeout < 0 ? 1 : under_way(f), f->depth, timeout), code = 0;
    if (ended < 0) return lane_failed(f->lane, ended, "rw_reap");
    for (int i = 0; i < ended; i++) {
        int failed = operation_end(f, f->list[i]);
        if (code == 0) code = failed;
    }
    return code;
}

void bench_flight_run(bench_flight *f)
{
    bench_lane *lane = f->lane;
    lane->last_ticks = bench_clock_ticks();
    while (under_way(f) > 0 || !flight_is_over(f)) {
        int code = flight_begin(f);
        if (code == 0 && under_way(f) > 0) code = flight_end(f);
        if (RW_LIKELY(code == 0)) continue;
        lane->code = code;
        atomic_store_explicit(&lane->shared->stop, true, memory_order_relaxed);
        break; /* what is under way ends with the queue */
    }
    lane->last_ticks = bench_clock_ticks();
}
