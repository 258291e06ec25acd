/* The command line of ringwood-compare. */
#include <getopt.h>
#include <stdio.h>
#include <time.h>

#include "bench/parse.h"
#include "bench/compare/fio.h"

#define CACHE_LEAST ((uint64_t)8 << 20)

static const char usage[] =
    "usage: ringwood compare [options]\n"
    "\n"
    "Lets ringwood and other engines do the same work in turn, several rounds, and prints medians, spread and ratios. Each engine's turn is a process of\n"
    "its own. Every answer is verified.\n"
    "\n"
    "  --set LIST             cached, durable, large: comma separated (cached,durable)\n"
    "  --workloads LIST       of these sets; a name, or name:threads (all)\n"
    "  --engines LIST         which, in this order (all that were built; and fio, the device itself, for durable and large)\n"
    "  --quick                the cached set with 200,000 records, one round, the most telling workloads\n"
    "  --records N            records loaded (2M; durable: 200k; large: 20M)\n"
    "  --key-size BYTES       8 or more (16)\n"
    "  --value-size BYTES     (100)\n"
    "  --cache BYTES          of each engine (1G; large: 256M)\n"
    "  --scale FACTOR         so many times the records and the cache, where these are not given; 0.001 to 1000 (1)\n"
    "  --rounds N             1 to 31 (3)\n"
    "  --seconds S            of each workload, but for those that touch every record once (1.5; large: 10)\n"
    "  --threads N            of every workload, in place of its own number; loads, full scans and queues keep theirs\n"
    "  --rate N               open loop: N operations a second over all threads, latencies from the intended start\n"
    "  --series               keep what happened in each second (json, csv, page); --rate does\n"
    "  --seed N               of records and draws (drawn)\n"
    "  --dir DIR              the databases are made and removed under it (the present directory)\n"
    "  --format table|json|csv\n"
    "  --report FILE          also write a page of HTML with the tables and latency curves\n"
    "  --help\n"
    "\n"
    "Counts take k, M, G (thousands), bytes K, M, G (powers of 1024). Exit codes: 0 done, 1 a wrong answer or an engine that failed, 2 usage,\n"
    "3 input/output error, 130 interrupted.\n";

enum {
    OPTION_SET = 256, OPTION_WORKLOADS, OPTION_ENGINES, OPTION_QUICK, OPTION_RECORDS, OPTION_KEY_SIZE, OPTION_VALUE_SIZE, OPTION_CACHE, OPTION_SCALE, OPTION_ROUNDS,
    OPTION_SECONDS, OPTION_THREADS, OPTION_RATE, OPTION_SERIES, OPTION_SEED, OPTION_DIR, OPTION_FORMAT, OPTION_REPORT, OPTION_HELP,
};

static const struct option option_table[] = {
    {"set", required_argument, NULL, OPTION_SET},
    {"workloads", required_argument, NULL, OPTION_WORKLOADS},
    {"engines", required_argument, NULL, OPTION_ENGINES},
    {"quick", no_argument, NULL, OPTION_QUICK},
    {"records", required_argument, NULL, OPTION_RECORDS},
    {"key-size", required_argument, NULL, OPTION_KEY_SIZE},
    {"value-size", required_argument, NULL, OPTION_VALUE_SIZE},
    {"cache", required_argument, NULL, OPTION_CACHE},
    {"scale", required_argument, NULL, OPTION_SCALE},
    {"rounds", required_argument, NULL, OPTION_ROUNDS},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"series", no_argument, NULL, OPTION_SERIES},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"dir", required_argument, NULL, OPTION_DIR},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {"report", required_argument, NULL, OPTION_REPORT},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* What was said, before defaults fill the rest; 0: not said. */
typedef struct {
    const char *sets, *workloads, *engines;
    uint64_t records, cache, key_size, value_size, threads, rounds;
    double seconds, scale;
    bool value_size_given;
} said;

/* The next word of a comma separated list; false at its end. */
static bool next_word(const char **list, const char **word, size_t *size)
{
    if (**list == '\0') return false;
    *word = *list;
    *size = strcspn(*list, ",");
    *list += *size;
    if (**list == ',') (*list)++;
    return true;
}

static bool word_is(const char *word, size_t size, const char *name)
{
    return strlen(name) == size && memcmp(word, name, size) == 0;
}

