/*
 * The inside of the disk, for the parts of the simulator only.
 *
 * A file (node) has two images: `current`, which reads see, and `durable`, which a power cut leaves for certain. What lies between
 * them is the list of changes, in the order in which they completed. A sync moves changes to the durable image. The names of files work
 * the same way: a current and a durable directory and the list of name changes between them.
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "base/base.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_image.h"

typedef enum { SIM_CHANGE_BYTES, SIM_CHANGE_SIZE } sim_change_kind;

/* Whether a power cut leaves a change: maybe, until a sync covers it; certainly, as what a durable write wrote; never, and no sync can help it any more. */
typedef enum { SIM_FATE_OPEN, SIM_FATE_DURABLE, SIM_FATE_LOST } sim_fate;

typedef struct sim_change {
    struct sim_change *next;
    struct sim_change *previous;   /* in the in-flight list only */
    uint64_t sequence;             /* when it completed, over the whole disk */
    sim_change_kind kind;
    sim_fate fate;
    uint64_t offset;               /* of the bytes; or the new size */
    size_t length;
    unsigned char bytes[];
} sim_change;

typedef struct sim_node {
    uint64_t number;               /* from 1, in order of creation */
    uint32_t references;           /* names in directories and in name changes, open files, operations */
    bool is_directory;
    sim_image current;
    sim_image durable;
    sim_change *changes, **changes_end;
    sim_change *in_flight;         /* writes that were handed over and have not completed */
    unsigned char *allocated;      /* one byte for each block: 1 when it takes up space */
    size_t allocated_count;
} sim_node;

typedef struct {
    char *path;
    sim_node *node;
} sim_name;

typedef struct {
    sim_name *names;
    size_t count;
} sim_directory;

typedef enum { SIM_NAME_ADD, SIM_NAME_REMOVE } sim_name_kind;

typedef struct sim_name_change {
    struct sim_name_change *next;
    uint64_t sequence;
    sim_name_kind kind;
    char *path;
    sim_node *node;                /* SIM_NAME_ADD */
} sim_name_change;

struct sim_disk {
    sim_directory current, durable;
    sim_name_change *name_changes, **name_changes_end;
    uint64_t sequence;             /* of the last change */
    uint64_t nodes;                /* made so far */
    uint64_t limit, used;          /* bytes */
    unsigned worlds;               /* open over it */
    uint64_t device;               /* what kio_file_device says */
    char origin[96];
};

/* names */
char *sim_path_copy(const char *path);                           /* without trailing slashes */
bool sim_path_has_parent(const sim_directory *directory, const char *path);
sim_node *sim_directory_find(const sim_directory *directory, const char *path);
void sim_directory_add(sim_disk *disk, sim_directory *directory, const char *path, sim_node *node);
void sim_directory_remove(sim_disk *disk, sim_directory *directory, const char *path);
void sim_directory_move(sim_disk *disk, sim_directory *directory, const char *from, const char *to);
sim_node *sim_disk_make(sim_disk *disk, const char *path, bool is_directory);   /* the node is the directory's */
void sim_disk_unlink(sim_disk *disk, const char *path);
void sim_disk_sync_names(sim_disk *disk, const char *directory, uint64_t up_to);
void sim_name_change_apply(sim_disk *disk, sim_directory *directory, const sim_name_change *change);
void sim_name_changes_free(sim_disk *disk);

/* nodes */
sim_node *sim_node_new(sim_disk *disk, bool is_directory);
void sim_node_hold(sim_node *node);
void sim_node_release(sim_disk *disk, sim_node *node);
/* False, and nothing done, when the disk has no room for the range. */
bool sim_node_allocate(sim_disk *disk, sim_node *node, uint64_t offset, uint64_t length);
void sim_node_resize(sim_disk *disk, sim_node *node, uint64_t size);
/* A write: handed over, then either completed (its first `length` bytes; it is the node's from then on) or dropped. fate: of its bytes; a size that it changes
 * waits for a sync in any case. */
sim_change *sim_node_write_begin(sim_node *node, uint64_t offset, const void *bytes, size_t length);
void sim_node_write_complete(sim_disk *disk, sim_node *node, sim_change *change, size_t length, sim_fate fate);
void sim_node_write_drop(sim_node *node, sim_change *change);
/* Makes the changes up to that sequence number durable, but for those that are lost. */
void sim_node_sync(sim_node *node, uint64_t up_to);
/* What a failed sync does: a drawn part of these changes gets durable, none of them is ever covered by a later sync. */
void sim_node_sync_fail(sim_node *node, uint64_t up_to, rw_random *random);
void sim_change_apply(sim_image *image, const sim_change *change);

#endif
