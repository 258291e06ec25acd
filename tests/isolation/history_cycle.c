/*
 * Names what is wrong with a history whose moments have no order. Here the graph of what is left is built in full, with real time as a chain of nodes,
 * one for each end of a window: what ends leads into the chain, and the chain leads to what begins later. Then the cycles are looked for class by class:
 * first those that need no real time, the worst first; each class is a set of kinds of edges, and a cycle of it lies in a strongly connected component
 * of these edges.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/isolation/history_internal.h"

#define NONE UINT32_MAX
#define EDGE_GLUE EDGE_INSIDE                       /* orders two moments, but is no dependency of two transactions */
#define EDGES_RW ((unsigned)EDGE_RW | (unsigned)EDGE_RW_RANGE)
#define SINGLE_TRIES 4000u
#define SINGLE_STEPS UINT64_C(40000000)
#define SMALL 200u

typedef struct {
    uint32_t to, op;
    history_edge kind;
} graph_edge;

typedef struct {
    history_checker *c;
    uint32_t count, moments;             /* nodes; those from moments on are the chain's */
    uint32_t *node;                      /* the checker's node of each */
    uint32_t *number;                    /* the other way round */
    uint64_t *chain_time;
    uint32_t *first;                     /* of a node's edges; count + 1 */
    graph_edge *edges;
    uint32_t *order, *low, *stack, *call, *next_edge;   /* of the search for components */
    uint32_t *within;                    /* the component a search is confined to */
    uint32_t *found;                     /* the component of each node by the latest search */
    uint32_t *members, *starts;          /* the nodes by component */
    uint32_t *mark, *cost, *from, *from_edge, *here, *there;   /* of the search for a path */
    uint32_t marks;
} graph;

static void *array(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (memory == NULL) {
        fprintf(stderr, "no memory to name what is wrong with a history\n");
        exit(1);
    }
    return memory;
}

typedef struct {
    graph *g;
    uint32_t from;
    bool counts;
} edge_adding;

static void add_edge(graph *g, uint32_t from, uint32_t to, history_edge kind, uint32_t op, bool counts)
{
    if (counts) g->first[from + 1]++;
    else g->edges[g->first[from]++] = (graph_edge){to, op, kind};
}

static void add_visited(void *arg, uint32_t to, history_edge kind, uint32_t op)
{
    edge_adding *adding = arg;
    uint32_t number = adding->g->number[to];
    if (number != NONE) add_edge(adding->g, adding->from, number, kind, op, adding->counts);
}

/* The last link of the chain before a time; NONE: there is none. */
static uint32_t chain_before(const graph *g, uint64_t time)
{
    uint32_t low = g->moments, high = g->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (g->chain_time[middle - g->moments] < time) low = middle + 1;
        else high = middle;
    }
    return low > g->moments ? low - 1 : NONE;
}

static void add_all(graph *g, bool counts)
{
    uint32_t link = g->moments;
    for (uint32_t n = 0; n < g->moments; n++) {
        edge_adding adding = {g, n, counts};
        history_edges(g->c, g->node[n], add_visited, &adding);
        uint32_t before = chain_before(g, history_node_window(g->c, g->node[n]).from);
        if (before != NONE) add_edge(g, before, n, EDGE_GLUE, NONE, counts);
    }
    for (size_t i = 0; i < g->c->by_to.count; i++) {
        uint32_t n = g->number[g->c->by_to.pairs[i].item];
        if (n == NONE || history_node_window(g->c, g->node[n]).to == HISTORY_FOREVER) continue;
        add_edge(g, n, link, EDGE_RT, NONE, counts);
        if (link + 1 < g->count) add_edge(g, link, link + 1, EDGE_GLUE, NONE, counts);
        link++;
    }
}

