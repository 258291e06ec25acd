/* One node: space, insertion, update, removal. */
#include "btree/node_internal.h"

/* At every page size two maximal fences leave room in an otherwise empty node: leaf: for a record of a maximal key with an extent_ref, and for the
 * largest inline record; inner: for a first child and another one with a maximal separator (README.md, Nodes). */
#define NODE_PROOF_KEY_MAX(page_size) ((page_size) / 4 - 24 + RW_BUCKET_PREFIX)
#define NODE_PROOF_CAPACITY(page_size) ((page_size) - (uint32_t)sizeof(node) - NODE_HEAP_TRAILER)
#define NODE_PROOF_INLINE(page_size) (NODE_PROOF_CAPACITY(page_size) * 5 / 16)
#define NODE_PROOF(page_size)                                                                                                            \
    _Static_assert(3 * NODE_PROOF_KEY_MAX(page_size) + sizeof(extent_ref) + sizeof(node_slot) <= NODE_PROOF_CAPACITY(page_size), "leaf"); \
    _Static_assert(2 * NODE_PROOF_KEY_MAX(page_size) + NODE_PROOF_INLINE(page_size) <= NODE_PROOF_CAPACITY(page_size), "leaf");           \
    _Static_assert(3 * NODE_PROOF_KEY_MAX(page_size) + 2 * (sizeof(page_ref) + sizeof(node_slot)) <= NODE_PROOF_CAPACITY(page_size), "inner")
NODE_PROOF(RW_PAGE_SIZE_MIN);
NODE_PROOF(8192u);
NODE_PROOF(16384u);
NODE_PROOF(32768u);
NODE_PROOF(RW_PAGE_SIZE_MAX);
_Static_assert(RW_PAGE_SIZE_MAX - NODE_HEAP_TRAILER <= UINT16_MAX, "the heap's end is a 16-bit offset");

uint32_t node_capacity(uint32_t page_size)
{
    return page_size - (uint32_t)offsetof(node, slots) - NODE_HEAP_TRAILER;
}

/* Five sixteenths of the capacity with the slot: three such records and ordinary fences share a leaf, so that 1000-byte values stay in a leaf of
 * 4 KiB instead of filling a block each. An extent_ref takes 16 bytes anyhow. */
uint32_t node_value_inline_max(uint32_t page_size, size_t key_length)
{
    uint32_t record_max = node_capacity(page_size) * 5 / 16 - (uint32_t)sizeof(node_slot), reference = (uint32_t)sizeof(extent_ref);
    return key_length + reference < record_max ? record_max - (uint32_t)key_length : reference;
}

/* ---- reads ---------------------------------------------------------------------------------------------------------- */

rw_slice node_prefix(const node *n)
{
    return rw_slice_of(node_at_const(n, n->lower_offset), n->prefix_length);
}

rw_slice node_lower_fence(const node *n)
{
    return rw_slice_of(node_at_const(n, n->lower_offset), n->lower_length);
}

rw_slice node_upper_fence(const node *n)
{
    return rw_slice_of(node_at_const(n, n->upper_offset), n->upper_length);
}

rw_slice node_key_rest(const node *n, unsigned slot)
{
    RW_ASSERT(slot < n->count);
    return rw_slice_of(node_at_const(n, n->slots[slot].offset), n->slots[slot].key_length);
}

size_t node_key_length(const node *n, unsigned slot)
{
    RW_ASSERT(slot < n->count);
    return (size_t)n->prefix_length + n->slots[slot].key_length;
}

void node_key_copy(const node *n, unsigned slot, void *to)
{
    rw_slice prefix = node_prefix(n), rest = node_key_rest(n, slot);
    memcpy(to, prefix.data, prefix.size);
    memcpy((unsigned char *)to + prefix.size, rest.data, rest.size);
}

unsigned node_slot_of_frame(const node *n, uint32_t frame)
{
    const uint64_t mask = PAGE_REF_IN_MEMORY | UINT32_MAX, wanted = PAGE_REF_IN_MEMORY | frame;
    const node_slot *s = n->slots, *end = s + n->count;
    while (s < end && (rw_load_u64(node_slot_value(n, s)) & mask) != wanted) s++;
    RW_ASSERT(s < end);
    return (unsigned)(s - n->slots);
}

void node_child_set(node *n, unsigned slot, page_ref ref)
{
    RW_ASSERT(slot < n->count && !node_is_leaf(n));
    unsigned char *value = node_at(n, (size_t)n->slots[slot].offset + n->slots[slot].key_length);
    n->extents = (uint16_t)(n->extents + node_value_has_extent(n, &ref, 0) - node_value_has_extent(n, value, 0));
    memcpy(value, &ref, sizeof ref);
}

/* ---- space ---------------------------------------------------------------------------------------------------------- */

uint32_t node_used(const node *n, uint32_t page_size)
{
    return node_heap_end(page_size) - n->heap_start - n->heap_garbage + n->count * (uint32_t)sizeof(node_slot);
}

