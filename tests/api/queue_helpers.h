/* A queue with operations of its own, for programs that test queues. */
#ifndef TESTS_QUEUE_HELPERS_H
#define TESTS_QUEUE_HELPERS_H

#include "tests/support/dirs.h"
#include "tests/support/rw_helpers.h"

#define QUEUE_KEY_SIZE 16u
#define QUEUE_VALUE_SIZE 100u

/* Spread over the key space: neighbours by number are none by key. */
static inline void numbered_key(uint64_t number, unsigned char key[QUEUE_KEY_SIZE])
{
    uint64_t spread = number * 0x9e3779b97f4a7c15u;
    for (unsigned i = 0; i < 8; i++) key[i] = (unsigned char)(spread >> (56 - 8 * i));
    memcpy(key + 8, &number, sizeof number);
}

static inline void numbered_value(uint64_t number, uint64_t generation, unsigned char value[QUEUE_VALUE_SIZE])
{
    memset(value, (int)(number % 251), QUEUE_VALUE_SIZE);
    memcpy(value, &number, sizeof number);
    memcpy(value + 8, &generation, sizeof generation);
}

static inline bool value_is(const unsigned char *value, size_t size, uint64_t number, uint64_t generation)
{
    unsigned char expected[QUEUE_VALUE_SIZE];
    numbered_value(number, generation, expected);
    return size == sizeof expected && memcmp(value, expected, size) == 0;
}

static inline void fill_numbered(rw_db *db, uint64_t count)
{
    unsigned char key[QUEUE_KEY_SIZE], value[QUEUE_VALUE_SIZE];
    for (uint64_t i = 0; i < count; i++) {
        numbered_key(i, key);
        numbered_value(i, 0, value);
        if (!CHECK_OK(rw_put(db, BUCKET, slice_bytes(key, sizeof key), slice_bytes(value, sizeof value), RW_ASYNC))) return;
    }
}

/* Submits one operation and waits for it. The operation's result, or what the queue said. */
static inline int run_one(rw_queue *q, rw_op *op)
{
    rw_op *done = NULL;
    int code = rw_submit(q, &op, 1);
    if (code != 0) return code;
    code = rw_reap(q, &done, 1, 1, -1);
    if (code != 1 || done != op) {
        tap_ok(false, "one operation was submitted, and rw_reap returned %d", code);
        return RW_EINVAL;
    }
    return op->result;
}

#endif
