/* What the files of wal/ share. README.md has the invariants and the wake protocol. */
#ifndef RW_WAL_INTERNAL_H
#define RW_WAL_INTERNAL_H

#include "base/memory.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

#define WAL_STAGING_MASK ((uint64_t)RW_LOG_STAGING_BYTES - 1)
#define WAL_STAGING_HALF ((uint64_t)RW_LOG_STAGING_BYTES / 2)
/* A batch's bytes at most: whole blocks, so that a batch cut at this costs no padding. */
#define WAL_BATCH_BLOCKS (RW_MIN((1u << 20), RW_LOG_STAGING_BYTES / 2) / WAL_PAYLOAD_BYTES)
#define WAL_BATCH_BYTES ((uint64_t)WAL_BATCH_BLOCKS * WAL_PAYLOAD_BYTES)
#define WAL_SEGMENT_PAYLOAD ((uint64_t)WAL_SEGMENT_BLOCKS * WAL_PAYLOAD_BYTES)
/* Room held back for the padding of batches, so that the limit need not be lowered at each. */
#define WAL_MARGIN_BYTES (WAL_SEGMENT_PAYLOAD / 4)
#define WAL_IO_BYTES RW_MIN(256u << 10, RW_LOG_SEGMENT_BYTES)   /* one zero-write */
#define WAL_RESERVE_TAG ((uint64_t)7)
#define WAL_TEXT_BYTES 256

_Static_assert((RW_LOG_STAGING_BYTES & (RW_LOG_STAGING_BYTES - 1)) == 0, "the staging space is a ring by mask");
_Static_assert(WAL_BATCH_BLOCKS >= 2 && WAL_BATCH_BLOCKS + 1 < WAL_SEGMENT_BLOCKS, "a batch touches at most two segments");
_Static_assert(RW_LOG_SEGMENT_BYTES % WAL_IO_BYTES == 0, "a segment is whole transfers");

/* The states of a slot; README.md has the diagram. */
typedef enum { WAL_SLOT_FREE, WAL_SLOT_PREPARING, WAL_SLOT_READY, WAL_SLOT_LIVE } wal_slot_state;

typedef struct {
    wal_slot_state state;
    bool written;              /* every block of it was written and synced once: usable without zeroing */
    uint64_t segment;          /* 0: its first block is not valid */
    uint64_t epoch;
    uint64_t start_lsn;
    uint64_t end_lsn;          /* LIVE and not current: of the segment's last byte that counts */
} wal_slot;

#define WAL_NO_SLOT UINT32_MAX

struct wal {
    /* ---- set at open ---- */
    kio *k;
    kio_file *file;
    wal_options options;
    bool replayed, started;
    wal_sync sync;                 /* in effect; WAL_SYNC_AUTO: not decided */
    kio_sync_times sync_times;     /* of this device, device 0: not known */
    uint64_t replay_end_lsn;
    char damage[2 * WAL_TEXT_BYTES];   /* salvage: why the replay ended before the log's end; empty: it did not */
    uint64_t examined_from;        /* where the replay began that ended there, and looked through what lies beyond */
    unsigned char *staging;        /* ring: the byte of LSN x is at x & WAL_STAGING_MASK; zero from reserve to consumed + its size */
    uint64_t epoch;

    /* ---- appenders read at each append, others write now and then ---- */
    RW_ALIGNED(RW_CACHE_LINE)
    _Atomic uint64_t limit;        /* records may be reserved up to here: what is below can be written */
    _Atomic uint64_t consumed;     /* the staging space below is zeroed and may be reserved again; written by the role's holder */
    _Atomic uint32_t failed;       /* 1: failure_code and failure_text are set, for good */
    _Atomic uint32_t idle;         /* 1: the writer thread sleeps without a time-out */
    _Atomic uint32_t flush_asked;  /* 1: somebody has woken the writer thread because the staging space fills */

    /* ---- every append writes ---- */
    RW_ALIGNED(RW_CACHE_LINE)
    _Atomic uint64_t reserve;      /* end of the newest record; its low 3 bits are a tag, changed when limit is lowered */

