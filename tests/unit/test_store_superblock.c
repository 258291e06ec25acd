/* The superblocks: taken in turn, torn, flipped byte by byte, of other formats, of other programs, of creations that never ended. */
#include "tests/unit/store_test.h"

#define SLOT(number) ((uint64_t)(number) * SUPERBLOCK_SLOT_BYTES)

static void test_in_turn(void)
{
    bed b;
    bed_create(&b, "turn");
    for (uint32_t round = 1; round <= 9; round++) {
        store_image image = image_make(round * 100, round * 7 % 5 + 1, 4 + round * 40);
        TAP_CHECK(store_publish(b.s, &image, false) == 0);
        bed_reopen(&b);
        /* the first publish fills both slots */
        TAP_CHECK(store_image_opened(b.s)->generation == round + 1);
        TAP_CHECK(image_equal(store_image_opened(b.s), &image));
        TAP_CHECK(store_claims_needed(b.s));
        store_claims_end(b.s);
        image_free(&image);
    }
    store_image none = image_make(1, 0, 1);
    TAP_CHECK(store_publish(b.s, &none, false) == 0);
    bed_reopen(&b);
    tap_ok(store_image_opened(b.s)->partition_count == 0, "what is published is what is opened, nine times and an empty one");
    image_free(&none);
    bed_end(&b);
}

/* The write of the superblock fails, or does only a part of it: the one before it holds. */
static void test_torn(void)
{
    bool held = true;
    for (unsigned char part = 0; part < 8; part++) {
        bed b;
        bed_create(&b, "torn");
        must(publish_mark(&b, 10, false), "publish");
        must(publish_mark(&b, 20, false), "publish");
        store_image image = image_make(30, 200, RW_SEGMENT_BYTES / SUPERBLOCK_SLOTS / 200 / 2);
        b.io.fail_write = 1;
        b.io.torn_bytes = part;
        held &= TAP_CHECK(store_publish(b.s, &image, false) == RW_EIO);
        held &= TAP_CHECK(store_publish(b.s, &image, false) == RW_EIO && strstr(rw_error_text(), "write failed") != NULL);
        held &= TAP_CHECK(store_sync(b.s) == RW_EIO);
        image_free(&image);
        held &= TAP_CHECK(store_image_opened(b.s)->checkpoint_lsn == 20);
        bed_reopen(&b);
        held &= TAP_CHECK(store_image_opened(b.s)->checkpoint_lsn == 20 && store_image_opened(b.s)->generation == 3);
        store_claims_end(b.s);
        held &= TAP_CHECK(publish_mark(&b, 40, false) == 0);
        bed_reopen(&b);
        held &= TAP_CHECK(store_image_opened(b.s)->checkpoint_lsn == 40);
        bed_end(&b);
    }
    tap_ok(held, "a superblock torn after each of 8 parts leaves the one before it, and ends publishing");
}

static void test_failed_sync(void)
{
    for (unsigned which = 1; which <= 2; which++) {
        bed b;
        bed_create(&b, "sync");
        must(publish_mark(&b, 10, false), "publish");
        b.io.fail_sync = which;
        TAP_CHECK(publish_mark(&b, 20, false) == RW_EIO);
        uint64_t writes = b.io.writes;
        TAP_CHECK(publish_mark(&b, 30, false) == RW_EIO);
        TAP_CHECK(strstr(rw_error_text(), "sync failed") != NULL);
        tap_ok(b.io.writes == writes, "after a failed sync (number %u of a publish) nothing is written any more", which);
        bed_end(&b);
    }
}

