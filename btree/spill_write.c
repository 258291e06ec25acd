/* Making a spill: its pages in the order of their keys, leaves first, then what is above them, level by level. And reading what is above the leaves of one that was made before. */
#include "base/memory.h"
#include "btree/spill_internal.h"

#define FILTER_BITS 12u                /* for each key */

/* A page that was placed, to be named by its parent. */
typedef struct {
    page_ref ref;
    uint32_t key;                      /* where its first key begins in the writer's keys */
    uint32_t key_size;
} placed_page;

typedef struct {
    placed_page *pages;
    uint32_t count, capacity;
} placed_list;

struct spill_writer {
    kio *kio;
    store *store;
    pool *pool;
    spill *spill;
    uint64_t newest;
    uint32_t number;
    store_retired placed;              /* all that was allocated, one run after the other */
    node *leaf;                        /* being filled */
    bool leaf_begun;
    unsigned char *batch;              /* pages that lie side by side, to be written together */
    uint64_t address;                  /* blocks, of the first of them */
    uint32_t batch_pages, batch_room;
    unsigned char *keys;
    size_t keys_size, keys_capacity;
    placed_list below;                 /* of the level that was made last */
};

/* Makes the node that lies in frame f the last of its parents. False: there is no memory. */
static bool parent_add(spill *s, uint32_t f)
{
    uint32_t *grown = realloc(s->parents, (s->parent_count + 1) * sizeof *grown);
    if (grown == NULL) return false;
    s->parents = grown;
    s->parents[s->parent_count++] = f;
    return true;
}

static bool inner_add(spill *s, page_ref ref)
{
    page_ref *grown = realloc(s->inner, (s->inner_count + 1) * sizeof *grown);
    if (grown == NULL) return false;
    s->inner = grown;
    s->inner[s->inner_count++] = ref;
    return true;
}

static int memory_error(void)
{
    return rw_error(RW_ENOMEM, "no memory to sort pending writes out to disk");
}

/* ---- placing pages ----------------------------------------------------------------------------------------------------- */

static int batch_write(spill_writer *w)
{
    if (w->batch_pages == 0) return 0;
    uint32_t bytes = w->batch_pages * w->pool->page_size;
    int error = kio_file_write(w->kio, store_file(w->store), w->batch, bytes, w->address * RW_BLOCK_SIZE);
    w->address += (uint64_t)w->batch_pages * w->pool->page_blocks;
    w->batch_room -= w->batch_pages;
    w->batch_pages = 0;
    return error;
}

/* What was allocated with others and is not needed. */
static void batch_trim(spill_writer *w)
{
    uint32_t blocks = w->batch_room * w->pool->page_blocks;
    RW_ASSERT(w->batch_pages == 0);
    if (blocks == 0) return;
    store_give_back(w->store, w->address, blocks);
    uint32_t last = w->placed.count - 1;
    w->placed.runs[last].blocks -= blocks;
    w->placed.blocks -= blocks;
    if (w->placed.runs[last].blocks == 0) w->placed.count--;
    w->batch_room = 0;
}

static int batch_begin(spill_writer *w)
{
    uint32_t units = RW_WRITE_BATCH_BYTES / w->pool->page_size, before = w->placed.count;
    int error = batch_write(w);
    if (error == 0) error = store_allocate_some(w->store, STORE_IMAGES, w->pool->page_blocks, &units, &w->address);
    if (error != 0) return error;
    store_retire(&w->placed, w->address, units * w->pool->page_blocks);
    if (w->placed.count == before) {
        store_give_back(w->store, w->address, units * w->pool->page_blocks);
        return memory_error();
    }
    w->batch_room = units;
    return 0;
}

static int page_place(spill_writer *w, const node *n, page_ref *ref)
{
    int error = w->batch_pages == w->batch_room ? batch_begin(w) : 0;
    if (error != 0) return error;
    node *to = (node *)(void *)(w->batch + (size_t)w->batch_pages * w->pool->page_size);
    memcpy(to, n, w->pool->page_size);
    to->page.newest_timestamp = w->newest;
    RW_ASSERT_SLOW(node_check(to, w->pool->page_size, true) == 0);
    uint64_t address = w->address + (uint64_t)w->batch_pages * w->pool->page_blocks;
    *ref = store_page_seal(w->store, to, w->pool->page_size, PAGE_NODE, address, n->page.level == 0 ? n->count : 0);
    w->batch_pages++;
    return 0;
}

