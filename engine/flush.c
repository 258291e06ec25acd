/*
 * Pending writes of a whole partition, made (btree/pending.h): before its image, so that the image, and the log's beginning, are not held back by them; and when
 * they take much of the cache. Their leaves are read as bulk_read.c says.
 */
#include "base/memory.h"
#include "base/planted.h"
#include "engine/engine_internal.h"

#define LOOKS_MAX 1024u                /* under the token at a time */
#define WHOLE_FROM_SHARE 2u            /* of a partition's pages, for the others to be written too */
#define PARENTS_AT_ONCE 1024u          /* read before a merge ends */
#define MERGE_RETRY_NS 10000000000u    /* after one that failed */
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
    for (pending_write *w = entry != NULL ? entry->writes : NULL; w != NULL && error == 0; w = w->next) {
        unsigned char head[16];
        uint64_t lsn, end_lsn;
        const wal_op op = {.kind = WAL_OP_PUT, .key = pending_key(w), .second = pending_data(w)};
        const rw_slice pieces[3] = {rw_slice_of(head, wal_op_encode_head(&op, head)), op.key, op.second};
        error = wal_append(e->wal, WAL_COMMIT, pieces, op.second.size > 0 ? 3 : 2, 0, &lsn, &end_lsn, &p->committing);
        if (error != 0) break;
        pending_restamp(&e->trees.pending, p, w, lsn);
        p->writes_stuck++;
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

/* What is above the leaves: without it they could not be hung in. Level by level, but for those that are evicted again meanwhile. */
static void parents_read(engine *e, partition *p, tree_miss *pages, uint32_t room)
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

/* ---- spills ------------------------------------------------------------------------------------------------------- */

/* The partition's spills, read as a whole; and the leaves on disk that lacked something of what they hold when the merge began. */
typedef struct {
    leaf_recall recall;
    uint32_t number;                   /* of the last one */
    tree_miss *leaves;                 /* in the order of their places */
    uint32_t count, capacity;
    bool read;                         /* they were, once */
} merge;

static bool merge_add(merge *m, page_ref leaf)
{
    if (m->count > 0 && m->leaves[m->count - 1].ref.word == leaf.word) return true;
    if (m->count == m->capacity) {
        uint32_t capacity = RW_MAX(256, 2 * m->capacity);
        tree_miss *grown = realloc(m->leaves, capacity * sizeof *grown);
        if (grown == NULL) return false;
        m->leaves = grown;
        m->capacity = capacity;
    }
    m->leaves[m->count++] = (tree_miss){.ref = leaf};
    return true;
}

/* What becomes of each key's leaf: called under the token with what the leaf's parent names, a page on disk or a frame. False: it ends here. */
typedef bool (*merge_visit)(merge *m, page_ref leaf);

/* Goes over the keys of a spill's leaf. */
static bool page_visit(engine *e, partition *p, merge *m, const node *n, merge_visit visit)
{
    unsigned char *bytes = e->checkpointer.key_buffers;
    page_ref suspect = page_ref_none();
    bool on = true;
    partition_lock(e->kio, p);
    for (unsigned slot = 0; slot < n->count && on;) {
        tree_miss miss;
        page_ref leaf;
        rw_slice key = rw_slice_of(bytes, node_key_length(n, slot));
        node_key_copy(n, slot, bytes);
        int state = tree_leaf_named(&e->trees, p, key, &leaf, &miss);
        if (state == 0) {
            on = visit(m, leaf);
            slot++;
            continue;
        }
        partition_unlock(e->kio, p);
        on = trees_load(&e->trees, &miss, &suspect) == 0;
        partition_lock(e->kio, p);
    }
    partition_unlock(e->kio, p);
    return on;
}

static bool pages_visit(engine *e, partition *p, merge *m, merge_visit visit)
{
    bool on = true;
    for (uint32_t i = 0; i < m->recall.count && on; i++) on = page_visit(e, p, m, m->recall.pages[i].page, visit);
    return on;
}

static bool leaf_is_complete(merge *m, page_ref leaf)
{
    return page_ref_is_frame(leaf) || page_ref_spill(leaf) >= m->number; /* what is in the cache lacks nothing (T20) */
}

static bool leaf_collect(merge *m, page_ref leaf)
{
    return leaf_is_complete(m, leaf) || merge_add(m, leaf);
}

static void leaves_unique(merge *m)
{
    uint32_t left = 0;
    if (m->count > 0) qsort(m->leaves, m->count, sizeof *m->leaves, bulk_place_compare);
    for (uint32_t i = 0; i < m->count; i++)
        if (left == 0 || m->leaves[left - 1].ref.word != m->leaves[i].ref.word) m->leaves[left++] = m->leaves[i];
    m->count = left;
}

bool merge_may_succeed(engine *e, const partition *p)
{
    return p->merge_failed_ns == 0 || kio_now_ns(e->kio) - p->merge_failed_ns > MERGE_RETRY_NS;
}

static bool merge_begin(engine *e, partition *p, merge *m)
{
    partition_lock(e->kio, p);
    uint32_t spills = pending_spills(&e->trees.pending, p->index);
    if (spills > 0) m->number = e->trees.pending.sets[p->index].spills[spills - 1]->image.number;
    int error = recall_want_all(&m->recall, &e->trees.pending, p);
    partition_unlock(e->kio, p);
    if (error == 0) error = recall_read(&m->recall, e->kio, e->store, &e->trees.pool);
    if (error != 0 || !pages_visit(e, p, m, leaf_collect)) {
        m->count = 0;
        return false; /* the spills stay. What is pending can be made all the same, where what they hold for its leaves can be read */
    }
    leaves_unique(m);
    e->checkpointer.writer->recall = &m->recall;
    return true;
}

static void merge_free(engine *e, merge *m)
{
    e->checkpointer.writer->recall = NULL;
    recall_free(&m->recall);
    free(m->leaves);
}

/* Leaves that were not read with the others are read one by one; then all contain the spills. */
static void merge_end(engine *e, partition *p, merge *m)
{
    for (uint32_t i = 0; i < m->recall.count; i++) {
        const node *n = m->recall.pages[i].page;
        if (RW_PLANTED(spill_dropped_early) || page_visit(e, p, m, n, leaf_is_complete)) continue;
        for (unsigned slot = 0; slot < n->count; slot++) {
            unsigned char *key = e->checkpointer.key_buffers;
            node_key_copy(n, slot, key);
            if (trees_touch(&e->trees, rw_slice_of(key, node_key_length(n, slot)), NULL) != 0) return;
        }
    }
    tree_miss *parents = malloc(PARENTS_AT_ONCE * sizeof *parents);
    if (parents != NULL) parents_read(e, p, parents, PARENTS_AT_ONCE);
    free(parents);
    partition_lock(e->kio, p);
    (void)spills_done(e, p); /* else the next merge does it */
    partition_unlock(e->kio, p);
}

/* ---- a partition -------------------------------------------------------------------------------------------------- */

/*
 * When most of the partition's leaves will be changed, the others are written again too: its next image leaves nothing of the last one alive, and nothing has to be cleaned.
 * Not while space is short, which this takes first and gives back only with the image.
 */
static bool whole_rewrite(engine *e, partition *p, tree_miss *leaves, uint32_t room, const merge *m)
{
    partition_lock(e->kio, p);
    uint64_t changed = RW_MAX(atomic_load(&e->trees.pending.sets[p->index].leaves), m->count) + (uint64_t)p->dirty_count;
    bool wanted = changed * WHOLE_FROM_SHARE >= trees_pages(&e->trees, p) && atomic_load(&e->trees.pool.space_error) == 0;
    uint32_t count = wanted ? tree_missing(&e->trees, p, true, leaves, room) : 0;
    partition_unlock(e->kio, p);
    if (wanted && bulk_rewrite_leaves(e, p, leaves, count, true)) checkpoint_widen(e, p, true);
    return wanted;
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

/* Those that the whole was not worth being written for. */
static void merge_rewrite(engine *e, partition *p, const merge *m)
{
    tree_miss *leaves = malloc(m->count * sizeof *leaves); /* their order changes */
    if (leaves == NULL) return;
    memcpy(leaves, m->leaves, m->count * sizeof *leaves);
    (void)bulk_rewrite_leaves(e, p, leaves, m->count, false);
    free(leaves);
}

/*
 * One pass over what is there when it begins. What comes meanwhile, for leaves that were just written perhaps, waits for the next one: each of them would be read and
 * written once more for a write or two.
 */
static int pass(engine *e, partition *p, tree_miss *leaves, uint32_t room, merge *m, bool *passed)
{
    pending *pg = &e->trees.pending;
    store_retired extents = {0};
    p->writes_stuck = 0;
    parents_read(e, p, leaves, room);
    partition_lock(e->kio, p);
    uint64_t begin = wal_end_lsn(e->wal);
    store_retired_move(&extents, &p->extents); /* named by records below begin, or by none */
    partition_unlock(e->kio, p);
    if (!whole_rewrite(e, p, leaves, room, m) && m->count > 0 && !m->read) merge_rewrite(e, p, m);
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

static int passes(engine *e, partition *p, merge *m)
{
    bool passed = pending_is_empty(&e->trees.pending, p->index) && m->count == 0; /* what spills hold may be in all leaves already */
    int error = 0;
    while (!passed && error == 0) {
        partition_lock(e->kio, p);
        /* also for those that whole_rewrite adds, or come in meanwhile */
        uint32_t room = 2 * RW_MAX(atomic_load(&e->trees.pending.sets[p->index].leaves), m->count) + p->dirty_count + 1024;
        partition_unlock(e->kio, p);
        tree_miss *leaves = malloc(room * sizeof *leaves);
        error = leaves != NULL ? pass(e, p, leaves, room, m, &passed) : rw_error(RW_ENOMEM, "no memory for a list of leaves");
        free(leaves);
    }
    return error;
}

int flush_partition(engine *e, partition *p, bool spills_too)
{
    const pending *pg = &e->trees.pending;
    merge m = {0};
    bool empty = pending_is_empty(pg, p->index);
    p->writes_stuck = 0;
    if (empty && !spills_too) return 0;
    if (!spills_too && spill_partition(e, p)) return 0;
    bool wanted = pg->sets[p->index].spill_number > 0 && (spills_too || merge_may_succeed(e, p));
    bool merging = wanted && merge_begin(e, p, &m);
    int error = passes(e, p, &m);
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
        writes -= RW_MIN(writes, e->trees.partitions[i].writes_stuck);
        if (writes > most) {
            most = writes;
            fullest = &e->trees.partitions[i];
        }
    }
    return fullest;
}
