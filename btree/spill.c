#include "btree/spill_internal.h"

#define FILTER_PROBES 6u               /* bits of a line for each key: 9 bits of the hash tell each */
#define PROBE_BITS 9u

_Static_assert(RW_CACHE_LINE * 8 == 1u << PROBE_BITS, "a probe stays in its line");

/* ---- the filter ------------------------------------------------------------------------------------------------------ */

static uint64_t *filter_line(const spill *s, const pool *p, uint64_t hash)
{
    uint32_t lines = p->page_size / RW_CACHE_LINE, at = (uint32_t)((hash >> 32) * (s->filter_count * (uint64_t)lines) >> 32);
    return (uint64_t *)(void *)((unsigned char *)pool_page(p, s->filter[at / lines]) + (size_t)(at % lines) * RW_CACHE_LINE);
}

static uint64_t filter_probes(uint64_t hash)
{
    return (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9u >> (64 - FILTER_PROBES * PROBE_BITS);
}

void spill_filter_note(spill *s, const pool *p, uint64_t hash)
{
    uint64_t *line = filter_line(s, p, hash), probes = filter_probes(hash);
    for (unsigned i = 0; i < FILTER_PROBES; i++, probes >>= PROBE_BITS) line[probes / 64 % (RW_CACHE_LINE / 8)] |= (uint64_t)1 << probes % 64;
}

bool spill_may_hold(const spill *s, const pool *p, uint64_t hash)
{
    if (s->filter_count == 0) return true;
    const uint64_t *line = filter_line(s, p, hash);
    uint64_t probes = filter_probes(hash);
    for (unsigned i = 0; i < FILTER_PROBES; i++, probes >>= PROBE_BITS)
        if ((line[probes / 64 % (RW_CACHE_LINE / 8)] >> probes % 64 & 1) == 0) return false;
    return true;
}

/* ---- what is above the leaves ----------------------------------------------------------------------------------------- */

static const node *parent_at(const spill *s, const pool *p, uint32_t i)
{
    return pool_page(p, s->parents[i]);
}

/* The last parent that begins at key or below; the first one, if none does. */
static uint32_t parent_of(const spill *s, const pool *p, rw_slice key)
{
    uint32_t low = 1, high = s->parent_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (rw_slice_compare(node_lower_fence(parent_at(s, p, middle)), key) <= 0) low = middle + 1;
        else high = middle;
    }
    return low - 1;
}

page_ref spill_leaf(const spill *s, const pool *p, rw_slice key)
{
    const node *n = parent_at(s, p, parent_of(s, p, key));
    if (rw_slice_compare(key, node_lower_fence(n)) < 0) return page_ref_none();
    return node_child(n, p->page_size, node_child_slot(n, p->page_size, key));
}

/* Whether the child at slot begins at `to` or beyond. */
static bool child_is_beyond(const node *n, unsigned slot, rw_slice to)
{
    unsigned char key[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX];
    if (to.size == 0) return false;
    if (slot == 0) return rw_slice_compare(node_lower_fence(n), to) >= 0;
    node_key_copy(n, slot, key);
    return rw_slice_compare(rw_slice_of(key, node_key_length(n, slot)), to) >= 0;
}

uint32_t spill_leaves(const spill *s, const pool *p, rw_slice from, rw_slice to, page_ref *leaves, uint32_t max)
{
    uint32_t count = 0, first = parent_of(s, p, from);
    for (uint32_t i = first; i < s->parent_count; i++) {
        const node *n = parent_at(s, p, i);
        bool within = i == first && rw_slice_compare(from, node_lower_fence(n)) > 0;
        for (unsigned slot = within ? node_child_slot(n, p->page_size, from) : 0; slot < n->count; slot++) {
            if (count == max || child_is_beyond(n, slot, to)) return count;
            leaves[count++] = node_child(n, p->page_size, slot);
        }
    }
    return count;
}

bool spill_names(const spill *s, const pool *p, uint64_t address)
{
    for (uint32_t i = 0; i < s->inner_count; i++)
        if (page_ref_address(s->inner[i]) == address) return true;
    for (uint32_t i = 0; i < s->parent_count; i++) {
        const node *n = parent_at(s, p, i);
        for (unsigned slot = 0; slot < n->count; slot++)
            if (page_ref_address(node_child(n, p->page_size, slot)) == address) return true;
    }
    return false;
}

void spill_retire(const spill *s, const pool *p, store_retired *retired)
{
    for (uint32_t i = 0; i < s->inner_count; i++) store_retire(retired, page_ref_address(s->inner[i]), page_ref_blocks(s->inner[i]));
    for (uint32_t i = 0; i < s->parent_count; i++) {
        const node *n = parent_at(s, p, i);
        for (unsigned slot = 0; slot < n->count; slot++) {
            page_ref ref = node_child(n, p->page_size, slot);
            store_retire(retired, page_ref_address(ref), page_ref_blocks(ref));
        }
    }
}

void spill_close(spill *s, pool *p)
{
    for (uint32_t i = 0; i < s->parent_count; i++) pool_frame_free(p, s->parents[i]);
    for (uint32_t i = 0; i < s->filter_count; i++) pool_frame_free(p, s->filter[i]);
    free(s->parents);
    free(s->filter);
    free(s->inner);
    free(s);
}
