/* Events that a program's own loop can wait for. */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernel_io/posix.h"

int posix_event_open(kio *k, int *out)
{
    (void)k;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        int error = errno;
        return rw_error_errno(error == EMFILE || error == ENFILE ? RW_EFILES : RW_ENOMEM, error, "cannot make an eventfd");
    }
    *out = fd;
    return 0;
}

void posix_event_close(kio *k, int fd)
{
    (void)k;
    close(fd);
}

/* Neither transfer can fail but for a counter that is full, or empty: then it is in the wanted state. */
void posix_event_raise(kio *k, int fd)
{
    (void)k;
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof one);
    RW_ASSERT(written == (ssize_t)sizeof one || errno == EAGAIN || errno == EINTR);
}

void posix_event_clear(kio *k, int fd)
{
    (void)k;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    RW_ASSERT(got == (ssize_t)sizeof count || errno == EAGAIN || errno == EINTR);
}
