#include "tests/support/dirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/tap.h"

#define MADE_MAX 64
#define FILE_SIZE_MAX ((rlim_t)6 << 30)
#define COPY_CHUNK ((size_t)1 << 20)

static struct {
    pid_t owner;
    size_t count;
    char paths[MADE_MAX][DIRS_PATH_MAX];
} made;

static bool complain(const char *what, const char *path)
{
    tap_diag("cannot %s %s: %s", what, path, strerror(errno));
    return false;
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat, (void)type, (void)ftw;
    return remove(path);
}

void dir_remove(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* A forked child inherits the list, and must leave the directories to its parent. */
static void remove_made(void)
{
    if (made.owner != getpid()) return;
    for (size_t i = 0; i < made.count; i++) dir_remove(made.paths[i]);
}

/* A store that grows without end must fail its test, not fill the machine's disk. */
static void limit_file_sizes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur <= FILE_SIZE_MAX) return;
    limit.rlim_cur = FILE_SIZE_MAX;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void remember(const char *path)
{
    if (made.owner != getpid()) {
        made.owner = getpid();
        made.count = 0;
        atexit(remove_made);
        limit_file_sizes();
    }
    if (made.count < MADE_MAX) snprintf(made.paths[made.count++], DIRS_PATH_MAX, "%s", path);
}

bool dir_make(char path[DIRS_PATH_MAX], const char *tag)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] == 0) base = "/tmp";
    snprintf(path, DIRS_PATH_MAX, "%s/ringwood-%s-XXXXXX", base, tag);
    if (mkdtemp(path) == NULL) return complain("make", path);
    remember(path);
    return true;
}

void path_join(char path[DIRS_PATH_MAX], const char *dir, const char *name)
{
    int length = snprintf(path, DIRS_PATH_MAX, "%s/%s", dir, name);
    if (length < 0 || length >= DIRS_PATH_MAX) {
        tap_diag("path too long: %s/%s", dir, name);
        abort();
    }
}

static bool list_below(const char *root, const char *prefix, dir_listing *listing)
{
    char path[DIRS_PATH_MAX];
    path_join(path, root, prefix);
    DIR *dir = opendir(path);
    if (dir == NULL) return complain("list", path);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char name[DIRS_PATH_MAX], full[DIRS_PATH_MAX];
        struct stat stat;
        if (prefix[0] != 0) path_join(name, prefix, entry->d_name);
        else snprintf(name, sizeof(name), "%s", entry->d_name);
        path_join(full, root, name);
        if (lstat(full, &stat) != 0) continue;
        if (S_ISDIR(stat.st_mode)) list_below(root, name, listing);
        if (S_ISREG(stat.st_mode) && listing->count < DIRS_FILES_MAX) memcpy(listing->names[listing->count++], name, sizeof(name));
    }
    closedir(dir);
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

bool dir_list(const char *path, dir_listing *listing)
{
    listing->count = 0;
    if (!list_below(path, "", listing)) return false;
    qsort(listing->names, listing->count, DIRS_PATH_MAX, compare_names);
    return true;
}

static void make_parents(const char *path)
{
    char copy[DIRS_PATH_MAX];
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *slash = strchr(copy + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(copy, 0700);
        *slash = '/';
    }
}

bool dir_copy(const char *from, const char *to)
{
    static dir_listing listing;
    dir_remove(to);
    if (mkdir(to, 0700) != 0) return complain("make", to);
    if (!dir_list(from, &listing)) return false;
    for (size_t i = 0; i < listing.count; i++) {
        char source[DIRS_PATH_MAX], target[DIRS_PATH_MAX];
        path_join(source, from, listing.names[i]);
        path_join(target, to, listing.names[i]);
        make_parents(target);
        if (!file_copy(source, target)) return false;
    }
    return true;
}

static bool files_same(const char *a, const char *b)
{
    size_t size_a = 0, size_b = 0;
    uint8_t *bytes_a = file_read(a, &size_a), *bytes_b = file_read(b, &size_b);
    bool same = bytes_a != NULL && bytes_b != NULL && size_a == size_b && memcmp(bytes_a, bytes_b, size_a) == 0;
    free(bytes_a);
    free(bytes_b);
    return same;
}

