/* Two neighbours: merging them, moving slots between them; and moving a node's fences. */
#include "btree/node_internal.h"

static uint64_t newest_of(const node *left, const node *right)
{
    return RW_MAX(left->page.newest_timestamp, right->page.newest_timestamp);
}

bool node_merge_fits(const node *left, const node *right, uint32_t page_size, uint32_t free_bytes)
{
    node_sequence both = node_sequence_of(left, right);
    uint32_t used = node_sequence_used(&both, 0, both.count, node_lower_fence(left), node_upper_fence(right));
    return (uint64_t)used + free_bytes <= node_capacity(page_size);
}

void node_merge(node *left, const node *right, uint32_t page_size, void *scratch)
{
    RW_ASSERT(left->page.level == right->page.level);
    RW_ASSERT(rw_slice_equal(node_upper_fence(left), node_lower_fence(right)));
    node_sequence both = node_sequence_of(left, right);
    node *built = scratch;
    node_init(built, page_size, left->page.level, node_lower_fence(left), node_upper_fence(right));
    node_sequence_append(built, page_size, &both, 0, both.count);
    node_take_over(left, built, page_size);
    left->page.newest_timestamp = newest_of(left, right);
}

#define BALANCE_WINDOW_DIVISOR 16u

bool node_balance_plan(const node *left, const node *right, uint32_t page_size, size_t incoming_bytes, node_split *plan)
{
    RW_ASSERT(left->page.level == right->page.level);
    uint32_t capacity = node_capacity(page_size), most = capacity - (uint32_t)RW_MIN(incoming_bytes, capacity);
    /* Most neighbours are about as full: seen here, before slot after slot is looked at. The outer fences stay, whatever else moves. */
    uint32_t fences = left->upper_length + (uint32_t)right->lower_length;
    if (node_used(left, page_size) + node_used(right, page_size) > 2 * most + fences) return false;
    node_sequence both = node_sequence_of(left, right);
    uint32_t total = node_sequence_bytes(&both, 0, both.count);
    /* Only as far from the middle as leaves room in the fuller one: a shorter separator farther off is of no use. And not far in any case: it is done often. */
    plan->slot = node_sequence_middle(&both, RW_MIN(2 * most > total ? 2 * most - total : 0, total / BALANCE_WINDOW_DIVISOR));
    if (plan->slot == 0) return false;
    node_sequence_separator(&both, plan->slot, plan);
    rw_slice fence = rw_slice_of(plan->separator, plan->separator_length);
    uint32_t left_used = node_sequence_used(&both, 0, plan->slot, node_lower_fence(left), fence);
    uint32_t right_used = node_sequence_used(&both, plan->slot, both.count, fence, node_upper_fence(right));
    return RW_MAX(left_used, right_used) + incoming_bytes <= node_capacity(page_size);
}

#define PACK_LEAST_DIVISOR 16u         /* of a page, to be moved: less is not worth two changed pages */

bool node_pack_plan(const node *left, const node *right, uint32_t page_size, uint32_t free_bytes, node_split *plan)
{
    RW_ASSERT(node_is_leaf(left) && node_is_leaf(right) && free_bytes <= node_capacity(page_size));
    uint32_t capacity = node_capacity(page_size), most = capacity - free_bytes, least = capacity / PACK_LEAST_DIVISOR;
    uint32_t used = node_used(left, page_size), moved = 0;
    node_sequence both = node_sequence_of(left, right);
    unsigned k = left->count;
    for (; k + 1 < both.count; k++) { /* one stays, or the right one would be empty */
        uint32_t bytes = (uint32_t)sizeof(node_slot) + node_slot_heap_bytes(&right->slots[k - left->count]);
        if (used + moved + bytes > most) break;
        moved += bytes;
    }
    while (k > left->count && moved >= least) {
        node_sequence_separator(&both, k, plan);
        rw_slice fence = rw_slice_of(plan->separator, plan->separator_length);
        uint32_t left_used = node_sequence_used(&both, 0, k, node_lower_fence(left), fence);
        if (left_used <= most && node_sequence_used(&both, k, both.count, fence, node_upper_fence(right)) <= capacity) return true;
        /* another prefix makes what was there, or what is moved, larger: as much less is moved */
        for (uint32_t less = 0; k > left->count && (less == 0 || left_used > most + less); k--)
            less += (uint32_t)sizeof(node_slot) + node_slot_heap_bytes(&right->slots[k - 1 - left->count]);
        moved = node_sequence_bytes(&both, left->count, k);
    }
    return false;
}

void node_balance_apply(node *left, node *right, uint32_t page_size, const node_split *plan, void *scratch)
{
    node_sequence both = node_sequence_of(left, right);
    rw_slice fence = rw_slice_of(plan->separator, plan->separator_length), lower = node_lower_fence(left), upper = node_upper_fence(right);
    node *new_left = scratch, *new_right = (node *)(void *)((unsigned char *)scratch + page_size);
    node_init(new_left, page_size, left->page.level, lower, fence);
    node_sequence_append(new_left, page_size, &both, 0, plan->slot);
    node_init(new_right, page_size, left->page.level, fence, upper);
    node_sequence_append(new_right, page_size, &both, plan->slot, both.count);
    node_take_over(left, new_left, page_size);
    node_take_over(right, new_right, page_size);
    left->page.newest_timestamp = right->page.newest_timestamp = newest_of(left, right);
}

bool node_refence(node *n, uint32_t page_size, rw_slice lower, rw_slice upper, void *scratch)
{
    node_sequence all = node_sequence_of(n, NULL);
    if (node_sequence_used(&all, 0, n->count, lower, upper) > node_capacity(page_size)) return false;
    node *built = scratch;
    node_init(built, page_size, n->page.level, lower, upper);
    node_sequence_append(built, page_size, &all, 0, n->count);
    node_take_over(n, built, page_size);
    return true;
}
