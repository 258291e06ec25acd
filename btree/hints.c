#include "btree/hints.h"

#include "base/memory.h"

int hints_open(key_hints *h, size_t bytes)
{
    *h = (key_hints){0};
    const size_t bucket = HINT_PLACES * sizeof(uint64_t);
    unsigned bits = 0;
    while (((size_t)2 << bits) * bucket <= bytes) bits++;
    if (((size_t)1 << bits) * bucket > bytes || bits == 0) return 0;
    h->bytes = ((size_t)1 << bits) * bucket;
    h->shift = 64 - bits;
    h->entries = rw_memory_map(h->bytes);
    return h->entries != NULL ? 0 : rw_error(RW_ENOMEM, "no memory for hints, %zu bytes", h->bytes);
}

void hints_close(key_hints *h)
{
    rw_memory_unmap((void *)h->entries, h->bytes);
    h->entries = NULL;
}
