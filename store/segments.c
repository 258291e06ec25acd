/*
 * Segments: which are free, how much is alive in each, where the next run goes. All of it in memory; a segment's states are drawn in the
 * README. Callers hold the store's mutex.
 */
#include <stdlib.h>

#include "store/store_internal.h"

static uint32_t words_for(uint32_t bits)
{
    return (bits + 63) / 64;
}

/* ---- the arrays ---- */

static bool array_grow(void *array, size_t item, uint32_t from, uint32_t to)
{
    unsigned char *grown = realloc(*(void **)array, item * to);
    if (grown == NULL) return false;
    memset(grown + item * from, 0, item * (to - from));
    *(void **)array = grown;
    return true;
}

/* Doubles, so that growing is cheap. An array that grew alone does no harm. */
int segments_reserve(segments *g, uint32_t count)
{
    if (count <= g->capacity) return 0;
    uint32_t capacity = RW_MIN(RW_MAX(count, RW_MAX(2 * g->capacity, 1024)), SEGMENTS_MAX);
    if (!array_grow(&g->live, sizeof *g->live, g->capacity, capacity) || !array_grow(&g->flags, sizeof *g->flags, g->capacity, capacity) ||
        !array_grow(&g->free_bits, sizeof *g->free_bits, words_for(g->capacity), words_for(capacity)))
        return rw_error(RW_ENOMEM, "no memory to account for %u segments of the data file", capacity);
    g->capacity = capacity;
    return 0;
}

int segments_init(segments *g, uint32_t count)
{
    RW_ASSERT(count >= 1 && count <= SEGMENTS_MAX);
    int result = segments_reserve(g, count);
    if (result != 0) return result;
    atomic_store_explicit(&g->count, count, memory_order_relaxed);
    g->flags[0].state = SEGMENT_RESERVED;
    for (uint32_t n = 1; n < count; n++) g->flags[n].state = SEGMENT_CLOSED;
    g->claiming = true;
    return 0;
}

void segments_free_all(segments *g)
{
    free(g->live);
    free(g->flags);
    free(g->free_bits);
    free(g->claimed);
}

bool segments_contain(const store *s, uint64_t address, uint64_t blocks)
{
    uint64_t end = (uint64_t)atomic_load_explicit(&s->segments.count, memory_order_relaxed) * SEGMENT_BLOCKS;
    return blocks > 0 && address >= SEGMENT_BLOCKS && address <= end && blocks <= end - address;
}

void segments_check(store *s)
{
    const segments *g = &s->segments;
    uint64_t live = 0, free_count = 0;
    for (uint32_t n = 0; n < g->count; n++) {
        bool free_bit = (g->free_bits[n / 64] >> n % 64 & 1) != 0;
        RW_ASSERT(g->live[n] <= SEGMENT_BLOCKS);
        RW_ASSERT(free_bit == (g->flags[n].state == SEGMENT_FREE));
        RW_ASSERT(!free_bit || (g->live[n] == 0 && n / 64 >= g->free_hint));
        live += g->live[n];
        free_count += free_bit;
    }
    RW_ASSERT(live == g->live_blocks && free_count == g->free_count);
    RW_ASSERT(g->live_blocks == g->allocated_blocks - g->released_blocks);
}

/* ---- changes of state ---- */

void segment_to_free(segments *g, uint32_t n)
{
    RW_ASSERT(n > 0 && g->live[n] == 0);
    if (g->flags[n].cleaning) g->cleaning_count--;
    g->flags[n] = (segment_flags){.state = SEGMENT_FREE};
    g->free_bits[n / 64] |= (uint64_t)1 << n % 64;
    g->free_count++;
    g->free_hint = RW_MIN(g->free_hint, n / 64);
}

static void segment_from_free(segments *g, uint32_t n, segment_state state)
{
    RW_ASSERT(g->flags[n].state == SEGMENT_FREE && g->live[n] == 0);
    g->flags[n] = (segment_flags){.state = (uint8_t)state};
    g->free_bits[n / 64] &= ~((uint64_t)1 << n % 64);
    g->free_count--;
}

static void segment_close(segments *g, uint32_t n)
{
    RW_ASSERT(g->flags[n].state == SEGMENT_OPEN);
    g->flags[n].state = SEGMENT_CLOSED;
    if (g->live[n] == 0) segment_to_free(g, n);
}

void segment_live_add(segments *g, uint32_t n, uint32_t blocks)
{
    g->live[n] += blocks;
    g->live_blocks += blocks;
    g->allocated_blocks += blocks;
    RW_ASSERT(g->live[n] <= SEGMENT_BLOCKS);
}

