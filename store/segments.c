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

/* Room for count segments; doubles, so that growing is cheap. An array that grew alone does no harm. */
static int arrays_reserve(segments *g, uint32_t count)
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
    int result = arrays_reserve(g, count);
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

void segment_from_free(segments *g, uint32_t n, segment_state state)
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

/* ---- growing ---- */

static int grow_by(store *s, uint32_t wanted)
{
    segments *g = &s->segments;
    uint32_t count = g->count;
    int result = arrays_reserve(g, count + wanted);
    if (result != 0) return result;
    result = kio_file_allocate(s->k, s->file, (uint64_t)count * RW_SEGMENT_BYTES, (uint64_t)wanted * RW_SEGMENT_BYTES);
    if (result != 0) return result;
    atomic_store_explicit(&g->count, count + wanted, memory_order_relaxed);
    for (uint32_t n = count; n < count + wanted; n++) segment_to_free(g, n);
    return 0;
}

/* What a failed allocation may have added in part. A file left too long does no harm: its length counts again at the next open. */
static void grow_undo(store *s)
{
    char text[240];
    snprintf(text, sizeof text, "%s", rw_error_text());
    (void)kio_file_resize(s->k, s->file, (uint64_t)s->segments.count * RW_SEGMENT_BYTES);
    rw_error(RW_ENOSPC, "%s", text);
}

/* A larger file grows in larger steps, so that it stays in few pieces; on a full device by what is needed alone. */
static int segments_grow(store *s, uint32_t needed)
{
    uint32_t count = s->segments.count;
    if (needed > SEGMENTS_MAX - count) return rw_error(RW_ENOSPC, "%s has its greatest size, %u segments", kio_file_path(s->file), count);
    uint32_t step = RW_MIN(count / 16, (uint32_t)(GROW_BYTES_MAX / RW_SEGMENT_BYTES));
    step = RW_MIN(RW_MAX(step, needed), SEGMENTS_MAX - count);
    int result = grow_by(s, step);
    if (result == RW_ENOSPC) grow_undo(s);
    if (result == RW_ENOSPC && step > needed) {
        result = grow_by(s, needed);
        if (result == RW_ENOSPC) grow_undo(s);
    }
    return result;
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

/* ---- allocating ---- */

static int allocate_spanning(store *s, uint32_t blocks, uint64_t *address)
{
    segments *g = &s->segments;
    uint32_t wanted = (blocks + SEGMENT_BLOCKS - 1) / SEGMENT_BLOCKS, tail = 0;
    uint32_t first = find_consecutive(g, wanted, &tail);
    if (first == 0) {
        first = g->count - tail;
        int result = segments_grow(s, wanted - tail);
        if (result != 0) return result;
    }
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
static int stream_advance(store *s, store_stream stream)
{
    segments *g = &s->segments;
    uint32_t n = find_lowest(g);
    if (n == 0) {
        int result = segments_grow(s, 1);
        if (result != 0) return result;
        n = find_lowest(g);
    }
    segment_from_free(g, n, SEGMENT_OPEN);
    if (g->open[stream].segment != 0) segment_close(g, g->open[stream].segment);
    g->open[stream].segment = n;
    g->open[stream].used = 0;
    return 0;
}

int segments_allocate(store *s, store_stream stream, uint32_t blocks, uint64_t *address)
{
    segments *g = &s->segments;
    RW_ASSERT(blocks > 0 && stream < STORE_STREAMS && !g->claiming);
    if (blocks > SEGMENT_BLOCKS) return allocate_spanning(s, blocks, address);
    if (g->open[stream].segment == 0 || g->open[stream].used + blocks > SEGMENT_BLOCKS) {
        int result = stream_advance(s, stream);
        if (result != 0) return result;
    }
    uint32_t n = g->open[stream].segment;
    *address = (uint64_t)n * SEGMENT_BLOCKS + g->open[stream].used;
    g->open[stream].used += blocks;
    segment_live_add(g, n, blocks);
    return 0;
}

/* As many units as the open segment has room for. */
static int segments_allocate_some(store *s, store_stream stream, uint32_t unit, uint32_t *units, uint64_t *address)
{
    const segments *g = &s->segments;
    RW_ASSERT(unit > 0 && unit <= SEGMENT_BLOCKS && *units > 0);
    uint32_t left = g->open[stream].segment == 0 ? 0 : SEGMENT_BLOCKS - g->open[stream].used;
    if (left < unit) left = SEGMENT_BLOCKS;
    uint32_t count = RW_MIN(*units, left / unit);
    int result = segments_allocate(s, stream, count * unit, address);
    if (result == 0) *units = count;
    return result;
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

int store_allocate(store *s, store_stream stream, uint32_t blocks, uint64_t *address)
{
    if (s->params.read_only) return rw_error(RW_EREADONLY, "%s is open read-only: no allocation", kio_file_path(s->file));
    kio_mutex_lock(s->k, &s->mutex);
    int result = s->sealed ? rw_error(RW_ECLOSED, "%s is closed cleanly: no allocation", kio_file_path(s->file))
                           : segments_allocate(s, stream, blocks, address);
    kio_mutex_unlock(s->k, &s->mutex);
    return result;
}

int store_allocate_some(store *s, store_stream stream, uint32_t unit, uint32_t *units, uint64_t *address)
{
    if (s->params.read_only) return rw_error(RW_EREADONLY, "%s is open read-only: no allocation", kio_file_path(s->file));
    kio_mutex_lock(s->k, &s->mutex);
    int result = s->sealed ? rw_error(RW_ECLOSED, "%s is closed cleanly: no allocation", kio_file_path(s->file))
                           : segments_allocate_some(s, stream, unit, units, address);
    kio_mutex_unlock(s->k, &s->mutex);
    return result;
}

void store_streams_end(store *s)
{
    segments *g = &s->segments;
    kio_mutex_lock(s->k, &s->mutex);
    for (unsigned stream = 0; stream < STORE_STREAMS; stream++) {
        if (g->open[stream].segment != 0) segment_close(g, g->open[stream].segment);
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
