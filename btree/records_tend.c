/* How many buckets there are: as many as records are worth, beside what else the same frames could hold. */
#include "btree/hints.h"
#include "btree/records_internal.h"

#define TEND_STEP 32u                  /* frames taken or given back at a time */
#define TARGET_DIVISOR 256u            /* of what may be borrowed: how fast pending writes have to make room */
#define PENDING_LEFT_DIVISOR 8u        /* of what may be borrowed, left to pending writes however few there are */
#define SHARE_OLD 3.0                  /* weights of what was known, */
#define SHARE_NEW 1.0                  /* and of the last window */

/* Not the last ones that are free: others wait for what they take. */
static bool frame_borrow(record_cache *r, uint32_t index)
{
    RW_ASSERT(index < r->buckets_max);
    uint32_t f = atomic_load_explicit(&r->pool->free_count, memory_order_relaxed) > r->pool->free_low / 2 ? pool_frame_try(r->pool) : FRAME_NONE;
    if (f == FRAME_NONE) return false;
    bucket_init(pool_page(r->pool, f), r->pool->page_size);
    filter_make(r, index, pool_page(r->pool, f));
    atomic_store_explicit(&r->frames[index], f, memory_order_relaxed);
    return true;
}

static void frame_give(record_cache *r, uint32_t index)
{
    pool_frame_free(r->pool, atomic_load_explicit(&r->frames[index], memory_order_relaxed));
}

/* The first ones: as many as there are latches, gathered over several calls where few are free. */
static void table_begin(record_cache *r)
{
    while (r->gathered < RW_RECORDS_LATCHES && frame_borrow(r, r->gathered)) r->gathered++;
    if (r->gathered < RW_RECORDS_LATCHES) return;
    atomic_store_explicit(&r->buckets, r->gathered, memory_order_release);
    r->gathered = 0;
}

static void table_forget(record_cache *r)
{
    while (r->gathered > 0) frame_give(r, --r->gathered);
}

static void table_end(record_cache *r)
{
    uint32_t buckets = atomic_load_explicit(&r->buckets, memory_order_relaxed);
    for (unsigned i = 0; i < RW_RECORDS_LATCHES; i++) kio_mutex_lock(r->kio, &r->latches[i].mutex);
    atomic_store_explicit(&r->buckets, 0, memory_order_release);
    for (unsigned i = 0; i < RW_RECORDS_LATCHES; i++) kio_mutex_unlock(r->kio, &r->latches[i].mutex);
    while (buckets > 0) frame_give(r, --buckets);
}

/* Moves what has its place there; the other bucket has room for it. Keys are hashed again, since a slot keeps a part of the hash only. */
static void bucket_move(bucket *from, bucket *to, uint32_t index, uint32_t buckets)
{
    for (unsigned slot = from->count; slot-- > 0;) {
        const kept_record *one = record_at(from, slot);
        rw_slice key = rw_slice_of(one->bytes, one->key_size);
        uint64_t hash = hints_hash(key);
        if (bucket_index(hash, buckets) != index) continue;
        page_ref leaf = {.word = one->word, .checksum = one->checksum};
        if (bucket_room(to) >= record_bytes(one->key_size, one->value_size) + sizeof(bucket_slot))
            bucket_add(to, leaf, hash, key, rw_slice_of(one->bytes + one->key_size, one->value_size), from->slots[slot].used);
        bucket_remove(from, slot);
    }
}

static bool table_grow(record_cache *r)
{
    uint32_t index = atomic_load_explicit(&r->buckets, memory_order_relaxed);
    if (!frame_borrow(r, index)) return false;
    uint32_t lower = index - rw_power_below(index);
    records_latch *latch = latch_of(r, index);
    RW_ASSERT(latch == latch_of(r, lower));
    kio_mutex_lock(r->kio, &latch->mutex);
    bucket_move(bucket_at(r, lower), bucket_at(r, index), index, index + 1);
    filter_make(r, lower, bucket_at(r, lower));
    filter_make(r, index, bucket_at(r, index));
    atomic_store_explicit(&r->buckets, index + 1, memory_order_release);
    kio_mutex_unlock(r->kio, &latch->mutex);
    return true;
}

