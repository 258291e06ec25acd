/* Reads of newest committed values. */
#include "base/memory.h"
#include "engine/engine_internal.h"

int engine_extent_read(engine *e, rw_slice key, extent_ref extent, void *buf)
{
    void *staging = rw_memory_aligned(EXTENT_STAGING_BYTES);
    if (staging == NULL) return rw_error(RW_ENOMEM, "no memory to read a value of %u bytes", extent.length);
    int error = store_extent_read(e->store, extent, key, buf, staging, EXTENT_STAGING_BYTES);
    free(staging);
    return error;
}

int engine_get(engine *e, rw_slice key, void *buf, size_t *size)
{
    extent_ref suspect = {0};
    for (;;) {
        bool is_extent = false;
        extent_ref extent;
        int error = trees_get(&e->trees, key, buf, size, &is_extent, &extent);
        if (error != 0 || !is_extent) return error;
        if (extent.length > *size) {
            error = rw_error(RW_ETOOSMALL, "the value has %u bytes, the buffer %zu", extent.length, *size);
            *size = extent.length;
            return error;
        }
        error = engine_extent_read(e, key, extent, buf);
        if (error == 0) *size = extent.length;
        /* Without a token the value may have been replaced meanwhile, and its run used again, or cut off with the file's end: then the leaf names
         * another one. */
        bool again = (error == RW_ECORRUPT || error == RW_EIO) && memcmp(&suspect, &extent, sizeof extent) != 0;
        if (!again) return error;
        suspect = extent;
    }
}
