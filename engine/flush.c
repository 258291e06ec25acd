/*
 * Pending writes of a whole partition, made (btree/pending.h): before its image, so that the image, and the log's beginning, are not held back by them; and when
 * they take much of the cache. Their leaves are read as bulk_read.c says.
 */
#include "base/memory.h"
#include "base/planted.h"
#include "engine/merge.h"

#define LOOKS_MAX 1024u                /* under the token at a time */
#define WHOLE_FROM_SHARE 2u            /* of a partition's pages, for the others to be written too */
#define CALM_SHARE 8u                  /* a partition that grew by less than a record for so many pages meanwhile is calm */
#define DEBT_MAX_NS 1e6                /* of a write that takes the last memory */
#define DEBT_PAID_NS 1000000           /* one sleep */

/* ---- leaves that were not read with others ------------------------------------------------------------------------ */

/* Under the token: what waits for the leaf, if some of it is older than `before`; else NULL. */
static const pending_leaf *older_find(engine *e, const partition *p, page_ref leaf, uint64_t before)
{
    const pending_leaf *entry = pending_find(&e->trees.pending, p, leaf);
    return entry != NULL && pending_has_older(entry, before) ? entry : NULL;
}

/* A key for which a write waits there, copied; false: nothing older than `before` waits. */
static bool leaf_key(engine *e, partition *p, page_ref leaf, uint64_t before, unsigned char *buffer, rw_slice *key)
{
    partition_lock(e->kio, p);
    const pending_leaf *entry = older_find(e, p, leaf, before);
    if (entry != NULL) {
        *key = rw_slice_of(buffer, entry->writes->key_size);
        memcpy(buffer, entry->writes->bytes, key->size);
        RW_ASSERT(trees_covers(&e->trees, p, *key)); /* or reading that key would never make this leaf's writes */
    }
    partition_unlock(e->kio, p);
    return entry != NULL;
}

/* What waits for the leaf is logged once more: so the log must keep that, and need not keep what was before. */
static int leaf_log(engine *e, partition *p, page_ref leaf)
{
    const pending_leaf *entry = pending_find(&e->trees.pending, p, leaf);
    int error = 0;
    e->checkpointer.logged_again = true;
    for (pending_write *w = entry != NULL ? entry->writes : NULL; w != NULL && error == 0; w = w->next) {
        unsigned char head[16];
        uint64_t lsn, end_lsn;
        const wal_op op = {.kind = WAL_OP_PUT, .key = pending_key(w), .second = pending_data(w)};
        const rw_slice pieces[3] = {rw_slice_of(head, wal_op_encode_head(&op, head)), op.key, op.second};
        error = wal_append(e->wal, WAL_COMMIT, pieces, op.second.size > 0 ? 3 : 2, 0, &lsn, &end_lsn, &p->committing);
        if (error != 0) break;
        pending_restamp(&e->trees.pending, p, w, lsn);
        atomic_store_explicit(&p->applied_lsn, end_lsn, memory_order_relaxed);
        atomic_store_explicit(&p->committing, 0, memory_order_release);
    }
    return error;
}

/* A leaf that was not read with others, or could not be hung in: alone. If it cannot be read, what waits for it is logged again, and goes on waiting. */
static int leaf_flush(engine *e, partition *p, page_ref leaf, uint64_t before)
{
    rw_slice key;
    while (leaf_key(e, p, leaf, before, e->checkpointer.key_buffers, &key)) {
        int error = trees_touch(&e->trees, key, NULL);
        if (error == 0) continue;
        if (error != RW_ECORRUPT && error != RW_EIO) return error;
        partition_lock(e->kio, p);
        error = leaf_log(e, p, leaf);
        partition_unlock(e->kio, p);
        return error;
    }
    return 0;
}

/* Level by level, but for those that are evicted again meanwhile. */
void flush_parents_read(engine *e, partition *p, tree_miss *pages, uint32_t room)
{
    uint32_t count;
    for (unsigned level = 0; level < TREE_LEVELS_MAX; level++) {
        partition_lock(e->kio, p);
        count = tree_missing(&e->trees, p, false, pages, room);
        partition_unlock(e->kio, p);
        if (count == 0) return;
        bulk_read_pages(e, pages, count);
    }
}

