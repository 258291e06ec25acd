/* What the files of store/ share. Nobody outside includes it, but the store's own unit tests. */
#ifndef RW_STORE_INTERNAL_H
#define RW_STORE_INTERNAL_H

#include "store/store.h"
#include "store/superblock_format.h"

#define SEGMENT_BLOCKS (RW_SEGMENT_BYTES / RW_BLOCK_SIZE)
#define SEGMENTS_MAX (1u << 28)              /* bounds what a file's size can make us allocate */
#define GROW_BYTES_MAX ((uint64_t)64 << 20)  /* the file grows by at most this beyond what is needed at once */

_Static_assert((uint64_t)SEGMENTS_MAX * SEGMENT_BLOCKS <= PAGE_REF_ADDRESS_MASK, "every block has an address");

typedef struct {
    uint64_t address;
    uint32_t blocks;           /* 0: none */
    uint32_t checksum;
} store_run;

/* ---- superblock.c ---- */

/* A superblock as it is in memory. */
typedef struct {
    uint64_t database_id;
    uint32_t page_size;
    uint32_t segments;
    bool clean;
    store_run map;
    kio_sync_times sync_times;
    store_image image;         /* partitions: one piece of memory, keys behind them */
} superblock;

/* What was found in one slot. */
typedef struct {
    int code;                  /* 0 valid; RW_ENOENT nothing but zeros; RW_EFOREIGN, RW_EVERSION, RW_ECORRUPT: text says why */
    bool sealed;               /* the checksum is right, whatever else is wrong */
    superblock block;          /* when valid */
    char text[240];
} superblock_slot;

/* Reads both slots of an open file. A bad slot is not a failure of the call. */
int superblock_read(kio *k, kio_file *file, uint64_t file_bytes, superblock_slot slots[SUPERBLOCK_SLOTS]);
void superblock_slots_free(superblock_slot slots[SUPERBLOCK_SLOTS]);
/* The slots are what an interrupted creation leaves. */
bool superblock_is_unfinished(kio *k, kio_file *file, uint64_t file_bytes, const superblock_slot slots[SUPERBLOCK_SLOTS]);
/* The slot to open with, in *chosen; or why there is none (but for an unfinished creation, which the caller has ruled out). */
int superblock_choose(kio_file *file, const superblock_slot slots[SUPERBLOCK_SLOTS], uint32_t *chosen);
/* Memory for superblock_write, for an image that fits; NULL: no memory, and the sentence is set. */
void *superblock_memory(const store_image *image);
/* Writes block to the slot of its generation. Not synced. */
int superblock_write(kio *k, kio_file *file, const superblock *block, void *memory);
uint32_t superblock_slot_of(uint64_t generation);
/* A deep copy; RW_ENOMEM. */
int superblock_image_copy(store_image *to, const store_image *from);
void superblock_image_free(store_image *image);

/* ---- segments.c, claims.c: with the store's mutex held, unless said otherwise ---- */

typedef enum { SEGMENT_FREE, SEGMENT_OPEN, SEGMENT_CLOSED, SEGMENT_RESERVED } segment_state;

typedef struct {
    uint8_t state;             /* segment_state */
    bool cleaning;             /* handed out by store_clean_pick */
    bool unreadable;           /* and could not be emptied, as something cannot be read */
    bool mapped;               /* the space map read at open counted something alive in it */
    bool spanned;              /* holds a part of a run over several segments: rewriting it would gain nothing */
} segment_flags;

typedef struct {
    _Atomic uint32_t count;    /* in the file, segment 0 included; changed with the mutex and the length mutex held, read without */
    uint32_t capacity;         /* of the arrays */
    uint32_t free_count;
    uint32_t cleaning_count;   /* segments with the cleaning flag */
    uint32_t free_hint;        /* no word of free_bits below this one has a bit set */
    uint32_t *live;            /* blocks */
    segment_flags *flags;
    uint64_t *free_bits;       /* one bit for each segment: it is free */
    struct {
        uint32_t segment;      /* 0: none is open */
        uint32_t used;         /* blocks appended so far */
    } open[STORE_STREAMS];
    /* live_blocks = allocated_blocks - released_blocks = the sum of live[] */
    uint64_t live_blocks, allocated_blocks, released_blocks;
    uint64_t *claimed;         /* one bit for each block, between open and store_claims_end; made by the first claim */
    bool claiming;
} segments;

