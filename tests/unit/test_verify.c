/*
 * What the offline check finds. A small database is made of pages by hand, each time with one thing wrong that the checksums know nothing of, and then
 * a few more are damaged from outside; the check must name that thing, and nothing in a database where there is none.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/memory.h"
#include "btree/node.h"
#include "engine/engine.h"
#include "store/store.h"
#include "tests/sim/sim.h"
#include "tests/support/tap.h"
#include "wal/wal.h"

#define DIRECTORY "/db"
#define PAGE_SIZE 4096u
#define LARGE_BYTES 9000u
#define FINDINGS_BYTES 8192u

/* What is wrong, and words of the finding; none: nothing is. */
#define DAMAGE_MAP(X)                                                                  \
    X(NONE, "")                                                                        \
    X(NONE_AFTER_CRASH, "")                                                            \
    X(LOWER_FENCE, "its lower fence is not the bound")                                 \
    X(UPPER_FENCE, "its upper fence is not the bound")                                 \
    X(LEVEL, "its own level says 1")                                                   \
    X(ESTIMATE, "its parent says 77")                                                  \
    X(EXTENTS_FLAG, "4 records and extents below it, its parent says 4")               \
    X(TIMESTAMP, "it holds a commit at LSN")                                           \
    X(PAGE_TWICE, "referenced from elsewhere too")                                     \
    X(PAGE_OUTSIDE, "it lies outside of the file's segments")                          \
    X(PAGE_LONG, "a page of 2 blocks is referenced, pages have 1")                     \
    X(PAGE_CHECKSUM, "who names it expects")                                           \
    X(UNUSED_BYTES, "bytes that it does not use are not zero")                         \
    X(NODE_RULE, "are accounted for")                                                  \
    X(SHORT_KEY, "too few for a bucket")                                               \
    X(LOW_KEY, "its lower fence is not the bound")                                     \
    X(NEXT_LOW_KEY, "its upper fence is not the bound")                                \
    X(HEIGHT, "the superblock's entry for partition 1 is impossible")                  \
    X(PARTITION_LSN, "partition 1 is as of LSN")                                       \
    X(PARTITION_ID, "two partitions with the id 1")                                    \
    X(NO_PARTITION, "the superblock names no partition")                               \
    X(CHECKPOINT_LSN, "impossible")                                                    \
    X(LEAKED_RUN, "blocks are referenced, the space map")                            \
    X(EXTENT_TWICE, "referenced from elsewhere too")                                   \
    X(EXTENT_KEY, "it belongs to another key")                                         \
    X(EXTENT_CHECKSUM, "who names it expects")                                         \
    X(BUCKET_SIZE, "the number of bucket 'two' has 3 bytes")                           \
    X(BUCKET_ABOVE_NEXT, "bucket 'two' has the number 9")                              \
    X(BUCKET_DEFAULT, "bucket 'two' has the number 1")                                 \
    X(BUCKET_TWICE, "both have the number 2")                                          \
    X(BUCKET_TWICE_BY_LOG, "both have the number 2")                                   \
    X(BUCKET_MENDED_BY_LOG, "")                                                        \
    X(LOG_SHORT, "must reach LSN")                                                     \
    X(LOG_BODY, "says operation kind 200")                                             \
    X(LOG_KEY_SHORT, "the key is too short for a bucket")                              \
    X(LOG_KEY_LONG, "the key is too long")                                             \
    X(LOG_VALUE_LONG, "the value is too long for a leaf")                              \
    X(LOG_DELETE_VALUE, "a delete has a value")                                        \
    X(LOG_RANGE, "the range ends before it begins")                                    \
    X(LOG_EXTENT_SIZE, "names an extent in 5 bytes")                                   \
    X(LOG_EXTENT_OUTSIDE, "it lies outside of the file's segments")                    \
    X(LOG_EXTENT_OVERLAP, "not that of the value named here")                           \
    X(LOG_EXTENT_CHECKSUM, "who names it expects")                                     \
    X(LOG_EXTENT_OLD, "")                                                              \
    X(LOG_MISSING, "the log is missing")                                               \
    X(DATA_MISSING, "the data file is missing")                                        \
    X(SUPERBLOCKS, "superblock slot 0")                                                \
    X(SUPERBLOCK_OLDER, "")

typedef enum {
#define DAMAGE_ENUM(name, words) name,
    DAMAGE_MAP(DAMAGE_ENUM)
#undef DAMAGE_ENUM
} damage;

