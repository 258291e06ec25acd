/*
 * The checker on histories made by a model: sound ones are accepted, those of a store that breaks its promises now and then, or with one operation
 * changed, are rejected; and how fast it is. MADE_SEED, MADE_HISTORIES.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/isolation/made.h"
#include "tests/support/prng.h"
#include "tests/support/rw_helpers.h"

#define RATE_WANTED 500000.0

static const char *mode_name(uint32_t mode)
{
    return mode == MADE_MIXED ? "mixed" : history_mode_name((history_mode)mode);
}

static made_options options_draw(uint64_t seed, uint32_t mode)
{
    prng random = {seed};
    return (made_options){.seed = seed, .txns = 500 + (uint32_t)prng_below(&random, 3000), .clients = 2 + (uint32_t)prng_below(&random, 12),
                          .keys = 4u << prng_below(&random, 5), .mode = mode};
}

static void check_sound(history_checker *checker, uint32_t mode, uint64_t seed, uint64_t histories)
{
    uint64_t unresolved = 0, unordered = 0, rw = 0;
    for (uint64_t i = 0; i < histories; i++) {
        made_options options = options_draw(seed + i, mode);
        history *h = made_history(&options, NULL);
        history_result result;
        bool sound = history_check(checker, h, &result);
        unresolved += result.unresolved;
        unordered += result.unordered;
        rw += result.rw;
        if (!sound) {
            tap_ok(false, "a sound history was rejected: mode %s, MADE_SEED=%llu", mode_name(mode), (unsigned long long)(seed + i));
            history_print(stdout, "# ", h, &result.findings[0]);
            history_free(h);
            return;
        }
        history_free(h);
    }
    tap_ok(rw > 0, "%llu sound histories, %s, are accepted", (unsigned long long)histories, mode_name(mode));
    tap_diag("%llu rw edges; %llu writes unordered, %llu absent reads unresolved", (unsigned long long)rw, (unsigned long long)unordered,
             (unsigned long long)unresolved);
}

static uint32_t fault_mode(made_fault fault)
{
    switch (fault) {
    case MADE_READS_UNCHECKED:
    case MADE_ABSENT_UNCHECKED: return HISTORY_SERIALIZABLE;
    case MADE_SHARED_UNLOCKED:
    case MADE_EXCLUSIVE_UNLOCKED: return HISTORY_PESSIMISTIC;
    default: return HISTORY_SNAPSHOT;
    }
}

/* A fault need not show each time; but a store that commits it thousands of times must not pass. */
static void check_fault(history_checker *checker, made_fault fault, uint32_t mode, uint64_t seed)
{
    bool rare = fault == MADE_ABSENT_UNCHECKED || fault == MADE_CLAIMS_UNCHECKED || fault == MADE_EXCLUSIVE_UNLOCKED;
    uint64_t faults = 0;
    history_result result = {0};
    for (unsigned tries = 0; tries < 40 && result.found == 0; tries++) {
        made_options options = {seed + tries, 20000, 8, 16, mode, fault, rare ? 1 : 10};
        uint64_t more;
        history *h = made_history(&options, &more);
        history_check(checker, h, &result);
        faults += more;
        history_free(h);
    }
    if (!tap_ok(result.found != 0, "%s: %s: rejected: %s", mode_name(mode), made_fault_text(fault), history_anomaly_name(result.findings[0].anomaly)))
        tap_diag("%llu faults, MADE_SEED=%llu", (unsigned long long)faults, (unsigned long long)seed);
}

/* The version that a write replaced, where its transaction read it; NONE otherwise. */
static uint32_t replaced_by(const history *h, uint32_t version)
{
    const history_op *write = history_writer_op(h, version);
    for (uint32_t i = h->txns[write->txn].op_first; i < version - 1; i++) {
        if (h->ops[i].key != write->key || h->ops[i].kind == HISTORY_ROLLBACK) continue;
        return h->ops[i].kind == HISTORY_READ && history_version_is_write(h->ops[i].version) ? h->ops[i].version : HISTORY_INITIAL;
    }
    return HISTORY_INITIAL;
}

typedef enum { STALE, FUTURE, NOT_COMMITTED, OTHER_KEY, WRITER_ABORTED, MUTATIONS } mutation;

