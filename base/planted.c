#include "base/planted.h"

#ifdef RW_PLANTED_BUGS
int rw_planted = RW_PLANTED_none;
#endif
