/* bench_memory.c: `jobqd bench memory`: whether jobqd grows with the jobs that pass. */
#include <sysexits.h>

#include "jobqd/bench/bench_private.h"

struct memory_options {
    int64_t jobs;
    int64_t step;
    int64_t workers;
};

/* One more step of jobs through the running jobqd, inserted while it takes them. */
static int
step(struct bench *bench, struct bench_daemon *daemon, int64_t n, int64_t *done,
     int64_t *rss_kb, jobq_error *err)
{
    int64_t peak_kb = 0, end_ns = 0;
    int rc = bench_preload(bench, n, err);
    if (rc == 0)
        rc = bench_wait_drained(bench, daemon, *done + n, &end_ns, err);
    if (rc == 0)
        rc = bench_memory_kb(daemon->pid, rss_kb, &peak_kb, err);
    if (rc != 0)
        return rc;
    *done += n;
    report_item(&bench->report);
    report_int(&bench->report, "jobs", *done);
    report_int(&bench->report, "jobqd_rss_kb", *rss_kb);
    report_int(&bench->report, "jobqd_peak_rss_kb", peak_kb);
    report_close(&bench->report);
    return 0;
}

static int
measure(struct bench *bench, const struct memory_options *options, jobq_error *err)
{
    struct bench_daemon daemon = {0};
    int64_t done = 0, first_kb = 0, last_kb = 0;
    bench_shared_reset(bench->shared, false);
    report_int(&bench->report, "workers", options->workers);
    report_list(&bench->report, "steps");
    int rc =
        bench_daemon_start(&daemon, bench,
                           &(struct bench_daemon_options){
                               .workers = options->workers, .keep = true, .notify = true},
                           err);
    while (rc == 0 && done < options->jobs) {
        int64_t left = options->jobs - done;
        rc = step(bench, &daemon, left < options->step ? left : options->step, &done,
                  &last_kb, err);
        if (first_kb == 0)
            first_kb = last_kb;
    }
    report_close(&bench->report);
    if (rc == 0)
        report_int(&bench->report, "growth_after_the_first_step_kb", last_kb - first_kb);
    else
        bench_daemon_tell(&daemon);
    int stopped = bench_daemon_stop(&daemon, rc == 0 ? err : NULL);
    return rc == 0 ? stopped : rc;
}

static int
run(struct cli *cli)
{
    struct memory_options options = {.jobs = 1000000, .step = 200000};
    struct bench bench;
    jobq_error err = {0};
    int rc = cli_get_int(cli, "jobs", 1, 100000000, &options.jobs, &err);
    if (rc == 0)
        rc = cli_get_int(cli, "step", 1, 100000000, &options.step, &err);
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
    {"jobs", "N", "how many jobs in all (default: 1000000)"},
    {"step", "N",
     "how many jobs to insert at once, before memory is read again (default: 200000)"},
    {"workers", "N", "how many worker processes (default: one per processor)"},
    BENCH_OPTIONS};

const struct command bench_memory = {
    .name = "bench memory",
    .args = "",
    .summary = "jobqd's resident memory while it runs a million jobs",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .named_file_only = true, /* else it would measure the host's own database */
    .json = true,
    .run = run};
