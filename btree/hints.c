#include "btree/hints.h"

#include "base/memory.h"

#define POPULATE_BYTES ((size_t)2 << 20)   /* a huge page */

int hints_open(key_hints *h, size_t bytes)
{
    *h = (key_hints){0};
    const size_t bucket = HINT_PLACES * sizeof(uint64_t);
    unsigned bits = 0;
    while (((size_t)2 << bits) * bucket <= bytes) bits++;
    if (((size_t)1 << bits) * bucket > bytes || bits == 0) return 0;
    h->bytes = ((size_t)1 << bits) * bucket;
    h->shift = 64 - bits;
    h->area = rw_memory_map(h->bytes);
    if (h->area == NULL) return rw_error(RW_ENOMEM, "no memory for hints, %zu bytes", h->bytes);
    if (h->bytes <= POPULATE_BYTES) {
        h->populated = h->bytes;
        atomic_store(&h->entries, h->area);
    }
    return 0;
}

bool hints_populate(key_hints *h)
{
    if (h->populated == h->bytes) return false;
    rw_memory_populate((unsigned char *)(void *)h->area + h->populated, POPULATE_BYTES);
    h->populated += POPULATE_BYTES;
    if (h->populated == h->bytes) atomic_store(&h->entries, h->area);
    return true;
}

void hints_close(key_hints *h)
{
    rw_memory_unmap((void *)h->area, h->bytes);
    h->area = NULL;
    atomic_store(&h->entries, NULL);
}
