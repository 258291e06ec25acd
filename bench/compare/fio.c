#include "bench/compare/fio.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT = 8192, FILE_BYTES_MIN = 16 << 20, BLOCK_BYTES = 4096 };

/* Fields of a line of fio's terse output, version 3, from 0: those of reads, and those of writes. */
enum { TERSE_VERSION = 0, TERSE_READ = 5, TERSE_WRITE = 46, TERSE_KIB = 0, TERSE_MS = 3 };

bool compare_fio_is_installed(void)
{
    const char *path = getenv("PATH");
    while (path != NULL && *path != '\0') {
        size_t size = strcspn(path, ":");
        char name[4096];
        snprintf(name, sizeof name, "%.*s/fio", (int)size, path);
        if (access(name, X_OK) == 0) return true;
        path += size + (path[size] == ':');
    }
    return false;
}

/* Runs fio in directory; what it says on both outputs, cut where the room ends, is in output. Its exit code; -1: it could not be run, or was killed. */
static int fio_call(const char *directory, const char *const *arguments, char output[OUTPUT])
{
    int ends[2];
    size_t size = 0;
    output[0] = '\0';
    if (pipe(ends) != 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (chdir(directory) == 0 && dup2(ends[1], STDOUT_FILENO) >= 0 && dup2(ends[1], STDERR_FILENO) >= 0) {
            close(ends[0]);
            close(ends[1]);
            execvp("fio", (char *const *)(uintptr_t)arguments);
        }
        _exit(127);
    }
    close(ends[1]);
    for (;;) {
        char rest[512];
        bool full = size + 1 >= OUTPUT;
        ssize_t got = pid > 0 ? read(ends[0], full ? rest : output + size, full ? sizeof rest : OUTPUT - 1 - size) : 0;
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        if (!full) size += (size_t)got;
    }
    output[size] = '\0';
    close(ends[0]);
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0) RW_ASSERT(errno == EINTR);
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int fio_failed(char output[OUTPUT])
{
    output[strcspn(output, "\n")] = '\0';
    return rw_error(RW_EIO, "fio did not do its work: %.200s", output[0] != '\0' ? output : "it said nothing");
}

/* Makes the file and writes all of it, so that no job meets a hole. */
static int file_make(const char *directory, uint64_t bytes, char output[OUTPUT])
{
    char size[48];
    snprintf(size, sizeof size, "--size=%llu", (unsigned long long)bytes);
    const char *arguments[] = {"fio", "--name=layout", "--filename=fio.data", "--rw=write", "--bs=1m", "--direct=1", "--ioengine=psync", "--end_fsync=1", "--thread", size, NULL};
    return fio_call(directory, arguments, output) == 0 ? 0 : fio_failed(output);
}

/* The number in a field of a line of fields divided by ';'; 0 when there is none. */
static uint64_t terse_number(const char *line, unsigned field)
{
    for (; field > 0 && line != NULL; field--) {
        line = strchr(line, ';');
        if (line != NULL) line++;
    }
    return line != NULL ? strtoull(line, NULL, 10) : 0;
}

static int job_run(const compare_stage *stage, const compare_workload *workload, const char *directory, char output[OUTPUT], compare_measurement *m)
{
    bool reads = workload->fio == COMPARE_FIO_READ;
    char depth[32], runtime[48];
    snprintf(depth, sizeof depth, "--iodepth=%u", compare_workload_depth(workload));
    snprintf(runtime, sizeof runtime, "--runtime=%.0fms", stage->seconds * 1000);
    const char *arguments[] = {"fio", "--name=job", "--filename=fio.data", "--bs=4k", "--direct=1", "--time_based", "--thread", "--output-format=terse", "--terse-version=3",
                               runtime, depth, reads ? "--rw=randread" : "--rw=write", reads ? "--ioengine=libaio" : "--ioengine=psync", reads ? "--norandommap" : "--fdatasync=1", NULL};
    int code = fio_call(directory, arguments, output);
    const char *line = strstr(output, "3;fio-");
    if (code != 0 || line == NULL) return fio_failed(output);
    unsigned first = reads ? TERSE_READ : TERSE_WRITE;
    m->operations = terse_number(line, first + TERSE_KIB) * 1024 / BLOCK_BYTES;
    m->seconds = (double)terse_number(line, first + TERSE_MS) / 1000;
    if (m->operations == 0 || m->seconds <= 0) return fio_failed(output);
    m->done = true;
    return 0;
}

void compare_fio_run(const compare_stage *stage, const char *directory, compare_turn *turn)
{
    char output[OUTPUT];
    bool made = false;
    int code = 0;
    for (unsigned i = 0; i < stage->count && code == 0; i++) {
        if (stage->workloads[i].fio == COMPARE_NO_FIO) continue;
        if (!made) code = file_make(directory, RW_MAX(rw_align_up(stage->settings.data_bytes, (uint64_t)1 << 20), (uint64_t)FILE_BYTES_MIN), output);
        made = true;
        if (code == 0) code = job_run(stage, &stage->workloads[i], directory, output, &turn->workloads[i]);
    }
    turn->code = code;
    if (code != 0) snprintf(turn->complaint, sizeof turn->complaint, "%s", rw_error_text());
    turn->finished = code == 0;
}

static void fio_version(char text[COMPARE_TEXT])
{
    char output[OUTPUT];
    if (fio_call(".", (const char *const[]){"fio", "--version", NULL}, output) != 0 || strncmp(output, "fio-", 4) != 0) output[0] = '\0';
    output[strcspn(output, "\n")] = '\0';
    snprintf(text, COMPARE_TEXT, "%.200s", output[0] != '\0' ? output + 4 : "(none)");
}

static void fio_describe(const compare_settings *settings, char text[COMPARE_TEXT])
{
    (void)settings;
    snprintf(text, COMPARE_TEXT, "no engine but the device: 4 KiB, direct I/O; reads at random, libaio, as many at once as the workload has; writes one after the other, each followed by fdatasync");
}

const compare_adapter compare_fio = {.name = "fio", .title = "fio", .yardstick = true, .direct_possible = true, .version = fio_version, .describe = fio_describe};
