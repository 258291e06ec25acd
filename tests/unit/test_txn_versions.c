/*
 * The version store: against a plain record of all writes, while snapshots come, go and are given up and partitions are cut and joined; long ranges; its limits; and
 * readers beside a writer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/tap.h"
#include "txn/versions.h"

#define PAGE_BYTES 4096u
#define CACHE_BYTES (4u << 20)
#define KEY_BYTES_MAX 600u
#define SEGMENT_BLOCKS (RW_SEGMENT_BYTES / RW_BLOCK_SIZE)

static uint64_t seed;

static void must(bool condition, const char *what)
{
    if (condition) return;
    tap_ok(false, "VERSIONS_SEED=%llu: %s: %s", (unsigned long long)seed, what, rw_error_text());
    tap_done();
    _exit(1);
}

/* ---- what all tests stand on ------------------------------------------------------------------------------------- */

typedef struct {
    trees t;
    snapshots s;
    versions v;
    kio *k;
    store *store;
    char dir[DIRS_PATH_MAX];
    uint32_t frames_free;          /* when there is no version */
    bool slow_moves;               /* readers are to come in between */
    _Atomic uint64_t reserved;     /* the next timestamp */
    _Atomic uint64_t applied;      /* all below are */
} bed;

static bed *bed_make(uint64_t bytes_max)
{
    store_params params = {.page_size = PAGE_BYTES};
    bed *b = aligned_alloc(64, (size_t)rw_align_up(sizeof *b, 64));
    must(b != NULL, "memory");
    memset(b, 0, sizeof *b);
    must(dir_make(b->dir, "versions"), "directory");
    must(kio_open("psync", NULL, NULL, &b->k) == 0, "back end");
    must(store_create(b->k, b->dir, &params, &b->store) == 0, "data file");
    must(trees_open(&b->t, b->k, b->store, PAGE_BYTES, CACHE_BYTES) == 0, "trees");
    must(trees_create_first(&b->t, 1) == 0, "first partition");
    snapshots_init(&b->s, b->k);
    versions_init(&b->v, &b->t, &b->s, bytes_max);
    b->frames_free = atomic_load(&b->t.pool.free_count);
    atomic_store(&b->reserved, 100);
    atomic_store(&b->applied, 100);
    return b;
}

static void bed_end(bed *b)
{
    versions_close(&b->v);
    trees_close(&b->t);
    store_close(b->store);
    kio_close(b->k);
    dir_remove(b->dir);
    free(b);
}

/* As the engine has it: everything that has its place in the log is waited for. */
static uint64_t bed_moment(void *arg)
{
    bed *b = arg;
    uint64_t end = atomic_load(&b->reserved);
    while (atomic_load(&b->applied) < end) kio_yield(b->k);
    return end;
}

static uint64_t operation_begin(bed *b)
{
    return atomic_fetch_add(&b->reserved, 1);
}

static void operation_end(bed *b, uint64_t timestamp)
{
    atomic_store(&b->applied, timestamp + 1);
}

static partition *bed_partition(bed *b, rw_slice key)
{
    return &b->t.partitions[router_find_now(b->k, &b->t.router, key)];
}

static void trim_all(bed *b)
{
    for (unsigned i = 0; i < RW_PARTITIONS_MAX; i++) {
        partition *p = &b->t.partitions[i];
        partition_lock(b->k, p);
        while (versions_trim(&b->v, p, 7)) continue;
        partition_unlock(b->k, p);
    }
}

static bool bed_is_clean(const bed *b)
{
    return versions_count(&b->v) == 0 && versions_bytes(&b->v) == 0 && atomic_load(&b->t.pool.free_count) == b->frames_free;
}

static void pause_move(bed *b)
{
    static const _Atomic uint32_t word;
    if (b->slow_moves) kio_sleep(b->k, &word, 0, 20000);
}

/* Cuts the partition that holds key at key, under both tokens; false: it begins there already, or there are too many. */
static bool bed_cut(bed *b, rw_slice key, unsigned partitions_max)
{
    unsigned char low_bytes[2 * RW_PAGE_SIZE_MAX / 4];
    rw_slice low, high;
    partition *p = bed_partition(b, key), *q = NULL;
    router_bounds(b->k, &b->t.router, p->index, low_bytes, &low, low_bytes + RW_PAGE_SIZE_MAX / 4, &high);
    if (rw_slice_equal(low, key) || router_count(&b->t.router) >= partitions_max) return false;
    for (unsigned i = partitions_max; i-- > 1;) /* the test's own choice of a place: those in use have a root */
        if (atomic_load(&b->t.partitions[i].root) == FRAME_NONE) q = &b->t.partitions[i];
    partition_lock(b->k, p);
    partition_lock(b->k, q);
    atomic_store(&q->root, 0);
    versions_move_begin(&b->v);
    router_insert(b->k, &b->t.router, key, q->index);
    pause_move(b);
    versions_move(&b->v, p, q, key);
    versions_move_end(&b->v);
    partition_unlock(b->k, q);
    partition_unlock(b->k, p);
    return true;
}

