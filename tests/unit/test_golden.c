/*
 * The formats on disk, byte for byte: each structure is made of fixed inputs and compared with a dump of it in tests/golden, and files made of these
 * dumps are read. What the bytes say is in docs/FORMAT.md. A difference is a change of format: a new version or feature bit, and new files beside the old ones (GOLDEN_WRITE=1 writes
 * what is missing). Run from the directory of the sources.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/memory.h"
#include "btree/node.h"
#include "store/store.h"
#include "store/superblock_format.h"
#include "tests/sim/sim.h"
#include "tests/support/tap.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

#define DIRECTORY "/golden"
#define OLD_DIRECTORY "/old"
#define DUMP_LINE_BYTES 16u
#define PAGE_SIZE 4096u

/* ---- dumps ------------------------------------------------------------------------------------------------------- */

typedef struct {
    char *text;
    size_t size, capacity;
} dump;

static void dump_add(dump *d, const char *text, size_t size)
{
    if (d->size + size > d->capacity) {
        d->capacity = 2 * (d->size + size);
        d->text = realloc(d->text, d->capacity);
        RW_ASSERT(d->text != NULL);
    }
    memcpy(d->text + d->size, text, size);
    d->size += size;
}

/* Offset and bytes, 16 on a line; a line like the one before is left out, and a star stands for one or more such. */
static dump dump_make(const unsigned char *bytes, size_t size)
{
    dump d = {0};
    char line[80];
    bool star = false;
    for (size_t at = 0; at < size; at += DUMP_LINE_BYTES) {
        size_t count = RW_MIN(size - at, DUMP_LINE_BYTES);
        bool repeats = at > 0 && count == DUMP_LINE_BYTES && memcmp(bytes + at, bytes + at - DUMP_LINE_BYTES, count) == 0;
        if (repeats && star) continue;
        star = repeats;
        int length = repeats ? snprintf(line, sizeof line, "*") : snprintf(line, sizeof line, "%06zx ", at);
        for (size_t i = 0; i < count && !repeats; i++) length += snprintf(line + length, sizeof line - (size_t)length, " %02x", bytes[at + i]);
        line[length++] = '\n';
        dump_add(&d, line, (size_t)length);
    }
    int length = snprintf(line, sizeof line, "%06zx\n", size);
    dump_add(&d, line, (size_t)length);
    return d;
}

static bool file_take(const char *path, dump *d)
{
    char piece[4096];
    size_t size;
    FILE *file = fopen(path, "r");
    if (file == NULL) return false;
    while ((size = fread(piece, 1, sizeof piece, file)) > 0) dump_add(d, piece, size);
    fclose(file);
    return true;
}

static void file_write(const char *path, const dump *d)
{
    FILE *file = fopen(path, "wx");
    if (file == NULL) return;
    fwrite(d->text, 1, d->size, file);
    fclose(file);
}

static void first_difference(const dump *found, const dump *golden)
{
    size_t line = 1, begin = 0, i = 0;
    for (; i < found->size && i < golden->size && found->text[i] == golden->text[i]; i++)
        if (found->text[i] == '\n') line++, begin = i + 1;
    size_t left = begin, right = begin;
    while (left < found->size && found->text[left] != '\n') left++;
    while (right < golden->size && golden->text[right] != '\n') right++;
    tap_diag("line %zu: made   %.*s", line, (int)(left - begin), found->text + begin);
    tap_diag("line %zu: golden %.*s", line, (int)(right - begin), golden->text + begin);
}

/* Compares with tests/golden/<name>.hex. */
static void golden_check(const char *name, const void *bytes, size_t size)
{
    char path[200];
    dump found = dump_make(bytes, size), golden = {0};
    snprintf(path, sizeof path, "tests/golden/%s.hex", name);
    if (getenv("GOLDEN_WRITE") != NULL) file_write(path, &found);
    bool there = file_take(path, &golden);
    bool same = there && found.size == golden.size && memcmp(found.text, golden.text, found.size) == 0;
    tap_ok(same, "%s: %zu bytes are as in %s%s", name, size, path, there ? "" : ", which cannot be read");
    if (there && !same) first_difference(&found, &golden);
    free(found.text);
    free(golden.text);
}

