/* The slots of the log file: which are live, free, ready; zeroing, recycling and growing; the account of what can still be written. */
#include <limits.h>
#include <stdlib.h>

#include "wal/wal_internal.h"

static uint64_t slot_offset(uint32_t slot)
{
    return (uint64_t)slot * RW_LOG_SEGMENT_BYTES;
}

/* ---- what a replay found ---- */

bool wal_slot_follows(const wal_slot *later, const wal_slot *earlier)
{
    return later->epoch != earlier->epoch ? later->epoch > earlier->epoch : later->segment > earlier->segment;
}

/* Whether a later epoch begins before the segment does: then nothing in it counts. */
static bool slot_overruled(const wal *w, const wal_slot *slot)
{
    for (uint32_t i = 0; i < w->slot_count; i++) {
        const wal_slot *other = &w->slots[i];
        if (other->segment != 0 && other->epoch > slot->epoch && other->start_lsn < slot->start_lsn) return true;
    }
    return false;
}

/* Whether a live segment that has a successor holds a byte at or above keep_lsn. */
static bool slot_holds(const wal_slot *slot, uint64_t keep_lsn)
{
    return slot->end_lsn > keep_lsn && slot->end_lsn > slot->start_lsn;
}

void wal_slots_lay_out(wal *w, uint64_t end_lsn, uint64_t keep_lsn)
{
    const wal_slot *last = NULL;
    for (uint32_t i = 0; i < w->slot_count; i++) {
        wal_slot *slot = &w->slots[i];
        slot->state = WAL_SLOT_FREE;
        if (slot->segment == 0 || slot->start_lsn > end_lsn || slot_overruled(w, slot)) continue;
        slot->state = WAL_SLOT_LIVE;
        if (last == NULL || wal_slot_follows(slot, last)) last = slot;
    }
    for (uint32_t i = 0; i < w->slot_count; i++) {
        wal_slot *slot = &w->slots[i];
        if (slot->state != WAL_SLOT_LIVE) continue;
        slot->end_lsn = end_lsn;
        for (uint32_t j = 0; j < w->slot_count; j++) {
            const wal_slot *later = &w->slots[j];
            if (later->state != WAL_SLOT_LIVE || !wal_slot_follows(later, slot)) continue;
            slot->end_lsn = RW_MIN(slot->end_lsn, later->start_lsn);
        }
    }
    /* The last one stays whatever keep_lsn is: until the next start block is durable, it alone shows where the log ends. */
    for (uint32_t i = 0; i < w->slot_count; i++) {
        wal_slot *slot = &w->slots[i];
        if (slot->state == WAL_SLOT_LIVE && slot != last && !slot_holds(slot, keep_lsn)) slot->state = WAL_SLOT_FREE;
    }
    w->trim_lsn = keep_lsn;
    w->recyclable_below = 0;
}

void wal_block_seal(const wal *w, wal_block_header *header)
{
    header->magic = WAL_BLOCK_MAGIC;
    header->version = WAL_FORMAT_VERSION;
    header->database_id = w->options.database_id;
    header->epoch = w->epoch;
    header->checksum = wal_block_checksum(header);
}

int wal_slots_begin(wal *w, uint64_t lsn)
{
    uint64_t segment = 0, epoch = 0;
    uint32_t ready = WAL_NO_SLOT;
    for (uint32_t i = 0; i < w->slot_count; i++) {
        segment = RW_MAX(segment, w->slots[i].segment);
        epoch = RW_MAX(epoch, w->slots[i].epoch);
        if (w->slots[i].state == WAL_SLOT_READY && ready == WAL_NO_SLOT) ready = i;
    }
    RW_ASSERT(ready != WAL_NO_SLOT);
    w->epoch = epoch + 1;
    w->segment = segment + 1;
    wal_block_header *header = (wal_block_header *)(void *)w->blocks;
    memset(header, 0, RW_BLOCK_SIZE);
    header->lsn = header->durable_lsn = lsn;
    header->segment = w->segment;
    header->first_fragment = WAL_NO_FRAGMENT;
    header->flags = WAL_BLOCK_START;
    wal_block_seal(w, header);
    header->checksum = 0;
    for (size_t at = WAL_HEADER_BYTES; at < RW_BLOCK_SIZE; at += WAL_HEADER_BYTES) memcpy(w->blocks + at, header, WAL_HEADER_BYTES);
    wal_block_seal(w, header);
    int rc = wal_file_write(w, w->blocks, RW_BLOCK_SIZE, slot_offset(ready));
    if (rc == 0) rc = wal_file_sync(w);
    if (rc != 0) return rc;
    w->slots[ready] = (wal_slot){.state = WAL_SLOT_LIVE, .written = true, .segment = w->segment, .epoch = w->epoch,
                                 .start_lsn = lsn, .end_lsn = UINT64_MAX};
    w->ready_count--;
    w->current = ready;
    w->index = 1;
    w->recyclable_below = lsn + 1;
    w->capacity = lsn + (WAL_SEGMENT_BLOCKS - 1 + (uint64_t)w->ready_count * WAL_SEGMENT_BLOCKS) * WAL_PAYLOAD_BYTES;
    atomic_store(&w->limit, w->capacity - WAL_MARGIN_BYTES);
    return 0;
}

