/* Creating a log: what may lie there already, what must not be touched, and the empty file. */
#include <stdlib.h>

#include "wal/wal_internal.h"

#define PROBE_BLOCKS 2u                /* of a slot: an epoch's start block has no payload, the one behind it has */

typedef unsigned long long ull;

static int records_refuse(const kio_file *file, const void *block, uint64_t offset)
{
    const wal_block_header *header = block;
    if (header->magic != WAL_BLOCK_MAGIC || header->checksum != wal_block_checksum(header) || header->payload_bytes == 0) return 0;
    return rw_error(RW_EEXIST, "%s holds records already (offset %llu)", kio_file_path(file), (ull)offset);
}

/* RW_EEXIST when a segment of the file begins with records, of whatever database. */
static int records_look(kio *k, kio_file *file, uint64_t size, unsigned char *blocks)
{
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at + PROBE_BLOCKS * RW_BLOCK_SIZE <= size; at += RW_LOG_SEGMENT_BYTES) {
        rc = kio_file_read(k, file, blocks, PROBE_BLOCKS * RW_BLOCK_SIZE, at);
        for (uint32_t i = 0; i < PROBE_BLOCKS && rc == 0; i++) rc = records_refuse(file, blocks + i * RW_BLOCK_SIZE, at + i * RW_BLOCK_SIZE);
    }
    return rc;
}

/* Zeros; in a slot's first block the pieces of a start block, torn or not, too. */
static bool block_is_blank(const unsigned char *block, bool first)
{
    static const unsigned char zeros[WAL_HEADER_BYTES];
    for (size_t at = 0; at < RW_BLOCK_SIZE; at += WAL_HEADER_BYTES) {
        uint32_t magic;
        memcpy(&magic, block + at, sizeof magic);
        if (first && magic == WAL_BLOCK_MAGIC) continue;
        if (memcmp(block + at, zeros, WAL_HEADER_BYTES) != 0) return false;
    }
    return true;
}

static int stranger_refuse(const kio_file *file, uint64_t offset)
{
    return rw_error(RW_EFOREIGN, "%s: a file that is no log of ours is in the way (offset %llu); it is left as it is", kio_file_path(file), (ull)offset);
}

/* RW_EFOREIGN when the file is not what a creation of ours leaves that was cut short: zeros, and start blocks. */
static int strangers_look(kio *k, kio_file *file, uint64_t size, unsigned char *blocks)
{
    uint64_t whole = size / RW_BLOCK_SIZE * RW_BLOCK_SIZE;
    for (uint64_t from = 0; from < whole; from += WAL_IO_BYTES) {
        uint64_t length = RW_MIN(whole - from, (uint64_t)WAL_IO_BYTES);
        int rc = kio_file_read(k, file, blocks, (size_t)length, from);
        for (uint64_t at = 0; rc == 0 && at < length; at += RW_BLOCK_SIZE) {
            rc = records_refuse(file, blocks + at, from + at);
            if (rc == 0 && !block_is_blank(blocks + at, (from + at) % RW_LOG_SEGMENT_BYTES == 0)) rc = stranger_refuse(file, from + at);
        }
        if (rc != 0) return rc;
    }
    return whole == size ? 0 : stranger_refuse(file, whole);
}

int wal_leftover_check(kio *k, kio_file *file, bool own)
{
    uint64_t size = 0;
    int rc = kio_file_size(k, file, &size);
    if (rc != 0 || size == 0) return rc;
    unsigned char *blocks = rw_memory_aligned(WAL_IO_BYTES);
    if (blocks == NULL) return rw_error(RW_ENOMEM, "no memory for log blocks");
    rc = records_look(k, file, size, blocks);
    if (rc == 0 && !own) rc = strangers_look(k, file, size, blocks);
    free(blocks);
    return rc;
}

int wal_make_way(kio *k, const char *dir, bool own)
{
    kio_file *file = NULL;
    char *path = NULL;
    uint64_t size = 0;
    if (asprintf(&path, "%s/log", dir) < 0) return rw_error(RW_ENOMEM, "no memory for a path");
    int rc = kio_file_open(k, path, KIO_DIRECT, &file);
    free(path);
    if (rc != 0) return rc == RW_ENOENT ? 0 : rc;
    rc = wal_leftover_check(k, file, own);
    if (rc == 0) rc = kio_file_size(k, file, &size);
    if (rc == 0 && size > 0) {
        rc = kio_file_resize(k, file, 0);
        if (rc == 0) rc = kio_file_sync(k, file);
    }
    kio_file_close(k, file);
    return rc;
}
