#include "btree/records.h"

#include "base/planted.h"
#include "btree/hints.h"

#define RECORD_DIVISOR 8u              /* of a page: the largest record that is kept */
#define RECENT_TIME_BITS 12u           /* of a word that remembers a leaf: when it was read, in reads for gets */
#define RECENT_TIME_MASK ((1u << RECENT_TIME_BITS) - 1)
#define NEAR_LOADS 64u                 /* a leaf that is read again within so many reads is one of neighbouring keys */
#define NEAR_GAIN 16u                  /* for each such leaf, against 1 lost for each other one */
#define NEAR_MAX 1024u
#define NEAR_MANY 128u                 /* from here on it is usual */
#define USED_MAX 3u                    /* rounds of the hand that a record stays for, at most, without another use */
#define RENEW_AHEAD 16u                /* so many buckets are fetched from memory side by side */
#define TEND_EVERY 64u                 /* reads for gets */
#define TEND_STEP 32u                  /* frames taken or given back at a time */
#define TARGET_DIVISOR 256u            /* of what may be borrowed: how fast pending writes have to make room */
#define PENDING_LEFT_DIVISOR 8u        /* of what may be borrowed, left to pending writes however few there are */
#define SHARE_OLD 3.0                  /* weights of what was known, */
#define SHARE_NEW 1.0                  /* and of the last window */

typedef struct {
    uint32_t tag;                      /* of the key's hash */
    uint16_t offset;                   /* of the record in the bucket */
    uint8_t used;                      /* times, less those that the hand has come by since */
    uint8_t zero;
} bucket_slot;

/* Slots behind it, records at the frame's end. */
typedef struct {
    uint32_t heap_start;
    uint16_t count, hand;
    bucket_slot slots[];
} bucket;

typedef struct {
    uint64_t word;                     /* page_ref of the image that it was read from */
    uint32_t checksum;
    uint16_t key_size, value_size;
    unsigned char bytes[];             /* key, value */
} kept_record;

_Static_assert(sizeof(bucket_slot) == 8 && sizeof(bucket) == 8 && sizeof(kept_record) == 16, "records stay aligned");

int records_open(record_cache *r, kio *k, pool *p, pending *pg, uint32_t page_size, uint32_t frames_max)
{
    memset(r, 0, sizeof *r);
    r->kio = k;
    r->pool = p;
    r->pending = pg;
    r->record_max = page_size / RECORD_DIVISOR;
    r->buckets_max = frames_max < RW_RECORDS_LATCHES ? 0 : frames_max;
    r->bytes = r->buckets_max * sizeof *r->frames;
    r->frames = calloc(RW_MAX(r->buckets_max, 1u), sizeof *r->frames);
    return r->frames != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for a table of %u frames of records", frames_max);
}

void records_close(record_cache *r)
{
    free((void *)r->frames);
    r->frames = NULL;
}

/* ---- buckets ------------------------------------------------------------------------------------------------------ */

/* The largest power of two that is not above count. */
static uint32_t power_below(uint32_t count)
{
    return (uint32_t)1 << (31 - (unsigned)__builtin_clz(count));
}

/* With a count of buckets between two powers of two, what belongs to those still to come lies with their lower halves. */
static uint32_t bucket_index(uint64_t hash, uint32_t buckets)
{
    uint32_t power = power_below(buckets), index = (uint32_t)(hash >> 32) & (2 * power - 1);
    return index < buckets ? index : index & (power - 1);
}

static bucket *bucket_at(const record_cache *r, uint32_t index)
{
    return pool_page(r->pool, atomic_load_explicit(&r->frames[index], memory_order_relaxed));
}

static records_latch *latch_of(record_cache *r, uint32_t index)
{
    return &r->latches[index & (RW_RECORDS_LATCHES - 1)];
}