static void test_read_only(void)
{
    bed b;
    uint64_t address, bytes;
    bed_create(&b, "ro");
    must(publish_mark(&b, 10, false), "publish");
    bed_close(&b);
    b.params.read_only = true;
    must(bed_open(&b), "open");
    uint64_t syncs = b.io.syncs;
    store_claims_end(b.s);
    bool refused = publish_mark(&b, 20, false) == RW_EREADONLY && store_allocate(b.s, STORE_PAGES, 1, &address) == RW_EREADONLY &&
                   store_shrink(b.s, 0, &bytes) == RW_EREADONLY;
    tap_ok(refused && b.io.writes == 3 && b.io.syncs == syncs, "read-only: no publish, no allocation, no cut, no write");
    bed_end(&b);
}

/* ---- damage ---- */

/* Opens the damaged file; 0: with the image of which checkpoint. */
static int open_damaged(bed *b, uint64_t *checkpoint)
{
    int result = bed_open(b);
    if (result == 0) *checkpoint = store_image_opened(b->s)->checkpoint_lsn;
    bed_close(b);
    return result;
}

static void test_each_byte(void)
{
    bed b;
    bed_create(&b, "flip");
    must(publish_mark(&b, 10, false), "publish");
    must(publish_mark(&b, 20, false), "publish");   /* generation 3, in slot 0 */
    must(publish_mark(&b, 30, false), "publish");   /* generation 4, in slot 1 */
    bed_close(&b);
    unsigned wrong = 0, both = 0;
    for (uint32_t at = 0; at < RW_BLOCK_SIZE; at += at < 400 ? 1 : 37) {
        uint64_t checkpoint = 0;
        file_flip(b.path, SLOT(1) + at, (uint8_t)(1u << at % 8));
        if (open_damaged(&b, &checkpoint) != 0 || checkpoint != 20) wrong++;
        file_flip(b.path, SLOT(0) + at, 0x10);
        int result = open_damaged(&b, &checkpoint);
        if (result != RW_ECORRUPT && result != RW_EVERSION && result != RW_EFOREIGN) both++;
        if (store_is_unfinished(b.k, b.dir)) both++;
        file_flip(b.path, SLOT(0) + at, 0x10);
        file_flip(b.path, SLOT(1) + at, (uint8_t)(1u << at % 8));
    }
    tap_ok(wrong == 0, "a flip anywhere in the newest superblock falls back to the other");
    tap_ok(both == 0, "a flip anywhere in both is refused, and not taken for an unfinished creation");
    bed_end(&b);
}

/* Changes bytes of both superblocks and, if wanted, makes their checksums right again. */
static void patch(const char *path, size_t at, const void *bytes, size_t size, bool seal, unsigned slots)
{
    for (unsigned slot = 0; slot < 2; slot++) {
        if ((slots >> slot & 1) == 0) continue;
        size_t file_bytes;
        uint8_t *all = file_read(path, &file_bytes);
        uint8_t *block = all + SLOT(slot);
        memcpy(block + at, bytes, size);
        if (seal) {
            rw_store_u32(block + offsetof(superblock_header, checksum), 0);
            uint32_t length = rw_load_u32(block + offsetof(superblock_header, length));
            rw_store_u32(block + offsetof(superblock_header, checksum), rw_checksum(0, block, length));
        }
        file_write_at(path, SLOT(slot), block, RW_BLOCK_SIZE);
        free(all);
    }
}

/* What was measured of the device goes through the superblocks, from the publish after it was given on. A reader that does not know it ignores it. */
static void test_sync_times(void)
{
    bed b;
    kio_sync_times times = {.device = 0x1234567890abcdef, .sync_ns = 81000, .durable_write_ns = 11000}, found;
    bed_create(&b, "times");
    must(publish_mark(&b, 10, false), "publish");
    bed_reopen(&b);
    found = store_sync_times(b.s);
    tap_ok(found.device == 0 && found.sync_ns == 0 && found.durable_write_ns == 0, "a database in which nothing was measured says so");
    store_claims_end(b.s);
    store_sync_times_keep(b.s, &times);
    bool kept = true;
    for (uint64_t round = 0; round < 3; round++) {
        must(publish_mark(&b, 20 + round, false), "publish");
        bed_reopen(&b);
        found = store_sync_times(b.s);
        kept = kept && memcmp(&found, &times, sizeof times) == 0;
        store_claims_end(b.s);
    }
    tap_ok(kept, "what was measured is kept by each publish from then on");
    bed_close(&b);
    uint64_t none = 0;
    patch(b.path, offsetof(superblock_header, features_compatible), &none, sizeof none, true, 3);
    must(bed_open(&b), "open");
    tap_ok(store_sync_times(b.s).device == 0, "without its feature bit it counts for nothing");
    bed_end(&b);
}