int segments_init(segments *g, uint32_t count);
/* Memory to account for count segments. */
int segments_reserve(segments *g, uint32_t count);
/* The file has grown by so many, for which memory is reserved. */
void segments_append(segments *g, uint32_t added);
/* Takes free segments at the end out of the accounting, at most `most`, as long as more than kept_free are free. Returns how many. */
uint32_t segments_cut(segments *g, uint32_t kept_free, uint32_t most);
void segments_free_all(segments *g);
/* Returns 0, or by how many segments the file is too short: then nothing was changed. */
uint32_t segments_allocate(store *s, store_stream stream, uint32_t blocks, uint64_t *address);
void segments_release(store *s, uint64_t address, uint32_t blocks, bool give_back);
/* At open, from the entries of the space map. RW_ECORRUPT: it cannot be; nothing was loaded. */
int segments_load(store *s, const uint32_t *entries, uint32_t count);
void segment_to_free(segments *g, uint32_t n);
void segment_live_add(segments *g, uint32_t n, uint32_t blocks);
/* Aborts when the sums do not add up. */
void segments_check(store *s);
/* The run lies behind segment 0 and within the file. Without the mutex. */
bool segments_contain(const store *s, uint64_t address, uint64_t blocks);

/* ---- grow.c ---- */

/* Lengthens the file by at least needed segments. With the length mutex held, and not the other. RW_ENOSPC, RW_ENOMEM, RW_EIO: nothing was changed. */
int segments_grow(store *s, uint32_t needed);
/* The same without any mutex, unless somebody has changed the file's length since it had `seen` segments. */
int segments_grow_since(store *s, uint32_t seen, uint32_t needed);

/* ---- space_map.c ---- */

/* Allocates and fills in the map, in *memory (to be freed); from then on the store is sealed. RW_ENOSPC, RW_ENOMEM: nothing was changed. */
int space_map_make(store *s, store_run *run, void **memory);
/* Reads the map that the superblock names. A map that cannot be used: s->map_damage, and everything must be claimed. */
int space_map_read(store *s, const superblock *block);
uint32_t space_map_blocks(uint32_t segment_count);

/* ---- page.c ---- */

/* Fills in the header of a page of any type and any length; returns its checksum. */
uint32_t page_seal(const store *s, void *bytes, uint32_t length, uint8_t type, uint64_t address);
/* As store_page_check, for a page of any type. */
int page_check(const store *s, const void *bytes, uint32_t length, uint8_t type, uint64_t address, uint32_t checksum);

/* ---- store.c ---- */

struct store {
    /* set at open */
    kio *k;
    kio_file *file;
    char *dir;
    store_params params;
    bool claims_needed;
    char map_damage[240];      /* empty: none */

    kio_mutex sync_mutex;      /* held over a sync of the file, until its failure is known to all */
    kio_mutex length_mutex;    /* who changes the file's length; taken before the mutex */
    uint32_t refused_at;       /* under it: the length, in segments, at which the device had no space ahead of demand */

    kio_mutex mutex;
    /* under the mutex */
    segments segments;
    bool sealed;               /* the map of a clean publish says what is allocated: no change */
    int failure;               /* the first failed write or sync, which ends publishing; 0 none */
    char failure_text[240];

    /* the publisher's */
    store_image image;         /* of the newest superblock on disk */
    bool says_closed;          /* it says that the log is closed, whether that can be believed (image.log_closed) or not */
    store_run map;             /* that it names */
    kio_sync_times sync_times; /* goes into the next superblock */
};

/* Zeroed memory for direct I/O, bytes a multiple of a block; free with free. NULL: none. */
void *store_memory(size_t bytes);

#endif
