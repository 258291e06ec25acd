/* Pages and extents: what goes out comes back, and no damage goes unnoticed or unnamed. */
#include "base/memory.h"
#include "tests/unit/store_test.h"

static void fill(rw_random *random, void *bytes, size_t size)
{
    unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++) at[i] = (unsigned char)rw_random_next(random);
}

/* ---- pages ---- */

typedef struct {
    bed b;
    page_ref ref;
    uint64_t address;
    unsigned char *page, *read;
} page_bed;

#define PAGE_BYTES 16384u

static void page_bed_make(page_bed *p)
{
    rw_random random;
    memset(p, 0, sizeof *p);
    bed_make(&p->b, "pages");
    p->b.params.page_size = PAGE_BYTES;
    must(store_create(p->b.k, p->b.dir, &p->b.params, &p->b.s), "create");
    p->page = rw_memory_aligned(PAGE_BYTES);
    p->read = rw_memory_aligned(PAGE_BYTES);
    rw_random_seed(&random, 7);
    fill(&random, p->page, PAGE_BYTES);
    must(store_allocate(p->b.s, STORE_PAGES, 2, &p->address), "allocate");
    must(store_allocate(p->b.s, STORE_PAGES, PAGE_BYTES / RW_BLOCK_SIZE, &p->address), "allocate");
    p->ref = store_page_seal(p->b.s, p->page, PAGE_BYTES, PAGE_NODE, p->address, 123 | PAGE_REF_HAS_EXTENTS);
    must(kio_file_write(p->b.k, store_file(p->b.s), p->page, PAGE_BYTES, p->address * RW_BLOCK_SIZE), "write");
}

static void page_bed_end(page_bed *p)
{
    free(p->page);
    free(p->read);
    bed_end(&p->b);
}

static void test_page_round(page_bed *p)
{
    tap_ok(page_ref_address(p->ref) == p->address && page_ref_blocks(p->ref) == 4 && p->ref.estimate == (123 | PAGE_REF_HAS_EXTENTS) &&
               !page_ref_is_frame(p->ref),
           "a sealed page's reference names it");
    tap_ok(store_page_read(p->b.s, p->ref, p->read) == 0 && memcmp(p->page, p->read, PAGE_BYTES) == 0, "and reads it back");
}

/* The page says something else in one field, with a checksum that is right: what is named must be the field. */
typedef struct {
    size_t at;
    uint64_t value;
    size_t size;
    const char *says;
} lie;

static const lie lies[] = {
    {offsetof(page_header, magic), 0x12345678, 4, "magic"},   {offsetof(page_header, version), 9, 2, "version"},
    {offsetof(page_header, type), PAGE_EXTENT, 1, "type"},    {offsetof(page_header, database_id), 1, 8, "database id"},
    {offsetof(page_header, address), 300, 8, "own address"},  {offsetof(page_header, length), 4096, 4, "own length"},
    {offsetof(page_header, compression), 1, 1, "compression"}, {offsetof(page_header, raw_length), 8192, 4, "compression"},
};

static void test_page_lies(page_bed *p)
{
    for (size_t i = 0; i < RW_ARRAY_SIZE(lies); i++) {
        memcpy(p->read, p->page, PAGE_BYTES);
        memcpy(p->read + lies[i].at, &lies[i].value, lies[i].size);
        page_ref ref = p->ref;
        ref.checksum = rw_checksum(0, p->read, PAGE_BYTES);
        char offset[32];
        snprintf(offset, sizeof offset, "%" PRIu64, p->address * RW_BLOCK_SIZE);
        int result = store_page_check(p->b.s, ref, p->read);
        const char *text = rw_error_text();
        tap_ok(result == RW_ECORRUPT && strstr(text, lies[i].says) != NULL && strstr(text, p->b.path) != NULL && strstr(text, offset) != NULL,
               "a page that lies about its %s: %s", lies[i].says, text);
    }
}

static void test_page_flips(page_bed *p)
{
    unsigned missed = 0;
    for (uint32_t at = 0; at < PAGE_BYTES; at += at < 128 ? 1 : 61) {
        memcpy(p->read, p->page, PAGE_BYTES);
        p->read[at] ^= (unsigned char)(1u << at % 8);
        missed += store_page_check(p->b.s, p->ref, p->read) != RW_ECORRUPT;
    }
    tap_ok(missed == 0, "no flipped bit is missed");
    file_flip(p->b.path, p->address * RW_BLOCK_SIZE + 9000, 4);
    tap_ok(store_page_read(p->b.s, p->ref, p->read) == RW_ECORRUPT && strstr(rw_error_text(), "checksum") != NULL, "nor one in the file");
    file_flip(p->b.path, p->address * RW_BLOCK_SIZE + 9000, 4);
    TAP_CHECK(store_page_read(p->b.s, p->ref, p->read) == 0);
}

