/*
 * Replay: the log's records applied in order, a piece of the log at a time: first the pages that it will change are read, many at once, then it is
 * applied from memory. While one piece is applied the next one's pages are being read, and the one after that is gathered.
 */
#include "base/planted.h"
#include "engine/preload.h"

#define PIECE_BYTES ((size_t)2 << 20)  /* record bytes gathered before they are applied */
#define PIECE_KEYS 4096u               /* and keys; in a small cache fewer, so that the pages read for two pieces are still there */
#define PIECE_FRAMES_SHARE 8u
#define AHEAD_HINT 24u                 /* operations before its own that a key's hint is fetched from memory, */
#define AHEAD_LEAF 12u                 /* and what the hint leads to: see rw_multi_get */

typedef struct {
    uint64_t lsn;
    size_t offset, size;               /* of its body in bytes */
} piece_record;

typedef struct {
    unsigned char *bytes;
    size_t used;
    piece_record *records;
    preload_key *keys;
    uint32_t record_count, key_count;
    uint32_t key_next;                 /* while it is applied: the key of the next operation */
} piece;

typedef struct {
    engine *e;
    tree_writer *writer;
    preload *ahead;
    const store_image *image;
    uint32_t key_limit;
    /* one is gathered; the other is empty, or its pages are being read and it is applied next */
    piece pieces[2];
    unsigned gathered;
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
    int error = engine_apply(e, r->writer, &held, p, op, NULL, lsn);
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++)
        if (partition_set_has(&held, i)) partition_unlock(e->kio, &e->trees.partitions[i]);
    return error;
}

static int key_apply(replay *r, const wal_op *op, uint64_t lsn)
{
    trees *t = &r->e->trees;
    page_ref suspect = page_ref_none();
    for (;;) {
        tree_miss miss;
        partition *p = trees_lock(t, op->key);
        int state = engine_apply_try(r->e, r->writer, p, op, lsn, &miss), error = state;
        trees_unlock(t, p);
        if (state == TREE_MISS) error = trees_load(t, &miss, &suspect);
        else if (state == TREE_FRAMES) error = tree_writer_fill(r->writer);
        if (error != 0 || state == 0) return error;
    }
}

static bool op_is_in_image(const replay *r, const wal_op *op, uint64_t record_lsn)
{
    return op->kind != WAL_OP_DELETE_RANGE && record_lsn < image_partition(r->image, op->key)->lsn;
}

static void memory_ahead(replay *r, piece *p)
{
    uint32_t at = p->key_next++;
    if (at + AHEAD_HINT < p->key_count) trees_get_ahead(&r->e->trees, p->keys[at + AHEAD_HINT].key, TREES_AHEAD_HINT);
    if (at + AHEAD_LEAF < p->key_count) trees_get_ahead(&r->e->trees, p->keys[at + AHEAD_LEAF].key, TREES_AHEAD_CHANGE);
}

