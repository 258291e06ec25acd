#include "tests/support/child.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAID_MAX ((size_t)1024)

static char *said;

void *child_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

void child_say(const char *format, ...)
{
    va_list args;
    if (said == NULL) return;
    va_start(args, format);
    vsnprintf(said, SAID_MAX, format, args);
    va_end(args);
}

const char *child_said(void)
{
    return said == NULL ? "" : said;
}

static void child_main(int (*fn)(void *arg), void *arg, unsigned timeout_seconds)
{
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGALRM, SIG_DFL);
    alarm(timeout_seconds);
    int status = fn(arg);
    fflush(NULL);
    _exit(status & 255);
}

int child_run(int (*fn)(void *arg), void *arg, unsigned timeout_seconds)
{
    int status = 0;
    if (said == NULL) said = child_shared(SAID_MAX);
    said[0] = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) child_main(fn, arg, timeout_seconds);
    if (child < 0 || waitpid(child, &status, 0) != child) abort();
    return WIFSIGNALED(status) ? CHILD_SIGNAL(WTERMSIG(status)) : WEXITSTATUS(status);
}

static bool write_text(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    bool good = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);
    if (file >= 0) close(file);
    return good;
}

/* Without privileges, a user namespace in which this user is root permits the mounts that the tests need. */
static bool become_root_of_a_namespace(void)
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    snprintf(map, sizeof(map), "0 %u 1", uid);
    if (!write_text("/proc/self/uid_map", map) || !write_text("/proc/self/setgroups", "deny")) return false;
    snprintf(map, sizeof(map), "0 %u 1", gid);
    return write_text("/proc/self/gid_map", map);
}

bool child_own_mounts(void)
{
    if (unshare(CLONE_NEWNS) != 0 && !become_root_of_a_namespace()) return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}
