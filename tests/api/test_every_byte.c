/*
 * Flips bytes of a database's files, one at a time, and reads everything: an error or exactly the right data, never a crash, a hang or a
 * wrong answer. In the log's torn tail, a legal prefix of the commits. CHECK_LONG flips every byte in use; otherwise EVERY_BYTE_SAMPLES
 * of them, evenly spread. EVERY_BYTE_SEED draws other masks and another phase.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/support/sample_db.h"

#define IN_CHILD_MAX 200          /* flips per forked child */
#define FLIP_TIMEOUT 20           /* seconds for one flip, a hang beyond */
#define NEAR_BYTES 16             /* zeros this close to other bytes count as in use */
#define FAR_STRIDE 4001           /* of the other zeros every so-manieth is flipped too */
#define COMPLAINTS_MAX 10
/* The newest commit that was synced may be taken for a torn one when a byte of it is flipped: nothing after it vouches for it. */
#define TORN_COMMITS 1

typedef struct {
    size_t file;                  /* index in the listing */
    uint64_t offset;
    uint8_t mask;
} flip;

/* Written by the child, read by the parent when the child is gone. */
typedef struct {
    volatile size_t done;         /* flips of the present batch that have an outcome */
    volatile uint8_t outcome[IN_CHILD_MAX];
    int leaked_files;
} progress;

typedef struct {
    sample_db original;
    char copy[DIRS_PATH_MAX];     /* files are flipped here, one byte, and flipped back */
    char scratch[DIRS_PATH_MAX];  /* a copy of the copy, for opening it for writing */
    dir_listing listing;
    size_t log_file;              /* index of the file that holds the tail */
    flip *flips;
    size_t flips_count;
    size_t next;                  /* the child's first flip */
    progress *progress;
    size_t complaints;
} campaign;

/* Outcomes beside sample_state. */
enum { OUTCOME_STRANGE_CODE = SAMPLE_WRONG + 1, OUTCOME_VERIFY_SILENT, OUTCOME_COUNT };

static const char *const outcome_names[OUTCOME_COUNT] = {
    "right", "refused", "partly", "a commit shorter", "WRONG", "A STRANGE CODE", "READS FAIL BUT VERIFY IS SILENT"};

static bool is_damage_code(int code)
{
    return code == RW_ECORRUPT || code == RW_EFOREIGN || code == RW_EVERSION || code == RW_EIO;
}

/* Reads everything in dir; the exit of one flip. */
static int compare_in(campaign *self, const char *dir, bool read_only)
{
    rw_options options = self->original.options;
    rw_db *db = NULL;
    sample_check check;
    options.read_only = read_only;
    options.create = 0;
    int code = rw_open(dir, &options, &db);
    if (code != 0) {
        child_say("rw_open: %d %s", code, rw_last_error(NULL));
        return is_damage_code(code) ? SAMPLE_REFUSED : OUTCOME_STRANGE_CODE;
    }
    sample_state state = sample_compare_all(&self->original, db, &check);
    rw_close(db);
    if (state == SAMPLE_PARTLY && !is_damage_code(check.last_code)) return OUTCOME_STRANGE_CODE;
    if (state == SAMPLE_SHORTER && SAMPLE_TAIL - check.tail > TORN_COMMITS) return SAMPLE_WRONG;
    return (int)state;
}

static void flip_path(const campaign *self, const flip *one, char path[DIRS_PATH_MAX])
{
    path_join(path, self->copy, self->listing.names[one->file]);
}

static int try_flip(campaign *self, size_t index)
{
    const flip *one = &self->flips[index];
    char path[DIRS_PATH_MAX];
    int outcome;
    flip_path(self, one, path);
    if (!file_flip(path, one->offset, one->mask)) return OUTCOME_STRANGE_CODE;
    if (index % 8 == 3) {
        if (!dir_copy(self->copy, self->scratch)) return OUTCOME_STRANGE_CODE;
        outcome = compare_in(self, self->scratch, false);
    } else {
        outcome = compare_in(self, self->copy, true);
    }
    bool damaged = outcome == SAMPLE_REFUSED || outcome == SAMPLE_PARTLY;
    if (damaged && index % 8 == 5 && rw_verify(self->copy, ignore_finding, NULL) == 0) outcome = OUTCOME_VERIFY_SILENT;
    file_flip(path, one->offset, one->mask);
    return outcome;
}

