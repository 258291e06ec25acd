/* Buckets: the catalog of names, kept in the tree under bucket 0, and the table of ids in use that every call looks at. */
#include "base/memory.h"
#include "engine/body.h"

#define BUCKET_IDS_MAX (1u << 20)      /* ids are not used again, so that a dropped bucket's handle stays invalid */
#define BUCKET_FIRST 2u                /* after the catalog and the default bucket */

int bucket_check_at(engine *e, rw_bucket bucket, uint64_t moment)
{
    if (RW_LIKELY(bucket == RW_DEFAULT_BUCKET)) return 0;
    if (RW_LIKELY(bucket != CATALOG_BUCKET && bucket < BUCKET_IDS_MAX && bucket_seen(&e->buckets.until[bucket], moment))) return 0;
    return rw_error(RW_ENOTFOUND, "no bucket has the number %u", bucket);
}

int bucket_check(engine *e, rw_bucket bucket)
{
    return bucket_check_at(e, bucket, BUCKET_LIVE);
}

void bucket_dropped(engine *e, rw_bucket bucket, uint64_t timestamp)
{
    RW_ASSERT(bucket < BUCKET_IDS_MAX && timestamp > 0);
    atomic_store(&e->buckets.until[bucket], timestamp);
}

static void bucket_mark(engine *e, rw_bucket id)
{
    atomic_store(&e->buckets.until[id], BUCKET_LIVE);
    atomic_fetch_add(&e->buckets.count, 1);
}

bool bucket_adopt(engine *e, rw_bucket id)
{
    if (id < BUCKET_FIRST || id >= BUCKET_IDS_MAX || bucket_check(e, id) == 0) return false;
    bucket_mark(e, id);
    return true;
}

/* Walks the catalog in order of name; the next id stands under an empty name. */
typedef int (*catalog_fn)(void *arg, rw_slice name, uint32_t id);

static int catalog_walk(engine *e, catalog_fn fn, void *arg)
{
    unsigned char prefix[RW_BUCKET_PREFIX];
    node *leaf = rw_memory_aligned(e->page_size);
    unsigned char *at_bytes = malloc(e->trees.router.key_stride);
    if (leaf == NULL || at_bytes == NULL) {
        free(leaf);
        free(at_bytes);
        return rw_error(RW_ENOMEM, "no memory to read the catalog of buckets");
    }
    bucket_prefix_store(prefix, CATALOG_BUCKET);
    rw_slice at = rw_slice_of(prefix, sizeof prefix);
    int result = 0;
    for (bool more = true; more && result == 0;) {
        result = trees_copy_leaf(&e->trees, at, TREES_COVERING, leaf, NULL, NULL);
        if (result != 0) break;
        bool ignored;
        for (unsigned i = node_lower_bound(leaf, e->page_size, at, &ignored); i < leaf->count && result == 0; i++) {
            unsigned char key[RW_BUCKET_PREFIX + RW_BUCKET_NAME_MAX];
            unsigned flags = 0;
            rw_slice value = node_value(leaf, e->page_size, i, &flags);
            size_t size = node_key_length(leaf, i);
            if (size < sizeof prefix || size > sizeof key) more = false;
            if (!more) break;
            node_key_copy(leaf, i, key);
            more = memcmp(key, prefix, sizeof prefix) == 0 && value.size == sizeof(uint32_t);
            if (more) result = fn(arg, rw_slice_of(key + sizeof prefix, size - sizeof prefix), rw_load_u32(value.data));
        }
        rw_slice upper = node_upper_fence(leaf);
        if (upper.size == 0) break;
        memcpy(at_bytes, upper.data, upper.size);
        at = rw_slice_of(at_bytes, upper.size);
        if (at.size >= sizeof prefix && memcmp(at.data, prefix, sizeof prefix) != 0) break;
    }
    free(leaf);
    free(at_bytes);
    return result;
}

static int catalog_load_one(void *arg, rw_slice name, uint32_t id)
{
    engine *e = arg;
    if (id >= BUCKET_IDS_MAX) return rw_error(RW_ECORRUPT, "the catalog names bucket number %u", id);
    if (name.size == 0) atomic_store(&e->buckets.next_id, id);
    else bucket_mark(e, id);
    return 0;
}

