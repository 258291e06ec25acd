/* Operations of one thread that are under way together, by the library's queue: gets and updates of a workload made of nothing else. */
#ifndef BENCH_IN_FLIGHT_H
#define BENCH_IN_FLIGHT_H

#include "bench/operations.h"

#define BENCH_IN_FLIGHT_MAX 65536u /* what a queue takes */

typedef struct bench_flight bench_flight;

/* depth: operations under way at most. RW_ENOMEM, and the codes of rw_queue_open. */
int bench_flight_open(bench_lane *lane, unsigned depth, bench_flight **flight);
/* Runs the workload's operations until the lane's budget is used up, the deadline has passed or something failed; and waits for those that are under way then. */
void bench_flight_run(bench_flight *flight);
/* Nothing is under way any more. NULL: none. */
void bench_flight_close(bench_flight *flight);

#endif
