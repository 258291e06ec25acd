/* The inside of the world, for the parts of the simulator only. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_fiber.h"

/*
 * A thread of the world. RUNNABLE -> RUNNING (world_step) -> one of the others (sim_thread_block), or RUNNABLE (sim_point), or DONE
 * (thread_main) -> RUNNABLE (sim_thread_ready).
 */
typedef enum { THREAD_RUNNABLE, THREAD_RUNNING, THREAD_SLEEPING, THREAD_IO, THREAD_REAPING, THREAD_JOINING, THREAD_DONE } thread_state;

struct kio_thread {
    struct kio_thread *next;             /* all of the world, newest first */
    sim_world *world;
    sim_context *context;
    void (*run)(void *);
    void *arg;
    char name[32];
    uint32_t number;
    thread_state state;
    bool is_slow;                        /* chosen less often */
    bool joined;
    uint64_t timer;                      /* a timer event with another number is stale */
    const _Atomic uint32_t *word;        /* SLEEPING */
    uint32_t expected;
    const char *doing;                   /* IO: what, and on which path */
    const char *path;
    struct kio_thread *target;           /* JOINING */
    kio_ring *ring;                      /* REAPING */
    struct kio_thread *joiner;
};

typedef struct sim_file {
    kio_file base;                       /* must be first */
    struct sim_file *next, *previous;    /* open in the world */
    sim_node *node;
    bool read_only;
    unsigned in_flight;
} sim_file;

/* One read, write or sync on its way. */
typedef struct sim_io {
    kio_kind kind;
    sim_file *file;
    void *buffer;
    uint64_t offset;
    size_t length;
    sim_change *change;                  /* KIO_WRITE, KIO_WRITE_DURABLE */
    uint64_t up_to;                      /* KIO_SYNC: covers changes up to this sequence number */
    bool faulty;
    sim_fault fault;
    int result, errno_value;
    kio_thread *thread;                  /* who waits; or */
    kio_ring *ring;                      /* whose it is */
    kio_op *op;
} sim_io;

struct kio_ring {
    kio_ring *next, *previous;           /* open in the world */
    sim_world *world;
    kio_thread *owner;
    unsigned depth, in_flight;
    kio_op *queued, **queued_end;        /* past the depth */
    kio_op *finished, **finished_end;
    bool woken;                          /* by kio_ring_wake, not yet noticed */
    bool closing;
};

struct kio_lock {
    struct kio_lock *next;
    char *path;
    bool shared;
};

typedef struct sim_descriptor sim_descriptor;

typedef struct {
    uint64_t time, order;
    sim_io *io;                          /* or */
    kio_thread *thread;
    uint64_t timer;
} sim_event;

typedef struct {
    sim_fault fault;
    uint64_t fired;
    bool active;
} sim_fault_state;

struct sim_world {
    kio base;                            /* must be first */
    sim_disk *disk;
    rw_random random;
    uint64_t hash;
    uint64_t now_ns;
    uint64_t steps, step_limit;
    void (*hook)(void *);
    void *hook_arg;
    /* threads */
    sim_context *scheduler;
    kio_thread *running;
    kio_thread *threads;
    uint32_t thread_count;
    kio_thread **runnable;
    size_t runnable_count, runnable_capacity;
    uint64_t quiet_steps;                /* since anything happened that could end a wait */
    uint64_t switch_mask;                /* a seam call switches threads when a draw has none of these bits */
    uint64_t pause_mask;                 /* the same for a switch after which the thread gets its turn back only after some time */
    uint64_t advance_mask;               /* the same for an event that comes while threads can still run */
    uint64_t latency_scale;
    uint64_t durable_write_ns;           /* beside 10 us for a write and 60 us for a sync: devices differ in what is faster */
    /* events: a heap by (time, order) */
    sim_event *events;
    size_t event_count, event_capacity;
    uint64_t event_order;
    /* what is open */
    sim_file *files;
    kio_ring *rings;
    struct kio_lock *locks;
    sim_descriptor *descriptors;
    int descriptor_next;
    /* faults */
    sim_fault_state *faults;
    unsigned fault_count;
};

extern const kio_vtable sim_vtable;

static inline sim_world *sim_world_of(kio *k)
{
    return RW_CONTAINER_OF(k, sim_world, base);
}

static inline void sim_trace(sim_world *world, uint64_t value)
{
    world->hash = (world->hash ^ value) * 0x9E3779B97F4A7C15u;
    world->hash ^= world->hash >> 29;
}

/* threads (sim_world.c) */
void sim_point(sim_world *world);        /* here another thread may get its turn */
void sim_thread_block(sim_world *world, thread_state state);   /* until sim_thread_ready */
void sim_thread_ready(sim_world *world, kio_thread *thread);
void sim_thread_timer(sim_world *world, kio_thread *thread, uint64_t delay_ns);   /* makes it ready then, if it still waits */
void sim_thread_pause(sim_world *world, const char *doing, const char *path, uint64_t delay_ns);
void sim_event_add(sim_world *world, sim_event event, uint64_t delay_ns);
_Noreturn void sim_report(sim_world *world, const char *what);

/* I/O (sim_io.c) */
void sim_io_start(sim_world *world, sim_io *io);
void sim_io_finish(sim_world *world, sim_io *io);
uint64_t sim_latency_ns(sim_world *world, unsigned operation, uint64_t bytes);
/* True when a fault strikes this operation; *out is it. Counts down. */
bool sim_fault_strike(sim_world *world, unsigned operation, const char *path, sim_fault *out);

/* rings (sim_ring.c) */
int sim_ring_open(kio *k, unsigned depth, kio_ring **out);
void sim_ring_close(kio *k, kio_ring *ring);
void sim_ring_submit(kio *k, kio_ring *ring, kio_op **ops, unsigned count);
unsigned sim_ring_reap(kio *k, kio_ring *ring, kio_op **done, unsigned max, int64_t wait_ns);
void sim_ring_wake(kio *k, kio_ring *ring);
void sim_ring_finished(sim_world *world, kio_ring *ring, kio_op *op);

/* descriptors (sim_descriptor.c) */
int sim_descriptor_open(kio *k, int *out);
void sim_descriptor_close(kio *k, int number);
void sim_descriptor_raise(kio *k, int number);
void sim_descriptor_clear(kio *k, int number);

/* files (sim_file.c) */
int sim_file_open(kio *k, const char *path, unsigned flags, kio_file **out);
void sim_file_close(kio *k, kio_file *file);
int sim_file_size(kio *k, kio_file *file, uint64_t *bytes);
int sim_file_resize(kio *k, kio_file *file, uint64_t bytes);
int sim_file_allocate(kio *k, kio_file *file, uint64_t offset, uint64_t bytes);
int sim_file_read(kio *k, kio_file *file, void *buffer, size_t length, uint64_t offset);
int sim_file_write(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset);
int sim_file_write_durable(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset);
int sim_file_sync(kio *k, kio_file *file);
bool sim_file_is_direct(kio *k, kio_file *file);
uint64_t sim_file_device(kio *k, kio_file *file);
int sim_directory_create(kio *k, const char *path);
int sim_directory_sync(kio *k, const char *path);
int sim_unlink(kio *k, const char *path);
int sim_lock_take(kio *k, const char *path, unsigned flags, kio_lock **out);
void sim_lock_release(kio *k, kio_lock *lock);

#endif
