/*
 * What both back ends for real files share. Inside kernel_io/ only. Function names are those of the table in kernel_io.h with posix_ in front,
 * and so are their contracts.
 */
#ifndef RW_KERNEL_IO_POSIX_H
#define RW_KERNEL_IO_POSIX_H

#include "base/base.h"
#include "kernel_io/kernel_io.h"

/* A transfer that makes no progress this many times in a row has failed. */
#define POSIX_ATTEMPTS_MAX 64u

typedef struct uring_readers uring_readers;
typedef struct uring_lent uring_lent;

typedef struct {
    kio base;
    /* uring; set at open */
    unsigned ring_flags;       /* what the kernel took when the back end was opened */
    uring_readers *readers;
} posix_kio;

typedef struct {
    kio_file base;
    int fd;
} posix_file;

static inline int posix_file_fd(const kio_file *file)
{
    return ((const posix_file *)file)->fd;
}

/* posix_files.c */
/* open(2) of what must be a regular file, without waiting for whatever else is found there. kind: what it is, for the sentence. */
int posix_open_regular(const char *path, int flags, const char *kind, int *fd);
int posix_file_open(kio *k, const char *path, unsigned flags, kio_file **out);
void posix_file_close(kio *k, kio_file *file);
int posix_file_size(kio *k, kio_file *file, uint64_t *bytes);
int posix_file_resize(kio *k, kio_file *file, uint64_t bytes);
int posix_file_allocate(kio *k, kio_file *file, uint64_t offset, uint64_t bytes);
bool posix_file_is_direct(kio *k, kio_file *file);
uint64_t posix_file_device(kio *k, kio_file *file);
int posix_directory_create(kio *k, const char *path);
int posix_directory_sync(kio *k, const char *path);
int posix_unlink(kio *k, const char *path);

/* posix_transfer.c */
int posix_file_read(kio *k, kio_file *file, void *buffer, size_t length, uint64_t offset);
int posix_file_write(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset);
int posix_file_write_durable(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset);
int posix_file_sync(kio *k, kio_file *file);

/* Makes an operation ready for its first step. */
void posix_op_start(kio_op *op);
/* Carries out the whole operation in the calling thread and sets its result. */
void posix_op_run(kio_op *op);
/*
 * Takes in what one system call returned for the operation: bytes, or a negative errno. True when it is finished and its result set, false
 * when what remains must be handed to the kernel again.
 */
bool posix_op_advance(kio_op *op, int64_t returned);

/* posix_lock.c */
int posix_lock(kio *k, const char *path, unsigned flags, kio_lock **out);
void posix_unlock(kio *k, kio_lock *lock);

/* posix_threads.c */
uint64_t posix_now_ns(kio *k);
int posix_random(kio *k, void *buffer, size_t length);
int posix_thread_start(kio *k, const char *name, int cpu, void (*run)(void *), void *arg, kio_thread **out);
void posix_thread_join(kio *k, kio_thread *thread);
void posix_sleep(kio *k, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
void posix_wake(kio *k, const _Atomic uint32_t *word, unsigned count);
void posix_yield(kio *k);

/* posix_event.c */
int posix_event_open(kio *k, int *fd);
void posix_event_close(kio *k, int fd);
void posix_event_raise(kio *k, int fd);
void posix_event_clear(kio *k, int fd);

/* psync_ring.c */
int psync_ring_open(kio *k, unsigned depth, kio_ring **out);
void psync_ring_close(kio *k, kio_ring *ring);
void psync_ring_submit(kio *k, kio_ring *ring, kio_op **ops, unsigned count);
unsigned psync_ring_reap(kio *k, kio_ring *ring, kio_op **done, unsigned max, int64_t wait_ns);
void psync_ring_wake(kio *k, kio_ring *ring);

/* uring_probe.c */
/*
 * Finds out whether io_uring works here, and with which set-up flags. When it does not: RW_ENOTSUP, and reason says why; RW_EFILES when that is
 * no trait of the kernel's but a lack of file descriptors.
 */
int uring_probe(unsigned *ring_flags, char *reason, size_t reason_size);
/* uring_ring.c */
int uring_ring_open(kio *k, unsigned depth, kio_ring **out);
void uring_ring_close(kio *k, kio_ring *ring);
void uring_ring_submit(kio *k, kio_ring *ring, kio_op **ops, unsigned count);
unsigned uring_ring_reap(kio *k, kio_ring *ring, kio_op **done, unsigned max, int64_t wait_ns);
void uring_ring_wake(kio *k, kio_ring *ring);

/* uring_lent.c */
/* NULL: no memory. */
uring_lent *uring_lent_open(unsigned ring_flags);
/* No read is under way. */
void uring_lent_close(uring_lent *lent);
/* Makes the reads; each one's result is set. False: all rings are lent, nothing was done. */
bool uring_lent_read(kio *k, uring_lent *lent, kio_op **ops, unsigned count);

/* uring_readers.c */
int uring_readers_open(kio *k, unsigned ring_flags, uring_readers **out);
/* No read is under way. */
void uring_readers_close(uring_readers *readers);
int uring_file_read(kio *k, kio_file *file, void *buffer, size_t length, uint64_t offset);
void uring_read_all(kio *k, kio_op **ops, unsigned count);

/*
 * How a ring's owner waits without missing a wake. NONE: nobody waits, nothing is pending. PENDING: a wake that no reap has taken in yet.
 * WAITING: the owner sleeps or is about to.
 *
 *   NONE    -- waker_begin_wait --> WAITING     WAITING -- waker_end_wait --> NONE
 *   PENDING -- waker_begin_wait --> NONE, and the owner does not wait
 *   any     -- waker_wake       --> PENDING; from WAITING the caller must end the owner's sleep
 *   WAITING -- waker_interrupt  --> NONE; the same
 */
typedef struct {
    _Atomic uint32_t state;
} posix_waker;

enum { POSIX_WAKER_NONE, POSIX_WAKER_PENDING, POSIX_WAKER_WAITING };

/* Owner. False: a wake was pending and is taken in now. */
static inline bool posix_waker_begin_wait(posix_waker *waker)
{
    uint32_t expected = POSIX_WAKER_NONE;
    if (atomic_compare_exchange_strong(&waker->state, &expected, POSIX_WAKER_WAITING)) return true;
    RW_ASSERT(expected == POSIX_WAKER_PENDING);
    atomic_exchange(&waker->state, POSIX_WAKER_NONE);
    return false;
}

/* Owner, while it waits: false once a wake or an interruption has come. */
static inline bool posix_waker_is_waiting(const posix_waker *waker)
{
    return atomic_load(&waker->state) == POSIX_WAKER_WAITING;
}

/* Owner, after begin_wait returned true. Takes in a wake that has come meanwhile. */
static inline void posix_waker_end_wait(posix_waker *waker)
{
    atomic_exchange(&waker->state, POSIX_WAKER_NONE);
}

/* Any thread. True: the owner may be sleeping. */
static inline bool posix_waker_wake(posix_waker *waker)
{
    return atomic_exchange(&waker->state, POSIX_WAKER_PENDING) == POSIX_WAKER_WAITING;
}

/* Any thread: ends a wait without being a wake that a later reap could see. True: the owner may be sleeping. */
static inline bool posix_waker_interrupt(posix_waker *waker)
{
    uint32_t expected = POSIX_WAKER_WAITING;
    return atomic_compare_exchange_strong(&waker->state, &expected, POSIX_WAKER_NONE);
}

#endif