static bool log_closed(bed *b)
{
    return store_image_opened(b->s)->log_closed;
}

/* That the log was closed is believed until it is begun again, and only if the superblock that would say so cannot have been lost. */
static void test_log_closed(void)
{
    bed b;
    store_image image = image_make(10, 3, 8);
    uint64_t map, same_map;
    uint32_t blocks, same_blocks;
    bed_create(&b, "log");
    must(store_publish(b.s, &image, false), "publish");
    image.log_closed = true;
    must(store_publish(b.s, &image, true), "publish cleanly");     /* generation 3, in slot 0 */
    bed_reopen(&b);
    tap_ok(log_closed(&b) && !store_claims_needed(b.s), "a superblock says that the log was closed");
    bed_reopen(&b);
    store_space_map_run(b.s, &map, &blocks);
    store_claims_end(b.s);
    must(store_log_begin(b.s), "begin the log");
    tap_ok(!log_closed(&b), "once it was begun it is not");
    bed_reopen(&b);
    store_space_map_run(b.s, &same_map, &same_blocks);
    tap_ok(!log_closed(&b) && image_equal(store_image_opened(b.s), &image) && !store_claims_needed(b.s) && map == same_map && blocks == same_blocks,
           "nor for those who open it later; all else is as it was");
    uint64_t writes = b.io.writes;
    store_claims_end(b.s);
    must(store_log_begin(b.s), "begin the log again");
    tap_ok(b.io.writes == writes, "which is said once");
    bed_close(&b);
    file_flip(b.path, SLOT(1) + 100, 1);
    must(bed_open(&b), "open with the newest superblock damaged");
    tap_ok(!log_closed(&b) && image_equal(store_image_opened(b.s), &image), "the one before it is believed in all but that");
    store_claims_end(b.s);
    must(store_log_begin(b.s), "begin the log, which the superblock says is closed");
    bed_reopen(&b);
    tap_ok(!log_closed(&b), "and taken back all the same");
    image_free(&image);
    bed_end(&b);
}

/* A space map that could not be read is not named again. */
static void test_log_closed_map_damaged(void)
{
    bed b;
    store_image image = image_make(10, 3, 8);
    uint64_t map;
    uint32_t blocks;
    bed_create(&b, "log-map");
    must(store_publish(b.s, &image, false), "publish");
    image.log_closed = true;
    must(store_publish(b.s, &image, true), "publish cleanly");
    store_space_map_run(b.s, &map, &blocks);
    bed_close(&b);
    file_flip(b.path, map * RW_BLOCK_SIZE + 80, 1);
    must(bed_open(&b), "open with a damaged space map");
    tap_ok(store_claims_needed(b.s) && log_closed(&b), "a damaged space map says nothing of the log");
    store_claims_end(b.s);
    must(store_log_begin(b.s), "begin the log");
    bed_close(&b);
    file_flip(b.path, map * RW_BLOCK_SIZE + 80, 1);
    must(bed_open(&b), "open with the space map as it was");
    tap_ok(store_claims_needed(b.s) && !log_closed(&b), "the superblock that follows names none");
    image_free(&image);
    bed_end(&b);
}

typedef struct {
    const char *name;
    size_t at;
    uint64_t value;
    size_t size;
    bool seal;
    unsigned slots;            /* bit mask */
    int expected;
    const char *says;
} patch_case;

