/*
 * The search inside a node: the hot path of every read, hence inline. Included by node.h only.
 *
 * A search narrows the slots by the 16 hints (one count of smaller hints, no branch), then by a branch-free binary search over heads; key bytes are
 * touched only where the heads are equal. Every number that leads to an address is read once (volatile) and checked against page_size.
 */
#ifndef RW_NODE_SEARCH_H
#define RW_NODE_SEARCH_H

#define NODE_HINT_PARTS (NODE_HINTS + 1)

/* The slot whose head is hint i. Also right for i = NODE_HINTS: count. */
RW_RACY static inline unsigned node_hint_slot(unsigned count, unsigned i)
{
    return count * (i + 1) / NODE_HINT_PARTS;
}

RW_RACY static inline unsigned node_load_u16(const uint16_t *p)
{
    return *(const volatile uint16_t *)p;
}

/* As many slots as the page can hold, however wrong its count. */
RW_RACY static inline unsigned node_count_bounded(const node *n, uint32_t page_size)
{
    unsigned count = node_load_u16(&n->count);
    unsigned most = (page_size - (uint32_t)offsetof(node, slots) - NODE_HEAP_TRAILER) / (unsigned)sizeof(node_slot);
    return count < most ? count : most;
}

/* Zero padding makes "a" and "a\0" the same head: equal heads say nothing about equal keys. */
RW_RACY static inline uint32_t node_head_of(const unsigned char *rest, size_t length)
{
    if (RW_LIKELY(length >= 4)) return __builtin_bswap32(rw_racy_u32(rest));
    uint32_t head = 0;
    for (unsigned i = 0; i < length; i++) head |= (uint32_t)rest[i] << (24 - 8 * i);
    return head;
}

/* Short strings of unforeseeable length: cheaper than a call of memcmp. The last word overlaps the one before, whose bytes are equal. */
RW_RACY static inline int node_bytes_compare(const unsigned char *a, const unsigned char *b, size_t size)
{
    if (RW_UNLIKELY(size > 64)) return rw_racy_compare(a, b, size);
    if (size >= 8) {
        for (size_t i = 0;; i = i + 8 < size - 8 ? i + 8 : size - 8) {
            uint64_t x = rw_racy_u64(a + i), y = rw_racy_u64(b + i);
            if (x != y) return __builtin_bswap64(x) < __builtin_bswap64(y) ? -1 : 1;
            if (i == size - 8) return 0;
        }
    }
    if (size >= 4) {
        uint64_t x = (uint64_t)__builtin_bswap32(rw_racy_u32(a)) << 32 | __builtin_bswap32(rw_racy_u32(a + size - 4));
        uint64_t y = (uint64_t)__builtin_bswap32(rw_racy_u32(b)) << 32 | __builtin_bswap32(rw_racy_u32(b + size - 4));
        return x == y ? 0 : x < y ? -1 : 1;
    }
    for (size_t i = 0; i < size; i++) {
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    }
    return 0;
}

/* How the key compares with the node's prefix: 0 when it begins with it, else the side of all of the node's keys on which it lies. */
RW_RACY static inline int node_prefix_order(const node *n, uint32_t page_size, size_t prefix, rw_slice key)
{
    size_t offset = node_load_u16(&n->lower_offset), shared = prefix < key.size ? prefix : key.size;
    if (RW_UNLIKELY(offset + prefix > page_size)) return -1;
    int order = node_bytes_compare(key.data, (const unsigned char *)n + offset, shared);
    return order != 0 ? order : key.size < prefix ? -1 : 0;
}

/* rest against the key of a slot that has the same head; below it when the slot points out of the page. */
RW_RACY static inline int node_tie_order(const node *n, uint32_t page_size, unsigned slot, const unsigned char *rest, size_t length)
{
    size_t offset = node_load_u16(&n->slots[slot].offset), key_length = node_load_u16(&n->slots[slot].key_length);
    if (RW_UNLIKELY(offset + key_length > page_size)) return -1;
    size_t shared = length < key_length ? length : key_length;
    int order = node_bytes_compare(rest, (const unsigned char *)n + offset, shared);
    return order != 0 ? order : length < key_length ? -1 : length > key_length;
}

/* Goes on behind a slot with the same head and a smaller key: a run of equal heads. Finds the lower bound in [low, high). */
RW_RACY unsigned node_search_run(const node *n, uint32_t page_size, uint32_t head, rw_slice rest, unsigned low, unsigned high,
                                 bool *found);

typedef uint32_t node_hint_vector __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t node_hint_counts __attribute__((vector_size(16)));

/* How many hints are smaller: four at a time, without a branch. */
RW_RACY static inline unsigned node_hints_below(const node *n, uint32_t head)
{
    const node_hint_vector *hints = (const node_hint_vector *)n->hints;
    node_hint_vector heads = {head, head, head, head};
    node_hint_counts counts = (hints[0] < heads) + (hints[1] < heads) + (hints[2] < heads) + (hints[3] < heads);
    return (unsigned)-(counts[0] + counts[1] + counts[2] + counts[3]);
}

_Static_assert(NODE_HINTS == 16, "four vectors of four");

/* The first slot with a head >= head. count > 0. */
RW_RACY static inline unsigned node_head_bound(const node *n, unsigned count, uint32_t head)
{
    unsigned smaller = node_hints_below(n, head);
    unsigned low = node_hint_slot(count, smaller - 1) + (smaller != 0), high = node_hint_slot(count, smaller);
    if (low >= high) return low;
    unsigned length = high - low;
    while (length > 1) {
        unsigned half = length / 2;
        low += n->slots[low + half - 1].head < head ? half : 0;
        length -= half;
    }
    return low + (n->slots[low].head < head);
}