static graph *graph_new(history_checker *c, uint32_t node_count)
{
    graph *g = array(0, sizeof(*g));
    g->c = c;
    g->number = array(node_count, sizeof(*g->number));
    g->node = array(node_count, sizeof(*g->node));
    memset(g->number, 0xff, node_count * sizeof(*g->number));
    g->chain_time = array(c->by_to.count, sizeof(*g->chain_time));
    uint32_t links = 0;
    for (size_t i = 0; i < c->by_to.count; i++) {
        uint32_t node = c->by_to.pairs[i].item;
        if (c->degrees[node] & DEGREE_DONE) continue;
        g->node[g->moments] = node;
        g->number[node] = g->moments++;
        uint64_t to = history_node_window(c, node).to;
        if (to != HISTORY_FOREVER) g->chain_time[links++] = to;
    }
    g->count = g->moments + links;
    g->first = array((size_t)g->count + 1, sizeof(*g->first));
    add_all(g, true);
    for (uint32_t n = 0; n < g->count; n++) g->first[n + 1] += g->first[n];
    g->edges = array(g->first[g->count], sizeof(*g->edges));
    add_all(g, false);
    memmove(g->first + 1, g->first, g->count * sizeof(*g->first));
    g->first[0] = 0;
    uint32_t **arrays[] = {&g->order, &g->low, &g->stack, &g->call, &g->next_edge, &g->within, &g->found, &g->members, &g->starts, &g->mark, &g->cost, &g->from,
                           &g->from_edge, &g->here, &g->there};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) *arrays[i] = array((size_t)g->count + 1, sizeof(uint32_t));
    return g;
}

static void graph_free(graph *g)
{
    void *arrays[] = {g->node, g->number, g->chain_time, g->first, g->edges, g->order, g->low, g->stack, g->call, g->next_edge, g->within, g->found,
                      g->members, g->starts, g->mark, g->cost, g->from, g->from_edge, g->here, g->there};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) free(arrays[i]);
    free(g);
}

/* An edge that a search of these kinds inside that component may take. */
static inline bool edge_serves(const graph *g, const graph_edge *edge, unsigned kinds, uint32_t component)
{
    return (edge->kind & kinds) && g->within[edge->to] == component;
}

typedef struct {
    graph *g;
    unsigned kinds;
    uint32_t component, visited, depth, calls, components;
} tarjan;

static void tarjan_enter(tarjan *t, uint32_t node)
{
    graph *g = t->g;
    g->order[node] = g->low[node] = ++t->visited;
    g->next_edge[node] = g->first[node];
    g->stack[t->depth++] = node;
    g->call[t->calls++] = node;
}

static void tarjan_leave(tarjan *t, uint32_t node)
{
    graph *g = t->g;
    t->calls--;
    if (t->calls > 0 && g->low[node] < g->low[g->call[t->calls - 1]]) g->low[g->call[t->calls - 1]] = g->low[node];
    if (g->low[node] != g->order[node]) return;
    uint32_t member;
    do {
        member = g->stack[--t->depth];
        g->found[member] = t->components;
        g->order[member] = NONE;             /* off the stack: no edge to it counts any more */
    } while (member != node);
    t->components++;
}

static void tarjan_from(tarjan *t, uint32_t root)
{
    graph *g = t->g;
    tarjan_enter(t, root);
    while (t->calls > 0) {
        uint32_t node = g->call[t->calls - 1];
        if (g->next_edge[node] == g->first[node + 1]) {
            tarjan_leave(t, node);
            continue;
        }
        const graph_edge *edge = &g->edges[g->next_edge[node]++];
        if (!edge_serves(g, edge, t->kinds, t->component)) continue;
        if (g->order[edge->to] == 0) tarjan_enter(t, edge->to);
        else if (g->order[edge->to] != NONE && g->order[edge->to] < g->low[node]) g->low[node] = g->order[edge->to];
    }
}

/* Finds the strongly connected components by edges of these kinds of the given nodes, which make up one component of within. Returns their number. */
static uint32_t components_find(graph *g, const uint32_t *nodes, uint32_t count, uint32_t component, unsigned kinds)
{
    tarjan t = {g, kinds, component, 0, 0, 0, 0};
    for (uint32_t i = 0; i < count; i++) g->order[nodes[i]] = 0;
    for (uint32_t i = 0; i < count; i++)
        if (g->order[nodes[i]] == 0) tarjan_from(&t, nodes[i]);
    return t.components;
}

/* Groups the nodes by what components_find found: those of component i are members[starts[i]] to members[starts[i + 1] - 1]. */
static void components_group(graph *g, const uint32_t *nodes, uint32_t count, uint32_t components, uint32_t *members, uint32_t *starts)
{
    memset(starts, 0, ((size_t)components + 1) * sizeof(*starts));
    for (uint32_t i = 0; i < count; i++) starts[g->found[nodes[i]] + 1]++;
    for (uint32_t i = 0; i < components; i++) starts[i + 1] += starts[i];
    for (uint32_t i = 0; i < count; i++) members[starts[g->found[nodes[i]]]++] = nodes[i];
    for (uint32_t i = components; i > 0; i--) starts[i] = starts[i - 1];
    starts[0] = 0;
}

