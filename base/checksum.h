/* CRC32C (Castagnoli), by the processor's instructions where it has them. */
#ifndef RW_CHECKSUM_H
#define RW_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of size bytes. Continue over several pieces by handing the former result as seed; the first seed is 0. */
uint32_t rw_checksum(uint32_t seed, const void *data, size_t size);

#endif
