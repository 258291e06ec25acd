/* Cleaning: what is still referenced in a sparse segment is moved elsewhere, so that the segment becomes free with the next checkpoint. */
#include "engine/engine_internal.h"

/* Of a read: what cannot be read stays where it is, noted; all else goes on. */
static int read_failed(int error, int *unreadable)
{
    if (error != RW_ECORRUPT && error != RW_EIO) return error;
    *unreadable = error;
    return 0;
}

/* A page found in the segment: if the tree still names this copy, it is made dirty, and so will be written elsewhere. */
static int page_move(engine *e, const node *n, uint64_t address, int *unreadable)
{
    trees *t = &e->trees;
    page_ref suspect = page_ref_none();
    unsigned level = n->page.level;
    rw_slice lower = node_lower_fence(n);
    for (;;) {
        tree_miss miss = {.level = level};
        int state;
        partition *p = trees_lock(t, lower);
        state = tree_move(t, p, lower, level, address, &miss);
        trees_unlock(t, p);
        if (state != TREE_MISS) return state;
        bool itself = miss.level == level && page_ref_address(miss.ref) == address;
        int error = itself ? trees_load_bytes(t, &miss, n, &suspect) : trees_load(t, &miss, &suspect);
        if (error != 0) return read_failed(error, unreadable);
    }
}

/* A page of a spill is not moved: its partition's spills are merged soon, and are gone then. */
static void spill_note(engine *e, const node *n, uint64_t address)
{
    trees *t = &e->trees;
    if (atomic_load(&t->pending.spill_frames) == 0) return; /* there are none */
    partition *p = trees_lock(t, node_lower_fence(n));
    uint32_t count = pending_spills(&t->pending, p->index);
    for (uint32_t i = 0; i < count; i++)
        if (spill_names(t->pending.sets[p->index].spills[i], &t->pool, address)) partition_set_add(&e->checkpointer.merges_wanted, p->index);
    trees_unlock(t, p);
}

/* Looks up what key's leaf names. With a copy: points the leaf to it, if it still names the old run. *named: it did, as *present; false, too, if that cannot be read. */
static int extent_repoint(engine *e, rw_slice key, uint64_t old_address, const extent_ref *copy, extent_ref *present, bool *named, int *unreadable)
{
    trees *t = &e->trees;
    page_ref suspect = page_ref_none();
    for (;;) {
        tree_position at;
        tree_miss miss;
        partition *p = trees_lock(t, key);
        int state = tree_find(t, p, key, &at, &miss);
        *named = state == 0 && at.found && tree_extent_at(t, &at, present) && present->address == old_address;
        if (*named && copy != NULL) tree_put_at(t, p, &at, key, rw_slice_of(copy, sizeof *copy), NODE_SLOT_EXTENT, 0);
        trees_unlock(t, p);
        if (state != TREE_MISS) return 0;
        int error = trees_load(t, &miss, &suspect);
        if (error != 0) return read_failed(error, unreadable);
    }
}

/* An extent that lies in the segment as a whole. */
static int extent_move(engine *e, const unsigned char *bytes, uint64_t address, uint32_t blocks, int *unreadable)
{
    uint32_t key_length = rw_load_u32(bytes + 64), value_length = rw_load_u32(bytes + 68);
    if (key_length > e->trees.router.key_stride || extent_blocks(key_length, value_length) != blocks) return 0;
    rw_slice key = rw_slice_of(bytes + EXTENT_HEADER_BYTES, key_length);
    rw_slice value = rw_slice_of(bytes + EXTENT_HEADER_BYTES + key_length, value_length);
    extent_ref present, copy;
    bool named;
    int error = extent_repoint(e, key, address, NULL, &present, &named, unreadable);
    if (error != 0 || !named) return error;
    /* Rot must not be given a fresh checksum. */
    if (present.length != value_length || rw_checksum(0, bytes, (size_t)blocks * RW_BLOCK_SIZE) != present.checksum) return 0;
    wal_op op = {.kind = WAL_OP_PUT, .key = key, .second = value};
    error = engine_place_value(e, &op, &copy);
    if (error != 0) return error;
    RW_ASSERT(op.kind == WAL_OP_PUT_EXTENT);
    error = extent_repoint(e, key, address, &copy, &present, &named, unreadable);
    if (error != 0 || !named) engine_unplace_value(e, &op);
    return error;
}

/* Whether a page or extent begins at this block: what it says of itself fits its place. */
static uint32_t item_blocks(engine *e, const page_header *header, uint64_t address, uint32_t blocks_left)
{
    if (header->magic != PAGE_MAGIC || header->database_id != e->database_id || header->address != address) return 0;
    if (header->length == 0 || header->length % RW_BLOCK_SIZE != 0 || header->length / RW_BLOCK_SIZE > blocks_left) return 0;
    return header->length / RW_BLOCK_SIZE;
}

/* *unreadable: the last error of a read; what it was wanted for has stayed. */
static int segment_clean(engine *e, uint32_t segment, int *unreadable)
{
    const uint32_t blocks = RW_SEGMENT_BYTES / RW_BLOCK_SIZE;
    uint64_t first = (uint64_t)segment * blocks;
    unsigned char *bytes = e->checkpointer.segment;
    int error = kio_file_read(e->kio, store_file(e->store), bytes, RW_SEGMENT_BYTES, first * RW_BLOCK_SIZE);
    if (error != 0) return read_failed(error, unreadable);
    for (uint32_t block = 0, step; block < blocks && error == 0; block += step) {
        unsigned char *at = bytes + (size_t)block * RW_BLOCK_SIZE;
        const page_header *header = (const page_header *)(const void *)at;
        uint32_t found = item_blocks(e, header, first + block, blocks - block);
        step = RW_MAX(found, 1u);
        if (found == e->trees.pool.page_blocks && header->type == PAGE_NODE) {
            const node *n = (const node *)(const void *)at;
            if (node_check(n, e->page_size, false) != 0) continue;
            spill_note(e, n, first + block);
            error = page_move(e, n, first + block, unreadable);
        } else if (found > 0 && header->type == PAGE_EXTENT) {
            error = extent_move(e, at, first + block, found, unreadable);
        }
    }
    return error;
}

int clean_step(engine *e, unsigned max_live_percent, uint32_t from, bool *done, int *unreadable)
{
    uint32_t segment = store_clean_pick(e->store, max_live_percent, from);
    *done = segment != 0;
    *unreadable = 0;
    if (segment == 0) return 0;
    int error = segment_clean(e, segment, unreadable);
    if (error != 0 || *unreadable != 0) store_clean_end(e->store, segment, *unreadable != 0);
    else atomic_fetch_add(&e->checkpointer.cleaned, 1);
    return error;
}
