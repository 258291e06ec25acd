#include "bench/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

int bench_scratch_make_in(bench_scratch *scratch, const char *directory, const char *prefix)
{
    int size = snprintf(scratch->path, sizeof scratch->path, "%s/%s-XXXXXX", directory, prefix);
    if (size >= (int)sizeof scratch->path) return rw_error(RW_EINVAL, "the name of the directory %s is too long", directory);
    if (mkdtemp(scratch->path) != NULL) return 0;
    return rw_error_errno(rw_error_from_errno(errno), errno, "cannot make a directory in %s", directory);
}

int bench_scratch_make(bench_scratch *scratch, const char *prefix)
{
    return bench_scratch_make_in(scratch, ".", prefix);
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
