/* The data file as a whole: creating, opening, publishing. */
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/planted.h"
#include "store/store_internal.h"

void *store_memory(size_t bytes)
{
    void *memory = rw_memory_aligned(bytes);
    if (memory != NULL) memset(memory, 0, bytes);
    return memory;
}

/* ---- making and freeing the handle ---- */

static char *data_path(const char *dir)
{
    size_t size = strlen(dir) + sizeof "/data";
    char *path = malloc(size);
    if (path != NULL) snprintf(path, size, "%s/data", dir);
    return path;
}

static store *store_new(kio *k, const char *dir, const store_params *params)
{
    store *s = calloc(1, sizeof *s);
    char *copy = strdup(dir);
    if (s == NULL || copy == NULL) {
        free(s);
        free(copy);
        rw_error(RW_ENOMEM, "no memory to open the data file in %s", dir);
        return NULL;
    }
    s->k = k;
    s->dir = copy;
    s->params = *params;
    return s;
}

void store_close(store *s)
{
    if (s->file != NULL) kio_file_close(s->k, s->file);
    segments_free_all(&s->segments);
    superblock_image_free(&s->image);
    free(s->dir);
    free(s);
}

static int data_open(kio *k, const char *dir, unsigned flags, kio_file **file)
{
    char *path = data_path(dir);
    if (path == NULL) return rw_error(RW_ENOMEM, "no memory for the path of the data file in %s", dir);
    int result = kio_file_open(k, path, flags | KIO_DIRECT, file);
    free(path);
    return result;
}

kio_file *store_file(store *s)
{
    return s->file;
}

const store_image *store_image_opened(const store *s)
{
    return &s->image;
}

kio_sync_times store_sync_times(const store *s)
{
    return s->sync_times;
}

void store_sync_times_keep(store *s, const kio_sync_times *times)
{
    s->sync_times = *times;
}

/* ---- creating ---- */

/* *marked: its mark can be read. */
static bool creation_look(kio *k, const char *dir, bool *marked)
{
    superblock_slot slots[SUPERBLOCK_SLOTS];
    kio_file *file;
    uint64_t bytes;
    bool unfinished = false;
    *marked = false;
    if (data_open(k, dir, KIO_READ_ONLY, &file) != 0) return false;
    if (kio_file_size(k, file, &bytes) == 0 && superblock_read(k, file, bytes, slots) == 0) {
        unfinished = superblock_is_unfinished(k, file, bytes, slots);
        *marked = unfinished && slots[1].code == 0;
        superblock_slots_free(slots);
    }
    kio_file_close(k, file);
    return unfinished;
}

bool store_is_unfinished(kio *k, const char *dir)
{
    bool marked;
    return creation_look(k, dir, &marked);
}

bool store_creation_is_marked(kio *k, const char *dir)
{
    bool marked;
    return creation_look(k, dir, &marked) && marked;
}

static int data_unlink(kio *k, const char *dir)
{
    char *path = data_path(dir);
    if (path == NULL) return rw_error(RW_ENOMEM, "no memory for the path of the data file in %s", dir);
    int result = kio_unlink(k, path);
    free(path);
    return result;
}

static int data_create(kio *k, const char *dir, kio_file **file)
{
    int result = data_open(k, dir, KIO_CREATE | KIO_EXCLUSIVE, file);
    if (result != RW_EEXIST || !store_is_unfinished(k, dir)) return result;
    result = data_unlink(k, dir);
    return result != 0 ? result : data_open(k, dir, KIO_CREATE | KIO_EXCLUSIVE, file);
}

static int database_id_draw(kio *k, uint64_t *id)
{
    do {
        int result = kio_random(k, id, sizeof *id);
        if (result != 0) return result;
    } while (*id == 0);
    return 0;
}

/* The first segment, and in it the mark that creation has begun, durable under its name before anything else is written. */
static int creation_begin(store *s)
{
    superblock mark = {.database_id = s->params.database_id, .page_size = s->params.page_size, .segments = 1};
    int result = kio_file_allocate(s->k, s->file, 0, RW_SEGMENT_BYTES);
    if (result != 0) return result;
    void *memory = superblock_memory(&mark.image);
    if (memory == NULL) return RW_ENOMEM;
    result = superblock_write(s->k, s->file, &mark, memory);
    free(memory);
    if (result == 0) result = kio_file_sync(s->k, s->file);
    if (result == 0) result = kio_directory_sync(s->k, s->dir);
    if (result == 0) result = segments_init(&s->segments, 1);
    return result;
}

/* What was begun is taken away again, if it can be; if not, it is recognised as unfinished. */
static int creation_abandon(store *s, int code)
{
    char text[240];
    snprintf(text, sizeof text, "%s", rw_error_text());
    kio_file_close(s->k, s->file);
    s->file = NULL;
    (void)data_unlink(s->k, s->dir);
    return rw_error(code, "%s", text);
}

