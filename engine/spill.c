/*
 * Spilling: pending writes of a partition are sorted and written together, when memory is short or the log is long, and their leaves have gathered too few of them (btree/spill.h). They are then in the partition's image as much as
 * if they had been made; each costs its own bytes once, where its leaf would cost a page. Merging: later, when there are enough, all leaves concerned are read and written once for all of them (flush.c).
 */
#include "base/memory.h"
#include "base/preempt.h"
#include "engine/engine_internal.h"

#define GATHER_ENOUGH 8u               /* writes for each page of the partition: merging them is worth while */
#ifdef RW_TINY
#define LEAVES_MIN 1u
#else
#define LEAVES_MIN 8u                  /* with fewer there is no spill: its own upper pages cost as much as it saves */
#endif
#define WRITES_MAX 32768u              /* of one spill: they are copied, and merged spills are read as a whole, beside the cache. So many have gathered enough for their leaves, or nearly */
#define BYTES_MAX (4u << 20)
#define FRAMES_SHARE 8u                /* spills take at most this part of the frames that pending writes and records may have */
#define LOOKS_MAX 4u                   /* leaves under the token at a time */

/* A pending write, copied. */
typedef struct {
    uint64_t head;                     /* the key's first bytes behind the bucket, in an order of numbers */
    uint32_t at;                       /* where key and value begin in the copy's bytes */
    uint16_t key_size, value_size;
} copied_write;

typedef struct {
    tree_miss *leaves;
    uint32_t leaf_count;
    copied_write *writes;              /* room for WRITES_MAX */
    size_t count;
    unsigned char *bytes;              /* room for BYTES_MAX */
    size_t bytes_size;
    uint64_t newest;
} write_copy;

static bool copy_open(write_copy *c)
{
    c->writes = rw_memory_borrow(WRITES_MAX * sizeof *c->writes);
    c->bytes = rw_memory_borrow(BYTES_MAX);
    return c->writes != NULL && c->bytes != NULL;
}

static void copy_free(write_copy *c)
{
    free(c->leaves);
    rw_memory_unmap(c->writes, WRITES_MAX * sizeof *c->writes);
    rw_memory_unmap(c->bytes, BYTES_MAX);
}

static uint64_t head_of(rw_slice key)
{
    unsigned char head[8] = {0};
    if (key.size > RW_BUCKET_PREFIX) memcpy(head, (const unsigned char *)key.data + RW_BUCKET_PREFIX, RW_MIN(key.size - RW_BUCKET_PREFIX, sizeof head));
    return __builtin_bswap64(rw_load_u64(head));
}

static bool write_copy_one(write_copy *c, const pending_write *w)
{
    size_t size = (size_t)w->key_size + w->value_size;
    if (c->count == WRITES_MAX || c->bytes_size + size > BYTES_MAX) return false;
    memcpy(c->bytes + c->bytes_size, w->bytes, size);
    c->writes[c->count++] = (copied_write){.head = head_of(pending_key(w)), .at = (uint32_t)c->bytes_size, .key_size = w->key_size, .value_size = w->value_size};
    c->bytes_size += size;
    c->newest = RW_MAX(c->newest, w->timestamp);
    return true;
}

/* What waits and is older than `before`, some leaves at a time. A write that another takes the place of meanwhile goes on waiting as that, which is newer than the spill. */
static bool writes_copy(engine *e, partition *p, uint64_t before, write_copy *c)
{
    bool copied = true;
    partition_lock(e->kio, p);
    for (uint32_t i = 0; i < c->leaf_count && copied; i++) {
        const pending_leaf *entry = pending_find(&e->trees.pending, p, c->leaves[i].ref);
        for (const pending_write *w = entry != NULL ? entry->writes : NULL; w != NULL && copied; w = w->next)
            if (w->timestamp < before) copied = write_copy_one(c, w);
        if ((i + 1) % LOOKS_MAX == 0) partition_pass(e->kio, p);
    }
    partition_unlock(e->kio, p);
    return copied;
}

static rw_slice copied_key(const write_copy *c, const copied_write *w)
{
    return rw_slice_of(c->bytes + w->at, w->key_size);
}

static int copied_compare(const void *a, const void *b, void *arg)
{
    const copied_write *x = a, *y = b;
    const write_copy *c = arg;
    rw_slice left = copied_key(c, x), right = copied_key(c, y);
    uint32_t left_bucket = __builtin_bswap32(rw_load_u32(left.data)), right_bucket = __builtin_bswap32(rw_load_u32(right.data));
    if (left_bucket != right_bucket) return left_bucket < right_bucket ? -1 : 1;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    return rw_slice_compare(left, right);
}

