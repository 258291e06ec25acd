/* Superblocks as they are read: nothing is believed before it was checked. superblock_format.h has the rule of validity. */
#include <stdarg.h>
#include <stdio.h>

#include "store/store_internal.h"

/* One slot while it is read. */
typedef struct {
    const char *path;
    uint32_t number;
    uint32_t available;        /* bytes of it that the file has: whole blocks */
    bool scrap;                /* the file has something, and not one block: we never leave it so */
    unsigned char *bytes;      /* SUPERBLOCK_SLOT_BYTES of memory; the superblock's length is filled */
    superblock_slot *out;
} slot_reader;

static uint64_t slot_offset(uint32_t number)
{
    return (uint64_t)number * SUPERBLOCK_SLOT_BYTES;
}

static int slot_says(slot_reader *r, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Settles what is wrong with the slot. */
static int slot_says(slot_reader *r, int code, const char *format, ...)
{
    char why[140];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    snprintf(r->out->text, sizeof r->out->text, "superblock slot %u at offset %llu: %s", r->number,
             (unsigned long long)slot_offset(r->number), why);
    r->out->code = code;
    return code;
}

static bool bytes_are_zero(const unsigned char *bytes, size_t count)
{
    return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

static uint32_t slot_available(uint64_t file_bytes, uint32_t number)
{
    uint64_t at = slot_offset(number);
    uint64_t bytes = file_bytes <= at ? 0 : RW_MIN(file_bytes - at, (uint64_t)SUPERBLOCK_SLOT_BYTES);
    return (uint32_t)(bytes / RW_BLOCK_SIZE * RW_BLOCK_SIZE);
}

/* Whether the partition table and the spills that it counts lie within the superblock. *end: of both. */
static bool spills_fit(const superblock_header *header, const unsigned char *table, size_t *end)
{
    size_t count = header->partition_count, spills = 0;
    bool numbered = false;
    *end = sizeof *header + count * sizeof(superblock_partition);
    if (*end > header->length) return false;
    for (size_t i = 0; i < count; i++) {
        superblock_partition entry;
        memcpy(&entry, table + i * sizeof entry, sizeof entry);
        if (entry.spill_count > STORE_SPILLS_MAX) return false;
        spills += entry.spill_count;
        numbered = numbered || entry.spill_number > 0;
    }
    *end += spills * sizeof(superblock_spill);
    return *end <= header->length && numbered == ((header->features_incompatible & SUPERBLOCK_INCOMPATIBLE_SPILLS) != 0);
}

/* The partition table and its keys, into memory of the image's own. Fails when they do not fill the length as they must. */
static bool partitions_decode(const superblock_header *header, const unsigned char *bytes, store_image *image)
{
    size_t table = sizeof *header, count = header->partition_count, spill = table + count * sizeof(superblock_partition), key;
    if (count > RW_PARTITIONS_MAX || !spills_fit(header, bytes + table, &key)) return false;
    for (size_t i = 0; i < count; i++) {
        superblock_partition entry;
        memcpy(&entry, bytes + table + i * sizeof entry, sizeof entry);
        if (entry.low_key_length > header->length - key) return false;
        image->partitions[i] = (store_partition){
            .root = entry.root,
            .lsn = entry.lsn,
            .id = entry.id,
            .height = entry.height,
            .spill_count = entry.spill_count,
            .spill_number = entry.spill_number,
            .low_key = rw_slice_of(bytes + key, entry.low_key_length),
        };
        for (uint32_t k = 0; k < entry.spill_count; k++, spill += sizeof(superblock_spill)) {
            superblock_spill named;
            memcpy(&named, bytes + spill, sizeof named);
            image->partitions[i].spills[k] = (store_spill){.root = named.root, .newest = named.newest, .height = named.height, .number = named.number};
        }
        key += entry.low_key_length;
    }
    return rw_align_up(key, RW_BLOCK_SIZE) == header->length && bytes_are_zero(bytes + key, header->length - key);
}

/* A page that can be in the file; where it is is looked at when it is read. */
static bool page_is_sane(const superblock_header *header, page_ref ref)
{
    uint64_t blocks = page_ref_blocks(ref);
    return !page_ref_is_frame(ref) && blocks > 0 && blocks * RW_BLOCK_SIZE <= header->page_size && page_ref_address(ref) >= SEGMENT_BLOCKS;
}

static bool partition_is_sane(const superblock_header *header, const store_image *image, uint32_t i)
{
    const store_partition *p = &image->partitions[i];
    if (i == 0 ? p->low_key.size != 0 : rw_slice_compare(image->partitions[i - 1].low_key, p->low_key) >= 0) return false;
    if (p->id >= header->next_partition_id) return false;
    for (uint32_t k = 0; k < p->spill_count; k++) {
        const store_spill *s = &p->spills[k];
        if (!page_is_sane(header, s->root) || s->height < 2 || s->number > p->spill_number || s->number <= (k == 0 ? 0 : p->spills[k - 1].number)) return false;
    }
    if (p->spill_number > PAGE_REF_SPILL_MAX) return false;
    return page_ref_is_none(p->root) || page_is_sane(header, p->root);
}

static bool page_size_is_known(uint32_t page_size)
{
    return rw_is_power_of_two(page_size) && page_size >= RW_PAGE_SIZE_MIN && page_size <= RW_PAGE_SIZE_MAX;
}

/* What the superblock says, once its checksum is right. */
static int slot_decode(slot_reader *r, const superblock_header *h)
{
    store_partition table[RW_PARTITIONS_MAX];
    superblock *block = &r->out->block;
    store_image image = {
        .generation = h->generation,
        .checkpoint_lsn = h->checkpoint_lsn,
        .durable_lsn = h->durable_lsn,
        .log_closed = (h->flags & SUPERBLOCK_LOG_CLOSED) != 0,
        .partition_count = h->partition_count,
        .next_partition_id = h->next_partition_id,
        .partitions = table,
    };
    if (superblock_slot_of(h->generation) != r->number)
        return slot_says(r, RW_ECORRUPT, "generation %llu belongs in the other slot", (unsigned long long)h->generation);
    if (h->database_id == 0 || !page_size_is_known(h->page_size) || h->segments == 0 || h->segments > SEGMENTS_MAX)
        return slot_says(r, RW_ECORRUPT, "impossible database id, page size %u or number of segments %u", h->page_size, h->segments);
    if (!partitions_decode(h, r->bytes, &image)) return slot_says(r, RW_ECORRUPT, "the partition table does not fit its length %u", h->length);
    for (uint32_t i = 0; i < image.partition_count; i++)
        if (!partition_is_sane(h, &image, i)) return slot_says(r, RW_ECORRUPT, "entry %u of the partition table is impossible", i);
    *block = (superblock){
        .database_id = h->database_id,
        .page_size = h->page_size,
        .segments = h->segments,
        .clean = (h->flags & SUPERBLOCK_CLEAN) != 0,
        .map = {.address = h->map_address, .blocks = h->map_blocks, .checksum = h->map_checksum},
    };
    if ((h->features_compatible & SUPERBLOCK_COMPATIBLE_SYNC_TIMES) != 0)
        block->sync_times = (kio_sync_times){.device = h->sync_device, .sync_ns = h->sync_ns, .durable_write_ns = h->durable_write_ns};
    int result = superblock_image_copy(&block->image, &image);
    if (result == 0) r->out->code = 0;
    return result;
}

/* The checks that decide whether this library may read the superblock at all; its checksum is right. */
static int slot_interpret(slot_reader *r, const superblock_header *h)
{
    r->out->sealed = true;
    if (h->version != SUPERBLOCK_FORMAT_VERSION)
        return slot_says(r, RW_EVERSION, "format version %u, this library reads %u", h->version, SUPERBLOCK_FORMAT_VERSION);
    uint64_t unknown = h->features_incompatible & ~SUPERBLOCK_FEATURES_KNOWN;
    if (unknown != 0)
        return slot_says(r, RW_EVERSION, "incompatible feature bit %d is set, which this library does not know", __builtin_ctzll(unknown));
    if (h->block_size != RW_BLOCK_SIZE || h->segment_size != RW_SEGMENT_BYTES)
        return slot_says(r, RW_EVERSION, "blocks of %u bytes in segments of %u, this library is built for %u in %u", h->block_size,
                         h->segment_size, RW_BLOCK_SIZE, RW_SEGMENT_BYTES);
    return slot_decode(r, h);
}

/* A checksum or length that is wrong; a version that this library does not know explains it, when there is nothing better. */
static int slot_is_broken(slot_reader *r, const superblock_header *h, const char *what, uint32_t found, uint32_t expected)
{
    if (h->version != SUPERBLOCK_FORMAT_VERSION)
        return slot_says(r, RW_EVERSION, "format version %u, this library reads %u", h->version, SUPERBLOCK_FORMAT_VERSION);
    return slot_says(r, RW_ECORRUPT, "%s %08x, expected %08x", what, found, expected);
}

static int slot_read(kio *k, kio_file *file, slot_reader *r)
{
    superblock_header header;
    uint64_t at = slot_offset(r->number);
    if (r->scrap) return slot_says(r, RW_EFOREIGN, "the whole file is shorter than a block");
    if (r->available == 0) return slot_says(r, RW_ENOENT, "lies past the end of the file");
    int result = kio_file_read(k, file, r->bytes, RW_BLOCK_SIZE, at);
    if (result != 0) return result;
    memcpy(&header, r->bytes, sizeof header);
    bool blank = bytes_are_zero(r->bytes, RW_BLOCK_SIZE);
    if (header.magic != SUPERBLOCK_MAGIC && !blank) return slot_says(r, RW_EFOREIGN, "no ringwood superblock: magic %016llx", (unsigned long long)header.magic);
    uint32_t length = blank ? r->available : header.length;
    if (length < RW_BLOCK_SIZE || length > r->available || length % RW_BLOCK_SIZE != 0)
        return slot_is_broken(r, &header, "length", length, r->available);
    if (length > RW_BLOCK_SIZE) result = kio_file_read(k, file, r->bytes + RW_BLOCK_SIZE, length - RW_BLOCK_SIZE, at + RW_BLOCK_SIZE);
    if (result != 0) return result;
    if (blank) {
        bool zeros = bytes_are_zero(r->bytes, length);
        return slot_says(r, zeros ? RW_ENOENT : RW_ECORRUPT, zeros ? "holds nothing but zeros" : "its first block is zeros, a later one is not");
    }
    memset(r->bytes + offsetof(superblock_header, checksum), 0, sizeof header.checksum);
    uint32_t checksum = rw_checksum(0, r->bytes, length);
    if (checksum != header.checksum) return slot_is_broken(r, &header, "checksum", checksum, header.checksum);
    return slot_interpret(r, &header);
}

int superblock_read(kio *k, kio_file *file, uint64_t file_bytes, superblock_slot slots[SUPERBLOCK_SLOTS])
{
    int result = 0;
    memset(slots, 0, SUPERBLOCK_SLOTS * sizeof *slots);
    unsigned char *bytes = store_memory(SUPERBLOCK_SLOT_BYTES);
    if (bytes == NULL) return rw_error(RW_ENOMEM, "no memory to read a superblock of %s", kio_file_path(file));
    for (uint32_t i = 0; i < SUPERBLOCK_SLOTS && result == 0; i++) {
        slot_reader reader = {.path = kio_file_path(file), .number = i, .available = slot_available(file_bytes, i), .bytes = bytes, .out = &slots[i],
                              .scrap = file_bytes > 0 && file_bytes < RW_BLOCK_SIZE};
        result = slot_read(k, file, &reader);
        /* what is wrong with the slot itself is a finding, not a failure */
        if (result == slots[i].code) result = 0;
    }
    free(bytes);
    if (result != 0) superblock_slots_free(slots);
    return result;
}

void superblock_slots_free(superblock_slot slots[SUPERBLOCK_SLOTS])
{
    for (uint32_t i = 0; i < SUPERBLOCK_SLOTS; i++) superblock_image_free(&slots[i].block.image);
}

/* ---- choosing ---- */

static bool range_is_zero(kio *k, kio_file *file, uint64_t from, uint64_t to)
{
    unsigned char *block = store_memory(RW_BLOCK_SIZE);
    bool zeros = block != NULL;
    for (uint64_t at = from; zeros && at < to; at += RW_BLOCK_SIZE)
        zeros = kio_file_read(k, file, block, RW_BLOCK_SIZE, at) == 0 && bytes_are_zero(block, RW_BLOCK_SIZE);
    free(block);
    return zeros;
}

static bool slot_is_valid(const superblock_slot *slot)
{
    return slot->code == 0 && slot->block.image.generation > 0;
}

/*
 * Creation makes the mark (generation 0, slot 1) durable, in a file of one segment, before anything else is written; the first publish writes
 * slot 0, makes it durable, and then overwrites the mark. So either the mark stands, and slot 0 is what the first publish left of itself; or
 * the mark itself was torn, and all around its block is zero. No finished database, and no damage to a single slot of one, looks like that.
 */
bool superblock_is_unfinished(kio *k, kio_file *file, uint64_t file_bytes, const superblock_slot slots[SUPERBLOCK_SLOTS])
{
    const superblock_slot *first = &slots[0], *mark = &slots[1];
    if (slot_is_valid(first) || slot_is_valid(mark)) return false;
    if ((first->sealed && first->code == RW_EVERSION) || (mark->sealed && mark->code == RW_EVERSION)) return false;
    if (mark->code == 0) return true;
    if (file_bytes > RW_SEGMENT_BYTES || file_bytes % RW_BLOCK_SIZE != 0 || first->code != RW_ENOENT) return false;
    return mark->code == RW_ENOENT || range_is_zero(k, file, SUPERBLOCK_SLOT_BYTES + RW_BLOCK_SIZE, file_bytes);
}

static int slot_error(kio_file *file, const superblock_slot *slot)
{
    return rw_error(slot->code, "%s: %s", kio_file_path(file), slot->text);
}

/* Neither slot is valid: the most telling reason. */
static int slots_error(kio_file *file, const superblock_slot slots[SUPERBLOCK_SLOTS])
{
    static const int telling[] = {RW_EVERSION, RW_ECORRUPT, RW_EFOREIGN};
    for (size_t t = 0; t < RW_ARRAY_SIZE(telling); t++)
        for (uint32_t i = 0; i < SUPERBLOCK_SLOTS; i++) {
            if (slots[i].code != telling[t]) continue;
            const char *other = slots[1 - i].code == 0 ? "the other slot says that creation has only begun" : slots[1 - i].text;
            return rw_error(telling[t], "%s: %s; %s", kio_file_path(file), slots[i].text, other);
        }
    return rw_error(RW_ECORRUPT, "%s: %s; %s", kio_file_path(file), slots[0].text, slots[1].text);
}

int superblock_choose(kio_file *file, const superblock_slot slots[SUPERBLOCK_SLOTS], uint32_t *chosen)
{
    bool valid[SUPERBLOCK_SLOTS];
    for (uint32_t i = 0; i < SUPERBLOCK_SLOTS; i++) {
        valid[i] = slot_is_valid(&slots[i]);
        /* an undamaged superblock of a newer format: taking the older one beside it would take its commits back */
        if (slots[i].sealed && slots[i].code == RW_EVERSION) return slot_error(file, &slots[i]);
    }
    if (!valid[0] && !valid[1]) return slots_error(file, slots);
    if (valid[0] && valid[1]) {
        const superblock *a = &slots[0].block, *b = &slots[1].block;
        if (a->database_id != b->database_id || a->page_size != b->page_size)
            return rw_error(RW_ECORRUPT, "%s: the superblocks at offsets 0 and %u are of two databases", kio_file_path(file), SUPERBLOCK_SLOT_BYTES);
        *chosen = a->image.generation > b->image.generation ? 0 : 1;
    } else {
        *chosen = valid[0] ? 0 : 1;
    }
    return 0;
}