static uint64_t moment_from(const graph *g, uint32_t n)
{
    return n >= g->moments ? g->chain_time[n - g->moments] : history_node_window(g->c, g->node[n]).from;
}

static uint64_t moment_to(const graph *g, uint32_t n)
{
    return n >= g->moments ? g->chain_time[n - g->moments] : history_node_window(g->c, g->node[n]).to;
}

/* How far an edge leads back in time; 0 for those that do not surely. */
static uint64_t edge_back(const graph *g, uint32_t from, const graph_edge *edge)
{
    uint64_t begins = moment_from(g, from), ended = moment_to(g, edge->to);
    return begins > ended ? begins - ended : 0;
}

typedef struct {
    graph *g;
    unsigned kinds;
    uint32_t component;
    uint64_t latest;             /* no node that begins later */
    uint64_t steps;              /* made, in all searches */
} path_search;

/* Notes that a node can be reached at that cost, if that is news. */
static bool path_reach(graph *g, uint32_t node, uint32_t cost)
{
    if (g->mark[node] == g->marks && g->cost[node] <= cost) return false;
    g->mark[node] = g->marks;
    g->cost[node] = cost;
    return true;
}

/* The shortest path by dependencies, what is glue counting nothing. from[] and from_edge[] then lead back from end to begin. */
static bool path_find(path_search *s, uint32_t begin, uint32_t end)
{
    graph *g = s->g;
    uint32_t here = 0, there = 0;
    g->marks++;
    path_reach(g, begin, 0);
    g->here[here++] = begin;
    for (uint32_t cost = 0; here > 0; cost++) {
        for (uint32_t i = 0; i < here; i++) {
            uint32_t node = g->here[i];
            if (g->cost[node] != cost) continue;
            if (node == end) return true;
            for (uint32_t e = g->first[node]; e < g->first[node + 1]; e++) {
                const graph_edge *edge = &g->edges[e];
                bool glue = edge->kind == EDGE_GLUE;
                s->steps++;
                if (!edge_serves(g, edge, s->kinds, s->component) || moment_from(g, edge->to) > s->latest) continue;
                if (!path_reach(g, edge->to, cost + !glue)) continue;
                g->from[edge->to] = node;
                g->from_edge[edge->to] = e;
                if (glue) g->here[here++] = edge->to;
                else g->there[there++] = edge->to;
            }
        }
        uint32_t *reached = g->here;
        g->here = g->there;
        g->there = reached;
        here = there;
        there = 0;
    }
    return false;
}

#define STEPS_MAX 64u

typedef struct {
    uint32_t from;
    const graph_edge *edge;
} cycle_step;

/* A cycle's dependencies in order, without the glue. */
typedef struct {
    uint32_t length;                     /* may be more than STEPS_MAX; the rest is not kept */
    cycle_step steps[STEPS_MAX];
} cycle;

static bool step_is(const cycle *found, uint32_t step, unsigned kinds)
{
    return (found->steps[step].edge->kind & kinds) != 0;
}

/* After path_find from the end of the edge to its beginning. */
static void cycle_collect(const graph *g, uint32_t from, const graph_edge *closing, cycle *found)
{
    found->length = 0;
    uint32_t node = from;
    const graph_edge *edge = closing;
    for (;;) {
        if (edge->kind != EDGE_GLUE) {
            if (found->length < STEPS_MAX) found->steps[found->length] = (cycle_step){node, edge};
            found->length++;
        }
        if (node == closing->to) break;
        edge = &g->edges[g->from_edge[node]];
        node = g->from[node];
    }
    uint32_t kept = found->length < STEPS_MAX ? found->length : STEPS_MAX;
    for (uint32_t i = 0; i < kept / 2; i++) {
        cycle_step step = found->steps[i];
        found->steps[i] = found->steps[kept - 1 - i];
        found->steps[kept - 1 - i] = step;
    }
}

/* The operation that makes an edge; NULL for real time and what leaves a barrier. */
static const history_op *step_op(const graph *g, const cycle_step *step)
{
    return step->edge->op == NONE ? NULL : &g->c->h->ops[step->edge->op];
}