bool node_fits(const node *n, uint32_t page_size, size_t key_length, size_t value_length)
{
    size_t rest = key_length > n->prefix_length ? key_length - n->prefix_length : 0;
    return node_used(n, page_size) + sizeof(node_slot) + rest + value_length <= node_capacity(page_size);
}

bool node_fits_update(const node *n, uint32_t page_size, unsigned slot, size_t value_length)
{
    RW_ASSERT(slot < n->count);
    return node_used(n, page_size) - n->slots[slot].value_length + value_length <= node_capacity(page_size);
}

void node_hints_update(node *n)
{
    unsigned count = n->count;
    if (count == 0) {
        memset(n->hints, 0, sizeof n->hints);
        return;
    }
    for (unsigned i = 0; i < NODE_HINTS; i++) n->hints[i] = n->slots[node_hint_slot(count, i)].head;
}

uint16_t node_heap_allocate(node *n, uint32_t page_size, uint32_t size)
{
    if (size == 0) return (uint16_t)node_heap_end(page_size);
    RW_ASSERT(n->heap_start >= node_slots_end(n->count) + size);
    n->heap_start = (uint16_t)(n->heap_start - size);
    return n->heap_start;
}

/* What lies lowest in the heap is free again at once, anything else is garbage until the next compaction. */
static void heap_release(node *n, uint32_t offset, uint32_t size)
{
    if (offset == n->heap_start) n->heap_start = (uint16_t)(n->heap_start + size);
    else n->heap_garbage = (uint16_t)(n->heap_garbage + size);
}

static uint16_t heap_move(node *n, uint32_t page_size, const unsigned char *old, uint32_t offset, uint32_t size)
{
    uint16_t place = node_heap_allocate(n, page_size, size);
    memcpy(node_at(n, place), old + offset, size);
    return place;
}

/* Rewrites the heap without garbage, in slot order from its end down. buffer: page_size bytes. */
static void compact(node *n, uint32_t page_size, unsigned char *buffer)
{
    uint32_t end = node_heap_end(page_size);
    memcpy(buffer + n->heap_start, node_at(n, n->heap_start), end - n->heap_start);
    n->heap_start = (uint16_t)end;
    n->heap_garbage = 0;
    n->lower_offset = heap_move(n, page_size, buffer, n->lower_offset, n->lower_length);
    n->upper_offset = heap_move(n, page_size, buffer, n->upper_offset, n->upper_length);
    for (unsigned i = 0; i < n->count; i++) {
        node_slot *s = &n->slots[i];
        s->offset = heap_move(n, page_size, buffer, s->offset, node_slot_heap_bytes(s));
    }
}

/* Makes size contiguous bytes free between slots and heap. There is so much room in all. */
static inline bool heap_has(const node *n, uint32_t size)
{
    return (uint32_t)n->heap_start >= node_slots_end(n->count) + size;
}

/* Out of line: the buffer is too large a frame for the common path. */
__attribute__((noinline)) static void heap_gather(node *n, uint32_t page_size)
{
    unsigned char buffer[RW_PAGE_SIZE_MAX];
    compact(n, page_size, buffer);
}

void node_tidy(node *n, uint32_t page_size, void *scratch)
{
    if (n->heap_garbage != 0) compact(n, page_size, scratch);
    uint32_t gap = node_slots_end(n->count);
    memset(node_at(n, gap), 0, n->heap_start - gap);
}

/* ---- changes -------------------------------------------------------------------------------------------------------- */

void node_init(node *n, uint32_t page_size, unsigned level, rw_slice lower, rw_slice upper)
{
    RW_ASSERT(rw_is_power_of_two(page_size) && page_size >= RW_PAGE_SIZE_MIN && page_size <= RW_PAGE_SIZE_MAX && level <= UINT8_MAX);
    RW_ASSERT(lower.size <= node_key_max(page_size) && upper.size <= node_key_max(page_size));
    RW_ASSERT(upper.size == 0 || rw_slice_compare(lower, upper) < 0);
    memset(n, 0, sizeof *n);
    memset(node_at(n, node_heap_end(page_size)), 0, NODE_HEAP_TRAILER);
    n->page.type = PAGE_NODE;
    n->page.level = (uint8_t)level;
    n->heap_start = (uint16_t)node_heap_end(page_size);
    n->prefix_length = (uint16_t)node_prefix_of_fences(lower, upper);
    n->lower_length = (uint16_t)lower.size;
    n->lower_offset = node_heap_allocate(n, page_size, n->lower_length);
    if (lower.size != 0) memcpy(node_at(n, n->lower_offset), lower.data, lower.size);
    n->upper_length = (uint16_t)upper.size;
    n->upper_offset = node_heap_allocate(n, page_size, n->upper_length);
    if (upper.size != 0) memcpy(node_at(n, n->upper_offset), upper.data, upper.size);
}

