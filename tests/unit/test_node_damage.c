/* btree/node: searches, the checker and the printer on damaged bytes, and each rule of the checker by itself. test_node_damage SEED draws other bytes. */
#include "tests/unit/node_test.h"

static uint64_t seed = 42;

/* ---- damaged bytes -------------------------------------------------------------------------------------------------------- */

/* Whatever the bytes: in range, and inside the page (the sanitizer watches the page's end). */
static bool searches_in_range(const node *n, uint32_t page_size, rw_slice key)
{
    bool found;
    static volatile unsigned sink;     /* so that the bytes are really read */
    unsigned flags, most = node_capacity(page_size) / (unsigned)sizeof(node_slot);
    unsigned slot = node_lower_bound(n, page_size, key, &found), child = node_child_slot(n, page_size, key);
    unsigned before = node_child_slot_before(n, page_size, key);
    rw_slice value = node_value(n, page_size, slot, &flags);
    page_ref ref = node_child(n, page_size, child);
    const unsigned char *bytes = value.data;
    for (size_t i = 0; i < value.size; i++) sink = sink + bytes[i];
    sink = sink + ref.checksum;
    return slot <= most && child <= most && before <= most && value.size <= page_size;
}

/* A node that passed the checker can be used for everything. */
static bool accepted_is_usable(const node *checked, uint32_t page_size, FILE *nowhere, unsigned char *scratch)
{
    static unsigned char key[RW_PAGE_SIZE_MAX];
    node *n = page_new(page_size);
    memcpy(n, checked, page_size);
    node_print(n, page_size, nowhere);
    bool good = true;
    for (unsigned i = 0; i < node_count(n); i++) {
        bool found;
        size_t size = node_key_length(n, i);
        node_key_copy(n, i, key);
        if (i > 0 || n->page.level == 0) good = good && node_lower_bound(n, page_size, rw_slice_of(key, size), &found) == i && found;
    }
    node_tidy(n, page_size, scratch);
    good = good && node_check(n, page_size, true) == 0;
    if (node_count(n) > 1) node_remove(n, page_size, node_count(n) / 2);
    good = good && node_check(n, page_size, true) == 0;
    free(n);
    return good;
}

static void mutate(prng *random, node *n, uint32_t page_size)
{
    unsigned char *bytes = (unsigned char *)n;
    uint32_t slots_end = (uint32_t)offsetof(node, slots) + 12u * RW_MIN(n->count, 40u);
    for (uint64_t i = prng_below(random, 4); i < 4; i++) {
        uint64_t at = prng_below(random, 3) == 0 ? prng_below(random, page_size) : 64 + prng_below(random, slots_end - 64);
        switch (prng_below(random, 3)) {
        case 0: bytes[at] ^= (unsigned char)(1 << prng_below(random, 8)); break;
        case 1: bytes[at] = (unsigned char)prng_next(random); break;
        default: bytes[at] = (unsigned char)(bytes[at] + (prng_below(random, 2) ? 1 : 255)); break;
        }
    }
}

static node *random_node(prng *random, uint32_t page_size, unsigned level)
{
    static unsigned char key[KEY_BYTES], value[RW_PAGE_SIZE_MAX];
    world *w = world_new(page_size, level, (enum shape)prng_below(random, SHAPES), prng_next(random));
    node *n = w->nodes[0];
    unsigned flags;
    for (unsigned i = (unsigned)prng_below(random, 80); i != 0; i--) {
        bool found;
        rw_slice k = key_make(w, key), v = value_make(w, k.size, value, &flags);
        unsigned slot = node_lower_bound(n, page_size, k, &found);
        if (!found && slot >= level && node_fits(n, page_size, k.size, v.size)) node_insert(n, page_size, slot, k, v, flags);
    }
    w->nodes[0] = page_new(page_size);
    world_free(w);
    return n;
}

