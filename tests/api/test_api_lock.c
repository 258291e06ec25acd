/*
 * The lock between processes that may not do the same: readers of another user and of read-only mounts beside writers. What is no database of ours is left as it
 * is, its file `lock` above all. Pipes in the place of files are refused, not waited for.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

#define NOBODY 65534
#define NOT_PERMITTED 2
#define TIMEOUT 20

typedef struct {
    char parent[DIRS_PATH_MAX], dir[DIRS_PATH_MAX], file[DIRS_PATH_MAX];
    rw_options options;
    int expected;                 /* what a read-only open returns */
    pid_t holder;                 /* whom the message names; 0: nobody is asked for */
    bool as_nobody;
    volatile int opened, done;    /* of a child that holds the database */
} place;

static place *place_make(void)
{
    place *p = child_shared(sizeof *p);
    if (!dir_make(p->parent, "lock") || chmod(p->parent, 0755) != 0) exit(1);
    path_join(p->dir, p->parent, "db");
    p->options = options_small();
    return p;
}

static void database_make(place *p)
{
    rw_db *db = open_or_exit(p->dir, &p->options);
    CHECK_OK(put_text(db, BUCKET, "k", "v"));
    CHECK_OK(rw_close(db));
}

static bool words_name(pid_t pid)
{
    char text[24];
    snprintf(text, sizeof text, "process %d", (int)pid);
    return strstr(rw_last_error(NULL), text) != NULL;
}

static bool nobody_become(void)
{
    return geteuid() == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0;
}

/* ---- readers and writers ------------------------------------------------------------------------------------------ */

/* A read-only open and an offline check, which get the same. */
static int read_expecting(void *arg)
{
    place *p = arg;
    rw_db *db = NULL;
    if (p->as_nobody && !nobody_become()) return NOT_PERMITTED;
    p->options.read_only = 1;
    if (!CHILD_CODE(rw_open(p->dir, &p->options, &db), p->expected)) return 1;
    if (p->holder != 0 && !CHILD_CHECK(words_name(p->holder))) {
        child_say("process %d is not named: %s", (int)p->holder, rw_last_error(NULL));
        return 1;
    }
    if (db != NULL && (!CHILD_CHECK(get_is_text(db, BUCKET, "k", "v")) || !CHILD_CODE(rw_close(db), 0))) return 1;
    return CHILD_CODE(rw_verify(p->dir, ignore_finding, NULL), p->expected) ? 0 : 1;
}

static void read_check(place *p, int expected, pid_t holder, const char *what)
{
    p->expected = expected;
    p->holder = holder;
    p->as_nobody = true;
    int code = child_run(read_expecting, p, TIMEOUT);
    p->options.read_only = 0;
    tap_ok(code == 0, "%s: %d %s", what, code, child_said());
}

static int hold_and_die(void *arg)
{
    place *p = arg;
    rw_db *db = NULL;
    if (CHILD_CODE(rw_open(p->dir, &p->options, &db), 0)) kill(getpid(), SIGKILL);
    return 1;
}

static int hold_as_nobody(place *p)
{
    rw_db *db = NULL;
    alarm(TIMEOUT);
    rw_options options = p->options;
    options.read_only = 1;
    int code = nobody_become() ? rw_open(p->dir, &options, &db) : RW_EACCESS;
    p->opened = code == 0 ? 1 : -1;
    while (p->done == 0) usleep(1000);
    return code == 0 ? rw_close(db) : 1;
}

/* The lock file holds a dead writer's pid, which must not be taken for the reader's. */
static void test_writer_beside_reader(place *p)
{
    rw_db *db = NULL;
    TAP_CHECK(child_run(hold_and_die, p, TIMEOUT) == CHILD_SIGNAL(SIGKILL));
    pid_t reader = fork();
    if (reader == 0) _exit(hold_as_nobody(p) == 0 ? 0 : 1);
    while (p->opened == 0) usleep(1000);
    TAP_CHECK(p->opened == 1);
    CHECK_CODE(rw_open(p->dir, &p->options, &db), RW_EBUSY);
    tap_ok(db == NULL && words_name(reader), "a writer is told of a reader who may not write the lock file: %s", rw_last_error(NULL));
    CHECK_CODE(rw_verify(p->dir, ignore_finding, NULL), RW_EBUSY);
    read_check(p, 0, 0, "a reader does not disturb another one");
    p->done = 1;
    int status = 0;
    TAP_CHECK(waitpid(reader, &status, 0) == reader && status == 0);
    db = open_or_exit(p->dir, &p->options);
    tap_ok(get_is_text(db, BUCKET, "k", "v"), "without readers a writer gets it");
    CHECK_OK(rw_close(db));
}

