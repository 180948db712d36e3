/* bench_latency.c: `jobqd bench latency`: how soon a job starts on an idle system: from
 * the return of the insert's commit in this process to the handler's start in a worker
 * process, on one clock (CLOCK_MONOTONIC). One job at a time.
 *
 * Between two jobs the yardstick: on a connection of its own, what no design can avoid
 * between the insert's commit and the start: one row updated as a claim does it, and that
 * commit. It shows a slow disk for what it is, since both wait for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "jobqd/bench/bench_private.h"
#include "jobqd/db/query.h"
#include "jobqd/base/sqltext.h"
#include "libjobq/error.h"

extern const char sql_bench_enqueue[];
extern const char sql_bench_bare_table[];
extern const char sql_bench_bare_insert[];
extern const char sql_bench_bare_claim[];
extern const char sql_bench_bare_delete[];

enum { LATE_MS = 100, STUCK_S = 60 };

struct latency_options {
    int64_t jobs;
    int64_t workers;
    int64_t pause_ms; /* at most; 0: none */
};

static int
prepare(PGconn *conn, const struct bench *bench, const char *name, const char *sql,
        jobq_error *err)
{
    char *text = NULL;
    int rc = sqltext_expand(sql, bench->schema, &text, err);
    if (rc != 0)
        return rc;
    PGresult *result = PQprepare(conn, name, text, 0, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        rc = jobq__error(err, JOBQ_EDB, "%s", PQresultErrorMessage(result));
    PQclear(result);
    free(text);
    return rc;
}

/* Runs a prepared statement with one parameter, as a transaction of its own. *out (may be
 * NULL) is the caller's to PQclear. */
static int
execute(PGconn *conn, const char *name, const char *param, PGresult **out,
        jobq_error *err)
{
    PGresult *result = PQexecPrepared(conn, name, 1, &param, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);
    int rc = 0;
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        rc = jobq__error(err, JOBQ_EDB, "%s", PQerrorMessage(conn));
    if (rc == 0 && out != NULL)
        *out = result;
    else
        PQclear(result);
    return rc;
}

/* Opens the yardstick's connection; the caller's to PQfinish, also after a failure. */
static int
open_bare(struct bench *bench, PGconn **out, jobq_error *err)
{
    int rc = bench_connect(bench, out, err);
    if (rc == 0)
        rc = query(*out, bench->schema, sql_bench_bare_table, 0, NULL, NULL, err);
    if (rc == 0)
        rc = prepare(*out, bench, "insert", sql_bench_bare_insert, err);
    if (rc == 0)
        rc = prepare(*out, bench, "claim", sql_bench_bare_claim, err);
    if (rc == 0)
        rc = prepare(*out, bench, "delete", sql_bench_bare_delete, err);
    return rc;
}

/* The wait is in the kernel: it takes no time from jobqd. */
static int
wait_begun(struct bench *bench, struct bench_daemon *daemon, jobq_error *err)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STUCK_S;
    while (sem_timedwait(&bench->shared->begun, &until) != 0) {
        if (errno != EINTR && errno != ETIMEDOUT)
            return jobq__error(err, JOBQ_EIO, "sem_timedwait: %s", strerror(errno));
        bool late = errno == ETIMEDOUT;
        int rc = bench_daemon_check(daemon, err);
        if (rc == 0)
            rc = bench_pause_us(0, err);
        if (rc == 0 && late)
            rc =
                jobq__error(err, JOBQ_ESTATE, "a job did not start within %d s", STUCK_S);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Of each job: how long the insert took, which waits for the disk as the claim does, and
 * how much later the handler began. Of each turn of the yardstick: its one commit. */
struct samples {
    int64_t *insert_ns;
    int64_t *start_ns;
    int64_t *bare_ns;
};

static const char args[] = "{\"n\": 123}";

/* One job, alone; its start may be a little below 0: the worker may begin before the
 * commit's answer is read here. */
static int
sample(struct bench *bench, struct bench_daemon *daemon, const struct samples *samples,
       int64_t nth, jobq_error *err)
{
    int64_t begun_ns = bench_now_ns();
    int rc = execute(bench->conn, "enqueue", args, NULL, err);
    int64_t committed_ns = bench_now_ns();
    if (rc == 0)
        rc = wait_begun(bench, daemon, err);
    samples->insert_ns[nth] = committed_ns - begun_ns;
    samples->start_ns[nth] = atomic_load(&bench->shared->latest_ns) - committed_ns;
    return rc;
}

/* One turn of the yardstick. The row is gone before the next job. */
static int
sample_bare(PGconn *conn, int64_t *took_ns, jobq_error *err)
{
    PGresult *row;
    int rc = execute(conn, "insert", args, &row, err);
    if (rc != 0)
        return rc;
    const char *id = PQgetvalue(row, 0, 0);
    int64_t begun_ns = bench_now_ns();
    rc = execute(conn, "claim", id, NULL, err);
    *took_ns = bench_now_ns() - begun_ns;
    if (rc == 0)
        rc = execute(conn, "delete", id, NULL, err);
    PQclear(row);
    return rc;
}

/* 1 to pause_ms, even. */
static int64_t
random_pause_us(const struct latency_options *options, unsigned *seed)
{
    if (options->pause_ms == 0)
        return 0;
    return 1000 + rand_r(seed) % (options->pause_ms * 1000 - 999);
}

static int
take_samples(struct bench *bench, struct bench_daemon *daemon, PGconn *bare,
             const struct latency_options *options, const struct samples *samples,
             jobq_error *err)
{
    unsigned seed = 1;
    int rc = prepare(bench->conn, bench, "enqueue", sql_bench_enqueue, err);
    /* The first jobs, which are overwritten, find the workers still starting, and no
     * statement prepared. */
    for (int i = 0; rc == 0 && i < 20; i++)
        rc = sample(bench, daemon, samples, 0, err);
    for (int i = 0; rc == 0 && i < 20; i++)
        rc = sample_bare(bare, &samples->bare_ns[0], err);
    for (int64_t i = 0; rc == 0 && i < options->jobs; i++) {
        int64_t pause_us = random_pause_us(options, &seed);
        rc = bench_pause_us(pause_us, err);
        if (rc == 0)
            rc = sample(bench, daemon, samples, i, err);
        if (rc == 0)
            rc = bench_pause_us(pause_us, err);
        if (rc == 0)
            rc = sample_bare(bare, &samples->bare_ns[i], err);
    }
    return rc;
}

static void
report_samples(struct report *report, const struct latency_options *options,
               const struct samples *samples)
{
    static const struct {
        const char *name;
        double share;
    } ratios[] = {{"p50", 0.5}, {"p99", 0.99}};
    size_t n = (size_t)options->jobs;
    int64_t late = 0;
    for (int64_t i = 0; i < options->jobs; i++)
        late += samples->start_ns[i] > LATE_MS * INT64_C(1000000);
    report_int(report, "jobs", options->jobs);
    report_int(report, "workers", options->workers);
    report_int(report, "pause_at_most_ms", options->pause_ms);
    report_percentiles(report, "insert_and_commit", samples->insert_ns, n);
    report_percentiles(report, "commit_to_start", samples->start_ns, n);
    report_percentiles(report, "one_bare_commit", samples->bare_ns, n);
    report_group(report, "start_to_bare_commit");
    for (size_t i = 0; i < sizeof ratios / sizeof ratios[0]; i++)
        report_real(report, ratios[i].name,
                    report_percentile_ms(samples->start_ns, n, ratios[i].share) /
                        report_percentile_ms(samples->bare_ns, n, ratios[i].share),
                    2);
    report_close(report);
    report_int(report, "later_than_100_ms", late);
}

static int
measure(struct bench *bench, const struct latency_options *options, jobq_error *err)
{
    struct bench_daemon daemon = {0};
    size_t n = (size_t)options->jobs;
    PGconn *bare = NULL;
    int64_t *all = calloc(3 * n, sizeof *all);
    if (!all)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    const struct samples samples = {
        .insert_ns = all, .start_ns = all + n, .bare_ns = all + 2 * n};
    bench_shared_reset(bench->shared, true);
    int rc =
        bench_daemon_start(&daemon, bench,
                           &(struct bench_daemon_options){
                               .workers = options->workers, .keep = true, .notify = true},
                           err);
    if (rc == 0) {
        rc = open_bare(bench, &bare, err);
        if (rc == 0)
            rc = take_samples(bench, &daemon, bare, options, &samples, err);
        if (rc != 0)
            bench_daemon_tell(&daemon);
    }
    PQfinish(bare);
    int stopped = bench_daemon_stop(&daemon, rc == 0 ? err : NULL);
    if (rc == 0 && stopped == 0)
        report_samples(&bench->report, options, &samples);
    free(all);
    return rc == 0 ? stopped : rc;
}

static int
run(struct cli *cli)
{
    struct latency_options options = {.jobs = 20000, .pause_ms = 10};
    struct bench bench;
    jobq_error err = {0};
    int rc = cli_get_int(cli, "jobs", 1, 100000000, &options.jobs, &err);
    if (rc == 0)
        rc = cli_get_int(cli, "pause-ms", 0, 60000, &options.pause_ms, &err);
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
    {"jobs", "N", "how many jobs, one after the other (default: 20000)"},
    {"pause-ms", "N",
     "pause for a random time of 1 to N ms before each job and each bare commit, so that "
     "jobqd is idle; 0: no pause (default: 10)"},
    {"workers", "N", "how many worker processes (default: one per processor)"},
    BENCH_OPTIONS};

const struct command bench_latency = {
    .name = "bench latency",
    .args = "",
    .summary = "Time from an insert's commit to the handler's start on an idle system, "
               "with the time of a bare commit for comparison",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .named_file_only = true, /* else it would measure the host's own database */
    .json = true,
    .run = run};
