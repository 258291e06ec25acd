/* Write-back: images of dirty pages gathered in one buffer, placed one behind the other, written at once. */
#include "base/memory.h"
#include "base/preempt.h"
#include "buffer/buffer.h"
#include "buffer/buffer_internal.h"

#define RETAKE_SPINS 100u              /* about 2 us: a write or two of somebody else's; */
#define RETAKE_YIELDS 256u             /* about 100 us: a large commit */

int write_batch_init(write_batch *batch, uint32_t page_size, uint32_t pages_max)
{
    memset(batch, 0, sizeof *batch);
    batch->capacity = RW_MAX(RW_MIN(RW_WRITE_BATCH_BYTES / page_size, pages_max), 1u);
    batch->buffer = rw_memory_aligned(RW_WRITE_BATCH_BYTES);
    batch->scratch = rw_memory_aligned(page_size);
    batch->frames = calloc(batch->capacity, sizeof *batch->frames);
    if (batch->buffer != NULL && batch->scratch != NULL && batch->frames != NULL) return 0;
    write_batch_destroy(batch);
    return rw_error(RW_ENOMEM, "no memory for write-back");
}

void write_batch_destroy(write_batch *batch)
{
    free(batch->buffer);
    free(batch->scratch);
    free(batch->frames);
    batch->buffer = NULL;
    batch->scratch = NULL;
    batch->frames = NULL;
}

/* The run of the image that is being replaced. A page that belongs to the checkpoint that runs is not named by it there: its parent belongs
 * to it too and is still to be written (B4). */
static void page_retire(partition *part, const frame *fr)
{
    if (page_ref_is_none(fr->disk)) return;
    bool of_checkpoint = part->imaging_epoch != 0 && (fr->flags & FRAME_DIRTY) != 0 && fr->dirty_epoch < part->imaging_epoch;
    store_retire(of_checkpoint ? &part->maturing : &part->retired, page_ref_address(fr->disk), page_ref_blocks(fr->disk));
    part->scattered++;
}

static void batch_add(pool *p, write_batch *batch, uint32_t f)
{
    frame *fr = &p->frames[f];
    uint64_t address = batch->address + (uint64_t)batch->count * p->page_blocks;
    void *to = (char *)batch->buffer + (size_t)batch->count * p->page_size;
    bool dirty_below = false;
    page_ref ref = p->ops->image(p, f, to, batch->scratch, address, &dirty_below);
    page_retire(batch->partition, fr);
    fr->disk = ref;
    pool_mark_clean(p, batch->partition, f);
    if (dirty_below) pool_mark_dirty(p, batch->partition, f);
    fr->flags &= (uint8_t)~FRAME_RESHAPED;
    fr->flags |= FRAME_WRITING;
    batch->frames[batch->count++] = f;
}

int write_batch_begin(pool *p, write_batch *batch, partition *part, uint32_t count)
{
    RW_ASSERT(!batch->in_flight && count > 0 && count <= batch->capacity);
    uint64_t address;
    int error = store_allocate_some(p->store, batch->stream, p->page_blocks, &count, &address);
    atomic_store_explicit(&p->space_error, error, memory_order_relaxed);
    if (error != 0) return error;
    batch->partition = part;
    batch->address = address;
    batch->places = count;
    batch->count = 0;
    batch->epoch_slot = part->epoch & 3;
    atomic_fetch_add(&part->writes_in_flight[batch->epoch_slot], 1);
    return 0;
}

uint32_t write_batch_add(pool *p, write_batch *batch, const uint32_t *frames, uint32_t count)
{
    count = RW_MIN(count, batch->places - batch->count);
    for (uint32_t i = 0; i < count; i++) batch_add(p, batch, frames[i]);
    return count;
}

void write_batch_close(pool *p, write_batch *batch)
{
    uint32_t unused = batch->places - batch->count;
    RW_ASSERT(batch->count > 0);
    if (unused > 0) store_give_back(p->store, batch->address + (uint64_t)batch->count * p->page_blocks, unused * p->page_blocks);
    batch->places = batch->count;
    batch->op = (kio_op){.kind = KIO_WRITE,
                         .file = store_file(p->store),
                         .buffer = batch->buffer,
                         .offset = batch->address * RW_BLOCK_SIZE,
                         .length = batch->count * p->page_size,
                         .context = batch};
    atomic_fetch_add_explicit(&p->counters.pages_written, batch->count, memory_order_relaxed);
}

int write_batch_fill(pool *p, write_batch *batch, partition *part, const uint32_t *frames, uint32_t count)
{
    int error = write_batch_begin(p, batch, part, count);
    if (error != 0) return error;
    (void)write_batch_add(p, batch, frames, count);
    write_batch_close(p, batch);
    return 0;
}

bool write_batch_yield(pool *p, const write_batch *batch)
{
    partition *part = batch->partition;
    partition_unlock(p->kio, part);
    partition_gap();
    RW_PREEMPT(p->kio);
    for (unsigned i = 0; i < RETAKE_SPINS + RETAKE_YIELDS; i++) {
        if (partition_try(part)) return true;
        if (i < RETAKE_SPINS) rw_cpu_relax();
        else kio_yield(p->kio);
    }
    return false;
}