static int spill_write(engine *e, write_copy *c, uint32_t number, spill **made)
{
    spill_writer *w;
    qsort_r(c->writes, c->count, sizeof *c->writes, copied_compare, c);
    int error = spill_write_begin(e->kio, e->store, &e->trees.pool, e->checkpointer.segment, number, c->count, c->newest, &w);
    if (error != 0) return error;
    for (size_t i = 0; i < c->count && error == 0; i++) {
        rw_slice key = copied_key(c, &c->writes[i]);
        error = spill_write_add(w, key, trees_hash(key), rw_slice_of((const unsigned char *)key.data + key.size, c->writes[i].value_size));
    }
    if (error == 0) error = spill_write_end(w, made);
    if (error != 0) spill_write_abandon(w);
    return error;
}

/* What went into the spill waits no longer; records that are kept of it get its values first, while what waits still answers. */
static void writes_forget(engine *e, partition *p, uint64_t before, const write_copy *c)
{
    trees *t = &e->trees;
    partition_lock(e->kio, p);
    for (uint32_t i = 0; i < c->leaf_count; i++) {
        const pending_leaf *entry = pending_find(&t->pending, p, c->leaves[i].ref);
        for (const pending_write *w = entry != NULL ? entry->writes : NULL; w != NULL; w = w->next)
            if (w->timestamp < before)
                records_spilled(&t->records, entry->ref, pending_key(w), trees_hash(pending_key(w)), pending_data(w), atomic_load_explicit(&w->asked, memory_order_relaxed) != 0);
        RW_PREEMPT(e->kio);
        if (entry != NULL) pending_forget(&t->pending, p, c->leaves[i].ref, before);
        if ((i + 1) % LOOKS_MAX == 0) partition_pass(e->kio, p);
    }
    partition_unlock(e->kio, p);
}

/* Under the token. */
static bool spill_wanted(engine *e, partition *p)
{
    const pending_set *set = &e->trees.pending.sets[p->index];
    uint64_t writes = atomic_load(&set->writes);
    uint32_t spills = pending_spills(&e->trees.pending, p->index);
    if (writes > WRITES_MAX || atomic_load(&e->trees.pending.spill_frames) > pending_borrowable(&e->trees.pending) / FRAMES_SHARE) return false;
    if (spills >= STORE_SPILLS_MAX || atomic_load(&set->leaves) < LEAVES_MIN || atomic_load(&e->trees.pool.space_error) != 0) return false;
    for (uint32_t i = 0; i < spills; i++) writes += set->spills[i]->writes;
    return writes < GATHER_ENOUGH * trees_pages(&e->trees, p);
}

/* A list of leaves, all of which wait for something older than `before`, which is set. NULL: there is nothing to spill, or no memory. */
static tree_miss *leaves_list(engine *e, partition *p, uint64_t *before, store_retired *extents, uint32_t *number, uint32_t *count)
{
    pending *pg = &e->trees.pending;
    partition_lock(e->kio, p);
    uint32_t room = spill_wanted(e, p) ? atomic_load(&pg->sets[p->index].leaves) : 0;
    tree_miss *leaves = room > 0 ? malloc(room * sizeof *leaves) : NULL;
    *before = wal_end_lsn(e->wal);
    *count = leaves != NULL ? pending_leaves(pg, p, *before, leaves, room) : 0;
    *number = *count > 0 ? pending_spill_begin(pg, p) : 0;
    if (*number > 0) store_retired_move(extents, &p->extents); /* named by records below, or by none */
    partition_unlock(e->kio, p);
    return leaves;
}

bool spill_partition(engine *e, partition *p)
{
    if (!table_has_room(e, false)) return false; /* made by who knew of no spills, with long keys */
    pending *pg = &e->trees.pending;
    write_copy c = {0};
    store_retired extents = {0};
    spill *made = NULL;
    uint64_t before;
    uint32_t number;
    tree_miss one;
    c.leaves = leaves_list(e, p, &before, &extents, &number, &c.leaf_count);
    if (number > 0 && copy_open(&c) && writes_copy(e, p, before, &c) && c.count > 0) (void)spill_write(e, &c, number, &made); /* what fails here is only not done: the leaves are read instead */
    if (made != NULL) {
        partition_lock(e->kio, p);
        pending_spill_add(pg, p, made);
        p->spills_changed = true;
        partition_unlock(e->kio, p);
        RW_PREEMPT(e->kio);
        writes_forget(e, p, before, &c);
    }
    partition_lock(e->kio, p);
    bool done = made != NULL && pending_leaves(pg, p, before, &one, 1) == 0;
    if (done) pending_passed(pg, p, before);
    store_retired_move(done ? &p->extents_passed : &p->extents, &extents);
    partition_unlock(e->kio, p);
    store_retired_free(&extents);
    copy_free(&c);
    if (done) e->checkpointer.spilled_ns = kio_now_ns(e->kio);
    return done;
}