static void test_other_user(void)
{
    place *p = place_make();
    if (geteuid() != 0) {
        tap_skip("only root can become another user");
        dir_remove(p->parent);
        return;
    }
    database_make(p);
    path_join(p->file, p->dir, LOCK_FILE);
    rw_db *db = open_or_exit(p->dir, &p->options);
    read_check(p, RW_EBUSY, getpid(), "a reader who may not write the lock file is told of a writer");
    CHECK_OK(rw_close(db));
    read_check(p, 0, 0, "a reader who may not write the lock file reads when nobody writes");
    test_writer_beside_reader(p);
    TAP_CHECK(chmod(p->file, 0600) == 0);
    read_check(p, RW_EACCESS, 0, "a reader who may not even read the lock file reads nothing");
    TAP_CHECK(unlink(p->file) == 0);
    read_check(p, 0, 0, "a reader who may not make the lock file goes without");
    TAP_CHECK(file_size(p->file) == -1);
    dir_remove(p->parent);
}

static bool mount_read_only(const char *from, const char *to)
{
    return child_own_mounts() && mount(from, to, NULL, MS_BIND, NULL) == 0 && mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == 0;
}

static int read_mounted(void *arg)
{
    place *p = arg;
    if (!mount_read_only(p->dir, p->file)) return NOT_PERMITTED;
    memcpy(p->dir, p->file, sizeof p->dir);
    return read_expecting(p);
}

static void test_read_only_mount(void)
{
    place *p = place_make();
    char dir[DIRS_PATH_MAX];
    database_make(p);
    memcpy(dir, p->dir, sizeof dir);
    path_join(p->file, p->parent, "mounted");
    TAP_CHECK(mkdir(p->file, 0755) == 0);
    rw_db *db = open_or_exit(dir, &p->options);
    p->expected = RW_EBUSY;
    p->holder = getpid();
    int code = child_run(read_mounted, p, TIMEOUT);
    if (code == NOT_PERMITTED) tap_skip("mounts are not permitted here");
    else tap_ok(code == 0, "a reader of a read-only mount is told of a writer elsewhere: %d %s", code, child_said());
    CHECK_OK(rw_close(db));
    dir_remove(p->parent);
}

/* ---- what is not ours --------------------------------------------------------------------------------------------- */

static bool file_make(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    return file != NULL && (fputs(text, file) >= 0) & (fclose(file) == 0);
}

static bool file_holds(const char *path, const char *text)
{
    size_t size = 0;
    uint8_t *bytes = file_read(path, &size);
    bool same = bytes != NULL && size == strlen(text) && memcmp(bytes, text, size) == 0;
    free(bytes);
    return same;
}

static void read_nothing(place *p)
{
    rw_db *db = NULL;
    p->options.create = 0;
    CHECK_CODE(rw_open(p->dir, &p->options, &db), RW_ENOENT);
    TAP_CHECK(strstr(rw_last_error(NULL), "data") != NULL);
    p->options.read_only = 1;
    CHECK_CODE(rw_open(p->dir, &p->options, &db), RW_ENOENT);
    CHECK_CODE(rw_verify(p->dir, ignore_finding, NULL), RW_ENOENT);
    p->options = options_small();
    TAP_CHECK(db == NULL);
}

static void test_no_database(void)
{
    place *p = place_make();
    path_join(p->file, p->dir, LOCK_FILE);
    read_nothing(p);
    tap_ok(access(p->dir, F_OK) != 0, "without a directory, reading makes none");
    TAP_CHECK(mkdir(p->dir, 0755) == 0);
    read_nothing(p);
    tap_ok(file_size(p->file) == -1, "where there is no database, reading makes no lock file");
    TAP_CHECK(file_make(p->file, "1234\n"));
    read_nothing(p);
    tap_ok(file_holds(p->file, "1234\n"), "and leaves one that is there as it is");
    dir_remove(p->parent);
}

