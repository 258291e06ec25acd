/* Compares what a database holds after a crash with every state in which it may be. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "bench/crash_model.h"

enum { GETS = 200 };

typedef struct {
    char *text;
    size_t room;
} complaint_space;

#define COMPLAIN(space, ...) (snprintf((space)->text, (space)->room, __VA_ARGS__), RW_ENOTFOUND)

/* A commit's number as people read it. */
static unsigned id_round(uint64_t id)
{
    return (unsigned)(id >> 32 & 0x7fffffff) - 1;
}

static void id_text(uint64_t id, char *text, size_t room)
{
    if (id == 0) snprintf(text, room, "nothing");
    else snprintf(text, room, "the value of commit %u%s of round %u", (unsigned)id, id >> 63 ? " (rolled back)" : "", id_round(id));
}

static int record_read(rw_cursor *cursor, unsigned bucket, crash_state *found, uint64_t *records, complaint_space *space)
{
    rw_slice key, value;
    unsigned lane, number;
    int code = rw_cursor_key(cursor, &key);
    if (code == 0) code = rw_cursor_value(cursor, &value);
    if (code != 0) return code;
    if (!crash_key_parse(bucket, key, &lane, &number)) return COMPLAIN(space, "bucket %s holds a key that was never written", crash_bucket_names[bucket]);
    uint64_t id = crash_value_id(lane, bucket, number, value);
    if (id == 0) return COMPLAIN(space, "lane %u, bucket %s, key %u: the value is damaged", lane, crash_bucket_names[bucket], number);
    if (found->ids[lane][bucket][number] != 0) return COMPLAIN(space, "lane %u, bucket %s, key %u was met twice", lane, crash_bucket_names[bucket], number);
    found->ids[lane][bucket][number] = id;
    ++*records;
    return 0;
}

static int bucket_read(rw_db *db, unsigned bucket, crash_state *found, uint64_t *records, complaint_space *space)
{
    rw_bucket handle;
    rw_cursor *cursor;
    int code = rw_bucket_open(db, crash_bucket_names[bucket], 0, &handle);
    if (code == RW_ENOTFOUND) return 0; /* killed before it was made: then there is nothing in it, which the comparison will judge */
    if (code == 0) code = rw_cursor_open(db, NULL, handle, &cursor);
    if (code != 0) return code;
    int moved;
    while (code == 0 && (moved = rw_cursor_next(cursor)) != RW_ENOTFOUND) code = moved != 0 ? moved : record_read(cursor, bucket, found, records, space);
    rw_cursor_close(cursor);
    return code;
}

/* One effect of an operation that may or may not be there. */
typedef struct {
    unsigned bucket, key;
    uint64_t sequence, id;
    unsigned order; /* within the lane */
} possible;

