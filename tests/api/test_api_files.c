/*
 * Files that are not as they should be: missing, truncated, foreign, of another database, zeroed, damaged. Each is an error that names
 * the file, or harmless; never a crash, never wrong data.
 */
#include <stdio.h>
#include <unistd.h>

#include "tests/support/sample_db.h"

#define TIMEOUT 60
#define LOG_SEGMENT_LEAST 131072u          /* segments are a multiple of this, in every build */

/* Codes that may tell of a file's state. */
static bool is_damage_code(int code)
{
    return code == RW_ECORRUPT || code == RW_EFOREIGN || code == RW_EVERSION || code == RW_ENOENT || code == RW_EIO;
}

typedef struct {
    sample_db sample;         /* dir: the copy that is opened */
    const char *file;         /* the file that was changed, relative */
    bool read_only;
} probe;

/* The exit status is a sample_state. */
static int open_and_compare(void *arg)
{
    probe *self = arg;
    rw_db *db = NULL;
    sample_check check;
    self->sample.options.read_only = self->read_only;
    self->sample.options.create = 0;
    int code = rw_open(self->sample.dir, &self->sample.options, &db);
    if (code != 0) {
        const char *base = strrchr(self->file, '/');
        bool named = strstr(rw_last_error(NULL), base == NULL ? self->file : base + 1) != NULL;
        child_say("%d: %s", code, rw_last_error(NULL));
        return is_damage_code(code) && named ? SAMPLE_REFUSED : SAMPLE_WRONG;
    }
    sample_state state = sample_compare_all(&self->sample, db, &check);
    if (state == SAMPLE_PARTLY && !is_damage_code(check.last_code)) return SAMPLE_WRONG;
    rw_close(db);
    return (int)state;
}

typedef bool (*change_fn)(const char *path, uint64_t size, const char *twin);

static bool change_remove(const char *path, uint64_t size, const char *twin)
{
    (void)size, (void)twin;
    return unlink(path) == 0;
}

static bool change_empty(const char *path, uint64_t size, const char *twin)
{
    (void)size, (void)twin;
    return file_truncate(path, 0);
}

#ifndef RW_TINY
static bool change_half(const char *path, uint64_t size, const char *twin)
{
    (void)twin;
    return file_truncate(path, size / 2);
}
#endif

/* Inside of the first segment, behind its beginning. */
static bool change_few_pages(const char *path, uint64_t size, const char *twin)
{
    (void)twin;
    return file_truncate(path, size > 5 * 4096 ? 5 * 4096 : 4096);
}

static bool change_short_by_one(const char *path, uint64_t size, const char *twin)
{
    (void)twin;
    return file_truncate(path, size - 1);
}

static bool change_short_by_page(const char *path, uint64_t size, const char *twin)
{
    (void)twin;
    return file_truncate(path, size > 4096 ? size - 4096 : 0);
}

static bool change_foreign(const char *path, uint64_t size, const char *twin)
{
    static const char text[] = "This is a letter to a friend and not a database.\n";
    (void)twin;
    for (uint64_t at = 0; at < size; at += sizeof(text))
        if (!file_write_at(path, at, text, size - at < sizeof(text) ? size - at : sizeof(text))) return false;
    return true;
}

static bool change_noise(const char *path, uint64_t size, const char *twin)
{
    prng random = {size};
    uint8_t *noise = malloc(size);
    (void)twin;
    if (noise == NULL) return false;
    prng_fill(&random, noise, size);
    bool good = file_write_at(path, 0, noise, size);
    free(noise);
    return good;
}

static bool change_swap(const char *path, uint64_t size, const char *twin)
{
    (void)size;
    return file_copy(twin, path);
}

static bool change_zero_head(const char *path, uint64_t size, const char *twin)
{
    (void)twin;
    return file_zero(path, 0, size < 4096 ? size : 4096);
}

static bool change_zero_all(const char *path, uint64_t size, const char *twin)
{
    (void)twin;
    return file_zero(path, 0, size);
}

