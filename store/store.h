/*
 * The data file: superblocks, allocation of block runs in segments, deferred release, page and extent transfer. It knows nothing of trees:
 * what is alive is what was allocated and not yet released.
 *
 * File: segment 0 holds the two superblock slots (half a segment each); segments 1.. hold pages and extents.
 */
#ifndef RW_STORE_H
#define RW_STORE_H

#include "base/base.h"
#include "kernel_io/kernel_io.h"
#include "store/page_format.h"

typedef struct store store;

/* Writes of a partition that were sorted and written together, without their leaves (btree/spill.h): a tree of pages of its own. */
typedef struct {
    page_ref root;             /* on disk */
    uint64_t newest;           /* timestamp of the newest of the writes */
    uint32_t height;           /* levels: at least two */
    uint32_t number;           /* among the partition's: 1 to PAGE_REF_SPILL_MAX */
} store_spill;

#define STORE_SPILLS_MAX 3u    /* of a partition */

/* One partition as the superblock names it. */
typedef struct {
    page_ref root;             /* on disk */
    uint64_t lsn;              /* commits with a smaller LSN are in the image; replay to this partition starts here */
    uint32_t id;
    uint32_t height;           /* levels */
    uint32_t spill_count;
    uint32_t spill_number;     /* the last that was given; references to leaves may speak of them */
    store_spill spills[STORE_SPILLS_MAX];      /* in the order in which they were made */
    rw_slice low_key;          /* smallest key that belongs to it; empty for the first */
} store_partition;

/* What a checkpoint publishes. */
typedef struct {
    uint64_t generation;       /* set by the store */
    uint64_t checkpoint_lsn;   /* recovery replays the log from here: the smallest of the partitions' */
    uint64_t durable_lsn;      /* the log was durable up to here when this was published: it must reach at least that far */
    bool log_closed;           /* and ends there: nobody has begun it again since */
    uint32_t partition_count;
    uint32_t next_partition_id;
    store_partition *partitions;   /* ordered by low_key; in a superblock read at open: owned by the store, good until the next publish */
} store_image;

typedef struct {
    uint64_t database_id;
    uint32_t page_size;
    bool read_only;
} store_params;

/*
 * Creates dir/data with an empty image (no partitions yet: the first store_publish makes the database). The file must not exist, or be
 * unfinished. Allocation is open at once: there is nothing to claim. With page_size from params; the database id is drawn at random and returned in params.
 */
int store_create(kio *k, const char *dir, store_params *params, store **out);
/*
 * Opens dir/data: takes the newest valid superblock; RW_EFOREIGN, RW_EVERSION, RW_ECORRUPT (which slot, why), RW_ENOENT: there is no such file,
 * or its creation was never finished. Fills params in; params->read_only is the caller's wish. Unless read-only, syncs file and directory
 * before it believes what it reads.
 */
int store_open(kio *k, const char *dir, store_params *params, store **out);
/* dir/data is what an interrupted creation leaves: it never was a database, and store_create replaces it. False when there is no such file. */
bool store_is_unfinished(kio *k, const char *dir);
/* And the mark of that creation stands: it was durable before anything else of the database was written. */
bool store_creation_is_marked(kio *k, const char *dir);
void store_close(store *s);
kio_file *store_file(store *s);
/* The image as the newest superblock on disk has it: read at open, or published since. */
const store_image *store_image_opened(const store *s);
/* What was measured of the device, as the superblock read at open has it, or as it was given since; device 0: nothing. Kept by the next publish. The publisher's. */
kio_sync_times store_sync_times(const store *s);
void store_sync_times_keep(store *s, const kio_sync_times *times);
/* Makes completed writes to the data file durable, as extents need before the log names them. A failure is final: RW_EIO from every later
 * store_publish and store_sync. Thread-safe. */
int store_sync(store *s);

/* Whether an image with this partition table fits a superblock slot: asked before a partition is split. */
bool store_image_fits(const store_image *image);

/*
 * After store_open of a database that was not closed cleanly nothing is known of what is alive: every run that the image or the log
 * references must be claimed, then store_claims_end opens allocation. After a clean close the space map was read, claims_needed is false, but
 * runs named by a log that is still to be replayed may be claimed all the same before store_claims_end. Claiming a run twice, one that is
 * out of the file, or one that is already live: RW_ECORRUPT.
 */
bool store_claims_needed(const store *s);
int store_claim(store *s, uint64_t address, uint32_t blocks);
/* Whether all these blocks were claimed since open; before store_claims_end only. An extent may be named by the image and by the log. */
bool store_is_claimed(store *s, uint64_t address, uint32_t blocks);
void store_claims_end(store *s);

/* What is written together should die together: images of whole partitions lie apart from pages that left the cache one by one. */
typedef enum { STORE_PAGES, STORE_IMAGES, STORE_EXTENTS, STORE_STREAMS } store_stream;

/*
 * Allocates a run of consecutive blocks: within one segment when it fits one, otherwise over consecutive whole segments. Each stream
 * appends to an open segment of its own; a new one is the free segment with the lowest address, or the file grows (kio_file_allocate).
 * Thread-safe. RW_ENOSPC leaves everything as it was.
 */
int store_allocate(store *s, store_stream stream, uint32_t blocks, uint64_t *address);
/* As store_allocate, for up to *units runs of `unit` blocks, one behind the other: as many as the open segment has room for, so that its tail is not
 * lost; at least one. *units: how many. */
