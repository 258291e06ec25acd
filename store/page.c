/* Pages: sealing what is about to be written, suspecting what was read. */
#include "base/planted.h"
#include "store/store_internal.h"

uint32_t page_seal(const store *s, void *bytes, uint32_t length, uint8_t type, uint64_t address)
{
    page_header *header = bytes;
    RW_ASSERT(length > 0 && length % RW_BLOCK_SIZE == 0 && segments_contain(s, address, length / RW_BLOCK_SIZE));
    header->magic = PAGE_MAGIC;
    header->version = PAGE_FORMAT_VERSION;
    header->type = type;
    header->database_id = s->params.database_id;
    header->address = address;
    header->length = length;
    header->compression = 0;
    memset(header->zero1, 0, sizeof header->zero1);
    header->raw_length = length;
    memset(header->zero2, 0, sizeof header->zero2);
    return rw_checksum(0, bytes, length);
}

page_ref store_page_seal(const store *s, void *bytes, uint32_t length, uint8_t type, uint64_t address, uint32_t estimate)
{
    RW_ASSERT(length <= RW_PAGE_SIZE_MAX);
    uint32_t checksum = page_seal(s, bytes, length, type, address);
    return page_ref_disk(address, length / RW_BLOCK_SIZE, checksum, estimate);
}

#define PAGE_WRONG "%s: page at offset %llu, %u bytes: "

/* The header first: of a stale or misdirected page it says more than the checksum does. */
int page_check(const store *s, const void *bytes, uint32_t length, uint8_t type, uint64_t address, uint32_t checksum)
{
    page_header h;
    const char *path = kio_file_path(s->file);
    unsigned long long at = address * RW_BLOCK_SIZE;
    memcpy(&h, bytes, sizeof h);
    if (h.magic != PAGE_MAGIC)
        return rw_error(RW_ECORRUPT, PAGE_WRONG "magic is %08x, not that of a page", path, at, length, h.magic);
    if (h.version != PAGE_FORMAT_VERSION)
        return rw_error(RW_ECORRUPT, PAGE_WRONG "format version is %u, expected %u", path, at, length, h.version, PAGE_FORMAT_VERSION);
    if (h.database_id != s->params.database_id)
        return rw_error(RW_ECORRUPT, PAGE_WRONG "database id is %016llx, this one's is %016llx", path, at, length,
                        (unsigned long long)h.database_id, (unsigned long long)s->params.database_id);
    if (h.address != address)
        return rw_error(RW_ECORRUPT, PAGE_WRONG "its own address says offset %llu", path, at, length,
                        (unsigned long long)h.address * RW_BLOCK_SIZE);
    if (h.length != length) return rw_error(RW_ECORRUPT, PAGE_WRONG "its own length says %u", path, at, length, h.length);
    if (h.type != type) return rw_error(RW_ECORRUPT, PAGE_WRONG "type is %u, expected %u", path, at, length, h.type, type);
    if (h.compression != 0 || h.raw_length != length)
        return rw_error(RW_ECORRUPT, PAGE_WRONG "compression is %u, to %u bytes: no known one", path, at, length, h.compression, h.raw_length);
    uint32_t found = rw_checksum(0, bytes, length);
    if (found != checksum && !RW_PLANTED(ignore_page_checksum))
        return rw_error(RW_ECORRUPT, PAGE_WRONG "checksum is %08x, who names it expects %08x", path, at, length, found, checksum);
    return 0;
}

int store_page_check(const store *s, page_ref ref, const void *bytes)
{
    return page_check(s, bytes, page_ref_blocks(ref) * RW_BLOCK_SIZE, PAGE_NODE, page_ref_address(ref), ref.checksum);
}

int store_page_read(store *s, page_ref ref, void *buffer)
{
    uint64_t address = page_ref_address(ref);
    uint32_t blocks = page_ref_blocks(ref);
    RW_ASSERT(!page_ref_is_frame(ref));
    /* a buffer has room for a page of this database and no more */
    if (!segments_contain(s, address, blocks) || blocks * RW_BLOCK_SIZE > s->params.page_size)
        return rw_error(RW_ECORRUPT, "%s: a page of %u blocks at offset %llu is named, which cannot be", kio_file_path(s->file), blocks,
                        (unsigned long long)address * RW_BLOCK_SIZE);
    int result = kio_file_read(s->k, s->file, buffer, (size_t)blocks * RW_BLOCK_SIZE, address * RW_BLOCK_SIZE);
    return result != 0 ? result : store_page_check(s, ref, buffer);
}
