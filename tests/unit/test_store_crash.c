/*
 * Power cuts during creation and publishing, on the simulated disk. At random moments the disk is copied as a power cut would leave it, and the
 * copy is opened: it holds the image that was published last or the one on its way, every page of it intact, and it goes on from there.
 * test_store_crash [seed [rounds]] plays a run again.
 */
#include "base/memory.h"
#include "base/random.h"
#include "store/store_internal.h"
#include "tests/sim/sim.h"
#include "tests/support/tap.h"

#include <inttypes.h>

#define PARTITIONS_MAX 24u
#define PAGE_BYTES 8192u
#define DIR "/db"

/* What the writer has promised so far; the hook reads it. */
typedef struct {
    uint64_t seed;
    rw_random random;          /* the writer's */
    rw_random moments;         /* the power cuts' */
    sim_world *world;
    uint32_t rounds;
    uint64_t acknowledged;     /* checkpoint lsn of the last publish that returned; 0 none */
    uint64_t attempted;        /* of the one that began last */
    uint64_t checks, unfinished, advanced, clean;
    uint32_t wrong;
} run;

#define WRONG(r, ...) ((r)->wrong++ < 3 ? tap_diag(__VA_ARGS__) : (void)0)

/* ---- writing one image after the other ---- */

typedef struct {
    store *s;
    kio *k;
    rw_random *random;
    unsigned char *page;
    store_partition table[PARTITIONS_MAX];
    char keys[PARTITIONS_MAX][12];
    uint32_t count;
    store_retired retired;
} writer;

static int writer_page(writer *w, uint32_t i, uint64_t mark)
{
    uint64_t address;
    page_ref old = w->table[i].root;
    int result = store_allocate(w->s, STORE_PAGES, PAGE_BYTES / RW_BLOCK_SIZE, &address);
    if (result != 0) return result;
    memset(w->page, 0, PAGE_BYTES);
    for (uint32_t at = sizeof(page_header); at < PAGE_BYTES; at += 8) rw_store_u64(w->page + at, mark * 1000 + i);
    page_ref ref = store_page_seal(w->s, w->page, PAGE_BYTES, PAGE_NODE, address, 1);
    result = kio_file_write(w->k, store_file(w->s), w->page, PAGE_BYTES, address * RW_BLOCK_SIZE);
    if (result != 0) return result;
    if (!page_ref_is_none(old)) store_retire(&w->retired, page_ref_address(old), page_ref_blocks(old));
    w->table[i].root = ref;
    w->table[i].lsn = mark;
    return 0;
}

/* Writes some of the pages anew, and publishes; a part of the images cleanly. */
static int writer_publish(writer *w, uint64_t mark, bool *clean)
{
    uint32_t grown = RW_MIN(w->count + 1, PARTITIONS_MAX);
    for (uint32_t i = 0; i < grown; i++) {
        if (i < w->count && rw_random_below(w->random, 2) == 0) continue;
        if (i >= w->count) {
            snprintf(w->keys[i], sizeof w->keys[i], "%04u", i);
            w->table[i] = (store_partition){.id = i, .height = 1, .low_key = rw_slice_of(w->keys[i], i == 0 ? 0 : 4)};
        }
        int result = writer_page(w, i, mark);
        if (result != 0) return result;
    }
    w->count = grown;
    store_image image = {
        .checkpoint_lsn = mark, .durable_lsn = mark, .partition_count = grown, .next_partition_id = PARTITIONS_MAX, .partitions = w->table};
    int result = store_publish(w->s, &image, false);
    if (result != 0) return result;
    store_release(w->s, &w->retired);
    *clean = rw_random_below(w->random, 3) == 0;
    if (!*clean) return 0;
    result = store_publish(w->s, &image, true);
    return result != 0 ? result : store_publish(w->s, &image, false);
}

/* ---- opening what a power cut left ---- */