#define FIELD(f) offsetof(superblock_header, f), .size = sizeof(((superblock_header *)0)->f)

static const patch_case patches[] = {
    {"foreign magic", FIELD(magic), .value = 0x123456789, .slots = 3, .expected = RW_EFOREIGN, .says = "offset 0"},
    {"unknown version, sealed", FIELD(version), .value = 2, .seal = true, .slots = 3, .expected = RW_EVERSION, .says = "format version 2"},
    {"unknown version, not sealed", FIELD(version), .value = 99, .slots = 3, .expected = RW_EVERSION, .says = "format version 99"},
    {"unknown version in the older one", FIELD(version), .value = 2, .seal = true, .slots = 1, .expected = RW_EVERSION, .says = "offset 0"},
    {"damaged version in one", FIELD(version), .value = 2, .slots = 2, .expected = 0},
    {"incompatible feature", FIELD(features_incompatible), .value = 1 << 9, .seal = true, .slots = 2, .expected = RW_EVERSION, .says = "feature bit 9"},
    {"compatible feature", FIELD(features_compatible), .value = 1 << 9, .seal = true, .slots = 3, .expected = 0},
    {"block size", FIELD(block_size), .value = 512, .seal = true, .slots = 3, .expected = RW_EVERSION, .says = "blocks of 512"},
    {"segment size", FIELD(segment_size), .value = 4096, .seal = true, .slots = 3, .expected = RW_EVERSION, .says = "segments of 4096"},
    {"page size", FIELD(page_size), .value = 5000, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "page size 5000"},
    {"no database id", FIELD(database_id), .value = 0, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "database id"},
    {"another database's slot", FIELD(database_id), .value = 77, .seal = true, .slots = 1, .expected = RW_ECORRUPT, .says = "two databases"},
    {"other slot's generation", FIELD(generation), .value = 8, .seal = true, .slots = 1, .expected = 0},
    {"absurd number of partitions", FIELD(partition_count), .value = 0xffffffff, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "partition table"},
    {"one partition more", FIELD(partition_count), .value = 4, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "partition"},
    {"partition ids used up", FIELD(next_partition_id), .value = 1, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "entry 1"},
    {"a length beyond the slot", FIELD(length), .value = 0x7ffff000, .slots = 3, .expected = RW_ECORRUPT, .says = "length"},
    {"a length of nothing", FIELD(length), .value = 0, .slots = 3, .expected = RW_ECORRUPT, .says = "length"},
    {"a length with zeros behind", FIELD(length), .value = 8192, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "8192"},
    {"a root past the end", sizeof(superblock_header), .value = 1ull << 48 | 99999, .size = 8, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "past the end"},
    {"a root in memory", sizeof(superblock_header), .value = 1ull << 63 | 1ull << 48 | 300, .size = 8, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "entry 0"},
    {"a root larger than a page", sizeof(superblock_header), .value = 2ull << 48 | 300, .size = 8, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "entry 0"},
    {"keys out of order", sizeof(superblock_header) + 3 * sizeof(superblock_partition), .value = 0x3939393939393939, .size = 8, .seal = true, .slots = 3, .expected = RW_ECORRUPT, .says = "entry 2"},
};

static void test_patches(void)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(patches); i++) {
        const patch_case *c = &patches[i];
        bed b;
        uint64_t checkpoint = 0;
        bed_create(&b, "patch");
        must(publish_mark(&b, 10, false), "publish");
        must(publish_mark(&b, 20, false), "publish");
        bed_close(&b);
        patch(b.path, c->at, &c->value, c->size, c->seal, c->slots);
        int result = open_damaged(&b, &checkpoint);
        bool said = c->says == NULL || (strstr(rw_error_text(), c->says) != NULL && strstr(rw_error_text(), b.path) != NULL);
        if (!tap_ok(result == c->expected && said && !store_is_unfinished(b.k, b.dir), "%s: %s", c->name, rw_strerror(c->expected)))
            tap_diag("%d: %s", result, rw_error_text());
        bed_end(&b);
    }
}

