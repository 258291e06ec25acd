/* Stacks and the switching between them. Knows nothing of worlds. */
#ifndef TESTS_SIM_FIBER_H
#define TESTS_SIM_FIBER_H

#include <stddef.h>

typedef struct sim_context sim_context;

/* The stack that calls this, which is the one that sim_context_enter comes back to. */
sim_context *sim_context_for_scheduler(void);
void sim_context_free(sim_context *context);

/* A stack of its own on which run(arg) is called at the first entry. run must end with sim_context_leave(.., true), never return. */
sim_context *sim_context_new(void (*run)(void *), void *arg);

/* From the scheduler into the fiber; returns when that leaves. */
void sim_context_enter(sim_context *scheduler, sim_context *fiber);
/* From the fiber to the scheduler; returns at the next entry. is_last: there will be none. */
void sim_context_leave(sim_context *fiber, sim_context *scheduler, int is_last);

#endif
