/*
 * A skip list of keys; each entry holds a chain of versions, newest first. An undo list strings all versions together in the order of their writing,
 * so rollback pops from its end.
 */
#include "txn/write_set.h"

#define SKIP_LEVELS 16
#define ARENA_CHUNK_FIRST ((size_t)2 << 10)    /* for the many transactions that write a few keys; each further chunk is twice as large */
#define ARENA_CHUNK_BYTES ((size_t)64 << 10)

struct entry;

typedef struct version {
    struct version *older;         /* of the same key */
    struct version *previous;      /* written before this one, of any key */
    struct entry *entry;
    uint64_t sequence;
    size_t value_size;
    bool deleted;
    unsigned char value[];
} version;

typedef struct entry {
    version *newest;               /* NULL: all its versions were rolled back */
    const unsigned char *key;
    size_t key_size;
    struct entry *back;            /* towards smaller keys, on the lowest level */
    unsigned levels;
    struct entry *next[];
} entry;

typedef struct chunk {
    struct chunk *older;
    size_t used, size;
    unsigned char bytes[] __attribute__((aligned(16)));
} chunk;

struct write_set {
    chunk *chunks;                 /* entries and keys; versions are freed one by one */
    version *last;
    entry *head;
    entry *tail;                   /* the largest key; the head when there is none */
    uint64_t sequence;
    uint64_t random;
    unsigned levels;               /* of the highest entry, at least 1; the head's links above are NULL */
    size_t live;                   /* entries with a version */
    size_t bytes;
    struct { unsigned id; uint64_t sequence; } *savepoints;
    unsigned savepoint_count, savepoint_capacity, savepoint_next_id;
};

static void *arena_take(write_set *set, size_t size)
{
    size = (size_t)rw_align_up(size, 16);
    if (set->chunks == NULL || set->chunks->size - set->chunks->used < size) {
        size_t next = set->chunks == NULL ? ARENA_CHUNK_FIRST : RW_MIN(set->chunks->size * 2, ARENA_CHUNK_BYTES), bytes = RW_MAX(size, next);
        chunk *c = malloc(sizeof *c + bytes);
        if (c == NULL) return NULL;
        *c = (chunk){.older = set->chunks, .size = bytes};
        set->chunks = c;
        set->bytes += sizeof *c + bytes;
    }
    void *at = set->chunks->bytes + set->chunks->used;
    set->chunks->used += size;
    return at;
}

static entry *entry_make(write_set *set, rw_slice key, unsigned levels)
{
    entry *e = arena_take(set, sizeof *e + levels * sizeof(entry *) + key.size);
    if (e == NULL) return NULL;
    memset(e, 0, sizeof *e + levels * sizeof(entry *));
    unsigned char *bytes = (unsigned char *)&e->next[levels];
    if (key.size > 0) memcpy(bytes, key.data, key.size);
    e->key = bytes;
    e->key_size = key.size;
    e->levels = levels;
    return e;
}

int write_set_open(write_set **out)
{
    write_set *set = calloc(1, sizeof *set);
    if (set == NULL) return rw_error(RW_ENOMEM, "no memory for a transaction");
    set->random = 0x9e3779b97f4a7c15u;
    set->levels = 1;
    set->head = entry_make(set, rw_slice_of("", 0), SKIP_LEVELS);
    if (set->head == NULL) {
        free(set);
        return rw_error(RW_ENOMEM, "no memory for a transaction");
    }
    set->tail = set->head;
    *out = set;
    return 0;
}

static void versions_free(write_set *set)
{
    for (version *v = set->last, *previous; v != NULL; v = previous) {
        previous = v->previous;
        free(v);
    }
    set->last = NULL;
}

void write_set_free(write_set *set)
{
    versions_free(set);
    for (chunk *c = set->chunks, *older; c != NULL; c = older) {
        older = c->older;
        free(c);
    }
    free(set->savepoints);
    free(set);
}

/* What stays is the first chunk, with the head in it. */
void write_set_clear(write_set *set)
{
    versions_free(set);
    while (set->chunks->older != NULL) {
        chunk *newest = set->chunks;
        set->chunks = newest->older;
        free(newest);
    }
    set->chunks->used = (size_t)rw_align_up(sizeof(entry) + SKIP_LEVELS * sizeof(entry *), 16);
    memset(set->head->next, 0, set->levels * sizeof(entry *));
    set->levels = 1;
    set->tail = set->head;
    set->sequence = 0;
    set->live = 0;
    set->bytes = sizeof *set->chunks + set->chunks->size;
    free(set->savepoints);
    set->savepoints = NULL;
    set->savepoint_count = set->savepoint_capacity = set->savepoint_next_id = 0;
}

static rw_slice entry_key(const entry *e)
{
    return rw_slice_of(e->key, e->key_size);
}

/* The last entry below key (below or equal when or_equal); before[level]: the last one on each level that is in use. */
static entry *skip_search(const write_set *set, rw_slice key, bool or_equal, entry **before)
{
    entry *e = set->head;
    for (unsigned level = set->levels; level-- > 0;) {
        for (;;) {
            entry *next = e->next[level];
            if (next == NULL) break;
            int order = rw_slice_compare(entry_key(next), key);
            if (order > 0 || (order == 0 && !or_equal)) break;
            e = next;
        }
        if (before != NULL) before[level] = e;
    }
    return e;
}

