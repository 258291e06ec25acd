/*
 * The lock on a database. The kernel's part is a lock that belongs to the open file description, not to the process (as POSIX record
 * locks do, which any close of the same file anywhere in the process would drop). Where a file system has no such locks, flock.
 * The holder writes its pid into the file, for the message that a second opener gets.
 *
 * Who may read the file only takes a shared lock, and cannot leave his pid there. He tells it by a POSIX record lock on a byte of its own:
 * the kernel tells the owner of such a lock. That one may get lost (see above), and is for the message only.
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
#define TEXT_MAX 32u /* bytes that a lock file of ours holds at most */
#define PID_BYTE ((off_t)1 << 30)   /* a shared lock ends before it, an exclusive one covers it */

struct kio_lock {
    kio_lock *next;      /* under held_mutex */
    dev_t device;        /* set at open */
    ino_t inode;
    int fd;              /* -1 in a forked child */
    bool shared;         /* set at open; fd is read-only then */
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
static int kernel_lock(int fd, bool shared)
{
    struct flock exclusive = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct flock reading = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = PID_BYTE};
    if (fcntl(fd, F_OFD_SETLK, shared ? &reading : &exclusive) == 0) return 0;
    if (errno == EACCES) return EAGAIN;
    if (errno != EINVAL && errno != ENOLCK && errno != EOPNOTSUPP) return errno;
    if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) return 0;
    return errno == EWOULDBLOCK ? EAGAIN : errno;
}

static bool is_held_here(const kio_lock *candidate)
{
    for (const kio_lock *lock = held_list; lock != NULL; lock = lock->next) {
        bool both_read = lock->shared && candidate->shared;
        if (!both_read && lock->device == candidate->device && lock->inode == candidate->inode) return true;
    }
    return false;
}

/* Only for the message of others: the lock is good without it. */
static void pid_tell(const kio_lock *lock)
{
    if (lock->shared) {
        struct flock mark = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = PID_BYTE, .l_len = 1};
        (void)!fcntl(lock->fd, F_SETLK, &mark);
        return;
    }
    char text[TEXT_MAX];
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (pwrite(lock->fd, text, (size_t)length, 0) != length) length = 0;
    (void)!ftruncate(lock->fd, length);
}

/* What keeps others from locking those bytes for writing: F_RDLCK, F_WRLCK, or F_UNLCK for nothing (that is known). */
static short kernel_ask(int fd, off_t start, off_t length, pid_t *pid)
{
    struct flock asked = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    if (fcntl(fd, F_OFD_GETLK, &asked) != 0) return F_UNLCK;
    *pid = asked.l_pid;
    return asked.l_type;
}

static int busy_error(const kio_lock *lock, const char *path, bool is_here)
{
    if (is_here) return rw_error(RW_EBUSY, "%s is locked by this process (pid %ld)", path, (long)getpid());
    pid_t reader = 0;
    if (kernel_ask(lock->fd, PID_BYTE, 1, &reader) == F_RDLCK && reader > 0)
        return rw_error(RW_EBUSY, "%s is locked by process %ld, which reads", path, (long)reader);
    /* a reader leaves the text as it is: that of a writer who was killed before */
    if (kernel_ask(lock->fd, 0, PID_BYTE, &reader) == F_RDLCK) return rw_error(RW_EBUSY, "%s is locked by another process, which reads", path);
    char text[TEXT_MAX] = "";
    ssize_t length = pread(lock->fd, text, sizeof text - 1, 0);
    long pid = length > 0 ? strtol(text, NULL, 10) : 0;
    if (pid > 0) return rw_error(RW_EBUSY, "%s is locked by process %ld", path, pid);
    return rw_error(RW_EBUSY, "%s is locked by another process", path);
}

/*
 * A file of this name may be somebody else's, who must find it again as it was. Ours hold a pid and a newline; behind these may be the end of a longer
 * pid, when its writer was killed, and zeros instead, when the power went.
 */
static bool text_is_ours(const char *text, size_t length)
{
    if (length > TEXT_MAX) return false;
    for (size_t i = 0; i < length; i++)
        if ((text[i] < '0' || text[i] > '9') && text[i] != '\n' && text[i] != 0) return false;
    return true;
}

static int lock_file_examine(kio_lock *lock, const char *path)
{
    struct stat information;
    char text[TEXT_MAX + 1];
    ssize_t length = fstat(lock->fd, &information) == 0 ? pread(lock->fd, text, sizeof text, 0) : -1;
    if (length < 0) {
        int error = errno;
        return rw_error_errno(RW_EIO, error, "cannot examine lock file %s", path);
    }
    if (!text_is_ours(text, (size_t)length))
        return rw_error(RW_EFOREIGN, "%s is not the lock file of a database: it holds more than a process id", path);
    lock->device = information.st_dev;
    lock->inode = information.st_ino;
    return 0;
}

/* *absent: there is no such file, and the reader may not make it. */
static int lock_file_open(kio_lock *lock, const char *path, bool reader, bool *absent)
{
    int code = posix_open_regular(path, O_RDWR | O_CREAT, "lock file", &lock->fd);
    lock->shared = reader && (code == RW_EACCESS || code == RW_EREADONLY);
    if (lock->shared) code = posix_open_regular(path, O_RDONLY, "lock file", &lock->fd);
    *absent = lock->shared && code == RW_ENOENT;
    if (code != 0) return code;
    code = lock_file_examine(lock, path);
    if (code != 0) close(lock->fd);
    return code;
}

/* One attempt. RW_EBUSY without a sentence when another process holds it; *is_here when this one does. */
static int lock_try(kio_lock *lock, const char *path, bool *is_here)
{
    pthread_mutex_lock(&held_mutex);
    *is_here = is_held_here(lock);
    int error = *is_here ? EAGAIN : kernel_lock(lock->fd, lock->shared);
    if (error == 0) {
        lock->next = held_list;
        held_list = lock;
    }
    pthread_mutex_unlock(&held_mutex);
    if (error == 0) return 0;
    if (error == EAGAIN) return RW_EBUSY;
    return rw_error_errno(rw_error_from_errno(error), error, "cannot lock file %s", path);
}

int posix_lock(kio *k, const char *path, unsigned flags, kio_lock **out)
{
    (void)k;
    pthread_once(&fork_handlers_once, fork_handlers_install);
    kio_lock *lock = calloc(1, sizeof *lock);
    if (lock == NULL) return rw_error(RW_ENOMEM, "cannot lock file %s: out of memory", path);
    bool is_here = false, absent;
    int code = lock_file_open(lock, path, (flags & KIO_READ_ONLY) != 0, &absent);
    if (code != 0) {
        free(lock);
        if (!absent) return code;
        *out = NULL;
        return 0;
    }
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
    pid_tell(lock);
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
        if (!lock->shared) (void)!ftruncate(lock->fd, 0);
        close(lock->fd);
    }
    pthread_mutex_unlock(&held_mutex);
    free(lock);
}
