/* Reading the log back: which slot holds what, the walk from block to block, and the decision between a torn tail and damage. */
#include <stdio.h>
#include <stdlib.h>

#include "base/planted.h"
#include "wal/wal_internal.h"

#define WAL_READ_BYTES RW_MIN(1u << 20, RW_LOG_SEGMENT_BYTES)   /* one read: the device's throughput grows up to this */

typedef unsigned long long ull;

typedef struct {
    wal *w;
    wal_assembler assembler;
    wal_slot **segments;       /* those found, in the log's order */
    uint32_t count;
    bool *walked;              /* of each slot: nothing in it can tell more about the tail */
    unsigned char *buffer;     /* WAL_READ_BYTES */
    uint64_t buffer_offset;    /* in the file, of what the buffer holds */
    uint64_t buffer_length;
    uint64_t file_size;
    /* the present position */
    uint32_t position;         /* in segments */
    uint32_t index;            /* of the next block in it */
    uint64_t lsn;              /* that it must carry */
} reader;

bool wal_block_valid(const void *block, uint64_t database_id, uint32_t index)
{
    const wal_block_header *header = block;
    return header->magic == WAL_BLOCK_MAGIC && header->version == WAL_FORMAT_VERSION && header->database_id == database_id &&
           header->index == index && header->payload_bytes <= WAL_PAYLOAD_BYTES && header->payload_bytes % 8 == 0 &&
           (header->first_fragment == WAL_NO_FRAGMENT || header->first_fragment < header->payload_bytes) &&
           header->durable_lsn <= header->lsn && header->checksum == wal_block_checksum(block);
}

/* ---- which slot holds what ---- */

int wal_slots_table(wal *w, uint64_t size)
{
    uint64_t count = (size + RW_LOG_SEGMENT_BYTES - 1) / RW_LOG_SEGMENT_BYTES;
    if (count >= WAL_NO_SLOT / 2) return rw_error(RW_ECORRUPT, "%s: %llu bytes are too many for a log", kio_file_path(w->file), (ull)size);
    w->slots = calloc((size_t)count + 16, sizeof *w->slots);
    if (w->slots == NULL) return rw_error(RW_ENOMEM, "no memory for the table of log segments");
    w->slot_room = (uint32_t)count + 16;
    w->slot_count = (uint32_t)count;
    atomic_store(&w->file_bytes, size);
    return 0;
}

/* A slot is written to its end, and that is durable, before its first block is: a shorter file was cut by somebody else, and records may be missing. */
static int slot_is_cut(const wal *w, uint32_t number, uint64_t size)
{
    ull begin = (ull)number * RW_LOG_SEGMENT_BYTES;
    return rw_error(RW_ECORRUPT, "%s: the file was cut: it ends at %llu, but the log segment at offset %llu reaches to %llu", kio_file_path(w->file),
                    (ull)size, begin, begin + RW_LOG_SEGMENT_BYTES);
}

/* Salvage: the first thing found wrong is what is told. */
static void damage_keep(wal *w)
{
    if (w->damage[0] == 0) snprintf(w->damage, sizeof w->damage, "%s", rw_error_text());
}

/* What a first block says of its slot. *foreign: it is sound, but another database's. */
static int slot_identify(wal *w, uint32_t number, const unsigned char *block, uint64_t size, bool *foreign)
{
    const wal_block_header *header = (const wal_block_header *)(const void *)block;
    if (header->magic != WAL_BLOCK_MAGIC || header->checksum != wal_block_checksum(block)) return 0;
    if (header->version != WAL_FORMAT_VERSION) {
        return rw_error(RW_EVERSION, "%s: offset %llu: log format version %u; this library knows %u", kio_file_path(w->file),
                        (ull)number * RW_LOG_SEGMENT_BYTES, header->version, WAL_FORMAT_VERSION);
    }
    if (header->database_id != w->options.database_id) {
        *foreign = true;
        return 0;
    }
    if (!wal_block_valid(block, w->options.database_id, 0)) return 0;
    if (((uint64_t)number + 1) * RW_LOG_SEGMENT_BYTES > size) {
        int rc = slot_is_cut(w, number, size);
        if (!w->options.salvage) return rc;
        damage_keep(w);
    }
    wal_slot *slot = &w->slots[number];
    slot->segment = header->segment;
    slot->epoch = header->epoch;
    slot->start_lsn = header->lsn;
    slot->written = true;
    return 0;
}