static history_anomaly cycle_name(const graph *g, const cycle *found)
{
    uint32_t kept = found->length < STEPS_MAX ? found->length : STEPS_MAX, rw = 0, range = 0, wr = 0, rt = 0;
    bool adjacent = false, same_key = true;
    const history_op *before = NULL;
    for (uint32_t i = 0; i < kept; i++) {
        const history_op *op = step_op(g, &found->steps[i]);
        rw += step_is(found, i, EDGES_RW);
        range += step_is(found, i, EDGE_RW_RANGE);
        wr += step_is(found, i, EDGE_WR);
        rt += step_is(found, i, EDGE_RT);
        if (kept > 1 && step_is(found, i, EDGES_RW) && step_is(found, (i + 1) % kept, EDGES_RW)) adjacent = true;
        if (op != NULL && before != NULL && op->key != before->key) same_key = false;
        if (op != NULL) before = op;
    }
    if (rw == 0 && wr == 0) return rt != 0 ? HISTORY_G0_REALTIME : HISTORY_G0;
    if (rw == 0) return rt != 0 ? HISTORY_G1C_REALTIME : HISTORY_G1C;
    if (rw == 1 && rt == 0 && wr == 0 && kept == 2 && same_key) return HISTORY_LOST_UPDATE;
    if (rw == 1) return rt != 0 ? HISTORY_G_SINGLE_REALTIME : HISTORY_G_SINGLE;
    if (!adjacent) return rt != 0 ? HISTORY_G_NONADJACENT_REALTIME : HISTORY_G_NONADJACENT;
    if (range == 0) return rt != 0 ? HISTORY_G2_ITEM_REALTIME : HISTORY_G2_ITEM;
    return rt != 0 ? HISTORY_G2_REALTIME : HISTORY_G2;
}

static const char *edge_name(history_edge kind)
{
    switch (kind) {
    case EDGE_WW: return "ww";
    case EDGE_WR: return "wr";
    case EDGE_RW: return "rw";
    case EDGE_RW_RANGE: return "rw (range)";
    default: return "real time";
    }
}

static void cycle_report(const graph *g, const cycle *found)
{
    char text[1100];
    int length = 0;
    uint32_t shown = found->length < 8 ? found->length : 8;
    for (uint32_t i = 0; i < shown; i++) {
        const cycle_step *step = &found->steps[i];
        const history_op *op = step_op(g, step);
        uint32_t node = g->node[step->from];
        char txn[96], key[32] = "";
        if (op != NULL) snprintf(key, sizeof(key), " key %u", op->key);
        bool is_barrier = node >= 2 * g->c->h->txn_max;
        length += snprintf(text + length, sizeof(text) - (size_t)length, "%s --%s%s--> ", is_barrier ? "earlier writes" : history_txn_text(g->c, node / 2, txn),
                           edge_name(step->edge->kind), key);
    }
    snprintf(text + length, sizeof(text) - (size_t)length, "%s", shown < found->length ? "..." : "the first again");
    history_found(g->c, cycle_name(g, found), "%s", text);
}

/* A short cycle through some edge of a component of these kinds, whose nodes are the given ones. */
static void cycle_of_component(graph *g, const uint32_t *nodes, uint32_t count, uint32_t component, unsigned kinds)
{
    path_search search = {g, kinds, component, UINT64_MAX, 0};
    cycle best = {0}, found;
    uint32_t furthest_from = NONE;
    const graph_edge *furthest = NULL;
    uint64_t furthest_back = 0;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t e = g->first[nodes[i]]; e < g->first[nodes[i] + 1]; e++) {
            const graph_edge *edge = &g->edges[e];
            if (edge->kind == EDGE_GLUE || edge->kind == EDGE_RT || !edge_serves(g, edge, kinds, component)) continue;
            uint64_t back = edge_back(g, nodes[i], edge);
            if (furthest == NULL || back > furthest_back) {
                furthest = edge;
                furthest_from = nodes[i];
                furthest_back = back;
            }
            if (count > SMALL || !path_find(&search, edge->to, nodes[i])) continue;
            cycle_collect(g, nodes[i], edge, &found);
            if (best.length == 0 || found.length < best.length) best = found;
        }
    if (best.length == 0 && furthest != NULL && path_find(&search, furthest->to, furthest_from)) cycle_collect(g, furthest_from, furthest, &best);
    if (best.length != 0) cycle_report(g, &best);
}

typedef struct {
    const graph_edge *edge;
    uint32_t from;
    uint64_t back;
} candidate;

static int candidate_compare(const void *left, const void *right)
{
    const candidate *a = left, *b = right;
    return (a->back < b->back) - (a->back > b->back);
}

