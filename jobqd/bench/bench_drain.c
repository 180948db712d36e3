/* bench_drain.c: `jobqd bench drain`: how fast a backlog goes through a whole jobqd with
 * real worker processes.
 *
 * The clock runs from the first handler's start to the last ack's commit: it leaves out
 * the start of jobqd and of the workers, and the first of some hundred round trips.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/bench/bench_private.h"
#include "jobqd/db/query.h"
#include "libjobq/error.h"

extern const char sql_bench_left[], sql_bench_tenths[], sql_bench_updates[],
    sql_bench_backend[], sql_bench_span[];

enum {
    STUCK_MS = 60000,
    FOREIGN_S = 1800, /* a worker of somebody else's, to the end */
    POLL_US = 2000,
    NEAR_POLL_US = 200,
    NEAR = 8192, /* more jobs than can be in jobqd's hands; the last ones are looked at */
    TENTHS = 10
};

struct drain_options {
    const char *command; /* NULL: our own worker */
    int64_t jobs;
    int64_t workers;
    int64_t rounds;
    bool keep;
    bool with_limit;
    bool vacuum_held;
    bool explain;
};

struct drain_result {
    double seconds;
    double preload_wal_bytes;
    double wal_bytes; /* from the first claim to the last ack */
    int64_t updates;
    int64_t hot_updates;
    int64_t rss_kb;
    int64_t peak_kb;
    double daemon_cpu_s;
    double workers_cpu_s;
    double backend_cpu_s; /* of the work connection */
    int64_t claims;       /* that brought jobs; 0: not known, without a history */
    double tenth_ms[TENTHS];
};

/* ---- Waiting for the end ---- */

static int
wait_started(struct bench *bench, struct bench_daemon *daemon, int64_t jobs,
             jobq_error *err)
{
    int64_t seen = -1, changed_ns = bench_now_ns();
    int rc = 0;
    while (rc == 0) {
        int64_t started = atomic_load(&bench->shared->started);
        int64_t now_ns = bench_now_ns();
        if (started >= jobs)
            return 0;
        if (started != seen)
            changed_ns = now_ns;
        seen = started;
        rc = bench_daemon_check(daemon, err);
        if (rc == 0 && now_ns - changed_ns > STUCK_MS * INT64_C(1000000))
            rc = jobq__error(err, JOBQ_ESTATE,
                             "%lld of %lld jobs have started, and no other for %d s",
                             (long long)started, (long long)jobs, STUCK_MS / 1000);
        if (rc == 0)
            rc = bench_pause_us(POLL_US, err);
    }
    return rc;
}

int
bench_wait_drained(struct bench *bench, struct bench_daemon *daemon, int64_t jobs,
                   int64_t *end_ns, jobq_error *err)
{
    int64_t last = 0, left = 1;
    int rc = bench_value(bench, "SELECT last_value FROM @schema@.jobs_position_seq", NULL,
                         &last, err);
    last -= NEAR;
    if (rc == 0)
        rc = wait_started(bench, daemon, jobs, err);
    int64_t until = bench_now_ns() + STUCK_MS * INT64_C(1000000);
    while (rc == 0 && left != 0) {
        rc = bench_value(bench, sql_bench_left, &last, &left, err);
        *end_ns = bench_now_ns();
        if (rc == 0 && *end_ns > until)
            rc = jobq__error(err, JOBQ_ESTATE,
                             "all jobs have started, but some are not "
                             "acknowledged after %d s",
                             STUCK_MS / 1000);
        if (rc == 0 && left != 0)
            rc = bench_pause_us(NEAR_POLL_US, err);
    }
    return rc;
}

/* A foreign worker tells us nothing: the end is seen in the table, and the time is read
 * from the history. Looks that find thousands of jobs left are cheap, too. */
static int
wait_foreign(struct bench *bench, struct bench_daemon *daemon, double *seconds,
             jobq_error *err)
{
    int64_t last = 0, left = 1, us = 0;
    int64_t until = bench_now_ns() + FOREIGN_S * INT64_C(1000000000);
    int rc = 0;
    while (rc == 0 && left != 0) {
        rc = bench_value(bench, sql_bench_left, &last, &left, err);
        if (rc == 0)
            rc = bench_daemon_check(daemon, err);
        if (rc == 0 && bench_now_ns() > until)
            rc = jobq__error(err, JOBQ_ESTATE, "jobs are still unfinished after %d s",
                             FOREIGN_S);
        if (rc == 0 && left != 0)
            rc = bench_pause_us(POLL_US * 5, err);
    }
    if (rc == 0)
        rc = bench_value(bench, sql_bench_span, NULL, &us, err);
    *seconds = (double)us / 1e6;
    return rc;
}

