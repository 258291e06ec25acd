/* Files, directories and locks, as the engine calls them. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

static sim_file *file_of(kio_file *file)
{
    return RW_CONTAINER_OF(file, sim_file, base);
}

/* Takes the time of a small operation and lets a fault have its way with it. */
static int small_operation(sim_world *world, unsigned operation, const char *doing, const char *path)
{
    sim_fault fault;
    uint64_t delay_ns = sim_latency_ns(world, operation, 0);
    bool faulty = sim_fault_strike(world, operation, path, &fault);
    if (faulty && fault.kind == SIM_FAULT_DELAY) delay_ns += fault.delay_ns;
    sim_thread_pause(world, doing, path, delay_ns);
    if (faulty && fault.kind == SIM_FAULT_ERROR) {
        return rw_error_errno(rw_error_from_errno(fault.errno_value), fault.errno_value, "%s of %s", doing, path);
    }
    return 0;
}

static int open_check(sim_world *world, const char *path, unsigned flags)
{
    const sim_node *node = sim_directory_find(&world->disk->current, path);
    if (node != NULL && node->is_directory) return rw_error_errno(RW_EINVAL, EISDIR, "open of %s", path);
    if (node != NULL && (flags & KIO_CREATE) && (flags & KIO_EXCLUSIVE)) return rw_error_errno(RW_EEXIST, EEXIST, "open of %s", path);
    if (node == NULL && !(flags & KIO_CREATE)) return rw_error_errno(RW_ENOENT, ENOENT, "open of %s", path);
    if (!sim_path_has_parent(&world->disk->current, path)) return rw_error_errno(RW_ENOENT, ENOENT, "open of %s", path);
    return 0;
}

int sim_file_open(kio *k, const char *path, unsigned flags, kio_file **out)
{
    sim_world *world = sim_world_of(k);
    int rc = small_operation(world, SIM_ON_OPEN, "open", path);
    if (rc == 0) rc = open_check(world, path, flags);
    if (rc != 0) return rc;
    sim_node *node = sim_directory_find(&world->disk->current, path);
    if (node == NULL) node = sim_disk_make(world->disk, path, false);
    sim_node_hold(node);
    sim_file *file = sim_allocate(sizeof *file);
    file->base.path = sim_path_copy(path);
    file->base.direct = (flags & KIO_DIRECT) != 0;
    file->read_only = (flags & KIO_READ_ONLY) != 0;
    file->node = node;
    file->next = world->files;
    if (file->next != NULL) file->next->previous = file;
    world->files = file;
    *out = &file->base;
    return 0;
}

void sim_file_close(kio *k, kio_file *handle)
{
    sim_world *world = sim_world_of(k);
    sim_file *file = file_of(handle);
    sim_point(world);
    RW_ASSERT(file->in_flight == 0);
    if (file->next != NULL) file->next->previous = file->previous;
    if (file->previous != NULL) file->previous->next = file->next;
    else world->files = file->next;
    sim_node_release(world->disk, file->node);
    free(file->base.path);
    free(file);
}

int sim_file_size(kio *k, kio_file *file, uint64_t *bytes)
{
    sim_point(sim_world_of(k));
    *bytes = file_of(file)->node->current.size;
    return 0;
}

int sim_file_resize(kio *k, kio_file *file, uint64_t bytes)
{
    sim_world *world = sim_world_of(k);
    RW_ASSERT(!file_of(file)->read_only);
    int rc = small_operation(world, SIM_ON_ALLOCATE, "resize", file->path);
    if (rc != 0) return rc;
    sim_node_resize(world->disk, file_of(file)->node, bytes);
    sim_trace(world, bytes);
    return 0;
}

int sim_file_allocate(kio *k, kio_file *file, uint64_t offset, uint64_t bytes)
{
    sim_world *world = sim_world_of(k);
    sim_node *node = file_of(file)->node;
    RW_ASSERT(!file_of(file)->read_only && bytes > 0);
    int rc = small_operation(world, SIM_ON_ALLOCATE, "allocation", file->path);
    if (rc != 0) return rc;
    if (!sim_node_allocate(world->disk, node, offset, bytes)) {
        return rw_error_errno(RW_ENOSPC, ENOSPC, "allocation of %llu bytes at offset %llu of %s", (unsigned long long)bytes,
                              (unsigned long long)offset, file->path);
    }
    if (offset + bytes > node->current.size) sim_node_resize(world->disk, node, offset + bytes);
    sim_trace(world, offset + bytes);
    return 0;
}

/* Waits for the operation; writes the sentence when it failed. */
static int io_wait(sim_world *world, sim_io *io, const char *doing)
{
    kio_thread *thread = world->running;
    RW_ASSERT(thread != NULL);
    const char *path = io->file->base.path;
    io->thread = thread;
    thread->doing = doing;
    thread->path = path;
    sim_io_start(world, io);
    sim_thread_block(world, THREAD_IO);
    if (io->result == 0) return 0;
    unsigned long long offset = (unsigned long long)io->offset;
    if (io->errno_value == 0) return rw_error(io->result, "%s of %zu bytes at offset %llu of %s: past the end", doing, io->length, offset, path);
    return rw_error_errno(io->result, io->errno_value, "%s of %zu bytes at offset %llu of %s", doing, io->length, offset, path);
}