static int possible_compare(const void *a, const void *b)
{
    const possible *x = a, *y = b;
    if (x->bucket != y->bucket) return x->bucket < y->bucket ? -1 : 1;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* The effects after the durable ones, sorted by key and then in order. */
static possible *possible_collect(const crash_bounds *bounds, unsigned lane, size_t *count)
{
    uint64_t operations = bounds->started[lane] - bounds->durable[lane];
    possible *list = malloc((operations * CRASH_EFFECTS_MAX + 1) * sizeof *list);
    *count = 0;
    if (list == NULL) return NULL;
    for (uint64_t s = bounds->durable[lane] + 1; s <= bounds->started[lane]; s++) {
        crash_operation operation;
        crash_operation_make(bounds->seed, bounds->round, lane, s, &operation);
        for (unsigned i = 0; i < operation.count; i++) {
            const crash_effect *e = &operation.effects[i];
            list[*count] = (possible){.bucket = e->bucket, .key = e->key, .sequence = s, .id = e->id, .order = (unsigned)*count};
            ++*count;
        }
    }
    qsort(list, *count, sizeof *list, possible_compare);
    return list;
}

/*
 * Of the prefixes durable .. started, those that do not explain what a key holds get a mark. The key's effects are from[0 .. count). Before
 * the first one its value is that of the durable state.
 */
static void prefixes_judge(const possible *from, size_t count, uint64_t before, uint64_t found, const crash_bounds *bounds, unsigned lane, uint32_t *wrong)
{
    uint64_t durable = bounds->durable[lane], id = before;
    size_t next = 0;
    for (uint64_t prefix = durable; prefix <= bounds->started[lane]; prefix++) {
        for (; next < count && from[next].sequence <= prefix; next++) id = from[next].id;
        if (id != found) wrong[prefix - durable]++;
    }
}

static int untouched_compare(const crash_state *expected, const crash_state *found, unsigned lane, const bool *touched, complaint_space *space)
{
    for (unsigned bucket = 0; bucket < CRASH_BUCKETS; bucket++) {
        for (unsigned key = 0; key < CRASH_KEYS; key++) {
            uint64_t want = expected->ids[lane][bucket][key], have = found->ids[lane][bucket][key];
            if (want == have || touched[bucket * CRASH_KEYS + key]) continue;
            char want_text[80], have_text[80];
            id_text(want, want_text, sizeof want_text);
            id_text(have, have_text, sizeof have_text);
            return COMPLAIN(space, "lane %u, bucket %s, key %u: holds %s where %s is durable", lane, crash_bucket_names[bucket], key, have_text, want_text);
        }
    }
    return 0;
}

static int prefix_choose(const crash_bounds *bounds, unsigned lane, const uint32_t *wrong, complaint_space *space)
{
    uint64_t durable = bounds->durable[lane], started = bounds->started[lane], nearest = durable;
    for (uint64_t prefix = durable; prefix <= started; prefix++) {
        if (wrong[prefix - durable] == 0) return 0;
        if (wrong[prefix - durable] < wrong[nearest - durable]) nearest = prefix;
    }
    return COMPLAIN(space, "lane %u: what is there is no prefix of its commits (durable up to %" PRIu64 ", begun up to %" PRIu64 "); after commit %" PRIu64
                    ", the nearest, %u keys differ: a commit is torn or lost", lane, durable, started, nearest, wrong[nearest - durable]);
}

/* expected: the state at the lane's durable bound. */
static int lane_compare(const crash_bounds *bounds, unsigned lane, const crash_state *expected, const crash_state *found, complaint_space *space)
{
    size_t count, prefixes = bounds->started[lane] - bounds->durable[lane] + 1;
    possible *list = possible_collect(bounds, lane, &count);
    bool *touched = calloc((size_t)CRASH_BUCKETS * CRASH_KEYS, sizeof *touched);
    uint32_t *wrong = calloc(prefixes, sizeof *wrong);
    int code = list == NULL || touched == NULL || wrong == NULL ? rw_error(RW_ENOMEM, "no memory to compare") : 0;
    for (size_t i = 0, end; code == 0 && i < count; i = end) {
        unsigned bucket = list[i].bucket, key = list[i].key;
        for (end = i; end < count && list[end].bucket == bucket && list[end].key == key;) end++;
        touched[bucket * CRASH_KEYS + key] = true;
        prefixes_judge(list + i, end - i, expected->ids[lane][bucket][key], found->ids[lane][bucket][key], bounds, lane, wrong);
    }
    if (code == 0) code = untouched_compare(expected, found, lane, touched, space);
    if (code == 0) code = prefix_choose(bounds, lane, wrong, space);
    free(list);
    free(touched);
    free(wrong);
    return code;
}

/* Single gets must agree with what the scan met. */
static int gets_compare(rw_db *db, const crash_bounds *bounds, const crash_state *found, complaint_space *space)
{
    rw_random random;
    rw_random_seed(&random, bounds->seed * 7 + bounds->round);
    unsigned char *buffer = malloc(CRASH_VALUE_SIZE_MAX);
    int code = buffer == NULL ? rw_error(RW_ENOMEM, "no memory for a value") : 0;
    for (int i = 0; code == 0 && i < GETS; i++) {
        unsigned lane = (unsigned)rw_random_below(&random, CRASH_LANES), key = (unsigned)rw_random_below(&random, CRASH_KEYS);
        unsigned char bytes[CRASH_KEY_SIZE_MAX];
        rw_slice name = rw_slice_of(bytes, crash_key_make(lane, 0, key, bytes));
        size_t size = CRASH_VALUE_SIZE_MAX;
        code = rw_get(db, RW_DEFAULT_BUCKET, name, buffer, &size);
        if (code != 0 && code != RW_ENOTFOUND) break;
        uint64_t id = code == 0 ? crash_value_id(lane, 0, key, rw_slice_of(buffer, size)) : 0;
        code = id == found->ids[lane][0][key] ? 0 : COMPLAIN(space, "lane %u, key %u: a get does not give what a scan gave", lane, key);
    }
    free(buffer);
    return code;
}

int crash_compare(const crash_bounds *bounds, crash_state *state, const crash_state *found, char *complaint, size_t room)
{
    complaint_space space = {.text = complaint, .room = room};
    int code = 0;
    for (unsigned lane = 0; code == 0 && lane < CRASH_LANES; lane++) {
        for (uint64_t s = 1; s <= bounds->durable[lane]; s++) {
            crash_operation operation;
            crash_operation_make(bounds->seed, bounds->round, lane, s, &operation);
            crash_state_apply(state, lane, &operation);
        }
        code = lane_compare(bounds, lane, state, found, &space);
    }
    return code;
}

int crash_check(rw_db *db, const crash_bounds *bounds, crash_state *state, uint64_t *records, char *complaint, size_t room)
{
    complaint_space space = {.text = complaint, .room = room};
    complaint[0] = '\0';
    crash_state *found = calloc(1, sizeof *found);
    int code = found == NULL ? rw_error(RW_ENOMEM, "no memory to compare") : 0;
    for (unsigned bucket = 0; code == 0 && bucket < CRASH_BUCKETS; bucket++) code = bucket_read(db, bucket, found, records, &space);
    if (code == 0) code = crash_compare(bounds, state, found, complaint, room);
    if (code == 0) code = gets_compare(db, bounds, found, &space);
    if (code == 0) *state = *found;
    free(found);
    return code;
}
