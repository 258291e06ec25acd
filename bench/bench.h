/* The face of bench/: the verb `ringwood bench`. What it promises is in bench/README.md. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

/* Exit codes of both verbs. */
enum {
    BENCH_EXIT_DONE = 0,
    BENCH_EXIT_FAILED = 1,      /* a wrong or missing answer, a lost commit */
    BENCH_EXIT_USAGE = 2,
    BENCH_EXIT_STORAGE = 3,     /* input/output error, corruption, or the system refused something */
    BENCH_EXIT_INTERRUPTED = 130,
};

/* argv[0] is the verb. Returns the exit code of the command. */
int bench_main(int argc, char **argv);

#endif
