/*
 * Crashes and faults from seeds. Prints TAP; a failure's line replays it.
 *
 *   crash_sim --seed N [--state K]      one seed, or one crash state of it
 *   crash_sim --seeds A..B [--states N] all of them, or as many as it takes for N states
 *   crash_sim --faults --seed(s) ...    the same with failing machines
 *   crash_sim --planted NAME|often|all  whether a planted bug is found, within --states N; often: all but those that few runs meet (builds with -DRW_PLANTED_BUGS)
 *   --per-seed N                        crash states of each seed, at most
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/planted.h"
#include "tests/crash/crash_run.h"

#define REPEAT_EVERY 50      /* seeds: one of so many is run twice, and must have the same trace */
#define SEED_SECONDS 120    /* of processor time; a seed takes a few: more is a loop that never calls through the seam */

typedef struct {
    uint64_t seed_first, seed_last;
    int64_t state;
    uint64_t states;             /* enough with so many; 0: all seeds */
    uint32_t per_seed;
    bool faults;
    const char *planted;
} arguments;

#if defined(__SANITIZE_ADDRESS__)
/* What the sanitizer finds ends in SIGABRT, so that the replay line is printed. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "abort_on_error=1";
}
#endif

static void on_signal(int number)
{
    crash_note_write();
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_signals(void)
{
    static char stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigaltstack(&alternate, NULL);
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF, SIGTERM};
    for (size_t i = 0; i < RW_ARRAY_SIZE(numbers); i++) sigaction(numbers[i], &action, NULL);
}

static bool number_parse(const char *text, char **end, uint64_t *out)
{
    errno = 0;
    unsigned long long value = strtoull(text, end, 10);
    *out = value;
    return errno == 0 && *end != text;
}

static bool seeds_parse(const char *text, arguments *args)
{
    char *end;
    if (!number_parse(text, &end, &args->seed_first)) return false;
    args->seed_last = args->seed_first;
    if (*end == 0) return true;
    return strncmp(end, "..", 2) == 0 && number_parse(end + 2, &end, &args->seed_last) && *end == 0 && args->seed_last >= args->seed_first;
}

static bool arguments_parse(int count, char **texts, arguments *args)
{
    *args = (arguments){.seed_first = 1, .seed_last = UINT64_MAX, .state = -1, .per_seed = 12};
    for (int i = 1; i < count; i++) {
        uint64_t number = 0;
        char *end = NULL;
        if (strcmp(texts[i], "--faults") == 0) {
            args->faults = true;
            continue;
        }
        if (i + 1 == count) return false;
        const char *name = texts[i], *value = texts[++i];
        if (strcmp(name, "--seed") == 0 || strcmp(name, "--seeds") == 0) {
            if (!seeds_parse(value, args)) return false;
        } else if (strcmp(name, "--planted") == 0) {
            args->planted = value;
        } else if (!number_parse(value, &end, &number) || *end != 0) {
            return false;
        } else if (strcmp(name, "--state") == 0) {
            args->state = (int64_t)number;
        } else if (strcmp(name, "--states") == 0) {
            args->states = number;
        } else if (strcmp(name, "--per-seed") == 0) {
            args->per_seed = (uint32_t)number;
        } else {
            return false;
        }
    }
    return true;
}

/* Runs seeds until there were enough states; counts into *states as it goes. Does not return when one fails. */
static void seeds_run(const arguments *args, volatile uint64_t *states)
{
    for (uint64_t seed = args->seed_first;; seed++) {
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = SEED_SECONDS}, NULL);
        if (seed % REPEAT_EVERY == 0) crash_seed_repeats(seed);
        *states += args->faults ? crash_seed_faults(seed) : crash_seed_crashes(seed, args->per_seed, args->state);
        if (seed == args->seed_last || (args->states != 0 && *states >= args->states)) return;
    }
}

#ifdef RW_PLANTED_BUGS
typedef struct {
    const char *name, *text;
    int number;
    bool faults;
    bool elsewhere;            /* it has a test of its own */
} planted_bug;

