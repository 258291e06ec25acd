/* The description of the records that is kept in the database. */
#include <jansson.h>

#include "base/base.h"
#include "bench/dataset.h"

#define DATASET_BUCKET "ringwood-bench"
#define DATASET_KEY "dataset"
#define DATASET_TEXT_MAX 1024u

int bench_dataset_store(const bench_dataset *dataset, rw_db *db, bool busy)
{
    rw_bucket bucket;
    int code = rw_bucket_open(db, DATASET_BUCKET, RW_CREATE, &bucket);
    if (code != 0) return code;
    json_t *description = json_pack("{s:I, s:i, s:i, s:b, s:I, s:I, s:I, s:b, s:b}", "records", (json_int_t)dataset->records, "key_size",
                                    (int)dataset->key_size, "value_size", (int)dataset->value_size, "hashed", (int)dataset->hashed, "seed",
                                    (json_int_t)dataset->seed, "first", (json_int_t)dataset->first, "end", (json_int_t)dataset->end,
                                    "loaded", (int)dataset->loaded, "busy", (int)busy);
    char text[DATASET_TEXT_MAX];
    size_t size = description == NULL ? 0 : json_dumpb(description, text, sizeof text, JSON_COMPACT);
    json_decref(description);
    if (size == 0 || size > sizeof text) return rw_error(RW_ENOMEM, "the dataset's description was not made");
    return rw_put(db, bucket, rw_slice_of(DATASET_KEY, strlen(DATASET_KEY)), rw_slice_of(text, size), RW_SYNC);
}

int bench_dataset_load(bench_dataset *dataset, rw_db *db)
{
    rw_bucket bucket;
    char text[DATASET_TEXT_MAX];
    size_t size = sizeof text;
    int code = rw_bucket_open(db, DATASET_BUCKET, 0, &bucket);
    if (code == 0) code = rw_get(db, bucket, rw_slice_of(DATASET_KEY, strlen(DATASET_KEY)), text, &size);
    if (code != 0) return code;
    json_int_t records, seed, first, end;
    int key_size, value_size, hashed, loaded, busy;
    json_t *description = json_loadb(text, size, 0, NULL);
    int parsed = description == NULL ? -1 : json_unpack(description, "{s:I, s:i, s:i, s:b, s:I, s:I, s:I, s:b, s:b}", "records", &records, "key_size",
                                                        &key_size, "value_size", &value_size, "hashed", &hashed, "seed", &seed, "first", &first,
                                                        "end", &end, "loaded", &loaded, "busy", &busy);
    json_decref(description);
    if (parsed != 0) return rw_error(RW_ECORRUPT, "bucket %s: the dataset's description does not parse", DATASET_BUCKET);
    if (busy) return rw_error(RW_EBUSY, "the last run did not finish, so which records exist is not known");
    *dataset = (bench_dataset){.records = (uint64_t)records, .key_size = (uint32_t)key_size, .value_size = (uint32_t)value_size, .hashed = hashed != 0,
                               .seed = (uint64_t)seed, .loaded = loaded != 0, .first = (uint64_t)first, .end = (uint64_t)end};
    return 0;
}
