/* What is alive after an open: told by claims, one bit for each block, or by the space map and claims of what came after it. */
#include "store/store_internal.h"

/* ---- claiming ---- */

static int claim_refused(const store *s, uint64_t address, uint32_t blocks, const char *why)
{
    return rw_error(RW_ECORRUPT, "%s: the run of %u blocks at offset %llu is named as alive, but %s", kio_file_path(s->file), blocks,
                    (unsigned long long)address * RW_BLOCK_SIZE, why);
}

static bool claim_bit(const segments *g, uint64_t block)
{
    return (g->claimed[block / 64] >> block % 64 & 1) != 0;
}

static bool claims_meet(const segments *g, uint64_t address, uint32_t blocks)
{
    for (uint64_t block = address; block < address + blocks; block++)
        if (claim_bit(g, block)) return true;
    return false;
}

/* Why the run cannot be one that was allocated and is alive once only; NULL when it can. */
static const char *claim_doubt(const store *s, uint64_t address, uint32_t blocks)
{
    const segments *g = &s->segments;
    uint32_t within = (uint32_t)(address % SEGMENT_BLOCKS), first = (uint32_t)(address / SEGMENT_BLOCKS);
    bool spans = blocks > SEGMENT_BLOCKS;
    if (spans ? within != 0 : within + blocks > SEGMENT_BLOCKS) return "it does not lie in segments as an allocation does";
    if (claims_meet(g, address, blocks)) return "a part of it was named before";
    for (uint32_t n = first; (uint64_t)n * SEGMENT_BLOCKS < address + blocks; n++) {
        if (g->flags[n].mapped) return "the space map has counted its segment before that";
        if (g->flags[n].spanned || (spans && g->live[n] != 0)) return "it shares a segment with a run over several segments";
    }
    return NULL;
}

static int claims_prepare(segments *g)
{
    if (g->claimed != NULL) return 0;
    size_t blocks = (size_t)g->count * SEGMENT_BLOCKS;
    g->claimed = calloc((blocks + 63) / 64, sizeof *g->claimed);
    return g->claimed != NULL ? 0 : rw_error(RW_ENOMEM, "no memory to mark %zu blocks as alive", blocks);
}

static void claim_mark(segments *g, uint64_t address, uint32_t blocks)
{
    bool spans = blocks > SEGMENT_BLOCKS;
    for (uint64_t block = address; block < address + blocks; block++) g->claimed[block / 64] |= (uint64_t)1 << block % 64;
    for (uint32_t n = (uint32_t)(address / SEGMENT_BLOCKS); blocks > 0; n++) {
        uint32_t part = RW_MIN(blocks, SEGMENT_BLOCKS);
        segment_live_add(g, n, part);
        g->flags[n].spanned |= spans;
        blocks -= part;
    }
}

int store_claim(store *s, uint64_t address, uint32_t blocks)
{
    segments *g = &s->segments;
    if (!segments_contain(s, address, blocks)) return claim_refused(s, address, blocks, "it lies outside of the file");
    kio_mutex_lock(s->k, &s->mutex);
    RW_ASSERT(g->claiming);
    int result = claims_prepare(g);
    if (result == 0) {
        const char *doubt = claim_doubt(s, address, blocks);
        if (doubt != NULL)
            result = claim_refused(s, address, blocks, doubt);
        else
            claim_mark(g, address, blocks);
    }
    kio_mutex_unlock(s->k, &s->mutex);
    return result;
}

bool store_is_claimed(store *s, uint64_t address, uint32_t blocks)
{
    const segments *g = &s->segments;
    if (!segments_contain(s, address, blocks)) return false;
    kio_mutex_lock(s->k, &s->mutex);
    RW_ASSERT(g->claiming);
    bool claimed = g->claimed != NULL;
    for (uint64_t block = address; claimed && block < address + blocks; block++) claimed = claim_bit(g, block);
    kio_mutex_unlock(s->k, &s->mutex);
    return claimed;
}

bool store_claims_needed(const store *s)
{
    return s->claims_needed;
}

/* ---- what the space map says ---- */

int segments_load(store *s, const uint32_t *entries, uint32_t count)
{
    segments *g = &s->segments;
    RW_ASSERT(g->claiming && g->live_blocks == 0);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t live = entries[n] & ~SPACE_MAP_SPANNED;
        if (live > SEGMENT_BLOCKS || (live > 0 && (n == 0 || n >= g->count)) || (live == 0 && entries[n] != 0))
            return rw_error(RW_ECORRUPT, "%s: the space map's entry %08x for segment %u is impossible, of %u in the file",
                            kio_file_path(s->file), entries[n], n, g->count);
    }
    for (uint32_t n = 1; n < RW_MIN(count, g->count); n++) {
        if (entries[n] == 0) continue;
        segment_live_add(g, n, entries[n] & ~SPACE_MAP_SPANNED);
        g->flags[n].mapped = true;
        g->flags[n].spanned = (entries[n] & SPACE_MAP_SPANNED) != 0;
    }
    return 0;
}

/* ---- the end ---- */

/* What holds something alive is closed, the rest is free. */
static void claims_end(store *s)
{
    segments *g = &s->segments;
    if (!g->claiming) return;
    g->claiming = false;
    free(g->claimed);
    g->claimed = NULL;
    for (uint32_t n = 1; n < g->count; n++)
        if (g->live[n] == 0) segment_to_free(g, n);
    segments_check(s);
}

void store_claims_end(store *s)
{
    kio_mutex_lock(s->k, &s->mutex);
    claims_end(s);
    kio_mutex_unlock(s->k, &s->mutex);
}
