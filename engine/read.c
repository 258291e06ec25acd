/* Reads of values: the newest committed ones, and those of a snapshot. */
#include "base/memory.h"
#include "base/preempt.h"
#include "engine/commit_many.h"
#include "engine/txn.h"

int engine_extent_read(engine *e, rw_slice key, extent_ref extent, void *buf)
{
    void *staging = rw_memory_aligned(EXTENT_STAGING_BYTES);
    if (staging == NULL) return rw_error(RW_ENOMEM, "no memory to read a value of %u bytes", extent.length);
    int error = store_extent_read(e->store, extent, key, buf, staging, EXTENT_STAGING_BYTES);
    free(staging);
    return error;
}

static int too_small(size_t *size, size_t needed)
{
    int error = rw_error(RW_ETOOSMALL, "the value has %zu bytes, the buffer %zu", needed, *size);
    *size = needed;
    return error;
}

/* A read without a snapshot needs no timestamp, unless a commit of several operations is being applied where the key lives. */
static int read_any(engine *e, rw_slice key, uint64_t moment, void *buf, size_t room, tree_value *seen, tree_miss *miss)
{
    if (moment != SNAPSHOT_NEWEST) return read_at(e, key, moment, buf, room, seen);
    uint64_t rewrites = rewrites_before(e);
    int error = trees_get(&e->trees, key, buf, room, TREES_NEWEST, seen, miss);
    RW_PREEMPT(e->kio);
    if (error != 0 || seen->denied || RW_LIKELY(seen->partition < RW_PARTITIONS_MAX &&
                                atomic_load_explicit(&e->trees.partitions[seen->partition].applying, memory_order_acquire) == 0 &&
                                !rewrites_ended_since(e, rewrites))) return error;
    return read_newest(e, key, buf, room, seen);
}

static int get_at(engine *e, rw_slice key, uint64_t moment, void *buf, size_t *size, tree_miss *miss)
{
    extent_ref suspect = {0};
    for (;;) {
        tree_value seen;
        int error = read_any(e, key, moment, buf, *size, &seen, miss);
        if (error != 0) return error;
        if (!seen.found) return RW_ENOTFOUND;
        if (!seen.is_extent) {
            if (!seen.fits) return too_small(size, seen.size);
            *size = seen.size;
            return 0;
        }
        if (seen.extent.length > *size) return too_small(size, seen.extent.length);
        error = engine_extent_read(e, key, seen.extent, buf);
        if (error == 0) *size = seen.extent.length;
        /* Without a token the value may have been replaced or moved meanwhile, and its run used again, or cut off with the file's end: then the leaf names
         * another one. */
        bool again = (error == RW_ECORRUPT || error == RW_EIO) && memcmp(&suspect, &seen.extent, sizeof suspect) != 0;
        if (!again) return error;
        suspect = seen.extent;
    }
}

int engine_get_at(engine *e, rw_slice key, uint64_t moment, void *buf, size_t *size)
{
    return get_at(e, key, moment, buf, size, NULL);
}

int engine_get(engine *e, rw_slice key, void *buf, size_t *size)
{
    return get_at(e, key, SNAPSHOT_NEWEST, buf, size, NULL);
}

int engine_get_begin(engine *e, rw_slice key, void *buf, size_t *size, tree_miss *miss)
{
    return get_at(e, key, SNAPSHOT_NEWEST, buf, size, miss);
}
