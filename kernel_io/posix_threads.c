/* Threads, sleeping and waking, time, random bytes. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernel_io/posix.h"

#define NS_PER_SECOND 1000000000
#define THREAD_NAME_SIZE 16   /* the kernel's limit, the final 0 included */

struct kio_thread {
    pthread_t handle;
    void (*run)(void *);
    void *arg;
    int cpu;
    char name[THREAD_NAME_SIZE];
};

uint64_t posix_now_ns(kio *k)
{
    (void)k;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

int posix_random(kio *k, void *buffer, size_t length)
{
    (void)k;
    unsigned char *at = buffer;
    while (length > 0) {
        ssize_t got = getrandom(at, length, 0);
        if (got < 0) {
            if (errno == EINTR) continue;
            int error = errno;
            return rw_error_errno(RW_EIO, error, "cannot get random bytes");
        }
        at += got;
        length -= (size_t)got;
    }
    return 0;
}

static void *thread_main(void *arg)
{
    kio_thread *thread = arg;
    pthread_setname_np(pthread_self(), thread->name);
    if (thread->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)thread->cpu, &set);
        /* a core outside what the process may use: the thread runs unpinned */
        (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    thread->run(thread->arg);
    return NULL;
}

int posix_thread_start(kio *k, const char *name, int cpu, void (*run)(void *), void *arg, kio_thread **out)
{
    (void)k;
    RW_ASSERT(cpu < CPU_SETSIZE);
    kio_thread *thread = calloc(1, sizeof *thread);
    if (thread == NULL) return rw_error(RW_ENOMEM, "cannot start thread %s: out of memory", name);
    thread->run = run;
    thread->arg = arg;
    thread->cpu = cpu;
    strncpy(thread->name, name, THREAD_NAME_SIZE - 1);
    /* before it starts, so that a signal of the program's never interrupts it; a thread inherits its maker's mask */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread->handle, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        free(thread);
        return rw_error_errno(RW_ENOMEM, error, "cannot start thread %s", name);
    }
    *out = thread;
    return 0;
}

void posix_thread_join(kio *k, kio_thread *thread)
{
    (void)k;
    int error = pthread_join(thread->handle, NULL);
    RW_ASSERT(error == 0);
    free(thread);
}

void posix_sleep(kio *k, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    (void)k;
    struct timespec timeout = {.tv_sec = timeout_ns / NS_PER_SECOND, .tv_nsec = timeout_ns % NS_PER_SECOND};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &timeout, NULL, 0);
}

void posix_wake(kio *k, const _Atomic uint32_t *word, unsigned count)
{
    (void)k;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, (int)RW_MIN(count, (unsigned)INT_MAX), NULL, NULL, 0);
}

void posix_yield(kio *k)
{
    (void)k;
    sched_yield();
}