static void test_page_refs(page_bed *p)
{
    uint32_t count = p->b.s->segments.count;
    page_ref wrong[] = {
        page_ref_disk(p->address, 0, p->ref.checksum, 0),         page_ref_disk(p->address, 5, p->ref.checksum, 0),
        page_ref_disk(p->address, 0x7fff, p->ref.checksum, 0),    page_ref_disk(0, 4, p->ref.checksum, 0),
        page_ref_disk(SEGMENT_BLOCKS - 1, 4, p->ref.checksum, 0), page_ref_disk((uint64_t)count * SEGMENT_BLOCKS - 3, 4, p->ref.checksum, 0),
        page_ref_disk(PAGE_REF_ADDRESS_MASK, 4, 0, 0),            page_ref_disk(p->address + 1, 4, p->ref.checksum, 0),
    };
    for (size_t i = 0; i < RW_ARRAY_SIZE(wrong); i++)
        tap_ok(store_page_read(p->b.s, wrong[i], p->read) == RW_ECORRUPT, "an impossible reference is refused: %s", rw_error_text());
    /* stale: the same place, written again since */
    fill(&(rw_random){{1, 2, 3, 4}}, p->page + sizeof(page_header), 100);
    page_ref newer = store_page_seal(p->b.s, p->page, PAGE_BYTES, PAGE_NODE, p->address, 5);
    must(kio_file_write(p->b.k, store_file(p->b.s), p->page, PAGE_BYTES, p->address * RW_BLOCK_SIZE), "write");
    tap_ok(store_page_read(p->b.s, newer, p->read) == 0 && store_page_read(p->b.s, p->ref, p->read) == RW_ECORRUPT, "a stale reference is refused");
}

/* ---- extents ---- */

#define BUFFER_BYTES (64u << 10)

static bool extent_round(bed *b, rw_slice key, size_t size, size_t buffer_bytes)
{
    rw_random random;
    rw_random_seed(&random, size);
    unsigned char *value = malloc(size + 16), *read = malloc(size + 16);
    void *buffer = rw_memory_aligned(buffer_bytes);
    extent_ref ref;
    fill(&random, value, size);
    memset(read, 0xee, size + 16);
    bool good = TAP_CHECK(store_extent_write(b->s, key, rw_slice_of(value, size), buffer, buffer_bytes, &ref) == 0);
    good &= TAP_CHECK(ref.length == size);
    good &= TAP_CHECK(store_extent_read(b->s, ref, key, read, buffer, buffer_bytes) == 0);
    good &= TAP_CHECK(memcmp(value, read, size) == 0 && read[size] == 0xee);
    free(value);
    free(read);
    free(buffer);
    return good;
}

static void test_extent_sizes(void)
{
    bed b;
    static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    rw_slice key = rw_slice_of(letters, 20);
    size_t head = EXTENT_HEADER_BYTES + 20;
    const size_t sizes[] = {0, 1, 2, 4096 - head - 1, 4096 - head, 4096 - head + 1, 8192 - head, BUFFER_BYTES - head, BUFFER_BYTES - head + 1,
                            BUFFER_BYTES, RW_SEGMENT_BYTES - head, RW_SEGMENT_BYTES - head + 1, 1234567, 5u << 20};
    bed_create(&b, "extents");
    for (size_t i = 0; i < RW_ARRAY_SIZE(sizes); i++)
        tap_ok(extent_round(&b, key, sizes[i], BUFFER_BYTES) && extent_round(&b, key, sizes[i], RW_BLOCK_SIZE), "a value of %zu bytes", sizes[i]);
    /* a key longer than the buffer's first piece leaves room for */
    char *long_key = calloc(1, 16364);
    memset(long_key, 'k', 16364);
    tap_ok(extent_round(&b, rw_slice_of(long_key, 16364), 70000, RW_BLOCK_SIZE), "a key over several pieces");
    free(long_key);
    bed_end(&b);
}