/* A cycle with one rw edge only: a path without any from the end of one to its beginning. Those that lead back furthest are tried first. */
static bool single_find(graph *g, const uint32_t *nodes, uint32_t count, uint32_t component, unsigned kinds)
{
    size_t candidates = 0, room = 0;
    candidate *list = NULL;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t e = g->first[nodes[i]]; e < g->first[nodes[i] + 1]; e++) {
            if (!edge_serves(g, &g->edges[e], kinds & EDGES_RW, component)) continue;
            list = history_grow(list, &room, candidates + 1, sizeof(*list));
            list[candidates++] = (candidate){&g->edges[e], nodes[i], edge_back(g, nodes[i], &g->edges[e])};
        }
    if (candidates > 0) qsort(list, candidates, sizeof(*list), candidate_compare);
    path_search search = {g, kinds & ~EDGES_RW, component, 0, 0};
    cycle found = {0}, best = {0};
    for (size_t i = 0; i < candidates && i < SINGLE_TRIES && search.steps < SINGLE_STEPS; i++) {
        search.latest = moment_to(g, list[i].from);
        if (!path_find(&search, list[i].edge->to, list[i].from)) continue;
        cycle_collect(g, list[i].from, list[i].edge, &found);
        if (best.length == 0 || found.length < best.length) best = found;
        if (count > SMALL) break;
    }
    free(list);
    if (best.length == 0) return false;
    cycle_report(g, &best);
    return true;
}

/* Looks for a cycle of these kinds only inside a component, and reports the first. */
static bool kinds_find(graph *g, const uint32_t *nodes, uint32_t count, uint32_t component, unsigned kinds)
{
    uint32_t *members = array(count, sizeof(*members)), *starts = array((size_t)count + 1, sizeof(*starts));
    uint32_t components = components_find(g, nodes, count, component, kinds);
    components_group(g, nodes, count, components, members, starts);
    uint32_t chosen = NONE;
    for (uint32_t i = 0; i < components; i++)
        if (starts[i + 1] - starts[i] > 1 && (chosen == NONE || starts[i + 1] - starts[i] < starts[chosen + 1] - starts[chosen])) chosen = i;
    if (chosen != NONE) {
        const uint32_t *inner = members + starts[chosen];
        uint32_t inner_count = starts[chosen + 1] - starts[chosen];
        for (uint32_t i = 0; i < inner_count; i++) g->within[inner[i]] = NONE;
        cycle_of_component(g, inner, inner_count, NONE, kinds);
        for (uint32_t i = 0; i < inner_count; i++) g->within[inner[i]] = component;
    }
    free(members);
    free(starts);
    return chosen != NONE;
}

static void component_name(graph *g, const uint32_t *nodes, uint32_t count, uint32_t component, unsigned real_time)
{
    unsigned glue = EDGE_GLUE | real_time;
    if (kinds_find(g, nodes, count, component, glue | EDGE_WW)) return;
    if (kinds_find(g, nodes, count, component, glue | EDGE_WW | EDGE_WR)) return;
    if (single_find(g, nodes, count, component, glue | EDGE_WW | EDGE_WR | EDGES_RW)) return;
    if (kinds_find(g, nodes, count, component, glue | EDGE_WW | EDGE_WR | EDGE_RW)) return;
    kinds_find(g, nodes, count, component, glue | EDGE_WW | EDGE_WR | EDGES_RW);
}

/* Names one cycle of each component, up to HISTORY_FINDINGS_MAX. real_time: EDGE_RT, or 0 to leave real time out. Returns whether there was any. */
static bool cycles_find(graph *g, unsigned real_time)
{
    unsigned kinds = EDGE_GLUE | EDGE_WW | EDGE_WR | EDGES_RW | real_time;
    uint32_t *all = array(g->count, sizeof(*all)), named = 0;
    for (uint32_t n = 0; n < g->count; n++) {
        all[n] = n;
        g->within[n] = 0;
    }
    uint32_t components = components_find(g, all, g->count, 0, kinds);
    components_group(g, all, g->count, components, g->members, g->starts);
    memcpy(g->within, g->found, g->count * sizeof(*g->within));
    for (uint32_t i = 0; i < components && named < HISTORY_FINDINGS_MAX; i++) {
        uint32_t count = g->starts[i + 1] - g->starts[i];
        if (count < 2) continue;
        component_name(g, g->members + g->starts[i], count, i, real_time);
        named++;
    }
    free(all);
    return named > 0;
}

void history_name_cycles(history_checker *c, uint32_t node_count)
{
    graph *g = graph_new(c, node_count);
    if (!cycles_find(g, 0)) cycles_find(g, EDGE_RT);
    if (c->result->found == 0) history_found(c, HISTORY_G2_REALTIME, "a cycle too long to be shown");
    graph_free(g);
}
