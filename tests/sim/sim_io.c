/* Reads, writes and syncs on their way, and what can go wrong with them. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

/* ---- faults ---- */

unsigned sim_fault_add(sim_world *world, sim_fault fault)
{
    RW_ASSERT(fault.countdown > 0 && fault.operations != 0);
    RW_ASSERT(fault.kind != SIM_FAULT_ERROR || fault.errno_value > 0);
    world->faults = sim_reallocate(world->faults, (world->fault_count + 1) * sizeof *world->faults);
    world->faults[world->fault_count] = (sim_fault_state){.fault = fault, .active = true};
    return world->fault_count++;
}

uint64_t sim_fault_fired(const sim_world *world, unsigned number)
{
    RW_ASSERT(number < world->fault_count);
    return world->faults[number].fired;
}

void sim_fault_clear(sim_world *world)
{
    for (unsigned i = 0; i < world->fault_count; i++) world->faults[i].active = false;
}

bool sim_fault_strike(sim_world *world, unsigned operation, const char *path, sim_fault *out)
{
    bool struck = false;
    for (unsigned i = 0; i < world->fault_count; i++) {
        sim_fault_state *state = &world->faults[i];
        if (!state->active || (state->fault.operations & operation) == 0) continue;
        if (state->fault.path_part != NULL && strstr(path, state->fault.path_part) == NULL) continue;
        if (state->fault.countdown > 1) {
            state->fault.countdown--;
        } else if (!struck) {
            struck = true;
            state->fired++;
            state->active = state->fault.forever;
            *out = state->fault;
        }
    }
    return struck;
}

/* ---- time ---- */

uint64_t sim_latency_ns(sim_world *world, unsigned operation, uint64_t bytes)
{
    uint64_t base = operation == SIM_ON_READ ? 20000 : operation == SIM_ON_WRITE ? 10000 : operation == SIM_ON_SYNC ? 60000 : 2000;
    if (operation == (SIM_ON_WRITE | SIM_ON_SYNC)) base = world->durable_write_ns;
    uint64_t spread = rw_random_below(&world->random, 32) == 0 ? 64 * base : 4 * base;
    return (base + rw_random_below(&world->random, spread)) * world->latency_scale + bytes;
}

/* ---- operations ---- */

static unsigned io_operation(kio_kind kind)
{
    switch (kind) {
    case KIO_READ: return SIM_ON_READ;
    case KIO_WRITE: return SIM_ON_WRITE;
    case KIO_WRITE_DURABLE: return SIM_ON_WRITE | SIM_ON_SYNC;
    default: return SIM_ON_SYNC;
    }
}

static void io_fail(sim_io *io, int errno_value)
{
    io->result = rw_error_from_errno(errno_value);
    io->errno_value = errno_value;
}

void sim_io_start(sim_world *world, sim_io *io)
{
    sim_file *file = io->file;
    sim_node *node = file->node;
    unsigned operation = io_operation(io->kind);
    RW_ASSERT(io->kind == KIO_SYNC || (io->length > 0 && io->buffer != NULL));
    bool writes = io->kind == KIO_WRITE || io->kind == KIO_WRITE_DURABLE;
    RW_ASSERT(!writes || !file->read_only);
    if (file->base.direct && io->kind != KIO_SYNC) {
        RW_ASSERT(io->offset % RW_BLOCK_SIZE == 0 && io->length % RW_BLOCK_SIZE == 0);
        RW_ASSERT((uintptr_t)io->buffer % RW_BLOCK_SIZE == 0);
    }
    io->faulty = sim_fault_strike(world, operation, file->base.path, &io->fault);
    if (writes) {
        if (!sim_node_allocate(world->disk, node, io->offset, io->length)) io_fail(io, ENOSPC);
        io->change = sim_node_write_begin(node, io->offset, io->buffer, io->length);
        sim_trace(world, rw_checksum(0, io->buffer, io->length));
    } else if (io->kind == KIO_READ) {
        memset(io->buffer, 0xA5, io->length);   /* nobody may look before the read is reaped */
    } else {
        io->up_to = world->disk->sequence;
    }
    sim_trace(world, (uint64_t)io->kind << 56 ^ node->number << 48 ^ io->offset);
    sim_trace(world, io->length);
    file->in_flight++;
    sim_node_hold(node);
    world->quiet_steps = 0;
    uint64_t delay_ns = sim_latency_ns(world, operation, io->length);
    if (io->faulty && io->fault.kind == SIM_FAULT_DELAY) delay_ns += io->fault.delay_ns;
    sim_event_add(world, (sim_event){.io = io}, delay_ns);
}

