/* Prints a log file as far as it decodes; changes nothing. */
#include <stdlib.h>

#include "wal/wal_internal.h"

typedef unsigned long long ull;

#define SHOWN_BYTES 48u

static const char *kind_text(unsigned kind)
{
    switch (kind) {
#define WAL_KIND_TEXT(name, code, text) case code: return text;
        WAL_RECORD_KINDS(WAL_KIND_TEXT)
#undef WAL_KIND_TEXT
    default: return "unknown kind";
    }
}

static const char *op_text(wal_op_kind kind)
{
    switch (kind) {
    case WAL_OP_PUT: return "put";
    case WAL_OP_DELETE: return "delete";
    case WAL_OP_DELETE_RANGE: return "delete range";
    case WAL_OP_PUT_EXTENT: return "put extent";
    }
    return "unknown operation";
}

/* The beginning of some bytes: what is printable as it is, the rest as \xx. */
static void print_bytes(FILE *to, const char *name, rw_slice bytes)
{
    const unsigned char *at = bytes.data;
    fprintf(to, " %s(%zu) ", name, bytes.size);
    for (size_t i = 0; i < bytes.size && i < SHOWN_BYTES; i++) {
        if (at[i] >= 0x20 && at[i] < 0x7f && at[i] != '\\') fputc(at[i], to);
        else fprintf(to, "\\%02x", at[i]);
    }
    if (bytes.size > SHOWN_BYTES) fputs("...", to);
}

static int print_record(void *arg, const wal_record *record)
{
    FILE *to = arg;
    size_t at = 0;
    wal_op op;
    int rc;
    fprintf(to, "    record lsn %llu to %llu, %s, body %zu bytes\n", (ull)record->lsn, (ull)record->end_lsn, kind_text(record->kind),
            record->body.size);
    while ((rc = wal_op_decode(record->body, &at, &op)) == 0) {
        fprintf(to, "        %s", op_text(op.kind));
        print_bytes(to, "key", op.key);
        if (op.second.size > 0) print_bytes(to, op.kind == WAL_OP_DELETE_RANGE ? "to" : "value", op.second);
        fputc('\n', to);
    }
    if (rc != RW_ENOTFOUND) fprintf(to, "        not decoded from byte %zu: %s\n", at, rw_error_text());
    return 0;
}

/* The header of a block that is sound, whoever's it is. */
static void print_header(FILE *to, uint64_t offset, const wal_block_header *header)
{
    fprintf(to, "  block at %llu: segment %llu index %u, epoch %llu, lsn %llu, payload %u, ", (ull)offset, (ull)header->segment, header->index,
            (ull)header->epoch, (ull)header->lsn, header->payload_bytes);
    if (header->first_fragment == WAL_NO_FRAGMENT) fputs("no fragment begins", to);
    else fprintf(to, "first fragment at %u", header->first_fragment);
    fprintf(to, ", durable %llu, database %016llx, version %u%s%s\n", (ull)header->durable_lsn, (ull)header->database_id, header->version,
            header->flags & WAL_BLOCK_START ? ", start of an epoch" : "", header->flags & WAL_BLOCK_RECORD_END ? ", ends a record" : "");
}

typedef struct {
    FILE *to;
    wal_assembler assembler;
    uint64_t segment, epoch, next_lsn;   /* what the next block must carry to continue the one before */
    uint64_t skipped, skipped_at;        /* bytes without a block, and where they begin */
} printer;

static void print_skipped(printer *p)
{
    if (p->skipped > 0) fprintf(p->to, "  no block in %llu bytes at %llu\n", (ull)p->skipped, (ull)p->skipped_at);
    p->skipped = 0;
}

static void print_block(printer *p, const unsigned char *block, uint64_t offset)
{
    const wal_block_header *header = (const wal_block_header *)(const void *)block;
    uint32_t index = (uint32_t)(offset % RW_LOG_SEGMENT_BYTES / RW_BLOCK_SIZE);
    if (header->magic != WAL_BLOCK_MAGIC || !wal_block_valid(block, header->database_id, index)) {
        if (p->skipped == 0) p->skipped_at = offset;
        p->skipped += RW_BLOCK_SIZE;
        return;
    }
    print_skipped(p);
    print_header(p->to, offset, header);
    if (header->segment != p->segment || header->epoch != p->epoch || header->lsn != p->next_lsn) {
        wal_assembler_restart(&p->assembler, header->lsn);
    }
    p->segment = header->segment;
    p->epoch = header->epoch;
    p->next_lsn = header->lsn + header->payload_bytes;
    int rc = wal_assembler_feed(&p->assembler, block, UINT64_MAX);
    if (rc == 0) return;
    fprintf(p->to, "    not decoded: %s\n", rw_error_text());
    wal_assembler_restart(&p->assembler, p->next_lsn);
}

int wal_print(kio *k, const char *path, FILE *to)
{
    kio_file *file = NULL;
    uint64_t size = 0;
    printer p = {.to = to};
    unsigned char *block = rw_memory_aligned(RW_BLOCK_SIZE);
    if (block == NULL) return rw_error(RW_ENOMEM, "no memory for a log block");
    int rc = kio_file_open(k, path, KIO_READ_ONLY | KIO_DIRECT, &file);
    if (rc == 0) rc = kio_file_size(k, file, &size);
    wal_assembler_init(&p.assembler, path, 0, print_record, to);
    for (uint64_t offset = 0; rc == 0 && offset + RW_BLOCK_SIZE <= size; offset += RW_BLOCK_SIZE) {
        if (offset % RW_LOG_SEGMENT_BYTES == 0) {
            print_skipped(&p);
            fprintf(to, "slot %llu at %llu\n", (ull)(offset / RW_LOG_SEGMENT_BYTES), (ull)offset);
        }
        rc = kio_file_read(k, file, block, RW_BLOCK_SIZE, offset);
        if (rc == 0) print_block(&p, block, offset);
    }
    print_skipped(&p);
    wal_assembler_destroy(&p.assembler);
    if (file != NULL) kio_file_close(k, file);
    free(block);
    return rc;
}
