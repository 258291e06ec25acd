/*
 * Requests by interval: a treap in which each subtree knows the request that ends last in it, so that a search leaves out what ends too early. Ends are
 * ordered strictly (equal ones by arrival), so a request that is some subtree's reach is so for an unbroken way up from itself.
 */
#include "txn/locks_internal.h"

static inline lock_node *node_of(lock_request *r, unsigned in)
{
    return in == IN_TABLE ? &r->in_table : &r->in_owner;
}

static inline rw_slice from_of(const lock_request *r)
{
    return rw_slice_of(r->bytes, r->from_size);
}

static bool ends_after(const lock_request *a, const lock_request *b)
{
    int order = lock_end_compare(lock_request_interval(a), lock_request_interval(b));
    return order != 0 ? order > 0 : a->arrival > b->arrival;
}

static void reach_compute(lock_request *r, unsigned in)
{
    lock_node *n = node_of(r, in);
    lock_request *best = r;
    if (n->left != NULL && ends_after(node_of(n->left, in)->reach, best)) best = node_of(n->left, in)->reach;
    if (n->right != NULL && ends_after(node_of(n->right, in)->reach, best)) best = node_of(n->right, in)->reach;
    n->reach = best;
}

/* Puts `by` in r's place under r's parent. */
static void child_replace(lock_request **root, unsigned in, lock_request *r, lock_request *by)
{
    lock_request *parent = node_of(r, in)->parent;
    if (parent == NULL) *root = by;
    else if (node_of(parent, in)->left == r) node_of(parent, in)->left = by;
    else node_of(parent, in)->right = by;
    if (by != NULL) node_of(by, in)->parent = parent;
}

/* r takes its parent's place. Leaves the reach of both to the caller. */
static void rotate_up(lock_request **root, unsigned in, lock_request *r)
{
    lock_node *n = node_of(r, in);
    lock_request *parent = n->parent, *moved;
    lock_node *p = node_of(parent, in);
    child_replace(root, in, parent, r);
    if (p->left == r) {
        moved = n->right;
        p->left = moved;
        n->right = parent;
    } else {
        moved = n->left;
        p->right = moved;
        n->left = parent;
    }
    if (moved != NULL) node_of(moved, in)->parent = parent;
    p->parent = r;
}

void lock_index_insert(lock_request **root, unsigned in, lock_request *r)
{
    lock_request *parent = NULL, **place = root;
    while (*place != NULL) {
        parent = *place;
        lock_node *p = node_of(parent, in);
        if (ends_after(r, p->reach)) p->reach = r;
        int order = rw_slice_compare(from_of(r), from_of(parent));
        place = order < 0 || (order == 0 && r->arrival < parent->arrival) ? &p->left : &p->right;
    }
    *place = r;
    lock_node *n = node_of(r, in);
    *n = (lock_node){.parent = parent, .reach = r};
    while (n->parent != NULL && n->parent->priority < r->priority) {
        lock_request *below = n->parent;
        n->reach = node_of(below, in)->reach;
        rotate_up(root, in, r);
        reach_compute(below, in);
    }
}

void lock_index_remove(lock_request **root, unsigned in, lock_request *r)
{
    lock_node *n = node_of(r, in);
    lock_request *above = n->parent;
    while (n->left != NULL && n->right != NULL) {
        rotate_up(root, in, n->left->priority > n->right->priority ? n->left : n->right);
    }
    lock_request *p = n->parent;
    child_replace(root, in, r, n->left != NULL ? n->left : n->right);
    for (; p != above; p = node_of(p, in)->parent) reach_compute(p, in);
    for (; p != NULL && node_of(p, in)->reach == r; p = node_of(p, in)->parent) reach_compute(p, in);
}

lock_request *lock_index_pop(lock_request **root, unsigned in)
{
    lock_request *r = *root;
    if (r == NULL) return NULL;
    for (;;) {
        lock_node *n = node_of(r, in);
        if (n->left != NULL) r = n->left;
        else if (n->right != NULL) r = n->right;
        else break;
    }
    child_replace(root, in, r, NULL);
    return r;
}

static bool is_before(const lock_request *r, lock_interval i, lock_limit limit)
{
    if (!lock_interval_reaches(i, from_of(r))) return false;
    if (limit.none) return true;
    int order = rw_slice_compare(from_of(r), limit.from);
    return order < 0 || (order == 0 && r->arrival < limit.arrival);
}

static bool reaches(const lock_request *r, rw_slice key)
{
    return lock_interval_reaches(lock_request_interval(r), key);
}

/*
 * The requests before the limit are those left of one way down from the root. The lowest place on that way where something to the left, or the place
 * itself, reaches i, has the last one; in a subtree that lies before the limit as a whole, reach alone leads.
 */
lock_request *lock_index_last(lock_request *root, unsigned in, lock_interval i, lock_limit limit)
{
    lock_request *found = NULL;
    for (lock_request *r = root; r != NULL;) {
        lock_node *n = node_of(r, in);
        if (!reaches(n->reach, i.from)) break;
        if (!is_before(r, i, limit)) {
            r = n->left;
            continue;
        }
        if (reaches(r, i.from) || (n->left != NULL && reaches(node_of(n->left, in)->reach, i.from))) found = r;
        r = n->right;
    }
    if (found == NULL || reaches(found, i.from)) return found;
    for (lock_request *r = node_of(found, in)->left;;) {
        lock_node *n = node_of(r, in);
        if (n->right != NULL && reaches(node_of(n->right, in)->reach, i.from)) r = n->right;
        else if (reaches(r, i.from)) return r;
        else r = n->left;
    }
}

lock_request *lock_index_first(lock_request *root, unsigned in)
{
    lock_request *r = root;
    while (r != NULL && node_of(r, in)->left != NULL) r = node_of(r, in)->left;
    return r;
}

lock_request *lock_index_next(lock_request *r, unsigned in)
{
    lock_node *n = node_of(r, in);
    if (n->right != NULL) return lock_index_first(n->right, in);
    while (n->parent != NULL && node_of(n->parent, in)->right == r) {
        r = n->parent;
        n = node_of(r, in);
    }
    return n->parent;
}