/* ---- a partition -------------------------------------------------------------------------------------------------- */

/*
 * When most of the partition's leaves will be changed, the others are written again too: its next image leaves nothing of the last one alive, and nothing has to be cleaned. So they are when too much of the file
 * is dead, and enough of that lies among this partition's pages.
 * Not while space is short, which this takes first and gives back only with the image.
 */
static bool whole_rewrite(engine *e, partition *p, tree_miss *leaves, uint32_t room, const merge *m, bool asked)
{
    bool wasted = asked || space_wants_partitions(e);
    partition_lock(e->kio, p);
    uint64_t changed = RW_MAX(atomic_load(&e->trees.pending.sets[p->index].leaves), m->count) + (uint64_t)p->dirty_count;
    bool most = changed * WHOLE_FROM_SHARE >= trees_pages(&e->trees, p), for_space = !most && wasted && space_is_scattered(e, p);
    bool wanted = (most || for_space) && atomic_load(&e->trees.pool.space_error) == 0;
    uint32_t count = wanted ? tree_missing(&e->trees, p, true, leaves, room) : 0;
    if (wanted) {
        p->calm = p->grown * CALM_SHARE < trees_pages(&e->trees, p) ? p->calm + 1 : 0;
        p->grown = 0;
    }
    partition_unlock(e->kio, p);
    if (!wanted) return false;
    if (for_space) atomic_fetch_add(&e->checkpointer.rewritten, 1);
    p->whole = true; /* if not all could be read, too: the next attempt would fare no better */
    if (bulk_rewrite_leaves(e, p, leaves, count, true)) checkpoint_widen(e, p, true);
    return true;
}

/* Those of the leaves that something older waits for still, because they could not be read, or somebody else read them. */
static uint32_t leaves_left(engine *e, partition *p, uint64_t before, tree_miss *leaves, uint32_t count)
{
    uint32_t left = 0;
    for (uint32_t i = 0, end; i < count; i = end) {
        end = RW_MIN(i + LOOKS_MAX, count);
        partition_lock(e->kio, p);
        for (uint32_t k = i; k < end; k++)
            if (older_find(e, p, leaves[k].ref, before) != NULL) leaves[left++] = leaves[k];
        partition_unlock(e->kio, p);
    }
    return left;
}

/*
 * One pass over what is there when it begins. What comes meanwhile, for leaves that were just written perhaps, waits for the next one: each of them would be read and
 * written once more for a write or two.
 */
static int pass(engine *e, partition *p, tree_miss *leaves, uint32_t room, merge *m, bool whole, bool *passed)
{
    pending *pg = &e->trees.pending;
    store_retired extents = {0};
    flush_parents_read(e, p, leaves, room);
    partition_lock(e->kio, p);
    uint64_t begin = wal_end_lsn(e->wal);
    store_retired_move(&extents, &p->extents); /* named by records below begin, or by none */
    partition_unlock(e->kio, p);
    if (!whole_rewrite(e, p, leaves, room, m, whole) && m->count > 0 && !m->read) merge_rewrite(e, p, m);
    m->read = true;
    partition_lock(e->kio, p);
    uint32_t count = pending_leaves(pg, p, begin, leaves, room);
    *passed = count < room;
    partition_unlock(e->kio, p);
    (void)bulk_rewrite_leaves(e, p, leaves, count, false);
    int error = 0;
    for (uint32_t i = 0, left = leaves_left(e, p, begin, leaves, count); i < left && error == 0; i++) error = leaf_flush(e, p, leaves[i].ref, begin);
    partition_lock(e->kio, p);
    bool done = error == 0 && *passed;
    if (done) pending_passed(pg, p, RW_PLANTED(pending_passed_late) ? wal_end_lsn(e->wal) : begin);
    store_retired_move(done ? &p->extents_passed : &p->extents, &extents);
    partition_unlock(e->kio, p);
    store_retired_free(&extents);
    return error;
}

