/*
 * Merging: the spills of a partition are read as a whole, and what they hold is made in all leaves on disk that lack it, together with what is pending for these (flush.c). Then they are dropped.
 */
#include "engine/merge.h"

#include "base/planted.h"

#define PARENTS_AT_ONCE 1024u          /* read before a merge ends */
#define MERGE_RETRY_NS 10000000000u    /* after one that failed */

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

bool merge_begin(engine *e, partition *p, merge *m)
{
    partition_lock(e->kio, p);
    uint32_t spills = pending_spills(&e->trees.pending, p->index);
    if (spills > 0) m->number = e->trees.pending.sets[p->index].spills[spills - 1]->image.number;
    int error = recall_want_all(&m->recall, &e->trees.pending, p);
    partition_unlock(e->kio, p);
    if (error == 0) error = recall_read(&m->recall, e->kio, e->store, &e->trees.pool);
    if (error != 0 || !pages_visit(e, p, m, leaf_collect)) {
        m->count = 0;
        return false;
    }
    leaves_unique(m);
    e->checkpointer.writer->recall = &m->recall;
    return true;
}

void merge_rewrite(engine *e, partition *p, const merge *m)
{
    tree_miss *leaves = malloc(m->count * sizeof *leaves); /* their order changes */
    if (leaves == NULL) return;
    memcpy(leaves, m->leaves, m->count * sizeof *leaves);
    (void)bulk_rewrite_leaves(e, p, leaves, m->count, false);
    free(leaves);
}

void merge_free(engine *e, merge *m)
{
    e->checkpointer.writer->recall = NULL;
    recall_free(&m->recall);
    free(m->leaves);
}

void merge_end(engine *e, partition *p, merge *m)
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
    if (parents != NULL) flush_parents_read(e, p, parents, PARENTS_AT_ONCE);
    free(parents);
    partition_lock(e->kio, p);
    (void)spills_done(e, p); /* else the next merge does it */
    partition_unlock(e->kio, p);
}
