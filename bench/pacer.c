#include "bench/pacer.h"

#include <math.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/base.h"
#include "bench/measure.h"

enum { SLEEP_NS_MAX = 100000000 }; /* how late a stop is noticed */

void bench_pacer_init(bench_pacer *pacer, uint64_t begin_ticks, double rate, unsigned index, unsigned count)
{
    RW_ASSERT(rate > 0 && count > 0);
    double step = (double)bench_clock_ticks_from_seconds(1) / rate;
    *pacer = (bench_pacer){.begin_ticks = begin_ticks, .interval = step * count, .due = step * index};
}

uint64_t bench_pacer_wait(bench_pacer *pacer, uint64_t count, const _Atomic bool *stop)
{
    static _Thread_local bool exact;
    if (!exact) exact = prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0) == 0; /* else the kernel wakes sleepers up to 50 us late */
    uint64_t due = bench_pacer_due(pacer), now;
    while ((now = bench_clock_ticks()) < due && !atomic_load_explicit(stop, memory_order_relaxed)) {
        uint64_t ns = RW_MIN(bench_clock_ns(due - now), (uint64_t)SLEEP_NS_MAX);
        nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
    }
    pacer->due += pacer->interval * (double)count;
    return due;
}

uint64_t bench_pacer_behind(const bench_pacer *pacer, uint64_t deadline_ticks)
{
    uint64_t due = bench_pacer_due(pacer);
    return !bench_pacer_is_on(pacer) || due >= deadline_ticks ? 0 : (uint64_t)ceil((double)(deadline_ticks - due) / pacer->interval);
}
