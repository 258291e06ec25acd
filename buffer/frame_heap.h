/*
 * Memory for small objects, made of frames of the buffer pool: what it takes, the cache gives up, so options.cache_bytes stays the limit of both.
 *
 * An arena hands out pieces of its current frame from front to back. A frame goes back to the pool when the last piece in it was freed and the arena has gone
 * on to another one. So objects that die in about the order in which they were made waste little.
 */
#ifndef RW_FRAME_HEAP_H
#define RW_FRAME_HEAP_H

#include "buffer/buffer.h"

/* All arenas' frames together. */
typedef struct {
    pool *pool;
    _Atomic uint64_t frames;       /* taken from the pool and not given back */
} frame_heap;

/* One allocator: its calls are serialised by its owner's lock. Zero-initialised: empty. */
typedef struct {
    uint32_t frame;                /* + 1; 0: none */
    uint32_t used;                 /* bytes of it */
} frame_arena;

void frame_heap_init(frame_heap *heap, pool *p);
static inline uint64_t frame_heap_bytes(const frame_heap *heap)
{
    return atomic_load_explicit(&heap->frames, memory_order_relaxed) * heap->pool->page_size;
}
/* The largest object. */
size_t frame_heap_object_max(const frame_heap *heap);

/* size bytes, aligned to 8; NULL: the arena's frame has no room for that, it must be fed first. */
void *frame_arena_allocate(frame_heap *heap, frame_arena *arena, size_t size);
bool frame_arena_has_room(const frame_heap *heap, const frame_arena *arena, size_t size);
/* Gives the arena a frame that came from pool_frame_try, pool_frame_take or a tree_writer's reserve. */
void frame_arena_feed(frame_heap *heap, frame_arena *arena, uint32_t index);
/* Any thread; the object may have come from any arena of the heap. */
void frame_heap_free(frame_heap *heap, void *object);
/* The arena lets its current frame go; objects in it stay good until they are freed. */
void frame_arena_close(frame_heap *heap, frame_arena *arena);

#endif
