#include "btree/recall.h"

#include "base/memory.h"
#include "base/planted.h"

#define READ_BYTES (256u << 10)        /* by one read, at most */
#define READS_AT_ONCE 8u

static uint32_t place_of(const leaf_recall *r, page_ref ref)
{
    uint32_t low = 0, high = r->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (page_ref_address(r->pages[middle].ref) < page_ref_address(ref)) low = middle + 1;
        else high = middle;
    }
    return low;
}

const node *recall_find(const leaf_recall *r, page_ref ref)
{
    uint32_t i = place_of(r, ref);
    return i < r->count && r->pages[i].ref.word == ref.word && r->pages[i].ref.checksum == ref.checksum ? r->pages[i].page : NULL;
}

static int want_add(leaf_recall *r, page_ref ref)
{
    if (r->wanted_count == r->wanted_capacity) {
        uint32_t capacity = RW_MAX(16, 2 * r->wanted_capacity);
        page_ref *grown = realloc(r->wanted, capacity * sizeof *grown);
        if (grown == NULL) return rw_error(RW_ENOMEM, "no memory to read spilled writes");
        r->wanted = grown;
        r->wanted_capacity = capacity;
    }
    r->wanted[r->wanted_count++] = ref;
    return 0;
}

static bool is_wanted(const leaf_recall *r, page_ref ref)
{
    for (uint32_t i = 0; i < r->wanted_count; i++)
        if (r->wanted[i].word == ref.word) return true;
    return false;
}

uint32_t recall_leaves(const pending *pg, const partition *p, uint32_t i, page_ref ref, rw_slice lower, rw_slice upper, page_ref leaves[SPILL_LEAF_PAGES])
{
    const spill *s = pg->sets[p->index].spills[i];
    if (page_ref_spill(ref) >= s->image.number && !RW_PLANTED(spill_made_again)) return 0;
    return spill_leaves(s, pg->pool, lower, upper, leaves, SPILL_LEAF_PAGES);
}

bool recall_ready(leaf_recall *r, const pending *pg, const partition *p, page_ref ref, const node *n)
{
    uint32_t count = pending_spills(pg, p->index);
    bool ready = true;
    for (uint32_t i = 0; i < count; i++) {
        page_ref leaves[SPILL_LEAF_PAGES];
        uint32_t found = recall_leaves(pg, p, i, ref, node_lower_fence(n), node_upper_fence(n), leaves);
        if (r == NULL && found > 0) return false;
        if (found == SPILL_LEAF_PAGES) r->error = rw_error(RW_ECORRUPT, "a spill holds more for one leaf than can have waited for it");
        for (uint32_t k = 0; k < found && r->error == 0; k++) {
            if (recall_find(r, leaves[k]) != NULL) continue;
            ready = false;
            if (!is_wanted(r, leaves[k])) r->error = want_add(r, leaves[k]);
        }
    }
    return r == NULL || (ready && r->error == 0);
}

int recall_want_all(leaf_recall *r, const pending *pg, const partition *p)
{
    const pending_set *set = &pg->sets[p->index];
    uint32_t count = pending_spills(pg, p->index);
    int error = 0;
    for (uint32_t i = 0; i < count; i++) {
        const spill *s = set->spills[i];
        for (uint32_t k = 0; k < s->parent_count; k++) {
            const node *n = pool_page(pg->pool, s->parents[k]);
            for (unsigned slot = 0; slot < n->count && error == 0; slot++) error = want_add(r, node_child(n, pg->pool->page_size, slot));
        }
    }
    return error;
}

int recall_check(store *st, const pool *p, page_ref ref, const node *n)
{
    int error = store_page_check(st, ref, n);
    if (error == 0) error = node_check(n, p->page_size, false);
    if (error == 0 && n->page.level == 0) return 0;
    return rw_error_prefix(error != 0 ? error : rw_error(RW_ECORRUPT, "it has level %u", n->page.level), "%s: spilled writes at offset %llu", kio_file_path(store_file(st)),
                           (unsigned long long)page_ref_address(ref) * RW_BLOCK_SIZE);
}

/* Room for so many pages more. */
static bool pages_reserve(leaf_recall *r, uint32_t count)
{
    if (r->count + count <= r->capacity) return true;
    uint32_t capacity = RW_MAX(r->count + count, 2 * r->capacity);
    recall_page *grown = realloc(r->pages, capacity * sizeof *grown);
    if (grown == NULL) return false;
    r->pages = grown;
    r->capacity = capacity;
    return true;
}

