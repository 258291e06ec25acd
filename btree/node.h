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

/* Leaf: position of the first slot whose key is >= key, 0 to count; *found: it is equal. */
RW_RACY unsigned node_lower_bound(const node *n, uint32_t page_size, rw_slice key, bool *found);
/* Inner: the slot whose child covers key. */
RW_RACY unsigned node_child_slot(const node *n, uint32_t page_size, rw_slice key);
/* Inner: the slot whose child covers the keys just below key (the last child with keys < key); key empty: the last slot. */
RW_RACY unsigned node_child_slot_before(const node *n, uint32_t page_size, rw_slice key);
/* Inner: the child named by a slot; page_ref_none when the slot is out of range. */
RW_RACY page_ref node_child(const node *n, uint32_t page_size, unsigned slot);
/* Leaf: where a slot's value stands; data NULL when out of range. The bytes are read with rw_racy_copy. */
RW_RACY rw_slice node_value(const node *n, uint32_t page_size, unsigned slot, unsigned *flags);
RW_RACY unsigned node_count(const node *n);

/* ---- reads under the token, or of a private copy that was validated -------------------------------------------- */

/* The whole key of a slot (prefix + the rest) into to (room for it: node_key_length). */
size_t node_key_length(const node *n, unsigned slot);
void node_key_copy(const node *n, unsigned slot, void *to);
rw_slice node_prefix(const node *n);
rw_slice node_key_rest(const node *n, unsigned slot);     /* the slot's key without the prefix */
rw_slice node_lower_fence(const node *n);
/* size 0: none. */
rw_slice node_upper_fence(const node *n);
/* Inner: the slot that names frame f (PAGE_REF_IN_MEMORY), searched at the place where key belongs, then everywhere; RW_ASSERTs that it is there. */
unsigned node_slot_of_frame(const node *n, uint32_t frame);
void node_child_set(node *n, unsigned slot, page_ref ref);

/* ---- changes ----------------------------------------------------------------------------------------------------- */

/* An empty node with these fences (upper.size 0: none). level 0: leaf. The header's store fields are left zero. */
void node_init(node *n, uint32_t page_size, unsigned level, rw_slice lower, rw_slice upper);

/* Whether a slot with this whole key length and value length fits (compacting the heap counts as fitting). */
bool node_fits(const node *n, uint32_t page_size, size_t key_length, size_t value_length);
/* Whether the slot's value can become value_length bytes long. */
bool node_fits_update(const node *n, uint32_t page_size, unsigned slot, size_t value_length);

/* Inserts at slot (from node_lower_bound, not found). It fits. For an inner node: the separator and page_ref of a new child, slot = the
 * position after the child it was split from. */
void node_insert(node *n, uint32_t page_size, unsigned slot, rw_slice key, rw_slice value, unsigned flags);
/* Replaces a slot's value; in place where the length allows. It fits. */
void node_update(node *n, uint32_t page_size, unsigned slot, rw_slice value, unsigned flags);
void node_remove(node *n, uint32_t page_size, unsigned slot);
/* Removes slots first <= slot < end. */
void node_remove_many(node *n, uint32_t page_size, unsigned first, unsigned end);

/*
 * Where to split, decided from the node and the key about to be inserted, without changing anything. Leaf: slots [slot, count) go to the right; the
 * separator is the shortest string s with key(slot-1) < s <= key(slot), chosen among split points near the middle by its shortness.
 * Ascending insertion (the new key is beyond the last slot and the node has no upper fence or the insert pattern is sequential) splits
 * at the end, so that sequential loads fill their pages; slot == count is legal then (right node empty), the separator being the new key,
 * or a prefix of it that is > the last key. Inner: slots [slot, count) go right, the separator is key(slot) (it becomes the right
 * node's empty slot 0 and lower fence).
 */
typedef struct {
    unsigned slot;
    uint32_t separator_length;
    unsigned char separator[RW_PAGE_SIZE_MAX / 4];
} node_split;

void node_split_plan(const node *n, uint32_t page_size, rw_slice incoming_key, node_split *plan);
/* Carries it out: n keeps the left part (rebuilt: fences, prefix, heap), right is initialised and filled. scratch: page_size bytes. */
void node_split_apply(node *n, node *right, uint32_t page_size, const node_split *plan, void *scratch);

/* Whether right (the neighbour: its lower fence is left's upper fence) fits into left, leaving at least free_bytes free. Inner nodes: the
 * fence between them becomes a separator again. */
bool node_merge_fits(const node *left, const node *right, uint32_t page_size, uint32_t free_bytes);
/* left takes right's slots and upper fence; right is left as it was, to be dropped. scratch: page_size bytes. */
void node_merge(node *left, const node *right, uint32_t page_size, void *scratch);
/* Moves slots between neighbours under one parent so that both hold about the same bytes; *separator is the new fence between them.
 * false, nothing changed: not worth it (it would not make room for incoming bytes in the fuller one). scratch: 2 * page_size bytes. */
bool node_balance(node *left, node *right, uint32_t page_size, size_t incoming_bytes, node_split *separator, void *scratch);
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