/* ---- One round ---- */

/* Keeps a snapshot, and so every row version that was dead after it. */
static int
hold_vacuum(struct bench *bench, PGconn **holder, jobq_error *err)
{
    int rc = bench_connect(bench, holder, err);
    return rc == 0 ? query_begin(*holder, "ISOLATION LEVEL REPEATABLE READ", err) : rc;
}

static int
note_use(struct bench *bench, const struct bench_daemon *daemon, struct drain_result *out,
         jobq_error *err)
{
    int64_t backend = 0;
    int rc = bench_memory_kb(daemon->pid, &out->rss_kb, &out->peak_kb, err);
    out->daemon_cpu_s = bench_cpu_s(daemon->pid);
    out->workers_cpu_s = bench_workers_cpu_s(bench->shared);
    if (rc == 0)
        rc = bench_value(bench, sql_bench_backend, NULL, &backend, err);
    out->backend_cpu_s = bench_cpu_s((pid_t)backend);
    return rc;
}

/* Every job has ended as it should: a rate of jobs that were lost is none. */
static int
check_all(struct bench *bench, const struct drain_options *options, jobq_error *err)
{
    int64_t live = 0, completed = 0;
    int rc = bench_value(bench, "SELECT count(*) FROM @schema@.jobs", NULL, &live, err);
    if (rc == 0)
        rc = bench_value(
            bench,
            "SELECT count(*) FROM @schema@.finished_jobs WHERE state = 'completed'", NULL,
            &completed, err);
    if (rc == 0 && (live != 0 || completed != (options->keep ? options->jobs : 0)))
        rc = jobq__error(err, JOBQ_ESTATE, "%lld jobs are live and %lld completed",
                         (long long)live, (long long)completed);
    return rc;
}

/* A backend tells what it did when it ends, or once a second: after jobqd's end, at the
 * latest. Before PostgreSQL 15 it arrives some time later. */
static int
read_updates(struct bench *bench, int64_t jobs, struct drain_result *out, jobq_error *err)
{
    int rc = 0;
    for (int tries = 0; rc == 0 && tries < 50 && out->updates < jobs; tries++) {
        PGresult *row = NULL;
        if (tries > 0)
            rc = bench_pause_us(100000, err);
        if (rc == 0)
            rc = bench_run(bench, sql_bench_updates, NULL, &row, err);
        if (rc == 0) {
            out->updates = strtoll(PQgetvalue(row, 0, 0), NULL, 10);
            out->hot_updates = strtoll(PQgetvalue(row, 0, 1), NULL, 10);
        }
        PQclear(row);
    }
    return rc;
}

static int
read_tenths(struct bench *bench, struct drain_result *out, jobq_error *err)
{
    PGresult *rows = NULL;
    int rc = bench_run(bench, sql_bench_tenths, NULL, &rows, err);
    for (int i = 0; rc == 0 && i < PQntuples(rows) && i < TENTHS; i++)
        out->tenth_ms[i] = strtod(PQgetvalue(rows, i, 2), NULL);
    PQclear(rows);
    return rc;
}

/* With the backlog loaded: starts jobqd, and stops it when all is done. */
static int
pass(struct bench *bench, const struct drain_options *options, struct drain_result *out,
     jobq_error *err)
{
    struct bench_daemon daemon = {0};
    int64_t wal_before = 0, wal_after = 0, end_ns = 0;
    bench_shared_reset(bench->shared, false);
    int rc = bench_wal(bench, &wal_before, err);
    if (rc == 0)
        rc =
            bench_daemon_start(&daemon, bench,
                               &(struct bench_daemon_options){.command = options->command,
                                                              .workers = options->workers,
                                                              .keep = options->keep,
                                                              .notify = true},
                               err);
    if (rc == 0 && options->command != NULL)
        rc = wait_foreign(bench, &daemon, &out->seconds, err);
    else if (rc == 0)
        rc = bench_wait_drained(bench, &daemon, options->jobs, &end_ns, err);
    if (rc == 0)
        rc = bench_wal(bench, &wal_after, err);
    if (rc == 0)
        rc = note_use(bench, &daemon, out, err);
    if (rc != 0)
        bench_daemon_tell(&daemon);
    int stopped = bench_daemon_stop(&daemon, rc == 0 ? err : NULL);
    if (!options->command)
        out->seconds = (double)(end_ns - atomic_load(&bench->shared->first_ns)) / 1e9;
    out->wal_bytes = (double)(wal_after - wal_before);
    return rc == 0 ? stopped : rc;
}

