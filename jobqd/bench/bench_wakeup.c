/* bench_wakeup.c: `jobqd bench wakeup`: what waking jobqd costs those who insert. Single
 * inserts from several connections into a queue that a jobqd works off meanwhile, with
 * notify on and off in turn. */
#include <stdlib.h>
#include <sysexits.h>

#include "jobqd/bench/bench_inserters.h"
#include "jobqd/bench/bench_private.h"
#include "libjobq/error.h"

struct wakeup_options {
    int64_t connections;
    int64_t seconds;
    int64_t rounds;
    int64_t workers;
};

static int
measure_once(struct bench *bench, const struct wakeup_options *options, bool notify,
             double *rate, jobq_error *err)
{
    struct bench_daemon daemon = {0};
    int rc = bench_fresh_schema(bench, err);
    bench_shared_reset(bench->shared, false);
    if (rc == 0)
        rc = bench_daemon_start(
            &daemon, bench,
            &(struct bench_daemon_options){
                .workers = options->workers, .keep = true, .notify = notify},
            err);
    if (rc == 0)
        rc = bench_insert(bench, INSERT_PLAIN, (size_t)options->connections,
                          (double)options->seconds, rate, err);
    if (rc == 0)
        rc = bench_daemon_check(&daemon, err);
    int stopped = bench_daemon_stop(&daemon, rc == 0 ? err : NULL);
    return rc == 0 ? stopped : rc;
}

/* Which of the two comes first changes from round to round, against drift. */
static int
measure_round(struct bench *bench, const struct wakeup_options *options, bool on_first,
              double *on, double *off, jobq_error *err)
{
    int rc = measure_once(bench, options, on_first, on_first ? on : off, err);
    if (rc == 0)
        rc = measure_once(bench, options, !on_first, on_first ? off : on, err);
    if (rc != 0)
        return rc;
    report_item(&bench->report);
    report_real(&bench->report, "notify_on_inserts_per_s", *on, 0);
    report_real(&bench->report, "notify_off_inserts_per_s", *off, 0);
    report_close(&bench->report);
    return 0;
}

static int
measure(struct bench *bench, const struct wakeup_options *options, jobq_error *err)
{
    size_t n = (size_t)options->rounds;
    double *on = calloc(2 * n, sizeof *on);
    if (!on)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    double *off = on + n;
    struct report *report = &bench->report;
    int rc = 0;
    report_int(report, "connections", options->connections);
    report_int(report, "workers", options->workers);
    report_list(report, "rounds");
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = measure_round(bench, options, i % 2 == 0, &on[i], &off[i], err);
    report_close(report);
    if (rc == 0) {
        report_rates(report, "notify_on_best_inserts_per_s",
                     "notify_on_median_inserts_per_s", on, n);
        report_rates(report, "notify_off_best_inserts_per_s",
                     "notify_off_median_inserts_per_s", off, n);
        report_real(report, "best_on_percent_of_best_off", on[n - 1] * 100 / off[n - 1],
                    1);
        report_real(report, "median_on_percent_of_median_off",
                    report_median(on, n) * 100 / report_median(off, n), 1);
    }
    free(on);
    return rc;
}

static int
run(struct cli *cli)
{
    struct wakeup_options options = {.connections = 8, .seconds = 3, .rounds = 5};
    struct bench bench;
    jobq_error err = {0};
    int rc =
        cli_get_int(cli, "connections", 1, INSERTERS_MAX, &options.connections, &err);
    if (rc == 0)
        rc = cli_get_int(cli, "seconds", 1, 3600, &options.seconds, &err);
    if (rc == 0)
        rc = cli_get_int(cli, "rounds", 1, 1000, &options.rounds, &err);
    if (rc == 0)
        rc = bench_get_workers(cli, &options.workers, &err);
    if (rc != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = bench_open(&bench, cli);
    if (code == EX_OK && measure(&bench, &options, &err) != 0)
        code = cli_fail(cli, &err);
    return bench_close(&bench, code);
}

static const struct cli_option options_table[] = {
    {"connections", "N", "how many connections insert (default: 8)"},
    {"seconds", "N", "how many seconds each measurement takes (default: 3)"},
    {"rounds", "N", "how many rounds, each with notify on and off (default: 5)"},
    {"workers", "N", "how many worker processes (default: one per processor)"},
    BENCH_OPTIONS};

const struct command bench_wakeup = {
    .name = "bench wakeup",
    .args = "",
    .summary = "Single inserts per second into a busy queue, with notify on and off",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .named_file_only = true, /* else it would measure the host's own database */
    .json = true,
    .run = run};