void segments_append(segments *g, uint32_t added)
{
    uint32_t count = g->count;
    RW_ASSERT(!g->claiming && count + added <= g->capacity);
    atomic_store_explicit(&g->count, count + added, memory_order_relaxed);
    for (uint32_t n = count; n < count + added; n++) segment_to_free(g, n);
}

uint32_t segments_cut(segments *g, uint32_t kept_free, uint32_t most)
{
    RW_ASSERT(!g->claiming);
    uint32_t count = g->count, kept = count;
    most = RW_MIN(most, g->free_count > kept_free ? g->free_count - kept_free : 0);
    while (kept > count - most && g->flags[kept - 1].state == SEGMENT_FREE) kept--;
    /* out of the file is: no bit, and a state that growing finds */
    for (uint32_t n = kept; n < count; n++) segment_from_free(g, n, SEGMENT_FREE);
    atomic_store_explicit(&g->count, kept, memory_order_relaxed);
    return count - kept;
}

/* ---- finding free segments ---- */

static uint32_t find_lowest(segments *g)
{
    for (uint32_t words = words_for(g->count); g->free_hint < words; g->free_hint++) {
        uint64_t word = g->free_bits[g->free_hint];
        if (word != 0) return g->free_hint * 64 + (uint32_t)__builtin_ctzll(word);
    }
    return 0;
}

/* The lowest run of wanted free segments; 0 when there is none: then *tail is how many are free at the file's end. */
static uint32_t find_consecutive(const segments *g, uint32_t wanted, uint32_t *tail)
{
    uint32_t run = 0;
    for (uint32_t n = g->free_hint * 64; n < g->count; n++) {
        uint64_t word = g->free_bits[n / 64];
        if (n % 64 == 0 && word == 0) {
            run = 0;
            n += 63;
        } else if ((word >> n % 64 & 1) == 0) {
            run = 0;
        } else if (++run == wanted) {
            return n + 1 - wanted;
        }
    }
    *tail = run;
    return 0;
}

/* ---- allocating: 0, or by how many segments the file is too short ---- */

static uint32_t allocate_spanning(store *s, uint32_t blocks, uint64_t *address)
{
    segments *g = &s->segments;
    uint32_t wanted = (blocks + SEGMENT_BLOCKS - 1) / SEGMENT_BLOCKS, tail = 0;
    uint32_t first = find_consecutive(g, wanted, &tail);
    if (first == 0) return wanted - tail;
    *address = (uint64_t)first * SEGMENT_BLOCKS;
    for (uint32_t n = first; n < first + wanted; n++) {
        uint32_t part = RW_MIN(blocks, SEGMENT_BLOCKS);
        segment_from_free(g, n, SEGMENT_CLOSED);
        g->flags[n].spanned = true;
        segment_live_add(g, n, part);
        blocks -= part;
    }
    return 0;
}

/* Opens the lowest free segment for the stream. Only when there is one is the old segment given up. */
static uint32_t stream_advance(store *s, store_stream stream)
{
    segments *g = &s->segments;
    uint32_t n = find_lowest(g);
    if (n == 0) return 1;
    segment_from_free(g, n, SEGMENT_OPEN);
    if (g->open[stream].segment != 0) segment_close(g, g->open[stream].segment);
    g->open[stream].segment = n;
    g->open[stream].used = 0;
    return 0;
}

uint32_t segments_allocate(store *s, store_stream stream, uint32_t blocks, uint64_t *address)
{
    segments *g = &s->segments;
    RW_ASSERT(blocks > 0 && stream < STORE_STREAMS && !g->claiming);
    if (blocks > SEGMENT_BLOCKS) return allocate_spanning(s, blocks, address);
    if (g->open[stream].segment == 0 || g->open[stream].used + blocks > SEGMENT_BLOCKS) {
        uint32_t needed = stream_advance(s, stream);
        if (needed > 0) return needed;
    }
    uint32_t n = g->open[stream].segment;
    *address = (uint64_t)n * SEGMENT_BLOCKS + g->open[stream].used;
    g->open[stream].used += blocks;
    segment_live_add(g, n, blocks);
    return 0;
}

/* As many units as the open segment has room for. */
static uint32_t segments_allocate_some(store *s, store_stream stream, uint32_t unit, uint32_t *units, uint64_t *address)
{
    const segments *g = &s->segments;
    RW_ASSERT(unit > 0 && unit <= SEGMENT_BLOCKS && *units > 0);
    uint32_t left = g->open[stream].segment == 0 ? 0 : SEGMENT_BLOCKS - g->open[stream].used;
    if (left < unit) left = SEGMENT_BLOCKS;
    uint32_t count = RW_MIN(*units, left / unit);
    uint32_t needed = segments_allocate(s, stream, count * unit, address);
    if (needed == 0) *units = count;
    return needed;
}

