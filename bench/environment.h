/* What a measurement ran on: the kernel, the processor, the memory, and the file system and device under a directory. */
#ifndef BENCH_ENVIRONMENT_H
#define BENCH_ENVIRONMENT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char kernel[128];
    char processor[96];
    unsigned cpus;              /* that this process may use */
    uint64_t memory_bytes;
    char directory[512];        /* absolute */
    char file_system[32];       /* its type */
    char mount_options[160];
    char device[96];            /* as mounted */
    char device_model[96];      /* empty: not known */
    char write_cache[32];       /* as the block layer sees it, "write back" or "write through"; empty: not known */
    bool memory_only;           /* tmpfs or ramfs: nothing is ever durable there */
} bench_environment;

/* What cannot be found out is left empty or said to be unknown. */
void bench_environment_read(bench_environment *environment, const char *directory);

#endif
