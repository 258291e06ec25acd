/* Files and directories by blocking calls. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "kernel_io/posix.h"

#define FILE_MODE 0644
#define DIRECTORY_MODE 0755
#define ZEROS_BYTES (256u << 10)

/* What the file system demands of direct transfers, where it tells: at most what the engine keeps to. 0 means: none possible. */
static bool alignment_is_acceptable(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx information;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &information) != 0) return true;
    if ((information.stx_mask & STATX_DIOALIGN) == 0) return true;
    uint32_t memory = information.stx_dio_mem_align, offset = information.stx_dio_offset_align;
    return memory != 0 && offset != 0 && RW_BLOCK_SIZE % memory == 0 && RW_BLOCK_SIZE % offset == 0;
#else
    (void)fd;
    return true;
#endif
}

/* Set after the open, not by it: an open that is refused for O_DIRECT may already have made the file. */
static bool direct_enable(int fd)
{
    if (!alignment_is_acceptable(fd)) return false;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
}

/* With O_NONBLOCK, EAGAIN means that somebody's lease on the file must be broken first: only regular files have leases, and that wait ends. */
static int open_retrying(const char *path, int flags)
{
    for (;;) {
        int fd = open(path, flags | O_CLOEXEC, FILE_MODE);
        if (fd >= 0) return fd;
        if (errno == EAGAIN && (flags & O_NONBLOCK) != 0) flags &= ~O_NONBLOCK;
        else if (errno != EINTR) return fd;
    }
}

/* To open a pipe may wait for ever, hence O_NONBLOCK; it must not stay: io_uring reports EAGAIN for such files instead of waiting itself. */
int posix_open_regular(const char *path, int flags, const char *kind, int *out)
{
    int fd = open_retrying(path, flags | O_NONBLOCK);
    if (fd < 0) {
        int error = errno;
        return rw_error_errno(rw_error_from_errno(error), error, "cannot open %s %s", kind, path);
    }
    struct stat information;
    if (fstat(fd, &information) != 0 || !S_ISREG(information.st_mode)) {
        close(fd);
        return rw_error(RW_EINVAL, "cannot open %s %s: it is not a regular file", kind, path);
    }
    int present = fcntl(fd, F_GETFL);
    if (present < 0 || fcntl(fd, F_SETFL, present & ~O_NONBLOCK) != 0) {
        int error = errno;
        close(fd);
        return rw_error_errno(RW_EIO, error, "cannot open %s %s", kind, path);
    }
    *out = fd;
    return 0;
}

static int open_checked(const char *path, unsigned flags, int *out)
{
    int open_flags = (flags & KIO_READ_ONLY) != 0 ? O_RDONLY : O_RDWR;
    if ((flags & KIO_CREATE) != 0) open_flags |= O_CREAT;
    if ((flags & KIO_EXCLUSIVE) != 0) open_flags |= O_EXCL;
    return posix_open_regular(path, open_flags, "file", out);
}

int posix_file_open(kio *k, const char *path, unsigned flags, kio_file **out)
{
    (void)k;
    RW_ASSERT((flags & KIO_EXCLUSIVE) == 0 || (flags & KIO_CREATE) != 0);
    RW_ASSERT((flags & KIO_CREATE) == 0 || (flags & KIO_READ_ONLY) == 0);
    posix_file *file = calloc(1, sizeof *file);
    char *own_path = strdup(path);
    int code = file == NULL || own_path == NULL ? rw_error(RW_ENOMEM, "cannot open file %s: out of memory", path)
                                                : open_checked(path, flags, &file->fd);
    if (code != 0) {
        free(own_path);
        free(file);
        return code;
    }
    file->base.path = own_path;
    file->base.direct = (flags & KIO_DIRECT) != 0 && direct_enable(file->fd);
    *out = &file->base;
    return 0;
}

void posix_file_close(kio *k, kio_file *file)
{
    (void)k;
    close(posix_file_fd(file));
    free(file->path);
    free(file);
}

bool posix_file_is_direct(kio *k, kio_file *file)
{
    (void)k;
    return file->direct;
}

