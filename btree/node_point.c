/* Building nodes out of the slots of others, and choosing the point between two slots where a fence is to stand. */
#include "btree/node_internal.h"

/* A slot's key without the first prefix bytes, in two pieces. */
typedef struct {
    rw_slice front, rest;
} key_pieces;

/* first_child: it will be slot 0 of an inner node, whose key is empty. The key begins with the first prefix bytes of from's lower fence, or its
 * prefix is at least so long. */
static key_pieces key_without(const node *from, unsigned slot, size_t prefix, bool first_child)
{
    rw_slice none = {NULL, 0}, lower = node_lower_fence(from), rest = node_key_rest(from, slot);
    if (first_child) return (key_pieces){none, none};
    const unsigned char *fence = lower.data;
    if (slot == 0 && !node_is_leaf(from)) {
        RW_ASSERT(prefix <= lower.size);
        return (key_pieces){rw_slice_of(fence + prefix, lower.size - prefix), none};
    }
    if (prefix <= from->prefix_length) return (key_pieces){rw_slice_of(fence + prefix, from->prefix_length - prefix), rest};
    size_t cut = prefix - from->prefix_length;
    RW_ASSERT(cut <= rest.size);
    return (key_pieces){none, rw_slice_of((const unsigned char *)rest.data + cut, rest.size - cut)};
}

/* Bytes that slots [first, end) of from take in a node with this prefix; first_of_node: first becomes slot 0. */
static uint32_t bytes_in(const node *from, unsigned first, unsigned end, size_t prefix, bool first_of_node)
{
    size_t bytes = 0;
    if (!node_is_leaf(from) && first < end && (first == 0 || first_of_node)) { /* a first child's key: the lower fence, or none */
        key_pieces key = key_without(from, first, prefix, first_of_node);
        bytes = sizeof(node_slot) + key.front.size + key.rest.size + from->slots[first].value_length;
        first++;
    }
    for (unsigned i = first; i < end; i++) bytes += node_slot_heap_bytes(&from->slots[i]);
    return (uint32_t)(bytes + (end - first) * (sizeof(node_slot) + from->prefix_length - prefix));
}

/* A slot whose key is stored in both nodes alike. */
static inline void append_alike(node *to, uint32_t page_size, const node *from, unsigned slot)
{
    const node_slot *old = &from->slots[slot];
    node_slot *s = &to->slots[to->count];
    uint32_t size = node_slot_heap_bytes(old);
    to->count = (uint16_t)(to->count + 1);
    *s = *old;
    s->offset = node_heap_allocate(to, page_size, size);
    memcpy(node_at(to, s->offset), node_at_const(from, old->offset), size);
    to->extents = (uint16_t)(to->extents + node_value_has_extent(to, node_slot_value(to, s), s->flags));
}

static void append_slot(node *to, uint32_t page_size, const node *from, unsigned slot)
{
    key_pieces key = key_without(from, slot, to->prefix_length, to->count == 0 && !node_is_leaf(to));
    const node_slot *old = &from->slots[slot];
    size_t key_length = key.front.size + key.rest.size;
    node_slot *s = &to->slots[to->count];
    to->count = (uint16_t)(to->count + 1);
    s->offset = node_heap_allocate(to, page_size, (uint32_t)key_length + old->value_length);
    s->key_length = (uint16_t)key_length;
    s->value_length = old->value_length;
    s->flags = old->flags;
    unsigned char *at = node_at(to, s->offset);
    if (key.front.size != 0) memcpy(at, key.front.data, key.front.size);
    if (key.rest.size != 0) memcpy(at + key.front.size, key.rest.data, key.rest.size);
    memcpy(at + key_length, node_slot_value(from, old), old->value_length);
    s->head = node_head_of(at, key_length);
    to->extents = (uint16_t)(to->extents + node_value_has_extent(to, at + key_length, s->flags));
}

/* Appends slots [first, end) of from. They fit. Hints are left to the caller. */
static void append(node *to, uint32_t page_size, const node *from, unsigned first, unsigned end)
{
    bool alike = to->prefix_length == from->prefix_length && node_is_leaf(from);
    for (unsigned i = first; i < end; i++) {
        if (alike) append_alike(to, page_size, from, i);
        else append_slot(to, page_size, from, i);
    }
    RW_ASSERT(to->heap_start >= node_slots_end(to->count));
}

void node_take_over(node *n, const node *built, uint32_t page_size)
{
    size_t header = sizeof n->page;
    memcpy(node_at(n, header), node_at_const(built, header), node_slots_end(built->count) - header);
    memcpy(node_at(n, built->heap_start), node_at_const(built, built->heap_start), page_size - built->heap_start);
}

/* ---- sequences ------------------------------------------------------------------------------------------------------ */