static void test_extent_space(void)
{
    bed b;
    extent_ref ref;
    void *buffer = rw_memory_aligned(BUFFER_BYTES), *value = calloc(1, 3 << 20);
    rw_slice key = rw_slice_of("key", 3);
    store_space before, after;
    bed_create(&b, "extents");
    must(store_extent_write(b.s, key, rw_slice_of(value, 5000), buffer, BUFFER_BYTES, &ref), "write");
    store_space_get(b.s, &before);
    b.io.fail_write = 3;
    TAP_CHECK(store_extent_write(b.s, key, rw_slice_of(value, 1 << 20), buffer, BUFFER_BYTES, &ref) == RW_EIO);
    store_space_get(b.s, &after);
    tap_ok(before.live_bytes == after.live_bytes, "a write that fails gives the run back");
    b.io.space = after.file_bytes;
    TAP_CHECK(store_extent_write(b.s, key, rw_slice_of(value, 3 << 20), buffer, BUFFER_BYTES, &ref) == RW_ENOSPC);
    store_space_get(b.s, &after);
    tap_ok(before.live_bytes == after.live_bytes, "so does a full device");
    TAP_CHECK(store_extent_write(b.s, key, rw_slice_of(value, RW_VALUE_SIZE_MAX + 1), buffer, BUFFER_BYTES, &ref) == RW_ETOOBIG);
    free(buffer);
    free(value);
    bed_end(&b);
}

static void test_extent_damage(void)
{
    bed b;
    extent_ref ref;
    size_t size = 200000;
    unsigned missed = 0;
    rw_slice key = rw_slice_of("some key", 8);
    bed_create(&b, "damage");
    unsigned char *value = calloc(1, size), *buffer = rw_memory_aligned(BUFFER_BYTES);
    uint64_t at, skipped;
    must(store_allocate(b.s, STORE_EXTENTS, 1, &skipped), "allocate");
    must(store_extent_write(b.s, key, rw_slice_of(value, size), buffer, BUFFER_BYTES, &ref), "write");
    at = ref.address * RW_BLOCK_SIZE;
    uint32_t total = extent_blocks(8, (uint32_t)size) * RW_BLOCK_SIZE;
    for (uint32_t i = 0; i < total; i += i < 100 ? 1 : 1733) {
        file_flip(b.path, at + i, 2);
        missed += store_extent_read(b.s, ref, key, value, buffer, BUFFER_BYTES) != RW_ECORRUPT;
        file_flip(b.path, at + i, 2);
    }
    file_flip(b.path, at + total - 1, 1);
    missed += store_extent_read(b.s, ref, key, value, buffer, BUFFER_BYTES) != RW_ECORRUPT;
    file_flip(b.path, at + total - 1, 1);
    tap_ok(missed == 0, "no flipped bit of an extent is missed, padding included");
    TAP_CHECK(store_extent_read(b.s, ref, key, value, buffer, BUFFER_BYTES) == 0);

    tap_ok(store_extent_read(b.s, ref, rw_slice_of("some kex", 8), value, buffer, BUFFER_BYTES) == RW_ECORRUPT && strstr(rw_error_text(), "another key") != NULL, "another key's extent");
    tap_ok(store_extent_read(b.s, ref, rw_slice_of("some key1", 9), value, buffer, BUFFER_BYTES) == RW_ECORRUPT && strstr(rw_error_text(), "key length") != NULL, "a longer key's");
    extent_ref other = ref;
    other.length--;
    tap_ok(store_extent_read(b.s, other, key, value, buffer, BUFFER_BYTES) == RW_ECORRUPT && strstr(rw_error_text(), "value length") != NULL, "a shorter value's");
    other = ref;
    other.checksum++;
    tap_ok(store_extent_read(b.s, other, key, value, buffer, BUFFER_BYTES) == RW_ECORRUPT && strstr(rw_error_text(), "checksum") != NULL, "an older one at the same place");
    static const struct { uint64_t address; uint32_t length; } absurd[] = {{0, 10}, {1ull << 47, 10}, {UINT64_MAX, 10}, {300, UINT32_MAX}, {300, 1 << 30}};
    for (size_t i = 0; i < RW_ARRAY_SIZE(absurd); i++) {
        other = (extent_ref){.address = absurd[i].address, .length = absurd[i].length};
        tap_ok(store_extent_read(b.s, other, key, value, buffer, BUFFER_BYTES) == RW_ECORRUPT, "an absurd reference: %s", rw_error_text());
    }
    free(value);
    free(buffer);
    bed_end(&b);
}

int main(void)
{
    page_bed p;
    page_bed_make(&p);
    test_page_round(&p);
    test_page_lies(&p);
    test_page_flips(&p);
    test_page_refs(&p);
    page_bed_end(&p);
    test_extent_sizes();
    test_extent_space();
    test_extent_damage();
    return tap_done();
}