static const struct {
    const char *name;
    change_fn change;
    bool must_show;      /* on a file of data, this cannot go unnoticed */
} changes[] = {
    {"removed", change_remove, true},
    {"truncated to nothing", change_empty, true},
#ifndef RW_TINY
    /* With tiny segments the other half holds records, and nothing is left that knows of them: a log that ends where a segment does looks whole. */
    {"truncated to a half", change_half, false},
#endif
    {"truncated to a few pages", change_few_pages, true},
    {"one byte shorter", change_short_by_one, false},
    {"a page shorter", change_short_by_page, false},
    {"overwritten with a letter", change_foreign, true},
    {"overwritten with noise", change_noise, true},
    {"taken from another database", change_swap, true},
    {"zeroed at its head", change_zero_head, false},
    {"zeroed", change_zero_all, true},
};

/* Small files, a lock or a note, may be renewed in silence; one with content may not. */
static bool holds_data(const char *path)
{
    return file_size(path) >= 4096;
}

static void try_change(const sample_db *original, const sample_db *twin, const char *file, size_t which, bool read_only)
{
    static char copy[DIRS_PATH_MAX];
    char path[DIRS_PATH_MAX], twin_path[DIRS_PATH_MAX];
    probe self = {.sample = *original, .file = file, .read_only = read_only};
    if (copy[0] == 0 && !dir_make(copy, "files")) return;
    if (!dir_copy(original->dir, copy)) return;
    memcpy(self.sample.dir, copy, sizeof(copy));
    path_join(path, copy, file);
    path_join(twin_path, twin->dir, file);
    bool data = holds_data(path);
    int64_t size = file_size(path);
    if (size == 0 && changes[which].change != change_remove) return;
    if (!TAP_CHECK(changes[which].change(path, (uint64_t)size, twin_path))) return;
    int state = child_run(open_and_compare, &self, TIMEOUT);
    bool good = state == SAMPLE_REFUSED || state == SAMPLE_PARTLY || (state == SAMPLE_RIGHT && !(data && changes[which].must_show));
    tap_ok(good, "%s %s%s: %d %s", file, changes[which].name, read_only ? ", opened read-only" : "", state, child_said());
}

static void try_all_changes(const sample_db *original, const sample_db *twin, bool read_only)
{
    static dir_listing listing;
    if (!dir_list(original->dir, &listing)) return;
    TAP_CHECK(listing.count >= 1);
    for (size_t file = 0; file < listing.count; file++) {
        char path[DIRS_PATH_MAX];
        path_join(path, original->dir, listing.names[file]);
        tap_diag("%s: %lld bytes", listing.names[file], (long long)file_size(path));
        for (size_t which = 0; which < sizeof(changes) / sizeof(changes[0]); which++)
            try_change(original, twin, listing.names[file], which, read_only);
    }
}

/* The unchanged copy must open, or nothing above means anything. */
static void test_copy_is_right(const sample_db *original)
{
    probe self = {.sample = *original, .file = "none"};
    if (!dir_make(self.sample.dir, "files") || !dir_copy(original->dir, self.sample.dir)) return;
    int state = child_run(open_and_compare, &self, TIMEOUT);
    tap_ok(state == SAMPLE_RIGHT, "an unchanged copy holds what was written: %d %s", state, child_said());
    int again = child_run(open_and_compare, &self, TIMEOUT);
    tap_ok(again == SAMPLE_RIGHT, "and so it does when opened once more: %d %s", again, child_said());
    CHECK_OK(rw_verify(self.sample.dir, note_finding, NULL));
    dir_remove(self.sample.dir);
}

typedef struct {
    int findings;
    char first[256];
} findings;

static void count_finding(void *arg, const char *finding)
{
    findings *found = arg;
    if (found->findings++ == 0) snprintf(found->first, sizeof(found->first), "%s", finding);
}