/* The key's bucket, latched; NULL: there are none. Under the latch it stays the key's: whoever splits it, or takes it away, has the latch. */
static bucket *bucket_latch(record_cache *r, uint64_t hash, records_latch **latch)
{
    for (;;) {
        uint32_t buckets = atomic_load_explicit(&r->buckets, memory_order_acquire);
        if (buckets == 0) return NULL;
        uint32_t index = bucket_index(hash, buckets);
        *latch = latch_of(r, index);
        kio_mutex_lock(r->kio, &(*latch)->mutex);
        buckets = atomic_load_explicit(&r->buckets, memory_order_acquire);
        if (buckets > 0 && bucket_index(hash, buckets) == index) return bucket_at(r, index);
        kio_mutex_unlock(r->kio, &(*latch)->mutex);
    }
}

static kept_record *record_at(bucket *b, unsigned slot)
{
    return (kept_record *)(void *)((unsigned char *)b + b->slots[slot].offset);
}

static uint32_t record_bytes(size_t key_size, size_t value_size)
{
    return (uint32_t)rw_align_up(sizeof(kept_record) + key_size + value_size, 8);
}

static void bucket_init(bucket *b, uint32_t page_size)
{
    *b = (bucket){.heap_start = page_size};
}

static uint32_t bucket_room(const bucket *b)
{
    return b->heap_start - (uint32_t)(sizeof *b + b->count * sizeof *b->slots);
}

/* Returns count when the key is not there. */
static unsigned bucket_find(bucket *b, rw_slice key, uint64_t hash)
{
    unsigned slot = 0;
    for (; slot < b->count; slot++) {
        if (b->slots[slot].tag != (uint32_t)hash) continue;
        const kept_record *one = record_at(b, slot);
        if (rw_slice_equal(rw_slice_of(one->bytes, one->key_size), key)) break;
    }
    return slot;
}

static void bucket_remove(bucket *b, unsigned slot)
{
    const kept_record *one = record_at(b, slot);
    uint32_t size = record_bytes(one->key_size, one->value_size), offset = b->slots[slot].offset;
    unsigned char *heap = (unsigned char *)b + b->heap_start;
    memmove(heap + size, heap, offset - b->heap_start);
    b->heap_start += size;
    b->slots[slot] = b->slots[--b->count];
    for (unsigned i = 0; i < b->count; i++)
        if (b->slots[i].offset < offset) b->slots[i].offset = (uint16_t)(b->slots[i].offset + size);
}

/* Until there is room. Who was asked for gets another round. */
static void bucket_make_room(bucket *b, uint32_t needed, records_latch *latch)
{
    while (bucket_room(b) < needed) {
        if (b->hand >= b->count) b->hand = 0;
        bucket_slot *at = &b->slots[b->hand];
        if (at->used != 0) {
            at->used--;
            b->hand++;
            continue;
        }
        bucket_remove(b, b->hand);
        b->hand++; /* past the newest, which is there now */
        latch->pushed_out++;
    }
}

static void bucket_add(bucket *b, page_ref leaf, uint64_t hash, rw_slice key, rw_slice value, uint8_t used)
{
    b->heap_start -= record_bytes(key.size, value.size);
    b->slots[b->count] = (bucket_slot){.tag = (uint32_t)hash, .offset = (uint16_t)b->heap_start, .used = used};
    kept_record *one = record_at(b, b->count++);
    *one = (kept_record){.word = leaf.word, .checksum = leaf.checksum, .key_size = (uint16_t)key.size, .value_size = (uint16_t)value.size};
    memcpy(one->bytes, key.data, key.size);
    if (value.size > 0) memcpy(one->bytes + key.size, value.data, value.size);
}

/* ---- reading, keeping --------------------------------------------------------------------------------------------- */

static bool is_of_image(const kept_record *one, page_ref leaf)
{
    return RW_PLANTED(record_of_old_image) || (one->word == leaf.word && one->checksum == leaf.checksum);
}

