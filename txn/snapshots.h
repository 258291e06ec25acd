/*
 * Which moments are still being read: the registry of open snapshots (X1, X2).
 *
 * Writers look at `newest` after they have their timestamp, and trimming looks at `oldest`; neither takes the mutex. A snapshot that is being begun stands in the
 * list already, at a timestamp that its own will not be below (a claim), while its moment is asked for without the mutex: that may have to wait for commits, and
 * commits may have to take the mutex.
 */
#ifndef RW_SNAPSHOTS_H
#define RW_SNAPSHOTS_H

#include "base/base.h"
#include "kernel_io/kernel_io.h"

#define SNAPSHOT_BEGINNING UINT64_MAX
#define SNAPSHOT_OF_COMMIT UINT64_MAX      /* as an owner: a commit's own, while it is applied */

/* Lies in its owner: a transaction or a cursor. */
typedef struct snapshot {
    uint64_t timestamp;            /* sees what lies below */
    uint64_t begun_ns;
    uint64_t owner;                /* a transaction's id; 0: a cursor's; SNAPSHOT_OF_COMMIT */
    bool given_up;                 /* under the mutex: no longer in the list */
    bool beginning;                /* under the mutex: timestamp is a claim, and will not fall */
    struct snapshot *older, *newer;
} snapshot;

typedef struct {
    kio *kio;
    /* any thread, atomic */
    RW_ALIGNED(64) _Atomic uint64_t newest;   /* timestamp of the newest open snapshot; SNAPSHOT_BEGINNING: one is being begun; 0: none is open */
    _Atomic uint64_t oldest;                  /* no snapshot, open or being begun, lies below it; UINT64_MAX: there is none */
    _Atomic uint64_t lost;                    /* snapshots with timestamps up to it were given up; 0: none ever was */
    _Atomic uint64_t given_up_count;
    _Atomic uint64_t count;                   /* of open ones; changed under mutex */
    RW_ALIGNED(64) _Atomic uint64_t disturbed;    /* raised by commits that are about to be applied while one is being begun */
    /* under mutex */
    RW_ALIGNED(64) kio_mutex mutex;
    snapshot *head, *tail;                    /* oldest to newest */
    uint64_t beginning;                       /* of those being begun */
    uint64_t reached;                         /* the newest moment that snapshots_begin was told */
} snapshots;

void snapshots_init(snapshots *s, kio *k);

/*
 * timestamp(arg): the moment, a function of its own because it must be called after the registry has announced that one is being begun. Called without the mutex. Not
 * 0, and never below what it returned from a call that was over before this one began.
 */
void snapshots_begin(snapshots *s, snapshot *new, uint64_t owner, uint64_t (*timestamp)(void *arg), void *arg);
/* As snapshots_begin for a moment that the caller knows, and at or above which nothing was changed yet without him. */
void snapshots_begin_at(snapshots *s, snapshot *new, uint64_t owner, uint64_t timestamp);
void snapshots_end(snapshots *s, snapshot *old);

/* By a commit that has its place in the log, before anything of it is applied: whoever is looking for a moment must look again (engine/moment.c). */
static inline void snapshots_disturb(snapshots *s)
{
    if (RW_UNLIKELY(atomic_load(&s->newest) == SNAPSHOT_BEGINNING)) atomic_fetch_add(&s->disturbed, 1);
}

/* Whether a snapshot may have lost what it could read. Looked at after reading. */
static inline bool snapshots_is_lost(const snapshots *s, uint64_t timestamp)
{
    atomic_thread_fence(memory_order_acquire);
    return timestamp <= atomic_load_explicit(&s->lost, memory_order_acquire);
}

/* Gives up the oldest snapshot, and those of the same moment. false: none is open. */
bool snapshots_give_up_oldest(snapshots *s);
/* Gives up all with timestamps up to upto, those being begun included: their versions could not be kept. */
void snapshots_give_up(snapshots *s, uint64_t upto);

/* Whether one may be in (after, upto], or come to be there; looks at a few from either end and never waits, so it may say yes where the answer is no. */
bool snapshots_between(snapshots *s, uint64_t after, uint64_t upto);

/* Age of the oldest in ns; 0: none. */
uint64_t snapshots_oldest_age(snapshots *s);
static inline uint64_t snapshots_count(const snapshots *s) { return atomic_load_explicit(&s->count, memory_order_relaxed); }   /* open ones */
/* Whether, a moment ago, no snapshot was open or being begun but this one. */
static inline bool snapshots_is_alone(const snapshots *s, const snapshot *one)
{
    return atomic_load_explicit(&s->newest, memory_order_relaxed) == one->timestamp && snapshots_count(s) == 1;
}
/* Calls fn for each open one, oldest first, under the mutex. A non-zero result ends it, and is returned. */
int snapshots_for_each(snapshots *s, int (*fn)(void *arg, const snapshot *one), void *arg);

#endif
