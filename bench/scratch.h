/* Directories of a run's own: made under the present directory, on the file system that the user stands on, and removed at the end. */
#ifndef BENCH_SCRATCH_H
#define BENCH_SCRATCH_H

#include <limits.h>

typedef struct {
    char path[PATH_MAX];
} bench_scratch;

/* Makes ./prefix-XXXXXX. 0, or a negative code. */
int bench_scratch_make(bench_scratch *scratch, const char *prefix);
/* Makes directory/prefix-XXXXXX. The same. */
int bench_scratch_make_in(bench_scratch *scratch, const char *directory, const char *prefix);
/* Removes a directory with all that is in it. 0, or a negative code; what is not there is success. */
int bench_scratch_remove(const char *path);

#endif
