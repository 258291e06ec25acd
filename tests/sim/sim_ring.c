/* Rings: operations of one thread, finished in drawn order. */
#include <stdlib.h>

#include "tests/sim/sim_world.h"

int sim_ring_open(kio *k, unsigned depth, kio_ring **out)
{
    sim_world *world = sim_world_of(k);
    RW_ASSERT(depth > 0 && world->running != NULL);
    sim_point(world);
    kio_ring *ring = sim_allocate(sizeof *ring);
    ring->world = world;
    ring->owner = world->running;
    ring->depth = depth;
    ring->queued_end = &ring->queued;
    ring->finished_end = &ring->finished;
    ring->next = world->rings;
    if (ring->next != NULL) ring->next->previous = ring;
    world->rings = ring;
    *out = ring;
    return 0;
}

void sim_ring_close(kio *k, kio_ring *ring)
{
    sim_world *world = sim_world_of(k);
    RW_ASSERT(ring->owner == world->running);
    sim_point(world);
    ring->closing = true;
    while (ring->in_flight > 0) {
        world->running->ring = ring;
        sim_thread_block(world, THREAD_REAPING);
    }
    if (ring->next != NULL) ring->next->previous = ring->previous;
    if (ring->previous != NULL) ring->previous->next = ring->next;
    else world->rings = ring->next;
    free(ring);
}

static void ring_start(sim_world *world, kio_ring *ring, kio_op *op)
{
    sim_io *io = sim_allocate(sizeof *io);
    io->kind = op->kind;
    io->file = RW_CONTAINER_OF(op->file, sim_file, base);
    io->buffer = op->buffer;
    io->offset = op->offset;
    io->length = op->kind == KIO_SYNC ? 0 : op->length;
    io->ring = ring;
    io->op = op;
    ring->in_flight++;
    sim_io_start(world, io);
}

void sim_ring_submit(kio *k, kio_ring *ring, kio_op **ops, unsigned count)
{
    sim_world *world = sim_world_of(k);
    RW_ASSERT(ring->owner == world->running && !ring->closing);
    for (unsigned i = 0; i < count; i++) {
        ops[i]->done = 0;
        ops[i]->next = NULL;
        if (ring->in_flight < ring->depth) {
            ring_start(world, ring, ops[i]);
        } else {
            *ring->queued_end = ops[i];
            ring->queued_end = &ops[i]->next;
        }
    }
    sim_point(world);
}

static void ring_rouse(sim_world *world, kio_ring *ring)
{
    kio_thread *owner = ring->owner;
    if (owner->state == THREAD_REAPING && owner->ring == ring) sim_thread_ready(world, owner);
}

void sim_ring_finished(sim_world *world, kio_ring *ring, kio_op *op)
{
    op->done = op->result == 0 && op->kind != KIO_SYNC ? op->length : 0;
    op->next = NULL;
    *ring->finished_end = op;
    ring->finished_end = &op->next;
    ring->in_flight--;
    kio_op *queued = ring->queued;
    if (queued != NULL) {
        ring->queued = queued->next;
        if (ring->queued == NULL) ring->queued_end = &ring->queued;
        ring_start(world, ring, queued);
    }
    ring_rouse(world, ring);
}

static unsigned ring_collect(kio_ring *ring, kio_op **done, unsigned max)
{
    unsigned count = 0;
    while (count < max && ring->finished != NULL) {
        kio_op *op = ring->finished;
        ring->finished = op->next;
        op->next = NULL;
        done[count++] = op;
    }
    if (ring->finished == NULL) ring->finished_end = &ring->finished;
    return count;
}

unsigned sim_ring_reap(kio *k, kio_ring *ring, kio_op **done, unsigned max, int64_t wait_ns)
{
    sim_world *world = sim_world_of(k);
    RW_ASSERT(ring->owner == world->running && max > 0 && !ring->closing);
    sim_point(world);
    /* Fewer than there are, now and then: the caller must come again. */
    if (max > 1 && rw_random_below(&world->random, 8) == 0) max = 1;
    if (ring->finished == NULL && wait_ns != 0 && !ring->woken) {
        world->running->ring = ring;
        if (wait_ns > 0) sim_thread_timer(world, world->running, (uint64_t)wait_ns);
        sim_thread_block(world, THREAD_REAPING);
    }
    if (ring->finished == NULL && wait_ns != 0) ring->woken = false;
    return ring_collect(ring, done, max);
}

void sim_ring_wake(kio *k, kio_ring *ring)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    if (!ring->woken) world->quiet_steps = 0;
    ring->woken = true;
    ring_rouse(world, ring);
    sim_point(world);
}
