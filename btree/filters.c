#include "btree/filters.h"

#include "base/planted.h"
#include "btree/hints.h"

#define TAG_VERSION 63u                /* the tag's lower bits */
#define TAG_KEY_SHIFT 6u
#define FILTER_PROBES 6u
#define PROBE_BITS 10u                 /* of the mixed hash, for each probe */
#define CELL_BITS (64u * FILTER_CELL_WORDS)
#define GROW_SHARE_NUMBER 2u           /* a chunk is added when more than 2/3 of all cells are in use */
#define GROW_SHARE_OF 3u
#define FULL_SHARE_NUMBER 7u           /* a table that can grow no more is full with so many */
#define FULL_SHARE_OF 8u

typedef struct {
    uint64_t words[FILTER_CELL_WORDS];
} cell_bits;

int filters_open(filters *f, pool *p, uint32_t page_size, uint32_t frames_max)
{
    _Static_assert(RW_PAGE_SIZE_MIN % sizeof(filter_bucket) == 0, "a chunk is made of whole buckets");
    memset(f, 0, sizeof *f);
    f->pool = p;
    f->chunks_max = frames_max;
    f->chunk_buckets = page_size / (uint32_t)sizeof(filter_bucket);
    f->bytes = frames_max * sizeof *f->frames;
    f->frames = calloc(RW_MAX(frames_max, 1u), sizeof *f->frames);
    return f->frames != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for a table of %u frames of filters", frames_max);
}

void filters_close(filters *f)
{
    free((void *)f->frames);
    f->frames = NULL;
}

/* ---- what a leaf's cells are ------------------------------------------------------------------------------------- */

static unsigned ref_cells(page_ref ref)
{
    uint32_t records = page_ref_records(ref);
    return RW_MIN(RW_MAX((records + FILTER_CELL_KEYS - 1) / FILTER_CELL_KEYS, 1u), FILTER_CELLS_MAX);
}

static unsigned key_cell(uint64_t hash, unsigned cells)
{
    return (unsigned)((hash >> 32) * cells >> 32);
}

/* Two images share it once in 2^58. */
static uint64_t cell_key(page_ref ref, unsigned cells, unsigned cell)
{
    uint64_t checksum = RW_PLANTED(filter_of_old_image) ? 0 : ref.checksum;
    uint64_t mixed = ref.word * 0x9e3779b97f4a7c15u ^ (checksum << 32 | cells << 16 | cell) * 0xd6e8feb86659fd93u;
    mixed = (mixed ^ mixed >> 32) * 0xd6e8feb86659fd93u;
    mixed = (mixed ^ mixed >> 29) * 0x9e3779b97f4a7c15u;
    return RW_MAX((mixed ^ mixed >> 32) >> TAG_KEY_SHIFT, 1u);
}

static cell_bits key_bits(uint64_t hash)
{
    cell_bits bits = {{0}};
    uint64_t draws = (hash ^ hash >> 29) * 0xd6e8feb86659fd93u;
    _Static_assert(FILTER_PROBES * PROBE_BITS <= 64 && CELL_BITS <= 1u << PROBE_BITS, "bits for all probes");
    for (unsigned i = 0; i < FILTER_PROBES; i++, draws >>= PROBE_BITS) {
        unsigned bit = (unsigned)(draws & ((1u << PROBE_BITS) - 1)) * CELL_BITS >> PROBE_BITS;
        bits.words[bit / 64] |= (uint64_t)1 << bit % 64;
    }
    return bits;
}

/* ---- places ------------------------------------------------------------------------------------------------------ */

static filter_bucket *chunk_at(const filters *f, uint32_t chunk)
{
    return pool_page(f->pool, atomic_load_explicit(&f->frames[chunk], memory_order_relaxed));
}

typedef struct {
    filter_bucket *bucket[FILTER_CHOICES];
} filter_places;