/* Joins the partition that holds key to its left neighbour. */
static void bed_join(bed *b, rw_slice key)
{
    unsigned char low_bytes[2 * RW_PAGE_SIZE_MAX / 4];
    rw_slice low, high;
    partition *right = bed_partition(b, key);
    router_bounds(b->k, &b->t.router, right->index, low_bytes, &low, low_bytes + RW_PAGE_SIZE_MAX / 4, &high);
    if (low.size == 0) return;
    partition *left = &b->t.partitions[router_find_before(&b->t.router, low)];
    partition_lock(b->k, left);
    partition_lock(b->k, right);
    versions_move_begin(&b->v);
    router_remove(b->k, &b->t.router, right->index);
    pause_move(b);
    versions_move(&b->v, right, left, low);
    versions_move_end(&b->v);
    store_retired_move(&left->retired, &right->retired);
    atomic_store(&right->root, FRAME_NONE);
    partition_unlock(b->k, right);
    partition_unlock(b->k, left);
}

/* ---- the model: all writes that ever were ------------------------------------------------------------------------ */

#define KEYS 90u
#define WRITES_MAX 12000u
#define OPEN_MAX 12u
#define PARTITIONS_MAX 12u

typedef struct {
    uint64_t timestamp;
    uint32_t key;
    uint32_t before;               /* which value it replaced; 0: none */
    uint32_t previous;             /* the write of the same key before it, + 1 */
    bool kept;                     /* its extent went to the version */
    bool retired;
} write_record;

typedef struct {
    bed *b;
    rw_random random;
    unsigned char key_bytes[KEYS][KEY_BYTES_MAX];
    size_t key_size[KEYS];
    uint32_t value[KEYS];          /* the newest; 0: absent */
    uint32_t next_value, writes;
    uint32_t extent_of[WRITES_MAX * 2];   /* by value: the write that replaced it, + 1 */
    write_record write[WRITES_MAX];
    uint32_t last_write[KEYS];     /* + 1 */
    snapshot open[OPEN_MAX];
    bool is_open[OPEN_MAX];
    uint64_t given_up;
    uint32_t partitions_most;
} model;

static uint64_t below(model *m, uint64_t bound)
{
    return rw_random_below(&m->random, bound);
}

static int sized_compare(const void *a, const void *b)
{
    const unsigned char *x = a, *y = b;
    return rw_slice_compare(rw_slice_of(x + 1, x[0]), rw_slice_of(y + 1, y[0]));
}

static rw_slice key_of(const model *m, uint32_t i)
{
    return rw_slice_of(m->key_bytes[i], m->key_size[i]);
}

/* Short ones that are each other's beginnings, with zeros at the end; long ones that share much. In order, no two alike. */
static void keys_make(model *m)
{
    static unsigned char drawn[KEYS * 4][256];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < KEYS * 4; i++) {
        unsigned char *key = drawn[i];
        size_t shared = below(m, 3) == 0 ? 40 + below(m, 150) : below(m, 6);
        memset(key, 0, sizeof drawn[i]);
        memcpy(key + 1, "\0\0\0\1", 4);
        memset(key + 5, 'x', shared);
        key[0] = (unsigned char)(4 + shared + below(m, 4));
        for (size_t at = 5 + shared; at < 1 + (size_t)key[0]; at++) key[at] = (unsigned char)("\0\1x\xff"[below(m, 4)]);
        if (below(m, 20) == 0) key[0] = (unsigned char)(1 + below(m, 8)); /* no bucket, or half of one: bounds may look like that */
    }
    qsort(drawn, KEYS * 4, sizeof drawn[0], sized_compare);
    for (uint32_t i = 0; i < KEYS * 4 && kept < KEYS; i++) {
        if (i > 0 && sized_compare(drawn[i - 1], drawn[i]) == 0) continue;
        if (KEYS * 4 - i > KEYS - kept + KEYS && below(m, 2) == 0) continue;
        m->key_size[kept] = drawn[i][0];
        memcpy(m->key_bytes[kept++], drawn[i] + 1, drawn[i][0]);
    }
    must(kept == KEYS, "enough keys");
}

static bool value_is_extent(uint32_t number)
{
    return number % 5 == 0;
}

/* Every extent has a place of its own, by which it is known when it is retired. */
static rw_slice value_make(uint32_t number, unsigned char buffer[1000])
{
    if (value_is_extent(number)) {
        extent_ref extent = {.address = (uint64_t)SEGMENT_BLOCKS + number, .length = 5000 + number, .checksum = number};
        memcpy(buffer, &extent, sizeof extent);
        return rw_slice_of(buffer, sizeof extent);
    }
    size_t size = number % 7 == 0 ? number % 900 : number % 60;
    for (size_t i = 0; i < size; i++) buffer[i] = (unsigned char)(number + i);
    return rw_slice_of(buffer, size);
}