static const struct {
    const char *name, *words;
} damages[] = {
#define DAMAGE_ENTRY(name, words) {#name, words},
    DAMAGE_MAP(DAMAGE_ENTRY)
#undef DAMAGE_ENTRY
};

typedef struct {
    kio *k;
    sim_disk *disk;
    damage wrong;
    store *s;
    wal *log;
    store_params params;
    unsigned char *page, *staging;
    extent_ref large;
    page_ref leaves[3], root, last;
    uint64_t checkpoint_lsn, durable_lsn;
    char findings[FINDINGS_BYTES];
    size_t findings_size;
    unsigned count;
} bed;

static void must(int code, const char *what)
{
    if (code == 0) return;
    tap_ok(false, "%s: %s", what, rw_error_text());
    tap_done();
    exit(1);
}

/* Text with \0 in it. */
#define TEXT(literal) rw_slice_of("" literal, sizeof(literal) - 1)

/* ---- the log ----------------------------------------------------------------------------------------------------- */

static void log_append(bed *b, const wal_op *ops, unsigned count)
{
    unsigned char body[4096];
    size_t size = 0;
    uint64_t lsn;
    for (unsigned i = 0; i < count; i++) {
        size += wal_op_encode_head(&ops[i], body + size);
        memcpy(body + size, ops[i].key.data, ops[i].key.size);
        size += ops[i].key.size;
        if (ops[i].second.size > 0) memcpy(body + size, ops[i].second.data, ops[i].second.size);
        size += ops[i].second.size;
    }
    if (b->wrong == LOG_BODY) body[0] = 200;
    rw_slice pieces = rw_slice_of(body, size);
    must(wal_append(b->log, WAL_COMMIT, &pieces, 1, 0, &lsn, &b->durable_lsn, NULL), "append");
    must(wal_wait(b->log, b->durable_lsn), "make durable");
}

static void log_put(bed *b, rw_slice key, rw_slice value)
{
    const wal_op op = {.kind = WAL_OP_PUT, .key = key, .second = value};
    log_append(b, &op, 1);
}

static void log_extent(bed *b, rw_slice key, extent_ref extent)
{
    const wal_op op = {.kind = WAL_OP_PUT_EXTENT, .key = key, .second = rw_slice_of(&extent, b->wrong == LOG_EXTENT_SIZE ? 5 : sizeof extent)};
    log_append(b, &op, 1);
}

static extent_ref extent_write(bed *b, rw_slice key)
{
    extent_ref extent;
    unsigned char value[LARGE_BYTES];
    memset(value, 'x', sizeof value);
    must(store_extent_write(b->s, key, rw_slice_of(value, sizeof value), b->staging, RW_BLOCK_SIZE, &extent), "write an extent");
    return extent;
}

static void log_op_wrong(bed *b)
{
    unsigned char longer[PAGE_SIZE / 2] = {0, 0, 0, 1};
    wal_op op = {.kind = WAL_OP_PUT, .key = TEXT("\0\0\0\1k"), .second = TEXT("v")};
    if (b->wrong == LOG_KEY_SHORT) op.key = TEXT("\0\0\1");
    if (b->wrong == LOG_KEY_LONG) op.key = rw_slice_of(longer, 1100);
    if (b->wrong == LOG_VALUE_LONG) op.second = rw_slice_of(longer, sizeof longer);
    if (b->wrong == LOG_DELETE_VALUE) op.kind = WAL_OP_DELETE;
    if (b->wrong == LOG_RANGE) op = (wal_op){.kind = WAL_OP_DELETE_RANGE, .key = TEXT("\0\0\0\2"), .second = TEXT("\0\0\0\1")};
    log_append(b, &op, 1);
}

