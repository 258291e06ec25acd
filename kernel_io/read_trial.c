#include "kernel_io/read_trial.h"

#include "base/base.h"

#define TURN_READS 2000u               /* at least, */
#define TURN_NS 10000000u              /* and so long; but */
#define TURN_NS_MAX 1000000000u        /* what took longer was no rate of the machine's: there was little to read */
#define PERIOD_MIN 8u
#define PERIOD_MAX 256u
#define RATE_SHARE 4u                  /* of a turn's rate in the smoothed one */
#define BETTER_PERCENT 106u            /* than the best so far: more than two turns differ by chance */

void read_trial_init(read_trial *t)
{
    *t = (read_trial){.best = READ_ALONE, .turns_left = 1, .period = PERIOD_MIN};
    atomic_init(&t->way, READ_ALONE);
}

static void rate_note(read_trial *t, read_way way, uint64_t rate)
{
    uint64_t known = t->rates[way];
    t->rates[way] = known == 0 ? rate : known - known / RATE_SHARE + rate / RATE_SHARE;
}

/* After a turn of the way that is not the best: whether it is now. */
static void best_decide(read_trial *t, read_way other)
{
    if (t->rates[other] * 100 > t->rates[t->best] * BETTER_PERCENT) {
        t->best = other;
        t->period = PERIOD_MIN;
    } else t->period = RW_MIN(2 * t->period, PERIOD_MAX);
    t->turns_left = t->period;
}

static void turn_end(read_trial *t, uint64_t rate)
{
    read_way way = read_trial_way(t), next = t->best;
    rate_note(t, way, rate);
    if (way != t->best) {
        best_decide(t, way);
        next = t->best;
    } else if (--t->turns_left == 0) {
        next = t->best == READ_ALONE ? READ_COLLECTED : READ_ALONE;
    }
    atomic_store_explicit(&t->way, next, memory_order_relaxed);
}

void read_trial_look(read_trial *t, uint64_t now_ns, uint64_t reads)
{
    if (atomic_exchange_explicit(&t->looking, 1, memory_order_acquire) != 0) return;
    uint64_t ns = now_ns > t->began_ns ? now_ns - t->began_ns : 0, made = reads > t->began_reads ? reads - t->began_reads : 0;
    bool too_long = ns > TURN_NS_MAX;
    if (too_long || (ns >= TURN_NS && made >= TURN_READS)) {
        if (!too_long) turn_end(t, made * 1000000000u / ns);
        t->began_ns = now_ns;
        t->began_reads = reads;
    }
    atomic_store_explicit(&t->looking, 0, memory_order_release);
}
