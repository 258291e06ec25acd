#include "base/planted.h"
#include "base/preempt.h"
#include "txn/snapshots.h"

#define BETWEEN_LOOKS 8u

void snapshots_init(snapshots *s, kio *k)
{
    memset(s, 0, sizeof *s);
    s->kio = k;
    atomic_init(&s->oldest, UINT64_MAX);
}

/* ---- the list (under the mutex) ---------------------------------------------------------------------------------- */

/* Sorted by timestamp, claims by what they claim; equal ones in the order in which they came. */
static void list_insert(snapshots *s, snapshot *new)
{
    snapshot *older = s->tail;
    while (older != NULL && older->timestamp > new->timestamp) older = older->older;
    new->older = older;
    new->newer = older == NULL ? s->head : older->newer;
    *(older == NULL ? &s->head : &older->newer) = new;
    *(new->newer == NULL ? &s->tail : &new->newer->older) = new;
}

static void list_remove(snapshots *s, snapshot *old)
{
    *(old->older == NULL ? &s->head : &old->older->newer) = old->newer;
    *(old->newer == NULL ? &s->tail : &old->newer->older) = old->older;
    old->older = old->newer = NULL;
}

static void count_add(snapshots *s, int change)
{
    atomic_store_explicit(&s->count, snapshots_count(s) + (uint64_t)(int64_t)change, memory_order_relaxed);
}

/*
 * Sequentially consistent, both of them, when one begins: who has its timestamp and finds nothing here is seen by the moment that is asked for next.
 * oldest comes first: who has seen newest, and kept a version for it, must not find an oldest that lets the version go.
 */
static inline void publish_in(snapshots *s, memory_order order)
{
    uint64_t oldest = s->head == NULL ? UINT64_MAX : s->head->timestamp;
    uint64_t newest = s->beginning > 0 ? SNAPSHOT_BEGINNING : s->tail == NULL ? 0 : s->tail->timestamp;
    if (atomic_load_explicit(&s->oldest, memory_order_relaxed) != oldest) atomic_store_explicit(&s->oldest, oldest, order);
    if (atomic_load_explicit(&s->newest, memory_order_relaxed) != newest) atomic_store_explicit(&s->newest, newest, order);
}

static void publish(snapshots *s)
{
    publish_in(s, memory_order_seq_cst);
}

/* When one has its moment, or ends, newest only falls and oldest only rises: who sees that late keeps more than is needed, never less. */
static void publish_less(snapshots *s)
{
    publish_in(s, memory_order_release);
}

/* ---- beginning and ending ---------------------------------------------------------------------------------------- */

/* A claim stands at the newest moment that was reached before it, and the moment it will be given is not below that. */
static void claim(snapshots *s, snapshot *new)
{
    kio_mutex_lock(s->kio, &s->mutex);
    new->timestamp = s->reached;
    new->beginning = true;
    s->beginning++;
    list_insert(s, new);
    publish(s);
    kio_mutex_unlock(s->kio, &s->mutex);
}

/* A moment that has been given up meanwhile is not worth a place. */
static void settle(snapshots *s, snapshot *new)
{
    new->given_up = new->timestamp <= atomic_load_explicit(&s->lost, memory_order_relaxed);
    if (new->given_up) {
        atomic_fetch_add_explicit(&s->given_up_count, 1, memory_order_relaxed);
        return;
    }
    list_insert(s, new);
    count_add(s, 1);
}

void snapshots_begin(snapshots *s, snapshot *new, uint64_t owner, uint64_t (*timestamp)(void *arg), void *arg)
{
    *new = (snapshot){.begun_ns = kio_now_ns(s->kio), .owner = owner};
    claim(s, new);
    RW_PREEMPT(s->kio);
    uint64_t moment = timestamp(arg);
    RW_PREEMPT(s->kio);
    kio_mutex_lock(s->kio, &s->mutex);
    RW_ASSERT(moment > 0 && moment >= new->timestamp);
    list_remove(s, new);
    s->beginning--;
    new->beginning = false;
    new->timestamp = moment;
    s->reached = RW_MAX(s->reached, moment);
    settle(s, new);
    publish_less(s);
    kio_mutex_unlock(s->kio, &s->mutex);
}

void snapshots_begin_at(snapshots *s, snapshot *new, uint64_t owner, uint64_t timestamp)
{
    RW_ASSERT(timestamp > 0);
    *new = (snapshot){.timestamp = timestamp, .begun_ns = kio_now_ns(s->kio), .owner = owner};
    kio_mutex_lock(s->kio, &s->mutex);
    settle(s, new);
    publish(s);
    kio_mutex_unlock(s->kio, &s->mutex);
}