/* What was committed since the checkpoint. */
static void log_tail(bed *b)
{
    const rw_slice key = TEXT("\0\0\0\1logged");
    const wal_op many[] = {{.kind = WAL_OP_PUT, .key = TEXT("\0\0\0\1a"), .second = TEXT("1")},
                           {.kind = WAL_OP_DELETE, .key = TEXT("\0\0\0\1b")},
                           {.kind = WAL_OP_DELETE_RANGE, .key = TEXT("\0\0\0\1c"), .second = TEXT("\0\0\0\1d")}};
    if (b->wrong == NONE || b->wrong == LEAKED_RUN) return;
    extent_ref extent = extent_write(b, key);
    if (b->wrong == LOG_EXTENT_OUTSIDE) extent.address = (uint64_t)1 << 40;
    if (b->wrong == LOG_EXTENT_OVERLAP) extent.address = b->large.address + 1;
    if (b->wrong == LOG_EXTENT_CHECKSUM) extent.checksum++;
    log_append(b, many, RW_ARRAY_SIZE(many));
    log_extent(b, key, extent);
    log_extent(b, TEXT("\0\0\0\1large"), b->large);
    if (b->wrong == BUCKET_TWICE_BY_LOG) log_put(b, TEXT("\0\0\0\0three"), TEXT("\2\0\0\0"));
    if (b->wrong == BUCKET_MENDED_BY_LOG) log_put(b, TEXT("\0\0\0\0"), TEXT("\4\0\0\0"));
    if (b->wrong >= LOG_KEY_SHORT && b->wrong <= LOG_RANGE) log_op_wrong(b);
}

static int record_ignore(void *arg, const wal_record *record)
{
    (void)arg, (void)record;
    return 0;
}

static void log_make(bed *b)
{
    uint64_t end_lsn;
    const wal_options options = {.database_id = b->params.database_id, .async_delay_ms = 50};
    must(wal_create(b->k, DIRECTORY, &options, &b->log), "create the log");
    must(wal_replay(b->log, WAL_LSN_FIRST, WAL_LSN_FIRST, record_ignore, NULL, &end_lsn), "replay");
    must(wal_start(b->log, end_lsn), "start the log");
    log_put(b, TEXT("\0\0\0\1before the checkpoint"), TEXT("v"));
    if (b->wrong == LOG_EXTENT_OLD) log_extent(b, TEXT("\0\0\0\1old"), (extent_ref){.address = (uint64_t)1 << 40, .length = 5});
    b->checkpoint_lsn = b->durable_lsn;
}

/* ---- the trees --------------------------------------------------------------------------------------------------- */

static node *page_node(bed *b)
{
    return (node *)(void *)b->page;
}

static void put(bed *b, rw_slice key, rw_slice value, unsigned flags)
{
    bool found;
    unsigned slot = node_lower_bound(page_node(b), PAGE_SIZE, key, &found);
    node_insert(page_node(b), PAGE_SIZE, slot, key, value, flags);
}

static void page_begin(bed *b, unsigned level, rw_slice low, rw_slice high)
{
    memset(b->page, 0, PAGE_SIZE);
    node_init(page_node(b), PAGE_SIZE, level, low, high);
}

/* Writes the page; estimate: what its reference says of it. */
static page_ref page_write(bed *b, uint32_t estimate)
{
    uint64_t address;
    must(store_allocate(b->s, STORE_PAGES, 1, &address), "allocate");
    page_ref ref = store_page_seal(b->s, b->page, PAGE_SIZE, PAGE_NODE, address, estimate);
    must(kio_file_write(b->k, store_file(b->s), b->page, PAGE_SIZE, address * RW_BLOCK_SIZE), "write a page");
    return ref;
}

/* The catalog: buckets 2 and 3, and the next number. */
static page_ref leaf_of_catalog(bed *b)
{
    rw_slice two = TEXT("\2\0\0\0");
    if (b->wrong == BUCKET_SIZE) two.size = 3;
    if (b->wrong == BUCKET_ABOVE_NEXT) two = TEXT("\11\0\0\0");
    if (b->wrong == BUCKET_DEFAULT) two = TEXT("\1\0\0\0");
    page_begin(b, 0, TEXT(""), b->wrong == UPPER_FENCE ? TEXT("\0\0\0\0zz") : TEXT("\0\0\0\1"));
    put(b, TEXT("\0\0\0\0"), b->wrong == BUCKET_MENDED_BY_LOG ? TEXT("\3\0\0\0") : TEXT("\4\0\0\0"), 0);
    put(b, TEXT("\0\0\0\0two"), two, 0);
    put(b, TEXT("\0\0\0\0other"), b->wrong == BUCKET_TWICE ? TEXT("\2\0\0\0") : TEXT("\3\0\0\0"), 0);
    if (b->wrong == SHORT_KEY) put(b, TEXT("\0\0"), TEXT(""), 0);
    return page_write(b, b->wrong == ESTIMATE ? 77 : page_node(b)->count);
}

