/*
 * The superblock: what a checkpoint publishes. Little-endian, read in place.
 *
 * Segment 0 of the data file holds two slots of half a segment each, at offset 0 and RW_SEGMENT_BYTES / 2. Generation g goes to slot
 * (g - 1) mod 2, so a publish never touches the slot that holds the present superblock. Only the blocks needed are written.
 *
 * A superblock is valid if and only if (1) the magic is right, (2) the length is whole blocks within the slot and the file, (3) the
 * checksum over that length, with the checksum field taken as zero, is right, (4) version, block and segment size and every incompatible
 * feature bit are known, (5) it lies in the slot of its generation, (6) what follows the header parses, within bounds, to the last byte.
 *
 * In every format version magic, version, checksum and length stay where they are and mean the same, so that a reader can tell a newer
 * format from a damaged one.
 *
 *   offset size
 *        0    8  magic "RINGWOOD"
 *        8    4  format version
 *       12    4  checksum, CRC32C of the whole length, padding included
 *       16    8  incompatible features: a reader refuses a bit that it does not know
 *       24    8  compatible features: a reader may ignore them; a writer clears those that it does not know
 *       32    8  database id, not 0
 *       40    8  generation; 0: creation has begun and not finished (slot 1 only)
 *       48    4  block size, bytes
 *       52    4  page size, bytes
 *       56    4  segment size, bytes
 *       60    4  length of this superblock, bytes: a multiple of the block size
 *       64    8  checkpoint LSN: recovery replays the log from here
 *       72    8  durable LSN: the log was durable up to here
 *       80    4  partitions
 *       84    4  next partition id
 *       88    8  space map: address, blocks; 0 none
 *       96    4  space map: length, blocks; 0 none
 *      100    4  space map: checksum
 *      104    4  segments in the file, segment 0 included
 *      108    4  flags: bit 0 closed cleanly (there is a space map); bit 1 the log ends at the durable LSN, and was not begun again since
 *      112    8  with compatible feature 0: the device on which syncs of the log were measured (kio_file_device); else zero
 *      120    4  and the median time of a write and a sync, ns
 *      124    4  and that of a durable write, ns; 0: not possible
 *      128       one superblock_partition for each partition, in the order of low keys
 *        .       with incompatible feature 0: the superblock_spill entries of all partitions, one partition's behind the other's
 *        .       the low keys, one behind the other; the first is empty
 *        .       zeros up to a whole block
 *
 *   superblock_partition
 *        0   16  root, a page_ref; word 0: none
 *       16    8  LSN: commits below it are in the image
 *       24    4  partition id
 *       28    4  height, levels
 *       32    4  low key's length, bytes
 *       36    2  spills: superblock_spill entries that are its
 *       38    2  the last number that was given to one: references to leaves may say up to which number they contain them
 *
 *   superblock_spill
 *        0   16  root, a page_ref
 *       16    8  newest timestamp in it
 *       24    4  height, levels
 *       28    4  number, from 1
 *
 * The space map, a page of type 3 named by the superblock:
 *        0   64  page_header
 *       64    4  segments
 *       68    4  zero
 *       72    4  for each segment: bits 0-30 live blocks, the map's own included; bit 31: holds a part of a run over several segments
 *        .       zeros up to a whole block
 */
#ifndef RW_SUPERBLOCK_FORMAT_H
#define RW_SUPERBLOCK_FORMAT_H

#include "store/page_format.h"

#define SUPERBLOCK_MAGIC 0x444f4f57474e4952ull
#define SUPERBLOCK_FORMAT_VERSION 1u
#define SUPERBLOCK_SLOTS 2u
#define SUPERBLOCK_SLOT_BYTES (RW_SEGMENT_BYTES / SUPERBLOCK_SLOTS)
#define SUPERBLOCK_INCOMPATIBLE_SPILLS 1ull    /* set only while there are some: all others can be opened by who does not know them */
#define SUPERBLOCK_FEATURES_KNOWN SUPERBLOCK_INCOMPATIBLE_SPILLS
#define SUPERBLOCK_COMPATIBLE_SYNC_TIMES 1ull
#define SUPERBLOCK_CLEAN 1u
#define SUPERBLOCK_LOG_CLOSED 2u

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t checksum;
    uint64_t features_incompatible;
    uint64_t features_compatible;
    uint64_t database_id;
    uint64_t generation;
    uint32_t block_size;
    uint32_t page_size;
    uint32_t segment_size;
    uint32_t length;
    uint64_t checkpoint_lsn;
    uint64_t durable_lsn;
    uint32_t partition_count;
    uint32_t next_partition_id;
    uint64_t map_address;
    uint32_t map_blocks;
    uint32_t map_checksum;
    uint32_t segments;
    uint32_t flags;
    uint64_t sync_device;
    uint32_t sync_ns;
    uint32_t durable_write_ns;
} superblock_header;

typedef struct {
    page_ref root;
    uint64_t lsn;
    uint32_t id;
    uint32_t height;
    uint32_t low_key_length;
    uint16_t spill_count;
    uint16_t spill_number;
} superblock_partition;

typedef struct {
    page_ref root;
    uint64_t newest;
    uint32_t height;
    uint32_t number;
} superblock_spill;

#define SPACE_MAP_HEADER_BYTES 72u
#define SPACE_MAP_SPANNED 0x80000000u

_Static_assert(sizeof(superblock_header) == 128, "format");
_Static_assert(offsetof(superblock_header, checksum) == 12 && offsetof(superblock_header, length) == 60, "format");
_Static_assert(offsetof(superblock_header, checkpoint_lsn) == 64 && offsetof(superblock_header, map_address) == 88, "format");
_Static_assert(offsetof(superblock_header, flags) == 108 && offsetof(superblock_header, sync_device) == 112, "format");
_Static_assert(sizeof(superblock_partition) == 40 && offsetof(superblock_partition, low_key_length) == 32, "format");
_Static_assert(sizeof(superblock_spill) == 32, "format");
_Static_assert(SUPERBLOCK_SLOT_BYTES % RW_BLOCK_SIZE == 0, "a slot is whole blocks");
_Static_assert(RW_SEGMENT_BYTES / RW_BLOCK_SIZE < SPACE_MAP_SPANNED, "the live blocks of a segment fit the space map");

#endif
