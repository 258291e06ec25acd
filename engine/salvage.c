/* An opening that passes over what it cannot read, and tells what that was: for the command's repair. */
#include <stdarg.h>

#include "engine/engine_internal.h"

#define SENTENCE_BYTES 1024

int salvage_tell(engine *e, const char *format, ...)
{
    char where[SENTENCE_BYTES / 2], text[SENTENCE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof where, format, args);
    va_end(args);
    snprintf(text, sizeof text, "%s: %s", where, rw_error_text());
    e->salvage->found(e->salvage->arg, text);
    return 0;
}

/* A stored key or bound, which where buckets meet may be shorter than a bucket's number. */
static const char *bound_text(rw_slice bound, char text[KEY_TEXT_MAX])
{
    unsigned char padded[RW_BUCKET_PREFIX] = {0};
    if (bound.size >= sizeof padded) return key_text(bound, text);
    memcpy(padded, bound.data, bound.size);
    return key_text(rw_slice_of(padded, sizeof padded), text);
}

/* A deletion of a range is told for itself: the leaves before the bad one were changed, those behind it not, so what it deleted there is back. */
int salvage_operation(engine *e, const wal_op *op, int error)
{
    char from[KEY_TEXT_MAX], to[KEY_TEXT_MAX];
    salvage *s = e->salvage;
    if (!salvage_passes(e, error)) return error;
    if (op != NULL && op->kind == WAL_OP_DELETE_RANGE)
        return salvage_tell(e, "a part of the deletion of the keys from %s to %s, of which some may be back", bound_text(op->key, from), bound_text(op->second, to));
    if (s->operations++ == 0) snprintf(s->first, sizeof s->first, "%.*s", (int)sizeof s->first - 1, rw_error_text());
    return 0;
}

int salvage_partition(engine *e, uint32_t i, int error)
{
    const store_image *image = store_image_opened(e->store);
    char from[KEY_TEXT_MAX], to[KEY_TEXT_MAX];
    if (!salvage_passes(e, error)) return error;
    bool last = i + 1 == image->partition_count;
    rw_slice low = image->partitions[i].low_key, high = last ? rw_slice_of("", 0) : image->partitions[i + 1].low_key;
    salvage_tell(e, "the keys from %s to %s, but for what the log holds of them", low.size == 0 ? "the first" : bound_text(low, from), last ? "the last" : bound_text(high, to));
    return trees_adopt_lost(&e->trees, &image->partitions[i], high);
}

void salvage_log_end(engine *e, uint64_t end_lsn)
{
    const salvage *s = e->salvage;
    const char *damage = wal_salvage_damage(e->wal);
    if (damage != NULL) {
        rw_error(RW_ECORRUPT, "%s", damage);
        salvage_tell(e, "the log from LSN %llu on", (unsigned long long)end_lsn);
    }
    if (s->operations == 0) return;
    rw_error(RW_ECORRUPT, "%s", s->first);
    salvage_tell(e, "%llu operation%s of the log, whose pages cannot be read", (unsigned long long)s->operations, s->operations == 1 ? "" : "s");
}