/* ---- the account ---- */

/*
 * Lowers the limit to at most ceiling, unless more is reserved already. The tag in reserve is changed after the limit, so no appender
 * that read the old limit can still reserve.
 */
static bool lower_limit(wal *w, uint64_t ceiling)
{
    uint64_t old = atomic_load(&w->limit), low = RW_MAX(ceiling, WAL_MARGIN_BYTES) - WAL_MARGIN_BYTES;
    atomic_store(&w->limit, low);
    uint64_t seen = atomic_load(&w->reserve), tagged;
    do {
        tagged = (seen & ~WAL_RESERVE_TAG) | ((seen + 1) & WAL_RESERVE_TAG);
    } while (!atomic_compare_exchange_weak(&w->reserve, &seen, tagged));
    uint64_t reserved = tagged & ~WAL_RESERVE_TAG;
    if (reserved > low) atomic_store(&w->limit, reserved <= ceiling ? ceiling : old);
    return reserved <= ceiling;
}

uint64_t wal_slots_charge(wal *w, uint64_t filled)
{
    uint64_t padding = (WAL_PAYLOAD_BYTES - filled % WAL_PAYLOAD_BYTES) % WAL_PAYLOAD_BYTES;
    if (padding == 0) return filled;
    kio_mutex_lock(w->k, &w->slots_mutex);
    uint64_t ceiling = w->capacity - padding;
    if (atomic_load(&w->limit) > ceiling && !lower_limit(w, ceiling)) {
        filled -= filled % WAL_PAYLOAD_BYTES;
    } else {
        w->capacity = ceiling;
    }
    kio_mutex_unlock(w->k, &w->slots_mutex);
    return filled;
}

static void announce(wal *w)
{
    atomic_fetch_add(&w->slot_word, 1);
    kio_wake(w->k, &w->slot_word, INT_MAX);
}

/* slots_mutex is held. */
static void make_ready(wal *w, uint32_t slot)
{
    w->slots[slot].state = WAL_SLOT_READY;
    w->slots[slot].segment = 0;
    w->ready_count++;
    w->capacity += WAL_SEGMENT_PAYLOAD;
    uint64_t limit = w->capacity - WAL_MARGIN_BYTES;
    if (limit > atomic_load(&w->limit)) atomic_store(&w->limit, limit);
    if (atomic_load(&w->limit) >= w->wanted) w->wanted = 0;
}

/* slots_mutex is held. */
static bool slots_needed(const wal *w)
{
    return !w->growth_blocked && (w->ready_count == 0 || w->wanted > atomic_load(&w->limit));
}

int wal_slots_ask(wal *w, uint64_t lsn)
{
    kio_mutex_lock(w->k, &w->slots_mutex);
    uint32_t failures = w->growth_failures;
    w->wanted = RW_MAX(w->wanted, lsn);
    w->growth_blocked = false;
    kio_mutex_unlock(w->k, &w->slots_mutex);
    wal_writer_kick(w);
    for (;;) {
        uint32_t word = atomic_load(&w->slot_word);
        if (wal_has_failed(w)) return wal_failure(w, RW_EREADONLY);
        if (atomic_load(&w->limit) >= lsn) return 0;
        kio_mutex_lock(w->k, &w->slots_mutex);
        int rc = w->growth_failures != failures ? rw_error(w->growth_code, "the log cannot grow: %s", w->growth_text) : 0;
        kio_mutex_unlock(w->k, &w->slots_mutex);
        if (rc != 0) return rc;
        kio_sleep(w->k, &w->slot_word, word, -1);
    }
}

