/* Where the log ends: cuts at every place of the tail, damage to every block, stale blocks, repeated recoveries. */
#include "tests/unit/wal_test.h"

#define RECORDS 60u

typedef struct {
    kio *k;
    sim_disk *disk;
    uint64_t lsn[RECORDS], end[RECORDS];
    uint64_t offset;           /* where a damage goes */
    uint64_t from, must, closed;
    bool read_only;
    /* results */
    int rc;
    uint64_t found_end;
    wal_test_seen seen;
    uint32_t generation;
} scene;

static sim_disk *disk_copy(const sim_disk *disk)
{
    rw_random random;
    rw_random_seed(&random, 1);
    return sim_disk_crash_styled(disk, SIM_CRASH_KEEP_ALL, &random);
}

/* Appends RECORDS records, each durable before the next, some of several blocks; the last ones in one batch. */
static void write_log(void *arg)
{
    scene *s = arg;
    wal *w = wal_test_create(s->k, "");
    for (uint32_t i = 0; i < RECORDS; i++) {
        uint32_t size = i % 7 == 3 ? 9000 + i * 8 : 40 + i * 13;
        TAP_CHECK(wal_test_append(w, 1, 0, i, size, &s->lsn[i], &s->end[i]) == 0);
        if (i < RECORDS - 12) TAP_CHECK(wal_wait(w, s->end[i]) == 0);
    }
    TAP_CHECK(wal_wait(w, s->end[RECORDS - 1]) == 0);
    TAP_CHECK(wal_close(w) == 0);
}

static void replay(void *arg)
{
    scene *s = arg;
    wal *w = NULL;
    wal_options options = wal_test_options();
    options.closed_lsn = s->closed;
    options.read_only = s->read_only;
    s->found_end = 0;
    s->seen = (wal_test_seen){.sound = true};
    s->rc = wal_open(s->k, "", &options, &w);
    if (s->rc == 0) s->rc = wal_replay(w, s->from, s->must, wal_test_see, &s->seen, &s->found_end);
    if (w != NULL) TAP_CHECK(wal_close(w) == 0);
}

static void replay_on(scene *s, sim_disk *disk)
{
    wal_test_run(disk, 1, replay, s, &s->k);
}

typedef struct {
    uint64_t offset, lsn, durable, size;
} block_place;

/* The blocks of the log that hold payload, in order of the file; in this test the segments lie in that order too. */
static size_t list_blocks(const sim_disk *disk, block_place *places, size_t room)
{
    unsigned char block[RW_BLOCK_SIZE];
    size_t count = 0;
    for (uint64_t at = 0; sim_disk_read(disk, "/log", at, block, sizeof block); at += RW_BLOCK_SIZE) {
        const wal_block_header *header = (const wal_block_header *)(void *)block;
        if (header->magic != WAL_BLOCK_MAGIC || header->payload_bytes == 0) continue;
        if (count < room) places[count++] = (block_place){at, header->lsn, header->durable_lsn, header->payload_bytes};
    }
    return count;
}

/* The end of the last record that lies wholly below lsn, or the log's beginning. */
static uint64_t whole_end(const scene *s, uint64_t lsn)
{
    uint64_t end = WAL_LSN_FIRST;
    for (uint32_t i = 0; i < RECORDS; i++) {
        if (s->end[i] <= lsn) end = s->end[i];
    }
    return end;
}

static bool damaged_block(scene *s, const block_place *places, size_t count, size_t b, unsigned *corrupt, unsigned *cut)
{
    uint64_t end = whole_end(s, places[b].lsn);
    bool known = false;
    for (size_t i = b + 1; i < count; i++) known = known || places[i].durable > end;
    sim_disk *copy = disk_copy(s->disk);
    sim_disk_flip(copy, "/log", places[b].offset + (b * 997) % RW_BLOCK_SIZE, b % 8);
    replay_on(s, copy);
    sim_disk_destroy(copy);
    if (known) {
        (*corrupt)++;
        char offset[32];
        snprintf(offset, sizeof offset, "offset %llu", (unsigned long long)places[b].offset);
        return s->rc == RW_ECORRUPT && strstr(rw_error_text(), "/log") != NULL && strstr(rw_error_text(), offset) != NULL;
    }
    (*cut)++;
    return s->rc == 0 && s->found_end == end && s->seen.sound;
}

