/* The mutex that all back ends share, the simulator included. README.md, invariant 14, says what a waiter is promised. */
#include "kernel_io/kernel_io.h"

#include "base/base.h"

#define SPINS 100u
#define PATIENCE_NS 1000000u   /* of a sleeper, before the mutex is handed to one */

/* The states. AWAITED and STARVED: taken, and somebody may be asleep. HANDED: nobody has it, and only who has slept may take it. */
enum { FREE, TAKEN, AWAITED, STARVED, HANDED };

bool kio_mutex_try(kio_mutex *mutex)
{
    uint32_t expected = FREE;
    return atomic_compare_exchange_strong_explicit(&mutex->state, &expected, TAKEN, memory_order_acquire, memory_order_relaxed);
}

/* What a sleeper leaves for the one who unlocks. */
static uint32_t state_awaited(uint32_t seen, bool impatient)
{
    if (seen == HANDED) return HANDED;
    return impatient || seen == STARVED ? STARVED : AWAITED;
}

static void lock_asleep(kio *k, kio_mutex *mutex)
{
    uint64_t since_ns = kio_now_ns(k);
    bool slept = false, impatient = false;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&mutex->state, memory_order_relaxed);
        bool ours = seen == FREE || (seen == HANDED && slept);
        /* Taken as awaited even so: others may be asleep, and whoever unlocks wakes the next one. */
        uint32_t next = ours ? AWAITED : state_awaited(seen, impatient);
        if (next != seen &&
            !atomic_compare_exchange_weak_explicit(&mutex->state, &seen, next, memory_order_acquire, memory_order_relaxed)) continue;
        if (ours) return;
        kio_sleep(k, &mutex->state, next, -1);
        slept = true;
        impatient = impatient || kio_now_ns(k) - since_ns >= PATIENCE_NS;
    }
}

void kio_mutex_lock(kio *k, kio_mutex *mutex)
{
    if (kio_mutex_try(mutex)) return;
    for (unsigned i = 0; i < SPINS; i++) {
        rw_cpu_relax();
        if (atomic_load_explicit(&mutex->state, memory_order_relaxed) == FREE && kio_mutex_try(mutex)) return;
    }
    lock_asleep(k, mutex);
}

void kio_mutex_unlock(kio *k, kio_mutex *mutex)
{
    uint32_t seen = TAKEN;
    if (RW_LIKELY(atomic_compare_exchange_strong_explicit(&mutex->state, &seen, FREE, memory_order_release, memory_order_relaxed))) return;
    do {
        RW_ASSERT(seen == AWAITED || seen == STARVED);
    } while (!atomic_compare_exchange_weak_explicit(&mutex->state, &seen, seen == STARVED ? HANDED : FREE, memory_order_release, memory_order_relaxed));
    kio_wake(k, &mutex->state, 1);
}
