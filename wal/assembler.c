/* From the payload of blocks to whole records. Used by the replay and by the printer. */
#include <stdlib.h>

#include "wal/wal_internal.h"

void wal_assembler_init(wal_assembler *a, const char *path, uint64_t from_lsn, wal_replay_fn fn, void *arg)
{
    memset(a, 0, sizeof *a);
    a->path = path;
    a->from_lsn = from_lsn;
    a->fn = fn;
    a->arg = arg;
}

void wal_assembler_restart(wal_assembler *a, uint64_t lsn)
{
    a->synced = a->in_record = false;
    a->skipping = true;
    a->body_left = a->pad_left = 0;
    a->whole_end = lsn;
}

void wal_assembler_destroy(wal_assembler *a)
{
    free(a->buffer);
    a->buffer = NULL;
}

static int nonsense(const wal_assembler *a, uint64_t lsn, const char *what)
{
    return rw_error(RW_ECORRUPT, "%s: LSN %llu: %s", a->path, (unsigned long long)lsn, what);
}

static int buffer_add(wal_assembler *a, const unsigned char *from, size_t size)
{
    if (a->buffer_size + size > a->buffer_room) {
        size_t room = RW_MAX(a->buffer_room * 2, a->buffer_size + size + 4096);
        unsigned char *grown = realloc(a->buffer, room);
        if (grown == NULL) return rw_error(RW_ENOMEM, "no memory for a log record of more than %zu bytes", a->buffer_size);
        a->buffer = grown;
        a->buffer_room = room;
    }
    memcpy(a->buffer + a->buffer_size, from, size);
    a->buffer_size += size;
    return 0;
}

static bool kind_known(unsigned kind)
{
    switch (kind) {
#define WAL_KIND_CASE(name, code, text) case code:
        WAL_RECORD_KINDS(WAL_KIND_CASE)
#undef WAL_KIND_CASE
        return true;
    default: return false;
    }
}

/* The header of a fragment at lsn. */
static int begin_fragment(wal_assembler *a, uint64_t lsn, const unsigned char *from)
{
    wal_fragment_header header;
    memcpy(&header, from, sizeof header);
    uint32_t size = header.word & WAL_FRAGMENT_SIZE_MASK;
    bool first = (header.word & WAL_FRAGMENT_FIRST) != 0;
    if ((header.word & WAL_FRAGMENT_READY) == 0 || size > WAL_FRAGMENT_BODY_MAX || header.check != (uint16_t)(lsn >> 3)) {
        return nonsense(a, lsn, "there is no fragment header where one must be");
    }
    if (!kind_known(header.kind)) return nonsense(a, lsn, "a record of a kind that there is not");
    if (first ? a->in_record : !a->in_record && !a->skipping) return nonsense(a, lsn, "a fragment that does not follow from the one before");
    a->word = header.word;
    a->body_left = size;
    a->pad_left = rw_align_up(size, 8) - size;
    if (first) {
        a->whole_end = lsn;
        a->skipping = false;
        a->in_record = true;
        a->buffer_size = 0;
        a->record.lsn = lsn;
        a->record.kind = (wal_kind)header.kind;
    }
    return 0;
}

/* The present fragment is complete, up to lsn. */
static int end_fragment(wal_assembler *a, uint64_t lsn, rw_slice in_place)
{
    if ((a->word & WAL_FRAGMENT_LAST) == 0) return 0;
    a->whole_end = lsn;
    if (!a->in_record) return 0;
    a->in_record = false;
    a->record.end_lsn = lsn;
    a->record.body = in_place.data != NULL ? in_place : rw_slice_of(a->buffer, a->buffer_size);
    return a->record.lsn < a->from_lsn ? 0 : a->fn(a->arg, &a->record);
}

/* Some bytes of the present fragment, those at from; *used tells how many. */
static int take_bytes(wal_assembler *a, uint64_t lsn, const unsigned char *from, uint64_t room, uint64_t *used)
{
    const uint32_t alone = WAL_FRAGMENT_FIRST | WAL_FRAGMENT_LAST;
    uint64_t body = RW_MIN(a->body_left, room), pad = body < a->body_left ? 0 : RW_MIN(a->pad_left, room - body);
    rw_slice in_place = {0};
    if ((a->word & alone) == alone && a->in_record && body == (a->word & WAL_FRAGMENT_SIZE_MASK) && pad == a->pad_left) {
        in_place = rw_slice_of(from, (size_t)body);
    } else if (a->in_record && body > 0) {
        int rc = buffer_add(a, from, (size_t)body);
        if (rc != 0) return rc;
    }
    a->body_left -= body;
    a->pad_left -= pad;
    *used = body + pad;
    if (a->body_left + a->pad_left > 0) return 0;
    return end_fragment(a, lsn + body + pad, in_place);
}

int wal_assembler_feed(wal_assembler *a, const unsigned char *block, uint64_t limit_lsn)
{
    wal_block_header header;
    memcpy(&header, block, sizeof header);
    const unsigned char *payload = block + WAL_HEADER_BYTES;
    uint64_t at = 0, end = header.payload_bytes;
    if (a->synced) {
        uint64_t left = a->body_left + a->pad_left;
        uint64_t expected = left < end ? left : WAL_NO_FRAGMENT;
        if (header.first_fragment != expected) return nonsense(a, header.lsn, "the block's fragments begin where none can");
    } else {
        if (header.first_fragment == WAL_NO_FRAGMENT) {
            if (header.flags & WAL_BLOCK_RECORD_END) a->whole_end = header.lsn + end;
            return 0;
        }
        a->synced = true;
        at = header.first_fragment;
    }
    if (limit_lsn - header.lsn < end) end = limit_lsn - header.lsn;
    while (at < end) {
        uint64_t used = 0;
        int rc;
        if (a->body_left + a->pad_left == 0) {
            rc = begin_fragment(a, header.lsn + at, payload + at);
            at += WAL_FRAGMENT_HEADER_BYTES;
            if (rc == 0 && a->body_left == 0) rc = end_fragment(a, header.lsn + at, rw_slice_of(payload + at, 0));
        } else {
            rc = take_bytes(a, header.lsn + at, payload + at, end - at, &used);
            at += used;
        }
        if (rc != 0) return rc;
    }
    return 0;
}
