/* Does io_uring work here, with which set-up flags, and if not, why? */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel_io/posix.h"

/*
 * Best first; each line is taken by kernels from the version named. SINGLE_ISSUER and DEFER_TASKRUN let the kernel leave completion work to the
 * moment when the owner asks for it, instead of interrupting it; TASKRUN_FLAG shows in shared memory that there is such work.
 */
static const unsigned flag_choices[] = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,  /* 6.1 */
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,   /* 6.0 */
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_COOP_TASKRUN,                                /* 5.19 */
    0,
};

/* Of Linux 5.11: no completion is ever dropped, and a wait takes a timeout. Reads at offsets and fdatasync are older. */
#define FEATURES_NEEDED (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)

static int sysctl_disabled(void)
{
    char text[16] = "";
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? atoi(text) : 0;
}

static int explain(int error, char *reason, size_t reason_size)
{
    int disabled = sysctl_disabled();
    if (error == EMFILE || error == ENFILE) {
        snprintf(reason, reason_size, "too many open files");
        return RW_EFILES;
    }
    if (error == ENOSYS) {
        snprintf(reason, reason_size, "this kernel has no io_uring, or a seccomp filter hides it (ENOSYS)");
    } else if (error == EPERM && disabled != 0) {
        snprintf(reason, reason_size, "sysctl kernel.io_uring_disabled is %d", disabled);
    } else if (error == EPERM || error == EACCES) {
        snprintf(reason, reason_size, "a seccomp filter or security policy forbids it (%s)", error == EPERM ? "EPERM" : "EACCES");
    } else if (error == ENOMEM) {
        snprintf(reason, reason_size, "no memory for a ring: RLIMIT_MEMLOCK may be too low");
    } else {
        snprintf(reason, reason_size, "io_uring_setup failed with errno %d", error);
    }
    return RW_ENOTSUP;
}

int uring_probe(unsigned *ring_flags, char *reason, size_t reason_size)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(flag_choices); i++) {
        struct io_uring ring;
        struct io_uring_params params = {.flags = flag_choices[i]};
        int error = -io_uring_queue_init_params(2, &ring, &params);
        if (error == EINVAL && flag_choices[i] != 0) continue;
        if (error != 0) return explain(error, reason, reason_size);
        io_uring_queue_exit(&ring);
        if ((params.features & FEATURES_NEEDED) != FEATURES_NEEDED) {
            snprintf(reason, reason_size, "this kernel's io_uring is too old: Linux 5.11 is needed");
            return RW_ENOTSUP;
        }
        *ring_flags = flag_choices[i];
        return 0;
    }
    RW_ASSERT(false);   /* the last choice returns */
}