static void check_image(run *r, store *s, writer *w)
{
    const store_image *image = store_image_opened(s);
    uint64_t expected = 0, address, bytes;
    uint32_t blocks;
    if (image->checkpoint_lsn != r->acknowledged && image->checkpoint_lsn != r->attempted)
        WRONG(r, "opened checkpoint %" PRIu64 ", acknowledged %" PRIu64 ", attempted %" PRIu64, image->checkpoint_lsn, r->acknowledged, r->attempted);
    r->advanced += image->checkpoint_lsn != r->acknowledged;
    for (uint32_t i = 0; i < image->partition_count; i++) {
        const store_partition *p = &image->partitions[i];
        if (store_page_read(s, p->root, w->page) != 0) {
            WRONG(r, "partition %u: %s", i, rw_error_text());
            continue;
        }
        if (rw_load_u64(w->page + sizeof(page_header)) != p->lsn * 1000 + i) WRONG(r, "partition %u has another page", i);
        if (store_claims_needed(s) && store_claim(s, page_ref_address(p->root), page_ref_blocks(p->root)) != 0)
            WRONG(r, "partition %u: %s", i, rw_error_text());
        expected += PAGE_BYTES;
        w->table[i] = *p;
        snprintf(w->keys[i], sizeof w->keys[i], "%04u", i);
        w->table[i].low_key = rw_slice_of(w->keys[i], p->low_key.size);
    }
    w->count = image->partition_count;
    if (store_space_map_damage(s) != NULL) WRONG(r, "map: %s", store_space_map_damage(s));
    store_space_map_run(s, &address, &blocks);
    r->clean += blocks > 0;
    store_claims_end(s);
    store_space space;
    store_space_get(s, &space);
    if (space.live_bytes != expected + (uint64_t)blocks * RW_BLOCK_SIZE) WRONG(r, "%" PRIu64 " bytes alive, not %" PRIu64, space.live_bytes, expected);
    if (store_shrink(s, 0, &bytes) != 0) WRONG(r, "shrink: %s", rw_error_text());
}

/* Another life: opens, or creates anew what was never finished; publishes twice and opens again. */
static void check_run(void *arg)
{
    run *r = arg;
    writer w = {.random = &r->moments, .page = rw_memory_aligned(PAGE_BYTES)};
    store_params params = {.page_size = PAGE_BYTES};
    bool clean;
    uint64_t mark = r->attempted + 1;
    /* the copy's world is the newest; sim_world_kio of it was put here by the hook */
    w.k = sim_world_kio(r->world);
    bool unfinished = store_is_unfinished(w.k, DIR);
    int result = store_open(w.k, DIR, &params, &w.s);
    if (result == RW_ENOENT) {
        if (r->acknowledged != 0) WRONG(r, "gone after a publish: %s", rw_error_text());
        r->unfinished += unfinished;
        result = kio_directory_create(w.k, DIR);
        if (result == 0) result = store_create(w.k, DIR, &params, &w.s);
    } else if (result == 0) {
        if (unfinished) WRONG(r, "opened, and called unfinished");
        check_image(r, w.s, &w);
    }
    for (unsigned i = 0; i < 2 && result == 0; i++) result = writer_publish(&w, mark + i, &clean);
    if (result != 0) WRONG(r, "%s", rw_error_text());
    if (w.s != NULL) store_close(w.s);
    w.s = NULL;
    if (result == 0 && (store_open(w.k, DIR, &params, &w.s) != 0 || store_image_opened(w.s)->checkpoint_lsn != mark + 1))
        WRONG(r, "what was published after a power cut is not there: %s", rw_error_text());
    if (w.s != NULL) store_close(w.s);
    store_retired_free(&w.retired);
    free(w.page);
}

static void power_cut(void *arg)
{
    run *r = arg;
    if (r->wrong > 0 || rw_random_below(&r->moments, 3) != 0) return;
    sim_world *living = r->world;
    uint64_t origin_seed = rw_random_next(&r->moments);
    bool killed = rw_random_below(&r->moments, 4) == 0;
    sim_disk *left = killed ? sim_disk_kill(sim_world_disk(living), &r->moments) : sim_disk_crash(sim_world_disk(living), &r->moments);
    r->world = sim_world_open(left, origin_seed);
    sim_run(r->world, check_run, r);
    if (r->wrong > 0) tap_diag("after: %s", sim_disk_origin(left));
    sim_world_close(r->world);
    r->world = living;
    sim_disk_destroy(left);
    r->checks++;
}

