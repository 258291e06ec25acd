/* Which way of reading is found to be the faster one (kernel_io/read_trial.c), with a machine that is made up: so many reads a second in each way, more or less. */
#include <string.h>

#include "base/random.h"
#include "kernel_io/read_trial.h"
#include "tests/support/tap.h"

#define LOOK_READS 64u

typedef struct {
    rw_random random;
    uint64_t now_ns, reads;
    uint64_t rates[READ_WAYS];     /* a second */
    unsigned scatter_percent;      /* of the time that some reads take */
    uint64_t made[READ_WAYS];
} machine;

static void machine_run(machine *m, read_trial *t, uint64_t reads)
{
    for (uint64_t end = m->reads + reads; m->reads < end;) {
        read_way way = read_trial_way(t);
        uint64_t ns = (uint64_t)LOOK_READS * 1000000000u / m->rates[way], scatter = ns * m->scatter_percent / 100;
        m->now_ns += ns - scatter + rw_random_below(&m->random, 2 * scatter + 1);
        m->reads += LOOK_READS;
        m->made[way] += LOOK_READS;
        read_trial_look(t, m->now_ns, m->reads);
    }
}

static unsigned percent_alone(machine *m, read_trial *t, uint64_t reads)
{
    memset(m->made, 0, sizeof m->made);
    machine_run(m, t, reads);
    return (unsigned)(m->made[READ_ALONE] * 100 / (m->made[READ_ALONE] + m->made[READ_COLLECTED]));
}

static machine machine_of(uint64_t alone, uint64_t collected)
{
    machine m = {.now_ns = 1000000000, .rates = {[READ_ALONE] = alone, [READ_COLLECTED] = collected}, .scatter_percent = 30};
    rw_random_seed(&m.random, alone);
    return m;
}

int main(void)
{
    read_trial t;
    machine m = machine_of(67000, 55000);
    read_trial_init(&t);
    tap_ok(read_trial_way(&t) == READ_ALONE, "it begins with what needs no other thread");
    unsigned share = percent_alone(&m, &t, 1000000);
    tap_ok(share >= 97, "where reading alone is faster %u %% are made so", share);
    m.rates[READ_COLLECTED] = 100000;
    machine_run(&m, &t, 2000000);
    share = percent_alone(&m, &t, 1000000);
    tap_ok(share <= 3, "once collecting is %u %%", share);
    m.rates[READ_ALONE] = 5000, m.rates[READ_COLLECTED] = 8000;
    machine_run(&m, &t, 1000000);
    share = percent_alone(&m, &t, 1000000);
    tap_ok(share <= 3, "on a slow device the same: %u %%", share);
    m = machine_of(60000, 60000);
    read_trial_init(&t);
    machine_run(&m, &t, 200000);
    share = percent_alone(&m, &t, 2000000);
    tap_ok(share >= 90 || share <= 10, "where both are as fast it stays with one: %u %%", share);
    m = machine_of(1000, 500000);
    read_trial_init(&t);
    share = percent_alone(&m, &t, 20000);
    tap_ok(share == 100, "what takes seconds tells nothing: %u %%", share);
    return tap_done();
}
