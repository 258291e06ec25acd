#include "bench/measure.h"

#include <sys/resource.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/base.h"

enum { CALIBRATION_NS = 50000000, READINGS = 10000 };

bench_clock bench_clock_chosen = {.tsc = false, .ns_per_tick_q32 = (uint64_t)1 << 32, .reading_ns = 0};

#if defined(__x86_64__)
/* The counter runs at one rate through all power states: bit 8 of EDX in leaf 0x80000007. */
static bool tsc_is_invariant(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007u, &a, &b, &c, &d) != 0 && (d >> 8 & 1u) != 0;
}

/* The counter and the system's clock at one moment: of several pairs the one that took least time. */
static void tsc_pair(uint64_t *ticks, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 20; i++) {
        uint64_t before = __rdtsc(), now = bench_clock_monotonic_ns(), after = __rdtsc();
        if (after - before >= best) continue;
        best = after - before;
        *ticks = before + best / 2;
        *ns = now;
    }
}

static void tsc_calibrate(void)
{
    uint64_t first_ticks = 0, first_ns = 0, last_ticks = 0, last_ns = 0;
    tsc_pair(&first_ticks, &first_ns);
    while (bench_clock_monotonic_ns() - first_ns < CALIBRATION_NS) rw_cpu_relax();
    tsc_pair(&last_ticks, &last_ns);
    if (last_ticks <= first_ticks) return;
    double ns_per_tick = (double)(last_ns - first_ns) / (double)(last_ticks - first_ticks);
    bench_clock_chosen.ns_per_tick_q32 = (uint64_t)(ns_per_tick * 4294967296.0);
    bench_clock_chosen.tsc = true;
}
#endif

void bench_clock_init(void)
{
#if defined(__x86_64__)
    if (tsc_is_invariant()) tsc_calibrate();
#endif
    uint64_t begin = bench_clock_ticks(), last = begin;
    for (int i = 0; i < READINGS; i++) last = bench_clock_ticks();
    bench_clock_chosen.reading_ns = (double)bench_clock_ns(last - begin) / READINGS;
}

double bench_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

uint64_t bench_resident_bytes_max(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}