static void write_run(void *arg)
{
    run *r = arg;
    writer w = {.random = &r->random, .page = rw_memory_aligned(PAGE_BYTES), .k = sim_world_kio(r->world)};
    store_params params = {.page_size = PAGE_BYTES};
    bool clean;
    int result = kio_directory_create(w.k, DIR);
    if (result == 0) result = kio_directory_sync(w.k, "/");
    if (result == 0) result = store_create(w.k, DIR, &params, &w.s);
    for (uint64_t mark = 10; mark < 10 * r->rounds && result == 0; mark += 10) {
        r->attempted = mark;
        result = writer_publish(&w, mark, &clean);
        if (result == 0) r->acknowledged = mark;
    }
    if (result != 0) WRONG(r, "the writer: %s", rw_error_text());
    if (w.s != NULL) store_close(w.s);
    store_retired_free(&w.retired);
    free(w.page);
}

static void test_crashes(uint64_t seed, uint32_t rounds)
{
    run r = {.seed = seed, .rounds = rounds};
    rw_random_seed(&r.random, seed);
    rw_random_seed(&r.moments, seed + 1000);
    sim_disk *disk = sim_disk_create();
    r.world = sim_world_open(disk, seed);
    sim_step_hook(r.world, power_cut, &r);
    sim_run(r.world, write_run, &r);
    sim_world_close(r.world);
    sim_disk_destroy(disk);
    tap_ok(r.wrong == 0 && r.checks > 0, "seed %" PRIu64 ": %" PRIu64 " power cuts, %" PRIu64 " in creation, %" PRIu64 " with a newer image, %" PRIu64 " clean",
           seed, r.checks, r.unfinished, r.advanced, r.clean);
    if (r.wrong > 0) tap_diag("replay: test_store_crash %" PRIu64 " %u", seed, rounds);
}

/* ---- a kill, and then a power cut ---- */

/* Publishes once, and leaves a second superblock written and not synced, as a process does that is killed in between. */
static void half_published_run(void *arg)
{
    sim_world *world = arg;
    kio *k = sim_world_kio(world);
    store_params params = {.page_size = PAGE_BYTES};
    store *s;
    int result = kio_directory_create(k, DIR);
    if (result == 0) result = kio_directory_sync(k, "/");
    if (result == 0) result = store_create(k, DIR, &params, &s);
    if (!tap_ok(result == 0, "created")) return;
    store_image image = {.checkpoint_lsn = 1};
    superblock next = {.database_id = params.database_id, .page_size = PAGE_BYTES, .segments = 1, .image = {.checkpoint_lsn = 2}};
    TAP_CHECK(store_publish(s, &image, false) == 0);
    next.image.generation = store_image_opened(s)->generation + 1;
    void *memory = superblock_memory(&next.image);
    TAP_CHECK(superblock_write(k, store_file(s), &next, memory) == 0);
    free(memory);
    store_close(s);
}

static void half_opened_run(void *arg)
{
    store_params params = {0};
    store *s;
    if (!TAP_CHECK(store_open(sim_world_kio(arg), DIR, &params, &s) == 0)) return;
    tap_ok(store_image_opened(s)->checkpoint_lsn == 2, "the superblock written last is opened with");
    store_close(s);
}

static void world_run(sim_disk *disk, void (*fn)(void *))
{
    sim_world *world = sim_world_open(disk, 1);
    sim_run(world, fn, world);
    sim_world_close(world);
}

/* What was opened after the kill, and acted on, is there again after a power cut: opening makes it durable. */
static void test_kill_then_cut(void)
{
    rw_random random;
    rw_random_seed(&random, 1);
    sim_disk *disk = sim_disk_create();
    world_run(disk, half_published_run);
    world_run(disk, half_opened_run);
    sim_disk *cut = sim_disk_crash_styled(disk, SIM_CRASH_DROP_ALL, &random);
    world_run(cut, half_opened_run);
    sim_disk_destroy(cut);
    sim_disk_destroy(disk);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        test_crashes(strtoull(argv[1], NULL, 10), argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 30);
        return tap_done();
    }
    test_kill_then_cut();
    for (uint64_t seed = 1; seed <= 20; seed++) test_crashes(seed, seed % 4 == 0 ? 30 : 4);
    return tap_done();
}
