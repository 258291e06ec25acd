/* An opening that passes over what it cannot read, and tells what that was: for the command's repair. */
#include <stdarg.h>

#include "base/memory.h"
#include "engine/engine_internal.h"

#define SENTENCE_BYTES 1024

int salvage_tell(engine *e, const char *format, ...)
{
    char where[SENTENCE_BYTES / 2], text[SENTENCE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof where, format, args);
    va_end(args);
    snprintf(text, sizeof text, "%s: %s", where, rw_error_text());
    e->salvage->found(e->salvage->arg, text);
    return 0;
}

/* A stored key or bound, which where buckets meet may be shorter than a bucket's number. */
static const char *bound_text(rw_slice bound, char text[KEY_TEXT_MAX])
{
    unsigned char padded[RW_BUCKET_PREFIX] = {0};
    if (bound.size >= sizeof padded) return key_text(bound, text);
    memcpy(padded, bound.data, bound.size);
    return key_text(rw_slice_of(padded, sizeof padded), text);
}

/* A deletion of a range is told for itself: the leaves before the bad one were changed, those behind it not, so what it deleted there is back. */
int salvage_operation(engine *e, const wal_op *op, int error)
{
    char from[KEY_TEXT_MAX], to[KEY_TEXT_MAX];
    salvage *s = e->salvage;
    if (!salvage_passes(e, error)) return error;
    if (op != NULL && op->kind == WAL_OP_DELETE_RANGE)
        return salvage_tell(e, "a part of the deletion of the keys from %s to %s, of which some may be back", bound_text(op->key, from), bound_text(op->second, to));
    if (s->operations++ == 0) snprintf(s->first, sizeof s->first, "%.*s", (int)sizeof s->first - 1, rw_error_text());
    return 0;
}

int salvage_partition(engine *e, uint32_t i, int error)
{
    const store_image *image = store_image_opened(e->store);
    char from[KEY_TEXT_MAX], to[KEY_TEXT_MAX];
    if (!salvage_passes(e, error)) return error;
    bool last = i + 1 == image->partition_count;
    rw_slice low = image->partitions[i].low_key, high = last ? rw_slice_of("", 0) : image->partitions[i + 1].low_key;
    if (image->partitions[i].spill_count > 0) {
        store_partition without = image->partitions[i];
        without.spill_count = without.spill_number = 0;
        if (trees_adopt(&e->trees, &without) == 0) return salvage_tell(e, "some of the newest changes to the keys from %s to %s", low.size == 0 ? "the first" : bound_text(low, from), last ? "the last" : bound_text(high, to));
    }
    salvage_tell(e, "the keys from %s to %s, but for what the log holds of them", low.size == 0 ? "the first" : bound_text(low, from), last ? "the last" : bound_text(high, to));
    return trees_adopt_lost(&e->trees, &image->partitions[i], high);
}

void salvage_log_end(engine *e, uint64_t end_lsn)
{
    const salvage *s = e->salvage;
    const char *damage = wal_salvage_damage(e->wal);
    if (damage != NULL) {
        rw_error(RW_ECORRUPT, "%s", damage);
        salvage_tell(e, "the log from LSN %llu on", (unsigned long long)end_lsn);
    }
    if (s->operations == 0) return;
    rw_error(RW_ECORRUPT, "%s", s->first);
    salvage_tell(e, "%llu operation%s of the log, whose pages cannot be read", (unsigned long long)s->operations, s->operations == 1 ? "" : "s");
}

/* ---- behind damage ----------------------------------------------------------------------------------------------- */

/* A walk from leaf to leaf. */
typedef struct {
    engine *e;
    node *leaf;
    unsigned char *at_bytes, *next_bytes, *key;
    rw_slice at;                           /* in at_bytes */
} salvage_walk;

static int walk_open(salvage_walk *w, engine *e, rw_bucket bucket, rw_slice key)
{
    size_t stride = e->trees.router.key_stride;
    *w = (salvage_walk){.e = e, .leaf = rw_memory_aligned(e->page_size), .at_bytes = malloc(stride), .next_bytes = malloc(stride), .key = malloc(stride)};
    if (w->leaf == NULL || w->at_bytes == NULL || w->next_bytes == NULL || w->key == NULL) return rw_error(RW_ENOMEM, "no memory to look behind damage");
    if (key.size + RW_BUCKET_PREFIX > stride) return rw_error(RW_ETOOBIG, "the key has %zu bytes", key.size);
    bucket_prefix_store(w->at_bytes, bucket);
    if (key.size > 0) memcpy(w->at_bytes + RW_BUCKET_PREFIX, key.data, key.size);
    w->at = rw_slice_of(w->at_bytes, key.size + RW_BUCKET_PREFIX);
    return 0;
}

