/*
 * An array of intervals in the order of reading; the keys' bytes lie in chunks and do not move. The last range keeps room to grow in place, so that a
 * scan of any length, which adds one small range after the other, is one entry.
 */
#include "txn/read_set.h"

#define CHUNK_BYTES ((size_t)16 << 10)
#define ENTRIES_MIN 16u
#define BOUND_ROOM 64u             /* bytes that a range's bound gets at least, so that its successors fit */

typedef struct {
    const unsigned char *from, *to;            /* to: NULL for a key */
    uint32_t from_size, to_size;
} entry;

typedef struct chunk {
    struct chunk *older;
    size_t used, size;             /* bytes */
    unsigned char bytes[];
} chunk;

/* Where a bound of the last range lies. */
typedef struct {
    unsigned char *bytes;
    size_t room;
} bound_room;

struct read_set {
    chunk *chunks;
    entry *entries;
    size_t count, capacity;
    size_t range;                  /* the last range added, + 1; 0: none, or the set was settled since */
    bound_room from_room, to_room;
    size_t bytes;                  /* memory taken */
};

int read_set_open(read_set **out)
{
    read_set *set = calloc(1, sizeof *set);
    if (set == NULL) return rw_error(RW_ENOMEM, "no memory for a transaction's reads");
    set->bytes = sizeof *set;
    *out = set;
    return 0;
}

void read_set_free(read_set *set)
{
    for (chunk *c = set->chunks, *older; c != NULL; c = older) {
        older = c->older;
        free(c);
    }
    free(set->entries);
    free(set);
}

static unsigned char *bytes_take(read_set *set, size_t size)
{
    chunk *c = set->chunks;
    if (c == NULL || c->size - c->used < size) {
        size_t room = RW_MAX(size, CHUNK_BYTES);
        c = malloc(sizeof *c + room);
        if (c == NULL) return NULL;
        *c = (chunk){.older = set->chunks, .size = room};
        set->chunks = c;
        set->bytes += sizeof *c + room;
    }
    unsigned char *at = c->bytes + c->used;
    c->used += size;
    return at;
}

static rw_slice entry_from(const entry *e)
{
    return rw_slice_of(e->from, e->from_size);
}

static rw_slice entry_to(const entry *e)
{
    return rw_slice_of(e->to, e->to_size);
}

static int no_memory(const read_set *set)
{
    return rw_error(RW_ENOMEM, "no memory for what a transaction has read, beyond %zu bytes", set->bytes);
}

static entry *entry_add(read_set *set)
{
    if (set->count == set->capacity) {
        size_t capacity = RW_MAX(set->capacity * 2, (size_t)ENTRIES_MIN);
        entry *grown = realloc(set->entries, capacity * sizeof *grown);
        if (grown == NULL) return NULL;
        set->bytes += (capacity - set->capacity) * sizeof *grown;
        set->entries = grown;
        set->capacity = capacity;
    }
    return &set->entries[set->count];
}

int read_set_add_key(read_set *set, rw_slice key)
{
    if (set->count > 0) {
        const entry *last = &set->entries[set->count - 1];
        if (last->to == NULL && rw_slice_equal(entry_from(last), key)) return 0;
    }
    if (set->range > 0) {
        const entry *range = &set->entries[set->range - 1];
        if (rw_slice_compare(entry_from(range), key) <= 0 && rw_slice_compare(key, entry_to(range)) < 0) return 0;
    }
    entry *e = entry_add(set);
    unsigned char *bytes = e == NULL ? NULL : bytes_take(set, key.size);
    if (bytes == NULL) return no_memory(set);
    memcpy(bytes, key.data, key.size);
    *e = (entry){.from = bytes, .from_size = (uint32_t)key.size};
    set->count++;
    return 0;
}

/* Copies a bound to its room, or to a larger one. */
static bool bound_set(read_set *set, bound_room *room, rw_slice bound)
{
    if (bound.size > room->room) {
        size_t size = RW_MAX(bound.size * 2, (size_t)BOUND_ROOM);
        unsigned char *bytes = bytes_take(set, size);
        if (bytes == NULL) return false;
        *room = (bound_room){.bytes = bytes, .room = size};
    }
    memmove(room->bytes, bound.data, bound.size);
    return true;
}

/* Makes the last range longer, when [from, to) overlaps or touches it. */
static int range_extend(read_set *set, rw_slice from, rw_slice to, bool *extended)
{
    *extended = false;
    if (set->range == 0) return 0;
    entry *e = &set->entries[set->range - 1];
    if (rw_slice_compare(from, entry_to(e)) > 0 || rw_slice_compare(entry_from(e), to) > 0) return 0;
    *extended = true;
    if (rw_slice_compare(from, entry_from(e)) < 0) {
        if (!bound_set(set, &set->from_room, from)) return no_memory(set);
        e->from = set->from_room.bytes;
        e->from_size = (uint32_t)from.size;
    }
    if (rw_slice_compare(to, entry_to(e)) > 0) {
        if (!bound_set(set, &set->to_room, to)) return no_memory(set);
        e->to = set->to_room.bytes;
        e->to_size = (uint32_t)to.size;
    }
    return 0;
}

int read_set_add_range(read_set *set, rw_slice from, rw_slice to)
{
    RW_ASSERT(to.size > 0);        /* a bucket's end has a key */
    if (rw_slice_compare(from, to) >= 0) return 0;
    bool extended;
    int rc = range_extend(set, from, to, &extended);
    if (rc != 0 || extended) return rc;
    entry *e = entry_add(set);
    bound_room from_room = {0}, to_room = {0};
    if (e == NULL || !bound_set(set, &from_room, from) || !bound_set(set, &to_room, to)) return no_memory(set);
    *e = (entry){.from = from_room.bytes, .from_size = (uint32_t)from.size, .to = to_room.bytes, .to_size = (uint32_t)to.size};
    set->from_room = from_room;
    set->to_room = to_room;
    set->range = ++set->count;
    return 0;
}

size_t read_set_bytes(const read_set *set)
{
    return set->bytes;
}

size_t read_set_count(const read_set *set)
{
    return set->count;
}

/* By from; ranges before the key of the same name, since they contain it. */
static int entry_compare(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = rw_slice_compare(entry_from(x), entry_from(y));
    return order != 0 ? order : (x->to == NULL) - (y->to == NULL);
}

/* Whether next, which does not begin before e, is in e or joins on to it; then e takes it in. */
static bool entry_join(entry *e, const entry *next)
{
    if (e->to == NULL) return next->to == NULL && rw_slice_equal(entry_from(e), entry_from(next));
    int order = rw_slice_compare(entry_from(next), entry_to(e));
    if (order > 0 || (order == 0 && next->to == NULL)) return false;
    if (next->to != NULL && rw_slice_compare(entry_to(next), entry_to(e)) > 0) {
        e->to = next->to;
        e->to_size = next->to_size;
    }
    return true;
}

int read_set_settle(read_set *set)
{
    set->range = 0;
    if (set->count < 2) return 0;
    qsort(set->entries, set->count, sizeof *set->entries, entry_compare);
    size_t last = 0;
    for (size_t i = 1; i < set->count; i++) {
        if (!entry_join(&set->entries[last], &set->entries[i])) set->entries[++last] = set->entries[i];
    }
    set->count = last + 1;
    return 0;
}

read_entry read_set_entry(const read_set *set, size_t index)
{
    RW_ASSERT(index < set->count);
    const entry *e = &set->entries[index];
    return (read_entry){.from = entry_from(e), .to = entry_to(e), .is_key = e->to == NULL};
}
