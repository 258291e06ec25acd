/*
 * The log's bytes. The file is an array of slots of RW_LOG_SEGMENT_BYTES; a slot holds one segment, a segment is an array of blocks. The
 * blocks of one epoch, in the order of segment and index, carry the stream of fragments.
 *
 * Block (RW_BLOCK_SIZE bytes)
 *      0  4  magic
 *      4  4  CRC32C of bytes 0 to 3 and 8 to the block's end
 *      8  2  format version
 *     10  2  offset in the payload of the first fragment header that begins in this block; WAL_NO_FRAGMENT: none does
 *     12  2  payload length, bytes, a multiple of 8
 *     14  2  flags: WAL_BLOCK_START; WAL_BLOCK_RECORD_END: a record ends where the payload ends (a reader that begins here could not tell)
 *     16  8  database id
 *     24  8  LSN of the first payload byte
 *     32  8  segment number, from 1
 *     40  8  epoch, from 1: raised by each wal_start
 *     48  8  LSN that was known durable when the block was made; the end of a record
 *     56  4  index of the block in its segment
 *     60  4  zero
 *     64  .  payload, then zeros
 *
 * A block is valid by itself if and only if (1) magic, (2) checksum, (3) version and (4) database id are right, (5) its index is its place in
 * the slot, (6) its lengths are in bounds. It continues the log at LSN L of segment s and epoch e if and only if it is valid by itself and
 * carries exactly L, s and e. Every written block but the start block has payload.
 *
 * Start block: the first block of an epoch, index 0 of a fresh segment, without payload. It is durable before any other block of its epoch
 * is written, and says that the log of all earlier epochs ends at its LSN, whatever valid blocks they have beyond. Instead of zeros its
 * header is repeated to the block's end (with the checksum as zero): were the rest zeros, one that was torn, header kept, would become
 * valid when its slot is zeroed, and by then another one with the same numbers may be in force.
 *
 * Fragment (8-byte aligned in the stream, and so never across two blocks with its header)
 *      0  4  body length, bytes (low 24 bits) | WAL_FRAGMENT_FIRST, _LAST, _READY
 *      4  1  record kind (wal_kind)
 *      5  1  flags: WAL_FRAGMENT_NEEDS_DATA, on the last fragment
 *      6  2  low 16 bits of LSN / 8
 *      8  .  body, then zeros up to a multiple of 8
 */
#ifndef RW_WAL_FORMAT_H
#define RW_WAL_FORMAT_H

#include "base/base.h"

#define WAL_BLOCK_MAGIC 0x474f4c57u    /* "WLOG" */
#define WAL_FORMAT_VERSION 1u
#define WAL_HEADER_BYTES 64u
#define WAL_PAYLOAD_BYTES (RW_BLOCK_SIZE - WAL_HEADER_BYTES)
#define WAL_SEGMENT_BLOCKS (RW_LOG_SEGMENT_BYTES / RW_BLOCK_SIZE)
#define WAL_NO_FRAGMENT 0xffffu
#define WAL_BLOCK_START 1u
#define WAL_BLOCK_RECORD_END 2u

typedef struct {
    uint32_t magic;
    uint32_t checksum;
    uint16_t version;
    uint16_t first_fragment;
    uint16_t payload_bytes;
    uint16_t flags;
    uint64_t database_id;
    uint64_t lsn;
    uint64_t segment;
    uint64_t epoch;
    uint64_t durable_lsn;
    uint32_t index;
    uint32_t zero;
} wal_block_header;

#define WAL_FRAGMENT_HEADER_BYTES 8u
#define WAL_FRAGMENT_BODY_MAX (RW_LOG_FRAGMENT_BYTES - WAL_FRAGMENT_HEADER_BYTES)
#define WAL_FRAGMENT_SIZE_MASK 0x00ffffffu
#define WAL_FRAGMENT_FIRST 0x20000000u
#define WAL_FRAGMENT_LAST 0x40000000u
#define WAL_FRAGMENT_READY 0x80000000u /* never zero: in the staging space a header of zero is one not yet written */
#define WAL_FRAGMENT_NEEDS_DATA 1u

typedef struct {
    uint32_t word;
    uint8_t kind;
    uint8_t flags;
    uint16_t check;
} wal_fragment_header;

#define WAL_RECORD_BYTES_MAX ((uint64_t)1 << 30)

_Static_assert(sizeof(wal_block_header) == WAL_HEADER_BYTES, "block header size");
_Static_assert(offsetof(wal_block_header, checksum) == 4 && offsetof(wal_block_header, version) == 8, "block header offsets");
_Static_assert(offsetof(wal_block_header, first_fragment) == 10 && offsetof(wal_block_header, payload_bytes) == 12, "block header offsets");
_Static_assert(offsetof(wal_block_header, flags) == 14 && offsetof(wal_block_header, database_id) == 16, "block header offsets");
_Static_assert(offsetof(wal_block_header, lsn) == 24 && offsetof(wal_block_header, segment) == 32, "block header offsets");
_Static_assert(offsetof(wal_block_header, epoch) == 40 && offsetof(wal_block_header, durable_lsn) == 48, "block header offsets");
_Static_assert(offsetof(wal_block_header, index) == 56 && offsetof(wal_block_header, zero) == 60, "block header offsets");
_Static_assert(sizeof(wal_fragment_header) == WAL_FRAGMENT_HEADER_BYTES, "fragment header size");
_Static_assert(offsetof(wal_fragment_header, kind) == 4 && offsetof(wal_fragment_header, check) == 6, "fragment header offsets");
_Static_assert(WAL_PAYLOAD_BYTES % 8 == 0, "a fragment header never lies across two blocks");
_Static_assert(WAL_FRAGMENT_BODY_MAX % 8 == 0 && WAL_FRAGMENT_BODY_MAX <= WAL_FRAGMENT_SIZE_MASK, "full fragments need no padding");
_Static_assert(RW_LOG_SEGMENT_BYTES % RW_BLOCK_SIZE == 0 && WAL_SEGMENT_BLOCKS >= 16, "a segment is whole blocks, and not too few");

/* Bytes that a fragment takes in the stream. */
static inline uint64_t wal_fragment_span(uint32_t word)
{
    return WAL_FRAGMENT_HEADER_BYTES + rw_align_up(word & WAL_FRAGMENT_SIZE_MASK, 8);
}

static inline uint32_t wal_block_checksum(const void *block)
{
    const unsigned char *bytes = block;
    return rw_checksum(rw_checksum(0, bytes, 4), bytes + 8, RW_BLOCK_SIZE - 8);
}

#endif