static void test_mutated(void)
{
    static unsigned char scratch[RW_PAGE_SIZE_MAX] RW_ALIGNED(64), key[64];
    FILE *nowhere = fopen("/dev/null", "w");
    prng random = {.state = seed};
    unsigned accepted = 0, refused = 0, wrong = 0;
    for (unsigned round = 0; round < 6000; round++) {
        uint32_t page_size = RW_PAGE_SIZE_MIN << (round % 16 == 0 ? prng_below(&random, 5) : 0);
        uint64_t start = random.state;
        node *n = random_node(&random, page_size, round % 2);
        mutate(&random, n, page_size);
        prng_fill(&random, key, sizeof key);
        bool good = searches_in_range(n, page_size, rw_slice_of(key, prng_below(&random, sizeof key))) &&
                    searches_in_range(n, page_size, rw_slice_of("", 0));
        node_print(n, page_size, nowhere);
        int shallow = node_check(n, page_size, false), deep = node_check(n, page_size, true);
        good = good && (deep == 0 || deep == RW_ECORRUPT) && (shallow == 0 || deep != 0);
        if (deep == 0) good = good && accepted_is_usable(n, page_size, nowhere, scratch);
        accepted += deep == 0;
        refused += deep != 0;
        wrong += !good;
        if (!good) tap_diag("round %u, state %llu", round, (unsigned long long)start);
        free(n);
    }
    fclose(nowhere);
    tap_ok(wrong == 0, "damaged nodes are searched and checked safely; what the checker accepts can be used");
    tap_ok(accepted > 100 && refused > 1000, "of the damaged nodes %u are accepted, %u refused", accepted, refused);
}

static void test_garbage(void)
{
    FILE *nowhere = fopen("/dev/null", "w");
    prng random = {.state = seed + 7};
    unsigned wrong = 0;
    unsigned char key[64];
    for (unsigned round = 0; round < 3000; round++) {
        uint32_t page_size = RW_PAGE_SIZE_MIN << prng_below(&random, 5);
        node *n = page_new(page_size);
        prng_fill(&random, n, round % 2 ? page_size : sizeof *n);
        if (round % 3) n->page.type = PAGE_NODE;
        prng_fill(&random, key, sizeof key);
        wrong += !searches_in_range(n, page_size, rw_slice_of(key, prng_below(&random, sizeof key)));
        if (round % 8 == 0) node_print(n, page_size, nowhere);
        wrong += node_check(n, page_size, true) == 0;
        free(n);
    }
    fclose(nowhere);
    tap_ok(wrong == 0, "random bytes are searched safely and never accepted");
}

/* Each rule of the checker is there: one damage each, and the sentence that names it. */
static void test_rules(void)
{
    static const struct { const char *words; unsigned offset; unsigned char change; } damages[] = {
        {"page type", 6, 3}, {"heap start", 67, 0xff}, {"unused header byte", 83, 1}, {"prefix length", 70, 1}, {"lower fence", 73, 0x20},
        {"upper fence", 79, 0x20}, {"hint", 91, 1}, {"accounted", 68, 1}, {"extents", 80, 1}, {"last 8 bytes", 4095, 1}, {"its head", 153, 1},
        {"is not in the heap", 157, 0xff}, {"unknown flags", 162, 2}, {"extent reference", 162, 1}, {"too long", 159, 4},
    };
    static const unsigned char zeros[300];
    for (unsigned i = 0; i < RW_ARRAY_SIZE(damages); i++) {
        node *n = page_new(4096);
        node_init(n, 4096, 0, rw_slice_of("ab", 2), rw_slice_of("ac", 2));
        node_insert(n, 4096, 0, rw_slice_of("ab1", 3), rw_slice_of(zeros, 200), 0);
        node_insert(n, 4096, 1, rw_slice_of("ab2", 3), rw_slice_of(zeros, 300), 0);
        ((unsigned char *)n)[damages[i].offset] ^= damages[i].change;
        if (damages[i].offset == 159) {     /* a key longer than any may be, that fills the heap otherwise */
            node_init(n, 4096, 0, rw_slice_of("ab", 2), rw_slice_of("ac", 2));
            node_insert(n, 4096, 0, rw_slice_of("ab1", 3), rw_slice_of(n, 0), 0);
            n->heap_start = 2000;
            n->slots[0].offset = 2000;
            n->slots[0].key_length = 2084;
        }
        int error = node_check(n, 4096, true);
        tap_ok(error == RW_ECORRUPT && strstr(rw_error_text(), damages[i].words) != NULL, "%s: %s", damages[i].words, rw_error_text());
        free(n);
    }
}