static bool engines_parse(compare_plan *plan, const char *list)
{
    const char *word;
    size_t size;
    while (next_word(&list, &word, &size)) {
        const compare_adapter *found = NULL;
        for (unsigned i = 0; compare_adapters[i] != NULL; i++)
            if (word_is(word, size, compare_adapters[i]->name)) found = compare_adapters[i];
        for (unsigned i = 0; i < plan->engine_count; i++)
            if (plan->engines[i] == found) found = NULL;
        if (found != NULL && found->yardstick && !compare_fio_is_installed()) {
            fputs("error: fio is not installed\n", stderr);
            return false;
        }
        if (found == NULL) {
            fprintf(stderr, "error: '%.*s' is not an engine that was built, or is named twice; there are:", (int)size, word);
            for (unsigned i = 0; compare_adapters[i] != NULL; i++) fprintf(stderr, " %s", compare_adapters[i]->name);
            fprintf(stderr, "%s%s\n", compare_adapters_missing[0] != '\0' ? "; not installed when this was built:" : "", compare_adapters_missing);
            return false;
        }
        plan->engines[plan->engine_count++] = found;
    }
    return true;
}

/* All; fio where it has something to say. In an open loop it has not: its own is closed. */
static void engines_default(compare_plan *plan)
{
    bool fio = false;
    for (unsigned s = 0; s < plan->stage_count; s++)
        for (unsigned w = 0; w < plan->stages[s].count; w++) fio |= plan->stages[s].workloads[w].fio != COMPARE_NO_FIO;
    fio = fio && plan->rate == 0 && compare_fio_is_installed();
    for (unsigned i = 0; compare_adapters[i] != NULL; i++)
        if (fio || !compare_adapters[i]->yardstick) plan->engines[plan->engine_count++] = compare_adapters[i];
}

/* Whether the list names the workload, by its name or by its label. Marks the words that were of use. */
static bool list_names(const char *list, const compare_workload *workload, uint64_t *used)
{
    char label[64];
    const char *word;
    size_t size;
    bool found = false;
    compare_workload_label(workload, label, sizeof label);
    for (unsigned i = 0; next_word(&list, &word, &size); i++) {
        if (!word_is(word, size, workload->name) && !word_is(word, size, label)) continue;
        if (i < 64) *used |= (uint64_t)1 << i;
        found = true;
    }
    return found;
}

/* A set's own number, scaled. */
static uint64_t scaled(uint64_t number, double scale, uint64_t least)
{
    return RW_MAX((uint64_t)((double)number * scale + 0.5), least);
}

/* Fills in the stage of a set; without workloads when none of it is asked for. */
static void stage_make(const compare_plan *plan, const compare_set *set, const said *s, compare_stage *stage, uint64_t *used)
{
    *stage = (compare_stage){.set = set, .records = s->records != 0 ? s->records : scaled(plan->quick ? 200000 : set->records, s->scale, 1),
                             .seconds = s->seconds > 0 ? s->seconds : plan->quick ? 1 : set->seconds};
    unsigned asked = 0, threads = 1, in_flight = 0;
    for (const compare_workload *w = set->workloads; w->name != NULL; w++) {
        bool wanted = s->workloads != NULL ? list_names(s->workloads, w, used) : plan->quick ? w->quick : w->kind != COMPARE_LOAD || !set->durable;
        asked += wanted;
        if (w->kind == COMPARE_LOAD) stage->load_is_shown = wanted;
        if (!wanted && w->kind != COMPARE_LOAD) continue;
        compare_workload *to = &stage->workloads[stage->count];
        *to = *w;
        if (s->threads != 0 && !compare_workload_is_whole(w) && w->in_flight == 0) to->threads = (unsigned)s->threads;
        bool same = stage->count > 0 && strcmp(to->name, to[-1].name) == 0 && to->threads == to[-1].threads; /* --threads made them one */
        stage->count += !same;
        threads = RW_MAX(threads, to->threads);
        in_flight = RW_MAX(in_flight, to->in_flight);
    }
    if (asked == 0) stage->count = 0;
    uint32_t key_size = s->key_size != 0 ? (uint32_t)s->key_size : 16, value_size = s->value_size_given ? (uint32_t)s->value_size : 100;
    stage->settings = (compare_settings){.cache_bytes = s->cache != 0 ? s->cache : scaled(set->cache_bytes, s->scale, CACHE_LEAST), .data_bytes = stage->records * (key_size + value_size),
                                         .key_size = key_size, .value_size = value_size, .threads = threads, .in_flight = in_flight, .durable = set->durable, .direct = set->direct};
}

