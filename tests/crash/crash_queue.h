/* Between crash_queue.c, which lets operations go through a queue, and crash_queue_ops.c, which makes them and looks at what became of them. */
#ifndef TESTS_CRASH_QUEUE_H
#define TESTS_CRASH_QUEUE_H

#include "tests/crash/crash_txn.h"

#define QUEUE_DEPTH_MAX 12u
#define QUEUE_KEYS_MAX 6u        /* of one multi-get */
#define QUEUE_BLOCKS_MAX (2u * QUEUE_KEYS_MAX + 2u)

/* What an operation works on. Those on shared keys are under way one at a time: the record has one strand for each client. */
typedef enum { ON_OWN, ON_SHARED } queue_item_kind;

typedef struct {
    rw_op op;
    bool is_used, under_way;
    bool is_cancelled;           /* rw_cancel said so */
    queue_item_kind kind;
    uint32_t commit;             /* ON_OWN, writes: its number in the history */
    bool was_there;              /* a delete's key */
    /* reads of slots */
    uint32_t key_count, owners[QUEUE_KEYS_MAX], slots[QUEUE_KEYS_MAX], expected[QUEUE_KEYS_MAX];
    rw_get_item items[QUEUE_KEYS_MAX];
    size_t room, limit;          /* of a scan */
    uint32_t index, index_end;   /* of a scan: of the own range of keys */
    /* ON_SHARED */
    shared_work work;
    uint32_t shared_key;
    bool removes;
    crash_bucket bucket;
    uint32_t place, places;
    /* memory that the operation points to */
    void *blocks[QUEUE_BLOCKS_MAX];
    unsigned block_count;
} queue_item;

typedef struct {
    client *c;
    rw_queue *queue;
    int descriptor;              /* -1: not asked for */
    unsigned depth, under_way;
    bool *touched;               /* for each slot: by some operation of the group, which others leave alone */
    uint32_t group_commits;
    bool shared_under_way;
    bool is_closed;
    queue_item items[QUEUE_DEPTH_MAX];
} queue_session;

/* Makes an operation of some kind. False: there is nothing to be submitted. */
bool queue_item_make(queue_session *s, queue_item *item);
/* After it was reaped, or the queue was closed. */
void queue_item_over(queue_session *s, queue_item *item);

#endif
