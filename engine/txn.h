/* The transaction object, between txn.c and cursor.c. */
#ifndef RW_ENGINE_TXN_H
#define RW_ENGINE_TXN_H

#include "engine/engine_internal.h"

struct rw_txn {
    engine *e;
    rw_db *db;
    write_set *writes;             /* NULL when it has ended */
    unsigned cursors;              /* open ones */
    bool read_only;
    bool ended;                    /* kept only for its cursors */
};

int txn_usable(rw_txn *txn, engine **e);
void txn_cursor_closed(rw_txn *txn);

#endif
