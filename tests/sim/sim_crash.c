/* What a power cut, or a kill, leaves of a disk. */
#include <stdlib.h>

#include "tests/sim/sim_disk.h"

typedef enum { FATE_DROP, FATE_KEEP, FATE_GARBLE } crash_fate;

typedef struct {
    sim_crash_style style;
    rw_random *random;
    uint64_t keep_256;      /* chance of a part to be kept, of 256 */
    uint64_t garble_256;
    uint64_t cut;           /* SIM_CRASH_PREFIX: the first sequence number that is not kept whole */
    bool keep_file;         /* SIM_CRASH_FILES: the file at hand */
} crash_plan;

typedef struct {
    const sim_node *old;
    sim_node *made;
} node_pair;

typedef struct {
    node_pair *pairs;
    size_t count;
} node_map;

static crash_fate plan_draw(const crash_plan *plan)
{
    uint64_t draw = rw_random_below(plan->random, 256);
    if (draw < plan->keep_256) return FATE_KEEP;
    return draw < plan->keep_256 + plan->garble_256 ? FATE_GARBLE : FATE_DROP;
}

/* Of a change as a whole; what tells true must be decided sector by sector instead. */
static bool plan_is_by_sector(const crash_plan *plan, uint64_t sequence)
{
    if (plan->style == SIM_CRASH_PREFIX) return sequence == plan->cut;
    return plan->style == SIM_CRASH_SECTORS || plan->style == SIM_CRASH_MOST || plan->style == SIM_CRASH_GARBLE;
}

static bool plan_keeps(const crash_plan *plan, uint64_t sequence)
{
    switch (plan->style) {
    case SIM_CRASH_DROP_ALL: return false;
    case SIM_CRASH_KEEP_ALL: return true;
    case SIM_CRASH_PREFIX: return sequence < plan->cut;
    case SIM_CRASH_FILES: return plan->keep_file;
    default: return plan_draw(plan) == FATE_KEEP;
    }
}

static void write_garbage(const crash_plan *plan, sim_image *image, uint64_t offset, size_t length)
{
    unsigned char garbage[SIM_SECTOR_BYTES];
    RW_ASSERT(length <= sizeof garbage);
    for (size_t i = 0; i < length; i++) garbage[i] = (unsigned char)rw_random_next(plan->random);
    sim_image_write(image, offset, garbage, length);
}

static void apply_sectors(const crash_plan *plan, sim_image *image, const sim_change *change)
{
    for (size_t at = 0, piece; at < change->length; at += piece) {
        uint64_t offset = change->offset + at;
        piece = RW_MIN(change->length - at, SIM_SECTOR_BYTES - (size_t)(offset % SIM_SECTOR_BYTES));
        crash_fate fate = plan_draw(plan);
        if (fate == FATE_KEEP) sim_image_write(image, offset, change->bytes + at, piece);
        else if (fate == FATE_GARBLE) write_garbage(plan, image, offset, piece);
    }
}

static void apply_change(const crash_plan *plan, sim_image *image, const sim_change *change, uint64_t sequence)
{
    if (change->fate == SIM_FATE_LOST) return;
    if (change->fate == SIM_FATE_DURABLE) sim_change_apply(image, change);
    else if (change->kind == SIM_CHANGE_BYTES && plan_is_by_sector(plan, sequence)) apply_sectors(plan, image, change);
    else if (plan_keeps(plan, sequence)) sim_change_apply(image, change);
}

static void image_settle(sim_image *image)
{
    sim_image_trim(image, image->size);
}

static void crash_node_contents(crash_plan *plan, sim_image *image, const sim_node *old, uint64_t next_sequence)
{
    plan->keep_file = rw_random_below(plan->random, 2) == 0;
    for (const sim_change *change = old->changes; change != NULL; change = change->next) {
        apply_change(plan, image, change, change->sequence);
    }
    /* What is in flight has no order: a later write may have reached the medium first. One that makes the file longer may have done that, too. */
    for (const sim_change *change = old->in_flight; change != NULL; change = change->next) {
        uint64_t end = change->offset + change->length;
        apply_change(plan, image, change, next_sequence);
        if (end > old->current.size && end > image->size && (plan->style == SIM_CRASH_KEEP_ALL || rw_random_below(plan->random, 2) == 0)) image->size = end;
    }
    image_settle(image);
}

/* A kill: what was in flight is there up to some sector, often wholly or not at all. */
static void kill_node_contents(crash_plan *plan, sim_image *image, const sim_node *old)
{
    for (const sim_change *change = old->in_flight; change != NULL; change = change->next) {
        size_t sectors = (change->length + SIM_SECTOR_BYTES - 1) / SIM_SECTOR_BYTES;
        size_t kept = (size_t)rw_random_below(plan->random, 3 * sectors + 1);
        size_t length = kept >= 2 * sectors ? 0 : RW_MIN(kept * SIM_SECTOR_BYTES, change->length);
        sim_image_write(image, change->offset, change->bytes, length);
        /* a file gets longer when the write that makes it so is done */
        if (length == change->length) image->size = RW_MAX(image->size, change->offset + length);
    }
    image_settle(image);
}

