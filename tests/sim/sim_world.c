/* Threads, turns and time. */
#include "tests/sim/sim_world.h"

#include <stdlib.h>

#define QUIET_LIMIT 1000000u     /* steps in which threads only yield: taken for a hang */
#define SLOW_THREAD_NS 100000000      /* a thread that can run waits at most about so long for its turn while time passes */
#define PREEMPTED_NS 300000u     /* a thread that loses its turn gets it back when it is drawn, or now and then only after some time */
#define QUIET_ADVANCE_NS 10000u  /* of virtual time for each such step when nothing is due */

/* ---- events ---- */

static bool event_before(const sim_event *a, const sim_event *b)
{
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

void sim_event_add(sim_world *world, sim_event event, uint64_t delay_ns)
{
    event.time = delay_ns > UINT64_MAX - world->now_ns ? UINT64_MAX : world->now_ns + delay_ns;
    event.order = world->event_order++;
    if (world->event_count == world->event_capacity) {
        world->event_capacity = 2 * world->event_capacity + 16;
        world->events = sim_reallocate(world->events, world->event_capacity * sizeof *world->events);
    }
    size_t at = world->event_count++;
    for (; at > 0 && event_before(&event, &world->events[(at - 1) / 2]); at = (at - 1) / 2) {
        world->events[at] = world->events[(at - 1) / 2];
    }
    world->events[at] = event;
}

static sim_event event_pop(sim_world *world)
{
    RW_ASSERT(world->event_count > 0);
    sim_event first = world->events[0], last = world->events[--world->event_count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < world->event_count) {
        if (child + 1 < world->event_count && event_before(&world->events[child + 1], &world->events[child])) child++;
        if (!event_before(&world->events[child], &last)) break;
        world->events[at] = world->events[child];
        at = child;
    }
    world->events[at] = last;
    return first;
}

static bool event_is_stale(const sim_event *event)
{
    return event->io == NULL && event->timer != event->thread->timer;
}

/* The next event that means something, left in its place; NULL: none. */
static const sim_event *event_next(sim_world *world)
{
    while (world->event_count > 0 && event_is_stale(&world->events[0])) (void)event_pop(world);
    return world->event_count > 0 ? &world->events[0] : NULL;
}

static void event_fire(sim_world *world)
{
    sim_event event = event_pop(world);
    world->now_ns = RW_MAX(world->now_ns, event.time);
    world->quiet_steps = 0;
    sim_trace(world, event.time);
    if (event.io != NULL) sim_io_finish(world, event.io);
    else sim_thread_ready(world, event.thread);
}

/* ---- threads ---- */

static void runnable_add(sim_world *world, kio_thread *thread)
{
    if (world->runnable_count == world->runnable_capacity) {
        world->runnable_capacity = 2 * world->runnable_capacity + 8;
        world->runnable = sim_reallocate(world->runnable, world->runnable_capacity * sizeof(kio_thread *));
    }
    thread->state = THREAD_RUNNABLE;
    world->runnable[world->runnable_count++] = thread;
}

static kio_thread *runnable_draw(sim_world *world)
{
    size_t index = (size_t)rw_random_below(&world->random, world->runnable_count);
    if (world->runnable[index]->is_slow) index = (size_t)rw_random_below(&world->random, world->runnable_count);
    kio_thread *thread = world->runnable[index];
    world->runnable[index] = world->runnable[--world->runnable_count];
    return thread;
}

void sim_thread_ready(sim_world *world, kio_thread *thread)
{
    RW_ASSERT(thread->state != THREAD_RUNNABLE && thread->state != THREAD_RUNNING && thread->state != THREAD_DONE);
    thread->timer++;
    thread->word = NULL;
    thread->ring = NULL;
    thread->target = NULL;
    runnable_add(world, thread);
}

void sim_thread_timer(sim_world *world, kio_thread *thread, uint64_t delay_ns)
{
    sim_event_add(world, (sim_event){.thread = thread, .timer = thread->timer}, delay_ns);
}

void sim_thread_block(sim_world *world, thread_state state)
{
    kio_thread *thread = world->running;
    RW_ASSERT(thread != NULL);
    thread->state = state;
    sim_context_leave(thread->context, world->scheduler, 0);
}

void sim_thread_pause(sim_world *world, const char *doing, const char *path, uint64_t delay_ns)
{
    kio_thread *thread = world->running;
    RW_ASSERT(thread != NULL);
    world->quiet_steps = 0;
    thread->doing = doing;
    thread->path = path;
    sim_thread_timer(world, thread, delay_ns);
    sim_thread_block(world, THREAD_IO);
}

static void thread_give_turn(sim_world *world)
{
    kio_thread *thread = world->running;
    runnable_add(world, thread);
    sim_context_leave(thread->context, world->scheduler, 0);
}

void sim_point(sim_world *world)
{
    if (world->running == NULL || (rw_random_next(&world->random) & world->switch_mask) != 0) return;
    if ((rw_random_next(&world->random) & world->pause_mask) != 0) thread_give_turn(world);
    else sim_thread_pause(world, "its turn", "the scheduler", rw_random_below(&world->random, PREEMPTED_NS));
}

static void thread_main(void *arg)
{
    kio_thread *thread = arg;
    thread->run(thread->arg);
    sim_world *world = thread->world;
    RW_ASSERT(world->running == thread);
    thread->state = THREAD_DONE;
    thread->timer++;
    world->quiet_steps = 0;
    if (thread->joiner != NULL) sim_thread_ready(world, thread->joiner);
    sim_context_leave(thread->context, world->scheduler, 1);
}

static kio_thread *thread_new(sim_world *world, const char *name, void (*run)(void *), void *arg)
{
    kio_thread *thread = sim_allocate(sizeof *thread);
    thread->world = world;
    thread->run = run;
    thread->arg = arg;
    snprintf(thread->name, sizeof thread->name, "%s", name);
    thread->number = world->thread_count++;
    thread->is_slow = rw_random_below(&world->random, 4) == 0;
    thread->context = sim_context_new(thread_main, thread);
    thread->next = world->threads;
    world->threads = thread;
    world->quiet_steps = 0;
    runnable_add(world, thread);
    return thread;
}

/* ---- reports ---- */

static void report_thread(const kio_thread *thread)
{
    fprintf(stderr, "#   thread %u %s: ", thread->number, thread->name);
    switch (thread->state) {
    case THREAD_RUNNABLE: fprintf(stderr, "can run"); break;
    case THREAD_RUNNING: fprintf(stderr, "runs"); break;
    case THREAD_SLEEPING:
        fprintf(stderr, "sleeps on %p while it is %u, it is %u", (const void *)thread->word, thread->expected, atomic_load(thread->word));
        break;
    case THREAD_IO: fprintf(stderr, "waits for %s of %s", thread->doing, thread->path); break;
    case THREAD_REAPING:
        fprintf(stderr, "waits in reap, ring %p, %u in flight", (const void *)thread->ring, thread->ring->in_flight);
        break;
    case THREAD_JOINING: fprintf(stderr, "waits for the end of %s", thread->target->name); break;
    case THREAD_DONE: fprintf(stderr, "has ended, %sjoined", thread->joined ? "" : "not "); break;
    }
    fprintf(stderr, "\n");
}

_Noreturn void sim_report(sim_world *world, const char *what)
{
    fprintf(stderr, "# sim: %s (step %llu, virtual time %llu ns)\n", what, (unsigned long long)world->steps,
            (unsigned long long)world->now_ns);
    for (const kio_thread *thread = world->threads; thread != NULL; thread = thread->next) report_thread(thread);
    fflush(NULL);
    abort();
}

/* ---- the scheduler ---- */

/* Lets time pass, when threads cannot run, or only turn in circles, or a draw says so. */
static void world_advance(sim_world *world)
{
    const sim_event *next = event_next(world);
    if (world->runnable_count == 0) {
        if (next == NULL) sim_report(world, "deadlock: no thread can run, and nothing is due");
        event_fire(world);
        return;
    }
    bool quiet = world->quiet_steps > 4 * world->runnable_count + 4;
    bool near = next != NULL && next->time <= world->now_ns + SLOW_THREAD_NS;
    if (near && (quiet || (rw_random_next(&world->random) & world->advance_mask) == 0)) {
        event_fire(world);
    } else if (quiet) {
        world->now_ns += QUIET_ADVANCE_NS;
        if (world->quiet_steps > QUIET_LIMIT) sim_report(world, "hang: threads only yield, and nothing is due");
    }
}

static void world_step(sim_world *world)
{
    world->steps++;
    world->quiet_steps++;
    if (world->step_limit != 0 && world->steps > world->step_limit) sim_report(world, "hang: the step limit is reached");
    if (world->hook != NULL) world->hook(world->hook_arg);
    for (const sim_event *next; (next = event_next(world)) != NULL && next->time <= world->now_ns;) event_fire(world);
    world_advance(world);
    if (world->runnable_count == 0) return;
    kio_thread *thread = runnable_draw(world);
    sim_trace(world, thread->number);
    thread->state = THREAD_RUNNING;
    world->running = thread;
    sim_context_enter(world->scheduler, thread->context);
    world->running = NULL;
    if (thread->state == THREAD_DONE) {
        sim_context_free(thread->context);
        thread->context = NULL;
    }
}

void sim_run(sim_world *world, void (*fn)(void *), void *arg)
{
    RW_ASSERT(world->running == NULL && world->scheduler == NULL);
    world->scheduler = sim_context_for_scheduler();
    kio_thread *first = thread_new(world, "main", fn, arg);
    while (first->state != THREAD_DONE) world_step(world);
    first->joined = true;
    for (const kio_thread *thread = world->threads; thread != NULL; thread = thread->next) {
        if (!thread->joined) sim_report(world, "the first thread has ended and left others");
    }
    sim_context_free(world->scheduler);
    world->scheduler = NULL;
}

sim_world *sim_world_open(sim_disk *disk, uint64_t seed)
{
    static const uint64_t switch_masks[] = {1, 7, 31, 127}, pause_masks[] = {3, 15, 63, 255}, advance_masks[] = {3, 15, 63, 255}, scales[] = {1, 4, 16},
                          durable_ns[] = {20000, 70000, 150000};
    RW_ASSERT(disk->worlds == 0);
    sim_world *world = sim_allocate(sizeof *world);
    world->base.ops = &sim_vtable;
    world->disk = disk;
    world->now_ns = 1000000000;
    disk->worlds++;
    rw_random_seed(&world->random, seed);
    world->switch_mask = switch_masks[rw_random_below(&world->random, RW_ARRAY_SIZE(switch_masks))];
    world->pause_mask = pause_masks[rw_random_below(&world->random, RW_ARRAY_SIZE(pause_masks))];
    world->advance_mask = advance_masks[rw_random_below(&world->random, RW_ARRAY_SIZE(advance_masks))];
    world->latency_scale = scales[rw_random_below(&world->random, RW_ARRAY_SIZE(scales))];
    world->durable_write_ns = durable_ns[rw_random_below(&world->random, RW_ARRAY_SIZE(durable_ns))];
    return world;
}

void sim_world_close(sim_world *world)
{
    for (const sim_file *file = world->files; file != NULL; file = file->next) {
        fprintf(stderr, "# sim: left open: %s\n", file->base.path);
    }
    if (world->files != NULL || world->rings != NULL || world->locks != NULL || world->descriptors != NULL)
        sim_report(world, "files, rings, locks or descriptors are left open");
    RW_ASSERT(event_next(world) == NULL);
    while (world->threads != NULL) {
        kio_thread *thread = world->threads;
        RW_ASSERT(thread->state == THREAD_DONE);
        world->threads = thread->next;
        free(thread);
    }
    world->disk->worlds--;
    free(world->runnable);
    free(world->events);
    free(world->faults);
    free(world);
}

kio *sim_world_kio(sim_world *world) { return &world->base; }
sim_disk *sim_world_disk(sim_world *world) { return world->disk; }
uint64_t sim_world_trace_hash(const sim_world *world) { return world->hash; }
uint64_t sim_world_steps(const sim_world *world) { return world->steps; }
uint64_t sim_world_now_ns(const sim_world *world) { return world->now_ns; }

void sim_step_hook(sim_world *world, void (*fn)(void *), void *arg)
{
    world->hook = fn;
    world->hook_arg = arg;
}

void sim_step_limit(sim_world *world, uint64_t steps)
{
    world->step_limit = steps;
}

/* ---- the seam: time, chance, threads ---- */

static void world_close_nothing(kio *k)
{
    (void)k;   /* the world is the test's: it lives on when the engine lets go of its back end */
}

static uint64_t world_now_ns(kio *k)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    world->now_ns += 20;   /* a loop that waits for a time by asking for it gets there */
    return world->now_ns;
}