/* Changes what one read saw so that it cannot be right; false: this read does not serve. */
static bool mutate(history *h, mutation kind, uint32_t i, prng *random)
{
    history_op *read = &h->ops[i];
    const history_txn *reader = &h->txns[read->txn];
    if (read->kind != HISTORY_READ || !history_version_is_write(read->version) || reader->outcome != HISTORY_COMMITTED) return false;
    const history_op *write = history_writer_op(h, read->version);
    if (write->txn == read->txn) return false;
    history_txn *writer = &h->txns[write->txn];
    uint32_t older = replaced_by(h, read->version), other = 1 + (uint32_t)prng_below(random, h->op_max);
    const history_op *chosen = history_writer_op(h, other);
    bool is_write = chosen->kind == HISTORY_WRITE && chosen->txn != read->txn && other - 1 < h->strands[h->strand_count - 1].op_first;
    const history_txn *by = &h->txns[is_write ? chosen->txn : read->txn];
    switch (kind) {
    case STALE:
        if (writer->commit_to >= reader->begin_from || older == HISTORY_INITIAL || history_writer_op(h, older)->txn == read->txn) return false;
        read->version = older;
        return true;
    case FUTURE:
        if (!is_write || chosen->key != read->key || by->outcome != HISTORY_COMMITTED || by->begin_from <= reader->commit_to) return false;
        read->version = other;
        return true;
    case NOT_COMMITTED:
        if (!is_write || chosen->key != read->key || by->outcome != HISTORY_ABORTED) return false;
        read->version = other;
        return true;
    case OTHER_KEY:
        if (!is_write || chosen->key == read->key) return false;
        read->version = other;
        return true;
    default:
        writer->outcome = HISTORY_ABORTED;
        return true;
    }
}

static void check_mutation(history_checker *checker, mutation kind, uint64_t seed, uint32_t rounds)
{
    static const char *const names[MUTATIONS] = {"a stale version", "a version of the future", "a version of an aborted transaction",
                                                 "a version of another key",
                                                 "a version whose writer is then said to have aborted"};
    prng random = {seed};
    uint32_t rejected = 0, tries = 0;
    for (uint32_t n = 0; n < rounds; n++) {
        made_options options = {seed + n, 2000, 6, 12, n % 2 == 0 ? HISTORY_SERIALIZABLE : MADE_MIXED, MADE_NOTHING, 1};
        history *h = made_history(&options, NULL);
        history_result result;
        bool done = false;
        for (uint32_t draws = 0; !done && draws < 2000000; draws++) {
            const history_strand *strand = &h->strands[prng_below(&random, h->strand_count)];
            done = mutate(h, kind, strand->op_first + (uint32_t)prng_below(&random, strand->op_count), &random);
        }
        tries += done;
        rejected += done && !history_check(checker, h, &result);
        history_free(h);
    }
    tap_ok(tries > rounds / 2 && rejected == tries, "%u histories in which one read is of %s: %u rejected", tries, names[kind], rejected);
}

static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The best of a few: what else the machine does to caches and memory is no property of the checker. */
static void check_speed(history_checker *checker, uint32_t txns)
{
    made_options options = {1, txns, 16, 256, MADE_MIXED, MADE_NOTHING, 1};
    history *h = made_history(&options, NULL);
    history_result result;
    double best = 0;
    for (unsigned i = 0; i < 5 && best < RATE_WANTED; i++) {
        double start = processor_seconds();
        TAP_CHECK(history_check(checker, h, &result));
        double rate = (double)result.txns / (processor_seconds() - start);
        if (rate > best) best = rate;
    }
#if defined(RW_CHECKS)
    bool fast = best > 0;            /* built to find faults, not to be fast */
#else
    bool fast = best >= RATE_WANTED;
#endif
    tap_ok(fast, "%llu transactions of %.1f operations: %.0f checked a second of one processor", (unsigned long long)result.txns,
           (double)result.ops / (double)result.txns, best);
    history_free(h);
}

int main(void)
{
    history_checker *checker = history_checker_new();
    uint64_t seed = number_from("MADE_SEED", (uint64_t)time(NULL));
    static const uint32_t modes[] = {HISTORY_SNAPSHOT, HISTORY_SERIALIZABLE, HISTORY_PESSIMISTIC, MADE_MIXED};
    for (size_t i = 0; i < 4; i++) check_sound(checker, modes[i], seed, number_from("MADE_HISTORIES", 150));
    for (made_fault fault = MADE_NOTHING + 1; fault < MADE_FAULTS; fault++) {
        check_fault(checker, fault, fault_mode(fault), seed);
        check_fault(checker, fault, MADE_MIXED, seed);
    }
    for (mutation kind = 0; kind < MUTATIONS; kind++) check_mutation(checker, kind, seed, 60);
#if defined(RW_CHECKS)
    check_speed(checker, 20000);
#else
    check_speed(checker, 1000000);
#endif
    history_checker_free(checker);
    return tap_done();
}