static void test_damage(scene *s)
{
    block_place places[512];
    size_t count = list_blocks(s->disk, places, 512);
    unsigned corrupt = 0, cut = 0;
    bool good = true;
    s->from = s->must = WAL_LSN_FIRST;
    for (size_t b = 0; b < count && good; b++) {
        good = damaged_block(s, places, count, b, &corrupt, &cut);
        if (!good) tap_diag("block %zu of %zu at %llu: %d %s", b, count, (unsigned long long)places[b].offset, s->rc, rw_error_text());
    }
    tap_ok(good && corrupt > 20 && cut > 1, "damage of each block: %u refused as below the durable mark, %u cut as the torn tail", corrupt, cut);

    sim_disk *copy = disk_copy(s->disk);
    sim_disk_flip(copy, "/log", places[count - 1].offset + 100, 0);
    s->must = s->end[RECORDS - 1];
    replay_on(s, copy);
    tap_ok(s->rc == RW_ECORRUPT, "damage in the last block is refused when the log must reach beyond it");
    sim_disk_destroy(copy);

    copy = disk_copy(s->disk);
    sim_disk_flip(copy, "/log", 70, 0);
    s->must = WAL_LSN_FIRST;
    replay_on(s, copy);
    tap_ok(s->rc == RW_ECORRUPT, "damage of the start block, which no record needs, is noticed by the blocks behind it");
    sim_disk_destroy(copy);
}

/* The file's bytes from offset to the block's end and in all later blocks of the tail become something else. */
static void overwrite_tail(sim_disk *disk, uint64_t offset, uint64_t end, unsigned char fill)
{
    unsigned char *bytes = malloc((size_t)(end - offset));
    memset(bytes, fill, (size_t)(end - offset));
    sim_disk_write(disk, "/log", offset, bytes, (size_t)(end - offset));
    free(bytes);
}

static void test_cuts(scene *s)
{
    block_place places[512];
    size_t count = list_blocks(s->disk, places, 512);
    uint64_t tail = places[count - 5].offset, end = places[count - 1].offset + RW_BLOCK_SIZE;
    bool good = true;
    unsigned cuts = 0;
    s->from = s->must = WAL_LSN_FIRST;
    /* Every byte of a header's length and around the payload's end, and every sector. */
    for (uint64_t at = tail; at < end && good; at += at % RW_BLOCK_SIZE < 80 ? 1 : 512 - at % 512) {
        const block_place *place = &places[count - 5 + (at - tail) / RW_BLOCK_SIZE];
        bool whole = at % RW_BLOCK_SIZE >= WAL_HEADER_BYTES + place->size;
        for (unsigned fill = 0; fill < 2 && good; fill++) {
            sim_disk *copy = disk_copy(s->disk);
            overwrite_tail(copy, at, end, fill == 0 ? 0 : 0xa5);
            replay_on(s, copy);
            uint64_t expected = whole_end(s, whole && fill == 0 ? place->lsn + place->size : place->lsn);
            good = s->rc == 0 && s->found_end == expected && s->seen.sound;
            if (!good) tap_diag("cut at %llu, fill %u: rc %d, end %llu, expected %llu; %s", (unsigned long long)at, fill, s->rc,
                                (unsigned long long)s->found_end, (unsigned long long)expected, rw_error_text());
            sim_disk_destroy(copy);
            cuts++;
        }
    }
    tap_ok(good && cuts > 100, "%u cuts at the bytes and sectors of the tail end at the last whole record", cuts);
}

