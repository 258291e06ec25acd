/* The lock table in one thread: random steps against a model that knows requests in a list and reachability by brute force. LOCKS_SEED replays one run. */
#include "tests/support/prng.h"
#include "tests/unit/txn_locks_test.h"

#define OWNERS 9u
#define REQUESTS_MAX 400u

typedef struct {
    unsigned owner;
    char from[8], to[8];           /* to: meaningless for a key, "" for no end */
    bool is_key;
    lock_mode mode;
    bool waiting;
} model_request;

typedef struct {
    uint64_t seed;
    prng random;
    unsigned steps;
    lock_owner owners[OWNERS];
    uint64_t next_id;
    model_request requests[REQUESTS_MAX];      /* in order of arrival */
    unsigned count;
    bool hard[OWNERS][OWNERS], edge[OWNERS][OWNERS];
    unsigned victims, granted_late, knots;
} model;

static bool model_must(const model *m, bool condition, const char *what)
{
    if (condition) return true;
    tap_ok(false, "LOCKS_SEED=%llu: %s, at step %u", (unsigned long long)m->seed, what, m->steps);
    exit(tap_done());
}

static bool model_overlap(const model_request *a, const model_request *b)
{
    bool a_begins = b->is_key ? strcmp(a->from, b->from) <= 0 : b->to[0] == 0 || strcmp(a->from, b->to) < 0;
    bool b_begins = a->is_key ? strcmp(b->from, a->from) <= 0 : a->to[0] == 0 || strcmp(b->from, a->to) < 0;
    return a_begins && b_begins;
}

static bool model_conflict(const model_request *a, const model_request *b)
{
    return a->owner != b->owner && (a->mode == LOCK_EXCLUSIVE || b->mode == LOCK_EXCLUSIVE) && model_overlap(a, b);
}

static bool model_covers(const model_request *a, const model_request *b)
{
    if (a->is_key) return b->is_key && strcmp(a->from, b->from) == 0;
    if (strcmp(a->from, b->from) > 0) return false;
    if (a->to[0] == 0) return true;
    return b->is_key ? strcmp(b->from, a->to) < 0 : b->to[0] != 0 && strcmp(b->to, a->to) <= 0;
}

/* Edges between owners, and what can be reached by them (edge), by hard ones (hard). */
static void model_graph(model *m)
{
    memset(m->hard, 0, sizeof m->hard);
    memset(m->edge, 0, sizeof m->edge);
    for (unsigned i = 0; i < m->count; i++) {
        const model_request *r = &m->requests[i];
        for (unsigned j = 0; r->waiting && j < m->count; j++) {
            const model_request *other = &m->requests[j];
            if (!model_conflict(r, other) || (other->waiting && j > i)) continue;
            m->edge[r->owner][other->owner] = true;
            if (!other->waiting) m->hard[r->owner][other->owner] = true;
        }
    }
    for (unsigned k = 0; k < OWNERS; k++) {
        for (unsigned i = 0; i < OWNERS; i++) {
            for (unsigned j = 0; j < OWNERS; j++) {
                m->edge[i][j] = m->edge[i][j] || (m->edge[i][k] && m->edge[k][j]);
                m->hard[i][j] = m->hard[i][j] || (m->hard[i][k] && m->hard[k][j]);
            }
        }
    }
}

static bool model_grantable(model *m, unsigned i)
{
    const model_request *r = &m->requests[i];
    model_graph(m);
    bool passes = false;
    for (unsigned j = 0; j < m->count; j++) {
        const model_request *other = &m->requests[j];
        if (!model_conflict(r, other) || (other->waiting && j > i)) continue;
        if (!other->waiting || !m->edge[other->owner][r->owner]) return false;
        passes = true;
    }
    m->knots += passes;
    return true;
}

static void model_remove(model *m, unsigned i)
{
    memmove(&m->requests[i], &m->requests[i + 1], (m->count - i - 1) * sizeof m->requests[0]);
    m->count--;
}

