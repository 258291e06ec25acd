#include "bench/environment.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

static void set_text(char *to, size_t room, const char *from)
{
    snprintf(to, room, "%s", from);
}

/* The first line of a small file, without the newline. Empty when it cannot be read. */
static void file_line(const char *path, char *line, size_t room)
{
    line[0] = '\0';
    FILE *file = fopen(path, "re");
    if (file == NULL) return;
    if (fgets(line, (int)room, file) == NULL) line[0] = '\0';
    fclose(file);
    size_t size = strcspn(line, "\n");
    while (size > 0 && line[size - 1] == ' ') size--;
    line[size] = '\0';
}

static void processor_read(bench_environment *environment)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    environment->cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : online > 0 ? (unsigned)online : 1;
    set_text(environment->processor, sizeof environment->processor, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL) return;
    char line[256];
    while (fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        colon[1 + strcspn(colon + 1, "\n")] = '\0';
        set_text(environment->processor, sizeof environment->processor, colon + 1 + strspn(colon + 1, " "));
        break;
    }
    fclose(file);
}

/* Splits off the next blank-separated word of *at; NULL at the end. */
static char *next_word(char **at)
{
    *at += strspn(*at, " ");
    if (**at == '\0') return NULL;
    char *word = *at;
    *at += strcspn(*at, " \n");
    if (**at != '\0') *(*at)++ = '\0';
    return word;
}

/* How well a mount fits: 0 not at all; its point is a prefix of the directory, the longer the better; best, the device is the directory's. Btrfs and
 * overlays give files a device of their own, so the second way is needed. */
static size_t mount_fits(const char *numbers, const char *point, dev_t device, const char *directory)
{
    unsigned major_number, minor_number;
    if (sscanf(numbers, "%u:%u", &major_number, &minor_number) == 2 && makedev(major_number, minor_number) == device) return PATH_MAX;
    size_t size = strlen(point);
    if (strcmp(point, "/") == 0) return 1;
    return strncmp(point, directory, size) == 0 && (directory[size] == '/' || directory[size] == '\0') ? size : 0;
}

/* A line of mountinfo: id parent major:minor root mount-point options [fields] - type source super-options. */
static void mount_consider(char *line, dev_t device, bench_environment *environment, size_t *best)
{
    char *dash = strstr(line, " - ");
    if (dash == NULL) return;
    char *at = line, *words[6], *after = dash + 3;
    *dash = '\0';
    for (int i = 0; i < 6; i++)
        if ((words[i] = next_word(&at)) == NULL) return;
    char *type = next_word(&after), *source = next_word(&after);
    size_t fits = mount_fits(words[2], words[4], device, environment->directory);
    if (type == NULL || source == NULL || fits == 0 || fits < *best) return;
    *best = fits;
    set_text(environment->file_system, sizeof environment->file_system, type);
    set_text(environment->device, sizeof environment->device, source);
    set_text(environment->mount_options, sizeof environment->mount_options, words[5]);
}

static void mount_read(bench_environment *environment, dev_t device)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (file == NULL) return;
    char line[4096];
    size_t best = 0;
    while (fgets(line, sizeof line, file) != NULL) mount_consider(line, device, environment, &best);
    fclose(file);
}

/* Attributes of the whole disk: of the device itself, or of the one that a partition is part of. */
static void disk_attribute(dev_t device, const char *name, char *value, size_t room)
{
    char path[160];
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major(device), minor(device), name);
    file_line(path, value, room);
    if (value[0] != '\0') return;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../%s", major(device), minor(device), name);
    file_line(path, value, room);
}

void bench_environment_read(bench_environment *environment, const char *directory)
{
    memset(environment, 0, sizeof *environment);
    struct utsname name;
    if (uname(&name) == 0)
        snprintf(environment->kernel, sizeof environment->kernel, "%.20s %.60s %.40s", name.sysname, name.release, name.machine);
    processor_read(environment);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    environment->memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    char *absolute = realpath(directory, NULL);
    set_text(environment->directory, sizeof environment->directory, absolute != NULL ? absolute : directory);
    free(absolute);
    set_text(environment->file_system, sizeof environment->file_system, "unknown");
    set_text(environment->device, sizeof environment->device, "unknown");
    struct stat status;
    if (stat(directory, &status) != 0) return;
    mount_read(environment, status.st_dev);
    environment->memory_only = strcmp(environment->file_system, "tmpfs") == 0 || strcmp(environment->file_system, "ramfs") == 0;
    disk_attribute(status.st_dev, "device/model", environment->device_model, sizeof environment->device_model);
    disk_attribute(status.st_dev, "queue/write_cache", environment->write_cache, sizeof environment->write_cache);
}