static int lowest_free_file(void)
{
    int file = dup(0);
    close(file);
    return file;
}

/* In the child: the flips from self->next on, until one is not fit to go on after. */
static int try_batch(void *arg)
{
    campaign *self = arg;
    progress *seen = self->progress;
    int files = lowest_free_file();
    while (seen->done < IN_CHILD_MAX && self->next + seen->done < self->flips_count) {
        alarm(FLIP_TIMEOUT);
        int outcome = try_flip(self, self->next + seen->done);
        seen->outcome[seen->done] = (uint8_t)outcome;
        seen->done++;
        if (outcome >= SAMPLE_WRONG) break;
    }
    seen->leaked_files = lowest_free_file() - files;
    return 0;
}

static void complain(campaign *self, size_t index, const char *what)
{
    const flip *one = &self->flips[index];
    if (self->complaints++ >= COMPLAINTS_MAX) return;
    tap_diag("%s, byte %llu xor 0x%02x%s: %s: %s", self->listing.names[one->file], (unsigned long long)one->offset, one->mask,
             index % 8 == 3 ? ", opened for writing" : "", what, child_said());
}

/* A shorter tail is legal after damage to the log only. */
static bool is_legal(const campaign *self, const flip *one, int outcome)
{
    if (outcome == SAMPLE_SHORTER) return one->file == self->log_file;
    return outcome < SAMPLE_SHORTER;
}

static void restore(campaign *self)
{
    if (!dir_copy(self->original.dir, self->copy)) abort();
}

typedef struct {
    size_t outcomes[OUTCOME_COUNT];
    size_t bad;
} tally;

static void run_one_child(campaign *self, tally *tallies)
{
    char words[64];
    memset(self->progress, 0, sizeof(*self->progress));
    int status = child_run(try_batch, self, FLIP_TIMEOUT);
    size_t done = self->progress->done;
    for (size_t i = 0; i < done; i++) {
        const flip *one = &self->flips[self->next + i];
        int outcome = self->progress->outcome[i];
        tallies[one->file].outcomes[outcome]++;
        if (is_legal(self, one, outcome)) continue;
        tallies[one->file].bad++;
        complain(self, self->next + i, outcome_names[outcome]);
    }
    if (status != 0 && self->next + done < self->flips_count) {
        snprintf(words, sizeof(words), status == CHILD_SIGNAL(SIGALRM) ? "HANGS" : "CRASHES");
        tallies[self->flips[self->next + done].file].bad++;
        complain(self, self->next + done, words);
        done++;
    }
    if (self->progress->leaked_files != 0) tap_ok(false, "%d file descriptors leaked", self->progress->leaked_files);
    if (status != 0) restore(self);    /* it died with its byte flipped */
    self->next += done;
}

static void add_flip(campaign *self, size_t file, uint64_t offset, uint64_t seed)
{
    prng random = {seed ^ offset * 31 ^ file << 48};
    uint8_t mask = (uint8_t)(1 + prng_below(&random, 255));
    if (prng_below(&random, 2) == 0) mask = (uint8_t)(1u << prng_below(&random, 8));
    self->flips[self->flips_count++] = (flip){file, offset, mask};
}

/* Whether byte at is in use: not a zero, or near one that is not. last_used: the last byte before at that is not a zero. */
static bool is_in_use(const uint8_t *data, size_t size, size_t at, size_t last_used)
{
    if (data[at] != 0 || (last_used != SIZE_MAX && at - last_used <= NEAR_BYTES)) return true;
    for (size_t ahead = at + 1; ahead < size && ahead <= at + NEAR_BYTES; ahead++)
        if (data[ahead] != 0) return true;
    return false;
}

