/* Nodes: images, changes, space. The names are in sim_names.c, crashes in sim_crash.c. */
#include "tests/sim/sim_disk.h"

#include <stdlib.h>

#define BLOCK RW_BLOCK_SIZE

sim_disk *sim_disk_create(void)
{
    sim_disk *disk = sim_allocate(sizeof *disk);
    disk->limit = UINT64_MAX;
    disk->device = 1;
    disk->name_changes_end = &disk->name_changes;
    snprintf(disk->origin, sizeof disk->origin, "made empty");
    return disk;
}

static void directory_free(sim_disk *disk, sim_directory *directory)
{
    while (directory->count > 0) sim_directory_remove(disk, directory, directory->names[directory->count - 1].path);
    free(directory->names);
    directory->names = NULL;
}

void sim_disk_destroy(sim_disk *disk)
{
    RW_ASSERT(disk->worlds == 0);
    sim_name_changes_free(disk);
    directory_free(disk, &disk->current);
    directory_free(disk, &disk->durable);
    RW_ASSERT(disk->used == 0);
    free(disk);
}

void sim_disk_limit(sim_disk *disk, uint64_t bytes)
{
    disk->limit = bytes;
}

uint64_t sim_disk_used(const sim_disk *disk)
{
    return disk->used;
}

void sim_disk_device(sim_disk *disk, uint64_t device)
{
    disk->device = device;
}

const char *sim_disk_origin(const sim_disk *disk)
{
    return disk->origin;
}

sim_node *sim_node_new(sim_disk *disk, bool is_directory)
{
    sim_node *node = sim_allocate(sizeof *node);
    node->number = ++disk->nodes;
    node->is_directory = is_directory;
    node->changes_end = &node->changes;
    return node;
}

void sim_node_hold(sim_node *node)
{
    node->references++;
}

static void node_free_blocks(sim_disk *disk, sim_node *node, size_t from)
{
    for (size_t i = from; i < node->allocated_count; i++) {
        disk->used -= (uint64_t)node->allocated[i] * BLOCK;
        node->allocated[i] = 0;
    }
}

void sim_node_release(sim_disk *disk, sim_node *node)
{
    RW_ASSERT(node->references > 0);
    if (--node->references > 0) return;
    RW_ASSERT(node->in_flight == NULL);
    node_free_blocks(disk, node, 0);
    free(node->allocated);
    for (sim_change *change = node->changes, *next; change != NULL; change = next) {
        next = change->next;
        free(change);
    }
    sim_image_free(&node->current);
    sim_image_free(&node->durable);
    free(node);
}

/* The bytes that the range would take up beyond what it has. */
static uint64_t node_need(const sim_node *node, uint64_t offset, uint64_t length)
{
    uint64_t need = 0;
    for (uint64_t block = offset / BLOCK; block * BLOCK < offset + length; block++) {
        if (block >= node->allocated_count || node->allocated[block] == 0) need += BLOCK;
    }
    return need;
}

bool sim_node_allocate(sim_disk *disk, sim_node *node, uint64_t offset, uint64_t length)
{
    uint64_t need = node_need(node, offset, length);
    if (need == 0) return true;
    if (disk->used > disk->limit || need > disk->limit - disk->used) return false;
    size_t end = (size_t)((offset + length + BLOCK - 1) / BLOCK);
    if (end > node->allocated_count) {
        node->allocated = sim_reallocate(node->allocated, end);
        memset(node->allocated + node->allocated_count, 0, end - node->allocated_count);
        node->allocated_count = end;
    }
    memset(node->allocated + offset / BLOCK, 1, end - offset / BLOCK);
    disk->used += need;
    return true;
}

static void node_append(sim_disk *disk, sim_node *node, sim_change *change)
{
    change->sequence = ++disk->sequence;
    change->next = NULL;
    *node->changes_end = change;
    node->changes_end = &change->next;
    sim_change_apply(&node->current, change);
}

static void node_append_size(sim_disk *disk, sim_node *node, uint64_t size)
{
    sim_change *change = sim_allocate(sizeof *change);
    change->kind = SIM_CHANGE_SIZE;
    change->offset = size;
    node_append(disk, node, change);
}

void sim_node_resize(sim_disk *disk, sim_node *node, uint64_t size)
{
    if (size == node->current.size) return;
    node_append_size(disk, node, size);
    node_free_blocks(disk, node, (size_t)((size + BLOCK - 1) / BLOCK));
}

sim_change *sim_node_write_begin(sim_node *node, uint64_t offset, const void *bytes, size_t length)
{
    sim_change *change = malloc(sizeof *change + length);
    RW_ASSERT(change != NULL);
    *change = (sim_change){.kind = SIM_CHANGE_BYTES, .offset = offset, .length = length, .next = node->in_flight};
    memcpy(change->bytes, bytes, length);
    if (node->in_flight != NULL) node->in_flight->previous = change;
    node->in_flight = change;
    return change;
}

static void node_take_off(sim_node *node, sim_change *change)
{
    if (change->next != NULL) change->next->previous = change->previous;
    if (change->previous != NULL) change->previous->next = change->next;
    else node->in_flight = change->next;
}