static void table_shrink(record_cache *r)
{
    uint32_t index = atomic_load_explicit(&r->buckets, memory_order_relaxed) - 1, lower = index - rw_power_below(index);
    records_latch *latch = latch_of(r, index);
    RW_ASSERT(latch == latch_of(r, lower));
    kio_mutex_lock(r->kio, &latch->mutex);
    bucket_move(bucket_at(r, index), bucket_at(r, lower), lower, index);
    filter_make(r, lower, bucket_at(r, lower));
    atomic_store_explicit(&r->buckets, index, memory_order_release);
    kio_mutex_unlock(r->kio, &latch->mutex);
    frame_give(r, index);
}

typedef struct {
    uint64_t answered, pushed_out;
} latch_sums;

static latch_sums latches_sum(record_cache *r)
{
    latch_sums sums = {0};
    for (unsigned i = 0; i < RW_RECORDS_LATCHES; i++) {
        records_latch *latch = &r->latches[i];
        kio_mutex_lock(r->kio, &latch->mutex);
        sums.answered += latch->answered;
        sums.pushed_out += latch->pushed_out;
        kio_mutex_unlock(r->kio, &latch->mutex);
    }
    return sums;
}

/* What gets did with records since the last window, beside all that would use the same memory: puts that wait, and others' leaves. */
static void share_measure(record_cache *r, const latch_sums *sums)
{
    uint64_t asked = atomic_load_explicit(&r->asked, memory_order_relaxed), walked = atomic_load_explicit(&r->walked, memory_order_relaxed);
    uint64_t added = atomic_load_explicit(&r->pending->added, memory_order_relaxed);
    uint64_t gets = sums->answered - r->answered + asked - r->asked_seen, all = gets + walked - r->walked_seen + added - r->added_seen;
    if (all < RW_RECORDS_WINDOW) return;
    r->share = (r->share * SHARE_OLD + (double)gets / (double)all * SHARE_NEW) / (SHARE_OLD + SHARE_NEW);
    r->answered = sums->answered;
    r->asked_seen = asked;
    r->walked_seen = walked;
    r->added_seen = added;
}

/* Moves the number of buckets to be reached: down at once; up, while those that there are push records out, as pending writes make room, and never so far that these have none. */
static void target_move(record_cache *r, bool crowded)
{
    const pending *pg = r->pending;
    uint32_t borrowable = (uint32_t)RW_MIN(pending_borrowable(pg), (uint64_t)r->buckets_max), most = borrowable - borrowable / PENDING_LEFT_DIVISOR;
    uint32_t wanted = (uint32_t)(r->share * (double)most), step = RW_MAX(r->buckets_max / TARGET_DIVISOR, 1u);
    if (wanted < RW_RECORDS_LATCHES) wanted = 0;
    if (wanted <= r->target) r->target = wanted;
    else if (crowded && pending_frames(pg) <= pending_flush_from(pg)) r->target = RW_MIN(RW_MAX(r->target + step, RW_RECORDS_LATCHES), wanted);
}

void records_tend(record_cache *r)
{
    if (r->buckets_max == 0 || atomic_exchange_explicit(&r->tending, 1, memory_order_acquire) != 0) return;
    latch_sums sums = latches_sum(r);
    uint32_t buckets = atomic_load_explicit(&r->buckets, memory_order_relaxed);
    bool crowded = buckets == 0 || sums.pushed_out != r->pushed_out_seen;
    r->pushed_out_seen = sums.pushed_out;
    share_measure(r, &sums);
    target_move(r, crowded);
    if (r->target == 0) {
        table_forget(r);
        if (buckets > 0) table_end(r);
    } else if (buckets == 0) {
        table_begin(r);
    } else if (buckets > r->target) {
        for (unsigned i = 0; i < TEND_STEP && buckets > r->target; i++, buckets--) table_shrink(r);
    } else if (crowded) {
        for (unsigned i = 0; i < TEND_STEP && buckets < r->target && table_grow(r); i++) buckets++;
    }
    buckets = atomic_load_explicit(&r->buckets, memory_order_relaxed);
    atomic_store_explicit(&r->pending->reserved, RW_MAX(r->target, buckets), memory_order_relaxed);
    atomic_store_explicit(&r->tending, 0, memory_order_release);
}

records_figures records_figures_get(record_cache *r)
{
    latch_sums sums = latches_sum(r);
    return (records_figures){.bytes = (uint64_t)atomic_load(&r->buckets) * r->pool->page_size, .answered = sums.answered};
}