/* User records, and two large values. */
static page_ref leaf_of_records(bed *b)
{
    const rw_slice large = TEXT("\0\0\0\1large"), second = TEXT("\0\0\0\1larger");
    b->large = extent_write(b, large);
    extent_ref other = extent_write(b, b->wrong == EXTENT_KEY ? TEXT("\0\0\0\1harder") : second);
    if (b->wrong == EXTENT_TWICE) other.address = b->large.address + 1;
    if (b->wrong == EXTENT_CHECKSUM) other.checksum++;
    page_begin(b, 0, b->wrong == LOWER_FENCE ? TEXT("\0\0\0\1a") : TEXT("\0\0\0\1"), TEXT("\0\0\0\1m"));
    put(b, TEXT("\0\0\0\1b"), TEXT("value"), 0);
    put(b, TEXT("\0\0\0\1c"), TEXT(""), 0);
    put(b, large, rw_slice_of(&b->large, sizeof b->large), NODE_SLOT_EXTENT);
    put(b, second, rw_slice_of(&other, sizeof other), NODE_SLOT_EXTENT);
    page_node(b)->page.newest_timestamp = b->wrong == TIMESTAMP ? 1u << 30 : 1;
    if (b->wrong == UNUSED_BYTES) b->page[2000] = 1;
    if (b->wrong == NODE_RULE) page_node(b)->heap_garbage = 5;
    return page_write(b, 4 | (b->wrong == EXTENTS_FLAG ? 0 : PAGE_REF_HAS_EXTENTS));
}

static page_ref leaf_of_rest(bed *b)
{
    page_begin(b, b->wrong == LEVEL ? 1 : 0, TEXT("\0\0\0\1m"), TEXT("\0\0\0\1t"));
    if (b->wrong == LEVEL) put(b, TEXT("\0\0\0\1m"), rw_slice_of(&b->leaves[0], sizeof(page_ref)), 0);
    else put(b, TEXT("\0\0\0\1n"), TEXT("value"), 0);
    return page_write(b, 1);
}

static page_ref root_make(bed *b)
{
    page_ref first = b->leaves[0];
    if (b->wrong == PAGE_TWICE) first = b->leaves[2];
    if (b->wrong == PAGE_OUTSIDE) first = page_ref_disk((uint64_t)1 << 40, 1, 0, 3);
    if (b->wrong == PAGE_LONG) first = page_ref_disk(page_ref_address(first), 2, first.checksum, first.estimate);
    if (b->wrong == PAGE_CHECKSUM) first.checksum++;
    page_begin(b, 1, TEXT(""), TEXT("\0\0\0\1t"));
    node_insert(page_node(b), PAGE_SIZE, 0, TEXT(""), rw_slice_of(&first, sizeof first), 0);
    put(b, TEXT("\0\0\0\1"), rw_slice_of(&b->leaves[1], sizeof(page_ref)), 0);
    put(b, TEXT("\0\0\0\1m"), rw_slice_of(&b->leaves[2], sizeof(page_ref)), 0);
    uint32_t estimate = 0;
    for (unsigned i = 0; i < 3; i++) estimate += (i == 0 ? first : b->leaves[i]).estimate & PAGE_REF_ESTIMATE_MAX;
    return page_write(b, estimate | (b->leaves[1].estimate & PAGE_REF_HAS_EXTENTS));
}

static void trees_make(bed *b)
{
    b->leaves[0] = leaf_of_catalog(b);
    b->leaves[1] = leaf_of_records(b);
    b->leaves[2] = leaf_of_rest(b);
    b->root = root_make(b);
    page_begin(b, 0, b->wrong == LOW_KEY ? TEXT("\0\0\0\1tt") : TEXT("\0\0\0\1t"), TEXT(""));
    put(b, TEXT("\0\0\0\1z"), TEXT("value"), 0);
    b->last = page_write(b, 1);
}

/* ---- the database ------------------------------------------------------------------------------------------------ */

static void publish(bed *b)
{
    store_partition partitions[2] = {{.root = b->root, .lsn = b->checkpoint_lsn, .id = 1, .height = 2, .low_key = TEXT("")},
                                     {.root = b->last, .lsn = b->checkpoint_lsn, .id = 2, .height = 1, .low_key = TEXT("\0\0\0\1t")}};
    store_image image = {.checkpoint_lsn = b->checkpoint_lsn, .durable_lsn = b->durable_lsn, .partition_count = 2, .next_partition_id = 3,
                         .partitions = partitions};
    if (b->wrong == NEXT_LOW_KEY) partitions[1].low_key = TEXT("\0\0\0\1u");
    if (b->wrong == HEIGHT) partitions[0].height = 17;
    if (b->wrong == PARTITION_LSN) partitions[0].lsn = b->durable_lsn + 8;
    if (b->wrong == PARTITION_ID) partitions[1].id = 1;
    if (b->wrong == NO_PARTITION) image.partition_count = 0;
    if (b->wrong == CHECKPOINT_LSN) image.checkpoint_lsn = 0;
    if (b->wrong == LOG_SHORT) image.durable_lsn += 800;
    bool clean = b->wrong == NONE || b->wrong == LEAKED_RUN;
    must(store_publish(b->s, &image, false), "publish");
    must(store_publish(b->s, &image, clean), "publish again");
}

