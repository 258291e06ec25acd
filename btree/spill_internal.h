/* Between spill.c and spill_write.c. */
#ifndef RW_SPILL_INTERNAL_H
#define RW_SPILL_INTERNAL_H

#include "btree/spill.h"

/* While it is being made. */
void spill_filter_note(spill *s, const pool *p, uint64_t hash);
/* Makes the node that lies in frame f the last of its parents. False: there is no memory. */
bool spill_parent_add(spill *s, uint32_t f);
bool spill_inner_add(spill *s, page_ref ref);

#endif