/* The name of the file that a killed writer's newest commit is in; the first file with it wins. */
static const char *log_name(const sample_db *killed)
{
    static dir_listing listing;
    char value[1024], path[DIRS_PATH_MAX];
    rw_slice newest = sample_value(killed, 10000 + SAMPLE_TAIL - 1, value);
    if (!dir_list(killed->dir, &listing)) return "";
    for (size_t i = 0; i < listing.count; i++) {
        path_join(path, killed->dir, listing.names[i]);
        if (file_find(path, newest.data, newest.size, 0) >= 0) return listing.names[i];
    }
    return "";
}

/* Flips a bit of each copy of a record, but in the log, where it may be past history. */
static bool flip_record(const sample_db *sample, uint64_t record, const char *log)
{
    static dir_listing listing;
    char value[1024], path[DIRS_PATH_MAX];
    int flipped = 0;
    rw_slice want = sample_value(sample, record, value);
    if (!dir_list(sample->dir, &listing)) return false;
    for (size_t i = 0; i < listing.count; i++) {
        path_join(path, sample->dir, listing.names[i]);
        if (strcmp(listing.names[i], log) == 0) continue;
        for (int64_t at = 0; (at = file_find(path, want.data, want.size, (uint64_t)at)) >= 0; at++)
            flipped += file_flip(path, (uint64_t)at + want.size / 2, 0x10);
    }
    return flipped > 0;
}

/* The damaged record's page cannot be read; whatever lies elsewhere can. The store stays open and takes writes elsewhere. */
static void test_flipped_record(const sample_db *original, const char *log)
{
    sample_db sample = *original;
    char key[32], value[1024];
    size_t readable = 0, failed = 0;
    if (!dir_make(sample.dir, "files") || !dir_copy(original->dir, sample.dir)) return;
    if (!tap_ok(flip_record(&sample, 150, log), "the bytes of a record are found in the files")) return;
    rw_db *db = open_or_exit(sample.dir, &sample.options);
    size_t size = sizeof(value);
    CHECK_CODE(rw_get(db, BUCKET, sample_key(150, key), value, &size), RW_ECORRUPT);
    tap_ok(size == sizeof(value), "the read that meets a flipped byte: %s", rw_last_error(db));
    for (uint64_t i = 60; i < 200; i++) {
        size = sizeof(value);
        int code = rw_get(db, BUCKET, sample_key(i, key), value, &size);
        char want[1024];
        if (code == RW_ECORRUPT) failed++;
        else readable += TAP_CHECK(code == 0 && slice_same(slice_bytes(value, size), sample_value(&sample, i, want)));
    }
    tap_ok(failed >= 1 && failed < 70 && readable + failed == 140, "%zu neighbours cannot be read, %zu others can", failed - 1, readable);
    CHECK_OK(put_text(db, BUCKET, "a new key far away", "v"));
    TAP_CHECK(get_is_text(db, BUCKET, "a new key far away", "v"));
    rw_close(db);
    findings found = {0, ""};
    CHECK_CODE(rw_verify(sample.dir, count_finding, &found), RW_ECORRUPT);
    tap_ok(found.findings > 0, "rw_verify reports it: %s", found.first);
    dir_remove(sample.dir);
}

/* Verification changes nothing and agrees with what was done to the files. */
static void test_verify(const sample_db *original, const char *log)
{
    sample_db sample = *original;
    findings found = {0, ""};
    if (!dir_make(sample.dir, "files") || !dir_copy(original->dir, sample.dir)) return;
    CHECK_OK(rw_verify(sample.dir, count_finding, &found));
    CHECK_OK(rw_verify(sample.dir, count_finding, &found));
    TAP_CHECK(found.findings == 0);
    tap_ok(dir_same(original->dir, sample.dir, LOCK_FILE), "rw_verify finds nothing in sound files and leaves them alone%s", original->killed ? ", log tail too" : "");
    CHECK_CODE(rw_verify(NULL, count_finding, &found), RW_EINVAL);
    if (!dir_copy(original->dir, sample.dir) || !flip_record(&sample, 150, log)) return;
    CHECK_CODE(rw_verify(sample.dir, count_finding, &found), RW_ECORRUPT);
    tap_ok(found.findings > 0, "a flipped byte: %s", found.first);
    char path[DIRS_PATH_MAX];
    path_join(path, sample.dir, log);
    if (!dir_copy(original->dir, sample.dir) || !TAP_CHECK(file_truncate(path, 5 * 4096))) return;
    found = (findings){0, ""};
    CHECK_CODE(rw_verify(sample.dir, count_finding, &found), RW_ECORRUPT);
    tap_ok(found.findings == 1 && strstr(found.first, "the file was cut") != NULL, "a log that was cut: %s", found.first);
    dir_remove(sample.dir);
}