void snapshots_end(snapshots *s, snapshot *old)
{
    kio_mutex_lock(s->kio, &s->mutex);
    if (!old->given_up) {
        RW_ASSERT(snapshots_count(s) > 0 && !old->beginning);
        list_remove(s, old);
        count_add(s, -1);
        publish_less(s);
    }
    old->given_up = false;
    kio_mutex_unlock(s->kio, &s->mutex);
}

/* ---- giving up --------------------------------------------------------------------------------------------------- */

/* lost is raised before oldest lets anything go. Claims stay: who makes one looks at lost when it knows its moment. */
static void give_up_locked(snapshots *s, uint64_t upto)
{
    if (atomic_load_explicit(&s->lost, memory_order_relaxed) < upto) atomic_store(&s->lost, upto);
    for (snapshot *one = s->head, *newer; one != NULL && one->timestamp <= upto; one = newer) {
        newer = one->newer;
        if (one->beginning) continue;
        list_remove(s, one);
        one->given_up = true;
        count_add(s, -1);
        atomic_fetch_add_explicit(&s->given_up_count, 1, memory_order_relaxed);
    }
    publish(s);
}

bool snapshots_give_up_oldest(snapshots *s)
{
    kio_mutex_lock(s->kio, &s->mutex);
    snapshot *one = s->head;
    while (one != NULL && one->beginning) one = one->newer;
    if (one != NULL) give_up_locked(s, one->timestamp);
    kio_mutex_unlock(s->kio, &s->mutex);
    return one != NULL;
}

void snapshots_give_up(snapshots *s, uint64_t upto)
{
    kio_mutex_lock(s->kio, &s->mutex);
    give_up_locked(s, upto);
    kio_mutex_unlock(s->kio, &s->mutex);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

typedef enum { BETWEEN_NO, BETWEEN_YES, BETWEEN_UNKNOWN } between_answer;

/* A claim may come to lie anywhere above itself. */
static between_answer between_from_newest(const snapshots *s, uint64_t after, uint64_t upto)
{
    uint64_t claims = s->beginning;
    const snapshot *one = s->tail;
    for (unsigned i = 0; i < BETWEEN_LOOKS; i++) {
        if (one == NULL) return BETWEEN_NO;
        if (one->timestamp <= upto) return (claims > 0 && !RW_PLANTED(forget_claims)) || one->timestamp > after ? BETWEEN_YES : BETWEEN_NO;
        claims -= one->beginning;
        one = one->older;
    }
    return BETWEEN_UNKNOWN;
}

static between_answer between_from_oldest(const snapshots *s, uint64_t after, uint64_t upto)
{
    const snapshot *one = s->head;
    for (unsigned i = 0; i < BETWEEN_LOOKS; i++) {
        if (one == NULL || one->timestamp > upto) return BETWEEN_NO;
        if (one->timestamp > after || one->beginning) return BETWEEN_YES;
        one = one->newer;
    }
    return BETWEEN_UNKNOWN;
}

bool snapshots_between(snapshots *s, uint64_t after, uint64_t upto)
{
    if (!kio_mutex_try(&s->mutex)) return true;
    between_answer answer = between_from_newest(s, after, upto);
    if (answer == BETWEEN_UNKNOWN) answer = between_from_oldest(s, after, upto);
    kio_mutex_unlock(s->kio, &s->mutex);
    return answer != BETWEEN_NO;
}

uint64_t snapshots_oldest_age(snapshots *s)
{
    uint64_t begun_ns = 0, now_ns = kio_now_ns(s->kio);
    kio_mutex_lock(s->kio, &s->mutex);
    const snapshot *one = s->head;
    while (one != NULL && one->beginning) one = one->newer;
    if (one != NULL) begun_ns = one->begun_ns;
    kio_mutex_unlock(s->kio, &s->mutex);
    return one == NULL || begun_ns >= now_ns ? 0 : now_ns - begun_ns;
}

int snapshots_for_each(snapshots *s, int (*fn)(void *arg, const snapshot *one), void *arg)
{
    int result = 0;
    kio_mutex_lock(s->kio, &s->mutex);
    for (const snapshot *one = s->head; one != NULL && result == 0; one = one->newer)
        if (!one->beginning) result = fn(arg, one);
    kio_mutex_unlock(s->kio, &s->mutex);
    return result;
}