static void collect_file(campaign *self, size_t file, uint64_t seed)
{
    char path[DIRS_PATH_MAX];
    size_t size = 0, last_used = SIZE_MAX;
    path_join(path, self->original.dir, self->listing.names[file]);
    if (strcmp(self->listing.names[file], LOCK_FILE) == 0) return;    /* holds no data, and each opener rewrites it */
    uint8_t *data = file_read(path, &size);
    if (data == NULL) abort();
    self->flips = realloc(self->flips, (self->flips_count + size + 1) * sizeof(flip));
    if (self->flips == NULL) abort();
    size_t before = self->flips_count;
    for (size_t at = 0; at < size; at++) {
        if (data[at] != 0) last_used = at;
        if (is_in_use(data, size, at, last_used) || (at + seed) % FAR_STRIDE == 0) add_flip(self, file, at, seed);
    }
    tap_diag("%s: %zu bytes, %zu of them to flip", self->listing.names[file], size, self->flips_count - before);
    free(data);
}

/* Keeps an even sample. */
static void thin_out(campaign *self, uint64_t most)
{
    if (self->flips_count <= most) return;
    size_t stride = self->flips_count / most + 1, kept = 0;
    for (size_t i = 0; i < self->flips_count; i++) {
        bool early = self->flips[i].offset % 4096 < 64 && i % (stride / 8 + 1) == 0;    /* headers are small and matter */
        if (i % stride == stride / 2 || early) self->flips[kept++] = self->flips[i];
    }
    self->flips_count = kept;
}

static bool find_log(campaign *self)
{
    char value[1024], path[DIRS_PATH_MAX];
    rw_slice newest = sample_value(&self->original, 10000 + SAMPLE_TAIL - 1, value);
    self->log_file = SIZE_MAX;
    for (size_t file = 0; file < self->listing.count; file++) {
        path_join(path, self->original.dir, self->listing.names[file]);
        if (file_find(path, newest.data, newest.size, 0) >= 0) self->log_file = file;
    }
    return self->log_file != SIZE_MAX;
}

static bool campaign_prepare(campaign *self, uint64_t seed, bool killed, uint64_t samples)
{
    if (!sample_make(&self->original, seed, killed) || !dir_list(self->original.dir, &self->listing)) return false;
    if (!dir_make(self->copy, "every-byte") || !dir_make(self->scratch, "every-byte")) return false;
    bool found = find_log(self);
    if (killed && !tap_ok(found, "the tail is in a file")) return false;
    for (size_t file = 0; file < self->listing.count; file++) collect_file(self, file, number_from("EVERY_BYTE_SEED", seed));
    if (!check_long()) thin_out(self, samples);
    self->progress = child_shared(sizeof(*self->progress));
    restore(self);
    return true;
}

static void report(const campaign *self, const tally *tallies)
{
    size_t noticed = 0;
    for (size_t file = 0; file < self->listing.count; file++) {
        const size_t *counts = tallies[file].outcomes;
        size_t tried = 0;
        for (size_t outcome = 0; outcome < OUTCOME_COUNT; outcome++) tried += counts[outcome];
        if (tried == 0 && tallies[file].bad == 0) continue;
        noticed += counts[SAMPLE_REFUSED] + counts[SAMPLE_PARTLY];
        tap_ok(tallies[file].bad == 0, "%s: %zu flips: %zu changed nothing, %zu refused, %zu partly readable, %zu a commit shorter, %zu bad",
               self->listing.names[file], tried, counts[SAMPLE_RIGHT], counts[SAMPLE_REFUSED], counts[SAMPLE_PARTLY],
               counts[SAMPLE_SHORTER], tallies[file].bad);
    }
    tap_ok(noticed > 0, "%zu flips were noticed", noticed);
}

static void run_campaign(uint64_t seed, bool killed, uint64_t samples)
{
    static campaign self;
    tally tallies[DIRS_FILES_MAX] = {0};
    self = (campaign){.next = 0};
    if (!campaign_prepare(&self, seed, killed, samples)) return;
    while (self.next < self.flips_count && self.complaints < 200) run_one_child(&self, tallies);
    report(&self, tallies);
    tap_ok(dir_same(self.original.dir, self.copy, LOCK_FILE), "opening read-only and verifying changed no file");
    dir_remove(self.original.dir);
    dir_remove(self.copy);
    dir_remove(self.scratch);
    free(self.flips);
}

int main(void)
{
    uint64_t samples = number_from("EVERY_BYTE_SAMPLES", 1000);
    tap_diag("a killed writer's files");
    run_campaign(11, true, samples);
    tap_diag("files after a clean close");
    run_campaign(12, false, samples / 4);
    return tap_done();
}