/* ---- creation ---- */

static void test_create(void)
{
    bed b;
    store *again;
    bed_make(&b, "create");
    TAP_CHECK(bed_open(&b) == RW_ENOENT && !store_is_unfinished(b.k, b.dir));
    b.params.page_size = 5000;
    TAP_CHECK(store_create(b.k, b.dir, &b.params, &b.s) == RW_EINVAL && file_size(b.path) == -1);
    b.params.page_size = 16384;
    must(store_create(b.k, b.dir, &b.params, &b.s), "create");
    TAP_CHECK(b.params.database_id != 0 && !store_claims_needed(b.s));
    must(publish_mark(&b, 10, false), "publish");
    store_params params = {.page_size = 4096};
    TAP_CHECK(store_create(b.k, b.dir, &params, &again) == RW_EEXIST);
    bed_close(&b);
    TAP_CHECK(bed_open(&b) == 0);
    tap_ok(b.params.page_size == 16384 && b.params.database_id != 0, "created once, opened with the page size of its creation");
    bed_end(&b);
}

static void test_create_fails(void)
{
    for (unsigned step = 0; step < 3; step++) {
        bed b;
        bed_make(&b, "fail");
        if (step == 0) b.io.space = 0;
        if (step == 1) b.io.fail_write = 1;
        if (step == 2) b.io.fail_sync = 1;
        int result = store_create(b.k, b.dir, &b.params, &b.s);
        tap_ok(result == (step == 0 ? RW_ENOSPC : RW_EIO) && strstr(rw_error_text(), "simulated") != NULL && file_size(b.path) == -1,
               "a creation that fails at step %u leaves no file", step);
        bed_end(&b);
    }
}

static bool unfinished(bed *b)
{
    bool is = store_is_unfinished(b->k, b->dir);
    int result = bed_open(b);
    bed_close(b);
    if (is != (result == RW_ENOENT)) tap_ok(false, "an unfinished creation is RW_ENOENT: %d, %s", result, rw_error_text());
    return is;
}

static void test_unfinished(void)
{
    bed b;
    uint8_t noise[RW_BLOCK_SIZE];
    memset(noise, 0xa5, sizeof noise);
    bed_create(&b, "unfinished");
    bed_close(&b);
    tap_ok(unfinished(&b), "unfinished: the mark stands");
    file_write_at(b.path, SLOT(0), noise, 512);
    tap_ok(unfinished(&b), "unfinished: the first publish torn to noise, under the mark");
    file_zero(b.path, SLOT(0), 512);
    file_write_at(b.path, SLOT(1), noise, 512);
    tap_ok(unfinished(&b), "unfinished: the mark itself is noise");
    file_write_at(b.path, SLOT(1) + RW_BLOCK_SIZE, noise, 512);
    tap_ok(!unfinished(&b), "not unfinished: there is something behind the mark");
    file_zero(b.path, 0, RW_SEGMENT_BYTES);
    tap_ok(unfinished(&b), "unfinished: all zeros");
    file_truncate(b.path, RW_BLOCK_SIZE);
    tap_ok(unfinished(&b), "unfinished: shorter than a slot");
    file_truncate(b.path, 0);
    tap_ok(unfinished(&b), "unfinished: empty");
    must(store_create(b.k, b.dir, &b.params, &b.s), "create again");
    must(publish_mark(&b, 10, false), "publish");
    bed_close(&b);
    tap_ok(!unfinished(&b), "an unfinished one is replaced by creating anew");
    bed_end(&b);
}