/* p: the piece that it is part of. */
static int record_apply(replay *r, piece *p, uint64_t lsn, rw_slice body)
{
    wal_op op;
    size_t at = 0, offset = 0;
    int error;
    for (; (error = wal_op_decode(body, &at, &op)) == 0; offset = at) {
        if (op_is_in_image(r, &op, lsn)) continue;
        memory_ahead(r, p);
        if (RW_PLANTED(skip_range_replay) && op.kind == WAL_OP_DELETE_RANGE) continue;
        error = op.kind == WAL_OP_DELETE_RANGE ? range_apply(r, &op, lsn + offset) : key_apply(r, &op, lsn + offset);
        if (error != 0) error = salvage_operation(r->e, &op, error);
        if (error != 0) return error;
    }
    r->e->recovery_records++;
    return error == RW_ENOTFOUND ? 0 : salvage_operation(r->e, NULL, error);
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static int piece_apply(replay *r, piece *p)
{
    int error = 0;
    p->key_next = 0;
    for (uint32_t i = 0; i < p->record_count && error == 0; i++)
        error = record_apply(r, p, p->records[i].lsn, rw_slice_of(p->bytes + p->records[i].offset, p->records[i].size));
    p->used = 0;
    p->record_count = p->key_count = 0;
    return error;
}

/* The gathered piece's pages begin to be read; meanwhile the piece before it, whose pages are there, is applied, and is gathered anew. */
static int piece_turn(replay *r)
{
    piece *gathered = &r->pieces[r->gathered], *before = &r->pieces[1 - r->gathered];
    preload_wait(r->ahead);
    if (gathered->key_count > 0) preload_begin(r->ahead, gathered->keys, gathered->key_count);
    r->gathered = 1 - r->gathered;
    return piece_apply(r, before);
}

/* Everything that was gathered is applied. */
static int pieces_finish(replay *r)
{
    int error = piece_turn(r);
    return error != 0 ? error : piece_turn(r);
}

static void piece_add(replay *r, piece *p, const wal_record *record)
{
    wal_op op;
    size_t at = 0;
    unsigned char *to = p->bytes + p->used;
    memcpy(to, record->body.data, record->body.size);
    p->records[p->record_count++] = (piece_record){.lsn = record->lsn, .offset = p->used, .size = record->body.size};
    p->used += record->body.size;
    while (p->key_count < r->key_limit && wal_op_decode(rw_slice_of(to, record->body.size), &at, &op) == 0)
        if (!op_is_in_image(r, &op, record->lsn)) p->keys[p->key_count++] = (preload_key){.key = op.key, .pends = op.kind == WAL_OP_PUT && r->e->replay_pends};
}

static int replay_record(void *arg, const wal_record *record)
{
    replay *r = arg;
    const piece *p = &r->pieces[r->gathered];
    bool alone = record->body.size > PIECE_BYTES;
    bool full = p->used + record->body.size > PIECE_BYTES || p->record_count == r->key_limit || p->key_count == r->key_limit;
    int error = alone ? pieces_finish(r) : full ? piece_turn(r) : 0;
    if (error != 0) return error;
    if (alone) return record_apply(r, &r->pieces[r->gathered], record->lsn, record->body);
    piece_add(r, &r->pieces[r->gathered], record);
    return 0;
}

static int replay_open(replay *r, engine *e)
{
    *r = (replay){.e = e, .image = store_image_opened(e->store)};
    r->key_limit = RW_MAX(1u, RW_MIN(PIECE_KEYS, e->trees.pool.frame_count / PIECE_FRAMES_SHARE));
    for (size_t i = 0; i < RW_ARRAY_SIZE(r->pieces); i++) {
        piece *p = &r->pieces[i];
        p->bytes = malloc(PIECE_BYTES);
        p->records = malloc(r->key_limit * sizeof *p->records);
        p->keys = malloc(r->key_limit * sizeof *p->keys);
        if (p->bytes == NULL || p->records == NULL || p->keys == NULL) return rw_error(RW_ENOMEM, "no memory to replay the log");
    }
    int error = tree_writer_open(&e->trees, &r->writer);
    return error != 0 ? error : preload_open(e, &r->ahead);
}

static void replay_close(replay *r)
{
    if (r->ahead != NULL) preload_close(r->ahead);
    if (r->writer != NULL) tree_writer_close(r->writer);
    for (size_t i = 0; i < RW_ARRAY_SIZE(r->pieces); i++) {
        free(r->pieces[i].bytes);
        free(r->pieces[i].records);
        free(r->pieces[i].keys);
    }
}

int replay_log(engine *e)
{
    replay r;
    uint64_t end_lsn;
    int error = replay_open(&r, e);
    if (error == 0) error = wal_replay(e->wal, r.image->checkpoint_lsn, r.image->durable_lsn, replay_record, &r, &end_lsn);
    if (error == 0) error = pieces_finish(&r);
    if (error == 0 && e->salvage != NULL) salvage_log_end(e, end_lsn);
    replay_close(&r);
    if (error == RW_EREADONLY && e->read_only)
        return rw_error(RW_ENOMEM, "%s: the log changes more pages than the cache holds, and a read-only opening can write none: give it a larger cache", e->dir);
    return error;
}