bool records_get(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, void *buf, size_t room, pending_value *out)
{
    records_latch *latch;
    bucket *b = bucket_latch(r, hash, &latch);
    if (b == NULL) return false;
    unsigned slot = bucket_find(b, key, hash);
    bool found = slot < b->count && is_of_image(record_at(b, slot), leaf);
    if (found) {
        const kept_record *one = record_at(b, slot);
        *out = (pending_value){.timestamp = UINT64_MAX, .size = one->value_size, .fits = one->value_size <= room};
        if (out->fits && one->value_size > 0) memcpy(buf, one->bytes + one->key_size, one->value_size);
        if (b->slots[slot].used < USED_MAX) b->slots[slot].used++;
        latch->answered++;
    }
    kio_mutex_unlock(r->kio, &latch->mutex);
    return found;
}

/* The record of a leaf whose key has that hash; false: there is none that could be kept. */
static bool record_of_leaf(const record_cache *r, const node *n, uint64_t hash, unsigned char *key, size_t *key_size, rw_slice *value)
{
    for (unsigned slot = 0; slot < n->count; slot++) {
        unsigned flags = 0;
        *key_size = node_key_length(n, slot);
        if (*key_size > r->record_max) continue;
        node_key_copy(n, slot, key);
        if (hints_hash(rw_slice_of(key, *key_size)) != hash) continue;
        *value = node_value(n, r->pool->page_size, slot, &flags);
        return (flags & NODE_SLOT_EXTENT) == 0 && *key_size + value->size <= r->record_max;
    }
    return false;
}

/*
 * Whether the leaf had better stay: it was read for a get a moment ago, too; or that is often so, as where gets go through neighbouring keys, and it will be asked for again.
 */
static bool leaf_stays(record_cache *r, page_ref leaf, uint64_t now)
{
    uint64_t mixed = page_ref_address(leaf) * 0x9e3779b97f4a7c15u;
    uint32_t word = (uint32_t)mixed << RECENT_TIME_BITS | ((uint32_t)now & RECENT_TIME_MASK);
    uint32_t before = atomic_exchange_explicit(&r->recent[mixed >> 32 & (RECORDS_RECENT - 1)], word, memory_order_relaxed);
    bool again = before >> RECENT_TIME_BITS == word >> RECENT_TIME_BITS && ((word - before) & RECENT_TIME_MASK) < NEAR_LOADS;
    uint32_t near = atomic_load_explicit(&r->near, memory_order_relaxed);
    near = again ? RW_MIN(near + NEAR_GAIN, NEAR_MAX) : near - (near > 0);
    atomic_store_explicit(&r->near, near, memory_order_relaxed); /* exactness does not matter */
    return again || near > NEAR_MANY;
}

/* In the place of what is there for the key. False: there is no table. */
static bool record_put(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value, uint8_t used)
{
    records_latch *latch;
    bucket *b = bucket_latch(r, hash, &latch);
    if (b == NULL) return false;
    unsigned slot = bucket_find(b, key, hash);
    if (slot < b->count) {
        used = RW_MAX(used, b->slots[slot].used);
        bucket_remove(b, slot);
    }
    bucket_make_room(b, record_bytes(key.size, value.size) + (uint32_t)sizeof(bucket_slot), latch);
    bucket_add(b, leaf, hash, key, value, used);
    kio_mutex_unlock(r->kio, &latch->mutex);
    return true;
}

bool records_keep(record_cache *r, page_ref leaf, const node *n, uint64_t hash)
{
    unsigned char key[RW_PAGE_SIZE_MAX / RECORD_DIVISOR];
    size_t key_size;
    rw_slice value;
    if (!record_of_leaf(r, n, hash, key, &key_size, &value)) {
        records_walked(r);
        return false;
    }
    uint64_t now = atomic_fetch_add_explicit(&r->asked, 1, memory_order_relaxed);
    if (now % TEND_EVERY == 0) records_tend(r);
    return record_put(r, leaf, rw_slice_of(key, key_size), hash, value, 0) && !leaf_stays(r, leaf, now);
}