void wal_slots_advance(wal *w, uint64_t lsn)
{
    kio_mutex_lock(w->k, &w->slots_mutex);
    uint32_t next = 0;
    while (next < w->slot_count && w->slots[next].state != WAL_SLOT_READY) next++;
    RW_ASSERT(next < w->slot_count);
    w->slots[w->current].end_lsn = lsn;
    w->segment++;
    w->slots[next] = (wal_slot){.state = WAL_SLOT_LIVE, .written = true, .segment = w->segment, .epoch = w->epoch,
                                .start_lsn = lsn, .end_lsn = UINT64_MAX};
    w->current = next;
    w->index = 0;
    bool kick = --w->ready_count == 0;
    kio_mutex_unlock(w->k, &w->slots_mutex);
    if (kick) wal_writer_kick(w);
}

/* ---- recycling and growing ---- */

/* slots_mutex is held. A segment goes when nobody needs it and its successor's first block is durable (README, invariant 7). */
static void retire(wal *w)
{
    for (uint32_t i = 0; i < w->slot_count; i++) {
        wal_slot *slot = &w->slots[i];
        if (slot->state != WAL_SLOT_LIVE || slot_holds(slot, w->trim_lsn) || slot->end_lsn >= w->recyclable_below) continue;
        slot->state = WAL_SLOT_FREE;
    }
}

void wal_slots_synced(wal *w, uint64_t lsn)
{
    kio_mutex_lock(w->k, &w->slots_mutex);
    w->recyclable_below = lsn;
    kio_mutex_unlock(w->k, &w->slots_mutex);
}

/* slots_mutex is held. A new slot at the file's end; WAL_NO_SLOT: no memory. */
static uint32_t add_slot(wal *w)
{
    if (w->slot_count == w->slot_room) {
        uint32_t room = w->slot_room * 2 + 16;
        wal_slot *grown = realloc(w->slots, room * sizeof *grown);
        if (grown == NULL) return WAL_NO_SLOT;
        w->slots = grown;
        w->slot_room = room;
    }
    w->slots[w->slot_count] = (wal_slot){.state = WAL_SLOT_FREE};
    return w->slot_count++;
}

/* slots_mutex is held. The lowest free slot, one that needs no zeroing if there is one. */
static uint32_t find_free(const wal *w)
{
    uint32_t found = WAL_NO_SLOT;
    for (uint32_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i].state != WAL_SLOT_FREE) continue;
        if (w->slots[i].written) return i;
        if (found == WAL_NO_SLOT) found = i;
    }
    return found;
}

/*
 * slots_mutex is held. What could not be prepared at the file's end is cut off: a failed allocation may have left a part of itself, which would hold the
 * space until a later one gets the rest. A file left too long does no harm.
 */
static void prepare_undo(wal *w)
{
    uint32_t slot = w->prepare_slot;
    w->prepare_slot = WAL_NO_SLOT;
    w->slots[slot].state = WAL_SLOT_FREE;
    if (slot != w->slot_count - 1) return;
    w->slot_count--;
    if (kio_file_resize(w->k, w->file, slot_offset(slot)) != 0) return;
    if (slot_offset(slot) < atomic_load(&w->file_bytes)) atomic_store(&w->file_bytes, slot_offset(slot));
}

/* The attempt to get one more slot failed, for a reason that may pass: appenders are told, the log goes on. */
static void growth_failed(wal *w, int code)
{
    kio_mutex_lock(w->k, &w->slots_mutex);
    w->growth_code = code;
    strncpy(w->growth_text, rw_error_text(), sizeof w->growth_text - 1);
    if (w->prepare_slot != WAL_NO_SLOT) prepare_undo(w);
    w->growth_failures++;
    w->growth_blocked = true;
    w->wanted = 0;
    kio_mutex_unlock(w->k, &w->slots_mutex);
    announce(w);
}

