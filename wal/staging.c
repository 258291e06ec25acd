/* Appending: records into the staging space. The path of a small record is one compare-and-swap, one copy for each piece, one store. */
#include "wal/wal_internal.h"

/* Where the next bytes of a record come from. */
typedef struct {
    const rw_slice *pieces;
    unsigned index;
    size_t offset;
} piece_cursor;

/* Bytes that a record with a body of that size takes in the stream. */
static inline uint64_t record_span(uint64_t body)
{
    if (RW_LIKELY(body <= WAL_FRAGMENT_BODY_MAX)) return WAL_FRAGMENT_HEADER_BYTES + rw_align_up(body, 8);
    uint64_t full = body / WAL_FRAGMENT_BODY_MAX, rest = body % WAL_FRAGMENT_BODY_MAX;
    uint64_t span = full * RW_LOG_FRAGMENT_BYTES;
    if (rest > 0) span += WAL_FRAGMENT_HEADER_BYTES + rw_align_up(rest, 8);
    return span;
}

static inline void announce_store(_Atomic uint64_t *announce, uint64_t value)
{
    if (announce != NULL) atomic_store_explicit(announce, value, memory_order_release);
}

/*
 * Takes span bytes of LSNs, if they can be written. The limit is read after reserve and before the exchange: whoever lowers the
 * limit changes reserve's tag afterwards, so an exchange that succeeds has seen the limit in force.
 */
static int reserve_span(wal *w, uint64_t span, uint64_t *lsn, _Atomic uint64_t *announce)
{
    uint64_t seen = atomic_load_explicit(&w->reserve, memory_order_acquire);
    for (;;) {
        uint64_t end = (seen & ~WAL_RESERVE_TAG) + span;
        if (RW_UNLIKELY(end > atomic_load_explicit(&w->limit, memory_order_acquire))) {
            announce_store(announce, 0);
            int rc = wal_slots_ask(w, end);
            if (rc != 0) return rc;
            seen = atomic_load_explicit(&w->reserve, memory_order_acquire);
            continue;
        }
        announce_store(announce, WAL_ANNOUNCE_BUSY); /* before the exchange: who sees the place taken sees this */
        if (atomic_compare_exchange_weak(&w->reserve, &seen, seen + span)) {
            *lsn = seen & ~WAL_RESERVE_TAG;
            announce_store(announce, *lsn | WAL_ANNOUNCE_BUSY);
            return 0;
        }
    }
}

/* The staging space fills, or an appender waits for room in it. */
static void ask_flush(wal *w)
{
    if (atomic_load_explicit(&w->flush_asked, memory_order_relaxed) == 0 && atomic_exchange(&w->flush_asked, 1) == 0) wal_writer_kick(w);
}

/* Waits until the staging space below end may be written. False: the log has failed. */
static bool wait_for_space(wal *w, uint64_t end)
{
    bool ok;
    atomic_fetch_add(&w->space_sleepers, 1);
    for (;;) {
        uint32_t word = atomic_load(&w->space_word);
        ok = end - RW_LOG_STAGING_BYTES <= atomic_load(&w->consumed);
        if (ok || wal_has_failed(w)) break;
        wal_writer_kick(w);
        kio_sleep(w->k, &w->space_word, word, -1);
    }
    atomic_fetch_sub(&w->space_sleepers, 1);
    return ok;
}

static inline bool space_free(wal *w, uint64_t end)
{
    return end <= atomic_load_explicit(&w->consumed, memory_order_acquire) + RW_LOG_STAGING_BYTES;
}

static void ring_copy(wal *w, uint64_t lsn, const unsigned char *from, size_t size)
{
    size_t offset = (size_t)(lsn & WAL_STAGING_MASK), first = RW_MIN(size, RW_LOG_STAGING_BYTES - offset);
    memcpy(w->staging + offset, from, first);
    if (RW_UNLIKELY(first < size)) memcpy(w->staging, from + first, size - first);
}

/* Copies size bytes of the record to lsn. */
static void copy_pieces(wal *w, piece_cursor *cursor, uint64_t lsn, size_t size)
{
    while (size > 0) {
        const rw_slice *piece = &cursor->pieces[cursor->index];
        size_t part = RW_MIN(size, piece->size - cursor->offset);
        if (part > 0) ring_copy(w, lsn, (const unsigned char *)piece->data + cursor->offset, part);
        lsn += part;
        size -= part;
        cursor->offset += part;
        if (cursor->offset == piece->size) {
            cursor->index++;
            cursor->offset = 0;
        }
    }
}