/* Takes the oldest change off the list; NULL when that is newer than up_to, or there is none. */
static sim_change *node_pop(sim_node *node, uint64_t up_to)
{
    sim_change *change = node->changes;
    if (change == NULL || change->sequence > up_to) return NULL;
    node->changes = change->next;
    if (node->changes == NULL) node->changes_end = &node->changes;
    return change;
}

/* What is settled leaves the list once nothing older is open. Until then it stays in its place: an older change that is kept must not come over it. */
static void node_settle(sim_node *node)
{
    while (node->changes != NULL && node->changes->fate != SIM_FATE_OPEN) {
        sim_change *change = node_pop(node, UINT64_MAX);
        if (change->fate == SIM_FATE_DURABLE) sim_change_apply(&node->durable, change);
        free(change);
    }
}

void sim_node_write_complete(sim_disk *disk, sim_node *node, sim_change *change, size_t length, sim_fate fate)
{
    RW_ASSERT(length <= change->length);
    node_take_off(node, change);
    change->length = length;
    change->fate = fate;
    if (length == 0) {
        free(change);
        return;
    }
    /* The size first: a power cut that keeps it and drops the bytes leaves zeros, one that drops it leaves neither. */
    if (change->offset + length > node->current.size) node_append_size(disk, node, change->offset + length);
    node_append(disk, node, change);
    node_settle(node);
}

void sim_node_write_drop(sim_node *node, sim_change *change)
{
    node_take_off(node, change);
    free(change);
}

void sim_change_apply(sim_image *image, const sim_change *change)
{
    if (change->kind == SIM_CHANGE_BYTES) {
        sim_image_write(image, change->offset, change->bytes, change->length);
    } else {
        if (change->offset < image->size) sim_image_trim(image, change->offset);
        image->size = change->offset;
    }
}

void sim_node_sync(sim_node *node, uint64_t up_to)
{
    for (sim_change *change; (change = node_pop(node, up_to)) != NULL; free(change)) {
        if (change->fate != SIM_FATE_LOST) sim_change_apply(&node->durable, change);
    }
    node_settle(node);
}

void sim_node_sync_fail(sim_node *node, uint64_t up_to, rw_random *random)
{
    for (sim_change *change; (change = node_pop(node, up_to)) != NULL; free(change)) {
        bool kept = change->kind == SIM_CHANGE_SIZE || change->fate == SIM_FATE_DURABLE || (rw_random_below(random, 2) == 0 && change->fate != SIM_FATE_LOST);
        if (kept) sim_change_apply(&node->durable, change);
    }
    node_settle(node);
}

/* ---- direct access ---- */

bool sim_disk_read(const sim_disk *disk, const char *path, uint64_t offset, void *buffer, size_t length)
{
    const sim_node *node = sim_directory_find(&disk->current, path);
    if (node == NULL || offset > node->current.size || length > node->current.size - offset) return false;
    sim_image_read(&node->current, offset, buffer, length);
    return true;
}

bool sim_disk_size(const sim_disk *disk, const char *path, uint64_t *size)
{
    const sim_node *node = sim_directory_find(&disk->current, path);
    if (node == NULL || node->is_directory) return false;
    *size = node->current.size;
    return true;
}

void sim_disk_write(sim_disk *disk, const char *path, uint64_t offset, const void *buffer, size_t length)
{
    sim_node *node = sim_directory_find(&disk->current, path);
    if (node == NULL) {
        node = sim_disk_make(disk, path, false);
        sim_disk_sync_names(disk, NULL, disk->sequence);
    }
    RW_ASSERT(sim_node_allocate(disk, node, offset, length));
    sim_node_write_complete(disk, node, sim_node_write_begin(node, offset, buffer, length), length, SIM_FATE_OPEN);
    sim_node_sync(node, disk->sequence);
}

bool sim_disk_truncate(sim_disk *disk, const char *path, uint64_t size)
{
    sim_node *node = sim_directory_find(&disk->current, path);
    if (node == NULL) return false;
    sim_node_resize(disk, node, size);
    sim_node_sync(node, disk->sequence);
    return true;
}

bool sim_disk_flip(sim_disk *disk, const char *path, uint64_t offset, unsigned bit)
{
    sim_node *node = sim_directory_find(&disk->current, path);
    if (node == NULL || offset >= node->current.size) return false;
    sim_image_flip(&node->current, offset, bit);
    sim_image_flip(&node->durable, offset, bit);
    return true;
}

bool sim_disk_remove(sim_disk *disk, const char *path)
{
    if (sim_directory_find(&disk->current, path) == NULL) return false;
    sim_disk_unlink(disk, path);
    sim_disk_sync_names(disk, NULL, disk->sequence);
    return true;
}

const char *sim_disk_path(const sim_disk *disk, size_t index)
{
    for (size_t i = 0; i < disk->current.count; i++) {
        if (!disk->current.names[i].node->is_directory && index-- == 0) return disk->current.names[i].path;
    }
    return NULL;
}
