/* Which way to make writes durable is the faster one on a device: measured, and the rule that follows from it. */
#include <stdlib.h>

#include "base/base.h"
#include "kernel_io/kernel_io.h"

#ifdef RW_TINY
#define PAIRS_MAX 4u
#else
#define PAIRS_MAX 32u
#endif
#define MEASURE_NS_MAX 50000000u    /* altogether, but for the last pair: an open must not be felt */

typedef struct {
    kio *k;
    kio_file *file;
    const void *zeros;
    uint64_t offset, bytes, at;     /* the range, and how far it is used up */
} measurement;

/* The time of one block in the given way. */
static int block_measure(measurement *m, bool durable_write, uint32_t *ns)
{
    uint64_t offset = m->offset + m->at, begin = kio_now_ns(m->k);
    m->at = (m->at + RW_BLOCK_SIZE) % m->bytes;
    int rc = durable_write ? kio_file_write_durable(m->k, m->file, m->zeros, RW_BLOCK_SIZE, offset)
                           : kio_file_write(m->k, m->file, m->zeros, RW_BLOCK_SIZE, offset);
    if (rc == 0 && !durable_write) rc = kio_file_sync(m->k, m->file);
    uint64_t took = kio_now_ns(m->k) - begin;
    *ns = (uint32_t)RW_MIN(RW_MAX(took, (uint64_t)1), (uint64_t)UINT32_MAX);
    return rc;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t median(uint32_t *samples, unsigned count)
{
    qsort(samples, count, sizeof *samples, by_size);
    return samples[count / 2];
}

int kio_sync_times_measure(kio *k, kio_file *file, uint64_t offset, uint64_t bytes, const void *zeros, kio_sync_times *times)
{
    RW_ASSERT(bytes >= RW_BLOCK_SIZE && bytes % RW_BLOCK_SIZE == 0);
    measurement m = {.k = k, .file = file, .zeros = zeros, .offset = offset, .bytes = bytes};
    uint32_t sync[PAIRS_MAX], durable[PAIRS_MAX];
    uint64_t begin = kio_now_ns(k);
    unsigned pairs = 0;
    bool possible = true;
    /* In turns, so that what else the device does meanwhile falls on both alike. */
    while (pairs < PAIRS_MAX && (pairs == 0 || kio_now_ns(k) - begin < MEASURE_NS_MAX)) {
        int rc = block_measure(&m, false, &sync[pairs]);
        if (rc == 0 && possible) {
            rc = block_measure(&m, true, &durable[pairs]);
            possible = rc != RW_ENOTSUP;
            if (!possible) rc = 0;
        }
        if (rc != 0) return rc;
        pairs++;
    }
    *times = (kio_sync_times){.device = kio_file_device(k, file), .sync_ns = median(sync, pairs), .durable_write_ns = possible ? median(durable, pairs) : 0};
    return 0;
}

/* Where both are about the same, the sync: a batch of several writes needs only one. */
bool kio_sync_times_prefer_durable_write(const kio_sync_times *times)
{
    return times->durable_write_ns != 0 && (uint64_t)times->durable_write_ns * 10 < (uint64_t)times->sync_ns * 9;
}
