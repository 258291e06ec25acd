/* Reads, writes and syncs: what a short or failed transfer means, the same for both back ends. */
#include <errno.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel_io/posix.h"

void posix_op_start(kio_op *op)
{
    RW_ASSERT(op->file != NULL);
    if (op->kind != KIO_SYNC) {
        RW_ASSERT(op->buffer != NULL && op->length > 0);
        RW_ASSERT(!op->file->direct || ((op->offset | op->length | (uintptr_t)op->buffer) & (RW_BLOCK_SIZE - 1)) == 0);
    }
    op->result = 0;
    op->errno_value = 0;
    op->done = 0;
    op->attempts = 0;
    op->next = NULL;
}

static bool op_finish(kio_op *op, int result, int errno_value)
{
    op->result = result;
    op->errno_value = errno_value;
    return true;
}

/* No progress this time: another try, or the end with the given error. */
static bool op_try_again(kio_op *op, int errno_value)
{
    if (++op->attempts < POSIX_ATTEMPTS_MAX) return false;
    return op_finish(op, RW_EIO, errno_value);
}

/* Where EIO would be a poor word for what the kernel says of a transfer: a bad request is the engine's fault, not the device's. */
static int transfer_code(int errno_value)
{
    return errno_value == EINVAL ? RW_EIO : rw_error_from_errno(errno_value);
}

static bool is_file_end(const kio_op *op, uint64_t offset)
{
    struct stat information;
    return fstat(posix_file_fd(op->file), &information) == 0 && (uint64_t)information.st_size <= offset;
}

bool posix_op_advance(kio_op *op, int64_t returned)
{
    if (op->kind == KIO_SYNC) {
        /* never again: a second sync may succeed although the data of the first was dropped */
        return returned < 0 ? op_finish(op, rw_error_from_errno((int)-returned), (int)-returned) : op_finish(op, 0, 0);
    }
    if (returned == -EINTR || returned == -EAGAIN) return op_try_again(op, (int)-returned);
    if (returned < 0) return op_finish(op, transfer_code((int)-returned), (int)-returned);
    uint32_t left = op->length - op->done, moved = (uint32_t)returned;
    RW_ASSERT(returned <= (int64_t)left);
    if (moved == left) {
        op->done = op->length;
        return op_finish(op, 0, 0);
    }
    if (moved == 0) return op_finish(op, RW_EIO, 0);
    if (op->file->direct) {
        /* the next step must begin at a block: what came of a part of one is transferred again */
        if (op->kind == KIO_READ && is_file_end(op, op->offset + op->done + moved)) {
            op->done += moved;
            return op_finish(op, RW_EIO, 0);
        }
        moved -= moved % RW_BLOCK_SIZE;
        if (moved == 0) return op_try_again(op, 0);
    }
    op->done += moved;
    op->attempts = 0;
    return false;
}

static int64_t op_step(kio_op *op)
{
    int fd = posix_file_fd(op->file);
    int64_t returned;
    if (op->kind == KIO_SYNC) {
        returned = fdatasync(fd);
    } else {
        unsigned char *at = (unsigned char *)op->buffer + op->done;
        uint32_t left = op->length - op->done;
        off_t offset = (off_t)(op->offset + op->done);
        struct iovec piece = {.iov_base = at, .iov_len = left};
        if (op->kind == KIO_READ) returned = pread(fd, at, left, offset);
        else if (op->kind == KIO_WRITE) returned = pwrite(fd, at, left, offset);
        else returned = pwritev2(fd, &piece, 1, offset, RWF_DSYNC);
    }
    return returned < 0 ? -(int64_t)errno : returned;
}

void posix_op_run(kio_op *op)
{
    while (!posix_op_advance(op, op_step(op))) {
    }
}

/* An operation's length has 32 bits; longer blocking transfers go in pieces of whole blocks. */
#define PIECE_MAX ((size_t)1 << 30)

static int transfer(kio_kind kind, kio_file *file, void *buffer, size_t length, uint64_t offset)
{
    unsigned char *at = buffer;
    while (length > 0) {
        uint32_t piece = (uint32_t)RW_MIN(length, PIECE_MAX);
        kio_op op = {.kind = kind, .file = file, .buffer = at, .offset = offset, .length = piece};
        posix_op_start(&op);
        posix_op_run(&op);
        if (op.result != 0) return kio_op_error(&op);
        at += piece;
        offset += piece;
        length -= piece;
    }
    return 0;
}

int posix_file_read(kio *k, kio_file *file, void *buffer, size_t length, uint64_t offset)
{
    (void)k;
    return transfer(KIO_READ, file, buffer, length, offset);
}

int posix_file_write(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset)
{
    (void)k;
    /* an operation's buffer serves both directions; a write only reads it */
    return transfer(KIO_WRITE, file, (void *)(uintptr_t)buffer, length, offset);
}

/* Each piece is durable when its call returns, so all of them are at the end. */
int posix_file_write_durable(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset)
{
    (void)k;
    return transfer(KIO_WRITE_DURABLE, file, (void *)(uintptr_t)buffer, length, offset);
}

int posix_file_sync(kio *k, kio_file *file)
{
    (void)k;
    kio_op op = {.kind = KIO_SYNC, .file = file};
    posix_op_start(&op);
    posix_op_run(&op);
    return op.result == 0 ? 0 : kio_op_error(&op);
}
