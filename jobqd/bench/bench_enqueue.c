/* bench_enqueue.c: `jobqd bench enqueue`: how fast jobs come in, with nobody to take
 * them. */
#include <stdio.h>
#include <sysexits.h>

#include "jobqd/bench/bench_inserters.h"
#include "jobqd/bench/bench_private.h"

struct enqueue_options {
    int64_t connections;
    int64_t seconds;
};

static int
measure_way(struct bench *bench, enum insert_way way,
            const struct enqueue_options *options, jobq_error *err)
{
    const int64_t connections[] = {1, options->connections};
    size_t n = options->connections > 1 ? 2 : 1;
    int rc = 0;
    report_group(&bench->report, insert_way_name(way));
    for (size_t i = 0; rc == 0 && i < n; i++) {
        char name[64];
        double rate = 0;
        rc = bench_fresh_schema(bench, err);
        if (rc == 0)
            rc = bench_insert(bench, way, (size_t)connections[i],
                              (double)options->seconds, &rate, err);
        snprintf(name, sizeof name, "jobs_per_s_of_%lld_connection%s",
                 (long long)connections[i], connections[i] == 1 ? "" : "s");
        if (rc == 0)
            report_real(&bench->report, name, rate, 0);
    }
    report_close(&bench->report);
    return rc;
}

static int
run(struct cli *cli)
{
    struct enqueue_options options = {.connections = 8, .seconds = 3};
    struct bench bench;
    jobq_error err = {0};
    int rc =
        cli_get_int(cli, "connections", 1, INSERTERS_MAX, &options.connections, &err);
    if (rc == 0)
        rc = cli_get_int(cli, "seconds", 1, 3600, &options.seconds, &err);
    if (rc != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = bench_open(&bench, cli);
    for (int way = 0; code == EX_OK && way < INSERT_WAY_COUNT; way++) {
        if (measure_way(&bench, (enum insert_way)way, &options, &err) != 0)
            code = cli_fail(cli, &err);
    }
    return bench_close(&bench, code);
}

static const struct cli_option options_table[] = {
    {"connections", "N", "measure with one connection, and with this many (default: 8)"},
    {"seconds", "N", "how many seconds to measure each way (default: 3)"},
    BENCH_OPTIONS};

const struct command bench_enqueue = {
    .name = "bench enqueue",
    .args = "",
    .summary = "Jobs enqueued per second, by each way to enqueue them",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .named_file_only = true, /* else it would measure the host's own database */
    .json = true,
    .run = run};
