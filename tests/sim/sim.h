/*
 * The simulator: a back end of kernel_io whose threads, disk and clock live in one OS thread and are driven by one seed. The same seed and
 * the same program give the same trace, so every failure can be played again.
 *
 * A sim_disk is what survives; a sim_world is a machine that runs over it. A world may be opened over a crashed copy of another
 * world's disk while that one stands still inside its step hook.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "base/random.h"
#include "kernel_io/kernel_io.h"

typedef struct sim_disk sim_disk;
typedef struct sim_world sim_world;

#define SIM_SECTOR_BYTES 512u

/* ---- the disk ---- */

sim_disk *sim_disk_create(void);
/* No world may be open over it. */
void sim_disk_destroy(sim_disk *disk);

/* What a power cut leaves of the changes that no sync covered, those in flight included. */
#define SIM_CRASH_MAP(X)                                                                \
    X(SIM_CRASH_DROP_ALL, "every unsynced change dropped")                              \
    X(SIM_CRASH_KEEP_ALL, "every unsynced change kept")                                 \
    X(SIM_CRASH_PREFIX, "changes kept up to a moment, over all files")                  \
    X(SIM_CRASH_CHANGES, "whole changes kept or dropped")                               \
    X(SIM_CRASH_FILES, "all changes of some files kept, of the others dropped")         \
    X(SIM_CRASH_SECTORS, "each sector kept or dropped")                                 \
    X(SIM_CRASH_MOST, "nearly every sector kept")                                       \
    X(SIM_CRASH_GARBLE, "each sector kept, dropped or garbled")

typedef enum {
#define SIM_CRASH_ENUM(name, text) name,
    SIM_CRASH_MAP(SIM_CRASH_ENUM)
#undef SIM_CRASH_ENUM
    SIM_CRASH_STYLES
} sim_crash_style;

/* A new disk, as it might be after a power cut at this moment; the old one is left as it is. The caller's to destroy. */
sim_disk *sim_disk_crash(const sim_disk *disk, rw_random *random);
sim_disk *sim_disk_crash_styled(const sim_disk *disk, sim_crash_style style, rw_random *random);
/* A new disk, as a process kill leaves it: completed changes are there, writes in flight wholly, in part or not. */
sim_disk *sim_disk_kill(const sim_disk *disk, rw_random *random);
/* How the disk came to be, in words. */
const char *sim_disk_origin(const sim_disk *disk);

/* Room for file contents in bytes (blocks of 4 KiB); no limit at first. May be raised and lowered at any time. */
void sim_disk_limit(sim_disk *disk, uint64_t bytes);
uint64_t sim_disk_used(const sim_disk *disk);
/* What kio_file_device says of its files: 1 at first. */
void sim_disk_device(sim_disk *disk, uint64_t device);

/* Direct access for tests, past the running world: writes are durable at once. False: no such file or range. */
bool sim_disk_read(const sim_disk *disk, const char *path, uint64_t offset, void *buffer, size_t length);
void sim_disk_write(sim_disk *disk, const char *path, uint64_t offset, const void *buffer, size_t length);   /* makes the file */
bool sim_disk_truncate(sim_disk *disk, const char *path, uint64_t size);
bool sim_disk_flip(sim_disk *disk, const char *path, uint64_t offset, unsigned bit);
bool sim_disk_size(const sim_disk *disk, const char *path, uint64_t *size);
bool sim_disk_remove(sim_disk *disk, const char *path);
/* The index-th file's path, NULL past the last. */
const char *sim_disk_path(const sim_disk *disk, size_t index);

/* ---- the world ---- */

sim_world *sim_world_open(sim_disk *disk, uint64_t seed);
/* Nothing of it may be left open: files, rings, locks, threads. */
void sim_world_close(sim_world *world);
kio *sim_world_kio(sim_world *world);
sim_disk *sim_world_disk(sim_world *world);
uint64_t sim_world_trace_hash(const sim_world *world);   /* over every scheduling decision and every I/O so far */
uint64_t sim_world_steps(const sim_world *world);
uint64_t sim_world_now_ns(const sim_world *world);

/*
 * Runs fn(arg) as the world's first thread; returns when it has returned. Every thread that it started must have been joined.
 * When nothing can go on any more, or only threads that yield, every thread and what it waits for is printed, and the process aborts.
 */
void sim_run(sim_world *world, void (*fn)(void *), void *arg);

/* fn is called before every step, outside of any thread of the world. It may crash-copy the disk and run other worlds. */
void sim_step_hook(sim_world *world, void (*fn)(void *), void *arg);
/* A run that needs more steps is taken for a hang: reported as a deadlock is. 0: no limit. */
void sim_step_limit(sim_world *world, uint64_t steps);

/* As poll does on a descriptor that the library has given out (rw_queue_fd), from a thread of the world. timeout_ns < 0: no limit. Whether it is readable. */
bool sim_descriptor_wait(kio *k, int descriptor, int64_t timeout_ns);

/* ---- faults ---- */

#define SIM_ON_READ 1u
#define SIM_ON_WRITE 2u
#define SIM_ON_SYNC 4u        /* a durable write is both a write and a sync */
#define SIM_ON_ALLOCATE 8u    /* and resize */
#define SIM_ON_OPEN 16u
#define SIM_ON_DIRECTORY 32u  /* create, sync, unlink */

typedef enum {
    SIM_FAULT_ERROR,       /* fails with errno_value; a write may have been done in part, a sync covers a part and forgets the rest, a durable write both */
    SIM_FAULT_MISDIRECT,   /* a read or write goes to another place in the same file, and succeeds */
    SIM_FAULT_LOSE,        /* a write succeeds and is not done */
    SIM_FAULT_ROT,         /* one bit in the range read or written turns over on the medium */
    SIM_FAULT_DELAY,       /* takes delay_ns longer */
} sim_fault_kind;

typedef struct {
    sim_fault_kind kind;
    unsigned operations;     /* SIM_ON_... */
    const char *path_part;   /* matches paths that contain it; NULL: all. Borrowed until the world is closed */
    uint64_t countdown;      /* 1: the next matching operation, 2: the one after it, ... */
    bool forever;            /* that one and all later ones; else once */
    int errno_value;
    uint64_t delay_ns;
} sim_fault;

/* Returns the fault's number for sim_fault_fired. */
unsigned sim_fault_add(sim_world *world, sim_fault fault);
/* How often it has struck. */
uint64_t sim_fault_fired(const sim_world *world, unsigned number);
void sim_fault_clear(sim_world *world);

#endif
