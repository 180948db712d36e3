/* bench.c: the sub-commands of bench, and the options that several share. Each
 * measurement is a file of its own. */
#include "jobqd/bench/bench.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

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
    printf("usage: jobqd bench MEASUREMENT [OPTION]...\n\n%s.\n\nMeasurements:\n",
           command_bench.summary);
    for (size_t i = 0; i < N_PARTS; i++)
        printf("  %-8s  %s\n", short_name(parts[i]), parts[i]->summary);
    printf(
        "\nEach starts a private Postgres in a temporary directory (TMPDIR, else /tmp), "
        "with Postgres' defaults but\nshared_buffers = 1GB and max_wal_size = 4GB; or it "
        "works in the database that --database, --embedded\nor -c names, in a schema "
        "jobq_bench of its own. Both are gone afterwards. `jobqd bench MEASUREMENT "
        "--help`\nshows what a measurement takes.\n");
    return EX_OK;
}

static int
refuse(const char *name)
{
    fprintf(stderr, name != NULL ? "jobqd bench: there is no measurement \"%s\": " : "%s",
            name != NULL ? name : "jobqd bench: which measurement? ");
    for (size_t i = 0; i < N_PARTS; i++)
        fprintf(stderr, "%s%s",
                i == 0            ? ""
                : i + 1 < N_PARTS ? ", "
                                  : " and ",
                short_name(parts[i]));
    fputs(" are known (jobqd bench --help)\n", stderr);
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
cmd_bench(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name != NULL && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0))
        return print_help();
    const struct command *part = name != NULL ? find_part(name) : NULL;
    return part != NULL ? cli_run(part, argc - 1, argv + 1) : refuse(name);
}

const struct command command_bench = {
    .name = "bench",
    .args = "MEASUREMENT",
    .summary = "Measures this jobqd on this machine: throughput, latency, memory",
    .parts = cmd_bench};

int
bench_get_keep(const struct cli *cli, bool *keep, jobq_error *err)
{
    const char *word = cli_get(cli, "keep");
    if (word != NULL && strcmp(word, "all") != 0 && strcmp(word, "none") != 0)
        return jobq__error(err, JOBQ_EINVAL, "--keep: \"%s\" is not allowed: all or none",
                           word);
    *keep = word == NULL || strcmp(word, "all") == 0;
    return 0;
}

int
bench_get_workers(const struct cli *cli, int64_t *workers, jobq_error *err)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    *workers = processors > 0 ? processors : 1;
    return cli_get_int(cli, "workers", 1, BENCH_WORKERS, workers, err);
}