/* With a count of chunks between two powers of two, what belongs to those still to come lies with their lower halves. False: there is no table. */
static bool key_places(const filters *f, uint64_t key, filter_places *out)
{
    uint32_t chunks = atomic_load_explicit(&f->chunks, memory_order_acquire);
    if (chunks == 0) return false;
    uint32_t power = rw_power_below(chunks);
    for (unsigned i = 0; i < FILTER_CHOICES; i++, key *= 0x9e3779b97f4a7c15u) {
        uint32_t chunk = (uint32_t)(key >> 20) & (2 * power - 1);
        if (chunk >= chunks) chunk &= power - 1;
        out->bucket[i] = chunk_at(f, chunk) + (key >> 10 & (f->chunk_buckets - 1));
    }
    return true;
}

/* ---- one cell ---------------------------------------------------------------------------------------------------- */

/* As an optimistic read of a page, the tag being the version. Its own version keeps a cell that was overwritten, and then again by the same, from being taken for one
 * that stayed. */
static bool cell_read(const filter_cell *cell, uint64_t key, cell_bits *out)
{
    uint64_t tag = atomic_load_explicit(&cell->tag, memory_order_acquire);
    if (tag >> TAG_KEY_SHIFT != key) return false;
    for (unsigned i = 0; i < FILTER_CELL_WORDS; i++) out->words[i] = atomic_load_explicit(&cell->bits[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&cell->tag, memory_order_relaxed) == tag;
}

/* key 0: empties it. False: somebody else has changed it, or does so now. */
static bool cell_write(filters *f, filter_cell *cell, uint64_t tag, uint64_t key, const cell_bits *bits)
{
    uint64_t busy = (tag + 1) & TAG_VERSION;
    if ((tag & 1) != 0 || !atomic_compare_exchange_strong_explicit(&cell->tag, &tag, busy, memory_order_acquire, memory_order_relaxed)) return false;
    atomic_thread_fence(memory_order_release);
    if (key != 0)
        for (unsigned i = 0; i < FILTER_CELL_WORDS; i++) atomic_store_explicit(&cell->bits[i], bits->words[i], memory_order_relaxed);
    atomic_store_explicit(&cell->tag, key << TAG_KEY_SHIFT | ((busy + 1) & TAG_VERSION), memory_order_release);
    bool was_used = tag >> TAG_KEY_SHIFT != 0;
    if (!was_used && key != 0) atomic_fetch_add_explicit(&f->used, 1, memory_order_relaxed);
    if (was_used && key == 0) atomic_fetch_sub_explicit(&f->used, 1, memory_order_relaxed);
    return true;
}

static filter_cell *bucket_find(filter_bucket *bucket, uint64_t key)
{
    for (unsigned way = 0; way < FILTER_WAYS; way++)
        if (atomic_load_explicit(&bucket->cells[way].tag, memory_order_relaxed) >> TAG_KEY_SHIFT == key) return &bucket->cells[way];
    return NULL;
}

static filter_cell *places_find(const filter_places *places, uint64_t key)
{
    filter_cell *cell = NULL;
    for (unsigned i = 0; i < FILTER_CHOICES && cell == NULL; i++) cell = bucket_find(places->bucket[i], key);
    return cell;
}

static unsigned bucket_empty(const filter_bucket *bucket)
{
    unsigned count = 0;
    for (unsigned way = 0; way < FILTER_WAYS; way++) count += atomic_load_explicit(&bucket->cells[way].tag, memory_order_relaxed) >> TAG_KEY_SHIFT == 0;
    return count;
}

static filter_cell *places_empty(const filter_places *places)
{
    return bucket_find(places->bucket[bucket_empty(places->bucket[0]) < bucket_empty(places->bucket[1])], 0);
}

/* Copies a cell to its other bucket, if there is room: its place may be overwritten then. */
static bool cell_copy_away(filters *f, const filter_cell *cell)
{
    filter_places places;
    cell_bits bits;
    uint64_t key = atomic_load_explicit(&cell->tag, memory_order_relaxed) >> TAG_KEY_SHIFT;
    if (key == 0 || !key_places(f, key, &places)) return true;
    filter_cell *to = places_empty(&places);
    if (to == NULL || !cell_read(cell, key, &bits)) return false;
    return cell_write(f, to, atomic_load_explicit(&to->tag, memory_order_relaxed), key, &bits);
}

/* In the emptier bucket; or in the place of one that could go elsewhere; or of any other. */
static void places_put(filters *f, const filter_places *places, uint64_t key, const cell_bits *bits)
{
    filter_cell *place = places_empty(places), *others = places->bucket[key & (FILTER_CHOICES - 1)]->cells;
    for (unsigned way = 0; way < FILTER_WAYS && place == NULL; way++)
        if (cell_copy_away(f, &others[way])) place = &others[way];
    if (place == NULL) place = &others[(key >> 1) % FILTER_WAYS];
    cell_write(f, place, atomic_load_explicit(&place->tag, memory_order_relaxed), key, bits);
}

/* ---- growing ----------------------------------------------------------------------------------------------------- */

/* A chunk was added: what it takes over lies in one other chunk. Who reads meanwhile may find nothing; what is put into the old one by somebody who did not see the
 * new one is lost. */
static void chunk_fill(filters *f, uint32_t chunk)
{
    filter_bucket *from = chunk_at(f, chunk - rw_power_below(chunk));
    for (uint32_t i = 0; i < f->chunk_buckets * FILTER_WAYS; i++) {
        filter_cell *cell = &from[i / FILTER_WAYS].cells[i % FILTER_WAYS];
        cell_bits bits;
        filter_places places;
        uint64_t tag = atomic_load_explicit(&cell->tag, memory_order_relaxed), key = tag >> TAG_KEY_SHIFT;
        if (key == 0 || !key_places(f, key, &places) || places_find(&places, key) != NULL) continue;
        if (cell_read(cell, key, &bits)) places_put(f, &places, key, &bits);
        cell_write(f, cell, tag, 0, NULL);
    }
}

static uint64_t chunks_cells(const filters *f, uint32_t chunks)
{
    return (uint64_t)chunks * f->chunk_buckets * FILTER_WAYS;
}

static bool table_is_full(const filters *f)
{
    return atomic_load_explicit(&f->used, memory_order_relaxed) * FULL_SHARE_OF >= chunks_cells(f, f->chunks_max) * FULL_SHARE_NUMBER;
}

static void table_grow(filters *f)
{
    uint32_t chunks = atomic_load_explicit(&f->chunks, memory_order_relaxed), taken, idle = 0;
    uint64_t used = atomic_load_explicit(&f->used, memory_order_relaxed);
    if (chunks >= f->chunks_max || used * GROW_SHARE_OF < chunks_cells(f, chunks) * GROW_SHARE_NUMBER) return;
    if (!atomic_compare_exchange_strong(&f->growing, &idle, 1)) return;
    chunks = atomic_load(&f->chunks);
    taken = chunks < f->chunks_max ? pool_frame_try(f->pool) : FRAME_NONE;
    if (taken != FRAME_NONE) {
        memset(pool_page(f->pool, taken), 0, f->pool->page_size);
        atomic_store_explicit(&f->frames[chunks], taken, memory_order_relaxed);
        atomic_store_explicit(&f->chunks, chunks + 1, memory_order_release);
        if (chunks > 0) chunk_fill(f, chunks);
    }
    atomic_store(&f->growing, 0);
}

/* ---- leaves ------------------------------------------------------------------------------------------------------ */

static bool cells_present(const filters *f, page_ref ref, unsigned cells)
{
    for (unsigned i = 0; i < cells; i++) {
        filter_places places;
        uint64_t key = cell_key(ref, cells, i);
        if (!key_places(f, key, &places) || places_find(&places, key) == NULL) return false;
    }
    return true;
}

static void cells_make(const node *leaf, unsigned cells, cell_bits *out)
{
    unsigned char key[RW_PAGE_SIZE_MAX / 4];
    rw_slice prefix = node_prefix(leaf);
    unsigned count = RW_PLANTED(filter_lacks_key) && leaf->count > 0 ? leaf->count - 1u : leaf->count;
    memset(out, 0, cells * sizeof *out);
    RW_ASSERT(prefix.size <= sizeof key);
    memcpy(key, prefix.data, prefix.size);
    for (unsigned slot = 0; slot < count; slot++) {
        rw_slice rest = node_key_rest(leaf, slot);
        RW_ASSERT(prefix.size + rest.size <= sizeof key);
        memcpy(key + prefix.size, rest.data, rest.size);
        uint64_t hash = hints_hash(rw_slice_of(key, prefix.size + rest.size));
        cell_bits bits = key_bits(hash);
        cell_bits *cell = &out[key_cell(hash, cells)];
        for (unsigned i = 0; i < FILTER_CELL_WORDS; i++) cell->words[i] |= bits.words[i];
    }
}

void filters_keep(filters *f, page_ref ref, const node *leaf)
{
    cell_bits bits[FILTER_CELLS_MAX];
    unsigned cells = ref_cells(ref);
    RW_ASSERT(!page_ref_is_frame(ref) && !page_ref_is_none(ref) && leaf->page.level == 0);
    if (cells_present(f, ref, cells)) return;
    table_grow(f);
    cells_make(leaf, cells, bits);
    for (unsigned i = 0; i < cells; i++) {
        filter_places places;
        uint64_t key = cell_key(ref, cells, i);
        if (key_places(f, key, &places) && places_find(&places, key) == NULL) places_put(f, &places, key, &bits[i]);
    }
}

void filters_keep_loaded(filters *f, page_ref ref, const node *leaf)
{
    if (atomic_load_explicit(&f->pool->counters.pages_evicted, memory_order_relaxed) == 0) return;
    if (filters_wanted(f) || !table_is_full(f)) filters_keep(f, ref, leaf);
}

void filters_keep_evicted(filters *f, page_ref ref, const node *leaf)
{
    uint32_t wanted = atomic_load_explicit(&f->wanted, memory_order_relaxed);
    if (wanted == 0) return;
    atomic_store_explicit(&f->wanted, wanted - 1, memory_order_relaxed);
    filters_keep(f, ref, leaf);
}

void filters_drop(filters *f, page_ref ref)
{
    unsigned cells = ref_cells(ref);
    if (RW_PLANTED(filter_of_old_image)) return;
    for (unsigned i = 0; i < cells; i++) {
        filter_places places;
        uint64_t key = cell_key(ref, cells, i);
        filter_cell *cell = key_places(f, key, &places) ? places_find(&places, key) : NULL;
        if (cell == NULL) continue;
        uint64_t tag = atomic_load_explicit(&cell->tag, memory_order_relaxed);
        if (tag >> TAG_KEY_SHIFT == key) cell_write(f, cell, tag, 0, NULL);
    }
}

filter_answer filters_ask(const filters *f, page_ref ref, uint64_t hash)
{
    if (!filters_wanted(f)) return FILTER_UNKNOWN;
    filter_places places;
    unsigned cells = ref_cells(ref);
    uint64_t key = cell_key(ref, cells, key_cell(hash, cells));
    if (!key_places(f, key, &places)) return FILTER_UNKNOWN;
    for (unsigned i = 0; i < FILTER_CHOICES; i++) __builtin_prefetch(places.bucket[i]), __builtin_prefetch((const char *)places.bucket[i] + RW_CACHE_LINE);
    cell_bits wanted = key_bits(hash), bits;
    for (unsigned i = 0; i < FILTER_CHOICES * FILTER_WAYS; i++) {
        if (!cell_read(&places.bucket[i / FILTER_WAYS]->cells[i % FILTER_WAYS], key, &bits)) continue;
        uint64_t lacking = 0;
        for (unsigned w = 0; w < FILTER_CELL_WORDS; w++) lacking |= wanted.words[w] & ~bits.words[w];
        return lacking != 0 ? FILTER_ABSENT : FILTER_MAYBE;
    }
    return FILTER_UNKNOWN;
}

filter_figures filters_figures(const filters *f)
{
    uint32_t chunks = atomic_load_explicit(&f->chunks, memory_order_relaxed);
    filter_figures sum = {.bytes = (uint64_t)chunks * f->pool->page_size};
    for (unsigned i = 0; i < FILTER_COUNTERS; i++) {
        sum.absent += atomic_load_explicit(&f->counters[i].absent, memory_order_relaxed);
        sum.vain += atomic_load_explicit(&f->counters[i].vain, memory_order_relaxed);
    }
    return sum;
}
