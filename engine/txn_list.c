/* Lists of open transactions and of locks. */
#include "engine/txn.h"

typedef struct {
    engine *e;
    uint64_t now_ns;
    rw_txn_info *infos;
    size_t count, capacity;
    size_t transactions;           /* the first of infos */
} txn_gather;

static int info_add(txn_gather *g, const rw_txn_info *info)
{
    if (g->count == g->capacity) {
        size_t capacity = g->capacity * 2 + 16;
        rw_txn_info *grown = realloc(g->infos, capacity * sizeof *grown);
        if (grown == NULL) return rw_error(RW_ENOMEM, "no memory to list %zu transactions", g->count);
        g->infos = grown;
        g->capacity = capacity;
    }
    g->infos[g->count++] = *info;
    return 0;
}

static uint64_t age_us(const txn_gather *g, uint64_t begun_ns)
{
    return g->now_ns > begun_ns ? (g->now_ns - begun_ns) / 1000 : 0;
}

static int transaction_add(void *arg, transaction *t)
{
    txn_gather *g = arg;
    const rw_txn_info info = {
        .id = atomic_load(&t->id),
        .flags = atomic_load(&t->flags),
        .age_us = age_us(g, atomic_load(&t->begun_ns)),
        .writes = atomic_load(&t->writes_count),
        .bytes = atomic_load(&t->bytes),
    };
    return info_add(g, &info);
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const rw_txn_info *)a)->id, y = ((const rw_txn_info *)b)->id;
    return x < y ? -1 : x > y;
}

/* Among the transactions gathered first, which are sorted by id. */
static rw_txn_info *info_of(const txn_gather *g, uint64_t id)
{
    const rw_txn_info wanted = {.id = id};
    return g->transactions == 0 ? NULL : bsearch(&wanted, g->infos, g->transactions, sizeof wanted, by_id);
}

/* Snapshots belong to transactions, or, with owner 0, to cursors. */
static int snapshot_add(void *arg, const snapshot *one)
{
    txn_gather *g = arg;
    rw_txn_info *owner = info_of(g, one->owner);
    if (owner != NULL) owner->snapshot = one->timestamp;
    const rw_txn_info info = {.flags = RW_READONLY, .age_us = age_us(g, one->begun_ns), .snapshot = one->timestamp};
    return one->owner == 0 ? info_add(g, &info) : 0;
}

static int lock_count(void *arg, const lock_view *view)
{
    rw_txn_info *owner = info_of(arg, view->owner);
    if (owner == NULL) return 0;
    if (view->waiting) owner->waits_for = view->waits_for;
    else owner->locks++;
    return 0;
}

static int older_first(const void *a, const void *b)
{
    const rw_txn_info *x = a, *y = b;
    if (x->age_us != y->age_us) return x->age_us > y->age_us ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

int rw_txn_list(rw_db *db, rw_txn_list_fn fn, void *arg)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (fn == NULL) return rw_error(RW_EINVAL, "the callback is NULL");
    txn_gather g = {.e = e, .now_ns = kio_now_ns(e->kio)};
    error = txn_slots_for_each(e, transaction_add, &g);
    if (g.count > 1) qsort(g.infos, g.count, sizeof *g.infos, by_id);
    g.transactions = g.count;
    if (error == 0) error = locks_for_each(e->locks, lock_count, &g);
    if (error == 0) error = snapshots_for_each(&e->snapshots, snapshot_add, &g);
    if (g.count > 1) qsort(g.infos, g.count, sizeof *g.infos, older_first);
    for (size_t i = 0; i < g.count && error == 0; i++) error = fn(arg, &g.infos[i]);
    free(g.infos);
    return error;
}

typedef struct {
    rw_lock_list_fn fn;
    void *arg;
} lock_caller;

static int lock_tell(void *arg, const lock_view *view)
{
    const lock_caller *c = arg;
    rw_bucket bucket = __builtin_bswap32(rw_load_u32(view->from.data));
    rw_lock_info info = {
        .txn = view->owner,
        .exclusive = view->mode == LOCK_EXCLUSIVE,
        .waiting = view->waiting,
        .bucket = bucket,
        .from = rw_slice_of((const unsigned char *)view->from.data + RW_BUCKET_PREFIX, view->from.size - RW_BUCKET_PREFIX),
    };
    if (view->is_range) {
        bool inside = view->to.size > RW_BUCKET_PREFIX && __builtin_bswap32(rw_load_u32(view->to.data)) == bucket;
        info.to = inside ? rw_slice_of((const unsigned char *)view->to.data + RW_BUCKET_PREFIX, view->to.size - RW_BUCKET_PREFIX) : rw_slice_of("", 0);
    }
    return c->fn(c->arg, &info);
}

int rw_lock_list(rw_db *db, rw_lock_list_fn fn, void *arg)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (fn == NULL) return rw_error(RW_EINVAL, "the callback is NULL");
    lock_caller c = {fn, arg};
    return locks_for_each(e->locks, lock_tell, &c);
}
