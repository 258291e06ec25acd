/* The writer: a role that one thread at a time holds. Batches, their wake-ups, and the thread that holds the role when callers do not. */
#include <limits.h>

#include "base/planted.h"
#include "wal/wal_internal.h"

#define PAUSE_TURNS 64u          /* yields before a holder of the role that waits for an appender's copy sleeps */
#define PAUSE_NS 50000
#define PREPARE_BYTES (256u << 10)

/* One contiguous write. */
typedef struct {
    uint64_t offset;             /* in the file */
    unsigned char *from;
    size_t length;
} write_run;

typedef struct {
    write_run runs[2];
    unsigned run_count;
    bool needs_data;
} write_plan;

/* ---- the role ---- */

static bool role_take(wal *w)
{
    uint32_t free_role = 0;
    return atomic_load(&w->role) == 0 && atomic_compare_exchange_strong(&w->role, &free_role, 1);
}

/* Whether a batch is due now: somebody waits for one, or the staging space fills. */
static bool writer_urgent(const wal *w)
{
    return !wal_has_failed(w) && (atomic_load(&w->demand) > atomic_load(&w->durable) ||
                                  wal_reserved(w) - atomic_load(&w->consumed) >= WAL_STAGING_HALF);
}

void wal_writer_kick(wal *w)
{
    atomic_fetch_add(&w->writer_word, 1);
    if (atomic_load(&w->writer_asleep) != 0) kio_wake(w->k, &w->writer_word, 1);
}

/* ---- one batch: from the staging space to blocks ---- */

/* Bytes above consumed that are filled without a gap, at most a batch's. */
static uint64_t scan_filled(wal *w)
{
    uint64_t start = atomic_load_explicit(&w->consumed, memory_order_relaxed), stop = start + WAL_BATCH_BYTES, at = w->scanned;
    while (at < stop) {
        uint64_t header = atomic_load_explicit(wal_staging_header(w, at), memory_order_acquire);
        if (header == 0) break;
        at += wal_fragment_span((uint32_t)header);
    }
    w->scanned = at;
    return RW_MIN(at, stop) - start;
}

static void ring_take(const wal *w, uint64_t lsn, unsigned char *to, size_t size)
{
    size_t offset = (size_t)(lsn & WAL_STAGING_MASK), first = RW_MIN(size, RW_LOG_STAGING_BYTES - offset);
    memcpy(to, w->staging + offset, first);
    if (first < size) memcpy(to + first, w->staging, size - first);
}

/* Gives [from, to) of the staging space back to the appenders, zeroed. */
static void ring_release(wal *w, uint64_t from, uint64_t to)
{
    size_t offset = (size_t)(from & WAL_STAGING_MASK), size = (size_t)(to - from), first = RW_MIN(size, RW_LOG_STAGING_BYTES - offset);
    memset(w->staging + offset, 0, first);
    if (first < size) memset(w->staging, 0, size - first);
    atomic_store(&w->flush_asked, 0);
    atomic_store(&w->consumed, to);
    if (atomic_load(&w->space_sleepers) == 0) return;
    atomic_fetch_add(&w->space_word, 1);
    kio_wake(w->k, &w->space_word, INT_MAX);
}

/* Walks the fragment headers below end; keeps next_header and record_end. */
static void walk_headers(wal *w, uint64_t end, bool *needs_data)
{
    while (w->next_header < end) {
        uint64_t number = atomic_load_explicit(wal_staging_header(w, w->next_header), memory_order_relaxed);
        wal_fragment_header header;
        memcpy(&header, &number, sizeof header);
        RW_ASSERT(header.check == (uint16_t)(w->next_header >> 3));
        if (w->after_record) w->record_end = w->next_header;
        if (header.flags & WAL_FRAGMENT_NEEDS_DATA) *needs_data = true;
        w->after_record = (header.word & WAL_FRAGMENT_LAST) != 0;
        w->next_header += wal_fragment_span(header.word);
    }
    if (w->next_header == end && w->after_record) w->record_end = end;
}

static void format_block(wal *w, unsigned char *block, uint64_t lsn, size_t size, bool *needs_data)
{
    wal_block_header *header = (wal_block_header *)(void *)block;
    uint64_t first = w->next_header - lsn;
    memset(header, 0, sizeof *header);
    ring_take(w, lsn, block + WAL_HEADER_BYTES, size);
    memset(block + WAL_HEADER_BYTES + size, 0, WAL_PAYLOAD_BYTES - size);
    header->first_fragment = (uint16_t)(first < size ? first : WAL_NO_FRAGMENT);
    header->payload_bytes = (uint16_t)size;
    header->lsn = lsn;
    header->segment = w->segment;
    header->index = w->index;
    header->durable_lsn = atomic_load_explicit(&w->durable, memory_order_relaxed);
    walk_headers(w, lsn + size, needs_data);
    if (w->record_end == lsn + size) header->flags = WAL_BLOCK_RECORD_END;
    wal_block_seal(w, header);
}