/* What is not the database's is neither read nor removed. */
static void test_stray_files(const sample_db *original)
{
    sample_db sample = *original;
    probe self = {.sample = *original, .file = "none"};
    char path[DIRS_PATH_MAX];
    if (!dir_make(sample.dir, "files") || !dir_copy(original->dir, sample.dir)) return;
    path_join(path, sample.dir, "a stray note");
    FILE *note = fopen(path, "w");
    if (!TAP_CHECK(note != NULL)) return;
    fputs("not the database's\n", note);
    fclose(note);
    memcpy(self.sample.dir, sample.dir, sizeof(sample.dir));
    int state = child_run(open_and_compare, &self, TIMEOUT);
    tap_ok(state == SAMPLE_RIGHT && file_size(path) == 19, "a stray file in the directory does no harm: %d %s", state, child_said());
    dir_remove(sample.dir);
}

static const char begun_key[] = "zz begun again", begun_value[] = "a commit after the log was begun again";

/* In a child, which ends like a crash. */
static int begin_again(void *arg)
{
    const sample_db *sample = arg;
    rw_db *db;
    rw_slice key = {begun_key, sizeof begun_key}, value = {begun_value, sizeof begun_value};
    if (!CHILD_CHECK(rw_open(sample->dir, &sample->options, &db) == 0)) return 1;
    for (int i = 0; i < 2; i++)
        if (!CHILD_CHECK(rw_put(db, BUCKET, key, value, RW_SYNC) == 0)) return 1;
    return 0;
}

/* A clean close says where the log ends. It must not be believed of a log that was begun again since, however its beginning is damaged. */
static void test_begun_again(const sample_db *original, const char *log)
{
    sample_db sample = *original;
    char path[DIRS_PATH_MAX];
    rw_db *db = NULL;
    if (!dir_make(sample.dir, "files") || !dir_copy(original->dir, sample.dir)) return;
    if (!tap_ok(child_run(begin_again, &sample, TIMEOUT) == 0, "a writer that ends like a crash: %s", child_said())) return;
    path_join(path, sample.dir, log);
    int64_t at = file_find(path, begun_value, sizeof begun_value, 0);
    if (!TAP_CHECK(at >= 0)) return;
    /* the block where the segment begins, and the block with the record */
    uint64_t blocks[] = {(uint64_t)at / LOG_SEGMENT_LEAST * LOG_SEGMENT_LEAST, (uint64_t)at / 4096 * 4096};
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        TAP_CHECK(blocks[0] < blocks[1] && file_flip(path, blocks[i] + 30, 4));
        int code = rw_open(sample.dir, &sample.options, &db);
        tap_ok(code == RW_ECORRUPT, "a log begun again after a clean close, damaged at %llu: %d %s", (unsigned long long)blocks[i], code, rw_last_error(NULL));
        if (code == 0) CHECK_OK(rw_close(db));
        TAP_CHECK(file_flip(path, blocks[i] + 30, 4));
    }
    CHECK_OK(rw_open(sample.dir, &sample.options, &db));
    char found[64];
    size_t size = sizeof found;
    int code = rw_get(db, BUCKET, (rw_slice){begun_key, sizeof begun_key}, found, &size);
    tap_ok(code == 0 && size == sizeof begun_value && memcmp(found, begun_value, size) == 0, "undamaged, it holds what was written");
    CHECK_OK(rw_close(db));
    dir_remove(sample.dir);
}

