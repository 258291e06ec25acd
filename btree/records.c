#include "base/planted.h"
#include "btree/hints.h"
#include "btree/records_internal.h"

#define RECORD_DIVISOR 8u              /* of a page: the largest record that is kept */
#define RECENT_TIME_BITS 12u           /* of a word that remembers a leaf: when it was read, in reads for gets */
#define RECENT_TIME_MASK ((1u << RECENT_TIME_BITS) - 1)
#define NEAR_LOADS 64u                 /* a leaf that is read again within so many reads is one of neighbouring keys */
#define NEAR_GAIN 16u                  /* for each such leaf, against 1 lost for each other one */
#define NEAR_MAX 1024u
#define NEAR_MANY 128u                 /* from here on it is usual */
#define RENEW_AHEAD 32u                /* keys of a leaf that are looked for side by side */
#define TEND_EVERY 64u                 /* reads for gets */

int records_open(record_cache *r, kio *k, pool *p, pending *pg, uint32_t page_size, uint32_t frames_max)
{
    memset(r, 0, sizeof *r);
    r->kio = k;
    r->pool = p;
    r->pending = pg;
    r->record_max = page_size / RECORD_DIVISOR;
    r->buckets_max = frames_max < RW_RECORDS_LATCHES ? 0 : frames_max;
    r->bytes = r->buckets_max * (sizeof *r->frames + RECORDS_FILTER_WORDS * sizeof *r->filters);
    r->frames = calloc(RW_MAX(r->buckets_max, 1u), sizeof *r->frames);
    r->filters = calloc(RW_MAX(r->buckets_max, 1u), RECORDS_FILTER_WORDS * sizeof *r->filters);
    if (r->frames != NULL && r->filters != NULL) return 0;
    records_close(r);
    return rw_error(RW_ENOMEM, "no memory for a table of %u frames of records", frames_max);
}

void records_close(record_cache *r)
{
    free((void *)r->frames);
    free((void *)r->filters);
    r->frames = NULL;
    r->filters = NULL;
}

/* ---- buckets ------------------------------------------------------------------------------------------------------ */

/* The key's bucket, latched; NULL: there are none. Under the latch it stays the key's: whoever splits it, or takes it away, has the latch. */
static bucket *bucket_latch(record_cache *r, uint64_t hash, records_latch **latch, uint32_t *at)
{
    for (;;) {
        uint32_t buckets = atomic_load_explicit(&r->buckets, memory_order_acquire);
        if (buckets == 0) return NULL;
        uint32_t index = *at = bucket_index(hash, buckets);
        *latch = latch_of(r, index);
        kio_mutex_lock(r->kio, &(*latch)->mutex);
        buckets = atomic_load_explicit(&r->buckets, memory_order_acquire);
        if (buckets > 0 && bucket_index(hash, buckets) == index) return bucket_at(r, index);
        kio_mutex_unlock(r->kio, &(*latch)->mutex);
    }
}

/* ---- reading, keeping --------------------------------------------------------------------------------------------- */

static bool is_of_image(const kept_record *one, page_ref leaf)
{
    return RW_PLANTED(record_of_old_image) || (one->word == leaf.word && one->checksum == leaf.checksum);
}

bool records_get(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, void *buf, size_t room, pending_value *out)
{
    records_latch *latch;
    uint32_t index, buckets = atomic_load_explicit(&r->buckets, memory_order_acquire);
    if (buckets == 0 || !filter_may_have(r, hash, buckets)) return false; /* a bucket that has none is not fetched from memory; one that comes now is found the next time */
    bucket *b = bucket_latch(r, hash, &latch, &index);
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

/* In the place of what is there for the key. moments: or NULL. False: there is no table, or it is another moment by now: who raised that looks into all buckets that concern him after that. */
static bool record_put(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value, uint8_t used, const _Atomic uint32_t *moments, uint32_t moment)
{
    records_latch *latch;
    uint32_t index;
    bucket *b = bucket_latch(r, hash, &latch, &index);
    if (b == NULL) return false;
    if (moments != NULL && atomic_load(moments) != moment) {
        kio_mutex_unlock(r->kio, &latch->mutex);
        return false;
    }
    unsigned slot = bucket_find(b, key, hash);
    if (slot < b->count) {
        used = RW_MAX(used, b->slots[slot].used);
        bucket_remove(b, slot);
    }
    bucket_make_room(b, record_bytes(key.size, value.size) + (uint32_t)sizeof(bucket_slot), latch);
    bucket_add(b, leaf, hash, key, value, used);
    filter_make(r, index, b);
    kio_mutex_unlock(r->kio, &latch->mutex);
    return true;
}

bool records_keep(record_cache *r, page_ref leaf, const node *n, uint64_t hash, const _Atomic uint32_t *moments, uint32_t moment)
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
    return record_put(r, leaf, rw_slice_of(key, key_size), hash, value, 0, moments, moment) && !leaf_stays(r, leaf, now);
}