/* True when the page in its frame is still the one that the batch wrote, of a partition that the caller holds. */
static bool batch_entry_done(pool *p, write_batch *batch, uint32_t i, bool evict)
{
    uint32_t f = batch->frames[i];
    frame *fr = &p->frames[f];
    if (page_ref_address(fr->disk) != batch->address + (uint64_t)i * p->page_blocks) return false;
    fr->flags &= (uint8_t)~FRAME_WRITING;
    if (evict && fr->flags == 0 && fr->resident_children == 0 && fr->parent != FRAME_NONE &&
        atomic_load_explicit(&fr->cool, memory_order_relaxed) != 0)
        evict_clean(p, f);
    return true;
}

static void batch_failed(pool *p, write_batch *batch)
{
    int none = 0;
    kio_op_error(&batch->op);
    atomic_compare_exchange_strong(&p->write_error, &none, batch->op.result);
    atomic_fetch_sub(&batch->partition->writes_in_flight[batch->epoch_slot], 1);
    batch->count = 0; /* its pages stay FRAME_WRITING, so they are never dropped from memory */
}

/* Under landed_mutex: the entries of partitions that the caller holds. */
static void batch_entries_done(pool *p, write_batch *batch, const partition_set *held, bool evict)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t f = batch->frames[i];
        uint16_t index = f == FRAME_NONE ? PARTITION_NONE : atomic_load_explicit(&p->frames[f].partition, memory_order_acquire);
        if (index != PARTITION_NONE && !partition_set_has(held, index)) continue;
        if (index != PARTITION_NONE) batch_entry_done(p, batch, i, evict); /* else it was dropped: a page in flight is not evicted */
        batch->frames[i] = FRAME_NONE;
    }
}

/* The partition of the first page that is left; NULL: none is. A page may go to another partition, when its own is split. */
static partition *batch_partition_left(pool *p, write_batch *batch)
{
    partition *left = NULL;
    kio_mutex_lock(p->kio, &p->landed_mutex);
    for (uint32_t i = 0; i < batch->count && left == NULL; i++) {
        if (batch->frames[i] == FRAME_NONE) continue;
        uint16_t index = atomic_load_explicit(&p->frames[batch->frames[i]].partition, memory_order_acquire);
        if (index != PARTITION_NONE) left = &p->partitions[index];
        else batch->frames[i] = FRAME_NONE; /* dropped */
    }
    kio_mutex_unlock(p->kio, &p->landed_mutex);
    return left;
}

static void landed_add(pool *p, write_batch *batch)
{
    kio_mutex_lock(p->kio, &p->landed_mutex);
    batch->next_landed = p->landed;
    p->landed = batch;
    kio_mutex_unlock(p->kio, &p->landed_mutex);
    batch->is_listed = true;
}

static void landed_remove(pool *p, write_batch *batch)
{
    kio_mutex_lock(p->kio, &p->landed_mutex);
    write_batch **at = &p->landed;
    while (*at != batch) at = &(*at)->next_landed;
    *at = batch->next_landed;
    kio_mutex_unlock(p->kio, &p->landed_mutex);
    batch->is_listed = false;
}

bool write_batch_finish(pool *p, write_batch *batch, bool evict, bool wait)
{
    if (batch->op.result != 0) {
        batch_failed(p, batch);
        return true;
    }
    if (!batch->is_listed) landed_add(p, batch);
    for (partition *part; (part = batch_partition_left(p, batch)) != NULL;) {
        partition_set one = {0};
        if (wait) partition_lock(p->kio, part);
        else if (!partition_try(part)) return false;
        partition_set_add(&one, part->index);
        kio_mutex_lock(p->kio, &p->landed_mutex);
        batch_entries_done(p, batch, &one, evict);
        kio_mutex_unlock(p->kio, &p->landed_mutex);
        partition_unlock(p->kio, part);
    }
    landed_remove(p, batch);
    atomic_fetch_sub(&batch->partition->writes_in_flight[batch->epoch_slot], 1);
    batch->count = 0;
    return true;
}

void write_batches_let_go(pool *p, const partition_set *held)
{
    kio_mutex_lock(p->kio, &p->landed_mutex);
    for (write_batch *batch = p->landed; batch != NULL; batch = batch->next_landed) batch_entries_done(p, batch, held, true);
    kio_mutex_unlock(p->kio, &p->landed_mutex);
}

/* ---- for holders of tokens --------------------------------------------------------------------------------------- */

int write_batch_now(pool *p, write_batch *batch, partition *held, const uint32_t *frames, uint32_t count)
{
    int error = write_batch_fill(p, batch, held, frames, count);
    if (error != 0) return error;
    error = kio_file_write(p->kio, batch->op.file, batch->buffer, batch->op.length, batch->op.offset);
    batch->op.result = error;
    if (error != 0) {
        batch_failed(p, batch);
        return error;
    }
    for (uint32_t i = 0; i < batch->count; i++) batch_entry_done(p, batch, i, true);
    atomic_fetch_sub(&held->writes_in_flight[batch->epoch_slot], 1);
    batch->count = 0;
    return 0;
}