static void model_grant(model *m, unsigned i)
{
    m->requests[i].waiting = false;
    model_request r = m->requests[i];
    for (unsigned j = 0; j < m->count; j++) {
        const model_request *old = &m->requests[j];
        bool same = old->owner == r.owner && strcmp(old->from, r.from) == 0 && old->is_key == r.is_key && (r.is_key || strcmp(old->to, r.to) == 0);
        if (!same || r.mode != LOCK_EXCLUSIVE || old->mode != LOCK_SHARED) continue;
        model_remove(m, j);
        return;
    }
}

/* Returns whether its shared lock went. */
static bool model_try(model *m, unsigned i)
{
    unsigned before = m->count;
    if (!m->requests[i].waiting || !model_grantable(m, i)) return false;
    model_grant(m, i);
    m->granted_late++;
    return m->count < before;
}

/* All who wait, in order of arrival. */
static void model_settle(model *m)
{
    for (unsigned i = 0; i < m->count; i++) {
        if (model_try(m, i)) i--;
    }
}

static unsigned model_waiting(const model *m, unsigned owner)
{
    for (unsigned i = 0; i < m->count; i++) {
        if (m->requests[i].waiting && m->requests[i].owner == owner) return i;
    }
    return REQUESTS_MAX;
}

static unsigned model_owner(const model *m, unsigned long long id)
{
    for (unsigned i = 0; i < OWNERS; i++) {
        if (m->owners[i].id == id) return i;
    }
    model_must(m, false, "a victim's text names somebody unknown");
    return 0;
}

/* Whether the text names a cycle of the graph as it is: each waits for a lock that the next holds, and the youngest was chosen. */
static void model_check_text(model *m, unsigned victim)
{
    const char *at = strstr(m->owners[victim].victim_text, "transaction ");
    model_must(m, at != NULL, "a victim's text is no sentence");
    at += strlen("transaction ");
    unsigned long long first = 0, from, to, chosen = 0;
    int length = 0;
    bool more = sscanf(at, "%llu waits for %llu%n", &first, &to, &length) == 2;
    for (from = first; more; from = to, more = sscanf(at, ", that for %llu%n", &to, &length) == 1) {
        unsigned waiting = model_waiting(m, model_owner(m, from)), holder = model_owner(m, to);
        model_must(m, waiting < REQUESTS_MAX, "a victim's text is no chain");
        bool holds = false;
        for (unsigned i = 0; i < m->count; i++) {
            holds = holds || (m->requests[i].owner == holder && !m->requests[i].waiting && model_conflict(&m->requests[i], &m->requests[waiting]));
        }
        model_must(m, holds && from <= m->owners[victim].id, "a victim's text names a wait that is none, or an older victim");
        at += length;
    }
    bool closed = first != 0 && first == from && sscanf(at, "; %llu was chosen", &chosen) == 1;
    model_must(m, closed && chosen == m->owners[victim].id, "a victim's text names no cycle");
}

/* The table's list is the model's, in order. */
typedef struct {
    model *m;
    bool seen[REQUESTS_MAX];
    unsigned count;
    char last[8];
} model_comparison;

static int model_compare(void *arg, const lock_view *view)
{
    model_comparison *c = arg;
    model *m = c->m;
    model_must(m, view->waiting == (view->waits_for != 0), "the list does not say whom a request waits for");
    for (unsigned i = 0; i < m->count; i++) {
        const model_request *r = &m->requests[i];
        if (c->seen[i] || m->owners[r->owner].id != view->owner || r->mode != view->mode || r->waiting != view->waiting) continue;
        if (r->is_key == view->is_range) continue;
        if (!rw_slice_equal(view->from, text(r->from)) || (!r->is_key && !rw_slice_equal(view->to, text(r->to)))) continue;
        c->seen[i] = true;
        c->count++;
        model_must(m, strcmp(c->last, r->from) <= 0, "the list is out of order");
        memcpy(c->last, r->from, sizeof c->last);
        return 0;
    }
    return 1;
}