int wal_slots_scan(wal *w)
{
    uint64_t size = 0;
    bool foreign = false, ours = false;
    int rc = kio_file_size(w->k, w->file, &size);
    if (rc == 0) rc = wal_slots_table(w, size);
    if (rc != 0) return rc;
    unsigned char *block = rw_memory_aligned(RW_BLOCK_SIZE);
    if (block == NULL) return rw_error(RW_ENOMEM, "no memory for a log block");
    for (uint32_t i = 0; i < w->slot_count && rc == 0; i++) {
        uint64_t offset = (uint64_t)i * RW_LOG_SEGMENT_BYTES;
        if (offset + RW_BLOCK_SIZE > size) break;
        rc = kio_file_read(w->k, w->file, block, RW_BLOCK_SIZE, offset);
        if (rc == RW_EIO && w->options.salvage) {     /* a slot that holds nothing; where the walk needs it, it ends */
            rc = 0;
            continue;
        }
        if (rc == 0) rc = slot_identify(w, i, block, size, &foreign);
        ours = ours || w->slots[i].segment != 0;
    }
    free(block);
    if (rc == 0 && foreign && !ours) rc = rw_error(RW_EFOREIGN, "%s is the log of another database", kio_file_path(w->file));
    return rc;
}

static int by_order(const void *a, const void *b)
{
    const wal_slot *x = *(wal_slot *const *)a, *y = *(wal_slot *const *)b;
    return wal_slot_follows(x, y) - wal_slot_follows(y, x);
}

/* ---- blocks ---- */

static uint32_t slot_number(const reader *r, const wal_slot *slot)
{
    return (uint32_t)(slot - r->w->slots);
}

/* The block at offset, *block NULL where the file ends before its end. Reads ahead up to the slot's end. */
static int block_read(reader *r, uint64_t offset, const unsigned char **block)
{
    *block = NULL;
    if (offset + RW_BLOCK_SIZE > r->file_size) return 0;
    if (offset < r->buffer_offset || offset + RW_BLOCK_SIZE > r->buffer_offset + r->buffer_length) {
        uint64_t slot_left = RW_LOG_SEGMENT_BYTES - offset % RW_LOG_SEGMENT_BYTES;
        uint64_t file_left = (r->file_size - offset) / RW_BLOCK_SIZE * RW_BLOCK_SIZE;
        uint64_t length = RW_MIN(RW_MIN(slot_left, file_left), WAL_READ_BYTES);
        r->buffer_length = 0;
        int rc = kio_file_read(r->w->k, r->w->file, r->buffer, (size_t)length, offset);
        if (rc != 0) return rc;
        r->buffer_offset = offset;
        r->buffer_length = length;
    }
    *block = r->buffer + (offset - r->buffer_offset);
    return 0;
}

/* ---- the walk ---- */

/* Where a later epoch cuts the present segment; its place in segments, or count. */
static uint32_t find_cut(const reader *r, uint64_t *cut_lsn)
{
    const wal_slot *slot = r->segments[r->position];
    uint32_t found = r->count;
    *cut_lsn = UINT64_MAX;
    for (uint32_t i = r->position + 1; i < r->count; i++) {
        if (r->segments[i]->epoch <= slot->epoch || r->segments[i]->start_lsn >= *cut_lsn) continue;
        *cut_lsn = r->segments[i]->start_lsn;
        found = i;
    }
    return found;
}

/* Takes blocks of the present segment until it is full, or cut, or the next one does not continue it. */
static int walk_segment(reader *r, uint64_t cut_lsn)
{
    const wal_slot *slot = r->segments[r->position];
    uint64_t base = (uint64_t)slot_number(r, slot) * RW_LOG_SEGMENT_BYTES;
    for (; r->index < WAL_SEGMENT_BLOCKS && r->lsn < cut_lsn; r->index++) {
        const unsigned char *block;
        int rc = block_read(r, base + (uint64_t)r->index * RW_BLOCK_SIZE, &block);
        if (rc != 0) return rc;
        const wal_block_header *header = (const wal_block_header *)(const void *)block;
        if (block == NULL || !wal_block_valid(block, r->w->options.database_id, r->index) || header->segment != slot->segment ||
            header->epoch != slot->epoch || header->lsn != r->lsn || (RW_PLANTED(drop_log_block) && header->payload_bytes < WAL_PAYLOAD_BYTES / 8)) {
            return 0;
        }
        rc = wal_assembler_feed(&r->assembler, block, cut_lsn);
        if (rc != 0) return rc;
        r->lsn = RW_MIN(r->lsn + header->payload_bytes, cut_lsn);
    }
    return 0;
}