/* A slot is written in full before it is used: a file that ends inside of one was cut, wherever the log ends, and whatever is asked of it. */
static void test_short_files(scene *s)
{
    block_place places[512];
    size_t count = list_blocks(s->disk, places, 512);
    uint64_t last = places[count - 1].offset, slot = last / RW_LOG_SEGMENT_BYTES * RW_LOG_SEGMENT_BYTES, slot_end = slot + RW_LOG_SEGMENT_BYTES;
    uint64_t sizes[] = {places[count - 4].offset, places[count - 4].offset + 1536, last, last + 100, last + RW_BLOCK_SIZE, last + 3 * RW_BLOCK_SIZE,
                        slot + RW_BLOCK_SIZE, slot_end - RW_BLOCK_SIZE, slot_end - 1};
    char length[32], end[32];
    bool good = true;
    s->from = s->must = WAL_LSN_FIRST;
    snprintf(end, sizeof end, "%llu", (unsigned long long)slot_end);
    for (size_t i = 0; i < 3 * RW_ARRAY_SIZE(sizes); i++) {
        sim_disk *copy = disk_copy(s->disk);
        uint64_t size = sizes[i / 3];
        s->read_only = i % 3 == 1;
        s->closed = i % 3 == 2 ? s->end[RECORDS - 1] : 0;
        snprintf(length, sizeof length, "%llu", (unsigned long long)size);
        sim_disk_truncate(copy, "/log", size);
        replay_on(s, copy);
        good = good && s->rc == RW_ECORRUPT && strstr(rw_error_text(), length) != NULL && strstr(rw_error_text(), end) != NULL;
        sim_disk_destroy(copy);
    }
    s->read_only = false;
    s->closed = 0;
    tap_ok(good, "a file that ends inside of a slot in use was cut: %s", rw_error_text());
    /* what a crash can leave: the file ends where a slot does, or in one that was never written in full, so that nothing in it is valid */
    for (uint64_t size = slot_end; size <= slot_end + RW_LOG_SEGMENT_BYTES; size += RW_LOG_SEGMENT_BYTES / 4) {
        sim_disk *copy = disk_copy(s->disk);
        sim_disk_truncate(copy, "/log", slot_end);
        sim_disk_truncate(copy, "/log", size);
        replay_on(s, copy);
        good = good && s->rc == 0 && s->found_end == s->end[RECORDS - 1] && s->seen.sound;
        sim_disk_destroy(copy);
    }
    tap_ok(good, "one that ends where a slot does, or in one that was not used yet, is sound");
}

/* Starts where the last replay ended, appends a few records that are lost or kept by the caller's crash. */
static void go_on(void *arg)
{
    scene *s = arg;
    wal *w;
    s->rc = wal_test_reopen(s->k, "", s->from, s->must, &w, &s->seen, &s->found_end);
    if (!TAP_CHECK(s->rc == 0)) return;
    uint64_t lsn, end = s->found_end;
    TAP_CHECK(wal_start(w, s->from) == 0);
    for (uint32_t i = 0; i < s->generation % 4; i++) {
        TAP_CHECK(wal_test_append(w, s->generation, 0, 1000 * s->generation + i, 700, &lsn, &end) == 0);
        TAP_CHECK(wal_wait(w, end) == 0);
    }
    s->must = end;
    TAP_CHECK(wal_close(w) == 0);
}

/* After a cut the LSNs of the torn record are used again, while its valid blocks still lie in the file. */
static void test_reused_lsns(scene *s)
{
    block_place places[512];
    size_t count = list_blocks(s->disk, places, 512);
    sim_disk *disk = disk_copy(s->disk);
    bool good = true;
    uint64_t size = 0;
    s->from = s->must = WAL_LSN_FIRST;
    /* The tail's batch loses one block in its middle; those behind it stay valid. */
    sim_disk_flip(disk, "/log", places[count - 3].offset + 2000, 3);
    uint64_t cut = whole_end(s, places[count - 3].lsn), before = s->must;
    for (s->generation = 2; s->generation < 30 && good; s->generation++) {
        before = s->generation == 2 ? cut : s->must;
        wal_test_run(disk, s->generation, go_on, s, &s->k);
        good = s->rc == 0 && s->found_end == before && s->seen.sound;
    }
    sim_disk_size(disk, "/log", &size);
    tap_ok(good, "28 recoveries in a row, after a cut whose LSNs were used again, each find all that was durable");
    tap_ok(size <= 6 * (uint64_t)RW_LOG_SEGMENT_BYTES + 28 * 3 / 4 * (uint64_t)RW_LOG_SEGMENT_BYTES, "starts without records reuse their slots: %llu slots", (unsigned long long)(size / RW_LOG_SEGMENT_BYTES));
    s->from = s->must;
    replay_on(s, disk);
    tap_ok(s->rc == 0 && s->seen.count == 0 && s->found_end == s->from, "a replay from the very end finds the end");
    s->from = s->must + 8;
    replay_on(s, disk);
    tap_ok(s->rc == RW_ECORRUPT, "a replay from beyond the end is refused");
    sim_disk_destroy(disk);
}