static int
drain_round(struct bench *bench, const struct drain_options *options,
            struct drain_result *out, jobq_error *err)
{
    PGconn *holder = NULL;
    int64_t wal_before = 0, wal_after = 0;
    memset(out, 0, sizeof *out);
    int rc = bench_fresh_schema(bench, err);
    if (rc == 0 && options->vacuum_held)
        rc = hold_vacuum(bench, &holder, err);
    if (rc == 0)
        rc = bench_wal(bench, &wal_before, err);
    if (rc == 0)
        rc = bench_preload(bench, options->jobs, err);
    if (rc == 0)
        rc = bench_wal(bench, &wal_after, err);
    out->preload_wal_bytes = (double)(wal_after - wal_before);
    if (rc == 0)
        rc = pass(bench, options, out, err);
    if (rc == 0)
        rc = check_all(bench, options, err);
    if (rc == 0)
        rc = read_updates(bench, options->jobs, out, err);
    if (rc == 0 && options->keep)
        rc = bench_value(
            bench, "SELECT count(DISTINCT attempted_at) FROM @schema@.finished_jobs",
            NULL, &out->claims, err);
    if (rc == 0 && options->vacuum_held)
        rc = read_tenths(bench, out, err);
    PQfinish(holder);
    return rc;
}

/* ---- What is printed ---- */

static void
report_result(struct report *report, const struct drain_options *options,
              const struct drain_result *result)
{
    double jobs = (double)options->jobs;
    report_real(report, "jobs_per_s", jobs / result->seconds, 0);
    report_real(report, "seconds", result->seconds, 3);
    report_real(report, "wal_bytes_per_job", result->wal_bytes / jobs, 0);
    report_real(report, "enqueue_wal_bytes_per_job", result->preload_wal_bytes / jobs, 0);
    report_int(report, "n_tup_upd", result->updates);
    report_int(report, "n_tup_hot_upd", result->hot_updates);
    if (result->claims > 0)
        report_real(report, "jobs_per_claim", jobs / (double)result->claims, 0);
    report_int(report, "jobqd_rss_kb", result->rss_kb);
    report_int(report, "jobqd_peak_rss_kb", result->peak_kb);
    report_real(report, "jobqd_cpu_us_per_job", result->daemon_cpu_s * 1e6 / jobs, 2);
    if (!options->command)
        report_real(report, "workers_cpu_us_per_job", result->workers_cpu_s * 1e6 / jobs,
                    2);
    report_real(report, "backend_cpu_us_per_job", result->backend_cpu_s * 1e6 / jobs, 2);
    if (!options->vacuum_held)
        return;
    report_group(report, "tenths");
    for (int i = 0; i < TENTHS; i++) {
        char name[32];
        snprintf(name, sizeof name, "tenth_%d_ms", i + 1);
        report_real(report, name, result->tenth_ms[i], 1);
    }
    report_close(report);
    report_real(report, "last_tenth_to_first",
                result->tenth_ms[TENTHS - 1] / result->tenth_ms[0], 2);
}

/* The limit, when wanted, and then the whole jobqd: each on a fresh schema. */
static int
report_round(struct bench *bench, const struct drain_options *options, double *rate,
             double *limit_rate, jobq_error *err)
{
    double jobs = (double)options->jobs;
    struct drain_result result;
    struct bench_limit_result limit = {0};
    int rc = 0;
    if (options->with_limit)
        rc = bench_limit_round(bench,
                               &(struct bench_limit_options){.jobs = options->jobs,
                                                             .batch = 512,
                                                             .keep = options->keep},
                               &limit, err);
    if (rc == 0)
        rc = drain_round(bench, options, &result, err);
    if (rc != 0)
        return rc;
    *rate = jobs / result.seconds;
    report_item(&bench->report);
    report_result(&bench->report, options, &result);
    if (options->with_limit) {
        *limit_rate = jobs / limit.seconds;
        report_real(&bench->report, "limit_jobs_per_s", *limit_rate, 0);
        report_real(&bench->report, "limit_wal_bytes_per_job", limit.wal_bytes / jobs, 0);
        report_real(&bench->report, "limit_backend_cpu_us_per_job",
                    limit.backend_cpu_s * 1e6 / jobs, 2);
        report_real(&bench->report, "percent_of_limit", *rate * 100 / *limit_rate, 1);
    }
    report_close(&bench->report);
    return 0;
}

