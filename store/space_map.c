/* The space map: what is alive in each segment, left for the next open by a clean publish. superblock_format.h has the bytes. */
#include <stdio.h>

#include "store/store_internal.h"

uint32_t space_map_blocks(uint32_t segment_count)
{
    return (uint32_t)((SPACE_MAP_HEADER_BYTES + (uint64_t)segment_count * sizeof(uint32_t) + RW_BLOCK_SIZE - 1) / RW_BLOCK_SIZE);
}

/* ---- writing ---- */

/* With both mutexes held, and the mutex let go while the file grows. Its growing lengthens the map: then once more, with the room that this one leaves. */
static int map_allocate(store *s, store_run *run)
{
    for (;;) {
        run->blocks = space_map_blocks(s->segments.count);
        uint32_t needed = segments_allocate(s, STORE_PAGES, run->blocks, &run->address);
        if (needed == 0) {
            if (space_map_blocks(s->segments.count) == run->blocks) return 0;
            segments_release(s, run->address, run->blocks, true);
            continue;
        }
        kio_mutex_unlock(s->k, &s->mutex);
        int result = segments_grow(s, needed);
        kio_mutex_lock(s->k, &s->mutex);
        if (result != 0) return result;
    }
}

/* The map that this one replaces is released when this one is published, so it counts as released here. */
static void map_subtract(uint32_t *entries, store_run old)
{
    while (old.blocks > 0) {
        uint32_t part = RW_MIN(old.blocks, SEGMENT_BLOCKS - (uint32_t)(old.address % SEGMENT_BLOCKS));
        uint32_t *entry = &entries[old.address / SEGMENT_BLOCKS];
        RW_ASSERT((*entry & ~SPACE_MAP_SPANNED) >= part);
        *entry -= part;
        if (*entry == SPACE_MAP_SPANNED) *entry = 0;
        old.address += part;
        old.blocks -= part;
    }
}

static void map_fill(store *s, store_run *run, unsigned char *bytes)
{
    const segments *g = &s->segments;
    uint32_t count = g->count;
    uint32_t *entries = (uint32_t *)(void *)(bytes + SPACE_MAP_HEADER_BYTES);
    rw_store_u32(bytes + sizeof(page_header), count);
    for (uint32_t n = 1; n < count; n++)
        if (g->live[n] != 0) entries[n] = g->live[n] | (g->flags[n].spanned ? SPACE_MAP_SPANNED : 0);
    map_subtract(entries, s->map);
    run->checksum = page_seal(s, bytes, run->blocks * RW_BLOCK_SIZE, PAGE_SPACE_MAP, run->address);
}

int space_map_make(store *s, store_run *run, void **memory)
{
    kio_mutex_lock(s->k, &s->length_mutex); /* nobody changes the file's length while it is sealed */
    kio_mutex_lock(s->k, &s->mutex);
    int result = map_allocate(s, run);
    if (result == 0) {
        *memory = store_memory((size_t)run->blocks * RW_BLOCK_SIZE);
        if (*memory == NULL) {
            segments_release(s, run->address, run->blocks, true);
            result = rw_error(RW_ENOMEM, "no memory for the space map: %u blocks", run->blocks);
        }
    }
    if (result == 0) {
        segments_check(s);
        map_fill(s, run, *memory);
        s->sealed = true;
    }
    kio_mutex_unlock(s->k, &s->mutex);
    kio_mutex_unlock(s->k, &s->length_mutex);
    return result;
}

/* ---- reading ---- */

static int map_load(store *s, store_run run, unsigned char *bytes)
{
    uint32_t length = run.blocks * RW_BLOCK_SIZE;
    int result = kio_file_read(s->k, s->file, bytes, length, run.address * RW_BLOCK_SIZE);
    if (result == 0) result = page_check(s, bytes, length, PAGE_SPACE_MAP, run.address, run.checksum);
    if (result != 0) return result;
    uint32_t count = rw_load_u32(bytes + sizeof(page_header));
    if (count > SEGMENTS_MAX || space_map_blocks(count) != run.blocks)
        return rw_error(RW_ECORRUPT, "%s: a space map of %u segments does not take %u blocks", kio_file_path(s->file), count, run.blocks);
    return segments_load(s, (const uint32_t *)(const void *)(bytes + SPACE_MAP_HEADER_BYTES), count);
}

/*
 * Everything can be claimed instead, so a map that cannot be used closes nobody out. Its run stays alive until the next publish all
 * the same: the segments that are free are then those that the map would have said, whether it can be read the next time or not.
 */
int space_map_read(store *s, const superblock *block)
{
    int result;
    void *bytes = NULL;
    s->claims_needed = true;
    if (!block->clean) return 0;
    if (!segments_contain(s, block->map.address, block->map.blocks) || block->map.blocks > space_map_blocks(SEGMENTS_MAX)) {
        result = rw_error(RW_ECORRUPT, "%s: the space map at offset %llu, %u blocks, lies outside of the file", kio_file_path(s->file),
                          (unsigned long long)block->map.address * RW_BLOCK_SIZE, block->map.blocks);
    } else {
        s->map = block->map;
        bytes = store_memory((size_t)block->map.blocks * RW_BLOCK_SIZE);
        if (bytes == NULL) return rw_error(RW_ENOMEM, "no memory for the space map: %u blocks", block->map.blocks);
        result = map_load(s, block->map, bytes);
    }
    free(bytes);
    s->claims_needed = result != 0;
    if (result == 0) return 0;
    snprintf(s->map_damage, sizeof s->map_damage, "%s", rw_error_text());
    if (s->map.blocks > 0) result = store_claim(s, s->map.address, s->map.blocks);
    if (result == RW_ENOMEM) return result;
    if (result != 0) s->map = (store_run){0};
    return 0;
}

void store_space_map_run(const store *s, uint64_t *address, uint32_t *blocks)
{
    *address = s->map.address;
    *blocks = s->map.blocks;
}

const char *store_space_map_damage(const store *s)
{
    return s->map_damage[0] != 0 ? s->map_damage : NULL;
}