/* Opens with create, twice; the same refusal both times, with nothing made and nothing changed but the lock file. */
static void create_is_refused(const char *dir, int expected, const char *what)
{
    rw_options options = options_small();
    char before[DIRS_PATH_MAX];
    char first[256] = "";
    if (!dir_make(before, "before") || !dir_copy(dir, before)) return;
    for (unsigned i = 0; i < 2; i++) {
        rw_db *db = NULL;
        int code = rw_open(dir, &options, &db);
        TAP_CHECK(code == expected && db == NULL);
        if (i == 0) snprintf(first, sizeof first, "%s", rw_last_error(NULL));
    }
    tap_ok(dir_same(before, dir, LOCK_FILE) && strstr(first, "/log") != NULL && strcmp(first, rw_last_error(NULL)) == 0,
           "%s is refused, twice, and nothing else comes or goes: %s", what, first);
    dir_remove(before);
}

static bool file_make(const char *path, const void *bytes, size_t size)
{
    FILE *made = fopen(path, "w");
    if (made == NULL) return false;
    bool whole = fwrite(bytes, 1, size, made) == size;
    return fclose(made) == 0 && whole;
}

/* A new database takes no file away that is not its own. */
static void test_foreign_log(void)
{
    char dir[DIRS_PATH_MAX], path[DIRS_PATH_MAX], data[DIRS_PATH_MAX], lock[DIRS_PATH_MAX];
    char noise[8192];
    rw_options options = options_small();
    rw_db *db = NULL;
    prng random = {77};
    if (!dir_make(dir, "foreign")) return;
    path_join(path, dir, "log");
    path_join(data, dir, "data");
    path_join(lock, dir, LOCK_FILE);
    prng_fill(&random, (uint8_t *)noise, sizeof noise);
    const struct { size_t size; const char *what; } cases[] = {{sizeof noise, "a log of noise"}, {49, "a log of a few letters"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        TAP_CHECK(file_make(path, noise, cases[i].size) && file_make(lock, "", 0));
        create_is_refused(dir, RW_EFOREIGN, cases[i].what);
        TAP_CHECK(file_size(data) == -1);
    }
    TAP_CHECK(file_truncate(path, 0));
    CHECK_OK(rw_open(dir, &options, &db));
    CHECK_OK(rw_close(db));
    tap_ok(db != NULL, "an empty one is in nobody's way");
    dir_remove(dir);
}

/* The log with its records is all that is left: no open may make a new database over it. */
static void test_data_gone(const sample_db *original)
{
    sample_db sample = *original;
    char path[DIRS_PATH_MAX];
    if (!dir_make(sample.dir, "gone") || !dir_copy(original->dir, sample.dir)) return;
    path_join(path, sample.dir, "data");
    TAP_CHECK(unlink(path) == 0);
    create_is_refused(sample.dir, RW_EEXIST, "a log with records and no data file");
    TAP_CHECK(file_size(path) == -1);
    dir_remove(sample.dir);
}

int main(void)
{
    static sample_db closed, closed_twin, killed, killed_twin;
    if (!sample_make(&closed, 1, false) || !sample_make(&closed_twin, 2, false)) return tap_done();
    if (!sample_make(&killed, 3, true) || !sample_make(&killed_twin, 4, true)) return tap_done();
    test_copy_is_right(&closed);
    test_copy_is_right(&killed);
    const char *log = log_name(&killed);
    tap_ok(log[0] != 0, "a killed writer's last commit is in a file: %s", log);
    test_verify(&closed, log);
    test_verify(&killed, log);
    test_stray_files(&killed);
    test_flipped_record(&closed, log);
    test_begun_again(&closed, log);
    test_foreign_log();
    test_data_gone(&closed);
    test_data_gone(&killed);
    tap_diag("after a clean close");
    try_all_changes(&closed, &closed_twin, false);
    tap_diag("after a kill");
    try_all_changes(&killed, &killed_twin, false);
    try_all_changes(&killed, &killed_twin, true);
    return tap_done();
}
