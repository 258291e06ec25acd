/* The verb compare: a program of its own, since it is linked with the engines that it compares ringwood with. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/verb.h"

#define PROGRAM "ringwood-compare"

/* The directory that this command lies in, without the last slash. false: it cannot be found out. */
static bool own_directory(char *path, size_t room)
{
    ssize_t size = readlink("/proc/self/exe", path, room - 1);
    if (size <= 0) return false;
    path[size] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL) return false;
    *slash = '\0';
    return true;
}

/* In the build tree it lies in a folder of its own, installed beside the command. */
int verb_compare(int argc, char **argv)
{
    static const char *const places[] = {"compare/" PROGRAM, PROGRAM};
    char directory[PATH_MAX], path[PATH_MAX + 64];
    (void)argc;
    if (!own_directory(directory, sizeof directory)) {
        cli_error("cannot find out where this command lies: %s", strerror(errno));
        return EXIT_STORAGE;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, places[i]);
        if (access(path, X_OK) != 0) continue;
        execv(path, argv);
        cli_error("%s: %s", path, strerror(errno));
        return EXIT_STORAGE;
    }
    cli_error("%s is not beside %s/ringwood: make compare builds it, with the engines that are installed", PROGRAM, directory);
    return EXIT_USAGE;
}
