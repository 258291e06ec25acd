/* Helpers of the log's tests: records that tell what they are, and a model of what was appended. */
#ifndef TESTS_WAL_TEST_H
#define TESTS_WAL_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/random.h"
#include "tests/sim/sim.h"
#include "tests/support/tap.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

#define WAL_TEST_DATABASE UINT64_C(0x1122334455667788)
#define WAL_TEST_HEADER 16u

/* Body: generation, thread, number, size, then bytes that follow from these. */
static inline void wal_test_body(unsigned char *body, uint32_t generation, uint32_t thread, uint32_t number, uint32_t size)
{
    rw_store_u32(body, generation);
    rw_store_u32(body + 4, thread);
    rw_store_u32(body + 8, number);
    rw_store_u32(body + 12, size);
    for (uint32_t i = WAL_TEST_HEADER; i < size; i++) body[i] = (unsigned char)(i * 7 + number * 31 + thread * 101 + generation * 13 + (i >> 8));
}

static inline bool wal_test_body_sound(rw_slice body)
{
    if (body.size < WAL_TEST_HEADER || rw_load_u32((const char *)body.data + 12) != body.size) return false;
    unsigned char *expected = malloc(body.size);
    const char *bytes = body.data;
    wal_test_body(expected, rw_load_u32(bytes), rw_load_u32(bytes + 4), rw_load_u32(bytes + 8), (uint32_t)body.size);
    bool same = memcmp(expected, body.data, body.size) == 0;
    free(expected);
    return same;
}

/* Appends a record made of three pieces. */
static inline int wal_test_append(wal *w, uint32_t generation, uint32_t thread, uint32_t number, uint32_t size, uint64_t *lsn, uint64_t *end)
{
    unsigned char *body = malloc(size);
    wal_test_body(body, generation, thread, number, size);
    uint32_t cut = WAL_TEST_HEADER + (size - WAL_TEST_HEADER) / 3;
    rw_slice pieces[3] = {{body, 5}, {body + 5, cut - 5}, {body + cut, size - cut}};
    int rc = wal_append(w, WAL_COMMIT, pieces, 3, 0, lsn, end, NULL);
    free(body);
    return rc;
}

static inline wal_options wal_test_options(void)
{
    return (wal_options){.database_id = WAL_TEST_DATABASE, .async_delay_ms = 20};
}

/* A replay that checks that records are sound and follow each other without a gap. */
typedef struct {
    uint64_t count, first_lsn, next_lsn;
    uint32_t last_number;
    bool sound;
} wal_test_seen;

static inline int wal_test_see(void *arg, const wal_record *record)
{
    wal_test_seen *seen = arg;
    if (seen->count == 0) seen->first_lsn = record->lsn;
    else if (record->lsn != seen->next_lsn) seen->sound = false;
    if (!wal_test_body_sound(record->body)) seen->sound = false;
    else seen->last_number = rw_load_u32((const char *)record->body.data + 8);
    seen->next_lsn = record->end_lsn;
    seen->count++;
    return 0;
}

/* Opens and replays; *w NULL when either fails. */
static inline int wal_test_reopen(kio *k, const char *dir, uint64_t from, uint64_t must, wal **w, wal_test_seen *seen, uint64_t *end)
{
    wal_options options = wal_test_options();
    *seen = (wal_test_seen){.sound = true};
    *w = NULL;
    int rc = wal_open(k, dir, &options, w);
    if (rc != 0) return rc;
    rc = wal_replay(*w, from, must, wal_test_see, seen, end);
    if (rc != 0) {
        wal_close(*w);
        *w = NULL;
    }
    return rc;
}

/* A new log that takes records. */
static inline wal *wal_test_create(kio *k, const char *dir)
{
    wal_options options = wal_test_options();
    wal *w = NULL;
    uint64_t end = 0;
    wal_test_seen seen = {.sound = true};
    TAP_CHECK(wal_create(k, dir, &options, &w) == 0);
    TAP_CHECK(wal_replay(w, WAL_LSN_FIRST, WAL_LSN_FIRST, wal_test_see, &seen, &end) == 0 && end == WAL_LSN_FIRST);
    TAP_CHECK(wal_start(w, end) == 0);
    return w;
}

/* Runs fn in a fresh world over the disk. */
static inline void wal_test_run(sim_disk *disk, uint64_t seed, void (*fn)(void *), void *arg, kio **k)
{
    sim_world *world = sim_world_open(disk, seed);
    *k = sim_world_kio(world);
    sim_run(world, fn, arg);
    sim_world_close(world);
}

#endif