static void test_foreign_lock_file(void)
{
    static const char *const foreign[] = {"somebody's\n", "12345678901234567890123456789012\n", "-1\n", "1234 \n"};
    static const char *const ours[] = {"", "1234\n", "99\n456\n", "1234"};
    place *p = place_make();
    rw_db *db = NULL;
    path_join(p->file, p->dir, LOCK_FILE);
    TAP_CHECK(mkdir(p->dir, 0755) == 0);
    for (uint32_t made = 0; made < 2; made++) {
        for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
            TAP_CHECK(file_make(p->file, foreign[i]));
            p->options.read_only = made;
            CHECK_CODE(rw_open(p->dir, &p->options, &db), RW_EFOREIGN);
            TAP_CHECK(db == NULL && strstr(rw_last_error(NULL), p->file) != NULL);
            CHECK_CODE(rw_verify(p->dir, ignore_finding, NULL), made ? RW_EFOREIGN : RW_ENOENT);
            tap_ok(file_holds(p->file, foreign[i]), "a lock file of somebody else's is refused, and left as it is");
        }
        p->options.read_only = 0;
        TAP_CHECK(unlink(p->file) == 0);
        if (!made) database_make(p);
    }
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        char text[24];
        TAP_CHECK(file_make(p->file, ours[i]));
        db = open_or_exit(p->dir, &p->options);
        snprintf(text, sizeof text, "%d\n", (int)getpid());
        tap_ok(file_holds(p->file, text), "one that a killed holder left is taken, and names the new one alone");
        CHECK_OK(rw_close(db));
        TAP_CHECK(file_size(p->file) == 0);
    }
    dir_remove(p->parent);
}

/* ---- pipes -------------------------------------------------------------------------------------------------------- */

static int open_pipe(void *arg)
{
    place *p = arg;
    rw_db *db = NULL;
    for (uint32_t read_only = 0; read_only < 2; read_only++) {
        p->options.read_only = read_only;
        if (!CHILD_CODE(rw_open(p->dir, &p->options, &db), RW_EINVAL)) return 1;
        if (!CHILD_CHECK(strstr(rw_last_error(NULL), "not a regular file") != NULL && strstr(rw_last_error(NULL), p->file) != NULL)) return 1;
    }
    if (!CHILD_CODE(rw_verify(p->dir, ignore_finding, NULL), RW_EINVAL)) return 1;
    p->options.read_only = 1;
    if (nobody_become() && !CHILD_CODE(rw_open(p->dir, &p->options, &db), RW_EINVAL)) return 1;
    return CHILD_CHECK(db == NULL) ? 0 : 1;
}

static void test_pipes(void)
{
    static const char *const names[] = {"data", "log", LOCK_FILE};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        place *p = place_make();
        database_make(p);
        path_join(p->file, p->dir, names[i]);
        TAP_CHECK(unlink(p->file) == 0 && mkfifo(p->file, 0644) == 0);
        int code = child_run(open_pipe, p, TIMEOUT);
        tap_ok(code == 0, "a pipe in the place of %s is refused: %d %s", names[i], code, child_said());
        dir_remove(p->parent);
    }
}

/* ---- a directory that cannot be made ------------------------------------------------------------------------------ */

static int create_read_only(void *arg)
{
    place *p = arg;
    rw_db *db = NULL;
    if (!mount_read_only(p->parent, p->parent)) return NOT_PERMITTED;
    if (!CHILD_CODE(rw_open(p->file, &p->options, &db), RW_EREADONLY)) return 1;
    if (!CHILD_CHECK(strstr(rw_last_error(NULL), "cannot make directory") != NULL)) return 1;
    if (!CHILD_CODE(rw_open(p->dir, &p->options, &db), RW_EREADONLY)) return 1;
    return CHILD_CHECK(strstr(rw_last_error(NULL), "lock file") != NULL) && CHILD_CHECK(db == NULL) ? 0 : 1;
}

static void test_directory_on_read_only(void)
{
    place *p = place_make();
    database_make(p);
    path_join(p->file, p->parent, "missing");
    int code = child_run(create_read_only, p, TIMEOUT);
    if (code == NOT_PERMITTED) tap_skip("mounts are not permitted here");
    else tap_ok(code == 0, "a directory that a read-only file system does not get is what is told: %d %s", code, child_said());
    dir_remove(p->parent);
}

int main(void)
{
    umask(022);
    test_other_user();
    test_read_only_mount();
    test_no_database();
    test_foreign_lock_file();
    test_pipes();
    test_directory_on_read_only();
    return tap_done();
}