/* The treap's own rules; returns how many are in it. */
static unsigned model_check_index(const model *m, lock_request *root, unsigned in)
{
    unsigned count = 0;
    const lock_request *last = NULL;
    for (lock_request *r = lock_index_first(root, in); r != NULL; r = lock_index_next(r, in), count++) {
        const lock_node *n = in == IN_TABLE ? &r->in_table : &r->in_owner;
        const lock_request *children[2] = {n->left, n->right}, *reach = r;
        for (unsigned i = 0; i < 2; i++) {
            if (children[i] == NULL) continue;
            const lock_node *child = in == IN_TABLE ? &children[i]->in_table : &children[i]->in_owner;
            model_must(m, child->parent == r && children[i]->priority <= r->priority, "a treap is no heap");
            int order = lock_end_compare(lock_request_interval(child->reach), lock_request_interval(reach));
            if (order > 0 || (order == 0 && child->reach->arrival > reach->arrival)) reach = child->reach;
        }
        model_must(m, n->reach == reach, "a subtree does not know what ends last in it");
        int order = last == NULL ? -1 : rw_slice_compare(lock_request_interval(last).from, lock_request_interval(r).from);
        model_must(m, order < 0 || (order == 0 && last->arrival < r->arrival), "a treap is out of order");
        last = r;
    }
    return count;
}

static void model_check_indexes(const model *m)
{
    unsigned count = 0, held = 0;
    for (unsigned i = 0; i < LOCK_TABLES; i++) count += model_check_index(m, table->table[i], IN_TABLE);
    model_must(m, count == m->count, "requests were lost");
    for (unsigned i = 0; i < OWNERS; i++) {
        for (unsigned mode = 0; mode < 2; mode++) held += model_check_index(m, m->owners[i].held[mode], IN_OWNER);
        held += waits(&m->owners[i]);
    }
    model_must(m, held == count, "locks were lost");
}

static void model_check(model *m)
{
    model_comparison c = {.m = m};
    model_check_indexes(m);
    model_must(m, locks_for_each(table, model_compare, &c) == 0 && c.count == m->count, "the table holds something else than the model");
    model_graph(m);
    for (unsigned i = 0; i < OWNERS; i++) {
        unsigned held = 0;
        for (unsigned j = 0; j < m->count; j++) held += m->requests[j].owner == i && !m->requests[j].waiting;
        model_must(m, !m->hard[i][i], "a cycle was left");
        model_must(m, m->owners[i].count == held && (held > 0 || m->owners[i].bytes == 0), "an owner's count is wrong");
        model_must(m, (model_waiting(m, i) < REQUESTS_MAX) == waits(&m->owners[i]), "an owner waits, or should");
    }
    for (unsigned i = 0; i < m->count; i++) {
        for (unsigned j = 0; j < i; j++) {
            bool both = !m->requests[i].waiting && !m->requests[j].waiting;
            model_must(m, !both || !model_conflict(&m->requests[i], &m->requests[j]), "two hold what excludes the other");
        }
    }
    model_must(m, locks_active(table) == (m->count > 0), "locks_active is wrong");
}

static void model_release(model *m, unsigned owner)
{
    locks_release(table, &m->owners[owner]);
    for (unsigned i = m->count; i-- > 0;) {
        if (m->requests[i].owner == owner) model_remove(m, i);
    }
    model_settle(m);
    m->owners[owner].id = ++m->next_id;
}

static model_request model_draw(model *m, unsigned owner)
{
    model_request r = {.owner = owner, .mode = prng_below(&m->random, 2) == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE, .is_key = prng_below(&m->random, 3) != 0};
    char *ends[2] = {r.from, r.to};
    for (unsigned end = 0; end < 2; end++) {
        unsigned size = 1 + (unsigned)prng_below(&m->random, 2);
        for (unsigned i = 0; i < size; i++) ends[end][i] = (char)('a' + prng_below(&m->random, 3));
    }
    if (r.is_key) r.to[0] = 0;
    else if (prng_below(&m->random, 12) == 0) memset(r.to, 0, sizeof r.to);
    return r;
}

/* Whether a cycle through owner would be left without this victim. */
static bool model_needed(const model *m, const bool *chosen, unsigned victim, unsigned owner)
{
    static model without;
    without = *m;
    for (unsigned i = 0; i < OWNERS; i++) {
        if (chosen[i] && i != victim) model_remove(&without, model_waiting(&without, i));
    }
    model_graph(&without);
    return without.hard[owner][owner];
}

