/*
 * The offline check of the bucket catalog: what the image holds and what the log makes of it. The image alone may be from several moments, so
 * nothing is judged before the log was read.
 */
#include "engine/verify.h"

static bool room_make(void **array, size_t *capacity, size_t needed, size_t item)
{
    if (needed <= *capacity) return true;
    size_t more = RW_MAX(needed, RW_MAX(*capacity * 2, (size_t)64));
    void *grown = realloc(*array, more * item);
    if (grown == NULL) return false;
    *array = grown;
    *capacity = more;
    return true;
}

static int catalog_append(verify_catalog *c, rw_slice name, uint32_t id, bool deleted)
{
    void *entries = c->entries, *names = c->names;
    bool room = room_make(&entries, &c->capacity, c->count + 1, sizeof *c->entries);
    room = room_make(&names, &c->names_capacity, c->names_size + name.size, 1) && room;
    c->entries = entries;
    c->names = names;
    if (!room) return rw_error(RW_ENOMEM, "no memory to check a catalog of %zu buckets", c->count);
    c->entries[c->count] = (verify_bucket){
        .name = c->names_size, .name_size = (uint32_t)name.size, .id = id, .sequence = c->count, .deleted = deleted};
    c->count++;
    if (name.size > 0) memcpy(c->names + c->names_size, name.data, name.size);
    c->names_size += name.size;
    return 0;
}

int verify_catalog_add(verifier *v, rw_slice key, rw_slice value, bool deleted, const char *where)
{
    rw_slice name = rw_slice_of((const unsigned char *)key.data + RW_BUCKET_PREFIX, key.size - RW_BUCKET_PREFIX);
    if (name.size > RW_BUCKET_NAME_MAX) return verify_finding(v, "%s: a bucket's name of %zu bytes", where, name.size);
    if (!deleted && value.size != sizeof(uint32_t))
        return verify_finding(v, "%s: the number of bucket '%.*s' has %zu bytes", where, (int)name.size, (const char *)name.data, value.size);
    return catalog_append(&v->catalog, name, deleted ? 0 : rw_load_u32(value.data), deleted);
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const unsigned char *names;
    const verify_bucket *entry;
} sorted_bucket;

static rw_slice name_of(const sorted_bucket *b)
{
    return rw_slice_of(b->names + b->entry->name, b->entry->name_size);
}

static int by_name(const void *a, const void *b)
{
    const sorted_bucket *x = a, *y = b;
    int order = rw_slice_compare(name_of(x), name_of(y));
    if (order != 0) return order;
    return x->entry->sequence < y->entry->sequence ? -1 : x->entry->sequence > y->entry->sequence;
}

static int by_id(const void *a, const void *b)
{
    const sorted_bucket *x = a, *y = b;
    if (x->entry->id != y->entry->id) return x->entry->id < y->entry->id ? -1 : 1;
    return by_name(a, b);
}

/* The last word on each name. *next_id: what the empty name says; 0 when nothing does. Returns how many buckets are left at the front. */
static size_t catalog_settle(sorted_bucket *all, size_t count, uint32_t *next_id)
{
    size_t kept = 0;
    *next_id = 0;
    for (size_t i = 0; i < count; i++) {
        const verify_bucket *entry = all[i].entry;
        bool last = i + 1 == count || rw_slice_compare(name_of(&all[i]), name_of(&all[i + 1])) != 0;
        if (!last || entry->deleted) continue;
        if (entry->name_size == 0) *next_id = entry->id;
        else all[kept++] = all[i];
    }
    return kept;
}

static void bucket_check_ids(verifier *v, const sorted_bucket *buckets, size_t count, uint32_t next_id)
{
    for (size_t i = 0; i < count; i++) {
        rw_slice name = name_of(&buckets[i]);
        uint32_t id = buckets[i].entry->id;
        if (id <= RW_DEFAULT_BUCKET || id >= next_id)
            verify_finding(v, "%s: bucket '%.*s' has the number %u, which is not between %u and the next one, %u", v->dir, (int)name.size,
                           (const char *)name.data, id, RW_DEFAULT_BUCKET, next_id);
        if (i > 0 && buckets[i - 1].entry->id == id)
            verify_finding(v, "%s: bucket '%.*s' and another one both have the number %u", v->dir, (int)name.size, (const char *)name.data, id);
    }
}

int verify_catalog_check(verifier *v)
{
    uint32_t next_id;
    verify_catalog *c = &v->catalog;
    if (c->count == 0 || v->incomplete) return 0;
    sorted_bucket *all = calloc(c->count, sizeof *all);
    if (all == NULL) return rw_error(RW_ENOMEM, "no memory to check a catalog of %zu buckets", c->count);
    for (size_t i = 0; i < c->count; i++) all[i] = (sorted_bucket){.names = c->names, .entry = &c->entries[i]};
    qsort(all, c->count, sizeof *all, by_name);
    size_t count = catalog_settle(all, c->count, &next_id);
    qsort(all, count, sizeof *all, by_id);
    bucket_check_ids(v, all, count, next_id);
    free(all);
    return 0;
}
