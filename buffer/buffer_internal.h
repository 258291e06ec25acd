/* Between the files of buffer/. */
#ifndef RW_BUFFER_INTERNAL_H
#define RW_BUFFER_INTERNAL_H

#include "buffer/buffer.h"

/* Drops a clean page without resident children from the cache. Under its partition's token. */
void evict_clean(pool *p, uint32_t f);
/* Writes pages of a partition whose token the caller holds, waiting for the disk, and evicts those that are cool. */
int write_batch_now(pool *p, write_batch *batch, partition *held, const uint32_t *frames, uint32_t count);

/* For a holder of tokens: pages of theirs that others have written are let go, which these could not do without the tokens. */
void write_batches_let_go(pool *p, const partition_set *held);

#endif
