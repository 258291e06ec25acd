#include "base/checksum.h"

#include <isa-l/crc.h>

#include "base/error.h"

/* libisal counts in int: longer inputs go in pieces of this many bytes. */
#define PIECE_MAX ((size_t)1 << 30)

/*
 * libisal hands the shift register in and out as it is. CRC32C starts it with all ones and inverts it at the end; inverting it both
 * ways makes the finished checksum of one piece the seed of the next, and 0 the seed of the first.
 */
uint32_t rw_checksum(uint32_t seed, const void *data, size_t size)
{
    RW_ASSERT(data != NULL || size == 0);
    uint32_t state = ~seed;
    const unsigned char *at = data;
    while (size > 0) {
        size_t piece = size < PIECE_MAX ? size : PIECE_MAX;
        /* the parameter lacks a const that the function keeps to */
        state = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)piece, state);
        at += piece;
        size -= piece;
    }
    return ~state;
}