bool dir_same(const char *a, const char *b, const char *except)
{
    static dir_listing in_a, in_b;
    if (!dir_list(a, &in_a) || !dir_list(b, &in_b)) return false;
    if (in_a.count != in_b.count) return false;
    for (size_t i = 0; i < in_a.count; i++) {
        char path_a[DIRS_PATH_MAX], path_b[DIRS_PATH_MAX];
        if (strcmp(in_a.names[i], in_b.names[i]) != 0) return false;
        path_join(path_a, a, in_a.names[i]);
        path_join(path_b, b, in_b.names[i]);
        bool compared = except == NULL || strcmp(in_a.names[i], except) != 0;
        if (compared && !files_same(path_a, path_b)) return false;
    }
    return true;
}

int64_t file_size(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (int64_t)status.st_size : -1;
}

static bool copy_range(int from, int to, off_t start, off_t end, char *buffer)
{
    while (start < end) {
        size_t chunk = (size_t)(end - start) < COPY_CHUNK ? (size_t)(end - start) : COPY_CHUNK;
        ssize_t got = pread(from, buffer, chunk, start);
        if (got <= 0 || pwrite(to, buffer, (size_t)got, start) != got) return false;
        start += got;
    }
    return true;
}

static bool copy_data(int from, int to)
{
    struct stat status;
    char *buffer = malloc(COPY_CHUNK);
    bool good = buffer != NULL && fstat(from, &status) == 0 && ftruncate(to, status.st_size) == 0;
    for (off_t at = 0; good && at < status.st_size;) {
        off_t start = lseek(from, at, SEEK_DATA);
        if (start < 0 && errno == ENXIO) break;
        off_t end = start < 0 ? -1 : lseek(from, start, SEEK_HOLE);
        good = end >= 0 && copy_range(from, to, start, end, buffer);
        at = end;
    }
    free(buffer);
    return good;
}

bool file_copy(const char *from, const char *to)
{
    int source = open(from, O_RDONLY | O_CLOEXEC);
    int target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool good = source >= 0 && target >= 0 && copy_data(source, target);
    if (!good) complain("copy", from);
    if (source >= 0) close(source);
    if (target >= 0) close(target);
    return good;
}

uint8_t *file_read(const char *path, size_t *size)
{
    int64_t bytes = file_size(path);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *data = bytes < 0 ? NULL : malloc((size_t)bytes + 1);
    size_t done = 0;
    while (file >= 0 && data != NULL && done < (size_t)bytes) {
        ssize_t got = pread(file, data + done, (size_t)bytes - done, (off_t)done);
        if (got <= 0) break;
        done += (size_t)got;
    }
    if (file >= 0) close(file);
    if (file < 0 || data == NULL || done != (size_t)bytes) {
        complain("read", path);
        free(data);
        return NULL;
    }
    *size = done;
    return data;
}

bool file_write_at(const char *path, uint64_t offset, const void *data, size_t size)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    bool good = file >= 0 && pwrite(file, data, size, (off_t)offset) == (ssize_t)size;
    if (!good) complain("write", path);
    if (file >= 0) close(file);
    return good;
}

bool file_zero(const char *path, uint64_t offset, uint64_t size)
{
    static const uint8_t zeros[65536];
    while (size > 0) {
        size_t chunk = size < sizeof(zeros) ? (size_t)size : sizeof(zeros);
        if (!file_write_at(path, offset, zeros, chunk)) return false;
        offset += chunk;
        size -= chunk;
    }
    return true;
}

bool file_truncate(const char *path, uint64_t size)
{
    return truncate(path, (off_t)size) == 0 || complain("truncate", path);
}

bool file_flip(const char *path, uint64_t offset, uint8_t mask)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;
    bool good = file >= 0 && pread(file, &byte, 1, (off_t)offset) == 1;
    byte ^= mask;
    good = good && pwrite(file, &byte, 1, (off_t)offset) == 1;
    if (!good) complain("flip a byte of", path);
    if (file >= 0) close(file);
    return good;
}

int64_t file_find(const char *path, const void *pattern, size_t size, uint64_t from)
{
    size_t total = 0;
    uint8_t *data = file_read(path, &total);
    int64_t found = -1;
    if (data != NULL && from < total) {
        uint8_t *at = memmem(data + from, total - from, pattern, size);
        if (at != NULL) found = at - data;
    }
    free(data);
    return found;
}