int sim_file_read(kio *k, kio_file *file, void *buffer, size_t length, uint64_t offset)
{
    sim_io io = {.kind = KIO_READ, .file = file_of(file), .buffer = buffer, .offset = offset, .length = length};
    return io_wait(sim_world_of(k), &io, "read");
}

static int write_of_kind(kio *k, kio_kind kind, kio_file *file, const void *buffer, size_t length, uint64_t offset)
{
    union {
        const void *in;
        void *out;
    } unconst = {.in = buffer};   /* sim_io holds either direction's buffer */
    sim_io io = {.kind = kind, .file = file_of(file), .buffer = unconst.out, .offset = offset, .length = length};
    return io_wait(sim_world_of(k), &io, kind == KIO_WRITE ? "write" : "durable write");
}

int sim_file_write(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset)
{
    return write_of_kind(k, KIO_WRITE, file, buffer, length, offset);
}

int sim_file_write_durable(kio *k, kio_file *file, const void *buffer, size_t length, uint64_t offset)
{
    return write_of_kind(k, KIO_WRITE_DURABLE, file, buffer, length, offset);
}

int sim_file_sync(kio *k, kio_file *file)
{
    sim_io io = {.kind = KIO_SYNC, .file = file_of(file)};
    return io_wait(sim_world_of(k), &io, "sync");
}

uint64_t sim_file_device(kio *k, kio_file *file)
{
    (void)file;
    return sim_world_of(k)->disk->device;
}

bool sim_file_is_direct(kio *k, kio_file *file)
{
    (void)k;
    return file->direct;
}

/* ---- names ---- */

int sim_directory_create(kio *k, const char *path)
{
    sim_world *world = sim_world_of(k);
    int rc = small_operation(world, SIM_ON_DIRECTORY, "creation", path);
    if (rc != 0) return rc;
    const sim_node *node = sim_directory_find(&world->disk->current, path);
    if (node != NULL && !node->is_directory) return rw_error_errno(RW_EEXIST, EEXIST, "creation of directory %s", path);
    if (node != NULL) return 0;
    if (!sim_path_has_parent(&world->disk->current, path)) return rw_error_errno(RW_ENOENT, ENOENT, "creation of directory %s", path);
    (void)sim_disk_make(world->disk, path, true);
    return 0;
}

int sim_directory_sync(kio *k, const char *path)
{
    sim_world *world = sim_world_of(k);
    uint64_t up_to = world->disk->sequence;
    int rc = small_operation(world, SIM_ON_DIRECTORY | SIM_ON_SYNC, "sync of the directory", path);
    if (rc != 0) return rc;
    sim_disk_sync_names(world->disk, path, up_to);
    return 0;
}

int sim_unlink(kio *k, const char *path)
{
    sim_world *world = sim_world_of(k);
    int rc = small_operation(world, SIM_ON_DIRECTORY, "unlink", path);
    if (rc != 0) return rc;
    if (sim_directory_find(&world->disk->current, path) == NULL) return rw_error_errno(RW_ENOENT, ENOENT, "unlink of %s", path);
    sim_disk_unlink(world->disk, path);
    return 0;
}

/* ---- locks ---- */

int sim_lock_take(kio *k, const char *path, unsigned flags, kio_lock **out)
{
    sim_world *world = sim_world_of(k);
    int rc = small_operation(world, SIM_ON_OPEN, "lock", path);
    /* a fault that says so stands for a file that may not be written */
    bool shared = (flags & KIO_READ_ONLY) != 0 && (rc == RW_EACCESS || rc == RW_EREADONLY);
    if (rc == 0 || shared) rc = open_check(world, path, shared ? 0 : KIO_CREATE);
    if (shared && rc == RW_ENOENT) {
        *out = NULL;
        return 0;
    }
    if (rc != 0) return rc;
    for (const kio_lock *lock = world->locks; lock != NULL; lock = lock->next) {
        if (!(shared && lock->shared) && strcmp(lock->path, path) == 0) return rw_error(RW_EBUSY, "%s is locked by this process", path);
    }
    if (sim_directory_find(&world->disk->current, path) == NULL) (void)sim_disk_make(world->disk, path, false);
    kio_lock *lock = sim_allocate(sizeof *lock);
    lock->path = sim_path_copy(path);
    lock->shared = shared;
    lock->next = world->locks;
    world->locks = lock;
    *out = lock;
    return 0;
}

void sim_lock_release(kio *k, kio_lock *lock)
{
    sim_world *world = sim_world_of(k);
    sim_point(world);
    kio_lock **link = &world->locks;
    while (*link != lock) {
        RW_ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = lock->next;
    free(lock->path);
    free(lock);
}
