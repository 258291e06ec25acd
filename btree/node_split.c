/* Splitting a node: the plan, which changes nothing, and its execution. */
#include "btree/node_internal.h"

#define RECENT_RUN 3u     /* so many insertions in a row make a sequential pattern */

static rw_slice plan_separator(const node_split *plan)
{
    return rw_slice_of(plan->separator, plan->separator_length);
}

static bool plan_fits(const node *n, uint32_t page_size, const node_split *plan)
{
    node_sequence all = node_sequence_of(n, NULL);
    rw_slice separator = plan_separator(plan);
    return node_sequence_used(&all, 0, plan->slot, node_lower_fence(n), separator) <= node_capacity(page_size) &&
           node_sequence_used(&all, plan->slot, n->count, separator, node_upper_fence(n)) <= node_capacity(page_size);
}

/* The heap grows down, so the slots inserted last lie lowest, one above the other. Whether RECENT_RUN slots from slot on in the direction of
 * step are the last insertions, the newest first. */
static bool recent_run(const node *n, unsigned slot, int step)
{
    uint32_t offset = n->heap_start;
    for (unsigned i = 0; i < RECENT_RUN; i++) {
        if (slot >= n->count) return false;
        const node_slot *s = &n->slots[slot];
        if (s->offset != offset) return false;
        offset += node_slot_heap_bytes(s);
        slot += (unsigned)step;
    }
    return true;
}

/* The incoming key goes right, behind which [place, count) follow: the shortest s with key(place-1) < s <= incoming. */
static void separator_before_incoming(const node *n, unsigned place, rw_slice incoming, node_split *plan)
{
    size_t prefix = n->prefix_length;
    rw_slice rest = rw_slice_of((const unsigned char *)incoming.data + prefix, incoming.size - prefix);
    size_t length = prefix + rw_slice_common_prefix(node_key_rest(n, place - 1), rest) + 1;
    RW_ASSERT(length <= incoming.size);
    memcpy(plan->separator, incoming.data, length);
    plan->separator_length = (uint32_t)length;
    plan->slot = place;
}

/* The incoming key goes left, as its last: the shortest s with incoming < s <= key(place). */
static void separator_after_incoming(const node *n, unsigned place, rw_slice incoming, node_split *plan)
{
    size_t prefix = n->prefix_length;
    rw_slice rest = rw_slice_of((const unsigned char *)incoming.data + prefix, incoming.size - prefix), next = node_key_rest(n, place);
    size_t common = rw_slice_common_prefix(rest, next);
    RW_ASSERT(common < next.size);
    memcpy(plan->separator, node_prefix(n).data, prefix);
    memcpy(plan->separator + prefix, next.data, common + 1);
    plan->separator_length = (uint32_t)(prefix + common + 1);
    plan->slot = place;
}

/* Sequential insertion: split where the incoming key belongs, when that leaves at least half of the bytes behind it. */
static bool plan_leaf_sequential(const node *n, uint32_t page_size, unsigned place, rw_slice incoming, node_split *plan)
{
    node_sequence all = node_sequence_of(n, NULL);
    uint32_t half = node_sequence_bytes(&all, 0, n->count) / 2;
    bool beyond = place == n->count && n->upper_length == 0;
    if (place > 0 && (beyond || recent_run(n, place - 1, -1)) && node_sequence_bytes(&all, 0, place) >= half) {
        separator_before_incoming(n, place, incoming, plan);
        return plan_fits(n, page_size, plan);
    }
    if (place < n->count && recent_run(n, place, 1) && node_sequence_bytes(&all, place, n->count) >= half) {
        separator_after_incoming(n, place, incoming, plan);
        return plan_fits(n, page_size, plan);
    }
    return false;
}

/* The same for children; the child at the border goes with the incoming one, since no node is without a child. */
static bool plan_inner_sequential(const node *n, unsigned place, node_split *plan)
{
    node_sequence all = node_sequence_of(n, NULL);
    uint32_t half = node_sequence_bytes(&all, 0, n->count) / 2;
    bool beyond = place == n->count && n->upper_length == 0;
    unsigned point = 0;
    if (place > 1 && (beyond || recent_run(n, place - 1, -1)) && node_sequence_bytes(&all, 0, place - 1) >= half) point = place - 1;
    else if (place > 0 && place < n->count && recent_run(n, place, 1) && node_sequence_bytes(&all, place, n->count) >= half) point = place;
    if (point == 0) return false;
    node_sequence_separator(&all, point, plan);
    return true;
}

void node_split_plan_even(const node *n, uint32_t page_size, rw_slice incoming_key, node_split *plan)
{
    RW_ASSERT(n->count > 0 && incoming_key.size >= n->prefix_length);
    if (node_is_leaf(n) && n->count == 1) {
        bool found;
        unsigned place = node_lower_bound(n, page_size, incoming_key, &found);
        RW_ASSERT(!found);     /* an only record can take any value */
        if (place == 0) separator_after_incoming(n, place, incoming_key, plan);
        else separator_before_incoming(n, place, incoming_key, plan);
        return;
    }
    node_sequence all = node_sequence_of(n, NULL);
    unsigned middle = node_sequence_middle(&all, UINT32_MAX);
    RW_ASSERT(middle > 0);
    node_sequence_separator(&all, middle, plan);
}

void node_split_plan(const node *n, uint32_t page_size, rw_slice incoming_key, node_split *plan)
{
    bool found;
    unsigned place = node_lower_bound(n, page_size, incoming_key, &found);
    if (node_is_leaf(n) ? !found && plan_leaf_sequential(n, page_size, place, incoming_key, plan) : plan_inner_sequential(n, place, plan)) return;
    node_split_plan_even(n, page_size, incoming_key, plan);
}

void node_split_plan_at(const node *n, unsigned slot, node_split *plan)
{
    RW_ASSERT(!node_is_leaf(n) && slot > 0 && slot < n->count);
    node_sequence all = node_sequence_of(n, NULL);
    node_sequence_separator(&all, slot, plan);
}

void node_split_apply(node *n, node *right, uint32_t page_size, const node_split *plan, void *scratch)
{
    RW_ASSERT(plan->slot <= n->count && (node_is_leaf(n) || (plan->slot > 0 && plan->slot < n->count)));
    node_sequence all = node_sequence_of(n, NULL);
    rw_slice separator = plan_separator(plan);
    node *left = scratch;
    node_init(right, page_size, n->page.level, separator, node_upper_fence(n));
    node_sequence_append(right, page_size, &all, plan->slot, n->count);
    right->page.newest_timestamp = n->page.newest_timestamp;
    node_init(left, page_size, n->page.level, node_lower_fence(n), separator);
    node_sequence_append(left, page_size, &all, 0, plan->slot);
    node_take_over(n, left, page_size);
}
