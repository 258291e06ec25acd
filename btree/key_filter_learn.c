/* Making the filter of all keys, by one thread, in small steps that wait for nothing. README.md, T18, says why it is right. */
#include "base/memory.h"
#include "base/planted.h"
#include "base/preempt.h"
#include "btree/trees.h"

#define WORDS_AT_ONCE ((256u << 10) / sizeof(uint64_t))
#define LEAF_BYTES_AT_ONCE (32u << 10)
#define TOKEN_RETRY_NS 100000          /* a token was taken */
#define RETRY_MOST_NS (600 * (uint64_t)RW_KEY_FILTER_RETRY_NS)
#define LEARNING_SHARE 16u             /* of the time between two of which one was completed, learning takes at most one in so many */
#define WAIT_NONE (-1)                 /* nothing to do until somebody asks */

int trees_learn_open(trees *t)
{
    key_learning *l = &t->learning;
    *l = (key_learning){.retry_ns = RW_KEY_FILTER_RETRY_NS, .key = malloc(t->router.key_stride), .page = rw_memory_aligned(t->page_size)};
    if (l->key != NULL && l->page != NULL) return 0;
    trees_learn_close(t);
    return rw_error(RW_ENOMEM, "no memory for a copy of a page");
}

void trees_learn_close(trees *t)
{
    free(t->learning.key);
    free(t->learning.page);
    t->learning = (key_learning){0};
}

static int64_t next_stage(key_learning *l, key_learning_stage stage)
{
    l->stage = stage;
    l->at = 0;
    return 0;
}

static int64_t rest(trees *t)
{
    key_filter *f = &t->key_filter;
    key_learning *l = &t->learning;
    if (f->words == NULL || atomic_load(&l->allowed) == 0 || atomic_load(&f->wanted) == 0) return WAIT_NONE;
    uint64_t now = kio_now_ns(t->kio);
    if (now < l->retry_at_ns) return (int64_t)(l->retry_at_ns - now);
    atomic_store(&f->wanted, 0);
    l->state = atomic_load(&f->state);
    if (key_filter_phase_of(l->state) != KEY_FILTER_OFF) return WAIT_NONE;
    l->began_ns = now;
    return next_stage(l, KEY_LEARNING_EMPTY);
}

static int64_t give_up(trees *t)
{
    key_learning *l = &t->learning;
    key_filter_turn(&t->key_filter, &l->state, KEY_FILTER_OFF);
    l->retry_at_ns = kio_now_ns(t->kio) + l->retry_ns;
    l->retry_ns = RW_MIN(2 * l->retry_ns, RETRY_MOST_NS);
    next_stage(l, KEY_LEARNING_REST);
    return rest(t); /* who asked meanwhile woke this thread for nothing */
}

/* A reader who has read a word emptied here sees by the state, which was changed before, that it means nothing. */
static int64_t empty(trees *t)
{
    key_filter *f = &t->key_filter;
    key_learning *l = &t->learning;
    size_t count = f->bytes / sizeof(uint64_t), end = RW_MIN(l->at + WORDS_AT_ONCE, count);
    if (l->at == 0) atomic_thread_fence(memory_order_seq_cst);
    for (; l->at < end; l->at++) atomic_store_explicit(&f->words[l->at], 0, memory_order_relaxed);
    if (l->at < count) return 0;
    atomic_store(&f->keys, 0);
    if (!key_filter_turn(f, &l->state, KEY_FILTER_LEARNING)) return give_up(t);
    return next_stage(l, KEY_LEARNING_BEFORE);
}

/* Takes each token once: what was being done under it when this began is over then, and can be seen. */
static bool tokens_passed(trees *t)
{
    for (key_learning *l = &t->learning; l->at < RW_PARTITIONS_MAX; l->at++) {
        RW_PREEMPT(t->kio);
        if (!partition_try(&t->partitions[l->at])) return false;
        partition_unlock(t->kio, &t->partitions[l->at]);
    }
    return true;
}

