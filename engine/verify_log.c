/* The offline check of the log: as an open would replay it, and each operation as the trees would have to take it. */
#include "engine/verify.h"

#define RECORD_WHERE_BYTES 400

static const char *record_where(const verifier *v, const wal_record *record, char text[RECORD_WHERE_BYTES])
{
    snprintf(text, RECORD_WHERE_BYTES, "%.255s/log: record at LSN %llu", v->dir, (unsigned long long)record->lsn);
    return text;
}

/* The image's LSN of the partition that key belongs to: what is older than that is not replayed. */
static uint64_t image_lsn(const verifier *v, rw_slice key)
{
    uint64_t lsn = v->image->partition_count > 0 ? v->image->partitions[0].lsn : 0;
    for (uint32_t i = 1; i < v->image->partition_count && rw_slice_compare(v->image->partitions[i].low_key, key) <= 0; i++)
        lsn = v->image->partitions[i].lsn;
    return lsn;
}

/* The extent may be the one that the image names, or one of its own. Either way it was durable before the record was. */
static int op_extent(verifier *v, const wal_op *op, const char *where)
{
    extent_ref extent;
    if (op->second.size != sizeof extent) return verify_finding(v, "%s: names an extent in %zu bytes", where, op->second.size);
    memcpy(&extent, op->second.data, sizeof extent);
    uint32_t blocks = extent_blocks((uint32_t)op->key.size, extent.length);
    if (!verify_claimed(v, extent.address, blocks) && !verify_claim(v, extent.address, blocks, where)) return 0;
    return verify_extent(v, op->key, extent, where);
}

/* Why the trees could not take it; NULL when they can. */
static const char *op_doubt(const verifier *v, const wal_op *op)
{
    if (op->key.size < RW_BUCKET_PREFIX) return "the key is too short for a bucket";
    if (op->key.size > v->key_stride) return "the key is too long";
    switch (op->kind) {
    case WAL_OP_PUT:
        return op->second.size > node_value_inline_max(v->page_size, op->key.size) ? "the value is too long for a leaf" : NULL;
    case WAL_OP_PUT_EXTENT: return NULL;
    case WAL_OP_DELETE: return op->second.size != 0 ? "a delete has a value" : NULL;
    case WAL_OP_DELETE_RANGE:
        if (op->second.size > v->key_stride) return "the range's end is too long";
        return rw_slice_compare(op->key, op->second) > 0 ? "the range ends before it begins" : NULL;
    }
    return "the operation is unknown";
}

static int op_check(verifier *v, const wal_record *record, const wal_op *op, size_t at, const char *where)
{
    const char *doubt = op_doubt(v, op);
    if (doubt != NULL) return verify_finding(v, "%s: operation at byte %zu of its body: %s", where, at, doubt);
    if (op->kind != WAL_OP_DELETE_RANGE && record->lsn < image_lsn(v, op->key)) return 0;
    if (op->kind == WAL_OP_PUT_EXTENT) return op_extent(v, op, where);
    if (rw_load_u32(op->key.data) == CATALOG_BUCKET && op->kind != WAL_OP_DELETE_RANGE)
        return verify_catalog_add(v, op->key, op->second, op->kind == WAL_OP_DELETE, where);
    return 0;
}

static int record_check(void *arg, const wal_record *record)
{
    verifier *v = arg;
    char where[RECORD_WHERE_BYTES];
    wal_op op;
    size_t at = 0, offset = 0;
    int error;
    record_where(v, record, where);
    for (; (error = wal_op_decode(record->body, &at, &op)) == 0; offset = at) {
        error = op_check(v, record, &op, offset, where);
        if (error != 0) return error;
    }
    return error == RW_ENOTFOUND ? 0 : verify_take_error(v, error, where);
}

int verify_log(verifier *v)
{
    uint64_t end_lsn;
    char where[RECORD_WHERE_BYTES];
    snprintf(where, sizeof where, "%.255s/log: replay from LSN %llu", v->dir, (unsigned long long)v->image->checkpoint_lsn);
    if (v->image->checkpoint_lsn < WAL_LSN_FIRST || v->image->checkpoint_lsn > v->image->durable_lsn)
        return verify_finding(v, "%s: the superblock says that the log was durable up to LSN %llu: impossible", where,
                              (unsigned long long)v->image->durable_lsn);
    int error = wal_replay(v->log, v->image->checkpoint_lsn, v->image->durable_lsn, record_check, v, &end_lsn);
    return error == 0 ? 0 : verify_take_error(v, error, where);
}