int buckets_open(engine *e)
{
    e->buckets.until = calloc(BUCKET_IDS_MAX, sizeof *e->buckets.until); /* most of it is never touched, so it is no memory */
    if (e->buckets.until == NULL) return rw_error(RW_ENOMEM, "no memory for the table of buckets");
    atomic_store(&e->buckets.next_id, BUCKET_FIRST);
    bucket_mark(e, RW_DEFAULT_BUCKET);
    int error = catalog_walk(e, catalog_load_one, e);
    return salvage_passes(e, error) ? salvage_tell(e, "the names of buckets, or some of them, and with them these buckets") : error;
}

void buckets_close(engine *e)
{
    free((void *)e->buckets.until);
}

static void catalog_key(stored_key *out, const char *name, size_t size)
{
    /* the name fits the small room or the heap: at most 259 bytes */
    out->heap = size + RW_BUCKET_PREFIX > sizeof out->small ? malloc(size + RW_BUCKET_PREFIX) : NULL;
    unsigned char *to = out->heap != NULL ? out->heap : out->small;
    bucket_prefix_store(to, CATALOG_BUCKET);
    memcpy(to + RW_BUCKET_PREFIX, name, size);
    out->slice = rw_slice_of(to, RW_BUCKET_PREFIX + size);
}

static int bucket_create(engine *e, const stored_key *name, rw_bucket *bucket)
{
    commit_body body = {0};
    unsigned char id_bytes[4], next_bytes[4];
    stored_key next_key;
    uint32_t id = atomic_load(&e->buckets.next_id);
    int error = engine_write_allowed(e);
    if (error != 0) return error;
    if (id >= BUCKET_IDS_MAX) return rw_error(RW_ETOOBIG, "no more than %u buckets can ever be made in one database", BUCKET_IDS_MAX - BUCKET_FIRST);
    catalog_key(&next_key, "", 0);
    rw_store_u32(id_bytes, id);
    rw_store_u32(next_bytes, id + 1);
    const wal_op ops[2] = {{.kind = WAL_OP_PUT, .key = next_key.slice, .second = rw_slice_of(next_bytes, 4)},
                           {.kind = WAL_OP_PUT, .key = name->slice, .second = rw_slice_of(id_bytes, 4)}};
    error = body_add(&body, &ops[0]);
    if (error == 0) error = body_add(&body, &ops[1]);
    if (error == 0) error = engine_commit_many(e, &body, RW_SYNC | ENGINE_CATALOG);
    body_free(&body);
    if (error != 0) return error;
    atomic_store(&e->buckets.next_id, id + 1);
    bucket_mark(e, id);
    *bucket = id;
    return 0;
}

static int bucket_open_named(engine *e, const char *name, size_t size, unsigned flags, rw_bucket *bucket)
{
    stored_key key;
    unsigned char id_bytes[4];
    size_t id_size = sizeof id_bytes;
    catalog_key(&key, name, size);
    if (key.slice.data == NULL) return rw_error(RW_ENOMEM, "no memory to open bucket '%s'", name);
    kio_mutex_lock(e->kio, &e->buckets.mutex);
    int error = engine_get(e, key.slice, id_bytes, &id_size);
    if (error == 0) *bucket = rw_load_u32(id_bytes);
    else if (error == RW_ENOTFOUND && (flags & RW_CREATE) != 0) error = bucket_create(e, &key, bucket);
    else if (error == RW_ENOTFOUND) rw_error(RW_ENOTFOUND, "there is no bucket '%s'", name);
    kio_mutex_unlock(e->kio, &e->buckets.mutex);
    key_free(&key);
    return error;
}

