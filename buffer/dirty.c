/* Dirty lists: for each partition and level, pages in the order in which they became dirty, so that a checkpoint takes them from the head. */
#include "buffer/buffer.h"

static void list_append(pool *p, dirty_list *list, uint32_t f)
{
    frame *fr = &p->frames[f];
    fr->dirty_next = FRAME_NONE;
    fr->dirty_previous = list->tail;
    if (list->tail == FRAME_NONE) list->head = f;
    else p->frames[list->tail].dirty_next = f;
    list->tail = f;
}

static void list_remove(pool *p, dirty_list *list, uint32_t f)
{
    frame *fr = &p->frames[f];
    if (fr->dirty_previous == FRAME_NONE) list->head = fr->dirty_next;
    else p->frames[fr->dirty_previous].dirty_next = fr->dirty_next;
    if (fr->dirty_next == FRAME_NONE) list->tail = fr->dirty_previous;
    else p->frames[fr->dirty_next].dirty_previous = fr->dirty_previous;
}

void pool_mark_dirty(pool *p, partition *part, uint32_t f)
{
    while (f != FRAME_NONE) {
        frame *fr = &p->frames[f];
        RW_ASSERT(fr->level < TREE_LEVELS_MAX);
        RW_ASSERT(atomic_load_explicit(&fr->partition, memory_order_relaxed) == part->index);
        if ((fr->flags & FRAME_DIRTY) != 0) return; /* and so is everything above it (B3) */
        fr->flags |= FRAME_DIRTY;
        fr->dirty_epoch = part->epoch;
        list_append(p, &part->dirty[fr->level], f);
        part->dirty_count++;
        atomic_fetch_add_explicit(&p->dirty_count, 1, memory_order_relaxed);
        f = fr->parent;
    }
}

void pool_mark_clean(pool *p, partition *part, uint32_t f)
{
    frame *fr = &p->frames[f];
    if ((fr->flags & FRAME_DIRTY) == 0) return;
    fr->flags &= (uint8_t)~FRAME_DIRTY;
    list_remove(p, &part->dirty[fr->level], f);
    part->dirty_count--;
    atomic_fetch_sub_explicit(&p->dirty_count, 1, memory_order_relaxed);
}

void pool_dirty_move(pool *p, partition *from, partition *to)
{
    for (unsigned level = 0; level < TREE_LEVELS_MAX; level++) {
        uint32_t next;
        for (uint32_t f = from->dirty[level].head; f != FRAME_NONE; f = next) {
            next = p->frames[f].dirty_next;
            if (atomic_load_explicit(&p->frames[f].partition, memory_order_relaxed) != to->index) continue;
            list_remove(p, &from->dirty[level], f);
            list_append(p, &to->dirty[level], f);
            from->dirty_count--;
            to->dirty_count++;
        }
    }
}
