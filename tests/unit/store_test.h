/* What the tests of the data file share: a back end that counts, runs out of space and fails on demand over the real one, and images. */
#ifndef TESTS_STORE_TEST_H
#define TESTS_STORE_TEST_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "store/store_internal.h"
#include "tests/support/dirs.h"
#include "tests/support/tap.h"

#define NEVER UINT64_MAX

/* ---- the back end ---- */

typedef struct {
    kio base;
    kio_vtable operations;
    kio *inner;
    uint64_t space;            /* a file may not grow past this many bytes */
    uint64_t writes, syncs, allocates;
    uint64_t fail_write, fail_sync;   /* the how manieth from now on fails; NEVER */
    unsigned char torn_bytes;  /* a failing write does this share of its work, in 8ths */
} faulty_kio;

static inline faulty_kio *faulty(kio *k)
{
    return RW_CONTAINER_OF(k, faulty_kio, base);
}

static inline void faulty_close(kio *k)
{
    kio_close(faulty(k)->inner);
}

static inline int faulty_file_open(kio *k, const char *path, unsigned flags, kio_file **f)
{
    return kio_file_open(faulty(k)->inner, path, flags, f);
}

static inline void faulty_file_close(kio *k, kio_file *f)
{
    kio_file_close(faulty(k)->inner, f);
}

static inline int faulty_file_size(kio *k, kio_file *f, uint64_t *bytes)
{
    return kio_file_size(faulty(k)->inner, f, bytes);
}

static inline int faulty_file_resize(kio *k, kio_file *f, uint64_t bytes)
{
    return kio_file_resize(faulty(k)->inner, f, bytes);
}

/* On a full device half of what was asked for is there all the same, as some file systems do it. */
static inline int faulty_file_allocate(kio *k, kio_file *f, uint64_t offset, uint64_t bytes)
{
    faulty_kio *w = faulty(k);
    w->allocates++;
    if (offset + bytes <= w->space) return kio_file_allocate(w->inner, f, offset, bytes);
    int result = kio_file_resize(w->inner, f, offset + bytes / 2 / RW_BLOCK_SIZE * RW_BLOCK_SIZE);
    return result != 0 ? result : rw_error(RW_ENOSPC, "%s: no space (simulated)", kio_file_path(f));
}

static inline int faulty_file_read(kio *k, kio_file *f, void *b, size_t n, uint64_t at)
{
    return kio_file_read(faulty(k)->inner, f, b, n, at);
}

static inline int faulty_file_write(kio *k, kio_file *f, const void *b, size_t n, uint64_t at)
{
    faulty_kio *w = faulty(k);
    w->writes++;
    if (w->fail_write == NEVER || --w->fail_write > 0) return kio_file_write(w->inner, f, b, n, at);
    w->fail_write = NEVER;
    size_t torn = n * w->torn_bytes / 8 / RW_BLOCK_SIZE * RW_BLOCK_SIZE;
    int result = torn > 0 ? kio_file_write(w->inner, f, b, torn, at) : 0;
    return result != 0 ? result : rw_error(RW_EIO, "%s: write failed (simulated)", kio_file_path(f));
}

static inline int faulty_file_sync(kio *k, kio_file *f)
{
    faulty_kio *w = faulty(k);
    w->syncs++;
    if (w->fail_sync == NEVER || --w->fail_sync > 0) return kio_file_sync(w->inner, f);
    w->fail_sync = NEVER;
    return rw_error(RW_EIO, "%s: sync failed (simulated)", kio_file_path(f));
}

static inline int faulty_directory_sync(kio *k, const char *path)
{
    return kio_directory_sync(faulty(k)->inner, path);
}

static inline int faulty_unlink(kio *k, const char *path)
{
    return kio_unlink(faulty(k)->inner, path);
}

static inline int faulty_random(kio *k, void *buffer, size_t length)
{
    return kio_random(faulty(k)->inner, buffer, length);
}

static inline uint64_t faulty_now_ns(kio *k)
{
    return kio_now_ns(faulty(k)->inner);
}

static inline void faulty_sleep(kio *k, const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    kio_sleep(faulty(k)->inner, word, expected, timeout_ns);
}

static inline void faulty_wake(kio *k, const _Atomic uint32_t *word, unsigned count)
{
    kio_wake(faulty(k)->inner, word, count);
}