/* The bytes that tests/golden/<name>.hex stands for, in size bytes of memory. */
static void golden_read(const char *name, unsigned char *bytes, size_t size)
{
    char path[200], line[200];
    size_t at = 0, next;
    snprintf(path, sizeof path, "tests/golden/%s.hex", name);
    FILE *file = fopen(path, "r");
    bool star = false;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *end;
        if (line[0] == '*') {
            star = true;
            continue;
        }
        next = strtoul(line, &end, 16);
        for (; star && at < next && at < size; at++) bytes[at] = bytes[at - DUMP_LINE_BYTES];
        star = false;
        while (at < size && *end == ' ') bytes[at++] = (unsigned char)strtoul(end, &end, 16);
    }
    if (file != NULL) fclose(file);
    tap_ok(at == size, "%s: %zu bytes are read from %s", name, at, path);
}

/* ---- fixed inputs ------------------------------------------------------------------------------------------------ */

static void must(int code, const char *what)
{
    if (code == 0) return;
    tap_ok(false, "%s: %s", what, rw_error_text());
    tap_done();
    exit(1);
}

static rw_slice text(const char *string)
{
    return rw_slice_of(string, strlen(string));
}

/* Database ids are drawn from here. */
static int random_fixed(kio *k, void *buffer, size_t length)
{
    unsigned char *bytes = buffer;
    (void)k;
    for (size_t i = 0; i < length; i++) bytes[i] = (unsigned char)(i + 1);
    return 0;
}

#define DATABASE_ID 0x0807060504030201u

static void file_bytes(kio *k, kio_file *file, uint64_t offset, void *to, size_t size)
{
    must(kio_file_read(k, file, to, size, offset), "read back");
}