/* Goes to segments[next], which begins at the present LSN. */
static void enter(reader *r, uint32_t next)
{
    r->walked[slot_number(r, r->segments[r->position])] = true;
    r->position = next;
    r->index = 0;
}

/* Whether the walk goes on in another segment. */
static int next_segment(reader *r, uint32_t cut, uint64_t cut_lsn, bool *more)
{
    const wal_slot *slot = r->segments[r->position];
    *more = true;
    if (r->lsn == cut_lsn) {
        if (r->assembler.in_record && !r->assembler.skipping) {
            return rw_error(RW_ECORRUPT, "%s: LSN %llu: the log was cut here, inside of a record", kio_file_path(r->w->file), (ull)cut_lsn);
        }
        enter(r, cut);
        wal_assembler_restart(&r->assembler, cut_lsn);
        r->assembler.skipping = false;
        return 0;
    }
    for (uint32_t i = r->position + 1; r->index == WAL_SEGMENT_BLOCKS && i < r->count; i++) {
        const wal_slot *other = r->segments[i];
        if (other->segment != slot->segment + 1 || other->epoch != slot->epoch || other->start_lsn != r->lsn) continue;
        enter(r, i);
        return 0;
    }
    *more = false;
    return 0;
}

static int walk(reader *r)
{
    bool more = true;
    while (more) {
        uint64_t cut_lsn;
        uint32_t cut = find_cut(r, &cut_lsn);
        int rc = walk_segment(r, cut_lsn);
        if (rc == 0) rc = next_segment(r, cut, cut_lsn, &more);
        if (rc != 0) return rc;
    }
    return 0;
}

/* ---- the tail ---- */

/*
 * Whether a block tells that what lies behind end_lsn was durable. A mark above end_lsn does. So does any block of a later epoch, since an
 * epoch's start block is durable before its other blocks are written, and the walk would have come past it.
 */
static bool block_contradicts(const reader *r, const unsigned char *block, uint32_t index, uint64_t epoch, uint64_t end_lsn)
{
    const wal_block_header *header = (const wal_block_header *)(const void *)block;
    if (header->magic != WAL_BLOCK_MAGIC || header->epoch < epoch) return false;
    if (header->epoch == epoch && header->durable_lsn <= end_lsn) return false;
    return wal_block_valid(block, r->w->options.database_id, index);
}

/* Looks through what the walk did not take. RW_ECORRUPT: the walk ended at damage, not at a torn tail. */
static int examine_tail(reader *r, uint64_t epoch, uint64_t end_lsn, uint64_t stopped_at)
{
    for (uint32_t i = 0; i < r->w->slot_count; i++) {
        for (uint32_t index = 0; !r->walked[i] && index < WAL_SEGMENT_BLOCKS; index++) {
            const unsigned char *block;
            uint64_t offset = (uint64_t)i * RW_LOG_SEGMENT_BYTES + (uint64_t)index * RW_BLOCK_SIZE;
            int rc = block_read(r, offset, &block);
            if (rc != 0) return rc;
            if (block == NULL) break;
            if (!block_contradicts(r, block, index, epoch, end_lsn)) continue;
            const wal_block_header *header = (const wal_block_header *)(const void *)block;
            return rw_error(RW_ECORRUPT, "%s: offset %llu: damaged at LSN %llu; the block at offset %llu (LSN %llu, epoch %llu) shows that "
                            "the log was durable up to LSN %llu at least", kio_file_path(r->w->file), (ull)stopped_at, (ull)r->lsn,
                            (ull)offset, (ull)header->lsn, (ull)header->epoch, (ull)header->durable_lsn);
        }
    }
    return 0;
}