static void write_one(model *m, uint32_t key, uint64_t timestamp, uint32_t value)
{
    unsigned char buffer[1000];
    bed *b = m->b;
    uint32_t before = m->value[key];
    partition *p = bed_partition(b, key_of(m, key));
    must(m->writes < WRITES_MAX, "room for writes");
    write_record *w = &m->write[m->writes++];
    *w = (write_record){.timestamp = timestamp, .key = key, .before = before, .previous = m->last_write[key]};
    m->last_write[key] = m->writes;
    partition_lock(b->k, p);
    if (versions_wanted(&b->v)) {
        version_image image = {.present = before != 0, .is_extent = before != 0 && value_is_extent(before)};
        if (image.present) image.value = value_make(before, buffer);
        w->kept = versions_record(&b->v, p, key_of(m, key), timestamp, &image);
        must(!w->kept || image.is_extent, "only extents are kept");
        if (w->kept) m->extent_of[before] = m->writes;
    }
    m->value[key] = value;
    partition_unlock(b->k, p);
    must(versions_bytes(&b->v) <= 2 * b->v.bytes_max, "twice the limit is never passed");
}

/* A put, a delete, or the deletion of a range, which is one operation. */
static void write_some(model *m)
{
    uint64_t timestamp = operation_begin(m->b);
    uint32_t key = (uint32_t)(below(m, 3) == 0 ? below(m, KEYS) : below(m, 6) * (KEYS / 6));
    if (below(m, 20) == 0) {
        for (uint32_t i = key, end = RW_MIN(KEYS, key + 10); i < end; i++)
            if (m->value[i] != 0) write_one(m, i, timestamp, 0);
    } else if (m->value[key] != 0 && below(m, 4) == 0) write_one(m, key, timestamp, 0);
    else write_one(m, key, timestamp, ++m->next_value);
    operation_end(m->b, timestamp);
}

/* The first write at or after since. */
static const write_record *model_written(const model *m, uint32_t key, uint64_t since)
{
    const write_record *first = NULL;
    for (uint32_t i = m->last_write[key]; i != 0 && m->write[i - 1].timestamp >= since; i = m->write[i - 1].previous) first = &m->write[i - 1];
    return first;
}

/* ---- the model: checks ------------------------------------------------------------------------------------------- */

static void check_image(const model *m, uint32_t number, version_state state, rw_slice value, const extent_ref *extent)
{
    unsigned char expected[1000];
    rw_slice image = value_make(number, expected);
    if (number == 0) {
        must(state == VERSION_ABSENT, "the key was not there");
    } else if (value_is_extent(number)) {
        must(state == VERSION_EXTENT && rw_slice_equal(rw_slice_of(extent, sizeof *extent), image), "the extent it was");
        must(m->extent_of[number] != 0 && !m->write[m->extent_of[number] - 1].retired, "which is there still");
    } else {
        must(state == VERSION_VALUE && rw_slice_equal(value, image), "the value it was");
    }
}

static void check_key(model *m, uint32_t key, uint64_t since)
{
    unsigned char buffer[1000];
    size_t size = 0;
    extent_ref extent;
    const write_record *w = model_written(m, key, since);
    version_state state = versions_find(&m->b->v, key_of(m, key), since, buffer, sizeof buffer, &size, &extent);
    must((state == VERSION_NONE) == (w == NULL), "the store knows whether the key was written");
    must(versions_written_since(&m->b->v, bed_partition(m->b, key_of(m, key)), key_of(m, key), since) == (w != NULL), "and says so");
    if (w != NULL) check_image(m, w->before, state, rw_slice_of(buffer, size), &extent);
}

static void check_overlay(model *m, uint32_t from, uint32_t to, uint64_t since, const version_overlay *o)
{
    unsigned at = 0;
    for (uint32_t key = from; key < to; key++) {
        const write_record *w = model_written(m, key, since);
        if (w == NULL) continue;
        must(at < o->count && rw_slice_equal(version_overlay_key(o, at), key_of(m, key)), "a range has its keys in order");
        const struct version_entry *entry = &o->entries[at];
        rw_slice value = version_overlay_value(o, at++);
        extent_ref extent = {0};
        if (entry->is_extent) memcpy(&extent, value.data, sizeof extent);
        check_image(m, w->before, !entry->present ? VERSION_ABSENT : entry->is_extent ? VERSION_EXTENT : VERSION_VALUE, value, &extent);
    }
    must(at == o->count, "and no others");
}

static void check_range(model *m, uint64_t since)
{
    static version_overlay overlay;
    uint32_t from = (uint32_t)below(m, KEYS), to = from + (uint32_t)below(m, KEYS + 1 - from);
    bool complete = false, written = false;
    rw_slice end = to == KEYS ? rw_slice_of("", 0) : key_of(m, to);
    must(versions_collect(&m->b->v, key_of(m, from), end, below(m, 2) == 0, since, &overlay, &complete) == 0 && complete, "collect a range");
    check_overlay(m, from, to, since, &overlay);
    partition *p = bed_partition(m->b, key_of(m, from));
    unsigned char found[KEY_BYTES_MAX];
    size_t size = 0;
    bool hit = versions_range_written_since(&m->b->v, p, key_of(m, from), end, since, found, &size);
    for (uint32_t key = from; key < to; key++) {
        const write_record *w = bed_partition(m->b, key_of(m, key)) == p ? model_written(m, key, since) : NULL;
        if (w == NULL) continue;
        written = true;
        if (hit && rw_slice_equal(rw_slice_of(found, size), key_of(m, key))) size = KEY_BYTES_MAX + 1;
    }
    must(hit == written && (!hit || size == KEY_BYTES_MAX + 1), "whether a range was written, and which key");
    if (below(m, 200) == 0) version_overlay_free(&overlay);
}