node_sequence node_sequence_of(const node *left, const node *right)
{
    return (node_sequence){.left = left, .right = right, .count = (unsigned)left->count + (right ? right->count : 0u)};
}

static const node *sequence_node(const node_sequence *sequence, unsigned k, unsigned *slot)
{
    bool in_left = k < sequence->left->count;
    *slot = in_left ? k : k - sequence->left->count;
    return in_left ? sequence->left : sequence->right;
}

uint32_t node_sequence_bytes(const node_sequence *sequence, unsigned first, unsigned end)
{
    uint32_t bytes = 0;
    unsigned border = sequence->left->count;
    for (unsigned k = first; k < RW_MIN(end, border); k++) bytes += node_slot_heap_bytes(&sequence->left->slots[k]);
    for (unsigned k = RW_MAX(first, border); k < end; k++) bytes += node_slot_heap_bytes(&sequence->right->slots[k - border]);
    return bytes + (first < end ? (end - first) * (uint32_t)sizeof(node_slot) : 0);
}

/* Leaf: one byte more than slots k-1 and k have in common. Inner: the whole key. */
static uint32_t separator_length(const node_sequence *sequence, unsigned k)
{
    unsigned slot;
    const node *n = sequence_node(sequence, k, &slot);
    if (!node_is_leaf(n)) return (uint32_t)node_key_length(n, slot);
    return (uint32_t)(n->prefix_length + rw_slice_common_prefix(node_key_rest(n, slot - 1), node_key_rest(n, slot)) + 1);
}

unsigned node_sequence_middle(const node_sequence *sequence, uint32_t window)
{
    uint32_t total = node_sequence_bytes(sequence, 0, sequence->count), left = 0;
    unsigned border = sequence->right ? sequence->left->count : 0, best = 0;
    uint32_t best_distance = UINT32_MAX, best_length = UINT32_MAX;
    for (unsigned k = 1; k < sequence->count; k++) {
        unsigned slot;
        const node *n = sequence_node(sequence, k - 1, &slot);
        left += (uint32_t)sizeof(node_slot) + node_slot_heap_bytes(&n->slots[slot]);
        if (k == border) continue;
        uint32_t distance = 2 * left > total ? 2 * left - total : total - 2 * left;
        if (distance > best_distance && 2 * left > total && distance > RW_MIN(window, total / 4)) break; /* from here on it only grows */
        /* Inside the window the shorter separator wins; outside of it, what is nearer to the middle. */
        bool in_window = distance <= RW_MIN(window, total / 4);
        uint32_t length = in_window ? separator_length(sequence, k) : UINT32_MAX;
        if (length < best_length || (length == best_length && distance < best_distance)) {
            best = k;
            best_distance = distance;
            best_length = length;
        }
    }
    return best;
}

void node_sequence_separator(const node_sequence *sequence, unsigned k, node_split *separator)
{
    unsigned slot;
    const node *n = sequence_node(sequence, k, &slot);
    uint32_t length = separator_length(sequence, k);
    RW_ASSERT(k > 0 && slot > 0 && length <= sizeof separator->separator);
    memcpy(separator->separator, node_prefix(n).data, n->prefix_length);
    memcpy(separator->separator + n->prefix_length, node_key_rest(n, slot).data, length - n->prefix_length);
    separator->slot = k;
    separator->separator_length = length;
}

/* What of [first, end) lies in each node. */
typedef struct {
    unsigned left_first, left_end, right_first, right_end;
} sequence_parts;

static sequence_parts parts_of(const node_sequence *sequence, unsigned first, unsigned end)
{
    unsigned border = sequence->left->count;
    sequence_parts parts = {RW_MIN(first, border), RW_MIN(end, border), 0, 0};
    if (first > border) parts.right_first = first - border;
    if (end > border) parts.right_end = end - border;
    return parts;
}

uint32_t node_sequence_used(const node_sequence *sequence, unsigned first, unsigned end, rw_slice lower, rw_slice upper)
{
    sequence_parts parts = parts_of(sequence, first, end);
    size_t prefix = node_prefix_of_fences(lower, upper);
    bool none_left = parts.left_first == parts.left_end;
    uint32_t bytes = bytes_in(sequence->left, parts.left_first, parts.left_end, prefix, true);
    if (parts.right_first < parts.right_end) bytes += bytes_in(sequence->right, parts.right_first, parts.right_end, prefix, none_left);
    return bytes + (uint32_t)lower.size + (uint32_t)upper.size;
}

void node_sequence_append(node *to, uint32_t page_size, const node_sequence *sequence, unsigned first, unsigned end)
{
    sequence_parts parts = parts_of(sequence, first, end);
    append(to, page_size, sequence->left, parts.left_first, parts.left_end);
    if (parts.right_first < parts.right_end) append(to, page_size, sequence->right, parts.right_first, parts.right_end);
    node_hints_update(to);
}