static int passes(engine *e, partition *p, merge *m, bool whole)
{
    bool passed = pending_is_empty(&e->trees.pending, p->index) && m->count == 0 && !whole; /* what spills hold may be in all leaves already */
    int error = 0;
    while (!passed && error == 0) {
        partition_lock(e->kio, p);
        /* also for those that whole_rewrite adds, or come in meanwhile */
        uint32_t room = 2 * RW_MAX(atomic_load(&e->trees.pending.sets[p->index].leaves), m->count) + p->dirty_count + 1024;
        if (whole || space_is_scattered(e, p)) room = RW_MAX(room, (uint32_t)RW_MIN(2 * trees_pages(&e->trees, p) + 1024, UINT32_MAX));
        partition_unlock(e->kio, p);
        tree_miss *leaves = malloc(room * sizeof *leaves);
        error = leaves != NULL ? pass(e, p, leaves, room, m, whole, &passed) : rw_error(RW_ENOMEM, "no memory for a list of leaves");
        free(leaves);
    }
    return error;
}

int flush_partition(engine *e, partition *p, flush_extent extent)
{
    const pending *pg = &e->trees.pending;
    merge m = {0};
    if (extent == FLUSH_PENDING && (pending_is_empty(pg, p->index) || spill_partition(e, p))) return 0;
    bool wanted = pg->sets[p->index].spill_number > 0 && (extent == FLUSH_SPILLS || merge_may_succeed(e, p));
    bool merging = wanted && merge_begin(e, p, &m);
    int error = passes(e, p, &m, extent == FLUSH_WHOLE);
    if (merging && error == 0) merge_end(e, p, &m);
    if (wanted) p->merge_failed_ns = pg->sets[p->index].spill_number > 0 ? kio_now_ns(e->kio) : 0;
    merge_free(e, &m);
    return error;
}

/* ---- when --------------------------------------------------------------------------------------------------------- */

void flush_wait(engine *e, int64_t wait_ns)
{
    checkpointer *c = &e->checkpointer;
    uint32_t word = atomic_load(&c->done_word);
    checkpointer_wake(e);
    kio_sleep(e->kio, &c->done_word, word, wait_ns);
}

/*
 * The first to see that a flush is wanted wakes who makes it. When half of what was left then is taken, too, because writers are faster, each write owes the more the less there is; whoever brings the
 * debt of all to a sleep's length pays it.
 */
void flush_throttle(engine *e)
{
    const pending *pg = &e->trees.pending;
    checkpointer *c = &e->checkpointer;
    uint64_t used = pending_frames(pg), limit = pending_limit(pg), from = pending_flush_from(pg);
    if (used <= from) return;
    if (atomic_load_explicit(&c->idle, memory_order_relaxed) != 0 && atomic_exchange(&c->idle, 0) != 0) checkpointer_wake(e);
    from += (limit - from) / 2;
    if (used <= from) return;
    double share = used >= limit ? 1 : (double)(used - from) / (double)(limit - from);
    int64_t owed = (int64_t)(share * share * DEBT_MAX_NS), debt = atomic_fetch_add(&e->checkpointer.pend_debt_ns, owed) + owed;
    while (debt >= DEBT_PAID_NS)
        if (atomic_compare_exchange_weak(&e->checkpointer.pend_debt_ns, &debt, debt - DEBT_PAID_NS)) {
            flush_wait(e, DEBT_PAID_NS);
            return;
        }
}

partition *flush_wanted(engine *e)
{
    const pending *pg = &e->trees.pending;
    partition *fullest = NULL;
    uint32_t most = 0;
    if (pending_frames(pg) <= pending_flush_from(pg)) return NULL;
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        uint32_t writes = atomic_load_explicit(&pg->sets[i].writes, memory_order_relaxed);
        if (writes > most) {
            most = writes;
            fullest = &e->trees.partitions[i];
        }
    }
    return fullest;
}