static int
measure(struct bench *bench, const struct drain_options *options, jobq_error *err)
{
    size_t n = (size_t)options->rounds;
    double *rates = calloc(2 * n, sizeof *rates);
    int rc = rates != NULL ? 0 : jobq__error(err, JOBQ_ENOMEM, "out of memory");
    struct report *report = &bench->report;
    report_int(report, "jobs", options->jobs);
    report_int(report, "workers", options->workers);
    report_text(report, "keep", options->keep ? "all" : "none");
    if (options->command != NULL)
        report_text(report, "command", options->command);
    if (rc == 0 && options->explain)
        rc = bench_explain_claim(bench, 1000000, err);
    report_list(report, "rounds");
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = report_round(bench, options, &rates[i], &rates[n + i], err);
    report_close(report);
    if (rc == 0) {
        double median = report_median(rates, n);
        report_rates(report, "best_jobs_per_s", "median_jobs_per_s", rates, n);
        if (options->with_limit) {
            report_rates(report, "limit_best_jobs_per_s", "limit_median_jobs_per_s",
                         rates + n, n);
            report_real(report, "best_percent_of_best_limit",
                        rates[n - 1] * 100 / rates[2 * n - 1], 1);
            report_real(report, "median_percent_of_median_limit",
                        median * 100 / report_median(rates + n, n), 1);
        }
    }
    free(rates);
    return rc;
}

/* ---- The command ---- */

static int
parse(const struct cli *cli, struct drain_options *options, jobq_error *err)
{
    *options = (struct drain_options){.jobs = 200000, .rounds = 1};
    options->command = cli_get(cli, "command");
    options->with_limit = cli_has(cli, "with-limit");
    options->vacuum_held = cli_has(cli, "vacuum-held");
    options->explain = cli_has(cli, "explain");
    int rc = cli_get_int(cli, "jobs", 1, 100000000, &options->jobs, err);
    if (rc == 0)
        rc = bench_get_workers(cli, &options->workers, err);
    if (rc == 0)
        rc = cli_get_int(cli, "rounds", 1, 1000, &options->rounds, err);
    if (rc == 0)
        rc = bench_get_keep(cli, &options->keep, err);
    if (rc == 0 && options->vacuum_held && (!options->keep || options->jobs < TENTHS))
        rc = jobq__error(
            err, JOBQ_EINVAL,
            "--vacuum-held needs --keep all and at least %d jobs: the claims' "
            "times are read from the history",
            TENTHS);
    if (rc == 0 && options->command != NULL && !options->keep)
        rc = jobq__error(err, JOBQ_EINVAL,
                         "--command needs --keep all: its time is read from the history");
    if (rc == 0 && options->command != NULL && strchr(options->command, '\n') != NULL)
        rc = jobq__error(err, JOBQ_EINVAL, "--command must be one line");
    return rc;
}

static int
run(struct cli *cli)
{
    struct drain_options options;
    struct bench bench;
    jobq_error err = {0};
    if (parse(cli, &options, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = bench_open(&bench, cli);
    if (code == EX_OK && measure(&bench, &options, &err) != 0)
        code = cli_fail(cli, &err);
    return bench_close(&bench, code);
}

static const struct cli_option options_table[] = {
    {"jobs", "N", "how many jobs (default: 200000)"},
    {"workers", "N", "how many worker processes (default: one per processor)"},
    {"command", "COMMAND",
     "your own worker, as in `command =`, instead of one in C; the jobs have kind noop "
     "and args {\"n\": 1} and so on"},
    {"keep", "WORD",
     "whether completed jobs go to the history: all or none (default: all)"},
    {"rounds", "N", "how many rounds to measure, each on a fresh schema (default: 1)"},
    {"with-limit", NULL,
     "before each round, also measure `bench limit`, and show the ratio"},
    {"vacuum-held", NULL,
     "keep a snapshot open, so that nothing can be vacuumed; show how long each tenth of "
     "the claims took"},
    {"explain", NULL, "first show the plans of `bench explain`"},
    BENCH_OPTIONS};

const struct command bench_drain = {
    .name = "bench drain",
    .args = "",
    .summary = "Jobs per second of a whole jobqd with worker processes, from a backlog",
    .details = "The backlog is inserted by one statement and analyzed, not vacuumed. The "
               "clock runs from the start of the first handler to the commit of the last "
               "ack; with --command it runs from the first claim. The write-ahead log "
               "counts everything that the server wrote meanwhile.",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .named_file_only = true, /* else it would measure the host's own database */
    .json = true,
    .run = run};
