/* What a thread of a workload does to an engine: every operation timed, every answer verified, the same way for all engines. */
#ifndef BENCH_COMPARE_OPERATIONS_H
#define BENCH_COMPARE_OPERATIONS_H

#include "bench/compare/lane.h"

/* Runs until the deadline, or until every record of the lane's share is done. */
void compare_lane_run(compare_lane *lane);

#endif