static void rot(sim_world *world, sim_node *node, uint64_t offset, size_t length)
{
    uint64_t at = offset + rw_random_below(&world->random, length);
    unsigned bit = (unsigned)rw_random_below(&world->random, 8);
    sim_image_flip(&node->current, at, bit);
    sim_image_flip(&node->durable, at, bit);
}

/* Another place in the same file, a whole number of blocks away where there is one. */
static uint64_t another_place(sim_world *world, const sim_io *io)
{
    uint64_t size = io->file->node->current.size;
    uint64_t places = size > io->length ? (size - io->length) / RW_BLOCK_SIZE + 1 : 1;
    return rw_random_below(&world->random, places) * RW_BLOCK_SIZE;
}

static void finish_read(sim_world *world, sim_io *io)
{
    sim_node *node = io->file->node;
    uint64_t offset = io->offset;
    if (io->faulty && io->fault.kind == SIM_FAULT_MISDIRECT) offset = another_place(world, io);
    if (io->result != 0) return;
    if (offset > node->current.size || io->length > node->current.size - offset) {
        io->result = RW_EIO;   /* past the end of the file */
        return;
    }
    if (io->faulty && io->fault.kind == SIM_FAULT_ROT) rot(world, node, offset, io->length);
    sim_image_read(&node->current, offset, io->buffer, io->length);
}

static void finish_write(sim_world *world, sim_io *io)
{
    sim_node *node = io->file->node;
    /* A buffer is the back end's until the operation is reaped. */
    RW_ASSERT(memcmp(io->buffer, io->change->bytes, io->length) == 0);
    sim_fate fate = io->kind == KIO_WRITE_DURABLE ? SIM_FATE_DURABLE : SIM_FATE_OPEN;
    bool lost = io->faulty && io->fault.kind == SIM_FAULT_LOSE;
    if (lost || io->errno_value == ENOSPC) {
        sim_node_write_drop(node, io->change);
        return;
    }
    size_t length = io->length;
    if (io->result != 0) length = (size_t)rw_random_below(&world->random, length / SIM_SECTOR_BYTES + 1) * SIM_SECTOR_BYTES;
    /* A failed one may have failed in its sync: then what it wrote can be read, and be lost for good. */
    if (io->result != 0 && fate == SIM_FATE_DURABLE) fate = (sim_fate)rw_random_below(&world->random, 3);
    if (io->faulty && io->fault.kind == SIM_FAULT_MISDIRECT) {
        sim_change *strayed = sim_node_write_begin(node, another_place(world, io), io->buffer, io->length);
        sim_node_write_drop(node, io->change);
        io->change = strayed;
    }
    sim_node_write_complete(world->disk, node, io->change, length, fate);
    if (io->faulty && io->fault.kind == SIM_FAULT_ROT && length > 0) rot(world, node, io->offset, length);
}

static void finish_sync(sim_world *world, sim_io *io)
{
    if (io->result == 0) sim_node_sync(io->file->node, io->up_to);
    else sim_node_sync_fail(io->file->node, io->up_to, &world->random);
}

void sim_io_finish(sim_world *world, sim_io *io)
{
    if (io->result == 0 && io->faulty && io->fault.kind == SIM_FAULT_ERROR) io_fail(io, io->fault.errno_value);
    switch (io->kind) {
    case KIO_READ: finish_read(world, io); break;
    case KIO_WRITE:
    case KIO_WRITE_DURABLE: finish_write(world, io); break;
    case KIO_SYNC: finish_sync(world, io); break;
    }
    sim_trace(world, (uint64_t)(uint32_t)io->result);
    io->file->in_flight--;
    sim_node_release(world->disk, io->file->node);
    if (io->thread != NULL) {
        sim_thread_ready(world, io->thread);
        return;   /* it reads the result */
    }
    io->op->result = io->result;
    io->op->errno_value = io->errno_value;
    sim_ring_finished(world, io->ring, io->op);
    free(io);
}