enum { PLANTED_crashes = 0, PLANTED_faults = 1, PLANTED_isolation = 0, PLANTED_keys = 2 };

static const planted_bug planted_bugs[] = {
#define PLANTED_ROW(name_, kind, text_) {.name = #name_, .text = text_, .number = RW_PLANTED_##name_, .faults = PLANTED_##kind == 1, .elsewhere = PLANTED_##kind == 2},
    RW_PLANTED_MAP(PLANTED_ROW)
#undef PLANTED_ROW
};

static bool planted_is_wanted(const planted_bug *bug, const char *asked)
{
    static const int seldom[] = {
#define SELDOM_ROW(name) RW_PLANTED_##name,
        RW_PLANTED_SELDOM_MAP(SELDOM_ROW)
#undef SELDOM_ROW
    };
    bool often = strcmp(asked, "often") == 0;
    if (!often && strcmp(asked, "all") != 0) return strcmp(asked, bug->name) == 0;
    bool wanted = !bug->elsewhere;
    for (size_t i = 0; often && i < RW_ARRAY_SIZE(seldom); i++) wanted = wanted && bug->number != seldom[i];
    return wanted;
}

/* True when the bug makes a run fail, in a process of its own. */
static bool planted_is_found(const arguments *args, const planted_bug *bug, int output, volatile uint64_t *states)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        arguments own = *args;
        own.faults = bug->faults;
        rw_planted = bug->number;
        if (dup2(output, STDOUT_FILENO) < 0 || freopen("/dev/null", "w", stderr) == NULL) _exit(0);
        seeds_run(&own, states);
        _exit(0);
    }
    int status = 0;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status != 0;
}

/* By what it was found: the first line that the run printed. */
static void finding_print(int output)
{
    char text[200] = {0};
    if (pread(output, text, sizeof text - 1, 0) <= 0) return;
    text[strcspn(text, "\n")] = 0;
    const char *words = strncmp(text, "not ok 1 - ", 11) == 0 ? text + 11 : text;
    printf("#   %s\n", words[0] == '#' ? "a process that died" : words);
}

static int planted_run(const arguments *args)
{
    volatile uint64_t *states = mmap(NULL, sizeof *states, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (states == MAP_FAILED) return 2;
    unsigned tests = 0, missed = 0;
    arguments own = *args;
    if (own.states == 0) own.states = 2000;
    for (size_t i = 0; i < RW_ARRAY_SIZE(planted_bugs); i++) {
        const planted_bug *bug = &planted_bugs[i];
        if (!planted_is_wanted(bug, args->planted)) continue;
        *states = 0;
        int output = memfd_create("output", 0);
        if (output < 0) return 2;
        bool found = planted_is_found(&own, bug, output, states);
        missed += !found;
        printf("%s %u - %s (%s) is %s %llu states\n", found ? "ok" : "not ok", ++tests, bug->name, bug->text,
               found ? "found after" : "not found in", (unsigned long long)*states);
        if (found) finding_print(output);
        close(output);
    }
    printf("1..%u\n", tests);
    return tests == 0 ? 2 : missed != 0;
}
#else
static int planted_run(const arguments *args)
{
    fprintf(stderr, "crash_sim: this build has no planted bug %s\n", args->planted);
    return 2;
}
#endif

int main(int count, char **texts)
{
    arguments args;
    if (!arguments_parse(count, texts, &args) || (args.seed_last == UINT64_MAX && args.states == 0 && args.planted == NULL)) {
        fprintf(stderr, "usage: crash_sim [--faults] --seed N [--state K] | --seeds A..B | --states N | --planted NAME|often|all\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    catch_signals();
    if (args.planted != NULL) return planted_run(&args);
    uint64_t states = 0;
    seeds_run(&args, &states);
    crash_met_print();
    printf("ok 1 - %llu %s states hold what they must\n1..1\n", (unsigned long long)states, args.faults ? "fault" : "crash");
    return 0;
}