int store_create(kio *k, const char *dir, store_params *params, store **out)
{
    if (!rw_is_power_of_two(params->page_size) || params->page_size < RW_PAGE_SIZE_MIN || params->page_size > RW_PAGE_SIZE_MAX)
        return rw_error(RW_EINVAL, "page size %u: a power of two from %u to %u", params->page_size, RW_PAGE_SIZE_MIN, RW_PAGE_SIZE_MAX);
    if (params->read_only) return rw_error(RW_EINVAL, "%s: a database cannot be created read-only", dir);
    store *s = store_new(k, dir, params);
    if (s == NULL) return RW_ENOMEM;
    int result = database_id_draw(k, &s->params.database_id);
    if (result == 0) result = data_create(k, dir, &s->file);
    if (result == 0) {
        result = creation_begin(s);
        if (result != 0) result = creation_abandon(s, result);
    }
    if (result != 0) {
        store_close(s);
        return result;
    }
    store_claims_end(s);
    *params = s->params;
    *out = s;
    return 0;
}

/* ---- opening ---- */

static int roots_check(const store *s)
{
    for (uint32_t i = 0; i < s->image.partition_count; i++) {
        page_ref root = s->image.partitions[i].root;
        if (!page_ref_is_none(root) && !segments_contain(s, page_ref_address(root), page_ref_blocks(root)))
            return rw_error(RW_ECORRUPT, "%s: the root of partition %u is named at offset %llu, past the end of the file", kio_file_path(s->file),
                            s->image.partitions[i].id, (unsigned long long)page_ref_address(root) * RW_BLOCK_SIZE);
    }
    return 0;
}

/* Takes over what the chosen superblock says; its partitions are the store's from here on. */
static int superblock_adopt(store *s, superblock *block, uint64_t file_bytes)
{
    uint64_t count = file_bytes / RW_SEGMENT_BYTES;
    if (count == 0 || count > SEGMENTS_MAX)
        return rw_error(RW_ECORRUPT, "%s: %llu bytes are no possible size of a data file", kio_file_path(s->file), (unsigned long long)file_bytes);
    s->params.database_id = block->database_id;
    s->params.page_size = block->page_size;
    s->sync_times = block->sync_times;
    s->image = block->image;
    block->image = (store_image){0};
    int result = segments_init(&s->segments, (uint32_t)count);
    if (result == 0) result = roots_check(s);
    if (result == 0) result = space_map_read(s, block);
    return result;
}

static int data_load(store *s)
{
    superblock_slot slots[SUPERBLOCK_SLOTS];
    uint64_t bytes;
    uint32_t chosen = 0;
    int result = 0;
    /* what a killed process wrote and did not sync is readable, and may be gone after a power cut that follows */
    if (!s->params.read_only) {
        result = kio_file_sync(s->k, s->file);
        if (result == 0) result = kio_directory_sync(s->k, s->dir);
    }
    if (result == 0) result = kio_file_size(s->k, s->file, &bytes);
    if (result == 0) result = superblock_read(s->k, s->file, bytes, slots);
    if (result != 0) return result;
    if (superblock_is_unfinished(s->k, s->file, bytes, slots))
        result = rw_error(RW_ENOENT, "%s: the creation of this database was never finished", kio_file_path(s->file));
    else
        result = superblock_choose(s->file, slots, &chosen);
    if (result == 0) {
        s->says_closed = slots[chosen].block.image.log_closed;
        /* what cannot be read in the other slot may be what came after, and said that the log was begun */
        if (slots[1 - chosen].code != 0) slots[chosen].block.image.log_closed = false;
        result = superblock_adopt(s, &slots[chosen].block, bytes);
    }
    superblock_slots_free(slots);
    return result;
}

int store_open(kio *k, const char *dir, store_params *params, store **out)
{
    store *s = store_new(k, dir, params);
    if (s == NULL) return RW_ENOMEM;
    int result = data_open(k, dir, params->read_only ? KIO_READ_ONLY : 0, &s->file);
    if (result == 0) result = data_load(s);
    if (result != 0) {
        store_close(s);
        return result;
    }
    *params = s->params;
    *out = s;
    return 0;
}

/* ---- making durable ---- */

/* Remembers the first failed write or sync, of which the thread's sentence speaks. What the device has is not known from then on. */
static int store_fail(store *s, int code)
{
    kio_mutex_lock(s->k, &s->mutex);
    if (s->failure == 0) {
        s->failure = code;
        snprintf(s->failure_text, sizeof s->failure_text, "%s", rw_error_text());
    }
    kio_mutex_unlock(s->k, &s->mutex);
    return code;
}

static int store_failed(store *s)
{
    kio_mutex_lock(s->k, &s->mutex);
    int result = s->failure == 0 ? 0 : rw_error(RW_EIO, "%s takes no checkpoint since: %s", kio_file_path(s->file), s->failure_text);
    kio_mutex_unlock(s->k, &s->mutex);
    return result;
}

