/* The checker on histories made by hand: bad ones must be rejected by name, good ones accepted. */
#include <string.h>

#include "tests/isolation/history.h"
#include "tests/isolation/history_text.h"
#include "tests/support/tap.h"

typedef struct {
    history_anomaly anomaly;         /* HISTORY_NONE: it is good */
    const char *what, *text;
} example;

static const example bad[] = {
    {HISTORY_UNWRITTEN, "a value that nobody wrote", "Z 1 2: wx1<0 | Z 3 4: rx~"},
    {HISTORY_UNWRITTEN, "a key lost that was never deleted", "+x R 1 2: rx-"},
    {HISTORY_INTERNAL, "an own write not seen", "S 1 4: rx0 wx1 rx0"},
    {HISTORY_INTERNAL, "an own delete not seen", "S 1 2: wx1<0 | S 3 6: rx1 dx2 rx1"},
    {HISTORY_INTERNAL, "an own write seen after its savepoint was rolled back to", "S 1 4: wx1<0 { wx2 } rx2"},
    {HISTORY_INTERNAL, "a transaction reads its own future", "S 1 4: rx1 wx1"},
    {HISTORY_G1A, "a read of an aborted write", "S! 1 4: rx0 wx1 | S 2 3: rx1"},
    {HISTORY_G1A, "an aborted transaction's read of an aborted write", "Z! 1 4: rx0 wx1 | Z! 2 3: rx1"},
    {HISTORY_G1A, "a read of a write that a savepoint took back", "Z 1 4: rx0 { wx1 } wx2 | Z 5 6: rx1"},
    {HISTORY_G1A, "a write on top of an aborted one", "Z! 1 2: rx0 wx1 | O 3 4: wx2<1"},
    {HISTORY_G1B, "an intermediate read", "S 1 4: rx0 wx1 wx2 | S 5 6: rx1"},
    {HISTORY_G0, "two blind writers of two keys in opposite orders",
     "Z 1-2 9-10: wx1<0 wy1<2 | Z 1-2 9-10: wx2<1 wy2<0"},
    {HISTORY_G1C, "two transactions that read each other's writes", "Z 1-3 8-10: rx0 wx1 ry1 | Z 1-3 8-10: ry0 wy1 rx1"},
    {HISTORY_G1C, "a ww and a wr", "Z 1-3 8-10: rx0 wx1 ry1 | Z 1-3 8-10: rx1 wx2 ry0 wy1"},
    {HISTORY_LOST_UPDATE, "both replaced one version", "S 1 4: rx0 wx1 | S 2 5: rx0 wx2"},
    {HISTORY_LOST_UPDATE, "a compare-and-set beside a transaction", "O 1 2: wx1<0 | P 3 6: rx1 wx2 | O 4 5: rx1 wx3<1"},
    {HISTORY_LOST_UPDATE, "a blind write between a read and its write", "Z 1 2: rx0 wx1 | Z 3 8: rx1 wx2 | O 4 5: wx3"},
    {HISTORY_LOST_UPDATE, "an insert that did not see the other one", "S 1 5: rx- wx1 | S 2 6: rx- wx2"},
    {HISTORY_G_SINGLE, "read skew", "S 1 2: wx1<0 wy1<0 | S 3-5 6: rx1 ry2 | S 3-4 5: rx1 wx2 ry1 wy2"},
    {HISTORY_G_SINGLE, "a fractured read", "P 1-9 1-9: rx0 ry1 | P 2-8 2-8: rx0 wx1 ry0 wy1"},
    {HISTORY_G_SINGLE, "a read that is not repeatable", "Z 1-8 9: rx0 rx1 | Z 1-2 4-5: rx0 wx1"},
    {HISTORY_G_SINGLE, "a serializable reader of a snapshot transaction's halves", "R 1-9 9: rx1 ry0 | S 2-8 3-8: rx0 wx1 ry0 wy1"},
    {HISTORY_G_SINGLE, "a key absent, then there, in one transaction", "R 1-9 9: sx- rx1 | O 1 8: wx1<0"},
    {HISTORY_G0_REALTIME, "a second writer beside the first: ww against the snapshot's time", "S 1 4: wx1<0 | S 3 5: wx2<1"},
    {HISTORY_G_NONADJACENT, "a long fork", "S 1-2 9-10: rx0 wx1 | S 1-2 9-10: ry0 wy1 | R 1-9 10: rx1 ry0 | R 1-9 10: rx0 ry1"},
    {HISTORY_G2_ITEM, "write skew of serializable transactions", "Z 1 5: rx0 ry0 wx1 | Z 2 6: rx0 ry0 wy1"},
    {HISTORY_G2_ITEM, "write skew of pessimistic ones", "P 1-9 1-9: rx0 ry0 wx1 | P 1-9 1-9: rx0 ry0 wy1"},
    {HISTORY_G2_ITEM, "write skew between the two", "Z 1 5-9: rx0 ry0 wx1 | P 2 5-9: rx0 ry0 wy1"},
    {HISTORY_G2_ITEM, "write skew over keys claimed for update", "S 1 5: ux0 uy0 wx1 | S 2 6: ux0 uy0 wy1"},
    {HISTORY_G2_ITEM, "a cycle of three", "Z 1 7: rx0 wy1<0 | Z 2 8: ry0 wz1<0 | Z 3 9: rz0 wx1<0"},
    {HISTORY_G2, "phantoms: both scanned, both inserted", "Z 1 5: sx- sy- wx1 | Z 2 6: sx- sy- wy1"},
    {HISTORY_G2, "a phantom and an item", "P 1-9 1-9: sx- wy1<0 | P 1-9 1-9: ry0 wx1<0"},
    {HISTORY_G0_REALTIME, "a later write ordered before an ended one", "O 1 2: wx1<2 | O 3 4: wx2<0"},
    {HISTORY_G1C_REALTIME, "a read of a write that had not begun", "R 1 2: rx1 | O 3 4: wx1<0"},
    {HISTORY_G1C_REALTIME, "a snapshot that includes a later commit", "S 1-2 9: rx1 wy1<0 | S 3 4: rx0 wx1"},
    {HISTORY_G_SINGLE_REALTIME, "a stale read", "S 1 2: rx0 wx1 | R 3 4: rx0"},
    {HISTORY_G_SINGLE_REALTIME, "a stale absent key after its delete and second insert",
     "O 1 2: wx1<0 | O 3 4: dx2<1 | O 5 6: wx3<- | R 7 8: rx-"},
    {HISTORY_G_SINGLE_REALTIME, "a get that goes back behind another get", "O 1 9: wx1<0 wy1<0 | O 2 3: rx1 | O 4 5: ry0"},
    {HISTORY_G_SINGLE_REALTIME, "an aborted transaction's stale read", "O 1 2: wx1<0 | Z! 3 4: rx0"},
    {HISTORY_G_NONADJACENT_REALTIME, "a long fork of which one side is real time", "S 1 2-20: rx0 wx1 | R 1-19 20: rx1 ry0 | O 3 4: wy1<0 | R 5 6: rx0"},
    {HISTORY_G2_ITEM_REALTIME, "a commit both before and after an ended pair", "R 5 6: rx0 | Z 1 2-20: ry0 wx1<0 | O 3 4: wy1<0"},
    {HISTORY_G2_REALTIME, "the same over a range", "R 5 6: rx0 | Z 1 2-20: sy- wx1<0 | O 3 4: wy1<0"},
    {HISTORY_G_SINGLE, "a recovered state that holds half a transaction", "S 1 2-3: rx0 wx1 ry0 wy1 | X 0 0: rx1 ry0"},
    {HISTORY_G_SINGLE_REALTIME, "a durable commit lost", "S* 1 2: rx0 wx1 | X 0 0: rx0"},
    {HISTORY_G_SINGLE_REALTIME, "a commit lost that had ended before a durable one began", "S 1 2: rx0 wx1 | S* 3 4: ry0 wy1 | X 0 0: rx0 ry1"},
    {HISTORY_G_SINGLE_REALTIME, "a stale read of a single call of unknown outcome that was seen", "O 1 2: wx1<0 | O? 3 4: rx0 wy2<0 | X 0 0: ry2"},
    {HISTORY_G_NONADJACENT, "a snapshot between two commits of which a crash kept the later one", "O? 1 9: wx1<0 | O 2 3: wy1<0 | R 4 5: rx0 ry1 | X 0 0: rx1 ry0"},
    {HISTORY_G_SINGLE, "half of a commit of unknown outcome", "S? 1 2: rx0 wx1 ry0 wy1 | X 0 0: rx1 ry0"},
};