/* Makes blocks of [lsn, end) and decides where they go. */
static void format_batch(wal *w, uint64_t lsn, uint64_t end, write_plan *plan)
{
    unsigned char *block = w->blocks;
    write_run *run = NULL;
    *plan = (write_plan){0};
    for (; lsn < end; block += RW_BLOCK_SIZE) {
        size_t size = (size_t)RW_MIN(end - lsn, WAL_PAYLOAD_BYTES);
        if (w->index == WAL_SEGMENT_BLOCKS) {
            wal_slots_advance(w, lsn);
            run = NULL;
        }
        if (run == NULL) {
            RW_ASSERT(plan->run_count < RW_ARRAY_SIZE(plan->runs));
            run = &plan->runs[plan->run_count++];
            *run = (write_run){.from = block, .offset = (uint64_t)w->current * RW_LOG_SEGMENT_BYTES + (uint64_t)w->index * RW_BLOCK_SIZE};
        }
        format_block(w, block, lsn, size, &plan->needs_data);
        run->length += RW_BLOCK_SIZE;
        w->index++;
        lsn += size;
    }
}

/*
 * Writes the plan and makes it durable, in the way that was chosen. With durable writes the batch is durable when the last of them has returned: each covers itself
 * alone, so each carries the flag; nothing else that was written to the file is made durable here, and nothing may rely on that.
 */
static int write_durably(wal *w, const write_plan *plan)
{
    bool by_write = w->sync == WAL_SYNC_DSYNC && !RW_PLANTED(skip_log_dsync);
    int rc = plan->needs_data && !RW_PLANTED(forget_extent_sync) ? w->options.sync_data(w->options.sync_data_arg) : 0;
    for (unsigned i = 0; i < plan->run_count && rc == 0; i++) {
        const write_run *run = &plan->runs[i];
        rc = by_write ? wal_file_write_durable(w, run->from, run->length, run->offset) : wal_file_write(w, run->from, run->length, run->offset);
    }
    if (RW_PLANTED(ignore_write_error)) rc = 0;
    if (RW_PLANTED(skip_log_sync)) return rc;
    return rc != 0 || w->sync == WAL_SYNC_DSYNC ? rc : wal_file_sync(w);
}

/* The role is held. Writes what is filled, makes it durable, wakes those who wait for it. Bytes taken; 0: there was nothing, or it failed. */
static uint64_t write_batch(wal *w)
{
    write_plan plan;
    uint64_t start = atomic_load_explicit(&w->consumed, memory_order_relaxed), filled = scan_filled(w);
    if (filled > 0) filled = wal_slots_charge(w, filled);
    if (filled == 0) return 0;
    uint64_t end = start + filled, number = atomic_load_explicit(&w->batch, memory_order_relaxed) + 1;
    unsigned parity = number & 1;
    /* First the extent, then the number: who reads the number twice around the extent has a pair that belongs together. */
    atomic_store(&w->extent[parity], end);
    atomic_store(&w->batch, number);
    format_batch(w, start, end, &plan);
    ring_release(w, start, end);
    int rc = write_durably(w, &plan);
    if (rc != 0) {
        wal_fail(w, rc);
        return 0;
    }
    wal_slots_synced(w, end);
    atomic_store(&w->durable, w->record_end);
    atomic_fetch_add(&w->batch_word[parity], 1);
    if (atomic_load(&w->batch_sleepers[parity]) > 0) kio_wake(w->k, &w->batch_word[parity], INT_MAX);
    wal_watchers_notify(w);
    return filled;
}

/* The role's holder waits for an appender that has reserved and is still copying. */
static void pause_for_appender(wal *w, unsigned *turns)
{
    if ((*turns)++ < PAUSE_TURNS) {
        kio_yield(w->k);
    } else {
        kio_sleep(w->k, &w->space_word, atomic_load(&w->space_word), PAUSE_NS);
    }
}

/* ---- waiting ---- */

/* With the role: batches until end_lsn is durable. */
static void write_until(wal *w, uint64_t end_lsn)
{
    unsigned turns = 0;
    while (!wal_has_failed(w) && atomic_load(&w->durable) < end_lsn) {
        if (write_batch(w) == 0) pause_for_appender(w, &turns);
        else turns = 0;
    }
}

static void raise_demand(wal *w, uint64_t end_lsn)
{
    uint64_t seen = atomic_load(&w->demand);
    while (seen < end_lsn && !atomic_compare_exchange_weak(&w->demand, &seen, end_lsn)) {
    }
}

/* Whoever has the role sees the demand before it gives the role back, and else the writer thread takes it. */
void wal_demand(wal *w, uint64_t end_lsn)
{
    raise_demand(w, end_lsn);
    if (atomic_load(&w->role) == 0 && writer_urgent(w)) wal_writer_kick(w);
}