    /* ---- waiters ---- */
    RW_ALIGNED(RW_CACHE_LINE)
    _Atomic uint64_t durable;      /* end of the last whole record that is durable */
    _Atomic uint64_t demand;       /* highest LSN that somebody waits for */
    _Atomic uint32_t role;         /* 1: taken */
    _Atomic uint64_t batch;        /* number of the last batch begun */
    _Atomic uint64_t extent[2];    /* end LSN of the last batch begun of each parity */
    RW_ALIGNED(RW_CACHE_LINE)
    _Atomic uint32_t batch_word[2];    /* counts the batches finished of each parity; futexes */
    _Atomic uint32_t batch_sleepers[2];
    _Atomic uint32_t space_word;       /* changes when consumed has risen and somebody waits for it; futex */
    _Atomic uint32_t space_sleepers;
    _Atomic uint32_t slot_word;        /* changes when limit was raised or growing failed; futex */

    /* ---- the role's holder ---- */
    RW_ALIGNED(RW_CACHE_LINE)
    uint64_t scanned;              /* every fragment below is filled; at a fragment's beginning, >= consumed */
    uint64_t next_header;          /* LSN of the first fragment header at or above consumed */
    uint64_t record_end;           /* end of the last whole record below consumed */
    bool after_record;             /* a record ends at next_header */
    uint64_t segment;              /* number of the current segment */
    uint32_t index;                /* of the next block in it */
    uint32_t current;              /* its slot; changed under slots_mutex too */
    unsigned char *blocks;         /* WAL_BATCH_BLOCKS + 1 blocks */

    /* ---- slots_mutex ---- */
    kio_mutex slots_mutex;
    wal_slot *slots;
    uint32_t slot_count, slot_room;
    uint32_t ready_count;
    uint64_t capacity;             /* LSN that is reached if all free blocks in current and ready slots are filled to the last byte */
    uint64_t wanted;               /* limit that appenders wait for */
    uint64_t trim_lsn;
    uint64_t recyclable_below;     /* a segment that ends below has a successor whose first block is durable */
    bool growth_blocked;           /* the last attempt failed and nothing has changed since */
    uint32_t growth_failures;
    int growth_code;
    char growth_text[WAL_TEXT_BYTES];

    /* ---- the writer thread (before it starts: wal_start) ---- */
    uint32_t prepare_slot;         /* being zeroed, WAL_NO_SLOT: none */
    uint64_t prepare_done;         /* bytes of it zeroed */
    unsigned char *zeros;          /* WAL_IO_BYTES */
    uint64_t tick_lsn;             /* reserve at the last tick */
    uint64_t tick_ns;              /* when the next one is due */
    kio_thread *thread;
    _Atomic uint32_t writer_word;  /* futex */
    _Atomic uint32_t writer_asleep;
    _Atomic uint32_t stop;

    kio_mutex sync_mutex;          /* held over a sync of the file or a durable write, until its failure is known to all */

    /* ---- watchers_mutex ---- */
    kio_mutex watchers_mutex;
    wal_watcher *watchers;
    _Atomic uint32_t watcher_count;    /* changed under the mutex, read by any thread */

    /* ---- failure_mutex ---- */
    kio_mutex failure_mutex;
    int failure_code;
    char failure_text[WAL_TEXT_BYTES];

    /* ---- counters ---- */
    RW_ALIGNED(RW_CACHE_LINE)
    _Atomic uint64_t file_bytes, writes, write_bytes, syncs;
};

static inline uint64_t wal_reserved(const wal *w)
{
    return atomic_load(&w->reserve) & ~WAL_RESERVE_TAG;
}

/* A fragment's header in the staging space is read and written as one number, so that it is seen whole or as zero. */
static inline _Atomic uint64_t *wal_staging_header(wal *w, uint64_t lsn)
{
    return (_Atomic uint64_t *)(void *)(w->staging + (lsn & WAL_STAGING_MASK));
}

/* ---- watch.c ---- */
/* After durable has risen, or the log has failed. */
void wal_watchers_notify(wal *w);