static int world_random(kio *k, void *buffer, size_t length)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    unsigned char *to = buffer;
    for (size_t i = 0; i < length; i++) to[i] = (unsigned char)rw_random_next(&world->random);
    return 0;
}

static int world_thread_start(kio *k, const char *name, int cpu, void (*run)(void *), void *arg, kio_thread **out)
{
    (void)cpu;
    sim_world *world = sim_world_of(k);
    *out = thread_new(world, name, run, arg);
    sim_point(world);
    return 0;
}

static void world_thread_join(kio *k, kio_thread *thread)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    RW_ASSERT(!thread->joined && thread != world->running && thread->joiner == NULL);
    if (thread->state != THREAD_DONE) {
        thread->joiner = world->running;
        world->running->target = thread;
        sim_thread_block(world, THREAD_JOINING);
    }
    thread->joined = true;
}

static void world_sleep(kio *k, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    if (atomic_load(word) != expected) return;
    if (timeout_ns == 0 || rw_random_below(&world->random, 64) == 0) {   /* without a reason: allowed */
        thread_give_turn(world);
        return;
    }
    kio_thread *thread = world->running;
    RW_ASSERT(thread != NULL);
    thread->word = word;
    thread->expected = expected;
    if (timeout_ns > 0) sim_thread_timer(world, thread, (uint64_t)timeout_ns);
    sim_thread_block(world, THREAD_SLEEPING);
}