static bool stages_make(compare_plan *plan, const said *s)
{
    const char *list = s->sets != NULL ? s->sets : plan->quick ? "cached" : "cached,durable", *word;
    size_t size;
    uint64_t used = 0, asked = 0;
    while (next_word(&list, &word, &size)) {
        const compare_set *set = NULL;
        for (unsigned i = 0; i < COMPARE_SETS; i++)
            if (word_is(word, size, compare_sets[i].name)) set = &compare_sets[i];
        for (unsigned i = 0; i < plan->stage_count; i++)
            if (plan->stages[i].set == set) set = NULL;
        if (set == NULL) {
            fprintf(stderr, "error: '%.*s' is not a set (cached, durable, large), or is named twice\n", (int)size, word);
            return false;
        }
        stage_make(plan, set, s, &plan->stages[plan->stage_count], &used);
        plan->stage_count += plan->stages[plan->stage_count].count > 0;
    }
    list = s->workloads != NULL ? s->workloads : "";
    for (; next_word(&list, &word, &size); asked++) {
        if (asked < 64 && (used >> asked & 1) != 0) continue;
        fprintf(stderr, "error: '%.*s' is not a workload of these sets\n", (int)size, word);
        return false;
    }
    return true;
}

static bool parse_format(const char *text, compare_format *format)
{
    static const char *const names[] = {[COMPARE_TABLE] = "table", [COMPARE_JSON] = "json", [COMPARE_CSV] = "csv"};
    for (unsigned i = 0; i < RW_ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i]) != 0) continue;
        *format = (compare_format)i;
        return true;
    }
    return false;
}

/* One option; false when its argument makes no sense. */
static bool option_take(compare_plan *plan, said *s, int option, const char *text)
{
    uint64_t number = 0;
    bool parsed = true;
    switch (option) {
    case OPTION_SET: s->sets = text; break;
    case OPTION_WORKLOADS: s->workloads = text; break;
    case OPTION_ENGINES: s->engines = text; break;
    case OPTION_QUICK: plan->quick = true; break;
    case OPTION_RECORDS: return bench_parse_count(text, 1, (uint64_t)1 << 40, &s->records);
    case OPTION_KEY_SIZE: return bench_parse_bytes(text, 8, 400, &s->key_size); /* LMDB takes no longer ones than 511 */
    case OPTION_VALUE_SIZE: s->value_size_given = true; return bench_parse_bytes(text, 0, (uint64_t)1 << 20, &s->value_size);
    case OPTION_CACHE: return bench_parse_bytes(text, CACHE_LEAST, (uint64_t)1 << 44, &s->cache);
    case OPTION_SCALE: return bench_parse_seconds(text, &s->scale) && s->scale >= 0.001 && s->scale <= 1000;
    case OPTION_ROUNDS: return bench_parse_count(text, 1, COMPARE_ROUNDS_MAX, &s->rounds);
    case OPTION_SECONDS: return bench_parse_seconds(text, &s->seconds);
    case OPTION_THREADS: return bench_parse_count(text, 1, COMPARE_THREADS_MAX, &s->threads);
    case OPTION_RATE:
        parsed = bench_parse_count(text, 1, 1000000000, &number);
        plan->rate = (double)number;
        break;
    case OPTION_SERIES: plan->series = true; break;
    case OPTION_SEED: return bench_parse_count(text, 0, INT64_MAX, &plan->seed);
    case OPTION_DIR: plan->directory = text; break;
    case OPTION_FORMAT: return parse_format(text, &plan->format);
    default: plan->report_path = text; break;
    }
    return parsed;
}

int compare_plan_parse(compare_plan *plan, int argc, char **argv)
{
    said s = {.scale = 1};
    memset(plan, 0, sizeof *plan);
    plan->seed = (uint64_t)time(NULL) % 1000000;
    plan->directory = ".";
    optind = 0;
    int option, index = 0;
    while ((option = getopt_long(argc, argv, ":", option_table, &index)) != -1) {
        if (option == OPTION_HELP) return fputs(usage, stdout), 1;
        if (option == '?' || option == ':') return bench_option_refuse(argv[optind - 1], option == ':');
        if (option_take(plan, &s, option, optarg)) continue;
        fprintf(stderr, "error: --%s %s: not a value it takes\n", option_table[index].name, optarg);
        return -1;
    }
    if (optind < argc) {
        fprintf(stderr, "error: '%s': there are only options; ringwood compare --help lists them\n", argv[optind]);
        return -1;
    }
    plan->rounds = s.rounds != 0 ? (unsigned)s.rounds : plan->quick ? 1 : 3;
    plan->series |= plan->rate > 0;
    if (!stages_make(plan, &s)) return -1;
    if (s.engines == NULL) engines_default(plan);
    else if (!engines_parse(plan, s.engines)) return -1;
    if (plan->engine_count > 0 && plan->stage_count > 0) return 0;
    fputs("error: there is nothing to compare: an empty list\n", stderr);
    return -1;
}