static void record_renew(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value)
{
    records_latch *latch;
    uint32_t index;
    bucket *b = bucket_latch(r, hash, &latch, &index);
    if (b == NULL) return;
    unsigned slot = bucket_find(b, key, hash);
    if (slot < b->count) {
        kept_record *one = record_at(b, slot);
        if (one->value_size == value.size) {
            one->word = leaf.word;
            one->checksum = leaf.checksum;
            if (value.size > 0 && !RW_PLANTED(record_keeps_value)) memcpy(one->bytes + one->key_size, value.data, value.size);
        } else {
            bucket_remove(b, slot);
            filter_make(r, index, b);
        }
    }
    kio_mutex_unlock(r->kio, &latch->mutex);
}

void records_keep_made(record_cache *r, rw_slice key, rw_slice value)
{
    if (atomic_load_explicit(&r->buckets, memory_order_relaxed) != 0) (void)record_put(r, page_ref_none(), key, hints_hash(key), value, 1, NULL, 0);
}

void records_spilled(record_cache *r, page_ref leaf, rw_slice key, uint64_t hash, rw_slice value, bool asked)
{
    if (atomic_load_explicit(&r->buckets, memory_order_relaxed) == 0) return;
    if (asked) (void)record_put(r, leaf, key, hash, value, 1, NULL, 0);
    else record_renew(r, leaf, key, hash, value);
}

/* Slots [first, end) of n, at most RENEW_AHEAD: what may be here is noted. In passes, each of which fetches from memory what the next one looks at, whatever that is by then. Returns how many. */
static unsigned renew_look(const record_cache *r, const node *n, unsigned first, unsigned end, unsigned *slots, uint64_t *hashes)
{
    unsigned char key[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX];
    uint32_t buckets = atomic_load_explicit(&r->buckets, memory_order_acquire);
    unsigned found = 0;
    if (buckets == 0) return 0;
    for (unsigned slot = first; slot < end; slot++) {
        node_key_copy(n, slot, key);
        hashes[slot - first] = hints_hash(rw_slice_of(key, node_key_length(n, slot)));
        __builtin_prefetch((const void *)&r->filters[(size_t)bucket_index(hashes[slot - first], buckets) * RECORDS_FILTER_WORDS]);
    }
    for (unsigned slot = first; slot < end; slot++) {
        uint64_t hash = hashes[slot - first];
        if (!filter_may_have(r, hash, buckets)) continue;
        const char *b = (const char *)bucket_at(r, bucket_index(hash, buckets));
        for (unsigned line = 0; line < 4; line++) __builtin_prefetch(b + line * RW_CACHE_LINE);
        slots[found] = slot;
        hashes[found++] = hash;
    }
    return found;
}

/* One that comes meanwhile, of an image that is none of the leaf's any more, is looked for by nobody. */
void records_renew(record_cache *r, page_ref leaf, const node *n)
{
    unsigned char key[RW_PAGE_SIZE_MAX / 4 + RW_BUCKET_PREFIX];
    uint64_t hashes[RENEW_AHEAD];
    unsigned slots[RENEW_AHEAD];
    for (unsigned first = 0; first < n->count; first += RENEW_AHEAD) {
        unsigned found = renew_look(r, n, first, RW_MIN(first + RENEW_AHEAD, n->count), slots, hashes);
        for (unsigned i = 0; i < found; i++) {
            unsigned flags = 0;
            rw_slice value = node_value(n, r->pool->page_size, slots[i], &flags);
            if ((flags & NODE_SLOT_EXTENT) != 0) value = rw_slice_of(NULL, SIZE_MAX); /* no record's size: it is removed */
            node_key_copy(n, slots[i], key);
            record_renew(r, leaf, rw_slice_of(key, node_key_length(n, slots[i])), hashes[i], value);
        }
    }
}
