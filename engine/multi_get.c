/* Several keys read together: the pages that they miss are read side by side by the workers. */
#include "engine/engine_internal.h"

#define MULTI_GET_FETCHES 64u              /* pages that are read at once */
#define MULTI_GET_GROUP 16u                /* keys that go through memory together */

int multi_get_check(engine *e, rw_bucket bucket, rw_get_item *items, size_t count)
{
    if (items == NULL && count > 0) return rw_error(RW_EINVAL, "the items are NULL");
    int error = bucket_check(e, bucket);
    for (size_t i = 0; i < count && error == 0; i++) {
        stored_key stored;
        if (items[i].buf == NULL && items[i].size > 0) return rw_error(RW_EINVAL, "item %zu: the buffer is NULL", i);
        error = key_make(e, bucket, items[i].key, &stored);
        if (error != 0) return rw_error_prefix(error, "item %zu", i);
        key_free(&stored);
    }
    return error;
}

int multi_get_one(engine *e, rw_bucket bucket, rw_get_item *item, tree_miss *miss)
{
    stored_key stored;
    int state = key_make(e, bucket, item->key, &stored);
    if (state == 0) {
        state = engine_get_begin(e, stored.slice, item->buf, &item->size, miss);
        if (state == RW_ENOTFOUND) rw_error_fixed(state, "the key was not found");
        key_free(&stored);
    }
    if (state <= 0) item->result = state;
    return state;
}

int multi_get_result(const rw_get_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int result = items[i].result;
        if (result != 0 && result != RW_ENOTFOUND && result != RW_ETOOSMALL) return result;
    }
    return 0;
}

/* An item that waits for a page. */
typedef struct {
    page_fetch fetch;
    rw_get_item *item;
} item_fetch;

typedef struct {
    engine *e;
    rw_bucket bucket;
    rw_get_item *items;
    size_t count, next;        /* the first item that was not looked at yet */
    unsigned out;              /* fetches with workers */
    fetch_mailbox mailbox;
    item_fetch fetches[MULTI_GET_FETCHES];
} gathering;

/* Lets a fetch do something useful: true, it is with a worker. */
static bool fetch_use(gathering *g, item_fetch *f, bool alone)
{
    tree_miss *miss = alone ? NULL : &f->fetch.miss;
    if (multi_get_one(g->e, g->bucket, f->item, miss) != TREE_MISS) return false;
    f->fetch.due_ns = 0;
    f->fetch.mailbox = &g->mailbox;
    fetch_start(g->e, &f->fetch);
    g->out++;
    return true;
}

static void fetch_go_on(gathering *g, item_fetch *f)
{
    while (g->next < g->count) {
        f->item = &g->items[g->next++];
        if (fetch_use(g, f, false)) return;
    }
}

static void fetches_come_back(gathering *g)
{
    page_fetch *fetch = mailbox_take(&g->mailbox), *next;
    for (; fetch != NULL; fetch = next) {
        next = fetch->next;
        item_fetch *f = RW_CONTAINER_OF(fetch, item_fetch, fetch);
        g->out--;
        if (!fetch_use(g, f, fetch->failed)) fetch_go_on(g, f);
    }
}

/* From the first item on that misses a page. */
static void items_gather(engine *e, rw_bucket bucket, rw_get_item *items, size_t count)
{
    gathering g = {.e = e, .bucket = bucket, .items = items, .count = count, .mailbox = {.kio = e->kio}};
    for (unsigned i = 0; i < MULTI_GET_FETCHES && g.next < g.count; i++) fetch_go_on(&g, &g.fetches[i]);
    while (g.out > 0) {
        uint32_t word = atomic_load(&g.mailbox.word);
        fetch_kick(e);
        if (atomic_load(&g.mailbox.fetches) == NULL) kio_sleep(e->kio, &g.mailbox.word, word, -1);
        fetches_come_back(&g);
    }
    mailbox_close(&g.mailbox);
}

/* As many keys side by side as memory can serve at once. Returns how many items were answered before one missed a page. */
static size_t group_read(engine *e, rw_bucket bucket, rw_get_item *items, size_t count)
{
    stored_key keys[MULTI_GET_GROUP];
    size_t made = 0, done = 0;
    for (; made < count && key_make(e, bucket, items[made].key, &keys[made]) == 0; made++) trees_get_ahead(&e->trees, keys[made].slice, TREES_AHEAD_HINT);
    for (size_t i = 0; i < made; i++) trees_get_ahead(&e->trees, keys[i].slice, TREES_AHEAD_LEAF);
    for (tree_miss miss; done < made; done++) {
        int state = engine_get_begin(e, keys[done].slice, items[done].buf, &items[done].size, &miss);
        if (state == TREE_MISS) break;
        items[done].result = state;
    }
    for (size_t i = 0; i < made; i++) key_free(&keys[i]);
    return done;
}

int rw_multi_get(rw_db *db, rw_bucket bucket, rw_get_item *items, size_t count)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error == 0) error = multi_get_check(e, bucket, items, count);
    if (error != 0) return error;
    for (size_t done = 0; done < count;) {
        size_t wanted = RW_MIN(count - done, (size_t)MULTI_GET_GROUP), got = group_read(e, bucket, items + done, wanted);
        done += got;
        if (got == wanted) continue;
        items_gather(e, bucket, items + done, count - done);
        break;
    }
    return multi_get_result(items, count);
}