int rw_bucket_open(rw_db *db, const char *name, unsigned flags, rw_bucket *bucket)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (name == NULL || bucket == NULL) return rw_error(RW_EINVAL, "the bucket's %s is NULL", name == NULL ? "name" : "out-parameter");
    if ((flags & ~RW_CREATE) != 0) return rw_error(RW_EINVAL, "unknown flag 0x%x for rw_bucket_open", flags & ~RW_CREATE);
    size_t size = strlen(name);
    if (size == 0) return rw_error(RW_EINVAL, "the bucket's name is empty");
    if (size > RW_BUCKET_NAME_MAX) return rw_error(RW_ETOOBIG, "the bucket's name has %zu bytes, at most %zu are possible", size, RW_BUCKET_NAME_MAX);
    if (strcmp(name, "default") == 0) {
        *bucket = RW_DEFAULT_BUCKET;
        return 0;
    }
    return bucket_open_named(e, name, size, flags, bucket);
}

typedef struct {
    rw_bucket wanted;
    rw_bucket_fn fn;
    void *arg;
    char name[RW_BUCKET_NAME_MAX + 1];
    bool found, default_done;
} catalog_search;

static int catalog_find_id(void *arg, rw_slice name, uint32_t id)
{
    catalog_search *search = arg;
    if (name.size == 0 || id != search->wanted) return 0;
    memcpy(search->name, name.data, name.size);
    search->name[name.size] = 0;
    search->found = true;
    return 0;
}

static int bucket_drop_locked(engine *e, rw_bucket bucket, const char *name)
{
    commit_body body = {0};
    unsigned char from[RW_BUCKET_PREFIX], to[RW_BUCKET_PREFIX];
    stored_key key;
    catalog_key(&key, name, strlen(name));
    bucket_prefix_store(from, bucket);
    bucket_prefix_store(to, bucket + 1);
    const wal_op ops[2] = {{.kind = WAL_OP_DELETE, .key = key.slice},
                           {.kind = WAL_OP_DELETE_RANGE, .key = rw_slice_of(from, sizeof from), .second = rw_slice_of(to, sizeof to)}};
    int error = body_add(&body, &ops[0]);
    if (error == 0) error = body_add(&body, &ops[1]);
    if (error == 0) error = engine_commit_many(e, &body, RW_SYNC | ENGINE_CATALOG);
    body_free(&body);
    if (!bucket_seen(&e->buckets.until[bucket], BUCKET_LIVE)) atomic_fetch_sub(&e->buckets.count, 1);
    key_free(&key);
    return error;
}

int rw_bucket_drop(rw_db *db, rw_bucket bucket)
{
    engine *e;
    int error = engine_of_writer(db, &e);
    if (error != 0) return error;
    if (bucket == RW_DEFAULT_BUCKET) return rw_error(RW_EINVAL, "the default bucket cannot be dropped");
    catalog_search search = {.wanted = bucket};
    kio_mutex_lock(e->kio, &e->buckets.mutex);
    error = bucket_check(e, bucket);
    if (error == 0) error = catalog_walk(e, catalog_find_id, &search);
    if (error == 0 && !search.found) error = rw_error(RW_ENOTFOUND, "no bucket has the number %u", bucket);
    if (error == 0) error = bucket_drop_locked(e, bucket, search.name);
    kio_mutex_unlock(e->kio, &e->buckets.mutex);
    return error;
}

/* The default bucket is in no catalog: it takes its place in the order of names here. */
static int list_default(catalog_search *search, const char *next)
{
    if (search->default_done || (next != NULL && strcmp(next, "default") < 0)) return 0;
    search->default_done = true;
    return search->fn(search->arg, "default", RW_DEFAULT_BUCKET);
}

static int catalog_list_one(void *arg, rw_slice name, uint32_t id)
{
    catalog_search *search = arg;
    if (name.size == 0) return 0;
    memcpy(search->name, name.data, name.size);
    search->name[name.size] = 0;
    int result = list_default(search, search->name);
    return result != 0 ? result : search->fn(search->arg, search->name, id);
}

int rw_bucket_list(rw_db *db, rw_bucket_fn fn, void *arg)
{
    engine *e;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    if (fn == NULL) return rw_error(RW_EINVAL, "the callback is NULL");
    catalog_search search = {.fn = fn, .arg = arg};
    error = catalog_walk(e, catalog_list_one, &search);
    return error != 0 ? error : list_default(&search, NULL);
}