static void check_snapshots(model *m, bool all)
{
    for (unsigned i = 0; i < OPEN_MAX; i++) {
        if (!m->is_open[i] || snapshots_is_lost(&m->b->s, m->open[i].timestamp)) continue;
        if (all)
            for (uint32_t key = 0; key < KEYS; key++) check_key(m, key, m->open[i].timestamp);
        else check_key(m, (uint32_t)below(m, KEYS), m->open[i].timestamp);
        check_range(m, m->open[i].timestamp);
    }
}

/* Each extent that a version had comes back once, with the blocks that it has. */
static void check_retired(model *m)
{
    for (unsigned i = 0; i < PARTITIONS_MAX; i++) {
        store_retired *retired = &m->b->t.partitions[i].retired;
        for (uint32_t n = 0; n < retired->count; n++) {
            uint32_t number = (uint32_t)(retired->runs[n].address - SEGMENT_BLOCKS);
            must(number < RW_ARRAY_SIZE(m->extent_of) && m->extent_of[number] != 0, "what is retired was kept");
            write_record *w = &m->write[m->extent_of[number] - 1];
            must(w->kept && !w->retired && retired->runs[n].blocks == extent_blocks((uint32_t)m->key_size[w->key], 5000 + number), "and is retired once");
            w->retired = true;
        }
        retired->count = 0;
        retired->blocks = 0;
    }
}

/* ---- the model: runs --------------------------------------------------------------------------------------------- */

static void snapshot_step(model *m)
{
    unsigned i = (unsigned)below(m, OPEN_MAX);
    if (m->is_open[i] && i > 0 && below(m, 3) > 0) {
        snapshots_end(&m->b->s, &m->open[i]);
        m->is_open[i] = false;
    } else if (m->is_open[i] && below(m, 20) == 0) { /* the first one stays long */
        snapshots_end(&m->b->s, &m->open[i]);
        m->is_open[i] = false;
    } else if (!m->is_open[i]) {
        snapshots_begin(&m->b->s, &m->open[i], i, bed_moment, m->b);
        m->is_open[i] = true;
    }
}

static void model_step(model *m)
{
    uint64_t choice = below(m, 100);
    partition *p = bed_partition(m->b, key_of(m, (uint32_t)below(m, KEYS)));
    if (choice < 75) write_some(m);
    else if (choice < 88) snapshot_step(m);
    else if (choice < 92) bed_cut(m->b, key_of(m, (uint32_t)below(m, KEYS)), PARTITIONS_MAX);
    else if (choice < 95) bed_join(m->b, key_of(m, (uint32_t)below(m, KEYS)));
    else if (choice < 98) {
        partition_lock(m->b->k, p);
        bool wanted = versions_wants_trim(&m->b->v, p);
        uint64_t count = versions_count(&m->b->v);
        versions_trim(&m->b->v, p, 3);
        must(wanted == (versions_count(&m->b->v) < count), "whether there is something to trim");
        partition_unlock(m->b->k, p);
    } else if (choice == 98 && below(m, 10) == 0) snapshots_give_up_oldest(&m->b->s);
    m->partitions_most = RW_MAX(m->partitions_most, router_count(&m->b->t.router));
}

static void test_model(uint64_t *given_up)
{
    model *m = calloc(1, sizeof *m);
    must(m != NULL, "memory");
    rw_random_seed(&m->random, seed);
    m->b = bed_make(seed % 3 == 0 ? 16 * PAGE_BYTES : CACHE_BYTES / 4);
    keys_make(m);
    while (m->writes < WRITES_MAX - 20) {
        model_step(m);
        check_retired(m);
        if (below(m, 8) == 0) check_snapshots(m, below(m, 30) == 0);
    }
    check_snapshots(m, true);
    for (unsigned i = 0; i < OPEN_MAX; i++)
        if (m->is_open[i]) snapshots_end(&m->b->s, &m->open[i]);
    trim_all(m->b);
    check_retired(m);
    for (uint32_t i = 0; i < m->writes; i++) must(m->write[i].kept == m->write[i].retired, "every extent that was kept is retired in the end");
    must(bed_is_clean(m->b), "no version and no frame is left");
    must(m->partitions_most > 3, "partitions were cut");
    *given_up += m->b->s.given_up_count;
    bed_end(m->b);
    free(m);
}

/* ---- long ranges ------------------------------------------------------------------------------------------------- */

#define MANY 2000u

static rw_slice number_key(uint32_t number, unsigned char buffer[16])
{
    memcpy(buffer, "\0\0\0\2", 4);
    snprintf((char *)buffer + 4, 12, "%06u", number);
    return rw_slice_of(buffer, 10);
}

