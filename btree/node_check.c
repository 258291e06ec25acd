/* Looking at a node: the rules of node_format.h, and a printer. Both are safe on any bytes. */
#include "btree/node_internal.h"

#define DAMAGED(...) rw_error(RW_ECORRUPT, "node: " __VA_ARGS__)

static int check_layout(const node *n, uint32_t page_size)
{
    uint32_t end = node_heap_end(page_size), slots_end = node_slots_end(n->count);
    if (n->page.type != PAGE_NODE) return DAMAGED("page type %u is not that of a node", n->page.type);
    if (slots_end > n->heap_start || n->heap_start > end)
        return DAMAGED("heap start %u is not between the end %u of %u slots and %u", n->heap_start, slots_end, n->count, end);
    for (unsigned i = 0; i < sizeof n->zero; i++)
        if (n->zero[i] != 0) return DAMAGED("unused header byte %u is not zero", i);
    if (rw_load_u64(node_at_const(n, end)) != 0) return DAMAGED("the last %u bytes are not zero", NODE_HEAP_TRAILER);
    return 0;
}

/* Whether size bytes at offset lie in the heap, as its allocation leaves them. */
static bool in_heap(const node *n, uint32_t page_size, uint32_t offset, uint32_t size)
{
    uint32_t end = node_heap_end(page_size);
    if (size == 0) return offset == end;
    return offset >= n->heap_start && offset + size <= end;
}

static int check_fences(const node *n, uint32_t page_size)
{
    if (n->lower_length > node_key_max(page_size) || !in_heap(n, page_size, n->lower_offset, n->lower_length))
        return DAMAGED("lower fence (offset %u, length %u) is not in the heap", n->lower_offset, n->lower_length);
    if (n->upper_length > node_key_max(page_size) || !in_heap(n, page_size, n->upper_offset, n->upper_length))
        return DAMAGED("upper fence (offset %u, length %u) is not in the heap", n->upper_offset, n->upper_length);
    rw_slice lower = node_lower_fence(n), upper = node_upper_fence(n);
    if (upper.size != 0 && rw_slice_compare(lower, upper) >= 0) return DAMAGED("the lower fence is not below the upper fence");
    size_t prefix = node_prefix_of_fences(lower, upper);
    if (n->prefix_length != prefix) return DAMAGED("prefix length %u, the fences share %zu bytes", n->prefix_length, prefix);
    return 0;
}

static int check_slot(const node *n, uint32_t page_size, unsigned slot)
{
    const node_slot *s = &n->slots[slot];
    if (!in_heap(n, page_size, s->offset, node_slot_heap_bytes(s)))
        return DAMAGED("slot %u (offset %u, key %u, value %u bytes) is not in the heap", slot, s->offset, s->key_length, s->value_length);
    if ((uint32_t)s->key_length + n->prefix_length > node_key_max(page_size)) return DAMAGED("slot %u: its key is too long", slot);
    if (s->head != node_head_of(node_at_const(n, s->offset), s->key_length)) return DAMAGED("slot %u: its head is not its key's", slot);
    if (node_is_leaf(n)) {
        if ((s->flags & ~(unsigned)NODE_SLOT_EXTENT) != 0) return DAMAGED("slot %u: unknown flags %#x", slot, s->flags);
        if (s->flags == NODE_SLOT_EXTENT && s->value_length != sizeof(extent_ref))
            return DAMAGED("slot %u: an extent reference of %u bytes", slot, s->value_length);
        return 0;
    }
    if (s->flags != 0) return DAMAGED("slot %u: flags %#x in an inner node", slot, s->flags);
    if (s->value_length != sizeof(page_ref)) return DAMAGED("slot %u: a page reference of %u bytes", slot, s->value_length);
    if (rw_load_u64(node_slot_value(n, s)) == 0) return DAMAGED("slot %u names no child", slot);
    if (slot == 0 && s->key_length != 0) return DAMAGED("the first child has a separator");
    return 0;
}

static int check_slots(const node *n, uint32_t page_size)
{
    uint32_t heap = (uint32_t)n->lower_length + n->upper_length + n->heap_garbage, extents = 0;
    for (unsigned i = 0; i < n->count; i++) {
        int error = check_slot(n, page_size, i);
        if (error) return error;
        const node_slot *s = &n->slots[i];
        heap += node_slot_heap_bytes(s);
        extents += node_value_has_extent(n, node_slot_value(n, s), s->flags);
    }
    if (!node_is_leaf(n) && n->count == 0) return DAMAGED("an inner node without a child");
    if (heap != node_heap_end(page_size) - n->heap_start)
        return DAMAGED("%u bytes of heap, of which %u are accounted for", node_heap_end(page_size) - n->heap_start, heap);
    if (extents != n->extents) return DAMAGED("extents %u, counted %u", n->extents, extents);
    for (unsigned i = 0; i < NODE_HINTS; i++) {
        uint32_t hint = n->count == 0 ? 0 : n->slots[node_hint_slot(n->count, i)].head;
        if (n->hints[i] != hint) return DAMAGED("hint %u is not the head of its slot", i);
    }
    return 0;
}

/* Heads are known to be the keys', so they decide unless they are equal. */
static int slot_order(const node *n, unsigned a, unsigned b)
{
    if (n->slots[a].head != n->slots[b].head) return n->slots[a].head < n->slots[b].head ? -1 : 1;
    return rw_slice_compare(node_key_rest(n, a), node_key_rest(n, b));
}

static rw_slice without_prefix(const node *n, rw_slice fence)
{
    return rw_slice_of((const unsigned char *)fence.data + n->prefix_length, fence.size - n->prefix_length);
}

