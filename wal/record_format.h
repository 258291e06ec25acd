/*
 * The body of a log record. Kinds are listed once; each has its redo in engine/apply.c and its description in the printer.
 *
 * A record is the writes of one commit, in order. Body: for each operation
 *     1  operation kind (wal_op_kind)
 *     v  key length, varint (LEB128)          keys carry their bucket prefix
 *     v  second length, varint: value (PUT), end key (DELETE_RANGE), 16 (PUT_EXTENT: an extent_ref), 0 (DELETE)
 *     .  key bytes, second bytes
 */
#ifndef RW_RECORD_FORMAT_H
#define RW_RECORD_FORMAT_H

#include "base/base.h"

#define WAL_RECORD_KINDS(X) X(WAL_COMMIT, 1, "commit")

typedef enum {
#define WAL_KIND_ENUM(name, code, text) name = code,
    WAL_RECORD_KINDS(WAL_KIND_ENUM)
#undef WAL_KIND_ENUM
} wal_kind;

typedef enum { WAL_OP_PUT = 1, WAL_OP_DELETE = 2, WAL_OP_DELETE_RANGE = 3, WAL_OP_PUT_EXTENT = 4 } wal_op_kind;

typedef struct {
    wal_op_kind kind;
    rw_slice key;
    rw_slice second;
} wal_op;

/* Bytes that an operation takes in a body. */
size_t wal_op_size(const wal_op *op);
/* Encodes only what stands before the key's bytes (kind and lengths) into to (at least 11 bytes); returns how many. */
size_t wal_op_encode_head(const wal_op *op, unsigned char *to);
/* Decodes the operation at *at; moves *at behind it. RW_ECORRUPT when it does not parse. RW_ENOTFOUND at the end. */
int wal_op_decode(rw_slice body, size_t *at, wal_op *op);

#endif