int store_allocate_some(store *s, store_stream stream, uint32_t unit, uint32_t *units, uint64_t *address);
/* Gives up the open segments from the one with that number on: what is appended next goes to the lowest free ones. Before the file's end is emptied or cut. */
void store_streams_end(store *s, uint32_t from);
/* Gives back a run that nothing on disk can reference (an allocation that was never named). Thread-safe. */
void store_give_back(store *s, uint64_t address, uint32_t blocks);

/*
 * Runs that the tree no longer names but an older image may. The owner of a list decides when no image on disk names them any more, and
 * then releases them. A list is its owner's: not thread-safe. A zeroed list is empty.
 */
typedef struct {
    struct { uint64_t address; uint32_t blocks; } *runs;
    uint32_t count, capacity;
    uint64_t blocks;           /* sum */
} store_retired;

void store_retire(store_retired *list, uint64_t address, uint32_t blocks);
/* Moves all of from to the end of to. */
void store_retired_move(store_retired *to, store_retired *from);
void store_retired_free(store_retired *list);
/*
 * The runs are free now: whoever releases knows that no superblock on disk, and no log record that may be replayed, names them. Segments that
 * hold nothing alive become free. Empties the list. Thread-safe as to the store. Not after a clean publish, whose map counted them as alive.
 */
void store_release(store *s, store_retired *list);

/* Reads the page that ref names (page_ref_blocks * RW_BLOCK_SIZE bytes) and checks checksum, magic, version, type, database id, own address,
 * length. RW_ECORRUPT says which of them, with the file's path and offset. buffer is block-aligned. */
int store_page_read(store *s, page_ref ref, void *buffer);
/* The same check alone, for bytes that a ring has read. */
int store_page_check(const store *s, page_ref ref, const void *bytes);
/* Fills in the header's fields that are the store's (all but level, partition and newest timestamp) of a page about to be written
 * at address, and returns its reference with checksum. */
page_ref store_page_seal(const store *s, void *bytes, uint32_t length, uint8_t type, uint64_t address, uint32_t estimate);

/*
 * Writes a large value to an extent of its own (direct I/O through a bounded staging buffer of the caller's: buffer, block-aligned, of
 * buffer_bytes, a multiple of RW_BLOCK_SIZE). Not synced: whoever names it in the log syncs store_file first. key: with bucket prefix.
 */
int store_extent_write(store *s, rw_slice key, rw_slice value, void *buffer, size_t buffer_bytes, extent_ref *out);
/* Reads a value back into value (ref.length bytes; NULL: only checks) and checks everything. key: the one under which it was found. */
int store_extent_read(store *s, extent_ref ref, rw_slice key, void *value, void *buffer, size_t buffer_bytes);

/*
 * Makes all completed writes to the data file durable, then writes image to the superblock slot that does not hold the present one, and
 * makes that durable. After a failed write or sync the store takes no further publish (RW_EIO). The caller has made the log durable up to
 * image->durable_lsn.
 *
 * clean: also writes the space map, so that the next open need not claim. The map says what is allocated, so nothing that the image does not
 * name may be: publish without clean, release everything retired, publish the same image clean. Until a later publish without clean the store
 * then takes no allocation (RW_ECLOSED) and no release. RW_ENOSPC and RW_ENOMEM (of the map) leave everything as it was: an image
 * without clean can still be published.
 */
int store_publish(store *s, const store_image *image, bool clean);
/* Before the log is begun: if the superblock on disk says that it was closed, makes the next one durable, which is the same but for that. After store_claims_end. */
int store_log_begin(store *s);

/* Space. */
typedef struct {
    uint64_t file_bytes;
    uint64_t live_bytes;       /* allocated or claimed and not released; superblocks not counted */
    uint32_t segments;         /* with segment 0 */
    uint32_t segments_free;
    uint32_t segments_cleaning;    /* handed out by store_clean_pick, and not free yet */
} store_space;
void store_space_get(store *s, store_space *space);
/* Live bytes of one segment, for checkers. */
uint32_t store_segment_live(store *s, uint32_t segment);
/*
 * Picks the closed segment with the least alive among those whose live share is below max_live_percent and that lie at or after segment
 * `from`, and marks it as being cleaned (not picked again until it was free once, or store_clean_end). 0: none.
 */
uint32_t store_clean_pick(store *s, unsigned max_live_percent, uint32_t from);
/* Gives it up. unreadable: not to be picked again before store_clean_retry. */
void store_clean_end(store *s, uint32_t segment, bool unreadable);
/* What could not be read may be readable now. */
void store_clean_retry(store *s);
/* The space map's own run, which is alive and which nothing else names; blocks 0: there is none. For checkers. */
void store_space_map_run(const store *s, uint64_t *address, uint32_t *blocks);
/* Why the space map of a cleanly closed database could not be used, so that everything must be claimed after all; NULL otherwise. */
const char *store_space_map_damage(const store *s);
/* Lengthens the file by a step if few segments are free, so that those who allocate need not. For the one who writes in the background, now and then. */
void store_grow_ahead(store *s);
/*
 * Cuts free segments off the end of the file, as long as more than kept_free are free, in small steps, between which others allocate and read. Returns the number of
 * bytes given back in *bytes, also when a step failed.
 */
int store_shrink(store *s, uint32_t kept_free, uint64_t *bytes);

#endif