static inline kio *faulty_open(faulty_kio *w)
{
    *w = (faulty_kio){.space = NEVER, .fail_write = NEVER, .fail_sync = NEVER};
    if (kio_open("psync", NULL, NULL, &w->inner) != 0) {
        fprintf(stderr, "no back end: %s\n", rw_error_text());
        exit(1);
    }
    w->operations = (kio_vtable){
        .name = "faulty",
        .close = faulty_close,
        .file_open = faulty_file_open,
        .file_close = faulty_file_close,
        .file_size = faulty_file_size,
        .file_resize = faulty_file_resize,
        .file_allocate = faulty_file_allocate,
        .file_read = faulty_file_read,
        .file_write = faulty_file_write,
        .file_sync = faulty_file_sync,
        .directory_sync = faulty_directory_sync,
        .unlink = faulty_unlink,
        .random = faulty_random,
        .now_ns = faulty_now_ns,
        .sleep = faulty_sleep,
        .wake = faulty_wake,
    };
    w->base.ops = &w->operations;
    return &w->base;
}

/* ---- what a test stands on ---- */

typedef struct {
    faulty_kio io;
    kio *k;
    char dir[DIRS_PATH_MAX];
    char path[DIRS_PATH_MAX];
    store_params params;
    store *s;
} bed;

static inline void must(int result, const char *what)
{
    if (result == 0) return;
    fprintf(stderr, "%s: %s\n", what, rw_error_text());
    exit(1);
}

static inline void bed_make(bed *b, const char *tag)
{
    memset(b, 0, sizeof *b);
    b->k = faulty_open(&b->io);
    if (!dir_make(b->dir, tag)) exit(1);
    path_join(b->path, b->dir, "data");
    b->params.page_size = 4096;
}

static inline void bed_create(bed *b, const char *tag)
{
    bed_make(b, tag);
    must(store_create(b->k, b->dir, &b->params, &b->s), "create");
}

static inline void bed_close(bed *b)
{
    if (b->s != NULL) store_close(b->s);
    b->s = NULL;
}

static inline int bed_open(bed *b)
{
    return store_open(b->k, b->dir, &b->params, &b->s);
}

static inline void bed_reopen(bed *b)
{
    bed_close(b);
    must(bed_open(b), "open");
}

static inline void bed_end(bed *b)
{
    bed_close(b);
    dir_remove(b->dir);
    kio_close(b->k);
}

/* An image of count partitions with keys of key_size bytes (but for the first), recognisable by its mark. */
static inline store_image image_make(uint64_t mark, uint32_t count, uint32_t key_size)
{
    store_image image = {.checkpoint_lsn = mark, .durable_lsn = mark + 1, .partition_count = count, .next_partition_id = count + 7};
    image.partitions = calloc(count + 1, sizeof *image.partitions);
    char *keys = calloc(count + 1, key_size + 1);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(keys + (size_t)i * (key_size + 1), key_size + 1, "%0*u", (int)key_size, i);
        image.partitions[i] = (store_partition){
            .lsn = mark + i, .id = i, .height = 1, .low_key = rw_slice_of(keys + (size_t)i * (key_size + 1), i == 0 ? 0 : key_size)};
    }
    if (count == 0) free(keys);
    return image;
}

static inline void image_free(store_image *image)
{
    if (image->partition_count > 0) free((void *)(uintptr_t)image->partitions[0].low_key.data);
    free(image->partitions);
}

/* Apart from the generation. */
static inline bool image_equal(const store_image *a, const store_image *b)
{
    if (a->checkpoint_lsn != b->checkpoint_lsn || a->durable_lsn != b->durable_lsn || a->partition_count != b->partition_count ||
        a->next_partition_id != b->next_partition_id)
        return false;
    for (uint32_t i = 0; i < a->partition_count; i++) {
        const store_partition *p = &a->partitions[i], *q = &b->partitions[i];
        if (p->root.word != q->root.word || p->root.checksum != q->root.checksum || p->lsn != q->lsn || p->id != q->id ||
            p->height != q->height || !rw_slice_equal(p->low_key, q->low_key))
            return false;
    }
    return true;
}

static inline int publish_mark(bed *b, uint64_t mark, bool clean)
{
    store_image image = image_make(mark, 3, 8);
    int result = store_publish(b->s, &image, clean);
    image_free(&image);
    return result;
}

static inline bool space_same(const store_space *a, const store_space *b)
{
    return a->file_bytes == b->file_bytes && a->live_bytes == b->live_bytes && a->segments == b->segments &&
           a->segments_free == b->segments_free && a->segments_cleaning == b->segments_cleaning;
}

#endif
