/* The offline check's account of space: which blocks are referenced, each once, and whether a clean close's map agrees. */
#include "engine/verify.h"

#define SEGMENT_BLOCKS (RW_SEGMENT_BYTES / RW_BLOCK_SIZE)

int verify_space_open(verifier *v)
{
    store_space space;
    store_space_get(v->store, &space);
    v->segment_count = space.segments;
    uint64_t words = ((uint64_t)space.segments * SEGMENT_BLOCKS + 63) / 64;
    v->claimed = calloc((size_t)words, sizeof *v->claimed);
    v->segments = calloc(space.segments, sizeof *v->segments);
    if (v->claimed == NULL || v->segments == NULL)
        return rw_error(RW_ENOMEM, "no memory to account for %u segments of the data file", space.segments);
    return 0;
}

static bool in_file(const verifier *v, uint64_t address, uint64_t blocks)
{
    uint64_t end = (uint64_t)v->segment_count * SEGMENT_BLOCKS;
    return blocks > 0 && address >= SEGMENT_BLOCKS && address <= end && blocks <= end - address;
}

static bool block_claimed(const verifier *v, uint64_t block)
{
    return (v->claimed[block / 64] >> block % 64 & 1) != 0;
}

static uint64_t blocks_claimed(const verifier *v, uint64_t address, uint64_t blocks)
{
    uint64_t count = 0;
    for (uint64_t block = address; block < address + blocks; block++) count += block_claimed(v, block);
    return count;
}

bool verify_claimed(const verifier *v, uint64_t address, uint64_t blocks)
{
    return in_file(v, address, blocks) && blocks_claimed(v, address, blocks) == blocks;
}

/* Why the run cannot have been allocated and be alive once only; NULL when it can. As the store sees it when it is opened after a crash. */
static const char *claim_doubt(const verifier *v, uint64_t address, uint64_t blocks)
{
    uint64_t within = address % SEGMENT_BLOCKS;
    bool spans = blocks > SEGMENT_BLOCKS;
    if (!in_file(v, address, blocks)) return "it lies outside of the file's segments";
    if (spans ? within != 0 : within + blocks > SEGMENT_BLOCKS) return "it does not lie in segments as an allocation does";
    if (blocks_claimed(v, address, blocks) != 0) return "a part of it is referenced from elsewhere too";
    for (uint64_t n = address / SEGMENT_BLOCKS; n * SEGMENT_BLOCKS < address + blocks; n++)
        if (v->segments[n].spanned || (spans && v->segments[n].live != 0)) return "it shares a segment with a run over several segments";
    return NULL;
}

bool verify_claim(verifier *v, uint64_t address, uint64_t blocks, const char *what)
{
    const char *doubt = claim_doubt(v, address, blocks);
    if (doubt != NULL) {
        verify_finding(v, "%s: offset %llu, %llu blocks, referenced by %s: %s", kio_file_path(store_file(v->store)),
                       (unsigned long long)address * RW_BLOCK_SIZE, (unsigned long long)blocks, what, doubt);
        return false;
    }
    for (uint64_t block = address; block < address + blocks; block++) {
        v->claimed[block / 64] |= (uint64_t)1 << block % 64;
        v->segments[block / SEGMENT_BLOCKS].live++;
        v->segments[block / SEGMENT_BLOCKS].spanned |= blocks > SEGMENT_BLOCKS;
    }
    return true;
}

int verify_space_map(verifier *v)
{
    uint64_t address;
    uint32_t blocks;
    const char *damage = store_space_map_damage(v->store);
    if (damage != NULL) return verify_finding(v, "%s", damage);
    if (store_claims_needed(v->store)) return 0; /* not closed cleanly: there is no map */
    store_space_map_run(v->store, &address, &blocks);
    if (!verify_claim(v, address, blocks, "the superblock as space map") || v->incomplete) return 0;
    for (uint32_t n = 1; n < v->segment_count; n++) {
        uint32_t mapped = store_segment_live(v->store, n) / RW_BLOCK_SIZE;
        if (mapped == v->segments[n].live) continue;
        verify_finding(v, "%s: segment %u at offset %llu: %u blocks are referenced, the space map at offset %llu says %u",
                       kio_file_path(store_file(v->store)), n, (unsigned long long)n * RW_SEGMENT_BYTES, v->segments[n].live,
                       (unsigned long long)address * RW_BLOCK_SIZE, mapped);
    }
    return 0;
}
