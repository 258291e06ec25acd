/*
 * The frame of every page on disk, and how one page names another. Little-endian, read in place.
 *
 * Page: header, then what the type says, zeros where nothing is used. Its checksum lives with whoever names it (page_ref), so that a
 * stale, misdirected, torn or rotten page is noticed by its reader.
 *
 *   offset size
 *        0    4  magic "RWPG"
 *        4    2  format version
 *        6    1  type: 1 tree node, 2 extent of a large value, 3 space map
 *        7    1  level: 0 leaf; a parent is one above its children
 *        8    8  database id
 *       16    8  own address, blocks
 *       24    4  length on disk, bytes: a multiple of the block size
 *       28    4  partition id at the time of writing (tells who to ask when a segment is cleaned; not trusted)
 *       32    8  newest commit timestamp in it (the LSN of the operation: its record's and its offset there), 0 when none
 *       40    1  compression: 0 none
 *       41    3  zero
 *       44    4  length when not compressed, bytes: the length on disk when compression is none
 *       48   16  zero
 */
#ifndef RW_PAGE_FORMAT_H
#define RW_PAGE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

#define PAGE_MAGIC 0x47505752u
#define PAGE_FORMAT_VERSION 1u

enum { PAGE_NODE = 1, PAGE_EXTENT = 2, PAGE_SPACE_MAP = 3 };

typedef struct {
    uint32_t magic;
    uint16_t version;
    uint8_t type;
    uint8_t level;
    uint64_t database_id;
    uint64_t address;
    uint32_t length;
    uint32_t partition;
    uint64_t newest_timestamp;
    uint8_t compression;
    uint8_t zero1[3];
    uint32_t raw_length;
    uint8_t zero2[16];
} page_header;

_Static_assert(sizeof(page_header) == 64, "format");
_Static_assert(offsetof(page_header, address) == 16 && offsetof(page_header, newest_timestamp) == 32, "format");

/*
 * A page reference: 16 bytes.
 *   word   bits 0-47 block address (0: none, block 0 is the superblock's), 48-62 length in blocks, 63 zero on disk. In memory bit 63 set
 *          means: the page is in the cache, and bits 0-31 are its frame number.
 *   checksum   CRC32C of the page's bytes on disk
 *   estimate   bits 0-30 records below it, as of its last write (saturating); bit 31: a large value's extent is named below it. Of a leaf: bits 0-15 its
 *              records, bits 16-22 the number of the last of its partition's spills (superblock_format.h) that it contains
 */
typedef struct {
    uint64_t word;
    uint32_t checksum;
    uint32_t estimate;
} page_ref;

_Static_assert(sizeof(page_ref) == 16, "format");

#define PAGE_REF_IN_MEMORY ((uint64_t)1 << 63)
#define PAGE_REF_ADDRESS_MASK (((uint64_t)1 << 48) - 1)
#define PAGE_REF_HAS_EXTENTS 0x80000000u
#define PAGE_REF_ESTIMATE_MAX 0x7fffffffu
#define PAGE_REF_LEAF_RECORDS 0xffffu
#define PAGE_REF_SPILL_SHIFT 16u
#define PAGE_REF_SPILL_MAX 0x7fu

static inline page_ref page_ref_none(void) { return (page_ref){0, 0, 0}; }
static inline bool page_ref_is_none(page_ref ref) { return ref.word == 0; }
static inline bool page_ref_is_frame(page_ref ref) { return (ref.word & PAGE_REF_IN_MEMORY) != 0; }
static inline uint32_t page_ref_frame(page_ref ref) { return (uint32_t)ref.word; }
static inline uint64_t page_ref_address(page_ref ref) { return ref.word & PAGE_REF_ADDRESS_MASK; }
static inline uint32_t page_ref_blocks(page_ref ref) { return (uint32_t)(ref.word >> 48) & 0x7fffu; }
/* Of a leaf's. */
static inline uint32_t page_ref_records(page_ref ref) { return ref.estimate & PAGE_REF_LEAF_RECORDS; }
static inline uint32_t page_ref_spill(page_ref ref) { return ref.estimate >> PAGE_REF_SPILL_SHIFT & PAGE_REF_SPILL_MAX; }
static inline page_ref page_ref_with_spill(page_ref ref, uint32_t number)
{
    ref.estimate = (ref.estimate & ~(PAGE_REF_SPILL_MAX << PAGE_REF_SPILL_SHIFT)) | number << PAGE_REF_SPILL_SHIFT;
    return ref;
}
static inline page_ref page_ref_disk(uint64_t address, uint32_t blocks, uint32_t checksum, uint32_t estimate)
{
    return (page_ref){.word = address | (uint64_t)blocks << 48, .checksum = checksum, .estimate = estimate};
}

/*
 * The extent of a large value: page_header (type 2, level 0), then at 64:
 *       64    4  key length, bytes (with the bucket prefix)
 *       68    4  value length, bytes
 *       72    n  key, then value, then zeros up to a whole block
 * Named from its leaf by an extent_ref; the checksum covers the whole extent, padding included. The key is there so that cleaning a segment
 * can ask the tree whether the extent is still referenced.
 */
#define EXTENT_HEADER_BYTES 72u

typedef struct {
    uint64_t address;          /* blocks */
    uint32_t length;           /* of the value, bytes */
    uint32_t checksum;         /* of the whole extent */
} extent_ref;

_Static_assert(sizeof(extent_ref) == 16, "format");

static inline uint32_t extent_blocks(uint32_t key_length, uint32_t value_length)
{
    return (uint32_t)(((uint64_t)EXTENT_HEADER_BYTES + key_length + value_length + RW_BLOCK_SIZE - 1) / RW_BLOCK_SIZE);
}

#endif