/* The bytes of a key that the node stores for it. */
static rw_slice key_stored(const node *n, unsigned slot, rw_slice key)
{
    if (slot == 0 && !node_is_leaf(n)) return (rw_slice){NULL, 0};
    RW_ASSERT(key.size >= n->prefix_length);
    return rw_slice_of((const unsigned char *)key.data + n->prefix_length, key.size - n->prefix_length);
}

void node_insert(node *n, uint32_t page_size, unsigned slot, rw_slice key, rw_slice value, unsigned flags)
{
    rw_slice rest = key_stored(n, slot, key);
    uint32_t size = (uint32_t)(rest.size + value.size);
    RW_ASSERT(slot <= n->count && (slot != 0 || n->count == 0 || node_is_leaf(n)));
    RW_ASSERT(node_used(n, page_size) + sizeof(node_slot) + size <= node_capacity(page_size));
    if (!heap_has(n, size + (uint32_t)sizeof(node_slot))) heap_gather(n, page_size);
    node_slot *s = &n->slots[slot];
    memmove(s + 1, s, (n->count - slot) * sizeof *s);
    n->count = (uint16_t)(n->count + 1);
    *s = (node_slot){
        .head = node_head_of(rest.data, rest.size),
        .offset = node_heap_allocate(n, page_size, size),
        .key_length = (uint16_t)rest.size,
        .value_length = (uint16_t)value.size,
        .flags = (uint16_t)flags,
    };
    unsigned char *to = node_at(n, s->offset);
    if (rest.size != 0) memcpy(to, rest.data, rest.size);
    if (value.size != 0) memcpy(to + rest.size, value.data, value.size);
    n->extents = (uint16_t)(n->extents + node_value_has_extent(n, value.data, flags));
    node_hints_update(n);
}

/* A longer value where the heap must be compacted first: the key waits outside. */
__attribute__((noinline)) static void update_gather(node *n, uint32_t page_size, node_slot *s, rw_slice value)
{
    unsigned char key[NODE_KEY_MAX];
    uint32_t key_length = s->key_length;
    memcpy(key, node_at(n, s->offset), key_length);
    heap_release(n, s->offset, node_slot_heap_bytes(s));
    s->key_length = 0;
    s->value_length = 0;
    if (!heap_has(n, key_length + (uint32_t)value.size)) heap_gather(n, page_size);
    s->offset = node_heap_allocate(n, page_size, key_length + (uint32_t)value.size);
    s->key_length = (uint16_t)key_length;
    memcpy(node_at(n, s->offset), key, key_length);
}

void node_update(node *n, uint32_t page_size, unsigned slot, rw_slice value, unsigned flags)
{
    RW_ASSERT(node_fits_update(n, page_size, slot, value.size));
    node_slot *s = &n->slots[slot];
    n->extents = (uint16_t)(n->extents + node_value_has_extent(n, value.data, flags) -
                            node_value_has_extent(n, node_slot_value(n, s), s->flags));
    uint32_t old = node_slot_heap_bytes(s), size = s->key_length + (uint32_t)value.size;
    if (size == 0) {
        heap_release(n, s->offset, old);
        s->offset = node_heap_allocate(n, page_size, 0);
    } else if (size <= old) {
        n->heap_garbage = (uint16_t)(n->heap_garbage + (old - size));
    } else if (heap_has(n, size)) {
        uint32_t from = s->offset;
        s->offset = node_heap_allocate(n, page_size, size);
        memcpy(node_at(n, s->offset), node_at(n, from), s->key_length);
        n->heap_garbage = (uint16_t)(n->heap_garbage + old);
    } else {
        update_gather(n, page_size, s, value);
    }
    s->value_length = (uint16_t)value.size;
    s->flags = (uint16_t)flags;
    if (value.size != 0) memcpy(node_at(n, (size_t)s->offset + s->key_length), value.data, value.size);
}

/* The first child's separator goes: the lower fence stands for it. */
static void drop_first_separator(node *n)
{
    node_slot *s = &n->slots[0];
    heap_release(n, s->offset, s->key_length);
    s->offset = (uint16_t)(s->offset + s->key_length);
    s->key_length = 0;
    s->head = 0;
}

void node_remove_many(node *n, uint32_t page_size, unsigned first, unsigned end)
{
    RW_ASSERT(first <= end && end <= n->count);
    if (first == end) return;
    for (unsigned i = first; i < end; i++) {
        const node_slot *s = &n->slots[i];
        n->extents = (uint16_t)(n->extents - node_value_has_extent(n, node_slot_value(n, s), s->flags));
        heap_release(n, s->offset, node_slot_heap_bytes(s));
    }
    RW_ASSERT(n->heap_start <= node_heap_end(page_size));
    memmove(&n->slots[first], &n->slots[end], (n->count - end) * sizeof(node_slot));
    n->count = (uint16_t)(n->count - (end - first));
    if (first == 0 && n->count != 0 && !node_is_leaf(n)) drop_first_separator(n);
    node_hints_update(n);
}

void node_remove(node *n, uint32_t page_size, unsigned slot)
{
    RW_ASSERT(slot < n->count);
    node_remove_many(n, page_size, slot, slot + 1);
}