void records_keep_made(record_cache *r, rw_slice key, rw_slice value)
{
    if (atomic_load_explicit(&r->buckets, memory_order_relaxed) != 0) (void)record_put(r, page_ref_none(), key, hints_hash(key), value, 1);
}

static void record_renew(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value)
{
    records_latch *latch;
    bucket *b = bucket_latch(r, hash, &latch);
    if (b == NULL) return;
    unsigned slot = bucket_find(b, key, hash);
    if (slot < b->count) {
        kept_record *one = record_at(b, slot);
        if (one->value_size == value.size) {
            one->word = leaf.word;
            one->checksum = leaf.checksum;
            if (value.size > 0 && !RW_PLANTED(record_keeps_value)) memcpy(one->bytes + one->key_size, value.data, value.size);
        } else bucket_remove(b, slot);
    }
    kio_mutex_unlock(r->kio, &latch->mutex);
}

static void bucket_prefetch(const record_cache *r, uint64_t hash)
{
    uint32_t buckets = atomic_load_explicit(&r->buckets, memory_order_acquire);
    if (buckets == 0) return;
    const char *b = (const char *)bucket_at(r, bucket_index(hash, buckets)); /* whatever it is by then: it is only fetched */
    for (unsigned line = 0; line < 4; line++) __builtin_prefetch(b + line * RW_CACHE_LINE);
}

void records_renew(record_cache *r, page_ref leaf, const node *n)
{
    unsigned char key[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX];
    uint64_t hashes[RENEW_AHEAD];
    if (atomic_load_explicit(&r->buckets, memory_order_relaxed) == 0) return;
    for (unsigned from = 0; from < n->count; from += RENEW_AHEAD) {
        unsigned count = RW_MIN(n->count - from, RENEW_AHEAD);
        for (unsigned i = 0; i < count; i++) {
            node_key_copy(n, from + i, key);
            hashes[i] = hints_hash(rw_slice_of(key, node_key_length(n, from + i)));
            bucket_prefetch(r, hashes[i]);
        }
        for (unsigned i = 0; i < count; i++) {
            unsigned flags = 0;
            rw_slice value = node_value(n, r->pool->page_size, from + i, &flags);
            if ((flags & NODE_SLOT_EXTENT) != 0) value = rw_slice_of(NULL, SIZE_MAX); /* no record's size: it is removed */
            node_key_copy(n, from + i, key);
            record_renew(r, leaf, rw_slice_of(key, node_key_length(n, from + i)), hashes[i], value);
        }
    }
}

/* ---- how many buckets --------------------------------------------------------------------------------------------- */

/* Not the last ones that are free: others wait for what they take. */
static bool frame_borrow(record_cache *r, uint32_t index)
{
    RW_ASSERT(index < r->buckets_max);
    uint32_t f = atomic_load_explicit(&r->pool->free_count, memory_order_relaxed) > r->pool->free_low / 2 ? pool_frame_try(r->pool) : FRAME_NONE;
    if (f == FRAME_NONE) return false;
    bucket_init(pool_page(r->pool, f), r->pool->page_size);
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
    uint32_t lower = index - power_below(index);
    records_latch *latch = latch_of(r, index);
    RW_ASSERT(latch == latch_of(r, lower));
    kio_mutex_lock(r->kio, &latch->mutex);
    bucket_move(bucket_at(r, lower), bucket_at(r, index), index, index + 1);
    atomic_store_explicit(&r->buckets, index + 1, memory_order_release);
    kio_mutex_unlock(r->kio, &latch->mutex);
    return true;
}

static void table_shrink(record_cache *r)
{
    uint32_t index = atomic_load_explicit(&r->buckets, memory_order_relaxed) - 1, lower = index - power_below(index);
    records_latch *latch = latch_of(r, index);
    RW_ASSERT(latch == latch_of(r, lower));
    kio_mutex_lock(r->kio, &latch->mutex);
    bucket_move(bucket_at(r, index), bucket_at(r, lower), lower, index);
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
