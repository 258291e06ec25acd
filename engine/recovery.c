/*
 * Recovery: what is alive in the data file, the trees of the last checkpoint, the log replayed over them. An operation is applied to a leaf if and
 * only if the leaf's newest timestamp is smaller than its own: so replay meets each leaf exactly where its image stands (README.md, R1 to R4).
 */
#include "base/planted.h"
#include "base/memory.h"
#include "engine/engine_internal.h"

/* ---- what is alive ----------------------------------------------------------------------------------------------- */

static int claim_leaf_extents(engine *e, const node *n)
{
    for (unsigned i = 0; i < n->count; i++) {
        unsigned flags = 0;
        rw_slice value = node_value(n, e->page_size, i, &flags);
        if ((flags & NODE_SLOT_EXTENT) == 0) continue;
        extent_ref extent;
        if (value.size != sizeof extent) return rw_error(RW_ECORRUPT, "a leaf names an extent in %zu bytes", value.size);
        memcpy(&extent, value.data, sizeof extent);
        int error = store_claim(e->store, extent.address, extent_blocks((uint32_t)node_key_length(n, i), extent.length));
        if (error != 0) return error;
    }
    return 0;
}

/* Claims a page and all below it. Leaves are read only when they name extents. */
static int claim_subtree(engine *e, page_ref ref, unsigned level)
{
    int error = store_claim(e->store, page_ref_address(ref), page_ref_blocks(ref));
    if (error != 0 || (level == 0 && (ref.estimate & PAGE_REF_HAS_EXTENTS) == 0)) return error;
    if (page_ref_blocks(ref) * RW_BLOCK_SIZE != e->page_size) return rw_error(RW_ECORRUPT, "a reference names a page of %u blocks", page_ref_blocks(ref));
    node *n = rw_memory_aligned(e->page_size);
    if (n == NULL) return rw_error(RW_ENOMEM, "no memory to read a page");
    error = store_page_read(e->store, ref, n);
    if (error == 0) error = node_check(n, e->page_size, false);
    if (error == 0 && n->page.level != level) error = rw_error(RW_ECORRUPT, "a page has level %u, expected %u", n->page.level, level);
    if (error == 0 && level == 0) error = claim_leaf_extents(e, n);
    for (unsigned i = 0; error == 0 && level > 0 && i < n->count; i++) error = claim_subtree(e, node_child(n, e->page_size, i), level - 1);
    free(n);
    return error;
}

static int claim_image(engine *e)
{
    const store_image *image = store_image_opened(e->store);
    for (uint32_t i = 0; i < image->partition_count; i++) {
        const store_partition *p = &image->partitions[i];
        if (p->height == 0 || p->height > TREE_LEVELS_MAX) return rw_error(RW_ECORRUPT, "partition %u has %u levels", p->id, p->height);
        int error = claim_subtree(e, p->root, p->height - 1);
        for (uint32_t k = 0; k < p->spill_count && error == 0; k++) error = claim_subtree(e, p->spills[k].root, RW_MIN(p->spills[k].height, TREE_LEVELS_MAX) - 1);
        if (error != 0) return rw_error_prefix(error, "partition %u", p->id);
    }
    return 0;
}

/* The image's partition that key belongs to. */
const store_partition *image_partition(const store_image *image, rw_slice key)
{
    uint32_t low = 1, high = image->partition_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (rw_slice_compare(image->partitions[middle].low_key, key) <= 0) low = middle + 1;
        else high = middle;
    }
    return &image->partitions[low - 1];
}

/* Runs that the log names and the image may not: they must not be allocated while the log is replayed. */
static int claim_record(void *arg, const wal_record *record)
{
    engine *e = arg;
    wal_op op;
    size_t at = 0;
    int error;
    while ((error = wal_op_decode(record->body, &at, &op)) == 0) {
        extent_ref extent;
        if (op.kind != WAL_OP_PUT_EXTENT || record->lsn < image_partition(store_image_opened(e->store), op.key)->lsn) continue;
        if (op.second.size != sizeof extent) return rw_error(RW_ECORRUPT, "a log record names an extent in %zu bytes", op.second.size);
        memcpy(&extent, op.second.data, sizeof extent);
        uint32_t blocks = extent_blocks((uint32_t)op.key.size, extent.length);
        if (store_is_claimed(e->store, extent.address, blocks)) continue;
        error = store_claim(e->store, extent.address, blocks);
        if (error != 0) return error;
    }
    return error == RW_ENOTFOUND ? 0 : error;
}

#define FITS_SHARE 4u                  /* what takes at most 3/4 of the frames finds room in the cache */

/*
 * Whether puts whose leaves are on disk wait for them. A short log is replayed sooner so. A long one comes by every leaf, and by most of them often: where all of them find room in the cache they are read, many at
 * once. Read-only nothing could be written when a leaf was read later.
 */
static bool puts_wait(engine *e, uint64_t log_bytes)
{
    store_space space;
    store_space_get(e->store, &space);
    uint64_t cache = (uint64_t)e->trees.pool.frame_count * e->page_size;
    bool fits = space.live_bytes <= cache - cache / FITS_SHARE;
    return !e->read_only && !(fits && log_bytes > space.live_bytes);
}

int recovery_run(engine *e)
{
    const store_image *image = store_image_opened(e->store);
    uint64_t end_lsn = image->checkpoint_lsn, began = kio_now_ns(e->kio);
    if (image->partition_count == 0 || image->partitions[0].low_key.size != 0) return rw_error(RW_ECORRUPT, "the superblock names no first partition");
    int error = store_claims_needed(e->store) && !e->read_only ? claim_image(e) : 0;
    if (error == 0 && !e->read_only) error = wal_replay(e->wal, image->checkpoint_lsn, image->durable_lsn, claim_record, e, &end_lsn);
    if (error != 0) return error;
    store_claims_end(e->store);
    e->replay_pends = puts_wait(e, end_lsn - image->checkpoint_lsn);
    for (uint32_t i = 0; i < image->partition_count && error == 0; i++) {
        error = trees_adopt(&e->trees, &image->partitions[i]);
        if (error != 0) error = salvage_partition(e, i, error);
    }
    if (error == 0) error = replay_log(e);
    e->recovery_ns = kio_now_ns(e->kio) - began;
    return error;
}
