/*
 * Replay: the log's records applied in order, a piece of the log at a time: first the pages that it will change are read, many at once, then it is
 * applied from memory.
 */
#include "base/planted.h"
#include "engine/preload.h"

#define PIECE_BYTES ((size_t)4 << 20)  /* record bytes gathered before they are applied */
#define PIECE_KEYS 8192u               /* and keys; in a small cache fewer, so that the pages read are still there */
#define PIECE_FRAMES_SHARE 4u

typedef struct {
    uint64_t lsn;
    size_t offset, size;               /* of its body in bytes */
} piece_record;

typedef struct {
    engine *e;
    tree_writer *writer;
    preload *ahead;
    const store_image *image;
    /* the piece */
    unsigned char *bytes;
    size_t used;
    piece_record *records;
    rw_slice *keys;
    uint32_t record_count, key_count, key_limit;
} replay;

/* ---- applying ---------------------------------------------------------------------------------------------------- */

static void all_hold(void *arg, uint16_t index, rw_slice low)
{
    partition_set *held = arg;
    (void)low;
    partition_set_add(held, index);
}

/* A range may need any partition; nobody else changes anything now, but the workers evict. */
static int range_apply(replay *r, const wal_op *op, uint64_t lsn)
{
    engine *e = r->e;
    partition_set held = {0};
    router_for_each(e->kio, &e->trees.router, all_hold, &held);
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++)
        if (partition_set_has(&held, i)) partition_lock(e->kio, &e->trees.partitions[i]);
    partition *p = &e->trees.partitions[router_find_now(e->kio, &e->trees.router, op->key)];
    int error = engine_apply(e, r->writer, &held, p, op, lsn);
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++)
        if (partition_set_has(&held, i)) partition_unlock(e->kio, &e->trees.partitions[i]);
    return error;
}

static int key_apply(replay *r, const wal_op *op, uint64_t lsn)
{
    partition_set held = {0};
    partition *p = trees_lock(&r->e->trees, op->key);
    partition_set_add(&held, p->index);
    int error = engine_apply(r->e, r->writer, &held, p, op, lsn);
    trees_unlock(&r->e->trees, p);
    return error;
}

static bool op_is_in_image(const replay *r, const wal_op *op, uint64_t record_lsn)
{
    return op->kind != WAL_OP_DELETE_RANGE && record_lsn < image_partition(r->image, op->key)->lsn;
}

static int record_apply(replay *r, uint64_t lsn, rw_slice body)
{
    wal_op op;
    size_t at = 0, offset = 0;
    int error;
    for (; (error = wal_op_decode(body, &at, &op)) == 0; offset = at) {
        if (op_is_in_image(r, &op, lsn)) continue;
        if (RW_PLANTED(skip_range_replay) && op.kind == WAL_OP_DELETE_RANGE) continue;
        error = op.kind == WAL_OP_DELETE_RANGE ? range_apply(r, &op, lsn + offset) : key_apply(r, &op, lsn + offset);
        if (error != 0) return error;
    }
    r->e->recovery_records++;
    return error == RW_ENOTFOUND ? 0 : error;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static int piece_apply(replay *r)
{
    int error = 0;
    if (r->key_count > 0) preload_run(r->ahead, r->keys, r->key_count);
    for (uint32_t i = 0; i < r->record_count && error == 0; i++)
        error = record_apply(r, r->records[i].lsn, rw_slice_of(r->bytes + r->records[i].offset, r->records[i].size));
    r->used = 0;
    r->record_count = r->key_count = 0;
    return error;
}

static void piece_add(replay *r, const wal_record *record)
{
    wal_op op;
    size_t at = 0;
    unsigned char *to = r->bytes + r->used;
    memcpy(to, record->body.data, record->body.size);
    r->records[r->record_count++] = (piece_record){.lsn = record->lsn, .offset = r->used, .size = record->body.size};
    r->used += record->body.size;
    while (r->key_count < r->key_limit && wal_op_decode(rw_slice_of(to, record->body.size), &at, &op) == 0)
        if (!op_is_in_image(r, &op, record->lsn)) r->keys[r->key_count++] = op.key;
}

static int replay_record(void *arg, const wal_record *record)
{
    replay *r = arg;
    bool full = r->used + record->body.size > PIECE_BYTES || r->record_count == r->key_limit || r->key_count == r->key_limit;
    int error = full ? piece_apply(r) : 0;
    if (error != 0) return error;
    if (record->body.size > PIECE_BYTES) return record_apply(r, record->lsn, record->body);
    piece_add(r, record);
    return 0;
}

static int replay_open(replay *r, engine *e)
{
    *r = (replay){.e = e, .image = store_image_opened(e->store)};
    r->key_limit = RW_MAX(1u, RW_MIN(PIECE_KEYS, e->trees.pool.frame_count / PIECE_FRAMES_SHARE));
    r->bytes = malloc(PIECE_BYTES);
    r->records = malloc(r->key_limit * sizeof *r->records);
    r->keys = malloc(r->key_limit * sizeof *r->keys);
    if (r->bytes == NULL || r->records == NULL || r->keys == NULL) return rw_error(RW_ENOMEM, "no memory to replay the log");
    int error = tree_writer_open(&e->trees, &r->writer);
    return error != 0 ? error : preload_open(e, &r->ahead);
}

static void replay_close(replay *r)
{
    if (r->ahead != NULL) preload_close(r->ahead);
    if (r->writer != NULL) tree_writer_close(r->writer);
    free(r->bytes);
    free(r->records);
    free(r->keys);
}

int replay_log(engine *e)
{
    replay r;
    uint64_t end_lsn;
    int error = replay_open(&r, e);
    if (error == 0) error = wal_replay(e->wal, r.image->checkpoint_lsn, r.image->durable_lsn, replay_record, &r, &end_lsn);
    if (error == 0) error = piece_apply(&r);
    replay_close(&r);
    if (error == RW_EREADONLY && e->read_only)
        return rw_error(RW_ENOMEM, "%s: the log changes more pages than the cache holds, and a read-only opening can write none: give it a larger cache", e->dir);
    return error;
}