static uint32_t key_number(rw_slice key)
{
    char digits[7] = {0};
    must(key.size == 10, "a key as the test made it");
    memcpy(digits, (const char *)key.data + 4, 6);
    return (uint32_t)strtoul(digits, NULL, 10);
}

/* Puts what an operation replaced of the key with this number into the store: value. */
static bool record_number(bed *b, uint32_t number, const char *value)
{
    unsigned char key[16];
    uint64_t timestamp = operation_begin(b);
    partition *p = bed_partition(b, number_key(number, key));
    version_image image = {.present = true, .value = rw_slice_of(value, strlen(value))};
    partition_lock(b->k, p);
    versions_record(&b->v, p, number_key(number, key), timestamp, &image);
    partition_unlock(b->k, p);
    operation_end(b, timestamp);
    return versions_written_since(&b->v, p, number_key(number, key), timestamp);
}

/* Goes over all of [from, end) in as many overlays as it takes. Returns the number of keys; 0 when one was wrong. Every third key was written since. */
static uint32_t page_through(bed *b, uint64_t since, bool backwards)
{
    version_overlay o = {0};
    unsigned char bound[16], key[16];
    uint32_t low = 0, high = MANY, seen = 0;
    bool complete = false;
    while (!complete) {
        rw_slice from = number_key(low, bound), to = number_key(high, key);
        must(versions_collect(&b->v, from, to, backwards, since, &o, &complete) == 0, "collect");
        if (o.count > VERSION_OVERLAY_MAX || (!complete && o.count != VERSION_OVERLAY_MAX)) return 0;
        for (unsigned i = 0; i < o.count; i++) {
            uint32_t number = key_number(version_overlay_key(&o, i));
            uint32_t expected = backwards ? (high - 1) / 3 * 3 - 3 * (o.count - 1 - i) : (low + 2) / 3 * 3 + 3 * i;
            if (number != expected || !rw_slice_equal(version_overlay_value(&o, i), rw_slice_of("second", 6))) return 0;
        }
        seen += o.count;
        if (o.count == 0) break;
        rw_slice last = version_overlay_key(&o, backwards ? 0 : o.count - 1);
        uint32_t number = key_number(last);
        if (backwards) high = number;
        else low = number + 1;
    }
    version_overlay_free(&o);
    return seen;
}

static void test_long_range(void)
{
    bed *b = bed_make(CACHE_BYTES);
    snapshot old, new;
    unsigned char key[16];
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    for (uint32_t i = 0; i < MANY; i++) record_number(b, i, "first");
    snapshots_begin(&b->s, &new, 0, bed_moment, b);
    for (uint32_t i = 0; i < MANY; i += 3)
        for (unsigned n = 0; n < 12; n++) record_number(b, i, n == 0 ? "second" : "later"); /* only the first of them is needed */
    tap_ok(versions_count(&b->v) == MANY + (MANY + 2) / 3, "a version that no snapshot needs is not recorded");
    for (uint32_t i = 300; i < MANY; i += 450) bed_cut(b, number_key(i, key), PARTITIONS_MAX);
    tap_ok(router_count(&b->t.router) == 5 && page_through(b, new.timestamp, false) == (MANY + 2) / 3, "a long range over several partitions, forwards");
    tap_ok(page_through(b, new.timestamp, true) == (MANY + 2) / 3, "and backwards");
    version_overlay o = {0};
    bool complete = false;
    must(versions_collect(&b->v, rw_slice_of("", 0), rw_slice_of("", 0), true, old.timestamp, &o, &complete) == 0, "collect");
    tap_ok(!complete && o.count == VERSION_OVERLAY_MAX && rw_slice_equal(version_overlay_key(&o, o.count - 1), number_key(MANY - 1, key)), "from the end of all");
    version_overlay_free(&o);
    snapshots_end(&b->s, &new);
    for (uint32_t i = 0; i < MANY; i += 3) record_number(b, i, "later");
    snapshots_end(&b->s, &old);
    trim_all(b);
    tap_ok(bed_is_clean(b), "all goes when the snapshots have ended");
    bed_end(b);
}