/* An epoch of one batch, whose marks tell nothing: that its start block is gone is damage all the same. */
static void test_lost_start(scene *s)
{
    unsigned char block[RW_BLOCK_SIZE];
    const wal_block_header *header = (const wal_block_header *)(void *)block;
    sim_disk *disk = disk_copy(s->disk);
    s->from = WAL_LSN_FIRST;
    s->must = s->end[RECORDS - 1];
    s->generation = 5;
    wal_test_run(disk, 3, go_on, s, &s->k);
    for (uint64_t at = 0; sim_disk_read(disk, "/log", at, block, sizeof block); at += RW_BLOCK_SIZE) {
        if (header->magic == WAL_BLOCK_MAGIC && header->epoch == 2 && header->flags == WAL_BLOCK_START) sim_disk_flip(disk, "/log", at + 9, 1);
    }
    s->must = s->end[RECORDS - 1];
    replay_on(s, disk);
    tap_ok(s->rc == RW_ECORRUPT, "an epoch whose start block is damaged is not taken for nothing: %s", rw_error_text());
    sim_disk_destroy(disk);
}

/* A torn start block in a slot that is zeroed later, with the zeros torn too, must not come to life. */
static void test_torn_start(const scene *s)
{
    unsigned char block[RW_BLOCK_SIZE];
    const wal_block_header *header = (const wal_block_header *)(void *)block;
    sim_disk_read(s->disk, "/log", 0, block, sizeof block);
    bool good = header->flags == WAL_BLOCK_START && header->checksum == wal_block_checksum(block);
    for (size_t sector = SIM_SECTOR_BYTES; sector < RW_BLOCK_SIZE; sector += SIM_SECTOR_BYTES) {
        memset(block + sector, 0, SIM_SECTOR_BYTES);
        good = good && header->checksum != wal_block_checksum(block);
    }
    tap_ok(good, "a start block with zeros in place of some sectors is not valid");
}

static void test_from(scene *s)
{
    bool good = true;
    s->must = s->end[RECORDS - 1];
    for (uint32_t i = 0; i < RECORDS; i++) {
        s->from = s->lsn[i];
        replay_on(s, s->disk);
        good = good && s->rc == 0 && s->seen.sound && s->seen.count == RECORDS - i && s->seen.first_lsn == s->lsn[i];
    }
    tap_ok(good, "a replay may begin at each record");
}

/* Where it was closed a log ends, whatever lies behind; but it must get there. */
static void test_closed(scene *s)
{
    block_place places[512];
    size_t count = list_blocks(s->disk, places, 512), b = count / 2;
    s->from = s->must = WAL_LSN_FIRST;
    uint64_t end = whole_end(s, places[b].lsn);
    sim_disk *copy = disk_copy(s->disk);
    sim_disk_flip(copy, "/log", places[b].offset + 100, 3);
    replay_on(s, copy);
    TAP_CHECK(s->rc == RW_ECORRUPT);
    s->closed = end;
    replay_on(s, copy);
    tap_ok(s->rc == 0 && s->found_end == end && s->seen.sound, "nothing is looked for behind the place where the log was closed");
    s->must = s->closed = s->end[RECORDS - 1];
    replay_on(s, copy);
    tap_ok(s->rc == RW_ECORRUPT, "a log that ends before it is damaged");
    replay_on(s, s->disk);
    tap_ok(s->rc == 0 && s->found_end == s->closed, "one that gets there is sound");
    s->closed = 0;
    sim_disk_destroy(copy);
}

int main(void)
{
    scene s = {.disk = sim_disk_create()};
    wal_test_run(s.disk, 7, write_log, &s, &s.k);
    test_from(&s);
    test_torn_start(&s);
    test_damage(&s);
    test_cuts(&s);
    test_short_files(&s);
    test_reused_lsns(&s);
    test_lost_start(&s);
    test_closed(&s);
    sim_disk_destroy(s.disk);
    return tap_done();
}