static int64_t before(trees *t)
{
    key_learning *l = &t->learning;
    if (!RW_PLANTED(learn_at_once) && !tokens_passed(t)) return TOKEN_RETRY_NS;
    l->key[0] = 0;
    l->key_size = 1;
    l->mark = (trees_mark){0};
    return next_stage(l, KEY_LEARNING_WALK);
}

#define HASHES_AHEAD 32u

static void leaf_learn(trees *t)
{
    const node *n = t->learning.page;
    uint64_t hashes[HASHES_AHEAD];
    for (unsigned from = 0; from < n->count; from += HASHES_AHEAD) {
        unsigned count = RW_MIN(n->count - from, HASHES_AHEAD);
        for (unsigned i = 0; i < count; i++) {
            node_key_copy(n, from + i, t->learning.key);
            hashes[i] = hints_hash(rw_slice_of(t->learning.key, node_key_length(n, from + i)));
            key_filter_prefetch(&t->key_filter, hashes[i]);
        }
        for (unsigned i = 0; i < count; i++) key_filter_note(&t->key_filter, hashes[i]);
    }
}

static int64_t walk(trees *t)
{
    key_learning *l = &t->learning;
    for (uint32_t done = 0; done < LEAF_BYTES_AT_ONCE; done += t->page_size) {
        tree_miss miss;
        RW_PREEMPT(t->kio);
        if (trees_copy_leaf(t, rw_slice_of(l->key, l->key_size), TREES_COVERING, l->page, &l->mark, &miss) != 0) return give_up(t);
        leaf_learn(t);
        rw_slice upper = node_upper_fence(l->page);
        if (upper.size == 0) return next_stage(l, KEY_LEARNING_AFTER);
        memcpy(l->key, upper.data, upper.size);
        l->key_size = upper.size;
    }
    return atomic_load(&t->key_filter.state) == l->state ? 0 : give_up(t);
}

static int64_t after(trees *t)
{
    key_learning *l = &t->learning;
    if (!RW_PLANTED(complete_at_once) && !tokens_passed(t)) return TOKEN_RETRY_NS;
    if (!key_filter_turn(&t->key_filter, &l->state, KEY_FILTER_COMPLETE)) return give_up(t);
    /* Where it will soon be full again it costs a small part of one processor at most. */
    uint64_t now = kio_now_ns(t->kio);
    l->retry_at_ns = now + LEARNING_SHARE * (now - l->began_ns);
    l->retry_ns = RW_KEY_FILTER_RETRY_NS;
    next_stage(l, KEY_LEARNING_REST);
    return rest(t);
}

int64_t trees_learn_keys(trees *t)
{
    switch (t->learning.stage) {
    case KEY_LEARNING_REST: return rest(t);
    case KEY_LEARNING_EMPTY: return empty(t);
    case KEY_LEARNING_BEFORE: return before(t);
    case KEY_LEARNING_WALK: return walk(t);
    case KEY_LEARNING_AFTER: return after(t);
    }
    return WAIT_NONE;
}

void trees_learn_allow(trees *t)
{
    if (t->key_filter.words == NULL) return;
    atomic_store(&t->key_filter.wanted, 1);
    atomic_store(&t->learning.allowed, 1);
    if (t->learning.wake != NULL) t->learning.wake(t->learning.wake_arg);
}

void trees_learn_want(trees *t)
{
    key_filter *f = &t->key_filter;
    if (key_filter_phase_of(atomic_load_explicit(&f->state, memory_order_relaxed)) != KEY_FILTER_OFF) return;
    uint32_t absent = atomic_load_explicit(&f->absent, memory_order_relaxed) + 1;
    atomic_store_explicit(&f->absent, absent, memory_order_relaxed); /* one that is lost does not matter */
    if (absent % RW_KEY_FILTER_SAMPLE != 0 || f->words == NULL || atomic_load(&t->learning.allowed) == 0) return;
    if (atomic_load(&f->wanted) != 0 || atomic_exchange(&f->wanted, 1) != 0) return;
    if (t->learning.wake != NULL) t->learning.wake(t->learning.wake_arg);
}
