/* Descriptors that a program waits for: numbers, each readable or not. */
#include <stdlib.h>

#include "tests/sim/sim_world.h"

struct sim_descriptor {
    sim_descriptor *next;                /* open in the world */
    int number;
    bool readable;
    _Atomic uint32_t word;               /* raised when it becomes readable; futex */
};

static sim_descriptor *descriptor_of(sim_world *world, int number)
{
    sim_descriptor *d = world->descriptors;
    while (d != NULL && d->number != number) d = d->next;
    RW_ASSERT(d != NULL); /* it was closed, or never opened */
    return d;
}

int sim_descriptor_open(kio *k, int *out)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    sim_descriptor *d = sim_allocate(sizeof *d);
    d->number = world->descriptor_next++;
    d->next = world->descriptors;
    world->descriptors = d;
    *out = d->number;
    return 0;
}

void sim_descriptor_close(kio *k, int number)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    sim_descriptor *d = descriptor_of(world, number), **link = &world->descriptors;
    while (*link != d) link = &(*link)->next;
    *link = d->next;
    free(d);
}

void sim_descriptor_raise(kio *k, int number)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    sim_descriptor *d = descriptor_of(world, number);
    d->readable = true;
    atomic_fetch_add(&d->word, 1);
    kio_wake(k, &d->word, UINT32_MAX);
}

void sim_descriptor_clear(kio *k, int number)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    descriptor_of(world, number)->readable = false;
    sim_point(world);
}

bool sim_descriptor_wait(kio *k, int number, int64_t timeout_ns)
{
    sim_world *world = sim_world_of(k);
    uint64_t deadline = timeout_ns < 0 ? UINT64_MAX : world->now_ns + (uint64_t)timeout_ns;
    sim_point(world);
    sim_descriptor *d = descriptor_of(world, number);
    while (!d->readable && world->now_ns < deadline) {
        uint32_t word = atomic_load(&d->word);
        kio_sleep(k, &d->word, word, timeout_ns < 0 ? -1 : (int64_t)(deadline - world->now_ns));
    }
    return d->readable;
}
