/* Extents of large values: streamed through the caller's buffer, checksummed as they pass. */
#include "store/store_internal.h"

/* What stands before the key. */
typedef struct {
    page_header page;
    uint32_t key_length;
    uint32_t value_length;
} extent_header;

_Static_assert(sizeof(extent_header) == EXTENT_HEADER_BYTES, "format");
_Static_assert(EXTENT_HEADER_BYTES + (uint64_t)RW_PAGE_SIZE_MAX + RW_VALUE_SIZE_MAX + RW_BLOCK_SIZE <= UINT32_MAX,
               "an extent's length fits its header");

static extent_header extent_header_make(const store *s, uint64_t address, uint32_t blocks, rw_slice key, uint32_t value_length)
{
    return (extent_header){
        .page = {.magic = PAGE_MAGIC,
                 .version = PAGE_FORMAT_VERSION,
                 .type = PAGE_EXTENT,
                 .database_id = s->params.database_id,
                 .address = address,
                 .length = blocks * RW_BLOCK_SIZE,
                 .raw_length = blocks * RW_BLOCK_SIZE},
        .key_length = (uint32_t)key.size,
        .value_length = value_length,
    };
}

/*
 * The extent's bytes as one stream made of parts: header, key, value, zeros. A piece of the stream, [at, at + size), meets a part in one range.
 * Returns its length; *in_part and *in_piece are where it begins.
 */
static size_t part_overlap(uint64_t part_at, size_t part_size, uint64_t at, size_t size, size_t *in_part, size_t *in_piece)
{
    uint64_t from = RW_MAX(part_at, at), to = RW_MIN(part_at + part_size, at + size);
    if (from >= to) return 0;
    *in_part = (size_t)(from - part_at);
    *in_piece = (size_t)(from - at);
    return (size_t)(to - from);
}

static void piece_fill(unsigned char *piece, size_t size, uint64_t at, const rw_slice parts[3])
{
    uint64_t part_at = 0;
    memset(piece, 0, size);
    for (unsigned i = 0; i < 3; i++) {
        size_t in_part = 0, in_piece = 0, n = part_overlap(part_at, parts[i].size, at, size, &in_part, &in_piece);
        if (n > 0) memcpy(piece + in_piece, (const unsigned char *)parts[i].data + in_part, n);
        part_at += parts[i].size;
    }
}

int store_extent_write(store *s, rw_slice key, rw_slice value, void *buffer, size_t buffer_bytes, extent_ref *out)
{
    RW_ASSERT(buffer_bytes >= RW_BLOCK_SIZE && buffer_bytes % RW_BLOCK_SIZE == 0 && key.size <= RW_PAGE_SIZE_MAX);
    if (value.size > RW_VALUE_SIZE_MAX) return rw_error(RW_ETOOBIG, "a value of %zu bytes: at most %zu", value.size, RW_VALUE_SIZE_MAX);
    uint32_t blocks = extent_blocks((uint32_t)key.size, (uint32_t)value.size), checksum = 0;
    uint64_t address, at = 0, total = (uint64_t)blocks * RW_BLOCK_SIZE;
    int result = store_allocate(s, STORE_EXTENTS, blocks, &address);
    if (result != 0) return result;
    extent_header header = extent_header_make(s, address, blocks, key, (uint32_t)value.size);
    const rw_slice parts[3] = {rw_slice_of(&header, sizeof header), key, value};
    while (at < total && result == 0) {
        size_t size = (size_t)RW_MIN(total - at, buffer_bytes);
        piece_fill(buffer, size, at, parts);
        checksum = rw_checksum(checksum, buffer, size);
        result = kio_file_write(s->k, s->file, buffer, size, address * RW_BLOCK_SIZE + at);
        at += size;
    }
    if (result != 0) {
        store_give_back(s, address, blocks);
        return result;
    }
    *out = (extent_ref){.address = address, .length = (uint32_t)value.size, .checksum = checksum};
    return 0;
}

