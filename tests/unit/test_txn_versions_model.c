/*
 * The version store against a plain record of all writes, while snapshots come, go and are given up and partitions are cut and joined.
 * VERSIONS_SEED replays one run.
 */
#include "tests/unit/txn_versions_test.h"

/* ---- the model: all writes that ever were ------------------------------------------------------------------------ */

#define KEY_BYTES_MAX 600u
#define SEGMENT_BLOCKS (RW_SEGMENT_BYTES / RW_BLOCK_SIZE)
#define KEYS 90u
#define WRITES_MAX 12000u
#define OPEN_MAX 12u

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
        store_retired *retired = &m->b->t.partitions[i].extents;
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

int main(void)
{
    const char *given = getenv("VERSIONS_SEED");
    uint64_t given_up = 0, first = given == NULL ? 1 : strtoull(given, NULL, 10), last = given == NULL ? 9 : first;
    for (seed = first; seed <= last; seed++) test_model(&given_up);
    tap_ok(true, "as a record of all writes has it, %llu snapshots given up", (unsigned long long)given_up);
    if (given == NULL) tap_ok(given_up > 0, "some were");
    return tap_done();
}
