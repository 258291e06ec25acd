/*
 * Places where a thread may lose its turn in the simulator. What lies between two calls of the seam runs there as one step; these cut the long steps at
 * places where threads of a real machine meet too. Nothing in builds without planted bugs. Needs kernel_io/kernel_io.h; never while a frame's version is odd.
 */
#ifndef RW_PREEMPT_H
#define RW_PREEMPT_H

#ifdef RW_PLANTED_BUGS
#define RW_PREEMPT(k) ((void)kio_now_ns(k))
#else
#define RW_PREEMPT(k) ((void)0)
#endif

#endif
