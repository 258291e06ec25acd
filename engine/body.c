#include "engine/body.h"

#define BODY_BYTES_FIRST ((size_t)4096)

int body_add(commit_body *body, const wal_op *op)
{
    size_t need = body->size + wal_op_size(op);
    if (need > body->capacity) {
        size_t capacity = RW_MAX(body->capacity * 2, RW_MAX(need, BODY_BYTES_FIRST));
        unsigned char *grown = realloc(body->bytes, capacity);
        if (grown == NULL) return rw_error(RW_ENOMEM, "no memory for a commit of %zu bytes", need);
        body->bytes = grown;
        body->capacity = capacity;
    }
    unsigned char *to = body->bytes + body->size;
    to += wal_op_encode_head(op, to);
    memcpy(to, op->key.data, op->key.size);
    if (op->second.size > 0) memcpy(to + op->key.size, op->second.data, op->second.size);
    body->size = need;
    body->count++;
    return 0;
}

int body_add_put(engine *e, commit_body *body, rw_slice key, rw_slice value)
{
    extent_ref ref;
    wal_op op = {.kind = WAL_OP_PUT, .key = key, .second = value};
    int error = engine_place_value(e, &op, &ref);
    if (error != 0) return error;
    error = body_add(body, &op);
    if (error != 0) engine_unplace_value(e, &op);
    return error;
}

void body_discard(engine *e, commit_body *body)
{
    wal_op op;
    size_t at = 0;
    while (wal_op_decode(body_slice(body), &at, &op) == 0) engine_unplace_value(e, &op);
    body_clear(body);
}

void body_free(commit_body *body)
{
    free(body->bytes);
    *body = (commit_body){0};
}
