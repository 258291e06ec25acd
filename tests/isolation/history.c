#include "tests/isolation/history.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(history_op) == 16, "operations are kept by the million");
_Static_assert(sizeof(history_strand) == 64, "one cache line");

history *history_new(uint32_t keys, uint32_t strands, uint32_t txns_each, uint32_t ops_each)
{
    history *h = calloc(1, sizeof(*h));
    if (h == NULL) return NULL;
    h->keys = keys;
    h->strand_count = strands;
    h->txn_max = strands * txns_each;
    h->op_max = strands * ops_each;
    h->strands = aligned_alloc(64, strands * sizeof(*h->strands));
    h->txns = calloc(h->txn_max, sizeof(*h->txns));
    h->ops = calloc(h->op_max, sizeof(*h->ops));
    h->initially_present = calloc(keys, 1);
    if (h->strands == NULL || h->txns == NULL || h->ops == NULL || h->initially_present == NULL) {
        history_free(h);
        return NULL;
    }
    memset(h->strands, 0, strands * sizeof(*h->strands));
    for (uint32_t s = 0; s < strands; s++) {
        h->strands[s].txn_first = s * txns_each;
        h->strands[s].txn_max = txns_each;
        h->strands[s].op_first = s * ops_each;
        h->strands[s].op_max = ops_each;
    }
    return h;
}

void history_free(history *h)
{
    if (h == NULL) return;
    free(h->strands);
    free(h->txns);
    free(h->ops);
    free(h->initially_present);
    free(h);
}

void history_clear(history *h)
{
    for (uint32_t s = 0; s < h->strand_count; s++) h->strands[s].txn_count = h->strands[s].op_count = 0;
    memset(h->initially_present, 0, h->keys);
}

bool history_has_room(const history *h, uint32_t strand, uint32_t txns, uint32_t ops)
{
    const history_strand *s = &h->strands[strand];
    return s->txn_max - s->txn_count >= txns && s->op_max - s->op_count >= ops;
}

history_txn *history_begin(history *h, uint32_t strand, history_mode mode)
{
    history_strand *s = &h->strands[strand];
    if (s->txn_count == s->txn_max) abort();
    history_txn *txn = &h->txns[s->txn_first + s->txn_count++];
    memset(txn, 0, sizeof(*txn));
    txn->mode = (uint8_t)mode;
    txn->op_first = s->op_first + s->op_count;
    return txn;
}

static uint32_t op_add(history *h, uint32_t strand, history_kind kind, uint32_t key, uint32_t version, unsigned flags)
{
    history_strand *s = &h->strands[strand];
    if (s->op_count == s->op_max || key >= h->keys) abort();
    uint32_t index = s->op_first + s->op_count++, txn = s->txn_first + s->txn_count - 1;
    h->ops[index] = (history_op){.key = key, .version = version, .txn = txn, .kind = (uint8_t)kind, .flags = (uint8_t)flags};
    h->txns[txn].op_count++;
    return index + 1;
}

void history_read(history *h, uint32_t strand, uint32_t key, uint32_t version, unsigned flags)
{
    op_add(h, strand, HISTORY_READ, key, version, flags);
}

uint32_t history_write(history *h, uint32_t strand, history_kind kind, uint32_t key, uint32_t replaced, unsigned flags)
{
    return op_add(h, strand, kind, key, replaced, flags);
}

void history_rollback(history *h, uint32_t strand, uint32_t ops_kept)
{
    op_add(h, strand, HISTORY_ROLLBACK, 0, ops_kept, 0);
}

void history_end(history *h, uint32_t strand, history_outcome outcome)
{
    history_strand *s = &h->strands[strand];
    h->txns[s->txn_first + s->txn_count - 1].outcome = (uint8_t)outcome;
}

const char *history_anomaly_name(history_anomaly anomaly)
{
    static const char *const names[HISTORY_ANOMALIES] = {
#define HISTORY_ANOMALY_NAME(name, text) text,
        HISTORY_ANOMALY_MAP(HISTORY_ANOMALY_NAME)
#undef HISTORY_ANOMALY_NAME
    };
    return names[anomaly];
}

const char *history_mode_name(history_mode mode)
{
    static const char *const names[HISTORY_MODES] = {"snapshot", "serializable", "pessimistic", "read-only", "single", "recovery"};
    return names[mode];
}
