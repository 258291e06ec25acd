/* Choosing the back end, and what is the same in all of them, the simulator's included. */
#include "kernel_io/kernel_io.h"

#include "kernel_io/posix.h"

static void psync_close(kio *k)
{
    free(k);
}

static void uring_close(kio *k)
{
    uring_readers_close(((posix_kio *)k)->readers);
    free(k);
}

#define POSIX_OPERATIONS                                                                                                   \
    .file_open = posix_file_open, .file_close = posix_file_close, .file_size = posix_file_size,                            \
    .file_resize = posix_file_resize, .file_allocate = posix_file_allocate,                                                \
    .file_write = posix_file_write, .file_write_durable = posix_file_write_durable, .file_sync = posix_file_sync,          \
    .file_is_direct = posix_file_is_direct, .file_device = posix_file_device,                                              \
    .directory_create = posix_directory_create, .directory_sync = posix_directory_sync, .unlink = posix_unlink,            \
    .lock = posix_lock, .unlock = posix_unlock, .now_ns = posix_now_ns, .random = posix_random,    \
    .thread_start = posix_thread_start, .thread_join = posix_thread_join, .sleep = posix_sleep, .wake = posix_wake,        \
    .yield = posix_yield, .event_open = posix_event_open, .event_close = posix_event_close,                                \
    .event_raise = posix_event_raise, .event_clear = posix_event_clear

static const kio_vtable psync_operations = {
    POSIX_OPERATIONS,
    .name = "psync",
    .close = psync_close,
    .file_read = posix_file_read,
    .read_all = kio_read_each,
    .ring_open = psync_ring_open,
    .ring_close = psync_ring_close,
    .ring_submit = psync_ring_submit,
    .ring_reap = psync_ring_reap,
    .ring_wake = psync_ring_wake,
};

static const kio_vtable uring_operations = {
    POSIX_OPERATIONS,
    .name = "uring",
    .close = uring_close,
    .file_read = uring_file_read,
    .read_all = uring_read_all,
    .ring_open = uring_ring_open,
    .ring_close = uring_ring_close,
    .ring_submit = uring_ring_submit,
    .ring_reap = uring_ring_reap,
    .ring_wake = uring_ring_wake,
};

/* Decides between the two; on success k has its operations, and its note when they are not those asked for. */
static int backend_choose(posix_kio *k, const char *backend, rw_logger_fn logger, void *logger_arg)
{
    k->base.ops = &psync_operations;
    if (strcmp(backend, "psync") == 0) return 0;
    bool is_auto = strcmp(backend, "auto") == 0;
    if (!is_auto && strcmp(backend, "uring") != 0) {
        return rw_error(RW_EINVAL, "I/O back end \"%s\" is none of \"auto\", \"uring\", \"psync\"", backend);
    }
    char reason[sizeof k->base.note];
    int code = uring_probe(&k->ring_flags, reason, sizeof reason);
    if (code == 0) {
        k->base.ops = &uring_operations;
        return uring_readers_open(&k->base, k->ring_flags, &k->readers);
    }
    if (code != RW_ENOTSUP || !is_auto) return rw_error(code, "cannot use io_uring: %s", reason);
    memcpy(k->base.note, reason, sizeof reason);
    if (logger != NULL) {
        char message[sizeof reason + 64];
        snprintf(message, sizeof message, "io_uring is not available: %s; using psync, which is slower", reason);
        logger(logger_arg, RW_LOG_WARNING, message);
    }
    return 0;
}

int kio_open(const char *backend, rw_logger_fn logger, void *logger_arg, kio **out)
{
    posix_kio *k = calloc(1, sizeof *k);
    if (k == NULL) return rw_error(RW_ENOMEM, "cannot open the I/O back end: out of memory");
    int code = backend_choose(k, backend, logger, logger_arg);
    if (code != 0) {
        free(k);
        return code;
    }
    *out = &k->base;
    return 0;
}

void kio_read_each(kio *k, kio_op **ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        RW_ASSERT(ops[i]->kind == KIO_READ);
        ops[i]->errno_value = 0;
        ops[i]->result = kio_file_read(k, ops[i]->file, ops[i]->buffer, ops[i]->length, ops[i]->offset);
    }
}

const char *kio_file_path(const kio_file *file)
{
    return file->path;
}

int kio_op_error(const kio_op *op)
{
    static const char *const names[] = {[KIO_READ] = "read", [KIO_WRITE] = "write", [KIO_WRITE_DURABLE] = "write durably", [KIO_SYNC] = "sync"};
    const char *name = names[op->kind], *path = kio_file_path(op->file);
    RW_ASSERT(op->result < 0);
    if (op->kind == KIO_SYNC) {
        return op->errno_value != 0 ? rw_error_errno(op->result, op->errno_value, "cannot sync file %s", path)
                                    : rw_error(op->result, "cannot sync file %s: %s", path, rw_strerror(op->result));
    }
    unsigned long long offset = op->offset;
    if (op->errno_value != 0) {
        return rw_error_errno(op->result, op->errno_value, "cannot %s %u bytes at offset %llu of file %s", name, op->length, offset, path);
    }
    if (op->result != RW_EIO) {
        return rw_error(op->result, "cannot %s %u bytes at offset %llu of file %s: %s", name, op->length, offset, path,
                        rw_strerror(op->result));
    }
    return rw_error(RW_EIO, "cannot %s %u bytes at offset %llu of file %s: %s after %u bytes", name, op->length, offset, path,
                    op->kind == KIO_READ ? "the file ends" : "the transfer stopped", op->done);
}
