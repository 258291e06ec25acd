/* Superblocks as they are written: sizes, copies of images, encoding. superblock_format.h has the bytes. */
#include "store/store_internal.h"

uint32_t superblock_slot_of(uint64_t generation)
{
    /* generation 0, the mark of a creation that has begun, leaves slot 0 to generation 1 */
    return generation == 0 ? 1 : (uint32_t)((generation - 1) % SUPERBLOCK_SLOTS);
}

static size_t superblock_spills(const store_image *image)
{
    size_t count = 0;
    for (uint32_t i = 0; i < image->partition_count; i++) count += image->partitions[i].spill_count;
    return count;
}

static bool numbers_given(const store_image *image)
{
    bool given = false;
    for (uint32_t i = 0; i < image->partition_count; i++) given = given || image->partitions[i].spill_number > 0;
    return given;
}

static size_t superblock_bytes(const store_image *image)
{
    size_t bytes = sizeof(superblock_header) + image->partition_count * sizeof(superblock_partition);
    for (uint32_t i = 0; i < image->partition_count; i++) bytes += image->partitions[i].low_key.size;
    bytes += superblock_spills(image) * sizeof(superblock_spill);
    return rw_align_up(bytes, RW_BLOCK_SIZE);
}

bool store_image_fits(const store_image *image)
{
    if (image->partition_count > RW_PARTITIONS_MAX) return false;
    for (uint32_t i = 0; i < image->partition_count; i++)
        if (image->partitions[i].low_key.size > RW_PAGE_SIZE_MAX) return false;
    return superblock_bytes(image) <= SUPERBLOCK_SLOT_BYTES;
}

/* ---- images ---- */

int superblock_image_copy(store_image *to, const store_image *from)
{
    size_t bytes = from->partition_count * sizeof(store_partition), table = bytes;
    for (uint32_t i = 0; i < from->partition_count; i++) bytes += from->partitions[i].low_key.size;
    store_image copy = *from;
    copy.partitions = malloc(bytes + 1);
    if (copy.partitions == NULL) return rw_error(RW_ENOMEM, "no memory for the partition table of a superblock: %zu bytes", bytes);
    char *at = (char *)copy.partitions + table;
    for (uint32_t i = 0; i < from->partition_count; i++) {
        rw_slice key = from->partitions[i].low_key;
        copy.partitions[i] = from->partitions[i];
        copy.partitions[i].low_key = rw_slice_of(at, key.size);
        if (key.size > 0) memcpy(at, key.data, key.size);
        at += key.size;
    }
    *to = copy;
    return 0;
}

void superblock_image_free(store_image *image)
{
    free(image->partitions);
    *image = (store_image){0};
}

/* ---- writing ---- */

static void superblock_encode(const superblock *block, unsigned char *bytes, uint32_t length)
{
    const store_image *image = &block->image;
    superblock_header header = {
        .magic = SUPERBLOCK_MAGIC,
        .version = SUPERBLOCK_FORMAT_VERSION,
        .database_id = block->database_id,
        .generation = image->generation,
        .block_size = RW_BLOCK_SIZE,
        .page_size = block->page_size,
        .segment_size = RW_SEGMENT_BYTES,
        .length = length,
        .checkpoint_lsn = image->checkpoint_lsn,
        .durable_lsn = image->durable_lsn,
        .partition_count = image->partition_count,
        .next_partition_id = image->next_partition_id,
        .map_address = block->map.address,
        .map_blocks = block->map.blocks,
        .map_checksum = block->map.checksum,
        .segments = block->segments,
        .flags = (block->clean ? SUPERBLOCK_CLEAN : 0) | (image->log_closed ? SUPERBLOCK_LOG_CLOSED : 0),
    };
    if (block->sync_times.device != 0) {
        header.features_compatible |= SUPERBLOCK_COMPATIBLE_SYNC_TIMES;
        header.sync_device = block->sync_times.device;
        header.sync_ns = block->sync_times.sync_ns;
        header.durable_write_ns = block->sync_times.durable_write_ns;
    }
    size_t spills = superblock_spills(image);
    if (numbers_given(image)) header.features_incompatible |= SUPERBLOCK_INCOMPATIBLE_SPILLS;
    unsigned char *at = bytes + sizeof header, *spill = at + image->partition_count * sizeof(superblock_partition);
    unsigned char *key = spill + spills * sizeof(superblock_spill);
    for (uint32_t i = 0; i < image->partition_count; i++) {
        const store_partition *p = &image->partitions[i];
        superblock_partition entry = {
            .root = p->root, .lsn = p->lsn, .id = p->id, .height = p->height, .low_key_length = (uint32_t)p->low_key.size,
            .spill_count = (uint16_t)p->spill_count, .spill_number = (uint16_t)p->spill_number};
        memcpy(at, &entry, sizeof entry);
        at += sizeof entry;
        for (uint32_t k = 0; k < p->spill_count; k++, spill += sizeof(superblock_spill)) {
            superblock_spill named = {.root = p->spills[k].root, .newest = p->spills[k].newest, .height = p->spills[k].height, .number = p->spills[k].number};
            memcpy(spill, &named, sizeof named);
        }
        if (p->low_key.size > 0) memcpy(key, p->low_key.data, p->low_key.size);
        key += p->low_key.size;
    }
    RW_ASSERT(key <= bytes + length);
    memcpy(bytes, &header, sizeof header);
    header.checksum = rw_checksum(0, bytes, length);
    memcpy(bytes, &header, sizeof header);
}

void *superblock_memory(const store_image *image)
{
    RW_ASSERT(store_image_fits(image));
    void *memory = store_memory(superblock_bytes(image));
    if (memory == NULL) rw_error(RW_ENOMEM, "no memory for a superblock: %zu bytes", superblock_bytes(image));
    return memory;
}

int superblock_write(kio *k, kio_file *file, const superblock *block, void *memory)
{
    uint32_t length = (uint32_t)superblock_bytes(&block->image);
    superblock_encode(block, memory, length);
    return kio_file_write(k, file, memory, length, (uint64_t)superblock_slot_of(block->image.generation) * SUPERBLOCK_SLOT_BYTES);
}