/* ---- releasing ---- */

/* The part of a run that lies in segment n, up to block `end` of it. */
static void release_part(segments *g, uint32_t n, uint32_t blocks, uint32_t end, bool give_back)
{
    RW_ASSERT(n > 0 && n < g->count && g->live[n] >= blocks);
    g->live[n] -= blocks;
    g->live_blocks -= blocks;
    g->released_blocks += blocks;
    if (g->flags[n].state == SEGMENT_CLOSED) {
        if (g->live[n] == 0) segment_to_free(g, n);
        return;
    }
    RW_ASSERT(g->flags[n].state == SEGMENT_OPEN);
    for (unsigned stream = 0; stream < STORE_STREAMS; stream++) {
        if (g->open[stream].segment != n) continue;
        RW_ASSERT(end <= g->open[stream].used);
        if (g->live[n] == 0)
            g->open[stream].used = 0;
        else if (give_back && end == g->open[stream].used)
            g->open[stream].used -= blocks;
    }
}

void segments_release(store *s, uint64_t address, uint32_t blocks, bool give_back)
{
    segments *g = &s->segments;
    RW_ASSERT(!g->claiming && segments_contain(s, address, blocks));
    while (blocks > 0) {
        uint32_t within = (uint32_t)(address % SEGMENT_BLOCKS), part = RW_MIN(blocks, SEGMENT_BLOCKS - within);
        release_part(g, (uint32_t)(address / SEGMENT_BLOCKS), part, within + part, give_back);
        address += part;
        blocks -= part;
    }
}

/* ---- the face ---- */

/* units: or NULL, for one of any length. */
static int allocate(store *s, store_stream stream, uint32_t unit, uint32_t *units, uint64_t *address)
{
    if (s->params.read_only) return rw_error(RW_EREADONLY, "%s is open read-only: no allocation", kio_file_path(s->file));
    for (int result = 0;;) {
        uint32_t needed = 0;
        kio_mutex_lock(s->k, &s->mutex);
        uint32_t count = s->segments.count;
        bool sealed = s->sealed;
        if (!sealed) needed = units == NULL ? segments_allocate(s, stream, unit, address) : segments_allocate_some(s, stream, unit, units, address);
        kio_mutex_unlock(s->k, &s->mutex);
        if (sealed) return rw_error(RW_ECLOSED, "%s is closed cleanly: no allocation", kio_file_path(s->file));
        if (needed == 0) return 0;
        if (result != 0) return result;
        result = segments_grow_since(s, count, needed);
        if (result != 0 && result != RW_ENOSPC) return result; /* on a full device segments may have come free meanwhile */
    }
}

int store_allocate(store *s, store_stream stream, uint32_t blocks, uint64_t *address)
{
    return allocate(s, stream, blocks, NULL, address);
}

int store_allocate_some(store *s, store_stream stream, uint32_t unit, uint32_t *units, uint64_t *address)
{
    return allocate(s, stream, unit, units, address);
}

void store_streams_end(store *s, uint32_t from)
{
    segments *g = &s->segments;
    kio_mutex_lock(s->k, &s->mutex);
    for (unsigned stream = 0; stream < STORE_STREAMS; stream++) {
        if (g->open[stream].segment < RW_MAX(from, 1u)) continue;
        segment_close(g, g->open[stream].segment);
        g->open[stream].segment = 0;
        g->open[stream].used = 0;
    }
    kio_mutex_unlock(s->k, &s->mutex);
}

void store_give_back(store *s, uint64_t address, uint32_t blocks)
{
    kio_mutex_lock(s->k, &s->mutex);
    RW_ASSERT(!s->sealed);
    segments_release(s, address, blocks, true);
    kio_mutex_unlock(s->k, &s->mutex);
}

void store_space_get(store *s, store_space *space)
{
    kio_mutex_lock(s->k, &s->mutex);
    space->segments = s->segments.count;
    space->segments_free = s->segments.free_count;
    space->segments_cleaning = s->segments.cleaning_count;
    space->file_bytes = (uint64_t)s->segments.count * RW_SEGMENT_BYTES;
    space->live_bytes = s->segments.live_blocks * RW_BLOCK_SIZE;
    kio_mutex_unlock(s->k, &s->mutex);
}

uint32_t store_segment_live(store *s, uint32_t segment)
{
    kio_mutex_lock(s->k, &s->mutex);
    uint32_t blocks = segment < s->segments.count ? s->segments.live[segment] : 0;
    kio_mutex_unlock(s->k, &s->mutex);
    return blocks * RW_BLOCK_SIZE;
}
