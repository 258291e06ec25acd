#include "buffer/frame_heap.h"

/* In front of each frame of objects. An object finds it by its own address: frames are page_size bytes each, from pool.arena on. */
typedef struct {
    _Atomic uint32_t references;       /* objects alive, and one while it is an arena's current frame */
    uint32_t zero;
} heap_frame;

_Static_assert(sizeof(heap_frame) == 8, "objects stay aligned");

static heap_frame *heap_frame_at(const frame_heap *heap, uint32_t index)
{
    return pool_page(heap->pool, index);
}

static size_t object_size(size_t size)
{
    return (size_t)rw_align_up(size, 8);
}

void frame_heap_init(frame_heap *heap, pool *p)
{
    heap->pool = p;
    atomic_init(&heap->frames, 0);
}

size_t frame_heap_object_max(const frame_heap *heap)
{
    return heap->pool->page_size - sizeof(heap_frame);
}

static void heap_frame_release(frame_heap *heap, uint32_t index)
{
    /* what others wrote to their objects must be over before the frame becomes a page */
    uint32_t before = atomic_fetch_sub_explicit(&heap_frame_at(heap, index)->references, 1, memory_order_acq_rel);
    RW_ASSERT(before != 0);
    if (before > 1) return;
    atomic_fetch_sub_explicit(&heap->frames, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&heap->pool->lent, 1, memory_order_relaxed);
    pool_frame_free(heap->pool, index);
}

bool frame_arena_has_room(const frame_heap *heap, const frame_arena *arena, size_t size)
{
    return arena->frame != 0 && heap->pool->page_size - arena->used >= object_size(size);
}

void *frame_arena_allocate(frame_heap *heap, frame_arena *arena, size_t size)
{
    RW_ASSERT(size > 0 && object_size(size) <= frame_heap_object_max(heap));
    if (!frame_arena_has_room(heap, arena, size)) return NULL;
    heap_frame *header = heap_frame_at(heap, arena->frame - 1);
    void *object = (unsigned char *)header + arena->used;
    arena->used += (uint32_t)object_size(size);
    atomic_fetch_add_explicit(&header->references, 1, memory_order_relaxed);
    return object;
}

void frame_arena_feed(frame_heap *heap, frame_arena *arena, uint32_t index)
{
    RW_ASSERT(index < heap->pool->frame_count);
    frame_arena_close(heap, arena);
    heap_frame *header = heap_frame_at(heap, index);
    header->zero = 0;
    atomic_init(&header->references, 1);
    atomic_fetch_add_explicit(&heap->frames, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&heap->pool->lent, 1, memory_order_relaxed);
    *arena = (frame_arena){.frame = index + 1, .used = sizeof *header};
}

void frame_heap_free(frame_heap *heap, void *object)
{
    size_t offset = (size_t)((unsigned char *)object - heap->pool->arena);
    uint32_t index = (uint32_t)(offset / heap->pool->page_size);
    RW_ASSERT(index < heap->pool->frame_count && offset % heap->pool->page_size >= sizeof(heap_frame));
    heap_frame_release(heap, index);
}

void frame_arena_close(frame_heap *heap, frame_arena *arena)
{
    if (arena->frame == 0) return;
    uint32_t index = arena->frame - 1;
    *arena = (frame_arena){0};
    heap_frame_release(heap, index);
}
