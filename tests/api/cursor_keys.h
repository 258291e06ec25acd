/* Keys for the tests of cursors over one unchanging state. */
#ifndef TESTS_CURSOR_KEYS_H
#define TESTS_CURSOR_KEYS_H

#include <stdio.h>

#include "tests/support/rw_helpers.h"

#define KEY_ROOM 256

/* Numbers in order, keys of many lengths. */
static inline rw_slice key_of(int number, char key[KEY_ROOM])
{
    size_t size = (size_t)snprintf(key, KEY_ROOM, "key %05d", number), tail = number % 97 == 0 ? 200 : (size_t)(number % 9);
    memset(key + size, 'x', tail);
    return slice_bytes(key, size + tail);
}

#endif