static void test_order_rules(void)
{
    node *n = page_new(4096);
    node_init(n, 4096, 0, rw_slice_of("b", 1), rw_slice_of("d", 1));
    node_insert(n, 4096, 0, rw_slice_of("b2", 2), rw_slice_of("", 0), 0);
    node_insert(n, 4096, 1, rw_slice_of("b1", 2), rw_slice_of("", 0), 0);
    tap_ok(node_check(n, 4096, false) == 0 && node_check(n, 4096, true) == RW_ECORRUPT, "order: %s", rw_error_text());
    node_remove_many(n, 4096, 0, 2);
    node_insert(n, 4096, 0, rw_slice_of("a", 1), rw_slice_of("", 0), 0);
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT, "below the fence: %s", rw_error_text());
    node_remove(n, 4096, 0);
    node_insert(n, 4096, 0, rw_slice_of("d", 1), rw_slice_of("", 0), 0);
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT, "not below the upper fence: %s", rw_error_text());
    node_remove(n, 4096, 0);
    node_insert(n, 4096, 0, rw_slice_of("b", 1), rw_slice_of("bbbb", 4), 0);
    node_insert(n, 4096, 1, rw_slice_of("bb", 2), rw_slice_of("bbb", 3), 0);
    tap_ok(node_check(n, 4096, true) == 0, "a key may equal the lower fence");
    n->slots[1].offset = n->slots[0].offset;
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT && strstr(rw_error_text(), "overlaps"), "overlap: %s", rw_error_text());
    free(n);
}

static node *inner_of_two(const char *separator, page_ref ref)
{
    node *n = page_new(4096);
    rw_slice value = rw_slice_of(&ref, sizeof ref);
    node_init(n, 4096, 1, rw_slice_of("l", 1), rw_slice_of("u", 1));
    node_insert(n, 4096, 0, rw_slice_of("l", 1), value, 0);
    node_insert(n, 4096, 1, rw_slice_of(separator, 1), value, 0);
    return n;
}

static void check_refused(node *n, const char *words)
{
    tap_ok(node_check(n, 4096, true) == RW_ECORRUPT && strstr(rw_error_text(), words) != NULL, "inner: %s: %s", words, rw_error_text());
    free(n);
}

static void test_inner_rules(void)
{
    page_ref ref = page_ref_disk(77, 1, 0, 0);
    node *n = inner_of_two("m", ref);
    TAP_CHECK(node_check(n, 4096, true) == 0);
    n->slots[0].flags = 1;
    check_refused(n, "flags 0x1");
    n = inner_of_two("m", ref);
    n->slots[1].value_length = 15;
    check_refused(n, "page reference of 15 bytes");
    check_refused(inner_of_two("m", page_ref_none()), "names no child");
    n = inner_of_two("m", ref);
    n->slots[0].key_length = 1;
    n->slots[0].head = (uint32_t)((unsigned char *)n)[n->slots[0].offset] << 24;
    check_refused(n, "first child has a separator");
    n = inner_of_two("m", ref);
    node_remove_many(n, 4096, 0, 2);
    check_refused(n, "without a child");
    check_refused(inner_of_two("l", ref), "not above the lower fence");
    n = inner_of_two("m", ref);
    ((unsigned char *)n)[n->lower_offset] = 'v';
    check_refused(n, "the lower fence is not below");
}

int main(int argc, char **argv)
{
    if (argc > 1) seed = strtoull(argv[1], NULL, 10);
    tap_diag("replay: %s %llu", argv[0], (unsigned long long)seed);
    test_rules();
    test_order_rules();
    test_inner_rules();
    test_mutated();
    test_garbage();
    return tap_done();
}
