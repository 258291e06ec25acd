/* The slow end of a search: many equal heads. */
#include "btree/node_internal.h"

RW_RACY unsigned node_search_run(const node *n, uint32_t page_size, uint32_t head, rw_slice rest, unsigned low, unsigned high,
                                 bool *found)
{
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        uint32_t other = n->slots[middle].head;
        int order = other != head ? (head < other ? -1 : 1) : node_tie_order(n, page_size, middle, rest.data, rest.size);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return low;
}