static unsigned levels_draw(write_set *set)
{
    set->random ^= set->random << 13;
    set->random ^= set->random >> 7;
    set->random ^= set->random << 17;
    unsigned levels = 1 + (unsigned)__builtin_ctzll(set->random | (uint64_t)1 << 40) / 2;
    return RW_MIN(levels, (unsigned)SKIP_LEVELS);
}

static entry *entry_get(write_set *set, rw_slice key)
{
    entry *before[SKIP_LEVELS];
    skip_search(set, key, false, before);
    entry *next = before[0]->next[0];
    if (next != NULL && rw_slice_equal(entry_key(next), key)) return next;
    entry *e = entry_make(set, key, levels_draw(set));
    if (e == NULL) return NULL;
    while (set->levels < e->levels) before[set->levels++] = set->head;
    for (unsigned level = 0; level < e->levels; level++) {
        e->next[level] = before[level]->next[level];
        before[level]->next[level] = e;
    }
    e->back = before[0];
    if (e->next[0] != NULL) e->next[0]->back = e;
    else set->tail = e;
    return e;
}

static int write_add(write_set *set, rw_slice key, rw_slice value, bool deleted)
{
    entry *e = entry_get(set, key);
    version *v = e == NULL ? NULL : malloc(sizeof *v + value.size);
    if (v == NULL) return rw_error(RW_ENOMEM, "no memory for a write of %zu bytes in a transaction", key.size + value.size);
    *v = (version){.older = e->newest, .previous = set->last, .entry = e, .sequence = ++set->sequence, .value_size = value.size, .deleted = deleted};
    if (value.size > 0) memcpy(v->value, value.data, value.size);
    if (e->newest == NULL) set->live++;
    e->newest = v;
    set->last = v;
    set->bytes += sizeof *v + value.size;
    return 0;
}

int write_set_put(write_set *set, rw_slice key, rw_slice value)
{
    return write_add(set, key, value, false);
}

int write_set_delete(write_set *set, rw_slice key)
{
    return write_add(set, key, rw_slice_of("", 0), true);
}

static bool entry_out(const entry *e, write_entry *out)
{
    if (e == NULL || e->newest == NULL) return false;
    *out = (write_entry){.key = entry_key(e), .value = rw_slice_of(e->newest->value, e->newest->value_size), .deleted = e->newest->deleted};
    return true;
}

bool write_set_find(const write_set *set, rw_slice key, write_entry *out)
{
    const entry *e = skip_search(set, key, false, NULL)->next[0];
    return e != NULL && rw_slice_equal(entry_key(e), key) && entry_out(e, out);
}

bool write_set_seek(const write_set *set, rw_slice from, bool strict, write_entry *out)
{
    const entry *e = skip_search(set, from, strict, NULL)->next[0];
    while (e != NULL && e->newest == NULL) e = e->next[0];
    return entry_out(e, out);
}

int write_set_for_each(const write_set *set, int (*fn)(void *arg, const write_entry *one), void *arg)
{
    int result = 0;
    write_entry one;
    for (const entry *e = set->head->next[0]; e != NULL && result == 0; e = e->next[0])
        if (entry_out(e, &one)) result = fn(arg, &one);
    return result;
}

bool write_set_seek_before(const write_set *set, rw_slice before, write_entry *out)
{
    const entry *e = before.size == 0 ? set->tail : skip_search(set, before, false, NULL);
    while (e != set->head && e->newest == NULL) e = e->back;
    return e != set->head && entry_out(e, out);
}

size_t write_set_count(const write_set *set)
{
    return set->live;
}

size_t write_set_bytes(const write_set *set)
{
    return set->bytes;
}

int write_set_savepoint(write_set *set, unsigned *id)
{
    if (set->savepoint_count == set->savepoint_capacity) {
        unsigned capacity = set->savepoint_capacity * 2 + 4;
        void *grown = realloc(set->savepoints, capacity * sizeof *set->savepoints);
        if (grown == NULL) return rw_error(RW_ENOMEM, "no memory for a savepoint");
        set->savepoints = grown;
        set->savepoint_capacity = capacity;
    }
    set->savepoints[set->savepoint_count].id = ++set->savepoint_next_id;
    set->savepoints[set->savepoint_count].sequence = set->sequence;
    *id = set->savepoints[set->savepoint_count++].id;
    return 0;
}

int write_set_rollback(write_set *set, unsigned id)
{
    unsigned at = set->savepoint_count;
    while (at > 0 && set->savepoints[at - 1].id != id) at--;
    if (at == 0) return rw_error(RW_EINVAL, "no savepoint %u in this transaction", id);
    while (set->last != NULL && set->last->sequence > set->savepoints[at - 1].sequence) {
        version *v = set->last;
        set->last = v->previous;
        v->entry->newest = v->older;
        if (v->older == NULL) set->live--;
        set->bytes -= sizeof *v + v->value_size;
        free(v);
    }
    set->savepoint_count = at; /* the savepoint itself stays */
    return 0;
}
