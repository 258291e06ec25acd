/*
 * How full leaves are: where records come in at random some room is left for more; where next to none come in any more leaves are filled, so that the same records take fewer pages; and what comes
 * after all finds its place.
 */
#define RECORDS 60000u             /* several times the cache */

#include "tests/api/versioned.h"
#include "tests/support/dirs.h"

#define SCATTER 7919u              /* no factor of RECORDS */
#define LOADED (RECORDS / 5 * 4)   /* records whose number divides by 5 come later */
#define ROUNDS 4u

static bool comes_later(uint64_t number) { return number % 5 == 0; }

/* All that are there, in an order in which neighbours are far apart. */
static unsigned put_all(uint32_t version, bool later_ones)
{
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) {
        uint64_t number = i * SCATTER % RECORDS;
        if (comes_later(number) == later_ones) good += put(number, version);
    }
    return good;
}

static uint64_t live_bytes(void)
{
    CHECK_OK(rw_compact(db)); /* nothing is pending, or spilled */
    return stats_of(db).data_live_bytes;
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    if (!dir_make(dir, "density")) return 1;
    db = open_or_exit(dir, &options);
    for (uint64_t i = 0; i < RECORDS; i++) version_of[i] = GONE;
    tap_ok(put_all(0, false) == LOADED, "%u records, in no order", LOADED);
    uint64_t loaded = live_bytes();
    unsigned good = 0;
    for (uint32_t round = 1; round <= ROUNDS; round++) { /* versions divide by 7: lengths stay */
        good += put_all(7 * round, false);
        CHECK_OK(rw_compact(db));
    }
    uint64_t steady = live_bytes();
    tap_ok(good == ROUNDS * LOADED && steady * 100 < loaded * 93, "overwritten, they take %llu bytes instead of %llu", (unsigned long long)steady, (unsigned long long)loaded);
    good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    tap_ok(good == RECORDS, "all of them are there");
    tap_ok(put_all(7, true) == RECORDS - LOADED, "%u more, between them", RECORDS - LOADED);
    uint64_t grown = live_bytes();
    tap_ok(grown > steady && grown * 100 < loaded * 160, "for which leaves are split: %llu bytes", (unsigned long long)grown);
    good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    tap_ok(good == RECORDS, "and all are there");
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(dir, NULL, NULL) == 0, "the closed files are sound");
    dir_remove(dir);
    return tap_done();
}
