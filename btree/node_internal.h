/* What the files node*.c share. Nobody else includes it. */
#ifndef RW_NODE_INTERNAL_H
#define RW_NODE_INTERNAL_H

#include "btree/node.h"

/* The longest stored key: a user's plus the bucket prefix. */
static inline uint32_t node_key_max(uint32_t page_size)
{
    return rw_limits_key_max(page_size) + RW_BUCKET_PREFIX;
}

#define NODE_KEY_MAX (RW_PAGE_SIZE_MAX / 4)     /* bounds node_key_max of every page size */

static inline unsigned char *node_at(node *n, size_t offset)
{
    return (unsigned char *)n + offset;
}

static inline const unsigned char *node_at_const(const node *n, size_t offset)
{
    return (const unsigned char *)n + offset;
}

static inline uint32_t node_slots_end(unsigned count)
{
    return (uint32_t)offsetof(node, slots) + count * (uint32_t)sizeof(node_slot);
}

static inline uint32_t node_heap_end(uint32_t page_size)
{
    return page_size - NODE_HEAP_TRAILER;
}

static inline bool node_is_leaf(const node *n)
{
    return n->page.level == 0;
}

static inline uint32_t node_slot_heap_bytes(const node_slot *s)
{
    return (uint32_t)s->key_length + s->value_length;
}

/* The bytes common to both fences; none when the node is the last of its level. */
static inline size_t node_prefix_of_fences(rw_slice lower, rw_slice upper)
{
    return upper.size == 0 ? 0 : rw_slice_common_prefix(lower, upper);
}

static inline const unsigned char *node_slot_value(const node *n, const node_slot *s)
{
    return node_at_const(n, (size_t)s->offset + s->key_length);
}

/* Whether a value of this node counts in node.extents. */
static inline bool node_value_has_extent(const node *n, const void *value, unsigned flags)
{
    if (node_is_leaf(n)) return (flags & NODE_SLOT_EXTENT) != 0;
    return (rw_load_u32((const unsigned char *)value + offsetof(page_ref, estimate)) & PAGE_REF_HAS_EXTENTS) != 0;
}

void node_hints_update(node *n);
/* A place for size bytes below the heap, which has room; what is empty gets the heap's end, which is always in range. */
uint16_t node_heap_allocate(node *n, uint32_t page_size, uint32_t size);

/* ---- building a node out of others' slots ----------------------------------------------------------------------- */

/* n becomes what was built in scratch, but keeps its page header. */
void node_take_over(node *n, const node *built, uint32_t page_size);

/* ---- points between slots (node_point.c) ------------------------------------------------------------------------------------- */

/* The slots of one node or of two neighbours as one sequence. Point k lies between slots k-1 and k. */
typedef struct {
    const node *left, *right;     /* right NULL: one node */
    unsigned count;
} node_sequence;

node_sequence node_sequence_of(const node *left, const node *right);
/* Bytes of slots [first, end) with their present prefixes. */
uint32_t node_sequence_bytes(const node_sequence *sequence, unsigned first, unsigned end);
/* The best point 0 < k < count near the middle of the bytes: the shortest separator where the parts differ by at most window bytes and a quarter of all,
 * else the nearest to the middle. The border between two nodes is not a point. 0: there is none. */
unsigned node_sequence_middle(const node_sequence *sequence, uint32_t window);
/* Fills separator for point k, 0 < k < count, not the border. */
void node_sequence_separator(const node_sequence *sequence, unsigned k, node_split *separator);
/* Bytes used by a node with these fences and slots [first, end). */
uint32_t node_sequence_used(const node_sequence *sequence, unsigned first, unsigned end, rw_slice lower, rw_slice upper);
void node_sequence_append(node *to, uint32_t page_size, const node_sequence *sequence, unsigned first, unsigned end);

#endif