/* One at a time, as of the log: a failed sync may have lost what another thread wrote, and that thread's own sync would succeed. */
int store_sync(store *s)
{
    kio_mutex_lock(s->k, &s->sync_mutex);
    int result = store_failed(s);
    if (result == 0) {
        result = kio_file_sync(s->k, s->file);
        if (result != 0) store_fail(s, result);
    }
    kio_mutex_unlock(s->k, &s->sync_mutex);
    return result;
}

static int publish_slot(store *s, const superblock *next, void *memory)
{
    int result = superblock_write(s->k, s->file, next, memory);
    return result == 0 ? store_sync(s) : store_fail(s, result);
}

/* Every step is durable before the next: data and map, superblock. */
static int publish_write(store *s, superblock *next, const void *map, void *memory)
{
    int result = 0;
    if (map != NULL) {
        result = kio_file_write(s->k, s->file, map, (size_t)next->map.blocks * RW_BLOCK_SIZE, next->map.address * RW_BLOCK_SIZE);
        if (result != 0) return store_fail(s, result);
    }
    if (!RW_PLANTED(skip_data_sync)) result = store_sync(s);
    if (result == 0) result = publish_slot(s, next, memory);
    if (result != 0 || next->image.generation > 1) return result;
    /* the first one: the mark of creation gives way too, or damage to a single slot would look like an unfinished creation */
    next->image.generation++;
    return publish_slot(s, next, memory);
}

/* The superblock on disk is next. */
static void publish_adopt(store *s, superblock *next)
{
    superblock_image_free(&s->image);
    s->image = next->image;
    s->says_closed = s->image.log_closed;
    next->image = (store_image){0};
    kio_mutex_lock(s->k, &s->mutex);
    if (s->map.blocks > 0) segments_release(s, s->map.address, s->map.blocks, false);
    s->map = next->map;
    s->sealed = next->clean;
    kio_mutex_unlock(s->k, &s->mutex);
}

static int publish_map(store *s, superblock *next, void *memory)
{
    void *map = NULL;
    int result = next->clean ? space_map_make(s, &next->map, &map) : 0;
    if (result != 0) return result;
    result = publish_write(s, next, map, memory);
    free(map);
    if (result == 0) {
        publish_adopt(s, next);
    } else {
        kio_mutex_lock(s->k, &s->mutex);
        s->sealed = false;
        kio_mutex_unlock(s->k, &s->mutex);
    }
    return result;
}

/* As the next one on disk has it, but for its image and map. */
static superblock superblock_next(store *s, bool clean)
{
    return (superblock){
        .database_id = s->params.database_id,
        .page_size = s->params.page_size,
        .segments = atomic_load_explicit(&s->segments.count, memory_order_relaxed),
        .clean = clean,
        .sync_times = s->sync_times,
    };
}

static void image_check(const store *s, const store_image *image)
{
    for (uint32_t i = 0; i < image->partition_count; i++) {
        const store_partition *p = &image->partitions[i];
        RW_ASSERT(i == 0 ? p->low_key.size == 0 : rw_slice_compare(image->partitions[i - 1].low_key, p->low_key) < 0);
        RW_ASSERT(p->id < image->next_partition_id);
        RW_ASSERT(page_ref_is_none(p->root) || segments_contain(s, page_ref_address(p->root), page_ref_blocks(p->root)));
    }
}

int store_publish(store *s, const store_image *image, bool clean)
{
    superblock next = superblock_next(s, clean);
    if (s->params.read_only) return rw_error(RW_EREADONLY, "%s is open read-only: no checkpoint", kio_file_path(s->file));
    RW_ASSERT(!s->segments.claiming);
    int result = store_failed(s);
    if (result != 0) return result;
    if (!store_image_fits(image))
        return rw_error(RW_ETOOBIG, "the table of %u partitions does not fit a superblock of %u bytes", image->partition_count, SUPERBLOCK_SLOT_BYTES);
    image_check(s, image);
    result = superblock_image_copy(&next.image, image);
    if (result != 0) return result;
    next.image.generation = s->image.generation + 1;
    void *memory = superblock_memory(&next.image);
    result = memory == NULL ? RW_ENOMEM : publish_map(s, &next, memory);
    free(memory);
    superblock_image_free(&next.image);
    return result;
}

int store_log_begin(store *s)
{
    bool mapped = s->map.blocks > 0 && store_space_map_damage(s) == NULL;
    superblock next = superblock_next(s, mapped);
    RW_ASSERT(!s->params.read_only && !s->segments.claiming);
    if (!s->says_closed) return 0;
    int result = superblock_image_copy(&next.image, &s->image);
    if (result != 0) return result;
    if (mapped) next.map = s->map;
    next.image.log_closed = false;
    next.image.generation++;
    void *memory = superblock_memory(&next.image);
    result = memory == NULL ? RW_ENOMEM : publish_slot(s, &next, memory);
    free(memory);
    if (result == 0) {
        superblock_image_free(&s->image);
        s->image = next.image;
        s->says_closed = false;
    } else {
        superblock_image_free(&next.image);
    }
    return result;
}