/* A key that is written again and again, while short snapshots come and go beside a long one: what only they needed goes with them. */
static void test_hot_key(void)
{
    bed *b = bed_make(CACHE_BYTES);
    snapshot old, new[20];
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    for (unsigned i = 0; i < 5000; i++) {
        if (i >= 20) snapshots_end(&b->s, &new[i % 20]);
        snapshots_begin(&b->s, &new[i % 20], 0, bed_moment, b);
        record_number(b, 1, "hot");
    }
    tap_ok(versions_count(&b->v) >= 20 && versions_count(&b->v) < 60, "%llu versions of a hot key for 21 snapshots", (unsigned long long)versions_count(&b->v));
    for (unsigned i = 0; i < 20; i++) snapshots_end(&b->s, &new[i]);
    snapshots_end(&b->s, &old);
    trim_all(b);
    tap_ok(bed_is_clean(b), "none of them stays");
    bed_end(b);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void test_bytes_max(void)
{
    bed *b = bed_make(32 * PAGE_BYTES);
    snapshot old, new;
    static char value[400];
    unsigned char key[16];
    memset(value, 'v', sizeof value - 1);
    for (uint32_t i = 1000; i < 4000; i += 1000) bed_cut(b, number_key(i, key), PARTITIONS_MAX);
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    uint32_t written = 0;
    while (versions_bytes(&b->v) <= 16 * PAGE_BYTES) record_number(b, written++ * 37 % 4000, value);
    must(!old.given_up, "half of the memory is no reason");
    snapshots_begin(&b->s, &new, 0, bed_moment, b);
    while (!old.given_up) record_number(b, written++ * 37 % 4000, value);
    tap_ok(snapshots_is_lost(&b->s, old.timestamp) && !new.given_up && !snapshots_is_lost(&b->s, new.timestamp),
           "above its limit the store gives up the oldest snapshot");
    uint64_t most = 0;
    for (unsigned i = 0; i < 40; i++) {
        record_number(b, 4000 + i, value); /* in the last partition: the others' share is trimmed from there */
        most = RW_MAX(most, versions_bytes(&b->v));
    }
    tap_ok(!new.given_up && versions_bytes(&b->v) <= 32 * PAGE_BYTES, "what that sets free in all partitions is enough for the next one");
    for (unsigned i = 0; i < 3000; i++) {
        if (new.given_up) {
            snapshots_end(&b->s, &new);
            snapshots_begin(&b->s, &new, 0, bed_moment, b);
        }
        record_number(b, written++ * 37 % 4000, value);
        most = RW_MAX(most, versions_bytes(&b->v));
    }
    tap_ok(b->s.given_up_count > 5 && most <= 34 * PAGE_BYTES, "and so on: never more than %llu pages", (unsigned long long)(most / PAGE_BYTES));
    snapshots_end(&b->s, &old);
    snapshots_end(&b->s, &new);
    trim_all(b);
    tap_ok(bed_is_clean(b), "all goes in the end");
    bed_end(b);
}

/* What could go stands in a partition whose token is taken: the limit is passed, but not twice. */
static void test_bytes_max_held(void)
{
    bed *b = bed_make(32 * PAGE_BYTES);
    snapshot old, new;
    static char value[400];
    unsigned char key[16];
    uint64_t most = 0;
    memset(value, 'v', sizeof value - 1);
    bed_cut(b, number_key(5000, key), PARTITIONS_MAX);
    partition *held = bed_partition(b, number_key(5000, key));
    snapshots_begin(&b->s, &old, 0, bed_moment, b);
    for (uint32_t i = 0; versions_bytes(&b->v) < 20 * PAGE_BYTES; i++) record_number(b, 5000 + i, value);
    snapshots_begin(&b->s, &new, 0, bed_moment, b);
    snapshots_end(&b->s, &old);
    partition_lock(b->k, held);
    for (uint32_t i = 0; i < 2000 && !new.given_up; i++) {
        record_number(b, i, value);
        most = RW_MAX(most, versions_bytes(&b->v));
    }
    partition_unlock(b->k, held);
    tap_ok(new.given_up && most == 64 * PAGE_BYTES, "twice the limit is the end of all snapshots");
    snapshots_end(&b->s, &new);
    trim_all(b);
    tap_ok(bed_is_clean(b), "and all goes in the end");
    bed_end(b);
}

static void test_no_memory(void)
{
    bed *b = bed_make(CACHE_BYTES);
    static uint32_t taken[CACHE_BYTES / PAGE_BYTES];
    uint32_t count = 0, f;
    snapshot one;
    unsigned char key[16];
    partition *p = bed_partition(b, number_key(1, key));
    size_t size = versions_size(&b->v, 10, 6);
    snapshots_begin(&b->s, &one, 0, bed_moment, b);
    tap_ok(!versions_has_room(&b->v, p, size), "an empty store has no room");
    while ((f = pool_frame_try(&b->t.pool)) != FRAME_NONE) taken[count++] = f;
    must(count > 2, "some frames");
    versions_feed(&b->v, p, taken[--count]);
    tap_ok(versions_has_room(&b->v, p, size) && record_number(b, 1, "second") && !one.given_up, "it has when it was fed a frame");
    uint32_t n = 1;
    while (versions_has_room(&b->v, p, size)) must(record_number(b, ++n, "second"), "what has room is recorded");
    tap_ok(versions_bytes(&b->v) == PAGE_BYTES && n > PAGE_BYTES / 200, "%u versions in one frame", n);
    tap_ok(!record_number(b, ++n, "second") && one.given_up && snapshots_is_lost(&b->s, one.timestamp), "without memory the snapshots are given up");
    snapshots_end(&b->s, &one);
    while (count > 0) pool_frame_free(&b->t.pool, taken[--count]);
    trim_all(b);
    tap_ok(bed_is_clean(b), "the frame goes back");
    bed_end(b);
}

/* ---- readers beside a writer ------------------------------------------------------------------------------------- */

/* A value is the timestamp of the write that made it, so what a snapshot sees is known: the newest below it. */
#define STAGE_KEYS 48u
#define STAGE_WRITES 40000u
#define READERS 3u

static struct {
    bed *b;
    _Atomic uint64_t value[STAGE_KEYS];        /* the leaf: 0: absent; the lowest bit: deleted by the write */
    _Atomic uint32_t key[STAGE_WRITES + 200];  /* of each write, by timestamp, + 1 */
    _Atomic uint64_t wrong, reads, old_values, lost, ranges;
    _Atomic uint32_t done;
} stage;

/* What the snapshot must find: two for each timestamp, so that a deletion has a number, too. 0: absent. */
static uint64_t stage_expected(uint32_t key, uint64_t since)
{
    for (uint64_t t = since; t-- > 100;)
        if (atomic_load_explicit(&stage.key[t], memory_order_relaxed) == key + 1) return t % 4 == 0 ? 0 : t;
    return 0;
}

static void stage_write(rw_random *random)
{
    unsigned char bytes[16];
    bed *b = stage.b;
    uint32_t key = (uint32_t)rw_random_below(random, STAGE_KEYS);
    partition *p = bed_partition(b, number_key(key, bytes));
    partition_lock(b->k, p);
    uint64_t timestamp = operation_begin(b), before = atomic_load_explicit(&stage.value[key], memory_order_relaxed);
    version_image image = {.present = before != 0, .value = rw_slice_of(&before, sizeof before)};
    atomic_store_explicit(&stage.key[timestamp], key + 1, memory_order_relaxed);
    if (versions_wanted(&b->v)) versions_record(&b->v, p, number_key(key, bytes), timestamp, &image);
    atomic_store_explicit(&stage.value[key], timestamp % 4 == 0 ? 0 : timestamp, memory_order_release);
    operation_end(b, timestamp);
    partition_unlock(b->k, p);
}

static void stage_writer(void *arg)
{
    rw_random random;
    unsigned char bytes[16];
    (void)arg;
    rw_random_seed(&random, seed);
    for (unsigned i = 0; i < STAGE_WRITES; i++) {
        stage_write(&random);
        rw_slice key = number_key((uint32_t)rw_random_below(&random, STAGE_KEYS), bytes);
        uint64_t choice = rw_random_below(&random, 100);
        if (choice == 0) bed_cut(stage.b, key, 6);
        else if (choice == 1) bed_join(stage.b, key);
        while (atomic_load_explicit(&stage.reads, memory_order_relaxed) < i / 8) kio_yield(stage.b->k);
    }
    atomic_store(&stage.done, 1);
}

/* A worker, as it were. */
static void stage_trimmer(void *arg)
{
    bed *b = stage.b;
    (void)arg;
    while (atomic_load(&stage.done) == 0) {
        for (unsigned i = 0; i < 6; i++) {
            partition *p = &b->t.partitions[i];
            if (!versions_wants_trim(&b->v, p) || !partition_try(p)) continue;
            versions_trim(&b->v, p, 20);
            partition_unlock(b->k, p);
        }
        kio_yield(b->k);
    }
}

static bool stage_read(uint32_t key, uint64_t since, uint64_t expected)
{
    unsigned char bytes[16];
    uint64_t old = 0, seen = atomic_load_explicit(&stage.value[key], memory_order_acquire);
    size_t size = 0;
    extent_ref extent;
    version_state state = versions_find(&stage.b->v, number_key(key, bytes), since, &old, sizeof old, &size, &extent);
    if (state != VERSION_NONE) atomic_fetch_add_explicit(&stage.old_values, 1, memory_order_relaxed);
    if (state == VERSION_VALUE && size != sizeof old) return false;
    if (state == VERSION_VALUE) seen = old;
    if (state == VERSION_ABSENT) seen = 0;
    return seen == expected && state != VERSION_EXTENT;
}

static bool stage_read_range(uint64_t since, bool backwards, const uint64_t *expected, version_overlay *o)
{
    uint64_t seen[STAGE_KEYS];
    bool complete = false;
    for (uint32_t key = 0; key < STAGE_KEYS; key++) seen[key] = atomic_load_explicit(&stage.value[key], memory_order_acquire);
    if (versions_collect(&stage.b->v, rw_slice_of("", 0), rw_slice_of("", 0), backwards, since, o, &complete) != 0 || !complete) return false;
    for (unsigned i = 0; i < o->count; i++) {
        uint32_t key = key_number(version_overlay_key(o, i));
        seen[key] = o->entries[i].present ? rw_load_u64(version_overlay_value(o, i).data) : 0;
    }
    atomic_fetch_add_explicit(&stage.ranges, 1, memory_order_relaxed);
    return memcmp(seen, expected, sizeof seen) == 0;
}

static void stage_reader(void *arg)
{
    rw_random random;
    snapshot own;
    version_overlay overlay = {0};
    rw_random_seed(&random, seed * 100 + (uintptr_t)arg);
    while (atomic_load(&stage.done) == 0) {
        uint64_t expected[STAGE_KEYS];
        snapshots_begin(&stage.b->s, &own, 0, bed_moment, stage.b);
        for (uint32_t key = 0; key < STAGE_KEYS; key++) expected[key] = stage_expected(key, own.timestamp);
        for (uint64_t i = rw_random_below(&random, 300); i > 0 && !snapshots_is_lost(&stage.b->s, own.timestamp); i--) {
            uint32_t key = (uint32_t)rw_random_below(&random, STAGE_KEYS);
            bool range = rw_random_below(&random, 20) == 0;
            bool right = range ? stage_read_range(own.timestamp, i % 2 == 0, expected, &overlay) : stage_read(key, own.timestamp, expected[key]);
            if (snapshots_is_lost(&stage.b->s, own.timestamp)) atomic_fetch_add(&stage.lost, 1);
            else if (!right) atomic_fetch_add(&stage.wrong, 1);
            atomic_fetch_add_explicit(&stage.reads, 1, memory_order_relaxed);
            kio_yield(stage.b->k);
        }
        snapshots_end(&stage.b->s, &own);
    }
    version_overlay_free(&overlay);
}

/* A reader waits for the latch of a store that a move takes its version from. */
static void move_race_reader(void *arg)
{
    snapshot *own = arg;
    if (!stage_read(1, own->timestamp, 0)) atomic_fetch_add(&stage.wrong, 1);
}

static void test_move_race(void)
{
    bed *b = stage.b = bed_make(CACHE_BYTES);
    snapshot own;
    kio_thread *reader;
    unsigned char key[16];
    snapshots_begin(&b->s, &own, 0, bed_moment, b);
    uint64_t timestamp = operation_begin(b);
    partition *p = bed_partition(b, number_key(1, key)), *q = &b->t.partitions[p->index + 1u];
    versions_record(&b->v, p, number_key(1, key), timestamp, &(version_image){.present = false});
    atomic_store(&stage.value[1], timestamp);
    operation_end(b, timestamp);
    for (unsigned i = 0; i < 50; i++) {
        kio_mutex *latch = &b->v.stores[p->index].latch;
        kio_mutex_lock(b->k, latch);
        must(kio_thread_start(b->k, "reader", -1, move_race_reader, &own, &reader) == 0, "thread");
        while (atomic_load(&latch->state) != 2) kio_yield(b->k);
        versions_move_begin(&b->v);
        router_insert(b->k, &b->t.router, number_key(1, key), q->index);
        kio_mutex_unlock(b->k, latch);
        versions_move(&b->v, p, q, number_key(1, key)); /* most often before the reader is awake */
        versions_move_end(&b->v);
        kio_thread_join(b->k, reader);
        versions_move_begin(&b->v);
        router_remove(b->k, &b->t.router, q->index);
        versions_move(&b->v, q, p, number_key(1, key));
        versions_move_end(&b->v);
    }
    tap_ok(stage.wrong == 0 && stage.old_values == 50, "who has waited for a store looks again where the version is now");
    snapshots_end(&b->s, &own);
    trim_all(b);
    bed_end(b);
}

static void test_threads(uint64_t bytes_max)
{
    kio_thread *threads[READERS + 2];
    memset(&stage, 0, sizeof stage);
    stage.b = bed_make(bytes_max);
    stage.b->slow_moves = true;
    kio *k = stage.b->k;
    must(kio_thread_start(k, "writer", -1, stage_writer, NULL, &threads[READERS]) == 0, "thread");
    must(kio_thread_start(k, "trimmer", -1, stage_trimmer, NULL, &threads[READERS + 1]) == 0, "thread");
    for (uintptr_t i = 0; i < READERS; i++) must(kio_thread_start(k, "reader", -1, stage_reader, (void *)i, &threads[i]) == 0, "thread");
    for (unsigned i = 0; i < READERS + 2; i++) kio_thread_join(k, threads[i]);
    tap_ok(stage.wrong == 0 && stage.reads > 0 && stage.ranges > 0, "%llu reads beside a writer, %llu of old values, %llu of ranges, %llu lost",
           (unsigned long long)stage.reads, (unsigned long long)stage.old_values, (unsigned long long)stage.ranges, (unsigned long long)stage.lost);
    trim_all(stage.b);
    tap_ok(bed_is_clean(stage.b), "nothing is left");
    bed_end(stage.b);
}

int main(void)
{
    const char *given = getenv("VERSIONS_SEED");
    uint64_t given_up = 0, first = given == NULL ? 1 : strtoull(given, NULL, 10), last = given == NULL ? 9 : first;
    for (seed = first; seed <= last; seed++) test_model(&given_up);
    tap_ok(true, "as a record of all writes has it, %llu snapshots given up", (unsigned long long)given_up);
    if (given == NULL) tap_ok(given_up > 0, "some were");
    test_long_range();
    test_hot_key();
    test_bytes_max();
    test_bytes_max_held();
    test_no_memory();
    test_move_race();
    test_threads(CACHE_BYTES / 2);
    test_threads(5 * PAGE_BYTES);
    return tap_done();
}
