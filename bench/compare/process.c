#include "bench/compare/process.h"

#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number after name in a file of lines; 0 when there is none. */
static uint64_t file_number(const char *path, const char *name)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    char line[256];
    uint64_t number = 0;
    size_t size = strlen(name);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, size) == 0 && sscanf(line + size, "%" SCNu64, &number) == 1) break;
    fclose(file);
    return number;
}

/* The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, in clock ticks. */
static double machine_cpu_us(void)
{
    unsigned long long t[8] = {0};
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL) return 0;
    int read = fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]);
    fclose(file);
    return read == 8 ? (double)(t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) * 1e6 / (double)sysconf(_SC_CLK_TCK) : 0;
}

void process_counters_read(process_counters *counters)
{
    counters->resident_max = file_number("/proc/self/status", "VmHWM:") * 1024;
    counters->anonymous = file_number("/proc/self/status", "RssAnon:") * 1024;
    counters->machine_cpu_us = machine_cpu_us();
    counters->read_bytes = file_number("/proc/self/io", "read_bytes:");
    counters->write_bytes = file_number("/proc/self/io", "write_bytes:");
}

void process_resident_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t written = write(fd, "5", 1);
    (void)written; /* refused: the maximum goes on from before, which is the worst that can be said of an engine */
    close(fd);
}

static uint64_t directory_sum; /* nftw hands nothing on */

static int entry_add(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)path, (void)place;
    if (kind == FTW_F) directory_sum += (uint64_t)status->st_blocks * 512;
    return 0;
}

uint64_t process_directory_bytes(const char *path)
{
    directory_sum = 0;
    nftw(path, entry_add, 16, FTW_PHYS);
    return directory_sum;
}
