/*
 * The order of versions where the writes do not tell it: after blind writes, and inserts of keys whose deletes leave no number behind.
 *
 * What is known of a key is a set of chains, each a run of versions that replaced one another; its first is an unknown successor of another chain's last.
 * Chains are contiguous: a version written between a read and the write that it led to would be a lost update, which no mode allows. So if any
 * write of one chain had ended before any of another began, all of the first come before all of the second. Chains are thus cut into groups of which the
 * order is certain; where both groups at a cut are single chains, the successor is certain too. Nothing is guessed: what stays open has no edges.
 */
#include <stdlib.h>

#include "tests/isolation/history_internal.h"

typedef struct {
    uint64_t surely_there;       /* by then one of its writes had ended */
    uint64_t surely_not;         /* up to then one of them had not begun */
    uint32_t head, last;         /* versions; head 0: begins with the initial version */
} chain;

static chain chain_follow(const history_checker *c, uint32_t head, uint32_t first)
{
    chain found = {HISTORY_FOREVER, 0, head, head};
    if (head == 0) found.surely_there = 0;
    for (uint32_t version = first; version != 0; version = c->ops[version - 1].next) {
        history_window window = history_node_window(c, node_out(c, c->h->ops[version - 1].txn));
        if (window.to < found.surely_there) found.surely_there = window.to;
        if (window.from > found.surely_not) found.surely_not = window.from;
        found.last = version;
    }
    return found;
}

static int chain_compare(const void *left, const void *right)
{
    const chain *a = left, *b = right;
    if (a->surely_there != b->surely_there) return a->surely_there < b->surely_there ? -1 : 1;
    return (a->head > b->head) - (a->head < b->head);
}

/* Whether a chain surely began before and surely ended after another one: then that one's writes came between its own. */
static bool chains_contradict(history_checker *c, uint32_t key, const chain *chains, size_t count)
{
    size_t around = 0;
    char text[96], other[96];
    for (size_t i = 1; i < count; i++) {
        const chain *a = &chains[around], *b = &chains[i];
        if (b->surely_there < a->surely_not && a->surely_there < b->surely_not) {
            history_found(c, HISTORY_LOST_UPDATE, "key %u: %s wrote between a read and the write that it led to, in the versions up to %s", key,
                          history_txn_text(c, c->h->ops[b->head - 1].txn, text),
                          a->last == 0 ? "the initial one" : history_txn_text(c, c->h->ops[a->last - 1].txn, other));
            return true;
        }
        if (b->surely_there < b->surely_not) around = i;
    }
    return false;
}

static uint32_t barrier_add(history_checker *c, const chain *heads, size_t count)
{
    c->barriers = history_grow(c->barriers, &c->barrier_room, c->barrier_count + 1, sizeof(*c->barriers));
    c->barrier_heads = history_grow(c->barrier_heads, &c->barrier_head_room, c->barrier_head_count + count, sizeof(*c->barrier_heads));
    c->barriers[c->barrier_count] = (barrier){(uint32_t)c->barrier_head_count, (uint32_t)count};
    for (size_t i = 0; i < count; i++) c->barrier_heads[c->barrier_head_count++] = heads[i].head - 1;
    return BARRIER | (uint32_t)c->barrier_count++;
}

/* least: for each chain, the earliest surely_not of it and those after it. */
static void chains_link(history_checker *c, uint32_t key, const chain *chains, const uint64_t *least, size_t count)
{
    size_t group = 0;
    for (size_t i = 1; i < count; i++) {
        if (chains[i - 1].surely_there >= least[i]) continue;
        size_t end = i + 1;
        while (end < count && chains[end - 1].surely_there >= least[end]) end++;
        uint32_t next = i - group == 1 && end - i == 1 ? chains[i].head : barrier_add(c, &chains[i], end - i);
        for (size_t j = group; j < i; j++) *version_next(c, key, chains[j].last) = next;
        if (next & BARRIER) c->result->unordered += end - i;
        group = i;
    }
}

static void key_order(history_checker *c, uint32_t key, const sort_pair *heads, size_t head_count)
{
    size_t count = head_count + 1;
    chain *chains = malloc(count * sizeof(*chains));
    uint64_t *least = malloc(count * sizeof(*least));
    if (chains == NULL || least == NULL) abort();
    chains[0] = chain_follow(c, 0, c->keys[key].first);
    for (size_t i = 0; i < head_count; i++) chains[i + 1] = chain_follow(c, heads[i].item + 1, heads[i].item + 1);
    qsort(chains + 1, head_count, sizeof(*chains), chain_compare);
    for (size_t i = count; i-- > 0;) least[i] = i + 1 < count && least[i + 1] < chains[i].surely_not ? least[i + 1] : chains[i].surely_not;
    if (!chains_contradict(c, key, chains, count)) chains_link(c, key, chains, least, count);
    free(chains);
    free(least);
}

