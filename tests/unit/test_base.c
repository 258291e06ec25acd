/* Checksum, errors, random numbers, histogram. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/base.h"
#include "base/histogram.h"
#include "base/random.h"
#include "tests/support/tap.h"

/* ---- checksum ---- */

/* By the definition, bit by bit. */
static uint32_t checksum_slow(const unsigned char *data, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (unsigned bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void test_checksum_known(void)
{
    unsigned char bytes[32];
    tap_ok(rw_checksum(0, "123456789", 9) == 0xe3069283u, "the check value of CRC32C");
    memset(bytes, 0, sizeof bytes);
    tap_ok(rw_checksum(0, bytes, sizeof bytes) == 0x8a9136aau, "32 zeros, as in RFC 3720");
    memset(bytes, 0xff, sizeof bytes);
    tap_ok(rw_checksum(0, bytes, sizeof bytes) == 0x62a8ab43u, "32 times ff, as in RFC 3720");
    tap_ok(rw_checksum(0, NULL, 0) == 0 && rw_checksum(0xe3069283u, NULL, 0) == 0xe3069283u, "nothing leaves the seed as it is");
}

/* The data ends where readable memory ends, so that reading one byte too many is noticed. */
static void test_checksum_lengths(rw_random *random)
{
    size_t area = 3 * 4096;
    unsigned char *memory = mmap(NULL, area + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!TAP_CHECK(memory != MAP_FAILED)) return;
    TAP_CHECK(mprotect(memory + area, 4096, PROT_NONE) == 0);
    for (size_t i = 0; i < area; i++) memory[i] = (unsigned char)rw_random_next(random);
    bool same = true, chained = true;
    for (size_t size = 1; size < area; size = size < 600 ? size + 1 : size * 2 - 3) {
        const unsigned char *data = memory + area - size;
        uint32_t whole = rw_checksum(0, data, size);
        size_t cut = (size_t)rw_random_below(random, size + 1);
        same = same && whole == checksum_slow(data, size);
        chained = chained && whole == rw_checksum(rw_checksum(0, data, cut), data + cut, size - cut);
    }
    tap_ok(same, "every length and alignment as by the definition");
    tap_ok(chained, "two pieces give what the whole gives");
    munmap(memory, area + 4096);
}

/* ---- errors ---- */

static void *other_thread(void *arg)
{
    *(bool *)arg = rw_error_text()[0] == 0;
    rw_error(RW_EIO, "of the other thread");
    return NULL;
}

static void test_error_text(void)
{
    tap_ok(rw_error_text()[0] == 0, "no sentence at first");
    tap_ok(rw_error(RW_ENOSPC, "file %s, offset %d", "a", 7) == RW_ENOSPC && strcmp(rw_error_text(), "file a, offset 7") == 0,
           "rw_error returns the code and keeps the sentence");
    tap_ok(rw_error_prefix(RW_EIO, "while opening %s", "x") == RW_EIO &&
               strcmp(rw_error_text(), "while opening x: file a, offset 7") == 0, "rw_error_prefix puts words in front");
    rw_error(RW_EIO, "again: %s", rw_error_text());
    tap_ok(strcmp(rw_error_text(), "again: while opening x: file a, offset 7") == 0, "the sentence may be an argument of the next");
    rw_error_errno(RW_EACCESS, EACCES, "file b");
    tap_ok(strcmp(rw_error_text(), "file b: Permission denied (errno 13)") == 0, "rw_error_errno adds the words: %s", rw_error_text());

    char longest[2000];
    memset(longest, 'y', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    rw_error(RW_EIO, "%s", longest);
    tap_ok(strlen(rw_error_text()) == 511, "a sentence too long is cut");
    rw_error_prefix(RW_EIO, "p");
    tap_ok(strlen(rw_error_text()) == 511 && strncmp(rw_error_text(), "p: yyy", 6) == 0, "a prefix cuts at the end");
    rw_error_errno(RW_EIO, EIO, "%s", longest);
    tap_ok(strlen(rw_error_text()) == 511, "no room for the errno");

    pthread_t thread;
    bool was_empty = false;
    rw_error(RW_EIO, "mine");
    TAP_CHECK(pthread_create(&thread, NULL, other_thread, &was_empty) == 0 && pthread_join(thread, NULL) == 0);
    tap_ok(was_empty && strcmp(rw_error_text(), "mine") == 0, "each thread has its own sentence");
}

static void test_error_codes(void)
{
    static const struct {
        int errno_value, code;
    } known[] = {
        {ENOSPC, RW_ENOSPC}, {EDQUOT, RW_ENOSPC}, {EACCES, RW_EACCESS}, {EPERM, RW_EACCESS}, {ENOENT, RW_ENOENT}, {EROFS, RW_EREADONLY},
        {EMFILE, RW_EFILES}, {ENFILE, RW_EFILES}, {EEXIST, RW_EEXIST}, {ENOMEM, RW_ENOMEM}, {EINVAL, RW_EINVAL},
        {EOPNOTSUPP, RW_ENOTSUP}, {EIO, RW_EIO}, {EBADF, RW_EIO}, {ENXIO, RW_EIO},
    };
    for (size_t i = 0; i < RW_ARRAY_SIZE(known); i++) TAP_CHECK(rw_error_from_errno(known[i].errno_value) == known[i].code);
    unsigned described = 0;
    for (int code = -1; strcmp(rw_strerror(code), "unknown error") != 0; code--) described++;
    tap_ok(described == 25, "every code has its sentence, without a gap: %u", described);
    tap_ok(strcmp(rw_strerror(0), "success") == 0 && strcmp(rw_strerror(INT_MIN), "unknown error") == 0, "rw_strerror of no error");
}

/* ---- random ---- */

static void test_random(uint64_t seed)
{
    rw_random a, b, c;
    rw_random_seed(&a, seed);
    rw_random_seed(&b, seed);
    rw_random_seed(&c, seed + 1);
    bool same = true;
    unsigned equal = 0;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t x = rw_random_next(&a);
        same = same && x == rw_random_next(&b);
        equal += x == rw_random_next(&c);
    }
    tap_ok(same, "the same seed gives the same numbers");
    tap_ok(equal == 0, "another seed gives others");

    rw_random state = {{1, 2, 3, 4}};
    tap_ok(rw_random_next(&state) == 11520 && rw_random_next(&state) == 0 && rw_random_next(&state) == 1509978240,
           "the published numbers of xoshiro256** for the state 1, 2, 3, 4");

    unsigned counts[10] = {0};
    bool in_range = true;
    double sum = 0;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t x = rw_random_below(&a, 10);
        double unit = rw_random_unit(&a);
        in_range = in_range && x < 10 && unit >= 0 && unit < 1;
        counts[x % 10]++;
        sum += unit;
    }
    tap_ok(in_range, "below and unit stay in their ranges");
    bool is_even = sum > 49000 && sum < 51000;
    for (unsigned i = 0; i < 10; i++) is_even = is_even && counts[i] > 9500 && counts[i] < 10500;
    tap_ok(is_even, "and fill them evenly");
    tap_ok(rw_random_below(&a, 1) == 0, "below 1 is 0");
}

/* ---- histogram ---- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Never less than the true quantile, and more by 2^-6 at most. The rank is counted in whole numbers: a product of doubles may end just above it. */
static bool quantile_is_near(const rw_histogram *histogram, const uint64_t *sorted, size_t count, size_t ten_thousandths)
{
    size_t rank = (count * ten_thousandths + 9999) / 10000;
    uint64_t expected = sorted[rank - 1], got = rw_histogram_quantile(histogram, (double)ten_thousandths / 10000);
    if (got >= expected && got - expected <= expected / 64) return true;
    tap_diag("quantile %zu/10000: %llu for %llu", ten_thousandths, (unsigned long long)got, (unsigned long long)expected);
    return false;
}

static void test_histogram_quantiles(rw_random *random)
{
    static uint64_t values[20000];
    static rw_histogram whole, half[2];
    rw_histogram_init(&whole);
    rw_histogram_init(&half[0]);
    rw_histogram_init(&half[1]);
    for (size_t i = 0; i < RW_ARRAY_SIZE(values); i++) {
        values[i] = rw_random_next(random) >> rw_random_below(random, 64);
        rw_histogram_add(&whole, values[i]);
        rw_histogram_add(&half[i % 2], values[i]);
    }
    qsort(values, RW_ARRAY_SIZE(values), sizeof values[0], compare_u64);
    static const size_t fractions[] = {1, 100, 700, 1000, 2500, 5000, 7500, 9000, 9900, 9990, 9999};
    bool near = true;
    for (size_t i = 0; i < RW_ARRAY_SIZE(fractions); i++) near = quantile_is_near(&whole, values, RW_ARRAY_SIZE(values), fractions[i]) && near;
    tap_ok(near, "quantiles within their bound");
    tap_ok(rw_histogram_quantile(&whole, 0) == values[0] &&
               rw_histogram_quantile(&whole, 1) == values[RW_ARRAY_SIZE(values) - 1], "0 and 1 are exact");
    rw_histogram_merge(&half[0], &half[1]);
    tap_ok(memcmp(&half[0], &whole, sizeof whole) == 0, "two halves merge into the whole");
}

static void test_histogram_corners(void)
{
    static rw_histogram h;
    rw_histogram_init(&h);
    tap_ok(rw_histogram_quantile(&h, 0.5) == 0 && rw_histogram_quantile(&h, 1) == 0 && rw_histogram_mean(&h) == 0, "an empty histogram gives 0");
    rw_histogram_add(&h, UINT64_MAX);
    rw_histogram_add(&h, 0);
    tap_ok(rw_histogram_quantile(&h, 0.5) == 0 && rw_histogram_quantile(&h, 0.51) == UINT64_MAX, "the smallest and the largest value");
    rw_histogram_init(&h);
    for (uint64_t i = 1; i <= 100; i++) rw_histogram_add(&h, i);
    tap_ok(rw_histogram_quantile(&h, 0.07) == 7 && rw_histogram_quantile(&h, 0.5) == 50 && rw_histogram_quantile(&h, 0.64) <= 65,
           "small values are exact, ranks are not off by one");
    tap_ok(rw_histogram_mean(&h) > 50.49 && rw_histogram_mean(&h) < 50.51, "the mean");
    bool bounded = true;
    for (unsigned bit = 0; bit < 64; bit++) {
        for (int around = -1; around <= 1; around++) {
            uint64_t value = ((uint64_t)1 << bit) + (uint64_t)around;
            rw_histogram_init(&h);
            rw_histogram_add(&h, value);
            rw_histogram_add(&h, UINT64_MAX);
            uint64_t got = rw_histogram_quantile(&h, 0.5);
            bounded = bounded && got >= value && got - value <= value / 64;
        }
    }
    tap_ok(bounded, "values around every power of two");
}

int main(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    tap_diag("replay: %s %llu", argv[0], (unsigned long long)seed);
    rw_random random;
    rw_random_seed(&random, seed);
    test_checksum_known();
    test_checksum_lengths(&random);
    test_error_text();
    test_error_codes();
    test_random(seed);
    test_histogram_quantiles(&random);
    test_histogram_corners();
    return tap_done();
}