/* ---- writer.c ---- */
void wal_demand(wal *w, uint64_t end_lsn);

/* ---- wal.c ---- */
/* Takes the calling thread's error sentence as the log's failure, tells on_failure, wakes everybody. Only the first call counts. */
void wal_fail(wal *w, int code);
static inline bool wal_has_failed(const wal *w)
{
    return atomic_load_explicit(&w->failed, memory_order_acquire) != 0;
}
/* Returns code, with the failure in the sentence. */
int wal_failure(wal *w, int code);
/* Write or sync of the log file, counted. A failed sync is the log's failure. A sync covers all writes before it, a durable write none but itself. */
int wal_file_write(wal *w, const void *from, size_t length, uint64_t offset);
int wal_file_sync(wal *w);
/* A write that is durable when it has returned 0, alone. Failing is the log's failure. */
int wal_file_write_durable(wal *w, const void *from, size_t length, uint64_t offset);

/* ---- writer.c ---- */
void wal_writer_kick(wal *w);
int wal_writer_start(wal *w);
void wal_writer_stop(wal *w);

/* ---- segments.c ---- */
/* The order of segments in the log: by epoch, then by number. */
bool wal_slot_follows(const wal_slot *later, const wal_slot *earlier);
/* What holds at lsn after a replay: which slots are live and which free. */
void wal_slots_lay_out(wal *w, uint64_t end_lsn, uint64_t keep_lsn);
/* Takes a ready slot and writes the epoch's start block. */
int wal_slots_begin(wal *w, uint64_t lsn);
/* How many of filled bytes the next batch takes; pays for its padding. 0: must wait until all that is reserved is filled. */
uint64_t wal_slots_charge(wal *w, uint64_t filled);
/* The current segment is full and ends at lsn: makes a ready slot the current one. */
void wal_slots_advance(wal *w, uint64_t lsn);
/* Waits until limit >= lsn. The code of the attempt when growing failed. */
int wal_slots_ask(wal *w, uint64_t lsn);
/* Works for about budget bytes on getting slots ready where there are too few. True when it did something. */
bool wal_slots_prepare(wal *w, uint64_t budget);
void wal_slots_synced(wal *w, uint64_t lsn);
void wal_block_seal(const wal *w, wal_block_header *header);

/* ---- reader.c ---- */
/* Reads every slot's first block. */
int wal_slots_scan(wal *w);
/* The table of slots, all free, for a file of that size. */
int wal_slots_table(wal *w, uint64_t size);
/* Valid by itself; see wal_format.h. */
bool wal_block_valid(const void *block, uint64_t database_id, uint32_t index);

/* ---- create.c ---- */
/* Whether the file may be emptied for a new log: as wal_make_way. */
int wal_leftover_check(kio *k, kio_file *file, bool own);

/* ---- assembler.c: fragments into records ---- */
typedef struct {
    wal_replay_fn fn;
    void *arg;
    uint64_t from_lsn;         /* records that begin below are not handed on */
    const char *path;          /* for messages */
    bool synced;               /* knows where the next fragment begins */
    bool in_record;            /* has the first fragment of a record, not the last */
    bool skipping;             /* has not met a first fragment yet */
    uint32_t word;             /* of the present fragment */
    uint64_t body_left;        /* bytes of the present fragment's body that are still to come */
    uint64_t pad_left;         /* and of the zeros behind it */
    uint64_t whole_end;        /* behind the last whole record */
    wal_record record;         /* being assembled */
    unsigned char *buffer;
    size_t buffer_size, buffer_room;
} wal_assembler;

void wal_assembler_init(wal_assembler *a, const char *path, uint64_t from_lsn, wal_replay_fn fn, void *arg);
/* At a place where nothing is known of the stream before: the next block says where a fragment begins. */
void wal_assembler_restart(wal_assembler *a, uint64_t lsn);
/* Takes the payload of a valid block, up to limit_lsn. RW_ECORRUPT, or what fn returned. */
int wal_assembler_feed(wal_assembler *a, const unsigned char *block, uint64_t limit_lsn);
void wal_assembler_destroy(wal_assembler *a);

#endif
