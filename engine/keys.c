/* Stored keys: the bucket's id, big-endian, and the user's key behind it. */
#include "engine/engine_internal.h"

static int key_store(stored_key *out, rw_bucket bucket, rw_slice key)
{
    size_t size = RW_BUCKET_PREFIX + key.size;
    unsigned char *to = out->small;
    out->heap = NULL;
    if (size > sizeof out->small) {
        to = out->heap = malloc(size);
        if (to == NULL) return rw_error(RW_ENOMEM, "no memory for a key of %zu bytes", key.size);
    }
    bucket_prefix_store(to, bucket);
    if (key.size > 0) memcpy(to + RW_BUCKET_PREFIX, key.data, key.size);
    out->slice = rw_slice_of(to, size);
    return 0;
}

static int key_check(engine *e, rw_slice key)
{
    if (RW_UNLIKELY(key.size > e->key_max))
        return rw_error(RW_ETOOBIG, "the key has %zu bytes, at most %u are possible with pages of %u bytes", key.size, e->key_max, e->page_size);
    if (RW_UNLIKELY(key.data == NULL && key.size > 0)) return rw_error(RW_EINVAL, "the key is NULL but has %zu bytes", key.size);
    return 0;
}

int key_make(engine *e, rw_bucket bucket, rw_slice key, stored_key *out)
{
    return key_make_at(e, bucket, BUCKET_LIVE, key, out);
}

int key_make_at(engine *e, rw_bucket bucket, uint64_t moment, rw_slice key, stored_key *out)
{
    int error = bucket_check_at(e, bucket, moment);
    if (error == 0) error = key_check(e, key);
    if (error != 0) return error;
    if (RW_UNLIKELY(key.size == 0)) return rw_error(RW_EINVAL, "the key is empty");
    return key_store(out, bucket, key);
}

int key_make_bound(engine *e, rw_bucket bucket, uint64_t moment, rw_slice key, bool after, stored_key *out)
{
    int error = bucket_check_at(e, bucket, moment);
    if (error == 0) error = key_check(e, key);
    if (error != 0) return error;
    return after && key.size == 0 ? key_store(out, bucket + 1, key) : key_store(out, bucket, key);
}

int value_check(rw_slice value)
{
    if (RW_UNLIKELY(value.data == NULL && value.size > 0)) return rw_error(RW_EINVAL, "the value is NULL but has %zu bytes", value.size);
    if (RW_UNLIKELY(value.size > RW_VALUE_SIZE_MAX))
        return rw_error(RW_ETOOBIG, "the value has %zu bytes, at most %zu are possible", value.size, RW_VALUE_SIZE_MAX);
    return 0;
}

const char *key_text(rw_slice stored, char text[KEY_TEXT_MAX])
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *bytes = stored.data;
    size_t used = 0, i = RW_BUCKET_PREFIX;
    text[used++] = '\'';
    for (; i < stored.size && used < KEY_TEXT_MAX - 48; i++) {
        unsigned char c = bytes[i];
        if (c >= 0x20 && c < 0x7f && c != '\'' && c != '\\') {
            text[used++] = (char)c;
            continue;
        }
        text[used++] = '\\';
        text[used++] = 'x';
        text[used++] = hex[c >> 4];
        text[used++] = hex[c & 15];
    }
    if (i < stored.size) used += (size_t)snprintf(text + used, 4, "...");
    text[used++] = '\'';
    text[used] = 0;
    uint32_t bucket = __builtin_bswap32(rw_load_u32(bytes));
    if (bucket != RW_DEFAULT_BUCKET) snprintf(text + used, KEY_TEXT_MAX - used, " of bucket number %u", bucket);
    return text;
}