#define EXTENT_WRONG "%s: extent of a value at offset %llu: "

/* Which field of the header is wrong; the checksum would find it too, at the end and without a name. */
static int header_check(const store *s, const extent_header *found, const extent_header *expected)
{
    const char *path = kio_file_path(s->file), *field = NULL;
    if (found->page.magic != expected->page.magic) field = "magic";
    else if (found->page.version != expected->page.version) field = "format version";
    else if (found->page.database_id != expected->page.database_id) field = "database id";
    else if (found->page.type != expected->page.type) field = "type";
    else if (found->page.address != expected->page.address) field = "own address";
    else if (found->page.length != expected->page.length) field = "length";
    else if (found->key_length != expected->key_length) field = "key length";
    else if (found->value_length != expected->value_length) field = "value length";
    if (field == NULL) return 0;
    return rw_error(RW_ECORRUPT, EXTENT_WRONG "its %s is not that of the value named here", path,
                    (unsigned long long)expected->page.address * RW_BLOCK_SIZE, field);
}

/* Checks the header and the key where they lie in this piece, and copies what there is of the value. */
static int piece_take(const store *s, const unsigned char *piece, size_t size, uint64_t at, const extent_header *expected, rw_slice key,
                      void *value)
{
    size_t in_part = 0, in_piece = 0, n;
    if (at == 0) {
        extent_header found;
        memcpy(&found, piece, sizeof found);
        int result = header_check(s, &found, expected);
        if (result != 0) return result;
    }
    n = part_overlap(EXTENT_HEADER_BYTES, key.size, at, size, &in_part, &in_piece);
    if (n > 0 && memcmp(piece + in_piece, (const unsigned char *)key.data + in_part, n) != 0)
        return rw_error(RW_ECORRUPT, EXTENT_WRONG "it belongs to another key", kio_file_path(s->file),
                        (unsigned long long)expected->page.address * RW_BLOCK_SIZE);
    n = part_overlap(EXTENT_HEADER_BYTES + key.size, expected->value_length, at, size, &in_part, &in_piece);
    if (n > 0 && value != NULL) memcpy((unsigned char *)value + in_part, piece + in_piece, n);
    return 0;
}

int store_extent_read(store *s, extent_ref ref, rw_slice key, void *value, void *buffer, size_t buffer_bytes)
{
    RW_ASSERT(buffer_bytes >= RW_BLOCK_SIZE && buffer_bytes % RW_BLOCK_SIZE == 0 && key.size <= RW_PAGE_SIZE_MAX);
    uint32_t blocks = extent_blocks((uint32_t)key.size, ref.length), checksum = 0;
    if (ref.length > RW_VALUE_SIZE_MAX || !segments_contain(s, ref.address, blocks))
        return rw_error(RW_ECORRUPT, EXTENT_WRONG "%u bytes there cannot be", kio_file_path(s->file),
                        (unsigned long long)ref.address * RW_BLOCK_SIZE, ref.length);
    extent_header expected = extent_header_make(s, ref.address, blocks, key, ref.length);
    uint64_t total = (uint64_t)blocks * RW_BLOCK_SIZE;
    for (uint64_t at = 0; at < total; at += buffer_bytes) {
        size_t size = (size_t)RW_MIN(total - at, buffer_bytes);
        int result = kio_file_read(s->k, s->file, buffer, size, ref.address * RW_BLOCK_SIZE + at);
        if (result == 0) result = piece_take(s, buffer, size, at, &expected, key, value);
        if (result != 0) return result;
        checksum = rw_checksum(checksum, buffer, size);
    }
    if (checksum != ref.checksum)
        return rw_error(RW_ECORRUPT, EXTENT_WRONG "checksum is %08x, who names it expects %08x", kio_file_path(s->file),
                        (unsigned long long)ref.address * RW_BLOCK_SIZE, checksum, ref.checksum);
    return 0;
}