static kio_thread *sleeper_draw(sim_world *world, const _Atomic uint32_t *word)
{
    kio_thread *chosen = NULL;
    uint64_t seen = 0;
    for (kio_thread *thread = world->threads; thread != NULL; thread = thread->next) {
        if (thread->state != THREAD_SLEEPING || thread->word != word) continue;
        if (++seen == 1 || rw_random_below(&world->random, seen) == 0) chosen = thread;
    }
    return chosen;
}

static void world_wake(kio *k, const _Atomic uint32_t *word, unsigned count)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    for (kio_thread *thread; count > 0 && (thread = sleeper_draw(world, word)) != NULL; count--) {
        world->quiet_steps = 0;
        sim_thread_ready(world, thread);
    }
    sim_point(world);
}

static void world_yield(kio *k)
{
    RW_ASSERT(sim_world_of(k)->running != NULL);
    thread_give_turn(sim_world_of(k));
}

const kio_vtable sim_vtable = {
    .name = "sim",
    .close = world_close_nothing,
    .file_open = sim_file_open,
    .file_close = sim_file_close,
    .file_size = sim_file_size,
    .file_resize = sim_file_resize,
    .file_allocate = sim_file_allocate,
    .file_read = sim_file_read,
    .read_all = kio_read_each,
    .file_write = sim_file_write,
    .file_sync = sim_file_sync,
    .file_is_direct = sim_file_is_direct,
    .file_device = sim_file_device,
    .file_write_durable = sim_file_write_durable,
    .directory_create = sim_directory_create,
    .directory_sync = sim_directory_sync,
    .unlink = sim_unlink,
    .lock = sim_lock_take,
    .unlock = sim_lock_release,
    .now_ns = world_now_ns,
    .random = world_random,
    .thread_start = world_thread_start,
    .thread_join = world_thread_join,
    .sleep = world_sleep,
    .wake = world_wake,
    .yield = world_yield,
    .ring_open = sim_ring_open,
    .ring_close = sim_ring_close,
    .ring_submit = sim_ring_submit,
    .ring_reap = sim_ring_reap,
    .ring_wake = sim_ring_wake,
    .event_open = sim_descriptor_open,
    .event_close = sim_descriptor_close,
    .event_raise = sim_descriptor_raise,
    .event_clear = sim_descriptor_clear,
};