static void test_not_ours(void)
{
    bed b;
    uint64_t checkpoint = 0;
    bed_make(&b, "foreign");
    FILE *list = fopen(b.path, "w");
    fputs("a shopping list, not a database\n", list);
    fclose(list);
    tap_ok(open_damaged(&b, &checkpoint) == RW_EFOREIGN && !unfinished(&b), "a short file of somebody else is refused");
    TAP_CHECK(store_create(b.k, b.dir, &b.params, &b.s) == RW_EEXIST);
    file_truncate(b.path, 3 * RW_SEGMENT_BYTES);
    int result = open_damaged(&b, &checkpoint);
    tap_ok(result == RW_EFOREIGN && !unfinished(&b), "a long one is RW_EFOREIGN");
    TAP_CHECK(store_create(b.k, b.dir, &b.params, &b.s) == RW_EEXIST);
    file_zero(b.path, 0, RW_BLOCK_SIZE);
    tap_ok(open_damaged(&b, &checkpoint) == RW_ECORRUPT && !unfinished(&b), "zeros where the superblocks belong, in a long file, are damage");
    bed_end(&b);
}

/* After the first publish no damage to a single slot may make the database look as if it never was. */
static void test_first_publish(void)
{
    for (unsigned slot = 0; slot < 2; slot++) {
        bed b;
        uint64_t checkpoint = 0;
        bed_create(&b, "first");
        must(publish_mark(&b, 10, false), "publish");
        bed_close(&b);
        file_zero(b.path, SLOT(slot), SUPERBLOCK_SLOT_BYTES);
        tap_ok(open_damaged(&b, &checkpoint) == 0 && checkpoint == 10, "one publish, slot %u lost: the other holds it", slot);
        bed_end(&b);
    }
    bed b;
    uint64_t checkpoint = 0;
    bed_create(&b, "half");
    b.io.fail_write = 2;
    TAP_CHECK(publish_mark(&b, 10, false) == RW_EIO);
    bed_close(&b);
    tap_ok(open_damaged(&b, &checkpoint) == 0 && checkpoint == 10, "the first publish cut between its two slots is a database");
    must(bed_open(&b), "open");
    store_claims_end(b.s);
    TAP_CHECK(publish_mark(&b, 20, false) == 0);
    bed_close(&b);
    TAP_CHECK(open_damaged(&b, &checkpoint) == 0 && checkpoint == 20);
    bed_end(&b);
}

static void test_short_file(void)
{
    bed b;
    uint64_t checkpoint = 0;
    bed_create(&b, "short");
    must(publish_mark(&b, 10, false), "publish");
    bed_close(&b);
    file_truncate(b.path, RW_SEGMENT_BYTES - RW_BLOCK_SIZE);
    tap_ok(open_damaged(&b, &checkpoint) == RW_ECORRUPT, "a file shorter than its first segment is refused");
    bed_end(&b);
}

static void test_fits(void)
{
    bed b;
    bed_create(&b, "fits");
    uint32_t key = 900, most = (SUPERBLOCK_SLOT_BYTES - 128 + key) / (40 + key), count = RW_MIN(most, RW_PARTITIONS_MAX);
    store_image fits = image_make(10, count, key), large = image_make(10, count + 1, key);
    tap_ok(store_image_fits(&fits) && !store_image_fits(&large), "%u partitions fit, %u do not", count, count + 1);
    TAP_CHECK(store_publish(b.s, &large, false) == RW_ETOOBIG);
    TAP_CHECK(store_publish(b.s, &fits, false) == 0);
    bed_reopen(&b);
    tap_ok(image_equal(store_image_opened(b.s), &fits), "the largest table goes round");
    image_free(&fits);
    image_free(&large);
    bed_end(&b);
}

int main(void)
{
    test_in_turn();
    test_torn();
    test_failed_sync();
    test_read_only();
    test_sync_times();
    test_log_closed();
    test_log_closed_map_damaged();
    test_each_byte();
    test_patches();
    test_create();
    test_create_fails();
    test_unfinished();
    test_not_ours();
    test_first_publish();
    test_short_file();
    test_fits();
    return tap_done();
}
