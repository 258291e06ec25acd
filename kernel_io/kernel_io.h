/*
 * The seam to the kernel: everything the engine asks of the world goes through here: files, time, random bytes, threads, sleeping and
 * waking. A `kio` is one back end; the engine never asks which. Back ends: uring and psync (kernel_io/), sim (tests/sim).
 *
 * Rules
 *  1. Calls without a ring block the calling thread. Read and write transfer the whole length or fail: short transfers, EINTR and EAGAIN
 *     are retried inside; a transfer of 0 bytes is an error.
 *  2. A ring belongs to the thread that opened it. Only kio_ring_wake may be called by others. Completions are reported by reap, never
 *     called inline. An operation, its buffer included, is the ring's from submit until it is reaped.
 *  3. Files opened for direct I/O take offsets, lengths and buffers aligned to RW_BLOCK_SIZE.
 *  4. A write is durable when a sync of its file succeeded that was issued after the write completed. A failed sync is never
 *     retried by this layer, and not by those above. Or it was a durable write: when that has succeeded, its own bytes are durable, as long as they
 *     lie within the file's durable size and space, and nothing that was written before is. A failed durable write is as final as a failed sync.
 *  5. Every function that returns int returns 0 or a negative RW_E code, and has set the thread's error sentence, naming the file,
 *     offset and errno. kio_ring_reap's results carry codes without a sentence: kio_op_error writes it.
 */
#ifndef RW_KERNEL_IO_H
#define RW_KERNEL_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ringwood.h"

typedef struct kio kio;
typedef struct kio_file kio_file;
typedef struct kio_ring kio_ring;
typedef struct kio_thread kio_thread;
typedef struct kio_lock kio_lock;

#define KIO_CREATE 1u      /* create when missing */
#define KIO_EXCLUSIVE 2u   /* with KIO_CREATE: fail with RW_EEXIST when present */
#define KIO_READ_ONLY 4u
#define KIO_DIRECT 8u      /* O_DIRECT where the file system takes it; kio_file_is_direct tells */

typedef enum { KIO_READ, KIO_WRITE, KIO_WRITE_DURABLE, KIO_SYNC } kio_kind;

typedef struct kio_op {
    /* set by the caller before submit */
    kio_kind kind;
    kio_file *file;
    void *buffer;              /* all but KIO_SYNC */
    uint64_t offset;           /* bytes */
    uint32_t length;           /* bytes */
    void *context;             /* the caller's */
    /* set by the ring before it is reaped */
    int result;                /* 0: all of it was done; or a negative RW_E code */
    int errno_value;           /* behind result, 0 when none */
    /* the ring's own */
    uint32_t done;             /* bytes transferred so far */
    uint32_t attempts;
    struct kio_op *next;
} kio_op;