static void walk_close(salvage_walk *w)
{
    free(w->leaf);
    free(w->at_bytes);
    free(w->next_bytes);
    free(w->key);
}

/* To the end of the leaf, or, where that cannot be read, of what cannot. *damaged: which it was. RW_ENOTFOUND: it is the last one. */
static int walk_step(salvage_walk *w, bool *damaged)
{
    size_t size = 0;
    int error = trees_copy_leaf(&w->e->trees, w->at, TREES_COVERING, w->leaf, NULL, NULL);
    *damaged = error == RW_ECORRUPT || error == RW_EIO;
    if (*damaged) error = trees_behind_damage(&w->e->trees, w->at, w->next_bytes, &size);
    else if (error == 0) {
        rw_slice upper = node_upper_fence(w->leaf);
        size = upper.size;
        if (size > 0) memcpy(w->next_bytes, upper.data, size);
    }
    if (error == 0 && size == 0) error = rw_error(RW_ENOTFOUND, "there is no page behind");
    if (error != 0) return error;
    unsigned char *bytes = w->at_bytes;
    w->at_bytes = w->next_bytes;
    w->next_bytes = bytes;
    w->at = rw_slice_of(w->at_bytes, size);
    return 0;
}

int db_salvage_behind(rw_db *db, rw_bucket bucket, rw_slice key, void *next, size_t *size)
{
    engine *e;
    salvage_walk w;
    unsigned char end[RW_BUCKET_PREFIX];
    bool damaged = false;
    int error = engine_of(db, &e);
    if (error != 0) return error;
    bucket_prefix_store(end, bucket + 1);
    error = walk_open(&w, e, bucket, key);
    while (error == 0 && !damaged) {
        error = walk_step(&w, &damaged);
        if (error == 0 && rw_slice_compare(w.at, rw_slice_of(end, sizeof end)) >= 0) error = rw_error(RW_ENOTFOUND, "the bucket ends there");
    }
    /* a separator may be shorter than a bucket's number: then it lies between two buckets */
    if (error == 0 && (w.at.size < RW_BUCKET_PREFIX || bucket_of_stored(w.at) != bucket)) error = rw_error(RW_ENOTFOUND, "the bucket ends there");
    if (error == 0) {
        *size = w.at.size - RW_BUCKET_PREFIX;
        memcpy(next, w.at_bytes + RW_BUCKET_PREFIX, *size);
    }
    walk_close(&w);
    return error;
}

/* The bucket of the first record from `from` on in the leaf that was copied last. */
static bool leaf_bucket(const salvage_walk *w, rw_slice from, rw_bucket *bucket)
{
    bool ignored;
    unsigned slot = node_lower_bound(w->leaf, w->e->page_size, from, &ignored);
    if (slot >= w->leaf->count) return false;
    size_t size = node_key_length(w->leaf, slot);
    if (size < RW_BUCKET_PREFIX || size > w->e->trees.router.key_stride) return false;
    node_key_copy(w->leaf, slot, w->key);
    *bucket = bucket_of_stored(rw_slice_of(w->key, size));
    return *bucket < UINT32_MAX;
}

int db_salvage_unnamed(rw_db *db, rw_bucket_fn fn, void *arg)
{
    engine *e;
    salvage_walk w;
    int result = engine_of(db, &e);
    if (result != 0) return result;
    result = walk_open(&w, e, RW_DEFAULT_BUCKET + 1, rw_slice_of("", 0));
    while (result == 0) {
        bool damaged;
        rw_bucket bucket;
        rw_slice from = w.at;                  /* its bytes are the next step's, which comes later */
        result = walk_step(&w, &damaged);
        if ((result != 0 && result != RW_ENOTFOUND) || damaged || !leaf_bucket(&w, from, &bucket)) continue;
        if (bucket_adopt(e, bucket)) {
            char name[40];
            snprintf(name, sizeof name, "unnamed-%u", bucket);
            int stopped = fn(arg, name, bucket);
            if (stopped != 0) result = stopped;
        }
        if (result != 0 && result != RW_ENOTFOUND) continue;
        bucket_prefix_store(w.at_bytes, bucket + 1);    /* the next one may be in the same leaf */
        w.at = rw_slice_of(w.at_bytes, RW_BUCKET_PREFIX);
        result = 0;
    }
    walk_close(&w);
    return result == RW_ENOTFOUND ? 0 : result;
}