static void leak(bed *b)
{
    uint64_t address;
    must(store_allocate(b->s, STORE_STREAMS - 1, 2, &address), "allocate");
}

static void database_make(bed *b)
{
    b->params = (store_params){.page_size = PAGE_SIZE};
    must(kio_directory_create(b->k, DIRECTORY), "make the directory");
    must(store_create(b->k, DIRECTORY, &b->params, &b->s), "create");
    log_make(b);
    trees_make(b);
    log_tail(b);
    if (b->wrong == LEAKED_RUN) leak(b);
    publish(b);
    store_close(b->s);
    must(wal_close(b->log), "close the log");
}

/* What happens to the files while nobody has them open. */
static void files_damage(bed *b)
{
    bool done = true;
    if (b->wrong == LOG_MISSING) done = sim_disk_remove(b->disk, DIRECTORY "/log");
    if (b->wrong == DATA_MISSING) done = sim_disk_remove(b->disk, DIRECTORY "/data");
    if (b->wrong == SUPERBLOCKS) done = sim_disk_flip(b->disk, DIRECTORY "/data", 70, 3);
    if (b->wrong == SUPERBLOCKS || b->wrong == SUPERBLOCK_OLDER) done &= sim_disk_flip(b->disk, DIRECTORY "/data", RW_SEGMENT_BYTES / 2 + 70, 3);
    RW_ASSERT(done);
}

static void finding_note(void *arg, const char *finding)
{
    bed *b = arg;
    b->count++;
    b->findings_size += (size_t)snprintf(b->findings + b->findings_size, sizeof b->findings - b->findings_size, "%s\n", finding);
    b->findings_size = RW_MIN(b->findings_size, sizeof b->findings - 1);
}

static void verify_check(bed *b)
{
    const char *words = damages[b->wrong].words, *name = damages[b->wrong].name;
    int code = db_verify_with(b->k, DIRECTORY, finding_note, b);
    if (words[0] == 0) tap_ok(code == 0 && b->count == 0, "%s: nothing is found", name);
    else tap_ok(code == RW_ECORRUPT && b->count > 0 && strstr(b->findings, words) != NULL, "%s: \"%s\" is found, among %u", name, words, b->count);
    bool right = words[0] == 0 ? b->count == 0 : strstr(b->findings, words) != NULL;
    if (!right) tap_diag("result %d, %s; findings: %s", code, rw_error_text(), b->findings);
}

static void locked_check(bed *b)
{
    kio_lock *lock;
    must(kio_lock_take(b->k, DIRECTORY "/lock", 0, &lock), "lock");
    tap_ok(db_verify_with(b->k, DIRECTORY, finding_note, b) == RW_EBUSY && b->count == 0, "a database in use is not looked at: %s", rw_error_text());
    kio_lock_release(b->k, lock);
}

static void run(void *arg)
{
    bed *b = arg;
    if (b->wrong == NONE) tap_ok(db_verify_with(b->k, DIRECTORY, finding_note, b) == RW_ENOENT, "no directory: %s", rw_error_text());
    database_make(b);
    files_damage(b);
    if (b->wrong == NONE) locked_check(b);
    verify_check(b);
}

int main(void)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(damages); i++) {
        bed *b = calloc(1, sizeof *b);
        RW_ASSERT(b != NULL);
        b->disk = sim_disk_create();
        sim_world *world = sim_world_open(b->disk, i + 1);
        b->k = sim_world_kio(world);
        b->wrong = (damage)i;
        b->page = rw_memory_aligned(PAGE_SIZE);
        b->staging = rw_memory_aligned(RW_BLOCK_SIZE);
        RW_ASSERT(b->page != NULL && b->staging != NULL);
        sim_run(world, run, b);
        sim_world_close(world);
        sim_disk_destroy(b->disk);
        free(b->page);
        free(b->staging);
        free(b);
    }
    return tap_done();
}
