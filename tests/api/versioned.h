/* Numbered records whose values tell number and version, and what each of them should hold. The includer defines RECORDS, and opens db. */
#ifndef TESTS_API_VERSIONED_H
#define TESTS_API_VERSIONED_H

#include <stdio.h>

#include "tests/support/rw_helpers.h"

#define VALUE_BYTES 100u
#define GONE UINT32_MAX

static rw_db *db;
static uint32_t version_of[RECORDS];   /* what each record should hold; GONE: it is deleted */

static rw_slice value_of(char to[VALUE_BYTES], uint64_t number, uint32_t version)
{
    memset(to, 'v', VALUE_BYTES);
    snprintf(to, VALUE_BYTES, "%llu version %u", (unsigned long long)number, version);
    return slice_bytes(to, VALUE_BYTES - version % 7); /* lengths change, too */
}

static bool put(uint64_t number, uint32_t version)
{
    char key[16], value[VALUE_BYTES];
    version_of[number] = version;
    return CHECK_OK(rw_put(db, BUCKET, key_numbered(key, number), value_of(value, number, version), RW_ASYNC));
}

static bool holds(uint64_t number)
{
    char key[16], value[VALUE_BYTES];
    if (version_of[number] == GONE) return get_code(db, BUCKET, key_numbered(key, number)) == RW_ENOTFOUND;
    return get_is(db, BUCKET, key_numbered(key, number), value_of(value, number, version_of[number]));
}

#endif