static int check_order(const node *n)
{
    for (unsigned i = 1; i < n->count; i++)
        if (slot_order(n, i - 1, i) >= 0) return DAMAGED("the key of slot %u is not above that of slot %u", i, i - 1);
    /* The separator of the second child of an inner node lies truly above the lower fence: the first child covers something. */
    unsigned first = node_is_leaf(n) ? 0 : 1;
    if (n->count <= first) return 0;
    int order = rw_slice_compare(node_key_rest(n, first), without_prefix(n, node_lower_fence(n)));
    if (order < 0 || (order == 0 && first == 1)) return DAMAGED("the key of slot %u is not above the lower fence", first);
    rw_slice upper = node_upper_fence(n);
    if (upper.size != 0 && rw_slice_compare(node_key_rest(n, n->count - 1u), without_prefix(n, upper)) >= 0)
        return DAMAGED("the key of slot %u is not below the upper fence", n->count - 1u);
    return 0;
}

/* Marks the bytes as used, a word of bits at a time; false: one of them was already. */
static bool claim(uint64_t *used, uint32_t offset, uint32_t size)
{
    for (uint32_t at = offset, left = size, bits; left > 0; at += bits, left -= bits) {
        bits = RW_MIN(left, 64 - at % 64);
        uint64_t mask = UINT64_MAX >> (64 - bits) << (at % 64);
        if ((used[at / 64] & mask) != 0) return false;
        used[at / 64] |= mask;
    }
    return true;
}

static int check_overlap(const node *n)
{
    uint64_t used[RW_PAGE_SIZE_MAX / 64] = {0};
    claim(used, n->lower_offset, n->lower_length);
    if (!claim(used, n->upper_offset, n->upper_length)) return DAMAGED("the fences overlap in the heap");
    for (unsigned i = 0; i < n->count; i++)
        if (!claim(used, n->slots[i].offset, node_slot_heap_bytes(&n->slots[i]))) return DAMAGED("slot %u overlaps another in the heap", i);
    return 0;
}

int node_check(const node *n, uint32_t page_size, bool deep)
{
    int error = check_layout(n, page_size);
    if (!error) error = check_fences(n, page_size);
    if (!error) error = check_slots(n, page_size);
    if (!error && deep) error = check_order(n);
    if (!error && deep) error = check_overlap(n);
    return error;
}

/* ---- printing ------------------------------------------------------------------------------------------------------- */

#define PRINTED_BYTES_MAX 64u

static void print_bytes(const node *n, uint32_t page_size, uint32_t offset, uint32_t size, FILE *to)
{
    if (offset > page_size || size > page_size - offset) {
        fprintf(to, "(out of the page: offset %u, %u bytes)", offset, size);
        return;
    }
    const unsigned char *bytes = node_at_const(n, offset);
    fputc('"', to);
    for (uint32_t i = 0; i < RW_MIN(size, PRINTED_BYTES_MAX); i++) {
        if (bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '"' && bytes[i] != '\\') fputc(bytes[i], to);
        else fprintf(to, "\\x%02x", bytes[i]);
    }
    fputs(size > PRINTED_BYTES_MAX ? "\"..." : "\"", to);
}

static void print_value(const node *n, uint32_t page_size, unsigned slot, FILE *to)
{
    unsigned flags;
    rw_slice value = node_value(n, page_size, slot, &flags);
    page_ref child;
    extent_ref extent;
    if (value.data == NULL) {
        fputs("(value out of the page)", to);
    } else if (!node_is_leaf(n) && value.size == sizeof child) {
        memcpy(&child, value.data, sizeof child);
        if (page_ref_is_frame(child)) fprintf(to, "frame %u", page_ref_frame(child));
        else fprintf(to, "block %llu, %u blocks, checksum %08x", (unsigned long long)page_ref_address(child), page_ref_blocks(child), child.checksum);
        fprintf(to, ", %u records%s", child.estimate & PAGE_REF_ESTIMATE_MAX, child.estimate & PAGE_REF_HAS_EXTENTS ? ", extents" : "");
    } else if ((flags & NODE_SLOT_EXTENT) != 0 && value.size == sizeof extent) {
        memcpy(&extent, value.data, sizeof extent);
        fprintf(to, "extent at block %llu, %u bytes, checksum %08x", (unsigned long long)extent.address, extent.length, extent.checksum);
    } else {
        fprintf(to, "%zu bytes ", value.size);
        print_bytes(n, page_size, (uint32_t)((const unsigned char *)value.data - node_at_const(n, 0)), (uint32_t)value.size, to);
    }
}

void node_print(const node *n, uint32_t page_size, FILE *to)
{
    unsigned count = node_count_bounded(n, page_size);
    fprintf(to, "node: type %u, level %u, %u slots, heap from %u, garbage %u, extents %u, newest timestamp %llu\n", n->page.type, n->page.level,
            n->count, n->heap_start, n->heap_garbage, n->extents, (unsigned long long)n->page.newest_timestamp);
    fputs("  lower fence ", to);
    print_bytes(n, page_size, n->lower_offset, n->lower_length, to);
    fputs(", upper fence ", to);
    if (n->upper_length == 0) fputs("none", to);
    else print_bytes(n, page_size, n->upper_offset, n->upper_length, to);
    fprintf(to, ", prefix %u bytes\n", n->prefix_length);
    if (count < n->count) fprintf(to, "  (only %u slots fit the page)\n", count);
    for (unsigned i = 0; i < count; i++) {
        const node_slot *s = &n->slots[i];
        fprintf(to, "  %5u  head %08x  +", i, s->head);
        print_bytes(n, page_size, s->offset, s->key_length, to);
        fputs("  ", to);
        print_value(n, page_size, i, to);
        fputc('\n', to);
    }
}
