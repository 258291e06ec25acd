/* What the kernel tells of this process and of the files of a directory. */
#ifndef BENCH_COMPARE_PROCESS_H
#define BENCH_COMPARE_PROCESS_H

#include <stdint.h>

typedef struct {
    uint64_t resident_max;      /* bytes, since process_resident_reset */
    uint64_t anonymous;         /* resident now, without what maps files */
    double machine_cpu_us;      /* that all of the machine spent, idle time apart */
    uint64_t read_bytes, write_bytes; /* that the process caused at the device, threads that ended included */
} process_counters;

/* What cannot be read is 0. */
void process_counters_read(process_counters *counters);
/* Begins a new maximum. Without effect where the kernel does not allow it. */
void process_resident_reset(void);
/* Disk space of all files below, bytes. */
uint64_t process_directory_bytes(const char *path);

#endif
