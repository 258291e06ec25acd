/*
 * Dead space among the pages of a partition: where few of its leaves change between two checkpoints, here some and there some, segments stay more than half full, and the partition is written again as a
 * whole to win what lies dead between its pages. Nothing is lost by that, the file stays within bounds, and it comes to an end.
 */
#define RECORDS 150000u

#include <time.h>

#include "tests/api/versioned.h"
#include "tests/support/dirs.h"

#define BLOCK 64u                  /* neighbours that change together: a few leaves */
#define PARTS 7u                   /* a checkpoint after each of so many parts of all blocks */
#define ROUNDS (2 * PARTS)
#define WAIT_MS 20000u

static unsigned part_put(uint32_t round)
{
    unsigned good = 0;
    for (uint64_t number = 0; number < RECORDS; number++)
        if (number / BLOCK % PARTS == round % PARTS) good += put(number, 7 * round); /* versions divide by 7: lengths stay */
    return good;
}

static unsigned part_size(uint32_t round)
{
    unsigned size = 0;
    for (uint64_t number = 0; number < RECORDS; number++) size += number / BLOCK % PARTS == round % PARTS;
    return size;
}

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

/* In the background: what is dead is won, then nothing is written any more. Returns how many milliseconds that took, or WAIT_MS. */
static unsigned rest(void)
{
    uint64_t before = UINT64_MAX;
    unsigned ms = 0;
    for (; ms < WAIT_MS; ms += 200) {
        rw_stats_t stats = stats_of(db);
        if (stats.partitions_rewritten > 0 && stats.page_writes == before) break;
        before = stats.page_writes;
        pause_ms(200);
    }
    return ms;
}

static unsigned all_hold(void)
{
    unsigned good = 0;
    for (uint64_t i = 0; i < RECORDS; i++) good += holds(i);
    return good;
}

int main(void)
{
    char dir[DIRS_PATH_MAX];
    rw_options options = options_small();
    unsigned good = 0, wanted = RECORDS;
    if (!dir_make(dir, "scattered")) return 1;
    db = open_or_exit(dir, &options);
    for (uint64_t i = 0; i < RECORDS; i++) version_of[i] = GONE;
    for (uint64_t i = 0; i < RECORDS; i++) good += put(i, 0);
    CHECK_OK(rw_compact(db));
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        good += part_put(round);
        wanted += part_size(round);
        CHECK_OK(rw_checkpoint(db));
    }
    tap_ok(good == wanted, "%u records, changed a seventh at a time", RECORDS);
    unsigned ms = rest();
    rw_stats_t stats = stats_of(db);
    tap_ok(ms < WAIT_MS, "the dead space among their pages is won, and then there is rest: %llu partitions, %llu segments, after %u ms", (unsigned long long)stats.partitions_rewritten,
           (unsigned long long)stats.segments_cleaned, ms);
    tap_ok(stats.data_file_bytes < 2 * stats.data_live_bytes + (8u << 20), "the file has %llu bytes, of which %llu are alive", (unsigned long long)stats.data_file_bytes,
           (unsigned long long)stats.data_live_bytes);
    tap_ok(all_hold() == RECORDS, "all of them are what they were");
    CHECK_OK(rw_close(db));
    tap_ok(rw_verify(dir, NULL, NULL) == 0, "the closed files are sound");
    db = open_or_exit(dir, &options);
    tap_ok(all_hold() == RECORDS, "opened again, too");
    CHECK_OK(rw_close(db));
    dir_remove(dir);
    return tap_done();
}
