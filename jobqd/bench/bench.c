/* bench.c: the measurements of bench. Each is a file of its own. */
#include "jobqd/base/escape.h"
#include "jobqd/base/wrap.h"
#include "jobqd/pure/nearest.h"
#include "jobqd/bench/bench.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/bench/bench_private.h"
#include "libjobq/error.h"

static const struct command *const parts[] = {
    &bench_drain,  &bench_limit,  &bench_latency, &bench_enqueue,
    &bench_wakeup, &bench_memory, &bench_explain};

#define N_PARTS (sizeof parts / sizeof parts[0])

/* "bench drain": the second word. */
static const char *
short_name(const struct command *part)
{
    return part->name + strlen("bench ");
}

static int
print_help(void)
{
    printf("usage: jobqd bench MEASUREMENT [OPTION]...\n\n");
    wrap_print(stdout, "Measure this jobqd on this machine: throughput, latency, memory",
               0, 0);
    putchar('\n');
    for (size_t i = 0; i < N_PARTS; i++)
        cli_print_summary(stdout, short_name(parts[i]), 8, parts[i]);
    putchar('\n');
    wrap_print(
        stdout,
        "Each measurement starts a private Postgres in a temporary directory (under "
        "TMPDIR, else /tmp), with Postgres' defaults except for shared_buffers = 1GB and "
        "max_wal_size = 4GB, and removes it afterwards. With --database, --embedded or "
        "-c it uses that database instead, in a separate schema, jobq_bench, and removes "
        "only this schema afterwards. `jobqd bench MEASUREMENT --help` shows the options "
        "of a measurement.",
        0, 0);
    return EX_OK;
}

static int
refuse(const char *name)
{
    struct nearest nearest;
    nearest_begin(&nearest, name != NULL ? name : "");
    for (size_t i = 0; i < N_PARTS; i++)
        nearest_offer(&nearest, short_name(parts[i]));
    fputs("jobqd bench: ", stderr);
    if (name != NULL) {
        fputs("unknown measurement \"", stderr);
        escape_print(stderr, name);
        fputc('"', stderr);
    } else {
        fputs("no measurement given", stderr);
    }
    if (nearest.best != NULL)
        fprintf(stderr, "; did you mean %s? The measurements are ", nearest.best);
    else
        fputs("; the measurements are ", stderr);
    for (size_t i = 0; i < N_PARTS; i++)
        fprintf(stderr, "%s%s",
                i == 0            ? ""
                : i + 1 < N_PARTS ? ", "
                                  : " and ",
                short_name(parts[i]));
    fputs(" (see jobqd bench --help)\n", stderr);
    return EX_USAGE;
}

/* `worker` is known, but not shown: bench itself runs it. */
static const struct command *
find_part(const char *name)
{
    for (size_t i = 0; i < N_PARTS; i++) {
        if (strcmp(short_name(parts[i]), name) == 0)
            return parts[i];
    }
    return strcmp(short_name(&bench_worker), name) == 0 ? &bench_worker : NULL;
}

int
bench_main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name != NULL && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0))
        return print_help();
    const struct command *part = name != NULL ? find_part(name) : NULL;
    return part != NULL ? cli_run(part, argc - 1, argv + 1) : refuse(name);
}
