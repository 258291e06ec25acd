/* Between the files of the offline check. */
#ifndef RW_ENGINE_VERIFY_H
#define RW_ENGINE_VERIFY_H

#include "btree/node.h"
#include "buffer/partition.h"
#include "engine/engine_internal.h"
#include "store/store.h"
#include "wal/wal.h"

/* What the runs found in one segment of the data file add up to. */
typedef struct {
    uint32_t live;                 /* blocks */
    bool spanned;                  /* a run over several segments has a part of it */
} verify_segment;

/* The room that one level of a descent needs. */
typedef struct {
    node *page;
    unsigned char *low, *high;     /* bounds of the child being looked at; a key's room each */
} verify_level;

/* An entry of the bucket catalog, as the image or a record of the log has it. */
typedef struct {
    size_t name;                   /* where it begins in names */
    uint32_t name_size;
    uint32_t id;
    size_t sequence;               /* later ones replace earlier ones of the same name */
    bool deleted;
} verify_bucket;

typedef struct {
    verify_bucket *entries;
    size_t count, capacity;
    unsigned char *names;
    size_t names_size, names_capacity;
} verify_catalog;

typedef struct {
    kio *k;
    const char *dir;
    rw_verify_fn fn;               /* NULL: only the result is wanted */
    void *arg;
    kio_lock *lock;                /* NULL: there is no lock file, and we may not make one */
    store *store;
    wal *log;
    const store_image *image;
    uint32_t page_size;
    uint32_t key_stride;           /* of the longest stored key */
    /* findings */
    uint64_t damaged, unreadable;
    char first[256];
    bool incomplete;               /* a part of a tree could not be followed, so what is alive is not known */
    /* space */
    uint64_t *claimed;             /* one bit for each block */
    verify_segment *segments;
    uint32_t segment_count;
    /* memory of the walks */
    verify_level levels[TREE_LEVELS_MAX];
    unsigned char *staging;        /* EXTENT_STAGING_BYTES */
    unsigned char *key;            /* a key's room */
    verify_catalog catalog;
} verifier;

/* ---- findings (verify.c): all of them return 0, so that the check goes on ----------------------------------------- */

int verify_finding(verifier *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What a failed call said is a finding when it is about the file's content or the medium; else the code, which ends the check. */
int verify_take_error(verifier *v, int code, const char *where);

/* ---- space (verify_space.c) --------------------------------------------------------------------------------------- */

int verify_space_open(verifier *v);
/* Notes that a run is referenced. False: that is impossible, or a part of it was referenced before; the finding is made. */
bool verify_claim(verifier *v, uint64_t address, uint64_t blocks, const char *what);
/* Every block of the run was claimed before. */
bool verify_claimed(const verifier *v, uint64_t address, uint64_t blocks);
/* What the map of a clean close says against what was found. */
int verify_space_map(verifier *v);

/* ---- trees, log, catalog ------------------------------------------------------------------------------------------ */

int verify_trees(verifier *v);
/* Reads and checks an extent that has been claimed. */
int verify_extent(verifier *v, rw_slice key, extent_ref extent, const char *where);
int verify_log(verifier *v);
/* A record of bucket 0: key with its prefix; value NULL data: deleted. */
int verify_catalog_add(verifier *v, rw_slice key, rw_slice value, bool deleted, const char *where);
int verify_catalog_check(verifier *v);

#endif
