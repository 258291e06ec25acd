/* The body of a record: operations, encoded and decoded. */
#include "wal/record_format.h"

static size_t varint_size(uint64_t value)
{
    size_t size = 1;
    for (; value >= 0x80; value >>= 7) size++;
    return size;
}

static size_t varint_encode(unsigned char *to, uint64_t value)
{
    size_t size = 0;
    for (; value >= 0x80; value >>= 7) to[size++] = (unsigned char)(value | 0x80);
    to[size++] = (unsigned char)value;
    return size;
}

/* At most 5 bytes: every length fits 32 bits. False when it does not parse. */
static bool varint_decode(rw_slice from, size_t *at, uint64_t *value)
{
    const unsigned char *bytes = from.data;
    uint64_t result = 0;
    for (unsigned shift = 0; shift < 35 && *at < from.size; shift += 7) {
        unsigned char byte = bytes[(*at)++];
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = result;
            return result <= UINT32_MAX;
        }
    }
    return false;
}

size_t wal_op_size(const wal_op *op)
{
    return 1 + varint_size(op->key.size) + varint_size(op->second.size) + op->key.size + op->second.size;
}

size_t wal_op_encode_head(const wal_op *op, unsigned char *to)
{
    RW_ASSERT(op->key.size <= UINT32_MAX && op->second.size <= UINT32_MAX);
    to[0] = (unsigned char)op->kind;
    size_t size = 1 + varint_encode(to + 1, op->key.size);
    return size + varint_encode(to + size, op->second.size);
}

int wal_op_decode(rw_slice body, size_t *at, wal_op *op)
{
    const unsigned char *bytes = body.data;
    size_t position = *at;
    uint64_t key_size, second_size;
    if (position >= body.size) return RW_ENOTFOUND;
    unsigned kind = bytes[position++];
    if (kind < WAL_OP_PUT || kind > WAL_OP_PUT_EXTENT) {
        return rw_error(RW_ECORRUPT, "log record: byte %zu of its body says operation kind %u, which there is not", *at, kind);
    }
    if (!varint_decode(body, &position, &key_size) || !varint_decode(body, &position, &second_size)) {
        return rw_error(RW_ECORRUPT, "log record: the lengths of the operation at byte %zu of its body do not parse", *at);
    }
    if (key_size + second_size > body.size - position) {
        return rw_error(RW_ECORRUPT, "log record: the operation at byte %zu of its body ends past the body's %zu bytes", *at, body.size);
    }
    op->kind = (wal_op_kind)kind;
    op->key = rw_slice_of(bytes + position, (size_t)key_size);
    op->second = rw_slice_of(bytes + position + key_size, (size_t)second_size);
    *at = position + (size_t)(key_size + second_size);
    return 0;
}