typedef struct kio_vtable {
    const char *name;
    void (*close)(kio *);
    /* files */
    int (*file_open)(kio *, const char *path, unsigned flags, kio_file **);
    void (*file_close)(kio *, kio_file *);
    int (*file_size)(kio *, kio_file *, uint64_t *bytes);
    int (*file_resize)(kio *, kio_file *, uint64_t bytes);
    int (*file_allocate)(kio *, kio_file *, uint64_t offset, uint64_t bytes);
    int (*file_read)(kio *, kio_file *, void *buffer, size_t length, uint64_t offset);
    void (*read_all)(kio *, kio_op **ops, unsigned count);
    int (*file_write)(kio *, kio_file *, const void *buffer, size_t length, uint64_t offset);
    int (*file_write_durable)(kio *, kio_file *, const void *buffer, size_t length, uint64_t offset);
    int (*file_sync)(kio *, kio_file *);
    bool (*file_is_direct)(kio *, kio_file *);
    uint64_t (*file_device)(kio *, kio_file *);
    int (*directory_create)(kio *, const char *path);
    int (*directory_sync)(kio *, const char *path);
    int (*unlink)(kio *, const char *path);
    int (*lock)(kio *, const char *path, unsigned flags, kio_lock **);
    void (*unlock)(kio *, kio_lock *);
    /* time, chance */
    uint64_t (*now_ns)(kio *);
    int (*random)(kio *, void *buffer, size_t length);
    /* threads */
    int (*thread_start)(kio *, const char *name, int cpu, void (*run)(void *), void *arg, kio_thread **);
    void (*thread_join)(kio *, kio_thread *);
    void (*sleep)(kio *, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
    void (*wake)(kio *, const _Atomic uint32_t *word, unsigned count);
    void (*yield)(kio *);
    /* rings */
    int (*ring_open)(kio *, unsigned depth, kio_ring **);
    void (*ring_close)(kio *, kio_ring *);
    void (*ring_submit)(kio *, kio_ring *, kio_op **ops, unsigned count);
    unsigned (*ring_reap)(kio *, kio_ring *, kio_op **done, unsigned max, int64_t wait_ns);
    void (*ring_wake)(kio *, kio_ring *);
    /* events for the program's own loop */
    int (*event_open)(kio *, int *fd);
    void (*event_close)(kio *, int fd);
    void (*event_raise)(kio *, int fd);
    void (*event_clear)(kio *, int fd);
} kio_vtable;

struct kio {
    const kio_vtable *ops;
    char note[112];            /* why this back end is not the one asked for; empty when it is */
};

/*
 * The back end for real files: "auto", "uring" or "psync". "auto" takes psync, says why in note and once to the logger, where io_uring is
 * missing or forbidden (which: sysctl, seccomp, old kernel); "uring" then fails with RW_ENOTSUP.
 */
int kio_open(const char *backend, rw_logger_fn logger, void *logger_arg, kio **out);
static inline void kio_close(kio *k) { k->ops->close(k); }
static inline const char *kio_name(kio *k) { return k->ops->name; }

/* RW_ENOENT, RW_EEXIST, RW_EACCESS, RW_EREADONLY, RW_EFILES, RW_EIO. */
static inline int kio_file_open(kio *k, const char *path, unsigned flags, kio_file **f) { return k->ops->file_open(k, path, flags, f); }
static inline void kio_file_close(kio *k, kio_file *f) { k->ops->file_close(k, f); }
static inline int kio_file_size(kio *k, kio_file *f, uint64_t *bytes) { return k->ops->file_size(k, f, bytes); }
/* Sets the size; what is added reads as zeros and need not have space behind it. Durable after a sync. */
static inline int kio_file_resize(kio *k, kio_file *f, uint64_t bytes) { return k->ops->file_resize(k, f, bytes); }
/* Makes sure that there is space behind the range, growing the file over it; reads as zeros where nothing was written. RW_ENOSPC. */
static inline int kio_file_allocate(kio *k, kio_file *f, uint64_t offset, uint64_t bytes) { return k->ops->file_allocate(k, f, offset, bytes); }
/* Reading past the end of the file is RW_EIO, with a sentence that says so. */
static inline int kio_file_read(kio *k, kio_file *f, void *b, size_t n, uint64_t at) { return k->ops->file_read(k, f, b, n, at); }
/* Reads (KIO_READ) of one caller, side by side where the back end can do that. Returns when all are done, each with its result, and no sentence: kio_op_error writes it. context and
 * next are not the caller's meanwhile. */
static inline void kio_read_all(kio *k, kio_op **ops, unsigned count) { k->ops->read_all(k, ops, count); }
/* For back ends that cannot: one after the other. */
void kio_read_each(kio *k, kio_op **ops, unsigned count);
static inline int kio_file_write(kio *k, kio_file *f, const void *b, size_t n, uint64_t at) { return k->ops->file_write(k, f, b, n, at); }
/* RWF_DSYNC: see rule 4. RW_ENOTSUP where the file system has none; then nothing was written. */
static inline int kio_file_write_durable(kio *k, kio_file *f, const void *b, size_t n, uint64_t at)
{
    return k->ops->file_write_durable(k, f, b, n, at);
}
/* fdatasync: data and, where it changed, the file's size. */
static inline int kio_file_sync(kio *k, kio_file *f) { return k->ops->file_sync(k, f); }
static inline bool kio_file_is_direct(kio *k, kio_file *f) { return k->ops->file_is_direct(k, f); }
/* A number, not 0, that is another one when the file lies on another device or file system: what was measured here need not hold there. */
static inline uint64_t kio_file_device(kio *k, kio_file *f) { return k->ops->file_device(k, f); }
/* One level; present already: 0. */
static inline int kio_directory_create(kio *k, const char *path) { return k->ops->directory_create(k, path); }
/* Makes the directory's entries durable: creations, unlinks. */
static inline int kio_directory_sync(kio *k, const char *path) { return k->ops->directory_sync(k, path); }
static inline int kio_unlink(kio *k, const char *path) { return k->ops->unlink(k, path); }
/*
 * Takes the exclusive lock on the file at path (made when missing), for this process and among its threads. RW_EBUSY names the
 * holder by pid ("this process" when it is). A killed holder's lock may outlive it by milliseconds: retried for up to 200 ms.
 * RW_EFOREIGN: what the file holds was not written by us; nothing was changed.
 * flags: 0, or KIO_READ_ONLY for who will only read. Where he may not write the file, he gets a shared lock, which others like him may hold, too, and nobody
 * else; where there is no file and he may not make one, *l is NULL: he goes without.
 */
static inline int kio_lock_take(kio *k, const char *path, unsigned flags, kio_lock **l) { return k->ops->lock(k, path, flags, l); }
static inline void kio_lock_release(kio *k, kio_lock *l) { k->ops->unlock(k, l); }

static inline uint64_t kio_now_ns(kio *k) { return k->ops->now_ns(k); }          /* monotonic */
static inline int kio_random(kio *k, void *b, size_t n) { return k->ops->random(k, b, n); }

/* cpu >= 0 pins the thread to that core, where possible; -1 does not. All signals are blocked in it. */
static inline int kio_thread_start(kio *k, const char *name, int cpu, void (*run)(void *), void *arg, kio_thread **t)
{
    return k->ops->thread_start(k, name, cpu, run, arg, t);
}
static inline void kio_thread_join(kio *k, kio_thread *t) { k->ops->thread_join(k, t); }
/* A futex: sleeps while *word == expected, until woken, for at most timeout_ns (< 0: no limit). May return early without a reason. */
static inline void kio_sleep(kio *k, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    k->ops->sleep(k, word, expected, timeout_ns);
}
static inline void kio_wake(kio *k, const _Atomic uint32_t *word, unsigned count) { k->ops->wake(k, word, count); }
/* For loops that wait for another thread without sleeping: every such loop calls it in every turn (sim switches threads in it). */
static inline void kio_yield(kio *k) { k->ops->yield(k); }

/* depth: operations in flight at most; more may be submitted and wait inside. */
static inline int kio_ring_open(kio *k, unsigned depth, kio_ring **r) { return k->ops->ring_open(k, depth, r); }
/* Waits for what is in flight. */
static inline void kio_ring_close(kio *k, kio_ring *r) { k->ops->ring_close(k, r); }
/* Hands count operations over, many with one system call where the back end can. */
static inline void kio_ring_submit(kio *k, kio_ring *r, kio_op **ops, unsigned count) { k->ops->ring_submit(k, r, ops, count); }
/*
 * Collects up to max finished operations. When there is none, waits up to wait_ns (0: not at all; < 0: no limit) for one to finish, or for
 * kio_ring_wake. Returns how many.
 */
static inline unsigned kio_ring_reap(kio *k, kio_ring *r, kio_op **done, unsigned max, int64_t wait_ns)
{
    return k->ops->ring_reap(k, r, done, max, wait_ns);
}
/* From any thread: a reap that waits, or the next one that would, returns. Cheap when the owner is not waiting. */
static inline void kio_ring_wake(kio *k, kio_ring *r) { k->ops->ring_wake(k, r); }

/* A descriptor that the program may poll: readable from a raise until the next clear, from any thread. RW_EFILES. */
static inline int kio_event_open(kio *k, int *fd) { return k->ops->event_open(k, fd); }
static inline void kio_event_close(kio *k, int fd) { k->ops->event_close(k, fd); }
static inline void kio_event_raise(kio *k, int fd) { k->ops->event_raise(k, fd); }
static inline void kio_event_clear(kio *k, int fd) { k->ops->event_clear(k, fd); }

/* How long it takes on a device until one block is durable, in either way: medians. device 0: nothing was measured. */
typedef struct {
    uint64_t device;             /* kio_file_device of the file that it was measured with */
    uint32_t sync_ns;            /* a write, then a sync */
    uint32_t durable_write_ns;   /* a durable write; 0: the file system has none */
} kio_sync_times;
/*
 * Measures, within some 50 ms, by writing zeros (a block of them, aligned) over the range of the file, block by block; all of it must have been written before,
 * and nobody else use it. *times is set on success. A failed sync or durable write is as final as any other.
 */
int kio_sync_times_measure(kio *k, kio_file *file, uint64_t offset, uint64_t bytes, const void *zeros, kio_sync_times *times);
bool kio_sync_times_prefer_durable_write(const kio_sync_times *times);

/* Writes the thread's error sentence for a failed operation and returns its code. */
int kio_op_error(const kio_op *op);
const char *kio_file_path(const kio_file *file);

/* A mutex of one futex. Whoever comes first takes it, until a sleeper has waited for a millisecond: then it is handed over (mutex.c). Zero-initialised is unlocked. */
typedef struct {
    _Atomic uint32_t state;    /* 0: free; the others are mutex.c's */
} kio_mutex;

void kio_mutex_lock(kio *k, kio_mutex *mutex);
bool kio_mutex_try(kio_mutex *mutex);
void kio_mutex_unlock(kio *k, kio_mutex *mutex);

/* Every back end's file begins with this. */
struct kio_file {
    char *path;
    bool direct;
};

#endif