/* The device number alone is often the same on another machine; the file system's own identity alone is 0 for some. */
uint64_t posix_file_device(kio *k, kio_file *file)
{
    (void)k;
    struct stat information;
    struct statfs system;
    uint64_t device = 0, identity = 0;
    if (fstat(posix_file_fd(file), &information) == 0) device = information.st_dev;
    if (fstatfs(posix_file_fd(file), &system) == 0) memcpy(&identity, &system.f_fsid, RW_MIN(sizeof identity, sizeof system.f_fsid));
    uint64_t both = (device * 0x9E3779B97F4A7C15u) ^ identity;
    return both != 0 ? both : 1;
}

int posix_file_size(kio *k, kio_file *file, uint64_t *bytes)
{
    (void)k;
    struct stat information;
    if (fstat(posix_file_fd(file), &information) != 0) {
        int error = errno;
        return rw_error_errno(rw_error_from_errno(error), error, "cannot get the size of file %s", file->path);
    }
    *bytes = (uint64_t)information.st_size;
    return 0;
}

int posix_file_resize(kio *k, kio_file *file, uint64_t bytes)
{
    (void)k;
    int returned;
    do returned = ftruncate(posix_file_fd(file), (off_t)bytes);
    while (returned != 0 && errno == EINTR);
    if (returned == 0) return 0;
    int error = errno;
    return rw_error_errno(rw_error_from_errno(error), error, "cannot set the size of file %s to %llu bytes", file->path,
                          (unsigned long long)bytes);
}

/*
 * For file systems without fallocate: writes zeros from the present end on. What lies before it is left alone, so holes there stay holes.
 */
static int allocate_by_writing(kio *k, kio_file *file, uint64_t end)
{
    uint64_t at;
    int code = posix_file_size(k, file, &at);
    if (code != 0 || at >= end) return code;
    code = posix_file_resize(k, file, end);
    if (code != 0) return code;
    void *zeros = aligned_alloc(RW_BLOCK_SIZE, ZEROS_BYTES);
    if (zeros == NULL) return rw_error(RW_ENOMEM, "cannot allocate space in file %s: out of memory", file->path);
    memset(zeros, 0, ZEROS_BYTES);
    at = rw_align_up(at, RW_BLOCK_SIZE);
    while (code == 0 && at < end) {
        uint64_t length = RW_MIN(end - at, (uint64_t)ZEROS_BYTES);
        code = posix_file_write(k, file, zeros, (size_t)length, at);
        at += length;
    }
    free(zeros);
    return code;
}

int posix_file_allocate(kio *k, kio_file *file, uint64_t offset, uint64_t bytes)
{
    RW_ASSERT(bytes > 0);
    int returned;
    do returned = fallocate(posix_file_fd(file), 0, (off_t)offset, (off_t)bytes);
    while (returned != 0 && errno == EINTR);
    if (returned == 0) return 0;
    int error = errno;
    if (error == EOPNOTSUPP || error == ENOSYS) return allocate_by_writing(k, file, offset + bytes);
    return rw_error_errno(rw_error_from_errno(error), error, "cannot allocate %llu bytes at offset %llu of file %s",
                          (unsigned long long)bytes, (unsigned long long)offset, file->path);
}

int posix_directory_create(kio *k, const char *path)
{
    (void)k;
    if (mkdir(path, DIRECTORY_MODE) == 0) return 0;
    int error = errno;
    struct stat information;
    /* a read-only file system may be told before anybody has looked whether it is there */
    if ((error == EEXIST || error == EROFS) && stat(path, &information) == 0 && S_ISDIR(information.st_mode)) return 0;
    return rw_error_errno(rw_error_from_errno(error), error, "cannot make directory %s", path);
}

int posix_directory_sync(kio *k, const char *path)
{
    (void)k;
    int fd = open_retrying(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        int error = errno;
        return rw_error_errno(rw_error_from_errno(error), error, "cannot open directory %s", path);
    }
    int error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return error == 0 ? 0 : rw_error_errno(rw_error_from_errno(error), error, "cannot sync directory %s", path);
}

int posix_unlink(kio *k, const char *path)
{
    (void)k;
    if (unlink(path) == 0) return 0;
    int error = errno;
    return rw_error_errno(rw_error_from_errno(error), error, "cannot remove file %s", path);
}
