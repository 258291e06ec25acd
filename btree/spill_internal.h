/* Between spill.c and spill_write.c. */
#ifndef RW_SPILL_INTERNAL_H
#define RW_SPILL_INTERNAL_H

#include "btree/spill.h"

/* While it is being made. */
void spill_filter_note(spill *s, const pool *p, uint64_t hash);

#endif