/* The victims of a request, checked against the graph with it, and taken out of it. */
static bool model_victims(model *m, unsigned owner, int rc)
{
    bool chosen[OWNERS] = {false};
    for (unsigned i = 0; i < OWNERS; i++) {
        chosen[i] = i == owner ? rc == RW_EDEADLOCK : was_chosen(&m->owners[i]);
        if (!chosen[i]) continue;
        m->victims++;
        model_check_text(m, i);
        model_graph(m);
        model_must(m, m->hard[i][owner] && m->hard[owner][i], "a victim is in no cycle with the request");
        model_must(m, i == owner || rc != RW_EDEADLOCK, "others were chosen beside the one who closed the cycle");
    }
    for (unsigned i = 0; i < OWNERS; i++) {
        model_must(m, !chosen[i] || model_needed(m, chosen, i, owner), "a victim could have been spared");
    }
    for (unsigned i = 0; i < OWNERS; i++) {
        if (chosen[i]) model_remove(m, model_waiting(m, i));
    }
    return rc == RW_EDEADLOCK;
}

static void model_take(model *m, unsigned owner)
{
    model_request r = model_draw(m, owner);
    bool may_wait = prng_below(&m->random, 3) != 0;
    int rc = take(&m->owners[owner], r.from, r.is_key ? NULL : r.to, r.mode, may_wait ? LONG_NS : 0);
    bool nothing = !r.is_key && r.to[0] != 0 && strcmp(r.from, r.to) >= 0;
    for (unsigned i = 0; i < m->count && !nothing; i++) {
        const model_request *held = &m->requests[i];
        nothing = held->owner == owner && held->mode >= r.mode && model_covers(held, &r);
    }
    if (nothing) {
        model_must(m, rc == 0, "nothing new was asked for, and refused");
        return;
    }
    r.waiting = true;
    m->requests[m->count++] = r;
    if (!may_wait) {
        bool granted = model_grantable(m, m->count - 1);
        if (granted) model_grant(m, m->count - 1);
        else m->count--;
        model_must(m, rc == (granted ? 0 : RW_ETIMEOUT), "a request that may not wait came out wrong");
        return;
    }
    if (model_victims(m, owner, rc)) return;
    model_try(m, m->count - 1);
    model_settle(m);
    model_must(m, rc == (model_waiting(m, owner) < REQUESTS_MAX ? WAITS : 0) || (rc == WAITS && !waits(&m->owners[owner])), "a request came out wrong");
}

static model model_run(uint64_t seed, unsigned steps)
{
    model m = {.seed = seed, .random = {.state = seed}};
    for (unsigned i = 0; i < OWNERS; i++) lock_owner_init(&m.owners[i], ++m.next_id);
    for (; m.steps < steps; m.steps++) {
        unsigned owner = (unsigned)prng_below(&m.random, OWNERS);
        while (waits(&m.owners[owner])) owner = (owner + 1) % OWNERS;
        bool end = m.owners[owner].count > 8 || prng_below(&m.random, 8) == 0;
        if (end) model_release(&m, owner);
        else model_take(&m, owner);
        model_check(&m);
    }
    for (unsigned round = 0; m.count > 0; round++) {
        for (unsigned i = 0; i < OWNERS; i++) {
            if (!waits(&m.owners[i])) model_release(&m, i);
        }
        model_must(&m, round < OWNERS, "owners wait for good");
    }
    return m;
}

static void test_model(void)
{
    const char *given = getenv("LOCKS_SEED");
    uint64_t first = given != NULL ? strtoull(given, NULL, 10) : 1, count = given != NULL ? 1 : 200;
    unsigned victims = 0, late = 0, knots = 0;
    bed_open(4 << 20);
    for (uint64_t seed = first; seed < first + count; seed++) {
        model m = model_run(seed, 600);
        victims += m.victims;
        late += m.granted_late;
        knots += m.knots;
    }
    bool met = given != NULL || (victims > 100 && late > 1000 && knots > 100);
    tap_ok(met, "random steps end as in the model: %u victims, %u let in later, %u passed others in a knot", victims, late, knots);
    bed_close();
}

int main(void)
{
    test_model();
    return tap_done();
}
