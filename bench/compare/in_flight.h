/* A thread that has many operations under way: it begins new ones as others end, and waits for none in particular. */
#ifndef BENCH_COMPARE_IN_FLIGHT_H
#define BENCH_COMPARE_IN_FLIGHT_H

#include "bench/compare/lane.h"

/* Until the deadline; then waits for those still under way. 0, or the code of the first failure. */
int compare_in_flight_run(compare_lane *lane);

#endif
