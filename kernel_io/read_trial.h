/*
 * Which of two ways to make reads is the faster one here, found out while they are made: by turns, for some thousand reads at a time, and seldom the one that has lost. On one machine a word to the
 * device costs more than everything else of a read, on another next to nothing (README.md), and no number tells beforehand.
 */
#ifndef RW_KERNEL_IO_READ_TRIAL_H
#define RW_KERNEL_IO_READ_TRIAL_H

#include <stdatomic.h>
#include <stdint.h>

typedef enum { READ_ALONE, READ_COLLECTED, READ_WAYS } read_way;

typedef struct {
    /* any thread, atomic */
    _Atomic uint32_t way;          /* to be taken now */
    _Atomic uint32_t looking;      /* somebody is in read_trial_look */
    /* who looks */
    read_way best;
    uint64_t began_ns, began_reads; /* this turn */
    uint64_t rates[READ_WAYS];     /* reads a second, smoothed; 0: not known yet */
    uint32_t turns_left;           /* of the best way, before the other one gets one */
    uint32_t period;               /* turns */
} read_trial;

void read_trial_init(read_trial *t);
/* To be called now and then, by anyone; reads: how many have been made since the beginning where the way made a difference. */
void read_trial_look(read_trial *t, uint64_t now_ns, uint64_t reads);

static inline read_way read_trial_way(read_trial *t)
{
    return (read_way)atomic_load_explicit(&t->way, memory_order_relaxed);
}

#endif