static void page_write(kio *k, store *s, const void *page, uint64_t address, uint32_t bytes)
{
    must(kio_file_write(k, store_file(s), page, bytes, address * RW_BLOCK_SIZE), "write a page");
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */

static void leaf_insert(node *n, rw_slice key, rw_slice value, unsigned flags)
{
    bool found;
    unsigned slot = node_lower_bound(n, PAGE_SIZE, key, &found);
    node_insert(n, PAGE_SIZE, slot, key, value, flags);
}

static page_ref seal(store *s, node *n, void *scratch, uint32_t estimate)
{
    uint64_t address;
    must(store_allocate(s, STORE_PAGES, 1, &address), "allocate");
    node_tidy(n, PAGE_SIZE, scratch);
    n->page.partition = 7;
    return store_page_seal(s, n, PAGE_SIZE, PAGE_NODE, address, estimate);
}

/* A leaf with a common prefix, a long and an empty value, an update and a removal behind it, and the extent. */
static page_ref leaf_make(kio *k, store *s, const extent_ref *extent, unsigned char *page, void *scratch)
{
    unsigned char longer[300];
    node *n = (node *)(void *)page;
    memset(longer, 'v', sizeof longer);
    node_init(n, PAGE_SIZE, 0, text("bucket/k"), text("bucket/q"));
    n->page.newest_timestamp = 0x1234;
    leaf_insert(n, text("bucket/key 1"), text("first"), 0);
    leaf_insert(n, text("bucket/key 2"), rw_slice_of("", 0), 0);
    leaf_insert(n, text("bucket/l"), rw_slice_of(longer, sizeof longer), 0);
    leaf_insert(n, text("bucket/large"), rw_slice_of(extent, sizeof *extent), NODE_SLOT_EXTENT);
    leaf_insert(n, text("bucket/p removed"), text("gone"), 0);
    leaf_insert(n, text("bucket/p"), text("last"), 0);
    node_remove(n, PAGE_SIZE, 5);
    node_update(n, PAGE_SIZE, 0, text("updated"), 0);
    page_ref ref = seal(s, n, scratch, 5 | PAGE_REF_HAS_EXTENTS);
    page_write(k, s, page, page_ref_address(ref), PAGE_SIZE);
    return ref;
}

/* An inner page above the leaf, for the keys below "bucket/q", and pages that there are not. */
static page_ref inner_make(kio *k, store *s, page_ref leaf, unsigned char *page, void *scratch)
{
    node *n = (node *)(void *)page;
    const page_ref first = page_ref_disk(0x123456789a, 1, 0xcafe0001, 10), last = page_ref_disk(0x300, 1, 0xcafe0003, 1000);
    node_init(n, PAGE_SIZE, 1, text(""), text(""));
    node_insert(n, PAGE_SIZE, 0, text(""), rw_slice_of(&first, sizeof first), 0);
    node_insert(n, PAGE_SIZE, 1, text("bucket/k"), rw_slice_of(&leaf, sizeof leaf), 0);
    node_insert(n, PAGE_SIZE, 2, text("bucket/q"), rw_slice_of(&last, sizeof last), 0);
    page_ref ref = seal(s, n, scratch, (10 + 5 + 1000) | PAGE_REF_HAS_EXTENTS);
    page_write(k, s, page, page_ref_address(ref), PAGE_SIZE);
    return ref;
}

static extent_ref extent_make(kio *k, store *s, unsigned char *bytes)
{
    extent_ref ref;
    unsigned char *value = malloc(5000), *staging = rw_memory_aligned(RW_BLOCK_SIZE);
    RW_ASSERT(value != NULL && staging != NULL);
    memset(value, 'x', 5000);
    value[4999] = 'z';
    must(store_extent_write(s, text("bucket/large"), rw_slice_of(value, 5000), staging, RW_BLOCK_SIZE, &ref), "write an extent");
    RW_ASSERT(extent_blocks(12, 5000) == 2);
    file_bytes(k, store_file(s), ref.address * RW_BLOCK_SIZE, bytes, 2 * RW_BLOCK_SIZE);
    free(value);
    free(staging);
    return ref;
}

/* ---- the data file ----------------------------------------------------------------------------------------------- */

static void data_file(kio *k)
{
    store *s;
    store_params params = {.page_size = PAGE_SIZE};
    unsigned char *bytes = rw_memory_aligned(8 * RW_BLOCK_SIZE), *scratch = rw_memory_aligned(PAGE_SIZE);
    RW_ASSERT(bytes != NULL && scratch != NULL);
    must(store_create(k, DIRECTORY, &params, &s), "create");
    tap_ok(params.database_id == DATABASE_ID, "the database id is the one that was drawn");
    file_bytes(k, store_file(s), SUPERBLOCK_SLOT_BYTES, bytes, RW_BLOCK_SIZE);
    golden_check("superblock-begun", bytes, RW_BLOCK_SIZE);

    extent_ref extent = extent_make(k, s, bytes);
    golden_check("extent", bytes, 2 * RW_BLOCK_SIZE);
    page_ref leaf = leaf_make(k, s, &extent, bytes, scratch);
    golden_check("node-leaf", bytes, PAGE_SIZE);
    tap_ok(node_check((const node *)(const void *)bytes, PAGE_SIZE, true) == 0, "the leaf keeps the rules");
    page_ref inner = inner_make(k, s, leaf, bytes, scratch);
    golden_check("node-inner", bytes, PAGE_SIZE);
    tap_ok(node_check((const node *)(const void *)bytes, PAGE_SIZE, true) == 0, "the inner node keeps the rules");

    store_partition partitions[2] = {{.root = inner, .lsn = 0x2000, .id = 1, .height = 2, .low_key = text("")},
                                     {.root = leaf, .lsn = 0x1800, .id = 7, .height = 1, .low_key = text("bucket/x")}};
    store_image image = {.checkpoint_lsn = 0x1800, .durable_lsn = 0x3000, .partition_count = 2, .next_partition_id = 8, .partitions = partitions};
    must(store_publish(s, &image, false), "publish");
    file_bytes(k, store_file(s), SUPERBLOCK_SLOT_BYTES, bytes, RW_BLOCK_SIZE);
    golden_check("superblock", bytes, RW_BLOCK_SIZE);
    must(store_publish(s, &image, true), "publish cleanly");
    file_bytes(k, store_file(s), 0, bytes, RW_BLOCK_SIZE);
    golden_check("superblock-clean", bytes, RW_BLOCK_SIZE);
    uint64_t address;
    uint32_t blocks;
    store_space_map_run(s, &address, &blocks);
    file_bytes(k, store_file(s), address * RW_BLOCK_SIZE, bytes, RW_BLOCK_SIZE);
    golden_check("space-map", bytes, (size_t)blocks * RW_BLOCK_SIZE);
    store_sync_times_keep(s, &(kio_sync_times){.device = 0x0123456789abcdef, .sync_ns = 120000, .durable_write_ns = 45000});
    must(store_publish(s, &image, false), "publish what was measured");
    file_bytes(k, store_file(s), SUPERBLOCK_SLOT_BYTES, bytes, RW_BLOCK_SIZE);
    golden_check("superblock-sync-times", bytes, RW_BLOCK_SIZE);
    image.log_closed = true;
    must(store_publish(s, &image, true), "publish a closed log");
    file_bytes(k, store_file(s), 0, bytes, RW_BLOCK_SIZE);
    golden_check("superblock-closed", bytes, RW_BLOCK_SIZE);
    store_close(s);
    free(bytes);
    free(scratch);
}

/* ---- the log ----------------------------------------------------------------------------------------------------- */

static int data_synced(void *arg)
{
    (void)arg;
    return 0;
}

static int record_seen(void *arg, const wal_record *record)
{
    (void)record;
    ++*(unsigned *)arg;
    return 0;
}

static void log_append(wal *w, const wal_op *ops, unsigned count, unsigned flags)
{
    unsigned char *body = malloc(16384);
    size_t size = 0;
    uint64_t lsn, end_lsn;
    RW_ASSERT(body != NULL);
    for (unsigned i = 0; i < count; i++) {
        size += wal_op_encode_head(&ops[i], body + size);
        memcpy(body + size, ops[i].key.data, ops[i].key.size);
        size += ops[i].key.size;
        if (ops[i].second.size > 0) memcpy(body + size, ops[i].second.data, ops[i].second.size);
        size += ops[i].second.size;
    }
    rw_slice pieces = rw_slice_of(body, size);
    must(wal_append(w, WAL_COMMIT, &pieces, 1, flags, &lsn, &end_lsn, NULL), "append");
    must(wal_wait(w, end_lsn), "make durable");
    free(body);
}

/* One operation of each kind; a record over two blocks; each record in blocks of its own, as each was waited for. */
static void log_write(wal *w)
{
    unsigned char value[5000];
    uint64_t end_lsn;
    unsigned seen = 0;
    const extent_ref extent = {.address = 0x100, .length = 5000, .checksum = 0xdeadbeef};
    const wal_op ops[] = {
        {.kind = WAL_OP_PUT, .key = rw_slice_of("\0\0\0\1key", 7), .second = text("value")},
        {.kind = WAL_OP_DELETE, .key = rw_slice_of("\0\0\0\1gone", 8)},
        {.kind = WAL_OP_DELETE_RANGE, .key = rw_slice_of("\0\0\0\2", 4), .second = rw_slice_of("\0\0\0\3", 4)},
        {.kind = WAL_OP_PUT_EXTENT, .key = rw_slice_of("\0\0\0\1large", 9), .second = rw_slice_of(&extent, sizeof extent)},
    };
    memset(value, 'y', sizeof value);
    const wal_op longer = {.kind = WAL_OP_PUT, .key = rw_slice_of("\0\0\0\1long", 8), .second = rw_slice_of(value, sizeof value)};
    must(wal_replay(w, WAL_LSN_FIRST, WAL_LSN_FIRST, record_seen, &seen, &end_lsn), "replay");
    must(wal_start(w, end_lsn), "start");
    log_append(w, ops, RW_ARRAY_SIZE(ops), WAL_NEEDS_DATA);
    log_append(w, &longer, 1, 0);
}

static void log_file(kio *k)
{
    wal *w;
    kio_file *file;
    unsigned seen = 0;
    uint64_t end_lsn;
    unsigned char *bytes = rw_memory_aligned(4 * RW_BLOCK_SIZE);
    const wal_options options = {.database_id = DATABASE_ID, .async_delay_ms = 50, .sync_data = data_synced};
    RW_ASSERT(bytes != NULL);
    must(wal_create(k, DIRECTORY, &options, &w), "create the log");
    log_write(w);
    must(wal_close(w), "close the log");
    must(kio_file_open(k, DIRECTORY "/log", KIO_READ_ONLY | KIO_DIRECT, &file), "open the log file");
    file_bytes(k, file, 0, bytes, 4 * RW_BLOCK_SIZE);
    golden_check("log", bytes, 4 * RW_BLOCK_SIZE);
    kio_file_close(k, file);
    must(wal_open(k, DIRECTORY, &options, &w), "open the log");
    must(wal_replay(w, WAL_LSN_FIRST, WAL_LSN_FIRST, record_seen, &seen, &end_lsn), "replay");
    tap_ok(seen == 2, "the log holds %u records", seen);
    must(wal_close(w), "close the log");
    free(bytes);
}

/* ---- old files, read by this library ------------------------------------------------------------------------------ */

static void file_make(kio *k, const char *path, uint64_t bytes, kio_file **file)
{
    must(kio_file_open(k, path, KIO_CREATE | KIO_EXCLUSIVE | KIO_DIRECT, file), "make a file");
    must(kio_file_resize(k, *file, bytes), "size a file");
}

static void golden_place(kio *k, kio_file *file, const char *name, uint64_t offset, size_t size)
{
    unsigned char *bytes = rw_memory_aligned(size);
    RW_ASSERT(bytes != NULL);
    golden_read(name, bytes, size);
    must(kio_file_write(k, file, bytes, size, offset), "write golden bytes");
    free(bytes);
}

static void old_pages_check(store *s)
{
    const store_image *image = store_image_opened(s);
    node *n = rw_memory_aligned(PAGE_SIZE);
    unsigned char *staging = rw_memory_aligned(RW_BLOCK_SIZE);
    unsigned flags;
    extent_ref extent;
    bool found;
    RW_ASSERT(n != NULL && staging != NULL);
    tap_ok(image->partition_count == 2 && image->generation == 3 && image->checkpoint_lsn == 0x1800, "the image says what it said");
    tap_ok(!store_claims_needed(s) && store_segment_live(s, 2) == 3 * RW_BLOCK_SIZE, "so does the space map");
    tap_ok(store_page_read(s, image->partitions[0].root, n) == 0 && node_check(n, PAGE_SIZE, true) == 0 && n->count == 3, "the inner node is read");
    page_ref leaf = node_child(n, PAGE_SIZE, node_child_slot(n, PAGE_SIZE, text("bucket/l")));
    tap_ok(store_page_read(s, leaf, n) == 0 && node_check(n, PAGE_SIZE, true) == 0, "the leaf is read");
    unsigned slot = node_lower_bound(n, PAGE_SIZE, text("bucket/key 1"), &found);
    tap_ok(found && rw_slice_equal(node_value(n, PAGE_SIZE, slot, &flags), text("updated")), "a value is found in it");
    slot = node_lower_bound(n, PAGE_SIZE, text("bucket/large"), &found);
    memcpy(&extent, node_value(n, PAGE_SIZE, slot, &flags).data, sizeof extent);
    tap_ok(found && store_extent_read(s, extent, text("bucket/large"), NULL, staging, RW_BLOCK_SIZE) == 0, "the extent is read");
    free(n);
    free(staging);
}

static void old_files(kio *k)
{
    kio_file *file;
    store *s;
    store_params params = {.read_only = true};
    must(kio_directory_create(k, OLD_DIRECTORY), "make the directory");
    file_make(k, OLD_DIRECTORY "/data", 3 * RW_SEGMENT_BYTES, &file);
    golden_place(k, file, "superblock-clean", 0, RW_BLOCK_SIZE);
    golden_place(k, file, "superblock", SUPERBLOCK_SLOT_BYTES, RW_BLOCK_SIZE);
    golden_place(k, file, "extent", RW_SEGMENT_BYTES, 2 * RW_BLOCK_SIZE);
    golden_place(k, file, "node-leaf", 2 * RW_SEGMENT_BYTES, PAGE_SIZE);
    golden_place(k, file, "node-inner", 2 * RW_SEGMENT_BYTES + PAGE_SIZE, PAGE_SIZE);
    golden_place(k, file, "space-map", 2 * RW_SEGMENT_BYTES + 2 * PAGE_SIZE, RW_BLOCK_SIZE);
    kio_file_close(k, file);
    must(store_open(k, OLD_DIRECTORY, &params, &s), "open old files");
    old_pages_check(s);
    store_close(s);
}

/* What was in the log's records. */
static int old_record(void *arg, const wal_record *record)
{
    wal_op op;
    size_t at = 0;
    while (wal_op_decode(record->body, &at, &op) == 0) ((unsigned *)arg)[op.kind]++;
    return 0;
}

static void old_log(kio *k)
{
    kio_file *file;
    wal *w;
    uint64_t end_lsn = 0;
    unsigned kinds[WAL_OP_PUT_EXTENT + 1] = {0};
    const wal_options options = {.database_id = DATABASE_ID, .read_only = true};
    file_make(k, OLD_DIRECTORY "/log", RW_LOG_SEGMENT_BYTES, &file);
    golden_place(k, file, "log", 0, 4 * RW_BLOCK_SIZE);
    kio_file_close(k, file);
    must(wal_open(k, OLD_DIRECTORY, &options, &w), "open an old log");
    must(wal_replay(w, WAL_LSN_FIRST, WAL_LSN_FIRST, old_record, kinds, &end_lsn), "replay an old log");
    tap_ok(kinds[WAL_OP_PUT] == 2 && kinds[WAL_OP_DELETE] == 1 && kinds[WAL_OP_DELETE_RANGE] == 1 && kinds[WAL_OP_PUT_EXTENT] == 1 &&
               end_lsn == 0x1430,
           "the log's records are read, up to LSN %llx", (unsigned long long)end_lsn);
    must(wal_close(w), "close an old log");
}

static void run(void *arg)
{
    kio *k = arg;
    must(kio_directory_create(k, DIRECTORY), "make the directory");
#ifdef RW_TINY
    tap_skip("the data file: addresses depend on the size of segments, which is another one in this build");
    (void)data_file;
    (void)old_files;
    must(kio_directory_create(k, OLD_DIRECTORY), "make the directory");
#else
    data_file(k);
    old_files(k);
#endif
    log_file(k);
    old_log(k);
}

int main(void)
{
    sim_disk *disk = sim_disk_create();
    sim_world *world = sim_world_open(disk, 1);
    kio *k = sim_world_kio(world);
    kio_vtable operations = *k->ops;
    operations.random = random_fixed;
    k->ops = &operations;
    sim_run(world, run, k);
    sim_world_close(world);
    sim_disk_destroy(disk);
    return tap_done();
}
