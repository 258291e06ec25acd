/*
 * A tree node: the bytes of one page, the same in memory and on disk but for child references to cached pages.
 *
 *   offset size
 *        0   64  page_header
 *       64    2  count: slots in use
 *       66    2  heap start: lowest heap byte in use; the heap grows down from page size - 8
 *       68    2  heap garbage: bytes inside the heap that no slot and no fence uses
 *       70    2  prefix length: bytes common to both fences, cut off every key
 *       72    2  lower fence offset           keys of the node are >= the lower fence
 *       74    2  lower fence length
 *       76    2  upper fence offset           and < the upper fence
 *       78    2  upper fence length; 0: none, the node is the last of its level
 *       80    2  extents: leaf: slots that name an extent; inner: children whose estimate carries PAGE_REF_HAS_EXTENTS
 *       82    6  zero
 *       88   64  hints: 16 heads, evenly spaced over the slots: hint i is the head of slot (i + 1) * count / 17; zeros when there are none
 *      152   12n slots: head (first 4 key bytes after the prefix, big-endian number, zero-padded), offset, key length (without the prefix),
 *                value length, flags
 *        .    .  free: zeros
 *        .    .  heap: for each slot key bytes, then value bytes; the fences' bytes. What has no bytes has the offset size - 8
 *  size-8    8  zero
 *
 * Leaf: the value is the record's value, or with NODE_SLOT_EXTENT an extent_ref (16 bytes).
 * Inner: the value is a page_ref (16 bytes); slot i names the child for keys in [key i, key i+1). Slot 0's key is empty and stands for the lower
 * fence. Separators are suffix-truncated: the shortest that still divides.
 */
#ifndef RW_NODE_FORMAT_H
#define RW_NODE_FORMAT_H

#include "store/page_format.h"

#define NODE_HINTS 16u
#define NODE_HEAP_TRAILER 8u

enum { NODE_SLOT_EXTENT = 1 };

typedef struct {
    uint32_t head;
    uint16_t offset;
    uint16_t key_length;
    uint16_t value_length;
    uint16_t flags;
} node_slot;

typedef struct {
    page_header page;
    uint16_t count;
    uint16_t heap_start;
    uint16_t heap_garbage;
    uint16_t prefix_length;
    uint16_t lower_offset;
    uint16_t lower_length;
    uint16_t upper_offset;
    uint16_t upper_length;
    uint16_t extents;
    uint8_t zero[6];
    uint32_t hints[NODE_HINTS];
    node_slot slots[];
} node;

_Static_assert(sizeof(node_slot) == 12, "format");
_Static_assert(offsetof(node, count) == 64 && offsetof(node, hints) == 88 && offsetof(node, slots) == 152, "format");

#endif