void history_order_chains(history_checker *c)
{
    pairs_sort(&c->heads, &c->spare);
    for (size_t i = 0, end; i < c->heads.count; i = end) {
        uint64_t key = c->heads.pairs[i].value;
        for (end = i; end < c->heads.count && c->heads.pairs[end].value == key;) end++;
        key_order(c, (uint32_t)key, &c->heads.pairs[i], end - i);
    }
}

/* A version that reads as absent, and the time in which it may have been the newest. */
typedef struct {
    uint32_t version;
    uint64_t from, to;
    uint64_t to_before;          /* the latest to of this and those with an earlier from */
} tombstone;

/* When at the latest a version was replaced. */
static uint64_t version_replaced(history_checker *c, uint32_t key, uint32_t version)
{
    uint32_t next = *version_next(c, key, version);
    if (next == 0) return HISTORY_FOREVER;
    if (!(next & BARRIER)) return history_node_window(c, node_out(c, c->h->ops[next - 1].txn)).to;
    const barrier *b = &c->barriers[next & ~BARRIER];
    uint64_t latest = 0;
    for (uint32_t i = 0; i < b->head_count; i++) {
        uint64_t to = history_node_window(c, node_out(c, c->h->ops[c->barrier_heads[b->head_first + i]].txn)).to;
        if (to > latest) latest = to;
    }
    return latest;
}

static int tombstone_compare(const void *left, const void *right)
{
    const tombstone *a = left, *b = right;
    return a->from != b->from ? (a->from < b->from ? -1 : 1) : (a->version > b->version) - (a->version < b->version);
}

static size_t tombstones_of(history_checker *c, uint32_t key, const sort_pair *deletes, size_t delete_count, tombstone *found)
{
    size_t count = 0;
    if (!c->h->initially_present[key]) found[count++] = (tombstone){HISTORY_INITIAL, 0, version_replaced(c, key, HISTORY_INITIAL), 0};
    for (size_t i = 0; i < delete_count; i++) {
        uint32_t version = deletes[i].item + 1;
        uint64_t from = history_node_window(c, node_out(c, c->h->ops[version - 1].txn)).from;
        found[count++] = (tombstone){version, from, version_replaced(c, key, version), 0};
    }
    qsort(found, count, sizeof(*found), tombstone_compare);
    for (size_t i = 0; i < count; i++) found[i].to_before = i > 0 && found[i - 1].to_before > found[i].to ? found[i - 1].to_before : found[i].to;
    return count;
}

/* Whether the transaction itself put the key there, without knowing what it replaced: then its read comes before a barrier that leads to itself. */
static bool reader_is_head(const history_checker *c, uint32_t i)
{
    const history_op *read = &c->h->ops[i];
    const history_txn *t = &c->h->txns[read->txn];
    if (!(c->txns[read->txn] & TXN_VISIBLE)) return false;
    for (uint32_t w = i + 1; w < t->op_first + t->op_count; w++)
        if (c->h->ops[w].key == read->key && c->ops[w].role == ROLE_FINAL) return true;
    return false;
}

static void absent_resolve(history_checker *c, uint32_t i, const tombstone *stones, size_t count)
{
    history_window window = history_node_window(c, node_in(c->h->ops[i].txn));
    size_t low = 0, high = count, possible = 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (stones[middle].from <= window.to) low = middle + 1;
        else high = middle;
    }
    const tombstone *answer = &stones[low > 0 ? low - 1 : 0];   /* if none is possible, any of them shows that by a cycle */
    for (size_t j = low; j-- > 0 && stones[j].to_before >= window.from && possible < 2;) {
        if (stones[j].to < window.from) continue;
        answer = &stones[j];
        possible++;
    }
    if (possible == 2) {
        c->result->unresolved++;
        return;
    }
    uint32_t next = *version_next(c, c->h->ops[i].key, answer->version);
    c->ops[i].seen = answer->version;
    c->ops[i].role = (next & BARRIER) && reader_is_head(c, i) ? ROLE_READ_WR : ROLE_READ;
}

void history_resolve_absent(history_checker *c)
{
    pairs_sort(&c->absent, &c->spare);
    pairs_sort(&c->deletes, &c->spare);
    size_t room = 0, d = 0;
    tombstone *stones = NULL;
    for (size_t i = 0, end; i < c->absent.count; i = end) {
        uint64_t key = c->absent.pairs[i].value;
        while (d < c->deletes.count && c->deletes.pairs[d].value < key) d++;
        size_t first = d;
        while (d < c->deletes.count && c->deletes.pairs[d].value == key) d++;
        stones = history_grow(stones, &room, d - first + 1, sizeof(*stones));
        size_t count = tombstones_of(c, (uint32_t)key, &c->deletes.pairs[first], d - first, stones);
        for (end = i; end < c->absent.count && c->absent.pairs[end].value == key; end++)
            if (count > 0) absent_resolve(c, c->absent.pairs[end].item, stones, count);
    }
    free(stones);
}