/* Sleeps until the batch that holds end_lsn may be done; words are the batch words, read before durable was found short. */
static void sleep_for_batch(wal *w, uint64_t end_lsn, const uint32_t words[2])
{
    uint64_t number = atomic_load(&w->batch), extent = atomic_load(&w->extent[number & 1]);
    if (atomic_load(&w->batch) != number || atomic_load(&w->durable) >= end_lsn) return;
    unsigned parity = (unsigned)(end_lsn <= extent ? number : number + 1) & 1;
    atomic_fetch_add(&w->batch_sleepers[parity], 1);
    kio_sleep(w->k, &w->batch_word[parity], words[parity], -1);
    atomic_fetch_sub(&w->batch_sleepers[parity], 1);
}

int wal_wait(wal *w, uint64_t end_lsn)
{
    if (atomic_load_explicit(&w->durable, memory_order_acquire) >= end_lsn) return 0;
    RW_ASSERT(w->started && end_lsn <= wal_reserved(w));
    raise_demand(w, end_lsn);
    for (;;) {
        uint32_t words[2] = {atomic_load(&w->batch_word[0]), atomic_load(&w->batch_word[1])};
        if (atomic_load(&w->durable) >= end_lsn) return 0;
        if (wal_has_failed(w)) return wal_failure(w, RW_EUNKNOWN);
        if (role_take(w)) {
            write_until(w, end_lsn);
            atomic_store(&w->role, 0);
            /* Who raised the demand meanwhile found the role taken and sleeps: the writer thread goes on for them. */
            if (writer_urgent(w)) wal_writer_kick(w);
        } else {
            sleep_for_batch(w, end_lsn, words);
        }
    }
}

/* ---- the writer thread ---- */

/* With the role: one batch for the tick, then as long as somebody waits; slots are made ready in between. */
static void thread_write(wal *w)
{
    unsigned turns = 0;
    do {
        uint64_t bytes = write_batch(w);
        if (bytes == 0 && !wal_has_failed(w) && writer_urgent(w)) pause_for_appender(w, &turns);
        else turns = 0;
        wal_slots_prepare(w, RW_MAX(2 * bytes, PREPARE_BYTES));
    } while (writer_urgent(w));
    atomic_store(&w->role, 0);
}

/* At a tick: nothing has come since the last one and nothing is unwritten, so the thread may sleep until an append wakes it. */
static bool try_idle(wal *w)
{
    uint64_t reserved = wal_reserved(w);
    if (reserved != w->tick_lsn || reserved != atomic_load(&w->consumed)) {
        w->tick_lsn = reserved;
        return false;
    }
    atomic_store(&w->idle, 1);
    if (wal_reserved(w) == reserved) return true;
    atomic_store(&w->idle, 0);
    return false;
}

static void thread_sleep(wal *w, uint32_t word, int64_t timeout_ns)
{
    atomic_store(&w->writer_asleep, 1);
    kio_sleep(w->k, &w->writer_word, word, timeout_ns);
    atomic_store(&w->writer_asleep, 0);
}

static void writer_main(void *arg)
{
    wal *w = arg;
    /* Half the promised delay: should a tick find the role taken by a batch that began before a record came, the next one is in time. */
    uint64_t period_ns = RW_MAX(w->options.async_delay_ms, 1u) * (uint64_t)500000;
    bool idle = false;
    w->tick_ns = kio_now_ns(w->k) + period_ns;
    while (atomic_load(&w->stop) == 0) {
        uint32_t word = atomic_load(&w->writer_word);
        uint64_t now = kio_now_ns(w->k);
        bool tick = now >= w->tick_ns, worked = false;
        bool unwritten = wal_reserved(w) > atomic_load(&w->consumed) && !wal_has_failed(w);
        if ((writer_urgent(w) || (tick && unwritten)) && role_take(w)) {
            thread_write(w);
            worked = true;
        }
        if (tick) {
            idle = try_idle(w);
            w->tick_ns = now + period_ns;
        }
        if (wal_slots_prepare(w, PREPARE_BYTES) || worked) {
            /* An append may have ended the idleness meanwhile: then its kick is in the word that the next turn reads. */
            if (idle) atomic_store(&w->idle, 0);
            idle = false;
            continue;
        }
        idle = idle || wal_has_failed(w);
        thread_sleep(w, word, idle ? -1 : (int64_t)(w->tick_ns - now));
        if (!idle) continue;
        atomic_store(&w->idle, 0);
        w->tick_ns = kio_now_ns(w->k) + period_ns;
        idle = false;
    }
}

int wal_writer_start(wal *w)
{
    return kio_thread_start(w->k, "ringwood-log", -1, writer_main, w, &w->thread);
}

void wal_writer_stop(wal *w)
{
    atomic_store(&w->stop, 1);
    wal_writer_kick(w);
    kio_thread_join(w->k, w->thread);
}