/* Notes a page for the level above. key: its first; or where that stands among the keys already (data NULL). */
static int placed_add(spill_writer *w, placed_list *list, page_ref ref, rw_slice key, uint32_t key_at)
{
    if (list->count == list->capacity) {
        uint32_t capacity = RW_MAX(64, 2 * list->capacity);
        placed_page *grown = realloc(list->pages, capacity * sizeof *grown);
        if (grown == NULL) return memory_error();
        list->pages = grown;
        list->capacity = capacity;
    }
    if (key.data != NULL) {
        if (w->keys_size + key.size > w->keys_capacity) {
            size_t capacity = 2 * (w->keys_capacity + key.size);
            unsigned char *grown = realloc(w->keys, capacity);
            if (grown == NULL) return memory_error();
            w->keys = grown;
            w->keys_capacity = capacity;
        }
        key_at = (uint32_t)w->keys_size;
        memcpy(w->keys + key_at, key.data, key.size);
        w->keys_size += key.size;
    }
    list->pages[list->count++] = (placed_page){.ref = ref, .key = key_at, .key_size = (uint32_t)key.size};
    return 0;
}

static int leaf_end(spill_writer *w)
{
    page_ref ref;
    w->leaf_begun = false;
    int error = page_place(w, w->leaf, &ref);
    return error == 0 ? placed_add(w, &w->below, ref, node_lower_fence(w->leaf), 0) : error;
}

int spill_write_add(spill_writer *w, rw_slice key, uint64_t hash, rw_slice value)
{
    uint32_t page_size = w->pool->page_size;
    int error = w->leaf_begun && !node_fits(w->leaf, page_size, key.size, value.size) ? leaf_end(w) : 0;
    if (error != 0) return error;
    if (!w->leaf_begun) {
        memset(w->leaf, 0, page_size);
        node_init(w->leaf, page_size, 0, key, rw_slice_of("", 0)); /* no upper fence, so no prefix: which keys follow is not known yet */
        w->leaf_begun = true;
    }
    node_insert(w->leaf, page_size, w->leaf->count, key, value, 0);
    spill_filter_note(w->spill, w->pool, hash);
    w->spill->writes++;
    return 0;
}

/* ---- levels ------------------------------------------------------------------------------------------------------------ */

/* A frame that holds a copy of the node. */
static int parent_keep(spill_writer *w, const node *n)
{
    uint32_t f;
    int error = pool_frame_take(w->pool, &f);
    if (error != 0) return error;
    memcpy(pool_page(w->pool, f), n, w->pool->page_size);
    if (parent_add(w->spill, f)) return 0;
    pool_frame_free(w->pool, f);
    return memory_error();
}

/* count pages of the level below, from first on, are named in the node that was filled. */
static int inner_end(spill_writer *w, placed_list *above, const placed_page *first, uint32_t count)
{
    page_ref ref;
    int error = page_place(w, w->leaf, &ref);
    for (uint32_t i = 0; i < count && error == 0; i++) ref.estimate += first[i].ref.estimate;
    if (error == 0 && w->leaf->page.level == 1) error = parent_keep(w, w->leaf);
    if (error == 0 && !inner_add(w->spill, ref)) error = memory_error();
    return error == 0 ? placed_add(w, above, ref, rw_slice_of(NULL, first->key_size), first->key) : error;
}

/* One level of what is above w->below. */
static int level_make(spill_writer *w, unsigned level)
{
    placed_list above = {0};
    uint32_t page_size = w->pool->page_size;
    node *n = w->leaf;
    int error = 0;
    for (uint32_t i = 0, next; i < w->below.count && error == 0; i = next) {
        const placed_page *first = &w->below.pages[i];
        memset(n, 0, page_size);
        node_init(n, page_size, level, rw_slice_of(w->keys + first->key, first->key_size), rw_slice_of("", 0));
        for (next = i; next < w->below.count; next++) {
            const placed_page *one = &w->below.pages[next];
            rw_slice key = rw_slice_of(w->keys + one->key, one->key_size), value = rw_slice_of(&one->ref, sizeof one->ref);
            if (next > i && !node_fits(n, page_size, key.size, value.size)) break;
            node_insert(n, page_size, next - i, key, value, 0);
        }
        RW_ASSERT(next - i > 1 || i + 1 == w->below.count); /* else there would never be a root (README, 6) */
        error = inner_end(w, &above, first, next - i);
    }
    free(w->below.pages);
    w->below = above;
    return error;
}

/* ---- from begin to end -------------------------------------------------------------------------------------------------- */

