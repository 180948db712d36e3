/* bench_options.c: the options that several measurements share. */
#include <string.h>
#include <unistd.h>

#include "jobqd/bench/bench_private.h"
#include "libjobq/error.h"

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