static void node_take_blocks(sim_disk *disk, sim_node *node, const sim_node *old)
{
    size_t blocks = (size_t)((node->current.size + RW_BLOCK_SIZE - 1) / RW_BLOCK_SIZE);
    node->allocated = sim_allocate(RW_MAX(blocks, (size_t)1));
    node->allocated_count = blocks;
    for (size_t i = 0; i < blocks; i++) {
        bool is_taken = i < old->allocated_count && old->allocated[i] != 0;
        node->allocated[i] = is_taken;
        if (is_taken) disk->used += RW_BLOCK_SIZE;
    }
}

static sim_node *map_node(node_map *map, sim_disk *disk, const sim_disk *from, const sim_node *old, crash_plan *plan)
{
    for (size_t i = 0; i < map->count; i++) {
        if (map->pairs[i].old == old) return map->pairs[i].made;
    }
    sim_node *node = sim_node_new(disk, old->is_directory);
    if (plan->style == SIM_CRASH_STYLES) {
        sim_image_copy(&node->durable, &old->current);
        kill_node_contents(plan, &node->durable, old);
    } else {
        sim_image_copy(&node->durable, &old->durable);
        crash_node_contents(plan, &node->durable, old, from->sequence + 1);
    }
    sim_image_copy(&node->current, &node->durable);
    node_take_blocks(disk, node, old);
    sim_node_hold(node);
    map->pairs = sim_reallocate(map->pairs, (map->count + 1) * sizeof *map->pairs);
    map->pairs[map->count++] = (node_pair){.old = old, .made = node};
    return node;
}

static void drop_orphans(sim_disk *disk)
{
    for (size_t i = 0; i < disk->durable.count;) {
        const char *path = disk->durable.names[i].path;
        if (sim_path_has_parent(&disk->durable, path)) {
            i++;
        } else {
            sim_directory_remove(disk, &disk->durable, path);
            i = 0;
        }
    }
}

static sim_disk *disk_after(const sim_disk *from, crash_plan *plan, const char *origin)
{
    sim_disk *disk = sim_disk_create();
    node_map map = {0};
    disk->limit = from->limit;
    disk->device = from->device;
    snprintf(disk->origin, sizeof disk->origin, "%s", origin);
    bool killed = plan->style == SIM_CRASH_STYLES;
    const sim_directory *names = killed ? &from->current : &from->durable;
    for (size_t i = 0; i < names->count; i++) {
        sim_directory_add(disk, &disk->durable, names->names[i].path, map_node(&map, disk, from, names->names[i].node, plan));
    }
    for (const sim_name_change *change = from->name_changes; change != NULL && !killed; change = change->next) {
        plan->keep_file = rw_random_below(plan->random, 2) == 0;
        if (!plan_keeps(plan, change->sequence)) continue;
        sim_name_change kept = *change;
        if (kept.node != NULL) kept.node = map_node(&map, disk, from, kept.node, plan);
        sim_name_change_apply(disk, &disk->durable, &kept);
    }
    drop_orphans(disk);
    for (size_t i = 0; i < disk->durable.count; i++) {
        sim_directory_add(disk, &disk->current, disk->durable.names[i].path, disk->durable.names[i].node);
    }
    for (size_t i = 0; i < map.count; i++) sim_node_release(disk, map.pairs[i].made);
    free(map.pairs);
    return disk;
}

/* The sequence numbers that still matter, for the draw of a cut. */
static uint64_t oldest_sequence(const sim_disk *disk)
{
    uint64_t oldest = disk->sequence + 1;
    if (disk->name_changes != NULL) oldest = disk->name_changes->sequence;
    for (size_t i = 0; i < disk->current.count; i++) {
        const sim_change *change = disk->current.names[i].node->changes;
        if (change != NULL) oldest = RW_MIN(oldest, change->sequence);
    }
    return oldest;
}

sim_disk *sim_disk_crash_styled(const sim_disk *disk, sim_crash_style style, rw_random *random)
{
    static const char *const texts[] = {
#define SIM_CRASH_TEXT(name, text) text,
        SIM_CRASH_MAP(SIM_CRASH_TEXT)
#undef SIM_CRASH_TEXT
    };
    static const uint64_t chances_256[] = {32, 128, 224};
    RW_ASSERT(style < SIM_CRASH_STYLES);
    uint64_t oldest = oldest_sequence(disk);
    crash_plan plan = {.style = style, .random = random};
    plan.keep_256 = style == SIM_CRASH_MOST ? 252 : chances_256[rw_random_below(random, RW_ARRAY_SIZE(chances_256))];
    plan.garble_256 = style == SIM_CRASH_GARBLE ? (256 - plan.keep_256) / 2 : 0;
    plan.cut = oldest + rw_random_below(random, disk->sequence + 2 - oldest);
    char origin[96];
    snprintf(origin, sizeof origin, "power cut, %s", texts[style]);
    return disk_after(disk, &plan, origin);
}

sim_disk *sim_disk_crash(const sim_disk *disk, rw_random *random)
{
    return sim_disk_crash_styled(disk, (sim_crash_style)rw_random_below(random, SIM_CRASH_STYLES), random);
}

sim_disk *sim_disk_kill(const sim_disk *disk, rw_random *random)
{
    crash_plan plan = {.style = SIM_CRASH_STYLES, .random = random};
    return disk_after(disk, &plan, "process killed");
}
