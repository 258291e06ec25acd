#include "bench/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

int bench_scratch_make(bench_scratch *scratch, const char *prefix)
{
    snprintf(scratch->path, sizeof scratch->path, "./%s-XXXXXX", prefix);
    if (mkdtemp(scratch->path) != NULL) return 0;
    return rw_error_errno(rw_error_from_errno(errno), errno, "cannot make a directory under the present one");
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

int bench_scratch_remove(const char *path)
{
    if (nftw(path, entry_remove, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0 || errno == ENOENT) return 0;
    return rw_error_errno(rw_error_from_errno(errno), errno, "cannot remove %s", path);
}
