/* The spills of a partition's pending writes. */
#include "btree/pending.h"

uint32_t pending_spill_begin(pending *pg, const partition *p)
{
    pending_set *set = pending_set_of(pg, p);
    return set->spill_number < PAGE_REF_SPILL_MAX ? ++set->spill_number : 0;
}

void pending_spill_add(pending *pg, const partition *p, spill *s)
{
    pending_set *set = pending_set_of(pg, p);
    uint32_t count = atomic_load_explicit(&set->spill_count, memory_order_relaxed);
    RW_ASSERT(count < STORE_SPILLS_MAX && s->image.number <= set->spill_number && (count == 0 || set->spills[count - 1]->image.number < s->image.number));
    kio_mutex_lock(pg->kio, &set->latch);
    set->spills[count] = s;
    atomic_store_explicit(&set->spill_count, count + 1, memory_order_release);
    kio_mutex_unlock(pg->kio, &set->latch);
    atomic_fetch_add_explicit(&pg->spill_frames, spill_frames(s), memory_order_relaxed);
    atomic_fetch_add_explicit(&pg->spilled, s->writes, memory_order_relaxed); /* none of one that an open finds */
    atomic_fetch_add(&pg->spills, 1);
}

void pending_spills_drop(pending *pg, const partition *p, store_retired *retired)
{
    pending_set *set = pending_set_of(pg, p);
    uint32_t count = atomic_load_explicit(&set->spill_count, memory_order_relaxed);
    kio_mutex_lock(pg->kio, &set->latch);
    atomic_store_explicit(&set->spill_count, 0, memory_order_release);
    kio_mutex_unlock(pg->kio, &set->latch);
    for (uint32_t i = 0; i < count; i++) {
        spill *s = set->spills[i];
        atomic_fetch_sub_explicit(&pg->spill_frames, spill_frames(s), memory_order_relaxed);
        spill_retire(s, pg->pool, retired);
        spill_close(s, pg->pool);
    }
    set->spill_number = 0;
}

/* Whether the image that leaf names was made without the spill. */
static bool leaf_lacks(page_ref leaf, const spill *s)
{
    return page_ref_spill(leaf) < s->image.number;
}

bool pending_may_be_spilled(const pending *pg, const partition *p, page_ref leaf, uint64_t hash)
{
    const pending_set *set = pending_set_of(pg, p);
    uint32_t count = atomic_load_explicit(&set->spill_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        if (leaf_lacks(leaf, set->spills[i]) && spill_may_hold(set->spills[i], pg->pool, hash)) return true;
    return false;
}

page_ref pending_spilled(pending *pg, uint16_t index, page_ref leaf, rw_slice key, uint64_t hash)
{
    pending_set *set = &pg->sets[index];
    page_ref found = page_ref_none();
    kio_mutex_lock(pg->kio, &set->latch);
    for (uint32_t i = atomic_load_explicit(&set->spill_count, memory_order_relaxed); i > 0 && page_ref_is_none(found) && leaf_lacks(leaf, set->spills[i - 1]); i--)
        if (spill_may_hold(set->spills[i - 1], pg->pool, hash)) found = spill_leaf(set->spills[i - 1], pg->pool, key);
    kio_mutex_unlock(pg->kio, &set->latch);
    return found;
}