/* Chooses the next slot; a written one is ready at once, another is begun. False: none is needed. */
static bool prepare_begin(wal *w)
{
    kio_mutex_lock(w->k, &w->slots_mutex);
    bool needed = slots_needed(w), ready = false;
    uint32_t slot = WAL_NO_SLOT;
    if (needed) {
        retire(w);
        slot = find_free(w);
        if (slot == WAL_NO_SLOT) slot = add_slot(w);
        ready = slot != WAL_NO_SLOT && w->slots[slot].written;
        if (ready) {
            make_ready(w, slot);
        } else if (slot != WAL_NO_SLOT) {
            w->slots[slot].state = WAL_SLOT_PREPARING;
            w->prepare_slot = slot;
            w->prepare_done = 0;
        }
    }
    kio_mutex_unlock(w->k, &w->slots_mutex);
    if (!needed) return false;
    if (ready) {
        announce(w);
        return true;
    }
    int rc = slot == WAL_NO_SLOT ? rw_error(RW_ENOMEM, "no memory for the table of log segments") : 0;
    if (rc == 0) rc = kio_file_allocate(w->k, w->file, slot_offset(slot), RW_LOG_SEGMENT_BYTES);
    if (rc != 0 && rc != RW_ENOTSUP) growth_failed(w, rc);
    return true;
}

/* All zeros are written: they are made durable, and the slot is ready. */
static void prepare_finish(wal *w)
{
    if (wal_file_sync(w) != 0) return;
    kio_mutex_lock(w->k, &w->slots_mutex);
    w->slots[w->prepare_slot].written = true;
    make_ready(w, w->prepare_slot);
    w->prepare_slot = WAL_NO_SLOT;
    uint64_t size = slot_offset(w->slot_count);
    kio_mutex_unlock(w->k, &w->slots_mutex);
    if (size > atomic_load(&w->file_bytes)) atomic_store(&w->file_bytes, size);
    announce(w);
}

bool wal_slots_prepare(wal *w, uint64_t budget)
{
    if (wal_has_failed(w)) return false;
    if (w->prepare_slot == WAL_NO_SLOT) {
        if (!prepare_begin(w)) return false;
        if (w->prepare_slot == WAL_NO_SLOT) return true;
    }
    for (uint64_t done = 0; done < budget && w->prepare_done < RW_LOG_SEGMENT_BYTES; done += WAL_IO_BYTES) {
        int rc = wal_file_write(w, w->zeros, WAL_IO_BYTES, slot_offset(w->prepare_slot) + w->prepare_done);
        if (rc != 0) {
            if (rc == RW_ENOSPC) growth_failed(w, rc);
            else wal_fail(w, rc);
            return true;
        }
        w->prepare_done += WAL_IO_BYTES;
    }
    if (w->prepare_done == RW_LOG_SEGMENT_BYTES) prepare_finish(w);
    return true;
}

void wal_trim(wal *w, uint64_t lsn)
{
    kio_mutex_lock(w->k, &w->slots_mutex);
    w->trim_lsn = RW_MAX(w->trim_lsn, lsn);
    w->growth_blocked = false;
    bool needed = w->started && slots_needed(w);
    kio_mutex_unlock(w->k, &w->slots_mutex);
    if (needed) wal_writer_kick(w);
}

int wal_shrink(wal *w)
{
    RW_ASSERT(w->started);
    if (wal_has_failed(w)) return wal_failure(w, RW_EREADONLY);
    kio_mutex_lock(w->k, &w->slots_mutex);
    retire(w);
    uint32_t count = w->slot_count;
    while (count > 0 && w->slots[count - 1].state == WAL_SLOT_FREE) count--;
    bool shorter = slot_offset(count) < atomic_load(&w->file_bytes);
    /* Under the mutex: a slot that is begun meanwhile must not be cut off. */
    int rc = shorter ? kio_file_resize(w->k, w->file, slot_offset(count)) : 0;
    if (rc == 0 && shorter) {
        w->slot_count = count;
        atomic_store(&w->file_bytes, slot_offset(count));
    }
    kio_mutex_unlock(w->k, &w->slots_mutex);
    return rc != 0 || !shorter ? rc : wal_file_sync(w);
}
