/*
 * The lock on a database. The kernel's part is a lock that belongs to the open file description, not to the process (as POSIX record
 * locks do, which any close of the same file anywhere in the process would drop). Where a file system has no such locks, flock.
 * The holder writes its pid into the file, for the message that a second opener gets.
 *
 * A forked child shares the description, so it would keep the lock when its parent dies; therefore the child's copies are closed
 * at the fork. All locks of the process are on one list, for that, and to tell "this process" from a pid that merely is
 * the same in another pid namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernel_io/posix.h"

#define RETRY_NS 5000000
#define RETRIES 40   /* 200 ms: a killed holder's lock may outlive it for so long */

struct kio_lock {
    kio_lock *next;      /* under held_mutex */
    dev_t device;        /* set at open */
    ino_t inode;
    int fd;              /* -1 in a forked child */
};

static pthread_mutex_t held_mutex = PTHREAD_MUTEX_INITIALIZER;
static kio_lock *held_list;
static pthread_once_t fork_handlers_once = PTHREAD_ONCE_INIT;

static void fork_prepare(void)
{
    pthread_mutex_lock(&held_mutex);
}

static void fork_parent(void)
{
    pthread_mutex_unlock(&held_mutex);
}

static void fork_child(void)
{
    for (kio_lock *lock = held_list; lock != NULL; lock = lock->next) {
        close(lock->fd);
        lock->fd = -1;
    }
    held_list = NULL;
    pthread_mutex_unlock(&held_mutex);
}

static void fork_handlers_install(void)
{
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* 0, or the errno; EAGAIN when another holds it. */
static int kernel_lock(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &whole) == 0) return 0;
    if (errno == EACCES) return EAGAIN;
    if (errno != EINVAL && errno != ENOLCK && errno != EOPNOTSUPP) return errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return 0;
    return errno == EWOULDBLOCK ? EAGAIN : errno;
}

static bool is_held_here(const kio_lock *candidate)
{
    for (const kio_lock *lock = held_list; lock != NULL; lock = lock->next) {
        if (lock->device == candidate->device && lock->inode == candidate->inode) return true;
    }
    return false;
}

/* Only for the message of others: the lock is good without it. */
static void pid_write(int fd)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0) return;
    if (pwrite(fd, text, (size_t)length, 0) != length) (void)!ftruncate(fd, 0);
}

static int busy_error(const kio_lock *lock, const char *path, bool is_here)
{
    if (is_here) return rw_error(RW_EBUSY, "%s is locked by this process (pid %ld)", path, (long)getpid());
    char text[32] = "";
    ssize_t length = pread(lock->fd, text, sizeof text - 1, 0);
    long pid = length > 0 ? strtol(text, NULL, 10) : 0;
    if (pid > 0) return rw_error(RW_EBUSY, "%s is locked by process %ld", path, pid);
    return rw_error(RW_EBUSY, "%s is locked by another process", path);
}

static int lock_file_open(kio_lock *lock, const char *path)
{
    do lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    while (lock->fd < 0 && errno == EINTR);
    if (lock->fd < 0) {
        int error = errno;
        return rw_error_errno(rw_error_from_errno(error), error, "cannot open lock file %s", path);
    }
    struct stat information;
    if (fstat(lock->fd, &information) != 0) {
        int error = errno;
        close(lock->fd);
        return rw_error_errno(RW_EIO, error, "cannot examine lock file %s", path);
    }
    lock->device = information.st_dev;
    lock->inode = information.st_ino;
    return 0;
}

/* One attempt. RW_EBUSY without a sentence when another process holds it; *is_here when this one does. */
static int lock_try(kio_lock *lock, const char *path, bool *is_here)
{
    pthread_mutex_lock(&held_mutex);
    *is_here = is_held_here(lock);
    int error = *is_here ? EAGAIN : kernel_lock(lock->fd);
    if (error == 0) {
        lock->next = held_list;
        held_list = lock;
    }
    pthread_mutex_unlock(&held_mutex);
    if (error == 0) return 0;
    if (error == EAGAIN) return RW_EBUSY;
    return rw_error_errno(rw_error_from_errno(error), error, "cannot lock file %s", path);
}

int posix_lock(kio *k, const char *path, kio_lock **out)
{
    (void)k;
    pthread_once(&fork_handlers_once, fork_handlers_install);
    kio_lock *lock = calloc(1, sizeof *lock);
    if (lock == NULL) return rw_error(RW_ENOMEM, "cannot lock file %s: out of memory", path);
    int code = lock_file_open(lock, path);
    if (code != 0) {
        free(lock);
        return code;
    }
    bool is_here = false;
    code = lock_try(lock, path, &is_here);
    for (unsigned i = 0; i < RETRIES && code == RW_EBUSY && !is_here; i++) {
        struct timespec pause = {.tv_nsec = RETRY_NS};
        nanosleep(&pause, NULL);
        code = lock_try(lock, path, &is_here);
    }
    if (code != 0) {
        if (code == RW_EBUSY) busy_error(lock, path, is_here);
        close(lock->fd);
        free(lock);
        return code;
    }
    pid_write(lock->fd);
    *out = lock;
    return 0;
}

/* The file stays: to remove it would let a second opener lock a file that a third no longer finds. */
void posix_unlock(kio *k, kio_lock *lock)
{
    (void)k;
    pthread_mutex_lock(&held_mutex);
    for (kio_lock **at = &held_list; *at != NULL; at = &(*at)->next) {
        if (*at == lock) {
            *at = lock->next;
            break;
        }
    }
    if (lock->fd >= 0) {
        (void)!ftruncate(lock->fd, 0);
        close(lock->fd);
    }
    pthread_mutex_unlock(&held_mutex);
    free(lock);
}