/* Publishes a filled fragment: one store of the whole header. */
static inline void publish(wal *w, uint64_t lsn, wal_kind kind, uint32_t word, uint8_t flags)
{
    wal_fragment_header header = {.word = word | WAL_FRAGMENT_READY, .kind = (uint8_t)kind, .flags = flags, .check = (uint16_t)(lsn >> 3)};
    uint64_t number;
    memcpy(&number, &header, sizeof number);
    atomic_store_explicit(wal_staging_header(w, lsn), number, memory_order_release);
}

/* Copies and publishes the record's fragments; lsn is reserved for them. False: the log has failed; the last fragment is not published. */
static bool fill(wal *w, wal_kind kind, piece_cursor *cursor, size_t body, unsigned flags, uint64_t lsn, _Atomic uint64_t *announce)
{
    uint32_t first = WAL_FRAGMENT_FIRST;
    uint64_t record = lsn;
    do {
        size_t size = RW_MIN(body, WAL_FRAGMENT_BODY_MAX);
        uint64_t end = lsn + WAL_FRAGMENT_HEADER_BYTES + rw_align_up(size, 8);
        if (RW_UNLIKELY(!space_free(w, end))) {
            announce_store(announce, record);
            bool ok = wait_for_space(w, end);
            if (announce != NULL) atomic_store(announce, record | WAL_ANNOUNCE_BUSY); /* seq_cst: what the appender looks at next is read after it */
            if (!ok) return false;
        }
        copy_pieces(w, cursor, lsn + WAL_FRAGMENT_HEADER_BYTES, size);
        body -= size;
        uint8_t needs = body == 0 && (flags & WAL_NEEDS_DATA) != 0 ? WAL_FRAGMENT_NEEDS_DATA : 0;
        publish(w, lsn, kind, (uint32_t)size | first | (body == 0 ? WAL_FRAGMENT_LAST : 0), needs);
        first = 0;
        lsn = end;
    } while (body > 0);
    return true;
}

/* The record of one fragment whose place is free and goes not round the ring's end: nearly every one. false: nothing was done. */
static inline bool fill_at_once(wal *w, wal_kind kind, const rw_slice *pieces, unsigned count, uint64_t body, unsigned flags, uint64_t lsn, uint64_t end)
{
    size_t offset = (size_t)(lsn & WAL_STAGING_MASK);
    if (RW_UNLIKELY(body > WAL_FRAGMENT_BODY_MAX || offset + (end - lsn) > RW_LOG_STAGING_BYTES || !space_free(w, end))) return false;
    unsigned char *to = w->staging + offset + WAL_FRAGMENT_HEADER_BYTES;
    for (unsigned i = 0; i < count; i++) {
        if (pieces[i].size > 0) memcpy(to, pieces[i].data, pieces[i].size);
        to += pieces[i].size;
    }
    uint8_t needs = (flags & WAL_NEEDS_DATA) != 0 ? WAL_FRAGMENT_NEEDS_DATA : 0;
    publish(w, lsn, kind, (uint32_t)body | WAL_FRAGMENT_FIRST | WAL_FRAGMENT_LAST, needs);
    return true;
}

int wal_append(wal *w, wal_kind kind, const rw_slice *pieces, unsigned count, unsigned flags, uint64_t *lsn, uint64_t *end_lsn,
               _Atomic uint64_t *announce)
{
    RW_ASSERT(w->started);
    uint64_t body = 0, at = 0;
    for (unsigned i = 0; i < count; i++) body += pieces[i].size;
    if (body > WAL_RECORD_BYTES_MAX) {
        return rw_error(RW_ETOOBIG, "a log record of %llu bytes; the most is %llu", (unsigned long long)body,
                        (unsigned long long)WAL_RECORD_BYTES_MAX);
    }
    if (RW_UNLIKELY(wal_has_failed(w))) return wal_failure(w, RW_EREADONLY);
    uint64_t span = record_span(body);
    int rc = reserve_span(w, span, &at, announce);
    if (rc != 0) return rc;
    /* The writer sets idle and then looks at reserve; we change reserve and then look at idle: one of us sees the other. */
    if (RW_UNLIKELY(atomic_load(&w->idle) != 0) && atomic_exchange(&w->idle, 0) != 0) wal_writer_kick(w);
    piece_cursor cursor = {.pieces = pieces};
    bool filled = fill_at_once(w, kind, pieces, count, body, flags, at, at + span) || fill(w, kind, &cursor, (size_t)body, flags, at, announce);
    if (!filled) {
        announce_store(announce, 0);
        return wal_failure(w, RW_EREADONLY);
    }
    if (RW_UNLIKELY(at + span - atomic_load_explicit(&w->consumed, memory_order_relaxed) > WAL_STAGING_HALF)) ask_flush(w);
    *lsn = at;
    *end_lsn = at + span;
    return 0;
}
