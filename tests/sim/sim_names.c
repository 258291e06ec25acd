/* Names: two directories, as they are and as they are durable, and the changes between them. */
#include <stdlib.h>

#include "tests/sim/sim_disk.h"

/* Without trailing slashes; 0: the root, which is "." too. */
static size_t path_length(const char *path)
{
    size_t length = strcmp(path, ".") == 0 ? 0 : strlen(path);
    while (length > 0 && path[length - 1] == '/') length--;
    return length;
}

char *sim_path_copy(const char *path)
{
    size_t length = path_length(path);
    char *copy = sim_allocate(length + 1);
    memcpy(copy, path, length);
    return copy;
}

/* The bytes of path that name its parent directory; 0: it lies in the root, which is always there. */
static size_t path_parent_length(const char *path)
{
    size_t length = path_length(path);
    while (length > 0 && path[length - 1] != '/') length--;
    return length > 0 ? length - 1 : 0;
}

static sim_name *directory_slot(const sim_directory *directory, const char *path, size_t length)
{
    for (size_t i = 0; i < directory->count; i++) {
        const char *name = directory->names[i].path;
        if (strlen(name) == length && memcmp(name, path, length) == 0) return &directory->names[i];
    }
    return NULL;
}

bool sim_path_has_parent(const sim_directory *directory, const char *path)
{
    size_t length = path_parent_length(path);
    const sim_name *parent = directory_slot(directory, path, length);
    return length == 0 || (parent != NULL && parent->node->is_directory);
}

sim_node *sim_directory_find(const sim_directory *directory, const char *path)
{
    sim_name *name = directory_slot(directory, path, path_length(path));
    return name != NULL ? name->node : NULL;
}

void sim_directory_add(sim_disk *disk, sim_directory *directory, const char *path, sim_node *node)
{
    sim_node_hold(node);
    sim_directory_remove(disk, directory, path);
    directory->names = sim_reallocate(directory->names, (directory->count + 1) * sizeof *directory->names);
    directory->names[directory->count++] = (sim_name){.path = sim_path_copy(path), .node = node};
}

void sim_directory_remove(sim_disk *disk, sim_directory *directory, const char *path)
{
    sim_name *name = directory_slot(directory, path, path_length(path));
    if (name == NULL) return;
    char *name_path = name->path;
    sim_node *node = name->node;
    size_t after = directory->count - (size_t)(name - directory->names) - 1;
    memmove(name, name + 1, after * sizeof *name);
    directory->count--;
    free(name_path);
    sim_node_release(disk, node);
}

void sim_name_change_apply(sim_disk *disk, sim_directory *directory, const sim_name_change *change)
{
    switch (change->kind) {
    case SIM_NAME_ADD: sim_directory_add(disk, directory, change->path, change->node); break;
    case SIM_NAME_REMOVE: sim_directory_remove(disk, directory, change->path); break;
    }
}

static void disk_change_name(sim_disk *disk, sim_name_kind kind, const char *path, sim_node *node)
{
    sim_name_change *change = sim_allocate(sizeof *change);
    change->sequence = ++disk->sequence;
    change->kind = kind;
    change->path = sim_path_copy(path);
    change->node = node;
    if (node != NULL) sim_node_hold(node);
    *disk->name_changes_end = change;
    disk->name_changes_end = &change->next;
    sim_name_change_apply(disk, &disk->current, change);
}

sim_node *sim_disk_make(sim_disk *disk, const char *path, bool is_directory)
{
    sim_node *node = sim_node_new(disk, is_directory);
    disk_change_name(disk, SIM_NAME_ADD, path, node);
    return node;
}

void sim_disk_unlink(sim_disk *disk, const char *path)
{
    disk_change_name(disk, SIM_NAME_REMOVE, path, NULL);
}

static void name_change_free(sim_disk *disk, sim_name_change *change)
{
    if (change->node != NULL) sim_node_release(disk, change->node);
    free(change->path);
    free(change);
}

void sim_name_changes_free(sim_disk *disk)
{
    for (sim_name_change *change = disk->name_changes, *next; change != NULL; change = next) {
        next = change->next;
        name_change_free(disk, change);
    }
    disk->name_changes = NULL;
    disk->name_changes_end = &disk->name_changes;
}

static bool name_change_is_in(const sim_name_change *change, const char *directory)
{
    size_t length = path_length(directory);
    return path_parent_length(change->path) == length && memcmp(change->path, directory, length) == 0;
}

/* directory NULL: all of them. */
void sim_disk_sync_names(sim_disk *disk, const char *directory, uint64_t up_to)
{
    sim_name_change **link = &disk->name_changes;
    while (*link != NULL && (*link)->sequence <= up_to) {
        sim_name_change *change = *link;
        if (directory != NULL && !name_change_is_in(change, directory)) {
            link = &change->next;
            continue;
        }
        sim_name_change_apply(disk, &disk->durable, change);
        *link = change->next;
        name_change_free(disk, change);
    }
    disk->name_changes_end = &disk->name_changes;
    while (*disk->name_changes_end != NULL) disk->name_changes_end = &(*disk->name_changes_end)->next;
}