static const example good[] = {
    {HISTORY_NONE, "one after the other", "Z 1 2: rx0 wx1 | Z 3 4: rx1 wx2 | R 5 6: rx2"},
    {HISTORY_NONE, "write skew of snapshot transactions", "S 1 5: rx0 ry0 wx1 | S 2 6: rx0 ry0 wy1"},
    {HISTORY_NONE, "phantoms of snapshot transactions", "S 1 5: sx- sy- wx1 | S 2 6: sx- sy- wy1"},
    {HISTORY_NONE, "the read-only anomaly of snapshots", "S 1 8: rx0 ry0 wx1 | S 2-3 4-5: ry0 wy1 | R 6 7: rx0 ry1"},
    {HISTORY_NONE, "a snapshot transaction skewed by a serializable one that commits first", "S 1 6: rx0 ry0 wy1 | Z 2 5: rx0 ry0 wx1 | R 7 8: rx1 ry1"},
    {HISTORY_NONE, "a snapshot transaction whose reads are before, its commit after, an ended pair", "R 5 6: rx0 | S 1 2-20: ry0 wx1<0 | O 3 4: wy1<0"},
    {HISTORY_NONE, "an old snapshot", "R 1 9: rx0 ry0 | S 2 3: rx0 wx1 | S 4 5: ry0 wy1 | R 6 7: rx1 ry1"},
    {HISTORY_NONE, "concurrent reads before and after a commit", "O 1 9: wx1<0 | O 2 3: rx0 | O 4 5: rx1"},
    {HISTORY_NONE, "own writes", "S 1 4: rx0 wx1 rx1 dx2 rx- wx3 rx3 | R 5 6: rx3"},
    {HISTORY_NONE, "savepoints", "S 1 4: wx1<0 { wx2 rx2 dx3 rx- } rx1 | R 5 6: rx1"},
    {HISTORY_NONE, "a savepoint around the only write of a key", "S 1 4: rx0 { wx1 rx1 } rx0 wy1<0 | R 5 6: rx0 ry1"},
    {HISTORY_NONE, "an aborted transaction", "Z! 1 4: rx0 wx1 rx1 | Z 2 5: rx0 wx2"},
    {HISTORY_NONE, "blind writes in the order of time", "O 1 2: wx1 | O 3 4: wx2 | O 5 6: rx2 | Z 7 8: rx2 wx3"},
    {HISTORY_NONE, "blind writes at the same time", "O 1 9: wx1 | O 2 8: wx2 | O 10 11: rx1 | O 12 13: wx3 | O 14 15: rx3"},
    {HISTORY_NONE, "a blind write of one that had read it before a concurrent one", "P 1 3-6: rx0 wx1 | O 2 7: wx2 | O 8 9: rx2"},
    {HISTORY_NONE, "deletes and inserts", "O 1 2: wx1<- | O 3 4: rx1 dx2<1 | O 5 6: rx- | O 7 8: wx3<- | R 9 10: rx3"},
    {HISTORY_NONE, "an insert and a delete in one transaction are no write", "S 1 4: rx- wx1 dx2 | S 3 5: rx- wx3 | R 6 7: rx3"},
    {HISTORY_NONE, "a blind write and a delete may be none", "S 1 4: wx1 dx2 | S 3 5: rx- wx3 | R 6 7: rx3"},
    {HISTORY_NONE, "an absent key that may be of either time", "O 1 4: wx1<0 | O 5 6: dx2<1 | R 2-7 8: rx-"},
    {HISTORY_NONE, "an insert by the one that found nothing, among other deletes",
     "O 1 2: wx1<0 | O 3 8: dx2<1 | S 4-9 10: rx- wx3 | O 11 12: dx4<3 | S 13 14: rx- wx5 | O 15 16: rx5"},
    {HISTORY_NONE, "an insert by the one that found nothing, first without and then with the delete's number, beside a blind write",
     "O 1 2: wx1<0 | O 3 4: dx2<1 | P 5 10-20: sx- rx2 wx3 | O 9 30: wx4"},
    {HISTORY_NONE, "a recovered state before what was not durable", "S* 1 2: rx0 wx1 | S 3 4: rx1 wx2 | S 5 6: ry0 wy1 | X 0 0: rx1 ry0"},
    {HISTORY_NONE, "a recovered state with part of it", "S* 1 2: rx0 wx1 | S 3 4: rx1 wx2 | S 5 6: ry0 wy1 | X 0 0: rx2 ry0"},
    {HISTORY_NONE, "unknown outcomes, one seen and one not", "S? 1 2: rx0 wx1 | S? 3 4: ry0 wy1 | X 0 0: rx1 ry0"},
    {HISTORY_NONE, "a single call of unknown outcome that nobody saw has read nothing", "O 1 2: wx1<0 | O? 3 4: rx0 dx2<0 | X 0 0: rx1"},
    {HISTORY_NONE, "a get that missed a commit under way, and a crash that kept only that", "O? 1 9: wx1<0 | O 2 3: wy1<0 | O 4 5: rx0 | X 0 0: rx1 ry0"},
    {HISTORY_NONE, "a key that is there at first", "+x S 1 2: rx0 dx1 | R 3 4: rx-"},
};

static void check_example(history_checker *checker, const example *e)
{
    history *h = history_from_text(e->text);
    history_result result;
    history_check(checker, h, &result);
    history_anomaly found = result.found > 0 ? result.findings[0].anomaly : HISTORY_NONE;
    if (!tap_ok(found == e->anomaly, "%s: %s", history_anomaly_name(e->anomaly), e->what)) {
        tap_diag("%s", e->text);
        tap_diag("found: %s", history_anomaly_name(found));
        if (result.found > 0) tap_diag("%s", result.findings[0].text);
    }
    history_free(h);
}

/* A transaction that did not end is no part of a history. */
static void check_open(history_checker *checker)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        history *h = history_from_text(bad[i].text);
        history_result result;
        for (uint32_t t = 0; t < h->strands[0].txn_count; t++) h->txns[t].outcome = HISTORY_OPEN;
        history_check(checker, h, &result);
        if (!TAP_CHECK(result.found == 0 && result.txns == 0)) tap_diag("%s", bad[i].text);
        history_free(h);
    }
}

int main(void)
{
    history_checker *checker = history_checker_new();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) check_example(checker, &bad[i]);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) check_example(checker, &good[i]);
    check_open(checker);
    history_checker_free(checker);
    return tap_done();
}
