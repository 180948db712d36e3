/* cmd_bench.c: `jobqd bench`: executes jobq-bench in this process. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/base/self.h"
#include "jobqd/commands/commands.h"

#define PROGRAM "jobq-bench"

/* Below the folder of this program: beside it in a build tree, and where it is installed.
 */
static const char *const places[] = {"bench/" PROGRAM, JOBQ_BENCH_PLACE "/" PROGRAM};

/* *out: the path; false: it does not fit. */
static bool
place(const char *below, char *out, size_t size)
{
    const char *self = self_path();
    const char *slash = strrchr(self, '/');
    int n = *below == '/' ? snprintf(out, size, "%s", below)
                          : snprintf(out, size, "%.*s%s",
                                     slash ? (int)(slash - self + 1) : 0, self, below);
    return n >= 0 && (size_t)n < size;
}

static int
run_bench(int argc, char **argv)
{
    char path[PATH_MAX] = "";
    (void)argc;
    if (setenv("JOBQ_BENCH_JOBQD", self_path(), 1) != 0) {
        fputs("jobqd bench: out of memory\n", stderr);
        return EX_OSERR;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!place(places[i], path, sizeof path))
            continue;
        execv(path, argv);
        if (errno != ENOENT && errno != ENOTDIR)
            break;
    }
    int why = errno;
    fprintf(stderr, "jobqd bench: cannot execute %s: %s%s\n", path, strerror(why),
            why == ENOENT
                ? "; it is in the package jobq-bench, which is installed with jobqd"
                : "");
    return EX_UNAVAILABLE;
}

const struct command command_bench = {
    .name = "bench",
    .args = "MEASUREMENT",
    .summary = "Measure this jobqd on this machine: throughput, latency, memory",
    .parts = run_bench};