static int decide_end(reader *r, uint64_t from_lsn, uint64_t must_reach_lsn, uint64_t *end_lsn)
{
    const wal_slot *slot = r->count > 0 ? r->segments[r->position] : NULL;
    uint64_t stopped_at = slot == NULL ? 0 : (uint64_t)slot_number(r, slot) * RW_LOG_SEGMENT_BYTES + (uint64_t)r->index * RW_BLOCK_SIZE;
    uint64_t end = slot == NULL ? WAL_LSN_FIRST : r->assembler.whole_end;
    /* Where the log was closed it ends. And nothing has changed since an earlier walk from the same place came to the same end. */
    bool examined = end == r->w->options.closed_lsn || (r->w->replayed && r->w->examined_from == from_lsn && r->w->replay_end_lsn == end);
    int rc = examined ? 0 : examine_tail(r, slot == NULL ? 0 : slot->epoch, end, stopped_at);
    if (rc != 0) return rc;
    if (end < from_lsn || end < must_reach_lsn) {
        return rw_error(RW_ECORRUPT, "%s: offset %llu: ends at LSN %llu, but must reach LSN %llu", kio_file_path(r->w->file),
                        (ull)stopped_at, (ull)end, (ull)RW_MAX(from_lsn, must_reach_lsn));
    }
    *end_lsn = end;
    return 0;
}

/* ---- replay ---- */

static int reader_open(reader *r, wal *w)
{
    *r = (reader){.w = w, .file_size = atomic_load(&w->file_bytes)};
    r->segments = calloc((size_t)w->slot_count + 1, sizeof *r->segments);
    r->walked = calloc((size_t)w->slot_count + 1, sizeof *r->walked);
    r->buffer = rw_memory_aligned(WAL_READ_BYTES);
    if (r->segments == NULL || r->walked == NULL || r->buffer == NULL) return rw_error(RW_ENOMEM, "no memory to read the log");
    for (uint32_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i].segment != 0) r->segments[r->count++] = &w->slots[i];
    }
    qsort(r->segments, r->count, sizeof *r->segments, by_order);
    return 0;
}

static void reader_close(reader *r)
{
    wal_assembler_destroy(&r->assembler);
    free(r->segments);
    free(r->walked);
    free(r->buffer);
}

/* The last segment that begins at or before lsn: later epochs and later segments overrule earlier ones. */
static int find_start(reader *r, uint64_t lsn)
{
    uint32_t found = r->count;
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->segments[i]->start_lsn <= lsn) found = i;
    }
    if (found == r->count) {
        return rw_error(RW_ECORRUPT, "%s: offset %llu: no log segment holds LSN %llu; the first one begins at LSN %llu",
                        kio_file_path(r->w->file), (ull)slot_number(r, r->segments[0]) * RW_LOG_SEGMENT_BYTES, (ull)lsn,
                        (ull)r->segments[0]->start_lsn);
    }
    r->position = found;
    r->lsn = r->segments[found]->start_lsn;
    return 0;
}

/*
 * Salvage: what was found wrong is kept as a sentence, and the log ends behind the last whole record before it. Never before from_lsn, where the trees' images
 * stand: what lacks there is said by the sentence.
 */
static int damage_accept(reader *r, int rc, uint64_t from_lsn, uint64_t *end_lsn)
{
    wal *w = r->w;
    if (!w->options.salvage || (rc != RW_ECORRUPT && rc != RW_EIO)) return rc;
    damage_keep(w);
    *end_lsn = RW_MAX(r->assembler.whole_end, from_lsn);
    return 0;
}

const char *wal_salvage_damage(const wal *w)
{
    return w->damage[0] != 0 ? w->damage : NULL;
}

int wal_replay(wal *w, uint64_t from_lsn, uint64_t must_reach_lsn, wal_replay_fn fn, void *arg, uint64_t *end_lsn)
{
    reader r;
    uint64_t end = 0;
    RW_ASSERT(!w->started && from_lsn >= WAL_LSN_FIRST);
    if (w->replayed && w->examined_from == from_lsn && w->replay_end_lsn == from_lsn && must_reach_lsn <= from_lsn) { /* an earlier walk met no record */
        *end_lsn = from_lsn;
        return 0;
    }
    int rc = reader_open(&r, w);
    wal_assembler_init(&r.assembler, kio_file_path(w->file), from_lsn, fn, arg);
    if (rc == 0 && r.count > 0) {
        rc = find_start(&r, from_lsn);
        wal_assembler_restart(&r.assembler, r.lsn);
        if (rc == 0) rc = walk(&r);
    }
    if (rc == 0) rc = decide_end(&r, from_lsn, must_reach_lsn, &end);
    if (rc != 0) rc = damage_accept(&r, rc, from_lsn, &end);
    reader_close(&r);
    w->replayed = rc == 0;
    if (rc != 0) return rc;
    w->replay_end_lsn = end;
    w->examined_from = from_lsn;
    *end_lsn = end;
    return 0;
}
