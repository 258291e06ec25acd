/*
 * Operations on the bytes of one node. Nothing here knows of frames, versions, files or other nodes: the caller of a change holds the
 * partition's token and has made the frame's version odd; the caller of a RW_RACY read validates the version afterwards.
 *
 * RW_RACY functions are safe on any bytes: they check every offset against page_size before use and return something in range. Their result
 * means something only if the version did not change.
 *
 * Keys handed in are whole (bucket prefix included, prefix not removed).
 */
#ifndef RW_NODE_H
#define RW_NODE_H

#include "base/base.h"
#include "base/racy.h"
#include "btree/node_format.h"

/* The longest value kept in a leaf, bytes, for a page size and key length; a longer one goes to an extent. */
uint32_t node_value_inline_max(uint32_t page_size, size_t key_length);

/* ---- optimistic reads ------------------------------------------------------------------------------------------- */

/* node_lower_bound, node_child_slot, node_child_slot_before, node_child, node_value, node_count: inline. */
#include "btree/node_search.h"

/* ---- reads under the token, or of a private copy that was validated -------------------------------------------- */

/* The whole key of a slot (prefix + the rest) into to (room for it: node_key_length). */
size_t node_key_length(const node *n, unsigned slot);
void node_key_copy(const node *n, unsigned slot, void *to);
rw_slice node_prefix(const node *n);
rw_slice node_key_rest(const node *n, unsigned slot);     /* the slot's key without the prefix */
rw_slice node_lower_fence(const node *n);
/* size 0: none. */
rw_slice node_upper_fence(const node *n);
/* Inner: the slot that names a frame (PAGE_REF_IN_MEMORY); RW_ASSERTs that it is there. A scan over the slots. */
unsigned node_slot_of_frame(const node *n, uint32_t frame);
void node_child_set(node *n, unsigned slot, page_ref ref);

/* ---- changes ----------------------------------------------------------------------------------------------------- */

/* An empty node with these fences (upper.size 0: none; they do not lie in n). level 0: leaf. The header's store fields are left zero. */
void node_init(node *n, uint32_t page_size, unsigned level, rw_slice lower, rw_slice upper);

/* Whether a slot with this whole key length and value length fits (compacting the heap counts as fitting). */
bool node_fits(const node *n, uint32_t page_size, size_t key_length, size_t value_length);
/* Whether the slot's value can become value_length bytes long. */
bool node_fits_update(const node *n, uint32_t page_size, unsigned slot, size_t value_length);

/* Inserts at slot (from node_lower_bound, not found). It fits. For an inner node: the separator and page_ref of a new child, slot = the
 * position after the child it was split from; the first child of all goes to slot 0, its key is ignored (it stands for the lower fence).
 * Neither key nor value may lie in n: its heap may be compacted. */
void node_insert(node *n, uint32_t page_size, unsigned slot, rw_slice key, rw_slice value, unsigned flags);
/* Replaces a slot's value; in place where the length allows. It fits. value does not lie in n. */
void node_update(node *n, uint32_t page_size, unsigned slot, rw_slice value, unsigned flags);
void node_remove(node *n, uint32_t page_size, unsigned slot);
/* Removes slots first <= slot < end. Inner, for both: when slot 0 goes, the next child's separator is dropped, the lower fence stands for it. */
void node_remove_many(node *n, uint32_t page_size, unsigned first, unsigned end);

/*
 * Where to split, decided from the node and the key about to be inserted (or updated), without changing anything. Slots [slot, count) go to
 * the right.
 *
 * Leaf: the separator is the shortest string s with key(slot-1) < s <= key(slot), chosen among split points near the middle by its shortness.
 * When the last insertions ascended (or descended) to the place of the incoming key, or it lies beyond the last slot of a node without upper
 * fence, the split is made at that place, so that sequential loads fill their pages: slot == count (right node empty) or slot == 0 (left
 * node empty) are legal then, the separator lying between the incoming key and its neighbour. Inner: 1 <= slot < count, the separator is
 * key(slot) (it becomes the right node's empty slot 0 and lower fence).
 *
 * Progress: both sides always fit, and the side of the incoming key (left if it is < separator) holds fewer slots than n, or is a
 * node with room. A leaf without slots takes any record, one with one slot any update of it, an inner node with one child any separator;
 * so after finitely many splits the incoming record fits (README.md).
 */
typedef struct {
    unsigned slot;
    uint32_t separator_length;
    unsigned char separator[RW_PAGE_SIZE_MAX / 4];
} node_split;

void node_split_plan(const node *n, uint32_t page_size, rw_slice incoming_key, node_split *plan);
/* The same without a guess at the pattern: near the middle, whatever the last insertions were. So both sides have room for nearly half a page. */
void node_split_plan_even(const node *n, uint32_t page_size, rw_slice incoming_key, node_split *plan);
/* The same between slot - 1 and slot of an inner node; 0 < slot < count. */
void node_split_plan_at(const node *n, unsigned slot, node_split *plan);
/* Carries it out: n keeps the left part (rebuilt: fences, prefix, heap) and its page header; right is initialised and filled, its header zero but for
 * type, level and newest_timestamp, which is n's. scratch, here and below, is aligned to 8; page_size bytes. */
void node_split_apply(node *n, node *right, uint32_t page_size, const node_split *plan, void *scratch);

/* Whether right (the neighbour: its lower fence is left's upper fence) fits into left, leaving at least free_bytes free. Inner nodes: the
 * fence between them becomes a separator again. */
bool node_merge_fits(const node *left, const node *right, uint32_t page_size, uint32_t free_bytes);
/* left takes right's slots, upper fence and the larger newest_timestamp; right is left as it was, to be dropped. scratch: page_size bytes. */
void node_merge(node *left, const node *right, uint32_t page_size, void *scratch);
/* Where the fence between neighbours under one parent must go so that both hold about the same bytes; plan->slot: how many slots left holds then.
 * false: not worth it (it would not make room for incoming_bytes in the fuller one). */
bool node_balance_plan(const node *left, const node *right, uint32_t page_size, size_t incoming_bytes, node_split *plan);
/* The same for filling the left one, a leaf, from the right one, until only free_bytes are free; the right one keeps a slot. false: too little would move. */
bool node_pack_plan(const node *left, const node *right, uint32_t page_size, uint32_t free_bytes, node_split *plan);
/* Carries either out. scratch: 2 * page_size bytes. */
void node_balance_apply(node *left, node *right, uint32_t page_size, const node_split *plan, void *scratch);
/* Rebuilds the node with another fence (the slots all lie inside). false, nothing changed: it does not fit. scratch: page_size bytes. */
bool node_refence(node *n, uint32_t page_size, rw_slice lower, rw_slice upper, void *scratch);

/* Bytes in use out of node_capacity. */
uint32_t node_used(const node *n, uint32_t page_size);
uint32_t node_capacity(uint32_t page_size);
/* Zeroes the gap between slots and heap (before a page goes to a file); compacts first when there is garbage, so that no dead bytes leave. */
void node_tidy(node *n, uint32_t page_size, void *scratch);

/* ---- looking at it ---------------------------------------------------------------------------------------------- */

/* Every structural rule of node_format.h; 0 or RW_ECORRUPT with a sentence that names rule and slot. Safe on any bytes. Used by
 * assertions, the verifier, the fuzzer, and on every page read from disk (its cost is that of a walk over the slots: the order of keys is checked
 * only with deep). */
int node_check(const node *n, uint32_t page_size, bool deep);
/* Prints as far as it decodes; safe on any bytes. */
void node_print(const node *n, uint32_t page_size, FILE *to);

#endif