static void page_add(leaf_recall *r, page_ref ref, node *page)
{
    uint32_t at = place_of(r, ref);
    memmove(r->pages + at + 1, r->pages + at, (r->count - at) * sizeof *r->pages);
    r->pages[at] = (recall_page){.ref = ref, .page = page};
    r->count++;
}

static recall_block *block_add(leaf_recall *r, size_t size)
{
    recall_block *block = malloc(sizeof *block);
    if (block == NULL) return NULL;
    *block = (recall_block){.next = r->blocks, .bytes = rw_memory_borrow(size), .size = size};
    if (block->bytes == NULL) {
        free(block);
        return NULL;
    }
    r->blocks = block;
    return block;
}

static int address_compare(const void *a, const void *b)
{
    uint64_t x = page_ref_address(*(const page_ref *)a), y = page_ref_address(*(const page_ref *)b);
    return x < y ? -1 : x > y;
}

/* So many of what is wanted, from the first on, lie side by side and come with one read. */
static uint32_t side_by_side(const leaf_recall *r, const pool *p, uint32_t first)
{
    uint32_t most = RW_MAX(READ_BYTES / p->page_size, 1u), end = first + 1;
    while (end < r->wanted_count && end - first < most && page_ref_address(r->wanted[end]) == page_ref_address(r->wanted[end - 1]) + p->page_blocks) end++;
    return end - first;
}

/* What a read has brought of refs. */
static int pages_take(leaf_recall *r, store *st, const pool *p, const page_ref *refs, const kio_op *op)
{
    int error = op->result != 0 ? kio_op_error(op) : 0;
    for (uint32_t i = 0; i < op->length / p->page_size && error == 0; i++) {
        node *page = (node *)(void *)((unsigned char *)op->buffer + (size_t)i * p->page_size);
        error = recall_check(st, p, refs[i], page);
        if (error == 0) page_add(r, refs[i], page);
    }
    return error;
}

/* Some of what is wanted, from the first on, by reads that are under way together; *next: where it goes on. */
static int some_read(leaf_recall *r, kio *k, store *st, const pool *p, uint32_t first, unsigned char *bytes, uint32_t *next)
{
    kio_op ops[READS_AT_ONCE], *list[READS_AT_ONCE];
    unsigned made = 0;
    int error = 0;
    uint32_t at = first;
    for (; at < r->wanted_count && made < READS_AT_ONCE; made++) {
        uint32_t count = side_by_side(r, p, at);
        ops[made] = (kio_op){.kind = KIO_READ, .file = store_file(st), .buffer = bytes + (size_t)at * p->page_size, .offset = page_ref_address(r->wanted[at]) * RW_BLOCK_SIZE,
                             .length = count * p->page_size};
        list[made] = &ops[made];
        at += count;
    }
    kio_read_all(k, list, made);
    for (unsigned i = 0; i < made && error == 0; i++) {
        error = pages_take(r, st, p, r->wanted + first, &ops[i]);
        first += ops[i].length / p->page_size;
    }
    *next = at;
    return error;
}

static int wanted_check(const leaf_recall *r, store *st, const pool *p)
{
    for (uint32_t i = 0; i < r->wanted_count; i++)
        if (page_ref_is_frame(r->wanted[i]) || page_ref_blocks(r->wanted[i]) != p->page_blocks)
            return rw_error(RW_ECORRUPT, "%s: a leaf of a spill has %u blocks", kio_file_path(store_file(st)), page_ref_blocks(r->wanted[i]));
    return 0;
}

int recall_read(leaf_recall *r, kio *k, store *st, const pool *p)
{
    uint32_t count = r->wanted_count;
    int error = r->error != 0 ? r->error : wanted_check(r, st, p);
    recall_block *block = error == 0 && count > 0 && pages_reserve(r, count) ? block_add(r, (size_t)count * p->page_size) : NULL;
    if (error == 0 && count > 0 && block == NULL) error = rw_error(RW_ENOMEM, "no memory to read spilled writes");
    if (count > 0) qsort(r->wanted, count, sizeof *r->wanted, address_compare);
    for (uint32_t i = 0; i < count && error == 0;) error = some_read(r, k, st, p, i, block->bytes, &i);
    r->wanted_count = 0;
    r->error = 0;
    return error;
}

void recall_free(leaf_recall *r)
{
    while (r->blocks != NULL) {
        recall_block *block = r->blocks;
        r->blocks = block->next;
        rw_memory_unmap(block->bytes, block->size);
        free(block);
    }
    free(r->pages);
    free(r->wanted);
    *r = (leaf_recall){0};
}
