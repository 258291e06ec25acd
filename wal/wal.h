/*
 * The log: one totally ordered stream of records, written by group commit.
 *
 * LSN: a byte position in the stream of record bytes (fragment headers included, block headers and padding not), from WAL_LSN_FIRST. A
 * record's LSN is its commit timestamp. wal_format.h has the bytes on disk.
 */
#ifndef RW_WAL_H
#define RW_WAL_H

#include <stdio.h>

#include "base/base.h"
#include "kernel_io/kernel_io.h"
#include "wal/record_format.h"

typedef struct wal wal;

#define WAL_LSN_FIRST ((uint64_t)64)

/* How a batch is made durable: its writes and then a sync of the file, or writes that are durable by themselves. */
typedef enum { WAL_SYNC_AUTO, WAL_SYNC_FDATASYNC, WAL_SYNC_DSYNC } wal_sync;

typedef struct {
    uint64_t database_id;
    uint32_t async_delay_ms;   /* a record is durable at the latest this long after it was appended */
    bool read_only;            /* replay only; wal_start is refused */
    wal_sync sync;             /* WAL_SYNC_AUTO: the faster one by sync_times; if they are of another device, or none, wal_start measures */
    kio_sync_times sync_times; /* as kept from an earlier open */
    uint64_t closed_lsn;       /* the log was closed here, and surely not begun again since; 0: not known */
    bool salvage;              /* with read_only: a log that is damaged ends before the damage, instead of being refused */
    /* Called by the writer before a batch that holds a record with WAL_NEEDS_DATA: makes the data file durable. */
    int (*sync_data)(void *arg);
    void *sync_data_arg;
    /* Called once, from the thread that met it, when the log cannot be written any more. It must not call the log. */
    void (*on_failure)(void *arg, int code, const char *text);
    void *on_failure_arg;
} wal_options;

typedef struct {
    uint64_t lsn;              /* of its first byte */
    uint64_t end_lsn;          /* of the byte after it */
    wal_kind kind;
    rw_slice body;             /* good during the call */
} wal_record;

/* A non-zero return stops the replay and is what wal_replay returns. */
typedef int (*wal_replay_fn)(void *arg, const wal_record *record);

/*
 * For who is about to create a database in dir, before anything else is made there or taken away. RW_EEXIST: dir/log holds records. RW_EFOREIGN: it is
 * neither empty nor what a creation leaves that was cut short, zeros and start blocks. Else it is emptied, durably, if it is there. own: the mark of a
 * creation stands, so the log was emptied before and written by that creation; then only records are refused, as a power cut may have garbled all else.
 */
int wal_make_way(kio *k, const char *dir, bool own);

/* Creates dir/log, empty (RW_EEXIST and RW_EFOREIGN as of wal_make_way, own being false), or opens it: RW_EFOREIGN (another database's), RW_EVERSION,
 * RW_ECORRUPT (damaged, or cut), RW_ENOENT. */
int wal_create(kio *k, const char *dir, const wal_options *options, wal **out);
int wal_open(kio *k, const char *dir, const wal_options *options, wal **out);

/*
 * Reads all whole records with lsn >= from_lsn in order. Ends at the torn tail, and sets *end_lsn behind the last whole record. RW_ECORRUPT when
 * the log does not hold from_lsn, ends before must_reach_lsn, or is damaged below the highest durable mark found in any block that follows
 * the damage; a log that ends at closed_lsn is not looked through for such marks. May be called several times before wal_start. Syncs the log file
 * before it believes what it reads (unless read-only).
 */
int wal_replay(wal *w, uint64_t from_lsn, uint64_t must_reach_lsn, wal_replay_fn fn, void *arg, uint64_t *end_lsn);

/* With salvage: why the last replay ended where it did (at its end_lsn, or before it began); NULL: at the log's true end, as far as can be seen. RW_ECORRUPT and RW_EIO of
 * fn are not told apart from the log's own there: fn must not return them. */
const char *wal_salvage_damage(const wal *w);