static void filter_begin(spill_writer *w, uint64_t writes)
{
    uint32_t wanted = (uint32_t)((writes * FILTER_BITS / 8 + w->pool->page_size - 1) / w->pool->page_size);
    spill *s = w->spill;
    s->filter = calloc(RW_MAX(wanted, 1u), sizeof *s->filter);
    while (s->filter != NULL && s->filter_count < wanted) {
        uint32_t f;
        if (pool_frame_take(w->pool, &f) != 0) break;
        memset(pool_page(w->pool, f), 0, w->pool->page_size);
        s->filter[s->filter_count++] = f;
    }
}

static void writer_free(spill_writer *w)
{
    store_retired_free(&w->placed);
    free(w->below.pages);
    free(w->keys);
    free(w->leaf);
    free(w);
}

int spill_write_begin(kio *k, store *st, pool *p, void *batch, uint32_t number, uint64_t writes, uint64_t newest, spill_writer **out)
{
    spill_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return memory_error();
    w->kio = k;
    w->store = st;
    w->pool = p;
    w->newest = newest;
    w->number = number;
    w->spill = calloc(1, sizeof *w->spill);
    w->leaf = rw_memory_aligned(p->page_size);
    w->batch = batch;
    if (w->spill != NULL) filter_begin(w, writes);
    if (w->spill == NULL || w->leaf == NULL || w->spill->filter_count * (uint64_t)p->page_size * 8 < writes * FILTER_BITS) {
        spill_write_abandon(w);
        return memory_error();
    }
    *out = w;
    return 0;
}

void spill_write_abandon(spill_writer *w)
{
    for (uint32_t i = 0; i < w->placed.count; i++) store_give_back(w->store, w->placed.runs[i].address, w->placed.runs[i].blocks);
    if (w->spill != NULL) spill_close(w->spill, w->pool);
    writer_free(w);
}

int spill_write_end(spill_writer *w, spill **out)
{
    unsigned level = 0;
    RW_ASSERT(w->spill->writes > 0);
    int error = w->leaf_begun ? leaf_end(w) : 0;
    while (error == 0 && (w->below.count > 1 || level == 0)) error = level_make(w, ++level);
    if (error == 0) error = batch_write(w);
    if (error != 0) return error;
    batch_trim(w);
    w->spill->image = (store_spill){.root = w->below.pages[0].ref, .newest = w->newest, .height = level + 1, .number = w->number};
    *out = w->spill;
    writer_free(w);
    return 0;
}

/* ---- one that was made before -------------------------------------------------------------------------------------------- */

static int inner_read(store *st, pool *p, spill *s, page_ref ref, unsigned level)
{
    if (page_ref_is_frame(ref) || page_ref_blocks(ref) != p->page_blocks) return rw_error(RW_ECORRUPT, "a reference names a page of %u blocks", page_ref_blocks(ref));
    uint32_t f = pool_frame_try(p); /* nothing can be evicted yet */
    if (f == FRAME_NONE) return rw_error(RW_ENOMEM, "the cache is too small for what is above the leaves of spilled writes");
    node *n = pool_page(p, f);
    int error = store_page_read(st, ref, n);
    if (error == 0) error = node_check(n, p->page_size, true);
    if (error == 0 && (n->page.level != level || n->page.newest_timestamp != s->image.newest || n->count == 0))
        error = rw_error(RW_ECORRUPT, "page at offset %llu is not one of a spill of level %u", (unsigned long long)page_ref_address(ref) * RW_BLOCK_SIZE, level);
    if (error == 0 && !inner_add(s, ref)) error = memory_error();
    for (unsigned slot = 0; error == 0 && level > 1 && slot < n->count; slot++) error = inner_read(st, p, s, node_child(n, p->page_size, slot), level - 1);
    if (error == 0 && level == 1 && !parent_add(s, f)) error = memory_error();
    if (error != 0 || level > 1) pool_frame_free(p, f);
    return error;
}

int spill_open(store *st, pool *p, const store_spill *image, spill **out)
{
    spill *s = calloc(1, sizeof *s);
    if (s == NULL) return memory_error();
    s->image = *image;
    int error = image->height < 2 || image->height > TREE_LEVELS_MAX ? rw_error(RW_ECORRUPT, "a spill has %u levels", image->height)
                                                                      : inner_read(st, p, s, image->root, image->height - 1);
    if (error != 0) {
        spill_close(s, p);
        return error;
    }
    *out = s;
    return 0;
}
