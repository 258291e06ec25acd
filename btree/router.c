#include "btree/router.h"

int router_open(router *r, uint32_t key_max)
{
    memset(r, 0, sizeof *r);
    r->key_stride = key_max;
    r->keys = calloc(RW_PARTITIONS_MAX, key_max);
    return r->keys == NULL ? rw_error(RW_ENOMEM, "no memory for the router") : 0;
}

void router_close(router *r)
{
    free(r->keys);
    r->keys = NULL;
}

static uint64_t key_head(rw_slice key)
{
    unsigned char bytes[8] = {0};
    if (RW_LIKELY(key.size >= sizeof bytes)) return __builtin_bswap64(rw_load_u64(key.data));
    if (key.size > 0) memcpy(bytes, key.data, key.size);
    return __builtin_bswap64(rw_load_u64(bytes));
}

/* Order of the entry's low key against key. */
RW_RACY static int entry_compare(const router *r, const router_entry *entry, uint64_t head, rw_slice key)
{
    uint64_t entry_head = rw_racy_u64(&entry->head);
    if (entry_head != head) return entry_head < head ? -1 : 1;
    uint32_t length = rw_racy_u16(&entry->length), slot = rw_racy_u32(&entry->key_slot) % RW_PARTITIONS_MAX;
    if (length > r->key_stride) length = r->key_stride;
    size_t shared = RW_MIN((size_t)length, key.size);
    int order = rw_racy_compare(r->keys + (size_t)slot * r->key_stride, key.data, shared);
    if (order != 0) return order;
    return length < key.size ? -1 : length > key.size;
}

/* Number of entries whose low key is <= key, or < key when strict. At least the first entry, whose low key is empty, counts. */
RW_RACY static uint32_t router_search(const router *r, rw_slice key, bool strict)
{
    uint64_t head = key_head(key);
    uint32_t low = 1, high = rw_racy_u32(&r->count);
    if (high > RW_PARTITIONS_MAX) high = RW_PARTITIONS_MAX;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int order = entry_compare(r, &r->entries[middle], head, key);
        if (order < 0 || (order == 0 && !strict)) low = middle + 1;
        else high = middle;
    }
    return low;
}

RW_RACY static uint16_t entry_partition(const router *r, uint32_t position)
{
    uint16_t partition = rw_racy_u16(&r->entries[position].partition);
    return partition < RW_PARTITIONS_MAX ? partition : 0;
}

RW_RACY uint16_t router_find(const router *r, rw_slice key)
{
    return entry_partition(r, router_search(r, key, false) - 1);
}

RW_RACY uint16_t router_find_before(const router *r, rw_slice key)
{
    if (key.size == 0) {
        uint32_t count = rw_racy_u32(&r->count);
        return entry_partition(r, count == 0 || count > RW_PARTITIONS_MAX ? 0 : count - 1);
    }
    return entry_partition(r, router_search(r, key, true) - 1);
}

uint16_t router_find_now(kio *k, const router *r, rw_slice key)
{
    for (;;) {
        uint64_t version = router_version(r);
        if ((version & 1) == 0) {
            uint16_t partition = router_find(r, key);
            if (router_unchanged(r, version)) return partition;
        }
        kio_yield(k);
    }
}

static void change_begin(kio *k, router *r)
{
    kio_mutex_lock(k, &r->mutex);
    atomic_fetch_add_explicit(&r->version, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void change_end(kio *k, router *r)
{
    atomic_fetch_add_explicit(&r->version, 1, memory_order_release);
    kio_mutex_unlock(k, &r->mutex);
}

void router_insert(kio *k, router *r, rw_slice low, uint16_t partition)
{
    RW_ASSERT(r->count < RW_PARTITIONS_MAX && low.size <= r->key_stride);
    RW_ASSERT((r->count == 0) == (low.size == 0));
    uint32_t slot = 0;
    while (r->slot_taken[slot]) slot++;
    change_begin(k, r);
    uint32_t position = r->count == 0 ? 0 : router_search(r, low, false);
    memmove(&r->entries[position + 1], &r->entries[position], (r->count - position) * sizeof *r->entries);
    memcpy(r->keys + (size_t)slot * r->key_stride, low.size == 0 ? "" : low.data, low.size);
    r->slot_taken[slot] = true;
    r->entries[position] =
        (router_entry){.head = key_head(low), .length = (uint16_t)low.size, .partition = partition, .key_slot = slot};
    r->count++;
    change_end(k, r);
}

static uint32_t entry_of(const router *r, uint16_t partition)
{
    for (uint32_t i = 0; i < r->count; i++)
        if (r->entries[i].partition == partition) return i;
    RW_ASSERT(!"the partition is in the router");
    return 0;
}

void router_remove(kio *k, router *r, uint16_t partition)
{
    change_begin(k, r);
    uint32_t position = entry_of(r, partition);
    RW_ASSERT(position > 0);
    r->slot_taken[r->entries[position].key_slot] = false;
    memmove(&r->entries[position], &r->entries[position + 1], (r->count - position - 1) * sizeof *r->entries);
    r->count--;
    change_end(k, r);
}

static rw_slice entry_low(const router *r, uint32_t position)
{
    return rw_slice_of(r->keys + (size_t)r->entries[position].key_slot * r->key_stride, r->entries[position].length);
}

void router_bounds(kio *k, router *r, uint16_t partition, void *low_buffer, rw_slice *low, void *high_buffer, rw_slice *high)
{
    kio_mutex_lock(k, &r->mutex);
    uint32_t position = entry_of(r, partition);
    rw_slice from = entry_low(r, position);
    memcpy(low_buffer, from.data, from.size);
    *low = rw_slice_of(low_buffer, from.size);
    rw_slice to = position + 1 < r->count ? entry_low(r, position + 1) : rw_slice_of("", 0);
    memcpy(high_buffer, to.data, to.size);
    *high = rw_slice_of(high_buffer, to.size);
    kio_mutex_unlock(k, &r->mutex);
}

void router_for_each(kio *k, router *r, void (*fn)(void *arg, uint16_t partition, rw_slice low), void *arg)
{
    kio_mutex_lock(k, &r->mutex);
    for (uint32_t i = 0; i < r->count; i++) fn(arg, r->entries[i].partition, entry_low(r, i));
    kio_mutex_unlock(k, &r->mutex);
}

uint32_t router_count(const router *r)
{
    return rw_racy_u32(&r->count);
}