/* Leaf: position of the first slot whose key is >= key, 0 to count; *found: it is equal. */
RW_RACY static inline unsigned node_lower_bound(const node *n, uint32_t page_size, rw_slice key, bool *found)
{
    unsigned count = node_count_bounded(n, page_size);
    size_t prefix = node_load_u16(&n->prefix_length);
    *found = false;
    if (RW_UNLIKELY(count == 0)) return 0;
    __asm__("" : "+r"(key.data));     /* inlined where the key is a small array, its size would raise warnings about branches not taken */
    if (prefix != 0) {
        int order = node_prefix_order(n, page_size, prefix, key);
        if (RW_UNLIKELY(order != 0)) return order < 0 ? 0 : count;
    }
    const unsigned char *rest = (const unsigned char *)key.data + prefix;
    size_t length = key.size - prefix;
    uint32_t head = node_head_of(rest, length);
    unsigned slot = node_head_bound(n, count, head);
    if (slot >= count || n->slots[slot].head != head) return slot;
    int order = node_tie_order(n, page_size, slot, rest, length);
    *found = order == 0;
    if (order <= 0) return slot;
    slot++;
    if (slot >= count || n->slots[slot].head != head) return slot;
    return node_search_run(n, page_size, head, (rw_slice){rest, length}, slot, count, found);
}

/* Leaf: whether a slot holds just this key. */
RW_RACY static inline bool node_slot_holds(const node *n, uint32_t page_size, unsigned slot, rw_slice key)
{
    size_t prefix = node_load_u16(&n->prefix_length);
    if (slot >= node_count_bounded(n, page_size) || prefix + node_load_u16(&n->slots[slot].key_length) != key.size) return false;
    __asm__("" : "+r"(key.data));     /* as in node_lower_bound */
    return node_tie_order(n, page_size, slot, (const unsigned char *)key.data + prefix, key.size - prefix) == 0 &&
           node_prefix_order(n, page_size, prefix, key) == 0;
}

/* key against the bytes of a fence; below it when they lie outside of the page. */
RW_RACY static inline int node_fence_order(const node *n, uint32_t page_size, size_t offset, size_t length, rw_slice key)
{
    if (RW_UNLIKELY(offset + length > page_size)) return -1;
    int order = node_bytes_compare(key.data, (const unsigned char *)n + offset, key.size < length ? key.size : length);
    return order != 0 ? order : key.size < length ? -1 : key.size > length;
}

/* Whether key lies between the fences. */
RW_RACY static inline bool node_covers(const node *n, uint32_t page_size, rw_slice key)
{
    size_t upper = node_load_u16(&n->upper_length);
    __asm__("" : "+r"(key.data));     /* as in node_lower_bound */
    return node_fence_order(n, page_size, node_load_u16(&n->lower_offset), node_load_u16(&n->lower_length), key) >= 0 &&
           (upper == 0 || node_fence_order(n, page_size, node_load_u16(&n->upper_offset), upper, key) < 0);
}

/* Whether the keys just below key, which is not empty, lie between the fences. */
RW_RACY static inline bool node_covers_below(const node *n, uint32_t page_size, rw_slice key)
{
    size_t upper = node_load_u16(&n->upper_length);
    if (key.size == 0) return false;
    return node_fence_order(n, page_size, node_load_u16(&n->lower_offset), node_load_u16(&n->lower_length), key) > 0 &&
           (upper == 0 || node_fence_order(n, page_size, node_load_u16(&n->upper_offset), upper, key) <= 0);
}

/* Inner: the slot whose child covers key. */
RW_RACY static inline unsigned node_child_slot(const node *n, uint32_t page_size, rw_slice key)
{
    bool found;
    unsigned slot = node_lower_bound(n, page_size, key, &found);
    return slot - (slot != 0 && !found);
}

/* Inner: the slot whose child covers the keys just below key (the last child with keys < key); key empty: the last slot. */
RW_RACY static inline unsigned node_child_slot_before(const node *n, uint32_t page_size, rw_slice key)
{
    bool found;
    unsigned slot = key.size != 0 ? node_lower_bound(n, page_size, key, &found) : node_count_bounded(n, page_size);
    return slot - (slot != 0);
}

/* Leaf: where a slot's value stands; data NULL when out of range. The bytes are read with rw_racy_copy. */
RW_RACY static inline rw_slice node_value(const node *n, uint32_t page_size, unsigned slot, unsigned *flags)
{
    *flags = 0;
    if (RW_UNLIKELY(slot >= node_count_bounded(n, page_size))) return (rw_slice){NULL, 0};
    const node_slot *s = &n->slots[slot];
    size_t start = (size_t)node_load_u16(&s->offset) + node_load_u16(&s->key_length), length = node_load_u16(&s->value_length);
    if (RW_UNLIKELY(start + length > page_size)) return (rw_slice){NULL, 0};
    *flags = node_load_u16(&s->flags);
    return (rw_slice){(const unsigned char *)n + start, length};
}

/* Inner: the child named by a slot; page_ref_none when the slot is out of range. */
RW_RACY static inline page_ref node_child(const node *n, uint32_t page_size, unsigned slot)
{
    page_ref ref = page_ref_none();
    unsigned flags;
    rw_slice value = node_value(n, page_size, slot, &flags);
    if (RW_LIKELY(value.size == sizeof ref)) rw_racy_copy(&ref, value.data, sizeof ref);
    return ref;
}

RW_RACY static inline unsigned node_count(const node *n)
{
    return node_load_u16(&n->count);
}

#endif