/* Begins to take records, at end_lsn of the last replay, in a fresh segment with a new epoch. keep_lsn: segments below it may be recycled.
 * Measures how to sync where that is asked for, starts the writer thread. RW_ENOSPC: may be tried again; after another failure the log may only be closed
 * (RW_ENOTSUP: WAL_SYNC_DSYNC was asked for, and the file system cannot). */
int wal_start(wal *w, uint64_t keep_lsn);

#define WAL_NEEDS_DATA 1u      /* the record names extents: the data file must be durable before the record is */

/*
 * Appends one record, made of pieces. Returns when its bytes are in the staging space: not written, not durable. Thread-safe; records that
 * change the same key must be appended in order (the partition's token sees to it). RW_ENOSPC when the log has no room and cannot grow: nothing was
 * appended. RW_EREADONLY after a failure (the sentence says of what). RW_ETOOBIG above 1 GiB.
 * A record longer than the staging space is taken in fragments while the writer drains them; then this call waits for the writer.
 *
 * announce, if not NULL, tells others which record is on its way: WAL_ANNOUNCE_BUSY, alone while a place in the log is being taken, with the LSN once it is
 * known; without WAL_ANNOUNCE_BUSY, the LSN alone, while this call waits for room in the staging space: then no record with a larger LSN can have been
 * appended meanwhile. After success the caller ends it by storing 0; after failure it is 0.
 */
#define WAL_ANNOUNCE_BUSY ((uint64_t)1)
int wal_append(wal *w, wal_kind kind, const rw_slice *pieces, unsigned count, unsigned flags, uint64_t *lsn, uint64_t *end_lsn,
               _Atomic uint64_t *announce);

/* Returns when everything below end_lsn is durable; a caller that finds the writer's role free takes it for its own batch. RW_EUNKNOWN when the
 * log failed before that. */
int wal_wait(wal *w, uint64_t end_lsn);

/*
 * For who does not wait itself: notify is called, from any thread, when the log is durable up to the LSN that was asked for, or has failed; once for each
 * wal_watch that returned true. It must not call the log.
 */
typedef struct wal_watcher {
    /* set before wal_watch_begin */
    void (*notify)(void *arg);
    void *arg;
    /* the log's */
    _Atomic uint64_t wanted;   /* LSN; 0: nothing */
    struct wal_watcher *next;
} wal_watcher;
void wal_watch_begin(wal *w, wal_watcher *watcher);
/* Returns when notify is not running and will not be called any more. */
void wal_watch_end(wal *w, wal_watcher *watcher);
/* Asks the log to make everything below all_lsn durable, and to notify when lsn <= all_lsn is. False: it is, or the log has failed, already. One thread at a time; a
 * later call replaces an earlier one. */
bool wal_watch(wal *w, wal_watcher *watcher, uint64_t lsn, uint64_t all_lsn);
/* 0: everything below end_lsn is durable; RW_EBUSY: not yet; RW_EUNKNOWN: the log failed before that. */
int wal_poll(wal *w, uint64_t end_lsn);

uint64_t wal_end_lsn(const wal *w);        /* after the newest appended record */
uint64_t wal_durable_lsn(const wal *w);

/* Segments that end at or below lsn may be recycled. */
void wal_trim(wal *w, uint64_t lsn);

/* Gives all but the needed segments back to the file system (those at the file's end). */
int wal_shrink(wal *w);

/* How batches are made durable, and what was measured on this device (device 0: nothing). WAL_SYNC_AUTO: not decided, as the log was not started. */
wal_sync wal_sync_mode(const wal *w, kio_sync_times *times);

typedef struct {
    /* syncs: durable writes count, too */
    uint64_t file_bytes, writes, write_bytes, syncs;
} wal_counters;
void wal_counters_get(const wal *w, wal_counters *counters);

/* Prints every block and record of the log file at path, as far as it decodes, and says what does not. Changes nothing. */
int wal_print(kio *k, const char *path, FILE *to);

/* Writes and syncs what was appended, ends the writer thread; and frees everything. After a failure returns it. */
int wal_close(wal *w);

#endif
